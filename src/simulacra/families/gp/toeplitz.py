"""The Toeplitz solver: any stationary kernel at equidistant times without gaps, O(n^2) time and O(n) memory.

The covariance matrix K then has one value per lag. Durbin's recursion (Golub & Van Loan, Matrix Computations, 4.7) gives its
determinant and the first column x of its inverse. From x, the formula of Gohberg and Semencul (1972) makes the inverse,

    x_0 K^-1 = L(x) L(x)' - L(z) L(z)',     z = (0, x_{n-1}, ..., x_1),     L(c) lower triangular Toeplitz with first column c,

so that K^-1 times a vector is eight Fourier transforms, and the sums along its diagonals, all that the gradient needs, are two
correlations (insert the formula, and count the terms of z from the other end):

    x_0 sum_i (K^-1)_{i, i+j} = sum_p (n - j - 2 p) x_p x_{p+j}.

The recursion loses digits where K is nearly singular. What it gives is therefore checked against K itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg.blas import daxpy

from simulacra.families.gp.kernels import Kernel, part_of

Array = NDArray[np.float64]

TOLERANCE = 1e-10  # of K x = e_1 and of K a = y, relative to what stands on the right
EVEN = 1e-8  # how far equidistant times may be from a perfect grid, in steps
BLOCK = 1 << 18  # numbers that are transformed together: 2 MiB
LOG_2PI = math.log(2 * math.pi)


class IllConditioned(ArithmeticError):
    """The recursion has lost too many digits for this covariance matrix."""


def applies(kernel: Kernel, t: Array) -> str:
    """Empty where this solver can take the kernel at observed times t (n,); else why not."""
    if not kernel.stationary:
        return "the kernel is not stationary: it depends on more than the difference of two times"
    if len(t) > 2 and np.abs(t - np.linspace(t[0], t[-1], len(t))).max() > EVEN * (t[-1] - t[0]) / (len(t) - 1):
        return "the times of the observations are not equidistant without gaps"
    return ""


class Toeplitz:
    """What `simulacra.families.gp.solver.Solver` says, for kernels and times to which it `applies`.

    Raises IllConditioned where the covariance is so near to singular that the recursion cannot be trusted.
    """

    name = "toeplitz"

    def __init__(self, kernel: Kernel, t: Array, y: Array) -> None:
        self.kernel, self.t, self.y = kernel, t, y
        self._lags = t - t[0]
        column = kernel.covariance(self._lags, np.zeros(1))[:, 0]
        column[0] += kernel.noise()
        self._length = next_fast_len(2 * len(t), real=True)
        self._spectrum = self._transformed(np.concatenate([column, np.zeros(self._length - 2 * len(t) + 1), column[:0:-1]]))
        self._log_determinant, self._first = _durbin(column)
        self._x = self._transformed(self._first)
        self._z = self._transformed(np.concatenate([[0.0], self._first[:0:-1]]))
        one = np.zeros(len(t))
        one[0] = 1.0
        self._trusted(self._first, one)
        self._weights = self._refined(y)
        self._trusted(self._weights, y)

    def _trusted(self, solution: Array, of: Array) -> None:
        left = float(np.abs(self._times_covariance(solution) - of).max())
        if not left <= TOLERANCE * float(np.abs(of).max()):
            raise IllConditioned(f"its residual is {left / max(float(np.abs(of).max()), 1e-300):.0e}, more than {TOLERANCE:.0e}")

    def _transformed(self, a: Array) -> NDArray[np.complex128]:
        return np.asarray(rfft(a, self._length))

    def _times_covariance(self, a: Array) -> Array:
        """K a for rows a (..., n): K as a corner of a circulant matrix."""
        return np.asarray(irfft(self._spectrum * self._transformed(a), self._length)[..., : len(self.t)])

    def _refined(self, a: Array) -> Array:
        """K^-1 a for rows a (..., n), corrected once by what is left of a: variances are small differences of large numbers."""
        found = self._solved(a)
        return found + self._solved(a - self._times_covariance(found))

    def _solved(self, a: Array) -> Array:
        """K^-1 a for rows a (..., n), by the formula of Gohberg and Semencul."""
        n, total = len(self.t), np.zeros_like(a)
        transformed = self._transformed(a)
        for generator, sign in ((self._x, 1.0), (self._z, -1.0)):
            upper = irfft(generator.conj() * transformed, self._length)[..., :n]  # L(c)' a
            total += sign * irfft(generator * self._transformed(upper), self._length)[..., :n]
        return np.asarray(total / self._first[0])

    def _correlation(self, a: Array, b: Array) -> Array:
        """sum_p a_p b_{p+j} for lags j (n,)."""
        return np.asarray(irfft(self._transformed(a).conj() * self._transformed(b), self._length)[: len(self.t)])

    def log_likelihood(self) -> float:
        return float(-0.5 * (self.y @ self._weights + self._log_determinant + len(self.y) * LOG_2PI))

    def gradient(self) -> Array:
        """tr((a a' - K^-1) dK) / 2 (eq. 5.9): dK has one value per lag, so only sums along diagonals of the rest count."""
        n, x = len(self.t), self._first
        order = np.arange(n)
        inverse = ((n - order) * self._correlation(x, x) - 2 * self._correlation(order * x, x)) / x[0]
        sums = self._correlation(self._weights, self._weights) - inverse
        sums[0] *= 0.5  # the diagonal once, all others on both sides of it
        found = dict.fromkeys(self.kernel.free(), 0.0)
        for name, derivative in self.kernel.derivatives(self._lags, np.zeros(1)):
            found[name] += float(sums @ derivative[:, 0])
        for name, change in self.kernel.noise_derivatives().items():
            found[name] += float(sums[0]) * change
        return np.array(list(found.values()))

    def mean(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        found = np.empty(len(times))
        for rows in self._rows(len(times)):
            found[rows] = kernel.covariance(times[rows], self.t) @ self._weights
        return found

    def variance(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        found = kernel.diagonal(times)
        for rows in self._rows(len(times)):
            between = kernel.covariance(times[rows], self.t)
            found[rows] -= np.einsum("mn,mn->m", between, self._refined(between))
        return np.asarray(np.maximum(found, 0.0))

    def covariance(self, times: Array, part: str | None = None) -> Array:
        kernel = part_of(self.kernel, part)
        found, between = kernel.covariance(times, times), kernel.covariance(times, self.t)
        for rows in self._rows(len(times)):
            found[rows] -= self._refined(between[rows]) @ between.T
        return np.asarray((found + found.T) / 2)

    def leave_one_out(self) -> tuple[Array, Array]:
        """The diagonal of K^-1 is a running sum (Gohberg and Semencul's formula, i = j)."""
        last_first = np.concatenate([[0.0], self._first[:0:-1]])
        variance = self._first[0] / np.cumsum(self._first**2 - last_first**2)
        return self.y - self._weights * variance, variance

    def _rows(self, m: int) -> list[slice]:
        step = max(1, BLOCK // self._length)
        return [slice(start, min(start + step, m)) for start in range(0, m, step)]


def _durbin(column: Array) -> tuple[float, Array]:
    """Logarithm of the determinant, and first column of the inverse, of the symmetric Toeplitz matrix with this first column.

    Order by order, `predictor` (k,) holds the coefficients that predict a value from the k before it, nearest first, and `error` the
    variance of what they leave; the determinant is the product of those.
    """
    n, error = len(column), float(column[0])
    if not (math.isfinite(error) and error > 0 and np.isfinite(column).all()):
        raise IllConditioned("it has values that are not finite")
    backward = column[::-1].copy()  # so that its slices run forwards through memory
    predictor, before, errors = np.zeros(n), np.zeros(n), np.empty(n)
    errors[0] = error
    for k in range(1, n):
        known = before[: k - 1]
        known[:] = predictor[: k - 1]
        reflection = (float(column[k]) - float(known.dot(backward[n - k : n - 1]))) / error
        error *= (1 - reflection) * (1 + reflection)
        if not error > 0:
            raise IllConditioned(f"it is not positive definite from {k + 1} observations on")
        if k > 1:
            predictor = daxpy(before, predictor, n=k - 1, a=-reflection, incx=-1)  # minus the same coefficients, farthest first
        predictor[k - 1] = reflection
        errors[k] = error
    return float(np.log(errors).sum()), np.concatenate([[1.0], -predictor[: n - 1]]) / error
