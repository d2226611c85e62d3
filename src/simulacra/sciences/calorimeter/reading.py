"""Files of showers, read in the layouts of the field and checked against the conservation of energy.

    .npz            `energy` (n, layers, rows, columns) in MeV, `incident` (n,) in GeV, `particle` (n,) 1 electron, 0 photon, -1 positron;
                    or `energy_mev` and `energy_in_mev`, both in MeV
    CaloChallenge   .h5 or .hdf5 with `showers` (n, voxels) and `incident_energies` (n, 1), both in MeV; a voxel's place is counted by
                    layers, then angles (rows), then radii (columns): 45 x 16 x 9 and 45 x 50 x 18 in its data sets 2 and 3
                    (Krause et al. 2024, arXiv:2410.21611). Layers of data set 1 differ in their voxels and are no grid
    3DGAN           .h5 or .hdf5 with `ECAL` (n, x, y, z), z along the beam, and `target` or `energy`, all in GeV

A shower that no detector gives (no number, less than 0 MeV, more energy out than in, nothing at all) is set aside with its reason; a set
of them is a matter of units and refused. Object columns are never unpickled: such columns are refused by the readers.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.calorimeter.data import ELECTRON, PARTICLES, Showers, showers
from simulacra.study import Refused

Array = NDArray[Any]

HDF5 = (".h5", ".hdf5")
DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile)  # of broken files
UNITS = {"MeV": 1.0, "keV": 1e-3, "GeV": 1e3}  # in MeV
KNOWN_GRIDS = {45 * 16 * 9: (45, 16, 9), 45 * 50 * 18: (45, 50, 18)}  # voxels -> layers, angles, radii
ANNIHILATION = 2 * 0.511  # MeV, what a positron brings beyond its kinetic energy
CALIBRATED = 3.0  # times what came in: believed of one shower where responses are calibrated to scatter around 1
FAINTEST, BRIGHTEST = 1e-3, 1.5  # deposit over incident of half of all showers: beyond lies another unit
SHOWN = 20  # reasons told one by one


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a file does not say about itself; None: as it says, or as is usual for its layout."""

    grid: tuple[int, int, int] | None = None  # layers, rows, columns
    unit: str | None = None  # of energies in cells
    particle: int = ELECTRON
    calibrated: bool | None = None  # responses scatter around 1, so that some showers show more than came in


def read(path: Path | str, layout: Layout | None = None) -> Showers:
    """All showers of a file. Raises Refused where one holds no numbers or less than 0 MeV, or where units are wrong; that some show
    more than came in is left for the judge to say."""
    layout = layout or Layout()
    energy, incident, particle, calibrated = _columns(Path(path), layout)
    reasons = _reasons(energy, incident, particle, limit=np.inf)
    bad = np.flatnonzero(reasons)
    if len(bad) and len(bad) < len(energy):
        raise Refused(f"{path}: shower {bad[0]} has {reasons[bad[0]]}; leave such showers out")
    return _made(Path(path), energy, incident, particle, reasons, calibrated)


def read_good(path: Path | str, layout: Layout | None = None) -> tuple[Showers, list[str]]:
    """The showers of a file that a detector can have seen, and a line for each that was set aside."""
    layout = layout or Layout()
    energy, incident, particle, calibrated = _columns(Path(path), layout)
    reasons = _reasons(energy, incident, particle, limit=CALIBRATED if calibrated else 1.0, empty=True)
    found = _made(Path(path), energy, incident, particle, reasons, calibrated)
    keep = reasons == ""
    lines = [f"shower {row}: {reasons[row]}" for row in np.flatnonzero(~keep)]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return found[np.flatnonzero(keep)], [*lines[:SHOWN], *more]


# ------------------------------------------------------------------------------------------------------------ checking


def _reasons(energy: Array, incident: Array, particle: Array, *, limit: float, empty: bool = False) -> Array:
    """For each shower, why no detector gives it; empty where one may."""
    flat = energy.reshape(len(energy), -1)
    deposit, lowest = flat.sum(axis=1, dtype=np.float64), flat.min(axis=1)
    reasons = np.full(len(energy), "", object)
    for row in np.flatnonzero(~np.isfinite(deposit)):
        reasons[row] = "cells that hold no numbers"
    for row in np.flatnonzero(lowest < 0):
        reasons[row] = reasons[row] or f"a cell with {lowest[row]:.4g} MeV, less than nothing"
    for row in np.flatnonzero(~((incident > 0) & np.isfinite(incident))):
        reasons[row] = reasons[row] or f"{incident[row]:g} GeV of incident energy"
    for row in np.flatnonzero(~np.isin(particle, list(PARTICLES))):
        reasons[row] = reasons[row] or f"particle {particle[row]:g}; expected 1 electron, 0 photon, -1 positron"
    most = limit * incident * 1000 * (1 + 1e-5) + ANNIHILATION
    for row in np.flatnonzero(deposit > most):
        reasons[row] = reasons[row] or f"more energy out than in: {deposit[row]:.5g} MeV of {incident[row] * 1000:.5g} MeV"
    for row in np.flatnonzero(deposit == 0) if empty else ():
        reasons[row] = reasons[row] or "no energy in any cell"
    return reasons


def _made(path: Path, energy: Array, incident: Array, particle: Array, reasons: Array, calibrated: bool) -> Showers:
    """All showers, bad ones with zeros for what cannot be; Refused where most are bad or units are wrong."""
    with np.errstate(all="ignore"):
        response = energy.reshape(len(energy), -1).sum(axis=1, dtype=np.float64) / (incident * 1000)
    usable = response[np.isfinite(response) & (response > 0) & (incident > 0)]
    _refuse_units(path, float(np.median(usable)) if len(usable) else np.nan, calibrated)
    bad = reasons != ""
    if 2 * bad.sum() > len(bad):
        reason, count = Counter(reasons[bad].tolist()).most_common(1)[0]
        raise Refused(f"{path}: {int(bad.sum())} of {len(bad)} showers cannot be used, {count} alike: {reason}")
    energy = np.where(np.isfinite(energy) & (energy >= 0), energy, 0) if bad.any() else energy
    incident = np.where(np.isfinite(incident) & (incident > 0), incident, 1)
    return showers(energy.astype(np.float32), incident, np.where(np.isin(particle, list(PARTICLES)), particle, ELECTRON))


def _refuse_units(path: Path, response: float, calibrated: bool) -> None:
    """Refuse where half of all showers hold more than came in, or almost nothing of it, and say which unit would explain it."""
    if not response > (CALIBRATED if calibrated else BRIGHTEST) and not response < FAINTEST:
        return
    what = f"{path}: half of the showers hold more than {response:.3g} times the energy that came in"
    if response > 1:
        if FAINTEST <= response / 1000 <= BRIGHTEST:
            raise Refused(f"{what}; energies of cells look like keV, which would make it {response / 1000:.3g}: add --unit keV")
        raise Refused(f"{what}, and keV would not explain it; expected cells in MeV, and incident energies in the unit of the layout")
    what = f"{path}: half of the showers hold less than {response:.3g} of the energy that came in"
    if FAINTEST <= response * 1000 <= BRIGHTEST:
        raise Refused(f"{what}; energies of cells look like GeV, which would make it {response * 1000:.3g}: add --unit GeV")
    raise Refused(f"{what}; expected at least {FAINTEST:g} of it in the cells that are read out: check the units of both energies")


# ------------------------------------------------------------------------------------------------------------- reading


def _columns(path: Path, layout: Layout) -> tuple[Array, Array, Array, bool]:
    """Energies (n, layers, rows, columns) in MeV, incident (n,) in GeV, particle (n,), and whether responses are calibrated."""
    if layout.unit is not None and layout.unit not in UNITS:
        raise Refused(f"unit {layout.unit!r}; energies of cells are in {', '.join(UNITS)}")
    if not path.is_file():
        raise Refused(f"{path}: no such file; expected showers as .npz, .h5 or .hdf5")
    ending = path.suffix.lower()
    if ending == ".npz":
        found = _npz(path)
    elif ending in HDF5:
        found = _hdf5(path)
    else:
        raise Refused(f"{path}: showers are read from .npz, .h5 or .hdf5")
    energy, incident, unit, calibrated = _by_layout(path, found, layout)
    if not (np.issubdtype(energy.dtype, np.number) and np.issubdtype(incident.dtype, np.number)) or np.iscomplexobj(energy):
        raise Refused(f"{path}: energies are {energy.dtype.name} and {incident.dtype.name}; expected real numbers")
    n = len(energy)
    if n == 0:
        raise Refused(f"{path}: holds no shower")
    particle = found.get("particle", np.full(n, layout.particle))
    for name, value in (("incident energies", incident), ("particles", particle)):
        if value.reshape(-1).shape != (n,):
            raise Refused(f"{path}: {value.size} {name} for {n} showers; expected one each")
    scale = UNITS[layout.unit or unit]
    cells = np.asarray(energy, np.float32) if scale == 1 else np.asarray(energy * scale, np.float32)
    given = layout.calibrated if layout.calibrated is not None else calibrated
    return cells, incident.reshape(-1).astype(np.float64), np.asarray(particle).reshape(-1), given


def _by_layout(path: Path, found: Mapping[str, Array], layout: Layout) -> tuple[Array, Array, str, bool]:
    """Energies, incident energies in GeV, the usual unit of the former, and whether such files are calibrated."""
    if "showers" in found and "incident_energies" in found:
        return _on_grid(path, found, layout), found["incident_energies"] / 1000, "MeV", "grid" not in found
    if "ECAL" in found:
        cells = _cells(path, found["ECAL"][..., 0] if found["ECAL"].ndim == 5 else found["ECAL"], layout)
        return np.moveaxis(cells, 3, 1), _target(path, found), "GeV", False
    if "energy_mev" in found and "energy_in_mev" in found:
        return _cells(path, found["energy_mev"], layout), found["energy_in_mev"] / 1000, "MeV", False
    if "energy" in found and "incident" in found:
        return _cells(path, found["energy"], layout), found["incident"], "MeV", False
    held = ", ".join(sorted(found)) or "nothing that is known"
    wanted = "`energy` and `incident`, `showers` and `incident_energies` (CaloChallenge), or `ECAL` and `target` (3DGAN)"
    raise Refused(f"{path}: holds {held}; expected {wanted}")


def _cells(path: Path, energy: Array, layout: Layout) -> Array:
    if energy.ndim != 4:
        raise Refused(f"{path}: energies have shape {energy.shape}; expected (showers, layers, rows, columns)")
    if layout.grid is not None and tuple(energy.shape[1:]) != layout.grid:
        raise Refused(f"{path}: showers of {_by(energy.shape[1:])} cells, and {_by(layout.grid)} were asked for; leave the grid out")
    return energy


def _on_grid(path: Path, found: Mapping[str, Array], layout: Layout) -> Array:
    """Flat voxels, laid out by the grid that is asked for, that the file names, or that has their number."""
    flat = found["showers"]
    if flat.ndim != 2:
        raise Refused(f"{path}: `showers` has shape {flat.shape}; expected (showers, voxels)")
    own = tuple(int(side) for side in found["grid"]) if "grid" in found else KNOWN_GRIDS.get(flat.shape[1])
    grid = layout.grid or own
    if grid is None:
        raise Refused(
            f"{path}: {flat.shape[1]} voxels a shower; say how they are laid out: --grid LAYERS,ROWS,COLUMNS, "
            "or an attribute `grid` of the file"
        )
    if int(np.prod(grid)) != flat.shape[1] or len(grid) != 3:
        raise Refused(f"{path}: {flat.shape[1]} voxels a shower are no grid of {_by(grid)}; their product must be their number")
    return flat.reshape(len(flat), *grid)


def _target(path: Path, found: Mapping[str, Array]) -> Array:
    """Incident energies in GeV: `energy`, or `target` with one column, or with the particle's code in column 0 and its energy in 1."""
    target = found.get("energy", found.get("target", found.get("Target")))
    if target is None:
        raise Refused(f"{path}: holds `ECAL` but neither `target` nor `energy`; expected the incident energies in GeV")
    table = target.reshape(len(target), -1)
    return table[:, min(1, table.shape[1] - 1)]


def _by(grid: Any) -> str:
    return " x ".join(str(int(side)) for side in grid)


def _npz(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in KNOWN}
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no .npz of plain arrays ({error})") from error


def _hdf5(path: Path) -> dict[str, Array]:
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            found = {name: np.asarray(file.attrs[name]) for name in file.attrs if name == "grid"}
            return found | {name: file[name][()] for name in file if name in KNOWN}
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no HDF5 file ({error})") from error


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise Refused(f'{path}: HDF5 needs h5py; pip install "simulacra[astro]", or convert the showers to .npz') from error
    return h5py


KNOWN = (
    "energy", "incident", "particle", "energy_mev", "energy_in_mev", "showers", "incident_energies", "ECAL", "target", "Target",
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- writing


def write(found: Showers, path: Path | str) -> None:
    """An .npz of `energy`, `incident` and `particle`, or an .h5 or .hdf5 in CaloChallenge's layout with `particle` and the grid beside."""
    path = Path(path)
    energy, incident, particle = (value.cpu().numpy() for value in (found.energy, found.incident, found.particle))
    if path.suffix.lower() == ".npz":
        np.savez_compressed(path, energy=energy, incident=incident, particle=particle)
    elif path.suffix.lower() in HDF5:
        with _h5py(path).File(path, "w") as file:
            file.create_dataset("showers", data=energy.reshape(len(energy), -1), compression="gzip")
            file.create_dataset("incident_energies", data=incident[:, None] * np.float32(1000))
            file.create_dataset("particle", data=particle)
            file.attrs["grid"] = found.grid
    else:
        raise Refused(f"{path}: showers are written as .npz, .h5 or .hdf5")
