"""E(n)-equivariant graph network over all pairs of atoms (Satorras et al. 2021, arXiv:2102.09844), in dense form.

The network of Hoogeboom et al. (2022, arXiv:2203.17003). Each block sends one round of messages and then moves the atoms:

    m_ij = gate(f_m(h_i, h_j, d_ij^2, d0_ij^2))             h_i <- h_i + f_h(h_i, sum_j m_ij / Z)
    x_i <- x_i + sum_j R tanh(f_x(h_i, h_j, d_ij^2, d0_ij^2)) (x_i - x_j) / (|x_i - x_j| + 1) / Z

d are the distances now, d0 those at the network's input. Nothing but distances enters, so h is invariant under rotations,
reflections and translations, and x moves with them.

What is not as usual is the arithmetic, not the function. The first layer of f_m and f_x is linear in (h_i, h_j, d^2, d0^2), so its
parts are taken once per atom and added by broadcasting: neither pairs of features are concatenated, nor edges gathered. The pair
layers are autograd functions of their own, which work through a batch in pieces that fit the processor's cache and keep one
tensor per layer for the way back; the activations are computed again from it, at the price of the derivative that is needed anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

RANGE = 15.0  # of a coordinate's move along one pair, before the factor that shrinks with the distance
PIECE = 1 << 18  # numbers per tensor that the processor works on at a time: a piece and its partners stay in the cache


class EGNN(nn.Module):
    """Positions (n, atoms, 3) and features (n, atoms, `inputs`) to displacements (n, atoms, 3) and features (n, atoms, `outputs`).

    `factor` is Z above. With `mask` (n, atoms), 1 for atoms and 0 for padding, padding sends nothing and comes out as 0.
    Molecules do not influence each other.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 256, depth: int = 9, factor: float = 1.0) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, factor) for _ in range(depth))
        self.readout = nn.Linear(width, outputs)

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        start, first = x, squared_distances(x)[1]
        pairs = 1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device)  # an atom sends no message to itself
        if mask is not None:
            pairs = pairs * mask[:, :, None] * mask[:, None, :]
        pairs = pairs.expand(len(x), -1, -1)
        h = self.embedding(h)
        for block in self.blocks:
            x, h = block(x, h, first, pairs)
        moved, h = x - start, self.readout(h)
        return (moved, h) if mask is None else (moved * mask[..., None], h * mask[..., None])


class Block(nn.Module):
    """One round of messages, then one move of the atoms."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__()
        self.width, self.factor = width, factor
        self.message = nn.Sequential(nn.Linear(2 * width + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Linear(width, 1)
        self.node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        move = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(move.weight, gain=0.001)  # at the start atoms stay where they are
        self.move = nn.Sequential(nn.Linear(2 * width + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), move)

    def forward(self, x: Tensor, h: Tensor, first: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        difference, squared = squared_distances(x)
        both = torch.stack([squared, first], dim=-1)
        message = (*self._split(self.message[0], h), both, pairs, *weights(self.message[2]), *weights(self.gate))
        received = Messages.apply(*message)  # type: ignore[no-untyped-call]
        h = h + self.node(torch.cat([h, received / self.factor], dim=-1))
        pull = Pulls.apply(*self._split(self.move[0], h), both, *weights(self.move[2]), self.move[4].weight)  # type: ignore[no-untyped-call]
        strength = RANGE * torch.tanh(pull) * pairs / ((squared + 1e-8).sqrt() + 1) / self.factor
        return x + torch.einsum("nij,nijk->nik", strength, difference), h

    def _split(self, layer: Any, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First layer in parts: of the receiving atom with the bias, of the sending atom, and columns for the two distances."""
        weight, width = layer.weight, self.width
        return linear(h, weight[:, :width], layer.bias), linear(h, weight[:, width : 2 * width]), weight[:, 2 * width :].T


def weights(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer."""
    return layer.weight, layer.bias


def squared_distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences x_i - x_j (n, atoms, atoms, 3) of positions (n, atoms, 3), and their squared lengths (n, atoms, atoms)."""
    difference = x[:, :, None] - x[:, None]
    return difference, difference.square().sum(-1)


# ------------------------------------------------------------------------------------------------------------- pair layers


def _pieces(pairs: int, rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Rows of a batch in runs of about PIECE numbers per tensor; on a GPU, which needs much work at once, all of them."""
    size = max(1, PIECE // (pairs * width)) if device.type == "cpu" else rows
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _preactivation(receiver: Tensor, sender: Tensor, both: Tensor, columns: Tensor) -> Tensor:
    """First layer on all pairs, (n, i, j, width), before its activation."""
    u = receiver[:, :, None] + sender[:, None]
    return u.flatten(0, 2).addmm_(both.flatten(0, 2), columns).view_as(u)


def _silu_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU(u) = u s and its derivative s + u s (1 - s), s the sigmoid; `u` is overwritten."""
    s = torch.sigmoid(u)
    value = u.mul_(s)
    return value, torch.addcmul(value, value, s, value=-1).add_(s)


def _first_layer_backward(
    grad: Tensor, both: Tensor, columns: Tensor, grad_both: Tensor, grad_columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients for receiver and sender, from that of the preactivation; those of distances and columns are written or added."""
    flat = grad.flatten(0, 2)
    torch.mm(flat, columns.T, out=grad_both.view(-1, 2))
    grad_columns.addmm_(both.flatten(0, 2).T, flat)
    return grad.sum(2), grad.sum(1)


class Messages(torch.autograd.Function):
    """Sum over senders j of gate(m_ij) m_ij, m_ij = SiLU(SiLU(first layer) W^T + b), gate(m) = sigmoid(m . g + c).

    Arguments: the split first layer (n, atoms, width) twice and (2, width), distances (n, atoms, atoms, 2), `pairs` (n, atoms,
    atoms), 1 where j sends to i, W, b, g (1, width), c (1,). Result (n, atoms, width).
    """

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        receiver, sender, columns, both, pairs, weight, bias, gate, offset = given
        n, atoms, width = receiver.shape
        keep = any(ctx.needs_input_grad)
        kept = receiver.new_empty((n, atoms, atoms, width) if keep else 0)
        out = torch.empty_like(receiver)
        for rows in _pieces(atoms * atoms, n, width, receiver.device):
            u = _preactivation(receiver[rows], sender[rows], both[rows], columns)
            z = torch.addmm(bias, nn.functional.silu(u, inplace=True).flatten(0, 2), weight.T, out=_into(kept, rows, keep)).view_as(u)
            m = torch.ops.aten.silu.out(z, out=u) if keep else nn.functional.silu(z, inplace=True)
            share = torch.sigmoid(linear(m, gate, offset)[..., 0]).mul_(pairs[rows])
            torch.bmm(share.view(-1, 1, atoms), m.view(-1, atoms, width), out=out[rows].view(-1, 1, width))
        ctx.save_for_backward(*given, kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        receiver, sender, columns, both, pairs, weight, bias, gate, offset, kept = ctx.saved_tensors
        n, atoms, width = receiver.shape
        grad = grads[0].contiguous()
        found = _Gradients(receiver, both, columns, weight, bias)
        grad_gate, grad_offset = torch.zeros_like(gate), torch.zeros_like(offset)
        for rows in _pieces(atoms * atoms, n, width, receiver.device):
            m, slope = _silu_and_slope(kept[rows].clone())
            s = torch.sigmoid(linear(m, gate, offset)[..., 0])
            share = s * pairs[rows]
            received = grad[rows][:, :, None]
            into_gate = torch.mul(m, received).sum(-1).mul_(share).mul_(1 - s)
            grad_gate.addmm_(into_gate.view(1, -1), m.flatten(0, 2))
            grad_offset += into_gate.sum()
            into_m = torch.mul(share[..., None], received, out=m)
            into_m.flatten(0, 2).addmm_(into_gate.view(-1, 1), gate)
            found.add(rows, into_m.mul_(slope), sender, spare=slope)
        return *found.first(), found.both, None, found.weight, found.bias, grad_gate, grad_offset


class Pulls(torch.autograd.Function):
    """One number per pair, SiLU(SiLU(first layer) W^T + b) . v: arguments as for Messages, v (1, width); result (n, atoms, atoms)."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        receiver, sender, columns, both, weight, bias, last = given
        n, atoms, width = receiver.shape
        keep = any(ctx.needs_input_grad)
        kept = receiver.new_empty((n, atoms, atoms, width) if keep else 0)
        out = receiver.new_empty(n, atoms, atoms)
        for rows in _pieces(atoms * atoms, n, width, receiver.device):
            u = _preactivation(receiver[rows], sender[rows], both[rows], columns)
            z = torch.addmm(bias, nn.functional.silu(u, inplace=True).flatten(0, 2), weight.T, out=_into(kept, rows, keep)).view_as(u)
            m = torch.ops.aten.silu.out(z, out=u) if keep else nn.functional.silu(z, inplace=True)
            torch.mv(m.flatten(0, 2), last[0], out=out[rows].view(-1))
        ctx.save_for_backward(*given, kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        receiver, sender, columns, both, weight, bias, last, kept = ctx.saved_tensors
        n, atoms, width = receiver.shape
        grad = grads[0].contiguous()
        found = _Gradients(receiver, both, columns, weight, bias)
        grad_last = torch.zeros_like(last)
        for rows in _pieces(atoms * atoms, n, width, receiver.device):
            m, slope = _silu_and_slope(kept[rows].clone())
            grad_last.addmm_(grad[rows].view(1, -1), m.flatten(0, 2))
            into_m = torch.mul(grad[rows][..., None], last[0], out=m)
            found.add(rows, into_m.mul_(slope), sender, spare=slope)
        return *found.first(), found.both, found.weight, found.bias, grad_last


class _Gradients:
    """Gradients of what both kinds of pair layer have in common, gathered piece by piece."""

    def __init__(self, receiver: Tensor, both: Tensor, columns: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.at, self.distances, self.through, self.mixing = receiver, both, columns, weight
        self.receiver, self.sender = torch.empty_like(receiver), torch.empty_like(receiver)
        self.both, self.columns = torch.empty_like(both), columns.new_zeros(columns.shape)
        self.weight, self.bias = torch.zeros_like(weight), torch.zeros_like(bias)

    def add(self, rows: slice, into_z: Tensor, sender: Tensor, spare: Tensor) -> None:
        """Carry the gradient of the second layer's preactivation back through both layers; `spare` may be overwritten."""
        a, slope = _silu_and_slope(_preactivation(self.at[rows], sender[rows], self.distances[rows], self.through))
        flat = into_z.flatten(0, 2)
        self.weight.addmm_(flat.T, a.flatten(0, 2))
        self.bias += flat.sum(0)
        into_u = torch.mm(flat, self.mixing, out=spare.view_as(flat)).view_as(a).mul_(slope)
        distances, through = self.distances[rows], self.through
        self.receiver[rows], self.sender[rows] = _first_layer_backward(into_u, distances, through, self.both[rows], self.columns)

    def first(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.receiver, self.sender, self.columns


def _into(kept: Tensor, rows: slice, keep: bool) -> Tensor | None:
    """Where to write the second layer's preactivation: into what is kept for the way back, or anywhere."""
    return kept[rows].flatten(0, 2) if keep else None
