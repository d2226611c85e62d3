"""All molecules that are one small change of the graph away: what a chemist's eraser and pencil could do in one move.

    add        an atom to one that has hydrogens: C N O F Cl S, or =O
    remove     an atom at an end, or one in a chain or ring whose two neighbours are then joined
    replace    an atom by another element, hydrogens as they then are
    insert     C, N or O into a single bond
    bond       single to double or triple, and back
    close      a ring of 3 to 6 atoms between two that have hydrogens and no ring in common
    open       a ring at a single bond

(The moves of graph-based genetic algorithms, one at a time: Jensen 2019, Chem. Sci. 10:3567.) What RDKit cannot make a molecule of goes;
stereochemistry does too, since most moves leave none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rdkit import Chem, rdBase

ADDED = (6, 7, 8, 9, 17, 16)
REPLACING = (6, 7, 8, 16, 9, 17, 35)
INSERTED = (6, 7, 8)
RINGS = range(2, 6)  # bonds between the two atoms: rings of 3 to 6
_SINGLE, _DOUBLE, _TRIPLE = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE


def one_step(smiles: str) -> list[str]:
    """Canonical SMILES, without stereo, of every molecule that is one move away from this one, in alphabetical order."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            return []
        Chem.RemoveStereochemistry(mol)
        itself = Chem.MolToSmiles(mol)
        found = {made for changed in _moves(mol) if (made := _molecule(changed))}
    return sorted(found - {itself})


def _molecule(changed: Any) -> str:
    """Canonical SMILES of a changed graph; empty where it is no molecule, or more than one."""
    made = changed.GetMol()
    try:
        Chem.SanitizeMol(made)
        smiles = str(Chem.MolToSmiles(made))
    except (ValueError, RuntimeError):
        return ""
    # Aromatic rings are perceived anew: what does not come back as it was written was none.
    return smiles if "." not in smiles and Chem.MolFromSmiles(smiles) is not None else ""


def _moves(mol: Any) -> Iterator[Any]:
    kekule = Chem.Mol(mol)
    Chem.Kekulize(kekule, clearAromaticFlags=True)
    for atom in kekule.GetAtoms():
        yield from _added(kekule, atom)
        yield from _removed(kekule, atom)
    for atom in mol.GetAtoms():  # of an aromatic ring n and c are one step apart only while it is one
        yield from _replaced(mol if atom.GetIsAromatic() else kekule, atom.GetIdx())
    for bond in kekule.GetBonds():
        yield from _rebonded(kekule, bond, aromatic=mol.GetBondWithIdx(bond.GetIdx()).GetIsAromatic())
    yield from _closed(kekule)


def _free(atom: Any) -> Any:
    """An atom of a graph that is being changed: RDKit counts its hydrogens again."""
    atom.SetNoImplicit(False)
    atom.SetNumExplicitHs(0)
    return atom


def _added(mol: Any, atom: Any) -> Iterator[Any]:
    choices = [(number, _SINGLE) for number in ADDED] + [(8, _DOUBLE)]
    for number, kind in choices:
        if atom.GetTotalNumHs() >= (2 if kind == _DOUBLE else 1):
            changed = Chem.RWMol(mol)
            changed.AddBond(atom.GetIdx(), changed.AddAtom(Chem.Atom(number)), kind)
            _free(changed.GetAtomWithIdx(atom.GetIdx()))
            yield changed


def _removed(mol: Any, atom: Any) -> Iterator[Any]:
    near = [n.GetIdx() for n in atom.GetNeighbors()]
    if len(near) == 1 or (len(near) == 2 and mol.GetBondBetweenAtoms(*near) is None):
        changed = Chem.RWMol(mol)
        if len(near) == 2:
            changed.AddBond(near[0], near[1], _SINGLE)
        for index in near:
            _free(changed.GetAtomWithIdx(index))
        changed.RemoveAtom(atom.GetIdx())
        yield changed


def _replaced(mol: Any, index: int) -> Iterator[Any]:
    atom = mol.GetAtomWithIdx(index)
    for number in REPLACING:
        if number != atom.GetAtomicNum():
            changed = Chem.RWMol(mol)
            new = _free(changed.GetAtomWithIdx(index))
            new.SetAtomicNum(number)
            new.SetFormalCharge(0)
            yield changed


def _rebonded(mol: Any, bond: Any, *, aromatic: bool) -> Iterator[Any]:
    ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()

    def changed_to(kind: Any) -> Any:
        changed = Chem.RWMol(mol)
        changed.RemoveBond(*ends)
        if kind is not None:
            changed.AddBond(ends[0], ends[1], kind)
        for index in ends:
            _free(changed.GetAtomWithIdx(index))
        return changed

    if not aromatic:
        for kind in (_SINGLE, _DOUBLE, _TRIPLE):
            if kind != bond.GetBondType():
                yield changed_to(kind)
        if bond.IsInRing() and bond.GetBondType() == _SINGLE:
            yield changed_to(None)
    if bond.GetBondType() == _SINGLE and not aromatic:
        for number in INSERTED:
            changed = changed_to(None)
            new = changed.AddAtom(Chem.Atom(number))
            for index in ends:
                changed.AddBond(index, new, _SINGLE)
            yield changed


def _closed(mol: Any) -> Iterator[Any]:
    apart = Chem.GetDistanceMatrix(mol)
    rings = mol.GetRingInfo()
    open_ends = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetTotalNumHs() > 0]
    for place, one in enumerate(open_ends):
        for other in open_ends[place + 1 :]:
            if int(apart[one, other]) in RINGS and not rings.AreAtomsInSameRing(one, other):
                changed = Chem.RWMol(mol)
                changed.AddBond(one, other, _SINGLE)
                for index in (one, other):
                    _free(changed.GetAtomWithIdx(index))
                yield changed
