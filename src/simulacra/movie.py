"""Frames to a movie file: GIF with pillow, MP4 (H.264) with the optional imageio-ffmpeg."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from simulacra.study import Refused

SEEN = 256  # px: smaller frames are enlarged by whole pixels to at least this height, or players blur them
LETTERS, MARGIN = 14, 6  # px: height of letters, and white around them


def write_movie(frames: NDArray[np.floating] | NDArray[np.uint8], path: Path, *, rate: int = 20) -> None:
    """Write frames (n, height, width, 3) in [0, 1], or bytes, to `path` (.gif or .mp4) at `rate` frames per second; a GIF loops.

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


def as_bytes(frames: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (n, height, width, 3) in [0, 1] as bytes (those of bytes as they are); Refused for other shapes and for none."""
    if frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise Refused(f"a movie needs frames of shape (n, height, width, 3), got {frames.shape}")
    if frames.dtype == np.uint8:
        return frames.astype(np.uint8, copy=False)
    pixels: NDArray[np.uint8] = np.rint(255 * np.clip(frames, 0, 1)).astype(np.uint8)
    return pixels


def enlarged(frames: NDArray[np.uint8], least: int = SEEN) -> NDArray[np.uint8]:
    """Every pixel repeated so that frames are at least `least` px high."""
    times = -(-least // frames.shape[1])
    return frames.repeat(times, axis=1).repeat(times, axis=2) if times > 1 else frames


def captioned(frames: NDArray[np.uint8], words: Sequence[str]) -> NDArray[np.uint8]:
    """Frames, enlarged, with their words in a white strip below: black, broken into lines where the frame is narrow."""
    frames = enlarged(frames)
    font, width = _font(), frames.shape[2] - 2 * MARGIN
    texts = [_broken(text, width, font) for text in words]
    lines = max(text.count("\n") + 1 for text in texts)
    strip = round(1.4 * LETTERS * lines) + 2 * MARGIN
    return np.concatenate([frames, np.stack([_written(text, (frames.shape[2], strip), font) for text in texts])], axis=1)


def _font() -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it has Greek, indices and arrows, which pillow's own has not."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", LETTERS)


def _broken(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _written(text: str, size: tuple[int, int], font: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).multiline_text((MARGIN, MARGIN), text, fill="black", font=font, spacing=round(0.2 * LETTERS))
    return np.asarray(sheet)


def png(page: NDArray[np.floating] | NDArray[np.uint8], *, width: int = 900) -> bytes:
    """The bytes of a PNG of one page (height, width, 3) in [0, 1], or bytes, every pixel repeated as often as `width` has room for."""
    pixels = as_bytes(page[None])[0]
    times = max(1, width // pixels.shape[1])
    out = io.BytesIO()
    Image.fromarray(pixels.repeat(times, axis=0).repeat(times, axis=1)).save(out, "PNG")
    return out.getvalue()


def gif(frames: NDArray[np.uint8], *, rate: int = 20) -> bytes:
    """The bytes of a looping GIF. Each frame has its own palette: one for all shows bands in dark skies."""
    images = [Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    out = io.BytesIO()
    # GIF counts time in hundredths of a second.
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=max(20, round(100 / rate) * 10), loop=0, disposal=1)
    return out.getvalue()


def resting(frames: NDArray[np.uint8], *, rate: int = 20, seconds: float = 1.5) -> NDArray[np.uint8]:
    """The frames with the last one held for a while: what a movie of a draw leads to is worth a look."""
    return np.concatenate([frames, np.repeat(frames[-1:], round(rate * seconds), axis=0)])


def gif_within(frames: NDArray[np.uint8], limit: int, *, seconds: float = 3.0) -> bytes:
    """A looping GIF of at most `limit` bytes that rests on its last frame, for a page. First every other frame is left out, down to
    12; then pixels are averaged two by two. The first and the last frame stay; the movie lasts `seconds` and the rest."""
    while True:
        rate = max(1, round(len(frames) / seconds))
        content = gif(enlarged(resting(frames, rate=rate)), rate=rate)
        if len(content) <= limit or min(frames.shape[1:3]) < 2:
            return content
        if len(frames) > 24:
            frames = frames[np.linspace(0, len(frames) - 1, -(-len(frames) // 2)).round().astype(int)]
        else:
            n, height, width = (len(frames), frames.shape[1] // 2, frames.shape[2] // 2)
            blocks = frames[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, 3)
            frames = blocks.mean(axis=(2, 4)).round().astype(np.uint8)


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
