"""What goes to a chemist's other programs and comes from them: drawn strings as files with their properties, and lists of known ones.

    .smi    every drawn string, in the order of drawing, as it was drawn; an empty one as None
    .csv    a row for every draw: smiles, valid, canonical, logP, QED, SA, weight, TPSA, solubility; where they apply also novel and
            similarity (to known molecules), prompt, and what was asked for
    .sdf    a record for every draw that is a molecule, flat, with the same as SD tags
    .npz    our own arrays, exact

A string that is no molecule has empty cells, and the row stays: who counts rows counts failures.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.runs import write_atomically
from simulacra.sciences.drugs import metrics, properties, reading
from simulacra.sciences.drugs.data import WISHES, Compounds, compounds, prompts, texts
from simulacra.sciences.drugs.measuring import IDENTITY, LAWS, SIX, Table, measure, measured_here
from simulacra.study import Refused

Array = NDArray[np.float64]

FORMATS = (".smi", ".csv", ".sdf")
LINE_FORMATS = (".smi", ".csv")  # those that can be written row by row
ASKED = tuple(f"asked {name}" for name in WISHES)
PLAIN = ("smiles", "valid", "canonical", *LAWS)
AGAINST = ("novel", "similarity")
GIVEN = ("prompt", *ASKED)
DIGITS = {"weight": 2, "TPSA": 2}  # behind the point; else 4


# --------------------------------------------------------------------------------------------------------------------- npz


def read(path: Path) -> Compounds:
    """Strings that any program drew, one per line or record, the broken ones too."""
    return _arrays(path) if path.suffix.lower() == ".npz" else compounds(reading.read_lines(path))


def write(samples: Compounds, path: Path) -> None:
    """All that samples hold, to be read again by `read`."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in samples.fields().items()}
    np.savez_compressed(content, **arrays)
    write_atomically(path, content.getvalue())


def _arrays(path: Path) -> Compounds:
    names = ("text", "prompt", "wish")
    try:
        with np.load(path, allow_pickle=False) as found:
            missing = [name for name in names if name not in found]
            if missing:
                raise Refused(f"{path} holds {', '.join(found) or 'nothing'}; expected the arrays {', '.join(names)}")
            arrays = {name: torch.from_numpy(np.ascontiguousarray(found[name])) for name in names}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{path} cannot be read as samples of simulacra ({error})") from error
    return Compounds(**arrays)


# ------------------------------------------------------------------------------------------------------------------- known


@dataclass(frozen=True)
class Known:
    """Molecules to compare with: `flat` forms, and fingerprints."""

    flat: frozenset[str]
    bits: NDArray[np.uint8]


def known_of(path: Path) -> Known:
    """The molecules of a file, in any format that `read` takes; lines that are none are passed over. Refused where none is one."""
    table = measure(texts(read(path)), (IDENTITY,), remember=True)
    table = table[table.valid]
    if not len(table):
        raise Refused(f"{path} holds no molecule to compare with")
    return Known(frozenset(table.flat.tolist()), table.bits)


# ------------------------------------------------------------------------------------------------------------------- lines


def header(ending: str) -> str:
    """First line of a file that `lines` go on with; .smi has none."""
    return _row([*PLAIN, *GIVEN]) if ending == ".csv" else ""


def lines(samples: Compounds, ending: str) -> str:
    """One line for each row, in a file of LINE_FORMATS. Works in this process alone: whoever has many rows has processes."""
    if ending == ".smi":
        return "".join(f"{_line(s)}\n" for s in texts(samples))
    table = measured_here(texts(samples), (IDENTITY, SIX))
    return "".join(map(_row, _cells(samples, table, None, [*PLAIN, *GIVEN])))


def tally(samples: Compounds) -> dict[str, int]:
    """How many of the rows are molecules, to be added up over a file."""
    return {"are molecules": sum(properties.molecule(s) is not None for s in texts(samples))}


def export(samples: Compounds, path: Path, against: Path | None) -> None:
    """Samples in the format that the ending names; with `against`, each is compared with the molecules of that file: `novel` where its
    flat form is not there, `similarity` by Tanimoto to the nearest (measuring.py)."""
    ending = path.suffix.lower()
    if ending == ".smi":
        if against:
            raise Refused(f"--against needs columns for the outcome, and .smi has none; choose .csv or .sdf instead of {path.name}")
        write_atomically(path, lines(samples, ending).encode())
        return
    known = known_of(against) if against else None
    table = measure(texts(samples), (IDENTITY, SIX))
    columns = [*PLAIN, *(AGAINST if known else ()), *_given(samples)]
    cells = _cells(samples, table, known, columns)
    if ending == ".csv":
        content = _row(columns) + "".join(map(_row, cells))
    elif ending == ".sdf":
        content = "".join(_record(i, dict(zip(columns, row, strict=True))) for i, row in enumerate(cells) if table.valid[i])
    else:
        raise Refused(f"cannot write {ending or 'a file without ending'}; choose {', '.join(FORMATS)}")
    write_atomically(path, content.encode())


def _given(samples: Compounds) -> list[str]:
    """Which of GIVEN these samples have."""
    asked = (~samples.wish.isnan()).any(0).tolist()
    return [*(["prompt"] if any(prompts(samples)) else []), *(name for name, there in zip(ASKED, asked, strict=True) if there)]


def _line(string: str) -> str:
    """A string that stays on its line, in one word."""
    return "".join(c if "!" <= c <= "~" else "?" for c in string) or "None"


def _row(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cells(samples: Compounds, table: Table, known: Known | None, columns: Sequence[str]) -> list[list[str]]:
    """The cells of `columns`, row by row."""
    told: dict[str, Sequence[str]] = {
        "smiles": [s if s.isprintable() else _line(s) for s in texts(samples)],
        "valid": ["yes" if v else "no" for v in table.valid],
        "canonical": table.canonical.tolist(),
        **{name: _numbers(table.column(name), DIGITS.get(name, 4)) for name in LAWS},
        "prompt": prompts(samples),
        **{name: _numbers(samples.wish[:, i].double().numpy(), 4) for i, name in enumerate(ASKED)},
    }
    if known:
        told["novel"] = [("no" if name in known.flat else "yes") if name else "" for name in table.flat.tolist()]
        alike = np.full(len(table), np.nan)
        alike[table.valid] = metrics.nearest(table.bits[table.valid], known.bits)
        told["similarity"] = _numbers(alike, 4)
    return [list(row) for row in zip(*(told[name] for name in columns), strict=True)]


def _numbers(values: Array, digits: int) -> list[str]:
    return ["" if np.isnan(v) else f"{v:.{digits}f}" for v in values.tolist()]


def _record(row: int, told: Mapping[str, str]) -> str:
    """One record of an SDF: a flat drawing of the molecule, and what is told of it."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(told["smiles"])
        mol.SetProp("_Name", f"row {row}")
        Chem.rdDepictor.Compute2DCoords(mol)
        block = Chem.MolToMolBlock(mol)
    tags = "".join(f">  <{name}>\n{value}\n\n" for name, value in told.items() if name != "valid" and value)
    return f"{block}{tags}$$$$\n"


# ----------------------------------------------------------------------------------------------------------------- summary


def similarity(samples: Compounds) -> Array:
    """Tanimoto similarity (n,) of each row to its own prompt; nan where one of them is no molecule."""
    asked = prompts(samples)
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys(asked))}
    start = measure(list(places), (IDENTITY,))
    table = measure(texts(samples), (IDENTITY,))
    rows = np.array([places[prompt] for prompt in asked], np.int64)
    found = np.full(len(samples), np.nan)
    both = np.flatnonzero(table.valid & start.valid[rows])
    for at in range(0, len(both), metrics.BLOCK):
        part = both[at : at + metrics.BLOCK]
        one, other = metrics.unpacked(table.bits[part]), metrics.unpacked(start.bits[rows[part]])
        common = (one * other).sum(1)
        found[part] = common / np.maximum(one.sum(1) + other.sum(1) - common, 1)
    return found


def summary(asked: Compounds, drawn: Compounds) -> list[str]:
    """What was achieved, against what was asked for."""
    wished = _given(asked)
    table = measure(texts(drawn), (IDENTITY, SIX) if set(wished) & set(ASKED) else (IDENTITY,))
    n, valid = len(table), int(table.valid.sum())
    told = [
        f"{valid:,} of {n:,} strings are molecules ({valid / max(n, 1):.1%}), {len(set(table.canonical[table.valid].tolist())):,} of them "
        "different; no row was left out"
    ]
    for i, name in enumerate(WISHES):
        target, found = asked.wish[:, i].double().numpy(), table.column(name)
        both = np.isfinite(target) & np.isfinite(found)
        if both.any():
            low, high = target[both].min(), target[both].max()
            words = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
            unit = f" {WISHES[name]}" if WISHES[name] else ""
            told.append(
                f"{name}: asked for {words}{unit}, drawn {found[both].mean():.3g} ± {found[both].std():.2g}, "
                f"mean error {np.abs(found - target)[both].mean():.2g}"
            )
    if "prompt" in wished and len(asked) == n:
        alike = similarity(Compounds(drawn.text, asked.prompt, asked.wish))
        if np.isfinite(alike).any():
            told.append(f"similarity to the prompt (Tanimoto): {np.nanmean(alike):.2f} ± {np.nanstd(alike):.2f}")
    return told
