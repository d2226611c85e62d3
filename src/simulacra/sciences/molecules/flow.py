"""Molecules from joint flow matching of positions, atoms and bonds.

    paper    all atoms as points, hydrogens included
    laptop   heavy atoms as points, hydrogens as counts; they are placed from the finished graph, and every figure is taken on the
             full molecule
    quick    the same on molecules made by rule

Positions follow a straight path from noise, atoms and bonds are unmasked along the way (families/flow.py). One network guesses
the finished molecule from what is there so far (nets/pairs.py); half of the time it also sees its own previous guess
(self-conditioning, Chen et al. 2022, 2208.04202). Classes and positions have times of their own: `lead` says how far the graph
runs ahead of the geometry when a molecule is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent
from simulacra.families import flow
from simulacra.nets.pairs import PairTransformer, centred
from simulacra.sciences.molecules import graphs
from simulacra.sciences.molecules.data import BONDS, PROPERTIES, Molecules
from simulacra.sciences.molecules.graphs import Conditions, Graphs
from simulacra.study import Noise, Recipe, Split, Study
from simulacra.training import device_of

FREQUENCIES = 16  # of the time embedding


class FlowRecipe(Recipe):
    """Flow matching of molecules."""

    simulated: PositiveInt = Field(600, description="Molecules to make by rule where no data are given.")
    hydrogens: Literal["placed", "explicit"] = Field(
        "placed", description="placed: counts per heavy atom, put in place from the finished graph; explicit: points like all others."
    )
    nodes: PositiveInt = Field(128, multiple_of=8, description="Features per atom.")
    pairs: PositiveInt = Field(64, description="Features per pair of atoms.")
    layers: PositiveInt = Field(6, description="Layers of the network.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay per step of the weight average that draws; 0: the last weights.")
    warmup: int = Field(500, ge=0, description="Steps over which the learning rate rises.")
    told: float = Field(0.5, ge=0, le=1, description="Share of training molecules whose number of hydrogens is told to the network.")
    compile: bool = Field(False, description="Compile the network with torch.compile: trains a fifth faster, needs a C++ compiler.")
    evaluations: PositiveInt = Field(
        50, le=1000, description="Evaluations of the network per drawn molecule.", json_schema_extra={"drawing": True}
    )
    lead: float = Field(
        1.5, ge=1, le=10, description="How far the graph runs ahead of the geometry: its time is 1 - (1 - t)^lead.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip


class MoleculeFlow:
    """The network, its vocabulary, and the paths that it was trained on."""

    def __init__(self, recipe: FlowRecipe, classes: list[graphs.AtomClass], conditions: Conditions, scale: float, atoms: int) -> None:
        self.recipe, self.classes, self.conditions, self.scale, self.atoms = recipe, classes, conditions, scale, atoms
        self.device, self.placed = device_of(recipe.device), recipe.hydrogens == "placed"
        known = len(classes)
        network = PairTransformer(
            node_in=2 * known + 1, pair_in=2 * len(BONDS) + 1, conditions=4 * FREQUENCIES + conditions.width, node_out=known,
            pair_out=len(BONDS), nodes=recipe.nodes, pairs=recipe.pairs, layers=recipe.layers,
        ).to(self.device)  # fmt: skip
        self.descent = Descent(
            network, lr=recipe.lr, betas=(0.9, 0.98), clip=1.0, ema=recipe.ema, warmup=min(recipe.warmup, recipe.steps // 10),
            horizon=recipe.steps,
        )  # fmt: skip
        if recipe.compile:
            self.descent.module.compile(dynamic=False)

    # --- training ---

    def step(self, batch: Molecules) -> Mapping[str, Tensor]:
        goal = graphs.encoded(batch, self.classes, placed=self.placed, atoms=self.atoms if self.recipe.compile else 0)
        b, n = goal.mask.shape
        t, s = path_times(b)
        x1 = goal.positions / self.scale
        x0 = flow.aligned(centred(torch.randn(b, n, 3), goal.mask.cpu()), x1.cpu(), goal.mask.cpu())
        xt = flow.between(x0.to(x1), x1, t.to(x1))
        classes = flow.masked(goal.classes, s.to(x1), torch.rand(b, n).to(x1), len(self.classes))
        bonds = flow.masked(goal.bonds, s.to(x1), symmetric(torch.rand(b, n, n)).to(x1), len(BONDS))
        told = self.conditions(
            batch, torch.rand(b).to(x1) < self.recipe.told, torch.rand(b).to(x1) < 0.25, torch.rand(b, len(PROPERTIES)).to(x1) < 0.1
        )
        network = self.descent.module
        guess = None
        if torch.rand(()) < 0.5:
            with torch.no_grad():
                guess = self._guess(network, classes, bonds, xt, t.to(x1), s.to(x1), told, goal.mask, None)
        atoms, pairs, x = self._raw(network, classes, bonds, xt, t.to(x1), s.to(x1), told, goal.mask, guess)
        losses = self._losses(goal, x1, t.to(x1), s.to(x1), classes, bonds, atoms, pairs, x)
        norm = self.descent(losses["positions"] + 0.3 * losses["atoms"] + 0.3 * losses["bonds"])
        return losses | {"gradient": norm}

    def _losses(
        self, goal: Graphs, x1: Tensor, t: Tensor, s: Tensor, classes: Tensor, bonds: Tensor, atoms: Tensor, pairs: Tensor, x: Tensor
    ) -> dict[str, Tensor]:
        """Weighted means over molecules; per atom, so that large molecules weigh no more than small ones."""
        size = goal.mask.sum(1)
        error = (x - x1).square().sum((1, 2)) / (3 * size)
        weight = (1 / (1 - s).clamp_min(1e-6)).clamp(max=10.0)
        hidden = (classes == len(self.classes)) & goal.mask
        atom = F.cross_entropy(atoms.transpose(1, 2), goal.classes, reduction="none") * hidden
        upper = torch.ones_like(goal.bonds, dtype=torch.bool).triu(1) & goal.mask[:, :, None] & goal.mask[:, None]
        pair = F.cross_entropy(pairs.permute(0, 3, 1, 2), goal.bonds, reduction="none") * ((bonds == len(BONDS)) & upper)
        return {
            "positions": (flow.point_weight(t) * error).mean(),
            "atoms": (weight * atom.sum(1) / size).mean(),
            "bonds": (weight * pair.sum((1, 2)) / size).mean(),
        }

    def _raw(
        self, network: nn.Module, classes: Tensor, bonds: Tensor, xt: Tensor, t: Tensor, s: Tensor, told: Tensor, mask: Tensor,
        guess: tuple[Tensor, Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Class logits (B, n, K), bond logits (B, n, n, bonds) and guessed positions (B, n, 3) in units of `scale`."""
        start = (t / (t**2 + (1 - t) ** 2))[:, None, None] * xt  # the best linear guess for data of unit variance
        b, n = mask.shape
        if guess is None:
            guess = xt.new_zeros(b, n, len(self.classes)), xt.new_zeros(b, n, n, len(BONDS)), start
        nodes = torch.cat([F.one_hot(classes, len(self.classes) + 1), guess[0]], -1)
        pairs = torch.cat([F.one_hot(bonds, len(BONDS) + 1), guess[1]], -1)
        condition = torch.cat([embedded(t), embedded(s), told], 1)
        out: tuple[Tensor, Tensor, Tensor] = network(
            nodes, pairs, xt * self.scale, start * self.scale, guess[2] * self.scale, condition, mask
        )
        return out[0], out[1], out[2] / self.scale

    def _guess(self, network: nn.Module, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        atoms, pairs, x = self._raw(network, *given)
        return atoms.softmax(-1), pairs.softmax(-1), x

    # --- drawing ---

    @torch.no_grad()
    def finished(self, like: Molecules, noise: Noise) -> Graphs:
        """The graphs with positions that the path from noise ends at, one per row of `like`."""
        recipe, network = self.recipe, self.descent.average
        points = (like.numbers > 1) if self.placed else like.numbers > 0
        b, n = len(like), max(self.atoms, int(points.sum(1).max()))
        mask = torch.zeros(b, n, dtype=torch.bool)
        width = min(n, points.shape[1])
        mask[:, :width] = points[:, :width].cpu()
        mask = mask.to(self.device)
        told = self.conditions(like, *self._asked(like)).to(self.device)
        x = centred(noise.normal(n, 3).to(self.device), mask)
        classes = torch.full((b, n), len(self.classes), device=self.device)
        bonds = torch.full((b, n, n), len(BONDS), device=self.device)
        atom_dice = noise.uniform(recipe.evaluations, 2, n).to(self.device)
        bond_dice = symmetric(noise.uniform(recipe.evaluations, 2, n, n)).to(self.device)
        guess = None
        steps = flow.times(recipe.evaluations, bend=1.5)
        for k, (t, later) in enumerate(zip(steps[:-1], steps[1:], strict=True)):
            s, ahead = (1 - (1 - u) ** recipe.lead for u in (t, later))
            now = [torch.full((b,), v, device=self.device) for v in (t, s)]
            logits, pairs, end = self._raw(network, classes, bonds, x, *now, told, mask, guess)
            guess = logits.softmax(-1), pairs.softmax(-1), end
            chance = (ahead - s) / (1 - s) if ahead < 1 else 1.0
            classes = flow.unmasked(classes, logits, chance, atom_dice[:, k, 0], atom_dice[:, k, 1], len(self.classes))
            bonds = flow.unmasked(bonds, pairs, chance, bond_dice[:, k, 0], bond_dice[:, k, 1], len(BONDS))
            x = flow.towards(x, end, t, later)
        pair = mask[:, :, None] & mask[:, None] & ~torch.eye(n, dtype=torch.bool, device=self.device)
        return Graphs(classes, torch.where(pair, bonds, 0), x * self.scale, mask)

    def _asked(self, like: Molecules) -> tuple[Tensor, Tensor, Tensor]:
        b = len(like)
        known = torch.ones(b, dtype=torch.bool, device=like.numbers.device)
        return known, torch.zeros_like(known), torch.zeros(b, len(PROPERTIES), dtype=torch.bool, device=known.device)

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)


def path_times(count: int) -> tuple[Tensor, Tensor]:
    """Times of positions t and of classes s, (count,) each. A quarter has a finished graph, the graph of most others is ahead of
    the geometry by a random part of what is left, the rest is anywhere."""
    t = torch.where(torch.rand(count) < 0.5, torch.rand(count), torch.rand(count, 2).amax(1))
    which, u = torch.rand(count), torch.rand(count)
    s = torch.where(which < 0.25, torch.ones(()), torch.where(which < 0.85, t + (1 - t) * u * torch.rand(count), u))
    return t, s


def symmetric(values: Tensor) -> Tensor:
    """The upper triangle of (..., n, n), mirrored."""
    upper = values.triu(1)
    return upper + upper.transpose(-1, -2)


def embedded(t: Tensor) -> Tensor:
    """Times (B,) as (B, 2 FREQUENCIES): sines and cosines."""
    angles = t[:, None] * math.pi * torch.logspace(0, 2, FREQUENCIES, device=t.device)
    return torch.cat([angles.sin(), angles.cos()], 1)


def build(recipe: FlowRecipe, training: Molecules) -> MoleculeFlow:
    """The learner of `recipe`, with the vocabulary, the conditions and the length scale of the training molecules."""
    placed = recipe.hydrogens == "placed"
    classes = graphs.vocabulary(training, placed=placed)
    some = training[torch.linspace(0, len(training) - 1, min(len(training), 4096)).long()]
    goal = graphs.encoded(some, classes, placed=placed)
    scale = float((goal.positions[goal.mask].square().mean()).sqrt())
    atoms = int((training.heavy if placed else training.bucket).max())
    return MoleculeFlow(recipe, classes, Conditions.learnt(training, classes), scale, atoms)


def load(recipe: FlowRecipe) -> Split[Molecules]:
    """Your molecules, or molecules made by rule."""
    from simulacra.sciences.molecules.qm9 import qm9_split

    return qm9_split(recipe.data)


def judge(nature: Molecules, drawn: Molecules, *, seed: int, training: Molecules | None = None) -> Any:
    from simulacra.sciences.molecules import statistics

    return statistics.judge(nature, drawn, seed=seed, training=training)


def write(samples: Molecules, path: Path) -> None:
    from simulacra.sciences.molecules import formats

    formats.write(samples, path)


def read(path: Path) -> Molecules:
    from simulacra.sciences.molecules import formats

    return formats.read(path)[0]


study = Study(
    title="Molecules from flow matching", source="", recipes={
        "quick": FlowRecipe(steps=100), "laptop": FlowRecipe(steps=15_000, batch=128, draws=10_000, threads=1), "paper": FlowRecipe(),
    }, expect={"quick": "", "laptop": "", "paper": ""}, load=load, build=build, judge=judge, read=read, write=write,
    ask=lambda recipe, n, conditions: None, picture=lambda m: np.zeros((len(m), 8, 8, 3)),
)  # fmt: skip
