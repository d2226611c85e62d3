"""How unlike the galaxies it was trained on an image is, from what an autoencoder makes of it and from its light profile.

    residual   log of the mean of (x - y)^2 / v: x the image, y its reconstruction, v the variance of x - y that training
               images show at brightness y, per band                    structure that galaxies do not have: a trail, a ring
    latent     -log p(z), z the latent position, p the prior fitted to training        familiar parts that do not go together
    profile    -log density of the light in four rings about the middle, its colours there, and the sky, under a mixture of
               Gaussians fitted to training                            wrong bands, strange colours: a decoder copies them well

Each becomes a surprise, -ln of the share of training images that are at least as extreme (beyond the top tenth: with its
exponential tail). The score is the root of the sum of their squares: an anomaly usually shows in one, and a plain sum would
drown it in the scatter of the others. High means novel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from simulacra.descent import under
from simulacra.families import mixture
from simulacra.families.mixture import Mixture

FEATURES = ("residual", "latent", "profile")
LEVELS = 24  # brightness bins of the expected variance
QUANTILES = 201
TAIL = 0.1  # share of training images that sets the slope beyond it
RINGS = (0.0, 0.06, 0.12, 0.2, 0.32)  # edges of the rings of the profile, shares of the side
FAINT = 4 / 255  # brightness that counts as little: below it profiles are linear, above logarithmic
COMPONENTS = 4  # Gaussians for the profile; 1, 8 and 16 do about as well


class Expected(NamedTuple):
    """What training images show: variance of the residual by band and brightness, the law of profiles and of every feature."""

    variance: Tensor  # (bands, LEVELS)
    centre: Tensor  # (numbers,) of the profile
    scale: Tensor  # (numbers,)
    profiles: Mixture  # of standardised profiles
    quantiles: Tensor  # (features, QUANTILES), of training images, rising
    slope: Tensor  # (features,) mean excess over the quantile 1 - TAIL

    def state(self) -> dict[str, Tensor]:
        plain = {name: value for name, value in self._asdict().items() if name != "profiles"}
        return plain | {f"profiles.{name}": value for name, value in self.profiles.state().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Expected:
        plain = {name: state[name].clone() for name in cls._fields if name != "profiles"}
        return cls(profiles=Mixture.from_state(under(state, "profiles")), **plain)


def blank(bands: int) -> Expected:
    """What stands in a state before anything was fitted."""
    count, numbers = len(FEATURES), profile(torch.zeros(1, bands, 16, 16)).shape[1]
    quantiles = torch.linspace(0, 1, QUANTILES).repeat(count, 1)
    law = mixture.blank(COMPONENTS, numbers)
    return Expected(torch.ones(bands, LEVELS), torch.zeros(numbers), torch.ones(numbers), law, quantiles, torch.ones(count))


# ------------------------------------------------------------------------------------------------------------- residual


def _level(y: Tensor) -> Tensor:
    """Brightness bin of every number; root-spaced, since most of an image is dark."""
    return (y.clamp(0, 1).sqrt() * LEVELS).long().clamp(max=LEVELS - 1)


def residual_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sums of (x - y)^2 and counts by band and brightness of y, shape (2, bands, LEVELS), for images (n, bands, side, side)."""
    bands = x.shape[1]
    where = (_level(y) + LEVELS * torch.arange(bands, device=y.device)[:, None, None]).flatten()
    squares = torch.bincount(where, (x - y).square().flatten().double(), bands * LEVELS)
    return torch.stack([squares, torch.bincount(where, minlength=bands * LEVELS).double()]).reshape(2, bands, LEVELS)


def expected_variance(sums: Tensor) -> Tensor:
    """Variance by band and brightness; levels that training hardly shows take that of the nearest darker one."""
    squares, counts = sums
    variance: Tensor = squares / counts.clamp(min=1)
    for level in range(1, LEVELS):
        rare = counts[:, level] < 200
        variance[:, level] = torch.where(rare, variance[:, level - 1], variance[:, level])
    return variance.clamp(min=1 / (12 * 255**2)).float()  # rounding to bytes alone


def excess(x: Tensor, y: Tensor, variance: Tensor) -> Tensor:
    """log of the mean squared residual in units of what is expected, (n,), for images and reconstructions (n, bands, side, side)."""
    band = torch.arange(x.shape[1], device=y.device)[:, None, None]
    return ((x - y).square() / variance.to(y)[band, _level(y)]).flatten(1).mean(dim=1).log()


# -------------------------------------------------------------------------------------------------------------- profile


def profile(x: Tensor) -> Tensor:
    """Light in rings about the middle, in colour also red - blue and red + blue - 2 green over the light, and the sky per band."""
    side = x.shape[-1]
    sky = x[:, :, _edge(side)].median(dim=2).values
    away = torch.arange(side, device=x.device) - (side - 1) / 2
    radius = torch.hypot(away[:, None], away[None, :]) / side
    rings = torch.stack([x[:, :, (radius >= inner) & (radius < outer)].mean(dim=2) for inner, outer in pairwise(RINGS)], dim=2)
    light = rings - sky[:, :, None]
    mean = light.mean(dim=1)
    parts = [torch.asinh(mean / FAINT), sky.clamp(min=1 / 512).log()]
    if x.shape[1] == 3:
        red, green, blue = light.unbind(dim=1)
        of = mean.clamp(min=0) + FAINT
        parts += [torch.asinh((red - blue) / of), torch.asinh((red + blue - 2 * green) / of)]
    return torch.cat(parts, dim=1)


def _edge(side: int) -> Tensor:
    width = max(1, side // 20)
    edge = torch.ones(side, side, dtype=torch.bool)
    edge[width:-width, width:-width] = False
    return edge


# ---------------------------------------------------------------------------------------------------------------- score


def learnt(residual: Tensor, latent: Tensor, profiles: Tensor, variance: Tensor) -> Expected:
    """The law of every feature, from those of training images: residual and latent (n,), profiles (n, numbers)."""
    centre, scale = profiles.mean(dim=0), profiles.std(dim=0).clamp(min=1e-6)
    law = mixture.fit_mixture((profiles - centre) / scale, min(COMPONENTS, max(1, len(profiles) // 50)), seed=0, shrinkage=0.05)
    table = torch.stack([residual, latent, -law.log_density((profiles - centre) / scale)], dim=1)
    quantiles = torch.quantile(table, torch.linspace(0, 1, QUANTILES).to(table), dim=0).T.contiguous()
    beyond = (table - torch.quantile(table, 1 - TAIL, dim=0)).clamp(min=0)
    slope = beyond.sum(dim=0) / (beyond > 0).sum(dim=0).clamp(min=1)
    return Expected(variance, centre, scale, law, quantiles, slope.clamp(min=1e-6))


def surprises(residual: Tensor, latent: Tensor, profiles: Tensor, expected: Expected) -> Tensor:
    """-ln of the share of training images at least as extreme, feature by feature, (n, features)."""
    strange = -expected.profiles.log_density((profiles - expected.centre) / expected.scale)
    edge = round((1 - TAIL) * (QUANTILES - 1))
    columns = []
    for values, quantiles, slope in zip((residual, latent, strange), expected.quantiles, expected.slope, strict=True):
        rank = torch.searchsorted(quantiles, values.contiguous()).to(values) / (QUANTILES - 1)
        # An exponential beyond the edge: continuous, unbounded, and not ruled by the single largest training image.
        columns.append(-(1 - rank.clamp(max=1 - TAIL)).log() + (values - quantiles[edge]).clamp(min=0) / slope)
    return torch.stack(columns, dim=1)


def score(found: Tensor) -> Tensor:
    """One number per image from its surprises (n, features); high means novel."""
    return found.square().sum(dim=1).sqrt()


def auroc(usual: Tensor, strange: Tensor) -> tuple[float, float]:
    """Probability that a strange thing scores above a usual one, ties half, and its standard error (Hanley & McNeil 1982)."""
    n, m = len(usual), len(strange)
    ordered, strange = usual.sort().values, strange.contiguous()
    below = torch.searchsorted(ordered, strange, right=False).double()
    upto = torch.searchsorted(ordered, strange, right=True).double()
    a = float((below + upto).mean() / (2 * n))
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    return a, math.sqrt(max(a * (1 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2), 0.0) / (n * m))


def each_alone(usual: Tensor, strange: Tensor) -> dict[str, float]:
    """Area under the ROC curve of every feature by itself."""
    return {f"{name} alone": auroc(usual[:, i], strange[:, i])[0] for i, name in enumerate(FEATURES)}
