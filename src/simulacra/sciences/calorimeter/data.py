"""Showers in a calorimeter: what nature is here.

One row is one electromagnetic shower: the energy that a particle left in every cell of a calorimeter that is a regular grid, in MeV,
with the energy in GeV that the particle came with and what it was. Layer 0 is the one that the particle met first.

Energy is conserved, so what was deposited is at most what came in. A sampling calorimeter sees a few percent of it; sets that are
calibrated back to the incident energy scatter around it (reading.py says how far each is believed).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.study import Refused, Samples

Array = NDArray[Any]

ELECTRON, PHOTON, POSITRON = 1, 0, -1
PARTICLES = {ELECTRON: "electron", PHOTON: "photon", POSITRON: "positron"}
FEWEST_CELLS = 4  # along an axis: below that there are no profiles


@dataclasses.dataclass(frozen=True)
class Showers(Samples):
    """Energy deposits of electromagnetic showers, cell by cell."""

    energy: Tensor  # (n, layers, rows, columns) float32, MeV; layer 0 is met first
    incident: Tensor  # (n,) float32, GeV
    particle: Tensor  # (n,) int8: 1 electron, 0 photon, -1 positron

    @property
    def grid(self) -> tuple[int, int, int]:
        """Layers, rows and columns."""
        layers, rows, columns = self.energy.shape[1:]
        return int(layers), int(rows), int(columns)

    @property
    def deposit(self) -> Tensor:
        """All energy of each shower (n,), MeV."""
        return self.energy.double().flatten(1).sum(1)

    def check(self) -> None:
        shape = tuple(self.energy.shape)
        if len(shape) != 4 or min(shape[1:], default=0) < FEWEST_CELLS:
            raise Refused(f"showers have shape {shape}; expected (showers, layers, rows, columns), {FEWEST_CELLS} cells or more each way")
        types = {"energy": (shape, torch.float32), "incident": (shape[:1], torch.float32), "particle": (shape[:1], torch.int8)}
        for name, (expected, kind) in types.items():
            value = getattr(self, name)
            if tuple(value.shape) != expected or value.dtype != kind:
                raise Refused(f"{name} has shape {tuple(value.shape)} and type {value.dtype}; expected {expected} and {kind}")
        self._refuse_values()

    def _refuse_values(self) -> None:
        flat = self.energy.flatten(1)
        lowest = flat.amin(1) if len(flat) else flat.new_zeros(0)  # nan where any cell is
        bad = ~(torch.isfinite(lowest) & torch.isfinite(flat.sum(1)) & (lowest >= 0))
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            what = "values that are no numbers" if not torch.isfinite(flat[row]).all() else f"a cell with {lowest[row]:g} MeV"
            raise Refused(f"shower {row} has {what}; a cell holds 0 MeV or more: subtract no pedestal below 0, and leave such showers out")
        bad = ~((self.incident > 0) & torch.isfinite(self.incident))
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise Refused(f"shower {row} came with {self.incident[row].item():g} GeV; expected more than 0")
        bad = (self.particle < POSITRON) | (self.particle > ELECTRON)
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise Refused(f"shower {row} is of particle {int(self.particle[row])}; expected 1 electron, 0 photon or -1 positron")


def showers(energy: Any, incident: Any, particle: Any = ELECTRON) -> Showers:
    """Showers from arrays: energy (n, layers, rows, columns) in MeV, incident in GeV and particle one for all or one each."""
    cells = np.asarray(energy)
    if not np.issubdtype(cells.dtype, np.floating):
        raise Refused(f"energies are {cells.dtype.name}; expected real numbers in MeV")
    n = len(cells)
    columns = []
    for name, value, kind in (("incident", incident, np.float32), ("particle", particle, np.int8)):
        numbers = np.asarray(value)
        if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) not in (1, n)):
            raise Refused(f"{name} has shape {numbers.shape}; expected one number, or one for each of {n} showers")
        columns.append(torch.from_numpy(np.broadcast_to(numbers.astype(kind).reshape(-1), (n,)).copy()))
    return Showers(torch.from_numpy(np.array(cells, np.float32, order="C")), columns[0], columns[1])
