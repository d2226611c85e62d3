"""Galaxy images mended by a masked autoencoder: hidden patches, satellite trails and dead columns filled in.

    paper    He et al. 2021 at 128 px: patches of 16 px, 75 % of them hidden whole, the transformer that the authors call base (width
             768, 12 blocks; decoder 512, 8 blocks), weight decay 0.05 and plain pixels as targets, which they advise for
             pictures. Their images, steps and batches of 4,096 are not ours; one number of heads serves both transformers.
    laptop   64 px, patches of 8 px: a small transformer, which learns what the smoothest fill-in misses. Half of
             the training rows hide patches, the others trails and columns, so that real breaks are in the law it was trained on.
    quick    the same at 32 px on galaxies drawn by formula.

`draw` fills the hidden pixels of the images it is given by the mean of what could be there and leaves the others untouched. A mean is
smoother than nature and has no noise: it mends a picture, and is no measurement of what was lost.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from simulacra import movie
from simulacra.descent import Descent
from simulacra.evidence import Check, Figure, Finding
from simulacra.families.autoencoder import principal_axes
from simulacra.families.masking import Filling, Linear, MaskedAutoencoder, Smooth, hidden_error, hide_patches, over_pixels
from simulacra.nets.attention import Transformer, grid_positions
from simulacra.sciences.galaxies import data, framing, mending
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import ImageRecipe, as_bytes, blocks, spread, turned
from simulacra.sciences.galaxies.mending import BREAKS, NUMBERS, Mended
from simulacra.study import Noise, Refused, Split, Study
from simulacra.training import device_of

MOST_GRAMS = 1 << 26  # numbers that the linear rival may hold for its products of axes, 256 MB: 128 axes at 64 px
LEARNED_FROM = 4_000  # images, turned ones counted, that principal axes and means are taken from
AXES = 64  # of the linear rival
VALIDATION, HELD_OUT, SHOWN = 1, 2, 3  # streams of the breaks


class MaskedRecipe(ImageRecipe):
    """A masked autoencoder of galaxy images."""

    patch: int = Field(8, ge=2, le=64, description="Side of a patch in pixels; a power of two.")
    share: float = Field(0.75, gt=0, lt=1, description="Share of the patches that is hidden where patches are hidden.")
    partial: float = Field(0.5, ge=0, lt=1, description="Share of training rows that hide a trail or columns of pixels, not patches.")
    width: PositiveInt = Field(128, description="Numbers per patch in the encoder; a multiple of four and of the heads.")
    depth: int = Field(4, ge=1, le=64, description="Blocks of the encoder.")
    decoder_width: PositiveInt = Field(128, description="Numbers per patch in the decoder.")
    decoder_depth: int = Field(2, ge=1, le=64, description="Blocks of the decoder.")
    heads: PositiveInt = Field(4, description="Heads of attention in every block.")
    rounds: int = Field(10, ge=0, le=1000, description="Rounds that the smooth fill-in to start from takes at each scale; 0: no start.")
    k2: float = Field(0.02, gt=0, le=10, description="Inverse square of the length in pixels over which that fill-in stays smooth.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training images at random.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Pull of the weights towards 0, of AdamW.")
    ema: float = Field(0.998, ge=0, lt=1, description="Decay per step of the weight average that fills in; 0: the last weights.")

    @model_validator(mode="after")
    def _fits(self) -> MaskedRecipe:
        if self.patch & (self.patch - 1) or self.patch > self.side // 2:
            raise ValueError(f"patch {self.patch} is not a power of two of at most half the side, {self.side // 2}")
        for width in (self.width, self.decoder_width):
            if width % 4 or width % self.heads:
                raise ValueError(f"width {width} is not a multiple of 4 and of the {self.heads} heads")
        return self


# ------------------------------------------------------------------------------------------------------------- loading


def load(recipe: MaskedRecipe) -> Split[Mended]:
    """Galaxies; held-out ones and those of validation broken in every way in turn, training ones anew in each step."""
    found = framing.load(recipe)
    return Split(
        mending.whole(found.train), _broken(found.validation, recipe, VALIDATION), _broken(found.held_out, recipe, HELD_OUT),
        f"{found.origin}; held-out ones broken by {', '.join(BREAKS)} in turn", found.files, found.rejected,
    )  # fmt: skip


def _broken(images: Images, recipe: MaskedRecipe, stream: int) -> Mended:
    return mending.broken(images, 8 * recipe.seed + stream, patch=recipe.patch, share=recipe.share, kinds=range(len(BREAKS)))


def ask(recipe: MaskedRecipe, n: int, conditions: Mapping[str, str]) -> Mended:
    """The images of the file `mend`, all of them, with what `mask` hides; without a file n simulated galaxies, broken in turn."""
    unknown = set(conditions) - set(mending.CONDITIONS)
    if unknown:
        raise Refused(f"images are mended, not drawn under {', '.join(sorted(unknown))}; --mend FILE --mask FILE.npz")
    if "mend" in conditions:
        return mending.read_broken(Path(conditions["mend"]), Path(conditions["mask"]) if "mask" in conditions else None, recipe)
    if "mask" in conditions:
        raise Refused("--mask says what is hidden of the images of --mend FILE, and none are given")
    from simulacra.sciences.galaxies.simulate import simulate

    return _broken(simulate(n, recipe.side, recipe.seed + 1, recipe.colour), recipe, SHOWN)


# --------------------------------------------------------------------------------------------------------------- learner


def network(
    recipe: MaskedRecipe, centre: Tensor, contrast: Tensor, start: Smooth | None, unit: Tensor | None = None
) -> MaskedAutoencoder:
    """The transformers of `recipe`; `centre` (bands, side, side) and `contrast` () of the training images set the units."""
    count = recipe.side // recipe.patch
    widths, depths = (recipe.width, recipe.decoder_width), (recipe.depth, recipe.decoder_depth)
    encoder, decoder = (Transformer(width, depth, recipe.heads) for width, depth in zip(widths, depths, strict=True))
    positions = grid_positions(count, count, widths[0]), grid_positions(count, count, widths[1])
    return MaskedAutoencoder(encoder, decoder, positions, patch=recipe.patch, centre=centre, contrast=contrast, start=start, unit=unit)


class GalaxyMender:
    """A masked autoencoder of galaxies: learns on breaks drawn anew in each step, and mends."""

    def __init__(self, recipe: MaskedRecipe, net: MaskedAutoencoder) -> None:
        self.recipe, self.device = recipe, device_of(recipe.device)
        descent = Descent(
            net.to(self.device), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=recipe.weight_decay, clip=1.0, ema=recipe.ema,
            warmup=min(100, recipe.steps // 10), horizon=recipe.steps,
        )  # fmt: skip
        self.filling = Filling(net, descent)

    def step(self, batch: Images) -> Mapping[str, Tensor]:
        x = batch.float()
        if self.recipe.turned:
            x = turned(x, torch.randint(8, (len(x),)))
        few = round(self.recipe.partial * len(x))
        groups = [part for part in (self._patched(x[few:]), self._cut(x[:few])) if len(part[0])]
        return self.filling.step(*groups)

    def _patched(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.rand(len(x), (self.recipe.side // self.recipe.patch) ** 2)
        return x, over_pixels(hide_patches(u, self.recipe.share), self.recipe.patch).to(x.device)

    def _cut(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, half = torch.rand(len(x), NUMBERS), len(x) // 2
        return x, torch.cat([mending.trails(u[:half], self.recipe.side), mending.columns(u[half:], self.recipe.side)]).to(x.device)

    def draw(self, like: Mended, noise: Noise) -> Mended:
        """The images of `like` with their hidden pixels filled in by the conditional mean, which needs no noise; what they hold there
        is not looked at."""
        filled = [as_bytes(self.filling.fill(part.float(), part.hidden)) for part in blocks(like.to(self.device))]
        pixels = torch.where(like.hidden[:, None].cpu(), torch.cat(filled), like.pixels.cpu())
        return dataclasses.replace(like, pixels=pixels, label=like.label.cpu(), hidden=like.hidden.cpu(), kind=like.kind.cpu())

    def state_dict(self) -> dict[str, Tensor]:
        return self.filling.descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.filling.descent.load_state_dict(state)


def build(recipe: MaskedRecipe, training: Images) -> GalaxyMender:
    """The learner of `recipe`; training images give its units and the image it falls back to."""
    some = spread(training, LEARNED_FROM)
    centre = torch.stack([part.float().sum(0) for part in blocks(some)]).sum(0) / len(some)
    square = sum(float((part.float() - centre).square().sum()) for part in blocks(some)) / (len(some) * centre.numel())
    contrast = torch.tensor(max(square, 1e-8)).sqrt()
    if not recipe.rounds:
        return GalaxyMender(recipe, network(recipe, centre, contrast, None))
    start = Smooth(centre, k2=recipe.k2, rounds=recipe.rounds)
    few = _broken(spread(training, 90), recipe, 0)
    missed = hidden_error(start(few.float(), few.hidden), few.float(), few.hidden).mean()
    return GalaxyMender(recipe, network(recipe, centre, contrast, start, missed.clamp(min=1e-8).sqrt()))


def restore(recipe: MaskedRecipe, state: Mapping[str, Tensor]) -> GalaxyMender:
    """A learner that mends, from the state of another."""
    centre = torch.zeros(recipe.bands, recipe.side, recipe.side)
    start = Smooth(centre, k2=recipe.k2, rounds=recipe.rounds) if recipe.rounds else None
    mender = GalaxyMender(recipe, network(recipe, centre, torch.ones(()), start))
    mender.load_state_dict(state)
    return mender


# ------------------------------------------------------------------------------------------------- what it is worth


def examine(learner: GalaxyMender, split: Split[Mended], seed: int) -> tuple[list[Finding], list[Check]]:
    """Squared error on held-out galaxies beside what the learner starts from and the best linear fill-in from principal axes."""
    recipe, shown = learner.recipe, split.held_out
    rows = spread(split.train, LEARNED_FROM)
    d = min(AXES, math.isqrt(MOST_GRAMS) // recipe.side, len(rows) // 4)
    mended = learner.draw(shown, Noise(seed, range(len(shown)))).float()
    rivals: dict[str, nn.Module] = {f"linear, {d} principal axes": linear_rival(recipe, rows, d)}
    if learner.filling.net.start is not None:
        rivals["smooth start"] = copy.deepcopy(learner.filling.net.start).cpu()
    errors = {name: torch.cat([_error(rule, part) for part in blocks(shown)]) for name, rule in rivals.items()}
    ours = hidden_error(mended, shown.float(), shown.hidden)
    checks = []
    for number, name in enumerate(BREAKS):
        chosen = (shown.kind == number) & shown.hidden.flatten(1).any(1)
        if int(chosen.sum()) < mending.FEWEST:
            continue
        beside = {which: float(error[chosen].mean()) for which, error in errors.items()}
        best = min(beside, key=lambda which: beside[which])
        gain, root = errors[best][chosen] - ours[chosen], math.sqrt(int(chosen.sum()))
        value, error, scatter = float(ours[chosen].mean()), float(ours[chosen].std()) / root, float(gain.std()) / root
        beside |= {"gain over the better": float(gain.mean()), "standard error of the gain": scatter}
        title = f"squared error of hidden pixels, {name} (full scale 1)"
        checks.append(Check(title, value, error, f"below that of the {best}", float(gain.mean()) > 2 * scatter, beside))
    return [], checks


def _error(rule: nn.Module, part: Mended) -> Tensor:
    """Squared error (n,) of a fill-in that is rounded to bytes, as a mended image is."""
    return hidden_error(as_bytes(rule(part.float(), part.hidden)).float() / 255, part.float(), part.hidden)


def linear_rival(recipe: MaskedRecipe, training: Images, d: int) -> Linear:
    """The linear fill-in from d principal axes of the training images, in several orientations where training turns them."""
    rounds = max(1, min(8, LEARNED_FROM // len(training))) if recipe.turned else 1
    rows = torch.cat([turned(training.float(), torch.full((len(training),), way)) for way in range(rounds)])
    shape = (training.bands, training.side, training.side)
    axes = principal_axes(rows.flatten(1), d, seed=recipe.seed)
    return Linear(axes.centre.view(shape), (axes.directions * axes.scales).view(*shape, d), torch.tensor(max(axes.residual, 1e-8)))


def figures(learner: GalaxyMender, split: Split[Mended], seed: int) -> list[Figure]:
    """Held-out galaxies as they were broken, as interpolation mends them, as this does, and as they are."""
    shown = spread(split.held_out, 9)
    mended = learner.draw(shown, Noise(seed, range(len(shown))))
    page = data.sheet(Images(*compared(shown, mended)), columns=len(shown))
    caption = "From above: broken; harmonic fill; mended here; the truth."
    return [Figure("Broken galaxies mended", caption, movie.png(page))]


def compared(truth: Mended, mended: Mended) -> tuple[Tensor, Tensor]:
    """Pixels and labels of the rows of a comparison: broken, harmonic fill, mended, truth."""
    smooth = mending.harmonic(truth.pixels.numpy().astype(np.float64), truth.hidden.numpy())
    shade = torch.tensor([64, 76, 128], dtype=torch.uint8)[: truth.bands, None, None]
    broken = torch.where(truth.hidden[:, None], shade, truth.pixels)
    rows = [broken, torch.from_numpy(np.rint(smooth.clip(0, 255)).astype(np.uint8)), mended.pixels, truth.pixels]
    return torch.cat(rows), truth.label.repeat(4)


study = Study(
    title="Galaxy images mended by a masked autoencoder",
    source="He, Chen, Xie, Li, Dollar, Girshick 2021, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377",
    recipes={
        "quick": MaskedRecipe(
            side=32, patch=4, simulated=1200, width=64, depth=2, decoder_width=64, decoder_depth=2, steps=200, batch=32,
            draws=120, ema=0.99,
        ),
        "laptop": MaskedRecipe(width=96, depth=3, decoder_width=96, steps=2200, batch=32, threads=1),
        "paper": MaskedRecipe(
            side=128, patch=16, partial=0.0, width=768, depth=12, decoder_width=512, decoder_depth=8, heads=16, rounds=0, weight_decay=0.05,
            ema=0.0, lr=1.5e-4, steps=100_000, batch=64,
        ),
    },
    expect={
        "quick": "under a minute on one core",
        "laptop": "23 min on one thread of a busy 2-core machine with 7,500 training images, verdict included",
        "paper": "not run: 20 blocks at 128 px want a GPU",
    },
    load=load,
    build=build,
    restore=restore,
    judge=mending.judge,
    read=mending.read,
    read_as=mending.read_as,
    write=mending.write,
    ask=ask,
    conditions=mending.CONDITIONS,
    picture=mending.picture,
    caption=mending.caption,
    summary=mending.summary,
    examine=examine,
    figures=figures,
)  # fmt: skip
