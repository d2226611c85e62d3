"""Fragments with attachment points out of whole molecules, to see how well they are grown again.

    one point      a single bond that is in no ring is cut; the larger side
    two points     two such bonds; the part between them
    link           two such bonds; the two outer parts, as A.B

A bond is any of those, or one that retrosynthesis would cut (BRICS, Degen et al. 2008, ChemMedChem 3:1503).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rdkit import Chem, rdBase
from rdkit.Chem import BRICS

from simulacra.sciences.drugs import growing, properties
from simulacra.study import Refused

Kind = Literal["one point", "two points", "link"]
KINDS: tuple[Kind, ...] = ("one point", "two points", "link")
LEAST = 5  # heavy atoms of a fragment
SINGLE = "[!#1]-;!@[!#1]"


def fragment_of(smiles: str, kind: Kind, seed: int, *, brics: bool = False) -> str | None:
    """A fragment of a molecule as SMILES, or None where it has none of this kind."""
    mol = properties.molecule(smiles)
    if mol is None:
        return None
    pairs = _brics(mol) if brics else mol.GetSubstructMatches(Chem.MolFromSmarts(SINGLE))
    bonds = [mol.GetBondBetweenAtoms(*pair).GetIdx() for pair in pairs]
    rng = random.Random(seed)
    for _ in range(8):
        if len(bonds) < (1 if kind == "one point" else 2):
            return None
        cut = rng.sample(bonds, 1 if kind == "one point" else 2)
        found = _chosen(Chem.GetMolFrags(_without_labels(Chem.FragmentOnBonds(mol, cut)), asMols=True), kind)
        if found is not None and _grows(found):
            return found
    return None


def fragments(smiles: Sequence[str], kind: Kind, count: int, *, brics: bool = False) -> list[str]:
    """`count` fragments, or fewer, of different molecules in their order."""
    out: list[str] = []
    with rdBase.BlockLogs():
        for i, one in enumerate(smiles):
            if len(out) == count:
                break
            found = fragment_of(one, kind, i, brics=brics)
            out += [found] if found else []
    return out


def _brics(mol: Any) -> list[tuple[int, int]]:
    found: Any = BRICS.FindBRICSBonds
    return [pair for pair, _ in found(mol)]


def _without_labels(mol: Any) -> Any:
    for atom in mol.GetAtoms():
        if not atom.GetAtomicNum():
            atom.SetIsotope(0)
    return mol


def _chosen(parts: Sequence[Any], kind: Kind) -> str | None:
    points = [sum(not atom.GetAtomicNum() for atom in part.GetAtoms()) for part in parts]
    heavy = [part.GetNumHeavyAtoms() - n for part, n in zip(parts, points, strict=True)]
    if kind == "one point":
        largest = max(range(len(parts)), key=heavy.__getitem__)
        return str(Chem.MolToSmiles(parts[largest])) if heavy[largest] >= LEAST else None
    middle = points.index(2) if 2 in points else None
    if middle is None or len(parts) != 3:
        return None
    if kind == "two points":
        return str(Chem.MolToSmiles(parts[middle])) if heavy[middle] >= LEAST else None
    outer = [i for i in range(3) if i != middle]
    return ".".join(Chem.MolToSmiles(parts[i]) for i in outer) if min(heavy[i] for i in outer) >= LEAST else None


def _grows(text: str) -> bool:
    try:
        growing.fragment(text)
    except Refused:
        return False
    return True


def trial(
    asked: Sequence[growing.Fragment], rows: Sequence[int], complete: growing.Complete, seed: int, attempts: int = 1
) -> tuple[float, float, list[str]]:
    """Grow each fragment: the share of strings that the model wrote which are molecules in one piece, the share of these that keep what
    they were grown from, and what came out, "" where nothing did within `attempts`."""
    written: list[str] = []

    def watched(prompts: Sequence[str], rows: Sequence[int], seed: int) -> Sequence[str]:
        out = complete(prompts, rows, seed)
        written.extend(out)
        return out

    made = growing.grow(asked, rows, watched, seed=seed, attempts=attempts)
    whole = sum(_whole(text) for text in written)
    finished = [(one, text) for one, text in zip(asked, made, strict=True) if text]
    good = sum(growing.kept(one, text) for one, text in finished)
    return whole / max(len(written), 1), good / max(len(finished), 1), made


def _whole(text: str) -> bool:
    mol = properties.molecule(text)
    return mol is not None and len(Chem.GetMolFrags(mol)) == 1


def at_the_right_end(asked: Sequence[growing.Fragment], write: Callable[[Sequence[str]], Sequence[str]]) -> tuple[float, float]:
    """The baseline: each fragment's canonical SMILES, without its attachment points, as the beginning of a string that the model goes on
    from. Share of molecules in one piece, and share that hold the fragments grown at every attachment point and nowhere else."""
    plain = [Chem.MolToSmiles(Chem.RemoveHs(_with_hydrogens(one))) for one in asked]
    written = write(plain)
    with rdBase.BlockLogs():
        whole = [_whole(text) for text in written]
        kept = [ok and growing.kept(one, text) for ok, one, text in zip(whole, asked, written, strict=True)]
    return sum(whole) / max(len(whole), 1), sum(kept) / max(len(kept), 1)


def _with_hydrogens(one: growing.Fragment) -> Any:
    mol = Chem.RWMol(Chem.MolFromSmiles(one.text))
    for atom in mol.GetAtoms():
        if not atom.GetAtomicNum():
            atom.SetAtomicNum(1)
            atom.SetIsotope(0)
            atom.SetAtomMapNum(0)
    return mol.GetMol()
