"""Second-order statistics of maps: power spectrum and two-point function, averaged over directions.

For a map f of h x w pixels with Fourier amplitudes a(k) = sum_x f(x) exp(-2 pi i k.x), k in cycles per pixel,

    P(k)  = <|a(k)|^2> / (h w)                 averaged over the modes of a ring |k|; white noise of variance s^2 has P = s^2
    xi(r) = <(f(x) - m)(f(x + r) - m)>         averaged over pairs and directions; xi(0) is the variance

so that P summed over all modes but the mean, divided by h w, is the variance (Parseval). Rings are 1/min(h, w) wide and centred
on multiples of that, up to the Nyquist frequency 1/2; the corners beyond it have no full ring and are left out. A ring of m
modes (m real numbers: a mode and its opposite are conjugate) gives a relative scatter of sqrt(2 / m) for a Gaussian field.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Rings:
    """Which Fourier modes of an (h, w) map belong to which ring, as `numpy.fft.rfft2` lays them out."""

    k: Array  # (rings,) mean wavenumber of the modes, cycles per pixel
    modes: Array  # (rings,) real modes, the full plane counted
    ring: NDArray[np.int64]  # (h * (w // 2 + 1),) ring of each stored mode, len(k) where it belongs to none
    weight: Array  # (h * (w // 2 + 1),) 2 where the opposite mode is not stored, else 1

    def average(self, power: Array) -> Array:
        """Ring means (n, rings) of (n, h * (w // 2 + 1)) values."""
        total = np.stack([np.bincount(self.ring, row * self.weight, len(self.k) + 1) for row in power])
        mean: Array = total[:, :-1] / self.modes
        return mean


@lru_cache(maxsize=16)
def rings(height: int, width: int) -> Rings:
    """The rings of a map of this size; the mean (k = 0) belongs to none."""
    ky, kx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    k = np.hypot(ky, kx).ravel()
    side = min(height, width)
    count = side // 2
    ring = np.rint(k * side).astype(np.int64) - 1
    ring[(ring < 0) | (ring >= count) | (k > 0.5 + 1e-12)] = count
    column = np.arange(width // 2 + 1)
    alone = (column == 0) | ((width % 2 == 0) & (column == width // 2))
    weight = np.broadcast_to(np.where(alone, 1.0, 2.0), (height, len(column))).ravel().copy()
    modes = np.bincount(ring, weight, count + 1)[:-1].astype(np.float64)
    return Rings(np.bincount(ring, weight * k, count + 1)[:-1] / modes, modes, ring, weight)


def power_spectrum(fields: Array, *, taper: bool = False) -> tuple[Array, Array, Array]:
    """k (rings,), P(k) of each of the (n, h, w) maps as (n, rings), and the number of real modes (rings,).

    `taper` multiplies by a Hann window (its mean square divided out): a map that is not periodic leaks power from its edges
    into small scales, as k^-2, which would hide the true spectrum of anything smooth.
    """
    _is_stack(fields)
    _, height, width = fields.shape
    place = rings(height, width)
    window = hann(height, width) if taper else np.ones((height, width))
    norm = height * width * np.mean(window**2)
    spectra = np.empty((len(fields), len(place.k)))
    for start in range(0, len(fields), 256):  # bounded memory for large sets
        block = np.asarray(fields[start : start + 256], np.float64)
        block = block - block.mean(axis=(1, 2), keepdims=True)
        amplitude = np.fft.rfft2(block * window)
        spectra[start : start + 256] = place.average((np.abs(amplitude) ** 2 / norm).reshape(len(block), -1))
    return place.k, spectra, place.modes


def hann(height: int, width: int) -> Array:
    """Hann window (h, w), sin^2 along each axis, sampled at pixel centres."""
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width))
    return np.asarray(np.outer(rows, columns), np.float64)


def two_point(fields: Array, *, periodic: bool, mean: float | None = None) -> tuple[Array, Array]:
    """r (lags,) in pixels and xi(r) of each of the (n, h, w) maps, r = 0, 1, 2, ... up to half the shorter side.

    Pairs are counted by FFT: around the torus where the map is periodic, else only pairs inside the map. `mean` is the known
    mean of the field; by default that of each map, which biases xi low by the variance of that mean.
    """
    _is_stack(fields)
    _, height, width = fields.shape
    shape = (height, width) if periodic else (2 * height, 2 * width)
    lag, count = _lags(*shape, min(height, width) // 2)
    inside = np.fft.rfft2(np.ones((height, width)), shape)
    pairs = np.fft.irfft2(np.abs(inside) ** 2, shape).ravel()
    pairs_at = np.bincount(lag, pairs, count + 2)[:-1]
    distance = np.bincount(lag, pairs * _separation(*shape).ravel(), count + 2)[:-1] / pairs_at
    xi = np.empty((len(fields), count + 1))
    for i, field in enumerate(np.asarray(fields, np.float64)):
        centred = field - (field.mean() if mean is None else mean)
        product = np.fft.irfft2(np.abs(np.fft.rfft2(centred, shape)) ** 2, shape).ravel()
        xi[i] = np.bincount(lag, product, count + 2)[:-1] / pairs_at
    return distance, xi


def _separation(height: int, width: int) -> Array:
    y, x = np.fft.fftfreq(height, 1 / height)[:, None], np.fft.fftfreq(width, 1 / width)[None, :]
    return np.asarray(np.hypot(y, x), np.float64)


def _lags(height: int, width: int, largest: int) -> tuple[NDArray[np.int64], int]:
    """Integer lag of each displacement, largest + 1 for those beyond, and the largest lag."""
    return np.minimum(np.rint(_separation(height, width)).astype(np.int64), largest + 1).ravel(), largest


def _is_stack(fields: Array) -> None:
    if fields.ndim != 3 or min(fields.shape[1:]) < 4:
        raise ValueError(f"expected maps of shape (n, height, width) of 4 px or more, got {fields.shape}")
