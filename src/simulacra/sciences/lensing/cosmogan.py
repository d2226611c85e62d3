"""Weak-lensing convergence maps from a deep convolutional GAN: cosmoGAN, and the same asked for a universe.

    generator   z of 64 normal numbers -> linear to 512 maps of side / 16 -> four transposed convolutions of kernel 5 and stride 2 to 256,
                128, 64 and 1 maps, batch normalisation and ReLU between them, tanh at the end
    critic      four convolutions of kernel 5 and stride 2 to 64, 128, 256 and 512 maps, LeakyReLU(0.2), batch normalisation but next to
                the map, then linear to a score
    game        non-saturating; in a batch in a hundred nature and drawn change places for the critic; Adam 2e-4 with beta1 0.5

(Mustafa et al. 2019, Comput. Astrophys. Cosmol. 6:1, arXiv:1706.02390, and github.com/MustafaMustafa/cosmoGAN.) At 256 px these are
12.82 and 4.44 million weights.

    paper    that, on maps of one universe scaled linearly to [-1, 1], for their 50 epochs; 8,000 maps is our number. Their maps are not
             public, ours log-normal or your own. Here the critic descends first and the generator on the same draws after it;
             there both descend at once
    laptop   64 px and 16 maps next to the map; told the universe, which the authors leave to later work: its numbers join z, and stand
             beside the map as constant images for the critic. Maps are made Gaussian pixel by pixel first (gaussian.py), since
             a linear scale that holds the peaks leaves a few hundredths to everything else
    quick    the same at 32 px

`--penalty 10` plays Wasserstein's game instead, with a critic that normalises each map for itself.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families.gan import Game, Rules, non_saturating, wasserstein
from simulacra.sciences.lensing import framing, pictures
from simulacra.sciences.lensing.data import Maps
from simulacra.sciences.lensing.framing import LensingRecipe
from simulacra.sciences.lensing.gaussian import Law
from simulacra.study import Study
from simulacra.training import device_of

HALVINGS = 4
HIGHEST = 5.0  # standard deviations of a Gaussianised map that tanh reaches


class CosmoRecipe(LensingRecipe):
    """A deep convolutional GAN of convergence maps."""

    latent: PositiveInt = Field(64, description="Normal numbers that a map is drawn from.")
    filters: PositiveInt = Field(16, description="Feature maps next to the map; doubled at each halving of the side.")
    scale: Literal["gaussian", "linear"] = Field(
        "gaussian", description="Maps made Gaussian pixel by pixel, or scaled so that the largest |kappa| of training is 1, as published."
    )
    told: bool = Field(True, description="Tell the players which universe a map shows, where training maps show several.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training maps at random: the sky has no preferred direction.")
    flipped: float = Field(0.01, ge=0, le=1, description="Probability per batch that nature and drawn change places for the critic.")
    penalty: float = Field(0.0, ge=0, le=1000, description="Above 0: Wasserstein's game with this weight of the gradient penalty.")
    lr: float = Field(2e-4, gt=0, le=0.1, description="Adam's learning rate of both players.")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's memory of gradients.")
    ema: float = Field(0.0, ge=0, lt=1, description="Memory of the running average of the generator that draws; 0: the last one draws.")


# ------------------------------------------------------------------------------------------------------------- players


class Deconvolving(nn.Module):
    """z (n, latent), and u (n, d) of the universe -> maps (n, 1, side, side) in (-1, 1). `law` travels with its weights: draws need it."""

    def __init__(self, side: int, latent: int, filters: int, law: Law, d: int = 0) -> None:
        super().__init__()
        widths = [filters << k for k in reversed(range(HALVINGS))]
        core = side >> HALVINGS
        first = nn.Linear(latent + d, widths[0] * core**2)
        layers: list[nn.Module] = [first, nn.Unflatten(1, (widths[0], core, core)), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [_doubling(before, after), nn.BatchNorm2d(after), nn.ReLU()]
        self.net = nn.Sequential(*layers, _doubling(widths[-1], 1), nn.Tanh())
        self.apply(_as_published)
        self.law = law
        self.register_buffer("unit", torch.tensor(HIGHEST))  # what 1 stands for: standard deviations of g, or kappa
        self.unit: Tensor

    def forward(self, z: Tensor, u: Tensor | None = None) -> Tensor:
        maps: Tensor = self.net(z if u is None else torch.cat([z, u], 1))
        return maps


class Convolving(nn.Module):
    """Maps (n, 1, side, side), and u (n, d) -> scores (n,). `coupled`: batch normalisation; else each map for itself."""

    def __init__(self, side: int, filters: int, d: int = 0, *, coupled: bool = True) -> None:
        super().__init__()
        widths = [filters << k for k in range(HALVINGS)]
        layers: list[nn.Module] = [nn.Conv2d(1 + d, widths[0], 5, 2, 2), nn.LeakyReLU(0.2)]
        for before, after in itertools.pairwise(widths):
            norm = nn.BatchNorm2d(after) if coupled else nn.GroupNorm(1, after)
            layers += [nn.Conv2d(before, after, 5, 2, 2), norm, nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (side >> HALVINGS) ** 2, 1))
        self.apply(_as_published)

    def forward(self, maps: Tensor, u: Tensor | None = None) -> Tensor:
        if u is not None:
            maps = torch.cat([maps, u[:, :, None, None].expand(-1, -1, *maps.shape[2:])], 1)
        score: Tensor = self.net(maps)[:, 0]
        return score


def _doubling(before: int, after: int) -> nn.Module:
    return nn.ConvTranspose2d(before, after, 5, 2, 2, output_padding=1)


def _as_published(layer: nn.Module) -> None:
    """Weights from N(0, 0.02), those of the critic's convolutions cut at two standard deviations; no biases."""
    if isinstance(layer, nn.Conv2d):
        nn.init.trunc_normal_(layer.weight, 0.0, 0.02, -0.04, 0.04)
    elif isinstance(layer, nn.Linear | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    if isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def rules_of(recipe: CosmoRecipe) -> Rules:
    """The published game, its critic now and then told the opposite; or Wasserstein's."""
    if recipe.penalty:
        return wasserstein(penalty=recipe.penalty)
    game = non_saturating()

    def critic(real: Tensor, drawn: Tensor) -> Tensor:
        flip = torch.rand(()) < recipe.flipped
        return game.critic(drawn, real) if flip else game.critic(real, drawn)

    return dataclasses.replace(game, critic=critic)


# ------------------------------------------------------------------------------------------------------------- learner


class MapGame(Game[Maps]):
    """A game of maps that is asked for universes, and goes from one to another."""

    @property
    def law(self) -> Law:
        """Of pixels and modes, by universe."""
        generator = self.generator.average
        assert isinstance(generator, Deconvolving)
        return generator.law

    def ask(self, n: int, conditions: Mapping[str, str]) -> Maps:
        """A template of n maps in the asked universes."""
        return self.law.asked(n, conditions)

    def imagine(self, position: Tensor, like: Maps, towards: Maps | None = None, share: Tensor | None = None) -> Maps:
        """Both the map and the law of its pixels are those of the universe on the way."""
        return super().imagine(position, like if towards is None or share is None else self.law.between(like, towards, share))


def build(recipe: CosmoRecipe, training: Maps) -> MapGame:
    """The game of `recipe`; training maps set the scale and, where they show several, the range of the universes."""
    game = unplayed(recipe, Law.fitted(training))
    if recipe.scale == "linear":
        for generator in (game.generator.module, game.generator.average):
            assert isinstance(generator, Deconvolving)
            generator.unit.fill_(float(training.kappa.abs().max()))
    return game


def restore(recipe: CosmoRecipe, state: Mapping[str, Tensor]) -> MapGame:
    """The game in a saved state, or what of it was shipped, to draw from."""
    shipped = under(state, "average") or under(state, "generator.weights")
    game = unplayed(recipe, Law.blank(recipe.side, under(shipped, "law")))
    (game.load_state_dict if any(name.startswith("critic.") for name in state) else game.load_shipped)(state)
    return game


def unplayed(recipe: CosmoRecipe, law: Law) -> MapGame:
    """The game before its first move."""
    device = device_of(recipe.device)
    d = law.numbers if recipe.told else 0
    generator = Deconvolving(recipe.side, recipe.latent, recipe.filters, law, d).to(device)
    critic = Convolving(recipe.side, recipe.filters, d, coupled=not recipe.penalty).to(device)
    betas = (recipe.beta1, 0.999)
    playing = Descent(generator, lr=recipe.lr, betas=betas, ema=recipe.ema)

    def drawing() -> Deconvolving:
        found = playing.average
        assert isinstance(found, Deconvolving)
        return found

    def rows(maps: Maps) -> tuple[Tensor, Tensor | None]:
        known = drawing()
        g = known.law.gaussian(maps) if recipe.scale == "gaussian" else maps.kappa[:, None]
        g = framing.turned(g / known.unit) if recipe.turned else g / known.unit
        return g.clamp(-1, 1), known.law.told(maps) if d else None

    def maps(drawn: Tensor, like: Maps) -> Maps:
        known = drawing()
        if recipe.scale == "gaussian":
            return known.law.maps(drawn * known.unit, like)
        universe = known.law.cosmology.completed(like.universe)
        return Maps(torch.where(like.kappa.isnan(), like.kappa, drawn[:, 0] * known.unit), like.degrees, universe)

    return MapGame(
        playing, Descent(critic, lr=recipe.lr, betas=betas), rules=rules_of(recipe), latent=recipe.latent, rows_of=rows, samples_from=maps
    )


laptop = CosmoRecipe(steps=2000, batch=32, draws=1200, threads=1)

study = Study(
    title="Weak-lensing convergence maps by cosmoGAN, of an asked universe",
    source="Mustafa et al. 2017, arXiv:1706.02390",
    recipes={
        "quick": laptop.model_copy(
            update={"side": 32, "each": 100, "judged_each": 40, "filters": 8, "steps": 400, "draws": 120, "lr": 1e-3}
        ),
        "laptop": laptop,
        "paper": laptop.model_copy(
            update={"side": 256, "filters": 64, "scale": "linear", "told": False, "turned": False, "batch": 64, "steps": 6250, "threads": 0}
            | {"omega_m": (0.3,), "sigma_8": (0.8,), "each": 8000, "judged_omega_m": (0.3,), "judged_sigma_8": (0.8,), "judged_each": 200}
        ),
    },
    expect={
        "quick": "about 1 min of processor time on one core, data and verdict included",
        "laptop": "14 min of training on one thread of a busy 2-core machine, and 1 min for the verdict",
        "paper": "not run: 6,250 batches of 64 maps of 256 px, 16 million weights, want a GPU",
    },
    build=build,
    restore=restore,
    examine=pictures.examine,
    figures=pictures.figures,
    citation="""@article{mustafa2019cosmogan,
  title = {{CosmoGAN}: creating high-fidelity weak lensing convergence maps using Generative Adversarial Networks},
  author = {Mustafa, Mustafa and Bard, Deborah and Bhimji, Wahid and Luki{\\'c}, Zarija and Al-Rfou, Rami and Kratochvil, Jan M.},
  journal = {Computational Astrophysics and Cosmology},
  volume = {6},
  number = {1},
  year = {2019},
  eprint = {1706.02390},
}""",
    **framing.SYSTEM,
)  # fmt: skip
