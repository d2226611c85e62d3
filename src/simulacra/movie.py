"""Frames to a movie file: GIF with pillow, MP4 (H.264) with the optional imageio-ffmpeg."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simulacra.study import Refused

SEEN = 256  # px: smaller frames are enlarged by whole pixels to at least this height, or players blur them


def write_movie(frames: NDArray[np.floating], path: Path, *, rate: int = 20) -> None:
    """Write frames (n, height, width, 3) in [0, 1] to `path` (.gif or .mp4) at `rate` frames per second; a GIF loops.

    Refused for another ending, for no frames, and for .mp4 where imageio-ffmpeg is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise Refused(f"{path}: cannot write a movie as {ending or 'a file without ending'}; choose .gif or .mp4")
    pixels = enlarged(as_bytes(frames))
    if ending == ".gif":
        path.write_bytes(gif(pixels, rate=rate))
    else:
        _write_mp4(pixels, path, rate)


def as_bytes(frames: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Frames (n, height, width, 3) in [0, 1] as bytes; Refused for other shapes and for none."""
    if frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise Refused(f"a movie needs frames of shape (n, height, width, 3), got {frames.shape}")
    pixels: NDArray[np.uint8] = np.rint(255 * np.clip(frames, 0, 1)).astype(np.uint8)
    return pixels


def enlarged(frames: NDArray[np.uint8], least: int = SEEN) -> NDArray[np.uint8]:
    """Every pixel repeated so that frames are at least `least` px high."""
    times = -(-least // frames.shape[1])
    return frames.repeat(times, axis=1).repeat(times, axis=2) if times > 1 else frames


def gif(frames: NDArray[np.uint8], *, rate: int = 20) -> bytes:
    """The bytes of a looping GIF. Each frame has its own palette: one for all shows bands in dark skies."""
    images = [Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    out = io.BytesIO()
    # GIF counts time in hundredths of a second.
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=max(20, round(100 / rate) * 10), loop=0, disposal=1)
    return out.getvalue()


def _write_mp4(frames: NDArray[np.uint8], path: Path, rate: int) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise Refused('writing .mp4 needs imageio-ffmpeg: pip install "simulacra[movie]"; or write .gif') from error
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # H.264 halves the colour planes
    writer = imageio_ffmpeg.write_frames(
        str(path), (even.shape[2], even.shape[1]), fps=rate, macro_block_size=2, quality=8, ffmpeg_log_level="error"
    )
    writer.send(None)
    for frame in even:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
