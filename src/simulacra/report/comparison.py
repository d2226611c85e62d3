"""Several runs on one page: which should a user take? The sentence at its top follows from the numbers below it by `verdict.RULE`.

Like the report of one run, the page loads nothing and runs nothing, and equal runs give equal bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from simulacra import verdict
from simulacra.report import curves
from simulacra.report.page import ALONE, AXIS, Picture, as_pictures, duration, mark, place
from simulacra.runs import write_atomically

if TYPE_CHECKING:
    from simulacra.evidence import Evidence, Finding

    Images = NDArray[np.floating[Any]]

MOST = len(curves.RUNS)  # runs; more could not be told apart in one picture
SHOWN = 12  # pictures of each side
CURVES = 9  # worst findings that are drawn
LONGER = 1.5  # times the shortest training, from which times are called unequal
SET_WIDE = (*ALONE, "recall")  # findings about the samples as a set


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run as the page shows it. What was not recorded is None, or empty."""

    name: str  # that tells it from the others
    study: str
    recipe_name: str
    evidence: Evidence
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the data: name -> sha256
    origin: str = ""  # of the data, one line
    steps: int = 0
    batch: int = 0
    seconds: float | None = None  # wall time of training
    drawn_per_second: float | None = None
    trained: int | None = None  # numbers in the weights of all its networks
    to_draw: int | None = None  # numbers that drawing needs
    machine: str = ""
    nature: Images | None = None  # held-out pictures (n, height, width, 3) in [0, 1]
    drawn: Images | None = None  # row i under the condition of row i of nature
    captions: Sequence[str] = ()
    command: str = ""  # that makes the run again


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What can be said of several judged runs."""

    entries: Sequence[Entry]

    @property
    def evidence(self) -> dict[str, Evidence]:
        """Evidence by the name of the run."""
        return {entry.name: entry.evidence for entry in self.entries}

    @property
    def choice(self) -> verdict.Choice:
        """Which run to take."""
        return verdict.choose(self.evidence)

    @property
    def same_data(self) -> bool:
        """Whether all runs were trained on the same data; if not, none can be recommended."""
        return len({_data(entry) for entry in self.entries}) == 1

    def warnings(self) -> list[str]:
        """Reasons to doubt the comparison."""
        said = []
        if not self.same_data:
            groups = _grouped({entry.name: _data(entry) for entry in self.entries})
            said.append(f"The runs were trained on different data: {'; '.join(', '.join(group) for group in groups)}.")
        if unlike := self._other_nature():
            said.append(f"Not judged on the same held-out rows as {self.entries[0].name}: {', '.join(unlike)}.")
        return said

    def _other_nature(self) -> list[str]:
        first = {f.name: f for f in self.entries[0].evidence.findings}

        def unlike(entry: Entry) -> bool:
            # Not all curves of nature must agree: features are scaled by nature and drawn together, so they move with the draws.
            same = [_same(f.truth, first[f.name].truth) for f in entry.evidence.findings if f.name in first]
            return sum(same) < len(same) / 2

        return [entry.name for entry in self.entries[1:] if unlike(entry)]

    def remarks(self) -> list[str]:
        """What must be known to read the numbers."""
        said = []
        if not self.warnings():
            said.append("The runs were trained on the same data and judged on the same held-out rows.")
        times = [entry.seconds for entry in self.entries if entry.seconds]
        if times and max(times) > LONGER * min(times):
            said.append(f"They were not trained equally long: {duration(min(times))} to {duration(max(times))}.")
        unknown = [e.name for e in self.entries if not any(f.name.lower().startswith("memoris") for f in e.evidence.findings)]
        if unknown:
            said.append(f"Memorisation was not measured: {', '.join(unknown)}.")
        return said

    def sentence(self) -> str:
        """The answer. Where the data differ it is only what the numbers say by themselves."""
        return self.choice.sentence if self.same_data else f"By these numbers alone: {self.choice.sentence}"


def _data(entry: Entry) -> tuple[str, ...]:
    """What tells data from other data: the files' digests, whatever the files are called; else the line that says where they are from."""
    return tuple(sorted(entry.files.values())) or (entry.origin,)


def _grouped(values: Mapping[str, Any]) -> list[list[str]]:
    ordered = sorted(values, key=lambda name: values[name])
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda name: values[name])]


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-12, equal_nan=True))


# ---------------------------------------------------------------------------------------------------------------- the page


def write(comparison: Comparison, path: Path) -> None:
    """Write the page to `path` in one move."""
    write_atomically(path, render(comparison).encode())


def render(comparison: Comparison) -> str:
    """The page as HTML text. Everything that comes from data is escaped by the template."""
    environment = Environment(
        loader=PackageLoader("simulacra", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    names, by_run = _names(comparison), [{f.name: f for f in entry.evidence.findings} for entry in comparison.entries]
    rows = [_row(name, [found.get(name) for found in by_run]) for name in names]
    return environment.get_template("comparison.html").render(
        comparison=comparison,
        choice=comparison.choice,
        rule=verdict.RULE,
        style=Markup("").join(_source(environment, file) for file in ("style.css", "comparison.css")),
        entries=list(enumerate(comparison.entries, 1)),
        facts=[(title, [fact(entry) for entry in comparison.entries]) for title, fact in FACTS.items()],
        told=[verdict.told(entry.evidence) for entry in comparison.entries],
        rows=rows,
        together=[row for row in rows if row["name"].lower().startswith(SET_WIDE)],
        checks=_checks(comparison),
        curves=_curves(names, by_run),
        strips=_strips(comparison),
        axis={"zero": place(0.0), "one": place(1.0), "low": AXIS[0], "high": AXIS[1]},
        study=" · ".join(dict.fromkeys(entry.study for entry in comparison.entries)),
    )


def _source(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _names(comparison: Comparison) -> list[str]:
    """All findings, those first that count for the choice, worst of any run first."""
    counting = verdict.shared(comparison.evidence)
    rest = [f.name for entry in comparison.entries for f in entry.evidence.worst_first()]
    return list(dict.fromkeys([*counting, *rest]))


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


FACTS: Mapping[str, Callable[[Entry], str]] = {
    "Study": lambda e: e.study,
    "Recipe": lambda e: f"{e.recipe_name}, {e.steps:,} steps of {e.batch}",
    "Trained for": lambda e: duration(e.seconds or None),
    "On": lambda e: e.machine or "not recorded",
    "Numbers trained": lambda e: _count(e.trained),
    "of them needed to draw": lambda e: _count(e.to_draw),
    "Draws per second": lambda e: "not recorded" if e.drawn_per_second is None else verdict.number(e.drawn_per_second, 2),
    "Data": lambda e: e.origin or "not recorded",
    "Held out, drawn": lambda e: f"{e.evidence.nature_rows}, {e.evidence.drawn_rows}",
}


def _row(name: str, findings: Sequence[Finding | None]) -> dict[str, Any]:
    """One finding of all runs. Good: the smallest gap, and those whose intervals overlap with it, unless that is all of them."""
    known = [f for f in findings if f is not None]
    defined = [f for f in known if np.isfinite(f.gap)]
    alike = len({f.rival_name for f in known}) == 1
    least = min(defined, key=lambda f: f.gap) if defined else None
    good = [f is not None and least is not None and np.isfinite(f.gap) and verdict.overlap(f, least) for f in findings]
    return {
        "name": name,
        "about": known[0].about,
        "rival": known[0].rival_name if alike else "different rivals",
        "floor": verdict.number(known[0].floor),
        "cells": [_cell(f, i, alike and ok and not all(good)) for i, (f, ok) in enumerate(zip(findings, good, strict=True), 1)],
        "least": verdict.gap(least) if least else verdict.UNDEFINED,
    }


def _cell(finding: Finding | None, number: int, good: bool) -> dict[str, Any]:
    if finding is None:
        return {"run": number, "gap": verdict.ABSENT, "standing": None, "mark": None, "good": False, "distance": verdict.ABSENT}
    return {
        "run": number, "gap": verdict.gap(finding), "standing": verdict.standing(finding), "mark": mark(finding), "good": good,
        "distance": verdict.number(finding.distance),
    }  # fmt: skip


def _checks(comparison: Comparison) -> list[dict[str, Any]]:
    by_run = [{c.name: c for c in entry.evidence.checks} for entry in comparison.entries]
    names = dict.fromkeys(name for found in by_run for name in found)
    return [
        {
            "name": name,
            "target": next(found[name].target for found in by_run if name in found),
            "cells": [(verdict.measured(c.value, c.error), c.met) if (c := found.get(name)) else None for found in by_run],
        }
        for name in names
    ]


def _curves(names: Sequence[str], by_run: Sequence[Mapping[str, Finding]]) -> list[tuple[str, str, Markup]]:
    """Name, what is measured and picture of the worst findings that are curves on one grid in all runs."""
    drawn: list[tuple[str, str, Markup]] = []
    for name in names:
        findings = [found[name] for found in by_run if name in found]
        if len(findings) == len(by_run) and len(findings[0].grid) > 1 and all(_same(f.grid, findings[0].grid) for f in findings):
            drawn.append((name, findings[0].about, Markup(curves.overlaid_svg(findings, f"curve-{len(drawn)}"))))
        if len(drawn) == CURVES:
            break
    return drawn


def _strips(comparison: Comparison) -> list[tuple[int, str, Sequence[Picture]]]:
    """Number (0: nature), title and pictures of each strip; nature once where all runs show the same."""
    strips: list[tuple[int, str, Sequence[Picture]]] = []
    before: Images | None = None
    for i, entry in enumerate(comparison.entries, 1):
        if entry.nature is None or entry.drawn is None:
            continue
        shown = min(SHOWN, len(entry.nature), len(entry.drawn))
        if before is None or not _same(np.asarray(before, float), np.asarray(entry.nature[:shown], float)):
            strips.append((0, "Nature, held out", as_pictures(entry.nature[:shown], entry.captions[:shown], 96)))
        before = entry.nature[:shown]
        strips.append((i, entry.name, as_pictures(entry.drawn[:shown], (), 96)))
    return strips
