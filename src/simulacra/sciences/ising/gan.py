"""Ising lattices at any temperature from a conditional GAN, in one pass, without Monte Carlo.

`paper`   the conditional DCGAN of Liu, Rodrigues & Cai (1710.04987). The paper leaves the sizes open; ours: side 32, 25 temperatures
          in 1.5-3.5, four levels of transposed convolution, latent 100, Adam 2e-4 with beta1 0.5, tanh, then the sign.
`laptop`  ours (players.py): spins are drawn, not thresholded; the symmetries of nature are exact; local order is made by learned
          checkerboard rounds; the critic also sees what a physicist would measure. `quick` is the same at side 16.

docs/ising_gan.md tells what was tried and what each idea was worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from simulacra.descent import Descent
from simulacra.evidence import Figure
from simulacra.families.gan import Game, Rules, non_saturating, paired, wasserstein, wasserstein_lp
from simulacra.sciences.ising import data, statistics
from simulacra.sciences.ising.data import Lattices
from simulacra.sciences.ising.players import Convolving, Deconvolving, Judging, Resampling, majority_up, observables
from simulacra.study import Recipe, Refused, Split, Study

HELD_OUT = 1 << 20  # added to the seed: held-out lattices come from other random streams than training lattices
VALIDATION = 1 << 21


class IsingRecipe(Recipe):
    """What to simulate, who plays, by which rules."""

    side: int = Field(32, ge=8, le=128, description="Spins along one edge of the lattice; a power of two.")
    temperatures: tuple[float, ...] = Field((2.0, 2.269185, 2.6), description="Training temperatures, in units J / kB.")
    each: PositiveInt = Field(1000, description="Training lattices simulated per temperature.")
    judged: tuple[float, ...] = Field((2.0, 2.269185, 2.6), description="Temperatures of the verdict, trained on or not, in units J / kB.")
    judged_each: PositiveInt = Field(200, description="Held-out lattices simulated per judged temperature.")
    players: Literal["resampling", "dcgan"] = Field("resampling", description="Learned checkerboard rounds, or the paper's DCGAN.")
    rules: Literal["wasserstein", "wasserstein-lp", "paired", "non-saturating"] = Field("wasserstein", description="Losses of the players.")
    penalty: float = Field(10.0, ge=0, le=100, description="Weight of the penalty on the critic's slope; about 1 for the other rules.")
    penalised: PositiveInt = Field(32, description="Rows per step from which the penalty is estimated.")
    widths: tuple[PositiveInt, ...] = Field((32, 24, 16), description="Generator's feature maps at sides ..., side/4, side/2.")
    critic_widths: tuple[PositiveInt, ...] = Field((32, 48), description="Critic's feature maps at sides side/4, side/8, ...")
    rounds: int = Field(8, ge=0, le=64, description="Learned checkerboard rounds at the end of the generator.")
    filters: PositiveInt = Field(32, description="Feature maps of the DCGAN's widest level.")
    latent: PositiveInt = Field(100, description="Latent numbers of the DCGAN.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Adam's learning rate of the generator; falls to 0 on a half cosine.")
    critic_lr: float = Field(2e-3, gt=0, le=0.1, description="Adam's learning rate of the critic; stays, or it would fall behind.")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's memory of gradients; games oscillate with much of it.")
    beta2: float = Field(0.9, gt=0, lt=1, description="Adam's memory of squared gradients.")
    ema: float = Field(0.999, ge=0, lt=1, description="Memory of the running average of the generator that draws; 0: the last one draws.")
    critic_steps: PositiveInt = Field(1, description="Moves of the critic per move of the generator, each on its share of the batch.")

    @field_validator("side")
    @classmethod
    def _power_of_two(cls, side: int) -> int:
        if side & (side - 1):
            raise ValueError(f"side {side} is not a power of two; the networks halve it several times")
        return side


# --- nature ---


def load(recipe: IsingRecipe) -> Split[Lattices]:
    """Independent equilibrium lattices; or the user's own, divided at random within each temperature."""
    if recipe.data is not None:
        lattices = data.read(recipe.data)
        if lattices.side != recipe.side:
            raise Refused(f"{recipe.data}: side {lattices.side}, but the recipe wants {recipe.side}; add --side {lattices.side}")
        parts = data.divide(lattices, seed=recipe.seed)
        return Split(*parts, origin=f"{len(lattices)} lattices of side {lattices.side} from {recipe.data}", files=_sum_of(recipe.data))
    train, validation, held_out = (
        data.simulated(recipe.side, temperatures, each, seed=recipe.seed + stream)
        for temperatures, each, stream in (
            (recipe.temperatures, recipe.each, 0),
            (recipe.judged, min(recipe.judged_each, 100), VALIDATION),
            (recipe.judged, recipe.judged_each, HELD_OUT),
        )
    )
    unseen = sorted(set(recipe.judged) - set(recipe.temperatures))
    origin = (
        f"simulated: {len(train)} lattices of side {recipe.side} at {len(recipe.temperatures)} temperatures, {len(held_out)} held out"
        + (f", those at T = {', '.join(f'{t:g}' for t in unseen)} without any in training" if unseen else "")
    )
    return Split(train, validation, held_out, origin=origin)


def _sum_of(path: Path) -> Mapping[str, str]:
    from simulacra.runs import sha256

    return {str(path): sha256(path)}


# --- the game ---


def build(recipe: IsingRecipe, train: Lattices) -> Game[Lattices]:
    """The game of `recipe`; training lattices set the units in which the critic sees their observables."""
    generator: Resampling | Deconvolving
    critic: Judging | Convolving
    if recipe.players == "dcgan":
        generator, critic = Deconvolving(recipe.side, recipe.latent, recipe.filters), Convolving(recipe.side, recipe.filters)
    else:
        generator = Resampling(recipe.side, recipe.widths, recipe.rounds)
        critic = Judging(*_units(train), recipe.critic_widths)
    return Game(
        _descent(generator, recipe, recipe.lr, recipe.ema, recipe.steps), _descent(critic, recipe, recipe.critic_lr),
        rules=rules_of(recipe), latent=generator.latent, rows_of=_rows, samples_from=_lattices,
        view=_as_drawn if recipe.players == "dcgan" else majority_up, critic_steps=recipe.critic_steps, penalised=recipe.penalised,
    )  # fmt: skip


def _as_drawn(lattices: Tensor) -> Tensor:
    """The paper's critic sees lattices of both signs."""
    return lattices


def rules_of(recipe: IsingRecipe) -> Rules:
    """The game that the recipe names, with its penalty."""
    known = {"paired": paired, "wasserstein": wasserstein, "wasserstein-lp": wasserstein_lp, "non-saturating": non_saturating}
    return known[recipe.rules](penalty=recipe.penalty)


def _descent(player: torch.nn.Module, recipe: IsingRecipe, lr: float, ema: float = 0.0, horizon: int | None = None) -> Descent:
    return Descent(player, lr=lr, betas=(recipe.beta1, recipe.beta2), ema=ema, warmup=min(100, recipe.steps // 10), horizon=horizon)


def _rows(lattices: Lattices) -> tuple[Tensor, Tensor]:
    return lattices.spins.float(), lattices.temperature


def _lattices(drawn: Tensor, like: Lattices) -> Lattices:
    # The DCGAN draws real numbers; their sign is the spin (for the other generator this changes nothing).
    return data.from_real(drawn, like.temperature)[0]


def _units(train: Lattices, rows: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    """Training temperatures (t,), and mean and spread (t, k) of the critic's observables there."""
    ladder = train.temperature.unique()  # type: ignore[no-untyped-call]
    seen = [observables(majority_up(train.spins[torch.nonzero(train.temperature == t).flatten()[:rows]].float())) for t in ladder]
    # A cold ladder of few lattices may not vary at all in some observable.
    return ladder, torch.stack([s.mean(0) for s in seen]), torch.stack([s.std(0, correction=0).clamp_min(1e-3) for s in seen])


def ask(recipe: IsingRecipe, n: int, conditions: Mapping[str, str]) -> Lattices:
    """A template of n lattices at the asked `temperature` (default T_c), or spread over several separated by commas."""
    unknown = set(conditions) - {"temperature"}
    if unknown:
        raise Refused(f"Ising lattices are drawn under a temperature, not under {', '.join(sorted(unknown))}; --condition temperature=2.3")
    try:
        asked = [float(t) for t in conditions.get("temperature", f"{data.CRITICAL:.6f}").split(",")]
    except ValueError:
        raise Refused(f"temperature {conditions['temperature']!r} is not a number; e.g. 2.3, or 2.0,2.3,2.6") from None
    temperature = torch.tensor(asked, dtype=torch.float32)[torch.arange(n) * len(asked) // n]
    return Lattices(torch.ones(n, recipe.side, recipe.side, dtype=torch.int8), temperature)


def caption(lattices: Lattices) -> list[str]:
    """The temperature of each lattice, in words."""
    return [f"T = {t:.4g}" for t in lattices.temperature.tolist()]


# --- recipes ---

LADDER = (
    1.5, 1.65, 1.8, 1.9, 2.0, 2.05, 2.1, 2.2, 2.225, 2.25, 2.269185, 2.29, 2.31, 2.34, 2.37, 2.4, 2.5, 2.55, 2.6, 2.7, 2.8, 2.9, 3.05,
    3.25, 3.5,
)  # fmt: skip
JUDGED = (2.0, 2.15, 2.269185, 2.45, 2.6)  # 2.15 and 2.45 are not on the ladder: the nearest rungs are 0.05 away

laptop = IsingRecipe(
    temperatures=LADDER, each=2000, judged=JUDGED, judged_each=2000, draws=10_000, steps=5000, batch=192, critic_steps=3, rounds=14,
    threads=1,
)
quick = IsingRecipe(
    side=16, temperatures=(1.8, 2.0, 2.1, 2.2, 2.269185, 2.35, 2.45, 2.6, 2.8), each=400, judged=(2.0, 2.269185, 2.6), judged_each=200,
    widths=(24, 16), critic_widths=(32, 48), rounds=6, steps=400, draws=600, lr=2e-3, critic_lr=4e-3, ema=0.99, threads=1,
)  # fmt: skip
paper = IsingRecipe(
    temperatures=LADDER, each=10_000, judged=JUDGED, judged_each=2000, draws=10_000, players="dcgan", rules="non-saturating", penalty=0.0,
    latent=100, filters=32, lr=2e-4, critic_lr=2e-4, beta1=0.5, beta2=0.999, ema=0.0, steps=100_000,
)  # fmt: skip


# --- what was learned ---


def figures(learner: Game[Lattices], split: Split[Lattices], seed: int) -> list[Figure]:
    """The law of a spin given its neighbours as the rounds have learned it, beside the exact one, 1 / (1 + exp(-2 h / T))."""
    generator = learner.generator.average
    if not isinstance(generator, Resampling) or generator.rounds == 0:
        return []
    ladder = torch.linspace(float(split.train.temperature.min()), float(split.train.temperature.max()), 100)
    learned = generator.cpu().alignment(ladder).numpy()
    caption = (
        "Probability that a drawn spin points up where its neighbours sum to h = 2 and h = 4 (three and four of them up) and the coarse "
        "field is zero. Lines: the learned rounds, the last one strong. Dashed: the exact law 1 / (1 + exp(-2h/T)), which the networks "
        "were never shown. Only the last rounds must agree with it; what the earlier ones do, later ones may undo."
    )
    return [Figure("What the checkerboard rounds have learned", caption, _law_picture(ladder.numpy(), learned))]


def _law_picture(temperature: np.ndarray, learned: np.ndarray) -> bytes:
    import io

    from matplotlib.figure import Figure as Canvas

    canvas, rounds = Canvas(figsize=(7, 3.2), layout="constrained"), learned.shape[1]
    for k, (h, axes) in enumerate(zip((2, 4), canvas.subplots(1, 2), strict=True)):
        for r in range(rounds):
            last = r == rounds - 1
            axes.plot(temperature, learned[:, r, k], color="tab:blue", lw=2 if last else 1, alpha=1 if last else 0.1 + 0.4 * r / rounds)
        axes.plot(temperature, 1 / (1 + np.exp(-2 * h / temperature)), "k--", lw=1.5)
        axes.set(xlabel="temperature (J / kB)", ylabel="P(spin up)", title=f"neighbours sum to {h}", ylim=(0, 1.02))
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=150)
    return file.getvalue()


study = Study(
    title="Ising lattices by conditional GAN",
    source="Liu, Rodrigues, Cai, arXiv:1710.04987",
    recipes={"quick": quick, "laptop": laptop, "paper": paper},
    expect={
        "quick": "45 s on one core of an AMD EPYC, data and verdict included",
        "laptop": "30 min on one core of an AMD EPYC for training, 1 to 2 min before it for the data and after it for the verdict",
        "paper": "0.4 s per step on a shared core, so about half a day (3,000 of the 100,000 steps were run)",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=data.read,
    write=data.write,
    ask=ask,
    picture=data.picture,
    caption=caption,
    figures=figures,
)
