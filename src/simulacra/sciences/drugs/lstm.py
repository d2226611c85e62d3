"""Drug-like molecules as SMILES strings, written by a recurrent network (Ertl, Lewis, Martin, Polyakov 2017, arXiv:1712.07449).

The network reads a string token by token and learns the law of the next token; drawn from, it writes molecules that nobody registered.

    laptop   3 x 256 LSTM, whole tokens, batches of equally long strings, bfloat16; 80 to 150 minutes of one core for ZINC
    paper    2 x 256, one long schedule, dropout: the sizes of a widely used reimplementation of Gupta et al. (LSTM_Chem), because the
             abstract of Ertl et al. states none
    quick    1 x 256 on molecules made by rule

The abstract reports a million molecules in two hours, 139 a second (hardware not stated). The judge adds what it lacks: FCD, held-out
likelihood per molecule, and a memorisation ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simulacra.evidence import Check, Figure, Finding
from simulacra.sciences.drugs import data, exchange, pictures, statistics, tokens, writer
from simulacra.sciences.drugs.data import Compounds, texts
from simulacra.sciences.drugs.ngram import NGram
from simulacra.study import Noise, Refused, Split, Study

COMPARED, COUNTED = 2000, 300  # molecules whose likelihood is compared; those that the n-gram model is asked for, which is slow
COUNTING = 50_000  # training strings that it counts in
SHOWN = 2000  # molecules drawn for the figures


class LstmRecipe(writer.StringRecipe):
    """A language model of drug-like molecules."""


def load(recipe: writer.StringRecipe) -> Split[Compounds]:
    """Your molecules, or molecules made by rule."""
    return data.load(
        recipe.data, seed=recipe.seed, simulated=recipe.simulated, longest=recipe.longest - 1, stereo=recipe.stereo, strict=recipe.strict
    )


def ask(recipe: writer.StringRecipe, n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows to be written. Nothing can be asked for: that is what `drugs.transfer`, `.aae` and `.prototype` are for."""
    if conditions:
        raise Refused(
            f"drugs.lstm takes no conditions, {', '.join(conditions)} was asked for; drugs.transfer grows fragments and follows scores, "
            "drugs.aae takes wished properties, drugs.prototype varies a molecule"
        )
    return data.empty(n)


def examine(learner: writer.Writer, split: Split[Compounds], seed: int) -> tuple[list[Finding], list[Check]]:
    """What the likelihood is worth: bits per held-out molecule, beside the n-gram model's and those of training molecules. Bits per
    molecule, not per token, so that ways of writing molecules can be compared."""
    held_out, training = (learner.score(_some(part, COMPARED)).numpy() for part in (split.held_out, split.train))
    known = np.isfinite(held_out)
    mean, error = float(held_out[known].mean()), float(held_out[known].std() / np.sqrt(known.sum()))
    counts = NGram(texts(_some(split.train, COUNTING)))
    few = texts(_some(split.held_out, COUNTED))
    beside = {
        "n-gram model": float(np.mean([counted_bits(counts, smiles) for smiles in few])), "training molecules": float(np.mean(training)),
        "training molecules less held-out, standard error": float(np.hypot(error, training.std() / np.sqrt(len(training)))),
    }  # fmt: skip
    unknown = f", {int((~known).sum())} with tokens never seen left out" if not known.all() else ""
    check = Check(
        f"bits per held-out molecule{unknown}", mean, error, "below the n-gram model's", mean < beside["n-gram model"], beside
    )
    return [], [check]


def counted_bits(counts: NGram, smiles: str) -> float:
    """-log2 p(string) by an n-gram model; a token that it never saw, or saw nothing follow, costs as much as one in a million."""
    words, known = tokens.split(smiles), counts.vocabulary.number
    bits = 0.0
    for k, word in enumerate([*words, ""]):
        context = words[max(k - counts.context, 0) : k]
        law = counts.probabilities(context) if all(one in known for one in context) else {}
        bits -= float(np.log2(law.get(word, 0.0) or 1e-6))
    return bits


def figures(learner: writer.Writer, split: Split[Compounds], seed: int) -> list[Figure]:
    """Structures, properties and chemical space of nature and of what is drawn."""
    nature = _some(split.held_out, SHOWN)
    return pictures.figures(nature, learner.draw(nature, Noise(seed, range(len(nature)))), seed)


def _some(samples: Compounds, count: int) -> Compounds:
    return samples[:: max(len(samples) // count, 1)][:count]


study: Study[Any, Any] = Study(
    title="Drug-like molecules from a language model of SMILES",
    source="Ertl, Lewis, Martin, Polyakov 2017, arXiv:1712.07449",
    recipes={
        "quick": LstmRecipe(layers=1, steps=1200, batch=64, lr=5e-3, ema=0.98, warmup=20, draws=400, longest=80, threads=1),
        "laptop": LstmRecipe(steps=16_400, restart=10_000, corrected=400, batch=256, draws=10_000, threads=1),
        "paper": LstmRecipe(
            layers=2, dropout=0.3, lr=1e-3, steps=40_000, batch=256, ema=0.0, stereo=False, precision="float32", draws=10_000,
        ),
    },
    expect={
        "quick": "40 seconds of one core", "laptop": "ZINC: 80 to 150 minutes of one thread with bfloat16, about nine hours without",
        "paper": "hours; not run here",
    },
    load=load,
    build=writer.build,
    judge=statistics.judge,
    read=exchange.read,
    write=exchange.write,
    ask=ask,
    picture=pictures.picture,
    caption=pictures.caption,
    examine=examine,
    figures=figures,
    restore=writer.restore,
    conditions={},
    formats=exchange.FORMATS,
    export=exchange.export,
    line_formats=exchange.LINE_FORMATS,
    header=exchange.header,
    lines=exchange.lines,
    tally=exchange.tally,
    summary=exchange.summary,
    citation="""@misc{ertl2017silico,
  title = {In silico generation of novel, drug-like chemical matter using the LSTM neural network},
  author = {Ertl, Peter and Lewis, Richard and Martin, Eric and Polyakov, Valery},
  year = {2017},
  eprint = {1712.07449},
  archivePrefix = {arXiv},
}""",
)  # fmt: skip
