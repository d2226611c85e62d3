"""Fréchet ChemNet distance (Preuer et al. 2018, J. Chem. Inf. Model. 58:1736): how far two sets of molecules lie apart as a network
sees them that learned to predict bioactivities.

    FCD = |m - m'|² + tr(C + C' - 2 (C C')^½)        m, C: mean and covariance of the 512 activations of ChemNet's last layer but one

ChemNet reads the canonical SMILES as RDKit writes it, with stereo, one character after another, padded to 350. Its weights come with the
package fcd. Here the network is run as fcd runs it but for one saving: its first recurrent layer reads the string backwards, padding
first, and what it makes of padding alone is the same for all molecules, so it is computed once.

Of m molecules against n others of the same law FCD is not 0 but about 1,300 (1/m + 1/n) on drug-like molecules: two values can be
compared only at equal numbers, and at some hundred molecules it measures nothing but how few they are.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from simulacra.study import Refused

Array = NDArray[np.float64]

WIDTH = 512  # activations
PADDED = 350  # characters, the end mark included; a longer string is padded to its own length
STRIDE = 4  # characters per step of the recurrent layers, after two convolutions of stride 2
BATCH = 256
FEWEST = 1000  # molecules on a side below which FCD is not given


def installed() -> bool:
    """Whether the package fcd is here."""
    return importlib.util.find_spec("fcd") is not None


def version() -> str:
    """Version of the package fcd; empty where it is missing."""
    return metadata.version("fcd") if installed() else ""


@cache
def _chemnet() -> Any:
    if not installed():
        raise Refused('the Fréchet ChemNet distance needs the package fcd: pip install "simulacra[chem]"')
    import fcd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves a temporary folder to be cleaned up by chance
        return fcd.load_ref_model()


def activations(smiles: Sequence[str]) -> NDArray[np.float32]:
    """Activations (n, WIDTH) of canonical SMILES; one after another in batches of about equal length."""
    import torch

    order = np.argsort([len(s) for s in smiles], kind="stable")
    found = np.zeros((len(smiles), WIDTH), np.float32)
    with torch.no_grad():
        for start in range(0, len(smiles), BATCH):
            rows = order[start : start + BATCH]
            found[rows] = _batch([smiles[i] for i in rows]).numpy()
    return found


def _batch(smiles: Sequence[str]) -> Any:
    import torch
    from fcd.utils import get_one_hot

    network = _chemnet()
    convolutions, backwards, forwards = network[:7], network[8], network[11]
    longest = len(smiles[-1]) + 1  # the end mark
    steps = -(-max(PADDED, longest) // STRIDE)
    written = STRIDE * min(-(-longest // STRIDE) + 2, steps)  # two steps of padding behind the end see the last characters
    one_hot = np.stack([get_one_hot(s, written) for s in smiles]).astype(np.float32)
    read = convolutions(torch.from_numpy(one_hot / one_hot.shape[2]).transpose(1, 2))[:, : written // STRIDE]
    padding, state = _of_padding(steps - read.shape[1])
    state = tuple(part.expand(-1, len(smiles), -1).contiguous() for part in state)
    seen = backwards(torch.flip(read, [1]), state)[0]
    whole = torch.cat([torch.flip(seen, [1]), padding.expand(len(smiles), -1, -1)], dim=1)
    return forwards(whole)[0][:, -1]


@cache
def _of_padding(steps: int) -> tuple[Any, tuple[Any, Any]]:
    """What the backward layer gives for so many steps of padding, in the order of the string, and the state that it is left in."""
    import torch

    backwards = _chemnet()[8]
    if not steps:
        nothing = torch.zeros(1, 1, backwards.hidden_size)
        return torch.zeros(1, 0, backwards.hidden_size), (nothing, nothing)
    seen, state = backwards(torch.zeros(1, steps, backwards.input_size))
    return torch.flip(seen, [1]), state


def moments(values: NDArray[Any]) -> tuple[Array, Array]:
    """Mean (WIDTH,) and covariance (WIDTH, WIDTH) of activations."""
    values = np.asarray(values, np.float64)
    return values.mean(axis=0), np.cov(values, rowvar=False)


def frechet(one: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    """|m - m'|² + tr(C + C' - 2 (C C')^½). C^½ C' C^½ has the eigenvalues of C C', is symmetric and has a real root even where few
    molecules leave C singular."""
    (m, c), (m2, c2) = one, other
    values, vectors = linalg.eigh(c)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    between = np.sqrt(np.maximum(linalg.eigvalsh(root @ c2 @ root), 0.0)).sum()
    return float(((m - m2) ** 2).sum() + np.trace(c) + np.trace(c2) - 2 * between)


def fcd(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Fréchet distance of two sets of activations, (m, WIDTH) and (n, WIDTH)."""
    return frechet(moments(one), moments(other))


def jackknifed(values: NDArray[Any], target: tuple[Array, Array], groups: int) -> tuple[float, float]:
    """Fréchet distance of activations (n, WIDTH) to a set with these moments, and its standard error from leaving out each of so many
    groups of rows in turn."""
    values = np.asarray(values, np.float64)
    parts = [values[start::groups] for start in range(groups)]
    sums, squares = [p.sum(axis=0) for p in parts], [p.T @ p for p in parts]
    whole, square = np.sum(sums, axis=0), np.sum(squares, axis=0)

    def of(n: int, total: Array, second: Array) -> tuple[Array, Array]:
        return total / n, (second - np.outer(total, total) / n) / (n - 1)

    left = zip(parts, sums, squares, strict=True)
    found = np.array([frechet(of(len(values) - len(p), whole - s, square - q), target) for p, s, q in left])
    return frechet(of(len(values), whole, square), target), float(np.sqrt((groups - 1) * found.var()))


def expected(m: int, n: int, halves: float, of: int) -> float:
    """FCD between m and n molecules of one law, when two halves of `of` molecules lie `halves` apart: the bias goes as 1/m + 1/n."""
    return halves * (1 / m + 1 / n) / (4 / of)
