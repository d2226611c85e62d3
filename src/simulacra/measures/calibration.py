"""Whether a forecast's probabilities happen as often as it says.

A central interval of level l should hold the truth in a share l of cases, and the probability integral transform F(y) should be
uniform (Dawid 1984, J. R. Stat. Soc. A 147:278; Gneiting, Balabdaoui & Raftery 2007, J. R. Stat. Soc. B 69:243). Necessary, not
sufficient: climatology is calibrated and says little, so width stands beside coverage and scores beside both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulacra.measures.scores import quantiles_of

Array = NDArray[np.float64]


def inside(y: ArrayLike, members: ArrayLike, levels: ArrayLike) -> tuple[Array, Array]:
    """1 where truths y (...,) lie in the central intervals of members (..., M) at levels (K,), else 0, NaN where y is; and the
    widths of the intervals: both (..., K)."""
    y, levels = np.asarray(y, np.float64)[..., None], np.asarray(levels, np.float64)
    ends = quantiles_of(members, np.concatenate([(1 - levels) / 2, (1 + levels) / 2]))
    lower, upper = ends[..., : len(levels)], ends[..., len(levels) :]
    held = np.where(np.isfinite(y), (lower <= y) & (y <= upper), np.nan)
    return np.asarray(held, np.float64), np.asarray(upper - lower)


def coverage(y: ArrayLike, members: ArrayLike, levels: ArrayLike) -> tuple[Array, Array]:
    """Share (K,) of truths y (...,) inside the central intervals at levels (K,), and the mean width (K,) of these intervals, over
    all truths that are known."""
    held, width = inside(y, members, levels)
    known = np.isfinite(held[..., 0])
    return held[known].mean(axis=0), width[known].mean(axis=0)


def pit(y: ArrayLike, members: ArrayLike, *, seed: int) -> Array:
    """Probability integral transform (...,) of truths y (...,) in laws given by members (..., M); NaN where y is.

    Members are taken as the quantiles at (i + 1/2) / M. A truth between two of them gets a value drawn uniformly between their
    levels (below the first: between 0 and 1/(2M)), a truth equal to several one drawn across them all; so it is exactly uniform
    where the members are such quantiles of the true law (randomised as in Czado, Gneiting & Held 2009, Biometrics 65:1254).
    """
    y, x = np.asarray(y, np.float64)[..., None], np.asarray(members, np.float64)
    count = x.shape[-1]
    low = np.clip(((x < y).sum(axis=-1) - 0.5) / count, 0, 1)
    high = np.clip(((x <= y).sum(axis=-1) + 0.5) / count, 0, 1)
    where = np.random.default_rng([seed, 0x917]).random(low.shape)
    return np.asarray(np.where(np.isfinite(y[..., 0]), low + where * (high - low), np.nan))
