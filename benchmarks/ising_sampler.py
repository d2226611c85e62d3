"""Spin updates per nanosecond of Metropolis sweeps, three ways in one process on one core, and what a data set costs.

    python benchmarks/ising_sampler.py

plain numpy          64 lattices as arrays, np.roll and a table of exponentials
scalar, compiled     64 lattices, one spin after another, one random number per costly turn
bit-sliced, compiled 64 lattices in the bits of one word (simulacra.sciences.ising.montecarlo)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numba import njit

from simulacra.sciences.ising import data, montecarlo

SIDE, REPLICAS, TEMPERATURE = 32, 64, 2.269185


@njit  # type: ignore[untyped-decorator]
def scalar(spins: data.Spins, state: montecarlo.Words, accept: data.Array, sweeps: int) -> None:
    n, side, _ = spins.shape
    for half in range(2 * sweeps):
        for r in range(n):
            for i in range(side):
                for j in range((i + half) % 2, side, 2):
                    s = spins[r]
                    around = s[i - 1 if i > 0 else side - 1, j] + s[i + 1 if i + 1 < side else 0, j]
                    around += s[i, j - 1 if j > 0 else side - 1] + s[i, j + 1 if j + 1 < side else 0]
                    cost = s[i, j] * around
                    if cost <= 0 or (montecarlo.next_word(state) >> montecarlo.S11) * 2.0**-53 < accept[cost]:
                        s[i, j] = -s[i, j]


def fastest(run: Callable[[int], None], sweeps: int, repeats: int = 5) -> float:
    """Spin updates per nanosecond, the best of a few goes, processor time."""
    run(2)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run(sweeps)
        times.append(time.process_time() - start)
    return SIDE**2 * REPLICAS * sweeps / min(times) / 1e9


def main() -> None:
    rng = np.random.default_rng(0)
    spins = rng.choice(np.array([-1, 1], np.int8), (REPLICAS, SIDE, SIDE))
    state = rng.integers(0, 2**64, 4, np.uint64)
    lanes, digits = montecarlo.pack(spins), data.binary_digits(math.exp(-4 / TEMPERATURE))
    accept = np.exp(-2 * np.arange(5) / TEMPERATURE)
    rates = {
        "plain numpy": fastest(lambda n: data.checkerboard(spins, TEMPERATURE, n, rng), 20),
        "scalar, compiled": fastest(lambda n: scalar(spins, state, accept, n), 100),
        "bit-sliced, compiled": fastest(lambda n: montecarlo.metropolis(lanes, state, digits, n), 2000),
    }
    base = rates["plain numpy"]
    print(f"{REPLICAS} lattices of {SIDE} x {SIDE} at T = {TEMPERATURE}, spin updates per ns (ratio to plain numpy)")
    for name, rate in rates.items():
        print(f"  {name:22s} {rate:8.4f}  ({rate / base:.1f})")
    start, wall = time.process_time(), time.perf_counter()
    count = len(data.equilibrium(SIDE, [float(t) for t in np.linspace(1.5, 3.5, 25)], 400, seed=0))
    spent, passed = time.process_time() - start, time.perf_counter() - wall
    print(f"{count} independent equilibrium lattices, 25 temperatures 1.5 to 3.5")
    print(f"  {spent:.1f} s of processor time, {passed:.1f} s by the clock")


if __name__ == "__main__":
    main()
