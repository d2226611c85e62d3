"""A trained language model put to use: tuned on a few actives, growing fragments, led by a score (Gupta et al. 2018, Mol. Inf. 37:1700111).

    simulacra run drugs.transfer --recipe laptop --data actives.smi           it goes on learning from 5 to 5,000 actives
    simulacra draw drugs.transfer --fragment "c1ccc(*)cc1" -n 100 -o grown.smi
    simulacra run drugs.transfer --recipe goals --score qed                   it is led by a score (REINVENT, arXiv:1704.07555)

    laptop   for a set of actives: randomised strings, a guard against forgetting, the best validated state
    paper    12 epochs of 5 molecules, one at a time, T = .75, in the paper's order of things (a widely used reimplementation, LSTM_Chem)
    grow     strings written as a fragment and the rest: what the weights that ship are trained by
    goals    augmented likelihood, 10,000 calls
    quick    the same on molecules made by rule

The prior is a run of drugs.lstm or drugs.transfer, or the weights that ship (prior.py); where there are none and none is named, the recipe
trains from nothing and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simulacra.evidence import Check, Finding
from simulacra.sciences.drugs import (
    asking,
    cutting,
    data,
    exchange,
    growing,
    pictures,
    prior,
    reading,
    recovery,
    scores,
    seeking,
    statistics,
    tuning,
)  # fmt: skip
from simulacra.sciences.drugs.asking import TransferRecipe
from simulacra.sciences.drugs.data import Compounds, compounds, texts
from simulacra.sciences.drugs.prior import Prior
from simulacra.sciences.drugs.properties import flat, molecule
from simulacra.sciences.drugs.tokens import UnknownToken
from simulacra.study import Refused, Split, Study

FEW, ENOUGH = 10, 40  # actives below which all are learned from; from which on some can be held out
OWN = 3000  # molecules of the prior that stand for nature where there is no other
ACTIVES = 5000  # molecules to learn from, up to which they are a set of actives whose like can be recovered, and not molecules at large
GROWN = 200  # fragments of held-out molecules that are grown in an examination
LEARN_FROM = ("fine_tune",)  # columns of a table that mark the actives to learn from; the others are held out

# ------------------------------------------------------------------------------------------------------------------- nature


def load(recipe: TransferRecipe) -> Split[Compounds]:
    """What there is to learn from and to be held against.

    With a goal: your molecules, or those of the prior. Otherwise actives: a file with a column `split` as it says; a table with a column
    fine_tune, those marked 1, the others held out; else, of fewer than 10 all are learned from, of fewer than 40 a fifth validates, of
    more 80 : 10 : 10. Held out are the molecules of `known`; without them, and with fewer than 40 actives, molecules of the prior: the
    verdict then tells how far the law moved.
    """
    begins = found(recipe)
    if recipe.score:
        scores.find(recipe.score)
        if begins is None:
            raise Refused("a goal needs a trained writer to begin with: name a run with --prior (`simulacra run drugs.lstm` makes one)")
    if recipe.known and not recipe.data:
        raise Refused("known actives are held out beside actives to learn from: name those with --data")
    split = _loaded(recipe.model_copy(update={"prior": ""}), begins.digest if begins else "", *_digests(recipe), begins=_Same(begins))
    if begins is None:
        return replace(split, origin=f"{split.origin}; no prior: trained from nothing (no weights ship, and --prior names none)")
    return replace(split, origin=f"{split.origin}; {begins.sentence()}", files={**split.files, "prior": begins.digest})


class _Same:
    """A value that a cache does not look at."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same)

    def __hash__(self) -> int:
        return 0


def found(recipe: TransferRecipe) -> Prior | None:
    """The prior of a recipe. For fragments one that writes canonical strings comes first: the others were already turned to them."""
    return _found(recipe.prior)


@lru_cache(maxsize=2)
def _found(name: str) -> Prior | None:
    return prior.find(name)


def _digests(recipe: TransferRecipe) -> tuple[str, ...]:
    return tuple(reading.sha256(Path(path)) for path in (recipe.data, recipe.known) if path)


@lru_cache(maxsize=2)
def _loaded(recipe: TransferRecipe, *digests: str, begins: _Same) -> Split[Compounds]:
    first: Prior | None = begins.value
    if recipe.score and recipe.data is None:
        assert first is not None
        return _of_prior(recipe, first)
    if recipe.data is None or recipe.score or _labelled(recipe.data):
        split = data.load(
            recipe.data, seed=recipe.seed, simulated=recipe.simulated, longest=_longest(recipe, first) - 1, stereo=_stereo(recipe, first),
            strict=recipe.strict,
        )  # fmt: skip
        return _writable(split, first)
    return _of_actives(recipe, first)


def _longest(recipe: TransferRecipe, first: Prior | None) -> int:
    return recipe.longest if first is None else min(recipe.longest, first.longest)


def _stereo(recipe: TransferRecipe, first: Prior | None) -> bool:
    return recipe.stereo and (first is None or first.stereo)


def _labelled(path: Path) -> bool:
    line = next(iter(reading.lines(path)), None)
    return line is not None and "split" in line.more


def _writable(split: Split[Compounds], first: Prior | None) -> Split[Compounds]:
    """Without the molecules that hold a token that the prior never saw: each is named."""
    if first is None:
        return split
    rejected = list(split.rejected)
    parts = {}
    for name in ("train", "validation", "held_out"):
        part = getattr(split, name)
        reasons = [_unwritable(text, first) for text in texts(part)]
        rejected += [reason for reason in reasons if reason]
        parts[name] = part[[i for i, reason in enumerate(reasons) if not reason]] if any(reasons) else part
    if not len(parts["train"]):
        raise Refused(f"the prior can write none of the molecules; the first: {rejected[-1]}")
    return replace(split, rejected=rejected, **parts)


def _unwritable(text: str, first: Prior, longest: int = 0) -> str:
    try:
        length = len(first.vocabulary.numbers(text))
    except UnknownToken as error:
        return f"{error} of the prior"
    return f"{text}: {length} tokens; the prior writes at most {longest}" if longest and length > longest else ""


def _of_actives(recipe: TransferRecipe, first: Prior | None) -> Split[Compounds]:
    assert recipe.data is not None
    found, held, rejected, told = _read_actives(recipe, first)
    if not found:
        raise Refused(f"{recipe.data} holds no active that can be learned from{f' (the first: {rejected[0]})' if rejected else ''}")
    own: list[str] = []
    train, validation = list(found), list[str]()
    if len(found) >= FEW:
        train, validation = _shared(found, 5)
    if len(found) >= ENOUGH and not held:
        validation, held = _shared(validation, 2)
    if len(held) < recovery.FEWEST:
        if first is None:
            raise Refused(
                f"{len(found)} actives are too few to hold some out: name other known ones with --known, or a prior with --prior, whose "
                f"molecules they can be held against; or give at least {ENOUGH}"
            )
        own = _own(recipe, first)[:1000]
        told.append(f"held out are {len(own):,} molecules of the prior, as too few other actives are known: the verdict tells what moved")
    sizes = f"{len(train):,} to learn from, {len(validation):,} to validate, {len(held):,} other actives held out"
    origin = "; ".join([f"{Path(recipe.data).name}: {len(found) + len(held):,} actives", sizes, *told])
    files = {str(path): reading.sha256(Path(path)) for path in (recipe.data, recipe.known) if path}
    return Split(compounds(train), compounds(validation), compounds(own or held), origin, files, rejected)


def _read_actives(recipe: TransferRecipe, first: Prior | None) -> tuple[list[str], list[str], list[str], list[str]]:
    """Actives to learn from, others that are known, what was set aside, remarks."""
    assert recipe.data is not None
    stereo, longest = _stereo(recipe, first), _longest(recipe, first) - 1
    rejected: list[str] = []

    def usable(path: Path) -> dict[str, list[str]]:
        reading_ = reading.read_clean(path, stereo=stereo, strict=recipe.strict)
        rejected.extend(reading_.rejected)
        told[:] = [*told, *reading_.remarks]
        reasons = [_unwritable(s, first, longest) if first else "" for s in reading_.smiles]
        rejected.extend(reason for reason in reasons if reason)
        return {"all": [s for s, reason in zip(reading_.smiles, reasons, strict=True) if not reason]}

    told: list[str] = []
    actives = usable(recipe.data)["all"]
    marked = _marked(recipe.data, stereo)
    others = [s for s in actives if s not in marked] if marked is not None else []
    actives = [s for s in actives if s in marked] if marked is not None else actives
    if recipe.known:
        others += usable(Path(recipe.known))["all"]
    names = {flat(s) for s in actives}
    others = list({name: s for s in others if (name := flat(s)) not in names}.values())
    return actives, others, rejected, told


def _marked(path: Path, stereo: bool) -> set[str] | None:
    """Molecules of a table that a column of LEARN_FROM marks; None where there is no such column."""
    out: set[str] = set()
    for line in reading.lines(path):
        column = next((line.more[name] for name in LEARN_FROM if name in line.more), None)
        if column is None:
            return None
        if column.strip().lower() in ("1", "true", "yes"):
            try:
                out.add(reading.clean(line.smiles, stereo=stereo)[0])
            except reading.Unusable:
                continue
    return out


def _shared(smiles: Sequence[str], part: int) -> tuple[list[str], list[str]]:
    """Most of the molecules, and every `part`-th in the order of a hash of the flat molecule."""
    order = sorted(smiles, key=lambda s: hashlib.sha256(flat(s).encode()).digest())
    return [s for i, s in enumerate(order) if i % part], order[::part]


def _own(recipe: TransferRecipe, first: Prior) -> list[str]:
    """Different molecules that the prior draws."""
    writer = prior.writer_from(first, recipe)
    drawn = writer.sampled(range(OWN), seed=recipe.seed)
    return list(dict.fromkeys(s for s in writer.vocabulary.decoded(drawn.tokens) if molecule(s) is not None))


def _of_prior(recipe: TransferRecipe, first: Prior) -> Split[Compounds]:
    own = _own(recipe, first)
    origin = f"goal: {recipe.score}; {len(own):,} molecules of the prior stand for nature, a third of them held out"
    return Split(compounds(own[::3]), compounds(own[1::3]), compounds(own[2::3]), origin)


# ------------------------------------------------------------------------------------------------------------------ learner


def build(recipe: TransferRecipe, training: Compounds) -> tuning.Tuner | seeking.Seeker:
    """A seeker where the recipe has a score, else a tuner."""
    first = found(recipe)
    if recipe.score:
        assert first is not None
        return seeking.Seeker(recipe, first, scores.Oracle(recipe.score))
    return tuning.build(recipe, first, texts(training), texts(load(recipe).validation))


def ask(recipe: TransferRecipe, n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows, checked against no weights."""
    return asking.ask(None, n, conditions)


# --------------------------------------------------------------------------------------------------------------- examination


def examine(learner: tuning.Tuner | seeking.Seeker, split: Split[Compounds], seed: int) -> tuple[list[Finding], list[Check]]:
    """What the use is worth: recovered actives, fragments kept, or what a score rose to."""
    if isinstance(learner, seeking.Seeker):
        return [], _goal_checks(learner, seed)
    own = "molecules of the prior" in split.origin
    held = [] if own else texts(split.held_out[: learner.recipe.searched])
    out = _recovery_checks(learner, split, held, seed) if len(split.train) <= ACTIVES else []
    return [], out + (_growth_checks(learner, held, seed) if learner.recipe.fragments and held else [])


def _recovery_checks(learner: tuning.Tuner, split: Split[Compounds], held: Sequence[str], seed: int) -> list[Check]:
    """Held-out actives found by the tuned model and by the prior, at as many draws."""
    recipe, writer = learner.recipe, learner.writer
    tuned = writer.vocabulary.decoded(writer.sampled(range(recipe.searched), seed=seed + 1, model=learner.model).tokens)
    untuned = None
    if learner.prior is not None:
        untuned = writer.vocabulary.decoded(writer.sampled(range(recipe.searched), seed=seed + 1, model=learner.prior).tokens)
    return recovery.checks(texts(split.train[: recipe.searched]), held, tuned, untuned, seed)


def _growth_checks(learner: tuning.Tuner, held: Sequence[str], seed: int) -> list[Check]:
    """Fragments of held-out molecules, each grown once, with one try at each attachment point."""
    out = []
    complete = asking.completion(learner.writer, learner.model)
    for kind in cutting.KINDS:
        if kind == "link" and "." not in learner.writer.vocabulary.number:
            continue
        asked = [growing.fragment(text) for text in cutting.fragments(held, kind, GROWN)]
        if not asked:
            continue
        valid, kept, _ = cutting.trial(asked, range(len(asked)), complete, seed)
        error = float(np.sqrt(valid * (1 - valid) / len(asked)))
        out.append(Check(f"fragments, {kind}: strings that are molecules at the first try", valid, error, "at least 0.95", valid >= 0.95))
        out.append(Check(f"fragments, {kind}: kept, of the molecules", kept, float("nan"), "1", kept == 1))
    return out


def _goal_checks(learner: seeking.Seeker, seed: int) -> list[Check]:
    """Scores of new draws beside the prior's, and the curve over calls."""
    recipe, writer = learner.recipe, learner.writer
    n = min(recipe.searched, 1000)
    value = {}
    for name, model in (("agent", writer.descent.average), ("prior", learner.prior)):
        drawn = writer.vocabulary.decoded(writer.sampled(range(n), seed=seed + 1, model=model).tokens)
        names = [seeking.described(text)[0] for text in drawn]
        known = learner.oracle([name for name in dict.fromkeys(names) if name])
        table = dict(zip([name for name in dict.fromkeys(names) if name], known, strict=True))
        value[name] = np.array([table.get(name, 0.0) for name in names])
    error = float(value["agent"].std() / np.sqrt(n))
    met = float(value["agent"].mean()) > float(value["prior"].mean())
    beside = {"prior": float(value["prior"].mean())}
    best = learner.best(seeking.BEST)[1]
    auc = seeking.area(list(learner.seen.values()), recipe.calls)
    return [
        Check(f"mean {recipe.score} of {n:,} draws, invalid ones 0", float(value["agent"].mean()), error, "above the prior", met, beside),
        Check(f"mean of the {seeking.BEST} best in {len(learner.seen):,} calls", float(np.mean(best)), float("nan"), "", True),
        Check("area under that mean against calls", auc, float("nan"), "", True, {"calls allowed": float(recipe.calls)}),
    ]  # fmt: skip


def summary(asked: Compounds, drawn: Compounds) -> list[str]:
    """What was achieved."""
    return asking.summary(asked, drawn) or exchange.summary(asked, drawn)


laptop = TransferRecipe(
    steps=400, batch=16, lr=5e-4, warmup=20, ema=0.98, randomised=0.5, fragments=0.0, guard=0.5, draws=2000, searched=10_000, threads=1
)

study: Study[Any, Any] = Study(
    title="Drug-like molecules by transfer: tuned on actives, grown from fragments, led by scores",
    source="Gupta, Müller, Huisman, Fuchs, Schneider, Schneider 2018, Mol. Inf. 37:1700111, doi:10.1002/minf.201700111",
    recipes={
        "quick": TransferRecipe(
            hidden=128, layers=2, steps=200, batch=32, lr=2e-3, ema=0.98, warmup=10, draws=400, longest=80, threads=1, randomised=0.3,
            fragments=0.3, guard=0.1, searched=400, calls=1500,
        ),
        "laptop": laptop,
        "paper": TransferRecipe(
            layers=2, dropout=0.3, steps=60, batch=1, lr=1e-3, warmup=0, ema=0.0, keep=False, temperature=0.75, precision="float32",
            draws=2000, searched=10_000, threads=1,
        ),
        "grow": TransferRecipe(
            steps=1900, corrected=400, batch=256, lr=1e-3, warmup=50, ema=0.995, fragments=0.8, randomised=0.5, draws=4000, searched=2000,
            threads=1,
        ),
        "goals": TransferRecipe(
            steps=1000, batch=64, slots=64, lr=5e-4, warmup=0, ema=0.0, draws=1000, searched=1000, bucket=25, threads=1,
        ),
    },
    expect={
        "quick": "about a minute of processor time on one core, the verdict included (from single steps)",
        "laptop": "about a minute of processor time for the tuning, and the verdict (from single steps)",
        "paper": "5 actives: 1 s of processor time for the tuning, 4 s for 2,000 draws and what was recovered",
        "grow": "ZINC, batches of 128, one thread of a shared 2-core machine: 1,500 steps 7 min, 400 that correct 4 min; 256 not run",
        "goals": "0.9 s of processor time per step of 64 (qed): 10,000 calls in about 2.5 min; not run to the end",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=exchange.read,
    write=exchange.write,
    ask=ask,
    picture=pictures.picture,
    caption=pictures.caption,
    examine=examine,
    restore=tuning.restore,
    conditions=asking.CONDITIONS,
    formats=exchange.FORMATS,
    export=exchange.export,
    summary=summary,
    citation="""@article{gupta2018generative,
  title = {Generative Recurrent Networks for De Novo Drug Design},
  author = {Gupta, Anvita and M{\\"u}ller, Alex T. and Huisman, Berend J. H. and Fuchs, Jens A. and Schneider, Petra and
    Schneider, Gisbert},
  journal = {Molecular Informatics},
  volume = {37},
  pages = {1700111},
  year = {2018},
}""",
)  # fmt: skip
