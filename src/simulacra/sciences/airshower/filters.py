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

All are exact for Gaussian noise and pulses that may stand anywhere round the trace. In other noise only the Wiener filter keeps its
promise, and only among linear filters. Sources: Turin 1960, IRE Trans. Inf. Theory 6:311; Van Trees 1968, Detection, Estimation and
Modulation Theory I, ch. 4.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.special import logsumexp
from scipy.stats import norm

Array = NDArray[Any]

BAND = 30.0, 80.0  # MHz, of the antenna
AT_ONCE = 32  # traces that meet a bank of pulses together: bounded memory
LEAST = 1e-3  # of the mean noise power that a mode is taken to hold: what the noise never has is not known to be free of it


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


def strength(pulse: Array, noise: ArrayLike) -> Array:
    """d of pulses (n, N) in noise of power P (N // 2 + 1,), (n,)."""
    steps = pulse.shape[1]
    modes = np.square(np.abs(fft.rfft(pulse, axis=1))) / floored(noise)
    return np.asarray(np.sqrt((modes * both_sides(steps)).sum(axis=1) / steps))


def floored(noise: ArrayLike) -> Array:
    """A noise power without empty modes, by which one can divide."""
    p = np.asarray(noise, float)
    return np.asarray(np.maximum(p, max(LEAST * float(p.mean()), 1e-30)))


@dataclasses.dataclass(frozen=True)
class Bank:
    """Pulses (k, N) that may stand at each of `places` (m,) steps after where they stand here, in noise of power (N // 2 + 1,)."""

    pulses: Array
    noise: Array
    places: Array

    @classmethod
    def anywhere(cls, pulses: Array, noise: Array) -> Bank:
        """Pulses that may stand at any step of the trace, the largest value of each at step 0 before it is moved."""
        start = np.abs(pulses).argmax(axis=1)
        moved = np.stack([np.roll(pulse, -place) for pulse, place in zip(pulses, start, strict=True)])
        return cls(moved, np.asarray(noise, float), np.arange(pulses.shape[1]))

    def within(self, first: int, last: int) -> Bank:
        """The same pulses at the steps first ... last only."""
        return dataclasses.replace(self, places=np.arange(first, last + 1))

    @property
    def strength(self) -> Array:
        """d of each pulse, (k,)."""
        return strength(self.pulses, self.noise)

    def ratio(self, rows: Array) -> Array:
        """Logarithm of the likelihood ratio of each pulse at each place, (n, k, m)."""
        steps = rows.shape[1]
        template = (np.conj(fft.rfft(self.pulses, axis=1)) / floored(self.noise)).astype(np.complex64)
        z = fft.irfft(fft.rfft(rows.astype(np.float32), axis=1)[:, None] * template, steps, axis=2)[:, :, self.places]
        z -= (self.strength**2 / 2).astype(np.float32)[:, None]
        return np.asarray(z)

    def score(self, rows: Array) -> Array:
        """Logarithm of the likelihood ratio averaged over pulses and places, (n,): the best detector."""
        each = len(self.pulses) * len(self.places)
        return np.concatenate([logsumexp(self.ratio(part), axis=(1, 2)) - math.log(each) for part in _parts(rows)])

    def best(self, rows: Array) -> Array:
        """The pulse, where it stands, that fits each row best, (n, N): what a matched filter recovers."""
        found = []
        for part in _parts(rows):
            at = self.ratio(part).reshape(len(part), -1).argmax(axis=1)
            which, place = np.divmod(at, len(self.places))
            found += [np.roll(self.pulses[w], self.places[p]) for w, p in zip(which, place, strict=True)]
        return np.stack(found).astype(rows.dtype)

    def mean(self, rows: Array, odds: float = 1.0) -> Array:
        """Mean of the pulses, each as likely as the row makes it, (n, N); `odds` of a pulse against none before the row is seen.
        The least mean squared error that there can be where noise is Gaussian and pulses are drawn from the bank."""
        steps = rows.shape[1]
        shapes = fft.rfft(self.pulses.astype(np.float32), axis=1)
        found = []
        for part in _parts(rows):
            ratio = self.ratio(part)
            top = np.maximum(ratio.max(axis=(1, 2)), 0)
            share = np.zeros((len(part), len(self.pulses), steps), np.float32)
            share[:, :, self.places] = np.exp(ratio - top[:, None, None])
            whole = share.sum(axis=(1, 2), dtype=float)
            none = len(self.pulses) * len(self.places) / odds * np.exp(-top.astype(float)) if math.isfinite(odds) else 0.0
            moved = (fft.rfft(share, axis=2) * shapes).sum(axis=1)
            found.append(fft.irfft(moved, steps, axis=1) / (whole + none)[:, None])
        return np.concatenate(found).astype(rows.dtype)


def _parts(rows: Array) -> list[Array]:
    return [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
