"""Weak-lensing maps of an asked universe by diffusion: a network corrects the Wiener filter of Gaussianised maps.

    kappa -> g        each pixel's law made normal (gaussian.py); diffusion runs on g
    x_hat             Wiener's estimate of g under noise, from the power of its modes in the asked universe, plus a correction by a
                      periodic U-Net that begins at zero (families/denoising.py)
    draw              noise to map by DPM-Solver++(2M) in tens of steps, no randomness on the way

Before training this is the copula: a Gaussian field with the right spectrum and the right law of pixels. All that the network adds
is what a Gaussian field has not: filaments, and halos where matter already is. Where nature is log-normal there is nothing to add.

    laptop    64 px, universes of a grid in Omega_m and sigma_8;  quick  the same at 32 px
    paper     256 px, the size of Mustafa et al.; no paper is followed (they compare none): for diffusion on such maps see
              Ho et al. 2020, arXiv:2006.11239, and the recipe of galaxies.ddpm
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families import diffusion
from simulacra.families.denoising import Denoising, Spectral
from simulacra.nets.unet import UNet
from simulacra.sciences.lensing import framing, pictures
from simulacra.sciences.lensing.data import Maps
from simulacra.sciences.lensing.framing import LensingRecipe
from simulacra.sciences.lensing.gaussian import Law
from simulacra.study import Study
from simulacra.training import device_of

LEVELS = 1000  # of noise


class DiffusionRecipe(LensingRecipe):
    """A diffusion model of convergence maps."""

    widths: tuple[PositiveInt, ...] = Field((24, 48, 96), description="Channels of the U-Net at each side, from the patches down.")
    patch: PositiveInt = Field(2, le=4, description="Side in pixels of the patches that are the first side's places.")
    embed: PositiveInt = Field(64, description="Numbers in which the network is told the level of noise and the universe; even.")
    least: float = Field(0.01, gt=0, description="Least noise over signal.")
    largest: float = Field(10.0, gt=1, description="Largest noise over signal; there maps begin as Gaussian fields of the asked universe.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training maps at random: the sky has no preferred direction.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    ema: float = Field(0.998, ge=0, lt=1, description="Memory of the running average of the weights that draws; 0: the last weights.")
    walk: PositiveInt = Field(25, description="Steps of a draw.", json_schema_extra={"drawing": True})


class MapDiffusion(Denoising[Maps]):
    """Diffusion of Gaussianised maps that is asked for universes, and goes from one to another."""

    @property
    def law(self) -> Law:
        """Of pixels and modes, by universe."""
        assert isinstance(self.head, Spectral)
        assert isinstance(self.head.power_of, Law)
        return self.head.power_of

    def ask(self, n: int, conditions: Mapping[str, str]) -> Maps:
        """A template of n maps in the asked universes."""
        return self.law.asked(n, conditions)

    def imagine(self, position: Tensor, like: Maps, towards: Maps | None = None, share: Tensor | None = None) -> Maps:
        """Both the field and the law of its pixels are those of the universe on the way."""
        return super().imagine(position, like if towards is None or share is None else self.law.between(like, towards, share))


def build(recipe: DiffusionRecipe, training: Maps) -> MapDiffusion:
    """The learner of `recipe`; training maps give the law of pixels and the power of modes that it starts from."""
    return learner(recipe, Law.fitted(training))


def restore(recipe: DiffusionRecipe, state: Mapping[str, Tensor]) -> MapDiffusion:
    """The learner in a saved state, or what of it was shipped, to draw from."""
    found = learner(recipe, Law.blank(recipe.side, under(state, "head.power_of")))
    found.load_shipped(state)
    return found


def learner(recipe: DiffusionRecipe, law: Law) -> MapDiffusion:
    """The learner of `recipe` with that law, before it has learned."""
    device = device_of(recipe.device)
    law = law.to(device)
    d = law.numbers
    told = nn.Sequential(nn.Linear(d, recipe.embed), nn.SiLU(), nn.Linear(recipe.embed, recipe.embed)) if d else None
    head = Spectral(law(None if d == 0 else _middle(law))[0].detach(), power_of=law)
    network = UNet(
        1, recipe.widths, inputs=head.shown, patch=recipe.patch, embed=recipe.embed, condition=told, padding="circular"
    )
    descent = Descent(
        network.to(device), lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema, warmup=min(100, recipe.steps // 10),
        horizon=recipe.steps,
    )  # fmt: skip
    schedule, levels = diffusion.even(LEVELS, recipe.walk, least=recipe.least, largest=recipe.largest)
    return MapDiffusion(
        descent, schedule, head=head, shape=(1, recipe.side, recipe.side), rows_of=lambda maps: (law.gaussian(maps), law.told(maps)),
        samples_from=law.maps, levels=levels,
        augment=framing.turned if recipe.turned else None,
    )  # fmt: skip


def _middle(law: Law) -> Tensor:
    """The middle of the trained range."""
    return law.cosmology.low.new_zeros(1, law.numbers).float()


laptop = DiffusionRecipe(
    steps=1600, batch=32, draws=1200, threads=1, omega_m=(0.2, 0.24, 0.28, 0.32, 0.36, 0.4), sigma_8=(0.6, 0.68, 0.76, 0.84, 0.92, 1.0),
    each=200, walk=60,
)  # fmt: skip

study = Study(
    title="Weak-lensing maps of an asked universe by diffusion",
    source="Ho, Jain, Abbeel 2020, arXiv:2006.11239, on the maps of Mustafa et al. 2017, arXiv:1706.02390",
    recipes={
        "quick": laptop.model_copy(
            update={"side": 32, "omega_m": (0.2, 0.3, 0.4), "sigma_8": (0.6, 0.8, 1.0), "each": 100, "judged_each": 40,
                    "widths": (16, 32), "steps": 250, "draws": 120, "walk": 16, "ema": 0.98}
        ),
        "laptop": laptop,
        "paper": laptop.model_copy(
            update={"side": 256, "widths": (32, 64, 128, 256), "steps": 200_000, "ema": 0.9999, "walk": 50, "threads": 0}
        ),
    },
    expect={
        "quick": "about 1 min of processor time on one core, data and verdict included",
        "laptop": "7 min of training on one thread of a 2-core machine, and 8 to 15 min for 2,400 draws and the verdict",
        "paper": "not run: 200,000 steps at 256 px want a GPU",
    },
    build=build,
    restore=restore,
    examine=pictures.examine,
    figures=pictures.figures,
    citation="""@inproceedings{ho2020denoising,
  title = {Denoising Diffusion Probabilistic Models},
  author = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020},
  eprint = {2006.11239},
}""",
    **framing.SYSTEM,
)  # fmt: skip
