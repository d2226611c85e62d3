"""The Gaussian process of the articles on COVID-19 by state, as their notebook ran it, and what its numbers really are.

Source: the notebook bigquery-Covid.ipynb beside D. Gannon's articles. Daily cases of a state up to 2020-07-01 (first differences of
running totals, the first total first), n of them; x = linspace(0, 3.65, n), whatever n; exponentiated-quadratic kernel of unit
variance and lengthscale; floor((n - off) / step) samples, every `step` days from the first; y = scale times cases; noise variance
0.005; zero prior mean. The predictions were multiplied by `scale` once more instead of divided by it, so the printed "l1" is the mean
of the data (Washington: 35,258 cases / 163 days). `errors` gives that number and the true one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from simulacra.families.gp import ExponentiatedQuadratic, GaussianProcess, Posterior, White

Array = NDArray[np.float64]

CUT = "2020-07-01"  # the last day of the data that the notebook read
SPAN = 3.65
PROCESS = GaussianProcess(ExponentiatedQuadratic(1.0, 1.0) + White(0.005))


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the notebook's results."""

    state: str
    code: int  # FIPS
    scale: float
    off: int  # days
    step: int  # days
    printed: float  # "l1", cases a day


PRINTED = (
    Setting("Washington", 53, 0.001, 10, 9, 216.3065),
    Setting("Washington", 53, 0.001, 10, 3, 216.3065),
    Setting("Washington", 53, 0.001, 4, 5, 216.3066),
    Setting("Georgia", 13, 0.001, 5, 5, 654.9584),
    Setting("Florida", 12, 0.0001, 5, 9, 1292.5935),
    Setting("California", 6, 0.0001, 5, 5, 1507.9497),
    Setting("New York", 36, 0.0001, 10, 9, 3242.0325),
    Setting("Texas", 48, 0.0005, 5, 5, 1239.9004),
)
OTHERWISE = Setting("any other", 0, 0.001, 5, 5, np.nan)


def setting_of(code: int) -> Setting:
    """How the notebook treated this state, the last time it did."""
    return next((s for s in reversed(PRINTED) if s.code == code), OTHERWISE)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Mean absolute errors in cases a day."""

    printed: float  # as the notebook computes it, scale applied twice
    everywhere: float  # true, over all days, samples included
    after: float  # true, over the days after the last sample
    carried: float  # of the mean of the seven days up to the last sample, carried on
    days: int  # after the last sample


def sampled(count: int, setting: Setting) -> NDArray[np.int64]:
    """Places of the samples among `count` days."""
    return np.arange((count - setting.off) // setting.step) * setting.step


def posterior(cases: Array, count: int, at: NDArray[np.int64], setting: Setting) -> tuple[Posterior, Array]:
    """The process given scaled cases on the days `at`, and x of the days 0, 1, ... of which `count` fill SPAN."""
    x = np.asarray(np.arange(max(count, len(cases)) + 64) * (SPAN / (count - 1)), np.float64)
    return PROCESS.condition(x[at], setting.scale * cases[at], solver="dense"), x


def errors(cases: Array, setting: Setting) -> Errors:
    """The notebook's number and the true ones, for daily cases (n,)."""
    at = sampled(len(cases), setting)
    law, x = posterior(cases, len(cases), at, setting)
    mean, last = law.mean(x[: len(cases)]), int(at[-1])
    true = np.abs(cases - mean / setting.scale)
    carried = cases[max(0, last - 6) : last + 1].mean()
    return Errors(
        float(np.abs(cases - setting.scale * mean).mean()), float(true.mean()), float(true[last + 1 :].mean()),
        float(np.abs(cases[last + 1 :] - carried).mean()), len(cases) - 1 - last,
    )  # fmt: skip


def ahead(cases: Array, horizon: int, setting: Setting) -> tuple[Array, Array]:
    """Mean (H,) and covariance (H, H), noise included, of the cases on the days after the last of `cases` (n,), which is sampled.

    Samples lie every `step` days back from it, and the axis is that of the shortest record with this last sample, n + off + step - 1.
    Counts below zero are not ruled out: the process does not know that it is of counts.
    """
    last = len(cases) - 1
    at = np.arange(last % setting.step, last + 1, setting.step)
    at = at[np.isfinite(cases[at])]
    law, x = posterior(cases, len(cases) + setting.off + setting.step - 1, at, setting)
    days = x[last + 1 : last + 1 + horizon]
    return law.mean(days) / setting.scale, law.covariance(days, noise=True) / setting.scale**2
