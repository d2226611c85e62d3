"""Molecules drawn flat, as chemists draw them, and figures for a report. A string that is no molecule is shown as what it is: its text."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from simulacra.evidence import Figure
from simulacra.sciences.drugs import metrics, properties
from simulacra.sciences.drugs.data import Compounds, texts
from simulacra.sciences.drugs.measuring import IDENTITY, SIX, Table, measure
from simulacra.sciences.drugs.tokens import shortened

Array = NDArray[np.float64]

HEIGHT, WIDTH = 200, 260  # pixels of a picture
INK, PAPER = {"nature": "#2a6fb0", "drawn": "#d1601f"}, "white"
RED = "#b3261e"
SHOWN = 12  # structures of each side in a figure
MAPPED = 1000  # rows of each side on the map
AXES = (
    ("logP", "logP"), ("QED", "QED"), ("SA", "SA score"), ("weight", "weight (g/mol)"), ("TPSA", "TPSA (Å²)"),
    ("solubility", "solubility (log mol/L)"),
)  # fmt: skip


def picture(samples: Compounds) -> NDArray[np.float64]:
    """Each row as an image, (n, HEIGHT, WIDTH, 3) in [0, 1], on white."""
    from PIL import Image

    sheets = []
    with rdBase.BlockLogs():
        for string in texts(samples):
            mol = properties.molecule(string)
            if mol is None:
                sheets.append(_words(string))
                continue
            canvas = rdMolDraw2D.MolDraw2DCairo(WIDTH, HEIGHT)
            _draw(canvas, mol)
            sheets.append(np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB"), np.float64) / 255)
    return np.stack(sheets) if sheets else np.ones((0, HEIGHT, WIDTH, 3))


def _draw(canvas: Any, mol: Any) -> None:
    options = canvas.drawOptions()
    options.padding, options.bondLineWidth, options.maxFontSize = 0.06, 1.6, 18
    options.fixedBondLength = 28.0  # the largest that is taken, so that small molecules do not fill the picture
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()


def _words(string: str) -> NDArray[np.float64]:
    """A string that is no molecule, red on white."""
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((12, 10), "no molecule", fill=RED, font=_font(16, bold=True))
    shown = shortened("".join(c if " " <= c <= "~" else "?" for c in string), 200) or "(an empty string)"
    across = 29
    text = "\n".join(shown[i : i + across] for i in range(0, len(shown), across))
    pen.multiline_text((12, 42), text, fill=RED, font=_font(13), spacing=4)
    return np.asarray(sheet, np.float64) / 255


def _font(size: int, bold: bool = False) -> Any:
    from pathlib import Path

    from matplotlib import get_data_path
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


def caption(samples: Compounds) -> list[str]:
    """Each row in words: its string, shortened, and its logP and QED."""
    with rdBase.BlockLogs():
        mols = [properties.molecule(s) for s in texts(samples)]
    found = properties.measured(mols, ("logP", "QED"))
    return [
        f"{shortened(s, 44) or 'empty'}: {'no molecule' if mol is None else f'logP {logp:.1f}, QED {qed:.2f}'}"
        for s, mol, (logp, qed) in zip(texts(samples), mols, found.tolist(), strict=True)
    ]


# ----------------------------------------------------------------------------------------------------------------- figures


def figures(nature: Compounds, drawn: Compounds, seed: int) -> list[Figure]:
    """Structures, properties and chemical space of nature and of what was drawn; only the first where fewer than four of a side are
    molecules."""
    rng = np.random.default_rng([seed, 0xF16])
    found = [
        Figure(
            "Structures",
            "Held-out molecules on the left, drawn strings on the right, none chosen; what is no molecule is red.",
            structures({"held-out nature": _some(nature, SHOWN, rng), "drawn": _some(drawn, SHOWN, rng)}),
        )
    ]  # fmt: skip
    tables = {name: measure(texts(_some(side, MAPPED, rng)), (IDENTITY, SIX)) for name, side in (("nature", nature), ("drawn", drawn))}
    tables = {name: table[table.valid] for name, table in tables.items()}
    if min(map(len, tables.values())) < 4:
        return found
    shares = principal(tables["nature"])[2]
    return [
        *found,
        Figure("Properties", "Densities of what is measured in the valid ones: held-out nature (blue) and drawn (orange).", laws(tables)),
        Figure(
            "Chemical space", "Morgan fingerprints on the two directions in which those of held-out nature differ most (principal "
            f"components, {shares.sum():.1%} of their variance): nature (blue) over drawn, and drawn (orange) over nature.",
            space(tables),
        ),
    ]  # fmt: skip


def _some(samples: Compounds, count: int, rng: np.random.Generator) -> Compounds:
    return samples[np.sort(rng.permutation(len(samples))[:count])]


def structures(sides: dict[str, Compounds], columns: int = 3, width: int = 230, height: int = 160) -> str:
    """An SVG with the rows of each side in a block of its own, side by side."""
    gap, title = 28, 30
    parts, left = [], 0
    rows = max(-(-len(side) // columns) for side in sides.values())
    with rdBase.BlockLogs():
        for name, side in sides.items():
            parts.append(f'<text x="{left + 8}" y="20" font-size="17" font-weight="bold" fill="#222">{name}</text>')
            for i, string in enumerate(texts(side)):
                at = f'transform="translate({left + i % columns * width},{title + i // columns * height})"'
                parts.append(f"<g {at}>{_structure(string, width, height)}</g>")
            left += columns * width + gap
    whole = f"{left - gap} {title + rows * height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}" font-family="DejaVu Sans, Arial, sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def _structure(string: str, width: int, height: int) -> str:
    mol = properties.molecule(string)
    if mol is None:
        shown = shortened("".join(c if " " <= c <= "~" else "?" for c in string), 96) or "(an empty string)"
        lines = ["no molecule", *(shown[i : i + 24] for i in range(0, len(shown), 24))]
        text = "".join(f'<tspan x="12" dy="17">{_escaped(line)}</tspan>' for line in lines)
        return f'<text y="24" font-size="13" fill="{RED}">{text}</text>'
    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = canvas.drawOptions()
    options.clearBackground = False
    _draw(canvas, mol)
    inside = re.search(r"<svg[^>]*>(.*)</svg>", canvas.GetDrawingText(), re.DOTALL)
    return inside[1] if inside else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def laws(tables: dict[str, Table]) -> bytes:
    """Histograms of the properties of both sides, as a PNG."""
    canvas, panels = _canvas(2, 3, (10.5, 5.6))
    for axes, (name, label) in zip(panels, AXES, strict=True):
        values = {side: table.column(name) for side, table in tables.items()}
        values = {side: found[np.isfinite(found)] for side, found in values.items()}
        low, high = np.percentile(values["nature"], [0.1, 99.9])
        room = 0.15 * max(high - low, 1e-3)
        bins = np.linspace(low - room, high + room, 41)
        for side, found in values.items():
            inside = np.clip(found, bins[0], bins[-1])
            axes.hist(inside, bins, density=True, histtype="stepfilled" if side == "nature" else "step", color=INK[side],
                      alpha=0.35 if side == "nature" else 1, lw=1.8, label="held-out nature" if side == "nature" else side)  # fmt: skip
        axes.set(xlabel=label, yticks=[], xlim=(bins[0], bins[-1]))
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    return _png(canvas)


def principal(table: Table) -> tuple[Array, Array, Array]:
    """Mean fingerprint, the two directions (2, bits) of largest spread about it, and their shares of the variance."""
    bits = metrics.unpacked(table.bits).astype(np.float64)
    mean = bits.mean(axis=0)
    _, spread, directions = np.linalg.svd(bits - mean, full_matrices=False)
    directions = directions[:2]
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    return mean, directions, spread[:2] ** 2 / max(float((spread**2).sum()), 1e-12)


def space(tables: dict[str, Table]) -> bytes:
    """Both sides on the principal components of nature's fingerprints, as a PNG."""
    mean, directions, shares = principal(tables["nature"])
    at = {side: (metrics.unpacked(table.bits) - mean) @ directions.T for side, table in tables.items()}
    both = np.concatenate(list(at.values()))
    low, high = both.min(axis=0), both.max(axis=0)
    room = 0.06 * (high - low)
    canvas, panels = _canvas(1, 2, (10.5, 5.0))
    for axes, (side, points) in zip(panels, at.items(), strict=True):
        other = next(name for name in at if name != side)
        axes.scatter(*at[other].T, s=7, color="0.82", lw=0, label="drawn" if other == "drawn" else "held-out nature")
        axes.scatter(*points.T, s=9, color=INK[side], alpha=0.6, lw=0, label="drawn" if side == "drawn" else "held-out nature")
        axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        axes.set_xlabel(f"first component ({shares[0]:.1%} of variance)")
        axes.set_ylabel(f"second component ({shares[1]:.1%} of variance)")
        axes.legend(frameon=False, fontsize=9, markerscale=2, loc="upper right")
        axes.spines[["top", "right"]].set_visible(False)
    return _png(canvas)


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=size, layout="constrained")
    panels: Sequence[Any] = canvas.subplots(rows, columns, squeeze=False).ravel().tolist()
    return canvas, panels


def _png(canvas: Any) -> bytes:
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    return file.getvalue()
