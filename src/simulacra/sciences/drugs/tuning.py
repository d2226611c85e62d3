"""A trained writer that goes on learning: from a few actives, or from many molecules written as fragments.

The loss is the likelihood of the strings, as in training, and with `guard` the divergence from the prior along molecules of its own: a
network that is shown five molecules a dozen times writes those five, and what it knew of chemistry goes. Every `look` steps the
validation molecules are scored, and the state that found them likeliest is the one that draws. Where there are none (a handful of
actives), the last state draws, and only the guard is between learning and forgetting.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from simulacra.descent import under
from simulacra.families import reinforce
from simulacra.sciences.drugs import asking, growing
from simulacra.sciences.drugs.asking import TransferRecipe
from simulacra.sciences.drugs.data import Compounds, texts
from simulacra.sciences.drugs.prior import Prior, shape_of, writer_from
from simulacra.sciences.drugs.tokens import PAD, START, Vocabulary
from simulacra.sciences.drugs.writer import BITS, Writer, randomised
from simulacra.study import Noise

GUARDED = 512  # molecules of the prior that its law is kept on
AT_ONCE = 16  # of them in a step
VALIDATED = 512  # validation molecules that are scored at a look, at most
LINK = (".",)  # what strings of linked fragments hold beside the tokens of molecules


class Tuner:
    """A writer that learns, the state that it draws from, and the prior that it came from."""

    def __init__(self, recipe: TransferRecipe, writer: Writer, prior: Any | None, validation: Sequence[str]) -> None:
        self.recipe, self.writer = recipe, writer
        self.prior: Any = prior  # a model of the prior's law, or None
        self.kept = copy.deepcopy(writer.descent.average).requires_grad_(False).eval()
        self.best = math.inf  # bits per validation molecule
        self.steps = 0
        self.validation = self._encoded(self._spelled_once(validation[:VALIDATED]))
        self.own = self._drawn_by_prior() if prior is not None and recipe.guard else None
        self.looking = bool(len(self.validation)) and recipe.keep and not recipe.corrected  # corrections cost likelihood

    def _encoded(self, smiles: Sequence[str]) -> Tensor:
        return self.writer.vocabulary.encoded(smiles).to(self.writer.device)

    def _spelled_once(self, smiles: Sequence[str]) -> list[str]:
        """Validation molecules in the ways of writing that training has, the same in every run: a state that is good at fragments must not
        be passed over because it forgot canonical strings."""
        if not self.recipe.fragments and not self.recipe.randomised:
            return list(smiles)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.spelled(smiles)

    def _drawn_by_prior(self) -> Tensor:
        """Molecules of the prior as tokens: those that ended."""
        drawn = self.writer.sampled(range(GUARDED), seed=self.recipe.seed, model=self.prior, dtype=self.writer.dtype)
        rows = drawn.tokens[drawn.ended]
        return torch.cat([torch.full((len(rows), 1), START, device=rows.device), rows], 1)

    # --- training ---

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        writer, recipe = self.writer, self.recipe
        tokens = self._encoded(self.spelled(texts(batch)))
        module: Any = writer.descent.module
        module.train()
        usual = recipe.batch * writer.mean_length
        loss = writer.log_loss(module, tokens).sum() / usual
        share = float((tokens[:, 1:] != PAD).sum()) / usual
        told = {"nats per token": loss.detach() / share}
        if self.own is not None:
            forgotten = self._forgotten(module)
            told["forgotten"] = forgotten.detach()
            loss = loss + recipe.guard * forgotten
        if writer.correcting:
            correction, told["molecules among own strings"] = writer.correction(self._beginnings(texts(batch)) if recipe.fragments else ())
            loss = loss + correction
        told["gradient"] = writer.descent(loss)
        self.steps += 1
        if self.looking and (self.steps % recipe.look == 0 or self.steps == recipe.steps):
            self._look()
        if self.looking:
            told["validation bits"] = torch.tensor(self.best if math.isfinite(self.best) else 0.0)
        return told

    def spelled(self, smiles: Sequence[str]) -> list[str]:
        """Training strings: canonical, begun at a random atom, or as a fragment and the rest."""
        recipe, known = self.recipe, self.writer.vocabulary.number
        dice, seeds = torch.rand(len(smiles), 2).tolist(), torch.randint(1, 2**31 - 1, (len(smiles),)).tolist()
        out = []
        for text, (which, link), seed in zip(smiles, dice, seeds, strict=True):
            if which < recipe.fragments:
                out.append(growing.for_training(text, seed, link=link < recipe.links and "." in known)[0])
            elif which < recipe.fragments + (1 - recipe.fragments) * recipe.randomised:
                out.append(randomised(text, seed))
            else:
                out.append(text)
        return [one if self._known(one) else text for one, text in zip(out, smiles, strict=True)]

    def _beginnings(self, smiles: Sequence[str]) -> list[str]:
        """A fragment of each molecule, or two that are to be linked, as the beginnings of strings; "" where it has none."""
        link = (torch.rand(len(smiles)) < self.recipe.links).tolist() if "." in self.writer.vocabulary.number else [False] * len(smiles)
        seeds = torch.randint(1, 2**31 - 1, (len(smiles),)).tolist()
        begun = [growing.for_training(text, seed, link=tied)[1] for text, seed, tied in zip(smiles, seeds, link, strict=True)]
        return [text if self._known(text) else "" for text in begun]

    def _known(self, text: str) -> bool:
        """Whether another way of writing a molecule needs no token that its canonical string does without, and is not too long."""
        words = Vocabulary.of([text], self.writer.vocabulary.notation).tokens
        return all(word in self.writer.vocabulary.number for word in words)

    def _forgotten(self, module: Any) -> Tensor:
        """Divergence from the prior per token, along some of its own molecules."""
        assert self.own is not None
        rows = self.own[torch.randint(len(self.own), (AT_ONCE,))]
        rows = rows[:, : int((rows != PAD).sum(1).max())]
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.writer.dtype == torch.bfloat16):
            with torch.no_grad():
                before = self.prior(rows[:, :-1])
            now = module(rows[:, :-1])
        return reinforce.divergence(before, now, rows).sum() / (rows[:, 1:] != PAD).sum()

    @torch.no_grad()
    def _look(self) -> None:
        """Keep the averaged weights where the validation molecules never were likelier."""
        bits = float(self.writer.log_loss(self.writer.descent.average, self.validation).mean()) * BITS
        if bits < self.best:
            self.best = bits
            self.kept.load_state_dict(self.writer.descent.average.state_dict())

    # --- drawing ---

    @property
    def model(self) -> Any:
        """What draws."""
        return self.kept if self.looking and math.isfinite(self.best) else self.writer.descent.average

    def at_once(self, like: Compounds) -> int:
        """Rows of a block."""
        return self.writer.at_once(like)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """New molecules; where a row of `like` has a prompt, that fragment grown."""
        return asking.draw(self.writer, self.model, like, noise)

    def score(self, samples: Compounds) -> Tensor:
        """-log2 p(string) in bits: high for molecules unlike those of training; infinite where a token was never seen."""
        return self.writer.score(samples)

    def ask(self, n: int, conditions: Mapping[str, str]) -> Compounds:
        """A template of n rows."""
        return asking.ask(self.writer, n, conditions)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        kept = {f"kept.{k}": v for k, v in self.kept.state_dict().items()} if self.looking else {}
        best = torch.tensor(min(self.best, 1e9), dtype=torch.float64)
        return {**self.writer.state_dict(), **kept, "best": best, "steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.writer.load_state_dict(state)
        if self.looking:
            self.kept.load_state_dict(under(state, "kept"))
        best = float(state["best"])
        self.best, self.steps = best if best < 1e9 else math.inf, int(state["steps"])

    def to_ship(self) -> dict[str, Tensor]:
        """The weights that draw, in bfloat16, and the vocabulary."""
        drawing = {f"average.{k}": v.to(torch.bfloat16) for k, v in self.model.state_dict().items()}
        return {**drawing, "vocabulary": self.writer.vocabulary.state(), "mean_length": torch.tensor(self.writer.mean_length)}


def build(recipe: TransferRecipe, prior: Prior | None, training: Sequence[str], validation: Sequence[str]) -> Tuner:
    """A tuner that begins as `prior`, or, where there is none, from nothing, with the vocabulary of the training molecules."""
    further = LINK if recipe.fragments and recipe.links and recipe.notation == "smiles" else ()
    if prior is not None:
        writer = writer_from(prior, recipe, further)
        model = writer_from(prior, recipe, further).descent.module.requires_grad_(False).eval()
        return Tuner(recipe, writer, model, validation)
    some = training[:: max(len(training) // 2000, 1)]
    ways = [growing.for_training(text, k + 1, link=link)[0] for k, text in enumerate(some) for link in (False, True)] if further else []
    vocabulary = Vocabulary.of([*training, *validation, *ways], recipe.notation)
    return Tuner(recipe, Writer(recipe, vocabulary, sum(len(vocabulary.numbers(s)) + 1 for s in some) / len(some)), None, validation)


class Drawer:
    """A trained writer that only draws: what `restore` makes of a state, tuned or led by a score."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        """It does not learn."""
        raise RuntimeError("weights that were restored to draw from do not go on learning; `simulacra resume` does, from a run folder")

    def at_once(self, like: Compounds) -> int:
        """Rows of a block."""
        return self.writer.at_once(like)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """New molecules; where a row of `like` has a prompt, that fragment grown."""
        return asking.draw(self.writer, self.writer.descent.average, like, noise)

    def score(self, samples: Compounds) -> Tensor:
        """-log2 p(string) in bits."""
        return self.writer.score(samples)

    def ask(self, n: int, conditions: Mapping[str, str]) -> Compounds:
        """A template of n rows."""
        return asking.ask(self.writer, n, conditions)

    def state_dict(self) -> dict[str, Tensor]:
        return self.writer.to_ship()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.writer.descent.average.load_state_dict({k: v.float() for k, v in under(state, "average").items()})


def restore(recipe: TransferRecipe, state: Mapping[str, Tensor]) -> Drawer:
    """A writer that draws, from a state or from shipped weights: as large as they are."""
    model = {k: v.float() for k, v in (under(state, "kept") or under(state, "average") or under(state, "weights")).items()}
    vocabulary = Vocabulary.from_state(state["vocabulary"])
    writer = Writer(recipe.model_copy(update=shape_of(model)), vocabulary, float(state["mean_length"]))
    writer.descent.average.load_state_dict(model)
    return Drawer(writer)
