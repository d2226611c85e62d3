"""Distances between two weighted sets of rows, for many pairs of weights at once.

Everything a judge does (permutation, half-splitting, bootstrap) is a choice of weights over one pooled set of rows.
So each distance here has one signature,

    distance(values, p, q) -> (b,)     values: (n, k), one row per independent thing of nature
                                       p, q:   (b, n), b pairs of weightings, each row summing to 1

and measuring is done once, before any resampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bits = NDArray[np.bool_]
Distance = Callable[[Array, Array, Array], Array]
Curve = Callable[[Array], Array]


def wasserstein(values: Array, p: Array, q: Array) -> Array:
    """W1 = integral of |F_p - F_q| between the laws of a scalar, values (n, 1); in the unit of the scalar."""
    return _between_laws(values, p, q, np.abs)


def shortfall(values: Array, p: Array, q: Array) -> Array:
    """One-sided W1: by how much q lies *below* p, integral of max(0, F_q - F_p). Zero where q is nowhere lower."""
    return _between_laws(values, p, q, lambda gap: np.maximum(-gap, 0.0))


def _between_laws(values: Array, p: Array, q: Array, cost: Callable[[Array], Array]) -> Array:
    if values.shape[1] != 1:
        raise ValueError(f"distance between laws of a scalar needs values of shape (n, 1), got {values.shape}")
    order = np.argsort(values[:, 0], kind="stable")
    steps = np.diff(values[order, 0])
    gap = np.cumsum(p[:, order] - q[:, order], axis=1)[:, :-1]
    return np.asarray(cost(gap) @ steps)


def between_curves(curve: Curve) -> Distance:
    """Root mean square difference of `curve(means)`, where means (b, k) are the weighted averages of the columns."""

    def distance(values: Array, p: Array, q: Array) -> Array:
        difference = curve(p @ values) - curve(q @ values)
        return np.asarray(np.sqrt(np.mean(difference**2, axis=1)))

    return distance


def exceedances(counts: Array, most: int) -> Array:
    """Counts (n, kinds) as indicators of count > 0, > 1, ..., > most - 1 of every kind, (n, kinds x most)."""
    return np.asarray((counts[:, :, None] > np.arange(most)).reshape(len(counts), -1), np.float64)


def counts_wasserstein(values: Array, p: Array, q: Array) -> Array:
    """Sum over kinds of the W1 between the laws of their counts, from `exceedances`: for whole numbers W1 is sum_c |P(>c) - Q(>c)|."""
    return np.asarray(np.abs((p - q) @ values).sum(1))


def energy(values: Array, p: Array, q: Array) -> Array:
    """Energy distance 2 E|x-y| - E|x-x'| - E|y-y'| of feature vectors (Szekely & Rizzo 2004), square root taken."""
    apart = pairwise(values, values)
    r = p - q
    return np.asarray(np.sqrt(np.maximum(-np.einsum("bi,bi->b", r @ apart, r), 0.0)))


def neighbour_test(values: Array, p: Array, q: Array) -> Array:
    """Two-sample test by nearest-neighbour classifier: share of rows, beyond one half, whose nearest other row has its label.

    0: the two sets cannot be told apart; 1/2: every row's neighbour comes from its own set. Rows of weight 0 under both
    p and q take no part. Schilling 1986 (JASA 81:799); as a judge of generators, Lopez-Paz & Oquab 2017 (1610.06545).
    """
    around = _Neighbours.of(values)
    result = np.empty(len(p))
    for b, (a, c) in enumerate(zip(p > 0, q > 0, strict=True)):
        rows = np.flatnonzero(a | c)
        result[b] = np.mean(a[rows] == a[_nearest_among(values, around, a | c)])
    return np.maximum(result - 0.5, 0.0)


def missed(values: Array, p: Array, q: Array, k: int = 5) -> Array:
    """1 - coverage: share of p's rows that have no row of q within the distance of their k-th neighbour in p.

    Naeem et al. 2020 (2002.09797). Mode collapse of q leaves most of p uncovered.
    """
    return _by_neighbours(values, p, q, k, lambda reached, hit: 1 - np.mean(reached))


def unlikely(values: Array, p: Array, q: Array, k: int = 5) -> Array:
    """1 - precision: share of q's rows outside every k-th-neighbour ball of p (Kynkaanniemi et al. 2019, 1904.06991)."""
    return _by_neighbours(values, p, q, k, lambda reached, hit: 1 - np.mean(hit))


def unreached(values: Array, p: Array, q: Array, k: int = 5) -> Array:
    """1 - recall: share of p's rows outside every k-th-neighbour ball of q (Kynkaanniemi et al. 2019, 1904.06991).

    `unlikely` with the sides exchanged. Balls of q are as large as q is sparse, so a few outliers of q reach much of p;
    `missed`, whose balls are p's, does not forgive that. A q that repeats few rows has balls of radius 0: its recall is 0.
    """
    return unlikely(values, q, p, k)


def _by_neighbours(values: Array, p: Array, q: Array, k: int, share: Callable[[Bits, Bits], np.floating]) -> Array:
    """`share` of which rows of p have a row of q in their ball, out to their k-th neighbour in p, and of which rows of q lie in any, for
    each pair of weightings."""
    around = _Neighbours.of(values)
    result = np.empty(len(p))
    for b, (a, c) in enumerate(zip(p > 0, q > 0, strict=True)):
        result[b] = share(*_balls(values, around, a, c, k))
    return result


# -------------------------------------------------------------------------------------------------- neighbours, once for all weightings

KEPT = 64  # neighbours of each row that are listed; of half of all rows, chosen at random, some dozens are among them


class _Neighbours(NamedTuple):
    """The nearest other rows of each row, nearest first and ties by place, and how far away they are: (n, KEPT), or all of them.

    What lies nearer than the last of a list is on it. A rule that needs to look further looks at all rows again, so that what is said of
    a part of the rows is exact, and few rows need that."""

    place: NDArray[np.intp]
    apart: Array
    known: Array  # (n,): distances below this are known

    @classmethod
    def of(cls, values: Array, kept: int = KEPT, block: int = 512) -> _Neighbours:
        parts = [_listed(values, slice(start, start + block), min(kept, len(values) - 1)) for start in range(0, len(values), block)]
        place, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
        whole = place.shape[1] == len(values) - 1
        return cls(place, apart, np.full(len(values), np.inf) if whole else apart[:, -1])


def _listed(values: Array, rows: slice, kept: int) -> tuple[NDArray[np.intp], Array]:
    """The `kept` nearest other rows of some rows and how far away they are, in that order and ties by place, (rows, kept) each."""
    apart = pairwise(values[rows], values)
    own = np.arange(len(values))[rows]
    apart[np.arange(len(own)), own] = np.inf
    place = np.argpartition(apart, kept - 1, axis=1)[:, :kept] if kept < len(values) - 1 else np.argsort(apart, axis=1)[:, :kept]
    place = np.sort(place, axis=1)
    found = np.take_along_axis(apart, place, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return np.asarray(np.take_along_axis(place, order, axis=1)), np.asarray(np.take_along_axis(found, order, axis=1))


def _nearest_among(values: Array, around: _Neighbours, inside: Bits) -> NDArray[np.intp]:
    """For each row that is `inside`, the nearest other one that is."""
    rows = np.flatnonzero(inside)
    among = inside[around.place[rows]]
    first = among.argmax(axis=1)
    each = np.arange(len(rows))
    found = around.place[rows, first]
    sure = among[each, first] & (around.apart[rows, first] < around.known[rows])
    for row in np.flatnonzero(~sure):
        apart = pairwise(values[rows[row]][None], values[rows])[0]
        apart[row] = np.inf
        found[row] = rows[np.argmin(apart)]
    return np.asarray(found)


def _balls(values: Array, around: _Neighbours, a: Bits, c: Bits, k: int) -> tuple[Bits, Bits]:
    """Which rows of `a` have a row of `c` in the ball out to their k-th neighbour in `a`, and which rows of `c` lie in any such ball."""
    rows, columns = np.flatnonzero(a), np.flatnonzero(c)
    k = min(k, len(rows) - 1)
    place, apart = around.place[rows], around.apart[rows]
    count = np.cumsum(a[place], axis=1)
    last = (count >= k).argmax(axis=1) if k else np.zeros(len(rows), int)
    within = apart[np.arange(len(rows)), last] if k else np.zeros(len(rows))
    sure = (count[:, -1] >= k) & (within < around.known[rows])
    inside = c[place] & (apart <= within[:, None]) & sure[:, None]
    reached = inside.any(axis=1) | c[rows]
    hit = a & c  # a row lies in its own ball
    hit[place[inside]] = True
    for row in np.flatnonzero(~sure):
        own = np.partition(pairwise(values[rows[row]][None], values[rows])[0], k)[k]
        near = pairwise(values[rows[row]][None], values[columns])[0] <= own
        reached[row] |= near.any()
        hit[columns[near]] = True
    return reached, hit[columns]


def pairwise(x: Array, y: Array) -> Array:
    """Euclidean distances (n, m) between the rows of x (n, k) and y (m, k)."""
    square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def nearest(x: Array, reference: Array, block: int = 1024) -> Array:
    """Distance (n,) from each row of x to its nearest row of `reference`, computed in blocks of bounded memory."""
    return np.concatenate([pairwise(x[i : i + block], reference).min(axis=1) for i in range(0, len(x), block)])
