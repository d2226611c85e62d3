"""Days from dates as people write them: ISO, yyyymmdd, day or month first, month names, seconds since 1970, with times and zones.

A date is the local date as written: a time zone beside it moves nothing. Whether 03/04/2020 is in April or in March is decided by
the whole column, never by one cell; where the column leaves it open, it is refused.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from simulacra.study import Refused

NO_DAY = np.iinfo(np.int64).min  # where a cell is empty or no date

_CLOCK = r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?\s*(?P<half>[AaPp][Mm])?)?"
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
_STYLES = {
    "year-month-day": re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _CLOCK + _ZONE),
    "yyyymmdd": re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"),
    "numbers": re.compile(r"(?P<first>\d{1,2})(?P<mark>[/.-])(?P<second_part>\d{1,2})(?P=mark)(?P<year>\d{4}|\d{2})" + _CLOCK + _ZONE),
    "day month year": re.compile(r"(?P<day>\d{1,2})[ -](?P<word>[A-Za-z]{3,9})\.?[ -](?P<year>\d{4})" + _CLOCK + _ZONE),
    "month day, year": re.compile(r"(?P<word>[A-Za-z]{3,9})\.? (?P<day>\d{1,2}),? (?P<year>\d{4})" + _CLOCK + _ZONE),
}
_EPOCH = re.compile(r"(?P<seconds>\d{9,10}(?:\.\d+)?)|(?P<milliseconds>\d{12,13})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UNIX = datetime.date(1970, 1, 1).toordinal()


@dataclasses.dataclass(frozen=True)
class Stamps:
    """When the rows of a column were, and what a reader must know about how that was read."""

    days: NDArray[np.int64]  # (n,) days since 1970-01-01; NO_DAY where the cell holds no date
    clock: NDArray[np.float64]  # (n,) seconds after midnight; NaN where only a date is written
    remarks: Sequence[str]


def iso(day: int) -> str:
    """The ISO date of a day counted from 1970-01-01: iso(0) is "1970-01-01"."""
    return datetime.date.fromordinal(int(day) + _UNIX).isoformat()


def day_of(date: datetime.date) -> int:
    """Days from 1970-01-01 to a date."""
    return date.toordinal() - _UNIX


def style(cell: str, *, epochs: bool = False) -> str | None:
    """How a cell writes a date, or None where it holds none. Numbers of seconds count only where `epochs` says so."""
    for name, pattern in _STYLES.items():
        match = pattern.fullmatch(cell)
        if match and _possible(name, match):
            return name
    return "seconds since 1970" if epochs and _EPOCH.fullmatch(cell) else None


def share(cells: Sequence[str], *, epochs: bool = False) -> float:
    """The part of the cells that are not empty which hold a date, in [0, 1]."""
    filled = [cell for cell in cells if cell]
    known = {cell: style(cell, epochs=epochs) is not None for cell in set(filled)}
    return sum(known[cell] for cell in filled) / len(filled) if filled else 0.0


def stamps(cells: Sequence[str], column: str, where: Callable[[int], str]) -> Stamps:
    """Days and times of a date column. `where(row)` names a row for people.

    Raises Refused where dates are written in more than one way, or where day and month cannot be told apart.
    """
    first_row: dict[str, int] = {}
    for row, cell in enumerate(cells):
        first_row.setdefault(cell, row)
    styles = {cell: found for cell in first_row if (found := style(cell, epochs=True))}
    kinds: dict[str, str] = {}
    for cell, kind in styles.items():
        kinds.setdefault(kind, cell)
    if len(kinds) > 1:
        said = " and ".join(f"{cell!r} ({where(first_row[cell])})" for cell in list(kinds.values())[:2])
        raise Refused(f"column {column!r} writes dates in more than one way: {said}; write all as 2020-04-03")
    remarks: list[str] = []
    day_first = _day_first([c for c in styles if styles[c] == "numbers"], column, lambda c: where(first_row[c]), remarks)
    read = {cell: _read(cell, kind, day_first) for cell, kind in styles.items()}
    zones = sorted({zone for _, _, zone in read.values() if zone})
    if zones:
        listed = ", ".join(zones[:4])
        remarks.append(f"Times carry a zone ({listed}): the local date as written was taken, nothing was moved.")
    if "seconds since 1970" in kinds:
        remarks.append(f"Column {column!r} counts seconds since 1970: read as UTC dates.")
    nothing = (NO_DAY, np.nan, "")
    days = np.array([read.get(cell, nothing)[0] for cell in cells], np.int64)
    clock = np.array([read.get(cell, nothing)[1] for cell in cells], float)
    return Stamps(days, clock, remarks)


def _possible(name: str, match: re.Match[str]) -> bool:
    """Whether what looks like a date is one: 2020-13-45 is not."""
    part = match.groupdict()
    if name == "numbers":
        a, b = int(part["first"]), int(part["second_part"])
        return min(a, b) >= 1 and max(a, b) <= 31 and min(a, b) <= 12
    return _date(int(part["year"]), _month(part), int(part["day"])) is not None


def _month(part: dict[str, str]) -> int:
    if "month" in part:
        return int(part["month"])
    word = part["word"][:3].lower()
    return _MONTHS.index(word) + 1 if word in _MONTHS else 0


def _date(year: int, month: int, day: int) -> datetime.date | None:
    if not 1700 <= year <= 2200:
        return None
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


def _day_first(cells: Sequence[str], column: str, where: Callable[[str], str], remarks: list[str]) -> bool:
    """Whether 03/04/2020 is the 3rd of April: a first number above 12 anywhere says yes, a second one says no."""
    if not cells:
        return False
    parts = {cell: _STYLES["numbers"].fullmatch(cell) for cell in cells}
    above = [next((c for c, m in parts.items() if m and int(m[group]) > 12), None) for group in ("first", "second_part")]
    day_first, month_first = above
    if day_first and month_first:
        raise Refused(
            f"column {column!r} holds {day_first!r} ({where(day_first)}), which has the day first, and {month_first!r} "
            f"({where(month_first)}), which has the month first; write all dates as 2020-04-03"
        )
    pointed = {m["mark"] for m in parts.values() if m} == {"."}
    if not (day_first or month_first or pointed):
        raise Refused(
            f"column {column!r}: no date tells day from month ({cells[0]!r} may be either); write dates as 2020-04-03, year first"
        )
    if any(m and len(m["year"]) == 2 for m in parts.values()):
        remarks.append(f"Years of two digits in {column!r}: 69 to 99 were read as 1969 to 1999, the others as 2000 to 2068.")
    order, seen = ("month", month_first) if month_first else ("day", day_first)
    why = f"seen from {seen!r}" if seen else "as in all dates with points"
    remarks.append(f"In column {column!r} the {order} comes first: {why}.")
    return month_first is None


def _read(cell: str, kind: str, day_first: bool) -> tuple[int, float, str]:
    """Day, seconds after midnight and zone of one cell of a known style."""
    if kind == "seconds since 1970":
        seconds = float(cell) if len(cell.split(".")[0]) < 12 else float(cell) / 1000
        return int(seconds // 86400), seconds % 86400, ""
    match = _STYLES[kind].fullmatch(cell)
    assert match
    part = match.groupdict()
    year = int(part["year"])
    if kind == "numbers":
        day, month = int(part["first"]), int(part["second_part"])
        if not day_first:
            day, month = month, day
        year += 0 if year > 99 else 1900 if year >= 69 else 2000
    else:
        day, month = int(part["day"]), _month(part)
    date = _date(year, month, day)
    return (NO_DAY, np.nan, "") if date is None else (day_of(date), _seconds(part), part.get("zone") or "")


def _seconds(part: dict[str, str]) -> float:
    if not part.get("hour"):
        return np.nan
    hour = int(part["hour"])
    if part.get("half"):
        hour = hour % 12 + (12 if part["half"].lower() == "pm" else 0)
    return 3600.0 * hour + 60.0 * int(part["minute"]) + float(part["second"] or 0)
