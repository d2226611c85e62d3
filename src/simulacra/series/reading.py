"""Daily and weekly series from files as people have them: CSV, TSV, Parquet, plain or gzipped, or the rows of a query.

    table = read("my.csv", column="tmax")          # one series
    table = read("us-states.csv", column="cases", series_column="state", cumulative=True)   # one per state, differenced

Whatever is found on the way is told in `Table.remarks`, one sentence each; what would make a forecast wrong without anybody noticing
is refused: cumulative counts taken for daily ones, two series interleaved, a constant, a few points. Nothing is filled in: a day
without a value is NaN on a grid without gaps.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simulacra.series import dates
from simulacra.study import Refused

Array = NDArray[np.float64]
Days = NDArray[np.int64]

FEWEST = 14  # values that a series must hold: two weeks of days
MISSING_REFUSED = 0.6  # share of missing periods above which a series is refused
MISSING_WARNED = 0.2
BAD_ROWS = 0.05  # share of unreadable rows or cells that are set aside; more, and the file is refused
SENTINELS = (9999.9, -9999.0, 999.9, 99.99)  # how NOAA writes "missing" (GSOD readme of 2020-10-28; GHCN-Daily readme)

_DATE_NAMES = ("date", "day", "datetime", "time", "timestamp", "ds", "week", "week_end", "week_ending", "dt", "epoch")
_NOT_MEASURED = re.compile(
    r"(unnamed.*|index|id|.*_id|fips|.*_fips(_code)?|zip|lat|latitude|lon|long|longitude|elev|elevation|station|stn|wban|usaf"
    r"|year|yr|month|mo|day|da|day_of_year|doy|week|.*_attributes|flag_.*|)",
    re.IGNORECASE,
)
_NOTHING = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", ".", "m", "missing", "<na>"}
_FLAGGED = re.compile(r"([+-]?\d+(?:\.\d*)?)\*")  # GSOD marks a maximum that was taken from hourly values
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_UNITS = {
    "°F": ("f", "degf", "deg f", "°f", "fahrenheit"),
    "°C": ("c", "degc", "deg c", "°c", "celsius"),
    "K": ("k", "kelvin"),
    "mm": ("mm",),
    "in": ("in", "inch", "inches"),
    "m/s": ("m/s", "ms", "mps"),
}
_UNIT_AT_END = re.compile(r"(?:[_ ]|[ _]*[(\[])((?:deg[ _]?)?[a-zA-Z°/]+)[)\]]?$")
_TEMPERATURE = re.compile(r"(.*[_ ])?(t|temp|temperature|tmax|tmin|tavg|tmean|high|low|max|min|dewp|dewpoint)([_ (].*)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Columns of equal length as they came from a file or a query, before anything is made of them."""

    columns: Mapping[str, Sequence[Any]]  # name -> values: text, numbers, dates or None
    origin: str  # where from, for people: a file name, a query
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # path or query -> sha256
    lines: Sequence[int] = ()  # line of the file per row; empty: rows are counted from 1
    remarks: Sequence[str] = ()

    def where(self, row: int) -> str:
        """Row in words: "line 17" of a file, "row 16" of a query."""
        return f"line {self.lines[row]}" if self.lines else f"row {row + 1}"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


@dataclasses.dataclass(frozen=True)
class Table:
    """Series on one gap-free grid of days or weeks, with what a reader must know about how they were read."""

    names: Sequence[str]  # S series
    days: Days  # (T,) days since 1970-01-01, `every` apart
    values: Array  # (S, T, C); NaN: missing
    columns: Sequence[str]  # C; the first is the one to forecast
    unit: str  # of the first column; empty where nobody says
    remarks: Sequence[str]  # what was found and done, one sentence each; what may be wrong begins with "Warning:"
    files: Mapping[str, str]  # path or query -> sha256

    @property
    def every(self) -> int:
        """Days from one period to the next: 1 or 7."""
        return int(self.days[1] - self.days[0])

    def series(self, name: str) -> Array:
        """The column to forecast of the series called `name`, (T,). Refused with the known names."""
        if name not in self.names:
            raise Refused(f"no series is called {name!r}; known: {_listed(self.names)}")
        return self.values[list(self.names).index(name), :, 0]


def read(
    path: Path | str, *, column: str | None = None, inputs: Sequence[str] = (), date_column: str | None = None,
    series_column: str | None = None, unit: str | None = None, every: Literal["day", "week"] | None = None,
    cumulative: bool | None = None,
) -> Table:  # fmt: skip
    """Series from a CSV, TSV or Parquet file; `to_table` says what the options mean and what is refused."""
    return to_table(
        rows_of(Path(path)), column=column, inputs=inputs, date_column=date_column, series_column=series_column,
        unit=unit, every=every, cumulative=cumulative,
    )  # fmt: skip


def to_table(
    rows: Rows, *, column: str | None = None, inputs: Sequence[str] = (), date_column: str | None = None,
    series_column: str | None = None, unit: str | None = None, every: Literal["day", "week"] | None = None,
    cumulative: bool | None = None,
) -> Table:  # fmt: skip
    """Series from the rows of a file or a query.

    column         what to forecast; without it, the only numeric column
    inputs         further columns that a forecaster may look at
    date_column    without it, the one that is called so, or the only one that holds dates
    series_column  what tells several series apart: a station, a state
    unit           of `column`; without it, taken from the column's name (tmax_f, "TMAX (F)") where it says one
    every          without it, weeks where all dates are whole weeks apart, else days
    cumulative     True: running totals, to be differenced. False: not so, whatever it looks like. None: refused if it looks so

    Raises Refused, in words that say what to do, where no date column is found, day and month cannot be told apart, the column is not
    clear, several values fall on one day, dates are neither daily nor weekly, values are infinite, constant, fewer than 14, more than
    60 % missing, or look cumulative. One series among many that cannot be used is set aside with a remark.
    """
    remarks = list(rows.remarks)
    cells = {name: [_text(value) for value in values] for name, values in rows.columns.items()}
    if not len(rows):
        raise Refused(f"{rows.origin} holds no rows of data")
    cells = _with_joined_date(cells)
    date_column = _date_column(rows, cells, date_column)
    if series_column == date_column:
        raise Refused(f"{rows.origin}: {date_column!r} holds the dates, so it cannot tell series apart; name that of stations or states")
    stamps = dates.stamps(cells[date_column], f"{rows.origin}: {date_column}", rows.where)
    remarks += stamps.remarks
    wanted = _wanted(rows, cells, column, inputs, (date_column, series_column))
    values = np.stack([_numbers(rows, name, cells[name], remarks) for name in wanted], axis=1)
    names, code = _series(rows, cells, series_column)
    keep = _dated(rows, date_column, cells[date_column], stamps.days, remarks)
    days, clock, values, code, kept = stamps.days[keep], stamps.clock[keep], values[keep], code[keep], np.flatnonzero(keep)
    order = np.lexsort((days, code))
    _tell_disorder(days, code, remarks)
    days, clock, values, code, kept = days[order], clock[order], values[order], code[order], kept[order]
    days, values, code = _one_per_day(rows, cells, (date_column, series_column, *wanted), days, clock, values, code, kept, remarks)
    step = _step(days, code, every, rows.origin, remarks)
    grid, table = _on_grid(days, values, code, len(names), step, rows.origin)
    grid, table = _daily_counts(grid, table, wanted, cumulative, rows.origin, remarks)
    names, table = _usable(names, table, wanted[0], step, rows.origin, remarks)
    grid, table = _trimmed(grid, table)
    _tell_missing(names, grid, table, step, remarks)
    unit = _unit(wanted[0], unit, table[:, :, 0], remarks)
    return Table(names, grid, table, wanted, unit, remarks, dict(rows.files))


def looks_cumulative(values: Array) -> bool:
    """Whether counts (T,), NaN where missing, look like running totals: whole numbers, none negative, that rise and hardly ever fall.

    Of the changes at most one in twenty may be a fall (a correction), and at least five must be rises. Daily counts fall about as often
    as they rise, so they do not pass; the exception is the first days of an outbreak.
    """
    seen = values[np.isfinite(values)]
    if len(seen) < FEWEST or seen.min() < 0 or np.any(seen != np.round(seen)):
        return False
    change = np.diff(seen)
    rises, falls = int(np.sum(change > 0)), int(np.sum(change < 0))
    return rises >= 5 and falls <= 0.05 * (rises + falls)


# Files


def rows_of(path: Path, *, titles: Sequence[str] = ()) -> Rows:
    """The rows of a CSV, TSV or Parquet file, gzipped or not; `titles` names the columns of a text file that has no header.

    Refused where there is no such file, or no header.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    data = path.read_bytes()
    files = {str(path): hashlib.sha256(data).hexdigest()}
    if path.suffix in (".parquet", ".pq"):
        return Rows(_parquet(path), path.name, files)
    if path.suffix in (".xls", ".xlsx"):
        raise Refused(f"{path.name} is a spreadsheet; save it as CSV")
    remarks: list[str] = []
    text = _decoded(_unpacked(data, path.name), path.name, remarks)
    columns, lines = _separated(text, path.name, titles, remarks)
    return Rows(columns, path.name, files, lines, remarks)


def _unpacked(data: bytes, name: str) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise Refused(f"{name}: broken gzip file ({error}); download it again") from error


def _decoded(data: bytes, name: str, remarks: list[str]) -> str:
    if b"\0" in data[:4096]:
        raise Refused(f"{name} is not text; CSV, TSV and Parquet are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        remarks.append(f"{name} is not UTF-8: read as Windows-1252.")
        return data.decode("cp1252", errors="replace")


def _separated(text: str, name: str, titles: Sequence[str], remarks: list[str]) -> tuple[dict[str, list[str]], list[int]]:
    """Columns and the line of each row. The separator is the one of , ; tab | that the header holds most often."""
    head = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    separator = max(",;\t|", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row) and not row[0].startswith("#"):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise Refused(f"{name}, line {reader.line_num}: {error}") from error
    if not rows:
        raise Refused(f"{name} is empty")
    header = list(titles) or rows.pop(0)[1]
    _check_header(header, name)
    torn = [number for number, row in rows if len(row) != len(header)]
    if len(torn) > BAD_ROWS * len(rows):
        raise Refused(f"{name}: {len(torn)} of {len(rows)} rows do not have the {len(header)} cells of the header, first line {torn[0]}")
    if torn:
        remarks.append(f"{len(torn)} rows that do not have {len(header)} cells were set aside, first line {torn[0]}.")
    rows = [(number, row) for number, row in rows if len(row) == len(header)]
    columns = {title: [row[at] for _, row in rows] for at, title in enumerate(header) if title}
    if separator == ";":
        columns = {title: _with_points(title, column, remarks) for title, column in columns.items()}
    return columns, [number for number, _ in rows]


def _check_header(header: Sequence[str], name: str) -> None:
    if any(dates.style(cell) for cell in header):
        raise Refused(f"{name}: the first line is data ({', '.join(header[:4])}), not names of columns; add a header such as date,tmax")
    twice = {title for title in header if title and header.count(title) > 1}
    if twice:
        raise Refused(f"{name}: two columns are called {min(twice)!r}; give each a name of its own")


def _with_points(title: str, column: list[str], remarks: list[str]) -> list[str]:
    """Numbers with a decimal comma, as files separated by semicolons write them."""
    filled = [cell for cell in column if cell.lower() not in _NOTHING]
    if not any(_DECIMAL_COMMA.fullmatch(cell) for cell in filled):
        return column
    if not all(_DECIMAL_COMMA.fullmatch(cell) or _number(cell) is not None for cell in filled):
        return column
    remarks.append(f"Column {title!r} was read with a decimal comma.")
    return [cell.replace(",", ".") for cell in column]


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import duckdb
    except ImportError as error:
        raise Refused(f'reading {path.name} needs an extra: pip install "simulacra[series]"') from error
    with duckdb.connect(":memory:") as connection:
        try:
            found = connection.execute("SELECT * FROM read_parquet($path)", {"path": str(path)})
            names = [item[0] for item in found.description or ()]
            rows = found.fetchall()
        except duckdb.Error as error:
            raise Refused(f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


# Columns


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def _with_joined_date(cells: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same with a column `date`, where a file keeps year, month and day in three columns and has no other date."""
    called = {name.lower(): name for name in cells}
    year, month, day = (next((called[n] for n in names if n in called), None) for names in (("year", "yr"), ("month", "mo"), ("day", "da")))
    if not (year and month and day) or any(n in called for n in _DATE_NAMES if n != "day"):
        return cells
    parts = zip(cells[year], cells[month], cells[day], strict=True)
    joined = ["-".join(three) if all(part.isdecimal() for part in three) else "" for three in parts]
    return {"date": joined, **{name: column for name, column in cells.items() if name not in (year, month, day)}}


def _date_column(rows: Rows, cells: Mapping[str, list[str]], asked: str | None) -> str:
    if asked is not None:
        _known(rows, cells, asked)
        if dates.share(cells[asked], epochs=True) < 1 - BAD_ROWS:
            row = next((i for i, cell in enumerate(cells[asked]) if cell and not dates.style(cell, epochs=True)), 0)
            raise Refused(f"{rows.origin}: column {asked!r} holds no dates ({rows.where(row)}: {cells[asked][row]!r}); write 2020-04-03")
        return asked
    holding = [n for n, column in cells.items() if dates.share(column, epochs=n.lower() in _DATE_NAMES) >= 1 - BAD_ROWS]
    called = sorted((n for n in holding if n.lower() in _DATE_NAMES), key=lambda n: _DATE_NAMES.index(n.lower()))
    if called:
        return called[0]
    if len(holding) == 1:
        return holding[0]
    if holding:
        raise Refused(f"{rows.origin}: {_listed(holding)} all hold dates; say which one counts: date_column={holding[0]!r}")
    raise Refused(
        f"{rows.origin} has no date column: none of {_listed(list(cells))} holds dates; a series needs one, written as 2020-04-03, "
        "for what is missing or out of order cannot be seen without it"
    )


def _known(rows: Rows, cells: Mapping[str, Any], name: str) -> None:
    if name not in cells:
        raise Refused(f"{rows.origin} has no column {name!r}; it has {_listed(list(cells))}")


def _wanted(
    rows: Rows, cells: Mapping[str, list[str]], column: str | None, inputs: Sequence[str], taken: Sequence[str | None]
) -> list[str]:
    """The column to forecast and the inputs, in this order."""
    for name in (*inputs, *([] if column is None else [column])):
        _known(rows, cells, name)
    if column is None:
        left = [n for n in cells if n not in taken and n not in inputs and not _NOT_MEASURED.fullmatch(n)]
        numeric = [n for n in left if _share_of_numbers(cells[n]) >= 1 - BAD_ROWS]
        if not numeric:
            raise Refused(f"{rows.origin} has no column of numbers to forecast; it has {_listed(list(cells))}")
        if len(numeric) > 1:
            raise Refused(f"{rows.origin}: say which column to forecast: column={numeric[0]!r}; numbers are in {_listed(numeric)}")
        column = numeric[0]
    if column in inputs:
        raise Refused(f"{column!r} is what is to be forecast; its past is known to a forecaster without naming it among the inputs")
    return [column, *inputs]


def _share_of_numbers(column: Sequence[str]) -> float:
    filled = [cell for cell in column if cell.lower() not in _NOTHING]
    known = {cell: cell.lower() not in ("true", "false") and _number(cell) is not None for cell in set(filled)}
    return sum(known[cell] for cell in filled) / len(filled) if filled else 0.0


def _number(cell: str) -> float | None:
    """The number that a cell holds: with a GSOD flag, thousands, or as a truth value; None where it holds none."""
    if _FLAGGED.fullmatch(cell):
        cell = cell[:-1]
    elif _THOUSANDS.fullmatch(cell):
        cell = cell.replace(",", "")
    elif cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _numbers(rows: Rows, name: str, column: Sequence[str], remarks: list[str]) -> Array:
    """A column as numbers (n,), NaN where missing; sentinels and single unreadable cells become missing with a remark."""
    known: dict[str, float] = {}
    bad: dict[str, None] = {}
    for cell in dict.fromkeys(column):
        number = np.nan if cell.lower() in _NOTHING else _number(cell)
        if number is not None and np.isinf(number):
            where = rows.where(list(column).index(cell))
            raise Refused(f"{rows.origin}, {where}: {name} is infinite; put the value right or leave it empty")
        if number is None:
            bad[cell] = None
        known[cell] = np.nan if number is None else number
    values = np.array([known[cell] for cell in column], float)
    if bad:
        wrong = [row for row, cell in enumerate(column) if cell in bad]
        said = f"{column[wrong[0]]!r} in {rows.where(wrong[0])}"
        if len(wrong) > BAD_ROWS * len(column):
            raise Refused(f"{rows.origin}: column {name!r} holds no numbers: {len(wrong)} of {len(column)} cells, first {said}")
        remarks.append(f"{len(wrong)} cells of {name!r} hold no number and count as missing, first {said}.")
    for said, pattern in (("a flag (*) was", _FLAGGED), ("separators of thousands were", _THOUSANDS)):
        marked = sum(pattern.fullmatch(cell) is not None for cell in column)
        if marked:
            remarks.append(f"In {marked} cells of {name!r} {said} taken away.")
    return _without_sentinels(name, values, remarks)


def _without_sentinels(name: str, values: Array, remarks: list[str]) -> Array:
    """Numbers that stand for "missing" become NaN: those of SENTINELS that are over twice as large as all else in the column."""
    values = values.copy()
    for sentinel in SENTINELS:
        here = values == sentinel
        rest = np.abs(values[~here & np.isfinite(values)])
        if here.any() and (not len(rest) or abs(sentinel) > 2 * rest.max()):
            values[here] = np.nan
            remarks.append(f"{int(here.sum())} values {sentinel:g} of {name!r} stand for missing ones and were taken out.")
    return values


def _series(rows: Rows, cells: Mapping[str, list[str]], column: str | None) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the series, and which one each row belongs to."""
    if column is None:
        return [rows.origin.split(".")[0]], np.zeros(len(rows), np.int64)
    _known(rows, cells, column)
    if "" in cells[column]:
        row = cells[column].index("")
        raise Refused(f"{rows.origin}, {rows.where(row)}: {column!r} is empty; it must name the series of every row")
    names, code = np.unique(np.array(cells[column]), return_inverse=True)
    return names.tolist(), code.astype(np.int64)


# Time


def _dated(rows: Rows, name: str, column: Sequence[str], days: Days, remarks: list[str]) -> NDArray[np.bool_]:
    """Which rows hold a date; a few that do not are set aside."""
    keep: NDArray[np.bool_] = days != dates.NO_DAY
    wrong = np.flatnonzero(~keep)
    if len(wrong):
        said = f"{column[wrong[0]]!r} in {rows.where(int(wrong[0]))}"
        if len(wrong) > BAD_ROWS * len(keep):
            raise Refused(f"{rows.origin}: {len(wrong)} of {len(keep)} rows have no date in {name!r}, first {said}")
        remarks.append(f"{len(wrong)} rows without a date in {name!r} were set aside, first {said}.")
    return keep


def _tell_disorder(days: Days, code: NDArray[np.int64], remarks: list[str]) -> None:
    back = sum(int(np.sum(np.diff(days[code == one]) < 0)) for one in np.unique(code))
    if back:
        remarks.append(f"Rows were out of order ({back} times a date earlier than the one before): sorted by date.")


def _one_per_day(
    rows: Rows, cells: Mapping[str, list[str]], taken: Sequence[str | None], days: Days, clock: Array, values: Array,
    code: NDArray[np.int64], kept: NDArray[np.int64], remarks: list[str],
) -> tuple[Days, Array, NDArray[np.int64]]:  # fmt: skip
    """One row per series and day: rows that say the same are merged; what says different things is refused."""
    starts = np.flatnonzero(np.r_[True, (np.diff(days) != 0) | (np.diff(code) != 0)])
    if len(starts) == len(days):
        return days, values, code
    group = np.cumsum(np.isin(np.arange(len(days)), starts)) - 1
    first = np.fmin.reduceat(values, starts, axis=0)
    last = np.fmax.reduceat(values, starts, axis=0)
    unequal = np.flatnonzero(((first != last) & np.isfinite(first)).any(axis=1))
    several = np.bincount(group)
    if len(unequal):
        at = int(starts[unequal[0]])
        pair = (rows.where(int(kept[at])), rows.where(int(kept[at + 1])))
        if np.isfinite(clock[at : at + 2]).all() and clock[at] != clock[at + 1]:
            raise Refused(
                f"{rows.origin} holds up to {several.max()} measurements a day (first on {dates.iso(days[at])}: {pair[0]} and {pair[1]}); "
                "daily values are needed: take the mean, the maximum or the sum of each day first, whichever your question asks for"
            )
        raise Refused(_interleaved(rows, cells, taken, days, code, kept, several, at, pair))
    remarks.append(f"{len(days) - len(starts)} rows repeat what another row of the same day says and were merged.")
    return days[starts], first, code[starts]


def _interleaved(
    rows: Rows, cells: Mapping[str, list[str]], taken: Sequence[str | None], days: Days, code: NDArray[np.int64],
    kept: NDArray[np.int64], several: NDArray[np.int64], at: int, pair: tuple[str, str],
) -> str:  # fmt: skip
    """What to say where a day has several values: the column that would tell the series apart, if there is one."""
    said = f"{rows.origin}: {dates.iso(days[at])} has different values in {pair[0]} and {pair[1]}"
    telling = []
    for name, column in cells.items():
        marks = [column[row] for row in kept]
        once = len({*zip(code.tolist(), days.tolist(), marks, strict=True)}) == len(days)
        if name not in taken and once and len(set(marks)) <= len(days) / FEWEST:
            telling.append((_share_of_numbers(column) > 0.5, len(set(marks)), name))  # a name tells more than a number
    if telling:
        _, count, name = min(telling)
        flags = f"--series-column {name}, or --station {name} of weather systems"
        return f"{said}: {count} series in one file, told apart by {name!r}; say so: series_column={name!r} ({flags})"
    if np.mean(several == several.max()) > 0.9:
        return f"{said}, and so it is on most days: {several.max()} series interleaved; add a column that names the series of each row"
    return f"{said}; days with more than one value: {int(np.sum(several > 1))}; keep one row per day"


def _step(days: Days, code: NDArray[np.int64], every: str | None, origin: str, remarks: list[str]) -> int:
    """Days from period to period, 1 or 7."""
    gaps = np.diff(days)[np.diff(code) == 0]
    if not len(gaps):
        raise Refused(f"{origin} holds 1 date; at least {FEWEST} values are needed")
    usual = float(np.median(gaps))
    if usual > 7:
        raise Refused(f"{origin}: dates are {usual:g} days apart; daily or weekly series can be forecast")
    weekday = (days - days[0]) % 7
    if every == "week" or (every is None and usual == 7):
        off = np.flatnonzero(weekday)
        if len(off):
            raise Refused(
                f"{origin}: weeks are expected, all on one day of the week, yet {dates.iso(days[off[0]])} is not whole weeks after "
                f"{dates.iso(days[0])}; put the date right, or sum to weeks first"
            )
        remarks.append(f"One value a week, dated on {_weekday(int(days[0]))}.")
        return 7
    return 1


def _weekday(day: int) -> str:
    return ("Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday")[day % 7] + "s"  # 1970-01-01 was a Thursday


def _on_grid(days: Days, values: Array, code: NDArray[np.int64], count: int, step: int, origin: str) -> tuple[Days, Array]:
    grid = np.arange(days.min(), days.max() + 1, step, dtype=np.int64)
    if count * len(grid) > 100_000_000:
        raise Refused(f"{origin}: {count} series from {dates.iso(grid[0])} to {dates.iso(grid[-1])} are too many days; is a date wrong?")
    table = np.full((count, len(grid), values.shape[1]), np.nan)
    table[code, (days - grid[0]) // step] = values
    return grid, table


# What is in the values


def _daily_counts(
    grid: Days, table: Array, columns: Sequence[str], cumulative: bool | None, origin: str, remarks: list[str]
) -> tuple[Days, Array]:
    """Increments of running totals where asked for; Refused where totals came and nobody said so."""
    if cumulative is False:
        return grid, table
    totals = [c for c in range(len(columns)) if _mostly_cumulative(table[:, :, c])]
    if cumulative is None:
        if 0 in totals:
            raise Refused(
                f"{origin}: {columns[0]!r} hardly ever falls, so it looks like running totals, not values of each day; pass "
                "cumulative=True (--cumulative; of a recipe: --cumulative true) to difference them, or cumulative=False (--no-cumulative; "
                "--cumulative false) if they are values of each day"
            )
        return grid, table
    table = table.copy()
    for c in sorted({0, *totals}):
        table[:, 1:, c] = np.diff(table[:, :, c], axis=1)
        table[:, 0, c] = np.nan
        falls = np.argwhere(table[:, :, c] < 0)
        remarks.append(f"{columns[c]!r} was differenced: a value is the increment from the period before, where both are known.")
        if len(falls):
            first = dates.iso(grid[falls[:, 1].min()])
            remarks.append(f"{len(falls)} increments of {columns[c]!r} are negative (corrections), first on {first}: left as they are.")
    return grid, table


def _mostly_cumulative(values: Array) -> bool:
    """Whether most of the series (S, T) that could tell look cumulative."""
    telling = [row for row in values if np.sum(np.isfinite(row)) >= FEWEST and np.nanmax(row) > np.nanmin(row)]
    return bool(telling) and sum(looks_cumulative(row) for row in telling) > len(telling) / 2


def _usable(
    names: Sequence[str], table: Array, column: str, step: int, origin: str, remarks: list[str]
) -> tuple[list[str], Array]:
    """The series that can be forecast. The only one that cannot is refused; one among many is set aside."""
    reasons = [_why_not(row, step) for row in table[:, :, 0]]
    if len(names) == 1 and reasons[0]:
        raise Refused(f"{origin}: {column!r} {reasons[0]}")
    if all(reasons):
        raise Refused(f"{origin}: none of {len(names)} series can be used: {column!r} of {names[0]} {reasons[0]}")
    remarks += [f"{name} was set aside: {column!r} {reason}." for name, reason in zip(names, reasons, strict=True) if reason]
    keep = [i for i, reason in enumerate(reasons) if not reason]
    return [names[i] for i in keep], table[keep]


def _why_not(values: Array, step: int) -> str:
    """Why a series (T,) cannot be forecast; empty where it can."""
    period = "days" if step == 1 else "weeks"
    seen = np.flatnonzero(np.isfinite(values))
    if len(seen) < FEWEST:
        return f"holds {len(seen)} values; at least {FEWEST} {period} are needed"
    if np.ptp(values[seen]) == 0:
        return f"is {values[seen[0]]:g} on all {len(seen)} {period}: a constant needs no forecast; is it the right column?"
    missing = 1 - len(seen) / (seen[-1] - seen[0] + 1)
    return f"is missing on {missing:.0%} of its {period}; up to {MISSING_REFUSED:.0%} can be used" if missing > MISSING_REFUSED else ""


def _trimmed(grid: Days, table: Array) -> tuple[Days, Array]:
    """Without periods at either end on which no series has a value to forecast."""
    seen = np.flatnonzero(np.isfinite(table[:, :, 0]).any(axis=0))
    inside = slice(int(seen[0]), int(seen[-1]) + 1)
    return grid[inside], table[:, inside]


def _tell_missing(names: Sequence[str], grid: Days, table: Array, step: int, remarks: list[str]) -> None:
    """How much is missing of the column to forecast, from each series' first value to its last."""
    total, gone, worst = 0, 0, (0.0, "", 0, 0)
    for name, values in zip(names, table[:, :, 0], strict=True):
        seen = np.flatnonzero(np.isfinite(values))
        length = int(seen[-1] - seen[0]) + 1
        total, gone = total + length, gone + length - len(seen)
        wide = int(np.argmax(np.diff(seen)))
        worst = max(worst, (1 - len(seen) / length, name, int(np.diff(seen)[wide]) - 1, int(grid[seen[wide]]) + step))
    if not gone:
        return
    share, name, gap, start = worst
    period = ("day", "week")[step == 7]
    who = "" if len(names) == 1 else f"; most in {name} ({share:.1%})"
    warn = "Warning: " if share > MISSING_WARNED else ""
    remarks.append(
        f"{warn}{gone} of {total} {period}s have no value ({gone / total:.1%}){who}; the longest gap is {gap} {period}{'s' * (gap > 1)} "
        f"from {dates.iso(start)}."
    )


def _unit(column: str, said: str | None, values: Array, remarks: list[str]) -> str:
    """The unit of the column to forecast, with a warning where the values contradict it."""
    found = _UNIT_AT_END.search(column)
    named = _named_unit(found[1]) if found and (len(found[1]) > 1 or _TEMPERATURE.fullmatch(column)) else None
    unit = (_named_unit(said) or said) if said else (named or "")
    if said and named and unit != named:
        remarks.append(f"Warning: {column!r} is called {named} by its name, {unit} by you; {unit} is taken.")
    if unit in ("°F", "°C", "K"):
        doubt = contradiction(unit, values)
        remarks += [f"Warning: {column!r} {doubt}."] if doubt else []
    elif not unit and _TEMPERATURE.fullmatch(column):
        remarks.append(f"Nobody says the unit of {column!r}; pass unit (--unit).")
    return unit


def _named_unit(text: str) -> str | None:
    return next((unit for unit, spellings in _UNITS.items() if text.lower().replace("_", " ") in spellings), None)


def contradiction(unit: str, values: Array) -> str:
    """What speaks against daily air temperatures being in °F, °C or K; empty where nothing does.

    Judged by the 1st and 99th percentile, so that single errors do not decide. The highest air temperature ever measured is 56.7 °C
    (134 °F) and the lowest -89.2 °C (World Meteorological Organization, archive of weather extremes); where the warmest days of a series
    stay below 50 °F (10 °C), the place has no summer.
    """
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, [1, 99])
    ranges = f"is labelled {unit}, yet ranges from {low:.1f} to {high:.1f} (1st to 99th percentile)"
    if unit != "K" and low > 180:
        return f"{ranges}: that looks like kelvin"
    if unit == "°C" and high > 57:
        return f"{ranges}: warmer than any place on Earth; it looks like °F"
    if unit == "°F" and high < 50:
        return f"{ranges}: a place without summer, or °C"
    if unit == "K" and low < 180:
        return f"{ranges}: colder than any place on Earth; it looks like °C or °F"
    return ""


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
