"""Recurrent networks that read a sequence and answer once, at its end (Hochreiter & Schmidhuber 1997, Neural Comput. 9:1735)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LastState(nn.Module):
    """An LSTM of one layer whose last hidden state a linear map turns into the answer: (n, steps, inputs) -> (n, outputs)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.lstm(x)[0][:, -1])
        return answer


class LastStateThenDense(nn.Module):
    """An LSTM whose last state, beside what else is known, passes a hidden layer with dropout.

    (n, steps, inputs) and (n, more) -> (n, outputs).
    The last layer begins at zero, so that the first answer is 0 and training starts from whatever the answer is added to.
    """

    def __init__(self, inputs: int, more: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.inner = nn.Sequential(nn.Linear(hidden + more, hidden), nn.GELU(), nn.Dropout(dropout))
        self.out = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        last = self.lstm(x)[0][:, -1]
        answer: Tensor = self.out(self.inner(torch.cat([last, more], dim=1)))
        return answer
