"""Cubes per second of microstructure.gan3d beside the simulator, and from how many cubes on training pays.

    python benchmarks/microstructure_speed.py [RUN ...] [--cubes 32] [--larger 64]

Without a RUN, the players of the `laptop` and `paper` recipes as they are before training: a draw costs the same. All in one process
on one thread, in processor time; the median of three rounds, and one round of a volume of the larger side. Seconds of training are
those that a RUN folder has recorded.

    break-even cubes = training seconds / (simulator's seconds per cube - generator's seconds per cube)

which no number of cubes reaches where the simulator is the faster one. Then the line says how slow, at least, a source of
cubes must be for the generator to pay within 10,000 of them.
"""

import argparse
from pathlib import Path

import torch

from simulacra import study
from simulacra.pipeline import draw_like
from simulacra.sciences.microstructure import framing, simulate
from simulacra.study import Refused
from timing import pays, seconds, trained

MANY = 10_000
CPU = torch.device("cpu")


def untrained(name):
    """The learner of a recipe before training, fitted to few cubes."""
    asked = study.find("microstructure.gan3d")
    recipe = asked.recipes[name].model_copy(update={"simulated": 20, "judged": 20})
    torch.manual_seed(0)
    return f"{name}, untrained", asked.build(recipe, asked.load(recipe).train), recipe, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--cubes", type=int, default=32)
    parser.add_argument("--larger", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    n = options.cubes
    each = [trained(path) for path in options.runs] or [untrained(name) for name in ("laptop", "paper")]
    side, radius, fraction = each[0][2].side, each[0][2].radius, each[0][2].solid_fraction
    slow = seconds(lambda: simulate.spheres(20 * n, side, radius, fraction, seed=0), 20 * n)
    print(f"{side} voxels, {n} cubes a round, one thread")
    print(f"{'':32} {'ms per cube':>11} {'cubes per s':>11}  break-even")
    print(f"{f'spheres of radius {radius:g}, simulated':32} {1e3 * slow:11.2f} {1 / slow:11.1f}")
    for name, learner, recipe, spent in each:
        like = framing.template(recipe.side, n, {})
        fast = seconds(lambda learner=learner, like=like: draw_like(learner, like, seed=0, device=CPU), n)
        verdict = pays(spent, slow, fast, MANY, "cubes")
        print(f"{name[-32:]:32} {1e3 * fast:11.2f} {1 / fast:11.1f}  {verdict}")
        try:
            wide = seconds(lambda learner=learner: draw_like(learner, framing.template(options.larger, 1, {}), seed=0, device=CPU), 1, 1)
        except Refused as reason:
            print(f"    {reason}")
        else:
            print(f"    a volume of {options.larger} voxels: {wide:.1f} s")


if __name__ == "__main__":
    main()
