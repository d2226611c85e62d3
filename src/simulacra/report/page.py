"""The page itself: what of a run is shown, in which order and in which words. The look is in page.html and style.css."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulacra import verdict
from simulacra.evidence import ALARM, Check, Finding
from simulacra.report import curves, images
from simulacra.report.viewer import COLUMNS, Model, models, viewer

if TYPE_CHECKING:
    from simulacra.report import Figure, Page

ALONE = ("memorisation", "coverage", "precision", "classifier")  # findings every generator is judged by, shown on their own
MOST_PICTURES = 16
PICTURE_BYTES = 2_000_000  # of all pictures together, before compression; it decides how many are shown
AXIS = (-0.2, 1.2)  # of the gap plot; what lies beyond is clipped, with an arrow and its number


@dataclasses.dataclass(frozen=True)
class Mark:
    """A gap on the axis of the gap plot, in per cent of its width."""

    at: float
    low: float
    high: float
    clipped: str  # "", "left" or "right"


@dataclasses.dataclass(frozen=True)
class Row:
    """A finding as the page shows it."""

    anchor: str
    finding: Finding
    standing: verdict.Standing
    gap: str
    distance: str
    floor: str
    ceiling: str
    p: str
    told: bool
    mark: Mark | None
    svg: Markup
    rival_leaves: bool


@dataclasses.dataclass(frozen=True)
class Panel:
    """One scalar of the history."""

    name: str
    last: str
    log: bool
    svg: Markup


@dataclasses.dataclass(frozen=True)
class Picture:
    """One sample as an image, at its size on the page."""

    uri: str
    width: int
    height: int
    caption: str


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of the comparison of pictures."""

    title: str
    word: str
    pictures: Sequence[Picture]
    models: Sequence[Model] = ()  # of the first of them


def page_as_html(page: Page) -> str:
    """The whole page. Everything that comes from data is escaped by the template; only our own drawings are not."""
    environment = Environment(
        loader=PackageLoader("simulacra", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows = [_row(finding, f"finding-{i}") for i, finding in enumerate(page.evidence.worst_first(), 1)]
    sides = _sides(page)
    return environment.get_template("page.html").render(
        page=page,
        evidence=page.evidence,
        style=_style(environment),
        answer=verdict.can_be_told(page.evidence),
        tested=verdict.tested(page.evidence),
        extremes=verdict.extremes(page.evidence) if rows else verdict.sentence(page.evidence),
        alarm=f"{ALARM:g}",
        p=verdict.probability(page.evidence.p),
        rows=rows,
        alone=[row for row in rows if _stands_alone(row.finding)],
        together=[row for row in rows if not _stands_alone(row.finding)],
        alone_names=ALONE,
        standings=verdict.Standing,
        axis={"zero": place(0.0), "one": place(1.0), "low": AXIS[0], "high": AXIS[1]},
        checks=[_check(check) for check in page.evidence.checks],
        sides=sides,
        viewer=viewer() if any(side.models for side in sides) else None,
        model_columns=COLUMNS,
        same_conditions=bool(page.captions) and list(page.drawn_captions or page.captions) == list(page.captions),
        pictures_note=_pictures_note(page),
        panels=_panels(page.history),
        figures=[_figure(figure) for figure in page.figures],
        recipe={name: _plain(value) for name, value in page.recipe.items()},
        environment=_flat(page.environment),
        undefined=any(not math.isfinite(row.finding.gap) for row in rows),
        wall_time=duration(page.seconds),
    )


def _style(environment: Environment) -> Markup:
    loader = environment.loader
    assert loader is not None
    return Markup(loader.get_source(environment, "style.css")[0])


def _stands_alone(finding: Finding) -> bool:
    return finding.name.lower().startswith(ALONE)


def _row(finding: Finding, anchor: str) -> Row:
    return Row(
        anchor,
        finding,
        verdict.standing(finding),
        verdict.gap(finding),
        verdict.number(finding.distance),
        verdict.number(finding.floor),
        verdict.number(finding.ceiling),
        verdict.probability(finding.p),
        finding.p is not None and finding.p <= ALARM,
        mark(finding),
        Markup(curves.finding_svg(finding, anchor)),
        curves.rival_leaves(finding),
    )


def mark(finding: Finding) -> Mark | None:
    """Where a gap stands on the axis of the gap plot; None where it is not defined."""
    if not math.isfinite(finding.gap):
        return None
    low, high = (bound if math.isfinite(bound) else finding.gap for bound in (finding.gap_low, finding.gap_high))
    clipped = "right" if finding.gap > AXIS[1] else "left" if finding.gap < AXIS[0] else ""
    return Mark(place(finding.gap), place(low), place(high), clipped)


def place(gap: float) -> float:
    """Where a gap lies on the axis, in per cent of its width."""
    inside = min(max(gap, AXIS[0]), AXIS[1])
    return round(100 * (inside - AXIS[0]) / (AXIS[1] - AXIS[0]), 2)


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "value": verdict.measured(check.value, check.error),
        "target": check.target,
        "met": check.met,
        "beside": [(name, verdict.exactly(value)) for name, value in check.beside.items()],
    }


def _sides(page: Page) -> list[Side]:
    rival = f"Rival: {page.rival_name}" if page.rival_name else "Rival"
    sides = [
        ("Nature, held out", "held-out sample", page.nature_pictures, page.nature_models, page.captions),
        ("Drawn", "drawn sample", page.drawn_pictures, page.drawn_models, page.drawn_captions or page.captions),
        (rival, "rival sample", page.rival_pictures, (), page.captions),
    ]
    shown, target = _shown(page), 128 if page.rival_pictures is None else 96
    return [
        Side(title, word, as_pictures(pictures[:shown], captions, target), models(texts[:shown]))
        for title, word, pictures, texts, captions in sides
        if shown and pictures is not None
    ]


def _shown(page: Page) -> int:
    """How many pictures per side: whole rows of four within `PICTURE_BYTES`, at least four."""
    sides = [side for side in (page.nature_pictures, page.drawn_pictures, page.rival_pictures) if side is not None]
    if not page.pictured:
        return 0
    heaviest = sum(images.shrunk(side[:1])[0].size for side in sides)
    return min(page.pictured, max(PICTURE_BYTES // heaviest // 4 * 4, 4), MOST_PICTURES)


def as_pictures(side: images.Images, captions: Sequence[str], target: int) -> list[Picture]:
    """Images (n, height, width, 3) in [0, 1] for the page, enlarged by a whole factor up to `target` pixels."""
    small, _ = images.shrunk(side)
    height, width = small.shape[1:3]
    scale = images.enlargement(height, width, target)
    names = captions or [""] * len(small)
    return [
        Picture(images.data_uri(images.png(image)), width * scale, height * scale, name)
        for image, name in zip(images.as_bytes(small), names, strict=False)
    ]


def _pictures_note(page: Page) -> str:
    nature, drawn = page.nature_pictures, page.drawn_pictures
    if nature is None or drawn is None:
        return ""
    shown = _shown(page)
    height, width = nature.shape[1:3]
    _, block = images.shrunk(nature[:1])
    which = (
        f"The first {shown} of each, in the order in which they came" if shown < max(len(nature), len(drawn)) else f"All {shown} of each"
    )
    size = f"averaged over blocks of {block} x {block} pixels" if block > 1 else "every pixel as it is"
    lost = not (np.isfinite(nature).all() and np.isfinite(drawn).all())
    return f"{which}; {width} x {height} pixels, {size}." + (" Purple pixels are not finite numbers." if lost else "")


def _panels(history: Sequence[Mapping[str, float]]) -> list[Panel]:
    panels = []
    for i, (name, (steps, values)) in enumerate(curves.series(history).items(), 1):
        svg = Markup(curves.history_svg(name, steps, values, f"history-{i}"))
        panels.append(Panel(name, verdict.number(values[-1]), curves.spans_decades(values), svg))
    return panels


def _figure(figure: Figure) -> dict[str, Any]:
    """Small images are shown enlarged by a whole factor, large ones as wide as the page allows."""
    shown = {"title": figure.title, "caption": figure.caption, "uri": images.data_uri(figure.image), "width": None, "scale": 1, "still": ""}
    if isinstance(figure.image, bytes):
        still = images.last_frame(figure.image)
        shown["still"] = images.data_uri(still) if still else ""
        width, height = images.size(figure.image)
        scale = images.enlargement(height, width, 420)
        shown |= {"width": width * scale, "scale": scale}
    return shown


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(part)}" for name, part in value.items())
    return str(value)


def _flat(environment: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested facts as one table: `packages / torch` -> version."""
    rows: dict[str, str] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            rows.update(_flat(value, f"{above}{name} / "))
        else:
            rows[f"{above}{name}"] = _plain(value)
    return rows


def duration(seconds: float | None) -> str:
    """Wall time as people say it: 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds is None or not math.isfinite(seconds):
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
