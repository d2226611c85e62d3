"""A transformer that keeps a feature vector per pair of points and moves the points themselves, for small sets in space.

Per layer, with node features s_i, pair features e_ij = e_ji and positions x_i:

    e_ij += MLP(norm(e_ij) + P s_i + P s_j + R(d_ij))        d_ij the present distance, R a linear map of radial functions
    s_i  += attention over j, logits q_i . k_j + b(e_ij), values v_j and the pair features themselves
    s_i  += MLP(norm(s_i))
    x_i  += sum_j w(e_ij) (x_i - x_j) / (1 + d_ij)           the only place where positions change

Everything that enters is invariant under rotation, reflection and translation, and positions move along differences, so the
outcome turns and moves with the input (E(3) equivariance: Satorras et al. 2021, 2102.09844). Pair features with attention follow
the idea of AlphaFold's pair representation (Jumper et al. 2021); all pairs are kept, dense: for a few dozen points no list of
edges is as fast. A vector per set (times, conditions) scales and shifts every norm.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RadialFunctions(nn.Module):
    """Distances (...) to (..., count): Gaussians in exp(-d), narrow where atoms bond and wide far away (Unke & Meuwly 2019)."""

    def __init__(self, count: int, scale: float = 1.0) -> None:
        super().__init__()
        centres = torch.linspace(math.exp(-8.0 / 2), 1.0, count)
        self.register_buffer("centres", centres, persistent=False)
        self.beta, self.scale = (2 / count * (1 - math.exp(-8.0 / 2))) ** -2, scale

    def forward(self, distance: Tensor) -> Tensor:
        centres = self.get_buffer("centres")
        return torch.exp(-self.beta * (torch.exp(-distance[..., None] * self.scale / 2) - centres) ** 2)


class Modulated(nn.Module):
    """Layer norm whose scale and shift a condition vector decides: (B, ..., width) under (B, conditions)."""

    def __init__(self, width: int, conditions: int) -> None:
        super().__init__()
        self.width = width
        self.turn = nn.Linear(conditions, 2 * width)
        nn.init.zeros_(self.turn.weight)
        nn.init.zeros_(self.turn.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.turn(condition).view(len(x), *[1] * (x.ndim - 2), 2 * self.width).chunk(2, -1)
        normed = F.layer_norm(x, (self.width,))
        return torch.addcmul(normed + shift, normed, scale)


class PairLayer(nn.Module):
    """One layer of the transformer above."""

    def __init__(self, nodes: int, pairs: int, heads: int, conditions: int, radial: int) -> None:
        super().__init__()
        self.nodes, self.pairs, self.heads = nodes, pairs, heads
        self.pair_norm, self.node_norm, self.last_norm = (Modulated(w, conditions) for w in (pairs, nodes, nodes))
        self.from_nodes = nn.Linear(nodes, pairs, bias=False)
        self.from_distance = nn.Linear(radial, pairs)
        self.pair_in, self.pair_out = nn.Linear(pairs, pairs), nn.Linear(pairs, pairs)
        self.move = nn.Linear(pairs, 1 + heads, bias=False)  # the weight along x_i - x_j, and a bias per head of attention
        self.qkv = nn.Linear(nodes, 3 * nodes, bias=False)
        self.joined = nn.Linear(nodes + heads * pairs, nodes)
        self.first, self.second = nn.Linear(nodes, 2 * nodes), nn.Linear(2 * nodes, nodes)
        for last in (self.pair_out, self.joined, self.second):
            nn.init.zeros_(last.bias)
            nn.init.xavier_uniform_(last.weight, gain=0.3)
        with torch.no_grad():
            self.move.weight[0] *= 0.01

    def forward(
        self, s: Tensor, e: Tensor, x: Tensor, condition: Tensor, radial: RadialFunctions, present: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes (B, n, nodes), pairs (B, n, n, pairs), positions (B, n, 3); `present` (B, n, n, 1) is 1 where both points exist,
        `absent` (B, 1, 1, n) is -inf where point j does not."""
        count, size = s.shape[:2]
        difference = x[:, :, None] - x[:, None]
        distance = (difference.square().sum(-1) + 1e-8).sqrt()
        mixed = self.from_nodes(s)
        inner = self.pair_norm(e, condition) + self.from_distance(radial(distance)) + mixed[:, :, None] + mixed[:, None]
        e = e + self.pair_out(F.silu(self.pair_in(F.silu(inner))))
        told = self.move(e)
        q, k, v = self.qkv(self.node_norm(s, condition)).view(count, size, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + told[..., 1:].permute(0, 3, 1, 2) + absent
        share = logits.softmax(-1)  # (B, heads, n, n)
        values = torch.matmul(share, v).transpose(1, 2).flatten(2)
        seen = torch.matmul(share.transpose(1, 2), e).flatten(2)  # (B, n, heads, pairs)
        s = s + self.joined(torch.cat([values, seen], -1))
        s = s + self.second(F.silu(self.first(self.last_norm(s, condition))))
        step = told[..., :1] * present / (1 + distance[..., None])
        return s, e, x + (step * difference).sum(2)


class PairTransformer(nn.Module):
    """`layers` of the above between linear maps in and out.

    `node_in` and `pair_in` are widths of what is known per point and per pair, `conditions` of what is known per set.
    """

    def __init__(
        self, *, node_in: int, pair_in: int, conditions: int, node_out: int, pair_out: int, nodes: int = 128, pairs: int = 64,
        layers: int = 6, heads: int = 8, radial: int = 24,
    ) -> None:  # fmt: skip
        super().__init__()
        self.radial = RadialFunctions(radial)
        self.told = nn.Sequential(nn.Linear(conditions, nodes), nn.SiLU(), nn.Linear(nodes, nodes), nn.SiLU())
        self.node_in, self.pair_in = nn.Linear(node_in, nodes), nn.Linear(pair_in + 2 * radial, pairs)
        self.layers = nn.ModuleList(PairLayer(nodes, pairs, heads, nodes, radial) for _ in range(layers))
        self.node_out = nn.Sequential(nn.LayerNorm(nodes), nn.Linear(nodes, nodes), nn.SiLU(), nn.Linear(nodes, node_out))
        self.pair_out = nn.Sequential(nn.LayerNorm(pairs), nn.Linear(pairs, pairs), nn.SiLU(), nn.Linear(pairs, pair_out))

    def forward(
        self, s: Tensor, e: Tensor, x: Tensor, start: Tensor, other: Tensor, condition: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Node outputs (B, n, node_out), symmetric pair outputs (B, n, n, pair_out) and moved positions (B, n, 3).

        s (B, n, node_in), e (B, n, n, pair_in) symmetric, x (B, n, 3) noisy positions, `start` (B, n, 3) where the moving
        begins, `other` (B, n, 3) a further guess of the positions, condition (B, conditions), mask (B, n) true where a point is.
        The mean of the moved positions is removed.
        """
        c = self.told(condition)
        there = mask.to(s.dtype)
        present = (there[:, :, None] * there[:, None])[..., None]
        absent = torch.zeros_like(there).masked_fill(~mask, -math.inf)[:, None, None]
        near = [self.radial(_distances(y)) for y in (x, other)]
        e = self.pair_in(torch.cat([e, *near], -1))
        s = self.node_in(s) + c[:, None]
        x = start
        for layer in self.layers:
            s, e, x = layer(s, e, x, c, self.radial, present, absent)
        return self.node_out(s), self.pair_out(e), centred(x, mask)


def _distances(x: Tensor) -> Tensor:
    return ((x[:, :, None] - x[:, None]).square().sum(-1) + 1e-8).sqrt()


def centred(x: Tensor, mask: Tensor) -> Tensor:
    """Positions (B, n, 3) with the mean over existing points removed, 0 where there is none."""
    there = mask.to(x.dtype)[..., None]
    x = x * there
    return (x - x.sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there
