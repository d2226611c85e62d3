"""A property of a molecule from its atoms and their positions, learned: the judge of conditional generation.

A generator that was asked for a HOMO-LUMO gap draws molecules of which nobody has computed one. As Hoogeboom et al. (2022,
arXiv:2203.17003, section 5.2) do, a network that was trained on other molecules than the generator predicts it. What it says
is no better than its own error on nature, which therefore stands beside every figure that it gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pooch
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from simulacra import __version__
from simulacra.descent import Descent, under
from simulacra.nets.invariant import InvariantEGNN
from simulacra.runs import write_atomically
from simulacra.sciences.molecules.data import PROPERTIES, Molecules
from simulacra.study import Refused
from simulacra.training import batches_from

FEWEST = 10  # labelled molecules from which anything is learned
TOGETHER = 128  # molecules that are predicted at a time


@dataclass(frozen=True)
class Effort:
    """How a regressor is trained."""

    width: int = 64
    depth: int = 3
    steps: int = 4000
    batch: int = 64
    lr: float = 1e-3
    ema: float = 0.999
    seed: int = 0


class Regressor:
    """Properties `names` of molecules, in `data.UNITS`, from positions and elements alone.

    Predictions do not change under rotation, reflection, translation and renumbering. An element that no training molecule has
    counts as an atom of no known element.
    """

    def __init__(self, names: Sequence[str], elements: Tensor, middle: Tensor, spread: Tensor, network: InvariantEGNN) -> None:
        """`elements`: atomic numbers, (e,); `middle` and `spread`: mean and mean absolute deviation of the labels, (k,)."""
        self.names, self.elements, self.middle, self.spread, self.network = tuple(names), elements, middle, spread, network

    @classmethod
    def untrained(cls, names: Sequence[str], training: Molecules, effort: Effort) -> Regressor:
        """Random weights of `effort.seed`, in the units of the labels of `training`. Raises Refused where there are too few."""
        values = labels(training, names)
        if len(values) < FEWEST or values.isnan().any():
            raise Refused(f"a regressor of {', '.join(names)} needs {FEWEST} or more molecules, all labelled; got {len(values)}")
        elements = training.numbers[training.numbers > 0].unique().long()  # type: ignore[no-untyped-call]
        middle = values.mean(0)
        spread = (values - middle).abs().mean(0).clamp_min(1e-6)
        return cls(names, elements, middle, spread, _network(len(elements), len(names), effort))

    def __call__(self, molecules: Molecules) -> Tensor:
        """Predicted properties, (n, k), on the CPU."""
        sizes, device = molecules.bucket, next(self.network.parameters()).device
        found = torch.zeros(len(molecules), len(self.names), dtype=self.middle.dtype)
        with torch.no_grad():
            for atoms in sorted(set(sizes.tolist())):
                for rows in torch.split(torch.nonzero(sizes == atoms).flatten(), TOGETHER):
                    found[rows.cpu()] = self.standardised(molecules[rows].to(device), self.network).cpu()
        return found * self.spread + self.middle

    def standardised(self, molecules: Molecules, network: torch.nn.Module) -> Tensor:
        """(value - mean) / mean absolute deviation by `network`, (n, k), of molecules that all have the same number of atoms."""
        atoms = int(molecules.bucket[0])
        elements = self.elements.to(molecules.numbers.device)
        kinds = (molecules.numbers[:, :atoms, None].long() == elements).to(self.middle.dtype)
        found: Tensor = network(molecules.positions[:, :atoms].to(self.middle.dtype), kinds)
        return found

    def double(self) -> Regressor:
        """The same in float64."""
        return Regressor(self.names, self.elements, self.middle.double(), self.spread.double(), self.network.double())

    def state_dict(self) -> dict[str, Tensor]:
        """All that predicting needs, as flat tensors."""
        weights = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        return {"elements": self.elements, "middle": self.middle, "spread": self.spread} | weights


def labels(molecules: Molecules, names: Sequence[str]) -> Tensor:
    """The properties `names`, (n, k) float32, NaN where not known."""
    return molecules.properties[:, [PROPERTIES.index(name) for name in names]].cpu()


def fitted(training: Molecules, names: Sequence[str], effort: Effort, device: torch.device) -> Regressor:
    """A regressor of `names`, trained by the absolute error of standardised labels; its weights are a running average.

    Batches hold molecules of one size. The same arguments give the same weights on one platform: one thread, and random numbers of its own.
    Raises Refused where there are too few molecules, or one lacks a label.
    """
    with _on_one_thread():
        regressor = Regressor.untrained(names, training, effort)
        network = regressor.network.to(device)
        descent = Descent(network, lr=effort.lr, clip=2.0, ema=effort.ema, warmup=min(200, effort.steps // 10), horizon=effort.steps)
        aims = ((labels(training, names) - regressor.middle) / regressor.spread).to(device)
        batches = batches_from(training, effort.batch, effort.seed, 0)
        for _ in range(effort.steps):
            rows = next(batches)
            found = regressor.standardised(training[rows].to(device), network)
            descent((found - aims[rows.to(device)]).abs().mean())
        network.load_state_dict(descent.average.state_dict())
    return regressor


def remembered(training: Molecules, names: Sequence[str], effort: Effort, device: torch.device) -> Regressor:
    """`fitted`, kept between calls in the user's cache folder, or the one that SIMULACRA_CACHE names, as safetensors.

    The file is named after the molecules, their labels, `effort` and this version; one that is damaged is made anew, and where none
    can be written nothing is lost but time.
    """
    path = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / f"regressor-{_key(training, names, effort)}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError, RuntimeError):
        return restored(names, load(path.read_bytes()), effort, device)
    regressor = fitted(training, names, effort, device)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({k: v.cpu() for k, v in regressor.state_dict().items()}))
    return regressor


def restored(names: Sequence[str], state: dict[str, Tensor], effort: Effort, device: torch.device) -> Regressor:
    """The regressor that `state_dict` describes. Raises KeyError or RuntimeError where the state is another's."""
    network = _network(len(state["elements"]), len(names), effort)
    network.load_state_dict(under(state, "network"))
    return Regressor(names, state["elements"], state["middle"], state["spread"], network.to(device))


def _network(elements: int, outputs: int, effort: Effort) -> InvariantEGNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(effort.seed)
        return InvariantEGNN(elements, outputs, width=effort.width, depth=effort.depth)


def _key(training: Molecules, names: Sequence[str], effort: Effort) -> str:
    seen = hashlib.sha256(json.dumps([list(names), asdict(effort), __version__]).encode())
    for part in (training.numbers, training.positions, labels(training, names)):
        seen.update(str(tuple(part.shape)).encode())
        seen.update(part.cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()[:32]


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
