"""Numbers that tell a network under which conditions, or at which level of noise, it works."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ClassEmbedding(nn.Module):
    """One learned vector per class. Takes class numbers (n,), or weights (n, classes) for what lies between classes."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(classes, width) / math.sqrt(width))

    def forward(self, condition: Tensor) -> Tensor:
        """(n, width). Weights of 0 for all classes give 0: no class."""
        return self.table[condition.long()] if condition.ndim == 1 else condition.to(self.table) @ self.table


class Waves(nn.Module):
    """A number as sines and cosines of `width` / 2 frequencies from 1 / (2 pi) to `most` / (2 pi) (Vaswani et al. 2017, 1706.03762)."""

    def __init__(self, width: int, most: float = 100.0) -> None:
        super().__init__()
        if width % 2 or width < 2:
            raise ValueError(f"width {width} is not even: a wave has a sine and a cosine")
        self.register_buffer("frequency", torch.logspace(0, math.log10(most), width // 2), persistent=False)
        self.frequency: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x (n,) -> (n, width)."""
        angle = x[:, None] * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)
