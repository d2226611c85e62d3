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
    many pulses      s_j is a sum of r axes a_i, the leading ones of all pulses as the noise lets them be seen; so k filters cost r
                     transforms, not k, and the mean of the pulses and that of their squares as many again

These forms are of noise that goes round the trace. Real noise does not: a line between two modes leaks into all of them. With the
covariance C of the N steps, whitening is exact: z = s C^-1 x, d^2 = s C^-1 s, and the Wiener filter is the matrix S (S + C)^-1, S the
covariance of the signal. The first are the case of C circulant.

All are exact for Gaussian noise. In other noise only the Wiener filter keeps its promise, and only among linear filters.
Sources: Turin 1960, IRE Trans. Inf. Theory 6:311; Van Trees 1968, Detection, Estimation and Modulation Theory I, ch. 4.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy import fft, linalg
from scipy.stats import norm
from torch import Tensor

Array = NDArray[Any]

BAND = 30.0, 80.0  # MHz, of the antenna
AT_ONCE = 64  # traces that meet a bank of pulses together: bounded memory
IN_CACHE = 8  # of these at a time on a processor: what a bank makes of them stays in its fast memory, which halves the time
LEAST = 1e-4  # of the mean variance
FAR = 60.0  # below the best, ratios are equal: e^-60 of it is nothing, and beyond e^-87 processors take 25 times as long
UNSEEN = 0.02  # standard deviations of the noise: strength that a pulse may lose when it is made of axes
UNDRAWN, UNDRAWN_SQUARED = 3e-4, 1e-6  # of a pulse, and of its square: the second is what is left of a difference of large numbers


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
    return np.asarray(np.divide(s, s + p, out=np.zeros(np.broadcast_shapes(s.shape, p.shape)), where=s + p > 0))


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


# ----------------------------------------------------------------------------------------------------- matched filters


@dataclasses.dataclass(frozen=True)
class Axes:
    """Rows (k, N) as sums of r <= k others: weights (k, r) times rows whose real transform is `modes` (r, N // 2 + 1)."""

    weights: Tensor
    modes: Tensor

    @classmethod
    def of(cls, rows: Array, lost: float | Array, gain: ArrayLike = 1.0) -> Axes:
        """The fewest axes that leave of each row, filtered by the positive `gain` (N // 2 + 1,), less than `lost` (root of the sum of
        squares): the leading singular vectors of the filtered rows."""
        gain = np.broadcast_to(np.asarray(gain, float), rows.shape[1] // 2 + 1)
        left, values, right = linalg.svd(filtered(rows.astype(float), gain), full_matrices=False)
        weights = left * values
        rest = np.sqrt(np.cumsum(np.square(weights)[:, ::-1], axis=1)[:, ::-1])  # of each row, without the axes before
        enough = (rest <= np.asarray(lost).reshape(-1, 1)).all(axis=0)
        count = max(1, int(enough.argmax()) if enough.any() else len(values))
        modes = fft.rfft(right[:count], axis=1) / gain
        return cls(torch.from_numpy(weights[:, :count]).float(), torch.from_numpy(modes).to(torch.complex64))

    def to(self, device: torch.device) -> Axes:
        """The same on a device."""
        return Axes(self.weights.to(device), self.modes.to(device))


@dataclasses.dataclass(frozen=True)
class Bank:
    """Pulses (k, N), each with its largest value at step 0, that may stand at any of the m steps from `first` on, in noise whose
    covariance has the inverse `precision` (N, N). A pulse that would leave the trace comes in again at its other end.
    All float32 on one device."""

    pulses: Tensor
    precision: Tensor
    strength: Tensor  # (k, m): d of each pulse at each place
    first: int = 0

    @classmethod
    def of(cls, pulses: Array, noise: Array, first: int = 0, last: int | None = None) -> Bank:
        """Of pulses (k, N) that stand anywhere, in noise of covariance (N, N); they may stand at the steps first ... last."""
        start = np.abs(pulses).argmax(axis=1)
        moved = np.stack([np.roll(pulse, -place) for pulse, place in zip(pulses, start, strict=True)]).astype(np.float32)
        precision = inverse(noise).astype(np.float32)
        places = np.arange(first, pulses.shape[1] if last is None else last + 1)
        found = []
        for pulse in moved:
            standing = linalg.circulant(pulse).T[places]  # row t: the pulse at t
            found.append(np.sqrt(((standing @ precision) * standing).sum(axis=1)))
        return cls(torch.from_numpy(moved), torch.from_numpy(precision), torch.from_numpy(np.stack(found)), first)

    @cached_property
    def sought(self) -> tuple[Axes, Tensor]:
        """What is looked for in place of each pulse, with conjugate modes, and d^2 / 2. What is left of a pulse is weaker than UNSEEN."""
        precision = self.precision.double().cpu().numpy()
        spectrum = np.diagonal(fft.ifft(fft.fft(precision, axis=0), axis=1)).real[: precision.shape[0] // 2 + 1]  # mean over places
        # Rounded to single precision, the smallest need not come out positive.
        axes = Axes.of(self._rows(), UNSEEN, np.sqrt(np.maximum(spectrum, 1e-7 * spectrum.max()))).to(self.pulses.device)
        return Axes(axes.weights, axes.modes.conj().resolve_conj()), self.strength.square() / 2

    @cached_property
    def shown(self) -> tuple[Axes, int]:
        """Of what the pulses are put together, and after so many axes their squares."""
        rows = self._rows()
        parts = [
            Axes.of(values, lost * np.sqrt(np.square(values).sum(axis=1)))
            for values, lost in ((rows, UNDRAWN), (np.square(rows), UNDRAWN_SQUARED))
        ]
        both = Axes(torch.cat([part.weights for part in parts], 1), torch.cat([part.modes for part in parts]))
        return both.to(self.pulses.device), len(parts[0].modes)

    def _rows(self) -> Array:
        return np.asarray(self.pulses.double().cpu().numpy())

    def ratio(self, whitened: Tensor) -> Tensor:
        """Logarithm of the likelihood ratio of each pulse at each place, (n, k, m), from rows @ precision (n, N)."""
        steps, count, (axes, against) = whitened.shape[1], self.strength.shape[1], self.sought
        along = torch.fft.irfft(torch.fft.rfft(whitened)[:, None] * axes.modes, steps)[:, :, self.first : self.first + count]
        return torch.matmul(axes.weights, along).sub_(against)

    def moments(self, whitened: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From rows @ precision (n, N): the logarithm (n,) of the likelihood ratio averaged over pulses and places, the best detector
        there is; and mean and mean square (n, N) of the pulses, each as likely as the row makes it, if there is one."""
        size = IN_CACHE if whitened.device.type == "cpu" else max(len(whitened), 1)
        parts = [self._moments(whitened[start : start + size]) for start in range(0, len(whitened), size)]
        found = [torch.cat(column) for column in zip(*parts, strict=True)]
        return found[0], found[1], found[2]

    def _moments(self, whitened: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps, count, (axes, of_pulses) = whitened.shape[1], self.strength.shape[1], self.shown
        share = self.ratio(whitened)
        top = share.amax((1, 2))
        share.sub_(top[:, None, None]).clamp_min_(-FAR).mul_(1 / math.log(2)).exp2_()  # a quarter of the time that exp takes
        whole = share.sum((1, 2))
        along = F.pad(torch.matmul(axes.weights.T, share), (self.first, steps - self.first - count))
        each = torch.fft.rfft(along).mul_(axes.modes)
        both = torch.stack([each[:, :of_pulses].sum(1), each[:, of_pulses:].sum(1)], 1)
        first, second = torch.fft.irfft(both / whole[:, None, None], steps).unbind(1)
        return top + (whole / share[0].numel()).log(), first, second

    def best(self, whitened: Tensor) -> Tensor:
        """The pulse that fits each row best, where it fits, (n, N): what a matched filter recovers. From rows @ precision."""
        steps, count = whitened.shape[1], self.strength.shape[1]
        at = self.ratio(whitened).flatten(1).argmax(1)
        place = self.first + at % count
        return self.pulses[at // count].gather(1, (torch.arange(steps, device=at.device) - place[:, None]) % steps)

    def read(self, rows: Array, odds: float = 1.0) -> Reading:
        """What rows (n, N) say of the pulses; `odds` of a pulse against none before a row is seen."""
        parts = []
        for start in range(0, len(rows), AT_ONCE):
            whitened = torch.from_numpy(np.asarray(rows[start : start + AT_ONCE], np.float32)) @ self.precision
            score, mean, _ = self.moments(whitened)
            parts.append((score, self.best(whitened), mean * torch.sigmoid(score + math.log(odds))[:, None]))
        return Reading(*(torch.cat(column).double().numpy() for column in zip(*parts, strict=True)))


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a bank of pulses makes of rows."""

    score: Array  # (n,): logarithm of the likelihood ratio averaged over pulses and places
    best: Array  # (n, N), mV: the pulse that fits best, where it fits
    mean: Array  # (n, N), mV: the mean of what the pulse can be, none included: the least squared error that there can be
