"""The two forecasts of the article *Predicting Tomorrow's Temperature with RNNs and Gaussian Processes*, as its notebooks make them.

Six series: daily maxima (degrees F) of three stations in the Skagit valley in two years, NOAA GSOD, taken from the author's repository
github.com/dbgannon/predicting_streams at 90b03d2. Days were dropped by position, so day i is not one date in all six; 0 to 2 are one
year, 3 to 5 the other. The seventh, AVERAGE, is the mean of the six: it holds every series that the article tests on. What the
notebooks print is made again here, number by number, with what they leave out beside it: errors of days that were not shown to the
method, and forecasts that anybody could have made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simulacra.descent import Descent
from simulacra.evidence import Check
from simulacra.families.gp import ExponentiatedQuadratic, GaussianProcess, Periodic, Posterior, White
from simulacra.series.reading import Table, rows_of
from simulacra.series.windows import Outlook, outlooks
from simulacra.study import Noise, Refused, Split

if TYPE_CHECKING:
    from simulacra.sciences.weather.data import WeatherRecipe

Array = NDArray[np.float64]

FILE = "skagit_six_series.csv"
UNIT = "°F"
AVERAGE = 6
TRAINED_ON = (AVERAGE, 1)
HIDDEN = 100
SCORED = 360  # days: the divisor of every printed score, whatever the length of the series
OTHER_YEAR = {**dict.fromkeys((0, 1, 2), (3, 4, 5)), **dict.fromkeys((3, 4, 5), (0, 1, 2))}
# Printed in lstm-for-stream-final.ipynb: sum of absolute errors / 360 of the network and of "tomorrow as today".
LSTM_PRINTED = {
    AVERAGE: (0.171, 2.052), 1: (0.219, 3.027), 0: (4.037, 3.085), 2: (3.231, 2.726), 3: (3.660, 3.205), 4: (3.621, 3.043),
    5: (3.823, 3.043),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the article conditions its Gaussian process on one series."""

    until: int  # days from which samples are taken
    noise: float  # variance, in (10 degrees F)^2: the notebook's "sigma" is added to the diagonal as it is
    step: int  # days between samples
    printed: float  # mean absolute error over all 360 days, degrees F

    @property
    def samples(self) -> NDArray[np.int64]:
        """Days, from 0, that the process is shown."""
        return self.step * np.arange(self.until // self.step)


# Printed in Gaussian-process-temps-periodic.ipynb. By their execution counts, those of STALE came from an earlier state of its kernel.
STALE = (3, 4, 5)
SETTINGS = {
    AVERAGE: Setting(230, 0.3, 5, 3.172), 0: Setting(230, 0.3, 5, 4.993), 1: Setting(230, 0.09, 15, 4.777),
    2: Setting(230, 0.09, 15, 4.395), 3: Setting(250, 0.2, 5, 4.573), 4: Setting(230, 0.2, 15, 5.323), 5: Setting(285, 0.2, 15, 5.027),
}  # fmt: skip
PERIOD = 1.15  # years, in the notebook; the article says 1


def series_in(path: Path | None) -> tuple[dict[int, Array], dict[str, str]]:
    """The six series and their mean, by number, and the file's checksum. Refused where the file is another."""
    if path is None:
        raise Refused(f"the article's recipe needs the article's data: give --data FOLDER, one that holds {FILE} (docs/weather.md)")
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise Refused(f"{file}: no such file; the article's recipe needs its six series, {FILE}")
    rows = rows_of(file)
    if not {"series", "day_of_year", "temp_max_f"} <= set(rows.columns):
        raise Refused(f"{file} holds no columns series, day_of_year, temp_max_f; the recipes quick and laptop take other data")
    try:
        number, values = np.array(rows.columns["series"], int), np.array(rows.columns["temp_max_f"], float)
    except ValueError as error:
        raise Refused(f"{file}: series must be numbers from 0 to 5 and temp_max_f degrees Fahrenheit ({error})") from error
    found = {s: values[number == s] for s in range(6)}
    if min(map(len, found.values())) < SCORED:
        raise Refused(f"{file}: six series of at least {SCORED} days were expected, got {[len(v) for v in found.values()]}")
    found[AVERAGE] = np.mean([values[:SCORED] for values in found.values()], axis=0)
    return found, dict(rows.files)


# ------------------------------------------------------------------------------------------------------------------- LSTM


def windows_of_a_week(recipe: WeatherRecipe) -> Split[Outlook]:
    """Seven days and the next: windows of the mean and of series 1 to train on, those of the other five held out."""
    series, files = series_in(recipe.data)
    values = np.full((7, max(map(len, series.values())), 3), np.nan)
    for number, days in series.items():
        values[number, : len(days)] = np.stack([days, np.full(len(days), days.min()), np.full(len(days), days.max())], axis=1)
    table = Table([str(s) for s in range(7)], np.arange(values.shape[1]), values, ("temp_max_f", "lowest", "highest"), UNIT, (), files)
    rows = outlooks(table, 7, 1, known=7)
    rows = rows[rows.past[..., 0].isfinite().all(dim=1)]
    trained = torch.isin(rows.series, torch.tensor(TRAINED_ON))
    origin = (
        "Daily maxima (°F) of six Skagit series; trained on their mean and on series 1, held out series 0, 2, 3, 4, 5. As in the article, "
        "the mean holds the series that are held out, and each is scaled by its own extremes, future days too. The years are not stated: "
        "day 0 stands as 1970-01-01."
    )
    return Split(rows[trained], rows[:0], rows[~trained], origin, files)


class ArticleLSTM:
    """LSTM 1-100-1 on seven scaled temperatures: one number for tomorrow. Its members are all that number."""

    def __init__(self, recipe: Any, network: nn.Module) -> None:
        self.recipe, self.network = recipe, network
        self.descent = Descent(network, lr=recipe.lr)

    def step(self, batch: Outlook) -> Mapping[str, Tensor]:
        x, low, high = _scaled(batch)
        loss = (self.network(x)[:, 0] - (2 * (batch.future[:, 0, 0] - low) / (high - low) - 1)).square().mean()
        self.descent(loss)
        return {"squared error": loss.detach()}

    @torch.no_grad()
    def tomorrow(self, rows: Outlook) -> Tensor:
        """Forecast (n,) in degrees F."""
        x, low, high = _scaled(rows)
        found: Tensor = low + (self.network(x)[:, 0] + 1) * (high - low) / 2
        return found

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        return like.with_future(self.tomorrow(like)[:, None, None].expand(-1, self.recipe.members, 1))

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)


def _scaled(rows: Outlook) -> tuple[Tensor, Tensor, Tensor]:
    """Temperatures (n, 7, 1) in [-1, 1] between the extremes of the whole series, and these."""
    low, high = rows.past[:, -1, 1], rows.past[:, -1, 2]
    return (2 * (rows.past[..., :1] - low[:, None, None]) / (high - low)[:, None, None] - 1), low, high


def lstm_checks(learner: ArticleLSTM, split: Split[Outlook]) -> list[Check]:
    """Each series by the article's score, the sum of absolute errors over 360 with the first week counted as right, beside what was
    printed, and by the mean over the days that were forecast, beside "tomorrow as today". The persistence that the article prints is
    counted in every day, the first week too."""
    checks = []
    for number, (printed, printed_persistence) in LSTM_PRINTED.items():
        rows = split.train if number in TRAINED_ON else split.held_out
        rows = rows[rows.series == number]
        truth, today, ours = rows.future[:, 0, 0], rows.past[:, -1, 0], learner.tomorrow(rows)
        error, persistence = (ours - truth).abs(), (today - truth).abs()
        every_day = persistence.sum() + rows.past[0, :, 0].diff().abs().sum()
        beside = {
            "printed": printed, "persistence, same score": float(persistence.sum()) / SCORED,
            "persistence, every day": float(every_day) / SCORED, "persistence, printed": printed_persistence,
            "mean absolute error": float(error.mean()), "persistence, mean absolute error": float(persistence.mean()),
            "difference to today's maximum": float((ours - today).abs().mean()), "days more than 10 °F off": float((error > 10).sum()),
        }  # fmt: skip
        where = "the mean of all six" if number == AVERAGE else f"series {number}"
        where += ", trained on" if number in TRAINED_ON else ""
        value = float(error.sum()) / SCORED
        checks.append(Check(
            f"article's error of {where} (°F)", value, float("nan"), "below persistence by the same score",
            value < beside["persistence, same score"], beside,
        ))  # fmt: skip
    return checks


# ------------------------------------------------------------------------------------------------------ Gaussian process


def sampled_years(recipe: WeatherRecipe) -> Split[Outlook]:
    """One row per series: the samples that the article shows its process, and the days after the last of them.

    What the rivals learn from, `train`, are all days up to the last sample: they were known then, though the process sees few of them.
    """
    series, files = series_in(recipe.data)
    past = max(int(setting.samples[-1]) for setting in SETTINGS.values()) + 1
    horizon = SCORED - 1 - min(int(setting.samples[-1]) for setting in SETTINGS.values())
    rows = Outlook.join([_row(number, series[number], setting.samples, past, horizon) for number, setting in SETTINGS.items()])
    before = [_row(number, series[number], np.arange(s.samples[-1] + 1), past, horizon) for number, s in SETTINGS.items()]
    known = Outlook.join(before)
    origin = (
        "Daily maxima (°F) of six Skagit series and of their mean: every 5th or 15th day of about 230 is shown, the days after the last "
        f"one to day {SCORED} are held out. The years are not stated: day 0 stands as 1970-01-01."
    )
    return Split(known.with_future(torch.full_like(known.future, torch.nan)), rows[:0], rows, origin, files)


def _row(number: int, values: Array, samples: NDArray[np.int64], past: int, horizon: int) -> Outlook:
    """A series shown at `samples` only, from the last of them on."""
    last = int(samples[-1])
    shown, ahead = np.full((1, past, 1), np.nan), np.full((1, 1, horizon), np.nan)
    shown[0, past - 1 - last + samples, 0] = values[samples]
    ahead[0, 0, : SCORED - 1 - last] = values[last + 1 : SCORED]
    one = torch.ones(1, dtype=torch.int64)
    return Outlook(number * one, last * one, one, torch.as_tensor(shown, dtype=torch.float32), torch.as_tensor(ahead, dtype=torch.float32))


def times(days: Array) -> Array:
    """The notebook's axis: 360 days from 0 to 1."""
    return days / (SCORED - 1)


def conditioned(number: int, days: Array, values: Array) -> Posterior:
    """The article's process of a series, given maxima `values` (degrees F) on `days`: in tens of degrees, without a mean."""
    kernel = ExponentiatedQuadratic(1.0, 1.0) + Periodic(1.0, 1.0, PERIOD) + White(SETTINGS[number].noise)
    return GaussianProcess(kernel).condition(times(days), values / 10, solver="dense")


def gp_checks(path: Path | None) -> list[Check]:
    """Mean absolute error over all 360 days, training days among them, as the article prints it; and of the days after the last sample,
    beside the last sample carried on and the normals of the other year."""
    series, _ = series_in(path)
    checks = []
    for number, setting in SETTINGS.items():
        samples, truth = setting.samples, series[number][:SCORED]
        posterior = conditioned(number, samples.astype(float), truth[samples])
        everywhere = times(np.arange(SCORED, dtype=float))
        mean = 10 * posterior.mean(everywhere)
        error, future = np.abs(mean - truth), np.arange(SCORED) > samples[-1]
        beside = {"printed": setting.printed, "days after the last sample": float(error[future].mean())}
        beside["last sample carried on, same days"] = float(np.abs(truth - truth[samples[-1]])[future].mean())
        if number != AVERAGE:
            beside["normals of the other year, same days"] = float(np.abs(truth - _normals(series, number))[future].mean())
        for noise, name in ((False, "band of the function"), (True, "band of observations")):
            width = 20 * np.sqrt(posterior.variance(everywhere, noise=noise))
            beside[f"two-sigma {name} holds"] = float(np.mean(error[future] <= width[future]))
        where = "the mean of all six" if number == AVERAGE else f"series {number}"
        value = float(error.mean())
        target = "as printed, to 0.002" + (", which an earlier state of the notebook printed" if number in STALE else "")
        checks.append(Check(
            f"article's error of {where}, samples included (°F)", value, float("nan"), target,
            abs(value - setting.printed) < 0.002, beside,
        ))  # fmt: skip
    return checks


def _normals(series: Mapping[int, Array], number: int) -> Array:
    """Two harmonics through the three series of the year that `number` is not of, (360,)."""
    days = np.arange(SCORED)
    waves = np.stack([np.ones(SCORED)] + [f(2 * np.pi * k * days / 365) for k in (1, 2) for f in (np.cos, np.sin)], axis=1)
    others = np.mean([series[other][:SCORED] for other in OTHER_YEAR[number]], axis=0)
    return np.asarray(waves @ np.linalg.lstsq(waves, others, rcond=None)[0])
