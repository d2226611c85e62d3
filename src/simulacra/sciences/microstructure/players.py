"""The players of Henkes and Wessels' game: a generator with a mapping network, and a residual critic of volumes.

    generator   z of 128 normal numbers -> 8 dense layers of 128 (the mapping network) -> dense to 256 maps of 2^3, the seed -> three
                transposed convolutions of kernel 3 and stride 2 to 128, 64 and 32 maps, to each of which is added what a transposed
                convolution of kernel 1 and stride 2, 4 or 8 makes of the seed -> one more to a single map, tanh, stretched
                to the range of the standardised phases. LeakyReLU(0.2) after every layer but the last
    critic      residual blocks (two convolutions of kernel 3 beside one of kernel 1) of 16, 32, 64 and 128 maps, each followed by
                averages of 2^3 voxels, then one of 256 without; linear to a score. LeakyReLU(0.3)

for 32 voxels; each doubling of the side adds a stage to both. Orthogonal initial weights (Henkes & Wessels 2022, CMAME 400:115497,
arXiv:2206.01693, and github.com/ahenkes1/HENKES_GAN).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.nets.conv import core_side

SEED = 2  # voxels along one edge of what the mapping network gives
MAPPED = 8  # layers of the mapping network


class Slow(nn.Module):
    """A dense layer whose weights and biases are `pace` times what is stored, so that Adam, whose steps do not depend on the size of a
    gradient, moves them `pace` times as fast as others (Karras et al. 2019, arXiv:1812.04948)."""

    def __init__(self, inputs: int, outputs: int, pace: float) -> None:
        super().__init__()
        self.pace = pace
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)) / pace)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.pace, self.bias * self.pace)


class Growing(nn.Module):
    """Normal z (n, latent) -> standardised volumes (n, 1, side, side, side) between `low` and `high`."""

    low: Tensor
    high: Tensor

    def __init__(self, side: int, latent: int, filters: int, pace: float) -> None:
        super().__init__()
        stages = core_side(side, 0).bit_length() - SEED.bit_length() - 1
        widths = [filters << k for k in reversed(range(stages + 1))]
        mapping = [layer for _ in range(MAPPED) for layer in (Slow(latent, latent, pace), nn.LeakyReLU(0.2))]
        seed = [nn.Linear(latent, widths[0] * SEED**3), nn.LeakyReLU(0.2), nn.Unflatten(1, (widths[0], SEED, SEED, SEED))]
        self.seed = nn.Sequential(*mapping, *seed)
        self.grow = nn.ModuleList(_doubling(before, after) for before, after in pairwise(widths))
        self.carry = nn.ModuleList(
            nn.ConvTranspose3d(widths[0], after, 1, 2 << k, output_padding=(2 << k) - 1) for k, after in enumerate(widths[1:])
        )
        self.last = _doubling(widths[-1], 1)
        self.register_buffer("low", torch.tensor(-1.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.apply(_orthogonal)

    def forward(self, z: Tensor) -> Tensor:
        seed: Tensor = self.seed(z)
        x = seed
        for grow, carry in zip(self.grow, self.carry, strict=True):
            x = F.leaky_relu(grow(x), 0.2) + F.leaky_relu(carry(seed), 0.2)
        found: Tensor = self.low + (torch.tanh(self.last(x)) + 1) * (self.high - self.low) / 2
        return found


class Residual(nn.Module):
    """leaky(conv 1(x) + conv 3(leaky(conv 3(x)))) and, with `halves`, means of 2^3 voxels."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool) -> None:
        super().__init__()
        self.carry = nn.Conv3d(inputs, outputs, 1)
        self.along = nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.3), nn.Conv3d(outputs, outputs, 3, padding=1))
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        found = F.leaky_relu(self.carry(x) + self.along(x), 0.3)
        return F.avg_pool3d(found, 2) if self.halves else found


class Scoring(nn.Module):
    """Standardised volumes (n, 1, side, side, side) -> scores (n,)."""

    def __init__(self, side: int, filters: int) -> None:
        super().__init__()
        halvings = core_side(side, 0).bit_length() - SEED.bit_length()
        widths = [1, *(filters << k for k in range(halvings + 1))]
        blocks = [Residual(a, b, halves=k < halvings) for k, (a, b) in enumerate(pairwise(widths))]
        self.net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(widths[-1] * SEED**3, 1))
        self.apply(_orthogonal)

    def forward(self, volumes: Tensor) -> Tensor:
        score: Tensor = self.net(volumes)[:, 0]
        return score


def _doubling(before: int, after: int) -> nn.Module:
    return nn.ConvTranspose3d(before, after, 3, 2, 1, output_padding=1)


def _orthogonal(layer: nn.Module) -> None:
    """As the published program's library does: the kernel as a matrix of its last axis, outputs of a convolution, by all the others."""
    if isinstance(layer, nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
        nn.init.orthogonal_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


