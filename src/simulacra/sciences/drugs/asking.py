"""What can be asked of a writer that grows fragments, and how it completes them.

    fragment=c1ccc(*)cc1            grown at the attachment point; several, separated by commas, are spread over the rows

See growing.py for what a fragment is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra.sciences.drugs import data, growing
from simulacra.sciences.drugs.data import Compounds
from simulacra.sciences.drugs.properties import flat
from simulacra.sciences.drugs.tokens import END, PAD, UnknownToken
from simulacra.sciences.drugs.writer import StringRecipe, Writer
from simulacra.study import Noise, Refused

CONDITIONS: Mapping[str, str] = {
    "fragment": "SMILES with * where it is to be grown: c1ccc(*)cc1; several * decorate; two parts with one * each are linked, "
    "c1ccc(*)cc1.*N1CCOCC1; several fragments, separated by commas, are spread over the draws",
}
ROOM = 8  # tokens that must be left for what is grown
TRIED = 4  # ways of writing a fragment that are looked at before it is drawn


class TransferRecipe(StringRecipe):
    """What a trained language model of molecules is made to write."""

    prior: str = Field("", description="Model to begin with: run folder or folder of weights; empty: the weights that ship.")
    known: str = Field("", description="File of further known actives, held out: how many of them are drawn says what tuning is worth.")
    fragments: float = Field(0.0, ge=0, le=1, description="Share of training strings written as a fragment and the rest.")
    links: float = Field(0.4, ge=0, le=1, description="Share of those that are written as two fragments and what links them.")
    guard: float = Field(0.0, ge=0, le=100, description="Weight of the divergence from the prior on its own molecules, against forgetting.")
    look: PositiveInt = Field(20, description="Steps between looks at the validation molecules; the best state is kept.")
    keep: bool = Field(True, description="Draw from the state with the best validation likelihood; false: from the last.")
    searched: PositiveInt = Field(2000, description="Molecules drawn, tuned and untuned, to look for held-out actives.")
    score: str = Field("", description="Goal: a score of scores.py, e.g. qed, or module:function that you --trust; empty: learn from data.")
    sigma: float = Field(500.0, gt=0, le=10_000, description="Weight of the score against the prior's log-likelihood.")
    calls: PositiveInt = Field(10_000, description="Different molecules that are scored; then learning ends.")
    replay: int = Field(24, ge=0, description="Strings of the memory that are learned from in each step.")
    memory: int = Field(100, ge=1, description="Best strings that are kept for replay.")
    bucket: int = Field(25, ge=0, description="Molecules of one scaffold that earn a score; 0: no limit.")
    minimum: float = Field(0.4, ge=0, le=1, description="Score from which a molecule counts for its scaffold.")


def ask(writer: Writer | None, n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows. Refused for a fragment that is none, or that this writer cannot grow, with what it could."""
    unknown = sorted(set(conditions) - set(CONDITIONS))
    if unknown:
        raise Refused(f"drugs.transfer cannot be asked for {', '.join(unknown)}; known: {', '.join(CONDITIONS)}")
    if n < 1:
        raise Refused(f"{n} molecules asked for; expected one or more")
    if "fragment" not in conditions:
        return data.empty(n)
    asked = [growing.fragment(text) for text in conditions["fragment"].split(",")]
    for one in asked if writer is not None else ():
        assert writer is not None
        check(writer, one)
    rows = np.arange(n) * len(asked) // n
    return data.compounds([""] * n, [asked[i].text for i in rows.tolist()])


def check(writer: Writer, asked: growing.Fragment) -> None:
    """Refused where the writer has no way of writing what stands before the growth."""
    name, known = asked.text, writer.vocabulary
    if known.notation != "smiles":
        raise Refused(
            f"these weights write {known.notation}, and fragments are grown in plain SMILES; draw from weights that were trained on those"
        )
    if asked.linking and "." not in known.number:
        raise Refused(
            f"fragment {name!r}: these weights never saw two fragments and what links them; draw from the weights that ship for "
            "drugs.transfer, or train with --fragments 0.5 (recipe grow). One fragment can be grown"
        )
    for seed in range(TRIED):
        prompt = growing.begun(asked).prompt(seed)[0]
        try:
            length = len(known.numbers(prompt))
        except UnknownToken as error:
            raise Refused(f"fragment {name!r}: {error}; these weights know {', '.join(known.tokens[3:])}") from None
        if length > writer.recipe.longest - ROOM:
            raise Refused(
                f"fragment {name!r} takes {length} tokens, and these weights write at most {writer.recipe.longest - 1}, growth included; "
                "ask for a smaller one"
            )


def draw(writer: Writer, model: Any, like: Compounds, noise: Noise) -> Compounds:
    """New molecules by `model`; where a row of `like` has a prompt, that fragment grown, or nothing where it could not be. A molecule
    that was written as two linked parts is written as one."""
    given = data.prompts(like)
    rows = list(noise.rows[: len(like)])
    out = [""] * len(like)
    free = [i for i, text in enumerate(given) if not text]
    if free:
        drawn = writer.sampled([rows[i] for i in free], seed=noise.seed, model=model)
        for i, text in zip(free, writer.vocabulary.decoded(drawn.tokens), strict=True):
            out[i] = growing.joined(text) if "." in text else text
    bound = [i for i, text in enumerate(given) if text]
    if bound:
        asked = {text: growing.fragment(text) for text in dict.fromkeys(given) if text}
        made = growing.grow([asked[given[i]] for i in bound], [rows[i] for i in bound], completion(writer, model), seed=noise.seed)
        for i, text in zip(bound, made, strict=True):
            out[i] = text
    return Compounds(data.as_bytes(out), like.prompt.cpu(), like.wish.cpu())


def completion(writer: Writer, model: Any) -> growing.Complete:
    """How `model` goes on from prompts: bound to the last atom by one single bond, all in one piece. A prompt with a token that it does
    not know is not gone on from: nothing comes back."""
    words = writer.vocabulary.tokens[END:]
    whole = torch.tensor([word != "." for word in words], device=writer.device)
    atom = torch.tensor([word[0].isalpha() or word[0] == "[" for word in words], device=writer.device)
    first = atom | torch.tensor([word in ("-", "/", "\\") for word in words], device=writer.device)

    def complete(prompts: Sequence[str], rows: Sequence[int], seed: int) -> list[str]:
        known, numbers = [], []
        for i, prompt in enumerate(prompts):
            try:
                row = writer.vocabulary.numbers(prompt)
            except UnknownToken:
                continue
            if len(row) < writer.recipe.longest - 1:
                known.append(i)
                numbers.append(row)
        out = [""] * len(prompts)
        if not known:
            return out
        length = torch.tensor([len(row) for row in numbers], device=writer.device)
        begun = torch.tensor([row + [PAD] * (int(length.max()) - len(row)) for row in numbers], device=writer.device)
        bare = torch.tensor([prompts[i][-1] in "/\\" for i in known], device=writer.device)  # the bond is written: an atom follows

        def allowed(place: Tensor, position: Tensor) -> Tensor:
            at_first = torch.where(bare[place][:, None], atom, first)
            return torch.where((position == length[place])[:, None], at_first, whole)

        drawn = writer.sampled([rows[i] for i in known], seed=seed, prompt=begun, model=model, allowed=allowed)
        for i, text in zip(known, writer.vocabulary.decoded(drawn.tokens), strict=True):
            out[i] = text
        return out

    return complete


def summary(asked: Compounds, drawn: Compounds) -> list[str]:
    """How many of the fragments that were asked for were grown, and into how many different molecules."""
    given, texts = data.prompts(asked), data.texts(drawn)
    lines = []
    for name in dict.fromkeys(text for text in given if text):
        one, rows = growing.fragment(name), [text for text, prompt in zip(texts, given, strict=True) if prompt == name]
        good = [text for text in rows if text and growing.kept(one, text)]
        what = "linked" if one.linking else "grown"
        lines.append(
            f"{len(good)} of {len(rows)} are {name} {what} at every * and nowhere else, {len(set(map(flat, good)))} different molecules; "
            f"{len(rows) - len(good)} could not be {what} in {growing.ATTEMPTS} tries and are left empty"
        )
    return lines
