"""Language models of strings: the likelihood of a string, and a sampler that never waits for the longest one.

A string is a row of token numbers, START, x_1, ..., x_l, END, PAD, ...; the model gives p(x_{k+1} | x_1 ... x_k), so

    -log p(x) = - sum_k log p(x_{k+1} | x_<=k), END included, padding not      (`log_loss`, nats per string)

Drawing one string after another in a batch wastes most of the work: the batch runs until its longest string ends. Here every place of
the batch (a slot) takes the next row as soon as its string ends. Row i uses the random numbers of (seed, i, position), by a hash, and
the batch has always the same number of slots, so a row does not depend on how many are drawn, or with whom.

The sampler does its own arithmetic for a model made of an embedding, an LSTM and a linear layer (nets/language.py): the first layer's
input product is a table with a row per token, the other layers are one matrix product each. In bfloat16 the products are several times
faster on a CPU that has the instructions, in whole numbers of eight bits (int8) twice as fast on one that has not; what that does to the
strings, and how much faster they come, is measured in benchmarks/smiles_sampler.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

PAD, START, END = 0, 1, 2
SLOTS = 512


def log_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of each string (n,), in nats: logits (n, t, V) of what follows tokens[:, :-1], for tokens (n, t + 1). Padding is not
    part of a string, and neither PAD nor START ever follows: their logits are not looked at."""
    ahead = tokens[:, 1:].flatten() - END
    loss = F.cross_entropy(logits[..., END:].float().flatten(0, 1), ahead, ignore_index=PAD - END, reduction="none")
    return loss.reshape(len(tokens), -1).sum(1)


def log_loss_padded(logits: Tensor, tokens: Tensor) -> Tensor:
    """-log p of each row (n,) in nats, all t places of it, padding included, over all V logits: for models that learn when to pad."""
    loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return loss.reshape(len(tokens), -1).sum(1)


class Recurrent(Protocol):
    """What the sampler reads of a model."""

    embedding: nn.Embedding
    lstm: nn.LSTM
    out: nn.Linear


@dataclass(frozen=True)
class Drawn:
    """Strings that were drawn, without START; what stands behind END is PAD. A string without END reached the longest length."""

    tokens: Tensor  # (n, t) int64
    log_loss: Tensor  # (n,) -log p of the drawn tokens under the law that they were drawn from (of the prompt: 0)
    steps: int  # of the batch: what it cost

    @property
    def ended(self) -> Tensor:
        """Which strings (n,) are finished."""
        return (self.tokens == END).any(1)


@torch.no_grad()
def draw(
    model: Recurrent, rows: Sequence[int], *, seed: int, longest: int, slots: int = SLOTS, temperature: float = 1.0,
    dtype: torch.dtype = torch.float32, prompt: Tensor | None = None, state: tuple[Tensor, Tensor] | None = None,
    allowed: Callable[[Tensor, Tensor], Tensor] | None = None, beside: Tensor | None = None,
) -> Drawn:  # fmt: skip
    """One string for each of `rows`, which are numbers: row i is the same whatever other rows are drawn with it, as long as `slots`,
    `dtype` and the machine stay.

    A row begins with its `prompt` (n, p), token numbers padded with PAD, and in its `state` (hidden and cell, each (layers, n, hidden);
    zeros where None); with `beside` (n, d), that stands beside the embedding of each of its tokens. At most `longest` tokens are drawn,
    END included; `temperature` 0 takes the most likely token. `allowed` is told, for each slot, the place in `rows` and the position, and
    says which tokens from END on may stand there, (slots, V - END).
    """
    cell = _Cell(model, slots, dtype, beside)
    total, device = len(rows), cell.device
    number = np.asarray(rows, np.int64)
    out = torch.full((total, longest), PAD, device=device)
    loss = torch.zeros(total, device=device)
    row = torch.arange(slots, device=device)  # of `rows`, by slot; at or beyond `total`: idle
    position = torch.zeros(slots, dtype=torch.long, device=device)
    token = torch.full((slots,), START, device=device)
    cell.begin(torch.arange(slots, device=device), row.clamp(max=total - 1), state)
    waiting, busy, steps = slots, row < total, 0
    while bool(busy.any()):
        logits = cell(token)[:, END:].float()
        steps += 1
        place = row.clamp(max=total - 1)
        if allowed is not None:
            logits = logits.masked_fill(~allowed(place, position), -torch.inf)
        if temperature > 0:
            law = (logits / temperature).softmax(1)
            chance = uniform(seed, number[place.cpu().numpy()], position.cpu().numpy()).to(device)
            reach = law.cumsum(1)
            token = (reach <= chance[:, None] * reach[:, -1:]).sum(1).clamp(max=law.shape[1] - 1) + END
        else:
            law = logits.softmax(1)
            token = logits.argmax(1) + END
        told = torch.zeros_like(busy)
        if prompt is not None:
            given = prompt[place, position.clamp(max=prompt.shape[1] - 1)] * (position < prompt.shape[1])
            told = given != PAD
            token = torch.where(told, given, token)
        surprise = -law.gather(1, (token - END).clamp_min(0)[:, None])[:, 0].clamp_min(1e-30).log()
        live = torch.nonzero(busy).flatten()
        out[row[live], position[live]] = token[live]
        loss.index_add_(0, row[live], (surprise * ~told)[live])
        position += 1
        done = busy & ((token == END) | (position >= longest))
        free = torch.nonzero(done).flatten()
        if len(free):
            row[free] = torch.arange(waiting, waiting + len(free), device=device)
            waiting += len(free)
            position[free] = 0
            token[free] = START
            cell.begin(free, row[free].clamp(max=total - 1), state)
            busy = row < total
    used = int((out != PAD).any(0).sum())
    return Drawn(out[:, : max(used, 1)], loss, steps)


def uniform(seed: int, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> Tensor:
    """Numbers uniform on [0, 1) that belong to (seed, row, position): splitmix64's finaliser, twice (Steele et al. 2014)."""
    state = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed * 0xD1B54A32D192ED03 % 2**64)
    state = _mixed(state) + positions.astype(np.uint64) * np.uint64(0x8CB92BA72F3D8DD7)
    return torch.from_numpy((_mixed(state) >> np.uint64(40)).astype(np.float32) / np.float32(2**24))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def draws_in_eight_bits() -> bool:
    """Whether this torch has products of whole numbers (oneDNN's, on x86 processors)."""
    return hasattr(torch.ops.onednn, "qlinear_pointwise") and hasattr(torch.ops.onednn, "qlinear_prepack")


class _InEightBits:
    """rows @ weights (in, out): weights as whole numbers from -127 to 127 with a scale for each output, rows, which lie between -1 and 1,
    from -63 to 63. Their last bit is left out because AVX2 adds up pairs of products in 16 bits, where 2 x 255 x 127 would overflow."""

    UNIT, ZERO = 63, 64

    def __init__(self, weights: Tensor) -> None:
        self.scale = weights.abs().amax(0).clamp_min(1e-12) / 127
        whole = (weights / self.scale).round().T.contiguous().to(torch.int8)
        self.packed, self.zeros = torch.ops.onednn.qlinear_prepack(whole, None), torch.zeros(len(self.scale), dtype=torch.long)

    def __call__(self, rows: Tensor, bias: Tensor) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1 / self.UNIT, self.ZERO, self.packed, self.scale, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product.add_(bias)

    @classmethod
    def rounded(cls, rows: Tensor) -> Tensor:
        """Rows as whole numbers from 1 to 127, 64 for zero; what lies beyond -1 and 1, which only a given first state can, is cut."""
        return (rows * cls.UNIT + cls.ZERO).round_().clamp_(1, 127).to(torch.uint8)


class _InFloats:
    """rows @ weights (in, out) in float32 or bfloat16."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights.contiguous()

    def __call__(self, rows: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, rows, self.weights)


def _product(rows: Tensor, weights: Tensor, at_once: int) -> Tensor:
    """rows @ weights, always so many rows together: the last bits of a product depend on their number."""
    padded = F.pad(rows, (0, 0, 0, -len(rows) % at_once))
    return torch.cat([part @ weights for part in torch.split(padded, at_once)])[: len(rows)]


class _Cell:
    """One step of the model for all slots at once. Gates lie in the order input, forget, output, candidate: one sigmoid serves three."""

    def __init__(self, model: Recurrent, slots: int, dtype: torch.dtype, beside: Tensor | None) -> None:
        lstm, self.hidden = model.lstm, model.lstm.hidden_size
        if lstm.bidirectional or lstm.proj_size or not lstm.bias:
            raise ValueError("the sampler knows plain LSTMs with biases")
        weights = {name: self._reordered(value.detach().float()) for name, value in lstm.named_parameters()}
        self.whole = dtype == torch.int8
        self.device, self.dtype = model.out.weight.device, torch.float32 if self.whole else dtype
        bias = [weights[f"bias_ih_l{k}"] + weights[f"bias_hh_l{k}"] for k in range(lstm.num_layers)]
        letters = model.embedding.weight.detach().float()
        of_letters, of_beside = weights["weight_ih_l0"][:, : letters.shape[1]], weights["weight_ih_l0"][:, letters.shape[1] :]
        self.table = (letters @ of_letters.T + bias[0]).to(self.dtype)
        # What stands beside the embeddings stays the same within a row: its product is made once for each.
        self.offsets = None if beside is None else _product(beside.float(), of_beside.T.contiguous(), slots).to(self.dtype)
        self.offset = torch.zeros(slots, 0 if beside is None else 4 * self.hidden, device=self.device, dtype=self.dtype)
        self.biases = [b.to(self.dtype) for b in bias]
        matrices = [weights["weight_hh_l0"].T]
        for k in range(1, lstm.num_layers):
            matrices.append(torch.cat([weights[f"weight_ih_l{k}"], weights[f"weight_hh_l{k}"]], 1).T)
        self.products = [_InEightBits(m) if self.whole else _InFloats(m.to(self.dtype)) for m in matrices]
        self.out = model.out.weight.detach().T.contiguous().to(self.dtype)
        self.out_bias = model.out.bias.detach().to(self.dtype)
        layers, shape = lstm.num_layers, (slots, self.hidden)
        # Layer k > 0 reads its input and its own last state as one row: [input | state].
        zeros = [torch.zeros(slots, self.hidden * (2 if k else 1), device=self.device, dtype=self.dtype) for k in range(layers)]
        self.rows = [self._stored(row) for row in zeros]
        self.memory = [torch.zeros(shape, device=self.device) for _ in range(layers)]

    def _stored(self, state: Tensor) -> Tensor:
        """A hidden state as products read it."""
        return _InEightBits.rounded(state) if self.whole else state

    def _reordered(self, value: Tensor) -> Tensor:
        i, f, g, o = value.chunk(4)
        return torch.cat([i, f, o, g])

    def begin(self, slots: Tensor, rows: Tensor, state: tuple[Tensor, Tensor] | None) -> None:
        """Put `slots` into the first state of `rows`."""
        for k, (row, memory) in enumerate(zip(self.rows, self.memory, strict=True)):
            hidden = row[:, -self.hidden :]
            first = torch.zeros(len(slots), self.hidden, device=self.device) if state is None else state[0][k, rows]
            hidden[slots] = self._stored(first.to(self.dtype))
            memory[slots] = 0.0 if state is None else state[1][k, rows].float()
        if self.offsets is not None:
            self.offset[slots] = self.offsets[rows]

    def __call__(self, token: Tensor) -> Tensor:
        """Logits (slots, V) of the token that follows `token` (slots,)."""
        h = self.hidden
        state: Any = None  # of the layer below
        stored: Any = None
        for k, (row, memory) in enumerate(zip(self.rows, self.memory, strict=True)):
            if k:
                row[:, :h] = stored
            bias = self.biases[k] if k else self.table[token]
            if k == 0 and self.offsets is not None:
                bias = bias + self.offset
            gates = self.products[k](row, bias)
            opened = gates[:, : 3 * h].sigmoid_()
            candidate = gates[:, 3 * h :].tanh_()
            memory.mul_(opened[:, h : 2 * h]).addcmul_(opened[:, :h].float(), candidate.float())
            state = opened[:, 2 * h :].mul_(memory.to(self.dtype).tanh())
            stored = self._stored(state)
            row[:, -h:] = stored
        return torch.addmm(self.out_bias, state, self.out)
