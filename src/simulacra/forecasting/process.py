"""A Gaussian process made from what a record shows, and its forecasts from one origin after another.

Values are standardised, with a spread that changes over the year where two years are known; counts that grow and shrink by factors are
taken as log(1 + count) first. The kernel is a sum of Markov processes, so forecasts at many origins cost one pass over the record.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from simulacra.families.gp import Fit, GaussianProcess, Kernel, Matern, Periodic, Sum, White, fit
from simulacra.families.gp.kernels import functions
from simulacra.families.gp.statespace import State, StateSpace, symmetric
from simulacra.series.windows import YEAR, Outlook, stratified, year_phase
from simulacra.study import Noise, Refused

Array = NDArray[np.float64]
Days = NDArray[np.int64]

FEWEST = 10  # values before the first origin
SHORT = 60  # values below which a series shows no more than its short memory
YEARS, YEARS_OF_TEMPERATURE = 2.0, 1.25  # of values for a yearly cycle to be taken in; nobody doubts that of a temperature
TEMPERATURES = ("°C", "°F", "K")
LEARNED = 30 * YEAR  # days from whose likelihood parameters are learned; all of them are conditioned on
CHOSEN_ON = 8 * YEAR  # days on which the form of the kernel is chosen
LONGEST = 64  # periods that update a state at once
LATEST = 60  # days in which counts that are mostly 0 are warned of
COUNTS_FALL = 0.02  # share of counts that may be negative: corrections


@dataclasses.dataclass(frozen=True)
class Scale:
    """Between measured values y and standardised ones: z = (f(y) - centre) / spread(day), f the logarithm of 1 + y or nothing."""

    log: bool
    floor: float  # values never lie below it
    centre: float
    variance: Array  # harmonics of the year, (1 + 2k,)

    def standardised(self, days: Days, values: Array) -> Array:
        """z (...,) of values (...,) on days (...,)."""
        f = np.log1p(np.maximum(values, 0)) if self.log else values
        return np.asarray((f - self.centre) / self.spread(days))

    def values(self, days: Days, z: Array) -> Array:
        """The opposite."""
        f = self.centre + self.spread(days) * z
        return np.asarray(np.maximum(np.expm1(f) if self.log else f, self.floor))

    def spread(self, days: Days) -> Array:
        """Standard deviation of f(y) about its seasons on days (...,)."""
        variance = _waves(days, len(self.variance) // 2) @ self.variance
        return np.asarray(np.sqrt(np.maximum(variance, 0.05 * self.variance[0])))


@dataclasses.dataclass(frozen=True)
class Model:
    """A Gaussian process of one series, and what it was learned from."""

    scale: Scale
    kernel: Kernel
    words: Mapping[str, str]  # label of a term -> what it is
    days: Days  # (T,)
    z: Array  # (T,) standardised, NaN where missing
    every: int
    widened: float  # factor on variances: parameters were learned from few values
    remarks: Sequence[str]  # what was decided, and why
    chosen: Sequence[str]  # those of them on the form of the kernel
    solver: str

    @property
    def yearly(self) -> bool:
        """Whether it has a year."""
        return "year" in self.words.values()

    @property
    def short(self) -> bool:
        """Whether it has a short memory and nothing else."""
        return len(self.words) == 1

    def terms(self) -> dict[str, str]:
        """What each term is, with the time over which it changes: label -> words."""
        values, found = self.kernel.parameters(), {}
        for label, name in self.words.items():
            length = values.get(f"{label}.lengthscale", 0.0) if label.startswith("matern") else 0.0
            name = "longer memory" if name == "slow trend" and length < SHORT * self.every else name
            found[label] = f"{name} over {_duration(length)}" if length else name
        return found

    def sentence(self) -> str:
        """The terms in one line."""
        return f"{' + '.join(self.terms().values())} + noise ({self.solver} solver)"

    def state(self) -> State:
        """What its record says about the process on the last of its days."""
        return StateSpace.of(self.kernel).filtered(self.days.astype(float), self.z)

    def laws(self, days: Days, values: Array, origins: Days, horizon: int) -> tuple[Array, Array]:
        """Mean (n, H) and covariance (n, H, H) of standardised observations after each of the increasing `origins` (n,), which lie at or
        after the end of the model's record, given all of `values` (T,) on `days` (T,) up to that origin. Exact: one state is moved on
        from origin to origin."""
        space, state = StateSpace.of(self.kernel), self.state()
        ahead = self.every * np.arange(1.0, horizon + 1)
        rows, law = space.rows(ahead), space.decaying
        new = space.covariance(np.abs(ahead[:, None] - ahead)) - rows @ law @ rows.T + self.kernel.noise() * np.eye(horizon)
        means, covariances = [], []
        for origin in origins.tolist():
            for start in range(int(state.time) + self.every, origin + 1, LONGEST * self.every):
                chosen = (days >= start) & (days <= min(origin, start + (LONGEST - 1) * self.every))
                state = _moved_on(space, state, days[chosen], self.scale.standardised(days[chosen], values[chosen]))
            means.append(rows @ state.mean)
            covariances.append(self.widened * symmetric(rows @ state.covariance @ rows.T + new))
        return np.stack(means), np.stack(covariances)

    def draw(self, rows: Outlook, days: Days, values: Array, members: int, seed: int) -> Outlook:
        """Members of the future of each row, whose days increase: quantiles of its law at every period, joined as the law says."""
        mean, covariance = self.laws(days, values, rows.day.numpy(), rows.horizon)
        spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        correlation = covariance / (spread[:, :, None] * spread[:, None, :]) + 1e-9 * np.eye(rows.horizon)
        normal = Noise(seed, (rows.day - int(self.days[0])).tolist()).normal(members, rows.horizon).double().numpy()
        levels = stratified(torch.as_tensor(normal @ np.linalg.cholesky(correlation).transpose(0, 2, 1))).numpy()
        z = mean[:, None] + spread[:, None] * ndtri(levels)
        return rows.with_future(torch.as_tensor(self.scale.values(rows.target_days().numpy()[:, None], z)))


def _duration(days: float) -> str:
    return f"{days:.2g} days" if days < 100 else f"{days / YEAR:.2g} years"


def _moved_on(space: StateSpace, state: State, days: Days, z: Array) -> State:
    """`state` after observations z (k,), NaN where there is none, on later days (k,)."""
    lag: Array = days.astype(float) - state.time
    blocks, _ = space.condensed(lag[None], lag[-1:], np.isfinite(z)[None])
    onward, gain, y = blocks.transition[0], blocks.gain[0], np.nan_to_num(z)
    kept = np.linalg.inv(np.eye(space.dimension) + state.covariance @ blocks.information[0])
    mean = onward @ kept @ (state.mean + state.covariance @ (blocks.read[0] @ y)) + gain @ y
    return State(mean, symmetric(onward @ kept @ state.covariance @ onward.T + blocks.covariance[0]), float(days[-1]))


def compose(days: Days, values: Array, every: int, unit: str = "", like: Model | None = None) -> Model:
    """A process for values (T,) on days (T,), NaN where missing, chosen and learned from them alone; with `like`, of its form.

    Short memory is Matern 1/2 or 3/2, whichever is likelier. With SHORT values or more there is a slow Matern 3/2 trend; with two years
    (of a temperature: 1.25) a yearly cycle that drifts, and with two a spread that changes over the year; a week where the Bayesian
    information criterion (Schwarz 1978) says that daily values show one. Refused where too little is known.
    """
    seen = np.flatnonzero(np.isfinite(values))
    if len(seen) < FEWEST:
        raise Refused(f"{len(seen)} values before the first origin are too few to learn from; at least {FEWEST} are needed")
    days, values = days[seen[0] :], values[seen[0] :]
    remarks: list[str] = []
    years = float(days[seen[-1] - seen[0]] - days[0]) / YEAR
    wanted = YEARS_OF_TEMPERATURE if unit in TEMPERATURES else YEARS
    yearly = years >= wanted and len(seen) >= 0.4 * years * YEAR / every
    scale = _scaled(days, values, every, unit, yearly and years >= YEARS, remarks)
    z = scale.standardised(days, values)
    known = np.isfinite(z)
    if np.ptp(z[known]) == 0:
        raise Refused("the series does not change before the first origin, so nothing can be learned from it; try fewer --origins")
    if like is not None and like.yearly == yearly and like.short == (len(seen) < SHORT):
        kernel, parts, chosen = like.kernel, list(like.words.values()), like.chosen
    else:
        kernel, parts, chosen = _form(days, z, every, yearly, f"{wanted:g} years of values are needed, and there are {years:.1f}")
    found = _fitted(kernel, days, z, every, LEARNED)
    widened = known.sum() / max(known.sum() - len(kernel.free()) - 1, 2)
    kernel = found.gp.kernel
    words = dict(zip(functions(kernel), parts, strict=True))
    return Model(scale, kernel, words, days, z, every, float(widened), [*remarks, *chosen], chosen, found.solver)


def _form(days: Days, z: Array, every: int, yearly: bool, years: str) -> tuple[Kernel, list[str], list[str]]:
    """The kernel to start from, what its terms are, and why; `years`: why it is not yearly."""
    number = int(np.isfinite(z).sum())
    if number < SHORT:
        few = f"{number} values show no trend, week or year: the process has a short memory and noise alone, and its bands are wide."
        return Matern(0.5, 0.7, 3.0 * every) + White(0.3), ["short memory"], [few]
    reach = max(min(400.0, float(days[-1] - days[0]) / 4), 10.0 * every)
    year = [Periodic(0.6, 1.5, YEAR, fixed=("period",))] if yearly else []
    rest = (Matern(1.5, 0.05 if yearly else 0.5, reach), *year, White(0.05))
    tried = [_fitted(Sum((Matern(order, 0.3, 3.0 * every), *rest)), days, z, every, CHOSEN_ON) for order in (0.5, 1.5)]
    best = max(tried, key=lambda found: found.log_likelihood)
    words, why = ["short memory", "slow trend", *(["year"] if yearly else [])], list[str]()
    if not yearly:
        why = [f"No yearly cycle: {years}."]
    if every == 1:
        best, said = _with_week(best, days, z)
        words, why = [*words, *(["week"] if said.startswith("A week") else [])], [*why, said]
    decay = Matern(0.5, 1.0, 20 * YEAR, fixed=("variance",))
    terms = [term * decay if isinstance(term, Periodic) and term.period == YEAR else term for term in _terms(best.gp.kernel)]
    return Sum(tuple(terms)), words, why


def _with_week(found: Fit, days: Days, z: Array) -> tuple[Fit, str]:
    """The same with the weekly term that the Bayesian information criterion asks for: none, one that repeats, or one that drifts."""
    number = int(np.isfinite(z[days > days[-1] - CHOSEN_ON]).sum())
    cycle = Periodic(0.05, 1.5, 7.0, fixed=("period",))
    repeats = _fitted(found.gp.kernel + cycle, days, z, 1, CHOSEN_ON)
    gain = repeats.log_likelihood - found.log_likelihood
    if 2 * gain <= 2 * math.log(number):
        asked = f"less than the {math.log(number):.1f} that two more parameters must bring"
        return found, f"No weekly cycle: it would raise the log-likelihood by {max(gain, 0):.1f}, {asked}."
    *others, cycle_found = _terms(repeats.gp.kernel)
    drift = cycle_found * Matern(0.5, 1.0, 200.0, fixed=("variance",))
    drifts = _fitted(Sum((*others, drift)), days, z, 1, CHOSEN_ON)
    changes = 2 * (drifts.log_likelihood - repeats.log_likelihood) > math.log(number)
    over = ", and it changes over time" if changes else ""
    return drifts if changes else repeats, f"A week shows: a weekly cycle raises the log-likelihood by {gain:.1f}{over}."


def _terms(kernel: Kernel) -> tuple[Kernel, ...]:
    return kernel.parts if isinstance(kernel, Sum) else (kernel,)


def _fitted(kernel: Kernel, days: Days, z: Array, every: int, recent: float) -> Fit:
    """The kernel that is likeliest for the last `recent` days."""
    kept = days > days[-1] - recent
    t, y = days[kept].astype(float), z[kept]
    bounds: dict[str, tuple[float, float]] = {}
    for name in kernel.free():
        if name.endswith("periodic.lengthscale"):
            bounds[name] = (0.7, 10.0)
        elif name.startswith("product") and name.endswith("matern 1/2.lengthscale"):
            bounds[name] = (60.0, 300 * YEAR)
    long = sum(name.startswith("matern") and name.endswith("lengthscale") for name in kernel.free())
    slow = [name for name in kernel.free() if name.startswith("matern 3/2") and name.endswith("lengthscale")][-1:] if long > 1 else []
    bounds |= {name: (5.0 * every, max(3 * float(t[-1] - t[0]), 20.0 * every)) for name in slow}
    return fit(GaussianProcess(kernel), t, y, bounds=bounds, evaluations=60)


def _scaled(days: Days, values: Array, every: int, unit: str, yearly: bool, remarks: list[str]) -> Scale:
    seen = np.isfinite(values)
    y = values[seen]
    log = _grows_by_factors(values, every, unit)
    below = int((y < 0).sum())
    if log:
        remarks.append("Whole numbers that grow and shrink by factors: forecast on the scale log(1 + count).")
        recent = values[-LATEST:][np.isfinite(values[-LATEST:])]
        if every == 1 and np.mean(recent == 0) > 0.5:
            remarks.append(
                f"Warning: {np.mean(recent == 0):.0%} of the counts of the last {LATEST} days are 0. If they are reported once a week, "
                "sum them to weeks first and forecast those."
            )
        if below:
            remarks.append(f"{below} negative counts (corrections) stand as 0 on that scale.")
    elif y.min() >= 0 and np.mean(y == 0) > 0.01:
        remarks.append("Values are never negative and often 0: paths that would fall below 0 are set to 0.")
    floor = 0.0 if log or (y.min() >= 0 and np.mean(y == 0) > 0.01) else -math.inf
    f = np.log1p(np.maximum(y, 0)) if log else y
    seasonal = yearly and not log
    waves = _waves(days[seen], 3 if seasonal else 0)
    squared = (f - waves @ np.linalg.lstsq(waves, f, rcond=None)[0]) ** 2
    waves = _waves(days[seen], 2 if seasonal else 0)
    variance = np.linalg.lstsq(waves, squared, rcond=None)[0]
    variance[0] = max(variance[0], 1e-12 * max(float(np.abs(f).max()) ** 2, 1e-12))
    return Scale(log, floor, float(f.mean()), np.asarray(variance))


def _grows_by_factors(values: Array, every: int, unit: str) -> bool:
    """Whether values (T,) are counts whose logarithm changes more evenly than they do: the likelihood of changes over a week, taken as
    normal, is higher on the scale log(1 + y), Jacobian included."""
    y = values[np.isfinite(values)]
    if unit in TEMPERATURES or np.any(y != np.round(y)) or np.mean(y < 0) > COUNTS_FALL or y.max() < 20:
        return False
    lag = 7 // every
    f = np.log1p(np.maximum(values, 0))
    plain, logs = (series[lag:] - series[:-lag] for series in (values, f))
    both = np.isfinite(plain)
    if both.sum() < FEWEST or not np.any(plain[both]):
        return False
    gain = 0.5 * both.sum() * math.log(float(np.mean(plain[both] ** 2)) / float(np.mean(logs[both] ** 2))) - f[lag:][both].sum()
    return bool(gain > 0)


def _waves(days: Days, count: int) -> Array:
    """1, cosines and sines of the year, (..., 1 + 2 count)."""
    phase = year_phase(torch.from_numpy(np.ascontiguousarray(days))).numpy()
    waves = [wave(k * phase) for k in range(1, count + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(phase), *waves], axis=-1)
