"""Galaxy images of an asked class by diffusion: noise is taken away in steps until a galaxy is left.

    paper     Ho, Jain & Abbeel: a network tells the noise at 1000 levels of the linear schedule; 1000 random steps back
    laptop    a network corrects the best linear estimate of the image (families/denoising.py), at levels even in the logarithm of the
              noise; tens of deterministic steps back (DPM-Solver++(2M)). Training images are turned and flipped at random.
    quick     the same at 32 px on galaxies drawn by formula

The linear estimate knows the mean image, the leading principal axes of the images shrunk to at most LINEAR_SIDE px, and two variances
for what these leave out. It is right about all that is Gaussian, which at high noise is everything; the network has to learn galaxies,
not averages, and far fewer steps do. Brightness stands as 2 byte / 255 - 1.

Classes are those of your labels (`--classes`), three without: barred spiral, elliptical, spiral in simulated galaxies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from simulacra import movie
from simulacra.descent import Descent
from simulacra.evidence import Check, Figure, Finding
from simulacra.families import diffusion
from simulacra.families.denoising import Denoising, Principal, Published
from simulacra.families.diffusion import Schedule
from simulacra.families.gan import between_classes
from simulacra.nets.embedding import ClassEmbedding
from simulacra.nets.unet import UNet
from simulacra.sciences.galaxies import data, framing, pictures
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import ClassRecipe, as_bytes, spread, turned
from simulacra.study import Noise, Split, Study
from simulacra.training import device_of

LINEAR_SIDE = 32  # px: principal axes of larger images are those of the images shrunk to this side
MEASURED = 100_000_000  # numbers of training images from which the linear estimate is measured, at most
EXAMINED, EVALUATIONS = 64, 24  # held-out images whose likelihood is bounded, from this many steps each
LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # noise over signal at which the errors of the told image are reported


class DDPMRecipe(ClassRecipe):
    """A diffusion model of images of galaxies."""

    widths: tuple[PositiveInt, ...] = Field(
        (32, 64, 128), description="Channels of the U-Net at each side, from that of the patches downwards, each side half the one before."
    )
    blocks: PositiveInt = Field(1, description="Residual blocks at each side, each way.")
    patch: Literal[1, 2, 4] = Field(2, description="Side in pixels of the patches that are the first side's places.")
    attention_at: tuple[int, ...] = Field((2,), description="Sides, counted from 0, at which every place looks at every other.")
    embed: PositiveInt = Field(128, description="Numbers in which the network is told the level of noise and the class; even.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of values in residual blocks that training loses.")
    head: Literal["principal", "epsilon", "v", "x0"] = Field(
        "principal", description="principal: the network corrects the best linear estimate; else what the literature has it tell."
    )
    axes: PositiveInt = Field(96, description="Principal axes of the linear estimate.")
    schedule: Literal["even", "cosine", "linear"] = Field(
        "even", description="Levels of noise that are trained: even in the logarithm of noise over signal, or a published schedule."
    )
    timesteps: int = Field(1000, ge=25, le=10_000, description="Levels of noise T.")
    least: float = Field(0.006, gt=0, description="Least noise over signal of the even schedule; a byte is 0.008.")
    largest: float = Field(40.0, gt=1, description="Largest noise over signal of the even schedule.")
    turned: bool = Field(True, description="Turn (by quarters) and flip training images at random: the sky has no preferred direction.")
    dropped: float = Field(0.0, ge=0, lt=1, description="Share of training images whose class is not told, which guidance needs.")
    lr: float = Field(2e-3, gt=0, le=0.1, description="Learning rate of Adam.")
    decay: bool = Field(True, description="The learning rate falls to 0 on a half cosine over the steps.")
    warmup: int = Field(100, ge=0, description="Steps over which the learning rate rises, a tenth of all at most.")
    ema: float = Field(0.998, ge=0, lt=1, description="Memory of the running average of the weights that draws; 0: the last weights.")
    walk: PositiveInt = Field(30, description="Steps of a draw; `ancestral` and `ddim` want many.", json_schema_extra={"drawing": True})
    sampler: Literal["solved", "ancestral", "ddim"] = Field(
        "solved", description="solved: DPM-Solver++(2M); ancestral: random steps, as published; ddim: the same without randomness.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip
    guidance: float = Field(
        1.0, ge=0, le=20, description="How far draws go towards their class: 1 as learned, above it more typical and less diverse.",
        json_schema_extra={"drawing": True},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- learner


def build(recipe: DDPMRecipe, training: Images) -> Denoising[Images]:
    """The learner of `recipe`; the linear estimate, where it has one, is that of the training images."""
    return learner(recipe, measured(recipe, training) if recipe.head == "principal" else Published(recipe.head))


def restore(recipe: DDPMRecipe, state: Mapping[str, Tensor]) -> Denoising[Images]:
    """The learner in a saved state, or what of it was shipped, to draw from."""
    if recipe.head == "principal":
        shape, axes = (recipe.bands, recipe.side, recipe.side), state["head.directions"].shape[1]
        found = learner(recipe, Principal.blank(shape, axes, pool=_pool(recipe)))
    else:
        found = learner(recipe, Published(recipe.head))
    found.load_shipped(state)
    return found


def measured(recipe: DDPMRecipe, training: Images) -> Principal:
    """The linear estimate of the images as the network sees them: as they are, or in any turn."""
    some = spread(training, max(2, MEASURED // training.pixels[0].numel()))
    rows = 2 * some.float() - 1
    if recipe.turned:
        rows = turned(rows, torch.randint(8, (len(rows),), generator=torch.Generator().manual_seed(recipe.seed)))
    return Principal.of(rows, recipe.axes, pool=_pool(recipe), seed=recipe.seed)


def learner(recipe: DDPMRecipe, head: Principal | Published) -> Denoising[Images]:
    """The learner of `recipe` with that head, before it has learned."""
    network = UNet(
        recipe.bands, recipe.widths, inputs=head.shown * recipe.bands, blocks=recipe.blocks, patch=recipe.patch, embed=recipe.embed,
        condition=ClassEmbedding(recipe.classes, recipe.embed), attention_at=recipe.attention_at, dropout=recipe.dropout,
    )  # fmt: skip
    descent = Descent(
        network.to(device_of(recipe.device)), lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema,
        warmup=min(recipe.warmup, recipe.steps // 10), horizon=recipe.steps if recipe.decay else None,
    )  # fmt: skip
    schedule = schedule_of(recipe)
    return Denoising(
        descent, schedule, head=head, shape=(recipe.bands, recipe.side, recipe.side), rows_of=_rows, samples_from=_images,
        levels=levels_of(recipe, schedule), sampler=recipe.sampler, bounds=(-1.0, 1.0), blend=between_classes(recipe.classes),
        dropped=recipe.dropped, guidance=recipe.guidance, augment=_turn if recipe.turned else None, ship_as=torch.float16,
    )  # fmt: skip


def schedule_of(recipe: DDPMRecipe) -> Schedule:
    """The levels of noise that `recipe` trains."""
    if recipe.schedule == "linear":
        return diffusion.linear(recipe.timesteps)
    if recipe.schedule == "cosine":
        return diffusion.cosine(recipe.timesteps)
    # At a root this high the levels are even in the logarithm, to a few percent.
    return diffusion.karras(recipe.timesteps, least=recipe.least, largest=recipe.largest, rho=100.0)


def levels_of(recipe: DDPMRecipe, schedule: Schedule) -> list[int]:
    """The falling levels that a draw visits: those nearest to Karras et al.'s for the solver, even ones for the others."""
    if recipe.sampler != "solved":
        return [int(level) for level in schedule.chosen(min(recipe.walk, schedule.steps)).flip(0)]
    ends = [float((schedule.gamma[level] / 2).exp()) for level in (1, schedule.steps)]
    wanted = diffusion.karras(max(2, recipe.walk), least=ends[0], largest=min(ends[1], recipe.largest))
    return [int(level) for level in schedule.nearest(wanted).flip(0)]


def _pool(recipe: DDPMRecipe) -> int:
    return max(1, recipe.side // LINEAR_SIDE)


def _rows(images: Images) -> tuple[Tensor, Tensor]:
    return 2 * images.float() - 1, images.label


def _images(drawn: Tensor, like: Images) -> Images:
    return Images(as_bytes((drawn + 1) / 2), like.label.cpu())


def _turn(x: Tensor) -> Tensor:
    return turned(x, torch.randint(8, (len(x),)))


# ---------------------------------------------------------------------------------------------- what its powers are worth


def examine(learner: Denoising[Images], split: Split[Images], seed: int) -> tuple[list[Finding], list[Check]]:
    """Bits per number of held-out images, and the errors of what is told at some levels, both beside the linear estimate alone."""
    return [], [bits_check(learner, split.held_out, seed), error_check(learner, split.held_out, seed)]


def bits_check(learner: Denoising[Images], held_out: Images, seed: int) -> Check:
    """The likelihood of held-out images is bounded; the bound of the head alone is about that of the Gaussian it stands for."""
    rows = spread(held_out, EXAMINED).to(learner.schedule.gamma.device)
    found = learner.bits(rows, seed=seed, evaluations=EVALUATIONS, grid=diffusion.EIGHT_BITS)
    alone = learner.bits(rows, seed=seed, evaluations=EVALUATIONS, grid=diffusion.EIGHT_BITS, linear=True)
    value, error = float(found.mean()), float(found.std()) / len(rows) ** 0.5
    return Check(
        "bits per number of held-out images (upper bound)", value, error, "below the head's alone", value < float(alone.mean()),
        {"the head alone": float(alone.mean()), "uniform bytes": 8.0},
    )  # fmt: skip


def error_check(learner: Denoising[Images], held_out: Images, seed: int) -> Check:
    """How far the told image is off, beside the head alone, at LEVELS of noise over signal (root mean square, full scale 2)."""
    ratio = (learner.schedule.gamma / 2).exp()
    levels = [int((ratio - wanted).abs().argmin()) for wanted in LEVELS]
    rows = spread(held_out, EXAMINED).to(ratio.device)
    ours, alone = (learner.errors(rows, levels, seed=seed, linear=flag).sqrt() for flag in (False, True))
    beside = {f"at noise {wanted:g}, told": float(e) for wanted, e in zip(LEVELS, ours, strict=True)}
    beside |= {f"at noise {wanted:g}, head": float(e) for wanted, e in zip(LEVELS, alone, strict=True)}
    share = float((ours / alone).mean())
    return Check("error of the told image, as a share of the head's, mean over levels", share, float("nan"), "below 1", share < 1, beside)


# ------------------------------------------------------------------------------------------------------------- pictures


def figures(learner: Denoising[Images], split: Split[Images], seed: int) -> list[Figure]:
    """Moments of some draws, draws of each class beside nature, and one position taken through all classes."""
    classes = int(split.train.label.max()) + 1
    device = learner.schedule.gamma.device
    asked = pictures.templates(split.held_out, torch.arange(classes))
    traced = [moment.to("cpu") for moment in learner.trace(asked.to(device), Noise(seed, range(classes)), 12)]
    order = torch.arange(12 * classes).view(12, classes).T.flatten()
    columns = 10
    return [
        Figure(
            "From noise to galaxies", "One draw per row, one class each: the state at twelve moments, evenly spaced in steps.",
            movie.png(data.sheet(Images.join(traced)[order], columns=12)),
        ),
        Figure(
            "Each class beside nature", f"For each class in turn, {columns} held-out galaxies above {columns} draws, none chosen.",
            movie.png(data.sheet(by_class(learner, split.held_out, classes, columns, seed), columns=columns)),
        ),
        pictures.class_to_class(learner, split.held_out, classes, seed, device),
    ]  # fmt: skip


def by_class(learner: Denoising[Images], nature: Images, classes: int, columns: int, seed: int) -> Images:
    """Two rows per class: `columns` images of nature, then as many draws."""
    device = learner.schedule.gamma.device
    asked = pictures.templates(nature, torch.arange(classes).repeat_interleave(columns))
    drawn = learner.draw(asked.to(device), Noise(seed + 1, range(len(asked))))
    parts = []
    for kind in range(classes):
        of_kind = torch.nonzero(nature.label == kind)[:, 0]
        parts += [nature[of_kind[torch.arange(columns) % len(of_kind)]] if len(of_kind) else asked[:columns]]
        parts += [drawn[kind * columns : (kind + 1) * columns]]
    return Images.join(parts)


laptop = DDPMRecipe(steps=2800, batch=32, dropped=0.1, threads=1)

study = Study(
    title="Galaxy images of an asked class by diffusion",
    source="Ho, Jain, Abbeel 2020, arXiv:2006.11239",
    recipes={
        "quick": laptop.model_copy(
            update={
                "side": 32, "simulated": 1200, "steps": 250, "draws": 120, "widths": (24, 48), "attention_at": (1,), "ema": 0.98,
                "walk": 12,
            }
        ),
        "laptop": laptop,
        "paper": DDPMRecipe(
            widths=(128, 256, 256, 256), blocks=2, patch=1, attention_at=(2,), embed=512, dropout=0.1, head="epsilon", schedule="linear",
            lr=2e-4, decay=False, warmup=5000, ema=0.9999, batch=128, steps=800_000, walk=1000, sampler="ancestral",
        ),
    },
    expect={
        "quick": "about 1 min of processor time on one core, data and verdict included",
        "laptop": "53 min of training and 9 min for 1,000 draws on one thread of a busy 2-core machine with 7,500 training images",
        "paper": "not run: 23.9 million weights at 64 px and 800,000 steps want a GPU",
    },
    build=build,
    restore=restore,
    examine=examine,
    figures=figures,
    citation="""@inproceedings{ho2020denoising,
  title = {Denoising Diffusion Probabilistic Models},
  author = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {33},
  year = {2020},
  eprint = {2006.11239},
}""",
    **framing.BY_CLASS,
)  # fmt: skip
