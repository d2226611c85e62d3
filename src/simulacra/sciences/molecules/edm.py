"""Molecules in 3D from equivariant diffusion: atoms and their positions, no bonds (Hoogeboom et al. 2022).

    paper    as published for QM9: nine blocks of width 256, 1000 steps, 3000 epochs as the article's repository trains
    laptop   a smaller network for an hour of one core, drawn in fewer steps
    quick    the same, smaller still, on molecules made by rule

A molecule is a cloud of positions with zero centre of mass, and per atom a one-hot element and the atomic number, scaled by 1, 1/4
and 1/10, all noised together. An E(3)-equivariant network (nets/egnn.py) over all pairs of atoms predicts the noise. Draws have no
bonds (UNKNOWN: the judge reads them from distances) and formal charges of 0: what the article calls charge is the atomic number, and
formal charges are nothing that the model knows. The number of atoms comes from the training molecules, or from what is asked.

With `condition`, the properties named are told to every atom, as (value - mean) / mean absolute deviation; such a model has no
atomic number among its features and sees one half of the labelled molecules, so that a regressor trained on the other half can
judge it.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.evidence import Check, Figure, Finding
from simulacra.families import diffusion
from simulacra.families.diffusion import Schedule, centred
from simulacra.nets.egnn import EGNN
from simulacra.sciences.molecules import asking, conditional, data, exchange, formats, pictures, protocols, statistics
from simulacra.sciences.molecules.data import ATOMIC_NUMBER, POSITION_GIVEN, PROPERTIES, SYMBOLS, UNITS, UNKNOWN, Molecules
from simulacra.sciences.molecules.regressor import Effort, Regressor, remembered
from simulacra.study import Noise, Recipe, Refused, Split, Study
from simulacra.training import device_of

ELEMENT_SCALE, NUMBER_SCALE, CONDITIONED_SCALE = 4.0, 10.0, 8.0  # features are divided by these; positions by 1
BINS = 1000  # of the histogram of a property at each number of atoms
RATED = 256  # molecules that the likelihood is taken of
PRESENTED = 3000 * (100_000 // 64)  # steps of the published training: epochs x batches of an epoch


class EDMRecipe(Recipe):
    """Equivariant diffusion of molecules."""

    simulated: PositiveInt = Field(600, description="Molecules to make by rule where no data are given.")
    elements: tuple[str, ...] = Field(("H", "C", "N", "O", "F"), description="Elements that atoms may be.")
    width: PositiveInt = Field(256, description="Features per atom and per pair of atoms.")
    depth: PositiveInt = Field(9, description="Blocks of the network.")
    timesteps: int = Field(1000, ge=2, le=10_000, description="Noise levels T of the diffusion.")
    walk: int = Field(
        0, ge=0, le=10_000, description="Steps in which a molecule is drawn, at most `timesteps`; 0: through all levels.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    precision: float = Field(1e-5, gt=0, lt=0.1, description="Noise variance at the first level, about twice over.")
    lr: float = Field(1e-4, gt=0, description="Learning rate of AdamW with AMSGrad.")
    warmup: int = Field(0, ge=0, description="Steps over which the learning rate rises; published: none.")
    decay: bool = Field(False, description="Let the learning rate fall to 0 on a half cosine over the steps; published: constant.")
    ema: float = Field(0.9999, ge=0, lt=1, description="Decay per step of the weight average that draws; 0: the last weights.")
    condition: tuple[str, ...] = Field((), description=f"Properties that molecules are drawn for: {', '.join(PROPERTIES)}.")
    half: Literal[0, 1] = Field(0, description="Half of the labelled molecules that a conditional model sees; the other is the judge's.")
    judge_steps: PositiveInt = Field(4000, description="Steps in which the regressor that judges a conditional model is trained.")

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [e for e in elements if ATOMIC_NUMBER.get(e, 0) == 0]
        if unknown or len(set(elements)) < len(elements) or not elements:
            raise ValueError(f"elements {', '.join(elements)}: expected different symbols up to {SYMBOLS[-1]}, such as H,C,N,O,F")
        return elements

    @field_validator("condition")
    @classmethod
    def _known_properties(cls, condition: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in condition if name not in PROPERTIES]
        if unknown:
            raise ValueError(f"no property is called {', '.join(unknown)}; known: {', '.join(PROPERTIES)}")
        return condition


# ------------------------------------------------------------------------------------------------------ what is diffused


@dataclass(frozen=True)
class Coding:
    """Atoms as numbers: one-hot elements over `element_scale`, then the atomic number over NUMBER_SCALE where `numbers`."""

    elements: tuple[str, ...]
    numbers: bool
    element_scale: float

    @classmethod
    def of(cls, recipe: EDMRecipe) -> Coding:
        return cls(recipe.elements, not recipe.condition, CONDITIONED_SCALE if recipe.condition else ELEMENT_SCALE)

    @property
    def features(self) -> int:
        return len(self.elements) + self.numbers

    @property
    def largest_scale(self) -> float:
        return max(self.element_scale, NUMBER_SCALE if self.numbers else 1.0)

    def atomic_numbers(self, device: torch.device) -> Tensor:
        return torch.tensor([ATOMIC_NUMBER[e] for e in self.elements], device=device)

    def encoded(self, molecules: Molecules, atoms: int) -> tuple[Tensor, Tensor]:
        """Positions and features of the first `atoms` atoms, (n, atoms, 3 + features), and the mask (n, atoms)."""
        numbers = molecules.numbers[:, :atoms].long()
        mask = (numbers > 0).float()
        kinds = (numbers[..., None] == self.atomic_numbers(numbers.device)).float()
        parts: list[Tensor] = [centred(molecules.positions[:, :atoms], mask), kinds / self.element_scale]
        if self.numbers:
            parts.append(numbers[..., None] / NUMBER_SCALE)
        return torch.cat(parts, -1), mask

    def atoms(self, features: Tensor) -> Tensor:
        """Atomic numbers (..., atoms) of features (..., atoms, features): the element with the largest entry."""
        found: Tensor = self.atomic_numbers(features.device)[features[..., : len(self.elements)].argmax(-1)]
        return found

    def surprise(self, features: Tensor, noisy: Tensor, sigma: Tensor, mask: Tensor) -> Tensor:
        """-log p(h | z_0) in nats, (n,): the Gaussian mass about `noisy` on +-1/2 around the atomic number, and on 1/2 ... 3/2 for
        each element, normalised over elements."""
        count = len(self.elements)
        kinds = (features[..., :count] * self.element_scale).double()
        mass = _mass(noisy[..., :count].double() * self.element_scale - 1, sigma * self.element_scale).log()
        found = ((mass.logsumexp(-1, keepdim=True) - mass) * kinds).sum(-1)
        if self.numbers:
            off = (features[..., count] - noisy[..., count]).double() * NUMBER_SCALE
            found = found - _mass(off, sigma * NUMBER_SCALE).log()
        total: Tensor = (found * mask).sum(1)
        return total


def _mass(centre: Tensor, sigma: Tensor) -> Tensor:
    """Mass of N(centre, sigma^2) on +-1/2, and a little more, so that its logarithm is finite."""
    upper, lower = ((centre + edge) / (sigma * math.sqrt(2)) for edge in (0.5, -0.5))
    mass: Tensor = 0.5 * (torch.special.erf(upper) - torch.special.erf(lower)) + 1e-10
    return mass


class Denoiser(nn.Module):
    """Noise in z (n, atoms, 3 + features) at times t / T (n,), under `context` (n, k); equivariant, without net translation."""

    def __init__(self, features: int, conditions: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.features = features
        ends = features + 1 + conditions
        self.network = EGNN(ends, ends, width=width, depth=depth)

    def forward(self, z: Tensor, time: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        n, atoms, _ = z.shape
        told = torch.cat([time[:, None], context], 1)[:, None].expand(n, atoms, -1)
        moved, h = self.network(z[..., :3], torch.cat([z[..., 3:], told], -1), mask)
        return torch.cat([centred(moved, mask), h[..., : self.features]], -1)


# ----------------------------------------------------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Targets:
    """What is known of the properties that a model is conditioned on: values of the molecules that it was trained with."""

    names: tuple[str, ...]
    atoms: Tensor  # (n,) int64
    values: Tensor  # (n, k) float32, no NaN

    @classmethod
    def of(cls, names: tuple[str, ...], training: Molecules) -> Targets:
        """Of training molecules, all of which must have the labels. Raises Refused where one has not."""
        values = training.properties[:, [PROPERTIES.index(name) for name in names]].cpu()
        if not names:
            return cls(names, torch.zeros(0, dtype=torch.int64), values[:0])
        if not len(values) or values.isnan().any():
            raise Refused(f"training molecules lack values of {', '.join(names)}; a conditional model learns from labelled ones only")
        return cls(names, training.bucket.cpu(), values)

    def told(self, values: Tensor) -> Tensor:
        """(value - mean) / mean absolute deviation over the training molecules, (n, k)."""
        if not self.names:
            return values
        mean = self.values.mean(0)
        spread = (self.values - mean).abs().mean(0).clamp_min(1e-12)
        return (values - mean.to(values)) / spread.to(values)

    def of_rows(self, molecules: Molecules) -> Tensor:
        """The properties, (n, k), NaN where not known."""
        return molecules.properties[:, [PROPERTIES.index(name) for name in self.names]]

    def filled(self, asked: Tensor, atoms: Tensor, dice: Tensor) -> Tensor:
        """`asked` (n, k) with NaN replaced by draws from the histogram of BINS bins at that number of atoms; `dice` (n, k + 1) uniform.

        All properties of a row come from one training molecule, whose bins are then drawn from evenly: each property follows
        its histogram, and they keep their correlation. Of a size never trained, the nearest.
        """
        found = asked.clone()
        for row in torch.nonzero(asked.isnan().any(1)).flatten().tolist():
            nearest = self.atoms[(self.atoms - atoms[row]).abs().argmin()]
            same = self.values[self.atoms == nearest]
            chosen = same[int(dice[row, 0] * len(same))]
            low, width = same.amin(0), (same.amax(0) - same.amin(0)) / BINS
            place = ((chosen - low) / width.clamp_min(1e-12)).floor().clamp(max=BINS - 1)
            value = low + (place + dice[row, 1:]) * width
            found[row] = torch.where(asked[row].isnan(), value, asked[row])
        return found

    def outside(self, values: Tensor) -> list[str]:
        """A line per property that `values` (n, k) leave the training range of."""
        lines = []
        for name, value, known in zip(self.names, values.T, self.values.T, strict=True):
            low, high = float(known.min()), float(known.max())
            far = value[(value < low) | (value > high)]
            if len(far):
                lines.append(f"{name} = {float(far[0]):g} {UNITS[name]} lies outside what was trained, {low:g} to {high:g} {UNITS[name]}")
        return lines


def half_of(molecules: Molecules, names: Sequence[str], which: int) -> Molecules:
    """One half of the molecules that have values of all the properties `names`: a fixed permutation of those decides, so that both
    halves are alike and have no molecule in common."""
    known = ~molecules.properties[:, [PROPERTIES.index(name) for name in names]].isnan().any(1)
    rows = np.random.default_rng(0).permutation(torch.nonzero(known).flatten().numpy())
    chosen = np.sort(rows[: len(rows) // 2] if which == 0 else rows[len(rows) // 2 :])
    if not len(chosen):
        raise Refused(f"no training molecule has values of {', '.join(names)}; moments of inertia and radius of gyration are always known")
    return molecules[torch.from_numpy(chosen)]


# -------------------------------------------------------------------------------------------------------------- learner


class EDM:
    """The network, the schedule, and how many atoms molecules have."""

    def __init__(self, recipe: EDMRecipe, sizes: Tensor, targets: Targets) -> None:
        """`sizes` (n, 2): atoms and heavy atoms of the training molecules."""
        self.recipe, self.sizes, self.targets, self.device = recipe, sizes, targets, device_of(recipe.device)
        self.coding = Coding.of(recipe)
        self.schedule = diffusion.polynomial(recipe.timesteps, precision=recipe.precision).to(self.device)
        refuse_coarse(self.schedule, self.coding.largest_scale)
        network = Denoiser(self.coding.features, len(targets.names), width=recipe.width, depth=recipe.depth).to(self.device)
        self.descent = Descent(
            network, lr=recipe.lr, weight_decay=1e-12, amsgrad=True, clip="adaptive", ema=recipe.ema,
            warmup=recipe.warmup, horizon=recipe.steps if recipe.decay else None,
        )  # fmt: skip
        self.warned = False

    # --- training ---

    def step(self, batch: Molecules) -> Mapping[str, Tensor]:
        """The published L2 objective: half the squared error of the noise, over 3 + features and the atoms that a row has room for;
        at t = 0 of the positions only, where the features' likelihood depends on no weight."""
        x, mask = self._encoded(batch)
        n, atoms, width = x.shape
        t = torch.randint(self.schedule.steps + 1, (n,), device=x.device)
        noise = self._noise(torch.randn(x.shape, device=x.device), mask)
        z = diffusion.noised(x, noise, t, self.schedule)
        context = self.targets.told(self.targets.of_rows(batch))
        error = (self._predicted(self.descent.module, z, t, context, mask) - noise).square()
        counted = torch.where((t == 0)[:, None], error[..., :3].sum((1, 2))[:, None], error.sum((1, 2))[:, None])[:, 0]
        loss = (0.5 * counted / (width * atoms)).mean()
        norm = self.descent(loss)
        return {"loss": loss.detach(), "gradient": norm}

    def _encoded(self, molecules: Molecules) -> tuple[Tensor, Tensor | None]:
        """Rows without common padding; no mask where all have one size, as they have in training."""
        fewest, most = torch.stack(torch.aminmax(molecules.bucket)).tolist()
        x, mask = self.coding.encoded(molecules, most)
        return x, None if fewest == most else mask

    def _noise(self, normal: Tensor, mask: Tensor | None) -> Tensor:
        """Standard normal numbers as noise: positions without net translation, nothing on padding."""
        features = normal[..., 3:] if mask is None else normal[..., 3:] * mask[..., None]
        return torch.cat([centred(normal[..., :3], mask), features], -1)

    def _predicted(self, network: nn.Module, z: Tensor, t: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        found: Tensor = network(z, t / self.schedule.steps, context, mask)
        return found

    # --- drawing ---

    def draw(self, like: Molecules, noise: Noise) -> Molecules:
        """New molecules with as many atoms as the rows of `like`, at the properties it names if the model is conditional."""
        return self.trace(like, noise, 1)[-1]

    def trace(self, like: Molecules, noise: Noise, frames: int) -> list[Molecules]:
        """`frames` moments of a draw, evenly spaced in steps: noise first, the drawn molecules last.

        In each an atom is of the element that its features say then, and hydrogens stand last: places change between frames.
        """
        # A number of atoms gives its hydrogens; as a size it is kept by construction, which of them are hydrogens is not.
        if bool(((like.given > 0) & (like.numbers > 1) | (like.given >= POSITION_GIVEN)).any()):
            raise Refused("molecules.edm cannot keep given atoms or elements: ask for a number of atoms (molecules.flow takes more)")
        device, sizes = self.device, like.bucket.cpu()
        walk = self.recipe.walk or self.schedule.steps
        levels = self.schedule.chosen(min(walk, self.schedule.steps)).tolist()
        kept = set(np.linspace(0, len(levels) - 1, frames).round().astype(int)[:-1].tolist())
        context = self._context(like, noise).to(device)
        widest = int(sizes.max())
        groups = list(self._groups(sizes))
        fresh = noise.normal(widest, 3 + self.coding.features)
        state = [self._noise(fresh[rows, :atoms].to(device), None) for rows, atoms in groups]
        seen = []
        for place in range(len(levels) - 1, -1, -1):
            if len(levels) - 1 - place in kept:
                seen.append(self._molecules(state, groups, like))
            fresh = noise.normal(widest, 3 + self.coding.features)
            for k, (rows, atoms) in enumerate(groups):
                given = fresh[rows, :atoms].to(device)
                state[k] = self._towards(state[k], levels[place], levels[place - 1] if place else None, context[rows], given)
        return [*seen, self._molecules(state, groups, like)]

    @torch.no_grad()
    def _towards(self, z: Tensor, t: int, s: int | None, context: Tensor, fresh: Tensor) -> Tensor:
        """One ancestral step from level t to s, or, from level 0, the draw of positions given z_0."""
        now = torch.full((len(z),), t, device=z.device)
        predicted = self._predicted(self.descent.average, z, now, context, None).nan_to_num(0.0, 0.0, 0.0)
        noise = self._noise(fresh, None)
        if s is None:
            x = diffusion.data_of(z, predicted, now, self.schedule)[..., :3]
            x = x + (0.5 * self.schedule.gamma[0]).exp().to(z) * noise[..., :3]
            return torch.cat([centred(x), z[..., 3:]], -1)
        z = diffusion.ancestral(z, predicted, noise, now, torch.full_like(now, s), self.schedule)
        return torch.cat([centred(z[..., :3]), z[..., 3:]], -1)

    def _groups(self, sizes: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Rows that go through the network together, and their number of atoms. On the processor a molecule goes alone: a matrix
        product of another height may differ in the last bit, and a draw must not depend on its neighbours."""
        if self.device.type == "cpu":
            yield from ((torch.tensor([row]), atoms) for row, atoms in enumerate(sizes.tolist()))
        else:
            yield from ((torch.nonzero(sizes == atoms).flatten(), atoms) for atoms in sorted(set(sizes.tolist())))

    def _context(self, like: Molecules, noise: Noise) -> Tensor:
        """What each row is told, (n, k)."""
        if not self.targets.names:
            return torch.zeros(len(like), 0)
        asked = self.targets.of_rows(like).cpu()
        lines = self.targets.outside(asked)
        if lines and not self.warned:
            self.warned = True
            warnings.warn("; ".join(lines), stacklevel=4)
        return self.targets.told(self.targets.filled(asked, like.bucket.cpu(), noise.uniform(len(self.targets.names) + 1)))

    def _molecules(self, state: Sequence[Tensor], groups: Sequence[tuple[Tensor, int]], like: Molecules) -> Molecules:
        """States of all groups as molecules, one row per row of `like` and as wide."""
        n, width = like.numbers.shape
        numbers, positions = torch.zeros(n, width, dtype=torch.int64), torch.zeros(n, width, 3)
        for z, (rows, atoms) in zip(state, groups, strict=True):
            numbers[rows, :atoms] = self.coding.atoms(z[..., 3:]).cpu()
            positions[rows, :atoms] = centred(z[..., :3]).cpu()
        return assembled(numbers, positions)

    # --- likelihood ---

    @torch.no_grad()
    def nll(self, molecules: Molecules, noise: Noise) -> Tensor:
        """An unbiased estimate of the bound on -log p(molecule, number of atoms) in nats, (n,) float64: one level per molecule.

        T/2 (SNR(t-1)/SNR(t) - 1) |noise - predicted|^2 + L_0 + prior KL - log p(N), with densities of positions (in 1/Angstrom) in the
        3 (N - 1) dimensions of zero centre of mass. Infinite for a number of atoms that no training molecule has. Raises Refused
        for an element the model does not know.
        """
        self._refuse_unknown(molecules)
        last = self.schedule.steps
        x, mask = self.coding.encoded(molecules, int(molecules.bucket.max()))
        t = 1 + (noise.uniform(1)[:, 0] * last).long().clamp(max=last - 1).to(x.device)
        normal = [noise.normal(*x.shape[1:]).to(x.device) for _ in range(2)]
        context = self._known(molecules)
        error = self._errors(x, mask, normal[0], t, context)[0].sum((1, 2))
        bound = 0.5 * last * self.schedule.bound_weight(t, t - 1) * error
        first, z = self._errors(x, mask, normal[1], torch.zeros_like(t), context)
        freedom = 3 * (mask.sum(1).double() - 1)
        constants = freedom * (0.5 * self.schedule.gamma[0] + 0.5 * math.log(2 * math.pi))
        features = self.coding.surprise(x[..., 3:], z[..., 3:], self.schedule.sigma(0), mask)
        start = 0.5 * first[..., :3].sum((1, 2)) + constants + features
        kl = diffusion.prior_kl(x, freedom + self.coding.features * mask.sum(1), self.schedule)
        return (bound + start + kl).cpu() - self._log_sizes(molecules.bucket.cpu())

    def _errors(self, x: Tensor, mask: Tensor, normal: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors of the predicted noise (n, atoms, 3 + features), float64, and the noised z."""
        noise = self._noise(normal, mask)
        z = diffusion.noised(x, noise, t, self.schedule)
        found = torch.zeros_like(z)
        sizes = mask.sum(1).long()
        for atoms in sorted(set(sizes.tolist())):
            for part in torch.split(torch.nonzero(sizes == atoms).flatten(), 64):
                found[part, :atoms] = self._predicted(self.descent.average, z[part, :atoms], t[part], context[part], None)
        return (found - noise).double().square(), z

    def _known(self, molecules: Molecules) -> Tensor:
        values = self.targets.of_rows(molecules)
        if values.isnan().any():
            raise Refused(f"the likelihood of a conditional model needs {', '.join(self.targets.names)} of every molecule")
        return self.targets.told(values)

    def _log_sizes(self, atoms: Tensor) -> Tensor:
        """log p(N) by the training molecules, (n,) float64."""
        counts = torch.bincount(self.sizes[:, 0], minlength=int(atoms.max()) + 1).double()
        return (counts / counts.sum()).log()[atoms]

    def _refuse_unknown(self, molecules: Molecules) -> None:
        known = torch.tensor([0, *self.coding.atomic_numbers(torch.device("cpu")).tolist()], device=molecules.numbers.device)
        strange = sorted(set(molecules.numbers[~torch.isin(molecules.numbers.long(), known)].tolist()))
        if strange:
            names = ", ".join(SYMBOLS[z] for z in strange)
            raise Refused(f"molecules hold {names}, but the model is of {', '.join(self.coding.elements)}; name them in `elements`")

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict() | self._learnt()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights and what was learnt from the training molecules: all that drawing needs."""
        return {f"average.{k}": v for k, v in self.descent.average.state_dict().items()} | self._learnt()

    def ask(self, n: int, conditions: Mapping[str, str]) -> Molecules:
        """A template of n rows under `conditions` (asking.py), with sizes like those of the training molecules. Raises Refused for what
        this model cannot be asked."""
        refuse_conditions(self.recipe, conditions)
        return asking.ask(self.sizes, n, conditions, self.coding.atomic_numbers(torch.device("cpu")).tolist())

    def _learnt(self) -> dict[str, Tensor]:
        return {"learnt.sizes": self.sizes, "learnt.atoms": self.targets.atoms, "learnt.values": self.targets.values}


def refuse_coarse(schedule: Schedule, largest_scale: float) -> None:
    """Raise Refused where eight standard deviations of the first level's noise reach from one scaled integer to the next."""
    sigma = float(schedule.sigma(0))
    if 8 * sigma >= 1 / largest_scale:
        raise Refused(
            f"the least noise, {sigma:.2g}, blurs features divided by {largest_scale:g}: 8 x {sigma:.2g} must stay below "
            f"{1 / largest_scale:.2g}; lower `precision`"
        )


def assembled(numbers: Tensor, positions: Tensor) -> Molecules:
    """Molecules of atomic numbers (n, atoms) int64, 0 for padding, and positions (n, atoms, 3): heavy atoms moved to the front,
    bonds unknown, no charges, and the properties that follow from the geometry."""
    rank = torch.where(numbers > 1, 0, torch.where(numbers == 1, 1, 2))
    order = rank.argsort(dim=1, stable=True)
    sorted_numbers = numbers.gather(1, order).to(torch.uint8)
    placed = positions.gather(1, order[..., None].expand(-1, -1, 3)).float().contiguous()
    there = sorted_numbers > 0
    bonds = torch.where(there[:, :, None] & there[:, None], UNKNOWN, 0).to(torch.int8)
    values = torch.from_numpy(data.geometric_properties(sorted_numbers.numpy(), placed.numpy()))
    nothing = torch.zeros_like(sorted_numbers)
    return Molecules(sorted_numbers, placed, nothing.to(torch.int8), bonds, values, nothing)


def stable_trace(learner: EDM, like: Molecules, *, seed: int, frames: int, attempts: int = 20) -> tuple[list[Molecules], int]:
    """Frames of a draw that ends in stable molecules (`protocols.edm`), as the article shows, and how many attempts it took.

    Seeds `seed`, `seed` + 1, ... are tried. Such a film shows what the model can do, not what it usually does: a rate of success is
    not to be read from it. Raises Refused after `attempts`.
    """
    for attempt in range(attempts):
        film = learner.trace(like, Noise(seed + attempt, range(len(like))), frames)
        if bool(protocols.edm(film[-1]).stable.all()):
            return film, attempt + 1
    raise Refused(f"no stable molecule in {attempts} attempts; train longer, ask for fewer atoms, or allow more attempts")


# ---------------------------------------------------------------------------------------------------------------- study


def load(recipe: EDMRecipe) -> Split[Molecules]:
    """Your molecules, or molecules made by rule; of training, for a conditional model, one half of those with labels."""
    split = data.load(data=recipe.data, seed=recipe.seed, simulated=recipe.simulated)
    if not recipe.condition:
        return split
    train = half_of(split.train, recipe.condition, recipe.half)
    origin = f"{split.origin}; half {recipe.half} of those with {', '.join(recipe.condition)} trains: {len(train):,}"
    return Split(train, split.validation, split.held_out, origin, split.files, split.rejected)


def build(recipe: EDMRecipe, training: Molecules) -> EDM:
    """The learner of `recipe`, with the sizes and properties of the training molecules. Raises Refused for other elements."""
    learner = EDM(recipe, torch.stack([training.bucket, training.heavy], 1), Targets.of(recipe.condition, training))
    learner._refuse_unknown(training)
    return learner


def restore(recipe: EDMRecipe, state: Mapping[str, Tensor]) -> EDM:
    """The learner that `to_ship` or `state_dict` describes, to draw with."""
    learnt = under(state, "learnt")
    learner = EDM(recipe, learnt["sizes"], Targets(recipe.condition, learnt["atoms"], learnt["values"]))
    learner.descent.average.load_state_dict(under(state, "average"))
    return learner


def refuse_conditions(recipe: EDMRecipe, conditions: Mapping[str, str]) -> None:
    """Raise Refused for conditions that the model of `recipe` does not know."""
    for name in ("formula", "fix"):
        if name in conditions:
            raise Refused(f"molecules.edm cannot be asked for `{name}`: its elements come out of the diffusion; molecules.flow can")
    asked = [part.split("=")[0].strip() for part in conditions.get("property", "").split(",") if "=" in part]
    unknown = [name for name in asked if name not in recipe.condition]
    if unknown:
        learnt = f"was trained with {', '.join(recipe.condition)}" if recipe.condition else "was trained without properties"
        raise Refused(f"{', '.join(unknown)} was asked for, but this model {learnt}; train one with --condition {','.join(unknown)}")


@functools.lru_cache(maxsize=4)
def _training_sizes(path: Path | None, seed: int, simulated: int) -> Tensor:
    return asking.sizes(data.load(data=path, seed=seed, simulated=simulated).train)


def ask(recipe: EDMRecipe, n: int, conditions: Mapping[str, str]) -> Molecules:
    """A template of n rows under `conditions`, with sizes like those of the training molecules that `recipe` loads."""
    refuse_conditions(recipe, conditions)
    sizes = _training_sizes(recipe.data, recipe.seed, recipe.simulated)
    return asking.ask(sizes, n, conditions, [ATOMIC_NUMBER[e] for e in recipe.elements])


def examine(learner: EDM, split: Split[Molecules], seed: int) -> tuple[list[Finding], list[Check]]:
    """The likelihood of held-out molecules, and what a conditional model achieved of what it was asked (conditional.py)."""
    if not learner.recipe.condition:
        return [], _likelihood(learner, split, seed)
    others, regressor = _judge(learner.recipe)
    names, count = learner.recipe.condition, learner.recipe.draws
    findings, checks = conditional.judged(learner, names, split.held_out, others, regressor=regressor, count=count, seed=seed)
    return findings, [*_likelihood(learner, split, seed), *checks]


def figures(learner: EDM, split: Split[Molecules], seed: int) -> list[Figure]:
    """A sweep through each property of a conditional model."""
    if not learner.recipe.condition:
        return []
    others, regressor = _judge(learner.recipe)
    if len(others) < conditional.FEWEST:
        return []
    return [conditional.swept(learner, name, others, regressor=regressor, seed=seed) for name in learner.recipe.condition]


@functools.lru_cache(maxsize=1)
def _judge(recipe: EDMRecipe) -> tuple[Molecules, Regressor | None]:
    """The half of the labelled training molecules that the model of `recipe` has not seen, and a regressor trained on it of those
    properties that positions alone do not decide; None where they all do, or there are too few to learn from."""
    split = data.load(data=recipe.data, seed=recipe.seed, simulated=recipe.simulated)
    others = half_of(split.train, recipe.condition, 1 - recipe.half)
    learnt = [name for name in recipe.condition if name not in conditional.GEOMETRIC]
    if not learnt or len(others) < conditional.FEWEST:
        return others, None
    return others, remembered(others, learnt, Effort(steps=recipe.judge_steps), device_of(recipe.device))


def _likelihood(learner: EDM, split: Split[Molecules], seed: int) -> list[Check]:
    """The likelihood of held-out molecules, beside that of as many training molecules: a model that learnt them by heart gives them a
    higher one. Rows of sizes or elements that training lacks, or without the properties of a conditional model, are left out."""
    parts = [_rateable(learner, molecules) for molecules in (split.held_out, split.train)]
    if min(len(part) for part in parts) < 2:
        return []
    values = [learner.nll(part, Noise(seed, range(len(part)))) for part in parts]
    (held, error), (trained, other) = ((float(v.mean()), float(v.std()) / math.sqrt(len(v))) for v in values)
    check = Check(
        "bound on -log likelihood of held-out molecules, nats", held, error, "within two standard errors of training molecules, or below",
        held < trained + 2 * math.hypot(error, other), {"training molecules": trained},
    )  # fmt: skip
    return [check]


def _rateable(learner: EDM, molecules: Molecules) -> Molecules:
    """At most RATED molecules, evenly spread, that the learner can give a likelihood to."""
    known = torch.isin(molecules.numbers.long(), torch.tensor([0, *(ATOMIC_NUMBER[e] for e in learner.recipe.elements)])).all(1)
    known &= torch.isin(molecules.bucket, learner.sizes[:, 0]) & ~learner.targets.of_rows(molecules).isnan().any(1)
    rows = torch.nonzero(known).flatten()
    chosen = rows[torch.linspace(0, len(rows) - 1, min(len(rows), RATED)).round().long()]
    return molecules[chosen].to(learner.device)


study = Study(
    title="Equivariant diffusion of molecules",
    source="Hoogeboom et al. 2022, Equivariant diffusion for molecule generation in 3D, arXiv:2203.17003",
    recipes={
        "quick": EDMRecipe(
            width=32, depth=3, timesteps=1000, walk=40, lr=1e-3, warmup=20, decay=True, ema=0.99, steps=300, batch=16, draws=60, threads=1,
            judge_steps=300,
        ),
        "laptop": EDMRecipe(
            width=96, depth=6, walk=100, lr=1e-3, warmup=500, decay=True, ema=0.998, steps=7_000, batch=32, draws=500, threads=1,
        ),
        "paper": EDMRecipe(steps=PRESENTED, batch=64, draws=10_000),
    },
    expect={
        "quick": "34 s of processor time on one core of a busy 2-core machine",
        "laptop": "QM9: 57 min on one thread of a busy 2-core machine to train, 8 min to draw 500",
        "paper": "4,686,000 steps, 3.5 s each on one core of a CPU (extrapolated, not run); meant for a GPU",
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
    examine=examine,
    figures=figures,
    restore=restore,
    conditions={name: exchange.CONDITIONS[name] for name in ("atoms", "property")},
    formats=exchange.FORMATS,
    export=exchange.export,
    summary=exchange.summary,
    models=exchange.models,
    citation="""@inproceedings{hoogeboom2022edm,
  title = {Equivariant Diffusion for Molecule Generation in {3D}},
  author = {Hoogeboom, Emiel and Garcia Satorras, Víctor and Vignac, Clément and Welling, Max},
  booktitle = {International Conference on Machine Learning},
  year = {2022},
  eprint = {2203.17003},
}""",
)  # fmt: skip
