"""What the generators of showers show: profiles beside nature's, showers from three sides, energies on the way between trained ones."""

from __future__ import annotations

import io
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.evidence import Figure
from simulacra.sciences.calorimeter import features, framing
from simulacra.sciences.calorimeter.data import Showers
from simulacra.study import Noise, Split

AT_ONCE = 64  # showers
MOST = 400  # showers of an energy that a profile is measured on
COLOURS = 5  # energies in a figure of profiles, at most
STEPS = 13  # of the way between the lowest and the highest energy
EACH = 60  # showers at each of them


class Generator(Protocol):
    """A learner that draws showers, and imagines them at positions."""

    latent: int

    def draw(self, like: Showers, noise: Noise) -> Showers: ...

    def imagine(self, position: Tensor, like: Showers, towards: Showers | None = None, share: Tensor | None = None) -> Showers: ...


def drawn_like(learner: Generator, like: Showers, seed: int) -> Showers:
    """One shower per row of `like`, of its particle and energy."""
    blocks = [range(start, min(start + AT_ONCE, len(like))) for start in range(0, len(like), AT_ONCE)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Showers.join([learner.draw(like[rows].to(device), Noise(seed, rows)).to("cpu") for rows in blocks])


def figures(learner: Generator, split: Split[Showers], seed: int) -> list[Figure]:
    """Profiles of held-out and drawn showers, one of each from three sides, and what comes out on the way between energies."""
    nature = split.held_out
    kept = torch.cat([rows[:MOST] for _, rows in by_energy(nature)])
    nature = nature[kept]
    drawn = drawn_like(learner, nature, seed + 3)
    found = [
        Figure(
            "Profiles", "Mean share of the incident energy in each layer and each column, held-out showers as lines, drawn ones as points; "
            "below, their difference in standard errors (grey: two).", _profiles(nature, drawn),
        ),
        Figure(
            "A shower from three sides", f"Held-out (above) and drawn (below), both {framing.caption(nature[:1])[0]}, none chosen: summed "
            "over columns, over rows, over layers.", _sides(nature[:1], drawn[:1]),
        ),
    ]  # fmt: skip
    if len(by_energy(nature)) > 1:
        found.append(
            Figure(
                "Energies on the way", "The same positions in latent space at every energy: mean depth and response of what is drawn, with "
                "standard errors; squares: held-out showers; ticks below: energies of training.", _way(learner, nature, split.train, seed),
            )
        )  # fmt: skip
    return found


def by_energy(showers: Showers) -> list[tuple[float, Tensor]]:
    """Rows of each incident energy in GeV, of five energies at most; of a range of energies, all rows."""
    keys = features.energies_of(showers)
    each = np.unique(keys)
    if len(each) > 3 * COLOURS:
        return [(float(showers.incident.mean()), torch.arange(len(showers)))]
    chosen = each[np.unique(np.linspace(0, len(each) - 1, min(len(each), COLOURS)).round().astype(int))]
    rows = [torch.from_numpy(np.flatnonzero(keys == key)) for key in chosen]
    return [(float(showers.incident[r].mean()), r) for r in rows]


def _profiles(nature: Showers, drawn: Showers) -> bytes:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9.2, 5.0), layout="constrained")
    axes = canvas.subplots(2, 2, sharex="col", gridspec_kw={"height_ratios": (3, 1)})
    for number, (energy, rows) in enumerate(by_energy(nature)):
        colour = f"C{number}"
        one, other = features.profiles(nature[rows]), features.profiles(drawn[rows])
        for column, (name, label) in enumerate((("layer", "layer"), ("column", "column"))):
            a, b = one[name], other[name]
            place = np.arange(a.shape[1]) + 1
            error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / len(a)).clip(1e-12)
            above, below = axes[:, column]
            above.plot(place, 100 * a.mean(axis=0), color=colour, lw=1.6, label=f"{energy:.3g} GeV")
            above.plot(place, 100 * b.mean(axis=0), "o", color=colour, ms=4, mfc="white")
            below.plot(place, (b.mean(axis=0) - a.mean(axis=0)) / error, "o", color=colour, ms=3)
            below.set(xlabel=label, ylim=(-5, 5))
    for below in axes[1]:
        below.axhspan(-2, 2, color="0.9", zorder=0)
    axes[0, 0].set(ylabel="share of incident energy (%)", title="along the shower")
    axes[0, 1].set(yscale="log", title="across it")
    axes[1, 0].set(ylabel="standard errors")
    axes[0, 0].legend(fontsize=8)
    return _png(canvas)


def _sides(nature: Showers, drawn: Showers) -> bytes:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8.4, 5.4), layout="constrained")
    axes = canvas.subplots(2, 3)
    both = [features.cells(side)[0] for side in (nature, drawn)]
    top = max(float(views.max()) for shower in both for views in _views(shower))
    norm = LogNorm(top * 1e-4, top)
    labels = (("layer", "row"), ("layer", "column"), ("column", "row"))
    shown: Any = None
    for line, (shower, name) in enumerate(zip(both, ("held-out", "drawn"), strict=True)):
        for column, (view, (across, down)) in enumerate(zip(_views(shower), labels, strict=True)):
            place = axes[line, column]
            place.set_facecolor("black")
            extent = (0.5, view.shape[1] + 0.5, view.shape[0] + 0.5, 0.5)
            shown = place.imshow(np.ma.masked_less_equal(view, 0), norm=norm, cmap="inferno", extent=extent, interpolation="nearest")
            place.set(xlabel=across, ylabel=down, title=f"{name}, {float(shower.sum()):.4g} MeV" if column == 0 else "")
    canvas.colorbar(shown, ax=axes, label="deposited energy (MeV)", shrink=0.8)
    return _png(canvas)


def _views(shower: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Sums over columns (row by layer), over rows (column by layer) and over layers (row by column)."""
    return shower.sum(axis=2).T, shower.sum(axis=1).T, shower.sum(axis=0)


def _way(learner: Generator, nature: Showers, training: Showers, seed: int) -> bytes:
    from matplotlib.figure import Figure as Canvas

    groups = by_energy(nature)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    position = Noise(seed + 7, range(EACH)).normal(learner.latent).to(device)
    particle = nature[:1].particle
    first, last = (_template(nature[:1], energy, particle).to(device) for energy in (groups[0][0], groups[-1][0]))
    canvas = Canvas(figsize=(9.2, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    energies, points = [], []
    for share in np.linspace(0, 1, STEPS):
        drawn = learner.imagine(position, first, last, torch.full((EACH,), float(share))).to("cpu")
        energies.append(float(drawn.incident.mean()))
        points.append(_told(drawn))
    for number, place in enumerate((left, right)):
        mean, error = np.array(points)[:, number].T
        place.errorbar(energies, mean, error, fmt="o-", ms=4, lw=1, color="C0", label="drawn, same positions")
        alike = [_told(nature[rows[nature.particle[rows] == particle]])[number] for _, rows in groups]
        place.errorbar([energy for energy, _ in groups], *zip(*alike, strict=True), fmt="s", color="C3", label="held-out")
        known = training.incident[:: max(1, len(training) // 800)].numpy()
        place.plot(known, np.full(len(known), 0.02), "|", color="0.5", ms=6, transform=place.get_xaxis_transform())
        place.set(xscale="log", xlabel="incident energy (GeV)", ylabel=("depth (layers)", "deposit / incident energy")[number])
    left.legend(fontsize=8)
    return _png(canvas)


def _template(like: Showers, energy: float, particle: Tensor) -> Showers:
    grid = like.energy.new_zeros(EACH, *like.grid)
    return Showers(grid, torch.full((EACH,), energy), particle.expand(EACH).clone())


def _told(showers: Showers) -> list[tuple[float, float]]:
    """Mean and standard error of depth and of response."""
    depth = features.moments(features.profiles(showers)["layer"])[0]
    return [(float(v.mean()), float(v.std() / np.sqrt(len(v)))) for v in (np.nan_to_num(depth), features.response(showers))]


def _png(canvas: Any) -> bytes:
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    return file.getvalue()
