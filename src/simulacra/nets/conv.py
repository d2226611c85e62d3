"""Convolutional networks over regular grids of one, two or three dimensions: halve the side and widen, or the way back.

Shapes: x (n, channels, side, ..., side) with `dims` axes of equal length. Sides are powers of two times a small core.
`padding` is torch's padding mode: "zeros" for images with an edge, "circular" for periodic fields and lattices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["zeros", "circular", "reflect", "replicate"]

GROUPS = 8  # of channels that GroupNorm normalises together; it never mixes samples, so a draw cannot depend on its batch


def conv(inputs: int, outputs: int, *, dims: int = 2, kernel: int = 3, stride: int = 1, padding: Padding = "zeros") -> nn.Module:
    """Convolution in `dims` dimensions that keeps the side (or divides it by `stride`); `kernel` is odd."""
    layer: type[nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return layer(inputs, outputs, kernel, stride=stride, padding=kernel // 2, padding_mode=padding)


class Upsample(nn.Module):
    """Doubles every side by repeating values; a convolution after it leaves no checkerboard."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def doubling(inputs: int, outputs: int, *, dims: int = 2) -> nn.Module:
    """Transposed convolution of kernel 4 and stride 2: every output sees equally many inputs, which kernels 3 and 5 do not
    give, and the work is 4/9 of that of `Upsample` and a kernel of 3."""
    layer: type[nn.Module] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    return layer(inputs, outputs, 4, stride=2, padding=1)


def norm(channels: int) -> nn.Module:
    """Group normalisation: the same in training and in use, and for any batch."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def block(inputs: int, outputs: int, *, dims: int = 2, stride: int = 1, padding: Padding = "zeros", normed: bool = True) -> list[nn.Module]:
    """Convolution, normalisation, SiLU: one stage of an encoder, or of a decoder after `Upsample`."""
    middle = [norm(outputs)] if normed else []
    return [conv(inputs, outputs, dims=dims, stride=stride, padding=padding), *middle, nn.SiLU()]


def encoder(
    side: int, channels: int, widths: Sequence[int], outputs: int, *, dims: int = 2, padding: Padding = "zeros", normed: bool = True
) -> nn.Sequential:
    """x (n, channels, side, ...) -> (n, outputs): each width halves the side; what is left is flattened into a linear layer."""
    core = core_side(side, len(widths))
    layers: list[nn.Module] = []
    for before, after in pairwise([channels, *widths]):
        layers += block(before, after, dims=dims, stride=2, padding=padding, normed=normed)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * core**dims, outputs))


def decoder(
    inputs: int, widths: Sequence[int], channels: int, side: int, *, dims: int = 2, padding: Padding = "zeros", normed: bool = True,
    transposed: bool = False,
) -> nn.Sequential:  # fmt: skip
    """z (n, inputs) -> (n, channels, side, ...): a linear layer makes the core, then every width after the first doubles
    the side, and so does the last layer. The mirror of `encoder` with the widths reversed. `transposed` doubles by
    `doubling` instead of `Upsample` and a convolution (edges are then padded with zeros)."""
    core = core_side(side, len(widths))
    layers: list[nn.Module] = [nn.Linear(inputs, widths[0] * core**dims), nn.Unflatten(1, (widths[0], *[core] * dims)), nn.SiLU()]
    for before, after in pairwise([*widths, channels]):
        layers += [doubling(before, after, dims=dims)] if transposed else [Upsample(), conv(before, after, dims=dims, padding=padding)]
        layers += [*([norm(after)] if normed else []), nn.SiLU()]
    return nn.Sequential(*layers[: -2 if normed else -1])


def core_side(side: int, halvings: int) -> int:
    """Side that is left after `halvings`; ValueError where it does not come out even."""
    core, rest = divmod(side, 1 << halvings)
    if rest or core < 1:
        raise ValueError(f"side {side} cannot be halved {halvings} times; use a side divisible by {2**halvings} or fewer widths")
    return core
