"""The trained language model that a transfer begins with: found by name, read without running anything, put into a writer.

It is a run folder of `drugs.lstm` or `drugs.transfer`, finished or not, a folder of shipped weights, or the name of a study whose
weights ship with the package. Only numbers and strings are read (safetensors, JSON): a folder cannot choose code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simulacra import weights
from simulacra.descent import under
from simulacra.runs import Damaged, Run
from simulacra.sciences.drugs.tokens import Vocabulary
from simulacra.sciences.drugs.writer import StringRecipe, Writer
from simulacra.study import Refused

STUDIES = ("drugs.lstm", "drugs.transfer")
SHAPES = ("embedding", "hidden", "layers")  # fields of a recipe that weights decide


@dataclass(frozen=True)
class Prior:
    """A trained model, and what must be known of it."""

    name: str  # where it comes from, for people
    digest: str  # sha256 of its weights
    longest: int  # tokens that it was trained to write, the end included
    stereo: bool
    vocabulary: Vocabulary
    mean_length: float  # of its training strings
    state: Mapping[str, Tensor]

    def sentence(self) -> str:
        """What it is, in one line."""
        return f"prior: {self.name}, {len(self.vocabulary) - 3} tokens, sha256 {self.digest[:12]}"


def find(name: str, order: Sequence[str] = STUDIES) -> Prior | None:
    """The prior that a recipe names; where it names none, the weights that ship for the first study of `order` that has some, or None.
    Refused or Damaged where there is no such model."""
    if not name:
        shipped = next((study for study in order if study in weights.names()), None)
        return None if shipped is None else _of_weights(weights.find(shipped), f"weights that ship for {shipped}")
    path = Path(name)
    if (path / weights.CARD).is_file():
        return _of_weights(weights.read(path), str(path))
    if path.is_dir():
        run = Run.open(path)
        about = run.about()
        step, state = run.state()
        return _of(about.get("study"), about.get("recipe"), state, f"run {path}, step {step:,}")
    if name in weights.names():
        return _of_weights(weights.find(name), f"weights that ship for {name}")
    raise Refused(
        f"prior {name!r} is neither a run folder nor a folder of shipped weights; expected a run of {' or '.join(STUDIES)} "
        "(`simulacra run drugs.lstm --recipe laptop --data molecules.smi` makes one)"
    )


def _of_weights(shipped: weights.Shipped, name: str) -> Prior:
    return _of(shipped.study, shipped.card["recipe"], shipped.state(), name)


def _of(study: Any, recipe: Any, state: Mapping[str, Tensor], name: str) -> Prior:
    if study not in STUDIES:
        raise Refused(f"{name} is of the study {study!r}; a prior is a run of {' or '.join(STUDIES)}")
    try:
        model = under(state, "kept") or under(state, "average") or under(state, "weights")
        vocabulary = Vocabulary.from_state(state["vocabulary"])
        if model["embedding.weight"].shape[0] != len(vocabulary) or vocabulary.notation == "characters":
            raise ValueError("weights and vocabulary do not belong together")
        found = {key: value.float() for key, value in model.items()}
        longest, stereo, mean = int(recipe["longest"]), bool(recipe["stereo"]), float(state["mean_length"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{name} does not hold a language model of molecules ({error})") from error
    digest = hashlib.sha256()
    for key in sorted(model):
        digest.update(key.encode() + model[key].contiguous().view(torch.uint8).numpy().tobytes())
    return Prior(name, digest.hexdigest(), longest, stereo, vocabulary, mean, found)


def shape_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The recipe's fields that a model's weights decide."""
    hidden = state["lstm.weight_hh_l0"].shape[1]
    layers = sum(name.startswith("lstm.weight_hh_l") for name in state)
    return {"embedding": state["embedding.weight"].shape[1], "hidden": hidden, "layers": layers}


def writer_from(prior: Prior, recipe: StringRecipe, further: Sequence[str] = ()) -> Writer:
    """A writer that begins as the prior, with room for `further` tokens: their embeddings begin at 0, and at first they hardly occur."""
    new = [token for token in further if token not in prior.vocabulary.number]
    vocabulary = Vocabulary([*prior.vocabulary.tokens[3:], *new], prior.vocabulary.notation)
    writer = Writer(recipe.model_copy(update=shape_of(prior.state)), vocabulary, prior.mean_length)
    state = dict(prior.state)
    if new:
        for name, value in (("embedding.weight", 0.0), ("out.weight", 0.0), ("out.bias", -12.0)):
            room = state[name].new_full((len(new), *state[name].shape[1:]), value)
            state[name] = torch.cat([state[name], room])
    for model in (writer.descent.module, writer.descent.average):
        model.load_state_dict(state)
    return writer
