"""The rival that any language model must beat: the next token by how often it followed the last few.

    p(w | c) = N(c) / (N(c) + a) · N(c w) / N(c)  +  a / (N(c) + a) · p(w | c without its oldest token)

c: the last `order` - 1 tokens, N: counts in the training strings, a: counts for which a shorter context is worth as much as the longer
(a hierarchical Dirichlet model: MacKay & Bauman Peto 1995, Nat. Lang. Eng. 1:289). The shortest context is none: the law of single
tokens. Nine tokens of context are about as many as the ten characters of the n-gram model of MOSES.

There is no table of contexts. All places of the training text are sorted by what stands before them, the most recent token first; the
places with a common context, of any length, are then neighbours, and to draw from N(c w) / N(c) is to choose one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.drugs.tokens import END, PAD, START, Vocabulary, split
from simulacra.study import Refused

Ints = NDArray[np.int64]

ORDER = 10  # tokens, the next one included; fewer where there are so many kinds that a context would not fit into 62 bits
ALPHA = 1.0
LONGEST = 200  # tokens; a string that has not ended is cut here
BATCH = 4096


class NGram:
    """What followed what in training strings. Strings with what is no token are passed over."""

    def __init__(self, strings: Sequence[str], order: int = ORDER, alpha: float = ALPHA) -> None:
        rows = [row for row in map(_tokens, strings) if row]
        if not rows:
            raise Refused("no string of tokens to count n-grams in")
        self.vocabulary = Vocabulary(sorted({token for row in rows for token in row}))
        self._base = len(self.vocabulary)
        self.context, self.alpha = min(order - 1, int(62 / np.log2(self._base))), alpha
        number = self.vocabulary.number
        text = np.concatenate([np.array([START] * self.context + [number[t] for t in row] + [END], np.int64) for row in rows])
        keys = np.zeros(len(text), np.int64)
        for back in range(1, self.context + 1):
            keys[self.context :] += text[self.context - back : len(text) - back] * self._base ** (self.context - back)
        places = np.flatnonzero(text != START)
        places = places[np.argsort(keys[places], kind="stable")]
        self._keys, self._next = keys[places], text[places].astype(np.int16)

    def draw(self, n: int, seed: int) -> list[str]:
        """n strings, the same for the same seed."""
        rng = np.random.default_rng([seed, 0x16A])
        found: list[str] = []
        for start in range(0, n, BATCH):
            found += self._batch(min(BATCH, n - start), rng)
        return found

    def _batch(self, n: int, rng: np.random.Generator) -> list[str]:
        import torch

        written = np.full((n, self.context + LONGEST), PAD, np.int64)
        written[:, : self.context] = START
        alive = np.arange(n)
        for place in range(self.context, written.shape[1]):
            chosen = self._following(written[alive, place - self.context : place], rng)
            written[alive, place] = chosen
            alive = alive[chosen != END]
            if not len(alive):
                break
        return self.vocabulary.decoded(torch.from_numpy(written[:, self.context :]))

    def _following(self, context: Ints, rng: np.random.Generator) -> Ints:
        """The next token (n,) after each context (n, order - 1): backwards from the longest, whichever length the lot falls on."""
        chosen = np.full(len(context), -1, np.int64)
        key = np.zeros(len(context), np.int64)
        for back in range(1, self.context + 1):
            key += context[:, -back] * self._base ** (self.context - back)
        for length in range(self.context, -1, -1):
            unit = self._base ** (self.context - length)
            low = np.searchsorted(self._keys, key // unit * unit)
            high = np.searchsorted(self._keys, (key // unit + 1) * unit)
            count = high - low
            taken = (chosen < 0) & ((rng.random(len(key)) * (count + self.alpha) < count) | (length == 0))
            at = np.minimum(low + (rng.random(len(key)) * count).astype(np.int64), len(self._next) - 1)
            chosen = np.where(taken, self._next[at], chosen)
        return chosen

    def probabilities(self, context: Sequence[str]) -> dict[str, float]:
        """Law of the next token after these (fewer than `order` - 1: at the beginning of a string); "" for the end."""
        numbers = [START] * self.context + [self.vocabulary.number[t] for t in context]
        last = numbers[len(numbers) - self.context :]
        key = sum(t * self._base**place for place, t in enumerate(last))
        law, left = np.zeros(self._base), 1.0
        for length in range(self.context, -1, -1):
            unit = self._base ** (self.context - length)
            low, high = np.searchsorted(self._keys, [key // unit * unit, (key // unit + 1) * unit])
            share = 1.0 if length == 0 else (high - low) / (high - low + self.alpha)
            if high > low:
                law += left * share * np.bincount(self._next[low:high], minlength=self._base) / (high - low)
            left *= 1 - share
        names: Any = self.vocabulary.tokens
        return {("" if i == END else names[i]): float(law[i]) for i in np.flatnonzero(law)}


def _tokens(string: str) -> list[str]:
    try:
        return split(string)
    except Refused:
        return []
