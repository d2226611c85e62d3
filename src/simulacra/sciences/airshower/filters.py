"""Filters that find a pulse in stationary noise, and what the best of them can do.

A trace of N steps is x = a s(t - t0) + n. With Fourier modes x(k), and noise of power P(k) = E|n(k)|^2 / N, white noise of variance v
having P = v at every k,

    matched filter   z(t0) = (1/N) sum_k x(k) s(k)* exp(2 pi i k t0 / N) / P(k)       sums over all modes, negative ones included
    strength         d^2 = (1/N) sum_k |s(k)|^2 / P(k)                                z has mean a d^2 and variance d^2
    detection        TPR = Q(Q^-1(FPR) - a d)        pulse and time known, Gaussian noise: nothing does better (Neyman & Pearson 1933)
    time unknown     |z| is Rayleigh in each of M independent modes: a threshold of sqrt(2 ln(M / FPR)) d
    pulse unknown    mean over pulses s_j and times t of the likelihood ratio exp(z_j(t) - d_j^2 / 2): the best detector of such pulses
    its mean         sum of w_j(t) s_j(t), w the same ratios made shares of one: the least mean squared error, once it is multiplied
                     by the probability that there is a pulse
    Wiener filter    G = S / (S + P), mean squared error (1/N) sum_k S P / (S + P): the best of linear ones (Wiener 1949)

These forms are of noise that goes round the trace. Real noise does not: a line between two modes leaks into all of them. With the
covariance C of the N steps, whitening is exact: z = s C^-1 x, d^2 = s C^-1 s, and the Wiener filter is the matrix S (S + C)^-1, S the
covariance of the signal. The first are the case of C circulant.

All are exact for Gaussian noise. In other noise only the Wiener filter keeps its promise, and only among linear filters.
Sources: Turin 1960, IRE Trans. Inf. Theory 6:311; Van Trees 1968, Detection, Estimation and Modulation Theory I, ch. 4.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, linalg
from scipy.special import expit
from scipy.stats import norm

Array = NDArray[Any]

BAND = 30.0, 80.0  # MHz, of the antenna
AT_ONCE = 32  # traces that meet a bank of pulses together: bounded memory
LEAST = 1e-4  # of the mean variance


# ------------------------------------------------------------------------------------------------------------- spectra


def power(rows: ArrayLike) -> Array:
    """Mean power |x(k)|^2 / N of rows (n, N), (N // 2 + 1,): the variance of white noise at every k."""
    values = np.asarray(rows)
    return np.asarray(np.square(np.abs(fft.rfft(values, axis=1))).mean(axis=0) / values.shape[1])


def both_sides(steps: int) -> Array:
    """How often each mode of a real transform of `steps` numbers stands in the whole one: twice, but for the first and (steps even)
    the last. (steps // 2 + 1,)."""
    count = np.full(steps // 2 + 1, 2.0)
    count[0] = 1
    if steps % 2 == 0:
        count[-1] = 1
    return count


def total(spectrum: ArrayLike, steps: int) -> float:
    """(1/N) sum over all modes of `spectrum` (N // 2 + 1,): of a power, the variance of one step."""
    return float((np.asarray(spectrum) * both_sides(steps)).sum() / steps)


def filtered(rows: Array, gain: ArrayLike) -> Array:
    """Rows (n, N) with each mode times `gain` (N // 2 + 1,)."""
    return np.asarray(fft.irfft(fft.rfft(rows, axis=1) * np.asarray(gain), rows.shape[1], axis=1), rows.dtype)


def band(steps: int, rate: float, low: float = BAND[0], high: float = BAND[1]) -> NDArray[np.bool_]:
    """Which modes of `steps` numbers at `rate` (MHz) lie within low ... high (MHz), both included."""
    frequency = fft.rfftfreq(steps, 1 / rate)
    return np.asarray((frequency >= low - 1e-9) & (frequency <= high + 1e-9))


def band_pass(rows: Array, rate: float) -> Array:
    """Rows (n, N) without what lies outside the band."""
    return filtered(rows, band(rows.shape[1], rate))


def envelope(rows: Array) -> Array:
    """|x + i H(x)|, H the Hilbert transform: how large an oscillation is, whatever its phase. (n, N)."""
    steps = rows.shape[1]
    modes = np.zeros(rows.shape, np.complex128)
    modes[:, : steps // 2 + 1] = fft.rfft(rows, axis=1) * both_sides(steps)
    return np.asarray(np.abs(fft.ifft(modes, axis=1)), np.float64)


def wiener_gain(signal: ArrayLike, noise: ArrayLike) -> Array:
    """S / (S + P), 0 where neither has power."""
    s, p = np.asarray(signal, float), np.asarray(noise, float)
    return np.divide(s, s + p, out=np.zeros(np.broadcast_shapes(s.shape, p.shape)), where=s + p > 0)


def wiener_error(signal: ArrayLike, noise: ArrayLike, steps: int) -> float:
    """Mean squared error per step that the Wiener filter leaves: (1/N) sum S P / (S + P)."""
    return total(wiener_gain(signal, noise) * np.asarray(noise, float), steps)


# ----------------------------------------------------------------------------------------------------------- detection


def efficiency(strength: ArrayLike, false: ArrayLike) -> Array:
    """Share of pulses of known shape and time that are found at a share `false` of false alarms: Q(Q^-1(false) - strength)."""
    return np.asarray(norm.sf(norm.isf(np.asarray(false, float)) - np.asarray(strength, float)))


def threshold(modes: float, false: float) -> float:
    """Height, in standard deviations of the noise, that the largest envelope of `modes` independent ones exceeds in a share `false`."""
    return math.sqrt(2 * math.log(modes / false))


# ----------------------------------------------------------------------------------------------------------- covariance


def autocovariance(rows: ArrayLike) -> Array:
    """Mean product of values that are 0, 1, ..., N - 1 steps apart in rows (n, N) of mean zero, (N,): of noise that is stationary."""
    values = np.asarray(rows)
    steps = values.shape[1]
    long = fft.next_fast_len(2 * steps, real=True)
    square = np.zeros(long // 2 + 1)
    for start in range(0, len(values), 1024):
        square += np.square(np.abs(fft.rfft(values[start : start + 1024].astype(np.float32), long, axis=1))).sum(axis=0)
    return np.asarray(fft.irfft(square, long)[:steps] / (len(values) * (steps - np.arange(steps))))


def covariance(lags: ArrayLike) -> Array:
    """The covariance (N, N) of stationary noise, from its autocovariance (N,)."""
    return np.asarray(linalg.toeplitz(np.asarray(lags, float)))


def round_trace(spectrum: ArrayLike, steps: int) -> Array:
    """The covariance (N, N) of noise of that power (N // 2 + 1,) that goes round the trace."""
    return np.asarray(linalg.circulant(fft.irfft(np.asarray(spectrum, float), steps)))


def inverse(matrix: Array, power: float = -1.0) -> Array:
    """C^power of a covariance (N, N), its smallest variances raised to LEAST of the mean one: what noise never does in the rows that it
    was measured on is not known to be impossible."""
    values, axes = linalg.eigh(matrix)
    values = np.maximum(values, max(LEAST * float(values.mean()), 1e-30))
    return np.asarray((axes * values**power) @ axes.T)


def wiener_matrix(signal: Array, noise: Array) -> Array:
    """S (S + C)^-1 (N, N), to be multiplied from the right: rows @ matrix is the best linear estimate of the signal."""
    return np.asarray(inverse(signal + noise) @ signal)


@dataclasses.dataclass(frozen=True)
class Bank:
    """Pulses (k, N), each with its largest value at step 0, that may stand at each of `places` (m,), in noise whose covariance has the
    inverse `precision` (N, N). A pulse that would leave the trace comes in again at its other end."""

    pulses: Array
    precision: Array
    places: Array

    @classmethod
    def of(cls, pulses: Array, noise: Array, places: ArrayLike | None = None) -> Bank:
        """Of pulses (k, N) that stand anywhere, in noise of covariance (N, N); without `places` they may stand at every step."""
        start = np.abs(pulses).argmax(axis=1)
        moved = np.stack([np.roll(pulse, -place) for pulse, place in zip(pulses, start, strict=True)])
        return cls(moved, inverse(noise), np.arange(pulses.shape[1]) if places is None else np.asarray(places))

    @property
    def strength(self) -> Array:
        """d of each pulse at each place, (k, m)."""
        precision = self.precision.astype(np.float32)
        found = []
        for pulse in self.pulses:
            standing = linalg.circulant(pulse.astype(np.float32)).T[self.places]  # row t: the pulse at t
            found.append(((standing @ precision) * standing).sum(axis=1))
        return np.asarray(np.sqrt(found))

    def ratio(self, rows: Array, strength: Array) -> Array:
        """Logarithm of the likelihood ratio of each pulse at each place, (n, k, m)."""
        steps = rows.shape[1]
        template = np.conj(fft.rfft(self.pulses.astype(np.float32), axis=1))
        modes = fft.rfft((rows @ self.precision).astype(np.float32), axis=1)
        z = fft.irfft(modes[:, None] * template, steps, axis=2)[:, :, self.places]
        return np.asarray(z - (strength**2 / 2).astype(np.float32))

    def read(self, rows: Array, odds: float = 1.0) -> Reading:
        """What each row says of the pulses, all as likely at first; `odds` of a pulse against none before the row is seen."""
        steps, strength = rows.shape[1], self.strength
        shapes = fft.rfft(self.pulses.astype(np.float32), axis=1)
        parts = []
        for start in range(0, len(rows), AT_ONCE):
            ratio = self.ratio(rows[start : start + AT_ONCE], strength)
            flat = ratio.reshape(len(ratio), -1)
            which, place = np.divmod(flat.argmax(axis=1), len(self.places))
            best = np.stack([np.roll(self.pulses[w], self.places[p]) for w, p in zip(which, place, strict=True)])
            top = flat.max(axis=1).astype(float)
            share = np.zeros((len(ratio), len(self.pulses), steps), np.float32)
            share[:, :, self.places] = np.exp(ratio - flat.max(axis=1)[:, None, None])
            whole = share.sum(axis=(1, 2), dtype=float)
            score = top + np.log(whole / flat.shape[1])
            mean = fft.irfft((fft.rfft(share, axis=2) * shapes).sum(axis=1), steps, axis=1) / whole[:, None]
            parts.append((score, best, mean * expit(score + math.log(odds))[:, None]))
        return Reading(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a bank of pulses makes of rows."""

    score: Array  # (n,): logarithm of the likelihood ratio averaged over pulses and places, the best detector
    best: Array  # (n, N): the pulse that fits best, where it fits: what a matched filter recovers
    mean: Array  # (n, N): the mean of what the pulse can be, none included: the least squared error that there can be
