"""Molecules as ball-and-stick pictures, shaded here: every sphere and every stick is met exactly by parallel rays, the nearest wins.

A molecule lies along its principal axes, the longest across the picture, the shortest towards the eye but for a slight tilt, and is
never mirrored. Colours are Corey's, Pauling's and Koltun's as far as a white page allows. A double bond is two sticks side by side, a
triple bond three, an aromatic one a stick and a dashed one. What is further away is paler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from simulacra.sciences.molecules.data import BONDS, SYMBOLS, UNKNOWN, Molecule, Molecules, unstacked
from simulacra.sciences.molecules.descriptors import canonical_smiles
from simulacra.sciences.molecules.perception import perceive

Array = NDArray[np.float64]

SIDE, FINER = 200, 3  # pixels of a picture, and rays per pixel in each direction
FILM_SIDE, FILM_FINER = 144, 2  # of a film, which has many and is looked at while it moves
FEW, FEW_SIDE = 2, 256  # a film of so few molecules has larger pictures
MARGIN = 0.04  # share of the side
CLOSEST = 0.15  # sides per Angstrom at most, so that water does not fill the page
FURTHER = 1.4  # a film shows at most this much more than the last frame needs; what flies further off is cut
NOTHING = -1e300  # depth where no surface was met
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
LIT = np.stack([LIGHT, BETWEEN])
HAZE = 0.35  # share of white in what is furthest away
TILT = Rotation.from_euler("xy", [14, 10], degrees=True).as_matrix()  # so that mirror images within a molecule do not hide each other
STEP = 0.12  # Angstrom of depth between neighbouring rays that makes an outline


@dataclass(frozen=True)
class View:
    """From where a molecule is seen: what comes before its atoms are painted, the same for all frames of a film."""

    turn: Array  # (3, 3)
    centre: Array  # (3,), after turning: what lies in the middle of the picture, at depth 0
    scale: float  # sides of the picture per Angstrom
    near: float  # depths in Angstrom between which haze grows
    far: float


@dataclass
class _Canvas:
    """What the rays have met so far: depth towards the eye in Angstrom, and colour."""

    scale: float  # rays per Angstrom
    depth: Array  # (rays, rays), NOTHING where nothing is
    colour: NDArray[np.float32]  # (rays, rays, 3)

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
        facing, shine = np.clip(LIT @ normal[:, nearer], 0, 1)
        self.colour[where][nearer] = np.clip(colour * (0.45 + 0.6 * facing)[:, None] + 0.35 * (shine**40)[:, None], 0, 1)


def picture(molecules: Molecules) -> NDArray[np.float64]:
    """Each molecule as an image, (n, 200, 200, 3) in [0, 1], white where nothing is. Bonds that nobody stated are those of EDM's table."""
    known = unstacked(perceive(molecules.to("cpu")))
    views = [_view(molecule) for molecule in known]
    return _pictures(known, views, SIDE, FINER)


def film(frames: Sequence[Molecules]) -> Iterator[NDArray[np.float64]]:
    """Pictures of each moment of a draw, (n, side, side, 3) per frame: row i is seen from one point, that from which its last frame
    lies as `picture` would lay it, and at one scale, so that nothing moves but the atoms. Bonds as in `picture`, moment by moment."""
    shown = [unstacked(perceive(frame.to("cpu"))) for frame in frames]
    if not shown:
        return
    side = FEW_SIDE if len(shown[-1]) <= FEW else FILM_SIDE
    views = [_wider(_view(row[-1]), row) for row in zip(*shown, strict=True)]
    for molecules in shown:
        yield _pictures(molecules, views, side, FILM_FINER)


def _pictures(molecules: Sequence[Molecule], views: Sequence[View], side: int, finer: int) -> NDArray[np.float64]:
    drawn = [shaded(molecule, view, side, finer) for molecule, view in zip(molecules, views, strict=True)]
    return np.stack(drawn) if drawn else np.ones((0, side, side, 3))


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


def principal_axes(positions: Array) -> Array:
    """The rotation (3, 3), never a mirror, whose rows are the axes of largest, middle and smallest spread of positions (atoms, 3)
    about their mean. Of the two directions of the first two, the one is taken in which the cloud has its longer tail."""
    centred = positions - positions.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    sign = np.where(((centred @ axes) ** 3).sum(0) < 0, -1.0, 1.0)
    sign[2] = np.linalg.det(axes) * sign[0] * sign[1]
    return np.asarray((axes * sign).T)


def along_principal_axes(positions: Array) -> Array:
    """Positions (atoms, 3) about their mean, turned (never mirrored) so that x, y, z are their `principal_axes`."""
    return np.asarray((positions - positions.mean(0)) @ principal_axes(positions).T)


def _balls(molecule: Molecule) -> Array:
    return np.array([BALL.get(z, OTHER_BALL) for z in molecule.numbers.tolist()])


def _view(molecule: Molecule) -> View:
    """A molecule by itself, as large as the margins allow."""
    positions = molecule.positions.astype(float)
    turn = TILT @ principal_axes(positions)
    at, balls = positions @ turn.T, _balls(molecule)[:, None]
    low, high = (at - balls).min(0), (at + balls).max(0)
    scale = min((1 - 2 * MARGIN) / float((high - low)[:2].max()), CLOSEST)
    middle = (low + high) / 2
    return View(turn, middle, scale, high[2] - middle[2], low[2] - middle[2])


def _wider(view: View, row: Sequence[Molecule]) -> View:
    """The view from further off, as far as all frames of one row need and FURTHER allows."""
    reach = max(float((np.abs(m.positions.astype(float) @ view.turn.T - view.centre)[:, :2] + _balls(m)[:, None]).max()) for m in row)
    scale = min(view.scale, (0.5 - MARGIN) / reach)
    return replace(view, scale=max(scale, view.scale / FURTHER))


def shaded(molecule: Molecule, view: View, side: int, finer: int) -> Array:
    """The molecule seen from `view`, (side, side, 3) in [0, 1], each pixel the mean of `finer` x `finer` rays."""
    at = molecule.positions.astype(float) @ view.turn.T - view.centre
    colours = np.array([COLOUR.get(z, OTHER_COLOUR) for z in molecule.numbers.tolist()])
    rays = side * finer
    canvas = _Canvas(view.scale * rays, np.full((rays, rays), NOTHING), np.ones((rays, rays, 3), np.float32))
    for centre, radius, colour in zip(at, _balls(molecule), colours, strict=True):
        _paint_ball(canvas, centre, radius, colour)
    bonds = np.zeros((0, 0), np.int8) if molecule.bonds is None else molecule.bonds
    for i, j in zip(*np.nonzero(np.triu(bonds, 1)), strict=True):
        for shift, radius, dashed in _sticks(BONDS[bonds[i, j]], at, bonds, int(i), int(j)):
            middle = (at[i] + at[j]) / 2 + shift
            _paint_stick(canvas, at[i] + shift, middle, radius, colours[i], dashed)
            _paint_stick(canvas, at[j] + shift, middle, radius, colours[j], dashed)
    return _developed(canvas, view, finer)


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


def _developed(canvas: _Canvas, view: View, finer: int) -> Array:
    """Outlines drawn, haze laid over what is far, and rays averaged into pixels."""
    rays = len(canvas.depth)
    image = np.ones((rays // finer, rays // finer, 3))
    met = np.asarray(canvas.depth > NOTHING)
    lines, columns = np.flatnonzero(met.any(axis=1)), np.flatnonzero(met.any(axis=0))
    if not len(lines):  # atoms so far apart that every ball falls between the rays
        return image
    rows, across = (slice(k.min() // finer, k.max() // finer + 1) for k in (lines, columns))  # pixels with something in them
    where = slice(rows.start * finer, rows.stop * finer), slice(across.start * finer, across.stop * finer)
    depth, colour = canvas.depth[where], canvas.colour[where]
    haze = HAZE * np.clip((view.near - depth) / max(view.near - view.far, 2.0), 0, 1) * met[where]
    shown = 1 - (1 - colour) * (1 - haze[..., None])
    shown[_outline(depth)] *= 0.45
    parts = [shown[i::finer, j::finer] for i in range(finer) for j in range(finer)]
    image[rows, across] = sum(parts[1:], parts[0]) / len(parts)
    return image


def _outline(depth: Array) -> NDArray[np.bool_]:
    """Rays that lie behind a neighbouring ray by more than STEP while they meet something, or meet it at the edge to nothing."""
    wide = np.pad(depth, 2, constant_values=NOTHING)
    edge = np.zeros(depth.shape, bool)
    rows, columns = depth.shape
    for way in (-2, -1, 1, 2):
        for beside in (wide[2 + way : 2 + way + rows, 2:-2], wide[2:-2, 2 + way : 2 + way + columns]):
            edge |= depth - beside > STEP * abs(way) * 2
    return edge
