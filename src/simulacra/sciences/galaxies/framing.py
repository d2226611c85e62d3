"""What all generators of galaxy images share: the frame that images are brought to, their classes, turns of the sky, bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from simulacra.sciences.galaxies import data, statistics
from simulacra.sciences.galaxies.data import Images
from simulacra.study import Recipe, Refused, Split

I = TypeVar("I", bound=Images)

PIXELS_AT_ONCE = 1 << 20  # through the networks together, in pixels: 256 images of 64 px, one of 1024 px
FEWEST_HELD_OUT = 20  # images that a verdict can say anything about
FEWEST_OF_A_CLASS = 10  # training images from which a class can be learned at all; it takes hundreds to be learned well


class ImageRecipe(Recipe):
    """The frame that images are brought to, and what takes their place where none are given."""

    side: int = Field(64, ge=16, le=1024, description="Image side in pixels, a power of two; larger images are shrunk to it.")
    colour: bool = Field(True, description="Red, green and blue bands; false: one grey band.")
    crop: float | None = Field(None, gt=0, description="Central part to keep: pixels above 1, share of the short side up to 1; none: all.")
    simulated: PositiveInt = Field(2000, description="Galaxies to simulate where no data are given (needs galsim).")

    @field_validator("side")
    @classmethod
    def _power_of_two(cls, side: int) -> int:
        if side & (side - 1):
            raise ValueError(f"side {side} is not a power of two; use 16, 32, 64, 128, 256, 512 or 1024")
        return side

    @property
    def bands(self) -> int:
        return 3 if self.colour else 1


class ClassRecipe(ImageRecipe):
    """The same, for systems that draw an asked class."""

    classes: int = Field(3, ge=2, le=1000, description="Classes, numbered from 0, that images are labelled with and can be asked for.")


CONDITIONS = {"class": "Class number, as labels of the data number them; several, separated by commas, are drawn in turn: 0,1,2."}


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: ImageRecipe) -> Split[Images]:
    """Your images, or simulated galaxies, at the recipe's side and in its bands."""
    return data.load(
        data=recipe.data, side=recipe.side, colour=recipe.colour, seed=recipe.seed, simulated=recipe.simulated, crop=recipe.crop
    )


def load_labelled(recipe: ClassRecipe) -> Split[Images]:
    """The same, without the images whose class is not known, or is none of training's.

    Raises Refused where labels lie outside the recipe's classes, where none are given, where a class has fewer than
    FEWEST_OF_A_CLASS training images, and where fewer than FEWEST_HELD_OUT held-out images have a class.
    """
    found = load(recipe)
    numbers = found.train.label
    most = int(numbers.max())
    if most >= recipe.classes:
        raise Refused(
            f"an image is labelled {most}, but the recipe knows {recipe.classes} classes, numbered from 0: add --classes {most + 1}"
            f"{_of_origin(found)}"
        )
    if most < 0:
        raise Refused(
            "no training image has a class; give class folders, a table with a column `label` beside the images, or `label` in the .npz; "
            f"galaxies.wgan_gp draws without classes{_of_origin(found)}"
        )
    _each_can_be_learned(torch.bincount(numbers[numbers >= 0], minlength=recipe.classes).tolist(), most)
    parts = {name: getattr(found, name) for name in ("train", "validation", "held_out")}
    known = {name: images[(images.label >= 0) & (images.label < recipe.classes)] for name, images in parts.items()}
    if len(known["held_out"]) < FEWEST_HELD_OUT:
        raise Refused(
            f"{len(known['held_out'])} of {len(found.held_out)} held-out images have a class that training has; a verdict needs "
            f"{FEWEST_HELD_OUT}: label more, or give more images"
        )
    lines = [line for name, images in parts.items() for line in _left_out(name.replace("_", "-"), images.label, recipe.classes)]
    return dataclasses.replace(found, **known, rejected=[*found.rejected, *lines])


def _of_origin(found: Split[Images]) -> str:
    """Whence labels come, for a message about them."""
    whence = [part for part in found.origin.split("; ") if part.startswith("labels from")]
    return f" ({whence[0]})" if whence else ""


def _each_can_be_learned(counts: Sequence[int], most: int) -> None:
    """Refuse classes, of these numbers of training images, that cannot be learned; `most` is the highest label of all."""
    few = [kind for kind, count in enumerate(counts) if count < FEWEST_OF_A_CLASS]
    if not few:
        return
    kind, count = few[0], counts[few[0]]
    images = "image" if count == 1 else "images"
    what = f"class {kind} has {count} training {images}, and cannot be learned from fewer than {FEWEST_OF_A_CLASS}"
    if kind > most:
        advice = f"labels end at {most}: add --classes {most + 1}" if most else "all images are labelled 0, and two classes are the fewest"
    elif kind == 0 and count == 0:
        advice = "classes are numbered from 0"
    else:
        advice = "add some, or label these -1 and number the other classes without a gap"
    raise Refused(f"{what}; {advice} (counts: {', '.join(map(str, counts[:20]))}{' ...' if len(counts) > 20 else ''})")


def _left_out(part: str, label: Tensor, classes: int) -> list[str]:
    """One line for images without a class, one for those of classes that training does not have."""
    without, strange = int((label < 0).sum()), label[label >= classes].tolist()
    lines = [f"{without} {part} image{'s' if without > 1 else ''} set aside: no class"] if without else []
    if strange:
        kinds = ", ".join(map(str, sorted(set(strange))[:10]))
        lines.append(f"{len(strange)} {part} image{'s' if len(strange) > 1 else ''} set aside: class {kinds}, which training does not have")
    return lines


def read(path: Path) -> Images:
    """Images that any program wrote, at the side they have."""
    return data.read(path)[0]


def read_as(path: Path, recipe: ImageRecipe) -> Images:
    """The same at the recipe's side, crop and bands: what a trained network takes."""
    return data.read(path, recipe.side, recipe.colour, crop=recipe.crop)[0]


# -------------------------------------------------------------------------------------------------------------- asking


def blank(recipe: ImageRecipe, label: Tensor) -> Images:
    """Templates without light, of the given classes (n,)."""
    return Images(torch.zeros(len(label), recipe.bands, recipe.side, recipe.side, dtype=torch.uint8), label)


def ask_nothing(recipe: ImageRecipe, n: int, conditions: Mapping[str, str]) -> Images:
    """A template of n images, for a system that knows no conditions."""
    if conditions:
        raise Refused(f"this system draws unconditionally, but {', '.join(conditions)} was asked; galaxies.acgan and .ddpm take a class")
    return blank(recipe, torch.full((n,), -1))


def ask_class(recipe: ClassRecipe, n: int, conditions: Mapping[str, str]) -> Images:
    """A template of n images of the asked class, or of the classes asked for in turn (default: all)."""
    unknown = set(conditions) - {"class"}
    if unknown:
        raise Refused(f"galaxies are drawn by class, not by {', '.join(sorted(unknown))}; --class 1")
    text = conditions.get("class", ",".join(map(str, range(recipe.classes))))
    try:
        asked = [int(number) for number in text.split(",")]
    except ValueError:
        raise Refused(f"class {text!r} is not a number; e.g. --class 1, or --class 0,2") from None
    wrong = [number for number in asked if not 0 <= number < recipe.classes]
    if wrong:
        raise Refused(f"class {wrong[0]} was never seen in training; the classes are 0 to {recipe.classes - 1}")
    return blank(recipe, torch.tensor(asked)[torch.arange(n) % len(asked)])


def caption(images: Images) -> list[str]:
    """The class of each image, where it has one."""
    return [f"class {label}" if label >= 0 else "" for label in images.label.tolist()]


# -------------------------------------------------------------------------------------------------------------- pixels


def turned(x: Tensor, way: Tensor) -> Tensor:
    """Images (n, bands, side, side), each in one of the eight orientations of a square, `way` (n,) in 0 ... 7."""
    chosen = way.to(x.device)[:, None, None, None]
    x = torch.where((chosen & 1).bool(), x.flip(2), x)
    x = torch.where((chosen & 2).bool(), x.flip(3), x)
    return torch.where((chosen & 4).bool(), x.transpose(2, 3), x)


def as_bytes(y: Tensor) -> Tensor:
    """Brightness in [0, 1] as bytes on the CPU."""
    return (255 * y.clamp(0, 1)).round().to(torch.uint8).cpu()


def spread(images: I, count: int) -> I:
    """At most `count` images, evenly spread over all."""
    return images[torch.linspace(0, len(images) - 1, count).round().long()] if len(images) > count else images


def blocks(images: I) -> Iterator[I]:
    """In parts that are small enough to be held as floats."""
    size = max(1, PIXELS_AT_ONCE // images.side**2)
    return (images[start : start + size] for start in range(0, len(images), size))


def noise_variance(images: Images) -> float:
    """Variance of the pixel noise, full scale 1: within blocks of an eighth of the side along the border, the median block of
    each image, averaged over images and bands. Noise coarser than a block is not counted, a faint neighbour hardly."""
    size = max(2, images.side // 8)
    values = []
    for block in blocks(images):
        tiles = block.float().unfold(2, size, size).unfold(3, size, size)  # (n, bands, rows, columns, size, size)
        edge = torch.cat([tiles[:, :, 0], tiles[:, :, -1], tiles[:, :, 1:-1, 0], tiles[:, :, 1:-1, -1]], dim=2)
        values.append(edge.flatten(3).var(dim=3).median(dim=2).values.mean(dim=1))
    return float(torch.cat(values).mean())


# ------------------------------------------------------------------------------------------------- fields of every study here

SYSTEM: dict[str, Any] = {
    "judge": statistics.judge, "read": read, "read_as": read_as, "write": data.write, "picture": data.picture,
}  # fmt: skip
UNCONDITIONAL: dict[str, Any] = SYSTEM | {"load": load, "ask": ask_nothing, "conditions": {}}
BY_CLASS: dict[str, Any] = SYSTEM | {"load": load_labelled, "ask": ask_class, "caption": caption, "conditions": CONDITIONS}
