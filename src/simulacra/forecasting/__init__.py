"""A user's own series: what a forecast of it would have been worth, then the forecast.

    read        the table, with everything that was found in it (`simulacra.series.reading`)
    compose     a Gaussian process from what the record shows: short memory, slow trend, the year, the week, noise (process.py)
    backtest    composed and fitted on the days before the first origin, then asked at some hundred origins in the last fifth of the
                record, beside persistence, climatology and the other forecasts that anybody can make
    ahead       the same process fitted on everything, for the periods after the last one; written and shown by outcome.py

A finished run of `weather.gp` or `weather.lstm` can take the place of the process. Members of a forecast are observations, with their
noise, and paths: they hang together from day to day.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra.evidence import Check, Evidence, Finding
from simulacra.forecasting.process import FEWEST, Model, compose
from simulacra.runs import Run
from simulacra.series import backtest, windows
from simulacra.series.reading import Rows, Table, rows_of, to_table
from simulacra.series.rivals import Forecaster, rivals
from simulacra.series.windows import Outlook, date_of
from simulacra.study import Refused

Days = NDArray[np.int64]
Say = Callable[[str], None]

LEADS = (1, 3, 7, 14, 30, 90)  # periods ahead that are scored, with the horizon itself
SCORED, AHEAD = 99, 999  # members of a forecast in the backtest (as many as the rivals have), and of the one that is written
LAST = 0.2  # share of the record whose origins are tried


def read(
    path: Path, *, column: str | None = None, date_column: str | None = None, series_column: str | None = None, series: str | None = None,
    unit: str | None = None, cumulative: bool | None = None,
) -> Table:  # fmt: skip
    """The series of a file, or the one called `series` in the column `series_column`. Refused as `series.reading.to_table` says."""
    rows = rows_of(path)
    if series is not None:
        if series_column is None:
            raise Refused(f"--series {series!r} needs --series-column: the column of {path.name} that holds the names of the series")
        rows = _only(rows, series_column, series)
    return to_table(
        rows, column=column, date_column=date_column, series_column=series_column, unit=unit, cumulative=cumulative
    )  # fmt: skip


def _only(rows: Rows, column: str, name: str) -> Rows:
    """The rows of one series."""
    if column not in rows.columns:
        raise Refused(f"{rows.origin} has no column {column!r}; it has {', '.join(rows.columns)}")
    names = [str(value).strip() for value in rows.columns[column]]
    keep = [row for row, other in enumerate(names) if other == name]
    if not keep:
        near = difflib.get_close_matches(name, set(names), n=3) or sorted(set(names))[:12]
        raise Refused(f"{rows.origin}: no series is called {name!r} in {column!r}; there is {', '.join(near)}")
    columns = {title: [values[row] for row in keep] for title, values in rows.columns.items()}
    return dataclasses.replace(rows, columns=columns, lines=[rows.lines[row] for row in keep] if rows.lines else ())


@dataclasses.dataclass(frozen=True)
class Given:
    """A finished run that forecasts in place of a process fitted here."""

    name: str  # the run folder
    draw: Callable[[Outlook, int], Outlook]  # rows and a seed -> the same rows with members
    past: int  # periods that it looks back
    horizon: int  # periods that it looks ahead
    channels: int  # columns that it sees
    since: int | None  # first origin that it has not learned from, in days since 1970; None: it was trained on another file
    stations: Sequence[int]  # the number by which it knows each series

    def drawn(self, rows: Outlook, horizon: int, seed: int) -> Outlook:
        """The rows with the run's members, at the first `horizon` periods."""
        asked = dataclasses.replace(rows, series=torch.as_tensor(self.stations)[rows.series])
        found = self.draw(asked.with_future(rows.future.new_full((len(rows), 1, self.horizon), torch.nan)), seed)
        return rows.with_future(found.future[:, :, :horizon])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Backtest and forecast of one table."""

    table: Table
    leads: tuple[int, ...]
    nature: Outlook  # origins of the backtest
    drawn: Outlook
    known: Mapping[str, Forecaster]  # the rivals
    evidence: Evidence
    each: Mapping[str, str]  # series -> its own verdict in a sentence, where there are several
    ahead: Outlook  # one row per series: what comes after the record
    models: Mapping[int, Model]  # by number of the series; empty where a run forecasts
    seed: int

    @property
    def verdict(self) -> str:
        """Whether the forecast is worth more than what anybody can say, and what to use."""
        said = verdict(self.evidence, len(np.unique(self.nature.day.numpy())))
        return f"{said} {_by_lead(self.evidence)}".strip()


def forecast(
    table: Table, *, horizon: int = 14, origins: int = 100, seed: int = 0, given: Given | None = None, by: str | None = None,
    say: Say = lambda line: None,
) -> Outcome:  # fmt: skip
    """Backtest over `origins` origins in the last fifth of the record, then forecast `horizon` periods after it, series by series.

    `by` names a rival that looks ahead in place of the process, when the backtest said that it should. Everything in the backtest is
    learned from days up to its first origin; then all is learned again from the whole record.
    """
    if given is not None:
        _takes(given, table, horizon)
    past = given.past if given else _past_of(table)
    days = _origins(table, origins, given.since if given else None)
    nature, remarks = _held_out(table, past, horizon, days)
    if given is not None and given.since is None:
        remarks.append(
            f"Warning: {given.name} was trained on another file; if its training days are among the origins here, the backtest flatters it."
        )
    usable = np.unique(nature.series.numpy()).tolist()
    say(f"backtest: {len(days)} origins from {date_of(int(days[0]))} to {date_of(int(days[-1]))}")
    before: dict[int, Model] = {}
    if given is None:
        until = table.days <= days[0]
        for number in usable:
            before[number] = compose(table.days[until], table.values[number, until, 0], table.every, table.unit)
            say(f"fitted {table.names[number]} up to {date_of(int(days[0]))}: {before[number].sentence()}")
    drawn = given.drawn(nature, horizon, seed) if given else _drawn(before, nature, table, seed)
    known, said = rivals(_training(table, past, horizon, int(days[0]), usable))
    if by is not None and (by := by.replace("-", " ")) not in known:
        raise Refused(f"no simple forecast of this series is called {by!r}; there are {', '.join(known)}")
    leads = tuple(sorted({lead for lead in (*LEADS, horizon) if lead <= horizon}))
    evidence = _judged(nature, drawn, known, leads, table, seed, [*table.remarks, *remarks, *said])
    each = _each(nature, drawn, known, leads, table, seed) if len(usable) > 1 else {}
    models, ahead = _ahead(table, past, horizon, given, before, seed, say)
    if by is not None:
        say(f"looking ahead by {by}, as asked")
        everything = _training(table, past, horizon, int(table.days[-1]), range(len(table.names)))
        ahead = ahead.with_future(rivals(everything)[0][by](ahead))
    remarks = _told(before, models, table)
    evidence = dataclasses.replace(evidence, remarks=[*evidence.remarks, *remarks])
    return Outcome(table, leads, nature, drawn, known, evidence, each, ahead, models, seed)


def given(run: Any, recipe: Any, draw: Callable[[Outlook, int], Outlook], path: Path, **options: Any) -> tuple[Given, Table]:
    """A finished run of one of the weather studies, and the series of the file `path`, read as the run read its own.

    `draw` gives rows their members; `options` are those of `read` that differ from the run's. Refused where it is no such run.
    """
    from simulacra.sciences.weather.data import table_of

    if not isinstance(run, Run):
        raise Refused("--run takes the folder of a finished run")
    about, kept = run.about(), run.path / "drawn" / "nature.npz"
    if not about["study"].startswith("weather.") or not kept.is_file():
        raise Refused(f"{run.path} holds a run of {about['study']}; finished runs of weather.gp and weather.lstm can forecast a series")
    if any(options.get(name) is not None for name in ("date_column", "cumulative")):
        raise Refused("with --run the file is read as the run read its own: leave out --date-column and --cumulative")
    names = {"column": "column", "series_column": "station", "unit": "unit"}
    changes = {field: options[name] for name, field in names.items() if options.get(name) is not None}
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    table = table_of(recipe.model_copy(update={"data": path, **changes}))
    stations = list(range(len(table.names)))
    if (series := options.get("series")) is not None:
        table.series(series)
        stations = [list(table.names).index(series)]
        table = dataclasses.replace(table, names=[series], values=table.values[stations])
    nature = windows.read(kept)
    own = bool(set(table.files.values()) & set(run.read_json("data.lock")["files"].values()))
    since = int(nature.day.min()) if own else None
    return Given(str(run.path), draw, nature.past.shape[1], nature.horizon, nature.past.shape[2], since, stations), table


def _takes(given: Given, table: Table, horizon: int) -> None:
    if table.values.shape[2] != given.channels:
        raise Refused(
            f"{given.name} was trained on {given.channels} columns, and {len(table.columns)} were found here "
            f"({', '.join(table.columns)}); give it a file with the columns of its own data"
        )
    if table.every != 1:
        raise Refused(f"{given.name} forecasts daily series, and this one is weekly; leave out --run")
    if horizon > given.horizon:
        raise Refused(f"{given.name} looks {given.horizon} days ahead, --horizon asks for {horizon}; train one with --horizon {horizon}")


def _past_of(table: Table) -> int:
    """Periods behind an origin that a forecast shows and a rival may look at: a year and a little."""
    return min(400 if table.every == 1 else 60, len(table.days))


def _origins(table: Table, count: int, since: int | None) -> Days:
    """At most `count` days, evenly spread over the last fifth of the record, or from `since` on; the last has one period ahead."""
    length = len(table.days)
    first = min(math.ceil((1 - LAST) * length) - 1, length - 4)
    if since is not None:
        first = max(first, int(np.searchsorted(table.days, since)))
    if first > length - 3:
        raise Refused("the run has learned from nearly all of this record: no days are left to try it on; give it later days")
    chosen = np.unique(np.linspace(first, length - 2, max(count, 2)).round().astype(int))
    found: Days = table.days[chosen]
    return found


def _held_out(table: Table, past: int, horizon: int, days: Days) -> tuple[Outlook, list[str]]:
    """One row per origin and series that was known well enough before the first of them."""
    parts, remarks = [], []
    before = table.days <= days[0]
    for number, name in enumerate(table.names):
        known = table.values[number, before, 0]
        known = known[np.isfinite(known)]
        if len(known) < FEWEST or np.ptp(known) == 0:
            remarks.append(f"{name} cannot be tried out: {len(known)} values before {date_of(int(days[0]))}, or all equal.")
            continue
        rows = _rows_of(table, number, past, horizon, int(days[0]), int(table.days[-1]))
        rows = rows[torch.isin(rows.day, torch.as_tensor(days))] if rows else None
        if rows:
            parts.append(rows)
    if not parts:
        raise Refused(f"nothing can be tried out after {date_of(int(days[0]))}: {' '.join(remarks) or 'no value was observed there'}")
    return Outlook.join(parts), remarks


def _rows_of(table: Table, number: int, past: int, horizon: int, first: int, last: int) -> Outlook | None:
    """Origins of one series from day `first` to `last` of the record, which ends there; None where there are none."""
    start = max(int(np.searchsorted(table.days, first)) - past + 1, 0)
    inside = slice(start, int(np.searchsorted(table.days, last)) + 1)
    part = dataclasses.replace(table, names=[table.names[number]], days=table.days[inside], values=table.values[[number], inside])
    if len(part.days) < 2 or not np.isfinite(part.values[0, :, 0]).any():
        return None
    rows = windows.outlooks(part, past, horizon)
    rows = rows[rows.day >= first]
    return dataclasses.replace(rows, series=torch.full_like(rows.series, number)) if len(rows) else None


def _training(table: Table, past: int, horizon: int, until: int, numbers: Sequence[int]) -> Outlook:
    """Rows that together hold all that was known of the series up to the day `until`: of overlapping ones, some are left out."""
    parts = []
    for number in numbers:
        rows = _rows_of(table, number, past, horizon, int(table.days[0]), until)
        if rows:
            step = max(min(past, horizon), 1)
            parts.append(rows[torch.unique(torch.cat([torch.arange(0, len(rows), step), torch.tensor([len(rows) - 1])]))])
    return Outlook.join(parts)


def _drawn(models: Mapping[int, Model], rows: Outlook, table: Table, seed: int) -> Outlook:
    parts = []
    for number, model in models.items():
        mine = rows[rows.series == number]
        parts.append(model.draw(mine, table.days, table.values[number, :, 0], SCORED, _seed_of(seed, number)))
    return Outlook.join(parts)


def _seed_of(seed: int, number: int) -> int:
    return seed * 100_003 + number


def _judged(
    nature: Outlook, drawn: Outlook, known: Mapping[str, Forecaster], leads: Sequence[int], table: Table, seed: int, remarks: Sequence[str]
) -> Evidence:  # fmt: skip
    unit = table.unit or table.columns[0]
    evidence = backtest.judge(nature, drawn, rivals=known, against="persistence", unit=unit, seed=seed, leads=leads, remarks=remarks)
    return evidence.with_more(checks=backtest.skill_checks(nature, drawn, known, leads, unit, seed))


def _each(
    nature: Outlook, drawn: Outlook, known: Mapping[str, Forecaster], leads: Sequence[int], table: Table, seed: int
) -> dict[str, str]:  # fmt: skip
    """The verdict on every series alone."""
    found = {}
    unit = table.unit or table.columns[0]
    for number in np.unique(nature.series.numpy()).tolist():
        mine = nature.series == number
        days = len(np.unique(nature.day[mine].numpy()))
        if days < 2:
            found[table.names[number]] = "Tried on one day only: nothing can be said."
            continue
        evidence = backtest.judge(nature[mine], drawn[mine], rivals=known, against="persistence", unit=unit, seed=seed, leads=leads)
        found[table.names[number]] = verdict(evidence, days)
    return found


def verdict(evidence: Evidence, days: int) -> str:
    """One or two plain sentences on the CRPS, averaged over leads, beside persistence and beside the best rival, and what to use."""
    scores = {f.rival_name: f for f in evidence.findings if f.name.startswith("CRPS against")}
    best = min(scores.values(), key=lambda f: f.ceiling)
    leads = ", ".join(f"{lead:g}" for lead in best.grid)
    reach = f"mean of leads {leads}" if len(best.grid) > 1 else f"lead {leads}"
    if days < backtest.FEW:
        return (
            f"{days} origins are too few to say whether this forecast is worth more than {best.rival_name} "
            f"(CRPS {best.distance:.3g}, {best.rival_name} {best.ceiling:.3g}, {reach}): no difference shown. Rely on neither alone."
        )
    against = f"{best.rival_name}, the best of the simple forecasts"
    numbers = f"CRPS {best.distance:.3g} and {best.ceiling:.3g} {best.unit}, difference {_percent(best)}, {reach}"
    today = ""
    if best.rival_name != "persistence" and "persistence" in scores:
        other = scores["persistence"]
        worth = "as good, as far as can be shown" if _open(other) else "worse" if other.gap < 1 else "better"
        today = f" Persistence (tomorrow = today) is {worth}: difference {_percent(other)}."
    flag = f" (--by {best.rival_name.replace(' ', '-')})"
    if _open(best):
        return f"No difference shown to {against} ({numbers}): it may be as good, and it is simpler. Use either{flag}.{today}"
    if best.gap < 1:
        return f"Better than {against} ({numbers}): use this forecast.{today}"
    return f"Worse than {against} ({numbers}): use {best.rival_name}{flag}.{today}"


def _by_lead(evidence: Evidence) -> str:
    """At which leads the CRPS lies below, above or not shown apart from that of the rival that is best there; empty where all agree."""
    found: dict[str, list[str]] = {}
    for check in evidence.checks:
        if check.name.startswith("CRPS"):
            found.setdefault(standing(check), []).append(check.name.split(", ")[1].split()[0])
    if len(found) < 2:
        return ""
    words = {"lower": "lower at", "higher": "higher at", "no": "no difference shown at"}
    parts = [f"{words[name]} {', '.join(leads)}" for name, leads in found.items()]
    return f"CRPS beside the best rival of each lead: {'; '.join(parts)}."


def standing(check: Check) -> str:
    """What a check of skill shows of the difference to the best rival: "lower", "higher", or "no" difference."""
    if check.met:
        return "lower"
    return "no" if "no difference" in check.target or "too few" in check.target else "higher"


def _open(finding: Finding) -> bool:
    return finding.gap_low <= 1 <= finding.gap_high


def _percent(finding: Finding) -> str:
    ends = (100 * (value - 1) for value in (finding.gap, finding.gap_low, finding.gap_high))
    middle, low, high = (f"{value:+.1f}" for value in ends)
    return f"{middle} % [{low}, {high}]"


def _ahead(
    table: Table, past: int, horizon: int, given: Given | None, before: Mapping[int, Model], seed: int, say: Say
) -> tuple[dict[int, Model], Outlook]:  # fmt: skip
    """Everything learned again from the whole record, and the future of every series."""
    rows = windows.origins_on(table, past, horizon, int(table.days[-1]))
    if given is not None:
        return {}, given.drawn(rows, horizon, seed + 1)
    models, parts = {}, []
    for number, name in enumerate(table.names):
        values = table.values[number, :, 0]
        models[number] = compose(table.days, values, table.every, table.unit, before.get(number))
        parts.append(models[number].draw(rows[[number]], table.days, values, AHEAD, _seed_of(seed, number)))
        say(f"fitted {name} on the whole record: {models[number].sentence()}")
    return models, Outlook.join(parts)


def _told(before: Mapping[int, Model], models: Mapping[int, Model], table: Table) -> list[str]:
    """What was decided of each series. Of remarks that differ in numbers and names only, the first, and how many there are."""
    found: dict[str, list[tuple[str, str]]] = {}
    for number, model in models.items():
        earlier, late = before.get(number), []
        if earlier and (new := [part for part in model.words.values() if part not in earlier.words.values()]):
            late = [f"Warning: the backtest had too few days for all parts of the forecast: {', '.join(new)} could not be tried out."]
        for remark in (*model.remarks, *late):
            found.setdefault(re.sub(r"[\d.]+", "#", remark), []).append((table.names[number], remark))
    return [_of_several(told, len(models)) for told in found.values()]


def _of_several(told: Sequence[tuple[str, str]], everyone: int) -> str:
    name, remark = told[0]
    if everyone == 1:
        return remark
    who = f"{len(told)} of {everyone} series, such as {name}" if len(told) > 1 else name
    rest = remark.removeprefix("Warning: ")
    return f"{'Warning: ' * (rest != remark)}{who}: {rest}"
