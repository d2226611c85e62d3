"""Hydrogens put in place around heavy atoms whose graph is finished.

RDKit sets each hydrogen at a standard length along the directions that the neighbours and the hybridisation leave free; nothing
is relaxed. Where a graph does not sanitise, the hydrogens are placed all the same, so that broken molecules are judged too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.molecules.data import Molecule, from_rdkit, to_rdkit


def place(heavy: Molecule, counts: NDArray[np.int64]) -> Molecule:
    """`heavy` with `counts` (atoms,) hydrogens on its atoms, appended after them."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = to_rdkit(heavy)
        for atom, count in zip(mol.GetAtoms(), counts.tolist(), strict=True):
            atom.SetNumExplicitHs(count)
        _describe(mol)
        full = Chem.AddHs(mol, explicitOnly=True, addCoords=True)
    made = from_rdkit(full)
    # RDKit may have turned bonds it found aromatic; what was drawn is kept.
    bonds = np.asarray(made.bonds)
    bonds[: len(counts), : len(counts)] = heavy.bonds
    return Molecule(made.numbers, _finite(made.positions), made.charges, bonds)


def _finite(positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where two heavy atoms lie on each other RDKit finds no direction for a hydrogen: it is put onto their place, and judged so."""
    return np.nan_to_num(positions)


def _describe(mol: Any) -> None:
    """Hybridisation, as far as the graph allows."""
    from rdkit import Chem

    if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        Chem.SetConjugation(mol)
        Chem.SetHybridization(mol)
