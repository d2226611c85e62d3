"""Images of galaxies: what nature is here, how it is divided and written; reading.py reads it.

One row is one galaxy: bytes 0-255 in one band (grey) or in three, red first. Sky surveys publish such composites with an
asinh stretch (Lupton et al. 2004, PASP 116:133), so a byte is a compressed surface brightness and not a flux.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from simulacra.sciences.galaxies.reading import Frame, Reading, gather
from simulacra.study import Refused, Samples, Split


@dataclasses.dataclass(frozen=True)
class Images(Samples):
    """Galaxies in 8-bit pixels, as surveys publish them; bytes, so that large sets fit in memory."""

    pixels: Tensor  # uint8 (n, channels, side, side); 1 channel: grey, 3: red, green, blue
    label: Tensor  # int64 (n,); -1 where unknown

    def check(self) -> None:
        p, label = self.pixels, self.label
        if p.ndim != 4 or p.shape[1] not in (1, 3) or p.shape[2] != p.shape[3]:
            raise Refused(f"galaxy images need shape (n, 1 or 3 bands, side, side), got {tuple(p.shape)}; crop them to squares")
        if p.dtype != torch.uint8:
            raise Refused(f"galaxy images are kept as bytes 0-255 (uint8), got {p.dtype}; multiply by 255, round and convert")
        if label.ndim != 1 or label.dtype != torch.int64:
            raise Refused(f"labels need shape (n,) and type int64 (-1: unknown), got {tuple(label.shape)} {label.dtype}")

    def float(self) -> Tensor:
        """Pixels as float32 in [0, 1]."""
        return self.pixels.to(torch.float32) / 255

    @property
    def side(self) -> int:
        return int(self.pixels.shape[-1])

    @property
    def bands(self) -> int:
        return int(self.pixels.shape[1])


def read(
    path: Path | str, side: int | None = None, colour: bool | None = None, *,
    crop: float | None = None, strict: bool = False, enlarge: bool = False,
) -> tuple[Images, list[str], dict[str, str]]:  # fmt: skip
    """Images from a folder or zip of pictures (JPEG, PNG, TIFF) or FITS cutouts, or from an .npz (images/pixels, label).

    Brought to `side` px (None: the size of the first) in colour or grey (None: as the first). `crop` keeps the central
    pixels (above 1) or fraction (up to 1). Returns the images, one line per record set aside, and sha256 sums.
    Labels come from a table of the same name (.csv, .csv.gz), from `label` in the .npz, or from class folders.
    """
    reading = gather(Path(path), Frame(side, colour, crop, enlarge), strict)
    return _images(reading), reading.rejected, reading.files


def _images(reading: Reading) -> Images:
    return Images(torch.from_numpy(reading.pixels), torch.from_numpy(reading.label))


# --------------------------------------------------------------------------------------------------------------- split


FEWEST = 60  # images that can be divided so that the judge has twenty


def split(images: Images, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of train, validation and held-out (80 : 10 : 10), by a keyed hash of the pixels. Of fewer than 250 images up to
    a third, 25 of them, is held out: a verdict on fewer says nothing, and it must be refused before training, not after.

    Identical images fall on one side whatever they are called, and the choice does not depend on the order of files.
    """
    digests = _digests(images, seed)
    distinct = sorted(set(digests))
    if len(distinct) < FEWEST:
        what = f"{len(images)} image{'' if len(images) == 1 else 's'}, {len(distinct)} distinct"
        raise Refused(f"{what}: cannot be split into train, validation and held-out; give {FEWEST} or more")
    tenth = round(len(distinct) / 10)
    held = max(tenth, min(25, len(distinct) // 3))
    side = {d: 2 if i < held else 1 if i < held + tenth else 0 for i, d in enumerate(distinct)}
    where = torch.tensor([side[d] for d in digests])
    train, validation, held_out = (torch.nonzero(where == k)[:, 0] for k in range(3))
    return train, validation, held_out


def _digests(images: Images, seed: int) -> list[bytes]:
    key = seed.to_bytes(8, "little", signed=True)
    return [hashlib.blake2b(row.tobytes(), digest_size=16, key=key).digest() for row in images.pixels.cpu().numpy()]


def _split_by_table(images: Images, part: Sequence[str], seed: int) -> tuple[tuple[Tensor, Tensor, Tensor], str]:
    """The table's own parts. Without `test` rows, `valid` is held out and validation is cut from `train`."""
    names = np.array(["valid" if p.startswith("val") else p for p in part])
    digests = np.array(_digests(images, seed), dtype=object)
    rows = {name: np.flatnonzero(names == name) for name in ("train", "valid", "test")}
    if len(rows["test"]) and len(rows["valid"]):
        train, validation, held_out = rows["train"], rows["valid"], rows["test"]
        how = "split as the table says"
    else:
        held_out = rows["test"] if len(rows["test"]) else rows["valid"]
        order = rows["train"][np.argsort(digests[rows["train"]], kind="stable")]
        count = min(500, max(1, len(order) // 10))
        validation, train = np.sort(order[:count]), np.sort(order[count:])
        how = f"held out: the table's {'test' if len(rows['test']) else 'valid'} rows; validation: {count} of its train rows by hash"
    known = set(digests[held_out])
    validation = np.array([i for i in validation if digests[i] not in known], int)
    known |= set(digests[validation])
    clean = np.array([i for i in train if digests[i] not in known], int)
    if min(len(clean), len(validation), len(held_out)) == 0:
        counts = f"{len(clean)} train, {len(validation)} validation, {len(held_out)} held-out images"
        raise Refused(f"the table's split leaves {counts}; its column needs `train` and `valid` or `test`")
    how += f"; {len(train) - len(clean)} training images dropped as copies of others held back" if len(clean) < len(train) else ""
    return (torch.from_numpy(clean), torch.from_numpy(validation), torch.from_numpy(held_out)), how


def load(
    *, data: Path | None, side: int, colour: bool, seed: int, simulated: int, crop: float | None = None, strict: bool = False,
    enlarge: bool = False,
) -> Split[Images]:  # fmt: skip
    """Your images at `data`, or `simulated` galaxies drawn by galsim, in three parts that share no image."""
    if data is None:
        from simulacra.sciences.galaxies.simulate import recipe_line, simulate

        images = simulate(simulated, side, seed, colour)
        train, validation, held_out = (images[rows] for rows in split(images, seed))
        line = recipe_line(simulated, side, seed, colour)
        digest = hashlib.sha256(images.pixels.numpy().tobytes()).hexdigest()
        return Split(train, validation, held_out, f"{simulated} simulated galaxies, {side} px: {line}", {line: digest})
    path = Path(data)
    reading = gather(path, Frame(side, colour, crop, enlarge), strict)
    images = _images(reading)
    if any(reading.part):
        parts, how = _split_by_table(images, reading.part, seed)
    else:
        parts, how = split(images, seed), "split by hash of the pixels"
    what = f"{path.name}: {len(images)} galaxies, {side} px, {'colour' if colour else 'grey'}"
    cut = "" if crop is None else f", central {crop:g}{' px' if crop > 1 else ' of the side'}"
    origin = "; ".join(x for x in (what + cut, reading.remark, how) if x)
    train, validation, held_out = (images[rows] for rows in parts)
    return Split(train, validation, held_out, origin, reading.files, reading.rejected)


# ------------------------------------------------------------------------------------------------------------- writing


def picture(images: Images) -> NDArray[np.float32]:
    """(n, side, side, 3) in [0, 1]; grey is repeated in the three channels."""
    pixels = images.float().permute(0, 2, 3, 1).cpu().numpy()
    return np.asarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)), np.float32)


def write(images: Images, path: Path | str) -> None:
    """`x.npz`: arrays pixels (n, bands, side, side) uint8 and label; `x.png`: one sheet of all; no ending: a folder of PNG."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".npz":
        np.savez_compressed(path, pixels=images.pixels.cpu().numpy(), label=images.label.cpu().numpy())
    elif kind == ".png":
        Image.fromarray(sheet(images)).save(path)
    elif not kind:
        path.mkdir(parents=True, exist_ok=True)
        digits = len(str(max(len(images) - 1, 0)))
        for i, row in enumerate(images.pixels.cpu().numpy()):
            Image.fromarray(row[0] if len(row) == 1 else row.transpose(1, 2, 0)).save(path / f"{i:0{digits}d}.png")
    else:
        raise Refused(f"{path}: cannot write galaxies as {kind}; use .npz, .png (one sheet) or a name without ending (a folder of PNG)")


def sheet(images: Images, columns: int | None = None, gap: int = 1) -> NDArray[np.uint8]:
    """All images on one (height, width, 3) page, row by row, `gap` px apart."""
    pixels = np.rint(255 * picture(images)).astype(np.uint8)
    n, side = pixels.shape[:2]
    columns = columns or max(1, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    page = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 40, np.uint8)
    for i, image in enumerate(pixels):
        y, x = (i // columns) * (side + gap), (i % columns) * (side + gap)
        page[y : y + side, x : x + side] = image
    return page
