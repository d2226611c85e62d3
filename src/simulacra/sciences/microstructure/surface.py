"""The surface between solid and pore as a mesh, for the eye and for other programs.

Surface nets (Gibson 1998, MICCAI, LNCS 1496:888): one vertex in every cell of eight voxel middles that holds both phases, at the mean of
the points where the cell's edges cross the surface, and one four-sided face around every edge that crosses it. The volume is smoothed by
a Gaussian before, so that steps of single voxels do not show; outside the volume is pore, so that the solid is closed where it was cut.
Threads thinner than two voxels are lost to the smoothing: measure in voxels, look at meshes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulacra.sciences.microstructure.data import Bits, Volumes
from simulacra.study import Refused

Array = NDArray[np.float64]
# Vertices (v, 3) in voxels, the middle of the first voxel at 0, and the corners of faces (f, 4), anticlockwise as seen from the pore.
Mesh = tuple[Array, NDArray[np.int64]]

FORMATS = (".stl", ".obj")
MARGIN = 3  # voxels of pore around the volume
PIXELS = 128  # along the edge of a view
LIGHT = np.array([0.45, -0.55, -0.70])  # towards the light: from the right, above, and the eye
SOLID, PORE, EDGE = np.array([0.80, 0.62, 0.42]), np.array([0.36, 0.58, 0.76]), np.array([0.62, 0.62, 0.62])


def mesh(solid: Bits, smoothing: float = 0.7) -> Mesh:
    """Vertices and faces of the surface of one volume (depth, height, width), after a Gaussian of `smoothing` voxels."""
    f = ndimage.gaussian_filter(np.pad(solid.astype(np.float32), MARGIN), smoothing, truncate=3) - 0.5
    cells = np.array(f.shape) - 1
    sums, faces = np.zeros((int(cells.prod()), 4)), []
    for axis in range(3):
        low, high = np.moveaxis(f, axis, 0)[:-1], np.moveaxis(f, axis, 0)[1:]
        place = np.argwhere(np.moveaxis((low > 0) != (high > 0), 0, axis))
        start, end = f[tuple(place.T)], f[tuple((place + np.eye(3, dtype=int)[axis]).T)]
        points = place.astype(float)
        points[:, axis] += start / (start - end)
        one, other = np.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
        around = np.stack([_flat(place - step, cells) for step in (0 * one, one, one + other, other)], axis=1)
        for corner in around.T:
            sums += np.stack([np.bincount(corner, weight, len(sums)) for weight in (*points.T, np.ones(len(points)))], axis=1)
        faces.append(np.where((start > 0)[:, None], around, around[:, ::-1]))
    held = sums[:, 3] > 0
    number = np.cumsum(held) - 1
    return sums[held, :3] / sums[held, 3:] - MARGIN, number[np.concatenate(faces)]


def _flat(cell: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((cell[:, 0] * cells[1] + cell[:, 1]) * cells[2] + cell[:, 2], np.int64)


def portrait(solid: Bits, azimuth: float = 35.0, elevation: float = 25.0, pixels: int = PIXELS) -> NDArray[np.float32]:
    """A picture (pixels, pixels, 3) in [0, 1] of the rarer phase of one volume (`view`): the solid in brown, or the pore in blue."""
    rarer = bool(solid.mean() > 0.5)
    return view(mesh(1 - solid if rarer else solid), solid.shape, azimuth, elevation, pixels, PORE if rarer else SOLID)


def view(
    found: Mesh, sides: tuple[int, ...], azimuth: float = 35.0, elevation: float = 25.0, pixels: int = PIXELS, colour: Array = SOLID
) -> NDArray[np.float32]:
    """A picture (pixels, pixels, 3) in [0, 1] of a mesh and the edges of its box of `sides` voxels, from `azimuth` and `elevation` in
    degrees, in parallel projection, shaded by the angle to the light and paler with distance; depth is up."""
    canvas = np.ones((pixels * pixels, 3), np.float32)
    turn, half = _rotation(azimuth, elevation), np.array(sides) / 2
    scale = pixels / (1.02 * float(np.linalg.norm(sides)))
    seen = _edges(half, pixels) @ turn.T  # right, down, away
    colours = np.tile(EDGE, (len(seen), 1))
    vertices, faces = found
    if len(faces):
        dots, bright = _dots((vertices - half + 0.5) @ turn.T, faces, _normals(vertices, faces) @ turn.T, scale)
        seen, colours = np.concatenate([seen, dots]), np.concatenate([colours, colour * (0.30 + 0.70 * bright[:, None])])
    column, row = np.rint(seen[:, :2] * scale + (pixels - 1) / 2).astype(int).T
    inside = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
    order = np.argsort(-seen[inside, 2], kind="stable")  # far ones first: what is assigned last is seen
    fog = 0.35 * (0.5 + seen[inside, 2] / float(np.linalg.norm(sides)))[order, None]
    canvas[(row * pixels + column)[inside][order]] = colours[inside][order] * (1 - fog) + fog
    return canvas.reshape(pixels, pixels, 3)


def turning(solid: Bits, frames: int = 36, pixels: int = 256) -> Iterator[NDArray[np.float32]]:
    """Portraits of one volume all the way around."""
    for frame in range(frames):
        yield portrait(solid, azimuth=360 * frame / frames, pixels=pixels)


def _edges(half: Array, dots: int) -> Array:
    """Points along the twelve edges of a box around 0, (12 dots, 3)."""
    along, points = np.linspace(-1, 1, dots), []
    for axis in range(3):
        for signs in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            line = np.empty((dots, 3))
            line[:, axis], line[:, (axis + 1) % 3], line[:, (axis + 2) % 3] = along, *signs
            points.append(line * half)
    return np.concatenate(points)


def _rotation(azimuth: float, elevation: float) -> Array:
    """From (depth, height, width) to (right, down, away from the eye)."""
    a, e = np.radians([azimuth, elevation])
    right = np.array([0.0, -np.sin(a), np.cos(a)])
    away = np.array([-np.sin(e), np.cos(e) * np.cos(a), np.cos(e) * np.sin(a)])
    return np.stack([right, np.cross(away, right), away])


def _normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Unit normals of the vertices, out of the solid, (v, 3)."""
    corner = vertices[faces]
    flat = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    each = np.repeat(flat, 4, axis=0)
    total = np.stack([np.bincount(faces.ravel(), weight, len(vertices)) for weight in each.T], axis=1)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12), np.float64)


def _dots(seen: Array, faces: NDArray[np.int64], normal: Array, scale: float) -> tuple[Array, Array]:
    """Every face as dots closer than a pixel: places (right, down, away) and brightness in [0, 1]."""
    facing = normal[faces].mean(axis=1)[:, 2] < 0.2  # backs are hidden by fronts
    corner, upright = seen[faces[facing]], normal[faces[facing]]
    light = LIGHT / np.linalg.norm(LIGHT)
    lit = np.clip(upright @ light, 0, 1)
    across = max(2, int(np.ceil(1.6 * scale)) + 1)
    steps = np.linspace(0, 1, across)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    weight = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v])  # (4, dots)
    points = np.einsum("fcx,cd->fdx", corner, weight).reshape(-1, 3)
    return points, (lit @ weight).ravel()


# --------------------------------------------------------------------------------------------------------------- files


def export(found: Volumes, path: Path, known: Path | None = None) -> None:
    """The surface of the first volume as .stl (binary) or .obj, in micrometres where voxels have a known edge, else in voxels; x, y, z
    are width, height and depth. `known` is not used."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise Refused(f"{path}: a surface is written as {' or '.join(FORMATS)}")
    edge = found.voxel[0].item()
    vertices, faces = mesh(found.solid[0].cpu().numpy())
    if not len(faces):
        raise Refused(f"{path}: the volume has no surface: all of it is pore")
    corners = vertices[:, ::-1] * (edge if edge == edge else 1.0)
    faces = faces[:, ::-1]  # width, height, depth is the mirror image of depth, height, width
    (_write_stl if ending == ".stl" else _write_obj)(corners, faces, path)


def _write_stl(vertices: Array, faces: NDArray[np.int64], path: Path) -> None:
    triangles = vertices[np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])]
    flat = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    records = np.zeros(len(triangles), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
    records["normal"], records["corners"] = flat, triangles
    path.write_bytes(b"surface of the solid".ljust(80) + struct.pack("<I", len(records)) + records.tobytes())


def _write_obj(vertices: Array, faces: NDArray[np.int64], path: Path) -> None:
    lines = [f"v {x:.5g} {y:.5g} {z:.5g}" for x, y, z in vertices]
    lines += ["f " + " ".join(str(corner + 1) for corner in face) for face in faces.tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
