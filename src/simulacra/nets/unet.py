"""A U-Net that reads traces, images or volumes at a level of noise and answers in their shape (Ronneberger et al. 2015,
arXiv:1505.04597; volumes: Cicek et al. 2016, arXiv:1606.06650).

    patches       p^d cells of c channels become p^d c channels of one: nothing is lost, and convolutions cost p^d times less
    way down      residual blocks at each width, kept for the way up; a convolution of stride 2 to the next width
    at the ground two residual blocks at the last width
    way up        values repeated to twice the side and joined with those kept, residual blocks; then back from patches to pixels

Each residual block normalises its channels in groups and is then told the level and the condition, as a scale and a shift of every
channel (Perez et al. 2018, arXiv:1709.07871; in diffusion: Nichol & Dhariwal 2021, arXiv:2102.09672). The last convolution of each
block, and of the network, begins at zero: a new network says 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.nets.conv import Padding, conv, norm
from simulacra.nets.embedding import Waves


class UNet(nn.Module):
    """`net(x, level, condition)`: x (n, inputs, ...) with `dims` axes after the channels, a level (n,) of order 1 to 10 such as the log
    signal-to-noise ratio, and what the module `condition` turns into (n, embed); answers (n, channels, ...), zero when new.

    `widths` are the channels at each side, from that of the patches downwards, each half the one before; every side is divisible by
    `patch` * 2^(widths - 1). `blocks` residual blocks stand at each width, each way. `attention_at` counts widths from 0: there every
    place looks at every other. Padding "circular" is for periodic maps. `dropout` is the share of channels' values that training loses.
    """

    def __init__(
        self, channels: int, widths: Sequence[int] = (32, 64, 128), *, inputs: int | None = None, blocks: int = 1, patch: int = 2,
        embed: int = 128, condition: nn.Module | None = None, padding: Padding = "zeros", attention_at: Collection[int] = (),
        dropout: float = 0.0, dims: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch, self.condition = patch, condition
        self.level = nn.Sequential(Waves(embed, most=30.0), nn.Linear(embed, embed), nn.SiLU(), nn.Linear(embed, embed))
        *upper, last = range(len(widths))

        def stage(first: int, width: int, place: int, count: int) -> Stage:
            return Stage(first, width, count, embed, padding, dropout, dims, attends=place in attention_at)

        self.entry = conv((inputs or channels) * patch**dims, widths[0], dims=dims, padding=padding)
        self.down = nn.ModuleList([stage(widths[i], widths[i], i, blocks) for i in upper])
        self.halve = nn.ModuleList([conv(a, b, dims=dims, stride=2, padding=padding) for a, b in pairwise(widths)])
        self.ground = stage(widths[last], widths[last], last, 2 * blocks)
        self.rise = nn.ModuleList([conv(b, a, dims=dims, kernel=1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([stage(2 * widths[i], widths[i], i, blocks) for i in upper])
        self.leave = nn.Sequential(norm(widths[0]), nn.SiLU(), silent(conv(widths[0], channels * patch**dims, dims=dims, padding=padding)))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        told = self.level(level / 4)
        if self.condition is not None:
            told = told + self.condition(condition)
        told = F.silu(told)
        h = self.entry(into_patches(x, self.patch))
        kept = []
        for stage, halve in zip(self.down, self.halve, strict=True):
            h = stage(h, told)
            kept.append(h)
            h = halve(h)
        h = self.ground(h, told)
        for stage, rise in zip(reversed(self.up), reversed(self.rise), strict=True):
            h = F.interpolate(rise(h), scale_factor=2.0, mode="nearest")
            h = stage(torch.cat([h, kept.pop()], 1), told)
        return out_of_patches(self.leave(h), self.patch)


def into_patches(x: Tensor, patch: int) -> Tensor:
    """x (n, c, h, ...) -> (n, c patch^d, h / patch, ...): the cells of each patch of d axes become channels, the last axis fastest."""
    if patch == 1:
        return x
    n, c, *sides = x.shape
    d = len(sides)
    parted = x.reshape(n, c, *(part for side in sides for part in (side // patch, patch)))
    order = [0, 1, *range(3, 2 * d + 3, 2), *range(2, 2 * d + 2, 2)]
    return parted.permute(order).reshape(n, c * patch**d, *(side // patch for side in sides))


def out_of_patches(h: Tensor, patch: int) -> Tensor:
    """What `into_patches` undoes: (n, c patch^d, h, ...) -> (n, c, h patch, ...)."""
    if patch == 1:
        return h
    n, c, *sides = h.shape
    d = len(sides)
    parted = h.reshape(n, c // patch**d, *[patch] * d, *sides)
    order = [0, 1, *(axis for i in range(d) for axis in (2 + d + i, 2 + i))]
    return parted.permute(order).reshape(n, c // patch**d, *(side * patch for side in sides))


class Stage(nn.Module):
    """Residual blocks at one width, the first of which takes `first` channels; with `attends`, attention after each."""

    def __init__(
        self, first: int, width: int, count: int, embed: int, padding: Padding, dropout: float, dims: int, *, attends: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList([Residual(width if i else first, width, embed, padding, dropout, dims) for i in range(count)])
        self.looks = nn.ModuleList([Attention(width, dims) for _ in range(count if attends else 0)])

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            h = block(h, told)
            h = self.looks[i](h) if self.looks else h
        return h


class Residual(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h)))) * (1 + scale) + shift)), scale and shift told by the level and the condition."""

    def __init__(self, inputs: int, outputs: int, embed: int, padding: Padding, dropout: float, dims: int) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(inputs), nn.SiLU(), conv(inputs, outputs, dims=dims, padding=padding))
        self.normed, self.told = norm(outputs), nn.Linear(embed, 2 * outputs)
        self.after = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), silent(conv(outputs, outputs, dims=dims, padding=padding)))
        self.carry: nn.Module = nn.Identity() if inputs == outputs else conv(inputs, outputs, dims=dims, kernel=1)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told).view(len(h), -1, *[1] * (h.dim() - 2)).chunk(2, 1)
        found: Tensor = self.carry(h) + self.after(self.normed(self.before(h)) * (1 + scale) + shift)
        return found


class Attention(nn.Module):
    """h + what every place gathers from all others, h (n, width, ...) (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.normed, self.asked = norm(width), conv(width, 3 * width, dims=dims, kernel=1)
        self.gathered = silent(conv(width, width, dims=dims, kernel=1))

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = self.asked(self.normed(h)).flatten(2).transpose(1, 2).chunk(3, 2)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).view_as(h)
        found: Tensor = h + self.gathered(seen)
        return found


def silent(layer: nn.Module) -> nn.Module:
    """The layer with all its weights at zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
