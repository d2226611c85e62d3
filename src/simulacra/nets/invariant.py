"""Numbers of a whole molecule that no rotation, reflection, translation or renumbering changes: EGNN without moves.

As Satorras et al. (2021, arXiv:2102.09844, section 5.3) predict properties: atoms stay where they are, messages see distances only,
and what the atoms have gathered is pooled. The arithmetic of the messages is that of nets/egnn.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from simulacra.nets.egnn import Messages, squared_distances, weights

SUMMED = 0.1  # scale of the sum over atoms beside their mean, so that both are of order one at ten to thirty atoms


class InvariantEGNN(nn.Module):
    """Positions (n, atoms, 3) and features (n, atoms, `inputs`) to `outputs` numbers per molecule, (n, outputs).

    With `mask` (n, atoms), 1 for atoms and 0 for padding, padding counts for nothing. Molecules do not influence each other. Both the
    mean and the sum over atoms are read, since some properties grow with the molecule and others do not.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.rounds = nn.ModuleList(Round(width) for _ in range(depth))
        self.each = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.whole = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> Tensor:
        there = torch.ones_like(x[..., 0]) if mask is None else mask.to(x)
        pairs = (1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device)) * there[:, :, None] * there[:, None, :]
        distance = (squared_distances(x)[1] + 1e-12).sqrt()
        seen = torch.stack([distance, torch.exp(-distance)], dim=-1)  # the second spreads what lies within the length of a bond
        h = self.embedding(h)
        for each in self.rounds:
            h = each(h, seen, pairs)
        total = (self.each(h) * there[..., None]).sum(1)
        found: Tensor = self.whole(torch.cat([total / there.sum(1, keepdim=True), SUMMED * total], dim=-1))
        return found


class Round(nn.Module):
    """One round of messages between all pairs of atoms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.message = nn.Sequential(nn.Linear(2 * width + 2, width), nn.SiLU(), nn.Linear(width, width))
        self.gate = nn.Linear(width, 1)
        self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, seen: Tensor, pairs: Tensor) -> Tensor:
        first, bias = weights(self.message[0])
        receiver, sender = linear(h, first[:, : self.width], bias), linear(h, first[:, self.width : 2 * self.width])
        columns = first[:, 2 * self.width :].T
        received = Messages.apply(receiver, sender, columns, seen, pairs, *weights(self.message[2]), *weights(self.gate))  # type: ignore[no-untyped-call]
        changed: Tensor = h + self.node(torch.cat([h, received], dim=-1))
        return changed
