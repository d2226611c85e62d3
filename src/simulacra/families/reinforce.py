"""A language model that is moved towards a score, and kept near the law that it began as.

With p the prior, q the agent that learns, x a string and s(x) its score in [0, 1] (Olivecrona et al. 2017, arXiv:1704.07555):

    (log p(x) + sigma s(x) - log q(x))^2                      `augmented`, one number per string
    sum_k  KL( p(. | x_<=k)  ||  q(. | x_<=k) )               `divergence`, for strings of the prior: how much of its law is forgotten

The first has its minimum where q is p exp(sigma s), up to a factor. `Memory` keeps the best strings so that they can be learned from again
(experience replay); `Buckets` lets each kind of thing earn a score only so many times, or the agent draws one kind for ever (Blaschke et
al. 2020, J. Cheminform. 12:68). What a kind is, a caller decides: strings here mean nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from simulacra.families.sequence import END, PAD


def augmented(log_prior: Tensor, score: Tensor, log_agent: Tensor, sigma: float) -> Tensor:
    """Squared distance (n,) of the agent's log-likelihoods from those of the prior, raised by the scores."""
    return (log_prior + sigma * score - log_agent).square()


def divergence(prior: Tensor, agent: Tensor, tokens: Tensor) -> Tensor:
    """KL (n,) of the law of each next token under the prior to that under the agent, in nats, summed along strings: logits (n, t, V) of
    what follows tokens[:, :-1], for tokens (n, t + 1)."""
    p, q = (logits[..., END:].float().log_softmax(-1) for logits in (prior, agent))
    each = F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    return (each * (tokens[:, 1:] != PAD)).sum(1)


class Memory:
    """The `size` best strings that were seen, each once, with their scores."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scores: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.scores)

    def add(self, strings: Sequence[str], scores: Sequence[float]) -> None:
        """Take in those with a score above 0; the worst fall out. Of equal ones the earlier stays."""
        self.scores |= {string: score for string, score in zip(strings, scores, strict=True) if score > 0}
        self.scores = dict(sorted(self.scores.items(), key=lambda item: -item[1])[: self.size])

    def sample(self, count: int) -> tuple[list[str], list[float]]:
        """`count` different ones, or all, each with a chance in proportion to its score."""
        count = min(count, len(self.scores))
        if not count:
            return [], []
        strings = list(self.scores)
        rows = torch.multinomial(torch.tensor(list(self.scores.values()), dtype=torch.float64), count).tolist()
        return [strings[i] for i in rows], [self.scores[strings[i]] for i in rows]

    def state_dict(self) -> dict[str, Tensor]:
        """Strings and scores as tensors."""
        return {"strings": packed(list(self.scores)), "scores": torch.tensor(list(self.scores.values()), dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.scores = dict(zip(unpacked(state["strings"]), state["scores"].tolist(), strict=True))


class Buckets:
    """How often each kind has earned a score of at least `minimum`: after `size` times it earns nothing more. Size 0: no limit."""

    def __init__(self, size: int, minimum: float) -> None:
        self.size, self.minimum = size, minimum
        self.filled: Counter[str] = Counter()

    def earned(self, kinds: Sequence[str], scores: Sequence[float]) -> list[float]:
        """What is left of the scores of things of these kinds, in order."""
        left = []
        for kind, score in zip(kinds, scores, strict=True):
            if score >= self.minimum and self.size:
                self.filled[kind] += 1
                score = score if self.filled[kind] <= self.size else 0.0
            left.append(score)
        return left

    def state_dict(self) -> dict[str, Tensor]:
        """Kinds and counts as tensors."""
        return {"kinds": packed(list(self.filled)), "counts": torch.tensor(list(self.filled.values()), dtype=torch.int64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.filled = Counter(dict(zip(unpacked(state["kinds"]), state["counts"].tolist(), strict=True)))


def packed(strings: Sequence[str]) -> Tensor:
    """Strings without line breaks as bytes, one line each."""
    return torch.from_numpy(np.frombuffer("".join(f"{s}\n" for s in strings).encode(), np.uint8).copy())


def unpacked(lines: Tensor) -> list[str]:
    """The strings of `packed`."""
    return bytes(lines.tolist()).decode().split("\n")[:-1]
