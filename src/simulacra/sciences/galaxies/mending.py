"""Images of galaxies with hidden pixels: how they come about, how they are read, and the verdict on what was filled in.

    patches   a share of the patches at random, as masked autoencoders are trained
    trail     a straight band across the frame within a quarter of the side of its middle, 3 to 9 px wide at 64 px: a satellite
    columns   one to four bands of columns, or of rows, 1 to 4 px wide: detector columns that died

The judge compares hidden pixels with the truth, image by image. Its rival is the harmonic fill: Laplace's equation in the hole with the
visible pixels about it as the boundary, which is linear interpolation across a dead column. A fill-in that has the least squared error
is a mean, smoother than nature; `small-scale light` says by how much.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from simulacra.evidence import Check, Evidence, Finding, scored
from simulacra.families.masking import hide_patches, over_pixels
from simulacra.sciences.galaxies import data, framing, statistics
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import ImageRecipe
from simulacra.study import Noise, Refused

Array = NDArray[np.float64]

BREAKS = ("patches", "trail", "columns")
NUMBERS = 9  # uniform numbers that one trail or one set of columns takes
RIVAL = "harmonic fill"
FEWEST = 4  # images from which an error is averaged
EDGES = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 9.5, 1e9])  # px from the nearest visible pixel


@dataclasses.dataclass(frozen=True)
class Mended(Images):
    """Galaxies of which some pixels are, or were, hidden."""

    hidden: Tensor  # bool (n, side, side), the same in all bands
    kind: Tensor  # int64 (n,): number in BREAKS, -1 where the mask came with the image

    def check(self) -> None:
        super().check()
        if self.hidden.dtype != torch.bool or self.hidden.shape[1:] != self.pixels.shape[2:]:
            raise Refused(
                f"hidden pixels are given as bool (n, {self.side}, {self.side}), true where hidden, got {self.hidden.dtype} "
                f"{tuple(self.hidden.shape)}"
            )


# -------------------------------------------------------------------------------------------------------------- breaks


def trails(u: Tensor, side: int) -> Tensor:
    """Hidden pixels (n, side, side) of one trail per row, from numbers u (n, >= 3) uniform on [0, 1)."""
    angle, offset, width = math.pi * u[:, 0], (u[:, 1] - 0.5) / 2 * side, (3 + 6 * u[:, 2]) * side / 64
    place = torch.arange(side) + 0.5 - side / 2
    away = place * angle.sin()[:, None, None] - place[:, None] * angle.cos()[:, None, None] - offset[:, None, None]
    return away.abs() <= width[:, None, None] / 2


def columns(u: Tensor, side: int) -> Tensor:
    """Hidden pixels (n, side, side) of one to four bands of columns, or of rows in half of the cases, from numbers u (n, NUMBERS)."""
    place = torch.arange(side)
    first = (u[:, 1:5] * side).floor()[..., None]
    width = (1 + (4 * max(1.0, side / 64) * u[:, 5:9]).floor())[..., None]
    there = torch.arange(4)[:, None] < 1 + (4 * (2 * u[:, 0] % 1)[:, None, None]).floor()
    band = ((place >= first) & (place < first + width) & there).any(dim=1)
    down, across = band[:, None, :].expand(-1, side, -1), band[:, :, None].expand(-1, -1, side)
    return torch.where((u[:, 0] < 0.5)[:, None, None], down, across)


def broken(images: Images, seed: int, *, patch: int, share: float, kinds: Sequence[int]) -> Mended:
    """The same images with hidden pixels, the `kinds` of breaks in turn. Image i of a seed is broken alike in a set of any size."""
    n, side = len(images), images.side
    noise = Noise(seed, range(n))
    u, tiles = noise.uniform(NUMBERS), noise.uniform((side // patch) ** 2)
    patches = over_pixels(hide_patches(tiles, share), patch)
    kind = torch.tensor(kinds)[torch.arange(n) % len(kinds)]
    hidden = torch.stack([patches, trails(u, side), columns(u, side)])[kind, torch.arange(n)]
    return Mended(images.pixels, images.label, hidden, kind)


def whole(images: Images) -> Mended:
    """The same images, nothing hidden."""
    n, side = len(images), images.side
    return Mended(images.pixels, images.label, torch.zeros(1, 1, 1, dtype=torch.bool).expand(n, side, side), torch.full((n,), -1))


# ------------------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> Mended:
    """Images that any program wrote; of an .npz also its arrays `hidden` and `kind`, where it has them. Without, nothing is hidden."""
    images = framing.read(path)
    hidden, kind = _arrays(path, "hidden", "kind") if path.suffix.lower() == ".npz" else (None, None)
    if hidden is None:
        return whole(images)
    kinds = torch.full((len(images),), -1) if kind is None else torch.from_numpy(kind.astype(np.int64))
    return Mended(images.pixels, images.label, _of_frame(path, hidden, len(images), images.side), kinds)


def read_as(path: Path, recipe: ImageRecipe) -> Mended:
    """The same at the recipe's side, crop and bands: what a trained network takes."""
    own = read(path) if path.suffix.lower() == ".npz" else None
    images = framing.read_as(path, recipe)
    return Mended(images.pixels, images.label, own.hidden, own.kind) if own and own.side == images.side else whole(images)


def read_broken(path: Path, mask: Path | None, recipe: ImageRecipe) -> Mended:
    """Images to mend, brought to the recipe's frame along with what is hidden: the array `hidden` of the .npz `mask`, or of the
    images' own file. Raises Refused where neither says what is hidden, and for an image that cannot be read."""
    place = mask or path
    hidden = _arrays(place, "hidden")[0] if place.suffix.lower() == ".npz" else None
    if hidden is None:
        raise Refused(
            f"{place}: holds no array `hidden`; give --mask FILE.npz with `hidden` (n, height, width), or (height, width) for all images, "
            "true where pixels are to be filled in"
        )
    images = data.read(path, recipe.side, recipe.colour, crop=recipe.crop, strict=True)[0]
    shown = _in_frame(place, hidden, len(images), recipe)
    if not bool(shown.any()):
        raise Refused(f"{place}: no pixel is hidden, so there is nothing to mend")
    return Mended(images.pixels, images.label, shown, torch.full((len(images),), -1))


def _arrays(path: Path, *names: str) -> list[NDArray[Any] | None]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return [content[name] if name in content.files else None for name in names]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Refused(f"{path}: not a readable .npz of plain number arrays ({error})") from error


def _of_frame(path: Path, hidden: NDArray[Any], n: int, side: int) -> Tensor:
    if hidden.shape != (n, side, side) or hidden.dtype.kind not in "bui":
        raise Refused(f"{path}: `hidden` is {hidden.dtype} {hidden.shape}; expected bool ({n}, {side}, {side})")
    return torch.from_numpy(hidden != 0)


def _in_frame(path: Path, hidden: NDArray[Any], n: int, recipe: ImageRecipe) -> Tensor:
    """A mask of the size of the images, cropped and shrunk as they are: a pixel is hidden that any hidden pixel reaches."""
    mask = np.broadcast_to(hidden, (n, *hidden.shape)) if hidden.ndim == 2 else hidden
    if mask.ndim != 3 or len(mask) != n or mask.dtype.kind not in "bui":
        raise Refused(f"{path}: `hidden` is {hidden.dtype} {hidden.shape}; expected bool ({n}, height, width), one for each image")
    short = min(mask.shape[1:])
    keep = short if recipe.crop is None else round(recipe.crop * short) if recipe.crop <= 1 else int(recipe.crop)
    if keep < recipe.side:
        raise Refused(f"{path}: `hidden` is {mask.shape[1]} x {mask.shape[2]} px and cannot cover images of {recipe.side} px")
    top, left = ((length - keep) // 2 for length in mask.shape[1:])
    square = torch.from_numpy(np.ascontiguousarray(mask[:, top : top + keep, left : left + keep] != 0)).float()
    shrunk = torch.nn.functional.adaptive_max_pool2d(square, recipe.side)
    if keep % recipe.side:  # resampling that is not by whole blocks looks further than the pixels that it covers
        shrunk = torch.nn.functional.max_pool2d(shrunk, 3, stride=1, padding=1)
    return shrunk > 0


def write(images: Mended, path: Path) -> None:
    """Arrays pixels, label, hidden and kind as .npz."""
    np.savez_compressed(
        path, pixels=images.pixels.cpu().numpy(), label=images.label.cpu().numpy(), hidden=images.hidden.cpu().numpy(),
        kind=images.kind.cpu().numpy(),
    )


CONDITIONS = {
    "mend": "File or folder of images to mend, all of them: pictures, FITS cutouts or an .npz; default: simulated galaxies, broken.",
    "mask": "An .npz with `hidden`, bool (n, height, width) or (height, width), true where the images are to be filled in; default: "
    "the array `hidden` of the images' own .npz.",
}


def picture(images: Mended) -> NDArray[np.float32]:
    """Each row twice, side by side: its hidden pixels in dull blue, and without any hidden. (n, side, 2 side, 3) in [0, 1]."""
    shown = data.picture(images)
    shade = np.array([0.25, 0.3, 0.5], np.float32)
    return np.concatenate([np.where(images.hidden.cpu().numpy()[..., None], shade, shown), shown], axis=2)


def caption(images: Mended) -> list[str]:
    """What is hidden of each image."""
    shares = images.hidden.flatten(1).float().mean(1).tolist()
    names = [BREAKS[kind] if kind >= 0 else "own mask" for kind in images.kind.tolist()]
    return [f"{name}, {100 * share:.0f} % hidden" for name, share in zip(names, shares, strict=True)]


def summary(like: Mended, drawn: Mended) -> list[str]:
    """What was mended, in words."""
    share = float(drawn.hidden.float().mean())
    return [
        f"filled in {100 * share:.1f} % of the pixels of {len(drawn)} images; the others are as they were",
        "what was filled in is the mean of what could be there: smoother than nature, without its noise",
    ]


# ------------------------------------------------------------------------------------------------------- interpolation


def visible_mean(pixels: Array, hidden: NDArray[np.bool_]) -> Array:
    """Images (n, bands, side, side), hidden pixels at the mean of the visible ones of their band."""
    seen = ~hidden[:, None]
    mean = (pixels * seen).sum(axis=(2, 3), keepdims=True) / np.maximum(seen.sum(axis=(2, 3), keepdims=True), 1)
    return np.where(seen, pixels, mean)


def harmonic(pixels: Array, hidden: NDArray[np.bool_]) -> Array:
    """Images (n, bands, side, side), hidden pixels each the mean of its four neighbours (fewer at the frame): Laplace's equation."""
    return _solved(pixels, hidden, _laplacian(hidden.shape[1]))


def biharmonic(pixels: Array, hidden: NDArray[np.bool_]) -> Array:
    """The same with the Laplacian of the Laplacian zero: slopes are carried on into the hole."""
    laplacian = _laplacian(hidden.shape[1])
    return _solved(pixels, hidden, laplacian @ laplacian)


INTERPOLATIONS: Mapping[str, Callable[[Array, NDArray[np.bool_]], Array]] = {
    "mean of visible pixels": visible_mean, RIVAL: harmonic, "biharmonic fill": biharmonic,
}  # fmt: skip


def _laplacian(side: int) -> Any:
    line = sparse.diags([np.r_[1.0, np.full(side - 2, 2.0), 1.0], -np.ones(side - 1), -np.ones(side - 1)], [0, 1, -1])
    one = sparse.eye(side)
    return sparse.csc_matrix(sparse.kron(line, one) + sparse.kron(one, line))


def _solved(pixels: Array, hidden: NDArray[np.bool_], operator: Any) -> Array:
    filled = pixels.astype(np.float64).copy()
    for image, mask in zip(filled.reshape(len(filled), filled.shape[1], -1), hidden.reshape(len(hidden), -1), strict=True):
        inside, outside = np.flatnonzero(mask), np.flatnonzero(~mask)
        if len(inside) and len(outside):
            rows = operator[inside]
            image[:, inside] = splu(sparse.csc_matrix(rows[:, inside])).solve(-(rows[:, outside] @ image[:, outside].T)).T
    return filled


# ---------------------------------------------------------------------------------------------------------------- judge


def judge(nature: Mended, drawn: Images, *, seed: int, training: Images | None = None) -> Evidence:
    """Hidden pixels of held-out galaxies against what was filled in, row by row. `training` is not looked at.

    Errors have a ceiling, the harmonic fill, and a floor: for patches the noise of the images, which nobody can foretell a few px
    away from the nearest visible pixel; elsewhere 0, since noise of neighbouring pixels is alike and how far is not known.
    """
    truth, filled, hidden = _compared(nature, drawn)
    rivals = {name: np.rint(np.clip(rule(truth, hidden), 0, 255)) for name, rule in INTERPOLATIONS.items()}
    errors = {name: _squared(values, truth) for name, values in {"drawn": filled, **rivals}.items()}
    kind = nature.kind.cpu().numpy()
    kinds = {name: np.flatnonzero(kind == k) for k, name in enumerate(BREAKS)} | {"own mask": np.flatnonzero(kind < 0)}
    kinds = {name: rows[hidden[rows].any(axis=(1, 2))] for name, rows in kinds.items()}
    kinds = {name: rows for name, rows in kinds.items() if len(rows) >= FEWEST}
    if not kinds:
        raise Refused(f"hidden pixels of at least {FEWEST} images of one kind are needed for a verdict; nature has none such")
    noise = framing.noise_variance(nature)
    away = np.stack([ndimage.distance_transform_edt(mask) for mask in hidden])
    findings = [_error_of(name, rows, errors, hidden, away, noise, seed) for name, rows in kinds.items()]
    findings += _of_galaxies(truth, filled, rivals[RIVAL], seed)
    findings.append(_small_scale(kinds, hidden, truth, filled, rivals[RIVAL], seed))
    checks = [_psnr(name, rows, errors, hidden) for name, rows in kinds.items()]
    changed = float(np.abs(filled - truth)[np.broadcast_to(~hidden[:, None], truth.shape)].max(initial=0))
    remarks = [
        "What was filled in is judged pixel by pixel; the least squared error is reached by a mean, which is smoother than nature.",
        f"Noise of the images: {noise:.3g} (variance, full scale 1), {-10 * math.log10(max(noise, 1e-12)):.1f} dB.",
        *([f"Visible pixels were changed, by up to {changed:.0f} counts; only hidden ones are judged."] if changed else []),
    ]
    return Evidence(findings, checks, nature_rows=len(nature), drawn_rows=len(drawn), remarks=remarks)


def _compared(nature: Mended, drawn: Images) -> tuple[Array, Array, NDArray[np.bool_]]:
    if nature.pixels.shape != drawn.pixels.shape:
        raise Refused(f"row i of both files must be one galaxy: nature is {tuple(nature.pixels.shape)}, mended {tuple(drawn.pixels.shape)}")
    return nature.pixels.cpu().numpy().astype(float), drawn.pixels.cpu().numpy().astype(float), nature.hidden.cpu().numpy()


def _squared(values: Array, truth: Array) -> Array:
    """Squared error of each pixel, mean of the bands, full scale 1: (n, side, side)."""
    return np.asarray(np.square((values - truth) / 255).mean(axis=1), np.float64)


def _per_image(squared: Array, hidden: NDArray[np.bool_]) -> Array:
    """Mean over the hidden pixels of each image, (n,)."""
    return np.asarray((squared * hidden).sum(axis=(1, 2)) / np.maximum(hidden.sum(axis=(1, 2)), 1))


def _error_of(
    name: str, rows: NDArray[np.int64], errors: Mapping[str, Array], hidden: NDArray[np.bool_], away: Array, noise: float, seed: int
) -> Finding:  # fmt: skip
    ours, theirs = (_per_image(errors[which][rows], hidden[rows]) for which in ("drawn", RIVAL))
    floor = min(noise, 0.9 * float(theirs.mean())) if name == "patches" else 0.0
    ring = np.digitize(away[rows], EDGES)
    curves, grid = [], []
    for r in range(1, len(EDGES)):
        inside = (ring == r) & hidden[rows]
        if inside.any():
            grid.append(float(away[rows][inside].mean()))
            ends = np.array([errors[which][rows][inside].mean() for which in ("drawn", RIVAL)])
            curves.append([*ends, errors["drawn"][rows][inside].std() / math.sqrt(max(int(inside.any(axis=(1, 2)).sum()), 1))])
    drawn, rival, band = np.array(curves).T
    told = "the floor is the noise of the images" if floor else "the least that can be reached is not known, so the floor is 0"
    about = f"Mean squared error of hidden pixels, full scale 1, by their distance from the nearest visible one; {told}."
    return scored(
        f"error, {name}", "mean squared error", about, "from the nearest visible pixel (px)", np.array(grid),
        (np.full(len(grid), floor), drawn, rival, band), ours, theirs, floor, rival=RIVAL, seed=seed,
    )  # fmt: skip


def _of_galaxies(truth: Array, filled: Array, rival: Array, seed: int) -> list[Finding]:
    """How far light, half-light radius and colour of each galaxy move when its hidden pixels are filled in."""
    measured = [statistics.measure(_images(values)) for values in (truth, filled, rival)]
    light = [_light(values, truth) for values in (truth, filled, rival)]
    values = {"light": [v / np.where(light[0] > 0, light[0], np.nan) for v in light]}
    values |= {name: [m[name] for m in measured] for name in ("half-light radius", "colour") if name in measured[0]}
    units = {"light": "share of the galaxy's", "half-light radius": "px", "colour": "dex"}
    found = []
    for name, (true, ours, theirs) in values.items():
        moved = np.stack([np.abs(ours - true), np.abs(theirs - true)])
        known = np.isfinite(moved).all(axis=0)
        if known.sum() < FEWEST or not moved[1, known].any():
            continue
        ends = np.quantile(moved[:, known], np.linspace(0.05, 0.95, 19), axis=1)
        band = np.full(19, moved[0, known].std() / math.sqrt(known.sum()))
        about = f"Mean absolute change of the {name} when hidden pixels are filled in, and its quantiles over galaxies; the floor is 0."
        found.append(
            scored(
                f"{name} of the mended galaxy", units[name], about, "share of galaxies", np.linspace(0.05, 0.95, 19),
                (np.zeros(19), ends[:, 0], ends[:, 1], band), moved[0, known], moved[1, known], 0.0, rival=RIVAL, seed=seed,
            )
        )  # fmt: skip
    return found


def _images(values: Array) -> Images:
    return Images(torch.from_numpy(values.astype(np.uint8)), torch.full((len(values),), -1))


def _light(values: Array, truth: Array) -> Array:
    """Counts above the sky of the true image, (n,); the sky is the median of the border of luminance."""
    side = truth.shape[-1]
    edge = np.ones((side, side), bool)
    edge[2:-2, 2:-2] = False
    sky = np.median(truth.mean(axis=1)[:, edge], axis=1)
    return np.asarray((values.mean(axis=1) - sky[:, None, None]).sum(axis=(1, 2)))


def _small_scale(
    kinds: Mapping[str, NDArray[np.int64]], hidden: NDArray[np.bool_], truth: Array, filled: Array, rival: Array, seed: int
) -> Finding:
    """How much less hidden neighbours differ than in nature."""
    power = [_steps(values, hidden) for values in (truth, filled, rival)]  # each (n, 2): sum and count

    def curve(which: Array, rows: NDArray[np.int64]) -> float:
        total = which[rows].sum(axis=0)
        return float(np.log10(total[0] / max(total[1], 1) + 2 * statistics.ROUNDING))

    curves = [np.array([curve(which, rows) for rows in kinds.values()]) for which in power]
    apart = [float(np.abs(c - curves[0]).mean()) for c in curves]
    rng = np.random.default_rng([seed, 0x51])
    gaps, spread = [], []
    for _ in range(200):
        some = [rng.choice(rows, len(rows)) for rows in kinds.values()]
        one = np.array([[curve(which, rows) for rows in some] for which in power])
        gaps.append(np.abs(one[1] - one[0]).mean() / max(float(np.abs(one[2] - one[0]).mean()), 1e-9))
        spread.append(one[0])
    about = (
        "log10 of the mean squared difference of neighbouring hidden pixels, in counts squared; distance: mean absolute difference from "
        "nature. A mean has less than nature, by its noise at least, however good it is; the floor is 0."
    )
    return Finding(
        "small-scale light", "log10 (counts²)", about, f"0.. = {', '.join(kinds)}", np.arange(float(len(kinds))),
        curves[0], curves[1], curves[2], np.std(spread, axis=0), RIVAL, apart[1], 0.0, max(apart[2], 1e-9), apart[1] / max(apart[2], 1e-9),
        float(np.percentile(gaps, 2.5)), float(np.percentile(gaps, 97.5)), bars=True,
    )  # fmt: skip


def _steps(values: Array, hidden: NDArray[np.bool_]) -> Array:
    """Sum of squared differences of hidden neighbours, mean of the bands, and how many, (n, 2)."""
    down, across = hidden[:, 1:] & hidden[:, :-1], hidden[:, :, 1:] & hidden[:, :, :-1]
    one, two = np.square(np.diff(values, axis=2)).mean(axis=1), np.square(np.diff(values, axis=3)).mean(axis=1)
    total = (one * down).sum(axis=(1, 2)) + (two * across).sum(axis=(1, 2))
    return np.column_stack([total, down.sum(axis=(1, 2)) + across.sum(axis=(1, 2))])


def _psnr(name: str, rows: NDArray[np.int64], errors: Mapping[str, Array], hidden: NDArray[np.bool_]) -> Check:
    """Peak signal-to-noise ratio of hidden pixels beside those of interpolation."""
    scores = {which: _per_image(squared[rows], hidden[rows]) for which, squared in errors.items()}
    decibels = {which: -10 * math.log10(max(float(score.mean()), 1e-12)) for which, score in scores.items()}
    ours = scores.pop("drawn")
    value = decibels.pop("drawn")
    error = 10 / math.log(10) * float(ours.std()) / math.sqrt(len(rows)) / max(float(ours.mean()), 1e-12)
    best = max(decibels, key=lambda which: decibels[which])
    gain = scores[best] - ours
    sure = float(gain.mean()) > 2 * float(gain.std()) / math.sqrt(len(rows))
    return Check(f"PSNR of hidden pixels, {name} (dB)", value, error, f"above that of the {best}", sure, decibels)
