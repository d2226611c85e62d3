"""What a forecast looks like: the backtest as a table, quantiles as a file, all of it with pictures as one page."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as RichTable

from simulacra import report
from simulacra.evidence import Check, Figure
from simulacra.families.gp import GaussianProcess
from simulacra.forecasting import Outcome, standing
from simulacra.forecasting.process import Model
from simulacra.measures.calibration import pit
from simulacra.measures.scores import quantiles_of
from simulacra.runs import environment, write_atomically
from simulacra.series import backtest, pictures, windows
from simulacra.series.windows import YEAR, Outlook, date_of
from simulacra.study import Refused
from simulacra.verdict import number

Array = NDArray[np.float64]

QUANTILES = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
SHOWN = 4  # series in a report and on the terminal


def backtest_table(outcome: Outcome) -> RichTable:
    """MAE and CRPS of the forecast and its rivals at each lead, and the interval of the difference to the best rival there."""
    unit = outcome.table.unit or outcome.table.columns[0]
    others = list(outcome.known)
    shown = RichTable(box=None, header_style="bold", pad_edge=False, title=f"Backtest ({unit})", title_justify="left")
    for name in ("lead", "score", "forecast", *others, "to the best of them [95 %]", "shown"):
        text = name in ("score", "to the best of them [95 %]", "shown")
        word = max(map(len, name.split()))
        shown.add_column(name, justify="left" if text else "right", no_wrap=text, min_width=None if text else word)
    for lead, kind, check in _by_lead(outcome):
        numbers, shows = _difference(check)
        beside = (number(check.beside[name]) for name in others)
        shown.add_row(str(lead) if kind == "MAE" else "", kind, number(check.value), *beside, numbers, shows)
    return shown


def _by_lead(outcome: Outcome) -> list[tuple[int, str, Check]]:
    """Lead, score and check, in the order in which `backtest.skill_checks` gives them."""
    checks = [check for check in outcome.evidence.checks if check.name.startswith(("MAE", "CRPS"))]
    leads = [int(check.name.split(", ")[1].split()[0]) for check in checks]
    return [(lead, "MAE" if check.name.startswith("MAE") else "CRPS", check) for lead, check in zip(leads, checks, strict=True)]


def _difference(check: Check) -> tuple[str, str]:
    """The difference to the best rival with its interval, and what it shows."""
    found = re.search(r"difference (\S+) \[(\S+), (\S+)\]", check.target)
    assert found is not None
    middle, low, high = (f"{'+' * (value >= 0)}{number(value)}" for value in map(float, found.groups()))
    return f"{middle} [{low}, {high}]", standing(check)


def coverage(outcome: Outcome) -> str:
    """Shares of truths that the central intervals held, in a sentence, with a warning where 95 % are far from it."""
    finding = next(f for f in outcome.evidence.findings if f.name.startswith("coverage"))
    pairs = [(nominal, held) for nominal, held in zip(finding.grid, finding.drawn, strict=True) if nominal != 90]
    said = "Coverage of central intervals, all leads: " + ", ".join(f"{nominal:g} % held {held:.0f} %" for nominal, held in pairs) + "."
    nominal, held = pairs[-1]
    if held < nominal - 4:
        said += f" Warning: what came lay outside the {nominal:g} % band {(100 - held) / (100 - nominal):.1f} times too often."
    return said


def summary(outcome: Outcome, most: int = 14) -> list[str]:
    """The forecast in lines: date, median, central half and 95 % of each series."""
    unit, lines = outcome.table.unit, []
    targets, found = outcome.ahead.target_days().numpy(), _quantiles(outcome.ahead)
    for row in range(min(len(outcome.ahead), SHOWN)):
        name = outcome.table.names[int(outcome.ahead.series[row])]
        lines.append(f"{name}{f' ({unit})' if unit else ''}: median, [half of cases], [95 % of cases]")
        for day, values in zip(targets[row, :most], found[row, :most], strict=True):
            low, quarter, middle, upper, high = (number(values[QUANTILES.index(level)]) for level in (0.025, 0.25, 0.5, 0.75, 0.975))
            lines.append(f"  {date_of(int(day))}  {middle:>7}  [{quarter}, {upper}]  [{low}, {high}]")
    if len(outcome.ahead) > SHOWN:
        lines.append(f"... and {len(outcome.ahead) - SHOWN} more series; -o writes them all.")
    return lines


def _quantiles(ahead: Outlook) -> Array:
    """(n, H, levels) of the members."""
    return quantiles_of(ahead.future.numpy().transpose(0, 2, 1), QUANTILES)


def check_file(path: Path, endings: Sequence[str]) -> None:
    """Refused, before anything is computed, where the outcome could not be written to `path`."""
    if path.suffix.lower() not in endings:
        raise Refused(f"cannot write {path.name}: choose a file that ends in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent} to write {path.name} into")


def write(outcome: Outcome, path: Path) -> None:
    """Quantiles (.csv: series, date, lead, mean, median, quantiles) or all paths (.npz: an `Outlook`, one row per series)."""
    if path.suffix.lower() == ".npz":
        windows.write(outcome.ahead, path)
        return
    text = io.StringIO(newline="")
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["series", "date", "lead", "mean", "median", *(f"q{level:g}" for level in QUANTILES if level != 0.5)])
    targets, found, mean = outcome.ahead.target_days().numpy(), _quantiles(outcome.ahead), outcome.ahead.future.double().mean(dim=1).numpy()
    for row, series in enumerate(outcome.ahead.series.tolist()):
        for lead in range(outcome.ahead.horizon):
            levels = [f"{value:.6g}" for value in found[row, lead]]
            middle = levels.pop(QUANTILES.index(0.5))
            date = date_of(int(targets[row, lead]))
            out.writerow([outcome.table.names[series], date, lead + 1, f"{mean[row, lead]:.6g}", middle, *levels])
    write_atomically(path, text.getvalue().encode())


def write_report(outcome: Outcome, path: Path, recipe: Mapping[str, Any], seconds: float) -> None:
    """All of it as one self-contained HTML page. `recipe`: the options of the command, by name."""
    table = outcome.table
    unit = table.unit or table.columns[0]
    some = np.unique(np.linspace(0, len(outcome.nature) - 1, 8).round().astype(int))
    rows = outcome.nature[some]
    shown = [f"{table.names[s]}, {date_of(day)}" for s, day in zip(rows.series.tolist(), rows.day.tolist(), strict=True)]
    learned = {f"{table.names[s]}: {model.sentence()}": _parameters(model) for s, model in list(outcome.models.items())[:SHOWN]}
    first = [outcome.verdict, coverage(outcome), *(f"{name}: {said}" for name, said in outcome.each.items())]
    evidence = dataclasses.replace(outcome.evidence, remarks=[*first, *outcome.evidence.remarks])
    page = report.Page(
        title=f"Forecast of {table.columns[0]}" + (f" ({table.unit})" if table.unit and "(" not in table.columns[0] else ""),
        study="simulacra forecast",
        source="Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, ISBN 978-0-262-18253-9",
        evidence=evidence,
        recipe={**recipe, **learned},
        nature_pictures=pictures.picture(rows, unit),
        drawn_pictures=pictures.picture(outcome.drawn[some], unit),
        captions=shown,
        figures=list(figures(outcome)),
        origin=f"{table.columns[0]} of {', '.join(table.names[:SHOWN])}{' and more' if len(table.names) > SHOWN else ''}, "
        f"{date_of(int(table.days[0]))} to {date_of(int(table.days[-1]))}",
        files=table.files,
        environment=environment(),
        seconds=seconds,
        command=environment()["command"],
    )
    report.write(page, path)


def _parameters(model: Model) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in model.kernel.parameters().items())


def figures(outcome: Outcome) -> list[Figure]:
    """The forecast of each series as a fan; for the first, the last year with what is made of it; the PIT; skill by lead."""
    table, found = outcome.table, []
    unit = table.unit or table.columns[0]
    for row in range(min(len(outcome.ahead), SHOWN)):
        rows, name = outcome.ahead[[row]], table.names[int(outcome.ahead.series[row])]
        kept = min(max(4 * rows.horizon, 30), rows.past.shape[1])
        image = pictures.fan(
            rows.past_days()[0, -kept:].numpy().astype("datetime64[D]"), rows.past[0, -kept:, 0].numpy(),
            rows.target_days()[0].numpy().astype("datetime64[D]"), None, rows.future[0].numpy(), unit, f"{name}: what comes next",
        )  # fmt: skip
        found.append(Figure(f"Forecast of {name}", "Median, central 50, 80 and 95 % of observations, and three paths.", image))
    for series, model in list(outcome.models.items())[:1]:
        found += _posterior_figures(model, table.names[series], unit, outcome.seed)
    every = "day" if table.every == 1 else "week"
    if outcome.leads[0] == 1:
        first = pit(outcome.nature.future[:, 0, 0].numpy(), outcome.drawn.future[:, :, 0].numpy(), seed=outcome.seed)
        image = pictures.pit_histogram(first, f"one {every} ahead")
        about = f"Where what came lay in the forecast's law, one {every} ahead: flat where the law is right."
        found.append(Figure("Calibration", about, image))
    skills = backtest.skills(outcome.nature, outcome.drawn, outcome.known, outcome.leads, outcome.seed)
    leads = sorted({lead for lead, _, _ in _by_lead(outcome)})
    image = pictures.skill_by_lead(leads, skills, every, "CRPS skill over each rival")
    about = "Share by which the CRPS lies below the rival's; an interval that covers 0 shows no difference."
    found.append(Figure("Skill by lead", about, image))
    return found


def _posterior_figures(model: Model, name: str, unit: str, seed: int) -> list[Figure]:
    """The last year of a record with the process conditioned on it, and the terms that it is the sum of."""
    recent, shown = model.days > model.days[-1] - 10 * YEAR, model.days[-round(YEAR / model.every) :]
    t, scale = shown.astype(float), model.scale
    posterior = GaussianProcess(model.kernel).condition(model.days[recent].astype(float), model.z[recent])
    spread = scale.spread(shown)
    latent, noisy = (spread * np.sqrt(posterior.variance(t, noise=noise)) for noise in (False, True))
    draws = scale.centre + spread * posterior.draw(t, 3, np.random.default_rng(seed))
    observed = scale.centre + spread * model.z[-len(shown) :]
    axis, dates = f"log(1 + {unit})" if scale.log else unit, shown.astype("datetime64[D]")
    image = pictures.posterior(
        dates, observed, dates, scale.centre + spread * posterior.mean(t), latent, noisy, draws, axis,
        f"{name}: the last year of the record",
    )  # fmt: skip
    about = "Bands of 95 %: of the process without the noise of observations, and of an observation."
    parts = {
        words: (spread * posterior.mean(t, part=label), spread * np.sqrt(posterior.variance(t, part=label)))
        for label, words in model.terms().items()
    }
    said = f"Means and 95 % bands of the terms; with {scale.centre:.3g} {axis} they add up to the curve above."
    return [
        Figure("The last year of the record", about, image),
        Figure("What it is made of", said, pictures.components(dates, parts, axis, f"{name}: terms of the process")),
    ]
