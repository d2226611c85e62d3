"""Findings and training histories as curves: on paper for the summary, and as SVG that takes its colours from the page.

For the page every colour is a placeholder that becomes a CSS variable, so that one drawing serves the light and the dark
page; text stays text. Truth is a solid line with its band, drawn a line with dots, the rival dash-dotted, an exact result
dashed: no reader depends on colour. The colours are those of Okabe and Ito, lightened for the dark page.
"""

from __future__ import annotations

import dataclasses
import html
import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from simulacra.evidence import Finding

Array = NDArray[np.float64]
Axes = Any

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DASHES = {"rival": (0, (6, 2, 1.5, 2)), "exact": (0, (4, 2))}


@dataclasses.dataclass(frozen=True)
class Palette:
    """What each kind of line is drawn in."""

    ink: str
    muted: str
    rule: str
    drawn: str
    rival: str
    exact: str


PAPER = Palette(ink="#16191d", muted="#4d545c", rule="#d5d9de", drawn="#0072b2", rival="#d55e00", exact="#007a59")
PAGE = Palette(ink="#010001", muted="#010002", rule="#010003", drawn="#010004", rival="#010005", exact="#010006")
VARIABLES = {color: f"var(--{name})" for name, color in dataclasses.asdict(PAGE).items()}


@dataclasses.dataclass(frozen=True)
class Look:
    """What tells one of several runs from the others: by colour, and without."""

    color: str
    dash: Any  # as matplotlib takes it
    marker: str


RUNS = tuple(
    Look(f"#0101{i:02d}", dash, marker)
    for i, (dash, marker) in enumerate(
        [
            ("-", "o"), ((0, (5, 1.5)), "s"), ((0, (1.5, 1.2)), "^"), ((0, (6, 1.5, 1.5, 1.5)), "D"), ((0, (9, 2)), "v"),
            ((0, (3, 1.2, 1, 1.2, 1, 1.2)), "P"), ((0, (2, 2)), "X"), ((0, (8, 1.5, 3, 1.5)), "*"),
        ],
        1,
    )
)  # fmt: skip
VARIABLES |= {look.color: f"var(--run-{i})" for i, look in enumerate(RUNS, 1)}

STYLE: dict[str, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
    "text.usetex": False,
    "path.simplify": True,
    "axes.formatter.use_mathtext": False,
}


def style(salt: str = "simulacra") -> Any:
    """The context all drawing happens in: matplotlib's defaults and ours, whatever the user's settings are."""
    return mpl.style.context(["default", {**STYLE, "svg.hashsalt": salt}])


def finding_svg(finding: Finding, salt: str) -> str:
    """The finding as an inline SVG element in the page's colours."""
    with style(salt), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's fonts will show it
        figure, axes = _canvas(height=205)
        draw_finding(axes, finding, PAGE)
        _place(axes, above=bool(finding.unit), below=len(finding.grid) > 1 and bool(finding.grid_name))
        return _inline(figure, _described(finding))


def overlaid_svg(findings: Sequence[Finding], salt: str) -> str:
    """A curve of several runs, of one nature and at most as many as `RUNS`: nature with its band, and every run's line."""
    with style(salt), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure, axes = _canvas(height=225)
        draw_overlaid(axes, findings, PAGE)
        _place(axes, above=bool(findings[0].unit), below=bool(findings[0].grid_name))
        return _inline(figure, f"{findings[0].name} against {findings[0].grid_name}: nature with its band and {len(findings)} runs")


def draw_overlaid(axes: Axes, findings: Sequence[Finding], palette: Palette) -> None:
    """The same on one pair of axes."""
    first = findings[0]
    _dress(axes, palette)
    for low, high, alpha in _bands(first):
        axes.fill_between(first.grid, low, high, color=palette.ink, alpha=alpha, lw=0, step="mid" if first.bars else None)
    steps = "steps-mid" if first.bars else "default"
    axes.plot(first.grid, first.truth, color=palette.ink, lw=1.8, drawstyle=steps)
    if first.exact is not None:
        axes.plot(first.grid, first.exact, color=palette.exact, lw=1.6, ls=DASHES["exact"])
    every = max(1, len(first.grid) // 8)
    for place, (finding, look) in enumerate(zip(findings, RUNS, strict=False)):
        first_marked = place * every // len(findings)  # markers of different runs at different places
        axes.plot(
            finding.grid, finding.drawn, color=look.color, lw=1.5, ls=look.dash, marker=look.marker, ms=4.6, mew=0,
            markevery=(first_marked, every), drawstyle=steps,
        )  # fmt: skip
    _label(axes, first.unit, first.grid_name, palette)
    log = first.log_grid and _any_positive(first.grid)
    axes.set_xscale("log" if log else "linear")
    _ticks(axes.xaxis, first.grid, log=log)
    _fit_values(axes, dataclasses.replace(first, drawn=np.concatenate([f.drawn for f in findings]), rival=np.zeros(0)))


def history_svg(name: str, steps: Array, values: Array, salt: str) -> str:
    """One scalar of the training history, raw and smoothed."""
    with style(salt), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure, axes = _canvas(height=165)
        draw_history(axes, steps, values, PAGE)
        _place(axes, above=False, below=True)
        return _inline(figure, f"{name} against training step")


def _canvas(height: float, width: float = 316) -> tuple[Any, Axes]:
    """Sizes in points. The axes are placed by hand: matplotlib's own layout draws everything twice."""
    figure = Figure(figsize=(width / 72, height / 72))
    return figure, figure.add_axes((0, 0, 1, 1))


def _place(axes: Axes, *, above: bool, below: bool) -> None:
    """Leave room for the labels: the widest tick label decides on the left."""
    width, height = (72 * side for side in axes.figure.get_size_inches())
    low, high = axes.get_ylim()
    labels = [tick(value) for value in axes.yaxis.get_major_locator().tick_values(low, high) if low <= value <= high]
    left = 6.4 * max(map(len, labels), default=1) + 9
    lines = 1 + axes.get_xlabel().count("\n") if below else 0
    bottom = 19 + 13 * lines + (0 if below else 12 * max(t.get_text().count("\n") for t in axes.get_xticklabels()))
    top = 6 + (12 + 12 * axes.get_title(loc="left").count("\n") if above else 0)
    axes.set_position((left / width, bottom / height, (width - left - 12) / width, (height - bottom - top) / height))


def draw_finding(axes: Axes, finding: Finding, palette: Palette, letters: int = 54) -> None:
    """One finding on one pair of axes: a number, a histogram or a curve; labels wrap at so many letters."""
    _dress(axes, palette)
    if len(finding.grid) == 1:
        _draw_number(axes, finding, palette)
    elif finding.bars:
        _draw_steps(axes, finding, palette)
    else:
        _draw_lines(axes, finding, palette)
    _label(axes, finding.unit, "" if len(finding.grid) == 1 else finding.grid_name, palette, letters)
    if len(finding.grid) > 1:
        log = finding.log_grid and _any_positive(finding.grid)
        axes.set_xscale("log" if log else "linear")
        _ticks(axes.xaxis, finding.grid, log=log)
    _fit_values(axes, finding)


def draw_history(axes: Axes, steps: Array, values: Array, palette: Palette) -> None:
    """The raw scalar thin and pale, its running mean over a fiftieth of the run on top."""
    _dress(axes, palette)
    log = spans_decades(values)
    x, y = thinned(steps, values)
    axes.plot(x, y, color=palette.drawn, lw=0.8, alpha=0.4)
    axes.plot(*thinned(steps, smoothed(values, log=log)), color=palette.drawn, lw=1.8, marker="o" if len(x) <= 40 else "", ms=3.6)
    _label(axes, "", "step", palette)
    axes.set_yscale("log" if log else "linear")
    _ticks(axes.xaxis, steps, log=False)
    _ticks(axes.yaxis, values, log=log)


def spans_decades(values: Array) -> bool:
    """Whether a logarithmic axis tells more: all positive, and the largest a hundred times the smallest."""
    return bool(len(values)) and bool(values.min() > 0) and bool(values.max() >= 100 * values.min())


def smoothed(values: Array, *, log: bool = False) -> Array:
    """Centred running mean over a fiftieth of the series (geometric on a logarithmic axis); at the ends, of what there is."""
    half = len(values) // 100
    if half == 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(np.log(values) if log else values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    mean: Array = (sums[last] - sums[first]) / (last - first)
    return np.exp(mean) if log else mean


def thinned(steps: Array, values: Array, most: int = 800) -> tuple[Array, Array]:
    """At most `most` points that keep every extreme: the smallest and the largest value of each stretch, in order."""
    if len(values) <= most:
        return steps, values
    keep: list[int] = []
    for part in np.array_split(np.arange(len(values)), most // 2):
        keep.extend(sorted({int(part[values[part].argmin()]), int(part[values[part].argmax()])}))
    return steps[keep], values[keep]


def _draw_lines(axes: Axes, f: Finding, palette: Palette) -> None:
    for low, high, alpha in _bands(f):
        axes.fill_between(f.grid, low, high, color=palette.ink, alpha=alpha, lw=0)
    axes.plot(f.grid, f.rival, color=palette.rival, lw=1.4, ls=DASHES["rival"])
    axes.plot(f.grid, f.truth, color=palette.ink, lw=1.6)
    if f.exact is not None:
        axes.plot(f.grid, f.exact, color=palette.exact, lw=1.6, ls=DASHES["exact"])
    dots = "o" if len(f.grid) <= 32 else ""
    axes.plot(f.grid, f.drawn, color=palette.drawn, lw=1.8, marker=dots, ms=3.6)


def _draw_steps(axes: Axes, f: Finding, palette: Palette) -> None:
    edges = bin_edges(f.grid, log=f.log_grid and _any_positive(f.grid))
    for low, high, alpha in _bands(f):
        axes.stairs(high, edges, baseline=low, fill=True, color=palette.ink, alpha=alpha, lw=0)
    axes.stairs(f.rival, edges, baseline=None, color=palette.rival, lw=1.4, ls=DASHES["rival"])
    axes.stairs(f.truth, edges, baseline=None, color=palette.ink, lw=1.6)
    if f.exact is not None:
        axes.plot(f.grid, f.exact, color=palette.exact, lw=1.6, ls=DASHES["exact"])
    axes.stairs(f.drawn, edges, baseline=None, color=palette.drawn, lw=1.8)
    if len(f.grid) <= 24:
        axes.plot(f.grid, f.drawn, color=palette.drawn, lw=0, marker="o", ms=3.2)


def _bands(f: Finding) -> list[tuple[Array, Array, float]]:
    """Lower and upper edge and opacity of the bands of two and of one standard error; a histogram has nothing below 0."""
    least = 0.0 if f.bars else -np.inf
    return [(np.maximum(f.truth - k * f.band, least), f.truth + k * f.band, alpha) for k, alpha in ((2, 0.14), (1, 0.22))]


def _draw_number(axes: Axes, f: Finding, palette: Palette) -> None:
    """A finding without a grid: one dot each, side by side, the truth with its error."""
    truth, band = float(f.truth[0]), float(f.band[0])
    for width, alpha in ((2, 0.14), (1, 0.22)):
        axes.axhspan(truth - width * band, truth + width * band, color=palette.ink, alpha=alpha, lw=0)
    axes.axhline(truth, color=palette.ink, lw=1.0)
    shown = [("nature", truth, palette.ink, "o"), ("drawn", float(f.drawn[0]), palette.drawn, "D")]
    shown.append((_wrapped(f.rival_name or "rival", 12), float(f.rival[0]), palette.rival, "s"))
    if f.exact is not None:
        shown.append((_wrapped(f.exact_name or "exact", 12), float(f.exact[0]), palette.exact, "^"))
    for place, (_, value, color, marker) in enumerate(shown):
        axes.plot([place], [value], color=color, marker=marker, ms=7, lw=0)
    axes.set_xticks(range(len(shown)), [name for name, *_ in shown], parse_math=False)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.grid(False, axis="x")


def bin_edges(centres: Array, *, log: bool) -> Array:
    """Edges halfway between the centres (in ratio on a logarithmic grid); the outer ones mirror the inner."""
    c = np.log(centres) if log else np.asarray(centres, float)
    middle = (c[1:] + c[:-1]) / 2
    edges = np.concatenate([[2 * c[0] - middle[0]], middle, [2 * c[-1] - middle[-1]]])
    return np.exp(edges) if log else edges


def _fit_values(axes: Axes, f: Finding) -> None:
    """Vertical limits: truth with its band, drawn and exact entire; the rival at most triples the height of a curve."""
    inside, far, log = _heights(f)
    low, high = _limits(inside, far)
    if log:
        axes.set_yscale("log")
        low, high = 10**low, 10**high
    axes.set_ylim(low, high)
    _ticks(axes.yaxis, np.asarray([low, high]), log=log)


def rival_leaves(f: Finding) -> bool:
    """Whether part of the rival lies outside the picture."""
    inside, far, _ = _heights(f)
    low, high = _limits(inside, far)
    return bool((far < low).any() or (far > high).any())


def _heights(f: Finding) -> tuple[Array, Array, bool]:
    """What must be inside the picture, what may leave it, and whether both are decades of a logarithmic axis."""
    log = f.log_values and _any_positive(f.truth)
    curves = _finite(np.concatenate([f.truth, f.drawn, *([] if f.exact is None else [f.exact])]), log)
    bands = _finite(np.concatenate([*_bands(f)[0][:2]]), log)
    if log and len(curves):
        bands = bands[bands > curves.min() - 1.0]  # a band that touches 0 would take the axis down without end
    inside, rival = np.concatenate([curves, bands]), _finite(f.rival, log)
    return (inside, rival, log) if len(f.grid) > 1 else (np.concatenate([inside, rival]), rival, log)


def _limits(inside: Array, far: Array) -> tuple[float, float]:
    if not len(inside):
        inside = far if len(far) else np.asarray([0.0, 1.0])
    low, high = float(inside.min()), float(inside.max())
    room = (high - low) or abs(high) or 1.0
    if len(far):
        low, high = max(min(low, float(far.min())), low - room), min(max(high, float(far.max())), high + room)
    margin = 0.06 * ((high - low) or room)
    return low - margin, high + margin


def _finite(values: Array, log: bool) -> Array:
    """Finite values, as decades on a logarithmic axis."""
    values = values[np.isfinite(values)]
    return np.log10(values[values > 0]) if log else values


def _any_positive(values: Array) -> bool:
    return bool((np.isfinite(values) & (values > 0)).any())


def _ticks(axis: Any, values: Array, *, log: bool) -> None:
    """Ticks at round numbers, few enough to read, labelled in plain text."""
    positive = values[np.isfinite(values) & (values > 0)]
    if log and len(positive):
        decades = math.log10(positive.max() / positive.min())
        axis.set_major_locator(_log_locator(decades))
        axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=20) if 1 <= decades <= 6 else NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _log_locator(decades: float) -> Any:
    if decades >= 1.6:
        return LogLocator(numticks=6)
    if decades >= 0.7:
        return LogLocator(subs=(1, 2, 5), numticks=9)
    return MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10])


def tick(value: float) -> str:
    """A tick label: 0.05, 300, 2×10⁻⁵."""
    if value == 0:
        return "0"
    if 1e-3 * 0.999 <= abs(value) < 1e5:
        return f"{value:.8g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPT)
    factor = f"{float(mantissa):g}"
    return {"1": power, "-1": f"-{power}"}.get(factor, f"{factor}×{power}")


def _dress(axes: Axes, palette: Palette) -> None:
    axes.grid(True, color=palette.rule)
    axes.tick_params(colors=palette.muted, length=3, width=0.8, which="both")
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(palette.muted)


def _label(axes: Axes, unit: str, grid_name: str, palette: Palette, letters: int = 54) -> None:
    """The unit of the curve lies above its axis, where it reads without turning the head."""
    if unit:
        axes.set_title(_wrapped(unit, letters), loc="left", fontsize=10, color=palette.muted, parse_math=False)
    if grid_name:
        axes.set_xlabel(_wrapped(grid_name, letters), color=palette.muted, parse_math=False)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width)


def _described(f: Finding) -> str:
    exact = f", {f.exact_name or 'exact'}" if f.exact is not None else ""
    axis = f" against {f.grid_name}" if len(f.grid) > 1 else ""
    return f"{f.name}{axis}: nature with its band, drawn, rival {f.rival_name}{exact}"


def _inline(figure: Figure, label: str) -> str:
    """The figure as an SVG element to stand inside HTML: no prolog, no metadata, no identifiers that could clash."""
    figure.patch.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    text = f'<svg {box.group()} role="img" aria-label="{html.escape(label)}">' + text[text.index(">") + 1 :]
    for color, variable in VARIABLES.items():
        text = text.replace(color, variable)
    return _lighter(text)


def _lighter(svg: str) -> str:
    """Coordinates to a hundredth of a point, fonts from the page, no rotation by nothing."""
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = svg.replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    svg = re.sub(r'\b(?:d|x|y)="[-\d.MLCQz\s]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), svg)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).replace(" \n", "\n").strip()


def series(history: Sequence[Mapping[str, float]]) -> dict[str, tuple[Array, Array]]:
    """The finite values of each scalar with the steps they belong to, in order of first appearance."""
    collected: dict[str, tuple[list[float], list[float]]] = {}
    for place, row in enumerate(history):
        step = float(row.get("step", place))
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                steps, values = collected.setdefault(name, ([], []))
                steps.append(step)
                values.append(float(value))
    return {name: (np.asarray(steps), np.asarray(values)) for name, (steps, values) in collected.items()}
