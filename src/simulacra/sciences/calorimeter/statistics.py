"""What can be measured in showers, and the verdict on showers that claim to come from the same calorimeter.

The unit is the shower: each statistic gives one row of numbers per shower.

    sampling fraction     deposit / incident energy; its mean and its scatter, sd / mean (resolution), at each incident energy
    profiles              mean share of the incident energy in each layer, row and column
    depth, length         energy-weighted mean and rms of the layer, in layers
    width                 rms distance from the shower's own axis, in cells
    E ratio               (E1 - E2) / (E1 + E2) of the two hottest cells (Paganini, de Oliveira & Nachman 2018, PRD 97:014021)
    hits                  cells above a threshold, and how many of each energy
    layer correlations    of the shares of all pairs of layers

Where cells lie in angles and radii, rows are angles and columns radii, and widths are in their numbers: still the same on both sides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from simulacra.evidence import Evidence, Statistic, average, distribution, joint, weigh
from simulacra.measures import distance
from simulacra.sciences.calorimeter import bars
from simulacra.sciences.calorimeter.classifier import SMALL, Protocol
from simulacra.sciences.calorimeter.data import Showers
from simulacra.sciences.calorimeter.features import cells, energies_of, hits, moments, profiles, ratio_of_hottest, response
from simulacra.study import Refused

Array = NDArray[np.float64]

FEWEST = 20  # showers on a side
FEWEST_ALIKE = 8  # of one energy and particle, to be compared among themselves
PAIRED = 800  # rows of a side that statistics of pairs of showers look at
GROUPS = 12  # layers, or neighbouring ones together, whose correlations are told
DECADES = 3.0  # below the hottest cells: energies of hits
RAREST = 1e-6  # share of the energy added before a logarithm
TINY = np.finfo(np.float64).tiny


@dataclasses.dataclass(frozen=True)
class _Ruler:
    """What all sets are measured with, set by nature and drawn alike: did it know which is which, permuting would not be exact."""

    levels: Array  # log10 of incident energies (GeV) whose responses are told, the middles of their bins
    reach: Array  # edges of these bins
    hot: Array  # edges of log10 E (MeV) of hits
    groups: NDArray[np.int64]  # first layer of each group

    def level(self, showers: Showers) -> NDArray[np.int64]:
        """Number (n,) of the level that each shower's incident energy belongs to."""
        log = np.log10(showers.incident.cpu().numpy().astype(np.float64))
        return np.clip(np.searchsorted(self.reach, log) - 1, 0, len(self.levels) - 1)

    def measure(self, showers: Showers) -> dict[str, Array]:
        """Rows per shower of every statistic."""
        energy, share = cells(showers), response(showers)
        found = profiles(showers)
        level = np.eye(len(self.levels))[self.level(showers)]
        depth, length = moments(found["layer"])
        (_, high), (_, wide) = moments(found["row"]), moments(found["column"])
        spectrum = hits(energy, self.hot)
        grouped = np.add.reduceat(found["layer"], self.groups, axis=1)
        one, other = np.triu_indices(grouped.shape[1], 1)
        return {
            "sampling fraction": share[:, None],
            "response by energy": np.concatenate([level * share[:, None], level], axis=1),
            "resolution by energy": np.concatenate([level * share[:, None] ** 2, level * share[:, None], level], axis=1),
            "longitudinal profile": found["layer"],
            "profile along rows": found["row"],
            "profile along columns": found["column"],
            "shower depth": depth[:, None],
            "shower length": length[:, None],
            "shower width": np.hypot(high, wide)[:, None],
            "E ratio": ratio_of_hottest(energy)[:, None],
            "hits": spectrum.sum(axis=1)[:, None] / energy[0].size,
            "hit energies": spectrum,
            "layer correlations": np.concatenate([grouped, grouped**2, grouped[:, one] * grouped[:, other]], axis=1),
        }


def _ruler(nature: Showers, drawn: Showers) -> _Ruler:
    both = np.concatenate([energies_of(nature), energies_of(drawn)])
    known = np.unique(both)
    if len(known) > 12:  # a range of energies: bins with as many showers each
        edges = np.unique(np.quantile(both, np.linspace(0, 1, 7)))
        levels = (edges[1:] + edges[:-1]) / 2
    else:
        levels, edges = known, np.concatenate([[-np.inf], (known[1:] + known[:-1]) / 2, [np.inf]])
    energy = np.concatenate([nature.energy.cpu().numpy().ravel(), drawn.energy.cpu().numpy().ravel()])
    seen = energy[energy > 0]
    if not len(seen):
        raise Refused("no cell of any shower holds energy: nothing can be measured")
    top = float(np.ceil(np.log10(np.quantile(seen, 0.999)) * 4) / 4)
    layers = nature.grid[0]
    firsts = np.unique(np.linspace(0, layers, min(layers, GROUPS) + 1).astype(np.int64)[:-1])
    return _Ruler(levels, edges, np.linspace(top - DECADES, top, 25), firsts)


def judge(
    nature: Showers, drawn: Showers, *, seed: int, training: Showers | None = None, protocol: Protocol = SMALL,
    permutations: int = 999, halves: int = 100,
) -> Evidence:  # fmt: skip
    """Held-out against drawn showers, shower by shower; neither side knows where the other came from.

    Rivals, each wrong in the way that its statistic should notice: `wrong scale` (nature 5 % too bright) for the sampling fraction,
    `deeper nature` (by half a layer) for the longitudinal profile, `mean shower` (of its energy and particle) for all that fluctuates,
    `blurred nature` (one cell, all ways) for profiles across, widths and hits, `shuffled layers` (each layer from another shower of its
    energy and particle) for what layers have to do with each other, `one shower` (nature's first: collapse) for coverage, and `copied
    training showers` for memorisation.
    """
    _comparable(nature, drawn, training)
    rng = np.random.default_rng([seed, 0xCA10])
    ruler = _ruler(nature, drawn)
    labels, remarks = _conditions(nature, drawn, ruler)
    sets = {"nature": nature, "drawn": drawn, **_rivals(nature, labels[0], training, rng)}
    tables = {name: ruler.measure(showers) for name, showers in sets.items()}
    _add_features(tables, sets, training, rng)
    chosen = _statistics(nature, ruler, tables, training is not None)
    measured = [(tables["nature"][s.name], tables["drawn"][s.name], tables[s.rival][s.name]) for s in chosen]
    evidence = weigh(chosen, measured, labels, seed=seed, permutations=permutations, halves=halves)
    found = bars.checks(nature, drawn, seed=seed, training=training, protocol=protocol)
    return dataclasses.replace(evidence, checks=found, remarks=[*evidence.remarks, *remarks])


def _comparable(nature: Showers, drawn: Showers, training: Showers | None) -> None:
    for name, other in (("drawn", drawn), ("training", training)):
        if other is not None and other.grid != nature.grid:
            raise Refused(f"nature has showers of {_by(nature.grid)} cells, {name} ones have {_by(other.grid)}; give all on one grid")
    if min(len(nature), len(drawn)) < FEWEST:
        raise Refused(f"{len(nature)} showers of nature and {len(drawn)} drawn; fewer than {FEWEST} cannot be told apart: draw more")


def _by(grid: tuple[int, int, int]) -> str:
    return " x ".join(map(str, grid))


def _conditions(nature: Showers, drawn: Showers, ruler: _Ruler) -> tuple[tuple[Array, Array], list[str]]:
    """One label per shower for its energy and particle where both sides hold the same, enough of each; and what the reader must know."""
    both = [np.stack([ruler.level(side), side.particle.cpu().numpy()], axis=1) for side in (nature, drawn)]
    for columns, what in (((0, 1), ""), ((0,), "of one energy and all particles"), ((1,), "of one particle and all energies")):
        rows = np.concatenate([side[:, columns] for side in both])
        label = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.float64)
        sides = label[: len(nature)], label[len(nature) :]
        counts = [np.unique(side, return_counts=True) for side in sides]
        if all(np.array_equal(counts[0][i], counts[1][i]) for i in (0, 1)) and counts[0][1].min() >= FEWEST_ALIKE:
            return sides, [f"showers {what} are compared together: too few are alike in both"] if what else []
    return (np.zeros(len(nature)), np.zeros(len(drawn))), ["showers of all energies and particles are compared together"]


def _rivals(nature: Showers, labels: Array, training: Showers | None, rng: np.random.Generator) -> dict[str, Showers]:
    energy = cells(nature)
    shuffled, mean = energy.copy(), np.empty_like(energy)
    incident = nature.incident.cpu().numpy().astype(np.float64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        share = energy[rows] / incident[rows, None, None, None]
        mean[rows] = share.mean(axis=0) * incident[rows, None, None, None]
        for layer in range(energy.shape[1]):
            shuffled[rows, layer] = share[rng.permutation(len(rows)), layer] * incident[rows, None, None]
    rivals = {
        "wrong scale": energy * 1.05,
        "deeper nature": (energy + np.pad(energy, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]) / 2,
        "mean shower": mean,
        "blurred nature": ndimage.gaussian_filter(energy, (0, 1, 1, 1), mode="constant"),
        "shuffled layers": shuffled,
        "one shower": np.broadcast_to(energy[:1] / incident[0], energy.shape) * incident[:, None, None, None],
    }
    found = {name: dataclasses.replace(nature, energy=torch.from_numpy(values.astype(np.float32))) for name, values in rivals.items()}
    if training is not None:
        found["copied training showers"] = training[torch.from_numpy(rng.permutation(len(training))[: len(nature)])]
    return found


FEATURES = ("sampling fraction", "longitudinal profile", "profile along rows", "profile along columns", "E ratio", "hits")


def _add_features(
    tables: Mapping[str, dict[str, Array]], sets: Mapping[str, Showers], training: Showers | None, rng: np.random.Generator
) -> None:
    """The leading components of all features at once and, where training is known, the distance to its nearest shower."""
    raw = {
        name: np.concatenate([np.log10(sets[name].incident.cpu().numpy())[:, None], *(np.nan_to_num(t[f]) for f in FEATURES)], axis=1)
        for name, t in tables.items()
    }
    both = np.concatenate([raw["nature"], raw["drawn"]])
    centre, spread = both.mean(axis=0), both.std(axis=0)
    scale = np.where(spread > 1e-9 * np.abs(centre), spread, np.inf)
    axes = np.linalg.eigh(np.cov((both - centre) / scale, rowvar=False))[1][:, :-9:-1]
    for name, table in tables.items():
        rows = (raw[name] - centre) / scale @ axes
        rows[PAIRED:] = np.nan  # distances between all pairs: time grows with their number
        table["classifier two-sample test"] = table["coverage"] = table["precision"] = rows
    if training is not None:
        known = _coarse(training)
        for name, table in tables.items():
            near = distance.nearest(_coarse(sets[name][:PAIRED]), known)
            table["memorisation"] = np.full((len(sets[name]), 1), np.nan)
            table["memorisation"][: len(near), 0] = np.log10(near + 1e-6)


def _coarse(showers: Showers) -> Array:
    """Showers as rows: square roots of their shares of the incident energy, in which deposits that are counted scatter evenly, in at most
    8 parts each way, and the logarithm of the incident energy."""
    energy = cells(showers) / (showers.incident.cpu().numpy().astype(np.float64) * 1000)[:, None, None, None]
    for axis in (1, 2, 3):
        firsts = np.unique(np.linspace(0, energy.shape[axis], min(energy.shape[axis], 8) + 1).astype(np.int64)[:-1])
        energy = np.add.reduceat(energy, firsts, axis=axis)
    log = np.log10(showers.incident.cpu().numpy().astype(np.float64))[:, None]
    return np.concatenate([np.sqrt(energy.reshape(len(energy), -1)), log], axis=1)


def _read(name: str) -> Any:
    return lambda table: table[name]


def _statistics(nature: Showers, ruler: _Ruler, tables: Mapping[str, Mapping[str, Array]], with_training: bool) -> list[Statistic[Any]]:
    chosen = [*_of_response(ruler, tables), *_of_profiles(nature), *_of_shape(tables), *_of_hits(ruler), _of_layers(ruler)]
    chosen += joint("shower", _read, tables["nature"]["coverage"].shape[1], rivals=("shuffled layers", "one shower", "blurred nature"))
    return [*chosen, _memorisation()] if with_training else chosen


def _bins(tables: Mapping[str, Mapping[str, Array]], name: str) -> Array:
    both = np.concatenate([tables[side][name][:, 0] for side in ("nature", "drawn")])
    low, high = np.nanquantile(both, [0.002, 0.998])
    return np.linspace(low, high + 1e-3 * (abs(high) + 1e-3), 31)


def _law(tables: Mapping[str, Mapping[str, Array]], name: str, unit: str, about: str, rival: str) -> Statistic[Any]:
    return distribution(name, unit, about, lambda table: table[name][:, 0], _bins(tables, name), rival=rival)


def _of_response(ruler: _Ruler, tables: Mapping[str, Mapping[str, Array]]) -> list[Statistic[Any]]:
    grid, axis = 10**ruler.levels, "incident energy (GeV)"
    return [
        _law(tables, "sampling fraction", "", "Deposit over incident energy, shower by shower.", "wrong scale"),
        average(
            "response by energy", "deposit / incident energy", "Mean sampling fraction at each incident energy.",
            _read("response by energy"), grid, axis, rival="wrong scale", function=_mean_at, log_grid=len(grid) > 1,
        ),
        average(
            "resolution by energy", "sd / mean of the deposit", "Relative scatter of the sampling fraction at each incident energy.",
            _read("resolution by energy"), grid, axis, rival="mean shower", function=_scatter_at, log_grid=len(grid) > 1,
        ),
    ]  # fmt: skip


def _mean_at(means: Array) -> Array:
    total, count = np.split(means, 2, axis=1)
    return np.asarray(total / np.maximum(count, TINY), np.float64)


def _scatter_at(means: Array) -> Array:
    square, total, count = np.split(means, 3, axis=1)
    mean = total / np.maximum(count, TINY)
    variance = np.maximum(square / np.maximum(count, TINY) - mean**2, 0)
    return np.asarray(np.sqrt(variance) / np.maximum(mean, TINY), np.float64)


def _of_profiles(nature: Showers) -> list[Statistic[Any]]:
    found = []
    names = ("longitudinal profile", "profile along rows", "profile along columns")
    rivals = ("deeper nature", "blurred nature", "blurred nature")
    for name, axis, count, rival in zip(names, ("layer", "row", "column"), nature.grid, rivals, strict=True):
        found.append(
            average(
                name, "log10 share of E", f"log10 of the mean share of the incident energy in each {axis}; distance: root mean square.",
                _read(name), np.arange(1.0, count + 1), axis, rival=rival, function=lambda mean: np.log10(mean + RAREST),
            )
        )  # fmt: skip
    return found


def _of_shape(tables: Mapping[str, Mapping[str, Array]]) -> list[Statistic[Any]]:
    return [
        _law(tables, "shower depth", "layers", "Energy-weighted mean layer.", "mean shower"),
        _law(tables, "shower length", "layers", "Energy-weighted rms of the layer.", "mean shower"),
        _law(tables, "shower width", "cells", "Energy-weighted rms distance from the axis of the shower.", "blurred nature"),
        _law(tables, "E ratio", "", "(E1 - E2) / (E1 + E2) of the two hottest cells.", "blurred nature"),
    ]


def _of_hits(ruler: _Ruler) -> list[Statistic[Any]]:
    middles = (ruler.hot[1:] + ruler.hot[:-1]) / 2
    return [
        distribution(
            "hits", "share of cells", f"Cells above {10 ** ruler.hot[0]:.3g} MeV.", lambda table: table["hits"][:, 0],
            np.linspace(0, 1, 41), rival="blurred nature",
        ),
        average(
            "hit energies", "log10 cells per shower", "Cells by energy; distance: root mean square of log10(cells + 0.01).",
            _read("hit energies"), np.asarray(middles, np.float64), "log10 energy of the cell (MeV)", rival="blurred nature",
            function=lambda mean: np.log10(mean + 0.01), bars=True,
        ),
    ]  # fmt: skip


def _of_layers(ruler: _Ruler) -> Statistic[Any]:
    pairs = len(ruler.groups) * (len(ruler.groups) - 1) // 2
    return average(
        "layer correlations", "correlation", "Between showers, of the energy shares of layers 1-2, 1-3, ...: by rows, above the diagonal.",
        _read("layer correlations"), np.arange(1.0, pairs + 1), "pair of layers", rival="shuffled layers", function=correlations, bars=True,
    )  # fmt: skip


def correlations(means: Array) -> Array:
    """Correlation of every pair of k columns, (b, k (k - 1) / 2), from averages (b, 2 k + pairs) of columns, squares and products."""
    count = round((np.sqrt(9 + 8 * means.shape[1]) - 3) / 2)
    mean, square, product = means[:, :count], means[:, count : 2 * count], means[:, 2 * count :]
    one, other = np.triu_indices(count, 1)
    spread = np.sqrt(np.maximum(square - mean**2, 1e-9 * square + TINY))
    return np.asarray((product - mean[:, one] * mean[:, other]) / (spread[:, one] * spread[:, other]), np.float64)


def _memorisation() -> Statistic[Any]:
    return distribution(
        "memorisation", "dex", "log10 of the distance to the nearest training shower, square roots of energy shares in coarse cells.",
        lambda table: table["memorisation"][:, 0], np.linspace(-6, 1, 71), rival="copied training showers", distance=distance.shortfall,
    )  # fmt: skip
