"""What is usual at a station on a day of the year, and how unusual a day was: the scale on which a network learns.

    x = (value - centre(day)) / scale(day)

Centre and scale are harmonics of the year, fitted for each station on the last `NORMALS` years of training and on nothing else. Rain is
not scattered about a normal: it falls or does not. A column that is 0 on more than a fifth of days counts as precipitation, and becomes
two: whether there was any, and the logarithm of how much, in units of its mean on wet days.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from simulacra.series.windows import YEAR, Outlook, as_series, year_phase

NORMALS = 30  # years
CENTRE, SCALE = 3, 2  # harmonics of the year
DRY = 0.2  # share of zeros from which a column is precipitation
FEWEST = 1.5 * YEAR  # days of record below which no seasons are fitted


@dataclasses.dataclass(frozen=True)
class Climate:
    """Normals of S stations and C columns. Row 0 is the mean of all stations, for a station that training does not know."""

    stations: Tensor  # (S,) numbers of the stations
    centre: Tensor  # (S + 1, C, 1 + 2 CENTRE) coefficients
    variance: Tensor  # (S + 1, C, 1 + 2 SCALE)
    wet: Tensor  # (C,) 0, or the mean of a column of precipitation on wet days

    @classmethod
    def fitted(cls, training: Outlook) -> Climate:
        """Normals of the training rows."""
        record = as_series(training)
        wet = _wetness(np.concatenate([values for _, values in record.values()]))
        found = [_normals(days, values) for days, values in record.values()]
        centre, variance = (torch.stack([f[i] for f in found]).float() for i in (0, 1))
        together = [torch.cat([part.mean(dim=0, keepdim=True), part]) for part in (centre, variance)]
        return cls(torch.tensor(list(record)), together[0], together[1], wet)

    def normal(self, series: Tensor, day: Tensor, column: int = 0) -> tuple[Tensor, Tensor]:
        """Centre and scale (n, k) of a column on days (n, k) at stations (n,)."""
        # Harmonics of every day in range, once, cost less than those of all entries: windows overlap.
        first = int(day.min())
        days = torch.arange(first, int(day.max()) + 1)
        centre = self.centre[:, column] @ harmonics(days, CENTRE).T
        variance = self.variance[:, column] @ harmonics(days, SCALE).T
        scale = torch.maximum(variance, 0.05 * self.variance[:, column, :1]).sqrt()
        at = self.row(series)[:, None], day - first
        return centre[at], scale[at]

    def features(self, rows: Outlook, steps: int) -> Tensor:
        """What a network sees of the last `steps` days, (n, steps, width): for each column departure and whether it is known, or wetness
        and amount, then two harmonics of the year. Column 0 is the departure of what is forecast; what is missing is 0."""
        days = rows.past_days()[:, -steps:]
        parts = []
        for column, wet in enumerate(self.wet.tolist()):
            value = rows.past[:, -steps:, column]
            if wet:
                parts += [(value > 0).float(), torch.log1p(value.clamp(min=0) * 5 / wet)]
            else:
                centre, scale = self.normal(rows.series, days, column)
                parts += [(value - centre) / scale, value.isfinite().float() - 1]
        parts = [part.nan_to_num() for part in parts]
        return torch.cat([torch.stack(parts, dim=2), harmonics(days, 2)[..., 1:]], dim=2)

    def background(self, rows: Outlook) -> Tensor:
        """Mean departure of what is forecast over the last month and the last year that are known, (n, 2); 0 where nothing is."""
        centre, scale = self.normal(rows.series, rows.past_days()[:, -365:])
        departure = (rows.past[:, -365:, 0] - centre) / scale
        means = [departure[:, -span:].nanmean(dim=1).nan_to_num() for span in (30, 365)]
        return torch.stack(means, dim=1)

    @property
    def width(self) -> int:
        """Numbers per day in `features`."""
        return 2 * len(self.wet) + 4

    def row(self, series: Tensor) -> Tensor:
        """Place (n,) of stations (n,) in `centre` and `variance`."""
        same = series[:, None] == self.stations[None, :]
        return torch.where(same.any(dim=1), same.float().argmax(dim=1) + 1, 0)

    def state(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Climate:
        """The opposite of `state`."""
        return cls(**state)


def harmonics(day: Tensor, count: int) -> Tensor:
    """1, cos, sin, cos 2, sin 2, ... of the phase of the year, (..., 1 + 2 count)."""
    phase = year_phase(day)
    waves = [wave(k * phase) for k in range(1, count + 1) for wave in (torch.cos, torch.sin)]
    return torch.stack([torch.ones_like(phase), *waves], dim=-1).float()


def _wetness(values: np.ndarray) -> Tensor:
    wet = torch.zeros(values.shape[1])
    for column in range(1, values.shape[1]):
        seen = values[np.isfinite(values[:, column]), column]
        if len(seen) and seen.min() >= 0 and np.mean(seen == 0) > DRY:
            wet[column] = float(seen[seen > 0].mean()) if (seen > 0).any() else 1.0
    return wet


def _normals(days: np.ndarray, values: np.ndarray) -> tuple[Tensor, Tensor]:
    """Coefficients of centre (C, .) and variance (C, .) by least squares; a record without whole years has no seasons."""
    recent = days > days[-1] - NORMALS * YEAR
    day, value = torch.as_tensor(days[recent]), torch.as_tensor(values[recent])
    seasonal = int(day[-1] - day[0]) >= FEWEST
    centres, variances = [], []
    for column in value.T:
        seen = column.isfinite()
        centre, fitted = _fit(day[seen], column[seen], CENTRE if seasonal else 0, CENTRE)
        centres.append(centre)
        variances.append(_fit(day[seen], (column[seen] - fitted) ** 2, SCALE if seasonal else 0, SCALE)[0])
    return torch.stack(centres), torch.stack(variances)


def _fit(days: Tensor, values: Tensor, count: int, room: int) -> tuple[Tensor, Tensor]:
    """Coefficients, padded with zeros to 1 + 2 room, and fitted values."""
    coefficients = torch.zeros(1 + 2 * room, dtype=torch.float64)
    if not len(values):
        return coefficients, values
    design = harmonics(days, count).double()
    coefficients[: 1 + 2 * count] = torch.linalg.lstsq(design, values[:, None], driver="gelsd").solution[:, 0]
    return coefficients, design @ coefficients[: 1 + 2 * count]
