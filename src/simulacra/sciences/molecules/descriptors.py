"""What can be measured in one molecule: lengths, angles and contacts of its geometry, rings and functional groups of its graph.

Nothing here may fail on a broken molecule. Geometry is arithmetic on arrays. Graphs are read by RDKit, sanitised where they can be
(then aromatic bonds follow RDKit's model, however they were written) and as drawn where they cannot.

Values of many molecules come as flat arrays with the row that each belongs to, since molecules differ in how many they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.sciences.molecules.data import Molecules, to_rdkit, unstacked

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDERS = np.array([0.0, 1.0, 2.0, 3.0, 1.5])  # electron pairs of data.BONDS
RINGS = ("3", "4", "5", "6", "7 and more")  # atoms per ring
CROWDED = 20  # independent rings beyond which rings and SMILES take for ever: overlapping atoms, whose rings are triangles

# SMARTS whose first atom is the group's; hydrogens are atoms, so H counts them among the neighbours
GROUPS = {
    "alkene": "[CX3;!$(C=[!#6])]=[CX3;!$(C=[!#6])]",
    "alkyne": "[CX2]#[CX2]",
    "aromatic ring atom": "a",
    "hydroxyl": "[OX2H1;!$(O-C=O)]-[#6]",
    "carboxylic acid": "[CX3](=[OX1])-[OX2H1]",
    "ether": "[OX2H0;!r3;!$(O-C=[O,N])](-[#6])-[#6]",
    "epoxide": "[OX2r3]",
    "aldehyde": "[CX3;H1,H2;!$(C~[!#6;!#1;!$([OX1])])]=[OX1]",
    "ketone": "[CX3;$(C(-[#6])-[#6])]=[OX1]",
    "ester": "[CX3](=[OX1])-[OX2H0]-[#6]",
    "amide": "[CX3](=[OX1])-[NX3]",
    "nitrile": "[CX2]#[NX1]",
    "imine": "[CX3;!$(C-[#7,#8])]=[NX2]",
    "amidine or imidate": "[CX3;$(C-[#7,#8])]=[NX2]",
    "primary amine": "[NX3H2;!$(N-C=[O,N])]-[#6]",
    "secondary amine": "[NX3H1;!r3;!$(N-C=[O,N])](-[#6])-[#6]",
    "tertiary amine": "[NX3H0;!r3;!$(N-C=[O,N])](-[#6])(-[#6])-[#6]",
    "aziridine": "[NX3r3]",
    "oxime or hydroxylamine": "[#7;!a]-[OX2]",
    "hydrazine or hydrazone": "[#7;!a]-[#7;!a]",
    "nitro": "[$([NX3](=[OX1])=[OX1]),$([N+X3](=[OX1])[O-X1])]",
    "halide": "[F,Cl,Br,I]-[#6]",
}
CHAIN_END = "!#1;!$(*#*);$(*(~[!#1])~[!#1])"  # a heavy atom with two heavy neighbours, in no triple bond
ROTATABLE = f"[{CHAIN_END}]-;!@[{CHAIN_END}]"


@dataclass(frozen=True)
class Graph:
    """What RDKit reads in the graphs of n molecules."""

    bonds: NDArray[np.int8]  # (n, atoms, atoms), index into data.BONDS; aromatic by RDKit's model where the molecule sanitises
    sanitises: NDArray[np.bool_]  # (n,)
    rings: Ints  # (n, len(RINGS)), a smallest set of smallest rings
    groups: Ints  # (n, len(GROUPS)), matches per functional group
    rotatable: Ints  # (n,), single bonds outside rings between heavy atoms that have further heavy neighbours
    smiles: list[str]  # canonical, without stereo; of the molecule as drawn where it does not sanitise, "" for a heap of atoms


def read_graphs(molecules: Molecules) -> Graph:
    """Graphs of molecules whose bonds are known (else Refused)."""
    singles = unstacked(molecules)
    bonds = molecules.bonds.numpy().copy()
    n = len(singles)
    sanitises = np.zeros(n, bool)
    rings, groups = np.zeros((n, len(RINGS)), np.int64), np.zeros((n, len(GROUPS)), np.int64)
    rotatable, smiles = np.zeros(n, np.int64), []
    with rdBase.BlockLogs():
        for row, single in enumerate(singles):
            mol = to_rdkit(single)
            sanitises[row] = Chem.SanitizeMol(mol, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE
            if sanitises[row]:
                _write_aromatic(bonds[row], mol)
            else:
                mol = to_rdkit(single)
                mol.UpdatePropertyCache(strict=False)
            rings[row] = _count_rings(mol)
            groups[row] = [len({match[0] for match in mol.GetSubstructMatches(query)}) for query in _queries()]
            rotatable[row] = len(mol.GetSubstructMatches(_rotatable()))
            smiles.append(_smiles(mol, bool(sanitises[row])))
    return Graph(bonds, sanitises, rings, groups, rotatable, smiles)


def canonical_smiles(molecules: Molecules) -> list[str]:
    """Only the SMILES of `read_graphs`."""
    found = []
    with rdBase.BlockLogs():
        for single in unstacked(molecules):
            mol = to_rdkit(single)
            whole = Chem.SanitizeMol(mol, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE
            found.append(_smiles(mol if whole else to_rdkit(single), whole))
    return found


@cache
def _queries() -> list[Any]:
    return [Chem.MolFromSmarts(pattern) for pattern in GROUPS.values()]


@cache
def _rotatable() -> Any:
    return Chem.MolFromSmarts(ROTATABLE)


def _write_aromatic(bonds: NDArray[np.int8], mol: Any) -> None:
    """Bonds (atoms, atoms) in RDKit's model, in place."""
    code = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[i, j] = bonds[j, i] = code[bond.GetBondType()]


def _count_rings(mol: Any) -> Ints:
    if _crowded(mol):
        Chem.FastFindRings(mol)
        return np.array([mol.GetNumBonds() - mol.GetNumAtoms() + 1, 0, 0, 0, 0])
    sizes = np.array([len(ring) for ring in Chem.GetSSSR(mol)], np.int64)
    return np.bincount(np.minimum(sizes, 7) - 3, minlength=len(RINGS))


def _crowded(mol: Any) -> bool:
    return bool(mol.GetNumBonds() - mol.GetNumAtoms() + 1 > CROWDED)


def _smiles(mol: Any, sanitises: bool) -> str:
    if _crowded(mol) and not sanitises:
        return ""
    shown = mol
    if sanitises:
        heavy = Chem.RemoveHs(mol, sanitize=False)
        shown = heavy if heavy.GetNumAtoms() else mol
    text: str = Chem.MolToSmiles(shown, isomericSmiles=False)
    return text


# ----------------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Values:
    """A number for each bond, angle or torsion of n molecules, flat."""

    row: Ints  # (m,) the molecule
    value: Array  # (m,)
    kind: Ints  # (m,) what it is: see the function that made it


def bond_lengths(numbers: NDArray[np.uint8], positions: Array, bonds: NDArray[np.int8]) -> Values:
    """Length of every bond in Angstrom. kind = 10,000 lighter element + 10 heavier element + index of the bond in data.BONDS."""
    row, i, j = np.nonzero(np.triu(bonds > 0, 1))
    a, b = numbers[row, i].astype(np.int64), numbers[row, j].astype(np.int64)
    kind = bond_kind(np.minimum(a, b), np.maximum(a, b), bonds[row, i, j])
    return Values(row, np.linalg.norm(positions[row, i] - positions[row, j], axis=1), kind)


def bond_kind(lighter: Any, heavier: Any, order: Any) -> Any:
    """One integer per type of bond: atomic numbers in ascending order and the index in data.BONDS."""
    return 10_000 * lighter + 10 * heavier + order


def bond_angles(numbers: NDArray[np.uint8], positions: Array, bonds: NDArray[np.int8]) -> Values:
    """Angle in degrees between every two bonds that share an atom; kind: the element of that atom."""
    row, centre, end = np.nonzero(bonds > 0)
    first, second = _pairs(np.unique(row * bonds.shape[1] + centre, return_counts=True)[1])
    row, centre = row[first], centre[first]
    a, b = positions[row, end[first]] - positions[row, centre], positions[row, end[second]] - positions[row, centre]
    return Values(row, _between(a, b), numbers[row, centre].astype(np.int64))


def _pairs(sizes: Ints) -> tuple[Ints, Ints]:
    """Indices of every pair within consecutive groups of these sizes."""
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    later = np.repeat(sizes, sizes) - 1 - (np.arange(len(start)) - start)
    first = np.repeat(np.arange(len(start)), later)
    return first, first + 1 + _within(later)


def _within(sizes: Ints) -> Ints:
    """0 ... size - 1 for each size, one after the other."""
    result: Ints = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return result


def _between(a: Array, b: Array) -> Array:
    """Angle in degrees between vectors (m, 3): from sine and cosine, so that it is exact near 0 and 180 too."""
    return np.asarray(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1))))


def dihedrals(numbers: NDArray[np.uint8], positions: Array, bonds: NDArray[np.int8]) -> Values:
    """|Dihedral angle| in degrees, 0 to 180, of every chain a-b-c-d about a single bond b-c of heavy atoms; kind: 1 where a and d
    are heavy too, 0 where either is hydrogen. Chains closed to a triangle (a = d) and straight ones (no plane) have none."""
    atoms = bonds.shape[1]
    row, b, c = np.nonzero(np.triu(bonds == 1, 1) & (numbers > 1)[:, :, None] & (numbers > 1)[:, None])
    owner, end = np.divmod(np.flatnonzero(bonds.reshape(-1) > 0), atoms)  # neighbours, sorted by (molecule, atom)
    begin = np.searchsorted(owner, np.arange(len(bonds) * atoms + 1))
    row, b, c, a = _spread(row, b, c, row * atoms + b, begin, end)
    row, b, c, a = (v[a != c] for v in (row, b, c, a))
    at = np.arange(len(row))
    _, at, _, d = _spread(row, at, at, row * atoms + c, begin, end)
    row, a, b, c = row[at], a[at], b[at], c[at]
    open_ = (d != b) & (d != a)
    row, a, b, c, d = (v[open_] for v in (row, a, b, c, d))
    along, left, right = positions[row, c] - positions[row, b], positions[row, a] - positions[row, b], positions[row, d] - positions[row, c]
    n, m = np.cross(along, left), np.cross(along, right)
    plane = np.minimum(np.linalg.norm(n, axis=1), np.linalg.norm(m, axis=1)) > 0.02  # Angstrom^2: within a degree of straight
    heavy = (numbers[row, a] > 1) & (numbers[row, d] > 1)
    return Values(row[plane], _between(n[plane], m[plane]), heavy[plane].astype(np.int64))


def _spread(row: Ints, b: Ints, c: Ints, atom: Ints, begin: Ints, end: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Each entry once per neighbour of its `atom` (index over all molecules), and that neighbour."""
    many = begin[atom + 1] - begin[atom]
    return np.repeat(row, many), np.repeat(b, many), np.repeat(c, many), end[np.repeat(begin[atom], many) + _within(many)]


def closest_contact(numbers: NDArray[np.uint8], positions: Array, bonds: NDArray[np.int8]) -> Array:
    """Smallest distance in Angstrom of two atoms at least three bonds apart, (n,); NaN where there are none (methane)."""
    closest = np.full(len(numbers), np.nan)
    for part in (slice(i, i + 1024) for i in range(0, len(numbers), 1024)):
        joined = (bonds[part] > 0).astype(np.float32)
        real = numbers[part] > 0
        far = (joined + joined @ joined == 0) & real[:, :, None] & real[:, None] & ~np.eye(numbers.shape[1], dtype=bool)
        x = positions[part]
        distance = np.where(far, np.linalg.norm(x[:, :, None] - x[:, None], axis=3), np.inf).min(axis=(1, 2))
        closest[part] = np.where(np.isfinite(distance), distance, np.nan)
    return closest


def coulomb_spectrum(numbers: NDArray[np.uint8], positions: Array, width: int) -> Array:
    """Eigenvalues of the Coulomb matrix of the heavy atoms (Rupp et al. 2012, Phys. Rev. Lett. 108:058301), by descending
    magnitude, padded with zeros to (n, width). In atomic units, with 0.5 Z^2.4 on the diagonal. The same for all rotations, mirror
    images and orders of atoms, and different for all others in practice. Atoms nearer than 0.1 Angstrom count as being 0.1 apart."""
    found = np.zeros((len(numbers), width))
    counts = (numbers > 1).sum(1)
    for size in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == size)
        z, x = numbers[rows, :size].astype(float), positions[rows, :size].astype(float)
        square = sum((x[:, :, None, k] - x[:, None, :, k]) ** 2 for k in range(3))
        matrix = z[:, :, None] * z[:, None] / (np.sqrt(np.maximum(square, 0.01)) / BOHR)
        matrix[:, np.arange(size), np.arange(size)] = 0.5 * z**2.4
        values = np.linalg.eigvalsh(matrix)
        found[rows, :size] = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)
    return found


BOHR = 0.529177210903  # Angstrom, CODATA 2018


# -------------------------------------------------------------------------------------------------------------- graph


def valences(bonds: NDArray[np.int8]) -> Array:
    """Sum of bond orders of every atom, aromatic bonds 1.5 each: (n, atoms)."""
    return np.asarray(ORDERS[bonds].sum(2))


def skeleton_hash(molecules: Molecules) -> NDArray[np.uint64]:
    """One number per molecule, equal for equal constitution whatever the bond orders and the order of atoms: (n,).

    Weisfeiler and Leman's refinement of (element, charge, hydrogens) over heavy atoms, four rounds. Different molecules may
    share it, so it only says which ones are worth a canonical SMILES.
    """
    atoms = max(int(molecules.heavy.max()), 1)
    numbers = molecules.numbers.numpy()
    bonds = molecules.bonds.numpy() > 0
    hydrogens = (bonds[:, :atoms] & (numbers == 1)[:, None]).sum(2)
    heavy = numbers[:, :atoms] > 1
    start = numbers[:, :atoms].astype(np.int64) * 4096 + hydrogens * 64 + molecules.charges.numpy()[:, :atoms] + 32
    label = np.where(heavy, _mixed(start.astype(np.uint64)), np.uint64(0))
    near = (bonds[:, :atoms, :atoms] & heavy[:, None]).astype(np.uint64)
    for _ in range(4):
        around = np.einsum("nij,nj->ni", near, label)
        label = np.where(heavy, _mixed(label + np.uint64(3) * _mixed(around)), np.uint64(0))
    return np.asarray(_mixed(label.sum(1, dtype=np.uint64) + (numbers == 1).sum(1).astype(np.uint64)))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of the SplitMix64 generator: a bijection that leaves no pattern (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
