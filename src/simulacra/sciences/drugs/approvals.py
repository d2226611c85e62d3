"""From a prototype to a drug that was approved later: can variants of the older one hold the newer one?

Pairs of drugs (a prototype, a drug approved later that resembles it) are reduced to flat molecules (properties.flat), since tables of drugs
hold salts, esters and stereoisomers of one: pairs that are then equal say nothing and go. Designs for a prototype are put in an order that
knows nothing of the later drug (a model's likelihood), each molecule once, the prototype itself left out. Then

    hit@k      the later drug, flat, is among the first k designs
    gain       the largest ECFP4 Tanimoto similarity of any design to the later drug, less that of the prototype to it

Both have to be read beside what costs nothing: molecules of the training set, random or near the prototype, one change of the graph,
strings that were drawn without a prototype, and designs for another prototype. Differences are of the same prototypes, with a bootstrap
over prototypes: several pairs may share one, and their designs are the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.drugs import leaks, measuring, reading
from simulacra.study import Refused

Array = NDArray[np.float64]
Bits = NDArray[np.uint8]

COLUMNS = ("prototype_name", "prototype_year", "prototype_smiles", "later_name", "later_year", "later_smiles")
LEAST, MOST = 0.3, 0.8  # similarity of the two: less is another kind of drug, more a copy
FIRST = (10, 100)  # k of hit@k, beside all


@dataclass(frozen=True)
class Pair:
    """A prototype and a drug approved later."""

    prototype: str  # SMILES as it is to be varied: largest part, canonical, with stereo
    prototype_flat: str
    later_flat: str
    names: tuple[str, str]
    years: tuple[int, int]
    similarity: float  # ECFP4 Tanimoto of the flat molecules
    later_bits: Bits  # (BITS / 8,)

    def sentence(self) -> str:
        """Which pair, in words."""
        return f"{self.names[0].capitalize()} ({self.years[0]}) to {self.names[1].lower()} ({self.years[1]}), {self.similarity:.2f}"


def pairs(path: Path) -> tuple[list[Pair], list[str]]:
    """The pairs of a table with COLUMNS, each pair of flat molecules once, and what was dropped, in words."""
    table = csv.DictReader(io.StringIO(reading.text_of(path), newline=""))
    lacking = [name for name in COLUMNS if name not in (table.fieldnames or ())]
    if lacking:
        raise Refused(f"{path.name} has no column {', '.join(lacking)}; pairs of drugs need {', '.join(COLUMNS)}")
    rows = list(table)
    identity = (measuring.IDENTITY,)
    sides = {name: measuring.measure([row[f"{name}_smiles"] for row in rows], identity) for name in ("prototype", "later")}
    flat = {name: measuring.measure(side.flat.tolist(), identity) for name, side in sides.items()}
    shared = similarities(flat["prototype"].bits, flat["later"].bits)
    found: dict[tuple[str, str], Pair] = {}
    unreadable = equal = again = 0
    for i, row in enumerate(rows):
        key = (str(flat["prototype"].canonical[i]), str(flat["later"].canonical[i]))
        unreadable += not all(key)
        equal += key[0] == key[1] != ""
        again += key in found
        if all(key) and key[0] != key[1] and key not in found:
            found[key] = Pair(
                reading.clean(row["prototype_smiles"])[0], *key, (row["prototype_name"], row["later_name"]),
                (int(row["prototype_year"]), int(row["later_year"])), float(shared[i]), flat["later"].bits[i],
            )  # fmt: skip
    dropped = [f"{equal} pairs of equal flat molecules", f"{again} that came before", f"{unreadable} with a string that is no molecule"]
    return list(found.values()), dropped


def similarities(one: Bits, other: Bits) -> Array:
    """Tanimoto similarity (n,) of packed bits (n, b), row by row."""
    both = np.bitwise_count(one & other).sum(-1, dtype=np.int64)
    either = np.bitwise_count(one | other).sum(-1, dtype=np.int64)
    return np.where(either > 0, both / np.maximum(either, 1), 0.0)


def usable(found: Sequence[Pair], coded: Callable[[str], bool], *, least: float = LEAST, most: float = MOST) -> list[Pair]:
    """Pairs that are neither too unlike nor copies, whose two molecules can be written by the model."""
    return [p for p in found if least <= p.similarity <= most and coded(p.prototype) and coded(p.later_flat)]


@dataclass(frozen=True)
class Designs:
    """What was proposed for one prototype: different flat molecules, the most likely first."""

    flat: Sequence[str]
    bits: Bits  # (m, BITS / 8)

    @classmethod
    def ranked(cls, table: measuring.Table, surprise: Array) -> Designs:
        """The valid molecules of a table, each once where it is least surprising, least surprising first."""
        order = np.argsort(surprise, kind="stable")
        first = {str(table.flat[i]): int(i) for i in order[::-1] if table.valid[i]}  # the last that is set is the least surprising
        rows = sorted(first.values(), key=lambda i: (surprise[i], i))
        return cls([str(table.flat[i]) for i in rows], table.bits[rows])

    def without(self, flat: str) -> Designs:
        """The designs that are not this molecule."""
        rows = [i for i, one in enumerate(self.flat) if one != flat]
        return Designs([self.flat[i] for i in rows], self.bits[rows])


@dataclass(frozen=True)
class Outcome:
    """How close the designs for one pair came."""

    rank: int | None  # of the later drug among them, from 1; None: not there
    best: float  # largest similarity to the later drug; 0 where there is no design
    gain: float
    size: int  # designs


def outcome(pair: Pair, designs: Designs) -> Outcome:
    """Hold designs against the later drug of a pair. The prototype itself is no design."""
    own = designs.without(pair.prototype_flat)
    rank = own.flat.index(pair.later_flat) + 1 if pair.later_flat in own.flat else None
    best = float(similarities(own.bits, pair.later_bits[None]).max()) if len(own.flat) else 0.0
    return Outcome(rank, best, best - pair.similarity, len(own.flat))


def hit(outcomes: Sequence[Outcome], k: int | None = None) -> Array:
    """1 where the later drug is among the first k designs (all of them without k), else 0: (n,)."""
    return np.array([float(o.rank is not None and (k is None or o.rank <= k)) for o in outcomes])


def shuffled(found: Sequence[Pair], order: Sequence[str] = ()) -> list[int]:
    """For each pair the index of a pair with another prototype, whose designs it is given: that of the prototype before its own, in a
    circle (in `order`, flat names; by alphabet without)."""
    names = list(order) or sorted({p.prototype_flat for p in found})
    if len(names) < 2:
        raise Refused("prototypes can only be shuffled where there are two or more")
    place = {name: i for i, name in enumerate(names)}
    first = {p.prototype_flat: i for i, p in reversed(list(enumerate(found)))}
    return [first[names[place[p.prototype_flat] - 1]] for p in found]


# ----------------------------------------------------------------------------------------------------------------- intervals


def interval(values: Array, units: Sequence[str], *, seed: int = 0, times: int = 2000) -> tuple[float, float, float]:
    """Mean of values (n,) and its 2.5 % and 97.5 % bootstrap bounds, where what is resampled is the unit of each value (its prototype)."""
    names, place = np.unique(np.asarray(units), return_inverse=True)
    sums, counts = np.bincount(place, values, len(names)), np.bincount(place, minlength=len(names))
    chosen = np.random.default_rng([seed, 0xA1]).integers(len(names), size=(times, len(names)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def summary(found: Sequence[Pair], methods: Mapping[str, Sequence[Outcome]], ours: str, *, seed: int = 0) -> list[str]:
    """A table in Markdown: hits and gain of each method with intervals, and the gain of `ours` less that of each other, pair by pair."""
    units = [p.prototype_flat for p in found]
    gains = {name: np.array([o.gain for o in outcomes]) for name, outcomes in methods.items()}
    lines = [
        f"{len(found)} pairs, {len(set(units))} prototypes",
        f"| designs from | designs | hits | {' | '.join(f'hit@{k}' for k in FIRST)} | gain | {ours} less this |",
        "|-" * (5 + len(FIRST)) + "-|",
    ]
    for name, outcomes in methods.items():
        size = np.mean([o.size for o in outcomes])
        mean, low, high = interval(gains[name], units, seed=seed)
        less = interval(gains[ours] - gains[name], units, seed=seed)
        hits = " | ".join(f"{int(hit(outcomes, k).sum())}" for k in (None, *FIRST))
        paired = "" if name == ours else f"{less[0]:+.3f} ({less[1]:+.3f} to {less[2]:+.3f})"
        lines.append(f"| {name} | {size:.0f} | {hits} | {mean:+.3f} ({low:+.3f} to {high:+.3f}) | {paired} |")
    return lines


def leaked(training: Sequence[str], path: Path) -> tuple[int, list[str]]:
    """How many molecules a file of drugs holds that differ in more than stereo, and those of them that are in training: the plainest
    check there is. `leaks.found` is the one to rely on: it also sees through salts and charges."""
    drugs = {name for line in reading.lines(path) if (name := leaks.without_stereo(line.smiles))}
    atoms = {leaks.heavy_atoms(name) for name in drugs}
    names = (leaks.without_stereo(one) for one in training if leaks.heavy_atoms(one) in atoms)
    return len(drugs), sorted(drugs.intersection(names))
