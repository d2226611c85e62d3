"""Pictures that several generators of galaxies show: templates of asked classes, and the way from class to class as a movie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from simulacra import movie
from simulacra.evidence import Figure
from simulacra.sciences.galaxies import data
from simulacra.sciences.galaxies.data import Images
from simulacra.study import Imagines, Noise


def templates(images: Images, label: Tensor) -> Images:
    """Empty images of the given classes (n,), of the size of `images`."""
    return Images(torch.zeros(len(label), *images.pixels.shape[1:], dtype=torch.uint8), label)


def class_to_class(learner: Imagines, nature: Images, classes: int, seed: int, device: torch.device) -> Figure:
    """The movie of `morph`, with its caption."""
    caption = f"Each column is one position, taken through classes {', '.join(map(str, range(classes)))} and back to the first."
    return Figure("From class to class", caption, gif(morph(learner, nature, classes, seed, device)))


def morph(
    learner: Imagines, nature: Images, classes: int, seed: int, device: torch.device, *, columns: int = 4, frames: int = 8
) -> list[Images]:  # fmt: skip
    """`columns` positions at each moment of the way through all classes and back, `frames` moments from one class to the next."""
    position = Noise(seed, range(columns)).normal(learner.latent).to(device)
    found = []
    for kind in range(classes):
        here, there = (templates(nature, torch.full((columns,), k % classes)).to(device) for k in (kind, kind + 1))
        found += [learner.imagine(position, here, there, torch.full((columns,), f / frames)) for f in range(frames)]
    return found


def gif(moments: Sequence[Images]) -> bytes:
    """A movie with one row of images per moment."""
    pages = np.stack([data.sheet(moment, columns=len(moment)) / 255 for moment in moments])
    return movie.gif(movie.enlarged(movie.as_bytes(pages), 128), rate=10)
