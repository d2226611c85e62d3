"""What the generators of convergence maps show and are held to: draws beside nature and beside the copula."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from simulacra import movie
from simulacra.evidence import Check, Figure, Finding
from simulacra.sciences.lensing import bars, framing, statistics
from simulacra.sciences.lensing.data import Maps
from simulacra.sciences.lensing.framing import of_universe
from simulacra.sciences.lensing.gaussian import Law
from simulacra.study import Noise, Split

AT_ONCE = 64  # maps
COLUMNS = 6
MOMENTS = 24  # of the way between two universes


class Generator(Protocol):
    """A learner that draws maps, and imagines them at positions."""

    latent: int

    @property
    def law(self) -> Law: ...

    def draw(self, like: Maps, noise: Noise) -> Maps: ...

    def imagine(self, position: Tensor, like: Maps, towards: Maps | None = None, share: Tensor | None = None) -> Maps: ...


def examine(learner: Generator, split: Split[Maps], seed: int) -> tuple[list[Finding], list[Check]]:
    """The bars (bars.py) for draws in the universes of held-out nature, beside the copula and nature's halves."""
    return [], _bars(learner, learner.law, split.held_out, seed)


def _bars(learner: Generator, law: Law, nature: Maps, seed: int) -> list[Check]:
    fewest = min(len(maps) for _, maps in of_universe(nature))
    if fewest < 2 * statistics.FEWEST or bool(nature.kappa.isnan().any()):
        return []  # too few maps of a universe to tell anything, or statistics under a mask
    device = next(law.buffers()).device
    drawn = drawn_like(learner, nature, seed + 1, device)
    parts = [
        law.copula(Noise(seed + 2, rows).normal(nature.side, nature.side).to(device), nature[rows].to(device)).to("cpu")
        for rows in _blocks(len(nature))
    ]
    return bars.checks(nature, drawn, {"copula, no network": Maps.join(parts)})


def drawn_like(learner: Generator, like: Maps, seed: int, device: torch.device) -> Maps:
    """One map per row of `like`, in its universe."""
    return Maps.join([learner.draw(like[rows].to(device), Noise(seed, rows)).to("cpu") for rows in _blocks(len(like))])


def _blocks(n: int) -> list[range]:
    return [range(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]


# ------------------------------------------------------------------------------------------------------------- pictures


def figures(learner: Generator, split: Split[Maps], seed: int) -> list[Figure]:
    """Maps of each held-out universe above draws of it, spectra with the scatter between maps, and a field between universes."""
    nature = split.held_out
    groups = of_universe(nature)[:4]
    shown = Maps.join([maps[torch.arange(COLUMNS) % len(maps)] for _, maps in groups])
    device = next(learner.law.buffers()).device
    drawn = drawn_like(learner, shown, seed + 3, device)
    names = "; ".join(name for name, _ in groups)
    found = [
        Figure(
            "Each universe beside nature", f"Pairs of rows, held-out maps above drawn ones, none chosen: {names}. Colours: kappa from -2 "
            "to 5 standard deviations of all maps shown.", movie.png(_sheet(shown, drawn)),
        ),
        Figure("Power spectra", "Mean over maps; shaded: scatter between nature's maps.", _spectra(learner, nature, seed, device)),
    ]  # fmt: skip
    if len(groups) > 1:
        way = " to ".join(name for name, _ in groups)
        caption = f"The same positions, taken from {way} and back."
        found.append(Figure("From universe to universe", caption, _morph(learner, groups, seed, device)))
    return found


def _sheet(nature: Maps, drawn: Maps) -> np.ndarray:
    """Rows of nature and of draws in turn, COLUMNS maps each, (height, width, 3)."""
    both = framing.picture(Maps.join([nature, drawn])).reshape(2, -1, COLUMNS, nature.side, nature.side, 3)
    rows = both.transpose(1, 0, 3, 2, 4, 5).reshape(-1, nature.side, COLUMNS, nature.side, 3)
    gap = np.full((len(rows), nature.side, COLUMNS, 2, 3), 1.0)
    wide = np.concatenate([rows, gap], axis=3).reshape(len(rows), nature.side, -1, 3)
    between = np.full((len(rows), 2, wide.shape[2], 3), 1.0)
    return np.concatenate([wide, between], axis=1).reshape(-1, wide.shape[2], 3)


def _spectra(learner: Generator, nature: Maps, seed: int, device: torch.device) -> bytes:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import LogLocator, NullFormatter

    canvas = Canvas(figsize=(6.4, 4.2), layout="constrained")
    axes = canvas.subplots()
    for number, (name, maps) in enumerate(of_universe(nature)[:4]):
        few = maps[:100]
        ell, power, _ = statistics.power_spectrum(few)
        _, ours, _ = statistics.power_spectrum(drawn_like(learner, few, seed + 4 + number, device))
        unit, colour = ell * (ell + 1) / (2 * np.pi), f"C{number}"
        axes.plot(ell, unit * power.mean(axis=0), color=colour, lw=2, label=f"nature, {name}")
        low, high = np.quantile(power, [0.16, 0.84], axis=0)
        axes.fill_between(ell, unit * low, unit * high, color=colour, alpha=0.15, lw=0)
        axes.plot(ell, unit * ours.mean(axis=0), "o", ms=3.5, color=colour, mfc="white", label="drawn")
    axes.set(xscale="log", yscale="log", xlabel="multipole l", ylabel="l (l + 1) C(l) / 2 pi")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8)
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=140)
    return file.getvalue()


def _morph(learner: Generator, groups: Sequence[tuple[str, Maps]], seed: int, device: torch.device, columns: int = 3) -> bytes:
    """`columns` positions taken through the universes of all groups and back, as a GIF."""
    position = Noise(seed, range(columns)).normal(learner.latent).to(device)
    stops = [maps[:1][[0] * columns].to(device) for _, maps in groups]
    moments = []
    for here, there in zip(stops, [*stops[1:], stops[0]], strict=True):
        for k in range(MOMENTS // len(stops)):
            share = torch.full((columns,), k * len(stops) / MOMENTS)
            moments.append(learner.imagine(position, here, there, share).to("cpu"))
    frames = framing.picture(Maps.join(moments)).reshape(len(moments), columns, *moments[0].kappa.shape[1:], 3)
    wide = frames.transpose(0, 2, 1, 3, 4).reshape(len(moments), frames.shape[2], -1, 3)
    return movie.gif(movie.enlarged(movie.as_bytes(wide), 192), rate=8)
