"""How unlike the galaxies it was trained on an image is, from what an autoencoder makes of it.

With x the image, y its reconstruction, z its latent position and v(y) the variance of x - y that training images show at
brightness y (per band, as a table over brightness), u = (x - y) / sqrt(v(y)) is the residual in units of what is expected.

    overall    log of the mean of u^2                                  too much of everything
    patch      log of the largest mean of u^2 over an eighth of the side   something local that was not reconstructed
    coherent   largest |mean of u| over 1/16 of the side, bands averaged   faint but smooth structure
    tint       the same for u_red - u_blue                             structure of a strange colour
    latent     -log p(z) under the prior fitted to training            a combination of familiar parts that does not occur

Each is turned into surprise, -ln of the share of training images that are at least as extreme (beyond the largest: with the
exponential tail of the top tenth). The score is the largest surprise plus a tenth of the sum: an anomaly usually shows in one
of them and the sum alone would drown it in the others' scatter. High means novel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = ("overall", "patch", "coherent", "tint", "latent")
LEVELS = 24  # brightness bins of the expected variance
QUANTILES = 201
TAIL = 0.1  # share of training images that sets the slope beyond the largest


class Expected(NamedTuple):
    """What training images show: variance of the residual by band and brightness, and the law of every feature."""

    variance: Tensor  # (bands, LEVELS)
    quantiles: Tensor  # (features, QUANTILES), of training images, rising
    slope: Tensor  # (features,) mean excess over the quantile 1 - TAIL

    def state(self) -> dict[str, Tensor]:
        return self._asdict()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Expected:
        return cls(*(state[name].clone() for name in cls._fields))


def blank(bands: int) -> Expected:
    """What stands in a state before anything was fitted."""
    count = len(FEATURES)
    return Expected(torch.ones(bands, LEVELS), torch.linspace(0, 1, QUANTILES).repeat(count, 1), torch.ones(count))


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
    variance = squares / counts.clamp(min=1)
    for level in range(1, LEVELS):
        rare = counts[:, level] < 200
        variance[:, level] = torch.where(rare, variance[:, level - 1], variance[:, level])
    return variance.clamp(min=1 / (12 * 255**2)).float()  # rounding to bytes alone


def features(x: Tensor, y: Tensor, log_density: Tensor, variance: Tensor) -> Tensor:
    """(n, features) of images and their reconstructions (n, bands, side, side), in the order of FEATURES."""
    bands, side = x.shape[1:3]
    scale = variance.to(y).sqrt()[torch.arange(bands, device=y.device)[:, None, None], _level(y)]
    u = (x - y) / scale
    wide, narrow = max(2, side // 8), max(2, side // 16)
    patches = F.avg_pool2d(u.square().mean(dim=1, keepdim=True), wide, stride=max(1, wide // 4))
    coherent = F.avg_pool2d(u.mean(dim=1, keepdim=True), narrow, stride=max(1, narrow // 4)).abs()
    tint = F.avg_pool2d(u[:, :1] - u[:, -1:], narrow, stride=max(1, narrow // 4)).abs()
    largest = [part.flatten(1).amax(dim=1) for part in (patches, coherent, tint)]
    return torch.stack([u.square().flatten(1).mean(dim=1).log(), largest[0].log(), *largest[1:], -log_density], dim=1)


def learnt(table: Tensor, variance: Tensor) -> Expected:
    """The law of every feature, from the features (n, features) of training images."""
    levels = torch.linspace(0, 1, QUANTILES, dtype=table.dtype, device=table.device)
    quantiles = torch.quantile(table, levels, dim=0).T.contiguous()
    edge = torch.quantile(table, 1 - TAIL, dim=0)
    beyond = (table - edge).clamp(min=0)
    slope = beyond.sum(dim=0) / (beyond > 0).sum(dim=0).clamp(min=1)
    return Expected(variance, quantiles, slope.clamp(min=1e-6))


def surprise(table: Tensor, expected: Expected) -> Tensor:
    """-ln of the share of training images at least as extreme, feature by feature, (n, features)."""
    columns = []
    for values, quantiles, slope in zip(table.T, expected.quantiles.to(table), expected.slope.to(table), strict=True):
        rank = torch.searchsorted(quantiles, values.contiguous()).to(table) / (QUANTILES - 1)
        edge = quantiles[round((1 - TAIL) * (QUANTILES - 1))]
        inside = -(1 - rank.clamp(max=1 - TAIL)).log()
        # An exponential beyond the edge: continuous, unbounded, and not ruled by the single largest training image.
        columns.append(inside + (values - edge).clamp(min=0) / slope)
    return torch.stack(columns, dim=1)


def score(surprises: Tensor) -> Tensor:
    """One number per image from (n, features); high means novel."""
    return surprises.amax(dim=1) + 0.1 * surprises.sum(dim=1)


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
