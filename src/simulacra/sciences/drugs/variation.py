"""An autoencoder of strings: a prototype becomes a law of codes, a code becomes a string (Harel & Radinsky 2018, arXiv:1804.02668).

    q(z|x) = N(mu(x), diag sigma(x)^2)     parallel convolutions over the embedded string, two linear layers
    p(x|z)                                 a recurrent language model that begins in a state made of z
    z = mu(x) + d sigma(x) eps             what is varied: d is the diversity, eps standard normal

At d = 0 the prototype comes back, as far as its code tells it; at d = 1 codes are those of training; beyond, they lie where the decoder
has hardly been.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from simulacra.nets.language import LanguageModel, State
from simulacra.nets.strings import ParallelConvolutions

Spread = Literal["log-variance", "raw"]
LEAST = 1e-12  # of a raw sigma squared: at 0 the divergence would be infinite


@dataclass(frozen=True)
class Sizes:
    """What decides the network."""

    longest: int
    embedding: int
    widths: tuple[int, ...]
    filters: int
    narrow: int
    dense: int
    latent: int
    spread: Spread
    hidden: int
    layers: int
    dropout: float
    start: Literal["linear", "code"]
    beside: bool

    @classmethod
    def of(cls, recipe: object) -> Sizes:
        """The sizes that a recipe has among its fields."""
        return cls(**{field.name: getattr(recipe, field.name) for field in fields(cls)})


class Variation(nn.Module):
    """Encoder, decoder, and what makes a decoder's beginning of a code. Encoder and decoder share the embedding of tokens.

    With start "code" the code is the state itself, cell first, as published: latent = 2 hidden, one layer.
    """

    def __init__(self, vocabulary: int, sizes: Sizes) -> None:
        super().__init__()
        if sizes.start == "code" and (sizes.layers != 1 or sizes.latent != 2 * sizes.hidden):
            raise ValueError(
                f"a code of {sizes.latent} numbers is not the state of {sizes.layers} layers of {sizes.hidden}: with start 'code' the "
                "decoder has one layer and latent is twice hidden"
            )
        self.length, self.spread = sizes.longest, sizes.spread
        self.decoder = LanguageModel(
            vocabulary, embedding=sizes.embedding, hidden=sizes.hidden, layers=sizes.layers, dropout=sizes.dropout,
            beside=sizes.latent if sizes.beside else 0,
        )  # fmt: skip
        self.encoder = ParallelConvolutions(
            sizes.embedding, sizes.longest, widths=sizes.widths, filters=sizes.filters, dense=sizes.dense, narrow=sizes.narrow
        )
        self.mean, self.deviation = nn.Linear(sizes.dense, sizes.latent), nn.Linear(sizes.dense, sizes.latent)
        states = 2 * sizes.layers * sizes.hidden
        self.start = nn.Linear(sizes.latent, states) if sizes.start == "linear" else None
        self.layers, self.hidden, self.beside = sizes.layers, sizes.hidden, sizes.beside

    def posterior(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, latent) of the code of strings (n, length): tokens, END, padding; no START."""
        seen = self.encoder(self.decoder.embedding(text))
        mean, deviation = self.mean(seen).float(), self.deviation(seen).float()
        # A raw sigma may be negative or zero. Only its square matters: eps is as likely as -eps.
        return mean, deviation if self.spread == "log-variance" else (deviation.square() + LEAST).log()

    def state(self, code: Tensor) -> State:
        """Hidden and cell (layers, n, hidden) that the decoder begins in."""
        both = code if self.start is None else self.start(code)
        cell, hidden = both.reshape(len(code), 2, self.layers, self.hidden).permute(1, 2, 0, 3).contiguous()
        return hidden.tanh() if self.start is not None else hidden, cell

    def forward(self, tokens: Tensor, code: Tensor) -> Tensor:
        """Logits (n, t, V) of what follows tokens (n, t), for codes (n, latent)."""
        logits: Tensor = self.decoder(tokens, self.state(code), code if self.beside else None)
        return logits


@torch.no_grad()
def begin_as_published(model: Variation) -> None:
    """Initial weights of the authors' code: embedding U(-1, 1), convolutions truncated normal of deviation .1 and bias .1, all products
    Glorot uniform without bias. Their LSTM adds 1 to the forget gate as a constant, not as a weight: of torch's two biases, the one
    that holds it is kept fixed."""
    nn.init.uniform_(model.decoder.embedding.weight, -1, 1)
    for convolution in model.encoder.convolutions:
        assert isinstance(convolution, nn.Conv1d)
        nn.init.trunc_normal_(convolution.weight, std=0.1, a=-0.2, b=0.2)
        nn.init.constant_(convolution.bias, 0.1)  # type: ignore[arg-type]  # it has one
    for layer in (model.encoder.dense, model.mean, model.deviation, model.decoder.out):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    lstm = model.decoder.lstm
    # Their four gates are one matrix of (input + state) rows and 4 hidden columns.
    bound = (6 / (lstm.input_size + 5 * lstm.hidden_size)) ** 0.5
    for name, parameter in lstm.named_parameters():
        if name.startswith("weight"):
            nn.init.uniform_(parameter, -bound, bound)
        elif name.startswith("bias_hh"):
            parameter.requires_grad_(False)
