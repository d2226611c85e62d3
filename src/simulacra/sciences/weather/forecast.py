"""What a user does with forecasts of either system: ask for one, look at it, write it, read another program's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simulacra.evidence import Figure
from simulacra.measures.calibration import pit
from simulacra.measures.scores import HUB_LEVELS, quantiles_of
from simulacra.sciences.weather import article
from simulacra.sciences.weather.data import WeatherRecipe, table_of
from simulacra.sciences.weather.statistics import LEADS
from simulacra.series import backtest, rivals, windows
from simulacra.series.windows import Outlook, date_of, day_of, origins_on
from simulacra.study import Noise, Refused, Split

CONDITIONS = {
    "origin": "day from which to look ahead, as 2017-12-14; default: the last of the record",
    "station": "name of the station, where there are several; default: the first",
}
FORMATS = (".csv",)
SHOWN, SKILLED = 4, 600  # fans in a report; origins behind its picture of skill


def ask(recipe: WeatherRecipe, n: int, conditions: Mapping[str, str]) -> Outlook:
    """A template of n forecasts of one station from one origin.

    Raises Refused for an origin or a station that is not in the record, and for the article's series, which have no dates.
    """
    unknown = set(conditions) - set(CONDITIONS)
    if unknown:
        raise Refused(f"forecasts of weather can be asked for {', '.join(CONDITIONS)}, not for {', '.join(sorted(unknown))}")
    if _of_the_article(recipe):
        raise Refused("the article's series have no dates to look ahead from; its numbers are in the report; draw from a run of `laptop`")
    table = table_of(recipe)
    name = conditions.get("station", table.names[0])
    if name not in table.names:
        raise Refused(f"no station is called {name!r}; known: {', '.join(table.names)}")
    day = day_of(conditions["origin"]) if "origin" in conditions else int(table.days[-1])
    row = origins_on(table, recipe.past, recipe.horizon, day)[[list(table.names).index(name)]]
    return row[torch.zeros(n, dtype=torch.int64)]


def read(path: Path) -> Outlook:
    """Forecasts that any program wrote, as an .npz file (`series.windows.read`)."""
    return windows.read(path)


def export(drawn: Outlook, path: Path, against: Path | None) -> None:
    """Quantiles of each forecast at each lead as CSV: station, origin, date, lead, and one column per level."""
    levels = quantiles_of(drawn.future.numpy().transpose(0, 2, 1), HUB_LEVELS)  # (n, H, levels)
    targets = drawn.target_days().numpy()
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["station", "origin", "date", "lead_days", *(f"q{level:g}" for level in HUB_LEVELS)])
        for i in range(len(drawn)):
            for h in range(drawn.horizon):
                values = [f"{v:.2f}" for v in levels[i, h]]
                out.writerow([int(drawn.series[i]), date_of(int(drawn.day[i])), date_of(int(targets[i, h])), h + 1, *values])


def summary(like: Outlook, drawn: Outlook) -> Sequence[str]:
    """The first forecast in words: date, median, central half and 95 %."""
    found = quantiles_of(drawn.future[0].numpy().T, [0.025, 0.25, 0.5, 0.75, 0.975])
    lines = [f"forecast from {date_of(int(drawn.day[0]))}: median, [half of cases], [95 % of cases]"]
    for day, (low, quarter, middle, upper, high) in zip(drawn.target_days()[0].tolist(), found[:14], strict=False):
        lines.append(f"  {date_of(day)}  {middle:6.1f}  [{quarter:.1f}, {upper:.1f}]  [{low:.1f}, {high:.1f}]")
    return lines


def picture(rows: Outlook) -> np.ndarray:
    """A small fan per row, (n, height, width, 3)."""
    from simulacra.series import pictures

    return np.asarray(pictures.picture(rows))


def caption(rows: Outlook) -> Sequence[str]:
    """Station and origin of each row."""
    return [f"series {s}, {date_of(d)}" for s, d in zip(rows.series.tolist(), rows.day.tolist(), strict=True)]


def unit_of(recipe: WeatherRecipe) -> str:
    """Unit of what is forecast, for the axes of pictures: rows carry none."""
    return article.UNIT if _of_the_article(recipe) else table_of(recipe).unit


def _of_the_article(recipe: WeatherRecipe) -> bool:
    return "article" in (getattr(recipe, "network", ""), getattr(recipe, "model", ""))


def figures(learner: Any, split: Split[Outlook], seed: int) -> list[Figure]:
    """Fans of held-out origins spread over the seasons, the skill over every rival by lead, and the PIT of the first day."""
    return [*_fans(learner, split, seed), *_skill(learner, split, seed)]


def _skill(learner: Any, split: Split[Outlook], seed: int) -> list[Figure]:
    from simulacra.series import pictures

    rows = split.held_out[torch.linspace(0, len(split.held_out) - 1, min(SKILLED, len(split.held_out))).round().long()]
    drawn = learner.draw(rows, Noise(seed, range(len(rows))))
    leads = [lead for lead in LEADS if lead <= rows.horizon]
    skills = backtest.skills(rows, drawn, rivals.rivals(split.train)[0], leads, seed)
    image = pictures.skill_by_lead(leads, skills, "day", f"CRPS on {len(rows)} held-out origins")
    levels = pit(rows.future[:, 0, 0].numpy(), drawn.future[:, :, 0].numpy(), seed=seed)
    shown = pictures.pit_histogram(levels[np.isfinite(levels)], "Probability integral transform, 1 day ahead")
    return [
        Figure("Skill over forecasts that anybody can make", "Above 0: a lower CRPS than the rival's. Intervals of 95 %.", image),
        Figure("Calibration, a day ahead", "Flat where the forecast's law is right; a valley says too narrow, a hill too wide.", shown),
    ]


def _fans(learner: Any, split: Split[Outlook], seed: int) -> list[Figure]:
    from simulacra.series import pictures

    rows = split.held_out[split.held_out.future[:, 0].isfinite().all(dim=1)]
    if not len(rows):
        rows = split.held_out
    rows = rows[torch.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().long()]
    drawn, unit = learner.draw(rows, Noise(seed, range(len(rows)))), unit_of(learner.recipe)
    found = []
    for i in range(len(rows)):
        known = min(60, rows.past.shape[1])
        image = pictures.fan(
            rows.past_days()[i, -known:].numpy(), rows.past[i, -known:, 0].numpy(), rows.target_days()[i].numpy(),
            rows.future[i, 0].numpy(), drawn.future[i].numpy(), unit, caption(rows[[i]])[0],
        )  # fmt: skip
        about = "Median, central 50, 80 and 95 %, three paths, and what came."
        found.append(Figure(f"Forecast from {date_of(int(rows.day[i]))}", about, image))
    return found
