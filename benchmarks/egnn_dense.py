"""EDM's network (9 blocks, width 256) in two forms with the same weights: processor time and memory of a training step.

    python benchmarks/egnn_dense.py [molecules in a batch]

edge list, padded   every molecule padded to QM9's 29 atoms, one list of all ordered pairs of the batch, features of both ends and
                    distances gathered and concatenated per edge, messages added up by scattering: the formula as it stands
dense, one size     simulacra.nets.egnn on batches of molecules with equal numbers of atoms, nothing padded

Sizes follow QM9's training part. Both forms run in one process on one thread; memory is the largest resident set of a process of
its own, less that of one which has built the same network and not used it.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from simulacra.nets.egnn import EGNN, RANGE

LARGEST = 29  # atoms in QM9
# Molecules of 3, 4, ... 29 atoms among 98,420 of the training part of QM9 as Hoogeboom et al. split it.
SIZES = (1, 4, 4, 8, 15, 41, 98, 286, 671, 1462, 2775, 4841, 7585, 10503, 12957, 13320, 13808, 9466, 9959, 3391, 4842, 538, 1506, 48, 266,
         0, 25)  # fmt: skip

Batch = tuple[Tensor, Tensor, Tensor]  # positions, features, mask


def edge_list(net: EGNN, x: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What `net` computes, written edge by edge over a padded batch: (n, atoms, 3), (n, atoms, inputs) and mask (n, atoms)."""
    n, atoms = mask.shape
    first = torch.arange(n)[:, None, None] * atoms
    source = (first + torch.arange(atoms)[None, :, None]).expand(n, atoms, atoms).reshape(-1)
    target = (first + torch.arange(atoms)[None, None, :]).expand(n, atoms, atoms).reshape(-1)
    node = mask.reshape(-1, 1)
    edge = node[source] * node[target] * (source != target)[:, None]
    x, h = x.reshape(-1, 3) * node, net.embedding(h.flatten(0, 1)) * node
    start = x
    first_squared = (x[source] - x[target]).square().sum(1, keepdim=True)
    for block in net.blocks:
        difference = x[source] - x[target]
        squared = difference.square().sum(1, keepdim=True)
        message = block.message(torch.cat([h[source], h[target], squared, first_squared], dim=1))
        message = message * torch.sigmoid(block.gate(message)) * edge
        received = torch.zeros_like(h).index_add(0, source, message) / block.factor
        h = (h + block.node(torch.cat([h, received], dim=1))) * node
        pull = torch.tanh(block.move(torch.cat([h[source], h[target], squared, first_squared], dim=1))) * RANGE
        step = difference / ((squared + 1e-8).sqrt() + 1) * pull * edge
        x = (x + torch.zeros_like(x).index_add(0, source, step) / block.factor) * node
    return ((x - start) * node).view(n, atoms, 3), (net.readout(h) * node).view(n, atoms, -1)


def sizes_of_a_batch(molecules: int) -> list[int]:
    """Atoms per molecule for a batch that follows QM9: evenly spaced quantiles of its sizes."""
    rows = torch.repeat_interleave(torch.arange(3, LARGEST + 1), torch.tensor(SIZES))
    return [int(rows[int((i + 0.5) / molecules * len(rows))]) for i in range(molecules)]


def padded(sizes: list[int]) -> Batch:
    """A batch of any sizes, padded to the largest molecule of QM9."""
    mask = (torch.arange(LARGEST)[None] < torch.tensor(sizes)[:, None]).float()
    return torch.randn(len(sizes), LARGEST, 3) * mask[..., None], torch.randn(len(sizes), LARGEST, 7) * mask[..., None], mask


def of_one_size(atoms: int, molecules: int) -> Batch:
    """A batch of molecules with `atoms` atoms each."""
    return torch.randn(molecules, atoms, 3), torch.randn(molecules, atoms, 7), torch.ones(molecules, atoms)


def training_step(form: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], batch: Batch) -> None:
    moved, h = form(*batch)
    (moved.square().sum() + h.square().sum()).backward()  # type: ignore[no-untyped-call]


def seconds(form: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], batch: Batch, repeats: int, *, train: bool) -> float:
    """Processor time of one pass, the best of `repeats` after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        if train:
            training_step(form, batch)
        else:
            with torch.no_grad():
                form(*batch)
        times.append(time.process_time() - start)
    return min(times[1:])


def dense(net: EGNN) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda x, h, mask: net(x, h)


def as_edges(net: EGNN) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda x, h, mask: edge_list(net, x, h, mask)


def peak_memory(form: str, molecules: int) -> float:
    """MiB of the largest resident set of a process that takes one training step (form `none`: none)."""
    done = subprocess.run([sys.executable, str(Path(__file__)), "memory", form, str(molecules)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure_memory(form: str, molecules: int) -> None:
    net = EGNN(7, 7)
    if form == "edges":
        training_step(as_edges(net), padded(sizes_of_a_batch(molecules)))
    elif form == "dense":  # the batch with the most atoms counts: sizes up to the 99th percentile of QM9
        training_step(dense(net), of_one_size(sizes_of_a_batch(100)[-1], molecules))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(molecules: int = 16) -> None:
    # First of all: a new process counts the memory of the one that started it until it has replaced it.
    idle = peak_memory("none", molecules)
    large, small = (peak_memory(form, molecules) - idle for form in ("edges", "dense"))
    sizes = sizes_of_a_batch(molecules)
    net = EGNN(7, 7)
    whole = padded(sizes)
    parts = [(of_one_size(atoms, molecules), sizes.count(atoms) / molecules) for atoms in sorted(set(sizes))]
    print(f"batches of {molecules}, mean {sum(sizes) / molecules:.1f} atoms; ms of processor time per molecule")
    for name, train in (("training step", True), ("forward only", False)):
        slow = seconds(as_edges(net), whole, 2, train=train) / molecules
        fast = sum(share * seconds(dense(net), part, 2, train=train) for part, share in parts) / molecules
        print(f"  {name:14s} edge list, padded {slow * 1e3:7.1f}   dense, one size {fast * 1e3:7.1f}   ratio {slow / fast:.1f}")
    print(f"memory of a training step, MiB: edge list, padded {large:.0f}   dense, one size {small:.0f}   ratio {large / small:.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
