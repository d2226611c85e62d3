"""Maps of the lensing convergence kappa: what nature is here, how it is read, and how it is cut from the sky.

One row is one square map of kappa (no unit; mean over the sky 0), with the side of the map in degrees and, where known, the
universe that it shows: Omega_m, sigma_8, w and the redshift of the sources. A pixel that was not observed is nan.

A map without its angular size says nothing about scales, so a file that does not give it is refused unless the caller does.
Files: .npz and .h5 hold `kappa` (n, side, side) or (side, side), `side_deg` (one number, or one per map) and may hold `mask` (1 where
observed), `omega_m`, `sigma_8`, `w`, `z_source`; FITS images take the size from CDELT or CD, or from ANGLE in degrees.

Maps cut from one sky are not independent where they touch or show the same sources: `light_cone` splits by place, with the
patches of validation between those that train and those that judge.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.study import Refused, Samples, Split

Array = NDArray[Any]

UNIVERSE = ("omega_m", "sigma_8", "w", "z_source")  # columns of Maps.universe
FITS = (".fits", ".fit", ".fits.gz", ".fit.gz")
HDF5 = (".h5", ".hdf5")
DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, zlib.error, zipfile.BadZipFile)  # what readers raise on broken files


@dataclasses.dataclass(frozen=True)
class Maps(Samples):
    """Square maps of the convergence, each with its angular size and, where known, the universe that it shows."""

    kappa: Tensor  # (n, side, side) float32; nan where not observed
    degrees: Tensor  # (n,) float32: side of the map
    universe: Tensor  # (n, 4) float32: Omega_m, sigma_8, w, redshift of the sources; nan where unknown

    @property
    def side(self) -> int:
        """Pixels along one edge."""
        return int(self.kappa.shape[-1])

    def check(self) -> None:
        shape = tuple(self.kappa.shape)
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 8:
            raise Refused(f"convergence maps have shape {shape}; expected (maps, side, side), square and of 8 px or more")
        for name, expected in (("kappa", shape), ("degrees", shape[:1]), ("universe", (shape[0], 4))):
            value = getattr(self, name)
            if tuple(value.shape) != expected or value.dtype != torch.float32:
                raise Refused(f"{name} has shape {tuple(value.shape)} and type {value.dtype}; expected {expected} and float32")
        _refuse_values(self.kappa)
        bad = ~((self.degrees > 0) & (self.degrees <= 90))
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            came = self.degrees[row].item()
            raise Refused(f"map {row} is said to be {came:g} degrees wide; expected more than 0 and at most 90 (a flat sky)")
        _refuse_universe(self.universe)


def _refuse_values(kappa: Tensor) -> None:
    if torch.isinf(kappa).any():
        row = int(torch.isinf(kappa).flatten(1).any(1).nonzero()[0, 0])
        raise Refused(f"map {row} holds infinite values; give nan where a pixel was not observed")
    seen = torch.isfinite(kappa).flatten(1).float().mean(1)
    if (seen < 0.25).any():
        row = int((seen < 0.25).nonzero()[0, 0])
        raise Refused(f"map {row} is observed in {seen[row]:.0%} of its pixels; statistics of a map need a quarter or more: leave it out")


def _refuse_universe(universe: Tensor) -> None:
    """Signs that no universe has: columns in another order, or percent for fractions."""
    limits = ((0, 1), (0, 3), (-5, 0), (0, 1200))
    for column, (name, (low, high)) in enumerate(zip(UNIVERSE, limits, strict=True)):
        value = universe[:, column]
        bad = ~(torch.isnan(value) | ((value > low) & (value < high)))
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise Refused(f"map {row} has {name} = {value[row].item():g}; expected a value between {low} and {high}, or nan where unknown")


def maps(kappa: Any, degrees: Any, **universe: Any) -> Maps:
    """Maps from arrays: kappa (n, side, side) or (side, side), degrees and omega_m, sigma_8, w, z_source one for all or one each."""
    values = np.asarray(kappa)
    if values.ndim == 2:
        values = values[None]
    if not np.issubdtype(values.dtype, np.floating):
        raise Refused(f"kappa is {values.dtype.name}; expected real numbers (the convergence itself, not a picture of it)")
    unknown = set(universe) - set(UNIVERSE)
    if unknown:
        raise Refused(f"{', '.join(sorted(unknown))} is not a property of a map; known: {', '.join(UNIVERSE)}")
    columns = [_each(universe.get(name, np.nan), len(values), name) for name in UNIVERSE]
    return Maps(_tensor(values), _tensor(_each(degrees, len(values), "degrees")), _tensor(np.stack(columns, axis=1)))


def _each(value: Any, n: int, name: str) -> Array:
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} is {value!r}; expected numbers") from error
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) not in (1, n)):
        raise Refused(f"{name} has shape {numbers.shape}; expected one number, or one for each of {n} maps")
    return np.broadcast_to(numbers.reshape(-1), (n,))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32, order="C"))  # a copy, in the byte order of this machine


# ------------------------------------------------------------------------------------------------------------- reading


def read(path: Path | str, degrees: float | None = None) -> Maps:
    """Maps from .npz, .fits or .h5 (see the module docstring). `degrees` gives the side where the file does not.

    Raises Refused where the size is nowhere given, where `degrees` contradicts the file, or where the file is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"{path}: no such file; expected maps as .npz, .fits or .h5")
    name = path.name.lower()
    if name.endswith(".npz"):
        found = _npz(path)
    elif name.endswith(FITS):
        found = _fits(path)
    elif name.endswith(HDF5):
        found = _hdf5(path)
    else:
        raise Refused(f"{path}: convergence maps are read from .npz, .fits, .fits.gz, .h5 or .hdf5")
    return _as_maps(path, found, degrees)


def _as_maps(path: Path, found: Mapping[str, Array], degrees: float | None) -> Maps:
    if "kappa" not in found:
        raise Refused(f"{path}: holds {', '.join(sorted(found)) or 'nothing'}; expected `kappa` of shape (maps, side, side)")
    kappa, size = found["kappa"], found.get("side_deg")
    if size is None and degrees is None:
        raise Refused(f"{path}: does not say how wide its maps are on the sky; add `side_deg` (degrees per side), or give `degrees`")
    if "mask" in found:
        if found["mask"].shape != kappa.shape[-found["mask"].ndim :]:
            shapes = f"`mask` has shape {found['mask'].shape} and `kappa` {kappa.shape}"
            raise Refused(f"{path}: {shapes}; expected one mask for all, or one each")
        kappa = np.where(found["mask"].astype(bool), kappa, np.nan)
    try:
        read = maps(kappa, degrees if size is None else size, **{name: found[name] for name in UNIVERSE if name in found})
    except Refused as error:
        raise Refused(f"{path}: {error}") from error
    if degrees is not None and not np.allclose(read.degrees, degrees, rtol=1e-3):
        came = read.degrees[0].item()
        raise Refused(f"{path}: says its maps are {came:g} degrees wide, and {degrees:g} were asked for; give one of the two")
    return read


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in _wanted(archive.files)}
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no .npz of plain arrays ({error})") from error


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in ("kappa", "side_deg", "mask", *UNIVERSE)]


def _hdf5(path: Path) -> dict[str, Array]:
    try:
        import h5py
    except ImportError as error:
        raise Refused(f'{path}: HDF5 needs h5py; pip install "simulacra[astro]", or convert the maps to .npz') from error
    try:
        with h5py.File(path, "r") as file:
            found = {name: np.asarray(value) for name, value in file.attrs.items() if name in ("side_deg", *UNIVERSE)}
            return found | {name: file[name][()] for name in _wanted(list(file))}
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no HDF5 file ({error})") from error


def _fits(path: Path) -> dict[str, Array]:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise Refused(f'{path}: FITS needs astropy; pip install "simulacra[astro]"') from error
    try:
        with fits.open(path, memmap=False) as file:
            images = [unit for unit in file if unit.header.get("NAXIS", 0) in (2, 3) and getattr(unit, "is_image", False)]
            if not images:
                raise Refused(f"{path}: holds no image of two or three axes; expected a convergence map, or a stack of them")
            header, pixels = images[0].header, np.asarray(images[0].data)
    except DAMAGE as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{path}: is damaged, or no FITS file ({error})") from error
    size = _degrees_in(header, pixels.shape[-1])
    return {"kappa": pixels} if size is None else {"kappa": pixels, "side_deg": np.array(size)}


def _degrees_in(header: Any, side: int) -> float | None:
    """Degrees per side by the header: the scale of a pixel times their number, or LensTools' ANGLE."""
    for name in ("CDELT1", "CD1_1"):
        if header.get(name) not in (None, 0):
            unit = str(header.get("CUNIT1", "deg")).strip().lower()
            scale = {"deg": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600, "rad": np.degrees(1.0)}.get(unit)
            return None if scale is None else abs(float(header[name])) * scale * side
    return float(header["ANGLE"]) if header.get("ANGLE") else None


def write(found: Maps, path: Path | str) -> None:
    """An .npz that `read` reads: kappa, side_deg, omega_m, sigma_8, w, z_source."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise Refused(f"{path}: maps are written as .npz")
    columns = dict(zip(UNIVERSE, found.universe.cpu().numpy().T, strict=True))
    np.savez_compressed(path, kappa=found.kappa.cpu().numpy(), side_deg=found.degrees.cpu().numpy(), **columns)


# ------------------------------------------------------------------------------------------------------------- cutting


def cut(found: Maps, side: int) -> tuple[Maps, NDArray[np.int64]]:
    """Every map in patches of `side` pixels, edge to edge, and the (row, column) of each patch in its map, shape (patches, 2).

    Rows run over the maps, then over rows and columns of the grid of patches; what is left at the edge is dropped, and so is a
    patch that was observed in less than half of its pixels.
    """
    each = found.side // side
    if side < 8 or each < 1:
        raise Refused(f"patches of {side} px cannot be cut from maps of {found.side} px; ask for 8 to {found.side}")
    inside = found.kappa[:, : each * side, : each * side]
    patches = inside.reshape(len(found), each, side, each, side).transpose(2, 3).reshape(-1, side, side).contiguous()
    grid = np.stack(np.meshgrid(np.arange(each), np.arange(each), indexing="ij"), axis=-1).reshape(-1, 2)
    keep = torch.isfinite(patches).flatten(1).float().mean(1) >= 0.5
    repeat = found.universe.repeat_interleave(each**2, 0), (found.degrees * side / found.side).repeat_interleave(each**2, 0)
    return Maps(patches[keep], repeat[1][keep], repeat[0][keep]), np.tile(grid, (len(found), 1))[keep.numpy()]


def light_cone(
    path: Path | str, side: int = 64, z_source: Sequence[float] | None = None, degrees: float | None = None
) -> Split[Maps]:
    """A ray-traced light cone, cut into patches and split by place on the sky.

    The file holds the same sky for several source redshifts, whose maps are alike wherever their sources are: a place belongs to
    one part for all redshifts (`z_source`: those to keep; None: all). Columns of patches, from the left: 5/8 train, 1/8 validate,
    2/8 are held out, so that no training patch touches one that judges. Structures larger than a patch are still shared.
    """
    sky = read(path, degrees)
    if z_source is not None:
        sky = sky[rows_of(sky, z_source)]
    patches, place = cut(sky, side)
    across = sky.side // side
    if across < 4:
        raise Refused(f"{path}: {across} patches of {side} px fit side by side in {sky.side} px; a split by place needs 4 or more")
    held_out, train = across - max(across // 4, 1), across - max(across // 4, 1) - max(across // 8, 1)
    column = torch.from_numpy(place[:, 1])
    parts = column < train, (column >= train) & (column < held_out), column >= held_out
    size = patches.degrees[0].item()
    counts = ", ".join(f"{int(part.sum())} {name}" for part, name in zip(parts, ("train", "validation", "held out"), strict=True))
    what = f"{len(sky)} source redshift(s), patches of {side} px and {size:.3g} degrees"
    origin = f"light cone {Path(path).name}: {what} split by place: {counts}"
    sums = {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    return Split(patches[parts[0]], patches[parts[1]], patches[parts[2]], origin, sums)


def rows_of(sky: Maps, z_source: Sequence[float]) -> Tensor:
    """Which maps have their sources at the given redshifts."""
    known = sky.universe[:, 3]
    rows = []
    for z in z_source:
        near = (known - z).abs() < 5e-3
        if not near.any():
            listed = ", ".join(f"{v:.2f}" for v in known.tolist())
            raise Refused(f"no map has sources at redshift {z:g}; the light cone has {listed}")
        rows.append(int(near.nonzero()[0, 0]))
    return torch.tensor(rows)
