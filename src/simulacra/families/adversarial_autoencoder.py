"""Autoencoders of bits whose codes are pressed into a standard normal law, by a game or by a bound.

    x  n bits          z = E(x)  the code, d numbers          y = G(z)  n logits          D  the discriminator, one logit
    R(x, y) = - sum_i log p(x_i | y_i)     sigmoid cross-entropy, nats per row           (`bernoulli_log_loss`; n ln 2 for coin flips)

    adversarial (Makhzani et al. 2015, arXiv:1511.05644), three turns that follow each other strictly, one Adam each:
        discriminator   min over D of (softplus(-D(z')) + softplus(D(E(x)))) / 2,  z' ~ N(0, I)
        encoder         min over E of softplus(-D(E(x)))
        autoencoder     min over E, G of R(x, G(E(x)))
    variational (Kingma & Welling, arXiv:1312.6114): min over E, G of R(x, G(z)) + KL(q(z|x) || N(0, I)), z drawn from q

Both losses of the game stand at ln 2 where codes cannot be told from the prior. They also stand there where the discriminator learns
nothing, or too slowly to see what the encoder does: that is a stall. Only a test that does not learn (an energy distance, say) and the
reconstruction beside the losses tell the two apart (`standing`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families.autoencoder import kl_to_standard_normal, reparametrised

TURNS = ("discriminator", "encoder", "autoencoder")
MEMORY = 0.9  # decay per turn of the running loss of the discriminator
TOLD_APART = 0.1  # nats below ln 2: the discriminator tells codes from the prior
ALIKE = 0.25  # largest gap, of 0 for the prior itself and 1 for a law that is plainly another one, of codes that follow the prior

Standing = Literal["converged", "stalled", "apart"]


def bernoulli_log_loss(logits: Tensor, bits: Tensor) -> Tensor:
    """-log p of the bits (n, k) under independent bits of these logits, in nats per row (n,)."""
    return F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(1)


def marginal_logits(bits: Tensor) -> Tensor:
    """Logits (k,) of each bit's frequency in `bits` (n, k), with one imagined row of half bits, so that none is infinite: the law that
    knows no molecule."""
    return ((bits.sum(0) + 0.5) / (len(bits) + 1)).logit()


def discriminator_loss(on_prior: Tensor, on_code: Tensor) -> Tensor:
    """Mean cross-entropy of telling positions of the prior from codes, (n,); ln 2 where they cannot be told apart."""
    return (F.softplus(-on_prior) + F.softplus(on_code)) / 2


def standing(discriminator: float, gap: float, reconstruction: float, marginal: float) -> Standing:
    """Where a game stands, from the discriminator's loss, the gap between the law of codes and the prior by a test that does not learn,
    and the cross-entropy of reconstructed bits beside that of their marginals.

    converged   the discriminator cannot tell codes from the prior, nor can the test, and codes carry more than the marginals do
    stalled     it cannot tell them apart though the test can, or the codes say nothing: ln 2 is no success then
    apart       it tells them apart: codes do not follow the prior
    """
    if discriminator < math.log(2) - TOLD_APART:
        return "apart"
    return "stalled" if gap > ALIKE or reconstruction >= marginal else "converged"


class Autoencoder(nn.Module):
    """Encoder (n, k) -> codes, decoder (n, d) -> logits (n, k)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


class Coding(Protocol):
    """What either way of learning codes offers."""

    def turn(self, bits: Tensor) -> dict[str, Tensor]:
        """One gradient on one batch of bits (n, k); what to watch."""
        ...

    def encode(self, bits: Tensor) -> Tensor:
        """Codes (n, d)."""
        ...

    def codes(self, bits: Tensor, noise: Tensor) -> Tensor:
        """Positions (n, d) whose law over nature should be the prior's; `noise` (n, d) is standard normal."""
        ...

    def logits(self, code: Tensor) -> Tensor:
        """Logits of the bits (n, k) at codes."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...

    def load_drawing(self, state: Mapping[str, Tensor]) -> None:
        """Take from a state the autoencoder alone: `autoencoder.weights.*` is all that encoding and decoding need."""
        ...


class Adversarial:
    """The game. Networks that normalise over the batch do so while they learn and use running statistics when asked."""

    def __init__(
        self, autoencoder: Autoencoder, discriminator: nn.Module, *, latent: int, lr: float, critic_lr: float | None = None,
        horizon: int | None = None,
    ) -> None:  # fmt: skip
        """`critic_lr`: of the discriminator, where it is another; `horizon`: rounds after which the learning rates are zero."""
        self.latent = latent
        self.autoencoder = Descent(autoencoder, lr=lr, horizon=horizon)
        self.encoder = Descent(autoencoder.encoder, lr=lr, horizon=horizon)
        self.discriminator = Descent(discriminator, lr=critic_lr or lr, horizon=horizon)
        self.module = autoencoder
        device = next(autoencoder.parameters()).device
        self.running, self.lowest = (torch.full((), math.log(2), device=device) for _ in range(2))

    @property
    def count(self) -> int:
        """Turns taken by all."""
        return self.discriminator.count + self.encoder.count + self.autoencoder.count

    def turn(self, bits: Tensor) -> dict[str, Tensor]:
        """The turn of whoever is next (TURNS)."""
        turns = {"discriminator": self._discriminate, "encoder": self._deceive, "autoencoder": self._reconstruct}
        self.module.train()
        return turns[TURNS[self.count % 3]](bits)

    def _discriminate(self, bits: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            code = self.module.encoder(bits)
        critic = self.discriminator.module
        loss = discriminator_loss(critic(torch.randn(len(bits), self.latent).to(bits)), critic(code)).mean()
        self.discriminator(loss)
        self.running = MEMORY * self.running + (1 - MEMORY) * loss.detach()
        self.lowest = torch.minimum(self.lowest, self.running)
        return {"discriminator": loss.detach()}

    def _deceive(self, bits: Tensor) -> dict[str, Tensor]:
        loss = F.softplus(-self.discriminator.module(self.module.encoder(bits))).mean()
        self.encoder(loss)
        return {"encoder": loss.detach()}

    def _reconstruct(self, bits: Tensor) -> dict[str, Tensor]:
        loss = bernoulli_log_loss(self.module.decoder(self.module.encoder(bits)), bits).mean()
        self.autoencoder(loss)
        return {"reconstruction": loss.detach()}

    @torch.no_grad()
    def encode(self, bits: Tensor) -> Tensor:
        code: Tensor = self.module.eval().encoder(bits)
        return code

    def codes(self, bits: Tensor, noise: Tensor) -> Tensor:
        return self.encode(bits)

    @torch.no_grad()
    def logits(self, code: Tensor) -> Tensor:
        logits: Tensor = self.module.eval().decoder(code)
        return logits

    def state_dict(self) -> dict[str, Tensor]:
        players = {"discriminator": self.discriminator, "encoder": self.encoder, "autoencoder": self.autoencoder}
        state = {f"{name}.{k}": v for name, player in players.items() for k, v in player.state_dict().items()}
        once = {k: v for k, v in state.items() if not k.startswith("encoder.weights.")}  # they are the autoencoder's
        return once | {"running": self.running, "lowest": self.lowest}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        encoder = {f"encoder.weights.{k}": v for k, v in under(state, "autoencoder.weights.encoder").items()}
        for name in TURNS:
            player: Descent = getattr(self, name)
            player.load_state_dict(under({**state, **encoder}, name))
        self.running, self.lowest = (state[k].to(self.running.device).clone() for k in ("running", "lowest"))

    def load_drawing(self, state: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(under(state, "autoencoder.weights"))


class Variational:
    """The bound: the encoder gives mean and log variance, (n, 2 d). It takes one gradient in three turns, so that beside `Adversarial`
    it reconstructs as many batches, and the same ones."""

    def __init__(self, autoencoder: Autoencoder, *, latent: int, lr: float, horizon: int | None = None) -> None:
        self.latent, self.module, self.turns = latent, autoencoder, 0
        self.autoencoder = Descent(autoencoder, lr=lr, horizon=horizon)

    def turn(self, bits: Tensor) -> dict[str, Tensor]:
        """A gradient at each third turn."""
        self.turns += 1
        if self.turns % 3:
            return {}
        mean, log_variance = self.module.train().encoder(bits).chunk(2, 1)
        z = reparametrised(mean, log_variance, torch.randn(len(bits), self.latent).to(bits))
        reconstruction, kl = bernoulli_log_loss(self.module.decoder(z), bits).mean(), kl_to_standard_normal(mean, log_variance).mean()
        self.autoencoder(reconstruction + kl)
        return {"reconstruction": reconstruction.detach(), "kl": kl.detach()}

    @torch.no_grad()
    def posterior(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), (n, d) each."""
        mean, log_variance = self.module.eval().encoder(bits).chunk(2, 1)
        return mean, log_variance

    def encode(self, bits: Tensor) -> Tensor:
        return self.posterior(bits)[0]

    def codes(self, bits: Tensor, noise: Tensor) -> Tensor:
        return reparametrised(*self.posterior(bits), noise)

    @torch.no_grad()
    def logits(self, code: Tensor) -> Tensor:
        logits: Tensor = self.module.eval().decoder(code)
        return logits

    def state_dict(self) -> dict[str, Tensor]:
        return {f"autoencoder.{k}": v for k, v in self.autoencoder.state_dict().items()} | {"turns": torch.tensor(self.turns)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.autoencoder.load_state_dict(under(state, "autoencoder"))
        self.turns = int(state["turns"])

    def load_drawing(self, state: Mapping[str, Tensor]) -> None:
        self.module.load_state_dict(under(state, "autoencoder.weights"))
