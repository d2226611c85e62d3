"""SMILES as a sequence of tokens, and tokens as numbers.

A token is what carries one meaning (Weininger 1988, J. Chem. Inf. Comput. Sci. 28:31; OpenSMILES 1.0):

    [C@@H] [NH+] [n-] [se]    an atom in brackets, with isotope, chirality, hydrogens and charge
    Cl Br B C N O P S F I     an atom of the organic subset; b c n o p s where it is aromatic; * any atom
    - = # $ : / \\ ~           a bond
    1 %12 %(123)              the two ends of a ring bond
    ( ) .                     a branch, and the end of a connected part

Two-letter and bracketed atoms are single tokens, so strings are about a tenth shorter than by characters, and no network has to learn
to spell chlorine.

As `kekule` the same molecule is written without aromatic atoms, its rings as single and double bonds in turn, and a bond is one token with
the atom or ring number that it leads to: =C, #N, /[NH+], =1. A string of aromatic atoms is a molecule only if double bonds can be dealt
out over all of them, which no part of it shows; in a Kekulé string each atom answers for itself. ZINC's strings are a twentieth shorter so.

As SELFIES (Krenn et al. 2020, Mach. Learn.: Sci. Technol. 1:045024) every sequence of tokens is a molecule; the
package `selfies` translates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from simulacra.study import Refused

Notation = Literal["smiles", "kekule", "selfies"]
Spelling = Notation | Literal["characters"]  # characters: every one a token, as the first networks of this kind read SMILES
SPELLINGS: tuple[Spelling, ...] = ("smiles", "kekule", "selfies", "characters")
TRANSLATED = 2**19  # strings whose translation is remembered: training comes back to each of them many times

PAD, START, END = 0, 1, 2  # numbers of the marks; tokens follow
MARKS = ("<pad>", "<start>", "<end>")
_TOKEN = re.compile(r"\[[^\[\]]+\]|Cl|Br|%\d\d|%\(\d+\)|[BCNOPSFI]|[bcnops]|[-=#$:/\\~().*]|\d")
_KEKULE = re.compile(r"[-=#$:/\\~]?(?:\[[^\[\]]+\]|Cl|Br|%\d\d|%\(\d+\)|[BCNOPSFI*]|\d)|[().]")
_SELFIES = re.compile(r"\[[^\[\]]+\]|\.")


class UnknownToken(Refused):
    """A string holds what is no token, or one that a vocabulary lacks."""


def split(smiles: str) -> list[str]:
    """The tokens of a SMILES string. UnknownToken with the place of what is none."""
    found = _TOKEN.findall(smiles)
    if sum(map(len, found)) != len(smiles):
        place = _first_gap(smiles)
        raise UnknownToken(f"{shortened(smiles)}: {smiles[place]!r} at character {place + 1} is no token of SMILES")
    return found


def _first_gap(smiles: str) -> int:
    end = 0
    for match in _TOKEN.finditer(smiles):
        if match.start() != end:
            break
        end = match.end()
    return end


def shortened(smiles: str, longest: int = 60) -> str:
    """A string for a message: cut where it is long."""
    return smiles if len(smiles) <= longest else f"{smiles[: longest - 3]}..."


def counted(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of tokens (n,) of SMILES given as bytes (n, width), zeros at the end, without looking at each string: every byte begins
    a token but those inside brackets, the second letters of Cl and Br, and the digits behind %."""
    opened = np.cumsum(text == ord("["), axis=1) - np.cumsum(text == ord("]"), axis=1)
    inside = (opened > 0) & (text != ord("["))
    before = np.zeros_like(text)
    before[:, 1:] = text[:, :-1]
    second = ((before == ord("C")) & (text == ord("l"))) | ((before == ord("B")) & (text == ord("r")))
    two_before = np.zeros_like(text)
    two_before[:, 2:] = text[:, :-2]
    number = (before == ord("%")) | (two_before == ord("%"))
    starts = (text > 0) & ~inside & (text != ord("]")) & ~((second | number) & (opened == 0))
    return np.asarray(starts.sum(axis=1), np.int64)


class Vocabulary:
    """Tokens and their numbers, in one notation. Numbers 0, 1 and 2 are the marks for padding, start and end."""

    def __init__(self, tokens: Sequence[str], notation: Spelling = "smiles") -> None:
        self.tokens, self.notation = [*MARKS, *tokens], notation
        self.number = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, smiles: Iterable[str], notation: Spelling = "smiles") -> Vocabulary:
        """All tokens of the strings, in alphabetical order."""
        seen: Counter[str] = Counter()
        for one in smiles:
            seen.update(_written(one, notation))
        return cls(sorted(seen), notation)

    def numbers(self, smiles: str) -> list[int]:
        """Token numbers of a SMILES string, without marks. UnknownToken names the string and the token."""
        words = _written(smiles, self.notation)
        try:
            return [self.number[word] for word in words]
        except KeyError as error:
            raise UnknownToken(f"{shortened(smiles)}: token {error.args[0]!r} does not occur in the training molecules") from None

    def encoded(self, smiles: Sequence[str]) -> Tensor:
        """Strings as (n, longest + 2) token numbers: start, tokens, end, padding."""
        rows = [[START, *self.numbers(one), END] for one in smiles]
        width = max((len(row) for row in rows), default=2)
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])

    def decoded(self, numbers: Tensor) -> list[str]:
        """SMILES of rows of token numbers (n, t): what stands before the first end mark. A row without end mark, or with another mark
        before it, is no finished string: its text is kept as it is, marks left out, and will rarely be a molecule."""
        table = np.array([*("" for _ in MARKS), *self.tokens[len(MARKS) :]], dtype=object)
        rows = numbers.cpu().numpy()
        ended = np.where((rows == END).any(1), (rows == END).argmax(1), rows.shape[1])
        texts = ["".join(table[row[:end]]) for row, end in zip(rows, ended.tolist(), strict=True)]
        return [_from_selfies(text) for text in texts] if self.notation == "selfies" else texts

    def state(self) -> Tensor:
        """The vocabulary as bytes, to be kept with weights."""
        text = "\n".join([self.notation, *self.tokens[len(MARKS) :]])
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    @classmethod
    def from_state(cls, state: Tensor) -> Vocabulary:
        """What `state` describes. Refused where it is no vocabulary."""
        notation, *tokens = bytes(state.tolist()).decode().split("\n")
        for known in SPELLINGS:
            if notation == known:
                return cls(tokens, known)
        raise Refused(f"a vocabulary is of {', '.join(SPELLINGS)}, not of {notation!r}")


def _written(smiles: str, notation: Spelling) -> list[str]:
    if notation == "characters":
        return list(smiles)
    if notation == "kekule":
        return _KEKULE.findall(kekulised(smiles))
    return split(smiles) if notation == "smiles" else _SELFIES.findall(_to_selfies(smiles))


@lru_cache(TRANSLATED)
def kekulised(smiles: str) -> str:
    """The same molecule from the same first atom on, with single and double bonds in turn for aromatic ones. UnknownToken where the string
    is no molecule."""
    split(smiles)  # names what is no token
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise UnknownToken(f"{shortened(smiles)}: is no molecule, so it has no Kekulé string")
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return str(Chem.MolToSmiles(mol, canonical=False, kekuleSmiles=True))


@lru_cache(TRANSLATED)
def _to_selfies(smiles: str) -> str:
    selfies = _selfies()
    try:
        return str(selfies.encoder(smiles))
    except selfies.EncoderError as error:
        reason = " ".join(str(error).split())
        raise UnknownToken(f"{shortened(smiles)}: has no SELFIES ({reason[:200]})") from error


def _from_selfies(text: str) -> str:
    return str(_selfies().decoder(text))


def _selfies() -> Any:
    try:
        import selfies
    except ImportError as error:
        raise Refused('SELFIES need the package selfies: pip install "simulacra[chem]"') from error
    return selfies
