"""What was recovered from radio traces, held against the true pulses, the matched filter and the Wiener filter.

    place        the largest value of the recovered signal stands within 2 % of the trace (10 of 500 steps) of that of the true one
    amplitude    that value is within 2 % of the true one
                 These are the two readings of "true reconstruction", on traces with a pulse.
    energy       sum of s^2 over the trace times the step, mV^2 ns
    detection    share of pulses whose confidence exceeds what a share FPR of traces without one reach
    false pulse  a trace without a pulse that is given a probability of more than CLAIMED

The filters (filters.py) are made from training traces: the noise is measured less signal, its covariance that of a stationary process.
In white noise no detector is better than the matched filter averaged over pulses and places, so one that is knows what it should not.
In noise that is not Gaussian one may be.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, norm, rankdata

from simulacra.evidence import Check, Evidence, Finding, scored
from simulacra.sciences.airshower import filters
from simulacra.sciences.airshower.data import Traces, signal_to_noise
from simulacra.study import Refused

Array = NDArray[np.float64]

NEAR = 0.02  # of the trace, and of the largest value
CLAIMED = 0.99  # probability above which a pulse counts as claimed
FALSE = 0.01  # rate of false alarms at which detection is told
FEWEST = 8  # traces with a pulse from which something is averaged
PULSES = 64  # of training that the matched filter knows
LEARNED_FROM = 8000  # training traces that spectra are measured on
SHARES = np.linspace(0.05, 0.95, 19)
ALARMS = np.geomspace(0.002, 1, 25)
AS_IT_IS, LINEAR, PASSED = "trace as it is", "Wiener filter", "band-pass"


# ---------------------------------------------------------------------------------------------------------- per trace


def true_reconstruction(recovered: Array, truth: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the largest value of each recovered signal (n, steps) has the place, and the amplitude, of the true one; (n,) each."""
    off = np.abs(recovered.argmax(axis=1) - truth.argmax(axis=1))
    return off <= NEAR * truth.shape[1], np.abs(amplitude_ratio(recovered, truth) - 1) <= NEAR


def amplitude_ratio(recovered: Array, truth: Array) -> Array:
    """Largest value of the recovered signal over that of the true one, (n,)."""
    return np.asarray(recovered.max(axis=1) / np.maximum(truth.max(axis=1), 1e-12))


def energy_ratio(recovered: Array, truth: Array) -> Array:
    """Energy of the recovered signal over that of the true one, (n,)."""
    return np.asarray(np.square(recovered).sum(axis=1) / np.square(truth).sum(axis=1))


def half_width(values: Array) -> float:
    """Half the interval that holds the middle 68.3 % of the values: the standard deviation of normal ones."""
    low, high = np.quantile(values, [norm.cdf(-1), norm.cdf(1)])
    return float(high - low) / 2


# ----------------------------------------------------------------------------------------------------------- detection


def area(without: Array, having: Array) -> float:
    """Area under the ROC curve: probability that a trace with a pulse has the higher confidence; ties count half."""
    ranks = rankdata(np.concatenate([without, having]))[len(without) :]
    return float((ranks.sum() - len(having) * (len(having) + 1) / 2) / (len(having) * len(without)))


def detected(without: Array, having: Array, false: float = FALSE) -> NDArray[np.bool_]:
    """Which traces with a pulse have a confidence above that of all but a share `false` of those without."""
    allowed = math.floor(false * len(without))
    return np.asarray(having > np.sort(without)[len(without) - 1 - allowed])


def confidence(found: Traces) -> Array:
    """How sure each row is to hold a pulse, (n,): its presence, or the largest value recovered where that is not told."""
    presence = found.presence.double().numpy()
    return np.asarray(presence if np.isfinite(presence).all() else found.signal.abs().amax(1).double().numpy())


# ------------------------------------------------------------------------------------------------------ what is known


@dataclasses.dataclass(frozen=True)
class Known:
    """What training traces tell of noise and pulses."""

    noise: Array  # (n, steps), mV
    pulses: Array  # (m, steps), mV
    share: float  # of traces that have one

    @classmethod
    def of(cls, training: Traces) -> Known | None:
        """None where too few pulses are known to make a filter of."""
        told = np.flatnonzero(np.isfinite(training.signal.numpy()).all(axis=1))
        some = told[np.linspace(0, len(told) - 1, min(len(told), LEARNED_FROM)).round().astype(int)]
        signal, measured = training.signal.numpy()[some], training.measured.numpy()[some]
        there = (signal != 0).any(axis=1)
        return cls(measured - signal, signal[there], float(there.mean())) if there.sum() >= FEWEST else None

    @cached_property
    def covariance(self) -> Array:
        """Of the noise, (steps, steps)."""
        return filters.covariance(filters.autocovariance(self.noise))

    @cached_property
    def wiener(self) -> Array:
        """The best linear estimate of the signal, pulses or none, as a matrix from the right."""
        steps = self.pulses.shape[1]
        lags = filters.autocovariance(self.pulses) * (1 - np.arange(steps) / steps)
        return filters.wiener_matrix(self.share * filters.covariance(lags), self.covariance)

    @cached_property
    def bank(self) -> filters.Bank:
        """The matched filters of the judge."""
        return self.bank_of(PULSES)

    def bank_of(self, count: int) -> filters.Bank:
        """At most `count` pulses of training, that may stand where pulses of training stand."""
        some = self.pulses[np.linspace(0, len(self.pulses) - 1, min(count, len(self.pulses))).round().astype(int)]
        place = np.abs(self.pulses).argmax(axis=1)
        return filters.Bank.of(some, self.covariance, int(place.min()), int(place.max()))

    def spectral(self, rows: Array) -> Array:
        """The Wiener filter of the textbook, mode by mode."""
        return filters.filtered(rows, filters.wiener_gain(self.share * filters.power(self.pulses), filters.power(self.noise)))

    @cached_property
    def gaussian(self) -> bool:
        """Whether neither the steps of the whitened noise nor its modes betray another law: fourth moments within 6 standard errors
        (steps: of all; modes: of each), or 1 %, of those of normal ones."""
        rows = self.noise[:4000]
        modes = np.square(np.abs(np.fft.rfft(rows, axis=1)))[:, 1:-1]
        fourth = np.square(modes).mean(axis=0) / np.square(modes.mean(axis=0)) - 2
        steps = float(kurtosis(rows @ filters.inverse(self.covariance, -0.5), axis=None))
        flat = abs(steps) < max(0.01, 6 * math.sqrt(24 / rows.size))
        return flat and bool((np.abs(fourth) < 6 * math.sqrt(20 / len(rows))).all())


# ---------------------------------------------------------------------------------------------------------------- judge


@dataclasses.dataclass(frozen=True)
class Trial:
    """Truth and what was recovered, row by row, as arrays (n, steps) in mV; `there` marks the traces with a pulse."""

    nature: Traces
    found: Traces
    there: NDArray[np.bool_]
    truth: Array
    signal: Array
    linear: Array
    rival: str  # the name of `linear`

    @property
    def step(self) -> float:
        """ns."""
        return 1000 / float(self.nature.rate[0])


def judge(nature: Traces, drawn: Traces, *, seed: int, training: Traces | None = None) -> Evidence:
    """Recovered signals of held-out traces against the true ones, row by row. `training` makes the filters that they stand beside;
    without it the rival is a band-pass, and there is no matched filter."""
    known = Known.of(training) if training is not None and training.steps == nature.steps else None
    trial = _trial(nature, drawn, known)
    odds = known.share / max(1 - known.share, 1e-3) if known else 1.0
    reading = known.bank.read(nature.measured.double().numpy(), odds) if known else None
    gaussian = known is not None and known.gaussian
    findings = [
        _error_of_pulses(trial, seed), *_error_without(trial, seed), _place(trial, seed), _amplitude(trial, seed), _energy(trial, seed),
        _spectrum(trial, seed), *_detection(trial, reading, gaussian, seed), *_calibration(trial, seed),
    ]  # fmt: skip
    snr, peak = (np.quantile(v.double().numpy()[trial.there], [0, 0.5, 1]) for v in signal_to_noise(nature))
    law = "normal, as far as fourth moments tell: the matched filter is exact" if gaussian else "not normal"
    remarks = [
        f"{int(trial.there.sum())} of {len(nature)} traces hold a pulse; SNR (peak over RMS of the trace) {snr[0]:.2g} to {snr[2]:.2g}, "
        f"median {snr[1]:.2g}; over the RMS of the noise alone {peak[0]:.2g} to {peak[2]:.2g}, median {peak[1]:.2g}.",
        *([f"The noise of training is {law}. Filters are made from {len(known.noise)} training traces."] if known else []),
    ]
    return Evidence(findings, _checks(trial, reading, known), nature_rows=len(nature), drawn_rows=len(drawn), remarks=remarks)


def _trial(nature: Traces, drawn: Traces, known: Known | None) -> Trial:
    if drawn.measured.shape != nature.measured.shape:
        raise Refused(
            f"row i of both files must be one trace: nature is {tuple(nature.measured.shape)}, recovered {tuple(drawn.measured.shape)}"
        )
    if not bool(nature.signal.isfinite().all()):
        rows = int((~nature.signal.isfinite().all(1)).sum())
        raise Refused(f"the true signal of {rows} of {len(nature)} traces is not known; a verdict needs all of them")
    if not bool(drawn.signal.isfinite().all()):
        raise Refused(f"{int((~drawn.signal.isfinite().all(1)).sum())} recovered signals hold values that are not finite")
    there = (nature.signal != 0).any(1).numpy()
    if there.sum() < FEWEST:
        raise Refused(f"{int(there.sum())} traces have a pulse; a verdict needs {FEWEST} or more")
    measured, truth, signal = (v.double().numpy() for v in (nature.measured, nature.signal, drawn.signal))
    linear = measured @ known.wiener if known else filters.band_pass(measured, float(nature.rate[0]))
    return Trial(nature, drawn, there, truth, signal, linear, LINEAR if known else PASSED)


def _error_of_pulses(trial: Trial, seed: int) -> Finding:
    """Squared error where there is a pulse, over the mean square of the pulses, by the time from the peak."""
    truth, ours, theirs = (v[trial.there] for v in (trial.truth, trial.signal, trial.linear))
    unit = float(np.square(truth).mean())
    errors = [np.square(v - truth) / unit for v in (ours, theirs)]
    edges = np.array([-2000, -400, -150, -75, -25, 25, 75, 150, 300, 600, 2000]) / trial.step
    away = np.arange(trial.nature.steps) - np.abs(truth).argmax(axis=1)[:, None]
    bins, columns = np.digitize(away, edges), []
    for number in range(1, len(edges)):
        inside = bins == number
        if inside.any():
            spread = float(errors[0][inside].std()) / math.sqrt(int(inside.any(axis=1).sum()))
            columns.append([float(away[inside].mean()) * trial.step, *(float(e[inside].mean()) for e in errors), spread])
    grid, drawn, rival, band = np.array(columns).T
    return scored(
        "squared error of pulses", "squared error / mean square of pulses",
        "Mean squared error over traces with a pulse, as a share of the pulses' own mean square; what it is at best is not known, so the "
        "floor is 0.", "time from the peak (ns)", grid, (np.zeros(len(grid)), drawn, rival, band), errors[0].mean(axis=1),
        errors[1].mean(axis=1), 0.0, rival=trial.rival, seed=seed,
    )  # fmt: skip


def _error_without(trial: Trial, seed: int) -> list[Finding]:
    none = ~trial.there
    if none.sum() < FEWEST:
        return []
    unit = float(np.square(trial.truth[trial.there]).mean())
    ours, theirs = (np.square(v[none]).mean(axis=1) / unit for v in (trial.signal, trial.linear))
    about = "Mean square of what is recovered where there is no pulse, as a share of that of pulses, and its quantiles over traces."
    return [_quantiles("signal where there is none", "mean square / that of pulses", about, ours, theirs, trial.rival, seed)]


def _quantiles(name: str, unit: str, about: str, ours: Array, theirs: Array, rival: str, seed: int) -> Finding:
    """A finding from one number per trace, 0 where all is well, with its quantiles as the picture."""
    drawn, other = (np.quantile(v, SHARES) for v in (ours, theirs))
    band = np.full(len(SHARES), float(ours.std()) / math.sqrt(len(ours)))
    curves = (np.zeros(len(SHARES)), drawn, other, band)
    return scored(name, unit, f"{about} The floor is 0.", "share of traces", SHARES, curves, ours, theirs, 0.0, rival=rival, seed=seed)


def _place(trial: Trial, seed: int) -> Finding:
    there = trial.there
    off = [np.abs(v[there].argmax(axis=1) - trial.truth[there].argmax(axis=1)) for v in (trial.signal, trial.nature.measured.numpy())]
    grid = np.array([0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 400], float)
    missed = [np.array([(o > g).mean() for g in grid]) for o in off]
    ours, theirs = ((o > NEAR * trial.nature.steps).astype(float) for o in off)
    return scored(
        "place of the peak", "share of pulses further off",
        f"Share of pulses whose recovered peak is further than a time from the true one; scored at {NEAR:.0%} of a trace. The floor is 0.",
        "time (ns)", grid * trial.step, (np.zeros(len(grid)), *missed, np.sqrt(missed[0] * (1 - missed[0]) / int(there.sum()))),
        ours, theirs, 0.0, rival=AS_IT_IS, seed=seed,
    )  # fmt: skip


def _amplitude(trial: Trial, seed: int) -> Finding:
    truth = trial.truth[trial.there]
    ours, theirs = (np.abs(amplitude_ratio(v[trial.there], truth) - 1) for v in (trial.signal, trial.linear))
    about = "How far the largest recovered value is off the true one, as a share of it, and the quantiles of that over pulses."
    return _quantiles("amplitude", "share of the true one", about, ours, theirs, trial.rival, seed)


def _energy(trial: Trial, seed: int) -> Finding:
    truth = trial.truth[trial.there]
    ours, theirs = (np.abs(np.log10(energy_ratio(v[trial.there], truth).clip(1e-3, 1e3))) for v in (trial.signal, trial.linear))
    about = "|log10| of the recovered over the true energy of each pulse, at most 3, and its quantiles over pulses."
    return _quantiles("pulse energy", "dex", about, ours, theirs, trial.rival, seed)


def _spectrum(trial: Trial, seed: int) -> Finding:
    """Mean spectrum of the pulses, as the article's figure has it: true, recovered, and of the traces as they are."""
    steps, rate = trial.nature.steps, float(trial.nature.rate[0])
    frequency = np.fft.rfftfreq(steps, 1 / rate)
    rows = [np.square(np.abs(np.fft.rfft(v[trial.there], axis=1))) for v in (trial.truth, trial.signal, trial.nature.measured.numpy())]
    width = max(1, round(2.0 / frequency[1]))  # modes of a band of 2 MHz
    keep = np.arange(1, (steps // 2) // width * width + 1)
    least = 1e-4 * float(rows[0].mean())

    def curve(which: Array) -> Array:
        return np.asarray(10 * np.log10(which[:, keep].mean(axis=0).reshape(-1, width).mean(axis=1) + least))

    curves = [curve(which) for which in rows]
    rng = np.random.default_rng([seed, 0x5BEC])
    count, found = len(rows[0]), []
    for _ in range(60):
        order = rng.permutation(count)
        one, two = order[: count // 2], order[count // 2 :]
        halves = curve(rows[0][one])
        found.append([float(np.sqrt(np.square(curve(rows[k][two]) - halves).mean())) for k in (0, 1, 2)])
    floor, distance, ceiling = np.mean(found, axis=0)
    gaps = (np.array(found)[:, 1] - floor) / max(ceiling - floor, 1e-12)
    low, high = np.percentile(gaps, [2.5, 97.5])
    band = np.std([curve(rows[0][rng.integers(count, size=count)]) for _ in range(60)], axis=0)
    return Finding(
        "spectrum of pulses", "dB, any unit",
        "Mean power of traces with a pulse in bands of 2 MHz; distance: root mean square difference in dB between halves of the traces.",
        "frequency (MHz)", frequency[keep].reshape(-1, width).mean(axis=1), curves[0], curves[1], curves[2], band, AS_IT_IS,
        float(distance), float(floor), max(float(ceiling), float(floor) + 1e-9), float(gaps.mean()), float(low), float(high),
    )  # fmt: skip


def _detection(trial: Trial, reading: filters.Reading | None, gaussian: bool, seed: int) -> list[Finding]:
    none = ~trial.there
    if none.sum() < FEWEST:
        return []
    sure = confidence(trial.found)
    ours = curve_of_detection(sure[none], sure[trial.there])
    best = curve_of_detection(reading.score[none], reading.score[trial.there]) if reading else None
    missed = 1 - detected(sure[none], sure[trial.there]).astype(float)
    floor = min(float(1 - detected(reading.score[none], reading.score[trial.there]).mean()), 0.9) if reading and gaussian else 0.0
    told = "the floor is the matched filter's, which nothing beats in this noise" if floor else "the floor is 0"
    return [
        scored(
            "detection", "share of pulses found",
            f"Share of pulses found at a rate of false alarms (the ROC curve); scored by the share missed at {FALSE:.0%}; {told}.",
            "rate of false alarms", ALARMS,
            (np.ones(len(ALARMS)), ours, ALARMS, np.sqrt(ours * (1 - ours) / int(trial.there.sum()))), missed,
            np.full(len(missed), 1 - FALSE), floor, rival="chance", seed=seed, log_grid=True, exact=best,
            exact_name="matched filter" if best is not None else "",
        )
    ]  # fmt: skip


def curve_of_detection(without: Array, having: Array) -> Array:
    """Share of pulses found at each rate of ALARMS: the ROC curve."""
    return np.array([float(detected(without, having, rate).mean()) if rate < 1 else 1.0 for rate in ALARMS])


def _calibration(trial: Trial, seed: int) -> list[Finding]:
    """Errors of steps where much or little was recovered, against the spread told there, beside one spread for all of them."""
    spread = trial.found.spread.double().numpy()
    if not np.isfinite(spread).all() or not (spread > 0).any():
        return []
    height, off = np.abs(trial.signal), np.square(trial.signal - trial.truth)
    edges = np.unique(np.quantile(height, np.concatenate([np.linspace(0, 0.9, 7), [0.97, 0.99, 0.997]])))[1:]
    bins, parts = np.digitize(height, edges), np.arange(len(edges) + 1)
    told, missed, sizes, count = (
        np.stack([(values * (bins == part)).sum(axis=1) for part in parts], axis=1)
        for values in (np.square(spread), off, height, np.ones_like(off))
    )
    alike = float(off.mean())

    def apart(weights: Array, other: bool = False) -> Array:
        """In dex, mean over the bins, for weights (b, n) of the traces."""
        promised = np.maximum(alike * (weights @ count) if other else weights @ told, 1e-30)
        return np.asarray(np.abs(np.log10(np.maximum(weights @ missed, 1e-30) / promised)).mean(axis=1) / 2)

    rows = np.random.default_rng([seed, 0xCA1]).multinomial(len(off), np.full(len(off), 1 / len(off)), size=200).astype(float)
    even = np.ones((1, len(off)))
    distance, ceiling = float(apart(even)[0]), max(float(apart(even, other=True)[0]), 1e-9)
    low, high = np.percentile(apart(rows) / np.maximum(apart(rows, other=True), 1e-9), [2.5, 97.5])
    number = np.maximum(count.sum(axis=0), 1)
    error, promised = (np.sqrt(v.sum(axis=0) / number) for v in (missed, told))
    band = np.sqrt((rows @ missed) / np.maximum(rows @ count, 1)).std(axis=0)
    return [
        Finding(
            "calibration of the spread", "mV",
            "Root mean square error of steps, by how much was recovered there, against the spread told for them; distance: mean absolute "
            "difference in dex; the floor is 0.", "recovered signal (mV)", np.maximum(sizes.sum(axis=0) / number, 1e-6), error, promised,
            np.full(len(parts), math.sqrt(alike)), band, "one spread for all", distance, 0.0, ceiling, distance / ceiling, float(low),
            float(high), log_grid=True, log_values=True,
        )
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- checks


def _checks(trial: Trial, reading: filters.Reading | None, known: Known | None) -> list[Check]:
    there, none = trial.there, ~trial.there
    truth = trial.truth[there]
    others = {AS_IT_IS: trial.nature.measured.double().numpy(), trial.rival: trial.linear}
    others |= {"matched filter": reading.best} if reading else {}
    found = [*_reconstruction(trial, others)]
    found.append(_error_check(trial, reading, known))
    if none.sum() >= FEWEST:
        sure = confidence(trial.found)
        found += [*(_efficiency_check(trial, sure, reading, known) if reading and known else []), _false_pulses(trial)]
        kept = detected(sure[none], sure[there])
    else:
        kept = np.ones(len(truth), bool)
    if kept.sum() >= FEWEST:
        found.append(_energy_check(trial, truth, kept))
    spread = trial.found.spread.double().numpy()
    if np.isfinite(spread).all() and (spread > 0).all():
        score = np.square((trial.signal - trial.truth) / spread).mean(axis=1)
        value, error = math.sqrt(float(score.mean())), float(score.std()) / math.sqrt(len(score)) / 2 / math.sqrt(float(score.mean()))
        beside = {f"within {k} spread": float((np.abs(trial.signal - trial.truth) <= k * spread).mean()) for k in (1, 2)}
        found.append(Check("error over the told spread, root mean square", value, error, "0.9 to 1.1", 0.9 <= value <= 1.1, beside))
    return found


def _reconstruction(trial: Trial, others: Mapping[str, Array]) -> list[Check]:
    truth = trial.truth[trial.there]
    ours = true_reconstruction(trial.signal[trial.there], truth)
    theirs = {name: true_reconstruction(rows[trial.there], truth) for name, rows in others.items()}
    checks = []
    for number, reading in enumerate(("place", "amplitude")):
        value = float(ours[number].mean())
        error = math.sqrt(max(value * (1 - value), 1 / len(truth)) / len(truth))
        beside = {name: 100 * float(both[number].mean()) for name, both in theirs.items()}
        bar = beside[trial.rival]
        checks.append(
            Check(f"true reconstruction, {reading} (%)", 100 * value, 100 * error, f"above the {trial.rival}'s", 100 * value > bar, beside)
        )
    return checks


def _error_check(trial: Trial, reading: filters.Reading | None, known: Known | None) -> Check:
    """Mean squared error over that of the linear filter, over all traces."""
    ours, theirs = (np.square(v - trial.truth).mean(axis=1) for v in (trial.signal, trial.linear))
    measured = trial.nature.measured.double().numpy()
    value, unit = float(ours.mean() / theirs.mean()), float(theirs.mean())
    error = float((ours - value * theirs).std()) / math.sqrt(len(ours)) / unit
    passed = filters.band_pass(measured, float(trial.nature.rate[0]))
    rows = {AS_IT_IS: measured, "zero everywhere": np.zeros_like(measured), PASSED: passed}
    rows |= {"Wiener filter mode by mode": known.spectral(measured)} if known else {}
    rows |= {"mean of the matched filter's pulses": reading.mean} if reading else {}
    beside = {name: float(np.square(v - trial.truth).mean()) / unit for name, v in rows.items()}
    return Check(f"squared error over that of the {trial.rival}", value, error, "below 1", value < 1, beside)


def _efficiency_check(trial: Trial, sure: Array, reading: filters.Reading, known: Known) -> list[Check]:
    """Pulses found over those that the matched filter finds, at the same rate of false alarms."""
    there, none = trial.there, ~trial.there
    ours, best = (detected(score[none], score[there]).astype(float) for score in (sure, reading.score))
    value = float(ours.mean() / max(best.mean(), 1e-9))
    rng, empty, full = np.random.default_rng(0), np.flatnonzero(none), np.flatnonzero(there)
    ratios, ahead = [], []
    for _ in range(100):  # thresholds are measured too: traces without a pulse are drawn again with the others
        some, more = rng.choice(empty, len(empty)), rng.choice(full, len(full))
        one, two = ((score[some], score[more]) for score in (sure, reading.score))
        ratios.append(float(detected(*one).mean() / max(detected(*two).mean(), 1e-9)))
        ahead.append(area(*one) - area(*two))
    error, lead = float(np.std(ratios)), area(sure[none], sure[there]) - area(reading.score[none], reading.score[there])
    leak = known.gaussian and lead > 3 * float(np.std(ahead))
    beside = {
        "found": float(ours.mean()), "found by the matched filter": float(best.mean()), "area under the ROC": area(sure[none], sure[there]),
        "area, matched filter": area(reading.score[none], reading.score[there]),
    }  # fmt: skip
    snr = signal_to_noise(trial.nature)[0].double().numpy()[there]
    edges = np.quantile(snr, [0, 1 / 3, 2 / 3, 1])
    if edges[-1] > 2 * edges[0]:
        for low, high in pairwise(edges):
            inside = (snr >= low) & (snr <= high)
            beside[f"found, SNR {low:.2g} to {high:.2g}"] = float(ours[inside].mean())
            beside[f"matched filter, SNR {low:.2g} to {high:.2g}"] = float(best[inside].mean())
    target = f"0.9 or more{', area under the ROC not above its (a leak)' if known.gaussian else ''}"
    name = f"pulses found over the matched filter's, {FALSE:.0%} false alarms"
    return [Check(name, value, error, target, value >= 0.9 and not leak, beside)]


def _false_pulses(trial: Trial) -> Check:
    presence, none = trial.found.presence.double().numpy(), ~trial.there
    rate, count = float((presence[none] > CLAIMED).mean()), int(none.sum())
    error = math.sqrt(max(rate * (1 - rate), 1 / count) / count)
    beside = {f"pulses claimed (presence above {CLAIMED:g}, %)": 100 * float((presence[trial.there] > CLAIMED).mean())}
    beside |= {"false at presence above 0.5 (%)": 100 * float((presence[none] > 0.5).mean()), "traces without a pulse": float(count)}
    return Check("false pulses (% of traces without one)", 100 * rate, 100 * error, "below 0.2", 100 * rate < 0.2, beside)


def _energy_check(trial: Trial, truth: Array, kept: NDArray[np.bool_]) -> Check:
    """Resolution of the energy of pulses that were found."""
    signal = trial.signal[trial.there]
    ratio = energy_ratio(signal, truth)[kept]
    late = (signal.argmax(axis=1) - truth.argmax(axis=1))[kept] * trial.step
    frequency = filters.band(trial.nature.steps, float(trial.nature.rate[0]))
    power = [np.square(np.abs(np.fft.rfft(v[kept], axis=1))) for v in (signal, truth)]
    ripple = [float(power[0][:, side].sum() / max(float(power[1][:, side].sum()), 1e-30)) for side in (frequency, ~frequency)]
    beside = {
        "median of recovered over true": float(np.median(ratio)), "share of pulses kept": float(kept.mean()),
        "amplitude, median of recovered over true": float(np.median(amplitude_ratio(signal, truth)[kept])),
        "peak time, half-width (ns)": half_width(late), "power in 30 to 80 MHz, recovered over true": ripple[0],
        "power outside, recovered over true": ripple[1],
    }  # fmt: skip
    value, rng = half_width(ratio), np.random.default_rng(0)
    error = float(np.std([half_width(rng.choice(ratio, len(ratio))) for _ in range(60)]))
    return Check("energy of found pulses, 68 % half-width of recovered over true", value, error, "0.2 or less", value <= 0.2, beside)
