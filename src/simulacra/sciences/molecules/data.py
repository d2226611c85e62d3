"""Molecules as tensors: the data type, single molecules, RDKit's form of them, and what follows from a geometry.

A sample of nature is one molecule in one conformation. Where nature comes from stands next door: `simulate.py` (an enumerated
family with force-field geometries, embedded), `qm9.py` (the public original) and `formats.py` (files that others wrote).

Needs rdkit: pip install "simulacra[chem]".
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.runs import sha256
from simulacra.study import Refused, Samples, Split

SYMBOLS = (
    "*", "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca", "Sc", "Ti", "V",
    "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo",
    "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",
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
LARGEST_ARRAY = 8_000_000_000  # bytes of one array in a file
COVALENT_RADIUS = {1: 0.31, 5: 0.84, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 14: 1.11, 15: 1.07, 16: 1.05, 17: 1.02, 35: 1.20, 53: 1.39}
# Cordero et al. 2008, Dalton Trans. 2832, Angstrom


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
            "bonds": ((n, atoms, atoms), torch.int8), "properties": ((n, len(PROPERTIES)), torch.float32),
            "given": ((n, atoms), torch.uint8),
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

    if molecule.bonds is None:
        raise Refused("the bonds of this molecule are not known; perceive them first (perception.py)")
    orders = (Chem.BondType.ZERO, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
    made = Chem.RWMol()
    aromatic = (molecule.bonds == BONDS.index("aromatic")).any(1).tolist()
    for number, charge, flat in zip(molecule.numbers.tolist(), molecule.charges.tolist(), aromatic, strict=True):
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        if charge:
            atom.SetFormalCharge(charge)
        if flat:
            atom.SetIsAromatic(True)
        made.AddAtom(atom)
    ends = np.argwhere(np.triu(molecule.bonds, 1)).tolist()
    for i, j in ends:
        kind = int(molecule.bonds[i, j])
        count = made.AddBond(i, j, orders[kind])
        if kind == BONDS.index("aromatic"):
            made.GetBondWithIdx(count - 1).SetIsAromatic(True)
    shape = Chem.Conformer(len(molecule.numbers))
    shape.SetPositions(molecule.positions.astype(np.float64))
    made.AddConformer(shape, assignId=True)
    return made.GetMol()


def from_rdkit(mol: Any, conformer: int = -1) -> Molecule:
    """The opposite; hydrogens must be atoms. Kekule and aromatic bonds are kept as RDKit holds them."""
    from rdkit import Chem

    code = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    k = mol.GetNumAtoms()
    bonds = np.zeros((k, k), np.int8)
    for index in range(mol.GetNumBonds()):
        bond = mol.GetBondWithIdx(index)
        kind = code.get(bond.GetBondType())
        if kind is None:
            raise Refused(f"bond of type {bond.GetBondType()}; expected single, double, triple or aromatic")
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[i, j] = bonds[j, i] = kind
    atoms = [mol.GetAtomWithIdx(i) for i in range(k)]
    return Molecule(
        np.array([a.GetAtomicNum() for a in atoms], np.uint8),
        np.asarray(mol.GetConformer(conformer).GetPositions(), np.float32).reshape(k, 3),
        np.array([a.GetFormalCharge() for a in atoms], np.int8),
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


# -------------------------------------------------------------------------------------------------------- where nature comes from


def load(*, data: Path | None, seed: int, simulated: int, hydrogens: bool = True) -> Split[Molecules]:
    """Nature in three parts that share no molecule.

    Without `data`: `simulated` molecules made by rule (`simulate.py`). A folder with qm9_geometry.npz and qm9_smiles.csv.gz: QM9.
    A file: its molecules (`formats.py`); `hydrogens` that an SDF leaves out are added. Files and simulated molecules are divided
    80 : 10 : 10 by a hash of their connectivity, so that conformers of one molecule stay together.
    """
    if data is None:
        from simulacra.sciences.molecules import simulate

        molecules = simulate.simulated(simulated, seed=seed)
        origin = f"{simulated:,} molecules of an enumerated family of C, H, N, O, conformers by ETKDG and MMFF94 (simulated, seed {seed})"
        digest = hashlib.sha256(molecules.numbers.numpy().tobytes() + molecules.positions.numpy().tobytes()).hexdigest()
        return _divided(molecules, origin, {f"simulated({simulated}, seed={seed})": digest}, [])
    path = Path(data)
    if path.is_dir():
        return _from_folder(path)
    from simulacra.sciences.molecules import formats

    reading = formats.read_and_tell(path, seed=seed, hydrogens=hydrogens)
    origin = "; ".join([f"{path.name}: {len(reading.molecules):,} molecules", *reading.remarks])
    return _divided(reading.molecules, origin, {str(path): sha256(path)}, reading.rejected)


def _from_folder(path: Path) -> Split[Molecules]:
    missing = [name for name in ("qm9_geometry.npz", "qm9_smiles.csv.gz") if not (path / name).is_file()]
    if missing:
        raise Refused(f"{path} lacks {' and '.join(missing)}; expected a folder that holds QM9, or a file (.sdf, .xyz, .smi, .csv, .npz)")
    from simulacra.sciences.molecules import qm9

    return qm9.qm9_split(path)


def _divided(molecules: Molecules, origin: str, files: Mapping[str, str], rejected: Sequence[str]) -> Split[Molecules]:
    rows = divide(molecules)
    train, validation, held_out = (molecules[torch.from_numpy(part)].trimmed() for part in rows)
    sizes = f"{len(train):,} to train, {len(validation):,} to validate, {len(held_out):,} held out, by hash of the molecule"
    return Split(train, validation, held_out, f"{origin}; {sizes}", files, rejected)


def divide(molecules: Molecules) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train (80 % of the different molecules), to validate and to hold out (10 % each), by the order of a hash of their
    `connectivity`: the same molecule is never on two sides. Raises Refused where fewer than ten differ."""
    names = connectivity(molecules)
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(order) < 10:
        raise Refused(f"{len(names):,} conformations of {len(order)} different molecules; ten or more are needed to learn and to judge")
    place = {name: i / len(order) for i, name in enumerate(order)}
    share = np.array([place[name] for name in names])
    return np.flatnonzero(share < 0.8), np.flatnonzero((share >= 0.8) & (share < 0.9)), np.flatnonzero(share >= 0.9)


def connectivity(molecules: Molecules) -> list[str]:
    """What makes two rows one molecule: the canonical SMILES of atoms and who is bonded to whom, without bond orders, charges and
    stereo (so resonance forms, and the enantiomers and conformers of a molecule, are equal). Where bonds are not known, atoms closer
    than 1.3 times the sum of their covalent radii count as bonded."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    radius = np.array([COVALENT_RADIUS.get(z, table.GetRcovalent(z)) for z in range(len(SYMBOLS))])
    found = []
    for molecule in unstacked(molecules):
        if molecule.bonds is None:
            reach = radius[molecule.numbers]
            distance = np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=2)
            joined = distance < 1.3 * (reach[:, None] + reach[None])
        else:
            joined = molecule.bonds > 0
        found.append(_skeleton(molecule.numbers, joined))
    return found


def _skeleton(numbers: NDArray[np.uint8], joined: NDArray[np.bool_]) -> str:
    """Canonical SMILES of heavy atoms with their hydrogen counts as isotopes, all bonds single."""
    from rdkit import Chem

    heavy = np.flatnonzero(numbers > 1) if (numbers > 1).any() else np.arange(len(numbers))
    hydrogens = joined[:, numbers == 1].sum(1)
    graph = Chem.RWMol()
    for i in heavy.tolist():
        atom = Chem.Atom(int(numbers[i]))
        atom.SetIsotope(int(hydrogens[i]))
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for a, b in zip(*np.nonzero(np.triu(joined[np.ix_(heavy, heavy)], 1)), strict=True):
        graph.AddBond(int(a), int(b), Chem.BondType.SINGLE)
    smiles: str = Chem.MolToSmiles(graph)
    return smiles


# ------------------------------------------------------------------------------------------------------- geometries alone


def read_geometries(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a geometry npz: positions (atoms of all molecules, 3) in Angstrom, atomic_numbers, n_atoms per molecule, and index
    and split where it has them. Raises Refused where they do not fit together."""
    found = arrays(path)
    missing = {"positions", "atomic_numbers", "n_atoms"} - found.keys()
    if missing:
        raise Refused(f"{path} lacks {', '.join(sorted(missing))}; expected positions, atomic_numbers, n_atoms (concatenated molecules)")
    counts, numbers, positions = found["n_atoms"], found["atomic_numbers"], found["positions"]
    for name in ("n_atoms", "atomic_numbers"):
        if found[name].ndim != 1 or found[name].dtype.kind not in "iu" or (found[name].astype(np.int64) < 0).any():
            raise Refused(f"{path}: {name} has shape {found[name].shape} and type {found[name].dtype}; expected counting numbers (n,)")
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.dtype.kind != "f":
        raise Refused(f"{path}: positions have shape {positions.shape} and type {positions.dtype}; expected real numbers (atoms, 3)")
    total = int(counts.sum(dtype=np.int64))
    if not total == len(positions) == len(numbers):
        raise Refused(f"{path}: n_atoms adds up to {total}, but there are {len(positions)} positions and {len(numbers)} atomic_numbers")
    return found


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file. Their headers are examined before anything is allocated, and nothing is unpickled.
    Raises Refused where the file is damaged or holds anything but numbers and text."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    _examine(f"{path}: array {entry.filename.removesuffix('.npy')}", file, entry.file_size)
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Refused:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, KeyError, MemoryError) as error:
        raise Refused(f"{path} is not a complete npz file ({error}); it may be cut off: copy or write it again") from error


def _examine(what: str, file: IO[bytes], size: int) -> None:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(file)
    if kind.kind not in "iufbU":
        raise Refused(f"{what} is of type {kind}; expected numbers (objects are never unpickled)")
    claimed = math.prod(shape) * kind.itemsize
    if claimed > LARGEST_ARRAY:
        raise Refused(f"{what} claims {claimed / 1e9:.1f} GB; at most {LARGEST_ARRAY / 1e9:.0f} GB are read, so split the file")
    if size - file.tell() < claimed:
        raise Refused(f"{what} claims shape {shape}, but its numbers are cut off")
