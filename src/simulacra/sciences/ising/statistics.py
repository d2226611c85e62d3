"""What can be measured on Ising lattices, and the verdict on lattices that claim to be in equilibrium. J = kB = 1, N = side^2.

Per lattice:    e = E / N,  m = sum s / N,  G(r) = mean of s_x s_{x+r} along both axes,  S(k) = |sum s_x e^{ikx}|^2 / N,
                a_k = share of spins with k of 4 neighbours aligned,  geometric clusters (connected aligned spins, periodic)
Per ensemble:   u = <e>                                   c   = N (<e^2> - <e>^2) / T^2
                chi = N (<m^2> - <|m|>^2) / T             U4  = 1 - <m^4> / (3 <m^2>^2)
                xi = sqrt(S(0) / S(k1) - 1) / (2 sin(k1/2)),  k1 = 2 pi / side
                T_local = 4 / ln(<a_3> / <a_1>)

Each is a function of plain averages over lattices. u and c are known exactly on every torus (kaufman.py). T_local equals T
exactly, on any torus: given its neighbours, whose sum is h s, a spin obeys P(s) / P(-s) = exp(2 h / T) (Callen 1963, Phys. Lett.
4:161), so turning spins over maps a_3 on a_1 with weight exp(-4/T). It is a thermometer that reads single lattices.
<m> is zero on every finite torus, so order is seen in |m|; and Onsager's infinite lattice is not the truth at side 32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from simulacra.evidence import Check, Evidence, Finding, Statistic, average, compare, distribution
from simulacra.measures import distance
from simulacra.sciences.ising import kaufman
from simulacra.sciences.ising.data import Lattices, clusters, label
from simulacra.study import Refused

Array = NDArray[np.float64]

COLDEST_FOR_COPIES = 2.2  # below, independent lattices resemble each other as closely as copies do
MOST_TEMPERATURES = 6  # with findings of their own; curves run over all
MOST_ROWS = 1000  # per side, for findings that compare every lattice with every other
LEAST_ROWS = 8  # per temperature

WRONG_T, ONE_SIGN, SHUFFLED, INDEPENDENT, COPIES = (
    "wrong temperature: one rung along the ladder",
    "one sign only: every lattice turned up",
    "shuffled spins: same magnetisation, no order",
    "independent spins: infinite temperature",
    "copies of training lattices",
)


# --- one number, or a few, per lattice ---


def energy(spins: ArrayLike) -> Array:
    """e = E / N of each lattice (n, side, side); -2 when fully ordered."""
    s = np.asarray(spins, np.int8)
    return -np.asarray((s * (np.roll(s, 1, 1) + np.roll(s, 1, 2))).mean((1, 2), dtype=np.float64))


def magnetisation(spins: ArrayLike) -> Array:
    """m of each lattice, in [-1, 1]."""
    return np.asarray(np.asarray(spins, np.int8).mean((1, 2), dtype=np.float64))


def two_point(spins: ArrayLike) -> Array:
    """G(r) of each lattice, r = 0 .. side/2, mean over both axes; <m>^2 is not subtracted. G(0) = 1, G(1) = -e/2."""
    power = _power(spins)
    side = power.shape[1]
    product = np.fft.ifft2(power).real / side**2
    half = side // 2 + 1
    return np.asarray((product[:, 0, :half] + product[:, :half, 0]) / 2)


def structure_factors(spins: ArrayLike) -> tuple[Array, Array]:
    """S(0) = N m^2 and S(k1), k1 = 2 pi / side along either axis, of each lattice."""
    power = _power(spins)
    size = power.shape[1] ** 2
    return power[:, 0, 0] / size, (power[:, 0, 1] + power[:, 1, 0]) / (2 * size)


def aligned_neighbours(spins: ArrayLike) -> Array:
    """(n, 5): share of spins with 0, 1, 2, 3, 4 neighbours like themselves."""
    s = np.asarray(spins, np.int8)
    alike = sum((s == np.roll(s, shift, axis)).astype(np.int8) for axis in (1, 2) for shift in (1, -1))
    return np.stack([np.mean(alike == k, axis=(1, 2)) for k in range(5)], axis=1)


def cluster_sizes(spins: ArrayLike) -> tuple[Array, Array]:
    """Of the clusters of connected aligned spins on the torus: share of spins in the largest, and the mean, over spins, of the
    size of the cluster that a spin belongs to."""
    s = np.asarray(spins, np.int8)
    cluster = clusters(s == np.roll(s, -1, 1), s == np.roll(s, -1, 2))
    size = np.bincount(cluster.reshape(-1))[cluster].reshape(len(s), -1)
    return size.max(1) / size.shape[1], size.mean(1)


def nearest_training(lattices: Lattices, training: Lattices, block: int = 2048) -> Array:
    """ln(1 + d), d the least number of spins by which each lattice differs from a training lattice or from its mirror image -s.

    Translations are not searched: a shifted copy is not found.
    """
    own = lattices.spins.reshape(len(lattices), -1).to(torch.float32)
    overlap = torch.zeros(len(lattices))
    for part in training.spins.reshape(len(training), -1).split(block):  # type: ignore[no-untyped-call]
        overlap = torch.maximum(overlap, (own @ part.to(torch.float32).T).abs().amax(1))
    return np.asarray(np.log1p((own.shape[1] - overlap.numpy().astype(np.float64)) / 2))


def _power(spins: ArrayLike) -> Array:
    return np.asarray(np.abs(np.fft.fft2(np.asarray(spins, np.float64))) ** 2)


# --- one number per ensemble ---


def heat_capacity(e: Array, e2: Array, side: int, temperature: ArrayLike) -> Array:
    """c from <e> and <e^2>."""
    return np.asarray(side**2 * (e2 - e**2) / np.asarray(temperature) ** 2)


def susceptibility(absolute: Array, m2: Array, side: int, temperature: ArrayLike) -> Array:
    """chi from <|m|> and <m^2>."""
    return np.asarray(side**2 * (m2 - absolute**2) / np.asarray(temperature))


def binder(m2: Array, m4: Array) -> Array:
    """U4: 2/3 when ordered, 0 when m is Gaussian."""
    return np.asarray(1 - m4 / (3 * np.maximum(m2, 1e-12) ** 2))


def correlation_length(s0: Array, s1: Array, side: int) -> Array:
    """Second-moment xi from <S(0)> and <S(k1)>, in lattice sites. A finite-size estimator: far below T_c it grows without bound."""
    return np.asarray(np.sqrt(np.maximum(s0 / np.maximum(s1, 1e-12) - 1, 0)) / (2 * np.sin(np.pi / side)))


def local_temperature(a1: Array, a3: Array) -> Array:
    """T_local from <a_1> and <a_3>; negative where more spins oppose their neighbours than follow them."""
    ratio = np.log(np.maximum(a3, 1e-9) / np.maximum(a1, 1e-9))
    return np.asarray(4 / np.where(np.abs(ratio) < 1e-9, 1e-9, ratio))


# --- a set of lattices, measured once ---


@dataclasses.dataclass(frozen=True)
class Observed:
    """Every observable of every lattice: arrays that share axis 0."""

    temperature: Array  # as claimed, rounded to 1e-4
    e: Array
    m: Array
    g: Array  # (n, side/2): G(r), r = 1 ..
    s0: Array
    s1: Array
    aligned: Array  # (n, 5)
    largest: Array
    mean_cluster: Array
    copied: Array  # ln(1 + spins that differ from the nearest training lattice); nan where not asked
    features: Array  # (n, k) standardised; nan where left out

    def __len__(self) -> int:
        return len(self.e)

    def rows(self, index: NDArray[np.int64]) -> Observed:
        return Observed(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})


def observe(lattices: Lattices, training: Lattices | None = None) -> Observed:
    """Measure. With `training`, also how close each lattice of T >= 2.2 comes to one of them."""
    spins, temperature = lattices.spins.cpu().numpy(), label(lattices.temperature.cpu().numpy())
    n = len(lattices)
    copied = np.full(n, np.nan)
    if training is not None and len(training):
        warm = temperature >= COLDEST_FOR_COPIES
        copied[warm] = nearest_training(lattices[torch.from_numpy(warm)], training)
    s0, s1 = structure_factors(spins)
    largest, mean = cluster_sizes(spins)
    return Observed(
        temperature, energy(spins), magnetisation(spins), two_point(spins)[:, 1:], s0, s1, aligned_neighbours(spins), largest, mean,
        copied, np.full((n, 1), np.nan),
    )  # fmt: skip


def _feature_scale(nature: Observed, drawn: Observed) -> dict[float, tuple[Array, Array]]:
    """Per temperature, mean and spread of the features of both sides together: a scale that does not know which side is which,
    or the permutation test would not be exact."""
    raw, t = np.concatenate([_raw_features(nature), _raw_features(drawn)]), np.concatenate([nature.temperature, drawn.temperature])
    return {float(u): (raw[t == u].mean(0), np.maximum(raw[t == u].std(0), 1e-6)) for u in np.unique(t)}


def _described(observed: Observed, scale: dict[float, tuple[Array, Array]], rows: NDArray[np.bool_]) -> Observed:
    """With features, in units of their spread at the temperature, and a column that keeps temperatures apart; nan outside `rows`."""
    raw = _raw_features(observed)
    features = np.full((len(observed), raw.shape[1] + 1), np.nan)
    for rung, (t, (middle, spread)) in enumerate(scale.items()):
        here = (observed.temperature == t) & rows
        features[here, :-1] = (raw[here] - middle) / spread
        features[here, -1] = 50.0 * rung
    return dataclasses.replace(observed, features=features)


FEATURES = ("e", "|m|", "ln S(k1)", "a_2", "a_0 + a_1", "G(side/8)", "G(side/2)", "largest cluster")


def _raw_features(o: Observed) -> Array:
    far = o.g.shape[1]
    few = o.aligned[:, 0] + o.aligned[:, 1]
    eighth = o.g[:, max(far // 4, 1) - 1]
    return np.stack([o.e, np.abs(o.m), np.log(o.s1 + 1e-3), o.aligned[:, 2], few, eighth, o.g[:, -1], o.largest], axis=1)


def _at_most(observed: Observed, count: int) -> NDArray[np.bool_]:
    """Rows that take part where every lattice is compared with every other: the first ones of each temperature."""
    rows = np.zeros(len(observed), bool)
    temperatures = np.unique(observed.temperature)
    for t in temperatures:
        rows[np.flatnonzero(observed.temperature == t)[: max(count // len(temperatures), LEAST_ROWS)]] = True
    return rows


# --- the verdict ---


def judge(
    nature: Lattices, drawn: Lattices, *, seed: int, training: Lattices | None = None, permutations: int = 999, halves: int = 100
) -> Evidence:
    """Held-out equilibrium lattices against drawn ones of the same side, as many of each as both have at each temperature. With
    `training`, also whether lattices were copied. The independent unit is the lattice."""
    nature, drawn, remarks = _matched(nature, drawn)
    temperatures = np.unique(label(nature.temperature.numpy()))
    truth, claim = observe(nature, training), observe(drawn, training)
    rows = _at_most(truth, MOST_ROWS), _at_most(claim, MOST_ROWS)
    scale = _feature_scale(truth, claim)
    rivals = {name: _described(rival, scale, _at_most(rival, MOST_ROWS)) for name, rival in _rivals(nature, truth, seed)}
    truth, claim = _described(truth, scale, rows[0]), _described(claim, scale, rows[1])
    statistics = _statistics(temperatures, nature.side, copies=bool(np.isfinite(truth.copied).sum() >= LEAST_ROWS))
    evidence = compare(statistics, truth, claim, rivals, seed=seed, condition=lambda o: o.temperature,
                       permutations=permutations, halves=halves)  # fmt: skip
    checks = [c for t in _featured(temperatures) for c in _checks(float(t), nature.side, truth, claim, evidence.findings)]
    return dataclasses.replace(evidence, checks=checks, remarks=[*remarks, *_remarks(temperatures, training)])


def _matched(nature: Lattices, drawn: Lattices) -> tuple[Lattices, Lattices, list[str]]:
    """As many lattices on either side at each temperature that both have: conditions must not differ. Refused where too few are."""
    if nature.side != drawn.side:
        raise Refused(f"held-out lattices have side {nature.side}, drawn ones {drawn.side}; finite-size effects forbid comparing them")
    labels = [label(x.temperature.cpu().numpy()) for x in (nature, drawn)]
    counts = [dict(zip(*(part.tolist() for part in np.unique(x, return_counts=True)), strict=True)) for x in labels]
    common = {t: min(n, counts[1][t]) for t, n in counts[0].items() if t in counts[1]}
    if min(common.values(), default=0) < LEAST_ROWS:
        raise Refused(f"lattices per temperature: held-out {counts[0]}, drawn {counts[1]}; both need at least {LEAST_ROWS} at each")
    if counts[0] == counts[1]:
        return nature, drawn, []
    chosen = [np.concatenate([np.flatnonzero(x == t)[:n] for t, n in common.items()]) for x in labels]
    remark = f"Lattices per temperature: held-out {counts[0]}, drawn {counts[1]}; judged on what both have, {common}."
    return nature[torch.from_numpy(chosen[0])], drawn[torch.from_numpy(chosen[1])], [remark]


def _rivals(nature: Lattices, truth: Observed, seed: int) -> Iterator[tuple[str, Observed]]:
    temperatures = np.unique(truth.temperature)
    yield ONE_SIGN, dataclasses.replace(truth, m=np.abs(truth.m))
    yield COPIES, dataclasses.replace(truth, copied=np.where(np.isfinite(truth.copied), 0.0, np.nan))
    if len(temperatures) > 1:
        moved = truth.rows(_one_rung_along(truth.temperature, temperatures))
        yield WRONG_T, dataclasses.replace(moved, temperature=truth.temperature)
        return
    rng = np.random.default_rng([seed, 0x1D])
    flat = nature.spins.numpy().reshape(len(nature), -1)
    for name, spins in ((SHUFFLED, rng.permuted(flat, axis=1)), (INDEPENDENT, rng.choice(np.array([-1, 1], np.int8), flat.shape))):
        yield name, observe(dataclasses.replace(nature, spins=torch.from_numpy(spins.reshape(nature.spins.shape))))


def _one_rung_along(temperature: Array, ladder: Array) -> NDArray[np.int64]:
    """For each row a row of the next temperature up; for those of the highest, of the one before."""
    index = np.empty(len(temperature), np.int64)
    for i, t in enumerate(ladder):
        other = np.flatnonzero(temperature == ladder[i + 1 if i + 1 < len(ladder) else i - 1])
        here = np.flatnonzero(temperature == t)
        index[here] = other[np.arange(len(here)) % len(other)]
    return index


def _featured(temperatures: Array) -> Array:
    """The temperatures with findings of their own: all, or six spread over the ladder, among them the one nearest to T_c."""
    if len(temperatures) <= MOST_TEMPERATURES:
        return temperatures
    chosen = np.linspace(0, len(temperatures) - 1, MOST_TEMPERATURES).round().astype(int)
    critical = int(np.argmin(np.abs(temperatures - kaufman.critical_temperature())))
    chosen[1:-1][np.argmin(np.abs(chosen[1:-1] - critical))] = critical
    return np.asarray(temperatures[np.unique(chosen)])


def _remarks(temperatures: Array, training: Lattices | None) -> list[str]:
    order = "the next higher temperature held out, for the highest the one before" if len(temperatures) > 1 else "shuffled or fair spins"
    remarks = [
        f"A gap of 1 is the error of lattices from {order}; for m, of lattices all turned up.",
        "The independent unit is the lattice: spins of one lattice are not counted as separate evidence.",
        f"Nearest-neighbour and energy distances use at most {MOST_ROWS} lattices of each side.",
    ]
    if len(temperatures) > MOST_TEMPERATURES:
        some = ", ".join(f"{t:g}" for t in _featured(temperatures))
        remarks.append(f"Findings of single temperatures are given for T = {some}; curves use all.")
    if training is None:
        remarks.append("No training lattices were given, so copying was not examined.")
    else:
        remarks.append(f"Copies are looked for at T >= {COLDEST_FOR_COPIES} and up to a global flip; shifted copies are not found.")
    return remarks


# --- what is compared ---


def _statistics(temperatures: Array, side: int, *, copies: bool) -> list[Statistic[Observed]]:
    statistics = [s for t in _featured(temperatures) for s in _at_one_temperature(float(t), side, ladder=len(temperatures) > 1)]
    statistics += [*_curves(temperatures, side), *_all_features(ladder=len(temperatures) > 1)]
    if copies:
        statistics.append(_memorisation(side))
    return statistics


def _only(t: float, field: Callable[[Observed], Array]) -> Callable[[Observed], Array]:
    """The measurement at one temperature; nan elsewhere."""

    def measure(o: Observed) -> Array:
        values = field(o).astype(float)
        values[o.temperature != t] = np.nan
        return values

    return measure


def _at_one_temperature(t: float, side: int, *, ladder: bool) -> list[Statistic[Observed]]:
    order, moment = (WRONG_T, WRONG_T) if ladder else (SHUFFLED, INDEPENDENT)  # shuffling leaves m and the largest cluster
    at = f"T = {t:g}"
    centre = float(kaufman.energy(side, t))
    width = max(5 * t * np.sqrt(float(kaufman.heat_capacity(side, t))) / side, 8 / side**2)
    e_bins = np.linspace(max(centre - width, -2.0), centre + width, 31)
    lags = np.arange(1.0, side // 2 + 1)
    return [
        distribution(f"energy per spin, {at}", "J", "Law of E / N over lattices; W1.", _only(t, lambda o: o.e), e_bins, rival=order),
        distribution(f"|m|, {at}", "", "Law of the absolute magnetisation per spin; W1.", _only(t, lambda o: np.abs(o.m)),
                     np.linspace(0, 1, 31), rival=moment),
        distribution(f"m, {at}", "", "Law of the magnetisation per spin: both signs are equally likely; W1.", _only(t, lambda o: o.m),
                     np.linspace(-1, 1, 41), rival=ONE_SIGN),
        distribution(f"largest cluster, {at}", "", "Law of the share of spins in the largest cluster of aligned spins; W1.",
                     _only(t, lambda o: o.largest), np.linspace(0, 1, 31), rival=moment),
        average(f"G(r), {at}", "", "Mean of s_x s_(x+r) along the axes; root mean square difference over r.", _only(t, lambda o: o.g),
                lags, "separation r (lattice sites)", rival=order),
        average(f"aligned neighbours, {at}", "share of spins", "Spins with k neighbours like themselves; root mean square difference.",
                _only(t, lambda o: o.aligned), np.arange(5.0), "aligned neighbours k", rival=order, bars=True),
    ]  # fmt: skip


def _columns(temperatures: Array) -> Callable[[Observed], Array]:
    """(n, temperatures * 10): 1, e, e^2, |m|, m^2, m^4, S(0), S(k1), a_1, a_3 in the columns of a lattice's own temperature, so
    that plain averages over all lattices hold the averages at each temperature."""

    def measure(o: Observed) -> Array:
        m2 = o.m**2
        moments = np.stack([np.ones(len(o)), o.e, o.e**2, np.abs(o.m), m2, m2**2, o.s0, o.s1, o.aligned[:, 1], o.aligned[:, 3]], axis=1)
        own = o.temperature[:, None] == temperatures
        return np.asarray((own[:, :, None] * moments[:, None, :]).reshape(len(o), -1))

    return measure


def _of_means(function: Callable[[Array], Array], count: int) -> Callable[[Array], Array]:
    """From averages over all lattices (b, count * 10) to `function` of the averages at each temperature, moments on axis 0."""

    def curve(means: Array) -> Array:
        table = means.reshape(len(means), count, -1)
        return function(np.moveaxis(table[..., 1:] / np.maximum(table[..., :1], 1e-12), -1, 0))

    return curve


def _curves(temperatures: Array, side: int) -> list[Statistic[Observed]]:
    order, moment = (WRONG_T, WRONG_T) if len(temperatures) > 1 else (SHUFFLED, INDEPENDENT)
    measure, count = _columns(temperatures), len(temperatures)

    def curve(
        name: str, unit: str, about: str, function: Callable[[Array], Array], rival: str, shown: Callable[[Array], Array] | None = None,
        exact: Array | None = None, exact_name: str = "", log_values: bool = False,
    ) -> Statistic[Observed]:  # fmt: skip
        return average(
            name, unit, f"{about} Root mean square over temperatures.", measure, temperatures, "temperature T (J / kB)", rival=rival,
            function=_of_means(function, count), shown=_of_means(shown or function, count), exact=exact, exact_name=exact_name,
            log_values=log_values,
        )  # fmt: skip

    def chi(a: Array) -> Array:
        return susceptibility(a[2], a[3], side, temperatures)

    torus = f"Kaufman, exact on the {side} x {side} torus"
    return [
        curve("u(T)", "J", "Mean energy per spin.", lambda a: a[0], order, exact=kaufman.energy(side, temperatures), exact_name=torus),
        curve("c(T)", "kB", "Heat capacity per spin, from the variance of the energy.",
              lambda a: heat_capacity(a[0], a[1], side, temperatures), order,
              exact=kaufman.heat_capacity(side, temperatures), exact_name=torus),
        curve("<|m|>(T)", "", "Mean absolute magnetisation per spin.", lambda a: a[2], moment),
        curve("chi(T)", "1 / J", "Susceptibility per spin with <|m|>; difference of logarithms.",
              lambda a: np.log(np.maximum(chi(a), 1e-6)), moment, chi, log_values=True),
        curve("U4(T)", "", "Binder's cumulant.", lambda a: binder(a[3], a[4]), moment),
        curve("xi(T)", "lattice sites", "Second-moment correlation length; difference of ln S(0) / S(k1).",
              lambda a: np.log(np.maximum(a[5], 1e-9) / np.maximum(a[6], 1e-9)), order, lambda a: correlation_length(a[5], a[6], side),
              log_values=True),
        curve("T_local(T)", "J / kB", "Temperature read off single spins and their neighbours; difference of 1 / T_local.",
              lambda a: 1 / local_temperature(a[7], a[8]), order, lambda a: local_temperature(a[7], a[8]), exact=temperatures,
              exact_name="T_local = T, exact in equilibrium"),
    ]  # fmt: skip


def _all_features(*, ladder: bool) -> list[Statistic[Observed]]:
    rival = WRONG_T if ladder else SHUFFLED
    names = ", ".join(FEATURES)

    def statistic(name: str, about: str, measure: distance.Distance, tested: bool) -> Statistic[Observed]:
        return Statistic(
            name, "mean, in standard deviations", f"{about} Features: {names}; in units of their spread at the temperature.",
            lambda o: o.features, measure, rival, "feature", np.arange(1.0, len(FEATURES) + 1),
            lambda values, weights: weights @ values[:, :-1], tested=tested, bars=True,
        )  # fmt: skip

    return [
        statistic("classifier two-sample test", "Two-sample test by nearest-neighbour classifier; 0 is chance, 1/2 perfect.",
                  distance.neighbour_test, True),
        statistic("energy distance of features", "Szekely and Rizzo's energy distance within temperatures.", distance.energy, True),
        statistic("coverage (share missed)", "Share of nature that no drawn lattice comes near.", distance.missed, False),
        statistic("precision (share outside)", "Share of drawn lattices near no lattice of nature.", distance.unlikely, False),
    ]  # fmt: skip


def _memorisation(side: int) -> Statistic[Observed]:
    return distribution(
        "memorisation", "ln(1 + spins)",
        "How much closer drawn lattices come to training than held-out ones do: one-sided W1 of ln(1 + d), d the least number of "
        f"differing spins up to a global flip, at T >= {COLDEST_FOR_COPIES}.", lambda o: o.copied,
        np.linspace(0, np.log1p(side**2 / 2), 31), rival=COPIES, distance=distance.shortfall,
    )  # fmt: skip


# --- held to numbers that stand outside the samples ---


def _checks(t: float, side: int, nature: Observed, drawn: Observed, findings: Sequence[Finding]) -> list[Check]:
    named = {f.name: f for f in findings}
    here = drawn.rows(np.flatnonzero(drawn.temperature == t))
    theirs = nature.rows(np.flatnonzero(nature.temperature == t))
    return [
        _energy_check(t, side, here.e, theirs.e),
        _heat_capacity_check(t, side, here.e, theirs.e),
        _magnetisation_check(t, named[f"|m|, T = {t:g}"]),
        _two_point_check(t, named[f"G(r), T = {t:g}"]),
        _sign_check(t, here.m, theirs.m),
    ]


def _energy_check(t: float, side: int, drawn: Array, nature: Array) -> Check:
    exact = float(kaufman.energy(side, t))
    off, error = abs(float(drawn.mean()) - exact), _standard_error(drawn)
    beside = {"Monte Carlo": abs(float(nature.mean()) - exact), "its standard error": _standard_error(nature), "Kaufman's u": exact}
    return Check(f"|u - Kaufman|, T = {t:g}", off, error, "below 0.01 J", off < 0.01, beside)


def _heat_capacity_check(t: float, side: int, drawn: Array, nature: Array) -> Check:
    exact, unit = float(kaufman.heat_capacity(side, t)), (side / t) ** 2
    ratio, own = (unit * float(e.var(ddof=1)) / exact for e in (drawn, nature))
    beside = {"Monte Carlo": own, "its standard error": _variance_error(nature) * unit / exact, "Kaufman's c": exact}
    return Check(f"c / Kaufman, T = {t:g}", ratio, _variance_error(drawn) * unit / exact, "0.9 to 1.1", abs(ratio - 1) < 0.1, beside)


def _magnetisation_check(t: float, law: Finding) -> Check:
    error = (law.gap_high - law.gap_low) / 3.92 * (law.ceiling - law.floor)
    beside = {"floor": law.floor, "ceiling": law.ceiling}
    return Check(f"W1(|m|), T = {t:g}", law.distance, error, "below 0.03", law.distance < 0.03, beside)


def _two_point_check(t: float, g: Finding) -> Check:
    beside = {"distance": g.distance, "floor": g.floor, "ceiling": g.ceiling}
    return Check(f"gap of G(r), T = {t:g}", g.gap, (g.gap_high - g.gap_low) / 3.92, "below 0.2", g.gap < 0.2, beside)


def _sign_check(t: float, drawn: Array, nature: Array) -> Check:
    share, own = (float(np.mean((np.sign(m) + 1) / 2)) for m in (drawn, nature))  # m = 0 counts half
    error = 0.5 / math.sqrt(len(drawn))
    met = abs(share - 0.5) <= 3 * error
    return Check(f"share of m > 0, T = {t:g}", share, error, f"0.5 within {3 * error:.3f}", met, {"Monte Carlo": own})


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _variance_error(values: Array) -> float:
    """Standard error of the sample variance, from the fourth moment."""
    off = values - values.mean()
    return math.sqrt(max((off**4).mean() - (off**2).mean() ** 2, 0.0) / len(values))
