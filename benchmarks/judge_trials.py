"""The judge is judged: how often it calls nature equal to nature, and how often it notices a planted fault.

    python benchmarks/judge_trials.py [--trials 200] [--science ising|galaxies]

Each trial takes fresh disjoint rows of simulated nature from a pool, so truth is known by construction. Prints, per kind of
trial, how many of the trials were called different at the judge's own false-alarm rate, and writes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from simulacra.evidence import ALARM, Evidence

Trial = Callable[[np.random.Generator], tuple[Any, Any, Any]]  # -> nature, drawn, training
FAST = {"permutations": 199, "halves": 2}  # verdicts only: no intervals of gaps


def ising(trials: int) -> Iterator[tuple[str, list[Evidence]]]:
    """32 x 32 at five temperatures, 40 lattices each on either side."""
    from simulacra.sciences.ising import data, statistics

    ladder, each, pool = (2.0, 2.15, data.CRITICAL, 2.45, 2.6), 40, 1200
    nature = data.equilibrium(32, ladder, pool, seed=11)
    hotter = data.equilibrium(32, [t + 0.1 for t in ladder], pool, seed=12)
    training = data.equilibrium(32, ladder, 400, seed=13)

    def rows(rng: np.random.Generator, of: int, take: int) -> np.ndarray:
        return np.concatenate([rung * of + rng.permutation(of)[:take] for rung in range(len(ladder))])

    def halves(rng: np.random.Generator) -> tuple[Any, Any]:
        both = rows(rng, pool, 2 * each).reshape(len(ladder), 2, each)
        return nature[both[:, 0].reshape(-1)], nature[both[:, 1].reshape(-1)]

    def equal(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        return *halves(rng), training

    def wrong_temperature(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        held, drawn = halves(rng)
        return held, dataclasses.replace(drawn, spins=hotter[rows(rng, pool, each)].spins), training

    def collapsed(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        held, drawn = halves(rng)
        few = torch.as_tensor(np.arange(len(drawn)) // each * each + np.arange(len(drawn)) % 4)  # four lattices per temperature
        return held, drawn[few], training

    def copied(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        return halves(rng)[0], training[rows(rng, 400, each)], training

    kinds: dict[str, Trial] = {
        "two halves of nature": equal, "wrong temperature (+0.1)": wrong_temperature,
        "collapsed generator (4 lattices per temperature)": collapsed, "copied training data": copied,
    }  # fmt: skip
    for name, make in kinds.items():
        yield name, _judged(statistics.judge, make, trials)


def galaxies(trials: int) -> Iterator[tuple[str, list[Evidence]]]:
    """Simulated galaxies of 48 px, 200 on either side."""
    from simulacra.sciences.galaxies import simulate, statistics
    from simulacra.sciences.galaxies.data import Images

    each, pool = 200, 2400
    nature, training = simulate.simulate(pool, 48, 21), simulate.simulate(1500, 48, 22)
    soft = ndimage.gaussian_filter(nature.pixels.numpy().astype(np.float32), (0, 0, 1, 1))
    blurred = Images(torch.from_numpy(np.rint(soft).astype(np.uint8)), nature.label)
    exchanged = simulate.wrong_band_order(nature)
    _remember_measurements(statistics)

    def halves(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        both = rng.permutation(pool)
        return both[:each], both[each : 2 * each]

    def of(source: Any) -> Trial:
        def trial(rng: np.random.Generator) -> tuple[Any, Any, Any]:
            held, drawn = halves(rng)
            return nature[held], source[drawn], training

        return trial

    def collapsed(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        held, drawn = halves(rng)
        return nature[held], nature[np.resize(drawn[:10], each)], training

    def copied(rng: np.random.Generator) -> tuple[Any, Any, Any]:
        return nature[halves(rng)[0]], training[rng.permutation(len(training))[:each]], training

    kinds: dict[str, Trial] = {
        "two halves of nature": of(nature), "blurred images (1 px)": of(blurred), "wrong band order": of(exchanged),
        "collapsed generator (10 images)": collapsed, "copied training data": copied,
    }  # fmt: skip
    for name, make in kinds.items():
        yield name, _judged(statistics.judge, make, trials)


def _remember_measurements(statistics: Any) -> None:
    """Images come back in many trials: measure each one once."""
    known: dict[bytes, Any] = {}
    measure = statistics._measure_block

    def remembered(pixels: np.ndarray, names: Any) -> np.ndarray:
        keys = [image.tobytes() for image in pixels]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            unique = {keys[i]: i for i in new}
            known.update(zip(unique, measure(pixels[list(unique.values())], names), strict=True))
        return np.stack([known[key] for key in keys])

    statistics._measure_block = remembered


def _judged(judge: Callable[..., Evidence], make: Trial, trials: int) -> list[Evidence]:
    verdicts = []
    for trial in range(trials):
        nature, drawn, training = make(np.random.default_rng([99, trial]))
        verdicts.append(judge(nature, drawn, seed=trial, training=training, **FAST))
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--science", choices=["ising", "galaxies"], action="append")
    options = parser.parse_args()
    for science in options.science or ["ising", "galaxies"]:
        began = time.monotonic()
        for name, verdicts in {"ising": ising, "galaxies": galaxies}[science](options.trials):
            different = [v.differs for v in verdicts]
            seen = {f.name.split(",")[0] for v in verdicts if v.differs for f in v.findings if f.p is not None and f.p <= ALARM}
            by = f"  by: {', '.join(sorted(seen))}" if "nature" not in name else ""
            print(f"{science:9s} {name:50s} called different {sum(different):3d} of {len(different)}  "
                  f"({time.monotonic() - began:.0f} s){by}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
