"""What can be measured in molecules, and the verdict on molecules that claim to come from the same nature.

The independent thing is the molecule. Bonds, angles and torsions of one molecule are not independent, so their laws pool all values
and everything that resamples (halves, permutations, bootstrap) takes or leaves whole molecules; distance: Wasserstein-1 of the
pooled laws. Counts per molecule (rings of a size, a functional group) are compared by the sum over kinds of the Wasserstein-1 of
the laws of each count, in counts per molecule: what would have to be added or taken away. Laws look at values between fixed ends,
stated by the axis; a value beyond counts as the end.

How many atoms a molecule has is a condition and no finding where nature and drawn have equal sizes (a drawn molecule completes a
row of nature): halves and permutations are then taken within each size.

Every molecule counts, broken ones too. Bonds that nobody stated are read from the distances by the table of Hoogeboom et al. 2022.
A molecule that RDKit can sanitise has its aromatic bonds by RDKit's model, however it was written; one that it cannot is measured
as drawn. Published scores (atom and molecule stability, validity ...) stand among the checks, by the protocols of protocols.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rdkit
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import KDTree

from simulacra.evidence import Check, Evidence, Statistic, compare, counted, distribution
from simulacra.measures import distance
from simulacra.sciences.molecules import descriptors
from simulacra.sciences.molecules.checks import published_scores
from simulacra.sciences.molecules.data import BONDS, PROPERTIES, UNKNOWN, Molecules, geometric_properties
from simulacra.sciences.molecules.descriptors import GROUPS, RINGS, Graph, Values, bond_kind
from simulacra.sciences.molecules.perception import perceive
from simulacra.study import Refused

Array = NDArray[np.float64]

LENGTHS = {  # type of bond: (lighter element, heavier element, index in BONDS, middle of the axis in Angstrom)
    "C-H": (1, 6, 1, 1.09), "N-H": (1, 7, 1, 1.01), "O-H": (1, 8, 1, 0.96),
    "C-C": (6, 6, 1, 1.52), "C=C": (6, 6, 2, 1.34), "C≡C": (6, 6, 3, 1.20), "C:C aromatic": (6, 6, 4, 1.39),
    "C-N": (6, 7, 1, 1.45), "C=N": (6, 7, 2, 1.27), "C≡N": (6, 7, 3, 1.16), "C:N aromatic": (6, 7, 4, 1.36),
    "C-O": (6, 8, 1, 1.41), "C=O": (6, 8, 2, 1.21), "C:O aromatic": (6, 8, 4, 1.37),
    "N-N": (7, 7, 1, 1.40), "N=N": (7, 7, 2, 1.25), "N:N aromatic": (7, 7, 4, 1.33), "N-O": (7, 8, 1, 1.40),
    "N:O aromatic": (7, 8, 4, 1.41), "C-F": (6, 9, 1, 1.35), "C-S": (6, 16, 1, 1.81), "C:S aromatic": (6, 16, 4, 1.73),
    "C-Cl": (6, 17, 1, 1.74), "C-Br": (6, 35, 1, 1.91),
}  # fmt: skip
KINDS = {bond_kind(a, b, order): name for name, (a, b, order, _) in LENGTHS.items()}
REACH, LENGTH_STEP = 0.4, 0.01  # Angstrom about the middle, and between the nodes of the grid
OTHER_BONDS = "other bonds"
CENTRES = {"C": 6, "N": 7, "O": 8, "S": 16}
TORSIONS = {"dihedral angle (heavy atoms)": 1, "dihedral angle (to hydrogen)": 0}
ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
CHARGES = (-2, -1, 1, 2)
MOST = 100  # counts per molecule beyond which a kind is not counted further
ENOUGH = 30  # molecules of nature that must have a type of bond for its lengths to be judged
LOOKED_AT = 1500  # molecules per side for the tests that look at all pairs of molecules
NOISE, TREMBLE = 0.1, 0.01  # Angstrom, of the rivals "noise" and "copied training molecules"

NOISY, ONE, SWAPPED = "noise of 0.1 Å", "one molecule repeated", "atoms in each other's places"
IONS, COPIED = "every molecule an ion", "copied training molecules"


# ----------------------------------------------------------------------------------------------------------- measuring


class _Sheet:
    """One set of molecules and what the statistics read of it, measured when first asked for, `repeat` times over."""

    def __init__(self, molecules: Molecules, graph: Graph, repeat: int = 1) -> None:
        self.molecules, self.graph, self._repeat = molecules, graph, repeat
        self.numbers, self.positions = molecules.numbers.numpy(), molecules.positions.numpy().astype(np.float64)
        self.charges = molecules.charges.numpy().astype(np.int64)
        self._known: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.molecules) * self._repeat

    def once(self, name: str) -> Any:
        """Measured once per molecule: rows, or Values."""
        if name not in self._known:
            self._known[name] = _MEASURES[name](self)
        return self._known[name]

    def rows(self, name: str) -> Array:
        """One row per molecule, repeats included."""
        return self.repeated(self.once(name))

    def repeated(self, rows: Array) -> Array:
        return np.repeat(rows, self._repeat, axis=0)

    def put(self, name: str, rows: Array) -> None:
        self._known[name] = rows


def _geometry(measure: Callable[[Any, Any, Any], Any]) -> Callable[[_Sheet], Any]:
    return lambda sheet: measure(sheet.numbers, sheet.positions, sheet.graph.bonds)


def _elements(sheet: _Sheet) -> Array:
    kinds = [sheet.numbers == z for z in ELEMENTS.values()]
    other = (sheet.numbers > 0) & ~np.isin(sheet.numbers, list(ELEMENTS.values()))
    return np.stack([k.sum(1) for k in [*kinds, other]], axis=1).astype(float)


def _bond_types(sheet: _Sheet) -> Array:
    """Bonds of each type of LENGTHS, and others, per molecule."""
    lengths = sheet.once("lengths")
    index = {kind: i for i, kind in enumerate(KINDS)}
    column = np.array([index.get(k, len(index)) for k in lengths.kind.tolist()], np.int64)
    width = len(index) + 1
    counts = np.bincount(lengths.row * width + column, minlength=len(sheet.molecules) * width)
    return np.asarray(counts.reshape(-1, width), np.float64)


def _hydrogen_bonding(sheet: _Sheet) -> Array:
    """Hydrogens on N and O, and N and O without hydrogen, per molecule."""
    hydrogens = ((sheet.graph.bonds > 0) & (sheet.numbers == 1)[:, None]).sum(2)
    polar = np.isin(sheet.numbers, (7, 8))
    return np.stack([(hydrogens * polar).sum(1), (polar & (hydrogens == 0)).sum(1)], axis=1).astype(float)


def _size(sheet: _Sheet) -> Array:
    geometry = geometric_properties(sheet.numbers, sheet.molecules.positions.numpy())
    return np.asarray(geometry[:, PROPERTIES.index("radius_of_gyration") :], np.float64)


_MEASURES: dict[str, Callable[[_Sheet], Any]] = {
    "lengths": _geometry(descriptors.bond_lengths),
    "angles": _geometry(descriptors.bond_angles),
    "dihedrals": _geometry(descriptors.dihedrals),
    "contact": _geometry(descriptors.closest_contact),
    "size": _size,
    "elements": _elements,
    "bond types": _bond_types,
    "rings": lambda sheet: sheet.graph.rings.astype(float),
    "groups": lambda sheet: sheet.graph.groups.astype(float),
    "rotatable": lambda sheet: sheet.graph.rotatable.astype(float)[:, None],
    "charges": lambda sheet: np.stack([(sheet.charges.clip(-2, 2) == c).sum(1) for c in CHARGES], axis=1).astype(float),
    "atoms": lambda sheet: (sheet.numbers > 0).sum(1).astype(float)[:, None],
    "heavy atoms": lambda sheet: (sheet.numbers > 1).sum(1).astype(float)[:, None],
    "hydrogen bonding": _hydrogen_bonding,
    "raw features": lambda sheet: _raw_features(sheet),
}


def _raw_features(sheet: _Sheet) -> Array:
    """What the tests of all measurements at once look at, (n, features), before it is brought to one scale."""
    orders = np.stack([(sheet.graph.bonds == k).sum((1, 2)) / 2 for k in range(2, len(BONDS))], axis=1)
    atoms = np.maximum((sheet.numbers > 0).sum(1), 1)
    size = sheet.once("size")
    strain, heavy_chains = _strain(sheet.once("lengths")), _only(sheet.once("dihedrals"), 1)
    columns = [
        sheet.once("elements"), orders, sheet.once("rings"), sheet.once("rotatable"), sheet.once("hydrogen bonding"),
        (sheet.charges != 0).sum(1)[:, None], size[:, :1], size[:, 1:3] / np.maximum(size[:, 3:], 1e-9),
        np.log(atoms)[:, None], sheet.once("contact")[:, None],
        *(_mean_and_spread(values, len(sheet.molecules)) for values in (strain, sheet.once("angles"), heavy_chains)),
    ]  # fmt: skip
    return np.concatenate(columns, axis=1)


def _only(values: Values, kind: int) -> Values:
    of = values.kind == kind
    return Values(values.row[of], values.value[of], values.kind[of])


def _strain(lengths: Values) -> Values:
    """Lengths less the usual one of their type, at most 1 Angstrom off; types without a usual one are left out."""
    usual = {kind: LENGTHS[name][3] for kind, name in KINDS.items()}
    known = np.isin(lengths.kind, list(usual))
    row, value, kind = lengths.row[known], lengths.value[known], lengths.kind[known]
    return Values(row, (value - np.array([usual[k] for k in kind.tolist()])).clip(-1, 1), kind)


def _mean_and_spread(values: Values, n: int) -> Array:
    """Mean and standard deviation per molecule, (n, 2); NaN where a molecule has no such value."""
    count = np.bincount(values.row, minlength=n).astype(float)
    count[count == 0] = np.nan
    mean = np.bincount(values.row, values.value, minlength=n) / count
    spread = np.bincount(values.row, (values.value - mean[values.row]) ** 2, minlength=n) / count
    return np.stack([mean, np.sqrt(spread)], axis=1)


def shared_between_nodes(values: Values, n: int, grid: Array) -> Array:
    """Each molecule's values laid on an even grid, (n, nodes): a value between two nodes is shared so that its mean is kept, so a
    shift of all values by less than a step still moves the law by exactly that much. Values beyond the ends count as the ends."""
    place = (np.clip(values.value, grid[0], grid[-1]) - grid[0]) / (grid[1] - grid[0])
    left = np.minimum(place.astype(np.int64), len(grid) - 2)
    at = values.row * len(grid) + left
    upper = place - left
    size = n * len(grid)
    laid = np.bincount(at, 1 - upper, minlength=size) + np.bincount(at + 1, upper, minlength=size)
    return np.asarray(laid.reshape(n, len(grid)), np.float64)


# ------------------------------------------------------------------------------------------------- statistics of new shape


def pooled_wasserstein(step: float) -> distance.Distance:
    """W1 between laws that pool all values of all molecules, from `shared_between_nodes` with nodes `step` apart; in the unit of
    the values. A law without any value is as far from any other as the axis is long; two such laws are equal."""

    def between(values: Array, p: Array, q: Array) -> Array:
        a, b = p @ values, q @ values
        many, many_too = a.sum(1), b.sum(1)
        gap = a / np.maximum(many, 1e-300)[:, None] - b / np.maximum(many_too, 1e-300)[:, None]
        found = np.abs(np.cumsum(gap, axis=1)[:, :-1]).sum(1) * step
        empty, empty_too = many == 0, many_too == 0
        return np.where(empty & empty_too, 0.0, np.where(empty | empty_too, step * (values.shape[1] - 1), found))

    return between


def _pooled(name: str, unit: str, about: str, measure: Callable[[_Sheet], Values], grid: Array, rival: str, what: str) -> Statistic[_Sheet]:
    step = float(grid[1] - grid[0])

    def curve(values: Array, weights: Array) -> Array:
        mass = weights @ values
        return np.asarray(mass / np.maximum(mass.sum(1, keepdims=True), 1e-300) / step)

    return Statistic(
        name, f"density per {unit}", f"{about} Distance: Wasserstein-1 of the laws that pool all values.",
        lambda sheet: sheet.repeated(shared_between_nodes(measure(sheet), len(sheet.molecules), grid)),
        pooled_wasserstein(step), rival, f"{what} ({unit})", grid, curve, bars=True,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- judge


def judge(
    nature: Molecules, drawn: Molecules, *, seed: int, training: Molecules | None = None, permutations: int = 999, halves: int = 100
) -> Evidence:
    """Held-out against drawn molecules; neither side knows where the other came from. Of the larger side as many molecules are chosen
    at random as the smaller one has; published scores take all.

    Rivals, each wrong in the way that its statistic should notice: `noise of 0.1 Å` on every coordinate for laws of the geometry,
    `one molecule repeated` (the one of nature nearest to the mean of the features: no diversity) for size, composition and graph,
    `every molecule an ion` (the first atom +1) for formal charges, `atoms in each other's places` (places permuted within the
    molecule) for torsions and precision, `copied training molecules` (turned, with noise of 0.01 Å) for memorisation.
    """
    _comparable(nature, drawn)
    rng = np.random.default_rng([seed, 0x3D3D])
    sheets: dict[str, _Sheet] = {}
    remarks = [f"Graphs were read by RDKit {rdkit.__version__}."]
    both, few = {"nature": nature, "drawn": drawn}, min(len(nature), len(drawn))
    for name, molecules in both.items():
        both[name], perceived = with_bonds(molecules)
        known = both[name] if len(molecules) == few else both[name][np.sort(rng.permutation(len(molecules))[:few]).tolist()]
        sheets[name] = _Sheet(known, descriptors.read_graphs(known))
        remarks += _remarks(name, sheets[name], perceived, len(molecules))
    remarks.append(_put_conditions(sheets))
    sheets |= _rivals(sheets["nature"], rng)
    _add_features(sheets, rng)
    chosen, left_out = _statistics(sheets)
    checks, told = _checks(sheets, both, seed)
    if training is not None:
        copied, check, remark = _memorised(sheets, with_bonds(training)[0], rng)
        chosen, checks, told = [*chosen, copied], [*checks, check], [*told, remark]
    rivals = {name: sheet for name, sheet in sheets.items() if name not in ("nature", "drawn")}
    evidence = compare(
        chosen, sheets["nature"], sheets["drawn"], rivals, seed=seed, condition=lambda sheet: sheet.rows("condition"),
        permutations=permutations, halves=halves,
    )  # fmt: skip
    return dataclasses.replace(evidence, checks=checks, remarks=[*remarks, *left_out, *told])


def _checks(sheets: Mapping[str, _Sheet], both: Mapping[str, Molecules], seed: int) -> tuple[list[Check], list[str]]:
    noisy, one, ions = (sheets[name].molecules for name in (NOISY, ONE, IONS))
    unread = dataclasses.replace(noisy, bonds=noisy.bonds.new_full(noisy.bonds.shape, UNKNOWN))
    rivals = {NOISY: noisy, f"{NOISY}, bonds by the EDM table": perceive(unread), ONE: one, IONS: ions}
    return published_scores(both["nature"], both["drawn"], rivals, seed=seed)


def _comparable(nature: Molecules, drawn: Molecules) -> None:
    if min(len(nature), len(drawn)) < 20:
        raise Refused(f"{len(nature)} molecules of nature and {len(drawn)} drawn; fewer than 20 on a side cannot be told apart: draw more")


def with_bonds(molecules: Molecules) -> tuple[Molecules, int]:
    """The molecules with bonds read from the distances where nobody stated them, and how many those were."""
    unknown = int((molecules.bonds == UNKNOWN).flatten(1).any(1).sum())
    return perceive(molecules.to("cpu")), unknown


def _remarks(name: str, sheet: _Sheet, perceived: int, total: int) -> list[str]:
    n = len(sheet.molecules)
    charged, broken = int((sheet.charges.sum(1) != 0).sum()), int((~sheet.graph.sanitises).sum())
    parts = int(sum("." in smiles for smiles in sheet.graph.smiles))
    found = [
        f"{name}: {n} molecules, {len(set(sheet.graph.smiles))} different; {broken} do not sanitise, {parts} fall into several "
        f"pieces, {charged} are not neutral; all of them count."
    ]
    if n < total:
        found.append(
            f"{name}: {n} of {total} molecules were chosen at random, since equal numbers are compared; published scores take all."
        )
    if perceived:
        found.append(f"{name}: nobody stated the bonds of {perceived} molecules; they are read from the distances by the EDM table.")
    return found


def _put_conditions(sheets: Mapping[str, _Sheet]) -> str:
    """What nature gives to each drawn molecule, as far as both sides show it: atoms, else heavy atoms, else nothing."""
    for what in ("atoms", "heavy atoms"):
        if _same(sheets, what):
            for sheet in sheets.values():
                sheet.put("condition", sheet.once(what)[:, 0])
            return f"Nature and drawn have equal numbers of {what}: a condition, within which halves and permutations are taken."
    for sheet in sheets.values():
        sheet.put("condition", np.zeros(len(sheet)))
    return "Nature and drawn differ in their numbers of atoms, which are judged as a finding of their own."


# --------------------------------------------------------------------------------------------------------------- rivals


def _rivals(nature: _Sheet, rng: np.random.Generator) -> dict[str, _Sheet]:
    real = (nature.numbers > 0)[..., None]
    noisy = nature.positions + NOISE * rng.normal(size=nature.positions.shape) * real
    return {
        NOISY: _moved(nature, noisy),
        SWAPPED: _moved(nature, _in_other_places(nature, rng)),
        IONS: _ions(nature),
        ONE: _repeated(nature),
    }


def _moved(sheet: _Sheet, positions: Array) -> _Sheet:
    """The same graphs at other positions."""
    at = sheet.molecules.positions.new_tensor(positions)
    return _Sheet(dataclasses.replace(sheet.molecules, positions=at), sheet.graph)


def _ions(sheet: _Sheet) -> _Sheet:
    charges = sheet.molecules.charges.clone()
    charges[:, 0] = 1
    return _Sheet(dataclasses.replace(sheet.molecules, charges=charges), sheet.graph)


def _in_other_places(sheet: _Sheet, rng: np.random.Generator) -> Array:
    real = sheet.numbers > 0
    order = np.argsort(np.where(real, rng.random(real.shape), 2.0), axis=1)
    return np.take_along_axis(sheet.positions, order[..., None], axis=1)


def _repeated(nature: _Sheet) -> _Sheet:
    values = nature.once("raw features")
    with np.errstate(invalid="ignore", divide="ignore"):
        off = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
    typical = int(np.argmin((np.where(np.isfinite(off), off, 0.0) ** 2).sum(1)))
    graph = nature.graph
    one = Graph(*(getattr(graph, f.name)[typical : typical + 1] for f in dataclasses.fields(graph)))
    return _Sheet(nature.molecules[typical : typical + 1], one, len(nature))


def _copies(training: Molecules, rng: np.random.Generator) -> _Sheet:
    rows = np.sort(rng.choice(len(training), min(LOOKED_AT, len(training)), replace=False))
    chosen = training[rows.tolist()]
    turns = stats.special_ortho_group.rvs(3, size=len(rows), random_state=rng).reshape(-1, 3, 3)
    at = chosen.positions.numpy() @ turns
    at += TREMBLE * rng.normal(size=at.shape) * (chosen.numbers > 0).numpy()[..., None]
    return _Sheet(dataclasses.replace(chosen, positions=chosen.positions.new_tensor(at)), _no_graph())


def _no_graph() -> Graph:
    nothing = np.zeros((0, 0), np.int64)
    return Graph(np.zeros((0, 0, 0), np.int8), np.zeros(0, bool), nothing, nothing, np.zeros(0, np.int64), [])


# ---------------------------------------------------------------------------------------------- all measurements at once


def _add_features(sheets: Mapping[str, _Sheet], rng: np.random.Generator) -> None:
    """Vectors for the tests that look at all measurements at once, on scales set by nature and drawn alike.

    Scales must not know which is which, or the permutation test would not be exact. What a molecule does not have (a contact in
    methane) is the median. At most LOOKED_AT molecules of a side, chosen at random, are looked at; the other rows are NaN.
    """
    seen = ("nature", "drawn", ONE, SWAPPED)
    both = np.concatenate([sheets[s].rows("raw features") for s in ("nature", "drawn")])
    known = [column[np.isfinite(column)] for column in both.T]
    centre = np.array([np.median(c) if len(c) else 0.0 for c in known])
    scale = np.array([c.std() if len(c) > 1 and c.std() > 1e-9 else 1.0 for c in known])
    for s in seen:
        raw = sheets[s].once("raw features")
        vectors = (np.where(np.isfinite(raw), raw, centre) - centre) / scale
        sheets[s].put("features", vectors)
        kept = np.zeros(len(sheets[s]), bool)
        kept[rng.permutation(len(kept))[:LOOKED_AT]] = True
        sheets[s].put("looked at", np.where(kept[:, None], sheets[s].repeated(vectors), np.nan))


def _joint() -> list[Statistic[_Sheet]]:
    what = (
        "Features: atoms per element, multiple and aromatic bonds, rings, rotatable bonds, hydrogen bonding, charges, radius of gyration, "
        "ratios of the moments of inertia, size, closest contact, mean and spread of lengths, angles and torsions; standardised. "
    )
    kinds: Sequence[tuple[str, str, distance.Distance, str, bool]] = (
        (
            "classifier two-sample test",
            "Share beyond one half of molecules whose nearest neighbour has their origin.",
            distance.neighbour_test,
            ONE,
            True,
        ),
        ("energy distance", "Energy distance of the feature vectors.", distance.energy, ONE, True),
        ("coverage (share missed)", "Share of nature that no drawn molecule comes near.", distance.missed, ONE, False),
        ("precision (share outside)", "Share of drawn molecules outside nature.", distance.unlikely, SWAPPED, False),
    )
    grid = np.linspace(0, 15, 46)
    return [
        Statistic(
            name, "density", what + about, lambda sheet: sheet.once("looked at"), rule, rival, "distance of the features from their median",
            (grid[1:] + grid[:-1]) / 2, _radial(grid), tested=tested, bars=True,
        )
        for name, about, rule, rival, tested in kinds
    ]  # fmt: skip


def _radial(bins: Array) -> Callable[[Array, Array], Array]:
    def curve(values: Array, weights: Array) -> Array:
        radius = np.clip(np.linalg.norm(values, axis=1), bins[0], bins[-1] - 1e-9)
        column = np.searchsorted(bins, radius, side="right") - 1
        return np.asarray(weights @ np.eye(len(bins) - 1)[column] / np.diff(bins), np.float64)

    return curve


# --------------------------------------------------------------------------------------------------------- memorisation


def _memorised(sheets: dict[str, _Sheet], training: Molecules, rng: np.random.Generator) -> tuple[Statistic[_Sheet], Check, str]:
    sheets[COPIED] = _copies(training, rng)
    _add_nearest(sheets, training)
    check, remark = memorisation_ratio(sheets["nature"], sheets["drawn"], training)
    return _memorisation(), check, remark


def _add_nearest(sheets: Mapping[str, _Sheet], training: Molecules) -> None:
    """log10 of 1 + the distance to the nearest training molecule, for at most LOOKED_AT of each side, else NaN."""
    width = max(int(m.heavy.max()) for m in (training, *(s.molecules for s in sheets.values())))
    spectra = descriptors.coulomb_spectrum(training.numbers.numpy(), training.positions.numpy(), width)
    reference = KDTree(spectra)
    for name in ("nature", "drawn", COPIED):
        sheet = sheets[name]
        found = np.full((len(sheet), 1), np.nan)
        rows = np.linspace(0, len(sheet) - 1, min(len(sheet), LOOKED_AT)).astype(int)
        apart, _ = reference.query(descriptors.coulomb_spectrum(sheet.numbers[rows], sheet.positions[rows], width))
        found[rows, 0] = np.log10(1 + apart)
        sheet.put("memorisation", found)


def _memorisation() -> Statistic[_Sheet]:
    about = (
        "log10(1 + Euclidean distance in Hartree) of the eigenvalues of the heavy atoms' Coulomb matrix to the nearest training molecule. "
        "Distance: how far drawn lies closer to training than held-out nature does (one-sided Wasserstein-1). No part of the verdict: "
        "held-out molecules were parted from training, and a generator that finds nature's molecules anew, training ones among them, "
        "must lie closer; whether it prefers training is what the memorisation ratio says."
    )
    return distribution(
        "memorisation", "dex", about, lambda sheet: sheet.once("memorisation"), np.linspace(0, 1.5, 46), rival=COPIED,
        distance=distance.shortfall, tested=False,
    )  # fmt: skip


def memorisation_ratio(nature: _Sheet, drawn: _Sheet, training: Molecules) -> tuple[Check, str]:
    """(Hits in training / |training|) / (hits in held-out / |held-out|), hits being drawn molecules whose canonical SMILES is there.

    1: training molecules are drawn as often as others of the same nature that were never shown. Not defined without a hit in
    held-out; not met where so few of the hits would fall on held-out by chance once in a hundred (binomial). Error: Poisson.
    """
    known = set(_possible_copies(training, nature, drawn)) - {""}
    held_out = set(nature.graph.smiles) - {""}
    in_training = sum(smiles in known for smiles in drawn.graph.smiles)
    in_held_out = sum(smiles in held_out for smiles in drawn.graph.smiles)
    leaked = sum(smiles in known for smiles in nature.graph.smiles)
    ratio, error = float("nan"), float("nan")
    if in_held_out:
        ratio = in_training / len(training) / (in_held_out / len(nature))
        error = ratio * float(np.sqrt(1 / max(in_training, 1) + 1 / in_held_out))
    share = len(nature) / (len(nature) + len(training))
    chance = float(stats.binom.cdf(in_held_out, in_training + in_held_out, share))
    beside = {"drawn in training": in_training, "drawn in held-out": in_held_out, "chance of so few in held-out": chance}
    check = Check("memorisation ratio", ratio, error, "1, and not above it beyond chance (1 in 100)", chance > 0.01, beside)
    n = len(drawn)
    remark = (
        f"Novelty: {1 - in_training / n:.1%} of {n} drawn molecules have a canonical SMILES that training lacks; held-out nature: "
        f"{1 - leaked / len(nature):.1%}. Where nature is an enumeration (QM9), high novelty is no virtue."
    )
    return check, remark


def _possible_copies(training: Molecules, *sheets: _Sheet) -> list[str]:
    """Canonical SMILES of those training molecules whose skeleton some molecule of the sheets has."""
    asked = np.unique(np.concatenate([descriptors.skeleton_hash(sheet.molecules) for sheet in sheets]))
    rows = np.flatnonzero(np.isin(descriptors.skeleton_hash(training), asked))
    return descriptors.canonical_smiles(training[rows.tolist()])


# ----------------------------------------------------------------------------------------------------------- statistics


def _statistics(sheets: Mapping[str, _Sheet]) -> tuple[list[Statistic[_Sheet]], list[str]]:
    nature, drawn = sheets["nature"], sheets["drawn"]
    chosen: list[Statistic[_Sheet]] = []
    rare = []
    types = nature.once("bond types") > 0
    for column, name in enumerate([*LENGTHS, OTHER_BONDS]):
        carriers = int(types[:, column].sum())
        if carriers >= ENOUGH:
            chosen.append(_length(name))
        elif carriers or (drawn.once("bond types")[:, column] > 0).any():
            rare.append(f"{name} ({carriers})")
    for symbol, z in CENTRES.items():
        if (nature.once("angles").kind == z).sum() >= ENOUGH:
            chosen.append(_angle(symbol, z))
    for name, kind in TORSIONS.items():
        if (nature.once("dihedrals").kind == kind).sum() >= ENOUGH:
            chosen.append(_dihedral(name, kind))
    if np.isfinite(nature.once("contact")).sum() >= ENOUGH and np.isfinite(drawn.once("contact")).sum() >= 4:
        chosen.append(_contact())
    chosen += [*_extents(nature), *_compositions(sheets), *_joint()]
    remarks = [f"Lengths not judged, since fewer than {ENOUGH} molecules of nature have the bond: {', '.join(rare)}."] if rare else []
    return chosen, remarks


def _length(name: str) -> Statistic[_Sheet]:
    if name in LENGTHS:
        lighter, heavier, order, middle = LENGTHS[name]
        kind = bond_kind(lighter, heavier, order)
        grid = middle + np.arange(-REACH, REACH + LENGTH_STEP / 2, LENGTH_STEP)
        return _pooled(f"length {name}", "Å", "Length of every such bond.", lambda s: _only(s.once("lengths"), kind), grid, NOISY, "length")
    grid = np.arange(0.5, 3.0 + LENGTH_STEP / 2, LENGTH_STEP)
    about = "Length of every bond of a type that has no axis of its own."
    return _pooled(f"length, {name}", "Å", about, lambda s: _others(s.once("lengths")), grid, NOISY, "length")


def _others(lengths: Values) -> Values:
    of = ~np.isin(lengths.kind, list(KINDS))
    return Values(lengths.row[of], lengths.value[of], lengths.kind[of])


def _angle(symbol: str, z: int) -> Statistic[_Sheet]:
    about = f"Angle of every two bonds that meet at {symbol}."
    return _pooled(f"bond angle at {symbol}", "°", about, lambda s: _only(s.once("angles"), z), np.linspace(0, 180, 181), NOISY, "angle")


def _dihedral(name: str, kind: int) -> Statistic[_Sheet]:
    about = "|Dihedral angle| of every chain a-b-c-d about a single bond b-c of heavy atoms; its sign changes in a mirror and is dropped."
    return _pooled(name, "°", about, lambda s: _only(s.once("dihedrals"), kind), np.linspace(0, 180, 91), SWAPPED, "|dihedral|")


def _contact() -> Statistic[_Sheet]:
    about = "Smallest distance of two atoms at least three bonds apart, per molecule; distance: Wasserstein-1."
    return distribution("closest contact", "Å", about, lambda s: s.rows("contact"), np.linspace(0, 4, 81), rival=NOISY)


def _extents(nature: _Sheet) -> list[Statistic[_Sheet]]:
    names = (
        ("radius of gyration", "Å", "Root of the mass-weighted mean square distance to the centre of mass."),
        ("smallest moment of inertia", "u Å²", "Smallest eigenvalue of the inertia tensor."),
        ("middle moment of inertia", "u Å²", "Middle eigenvalue of the inertia tensor."),
        ("largest moment of inertia", "u Å²", "Largest eigenvalue of the inertia tensor."),
    )
    ends = 1.5 * nature.once("size").max(axis=0) + 1e-6
    return [
        distribution(name, unit, f"{about} Distance: Wasserstein-1.", _column("size", i), np.linspace(0, ends[i], 61), rival=ONE)
        for i, (name, unit, about) in enumerate(names)
    ]


def _column(name: str, i: int) -> Callable[[_Sheet], Array]:
    return lambda sheet: sheet.rows(name)[:, i]


def _compositions(sheets: Mapping[str, _Sheet]) -> list[Statistic[_Sheet]]:
    kinds = (
        ("atoms by element", "Atoms per molecule of each element", [*ELEMENTS, "others"], "elements", ONE),
        ("bonds by type", "Bonds per molecule of each type", [*LENGTHS, OTHER_BONDS], "bond types", ONE),
        ("rings by size", "Rings per molecule of each size (smallest set of smallest rings)", list(RINGS), "rings", ONE),
        ("functional groups", "Groups per molecule of each kind, by SMARTS", list(GROUPS), "groups", ONE),
        ("rotatable bonds", "Rotatable bonds per molecule", ["rotatable bonds"], "rotatable", ONE),
        ("formal charges", "Atoms per molecule of each formal charge", ["-2 or less", "-1", "+1", "+2 or more"], "charges", IONS),
        ("atoms per molecule", "Atoms per molecule, hydrogens included", ["atoms"], "atoms", ONE),
    )
    given = _same(sheets, "atoms")
    return [
        counted(name, "molecule", about, categories, _rows(measure), rival=rival, most=_most(sheets, measure))
        for name, about, categories, measure, rival in kinds
        if not (given and measure == "atoms")
    ]


def _rows(name: str) -> Callable[[_Sheet], Array]:
    return lambda sheet: sheet.rows(name)


def _same(sheets: Mapping[str, _Sheet], name: str) -> bool:
    nature, drawn = (np.sort(sheets[s].once(name)[:, 0]) for s in ("nature", "drawn"))
    return np.array_equal(nature, drawn)


def _most(sheets: Mapping[str, _Sheet], measure: str) -> int:
    """The largest count that has to be told apart."""
    return min(max(int(max(sheets[s].once(measure).max() for s in ("nature", "drawn"))), 1), MOST)
