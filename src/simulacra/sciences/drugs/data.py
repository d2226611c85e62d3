"""Nature: drug-like molecules, one SMILES string each.

A sample is a molecule as a string. What a generator is asked for travels with it: a prompt (a fragment to be grown, a prototype to be
varied), also a string, and wished properties. Strings are kept as bytes, one row each, zeros behind their end, so that they are tensors
like everything else; whether a string is a molecule is for the judge to find out.

Where molecules come from:

    simulated   scaffolds, linkers and substituents put together by rule (simulate.py); needs no file
    a file      .smi, .csv, .sdf, also .gz, cleaned (reading.py); a column `split` (train, valid, test) is kept to, otherwise
                80 : 10 : 10 by a hash of the flat molecule, so that stereoisomers and salts of one stay together
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from simulacra.sciences.drugs import reading, tokens
from simulacra.study import Refused, Samples, Split

# What can be wished for, and its unit. `properties.py` measures them.
WISHES: Mapping[str, str] = {"logP": "", "QED": "", "solubility": "log mol/L"}
BUCKET = 4  # tokens: rows of one batch differ by less in length


@dataclass(frozen=True)
class Compounds(Samples):
    """Molecules as strings, row i one of them. All strings are ASCII bytes with zeros behind their end."""

    text: Tensor  # (n, width) uint8: SMILES, or what a generator wrote in the hope that it is one
    prompt: Tensor  # (n, any width) uint8: SMILES of the fragment or prototype that the row was, or is to be, made from; empty: none
    wish: Tensor  # (n, len(WISHES)) float32: properties asked for; nan: not asked

    def check(self) -> None:
        for name, dimensions in (("text", 2), ("prompt", 2), ("wish", 2)):
            value = getattr(self, name)
            if value.ndim != dimensions:
                raise Refused(f"Compounds.{name} has shape {tuple(value.shape)}; expected one row per molecule and {dimensions} axes")
        for name in ("text", "prompt"):
            value = getattr(self, name)
            if value.dtype != torch.uint8 or bool((value > 126).any()):
                raise Refused(f"Compounds.{name} must hold ASCII bytes")
        if self.wish.shape[1] != len(WISHES):
            raise Refused(f"Compounds.wish has {self.wish.shape[1]} columns; expected {', '.join(WISHES)}")

    @property
    def bucket(self) -> Tensor:
        """Length class (n,) of each row, in tokens: rows of one batch are about equally long, so that little of it is padding."""
        return torch.from_numpy(-(-tokens.counted(self.text.cpu().numpy()) // BUCKET))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        widths = {name: max(getattr(p, name).shape[1] for p in parts) for name in ("text", "prompt")}
        return super().join([p.widened(**widths) for p in parts])

    def widened(self, text: int, prompt: int) -> Self:
        """The same, with room for strings of `text` and `prompt` characters."""
        grown = {"text": _widened(self.text, text), "prompt": _widened(self.prompt, prompt)}
        return self._of({**self.fields(), **grown})


def _widened(rows: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, max(width - rows.shape[1], 0)))


def compounds(smiles: Sequence[str], prompts: Sequence[str] | None = None, wish: Tensor | None = None) -> Compounds:
    """Strings as samples. Refused where one is not ASCII."""
    n = len(smiles)
    prompt = torch.zeros(n, 0, dtype=torch.uint8) if prompts is None else as_bytes(prompts)
    return Compounds(as_bytes(smiles), prompt, torch.full((n, len(WISHES)), torch.nan) if wish is None else wish)


def empty(n: int, prompt: str = "", wish: Mapping[str, float] | None = None) -> Compounds:
    """A template of n rows to be completed, all with the same prompt and wishes; takes the memory of one."""
    wished = torch.tensor([[float((wish or {}).get(name, torch.nan)) for name in WISHES]])
    return Compounds(
        torch.zeros(1, 0, dtype=torch.uint8).expand(n, 0), as_bytes([prompt]).expand(n, len(prompt)), wished.expand(n, len(WISHES))
    )


def as_bytes(strings: Sequence[str]) -> Tensor:
    """ASCII strings as rows of bytes (n, longest), zeros behind their end."""
    try:
        encoded = [s.encode("ascii") for s in strings]
    except UnicodeEncodeError as error:
        raise Refused(f"{tokens.shortened(str(error.object))!r} holds a character that is not ASCII; SMILES are") from error
    width = max(map(len, encoded), default=0)
    return torch.from_numpy(np.frombuffer(b"".join(s.ljust(width, b"\0") for s in encoded), np.uint8).reshape(len(encoded), width).copy())


def as_strings(rows: Tensor) -> list[str]:
    """Rows of bytes (n, width) as strings."""
    if not rows.shape[1]:
        return [""] * len(rows)
    array = np.ascontiguousarray(rows.cpu().numpy())
    return [s.decode("ascii") for s in array.view(f"S{array.shape[1]}")[:, 0].tolist()]


def texts(samples: Compounds) -> list[str]:
    """The strings of the molecules."""
    return as_strings(samples.text)


def prompts(samples: Compounds) -> list[str]:
    """The strings that the rows were, or are to be, made from; empty where there is none."""
    return as_strings(samples.prompt)


# ---------------------------------------------------------------------------------------------------------------------- loading


def load(
    data: Path | None, *, seed: int, simulated: int, longest: int = 100, stereo: bool = True, strict: bool = False
) -> Split[Compounds]:  # fmt: skip
    """Nature in three parts that share no molecule. Molecules of more than `longest` tokens are set aside, with the reason, as are
    those that `reading.py` cannot use; without `stereo` the strings say nothing of stereochemistry."""
    if data is None:
        from simulacra.sciences.drugs import simulate

        smiles = simulate.simulated(simulated, seed=seed, stereo=stereo)
        digest = hashlib.sha256("\n".join(smiles).encode()).hexdigest()
        origin = f"{len(smiles):,} molecules put together by rule from scaffolds, linkers and substituents (simulated, seed {seed})"
        found = reading.Reading(smiles, [""] * len(smiles), [], [])
        return divided(found, origin, {f"simulated({simulated}, seed={seed})": digest}, longest)
    found = reading.read_clean(Path(data), stereo=stereo, strict=strict)
    origin = "; ".join([f"{Path(data).name}: {len(found.smiles):,} molecules", *found.remarks])
    return divided(found, origin, {str(data): reading.sha256(Path(data))}, longest)


def divided(found: reading.Reading, origin: str, files: Mapping[str, str], longest: int) -> Split[Compounds]:
    """Molecules that were read, in three parts: by their own labels where they have some, otherwise by a hash."""
    samples = compounds(found.smiles)
    length = tokens.counted(samples.text.numpy())
    long = length > longest
    rejected = [*found.rejected]
    for i in np.flatnonzero(long).tolist():
        rejected.append(f"{tokens.shortened(found.smiles[i])}: {length[i]} tokens; the recipe reads at most {longest}")
    parts = labelled(found.labels) if any(found.labels) else by_hash(found.smiles)
    parts = {name: rows[~long[rows]] for name, rows in parts.items()}
    short = [name for name, rows in parts.items() if len(rows) < 4]
    if short:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
        why = f"; {long.sum():,} of {len(long):,} have more than {longest} tokens (--longest)" if long.any() else ""
        raise Refused(f"too few molecules to learn and to judge ({sizes}){why}; at least 40 different ones are needed")
    train, validation, held_out = (samples[torch.from_numpy(parts[name])] for name in ("train", "validation", "held-out"))
    by = "as the file divides them" if any(found.labels) else "by hash of the flat molecule"
    sizes = f"{len(train):,} to train, {len(validation):,} to validate, {len(held_out):,} held out, {by}"
    return Split(train, validation, held_out, f"{origin}; {sizes}", files, rejected)


SPLITS = {"train": "train", "training": "train", "valid": "validation", "validation": "validation", "dev": "validation", "test": "held-out"}


def labelled(labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of the three parts by their labels. A file without test rows has its validation rows halved by their order's hash.
    Refused for a label that is none."""
    unknown = sorted(set(labels) - set(SPLITS))
    if unknown:
        raise Refused(f"column `split` holds {unknown[0]!r}; expected {', '.join(SPLITS)}")
    names = np.array([SPLITS[label] for label in labels])
    parts = {name: np.flatnonzero(names == name) for name in ("train", "validation", "held-out")}
    if not len(parts["held-out"]):
        both = np.random.default_rng(len(names)).permutation(parts["validation"])
        parts["validation"], parts["held-out"] = np.sort(both[::2]), np.sort(both[1::2])
    return parts


def by_hash(smiles: Sequence[str]) -> dict[str, np.ndarray]:
    """80 : 10 : 10 of the different flat molecules, by the order of a hash of them."""
    from simulacra.sciences.drugs.properties import flat

    names = [flat(s) for s in smiles]
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    place = {name: i / len(order) for i, name in enumerate(order)}
    share = np.array([place[name] for name in names])
    return {
        "train": np.flatnonzero(share < 0.8), "validation": np.flatnonzero((share >= 0.8) & (share < 0.9)),
        "held-out": np.flatnonzero(share >= 0.9),
    }  # fmt: skip
