"""Adversarial games: a generator draws, a critic scores, and each descends its own loss.

With scores r = D(x) of real rows, f = D(G(z)) of drawn ones, each loss a number per row (the caller averages):

    non-saturating  critic softplus(-r) + softplus(f)                        generator softplus(-f)       (Goodfellow et al. 1406.2661)
    hinge           critic relu(1 - r) + relu(1 + f)                         generator -f                 (Lim & Ye 1705.02894)
    wasserstein     critic f - r + penalty (|grad D| - 1)^2 between the two  generator -f                 (Gulrajani et al. 1704.00028)
    wasserstein_lp  the same with penalty max(0, |grad D| - 1)^2             generator -f                 (Petzka et al. 1709.08894)
    wasserstein_div critic f - r + k |grad D|^p between the two              generator -f                 (Wu et al. 1712.01026)
    paired          critic softplus(f - r)                                   generator softplus(r - f)    (Jolicoeur-Martineau 1807.00734)

Non-saturating, hinge and paired converge near equilibrium only where the critic is kept flat on the data (Mescheder et al.
1801.04406), so they take a penalty |grad D|^2 on real rows (`flat_on_real`, known as R1) or on real and drawn rows (`flat_on_both`,
which with `paired` makes the game of Huang et al. 2501.05441).

A new game is a new value of `Rules`, and whatever a game leaves open is a value too:

    a penalty of another game       replace(hinge(), penalty=flat_on_real, weight=5.0)       (dataclasses.replace)
    naming the class of each row    auxiliary_classifier(wasserstein())                      (Odena et al. 1610.09585)
    a critic of bounded slope       spectrally_normed(critic)                                (Miyato et al. 1802.05957)
    small data                      Game(..., augment=augmented)                             (Zhao et al. 2006.10738)
    two time scales                 each player's `Descent` has its own lr                   (Heusel et al. 1706.08500)
    the generator's running mean    Descent(generator, ema=0.999): `draw` takes that one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.study import Noise, Refused, S

Scores = Callable[[Tensor], Tensor]  # rows (n, ...) -> one number per row (n,), conditions already given
Loss = Callable[[Tensor, Tensor], Tensor]  # scores of real and of drawn rows, (n,) and (n,) -> (n,)
Penalty = Callable[[Scores, Tensor, Tensor, Tensor], Tensor]  # critic, real, drawn, u (n,) uniform on [0, 1) -> (n,)
Naming = Callable[[Tensor, Tensor], Tensor]  # class logits (n, classes) and class numbers (n,) -> (n,)
Blend = Callable[[Tensor, Tensor, Tensor], Tensor]  # conditions of n rows, others, share (n,) of the way -> conditions between
Augment = Callable[[Tensor, Tensor], Tensor]  # rows (n, channels, height, width), u (n, CHANCES) uniform on [0, 1) -> rows


@dataclass(frozen=True)
class Rules:
    """What either player descends. The critic adds `weight` times the penalty to its own loss; both add the mean of `naming`, the
    critic's also on drawn rows where `named_draws`."""

    critic: Loss
    generator: Loss
    penalty: Penalty | None = None
    weight: float = 0.0
    naming: Naming | None = None
    named_draws: bool = True


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


def steep_between(power: float) -> Penalty:
    """The penalty |grad D(u real + (1 - u) drawn)|^power, shape (n,). `power` is at least 2: below it the penalty has no second
    derivative where the critic is flat. Wu et al. allow gradients taken anywhere; between the two, one pass serves both laws."""
    if power < 2:
        raise ValueError(f"power {power:g} of the critic's slope is below 2")

    def penalty(critic: Scores, real: Tensor, drawn: Tensor, u: Tensor) -> Tensor:
        between = torch.lerp(drawn, real, u.view(-1, *[1] * (real.ndim - 1)))
        return slope(critic, between) ** (power / 2)

    return penalty


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


def wasserstein_div(*, penalty: float = 2.0, power: float = 6.0) -> Rules:
    """The Wasserstein divergence: the critic may be as steep as pays for `penalty` (k) times its slope to the `power` (p)."""
    return Rules(
        critic=lambda real, drawn: drawn - real,
        generator=lambda real, drawn: -drawn,
        penalty=steep_between(power), weight=penalty,
    )  # fmt: skip


def paired(*, penalty: float = 1.0) -> Rules:
    """Each drawn row is scored against a real one; `penalty` weighs `flat_on_both`. The game has no bad local minimum (2501.05441)."""
    return Rules(
        critic=lambda real, drawn: F.softplus(drawn - real),
        generator=lambda real, drawn: F.softplus(real - drawn),
        penalty=flat_on_both, weight=penalty,
    )  # fmt: skip


def auxiliary_classifier(rules: Rules | None = None, *, weight: float = 1.0, named_draws: bool = True) -> Rules:
    """`rules` (`non_saturating` where None) for a critic that also names the class of each row, real or drawn, and a generator that
    wants to be named rightly: `weight` times -log p(class) joins both losses (Odena et al. 1610.09585, equations 2 and 3).

    The generator is told the class, an integer (n,), as its condition. The critic is not: it gives (n, 1 + classes), a score and
    the logits of the classes (no softmax: the loss takes it). As published it learns names from drawn rows too, under the class that
    was asked for, and so learns the generator's mistakes; without `named_draws` it learns them from real rows alone.
    """
    return replace(rules or non_saturating(), naming=lambda logits, known: weight * surprise(logits, known), named_draws=named_draws)


def surprise(logits: Tensor, known: Tensor) -> Tensor:
    """-log p(known class) in nats, shape (n,), of the law whose unnormalised logarithms are `logits` (n, classes)."""
    return F.cross_entropy(logits, known.long(), reduction="none")


# --- small data, bounded critics ---

CHANCES = 7  # random numbers that `augmented` wants per row


def augmented(images: Tensor, u: Tensor) -> Tensor:
    """Images (n, channels, height, width) made harder to remember: colour, then translation, then cutout, each row as its numbers u
    (n, 7) on [0, 1) say (Zhao et al. 2006.10738: all three, in their strengths). What is cut out or moved in is 0, which should be
    the middle of the range: brightness moves by up to half a unit of a range [-1, 1]. Differentiable in the images."""
    return cut_out(translated(coloured(images, u[:, :3]), u[:, 3:5]), u[:, 5:])


def coloured(images: Tensor, u: Tensor) -> Tensor:
    """Brightness moved by u0 - 1/2, saturation (distance from each pixel's mean colour) times 2 u1, contrast (distance from each
    image's mean) times u2 + 1/2."""
    brightness, saturation, contrast = u[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, contrast + 0.5)


def translated(images: Tensor, u: Tensor) -> Tensor:
    """Moved by whole pixels, uniform within an eighth of the height (u0) and of the width (u1) either way; what comes in is 0."""
    for axis, chance in ((2, u[:, 0]), (3, u[:, 1])):
        side = images.shape[axis]
        most = side // 8
        moved = (chance * (2 * most + 1)).long() - most
        source = torch.arange(side, device=images.device) - moved[:, None]
        shape = [len(images), 1, 1, 1]
        shape[axis] = side
        inside = ((source >= 0) & (source < side)).view(shape)
        images = images.gather(axis, source.clamp(0, side - 1).view(shape).expand_as(images)) * inside
    return images


def cut_out(images: Tensor, u: Tensor) -> Tensor:
    """A box of half the height and half the width is 0. Its centre is uniform on the image, so that it may hang over the edge."""
    inside = []
    for axis, chance in ((2, u[:, 0]), (3, u[:, 1])):
        side = images.shape[axis]
        box = side // 2
        first = (chance * (side + 1 - box % 2)).long() - box // 2
        offset = torch.arange(side, device=images.device) - first[:, None]
        inside.append((offset >= 0) & (offset < box))
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def spectrally_normed(player: nn.Module) -> nn.Module:
    """The same network, each linear or convolutional layer divided by its largest singular value (of the kernel as a matrix of
    outputs by all else), which one power iteration per training pass follows. Its vectors are saved with the weights."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for layer in [module for module in player.modules() if isinstance(module, layers)]:
        nn.utils.parametrizations.spectral_norm(layer)
    return player


# --- the game ---

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def between(condition: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Conditions (n, ...) that are numbers, `share` (n,) of the way to others."""
    return torch.lerp(condition, other, share.view(-1, *[1] * (condition.ndim - 1)).to(condition))


def between_classes(classes: int) -> Blend:
    """The same for class numbers (n,): weights (n, classes) that sum to 1, for a generator that takes either (`nets.embedding`)."""

    def blend(condition: Tensor, other: Tensor, share: Tensor) -> Tensor:
        one, two = (F.one_hot(numbers.long(), classes).float() for numbers in (condition, other))
        return torch.lerp(one, two, share[:, None].to(one))

    return blend


class Game(Generic[S]):
    """One alternation per step: the critic descends `critic_steps` times, each on its own share of the batch, the generator once.

    `generator.module(z, condition)` makes rows from standard normal z (n, latent); `critic.module(rows, condition)` scores them.
    `rows_of` takes samples apart into rows and condition (one tensor each, or None where nothing conditions), `samples_from`
    puts drawn rows together under the conditions of `like`, and `blend` makes conditions between two. `view`, where given, is applied
    to real and drawn rows alike before the critic sees them: a symmetry of nature folded away. `augment`, where given (`augmented`,
    say), comes after it; a real row and the drawn row beside it get the same random numbers. The penalty, which costs two backward
    passes, is estimated from the first `penalised` rows of a share (all where None). `precision` is that of the products of a move,
    float32 or bfloat16; weights, losses and draws are float32. Raises `Refused` where the rules penalise a critic that normalises over
    the batch, or one in bfloat16.
    """

    def __init__(
        self, generator: Descent, critic: Descent, *, rules: Rules, latent: int,
        rows_of: Callable[[S], tuple[Tensor, Tensor | None]], samples_from: Callable[[Tensor, S], S],
        view: Callable[[Tensor], Tensor] = lambda rows: rows, critic_steps: int = 1, penalised: int | None = None,
        augment: Augment | None = None, blend: Blend = between, precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.generator, self.critic, self.rules, self.latent = generator, critic, rules, latent
        self.rows_of, self.samples_from, self.view = rows_of, samples_from, view
        self.critic_steps, self.penalised, self.augment, self.blend = critic_steps, penalised, augment, blend
        self.precision = precision
        if precision == torch.bfloat16 and rules.penalty is not None and rules.weight:
            # Seen with torch 2.13 on a processor that has bfloat16: from equal states, other losses each time, and in the end none.
            raise Refused("a penalty on the critic's slope wants float32: in bfloat16, second derivatives of convolutions are not reliable")
        coupled = [name for name, layer in critic.module.named_modules() if isinstance(layer, BATCH_NORMS)]
        if coupled and rules.penalty is not None and rules.weight:
            raise Refused(
                f"the critic normalises over the batch ({', '.join(coupled)}), so its score of a row depends on the other rows and the "
                "penalty on its slope has no meaning; normalise within rows (GroupNorm), or set the penalty to 0"
            )

    def step(self, batch: S) -> Mapping[str, Any]:
        rows, conditions = self.rows_of(batch)
        shares = self.view(rows).chunk(self.critic_steps)
        given = [None] * len(shares) if conditions is None else list(conditions.chunk(self.critic_steps))
        watched: dict[str, Tensor] = {}
        for k, (real, condition) in enumerate(zip(shares, given, strict=True)):
            # The generator descends on the rows that its critic saw last: half the price of drawing anew, and the same law.
            with torch.set_grad_enabled(k == len(shares) - 1):
                z = torch.randn(len(real), self.latent, device=real.device)
                drawn = self.view(self._played(self.generator.module, z, condition))
                if self.augment is not None:
                    u = torch.rand(len(real), CHANCES, device=real.device)
                    real, drawn = self.augment(real, u), self.augment(drawn, u)
            watched = self._criticise(real, drawn.detach(), condition)
        return watched | self._answer(real, drawn, condition)

    def _played(self, player: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
        """What a player makes of x, in float32 however its products are computed."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            found = _call(player, x, condition)
        return found.to(x.dtype)

    def _heard(self, rows: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the critic says of each row: its score (n,), and its loss (n,) on the row's class where the rules ask for one."""
        if self.rules.naming is None:
            return self._played(self.critic.module, rows, condition), None
        if condition is None:
            raise Refused("the rules ask the critic to name the class of each row, but the samples have none")
        said = self._played(self.critic.module, rows, None)
        return said[:, 0], self.rules.naming(said[:, 1:], condition)

    def _criticise(self, real: Tensor, drawn: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """The critic's move."""
        (on_real, real_class), (on_drawn, drawn_class) = (self._heard(rows, condition) for rows in (real, drawn))
        loss = self.rules.critic(on_real, on_drawn).mean()
        watched = {"critic": loss.detach(), "margin": (on_real - on_drawn).detach().mean()}
        if real_class is not None and drawn_class is not None:
            watched |= {"real_class": real_class.detach().mean(), "drawn_class": drawn_class.detach().mean()}
            loss = loss + real_class.mean() + (drawn_class.mean() if self.rules.named_draws else 0.0)
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
        return penalty(lambda rows: self._heard(rows, known)[0], real[few], drawn[few], u).mean()

    def _answer(self, real: Tensor, drawn: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """The generator's move."""
        with torch.no_grad():
            on_real, _ = self._heard(real, condition)
        self.critic.module.requires_grad_(False)  # its gradients would be computed and thrown away
        on_drawn, drawn_class = self._heard(drawn, condition)
        loss = self.rules.generator(on_real, on_drawn).mean()
        if drawn_class is not None:
            loss = loss + drawn_class.mean()
        self.critic.module.requires_grad_(True)
        return {"generator": loss.detach(), "generator_gradient": self.generator(loss).detach()}

    def draw(self, like: S, noise: Noise) -> S:
        """One row per row of `like`, under its conditions, from the running average of the generator; batch normalisation, where
        it has any, uses running statistics."""
        return self.imagine(noise.normal(self.latent), like)

    @torch.no_grad()
    def imagine(self, position: Tensor, like: S, towards: S | None = None, share: Tensor | None = None) -> S:
        """What the generator makes of positions (n, latent): see `study.Imagines`."""
        rows, condition = self.rows_of(like)
        if towards is not None and share is not None and condition is not None:
            other = self.rows_of(towards)[1]
            assert other is not None
            condition = self.blend(condition, other, share.to(rows.device))
        generator = self.generator.average
        playing = generator.training
        drawn = _call(generator.eval(), position.to(rows.device), condition)
        generator.train(playing)
        return self.samples_from(drawn, like)

    def state_dict(self) -> dict[str, Tensor]:
        players = {"generator": self.generator, "critic": self.critic}
        return {f"{name}.{k}": v for name, player in players.items() for k, v in player.state_dict().items()}

    def to_ship(self) -> dict[str, Tensor]:
        """The weights that draw."""
        return {f"average.{k}": v for k, v in self.generator.average.state_dict().items()}

    def load_shipped(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights that draw from `to_ship`; the game cannot be played on from there."""
        self.generator.average.load_state_dict(under(state, "average"))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.load_state_dict(under(state, "generator"))
        self.critic.load_state_dict(under(state, "critic"))


def _call(module: Callable[..., Tensor], x: Tensor, condition: Tensor | None) -> Tensor:
    return module(x) if condition is None else module(x, condition)
