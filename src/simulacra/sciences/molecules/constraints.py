"""What a drawn molecule has to keep to: its size, a formula, properties, atoms in given places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simulacra.families import flow
from simulacra.sciences.molecules.data import ELEMENT_GIVEN, POSITION_GIVEN, Molecules
from simulacra.sciences.molecules.graphs import AtomClass, Conditions
from simulacra.study import Refused


def formula_given(like: Molecules) -> Tensor:
    """Rows of which every atom's element is asked for, (n,) bool."""
    return (like.given >= ELEMENT_GIVEN).sum(1) == like.bucket


def hydrogens_given(like: Molecules) -> Tensor:
    """Rows whose number of hydrogens is asked for, not only suggested, (n,) bool: all of them are given, and there are some."""
    hydrogen = like.numbers == 1
    return hydrogen.any(1) & (~hydrogen | (like.given >= ELEMENT_GIVEN)).all(1)


def template(like: Molecules) -> Tensor:
    """Rows that are a template, not a molecule, (n,) bool: their atoms have no positions but the given ones."""
    free = like.positions.abs().sum(2) * (like.given < POSITION_GIVEN)
    return free.sum(1) == 0


@dataclass(frozen=True)
class Constraints:
    """In the terms of a network that sees (B, n) atoms of K classes."""

    told: Tensor  # (B, conditions) what the network is told
    mask: Tensor  # (B, n) bool, where an atom is
    allowed: Tensor  # (B, n, K) bool, classes that an atom may take
    element: Tensor  # (K,) place of a class's element among those of the quota
    quota: Tensor  # (B, elements) how many atoms of each element there may be
    bonds: Tensor  # (B, n, n) given bonds, -1 where free
    positions: Tensor  # (B, n, 3) given positions in Angstrom, 0 elsewhere
    given: Tensor  # (B, n) bool, atoms with given positions

    @classmethod
    def of(cls, like: Molecules, classes: Sequence[AtomClass], conditions: Conditions, *, placed: bool, atoms: int) -> Constraints:
        """What `like` asks for; at least `atoms` wide. The size of a molecule, hydrogens included, is always told; properties only
        by a template: nature's own are not given away. Raises Refused for a given atom that was never seen in training."""
        points = like.numbers > 1 if placed else like.numbers > 0
        n = max(atoms, int(points.sum(1).max()))
        wide = like.widened(n) if like.numbers.shape[1] < n else like
        mask = torch.zeros(len(like), n, dtype=torch.bool, device=like.numbers.device)
        mask[:, : min(n, points.shape[1])] = points[:, :n]
        numbers, given = wide.numbers[:, :n].long(), wide.given[:, :n] * mask
        formula, fixed = formula_given(like), given >= POSITION_GIVEN
        told = conditions(like, torch.ones_like(formula), formula, template(like)[:, None] & ~like.properties.isnan())
        kinds = torch.tensor(classes, device=mask.device)
        allowed = ~fixed[..., None] | (numbers[..., None] == kinds[:, 0]) & (wide.charges[:, :n, None] == kinds[:, 1])
        if not allowed.any(-1).all():
            row, atom = (~allowed.any(-1)).nonzero()[0].tolist()
            raise Refused(
                f"given atom {atom + 1} of row {row} (element {int(numbers[row, atom])}, charge {int(wide.charges[row, atom])}) is of a "
                "kind that was never seen in training"
            )
        elements = sorted({z for z, _, _ in classes})
        asked = torch.stack([((numbers == z) & (given >= ELEMENT_GIVEN)).sum(1) for z in elements], 1)
        quota = torch.where(formula[:, None], asked, n)
        element = torch.tensor([elements.index(z) for z, _, _ in classes], device=mask.device)
        bonds = torch.where(fixed[:, :, None] & fixed[:, None], wide.bonds[:, :n, :n].long(), -1)
        positions = torch.where(fixed[..., None], wide.positions[:, :n], 0.0)
        return cls(told, mask, allowed, element, quota, bonds, positions, fixed)

    def unmasked(self, classes: Tensor, logits: Tensor, chance: float, u: Tensor, v: Tensor) -> Tensor:
        """`flow.unmasked` among allowed classes and within the quota, atom by atom where there is one, as each uses it up."""
        unknown = logits.shape[-1]
        if not bool((self.quota < self.mask.shape[1]).any()):
            return flow.unmasked(classes, logits.masked_fill(~self.allowed, -math.inf), chance, u, v, unknown)
        classes = classes.clone()
        for atom in range(classes.shape[1]):
            at = slice(atom, atom + 1)
            open_ = self.allowed[:, atom] & (self._left(classes)[:, self.element] > 0)
            open_ = torch.where(open_.any(1, keepdim=True), open_, self.allowed[:, atom])
            choice = logits[:, at].masked_fill(~open_[:, None], -math.inf)
            classes[:, at] = flow.unmasked(classes[:, at], choice, chance, u[:, at], v[:, at], unknown)
        return classes

    def _left(self, classes: Tensor) -> Tensor:
        """Atoms of each element that may still be drawn, (B, elements)."""
        known = (classes < len(self.element)) & self.mask
        kind = self.element[classes.clamp(max=len(self.element) - 1)]
        drawn = torch.stack([((kind == k) & known).sum(1) for k in range(self.quota.shape[1])], 1)
        return self.quota - drawn

    def laid(self, points: Tensor) -> Tensor:
        """`points` (B, n, 3) with the given atoms, as one rigid body, laid where they fit them best."""
        if not bool(self.given.any()):
            return points
        turn, there, own = self._frame(points)
        return torch.where(self.given[..., None], (self.positions - own) @ turn.transpose(1, 2) + there, points)

    def returned(self, points: Tensor) -> Tensor:
        """`points` moved as a whole so that the given atoms lie where they were given, exactly."""
        if not bool(self.given.any()):
            return points
        turn, there, own = self._frame(points)
        moved = (points - there) @ turn + own
        any_given = self.given.any(1)[:, None, None]
        return torch.where(self.given[..., None], self.positions, torch.where(any_given & self.mask[..., None], moved, points))

    def _frame(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation (B, 3, 3) and centres (B, 1, 3), in `points` and as given, of the given atoms."""
        weight = self.given.to(points.dtype)[..., None]
        count = weight.sum(1, keepdim=True).clamp_min(1)
        there, own = ((y * weight).sum(1, keepdim=True) / count for y in (points, self.positions))
        return flow.rotation_onto((self.positions - own) * weight, (points - there) * weight), there, own
