"""The articles' autoencoder on their three backgrounds: true reconstructions, beside the matched filter's peak on the same traces.

    python benchmarks/airshower_reconstruction.py [--recipe paper] [--seeds 3] [--steps N]

Each seed makes its own traces at SNR 2 by the data set's definition, trains on them, and judges held-out ones once. The article
reports 69, 95 and 98 % without saying whether by place or by amplitude.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from simulacra.pipeline import draw_like
from simulacra.sciences.airshower import denoiser, framing, statistics
from simulacra.training import batches_from


def trained(recipe: denoiser.DenoiserRecipe) -> dict[str, float]:
    """% of true reconstructions on held-out traces, and the squared error over that of no signal at all."""
    torch.manual_seed(recipe.seed)
    split = framing.load(recipe)
    learner = denoiser.build(recipe, split.train)
    began = time.process_time()
    rows = batches_from(split.train, recipe.batch, recipe.seed, 0)
    for step in range(recipe.steps):
        torch.manual_seed((recipe.seed << 32) + step)
        learner.step(split.train[next(rows)])
    seconds = time.process_time() - began
    shown = split.held_out[: recipe.draws]
    found = draw_like(learner, shown, seed=0, device=torch.device("cpu"))
    known = statistics.Known.of(split.train)
    assert known is not None
    there = (shown.signal != 0).any(1).numpy()
    truth, signal = shown.signal.double().numpy(), found.signal.double().numpy()
    best = known.bank.read(shown.measured.double().numpy()).best
    place, amplitude = statistics.true_reconstruction(signal[there], truth[there])
    filtered = statistics.true_reconstruction(best[there], truth[there])
    return {
        "place": 100 * place.mean(), "amplitude": 100 * amplitude.mean(), "matched place": 100 * filtered[0].mean(),
        "matched amplitude": 100 * filtered[1].mean(), "squared error": np.square(signal - truth).mean() / np.square(truth).mean(),
        "minutes": seconds / 60,
    }  # fmt: skip


def main() -> None:
    """Print one line per run and the means."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--recipe", default="paper")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--steps", type=int)
    asked.add_argument("--backgrounds", default=",".join(denoiser.ARTICLE))
    given = asked.parse_args()
    torch.set_num_threads(1)
    for background in given.backgrounds.split(","):
        found = []
        for seed in range(given.seeds):
            changes = {"background": background, "seed": seed, **({"steps": given.steps} if given.steps else {})}
            found.append(trained(denoiser.study.recipes[given.recipe].model_copy(update=changes)))
            print(f"{background:9s} seed {seed}: ", ", ".join(f"{k} {v:.3g}" for k, v in found[-1].items()), flush=True)
        mean = {k: np.mean([one[k] for one in found]) for k in found[0]}
        bar = f" (article: {denoiser.ARTICLE[background]:g})" if background in denoiser.ARTICLE else ""
        print(f"{background:9s} mean:   ", ", ".join(f"{k} {v:.3g}" for k, v in mean.items()), bar, flush=True)


if __name__ == "__main__":
    main()
