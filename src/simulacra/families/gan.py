"""Adversarial games: a generator draws, a critic scores, and each descends its own loss.

With scores r = D(x) of real rows, f = D(G(z)) of drawn ones, each loss a number per row (the caller averages):

    non-saturating  critic softplus(-r) + softplus(f)                        generator softplus(-f)       (Goodfellow et al. 1406.2661)
    hinge           critic relu(1 - r) + relu(1 + f)                         generator -f                 (Lim & Ye 1705.02894)
    wasserstein     critic f - r + penalty (|grad D| - 1)^2 between the two  generator -f                 (Gulrajani et al. 1704.00028)
    wasserstein_lp  the same with penalty max(0, |grad D| - 1)^2             generator -f                 (Petzka et al. 1709.08894)
    paired          critic softplus(f - r)                                   generator softplus(r - f)    (Jolicoeur-Martineau 1807.00734)

The first two and the last converge near equilibrium only where the critic is kept flat on the data (Mescheder et al.
1801.04406), so they take a penalty |grad D|^2 on real rows (`flat_on_real`) or on real and drawn rows (`flat_on_both`, which
with `paired` makes the game of Huang et al. 2501.05441). A new game is a new value of `Rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor

from simulacra.descent import Descent, under
from simulacra.study import Noise, S

Scores = Callable[[Tensor], Tensor]  # rows (n, ...) -> one number per row (n,), conditions already given
Loss = Callable[[Tensor, Tensor], Tensor]  # scores of real and of drawn rows, (n,) and (n,) -> (n,)
Penalty = Callable[[Scores, Tensor, Tensor, Tensor], Tensor]  # critic, real, drawn, u (n,) uniform on [0, 1) -> (n,)


@dataclass(frozen=True)
class Rules:
    """What either player descends. The critic adds `weight` times the penalty to its own loss."""

    critic: Loss
    generator: Loss
    penalty: Penalty | None = None
    weight: float = 0.0


# --- penalties, per example ---


def slope(critic: Scores, x: Tensor) -> Tensor:
    """|grad D(x)|^2 with the norm over everything in a row (not per pixel or channel), shape (n,)."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def unit_slope_between(critic: Scores, real: Tensor, drawn: Tensor, u: Tensor) -> Tensor:
    """(|grad D(u real + (1 - u) drawn)| - 1)^2, shape (n,)."""
    u = u.view(-1, *[1] * (real.ndim - 1))
    # The root has an infinite derivative at 0, where a fresh critic may start.
    return (slope(critic, torch.lerp(drawn, real, u)).clamp_min(1e-12).sqrt() - 1) ** 2


def at_most_unit_slope_between(critic: Scores, real: Tensor, drawn: Tensor, u: Tensor) -> Tensor:
    """max(0, |grad D(u real + (1 - u) drawn)| - 1)^2, shape (n,)."""
    u = u.view(-1, *[1] * (real.ndim - 1))
    return (slope(critic, torch.lerp(drawn, real, u)).clamp_min(1e-12).sqrt() - 1).clamp_min(0) ** 2


def flat_on_real(critic: Scores, real: Tensor, drawn: Tensor, u: Tensor) -> Tensor:
    """|grad D(real)|^2 / 2, shape (n,)."""
    return slope(critic, real) / 2


def flat_on_both(critic: Scores, real: Tensor, drawn: Tensor, u: Tensor) -> Tensor:
    """(|grad D(real)|^2 + |grad D(drawn)|^2) / 2, shape (n,)."""
    return (slope(critic, real) + slope(critic, drawn)) / 2


# --- games ---


def non_saturating(*, penalty: float = 0.0) -> Rules:
    """The original game with the generator's loss that does not saturate; `penalty` weighs `flat_on_real`."""
    return Rules(
        critic=lambda real, drawn: F.softplus(-real) + F.softplus(drawn),
        generator=lambda real, drawn: F.softplus(-drawn),
        penalty=flat_on_real, weight=penalty,
    )  # fmt: skip


def hinge(*, penalty: float = 0.0) -> Rules:
    """Scores count only inside the margin [-1, 1]; `penalty` weighs `flat_on_real`."""
    return Rules(
        critic=lambda real, drawn: F.relu(1 - real) + F.relu(1 + drawn),
        generator=lambda real, drawn: -drawn,
        penalty=flat_on_real, weight=penalty,
    )  # fmt: skip


def wasserstein(*, penalty: float = 10.0) -> Rules:
    """The critic estimates the earth mover's distance; `penalty` weighs its departure from slope 1 between real and drawn."""
    return Rules(
        critic=lambda real, drawn: drawn - real,
        generator=lambda real, drawn: -drawn,
        penalty=unit_slope_between, weight=penalty,
    )  # fmt: skip


def wasserstein_lp(*, penalty: float = 10.0) -> Rules:
    """Wasserstein's game whose critic may be flat. Once drawn rows are nearly real, a slope of 1 would have to be invented."""
    return Rules(
        critic=lambda real, drawn: drawn - real,
        generator=lambda real, drawn: -drawn,
        penalty=at_most_unit_slope_between, weight=penalty,
    )  # fmt: skip


def paired(*, penalty: float = 1.0) -> Rules:
    """Each drawn row is scored against a real one; `penalty` weighs `flat_on_both`. The game has no bad local minimum (2501.05441)."""
    return Rules(
        critic=lambda real, drawn: F.softplus(drawn - real),
        generator=lambda real, drawn: F.softplus(real - drawn),
        penalty=flat_on_both, weight=penalty,
    )  # fmt: skip


# --- the game ---


class Game(Generic[S]):
    """One alternation per step: the critic descends `critic_steps` times, each on its own share of the batch, the generator once.

    `generator.module(z, condition)` makes rows from standard normal z (n, latent); `critic.module(rows, condition)` scores them.
    `rows_of` takes samples apart into rows and condition (one tensor each, or None where nothing conditions), `samples_from`
    puts drawn rows together under the conditions of `like`. `view`, where given, is applied to real and drawn rows alike before
    the critic sees them: a symmetry of nature folded away, an augmentation. The penalty, which costs two backward passes, is
    estimated from the first `penalised` rows of a share (all where None).
    """

    def __init__(
        self, generator: Descent, critic: Descent, *, rules: Rules, latent: int,
        rows_of: Callable[[S], tuple[Tensor, Tensor | None]], samples_from: Callable[[Tensor, S], S],
        view: Callable[[Tensor], Tensor] = lambda rows: rows, critic_steps: int = 1, penalised: int | None = None,
    ) -> None:  # fmt: skip
        self.generator, self.critic, self.rules, self.latent = generator, critic, rules, latent
        self.rows_of, self.samples_from, self.view = rows_of, samples_from, view
        self.critic_steps, self.penalised = critic_steps, penalised

    def step(self, batch: S) -> Mapping[str, Any]:
        rows, conditions = self.rows_of(batch)
        shares = self.view(rows).chunk(self.critic_steps)
        given = [None] * len(shares) if conditions is None else list(conditions.chunk(self.critic_steps))
        watched: dict[str, Tensor] = {}
        for k, (real, condition) in enumerate(zip(shares, given, strict=True)):
            # The generator descends on the rows that its critic saw last: half the price of drawing anew, and the same law.
            with torch.set_grad_enabled(k == len(shares) - 1):
                z = torch.randn(len(real), self.latent, device=real.device)
                drawn = self.view(_call(self.generator.module, z, condition))
            watched = self._criticise(real, drawn.detach(), condition)
        return watched | self._answer(shares[-1], drawn, given[-1])

    def _criticise(self, real: Tensor, drawn: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """The critic's move."""
        on_real, on_drawn = (_call(self.critic.module, rows, condition) for rows in (real, drawn))
        loss = self.rules.critic(on_real, on_drawn).mean()
        watched = {"critic": loss.detach(), "margin": (on_real - on_drawn).detach().mean()}
        if self.rules.penalty is not None and self.rules.weight:
            penalty = self._penalty(self.rules.penalty, real, drawn, condition)
            watched["penalty"] = penalty.detach()
            loss = loss + self.rules.weight * penalty
        self.critic(loss)
        return watched

    def _penalty(self, penalty: Penalty, real: Tensor, drawn: Tensor, condition: Tensor | None) -> Tensor:
        few = slice(self.penalised)
        known = None if condition is None else condition[few]
        u = torch.rand(len(real[few]), device=real.device)
        return penalty(lambda rows: _call(self.critic.module, rows, known), real[few], drawn[few], u).mean()

    def _answer(self, real: Tensor, drawn: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """The generator's move."""
        with torch.no_grad():
            on_real = _call(self.critic.module, real, condition)
        self.critic.module.requires_grad_(False)  # its gradients would be computed and thrown away
        loss = self.rules.generator(on_real, _call(self.critic.module, drawn, condition)).mean()
        self.critic.module.requires_grad_(True)
        return {"generator": loss.detach(), "generator_gradient": self.generator(loss).detach()}

    @torch.no_grad()
    def draw(self, like: S, noise: Noise) -> S:
        """One row per row of `like`, under its conditions, from the running average of the generator; batch normalisation, where
        it has any, uses running statistics."""
        rows, condition = self.rows_of(like)
        generator = self.generator.average
        playing = generator.training
        drawn = _call(generator.eval(), noise.normal(self.latent).to(rows.device), condition)
        generator.train(playing)
        return self.samples_from(drawn, like)

    def state_dict(self) -> dict[str, Tensor]:
        players = {"generator": self.generator, "critic": self.critic}
        return {f"{name}.{k}": v for name, player in players.items() for k, v in player.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.load_state_dict(under(state, "generator"))
        self.critic.load_state_dict(under(state, "critic"))


def _call(module: Callable[..., Tensor], x: Tensor, condition: Tensor | None) -> Tensor:
    return module(x) if condition is None else module(x, condition)
