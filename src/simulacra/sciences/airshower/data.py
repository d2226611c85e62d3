"""Radio traces of air showers: what was measured, the shower's pulse in it, and whether there is one.

One row is the voltage of one antenna channel over a few microseconds. Amplitudes are in mV and rates in MHz: `steps / rate` is the
length of a trace in us.

    measured = signal + noise            the pulse and whatever else the antenna received
    SNR      = max |signal| / RMS(measured)                  of the data set (Erdmann et al., see docs/airshower.md)
    peak SNR = max |signal| / RMS(measured - signal)         beside it: the pulse does not count as noise

In nature `signal` is the truth (all zero where there is no shower), `presence` is 1 or 0 and `spread` is 0. In what was recovered they
are an estimate, its standard error step by step, and the probability that there is a pulse. What is not known is nan.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.study import Refused, Samples

Array = NDArray[Any]

FEWEST_STEPS = 32
RATES = 1.0, 10_000.0  # MHz that a trace may be sampled at: beyond them the number is in another unit


@dataclasses.dataclass(frozen=True)
class Traces(Samples):
    """Traces of one antenna channel each, with the pulse of the shower as far as it is known."""

    measured: Tensor  # (n, steps) float32, mV
    signal: Tensor  # (n, steps) float32, mV: the pulse alone, true or recovered; 0 without a shower, nan where not known
    spread: Tensor  # (n, steps) float32, mV: standard error of `signal`; 0 in truth, nan where not told
    presence: Tensor  # (n,) float32: probability of a pulse; 1 or 0 in truth, nan where not known
    rate: Tensor  # (n,) float32, MHz

    @property
    def steps(self) -> int:
        """Steps of a trace."""
        return int(self.measured.shape[-1])

    def check(self) -> None:
        shape = tuple(self.measured.shape)
        if len(shape) != 2 or shape[1] < FEWEST_STEPS:
            raise Refused(f"traces have shape {shape}; expected (traces, steps) with {FEWEST_STEPS} steps or more")
        for name, value in self.fields().items():
            expected = shape if name in ("measured", "signal", "spread") else shape[:1]
            if tuple(value.shape) != expected or value.dtype != torch.float32:
                raise Refused(f"{name} has shape {tuple(value.shape)} and type {value.dtype}; expected {expected} and float32")
        _refuse(~torch.isfinite(self.measured).all(1), "holds values that are not finite; leave the trace out")
        _refuse(torch.isinf(self.signal).any(1), "has an infinite signal; give nan where the signal is not known")
        _refuse((self.spread < 0).any(1) | torch.isinf(self.spread).any(1), "has a negative or infinite spread of its signal")
        _refuse((self.presence < 0) | (self.presence > 1), "has a presence outside 0 to 1; it is the probability of a pulse")
        low, high = RATES
        _refuse(~((self.rate >= low) & (self.rate <= high)), f"has a sampling rate outside {low:g} to {high:g} MHz; rates are in MHz")


def _refuse(bad: Tensor, why: str) -> None:
    if bad.any():
        raise Refused(f"trace {int(bad.nonzero()[0, 0])} {why}")


def traces(measured: Any, rate: Any, *, signal: Any = None, spread: Any = None, presence: Any = None) -> Traces:
    """Traces from arrays: measured (n, steps) or (steps,) in mV, rate in MHz (one for all or one each).

    `signal` (like measured) is the true pulse where it is known: then `spread` is 0 and `presence` 1 where it is not all zero, unless
    they are given.
    """
    volts = np.atleast_2d(np.asarray(measured))
    if volts.dtype.kind not in "fiu":
        raise Refused(f"traces are {volts.dtype.name}; expected numbers, the voltage in mV")
    n = len(volts)
    known = None if signal is None else np.atleast_2d(np.asarray(signal, np.float32))
    if known is not None and spread is None:
        spread = np.where(np.isnan(known), np.nan, 0)
    if known is not None and presence is None:
        presence = np.where(np.isnan(known).any(1), np.nan, (known != 0).any(1))
    unknown = np.full(volts.shape, np.nan, np.float32)
    return Traces(
        tensor(volts), tensor(unknown if known is None else known), tensor(unknown if spread is None else np.atleast_2d(spread)),
        tensor(_each(np.nan if presence is None else presence, n, "presence")), tensor(_each(rate, n, "the sampling rate")),
    )  # fmt: skip


def _each(value: Any, n: int, name: str) -> Array:
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} is {value!r}; expected numbers") from error
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) not in (1, n)):
        raise Refused(f"{name} has shape {numbers.shape}; expected one number, or one for each of {n} traces")
    return np.broadcast_to(numbers.reshape(-1), (n,))


def tensor(values: Array) -> Tensor:
    """A copy in float32 and in the byte order of this machine."""
    return torch.from_numpy(np.array(values, np.float32, order="C"))


# ------------------------------------------------------------------------------------------------------ how strong it is


def signal_to_noise(found: Traces) -> tuple[Tensor, Tensor]:
    """SNR and peak SNR of each row, both (n,): max |signal| over the RMS of the trace, and over that of the trace less its signal.
    0 without a pulse, nan where the signal is not known."""
    peak = found.signal.abs().amax(1)
    return peak / _rms(found.measured), peak / _rms(found.measured - found.signal)


def _rms(values: Tensor) -> Tensor:
    return values.double().square().mean(1).sqrt().float().clamp_min(1e-30)
