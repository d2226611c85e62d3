"""Can a network tell drawn showers from nature's? The area under its ROC curve, after the protocol of CaloChallenge.

    network    LeakyReLU layers of `width`, `layers` of them after the first, one logit; Adam at 2e-4, batches of 1,000, 50 epochs
    showers    60 % of each side teach, 20 % choose the epoch (by accuracy), 20 % are judged
    voxels     log10 E, 100 x energy of each cell / E
    features   log10 E, log10 of layer energies, and per layer centre and width of the energy along rows and columns
               (Krause et al. 2024, arXiv:2410.21611; there 2 x 2048 and 200,000 showers)

0.5: not to be told; 1: always. The power of a classifier grows with its data, so an area belongs to a number of showers, and stands beside
that of nature against itself. Inputs are standardised here, by the showers that teach, so that few steps are enough: harsher, not milder.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a classifier is taught. The values here are those published."""

    width: int = 2048
    layers: int = 2
    rate: float = 2e-4
    batch: int = 1000
    epochs: int = 50


SMALL = Protocol(width=256, batch=100)  # for hundreds to thousands of showers and one core: many steps of a narrower network


@dataclasses.dataclass(frozen=True)
class Area:
    """Area under the ROC curve, with its standard error."""

    value: float
    error: float


def told_apart(nature: Array, drawn: Array, protocol: Protocol = SMALL, *, seed: int) -> Area:
    """How well drawn rows (m, k) can be told from nature's (n, k), as an area on rows that taught nothing."""
    rng = np.random.default_rng([seed, 0xA0C])
    count = min(len(nature), len(drawn))
    parts: list[list[Array]] = [[], [], []]
    for side in (nature, drawn):
        order = rng.permutation(len(side))[:count]
        for part, rows in zip(parts, np.split(order, [int(0.6 * count), int(0.8 * count)]), strict=True):
            part.append(side[rows])
    teach, choose, test = (np.concatenate(part) for part in parts)
    centre, spread = teach.mean(axis=0), teach.std(axis=0)
    scale = np.where(spread > 1e-9 * (1 + np.abs(centre)), spread, np.inf)
    tensors = [torch.from_numpy(((part - centre) / scale).clip(-20, 20).astype(np.float32)) for part in (teach, choose, test)]
    labels = [torch.arange(len(part)) >= len(part) // 2 for part in tensors]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        score = _taught(tensors, labels, protocol)
    return area(score[: len(score) // 2], score[len(score) // 2 :])


def _taught(rows: list[Tensor], labels: list[Tensor], protocol: Protocol) -> Array:
    """Logits of the third part of the rows, by the network at its best epoch on the second."""
    wide = [nn.Linear(rows[0].shape[1], protocol.width), nn.LeakyReLU()]
    for _ in range(protocol.layers):
        wide += [nn.Linear(protocol.width, protocol.width), nn.LeakyReLU()]
    network = nn.Sequential(*wide, nn.Linear(protocol.width, 1))
    adam = torch.optim.Adam(network.parameters(), lr=protocol.rate)
    best, found = -1.0, torch.zeros(len(rows[2]))
    for _ in range(protocol.epochs):
        for batch in torch.split(torch.randperm(len(rows[0])), protocol.batch):
            loss = nn.functional.binary_cross_entropy_with_logits(network(rows[0][batch])[:, 0], labels[0][batch].float())
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        with torch.no_grad():
            right = float(((network(rows[1])[:, 0] > 0) == labels[1]).float().mean())
            if right > best:
                best, found = right, network(rows[2])[:, 0]
    return found.double().numpy()


def area(low: Array, high: Array) -> Area:
    """Share of pairs in which a score of `high` (m,) beats one of `low` (n,), ties half; its standard error after DeLong, DeLong &
    Clarke-Pearson 1988 (Biometrics 44:837), and not below that of one pair in all."""
    n, m = len(low), len(high)
    ranks = stats.rankdata(np.concatenate([low, high]))
    beaten = (ranks[n:] - stats.rankdata(high)) / n  # for each of `high`: share of `low` below
    beating = 1 - (ranks[:n] - stats.rankdata(low)) / m
    variance = sum(float(v.var(ddof=1)) / len(v) for v in (beaten, beating) if len(v) > 1)
    return Area(float(beaten.mean()), max(float(np.sqrt(variance)), 1 / (n * m)))
