"""Traces a second on one core: both networks, what their matched filters cost, the same filters with a transform for each pulse, and the
linear filter that they are measured against.

    python benchmarks/airshower_denoiser.py [--traces 2000]

Times are of the processor, so that a busy machine tells the same; weights are as new, which costs as much as trained ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from simulacra.sciences.airshower import denoiser, simulate
from simulacra.sciences.airshower.filters import Bank
from simulacra.sciences.airshower.statistics import Known
from simulacra.study import Noise

SMALL = 64  # traces at a time, as a denoiser takes them


def rate(work: Callable[[], object], traces: int, rounds: int = 3) -> float:
    """Traces a second, the best of a few rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return traces / best


def one_by_one(bank: Bank, whitened: torch.Tensor) -> None:
    """The moments of a bank the plain way: a transform for each pulse, and one for its shares."""
    steps, places = whitened.shape[1], slice(bank.first, bank.first + bank.strength.shape[1])
    modes = torch.fft.rfft(whitened)[:, None] * torch.fft.rfft(bank.pulses).conj()
    ratio = torch.fft.irfft(modes, steps)[:, :, places] - bank.strength.square() / 2
    share = torch.zeros(*ratio.shape[:2], steps)
    share[:, :, places] = (ratio - ratio.amax((1, 2), keepdim=True)).exp_()
    for values in (bank.pulses, bank.pulses.square()):
        torch.fft.irfft(torch.einsum("nkf,kf->nf", torch.fft.rfft(share), torch.fft.rfft(values)), steps)


def main() -> None:
    """Print one line per way to clean traces."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--traces", type=int, default=2000)
    n = asked.parse_args().traces
    torch.set_num_threads(1)
    training, like = simulate.simulate(4000, "measured", seed=1), simulate.simulate(n, "measured", seed=2)
    known = Known.of(training)
    assert known is not None
    wiener = torch.from_numpy(known.wiener).float()

    def linear() -> None:
        for start in range(0, n, SMALL):
            like.measured[start : start + SMALL] @ wiener

    plain = rate(linear, n)
    print(f"{'Wiener filter, one matrix':34s} {plain:9.0f} traces/s")
    for name in ("paper", "laptop"):
        recipe = denoiser.study.recipes[name]
        learner = denoiser.build(recipe, training)
        found = rate(lambda learner=learner: learner.draw(like, Noise(0, range(n))), n)  # type: ignore[misc]
        print(f"{name:34s} {found:9.0f} traces/s, {found / plain:.3f} of the linear filter's")
    bank = known.bank_of(denoiser.study.recipes["laptop"].templates)

    def filters(work: Callable[[torch.Tensor], object]) -> None:
        for start in range(0, n, SMALL):
            work(like.measured[start : start + SMALL] @ bank.precision)

    fast, slow = rate(lambda: filters(bank.moments), n), rate(lambda: filters(lambda rows: one_by_one(bank, rows)), n)
    print(f"{'matched filters of laptop alone':34s} {fast:9.0f} traces/s, {fast / slow:.1f} times those with a transform for each pulse")


if __name__ == "__main__":
    main()
