"""Molecules from the files of the field, and what has to happen before they are nature.

    .smi .txt     one SMILES per line, a name may follow
    .csv          a column `smiles` (or the only one that holds some), and, if there is one, `split`
    .sdf          one record per molecule
    .npz          what simulacra wrote

each also as .gz but the last. Two ways to read: `read_clean` for nature, where a string must be a molecule that can be learned from, and
`read_lines` for samples that some program drew, where a line that is no molecule is a failure that counts.

A molecule is cleaned so: of a salt or a mixture the largest part stays; isotope labels go; the string is made canonical by RDKit; a
molecule that came before is dropped. Set aside, with line and reason: what RDKit cannot read, metals, attachment points, what holds no
carbon, and lines of more than LONGEST characters. Everything that was done is counted and said.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.runs import write_atomically
from simulacra.sciences.drugs.tokens import shortened
from simulacra.study import Refused

LONGEST = 1000  # characters of a line
LARGEST_FILE = 4_000_000_000  # bytes, unpacked
ELEMENTS = frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53})  # H B C N O F Si P S Cl As Se Br Te I
REVISION = 1  # of the cleaning: what is remembered from another one is not used
COLUMNS = ("smiles", "canonical_smiles", "smi", "structure", "mol")


@dataclass(frozen=True)
class Reading:
    """What a file held that is nature."""

    smiles: Sequence[str]
    labels: Sequence[str]  # of a column `split`, lower case; empty where there is none
    rejected: Sequence[str]
    remarks: Sequence[str]


class Line(NamedTuple):
    """A record of a file: where it stands, the string, and further columns."""

    where: str
    smiles: str
    more: Mapping[str, str]


class Unusable(Exception):
    """A string that cannot be nature, with the reason."""


def read_clean(path: Path, *, stereo: bool = True, strict: bool = False) -> Reading:
    """The molecules of a file, cleaned, each once; remembered between runs in the user's cache folder (SIMULACRA_CACHE).

    Raises Refused where the file cannot be read or holds no molecule, and, with `strict`, for the first record that cannot be used.
    """
    if strict:
        return cleaned(path, stereo=stereo, strict=True)
    key = json.dumps([sha256(path), path.suffixes, stereo, REVISION, rdBase.rdkitVersion])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    place = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"drugs-{digest}.npz"
    if place.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, zlib.error, EOFError), np.load(place, allow_pickle=False) as found:
            return Reading(*(_unpacked(found[name]) for name in ("smiles", "labels", "rejected", "remarks")))
    reading = cleaned(path, stereo=stereo, strict=False)
    with contextlib.suppress(OSError, Refused):
        place.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        parts = {"smiles": reading.smiles, "labels": reading.labels, "rejected": reading.rejected, "remarks": reading.remarks}
        np.savez_compressed(content, **{name: _packed(part) for name, part in parts.items()})  # type: ignore[arg-type]  # stub of numpy
        write_atomically(place, content.getvalue())
    return reading


def _packed(lines: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{line}\n" for line in lines).encode(), np.uint8)


def _unpacked(array: NDArray[np.uint8]) -> list[str]:
    return array.tobytes().decode().split("\n")[:-1]


def cleaned(path: Path, *, stereo: bool, strict: bool) -> Reading:
    """`read_clean`, done anew."""
    seen: set[str] = set()
    smiles, labels, rejected, done = [], [], [], Counter[str]()
    with rdBase.BlockLogs():
        for line in lines(path):
            try:
                found, what = clean(line.smiles, stereo=stereo)
            except Unusable as reason:
                if strict:
                    raise Refused(f"{path.name}, {line.where}: {shortened(line.smiles)}: {reason}") from None
                rejected.append(f"{path.name}, {line.where}: {shortened(line.smiles)}: {reason}")
                continue
            done.update(what)
            if found in seen:
                done["duplicates dropped"] += 1
                continue
            seen.add(found)
            smiles.append(found)
            labels.append(" ".join(line.more.get("split", "").lower().split()))
    if not smiles:
        hint = f" (the first: {rejected[0]})" if rejected else ""
        raise Refused(f"{path} holds no molecule that can be used{hint}; expected SMILES, one per line or in a column `smiles`, or an SDF")
    remarks = [f"{count:,} {what}" for what, count in sorted(done.items())]
    if rejected:
        remarks.append(f"{len(rejected):,} set aside")
    return Reading(smiles, labels, rejected, remarks)


def clean(text: str, *, stereo: bool = True) -> tuple[str, list[str]]:
    """Canonical SMILES of the molecule that is meant, and what had to be done for it. Unusable with the reason where it is none."""
    if len(text) > LONGEST:
        raise Unusable(f"{len(text):,} characters; a molecule of a drug's size has fewer than {LONGEST:,}")
    mol = parsed(text)
    what = []
    parts = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    if len(parts) > 1:
        mol = max(parts, key=lambda part: (part.GetNumHeavyAtoms(), Chem.MolToSmiles(part)))
        what.append("salts and mixtures reduced to their largest part")
    if any(atom.GetIsotope() for atom in mol.GetAtoms()):
        for atom in mol.GetAtoms():
            atom.SetIsotope(0)
        mol = Chem.RemoveHs(mol)
        what.append("with isotope labels, which were dropped")
    numbers = {atom.GetAtomicNum() for atom in mol.GetAtoms()}
    if 0 in numbers:
        raise Unusable("holds an attachment point or unknown atom (*); a molecule has none")
    strange = sorted(Chem.GetPeriodicTable().GetElementSymbol(z) for z in numbers - ELEMENTS)
    if strange:
        raise Unusable(f"holds {', '.join(strange)}; metals and rare elements are not learned")
    if 6 not in numbers:
        raise Unusable("holds no carbon")
    return str(Chem.MolToSmiles(mol, isomericSmiles=stereo)), what


def parsed(text: str) -> Any:
    """The molecule that RDKit reads from a SMILES string. Unusable says what is wrong with it."""
    mol = Chem.MolFromSmiles(text)
    if mol is None:
        raw = Chem.MolFromSmiles(text, sanitize=False)
        if raw is None:
            raise Unusable("is not SMILES (unclosed ring or bracket, or a character that has no meaning there)")
        problems = Chem.DetectChemistryProblems(raw)
        raise Unusable(problems[0].Message() if problems else "RDKit cannot make a molecule of it")
    if not mol.GetNumAtoms():
        raise Unusable("holds no atom")
    return mol


def read_lines(path: Path) -> list[str]:
    """The strings of a file as they stand, one per sample: lines that are no molecules are failures and count. Empty lines are none."""
    found = [line.smiles for line in lines(path)]
    if not found:
        raise Refused(f"{path} holds no line with a string")
    return [s if s.isascii() else "?" for s in found]


# ---------------------------------------------------------------------------------------------------------------------- files


def kind_of(path: Path) -> str:
    """Ending of a file in lower case, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def lines(path: Path) -> Iterator[Line]:
    """The records of a file. Refused where it cannot be read."""
    kind = kind_of(path)
    if kind in (".smi", ".txt", ".smiles"):
        yield from _smiles_lines(text_of(path))
    elif kind in (".csv", ".tsv"):
        yield from _table_lines(path, text_of(path), "\t" if kind == ".tsv" else ",")
    elif kind == ".sdf":
        yield from _records(text_of(path))
    else:
        raise Refused(f"{path}: files of molecules end in .smi, .csv, .tsv, .sdf (also .gz), not in {kind or 'nothing'}")


def text_of(path: Path) -> str:
    """The text of a file, unpacked where it ends in .gz."""
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(LARGEST_FILE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(f"{path} cannot be read ({error})") from error
    if len(content) > LARGEST_FILE:
        raise Refused(f"{path} unpacks to more than {LARGEST_FILE / 1e9:.0f} GB; divide it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not text: byte {error.start} is no UTF-8. Files of molecules are .smi, .csv or .sdf") from error


def _smiles_lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if words and not (number == 1 and words[0].lower() in COLUMNS):
            yield Line(f"line {number}", words[0], {"name": words[1].strip() if len(words) > 1 else ""})


def _table_lines(path: Path, text: str, separator: str) -> Iterator[Line]:
    csv.field_size_limit(10_000_000)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = [name.strip().lower() for name in next(table)]
    except StopIteration:
        raise Refused(f"{path} is empty") from None
    column = next((names.index(name) for name in COLUMNS if name in names), None)
    if column is None:
        raise Refused(f"{path} has no column `smiles`; its columns are {', '.join(names) or 'none'}")
    for cells in table:
        if any(cell.strip() for cell in cells):
            smiles = cells[column].strip() if column < len(cells) else ""
            yield Line(f"line {table.line_num}", smiles, dict(zip(names, cells, strict=False)))


def _records(text: str) -> Iterator[Line]:
    parts = text.replace("\r\n", "\n").split("$$$$\n")
    for number, part in enumerate(parts, 1):
        if not part.strip():
            continue
        mol = Chem.MolFromMolBlock(part)
        smiles = Chem.MolToSmiles(mol) if mol is not None and mol.GetNumAtoms() else f"[record {number}]"
        yield Line(f"record {number}", smiles, {"name": part.split("\n", 1)[0].strip()})


def sha256(path: Path) -> str:
    """Checksum of a file. Refused where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror})") from error
