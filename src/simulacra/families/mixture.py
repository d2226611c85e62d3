"""A mixture of Gaussians with full covariances, fitted by expectation-maximisation (Dempster, Laird & Rubin 1977).

    p(z) = sum_k w_k N(z; m_k, C_k),    C_k = L_k L_k^T

A learned prior over a latent space: an autoencoder trained against N(0, 1) leaves holes and ridges in it, and a draw from
N(0, 1) lands where no thing of nature was ever encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """Weights, means and Cholesky factors of k Gaussians in d dimensions."""

    log_weights: Tensor  # (k,)
    means: Tensor  # (k, d)
    factors: Tensor  # (k, d, d), lower triangular L_k

    def log_densities(self, z: Tensor) -> Tensor:
        """log of w_k N(z; m_k, C_k), shape (n, k)."""
        d = z.shape[1]
        columns = []
        for log_weight, mean, factor in zip(*self, strict=True):
            whitened = torch.linalg.solve_triangular(factor, (z - mean).T, upper=False)
            volume = factor.diagonal().log().sum() + 0.5 * d * math.log(2 * math.pi)
            columns.append(log_weight - 0.5 * whitened.square().sum(dim=0) - volume)
        return torch.stack(columns, dim=1)

    def log_density(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (n, d) -> (n,)."""
        return torch.logsumexp(self.log_densities(z), dim=1)

    def draw(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Draws from p, (n, d), made of uniform (n,) and standard normal (n, d) numbers: row i depends on row i only."""
        edges = self.log_weights.exp().cumsum(dim=0)
        which = torch.searchsorted(edges, uniform.to(edges) * edges[-1], right=True).clamp(max=len(edges) - 1)
        normal = normal.to(edges)
        return torch.stack([self.means[k] + self.factors[k] @ row for k, row in zip(which.tolist(), normal, strict=True)])

    def state(self) -> dict[str, Tensor]:
        return self._asdict()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Mixture:
        return cls(*(state[name].clone() for name in cls._fields))


def blank(components: int, d: int) -> Mixture:
    """N(0, 1), written as a mixture of equal components: what stands in a state before anything was fitted."""
    return Mixture(torch.full((components,), -math.log(components)), torch.zeros(components, d), torch.eye(d).repeat(components, 1, 1))


def fit_mixture(z: Tensor, components: int, *, seed: int, steps: int = 60, shrinkage: float = 0.02) -> Mixture:
    """Expectation-maximisation from k-means++ centres on points z (n, d), n > d.

    `shrinkage` mixes that share of the overall covariance into each C_k: a component that holds few points would
    otherwise collapse onto them, and the likelihood has no maximum.
    """
    rng = torch.Generator().manual_seed(seed)
    points = z.double()
    overall = torch.cov(points.T).reshape(z.shape[1], z.shape[1])
    jitter = (1e-9 * overall.diagonal().mean() + 1e-12) * torch.eye(z.shape[1]).to(points)
    mixture = Mixture(
        torch.full((components,), -math.log(components)).to(points), _spread_out(points, components, rng),
        torch.linalg.cholesky(overall + jitter).repeat(components, 1, 1),
    )  # fmt: skip
    before = -math.inf
    for _ in range(steps):
        logs = mixture.log_densities(points)
        total = torch.logsumexp(logs, dim=1)
        mixture = _maximised(points, (logs - total[:, None]).exp(), overall, jitter, shrinkage)
        now = float(total.mean())
        if now - before < 1e-4:
            break
        before = now
    return Mixture(*(part.to(z) for part in mixture))


def _maximised(points: Tensor, shares: Tensor, overall: Tensor, jitter: Tensor, shrinkage: float) -> Mixture:
    """Weights, means and covariances from the shares (n, k) of each point in each component."""
    mass = shares.sum(dim=0).clamp(min=1e-6)
    means = shares.T @ points / mass[:, None]
    covariances = []
    for share, mean, weight in zip(shares.T, means, mass, strict=True):
        centred = points - mean
        covariances.append((share[:, None] * centred).T @ centred / weight)
    blended = (1 - shrinkage) * torch.stack(covariances) + shrinkage * overall + jitter
    return Mixture((mass / mass.sum()).log(), means, torch.linalg.cholesky(blended))


def _spread_out(points: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Centres chosen far from each other: each next one with probability proportional to the squared distance (k-means++)."""
    chosen = [int(torch.randint(len(points), (1,), generator=rng))]
    nearest = (points - points[chosen[0]]).square().sum(dim=1)
    for _ in range(count - 1):
        share = nearest.cpu() / nearest.sum().cpu() if nearest.sum() > 0 else torch.ones(len(points), dtype=torch.float64)
        chosen.append(int(torch.multinomial(share, 1, generator=rng)))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
    return points[chosen]
