"""Reading pictures of galaxies as bytes: folders and archives of JPEG, PNG, TIFF or FITS, and .npz arrays; labels beside them.

    crop      the central square of the image: its short side, or `crop` pixels, or `crop` times the short side
    resample  an integer factor averages blocks of pixels (exact); any other factor uses Lanczos-3 widened by the factor
    FITS      flux f per pixel -> 255 clip(asinh((f - sky + s) / 2s) / asinh(100), 0, 1) with the sky the median and s the
              robust scatter (1.4826 MAD) of the border of each band, s averaged over bands: black lies 1 s below the sky,
              white 199 s above it. Bands in the order red, green, blue. Resampled first, stretched afterwards.
    16 bits   counts / 257, after resampling; never cut off
    colour    palettes, CMYK and other spaces become red, green, blue; transparency is laid over black sky; grey by 0.299 R + 0.587 G
              + 0.114 B (ITU-R BT.601). A grey image among colour is set aside: three equal bands would be a colour nobody measured

Images smaller than `side` are set aside, since enlarging invents power that no telescope measured; `enlarge=True` allows it.
What cannot be used is named with its reason; nothing is ever unpickled, and no header is believed before its size was checked.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import os
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from simulacra.study import Refused

Array = NDArray[Any]

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
FITS = (".fits", ".fit", ".fits.gz", ".fit.gz")
LARGEST_IMAGE = 80_000_000  # pixels; a larger header is refused before anything is allocated
LARGEST_RECORD = 1 << 30  # bytes of one unpacked file inside an archive
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)  # what readers raise on it
LARGEST_RATIO = 500  # unpacked : packed; photographs reach 1-20, blank sky 100, archives made to do harm 1000


class _Unusable(Exception):
    """One record that cannot be used; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class _Record:
    name: str
    open: Callable[[], tuple[Array, Callable[[Array], Array]]]  # planes (h, w) or (h, w, 3), and what turns them into bytes
    group: str = ""  # folder it lies in, which names its class where there are several
    label: int = -1


@dataclasses.dataclass(frozen=True)
class Frame:
    """What every image is brought to; None takes it from the first image that can be read."""

    side: int | None
    colour: bool | None
    crop: float | None
    enlarge: bool

    def fit(self, planes: Array, to_bytes: Callable[[Array], Array]) -> NDArray[np.uint8]:
        """(channels, side, side) bytes."""
        if not np.isfinite(planes).all():
            bad = ~np.isfinite(planes.reshape(planes.shape[0], planes.shape[1], -1)).all(axis=2)
            row, column = np.argwhere(bad)[0]
            where = f"the first at row {row}, column {column}"
            raise _Unusable(f"{bad.sum()} of {bad.size} pixels are NaN or infinite, {where}; mask or mend them")
        square = _centre(_in_colour(planes, self.colour), self.crop)
        side = self.side or square.shape[0]
        if square.shape[0] < side and not self.enlarge:
            raise _Unusable(
                f"its central square is {square.shape[0]} px and {side} px are asked for; enlarging invents detail: "
                f"lower `side` to {square.shape[0]}"
            )
        out = to_bytes(_resampled(square, side))
        return np.ascontiguousarray(out.reshape(side, side, -1).transpose(2, 0, 1))


@dataclasses.dataclass(frozen=True)
class Reading:
    """All usable records of a place, and what happened to the others."""

    pixels: NDArray[np.uint8]  # (n, channels, side, side)
    label: NDArray[np.int64]  # (n,); -1 where unknown
    names: list[str]
    rejected: list[str]
    files: dict[str, str]
    remark: str
    part: list[str]  # train · valid · test per row, "" where no table says so


def gather(path: Path, frame: Frame, strict: bool) -> Reading:
    """Every image at `path` brought to `frame`; `strict` refuses the first that cannot be."""
    if frame.side is not None and frame.side < 4:
        raise Refused(f"side = {frame.side} px cannot show a galaxy; ask for 8 or more")
    if frame.crop is not None and not frame.crop > 0:
        raise Refused(f"crop = {frame.crop}: expected a number of pixels above 1 or a fraction in (0, 1]")
    if not path.exists():
        raise Refused(f"{path}: no such file or folder; give a folder or zip of images or FITS cutouts, or an .npz")
    with ExitStack() as open_files:
        records, ignored, files = _records(path, open_files)
        if not records:
            raise Refused(f"{path}: holds no image; expected {', '.join(PICTURES + FITS)} (found: {_some(ignored) or 'nothing'})")
        pixels, kept, rejected = _fill(records, frame, path, strict)
    if not kept:
        raise Refused(f"{path}: none of {len(records)} records can be used. The first: {rejected[0]}")
    names = [records[i].name for i in kept]
    label, part, remark = _labelled(path, [records[i] for i in kept], files)
    if ignored:
        rejected = [*rejected, f"{len(ignored)} files that are not images were ignored: {_some(ignored)}"]
    return Reading(pixels, np.array(label, np.int64), names, rejected, files, remark, part)


def _fill(records: Sequence[_Record], frame: Frame, path: Path, strict: bool) -> tuple[NDArray[np.uint8], list[int], list[str]]:
    """Bytes of all usable records in one array, their numbers, and a line for each of the others."""
    pixels: NDArray[np.uint8] | None = None
    kept: list[int] = []
    rejected: list[str] = []
    for number, record in enumerate(records):
        try:
            image = frame.fit(*record.open())
        except _Unusable as why:
            rejected.append(f"{record.name}: {why}")
            if strict:
                raise Refused(f"{path}: {record.name}: {why} (strict)") from why
            continue
        if pixels is None:
            _fits_in_memory(path, len(records) * image.size)
            pixels = np.empty((len(records), *image.shape), np.uint8)
            frame = dataclasses.replace(frame, side=image.shape[1], colour=image.shape[0] == 3)
        pixels[len(kept)] = image
        kept.append(number)
    return np.empty((0, 1, 4, 4), np.uint8) if pixels is None else pixels[: len(kept)], kept, rejected


def _records(path: Path, open_files: ExitStack) -> tuple[list[_Record], list[str], dict[str, str]]:
    """Records to read, names ignored, sha256 sums."""
    if path.is_dir():
        return _in_folder(path)
    kind = path.suffix.lower()
    if kind == ".npz":
        return list(_in_npz(path)), [], {str(path): _sha256(path)}
    if kind == ".zip":
        records, ignored = _in_zip(path, open_files)
        return records, ignored, {str(path): _sha256(path)}
    if kind in PICTURES or path.name.lower().endswith(FITS):
        return [_Record(path.name, partial(_decode_file, path, path.name))], [], {str(path): _sha256(path)}
    raise Refused(f"{path}: do not know how to read {kind or 'a file without ending'}; expected a folder, .zip, .npz, a picture or FITS")


def _in_folder(path: Path) -> tuple[list[_Record], list[str], dict[str, str]]:
    records, ignored, sums = [], [], []
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if not _is_image(name):
            ignored += [] if _is_table(name) else [name]
            continue
        group = file.parent.name if "/" in name else ""
        records.append(_Record(name, partial(_decode_file, file, name), group))
        sums.append(f"{_sha256(file)}  {name}\n")
    total = hashlib.sha256("".join(sums).encode()).hexdigest()  # as of `sha256sum`'s own output
    return records, ignored, {f"{path} ({len(sums)} files)": total}


def _in_zip(path: Path, open_files: ExitStack) -> tuple[list[_Record], list[str]]:
    try:
        archive = open_files.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError, struct.error) as error:
        raise Refused(f"{path}: not a complete zip archive ({error}); it was probably cut short: fetch it again") from error
    records, ignored = [], []
    for info in sorted(archive.infolist(), key=lambda i: i.filename):
        if info.is_dir():
            continue
        if not _is_image(info.filename):
            ignored += [] if _is_table(info.filename) else [info.filename]
            continue
        where = PurePosixPath(info.filename)
        group = where.parent.name if len(where.parts) > 1 else ""
        records.append(_Record(info.filename, partial(_decode_member, archive, info), group))
    return records, ignored


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if ".." in PurePosixPath(info.filename).parts or info.filename.startswith(("/", "\\")):
        raise _Unusable("its path leads out of the archive; pack the images with plain names")
    if info.flag_bits & 1:
        raise _Unusable("is encrypted; unpack the archive first")
    if info.file_size > LARGEST_RECORD or info.file_size > LARGEST_RATIO * max(info.compress_size, 1) + 65536:
        raise _Unusable(f"unpacks from {info.compress_size} to {info.file_size} bytes, which no image does; left packed")
    try:
        with archive.open(info) as stream:
            content = stream.read(info.file_size + 1)
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _Unusable(f"is damaged inside the archive ({error})") from error
    if len(content) != info.file_size:
        raise _Unusable(f"holds another number of bytes than its archive says ({info.file_size})")
    return content


def _in_npz(path: Path) -> Iterator[_Record]:
    stack, label = _npz_arrays(path)
    for i in range(len(stack)):
        yield _Record(f"{path.name}[{i}]", partial(_npz_row, stack[i]), label=-1 if label is None else int(label[i]))


def _npz_arrays(path: Path) -> tuple[Array, Array | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > 1100 * max(info.compress_size, 1):
                    raise Refused(f"{path}: {info.filename} claims {info.file_size} bytes from {info.compress_size}; not an honest archive")
            _fits_in_memory(path, sum(i.file_size for i in archive.infolist()))
        with np.load(path, allow_pickle=False) as content:
            name = next((n for n in ("pixels", "images") if n in content.files), None)
            if name is None:
                raise Refused(f"{path}: expected an array `images` or `pixels`, found {', '.join(content.files) or 'nothing'}")
            stack = content[name]
            label = content["label"] if "label" in content.files else None
    except Refused:
        raise
    except (*DAMAGE, zipfile.BadZipFile, tokenize.TokenError, MemoryError) as error:
        raise Refused(f"{path}: not a readable .npz of plain number arrays ({error})") from error
    if stack.ndim == 4 and stack.shape[1] in (1, 3) and stack.shape[-1] not in (1, 3):
        stack = stack.transpose(0, 2, 3, 1)
    if stack.ndim not in (3, 4) or (stack.ndim == 4 and stack.shape[-1] not in (1, 3)):
        raise Refused(f"{path}: `{name}` has shape {stack.shape}; expected (n, h, w), (n, h, w, 3) or (n, 3, h, w)")
    if stack.dtype != np.uint8 and not np.issubdtype(stack.dtype, np.floating):
        raise Refused(f"{path}: `{name}` is {stack.dtype}; expected bytes 0-255 (uint8) or floats in [0, 1]")
    if label is not None and (label.shape != stack.shape[:1] or not np.issubdtype(label.dtype, np.integer)):
        raise Refused(f"{path}: `label` is {label.dtype} {label.shape}; expected one integer for each of {len(stack)} images")
    return stack[..., 0] if stack.ndim == 4 and stack.shape[-1] == 1 else stack, label


def _npz_row(row: Array) -> tuple[Array, Callable[[Array], Array]]:
    if row.dtype == np.uint8:
        return row, lambda planes: planes
    finite = row[np.isfinite(row)]
    if finite.size and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
        raise _Unusable(f"pixel values run from {finite.min():.4g} to {finite.max():.4g}; floats must lie in [0, 1], or give FITS files")
    return row.astype(np.float32), lambda planes: np.rint(255 * np.clip(planes, 0, 1)).astype(np.uint8)


def _decode_file(file: Path, name: str) -> tuple[Array, Callable[[Array], Array]]:
    return _decode(name, file.read_bytes())


def _decode_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[Array, Callable[[Array], Array]]:
    return _decode(info.filename, _unpacked(archive, info))


def _decode(name: str, content: bytes) -> tuple[Array, Callable[[Array], Array]]:
    return _fits(name, content) if name.lower().endswith(FITS) else _picture(content)


def _picture(content: bytes) -> tuple[Array, Callable[[Array], Array]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content)) as image:
                _is_reasonable(image)
                image.load()
                return _levels(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            count = re.search(r"\((\d+) pixels\)", str(error))
            raise _Unusable(_too_many(count[1] if count else "far too many")) from error
        except UnidentifiedImageError as error:
            raise _Unusable(f"is not an image, whatever its name says (it starts with {content[:12]!r})") from error
        except DAMAGE as error:
            raise _Unusable(f"is damaged or cut short ({error})") from error


def _too_many(pixels: int | str) -> str:
    return f"its header announces {pixels} pixels, more than the {LARGEST_IMAGE} allowed; refused unread, crop it first"


def _is_reasonable(image: Image.Image) -> None:
    if image.width * image.height > LARGEST_IMAGE:
        raise _Unusable(_too_many(image.width * image.height))
    if getattr(image, "n_frames", 1) > 1:
        raise _Unusable(f"holds {getattr(image, 'n_frames', 1)} frames; give one image per file")


def _levels(image: Image.Image) -> tuple[Array, Callable[[Array], Array]]:
    """Grey or RGB bytes; 16-bit grey keeps its precision until it is resampled. Transparency is laid over black sky."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32)
        if grey.min() < 0 or grey.max() > 65535:
            raise _Unusable(f"pixel values run from {grey.min():.0f} to {grey.max():.0f}; 16 bits hold 0 to 65535: give FITS or floats")
        return grey, lambda planes: np.rint(np.clip(planes / 257, 0, 255)).astype(np.uint8)
    if image.mode == "F":
        return _npz_row(np.asarray(image, np.float32))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), over).convert("L" if image.mode == "LA" else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.asarray(image), lambda planes: planes


def _fits(name: str, content: bytes) -> tuple[Array, Callable[[Array], Array]]:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise Refused('reading FITS needs astropy: pip install "simulacra[astro]"') from error
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(LARGEST_RECORD + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _Unusable(f"is damaged or cut short ({error})") from error
        if len(content) > LARGEST_RECORD:
            raise _Unusable(f"unpacks to more than {LARGEST_RECORD} bytes, which no cutout does; left packed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=False) as units:
                unit = next((u for u in units if u.header.get("NAXIS", 0) in (2, 3) and getattr(u, "is_image", False)), None)
                shape = None if unit is None else tuple(unit.shape)
                if shape is not None and np.prod(shape) * 8 > LARGEST_RECORD:
                    raise _Unusable(f"its header announces {shape} pixels; refused unread")
                data = None if unit is None else np.asarray(unit.data, np.float32)
        except _Unusable:
            raise
        except Exception as error:  # astropy reports damage through a dozen unrelated exception types
            raise _Unusable(f"is not a complete FITS file ({str(error).strip() or type(error).__name__})") from error
    if data is None:
        raise _Unusable("holds no image of two or three dimensions")
    if data.ndim == 3 and data.shape[0] in (1, 3):
        data = data.transpose(1, 2, 0)
    if data.ndim == 3 and data.shape[2] not in (1, 3):
        raise _Unusable(f"is a cube of shape {data.shape}; expected one band, or three in the order red, green, blue")
    data = data[::-1]  # FITS counts rows from the bottom
    return data[..., 0] if data.ndim == 3 and data.shape[2] == 1 else data, stretch


def stretch(flux: Array) -> NDArray[np.uint8]:
    """Bytes from flux per pixel, (h, w) or (h, w, bands): the asinh curve of the module docstring."""
    planes = flux.reshape(*flux.shape[:2], -1).astype(np.float64)
    edge = np.concatenate([planes[0], planes[-1], planes[:, 0], planes[:, -1]])
    sky = np.median(edge, axis=0)
    scatter = float(np.mean(1.4826 * np.median(np.abs(edge - sky), axis=0)))
    scatter = scatter or float(np.max(np.abs(planes - sky))) / 199 or 1.0  # a cutout without noise
    level = np.arcsinh((planes - sky + scatter) / (2 * scatter)) / np.arcsinh(100.0)
    counts: NDArray[np.uint8] = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    return counts.reshape(flux.shape)


def _in_colour(planes: Array, colour: bool | None) -> Array:
    if colour is True and planes.ndim == 2:
        raise _Unusable("is grey, but colour is asked for; set `colour` to false (--no-colour)")
    if colour is False and planes.ndim == 3:
        grey = planes.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.rint(grey).astype(np.uint8) if planes.dtype == np.uint8 else grey
    return planes


def _centre(planes: Array, crop: float | None) -> Array:
    height, width = planes.shape[:2]
    short = min(height, width)
    keep = short if crop is None else round(crop * short) if crop <= 1 else int(crop)
    if not 4 <= keep <= short:
        raise _Unusable(f"is {width} x {height} px and cannot give a central square of {keep} px")
    top, left = (height - keep) // 2, (width - keep) // 2
    return planes[top : top + keep, left : left + keep]


def _resampled(square: Array, side: int) -> Array:
    if square.shape[0] == side:
        return square
    factor, rest = divmod(square.shape[0], side)
    if square.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(square))
        return np.asarray(image.reduce(factor) if not rest else image.resize((side, side), Image.Resampling.LANCZOS))
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(square.reshape(*square.shape[:2], -1), 2, 0)]
    small = [np.asarray(p.reduce(factor) if not rest else p.resize((side, side), Image.Resampling.LANCZOS)) for p in planes]
    return np.stack(small, axis=2).reshape(side, side, *square.shape[2:])


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") and part != ".." for part in name.split("/")) or "__MACOSX" in name
    return name.lower().endswith(PICTURES + FITS) and not hidden


def _is_table(name: str) -> bool:
    return name.lower().endswith((".csv", ".csv.gz"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fits_in_memory(path: Path, size: int) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return
    if size > memory:
        raise Refused(f"{path}: needs {size / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f}; read fewer or smaller images")


# -------------------------------------------------------------------------------------------------------------- labels


def _labelled(path: Path, records: Sequence[_Record], files: dict[str, str]) -> tuple[list[int], list[str], str]:
    """Labels and parts by the table beside the data, else by class folders, else by what the file holds itself; and in words whence."""
    label, part, remark = [r.label for r in records], [""] * len(records), ""
    groups = sorted({r.group for r in records})
    if len(groups) > 1 and "" not in groups:
        label = [groups.index(r.group) for r in records]
        remark = f"labels from class folders: {_numbering(groups)}"
    table = _table_beside(path)
    if table is None:
        return label, part, remark
    rows, classes = _table(table)
    files[str(table)] = _sha256(table)
    names = [PurePosixPath(r.name).name for r in records]
    found = [rows.get(name) or rows.get(name.split(".")[0]) for name in names]
    if not any(found):
        raise Refused(f"{table}: none of its rows names an image of {path} (images are called {records[0].name}, ...)")
    if classes is not None:
        label = [-1 if row is None else row[0] for row in found]
        remark = f"labels from {table.name}" + (f": {_numbering(classes)}" if classes else "")
    part = ["" if row is None else row[1] for row in found]
    without = found.count(None)
    return label, part, remark + (f"; {without} images have no row in {table.name}" if without else "")


def _numbering(names: Sequence[str]) -> str:
    return ", ".join(f"{i} {name}" for i, name in enumerate(names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _table_beside(path: Path) -> Path | None:
    stem = path.name if path.is_dir() else path.name.removesuffix(path.suffix)
    places = [path.parent / f"{stem}.csv", path.parent / f"{stem}.csv.gz"]
    places += [path / "labels.csv", path / "labels.csv.gz"] if path.is_dir() else []
    return next((p for p in places if p.is_file()), None)


def _table(path: Path) -> tuple[dict[str, tuple[int, str]], list[str] | None]:
    """File name or id -> (label, part), from the columns file (or name, galaxy_id, id), label (or pixel_class), split; and the names
    of the classes, in the order of their numbers: none where labels are numbers, None where there is no such column."""
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = [c.strip() for c in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise Refused(f"{path}: not a readable table ({error})") from error
    key = next((c for c in ("file", "name", "filename", "galaxy_id", "id", "objid", "GalaxyID") if c in columns), None)
    kind = next((c for c in ("label", "pixel_class", "class") if c in columns), None)
    if key is None or (kind is None and "split" not in columns):
        raise Refused(f"{path}: columns {', '.join(columns)}; expected `file` and at least one of `label`, `pixel_class`, `split`")
    label, classes = ([-1] * len(rows), None) if kind is None else _classes([(row.get(kind) or "").strip() for row in rows], path, kind)
    parts = [(row.get("split") or "").strip().lower() for row in rows]
    names = [(row[key] or "").strip() for row in rows]
    return dict(zip(names, zip(label, parts, strict=True), strict=True)), classes


def _classes(texts: Sequence[str], path: Path, column: str) -> tuple[list[int], list[str]]:
    """Class numbers of a column's texts, -1 where unknown, and the names that they count: in alphabetical order, none where the
    texts are numbers themselves."""
    numbers = [_class_number(text) for text in texts]
    if None not in numbers:
        return [int(number) for number in numbers if number is not None], []
    words = sorted({text for text, number in zip(texts, numbers, strict=True) if number is None})
    measured = any(_is_number(word) for word in words)
    if measured or any(number is not None and number >= 0 for number in numbers):
        line = next(i for i, number in enumerate(numbers) if number is None and (not measured or _is_number(texts[i])))
        raise Refused(
            f"{path}, line {line + 2}: `{column}` is {texts[line]!r}; expected whole numbers throughout (-1: unknown), or names throughout"
        )
    place = {word: i for i, word in enumerate(words)}
    return [place.get(text, -1) for text in texts], words


def _class_number(text: str) -> int | None:
    """The number that a text is, -1 where it says that none is known, None where it is a word or no whole number."""
    if text.lower() in ("", "nan", "na", "none", "null", "unknown", "?"):
        return -1
    try:
        number = float(text)
    except ValueError:
        return None
    return max(int(number), -1) if number.is_integer() else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
