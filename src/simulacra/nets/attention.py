"""Transformers (Vaswani et al. 2017, 1706.03762) on tokens that lie on a grid: patches of an image.

Each block normalises before it acts, x <- x + attention(norm(x)), x <- x + mlp(norm(x)), as vision transformers do (Dosovitskiy et
al. 2020, 2010.11929).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention among tokens, then a dense network of four times the width on each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_dense = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.gathered = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (n, tokens, width) -> the same shape; tokens that are not `seen` (n, tokens) are attended to by none."""
        n, tokens, width = x.shape
        query, key, value = self.query_key_value(self.before_attention(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        allowed = None if seen is None else seen[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        x = x + self.gathered(found.transpose(1, 2).reshape(n, tokens, width))
        dense: Tensor = self.dense(self.before_dense(x))
        return x + dense


class Transformer(nn.Module):
    """`depth` blocks and a last normalisation."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be shared among {heads} heads")
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (n, tokens, width) -> the same shape; tokens that are not `seen` (n, tokens) are attended to by none."""
        for block in self.blocks:
            x = block(x, seen)
        last: Tensor = self.last(x)
        return last


def grid_positions(rows: int, columns: int, width: int) -> Tensor:
    """Where each token of a grid stands, (rows * columns, width): sines and cosines of the row in one half, of the column in the other,
    at wavelengths from 2 pi to 20,000 pi tokens. `width` is a multiple of 4."""
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4: sine and cosine of row and of column")
    frequency = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    waves = [torch.arange(count)[:, None] * frequency for count in (rows, columns)]
    row, column = (torch.cat([wave.sin(), wave.cos()], dim=1) for wave in waves)
    return torch.cat([row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=2).reshape(rows * columns, width)
