"""Molecules in the files that chemists use: SDF, XYZ, SMILES, CSV and npz, read with suspicion and written whole or not at all.

    .sdf .mol    as drawn; where a record sanitises, in RDKit's aromatic form. A record whose carbons carry no hydrogen although
                 valences are open gets its hydrogens, with coordinates. Flat drawings (2D) are set aside: give their SMILES instead.
    .xyz         many frames; bonds are not known, unless the comment says smiles="..." and that fits the geometry.
    .smi .csv    SMILES, each brought into one conformer by ETKDG and MMFF94 (`conformers.py`).
    .npz         our own, exact; or atomic_numbers, positions, n_atoms of concatenated molecules (as QM9 is often kept).

Text files may be packed (.gz). A record that cannot be used is set aside with the reason; a file is refused where all of them fail or
where most are in another unit than Angstrom, which shows in the distances between neighbours. SD fields and CSV columns named as in
`data.PROPERTIES` are read as properties, in `data.UNITS`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra import __version__
from simulacra.runs import sha256, write_atomically
from simulacra.sciences.molecules.conformers import NoShape, conformer
from simulacra.sciences.molecules.data import (
    ATOMIC_NUMBER,
    BONDS,
    COVALENT_RADIUS,
    PROPERTIES,
    SYMBOLS,
    Molecule,
    Molecules,
    arrays,
    from_rdkit,
    read_geometries,
    stacked,
    to_rdkit,
    unstacked,
)
from simulacra.sciences.molecules.qm9 import Mismatch, bonds_from_smiles
from simulacra.study import Refused

READS = (".sdf", ".mol", ".xyz", ".smi", ".csv", ".npz")
WRITES = (".sdf", ".xyz", ".smi", ".csv", ".npz")
LARGEST = 500  # atoms of one molecule, hydrogens included
LARGEST_TEXT = 4_000_000_000  # bytes of a text file, unpacked
LARGEST_TABLE = 4_000_000_000  # bytes of the table of bonds, which grows as the square of the largest molecule
MOST_SMILES = 50_000  # each takes some 10 to 100 ms to get a conformer
REVISION = 2  # of conformers and of the enumerated family: counted up with each change, so that none is remembered from before
CLOSEST = 0.4  # Angstrom; the shortest bond there is, that of H2, has 0.74
FOREIGN = {"nanometres": (0.1, 10.0), "bohr": (1 / 0.529177, 0.529177), "picometres": (100.0, 0.01)}  # size of 1 Angstrom, factor to it
REAL_ELEMENTS = {Chem.GetPeriodicTable().GetElementSymbol(z) for z in range(1, 119)}


class _Unusable(Exception):
    """One record that cannot be used; the text is the reason."""


class _Found(NamedTuple):
    molecule: Molecule
    labels: Mapping[str, str]  # what the record says of itself
    completed: bool = False  # hydrogens were added


_Records = Iterator[tuple[str, Callable[[], _Found]]]  # what to call a record, and how to read it


@dataclass(frozen=True)
class Reading:
    """What a file held."""

    molecules: Molecules
    rejected: list[str]  # one line per record set aside, with its number, name and reason
    remarks: list[str]  # what was done to what the file says, for people


# ------------------------------------------------------------------------------------------------------------------------- reading


def read(path: Path | str, *, seed: int = 0, hydrogens: bool = True) -> tuple[Molecules, list[str]]:
    """Molecules of a file, and one line per record that was set aside (`write_rejects` makes a file of them)."""
    reading = read_and_tell(path, seed=seed, hydrogens=hydrogens)
    return reading.molecules, reading.rejected


def read_and_tell(path: Path | str, *, seed: int = 0, hydrogens: bool = True) -> Reading:
    """The same, with remarks on what was added.

    `seed` decides the conformers of SMILES; without `hydrogens` an SDF is taken as drawn, none are added. Raises Refused where the
    file cannot be read, no record can be used, or most molecules are in another unit than Angstrom.
    """
    path = Path(path)
    kind = _kind(path, READS)
    if path.is_dir():
        raise Refused(f"{path} is a folder; expected a file that ends in {', '.join(READS)}")
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise Refused(f"{path} is empty; expected molecules ({kind})")
    if kind == ".npz":
        return _npz(path)
    text = _text(path)
    if not text.strip():
        raise Refused(f"{path} holds nothing but blank lines; expected molecules ({kind})")
    if kind == ".xyz":
        return _collect(path, _frames(text))
    if kind in (".sdf", ".mol"):
        return _collect(path, _blocks(text, hydrogens))
    lines = list(_smiles_lines(text) if kind == ".smi" else _smiles_column(path, text))
    if len(lines) > MOST_SMILES:
        raise Refused(f"{path} holds {len(lines):,} SMILES, each of which needs a conformer; at most {MOST_SMILES:,} are read: take a part")
    molecules, rejected = remembered(["smiles", sha256(path), seed], lambda: _shaped(path, lines, seed))
    return Reading(molecules, rejected, ["conformers made from SMILES by ETKDG and MMFF94"])


def _shaped(path: Path, lines: list[tuple[str, str, Mapping[str, str]]], seed: int) -> tuple[Molecules, list[str]]:
    reading = _collect(path, ((name, partial(_from_smiles, smiles, labels, seed)) for name, smiles, labels in lines))
    return reading.molecules, reading.rejected


def _kind(path: Path, known: Sequence[str]) -> str:
    name = path.name.lower()
    packed = name.endswith(".gz")
    kind = Path(name.removesuffix(".gz")).suffix
    if kind not in known or (packed and kind == ".npz"):
        raise Refused(f"{path}: do not know the ending {kind or path.suffix or '(none)'}; expected {', '.join(known)} (text also as .gz)")
    return kind


def _text(path: Path) -> str:
    """The text of a file, packed or not. Latin letters in names of another encoding become question marks."""
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            content: bytes = file.read(LARGEST_TEXT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{path} is damaged or cut short ({error}); fetch it again") from error
    if len(content) > LARGEST_TEXT:
        raise Refused(f"{path} holds more than {LARGEST_TEXT / 1e9:.0f} GB of text; split it")
    if b"\0" in content[:4096]:
        raise Refused(f"{path} is not text, whatever its ending says (it starts with {content[:12]!r})")
    return content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _collect(path: Path, records: _Records) -> Reading:
    """Molecules of all usable records, and a line for each of the others."""
    found: list[tuple[str, _Found, float, float]] = []
    rejected: list[str] = []
    with rdBase.BlockLogs():
        for name, make in records:
            try:
                item = make()
                _refuse_content(item.molecule)
                found.append((name, item, *spacing(item.molecule)))
            except (_Unusable, NoShape, Refused) as why:
                rejected.append(f"{name}: {why}")
    _refuse_units(path, [ratio for _, _, _, ratio in found])
    kept = []
    for name, item, shortest, _ in found:
        if shortest < CLOSEST:
            rejected.append(f"{name}: two atoms are {shortest:.3f} Angstrom apart; nothing is closer than {CLOSEST}")
        else:
            kept.append(item)
    if not kept:
        first = "; ".join(rejected[:3]) or "it holds no record"
        raise Refused(f"{path}: none of {len(rejected)} records can be used. The first: {first}")
    _refuse_bulk(path, [len(item.molecule.numbers) for item in kept])
    completed = sum(item.completed for item in kept)
    remarks = [f"hydrogens added to {completed:,} molecules that were drawn without"] if completed else []
    return Reading(stacked([item.molecule for item in kept], _labels(kept)), rejected, remarks)


def _refuse_content(molecule: Molecule) -> None:
    if not len(molecule.numbers):
        raise _Unusable("holds no atom")
    if len(molecule.numbers) > LARGEST:
        raise _Unusable(f"has {len(molecule.numbers):,} atoms; at most {LARGEST} are read here (proteins need other models)")
    if not np.isfinite(molecule.positions).all():
        atom = int(np.argwhere(~np.isfinite(molecule.positions))[0, 0])
        raise _Unusable(f"atom {atom + 1} has a coordinate that is not finite")
    unknown = (molecule.numbers < 1) | (molecule.numbers >= len(SYMBOLS))
    if unknown.any():
        raise _Unusable(f"atom {int(unknown.argmax()) + 1} is no element from H to {SYMBOLS[-1]}")


def spacing(molecule: Molecule) -> tuple[float, float]:
    """Shortest distance between two atoms, and the median over atoms of the distance to the nearest other in units of the sum of
    their covalent radii: about 1 where coordinates are in Angstrom. Infinity and NaN for a single atom."""
    if len(molecule.numbers) < 2:
        return np.inf, np.nan
    apart = molecule.positions[:, None] - molecule.positions[None]
    distance = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))
    np.fill_diagonal(distance, np.inf)
    reach = _covalent_radii()[molecule.numbers]
    nearest = (distance / (reach[:, None] + reach[None])).min(1)
    return float(distance.min()), float(np.sort(nearest)[len(nearest) // 2])


@cache
def _covalent_radii() -> NDArray[np.float64]:
    table = Chem.GetPeriodicTable()
    return np.array([COVALENT_RADIUS.get(z, table.GetRcovalent(z)) for z in range(len(SYMBOLS))])


def _refuse_units(path: Path, ratios: Sequence[float]) -> None:
    ratio = np.array(ratios, float)
    ratio = ratio[ratio > 0]
    for unit, (size, factor) in FOREIGN.items():
        share = np.mean(np.abs(np.log(ratio / size)) < 0.16) if len(ratio) else 0.0
        if share > 0.5:
            raise Refused(
                f"{path}: coordinates seem to be in {unit}: in {share:.0%} of the molecules neighbours are {size:.3g} times as far apart "
                f"as bonds are in Angstrom. If so, multiply them by {factor:g} and read again"
            )


def _refuse_bulk(path: Path, sizes: Sequence[int]) -> None:
    bulk = len(sizes) * max(sizes) ** 2
    if bulk > LARGEST_TABLE:
        raise Refused(
            f"{path}: {len(sizes):,} molecules of up to {max(sizes)} atoms would take {bulk / 1e9:.0f} GB; "
            "split the file by size of molecule, or take a part"
        )


def _labels(found: Sequence[_Found]) -> NDArray[np.float32] | None:
    if not any(item.labels for item in found):
        return None
    values = np.full((len(found), len(PROPERTIES)), np.nan, np.float32)
    for row, item in enumerate(found):
        for name in item.labels.keys() & set(PROPERTIES):
            with contextlib.suppress(ValueError):
                value = float(item.labels[name])
                values[row, PROPERTIES.index(name)] = value if np.isfinite(value) else np.nan
    return values


# ----------------------------------------------------------------------------------------------------------------------------- SDF


def _blocks(text: str, hydrogens: bool) -> _Records:
    parts = re.split(r"^\$\$\$\$.*\n?", text, flags=re.MULTILINE)
    if not parts[-1].strip():
        parts.pop()
    for number, part in enumerate(parts, 1):
        title = part.split("\n", 1)[0].strip()
        yield f"record {number}" + (f" ({title[:40]})" if title else ""), partial(_from_block, part, hydrogens)


def _from_block(part: str, hydrogens: bool) -> _Found:
    lines = part.split("\n")
    if len(lines) < 4:
        raise _Unusable(f"is cut off after {len(lines)} lines, before its counts line")
    if "V3000" in lines[3]:
        _examine_v3000(lines)
    else:
        _examine_v2000(lines)
    end = next((i for i, line in enumerate(lines) if line.startswith("M  END")), None)
    if end is None:
        raise _Unusable("is cut off: no 'M  END'")
    mol = Chem.MolFromMolBlock("\n".join(lines[: end + 1]), sanitize=False, removeHs=False)
    if mol is None:
        raise _Unusable("RDKit cannot read it as a mol block")
    if mol.GetNumAtoms() > LARGEST:
        raise _Unusable(f"has {mol.GetNumAtoms():,} atoms; at most {LARGEST} are read here (proteins need other models)")
    if mol.GetNumConformers() and mol.GetNumAtoms() > 3 and lines[1][20:22] != "3D" and not mol.GetConformer().GetPositions()[:, 2].any():
        raise _Unusable("is a flat drawing (all z = 0, and its header does not say 3D); give its SMILES (.smi), which gets a conformer")
    whole, completed = _completed(mol, hydrogens)
    return _Found(from_rdkit(whole), _fields(lines[end + 1 :]), completed)


def _examine_v2000(lines: Sequence[str]) -> None:
    try:
        atoms, bonds = int(lines[3][:3]), int(lines[3][3:6])
    except ValueError:
        raise _Unusable(f"its counts line says {lines[3].strip()[:40]!r}; expected the numbers of atoms and bonds") from None
    if _plainly_good(lines[4 : 4 + atoms], lines[4 + atoms : 4 + atoms + bonds], atoms, bonds, lines[4 + atoms + bonds :]):
        return
    says = f"its counts line says {atoms} atoms and {bonds} bonds, but"
    for row in range(atoms + bonds):
        if 4 + row >= len(lines) or lines[4 + row].startswith("M  END") or not lines[4 + row].strip():
            raise _Unusable(f"is cut off: {says} only {row} of these {atoms + bonds} lines are there")
        line = lines[4 + row]
        if row < atoms:
            _examine_atom(line, row, says)
            continue
        try:
            ends, kind = (int(line[:3]), int(line[3:6])), int(line[6:9])
        except ValueError:
            raise _Unusable(f"{says} line {5 + row} is no bond: {line.strip()[:40]!r}") from None
        if not all(1 <= end <= atoms for end in ends) or ends[0] == ends[1]:
            raise _Unusable(f"line {5 + row} bonds atoms {ends[0]} and {ends[1]} of {atoms}")
        if not 1 <= kind < len(BONDS):
            raise _Unusable(f"line {5 + row} has a bond of type {kind}; expected 1 to 4 (single, double, triple, aromatic)")
    if len(lines) > 4 + atoms + bonds and re.match(r"[ \d]{3}[ \d]{3}", lines[4 + atoms + bonds]):
        raise _Unusable(f"{says} line {5 + atoms + bonds} still lists something: {lines[4 + atoms + bonds].strip()[:40]!r}")


def _plainly_good(atoms: Sequence[str], bonds: Sequence[str], asked_atoms: int, asked_bonds: int, rest: Sequence[str]) -> bool:
    """The quick way for nearly all records; what is wrong with the others is found line by line."""
    try:
        finite = np.isfinite([float(line[at : at + 10]) for line in atoms for at in (0, 10, 20)]).all()
        ends = [int(line[at : at + 3]) for line in bonds for at in (0, 3)]
    except ValueError:
        return False
    whole = len(atoms) == asked_atoms and len(bonds) == asked_bonds and bool(rest) and rest[0][:1] in ("M", "A", "V", "G", "S")
    kinds = {line[6:9] for line in bonds}
    known = ATOMIC_NUMBER.keys() >= {line[31:34].strip() for line in atoms} and kinds <= {"  1", "  2", "  3", "  4"}
    inside = not ends or 1 <= min(ends) <= max(ends) <= asked_atoms
    return bool(finite) and whole and known and inside and all(a != b for a, b in zip(ends[::2], ends[1::2], strict=True))


def _examine_atom(line: str, row: int, says: str) -> None:
    symbol = line[31:34].strip()
    try:
        place = [float(line[start : start + 10]) for start in (0, 10, 20)]
    except ValueError:
        raise _Unusable(f"{says} line {5 + row} is no atom: {line.strip()[:40]!r}") from None
    if not np.isfinite(place).all():
        raise _Unusable(f"atom {row + 1} ({symbol}) has a coordinate that is not finite: {' '.join(line[:30].split())}")
    _number(symbol, row)


def _number(symbol: str, row: int) -> int:
    """Atomic number of a symbol, or of a number, as XYZ files sometimes have it."""
    name = symbol.capitalize()
    name = "H" if name in ("D", "T") else name
    if symbol.isdigit() and 0 < int(symbol) < len(SYMBOLS):
        return int(symbol)
    if name not in ATOMIC_NUMBER or name == "*":
        if name in REAL_ELEMENTS:
            raise _Unusable(f"atom {row + 1} is {name}; elements from H to {SYMBOLS[-1]} are known here")
        raise _Unusable(f"atom {row + 1} is {symbol[:12]!r}, which is no element")
    return ATOMIC_NUMBER[name]


def _examine_v3000(lines: Sequence[str]) -> None:
    body = [line for line in lines if line.startswith("M  V30 ")]
    counts = next((re.match(r"M  V30 COUNTS +(\d+) +(\d+)", line) for line in body if "COUNTS" in line), None)
    if counts is None:
        raise _Unusable("has no line 'M  V30 COUNTS atoms bonds'")
    for kind, asked in (("ATOM", int(counts[1])), ("BOND", int(counts[2]))):
        start, stop = (next((i for i, x in enumerate(body) if x.startswith(f"M  V30 {word} {kind}")), None) for word in ("BEGIN", "END"))
        if asked and (start is None or stop is None):
            raise _Unusable(f"is cut off: its list of {kind.lower()}s has no {'beginning' if start is None else 'end'}")
        if start is not None and stop is not None:
            there = sum(not line.rstrip().endswith("-") for line in body[start + 1 : stop])
            if there != asked:
                raise _Unusable(f"its counts line says {asked} {kind.lower()}s, but {there} are listed")
    if re.search(r"M  V30 \d+ \S+ .*\b(nan|inf)", "\n".join(body), re.IGNORECASE):
        raise _Unusable("has a coordinate that is not finite")


def _completed(mol: Any, hydrogens: bool) -> tuple[Any, bool]:
    """In aromatic form where it sanitises, else as drawn; with hydrogens where none of its carbons shows any though valences are open."""
    clean = Chem.Mol(mol)
    if Chem.SanitizeMol(clean, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return mol, False
    if not hydrogens or clean.GetNumAtoms(onlyExplicit=False) == clean.GetNumAtoms():
        return clean, False
    shows = any(n.GetAtomicNum() == 1 for a in clean.GetAtoms() if a.GetAtomicNum() == 6 for n in a.GetNeighbors())
    return (clean, False) if shows else (Chem.AddHs(clean, addCoords=True), True)


def _fields(lines: Sequence[str]) -> dict[str, str]:
    """SD fields of a record by name."""
    found = {}
    for i, line in enumerate(lines[:-1]):
        name = re.match(r">.*<([^>]+)>", line)
        if name:
            found[name[1]] = lines[i + 1].strip()
    return found


# ----------------------------------------------------------------------------------------------------------------------------- XYZ


def _frames(text: str) -> _Records:
    """A frame runs from its count line to the next line that is blank or a bare number, or behind its atoms where more atoms follow
    later, whatever the count says: so one wrong count spoils one frame. Other lines behind the atoms (QM9's own files) are left out."""
    lines = text.split("\n")
    at, number = 0, 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        number += 1
        after = at + 2 if lines[at].strip().isdigit() else at + 1  # a comment may be blank or a number
        stop = next((i for i in range(after, len(lines)) if not lines[i].strip() or lines[i].strip().isdigit()), len(lines))
        behind = next((i for i in range(at + 2, stop) if not _is_atom(lines[i].split())), stop)
        if any(_is_atom(line.split()) for line in lines[behind:stop]) and after == at + 2:
            stop = behind
        yield f"frame {number} (line {at + 1})", partial(_from_frame, lines[at:stop])
        at = stop


def _from_frame(lines: Sequence[str]) -> _Found:
    if not lines[0].strip().isdigit():
        raise _Unusable(f"starts with {lines[0].strip()[:40]!r}; expected the number of atoms")
    asked, rows = int(lines[0]), [line.split() for line in lines[2:]]
    there = next((i for i, row in enumerate(rows) if not _is_atom(row)), len(rows))
    if asked > LARGEST:
        raise _Unusable(f"has {asked:,} atoms; at most {LARGEST} are read here (proteins need other models)")
    if there != asked:
        raise _Unusable(f"announces {asked} atoms, but {there} follow")
    numbers = np.array([_number(row[0], i) for i, row in enumerate(rows[:asked])], np.uint8)
    try:
        places = np.array([[float(x.replace("*^", "e")) for x in row[1:4]] for row in rows[:asked]], np.float32).reshape(-1, 3)
    except ValueError as error:
        raise _Unusable(f"has a coordinate that is no number ({error})") from None
    smiles = re.search(r'smiles="([^"]+)"', lines[1]) if len(lines) > 1 else None
    if smiles and np.isfinite(places).all() and set(numbers.tolist()) <= COVALENT_RADIUS.keys():
        with contextlib.suppress(Mismatch):
            return _Found(bonds_from_smiles(numbers, places, smiles[1]), {})
    return _Found(Molecule(numbers, places, np.zeros(asked, np.int8), None), {})


def _is_atom(words: Sequence[str]) -> bool:
    """Symbol or atomic number, and three more; QM9's own files go on with lines of frequencies, which are no atoms."""
    return len(words) >= 4 and (words[0].isdigit() or words[0][0].isalpha() or words[0] == "*")


# -------------------------------------------------------------------------------------------------------------------------- SMILES


def smiles_of(path: Path) -> list[str]:
    """The SMILES in a .smi or .csv file, as they stand there."""
    text = _text(path)
    lines = _smiles_column(path, text) if _kind(path, READS) == ".csv" else _smiles_lines(text)
    return [smiles for _, smiles, _ in lines]


def _smiles_lines(text: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(None, 1)
        if words and not words[0].startswith("#") and words[0].lower() not in ("smiles", "canonical_smiles"):
            yield f"line {number}" + (f" ({words[1].strip()[:40]})" if len(words) > 1 else ""), words[0], {}


def _smiles_column(path: Path, text: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    table = csv.DictReader(io.StringIO(text))
    names = table.fieldnames or []
    column = next((n for n in names if n.strip().lower() in ("smiles", "canonical_smiles", "isomeric_smiles")), None)
    if column is None:
        raise Refused(f"{path} has no column `smiles`; it has {', '.join(names[:8]) or 'none'}")
    for number, row in enumerate(table, 1):
        labels = {k: v for k, v in row.items() if k in PROPERTIES and v}
        yield f"row {number}", (row[column] or "").strip(), labels


def _from_smiles(smiles: str, labels: Mapping[str, str], seed: int) -> _Found:
    if not smiles:
        raise _Unusable("has no SMILES")
    return _Found(conformer(smiles, seed=seed, largest=LARGEST), labels)


# ----------------------------------------------------------------------------------------------------------------------------- npz


def _npz(path: Path) -> Reading:
    """Our own arrays, exactly as written (a judge must see what was drawn); concatenated geometries like any other file."""
    found = arrays(path)
    if "numbers" in found:
        return Reading(_of_arrays(path, found), [], [])
    if "n_atoms" not in found:
        held = ", ".join(found) or "nothing"
        raise Refused(f"{path} holds {held}; expected numbers, positions, bonds ... or atomic_numbers, positions, n_atoms")
    return _collect(path, _slices(read_geometries(path)))


def _of_arrays(path: Path, found: Mapping[str, NDArray[Any]]) -> Molecules:
    names = ("numbers", "positions", "charges", "bonds", "properties", "given")
    missing = [name for name in names if name not in found]
    if missing:
        raise Refused(f"{path} lacks {', '.join(missing)}; expected {', '.join(names)}, as `simulacra draw` writes them")
    odd = [f"{name} ({found[name].dtype})" for name in names if found[name].dtype.kind not in "iuf"]
    if odd or found["numbers"].ndim != 2:
        raise Refused(f"{path}: {', '.join(odd) or 'numbers'} cannot be molecules; expected arrays of numbers, one row per molecule")
    try:
        return Molecules(**{name: torch.from_numpy(found[name]) for name in names})
    except (Refused, TypeError, ValueError) as why:
        raise Refused(f"{path}: {why}") from None


def _slices(found: Mapping[str, NDArray[Any]]) -> _Records:
    stop = 0
    for number, size in enumerate(found["n_atoms"].tolist(), 1):
        part, stop = slice(stop, stop + size), stop + size
        name = f" (index {found['index'][number - 1]})" if "index" in found and len(found["index"]) == len(found["n_atoms"]) else ""
        yield f"record {number}{name}", partial(_from_slice, found["atomic_numbers"][part], found["positions"][part])


def _from_slice(numbers: NDArray[Any], positions: NDArray[Any]) -> _Found:
    small = np.where(numbers < 256, numbers, 0).astype(np.uint8)  # 0: no element, said so later
    return _Found(Molecule(small, positions.astype(np.float32), np.zeros(len(small), np.int8), None), {})


# ------------------------------------------------------------------------------------------------------------------------- writing


def write(molecules: Molecules, path: Path | str, columns: Mapping[str, Sequence[Any]] | None = None) -> None:
    """Molecules in the format that the ending of `path` names, whole or not at all; text also as .gz.

    `columns` (name -> one value per molecule) become SD fields, CSV columns, keys of the XYZ comment; `name` becomes the title. npz
    keeps the tensors exactly and takes no columns. SDF, SMILES and CSV need bonds. A molecule that does not sanitise is written as
    drawn, and its field `sanitises` says no. Stereo in SMILES is that of the positions.
    """
    path, columns = Path(path), dict(columns or {})
    kind = _kind(path, WRITES)
    wrong = {name: len(values) for name, values in columns.items() if len(values) != len(molecules)}
    if wrong:
        raise Refused(f"columns {wrong} do not fit {len(molecules)} molecules; give one value per molecule")
    if kind == ".npz":
        write_atomically(path, packed(molecules))
        return
    rows = [{name: values[i] for name, values in columns.items()} for i in range(len(molecules))]
    singles = unstacked(molecules)
    if kind != ".xyz":
        _refuse_unbonded(singles, path)
    titles = [_line(row.pop("name", "")) or f"molecule {i}" for i, row in enumerate(rows, 1)]
    maker = {".sdf": _sdf_text, ".xyz": _xyz_text, ".smi": _smi_text, ".csv": _csv_text}[kind]
    with rdBase.BlockLogs():
        content = maker(singles, titles, rows).encode()
    write_atomically(path, gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)


def write_rejects(path: Path | str, lines: Sequence[str]) -> Path:
    """`<name>.rejected` beside the file that was read, with one line per record that was set aside; returns where it lies."""
    beside = Path(path).with_name(f"{Path(path).name}.rejected")
    write_atomically(beside, "".join(f"{_line(line)}\n" for line in lines).encode())
    return beside


def packed(molecules: Molecules, **more: NDArray[Any]) -> bytes:
    """An npz of the tensors of `molecules`, and of more arrays if there are any."""
    content = io.BytesIO()
    fields: dict[str, NDArray[Any]] = {**{k: v.cpu().numpy() for k, v in molecules.fields().items()}, **more}
    save: Any = np.savez_compressed  # its annotations take every keyword for an option
    save(content, **fields)
    return content.getvalue()


def drawn_smiles(molecule: Molecule) -> tuple[str, bool]:
    """Canonical SMILES with stereo from the positions, and True; of a molecule that does not sanitise the SMILES as drawn, with all
    hydrogens, and False."""
    with rdBase.BlockLogs():
        mol, sanitises = _clean(molecule)
        return _smiles(mol, sanitises), sanitises


def _clean(molecule: Molecule) -> tuple[Any, bool]:
    """Sanitised, with stereo from the positions, and True; as drawn, and False, where that fails."""
    mol = to_rdkit(molecule)
    clean = Chem.Mol(mol)
    if Chem.SanitizeMol(clean, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return mol, False
    Chem.AssignStereochemistryFrom3D(clean)
    return clean, True


def _smiles(mol: Any, sanitises: bool) -> str:
    smiles: str = Chem.MolToSmiles(Chem.RemoveHs(mol) if sanitises else mol)
    return smiles


def _refuse_unbonded(molecules: Sequence[Molecule], path: Path) -> None:
    unknown = [i for i, molecule in enumerate(molecules) if molecule.bonds is None]
    if unknown:
        raise Refused(
            f"{path}: the bonds of {len(unknown)} of {len(molecules)} molecules are not known (first: {unknown[0] + 1}); perceive them "
            "first (perception.py), or write .xyz or .npz, which need none"
        )


def _line(value: Any) -> str:
    """A value on one line; numbers to 6 digits."""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else " ".join(str(value).split())


def records(molecules: Molecules) -> list[str]:
    """Each molecule as one SDF record without fields, as drawn where it does not sanitise."""
    with rdBase.BlockLogs():
        return [f"molecule {i}\n{_block(*_clean(single))}" for i, single in enumerate(unstacked(molecules), 1)]


def _sdf_text(molecules: Sequence[Molecule], titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for molecule, title, row in zip(molecules, titles, rows, strict=True):
        mol, sanitises = _clean(molecule)
        fields = {"smiles": _smiles(mol, sanitises), "sanitises": "yes" if sanitises else "no", **row}
        shown = "".join(f">  <{re.sub(r'[<>]', '', _line(name))}>\n{_line(value)}\n\n" for name, value in fields.items())
        parts.append(f"{title[:80]}\n{_block(mol, sanitises)}{shown}$$$$\n")
    return "".join(parts)


def _block(mol: Any, sanitises: bool) -> str:
    """Mol block without its title line: V2000, or V3000 where that has no room. Kekule form where there is one."""
    text: str = Chem.MolToMolBlock(mol, kekulize=sanitises, forceV3000=max(mol.GetNumAtoms(), mol.GetNumBonds()) > 999)
    return text.split("\n", 1)[1]


def _xyz_text(molecules: Sequence[Molecule], titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for molecule, title, row in zip(molecules, titles, rows, strict=True):
        smiles, sanitises = drawn_smiles(molecule) if molecule.bonds is not None else ("", False)
        fields = {"name": title, **({"smiles": smiles} if sanitises else {}), **row}
        comment = " ".join(f'{re.sub(r"[^A-Za-z0-9_.-]", "_", str(k))}="{_line(v).replace(chr(34), chr(39))}"' for k, v in fields.items())
        atoms = zip(molecule.numbers.tolist(), molecule.positions.astype(float).tolist(), strict=True)
        lines = "".join(f"{SYMBOLS[z]:<2} {x:14.8f} {y:14.8f} {w:14.8f}\n" for z, (x, y, w) in atoms)
        parts.append(f"{len(molecule.numbers)}\n{comment}\n{lines}")
    return "".join(parts)


def _smi_text(molecules: Sequence[Molecule], titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for molecule, title in zip(molecules, titles, strict=True):
        smiles, sanitises = drawn_smiles(molecule)
        lines.append(f"{smiles} {title}{'' if sanitises else ' (does not sanitise)'}\n")
    return "".join(lines)


def _csv_text(molecules: Sequence[Molecule], titles: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    names = list(rows[0]) if rows else []
    table.writerow(["smiles", "name", "sanitises", *names])
    for molecule, title, row in zip(molecules, titles, rows, strict=True):
        smiles, sanitises = drawn_smiles(molecule)
        table.writerow([smiles, title, "yes" if sanitises else "no", *(_line(row[name]) for name in names)])
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------------- remembering


def remembered(key: Sequence[Any], make: Callable[[], tuple[Molecules, list[str]]]) -> tuple[Molecules, list[str]]:
    """What `make` gives, kept between runs: a study asks for the same molecules again when it resumes, draws or judges.

    Files lie in the user's cache folder, or the one that SIMULACRA_CACHE names; one that is damaged is made anew, and where none can
    be written nothing is lost but time.
    """
    digest = hashlib.sha256(json.dumps([*key, REVISION, __version__]).encode()).hexdigest()[:16]
    path = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"molecules-{digest}.npz"
    if path.is_file():
        with contextlib.suppress(Refused, KeyError):
            found = arrays(path)
            return _of_arrays(path, found), found["rejected"].tolist()
    molecules, rejected = make()
    with contextlib.suppress(OSError, Refused):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, packed(molecules, rejected=np.array(rejected, str)))
    return molecules, rejected
