"""Flow matching of points and classes together: a straight path from noise to data, learned as a guess of its end.

Points in space.  x_t = (1 - t) x_0 + t x_1 with x_0 standard normal of zero mean (Lipman et al. 2023, 2210.02747). The network
guesses x_1; the velocity is (guess - x_t) / (1 - t). Noise is aligned with the data (assignment of points, then rotation; the
equivariant optimal transport of Klein et al. 2023, 2306.15030), which keeps the law of x_0 given the rest and straightens paths.

Classes.  An entry is masked with probability 1 - t, else shows its class (Campbell et al. 2024, 2402.04997; Gat et al. 2024).
In a step from t to t' a masked entry is drawn from the guess with probability (t' - t) / (1 - t).

Points and classes may run on times of their own.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def aligned(noise: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    """`noise` (B, n, 3) with its points permuted and the whole rotated onto `data` (B, n, 3); both of zero mean over `mask`.

    One assignment (Hungarian) by squared distance, then one rotation (Kabsch 1976); reflections are allowed, since the noise is
    as probable as its mirror image.
    """
    cost = torch.cdist(data, noise).square()
    sizes = mask.sum(1).tolist()
    order = torch.arange(noise.shape[1]).repeat(len(noise), 1)
    for row, (costs, size) in enumerate(zip(cost.cpu().numpy(), sizes, strict=True)):
        order[row, :size] = torch.from_numpy(linear_sum_assignment(costs[:size, :size])[1])
    noise = torch.gather(noise, 1, order.to(noise.device)[..., None].expand_as(noise))
    return noise @ rotation_onto(noise, data, reflections=True).transpose(1, 2)


def rotation_onto(points: Tensor, target: Tensor, *, reflections: bool = False) -> Tensor:
    """Rotations R (B, 3, 3) that bring R p_i nearest to the targets t_i in the least-squares sense (Kabsch 1976); both (B, n, 3)
    are centred, rows that do not count are 0. With `reflections`, the nearest orthogonal matrix."""
    u, _, vt = torch.linalg.svd(target.transpose(1, 2) @ points)
    if reflections:
        nearest: Tensor = u @ vt
        return nearest
    flip = torch.ones_like(u[:, 0])
    flip[:, 2] = torch.linalg.det(u @ vt)
    turned: Tensor = (u * flip[:, None]) @ vt
    return turned


def between(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """x_t on the straight path, times t (B,)."""
    t = t.view(-1, *[1] * (x1.ndim - 1))
    return (1 - t) * x0 + t * x1


def towards(x: Tensor, guess: Tensor, t: float, later: float) -> Tensor:
    """x at `later` when the velocity from t on is that of `guess`: exact for a path that ends there."""
    return guess if later >= 1 else x + (later - t) / (1 - t) * (guess - x)


def point_weight(t: Tensor, most: float = 100.0) -> Tensor:
    """min(1 / (1 - t)^2, most): turns the error of the guess into the error of the velocity, without its pole."""
    return (1 / (1 - t).clamp_min(1e-6) ** 2).clamp(max=most)


def masked(classes: Tensor, t: Tensor, u: Tensor, mask_class: int) -> Tensor:
    """Integer `classes` (B, ...) where u (B, ...), uniform on [0, 1), is below t (B,), else `mask_class`."""
    return torch.where(u < t.view(-1, *[1] * (classes.ndim - 1)), classes, mask_class)


def unmasked(classes: Tensor, logits: Tensor, chance: float, u: Tensor, v: Tensor, mask_class: int) -> Tensor:
    """Each masked entry of `classes` (B, ...) drawn from softmax(logits) (B, ..., K) where u < chance; v, uniform, draws the
    class by inversion, so equal random numbers give equal classes."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    drawn = (v[..., None] > cumulative).sum(-1).clamp(max=logits.shape[-1] - 1)
    return torch.where((classes == mask_class) & (u < chance), drawn.to(classes.dtype), classes)
