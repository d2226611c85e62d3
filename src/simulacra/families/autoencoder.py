"""Variational autoencoders (Kingma & Welling, arXiv:1312.6114; Rezende et al., arXiv:1401.4082).

    x   a thing of nature, n numbers          z   its latent position, d numbers
    q(z|x) = N(mu(x), diag s(x)^2)            the encoder; it gives mu and log s^2
    p(x|z) = N(y(z), sigma^2)                 the decoder gives y; one sigma for all numbers, fixed or learned
    p(z)   = N(0, 1) while training
    ELBO   = E_q log p(x|z) - beta KL(q || p) <= log p(x) at beta = 1

"MSE + KL" is this bound with sigma fixed: the squared error summed over the n numbers means sigma^2 = 1/2, averaged over
them sigma^2 = n/2, which weighs the KL n times more. A learned sigma settles at the reconstruction error (Rybkin et al.,
arXiv:2006.13202), so that no weight is left to choose.

The linear part of a signal need not be learned by descent: `PrincipalEncoder` and `PrincipalDecoder` hold the d leading
principal axes, fixed, and networks add what a linear map cannot do. Such an autoencoder starts with the error of principal
component analysis and nearly with the posterior variances of its probabilistic form (Tipping & Bishop 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from simulacra.descent import Descent

# ------------------------------------------------------------------------------------------------- losses, per example


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)) || N(0, 1)) in nats, (n, d) -> (n,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def gaussian_log_likelihood(x: Tensor, y: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(x; y, sigma^2) in nats, summed over all axes but the first: (n, ...) -> (n,)."""
    squared = (x - y).square().flatten(1)
    return -0.5 * (squared.sum(dim=1) * torch.exp(-2 * log_sigma) + squared.shape[1] * (2 * log_sigma + math.log(2 * math.pi)))


def reparametrised(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from q(z|x) that gradients pass through; `noise` is standard normal, shape (n, d)."""
    return mean + noise * (0.5 * log_variance).exp()


# -------------------------------------------------------------------------------------------------------------- modules


class Coder(nn.Module):
    """Encoder (n, ...) -> (n, 2d), decoder (n, d) -> (n, ...), and the scatter sigma of nature about the decoder's mean."""

    log_sigma: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, sigma: float, learn_sigma: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        log_sigma = torch.tensor(math.log(sigma))
        if learn_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu(x) and log s(x)^2, shapes (n, d)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Per example (n, 3): log p(x|z) at one draw z of q, KL(q || p), and the mean squared error of that draw."""
        mean, log_variance = self.posterior(x)
        y = self.decoder(reparametrised(mean, log_variance, noise))
        error = (y - x).square().flatten(1).mean(dim=1)
        return torch.stack([gaussian_log_likelihood(x, y, self.log_sigma), kl_to_standard_normal(mean, log_variance), error], dim=1)


class Axes(NamedTuple):
    """The d leading principal components of n-number things: x ~ centre + sum_i z_i scale_i direction_i, z standard."""

    centre: Tensor  # (n,)
    directions: Tensor  # (n, d), orthonormal columns, largest scale first
    scales: Tensor  # (d,) standard deviations along them
    residual: float  # mean over the n numbers of the variance that is left out


def principal_axes(x: Tensor, d: int, *, seed: int = 0, passes: int = 4) -> Axes:
    """Principal components of the rows of x (m, n) by randomised subspace iteration (Halko et al., arXiv:0909.4061)."""
    if not 1 <= d <= min(x.shape):
        raise ValueError(f"{len(x)} things of {x.shape[1]} numbers have at most {min(x.shape)} principal axes, {d} asked")
    centre = x.mean(dim=0)
    centred = x - centre
    width = min(d + 10, *x.shape)  # ten more columns than wanted make the wanted ones exact to the last digits
    start = torch.randn(x.shape[1], width, generator=torch.Generator().manual_seed(seed), dtype=x.dtype).to(x.device)
    basis = torch.linalg.qr(centred.T @ (centred @ start)).Q
    for _ in range(passes):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    _, sizes, turn = torch.linalg.svd(centred @ basis, full_matrices=False)
    scales = sizes[:d] / math.sqrt(len(x))
    left = (centred.square().sum() / len(x) - scales.square().sum()).clamp(min=0) / x.shape[1]
    return Axes(centre, basis @ turn[:d].T, scales, float(left))


class PrincipalEncoder(nn.Module):
    """Standardised principal coordinates of the thing, plus a network's correction; log s^2 starts at that of PCA.

    The axes live on things shrunk by `pool` (averages of pool x pool pixels), or 1024 px would need gigabytes of axes.
    """

    centre: Tensor
    project: Tensor
    contrast: Tensor
    log_variance: Tensor

    def __init__(self, axes: Axes, network: nn.Module, *, shape: tuple[int, ...], pool: int = 1) -> None:
        super().__init__()
        self.network, self.pool = network, pool
        self.register_buffer("centre", axes.centre.reshape(shape).clone())
        self.register_buffer("project", (axes.directions / axes.scales).clone())
        self.register_buffer("contrast", axes.centre.new_tensor(_spread(axes)))
        # Posterior of probabilistic PCA: variance sigma^2 / (scale^2 + sigma^2) along each standardised axis.
        self.register_buffer("log_variance", torch.log(axes.residual / (axes.scales.square() + axes.residual)))

    def forward(self, x: Tensor) -> Tensor:
        small = _shrunk(x, self.pool) - self.centre
        mean, log_variance = self.network((x - _grown(self.centre[None], self.pool)) / self.contrast).chunk(2, dim=1)
        return torch.cat([small.flatten(1) @ self.project + mean, self.log_variance + log_variance], dim=1)


class PrincipalDecoder(nn.Module):
    """Sum of the principal axes at z, plus a network's correction."""

    centre: Tensor
    expand: Tensor
    contrast: Tensor

    def __init__(self, axes: Axes, network: nn.Module, *, shape: tuple[int, ...], pool: int = 1) -> None:
        super().__init__()
        self.network, self.pool, self.shape = network, pool, shape
        self.register_buffer("centre", axes.centre.clone())
        self.register_buffer("expand", (axes.directions * axes.scales).T.clone())
        self.register_buffer("contrast", axes.centre.new_tensor(_spread(axes)))

    def forward(self, z: Tensor) -> Tensor:
        linear = (self.centre + z @ self.expand).reshape(len(z), *self.shape)
        return _grown(linear, self.pool) + self.contrast * cast(Tensor, self.network(z))


def _spread(axes: Axes) -> float:
    """Typical deviation of one number from the centre: the unit in which networks see and speak."""
    return math.sqrt(float(axes.scales.square().sum()) / len(axes.centre) + axes.residual)


def _shrunk(x: Tensor, pool: int) -> Tensor:
    return F.avg_pool2d(x, pool) if pool > 1 else x


def _grown(x: Tensor, pool: int) -> Tensor:
    return F.interpolate(x, scale_factor=pool, mode="bilinear", align_corners=False) if pool > 1 else x


def silent(network: nn.Sequential) -> nn.Sequential:
    """The network with its last layer at zero, so that a correction begins as none."""
    last = [layer for layer in network if isinstance(getattr(layer, "weight", None), Tensor)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return network


# --------------------------------------------------------------------------------------------------------------- learner


class VAE:
    """A coder and its descent on -ELBO. Things are float tensors (n, ...); `encode` and `decode` use the averaged weights.

    `beta` weighs the KL and rises linearly from 0 over `warm_up` steps (Bowman et al., arXiv:1511.06349). `at_once` is how
    many things go through the networks together: a larger batch is worked off in parts whose activations are computed
    again on the way back, so memory holds one part and the step is the same to rounding.
    """

    def __init__(self, descent: Descent, *, beta: float = 1.0, warm_up: int = 0, at_once: int = 1 << 30) -> None:
        self.descent, self.beta, self.warm_up, self.at_once = descent, beta, warm_up, at_once
        self.coder = cast(Coder, descent.module)

    @property
    def averaged(self) -> Coder:
        return cast(Coder, self.descent.average)

    def weight(self) -> float:
        """Weight of the KL in the coming step."""
        return self.beta * min(1.0, (self.descent.count + 1) / self.warm_up) if self.warm_up else self.beta

    def step(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """One gradient step on things x with standard normal noise (n, d); returns means over the batch."""
        parts = list(zip(torch.split(x, self.at_once), torch.split(noise, self.at_once), strict=True))
        run: Callable[[Tensor, Tensor], Tensor] = self.coder if len(parts) == 1 else self._forgetful
        terms = torch.cat([run(*part) for part in parts]).mean(dim=0)
        loss = (self.weight() * terms[1] - terms[0]) / x[0].numel()  # per number, so that clipping means the same at every size
        norm = self.descent(loss)
        now = terms.detach()
        return {"loss": loss.detach(), "mse": now[2], "kl": now[1], "sigma": self.coder.log_sigma.detach().exp(), "gradient": norm}

    def _forgetful(self, x: Tensor, noise: Tensor) -> Tensor:
        return cast(Tensor, checkpoint(self.coder, x, noise, use_reentrant=False, preserve_rng_state=False))

    @torch.no_grad()
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), shapes (n, d)."""
        parts = [self.averaged.posterior(part) for part in torch.split(x, self.at_once)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return torch.cat([self.averaged.decoder(part) for part in torch.split(z, self.at_once)])

    @torch.no_grad()
    def elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """One-draw estimate of the bound at beta = 1, nats per thing, shape (n,)."""
        parts = zip(torch.split(x, self.at_once), torch.split(noise, self.at_once), strict=True)
        terms = torch.cat([self.averaged(*part) for part in parts])
        return terms[:, 0] - terms[:, 1]

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)


# ---------------------------------------------------------------------------------------------------------- latent paths


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points at shares t (m,) of the way from a to b (d,) along the great circle, shape (m, d) (Shoemake 1985).

    Lengths go linearly from |a| to |b|. In many dimensions a Gaussian lives near a sphere, and a straight line would cut
    through its empty middle (White, arXiv:1609.04468).
    """
    length_a, length_b = a.norm(), b.norm()
    if length_a == 0 or length_b == 0:
        return torch.lerp(a[None], b[None], t[:, None])
    u, v = a / length_a, b / length_b
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # exact for small angles, where acos is not
    if angle.sin() < 1e-6:  # the same direction, or opposite ones between which no great circle is preferred
        return torch.lerp(a[None], b[None], t[:, None])
    direction = (torch.sin((1 - t) * angle)[:, None] * u + torch.sin(t * angle)[:, None] * v) / angle.sin()
    lengths: Tensor = torch.lerp(length_a, length_b, t)
    path: Tensor = direction * lengths[:, None]
    return path


def latent_path(stops: Tensor, frames: int) -> Tensor:
    """A closed loop of `frames` latent positions through all stops (k, d), in order; frame 0 is the first stop."""
    count = len(stops)
    where = torch.arange(frames, dtype=torch.float64) * count / frames
    leg = where.floor().long()
    share = (where - leg).to(stops)
    return torch.cat([slerp(stops[i], stops[(i + 1) % count], share[leg == i]) for i in range(count)])
