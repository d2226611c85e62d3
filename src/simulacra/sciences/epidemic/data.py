"""Reported cases of a disease by state: from running totals to the cases of each week, as origins of forecasts.

A row (`Outlook`) is one state at the end of one week, a Saturday (MMWR weeks run from Sunday to Saturday): the weeks known then, and
those that came after. `series` is the FIPS code of the state, or OWN + the place of a series in a file that has no such codes.

What reporting does to counts is recognised and told in the remarks, never passed over:

    corrections     a running total that falls. Weeks are sums, so a correction is taken from the cases reported in the same week;
                    where it is larger than these, the week says nothing about its cases and counts as missing
    silent weeks    no case at all where the last four weeks reported 20 or more (their median): nothing was reported, so the week is
                    missing, and the next report is divided evenly over the weeks that it covers
    weekly reports  states that report on one day of the week; weeks absorb them

Each rule looks back only, so what a forecaster knows on a Saturday does not change with what is reported later. The table is today's
revision all the same, not what was on record on that day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra.sciences.epidemic import simulate
from simulacra.series import reading, windows
from simulacra.series.reading import Rows, Table
from simulacra.series.windows import Outlook
from simulacra.study import Refused

Array = NDArray[np.float64]

SATURDAY = 2  # days since 1970-01-01, a Thursday, modulo 7
OWN = 1001  # number of the first series of a table without FIPS codes
SILENT = 20.0  # cases a week: with a median this high, a week without any was not reported
NYT_FILE = "nyt_us_states.csv.gz"
UNIT = "cases a week"

STATES: Mapping[int, str] = dict(
    item
    for item in zip(
        (*range(1, 3), *range(4, 7), *range(8, 14), *range(15, 43), *range(44, 52), *range(53, 57), 60, 66, 69, 72, 78),
        (
            "Alabama", "Alaska", "Arizona", "Arkansas", "California", "Colorado", "Connecticut", "Delaware", "District of Columbia",
            "Florida", "Georgia", "Hawaii", "Idaho", "Illinois", "Indiana", "Iowa", "Kansas", "Kentucky", "Louisiana", "Maine",
            "Maryland", "Massachusetts", "Michigan", "Minnesota", "Mississippi", "Missouri", "Montana", "Nebraska", "Nevada",
            "New Hampshire", "New Jersey", "New Mexico", "New York", "North Carolina", "North Dakota", "Ohio", "Oklahoma", "Oregon",
            "Pennsylvania", "Rhode Island", "South Carolina", "South Dakota", "Tennessee", "Texas", "Utah", "Vermont", "Virginia",
            "Washington", "West Virginia", "Wisconsin", "Wyoming", "American Samoa", "Guam", "Northern Mariana Islands",
            "Puerto Rico", "Virgin Islands",
        ),
        strict=True,
    )
)  # fmt: skip  # FIPS 5-2 codes


@dataclasses.dataclass(frozen=True)
class Cases:
    """New cases of S series on one grid of days or weeks, and what reporting did to them."""

    table: Table  # values (S, T, 1): new cases in each period; NaN: not known
    codes: NDArray[np.int64]  # (S,) the number of each series in `Outlook.series`
    rejected: Sequence[str] = ()  # one line per week that counts as missing, with the reason

    @property
    def remarks(self) -> Sequence[str]:
        """What was found and done, one sentence each."""
        return self.table.remarks

    def of(self, name: str) -> Array:
        """New cases (T,) of the series called `name`."""
        return self.table.series(name)


def name_of(code: int) -> str:
    """The state with this FIPS code; a simulated region, or the place of a series in its file, where it is none."""
    if code in STATES:
        return STATES[code]
    return f"simulated region {code - simulate.FIRST + 1}" if simulate.FIRST <= code < OWN else f"series {code - OWN + 1}"


# --- where cases come from ---


def simulated(regions: int, days: int, *, seed: int, states: Sequence[str] = (), until: int | None = None) -> Cases:
    """Daily cases of simulated epidemics, with all that reporting does to them (simulate.py)."""
    truth = simulate.epidemics(regions, days, seed=seed)
    totals = truth.reported
    names = [name_of(simulate.FIRST + i) for i in range(regions)]
    table = Table(names, truth.days, totals[:, :, None], ["cases"], "cases", (), {f"simulated epidemics, seed {seed}": truth.digest()})
    return _increments(*_limited(table, simulate.FIRST + np.arange(regions), states, until))


def read(
    path: Path, *, column: str = "", series_column: str = "", cumulative: bool | None = None, states: Sequence[str] = (),
    until: int | None = None,
) -> Cases:  # fmt: skip
    """New cases from a table with a row per day (or week) and state; a folder is searched for the table of The New York Times.

    That table (date, state, fips, cases, deaths) and BigQuery's copy of it are known: running totals, as they say. Of other tables
    say which `column` holds the counts, which one names the series, and whether the counts are cumulative. Only the `states` named
    are taken (none named: all), and nothing after the day `until`. Refused as `series.reading.to_table` says.
    """
    rows = reading.rows_of(_file(path))
    state, fips, cases = _known_layout(rows)
    if state and column in ("", cases):
        table = reading.to_table(rows, column=cases, series_column=state, cumulative=False)
        return _increments(*_limited(table, _codes(rows, table.names, state, fips), states, until))
    table = reading.to_table(rows, column=column or None, series_column=series_column or None, cumulative=False if cumulative else None)
    table, codes = _limited(table, OWN + np.arange(len(table.names)), states, until)
    return _increments(table, codes) if cumulative else Cases(dataclasses.replace(table, values=table.values[:, :, :1]), codes)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [p for p in (path / NYT_FILE, path / "covid" / NYT_FILE, path / "us-states.csv") if p.is_file()]
    if not found:
        raise Refused(f"{path} holds no {NYT_FILE}; name the file with the cases: --data FILE")
    return found[0]


def _known_layout(rows: Rows) -> tuple[str, str, str]:
    """Columns of state, FIPS code and running total, where the table is one of those that are known."""
    layouts = (("state", "fips", "cases"), ("state_name", "state_fips_code", "confirmed_cases"))
    return next((layout for layout in layouts if set(layout) <= set(rows.columns)), ("", "", ""))


def _codes(rows: Rows, names: Sequence[str], state: str, fips: str) -> NDArray[np.int64]:
    known = {str(s): str(f) for s, f in zip(rows.columns[state], rows.columns[fips], strict=True)}
    wrong = [name for name in names if not known[name].strip().isdigit()]
    if wrong:
        raise Refused(f"{rows.origin}: {wrong[0]} has the FIPS code {known[wrong[0]]!r}; a number such as 53 is expected")
    return np.array([int(known[name]) for name in names], np.int64)


def _limited(table: Table, codes: NDArray[np.int64], states: Sequence[str], until: int | None) -> tuple[Table, NDArray[np.int64]]:
    """The states asked for, up to the day asked for, without those that have nothing by then."""
    unknown = [name for name in states if name not in table.names]
    if unknown:
        raise Refused(f"no cases of {unknown[0]!r}; known: {', '.join(table.names)}")
    count = len(table.days) if until is None else int(np.searchsorted(table.days, until, side="right"))
    if count < reading.FEWEST:
        last = "its end" if until is None else windows.date_of(until)
        raise Refused(f"the table begins on {windows.date_of(int(table.days[0]))} and holds {count} periods up to {last}; move the dates")
    values = table.values[:, :count]
    keep = [i for i, name in enumerate(table.names) if np.isfinite(values[i, :, 0]).any() and (not states or name in states)]
    if not keep:
        raise Refused(f"no cases of {', '.join(states) or 'any series'} are known up to {windows.date_of(int(table.days[count - 1]))}")
    names = [table.names[i] for i in keep]
    return dataclasses.replace(table, names=names, days=table.days[:count], values=values[keep]), codes[keep]


def _increments(totals: Table, codes: NDArray[np.int64]) -> Cases:
    """New cases of each period from running totals. The first one is the first total: all that was known until then."""
    values = np.full(totals.values.shape[:2], np.nan)
    gaps = 0
    for row, total in zip(values, totals.values[:, :, 0], strict=True):
        seen = np.flatnonzero(np.isfinite(total))
        filled = total[seen[0] : seen[-1] + 1].copy()
        gaps += int(np.sum(np.isnan(filled)))
        last = np.maximum.accumulate(np.where(np.isfinite(filled), np.arange(len(filled)), 0))
        row[seen[0] : seen[-1] + 1] = np.diff(filled[last], prepend=0)  # a day without a total adds nothing until the next one
    remarks = [*totals.remarks, *_on_corrections(totals, values)]
    if gaps:
        remarks.append(f"{gaps} periods without a total add no cases; the next total holds what they would have.")
    return Cases(dataclasses.replace(totals, values=values[:, :, None], unit="cases", remarks=remarks), codes)


def _on_corrections(totals: Table, increments: Array) -> list[str]:
    series, at = np.nonzero(increments < 0)
    if not len(series):
        return []
    worst = int(np.argmin(increments[series, at]))
    size, when = increments[series[worst], at[worst]], windows.date_of(int(totals.days[at[worst]]))
    days = f"{len(series)} day{'s' * (len(series) > 1)}"
    return [
        f"Running totals fall on {days} in {len(set(series.tolist()))} of {len(totals.names)} series (corrections), by most in "
        f"{totals.names[series[worst]]} on {when} ({size:,.0f} cases)."
    ]


# --- weeks ---


def weekly(cases: Cases) -> Cases:
    """Cases of each week that ends on a Saturday, after the rules at the head of this file. Weekly tables keep their weekday."""
    table = cases.table
    days, sums, remarks = table.days, table.values[:, :, 0], list(table.remarks)
    if table.every == 1:
        days, sums = _sums(table)
        remarks += _on_weekly_reports(table)
    cleaned, negative, silent = _each(sums)
    remarks += _told(negative, "weeks have corrections larger than the cases reported in them, so they count as missing", table, days)
    remarks += _told(
        silent, f"weeks were not reported (no case where a median of {SILENT:g} or more came before): they count as missing, and the "
        "next report is divided evenly over the weeks that it covers", table, days,
    )  # fmt: skip
    remarks.append("Counts are those of the table as it stands now: what was known on a past Saturday may have been different.")
    rejected = [
        f"{table.names[row]}, week to {windows.date_of(int(days[week]))}: "
        + (f"corrections exceed the cases reported, {sums[row, week]:,.0f} in all" if negative[row, week] else "nothing was reported")
        for row, week in np.argwhere(negative | silent).tolist()
    ]
    return Cases(Table(table.names, days, cleaned[:, :, None], table.columns, UNIT, remarks, table.files), cases.codes, rejected)


def _sums(table: Table) -> tuple[NDArray[np.int64], Array]:
    """Saturdays (W,) and sums (S, W) of the seven days up to each; NaN where a day is not known. A series that begins within a week
    begins with what it has."""
    first, last = int(table.days[0]), int(table.days[-1])
    start, end = first + (SATURDAY - first) % 7, last - (last - SATURDAY) % 7
    if end < start + 7:
        raise Refused(f"{table.names[0]}: the days from {windows.date_of(first)} to {windows.date_of(last)} hold no two whole weeks")
    saturdays = np.arange(start, end + 1, 7)
    week = (table.days - start + 6) // 7
    sums = np.full((len(table.names), len(saturdays)), np.nan)
    for row, values in zip(sums, table.values[:, :, 0], strict=True):
        begin = int(np.flatnonzero(np.isfinite(values))[0])
        inside = (np.arange(len(values)) >= begin) & (week < len(saturdays))
        totals = np.bincount(week[inside], values[inside], minlength=len(saturdays))
        row[week[begin] :] = totals[week[begin] :]
    return saturdays, sums


def _each(sums: Array) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    parts = [as_reported(row) for row in sums]
    cleaned, negative, silent = (np.stack(column) for column in zip(*parts, strict=True))
    return cleaned, negative, silent


def as_reported(sums: Array) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Weekly cases (W,) after the rules for corrections and silent weeks, and where the one and the other was found.

    Every week is decided by itself and the weeks before it.
    """
    values, negative, silent = sums.astype(float).copy(), np.zeros(len(sums), bool), np.zeros(len(sums), bool)
    owed = 0
    for week, total in enumerate(sums):
        before = values[:week][np.isfinite(values[:week])][-4:]
        if total < 0:
            values[week], negative[week] = np.nan, True
        elif total == 0 and len(before) and np.median(before) >= SILENT:
            values[week], silent[week] = np.nan, True
            owed += 1
        elif total > 0:
            values[week], owed = total / (owed + 1), 0
    return values, negative, silent


def _told(where: NDArray[np.bool_], what: str, table: Table, days: NDArray[np.int64]) -> list[str]:
    if not where.any():
        return []
    counts = where.sum(axis=1)
    most = int(np.argmax(counts))
    first = windows.date_of(int(days[np.flatnonzero(where.any(axis=0))[0]]))
    return [
        f"{int(where.sum())} {what}; in {int(np.sum(counts > 0))} of {len(table.names)} series, most in {table.names[most]} "
        f"({counts[most]}), the first in the week to {first}."
    ]


def _on_weekly_reports(table: Table) -> list[str]:
    """Which series came to report on one day of the week, and since when."""
    start = int((SATURDAY + 1 - table.days[0]) % 7)  # the first Sunday
    weeks = (table.values.shape[1] - start) // 7
    since = {}
    for name, values in zip(table.names, table.values[:, start : start + 7 * weeks, 0], strict=True):
        reports = (np.nan_to_num(values).reshape(weeks, 7) != 0).sum(axis=1)
        begun = int(np.flatnonzero(reports)[0]) if reports.any() else 0
        at = sparse_since(reports[begun:])
        if at is not None:
            since[name] = int(table.days[start]) + 7 * (begun + at)
    if not since:
        return []
    first = min(since, key=lambda name: since[name])
    return [
        f"{len(since)} of {len(table.names)} series end by reporting on one day of the week (first {first}, from the week that begins on "
        f"{windows.date_of(since[first])}): sums of weeks hold all of it."
    ]


def sparse_since(reports: NDArray[np.int64], share: float = 0.8, fewest: int = 8) -> int | None:
    """The first week from which on at least `share` of all weeks have no more than one day with a report; None where fewer than
    `fewest` weeks are left. `reports` (W,): days with a report in each week."""
    sparse = (reports <= 1)[::-1]
    tail = np.cumsum(sparse) / np.arange(1, len(sparse) + 1)
    held = np.flatnonzero((tail >= share) & sparse)
    if not len(held) or held[-1] + 1 < fewest or not (reports[len(reports) - 1 - held[-1] :] == 1).any():
        return None
    return len(reports) - 1 - int(held[-1])


# --- origins ---


def origins(cases: Cases, horizon: int, *, known: int, past: int | None = None) -> Outlook:
    """A row per series and origin, with the whole record behind it (or `past` periods), where `known` periods lie behind.

    Rows whose last eight periods hold fewer than four observed ones are left out: nothing can be said from them.
    """
    rows = windows.outlooks(cases.table, past or len(cases.table.days), horizon, known)
    rows = dataclasses.replace(rows, series=torch.as_tensor(cases.codes)[rows.series])
    begun = rows.past[:, :, 0].isfinite().sum(dim=1) >= known
    fresh = rows.past[:, -8:, 0].isfinite().sum(dim=1) >= min(4, known)
    return rows[torch.nonzero(begun & fresh).flatten()]


def at(cases: Cases, day: int | None, horizon: int, *, past: int | None = None) -> Outlook:
    """One row per series: what is known by `day` (None: the end of the table), and a future of which nothing is known (NaN)."""
    table = cases.table
    end = len(table.days) - 1 if day is None else int(np.searchsorted(table.days, day, side="right")) - 1
    if end < 0:
        raise Refused(f"nothing is known by {windows.date_of(day or 0)}; the table begins on {windows.date_of(int(table.days[0]))}")
    length = past or len(table.days)
    behind = np.full((len(table.names), length, 1), np.nan, np.float32)
    taken = table.values[:, max(0, end + 1 - length) : end + 1]
    behind[:, length - taken.shape[1] :] = taken
    count = len(table.names)
    return Outlook(
        torch.as_tensor(cases.codes), torch.full((count,), int(table.days[end])), torch.full((count,), table.every),
        torch.from_numpy(behind), torch.full((count, 1, horizon), torch.nan),
    )  # fmt: skip
