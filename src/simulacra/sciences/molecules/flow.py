"""Molecules from joint flow matching of positions, atoms and bonds.

    paper    all atoms as points, hydrogens included; for a GPU
    laptop   heavy atoms as points, hydrogens as counts; they are placed from the finished graph (RDKit), and every figure is taken
             on the full molecule
    quick    the same, smaller, on molecules made by rule

No single publication has this system; it puts together what several have measured to work. Positions follow a straight path from
noise, atoms and bonds are unmasked along the way (families/flow.py). One network guesses the finished molecule from what is there
so far (nets/pairs.py); half of the time it also sees its own previous guess (self-conditioning, Chen et al. 2022, 2208.04202).

Positions and classes have times of their own. `laptop` trains with the graph mostly ahead of the geometry for the first 48 % of its
steps, then behind it, and draws with the graph behind: of 256 validation molecules, 81 % came out stable that way at step 6,621; with
both abreast it had been 70 % at step 5,432, and worse with the graph ahead. So the rest of the training was turned to it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra.descent import Descent, under
from simulacra.families import flow
from simulacra.nets.pairs import PairTransformer, centred
from simulacra.sciences.molecules import asking, data, exchange, formats, graphs, hydrogens, pictures, statistics
from simulacra.sciences.molecules.constraints import Constraints, hydrogens_given
from simulacra.sciences.molecules.data import BONDS, PROPERTIES, UNITS, UNKNOWN, Molecule, Molecules, stacked
from simulacra.sciences.molecules.graphs import Conditions, Graphs
from simulacra.sciences.molecules.perception import perceive
from simulacra.study import Noise, Recipe, Refused, Split, Study
from simulacra.training import device_of

FREQUENCIES = 16  # of the time embedding
ATTEMPTS = 8  # at a number of atoms or a formula, before a row that misses it is given as it is
ANOTHER = 0x9E3779B1  # between the seeds of attempts


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
    graph_first: float = Field(
        0.5, ge=0, le=1, description="Share of the steps, from the start, in which the graph is mostly ahead of the geometry; then behind."
    )
    settled: float = Field(
        0.8, gt=0, le=1, description="When a molecule is drawn, the part of its path after which the geometry is finished.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    delay: float = Field(
        2.4, ge=0.2, le=5, description="When a molecule is drawn, its graph is finished to u^delay at part u of the path.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    bend: float = Field(
        1.5, ge=1, le=4, description="How much denser evaluations lie near the finished molecule; 1: evenly.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip


class MoleculeFlow:
    """The network, its vocabulary, and the paths that it was trained on."""

    def __init__(
        self, recipe: FlowRecipe, classes: list[graphs.AtomClass], conditions: Conditions, scale: float, sizes: Tensor, lengths: Tensor
    ) -> None:
        self.recipe, self.classes, self.conditions, self.scale, self.sizes = recipe, classes, conditions, scale, sizes
        self.lengths = lengths  # of bonds to hydrogens (hydrogens.py)
        self.device, self.placed = device_of(recipe.device), recipe.hydrogens == "placed"
        self.atoms = int(sizes[:, 1 if self.placed else 0].max())  # points of the largest training molecule: draws are this wide
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
        t, s = path_times(b, graph_first=self.descent.count < self.recipe.graph_first * self.recipe.steps)
        x1 = goal.positions / self.scale
        x0 = flow.aligned(centred(torch.randn(b, n, 3), goal.mask.cpu()), x1.cpu(), goal.mask.cpu())
        xt = flow.between(x0.to(x1), x1, t.to(x1))
        classes = flow.masked(goal.classes, s.to(x1), torch.rand(b, n).to(x1), len(self.classes))
        bonds = flow.masked(goal.bonds, s.to(x1), symmetric(torch.rand(b, n, n)).to(x1), len(BONDS))
        told = self.conditions(
            batch, torch.rand(b).to(x1) < self.recipe.told, torch.rand(b).to(x1) < 0.25, torch.rand(b, len(PROPERTIES)).to(x1) < 0.1
        )
        # Compiled for one shape: a batch of a rare size, smaller than the rest, takes the plain way.
        network = self.descent.module if b == self.recipe.batch else self.descent.module.forward
        guess = None
        if torch.rand(()) < 0.5:
            with torch.no_grad():
                guess = self._guess(network, classes, bonds, xt, t.to(x1), s.to(x1), told, goal.mask, None)
        atoms, pairs, x = self._raw(network, classes, bonds, xt, t.to(x1), s.to(x1), told, goal.mask, guess)
        losses = self._losses(goal, x1, t.to(x1), s.to(x1), classes, bonds, atoms, pairs, x)
        norm = self.descent(losses["positions"] + 0.3 * losses["atoms"] + 0.3 * losses["bonds"])
        return {name: loss.detach() for name, loss in losses.items()} | {"gradient": norm}

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
        self, network: Callable[..., Any], classes: Tensor, bonds: Tensor, xt: Tensor, t: Tensor, s: Tensor, told: Tensor, mask: Tensor,
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

    def _guess(self, network: Callable[..., Any], *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        atoms, pairs, x = self._raw(network, *given)
        return atoms.softmax(-1), pairs.softmax(-1), x

    # --- drawing ---

    def draw(self, like: Molecules, noise: Noise) -> Molecules:
        """New molecules with as many heavy atoms as the rows of `like`, and whatever else it asks for.

        The number of hydrogens is told to the network, which keeps to it more often than not. Where a number of atoms or a formula is
        asked for, a row that misses it is drawn again, at most ATTEMPTS times; its elements are right by construction. Atoms whose
        positions are given keep them exactly.
        """
        drawn = self._whole(self.path(like, noise)[-1], like)
        strict = hydrogens_given(like).cpu() if self.placed else torch.zeros(len(like), dtype=torch.bool)
        for attempt in range(1, ATTEMPTS + 1):
            wrong = (strict & (drawn.bucket != like.bucket.cpu())).nonzero()[:, 0]
            if not len(wrong):
                break
            more = Noise(noise.seed + attempt * ANOTHER, [noise.rows[row] for row in wrong.tolist()])
            again = self._whole(self.path(like[wrong], more)[-1], like)
            order = torch.arange(len(like))
            order[wrong] = len(like) + torch.arange(len(wrong))
            drawn = Molecules.join([drawn, again])[order]
        return drawn

    def trace(self, like: Molecules, noise: Noise, frames: int) -> Sequence[Molecules]:
        """`frames` moments of the path from noise to the finished molecules; hydrogens that are placed appear with the last."""
        graphs_ = self.path(like, noise)
        at = np.linspace(0, len(graphs_) - 1, frames).round().astype(int)
        last = self._whole(graphs_[-1], like)
        return [*(self._bare(graphs_[k]) for k in at[:-1]), last]

    @torch.no_grad()
    def path(self, like: Molecules, noise: Noise) -> list[Graphs]:
        """All states from noise to the finished graph, one row per row of `like`; classes not yet known are len(vocabulary)."""
        network = self.descent.average
        asked = Constraints.of(like.to(self.device), self.classes, self.conditions, placed=self.placed, atoms=self.atoms)
        mask = asked.mask
        b, n = mask.shape
        x = centred(noise.normal(n, 3).to(self.device), mask)
        classes = torch.full((b, n), len(self.classes), device=self.device)
        bonds = torch.where(asked.bonds >= 0, asked.bonds, len(BONDS))
        guess, seen = None, [Graphs(classes, bonds, x * self.scale, mask)]
        for (t, s), (later, ahead) in pairwise(self.schedule()):
            now, then = (torch.full((b,), v, device=self.device) for v in (t, s))
            logits, pairs, end = self._raw(network, classes, bonds, x, now, then, asked.told, mask, guess)
            end = asked.laid(end * self.scale) / self.scale
            guess = logits.softmax(-1), pairs.softmax(-1), end
            chance = (ahead - s) / (1 - s) if ahead < 1 else 1.0
            dice, pair_dice = noise.uniform(2, n).to(self.device), symmetric(noise.uniform(2, n, n)).to(self.device)
            classes = asked.unmasked(classes, logits, chance, dice[:, 0], dice[:, 1])
            # Mirrored: the two ends of a pair agree but for the last bits of their logits.
            bonds = symmetric(flow.unmasked(bonds, pairs, chance, pair_dice[:, 0], pair_dice[:, 1], len(BONDS)))
            x = flow.towards(x, end, t, later) if t < 1 else x
            seen.append(Graphs(classes, bonds, x * self.scale, mask))
        pair = mask[:, :, None] & mask[:, None] & ~torch.eye(n, dtype=torch.bool, device=self.device)
        seen[-1] = Graphs(classes, torch.where(pair, bonds, 0), x * self.scale, mask)
        return [replace(state, positions=asked.returned(state.positions)) for state in seen]

    def schedule(self) -> list[tuple[float, float]]:
        """Times (of positions, of classes) at the evaluations of a draw, from (0, 0) to (1, 1)."""
        recipe = self.recipe
        parts = np.linspace(0, 1, recipe.evaluations + 1)
        t = 1 - (1 - np.minimum(parts / recipe.settled, 1)) ** recipe.bend
        return list(zip(t.tolist(), (parts**recipe.delay).tolist(), strict=True))

    def _whole(self, graph: Graphs, like: Molecules) -> Molecules:
        """The finished graphs as molecules, hydrogens in place, in the frame of the given atoms."""
        found = [self._molecule(graph, row) for row in range(len(graph.mask))]
        drawn = stacked([hydrogens.place(*one) if self.placed else one[0] for one in found])
        width = max(drawn.numbers.shape[1], like.numbers.shape[1])
        return drawn.widened(width)

    def _bare(self, graph: Graphs) -> Molecules:
        """Graphs on their way as molecules: atoms not yet known are carbon, bonds not yet known are none, no hydrogens placed."""
        unknown = graph.classes == len(self.classes)
        carbon = next((k for k, (z, _, _) in enumerate(self.classes) if z == 6), 0)
        bonds = torch.where(graph.bonds == len(BONDS), 0, graph.bonds)
        now = Graphs(torch.where(unknown, carbon, graph.classes), bonds, graph.positions, graph.mask)
        return stacked([self._molecule(now, row)[0] for row in range(len(now.mask))])

    def _molecule(self, graph: Graphs, row: int) -> tuple[Molecule, NDArray[np.int64], NDArray[np.float32]]:
        """Row `row` without padding, the hydrogens that its atoms still need, and the lengths of bonds to them."""
        k = int(graph.mask[row].sum())
        described = np.array([self.classes[c] for c in graph.classes[row, :k].tolist()])
        positions, bonds = graph.positions[row, :k].cpu().numpy(), graph.bonds[row, :k, :k].cpu().numpy()
        molecule = Molecule(described[:, 0].astype(np.uint8), positions, described[:, 1].astype(np.int8), bonds.astype(np.int8))
        lengths = self.lengths[graph.classes[row, :k].cpu(), torch.from_numpy(bonds).amax(1)].numpy()
        return molecule, described[:, 2], lengths

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict() | {f"learnt.{k}": v for k, v in self._learnt().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights and what was learnt from the training set: all that drawing needs."""
        network = {f"average.{k}": v for k, v in self.descent.average.state_dict().items()}
        return network | {f"learnt.{k}": v for k, v in self._learnt().items()}

    def _learnt(self) -> dict[str, Tensor]:
        conditions = self.conditions
        return {
            "classes": torch.tensor(self.classes), "elements": torch.tensor(conditions.elements), "centre": conditions.centre,
            "deviation": conditions.scale, "range": conditions.range, "scale": torch.tensor(self.scale, dtype=torch.float64),
            "sizes": self.sizes.to(torch.int16), "lengths": self.lengths,
        }  # fmt: skip

    def ask(self, n: int, conditions: Mapping[str, str]) -> Molecules:
        """A template of n rows under `conditions` (asking.py), with sizes like those of the training molecules. Warns of a property
        that lies outside of what training held."""
        template = asking.ask(self.sizes, n, conditions, [1, *self.conditions.elements])
        for k, name in enumerate(PROPERTIES):
            low, high = self.conditions.range[:, k].tolist()
            wanted = template.properties[:, k]
            if bool((wanted.isnan() | ((wanted >= low) & (wanted <= high))).all()):
                continue
            if low > high:
                raise Refused(f"property {name}: no training molecule had a value, so this model cannot aim at one")
            held = f"training held {low:.4g} to {high:.4g} {UNITS[name]}"
            warnings.warn(f"property {name}: asked for {wanted.nanmean():.4g}, {held}", stacklevel=2)
        return template


def path_times(count: int, *, graph_first: bool) -> tuple[Tensor, Tensor]:
    """Times of positions t and of classes s, (count,) each: mostly one ahead of the other by a random part of what it can be, some
    with the leading one finished, the rest anywhere."""
    t = torch.where(torch.rand(count) < 0.5, torch.rand(count), torch.rand(count, 2).amax(1))
    which, u, v = torch.rand(count), torch.rand(count), torch.rand(count)
    if graph_first:
        return t, torch.where(which < 0.25, torch.ones(()), torch.where(which < 0.85, t + (1 - t) * u * v, u))
    behind, ahead = t * (1 - u * v), t + (1 - t) * u * v
    s = torch.where(which < 0.15, u, torch.where(which < 0.75, behind, torch.where(which < 0.9, ahead, u)))
    return torch.where(which < 0.15, 1 - 0.02 * v, t), s


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
    lengths = hydrogens.usual_lengths(training, classes) if placed else torch.zeros(len(classes), len(BONDS))
    return MoleculeFlow(recipe, classes, Conditions.learnt(training, classes), scale, asking.sizes(training), lengths)


def restore(recipe: FlowRecipe, state: Mapping[str, Tensor]) -> MoleculeFlow:
    """The learner that `to_ship` or `state_dict` describes, to draw with."""
    learnt = under(state, "learnt")
    conditions = Conditions(learnt["elements"].tolist(), learnt["centre"], learnt["deviation"], learnt["range"])
    classes = [(z, c, h) for z, c, h in learnt["classes"].tolist()]
    plain = recipe.model_copy(update={"compile": False})
    learner = MoleculeFlow(plain, classes, conditions, float(learnt["scale"]), learnt["sizes"].long(), learnt["lengths"])
    learner.descent.average.load_state_dict(under(state, "average"))
    return learner


def load(recipe: FlowRecipe) -> Split[Molecules]:
    """Your molecules, or molecules made by rule. Bonds that a file does not tell (XYZ) are perceived by RDKit; where that fails the
    molecule is set aside."""
    split = data.load(data=recipe.data, seed=recipe.seed, simulated=recipe.simulated)
    if not any(bool((part.bonds == UNKNOWN).any()) for part in (split.train, split.validation, split.held_out)):
        return split
    rejected = list(split.rejected)
    train, validation, held_out = (
        _bonded(part, name, rejected)
        for part, name in ((split.train, "training"), (split.validation, "validation"), (split.held_out, "held-out"))
    )
    return Split(train, validation, held_out, f"{split.origin}; bonds perceived by RDKit from the geometry", split.files, rejected)


def _bonded(molecules: Molecules, name: str, rejected: list[str]) -> Molecules:
    """The molecules whose bonds are known or can be perceived."""
    found = perceive(
        molecules, method="rdkit", failed=lambda row, reason: rejected.append(f"{name} molecule {row}: bonds not perceived: {reason}")
    )
    known = ~(found.bonds == UNKNOWN).flatten(1).any(1)
    if not known.any():
        raise Refused(f"the bonds of no {name} molecule could be perceived; give an SDF, which holds them ({rejected[-1]})")
    return found[known]


def ask(recipe: FlowRecipe, n: int, conditions: Mapping[str, str]) -> Molecules:
    """A template of n rows under `conditions`, with sizes like those of the training molecules that `recipe` loads."""
    training = load(recipe).train
    return asking.ask(asking.sizes(training), n, conditions, sorted(set(training.numbers.flatten().tolist()) - {0}))


study = Study(
    title="Molecules from flow matching of graph and geometry",
    source="joint flow matching of positions and classes: Lipman et al. 2023, arXiv:2210.02747; Campbell et al. 2024, arXiv:2402.04997",
    recipes={
        "quick": FlowRecipe(
            nodes=48, pairs=24, layers=3, lr=3e-3, ema=0.98, warmup=20, steps=220, batch=48, draws=60, evaluations=20, threads=1,
        ),
        "laptop": FlowRecipe(steps=15_000, batch=128, draws=10_000, threads=1, graph_first=0.4821),
        "paper": FlowRecipe(
            hydrogens="explicit", nodes=256, pairs=64, layers=12, steps=300_000, batch=256, draws=10_000, evaluations=100, graph_first=0.0,
        ),
    },
    expect={
        "quick": "under a minute of one core",
        "laptop": "QM9: 95 minutes of one thread of a busy 2-core machine, with --compile true",
        "paper": "hours of a large GPU; not run here",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=exchange.read,
    write=formats.write,
    ask=ask,
    picture=pictures.picture,
    film=pictures.film,
    caption=pictures.caption,
    restore=restore,
    conditions=exchange.CONDITIONS,
    formats=exchange.FORMATS,
    export=exchange.export,
    summary=exchange.summary,
    models=exchange.models,
    citation="""@inproceedings{lipman2023flow,
  title = {Flow Matching for Generative Modeling},
  author = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  eprint = {2210.02747},
}
@inproceedings{campbell2024multiflow,
  title = {Generative Flows on Discrete State-Spaces: Enabling Multimodal Flows with Applications to Protein Co-Design},
  author = {Campbell, Andrew and Yim, Jason and Barzilay, Regina and Rainforth, Tom and Jaakkola, Tommi},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2402.04997},
}""",
)  # fmt: skip
