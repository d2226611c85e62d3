"""Showers per second of the generators of calorimeter.gan3d beside the simulator, each on one thread.

    python benchmarks/calorimeter_speed.py [RUN ...] [--showers 256]

Without a RUN, the networks of the `laptop` recipe and of 3DGAN at 12^3 cells as they are before training: a draw costs the same. Blocks of
64 showers, as the command line draws them; processor time, so that other work on the machine counts little, and the best of three rounds.
Both sides make the same: 12^3 cells, 10 to 100 GeV, electrons and photons.
"""

import argparse
import time
from pathlib import Path

import torch

from simulacra.pipeline import draw_like, restored
from simulacra.runs import Run
from simulacra.sciences.calorimeter import framing, gan3d
from simulacra.sciences.calorimeter.simulate import simulate


def rate(make, n):
    """Showers per second of processor time of `make()`, which makes n."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        make()
        best = min(best, time.process_time() - began)
    return n / best


def untrained():
    """Both families, fitted to few showers."""
    for family, particles in (("diffusion", ("electron", "photon")), ("3dgan", ("electron",))):
        recipe = gan3d.study.recipes["laptop"].model_copy(
            update={"family": family, "particles": particles, "simulated": 1000, "judged_each": 2}
        )
        torch.manual_seed(0)
        yield f"{family}, not trained", gan3d.build(recipe, framing.load(recipe).train)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--showers", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    n = options.showers
    known = [(str(path), restored(Run.open(path))[2]) for path in options.runs] or untrained()
    for name, learner in known:
        like = learner.ask(n, {})
        slow = rate(lambda like=like: simulate(like.incident.numpy(), like.particle.numpy(), like.grid[0], seed=0), n)
        fast = rate(lambda learner=learner, like=like: draw_like(learner, like, seed=0, device=torch.device("cpu")), n)
        print(f"{name[-32:]:32} {fast:8.0f} showers/s   simulator {slow:8.0f}/s   ratio {fast / slow:.3f}")


if __name__ == "__main__":
    main()
