"""What a trained run is good for: samples, pictures, latent movies and scores, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulacra.families.autoencoder import latent_path
from simulacra.movie import write_movie
from simulacra.pipeline import as_grid, draw_like, trained
from simulacra.runs import Run
from simulacra.study import Encodes, Refused, Scores
from simulacra.training import device_of

PICTURES, MOVIES = (".png",), (".gif", ".mp4")


def draw(
    path: Path, out: Path, *, n: int, conditions: Mapping[str, str], seed: int, images: Path | None, through: Sequence[int], frames: int
) -> None:
    """Write `n` samples of the run `path` under `conditions` to `out`; for .gif and .mp4, a closed path through the latent
    positions of the rows `through` of `images` (default: held-out), with `frames` frames from one to the next.

    Raises Refused for an ending that cannot be written, a condition that the study does not know, or a latent path of a
    learner that has no latent space.
    """
    ending = out.suffix.lower()
    if ending not in (".npz", *PICTURES, *MOVIES):
        raise Refused(f"cannot write {ending or 'a file without ending'}: choose .npz (samples), .png (grid), .gif or .mp4 (latent path)")
    asked, recipe, learner, split = trained(Run.open(path))
    if ending in MOVIES:
        _movie(asked, learner, _read(asked, recipe, images) if images else split.held_out, out, through, frames)
        return
    drawn = draw_like(learner, asked.ask(recipe, n, conditions), seed=seed, device=device_of(recipe.device))
    if ending in PICTURES:
        write_png(as_grid(asked.picture(drawn)), out)
    else:
        asked.write(drawn, out)


def scores(path: Path, samples: Path) -> str:
    """CSV text: one row per sample of the file `samples`, scored by the learner of run `path`."""
    asked, recipe, learner, _ = trained(Run.open(path))
    if not isinstance(learner, Scores):
        raise Refused(f"{type(learner).__name__} gives no score per sample; studies that do say so in `simulacra show`")
    values = learner.score(_read(asked, recipe, samples).to(device_of(recipe.device)))
    return "row,score\n" + "".join(f"{i},{v:.6g}\n" for i, v in enumerate(values.tolist()))


def _read(asked: Any, recipe: Any, path: Path) -> Any:
    return asked.read_as(path, recipe) if asked.read_as else asked.read(path)


def _movie(asked: Any, learner: Any, samples: Any, out: Path, through: Sequence[int], frames: int) -> None:
    if not isinstance(learner, Encodes):
        raise Refused("this learner has no latent space to travel through; write .npz or .png instead")
    if len(through) < 2 or not all(0 <= r < len(samples) for r in through):
        raise Refused(f"a latent path needs at least two rows between 0 and {len(samples) - 1}, got {list(through)}")
    path = latent_path(learner.encode(samples[list(through)]), frames * len(through))
    write_movie(asked.picture(learner.decode(path)), out)


def write_png(picture: np.ndarray, out: Path, scale: int = 0) -> None:
    """One image (h, w, 3) in [0, 1], enlarged by whole pixels so that small lattices can be seen."""
    from PIL import Image

    scale = scale or max(1, round(900 / max(picture.shape[:2])))
    sheet = Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(out)
