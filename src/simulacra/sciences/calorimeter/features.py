"""What is measured in each shower: its response, profiles, moments, hottest cells, hits, and the features of CaloChallenge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.calorimeter.data import Showers

Array = NDArray[np.float64]


def cells(showers: Showers) -> Array:
    """Energies (n, layers, rows, columns) in MeV, in float64."""
    return np.asarray(showers.energy.cpu().numpy(), np.float64)


def response(showers: Showers) -> Array:
    """Deposit over incident energy, (n,)."""
    return np.asarray(showers.deposit.cpu().numpy() / (showers.incident.cpu().numpy().astype(np.float64) * 1000), np.float64)


def profiles(showers: Showers) -> dict[str, Array]:
    """Share of the incident energy of each shower in each `layer`, `row` and `column`, (n, number of them)."""
    share = cells(showers) / (showers.incident.cpu().numpy().astype(np.float64) * 1000)[:, None, None, None]
    face = share.sum(axis=1)
    return {"layer": share.sum(axis=(2, 3)), "row": face.sum(axis=2), "column": face.sum(axis=1)}


def moments(profile: Array) -> tuple[Array, Array]:
    """Mean and rms of the place along profiles (n, k), in cells from the first cell's edge; nan where there is no energy."""
    total = profile.sum(axis=1)
    place = np.arange(profile.shape[1]) + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = profile @ place / total
        square = profile @ place**2 / total
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def ratio_of_hottest(energy: Array) -> Array:
    """(E1 - E2) / (E1 + E2) of the two hottest cells of each shower (n, layers, rows, columns); nan without energy."""
    flat = energy.reshape(len(energy), -1)
    second, first = np.partition(flat, flat.shape[1] - 2, axis=1)[:, -2:].T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((first - second) / (first + second), np.float64)


def hits(energy: Array, edges: Array) -> Array:
    """Cells of each shower by log10 of their energy in MeV, (n, bins); cells below the first edge count nowhere, those above the last in
    the last bin."""
    table = np.zeros((len(energy), len(edges) - 1))
    for row, shower in enumerate(energy):
        values = np.log10(shower[shower > 10 ** edges[0]])
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        table[row] = np.bincount(place, minlength=len(edges) - 1)
    return table


def high_level(showers: Showers) -> Array:
    """CaloChallenge's features: log10 E, log10 of layer energies, and centre and width along rows and columns in each layer."""
    energy = cells(showers)
    incident = showers.incident.cpu().numpy().astype(np.float64)
    columns = [np.log10(incident)[:, None], np.log10(energy.sum(axis=(2, 3)) + 1e-8)]
    for axis in (3, 2):
        lines = energy.sum(axis=axis)
        for values in moments(lines.reshape(-1, lines.shape[2])):
            columns.append(np.nan_to_num(values, nan=lines.shape[2] / 2).reshape(lines.shape[:2]))
    return np.concatenate(columns, axis=1)


def low_level(showers: Showers) -> Array:
    """CaloChallenge's voxels: log10 E and 100 x energy / E of each cell."""
    incident = showers.incident.cpu().numpy().astype(np.float64)
    voxels = 100 * cells(showers).reshape(len(showers), -1) / (incident * 1000)[:, None]
    return np.concatenate([np.log10(incident)[:, None], voxels], axis=1)


def energies_of(showers: Showers) -> Array:
    """A number for the incident energy of each shower: the energy itself to 3 %, so that a set of few energies has few numbers."""
    return np.round(np.log10(showers.incident.cpu().numpy().astype(np.float64)) / 0.0125) * 0.0125
