"""A U-Net that reads images or maps at a level of noise and answers in their shape (Ronneberger et al. 2015, arXiv:1505.04597).

    patches       p x p pixels of c channels become p^2 c channels of one: nothing is lost, and convolutions cost p^2 times less
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
    """`net(x, level, condition)`: x (n, inputs, h, w), a level (n,) of order 1 to 10 such as the log signal-to-noise ratio, and what
    the module `condition` turns into (n, embed); answers (n, channels, h, w), zero when new.

    `widths` are the channels at each side, from that of the patches downwards, each half the one before; h and w are divisible by
    `patch` * 2^(widths - 1). `blocks` residual blocks stand at each width, each way. `attention_at` counts widths from 0: there every
    place looks at every other. Padding "circular" is for periodic maps. `dropout` is the share of channels' values that training loses.
    """

    def __init__(
        self, channels: int, widths: Sequence[int] = (32, 64, 128), *, inputs: int | None = None, blocks: int = 1, patch: int = 2,
        embed: int = 128, condition: nn.Module | None = None, padding: Padding = "zeros", attention_at: Collection[int] = (),
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch, self.condition = patch, condition
        self.level = nn.Sequential(Waves(embed, most=30.0), nn.Linear(embed, embed), nn.SiLU(), nn.Linear(embed, embed))
        *upper, last = range(len(widths))

        def stage(first: int, width: int, place: int, count: int) -> Stage:
            return Stage(first, width, count, embed, padding, dropout, attends=place in attention_at)

        self.entry = conv((inputs or channels) * patch**2, widths[0], padding=padding)
        self.down = nn.ModuleList([stage(widths[i], widths[i], i, blocks) for i in upper])
        self.halve = nn.ModuleList([conv(a, b, stride=2, padding=padding) for a, b in pairwise(widths)])
        self.ground = stage(widths[last], widths[last], last, 2 * blocks)
        self.rise = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([stage(2 * widths[i], widths[i], i, blocks) for i in upper])
        self.leave = nn.Sequential(norm(widths[0]), nn.SiLU(), silent(conv(widths[0], channels * patch**2, padding=padding)))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        told = self.level(level / 4)
        if self.condition is not None:
            told = told + self.condition(condition)
        told = F.silu(told)
        h = self.entry(F.pixel_unshuffle(x, self.patch))
        kept = []
        for stage, halve in zip(self.down, self.halve, strict=True):
            h = stage(h, told)
            kept.append(h)
            h = halve(h)
        h = self.ground(h, told)
        for stage, rise in zip(reversed(self.up), reversed(self.rise), strict=True):
            h = F.interpolate(rise(h), scale_factor=2.0, mode="nearest")
            h = stage(torch.cat([h, kept.pop()], 1), told)
        return F.pixel_shuffle(self.leave(h), self.patch)


class Stage(nn.Module):
    """Residual blocks at one width, the first of which takes `first` channels; with `attends`, attention after each."""

    def __init__(self, first: int, width: int, count: int, embed: int, padding: Padding, dropout: float, *, attends: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual(width if i else first, width, embed, padding, dropout) for i in range(count)])
        self.looks = nn.ModuleList([Attention(width) for _ in range(count if attends else 0)])

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            h = block(h, told)
            h = self.looks[i](h) if self.looks else h
        return h


class Residual(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h)))) * (1 + scale) + shift)), scale and shift told by the level and the condition."""

    def __init__(self, inputs: int, outputs: int, embed: int, padding: Padding, dropout: float) -> None:
        super().__init__()
        self.before = nn.Sequential(norm(inputs), nn.SiLU(), conv(inputs, outputs, padding=padding))
        self.normed, self.told = norm(outputs), nn.Linear(embed, 2 * outputs)
        self.after = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), silent(conv(outputs, outputs, padding=padding)))
        self.carry: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, 1)
        found: Tensor = self.carry(h) + self.after(self.normed(self.before(h)) * (1 + scale) + shift)
        return found


class Attention(nn.Module):
    """h + what every place gathers from all others, h (n, width, height, width of the map) (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normed, self.asked, self.gathered = norm(width), nn.Conv2d(width, 3 * width, 1), silent(nn.Conv2d(width, width, 1))

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
