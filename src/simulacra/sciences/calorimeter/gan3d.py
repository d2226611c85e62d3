"""Showers of an asked particle and energy: the published 3DGAN, and a diffusion in two stages.

    diffusion   layers    total and layer energies given particle and incident energy, 1 + layers numbers made Gaussian (voxels.py)
                cells     energies within the layers given all that, as many numbers as there are cells
                each: the best linear estimate under noise, corrected by a dense network (players.py, families/denoising.py), drawn by
                DPM-Solver++(2M); what is drawn is scaled to the total and to the layers, which are thus exact
    3dgan       critic on nature, critic on draws, generator twice per batch; 6 x binary cross-entropy + 0.2 x mean error in percent of the
                energy that the critic reads off + 0.1 x that of the sum of cells; 5 % of the critic's labels told wrongly

Untrained, the diffusion draws layers and cells that have the right law one by one; of what holds them together it knows principal axes,
and how cells follow the layers on average. The networks learn the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra.descent import Descent, under
from simulacra.families import diffusion
from simulacra.families.autoencoder import Axes, principal_axes
from simulacra.families.denoising import Denoising, Principal
from simulacra.families.gan import Game, Rules
from simulacra.sciences.calorimeter import framing, pictures
from simulacra.sciences.calorimeter.data import Showers
from simulacra.sciences.calorimeter.framing import ShowerRecipe
from simulacra.sciences.calorimeter.players import LABEL, Generating, Judging, Telling
from simulacra.sciences.calorimeter.voxels import WAYS, Asked, Law, turned
from simulacra.study import Noise, Study
from simulacra.training import device_of, dtype_of

LEVELS = 1000  # of noise
NOISE = {"layers": (0.02, 5.0), "cells": (0.05, 3.0)}  # least and largest noise over signal, for numbers of about unit variance
MEASURED = 16_000  # showers from which principal axes are measured, at most
SEEN = 0.02  # share of the incident energy that 3DGAN's calorimeter sees, and that its sum of cells is held to
SCALED = 100.0  # cells in GeV are multiplied by this for 3DGAN
FAINT = 1e-6  # GeV: cells of 3DGAN below that are 0
FLIPPED = 0.05  # share of the critic's labels that are told wrongly
CROSS, ENERGY, SUM = 6.0, 0.2, 0.1  # weights of 3DGAN's losses


class ShowerGenerator(ShowerRecipe):
    """A generator of showers."""

    family: Literal["diffusion", "3dgan"] = Field("diffusion", description="Diffusion in two stages, or the published adversarial game.")
    symmetric: bool = Field(
        True, description="Showers come in at right angles: cells that lie alike about the axis share their law (diffusion)."
    )
    layer_width: PositiveInt = Field(192, description="Hidden numbers of the network of layer energies (diffusion).")
    width: PositiveInt = Field(256, description="Hidden numbers of the network of cells (diffusion).")
    blocks: PositiveInt = Field(2, description="Residual blocks of either (diffusion).")
    embed: PositiveInt = Field(64, description="Numbers in which they are told the level of noise and the condition; even (diffusion).")
    axes: PositiveInt = Field(
        16, description="Principal axes of the linear estimate of cells, as far as they stand out of the noise (diffusion)."
    )
    ema: float = Field(0.998, ge=0, lt=1, description="Memory of the running average of the weights that draws (diffusion).")
    layer_walk: PositiveInt = Field(30, description="Steps in which layers are drawn (diffusion).", json_schema_extra={"drawing": True})
    walk: PositiveInt = Field(12, description="Steps in which cells are drawn (diffusion).", json_schema_extra={"drawing": True})
    latent: PositiveInt = Field(200, description="Normal numbers that a shower is drawn from (3dgan).")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="Of products in a move of the game; auto: bfloat16 where the processor has it (3dgan)."
    )
    lr: float = Field(1e-3, gt=0, le=0.1, description="Learning rate; that of the diffusion falls to 0 on a half cosine over the steps.")


# ----------------------------------------------------------------------------------------------------------- diffusion


class Staged:
    """Layers, and then cells given these: two learners that share a law and learn side by side."""

    def __init__(self, law: Law, layers: Denoising[Showers], cells: Denoising[Showers]) -> None:
        self.law, self.layers, self.cells = law, layers, cells
        self.latent = layers.latent + cells.latent

    def step(self, batch: Showers) -> Mapping[str, Any]:
        """A step of each."""
        parts = {"layers": self.layers.step(batch), "cells": self.cells.step(batch)}
        return {name if what == "loss" else f"{name}_{what}": v for name, part in parts.items() for what, v in part.items()}

    def draw(self, like: Showers, noise: Noise) -> Showers:
        """One shower per row of `like`, of its particle and energy."""
        return self.cells.draw(self.layers.draw(like, noise), noise)

    def trace(self, like: Showers, noise: Noise, frames: int) -> list[Showers]:
        """Moments at which cells are drawn, from noise; the layers are drawn before the first."""
        return self.cells.trace(self.layers.draw(like, noise), noise, frames)

    def imagine(self, position: Tensor, like: Showers, towards: Showers | None = None, share: Tensor | None = None) -> Showers:
        """Showers at positions (n, latent). On the way to other conditions the logarithm of the energy moves evenly; the particle changes
        half-way."""
        asked = like if towards is None or share is None else between(like, towards, share)
        first, second = position[:, : self.layers.latent], position[:, self.layers.latent :]
        return self.cells.imagine(second, self.layers.imagine(first, asked))

    def ask(self, n: int, conditions: Mapping[str, str]) -> Showers:
        """A template of n showers of what training held."""
        return self.law.asked.template(self.law.grid, n, conditions)

    def _parts(self) -> dict[str, Denoising[Showers]]:
        return {"layers": self.layers, "cells": self.cells}

    def _law_state(self) -> dict[str, Tensor]:
        return {f"law.{k}": v for k, v in self.law.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{name}.{k}": v for name, part in self._parts().items() for k, v in part.state_dict().items()} | self._law_state()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.law.load_state_dict(under(state, "law"))
        for name, part in self._parts().items():
            part.load_state_dict(under(state, name))

    def to_ship(self) -> dict[str, Tensor]:
        """What draws: the law, the averaged weights, the linear estimates."""
        return {f"{name}.{k}": v for name, part in self._parts().items() for k, v in part.to_ship().items()} | self._law_state()

    def load_shipped(self, state: Mapping[str, Tensor]) -> None:
        """Take what draws; training cannot go on from there."""
        self.law.load_state_dict(under(state, "law"))
        for name, part in self._parts().items():
            part.load_shipped(under(state, name))


def between(like: Showers, towards: Showers, share: Tensor) -> Showers:
    """Conditions `share` (n,) of the way from those of `like`, 0, to those of `towards`, 1."""
    share = share.to(like.incident)
    incident = torch.lerp(like.incident.log(), towards.incident.log(), share).exp()
    return replace(like, incident=incident, particle=torch.where(share < 0.5, like.particle, towards.particle))


def held(total: Tensor, like: Showers) -> Showers:
    """Showers of layer energies `total` (n, layers) whose cells are not drawn yet: a layer's energy is all in its first cell."""
    energy = like.energy.new_zeros(like.energy.shape)
    energy[:, :, 0, 0] = total
    return replace(like, energy=energy)


def staged(recipe: ShowerGenerator, law: Law, heads: Mapping[str, Principal]) -> Staged:
    """The learner of `recipe` from that law and those linear estimates, before it has learned."""
    law = law.to(device_of(recipe.device))
    centre = law.centre.tolist()

    def layers_of(showers: Showers) -> tuple[Tensor, Tensor]:
        return law.layers_gaussian(showers, torch.rand(len(showers), law.grid[0] + 1).to(showers.energy)), law.asked(showers)

    def cells_of(showers: Showers) -> tuple[Tensor, Tensor]:
        g = law.cells_gaussian(showers.energy, torch.rand(showers.energy.shape).to(showers.energy))
        return g, law.told(showers)

    known = law.asked.numbers
    layers = _denoising(
        recipe, heads["layers"], (law.grid[0] + 1,), known, recipe.layer_width, recipe.layer_walk, NOISE["layers"], rows_of=layers_of,
        samples_from=lambda g, like: held(law.layers(g, like), like),
    )  # fmt: skip
    cells = _denoising(
        recipe, heads["cells"], law.grid, known + law.grid[0] + 1, recipe.width, recipe.walk, NOISE["cells"], rows_of=cells_of,
        samples_from=lambda g, like: replace(like, energy=law.cells(g, like.energy.sum((2, 3)))),
        augment=(lambda g: turned(g, centre, torch.randint(WAYS, (len(g),)))) if recipe.symmetric else None,
    )  # fmt: skip
    return Staged(law, layers, cells)


def _denoising(
    recipe: ShowerGenerator, head: Principal, shape: Sequence[int], told: int, width: int, walk: int, noise: tuple[float, float], *,
    rows_of: Callable[[Showers], tuple[Tensor, Tensor]], samples_from: Callable[[Tensor, Showers], Showers],
    augment: Callable[[Tensor], Tensor] | None = None,
) -> Denoising[Showers]:  # fmt: skip
    network = Telling(shape, told, width=width, blocks=recipe.blocks, embed=recipe.embed)
    descent = Descent(
        network.to(device_of(recipe.device)), lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema,
        warmup=min(100, recipe.steps // 10), horizon=recipe.steps,
    )  # fmt: skip
    # At a root this high the levels are even in the logarithm, to a few percent. So are those of a draw: numbers that are Gaussian come out
    # too broad by 0.3 % in 12 steps, and by 2 % with the usual root of 7, where steps are long at much noise.
    schedule = diffusion.karras(LEVELS, least=noise[0], largest=noise[1], rho=100.0)
    levels = [int(level) for level in torch.linspace(LEVELS, 1, walk + 1).round()]
    return Denoising(
        descent, schedule, head=head, shape=shape, rows_of=rows_of, samples_from=samples_from, augment=augment, levels=levels
    )  # fmt: skip


def measured(recipe: ShowerGenerator, law: Law, training: Showers) -> dict[str, Principal]:
    """The linear estimates of layers and of cells."""
    some = training[torch.linspace(0, len(training) - 1, min(len(training), MEASURED)).round().long()]
    rng = torch.Generator().manual_seed(recipe.seed)
    layers = law.layers_gaussian(some, torch.rand(len(some), law.grid[0] + 1, generator=rng))
    told = law.told(some)
    cells = law.cells_gaussian(some.energy, torch.rand(some.energy.shape, generator=rng))
    mean, slope = law.following(cells, told)
    cells = cells - mean - torch.tensordot(told, slope, dims=1)
    if recipe.symmetric:  # every shower in all ways, as far as that tells more
        copies = min(WAYS, max(1, MEASURED // len(cells)))
        centre = law.centre.tolist()
        cells = torch.cat([turned(cells, centre, torch.full((len(cells),), way)) for way in range(copies)])
    flat = cells.flatten(1)
    found = principal_axes(flat, min(recipe.axes, len(flat) - 1), seed=recipe.seed)
    # Independent numbers of variance 1, measured on n rows, have variances of up to (1 + sqrt(numbers / n))^2 along some axis
    # (Marchenko & Pastur 1967): such axes are noise.
    chance = (1 + (flat.shape[1] / len(flat)) ** 0.5) ** 2
    count = max(1, int((found.scales.square() > 1.05 * chance).sum()))
    left = found.residual + float(found.scales[count:].square().sum()) / flat.shape[1]
    axes = Axes(found.centre, found.directions[:, :count], found.scales[:count], left)
    return {"layers": Principal.of(layers, layers.shape[1] - 1), "cells": Principal(axes, mean, pool=1, detail=0.0, slope=slope)}


# --------------------------------------------------------------------------------------------------------------- 3DGAN


class ShowerGame(Game[Showers]):
    """The published game. The generator is asked for energies of its own, uniform over those of training."""

    def __init__(
        self, generator: Descent, critic: Descent, *, latent: int, grid: tuple[int, int, int], precision: torch.dtype = torch.float32
    ) -> None:  # fmt: skip
        self.grid = grid
        rules = Rules(
            critic=lambda real, drawn: CROSS * (F.softplus(-real) + F.softplus(drawn)),
            generator=lambda real, drawn: CROSS * F.softplus(-drawn),
            naming=percent_off,
        )
        super().__init__(
            generator, critic, rules=rules, latent=latent, rows_of=self._rows, samples_from=self._showers, precision=precision
        )

    @property
    def asked(self) -> Asked:
        """What can be asked for."""
        generator = self.generator.average
        assert isinstance(generator, Generating)
        return generator.asked

    def _unit(self) -> Tensor:
        generator = self.generator.average
        assert isinstance(generator, Generating)
        return generator.unit

    def _rows(self, showers: Showers) -> tuple[Tensor, Tensor]:
        self.asked(showers)
        return faded(showers.energy)[:, None] / self._unit(), showers.incident / LABEL

    def _showers(self, rows: Tensor, like: Showers) -> Showers:
        return replace(like, energy=faded(rows[:, 0] * self._unit()))

    def ask(self, n: int, conditions: Mapping[str, str]) -> Showers:
        """A template of n showers of what training held."""
        return self.asked.template(self.grid, n, conditions)

    def step(self, batch: Showers) -> Mapping[str, Any]:
        """Critic on nature, critic on draws, generator twice."""
        rows, label = self._rows(batch)
        with torch.no_grad():
            asked, drawn = self._drawn(len(rows))
        watched = {"critic_on_nature": self._taught(rows, label, 1.0), "critic_on_drawn": self._taught(drawn, asked, -1.0)}
        self.critic.module.requires_grad_(False)
        for _ in range(2):
            asked, drawn = self._drawn(len(rows))
            score, off = self._heard(drawn, asked)
            assert off is not None
            loss = (self.rules.generator(score, score) + off).mean()
            watched |= {"generator": loss.detach(), "percent": off.detach().mean(), "generator_gradient": self.generator(loss).detach()}
        self.critic.module.requires_grad_(True)
        return watched

    def _drawn(self, n: int) -> tuple[Tensor, Tensor]:
        low, high = self.asked.low.exp() / LABEL, self.asked.high.exp() / LABEL
        label = low + (high - low) * torch.rand(n).to(low)
        return label, self._played(self.generator.module, torch.randn(n, self.latent).to(low), label)

    def _taught(self, rows: Tensor, label: Tensor, sign: float) -> Tensor:
        score, off = self._heard(rows, label)
        assert off is not None
        flip = 1 - 2 * (torch.rand(len(rows)) < FLIPPED).to(score)
        loss = (CROSS * F.softplus(-sign * flip * score) + off).mean()
        self.critic(loss)
        return loss.detach()


def percent_off(said: Tensor, label: Tensor) -> Tensor:
    """Weighted errors in percent (n,) of what the critic said (n, 2): the label, and the sum of cells in 3DGAN's units."""
    total = SCALED * SEEN * LABEL * label
    return 100 * (ENERGY * (said[:, 0] - label).abs() / label + SUM * (said[:, 1] - total).abs() / total)


def faded(energy: Tensor) -> Tensor:
    """Energies in MeV, the faintest cells 0."""
    return torch.where(energy < 1000 * FAINT, torch.zeros_like(energy), energy)


def unplayed(recipe: ShowerGenerator, asked: Asked, grid: tuple[int, int, int]) -> ShowerGame:
    """The game before its first move. RMSprop at rho 0.9 is Adam without memory of gradients, but for the first few steps, which Adam
    corrects for their short memory."""
    device, (cells, *_) = device_of(recipe.device), grid
    rms = {"lr": recipe.lr, "betas": (0.0, 0.9)}
    generator, critic = (Descent(player.to(device), **rms) for player in (Generating(cells, recipe.latent, asked), Judging(cells)))  # type: ignore[arg-type]
    return ShowerGame(generator, critic, latent=recipe.latent, grid=grid, precision=dtype_of(recipe.precision, device))


# --------------------------------------------------------------------------------------------------------------- study


def build(recipe: ShowerGenerator, training: Showers) -> Staged | ShowerGame:
    """The learner of `recipe`; training showers set the laws that it starts from, or the unit of cells."""
    if recipe.family == "diffusion":
        law = Law.fitted(training, symmetric=recipe.symmetric)
        return staged(recipe, law, measured(recipe, law, training))
    game = unplayed(recipe, Asked.of(training), training.grid)
    # In the published units a shower of E GeV has 0.02 E GeV in all cells; in another calorimeter that sees another share of it, the same.
    share = float((training.deposit / (1000 * training.incident.double())).mean())
    generator = game.generator.module
    assert isinstance(generator, Generating)
    generator.unit.fill_(1000 * share / (SEEN * SCALED))
    return game


def restore(recipe: ShowerGenerator, state: Mapping[str, Tensor]) -> Staged | ShowerGame:
    """The learner in a saved state, or what of it was shipped, to draw from."""
    if "law.orbit" in state:
        law = Law.blank(under(state, "law"))
        shapes = {"layers": (law.grid[0] + 1,), "cells": law.grid}
        told = {name: len(state.get(f"{name}.head.slope", ())) for name in shapes}
        axes = {name: state[f"{name}.head.directions"].shape[1] for name in shapes}
        heads = {name: Principal.blank(shape, axes[name], told=told[name]) for name, shape in shapes.items()}
        found = staged(recipe, law, heads)
        found.load_shipped(state)
        return found
    shipped = under(state, "average") or under(state, "generator.weights")
    cells = recipe.cells if recipe.data is None else 25 if shipped["net.0.bias"].shape[0] == 3136 else 12
    game = unplayed(recipe, Asked(len(shipped["asked.kinds"])), (cells, cells, cells))
    (game.load_state_dict if any(name.startswith("critic.") for name in state) else game.load_shipped)(state)
    return game


laptop = ShowerGenerator(steps=8000, batch=128, draws=2000, threads=1)

study = Study(
    title="Calorimeter showers of an asked particle and energy, by diffusion and by 3DGAN",
    source="Khattak, Vallecorsa, Carminati & Khan 2022, Eur. Phys. J. C 82:386, doi:10.1140/epjc/s10052-022-10258-4",
    recipes={
        "quick": laptop.model_copy(
            update={"simulated": 3000, "judged": (20.0, 50.0), "judged_each": 100, "steps": 300, "batch": 64, "draws": 200, "ema": 0.99}
        ),
        "laptop": laptop,
        "paper": laptop.model_copy(
            update={"family": "3dgan", "cells": 25, "particles": ("electron",), "steps": 42_000, "ema": 0.0, "threads": 0, "lowest": 10.0}
            | {"highest": 500.0, "simulated": 20_000, "judged": (50.0, 100.0, 200.0, 400.0), "unseen": (200.0,), "judged_each": 200}
        ),
    },
    expect={
        "quick": "50 s of processor time on one core, data and verdict included",
        "laptop": "12 min of training on one thread of a busy 2-core machine, and 3 min there for data, 2,000 draws and the verdict",
        "paper": "110 s of processor time per step of 128 showers of 25^3 cells want a GPU (not run); 2 to 3 s for 64 of 12^3",
    },
    build=build,
    restore=restore,
    figures=pictures.figures,
    citation="""@article{khattak2022fast,
  title = {Fast simulation of a high granularity calorimeter by generative adversarial networks},
  author = {Khattak, Gul Rukh and Vallecorsa, Sofia and Carminati, Federico and Khan, Gul Muhammad},
  journal = {The European Physical Journal C},
  volume = {82},
  pages = {386},
  year = {2022},
  doi = {10.1140/epjc/s10052-022-10258-4},
}""",
    **framing.SYSTEM,
)  # fmt: skip
