"""Maps of the convergence made Gaussian pixel by pixel, and what of their law depends on the universe that they show.

    kappa = q(g; theta)        q the quantile function of kappa over that of the normal law, measured on training maps: g has a normal
                               one-point law and keeps the order of the pixels (Neyrinck, Szapudi & Szalay 2009, ApJ 698:L90)
    <|g(k)|^2> = P(k; theta)   the power of each Fourier mode of g
    theta                      Omega_m, sigma_8, w, redshift of the sources: those of them that differ between training maps

Quantiles and log P are polynomials of third degree in u, the logarithms of theta in units of their spread in training, or of a lower
degree where training has too few universes. P is a smooth function of |k| besides (a cubic spline in log |k|).

A Gaussian field with this P, sent through q, is the *copula*: a generator without a network. Where nature is log-normal it is nature's
own law up to errors of measurement; what a network is worth shows only beyond it.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.special import ndtr
from torch import Tensor, nn

from simulacra.descent import under
from simulacra.sciences.lensing import framing
from simulacra.sciences.lensing.data import UNIVERSE, Maps
from simulacra.study import Refused

Array = NDArray[np.float64]

REACH, KNOTS = 3.25, 53  # quantiles from -REACH to REACH standard deviations of g; beyond, the last slopes go on as an exponential
HIGHEST = 3  # degree of the polynomials in the universe
SPLINES = 9  # cubic splines in log |k|
MEASURED = 1 << 22  # pixels of one universe from which its law is measured, at most
WIDEST = 0.02  # of the trained range: how far outside it a universe may lie before a warning


class Cosmology(nn.Module):
    """Universes (n, 4) as the numbers u that a network is told, (n, d), d the number of parameters that differ in training.

    Raises no error for universes outside the trained range but warns: what is drawn there is extrapolated.
    """

    low: Tensor
    high: Tensor
    stored: Tensor
    varies: Tensor

    def __init__(self, universe: Tensor) -> None:
        super().__init__()
        known = universe.isfinite().all(0)
        filled = torch.where(known, universe, torch.zeros_like(universe)).double()
        self.register_buffer("low", filled.min(0).values)
        self.register_buffer("high", filled.max(0).values)
        self.register_buffer("varies", known & (self.high - self.low > 1e-6 * self.high.abs()))
        # 0, which no universe has, where training does not say: states of runs hold finite numbers only.
        self.register_buffer("stored", torch.where(known, filled.mean(0), torch.zeros(4, dtype=torch.float64)))

    @property
    def numbers(self) -> int:
        """d: how many parameters a network is told."""
        return int(self.varies.sum())

    @property
    def usual(self) -> Tensor:
        """The mean (4,) of each parameter in training; nan where its maps do not tell."""
        return torch.where(self.stored == 0, math.nan, self.stored)

    def completed(self, universe: Tensor) -> Tensor:
        """Universes (n, 4) with the usual values of training where they say nothing (nan)."""
        return torch.where(universe.isfinite(), universe, self.usual.to(universe))

    def forward(self, universe: Tensor) -> Tensor:
        """u (n, d): 0 in the middle of the trained range of the logarithm, 1 and -1 at its ends."""
        asked = self.completed(universe)[:, self.varies].double()
        low, high = self.low[self.varies], self.high[self.varies]
        margin = WIDEST * (high - low)
        outside = (asked < low - margin) | (asked > high + margin)
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            name = [n for n, varies in zip(UNIVERSE, self.varies.tolist(), strict=True) if varies][column]
            warnings.warn(
                f"{name} = {asked[row, column]:g} lies outside the {low[column]:g} to {high[column]:g} of training: maps are extrapolated",
                stacklevel=2,
            )
        a, b = low.abs().log(), high.abs().log()
        return ((2 * asked.abs().clamp_min(1e-6).log() - a - b) / (b - a)).float()


def monomials(u: Tensor, degree: int) -> Tensor:
    """All products of up to `degree` of the columns of u (n, d), (n, f); the first is 1."""
    columns = [u.new_ones(len(u), 1)]  # also where u has no column
    for order in range(1, degree + 1):
        columns += [u[:, list(which)].prod(1, keepdim=True) for which in combinations_with_replacement(range(u.shape[1]), order)]
    return torch.cat(columns, 1)


class Polynomial(nn.Module):
    """Numbers (n, k) that depend on u (n, d), fitted to their values in some universes."""

    coefficient: Tensor

    def __init__(self, degree: int, coefficient: Tensor) -> None:
        super().__init__()
        self.degree = degree
        self.register_buffer("coefficient", coefficient)

    @classmethod
    def fitted(cls, u: Tensor, values: Tensor) -> Polynomial:
        """Least squares over universes u (m, d) with values (m, k); of the highest degree, 3 at most, that leaves a universe over."""
        degree = max((k for k in range(1, HIGHEST + 1) if math.comb(u.shape[1] + k, k) < len(u)), default=0) if u.shape[1] else 0
        found = torch.linalg.lstsq(monomials(u, degree).double(), values.double()).solution
        return cls(degree, found.float().contiguous())  # laid out as a loaded one is, or products round otherwise

    @classmethod
    def blank(cls, d: int, degree: int, numbers: int) -> Polynomial:
        """One whose coefficients are still to be loaded."""
        return cls(degree, torch.zeros(math.comb(d + degree, degree), numbers))

    def forward(self, u: Tensor) -> Tensor:
        found: Tensor = monomials(u, self.degree).to(self.coefficient) @ self.coefficient
        return found


class Marginal(nn.Module):
    """The law of a pixel: kappa to g and back, under the universe u."""

    knots: Tensor

    def __init__(self, quantiles: Polynomial) -> None:
        super().__init__()
        self.quantiles = quantiles  # of kappa in units of `scale`, at the knots: the first, and the logarithms of the steps
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("knots", torch.linspace(-REACH, REACH, KNOTS), persistent=False)
        self.scale: Tensor

    @classmethod
    def fitted(cls, kappa: Tensor, u: Tensor, universe: Tensor) -> Marginal:
        """Measured on maps kappa (n, side, side), all of one row of u (m, d) each: `universe` (n,) says which."""
        share = ndtr(np.linspace(-REACH, REACH, KNOTS))
        scale = float(kappa.std())
        rows = []
        for number in range(len(u)):
            values = kappa[universe == number].flatten().double().numpy() / scale
            at = np.quantile(values, share)
            rows.append(np.concatenate([at[:1], np.log(np.maximum(np.diff(at), 1e-6))]))
        found = cls(Polynomial.fitted(u, torch.from_numpy(np.stack(rows))))
        found.scale.fill_(scale)
        return found

    def _table(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiles at the knots (n, K) and the logarithms of the steps between them (n, K - 1)."""
        said = self.quantiles(u)
        steps = said[:, 1:]
        return torch.cat([said[:, :1], said[:, :1] + steps.exp().cumsum(1)], 1), steps

    def kappa(self, g: Tensor, u: Tensor) -> Tensor:
        """kappa (n, ...) of g (n, ...) in the universes u (n, d)."""
        table, steps = self._table(u)
        flat, width = g.flatten(1), 2 * REACH / (KNOTS - 1)
        place = ((flat + REACH) / width).clamp(0, KNOTS - 1 - 1e-4)
        left = place.long()
        inside = torch.lerp(table.gather(1, left), table.gather(1, left + 1), place - left)
        above, below = flat - REACH, -REACH - flat
        found = inside + _beyond(above, steps[:, -1:], _growth(steps[:, -8:]), width)
        found = found - _beyond(below, steps[:, :1], -_growth(steps[:, :8]), width)
        return (found * self.scale).view_as(g)

    def gaussian(self, kappa: Tensor, u: Tensor) -> Tensor:
        """The inverse: g (n, ...) of kappa."""
        table, steps = self._table(u)
        flat, width = (kappa / self.scale).flatten(1).contiguous(), 2 * REACH / (KNOTS - 1)
        right = torch.searchsorted(table, flat).clamp(1, KNOTS - 1)
        low, high = table.gather(1, right - 1), table.gather(1, right)
        inside = (right - 1 + ((flat - low) / (high - low)).clamp(0, 1)) * width - REACH
        found = inside + _back(flat - table[:, -1:], steps[:, -1:], _growth(steps[:, -8:]), width)
        return (found - _back(table[:, :1] - flat, steps[:, :1], -_growth(steps[:, :8]), width)).view_as(kappa)


def _told_apart(u: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of u (n, d), (m, d), and which of them each row is, (n,)."""
    if not u.shape[1]:  # torch tells no rows apart that have no columns
        return u[:1], torch.zeros(len(u), dtype=torch.int64)
    each, which = torch.unique(u, dim=0, return_inverse=True)
    return each, which


def _thinned(training: Maps, cosmology: Cosmology) -> Maps:
    """No more maps of a universe than it takes, evenly spaced."""
    _, universe = _told_apart(cosmology(training.universe))
    most = max(20, MEASURED // training.side**2)
    groups = [torch.nonzero(universe == number)[:, 0] for number in range(int(universe.max()) + 1)]
    kept = [rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().long()] for rows in groups]
    return training[torch.cat(kept)]


def _growth(steps: Tensor) -> Tensor:
    """How fast the logarithm of the slope grows per knot towards larger g, (n, 1), held to what laws of the sky do."""
    place = torch.arange(steps.shape[1]).to(steps) - (steps.shape[1] - 1) / 2
    return ((steps * place).sum(1, keepdim=True) / place.square().sum()).clamp(-0.2, 0.2)


def _beyond(over: Tensor, log_step: Tensor, growth: Tensor, width: float) -> Tensor:
    """What a quantile gains `over` (n, p) the last knot: slope exp(log_step) per knot, times exp(growth) per knot further on."""
    knots = (over / width).clamp_min(0)
    rate = torch.where(growth.abs() < 1e-4, torch.full_like(growth, 1e-4), growth)
    return log_step.exp() * torch.expm1(rate * knots) / rate


def _back(gain: Tensor, log_step: Tensor, growth: Tensor, width: float) -> Tensor:
    """The inverse of `_beyond`; where the exponential has a limit, what lies beyond it is as far out as the law reaches."""
    rate = torch.where(growth.abs() < 1e-4, torch.full_like(growth, 1e-4), growth)
    return width * torch.log1p((rate * gain.clamp_min(0) / log_step.exp()).clamp_min(-0.99)) / rate


class Power(nn.Module):
    """P(k; u) of each Fourier mode of the Gaussianised maps, as `families.denoising.Spectral` wants it: (n, side, side // 2 + 1)."""

    design: Tensor

    def __init__(self, side: int, splines: Polynomial, mean: Polynomial) -> None:
        super().__init__()
        self.side, self.splines, self.mean = side, splines, mean
        self.register_buffer("design", torch.from_numpy(_design(side)).float(), persistent=False)

    @classmethod
    def fitted(cls, g: Tensor, u: Tensor, universe: Tensor) -> Power:
        """Measured on Gaussianised maps g (n, side, side) in the universes u (m, d), `universe` (n,) says which."""
        side, design = g.shape[-1], _design(g.shape[-1])
        weight = np.full((side, side // 2 + 1), 2.0)
        weight[:, [0, -1]] = 1.0
        weight = weight.ravel()[1:]
        rows, means = [], []
        for number in range(len(u)):
            power = torch.fft.rfft2(g[universe == number]).abs().square().mean(0).double().numpy().ravel() / side**2
            rows.append(_smoothed(design, power[1:], weight))
            means.append([math.log(max(power[0], 1e-6))])
        splines = Polynomial.fitted(u, torch.from_numpy(np.stack(rows)))
        return cls(side, splines, Polynomial.fitted(u, torch.tensor(means)))

    @classmethod
    def blank(cls, side: int, d: int, degree: int) -> Power:
        """One whose numbers are still to be loaded."""
        return cls(side, Polynomial.blank(d, degree, SPLINES), Polynomial.blank(d, degree, 1))

    def forward(self, u: Tensor) -> Tensor:
        rest = self.splines(u) @ self.design.T
        return torch.cat([self.mean(u), rest], 1).exp().view(-1, self.side, self.side // 2 + 1)


def _design(side: int) -> Array:
    """Values of the splines at every mode but the mean, (modes, SPLINES)."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]).ravel()[1:] * side
    x = np.log(k)
    inner = np.linspace(0, x.max() + 1e-9, SPLINES - 2)
    knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
    return np.asarray(BSpline.design_matrix(x, knots, 3).toarray(), np.float64)


def _smoothed(design: Array, power: Array, weight: Array) -> Array:
    """Coefficients of log P whose P has the greatest likelihood: |g(k)|^2 is exponential about it (Newton's steps from log means)."""
    found = np.linalg.lstsq(design * weight[:, None], np.log(np.maximum(power, 1e-12)) * weight, rcond=None)[0]
    for _ in range(20):
        ratio = power * np.exp(-design @ found)
        slope = design.T @ (weight * (ratio - 1))
        curvature = (design * (weight * np.maximum(ratio, 0.1))[:, None]).T @ design
        found = found + np.linalg.solve(curvature, slope)
    return np.asarray(found, np.float64)


class Law(nn.Module):
    """All of it: what universe, the law of a pixel, the power of the modes; of maps `degrees` wide."""

    degrees: Tensor

    def __init__(self, cosmology: Cosmology, marginal: Marginal, power: Power, degrees: float = 0.0) -> None:
        super().__init__()
        self.cosmology, self.marginal, self.power = cosmology, marginal, power
        self.register_buffer("degrees", torch.tensor(degrees))

    @classmethod
    def fitted(cls, training: Maps) -> Law:
        """Measured on training maps without unobserved pixels, at most MEASURED pixels of a universe."""
        cosmology = Cosmology(training.universe)
        training = _thinned(training, cosmology)
        u = cosmology(training.universe)
        each, universe = _told_apart(u)
        marginal = Marginal.fitted(training.kappa, each, universe)
        g = torch.cat([marginal.gaussian(training.kappa[i : i + 256], u[i : i + 256]) for i in range(0, len(u), 256)])
        return cls(cosmology, marginal, Power.fitted(g, each, universe), float(training.degrees.mean()))

    @classmethod
    def blank(cls, side: int, state: Mapping[str, Tensor]) -> Law:
        """One for maps of `side` into which `state` can be loaded."""
        d, terms = int(state["cosmology.varies"].sum()), len(state["power.mean.coefficient"])
        degree = next(k for k in range(HIGHEST + 1) if math.comb(d + k, k) == terms)
        marginal = Marginal(Polynomial.blank(d, degree, KNOTS))
        cosmology = Cosmology(torch.zeros(1, 4))
        cosmology.load_state_dict(under(state, "cosmology"))  # how many numbers a network is told, it must know at once
        return cls(cosmology, marginal, Power.blank(side, d, degree))

    @property
    def numbers(self) -> int:
        """How many numbers say which universe."""
        return self.cosmology.numbers

    def forward(self, u: Tensor | None) -> Tensor:
        """Power of the modes (n, side, side // 2 + 1) in the universes u; of all maps where training showed but one."""
        found: Tensor = self.power(torch.zeros(1, 0) if u is None else u)
        return found

    def told(self, maps: Maps) -> Tensor | None:
        """What a network is told of the universes of maps, (n, d); None where training showed but one."""
        return self.cosmology(maps.universe) if self.numbers else None

    def gaussian(self, maps: Maps) -> Tensor:
        """g (n, 1, side, side) of maps."""
        return self.marginal.gaussian(maps.kappa, self.cosmology(maps.universe))[:, None]

    def maps(self, g: Tensor, like: Maps) -> Maps:
        """Maps of g (n, 1, side, side) in the universes of `like`, unobserved where `like` is. Refused for another angular size."""
        width = float(self.degrees)
        if ((like.degrees - width).abs() > 1e-2 * width).any():
            came = float(like.degrees[((like.degrees - width).abs() > 1e-2 * width).nonzero()[0, 0]])
            raise Refused(f"maps of {came:.4g} degrees were asked for; this generator learned from maps of {width:.4g} and draws no others")
        universe = self.cosmology.completed(like.universe)
        kappa = self.marginal.kappa(g[:, 0], self.cosmology(universe))
        return Maps(torch.where(like.kappa.isnan(), like.kappa, kappa.to(like.kappa)), like.degrees, universe)

    def asked(self, n: int, conditions: Mapping[str, str]) -> Maps:
        """A template of n maps in the asked universes, in turn. Refused for what no training map tells, or all tell alike."""
        found = framing.template(self.power.side, float(self.degrees), n, conditions)
        usual, varies = self.cosmology.usual.tolist(), self.cosmology.varies.tolist()
        for column, name in enumerate(UNIVERSE):
            value = found.universe[:, column]
            if name in conditions and math.isnan(usual[column]):
                raise Refused(f"{name} is asked for, but the maps of training do not all say what theirs is: draws cannot follow it")
            if name in conditions and not varies[column] and (value - usual[column]).abs().max() > 1e-3:
                raise Refused(f"{name} = {conditions[name]} is asked for, but it is {usual[column]:g} in all maps of training")
        return dataclasses.replace(found, universe=self.cosmology.completed(found.universe))

    def between(self, like: Maps, other: Maps, share: Tensor) -> Maps:
        """The rows of `like` in universes `share` (n,) of the way to those of `other`."""
        one, two = (self.cosmology.completed(maps.universe) for maps in (like, other))
        return dataclasses.replace(like, universe=torch.lerp(one, two, share.to(one)[:, None]))

    def copula(self, noise: Tensor, like: Maps) -> Maps:
        """The generator without a network: Gaussian fields from white `noise` (n, side, side), in the universes of `like`."""
        amplitude = self.power(self.cosmology(like.universe)).sqrt()
        side = noise.shape[-1]
        return self.maps(torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(side, side))[:, None], like)
