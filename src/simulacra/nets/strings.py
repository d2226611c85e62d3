"""A string of fixed length as a vector: parallel convolutions whose places are kept, not pooled.

    embedded (n, t, e) -> for each width w: filters (n, f, t - w + 1), ReLU -> all of them, flattened -> dense, ReLU

(Kim 2014, arXiv:1408.5882, without the pooling, as in Harel & Radinsky 2018, arXiv:1804.02668.) What stands where is kept, which a
decoder that has to write the string again needs. Flattened filters make the dense layer large: `narrow` channels per place instead of all
filters keep it small.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ParallelConvolutions(nn.Module):
    """Embedded strings (n, length, channels) -> (n, dense).

    With narrow = 0 the convolutions have no padding and their places are flattened as they are. Otherwise strings are padded so that
    every width gives `length` places, and at each a second convolution of width 5 leaves `narrow` numbers.
    """

    def __init__(self, channels: int, length: int, *, widths: Sequence[int], filters: int, dense: int, narrow: int = 0) -> None:
        super().__init__()
        if length < max(widths):
            raise ValueError(f"strings of {length} places are shorter than the widest convolution, {max(widths)}")
        self.widths = tuple(widths)
        self.convolutions = nn.ModuleList(nn.Conv1d(channels, filters, width) for width in widths)
        self.narrow = nn.Conv1d(filters * len(widths), narrow, 5, padding=2) if narrow else None
        places = narrow * length if narrow else filters * sum(length - width + 1 for width in widths)
        self.dense = nn.Linear(places, dense)

    def forward(self, embedded: Tensor) -> Tensor:
        x = embedded.transpose(1, 2)
        if self.narrow is None:
            found = [conv(x).relu().flatten(1) for conv in self.convolutions]
        else:
            padded = (F.pad(x, ((width - 1) // 2, width // 2)) for width in self.widths)
            parts = [conv(p).relu() for conv, p in zip(self.convolutions, padded, strict=True)]
            found = [self.narrow(torch.cat(parts, 1)).relu().flatten(1)]
        seen: Tensor = self.dense(torch.cat(found, 1)).relu()
        return seen
