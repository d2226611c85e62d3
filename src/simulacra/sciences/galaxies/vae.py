"""Galaxy images from a variational autoencoder: reconstructions, new galaxies, paths between them, and what is novel.

    paper    the dense network of the article, 49152 - 500 - (50, 50) - 500 - 49152 for 128 px in colour: ReLU, sigmoid at the
             end, Adam, MSE + KL. The error is summed over the image here (sigma^2 = 1/2): averaged, the KL would weigh 49,152
             times more and the posterior falls back to the prior. The article calls the latent law uniform; the KL that it
             minimises is the one to the standard normal.
    laptop   64 px: the leading principal components, fixed, and convolutional networks that correct both encoder and decoder;
             sigma learned; training images turned and flipped at random, since the sky has no preferred direction; weights
             averaged over steps; a mixture of Gaussians, fitted to the encodings when training ends, as the prior to draw from.
    quick    the same at 32 px on galaxies drawn by formula.

`draw` gives the decoder's mean at a draw from the prior. It is smoother than any photograph, since the mean has no noise and
what the latent position does not tell is averaged over: the power spectrum shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra import movie
from simulacra.descent import Descent, under
from simulacra.evidence import Check, Figure, Finding
from simulacra.families import mixture
from simulacra.families.autoencoder import VAE, Coder, PrincipalDecoder, PrincipalEncoder, latent_path, principal_axes, silent
from simulacra.nets import conv
from simulacra.nets.dense import dense
from simulacra.sciences.galaxies import data, framing, novelty, simulate
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import PIXELS_AT_ONCE, ImageRecipe, as_bytes, blocks, noise_variance, spread, turned
from simulacra.study import Noise, Refused, Split, Study
from simulacra.training import device_of

LINEAR_SIDE = 64  # px: principal axes of larger images are those of the images shrunk to this side
ENCODED = 15_000  # encodings that the prior is fitted to
REFERENCE = 2_000  # training images that say what residuals are usual


class GalaxyRecipe(ImageRecipe):
    """A variational autoencoder of galaxy images."""

    network: Literal["convolutional", "dense"] = Field("convolutional", description="dense: the article's two linear layers each way.")
    latent: int = Field(64, ge=1, le=2048, description="Dimensions d of the latent space.")
    width: PositiveInt = Field(
        32, description="Channels of the convolutions where the image is 32 px wide; doubled when halved, up to 4 x."
    )
    linear: bool = Field(True, description="Convolutional only: start from d fixed principal components and learn corrections to them.")
    sigma: float = Field(0.026, gt=0, description="Scatter of pixels about the decoder's mean, full scale 1; the article's: sqrt(1/2).")
    learn_sigma: bool = Field(True, description="Learn sigma along with the weights, starting from the value above.")
    beta: float = Field(1.0, ge=0, description="Weight of the KL divergence to the standard normal.")
    warm_up: int = Field(0, ge=0, description="Steps over which the weight of the KL rises from 0 to beta.")
    prior: int = Field(16, ge=0, le=256, description="Gaussians in the prior that draws come from; 0: the standard normal.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training images at random.")
    lr: float = Field(3e-3, gt=0, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    ema: float = Field(0.998, ge=0, lt=1, description="Decay per step of the weight average that encodes and draws; 0: the last weights.")


# ------------------------------------------------------------------------------------------------------------- networks


def article_coder(side: int, channels: int, latent: int, sigma: float, *, learn_sigma: bool = False) -> Coder:
    """The article's network: two linear layers each way with ReLU between, sigmoid at the end."""
    count = channels * side**2
    encoder = nn.Sequential(nn.Flatten(), *dense([count, 500, 2 * latent]))
    decoder = nn.Sequential(*dense([latent, 500, count], last=nn.Sigmoid()), nn.Unflatten(1, (channels, side, side)))
    return Coder(encoder, decoder, sigma=sigma, learn_sigma=learn_sigma)


def convolutional_coder(recipe: GalaxyRecipe, training: Images) -> Coder:
    """Strided convolutions down to 4 px and back; with `linear`, as corrections to the principal components of training."""
    channels, d = training.bands, recipe.latent
    widths = [_width(recipe.side >> halving, recipe.width) for halving in range(1, recipe.side.bit_length() - 2)]
    encoder = conv.encoder(recipe.side, channels, widths, 2 * d)
    decoder = conv.decoder(d, widths[::-1], channels, recipe.side, transposed=True)
    if not recipe.linear:
        return Coder(encoder, nn.Sequential(*decoder, nn.Sigmoid()), sigma=recipe.sigma, learn_sigma=recipe.learn_sigma)
    pool = max(1, recipe.side // LINEAR_SIDE)
    small = torch.cat([nn.functional.avg_pool2d(part.float(), pool) for part in blocks(training)]).flatten(1)
    if d > min(small.shape):
        raise Refused(
            f"latent = {d} needs more than {d} training images and pixels, here are {len(small)} and {small.shape[1]}; lower `latent`"
        )
    axes = principal_axes(small, d, seed=recipe.seed)
    shape = (channels, recipe.side // pool, recipe.side // pool)
    return Coder(
        PrincipalEncoder(axes, silent(encoder), shape=shape, pool=pool), PrincipalDecoder(axes, silent(decoder), shape=shape, pool=pool),
        sigma=recipe.sigma, learn_sigma=recipe.learn_sigma,
    )  # fmt: skip


def _width(side: int, width: int) -> int:
    """Channels at a resolution of `side` px: twice as many when it halves, so that every stage costs about the same."""
    return max(8, min(4 * width, width * 32 // side))


# --------------------------------------------------------------------------------------------------------------- learner


class GalaxyVAE:
    """A VAE of images, the prior that draws come from, and the law of its residuals; the last two are fitted to the training
    images with the last step, or when they are first needed after another one.

    `score`: high means novel, see novelty.py. `encode` gives posterior means, `decode` the decoder's means as bytes.
    """

    def __init__(self, recipe: GalaxyRecipe, coder: Coder, training: Images) -> None:
        self.recipe, self.training, self.device = recipe, training, device_of(recipe.device)
        descent = Descent(
            coder.to(self.device), lr=recipe.lr, clip=1.0, ema=recipe.ema, warmup=min(100, recipe.steps // 10), horizon=recipe.steps
        )
        at_once = max(1, PIXELS_AT_ONCE // recipe.side**2)
        self.vae = VAE(descent, beta=recipe.beta, warm_up=recipe.warm_up, at_once=at_once)
        self.prior = mixture.blank(max(recipe.prior, 1), recipe.latent)
        self.expected = novelty.blank(training.bands)
        self.settled_at = -1  # step whose weights the prior and the residuals were fitted with

    def step(self, batch: Images) -> Mapping[str, Tensor]:
        x = batch.float()
        if self.recipe.turned:
            x = turned(x, torch.randint(8, (len(x),)))
        losses = self.vae.step(x, torch.randn(len(x), self.recipe.latent).to(x))
        if self.vae.descent.count == self.recipe.steps:
            self.settle()
        return losses

    def draw(self, like: Images, noise: Noise) -> Images:
        """New galaxies: the decoder's mean at draws from the prior."""
        self.settle()
        uniform, normal = noise.uniform(1)[:, 0], noise.normal(self.recipe.latent)
        return self.decode(self.prior.draw(uniform, normal))

    def encode(self, samples: Images) -> Tensor:
        return torch.cat([self.vae.encode(part.to(self.device).float()) for part in blocks(samples)]).cpu()

    def decode(self, latent: Tensor) -> Images:
        parts = [as_bytes(self.vae.decode(part.to(self.device))) for part in torch.split(latent, self.vae.at_once)]
        return Images(torch.cat(parts), torch.full((len(latent),), -1, dtype=torch.int64))

    def score(self, samples: Images) -> Tensor:
        """Novelty per image, shape (n,): high means unlike the training images."""
        return novelty.score(self.surprises(samples))

    def surprises(self, samples: Images) -> Tensor:
        """-ln of the share of training images at least as extreme, per feature of novelty.FEATURES, shape (n, features)."""
        self.settle()
        return novelty.surprises(*self._features(samples, self.expected.variance), self.expected)

    def _features(self, samples: Images, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Excess residual (n,), -log density of the latent position (n,) and light profile (n, numbers)."""
        residual, latent, profiles = [], [], []
        for block in blocks(samples):
            x, y, z = self._seen(block)
            residual.append(novelty.excess(x, y, variance))
            latent.append(-self.prior.log_density(z))
            profiles.append(novelty.profile(x))
        return torch.cat(residual), torch.cat(latent), torch.cat(profiles)

    def _seen(self, block: Images) -> tuple[Tensor, Tensor, Tensor]:
        """Images, their reconstructions and latent positions, on the CPU."""
        x = block.to(self.device).float()
        z = self.vae.encode(x)
        return x.cpu(), self.vae.decode(z).clamp(0, 1).cpu(), z.cpu()

    def settle(self) -> None:
        """Fit the prior and the law of the residuals to the training images, unless that was done with these weights."""
        if self.settled_at == self.vae.descent.count:
            return
        if self.recipe.prior:
            self.prior = mixture.fit_mixture(self._encodings(), self.recipe.prior, seed=self.recipe.seed)
        usual = spread(self.training, REFERENCE)
        sums = sum(novelty.residual_sums(*self._seen(block)[:2]) for block in blocks(usual))
        variance = novelty.expected_variance(torch.as_tensor(sums))
        self.expected = novelty.learnt(*self._features(usual, variance), variance)
        self.settled_at = self.vae.descent.count

    def _encodings(self) -> Tensor:
        """Draws from q(z|x) of training images, in several orientations where training turned them."""
        rng = torch.Generator().manual_seed(self.recipe.seed)
        rounds = max(1, min(8, ENCODED // len(self.training))) if self.recipe.turned else 1
        found = []
        for _ in range(rounds):
            for block in blocks(spread(self.training, ENCODED)):
                x = turned(block.float(), torch.randint(8, (len(block),), generator=rng)) if self.recipe.turned else block.float()
                mean, log_variance = (part.cpu() for part in self.vae.posterior(x.to(self.device)))
                found.append(mean + torch.randn(mean.shape, generator=rng) * (0.5 * log_variance).exp())
        return torch.cat(found)

    def state_dict(self) -> dict[str, Tensor]:
        prior = {f"prior.{k}": v for k, v in self.prior.state().items()}
        expected = {f"expected.{k}": v for k, v in self.expected.state().items()}
        return self.vae.state_dict() | prior | expected | {"settled_at": torch.tensor(self.settled_at)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.vae.load_state_dict(state)
        self.settled_at = int(state["settled_at"])
        if self.settled_at >= 0:
            self.prior = mixture.Mixture.from_state(under(state, "prior"))
            self.expected = novelty.Expected.from_state(under(state, "expected"))


def build(recipe: GalaxyRecipe, training: Images) -> GalaxyVAE:
    """The learner of `recipe`; training images give the principal axes it starts from."""
    if recipe.network == "dense":
        coder = article_coder(recipe.side, training.bands, recipe.latent, recipe.sigma, learn_sigma=recipe.learn_sigma)
    else:
        coder = convolutional_coder(recipe, training)
    return GalaxyVAE(recipe, coder, training)


# ------------------------------------------------------------------------------------------- what the powers are worth


def examine(learner: GalaxyVAE, split: Split[Images], seed: int) -> tuple[list[Finding], list[Check]]:
    """Held-out reconstruction beside principal components and the noise; novelty of planted anomalies beside plain distances."""
    rival = _Principal(split.train, learner.recipe.latent, seed)
    possible = [name for name in ANOMALIES if name != "wrong_band_order" or split.held_out.bands == 3]
    planted = [_novelty(learner, rival, split.held_out, name, seed) for name in possible]
    return [], [_reconstruction(learner, rival, split.held_out), *planted]


class _Principal:
    """The linear rival: principal components of the training images at full resolution."""

    def __init__(self, training: Images, d: int, seed: int) -> None:
        # Randomised iteration reads the whole matrix several times; more rows than 2 GB hold change the axes little.
        rows = spread(training, max(2 * d, int(5e8 // training.pixels[0].numel())))
        self.axes = principal_axes(rows.float().flatten(1), min(2 * d, len(rows) - 1), seed=seed)

    def errors(self, images: Images, d: int) -> Tensor:
        """Mean squared error per image with d components, (n,)."""
        basis = self.axes.directions[:, :d]
        parts = []
        for block in blocks(images):
            centred = block.float().flatten(1) - self.axes.centre
            parts.append((centred - (centred @ basis) @ basis.T).square().mean(dim=1))
        return torch.cat(parts)

    def distances(self, images: Images) -> Tensor:
        """Mean squared distance from the mean image, (n,)."""
        return torch.cat([(block.float().flatten(1) - self.axes.centre).square().mean(dim=1) for block in blocks(images)])


def _reconstruction(learner: GalaxyVAE, rival: _Principal, held_out: Images) -> Check:
    d, n = learner.recipe.latent, len(held_out)
    pairs = ((block, learner.decode(learner.encode(block))) for block in blocks(held_out))
    ours = torch.cat([(block.float() - again.float()).square().flatten(1).mean(dim=1) for block, again in pairs])
    linear = rival.errors(held_out, d)
    beside = {
        f"principal components, {d}": float(linear.mean()),
        f"principal components, {rival.axes.directions.shape[1]}": float(rival.errors(held_out, 2 * d).mean()),
        "mean image": float(rival.distances(held_out).mean()),
        "noise of the images": noise_variance(held_out),
        "gain over principal components": float((linear - ours).mean()),
        "standard error of the gain": float((linear - ours).std()) / math.sqrt(n),
    }
    error = float(ours.std()) / math.sqrt(n)
    return Check(
        "reconstruction error of held-out galaxies (mean squared, full scale 1)", float(ours.mean()), error,
        f"below that of {d} principal components", bool(ours.mean() < linear.mean()), beside,
    )  # fmt: skip


ANOMALIES: Mapping[str, tuple[Callable[[Images, int], Images], float | None]] = {
    "satellite_trail": (simulate.satellite_trail, 0.9),
    "wrong_band_order": (simulate.wrong_band_order, 0.9),
    "ring": (simulate.ring, None),
    "merger": (simulate.merger, None),
}


def _novelty(learner: GalaxyVAE, rival: _Principal, held_out: Images, name: str, seed: int) -> Check:
    """Area under the ROC curve of the score for one planted anomaly; half of held-out stays as it is, the other is changed."""
    plant, bar = ANOMALIES[name]
    usual, strange = held_out[0::2], plant(held_out[1::2], seed)
    value, error = novelty.auroc(learner.score(usual), learner.score(strange))
    d = learner.recipe.latent
    beside = {
        f"residual of {d} principal components": novelty.auroc(rival.errors(usual, d), rival.errors(strange, d))[0],
        "distance from the mean image": novelty.auroc(rival.distances(usual), rival.distances(strange))[0],
    }
    alone = novelty.each_alone(learner.surprises(usual), learner.surprises(strange))
    target = f"above {bar}" if bar else "above both baselines"
    met = value > bar if bar else value > max(beside.values())
    title = f"novelty of a planted {name.replace('_', ' ')} (area under the ROC curve)"
    return Check(title, value, error, target, met, {**beside, **alone})


def figures(learner: GalaxyVAE, split: Split[Images], seed: int) -> list[Figure]:
    """Reconstructions, the most novel held-out galaxies, and a path through the latent space."""
    shown = spread(split.held_out, 12)
    path = learner.decode(latent_path(learner.encode(shown[[0, 3, 5, 8, 11]]), 60))
    strangest = split.held_out[learner.score(split.held_out).argsort(descending=True)[:12]]
    return [
        Figure(
            "Reconstructions", "Held-out galaxies; the decoder's means at their encodings; the residuals, four times, on grey.",
            movie.png(reconstructions(learner, shown)),
        ),
        Figure("Most novel held-out galaxies", "The twelve highest novelty scores, falling.", movie.png(data.sheet(strangest, columns=6))),
        Figure(
            "A path through the latent space", "Great circles between the encodings of five held-out galaxies.",
            movie.gif(movie.enlarged(movie.as_bytes(data.picture(path)), 128)),
        ),
    ]  # fmt: skip


def reconstructions(learner: GalaxyVAE, images: Images) -> np.ndarray:
    """One page (height, width, 3): a row of originals, a row of reconstructions, a row of residuals four times enlarged about grey."""
    again = learner.decode(learner.encode(images))
    residual = as_bytes(0.5 + 4 * (images.float() - again.float()))
    rows = [images.pixels, again.pixels, residual]
    return data.sheet(Images(torch.cat(rows), images.label.repeat(3)), columns=len(images))


study = Study(
    title="Variational autoencoder of galaxy images",
    source=(
        "Kingma & Welling 2013, arXiv:1312.6114; dense network of the article on generative models for galaxies; novelty after Miranda "
        "et al. 2022, doi:10.3389/fpls.2022.729097"
    ),
    recipes={
        "quick": GalaxyRecipe(side=32, simulated=1200, latent=16, width=16, prior=4, steps=400, batch=32, draws=120),
        "laptop": GalaxyRecipe(steps=5000, batch=32),
        "paper": GalaxyRecipe(
            side=128, network="dense", latent=50, sigma=math.sqrt(0.5), learn_sigma=False, prior=0, turned=False, ema=0.0, lr=1e-3,
            steps=20_000, batch=64,
        ),
    },
    expect={
        "quick": "about 50 s of processor time on one core",
        "laptop": "37 min on one thread of a busy 2-core machine with 7,500 training images; half that on a free core (extrapolated)",
        "paper": "1 s per step on one core, so about 6 hours (extrapolated, not run to the end)",
    },
    build=build,
    examine=examine,
    figures=figures,
    **framing.UNCONDITIONAL,
)  # fmt: skip
