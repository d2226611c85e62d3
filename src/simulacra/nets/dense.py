"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def dense(
    widths: Sequence[int], *, activation: Callable[[], nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None,
    last: nn.Module | None = None,
) -> nn.Sequential:  # fmt: skip
    """x (n, widths[0]) -> (n, widths[-1]): linear layers with `activation` between them, each followed by `norm` of its width where
    given, and `last` after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation(), *([norm(after)] if norm is not None else [])]
    end = 1 if norm is None else 2
    return nn.Sequential(*layers[:-end], *([last] if last is not None else []))
