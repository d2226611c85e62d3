"""The protocols by which generated molecules are scored, each under its own name. Columns of two protocols cannot be compared.

edm, edm_validity   Hoogeboom et al. 2022 (arXiv:2203.17003): stability and validity of the graph that a distance table reads off
digress             Vignac et al. 2023 (arXiv:2209.14734): validity, relaxed validity, uniqueness and novelty of SMILES
midi                Vignac et al. 2023 (arXiv:2302.09048): stability of the given graph, and distances of its marginals to nature's
strict              what a chemist means by a molecule: exactly as drawn, nothing added, nothing mended
posebusters_checks  Buttenschoen et al. 2024 (Chem. Sci. 15:3130), configuration "mol"
strain              MMFF94 energy that relaxation into the nearest minimum sets free

Every result carries RDKit's version: what sanitises changes from release to release. Where a published figure needs a trap that the
publication fell into, the docstring says what the trap is and what is done here. Molecules whose bonds are UNKNOWN are given those
of EDM's table before `midi`, `strict`, `strain` and `columns` look at them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.sciences.molecules.data import ATOMIC_NUMBER, BONDS, SYMBOLS, Molecule, Molecules, to_rdkit, unstacked
from simulacra.sciences.molecules.perception import as_question, blocks, edm_bonds, perceive
from simulacra.sciences.molecules.timebox import WORKER, TimeBox, Unanswered
from simulacra.study import Refused

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
RDKIT: str = rdBase.rdkitVersion
BOND_TYPES = (Chem.BondType.ZERO, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)


def _share(part: float, whole: float) -> float:
    """Share of a whole, NaN where there is no whole."""
    return part / whole if whole else float("nan")


# ----------------------------------------------------------------------------------------------------------------- graphs


def _graph(numbers: Any, charges: Any, bonds: Any) -> Chem.RWMol:
    """An RDKit graph without geometry that fills lacking hydrogens in silently, as the published protocols build theirs."""
    made = Chem.RWMol()
    for number, charge in zip(numbers.tolist(), charges.tolist(), strict=True):
        atom = Chem.Atom(number)
        if charge:
            atom.SetFormalCharge(charge)
        made.AddAtom(atom)
    first, second = np.nonzero(np.triu(bonds, 1))
    for i, j, order in zip(first.tolist(), second.tolist(), bonds[first, second].tolist(), strict=True):
        made.AddBond(i, j, BOND_TYPES[order])
    return made


AS_DRAWN = Chem.SanitizeFlags.SANITIZE_ALL ^ Chem.SanitizeFlags.SANITIZE_CLEANUP  # cleaning up mends a nitrogen with five bonds


def _sanitised(mol: Chem.Mol) -> bool:
    try:
        Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError):  # RDKit's chemistry errors are ValueErrors; a broken invariant is a RuntimeError
        return False
    return True


def _largest_fragment(mol: Chem.Mol) -> Chem.Mol:
    """The fragment with most atoms, the first of those; the molecule itself where it is in one piece."""
    if len(Chem.GetMolFrags(mol)) == 1:
        return mol
    fragments: Sequence[Chem.Mol] = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    return max(fragments, key=lambda fragment: int(fragment.GetNumAtoms()))


def _refuse_another_form(smiles: Collection[str | None], training: Collection[str] | None, how: str) -> frozenset[str]:
    """Training SMILES as a set, if they are written as the drawn ones are: hydrogens as atoms."""
    known = frozenset(training or ())
    if known and any(s and "[H]" in s for s in smiles) and not any("[H]" in s for s in known):
        raise Refused(f"the training SMILES carry no hydrogen atoms, so nothing could be found among them; make them by {how}")
    return known


@dataclass(frozen=True)
class Novelty:
    """Validity, uniqueness and novelty of a list of SMILES, as fractions; `smiles` holds one per molecule, None where not valid."""

    smiles: tuple[str | None, ...]
    validity: float  # valid / all
    uniqueness: float  # distinct / valid
    valid_unique: float  # distinct / all: "V x U" of the papers
    novelty: float  # distinct and not in training / distinct; NaN without training SMILES
    rdkit: str = RDKIT

    @property
    def figures(self) -> dict[str, float]:
        """The published figures by name, as fractions."""
        return {"validity": self.validity, "uniqueness": self.uniqueness, "V x U": self.valid_unique, "novelty": self.novelty}

    @classmethod
    def of(cls, smiles: Sequence[str | None], training: Collection[str]) -> Novelty:
        valid = [s for s in smiles if s is not None]
        distinct = set(valid)
        new = _share(len(distinct - frozenset(training)), len(distinct)) if training else float("nan")
        n = len(smiles)
        return cls(tuple(smiles), _share(len(valid), n), _share(len(distinct), len(valid)), _share(len(distinct), n), new)


# -------------------------------------------------------------------------------------------------------------------- edm

EDM_VALENCES = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Al": (3,), "Si": (4,), "P": (3, 5), "S": (4,), "Cl": (1,),
    "As": (3,), "Br": (1,), "I": (1,),
}  # fmt: skip


@dataclass(frozen=True)
class EDM:
    """Stability by EDM's table. A molecule is stable where all its atoms are."""

    atoms: NDArray[np.int64]  # (n,)
    stable_atoms: NDArray[np.int64]  # (n,)
    rdkit: str = RDKIT

    @property
    def stable(self) -> Flags:
        return np.asarray(self.stable_atoms == self.atoms)

    @property
    def atom_stability(self) -> float:
        return _share(int(self.stable_atoms.sum()), int(self.atoms.sum()))

    @property
    def molecule_stability(self) -> float:
        return _share(int(self.stable.sum()), len(self.atoms))

    @property
    def figures(self) -> dict[str, float]:
        """The published figures by name, as fractions."""
        return {"atom stability": self.atom_stability, "molecule stability": self.molecule_stability}


def edm(molecules: Molecules) -> EDM:
    """Atom and molecule stability from positions and elements only (Hoogeboom et al. 2022).

    Bonds are read off the distances (`edm_bonds`); an atom is stable when its bond orders add up to exactly a valence of
    EDM_VALENCES. Bonds and formal charges of the molecules are not looked at, so no ion and no zwitterion is ever stable. The table's
    margins were tuned on QM9, where it calls about 95 % of real molecules stable: to exceed nature is to fit the table. An
    element that the table lacks is never stable.
    """
    allowed = torch.zeros(len(SYMBOLS), 128, dtype=torch.bool)
    for symbol, valences in EDM_VALENCES.items():
        allowed[ATOMIC_NUMBER[symbol], list(valences)] = True
    stable = torch.zeros(len(molecules), dtype=torch.int64)
    for rows in blocks(molecules):
        orders = edm_bonds(molecules[rows]).sum(2, dtype=torch.int64).clamp(max=127)
        stable[rows] = allowed[molecules.numbers[rows].long(), orders].sum(1)
    return EDM(molecules.bucket.numpy(), stable.numpy())


def edm_smiles(molecules: Molecules) -> list[str | None]:
    """SMILES, hydrogens as atoms, of the largest fragment of each molecule's table graph; None where the graph does not sanitise."""
    numbers, found = molecules.numbers.numpy(), []
    with rdBase.BlockLogs():
        for rows in blocks(molecules):
            orders = edm_bonds(molecules[rows]).numpy()
            for z, bonds, k in zip(numbers[rows], orders, molecules.bucket[rows].tolist(), strict=True):
                mol = _graph(z[:k], np.zeros(k, int), bonds[:k, :k])
                fine = _sanitised(mol)
                found.append(_smiles_of_largest(mol) if fine else None)
    return found


def _smiles_of_largest(mol: Chem.Mol) -> str | None:
    """SMILES of the largest fragment, None where it does not sanitise."""
    fragment = _largest_fragment(mol)
    return str(Chem.MolToSmiles(fragment)) if _sanitised(fragment) else None


def edm_validity(molecules: Molecules, training_smiles: Collection[str] | None = None) -> Novelty:
    """Validity, uniqueness and novelty as EDM publishes them (Hoogeboom et al. 2022).

    The table's graph must sanitise; then its *largest fragment* stands for the molecule, so one that falls apart is valid, and
    RDKit adds lacking hydrogens silently, so one with a hole in its shell is valid too: validity exceeds stability by design. Two
    molecules that differ only in hydrogens that were not drawn count as two. Training SMILES must come from `edm_smiles` of the
    training molecules ("rebuilt the same way"); others are Refused where they carry no hydrogens.
    """
    smiles = edm_smiles(molecules)
    return Novelty.of(smiles, _refuse_another_form(smiles, training_smiles, "edm_smiles(training molecules)"))


# ---------------------------------------------------------------------------------------------------------------- digress


@dataclass(frozen=True)
class DiGress:
    """DiGress's scores as fractions; uniqueness and novelty are those of the relaxed set."""

    strict: Novelty
    relaxed: Novelty
    rdkit: str = RDKIT

    @property
    def validity(self) -> float:
        return self.strict.validity

    @property
    def relaxed_validity(self) -> float:
        return self.relaxed.validity

    @property
    def uniqueness(self) -> float:
        return self.relaxed.uniqueness

    @property
    def novelty(self) -> float:
        return self.relaxed.novelty

    @property
    def figures(self) -> dict[str, float]:
        """The published figures by name, as fractions."""
        names = ("validity", "relaxed_validity", "uniqueness", "novelty")
        return {name.replace("_", " "): getattr(self, name) for name in names}


def digress(smiles: Sequence[str | None], training_smiles: Sequence[str] | None = None) -> DiGress:
    """Validity and its relatives of SMILES as DiGress publishes them (Vignac et al. 2023).

    Valid: the graph sanitises; its largest fragment stands for it. Relaxed: an uncharged N, O or S whose bonds exceed its lowest
    valence (3, 2, 2) by exactly one may carry the charge +1. What is no SMILES, "None" included, counts as not valid. Training
    SMILES are brought into the same canonical form first.
    """
    with rdBase.BlockLogs():
        plain = [_reread(s, relaxed=False) for s in smiles]
        relaxed = [p if p is not None else _reread(s, relaxed=True) for p, s in zip(plain, smiles, strict=True)]
        known = {c for s in training_smiles or () if (c := _reread(s, relaxed=True)) is not None}
    return DiGress(Novelty.of(plain, known), Novelty.of(relaxed, known))


LOWEST_VALENCE = {7: 3, 8: 2, 16: 2}


def _reread(smiles: str | None, relaxed: bool) -> str | None:
    """Canonical SMILES of the largest fragment, hydrogens in brackets dissolved; None where it does not sanitise."""
    mol = Chem.MolFromSmiles(smiles, sanitize=False) if smiles and smiles != "None" else None
    if mol is None or not mol.GetNumAtoms():
        return None
    if relaxed:
        mol.UpdatePropertyCache(strict=False)
        for atom in mol.GetAtoms():
            lowest = LOWEST_VALENCE.get(atom.GetAtomicNum())
            if lowest and not atom.GetFormalCharge() and atom.GetValence(Chem.ValenceType.EXPLICIT) == lowest + 1:
                atom.SetFormalCharge(1)
    if not _sanitised(mol):
        return None
    fragment = _largest_fragment(mol)
    if any(atom.GetAtomicNum() == 1 for atom in fragment.GetAtoms()):
        fragment = Chem.RemoveHs(fragment, sanitize=False)
    return str(Chem.MolToSmiles(fragment))


# ------------------------------------------------------------------------------------------------------------------- midi

VALENCES = {
    ("H", 0): (1,), ("H", 1): (0,), ("H", -1): (0,), ("B", 0): (3,), ("B", -1): (4,), ("C", 0): (4,), ("C", 1): (3,), ("C", -1): (3,),
    ("N", 0): (3,), ("N", 1): (4,), ("N", -1): (2,), ("O", 0): (2,), ("O", 1): (3,), ("O", -1): (1,), ("F", 0): (1,), ("F", -1): (0,),
    ("Al", 0): (3,), ("Al", -1): (4,), ("Si", 0): (4,), ("P", 0): (3, 5), ("P", 1): (4,), ("S", 0): (2, 4, 6), ("S", 1): (3, 5),
    ("S", -1): (1,), ("Cl", 0): (1,), ("Cl", -1): (0,), ("As", 0): (3, 5), ("Se", 0): (2, 4, 6), ("Br", 0): (1,), ("Br", 1): (2,),
    ("Br", -1): (0,), ("I", 0): (1,), ("I", 1): (2,), ("I", -1): (0,),
}  # fmt: skip
CHARGES = 8  # formal charges from -8 to 8 are told apart; what lies beyond counts as that


def valences(molecules: Molecules) -> tuple[NDArray[np.int64], Flags]:
    """Valence of every atom, and whether there is one: two arrays (n, atoms).

    The sum of bond orders in a Kekulé structure, so a benzene carbon has 4 and the nitrogen of pyrrole 3. Atoms on an aromatic bond
    of a molecule that has no Kekulé structure have no valence: False, and the sum at order 1.5, rounded down, as a number.
    """
    molecules = perceive(molecules)
    bonds = molecules.bonds.numpy()
    order = np.array([0.0, 1.0, 2.0, 3.0, 1.5])
    found = np.stack([order[row].sum(1) for row in bonds]) if len(bonds) else np.zeros(molecules.numbers.shape)
    aromatic = (molecules.bonds == BONDS.index("aromatic")).any(2).numpy()
    known = ~aromatic
    rows = np.flatnonzero(aromatic.any(1))
    with rdBase.BlockLogs():
        for row, molecule in zip(rows.tolist(), unstacked(molecules[torch.from_numpy(rows)]), strict=True):
            sums = _kekule_valences(molecule)
            if sums is not None:
                found[row, : len(sums)], known[row] = sums, True
    return found.astype(np.int64), known


def _kekule_valences(molecule: Molecule) -> Any:
    mol = to_rdkit(molecule)
    try:
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        Chem.Kekulize(mol)
    except (ValueError, RuntimeError):
        return None
    sums = np.zeros(len(molecule.numbers))
    for bond in mol.GetBonds():
        sums[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]] += bond.GetBondTypeAsDouble()
    return sums


def stable_atoms(molecules: Molecules) -> Flags:
    """Whether bonds and formal charge of an atom fit each other (VALENCES): (n, atoms), False for padding.

    MiDi's published code keeps bond orders as integers, so an aromatic bond counts 1, a benzene carbon 3, and its table therefore lets
    a neutral carbon have three bonds and a nitrogen two, radicals included. Here aromatic rings are kekulised and neither is let through.
    """
    sums, known = valences(molecules)
    allowed = np.zeros((len(SYMBOLS), 2 * CHARGES + 1, 16), bool)
    for (symbol, charge), fitting in VALENCES.items():
        allowed[ATOMIC_NUMBER[symbol], charge + CHARGES, list(fitting)] = True
    charges = molecules.charges.numpy().astype(int).clip(-CHARGES, CHARGES)
    return np.asarray(allowed[molecules.numbers.numpy(), charges + CHARGES, sums.clip(0, 15)] & known)


def graph_smiles(molecules: Molecules) -> tuple[list[str | None], NDArray[np.int64]]:
    """SMILES, hydrogens as atoms, of the largest fragment of each molecule as its bonds and charges stand, None where it does not
    sanitise; and the number of fragments (n,)."""
    molecules = perceive(molecules)
    smiles: list[str | None] = []
    pieces = np.zeros(len(molecules), np.int64)
    with rdBase.BlockLogs():
        for row, molecule in enumerate(unstacked(molecules)):
            mol = _graph(molecule.numbers, molecule.charges, molecule.bonds)
            pieces[row] = len(Chem.GetMolFrags(mol))
            smiles.append(_smiles_of_largest(mol))
    return smiles, pieces


@dataclass(frozen=True)
class Marginals:
    """The laws of single atoms, bonds and angles that MiDi compares. Histograms are counts; E = len(SYMBOLS)."""

    sizes: Floats  # (atoms + 1,): molecules by number of atoms
    elements: Floats  # (E,)
    bond_types: Floats  # (5,): pairs of atoms by bond, none included
    charges: Floats  # (E, 17): from -8 to 8
    valences: Floats  # (E, 16)
    lengths: Floats  # (5, 2001): bond lengths by bond type, bins of 0.01 Angstrom
    angles: Floats  # (E, 1801): bond angles by central element, bins of 0.1 degrees


def marginals(molecules: Molecules) -> Marginals:
    """Count what MiDi compares."""
    molecules = perceive(molecules)
    numbers, sums = molecules.numbers.numpy().astype(int), valences(molecules)[0]
    real = numbers > 0
    charges = molecules.charges.numpy().astype(int).clip(-CHARGES, CHARGES) + CHARGES
    lengths, bond_types = np.zeros((len(BONDS), 2001)), np.zeros(len(BONDS))
    angles = np.zeros((len(SYMBOLS), 1801))
    for rows in blocks(molecules):
        part = molecules[rows]
        orders, bins = _bond_lengths(part)
        bond_types += np.bincount(orders, minlength=len(BONDS))
        bonded = orders > 0
        lengths += _counts((len(BONDS), 2001), orders[bonded], bins[bonded])
        angles += _counts((len(SYMBOLS), 1801), *_bond_angles(part))
    return Marginals(
        np.bincount(molecules.bucket.numpy(), minlength=molecules.numbers.shape[1] + 1).astype(float),
        np.bincount(numbers[real], minlength=len(SYMBOLS)).astype(float),
        bond_types,
        _counts((len(SYMBOLS), 2 * CHARGES + 1), numbers[real], charges[real]),
        _counts((len(SYMBOLS), 16), numbers[real], sums[real].clip(0, 15)),
        lengths,
        angles,
    )


def _counts(shape: tuple[int, int], rows: Any, columns: Any) -> Floats:
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape).astype(float)


def _bond_lengths(molecules: Molecules) -> tuple[Any, Any]:
    """Bond type and length in 0.01 Angstrom, rounded, of every pair of atoms once."""
    atoms = molecules.numbers.shape[1]
    i, j = torch.triu_indices(atoms, atoms, 1)
    real = (molecules.numbers[:, i] > 0) & (molecules.numbers[:, j] > 0)
    apart = (molecules.positions[:, i] - molecules.positions[:, j]).norm(dim=2)
    return molecules.bonds[:, i, j][real].long().numpy(), (apart[real] * 100).round().clamp(max=2000).long().numpy()


def _bond_angles(molecules: Molecules) -> tuple[Any, Any]:
    """Element of the central atom and angle in 0.1 degrees, rounded, of every pair of bonds that share an atom."""
    bonded = molecules.bonds > 0
    degree = int(bonded.sum(2).max()) if len(molecules) else 0
    if degree < 2:
        return np.zeros(0, int), np.zeros(0, int)
    near = bonded.to(torch.uint8).argsort(dim=2, descending=True, stable=True)[:, :, :degree]
    there = bonded.gather(2, near)
    row = torch.arange(len(molecules))[:, None, None]
    towards = molecules.positions[row, near] - molecules.positions[:, :, None]
    towards = towards / towards.norm(dim=3, keepdim=True).clamp(min=1e-6)
    j, k = torch.triu_indices(degree, degree, 1)
    both = there[:, :, j] & there[:, :, k]
    cosine = (towards[:, :, j] * towards[:, :, k]).sum(3).clamp(-1, 1)  # the published code means to clamp and does not
    centre = molecules.numbers[:, :, None].expand(both.shape)
    return centre[both].long().numpy(), torch.rad2deg(cosine[both].acos()).mul(10).round().long().numpy()


def _w1(p: Floats, q: Floats) -> Any:
    """W1 in bins between histograms along the last axis. One that is empty has the distribution function 0, as MiDi has it."""
    width = max(p.shape[-1], q.shape[-1])
    laws = []
    for counts in (p, q):
        total = counts.sum(-1, keepdims=True)
        law = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
        laws.append(np.pad(law, [(0, 0)] * (law.ndim - 1) + [(0, width - law.shape[-1])]))
    reached = np.abs(np.cumsum(laws[0] - laws[1], axis=-1))
    # Where one law is empty its grid ends with the last bin that either side fills in any class.
    filled = np.flatnonzero((laws[0] + laws[1]).reshape(-1, width).any(0))
    return reached[..., filled[0] : filled[-1] + 1].sum(-1) if len(filled) else np.zeros(p.shape[:-1])


def midi_distances(drawn: Marginals, nature: Marginals) -> dict[str, float]:
    """MiDi's distances between two sets of marginals, weighted by nature's frequencies, by name.

    AtomTV, BondTV: sum |p - q|, so 2 at most; "no bond" is one of the bond types. BondLengthsW1 in Angstrom: sum over bond types of
    p(type) W1 with p taken over *all pairs of atoms*, as published, which makes it about nine times smaller on QM9 than a
    mean over bonds would be. BondAnglesW1 in degrees: mean over elements with weight p(element) (1 - P(valence 0 or 1)).
    ValencyW1 and ChargesW1: mean over elements. NodesW1 in atoms.
    """
    element, bond = nature.elements / nature.elements.sum(), nature.bond_types / max(1.0, nature.bond_types.sum())
    branching = element * (1 - nature.valences[:, :2].sum(1) / np.maximum(1, nature.valences.sum(1)))
    angles = _w1(drawn.angles, nature.angles) / 10
    return {
        "NodesW1": float(_w1(drawn.sizes, nature.sizes)),
        "AtomTV": float(np.abs(drawn.elements / drawn.elements.sum() - element).sum()),
        "BondTV": float(np.abs(drawn.bond_types / max(1.0, drawn.bond_types.sum()) - bond).sum()),
        "ChargesW1": float((element * _w1(drawn.charges, nature.charges)).sum()),
        "ValencyW1": float((element * _w1(drawn.valences, nature.valences)).sum()),
        "BondLengthsW1": float((bond[1:] * _w1(drawn.lengths[1:], nature.lengths[1:])).sum() / 100),
        "BondAnglesW1": float((branching * angles).sum() / max(1e-12, branching.sum())),
    }


@dataclass(frozen=True)
class MiDi:
    """MiDi's scores with a correct aromatic valence. `floor` holds the same distances between two halves of nature."""

    atoms: NDArray[np.int64]  # (n,)
    stable_atoms: NDArray[np.int64]  # (n,)
    fragments: NDArray[np.int64]  # (n,)
    smiles: Novelty
    distances: Mapping[str, float]
    floor: Mapping[str, float]
    rdkit: str = RDKIT

    @property
    def stable(self) -> Flags:
        return np.asarray(self.stable_atoms == self.atoms)

    @property
    def atom_stability(self) -> float:
        return _share(int(self.stable_atoms.sum()), int(self.atoms.sum()))

    @property
    def molecule_stability(self) -> float:
        return _share(int(self.stable.sum()), len(self.atoms))

    @property
    def connectedness(self) -> float:
        return _share(int((self.fragments == 1).sum()), len(self.fragments))

    @property
    def figures(self) -> dict[str, float]:
        """The published figures by name: fractions, then distances in the units that `midi_distances` states."""
        stability = {"atom stability": self.atom_stability, "molecule stability": self.molecule_stability}
        return {**stability, **self.smiles.figures, "connectedness": self.connectedness, **self.distances}


def midi(molecules: Molecules, nature: Molecules, training_smiles: Collection[str] | None = None, *, seed: int = 0) -> MiDi:
    """MiDi's protocol (Vignac et al. 2023) on bonds and charges as they stand.

    Stability: `stable_atoms`, which differs from the published code where that counts aromatic bonds as single ones. Validity: the
    largest fragment sanitises, with lacking hydrogens added silently. Training SMILES must come from `graph_smiles` of the training
    molecules. The floor parts nature into two halves at random (`seed`) and so has half of nature's size on either side.
    """
    if not len(molecules) or len(nature) < 2:
        raise Refused(f"MiDi's protocol compares molecules with nature: {len(molecules)} were drawn, nature has {len(nature)}")
    molecules, nature = perceive(molecules), perceive(nature)
    smiles, fragments = graph_smiles(molecules)
    known = _refuse_another_form(smiles, training_smiles, "graph_smiles(training molecules)")
    halves = torch.from_numpy(np.random.default_rng(seed).permutation(len(nature))).tensor_split(2)
    first, second = (marginals(nature[half]) for half in halves)
    distances = midi_distances(marginals(molecules), marginals(nature))
    stable = stable_atoms(molecules).sum(1)
    return MiDi(molecules.bucket.numpy(), stable, fragments, Novelty.of(smiles, known), distances, midi_distances(first, second))


# ----------------------------------------------------------------------------------------------------------------- strict


@dataclass(frozen=True)
class Strict:
    """Whether each molecule is one, and the first reason why not ("" where it is)."""

    valid: Flags  # (n,)
    reasons: tuple[str, ...]
    rdkit: str = RDKIT

    @property
    def validity(self) -> float:
        return _share(int(self.valid.sum()), len(self.valid))

    @property
    def figures(self) -> dict[str, float]:
        """The share of molecules that are valid."""
        return {"strict validity": self.validity}


def strict(molecules: Molecules, charge: int = 0) -> Strict:
    """Molecules that a chemist accepts, taken exactly as drawn: no hydrogen is added and nothing is mended.

    In this order: every valence is right and aromatic rings have a Kekulé structure (it sanitises); one fragment; formal charges add
    up to `charge` (a zwitterion is neutral); no unpaired electrons (a lacking hydrogen is one); every stereocentre and
    stereo double bond takes a side in 3D: no flat stereocentre, no double bond twisted nearer to 90 than to 0 or 180 degrees. Nitrogen
    is not asked for a side: its pyramid turns over.
    """
    with rdBase.BlockLogs():
        reasons = tuple(_fault(mol, charge) for mol in _drawn(molecules))
    return Strict(np.array([not reason for reason in reasons], bool), reasons)


def _drawn(molecules: Molecules) -> Iterable[Chem.Mol]:
    return (to_rdkit(molecule) for molecule in unstacked(perceive(molecules)))


def _fault(mol: Chem.Mol, charge: int) -> str:
    """First reason why the molecule is not one, "" where it is. Sanitises `mol` in place."""
    try:
        Chem.SanitizeMol(mol, AS_DRAWN)
    except (ValueError, RuntimeError) as error:
        return f"does not sanitise: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
    fragments = len(Chem.GetMolFrags(mol))
    if fragments > 1:
        return f"falls into {fragments} fragments"
    total = Chem.GetFormalCharge(mol)
    if total != charge:
        return f"total charge {total:+d}, expected {charge:+d}" if charge else f"total charge {total:+d}"
    for atom in mol.GetAtoms():
        if atom.GetNumRadicalElectrons():
            return f"unpaired electrons on atom {atom.GetIdx()} ({atom.GetSymbol()})"
    return _stereo_fault(mol)


def _stereo_fault(mol: Chem.Mol) -> str:
    for place in Chem.FindPotentialStereo(mol):
        if place.type == Chem.StereoType.Atom_Tetrahedral and _flat(mol, mol.GetAtomWithIdx(place.centeredOn)):
            return f"the stereocentre at atom {place.centeredOn} ({mol.GetAtomWithIdx(place.centeredOn).GetSymbol()}) is flat"
        if place.type == Chem.StereoType.Bond_Double and _twisted(mol, mol.GetBondWithIdx(place.centeredOn)):
            bond = mol.GetBondWithIdx(place.centeredOn)
            return f"the double bond between atoms {bond.GetBeginAtomIdx()} and {bond.GetEndAtomIdx()} is twisted"
    return ""


def _flat(mol: Chem.Mol, atom: Chem.Atom) -> bool:
    """Whether the tetrahedron of the directions to four neighbours, or of the atom and three, has under a tenth of its regular volume.

    RDKit's own tags do not tell: it clears them wherever a centre's hand makes no difference, as on the axis of a symmetric cage.
    """
    neighbours = [a.GetIdx() for a in atom.GetNeighbors()]
    if len(neighbours) not in (3, 4) or (len(neighbours) == 3 and atom.GetAtomicNum() == 7):
        return False
    places = mol.GetConformer().GetPositions()
    arms = places[neighbours] - places[atom.GetIdx()]
    arms /= np.maximum(1e-9, np.linalg.norm(arms, axis=1, keepdims=True))
    edges, regular = (arms[:3], 4 / 27**0.5) if len(arms) == 3 else (arms[:3] - arms[3], 16 / 27**0.5)
    return bool(abs(np.linalg.det(edges)) < 0.1 * regular)


def _twisted(mol: Chem.Mol, bond: Chem.Bond) -> bool:
    """Whether the planes at the two ends of a double bond are nearer to right angles than to one plane."""
    ends = bond.GetBeginAtom(), bond.GetEndAtom()
    places = mol.GetConformer().GetPositions()
    axis = places[ends[1].GetIdx()] - places[ends[0].GetIdx()]
    axis /= max(1e-9, float(np.linalg.norm(axis)))
    sides = []
    for end, other in (ends, ends[::-1]):
        neighbour = next((a.GetIdx() for a in end.GetNeighbors() if a.GetIdx() != other.GetIdx()), None)
        if neighbour is None:
            return False
        arm = places[neighbour] - places[end.GetIdx()]
        arm = arm - (arm @ axis) * axis
        sides.append(arm / max(1e-9, float(np.linalg.norm(arm))))
    return bool(abs(sides[0] @ sides[1]) < np.sqrt(0.5))


# ------------------------------------------------------------------------------------------------------- PoseBusters, strain


@dataclass(frozen=True)
class PoseBusters:
    """PoseBusters' checks of each molecule by name; one that could not be checked within the time passes none and has a reason."""

    checks: tuple[str, ...]
    passed: Flags  # (n, checks)
    reasons: tuple[str, ...]  # "" where checked
    rdkit: str = RDKIT

    @property
    def all_passed(self) -> Flags:
        return np.asarray(self.passed.all(1) & np.array([not reason for reason in self.reasons], bool))


def posebusters_checks(molecules: Molecules, seconds: float = 30.0) -> PoseBusters:
    """PoseBusters, configuration "mol": sanity, connectedness, lengths, angles, clashes, flatness, energy (tenths of a second each).

    `seconds` is the limit per molecule by the clock. Raises Refused where posebusters is not installed.
    """
    if importlib.util.find_spec("posebusters") is None:
        raise Refused('posebusters is not installed; pip install "simulacra[chem]" brings it')
    answers = _asked("posebusters", molecules, seconds, (*WORKER, "posebusters"))
    names = tuple(next((list(answer["checks"]) for answer in answers if isinstance(answer, dict)), []))
    passed = [[isinstance(answer, dict) and answer["checks"].get(name, False) for name in names] for answer in answers]
    reasons = tuple("" if isinstance(answer, dict) else answer for answer in answers)
    return PoseBusters(names, np.array(passed, bool).reshape(len(answers), len(names)), reasons)


def strain(molecules: Molecules, seconds: float = 10.0) -> Floats:
    """MMFF94 energy as drawn minus the energy of the nearest minimum, kcal/mol: (n,) float64.

    NaN where a molecule does not sanitise as drawn, MMFF94 lacks a parameter, or relaxing takes longer than `seconds` by the clock.
    """
    found = np.full(len(molecules), np.nan)
    for row, answer in enumerate(_asked("strain", molecules, seconds)):
        if isinstance(answer, dict) and answer["drawn"] is not None:
            found[row] = answer["drawn"] - answer["relaxed"]
    return found


def _asked(task: str, molecules: Molecules, seconds: float, command: Sequence[str] = WORKER) -> list[dict[str, Any] | str]:
    """What a time-boxed process answers about each molecule, or why it did not."""
    answers: list[dict[str, Any] | str] = []
    with TimeBox(seconds, command) as box:
        for molecule in unstacked(perceive(molecules)):
            try:
                answers.append(box.ask({"task": task, **as_question(molecule)}))
            except Unanswered as reason:
                answers.append(str(reason))
    return answers


# ---------------------------------------------------------------------------------------------------------------- columns


def flat_smiles(smiles: Iterable[str]) -> frozenset[str]:
    """Canonical SMILES without stereochemistry; what does not parse is left out."""
    with rdBase.BlockLogs():
        return frozenset(str(Chem.MolToSmiles(mol, isomericSmiles=False)) for s in smiles if (mol := Chem.MolFromSmiles(s)) is not None)


def columns(molecules: Molecules, known: Iterable[str] = (), *, with_strain: bool = True, seconds: float = 10.0) -> dict[str, NDArray[Any]]:
    """Scores of each molecule, for the columns of an SDF or CSV file: arrays (n,) by name.

    smiles         canonical, with the stereochemistry of the geometry; "" where it does not sanitise as drawn
    stable         by `edm`
    valid, reason  by `strict`
    strain         kcal/mol, see `strain`; NaN throughout without `with_strain`, which takes by far the longest
    novel          the SMILES without stereochemistry is not among `known`; False where there is no SMILES. A frozenset is taken for
                   the outcome of `flat_smiles`, anything else is brought into that form first
    qed            drug-likeness, 0 to 1 (Bickerton et al. 2012, Nat. Chem. 4:90)
    sa             synthetic accessibility, 1 easy to 10 hard (Ertl & Schuffenhauer 2009, J. Cheminf. 1:8), by the script in RDKit's
                   Contrib folder with the fragment table that lies beside it; NaN where an RDKit was built without them
    """
    molecules = perceive(molecules)
    listed = known if isinstance(known, frozenset) else flat_smiles(known)
    smiles, reasons, novel, scores = [], [], [], []
    with rdBase.BlockLogs():
        for mol in _drawn(molecules):
            reasons.append(_fault(mol, 0))
            if reasons[-1].startswith("does not sanitise"):
                smiles.append("")
                novel.append(False)
                scores.append((np.nan, np.nan))
                continue
            Chem.AssignStereochemistryFrom3D(mol)
            bare = Chem.RemoveHs(mol)
            smiles.append(str(Chem.MolToSmiles(bare)))
            novel.append(str(Chem.MolToSmiles(bare, isomericSmiles=False)) not in listed)
            scores.append((_qed(bare), _accessibility(bare)))
    qed, sa = np.array(scores, float).reshape(-1, 2).T
    return {
        "smiles": np.array(smiles, dtype=object),
        "stable": edm(molecules).stable,
        "valid": np.array([not reason for reason in reasons], bool),
        "reason": np.array(reasons, dtype=object),
        "strain": strain(molecules, seconds) if with_strain else np.full(len(molecules), np.nan),
        "novel": np.array(novel, bool),
        "qed": qed,
        "sa": sa,
    }


def _qed(mol: Chem.Mol) -> float:
    from rdkit.Chem import QED

    qed: Any = QED.qed  # has no annotations
    try:
        return float(qed(mol))
    except (ValueError, RuntimeError, ZeroDivisionError):
        return float("nan")


def _accessibility(mol: Chem.Mol) -> float:
    try:
        from rdkit.Contrib.SA_Score import sascorer
    except ImportError:
        return float("nan")
    try:
        return float(sascorer.calculateScore(mol))
    except (ValueError, RuntimeError, ZeroDivisionError):
        return float("nan")
