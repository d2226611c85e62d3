"""A recurrent language model: token after token, the law of the next one.

    embedding -> LSTM of several layers (Hochreiter & Schmidhuber 1997, Neural Comput. 9:1735) -> logits over the vocabulary

What it is conditioned on, if anything, is the state that it begins in, and a vector that stands beside every token's embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]  # hidden and cell, each (layers, n, hidden)


class LanguageModel(nn.Module):
    """Tokens (n, t) -> logits of each next token (n, t, vocabulary).

    Recurrent weights begin orthogonal and forget gates open, so that what is read early can be remembered from the first step on.
    """

    def __init__(self, vocabulary: int, *, embedding: int, hidden: int, layers: int, dropout: float = 0.0, beside: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding + beside, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
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

    def forward(self, tokens: Tensor, state: State | None = None, beside: Tensor | None = None) -> Tensor:
        """`beside` (n, beside) is joined to the embedding of every token of its row."""
        read = self.embedding(tokens)
        if beside is not None:
            read = torch.cat([read, beside[:, None].to(read.dtype).expand(-1, tokens.shape[1], -1)], 2)
        hidden, _ = self.lstm(read, state)
        logits: Tensor = self.out(hidden)
        return logits
