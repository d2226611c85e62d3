"""Whether what will be asked for was trained on: molecules that must not be in training, and everything that is the same to chemistry.

A training molecule leaks one of the forbidden ones if

    flat      their flat forms are equal (properties.flat: largest part, neutral, no isotopes, no stereo), so salts, charge states and
              stereoisomers count
    skeleton  the first 14 letters of their InChIKeys are equal (Heller et al. 2015, J. Cheminform. 7:23), so tautomers count that InChI
              knows as such
    alike     strictly: their Morgan fingerprints of radius 2 (ECFP4) have a Tanimoto similarity of `alike` or more

Without this check a model that returns a drug for an older one may have remembered it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.runs import write_atomically
from simulacra.sciences.drugs import measuring, reading
from simulacra.study import Refused

Bits = NDArray[np.uint8]
Marked = NDArray[np.bool_]

REVISION = 1  # of what is remembered
_ATOM = re.compile(r"Cl|Br|Si|Se|As|Te|[A-Z]|[bcnops]")


@dataclass(frozen=True)
class Leaks:
    """Which training molecules (n,) leak a forbidden one, and how."""

    flat: Marked
    skeleton: Marked
    alike: Marked

    @property
    def any(self) -> Marked:
        """By whichever way."""
        return self.flat | self.skeleton | self.alike


def found(training: measuring.Table, forbidden: measuring.Table, *, alike: float = 1.0) -> Leaks:
    """The training molecules that leak forbidden ones. With alike = 1 nothing leaks by likeness alone."""
    kept = forbidden[forbidden.valid]
    names = {name for name in kept.flat.tolist() if name}
    flat = np.array([name in names for name in training.flat.tolist()], bool)
    near = nearest(training.bits, kept.bits, at_least=alike) >= alike if alike < 1 else np.zeros(len(training), bool)
    return Leaks(flat, _same_skeleton(training.flat.tolist(), names), near & training.valid)


def _same_skeleton(flat: Sequence[str], names: set[str]) -> Marked:
    """InChI is slow and is asked only where the heavy atoms are the same, without which no first letters agree."""
    atoms = {heavy_atoms(name) for name in names}
    place = [i for i, name in enumerate(flat) if name and heavy_atoms(name) in atoms]
    marked = np.zeros(len(flat), bool)
    if place:
        skeletons = {skeleton(name) for name in names} - {""}
        marked[place] = [skeleton(flat[i]) in skeletons for i in place]
    return marked


def heavy_atoms(smiles: str) -> tuple[str, ...]:
    """The symbols of a molecule's heavy atoms in alphabetical order, from its string alone; the H in brackets is none."""
    return tuple(sorted(symbol.capitalize() for symbol in _ATOM.findall(smiles) if symbol != "H"))


def without_stereo(smiles: str) -> str:
    """Canonical SMILES that says nothing of stereo, salts and charges as they are; empty where there is no molecule."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        return str(Chem.MolToSmiles(mol, isomericSmiles=False)) if mol is not None else ""


def skeleton(smiles: str) -> str:
    """The first 14 letters of the InChIKey, which stand for atoms, bonds and mobile hydrogens; empty where there is none."""
    key: Any = Chem.MolToInchiKey
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        return str(key(mol))[:14] if mol is not None else ""


def nearest(bits: Bits, known: Bits, *, at_least: float = 0.0) -> NDArray[np.float64]:
    """For each row of packed bits (n, b) the largest Tanimoto similarity to one of `known` (m, b): (n,). What is below `at_least` need
    not be right: it is then only known to be below."""
    counts, theirs = (np.bitwise_count(b).sum(1, dtype=np.int64) for b in (bits, known))
    best = np.zeros(len(bits))
    columns = np.unpackbits(known, axis=1).astype(np.float32).T
    order = np.argsort(theirs)
    columns, theirs = np.ascontiguousarray(columns[:, order]), theirs[order]
    # Similarity is at most the smaller number of bits over the larger one: rows in order of it meet only a part of the others.
    rows = np.argsort(counts, kind="stable")
    for start in range(0, len(rows), 512):
        some = rows[start : start + 512]
        low, high = counts[some[0]] * at_least, counts[some[-1]] / max(at_least, 1e-9)
        first, last = int(np.searchsorted(theirs, low, side="left")), int(np.searchsorted(theirs, high, side="right"))
        if last <= first:
            continue
        both = np.unpackbits(bits[some], axis=1).astype(np.float32) @ columns[:, first:last]
        either = counts[some][:, None] + theirs[None, first:last] - both
        best[some] = (both / np.maximum(either, 1)).max(1)
    return best


# --------------------------------------------------------------------------------------------------------------------- recipes


def checked(training: Sequence[str], without: Sequence[Path], *, alike: float = 1.0) -> tuple[NDArray[np.int64], str, dict[str, str]]:
    """The rows of the training molecules that leak none of the molecules in the files `without`; in words, what was dropped; and the
    checksums of the files. Remembered between runs in the user's cache folder (SIMULACRA_CACHE)."""
    files = {str(path): reading.sha256(Path(path)) for path in without}
    place = _place(training, list(files.values()), alike)
    marks = None
    with contextlib.suppress(OSError, ValueError, KeyError, zlib.error, EOFError), np.load(place, allow_pickle=False) as kept:
        marks = Leaks(*(kept[name].astype(bool) for name in ("flat", "skeleton", "alike")))
    if marks is None or len(marks.flat) != len(training):
        parts = (measuring.IDENTITY,)
        strings = [line.smiles for path in without for line in reading.lines(Path(path))]
        marks = found(measuring.measure(list(training), parts, remember=True), measuring.measure(strings, parts), alike=alike)
        _keep(place, marks)
    rows, names = np.flatnonzero(~marks.any), ", ".join(Path(path).name for path in without)
    if not len(rows):
        raise Refused(f"every training molecule is, or is like, one of {names}; nothing is left to learn")
    strictly = f" or a Tanimoto similarity of {alike:g} or more" if alike < 1 else ""
    said = (
        f"{int(marks.any.sum()):,} training molecules dropped that leak one of {names}: {int(marks.flat.sum()):,} with the same flat form, "
        f"{int((marks.flat | marks.skeleton).sum()):,} with that or the same InChIKey-14"
    )
    return rows, said + (f", {int(marks.any.sum()):,} with any of these{strictly}" if strictly else ""), files


def _place(training: Sequence[str], files: Sequence[str], alike: float) -> Path:
    key = hashlib.sha256(json.dumps([list(files), alike, REVISION, rdBase.rdkitVersion]).encode())
    key.update("\n".join(training).encode())
    return Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"drugs-leaks-{key.hexdigest()[:16]}.npz"


def _keep(place: Path, marks: Leaks) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, flat=marks.flat, skeleton=marks.skeleton, alike=marks.alike)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, content.getvalue())
