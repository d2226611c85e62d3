"""Proper scores of forecasts, and how sure one may be of a difference between two.

A score S(F, y) of a forecast law F that came to y is proper where no law scores lower on average than the true one, so honesty pays
(Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102:359). All scores here are in the unit of y, and smaller is better:

    CRPS      integral of (F(x) - 1{x >= y})^2 dx; for a point forecast the absolute error
    pinball   max(q e, (q - 1) e), e = y - forecast, of the quantile at level q; CRPS is twice its integral over q
    WIS       twice its mean over a symmetric set of levels: CRPS, seen through these quantiles
    energy    E|X - y| - E|X - X'| / 2 with Euclidean distance: CRPS of a whole path

A score is NaN where the truth is. Forecasts are given as members: equally likely values, M of them, in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

HUB_LEVELS: Array = np.array([0.01, 0.025, *np.round(np.arange(0.05, 0.96, 0.05), 2), 0.975, 0.99])  # of the US forecast hubs
FEWEST_BLOCKS = 8


def crps_gaussian(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Array:
    """CRPS of a Gaussian: sd [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)], z = (y - mean) / sd (Gneiting et al. 2005,
    Mon. Weather Rev. 133:1098). Shapes broadcast; sd > 0."""
    y, mean, sd = (np.asarray(v, np.float64) for v in (y, mean, sd))
    z = (y - mean) / sd
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def crps_members(y: ArrayLike, members: ArrayLike) -> Array:
    """CRPS (...,) of the law that gives each of the members (..., M) the weight 1/M, for truths y (...,).

    mean|x_i - y| - sum_ij |x_i - x_j| / (2 M^2), the double sum by sorting: sum_i (2i - M - 1) x_(i) / M^2.
    """
    y, x = np.asarray(y, np.float64), np.sort(np.asarray(members, np.float64), axis=-1)
    count = x.shape[-1]
    weights = (2 * np.arange(1, count + 1) - count - 1) / count**2
    return np.asarray(np.abs(x - y[..., None]).mean(axis=-1) - x @ weights)


def pinball(y: ArrayLike, quantile: ArrayLike, level: ArrayLike) -> Array:
    """max(q e, (q - 1) e) with e = y - quantile, q the level in (0, 1); shapes broadcast."""
    error, level = np.asarray(y, np.float64) - np.asarray(quantile, np.float64), np.asarray(level, np.float64)
    return np.asarray(np.maximum(level * error, (level - 1) * error))


def weighted_interval_score(y: ArrayLike, quantiles: ArrayLike, levels: ArrayLike = HUB_LEVELS) -> Array:
    """WIS (...,) of quantiles (..., K) at symmetric levels (K,) that hold the median, for truths y (...,).

    [|y - median| / 2 + sum_k (alpha_k / 2) IS_k] / (number of intervals + 1/2), IS_k = (u - l) + (2/alpha_k) times the miss of the
    interval that holds y with probability 1 - alpha_k; this is twice the mean pinball score over the
    levels (Bracher et al. 2021, doi:10.1371/journal.pcbi.1008618).
    """
    levels = np.asarray(levels, np.float64)
    if len(levels) % 2 == 0 or not np.allclose(np.sort(levels) + np.sort(levels)[::-1], 1):
        raise ValueError(f"levels must lie symmetrically about the median and hold it, got {levels}")
    return np.asarray(2 * pinball(np.asarray(y, np.float64)[..., None], quantiles, levels).mean(axis=-1))


def quantiles_of(members: ArrayLike, levels: ArrayLike) -> Array:
    """Quantiles (..., K) of members (..., M) at levels (K,): the i-th smallest stands at (i - 1/2) / M (Hazen), so that members
    made as quantiles at these levels give them back. Beyond the outermost members, the outermost."""
    found = np.quantile(np.asarray(members, np.float64), np.asarray(levels, np.float64), axis=-1, method="hazen")
    return np.asarray(np.moveaxis(found, 0, -1))


def energy_score(y: ArrayLike, members: ArrayLike) -> Array:
    """Energy score (n,) of paths: truths (n, H), members (n, M, H). NaN where a truth has a NaN.

    mean|x_i - y| - sum_ij |x_i - x_j| / (2 M^2) with Euclidean distance over the H periods.
    """
    y, x = np.asarray(y, np.float64), np.asarray(members, np.float64)
    result = np.linalg.norm(x - y[:, None], axis=2).mean(axis=1)
    for start in range(0, len(x), 256):  # bounded memory: M^2 distances per row
        block = x[start : start + 256] - x[start : start + 256].mean(axis=1, keepdims=True)
        square = (block**2).sum(axis=2)
        apart = square[:, :, None] + square[:, None, :] - 2 * block @ block.transpose(0, 2, 1)
        result[start : start + 256] -= np.sqrt(np.maximum(apart, 0)).mean(axis=(1, 2)) / 2
    return np.asarray(result)


def block_bootstrap(scores: ArrayLike, days: ArrayLike, *, block: int = 30, count: int = 1000, seed: int) -> Array:
    """Resampled means (count, k) of scores (n, k), or (count,) of (n,), whose rows belong to the origins `days` (n,).

    Circular blocks of `block` days (Politis & Romano 1992) are drawn until there are as many origin days as before, and all rows
    of a day go together, because stations under one sky are not independent; neither are consecutive days. Columns are resampled
    together, so differences and ratios of columns are paired. NaN scores are left out of sums and counts. Blocks are shortened
    where fewer than FEWEST_BLOCKS would cover the days; then what is correlated over longer times looks surer than it is.
    """
    table = np.asarray(scores, np.float64)
    rows = table.reshape(len(table), -1)
    present, place = np.unique(np.asarray(days), return_inverse=True)
    weights = _block_weights(present, block, count, np.random.default_rng([seed, 0xB10C]))
    seen = np.isfinite(rows)
    sums, counts = (_by_day(v, place, len(present)) for v in (np.where(seen, rows, 0.0), seen.astype(np.float64)))
    with np.errstate(invalid="ignore"):  # a column that no drawn day has is unknown in that resample
        means = (weights @ sums) / (weights @ counts)
    return np.asarray(means.reshape(count, *table.shape[1:]))


def _block_weights(present: NDArray[np.int64], block: int, count: int, rng: np.random.Generator) -> Array:
    """How often each of the D days present is drawn, (count, D)."""
    total = len(present)
    spacing = float(np.median(np.diff(present))) if total > 1 else 1.0
    length = int(np.clip(round(block / spacing), 1, max(total // FEWEST_BLOCKS, 1)))
    starts = rng.integers(total, size=(count, -(-total // length)))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(count, -1)[:, :total] % total
    flat = drawn + total * np.arange(count)[:, None]
    return np.bincount(flat.ravel(), minlength=count * total).reshape(count, total).astype(np.float64)


def _by_day(values: Array, place: NDArray[np.int64], days: int) -> Array:
    return np.stack([np.bincount(place, column, days) for column in values.T], axis=1)
