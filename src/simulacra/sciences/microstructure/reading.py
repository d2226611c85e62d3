"""Volumes of two phases from the files of the field: TIFF stacks, raw voxels, .npz, .npy and HDF5.

    .tif, .tiff        one page per slice; the edge of a voxel from ImageJ's `spacing` and the resolution where both are in micrometres
    a folder           one .tif, .png or .bmp per slice, in the order of the numbers in their names
    .raw, .bin, .dat   voxels without a header, depth slowest; `shape` says how many along each axis; bits, bytes or 16-bit words
    .npz               `packed` bits and `shape`, or an array `solid` (or the only one); `voxel_um`
    .npy               one array
    .h5, .hdf5         a data set `solid` (or the only one of three or four axes); `voxel_um` or `element_size_um` as an attribute

Grey values become phases by a threshold, which must be given: a volume does not say where its grain ends. Where two values occur they
are the phases. Voxels that are longer along one axis are brought to cubes of the longest edge, and a line says so.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.sciences.microstructure.data import Bits, Volumes, volumes
from simulacra.study import Refused

Array = NDArray[Any]

SLICES = (".tif", ".tiff", ".png", ".bmp")
RAW = (".raw", ".bin", ".dat")
DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, zlib.error, zipfile.BadZipFile)  # what readers raise
FEW = 8  # distinct values up to which they are taken for labels of phases
MICROMETRES = ("micron", "microns", "um", "µm", "\\u00B5m", "micrometer", "micrometre")
UNEVEN = 1e-3  # edges of a voxel that differ by less are equal


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is to be understood where it does not say so itself."""

    shape: Sequence[int] = ()  # voxels along depth, height and width of a raw file
    threshold: float | None = None  # grey value above which a voxel belongs to the bright phase
    voxel: Sequence[float] = ()  # micrometres along the edge of a voxel, or along its depth, height and width
    bright: str = "solid"  # the phase that the larger value shows: solid or pore


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file held: volumes, and what had to be done to them, in words."""

    volumes: Volumes
    lines: Sequence[str] = ()
    files: Sequence[Path] = ()


def read(path: Path | str, how: Reading | None = None) -> Found:
    """The volumes in a file or a folder of slices (see the module). Raises Refused where they are not of two phases."""
    path, how = Path(path), how or Reading()
    grey, edges, files = _grey(path, how)
    if grey.ndim == 3:
        grey = grey[None]
    if grey.ndim != 4 or 0 in grey.shape:
        raise Refused(f"{path}: holds an array of shape {grey.shape}; expected (depth, height, width), or (volumes, depth, height, width)")
    solid = phases(grey, how, path)
    if how.voxel:
        edges = np.asarray(how.voxel, float)
    lines: list[str] = []
    if edges.size == 3 and edges.max() > edges.min() * (1 + UNEVEN):
        solid, line = _cubic(path, solid, edges)
        lines.append(line)
        edges = edges.max(keepdims=True)
    edge = edges[:1] if edges.size in (1, 3) else edges
    try:
        return Found(volumes(solid, edge if edge.size else np.nan), lines, files)
    except (Refused, ValueError) as error:
        raise Refused(f"{path}: {error}") from error


# -------------------------------------------------------------------------------------------------------------- phases


def phases(grey: Array, how: Reading, path: Path) -> Bits:
    """1 where solid and 0 where pore, of the shape of `grey`. Raises Refused where grey values do not say which is which."""
    if not (np.issubdtype(grey.dtype, np.number) or grey.dtype == np.bool_) or np.iscomplexobj(grey):
        raise Refused(f"{path}: voxels are {grey.dtype}; expected numbers, 1 for solid and 0 for pore")
    if np.issubdtype(grey.dtype, np.floating) and not np.isfinite(grey).all():
        raise Refused(f"{path}: {int((~np.isfinite(grey)).sum())} voxels are nan or infinite; cut them off, or assign them to a phase")
    if how.bright not in ("solid", "pore"):
        raise Refused(f"the bright phase is {how.bright!r}; expected solid or pore")
    values = _values(grey)
    level = how.threshold
    if level is None:
        if len(values) == 2:
            level = (float(values[0]) + float(values[1])) / 2
        elif len(values) == 1:
            if float(values[0]) not in (0.0, 1.0):
                raise Refused(f"{path}: every voxel is {values[0]:g}; expected two phases, solid 1 and pore 0")
            level = 0.5
        else:
            raise Refused(_which_phases(path, grey, values))
    if len(values) > 1 and not values[0] <= level < values[-1]:
        raise Refused(f"{path}: threshold {level:g} lies outside the grey values {values[0]:g} to {values[-1]:g}: one phase would be empty")
    bright = grey > level
    return np.asarray(bright if how.bright == "solid" else ~bright).astype(np.uint8)


def _values(grey: Array) -> Array:
    """The distinct values in ascending order."""
    if grey.dtype == np.uint8:
        return np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    if grey.dtype == np.bool_:
        return np.array([value for value in (0, 1) if bool((grey == value).any())])
    return np.unique(grey)


def _which_phases(path: Path, grey: Array, values: Array) -> str:
    ask = "say where the bright phase begins, e.g. --threshold"
    if len(values) <= FEW and np.allclose(values, np.rint(values)):
        shares = ", ".join(f"{value:g} in {np.mean(grey == value):.1%}" for value in values)
        middle = (float(values[-2]) + float(values[-1])) / 2
        return f"{path}: holds {len(values)} phases ({shares} of the voxels); two are modelled: {ask} {middle:g}, to join all but the last"
    span = f"{len(values)} grey values from {values[0]:g} to {values[-1]:g}"
    return f"{path}: holds {span}, not two phases; {ask} {otsu(grey):g} (Otsu's, which separates them best: look at the histogram)"


def otsu(grey: Array) -> float:
    """The threshold that leaves the least variance within the two phases (Otsu 1979, IEEE Trans. SMC 9:62), to 1/256 of the range."""
    count, edges = np.histogram(grey, bins=256)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)[:-1].astype(float)
    above = count.sum() - below
    sums = np.cumsum(count * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.nan_to_num(between)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # an empty valley is as good all along: take its middle
    return float(edges[1:-1][best].mean())


def _cubic(path: Path, solid: Bits, edges: Array) -> tuple[Bits, str]:
    """Volumes on cubes of the longest edge of a voxel, by linear interpolation of the solid and a cut at one half."""
    from scipy import ndimage

    ratio = edges / edges.max()
    if ratio.min() < 0.2:
        said = " x ".join(f"{e:g}" for e in edges)
        raise Refused(f"{path}: voxels of {said} micrometres; an axis five times coarser than another says too little")
    even = np.stack([ndimage.zoom(one.astype(np.float32), ratio, order=1, mode="nearest", grid_mode=True) >= 0.5 for one in solid])
    said = " x ".join(f"{e:g}" for e in edges)
    shapes = " x ".join(map(str, solid.shape[1:])), " x ".join(map(str, even.shape[1:]))
    return even.astype(np.uint8), (
        f"{path.name}: voxels of {said} micrometres (depth, height, width) resampled to cubes of {edges.max():g}: {shapes[0]} became "
        f"{shapes[1]} voxels"
    )


# --------------------------------------------------------------------------------------------------------------- files


def _grey(path: Path, how: Reading) -> tuple[Array, Array, list[Path]]:
    """Grey values, edges of a voxel (none, 1, or 3 numbers; or one per volume) and the files that were read."""
    name = path.name.lower()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise Refused(f"{path}: no such file or folder; expected a volume as .tif, .npz, .npy, .h5 or raw voxels, or a folder of slices")
    if name.endswith((".tif", ".tiff")):
        grey, edges = _tiff(path)
    elif name.endswith(RAW):
        grey, edges = _raw(path, how.shape), np.empty(0)
    elif name.endswith(".npz"):
        grey, edges = _npz(path)
    elif name.endswith(".npy"):
        grey, edges = _npy(path), np.empty(0)
    elif name.endswith((".h5", ".hdf5")):
        grey, edges = _hdf5(path)
    else:
        raise Refused(f"{path}: volumes are read from .tif, .npz, .npy, .h5, .raw, .bin or .dat, or from a folder of slices")
    return grey, edges, [path]


def _tiff(path: Path) -> tuple[Array, Array]:
    from PIL import Image, ImageSequence

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that nobody needs; pixels that cannot be read are an error
            with Image.open(path) as file:
                edges = _tiff_edges(file)
                pages = [_plain(path, page) for page in ImageSequence.Iterator(file)]
    except Refused:
        raise
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no TIFF file ({error})") from error
    if len(pages) < 2:
        raise Refused(f"{path}: holds one slice of {pages[0].shape}; give a TIFF of many pages, or the folder that holds all slices")
    return _stacked([(f"{path}, page {number}", page) for number, page in enumerate(pages, 1)]), edges


def _plain(name: Any, image: Any) -> Array:
    """One slice as numbers; refused where it is a colour picture."""
    if image.mode in ("RGB", "RGBA", "CMYK", "P", "LA"):
        pixels = np.asarray(image.convert("RGB"))
        if (pixels[..., :1] != pixels).any():
            raise Refused(f"{name}: is a colour picture; expected grey values or two phases")
        return pixels[..., 0]
    return np.asarray(image)


def _stacked(slices: Sequence[tuple[str, Array]]) -> Array:
    first = slices[0][1].shape
    for name, one in slices:
        if one.shape != first:
            raise Refused(f"{name}: is {one.shape} pixels, the first slice {first}; slices of one volume are equally large")
    return np.stack([one for _, one in slices])


def _tiff_edges(file: Any) -> Array:
    """Depth, height and width of a voxel in micrometres by ImageJ's tags; nothing where one of them is missing."""
    described = str(file.tag_v2.get(270, ""))
    spacing = re.search(r"^spacing=([0-9.eE+-]+)", described, re.MULTILINE)
    unit = re.search(r"^unit=(\S+)", described, re.MULTILINE)
    across, down = (file.tag_v2.get(tag) for tag in (282, 283))  # pixels per unit
    if not (spacing and unit and unit[1] in MICROMETRES and across and down):
        return np.empty(0)
    edges = np.array([abs(float(spacing[1])), 1 / float(down), 1 / float(across)])
    return edges if (edges > 0).all() and np.isfinite(edges).all() else np.empty(0)


def _folder(path: Path) -> tuple[Array, Array, list[Path]]:
    from PIL import Image

    found = [file for file in path.iterdir() if file.suffix.lower() in SLICES]
    if len(found) < 2:
        raise Refused(f"{path}: holds {len(found)} slices as {', '.join(SLICES)}; expected a folder with all slices of one volume")
    numbers = {file: [int(digits) for digits in re.findall(r"\d+", file.stem)] for file in found}
    files = sorted(found, key=lambda file: (numbers[file], file.name))
    steps = {tuple(np.subtract(numbers[b], numbers[a])) for a, b in itertools.pairwise(files) if len(numbers[a]) == len(numbers[b])}
    if len(steps) > 1:
        gap = next(b for a, b in itertools.pairwise(files) if tuple(np.subtract(numbers[b], numbers[a])) != min(steps))
        raise Refused(f"{path}: the numbers of the slices jump before {gap.name}; a slice is missing, or two volumes lie in one folder")
    slices = []
    for file in files:
        try:
            with Image.open(file) as image:
                slices.append((str(file), _plain(file, image)))
        except Refused:
            raise
        except DAMAGE as error:
            raise Refused(f"{file}: is damaged, or no picture ({error})") from error
    return _stacked(slices), np.empty(0), files


def _raw(path: Path, shape: Sequence[int]) -> Array:
    size = path.stat().st_size
    if len(shape) != 3 or min(shape) < 1:
        root = round(size ** (1 / 3))
        guess = f" ({size} bytes could be {root} x {root} x {root})" if root**3 == size else f" of its {size} bytes"
        raise Refused(f"{path}: raw voxels do not say their shape{guess}; add --shape depth,height,width")
    voxels = int(np.prod(np.asarray(shape, np.int64)))
    if size == voxels:
        return np.fromfile(path, np.uint8).reshape(shape)
    if size == 2 * voxels:
        return np.fromfile(path, "<u2").reshape(shape)
    if size == -(-voxels // 8):
        return np.unpackbits(np.fromfile(path, np.uint8), count=voxels).reshape(shape)
    said = " x ".join(map(str, shape))
    raise Refused(f"{path}: holds {size} bytes; {said} voxels are {voxels} as bytes, {2 * voxels} as words, {-(-voxels // 8)} as bits")


def _npz(path: Path) -> tuple[Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no .npz of plain arrays ({error})") from error
    edges = np.atleast_1d(np.asarray(found.pop("voxel_um", np.empty(0)), float))
    if "packed" in found:
        if "shape" not in found:
            raise Refused(f"{path}: holds `packed` bits without their `shape`; add shape = (depth, height, width)")
        shape = tuple(int(length) for length in np.ravel(found["shape"]))
        voxels, packed = int(np.prod(np.asarray(shape, np.int64))), found["packed"]
        if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != -(-voxels // 8):
            raise Refused(f"{path}: {packed.size} bytes of `packed` bits cannot be {shape} voxels, which take {-(-voxels // 8)}")
        return np.unpackbits(packed, count=voxels).reshape(shape), _one_each(edges, shape)
    grey = _only(path, found)
    return grey, _one_each(edges, grey.shape)


def _one_each(edges: Array, shape: Sequence[int]) -> Array:
    """One edge per volume where there are as many as volumes; three for three volumes are theirs, too."""
    each = len(shape) == 4 and edges.size == shape[0]
    return edges[:1] if each and edges.size == 3 and (edges == edges[0]).all() else edges


def _npy(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no .npy of numbers ({error})") from error


def _hdf5(path: Path) -> tuple[Array, Array]:
    try:
        import h5py
    except ImportError as error:
        raise Refused(f'{path}: HDF5 needs h5py; pip install "simulacra[astro]", or convert the volume to .npz') from error
    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visit(names.append)
            item = _only(path, {name: file[name] for name in names if isinstance(file[name], h5py.Dataset)})
            marks = {**file.attrs, **item.attrs}
            edges = next((np.atleast_1d(np.asarray(marks[k], float)) for k in ("voxel_um", "element_size_um") if k in marks), np.empty(0))
            return np.asarray(item[()]), edges
    except Refused:
        raise
    except DAMAGE as error:
        raise Refused(f"{path}: is damaged, or no HDF5 file ({error})") from error


def _only(path: Path, found: dict[str, Any]) -> Any:
    """The array called `solid`, or the only one of three or four axes."""
    if "solid" in found:
        return found["solid"]
    boxes = {name: array for name, array in found.items() if array.ndim in (3, 4)}
    if len(boxes) != 1:
        held = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "nothing"
        raise Refused(f"{path}: holds {held}; expected one array of three or four axes, or one called `solid`")
    return next(iter(boxes.values()))
