"""How good a forecast of an epidemic is: scores on two scales beside the hub's baseline, and coverage while it grows and while it falls.

The weighted interval score of the 23 quantiles that the US hubs ask for is a distance in cases, so on the natural scale large states
and high waves decide; of log(1 + cases) it is a relative error, and all states and weeks count alike (Bosse et al. 2023,
doi:10.1371/journal.pcbi.1011393). Both are given, relative to the baseline that the COVID-19 Forecast Hub held its models to.

The baseline is `hub_baseline`, after the hub's own description (metadata of COVIDhub-baseline in reichlab/covid19-forecast-hub) and
code (reichlab/simplets, reichlab/covidModels; used in Cramer et al. 2022, doi:10.1073/pnas.2113561119). The description centres its
law by the mean, the code by the median; for a symmetric law they agree, and the median is done here. Its intervals remember every change
since the beginning, so after a high wave they are wide, and on the logarithmic scale little is needed to score below it. So `log_walk`
stands beside it: the same rule for log(1 + cases), with the changes of the last half year.

Phases are ours, and simple: cases of the two weeks after the origin against those of the two weeks up to it, growth above 5/4, decline
below 4/5. They are known only afterwards, and whoever sorts forecasts by what came favours those that happened to lean that way (Lerch
et al. 2017, doi:10.1214/16-STS588); so a phase is also taken from what was known at the origin. Lopez et al. 2024
(doi:10.1371/journal.pcbi.1011200) sort the hub's forecasts by phases of the effective reproduction number instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from simulacra.evidence import Check, Evidence, Finding
from simulacra.measures.scores import HUB_LEVELS, block_bootstrap, quantiles_of, weighted_interval_score
from simulacra.sciences.epidemic.data import name_of
from simulacra.series import backtest
from simulacra.series.rivals import LEVELS, Forecaster, persistence
from simulacra.series.windows import Outlook
from simulacra.study import Refused

Array = NDArray[np.float64]

BASELINE, WALK = "hub baseline", "log walk"
MEMORY = 26  # weeks whose changes the log walk repeats
SAMPLES = 1999  # of the baseline's law; the hub draws 100,000
BLOCK = 91  # days of a block in the bootstrap: errors of one wave belong together
RESAMPLES = 1000
CENTRAL: Array = np.array([0.5, 0.8, 0.95])
PHASES = ("growth", "steady", "decline")
TURN = 1.25  # ratio of two weeks to the two before, above which an epidemic grows
FEWEST_ROWS = 20  # of a phase, to be scored by itself
FEW_DAYS = 30  # origin days below which no difference is called shown
UNKNOWN = "The floor is 0, a perfect forecast: the best that can be known is unknown."


# --- the baseline ---


def hub_baseline(rows: Outlook, levels: Array = LEVELS) -> Tensor:
    """Quantiles (n, len(levels), H) of the hub's baseline, in ascending order of level.

    The last observed count stays. Its week-to-week changes so far, and their negatives, are what may happen again: the law of the
    change over h weeks is that of the sum of h draws from them, moved so that its median is 0; counts below 0 become 0. For one week
    these are the empirical quantiles; for more the draws are SAMPLES evenly spread ones in an order that is shuffled anew each week.
    """
    return _of_walks(rows, levels, lambda past: past, lambda law: law)


def log_walk(rows: Outlook, levels: Array = LEVELS) -> Tensor:
    """The same rule for log(1 + cases), with the changes of the last MEMORY periods only: quantiles (n, len(levels), H) of cases."""
    return _of_walks(rows, levels, lambda past: np.log1p(np.maximum(past[-MEMORY - 1 :], 0)), np.expm1)


def _of_walks(rows: Outlook, levels: Array, scaled: Callable[[Array], Array], back: Callable[[Array], Array]) -> Tensor:
    """Quantiles of walks on another scale; blocks of rows keep the memory small."""
    parts: list[Tensor] = []
    for block in rows.past[:, :, 0].double().split(512):  # type: ignore[no-untyped-call]
        pasts = block.numpy()
        start = sum(len(part) for part in parts)
        names = rows.series[start : start + len(pasts)].tolist()
        walks = [_changes(series, scaled(past[np.isfinite(past)])) for series, past in zip(names, pasts, strict=True)]
        parts.append(_walked(np.array([last for last, _ in walks]), np.stack([steps for _, steps in walks]), rows.horizon, levels, back))
    return torch.cat(parts)


def _changes(series: int, observed: Array) -> tuple[float, Array]:
    """The last value and SAMPLES evenly spread quantiles of the changes and their negatives."""
    if not len(observed):
        raise Refused(f"{name_of(series)}: no period is known at the origin, so not even the baseline can say anything")
    changes = np.diff(observed) if len(observed) > 1 else np.zeros(1)
    both = np.sort(np.concatenate([changes, -changes]))
    return float(observed[-1]), np.interp(np.linspace(0, 1, SAMPLES), np.linspace(0, 1, len(both)), both)


def _walked(last: Array, steps: Array, horizon: int, levels: Array, back: Callable[[Array], Array]) -> Tensor:
    """Quantiles (n, len(levels), H) of last values (n,) after sums of steps (n, SAMPLES)."""
    found = np.empty((len(last), len(levels), horizon), np.float32)
    at = levels * (SAMPLES - 1)
    low, share = np.floor(at).astype(int), at % 1
    rng, total = np.random.default_rng(0xBA5E), np.zeros_like(steps)
    for week in range(horizon):
        total = total + (steps if week == 0 else steps[:, rng.permutation(SAMPLES)])
        ordered = np.sort(total, axis=1)
        ordered = np.maximum(back(last[:, None] + ordered - ordered[:, [SAMPLES // 2]]), 0)
        found[:, :, week] = ordered[:, low] * (1 - share) + ordered[:, np.minimum(low + 1, SAMPLES - 1)] * share
    return torch.from_numpy(found)


# --- scores of every forecast ---


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is known of n forecasts over H weeks ahead once the weeks have passed; NaN where a week was not observed."""

    series: NDArray[np.int64]  # (n,)
    day: NDArray[np.int64]  # (n,) origins
    natural: Array  # (n, H) weighted interval score in cases
    natural_baseline: Array
    natural_walk: Array
    logarithmic: Array  # (n, H) the same of log(1 + cases)
    logarithmic_baseline: Array
    logarithmic_walk: Array
    held: Array  # (n, H, 3) whether the central intervals at CENTRAL hold what came
    held_baseline: Array
    phase: NDArray[np.int64]  # (n,) place in PHASES, by the weeks after the origin; -1: unknown
    phase_known: NDArray[np.int64]  # (n,) the same by the weeks before it

    @classmethod
    def of(cls, nature: Outlook, drawn: Outlook) -> Scores:
        """Scores of forecasts `drawn` of the origins in `nature`, row for row, beside the hub's baseline for the same rows."""
        truth = nature.future[:, 0].double().numpy()
        ours = quantiles_of(drawn.future.permute(0, 2, 1).numpy(), HUB_LEVELS)
        theirs, walk = (law(nature, HUB_LEVELS).permute(0, 2, 1).double().numpy() for law in (hub_baseline, log_walk))
        natural = [weighted_interval_score(truth, v) for v in (ours, theirs, walk)]
        logarithmic = [weighted_interval_score(_log(truth), _log(v)) for v in (ours, theirs, walk)]
        return cls(
            nature.series.numpy(), nature.day.numpy(), natural[0], natural[1], natural[2], logarithmic[0], logarithmic[1], logarithmic[2],
            _held(truth, ours), _held(truth, theirs), phase_that_came(nature), phase_that_was_known(nature),
        )  # fmt: skip

    def __getitem__(self, rows: NDArray[np.bool_]) -> Scores:
        return Scores(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})

    def __len__(self) -> int:
        return len(self.day)

    def of_scale(self, scale: str, rival: str = BASELINE) -> tuple[Array, Array]:
        """Our scores and a rival's (BASELINE or WALK), on the scale "natural" or "log"."""
        if scale == "natural":
            return self.natural, self.natural_baseline if rival == BASELINE else self.natural_walk
        return self.logarithmic, self.logarithmic_baseline if rival == BASELINE else self.logarithmic_walk

    def relative(self, scale: str, seed: int, weeks: slice = slice(None), rival: str = BASELINE) -> tuple[float, float, float, float]:
        """Mean score over a rival's, the standard error of that ratio, and the ends of its 95 % interval."""
        ours, theirs = (v[:, weeks] for v in self.of_scale(scale, rival))
        both = np.stack([_mean(ours), _mean(theirs)], axis=1)
        return _ratio(float(np.nanmean(ours)), float(np.nanmean(theirs)), _resampled(self, both, seed))


def _held(truth: Array, quantiles: Array) -> Array:
    """Whether intervals between hub quantiles (n, H, 23) hold the truth (n, H): (n, H, 3) of 0, 1, NaN where it is unknown."""
    low = [int(np.argmin(np.abs(HUB_LEVELS - (1 - c) / 2))) for c in CENTRAL]
    high = [len(HUB_LEVELS) - 1 - at for at in low]
    y = truth[..., None]
    return np.where(np.isfinite(y), (quantiles[..., low] <= y) & (y <= quantiles[..., high]), np.nan)


def phase_that_came(rows: Outlook) -> NDArray[np.int64]:
    """Place in PHASES (n,) of what happened around each origin: the two weeks after it against the two up to it."""
    return _phase(_mean(rows.future[:, 0, :2].double().numpy()), _mean(rows.past[:, -2:, 0].double().numpy()))


def phase_that_was_known(rows: Outlook) -> NDArray[np.int64]:
    """Place in PHASES (n,) by what was known: the two weeks up to the origin against the two before those."""
    past = rows.past[:, :, 0].double().numpy()
    return _phase(_mean(past[:, -2:]), _mean(past[:, -4:-2]))


def _phase(after: Array, before: Array) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        ratio = (after + 1) / (before + 1)
        place = np.where(ratio > TURN, 0, np.where(ratio < 1 / TURN, 2, 1))
    return np.where(np.isfinite(ratio), place, -1)


def _mean(values: Array) -> Array:
    """Mean (n,) over the known ones of values (n, k); NaN where none is."""
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def _resampled(scores: Scores, columns: Array, seed: int) -> Array:
    return block_bootstrap(columns, scores.day, block=BLOCK, count=RESAMPLES, seed=seed)


def _ratio(ours: float, theirs: float, resampled: Array) -> tuple[float, float, float, float]:
    least = max(float(theirs), 1e-9)  # a baseline without error, where nothing ever changed
    ratio = float(ours) / least
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = resampled[:, 0] / np.maximum(resampled[:, 1], 1e-9)
    ratios = ratios[np.isfinite(ratios)]
    low, high = np.percentile(ratios, [2.5, 97.5]) if len(ratios) else (ratio, ratio)
    return ratio, float(np.std(ratios)) if len(ratios) else 0.0, float(low), float(high)


# --- the verdict ---


def judge(nature: Outlook, drawn: Outlook, *, seed: int, training: Outlook | None = None) -> Evidence:
    """Hold forecasts of cases against what came. Rows of `drawn` without any number (origins that a file leaves out) are set aside.

    The findings of `series.backtest` are those of log(1 + weekly cases), so that all states count alike; scores relative to the hub's
    baseline on both scales, and coverage by phase, are added. Daily forecasts are judged on their own scale, against persistence.
    """
    nature, drawn, remarks = _both(nature, drawn)
    scores = Scores.of(nature, drawn)
    known = [scores.natural[:, week] for week in range(nature.horizon)]
    weeks = [week for week, values in enumerate(known) if np.isfinite(values).any()]
    baseline = hub_baseline(nature)
    others: dict[str, Forecaster] = {BASELINE: lambda rows: baseline, WALK: log_walk}
    if training is not None and len(training):
        others["persistence"] = persistence(training)
    weekly = int(nature.every[0]) == 7
    general = backtest.judge(
        nature, drawn, rivals=others, against=BASELINE, unit="log(1 + cases)" if weekly else "cases a day", seed=seed,
        leads=[week + 1 for week in weeks], transform=_log if weekly else None,
        remarks=[*remarks, *_said(scores, seed)],
    )  # fmt: skip
    own = [_wis(scores, scale, weeks, weekly, seed) for scale in ("natural", "log")]
    for place, phase in enumerate(PHASES):
        chosen = scores[scores.phase == place]
        if phase != "steady" and len(chosen) >= FEWEST_ROWS and np.isfinite(chosen.held).any():
            own.append(_coverage(chosen, phase, seed))
    return dataclasses.replace(general, findings=[*own, *general.findings])


def _log(values: Array) -> Array:
    return np.asarray(np.log1p(np.maximum(values, 0)))


def _both(nature: Outlook, drawn: Outlook) -> tuple[Outlook, Outlook, list[str]]:
    """The rows that were forecast, and a remark on those that were not."""
    if len(nature) != len(drawn):
        return nature, drawn, []  # refused below, in words
    said = drawn.future.isfinite().all(dim=1).any(dim=1)
    if bool(said.all()):
        return nature, drawn, []
    if not bool(said.any()):
        raise Refused("none of the forecasts holds a number; forecasts of the held-out origins are expected")
    keep = torch.nonzero(said).flatten()
    return nature[keep], drawn[keep], [f"{len(said) - len(keep)} of {len(said)} origins were not forecast and are not judged."]


def _said(scores: Scores, seed: int) -> list[str]:
    """The relative scores in words, with where the forecasts lose."""
    few = len(np.unique(scores.day)) < FEW_DAYS
    lines = []
    for rival in (BASELINE, WALK):
        for scale in ("natural", "log"):
            ratio, _, low, high = scores.relative(scale, seed, rival=rival)
            verdict = "no difference shown" if low <= 1 <= high or few else ("lower" if ratio < 1 else "higher") + f" than the {rival}'s"
            lines.append(f"Weighted interval score relative to the {rival}, {scale} scale: {ratio:.2f} [{low:.2f}, {high:.2f}], {verdict}.")
    for rival in (BASELINE, WALK):
        worse = []
        for place, phase in enumerate(PHASES):
            chosen = scores[scores.phase == place]
            for scale in ("natural", "log") if np.isfinite(chosen.natural).any() else ():
                ratio = chosen.relative(scale, seed, rival=rival)[0]
                worse += [f"in {phase}, {scale} scale ({ratio:.2f})"] if ratio >= 1 else []
        lines.append(f"Where the {rival} scores as low or lower, phases as they turned out: {'; '.join(worse) or 'nowhere'}.")
    return lines


def _wis(scores: Scores, scale: str, weeks: Sequence[int], weekly: bool, seed: int) -> Finding:
    ours, theirs = (v[:, weeks] for v in scores.of_scale(scale))
    means = np.nanmean(ours, axis=0), np.nanmean(theirs, axis=0)
    distance, ceiling = (float(np.mean(m)) for m in means)
    ratio, _, low, high = _ratio(distance, ceiling, _resampled(scores, np.stack([_mean(ours), _mean(theirs)], axis=1), seed))
    band = np.nan_to_num(np.nanstd(_resampled(scores, ours, seed), axis=0))
    unit, period = ("cases", "log(1 + cases)")[scale == "log"], ("day", "week")[weekly]
    about = (
        f"Mean weighted interval score of 23 quantiles at each horizon and for the {BASELINE} on the same rows; distance: mean over "
        f"horizons, the gap is the relative score. {UNKNOWN}"
    )
    grid = np.array(weeks, float) + 1
    return Finding(
        f"weighted interval score, {scale} scale", unit, about, f"horizon ({period}s)", grid, np.zeros(len(grid)), *means, band,
        BASELINE, distance, 0.0, max(ceiling, 1e-9), ratio, low, high,
    )  # fmt: skip


def _coverage(scores: Scores, phase: str, seed: int) -> Finding:
    """Coverage of central intervals in one phase, all horizons together."""
    shares = np.stack([_mean(scores.held[..., k]) for k in range(len(CENTRAL))], axis=1)
    theirs = np.stack([_mean(scores.held_baseline[..., k]) for k in range(len(CENTRAL))], axis=1)
    found, baseline = np.nanmean(shares, axis=0), np.nanmean(theirs, axis=0)
    resampled = _resampled(scores, shares, seed)
    scatter = np.nanstd(resampled, axis=0)
    half = 2 * ndtr(ndtri((1 + CENTRAL) / 2) / 2) - 1  # a Gaussian forecast of half the right spread
    away: Callable[[Array], Array] = lambda values: 100 * np.abs(values - CENTRAL).mean(axis=-1)  # noqa: E731
    distance, ceiling = float(away(found)), float(away(half))
    floor = float(min(100 * np.mean(np.sqrt(2 / np.pi) * scatter), 0.5 * ceiling))
    gaps = (away(resampled) - floor) / (ceiling - floor)
    gaps = gaps[np.isfinite(gaps)]
    low, high = np.percentile(gaps, [2.5, 97.5]) if len(gaps) else (np.nan, np.nan)
    beside = ", ".join(f"{100 * c:g} %: {100 * b:.0f} %" for c, b in zip(CENTRAL, baseline, strict=True))
    about = (
        f"Share of observed weeks inside central intervals, of the {len(scores)} forecasts made in {phase} as it turned out; distance: "
        f"mean absolute difference from nominal, in %. The {BASELINE} covers {beside}. The floor is what the scatter over blocks of "
        f"{BLOCK} days leaves of a calibrated forecast."
    )
    return Finding(
        f"coverage in {phase}", "% of weeks inside", about, "nominal (%)", 100 * CENTRAL, 100 * CENTRAL, 100 * found, 100 * half,
        np.nan_to_num(100 * scatter), "half the right spread", distance, floor, ceiling, (distance - floor) / (ceiling - floor),
        float(low), float(high),
    )  # fmt: skip


# --- tables: by horizon, phase, year ---


def checks(scores: Scores, groups: Mapping[str, NDArray[np.bool_]], seed: int, weeks: slice = slice(None)) -> list[Check]:
    """For each group of forecasts: relative score on both scales, held to 1, and coverage of 50 and 95 % intervals, held to nominal."""
    found = []
    for name, rows in groups.items():
        chosen = scores[rows]
        if len(chosen) < FEWEST_ROWS or not np.isfinite(chosen.natural[:, weeks]).any():
            continue
        for scale in ("natural", "log"):
            ratio, error, low, high = chosen.relative(scale, seed, weeks)
            ours, theirs = (float(np.nanmean(v[:, weeks])) for v in chosen.of_scale(scale))
            walk = float(np.nanmean(chosen.of_scale(scale, WALK)[1][:, weeks]))
            few = len(np.unique(chosen.day)) < FEW_DAYS
            said = ", too few days to say" if few else ", no difference shown" if low <= 1 <= high else ""
            target = f"below 1 with its interval [{low:.2f}, {high:.2f}]{said}"
            found.append(Check(f"relative WIS, {scale} scale, {name}", ratio, error, target, high < 1 and not few,
                               {"WIS": ours, f"WIS of the {BASELINE}": theirs, f"WIS of the {WALK}": walk}))  # fmt: skip
        found += [_covered(chosen, name, level, seed, weeks) for level in (0, 2)]
    return found


def _covered(scores: Scores, name: str, level: int, seed: int, weeks: slice) -> Check:
    nominal = CENTRAL[level]
    held = _mean(scores.held[:, weeks, level])
    value, baseline = 100 * float(np.nanmean(held)), 100 * float(np.nanmean(scores.held_baseline[:, weeks, level]))
    error = 100 * float(np.nanstd(_resampled(scores, held, seed)))
    near = (47.0, 53.0) if level == 0 else (93.0, 97.0)
    target = f"{near[0]:g} to {near[1]:g} %"
    what = f"coverage of {100 * nominal:g} % intervals, {name} (%)"
    return Check(what, value, error, target, near[0] <= value <= near[1], {BASELINE: baseline})


def by_phase(scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Groups of forecasts by phase, as it turned out and as it was known."""
    came = {f"in {phase}": scores.phase == place for place, phase in enumerate(PHASES)}
    known = {f"{phase} known at the origin": scores.phase_known == place for place, phase in enumerate(PHASES)}
    return {**came, **known}


def by_year(scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Groups of forecasts by the year of the origin."""
    years = scores.day.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    return {str(year): years == year for year in np.unique(years).tolist()}


def states_below_one(scores: Scores, scale: str) -> tuple[int, int]:
    """In how many series the mean score is below the baseline's, and of how many."""
    ours, theirs = scores.of_scale(scale)
    mine, base = _mean(ours), _mean(theirs)
    below = [bool(np.nanmean(mine[scores.series == s]) < np.nanmean(base[scores.series == s])) for s in np.unique(scores.series)]
    return sum(below), len(below)
