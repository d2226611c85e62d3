"""What can be measured in maps of the convergence, and the verdict on maps that claim to be some.

The unit is the map: every statistic gives one row of numbers per map, and errors come from the scatter between maps. Maps need
not be periodic; counts use the pixels, edges and corners inside the map, and spectra a Hann window.

    C(l)           l = 2 pi k / pixel, C = P pixel^2, from measures.field; relative covariance 2 / modes for a Gaussian field
    V0, V1, V2     area, boundary length / 4 and Euler characteristic of {kappa >= threshold}, per pixel. With f, e, v the shares of
                   pixels, edges and corners of the grid that touch the set (pixels closed): V0 = f, V2 = v - 2 e + f, and
                   V1 = (pi/4) b / 4 with b boundary edges per pixel: a pixel boundary is longer than a smooth one by 4 / pi.
                   Gaussian field, nu in sigma, s1^2 = <|grad f|^2> (Tomita 1986; Schmalzing & Gorski 1998, MNRAS 297:355):
                   V0 = erfc(nu/sqrt 2)/2,  V1 = (s1/s0) exp(-nu^2/2) / (8 sqrt 2),
                   V2 = (s1/s0)^2 nu exp(-nu^2/2) / (2 (2 pi)^(3/2))
    peaks, minima  pixels above (below) all eight neighbours. Gaussian field: s2^2 / (8 pi sqrt 3 s1^2) maxima per area in all
                   (Longuet-Higgins 1957, Phil. Trans. A 249:321)
    bispectrum     <a(k1) a(k2) a(k3)> / area over triangles of three bands; Q = B / (P1 P2 + P2 P3 + P3 P1)
    wavelet l1     sum of |coefficients| per height, starlet of Starck, Fadili & Murtagh 2007; Ajani et al. 2021, A&A 645:L11

A pixel that is nan was not observed. Counts leave out every pixel, edge, corner or peak that touches one; for spectra, bispectra
and wavelets it is filled with the mean of its map. Spectra are divided by the observed share of the squared (bispectra: cubed)
window, but the mixing of scales by the mask is not undone: compare maps under one mask.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from simulacra.evidence import Evidence, Statistic, average, distribution, joint, weigh
from simulacra.measures import distance, field
from simulacra.sciences.lensing.data import Maps
from simulacra.study import Refused

Array = NDArray[np.float64]
Stack = NDArray[Any]

HEIGHTS = np.linspace(-3, 5, 33)  # in standard deviations of nature and drawn together
TRIANGLES = ((1 / 32,) * 3, (1 / 16,) * 3, (1 / 8,) * 3, (1 / 32, 1 / 8, 1 / 8), (1 / 16, 1 / 16, 1 / 8))  # cycles per pixel
SHAPES = ("equilateral 1/32", "equilateral 1/16", "equilateral 1/8", "squeezed 1/32, 1/8, 1/8", "folded 1/16, 1/16, 1/8")
RAREST = 1e-4  # share added before a logarithm
FAINTEST = 1e-6  # of the strongest band: weaker power is rounding of float32 maps
WAVELET_SCALES = 4
FEWEST = 20  # maps on a side


# ----------------------------------------------------------------------------------------------------------- measuring


def pixels(maps: Maps) -> Array:
    """kappa (n, side, side) in float64."""
    return np.asarray(maps.kappa.cpu().numpy(), np.float64)


def power_spectrum(maps: Maps, *, periodic: bool = False) -> tuple[Array, Array, Array]:
    """l (rings,), C(l) of each map (n, rings) in steradian, and the number of real modes (rings,)."""
    width = _pixel(maps)
    kappa, seen = _filled(pixels(maps))
    k, power, modes = field.power_spectrum(kappa, taper=not periodic)
    window = np.ones(kappa.shape[1:]) if periodic else field.hann(*kappa.shape[1:])
    share = (seen * window**2).sum(axis=(1, 2)) / (window**2).sum()
    return 2 * np.pi * k / width, power * width**2 / share[:, None], modes


def _pixel(maps: Maps) -> float:
    """Radians per pixel, the same for all maps."""
    degrees = maps.degrees.cpu().numpy()
    if np.ptp(degrees) > 1e-2 * degrees.mean():
        sizes = f"{degrees.min():g} to {degrees.max():g} degrees"
        raise Refused(f"maps of {sizes} have no spectrum in common; judge one angular size at a time")
    return float(np.radians(degrees.mean()) / maps.side)


def covariance(rows: Array) -> tuple[Array, Array]:
    """Covariance (k, k) of the columns of rows (n, k) between maps, and the correlation matrix (0 where a column is constant)."""
    scatter = np.atleast_2d(np.cov(rows, rowvar=False))
    spread = np.sqrt(np.diag(scatter))
    product = np.outer(spread, spread)
    return scatter, np.divide(scatter, product, out=np.zeros_like(scatter), where=product > 0)


def one_point(kappa: Stack, edges: Array) -> Array:
    """Share of the observed pixels of each map between `edges`, (n, bins); what lies beyond counts into the last bins."""
    return np.stack([_shares(map_, edges) for map_ in kappa])


def _shares(values: Stack, edges: Array) -> Array:
    seen = values[np.isfinite(values)]
    place = np.clip(np.searchsorted(edges, seen, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(place, minlength=len(edges) - 1) / max(seen.size, 1)


def moments(kappa: Stack) -> Array:
    """Mean, and second to fourth moment about it, of each map, (n, 4); the mean is taken to be 0, as over the whole sky."""
    return np.stack([np.nanmean(kappa**power, axis=(1, 2)) for power in (1, 2, 3, 4)], axis=1)


def skewness_and_kurtosis(means: Array) -> Array:
    """Skewness and excess kurtosis (b, 2) of all pixels together, from averages over maps of `moments`, (b, 4)."""
    m, m2, m3, m4 = np.asarray(means, float).T
    variance = np.maximum(m2 - m**2, np.finfo(float).tiny)
    third = m3 - 3 * m * m2 + 2 * m**3
    fourth = m4 - 4 * m * m3 + 6 * m**2 * m2 - 3 * m**4
    return np.stack([third / variance**1.5, fourth / variance**2 - 3], axis=1)


def smooth(kappa: Stack, radius: float, *, periodic: bool = False) -> Array:
    """Maps under a Gaussian of `radius` px; an average over the observed pixels, nan where less than half the weight is observed."""
    mode = "wrap" if periodic else "reflect"
    sigma = (0, radius, radius)
    seen = np.isfinite(kappa)
    if seen.all():
        return np.asarray(ndimage.gaussian_filter(kappa, sigma, mode=mode), np.float64)
    weight = ndimage.gaussian_filter(seen.astype(float), sigma, mode=mode)
    sums = ndimage.gaussian_filter(np.where(seen, kappa, 0.0), sigma, mode=mode)
    return np.where(seen & (weight > 0.5), sums / np.maximum(weight, 0.5), np.nan)


def minkowski(kappa: Stack, thresholds: Array, *, periodic: bool = False) -> Array:
    """V0, V1 (per pixel) and V2 (per pixel^2) of {kappa >= threshold} of each map, (n, 3, thresholds).

    Pixels follow the contours of maps smoothed by 2 px or more (Gaussian fields: V1 within 2 %, V2 within 4 % of the largest
    value); at 1 px they miss by 4 % and 10 %.
    """
    return np.stack([_minkowski(np.pad(map_, (0, 1), mode="wrap") if periodic else map_, thresholds, periodic) for map_ in kappa])


def _minkowski(f: Array, thresholds: Array, periodic: bool) -> Array:
    down, right = (f[:-1, :], f[1:, :]), (f[:, :-1], f[:, 1:])
    if periodic:  # the last row and column repeat the first: count each edge once
        down, right = (down[0][:, :-1], down[1][:, :-1]), (right[0][:-1], right[1][:-1])
    edge_high = np.concatenate([np.maximum(*down).ravel(), np.maximum(*right).ravel()])
    edge_low = np.concatenate([np.minimum(*down).ravel(), np.minimum(*right).ravel()])
    corner = np.maximum(np.maximum(f[:-1, :-1], f[1:, 1:]), np.maximum(f[1:, :-1], f[:-1, 1:]))
    face = f[:-1, :-1] if periodic else f
    faces, edges, both, corners = (_reaching(v, thresholds) for v in (face, edge_high, edge_low, corner))
    return np.stack([faces, np.pi / 4 * 2 * (edges - both) / 4, corners - 2 * edges + faces])


def _reaching(values: Array, thresholds: Array) -> Array:
    """Share of the finite values that are at or above each threshold."""
    ordered = np.sort(values[np.isfinite(values)])
    return np.asarray(1 - np.searchsorted(ordered, thresholds, side="left") / max(len(ordered), 1), np.float64)


def gaussian_minkowski(nu: Array, slope: float) -> Array:
    """V0, V1, V2 (3, k) of a Gaussian field at nu standard deviations; slope = s1/s0 per pixel."""
    decay = np.exp(-(nu**2) / 2)
    v2 = slope**2 * nu * decay / (2 * (2 * np.pi) ** 1.5)
    return np.stack([stats.norm.sf(nu), slope * decay / (8 * np.sqrt(2)), v2])


def peaks(kappa: Stack, edges: Array, *, periodic: bool = False) -> Array:
    """Local maxima per pixel of each map by height, (n, bins). For minima give -kappa and the edges of -kappa. Pixels at the border
    of a map that is not periodic, or beside an unobserved one, are no candidates."""
    f = np.pad(kappa, ((0, 0), (1, 1), (1, 1)), mode="wrap") if periodic else np.asarray(kappa)
    _, height, width = f.shape
    middle = f[:, 1:-1, 1:-1]
    highest = np.isfinite(middle)
    candidates = highest.copy()
    for y in range(3):
        for x in range(3):
            if (y, x) != (1, 1):
                beside = f[:, y : height - 2 + y, x : width - 2 + x]
                highest &= middle > beside
                candidates &= np.isfinite(beside)
    counts = [_shares(m[h], edges) * h.sum() / max(c.sum(), 1) for m, h, c in zip(middle, highest, candidates, strict=True)]
    return np.stack(counts)


def bispectrum(kappa: Stack, triangles: Sequence[Sequence[float]] = TRIANGLES, *, periodic: bool = False) -> tuple[Array, Array]:
    """B of each map on each triangle (n, t) in pixel^4 and P in each of its three bands (n, t, 3) in pixel^2.

    Bands are |k| within a quarter of their middle (at least one mode wide), k in cycles per pixel, up to 1/3 where triangles of
    the grid would close around it. For independent pixels of third moment m3, B = m3 on every triangle.
    """
    filled, seen = _filled(np.asarray(kappa, np.float64))
    n, height, width = filled.shape
    window = np.ones((height, width)) if periodic else field.hann(height, width)
    amplitude = np.fft.rfft2((filled - filled.mean(axis=(1, 2), keepdims=True)) * window)
    norms = [(seen * window**power).mean(axis=(1, 2)) * height * width for power in (2, 3)]
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    bands = {middle: _band(k, middle, min(height, width)) for middle in {m for triangle in triangles for m in triangle}}
    shape = (height, width)
    waves = {m: np.fft.irfft2(amplitude * band, shape) for m, band in bands.items()}
    units = {m: np.fft.irfft2(band.astype(float), shape) for m, band in bands.items()}
    power = {m: (waves[m] ** 2).sum(axis=(1, 2)) / (units[m] ** 2).sum() / norms[0] for m in bands}
    b = np.empty((n, len(triangles)))
    for i, (first, second, third) in enumerate(triangles):
        closed = (units[first] * units[second] * units[third]).sum()
        b[:, i] = (waves[first] * waves[second] * waves[third]).sum(axis=(1, 2)) / closed / norms[1]
    return b, np.stack([np.stack([power[m] for m in triangle], axis=1) for triangle in triangles], axis=1)


def _band(k: Array, middle: float, side: int) -> NDArray[np.bool_]:
    if not 0 < middle <= 1 / 3:
        raise Refused(f"a triangle with k = {middle:g} cycles per pixel; expected more than 0 and at most 1/3")
    return np.asarray((np.abs(k - middle) <= max(middle / 4, 0.5 / side)) & (k > 0), np.bool_)


def reduced_bispectrum(means: Array) -> Array:
    """Q (b, t) from averages over maps of B and P, laid out as (b, t) and (b, 3 t) beside each other."""
    count = means.shape[1] // 4
    b, p = means[:, :count], means[:, count:].reshape(len(means), count, 3)
    pairs = p[..., 0] * p[..., 1] + p[..., 1] * p[..., 2] + p[..., 2] * p[..., 0]
    return np.asarray(b / np.maximum(pairs, np.finfo(float).tiny), np.float64)


def starlet(kappa: Stack, scales: int = WAVELET_SCALES, *, periodic: bool = False) -> Array:
    """Wavelet coefficients of each map, (n, scales + 1, side, side): details of 2, 4, 8, ... px, then what is left; they sum to the map."""
    coarse = np.asarray(kappa, np.float64)
    details = []
    for scale in range(scales):
        kernel = np.zeros(4 * 2**scale + 1)
        kernel[:: 2**scale] = np.array([1, 4, 6, 4, 1]) / 16
        smoother = coarse
        for axis in (1, 2):
            smoother = ndimage.correlate1d(smoother, kernel, axis=axis, mode="wrap" if periodic else "mirror")
        details.append(coarse - smoother)
        coarse = smoother
    return np.stack([*details, coarse], axis=1)


def l1_norm(kappa: Stack, edges: Array, *, periodic: bool = False) -> Array:
    """Sum of |coefficient| per observed pixel between the heights edges[j] of scale j, edges (scales, bins + 1) -> (n, scales, bins)."""
    filled, seen = _filled(np.asarray(kappa, np.float64))
    coefficients = starlet(filled, len(edges), periodic=periodic)
    table = np.empty((len(filled), len(edges), edges.shape[1] - 1))
    for i in range(len(filled)):
        for j, levels in enumerate(edges):
            values = coefficients[i, j][seen[i]]
            place = np.clip(np.searchsorted(levels, values, side="right") - 1, 0, len(levels) - 2)
            table[i, j] = np.bincount(place, np.abs(values), len(levels) - 1) / values.size
    return table


def _filled(kappa: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Maps with the mean of the map where nothing was observed, and where something was."""
    seen = np.isfinite(kappa)
    return (kappa if seen.all() else np.where(seen, kappa, np.nanmean(kappa, axis=(1, 2), keepdims=True))), seen


# ---------------------------------------------------------------------------------------------------------------- judge


@dataclasses.dataclass(frozen=True)
class _Ruler:
    """What both sides are measured with, set by nature and drawn alike: did it know which is which, permuting would not be exact."""

    sigma: float  # of a pixel
    smooth_sigma: float  # of a smoothed pixel
    wavelet_sigma: Array  # (scales,)
    smoothing: float  # px

    def measure(self, maps: Maps, training: Array | None) -> dict[str, Array]:
        """Rows per map of every statistic."""
        kappa = pixels(maps)
        smoothed = smooth(kappa, self.smoothing)
        heights, per_degree = HEIGHTS * self.smooth_sigma, (maps.side / float(maps.degrees.mean())) ** 2
        _, spectra, _ = power_spectrum(maps)
        bands = _in_bands(spectra)
        b, p = bispectrum(kappa)
        shapes = minkowski(smoothed, heights)
        levels = np.linspace(-4, 6, 21) * self.wavelet_sigma[:, None]
        rows = {
            "power spectrum": spectra,
            "scatter of the spectrum": np.concatenate([bands, bands**2], axis=1),
            "correlation of the spectrum": np.concatenate([bands, bands**2, _products(bands)], axis=1),
            "one-point law": one_point(kappa, HEIGHTS * self.sigma),
            "peak counts": peaks(smoothed, heights) * per_degree,
            "minimum counts": peaks(-smoothed, heights) * per_degree,
            **{name: shapes[:, i] for i, name in enumerate(("V0 (area)", "V1 (boundary)", "V2 (Euler characteristic)"))},
            "skewness and kurtosis": moments(kappa / self.sigma),
            "bispectrum": np.concatenate([b, p.reshape(len(p), -1)], axis=1),
            "wavelet l1 norm": l1_norm(kappa, levels).reshape(len(kappa), -1) / self.sigma,
        }
        if training is not None:
            rows["memorisation"] = np.log10(_nearest_turned(_thumbnails(kappa), training) / self.sigma + 1e-3)[:, None]
        return rows


def _ruler(both: Array, smoothing: float) -> _Ruler:
    filled, _ = _filled(both)
    spread = np.array([_typical(scale) for scale in starlet(filled)[:, :-1].std(axis=(2, 3)).T])
    widths = [_typical(np.nanstd(values, axis=(1, 2))) for values in (both, smooth(both, smoothing))]
    if min(*widths, *spread) <= 0:
        raise Refused("more than half of the maps are constant: nothing can be measured in them")
    return _Ruler(widths[0], widths[1], spread, smoothing)


def _typical(widths: Array) -> float:
    """Median of the maps that are not flat beside the others: where all draws are, half of the maps, it is nature's."""
    kept = widths[widths >= 0.05 * np.quantile(widths, 0.9)]
    return float(np.median(kept))


def judge(
    nature: Maps, drawn: Maps, *, seed: int, training: Maps | None = None, smoothing: float = 2.0,
    permutations: int = 999, halves: int = 100,
) -> Evidence:  # fmt: skip
    """Held-out against drawn maps, map by map; neither side knows where the other came from.

    Heights are in standard deviations of all maps together. Peaks, minima and Minkowski functionals are measured after a Gaussian
    of `smoothing` px. Rivals, each wrong in the way that its statistic should notice: `blurred nature` (1 px) for the spectrum and
    for precision, `Gaussian maps` of nature's mean spectrum for all that lies beyond it and for its covariance, `one map` (nature's
    first, turned and flipped: collapse) for coverage, `copied training maps` for memorisation.
    """
    _comparable(nature, drawn, training)
    rng = np.random.default_rng([seed, 0x1E45])
    ruler = _ruler(np.concatenate([pixels(nature), pixels(drawn)]), smoothing)
    sets = {"nature": nature, "drawn": drawn, **_rivals(nature, training, rng)}
    known = None if training is None else _thumbnails(pixels(training))
    tables = {name: ruler.measure(maps, known) for name, maps in sets.items()}
    _add_features(tables)
    chosen = _statistics(nature, ruler, tables, training is not None)
    measured = [(tables["nature"][s.name], tables["drawn"][s.name], tables[s.rival][s.name]) for s in chosen]
    labels, remarks = _conditions(nature, drawn)
    evidence = weigh(chosen, measured, labels, seed=seed, permutations=permutations, halves=halves)
    return dataclasses.replace(evidence, remarks=[*evidence.remarks, *remarks])


def _comparable(nature: Maps, drawn: Maps, training: Maps | None) -> None:
    for name, other in (("drawn", drawn), ("training", training)):
        if other is None:
            continue
        if other.side != nature.side:
            raise Refused(f"nature has maps of {nature.side} px, {name} maps have {other.side}; cut both to one size")
        if abs(float(other.degrees.mean() / nature.degrees.mean()) - 1) > 1e-2:
            raise Refused(
                f"nature's maps are {float(nature.degrees.mean()):.4g} degrees wide and {name} maps {float(other.degrees.mean()):.4g}: "
                "their pixels show different scales; give maps of one angular size"
            )
        _pixel(other)
    if min(len(nature), len(drawn)) < FEWEST:
        raise Refused(f"{len(nature)} maps of nature and {len(drawn)} drawn; fewer than {FEWEST} on a side cannot be told apart: draw more")


def _conditions(nature: Maps, drawn: Maps) -> tuple[tuple[Array, Array], list[str]]:
    """One label per map where both sides show the same universes, 8 maps or more of each; and what the reader must know."""
    remarks = []
    masked = [name for name, maps in (("nature", nature), ("drawn", drawn)) if bool(maps.kappa.isnan().any())]
    if masked:
        remarks.append(f"unobserved pixels in {' and '.join(masked)}: statistics are of the observed pixels, spectra those under the mask")
    both = np.nan_to_num(np.concatenate([nature.universe.cpu().numpy(), drawn.universe.cpu().numpy()]), nan=-9.0)
    label = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1).astype(float)
    sides = label[: len(nature)], label[len(nature) :]
    counts = [np.unique(side, return_counts=True) for side in sides]
    if np.array_equal(counts[0][0], counts[1][0]) and np.array_equal(counts[0][1], counts[1][1]) and counts[0][1].min() >= 8:
        return sides, remarks
    if len(counts[0][0]) + len(counts[1][0]) > 2:
        remarks.append("maps of several universes are judged together: both sides do not hold 8 maps or more of each, the same number")
    return (np.zeros(len(nature)), np.zeros(len(drawn))), remarks


def _rivals(nature: Maps, training: Maps | None, rng: np.random.Generator) -> dict[str, Maps]:
    kappa, _ = _filled(pixels(nature))
    rivals = {
        "blurred nature": ndimage.gaussian_filter(kappa, (0, 1, 1)),
        "Gaussian maps": gaussian_maps(kappa, rng),
        "one map": _turned_at_random(np.broadcast_to(kappa[0], kappa.shape), rng),
    }
    if training is not None:
        rows = rng.choice(len(training), min(len(nature), len(training)), replace=False)
        copies, _ = _filled(pixels(training)[rows])
        rivals["copied training maps"] = _turned_at_random(copies, rng)
    return {name: _as_maps(values, nature) for name, values in rivals.items()}


def gaussian_maps(kappa: Array, rng: np.random.Generator) -> Array:
    """As many Gaussian maps as (n, side, side) are given, with the mean spectrum and the mean of those."""
    centred = kappa - kappa.mean()
    amplitude = np.sqrt((np.abs(np.fft.rfft2(centred)) ** 2).mean(axis=0) / centred[0].size)
    noise = np.fft.rfft2(rng.standard_normal(kappa.shape)) * amplitude
    return np.asarray(np.fft.irfft2(noise, kappa.shape[1:]) + kappa.mean(), np.float64)


def _as_maps(values: Array, like: Maps) -> Maps:
    import torch

    first = like[torch.zeros(len(values), dtype=torch.int64)]
    return Maps(torch.from_numpy(values.astype(np.float32)), first.degrees, first.universe)


def _turned(image: Array, way: int) -> Array:
    """One of the eight turns and flips of a square."""
    turned = np.rot90(image, way % 4)
    return turned[:, ::-1] if way >= 4 else turned


def _turned_at_random(images: Array, rng: np.random.Generator) -> Array:
    return np.stack([_turned(image, int(way)) for image, way in zip(images, rng.integers(8, size=len(images)), strict=True)])


def _in_bands(spectra: Array) -> Array:
    """Mean power in up to eight bands of equal ratio, the first modes excluded (the window leaves them little), (n, bands)."""
    edges = np.unique(np.rint(np.geomspace(1, spectra.shape[1] * 0.8, 9)).astype(int))
    return np.stack([spectra[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)


def _products(bands: Array) -> Array:
    first, second = np.triu_indices(bands.shape[1], 1)
    return bands[:, first] * bands[:, second]


def _scatter(means: Array) -> Array:
    count = means.shape[1] // 2
    mean, square = means[:, :count], means[:, count:]
    ratio = np.maximum(square / np.maximum(mean**2, np.finfo(float).tiny) - 1, 1e-6)
    return np.asarray(np.log10(ratio) / 2, np.float64)


def _correlations(means: Array) -> Array:
    """Correlation of every pair of bands from averages of bands, squares and products."""
    count = round((np.sqrt(9 + 8 * means.shape[1]) - 3) / 2)  # count + count + count (count - 1) / 2 columns
    mean, square, product = means[:, :count], means[:, count : 2 * count], means[:, 2 * count :]
    first, second = np.triu_indices(count, 1)
    spread = np.sqrt(np.maximum(square - mean**2, 1e-9 * square + np.finfo(float).tiny))
    return np.asarray((product - mean[:, first] * mean[:, second]) / (spread[:, first] * spread[:, second]), np.float64)


def _thumbnails(kappa: Array, side: int = 16) -> Array:
    """Maps averaged down to about 16 x 16 px and laid out flat."""
    filled, _ = _filled(kappa)
    each = max(filled.shape[1] // side, 1)
    keep = filled.shape[1] // each
    block = filled[:, : keep * each, : keep * each].reshape(len(filled), keep, each, keep, each)
    return np.asarray(block.mean(axis=(2, 4)).reshape(len(filled), -1), np.float64)


def _nearest_turned(flat: Array, reference: Array) -> Array:
    """Root-mean-square difference (n,) to the nearest reference thumbnail in any of its eight turns and flips."""
    side = round(flat.shape[1] ** 0.5)
    square = reference.reshape(-1, side, side)
    ways = [distance.nearest(flat, np.stack([_turned(s, way) for s in square]).reshape(len(square), -1)) for way in range(8)]
    return np.asarray(np.min(ways, axis=0) / side, np.float64)


FEATURES = ("power spectrum", "one-point law", "peak counts", "V1 (boundary)", "V2 (Euler characteristic)")


def _add_features(tables: Mapping[str, dict[str, Array]]) -> None:
    """The leading components of all statistics at once, on scales set by nature and drawn alike."""
    raw = {name: np.concatenate([_feature(table, f) for f in FEATURES], axis=1) for name, table in tables.items()}
    both = np.concatenate([raw["nature"], raw["drawn"]])
    centre, spread = both.mean(axis=0), both.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)
    axes = np.linalg.eigh(np.cov((both - centre) / scale, rowvar=False))[1][:, :-9:-1]
    for name, table in tables.items():
        table["classifier two-sample test"] = table["coverage"] = table["precision"] = (raw[name] - centre) / scale @ axes


def _feature(table: Mapping[str, Array], name: str) -> Array:
    rows = table[name]
    return np.log10(_in_bands(rows)) if name == "power spectrum" else rows


def _statistics(
    nature: Maps, ruler: _Ruler, tables: Mapping[str, Mapping[str, Array]], with_training: bool
) -> list[Statistic[Any]]:
    spectra = np.concatenate([tables[side]["power spectrum"] for side in ("nature", "drawn")])
    faintest = FAINTEST * float(spectra.mean(axis=0).max())
    chosen = [*_of_scales(nature, faintest), *_of_heights(f"after a Gaussian of {ruler.smoothing:g} px")]
    chosen += _beyond_gaussian()
    chosen += joint("map", _read, tables["nature"]["coverage"].shape[1], rivals=("Gaussian maps", "one map", "blurred nature"))
    return [*chosen, _memorisation()] if with_training else chosen


def _read(name: str) -> Any:
    return lambda table: table[name]


def _curve(name: str, unit: str, about: str, grid: Array, grid_name: str, rival: str = "Gaussian maps", **more: Any) -> Statistic[Any]:
    return average(name, unit, about, _read(name), np.asarray(grid, np.float64), grid_name, rival=rival, **more)


def _of_scales(nature: Maps, faintest: float) -> list[Statistic[Any]]:
    ell, _, _ = power_spectrum(nature[:2])
    bands = _in_bands(ell[None])[0]
    pairs = np.arange(1.0, len(bands) * (len(bands) - 1) // 2 + 1)
    return [
        _curve(
            "power spectrum", "log10 C(l) (sr)", "log10 of the mean C(l) over maps, Hann window; distance: root mean square in dex.",
            ell, "multipole l", "blurred nature", function=lambda c: np.log10(c + faintest), log_grid=True,
        ),
        _curve(
            "scatter of the spectrum", "log10 (sd / mean)",
            "Relative scatter of band powers between maps (diagonal of their covariance).",
            bands, "multipole l", function=_scatter, log_grid=True,
        ),
        _curve(
            "correlation of the spectrum", "correlation", "Correlation between maps of bands 1-2, 1-3, ...: by rows, above the diagonal.",
            pairs, "pair of bands", function=_correlations, bars=True,
        ),
    ]  # fmt: skip


def _of_heights(after: str) -> list[Statistic[Any]]:
    middles, height = (HEIGHTS[1:] + HEIGHTS[:-1]) / 2, "height (standard deviations)"
    functionals = {"V0 (area)": "share of the map", "V1 (boundary)": "per pixel", "V2 (Euler characteristic)": "per pixel²"}
    return [
        _curve(
            "one-point law", "log10 share", "Share of pixels by height; distance: root mean square of log10(share + 1e-4).",
            middles, height, function=lambda share: np.log10(share + RAREST), bars=True,
        ),
        _curve("peak counts", "per square degree", f"Pixels above all eight neighbours by height, {after}.", middles, height, bars=True),
        _curve(
            "minimum counts", "per square degree", f"Pixels below all eight neighbours by depth, {after}.",
            middles, "depth below 0 (standard deviations)", bars=True,
        ),
        *[_curve(n, unit, f"Minkowski functional of the set above a height, {after}.", HEIGHTS, height) for n, unit in functionals.items()],
    ]  # fmt: skip


def _beyond_gaussian() -> list[Statistic[Any]]:
    shapes = "; ".join(f"{i} {shape}" for i, shape in enumerate(SHAPES, 1))
    return [
        _curve(
            "skewness and kurtosis", "", "Skewness (1) and excess kurtosis (2) of all pixels together.",
            np.array([1.0, 2.0]), "1: skewness, 2: excess kurtosis", function=skewness_and_kurtosis, bars=True,
        ),
        _curve(
            "bispectrum", "Q = B / (P1 P2 + P2 P3 + P3 P1)", f"Triangles, k in cycles per pixel: {shapes}.",
            np.arange(1.0, len(TRIANGLES) + 1), "triangle", function=reduced_bispectrum, bars=True,
        ),
        _curve(
            "wavelet l1 norm", "per pixel (standard deviations)",
            f"Sum of |starlet coefficients| by height, 20 heights from -4 to 6 sigma on each of {WAVELET_SCALES} scales (2, 4, 8, 16 px).",
            np.arange(1.0, WAVELET_SCALES * 20 + 1), "scale and height", bars=True,
        ),
    ]  # fmt: skip


def _memorisation() -> Statistic[Any]:
    return distribution(
        "memorisation", "dex", "log10 of the distance to the nearest training map at 16 x 16 px, eight turns and flips, in sigma.",
        lambda table: table["memorisation"][:, 0], np.linspace(-3, 1, 41), rival="copied training maps", distance=distance.shortfall,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- bin by bin


@dataclasses.dataclass(frozen=True)
class Bins:
    """One curve, bin by bin: how far the drawn maps lie from nature's, and which bins show it beyond chance."""

    name: str
    effect: Array  # (k,) difference of the means, drawn minus nature, in standard deviations between maps
    p: Array  # (k,) Kolmogorov-Smirnov test of the values of single maps
    different: NDArray[np.bool_]  # (k,) called different, with at most `rate` of such calls expected to be false over all curves


CURVES = (
    "power spectrum", "one-point law", "peak counts", "minimum counts", "V0 (area)", "V1 (boundary)", "V2 (Euler characteristic)",
    "wavelet l1 norm",
)  # fmt: skip


def bin_by_bin(nature: Maps, drawn: Maps, *, smoothing: float = 2.0, rate: float = 0.05) -> list[Bins]:
    """Every bin of every curve by itself, the map being the unit; false discovery rate after Benjamini & Hochberg 1995 (JRSS B 57:289).

    Bins of one curve depend on each other; the procedure holds where they do so positively, as neighbouring bins mostly do.
    """
    _comparable(nature, drawn, None)
    ruler = _ruler(np.concatenate([pixels(nature), pixels(drawn)]), smoothing)
    first, second = ruler.measure(nature, None), ruler.measure(drawn, None)
    effects = [_effect(first[name], second[name]) for name in CURVES]
    tests = [_each_column_differs(first[name], second[name]) for name in CURVES]
    called = discoveries(np.concatenate(tests), rate)
    parts = np.split(called, np.cumsum([len(p) for p in tests])[:-1])
    return [Bins(name, effect, p, part) for name, effect, p, part in zip(CURVES, effects, tests, parts, strict=True)]


def _effect(nature: Array, drawn: Array) -> Array:
    spread = np.sqrt((nature.var(axis=0, ddof=1) + drawn.var(axis=0, ddof=1)) / 2)
    difference = np.asarray(drawn.mean(axis=0) - nature.mean(axis=0), np.float64)
    return np.asarray(np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0), np.float64)


def _each_column_differs(nature: Array, drawn: Array) -> Array:
    """p-values (k,); counts tie often, and the asymptotic law errs on the side of caution there."""
    return np.array([stats.ks_2samp(a, b, method="asymp").pvalue for a, b in zip(nature.T, drawn.T, strict=True)])


def discoveries(p: Array, rate: float) -> NDArray[np.bool_]:
    """Which of the p-values (m,) are called: all up to the largest p_(i) <= rate i / m."""
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / len(p))
    return np.asarray(p <= (ordered[below[-1]] if len(below) else -1.0), np.bool_)


def pooled_tests(nature: Maps, drawn: Maps) -> dict[str, float]:
    """p-values of two Kolmogorov-Smirnov tests that take something else than the map for the unit. Not for a verdict.

    `pixels`: all pixels pooled, though those of a map are alike, so that nature differs from itself. `band means`: the mean
    powers of all rings as if they were draws from one law; only their order of magnitude matters, so that hardly anything fails.
    """
    _comparable(nature, drawn, None)
    values = [pixels(side).ravel() for side in (nature, drawn)]
    means = [power_spectrum(side)[1].mean(axis=0) for side in (nature, drawn)]
    pooled = stats.ks_2samp(*(v[np.isfinite(v)] for v in values), method="asymp")
    return {"pixels": float(pooled.pvalue), "band means": float(stats.ks_2samp(*means).pvalue)}
