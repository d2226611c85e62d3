"""The field whose cut is a two-phase volume, and the best linear estimate of such a field under noise.

A volume of two phases has no gradient, so what is learned is the distance of each voxel from the surface, positive in the solid,

    d = +-(distance to the nearest voxel of the other phase - 1/2),  held within +-reach voxels,

whose sign is the volume, voxel for voxel. It is smooth where a volume jumps: an error of a tenth of a voxel moves a surface by a tenth of a
voxel, another level of the cut thickens or thins every solid part alike, and a blur evens the surface out.

Volumes are cut from larger structures, so their opposite faces have nothing to do with each other, and Fourier modes, which join them, are
correlated. Independent, for a covariance that is a product over the axes and nearly so for others, are the products of the eigenvectors of
the covariance along a line, a Toeplitz matrix (the Karhunen-Loeve basis; Loeve 1978, Probability Theory II, section 37.5). `Stationary` is
the head of a diffusion model (families/denoising.py) that takes such modes for independent: its estimate of each under noise is

    a P / (a^2 P + s^2) z,    P(j, k, l) = E |X(j, k, l)|^2    measured on training volumes,

exact for Gaussian data with those modes. Before any training, what it draws is a level-cut Gaussian field, with the same variance at the
faces as inside to a few percent; cosines instead of the eigenvectors put 7 times as much into the corners as into the middle. P is a
density in the wavenumber: for a volume of another side it is read off at the wavenumbers of that side's eigenvectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, ndimage
from torch import Tensor, nn

from simulacra.families.denoising import Known
from simulacra.sciences.microstructure import statistics
from simulacra.sciences.microstructure.data import volumes

WIDEST, HALVINGS = 2.0, 10  # voxels: most that fields are blurred by; of the range in which it is sought


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


class Stationary(nn.Module):
    """Best linear estimate of fields (n, 1, depth, height, width) cut from stationary ones of mean 0.

    `correlation` (3, side) is the mean product of two voxels 0, 1, ... apart along each axis, `power` (side, side, side) the mean square of
    each mode, smooth ones first. Rows of other sides than the measured ones are taken too.
    """

    shown = 2
    power: Tensor
    correlation: Tensor

    def __init__(self, power: Tensor, correlation: Tensor) -> None:
        super().__init__()
        self.register_buffer("power", power.float().clone())
        self.register_buffer("correlation", correlation.float().clone())
        self._known: tuple[Tensor, dict[tuple[int, int], tuple[Tensor, Tensor]]] = (torch.zeros(0), {})

    @classmethod
    def of(cls, rows: Tensor, *, alike: bool) -> Stationary:
        """Measured on rows (m, 1, side, side, side) of mean 0; `alike`: the axes are alike, and share what is measured."""
        along = torch.stack([_line(rows, axis) for axis in (2, 3, 4)])
        along = along.mean(0).expand(3, -1) if alike else along
        side = rows.shape[-1]
        found = cls(torch.zeros(side, side, side), along)
        power = torch.stack([found.transformed(part).square().sum((0, 1)) for part in torch.split(rows, 64)]).sum(0) / len(rows)
        if alike:
            power = torch.stack([power.permute(order) for order in permutations(range(3))]).mean(0)
        found.power.copy_(power)
        return found

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Known:
        a, s = (level.to(z).view(-1, 1, 1, 1, 1) for level in (alpha, sigma))
        power = self.at(z.shape[2:])
        told = a.square() * power + s.square()
        estimate = self.filtered(z, a * power / told)
        left = (s.square() * power / told).mean((1, 2, 3, 4), keepdim=True)
        return Known(estimate, left.sqrt(), torch.cat([estimate, (z - a * estimate) / s], 1))

    def begin(self, noise: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor | None) -> Tensor:
        a, s = (level.to(noise).view(-1, 1, 1, 1, 1) for level in (alpha, sigma))
        return self.filtered(noise, (a.square() * self.at(noise.shape[2:]) + s.square()).sqrt())

    def gaussian(self, noise: Tensor) -> Tensor:
        """White `noise` (n, 1, ...) as Gaussian fields of that power: what is drawn where nothing is learned."""
        return self.filtered(noise, self.at(noise.shape[2:]).sqrt())

    # --- modes ---

    def at(self, sides: Sequence[int]) -> Tensor:
        """The power of the modes of a volume of those sides, (depth, height, width), scaled to the measured variance of a voxel: a short
        line blurs the spectrum, which reading it off elsewhere does not undo."""
        if tuple(sides) == tuple(self.power.shape):
            return self.power
        found = self.power
        for axis, side in enumerate(sides):  # each product takes the first axis to the end: after all of them the order is as before
            measured, wanted = self._modes(axis, found.shape[0])[1], self._modes(axis, side)[1]
            found = torch.tensordot(found, _between(measured, wanted).to(found), dims=([0], [1]))
        return found * (self.power.mean() / found.mean())

    def transformed(self, x: Tensor, *, back: bool = False) -> Tensor:
        """x (n, c, depth, height, width) in its modes, or the way back."""
        for axis, side in enumerate(x.shape[2:]):
            x = torch.tensordot(x, self._modes(axis, side)[0].to(x), dims=([2], [0 if back else 1]))
        return x

    def filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        """x (n, c, depth, height, width) with each mode times `gain`."""
        return self.transformed(self.transformed(x) * gain, back=True)

    def _modes(self, axis: int, side: int) -> tuple[Tensor, Tensor]:
        """Those of a line of `side` voxels along an axis, (modes, voxels), and their wavenumbers (modes,) per voxel, which rise."""
        if not torch.equal(self._known[0], self.correlation):
            self._known = (self.correlation.clone(), {})
        known = self._known[1]
        if (axis, side) not in known:
            known[axis, side] = _eigenvectors(self.correlation[axis].double().cpu().numpy(), side)
        return known[axis, side]


def _line(rows: Tensor, axis: int) -> Tensor:
    """Mean product (side,) of two voxels of rows (m, 1, ...) that are 0, 1, ... apart along `axis`."""
    lines = rows.movedim(axis, -1)
    side = lines.shape[-1]
    return torch.stack([(lines[..., : side - lag] * lines[..., lag:]).mean() for lag in range(side)])


def _eigenvectors(correlation: NDArray[np.float64], side: int) -> tuple[Tensor, Tensor]:
    """Of the covariance of a line of `side` voxels, as rows in the order of their wavenumbers, and these. Voxels further apart than was
    measured are taken for independent."""
    known = np.zeros(side)
    known[: len(correlation)] = correlation[:side]
    vectors = np.linalg.eigh(linalg.toeplitz(known))[1].T
    inside = vectors[:, 1:-1]
    wavenumber = np.arccos(np.clip((inside * (vectors[:, :-2] + vectors[:, 2:])).sum(1) / (2 * (inside**2).sum(1)), -1, 1))
    order = np.argsort(wavenumber)
    return torch.from_numpy(vectors[order].copy()), torch.from_numpy(wavenumber[order])


def _between(measured: Tensor, wanted: Tensor) -> Tensor:
    """(wanted, measured): weights that read a function of `measured` wavenumbers, linearly, at `wanted` ones."""
    rows = [np.interp(wanted.numpy(), measured.numpy(), unit) for unit in np.eye(len(measured))]
    return torch.from_numpy(np.stack(rows, axis=1))


class Phases(Stationary):
    """The same head, which also knows how the fields that it sees stand for volumes: `mean` and `unit` of the distance in training, in
    voxels, and the `level` of the distance at which a drawn field is cut, once it is blurred by `smoothing` voxels. A network that
    has learned for minutes leaves its fields a little rough, and a rough field has too much surface and crumbs of either phase."""

    mean: Tensor
    unit: Tensor
    level: Tensor
    smoothing: Tensor

    def __init__(self, power: Tensor, correlation: Tensor, reach: int) -> None:
        super().__init__(power, correlation)
        self.reach = reach
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("unit", torch.tensor(1.0))
        self.register_buffer("level", torch.tensor(0.0))
        self.register_buffer("smoothing", torch.tensor(0.0))

    @classmethod
    def measured(cls, solid: Tensor, reach: int, *, alike: bool) -> Phases:
        """Of training volumes solid (m, side, side, side) in {0, 1}."""
        fields = torch.cat([distance(part, reach) for part in torch.split(solid, 64)])
        mean, unit = fields.mean(), fields.std()
        linear = Stationary.of((fields - mean) / unit, alike=alike)
        found = cls(linear.power, linear.correlation, reach)
        found.mean.copy_(mean)
        found.unit.copy_(unit)
        return found

    @classmethod
    def blank(cls, side: int, reach: int) -> Phases:
        """One whose numbers are still to be loaded."""
        return cls(torch.zeros(side, side, side), torch.zeros(3, side), reach)

    def fields(self, solid: Tensor) -> Tensor:
        """Volumes solid (n, ...) as fields (n, 1, ...) of mean 0 and variance 1."""
        return (distance(solid, self.reach) - self.mean) / self.unit

    def solid(self, fields: Tensor) -> Tensor:
        """Fields (n, 1, ...) blurred and cut: (n, ...) uint8."""
        return (blurred(fields, float(self.smoothing))[:, 0] * self.unit + self.mean > self.level).to(torch.uint8)

    def calibrate(self, fields: Tensor, fraction: float, surface: float | None) -> None:
        """Set the level so that these fields have that solid fraction, and the smoothing, to a 500th of a voxel, so that they have no more
        than that `surface` per volume (None: as much as comes)."""
        self._level(fields, 0.0, fraction)
        if surface is None or self._surface(fields) <= surface:
            return
        low, high = 0.0, WIDEST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            self._level(fields, middle, fraction)
            low, high = (middle, high) if self._surface(fields) > surface else (low, middle)

    def _surface(self, fields: Tensor) -> float:
        """Mean area per volume of these fields once they are cut, per voxel edge."""
        return float(statistics.surface(volumes(self.solid(fields).cpu())).mean())

    def _level(self, fields: Tensor, smoothing: float, fraction: float) -> None:
        self.smoothing.fill_(smoothing)
        values = blurred(fields, smoothing).flatten()
        rank = min(max(round((1 - fraction) * values.numel()), 1), values.numel())
        self.level.copy_(values.kthvalue(rank).values * self.unit + self.mean)


def blurred(fields: Tensor, sigma: float) -> Tensor:
    """Fields (n, c, depth, height, width) under a Gaussian of `sigma` voxels; faces are continued by their values."""
    if sigma <= 0:
        return fields
    found = ndimage.gaussian_filter(fields.cpu().numpy(), sigma, mode="nearest", axes=(2, 3, 4))
    return torch.from_numpy(found).to(fields.device)
