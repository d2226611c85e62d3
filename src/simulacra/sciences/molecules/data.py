"""Molecules as tensors, and QM9: where they come from and how the bonds of a geometry are known.

A sample of nature is one molecule in one conformation. QM9 (Ramakrishnan et al. 2014, Sci. Data 1:140022) holds 133,885 molecules
of up to nine heavy atoms, relaxed with B3LYP/6-31G(2df,p). Its geometries carry no bonds; they are taken from the SMILES of the
same record, laid onto the geometry by matching heavy atoms with their hydrogen counts (`bonds_from_smiles`), so no bond is guessed
from a distance alone. Records where geometry and SMILES tell two molecules are set aside and counted.

Needs rdkit: pip install "simulacra[chem]".
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra import __version__
from simulacra.runs import sha256, write_atomically
from simulacra.study import Refused, Samples, Split

SYMBOLS = (
    "*", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr",
    "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag",
    "Cd", "In", "Sn", "Sb", "Te", "I",
)  # fmt: skip
ATOMIC_NUMBER = {symbol: number for number, symbol in enumerate(SYMBOLS)}
BONDS = ("none", "single", "double", "triple", "aromatic")  # index = value in Molecules.bonds
UNKNOWN = -1  # value in Molecules.bonds where no program said which atoms are bonded
PROPERTIES = ("alpha", "gap", "homo", "lumo", "mu", "cv", "radius_of_gyration", "inertia_a", "inertia_b", "inertia_c")
UNITS = {
    "alpha": "Bohr^3", "gap": "eV", "homo": "eV", "lumo": "eV", "mu": "D", "cv": "cal/mol/K",
    "radius_of_gyration": "Angstrom", "inertia_a": "u Angstrom^2", "inertia_b": "u Angstrom^2", "inertia_c": "u Angstrom^2",
}  # fmt: skip
ELEMENT_GIVEN, POSITION_GIVEN = 1, 2  # values of Molecules.given
HELD_OUT = 15_000  # molecules of QM9's validation part that are kept to judge with


@dataclass(frozen=True)
class Molecules(Samples):
    """Molecules, padded to the largest: heavy atoms first, then hydrogens, then nothing (atomic number 0).

    What `draw` is asked for stands in `given`, per atom: 0 only that the atom exists, 1 (ELEMENT_GIVEN) its element too,
    2 (POSITION_GIVEN) its element, charge and position, and its bonds to other given atoms. Nature gives nothing away.
    """

    numbers: Tensor  # (n, atoms) uint8, atomic numbers
    positions: Tensor  # (n, atoms, 3) float32, Angstrom; 0 where there is no atom
    charges: Tensor  # (n, atoms) int8, formal charges in units of e
    bonds: Tensor  # (n, atoms, atoms) int8, symmetric, index into BONDS, or UNKNOWN throughout a molecule
    properties: Tensor  # (n, len(PROPERTIES)) float32 in UNITS, NaN where not known
    given: Tensor  # (n, atoms) uint8

    @property
    def bucket(self) -> Tensor:
        """Atoms per molecule, hydrogens included: (n,) int64."""
        return (self.numbers > 0).sum(1)

    @property
    def heavy(self) -> Tensor:
        """Heavy atoms per molecule: (n,) int64."""
        return (self.numbers > 1).sum(1)

    def check(self) -> None:
        n, atoms = self.numbers.shape
        expected = {
            "numbers": ((n, atoms), torch.uint8), "positions": ((n, atoms, 3), torch.float32), "charges": ((n, atoms), torch.int8),
            "bonds": ((n, atoms, atoms), torch.int8), "properties": ((n, len(PROPERTIES)), torch.float32), "given": ((n, atoms), torch.uint8),
        }  # fmt: skip
        for name, value in self.fields().items():
            if (tuple(value.shape), value.dtype) != expected[name]:
                raise Refused(f"{name} has shape {tuple(value.shape)} and type {value.dtype}; expected {expected[name]}")
        if n == 0:
            return
        _refuse_rows(self.bucket < 1, "has no atom")
        _refuse_rows(~torch.isfinite(self.positions).all(2).all(1), "has a coordinate that is not finite")
        _refuse_rows((self.numbers >= len(SYMBOLS)).any(1), f"has an element beyond {SYMBOLS[-1]}")
        rank = torch.where(self.numbers > 1, 0, torch.where(self.numbers == 1, 1, 2))
        _refuse_rows((rank.diff(dim=1) < 0).any(1), "does not list heavy atoms first, hydrogens after them, padding last")
        _refuse_rows((self.bonds != self.bonds.transpose(1, 2)).flatten(1).any(1), "has a bond that differs between its two ends")
        _refuse_rows(((self.bonds < UNKNOWN) | (self.bonds >= len(BONDS))).flatten(1).any(1), f"has a bond outside {', '.join(BONDS)}")

    @classmethod
    def join(cls, parts: Sequence[Molecules]) -> Molecules:
        """All rows, padded to the largest molecule."""
        atoms = max(part.numbers.shape[1] for part in parts)
        same = [part.widened(atoms) for part in parts]
        return cls(**{name: torch.cat([part.fields()[name] for part in same]) for name in same[0].fields()})

    def widened(self, atoms: int) -> Molecules:
        """The same molecules with room for `atoms` atoms."""
        more = atoms - self.numbers.shape[1]
        pads = {"numbers": (0, more), "positions": (0, 0, 0, more), "charges": (0, more), "bonds": (0, more, 0, more), "given": (0, more)}
        fields = {k: torch.nn.functional.pad(v, pads[k]) if k in pads and more else v for k, v in self.fields().items()}
        return self._of(fields)

    def trimmed(self) -> Molecules:
        """Without columns that are padding in every row."""
        atoms = int(self.bucket.max())
        cuts = {k: v[:, :atoms, :atoms] if k == "bonds" else v if k == "properties" else v[:, :atoms] for k, v in self.fields().items()}
        return self._of(cuts)


def _refuse_rows(bad: Tensor, what: str) -> None:
    if bad.any():
        raise Refused(f"molecule {int(bad.nonzero()[0, 0])} {what} ({int(bad.sum())} of {len(bad)} molecules)")


# --------------------------------------------------------------------------------------------------- from and to one molecule


@dataclass(frozen=True)
class Molecule:
    """One molecule in numpy, atoms in any order: what readers make and writers take."""

    numbers: NDArray[np.uint8]  # (atoms,)
    positions: NDArray[np.float32]  # (atoms, 3), Angstrom
    charges: NDArray[np.int8]  # (atoms,)
    bonds: NDArray[np.int8] | None  # (atoms, atoms), index into BONDS; None: not known


def stacked(molecules: Sequence[Molecule], properties: NDArray[np.float32] | None = None) -> Molecules:
    """Molecules as rows, each with its atoms reordered: heavy atoms first, otherwise as they came. Geometric properties are
    computed; those of `properties` (n, len(PROPERTIES)) that are not NaN are kept."""
    n, atoms = len(molecules), max((len(m.numbers) for m in molecules), default=1)
    numbers, charges = np.zeros((n, atoms), np.uint8), np.zeros((n, atoms), np.int8)
    positions, bonds = np.zeros((n, atoms, 3), np.float32), np.zeros((n, atoms, atoms), np.int8)
    for row, molecule in enumerate(molecules):
        order = np.argsort(molecule.numbers <= 1, kind="stable")
        k = len(order)
        numbers[row, :k], charges[row, :k] = molecule.numbers[order], molecule.charges[order]
        positions[row, :k] = molecule.positions[order]
        bonds[row, :k, :k] = UNKNOWN if molecule.bonds is None else molecule.bonds[np.ix_(order, order)]
    values = geometric_properties(numbers, positions)
    if properties is not None:
        values = np.where(np.isnan(properties), values, properties).astype(np.float32)
    given = np.zeros((n, atoms), np.uint8)
    return Molecules(*(torch.from_numpy(a) for a in (numbers, positions, charges, bonds, values, given)))


def unstacked(molecules: Molecules) -> list[Molecule]:
    """Rows as single molecules without padding."""
    numbers, positions, charges, bonds = (getattr(molecules, k).numpy() for k in ("numbers", "positions", "charges", "bonds"))
    found = []
    for row, k in enumerate(molecules.bucket.tolist()):
        known = bonds[row, :k, :k]
        found.append(Molecule(numbers[row, :k], positions[row, :k], charges[row, :k], None if (known == UNKNOWN).any() else known))
    return found


def to_rdkit(molecule: Molecule) -> Any:
    """An RDKit molecule as drawn: every atom with its formal charge, no implicit hydrogens, nothing sanitised, one conformer.

    Aromatic bonds set both ends aromatic. Raises Refused where bonds are not known.
    """
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    if molecule.bonds is None:
        raise Refused("the bonds of this molecule are not known; perceive them first (perception.py)")
    orders = (None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
    made = Chem.RWMol()
    for number, charge in zip(molecule.numbers.tolist(), molecule.charges.tolist(), strict=True):
        atom = Chem.Atom(number)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        made.AddAtom(atom)
    for i, j in zip(*np.nonzero(np.triu(molecule.bonds, 1)), strict=True):
        kind = orders[molecule.bonds[i, j]]
        made.AddBond(int(i), int(j), kind)
        if kind == Chem.BondType.AROMATIC:
            made.GetBondBetweenAtoms(int(i), int(j)).SetIsAromatic(True)
            made.GetAtomWithIdx(int(i)).SetIsAromatic(True)
            made.GetAtomWithIdx(int(j)).SetIsAromatic(True)
    shape = Chem.Conformer(len(molecule.numbers))
    for i, (x, y, z) in enumerate(molecule.positions.astype(float).tolist()):
        shape.SetAtomPosition(i, Point3D(x, y, z))
    made.AddConformer(shape, assignId=True)
    return made.GetMol()


def from_rdkit(mol: Any, conformer: int = -1) -> Molecule:
    """The opposite; hydrogens must be atoms. Kekule and aromatic bonds are kept as RDKit holds them."""
    from rdkit import Chem

    code = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    k = mol.GetNumAtoms()
    bonds = np.zeros((k, k), np.int8)
    for bond in mol.GetBonds():
        if bond.GetBondType() not in code:
            raise Refused(f"bond of type {bond.GetBondType()}; expected single, double, triple or aromatic")
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[i, j] = bonds[j, i] = code[bond.GetBondType()]
    return Molecule(
        np.array([a.GetAtomicNum() for a in mol.GetAtoms()], np.uint8),
        np.asarray(mol.GetConformer(conformer).GetPositions(), np.float32).reshape(k, 3),
        np.array([a.GetFormalCharge() for a in mol.GetAtoms()], np.int8),
        bonds,
    )


# ---------------------------------------------------------------------------------------------------------- geometry


def masses(numbers: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Standard atomic weights in u, 0 for padding; same shape as `numbers`."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    weights = np.array([0.0] + [table.GetAtomicWeight(z) for z in range(1, len(SYMBOLS))])
    found: NDArray[np.float64] = weights[numbers]
    return found


def geometric_properties(numbers: NDArray[np.uint8], positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """PROPERTIES of molecules (n, atoms), (n, atoms, 3) that follow from the geometry, NaN for the others: (n, len(PROPERTIES)).

    Radius of gyration: root of the mass-weighted mean square distance to the centre of mass. Moments of inertia: eigenvalues of
    the inertia tensor about the centre of mass, ascending.
    """
    values = np.full((len(numbers), len(PROPERTIES)), np.nan, np.float32)
    if not len(numbers):
        return values
    mass = masses(numbers)
    total = mass.sum(1)
    centred = positions - ((mass[..., None] * positions).sum(1) / total[:, None])[:, None]
    second = np.einsum("na,nai,naj->nij", mass, centred, centred)  # sum of m r r^T
    trace = np.trace(second, axis1=1, axis2=2)
    values[:, PROPERTIES.index("radius_of_gyration")] = np.sqrt(trace / total)
    inertia = trace[:, None, None] * np.eye(3) - second
    values[:, PROPERTIES.index("inertia_a") :] = np.linalg.eigvalsh(inertia).clip(min=0)
    return values


# ------------------------------------------------------------------------------------------- bonds of a geometry from its SMILES


class Mismatch(ValueError):
    """A geometry and a SMILES that tell two different molecules."""


COVALENT_RADIUS = {1: 0.31, 5: 0.84, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 14: 1.11, 15: 1.07, 16: 1.05, 17: 1.02, 35: 1.20, 53: 1.39}
# Cordero et al. 2008, Dalton Trans. 2832, Angstrom


def bonds_from_smiles(numbers: NDArray[np.uint8], positions: NDArray[np.float32], smiles: str) -> Molecule:
    """Geometry (atoms,), (atoms, 3) with the bonds and charges of `smiles`.

    Atoms closer than 1.3 times the sum of their covalent radii may be bonded (across a small cage they need not be), those closer
    than 1.1 times must be; each hydrogen belongs to its nearest heavy atom. The heavy atoms of the SMILES, with their hydrogen counts, are matched onto this graph. Of several matches (a ring where
    double bonds can sit in two places) the one whose bond orders fit the distances best is taken: short bonds are the high ones.
    Raises Mismatch where there is none.
    """
    from rdkit import Chem

    template = Chem.MolFromSmiles(smiles)
    if template is None:
        raise Mismatch(f"SMILES {smiles} does not sanitise")
    heavy = np.flatnonzero(numbers > 1)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    owner, hydrogens = _hydrogen_owners(numbers, distance, heavy)
    target = Chem.RWMol()
    for i in heavy:
        atom = Chem.Atom(int(numbers[i]))
        atom.SetIsotope(1 + int(hydrogens[i]))
        atom.SetNoImplicit(True)
        target.AddAtom(atom)
    reach = np.array([COVALENT_RADIUS[int(z)] for z in numbers[heavy]])
    near = distance[np.ix_(heavy, heavy)] < 1.3 * (reach[:, None] + reach[None])
    for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True):
        target.AddBond(int(a), int(b), Chem.BondType.SINGLE)
    query = Chem.RWMol()
    for atom in template.GetAtoms():
        copy = Chem.Atom(atom.GetAtomicNum())
        copy.SetIsotope(1 + atom.GetTotalNumHs())
        copy.SetNoImplicit(True)
        query.AddAtom(copy)
    for bond in template.GetBonds():
        query.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    if query.GetNumAtoms() != len(heavy):
        raise Mismatch(f"SMILES {smiles} has {query.GetNumAtoms()} heavy atoms, the geometry {len(heavy)}")
    matches = target.GetSubstructMatches(query, uniquify=False, maxMatches=256)
    if not matches:
        raise Mismatch(f"the atoms of SMILES {smiles} cannot be laid onto the geometry")
    order = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), order[b.GetBondType()]) for b in template.GetBonds()]
    weight = np.array([0.0, 1.0, 2.0, 3.0, 1.5])
    best = min(matches, key=lambda m: sum(weight[o] * distance[heavy[m[a]], heavy[m[b]]] for a, b, o in ends))
    bonds = np.zeros((len(numbers), len(numbers)), np.int8)
    for a, b, o in ends:
        i, j = heavy[best[a]], heavy[best[b]]
        bonds[i, j] = bonds[j, i] = o
    certain = distance[np.ix_(heavy, heavy)] < 1.1 * (reach[:, None] + reach[None])
    if (np.triu(certain, 1) & (bonds[np.ix_(heavy, heavy)] == 0)).any():
        raise Mismatch(f"two atoms that SMILES {smiles} does not join are at the distance of a bond")
    for h, i in owner.items():
        bonds[i, h] = bonds[h, i] = 1
    charges = np.zeros(len(numbers), np.int8)
    for atom in template.GetAtoms():
        charges[heavy[best[atom.GetIdx()]]] = atom.GetFormalCharge()
    return Molecule(numbers, positions, charges, bonds)


def _hydrogen_owners(numbers: Any, distance: Any, heavy: Any) -> tuple[dict[int, int], Any]:
    counts = np.zeros(len(numbers), int)
    owner = {}
    for h in np.flatnonzero(numbers == 1):
        if not len(heavy):
            raise Mismatch("a molecule of hydrogen only")
        i = int(heavy[distance[h, heavy].argmin()])
        if distance[h, i] > 1.3 * (COVALENT_RADIUS[1] + COVALENT_RADIUS[int(numbers[i])]):
            raise Mismatch("a hydrogen is bonded to no heavy atom")
        owner[int(h)] = i
        counts[i] += 1
    return owner, counts


# -------------------------------------------------------------------------------------------------------------- QM9


def read_geometries(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a geometry npz: positions (atoms of all molecules, 3) in Angstrom, atomic_numbers, n_atoms per molecule, and index
    and split where it has them. Raises Refused where they do not fit together."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Refused(f"{path} is not a readable npz file: {error}") from error
    missing = {"positions", "atomic_numbers", "n_atoms"} - found.keys()
    if missing:
        raise Refused(f"{path} lacks {', '.join(sorted(missing))}; expected positions, atomic_numbers, n_atoms (concatenated molecules)")
    total = int(found["n_atoms"].sum(dtype=np.int64))
    if not total == len(found["positions"]) == len(found["atomic_numbers"]):
        raise Refused(f"{path}: n_atoms adds up to {total}, but there are {len(found['positions'])} positions")
    return found


def qm9(geometry: Path, smiles: Path, *, say: Callable[[str], None] = lambda line: None) -> tuple[Molecules, NDArray[Any], list[str]]:
    """QM9 with bonds: molecules, their index and part (0 train, 1 validation), and one line per record that was set aside.

    Matching takes two minutes; the outcome is remembered in the user's cache folder (SIMULACRA_CACHE), keyed by both files.
    """
    arrays = read_geometries(geometry)
    with gzip.open(smiles, "rt", encoding="utf-8", newline="") as lines:
        known = {int(row["index"]): row["smiles"] for row in csv.DictReader(lines)}
    key = hashlib.sha256(f"{__version__} 2 {sha256(geometry)} {sha256(smiles)}".encode()).hexdigest()[:32]
    path = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"qm9-{key}.npz"
    fields, which, rejected = _remembered(path) or _matched(arrays, known, path)
    kept = np.column_stack([arrays["index"][which], arrays["split"][which]])
    return Molecules(**{k: torch.from_numpy(v) for k, v in fields.items()}), kept, rejected


def _matched(arrays: Mapping[str, Any], known: Mapping[int, str], path: Path) -> tuple[dict[str, Any], Any, list[str]]:
    ends = np.cumsum(arrays["n_atoms"], dtype=np.int64)
    molecules, which, rejected = [], [], []
    for row, (stop, size) in enumerate(zip(ends, arrays["n_atoms"], strict=True)):
        part = slice(int(stop) - int(size), int(stop))
        name = int(arrays["index"][row])
        try:
            if name not in known:
                raise Mismatch("no SMILES is known")
            molecules.append(bonds_from_smiles(arrays["atomic_numbers"][part], arrays["positions"][part], known[name]))
            which.append(row)
        except Mismatch as reason:
            rejected.append(f"QM9 record {name}: {reason}")
    fields = {k: v.numpy() for k, v in stacked(molecules).fields().items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, which=np.array(which), rejected=np.array(rejected, str), **fields)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    return fields, np.array(which), rejected


def _remembered(path: Path) -> tuple[dict[str, Any], Any, list[str]] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        which, rejected = found.pop("which"), found.pop("rejected")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return found, which, rejected.tolist()


def qm9_split(folder: Path) -> Split[Molecules]:
    """QM9 from a folder with qm9_geometry.npz and qm9_smiles.csv.gz, in the parts of Hoogeboom et al. (2022) as far as the files
    hold them: their training part trains; of their validation part 15,000 are held out to judge with, the rest validates."""
    geometry, smiles = folder / "qm9_geometry.npz", folder / "qm9_smiles.csv.gz"
    molecules, kept, rejected = qm9(geometry, smiles)
    molecules = with_labels(molecules, kept[:, 0], folder)
    train = np.flatnonzero(kept[:, 1] == 0)
    rest = np.random.default_rng(0).permutation(np.flatnonzero(kept[:, 1] == 1))
    held_out, validation = np.sort(rest[:HELD_OUT]), np.sort(rest[HELD_OUT:])
    origin = f"QM9 (B3LYP geometries): {len(train):,} to train, {len(validation):,} to validate, {len(held_out):,} held out"
    files = {str(path.name): sha256(path) for path in (geometry, smiles)}
    return Split(*(molecules[torch.from_numpy(rows)] for rows in (train, validation, held_out)), origin, files, rejected)


LABELS = {"alpha": "alpha", "homo": "homo", "lumo": "lumo", "gap": "gap", "mu": "mu", "cv": "cv"}
HARTREE = 27.211386245988  # eV, CODATA 2018


def with_labels(molecules: Molecules, index: NDArray[Any], folder: Path) -> Molecules:
    """QM9's computed properties where the folder has them (3,000 molecules, and the gap of 26,125), joined by record number."""
    place = {int(name): row for row, name in enumerate(index)}
    values = molecules.properties.clone()
    for name, scale in (("qm9_gap_eV.csv.gz", {}), ("qm9_properties_3000.csv.gz", {"homo": HARTREE, "lumo": HARTREE, "gap": HARTREE})):
        if not (folder / name).exists():
            continue
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as lines:
            for record in csv.DictReader(lines):
                row = place.get(int(record["index"]))
                if row is None:
                    continue
                columns = {"gap": record["gap_eV"]} if "gap_eV" in record else {k: record[v] for k, v in LABELS.items()}
                for label, value in columns.items():
                    values[row, PROPERTIES.index(label)] = float(value) * scale.get(label, 1.0)
    return Molecules(**{**molecules.fields(), "properties": values})
