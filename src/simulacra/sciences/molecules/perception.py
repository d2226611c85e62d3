"""Which atoms are bonded, and how, where only positions are known.

Two ways, and they do not agree: how bonds are assigned moves a published score more than most changes of a model do. The bond table
of EDM (Hoogeboom et al. 2022) judges each pair by its distance alone and knows no charges and no aromatic bonds; RDKit's
rdDetermineBonds looks for a molecule that fits the geometry and the total charge as a whole, but may take for ever, so it runs in
a time-boxed process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.sciences.molecules.data import ATOMIC_NUMBER, SYMBOLS, UNKNOWN, Molecule, Molecules, unstacked
from simulacra.sciences.molecules.timebox import TimeBox, Unanswered
from simulacra.study import Refused

MARGINS = (10, 5, 3)  # pm by which a single, double, triple bond may be longer than the table says; tuned on QM9 by EDM's authors
# Typical bond lengths in pm as EDM's code lists them; a pair that is absent is never bonded at that order.
SINGLE = {
    "H": {"H": 74, "B": 119, "C": 109, "N": 101, "O": 96, "F": 92, "Si": 148, "P": 144, "S": 134, "Cl": 127, "Br": 141, "I": 161},
    "As": {"H": 152},
    "B": {"Cl": 175},
    "C": {"C": 154, "N": 147, "O": 143, "F": 135, "Si": 185, "P": 184, "S": 182, "Cl": 177, "Br": 194, "I": 214},
    "N": {"N": 145, "O": 140, "F": 136, "P": 177, "S": 168, "Cl": 175, "Br": 214, "I": 222},
    "O": {"O": 148, "F": 142, "Si": 163, "P": 163, "S": 151, "Cl": 164, "Br": 172, "I": 194},
    "F": {"F": 142, "Si": 160, "P": 156, "S": 158, "Cl": 166, "Br": 178, "I": 187},
    "Si": {"Si": 233, "S": 200, "Cl": 202, "Br": 215, "I": 243},
    "P": {"P": 221, "S": 210, "Cl": 203, "Br": 222},
    "S": {"S": 204, "Cl": 207, "Br": 225, "I": 234},
    "Cl": {"Cl": 199, "Br": 214},
    "Br": {"Br": 228},
    "I": {"I": 266},
}  # fmt: skip
DOUBLE = {"C": {"C": 134, "N": 129, "O": 120, "S": 160}, "N": {"N": 125, "O": 121}, "O": {"O": 121, "P": 150}, "P": {"S": 186}}
TRIPLE = {"C": {"C": 120, "N": 116, "O": 113}, "N": {"N": 110}}
BLOCK = 2**21  # pairs of atoms that are worked on at a time, so that memory does not grow with the number of molecules


def _limits() -> Tensor:
    """Distance in pm below which a pair of elements has at least a single, double, triple bond: (3, elements, elements), 0: never."""
    limits = torch.zeros(3, len(SYMBOLS), len(SYMBOLS))
    for order, (table, margin) in enumerate(zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True)):
        for a, row in table.items():
            for b, length in row.items():
                i, j = ATOMIC_NUMBER[a], ATOMIC_NUMBER[b]
                limits[order, i, j] = limits[order, j, i] = length + margin
    return limits


LIMITS = _limits()


def blocks(molecules: Molecules) -> Iterator[slice]:
    """Slices of rows that hold a bounded number of pairs of atoms."""
    step = max(1, BLOCK // max(1, molecules.numbers.shape[1] ** 2))
    for start in range(0, len(molecules), step):
        yield slice(start, min(start + step, len(molecules)))


def edm_bonds(molecules: Molecules) -> Tensor:
    """Bond orders 0 to 3 from distances by the table of EDM with its margins: (n, atoms, atoms) int8, symmetric.

    A pair at distance d is bonded where d < single length + 10 pm, doubly where also d < double length + 5 pm, triply where also
    d < triple length + 3 pm; the highest order wins. What `bonds` and `charges` say is not looked at. An element or a pair that
    the table lacks is never bonded.
    """
    orders = torch.zeros(len(molecules), *molecules.numbers.shape[1:], molecules.numbers.shape[1], dtype=torch.int8)
    for rows in blocks(molecules):
        numbers, positions = molecules.numbers[rows].long(), molecules.positions[rows]
        apart = (positions[:, :, None] - positions[:, None]).square().sum(3).sqrt() * 100
        for limit in LIMITS:
            orders[rows] += apart < limit[numbers[:, :, None], numbers[:, None]]
    orders.diagonal(dim1=1, dim2=2).zero_()
    return orders


def perceive(
    molecules: Molecules,
    method: Literal["table", "rdkit"] = "table",
    *,
    seconds: float = 5.0,
    charge: int = 0,
    failed: Callable[[int, str], None] | None = None,
) -> Molecules:
    """The molecules with the bonds of those filled in whose bonds are UNKNOWN; all others stay as they are.

    method="table": `edm_bonds`; charges are kept. method="rdkit": rdDetermineBonds for the total `charge` in e, which also sets
    formal charges, at most `seconds` by the clock per molecule in a process of its own that is killed when it takes longer. A
    molecule that it fails on or does not finish keeps UNKNOWN bonds, and `failed(row, reason)` is called for it.
    """
    if method not in ("table", "rdkit"):
        raise Refused(f"bonds can be perceived by 'table' or 'rdkit', not by {method!r}")
    if not seconds > 0:
        raise Refused(f"the time limit per molecule is {seconds} s; expected more than 0")
    unknown = (molecules.bonds == UNKNOWN).flatten(1).any(1).nonzero()[:, 0]
    if not len(unknown):
        return molecules
    bonds, charges = molecules.bonds.clone(), molecules.charges.clone()
    if method == "table":
        bonds[unknown] = edm_bonds(molecules[unknown])
    else:
        rows = unknown.tolist()
        for row, found in zip(rows, determined(unstacked(molecules[unknown]), seconds, charge), strict=True):
            if isinstance(found, str):
                if failed:
                    failed(row, found)
                continue
            bonds[row] = 0
            k = len(found.numbers)
            bonds[row, :k, :k], charges[row, :k] = torch.from_numpy(found.bonds), torch.from_numpy(found.charges)
    return Molecules(**{**molecules.fields(), "bonds": bonds, "charges": charges})


def determined(molecules: Sequence[Molecule], seconds: float, charge: int) -> Iterator[Molecule | str]:
    """Each molecule with the bonds that rdDetermineBonds finds, or the reason why it found none."""
    with TimeBox(seconds) as box:
        for molecule in molecules:
            question = {"numbers": molecule.numbers.tolist(), "positions": molecule.positions.astype(float).tolist(), "charge": charge}
            try:
                answer = box.ask({"task": "bonds", **question})
            except Unanswered as reason:
                yield str(reason)
                continue
            bonds = matrix(answer["bonds"], len(molecule.numbers))
            yield Molecule(molecule.numbers, molecule.positions, np.array(answer["charges"], np.int8), bonds)


def matrix(pairs: Sequence[tuple[int, int, int]], atoms: int) -> NDArray[np.int8]:
    """Bonds (i, j, order) as a symmetric matrix (atoms, atoms)."""
    bonds = np.zeros((atoms, atoms), np.int8)
    for i, j, order in pairs:
        bonds[i, j] = bonds[j, i] = order
    return bonds


def as_question(molecule: Molecule) -> dict[str, Any]:
    """A molecule with known bonds, as a TimeBox is asked about it."""
    assert molecule.bonds is not None
    i, j = np.nonzero(np.triu(molecule.bonds, 1))
    return {
        "numbers": molecule.numbers.tolist(),
        "positions": molecule.positions.astype(float).tolist(),
        "charges": molecule.charges.tolist(),
        "bonds": np.column_stack([i, j, molecule.bonds[i, j]]).tolist(),
    }
