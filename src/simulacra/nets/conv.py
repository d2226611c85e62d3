"""Convolutional networks over regular grids of one, two or three dimensions: halve the side and widen, or the way back.

Shapes: x (n, channels, side, ..., side) with `dims` axes of equal length. Sides are powers of two times a small core.
`padding` is torch's padding mode: "zeros" for images with an edge, "circular" for periodic fields and lattices.
"""

from __future__ import annotations

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
    """Doubles every side by repeating values; a convolution after it leaves no checkerboard, as a stride-2 transpose does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def norm(channels: int) -> nn.Module:
    """Group normalisation: the same in training and in use, and for any batch."""
    return nn.GroupNorm(min(GROUPS, channels), channels)


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
    for before, after in zip([channels, *widths], widths, strict=False):
        layers += block(before, after, dims=dims, stride=2, padding=padding, normed=normed)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * core**dims, outputs))


def decoder(
    inputs: int, widths: Sequence[int], channels: int, side: int, *, dims: int = 2, padding: Padding = "zeros", normed: bool = True
) -> nn.Sequential:
    """z (n, inputs) -> (n, channels, side, ...): a linear layer makes the core, then every width after the first doubles
    the side, and so does the last layer. The mirror of `encoder` with the widths reversed."""
    core = core_side(side, len(widths))
    layers: list[nn.Module] = [nn.Linear(inputs, widths[0] * core**dims), nn.Unflatten(1, (widths[0], *[core] * dims)), nn.SiLU()]
    for before, after in pairwise(widths):
        layers += [Upsample(), *block(before, after, dims=dims, padding=padding, normed=normed)]
    return nn.Sequential(*layers, Upsample(), conv(widths[-1], channels, dims=dims, padding=padding))


def core_side(side: int, halvings: int) -> int:
    """Side that is left after `halvings`; ValueError where it does not come out even."""
    core, rest = divmod(side, 1 << halvings)
    if rest or core < 1:
        raise ValueError(f"side {side} cannot be halved {halvings} times; use a side divisible by {2**halvings} or fewer widths")
    return core
