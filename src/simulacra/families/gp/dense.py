"""The dense solver: Cholesky factor of the covariance matrix (Rasmussen & Williams 2006, algorithm 2.1).

Any kernel, any times. O(n^3) time; two n x n matrices at most. The covariance is made, and its derivatives are summed, in blocks of
rows of the lower triangle, so that neither needs a further matrix of that size. Where the kernel is stationary and the times are
multiples of one step, gaps or not, both are computed once per lag instead of once per pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, lapack, solve_triangular

from simulacra.families.gp.kernels import Kernel, Linear, Periodic, leaves, part_of
from simulacra.study import Refused

Array = NDArray[np.float64]

BLOCK = 1 << 18  # elements of a block of rows: 2 MiB, which a processor's cache holds
JITTERS = (0.0, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)  # added to the diagonal one after the other, in units of the mean variance
LOG_2PI = math.log(2 * math.pi)


class Dense:
    """What `simulacra.families.gp.solver.Solver` says. `jitter` is what had to be added to the diagonal, in units of its mean.

    Raises Refused, naming the parameter that is the likely cause, where no jitter makes the covariance positive definite.
    """

    name = "dense"

    def __init__(self, kernel: Kernel, t: Array, y: Array) -> None:
        self.kernel, self.t, self.y = kernel, t, y
        self._places = _places(t) if kernel.stationary else None
        self._diagonal = kernel.diagonal(t) + kernel.noise()
        self.jitter, self._factor = self._factorised()
        self._weights = cho_solve((self._factor, False), y, check_finite=False)  # K^-1 y

    def _factorised(self) -> tuple[float, Array]:
        """Jitter, and R with R'R = K, upper triangle (what is below it means nothing)."""
        scale = float(self._diagonal.mean())
        for jitter in JITTERS if math.isfinite(scale) else ():
            lower = np.empty((len(self.t), len(self.t)))
            for rows, columns in _blocks(len(self.t)):
                lower[rows, columns] = self._block(rows, columns)
            np.fill_diagonal(lower, self._diagonal + jitter * scale)
            factor, failed = lapack.dpotrf(lower.T, lower=0, clean=0, overwrite_a=1)  # rows of `lower` are columns to LAPACK
            if not failed and np.isfinite(factor.diagonal()).all():
                return jitter, factor
        raise Refused(likely_cause(self.kernel, self.t))

    def _block(self, rows: slice, columns: slice) -> Array:
        if self._places is None:
            return self.kernel.covariance(self.t[rows], self.t[columns])
        return np.asarray(self._by_lag[self._apart(rows, columns)])

    @cached_property
    def _lags(self) -> Array:
        """All lags of the grid: 0, one step, two steps, ..."""
        assert self._places is not None
        return np.linspace(0.0, self.t[-1] - self.t[0], int(self._places[-1]) + 1)

    @cached_property
    def _by_lag(self) -> Array:
        return self.kernel.covariance(self._lags, np.zeros(1))[:, 0]

    def _apart(self, rows: slice, columns: slice) -> NDArray[np.intp]:
        """How many steps of the grid lie between two times."""
        assert self._places is not None
        return np.abs(np.subtract.outer(self._places[rows], self._places[columns]))

    def log_likelihood(self) -> float:
        fit, volume = self.y @ self._weights, 2 * np.log(self._factor.diagonal()).sum()
        return float(-0.5 * (fit + volume + len(self.y) * LOG_2PI))

    def gradient(self) -> Array:
        """tr((a a' - K^-1) dK) / 2 with a = K^-1 y (eq. 5.9), each derivative dK in blocks and one at a time."""
        inverse, a = self._inverse(), self._weights
        sums = dict.fromkeys(self.kernel.free(), 0.0)
        by_lag = np.zeros(0 if self._places is None else len(self._lags))
        for rows, columns in _blocks(len(self.t)):
            weight = np.outer(a[rows], a[columns]) - inverse[rows, columns]
            square = weight[:, rows.start :]  # its upper triangle is left out, the lower one stands for both
            square[...] = np.tril(square, -1) + 0.5 * np.diag(square.diagonal())
            if self._places is not None:
                by_lag += np.bincount(self._apart(rows, columns).ravel(), weight.ravel(), len(by_lag))
                continue
            for name, derivative in self.kernel.derivatives(self.t[rows], self.t[columns]):
                sums[name] += float(np.vdot(weight, derivative))
        if self._places is not None:
            for name, derivative in self.kernel.derivatives(self._lags, np.zeros(1)):
                sums[name] += float(by_lag @ derivative[:, 0])
        for name, change in self.kernel.noise_derivatives().items():
            sums[name] += 0.5 * change * float(a @ a - inverse.trace())
        return np.array(list(sums.values()))

    def _inverse(self) -> Array:
        """K^-1, lower triangle."""
        inverse, _ = lapack.dpotri(self._factor.copy(order="F"), lower=0, overwrite_c=1)
        return np.asarray(inverse.T)

    def mean(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        blocks = [kernel.covariance(times[rows], self.t) @ self._weights for rows in _rows(len(times), len(self.t))]
        found: Array = np.concatenate(blocks)
        return found

    def variance(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        explained = [np.square(self._whitened(kernel, times[rows])).sum(0) for rows in _rows(len(times), len(self.t))]
        return np.asarray(np.maximum(kernel.diagonal(times) - np.concatenate(explained), 0.0))

    def covariance(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        whitened = self._whitened(kernel, times)
        return np.asarray(kernel.covariance(times, times) - whitened.T @ whitened)

    def _whitened(self, kernel: Kernel, times: Array) -> Array:
        """R'^-1 k(t, times), shape (n, m): its columns' scalar products are what the observations explain (algorithm 2.1)."""
        return np.asarray(solve_triangular(self._factor, kernel.covariance(self.t, times), trans="T", check_finite=False))

    def leave_one_out(self) -> tuple[Array, Array]:
        variance = 1 / self._inverse().diagonal()
        return self.y - self._weights * variance, variance


def _places(t: Array) -> NDArray[np.intp] | None:
    """Which multiple of one step each time is after the first (n,); None where they are not, or few of the grid's points are used."""
    if len(t) < 2:
        return None
    places = np.rint((t - t[0]) / np.diff(t).min())
    step = (t[-1] - t[0]) / places[-1]
    if places[-1] > 20 * len(t) or np.abs(t - t[0] - step * places).max() > 1e-10 * step:
        return None
    return np.asarray(places, np.intp)


def _blocks(n: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the lower triangle of an n x n matrix in blocks; each ends in a square on the diagonal."""
    for rows in _rows(n, n):
        yield rows, slice(0, rows.stop)


def _rows(m: int, n: int) -> Iterator[slice]:
    """m rows of n numbers each, in blocks; one empty block if there are none."""
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, max(m, 1), step):
        yield slice(start, min(start + step, m))


def likely_cause(kernel: Kernel, t: Array) -> str:
    """Why a covariance matrix is not positive definite, in a sentence that names a parameter."""
    said = "the covariance matrix of the observations is not positive definite: "
    span, noise, variance = float(t[-1] - t[0]), kernel.noise(), float(kernel.diagonal(t).mean())
    for name, value in kernel.parameters().items():
        if not 1e-100 < value < 1e100:
            return f"{said}{name!r} is {value:.1e}; bound it"
    if noise > 1e-10 * variance:
        return f"{said}the noise, variance {noise:.1e}, is small beside the function's {variance:.1e}; bound both"
    remedy = "add White noise, or bound it" if not noise else f"bound it, or the noise (now {noise:.1e}) from below"
    for prefix, leaf in leaves(kernel):
        if isinstance(leaf, Periodic) and span >= leaf.period:
            return f"{said}'{prefix}period' is {leaf.period:.3g}, so that times a period apart have one value; {remedy}"
    longest = {f"{prefix}lengthscale": leaf.parameters()["lengthscale"] for prefix, leaf in leaves(kernel) if "lengthscale" in leaf.free()}
    if not longest or any(isinstance(leaf, Linear) for _, leaf in leaves(kernel)):
        return f"{said}it has fewer degrees of freedom than there are times ({len(t)}); add White noise"
    name = max(longest, key=longest.__getitem__)
    spacing = span / max(len(t) - 1, 1)
    return f"{said}{name!r} is {longest[name] / spacing:.2g} times the spacing of the times ({spacing:.3g}); {remedy}"
