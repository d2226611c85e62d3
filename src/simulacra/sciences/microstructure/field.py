"""The field whose cut is a two-phase volume, and the best linear estimate of such a field under noise.

A volume of two phases has no gradient, so what is learned is the distance of each voxel from the surface, positive in the solid,

    d = +-(distance to the nearest voxel of the other phase - 1/2),  held within +-reach voxels,

whose sign is the volume, voxel for voxel. It is smooth where a volume jumps: an error of a tenth of a voxel moves a surface by a tenth of a
voxel, and another level of the cut thickens or thins every solid part alike.

Volumes are cut from larger structures, so their opposite faces have nothing to do with each other and Fourier modes, which join them,
are correlated. Those of the cosine transform, of the field and its mirror images, nearly are not (Ahmed, Natarajan & Rao 1974, IEEE
Trans. Comput. C-23:90). `Cosine` is the head of a diffusion model (families/denoising.py) that takes them for independent: the estimate
of each mode under noise is

    mean + a P / (a^2 P + s^2) (z - a mean),    P(j, k, l) = E |X(j, k, l)|^2    measured on training volumes,

exact for Gaussian data with those modes. Before any training, what it draws is a level-cut Gaussian field. P is a density: for a volume of
another side it is read off at the same wavenumbers, pi j / side per voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from simulacra.families.denoising import Known


def distance(solid: Tensor, reach: int) -> Tensor:
    """Signed distance in voxels (n, 1, ...) from the surface of solid (n, ...) in {0, 1}, exact Euclidean within +-(reach - 1/2) and
    held there; outside the volume nothing is known, so only voxels inside count."""
    inside = solid[:, None] > 0
    other = [_squared(~inside, reach), _squared(inside, reach)]
    return torch.where(inside, other[0].sqrt(), -other[1].sqrt()) - torch.where(inside, 0.5, -0.5)


def _squared(phase: Tensor, reach: int) -> Tensor:
    """Squared distance to the nearest voxel where `phase` is true, at most reach^2: axis by axis (Saito & Toriwaki 1994)."""
    far = float(reach**2)
    found = torch.where(phase, 0.0, far)
    for axis in range(2, found.dim()):
        before = found.clone()
        side = found.shape[axis]
        for shift in range(1, min(reach, side)):
            kept = side - shift
            near, off = found.narrow(axis, 0, kept), found.narrow(axis, shift, kept)
            torch.minimum(near, before.narrow(axis, shift, kept) + shift**2, out=near)
            torch.minimum(off, before.narrow(axis, 0, kept) + shift**2, out=off)
    return found


class Cosine(nn.Module):
    """Best linear estimate of fields (n, 1, depth, height, width) cut from stationary ones, in units of their spread about their mean.

    `power` (depth, height, width) is the mean square of each mode of the orthonormal cosine transform. Rows of other sides than
    those that were measured are taken too.
    """

    shown = 2
    power: Tensor

    def __init__(self, power: Tensor) -> None:
        super().__init__()
        self.register_buffer("power", power.float().clone())

    @classmethod
    def of(cls, rows: Tensor, *, alike: bool) -> Cosine:
        """Measured on rows (m, 1, depth, height, width) of mean 0; `alike`: the axes of a cube are alike, and share one power."""
        power = torch.stack([transformed(part).square().sum((0, 1)) for part in rows.split(64)]).sum(0) / len(rows)
        if alike and len(set(power.shape)) == 1:
            power = torch.stack([power.permute(order) for order in permutations(range(3))]).mean(0)
        return cls(power)

    def at(self, sides: Sequence[int]) -> Tensor:
        """The power of the modes of a volume of those sides, (depth, height, width)."""
        found = self.power
        for side in sides:  # each product takes the first axis to the end, so that after all of them the order is as before
            found = torch.tensordot(found, _read_off(found.shape[0], side).to(found), dims=([0], [1]))
        return found

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        a, s = (level.to(z).view(-1, 1, 1, 1, 1) for level in (alpha, sigma))
        power = self.at(z.shape[2:])
        told = a.square() * power + s.square()
        estimate = filtered(z, a * power / told)
        left = (s.square() * power / told).mean((1, 2, 3, 4), keepdim=True)
        return Known(estimate, left.sqrt(), torch.cat([estimate, (z - a * estimate) / s], 1))

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        a, s = (level.to(noise).view(-1, 1, 1, 1, 1) for level in (alpha, sigma))
        return filtered(noise, (a.square() * self.at(noise.shape[2:]) + s.square()).sqrt())


class Phases(Cosine):
    """The same head, which also knows how the fields that it sees stand for volumes: `mean` and `unit` of the distance in training, in
    voxels, and the `level` of the distance at which a drawn field is cut."""

    mean: Tensor
    unit: Tensor
    level: Tensor

    def __init__(self, power: Tensor, reach: int) -> None:
        super().__init__(power)
        self.reach = reach
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("unit", torch.tensor(1.0))
        self.register_buffer("level", torch.tensor(0.0))

    @classmethod
    def measured(cls, solid: Tensor, reach: int, *, alike: bool) -> Phases:
        """Of training volumes solid (m, side, side, side) in {0, 1}."""
        fields = torch.cat([distance(part, reach) for part in solid.split(64)])
        mean, unit = fields.mean(), fields.std()
        found = cls(Cosine.of((fields - mean) / unit, alike=alike).power, reach)
        found.mean.copy_(mean)
        found.unit.copy_(unit)
        return found

    def fields(self, solid: Tensor) -> Tensor:
        """Volumes solid (n, ...) as fields (n, 1, ...) of mean 0 and variance 1."""
        return (distance(solid, self.reach) - self.mean) / self.unit

    def solid(self, fields: Tensor) -> Tensor:
        """Fields (n, 1, ...) cut: (n, ...) uint8."""
        return (fields[:, 0] * self.unit + self.mean > self.level).to(torch.uint8)

    def calibrated(self, fields: Tensor, fraction: float) -> Tensor:
        """The level, in voxels, at which these fields have that solid fraction."""
        values = fields.flatten()
        rank = min(max(round((1 - fraction) * values.numel()), 1), values.numel())
        return values.kthvalue(rank).values * self.unit + self.mean

    def gaussian(self, noise: Tensor) -> Tensor:
        """White `noise` (n, 1, ...) as Gaussian fields with the measured power: what is drawn where nothing is learned."""
        return filtered(noise, self.at(noise.shape[2:]).sqrt())


def transformed(x: Tensor, *, back: bool = False) -> Tensor:
    """The orthonormal cosine transform (type II) of x (n, c, depth, height, width) along its last three axes, or the way back."""
    for side in x.shape[2:]:
        x = torch.tensordot(x, _cosines(side).to(x), dims=([2], [0 if back else 1]))
    return x


def filtered(x: Tensor, gain: Tensor) -> Tensor:
    """x (n, c, depth, height, width) with each mode times `gain`."""
    return transformed(transformed(x) * gain, back=True)


def _cosines(side: int) -> Tensor:
    """(modes, voxels), orthonormal rows."""
    mode, voxel = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64) + 0.5
    found = (math.pi * mode * voxel / side).cos() * math.sqrt(2 / side)
    found[0] /= math.sqrt(2)
    return found


def _read_off(measured: int, side: int) -> Tensor:
    """(side, measured): weights that read a function of the modes of `measured` voxels, linearly, at the modes of `side`."""
    place = (torch.arange(side, dtype=torch.float64) * measured / side).clamp(max=measured - 1)
    return (1 - (place[:, None] - torch.arange(measured)).abs()).clamp_min(0)
