"""Scores with published names, from the tables of measuring.py, so that they can stand beside the papers'.

MOSES (Polykovskiy et al. 2020, Front. Pharmacol. 11:565644), G the valid drawn molecules, R the reference:

    validity      share of all draws that RDKit reads as a molecule with an atom and without attachment points. Nothing is filtered before
    uniqueness@k  different canonical SMILES among the first k of G, over k, or over |G| where that is less
    novelty       share of the different molecules of G that training lacks, by canonical SMILES
    FCD           chemnet.py
    SNN           mean over G of the largest Tanimoto similarity to a molecule of R
    Frag, Scaf    cosine of the counts of BRICS fragments, and of Murcko scaffolds of two rings or more, in G and R
    IntDiv_p      1 - mean over x in G of (mean over y in G of T(x, y)^p)^1/p: each molecule's pairing with itself is in
    Filters       share of G that MOSES's medicinal filters let pass (filters.py; the share of G without an alert of Brenk et al. 2008,
                  ChemMedChem 3:435, is given beside it under its own name)
    W1 of f       Wasserstein-1 distance of the laws of logP, SA, QED and weight

SNN, Frag, Scaf and IntDiv are of the first 10,000 of G; Frag and above all Scaf grow with the numbers on both sides.

GuacaMol (Brown et al. 2019, J. Chem. Inf. Model. 59:1096):

    KL score      mean of exp(-KL(R, G)) over nine descriptors and the similarity to the nearest other molecule of the own set; continuous
                  ones by Gaussian kernels on 1,000 points, whole numbers by ten bins over R, both with 1e-10 added. Over the first 10,000
                  different flat molecules. Fingerprints have 1,024 bits here, 4,096 there, on both sides alike
    FCD score     exp(-0.2 FCD)

R is what is held out here; GuacaMol takes training molecules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from simulacra.sciences.drugs import chemnet
from simulacra.sciences.drugs.measuring import Table

Array = NDArray[np.float64]

BLOCK = 2048  # rows of a similarity matrix held at once
PAIRED = 10_000  # molecules of G, the first ones, that SNN, Frag, Scaf and IntDiv look at
GROUPS = 10  # of rows, for errors
KL_ROWS, KL_POINTS, KL_BINS, KL_FLOOR = 10_000, 1000, 10, 1e-10
CONTINUOUS = ("complexity", "logP", "weight", "TPSA")
WHOLE = ("acceptors", "donors", "rotatable", "aliphatic rings", "aromatic rings")
LAWS = ("logP", "SA", "QED", "weight")
UNITS = {"W1 weight": "g/mol"}
BRENK = "without an alert of Brenk"


class Score(NamedTuple):
    """A score and its standard error; nan where unknown."""

    value: float
    error: float = float("nan")


# -------------------------------------------------------------------------------------------------------------- of one set


def validity(valid: NDArray[np.bool_]) -> Score:
    """Share of draws that are molecules; 0 of none."""
    share = float(valid.mean()) if len(valid) else 0.0
    return Score(share, float(np.sqrt(share * (1 - share) / max(len(valid), 1))))


def uniqueness(names: Sequence[str], k: int) -> float:
    """Different ones among the first k, over how many those are; 0 of none."""
    first = list(names[:k])
    return len(set(first)) / len(first) if first else 0.0


def novelty(names: Iterable[str], known: Iterable[str]) -> float:
    """Share of the different names that are not among the known ones; 0 of none."""
    different = set(names)
    return len(different - set(known)) / len(different) if different else 0.0


def unpacked(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Fingerprints (n, bits) as 0 and 1."""
    return np.unpackbits(bits, axis=1).astype(np.float32)


def tanimoto(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Similarities (n, m) of fingerprints: common bits over bits that either has; 1 where neither has any."""
    alike: NDArray[np.float32] = one @ other.T
    mine, theirs = one.sum(1), other.sum(1)
    either = np.add.outer(mine, theirs)
    either -= alike
    alike /= np.maximum(either, 1, out=either)
    alike[np.ix_(mine == 0, theirs == 0)] = 1
    return alike


def nearest(bits: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Array:
    """Largest Tanimoto similarity (n,) of each packed fingerprint to one of `reference`; nan without a reference."""
    found = np.full(len(bits), -1.0)
    if not len(reference):
        return np.full(len(bits), np.nan)
    for start in range(0, len(reference), BLOCK):
        known = unpacked(reference[start : start + BLOCK])
        for at in range(0, len(bits), BLOCK):
            rows = slice(at, at + BLOCK)
            found[rows] = np.maximum(found[rows], tanimoto(unpacked(bits[rows]), known).max(axis=1))
    return found


def within(bits: NDArray[np.uint8]) -> tuple[Array, Array, Array]:
    """Of each fingerprint (n,) to all of the set: the largest similarity to another one, the mean of T and the mean of T². Remembered
    for the last few sets: nature is asked for many times."""
    return _within(bits.tobytes(), *bits.shape)


@lru_cache(maxsize=4)
def _within(packed: bytes, n: int, width: int) -> tuple[Array, Array, Array]:
    bits = np.frombuffer(packed, np.uint8).reshape(n, width)
    largest, first, second = np.full(n, np.nan), np.zeros(n), np.zeros(n)
    dense = unpacked(bits)
    for at in range(0, n, BLOCK):
        alike = tanimoto(dense[at : at + BLOCK], dense)
        rows = np.arange(len(alike))
        first[at : at + BLOCK] = alike.mean(axis=1, dtype=np.float64)
        second[at : at + BLOCK] = np.einsum("ij,ij->i", alike, alike, dtype=np.float64) / n
        alike[rows, at + rows] = -1
        if n > 1:
            largest[at : at + BLOCK] = alike.max(axis=1)
    return largest, first, second


def internal_diversity(first: Array, second: Array) -> tuple[Score, Score]:
    """IntDiv_1 and IntDiv_2 from the means of T and T² of each molecule to all; the error is that of a mean over pairs."""
    rooted = np.sqrt(second)
    return tuple(Score(float(1 - v.mean()), float(2 * v.std() / np.sqrt(len(v)))) for v in (first, rooted))  # type: ignore[return-value]


# -------------------------------------------------------------------------------------------------------------- of two sets


def cosine(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Cosine of two vectors of counts by name; nan where one is empty."""
    if not one or not other:
        return float("nan")
    across = sum(count * other.get(name, 0) for name, count in one.items())
    return float(across / np.sqrt(sum(c**2 for c in one.values()) * sum(c**2 for c in other.values())))


def fragments(table: Table) -> Counter[str]:
    """How often each BRICS fragment occurs."""
    return Counter(fragment for row in table.fragments.tolist() if row for fragment in row.split("."))


def scaffolds(table: Table) -> Counter[str]:
    """How often each Murcko scaffold of two rings or more occurs."""
    return Counter(table.scaffold[table.column("scaffold rings") >= 2].tolist())


def kl_continuous(reference: Array, drawn: Array) -> float:
    """KL divergence of the law of `drawn` from that of `reference`, both by Gaussian kernels; endless where one is a single value and
    the other is not, or holds what is no number."""
    if not np.isfinite([*reference, *drawn]).all():
        return float("inf")
    if min(reference.std(), drawn.std()) == 0:
        return 0.0 if np.array_equal(np.unique(reference), np.unique(drawn)) else float("inf")
    both = np.concatenate([reference, drawn])
    at = np.linspace(both.min(), both.max(), KL_POINTS)
    return float(stats.entropy(*(stats.gaussian_kde(v)(at) + KL_FLOOR for v in (reference, drawn))))


def kl_whole(reference: Array, drawn: Array) -> float:
    """The same of whole numbers, by ten bins over the range of `reference`; endless where nothing drawn lies in that range."""
    law, edges = np.histogram(reference, bins=KL_BINS, density=True)
    if not ((drawn >= edges[0]) & (drawn <= edges[-1])).any():
        return float("inf")
    return float(stats.entropy(law + KL_FLOOR, np.histogram(drawn, bins=edges, density=True)[0] + KL_FLOOR))


def kl_score(drawn: Table, reference: Table) -> float:
    """GuacaMol's mean of exp(-KL); 1 where all ten laws are equal."""
    one, other = _different(reference), _different(drawn)
    found = [kl_continuous(one.column(name), other.column(name)) for name in CONTINUOUS]
    found += [kl_whole(one.column(name), other.column(name)) for name in WHOLE]
    found.append(kl_continuous(within(one.bits)[0], within(other.bits)[0]))
    return float(np.mean(np.exp(-np.array(found))))


def _different(table: Table) -> Table:
    """The first KL_ROWS molecules that differ, flat, and were measured."""
    usable = np.flatnonzero(table.valid & np.isfinite(table.numbers).all(axis=1))
    first = {name: row for row, name in zip(usable[::-1].tolist(), table.flat[usable[::-1]].tolist(), strict=True)}
    return table[np.sort(np.array(list(first.values()), np.int64))[:KL_ROWS]]


def distribution_scores(drawn: Table, reference: Table) -> dict[str, Score]:
    """All scores that compare two sets of valid molecules, by name; FCD only where both tables hold activations."""
    found: dict[str, Score] = {}
    if drawn.activations.shape[1] and reference.activations.shape[1]:
        target = chemnet.moments(reference.activations)
        found["FCD"] = Score(*chemnet.jackknifed(drawn.activations, target, GROUPS))
    first_ones = drawn[:PAIRED]
    alike = nearest(first_ones.bits, reference.bits)
    found["SNN"] = Score(float(alike.mean()), float(alike.std() / np.sqrt(len(alike))))
    for name, count in (("Frag", fragments), ("Scaf", scaffolds)):
        found[name] = jackknifed(first_ones, partial(_alike, count, count(reference)))
    _, first, second = within(first_ones.bits)
    found["IntDiv1"], found["IntDiv2"] = internal_diversity(first, second)
    passed = drawn.passes[np.isfinite(drawn.passes)]
    if len(passed):
        found["Filters"] = validity(passed > 0)
        alerts = drawn.alerts[np.isfinite(drawn.alerts)]
        found[BRENK] = validity(alerts == 0)
    for name in LAWS:
        found[f"W1 {name}"] = jackknifed(drawn, partial(_apart, name, reference.column(name)))
    score = kl_score(drawn, reference)
    found["KL score"] = Score(score)
    if "FCD" in found:
        value, error = found["FCD"]
        found["FCD score"] = Score(float(np.exp(-0.2 * value)), float(0.2 * np.exp(-0.2 * value) * error))
    return found


def jackknifed(drawn: Table, score: Callable[[Table], float]) -> Score:
    """A score of all rows, with its error from leaving out each of GROUPS groups of them in turn."""
    group = np.arange(len(drawn)) % GROUPS
    parts = np.array([score(drawn[group != g]) for g in range(GROUPS)]) if len(drawn) > GROUPS else np.array([np.nan])
    return Score(score(drawn), float(np.sqrt((GROUPS - 1) * parts.var())))


def _alike(count: Callable[[Table], Counter[str]], reference: Mapping[str, int], drawn: Table) -> float:
    return cosine(count(drawn), reference)


def _apart(name: str, reference: Array, drawn: Table) -> float:
    one, other = drawn.column(name), reference
    one, other = one[np.isfinite(one)], other[np.isfinite(other)]
    return float(stats.wasserstein_distance(one, other)) if len(one) and len(other) else float("nan")


# ------------------------------------------------------------------------------------------------------------ memorisation


class Memorised(NamedTuple):
    """(hits in training / |training|) / (hits in held-out / |held-out|), with an interval of 95 %."""

    ratio: float  # 1: molecules that were shown are drawn as often as others; nan without a hit, inf without one in held-out
    error: float  # Poisson
    low: float
    high: float
    in_training: int
    in_held_out: int


def memorisation(drawn: Sequence[str], training: Iterable[str], held_out: Iterable[str]) -> Memorised:
    """How much rather a generator draws what it was shown than what it was not, by names (flat molecules): every draw counts.

    Given that there are k + l hits, k in training is binomial with p = r T / (r T + H), where r is the ratio that is looked for, T and H
    the numbers of different molecules in training and held-out; the interval is that of Clopper & Pearson 1934, Biometrika 26:404.
    """
    shown, hidden = set(training), set(held_out)
    hidden -= shown  # where a molecule is in both, it was shown
    k, l = (sum(name in known for name in drawn) for known in (shown, hidden))
    nan, inf = float("nan"), float("inf")
    if not k + l or not shown or not hidden:
        return Memorised(nan, nan, 0.0, inf, k, l)
    per = len(hidden) / len(shown)
    low = stats.beta.ppf(0.025, k, l + 1) if k else 0.0
    high = stats.beta.ppf(0.975, k + 1, l) if l else 1.0
    ends = [float(p / (1 - p) * per) if p < 1 else inf for p in (low, high)]
    ratio = k / l * per if l else inf
    return Memorised(ratio, float(ratio * np.sqrt(1 / k + 1 / l)) if k and l else nan, ends[0], ends[1], k, l)
