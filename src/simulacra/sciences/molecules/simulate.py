"""Embedded nature: small organic molecules made by rule, with force-field geometries. No network, no file.

What it is: scaffolds (chains, rings, bicycles, aromatic rings) of C, N and O with up to three of their hydrogens replaced by
functional groups, at most nine heavy atoms, as the grammar below allows; each in one conformer from ETKDG and MMFF94. What it is not:
a data set of nature. The family has the bonds, angles and functional groups of small organic chemistry, but its frequencies are those
of a grammar and its geometries those of a force field. It shows that every part works; claims need QM9 (`qm9.py`) or your own data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from simulacra.sciences.molecules.conformers import NoShape, conformer
from simulacra.sciences.molecules.data import Molecule, Molecules, stacked
from simulacra.sciences.molecules.formats import remembered
from simulacra.study import Refused

HEAVY = 9  # heavy atoms at most
LARGEST_FAMILY = 5000  # molecules; the grammar gives more, but they grow alike
SCAFFOLDS = (
    "C", "CC", "CCC", "CCCC", "CC(C)C", "CCCCC", "CCC(C)C", "CC(C)(C)C", "COC", "CCOC", "CCOCC", "CNC", "CN(C)C", "C=C", "CC=C",
    "C#C", "CC#C", "C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CO1", "C1COC1", "C1CCOC1", "C1CCOCC1", "C1CN1", "C1CNC1",
    "C1CCNC1", "C1CCNCC1", "C1COCCN1", "C1=CCCC1", "C1=CCCCC1", "C1CC2CC12", "C1CC2CC2C1", "C1CC2CCC1C2", "C1CC12CC2", "c1ccccc1",
    "c1ccncc1", "c1cncnc1", "c1ccoc1", "c1cc[nH]c1", "c1cnc[nH]1", "c1cocn1", "c1cn[nH]c1",
)  # fmt: skip
GROUPS = (  # each bound by its first atom
    "C", "CC", "C(C)C", "C=C", "C#C", "C1CC1", "O", "OC", "CO", "N", "NC", "N(C)C", "CN", "C=O", "C(C)=O", "C#N", "C(=O)O",
    "C(=O)OC", "OC=O", "C(N)=O", "NC=O", "=O",
)  # fmt: skip
# What a chemist would not bottle, or what turns into something else by itself: chains of hetero-atoms, enols, enamines and imines,
# acetals and aminals, allenes and ketenes, anhydrides and imides, carbonates, 1,2-dicarbonyls, acyl azoles.
UNWANTED = (
    "[#7,#8;!a]~[#7,#8]", "[OX2H,NX3;!$(NC=O)]-[CX3;!a]=[#6;!a]", "[CX4]([#7,#8])[#7,#8]", "C=C=*", "[OX2](C=O)C=O",
    "[NX3](C=O)C=O", "C(=O)C=O", "C(#N)C=O", "[CX2]=O", "C(=O)([#8,#7])[#8,#7]", "[CX3;!a]=[#7;!a]", "[#7;a]-[CX3]=O",
)  # fmt: skip


def simulated(n: int, *, seed: int) -> Molecules:
    """n different molecules of the family with all hydrogens, in one conformer each; the same for the same seed, and remembered
    between runs (`formats.remembered`)."""
    if not 1 <= n <= LARGEST_FAMILY:
        raise Refused(f"{n} simulated molecules; expected 1 to {LARGEST_FAMILY}. For more, give data (QM9, SDF, XYZ, SMILES)")
    return remembered(["simulated", n, seed], lambda: (family(n, seed=seed), []))[0]


def family(n: int, *, seed: int) -> Molecules:
    """`simulated`, made anew. The few molecules for which ETKDG finds no shape are replaced by the next."""
    found: list[Molecule] = []
    for smiles in enumerated(seed):
        try:
            found.append(conformer(smiles, seed=seed, largest=100))
        except NoShape:
            continue
        if len(found) == n:
            break
    return stacked(found)


def enumerated(seed: int) -> Iterator[str]:
    """Canonical SMILES of the family without end and without repetition, in an order that depends on the seed."""
    rng = np.random.default_rng([seed, HEAVY])
    seen: set[str] = set()
    while True:
        smiles = _grown(rng)
        if smiles is not None and smiles not in seen:
            seen.add(smiles)
            yield smiles


def _grown(rng: np.random.Generator) -> str | None:
    """One scaffold with no to three groups, or None where the grammar does not allow it."""
    mol = Chem.RWMol(_scaffolds()[rng.integers(len(SCAFFOLDS))])
    for _ in range(rng.integers(4)):
        group = GROUPS[rng.integers(len(GROUPS))]
        open_sites = [a.GetIdx() for a in mol.GetAtoms() if a.GetTotalNumHs() >= (2 if group == "=O" else 1)]
        if not open_sites:
            return None
        mol = _joined(mol, int(rng.choice(open_sites)), group)
    if mol.GetNumAtoms() > HEAVY:
        return None
    with rdBase.BlockLogs():
        if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
            return None
    if any(mol.HasSubstructMatch(pattern) for pattern in _unwanted()):
        return None
    smiles: str = Chem.MolToSmiles(mol)
    return smiles


def _joined(mol: Any, site: int, group: str) -> Any:
    """A molecule with one hydrogen (two for =O) of `site` replaced by `group`."""
    kind = Chem.BondType.DOUBLE if group.startswith("=") else Chem.BondType.SINGLE
    joined = Chem.RWMol(Chem.CombineMols(mol, Chem.MolFromSmiles(group.removeprefix("="))))
    atom = joined.GetAtomWithIdx(site)
    atom.SetNumExplicitHs(max(atom.GetNumExplicitHs() - 1, 0))  # of [nH]; other hydrogens follow from the valence
    joined.AddBond(site, mol.GetNumAtoms(), kind)
    joined.UpdatePropertyCache(strict=False)
    return joined


@cache
def _scaffolds() -> tuple[Any, ...]:
    return tuple(Chem.MolFromSmiles(smiles) for smiles in SCAFFOLDS)


@cache
def _unwanted() -> tuple[Any, ...]:
    return tuple(Chem.MolFromSmarts(pattern) for pattern in UNWANTED)
