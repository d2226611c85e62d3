"""What the denoisers of radio traces share: the traces they learn from, what can be asked of them, pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator

from simulacra.sciences.airshower import reading, simulate, statistics
from simulacra.sciences.airshower.data import Traces, signal_to_noise
from simulacra.study import Recipe, Refused, Split

FEWEST = 60  # traces that can be divided into three parts
ASKED = 1 << 20  # added to the seed: other traces than those of training

CONDITIONS = {
    "traces": "File of measured traces, .npz, .h5 or .csv, to denoise the first of; default: simulated ones.",
    "background": f"Background of simulated ones: {', '.join(simulate.BACKGROUNDS)}; default: as in training.",
    "snr": "Their signal-to-noise ratio, max |signal| over the RMS of the trace; two, separated by a comma, are the ends of a range.",
}


class TraceRecipe(Recipe):
    """Which traces to learn from; without data, they are simulated."""

    background: Literal["measured", "uniform", "cosine", "white"] = Field(
        "measured", description="Simulated background: galactic noise and transmitters, even values, one wave, or white noise."
    )
    snr: tuple[float, ...] = Field((2.0,), description="Max |signal| over the RMS of the trace: one value, or lowest and highest.")
    index: float = Field(1.0, ge=-5, le=5, description="Law of a range: p(SNR) ~ SNR^-index; 1 is even in the logarithm, 3 as the flux.")
    share: float = Field(0.5, gt=0, lt=1, description="Share of the simulated traces that hold a pulse.")
    lines: float = Field(simulate.LINES, ge=0, lt=1, description="Share of transmitters in the power of the measured background.")
    simulated: PositiveInt = Field(50_000, description="Traces simulated: 7/10 to learn from, 1/10 to validate, 2/10 held out.")
    length: int = Field(simulate.STEPS, ge=64, le=65536, description="Steps of a trace; those of yours must have as many.")
    rate: float = Field(simulate.RATE, gt=0, le=10_000, description="Sampling rate in MHz; that of your traces must be the same.")

    @field_validator("snr")
    @classmethod
    def _range(cls, snr: tuple[float, ...]) -> tuple[float, ...]:
        if not 1 <= len(snr) <= 2 or min(snr) <= 0 or snr[0] > snr[-1]:
            raise ValueError(f"snr {','.join(map(str, snr))} is neither one number above 0 nor the lowest and the highest")
        return snr


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: TraceRecipe) -> Split[Traces]:
    """Simulated traces, or yours with their true signals, divided in the order in which they come: 7/10, 1/10 and 2/10."""
    if recipe.data is None:
        found, name, rejected = simulated(recipe, recipe.simulated, recipe.seed), "simulated radio traces", []
    else:
        given = reading.given(recipe.data, recipe, recipe.rate)
        found, name, rejected = given.usable, f"{recipe.data.name}: traces", list(given.rejected)
        known = ~found.signal.isnan().any(1)
        if not bool(known.any()):
            raise Refused(f"{recipe.data}: holds no `signals`; a denoiser learns from traces whose true pulse is known, zero where none is")
        rejected += [f"{recipe.data} trace {int(row)}: its true signal is not known" for row in (~known).nonzero()[:, 0]]
        found = found[known]
    n = len(found)
    if n < FEWEST:
        raise Refused(f"{name}: {n} can be used; {FEWEST} or more can be divided into training, validation and held-out traces")
    first, second = n * 7 // 10, n * 8 // 10
    digest = {f"{name}, seed {recipe.seed}": _sum(found)} if recipe.data is None else {str(recipe.data): reading.checksum(recipe.data)}
    line = f"{name}, {recipe.length} steps at {recipe.rate:g} MHz ({recipe.length / recipe.rate:.2f} us): {first} to learn from, "
    line += f"{second - first} to validate, {n - second} held out; {_background(recipe)}{strength(found)}"
    return Split(found[:first], found[first:second], found[second:], line, digest, rejected)


def simulated(recipe: TraceRecipe, n: int, seed: int) -> Traces:
    """`n` traces as the recipe describes them."""
    return simulate.simulate(
        n, recipe.background, snr=recipe.snr, share=recipe.share, index=recipe.index, lines=recipe.lines, steps=recipe.length,
        rate=recipe.rate, seed=seed,
    )  # fmt: skip


def _background(recipe: TraceRecipe) -> str:
    return "" if recipe.data else f"{recipe.background} background of RMS {simulate.LEVEL:g} mV; "


def strength(found: Traces) -> str:
    """How many traces hold a pulse, and how strong it is by both definitions."""
    there = found.presence == 1
    if not bool(there.any()):
        return "none holds a pulse"
    ratios = [f"{x[there].mean():.2f} (scatter {x[there].std(unbiased=False):.2f})" for x in signal_to_noise(found)]
    return (
        f"{100 * there.float().mean():.0f} % hold a pulse, of SNR max|signal|/RMS(trace) {ratios[0]}; its peak over the RMS of the noise "
        f"alone is {ratios[1]}"
    )


def _sum(found: Traces) -> str:
    return hashlib.sha256(found.measured.numpy().tobytes()).hexdigest()


def read(path: Path) -> Traces:
    """Traces that any program wrote: measured ones, or recovered ones with spread and presence."""
    return reading.read(path)


def read_as(path: Path, recipe: TraceRecipe) -> Traces:
    """The same, where their length and sampling rate are those of the recipe; otherwise Refused."""
    return reading.given(path, recipe).usable


# -------------------------------------------------------------------------------------------------------------- asking


def ask(recipe: TraceRecipe, n: int, conditions: Mapping[str, str]) -> Traces:
    """The first n traces of the file `traces`, or n simulated ones, whose signal is to be recovered."""
    unknown = set(conditions) - set(CONDITIONS)
    if unknown:
        raise Refused(f"traces are denoised, not drawn under {', '.join(sorted(unknown))}; there are {', '.join(CONDITIONS)}")
    if "traces" in conditions:
        if len(conditions) > 1:
            raise Refused("--background and --snr are of simulated traces; --traces FILE brings its own")
        return read_as(Path(conditions["traces"]), recipe)[:n]
    changes: dict[str, Any] = {name: conditions[name] for name in ("background",) if name in conditions}
    if "snr" in conditions:
        changes["snr"] = conditions["snr"].split(",")
    try:
        wished = TraceRecipe.model_validate({**recipe.model_dump(include=set(TraceRecipe.model_fields)), **changes})
    except ValueError as error:
        said = ", ".join(f"{name} {value}" for name, value in conditions.items())
        raise Refused(f"{said} cannot be simulated; e.g. --background white --snr 1.5,3 ({', '.join(simulate.BACKGROUNDS)})") from error
    return simulated(wished, n, recipe.seed + ASKED)


def caption(found: Traces) -> list[str]:
    """Whether there is a pulse, and how large."""
    words = []
    for presence, peak in zip(found.presence.tolist(), found.signal.abs().amax(1).tolist(), strict=True):
        sure = "" if presence in (0, 1) or math.isnan(presence) else f", p = {presence:.2f}"
        words.append("no pulse" if presence == 0 else f"pulse of {peak:.2g} mV{sure}" if math.isfinite(peak) else "pulse not known")
    return words


# ------------------------------------------------------------------------------------------------------------- pictures

WIDE, HIGH = 300, 200  # px of a picture
INK = {"measured": (190, 190, 190), "truth": (200, 60, 30), "recovered": (20, 90, 170), "band": (190, 215, 240)}


def picture(found: Traces) -> NDArray[np.float32]:
    """(n, HIGH, WIDE, 3) in [0, 1]: the measured trace in grey over time, and on it its signal: true in red, recovered in blue on a
    band of twice its spread. All on one scale in mV."""
    from PIL import Image, ImageDraw

    measured, signal, spread = (v.double().cpu().numpy() for v in (found.measured, found.signal, found.spread))
    length = found.steps / float(found.rate[0])
    top = _round_up(float(np.nanquantile(np.abs(measured).max(1), 0.95)) * 1.1)
    page, (left, right, upper, lower) = _axes(round(length, 6), top)
    x = left + (np.arange(found.steps) + 0.5) / found.steps * (right - left)

    def line(values: NDArray[Any]) -> list[tuple[float, float]]:
        y = (upper + lower) / 2 - np.clip(values / top, -1, 1) * (lower - upper) / 2
        return list(zip(x.tolist(), y.tolist(), strict=True))

    pages = []
    for row in range(len(found)):
        sheet = Image.fromarray(page)
        pen = ImageDraw.Draw(sheet)
        told = np.isfinite(signal[row]).all()
        sure = told and np.isfinite(spread[row]).all() and bool((spread[row] > 0).any())
        if sure:
            low, high = line(signal[row] - 2 * spread[row]), line(signal[row] + 2 * spread[row])
            pen.polygon(high + low[::-1], fill=INK["band"])
        pen.line(line(measured[row]), fill=INK["measured"], width=2)
        if told:
            truth = not bool((spread[row] > 0).any())
            pen.line(line(signal[row]), fill=INK["truth" if truth else "recovered"], width=4)
        pages.append(np.asarray(sheet.resize((WIDE, HIGH), Image.Resampling.LANCZOS), np.float32) / 255)
    return np.stack(pages) if pages else np.zeros((0, HIGH, WIDE, 3), np.float32)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ... above."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


@lru_cache(maxsize=16)
def _axes(length: float, top: float) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """An empty picture of twice the size with its axes, drawn once for all rows, and the px of its left, right, upper and lower edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * WIDE / 200, 2 * HIGH / 200), dpi=200)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.19, 0.21, 0.78, 0.74))
    axes.set(xlim=(0, length), ylim=(-top, top))
    axes.set_xlabel("time (\N{MICRO SIGN}s)", fontsize=8)
    axes.set_ylabel("voltage (mV)", fontsize=8)
    axes.set_yticks([-top, -top / 2, 0, top / 2, top])
    axes.tick_params(labelsize=7)
    canvas.draw()
    box = axes.get_window_extent()
    sheet = np.array(canvas.buffer_rgba(), np.uint8)[..., :3].copy()
    high = len(sheet)
    return sheet, (box.x0, box.x1, high - box.y1, high - box.y0)


SYSTEM: dict[str, Any] = {  # fields of every study here
    "load": load, "judge": statistics.judge, "read": read, "read_as": read_as, "write": reading.write, "ask": ask, "picture": picture,
    "caption": caption, "conditions": CONDITIONS, "formats": reading.FORMATS[1:], "export": reading.export, "denoises": reading.records,
}  # fmt: skip
