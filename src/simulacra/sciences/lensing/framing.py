"""What the generators of convergence maps share: the maps they learn from, the universes that can be asked for, pictures."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from simulacra.sciences.lensing import data, statistics
from simulacra.sciences.lensing.data import UNIVERSE, Maps
from simulacra.study import Recipe, Refused, Split

SIMULATED_DEGREES = 3.5  # side of simulated maps
FEWEST = 60  # maps of the recipe's side that can be divided into three parts
HELD_OUT, VALIDATION = 1 << 20, 1 << 21  # added to the seed: other random streams than those of training maps

CONDITIONS = {
    "omega_m": "Share of matter in the universe; several, separated by commas, are drawn in turn.",
    "sigma_8": "Scatter of matter in spheres of 8 Mpc/h; the same.",
    "w": "Equation of state of dark energy, -1 for a cosmological constant; the same.",
    "z_source": "Redshift of the lensed galaxies; the same.",
}


class LensingRecipe(Recipe):
    """Which maps to learn from; without data, log-normal maps are simulated (needs pyccl)."""

    side: int = Field(64, ge=16, le=256, description="Pixels along one edge of a map, a power of two; larger maps of yours are cut.")
    degrees: float | None = Field(
        None, gt=0, le=20, description="Side of a map in degrees: of simulated ones (none: 3.5), or of yours where files lack it."
    )
    omega_m: tuple[float, ...] = Field((0.2, 0.3, 0.4), description="Matter densities of the simulated training universes.")
    sigma_8: tuple[float, ...] = Field((0.6, 0.8, 1.0), description="Amplitudes of matter fluctuations of those; all pairs are simulated.")
    w: float = Field(-1.0, ge=-2, le=-0.3, description="Equation of state of dark energy in simulated universes.")
    z_source: tuple[float, ...] = Field((1.0,), description="Redshifts of the sources in simulated universes; all combinations.")
    each: PositiveInt = Field(800, description="Training maps simulated per universe.")
    judged_omega_m: tuple[float, ...] = Field(
        (0.25, 0.35, 0.27), description="Matter densities of the held-out universes, none of which needs to be one of training."
    )
    judged_sigma_8: tuple[float, ...] = Field((0.7, 0.9, 0.85), description="Amplitudes of those, one for each; first of the redshifts.")
    judged_each: PositiveInt = Field(400, description="Held-out maps simulated per held-out universe.")
    redshifts: tuple[float, ...] = Field((), description="Source redshifts to keep of your maps; none: all that the file has.")

    @field_validator("side")
    @classmethod
    def _power_of_two(cls, side: int) -> int:
        if side & (side - 1):
            raise ValueError(f"side {side} is not a power of two; use 16, 32, 64, 128 or 256")
        return side


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: LensingRecipe) -> Split[Maps]:
    """Your maps, or simulated ones whose held-out part shows universes that training does not.

    Larger maps than the recipe's are cut into patches and split by place on the sky; maps of the recipe's side are taken for
    independent and split at random. Maps with unobserved pixels take no part in training.
    """
    found = _simulated(recipe) if recipe.data is None else _given(recipe, recipe.data)
    whole = ~found.train.kappa.isnan().flatten(1).any(1)
    if int(whole.sum()) < 10:
        raise Refused(
            f"{int(whole.sum())} of {len(whole)} training maps are observed in every pixel; a generator learns from whole maps: cut "
            "smaller patches with --side, or fill the gaps"
        )
    lines = [] if bool(whole.all()) else [f"{int((~whole).sum())} training maps set aside: pixels were not observed"]
    return Split(
        found.train[whole], found.validation, found.held_out, found.origin, found.files, [*found.rejected, *lines]
    )  # fmt: skip


def _simulated(recipe: LensingRecipe) -> Split[Maps]:
    from simulacra.sciences.lensing.simulate import Universe, simulate

    if len(recipe.judged_omega_m) != len(recipe.judged_sigma_8):
        raise Refused(
            f"{len(recipe.judged_omega_m)} judged_omega_m and {len(recipe.judged_sigma_8)} judged_sigma_8; give one of each per universe"
        )
    trained = [Universe(o, s, recipe.w, z) for o, s, z in itertools.product(recipe.omega_m, recipe.sigma_8, recipe.z_source)]
    judged = [Universe(o, s, recipe.w, recipe.z_source[0]) for o, s in zip(recipe.judged_omega_m, recipe.judged_sigma_8, strict=True)]
    degrees = recipe.degrees or SIMULATED_DEGREES
    train, validation, held_out = (
        simulate(universes, each, side=recipe.side, degrees=degrees, seed=recipe.seed + stream)
        for universes, each, stream in (
            (trained, recipe.each, 0), (judged, min(recipe.judged_each, 50), VALIDATION), (judged, recipe.judged_each, HELD_OUT)
        )
    )  # fmt: skip
    unseen = len(set(judged) - set(trained))
    line = (
        f"simulated log-normal maps, {recipe.side} px, {degrees:g} degrees: {len(train)} of {len(trained)} universes to learn from, "
        f"{len(held_out)} of {len(judged)} held out ({unseen} of these universes are not in training)"
    )
    digest = hashlib.sha256(train.kappa.numpy().tobytes() + held_out.kappa.numpy().tobytes()).hexdigest()
    return Split(train, validation, held_out, line, {line: digest})


def _given(recipe: LensingRecipe, path: Path) -> Split[Maps]:
    found = data.read(path, recipe.degrees)
    if found.side < recipe.side:
        raise Refused(f"{path}: maps of {found.side} px, but the recipe wants {recipe.side}; add --side {_power_below(found.side)}")
    if found.side > recipe.side:
        return data.light_cone(path, recipe.side, recipe.redshifts or None, degrees=recipe.degrees)
    kept = found if not recipe.redshifts else found[data.rows_of(found, recipe.redshifts)]
    if len(kept) < FEWEST:
        raise Refused(f"{path}: {len(kept)} map{'' if len(kept) == 1 else 's'} of {kept.side} px; {FEWEST} or more can be divided")
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(recipe.seed))
    tenth = max(len(kept) // 10, min(25, len(kept) // 3))
    parts = kept[order[2 * tenth :]], kept[order[tenth : 2 * tenth]], kept[order[:tenth]]
    sums = {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    return Split(*parts, f"{path.name}: {len(kept)} maps of {kept.side} px, taken for independent and divided at random", sums)


def _power_below(side: int) -> int:
    return int(2 ** math.floor(math.log2(side)))


def read(path: Path) -> Maps:
    """Maps that any program wrote; their file says how wide they are."""
    return data.read(path)


def read_as(path: Path, recipe: LensingRecipe) -> Maps:
    """The same at the recipe's side: larger maps are cut into patches."""
    found = data.read(path, recipe.degrees)
    return found if found.side == recipe.side else data.cut(found, recipe.side)[0]


# -------------------------------------------------------------------------------------------------------------- asking


def ask(recipe: LensingRecipe, n: int, conditions: Mapping[str, str]) -> Maps:
    """A template of n maps in the asked universes, in turn; what is not asked for is as usual in training. A learner knows more of
    what can be asked for than its recipe (`gaussian.Law.asked`)."""
    return template(recipe.side, recipe.degrees or SIMULATED_DEGREES, n, conditions)


def template(side: int, degrees: float, n: int, conditions: Mapping[str, str]) -> Maps:
    """n empty maps in the asked universes, in turn; nan where nothing is asked."""
    unknown = set(conditions) - set(UNIVERSE)
    if unknown:
        raise Refused(f"maps are drawn for a universe, not for {', '.join(sorted(unknown))}; --omega_m 0.3 --sigma_8 0.8")
    columns = []
    for name in UNIVERSE:
        try:
            values = [float(text) for text in conditions.get(name, "nan").split(",")]
        except ValueError:
            raise Refused(f"{name} {conditions[name]!r} is not a number; e.g. --{name} 0.3, or --{name} 0.25,0.35") from None
        columns.append(torch.tensor(values)[torch.arange(n) % len(values)])
    return Maps(torch.zeros(n, side, side), torch.full((n,), degrees), torch.stack(columns, 1))


def caption(maps: Maps) -> list[str]:
    """The universe of each map, as far as it is known."""
    signs = ("\N{GREEK CAPITAL LETTER OMEGA}m", "\N{GREEK SMALL LETTER SIGMA}8", "w", "z")
    return [
        " ".join(f"{sign} {value:.3g}" for sign, value in zip(signs, row, strict=True) if math.isfinite(value))
        for row in maps.universe.tolist()
    ]


# ------------------------------------------------------------------------------------------------------------- pictures


def picture(maps: Maps) -> NDArray[np.float32]:
    """(n, side, side, 3) in [0, 1]: from -2 to 5 standard deviations of all maps together; unobserved pixels grey."""
    from matplotlib import colormaps

    kappa = maps.kappa.double().cpu().numpy()
    seen = np.isfinite(kappa)
    spread = float(kappa[seen].std()) or 1.0
    shown = colormaps["inferno"](np.clip((np.where(seen, kappa, 0) / spread + 2) / 7, 0, 1))[..., :3]
    shown[~seen] = 0.5
    return np.asarray(shown, np.float32)


def turned(g: Tensor) -> Tensor:
    """Maps (n, 1, side, side), each turned or flipped at random: the sky has no preferred direction."""
    way = torch.randint(8, (len(g), 1, 1, 1)).to(g.device)
    g = torch.where((way & 1).bool(), g.flip(2), g)
    g = torch.where((way & 2).bool(), g.flip(3), g)
    return torch.where((way & 4).bool(), g.transpose(2, 3), g)


def of_universe(maps: Maps) -> Sequence[tuple[str, Maps]]:
    """The maps of each universe, with its name in words."""
    key = torch.nan_to_num(maps.universe, nan=-9.0)
    each, which = torch.unique(key, dim=0, return_inverse=True)
    groups = [maps[which == number] for number in range(len(each))]
    return [(caption(group[:1])[0] or "all maps", group) for group in groups]


SYSTEM: dict[str, Any] = {  # fields of every study here
    "load": load, "judge": statistics.judge, "read": read, "read_as": read_as, "write": data.write, "ask": ask, "picture": picture,
    "caption": caption, "conditions": CONDITIONS,
}  # fmt: skip
