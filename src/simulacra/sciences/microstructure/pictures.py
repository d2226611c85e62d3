"""What the generators of microstructures show and are held to: slices and surfaces beside nature, and volumes larger than training's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra import movie
from simulacra.evidence import Check, Figure, Finding
from simulacra.sciences.microstructure import framing, statistics, surface
from simulacra.sciences.microstructure.data import Volumes
from simulacra.study import Noise, Refused, Split

COLUMNS = 6
LARGER, TIMES = 12, 2  # draws of so many times the side of training
MARGIN = 4  # voxels from the faces that are looked at for traces of them
Pixels = NDArray[np.float32]


def examine(learner: Any, split: Split[Volumes], seed: int) -> tuple[list[Finding], list[Check]]:
    """Whether volumes larger than the cubes of training, where the learner draws them, are made of the same stuff."""
    try:
        drawn = larger(learner, split.held_out, LARGER, seed + 1)
    except Refused:
        return [], []
    return [], larger_checks(split.held_out, drawn)


def larger(learner: Any, like: Volumes, n: int, seed: int) -> Volumes:
    """n drawn volumes of TIMES the side of `like`."""
    template = framing.template(TIMES * like.sides[0], n, {}, float(like.voxel[0]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.no_grad():
        return learner.draw(template.to(device), Noise(seed, range(n))).to("cpu")  # type: ignore[no-any-return]


def larger_checks(nature: Volumes, drawn: Volumes) -> list[Check]:
    """Solid fraction, two points and faces of volumes larger than those of nature."""
    side = drawn.sides[0]
    ours, theirs = (volumes.solid.float().mean((1, 2, 3)) for volumes in (drawn, nature))
    fraction, error = float(ours.mean() - theirs.mean()), float((ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt())
    here, there = (statistics.two_point(volumes) for volumes in (drawn, nature))
    reached = min(here.shape[1], there.shape[1])
    apart = here[:, :reached].mean(0) - there[:, :reached].mean(0)
    worst = int(np.abs(apart).argmax())
    spread = float(np.sqrt(here[:, worst].var(ddof=1) / len(here) + there[:, worst].var(ddof=1) / len(there)))
    step, step_error = faces(drawn)
    natures, natures_error = faces(nature)
    return [
        Check(f"volumes of {side} voxels: solid fraction less nature's", fraction, error, "within 0.01", abs(fraction) - error <= 0.01),
        Check(
            f"volumes of {side} voxels: two-point probability, largest deviation", float(apart[worst]), spread, "within 0.01",
            abs(float(apart[worst])) - 2 * spread <= 0.01,
        ),
        Check(
            f"volumes of {side} voxels: solid fraction near the faces less that inside", step, step_error, "within 0.01",
            abs(step) - step_error <= 0.01, {"nature's cubes": natures, "standard error of those": natures_error},
        ),
    ]  # fmt: skip


def faces(volumes: Volumes) -> tuple[float, float]:
    """Solid fraction within MARGIN voxels of a face less that further inside, and its standard error."""
    solid = volumes.solid.float()
    inner = solid[:, MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN]
    inside, whole = inner.mean((1, 2, 3)), solid.mean((1, 2, 3))
    share = inner[0].numel() / solid[0].numel()
    step = (whole - share * inside) / (1 - share) - inside
    return float(step.mean()), float(step.std() / len(step) ** 0.5)


# ------------------------------------------------------------------------------------------------------------- pictures


def figures(learner: Any, split: Split[Volumes], seed: int) -> list[Figure]:
    """Slices and surfaces of nature above drawn ones, and one larger volume."""
    nature = split.held_out[: 2 * COLUMNS]
    with torch.no_grad():
        drawn = learner.draw(nature, Noise(seed + 2, range(len(nature))))
    found = [
        Figure("Slices", f"Middle slices of {COLUMNS} held-out volumes, and of {COLUMNS} drawn ones below; none chosen. Solid is dark.",
               movie.png(pairs(slices(nature[:COLUMNS]), slices(drawn[:COLUMNS])))),
        Figure("Surfaces", "The surface of the solid, seen from above one corner: held-out volumes above, drawn ones below.",
               movie.png(pairs(surfaces(nature[:COLUMNS]), surfaces(drawn[:COLUMNS])))),
    ]  # fmt: skip
    try:
        wide = larger(learner, split.held_out, 1, seed + 3)
    except Refused:
        return found
    caption = f"Drawn whole, {wide.sides[0]} voxels wide, by what learned from {nature.sides[0]}: its surface, and three middle slices."
    return [*found, Figure("A larger volume", caption, movie.png(framing.picture(wide)[0]))]


def film(moments: Sequence[Volumes]) -> Iterator[Pixels]:
    """Middle slices of each moment of a draw: the surface of noise is nothing to look at."""
    return (slices(volumes) for volumes in moments)


def slices(volumes: Volumes) -> Pixels:
    """The middle slice of each volume, (n, height, width, 3)."""
    return framing.shaded(volumes.solid[:, volumes.sides[0] // 2].cpu().numpy())


def surfaces(volumes: Volumes) -> Pixels:
    """The surface of the solid of each volume, (n, height, width, 3)."""
    return np.stack([surface.portrait(solid) for solid in volumes.solid.cpu().numpy()])


def pairs(above: Pixels, below: Pixels) -> Pixels:
    """Two rows of pictures (n, height, width, 3) as one, (rows, columns, 3), with white between them."""
    rows = [np.pad(row, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=1.0) for row in (above, below)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
