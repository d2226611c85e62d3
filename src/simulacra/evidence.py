"""What a judge says: findings, each with its band, floor, ceiling and gap, and one verdict for all of them.

    distance   drawn to nature
    floor      nature to nature: the same distance between two disjoint halves of held-out nature
    ceiling    a named rival that is wrong on purpose, to nature
    gap        (distance - floor) / (ceiling - floor).  0: as good as nature; 1: no better than the rival

All three are averages over random half-samples of equal size (distances between samples are biased upwards, and more so
the smaller the sample, so only equal sizes may be compared). The interval of the gap is the 2.5 %-97.5 % range over the
half-samples: the delete-half jackknife, whose spread estimates the standard error of the full sample (Shao & Wu 1989,
Ann. Stat. 17:1176). A bootstrap with repeated rows would bias every distance that looks at neighbours or at tails.

Whether drawn and nature differ at all is decided by permuting their labels within each condition: exact for independent
units. One permutation set serves all findings, and the largest standardised distance is compared with the largest ones under
permutation (Westfall & Young 1993), so the false-alarm rate of the whole verdict is `ALARM`, however many findings there are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulacra.measures.distance import (
    Distance,
    between_curves,
    counts_wasserstein,
    exceedances,
    missed,
    neighbour_test,
    unlikely,
    wasserstein,
)  # fmt: skip
from simulacra.study import Refused

Array = NDArray[np.float64]
S = TypeVar("S", bound=Sized)

ALARM = 0.01  # probability that nature, drawn again, is called different


@dataclasses.dataclass(frozen=True)
class Finding:
    """One statistic of nature, of the drawn samples and of the rival, and how far apart they are."""

    name: str
    unit: str  # of the curve: vertical axis
    about: str  # one sentence: what is measured and how the distance is defined
    grid_name: str  # horizontal axis with its unit, e.g. "separation r (lattice sites)"
    grid: Array  # (k,)
    truth: Array  # (k,) from held-out nature
    drawn: Array  # (k,)
    rival: Array  # (k,)
    band: Array  # (k,) bootstrap standard error of truth; the resampled unit is the independent thing
    rival_name: str
    distance: float
    floor: float
    ceiling: float
    gap: float
    gap_low: float  # 95 % interval
    gap_high: float
    p: float | None = None  # family-wise p-value of "drawn like nature"; None where the finding takes no part in the verdict
    exact: Array | None = None  # (k,) closed-form truth where there is one
    exact_name: str = ""
    log_grid: bool = False
    log_values: bool = False
    bars: bool = False  # grid holds histogram bin centres, so draw steps rather than a line


@dataclasses.dataclass(frozen=True)
class Check:
    """One number held to a target that stands outside the samples: an exact value, a published score, a bar we set."""

    name: str
    value: float
    error: float  # standard error of value; nan where unknown
    target: str  # in words, e.g. "below 0.01"
    met: bool
    beside: Mapping[str, float] = dataclasses.field(default_factory=dict)  # the baselines and floors to read it with


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture that belongs to a verdict: reconstructions, a latent path, the frames of a draw."""

    title: str
    caption: str
    image: bytes | str  # PNG, GIF, JPEG or WebP bytes, or the text of an SVG


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a judge found, and one family-wise p-value of "drawn like nature" for all tested findings together."""

    findings: Sequence[Finding]
    checks: Sequence[Check] = ()
    p: float = 1.0  # family-wise: probability of evidence this strong if drawn were nature
    nature_rows: int = 0
    drawn_rows: int = 0
    remarks: Sequence[str] = ()  # what a reader must know to read the numbers

    @property
    def differs(self) -> bool:
        """Whether the drawn samples can be told from nature at false-alarm rate ALARM."""
        return self.p <= ALARM

    def worst_first(self) -> list[Finding]:
        return sorted(self.findings, key=lambda f: -f.gap if np.isfinite(f.gap) else np.inf)

    def with_more(self, findings: Sequence[Finding] = (), checks: Sequence[Check] = ()) -> Evidence:
        return dataclasses.replace(self, findings=[*self.findings, *findings], checks=[*self.checks, *checks])

    def to_json(self) -> str:
        return json.dumps(_strict(dataclasses.asdict(self)), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Evidence:
        raw = json.loads(text)
        raw["findings"] = [_finding(f) for f in raw["findings"]]
        raw["checks"] = [_check(c) for c in raw["checks"]]
        return cls(**raw)

    @classmethod
    def read(cls, path: Path) -> Evidence:
        return cls.from_json(path.read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class Statistic(Generic[S]):
    """Something measurable in nature: one row of numbers per independent thing, and a distance between sets of rows.

    `measure` sees samples once; everything else works on the rows that it returned. Rows with nan in any column do not
    carry the statistic (no source detected, other temperature) and are left out, on both sides alike.
    """

    name: str
    unit: str
    about: str
    measure: Callable[[S], Array]  # (n, k)
    distance: Distance
    rival: str  # which rival sets the ceiling
    grid_name: str
    grid: Array
    curve: Callable[[Array, Array], Array]  # values (n, k), weights (b, n) -> (b, len(grid)), for the picture
    tested: bool = True  # takes part in the permutation verdict
    exact: Array | None = None
    exact_name: str = ""
    log_grid: bool = False
    log_values: bool = False
    bars: bool = False


def distribution(
    name: str, unit: str, about: str, measure: Callable[[S], Array], bins: Array, *, rival: str,
    distance: Distance = wasserstein, tested: bool = True, log_values: bool = False,
) -> Statistic[S]:
    """The law of one number per thing, measure -> (n,), compared by W1; drawn as a density over `bins` (edges)."""
    bins = np.asarray(bins, float)
    width = np.diff(bins)

    def curve(values: Array, weights: Array) -> Array:
        inside = np.clip(values[:, 0], bins[0], bins[-1])
        column = np.clip(np.searchsorted(bins, inside, side="right") - 1, 0, len(width) - 1)
        return weights @ np.eye(len(width))[column] / width

    return Statistic(
        name, f"density per {unit}" if unit else "density", about, lambda s: np.asarray(measure(s), float).reshape(-1, 1),
        distance, rival, f"{name} ({unit})" if unit else name, (bins[1:] + bins[:-1]) / 2, curve,
        tested=tested, bars=True, log_values=log_values,
    )  # fmt: skip


def average(
    name: str, unit: str, about: str, measure: Callable[[S], Array], grid: Array, grid_name: str, *, rival: str,
    function: Callable[[Array], Array] = lambda means: means, shown: Callable[[Array], Array] | None = None,
    tested: bool = True, exact: Array | None = None, exact_name: str = "", log_grid: bool = False, log_values: bool = False,
    bars: bool = False,
) -> Statistic[S]:
    """A curve that is a function of averages over things: measure -> (n, k), function: (b, k) -> (b, g).

    Compared by the root mean square of the difference of `function`; `shown` (default: the same) is what is drawn.
    """
    shown = shown or function
    return Statistic(
        name, unit, about, measure, between_curves(function), rival, grid_name, np.asarray(grid, float),
        lambda values, weights: shown(weights @ values), tested=tested, exact=exact, exact_name=exact_name,
        log_grid=log_grid, log_values=log_values, bars=bars,
    )  # fmt: skip


def counted(
    name: str, thing: str, about: str, kinds: Sequence[str], measure: Callable[[S], Array], *, rival: str, most: int, tested: bool = True
) -> Statistic[S]:
    """How many of each kind a thing (map, molecule) has, measure -> (n, len(kinds)) whole numbers; those above `most` count as `most`.

    Compared by the Wasserstein-1 of the law of each count, summed over kinds: what would have to be added or taken away, per thing.
    """

    def shown(values: Array, weights: Array) -> Array:
        return np.asarray((weights @ values).reshape(len(weights), len(kinds), most).sum(2))

    def rows(samples: S) -> Array:
        counts = np.asarray(measure(samples), float)
        carries = np.isfinite(counts).all(axis=1, keepdims=True)
        return np.where(carries, exceedances(counts, most), np.nan)

    legend = ", ".join(f"{i} {kind}" for i, kind in enumerate(kinds))
    return Statistic(
        name, f"per {thing}", f"{about}: {legend}. Distance: Wasserstein-1 of the law of each count, summed.", rows, counts_wasserstein,
        rival, "kind (see text)", np.arange(float(len(kinds))), shown, tested=tested, bars=True,
    )  # fmt: skip


def joint(
    thing: str, read: Callable[[str], Callable[[Any], Array]], features: int, *, rivals: tuple[str, str, str]
) -> list[Statistic[Any]]:  # fmt: skip
    """Findings on all measurements together, as vectors of `features` standardised numbers per `thing` (map, shower): the two-sample
    test by neighbours, coverage and precision, each with its rival. `read(name)` tells how the vectors for that finding are found."""

    def vectors(name: str, about: str, measure: Distance, rival: str, tested: bool = True) -> Statistic[Any]:
        return Statistic(
            name, "mean feature", about, read(name), measure, rival, "feature", np.arange(1.0, features + 1),
            lambda values, weights: weights @ values, tested=tested, bars=True,
        )  # fmt: skip

    return [
        vectors(
            "classifier two-sample test",
            f"Share, beyond one half, of {thing}s whose nearest {thing}, by all measurements, is of their own set.",
            neighbour_test, rivals[0],
        ),
        vectors("coverage", f"Share of nature's {thing}s that have no drawn {thing} near them: 0 is best.", missed, rivals[1]),
        vectors("precision", f"Share of drawn {thing}s that lie near no {thing} of nature: 0 is best.", unlikely, rivals[2], tested=False),
    ]  # fmt: skip


def scored(
    name: str, unit: str, about: str, grid_name: str, grid: Array, curves: tuple[Array, Array, Array, Array], ours: Array, theirs: Array,
    floor: float, *, rival: str, seed: int, bars: bool = False, log_grid: bool = False, log_values: bool = False,
    exact: Array | None = None, exact_name: str = "",
) -> Finding:  # fmt: skip
    """A finding of a task that has a target, from scores per thing (n,), smaller is better, of what was drawn and of the rival.

    `floor` is the best that can be known; `curves` are those of truth, drawn, rival and band. The interval of the gap is of a bootstrap
    over things, both scores of one thing together.
    """

    def gap(one: Any, other: Any) -> Any:
        return (one - floor) / np.maximum(other - floor, 1e-12)

    chosen = np.random.default_rng([seed, 0x3A5C]).integers(len(ours), size=(400, len(ours)))
    low, high = np.percentile(gap(ours[chosen].mean(axis=1), theirs[chosen].mean(axis=1)), [2.5, 97.5])
    distance, ceiling = float(ours.mean()), max(float(theirs.mean()), floor + 1e-9)
    return Finding(
        name, unit, about, grid_name, grid, *curves, rival, distance, floor, ceiling, float(gap(distance, ceiling)), float(low),
        float(high), None, exact, exact_name, log_grid, log_values, bars,
    )  # fmt: skip


def compare(
    statistics: Sequence[Statistic[S]], nature: S, drawn: S, rivals: Mapping[str, S], *, seed: int,
    condition: Callable[[S], Array] | None = None, permutations: int = 999, halves: int = 100,
) -> Evidence:
    """Hold drawn samples against held-out nature. `condition` gives one label per row (temperature, class): labels are
    permuted, and halves are taken, within each, so both sides must hold every label equally often (checked)."""
    measured = [(st.measure(nature), st.measure(drawn), st.measure(rivals[st.rival])) for st in statistics]
    labels = (np.zeros(len(nature)), np.zeros(len(drawn))) if condition is None else (condition(nature), condition(drawn))
    return weigh(statistics, measured, labels, seed=seed, permutations=permutations, halves=halves)


def weigh(
    statistics: Sequence[Statistic[Any]], measured: Sequence[tuple[Array, Array, Array]], labels: tuple[Array, Array], *,
    seed: int, permutations: int = 999, halves: int = 100,
) -> Evidence:
    """`compare` for statistics that are measured already: per statistic the rows of nature, drawn and rival."""
    _same_conditions(*labels)
    rng = np.random.default_rng([seed, 0x5EED])
    shuffled = _permuted(labels, permutations, rng)
    parts = _half_splits(labels, halves, rng)
    findings, nulls = [], []
    for statistic, (nature, drawn, rival) in zip(statistics, measured, strict=True):
        finding, null = _weigh_one(statistic, nature, drawn, rival, shuffled, parts, rng)
        findings.append(finding)
        nulls.append(null)
    family, each = _family_wise([n for n in nulls if n is not None])
    tested = iter(each)
    findings = [f if n is None else dataclasses.replace(f, p=next(tested)) for f, n in zip(findings, nulls, strict=True)]
    return Evidence(findings, p=family, nature_rows=len(labels[0]), drawn_rows=len(labels[1]))


def _same_conditions(nature: Array, drawn: Array) -> None:
    a, b = np.unique(nature, return_counts=True), np.unique(drawn, return_counts=True)
    if not (np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])):
        raise Refused(
            f"drawn samples must have the conditions of held-out nature, row for row: nature {dict(zip(*a, strict=True))}, "
            f"drawn {dict(zip(*b, strict=True))}"
        )


def _permuted(labels: tuple[Array, Array], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(count + 1, n + m) masks of who is called nature; row 0 is the truth, the others permute it within each condition."""
    pooled = np.concatenate(labels)
    is_nature = np.arange(len(pooled)) < len(labels[0])
    masks = np.tile(is_nature, (count + 1, 1))
    for label in np.unique(pooled):
        rows = np.flatnonzero(pooled == label)
        masks[1:, rows] = rng.permuted(masks[1:, rows], axis=1)
    return masks


def _half_splits(labels: tuple[Array, Array], count: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (count, n) of one half of nature and (count, m) of one half of drawn, halved within each condition."""
    sides = []
    for side in labels:
        masks = np.zeros((count, len(side)), bool)
        for label in np.unique(side):
            rows = np.flatnonzero(side == label)
            start = np.arange(len(rows)) < len(rows) // 2
            masks[:, rows] = rng.permuted(np.tile(start, (count, 1)), axis=1)
        sides.append(masks)
    return sides[0], sides[1]


def _weigh_one(
    st: Statistic[Any], nature: Array, drawn: Array, rival: Array, shuffled: NDArray[np.bool_],
    parts: tuple[NDArray[np.bool_], NDArray[np.bool_]], rng: np.random.Generator,
) -> tuple[Finding, Array | None]:  # fmt: skip
    keep = [np.isfinite(v).all(axis=1) for v in (nature, drawn, rival)]
    if min(k.sum() for k in keep) < 4:
        counts = dict(zip(("nature", "drawn", "rival"), (int(k.sum()) for k in keep), strict=True))
        raise Refused(f"{st.name}: at least 4 rows on each side must carry this statistic, found {counts}")
    half_a, half_d = parts[0], parts[1]
    rest_b = ~half_a
    nature, drawn, rival = nature[keep[0]], drawn[keep[1]], rival[keep[2]]
    a, b, d = _weights(half_a[:, keep[0]]), _weights(rest_b[:, keep[0]]), _weights(half_d[:, keep[1]])
    chosen = rng.permuted(np.tile(np.arange(len(rival)) < max(len(rival) // 2, 2), (len(a), 1)), axis=1)
    to_drawn = _across(st.distance, nature, a, drawn, d)
    to_rival = _across(st.distance, nature, a, rival, _weights(chosen))
    to_itself = st.distance(nature, a, b)
    distance, floor, ceiling = float(np.mean(to_drawn)), float(np.mean(to_itself)), float(np.mean(to_rival))
    room = ceiling - floor
    gaps = (to_drawn - floor) / room if room > 0 else np.full(len(to_drawn), np.nan)
    null = None
    if st.tested:
        both = np.concatenate([keep[0], keep[1]])
        null = st.distance(np.concatenate([nature, drawn]), _weights(shuffled[:, both]), _weights(~shuffled[:, both]))
    resampled = rng.multinomial(len(nature), np.full(len(nature), 1 / len(nature)), size=200) / len(nature)
    even = [np.full((1, len(v)), 1 / len(v)) for v in (nature, drawn, rival)]
    low, high = np.percentile(gaps, [2.5, 97.5])
    finding = Finding(
        st.name, st.unit, st.about, st.grid_name, st.grid, st.curve(nature, even[0])[0], st.curve(drawn, even[1])[0],
        st.curve(rival, even[2])[0], st.curve(nature, resampled).std(axis=0), st.rival, distance, floor, ceiling,
        float(np.mean(gaps)), float(low), float(high), None, st.exact, st.exact_name, st.log_grid, st.log_values, st.bars,
    )  # fmt: skip
    return finding, null


def _across(distance: Distance, x: Array, p: Array, y: Array, q: Array) -> Array:
    """Distance between weightings p of the rows x and q of the rows y."""
    zeros = np.zeros
    return distance(
        np.concatenate([x, y]),
        np.concatenate([p, zeros((len(p), len(y)))], axis=1),
        np.concatenate([zeros((len(q), len(x))), q], axis=1),
    )


def _weights(masks: NDArray[np.bool_]) -> Array:
    weights: Array = masks / np.maximum(masks.sum(axis=1, keepdims=True), 1)
    return weights


def _family_wise(nulls: Sequence[Array]) -> tuple[float, list[float]]:
    """Westfall & Young's max-T: from distances (b,) per finding, observed first, the family's p and each finding's own.

    Each finding is standardised by its own mean and spread over all relabellings, the observed one included: a function
    symmetric in them, so the test stays exact. (Their min-p needs findings / ALARM times as many permutations.)
    """
    if not nulls:
        return 1.0, []
    table = np.stack(nulls, axis=1)
    spread = table.std(axis=0)
    scores = np.where(spread > 0, (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0), 0.0)
    largest = np.round(scores.max(axis=1), 9)  # equal distances must tie, whatever the order of summation
    each = [float(np.mean(largest >= score)) for score in np.round(scores[0], 9)]
    return min(each), each


def _strict(value: Any) -> Any:
    """The same, of JSON's own types: arrays become lists, and numbers that are not finite become null."""
    if isinstance(value, np.ndarray | np.generic):
        return _strict(value.tolist())
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _finding(raw: dict[str, Any]) -> Finding:
    arrays = {k: np.asarray(raw[k], float) for k in ("grid", "truth", "drawn", "rival", "band")}
    numbers = {k: _number(raw[k]) for k in ("distance", "floor", "ceiling", "gap", "gap_low", "gap_high")}
    exact = None if raw["exact"] is None else np.asarray(raw["exact"], float)
    return Finding(**{**raw, **arrays, **numbers, "exact": exact})


def _check(raw: dict[str, Any]) -> Check:
    beside = {k: _number(v) for k, v in raw["beside"].items()}
    return Check(**{**raw, "value": _number(raw["value"]), "error": _number(raw["error"]), "beside": beside})
