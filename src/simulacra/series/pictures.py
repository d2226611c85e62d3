"""Series and their forecasts as pictures: fans, posteriors, components, calibration and skill as PNG, and thumbnails as arrays.

Darker is likelier: the bands hold 50, 80 and 95 %. Blue is the forecast, orange its middle, black what was observed; lines also differ
by style, so that no reader depends on colour. Days are counted since 1970-01-01 and shown as dates.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from simulacra.measures.scores import quantiles_of
from simulacra.series.windows import Outlook, date_of

Array = NDArray[np.float64]
Axes = Any

BANDS = (0.95, 0.8, 0.5)
TINTS = ("#d3e3f3", "#a3c7e6", "#6ba3d3")  # of the bands, widest first
INK, MUTED, RULE, MIDDLE, PATH = "#16191d", "#5a626b", "#d9dde2", "#c2500a", "#1b5e98"
RIVALS = ("#0072b2", "#c2500a", "#16191d", "#8a5fb0", "#6b7178", "#b8860b")
MARKS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[str, Any] = {
    "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.8, "axes.grid": True, "axes.axisbelow": True, "grid.color": RULE,
    "grid.linewidth": 0.6, "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.titlesize": 10.0,
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8.0, "text.parse_math": False, "text.usetex": False,
}  # fmt: skip
HEIGHT, WIDTH, FINER = 160, 240, 2  # pixels of a thumbnail, and how much finer it is drawn before it is averaged down
SHOWN = 3  # horizons of past that a thumbnail shows


def fan(
    days_past: ArrayLike, past: ArrayLike, days_ahead: ArrayLike, truth: ArrayLike | None, members: ArrayLike, unit: str, title: str
) -> bytes:  # fmt: skip
    """One forecast: the past (P,), and for the days ahead (H,) bands, median and three of the members (M, H), and what came (H,)."""
    before, ahead = np.asarray(days_past), np.asarray(days_ahead)
    known, paths = np.asarray(past, np.float64), np.asarray(members, np.float64)
    with _style():
        figure, axes = _canvas()
        axes.plot(before, known, color=INK, lw=1.1, marker="." if len(before) <= 90 else "", ms=4, label="observed before")
        _bands(axes, ahead, paths)
        for number, row in enumerate(_spread_out(len(paths), 3) if len(ahead) > 1 else []):
            axes.plot(ahead, paths[row], color=PATH, lw=0.7, alpha=0.8, label="" if number else "some of its paths")
        mark = "_" if len(ahead) == 1 else ""
        axes.plot(ahead, np.median(paths, axis=0), color=MIDDLE, lw=1.6, ls="--", marker=mark, ms=12, label="median")
        if truth is not None:
            axes.plot(ahead, truth, color=INK, lw=0, marker="o", ms=4, mfc="white", label="observed after")
        axes.axvline(before[-1], color=MUTED, lw=0.8, ls=":")
        _dated(axes, unit, title)
        axes.set_xlim(before[0], ahead[-1] + 0.02 * (ahead[-1] - before[0]))
        return _png(figure, axes)


def posterior(
    days: ArrayLike, observed: ArrayLike, grid: ArrayLike, mean: ArrayLike, latent_sd: ArrayLike, noisy_sd: ArrayLike,
    draws: ArrayLike, unit: str, title: str, drawn: str = "draws of the curve",
) -> bytes:  # fmt: skip
    """A fitted curve: observations at days (n,); on the days of grid (g,) its mean, draws (d, g; `drawn` says of what), and
    95 % bands of the curve itself and of an observation, which has the noise too. All (g,); the law at each day is Gaussian."""
    x, m, narrow, wide = (np.asarray(v, np.float64) for v in (grid, mean, latent_sd, noisy_sd))
    with _style():
        figure, axes = _canvas()
        for sd, tint, name in ((wide, TINTS[0], "95 % of observations (with noise)"), (narrow, TINTS[2], "95 % of the curve (without)")):
            axes.fill_between(x, m - 1.96 * sd, m + 1.96 * sd, color=tint, lw=0, label=name)
        for number, draw in enumerate(np.asarray(draws, np.float64)):
            axes.plot(x, draw, color=PATH, lw=0.6, alpha=0.7, label="" if number else drawn)
        axes.plot(days, observed, color=INK, lw=0, marker=".", ms=2.5 if np.size(days) > 200 else 5, label="observed")
        axes.plot(x, m, color=MIDDLE, lw=1.6, ls="--", label="posterior mean")
        _dated(axes, unit, title)
        axes.set_xlim(x[0], x[-1])
        return _png(figure, axes)


def components(days: ArrayLike, parts: Mapping[str, tuple[ArrayLike, ArrayLike]], unit: str, title: str) -> bytes:
    """What a sum is made of: one panel per part, its mean (n,) with a 95 % band of standard deviation (n,)."""
    x = np.asarray(days)
    with _style():
        figure, panels = _canvas(len(parts), height=1.5 * len(parts) + 0.8)
        panels = np.atleast_1d(panels)
        for axes, (name, (mean, sd)) in zip(panels, parts.items(), strict=True):
            m, s = np.asarray(mean, np.float64), np.asarray(sd, np.float64)
            axes.fill_between(x, m - 1.96 * s, m + 1.96 * s, color=TINTS[1], lw=0)
            axes.plot(x, m, color=PATH, lw=1.3)
            _dated(axes, unit, name)
            axes.set_xlim(x[0], x[-1])
        for axes in panels[:-1]:
            axes.tick_params(labelbottom=False)
            axes.xaxis.get_offset_text().set_visible(False)
        figure.align_ylabels()
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        return _png(figure)


def pit_histogram(values: ArrayLike, title: str, bins: int = 20) -> bytes:
    """Histogram of probability integral transforms, NaN left out, with the range in which 95 % of the bars of a calibrated forecast
    would lie if the values were independent."""
    known = np.asarray(values, np.float64).ravel()
    known = known[np.isfinite(known)]
    margin = 1.96 * np.sqrt((bins - 1) / max(len(known), 1))
    with _style():
        figure, axes = _canvas(width=4.6, height=3.0)
        axes.axhspan(max(1 - margin, 0), 1 + margin, color=TINTS[0], lw=0, label=f"95 % of bars, {len(known)} independent values")
        axes.hist(known, bins=np.linspace(0, 1, bins + 1), density=True, histtype="step", color=INK, lw=1.4)
        axes.axhline(1, color=MIDDLE, lw=1.4, ls="--", label="calibrated")
        axes.set(xlim=(0, 1), xlabel="share of the forecast's law below what came, F(y)", ylabel="density", title=title)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
        axes.legend(loc="upper center", ncols=2)
        return _png(figure)


def skill_by_lead(leads: ArrayLike, skills: Mapping[str, ArrayLike], period: str, title: str) -> bytes:
    """Skill over each rival at each lead: arrays (k, 3) of the value and the ends of its 95 % interval, as shares of 1."""
    x = np.asarray(leads, np.float64)
    step = 0.12 * (np.diff(x).min() if len(x) > 1 else 1.0)
    with _style():
        figure, axes = _canvas(width=6.4, height=3.2)
        for number, (rival, values) in enumerate(skills.items()):
            table = 100 * np.asarray(values, np.float64)
            color, mark = RIVALS[number % len(RIVALS)], MARKS[number % len(MARKS)]
            at = x + step * (number - (len(skills) - 1) / 2)
            axes.vlines(at, table[:, 1], table[:, 2], color=color, lw=1.2)
            axes.plot(at, table[:, 0], color=color, lw=0.8, ls=":", marker=mark, ms=5, label=f"over {rival}")
        axes.axhline(0, color=INK, lw=1.0)
        axes.set(xlabel=f"lead ({period}s)", ylabel="skill (%), with 95 % interval", title=title)
        axes.set_xticks(x)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _png(figure)


# ------------------------------------------------------------------------------------------------------------ drawing


def _style() -> Any:
    """The context of all drawing: matplotlib's defaults and ours, whatever the user's settings are."""
    import matplotlib.style

    return matplotlib.style.context(["default", STYLE])


def _canvas(panels: int = 1, width: float = 7.2, height: float = 3.4) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=panels > 1, squeeze=False)[:, 0]
    return figure, axes[0] if panels == 1 else axes


def _bands(axes: Axes, x: NDArray[Any], paths: Array) -> None:
    for level, tint in zip(BANDS, TINTS, strict=True):
        low, high = quantiles_of(paths.T, np.array([(1 - level) / 2, (1 + level) / 2])).T
        if len(x) == 1:
            axes.vlines(x, low, high, color=tint, lw=10, label=f"{100 * level:g} %")
        else:
            axes.fill_between(x, low, high, color=tint, lw=0, label=f"{100 * level:g} %")


def _spread_out(count: int, wanted: int) -> list[int]:
    """Numbers of a few members, evenly spaced: any of them are as likely as any others."""
    return sorted({round((i + 0.5) * count / wanted - 0.5) for i in range(wanted)})


def _dated(axes: Axes, unit: str, title: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylabel(unit)
    axes.set_title(title)


def _png(figure: Any, beside: Axes | None = None) -> bytes:
    """The figure as PNG without time or program, with a legend to the right of `beside`."""
    if beside is not None:
        beside.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------- thumbnails


def picture(rows: Outlook, unit: str = "") -> Array:
    """A small fan of each row, (n, HEIGHT, WIDTH, 3) in [0, 1]: the last of the past, the bands and median of the members, or the one
    path where there is one. Each has its own vertical scale, whose ends are written on it, and the date of its origin."""
    images = np.empty((len(rows), HEIGHT, WIDTH, 3))
    font = ImageFont.load_default(11 * FINER)
    past, future = rows.past[:, :, 0].double().numpy(), rows.future.double().numpy()
    kept = max(SHOWN * rows.horizon, 14)
    for number, (before, paths, day) in enumerate(zip(past, future, rows.day.tolist(), strict=True)):
        images[number] = np.asarray(_thumbnail(before[-kept:], paths, date_of(day), unit, font), np.float64) / 255
    return images


def _thumbnail(past: Array, paths: Array, origin: str, unit: str, font: Any) -> Image.Image:
    levels = [(1 - b) / 2 for b in BANDS] + [0.5] + [(1 + b) / 2 for b in reversed(BANDS)]
    curves = quantiles_of(paths.T, levels).T if len(paths) > 1 else paths
    finite = np.concatenate([past, curves.ravel()])
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    reach = max(high - low, 1e-9 * max(abs(high), 1.0))
    left, right, top, bottom = 8 * FINER, (WIDTH - 8) * FINER, 20 * FINER, (HEIGHT - 20) * FINER
    steps = np.arange(1 - len(past), paths.shape[1] + 1)
    across = left + (right - left) * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    now, ahead = float(across[len(past) - 1]), across[len(past) :]

    def up(values: Array) -> Array:
        return bottom - (bottom - top) * (values - low) / reach

    image = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), "white")
    pen = ImageDraw.Draw(image)
    pen.line([(now, top), (now, bottom)], fill=RULE, width=2 * FINER)
    if len(paths) > 1:
        for number, tint in enumerate(TINTS):
            lower, upper = up(curves[number]), up(curves[-1 - number])
            pen.polygon([*_points(ahead, lower, 1), *_points(ahead, upper, -1)], fill=tint, outline=tint, width=FINER)
        _line(pen, ahead, up(curves[len(BANDS)]), MIDDLE)
    else:
        _line(pen, across[len(past) - 1 :], up(np.concatenate([past[-1:], paths[0]])), MIDDLE)
    _line(pen, across[: len(past)], up(past), INK)
    pen.text((left, 3 * FINER), f"{_short(high)} {unit}".strip(), fill=MUTED, font=font)
    pen.text((left, bottom + 3 * FINER), _short(low), fill=MUTED, font=font)
    pen.text((now, bottom + 3 * FINER), origin, fill=MUTED, font=font, anchor="ma" if now < right - 40 * FINER else "ra")
    return image.reduce(FINER)


def _points(x: Array, y: Array, direction: int) -> list[tuple[float, float]]:
    """The corners of a side of a band; a single period is drawn a little wide."""
    if len(x) == 1:
        x, y = np.array([x[0] - 2 * FINER, x[0] + 2 * FINER]), np.repeat(y, 2)
    return list(zip(x[::direction].tolist(), y[::direction].tolist(), strict=True))


def _line(pen: Any, x: Array, y: Array, color: str) -> None:
    """A line with gaps where y is unknown; a value alone between gaps is a dot."""
    known = np.isfinite(y)
    for run in np.split(np.arange(len(y)), np.flatnonzero(np.diff(known)) + 1):
        if len(run) and known[run[0]]:
            points = list(zip(x[run].tolist(), y[run].tolist(), strict=True))
            if len(points) > 1:
                pen.line(points, fill=color, width=2 * FINER - 1, joint="curve")
            else:
                pen.circle(points[0], 1.5 * FINER, fill=color)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:,.0f}"

