"""A trained writer that is led by a score: reinforcement learning by augmented likelihood.

In each step the agent writes `batch` strings. What is a molecule and was not scored before is scored, as long as calls are left; an invalid
string earns 0; a scaffold that has earned often enough earns nothing more (reinforce.py). The agent then moves its log-likelihood of these
strings, and of `replay` of the best ones so far, towards that of the prior plus sigma times the score (REINVENT, Olivecrona et al. 2017,
arXiv:1704.07555). A call is a molecule, by its canonical SMILES: written again, it costs nothing. When all calls are spent learning ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from simulacra.descent import under
from simulacra.families import reinforce
from simulacra.sciences.drugs import asking, properties, scores
from simulacra.sciences.drugs.asking import TransferRecipe
from simulacra.sciences.drugs.data import Compounds
from simulacra.sciences.drugs.measuring import scaffold_of
from simulacra.sciences.drugs.prior import Prior, writer_from
from simulacra.study import Noise

BEST = 10  # molecules whose mean is watched
EVERY = 100  # calls between two points of the curve (PMO)


class Seeker:
    """The agent, the prior that it keeps near to, and all molecules that were scored, in the order of their calls."""

    def __init__(self, recipe: TransferRecipe, prior: Prior, oracle: scores.Oracle) -> None:
        self.recipe, self.oracle = recipe, oracle
        self.writer = writer_from(prior, recipe)
        self.prior: Any = writer_from(prior, recipe).descent.module.requires_grad_(False).eval()
        self.memory = reinforce.Memory(recipe.memory)
        self.buckets = reinforce.Buckets(recipe.bucket, recipe.minimum)
        self.seen: dict[str, float] = {}  # canonical SMILES -> score

    # --- learning ---

    def step(self, batch: Compounds) -> Mapping[str, Any]:
        """One round: write, score, learn. The rows of `batch` are not looked at: this is learning without data."""
        recipe, writer, agent = self.recipe, self.writer, self.writer.descent.module
        if len(self.seen) >= recipe.calls:
            return self._told(torch.tensor(0.0), torch.tensor(0.0), [], [])
        seed = int(torch.randint(2**31 - 1, ()))
        drawn = writer.sampled(range(recipe.batch), seed=seed, model=agent, dtype=writer.dtype)
        strings = [t for t in dict.fromkeys(writer.vocabulary.decoded(drawn.tokens[drawn.ended])) if t]
        described_ = [described(text) for text in strings]
        self.scored([name for name, _ in described_])
        # What no call was left for teaches nothing.
        rows = [(text, *one) for text, one in zip(strings, described_, strict=True) if not one[0] or one[0] in self.seen]
        strings, names = [text for text, _, _ in rows], [name for _, name, _ in rows]
        raw = [self.seen.get(name, 0.0) for name in names]
        earned = self.buckets.earned([kind for _, _, kind in rows], raw)
        again, worth = self.memory.sample(recipe.replay)
        self.memory.add(strings, earned)
        loss, norm = self._learn([*strings, *again], [*earned, *worth])
        return self._told(loss, norm, names, raw)

    def scored(self, names: Sequence[str]) -> list[float]:
        """Scores of canonical molecules, "" for none of them; new ones are calls, and 0 where none are left."""
        new = [name for name in dict.fromkeys(names) if name and name not in self.seen][: self.recipe.calls - len(self.seen)]
        self.seen |= dict(zip(new, self.oracle(new), strict=True))
        return [self.seen.get(name, 0.0) for name in names]

    def _learn(self, strings: Sequence[str], worth: Sequence[float]) -> tuple[Tensor, Tensor]:
        if not strings:
            return torch.tensor(0.0), torch.tensor(0.0)
        writer = self.writer
        tokens = writer.vocabulary.encoded(strings).to(writer.device)
        module: Any = writer.descent.module
        with torch.no_grad():
            log_prior = -writer.log_loss(self.prior, tokens)
        log_agent = -writer.log_loss(module, tokens)
        goal = torch.tensor(worth, device=tokens.device, dtype=torch.float32)
        loss = reinforce.augmented(log_prior, goal, log_agent, self.recipe.sigma).mean()
        return loss.detach(), writer.descent(loss)

    def _told(self, loss: Tensor, norm: Tensor, names: Sequence[str], raw: Sequence[float]) -> dict[str, Any]:
        return {
            "score": float(np.mean(raw)) if raw else 0.0, "best": float(np.mean(self.best(BEST)[1])) if self.seen else 0.0,
            "valid": sum(map(bool, names)) / max(len(names), 1), "calls": len(self.seen), "failed": self.oracle.failed, "loss": loss,
            "gradient": norm,
        }  # fmt: skip

    def best(self, count: int) -> tuple[list[str], list[float]]:
        """The `count` best molecules so far, best first, with their scores."""
        found = sorted(self.seen.items(), key=lambda item: -item[1])[:count]
        return [name for name, _ in found], [score for _, score in found]

    # --- drawing ---

    def at_once(self, like: Compounds) -> int:
        """Rows of a block."""
        return self.writer.at_once(like)

    def draw(self, like: Compounds, noise: Noise) -> Compounds:
        """New molecules of the agent; where a row of `like` has a prompt, that fragment grown."""
        return asking.draw(self.writer, self.writer.descent.average, like, noise)

    def score(self, samples: Compounds) -> Tensor:
        """-log2 p(string) in bits, under the agent."""
        return self.writer.score(samples)

    def ask(self, n: int, conditions: Mapping[str, str]) -> Compounds:
        """A template of n rows."""
        return asking.ask(self.writer, n, conditions)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"memory": self.memory.state_dict(), "buckets": self.buckets.state_dict()}
        flat = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        seen = {"seen.names": reinforce.packed(list(self.seen)), "seen.scores": torch.tensor(list(self.seen.values()), dtype=torch.float64)}
        tried = torch.tensor([self.oracle.asked, self.oracle.failed])
        return {**self.writer.state_dict(), **flat, **seen, "tried": tried, "first": reinforce.packed([self.oracle.first])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.writer.load_state_dict(state)
        self.memory.load_state_dict(under(state, "memory"))
        self.buckets.load_state_dict(under(state, "buckets"))
        seen = under(state, "seen")
        self.seen = dict(zip(reinforce.unpacked(seen["names"]), seen["scores"].tolist(), strict=True))
        self.oracle.asked, self.oracle.failed = state["tried"].tolist()
        self.oracle.first = reinforce.unpacked(state["first"])[0]

    def to_ship(self) -> dict[str, Tensor]:
        """The agent's weights in bfloat16, and the vocabulary."""
        return self.writer.to_ship()


def described(text: str) -> tuple[str, str]:
    """Canonical SMILES of a string and the Murcko scaffold of its molecule; both empty where it is none."""
    mol = properties.molecule(text)
    if mol is None or len(Chem.GetMolFrags(mol)) > 1:
        return "", ""
    with rdBase.BlockLogs():
        return str(Chem.MolToSmiles(mol)), scaffold_of(mol)[0]


def area(values: Sequence[float], calls: int, *, best: int = BEST, every: int = EVERY) -> float:
    """Area under the mean of the best `best` scores against calls, divided by `calls`: by trapezia every `every` calls, from 0; after
    the last score the mean stays (PMO: top_auc in mol_opt, main/optimizer.py)."""
    values = list(values)[:calls]
    total, before, done = 0.0, 0.0, 0
    for end in [*range(every, min(len(values), calls), every), len(values)]:
        now = float(np.mean(sorted(values[:end], reverse=True)[:best])) if end else 0.0
        total += (end - done) * (now + before) / 2
        before, done = now, end
    return (total + (calls - len(values)) * before) / calls


def curve(values: Sequence[float], *, best: int = BEST, every: int = EVERY) -> NDArray[np.float64]:
    """Calls and the mean of the `best` best scores until then, (k, 2)."""
    ends = [*range(every, len(values), every), len(values)] if values else []
    return np.array([(end, np.mean(sorted(values[:end], reverse=True)[:best])) for end in ends]).reshape(-1, 2)
