"""The verdict on forecasts: rolling origins, scored against what came and beside what anybody could have said.

A finding's distance is the forecast's score and its ceiling the named rival's, so the gap is 1 - skill: below 1, the score is lower
than the rival's. Its interval comes from a paired bootstrap of blocks of days, and where it covers 1 no difference was shown. The
floor of a score is 0, a perfect forecast: the best that can be known is not. Calibration has a true floor, what chance leaves of a
calibrated forecast on as many independent days, and a ceiling that is wrong on purpose: a forecast of half the right spread.

The verdict's p-value tests one thing exactly. If members are quantiles of the true law of the next period given all that was known,
the integral transforms of consecutive one-step forecasts are independent and uniform (Dawid 1984; Diebold, Gunther & Tay 1998,
Int. Econ. Rev. 39:863). Forecasts further ahead overlap and are not independent; they are described, not tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from simulacra.evidence import Check, Evidence, Finding, Statistic, compare, distribution
from simulacra.measures.calibration import inside, pit
from simulacra.measures.distance import wasserstein
from simulacra.measures.scores import FEWEST_BLOCKS, block_bootstrap, crps_members, energy_score
from simulacra.series.rivals import Forecaster
from simulacra.series.windows import Outlook, date_of, year_phase
from simulacra.study import Refused

Array = NDArray[np.float64]
Transform = Callable[[Array], Array]

BLOCK, RESAMPLES = 30, 1000  # days of a block at least; resamples behind every interval
CENTRAL: Array = np.array([0.5, 0.8, 0.9, 0.95])  # central intervals whose coverage is looked at
BINS = 20  # of the PIT histogram
SIMULATIONS = 999  # of independent uniform numbers, for the p-value
APART = 1.5  # a rival must be so many times as far from nature as nature from itself, or the gap is noise
FEW = 30  # origin days below which no difference is called shown
TINY = 1e-12  # a score of a series that is constant: two forecasts without error are equally good
PERIODS = {1: "day", 7: "week"}
UNKNOWN = "The floor is 0, a perfect forecast: the best that can be known is unknown."


def judge(
    nature: Outlook, drawn: Outlook, *, rivals: Mapping[str, Forecaster], against: str, unit: str, seed: int,
    leads: Sequence[int] = (1, 3, 7, 14), transform: Transform | None = None, remarks: Sequence[str] = (),
) -> Evidence:  # fmt: skip
    """Hold forecasts `drawn` against what came, row for row, and beside what each rival says of the same rows.

    `against` names the rival of the first finding. Scores are taken at those `leads` (periods ahead) that were forecast, of values
    in `unit`, or of `transform` of them (and then `unit` is its). Raises Refused where the rows are not the same origins.
    """
    if against not in rivals:
        raise Refused(f"forecasts are to be held against {against!r}, but the rivals are {', '.join(rivals) or 'none'}")
    case = _Case.of(nature, drawn, leads, transform)
    others = {name: case.scores(rivals[name]) for name in (against, *(n for n in rivals if n != against))}
    ours = _scores(case.truth, case.members)
    findings = [_crps(case, name, ours[0], theirs[0], unit, seed) for name, theirs in others.items()]
    nearest = "persistence" if "persistence" in others else against
    findings.append(_median_error(case, nearest, ours[1], others[nearest][1], unit, seed))
    levels, unreachable = _reachable(case.members.shape[2])
    findings.append(_coverage(case, levels, seed))
    first = case.leads[0] == 1
    findings += [*([_pit(case, 1, seed)] if first else []), _pit(case, None, seed)]
    more, untold = _paths(nature, drawn, transform, unit, seed, case)
    tested = [f.p for f in findings if f.p is not None]
    said = [_comparison(findings[0], unit, case), *_about(case, first), *unreachable, *untold, *remarks]
    return Evidence([*findings, *more], p=min(tested, default=1.0), nature_rows=len(nature), drawn_rows=len(drawn), remarks=said)


def skill_checks(
    nature: Outlook, drawn: Outlook, rivals: Mapping[str, Forecaster], leads: Sequence[int], unit: str, seed: int,
    *, against: str | None = None,
) -> list[Check]:  # fmt: skip
    """MAE of the median and CRPS at each lead, held to the rival `against`, or else to the one with the lowest score there; and the
    coverage of 95 % intervals over all leads. Met where the paired interval of the difference lies below 0 on FEW days or more."""
    case = _Case.of(nature, drawn, leads, None)
    ours, others = _scores(case.truth, case.members), {name: case.scores(rival) for name, rival in rivals.items()}
    checks = []
    for column, lead in enumerate(case.leads):
        for kind, name in ((1, "MAE of the median"), (0, "CRPS")):
            theirs = {rival: scores[kind][:, column] for rival, scores in others.items()}
            checks.append(_difference(case, f"{name}, {_ahead(case, lead)}", ours[kind][:, column], theirs, against, unit, seed))
    return [*checks, _of_95(case, seed)]


def skills(nature: Outlook, drawn: Outlook, rivals: Mapping[str, Forecaster], leads: Sequence[int], seed: int) -> dict[str, Array]:
    """CRPS skill over each rival at each of the leads that can be scored, (L, 3): value and ends of its 95 % interval, 1 for perfect."""
    case = _Case.of(nature, drawn, leads, None)
    ours, k = _scores(case.truth, case.members)[0], len(case.leads)
    found = {}
    for name, rival in rivals.items():
        both = np.concatenate([ours, case.scores(rival)[0]], axis=1)
        means, resampled = np.nanmean(both, axis=0), case.resampled(both, seed)
        value = 1 - (means[:k] + TINY) / (means[k:] + TINY)
        each = 1 - (resampled[:, :k] + TINY) / (resampled[:, k:] + TINY)
        ends = [_interval(column, centre) for column, centre in zip(each.T, value, strict=True)]
        found[name] = np.column_stack([value, np.array(ends)])
    return found


@dataclasses.dataclass(frozen=True)
class _Case:
    """The same origins twice, as arrays at the leads that are scored."""

    rows: Outlook  # without their future: rivals must not see it
    days: NDArray[np.int64]  # (n,) origins
    leads: tuple[int, ...]  # periods ahead, those with any known truth
    truth: Array  # (n, L), NaN where unknown
    members: Array  # (n, L, M)
    transform: Transform | None

    @classmethod
    def of(cls, nature: Outlook, drawn: Outlook, leads: Sequence[int], transform: Transform | None) -> _Case:
        _comparable(nature, drawn)
        truth = nature.future[:, 0].double().numpy()
        kept = tuple(lead for lead in sorted(set(leads)) if 1 <= lead <= nature.horizon and np.isfinite(truth[:, lead - 1]).any())
        if not kept:
            raise Refused(f"none of the leads {', '.join(map(str, leads))} can be scored: {nature.horizon} periods ahead were forecast")
        blind = nature.with_future(nature.future.new_full(nature.future.shape, np.nan))
        case = cls(blind, nature.day.numpy(), kept, truth, truth, transform)
        truth = truth[:, [lead - 1 for lead in kept]]
        return dataclasses.replace(case, truth=case._as_scored(truth), members=case.at_leads(drawn.future.numpy()))

    def at_leads(self, future: NDArray[np.float32]) -> Array:
        """Members (n, L, M), on the scored scale, of paths (n, M, H)."""
        chosen = future[:, :, [lead - 1 for lead in self.leads]].transpose(0, 2, 1)
        return self._as_scored(np.ascontiguousarray(chosen, np.float64))

    def scores(self, rival: Forecaster) -> tuple[Array, Array]:
        return _scores(self.truth, self.at_leads(rival(self.rows).numpy()))

    def resampled(self, values: Array, seed: int) -> Array:
        """(RESAMPLES, k) means of values (n, k) over blocks of origin days."""
        return block_bootstrap(values, self.days, block=self.block, count=RESAMPLES, seed=seed)

    @property
    def block(self) -> int:
        """Days of a block: no shorter than the furthest lead, for forecasts whose futures overlap err together."""
        return max(BLOCK, self.leads[-1] * int(self.rows.every[0]))

    def _as_scored(self, values: Array) -> Array:
        return values if self.transform is None else np.asarray(self.transform(values), np.float64)

    @property
    def period(self) -> str:
        every = int(self.rows.every[0])
        return PERIODS.get(every, f"period of {every} days")


def _comparable(nature: Outlook, drawn: Outlook) -> None:
    if nature.members != 1:
        raise Refused(f"nature has one path per origin, and {nature.members} were given: the truth and the forecasts may be exchanged")
    if len(nature) != len(drawn) or nature.horizon != drawn.horizon:
        raise Refused(
            f"forecasts must answer the held-out origins row for row: {len(nature)} origins and {nature.horizon} periods were asked, "
            f"{len(drawn)} and {drawn.horizon} came"
        )
    for name in ("series", "day", "every"):
        one, other = nature.fields()[name], drawn.fields()[name]
        if not bool((one == other).all()):
            row = int((one != other).nonzero()[0])
            shown = [date_of(int(v[row])) if name == "day" else str(int(v[row])) for v in (one, other)]
            raise Refused(f"row {row}: the held-out origin has {name} {shown[0]}, the forecast {shown[1]}; sort both alike")
    one, other = nature.past, drawn.past
    if one.shape != other.shape or not bool(((one == other) | (one.isnan() & other.isnan())).all()):
        raise Refused("the forecasts know another past than the held-out origins: they were made from other data, or data were revised")
    if not bool(drawn.future.isfinite().all()):
        row = int((~drawn.future.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise Refused(f"row {row} ({date_of(int(drawn.day[row]))}): a member of the forecast is not a finite number")
    if bool((nature.day == nature.day[0]).all()):
        raise Refused("all forecasts start on one day: nothing can be said about how they do on others; give at least two origins")


def _scores(truth: Array, members: Array) -> tuple[Array, Array]:
    """CRPS and absolute error of the median, (n, L) each."""
    return crps_members(truth, members), np.abs(truth - np.median(members, axis=2))


# ------------------------------------------------------------------------------------------------------------- scores


def _crps(case: _Case, rival: str, ours: Array, theirs: Array, unit: str, seed: int) -> Finding:
    about = f"Mean continuous ranked probability score at each lead, and for {rival} on the same days; distance: mean over leads. {UNKNOWN}"
    return _score(case, f"CRPS against {rival}", about, rival, ours, theirs, unit, seed)


def _median_error(case: _Case, rival: str, ours: Array, theirs: Array, unit: str, seed: int) -> Finding:
    about = f"Mean absolute error of the forecast's median at each lead; distance: mean over leads. {UNKNOWN}"
    return _score(case, "MAE (median)", about, rival, ours, theirs, unit, seed)


def _score(case: _Case, name: str, about: str, rival: str, ours: Array, theirs: Array, unit: str, seed: int) -> Finding:
    """Scores (n, L) of the forecast and of a rival as a finding with floor 0."""
    count = ours.shape[1]
    means = np.nanmean(np.concatenate([ours, theirs], axis=1), axis=0)
    resampled = case.resampled(np.concatenate([ours, theirs], axis=1), seed)
    return _of_scores(case, name, about, rival, means, resampled, np.array(case.leads[:count], float), unit)


def _of_scores(case: _Case, name: str, about: str, rival: str, means: Array, resampled: Array, grid: Array, unit: str) -> Finding:
    """From means (2k,) of the forecast's scores, then the rival's, and their resamples (b, 2k)."""
    k = len(grid)
    distance, ceiling = float(means[:k].mean()) + TINY, float(means[k:].mean()) + TINY
    ratios = (_known_mean(resampled[:, :k]) + TINY) / (_known_mean(resampled[:, k:]) + TINY)
    low, high = _interval(ratios, distance / ceiling)
    band = np.nan_to_num(np.nanstd(resampled[:, :k], axis=0))
    return Finding(
        name, unit, about, f"lead ({case.period}s)", grid, np.zeros(k), means[:k], means[k:], band, rival,
        distance, 0.0, ceiling, distance / ceiling, low, high,
    )  # fmt: skip


def _known_mean(values: Array) -> Array:
    """Means (b,) of what is known in values (b, k): a lead that no day of a resample has is left out."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))


def _interval(values: Array, centre: float) -> tuple[float, float]:
    """The central 95 % of resampled values; the centre where none is known."""
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (centre, centre)
    return float(low), float(high)


def _comparison(finding: Finding, unit: str, case: _Case) -> str:
    leads = ", ".join(map(str, case.leads))
    known = f"CRPS at {case.period}s {leads}: {finding.distance:.3g} {unit}, {finding.rival_name} {finding.ceiling:.3g} {unit}"
    skill = f"skill {100 * (1 - finding.gap):.1f} % [{100 * (1 - finding.gap_high):.1f}, {100 * (1 - finding.gap_low):.1f}]"
    if finding.gap_low <= 1 <= finding.gap_high or len(np.unique(case.days)) < FEW:
        return f"{known}; {skill}: no difference shown."
    return f"{known}; {skill}: {'better' if finding.gap < 1 else 'worse'} than {finding.rival_name}."


def _difference(
    case: _Case, name: str, ours: Array, others: Mapping[str, Array], against: str | None, unit: str, seed: int
) -> Check:  # fmt: skip
    """One score (n,) held to one rival, with all of them beside."""
    beside = {rival: float(np.nanmean(theirs)) for rival, theirs in others.items()}
    rival = against or min(beside, key=lambda r: beside[r])
    resampled = case.resampled(np.column_stack([ours, ours - others[rival]]), seed)
    value, difference = float(np.nanmean(ours)), float(np.nanmean(ours - others[rival]))
    low, high = _interval(resampled[:, 1], difference)
    few = len(np.unique(case.days)) < FEW
    which = rival if against else f"{rival}, the lowest rival"
    target = f"below {which}: difference {difference:+.3f} [{low:+.3f}, {high:+.3f}] {unit}"
    if few:
        target += f" on {len(np.unique(case.days))} days, too few to say"
    elif low <= 0 <= high:
        target += ", no difference shown"
    return Check(f"{name} ({unit})", value, float(np.nanstd(resampled[:, 0])), target, high < 0 and not few, beside)


# -------------------------------------------------------------------------------------------------------- calibration


def _reachable(members: int) -> tuple[Array, list[str]]:
    """Central levels whose ends lie among the quantiles that so many members can show, and a remark on the others."""
    levels = CENTRAL[members * (1 - CENTRAL) > 1 - 1e-9]
    levels = levels if len(levels) else CENTRAL[:1]
    left_out = ", ".join(f"{100 * level:g} %" for level in CENTRAL if level not in levels)
    return levels, [f"{members} members show no interval of {left_out}: draw more"] if left_out else []


def _independent(shares: Array, resampled: Array, known: int) -> float:
    """How many independent cases scatter as the shares (k,) do over resampled days, (b, k); between 16 and all that are known.

    A share m of N independent cases has the variance m (1 - m) / N.
    """
    scatter = float(np.nansum(np.nanvar(resampled, axis=0)))
    number = float(np.sum(shares * (1 - shares))) / scatter if scatter > 0 else float(known)
    return float(np.clip(number, 16, max(known, 16)))


def _calibration(
    case: _Case, name: str, unit: str, about: str, grid_name: str, grid: Array, shares: Array, expected: Array, half: Array,
    distance: Callable[[Array], Array], chance: Callable[[float], float], shown: float, seed: int, bars: bool,
) -> Finding:  # fmt: skip
    """A finding from shares (n, k) per row that should be `expected` (k,), and are `half` for a forecast of half the right spread.

    `distance` maps mean shares (b, k) to (b,), `chance` a number of independent cases to the distance that chance leaves of a
    calibrated forecast; `shown` is the factor from shares to the curve.
    """
    known = int(np.isfinite(shares[:, 0]).sum())
    means, resampled = np.nanmean(shares, axis=0), case.resampled(shares, seed)
    cases = _independent(means, resampled, known)
    found, floor, ceiling = float(distance(means[None])[0]), chance(cases), float(distance(half[None])[0])
    gap = (found - floor) / (ceiling - floor)
    low, high = _interval((distance(resampled) - floor) / (ceiling - floor), gap)
    band = np.sqrt(expected * (1 - expected) / cases)
    return Finding(
        name, unit, f"{about} The floor is that of a calibrated forecast on {cases:.0f} independent cases, as many as scatter alike.",
        grid_name, grid, expected * shown, means * shown, half * shown, band * shown, "half the right spread",
        found, floor, ceiling, gap, low, high, bars=bars,
    )  # fmt: skip


def _coverage(case: _Case, levels: Array, seed: int) -> Finding:
    held, width = inside(case.truth, case.members, levels)
    shares = _over_leads(held)
    known = np.isfinite(case.truth)
    widths = ", ".join(f"{100 * level:g} %: {w:.3g}" for level, w in zip(levels, width[known].mean(axis=0), strict=True))
    return _calibration(
        case, "coverage of central intervals", "% of truths inside",
        f"Share of truths in central intervals, all leads together; distance: mean absolute difference, in %. Mean widths {widths}.",
        "nominal (%)", 100 * levels, shares, levels, 2 * ndtr(ndtri((1 + levels) / 2) / 2) - 1,
        lambda means: 100 * np.abs(means - levels).mean(axis=1),
        lambda cases: 100 * float(np.mean(np.sqrt(2 / np.pi * levels * (1 - levels) / cases))), 100.0, seed, False,
    )  # fmt: skip


def _over_leads(values: Array) -> Array:
    """Means (n, k) over the leads of values (n, L, k) that are known; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _pit(case: _Case, lead: int | None, seed: int) -> Finding:
    """The PIT histogram at one lead, tested, or of all leads together."""
    column = slice(None) if lead is None else slice(case.leads.index(lead), case.leads.index(lead) + 1)
    values = pit(case.truth[:, column], case.members[:, column], seed=seed)
    bins = np.minimum((np.nan_to_num(values) * BINS).astype(int), BINS - 1)
    shares = _over_leads(np.where(np.isfinite(values)[..., None], np.eye(BINS)[bins], np.nan))
    edges = np.arange(1, BINS) / BINS
    ends = np.arange(BINS + 1) / BINS
    finding = _calibration(
        case, "PIT, all leads" if lead is None else f"PIT, {_ahead(case, lead)}", "density",
        "Histogram of F(y), uniform where the forecast's law is right; distance: Wasserstein-1 to the uniform law.",
        "probability integral transform F(y)", (ends[1:] + ends[:-1]) / 2, shares, np.full(BINS, 1 / BINS), np.diff(ndtr(ndtri(ends) / 2)),
        lambda means: np.abs(np.cumsum(means, axis=1)[:, :-1] - edges).sum(axis=1) / BINS,
        lambda cases: float(np.sum(np.sqrt(2 / np.pi * edges * (1 - edges) / cases))) / BINS, float(BINS), seed, True,
    )  # fmt: skip
    return finding if lead is None else dataclasses.replace(finding, p=_uniform_p(values[:, 0], case, seed))


def _uniform_p(values: Array, case: _Case, seed: int) -> float | None:
    """p-value of "independent and uniform" for one-step transforms (n,), by simulation; None with fewer than 8 of them.

    Several series share their days: one of them is drawn for each day, so what is tested is one sequence in time. The largest of
    the Kolmogorov-Smirnov distances, of all and of each season, and of |correlation| from one period to the next, each standardised
    by its own mean and spread over simulations and observation, is compared with the largest in each simulation.
    """
    rng = np.random.default_rng([seed, 0xDA31])
    order = rng.permutation(len(values))
    order = order[np.isfinite(values[order])]
    days, first = np.unique(case.days[order], return_index=True)  # sorted by day; of each day, one at random
    if len(days) < 8:
        return None
    every = int(case.rows.every[0])
    sequences = np.concatenate([values[order[first]][None], rng.random((SIMULATIONS, len(days)))])
    season = (year_phase(case.rows.day.new_tensor(days + every)).numpy() // (np.pi / 2)).astype(int) % 4
    groups = [np.ones(len(days), bool), *(season == s for s in range(4))]
    table = [_kolmogorov(sequences[:, group]) for group in groups if group.sum() >= 8]
    next_one = np.diff(days) == every
    if next_one.sum() >= 8:
        centred = sequences - 0.5
        table.append(np.abs((centred[:, :-1] * centred[:, 1:])[:, next_one].mean(axis=1)))
    scores = np.stack(table, axis=1)
    largest = ((scores - scores.mean(axis=0)) / scores.std(axis=0)).max(axis=1)
    return float(np.mean(largest >= largest[0]))


def _kolmogorov(sequences: Array) -> Array:
    """Kolmogorov-Smirnov distance (b,) of sequences (b, n) to the uniform law."""
    ordered = np.sort(sequences, axis=1)
    count = ordered.shape[1]
    return np.asarray(np.maximum(np.arange(1, count + 1) / count - ordered, ordered - np.arange(count) / count).max(axis=1))


def _of_95(case: _Case, seed: int) -> Check:
    held, width = inside(case.truth, case.members, np.array([0.95]))
    share = _over_leads(held)
    value = float(np.nanmean(share))
    error = float(np.nanstd(case.resampled(share, seed)))
    beside = {"nominal": 0.95, "mean width": float(width[np.isfinite(case.truth)].mean())}
    return Check("coverage of 95 % intervals", value, error, "from 0.93 to 0.97", 0.93 <= value <= 0.97, beside)


# -------------------------------------------------------------------------------------------------------------- paths


def _paths(
    nature: Outlook, drawn: Outlook, transform: Transform | None, unit: str, seed: int, case: _Case
) -> tuple[list[Finding], list[str]]:  # fmt: skip
    """Whether paths move as nature does, beside members whose order is shuffled at each lead: right margins, no memory."""
    whole = np.isfinite(nature.future[:, 0].numpy()).all(axis=1)
    if nature.horizon < 2 or drawn.members < 2:
        return [], []
    if not whole.any():
        return [], ["paths are not judged: no origin has its whole future known"]
    rng = np.random.default_rng([seed, 0x9A7])
    scored = transform or (lambda values: values)
    truth = scored(nature.future[:, 0].double().numpy())
    members = scored(drawn.future.double().numpy())
    shuffled = rng.permuted(members, axis=1)
    scores = np.stack([energy_score(truth, members), energy_score(truth, shuffled)], axis=1)
    energy = _energy(scores, case.resampled(scores, seed), unit)
    rows = _apart(nature, whole)
    if len(rows) < 16:
        return [], [energy, f"laws of paths are not compared: {len(rows)} origins have futures that do not overlap, 16 are needed"]
    pick = rng.integers(drawn.members, size=len(rows))
    laws = _path_laws(truth[rows], case.period, unit)
    rivals = {"members shuffled": shuffled[rows, pick]}
    found = compare(laws, truth[rows], members[rows, pick], rivals, seed=seed, permutations=1).findings
    told = [f for f in found if f.ceiling > APART * f.floor]
    silent = [f"{f.name} left out: {len(rows)} origins cannot tell shuffled members from nature" for f in found if f not in told]
    return told, [energy, *silent]


def _energy(scores: Array, resampled: Array, unit: str) -> str:
    """A remark on the energy scores of paths (n, 2), as they are and with members shuffled. No finding: this score hardly sees how the
    periods hang together, so its gap would be near 1 and first in every list."""
    ours, shuffled = np.nanmean(scores, axis=0)
    ratio = float(ours / max(shuffled, TINY))
    low, high = _interval(resampled[:, 0] / np.maximum(resampled[:, 1], TINY), ratio)
    beside = f"{ratio:.3f} [{low:.3f}, {high:.3f}] of that with members shuffled at each lead"
    return f"Energy score of whole paths: {ours:.3g} {unit}, {beside}."


def _apart(nature: Outlook, whole: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows with a whole future, those of one series so far apart that their futures do not overlap."""
    series, days = nature.series.numpy(), nature.day.numpy()
    reach = int(nature.every[0]) * nature.horizon
    chosen, until = [], dict[int, int]()
    for row in np.lexsort((days, series)).tolist():
        if whole[row] and days[row] >= until.get(series[row], days[row]):
            chosen.append(row)
            until[series[row]] = days[row] + reach
    return np.array(chosen, np.int64)


def _path_laws(truth: Array, period: str, unit: str) -> list[Statistic[Array]]:
    """What memory shows in: the law of changes, and of how far the highest point stands out. Both of paths (n, H)."""
    change_bins = np.linspace(*_range(np.diff(truth, axis=1)), 31)
    change = distribution(
        f"change from one {period} to the next", unit,
        "Changes along the path, all leads together. Distance: Wasserstein-1; one member of each forecast.",
        _peak, change_bins, rival="members shuffled", distance=_pooled, tested=False,
    )  # fmt: skip
    peak = distribution(
        f"peak within {truth.shape[1]} {period}s", unit,
        "The largest value of the path ahead, above the mean of that path. Distance: Wasserstein-1; one member of each forecast.",
        _peak, np.linspace(*_range(_peak(truth)), 31), rival="members shuffled", tested=False,
    )  # fmt: skip
    return [dataclasses.replace(change, measure=lambda paths: np.diff(paths, axis=1), curve=_pooled_density(change_bins)), peak]


def _peak(paths: Array) -> Array:
    return np.asarray(paths.max(axis=1) - paths.mean(axis=1))


def _range(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6 * max(abs(low), 1)))


def _pooled(values: Array, p: Array, q: Array) -> Array:
    """Wasserstein-1 between the laws of all columns of values (n, k) together; rows keep their weights."""
    k = values.shape[1]
    return wasserstein(values.reshape(-1, 1), np.repeat(p, k, axis=1) / k, np.repeat(q, k, axis=1) / k)


def _pooled_density(edges: Array) -> Callable[[Array, Array], Array]:
    def curve(values: Array, weights: Array) -> Array:
        column = np.clip(np.searchsorted(edges, np.clip(values, edges[0], edges[-1]), side="right") - 1, 0, len(edges) - 2)
        shares = np.stack([np.bincount(row, minlength=len(edges) - 1) for row in column]) / values.shape[1]
        return np.asarray(weights @ shares / np.diff(edges))

    return curve


# -------------------------------------------------------------------------------------------------------------- words


def _ahead(case: _Case, lead: int) -> str:
    return f"{lead} {case.period}{'s' if lead > 1 else ''} ahead"


def _about(case: _Case, first: bool) -> list[str]:
    """What a reader must know of the sample: its size, whether it is large enough, and what was tested."""
    days, series = np.unique(case.days), np.unique(case.rows.series.numpy())
    said = [
        f"{len(case.days)} forecasts of {len(series)} series from {len(days)} origins between {date_of(int(days[0]))} and "
        f"{date_of(int(days[-1]))}. Intervals: {RESAMPLES} resamples of circular blocks of {case.block} days, all series of a day together."
    ]
    if len(days) < FEW:
        said.append(f"Fewer than {FEW} origins: intervals are too narrow, and no difference is called shown.")
    elif days[-1] - days[0] < FEWEST_BLOCKS * case.block:
        said.append(f"The origins span fewer than {FEWEST_BLOCKS} such blocks: shorter ones were taken, and intervals may be too narrow.")
    if not first:
        said.append("Nothing was tested: only forecasts one period ahead are independent of each other if they are right.")
    elif len(series) > 1:
        said.append("The p-value looks at one series drawn at random for each origin, because those of one day depend on each other.")
    return said
