"""Two-phase microstructures in three dimensions: diffusion of the distance from the surface, or a Wasserstein game of volumes.

    diffusion   the signed distance from the surface (field.py) of a cube, under noise, told by a small 3-D U-Net that corrects the best
                linear estimate from their covariance (families/denoising.py); drawn by DPM-Solver++(2M), blurred and cut. The level of the
                cut and the blur are set once, at the end of training, so that draws have the solid fraction of training and no more
                surface
    game        Henkes & Wessels 2022 (players.py): Wasserstein's game with gradient penalty 10, one move of the critic for each of the
                generator, Nadam 1e-4 and 5e-5 with norms of gradients held to 1, the mapping network at a hundredth of the pace

    laptop      diffusion of cubes of 32 voxels of Boolean spheres, or of your own volume
    quick       the same at 16 voxels
    paper       the game on Henkes and Wessels' set: 1,000 cubes, batches of 8, 20,000 steps. There both players descend at once on the
                same draws; here the critic descends first, and the generator, on the same draws, answers the critic that
                has moved; and there the mapping network's gradients are held to norm 1 apart from those of the rest

The network of diffusion is convolutional, and the linear estimate knows a density of modes, so that it draws volumes of other sides than
it was trained on: `simulacra draw RUN --side 64`. They are drawn whole and have no seams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra.descent import Descent
from simulacra.families import diffusion
from simulacra.families.denoising import Denoising
from simulacra.families.gan import Game, wasserstein
from simulacra.nets.unet import UNet
from simulacra.sciences.microstructure import framing, pictures, statistics
from simulacra.sciences.microstructure.data import Volumes
from simulacra.sciences.microstructure.field import Phases
from simulacra.sciences.microstructure.framing import MicrostructureRecipe
from simulacra.sciences.microstructure.players import Growing, Scoring
from simulacra.study import Learner, Noise, Refused, Study
from simulacra.training import device_of

LEVELS = 1000  # of noise
AT_ONCE = 8 * 32**3  # voxels that are drawn together: more leave the cache
CALIBRATION = 0xCA1  # seed of the draws that set the level of the cut


class Recipe3d(MicrostructureRecipe):
    """A generator of two-phase volumes."""

    family: Literal["diffusion", "game"] = Field("diffusion", description="How it learns: diffusion, or the published game.")
    turned: bool = Field(True, description="Turn and mirror training cubes at random; switch off where nature has a preferred direction.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Learning rate; that of diffusion falls to 0 on a half cosine.")
    ema: float = Field(0.99, ge=0, lt=1, description="Memory of the running average of the weights that draws; 0: the last weights.")
    # diffusion
    reach: PositiveInt = Field(4, le=16, description="Voxels from the surface up to which the distance is told.")
    widths: tuple[PositiveInt, ...] = Field((24, 48, 96), description="Channels of the U-Net at each side, from the patches down.")
    patch: PositiveInt = Field(2, le=4, description="Side in voxels of the patches that are the first side's places.")
    embed: PositiveInt = Field(64, description="Numbers in which the network is told the level of noise; even.")
    least: float = Field(0.03, gt=0, description="Least noise, in standard deviations of the distance.")
    largest: float = Field(15.0, gt=1, description="Largest noise; there volumes begin as Gaussian fields.")
    walk: PositiveInt = Field(16, description="Steps of a draw.", json_schema_extra={"drawing": True})
    calibrated: int = Field(256, ge=2, multiple_of=2, description="Draws that set the cut, once, after the last step.")
    smoothed: bool = Field(True, description="Blur drawn fields so far that they have no more surface than training.")
    # the game
    latent: PositiveInt = Field(128, description="Normal numbers that the game's volumes are drawn from.")
    filters: PositiveInt = Field(32, description="Feature maps of the generator next to the volume; doubled at each halving of the side.")
    critic_filters: PositiveInt = Field(16, description="Feature maps of the critic next to the volume; doubled likewise.")
    penalty: float = Field(10.0, ge=0, le=1000, description="Weight of the critic's gradient penalty.")
    critic_lr: float = Field(1e-4, gt=0, le=0.1, description="Learning rate of the critic.")
    pace: float = Field(0.01, gt=0, le=1, description="Learning rate of the mapping network, in those of the generator.")


# ------------------------------------------------------------------------------------------------------------ diffusion


class Diffusing(Denoising[Volumes]):
    """Diffusion of the distance from the surface. `steps` is how many it will learn, `fraction` the mean solid fraction of training and
    `surface` its mean area per volume (None: leave the surface as it comes); `multiple` what the sides of a drawn field are divisible
    by."""

    head: Phases

    def __init__(
        self, *args: object, steps: int, fraction: float, surface: float | None, calibrated: int, multiple: int, **more: object
    ) -> None:  # fmt: skip
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.steps, self.fraction, self.surface = steps, fraction, surface
        self.calibrated, self.multiple = calibrated, multiple

    def step(self, batch: Volumes) -> Mapping[str, Tensor]:
        """As in the family; the last step sets the cut."""
        watched = super().step(batch)
        if self.descent.count == self.steps:
            self.calibrate()
        return watched

    def calibrate(self) -> None:
        """Cut so that draws are as solid as training and no rougher. They come in pairs from noise and its negative: where one has much
        solid, the other has little, so that the mean of few is sharp."""
        half = torch.randn(self.calibrated // 2, *self.shape, generator=torch.Generator().manual_seed(CALIBRATION))
        self.head.calibrate(self.walked(torch.cat([half, -half])), self.fraction, self.surface)

    def at_once(self, like: Volumes) -> int:
        """Volumes of those sides that are drawn together."""
        return max(1, AT_ONCE // math.prod(like.sides))

    def draw(self, like: Volumes, noise: Noise) -> Volumes:
        """One volume per row of `like`, of its sides."""
        sides = [-(-side // self.multiple) * self.multiple for side in like.sides]
        fields = self.walked(noise.normal(1, *sides).to(like.solid.device))
        depth, height, width = like.sides
        return self.samples_from(fields[:, :, :depth, :height, :width], like)

    def trace(self, like: Volumes, noise: Noise, frames: int) -> list[Volumes]:
        """As in the family, of volumes of the side of training."""
        return super().trace(self._of_training(like), noise, frames)

    def imagine(self, position: Tensor, like: Volumes, towards: Volumes | None = None, share: Tensor | None = None) -> Volumes:
        """As in the family, of volumes of the side of training."""
        return super().imagine(position, self._of_training(like), towards, share)

    def _of_training(self, like: Volumes) -> Volumes:
        if like.sides != self.shape[1:]:
            sides = " x ".join(map(str, like.sides))
            raise Refused(f"movies and truncated draws are of {self.shape[-1]} voxels, as in training, not of {sides}; leave --side out")
        return like

    def walked(self, noise: Tensor) -> Tensor:
        """Standard normal noise (n, 1, ...) as drawn fields, a few at once."""
        count = max(1, AT_ONCE // math.prod(noise.shape[2:]))
        found = []
        for part in torch.split(noise, count):
            for state in self._walk(part, None, None):
                field = state
            found.append(field)
        return torch.cat(found)


def diffusing(recipe: Recipe3d, phases: Phases, fraction: float, surface: float | None) -> Diffusing:
    """The learner of `recipe`, before it has learned."""
    device = device_of(recipe.device)
    phases = phases.to(device)
    network = UNet(1, recipe.widths, inputs=phases.shown, patch=recipe.patch, embed=recipe.embed, dims=3)
    descent = Descent(
        network.to(device), lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema, warmup=min(100, recipe.steps // 10),
        horizon=recipe.steps,
    )  # fmt: skip
    schedule, levels = diffusion.even(LEVELS, recipe.walk, least=recipe.least, largest=recipe.largest)
    return Diffusing(
        descent, schedule, head=phases, shape=(1, recipe.side, recipe.side, recipe.side),
        rows_of=lambda volumes: (phases.fields(volumes.solid), None),
        samples_from=lambda fields, like: Volumes(phases.solid(fields), like.voxel),
        levels=levels, augment=turned if recipe.turned else None,
        steps=recipe.steps, fraction=fraction, surface=surface, calibrated=recipe.calibrated,
        multiple=recipe.patch << (len(recipe.widths) - 1),
    )  # fmt: skip


def turned(fields: Tensor) -> Tensor:
    """Cubes (n, 1, side, side, side), each mirrored along some axes at random, all with their axes in one random order."""
    way = torch.randint(8, (len(fields), 1, 1, 1, 1)).to(fields.device)
    for axis in range(3):
        fields = torch.where((way >> axis & 1).bool(), fields.flip(2 + axis), fields)
    return fields.permute(0, 1, *(2 + torch.randperm(3)).tolist())


# ------------------------------------------------------------------------------------------------------------- the game


def playing(recipe: Recipe3d, fraction: float) -> Game[Volumes]:
    """The published game before its first move; volumes of mean solid `fraction` are standardised."""
    device = device_of(recipe.device)
    generator = Growing(recipe.side, recipe.latent, recipe.filters, recipe.pace).to(device)
    critic = Scoring(recipe.side, recipe.critic_filters).to(device)
    spread = math.sqrt(fraction * (1 - fraction))
    generator.low.fill_(-fraction / spread)
    generator.high.fill_((1 - fraction) / spread)
    game = Descent(generator, lr=recipe.lr, clip=1.0, ema=recipe.ema, nesterov=True)

    def scale() -> Growing:
        found = game.average
        assert isinstance(found, Growing)
        return found

    def rows(volumes: Volumes) -> tuple[Tensor, None]:
        low, high = scale().low, scale().high
        found = torch.where(volumes.solid[:, None] > 0, high, low)
        return turned(found) if recipe.turned else found, None

    def samples(drawn: Tensor, like: Volumes) -> Volumes:
        if drawn.shape[2:] != like.solid.shape[1:]:
            raise Refused(f"volumes of {like.sides} voxels were asked for; the game draws cubes of {drawn.shape[-1]} and no others")
        return Volumes((drawn[:, 0] > 0).to(torch.uint8), like.voxel)  # the authors count what is above the standardised mean

    return Game(
        game, Descent(critic, lr=recipe.critic_lr, clip=1.0, nesterov=True), rules=wasserstein(penalty=recipe.penalty),
        latent=recipe.latent, rows_of=rows, samples_from=samples,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- study


def build(recipe: Recipe3d, training: Volumes) -> Learner[Volumes]:
    """The learner of `recipe`; training volumes give the scale, and the power of modes that diffusion starts from."""
    fraction = float(training.solid.float().mean())
    if recipe.family == "game":
        return playing(recipe, fraction)
    surface = float(statistics.surface(training).mean()) if recipe.smoothed else None
    return diffusing(recipe, Phases.measured(training.solid, recipe.reach, alike=recipe.turned), fraction, surface)


def restore(recipe: Recipe3d, state: Mapping[str, Tensor]) -> Learner[Volumes]:
    """The learner in a saved state, or what of it was shipped, to draw from."""
    if recipe.family == "game":
        game = playing(recipe, 0.5)
        (game.load_state_dict if any(name.startswith("critic.") for name in state) else game.load_shipped)(state)
        return game
    found = diffusing(recipe, Phases.blank(recipe.side, recipe.reach), 0.5, None)
    found.load_shipped(state)
    return found


laptop = Recipe3d(steps=2400, batch=8, lr=2e-3, ema=0.995, draws=400, threads=1)

study = Study(
    title="Two-phase microstructures in three dimensions",
    source="Henkes, Wessels 2022, CMAME 400:115497, arXiv:2206.01693",
    recipes={
        "quick": laptop.model_copy(
            update={"side": 16, "radius": 4.0, "simulated": 600, "judged": 300, "widths": (16, 32), "steps": 150, "draws": 120, "walk": 10}
            | {"calibrated": 64, "lr": 2e-3, "ema": 0.98}
        ),
        "laptop": laptop,
        "paper": laptop.model_copy(
            update={"family": "game", "kind": "henkes", "radius": 4.0, "simulated": 1000, "steps": 20_000, "lr": 5e-5, "ema": 0.0}
            | {"turned": False}
        ),
    },
    expect={
        "quick": "under 1 min of processor time on one core, data and verdict included",
        "laptop": "40 min of training on one thread of a busy 2-core machine, and 6 min there for 413 draws and the verdict",
        "paper": "2 s per step on one idle core, 12 hours in all, so a GPU's work; tried at 16 voxels, 0.5 s per step there; 6 ms per draw",
    },
    build=build,
    restore=restore,
    film=pictures.film,
    examine=pictures.examine,
    figures=pictures.figures,
    citation="""@article{henkes2022three,
  title = {Three-dimensional microstructure generation using generative adversarial neural networks in the context of continuum
           micromechanics},
  author = {Henkes, Alexander and Wessels, Henning},
  journal = {Computer Methods in Applied Mechanics and Engineering},
  volume = {400},
  pages = {115497},
  year = {2022},
  eprint = {2206.01693},
}""",
    **framing.SYSTEM,
)  # fmt: skip
