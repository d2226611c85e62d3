"""The published scores of metrics.py as checks: each with its error, the bar that it is held to, and what it is to be read beside:

    halves of nature     held-out nature, half against half; FCD brought to the numbers of molecules that are judged
    copied training      as many training molecules as there are valid drawn ones, but at most metrics.PAIRED, FCD brought to the
                         numbers that are judged: what a generator that copies reaches, and, where training and held-out were divided
                         at random, nature against nature at equal numbers
    n-gram strings       ngram.py, counted on training (without it: on nature itself)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Check
from simulacra.sciences.drugs import chemnet, metrics
from simulacra.sciences.drugs.measuring import Table
from simulacra.sciences.drugs.metrics import BRENK, UNITS, Score

HALVES, COPIED, NGRAM, HELD_OUT = "halves of nature", "copied training", "n-gram strings", "held-out nature"
VALID, UNIQUE, NOVEL = 0.97, 0.999, 0.9  # bars of validity, uniqueness and novelty
TIMES = 2.0  # FCD at most so many times that of nature
NEAR, ERRORS = 0.2, 3.0  # a score is met within this part of the way from nature's to the n-gram's, or within so many standard errors
RATIO = (0.8, 1.2)  # bar of the memorisation ratio
FEWEST = 100  # valid molecules on a side below which no set is compared with another


def checks(
    nature: Table, drawn: Table, ngram: Table, *, training: Table | None, copied: Table | None, counted_on: str = "training",
    new: NDArray[np.bool_] | None = None,
) -> tuple[list[Check], list[str]]:  # fmt: skip
    """Checks of the drawn rows, in draw order, and remarks. `copied` are rows of training; `new` says which drawn rows are not the very
    molecule that they were asked to vary, which nobody has to remember."""
    found = counting(nature, drawn, ngram, training, copied)
    told = [f"n-gram strings: {len(ngram)} strings of an n-gram model counted on {counted_on}, {ngram.valid.mean():.1%} valid."]
    valid = {"nature": nature[nature.valid], "drawn": drawn[drawn.valid], "n-gram": ngram[ngram.valid]}
    few = [f"{len(table)} of {name}" for name, table in valid.items() if len(table) < FEWEST]
    if few:
        told.append(f"Sets of molecules are not compared (FCD, SNN, Frag, Scaf ...): fewer than {FEWEST} valid ones, {', '.join(few)}.")
    else:
        compared, more = distributions(valid["nature"], valid["drawn"], valid["n-gram"], copied)
        found, told = [*found, *compared], [*told, *more]
    if training is not None:
        check, more = memorised(nature, drawn if new is None else drawn[new], training)
        found, told = [*found, *check], [*told, *more]
    return found, told


def counting(nature: Table, drawn: Table, ngram: Table, training: Table | None, copied: Table | None) -> list[Check]:
    """Validity, uniqueness and, with training, novelty."""
    value, error = metrics.validity(drawn.valid)
    beside = {HELD_OUT: float(nature.valid.mean()), NGRAM: float(ngram.valid.mean())}
    found = [Check("MOSES validity", value, error, f"at least {VALID}, of all strings, nothing filtered", value >= VALID, beside)]
    sets = {HELD_OUT: nature, NGRAM: ngram, **({COPIED: copied} if copied is not None else {})}
    names = drawn.canonical[drawn.valid].tolist()
    for k in (1_000, 10_000):
        if k > 1_000 and len(names) <= 1_000:
            break
        beside = {name: metrics.uniqueness(table.canonical[table.valid].tolist(), k) for name, table in sets.items()}
        target = f"at least {UNIQUE}" + (f" (only {len(names):,} are valid)" if len(names) < k else "")
        value = metrics.uniqueness(names, k)
        found.append(Check(f"MOSES uniqueness@{k:,}", value, float("nan"), target, value >= UNIQUE, beside))
    if training is not None:
        known = set(training.canonical.tolist())
        beside = {name: metrics.novelty(table.canonical[table.valid].tolist(), known) for name, table in sets.items()}
        value = metrics.novelty(names, known)
        found.append(Check("MOSES novelty", value, float("nan"), f"at least {NOVEL}; see the memorisation ratio", value >= NOVEL, beside))
    return found


def distributions(nature: Table, drawn: Table, ngram: Table, copied: Table | None) -> tuple[list[Check], list[str]]:
    """The scores of two sets of valid molecules."""
    values = metrics.distribution_scores(with_fcd(drawn), with_fcd(nature))
    floor = floors(nature, len(drawn))
    rival = metrics.distribution_scores(with_fcd(ngram), with_fcd(nature))
    copy = {} if copied is None else as_many(metrics.distribution_scores(with_fcd(copied), with_fcd(nature)), floor, copied, nature, drawn)
    found = []
    for name, (value, error) in values.items():
        beside = {HALVES: floor[name].value} if name in floor else {}
        beside |= {title: scores[name].value for title, scores in ((COPIED, copy), (NGRAM, rival)) if name in scores}
        target, met = _target(name, Score(value, error), floor, copy or floor, rival)
        title = name if name == BRENK else f"GuacaMol {name}" if "score" in name else f"MOSES {name}"
        unit = UNITS.get(name, "")
        found.append(Check(f"{title} ({unit})" if unit else title, value, error, target, bool(met), beside))
    told = [
        f"Scores of two sets: {len(drawn):,} valid drawn molecules against {len(nature):,} of held-out nature. The alerts of Brenk et al. "
        "2008 stand beside MOSES Filters and are no part of them."
    ]
    if "FCD" not in values:
        few = f"of fewer than {chemnet.FEWEST:,} molecules it tells little but how few they are"
        missing = 'the package fcd is missing (pip install "simulacra[chem]")'
        told.append(f"FCD is left out: {few if chemnet.installed() else missing}.")
    elif "FCD" not in rival:
        told.append(f"The n-gram's FCD is left out: fewer than {chemnet.FEWEST:,} of its strings are valid.")
    return found, told


def with_fcd(table: Table) -> Table:
    """The table, without activations where they are too few to be compared."""
    enough = len(table) >= chemnet.FEWEST
    return table if enough else dataclasses.replace(table, activations=table.activations[:, :0])


def floors(nature: Table, drawn: int) -> dict[str, Score]:
    """Half of nature against the other half, every second row; FCD, whose bias is known, as it would be of all of nature and `drawn`
    others. With half the molecules SNN and Scaf are lower, and W1 and 1 - KL score higher, than with all."""
    nature = with_fcd(nature)
    found = metrics.distribution_scores(nature[::2], nature[1::2])
    if "FCD" in found:
        value = chemnet.expected(len(nature), drawn, found["FCD"].value, len(nature))
        found |= {"FCD": Score(value), "FCD score": Score(float(np.exp(-0.2 * value)))}
    return found


def as_many(scores: dict[str, Score], floor: Mapping[str, Score], copied: Table, nature: Table, drawn: Table) -> dict[str, Score]:
    """Scores of a copier, with its FCD as it would be if it had drawn as many as were drawn: the bias is c (1/m + 1/n)."""
    if "FCD" not in scores or "FCD" not in floor:
        return scores
    c = floor["FCD"].value / (1 / len(nature) + 1 / len(drawn))
    value = scores["FCD"].value + c * (1 / len(drawn) - 1 / len(copied))
    return scores | {"FCD": Score(value, scores["FCD"].error), "FCD score": Score(float(np.exp(-0.2 * value)), scores["FCD score"].error)}


def _target(
    name: str, score: Score, floor: Mapping[str, Score], nature: Mapping[str, Score], rival: Mapping[str, Score]
) -> tuple[str, bool]:
    """The bar of a score, in words, and whether it is met; `nature` is what nature reaches."""
    value = score.value
    if name in ("FCD", "FCD score"):
        best = floor["FCD"].value if "FCD" in floor else float("nan")
        if name == "FCD":
            return f"at most {TIMES:g} times {best:.3g}, which nature has against itself", value <= TIMES * best
        return f"at least {np.exp(-0.2 * TIMES * best):.3f} (FCD at most {TIMES:g} times nature's)", value >= np.exp(-0.2 * TIMES * best)
    if name not in rival or name not in nature or not np.isfinite(nature[name].value + rival[name].value):
        return "to be read beside the others", True
    best, error = nature[name]
    room = max(NEAR * abs(rival[name].value - best), ERRORS * float(np.hypot(*np.nan_to_num([score.error, error]))))
    words = f"within {NEAR:.0%} of the way from nature's {best:.3g} to the n-gram's, or {ERRORS:g} standard errors"
    return words, value <= best + room if name.startswith("W1") else abs(value - best) <= room


def memorised(nature: Table, drawn: Table, training: Table) -> tuple[list[Check], list[str]]:
    """The memorisation ratio, where anything was drawn that exists."""
    found = metrics.memorisation(*(table.flat[table.valid].tolist() for table in (drawn, training, nature)))
    if not found.in_training + found.in_held_out:
        return [], ["Memorisation ratio: no drawn molecule is in training or in held-out nature, so there is nothing to count."]
    low, high = RATIO
    interval = f"{found.low:.2g} to {found.high:.2g}"
    met = found.high >= low and found.low <= high
    beside = {"drawn in training": float(found.in_training), "drawn in held-out": float(found.in_held_out), "lowest (95 %)": found.low}
    beside["highest (95 %)"] = found.high
    told = []
    if met and (found.high > 3 * high or found.low < low / 3):
        told.append(f"Memorisation ratio: {found.in_training + found.in_held_out} hits only bound it to {interval}; more draws tell more.")
    target = f"{low} to {high}, or its interval of 95 % ({interval}) reaches there"
    return [Check("memorisation ratio", found.ratio, found.error, target, met, beside)], told
