"""Effective conductivity of a volume of two phases: the current that a mean field of 1 drives through it.

    div (k grad u) = 0,   u = -x + periodic,   k_eff = <k |grad u|^2>

Finite volumes: one potential per voxel, and between two voxels the harmonic mean of their conductivities, which makes laminates exact
(across: harmonic mean; along: arithmetic mean). The volume is repeated endlessly as it is; where its faces do not match, as in a cube
cut from a larger structure, this adds a layer of its own, the same for every volume of one size.

Solved by conjugate gradients on the potential with the Green operator of a uniform medium as preconditioner, one scalar Fourier
transform and back per step; the number of steps grows with the square root of the contrast (Moulinec & Suquet 1998, CMAME 157:69;
Zeman, Vondrejc, Novak & Marek 2010, J. Comput. Phys. 229:8065). The energy that is returned is a bound from above for the discrete
problem and its error is of second order in that of the potential.

Dilute spheres of conductivity k_s in k_m: k_eff = k_m (1 + 3 phi (k_s - k_m) / (k_s + 2 k_m)) (Maxwell 1873).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulacra.sciences.microstructure.data import Bits
from simulacra.study import Refused

Array = NDArray[np.float64]
Field = NDArray[Any]

PORE, SOLID = 1.0, 0.01  # conductivities: a brine, and grain that hardly conducts
MOST = 400  # steps


def effective_conductivity(
    solid: Bits, axes: Sequence[int] = (0, 1, 2), *, pore: float = PORE, grain: float = SOLID, tolerance: float = 3e-3
) -> Array:
    """k_eff of each volume (n, depth, height, width) along each of `axes`, (n, axes). `tolerance`: norm of the preconditioned residual
    over that of the first one; k_eff is then within about its square."""
    if solid.ndim != 4 or min(pore, grain) <= 0 or not math.isfinite(pore / grain):
        raise Refused(f"solid of shape {solid.shape}, conductivities {pore:g} and {grain:g}; expected volumes, and two above 0")
    return np.array([[_one(volume, axis, pore, grain, tolerance) for axis in axes] for volume in solid])


def _one(solid: Bits, axis: int, pore: float, grain: float, tolerance: float) -> float:
    k = np.where(solid > 0, np.float32(grain), np.float32(pore))
    if solid.min() == solid.max():
        return float(k.flat[0])
    faces = [2 * k * np.roll(k, -1, a) / (k + np.roll(k, -1, a)) for a in range(3)]  # towards the next voxel along a
    green = _green(solid.shape) / np.float32(math.sqrt(pore * grain))
    # The drop of the mean field is 1 per voxel along `axis`; u is what comes on top of it.
    residual = faces[axis] - np.roll(faces[axis], 1, axis)
    energy = float(faces[axis].mean(dtype=np.float64))
    direction = step = _smoothed(residual, green)
    product = first = _dot(residual, step)
    for _ in range(MOST):
        if product <= tolerance**2 * first:
            return energy
        pushed = _divergence(faces, direction)
        length = product / _dot(direction, pushed)
        residual = residual - np.float32(length) * pushed
        energy -= length * product / solid.size  # each step takes this much from the energy, exactly
        step = _smoothed(residual, green)
        product, before = _dot(residual, step), product
        direction = step + np.float32(product / before) * direction
    raise Refused(
        f"the conductivity of a volume did not settle in {MOST} steps at a contrast of {max(pore, grain) / min(pore, grain):g}; "
        "take a smaller contrast"
    )


def _green(shape: Sequence[int]) -> Field:
    """Inverse of the periodic finite-volume Laplacian for unit conductivity, in Fourier space; 0 for the mean."""
    angles = [fft.fftfreq(shape[0]), fft.fftfreq(shape[1]), fft.rfftfreq(shape[2])]
    z, y, x = (2 - 2 * np.cos(2 * np.pi * angle) for angle in angles)
    laplacian = z[:, None, None] + y[None, :, None] + x[None, None, :]
    laplacian[0, 0, 0] = np.inf
    return np.asarray(1 / laplacian, np.float32)


def _smoothed(residual: Field, green: Field) -> Field:
    return np.asarray(fft.irfftn(fft.rfftn(residual) * green, residual.shape))


def _divergence(faces: Sequence[Field], u: Field) -> Field:
    """-div (k grad u), summed over the six faces of each voxel."""
    total = np.zeros_like(u)
    for axis, k in enumerate(faces):
        flow, rest = np.empty_like(u), np.moveaxis(total, axis, 0)
        out, along, layers = np.moveaxis(flow, axis, 0), np.moveaxis(k, axis, 0), np.moveaxis(u, axis, 0)
        np.multiply(along[:-1], layers[:-1] - layers[1:], out=out[:-1])
        np.multiply(along[-1], layers[-1] - layers[0], out=out[-1])
        rest += out
        rest[1:] -= out[:-1]
        rest[0] -= out[-1]
    return total


def _dot(a: Field, b: Field) -> float:
    return float(np.vdot(a, b))
