"""What the flow learns of a molecule: atoms as classes, bonds as classes, positions; with hydrogens as atoms or as counts.

With hydrogens as counts, an atom's class is (element, formal charge, number of hydrogens) and only heavy atoms are points; the
hydrogens are placed from the finished graph (hydrogens.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simulacra.sciences.molecules.data import PROPERTIES, Molecules
from simulacra.study import Refused

AtomClass = tuple[int, int, int]  # atomic number, formal charge, hydrogens that are not points


@dataclass(frozen=True)
class Graphs:
    """Points with classes: a batch of molecules as the network sees it, padded; (B, n) atoms."""

    classes: Tensor  # (B, n) int64, index into the vocabulary
    bonds: Tensor  # (B, n, n) int64, index into data.BONDS, 0 on the diagonal and where there is no atom
    positions: Tensor  # (B, n, 3) float32, Angstrom, zero mean
    mask: Tensor  # (B, n) bool


def hydrogen_counts(molecules: Molecules, atoms: int) -> Tensor:
    """Hydrogens bonded to each of the first `atoms` atoms, (n, atoms) int64."""
    bonded = (molecules.bonds[:, :atoms] > 0) & (molecules.numbers == 1)[:, None]
    return bonded.sum(2)


def vocabulary(molecules: Molecules, *, placed: bool) -> list[AtomClass]:
    """Atom classes of the training molecules, most frequent first."""
    found, counts = torch.unique(_described(molecules, placed=placed), dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return [(int(z), int(c), int(h)) for z, c, h in found[order].tolist()]


def _described(molecules: Molecules, *, placed: bool) -> Tensor:
    """(atomic number, charge, hydrogens) of every point, (points, 3)."""
    numbers = molecules.numbers.long()
    points = numbers > 1 if placed else numbers > 0
    hydrogens = hydrogen_counts(molecules, numbers.shape[1]) if placed else torch.zeros_like(numbers)
    return torch.stack([numbers, molecules.charges.long(), hydrogens], -1)[points]


def encoded(molecules: Molecules, classes: Sequence[AtomClass], *, placed: bool, atoms: int = 0) -> Graphs:
    """Molecules as graphs, padded to `atoms` points or the largest. Raises Refused for an atom that is not in the vocabulary."""
    numbers = molecules.numbers.long()
    points = numbers > 1 if placed else numbers > 0
    n = max(atoms, int(points.sum(1).max()))
    wide = molecules.widened(n) if numbers.shape[1] < n else molecules
    numbers, mask = wide.numbers[:, :n].long(), torch.zeros(len(wide), n, dtype=torch.bool, device=numbers.device)
    mask[:, : points.shape[1]] = points[:, :n]
    hydrogens = hydrogen_counts(wide, n) if placed else torch.zeros_like(numbers)
    key = _key(numbers, wide.charges[:, :n].long(), hydrogens)
    known = torch.tensor([_key(*(torch.tensor(v) for v in entry)) for entry in classes], device=key.device)
    same = key[..., None] == known
    missing = ~same.any(-1) & mask
    if missing.any():
        row, atom = missing.nonzero()[0].tolist()
        raise Refused(
            f"molecule {row} has an atom (element {int(numbers[row, atom])}, charge {int(wide.charges[row, atom])}, "
            f"{int(hydrogens[row, atom])} hydrogens) that was never seen in training"
        )
    pair = mask[:, :, None] & mask[:, None]
    bonds = torch.where(pair, wide.bonds[:, :n, :n].long(), 0)
    positions = wide.positions[:, :n] * mask[..., None]
    mean = positions.sum(1, keepdim=True) / mask.sum(1).clamp_min(1)[:, None, None]
    return Graphs(same.int().argmax(-1), bonds, (positions - mean) * mask[..., None], mask)


def _key(number: Tensor, charge: Tensor, hydrogens: Tensor) -> Tensor:
    return (number * 32 + charge + 16) * 16 + hydrogens


class Conditions:
    """What is told to the network about a whole molecule: numbers, each with a flag that says whether it is known.

    hydrogens, heavy atoms per element, and PROPERTIES standardised by mean and deviation over training; `range` (2, PROPERTIES) is
    what training held, lowest above highest where it held nothing.
    """

    def __init__(self, elements: Sequence[int], centre: Tensor, scale: Tensor, span: Tensor) -> None:
        self.elements, self.centre, self.scale, self.range = list(elements), centre, scale, span
        self.width = 2 + 1 + len(self.elements) + 2 * len(PROPERTIES) + 1

    @classmethod
    def learnt(cls, molecules: Molecules, classes: Sequence[AtomClass]) -> Conditions:
        values = molecules.properties
        known = ~values.isnan()
        count = known.sum(0).clamp_min(1)
        centre = values.nan_to_num().sum(0) / count
        scale = ((values - centre).nan_to_num().square().sum(0) / count).sqrt().clamp_min(1e-6)
        lowest, highest = values.nan_to_num(torch.inf).amin(0), values.nan_to_num(-torch.inf).amax(0)
        none = ~known.any(0)  # where nothing is known the range is empty: from 1 to 0
        lowest, highest = torch.where(none, 1.0, lowest), torch.where(none, 0.0, highest)
        scale = torch.where(known.any(0), scale, torch.ones_like(scale))
        return cls(sorted({z for z, _, _ in classes if z > 1}), centre, scale, torch.stack([lowest, highest]))

    def __call__(self, molecules: Molecules, hydrogens_known: Tensor, formula_known: Tensor, property_known: Tensor) -> Tensor:
        """(B, width); the flags are (B,), (B,) and (B, properties) bool, what is not known is 0."""
        numbers = molecules.numbers
        size = (numbers > 1).sum(1, keepdim=True).float() / 8
        hydrogens = (numbers == 1).sum(1, keepdim=True).float() / 8
        elements = torch.stack([(numbers == z).sum(1) for z in self.elements], 1).float() / 4
        values = (molecules.properties - self.centre.to(numbers.device)) / self.scale.to(numbers.device)
        told = property_known & ~values.isnan()
        first, second, third = hydrogens_known[:, None].float(), formula_known[:, None].float(), told.float()
        return torch.cat([size, hydrogens * first, first, elements * second, second, values.nan_to_num() * third, third], 1)
