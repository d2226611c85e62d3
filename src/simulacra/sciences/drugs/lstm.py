"""Drug-like molecules as SMILES strings, written by a recurrent network (Ertl, Lewis, Martin, Polyakov 2017, arXiv:1712.07449).

The network reads a string token by token and learns the law of the next token; drawn from, it writes molecules that nobody registered.

    laptop   3 x 256 LSTM, whole tokens, batches of equally long strings, bfloat16: what measured best in an hour of one core
    paper    2 x 256, one long schedule, dropout: the sizes of a widely used reimplementation of Gupta et al. (LSTM_Chem), because the
             abstract of Ertl et al. states none
    quick    2 x 128 on molecules made by rule

The abstract reports a million molecules in two hours, 139 a second (hardware not stated). The judge adds what it lacks: FCD, held-out
likelihood per molecule, and a memorisation ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulacra.sciences.drugs import data, exchange, pictures, statistics, writer
from simulacra.sciences.drugs.data import Compounds
from simulacra.study import Refused, Split, Study


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


study: Study[Any, Any] = Study(
    title="Drug-like molecules from a language model of SMILES",
    source="Ertl, Lewis, Martin, Polyakov 2017, arXiv:1712.07449",
    recipes={
        "quick": LstmRecipe(hidden=128, layers=2, steps=400, batch=64, lr=4e-3, ema=0.98, warmup=20, draws=400, longest=80, threads=1),
        "laptop": LstmRecipe(steps=10_000, batch=256, draws=10_000, threads=1),
        "paper": LstmRecipe(
            layers=2, dropout=0.3, lr=1e-3, steps=40_000, batch=256, ema=0.0, stereo=False, precision="float32", draws=10_000,
        ),
    },
    expect={"quick": "", "laptop": "", "paper": ""},
    load=load,
    build=writer.build,
    judge=statistics.judge,
    read=exchange.read,
    write=exchange.write,
    ask=ask,
    picture=pictures.picture,
    caption=pictures.caption,
    restore=writer.restore,
    conditions={},
    formats=exchange.FORMATS,
    export=exchange.export,
    line_formats=exchange.LINE_FORMATS,
    header=exchange.header,
    lines=exchange.lines,
    summary=exchange.summary,
    citation="""@misc{ertl2017silico,
  title = {In silico generation of novel, drug-like chemical matter using the LSTM neural network},
  author = {Ertl, Peter and Lewis, Richard and Martin, Eric and Polyakov, Valery},
  year = {2017},
  eprint = {1712.07449},
  archivePrefix = {arXiv},
}""",
)  # fmt: skip
