"""What the adversarial galaxy systems share: recipe, players, draws, what their powers are worth and their pictures.

The systems differ by the rules of their game alone (`gan`, `acgan`, `wgan_gp`, `wgan_div`); each hands its `Rules` to `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra import movie
from simulacra.descent import Descent
from simulacra.evidence import Check, Figure, Finding
from simulacra.families.autoencoder import latent_path, principal_axes
from simulacra.families.gan import Game, Rules, augmented, between_classes
from simulacra.sciences.galaxies import data, pictures, statistics
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import ClassRecipe, ImageRecipe, as_bytes, spread, turned
from simulacra.sciences.galaxies.players import Convolving, Deconvolving, Seeing, Styled, stretched, unstretched
from simulacra.study import Noise, Refused, Split
from simulacra.training import device_of

EXAMINED = 500  # images drawn for the shares of the classes and the count of distinct ones, at least
STARTED = 1500  # training images that the principal components are taken from
ALIKE = 0.01  # share of nature's images that have another one as near as "the same image" means
STOPS, FRAMES = 5, 60  # of the latent path in the report


class AdversarialRecipe(ImageRecipe):
    """A game between a network that draws galaxies and a critic."""

    network: Literal["styled", "dcgan"] = Field(
        "styled", description="styled: ours, with noise maps and a critic that sees spectra; dcgan: the published convolutional pair."
    )
    latent: int = Field(64, ge=1, le=2048, description="Numbers that say which galaxy; styled adds one per pixel and band, the noise.")
    width: PositiveInt = Field(16, description="Generator's feature maps at half the side; doubled when halved.")
    critic_width: PositiveInt = Field(16, description="Critic's feature maps at half the side; doubled when halved.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Adam's learning rate of the generator.")
    critic_lr: float = Field(2e-3, gt=0, le=0.1, description="Adam's learning rate of the critic.")
    decay: bool = Field(True, description="The generator's learning rate falls to 0 on a half cosine over the steps; the critic's stays.")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's memory of gradients; games oscillate with much of it.")
    beta2: float = Field(0.9, gt=0, lt=1, description="Adam's memory of squared gradients.")
    penalty: float = Field(0.0, ge=0, le=1000, description="Weight of the penalty on the critic's slope; which penalty, the game says.")
    penalised: PositiveInt = Field(4, description="Images per move of the critic from which the penalty is estimated.")
    critic_steps: PositiveInt = Field(1, description="Moves of the critic per move of the generator, each on its share of the batch.")
    ema: float = Field(0.995, ge=0, lt=1, description="Memory of the running average of the generator that draws; 0: the last one draws.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training images at random: the sky has no preferred direction.")
    augment: bool = Field(False, description="Show the critic images changed in colour, moved and cut (Zhao et al. 2006.10738).")


class ClassGameRecipe(AdversarialRecipe, ClassRecipe):
    """The same for games whose generator is told a class."""


# -------------------------------------------------------------------------------------------------------------- the game


def build(recipe: AdversarialRecipe, training: Images, rules: Rules, classes: int = 0) -> Game[Images]:
    """The game of `recipe` under `rules`; the styled network starts from what training images have in common."""
    game = unplayed(recipe, training.bands, rules, classes)
    if isinstance(game.critic.module, Seeing):
        _start(recipe, training, game)
    return game


def _start(recipe: AdversarialRecipe, training: Images, game: Game[Images]) -> None:
    """Give the players the principal components of training images in all orientations, and the spread of their spectra."""
    generator, critic, device = game.generator.module, game.critic.module, device_of(recipe.device)
    assert isinstance(generator, Styled)
    assert isinstance(critic, Seeing)
    few = spread(training, STARTED)
    x = stretched(few.float().to(device))
    critic.spectrum.fit(x)
    small = nn.functional.adaptive_avg_pool2d(x, generator.smooth)
    flat = torch.cat([turned(small, torch.full((len(few),), way)).flatten(1) for way in range(8)])
    if recipe.latent > min(flat.shape):
        raise Refused(f"latent = {recipe.latent} needs that many pixels and orientations of images; here are {min(flat.shape)}; lower it")
    generator.fit(flat, few.label.repeat(8).to(device), principal_axes(flat, recipe.latent, seed=recipe.seed))
    game.generator.average.load_state_dict(generator.state_dict())


def restore(recipe: AdversarialRecipe, state: Mapping[str, Tensor], rules: Rules, classes: int = 0) -> Game[Images]:
    """The game in a saved state, or what of it was shipped, to draw from."""
    game = unplayed(recipe, recipe.bands, rules, classes)
    (game.load_state_dict if any(name.startswith("critic.") for name in state) else game.load_shipped)(state)
    return game


def unplayed(recipe: AdversarialRecipe, bands: int, rules: Rules, classes: int = 0) -> Game[Images]:
    """The game before its first move. `classes`: how many the generator is told of; 0: none."""
    generator: Styled | Deconvolving
    critic: nn.Module
    if recipe.network == "dcgan":
        generator = Deconvolving(recipe.side, bands, recipe.latent, recipe.width, classes)
        coupled = rules.penalty is None or not rules.weight
        critic = Convolving(recipe.side, bands, recipe.critic_width, classes, coupled=coupled)
    else:
        generator = Styled(recipe.side, bands, recipe.latent, recipe.width, classes)
        critic = Seeing(recipe.side, bands, recipe.critic_width, classes)
    device, betas = device_of(recipe.device), (recipe.beta1, recipe.beta2)
    warmup = min(100, recipe.steps // 10) if recipe.network == "styled" else 0
    return Game(
        Descent(
            generator.to(device), lr=recipe.lr, betas=betas, ema=recipe.ema, warmup=warmup, horizon=recipe.steps if recipe.decay else None
        ),
        Descent(critic.to(device), lr=recipe.critic_lr, betas=betas, warmup=warmup),
        rules=rules, latent=generator.latent, rows_of=_rows(recipe, classes), samples_from=_images(recipe, classes),
        critic_steps=recipe.critic_steps, penalised=recipe.penalised, augment=augmented if recipe.augment else None,
        blend=between_classes(max(classes, 1)),
    )  # fmt: skip


def _rows(recipe: AdversarialRecipe, classes: int) -> Callable[[Images], tuple[Tensor, Tensor | None]]:
    """Images as the players see them, turned at random, and their classes where the game is told of them."""

    def rows(images: Images) -> tuple[Tensor, Tensor | None]:
        x = images.float()
        x = stretched(x) if recipe.network == "styled" else 2 * x - 1
        if recipe.turned:
            x = turned(x, torch.randint(8, (len(x),)))
        return x, images.label if classes else None

    return rows


def _images(recipe: AdversarialRecipe, classes: int) -> Callable[[Tensor, Images], Images]:
    def images(drawn: Tensor, like: Images) -> Images:
        brightness = unstretched(drawn) if recipe.network == "styled" else (drawn + 1) / 2
        label = like.label.cpu() if classes else torch.full((len(drawn),), -1, dtype=torch.int64)
        return Images(as_bytes(brightness), label)

    return images


# ---------------------------------------------------------------------------------------------- what its draws are worth


def examine(learner: Game[Images], split: Split[Images], seed: int) -> tuple[list[Finding], list[Check]]:
    """Whether the classes come in proportion, and how many of the draws are different images: a collapsed game repeats itself."""
    nature = split.held_out
    drawn = _drawn(learner, nature, max(EXAMINED, len(nature)), seed)
    checks = [distinct_check(nature, drawn)]
    if nature.bands == 3:
        checks.insert(0, shares_check(nature, drawn))
    return [], checks


def _drawn(learner: Game[Images], like: Images, n: int, seed: int) -> Images:
    """`n` draws under the conditions of `like`, as often repeated as it takes; other ones than those that were judged."""
    rows = torch.arange(n) % len(like)
    parts = [
        learner.draw(like[block].to(_device(learner)), Noise(seed + 1, block_rows))
        for block, block_rows in ((rows[i : i + 64], range(i, min(i + 64, n))) for i in range(0, n, 64))
    ]
    return Images.join(parts)


def shares_check(nature: Images, drawn: Images) -> Check:
    """Chi-square test that drawn and held-out galaxies fall into the pixel classes, and into none, in the same proportions."""
    counts = statistics.class_counts(nature, drawn)
    _, p = statistics.homogeneity(counts)
    share = counts / counts.sum(axis=1, keepdims=True)
    names = ("no galaxy", *statistics.CLASSES)
    beside = {f"{name}, {side}": float(share[i, k]) for k, name in enumerate(names) for i, side in enumerate(("held out", "drawn"))}
    return Check("class shares recovered (chi-square p)", p, float("nan"), "above 0.01", p > 0.01, beside)


def distinct_check(nature: Images, drawn: Images) -> Check:
    """How many of EXAMINED draws are different images, beside as many of nature (or as many as there are)."""
    n = min(EXAMINED, len(nature), len(drawn))
    real, ours = (statistics.thumbnails(spread(images, n)) for images in (nature, drawn))
    radius = float(np.quantile(_nearest(real), ALIKE))
    expected, found = distinct(real, radius), distinct(ours, radius)
    return Check(
        f"different images among {n} draws", found, float("nan"), "at least 95 % of those in nature", found >= 0.95 * expected,
        {"held-out galaxies": expected, "images count as one within (rms counts at 16 px)": radius},
    )  # fmt: skip


def distinct(flat: NDArray[np.float64], radius: float) -> int:
    """How many of the thumbnails (n, pixels) have no earlier one within `radius` in root-mean-square counts that was itself kept."""
    apart = _distances(flat) > radius
    kept: list[int] = []
    for i in range(len(flat)):
        if apart[i, kept].all():
            kept.append(i)
    return len(kept)


def _distances(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = (flat**2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(norm[:, None] + norm - 2 * flat @ flat.T, 0) / flat.shape[1]))


def _nearest(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = _distances(flat)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart.min(axis=1))


# ------------------------------------------------------------------------------------------------------------- pictures


def figures(learner: Game[Images], split: Split[Images], seed: int) -> list[Figure]:
    """Draws, the training images nearest to some of them, a path through the latent space and, between classes, a morph."""
    sheet = _drawn(learner, split.held_out, 48, seed)
    shown = [
        Figure("Draws", "48 draws as they came, none chosen.", movie.png(data.sheet(sheet, columns=12))),
        Figure(
            "Nearest training images",
            "Above, draws; below each, the training image nearest to it in any turn or flip, by the luminance at 16 x 16 px.",
            movie.png(beside_nearest(sheet[:12], split.train)),
        ),
        Figure(
            "A path through the latent space", f"Great circles between {STOPS} positions; the noise of the sky stays.",
            pictures.gif(path(learner, split.held_out, seed)),
        ),
    ]  # fmt: skip
    labels = split.held_out.label
    if learner.rows_of(split.held_out[:1])[1] is not None:
        count = int(labels.max()) + 1
        shown.append(pictures.class_to_class(learner, split.held_out, count, seed, _device(learner)))
    return shown


def beside_nearest(drawn: Images, training: Images) -> NDArray[np.uint8]:
    """One page: a row of draws, a row of the training images nearest to them."""
    small, reference = statistics.thumbnails(drawn), statistics.thumbnails(training)
    side = round(reference.shape[1] ** 0.5)
    best = np.full(len(small), np.inf)
    which = np.zeros(len(small), dtype=np.int64)
    for way in range(8):
        around = torch.from_numpy(small).view(-1, 1, side, side)
        flat = turned(around, torch.full((len(small),), way)).flatten(1).numpy()
        apart = (reference**2).sum(axis=1) - 2 * flat @ reference.T + (flat**2).sum(axis=1)[:, None]
        nearer = apart.min(axis=1) < best
        best, which = np.minimum(best, apart.min(axis=1)), np.where(nearer, apart.argmin(axis=1), which)
    rows = Images(torch.cat([drawn.pixels, training.pixels[torch.from_numpy(which)]]), torch.full((2 * len(drawn),), -1))
    return data.sheet(rows, columns=len(drawn))


def path(learner: Game[Images], like: Images, seed: int) -> list[Images]:
    """One image at each moment of a closed way through STOPS positions; what says which galaxy travels, the noise stays."""
    position = Noise(seed, range(STOPS)).normal(learner.latent)
    travels = getattr(learner.generator.average, "style", learner.latent)
    style = latent_path(position[:, :travels], FRAMES)
    found = _imagined(learner, torch.cat([style, position[:1, travels:].expand(FRAMES, -1)], 1), like[[0] * FRAMES])
    return [found[i : i + 1] for i in range(FRAMES)]


def _imagined(learner: Game[Images], position: Tensor, like: Images) -> Images:
    like = like.to(_device(learner))
    return Images.join([learner.imagine(position[i : i + 64], like[i : i + 64]) for i in range(0, len(position), 64)])


def _device(learner: Game[Images]) -> torch.device:
    return next(learner.generator.average.parameters()).device
