"""Seconds per cube of the effective conductivity, and its error against closed forms, beside a plain solver without Fourier transforms.

    python benchmarks/microstructure_conductivity.py [cubes] [side]

The plain baseline solves the same finite-volume equations by scipy's conjugate gradients, preconditioned by the diagonal. Also printed:
cubes per second of the simulators, against one that measures the distance of every voxel from every sphere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from simulacra.sciences.microstructure import simulate
from simulacra.sciences.microstructure.conductivity import PORE, SOLID, effective_conductivity


def plain(solid: np.ndarray, axis: int) -> float:
    """k_eff of one volume along `axis` with a sparse matrix."""
    k = np.where(solid > 0, SOLID, PORE)
    number = np.arange(k.size).reshape(k.shape)
    laplacian, drive = sparse.csr_array((k.size, k.size)), np.zeros(k.size)
    mean = 0.0
    for a in range(3):
        after = np.roll(k, -1, a)
        face = (2 * k * after / (k + after)).ravel()
        here, there = number.ravel(), np.roll(number, -1, a).ravel()
        flow = sparse.coo_array((face, (here, there)), (k.size, k.size)).tocsr()
        laplacian = laplacian + sparse.diags_array((flow + flow.T).sum(axis=1)) - flow - flow.T
        if a == axis:
            drive = face - np.roll(face.reshape(k.shape), 1, a).ravel()
            mean = float(face.mean())
    u, _ = cg(laplacian, drive, rtol=3e-3, M=sparse.diags_array(1 / laplacian.diagonal()))
    return mean - float(2 * u @ drive - u @ (laplacian @ u)) / k.size


def brute(n: int, side: int, radius: float, fraction: float) -> np.ndarray:
    """Boolean spheres, voxel by voxel and sphere by sphere."""
    rng, box = np.random.default_rng(0), side + 2 * radius
    place = np.stack(np.meshgrid(*(np.arange(side),) * 3, indexing="ij"), axis=-1)
    solid = np.zeros((n, side, side, side), bool)
    for row in range(n):
        count = rng.poisson(simulate.BooleanSpheres(radius, fraction).density * box**3)
        for centre in rng.random((count, 3)) * box - radius - 0.5:
            solid[row] |= ((place - centre) ** 2).sum(axis=-1) <= radius**2
    return solid


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of `work`, and what it gave."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    """Print the figures."""
    cubes = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    side = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    solid = simulate.spheres(cubes, side, 6.0, 0.2, 0).solid.numpy()
    taken, found = seconds(lambda: effective_conductivity(solid, (0,)))
    few = min(5, cubes)
    slow, other = seconds(lambda: [plain(volume, 0) for volume in solid[:few]])
    error = np.abs(found[:few, 0] / np.array(other) - 1).max()
    print(f"conductivity, {side}^3, contrast {PORE / SOLID:g}: {1e3 * taken / cubes:.1f} ms per cube and axis; "
          f"{slow / few / (taken / cubes):.1f} times faster than the plain solver, from which it differs by {error:.1e}")  # fmt: skip
    layers = np.zeros((1, side, side, side), np.uint8)
    layers[:, :, : side // 4] = 1
    exact = [0.75 * PORE + 0.25 * SOLID, 1 / (0.75 / PORE + 0.25 / SOLID)]
    laminate = effective_conductivity(layers, (0, 1), tolerance=1e-4)[0]
    print(f"layers, along and across: {laminate[0]:.6f} and {laminate[1]:.6f}; exact {exact[0]:.6f} and {exact[1]:.6f}")
    for name, make in (("spheres", simulate.spheres), ("henkes", simulate.henkes), ("level_cut", simulate.level_cut)):
        radius = 2.0 if name == "level_cut" else 4.0
        taken, _ = seconds(lambda make=make, radius=radius: make(200, side, radius, 0.2, 1))  # type: ignore[misc]
        ratio = ""
        if name == "spheres":
            slow, _ = seconds(lambda: brute(5, side, 4.0, 0.2))
            ratio = f", {slow / 5 / (taken / 200):.0f} times as many as one sphere at a time on the whole cube"
        print(f"{name}: {200 / taken:.0f} cubes of {side}^3 a second{ratio}")


if __name__ == "__main__":
    main()
