"""Rolling origins of a series: what was known on a day, and what came after. One row is one forecast that could have been made.

Nature's row holds the one path that happened; a forecast of it holds the same past and many equally likely paths, its members. So a
forecast and nature are samples of one type, and every score compares the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.study import Refused, Samples, Split

if TYPE_CHECKING:
    from simulacra.series.reading import Table

YEAR = 365.2425  # days


@dataclasses.dataclass(frozen=True)
class Outlook(Samples):
    """Forecasts, or what they are held to: n origins, P periods known at each, H periods ahead, M members (nature: 1)."""

    series: Tensor  # (n,) int64: which series: a station, a state
    day: Tensor  # (n,) int64: the origin, the last day known, in days since 1970-01-01
    every: Tensor  # (n,) int64: days from one period to the next: 1 daily, 7 weekly
    past: Tensor  # (n, P, C) float32: the last P periods, oldest first, up to the origin; channel 0 is what is forecast; NaN: missing
    future: Tensor  # (n, M, H) float32: the next H periods of channel 0

    def check(self) -> None:
        if self.past.ndim != 3 or self.future.ndim != 3:
            raise Refused(
                f"a forecast needs a past (n, periods, columns) and a future (n, members, periods), "
                f"got {tuple(self.past.shape)} and {tuple(self.future.shape)}"
            )
        if len(self) and int(self.every.min()) < 1:
            raise Refused("a forecast needs at least one day from period to period")

    @property
    def horizon(self) -> int:
        """Periods ahead, H."""
        return self.future.shape[2]

    @property
    def members(self) -> int:
        """Paths per origin, M."""
        return self.future.shape[1]

    def target_days(self) -> Tensor:
        """Days since 1970-01-01 of the periods ahead, (n, H)."""
        return self.day[:, None] + self.every[:, None] * torch.arange(1, self.horizon + 1)

    def past_days(self) -> Tensor:
        """Days since 1970-01-01 of the periods known, (n, P)."""
        return self.day[:, None] + self.every[:, None] * torch.arange(1 - self.past.shape[1], 1)

    def with_future(self, future: Tensor) -> Outlook:
        """The same origins and pasts with other paths ahead, (n, members, H)."""
        return Outlook(self.series, self.day, self.every, self.past, future.to(torch.float32))


def outlooks(table: Table, past: int, horizon: int, known: int = 1) -> Outlook:
    """A row for every origin of every series of `table`, one series after the other.

    Periods before the record begins and after it ends are NaN. An origin counts where at least `known` periods lie behind it and
    one ahead, and where what is forecast was observed at one of each.
    """
    values = torch.as_tensor(np.asarray(table.values, np.float32))
    parts = [_of_one(s, values[s], table, past, horizon, known) for s in range(len(values))]
    return parts[0] if len(parts) == 1 else Outlook.join(parts)


def origins_on(table: Table, past: int, horizon: int, day: int) -> Outlook:
    """One row per series: what is known on `day`, and what comes after as far as the record goes. Refused outside the record."""
    at = (day - int(table.days[0])) / table.every
    if not (0 <= at < len(table.days) and at == int(at)):
        first, last = date_of(int(table.days[0])), date_of(int(table.days[-1]))
        raise Refused(f"{date_of(day)} is no day of the record, which runs from {first} to {last}")
    values = torch.as_tensor(np.asarray(table.values, np.float32))
    room = torch.full((len(values), 1, values.shape[2]), torch.nan)
    padded = torch.cat([room.expand(-1, past, -1), values, room.expand(-1, horizon, -1)], dim=1)
    middle = int(at) + 1 + past
    behind, ahead = padded[:, middle - past : middle], padded[:, None, middle : middle + horizon, 0]
    whole = torch.ones(len(values), dtype=torch.int64)
    return Outlook(torch.arange(len(values)), day * whole, table.every * whole, behind, ahead)


def _of_one(number: int, values: Tensor, table: Table, past: int, horizon: int, known: int) -> Outlook:
    length, columns = values.shape
    unknown = torch.full((1, columns), torch.nan)
    padded = torch.cat([unknown.expand(past - 1, columns), values, unknown.expand(horizon, columns)])
    behind = padded[: length + past - 1].unfold(0, past, 1).transpose(1, 2)  # (length, past, columns): a view, not a copy
    ahead = padded[past:, 0].unfold(0, horizon, 1)  # (length, horizon)
    rows = torch.arange(length)
    first, last = max(known - 1, 0), length - 1
    seen = behind[first:last, :, 0].isfinite().any(dim=1) & ahead[first:last].isfinite().any(dim=1)
    if bool(seen.all()):  # keep the view
        behind, ahead, rows = behind[first:last], ahead[first:last], rows[first:last]
    else:
        rows = rows[first:last][seen]
        behind, ahead = behind[rows], ahead[rows]
    day = torch.as_tensor(np.asarray(table.days))[rows]
    every = torch.full((len(rows),), table.every, dtype=torch.int64)
    return Outlook(torch.full((len(rows),), number), day, every, behind, ahead[:, None])


def split_by_date(rows: Outlook, train_until: int, tune_until: int, origin: str, files: Mapping[str, str]) -> Split[Outlook]:
    """Train on futures that end by the day `train_until`, tune on those after it that end by `tune_until`, hold out the rest.

    No future of one part reaches into another. The pasts of later parts may: they are known at their origins.
    """
    ends = rows.day + rows.every * rows.horizon
    parts = {
        "train": ends <= train_until,
        "validation": (rows.day >= train_until) & (ends <= tune_until),
        "held_out": rows.day >= tune_until,
    }
    empty = [name for name, mask in parts.items() if not bool(mask.any())]
    if empty:
        first, last = (date_of(int(d)) for d in (rows.day.min(), rows.day.max()))
        raise Refused(
            f"no origin is left for {', '.join(empty)}: origins run from {first} to {last}, training ends on {date_of(train_until)}, "
            f"tuning on {date_of(tune_until)}, and {rows.horizon} periods are forecast; move the dates or shorten the horizon"
        )
    chosen = {name: _taken(rows, mask) for name, mask in parts.items()}
    return Split(chosen["train"], chosen["validation"], chosen["held_out"], origin, files)


def _taken(rows: Outlook, mask: Tensor) -> Outlook:
    """The rows of a mask; where they are neighbours, as a view of the same memory."""
    where = torch.nonzero(mask).flatten()
    first, last = int(where[0]), int(where[-1]) + 1
    return rows[first:last] if last - first == len(where) else rows[where]


def as_series(rows: Outlook) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """What the rows hold of each series, put together again: number -> days (T,) on its grid and values (T, C), NaN where unknown."""
    found = {}
    for number in np.unique(rows.series.numpy()).tolist():
        mine = rows[rows.series == number]
        every, order = int(mine.every[0]), mine.day.argsort()
        days, past = mine.past_days().numpy(), mine.past.numpy()
        start, end = int(days.min()), int(mine.day.max()) + every * mine.horizon
        grid = np.arange(start, end + 1, every)
        values = np.full((len(grid), past.shape[2]), np.nan)
        for row in order.tolist() if len(mine) < 2 else _covering(mine, order):
            at = (days[row] - start) // every
            values[at] = np.where(np.isfinite(past[row]), past[row], values[at])
        target = (mine.target_days().numpy() - start) // every
        ahead = mine.future[:, 0].numpy()
        seen = np.isfinite(ahead)
        values[target[seen], 0] = ahead[seen]
        kept = np.flatnonzero(np.isfinite(values).any(axis=1))
        found[number] = (grid[kept[0] : kept[-1] + 1], values[kept[0] : kept[-1] + 1])
    return found


def _covering(rows: Outlook, order: Tensor) -> list[int]:
    """Rows whose pasts cover all of them: the first, then the latest that still overlaps, and so on to the last."""
    days, reach = rows.day[order], int(rows.every[0]) * rows.past.shape[1]
    chosen, at = [0], 0
    while at < len(days) - 1:
        at = max(int(torch.searchsorted(days, days[at] + reach, right=True)) - 1, at + 1)
        chosen.append(at)
    return order[chosen].tolist()


def year_phase(day: Tensor) -> Tensor:
    """Where in the year a day lies, in radians: 0 at the beginning of 1970 and of every mean Gregorian year since."""
    return 2 * torch.pi * (day.double() / YEAR % 1)


def stratified(normal: Tensor) -> Tensor:
    """Levels (n, M, H) of M members that fill (0, 1) evenly at each period and rank as `normal` (n, M, H) does.

    Members get the levels (rank + 1/2) / M, so their marginal law is met without sampling error, while the order within each
    period, and with it the dependence between periods, is that of the random paths (Schefzik, Thorarinsdottir & Gneiting 2013,
    doi:10.1214/13-STS443).
    """
    ranks = normal.argsort(dim=1).argsort(dim=1)
    return (ranks + 0.5) / normal.shape[1]


def date_of(day: int) -> str:
    """Days since 1970-01-01 as an ISO date."""
    return str(np.datetime64(int(day), "D"))


def day_of(date: str) -> int:
    """An ISO date as days since 1970-01-01. Refused where it is none."""
    try:
        return int(np.datetime64(date, "D").astype(int))
    except ValueError as error:
        raise Refused(f"{date!r} is not a date: write year-month-day, e.g. 2007-12-31") from error


def write(rows: Outlook, path: Path) -> None:
    """The rows as an .npz file."""
    np.savez_compressed(path, **{name: value.numpy() for name, value in rows.fields().items()})  # type: ignore[arg-type]


def read(path: Path) -> Outlook:
    """Rows from an .npz file with the arrays series, day, every, past, future. Refused where one is missing or of another shape."""
    names = [f.name for f in dataclasses.fields(Outlook)]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise Refused(f"{path}: forecasts need the arrays {', '.join(names)}; {', '.join(missing)} missing")
            arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in names}
    except (ValueError, OSError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{path} is not an .npz file of forecasts ({error}); write one with numpy.savez") from error
    whole = {name: arrays[name].long() for name in ("series", "day", "every")}
    return Outlook(**whole, past=arrays["past"].float(), future=arrays["future"].float())
