"""Diffusion models in discrete time: noise levels, noising, the way back, and what the likelihood bound is made of.

    q(z_t | x) = N(alpha_t x, sigma_t^2),   alpha_t^2 + sigma_t^2 = 1,   t = 0, 1, ... T

(Sohl-Dickstein et al. 2015, arXiv:1503.03585; Ho et al. 2020, arXiv:2006.11239; in the terms of Kingma et al. 2021,
arXiv:2107.00630). gamma_t = log(sigma_t^2 / alpha_t^2), minus the log signal-to-noise ratio, rises with t. Everything is given for
predictions of the noise; one of the data is turned into one of the noise by `noise_of`, and back by `data_of`. Nothing here knows
a network or what the numbers mean. Clouds of points live in the subspace of zero centre of mass: `centred` projects onto it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Schedule:
    """Noise levels by step. Steps are int64 tensors (n,) or plain integers; levels come back in that shape, on `gamma`'s device."""

    gamma: Tensor  # (T + 1,), float64 as made here; -inf at 0 where the first level is noiseless

    @property
    def steps(self) -> int:
        """T: levels run from 0, the least noisy, to T."""
        return len(self.gamma) - 1

    def alpha(self, t: Tensor | int) -> Tensor:
        """What is left of the signal."""
        return torch.sigmoid(-self.gamma[t]).sqrt()

    def sigma(self, t: Tensor | int) -> Tensor:
        """Standard deviation of the noise."""
        return torch.sigmoid(self.gamma[t]).sqrt()

    def bound_weight(self, t: Tensor | int, s: Tensor | int) -> Tensor:
        """SNR(s) / SNR(t) - 1 for s < t: weight of half the squared error of the noise in the likelihood bound (Kingma et al., eq. 14)."""
        return torch.expm1(self.gamma[t] - self.gamma[s])

    def respaced(self, steps: int) -> Schedule:
        """A schedule of fewer steps through levels of this one, the first and the last among them (Nichol & Dhariwal 2021)."""
        if not 1 <= steps <= self.steps:
            raise ValueError(f"a schedule of {self.steps} steps cannot be walked in {steps}")
        return Schedule(self.gamma[self.chosen(steps)])

    def chosen(self, steps: int) -> Tensor:
        """Which of the levels 0 ... T a walk in `steps` steps visits, (steps + 1,) int64."""
        return torch.linspace(0, self.steps, steps + 1, dtype=torch.float64).round().long()

    def to(self, device: torch.device) -> Schedule:
        return Schedule(self.gamma.to(device))


def polynomial(steps: int, *, power: float = 2.0, precision: float = 1e-5, least: float = 1e-3) -> Schedule:
    """alpha_t^2 = (1 - 2 s) (1 - (t / T)^power)^2 + s, s the precision (Hoogeboom et al. 2022, arXiv:2203.17003).

    Before the precision is applied, no step may keep less than `least` of alpha^2, or the last one would lose everything at once.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = _no_step_below(least, (1 - u**power).square())
    return Schedule(_gamma((1 - 2 * precision) * kept + precision))


def cosine(steps: int, *, offset: float = 0.008, least: float = 1e-3) -> Schedule:
    """alpha_t^2 = cos^2(pi/2 (t/T + offset) / (1 + offset)), relative to t = 0, which is noiseless (Nichol & Dhariwal 2021,
    arXiv:2102.09672); no step keeps less than `least` of alpha^2."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = torch.cos(0.5 * math.pi * (u + offset) / (1 + offset)).square()
    return Schedule(_gamma(_no_step_below(least, kept / kept[0])))


def _no_step_below(least: float, kept: Tensor) -> Tensor:
    """alpha^2 whose ratio from step to step is clipped to [least, 1]; the first is its ratio to 1."""
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    return (kept / before).clamp(least, 1.0).cumprod(0)


def _gamma(squared: Tensor) -> Tensor:
    return torch.log1p(-squared) - torch.log(squared)


# -------------------------------------------------------------------------------------------------------- there and back


def noised(x: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """z_t of data x (n, ...) with standard normal `noise` of its shape, at steps t (n,)."""
    return _per_row(schedule.alpha(t), x) * x + _per_row(schedule.sigma(t), x) * noise


def data_of(z: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The data that z_t (n, ...) was made of, if `noise` is the noise in it."""
    return (z - _per_row(schedule.sigma(t), z) * noise) / _per_row(schedule.alpha(t), z)


def noise_of(z: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """The noise in z_t (n, ...), if it was made of data x."""
    return (z - _per_row(schedule.alpha(t), z) * x) / _per_row(schedule.sigma(t), z)


def ancestral(z: Tensor, predicted: Tensor, fresh: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """A draw from q(z_s | z_t, x), s < t, with x the data that `predicted` noise leaves in z_t; `fresh` is standard normal.

    Mean z_t / a - v / (a sigma_t) noise and standard deviation sqrt(v) sigma_s / sigma_t, where a = alpha_t / alpha_s and
    v = sigma_t^2 - a^2 sigma_s^2.
    """
    low, high = schedule.gamma[s], schedule.gamma[t]
    spread = -torch.expm1(softplus(low) - softplus(high))  # v, exact for levels that lie close together
    ratio = (0.5 * (softplus(low) - softplus(high))).exp()  # a
    sigma = torch.sigmoid(high).sqrt()
    scatter = spread.sqrt() * torch.sigmoid(low).sqrt() / sigma
    mean = z / _per_row(ratio, z) - _per_row(spread / (ratio * sigma), z) * predicted
    return mean + _per_row(scatter, z) * fresh


def centred(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Points (n, points, k) less their mean: the projection onto zero centre of mass. `mask` (n, points) is 0 for what is no point;
    it comes out as 0. Standard normal numbers become a draw from the standard normal of the subspace."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    weight = mask[..., None].to(x)
    return (x - (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)) * weight


def prior_kl(x: Tensor, freedom: Tensor | int, schedule: Schedule) -> Tensor:
    """KL(q(z_T | x) || N(0, 1)) in nats for data x (n, ...): (n,). `freedom` is the dimension of the space that x and its noise live
    in: the count of its numbers, 3 less per molecule in the subspace of zero centre of mass."""
    alpha, sigma = schedule.alpha(schedule.steps), schedule.sigma(schedule.steps)
    spent = 0.5 * (sigma.square() - 1) - sigma.log()
    return spent * freedom + 0.5 * alpha.square() * x.double().square().flatten(1).sum(1)


def _per_row(level: Tensor, like: Tensor) -> Tensor:
    return level.to(like).view(-1, *[1] * (like.dim() - 1))
