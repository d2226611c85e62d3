"""A recurrent language model: token after token, the law of the next one.

    embedding -> LSTM of several layers (Hochreiter & Schmidhuber 1997, Neural Comput. 9:1735) -> logits over the vocabulary

What it is conditioned on, if anything, is the state that it begins in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]  # hidden and cell, each (layers, n, hidden)


class LanguageModel(nn.Module):
    """Tokens (n, t) -> logits of each next token (n, t, vocabulary).

    Recurrent weights begin orthogonal and forget gates open, so that what is read early can be remembered from the first step on.
    """

    def __init__(self, vocabulary: int, *, embedding: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.out = nn.Linear(hidden, vocabulary)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias_ih"):
                parameter.data.zero_()
            elif name.startswith("bias_hh"):
                parameter.data.zero_()
                parameter.data[hidden : 2 * hidden] = 1.0

    def forward(self, tokens: Tensor, state: State | None = None) -> Tensor:
        hidden, _ = self.lstm(self.embedding(tokens), state)
        logits: Tensor = self.out(hidden)
        return logits
