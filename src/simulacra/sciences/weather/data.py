"""What nature is here: daily weather of stations, measured or simulated, cut into rolling origins.

Measured: your own file (CSV, TSV, Parquet; see `simulacra.series.reading`), or a folder that holds one. Simulated: stations whose law is
known, so that the best possible forecast is too. The six Skagit series of the article have loaders of their own in `article.py`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from simulacra.series.reading import Table, read, rows_of
from simulacra.series.windows import YEAR, Outlook, date_of, day_of, outlooks, split_by_date
from simulacra.study import Recipe, Refused, Split

Array = NDArray[np.float64]

MEMORY = 0.75  # of the simulated anomaly, from one day to the next
SCATTER = (2.0, 1.2)  # sd of the innovations of the simulated maximum, in the mean and amplitude over the year (degrees C)
SHARES = (0.8, 0.1)  # of the days: trained on, tuned on; the rest is held out
KNOWN = 30  # days that must lie behind an origin
NAMES = {"tmax": ("tmin", "prcp"), "temp_max": ("temp_min", "precipitation")}  # usual names of the maximum and of its inputs


class WeatherRecipe(Recipe):
    """Which series, how far back and ahead, and which days are trained on, tuned on and held out."""

    column: str | None = Field(None, description="Column to forecast; none: TMAX or temp_max if there is one, else the only one.")
    inputs: tuple[str, ...] | None = Field(
        None, description="Columns known up to the origin that the network also sees; none: minimum temperature and rain if there."
    )
    station: str | None = Field(None, description="Column that tells several stations apart.")
    unit: str | None = Field(None, description="Unit of the column, e.g. F; none: as its name says.")
    past: int = Field(400, ge=7, le=3000, description="Days known at each origin. A year and more lets the seasonal naive rival play.")
    horizon: int = Field(14, ge=1, le=366, description="Days ahead that are forecast.")
    train_until: str = Field("", description="Last day of training, as 2007-12-31; empty: 80 % of the record.")
    tune_until: str = Field("", description="Last day of tuning; what comes after is held out; empty: 90 % of the record.")
    years: int = Field(10, ge=4, le=200, description="Years to simulate where no data are given.")
    members: int = Field(
        99, ge=9, le=999, description="Paths per forecast: members rank evenly in its law.", json_schema_extra={"drawing": True}
    )

    @field_validator("train_until", "tune_until")
    @classmethod
    def _date(cls, text: str) -> str:
        return date_of(day_of(text)) if text else ""

    @field_validator("inputs", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return () if value in ("", [""]) else value


def load(recipe: WeatherRecipe) -> Split[Outlook]:
    """Rolling origins of the recipe's series, split by date."""
    table = table_of(recipe)
    rows = outlooks(table, recipe.past, recipe.horizon, known=min(KNOWN, recipe.past))
    first, last = int(table.days[0]), int(table.days[-1])
    ends = [
        day_of(date) if date else first + round(share * (last - first))
        for date, share in ((recipe.train_until, SHARES[0]), (recipe.tune_until, sum(SHARES)))
    ]
    if not ends[0] < ends[1]:
        raise Refused(f"training ends on {date_of(ends[0])} and tuning on {date_of(ends[1])}: --train-until must come before --tune-until")
    origin = (
        f"{table.columns[0]}{f' ({table.unit})' if table.unit else ''} of {len(table.names)} "
        f"station{'s' if len(table.names) > 1 else ''}, {date_of(first)} to {date_of(last)}; trained to {date_of(ends[0])}, "
        f"tuned to {date_of(ends[1])}, held out after. " + " ".join(table.remarks)
    )
    return split_by_date(rows, ends[0], ends[1], origin.strip(), table.files)


def table_of(recipe: WeatherRecipe) -> Table:
    """The series that the recipe names, or simulated ones. Raises Refused where they are not daily or cannot be read."""
    if recipe.data is None:
        return simulate(recipe.years, recipe.seed)
    path = file_in(recipe.data)
    column, inputs = _columns(path, recipe)
    table = read(path, column=column, inputs=inputs, series_column=recipe.station, unit=recipe.unit)
    if table.every != 1:
        raise Refused(f"{path.name} holds one value in {table.every} days; this system forecasts daily weather")
    return table


def file_in(path: Path) -> Path:
    """The file itself, or the only table in a folder. Refused where it is not clear which."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise Refused(f"{path}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.name.lower().endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")))
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise Refused(f"{path} is a folder with {len(found)} tables ({names}); name the one to read, e.g. --data {path}/my.csv")
    return found[0]


def _columns(path: Path, recipe: WeatherRecipe) -> tuple[str | None, tuple[str, ...]]:
    """Column to forecast and its inputs: as asked, or by their usual names."""
    spelt = {name.lower(): name for name in rows_of(path).columns}
    usual = next((name for name in NAMES if name in spelt), None)
    column = recipe.column or (spelt[usual] if usual else None)
    if recipe.inputs is not None:
        return column, recipe.inputs
    return column, tuple(spelt[name] for name in NAMES.get((column or "").lower(), ()) if name in spelt)


# ------------------------------------------------------------------------------------------------------------- simulated


def simulate(years: int, seed: int) -> Table:
    """Two stations under one sky: an annual cycle plus an anomaly that is a Gaussian autoregression of order one.

    x_t = MEMORY x_(t-1) + s(t) e_t with e correlated 0.9 between the stations; the minimum follows with noise of its own. The best
    forecast h days ahead is exact: mean c(t + h) + MEMORY^h x_t, see `optimum`.
    """
    days = np.arange(day_of("2001-01-01"), day_of("2001-01-01") + round(years * YEAR))
    rng = np.random.default_rng([seed, 0x7EA7])
    shared, own = rng.standard_normal(len(days)), rng.standard_normal((2, len(days)))
    noise = math.sqrt(0.9) * shared + math.sqrt(0.1) * own
    tables = [_station(days, noise[s], rng) for s in range(2)]
    code = f"simulated weather {years} years seed {seed}"
    files = {code: hashlib.sha256(code.encode()).hexdigest()}
    remarks = ["Simulated: annual cycle plus AR(1) anomaly; the law is known."]
    return Table(("north", "south"), days, np.stack(tables), ("tmax", "tmin"), "°C", remarks, files)


def _station(days: NDArray[np.int64], noise: Array, rng: np.random.Generator) -> Array:
    anomaly, scatter = np.empty(len(days)), innovation(days)
    now = scatter[0] * rng.standard_normal() / math.sqrt(1 - MEMORY**2)
    for i, step in enumerate(scatter * noise):
        now = MEMORY * now + step
        anomaly[i] = now
    maximum = cycle(days) + anomaly
    return np.stack([maximum, maximum - 8 - 0.3 * anomaly + rng.standard_normal(len(days))], axis=1)


def cycle(days: NDArray[np.int64]) -> Array:
    """Normal maximum of the simulated stations on each day, in degrees C."""
    return np.asarray(15 + 8 * np.cos(2 * np.pi * (days - 20) / YEAR - np.pi))


def innovation(days: NDArray[np.int64]) -> Array:
    """Standard deviation of what is new on each day of the simulated stations, in degrees C."""
    return np.asarray(SCATTER[0] + SCATTER[1] * np.cos(2 * np.pi * (days - 20) / YEAR))


def optimum(rows: Outlook) -> tuple[Array, Array]:
    """Mean and standard deviation (n, H) of the best possible forecast of simulated rows."""
    anomaly = rows.past[:, -1, 0].double().numpy() - cycle(rows.day.numpy())
    targets = rows.target_days().numpy()
    mean, variance = np.empty(targets.shape), np.zeros(len(targets))
    spread = np.empty(targets.shape)
    for h in range(targets.shape[1]):
        variance = MEMORY**2 * variance + innovation(targets[:, h]) ** 2
        mean[:, h], spread[:, h] = cycle(targets[:, h]) + MEMORY ** (h + 1) * anomaly, np.sqrt(variance)
    return mean, spread
