"""Hydrogens put in place around heavy atoms whose graph is finished.

RDKit finds the directions that the neighbours and the hybridisation leave free; the lengths are the mean ones of training, by kind
of the heavy atom and its highest bond (`usual_lengths`). Nothing is relaxed. Where a graph does not sanitise, the hydrogens are
placed all the same, so that broken molecules are judged too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from simulacra.sciences.molecules.data import BONDS, Molecule, Molecules, from_rdkit, to_rdkit
from simulacra.sciences.molecules.graphs import AtomClass, encoded

PLAIN = 1.09  # Angstrom, where training has no hydrogen on such an atom
BLOCK = 8192


def usual_lengths(molecules: Molecules, classes: Sequence[AtomClass]) -> Tensor:
    """Mean distance to the hydrogens of an atom, by its class and the highest of its bonds to heavy atoms, in Angstrom:
    (len(classes), len(BONDS)). Where training has none, the mean of the class, or PLAIN."""
    total, count = torch.zeros(len(classes), len(BONDS), dtype=torch.float64), torch.zeros(len(classes), len(BONDS), dtype=torch.float64)
    for start in range(0, len(molecules), BLOCK):
        part = molecules[start : start + BLOCK]
        goal = encoded(part, classes, placed=True)
        n = goal.mask.shape[1]
        bonded = (part.bonds[:, :n] > 0) & (part.numbers == 1)[:, None] & goal.mask[..., None]
        row, heavy, hydrogen = bonded.nonzero(as_tuple=True)
        length = (part.positions[row, heavy] - part.positions[row, hydrogen]).norm(dim=1).double()
        place = (goal.classes[row, heavy], goal.bonds[row, heavy].amax(1))
        total.index_put_(place, length, accumulate=True)
        count.index_put_(place, torch.ones_like(length), accumulate=True)
    of_class = torch.where(count.sum(1) > 0, total.sum(1) / count.sum(1).clamp_min(1), PLAIN)
    return torch.where(count > 0, total / count.clamp_min(1), of_class[:, None]).float()


def place(heavy: Molecule, counts: NDArray[np.int64], lengths: NDArray[np.float32]) -> Molecule:
    """`heavy` with `counts` (atoms,) hydrogens on its atoms at `lengths` (atoms,) from them in Angstrom, appended after them."""
    with rdBase.BlockLogs():
        mol = to_rdkit(heavy)
        _hold(mol, counts)
        _describe(mol)
        _hold(mol, counts)  # finding the Kekule form takes the hydrogen of an aromatic nitrogen away
        full = Chem.AddHs(mol, explicitOnly=True, addCoords=True)
    made = from_rdkit(full)
    # RDKit may have turned bonds it found aromatic; what was drawn is kept.
    bonds = np.asarray(made.bonds)
    bonds[: len(counts), : len(counts)] = heavy.bonds
    positions, n = made.positions, len(counts)
    owner = np.repeat(np.arange(n), counts)  # RDKit appends the hydrogens of the first atom first
    away = positions[n:] - positions[owner]
    # Where two heavy atoms lie on each other RDKit finds no direction: the hydrogen goes onto their place, and is judged so.
    unit = np.nan_to_num(away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
    positions[n:] = positions[owner] + unit * lengths[owner, None]
    return Molecule(made.numbers, positions, made.charges, bonds)


def _hold(mol: Any, counts: NDArray[np.int64]) -> None:
    """Atoms that have `counts` hydrogens and take no others."""
    for atom, count in zip(mol.GetAtoms(), counts.tolist(), strict=True):
        atom.SetNumExplicitHs(count)
        atom.SetNoImplicit(True)


def _describe(mol: Any) -> None:
    """Hybridisation, as far as the graph allows. Nothing is cleaned up on the way: RDKit would move charges and hydrogens."""
    flags = Chem.SanitizeFlags
    steps = flags.SANITIZE_ALL & ~(flags.SANITIZE_CLEANUP | flags.SANITIZE_CLEANUP_ORGANOMETALLICS | flags.SANITIZE_ADJUSTHS)
    if Chem.SanitizeMol(mol, sanitizeOps=steps, catchErrors=True) != flags.SANITIZE_NONE:
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        Chem.SetConjugation(mol)
        Chem.SetHybridization(mol)
