"""Travels of a generator that imagines (`study.Imagines`): from position to position, from condition to condition, towards the mean.

Position j of row i is standard normal and belongs to (seed, j, i) alone; number 0 is what `draw` starts from, so row i of a travel
begins at sample i of that seed. A path goes along great circles: in many dimensions a Gaussian lives near a sphere, and a straight
line would cut through its empty middle (White, arXiv:1609.04468). Truncation scales positions by psi: their most likely place is 0,
so a smaller psi draws more typical samples and fewer different ones (Brock et al., arXiv:1809.11096, cut the tails off instead).
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simulacra.families.autoencoder import slerp
from simulacra.study import Imagines, Noise, Samples

Watch = Callable[[int, Mapping[str, float], float], None]


class Moment(NamedTuple):
    """One frame of a travel: where its n rows stand, and under which conditions."""

    position: Tensor  # (n, latent)
    like: Any  # n rows
    towards: Any  # n rows: the conditions ahead
    share: float = 0.0  # of the way to them
    words: str = ""  # that tell the frame from the others


@dataclasses.dataclass(frozen=True)
class Truncated:
    """Draws of `learner` at positions scaled by `psi`, 0 to 1; at 1 they are the learner's own draws."""

    learner: Imagines
    psi: float

    def draw(self, like: Any, noise: Noise) -> Any:
        """One row per row of `like`, under its conditions."""
        return self.learner.imagine(self.psi * noise.normal(self.learner.latent), like)


def positions(latent: int, seed: int, rows: int, numbers: Sequence[int]) -> list[Tensor]:
    """The positions of `rows` rows that have these `numbers`, (rows, latent) each."""
    noise = Noise(seed, range(rows))
    known = [noise.normal(latent) for _ in range(max(numbers) + 1)]
    return [known[number] for number in numbers]


def along_path(stops: Sequence[Tensor], like: Any, frames: int) -> Iterator[Moment]:
    """A closed way through `stops` (rows, latent), `frames` from one to the next; every row has its own way."""
    for a, b in itertools.pairwise([*stops, stops[0]]):
        for share in _shares(frames):
            t = torch.tensor([share])
            yield Moment(torch.cat([slerp(start, end, t) for start, end in zip(a, b, strict=True)]), like, like)


def morphing(position: Tensor, stops: Samples, names: Sequence[str], frames: int) -> Iterator[Moment]:
    """The same positions (rows, latent) under the conditions of the first of `stops`, the next, ..., and the first again. `names` are
    those of the stops."""
    for a, b in itertools.pairwise([*range(len(stops)), 0]):
        here, ahead = (stops[[stop] * len(position)] for stop in (a, b))
        way = f"{names[a]} \N{RIGHTWARDS ARROW} {names[b]}: " if any(names) else ""
        for share in _shares(frames):
            yield Moment(position, here, ahead, share, f"{way}{100 * share:.0f} %")


def truncating(position: Tensor, like: Any, frames: int) -> Iterator[Moment]:
    """Positions (rows, latent) scaled by psi, which goes from 1 to 0 in `frames` frames and back."""
    for share in _shares(2 * frames):
        psi = abs(1 - 2 * share)
        yield Moment(psi * position, like, like, words=f"psi = {psi:.2f}")


def _shares(frames: int) -> list[float]:
    return [k / frames for k in range(frames)]


def imagined(
    learner: Imagines, moments: Iterable[Moment], device: torch.device, block: int, watch: Watch | None = None
) -> Iterator[tuple[str, Any]]:  # fmt: skip
    """Words and samples, on the CPU, of each moment; moments go through the networks together, up to `block` rows at once. After each
    block `watch` is told how many moments are done and how many a second."""
    began, done = time.monotonic(), 0
    for together in _blocks(moments, block):
        rows = len(together[0].position)
        position = torch.cat([m.position for m in together]).to(device)
        here, ahead = (_joined([getattr(m, name) for m in together]).to(device) for name in ("like", "towards"))
        share = torch.tensor([m.share for m in together]).repeat_interleave(rows).to(device)
        with torch.no_grad():
            drawn = learner.imagine(position, here, ahead, share) if share.any() else learner.imagine(position, here)
        drawn = drawn.to("cpu")
        done += len(together)
        if watch:
            watch(done, {}, done / max(time.monotonic() - began, 1e-9))
        for i, moment in enumerate(together):
            yield moment.words, drawn[i * rows : (i + 1) * rows]


def _blocks(moments: Iterable[Moment], block: int) -> Iterator[list[Moment]]:
    moments = iter(moments)
    while together := list(itertools.islice(moments, 1)):
        yield together + list(itertools.islice(moments, max(1, block // len(together[0].position)) - 1))


def _joined(parts: Sequence[Any]) -> Any:
    return type(parts[0]).join(parts)
