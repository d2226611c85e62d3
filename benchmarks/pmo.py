"""How well drugs.transfer is led by the oracles of PMO (Gao et al. 2022, arXiv:2206.12411), in 10,000 calls.

    python benchmarks/pmo.py PRIOR ORACLE[,ORACLE...] [SEEDS] [CALLS] [FILE]

PRIOR is a run folder or folder of weights; FILE a list of molecules (ZINC, say) to search at random. For every oracle: the area under the
mean of the best 10 against calls, a point every 100 calls, divided by the calls (PMO's top_auc), and beside it the same of as many
different draws of the prior in the order of drawing, and of as many random molecules of FILE. Best so far stands behind each.

PMO publishes sums over 23 oracles; 20 of them are here (scores.py). A sum over fewer is not comparable with theirs.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from simulacra import study
from simulacra.sciences.drugs import data, reading, scores, seeking, transfer
from simulacra.training import _mixed


def led(name, prior, seed, calls):
    """Scores in the order of calls, by the recipe `goals`; what it costs in seconds of processor time."""
    recipe = study.find("drugs.transfer").recipes["goals"].model_copy(update={"prior": prior, "score": name, "seed": seed, "calls": calls})
    learner, began = transfer.build(recipe, data.empty(1)), time.process_time()
    for step in range(recipe.steps):
        torch.manual_seed(_mixed(seed, 2, step))
        learner.step(data.empty(1))
        if len(learner.seen) >= calls:
            break
    return list(learner.seen.values()), time.process_time() - began, learner.best(1)[0][0]


def drawn(prior, calls, seed):
    """As many different molecules as calls, drawn from the prior."""
    recipe = study.find("drugs.transfer").recipes["goals"].model_copy(update={"prior": prior, "score": "qed"})
    learner, names = transfer.build(recipe, data.empty(1)), {}
    for start in range(0, 20 * calls, 2000):
        tokens = learner.writer.sampled(range(start, start + 2000), seed=seed, model=learner.prior).tokens
        names |= dict.fromkeys(name for name, _ in map(seeking.described, learner.writer.vocabulary.decoded(tokens)) if name)
        if len(names) >= calls:
            break
    return list(names)[:calls]


def random_ones(path, calls, seed):
    """As many molecules of a file, at random."""
    found = reading.read_clean(Path(path)).smiles
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:calls].tolist()]


def told(values, calls):
    """Area and best ten."""
    return f"{seeking.area(values, calls):.3f} ({np.mean(sorted(values, reverse=True)[: seeking.BEST]):.3f})"


def main(prior, oracles, seeds="1", calls="10000", file=""):
    torch.set_num_threads(1)
    calls = int(calls)
    beside = {"prior": drawn(prior, calls, 0)} | ({"file": random_ones(file, calls, 0)} if file else {})
    print(f"{'oracle':28s} {'led':>15s} {'prior draws':>15s} {'random of file':>15s}  seconds  best molecule", flush=True)
    for name in oracles.split(","):
        oracle = scores.Oracle(name)
        at_random = [told(oracle(names), calls) for names in beside.values()]
        for seed in range(int(seeds)):
            values, seconds, best = led(name, prior, seed, calls)
            columns = " ".join(f"{one:>15s}" for one in [told(values, calls), *at_random])
            print(f"{name:28s} {columns}  {seconds:7.0f}  {best}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
