"""Arrays as pictures in a page: PNG data URIs whose pixels are the samples' pixels, and mosaics of them.

Small samples are enlarged by whole factors only and large ones are averaged over whole blocks, so a lattice site is always
a square of one colour.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.floating[Any]]

LARGEST = 256  # pixels on the longer side of a picture in the page
NOT_DEFINED = (0.8, 0.475, 0.655)  # where a sample is not a finite number: reddish purple, which no study's pictures use

_MAGIC = {b"\x89PNG": "png", b"GIF8": "gif", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}


def as_bytes(images: Images) -> NDArray[np.uint8]:
    """Values in [0, 1] as 0 ... 255, (n, h, w, 3); clipped, and `NOT_DEFINED` where not finite."""
    images = np.asarray(images, float)
    defined = np.isfinite(images).all(axis=3, keepdims=True)
    shown = np.where(defined, images, np.asarray(NOT_DEFINED))
    levels: NDArray[np.uint8] = np.rint(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
    return levels


def shrunk(images: Images, largest: int = LARGEST) -> tuple[Images, int]:
    """Images averaged over square blocks until neither side exceeds `largest`, and the side of the block."""
    height, width = images.shape[1:3]
    block = max(1, -(-max(height, width) // largest))
    if block == 1:
        return images, 1
    rows, columns = max(height // block, 1), max(width // block, 1)
    cut = images[:, : rows * block, : columns * block]
    return cut.reshape(len(images), rows, block, columns, -1, 3).mean(axis=(2, 4)), block


def enlargement(height: int, width: int, target: int) -> int:
    """The largest whole factor that keeps the longer side within `target` pixels, at least 1."""
    return max(1, target // max(height, width))


def png(image: NDArray[np.uint8]) -> bytes:
    """One image (h, w, 3) as PNG: grey where it is grey, without time or program."""
    grey = bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all())
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: bytes | str) -> str:
    """Image bytes, or the text of an SVG, as a data URI. An SVG shown so can neither run scripts nor load anything."""
    if isinstance(image, str):
        return "data:image/svg+xml;base64," + base64.b64encode(image.encode()).decode()
    for magic, kind in _MAGIC.items():
        if image.startswith(magic):
            return f"data:image/{kind};base64," + base64.b64encode(image).decode()
    raise ValueError(f"a figure must be PNG, GIF, JPEG or WebP bytes or the text of an SVG; it starts with {image[:8]!r}")


def size(image: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, read from its head."""
    with Image.open(io.BytesIO(image)) as opened:
        width, height = opened.size
    return width, height


def last_frame(image: bytes) -> bytes:
    """The last frame of an animated image as PNG, for paper and for who wants no motion; nothing of an image that is still."""
    with Image.open(io.BytesIO(image)) as opened:
        frames = getattr(opened, "n_frames", 1)
        if frames == 1:
            return b""
        opened.seek(frames - 1)
        return png(np.asarray(opened.convert("RGB")))


def mosaic(images: Images, width: int, height: int, between: int = 4, *, most: int = 64) -> tuple[NDArray[np.float64], int]:
    """As many images as fit well, up to `most`, side by side in at most (height, width) pixels; RGBA and the number shown.

    Each keeps its shape and is scaled by a whole factor; the gaps between are transparent.
    """
    best = (0.0, 1, 1)
    for columns in range(1, most + 1):
        for rows in range(1, min(most, len(images)) // columns + 1):
            best = max(best, (_filled(images.shape, columns, rows, width, height, between), columns, rows))
    _, columns, rows = best
    room = (max((width + between) // columns - between, 8), max((height + between) // rows - between, 8))
    tiles = _scaled(images[: rows * columns], *room)
    return _laid_out(tiles, rows, columns, between), rows * columns


def _filled(shape: tuple[int, ...], columns: int, rows: int, width: int, height: int, between: int) -> float:
    """Share of the room that is covered; tiles that would be smaller than 40 pixels count little."""
    h, w = shape[1:3]
    scale = min(((width + between) // columns - between) / w, ((height + between) // rows - between) / h)
    whole = np.floor(scale) if scale >= 1 else (1 / np.ceil(1 / scale) if scale > 0 else 0.0)
    covered = columns * rows * (whole * h) * (whole * w) / (width * height)
    legible = min(1.0, max(whole * h, whole * w) / 72)
    return float(covered * legible**2 * min(1.0, 0.8 + 0.2 * columns * rows / 12))


def _scaled(images: Images, width: int, height: int) -> Images:
    block = max(-(-images.shape[1] // height), -(-images.shape[2] // width))
    if block > 1:
        images, _ = shrunk(images, max(images.shape[1:3]) // block or 1)
    factor = max(1, min(height // images.shape[1], width // images.shape[2]))
    return np.repeat(np.repeat(images, factor, axis=1), factor, axis=2)


def _laid_out(tiles: Images, rows: int, columns: int, between: int) -> NDArray[np.float64]:
    h, w = tiles.shape[1:3]
    canvas = np.zeros((rows * (h + between) - between, columns * (w + between) - between, 4))
    for i, tile in enumerate(as_bytes(tiles) / 255):
        top, left = (i // columns) * (h + between), (i % columns) * (w + between)
        canvas[top : top + h, left : left + w, :3] = tile
        canvas[top : top + h, left : left + w, 3] = 1.0
    return canvas
