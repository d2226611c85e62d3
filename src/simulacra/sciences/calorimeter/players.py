"""Networks of showers: a dense one that says what is left to say about rows of numbers under noise, and the two players of 3DGAN.

    generator   z (200) x label -> dense, (7, 7, 8) places of 8 -> Conv 64 (6,6,8) same, up (2,2,2) -> Conv 6 (6,5,8), up (2,2,3)
                -> Conv 6 (3,3,8) -> Conv 1 (2,2,2), relu -> 25^3 cells; LeakyReLU and batch normalisation between; 872,808 weights
    critic      Conv 32 5^3 -> 3 x Conv 8 5^3, batch normalisation -> mean of 2^3 -> real or drawn, incident energy, sum of cells

The published shapes (Khattak et al. 2022, doi:10.1140/epjc/s10052-022-10258-4, and the authors' program, github.com/svalleco/3Dgan),
with depth as the last axis, are for 25^3 cells; for 12^3 they are shrunk to the same pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.nets.embedding import Waves
from simulacra.nets.unet import silent
from simulacra.sciences.calorimeter.voxels import Asked
from simulacra.study import Refused

FALL = 0.3  # slope of LeakyReLU below 0
RUNNING, LEAST = 0.01, 1e-3  # batch normalisation: weight of a batch in the running statistics, and what is added to the variance
LABEL = 100.0  # GeV: unit of the label


class Telling(nn.Module):
    """`net(seen, level, condition)` for rows of any shape, laid flat: seen (n, 2 c, ...), level (n,), condition (n, told) -> (n, c, ...).

    Residual blocks, each told the level and the condition as a scale and a shift of its normalised numbers (Perez et al. 2018,
    arXiv:1709.07871). New, it says 0.
    """

    def __init__(self, shape: Sequence[int], told: int, *, width: int, blocks: int, embed: int) -> None:
        super().__init__()
        numbers = int(torch.Size(shape).numel())
        self.shape = tuple(shape)
        self.level = nn.Sequential(Waves(embed, most=30.0), nn.Linear(embed, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.condition = nn.Sequential(nn.Linear(told, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.entry = nn.Linear(2 * numbers, width)
        self.blocks = nn.ModuleList([Block(width, embed) for _ in range(blocks)])
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), silent(nn.Linear(width, numbers)))

    def forward(self, seen: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        told = F.silu(self.level(level / 4) + self.condition(condition))
        h = self.entry(seen.flatten(1))
        for block in self.blocks:
            h = block(h, told)
        return self.leave(h).view(-1, *self.shape)  # type: ignore[no-any-return]


class Block(nn.Module):
    """h (n, width) + what a hidden layer makes of it, told (n, embed)."""

    def __init__(self, width: int, embed: int) -> None:
        super().__init__()
        self.normed, self.told = nn.LayerNorm(width), nn.Linear(embed, 2 * width)
        self.hidden, self.back = nn.Linear(width, width), silent(nn.Linear(width, width))

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told).chunk(2, 1)
        found: Tensor = h + self.back(F.silu(self.hidden(F.silu(self.normed(h) * (1 + scale) + shift))))
        return found


# ---------------------------------------------------------------------------------------------------------------- 3DGAN

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """Sizes of the generator's layers, (row, column, layer)."""

    core: Three
    kernels: tuple[Three, Three, Three]
    pads: tuple[Three, Three]  # of zeros on both sides, before the second and the third convolution
    grown: tuple[Three, Three]  # how often values are repeated after the first and the second


SHAPES = {
    25: Shape((7, 7, 8), ((6, 6, 8), (6, 5, 8), (3, 3, 8)), ((2, 2, 0), (1, 0, 3)), ((2, 2, 2), (2, 2, 3))),
    12: Shape((4, 4, 4), ((3, 3, 4), (3, 3, 4), (4, 4, 3)), ((1, 1, 0), (0, 0, 0)), ((2, 2, 2), (2, 2, 3))),
}


class Generating(nn.Module):
    """z (n, latent) and label (n,) -> cells (n, 1, layers, rows, columns), 0 or more. `asked` and `unit` travel with its weights."""

    def __init__(self, cells: int, latent: int, asked: Asked) -> None:
        super().__init__()
        shape = shape_of(cells)
        first = 8 * shape.core[0] * shape.core[1] * shape.core[2]
        one, two, three = shape.kernels
        layers: list[nn.Module] = [
            nn.Linear(latent, first), nn.Unflatten(1, (8, *shape.core)),
            _padded([((k - 1) // 2, k - 1 - (k - 1) // 2) for k in one]),
            nn.Conv3d(8, 64, one), nn.LeakyReLU(FALL), _normed(64), nn.Upsample(scale_factor=shape.grown[0]),
            _padded([(p, p) for p in shape.pads[0]]),
            nn.Conv3d(64, 6, two), nn.LeakyReLU(FALL), _normed(6), nn.Upsample(scale_factor=shape.grown[1]),
            _padded([(p, p) for p in shape.pads[1]]),
            nn.Conv3d(6, 6, three), nn.LeakyReLU(FALL), nn.Conv3d(6, 1, 2, bias=False), nn.ReLU(),
        ]  # fmt: skip
        self.net = nn.Sequential(*layers)
        self.asked = asked
        self.register_buffer("unit", torch.ones(()))  # MeV that a cell of 1 stands for
        self.unit: Tensor
        for layer in layers:
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        drawn: Tensor = self.net(z * label[:, None])
        return drawn.permute(0, 1, 4, 2, 3)


class Judging(nn.Module):
    """Cells (n, 1, layers, rows, columns) -> (n, 3): score, label, sum of cells."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv3d(1, 32, 5, padding=2), nn.LeakyReLU(FALL), nn.Dropout(0.2)]
        for before, pad in ((32, 2), (8, 2), (8, 1)):
            layers += [nn.Conv3d(before, 8, 5, padding=pad), nn.LeakyReLU(FALL), _normed(8), nn.Dropout(0.2)]
        self.net = nn.Sequential(*layers, nn.AvgPool3d(2), nn.Flatten())
        self.heads = nn.Linear(8 * ((cells - 2) // 2) ** 3, 2)

    def forward(self, cells: Tensor) -> Tensor:
        said: Tensor = self.heads(self.net(cells))
        return torch.cat([said, cells.flatten(1).sum(1, keepdim=True)], 1)


def shape_of(cells: int) -> Shape:
    """Sizes for that many cells along an edge. Raises Refused where there are none."""
    if cells not in SHAPES:
        raise Refused(f"3DGAN is laid out for showers of 25^3 cells, and here for 12^3 too, not for {cells}^3; use --family diffusion")
    return SHAPES[cells]


def _normed(channels: int) -> nn.Module:
    return nn.BatchNorm3d(channels, eps=LEAST, momentum=RUNNING)


def _padded(sides: Sequence[tuple[int, int]]) -> nn.Module:
    """Zeros before and after each of three axes."""
    (a, b), (c, d), (e, f) = sides
    return nn.ConstantPad3d((e, f, c, d, a, b), 0.0)
