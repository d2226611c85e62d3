"""What the generators of showers share: the showers they learn from, the energies and particles that can be asked for, pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator, model_validator

from simulacra.sciences.calorimeter import reading, statistics
from simulacra.sciences.calorimeter.data import PARTICLES, Showers
from simulacra.sciences.calorimeter.simulate import HIGHEST, LOWEST, SAMPLING, simulate
from simulacra.study import Recipe, Refused, Split

FEWEST = 100  # showers of yours that can be divided into three parts
APART = 0.1  # relative distance that training keeps from the energies that it must not know
HELD_OUT, VALIDATION = 1 << 20, 1 << 21  # added to the seed: other random streams than those of training showers
CODES = {name: code for code, name in PARTICLES.items()}
GOLDEN = (math.sqrt(5) - 1) / 2

CONDITIONS = {
    "incident": "Energy of the incoming particle in GeV; several, separated by commas, are drawn in turn.",
    "particle": "electron, photon or positron (or 1, 0, -1); several, separated by commas, the same.",
}


class ShowerRecipe(Recipe):
    """Which showers to learn from; without data they are simulated."""

    cells: int = Field(12, ge=6, le=32, description="Cells along each of the three edges of the simulated calorimeter.")
    simulated: PositiveInt = Field(20_000, description="Training showers to simulate where no data are given.")
    lowest: float = Field(10.0, ge=LOWEST, le=HIGHEST, description="Least incident energy of simulated training showers, in GeV.")
    highest: float = Field(100.0, ge=LOWEST, le=HIGHEST, description="Largest of it, in GeV; between both, logarithms are uniform.")
    particles: tuple[Literal["electron", "photon", "positron"], ...] = Field(
        ("electron", "photon"), min_length=1, description="Incoming particles of simulated showers, in turn."
    )
    judged: tuple[float, ...] = Field(
        (12.0, 20.0, 35.0, 50.0, 85.0), min_length=1, description="Incident energies in GeV of the simulated showers that judge."
    )
    unseen: tuple[float, ...] = Field(
        (20.0, 50.0), description="Energies in GeV around which, within 10 %, simulated training has no showers: can they be interpolated?"
    )
    judged_each: PositiveInt = Field(400, description="Held-out showers simulated at each of the judged energies.")
    grid: tuple[int, int, int] | None = Field(
        None, description="Layers, rows and columns of your voxels where the file does not say: 45,16,9. None: as in the file."
    )
    unit: Literal["MeV", "keV", "GeV"] | None = Field(None, description="Unit of your cells' energies; none: MeV (3DGAN's files: GeV).")
    particle: Literal["electron", "photon", "positron"] = Field("electron", description="What came in, where your file does not say.")
    calibrated: bool | None = Field(
        None, description="Your responses are calibrated to scatter around 1, so that single showers may show more than came in; none: "
        "true of CaloChallenge's files."
    )  # fmt: skip

    @model_validator(mode="after")
    def _a_range(self) -> ShowerRecipe:
        if not self.lowest * (1 + 2 * APART) < self.highest:
            raise ValueError(f"lowest {self.lowest:g} and highest {self.highest:g} GeV leave no range to learn from")
        return self

    @field_validator("judged")
    @classmethod
    def _within_the_simulator(cls, judged: tuple[float, ...]) -> tuple[float, ...]:
        if not all(LOWEST <= energy <= HIGHEST for energy in judged):
            raise ValueError(f"judged energies {judged} GeV; showers are simulated from {LOWEST:g} to {HIGHEST:g} GeV")
        return judged

    def layout(self) -> reading.Layout:
        """What the recipe says about the user's file."""
        return reading.Layout(self.grid, self.unit, CODES[self.particle], self.calibrated)


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: ShowerRecipe) -> Split[Showers]:
    """Your showers, divided at random, or simulated ones that are judged at energies of which training knows some and others not."""
    return _simulated(recipe) if recipe.data is None else _given(recipe, recipe.data)


def _simulated(recipe: ShowerRecipe) -> Split[Showers]:
    codes = np.array([CODES[name] for name in recipe.particles])
    energies = training_energies(recipe, recipe.simulated)
    train = simulate(energies, codes[np.arange(len(energies)) % len(codes)], recipe.cells, seed=recipe.seed)
    held_out, validation = (
        _at_judged(recipe, codes, each, recipe.seed + stream)
        for each, stream in ((recipe.judged_each, HELD_OUT), (min(recipe.judged_each, 50), VALIDATION))
    )
    unseen = [energy for energy in recipe.judged if not _known(recipe, energy)]
    kinds = " and ".join(f"{name}s" for name in recipe.particles)
    line = (
        f"{len(train)} simulated showers of {kinds} of {recipe.lowest:g} to {recipe.highest:g} GeV in {recipe.cells}^3 cells, which see "
        f"{SAMPLING:.0%} of the energy, to learn from; {len(held_out)} of {_listed(recipe.judged)} GeV held out"
        + (f", of which training knows nothing near {_listed(unseen)} GeV" if unseen else "")
    )
    digest = hashlib.sha256(train.energy.numpy().tobytes() + held_out.energy.numpy().tobytes()).hexdigest()
    return Split(train, validation, held_out, line, {line: digest})


def _listed(energies: Sequence[float]) -> str:
    return ", ".join(f"{energy:g}" for energy in energies)


def training_energies(recipe: ShowerRecipe, n: int) -> NDArray[np.float64]:
    """n energies in GeV, logarithms uniform over the recipe's range without the neighbourhoods of `unseen`."""
    low, high = math.log(recipe.lowest), math.log(recipe.highest)
    gaps = [(math.log(e * (1 - APART)), math.log(e * (1 + APART))) for e in sorted(recipe.unseen) if recipe.lowest <= e <= recipe.highest]
    marks = np.clip([low, *(edge for gap in gaps for edge in gap), high], low, high)
    marks = np.maximum.accumulate(marks)  # neighbourhoods may overlap
    starts, lengths = marks[::2], np.maximum(np.diff(marks)[::2], 0)
    if lengths.sum() <= 0.05:
        raise Refused(f"unseen energies {recipe.unseen} GeV leave nothing between {recipe.lowest:g} and {recipe.highest:g} GeV; name fewer")
    place = np.random.default_rng([recipe.seed, 0xCA10]).random(n) * lengths.sum()
    piece = np.searchsorted(np.cumsum(lengths), place, side="right").clip(max=len(lengths) - 1)
    return np.asarray(np.exp(starts[piece] + place - (np.cumsum(lengths) - lengths)[piece]), np.float64)


def _known(recipe: ShowerRecipe, energy: float) -> bool:
    inside = recipe.lowest <= energy <= recipe.highest
    return inside and not any(abs(energy / unseen - 1) < APART for unseen in recipe.unseen)


def _at_judged(recipe: ShowerRecipe, codes: NDArray[Any], each: int, seed: int) -> Showers:
    """Showers at the judged energies in turn, particles in turn at each."""
    place = np.arange(each * len(recipe.judged))
    energies = np.array(recipe.judged)[place % len(recipe.judged)]
    return simulate(energies, codes[place // len(recipe.judged) % len(codes)], recipe.cells, seed=seed)


def _given(recipe: ShowerRecipe, path: Path) -> Split[Showers]:
    found, rejected = reading.read_good(path, recipe.layout())
    if len(found) < FEWEST:
        raise Refused(f"{path}: {len(found)} showers that can be used; {FEWEST} or more can be divided into three parts")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(recipe.seed))
    held, tenth = max(len(found) // 5, min(len(found) // 3, 500)), len(found) // 10
    train, validation, held_out = found[order[held + tenth :]], found[order[held : held + tenth]], found[order[:held]]
    low, high = float(found.incident.min()), float(found.incident.max())
    energies = f"{low:.4g} GeV" if high / low < 1.01 else f"{low:.4g} to {high:.4g} GeV"
    line = f"{path.name}: {len(found)} showers of {energies} in {' x '.join(map(str, found.grid))} cells, divided at random"
    return Split(train, validation, held_out, line, {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}, rejected)


def read_as(path: Path, recipe: ShowerRecipe) -> Showers:
    """Showers that any program wrote, laid out as the recipe says."""
    return reading.read(path, recipe.layout())


def export(found: Showers, path: Path, known: Path | None) -> None:
    """Showers in a format of the field; they are not compared with known ones."""
    if known is not None:
        raise Refused("showers are not compared with known ones while they are written; simulacra judge does that")
    reading.write(found, path)


# -------------------------------------------------------------------------------------------------------------- asking


def ask(recipe: ShowerRecipe, n: int, conditions: Mapping[str, str]) -> Showers:
    """A template of n showers; what is not asked for is as in simulated training. A learner knows what its own training was."""
    codes = tuple(CODES[name] for name in recipe.particles)
    return template(recipe.grid or (recipe.cells,) * 3, n, conditions, (recipe.lowest, recipe.highest), codes)


def template(
    grid: tuple[int, int, int], n: int, conditions: Mapping[str, str], energies: tuple[float, float], particles: Sequence[int]
) -> Showers:
    """n empty showers of the asked energies and particles in turn, all pairs of them; where nothing is asked, energies spread evenly in
    their logarithm between the two `energies` in GeV, and `particles` in turn."""
    unknown = set(conditions) - set(CONDITIONS)
    if unknown:
        strange = ", ".join(sorted(unknown))
        raise Refused(f"showers are drawn for an energy and a particle, not for {strange}; e.g. --incident 50 --particle photon")
    place = torch.arange(n)
    codes = _codes(conditions["particle"]) if "particle" in conditions else list(particles)
    particle = torch.tensor(codes, dtype=torch.int8)[place % len(codes)]
    turn = place // len(codes)
    if "incident" in conditions:
        asked = _energies(conditions["incident"])
        incident = torch.tensor(asked, dtype=torch.float32)[turn % len(asked)]
    else:
        low, high = math.log(energies[0]), math.log(energies[1])
        share = (turn.double() + 1) * GOLDEN % 1
        incident = torch.exp(low + (high - low) * share).float()
    return Showers(torch.zeros(n, *grid), incident, particle)


def _energies(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise Refused(f"incident {text!r} is not a number; give GeV, e.g. --incident 50, or --incident 20,50") from None
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise Refused(f"incident {text!r}: energies are more than 0 GeV")
    return values


def _codes(text: str) -> list[int]:
    known = CODES | {str(code): code for code in PARTICLES}
    try:
        return [known[part.strip().lower()] for part in text.split(",")]
    except KeyError as error:
        raise Refused(f"particle {error.args[0]!r} is not known; one of {', '.join(CODES)}") from None


def caption(found: Showers) -> list[str]:
    """What came in."""
    return [f"{PARTICLES[int(p)]}, {e:.3g} GeV" for p, e in zip(found.particle.tolist(), found.incident.tolist(), strict=True)]


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(found: Showers) -> NDArray[np.float32]:
    """(n, height, width, 3) in [0, 1]: each shower from the side (depth to the right, rows downwards), and, beyond a line, from the front
    (columns to the right). Colours are logarithms of the summed energies, over four decades below the brightest of all; nothing: black."""
    from matplotlib import colormaps

    energy = found.energy.double().cpu().numpy()
    side, front = energy.sum(axis=3).transpose(0, 2, 1), energy.sum(axis=1)
    brightest = max(float(side.max()), float(front.max()), 1e-12)
    panels = []
    for view in (side, front):
        height = np.clip(1 + np.log10(np.maximum(view, brightest * 1e-9) / brightest) / 4, 0, 1)
        panels.append(np.where(view[..., None] > 0, colormaps["inferno"](height)[..., :3], 0.0))
    line = np.ones((len(energy), side.shape[1], 1, 3))
    whole = np.concatenate([panels[0], line, panels[1]], axis=2)
    each = max(1, 48 // whole.shape[1])
    return np.asarray(whole.repeat(each, axis=1).repeat(each, axis=2), np.float32)


SYSTEM: dict[str, Any] = {  # fields of every study here
    "load": load, "judge": statistics.judge, "read": reading.read, "read_as": read_as, "write": reading.write, "ask": ask,
    "picture": picture, "caption": caption, "conditions": CONDITIONS, "formats": reading.HDF5, "export": export,
}  # fmt: skip
