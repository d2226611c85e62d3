"""Maps per second of both lensing generators beside the simulator, and from how many maps on training pays.

    python benchmarks/lensing_speed.py [RUN ...] [--maps 256]

Without a RUN, the players of the `laptop` recipes of lensing.cosmogan and lensing.ddpm as they are before training: a draw costs the same.
All in one process on one thread, in blocks of 64 maps; the median of three rounds. Seconds of training are those that a RUN folder
has recorded.

    break-even maps = training seconds / (simulator's seconds per map - generator's seconds per map)

which is reached by no number of maps where the simulator is the faster one. Then the last line says how slow, at least, a simulator
must be for the generator to pay within 100,000 maps. The simulator's seconds are those of a map; once per universe come those of its
spectrum, which are given apart: a generator that is told the universe has none.
"""

import argparse
import time
from pathlib import Path

import torch

from simulacra import study
from simulacra.pipeline import draw_like
from simulacra.sciences.lensing import simulate
from timing import pays, seconds, trained

MANY = 100_000


def untrained(name):
    """The learner of a laptop recipe before training, fitted to few maps."""
    asked = study.find(name)
    recipe = asked.recipes["laptop"].model_copy(update={"each": 20, "judged_each": 2})
    torch.manual_seed(0)
    return name, asked.build(recipe, asked.load(recipe).train), recipe, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--maps", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    n, device = options.maps, torch.device("cpu")
    each = [trained(path) for path in options.runs] or [untrained(name) for name in ("lensing.cosmogan", "lensing.ddpm")]
    side, degrees = each[0][2].side, each[0][2].degrees or 3.5
    began = time.perf_counter()
    universe = simulate.Universe(0.31, 0.79)
    simulate.law(universe, side, degrees)
    once = time.perf_counter() - began
    slow = seconds(lambda: simulate.simulate([universe], n, side=side, degrees=degrees, seed=0), n)
    print(f"{side} px, {n} maps a round, one thread; once per universe the simulator takes {once:.2f} s")
    print(f"{'':32} {'ms per map':>11} {'maps per s':>11}  break-even")
    print(f"{'simulator (log-normal)':32} {1e3 * slow:11.3f} {1 / slow:11.0f}")
    for name, learner, _, spent in each:
        like = learner.ask(n, {"omega_m": "0.31", "sigma_8": "0.79"})
        fast = seconds(lambda learner=learner, like=like: draw_like(learner, like, seed=0, device=device), n)
        verdict = pays(spent, slow, fast, MANY, "maps")
        print(f"{name[-32:]:32} {1e3 * fast:11.3f} {1 / fast:11.0f}  {verdict}")


if __name__ == "__main__":
    main()
