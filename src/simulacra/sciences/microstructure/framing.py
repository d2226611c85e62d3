"""What the generators of microstructures share: the cubes they learn from, what can be asked for, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from simulacra.sciences.microstructure import data, reading, simulate, statistics, surface
from simulacra.sciences.microstructure.data import Bits, Volumes, volumes
from simulacra.sciences.microstructure.reading import Reading
from simulacra.study import Recipe, Refused, Split

HELD_OUT, VALIDATION = 1 << 20, 1 << 21  # added to the seed: other random streams than those of training cubes
Parts = tuple[Volumes, Volumes, Volumes]  # training, validation, held out

FEWEST = 40  # separate volumes that can be divided into three parts
LARGEST = 128  # voxels along the edge of a volume that is asked for

CONDITIONS = {"side": "Voxels along the edges of a volume, which may be larger than in training: one number, or depth,height,width."}


class MicrostructureRecipe(Recipe):
    """Which cubes to learn from; without data they are simulated."""

    side: int = Field(32, ge=8, le=128, description="Voxels along the edge of a cube; larger volumes of yours are cut.")
    kind: Literal["spheres", "level_cut", "henkes"] = Field(
        "spheres", description="What is simulated: Boolean spheres, a Gaussian field cut at a level, or Henkes and Wessels' set."
    )
    radius: float = Field(6.0, ge=0.5, le=64, description="Radius of simulated spheres in voxels; of level_cut, sigma of the smoothing.")
    solid_fraction: float = Field(0.2, gt=0, lt=1, description="Share of solid voxels in what is simulated.")
    simulated: PositiveInt = Field(2000, description="Training cubes that are simulated.")
    judged: PositiveInt = Field(1000, description="Held-out cubes that are simulated; of yours, the most that are used.")
    regions: Literal["slabs", "blocks"] = Field(
        "slabs", description="How one large volume of yours is divided: three slabs along its depth, or blocks spread all over it."
    )
    places: PositiveInt = Field(2000, description="Training cubes that are cut at random places of the training region of your volume.")
    threshold: float | None = Field(None, description="Grey value of your volume above which a voxel is of the bright phase.")
    bright: Literal["solid", "pore"] = Field("solid", description="Phase that the larger value shows in your volume.")
    shape: tuple[PositiveInt, ...] = Field((), description="Voxels along depth, height and width of your volume where it is raw.")
    voxel: tuple[float, ...] = Field(
        (), description="Edge of a voxel in micrometres, or its depth, height and width, where files do not say it."
    )

    @property
    def how(self) -> Reading:
        """How files are to be understood."""
        return Reading(self.shape, self.threshold, self.voxel, self.bright)


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: MicrostructureRecipe) -> Split[Volumes]:
    """Simulated cubes, or those of your volumes: one large volume is split by region, many are divided at random."""
    return _simulated(recipe) if recipe.data is None else _given(recipe, recipe.data)


def _simulated(recipe: MicrostructureRecipe) -> Split[Volumes]:
    kinds = {"spheres": simulate.spheres, "level_cut": simulate.level_cut, "henkes": simulate.henkes}
    train, validation, held_out = (
        kinds[recipe.kind](n, recipe.side, recipe.radius, recipe.solid_fraction, recipe.seed + stream)
        for n, stream in ((recipe.simulated, 0), (min(recipe.judged, 200), VALIDATION), (recipe.judged, HELD_OUT))
    )
    what = {
        "spheres": f"Boolean spheres of radius {recipe.radius:g}", "level_cut": f"Gaussian fields of sigma {recipe.radius:g}, cut",
        "henkes": f"Henkes and Wessels' spheres of radius {recipe.radius:g}",
    }[recipe.kind]  # fmt: skip
    counts = f"{len(train)} to learn from, {len(held_out)} held out"
    line = f"simulated: {what}, solid fraction {recipe.solid_fraction:g}, independent cubes of {recipe.side} voxels: {counts}"
    digest = hashlib.sha256(train.solid.numpy().tobytes() + held_out.solid.numpy().tobytes()).hexdigest()
    return Split(train, validation, held_out, line, {line: digest})


def _given(recipe: MicrostructureRecipe, path: Path) -> Split[Volumes]:
    found = reading.read(path, recipe.how)
    sums = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in found.files}
    smallest = min(found.volumes.sides)
    if smallest < recipe.side:
        sides = " x ".join(map(str, found.volumes.sides))
        fits = smallest if len(found.volumes) > 1 else min(smallest, found.volumes.sides[0] // 3)  # three slabs of one volume
        hint = f"--side {fits}" if fits >= data.SMALLEST else "a larger volume"
        raise Refused(f"{path}: {sides} voxels are smaller than the training cube of {recipe.side}; give {hint}")
    parts, line = _by_region(recipe, found.volumes, path) if len(found.volumes) == 1 else _divided(recipe, found.volumes, path)
    return Split(*parts, line, sums, found.lines)


def _by_region(recipe: MicrostructureRecipe, whole: Volumes, path: Path) -> tuple[Parts, str]:
    """One volume in slabs or blocks: cubes at random places of those for training, side by side in the others."""
    solid, side = whole.solid[0].numpy(), recipe.side
    boxes = _boxes(recipe, solid)
    regions = {part: [solid[box] for box in inside] for part, inside in boxes.items()}
    train = data.at_random(regions["training"], side, recipe.places, recipe.seed)
    apart = {part: np.concatenate([data.on_grid(region, side) for region in inside]) for part, inside in regions.items()}
    others = [_at_most(apart[part], recipe.judged, recipe.seed) for part in ("validation", "held out")]
    parts = [volumes(cubes, whole.voxel.numpy()) for cubes in (train, *others)]  # one edge for all
    shares = ", ".join(f"{part} {_place(recipe, boxes[part])}: {_solid(inside):.4f}" for part, inside in regions.items())
    return (parts[0], parts[1], parts[2]), (
        f"{path.name}: {' x '.join(map(str, solid.shape))} voxels, split by region (solid fraction in {shares}): {len(train)} cubes "
        f"of {side} at random places, which overlap (side by side there would be {len(apart['training'])}); {len(parts[2])} held-out cubes "
        "side by side: neighbours touch, so errors that take them for independent are too small where structures are larger than a cube"
    )


def _boxes(recipe: MicrostructureRecipe, solid: Bits) -> dict[data.Part, list[data.Box]]:
    """Where each part of one volume lies."""
    if recipe.regions == "blocks":
        depth, height, width = solid.shape
        return data.blocks((depth, height, width), recipe.side)
    training, validation, held_out = data.slabs(len(solid), recipe.side)
    everywhere = slice(None), slice(None)
    return {"training": [(training, *everywhere)], "validation": [(validation, *everywhere)], "held out": [(held_out, *everywhere)]}


def _place(recipe: MicrostructureRecipe, boxes: list[data.Box]) -> str:
    """Where boxes lie, for people: how many blocks, or the depths of a slab."""
    depth = boxes[0][0]
    return f"{len(boxes)} blocks" if recipe.regions == "blocks" else f"depths {depth.start}-{depth.stop - 1}"


def _solid(regions: list[Bits]) -> float:
    """The solid fraction of all of them."""
    return sum(int(region.sum()) for region in regions) / sum(region.size for region in regions)


def _divided(recipe: MicrostructureRecipe, found: Volumes, path: Path) -> tuple[Parts, str]:
    """Many volumes, taken for independent, divided at random; larger ones are cut after that."""
    if len(found) < FEWEST:
        raise Refused(f"{path}: {len(found)} volumes; one large volume is split by region, {FEWEST} or more separate ones are divided")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(recipe.seed))
    tenth, fifth = len(found) // 10, len(found) // 5
    rows = order[tenth + fifth :], order[fifth : tenth + fifth], order[:fifth]
    train, validation, held_out = (cut(found[part], recipe.side) for part in rows)
    parts = train, validation, held_out[: recipe.judged]
    counts = f"{len(parts[0])} cubes of {recipe.side} to learn from, {len(parts[2])} held out"
    return parts, f"{path.name}: {len(found)} volumes, taken for independent and divided at random: {counts}"


def cut(found: Volumes, side: int) -> Volumes:
    """All cubes of `side` that stand side by side in the volumes."""
    if found.sides == (side,) * 3:
        return found
    cubes = [data.on_grid(solid, side) for solid in found.solid.numpy()]
    if not len(cubes[0]):
        raise Refused(f"no cube of {side} voxels fits into {' x '.join(map(str, found.sides))}")
    return volumes(np.concatenate(cubes), np.repeat(found.voxel.numpy(), len(cubes[0])))


def _at_most(cubes: Bits, n: int, seed: int) -> Bits:
    """n of the cubes, chosen at random, in their order."""
    if len(cubes) <= n:
        return cubes
    return cubes[np.sort(np.random.default_rng([seed, 0xC0BE]).choice(len(cubes), n, replace=False))]


def read(path: Path) -> Volumes:
    """Volumes that any program wrote."""
    return reading.read(path).volumes


def read_as(path: Path, recipe: MicrostructureRecipe) -> Volumes:
    """The same in cubes of the recipe's side."""
    return cut(reading.read(path, recipe.how).volumes, recipe.side)


# -------------------------------------------------------------------------------------------------------------- asking


def ask(recipe: MicrostructureRecipe, n: int, conditions: Mapping[str, str]) -> Volumes:
    """A template of n volumes of the recipe's side, or of the asked one."""
    edge = recipe.voxel[0] if len(recipe.voxel) == 1 else float("nan")
    return template(recipe.side, n, conditions, edge)


def template(side: int, n: int, conditions: Mapping[str, str], voxel: float = float("nan")) -> Volumes:
    """n empty volumes of `side`, or of the side that is asked for."""
    unknown = set(conditions) - set(CONDITIONS)
    if unknown:
        raise Refused(f"volumes are drawn for a side, not for {', '.join(sorted(unknown))}; --side 64")
    sides = _sides(conditions["side"]) if "side" in conditions else (side,) * 3
    return Volumes(torch.zeros(n, *sides, dtype=torch.uint8), torch.full((n,), voxel))


def _sides(text: str) -> tuple[int, int, int]:
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        raise Refused(f"side {text!r} is not a number of voxels; e.g. --side 64, or --side 32,64,128") from None
    sides = sides * 3 if len(sides) == 1 else sides
    if len(sides) != 3 or not all(data.SMALLEST <= length <= LARGEST for length in sides):
        raise Refused(f"side {text}: expected one number or three, each from {data.SMALLEST} to {LARGEST} voxels")
    return sides[0], sides[1], sides[2]


def caption(found: Volumes) -> list[str]:
    """Porosity of each volume, and its edge where voxels have a known one."""
    words = []
    for solid, edge in zip(found.solid, found.voxel.tolist(), strict=True):
        length = f", {edge * solid.shape[-1]:.3g} \N{MICRO SIGN}m wide" if edge == edge else ""
        words.append(f"porosity {1 - solid.float().mean().item():.3f}{length}")
    return words


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(found: Volumes) -> NDArray[np.float32]:
    """(n, height, width, 3) in [0, 1]: the surface of the rarer phase and the three middle slices, solid dark."""
    return np.stack([_panels(solid) for solid in found.solid.cpu().numpy()])


def _panels(solid: Bits) -> NDArray[np.float32]:
    depth, height, width = solid.shape
    slices = [solid[depth // 2], solid[:, height // 2], solid[:, :, width // 2]]
    times = max(1, round(64 / max(solid.shape)))
    tall = max(surface.PIXELS, times * max(solid.shape))
    shown = [shaded(bits.repeat(times, 0).repeat(times, 1)) for bits in slices]
    panels = [surface.portrait(solid), *shown]
    return np.concatenate([_centred(panel, tall) for panel in panels], axis=1)


def shaded(bits: Bits) -> NDArray[np.float32]:
    """Colours (..., 3) of slices of bits: solid dark, pore pale."""
    shades = np.array([[0.96, 0.94, 0.90], [0.27, 0.33, 0.42]], np.float32)
    return shades[bits]


def _centred(panel: NDArray[np.float32], tall: int) -> NDArray[np.float32]:
    above = (tall - len(panel)) // 2
    return np.pad(panel, ((above, tall - len(panel) - above), (0, 2), (0, 0)), constant_values=1.0)


SYSTEM: dict[str, Any] = {  # fields of every study here
    "load": load, "judge": statistics.judge, "read": read, "read_as": read_as, "write": data.write, "ask": ask, "picture": picture,
    "caption": caption, "conditions": CONDITIONS, "formats": surface.FORMATS, "export": surface.export,
}  # fmt: skip
