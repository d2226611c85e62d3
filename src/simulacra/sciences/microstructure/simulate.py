"""Microstructures whose statistics are known: Boolean spheres, cut Gaussian fields, and the set of Henkes and Wessels.

Boolean spheres of radius R: centres are a Poisson process of density rho in a box wider by R on every side, so that the cube cut from
its middle is a window on an endless structure and not periodic. A voxel is solid if its middle lies in a sphere. With
V2(r) = (4/3) pi R^3 (1 + 3r/4R - r^3/16R^3) the volume of two spheres at a distance r (two separate ones from 2R on), exactly:

    solid fraction      phi = 1 - exp(-rho 4 pi R^3 / 3)
    two points, pore    exp(-rho V2(r));   solid: 1 - 2 (1 - phi) + the same
    lineal path, pore   P(the voxels at 0, 1, ..., z of a line are all pore) = (1 - phi) exp(-rho z (pi R^2 - pi/12));
                        on an unbroken line of points the last bracket is pi R^2
    surface             4 pi R^2 rho (1 - phi) per volume
    Euler number        rho (1 - phi) (1 - 3 eta + 3 pi^2 eta^2 / 32), eta = rho 4 pi R^3 / 3, of the solid per volume
    Torquato 2002, Random Heterogeneous Materials, chapter 5; Mecke 2000, Lecture Notes in Physics 554:111

Cut Gaussian fields: white noise under a Gaussian of sigma voxels in a wider periodic box; solid where the field is above the level t
with Q(t) = phi. With the correlation c(r) of the field, S2(r) = phi^2 + (1 / 2 pi) int_0^asin(c) exp(-t^2 / (1 + sin a)) da, which is
1/4 + asin(c) / 2 pi at t = 0.

Henkes & Wessels 2022 (CMAME 400:115497), as their script makes it: spheres on integer centres from 0 to side - 2 (an exclusive upper
bound), cut at the faces, overlapping freely (their test for overlap never fires), added until the solid fraction exceeds the wished one.
Faces and stopping rule leave no closed form.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from simulacra.sciences.microstructure.data import Volumes, volumes
from simulacra.study import Refused

Array = NDArray[np.float64]

STREAMS = 1 << 40  # the first of the simulators': those of `study.Noise`, numbered from 0, are for draws, which must not share its numbers
SPHERES, LEVEL_CUT, HENKES, MATCHED = range(4)
WIDEST = 512
AT_ONCE = 64  # cubes


@dataclasses.dataclass(frozen=True)
class BooleanSpheres:
    """The law of overlapping spheres of one radius, in voxels."""

    radius: float
    solid_fraction: float

    @property
    def density(self) -> float:
        """Centres per voxel."""
        return -math.log1p(-self.solid_fraction) / (4 / 3 * math.pi * self.radius**3)

    def two_point(self, r: Array) -> Array:
        """Probability that two points at a distance r are both solid."""
        apart = np.minimum(np.asarray(r, float) / self.radius, 2.0)
        volume = 4 / 3 * math.pi * self.radius**3 * (1 + 0.75 * apart - apart**3 / 16)
        return np.asarray(2 * self.solid_fraction - 1 + np.exp(-self.density * volume), np.float64)

    def pore_lineal_path(self, z: Array, *, voxels: bool = True) -> Array:
        """Probability that the voxels 0, 1, ..., z of a line are all pore; or, not `voxels`, that an unbroken line of length z is."""
        swept = math.pi * self.radius**2 - (math.pi / 12 if voxels else 0.0)
        return np.asarray((1 - self.solid_fraction) * np.exp(-self.density * swept * np.asarray(z, float)), np.float64)

    @property
    def surface(self) -> float:
        """Area of the surface per volume, per voxel edge."""
        return 4 * math.pi * self.radius**2 * self.density * (1 - self.solid_fraction)

    @property
    def euler_number(self) -> float:
        """Euler characteristic of the solid per voxel."""
        eta = -math.log1p(-self.solid_fraction)
        return self.density * (1 - self.solid_fraction) * (1 - 3 * eta + 3 * math.pi**2 / 32 * eta**2)


def spheres(n: int, side: int, radius: float, solid_fraction: float, seed: int) -> Volumes:
    """n cubes (side, side, side) cut from Boolean spheres of `radius` voxels; cube i of a seed is the same in sets of any size."""
    _refuse(n, side, radius, solid_fraction, seed)
    expected = BooleanSpheres(radius, solid_fraction).density * (side + 2 * radius) ** 3
    solid = np.empty((n, side, side, side), bool)
    for start in range(0, n, AT_ONCE):
        rows = range(start, min(start + AT_ONCE, n))
        centres = []
        for row in rows:
            rng = _generator(seed, SPHERES, row)
            places = rng.random((rng.poisson(expected), 3)) * (side + 2 * radius)
            centres.append(places - radius - 0.5)  # voxel middles are the integers
        solid[start : rows.stop] = _covered(centres, side, radius)
    return volumes(solid)


def _covered(centres: Sequence[Array], side: int, radius: float) -> NDArray[np.bool_]:
    """Which voxels of cubes (cubes, side, side, side) lie in a sphere around one of their centres (spheres, 3).

    A sphere covers one run of voxels in every line along the width that it meets: count where runs begin and end, and add up.
    """
    cube = np.repeat(np.arange(len(centres)), [len(c) for c in centres])
    z, y, x = np.concatenate(centres).T
    reach = np.arange(math.ceil(2 * radius) + 1)
    rows, columns = (np.ceil(c - radius).astype(np.int64)[:, None] + reach for c in (z, y))
    left = radius**2 - ((rows - z[:, None]) ** 2)[:, :, None] - ((columns - y[:, None]) ** 2)[:, None, :]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :] & (left >= 0)
    sphere, i, j = np.nonzero(inside)
    half = np.sqrt(left[sphere, i, j])
    line = ((cube[sphere] * side + rows[sphere, i]) * side + columns[sphere, j]) * (side + 1)
    begin = np.clip(np.ceil(x[sphere] - half), 0, side).astype(np.int64)
    end = np.clip(np.floor(x[sphere] + half) + 1, 0, side).astype(np.int64)
    size = len(centres) * side**2 * (side + 1)
    change = np.bincount(line + begin, minlength=size) - np.bincount(line + end, minlength=size)
    open_runs = np.cumsum(change.astype(np.int16).reshape(-1, side + 1), axis=1, dtype=np.int16)[:, :side]
    return np.asarray(open_runs > 0).reshape(len(centres), side, side, side)


def henkes(n: int, side: int, radius: float, solid_fraction: float, seed: int) -> Volumes:
    """n cubes as Henkes and Wessels make them (see the module)."""
    _refuse(n, side, radius, solid_fraction, seed)
    solid = np.empty((n, side, side, side), bool)
    for start in range(0, n, AT_ONCE):
        rows = range(start, min(start + AT_ONCE, n))
        solid[start : rows.stop] = _filled([_generator(seed, HENKES, row) for row in rows], side, radius, solid_fraction * side**3)
    return volumes(solid)


def _filled(rngs: Sequence[np.random.Generator], side: int, radius: float, enough: float) -> NDArray[np.bool_]:
    """One cube per generator, spheres added to all at once until each holds more than `enough` solid voxels."""
    edge = int(radius)
    wide = side + 2 * edge  # with a margin, so that spheres need not be cut one by one
    reach = np.arange(-edge, edge + 1)
    offsets = np.argwhere(reach[:, None, None] ** 2 + reach[None, :, None] ** 2 + reach**2 <= radius**2)
    ball = (offsets[:, 0] * wide + offsets[:, 1]) * wide + offsets[:, 2]
    within = np.zeros((wide,) * 3, bool)
    within[edge : edge + side, edge : edge + side, edge : edge + side] = True
    solid, inner = np.zeros((len(rngs), wide**3), bool), within.ravel()
    count, going = np.zeros(len(rngs), np.int64), np.arange(len(rngs))
    while len(going):
        centres = np.stack([rngs[row].integers(0, side - 1, (64, 3)) for row in going.tolist()])
        for step in range(64):
            place = ((centres[:, step, 0] * wide + centres[:, step, 1]) * wide + centres[:, step, 2])[:, None] + ball
            count[going] += (inner[place] & ~solid[going[:, None], place]).sum(axis=1)
            solid[going[:, None], place] = True
            more = count[going] <= enough
            going, centres = going[more], centres[more]
    return np.asarray(solid.reshape(-1, wide, wide, wide)[:, edge : edge + side, edge : edge + side, edge : edge + side])


def level_cut(n: int, side: int, radius: float, solid_fraction: float, seed: int) -> Volumes:
    """n cubes of a Gaussian field, white noise under a Gaussian of sigma = `radius` voxels, cut where `solid_fraction` is above."""
    _refuse(n, side, radius, solid_fraction, seed)
    power = gaussian_power(side, radius)
    return _cut(n, (side,) * 3, np.sqrt(power), solid_fraction, seed, LEVEL_CUT)


def gaussian_power(side: int, sigma: float) -> Array:
    """Spectrum (box, box, box // 2 + 1) of smoothed white noise of variance 1 in a periodic box from which cubes of `side` are cut."""
    box = int(fft.next_fast_len(math.ceil(side + 8 * sigma), real=True))
    k = 2 * np.pi * fft.fftfreq(box)
    squared = k[:, None, None] ** 2 + k[None, :, None] ** 2 + (2 * np.pi * fft.rfftfreq(box))[None, None, :] ** 2
    power = np.exp(-squared * sigma**2)
    return np.asarray(power / fft.irfftn(power, (box,) * 3).flat[0], np.float64)


def correlation(power: Array) -> Array:
    """Correlation of the field along an axis of its box, (box // 2 + 1,), from the spectrum."""
    box = len(power)
    return np.asarray(fft.irfftn(power, (box,) * 3)[0, 0, : box // 2 + 1], np.float64)


def level_cut_two_point(c: Array, solid_fraction: float) -> Array:
    """Probability that two points are solid where the field's correlation between them is c."""
    level = float(special.ndtri(1 - solid_fraction))
    nodes, weights = np.polynomial.legendre.leggauss(48)
    end = np.arcsin(np.clip(np.asarray(c, float), -1, 1))[..., None]
    angle = end * (nodes + 1) / 2
    inside = np.exp(-(level**2) / np.maximum(1 + np.sin(angle), 1e-12))
    return np.asarray(solid_fraction**2 + (inside * weights).sum(-1) * end[..., 0] / (4 * np.pi), np.float64)


def like(two_point: Array, sides: tuple[int, int, int], n: int, seed: int) -> Volumes:
    """n volumes of cut Gaussian fields whose S2 along an axis is `two_point` (lags,), the same in all directions, as far as any has it.

    Beyond the lags that are given the correlation falls to 0 over the same number again; where that is no spectrum, it is clipped.
    """
    fraction, reach = float(two_point[0]), len(two_point) - 1
    if not 0 < fraction < 1 or reach < 1:
        raise Refused(f"S2 of {len(two_point)} lags beginning at {fraction:g}; expected two lags or more, beginning between 0 and 1")
    known = -np.cos(np.linspace(0, np.pi, 801))  # dense where S2 is steep
    c = np.interp(two_point, level_cut_two_point(known, fraction), known)
    box = int(fft.next_fast_len(max(sides) + 2 * reach, real=True))
    away = np.minimum(np.arange(box), box - np.arange(box)).astype(float)
    r = np.sqrt(away[:, None, None] ** 2 + away[None, :, None] ** 2 + away**2)
    fading = 0.5 + 0.5 * np.cos(np.pi * np.clip(r / reach - 1, 0, 1))
    power = np.maximum(fft.rfftn(np.interp(r, np.arange(reach + 1), c) * fading).real, 0)
    power /= fft.irfftn(power, (box,) * 3).flat[0]
    return _cut(n, sides, np.sqrt(power), fraction, seed, MATCHED)


def _cut(n: int, sides: tuple[int, int, int], amplitude: Array, solid_fraction: float, seed: int, stream: int) -> Volumes:
    """n volumes from the periodic field with the square root of its spectrum, (box, box, box // 2 + 1)."""
    box, level = len(amplitude), special.ndtri(1 - solid_fraction)
    amplitude = amplitude.astype(np.float32)
    solid = np.empty((n, *sides), bool)
    for row in range(n):
        white = _generator(seed, stream, row).standard_normal((box, box, box), np.float32)
        solid[row] = fft.irfftn(fft.rfftn(white) * amplitude, (box,) * 3)[: sides[0], : sides[1], : sides[2]] > level
    return volumes(solid)


def _generator(seed: int, stream: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, STREAMS + stream], counter=[0, 0, 0, row]))


def _refuse(n: int, side: int, radius: float, solid_fraction: float, seed: int) -> None:
    if n < 1 or not 8 <= side <= WIDEST or not 0.5 <= radius <= side or not 0 < solid_fraction < 1 or seed < 0:
        raise Refused(
            f"{n} cubes of {side} voxels, radius {radius:g}, solid fraction {solid_fraction:g}, seed {seed}: expected one or more, "
            f"side 8 to {WIDEST}, a radius from half a voxel to the side, a fraction between 0 and 1, a seed of 0 or more"
        )
