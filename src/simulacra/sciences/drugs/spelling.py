"""From a fingerprint, and wished properties, to a molecule: a language model of SMILES that begins in a state made of both.

The published autoencoder ends at the fingerprint. Here p(string | keys, wishes) is learned beside it: an LSTM (nets/language.py) whose
first state, and BESIDE numbers that stand beside every token, a small dense network makes from the keys, the wishes in standard deviations
(0 where there is none) and which of them are told. In training each string's own keys and properties are told; wishes are left out at
random, so that any of them may be missing later.

It may begin as a language model that was trained without conditions (`Speller.begin_as`): the dense network says nothing at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.families import sequence
from simulacra.nets.language import LanguageModel, State
from simulacra.sciences.drugs.data import WISHES
from simulacra.sciences.drugs.fingerprints import KEYS
from simulacra.sciences.drugs.tokens import PAD, Vocabulary
from simulacra.sciences.drugs.writer import StringRecipe, drawn_in, falls, randomised
from simulacra.training import device_of, dtype_of

TOLD = KEYS + 2 * len(WISHES)  # numbers that the first state is made from
BESIDE = 32
BLOCK = 256  # rows that go through a dense network together: always as many, so that a row does not depend on how many there are


def told(bits: Tensor, wish: Tensor) -> Tensor:
    """What the model is told (n, TOLD): keys (n, KEYS), wishes (n, len(WISHES)) in standard deviations with nan where there is none."""
    known = ~wish.isnan()
    return torch.cat([bits.float(), wish.nan_to_num(0.0), known.float()], 1)


def in_blocks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = BLOCK) -> Tensor:
    """function(rows) in blocks of always `size` rows, the last one filled up: matrix products of another size round differently."""
    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        full = F.pad(part, (0, 0) * (rows.ndim - 1) + (0, size - len(part)))
        parts.append(function(full)[: len(part)])
    return torch.cat(parts)


class Spelling(nn.Module):
    """Tokens (n, t) and what is told (n, TOLD) -> logits of each next token (n, t, vocabulary)."""

    def __init__(self, recipe: StringRecipe, vocabulary: int, width: int) -> None:
        """`width`: of the hidden layer of the network that makes the conditions."""
        super().__init__()
        self.language = LanguageModel(
            vocabulary, embedding=recipe.embedding, hidden=recipe.hidden, layers=recipe.layers, dropout=recipe.dropout, beside=BESIDE
        )
        last = nn.Linear(width, 2 * recipe.layers * recipe.hidden + BESIDE)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.about = nn.Sequential(nn.Linear(TOLD, width), nn.ReLU(), last)
        self.layers, self.hidden = recipe.layers, recipe.hidden

    def conditions(self, made: Tensor) -> tuple[State, Tensor]:
        """What `about` made, as a first state, hidden and cell (layers, n, hidden), and what stands beside every token (n, BESIDE). A
        hidden state lies between -1 and 1."""
        hidden, cell = made[:, BESIDE:].reshape(len(made), 2, self.layers, self.hidden).permute(1, 2, 0, 3)
        return (hidden.tanh().contiguous(), cell.contiguous()), made[:, :BESIDE]

    def forward(self, tokens: Tensor, about: Tensor) -> Tensor:
        state, beside = self.conditions(self.about(about))
        logits: Tensor = self.language(tokens, state, beside)
        return logits


class Speller:
    """The model, its vocabulary and its training."""

    def __init__(self, recipe: StringRecipe, vocabulary: Vocabulary, mean_length: float, width: int) -> None:
        self.recipe, self.vocabulary, self.mean_length = recipe, vocabulary, mean_length
        self.device = device_of(recipe.device)
        self.dtype = dtype_of(recipe.precision, self.device)
        model = Spelling(recipe, len(vocabulary), width).to(self.device)
        self.descent = Descent(
            model, lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema, warmup=min(recipe.warmup, recipe.steps // 10),
            horizon=recipe.steps, restarts=falls(recipe),
        )  # fmt: skip

    def begin_as(self, language: Mapping[str, Tensor]) -> None:
        """Take the weights of a language model of the same shape that was trained without conditions."""
        inputs = language["lstm.weight_ih_l0"]
        wider = {"lstm.weight_ih_l0": torch.cat([inputs, inputs.new_zeros(len(inputs), BESIDE)], 1)}
        for model in {id(m): m for m in (self.descent.module, self.descent.average)}.values():
            assert isinstance(model, Spelling)
            model.language.load_state_dict({**language, **wider})

    def step(self, smiles: Sequence[str], about: Tensor) -> dict[str, Tensor]:
        """One gradient on strings under what is told of each; a share of them, where the recipe asks for it, begun at a random atom."""
        if self.recipe.randomised:
            seeds, turned = torch.randint(2**31 - 1, (len(smiles),)).tolist(), (torch.rand(len(smiles)) < self.recipe.randomised).tolist()
            smiles = [randomised(one, seed) if turn else one for one, seed, turn in zip(smiles, seeds, turned, strict=True)]
        tokens = self.vocabulary.encoded(smiles).to(self.device)
        # Divided by the tokens of a usual batch, not of this one: the few strings of a rare length must not weigh like many.
        loss = self.log_loss(tokens, about, self.descent.module).sum() / (self.recipe.batch * self.mean_length)
        norm = self.descent(loss)
        share = (tokens[:, 1:] != PAD).sum() / (self.recipe.batch * self.mean_length)
        return {"nats per token": loss.detach() / share, "gradient": norm}

    def log_loss(self, tokens: Tensor, about: Tensor, model: nn.Module | None = None) -> Tensor:
        """-log p of each string under what is told, in nats (n,)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            logits = (model or self.descent.average)(tokens[:, :-1], about)
        return sequence.log_loss(logits, tokens)

    @torch.no_grad()
    def sampled(self, about: Tensor, rows: Sequence[int], *, seed: int, temperature: float) -> list[str]:
        """A string for each row of what is told; `rows` are the numbers that its chance belongs to."""
        model = self.descent.average
        assert isinstance(model, Spelling)
        state, beside = model.conditions(in_blocks(model.about, about))
        drawn = sequence.draw(
            model.language, rows, seed=seed, longest=self.recipe.longest, slots=self.recipe.slots, temperature=temperature,
            dtype=drawn_in(self.recipe.precision, self.device), state=state, beside=beside,
        )  # fmt: skip
        return self.vocabulary.decoded(drawn.tokens)

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.descent.state_dict(), "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights in eight bits, and the vocabulary."""
        average = {f"average.{k}": v for k, v in packed(self.descent.average.state_dict()).items()}
        return {**average, "vocabulary": self.vocabulary.state(), "mean_length": torch.tensor(self.mean_length)}

    def load_shipped(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights that draw, from `to_ship` or `state_dict`."""
        self.descent.average.load_state_dict(unpacked(under(state, "average") or under(state, "weights")))


SCALE = ".scale"  # behind the name of a packed matrix: what each of its rows is to be multiplied by


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in a quarter of their room: each row of a matrix as whole numbers from -127 to 127 times a scale of its own."""
    small: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim == 2:
            scale = value.abs().amax(1).clamp_min(1e-12) / 127
            small |= {name: (value / scale[:, None]).round().to(torch.int8), name + SCALE: scale}
        else:
            small[name] = value
    return small


def unpacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` made small; other weights as they are."""
    return {
        name: value.float() * weights[name + SCALE][:, None] if name + SCALE in weights else value.float()
        for name, value in weights.items()
        if not name.endswith(SCALE)
    }
