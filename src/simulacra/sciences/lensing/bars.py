"""Drawn convergence maps held to bars, universe by universe, each beside what two sets of nature's own maps score.

    power spectrum     mean C(l) over maps, in bands up to 80 % of the Nyquist frequency, within 3 %
    its covariance     variance of the logarithm of band powers between maps (the diagonal, relative to the mean), within 15 %, averaged
                       over bands and universes
    skewness           of all pixels together, within 5 %
    Minkowski          share of thresholds at which V0, V1 or V2 are more than two standard errors apart
    single maps        share of bins of all curves whose values per map differ by a Kolmogorov-Smirnov test at 5 %

The unit is the map; standard errors come from the scatter between maps. Numbers of maps limit what can be shown: a bar counts as
met where the deviation less its standard error (twice where it is the largest of several) is below it, so read the value beside
its error, and beside the copula (gaussian.py) and nature's halves.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Check
from simulacra.sciences.lensing import statistics
from simulacra.sciences.lensing.data import Maps
from simulacra.sciences.lensing.framing import of_universe
from simulacra.study import Refused

Array = NDArray[np.float64]

HIGHEST = 0.8  # of the Nyquist frequency
HEIGHTS = np.linspace(-2, 4, 13)  # thresholds of Minkowski functionals in standard deviations of nature
SMOOTHING = 2.0  # px


@dataclasses.dataclass(frozen=True)
class Deviations:
    """How far drawn maps are from nature's, each with its standard error where one is known (else nan)."""

    spectrum: tuple[float, float]  # largest relative deviation of a band in a universe
    covariance: tuple[float, float]  # mean ratio of variances, less 1
    skewness: tuple[float, float]  # largest relative deviation of a universe
    minkowski: float  # share of thresholds beyond two standard errors
    single_maps: float  # share of bins with p < 0.05


def deviations(nature: Maps, drawn: Maps) -> Deviations:
    """Of drawn maps from nature's, universe by universe. Raises Refused where a universe has fewer than 20 maps on a side."""
    pairs = _paired(nature, drawn)
    spectra = [_spectrum(a, b) for a, b in pairs]
    skewness = [_skewness(a, b) for a, b in pairs]
    ratio = np.concatenate([_variances(a, b) for a, b in pairs])
    return Deviations(
        _largest(np.concatenate([s[0] for s in spectra]), np.concatenate([s[1] for s in spectra])),
        (float(ratio.mean() - 1), float(ratio.std(ddof=1) / np.sqrt(len(ratio)))),
        _largest(np.array([s[0] for s in skewness]), np.array([s[1] for s in skewness])),
        float(np.mean(np.concatenate([_minkowski(a, b) for a, b in pairs]))),
        float(np.mean([np.mean(np.concatenate([bins.p for bins in statistics.bin_by_bin(a, b)]) < 0.05) for a, b in pairs])),
    )


def halves(nature: Maps) -> Deviations:
    """Nature against itself: every second map of each universe against the others."""
    return deviations(nature[::2], nature[1::2])


def checks(nature: Maps, drawn: Maps, rivals: Mapping[str, Maps]) -> list[Check]:
    """The bars, with every one of `rivals` and nature's halves beside them."""
    own = deviations(nature, drawn)
    others = {name: deviations(nature, maps) for name, maps in rivals.items()} | {"nature's halves": halves(nature)}

    def beside(field: str) -> dict[str, float]:
        values = {name: getattr(other, field) for name, other in others.items()}
        return {name: float(value[0] if isinstance(value, tuple) else value) for name, value in values.items()}

    def near(name: str, field: str, bar: float, granted: int) -> Check:
        value, error = getattr(own, field)
        target = f"within {bar:.0%}, {granted} standard error{'s' * (granted > 1)} granted"
        return Check(name, value, error, target, abs(value) - granted * error < bar, beside(field))

    floor = others["nature's halves"]
    return [
        near(f"power spectrum, largest deviation of a band up to {HIGHEST:g} Nyquist", "spectrum", 0.03, 2),
        near("variance of band powers between maps, mean deviation", "covariance", 0.15, 1),
        near("skewness, largest deviation of a universe", "skewness", 0.05, 2),
        Check(
            "Minkowski functionals, share of thresholds beyond 2 standard errors", own.minkowski, float("nan"),
            "at most 10 %, or what nature's halves have", own.minkowski <= max(0.10, floor.minkowski), beside("minkowski"),
        ),
        Check(
            "single maps, share of bins that differ at 5 % (Kolmogorov-Smirnov)", own.single_maps, float("nan"),
            "at most 10 %, or what nature's halves have", own.single_maps <= max(0.10, floor.single_maps), beside("single_maps"),
        ),
    ]  # fmt: skip


def _paired(nature: Maps, drawn: Maps) -> list[tuple[Maps, Maps]]:
    known = dict(of_universe(drawn))
    pairs = [(maps, known[name]) for name, maps in of_universe(nature) if name in known]
    if not pairs:
        pairs = [(nature, drawn)]
    fewest = min(min(len(a), len(b)) for a, b in pairs)
    if fewest < statistics.FEWEST:
        raise Refused(f"{fewest} maps of a universe on one side; its statistics need {statistics.FEWEST} or more")
    return pairs


def _largest(deviation: Array, error: Array) -> tuple[float, float]:
    """The deviation that is largest beyond its error, with it."""
    worst = int(np.argmax(np.abs(deviation) - 2 * error))
    return float(deviation[worst]), float(error[worst])


def _bands(maps: Maps) -> Array:
    """Powers of each map (n, bands) in bands of about equal ratio up to HIGHEST."""
    ell, power, _ = statistics.power_spectrum(maps)
    kept = max(3, round(len(ell) * HIGHEST))
    edges = np.unique(np.rint(np.geomspace(1, kept, 8)).astype(int))
    return np.stack([power[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)


def _spectrum(nature: Maps, drawn: Maps) -> tuple[Array, Array]:
    a, b = _bands(nature), _bands(drawn)
    ratio = b.mean(axis=0) / a.mean(axis=0)
    errors = [x.std(axis=0, ddof=1) / x.mean(axis=0) / np.sqrt(len(x)) for x in (a, b)]
    return ratio - 1, ratio * np.hypot(*errors)


def _variances(nature: Maps, drawn: Maps) -> Array:
    """Ratio of the variances of log band powers between maps, each band's."""
    a, b = _bands(nature), _bands(drawn)
    relative = [np.log(x + 1e-30).var(axis=0, ddof=1) for x in (a, b)]
    return np.asarray(relative[1] / relative[0], np.float64)


def _skewness(nature: Maps, drawn: Maps) -> tuple[float, float]:
    values, errors = zip(*(_skewness_of(statistics.moments(statistics.pixels(maps))) for maps in (nature, drawn)), strict=True)
    ratio = values[1] / values[0]
    return ratio - 1, abs(ratio) * float(np.hypot(errors[0] / values[0], errors[1] / values[1]))


def _skewness_of(moments: Array, parts: int = 20) -> tuple[float, float]:
    """Skewness of all maps together, with the jackknife error over `parts` of them."""
    n = min(parts, len(moments))
    place = np.arange(len(moments)) % n
    left = np.array([statistics.skewness_and_kurtosis(moments[place != k].mean(axis=0)[None])[0, 0] for k in range(n)])
    return float(statistics.skewness_and_kurtosis(moments.mean(axis=0)[None])[0, 0]), float(np.sqrt((n - 1) * left.var()))


def _minkowski(nature: Maps, drawn: Maps) -> Array:
    """Which of the functionals at which heights are more than two standard errors apart, (3 heights,)."""
    smoothed = [statistics.smooth(statistics.pixels(maps), SMOOTHING) for maps in (nature, drawn)]
    heights = HEIGHTS * float(np.nanstd(smoothed[0]))
    a, b = (statistics.minkowski(s, heights).reshape(len(s), -1) for s in smoothed)
    error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
    return np.asarray(np.abs(b.mean(axis=0) - a.mean(axis=0)) > 2 * np.maximum(error, 1e-12))
