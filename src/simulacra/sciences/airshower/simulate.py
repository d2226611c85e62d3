"""Radio traces of air showers: a band-limited pulse of known law in one of four backgrounds, each with its spectrum in closed form.

    trace      x = A p + n                       p: pulse of unit peak, n: background of RMS 0.1 mV, both at 180 MHz
    field      |E(f)| ~ exp(-f / w)              a falling exponential in 30 to 80 MHz; w, in MHz, depends on the place below the shower
                                                 (Martinelli, Schlueter & Huege 2024, arXiv:2407.18662); here w is even in its logarithm
    antenna    h(f) ~ 1 / f                      effective length of an antenna whose gain does not depend on f
    receiver   H(f)                              Butterworth's band-pass of order 8, 30 to 80 MHz, causal: it makes the tail that rings
    dispersion tau(f) = D (80 - f) / 50          group delay: low frequencies arrive up to D later, as in logarithmic-periodic antennas
    amplitude  A ~ energy of the cosmic ray      (Huege, Ulrich & Engel 2008, arXiv:0806.1161); the flux falls as a power of the energy,
                                                 so amplitudes follow a power law, whatever the distances: p(SNR) ~ SNR^-index
    SNR        max |A p| / sqrt(RMS(n)^2 + A^2 <p^2>)      the data set's, with the law's RMS in place of the trace's own: an amplitude
                                                 that followed the RMS of its own trace would tell about the noise

Backgrounds:

    measured   galactic noise, whose power falls as f^-2.55 (Mozdzen et al. 2019, arXiv:1812.02660: 2.54 to 2.59 at 50 to 100 MHz), through
               the receiver; a flat floor of the electronics; and transmitters: lines at fixed frequencies with amplitudes that differ
               from trace to trace and any phase. Neither periodic nor quite Gaussian: a line has any phase, and no other freedom.
    uniform    independent values, even between -a and a
    cosine     one wave of any frequency in the band and any phase, fixed amplitude
    white      independent normal values: the matched filter and Wiener's are exact

`autocovariance` and `power` are exact for each. Noise is cut from a longer ring, so that its ends are strangers. Rows come in blocks of
256, each with random numbers of its own: row i of a seed is the same in sets of any size, and pulses are the same in each background.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from simulacra.sciences.airshower.data import Traces, tensor
from simulacra.study import Refused

Array = NDArray[Any]

BACKGROUNDS = ("measured", "uniform", "cosine", "white")
STEPS, RATE = 500, 180.0  # MHz
BAND = 30.0, 80.0  # MHz
ORDER = 8  # of the band-pass
LEVEL = 0.1  # mV: RMS of every background
SLOPE = 2.55  # of the galaxy's power
FLOOR = 0.02  # RMS of the electronics' noise over LEVEL
TRANSMITTERS = 33.4, 39.1, 49.7, 61.3, 72.6  # MHz
UNSTEADY = 0.3  # standard deviation of the logarithm of their amplitudes
LINES = 0.6  # share of the background's power that is theirs
WIDTHS = 20.0, 100.0  # MHz: e-folds of the field's spectrum
DELAY = 0.06  # us: largest D
PLACES = 0.1, 0.82  # of the trace: where pulses begin; they and their tails lie within it
ROOM = 128  # steps that the ring is longer than a trace
STREAMS = 1 << 40  # the first of the simulator's: those of `study.Noise`, numbered from 0, are for draws, which must not share its numbers
BLOCK = 256  # rows that share a generator


def simulate(
    n: int, background: str = "measured", *, snr: Sequence[float] = (2.0,), share: float = 0.5, index: float = 1.0, lines: float = LINES,
    steps: int = STEPS, rate: float = RATE, seed: int = 0,
) -> Traces:  # fmt: skip
    """`n` traces, a `share` of them with a pulse at random. `snr`: one value for all pulses, or (low, high) with p(SNR) ~ SNR^-index
    between (1: even in the logarithm; 3: as the energies of cosmic rays fall). `lines`: share of transmitters in the measured
    background's power."""
    _check(n, background, snr, share, lines, steps, rate, seed)
    true = np.zeros((n, steps), np.float32)
    measured = np.empty((n, steps), np.float32)
    for block, start in enumerate(range(0, n, BLOCK)):
        count = min(BLOCK, n - start)
        u = _generator(seed, 0, block).random((BLOCK, 6), np.float32)[:count]
        there = u[:, 0] < share
        shapes = pulses(*_shape(u[there]), steps, rate)
        wished = _power_law(u[there, 5], snr, index)[:, None]
        room = 1 - wished**2 * np.square(shapes).mean(1, keepdims=True)
        if len(room) and room.min() <= 0.05:
            raise Refused(f"SNR {wished.max():g} cannot be reached in {steps} steps: pulses would be most of the trace's RMS; ask for less")
        heights = LEVEL * wished / np.sqrt(room) * np.where(u[there, 4] < 0.5, -1, 1)[:, None]
        true[start : start + count][there] = heights * shapes
        # Whole blocks, whatever is kept of them: what a row gets must not depend on how many are asked for.
        noise = _noise(background, _generator(seed, 1 + BACKGROUNDS.index(background), block), steps, rate, lines)
        measured[start : start + count] = noise[:count] + true[start : start + count]
    presence = (true != 0).any(1)
    return Traces(
        tensor(measured), tensor(true), tensor(np.zeros_like(true)), tensor(presence), tensor(np.full(n, rate))
    )  # fmt: skip


def _check(n: int, background: str, snr: Sequence[float], share: float, lines: float, steps: int, rate: float, seed: int) -> None:
    if background not in BACKGROUNDS:
        raise Refused(f"no background is called {background!r}; there are {', '.join(BACKGROUNDS)}")
    if not 1 <= len(snr) <= 2 or min(snr) <= 0 or snr[0] > snr[-1]:
        raise Refused(f"snr is {', '.join(map(str, snr))}; expected one number above 0, or the lowest and the highest")
    if n < 1 or not 0 <= share <= 1 or not 0 <= lines < 1 or not 64 <= steps <= 65536 or seed < 0:
        raise Refused(
            f"{n} traces of {steps} steps, {share:g} of them with a pulse, {lines:g} of the noise in lines, seed {seed}: expected one "
            "trace or more of 64 to 65536 steps, shares from 0 to 1 (lines below 1), and a seed of 0 or more"
        )
    if not 2.1 * BAND[1] <= rate <= 2000:
        raise Refused(f"{rate:g} MHz cannot carry a band up to {BAND[1]:g} MHz, or is above 2000; the data set has {RATE:g}")


def _generator(seed: int, stream: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, STREAMS + stream], counter=[0, 0, 0, block]))


def _power_law(u: Array, snr: Sequence[float], index: float) -> Array:
    """Values of density ~ x^-index between the ends of `snr`, from numbers u uniform on [0, 1)."""
    low, high = float(snr[0]), float(snr[-1])
    if abs(index - 1) < 1e-6:
        return np.asarray(low * (high / low) ** u, np.float32)
    a = 1 - index
    return np.asarray((low**a + u * (high**a - low**a)) ** (1 / a), np.float32)


def _ring(steps: int) -> int:
    return int(fft.next_fast_len(steps + ROOM, real=True) + 1) // 2 * 2


# --------------------------------------------------------------------------------------------------------------- pulses


def pulses(width: Any, delay: Any, begin: Any, steps: int = STEPS, rate: float = RATE) -> Array:
    """Pulses of unit peak, positive there, (n, steps) float32: `width` of the field's spectrum (MHz), `delay` D of its lowest
    frequencies (us) and where each begins, a share of the trace; (n,) each."""
    width, delay, begin = (np.asarray(v, np.float32).reshape(-1, 1) for v in (width, delay, begin))
    f, received = _received(_ring(steps), rate)
    late = begin * (steps / rate) * f + delay * (BAND[1] * f - f**2 / 2) / (BAND[1] - BAND[0])
    spectrum = received * np.exp(-(f - BAND[0]) / width - 2j * np.pi * late)
    found = fft.irfft(spectrum, _ring(steps), axis=1)[:, :steps]
    top = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
    return np.asarray(found / top, np.float32)


@lru_cache(maxsize=8)
def _received(ring: int, rate: float) -> tuple[Array, Array]:
    """Frequencies (MHz) of the ring, and what antenna and receiver make of a flat field."""
    f = fft.rfftfreq(ring, 1 / rate)
    gain = receiver(f) / np.maximum(f, 1)
    gain[[0, -1]] = 0
    return np.asarray(f, np.float32), np.asarray(gain, np.complex64)


def receiver(f: Array) -> Array:
    """Response of the band-pass at frequencies f (MHz), complex."""
    b, a = signal.butter(ORDER, BAND, "bandpass", analog=True)  # in MHz, not in radians: only the ratio to f matters
    return np.asarray(signal.freqs(b, a, np.maximum(f, 1e-3))[1])


def _shape(u: Array) -> tuple[Array, Array, Array]:
    """Width, delay and beginning from numbers uniform on [0, 1), columns 1 to 3."""
    low, high = WIDTHS
    return low * (high / low) ** u[:, 1], DELAY * u[:, 2], PLACES[0] + (PLACES[1] - PLACES[0]) * u[:, 3]


def templates(count: int = 1, steps: int = STEPS, rate: float = RATE) -> Array:
    """Pulses of unit peak that stand for the law, (count^2, steps): `count` widths by `count` delays, in the middles of equally
    probable parts; the largest value of each is at steps // 2. One is the typical pulse."""
    middle = (np.arange(count) + 0.5) / count
    u = np.zeros((count**2, 4))
    u[:, 1], u[:, 2] = (grid.ravel() for grid in np.meshgrid(middle, middle, indexing="ij"))
    width, delay, _ = _shape(u)
    found = pulses(width, delay, np.full(count**2, 0.4), steps, rate)
    return np.stack([np.roll(row, steps // 2 - int(row.argmax())) for row in found])


# --------------------------------------------------------------------------------------------------------------- noise


def _noise(background: str, rng: np.random.Generator, steps: int, rate: float, lines: float) -> Array:
    """One block of background, (BLOCK, steps) float32, mV."""
    level = np.float32(LEVEL)
    if background == "white":
        return level * rng.standard_normal((BLOCK, steps), np.float32)
    if background == "uniform":
        return np.asarray(level * np.float32(np.sqrt(12)) * (rng.random((BLOCK, steps), np.float32) - np.float32(0.5)))
    if background == "cosine":
        u = rng.random((BLOCK, 2), np.float32)
        turns = (BAND[0] + (BAND[1] - BAND[0]) * u[:, :1]) / rate * np.arange(steps) + u[:, 1:]
        return np.asarray(level * np.float32(np.sqrt(2)) * np.cos(2 * np.pi * turns, dtype=np.float32))
    ring = _ring(steps)
    modes = rng.standard_normal((BLOCK, ring + 2), np.float32).view(np.complex64)
    smooth = fft.irfft(modes * _amplitude(ring, rate, lines), ring, axis=1)[:, :steps]
    each = BLOCK, len(TRANSMITTERS)
    heights = np.exp(UNSTEADY * rng.standard_normal(each, np.float32) - UNSTEADY**2) * level * np.sqrt(np.float32(2 * lines / each[1]))
    phase = 2 * np.pi * rng.random(each, np.float32)
    return np.asarray(smooth + np.concatenate([heights * np.cos(phase), heights * np.sin(phase)], 1) @ _waves(steps, rate))


@lru_cache(maxsize=8)
def _amplitude(ring: int, rate: float, lines: float) -> Array:
    """Factor of a complex normal number of variance 2 that gives the ring's modes the power of galaxy and electronics."""
    return np.asarray(np.sqrt(_smooth_power(ring, rate, lines) / 2), np.float32)


def _smooth_power(ring: int, rate: float, lines: float) -> Array:
    """Power of galactic noise and electronics in the modes of the ring: of |rfft|^2, mV^2, (ring // 2 + 1,)."""
    f = fft.rfftfreq(ring, 1 / rate)
    galaxy = np.abs(receiver(f)) ** 2 * np.maximum(f, 1) ** -SLOPE
    flat = np.ones(len(f))
    for part in (galaxy, flat):
        part[[0, -1]] = 0
        part /= fft.irfft(part, ring)[0] / ring  # unit variance
    return np.asarray(LEVEL**2 * ((1 - lines - FLOOR**2) * galaxy + FLOOR**2 * flat))


@lru_cache(maxsize=8)
def _waves(steps: int, rate: float) -> Array:
    """Cosines and minus sines of the transmitters, (2 x transmitters, steps)."""
    turns = np.multiply.outer(np.array(TRANSMITTERS) / rate, np.arange(steps)) * 2 * np.pi
    return np.concatenate([np.cos(turns), -np.sin(turns)]).astype(np.float32)


def autocovariance(background: str, steps: int = STEPS, rate: float = RATE, lines: float = LINES) -> Array:
    """Covariance (mV^2) of two values of the background that are 0, 1, ..., steps - 1 steps apart, (steps,). Exact."""
    _check(1, background, (1.0,), 0.5, lines, steps, rate, 0)
    lag = np.arange(steps)
    if background in ("uniform", "white"):
        return np.asarray(LEVEL**2 * (lag == 0))
    if background == "cosine":
        low, high = (2 * np.pi * edge / rate for edge in BAND)
        away = np.maximum(lag, 1)
        return np.asarray(LEVEL**2 * np.where(lag == 0, 1.0, (np.sin(high * away) - np.sin(low * away)) / ((high - low) * away)))
    ring = _ring(steps)
    smooth = fft.irfft(_smooth_power(ring, rate, lines), ring)[:steps] / ring
    return np.asarray(smooth + LEVEL**2 * lines * np.cos(2 * np.pi * np.multiply.outer(lag / rate, TRANSMITTERS)).mean(1))


def power(background: str, steps: int = STEPS, rate: float = RATE, lines: float = LINES) -> Array:
    """Mean of |rfft|^2 of a trace of background alone (mV^2), (steps // 2 + 1,). Exact, leakage of the window's ends included."""
    r = autocovariance(background, steps, rate, lines)
    lag = np.arange(steps)
    folded = (steps - lag) * r + lag * np.concatenate([[0.0], r[:0:-1]])
    return np.asarray(fft.rfft(folded).real)
