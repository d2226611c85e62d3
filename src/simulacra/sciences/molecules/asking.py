"""What can be asked of a generator of molecules, as a template that its `draw` completes.

    atoms=18                         atoms in all, hydrogens included; several separated by commas are spread over the rows
    formula=C7H10O2                  every element is given
    fix=scaffold.sdf                 atoms, charges, positions and bonds of a scaffold are given, further atoms are added
    property=alpha=80                a target, in the units of `data.UNITS`; alpha=70,80,90 is a sweep, alpha=80,mu=2 asks for two

Without conditions only sizes are asked for, those of training. Conditions can be combined where they do not contradict each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.sciences.molecules import formats
from simulacra.sciences.molecules.data import (
    ATOMIC_NUMBER,
    ELEMENT_GIVEN,
    POSITION_GIVEN,
    PROPERTIES,
    SYMBOLS,
    UNITS,
    Molecule,
    Molecules,
    stacked,
    unstacked,
)
from simulacra.study import Refused

CONDITIONS = ("atoms", "formula", "fix", "property")
# Highest usual valency: what bounds the hydrogens of a formula. Odd and even ones stay so (P 3 or 5, S 2, 4 or 6).
VALENCY = {1: 1, 5: 3, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 5, 16: 6, 17: 1, 33: 5, 34: 6, 35: 1, 53: 1}
HYDROGEN, CARBON = 1, 6

Elements = dict[int, int]  # atomic number -> how many


def sizes(training: Molecules) -> Tensor:
    """What `ask` needs to know of the training molecules: (m, 2) int64, atoms and heavy atoms of each."""
    return torch.stack([training.bucket, training.heavy], 1)


def ask(training_sizes: Tensor, n: int, conditions: Mapping[str, str], elements: Sequence[int]) -> Molecules:
    """n templates under `conditions`, for models trained on molecules of `training_sizes` (m, 2), atoms and heavy atoms, and of the
    atomic numbers `elements`.

    Where nothing else is asked, sizes are taken evenly over the training molecules in order of size, so every call gives the same. In a
    template `given` says what holds: atoms of unknown element stand as carbon, one for each heavy atom to be, or as hydrogen; positions
    and bonds mean something between atoms with POSITION_GIVEN only; where a number of atoms is asked for, the hydrogens in it have
    ELEMENT_GIVEN; properties are NaN unless asked. Raises Refused with what can be asked where a condition is unknown, impossible, or
    outside what the model has seen.
    """
    unknown = sorted(set(conditions) - set(CONDITIONS))
    if unknown:
        raise Refused(f"molecules cannot be asked for under {', '.join(unknown)}; known conditions: {', '.join(CONDITIONS)}")
    if n < 1:
        raise Refused(f"{n} molecules asked for; expected one or more")
    scaffold = _scaffold(conditions["fix"], elements) if "fix" in conditions else _NOTHING
    if "formula" in conditions:
        formula = _formula(conditions["formula"], elements)
        _refuse_size(sum(formula.values()), training_sizes, f"formula {conditions['formula']}")
        _refuse_other_sizes(conditions, formula)
        rows = [_around(scaffold, _left_over(formula, scaffold, conditions), ELEMENT_GIVEN, ELEMENT_GIVEN)] * n
    else:
        pairs = _pairs(training_sizes, n, conditions.get("atoms"), scaffold)
        hydrogens = ELEMENT_GIVEN if "atoms" in conditions else 0
        rows = [_around(scaffold, _filling(atoms, heavy, scaffold), 0, hydrogens) for atoms, heavy in pairs]
    return _template(rows, _properties(conditions.get("property"), n))


# --------------------------------------------------------------------------------------------------------------------------- sizes


def _pairs(training_sizes: Tensor, n: int, atoms: str | None, scaffold: Molecule) -> list[tuple[int, int]]:
    """Atoms and heavy atoms of each row."""
    known = sorted((int(a), int(h)) for a, h in training_sizes.tolist())
    asked = _numbers("atoms", atoms) if atoms is not None else []
    for size in asked:
        _refuse_size(size, training_sizes, f"atoms={size}")
    held, heavy = len(scaffold.numbers), int((scaffold.numbers > 1).sum())
    room = [(a, h) for a, h in known if a > held and h >= heavy and a - h >= held - heavy] if held else known
    if not room or (asked and min(asked) <= held):
        raise Refused(
            f"the scaffold has {held} atoms ({heavy} heavy) and something must be added; "
            f"asked for {atoms or 'any size'}, training molecules have {known[0][0]} to {known[-1][0]} atoms"
        )
    if not asked:
        return [room[(2 * i + 1) * len(room) // (2 * n)] for i in range(n)]
    rows: list[tuple[int, int]] = []
    for size, count in zip(asked, _shares(n, len(asked)), strict=True):
        off = min(abs(a - size) for a, _ in room)
        near = [min(max(h, heavy), size - (held - heavy)) for a, h in room if abs(a - size) == off]  # the nearest size that was seen
        rows += [(size, near[(2 * i + 1) * len(near) // (2 * count)]) for i in range(count)]
    return rows


def _shares(n: int, parts: int) -> list[int]:
    """n rows divided among parts, in order."""
    shares: list[int] = np.bincount(np.arange(n) * parts // n, minlength=parts).tolist()
    return shares


def _numbers(name: str, text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        raise Refused(f"{name}={text}: expected a number of atoms such as 18, or several: 16,18,20") from None
    return found


def _refuse_size(atoms: int, training_sizes: Tensor, what: str) -> None:
    low, high = int(training_sizes[:, 0].min()), int(training_sizes[:, 0].max())
    if not low <= atoms <= high:
        raise Refused(f"{what} asks for {atoms} atoms; this model has learned from molecules of {low} to {high} atoms, hydrogens included")


# -------------------------------------------------------------------------------------------------------------------------- formula


def _formula(text: str, elements: Sequence[int]) -> Elements:
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", text)
    if not parts or "".join(symbol + count for symbol, count in parts) != text:
        raise Refused(f"formula={text}: expected symbols and counts without charges or brackets, such as C7H10O2")
    found: Elements = {}
    for symbol, count in parts:
        if symbol not in ATOMIC_NUMBER:
            raise Refused(f"formula={text}: {symbol} is no element from H to {SYMBOLS[-1]}")
        if count == "0" or len(count) > 4:
            raise Refused(f"formula={text}: {symbol}{count} is no sensible number of atoms")
        found[ATOMIC_NUMBER[symbol]] = found.get(ATOMIC_NUMBER[symbol], 0) + int(count or 1)
    _refuse_unseen(found, elements, f"formula={text}")
    _refuse_impossible(found, text)
    return found


def _refuse_unseen(found: Elements, elements: Sequence[int], what: str) -> None:
    unseen = [SYMBOLS[z] for z in found if z not in elements]
    if unseen:
        seen = ", ".join(SYMBOLS[z] for z in sorted(elements))
        raise Refused(f"{what}: this model has never seen {', '.join(unseen)}; it knows {seen}")


def _refuse_impossible(formula: Elements, text: str) -> None:
    """A neutral, connected, closed-shell molecule needs an even sum of valencies, and of 2 (atoms - 1) at least: a tree of bonds."""
    if not formula.keys() <= VALENCY.keys():
        return  # of metals and noble gases no valency is assumed
    total, atoms = sum(VALENCY[z] * count for z, count in formula.items()), sum(formula.values())
    if total % 2:
        raise Refused(f"formula={text}: its valencies add up to {total}, an odd number: a neutral molecule would have an unpaired electron")
    if total < 2 * (atoms - 1):
        single = sum(count for z, count in formula.items() if VALENCY[z] == 1)
        most = single - (2 * (atoms - 1) - total)
        what = "hydrogens" if single == formula.get(HYDROGEN, 0) else "hydrogens and halogens"
        raise Refused(f"formula={text}: the other atoms can bind {max(most, 0)} {what}, not {single}")


def _refuse_other_sizes(conditions: Mapping[str, str], formula: Elements) -> None:
    atoms = sum(formula.values())
    if "atoms" in conditions and _numbers("atoms", conditions["atoms"]) != [atoms]:
        raise Refused(f"formula={conditions['formula']} has {atoms} atoms, atoms={conditions['atoms']} asks for another number; give one")


# ------------------------------------------------------------------------------------------------------------------------- scaffold

_NOTHING = Molecule(np.zeros(0, np.uint8), np.zeros((0, 3), np.float32), np.zeros(0, np.int8), np.zeros((0, 0), np.int8))


def _scaffold(name: str, elements: Sequence[int]) -> Molecule:
    """The one molecule of a file, as drawn: open valences are where atoms may be added."""
    reading = formats.read_and_tell(Path(name), hydrogens=False)
    if len(reading.molecules) != 1 or reading.rejected:
        rejected = f" and {len(reading.rejected)} that cannot be used ({reading.rejected[0]})" if reading.rejected else ""
        raise Refused(f"fix={name}: holds {len(reading.molecules)} molecules{rejected}; expected one scaffold")
    scaffold = unstacked(reading.molecules)[0]
    if scaffold.bonds is None:
        raise Refused(f"fix={name}: the bonds of the scaffold are not known; give an SDF")
    _refuse_unseen(_counted(scaffold.numbers), elements, f"fix={name}")
    return scaffold


def _counted(numbers: NDArray[np.uint8]) -> Elements:
    found, counts = np.unique(numbers, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _left_over(formula: Elements, scaffold: Molecule, conditions: Mapping[str, str]) -> Elements:
    """What the formula has beyond the scaffold."""
    held = _counted(scaffold.numbers)
    lacking = [SYMBOLS[z] for z, count in held.items() if count > formula.get(z, 0)]
    if lacking:
        raise Refused(f"fix={conditions['fix']} holds more {', '.join(lacking)} than formula={conditions['formula']}")
    return {z: count - held.get(z, 0) for z, count in formula.items() if count > held.get(z, 0)}


def _filling(atoms: int, heavy: int, scaffold: Molecule) -> Elements:
    """Carbon and hydrogen in place of atoms whose element is not given."""
    held, held_heavy = len(scaffold.numbers), int((scaffold.numbers > 1).sum())
    return {CARBON: heavy - held_heavy, HYDROGEN: atoms - heavy - (held - held_heavy)}


# ------------------------------------------------------------------------------------------------------------------------- template


@dataclass(frozen=True)
class _Row:
    molecule: Molecule
    given: NDArray[np.uint8]  # (atoms,), in the order that `stacked` brings them into


def _around(scaffold: Molecule, more: Elements, heavy: int, hydrogens: int) -> _Row:
    """A scaffold and further atoms; `heavy` and `hydrogens` are what is given of those."""
    held, extra = len(scaffold.numbers), np.repeat(np.array(list(more), np.uint8), list(more.values()))
    atoms = held + len(extra)
    numbers, bonds = np.concatenate([scaffold.numbers, extra]), np.zeros((atoms, atoms), np.int8)
    if scaffold.bonds is not None:
        bonds[:held, :held] = scaffold.bonds
    positions, charges = np.zeros((atoms, 3), np.float32), np.zeros(atoms, np.int8)
    positions[:held], charges[:held] = scaffold.positions, scaffold.charges
    further = np.where(extra == HYDROGEN, hydrogens, heavy)
    level = np.concatenate([np.full(held, POSITION_GIVEN), further]).astype(np.uint8)
    return _Row(Molecule(numbers, positions, charges, bonds), level[np.argsort(numbers <= 1, kind="stable")])


def _template(rows: Sequence[_Row], properties: Tensor) -> Molecules:
    made = stacked([row.molecule for row in rows])
    given = torch.zeros_like(made.given)
    for i, row in enumerate(rows):
        given[i, : len(row.given)] = torch.from_numpy(row.given)
    return replace(made, given=given, properties=properties)


def _properties(text: str | None, n: int) -> Tensor:
    """(n, len(PROPERTIES)), NaN where nothing is asked."""
    values = torch.full((n, len(PROPERTIES)), torch.nan)
    targets = _targets(text) if text is not None else {}
    lengths = {len(wanted) for wanted in targets.values()} - {1}
    if len(lengths) > 1:
        raise Refused(f"property={text}: sweeps of different lengths; give each property one value, or all as many")
    for name, wanted in targets.items():
        values[:, PROPERTIES.index(name)] = torch.tensor(wanted)[torch.arange(n) * len(wanted) // n]
    return values


def _targets(text: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    name = ""
    for word in text.split(","):
        before, sign, value = word.rpartition("=")
        name = before.strip() if sign else name
        if name not in PROPERTIES:
            known = ", ".join(f"{p} ({UNITS[p]})" for p in PROPERTIES)
            raise Refused(f"property={text}: {name or word!r} is no property that is known here; known: {known}")
        try:
            target = float(value)
        except ValueError:
            target = math.nan
        if not math.isfinite(target):
            raise Refused(f"property={text}: {value!r} is no number; expected e.g. {name}=80, in {UNITS[name]}")
        found.setdefault(name, []).append(target)
    return found
