"""Molecules as ball-and-stick pictures, shaded here: every sphere and every stick is met exactly by parallel rays, the nearest wins.

A molecule lies along its principal axes, the longest across the picture, the shortest towards the eye but for a slight tilt, and is
never mirrored. Colours are Corey's, Pauling's and Koltun's as far as a white page allows. A double bond is two sticks side by side, a
triple bond three, an aromatic one a stick and a dashed one. What is further away is paler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from simulacra.sciences.molecules.data import BONDS, SYMBOLS, UNKNOWN, Molecule, Molecules, unstacked
from simulacra.sciences.molecules.descriptors import canonical_smiles
from simulacra.sciences.molecules.perception import perceive

Array = NDArray[np.float64]

SIDE, FINER = 200, 3  # pixels of a picture, and rays per pixel in each direction
MARGIN = 8  # pixels
CLOSEST = 30.0  # pixels per Angstrom at most, so that water does not fill the page
BALL = {1: 0.23, 6: 0.36, 7: 0.35, 8: 0.34, 9: 0.32, 15: 0.42, 16: 0.42, 17: 0.40, 35: 0.44, 53: 0.48}  # Angstrom
COLOUR = {
    1: (0.90, 0.90, 0.92), 5: (0.95, 0.70, 0.62), 6: (0.33, 0.33, 0.35), 7: (0.17, 0.32, 0.90), 8: (0.88, 0.13, 0.12),
    9: (0.40, 0.75, 0.30), 14: (0.80, 0.68, 0.50), 15: (0.95, 0.55, 0.10), 16: (0.92, 0.78, 0.15), 17: (0.20, 0.70, 0.25),
    35: (0.60, 0.25, 0.15), 53: (0.50, 0.15, 0.60),
}  # fmt: skip
OTHER_BALL, OTHER_COLOUR = 0.42, (0.85, 0.45, 0.75)
STICK, THIN, APART = 0.11, 0.065, 0.13  # Angstrom: radius of a stick, of one among several, and how far those are off the axis
DASH, GAP = 0.20, 0.14  # Angstrom
LIGHT = np.array([-0.45, 0.55, 0.72]) / np.linalg.norm([-0.45, 0.55, 0.72])
BETWEEN = (LIGHT + np.array([0, 0, 1])) / np.linalg.norm(LIGHT + np.array([0, 0, 1]))  # light and eye: where it shines (Blinn 1977)
HAZE = 0.35  # share of white in what is furthest away
TILT = Rotation.from_euler("xy", [14, 10], degrees=True).as_matrix()  # so that mirror images within a molecule do not hide each other
STEP = 0.12  # Angstrom of depth between neighbouring rays that makes an outline


@dataclass
class _Canvas:
    """What the rays have met so far: depth towards the eye in Angstrom, and colour."""

    scale: float  # rays per Angstrom
    depth: Array  # (rays, rays), -inf where nothing is
    colour: Array  # (rays, rays, 3)

    def window(self, low: Array, high: Array) -> tuple[tuple[slice, slice], Array, Array] | None:
        """Rays between two corners (x, y) in Angstrom: where they are, and their x and y; None outside the picture."""
        rays = len(self.depth)
        first = np.clip(np.floor(rays / 2 + self.scale * np.array([low[0], -high[1]])), 0, rays).astype(int)
        last = np.clip(np.ceil(rays / 2 + self.scale * np.array([high[0], -low[1]])) + 1, 0, rays).astype(int)
        if (last <= first).any():
            return None
        x = (np.arange(first[0], last[0]) + 0.5 - rays / 2) / self.scale
        y = (rays / 2 - np.arange(first[1], last[1]) - 0.5) / self.scale
        return (slice(first[1], last[1]), slice(first[0], last[0])), x[None, :], y[:, None]

    def paint(self, where: tuple[slice, slice], hit: NDArray[np.bool_], depth: Array, normal: Array, colour: Array) -> None:
        """Put a surface where it is hit and nothing lies in front; `normal` (3, rows, columns)."""
        nearer = hit & (depth > self.depth[where])
        self.depth[where][nearer] = depth[nearer]
        facing = np.clip(np.tensordot(LIGHT, normal[:, nearer], 1), 0, 1)
        shine = np.clip(np.tensordot(BETWEEN, normal[:, nearer], 1), 0, 1) ** 40
        self.colour[where][nearer] = np.clip(colour * (0.45 + 0.6 * facing)[:, None] + 0.35 * shine[:, None], 0, 1)


def picture(molecules: Molecules) -> NDArray[np.float64]:
    """Each molecule as an image, (n, 200, 200, 3) in [0, 1], white where nothing is. Bonds that nobody stated are those of EDM's table."""
    known = perceive(molecules.to("cpu"))
    return np.stack([_drawn(molecule) for molecule in unstacked(known)]) if len(known) else np.ones((0, SIDE, SIDE, 3))


def caption(molecules: Molecules) -> list[str]:
    """Canonical SMILES of each molecule without stereo, as drawn where it does not sanitise; its formula where no bonds are known."""
    unknown = (molecules.bonds == UNKNOWN).flatten(1).any(1)
    smiles = iter(canonical_smiles(molecules[~unknown]))
    written = ["" if open_ else next(smiles) for open_ in unknown.tolist()]
    return [text or formula(numbers) for text, numbers in zip(written, molecules.numbers.tolist(), strict=True)]


def formula(numbers: list[int]) -> str:
    """Molecular formula in Hill's order: C, H, then the alphabet; without C the alphabet alone. Zeros are no atoms."""
    count = {symbol: numbers.count(SYMBOLS.index(symbol)) for symbol in sorted({SYMBOLS[z] for z in numbers if z})}
    first = [symbol for symbol in ("C", "H") if "C" in count and symbol in count]
    return "".join(f"{s}{count[s] if count[s] > 1 else ''}" for s in [*first, *(s for s in count if s not in first)])


def along_principal_axes(positions: Array) -> Array:
    """Positions (atoms, 3) about their mean, turned (never mirrored) so that x, y, z are the axes of largest, middle and smallest
    spread. Of the two directions of x and y, the one is taken in which the cloud has its longer tail."""
    centred = positions - positions.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    turned = centred @ axes
    sign = np.where((turned**3).sum(0) < 0, -1.0, 1.0)
    sign[2] = np.linalg.det(axes) * sign[0] * sign[1]
    return np.asarray(turned * sign)


def _drawn(molecule: Molecule) -> Array:
    at = along_principal_axes(molecule.positions.astype(float)) @ TILT.T
    numbers = molecule.numbers.tolist()
    balls = np.array([BALL.get(z, OTHER_BALL) for z in numbers])
    colours = np.array([COLOUR.get(z, OTHER_COLOUR) for z in numbers])
    low, high = (at[:, :2] - balls[:, None]).min(0), (at[:, :2] + balls[:, None]).max(0)
    at[:, :2] -= (low + high) / 2
    scale = min((SIDE - 2 * MARGIN) / float((high - low).max()), CLOSEST) * FINER
    rays = SIDE * FINER
    canvas = _Canvas(scale, np.full((rays, rays), -np.inf), np.ones((rays, rays, 3)))
    for centre, radius, colour in zip(at, balls, colours, strict=True):
        _paint_ball(canvas, centre, radius, colour)
    bonds = np.zeros((0, 0), np.int8) if molecule.bonds is None else molecule.bonds
    for i, j in zip(*np.nonzero(np.triu(bonds, 1)), strict=True):
        for shift, radius, dashed in _sticks(BONDS[bonds[i, j]], at, bonds, int(i), int(j)):
            middle = (at[i] + at[j]) / 2 + shift
            _paint_stick(canvas, at[i] + shift, middle, radius, colours[i], dashed)
            _paint_stick(canvas, at[j] + shift, middle, radius, colours[j], dashed)
    return _developed(canvas)


def _sticks(kind: str, at: Array, bonds: NDArray[np.int8], i: int, j: int) -> Iterator[tuple[Array, float, bool]]:
    """(shift off the axis, radius, dashed) of each stick of a bond; several lie side by side as the eye sees them."""
    along = at[j] - at[i]
    across = np.array([-along[1], along[0], 0.0])
    length = np.linalg.norm(across)
    across = APART * across / length if length > 1e-6 else np.array([0.0, APART, 0.0])
    if kind == "single":
        yield np.zeros(3), STICK, False
    elif kind == "triple":
        yield from ((k * 1.3 * across, THIN, False) for k in (-1, 0, 1))
    else:
        near = np.flatnonzero((bonds[i] > 0) | (bonds[j] > 0))
        inner = 1.0 if float((at[near].mean(0) - (at[i] + at[j]) / 2) @ across) >= 0 else -1.0
        yield -inner * across, THIN, False
        yield inner * across, THIN, kind == "aromatic"


def _paint_ball(canvas: _Canvas, centre: Array, radius: float, colour: Array) -> None:
    seen = canvas.window(centre[:2] - radius, centre[:2] + radius)
    if seen is None:
        return
    where, x, y = seen
    dx, dy = np.broadcast_arrays(x - centre[0], y - centre[1])
    square = radius**2 - dx**2 - dy**2
    dz = np.sqrt(np.maximum(square, 0))
    canvas.paint(where, square > 0, centre[2] + dz, np.stack([dx, dy, dz]) / radius, colour)


def _paint_stick(canvas: _Canvas, start: Array, end: Array, radius: float, colour: Array, dashed: bool) -> None:
    """A cylinder without lids: the ray (x, y, w) meets it where its distance from the axis is the radius, a quadratic in w."""
    length = float(np.linalg.norm(end - start))
    seen = canvas.window(np.minimum(start, end)[:2] - radius, np.maximum(start, end)[:2] + radius)
    if seen is None or length < 1e-6:
        return
    where, x, y = seen
    axis = (end - start) / length
    dx, dy = np.broadcast_arrays(x - start[0], y - start[1])
    steep = 1 - axis[2] ** 2
    if steep < 1e-6:
        return  # seen end on: the ball hides it
    k = dx * axis[0] + dy * axis[1]
    root = (k * axis[2]) ** 2 - steep * (dx**2 + dy**2 - k**2 - radius**2)
    w = (k * axis[2] + np.sqrt(np.maximum(root, 0))) / steep
    t = k + w * axis[2]
    hit = (root > 0) & (t >= 0) & (t <= length)
    if dashed:
        hit &= np.mod(length - t + DASH / 2, DASH + GAP) < DASH
    normal = np.stack([dx - t * axis[0], dy - t * axis[1], w - t * axis[2]]) / radius
    canvas.paint(where, hit, start[2] + w, normal, colour)


def _developed(canvas: _Canvas) -> Array:
    """Outlines drawn, haze laid over what is far, and rays averaged into pixels."""
    met = np.isfinite(canvas.depth)
    if not met.any():  # atoms so far apart that every ball falls between the rays
        return np.ones((SIDE, SIDE, 3))
    near, far = canvas.depth[met].max(), canvas.depth[met].min()
    haze = HAZE * np.where(met, near - canvas.depth, 0) / max(near - far, 2.0)
    image = canvas.colour * (1 - haze[..., None]) + haze[..., None]
    image[_outline(canvas.depth)] *= 0.45
    return np.asarray(image.reshape(SIDE, FINER, SIDE, FINER, 3).mean(axis=(1, 3)))


def _outline(depth: Array) -> NDArray[np.bool_]:
    """Rays that lie behind a neighbouring ray by more than STEP while they meet something, or meet it at the edge to nothing."""
    edge = np.zeros(depth.shape, bool)
    met = np.isfinite(depth)
    for axis in (0, 1):
        for way in (-2, -1, 1, 2):
            beside = np.roll(depth, way, axis=axis)
            drop = np.where(met, depth, 0) - np.where(np.isfinite(beside), beside, -1e3)
            edge |= met & (drop > STEP * abs(way) * 2)
    return edge
