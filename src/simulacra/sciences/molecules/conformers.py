"""A shape for a molecule of which only the graph is known: distance geometry, then a force field.

ETKDG version 3 (Riniker and Landrum 2015, J. Chem. Inf. Model. 55:2562; Wang et al. 2020, ibid. 60:2044) places the atoms, MMFF94
(Halgren 1996, J. Comput. Chem. 17:490) relaxes them. One conformer of many, in vacuo; no substitute for a quantum-chemical geometry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from simulacra.sciences.molecules.data import SYMBOLS, Molecule, from_rdkit

SECONDS = 10  # for one try of two; a cage that cannot be embedded would otherwise be tried for ever
TURNS = 1000  # of the minimiser at most; molecules of nine heavy atoms converge within 200


class NoShape(ValueError):
    """A molecule that gets no conformer; the text is the reason."""


def conformer(smiles: str, *, seed: int, largest: int) -> Molecule:
    """The molecule of `smiles` with all hydrogens in one conformer, in Angstrom, centred at its mean; the same for the same seed.

    Raises NoShape where the SMILES cannot be read, has an element beyond SYMBOLS or more than `largest` atoms, where no conformer is
    found in two tries of 10 s or MMFF94 has no parameters for it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            raise NoShape(f"SMILES {_short(smiles)} cannot be read: {_complaint(smiles)}")
        beyond = sorted({a.GetSymbol() for a in mol.GetAtoms() if not 0 < a.GetAtomicNum() < len(SYMBOLS)})
        if beyond:
            raise NoShape(f"{_short(smiles)} has {', '.join(beyond)}; elements from H to {SYMBOLS[-1]} are known here")
        atoms = mol.GetNumAtoms() + sum(a.GetTotalNumHs() for a in mol.GetAtoms())
        if atoms > largest:
            raise NoShape(f"{_short(smiles)} has {atoms:,} atoms; at most {largest} are read")
        return _relaxed(Chem.AddHs(mol), smiles, seed)


def _relaxed(mol: Chem.Mol, smiles: str, seed: int) -> Molecule:
    how: Any = rdDistGeom.ETKDGv3()
    how.randomSeed, how.timeout = seed, SECONDS
    how.embedFragmentsSeparately = False  # else the parts of a salt lie inside each other
    if rdDistGeom.EmbedMolecule(mol, how) != 0:
        how.useRandomCoords = True  # the way out for crowded molecules
        if rdDistGeom.EmbedMolecule(mol, how) != 0:
            raise NoShape(f"no conformer of {_short(smiles)} was found (ETKDG)")
    if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(Chem.Mol(mol)):
        raise NoShape(f"MMFF94 has no parameters for {_short(smiles)}")
    made = from_rdkit(mol)  # before the force field, which leaves its own notion of aromatic bonds behind
    rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=TURNS, ignoreInterfragInteractions=False)
    places = mol.GetConformer().GetPositions()
    return Molecule(made.numbers, (places - places.mean(0)).astype(np.float32), made.charges, made.bonds)


def _complaint(smiles: str) -> str:
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        return "its grammar is wrong"
    problems = Chem.DetectChemistryProblems(mol)
    return problems[0].Message() if problems else "RDKit does not say why"


def _short(smiles: str) -> str:
    return smiles if len(smiles) <= 60 else f"{smiles[:57]}..."
