"""The one place where a gradient step is taken: optimiser, schedule, clipping, running average, and all of their state."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

REMEMBERED = 50  # gradient norms that adaptive clipping looks back on
UNBOUNDED = 3000.0  # norm that stands in for the steps before the first: the first gradients are not clipped


class Descent:
    """A gradient step on one player's weights: Adam (Kingma & Ba, 1412.6980), schedule, clipping, running average.

    `descent(loss)` takes the step and returns the gradient norm before clipping. `descent.average` is a copy of the
    module whose weights are the exponential moving average with decay `ema` (the module itself where ema is 0): draw
    with that one. `clip` bounds the gradient norm; "adaptive" bounds it by 1.5 times the mean plus twice the standard deviation of
    the last 50 norms, clipped ones as clipped (Hoogeboom et al. 2022, 2203.17003). `amsgrad` divides by the largest second moment
    so far (Reddi et al., 1904.09237); `nesterov` looks ahead along the momentum (Dozat 2016, Incorporating Nesterov momentum into Adam).
    The learning rate rises linearly over `warmup` steps and, where `horizon` is given, falls to zero on a half cosine at step `horizon`;
    each of `restarts` (step, share) is a step at which it has fallen to zero and begins once more, at that share of its height (warm
    restarts: Loshchilov & Hutter 2016, 1608.03983). `stairs` (f, k) multiplies it by f every k steps.
    """

    def __init__(
        self, module: nn.Module, *, lr: float, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0,
        clip: float | Literal["adaptive"] | None = None, ema: float = 0.0, warmup: int = 0, horizon: int | None = None,
        amsgrad: bool = False, nesterov: bool = False, stairs: tuple[float, int] = (1.0, 1), restarts: Sequence[tuple[int, float]] = (),
    ) -> None:  # fmt: skip
        self.module, self.lr, self.clip, self.ema, self.warmup, self.horizon, self.stairs = module, lr, clip, ema, warmup, horizon, stairs
        self.restarts = tuple(restarts)
        self.average: nn.Module = copy.deepcopy(module).requires_grad_(False).eval() if ema else module
        self.optimiser: torch.optim.Optimizer
        if nesterov:
            if amsgrad:
                raise ValueError("amsgrad and nesterov are two ways to change Adam; choose one")
            nadam = torch.optim.NAdam
            self.optimiser = nadam(module.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, decoupled_weight_decay=True)
        else:
            self.optimiser = torch.optim.AdamW(module.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, amsgrad=amsgrad)
        self.norms = torch.full((REMEMBERED,), UNBOUNDED, device=next(module.parameters()).device)  # a ring; place 0 is filled first
        self.count = 0

    def rate(self) -> float:
        """Learning rate of the coming step."""
        rise = min(1.0, (self.count + 1) / self.warmup) if self.warmup else 1.0
        return self.lr * rise * self._fall() * self.stairs[0] ** (self.count // self.stairs[1])

    def _fall(self) -> float:
        if not self.horizon:
            return 1.0
        begun = max(fall for fall in ((0, 1.0), *self.restarts) if fall[0] <= self.count)
        end = min((step for step, _ in self.restarts if step > self.count), default=self.horizon)
        part = min((self.count - begun[0]) / max(end - begun[0], 1), 1.0)
        return 0.5 * (1 + math.cos(math.pi * part)) * begun[1]

    def __call__(self, loss: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clipped()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.step()
        self.count += 1
        if self.ema:
            self._follow()
        return norm

    def _clipped(self) -> Tensor:
        """Clip the gradients; their norm before. Nothing waits for the device."""
        if self.clip != "adaptive":
            return nn.utils.clip_grad_norm_(self.module.parameters(), self.clip or math.inf)
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        known = self.norms[: min(self.count + 1, REMEMBERED)]
        limit = 1.5 * known.mean() + 2 * known.std(correction=0)
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        self.norms[(self.count + 1) % REMEMBERED] = torch.minimum(norm, limit)
        return norm

    @torch.no_grad()
    def _follow(self) -> None:
        # Early on the average is short, or the initial weights would stay in it for 1 / (1 - ema) steps.
        decay = min(self.ema, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.module.parameters()), 1 - decay)
        for mean, now in zip(self.average.buffers(), self.module.buffers(), strict=True):
            mean.copy_(now)

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"weights.{k}": v for k, v in self.module.state_dict().items()}
        if self.ema:
            state |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            state |= {f"optimiser.{name}.{k}": v for k, v in self.optimiser.state[parameter].items()}
        if self.clip == "adaptive":
            state["norms"] = self.norms
        return state | {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(under(state, "weights"))
        if self.ema:
            self.average.load_state_dict(under(state, "average"))
        for name, parameter in self.module.named_parameters():
            moments = under(state, f"optimiser.{name}")
            device = parameter.device
            counts = ("step", "mu_product")  # stay where they are
            self.optimiser.state[parameter] = {k: (v if k in counts else v.to(device)).clone() for k, v in moments.items()}
        if self.clip == "adaptive":
            self.norms.copy_(state["norms"])
        self.count = int(state["count"])


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a flat state whose names begin with `prefix.`, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in state.items() if k.startswith(prefix + ".")}
