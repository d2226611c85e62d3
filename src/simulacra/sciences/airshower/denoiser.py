"""Pulses of air showers recovered from noisy radio traces, with their uncertainty and the probability that there is one.

    paper    the autoencoder of the articles: traces scaled to [0, 1]; convolutions and four poolings by 2, 500-250-125-62-31, to 16
             channels of 31 values; the way back mirrored, padded by a value where 62 must become 125; mean squared error. Kernels,
             channels on the way, activations and training are not told: here 7, `widths`, ReLU and Adam. Two numbers more turn the
             height of what was recovered into a probability, and one tells its error; none of them moves the autoencoder.
    laptop   what matched filters say, corrected by a U-Net:

        estimate   mean over training pulses at all places, each as likely as the trace makes it, times the probability that there is
                   a pulse (filters.py): in normal noise the least squared error that there can be, with no network at all
        signal     estimate + unit * net_1       the network is shown the trace, the trace whitened and the estimate, and begins at zero
        presence   sigmoid(score + net_3)        score: logarithm of the averaged likelihood ratio and of the share of pulses
        spread     that of the same pulses, in the same shares and there with that presence, times exp(net_2): standard error of the
                   signal at each step. (The score alone lets half of the doubtful pulses pass for none: pulses between the templates.)

    loss     squared error over time, and over frequency as a share of what pulses hold there; the normal likelihood of the error under the
             spread, which does not move the signal (so that the signal is a mean whatever the spread says); cross-entropy of presence

Training noise (trace less signal) and training pulses are paired anew in every step, each with any sign: no pairing is learned by heart.

A mean is what has the least squared error: where a pulse is uncertain it is smaller than the pulse, and its energy is too low.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.evidence import Check, Figure, Finding
from simulacra.nets.conv import conv
from simulacra.nets.unet import UNet
from simulacra.sciences.airshower import framing, pictures, statistics
from simulacra.sciences.airshower.data import Traces
from simulacra.sciences.airshower.filters import Bank
from simulacra.sciences.airshower.framing import TraceRecipe
from simulacra.sciences.airshower.statistics import Known
from simulacra.study import Noise, Refused, Split, Study
from simulacra.training import device_of

POOLINGS = 4
NARROW = 16  # channels of the bottleneck
KERNEL = 7
AT_ONCE = 64  # traces that are denoised together
MOST = 30.0  # logarithm of odds beyond which nothing changes
SMALLEST = 0.02  # spread that matched filters may tell, over the RMS of pulses: their templates are few
LEAST = 0.02  # of the largest mean power of pulses: below it a frequency counts no more
ARTICLE = {"measured": 69.0, "uniform": 95.0, "cosine": 98.0}  # % of true reconstructions that the article reports at SNR 2


class DenoiserRecipe(TraceRecipe):
    """A denoiser of radio traces."""

    network: Literal["bottleneck", "corrected"] = Field(
        "corrected", description="The articles' autoencoder, or matched filters corrected by a U-Net."
    )
    templates: PositiveInt = Field(16, le=512, description="Training pulses that the matched filters of the U-Net know.")
    widths: tuple[PositiveInt, ...] = Field((16, 32), description="Channels of the network at each length, from the trace down.")
    patch: PositiveInt = Field(8, le=64, description="Steps that are one place of the U-Net.")
    remixed: bool = Field(True, description="Pair training pulses and training noise anew in every step, with random signs.")
    spectral: float = Field(0.2, ge=0, le=10, description="Weight of the error over frequency beside that over time.")
    sure: float = Field(0.1, ge=0, le=10, description="Weight of the likelihood of the spread and of presence.")
    lr: float = Field(1e-3, gt=0, le=0.1, description="Learning rate of Adam; falls to 0 on a half cosine over the steps.")
    ema: float = Field(0.998, ge=0, lt=1, description="Memory of the running average of the weights that denoises; 0: the last weights.")


class Answer(NamedTuple):
    """What a network makes of traces (n, steps) in mV."""

    signal: Tensor  # (n, steps), mV
    spread: Tensor  # (n, steps), mV
    logit: Tensor  # (n,): logarithm of the odds of a pulse


class Network(Protocol):
    """Turns traces into pulses."""

    unit: Tensor  # (), mV: RMS of training traces with a pulse, of the pulse

    def __call__(self, measured: Tensor) -> Answer: ...


# -------------------------------------------------------------------------------------------------------------- networks


class Bottleneck(nn.Module):
    """The articles' autoencoder. `low` and `high` (mV) are scaled to 0 and 1; `unit` and `top` are RMS and height of pulses."""

    unit: Tensor
    top: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, length: int, widths: tuple[int, ...], unit: float, top: float, low: float, high: float) -> None:
        super().__init__()
        for name, value in (("unit", unit), ("top", top), ("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(value))
        self.lengths = [length]
        for _ in range(POOLINGS):
            self.lengths.append(self.lengths[-1] // 2)
        ways = [*widths, *[widths[-1]] * POOLINGS][: POOLINGS - 1]
        channels = [1, *ways, NARROW]
        self.encoder = nn.ModuleList([conv(a, b, dims=1, kernel=KERNEL) for a, b in pairwise(channels)])
        back = [NARROW, *reversed(ways), ways[0]]
        self.decoder = nn.ModuleList([conv(a, b, dims=1, kernel=KERNEL) for a, b in pairwise(back)])
        self.leave = conv(back[-1], 1, dims=1, kernel=KERNEL)
        self.readout = nn.Parameter(torch.tensor([0.3, 0.0]))  # of presence, in tens: slope and offset
        self.error = nn.Parameter(torch.tensor(-1.0))  # logarithm of the spread over the unit

    def squeeze(self, measured: Tensor) -> Tensor:
        """Traces (n, length) as the bottleneck's values, (n, NARROW, length // 16)."""
        h = ((measured - self.low) / (self.high - self.low))[:, None]
        for layer in self.encoder:
            h = F.max_pool1d(F.relu(layer(h)), 2)
        return h

    def forward(self, measured: Tensor) -> Answer:
        h = self.squeeze(measured)
        for layer, length in zip(self.decoder, reversed(self.lengths[:-1]), strict=True):
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = F.relu(layer(F.pad(h, (0, length - h.shape[-1]), mode="replicate")))
        signal = self.leave(h)[:, 0] * (self.high - self.low)
        height = (signal.detach().abs().amax(1) / self.top + 1e-6).log()
        logit = 10 * (self.readout[0] * height + self.readout[1])
        return Answer(signal, (self.unit * self.error.exp()).expand_as(signal), logit)


class Corrected(nn.Module):
    """Matched filters and a U-Net that corrects what they say. `bank` is of training pulses in training noise; `share` of training
    traces hold one; `level` (mV) is the RMS of training traces and `white` that of whitened ones."""

    pulses: Tensor
    precision: Tensor
    strength: Tensor
    unit: Tensor
    scales: Tensor
    odds: Tensor
    first: Tensor

    def __init__(self, recipe: DenoiserRecipe, bank: Bank, unit: float, level: float, white: float, share: float) -> None:
        super().__init__()
        numbers = {
            "pulses": bank.pulses, "precision": bank.precision, "strength": bank.strength, "unit": torch.tensor(unit),
            "scales": torch.tensor([level, white, unit]), "odds": torch.tensor(math.log(share / (1 - share))),
            "first": torch.tensor(bank.first),
        }  # fmt: skip
        for name, value in numbers.items():
            self.register_buffer(name, value.clone())
        self._bank: tuple[list[tuple[int, int]], Bank] | None = None
        self.net = UNet(3, recipe.widths, inputs=3, patch=recipe.patch, embed=64, dims=1)
        self.whole = recipe.patch * 2 ** (len(recipe.widths) - 1)  # steps that the U-Net's lengths are multiples of

    @property
    def bank(self) -> Bank:
        """The matched filters. What they derive from their numbers is kept until these change: loaded, moved, or followed in training."""
        numbers = self.pulses, self.precision, self.strength, self.first
        state = [(id(value), value._version) for value in numbers]
        if self._bank is None or self._bank[0] != state:
            self._bank = state, Bank(*numbers[:3], int(self.first))
        return self._bank[1]

    def known(self, measured: Tensor) -> tuple[Tensor, Answer]:
        """The whitened trace, and what is told before the network says anything."""
        whitened, score, mean, square = self._searched(measured)
        return whitened, self._pulse(score, mean, square)

    def _searched(self, measured: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The whitened trace, the logarithm of the odds of a pulse, and mean and mean square of what it can be."""
        whitened = measured @ self.precision
        score, mean, square = self.bank.moments(whitened)
        return whitened, (score + self.odds).clamp(-MOST, MOST), mean, square

    def _pulse(self, logit: Tensor, mean: Tensor, square: Tensor) -> Answer:
        """A pulse of that mean and mean square, if it is there, with the spread of both questions."""
        sure = torch.sigmoid(logit)[:, None]
        variance = (sure * square - (sure * mean).square()).clamp_min(0)
        return Answer(sure * mean, (variance + (SMALLEST * self.unit) ** 2).sqrt(), logit)

    def forward(self, measured: Tensor) -> Answer:
        with torch.no_grad():
            whitened, score, mean, square = self._searched(measured)
            known = self._pulse(score, mean, square)
            seen = torch.stack([measured, whitened, known.signal], 1) / self.scales[:, None]
            steps = measured.shape[1]
            seen = F.pad(seen, (0, -steps % self.whole))
        told = self.net(seen, score / 4)[..., :steps]
        logit = score + 8 * told[:, 2].mean(1)
        with torch.no_grad():  # what is said of the spread does not move the presence
            spread = self._pulse(logit, mean, square).spread
        return Answer(known.signal + self.unit * told[:, 0], spread * told[:, 1].clamp(-4, 4).exp(), logit)


# --------------------------------------------------------------------------------------------------------------- learner


class Denoiser:
    """A network that learns from pulses and noise, and recovers pulses from traces."""

    def __init__(self, recipe: DenoiserRecipe, network: nn.Module, weight: Tensor) -> None:
        self.recipe, self.device = recipe, device_of(recipe.device)
        self.weight = weight.to(self.device)  # (steps // 2 + 1,): of each frequency's error
        self.descent = Descent(
            network.to(self.device), lr=recipe.lr, betas=(0.9, 0.99), clip=1.0, ema=recipe.ema, warmup=min(100, recipe.steps // 10),
            horizon=recipe.steps,
        )  # fmt: skip

    def step(self, batch: Traces) -> Mapping[str, Tensor]:
        signal, noise = batch.signal, batch.measured - batch.signal
        if self.recipe.remixed:
            signs = torch.randint(2, (2, len(batch), 1)).to(signal) * 2 - 1
            signal, noise = signal * signs[0], noise[torch.randperm(len(batch)).to(noise.device)] * signs[1]
        found = cast(Answer, self.descent.module(signal + noise))
        unit = cast(Tensor, self.descent.module.unit)
        off = (found.signal - signal) / unit
        time = off.square().mean()
        shares = torch.fft.rfft(off, norm="ortho").abs().square() * self.weight
        spread = found.spread / unit
        surprise = (off.detach() / spread).square().mean() / 2 + spread.log().mean()
        presence = F.binary_cross_entropy_with_logits(found.logit, (signal != 0).any(1).float())
        loss = time + self.recipe.spectral * shares.mean() + self.recipe.sure * (surprise + presence)
        norm = self.descent(loss)
        return {"squared error": time.detach(), "surprise": surprise.detach(), "presence": presence.detach(), "gradient": norm}

    def draw(self, like: Traces, noise: Noise) -> Traces:
        """The traces of `like` with signal, spread and presence recovered; only what was measured, and its rate, is looked at."""
        length, rate = self.recipe.length, self.recipe.rate
        if like.steps != length or bool(((like.rate - rate).abs() > 1e-3 * rate).any()):
            raise Refused(
                f"traces have {like.steps} steps at {float(like.rate[0]):g} MHz, and this denoiser learned from {length} at {rate:g} MHz; "
                "cut and resample them, or train one with --length and --rate"
            )
        parts = [self._answer(like.measured[start : start + AT_ONCE]) for start in range(0, len(like), AT_ONCE)]
        signal, spread, logit = (torch.cat(column) for column in zip(*parts, strict=True))
        presence = logit.sigmoid().to(like.rate)
        return dataclasses.replace(like, signal=signal.to(like.signal), spread=spread.to(like.signal), presence=presence)

    @torch.no_grad()
    def _answer(self, measured: Tensor) -> Answer:
        return cast(Answer, self.descent.average(measured.to(self.device)))

    def state_dict(self) -> dict[str, Tensor]:
        return self.descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)

    def to_ship(self) -> dict[str, Tensor]:
        """The averaged weights: all that denoising needs."""
        return {f"average.{name}": value for name, value in self.descent.average.state_dict().items()}


def build(recipe: DenoiserRecipe, training: Traces) -> Denoiser:
    """The learner of `recipe`; training traces give its units, and the pulses and the noise that matched filters know."""
    known = Known.of(training)
    if known is None or known.share > 0.99:
        raise Refused(
            f"{len(training)} training traces do not hold both pulses and none: a denoiser learns from {statistics.FEWEST} or more traces "
            "with a true pulse and from traces without one (signal all zero)"
        )
    unit = float(np.sqrt(np.square(known.pulses).mean()))
    power = np.square(np.abs(np.fft.rfft(known.pulses, axis=1))).mean(axis=0)
    weight = torch.from_numpy(power.max() / np.maximum(power, LEAST * power.max())).float()
    if recipe.network == "bottleneck":
        top, extreme = float(np.abs(known.pulses).max(axis=1).mean()), float(training.measured.abs().max())
        network: nn.Module = Bottleneck(recipe.length, recipe.widths, unit, top, -extreme, extreme)
    else:
        bank = known.bank_of(recipe.templates)
        some = training.measured[: statistics.LEARNED_FROM]
        level, white = (float(v.square().mean().sqrt()) for v in (some, some @ bank.precision))
        network = Corrected(recipe, bank, unit, level, white, known.share)
    return Denoiser(recipe, network, weight / weight.mean())


def restore(recipe: DenoiserRecipe, state: Mapping[str, Tensor]) -> Denoiser:
    """A learner that denoises, from the state of another or what of it was shipped."""
    average = under(state, "average") or under(state, "weights")
    if recipe.network == "bottleneck":
        network: nn.Module = Bottleneck(recipe.length, recipe.widths, 1.0, 1.0, 0.0, 1.0)
    else:
        bank = Bank(average["pulses"], average["precision"], average["strength"])
        network = Corrected(recipe, bank, 1.0, 1.0, 1.0, 0.5)
    found = Denoiser(recipe, network, torch.ones(recipe.length // 2 + 1))
    found.descent.average.load_state_dict(average)
    return found


# ----------------------------------------------------------------------------------------------------- what it is worth


def examine(learner: Denoiser, split: Split[Traces], seed: int) -> tuple[list[Finding], list[Check]]:
    """True reconstructions by place beside the share that the article reports, on traces made as its were: SNR 2 by its definition."""
    recipe = learner.recipe
    if recipe.data is not None or recipe.snr != (2.0,) or recipe.background not in ARTICLE:
        return [], []
    held_out = split.held_out[(split.held_out.signal != 0).any(1)]
    shown = held_out[: recipe.draws]
    found = learner.draw(shown, Noise(seed, range(len(shown))))
    place, amplitude = statistics.true_reconstruction(found.signal.cpu().double().numpy(), shown.signal.double().numpy())
    value, bar = 100 * float(place.mean()), ARTICLE[recipe.background]
    error = 100 * math.sqrt(max(float(place.var()), 1 / len(place)) / len(place))
    beside = {"the same by amplitude": 100 * float(amplitude.mean()), "the article": bar}
    name = f"true reconstruction on the {recipe.background} background (%)"
    return [], [Check(name, value, error, f"at or above the article's {bar:g}", value >= bar, beside)]


def figures(learner: Denoiser, split: Split[Traces], seed: int) -> list[Figure]:
    """Held-out traces with what was recovered, their spectra, and the detection of pulses."""
    shown = split.held_out[: learner.recipe.draws]
    return pictures.figures(shown, learner.draw(shown, Noise(seed, range(len(shown)))).to("cpu"), Known.of(split.train))


paper = DenoiserRecipe(
    network="bottleneck", widths=(8, 16, 16), simulated=50_000, steps=12_000, batch=64, draws=10_000, spectral=0.0, threads=1, ema=0.0,
)  # fmt: skip
laptop = DenoiserRecipe(templates=64, steps=5000, batch=64, draws=10_000, threads=1)

study = Study(
    title="Radio pulses of air showers recovered from noise",
    source="Erdmann, Schl\u00fcter, \u0160m\u00edda 2019, Classification and Recovery of Radio Signals from Cosmic Ray Induced Air Showers "
    "with Deep Learning, arXiv:1901.04079",
    recipes={
        "quick": laptop.model_copy(update={"templates": 16, "simulated": 4000, "steps": 150, "draws": 800, "ema": 0.98}),
        "laptop": laptop,
        "paper": paper,
    },
    expect={
        "quick": "under a minute on one core",
        "laptop": "6 min of training on one thread, and 1 min for 10,000 traces and the verdict",
        "paper": "7 min of processor time, and 1 min for 10,000 traces and the verdict",
    },
    build=build,
    restore=restore,
    examine=examine,
    figures=figures,
    citation="""@misc{erdmann2019radio,
  title = {Classification and Recovery of Radio Signals from Cosmic Ray Induced Air Showers with Deep Learning},
  author = {Erdmann, M. and Schl{\\"u}ter, F. and {\\v S}m{\\'i}da, R.},
  year = {2019},
  eprint = {1901.04079},
}""",
    **framing.SYSTEM,
)  # fmt: skip
