"""Forecasts as the forecast hubs exchange them: one row per quantile, in CSV.

    reference_date,location,horizon,target,target_end_date,output_type,output_type_id,value

The columns are those of the hubverse. The reference date is here the origin, the Saturday that ends the last week known, so horizons
count from 1; files whose horizons begin at 0 (reference date in the week that is forecast first) are read as what they mean.
"""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra.measures.scores import HUB_LEVELS, quantiles_of
from simulacra.series.reading import rows_of
from simulacra.series.windows import Outlook, date_of, day_of
from simulacra.study import Refused

COLUMNS = ("reference_date", "location", "horizon", "target", "target_end_date", "output_type", "output_type_id", "value")
NEEDED = ("reference_date", "location", "horizon", "target_end_date", "output_type", "output_type_id", "value")
TARGETS = {7: "wk inc case", 1: "day inc case"}
Found = dict[tuple[int, int], dict[tuple[int, int], dict[float, float]]]  # location, reference -> horizon, end -> level -> value
MEMBERS = 200  # as which the quantiles of another program's forecast are taken: at levels (i + 1/2) / 200, linear between its own


def write(rows: Outlook, path: Path) -> None:
    """The 23 quantiles of every forecast, rounded to hundredths of a case."""
    if len(rows) and rows.members == 1:
        raise Refused("these rows hold one path each, so they are what came, not forecasts; a forecast has many members")
    table = quantiles_of(rows.future.permute(0, 2, 1).numpy(), HUB_LEVELS)  # (n, H, 23)
    ends = rows.target_days().numpy()
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for row, (series, day, every) in enumerate(zip(rows.series.tolist(), rows.day.tolist(), rows.every.tolist(), strict=True)):
            for week in range(rows.horizon):
                for level, value in zip(HUB_LEVELS.tolist(), table[row, week].tolist(), strict=True):
                    out.writerow((date_of(day), f"{series:02d}", week + 1, TARGETS.get(every, "inc case"), date_of(int(ends[row, week])),
                                  "quantile", f"{level:g}", f"{value:.2f}"))  # fmt: skip


def read(path: Path) -> Outlook:
    """Forecasts from such a file: MEMBERS members each, the quantiles at evenly spread levels. Pasts are unknown (NaN): the file has none.

    Refused where a column is missing, a location is no FIPS code, a forecast lacks its median or its quantiles cross.
    """
    columns = rows_of(path).columns
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise Refused(f"{path}: forecasts in the hubs' layout need the columns {', '.join(NEEDED)}; {', '.join(missing)} missing")
    found: Found = defaultdict(lambda: defaultdict(dict))
    date = functools.cache(day_of)  # few dates, many lines
    for line, cells in enumerate(zip(*(columns[name] for name in NEEDED), strict=True), start=2):
        reference, location, horizon, end, kind, level, value = (str(cell) for cell in cells)
        if kind == "quantile":
            try:
                code, ahead, at, cases = int(location), int(float(horizon)), float(level), float(value)
            except ValueError:
                raise Refused(
                    f"{path}, line {line}: location {location!r}, horizon {horizon!r}, level {level!r} and value {value!r} must be "
                    "numbers; locations are FIPS codes such as 53"
                ) from None
            found[code, date(reference)][ahead, date(end)][at] = cases
    if not found:
        raise Refused(f"{path} holds no rows with output_type 'quantile'")
    return _rows(found, path)


def _rows(found: Found, path: Path) -> Outlook:
    every, lowest = _step(found, path), min(ahead for weeks in found.values() for ahead, _ in weeks)
    if lowest not in (0, 1):
        raise Refused(f"{path}: the first horizon is {lowest}; 1 (the period after the reference date) or 0 is expected")
    horizon = 1 - lowest + max(ahead for weeks in found.values() for ahead, _ in weeks)
    future = torch.full((len(found), MEMBERS, horizon), torch.nan)
    keys = sorted(found)
    for row, key in enumerate(keys):
        for (ahead, end), quantiles in found[key].items():
            future[row, :, ahead - lowest] = torch.from_numpy(_members(quantiles, key[0], end, path)).float()
    days = [next(end - (ahead - lowest + 1) * every for ahead, end in found[key]) for key in keys]
    count = len(keys)
    return Outlook(
        torch.tensor([code for code, _ in keys]), torch.tensor(days), torch.full((count,), every), torch.full((count, 1, 1), torch.nan),
        future,
    )  # fmt: skip


def _step(found: Found, path: Path) -> int:
    """Days from period to period, 1 or 7, as horizons and dates tell; a week where there is one horizon only."""
    steps = {
        (end - first) // (ahead - lead)
        for weeks in found.values() for lead, first in [min(weeks)] for ahead, end in weeks if ahead > lead
    } or {7}  # fmt: skip
    if len(steps) > 1 or not steps <= {1, 7}:
        raise Refused(f"{path}: target_end_date and horizon disagree: one horizon more is {sorted(steps)} days more; 7 (or 1) is expected")
    return steps.pop()


def _members(quantiles: dict[float, float], code: int, end: int, path: Path) -> NDArray[np.float64]:
    levels = np.array(sorted(quantiles))
    values = np.array([quantiles[level] for level in levels.tolist()])
    where = f"{path}: location {code:02d}, week to {date_of(end)}"
    if not np.any(np.abs(levels - 0.5) < 1e-9) or len(levels) < 3 or levels[0] <= 0 or levels[-1] >= 1:
        raise Refused(f"{where}: quantiles at the levels {', '.join(f'{v:g}' for v in levels)}; at least three with the median are needed")
    if np.any(np.diff(values) < 0):
        raise Refused(f"{where}: quantiles cross: a higher level must not have a lower value")
    return np.asarray(np.interp((np.arange(MEMBERS) + 0.5) / MEMBERS, levels, values))
