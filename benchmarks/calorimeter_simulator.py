"""Simulated showers per second beside the same law thrown deposit by deposit, and whether both fall into the same cells.

    python benchmarks/calorimeter_simulator.py [--showers 400]

`cells`: what the package does, a compound Poisson number for each cell. `deposits`: the plain way, one shower after the other: a number
of deposits, each with its own depth, radius, angle and energy, counted into cells. One thread, processor time, energies with uniform
logarithms. The last line is the largest difference of mean cell energies in standard errors, over all cells that are hit often.
"""

import argparse
import time

import numpy as np

from simulacra.sciences.calorimeter import simulate as law


def thrown(incident, cells, rng):
    """Energies (n, cells, cells, cells) of electrons, deposit by deposit."""
    half, found = law.WIDTH / 2, []
    edges = [np.linspace(0, law.DEPTH, cells + 1), *[np.linspace(-half, half, cells + 1)] * 2]
    for energy in incident:
        normal = rng.standard_normal((1, 4))
        one = law.latent(np.array([energy]), np.array([1]), normal, np.zeros(1))
        count = rng.poisson(law.SAMPLING * 1000 * energy * one.gain[0] / law.QUANTUM)
        depth = rng.gamma(one.shape[0], one.maximum[0] / (one.shape[0] - 1), count)
        layer = np.clip((depth / law.DEPTH * cells).astype(int), 0, cells - 1)
        radius = np.where(rng.random(count) < law.IN_TAIL, law.TAIL * one.breadth[0], law.radii(one, cells)[0][layer])
        share, angle = rng.random(count), 2 * np.pi * rng.random(count)
        away = radius * np.sqrt(share / (1 - share))
        place = np.column_stack([depth, away * np.cos(angle), away * np.sin(angle)])
        weight = rng.standard_gamma(law.LANDING, count) * law.QUANTUM / law.LANDING
        found.append(np.histogramdd(place, edges, weights=weight)[0])
    return np.stack(found)


def seconds(work, *given, **more):
    began = time.process_time()
    work(*given, **more)
    return time.process_time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--showers", type=int, default=400)
    n = parser.parse_args().showers
    rng = np.random.default_rng(0)
    law.simulate([10.0], 1, seed=0)  # the first call reads libraries
    print("cells   energies (GeV)   cells/s   deposits/s   ratio")
    for cells, (low, high) in ((12, (1, 500)), (12, (10, 100)), (25, (1, 500)), (25, (10, 100))):
        incident = np.exp(rng.uniform(np.log(low), np.log(high), n))
        fast, slow = seconds(law.simulate, incident, 1, cells, seed=1), seconds(thrown, incident, cells, rng)
        print(f"{cells}^3   {low:>4} to {high:<4}     {n / fast:8,.0f}   {n / slow:8,.0f}   {slow / fast:6.1f}")
    same = np.full(3 * n, 20.0)
    one, two = law.simulate(same, 1, 12, seed=2).energy.double().numpy(), thrown(same, 12, rng)
    often = ((one > 0).sum(axis=0) > 50) & ((two > 0).sum(axis=0) > 50)
    error = np.sqrt((one.var(axis=0) + two.var(axis=0)) / (3 * n))
    print(f"largest difference of a mean: {np.abs((one.mean(axis=0) - two.mean(axis=0)) / np.where(often, error, np.inf)).max():.1f} of "
          f"{int(often.sum())} cells (by chance about {np.sqrt(2 * np.log(often.sum())):.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
