"""Volumes of two phases, solid and pore: what nature is here, and how cubes are cut from it.

One row is one box of voxels: 1 where the solid (grain, inclusion) is, 0 in the pore (matrix), with the edge of a voxel in micrometres
where it is known. Boxes are cut from larger structures and are not periodic: no statistic may wrap around their faces.

Cubes cut from one volume are not independent where they overlap or touch. A volume is divided by region, so that no voxel trains and
judges: into three slabs along its depth (`slabs`), or into many blocks, those of each part spread over all of it (`blocks`). Training
cubes lie at random places of their region and overlap, those of validation and held-out stand side by side on a grid.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.study import Refused, Samples

Bits = NDArray[np.uint8]

SMALLEST = 8  # voxels along an edge
PLACES = 1 << 41  # random stream of the places of training cubes


@dataclasses.dataclass(frozen=True)
class Volumes(Samples):
    """Boxes of voxels, 1 solid and 0 pore, each with the edge of its voxels."""

    solid: Tensor  # (n, depth, height, width) uint8: 1 solid, 0 pore
    voxel: Tensor  # (n,) float32: micrometres along the edge of a voxel; nan where unknown

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels along depth, height and width."""
        depth, height, width = self.solid.shape[1:]
        return int(depth), int(height), int(width)

    def check(self) -> None:
        shape = tuple(self.solid.shape)
        if len(shape) != 4 or min(shape[1:]) < SMALLEST:
            raise Refused(f"volumes have shape {shape}; expected (volumes, depth, height, width), {SMALLEST} voxels or more each way")
        if self.solid.dtype != torch.uint8 or self.voxel.dtype != torch.float32 or tuple(self.voxel.shape) != shape[:1]:
            found = f"solid {self.solid.dtype}, voxel {self.voxel.dtype} of shape {tuple(self.voxel.shape)}"
            raise Refused(f"{found}; expected solid as uint8 and voxel as float32, one number per volume")
        if self.solid.numel() and int(self.solid.max()) > 1:
            raise Refused(f"a voxel holds {int(self.solid.max())}; expected 1 for solid and 0 for pore")
        bad = ~((self.voxel > 0) | self.voxel.isnan())
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise Refused(f"volume {row} has voxels of {self.voxel[row].item():g} micrometres; expected more than 0, or nan where unknown")


def volumes(solid: Any, voxel: Any = np.nan) -> Volumes:
    """Volumes from an array of 0 and 1, (n, depth, height, width) or one (depth, height, width); `voxel` in micrometres."""
    array = np.asarray(solid)
    array = array[None] if array.ndim == 3 else array
    edges = np.broadcast_to(np.asarray(voxel, np.float32).reshape(-1), (len(array),))
    return Volumes(torch.from_numpy(np.array(array, np.uint8, order="C")), torch.from_numpy(np.array(edges, np.float32)))


def write(found: Volumes, path: Path | str) -> None:
    """An .npz that `reading.read` reads: `packed` bits, `shape` (n, depth, height, width), `voxel_um` (n,)."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise Refused(f"{path}: volumes are written as .npz")
    solid = found.solid.cpu().numpy()
    np.savez_compressed(path, packed=np.packbits(solid), shape=np.array(solid.shape, np.int64), voxel_um=found.voxel.cpu().numpy())


# ------------------------------------------------------------------------------------------------------------- cutting


Box = tuple[slice, slice, slice]  # along depth, height and width
Part = Literal["training", "validation", "held out"]
PATTERN: dict[Part, tuple[int, ...]] = {"training": (1, 3, 5, 6, 7), "validation": (2,), "held out": (0, 4)}


def blocks(shape: tuple[int, int, int], side: int) -> dict[Part, list[Box]]:
    """Blocks of about two cubes of `side` along each edge, 5/8 of them for training, 1/8 for validation and 1/4 held out: block (i, j, k)
    goes by i + 3 j + 5 k, modulo 8, so that each part is spread over the whole volume and no two held-out blocks share a face."""
    counts = [length // (2 * side) for length in shape]
    places = list(itertools.product(*map(range, counts)))
    found = {part: [place for place in places if _number(place) in numbers] for part, numbers in PATTERN.items()}
    if not all(found.values()):
        inside = " x ".join(map(str, shape))
        held = f"{inside} voxels hold {len(places)} blocks of {2 * side}, too few for three parts"
        raise Refused(f"{held}: take a smaller --side, or --regions slabs")
    edges = [np.linspace(0, length, count + 1).round().astype(int).tolist() for length, count in zip(shape, counts, strict=True)]

    def box(place: tuple[int, ...]) -> Box:
        first, second, third = (slice(along[i], along[i + 1]) for along, i in zip(edges, place, strict=True))
        return first, second, third

    return {part: [box(place) for place in chosen] for part, chosen in found.items()}


def _number(place: tuple[int, ...]) -> int:
    i, j, k = place
    return (i + 3 * j + 5 * k) % 8


def slabs(depth: int, side: int) -> tuple[slice, slice, slice]:
    """Slabs of training, validation and held-out along an axis of `depth` voxels, about 5/8, 1/8 and 1/4 of it, each `side` or more."""
    if depth < 3 * side:
        raise Refused(f"{depth} voxels deep; cubes of {side} in three regions that share no voxel need {3 * side}: take a smaller --side")
    held_out = max(depth // 4, side)
    validation = max(depth // 8, side)
    train = depth - held_out - validation
    return slice(0, train), slice(train, train + validation), slice(train + validation, depth)


def on_grid(solid: Bits, side: int) -> Bits:
    """All cubes of `side` that stand side by side in one volume (depth, height, width), (n, side, side, side)."""
    counts = [length // side for length in solid.shape]
    inside = solid[tuple(slice(0, count * side) for count in counts)]
    parts = inside.reshape(counts[0], side, counts[1], side, counts[2], side).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(parts.reshape(-1, side, side, side))


def at_random(regions: Sequence[Bits], side: int, n: int, seed: int) -> Bits:
    """n cubes of `side` at random places of regions (depth, height, width) of about one size, (n, side, side, side); they may overlap."""
    rng = np.random.Generator(np.random.Philox(key=[seed, PLACES]))
    shapes = np.array([region.shape for region in regions])
    chosen = rng.integers(0, len(regions), n)
    places = rng.integers(0, shapes[chosen] - side + 1)
    return np.stack([regions[r][z : z + side, y : y + side, x : x + side] for r, (z, y, x) in zip(chosen, places, strict=True)])
