"""What goes to a chemist's other programs and comes from them: drawn molecules as files with scores, and lists of known ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from simulacra.sciences.molecules import formats, protocols
from simulacra.sciences.molecules.constraints import formula_given
from simulacra.sciences.molecules.data import POSITION_GIVEN, PROPERTIES, UNITS, Molecules
from simulacra.sciences.molecules.perception import perceive
from simulacra.sciences.molecules.pictures import formula

FORMATS = (".sdf", ".xyz", ".smi", ".csv")
CONDITIONS: Mapping[str, str] = {
    "atoms": "atoms in all, hydrogens included, e.g. 18; several, 16,18,20, are spread over the draws",
    "formula": "elements and counts, e.g. C7H10O2",
    "fix": "SDF file with one scaffold whose atoms, bonds and positions are kept",
    "property": "target, e.g. alpha=80; known: " + ", ".join(f"{name} ({unit})" for name, unit in UNITS.items()),
}


def read(path: Path) -> Molecules:
    """Molecules that any program wrote."""
    return formats.read(path)[0]


def known_smiles(path: Path) -> frozenset[str]:
    """Canonical SMILES without stereo of the molecules in a file. Of .smi and .csv only the strings are read, no shapes are made."""
    kind = Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower()
    if kind not in (".smi", ".csv"):
        return protocols.flat_smiles(s for s in protocols.graph_smiles(perceive(read(path)))[0] if s)
    return protocols.flat_smiles(formats.smiles_of(path))


def export(molecules: Molecules, path: Path, against: Path | None) -> None:
    """Molecules in the format that the ending names, each with the scores of `protocols.columns`; `novel` means that it is not in the
    file `against`, and is left out without one."""
    molecules = perceive(molecules)
    columns = protocols.columns(molecules, known_smiles(against) if against else ())
    if against is None:
        del columns["novel"]
    formats.write(molecules, path, {name: _worded(values) for name, values in columns.items() if name != "smiles"})


def _worded(values: np.ndarray) -> Sequence[object]:
    if values.dtype == bool:
        return ["yes" if v else "no" for v in values]
    return ["" if isinstance(v, float) and np.isnan(v) else round(v, 4) if isinstance(v, float) else v for v in values.tolist()]


def summary(asked: Molecules, drawn: Molecules) -> list[str]:
    """What was achieved, against what was asked for."""
    n, strict, stable = len(drawn), protocols.strict(drawn), protocols.edm(drawn).stable
    smiles = [s for s in protocols.graph_smiles(perceive(drawn))[0] if s]
    lines = [
        f"{int(strict.valid.sum())} of {n} are valid as drawn (strict), {int(stable.sum())} stable by EDM's table, "
        f"{len(set(smiles))} different molecules; none was filtered out"
    ]
    same_size = int((asked.bucket == drawn.bucket).sum())
    if same_size < n:
        lines.append(f"{same_size} of {n} have as many atoms as asked for")
    if formula_given(asked).all():
        wanted = [formula(row.tolist()) for row in asked.numbers]
        right = sum(formula(row.tolist()) == w for row, w in zip(drawn.numbers, wanted, strict=True))
        lines.append(f"{right} of {n} have the formula {wanted[0]}")
    if (asked.given >= POSITION_GIVEN).any():
        lines.append(_scaffold_kept(asked, drawn))
    return lines + _properties_met(asked, drawn)


def _scaffold_kept(asked: Molecules, drawn: Molecules) -> str:
    """How many rows hold the given heavy atoms, with their bonds, at their places."""
    heavy = (asked.given >= POSITION_GIVEN) & (asked.numbers > 1)
    width = min(asked.numbers.shape[1], drawn.numbers.shape[1])
    heavy = heavy[:, :width]
    off = (asked.positions[:, :width] - drawn.positions[:, :width]).abs().amax(2) * heavy
    kept = (off.amax(1) < 1e-3) & (((asked.numbers[:, :width] == drawn.numbers[:, :width]) | ~heavy).all(1))
    pair = heavy[:, :, None] & heavy[:, None]
    kept &= ((asked.bonds[:, :width, :width] == drawn.bonds[:, :width, :width]) | ~pair).flatten(1).all(1)
    return f"{int(kept.sum())} of {len(drawn)} hold the scaffold's heavy atoms and bonds in place"


def _properties_met(asked: Molecules, drawn: Molecules) -> list[str]:
    """Of a template, whose properties are targets."""
    lines = []
    for k, name in enumerate(PROPERTIES):
        both = ~asked.properties[:, k].isnan() & ~drawn.properties[:, k].isnan()
        if both.any():
            wanted, found = asked.properties[both, k], drawn.properties[both, k]
            lines.append(
                f"{name}: asked for {_range(wanted)}, drawn {found.mean():.4g} ± {found.std(correction=0):.2g} {UNITS[name]}, "
                f"mean error {(found - wanted).abs().mean():.2g}"
            )
        elif (~asked.properties[:, k].isnan()).any() and drawn.properties[:, k].isnan().any():
            target = f"{_range(asked.properties[:, k])} {UNITS[name]}"
            lines.append(f"{name}: asked for {target}; it takes a quantum-chemical program to measure")
    return lines


def _range(values: torch.Tensor) -> str:
    there = values[~values.isnan()]
    low, high = float(there.min()), float(there.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def models(molecules: Molecules) -> list[str]:
    """One SDF record each, for a viewer. Bonds that nobody stated are read from the distances."""
    return formats.records(perceive(molecules))

