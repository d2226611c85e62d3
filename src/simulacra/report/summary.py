"""One picture that says what the page says: samples, the worst curves, all gaps. 1600 x 900, for a README or a slide."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from simulacra import verdict
from simulacra.evidence import ALARM, Finding
from simulacra.report import curves, images
from simulacra.report.curves import PAPER

if TYPE_CHECKING:
    from simulacra.report import Page

WIDTH, HEIGHT, DPI = 1600, 900, 100
TOP = 150  # pixels for the heading
LOOK = {
    verdict.Standing.NATURE: ("o", PAPER.exact),
    verdict.Standing.NEAR: ("D", PAPER.drawn),
    verdict.Standing.APART: ("^", "#9a6a00"),
    verdict.Standing.RIVAL: ("s", PAPER.rival),
    verdict.Standing.UNDECIDED: ("o", PAPER.muted),
    verdict.Standing.UNDEFINED: ("", PAPER.muted),
}
MOST_GAPS = 20


def summary_as_png(page: Page) -> bytes:
    """The picture as PNG; equal pages give equal bytes."""
    with curves.style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
        _heading(figure, page)
        left = 40
        if page.pictured:
            _pictures(figure, page, left, width=400)
            left += 440
        findings = page.evidence.worst_first()
        if findings:
            _worst(figure, findings, left, right=1010)
            _gaps(figure, findings[:MOST_GAPS], len(findings), left=1050)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Pixels from the top left corner as matplotlib's fractions from the bottom left."""
    return left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT


def _write(figure: Any, left: float, top: float, text: str, size: float, color: str = PAPER.ink, **more: Any) -> None:
    figure.text(left / WIDTH, 1 - top / HEIGHT, text, fontsize=size, color=color, va="top", parse_math=False, **more)


def _heading(figure: Any, page: Page) -> None:
    recipe = f"  {page.recipe_name}" if page.recipe_name else ""
    _write(figure, 40, 26, f"{page.study}{recipe}", 12, PAPER.muted, family="monospace")
    _write(figure, 40, 52, _cut(page.title, 105), 22 if len(page.title) < 72 else 18, weight="bold")
    answer = verdict.can_be_told(page.evidence)
    if verdict.tested(page.evidence):
        answer += f" (p = {verdict.probability(page.evidence.p)}, alarm at {ALARM:g})"
    samples = f"{page.evidence.nature_rows} held-out and {page.evidence.drawn_rows} drawn samples"
    _write(figure, 40, 94, f"{answer}; {samples}.", 15, PAPER.rival if page.evidence.differs else PAPER.ink)


def _cut(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _pictures(figure: Any, page: Page, left: int, width: int) -> None:
    """Held-out above drawn, as many of each, pixel for pixel."""
    height = 320
    for side, title, top in ((page.nature_pictures, "nature, held out", TOP), (page.drawn_pictures, "drawn", TOP + height + 55)):
        if side is None:
            continue
        _write(figure, left, top, title, 13, weight="bold")
        canvas, _ = images.mosaic(side[: page.pictured], width, height)
        rows = canvas.shape[0]
        figure.figimage(canvas, xo=left, yo=HEIGHT - top - 28 - rows, origin="upper", zorder=1)


def _worst(figure: Any, findings: list[Finding], left: int, right: int) -> None:
    """The four worst findings that are curves, in two columns; numbers without a grid only where curves are few."""
    columns, gap = 2, 60
    across = (right - left - gap * (columns - 1)) / columns
    shown = sorted(findings, key=lambda f: len(f.grid) == 1)[:4]
    for place, finding in enumerate(shown):
        x = left + (place % columns) * (across + gap) + 50
        y = TOP + (place // columns) * 355
        width = across - 50
        lines = _two_lines(finding.name, int(across / 7.9))
        for row, line in enumerate(lines):
            _write(figure, x - 50, y + 17 * row, line, 10, weight="bold")
        below = y + 17 * len(lines) + 2
        _write(figure, x - 50, below, f"gap {verdict.gap(finding)}", 9, PAPER.muted)
        _write(figure, x - 50, below + 14, _cut(f"rival: {finding.rival_name}", int(across / 6)), 9, PAPER.muted)
        axes = figure.add_axes(_box(x, y + 82, width, 185))
        curves.draw_finding(axes, finding, PAPER, letters=int(across / 7.5))
    _key(figure, shown, left)


def _two_lines(name: str, width: int) -> list[str]:
    lines = textwrap.wrap(name, width) or [""]
    return lines[:2] if len(lines) <= 2 else [lines[0], _cut(" ".join(lines[1:]), width)]


def _key(figure: Any, findings: list[Finding], left: int) -> None:
    lines = [
        (Line2D([], [], color=PAPER.ink, lw=1.8), Patch(color=PAPER.ink, alpha=0.2, lw=0)),
        Line2D([], [], color=PAPER.drawn, lw=2, marker="o", ms=4),
        Line2D([], [], color=PAPER.rival, lw=1.6, ls=curves.DASHES["rival"]),
    ]
    names = ["nature ± 1, 2 se", "drawn", "rival"]
    if any(f.exact is not None for f in findings):
        lines.append(Line2D([], [], color=PAPER.exact, lw=1.6, ls=curves.DASHES["exact"]))
        names.append("exact")
    where = (left / WIDTH, 10 / HEIGHT)
    figure.legend(lines, names, loc="lower left", bbox_to_anchor=where, ncols=4, frameon=False, fontsize=11, labelcolor=PAPER.ink)


def _gaps(figure: Any, findings: list[Finding], total: int, left: int) -> None:
    more = f" ({total - len(findings)} better ones not shown)" if total > len(findings) else ""
    _write(figure, left, TOP, f"gap to nature, worst first{more}", 13, weight="bold")
    name_width, top = 245, TOP + 62
    height = min(38.0, (HEIGHT - top - 40) / len(findings)) * len(findings)
    axes = figure.add_axes(_box(left + name_width, top, WIDTH - left - name_width - 75, max(height, 30)))
    axes.set_xlim(-0.2, 1.2)
    axes.set_ylim(len(findings) - 0.5, -0.5)
    for at, line in ((0.0, "-"), (1.0, "--")):
        axes.axvline(at, color=PAPER.muted, lw=1.2, ls=line, zorder=0)
    for row, finding in enumerate(findings):
        _gap(axes, row, finding)
    _dress(axes, findings)


def _dress(axes: Any, findings: list[Finding]) -> None:
    axes.set_yticks(range(len(findings)), [_cut(f.name, 30) for f in findings], fontsize=10.5, color=PAPER.ink, parse_math=False)
    axes.set_xticks([0, 1], ["0\nnature", "1\nrival"], fontsize=11, color=PAPER.muted)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(True, axis="y", color=PAPER.rule, lw=0.8)
    axes.grid(False, axis="x")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _gap(axes: Any, row: int, finding: Finding) -> None:
    marker, color = LOOK[verdict.standing(finding)]
    if not math.isfinite(finding.gap):
        axes.text(0.04, row, verdict.UNDEFINED, va="center", fontsize=10.5, color=PAPER.muted, style="italic")
        return
    axes.text(1.26, row, verdict.gap(finding).split(" [")[0], va="center", fontsize=10.5, color=PAPER.ink, clip_on=False)
    low, high = (b if math.isfinite(b) else finding.gap for b in (finding.gap_low, finding.gap_high))
    axes.plot([min(max(bound, -0.2), 1.2) for bound in (low, high)], [row, row], color=color, lw=3, clip_on=False)
    at = min(max(finding.gap, -0.2), 1.2)
    beyond = ">" if finding.gap > 1.2 else "<" if finding.gap < -0.2 else marker
    face = "white" if verdict.standing(finding) is verdict.Standing.UNDECIDED else color
    axes.plot([at], [row], color=color, marker=beyond, ms=8, mfc=face, clip_on=False)
