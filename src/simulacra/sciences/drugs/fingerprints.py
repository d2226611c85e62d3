"""MACCS keys: 166 yes-or-no questions about a molecule (Durant et al. 2002, J. Chem. Inf. Comput. Sci. 42:1273), by RDKit.

RDKit's vector has 167 places and leaves the first unused; here it is left out, so key i stands in column i - 1. Some keys (isotopes, 1;
a few more that RDKit does not define) are never set in molecules that were cleaned. The keys say what is there, not how it is joined:
many molecules have the same, and what is told by the keys alone is a family of molecules.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from rdkit.Chem import rdMolDescriptors
from torch import Tensor

from simulacra.runs import write_atomically
from simulacra.sciences.drugs import properties
from simulacra.sciences.drugs.data import WISHES

KEYS = 166
REVISION = 1  # of what is remembered
REMEMBERED = 5000  # molecules from which on the keys are kept between runs

Bits = NDArray[np.uint8]


def keys(mols: Sequence[Any | None]) -> Bits:
    """MACCS keys (n, KEYS), 0 or 1; all 0 where there is no molecule."""
    found = np.zeros((len(mols), KEYS + 1), np.uint8)
    for row, mol in enumerate(mols):
        if mol is not None:
            found[row, list(rdMolDescriptors.GetMACCSKeysFingerprint(mol).GetOnBits())] = 1
    return found[:, 1:]


def tanimoto(one: Bits, other: Bits) -> NDArray[np.float64]:
    """Shared keys over all keys of either, for each pair of rows (n, KEYS) and (n, KEYS): (n,). Two empty rows are equal."""
    both, either = (one & other).sum(1, dtype=np.int64), (one | other).sum(1, dtype=np.int64)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def nearest(asked: Bits, known: Bits, block: int = 256) -> NDArray[np.int64]:
    """For each row of `asked` the row of `known` with the largest Tanimoto similarity."""
    place, sizes = np.empty(len(asked), np.int64), known.sum(1, dtype=np.float32)
    columns = known.astype(np.float32).T
    for start in range(0, len(asked), block):
        rows = asked[start : start + block].astype(np.float32)
        shared = rows @ columns
        either = rows.sum(1)[:, None] + sizes - shared
        place[start : start + block] = (shared / np.maximum(either, 1)).argmax(1)
    return place


class Profiles:
    """Keys and wished properties of known molecules, by their strings. Molecules that come later are measured when they are asked for."""

    def __init__(self, smiles: Sequence[str]) -> None:
        """Measured at once; those of many molecules are kept in the user's cache folder (SIMULACRA_CACHE)."""
        self.row = {one: i for i, one in enumerate(smiles)}
        bits, values = _remembered(smiles)
        self.bits, self.values = torch.from_numpy(bits), torch.from_numpy(values)

    def __len__(self) -> int:
        return len(self.bits)

    def of(self, smiles: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Keys (n, KEYS) uint8 and properties (n, len(WISHES)) float32 of molecules; nan where a string is none."""
        rows = [self.row.get(one, -1) for one in smiles]
        if min(rows, default=0) >= 0:
            place = torch.tensor(rows, dtype=torch.long)
            return self.bits[place], self.values[place]
        bits, values = profiled(smiles)
        return torch.from_numpy(bits), torch.from_numpy(values)


def profiled(smiles: Sequence[str]) -> tuple[Bits, NDArray[np.float32]]:
    """Keys and wished properties of molecules, measured now; about 3.5 ms each, most of them for QED."""
    bits, values = np.zeros((len(smiles), KEYS), np.uint8), np.empty((len(smiles), len(WISHES)), np.float32)
    with rdBase.BlockLogs():
        for row, one in enumerate(smiles):
            mols = [properties.molecule(one)]
            bits[row], values[row] = keys(mols)[0], properties.measured(mols, list(WISHES))[0]
    return bits, values


def _remembered(smiles: Sequence[str]) -> tuple[Bits, NDArray[np.float32]]:
    if len(smiles) < REMEMBERED:
        return profiled(smiles)
    content = hashlib.sha256("\n".join(smiles).encode()).hexdigest()
    key = json.dumps([content, list(WISHES), REVISION, rdBase.rdkitVersion])
    name = f"keys-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    place = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / name
    if place.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, zlib.error, EOFError), np.load(place, allow_pickle=False) as found:
            bits, values = np.unpackbits(found["keys"], axis=1, count=KEYS), found["values"]
            if len(bits) == len(smiles) and values.shape == (len(smiles), len(WISHES)):
                return bits, values
    bits, values = profiled(smiles)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.savez_compressed(file, keys=np.packbits(bits, axis=1), values=values)
        write_atomically(place, file.getvalue())
    return bits, values
