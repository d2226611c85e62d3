"""Quality of molecules.flow against evaluations of its network per molecule, with the time that drawing and judging take.

    python benchmarks/flow_steps.py [RUN or shipped folder or study] [molecules per row] [seeds]

Sizes are those of training, evenly over all. Nothing is filtered or drawn again. Errors: scatter over the seeds of drawing.
"""

import sys
import time

import numpy as np
import torch

from simulacra import drawing
from simulacra.pipeline import draw_like
from simulacra.sciences.molecules import protocols

STEPS = (10, 20, 50, 100)


def row(learner, n, seed):
    """Seconds to draw and to evaluate, atom and molecule stability, strict validity, share of different molecules."""
    like = learner.ask(n, {})
    began = time.perf_counter()
    drawn = draw_like(learner, like, seed=seed, device=torch.device("cpu"))
    between = time.perf_counter()
    edm, strict = protocols.edm(drawn), protocols.strict(drawn)
    valid = [s for s in protocols.graph_smiles(drawn)[0] if s]
    ended = time.perf_counter()
    unique = len(set(valid)) / max(len(valid), 1)
    return between - began, ended - between, edm.atom_stability, edm.molecule_stability, strict.validity, unique


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else "molecules.flow"
    n, seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 1000, int(sys.argv[3]) if len(sys.argv) > 3 else 3
    source = drawing.opened(what)
    print(f"{source.sentence()}\n{n} molecules per seed, {seeds} seeds, {torch.get_num_threads()} threads")
    print("evaluations  draw s/1000  judge s/1000  atom stability  molecule stability  strict validity  unique of valid")
    for steps in STEPS:
        learner = source.changed({"evaluations": steps}).learner()
        found = np.array([row(learner, n, seed) for seed in range(seeds)])
        mean, spread = found.mean(0), found.std(0, ddof=1) if seeds > 1 else np.zeros(6)
        times = f"{1000 * mean[0] / n:11.1f}  {1000 * mean[1] / n:12.1f}"
        scores = "  ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(mean[2:], spread[2:], strict=True))
        print(f"{steps:11d}  {times}  {scores}", flush=True)


if __name__ == "__main__":
    main()
