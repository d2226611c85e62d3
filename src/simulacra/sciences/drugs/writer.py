"""A learner that writes molecules: a recurrent language model of SMILES, trained by the likelihood of strings, drawn from token by token.

`drugs.lstm` trains one from nothing, `drugs.transfer` goes on from a trained one. Rows of a batch are about equally long (their bucket,
data.py); what padding remains is no part of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from rdkit import Chem
from torch import Tensor

from simulacra.descent import Descent, under
from simulacra.families import sequence
from simulacra.nets.language import LanguageModel
from simulacra.sciences.drugs import properties
from simulacra.sciences.drugs.data import Compounds, as_bytes, prompts, texts
from simulacra.sciences.drugs.tokens import PAD, Notation, Vocabulary
from simulacra.study import Noise, Recipe, Refused
from simulacra.training import device_of, dtype_of

ROWS = 10_000  # of one block of a draw: so many strings are held, however many are asked for
OWN = 256  # strings of its own that a step looks at for mistakes
CORRECTED_EMA = 0.99  # memory of the weight average meanwhile: these steps are few
SCORED = 256  # strings whose likelihood is computed together
BITS = 1.4426950408889634  # of one nat


class StringRecipe(Recipe):
    """A language model of strings."""

    simulated: PositiveInt = Field(4000, description="Molecules to make by rule where no data are given.")
    longest: int = Field(100, ge=8, le=500, description="Tokens of the longest string that is read or written, its end included.")
    stereo: bool = Field(True, description="Whether strings tell stereochemistry; False: flat molecules.")
    strict: bool = Field(False, description="Stop at the first record of a file that cannot be used, instead of setting it aside.")
    notation: Notation = Field(
        "smiles", description="How molecules are written: smiles; kekule, without aromatic atoms; selfies, always valid."
    )
    embedding: PositiveInt = Field(64, description="Numbers per token.")
    hidden: PositiveInt = Field(256, description="Numbers in each layer's state.")
    layers: PositiveInt = Field(3, description="Layers of the LSTM.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each layer's output that is left out in training.")
    lr: float = Field(2e-3, gt=0, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    restart: int = Field(0, ge=0, description="Step at which the learning rate begins to fall once more, from half its height; 0: never.")
    corrected: int = Field(0, ge=0, description="Last steps, in which strings of its own that are no molecules are made less likely.")
    correction: float = Field(8.0, gt=0, le=100, description="Weight of such strings against those of training.")
    warmup: int = Field(200, ge=0, description="Steps over which the learning rate rises.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay per step of the weight average that draws; 0: the last weights.")
    randomised: float = Field(0.0, ge=0, le=1, description="Share of training strings that begin at a random atom.")
    temperature: float = Field(
        1.0, gt=0, le=3, description="Of drawing: below 1 likelier strings, and less diverse ones.", json_schema_extra={"drawing": True}
    )
    slots: int = Field(
        256, ge=1, le=16384, description="Strings that are written at the same time when drawing.", json_schema_extra={"drawing": True}
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Of matrix products; auto: bfloat16 where the processor has it; int8 (x86, drawing only): eight bits.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip


def falls(recipe: StringRecipe) -> list[tuple[int, float]]:
    """When the learning rate of a recipe begins to fall once more, and from which share of its height."""
    again = [(recipe.restart, 0.5), (recipe.steps - recipe.corrected, 0.1)]
    return [(step, share) for step, share in again if 0 < step < recipe.steps]


def drawn_in(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products in drawing that a recipe's `precision` names. Refused for int8 where the machine has none."""
    if precision != "int8":
        return dtype_of(precision, device)
    if device.type != "cpu" or not sequence.draws_in_eight_bits():
        raise Refused("precision int8 needs an x86 processor and oneDNN in torch; --precision auto draws on any machine")
    return torch.int8


class Writer:
    """The model, its vocabulary and its training."""

    def __init__(self, recipe: StringRecipe, vocabulary: Vocabulary, mean_length: float) -> None:
        self.recipe, self.vocabulary, self.mean_length = recipe, vocabulary, mean_length
        self.device = device_of(recipe.device)
        self.dtype = dtype_of(recipe.precision, self.device)
        model = LanguageModel(
            len(vocabulary), embedding=recipe.embedding, hidden=recipe.hidden, layers=recipe.layers, dropout=recipe.dropout
        ).to(self.device)
        self.descent = Descent(
            model, lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema, warmup=min(recipe.warmup, recipe.steps // 10),
            horizon=recipe.steps, restarts=falls(recipe),
        )  # fmt: skip

    # --- training ---

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        """One gradient of the likelihood of strings; in the last steps, where the recipe has it so, of that and of own mistakes."""
        tokens = self.vocabulary.encoded(self.spelled(texts(batch))).to(self.device)
        # Divided by the tokens of a usual batch, not of this one: the few strings of a rare length must not weigh like many.
        loss = self.log_loss(self.descent.module, tokens).sum() / (self.recipe.batch * self.mean_length)
        share = float((tokens[:, 1:] != PAD).sum()) / (self.recipe.batch * self.mean_length)
        told = {"nats per token": loss.detach() / share}
        if self.correcting:
            correction, told["molecules among own strings"] = self.correction()
            loss = loss + correction
        return {**told, "gradient": self.descent(loss)}

    @property
    def correcting(self) -> bool:
        """Whether the coming step is one of the last, in which own mistakes are made less likely."""
        return self.recipe.corrected > 0 and self.descent.count >= self.recipe.steps - self.recipe.corrected

    def correction(self, begun: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """What to add to the loss in a step that corrects, and the share of molecules among own strings; these go on from `begun`, one from
        each, or are whole ones. Meanwhile the weight average forgets faster."""
        self.descent.ema = min(self.recipe.ema, CORRECTED_EMA)
        valid, likelihood = self.mistakes(begun)
        return self.recipe.correction * likelihood, torch.tensor(valid)

    def mistakes(self, begun: Sequence[str] = ()) -> tuple[float, Tensor]:
        """Share of molecules among strings that the network writes as it is now, and the log-likelihood of what it wrote of those that are
        none, summed and divided by the tokens of all: less of it is more of that share, whose gradient it estimates as a policy's
        (Williams 1992, Mach. Learn. 8:229) with 1 as the baseline, so that only mistakes are read."""
        n = len(begun) or OWN
        rows, model = range(self.descent.count * n, (self.descent.count + 1) * n), self.descent.module
        prompt = self._begun(begun) if any(begun) else None
        # By other numbers than the finished network draws by, and in the precision that it learns in.
        drawn = self.sampled(rows, seed=-1 - self.recipe.seed, prompt=prompt, model=model, dtype=self.dtype)
        wrong = [i for i, text in enumerate(self.vocabulary.decoded(drawn.tokens)) if properties.molecule(text) is None]
        if not wrong:
            return 1.0, torch.zeros((), device=self.device)
        tokens = torch.cat([torch.full_like(drawn.tokens[wrong, :1], sequence.START), drawn.tokens[wrong]], 1)
        own = tokens.clone()
        if prompt is not None:
            given = prompt[wrong, : tokens.shape[1] - 1] != PAD
            own[:, 1 : 1 + given.shape[1]][given] = PAD
        return 1 - len(wrong) / n, -self.log_loss(model, tokens, own).sum() / (n * self.mean_length)

    def spelled(self, smiles: Sequence[str]) -> list[str]:
        """Training strings, some of them begun at a random atom."""
        chosen = torch.rand(len(smiles)) < self.recipe.randomised
        seeds = torch.randint(2**31 - 1, (len(smiles),)).tolist()
        return [randomised(s, seed) if turn else s for s, seed, turn in zip(smiles, seeds, chosen.tolist(), strict=True)]

    def log_loss(self, model: Any, tokens: Tensor, counted: Tensor | None = None) -> Tensor:
        """-log p of each string (n,), in nats; of those tokens only that are not PAD in `counted`, where it is given."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = model(tokens[:, :-1])
        return sequence.log_loss(logits, tokens if counted is None else counted)

    # --- drawing ---

    def at_once(self, like: Compounds) -> int:
        """Rows of a block: as few blocks as possible, all of one size. A row comes out alike in any of them."""
        blocks = max(-(-len(like) // ROWS), 1)
        return max(-(-len(like) // blocks), 1)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """New molecules, as strings. Where a row of `like` has a prompt, its string begins with it."""
        given = prompts(like)
        begun = self._begun(given) if any(given) else None
        drawn = self.sampled(noise.rows[: len(like)], seed=noise.seed, prompt=begun)
        return Compounds(as_bytes(self.vocabulary.decoded(drawn.tokens)), like.prompt.cpu(), like.wish.cpu())

    def sampled(
        self, rows: Sequence[int], *, seed: int, prompt: Tensor | None = None, model: Any = None,
        allowed: Callable[[Tensor, Tensor], Tensor] | None = None, dtype: torch.dtype | None = None,
    ) -> sequence.Drawn:  # fmt: skip
        """Token numbers of one string for each of the row numbers, by another model of the same kind, and in another type of products than
        the recipe's, where they are given."""
        recipe = self.recipe
        network: Any = self.descent.average if model is None else model
        dtype = drawn_in(recipe.precision, self.device) if dtype is None else dtype
        return sequence.draw(
            network, rows, seed=seed, longest=recipe.longest, slots=recipe.slots, temperature=recipe.temperature, dtype=dtype,
            prompt=prompt, allowed=allowed,
        )  # fmt: skip

    def _begun(self, given: Sequence[str]) -> Tensor:
        rows = [self.vocabulary.numbers(one) for one in given]
        width = max(map(len, rows))
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], device=self.device)

    @torch.no_grad()
    def score(self, samples: Compounds) -> Tensor:
        """-log2 p(string) in bits: high for molecules unlike those of training; infinite where a token was never seen."""
        found = []
        for smiles in texts(samples):
            try:
                found.append(self.vocabulary.numbers(smiles) if smiles else None)
            except Refused:
                found.append(None)
        scores = torch.full((len(found),), torch.inf)
        known = sorted((i for i, numbers in enumerate(found) if numbers is not None), key=lambda i: len(found[i] or ()))
        for start in range(0, len(known), SCORED):
            rows = known[start : start + SCORED]
            tokens = self._padded([found[i] or [] for i in rows])
            scores[rows] = self.log_loss(self.descent.average, tokens).cpu() * BITS
        return scores

    def _padded(self, rows: Sequence[list[int]]) -> Tensor:
        width = max(map(len, rows)) + 2
        return torch.tensor([[sequence.START, *row, sequence.END] + [PAD] * (width - 2 - len(row)) for row in rows], device=self.device)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.descent.state_dict(), "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights in half the room (bfloat16: they are drawn with in that precision anyway), and the vocabulary."""
        average = {f"average.{k}": v.to(torch.bfloat16) for k, v in self.descent.average.state_dict().items()}
        return {**average, "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}


def build(recipe: StringRecipe, training: Compounds) -> Writer:
    """A writer with the vocabulary of the training molecules."""
    strings = texts(training)
    vocabulary = Vocabulary.of(strings, recipe.notation)
    some = strings[:: max(len(strings) // 2000, 1)]
    return Writer(recipe, vocabulary, sum(len(vocabulary.numbers(s)) + 1 for s in some) / len(some))


def restore(recipe: StringRecipe, state: Mapping[str, Tensor]) -> Writer:
    """The writer that `to_ship` or `state_dict` describes, to draw with."""
    writer = Writer(recipe, Vocabulary.from_state(state["vocabulary"]), float(state["mean_length"]))
    weights = under(state, "average") or under(state, "weights")
    writer.descent.average.load_state_dict({k: v.float() for k, v in weights.items()})
    return writer


def randomised(smiles: str, seed: int) -> str:
    """The same molecule written from a random atom on; the string itself where RDKit cannot read it."""
    mol = Chem.MolFromSmiles(smiles)
    return smiles if mol is None else str(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0])
