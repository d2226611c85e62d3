"""Electromagnetic showers with a known law: every mean and variance is a closed form, given a handful of latent numbers.

    y = E / E_c                       E_c = 8 MeV, X_0 = 3.504 mm, R_M = 9.3 mm (tungsten)
    dE/dt = E b (bt)^(a-1) e^(-bt) / Gamma(a)          t in X_0 from the start of the shower; maximum at (a - 1) / b
    mean maximum  ln y - 0.5 (electron), ln y + 0.5 (photon);  a = 1 + 0.5 (ln y - 0.5)
    (ln t_max, ln a)                  fluctuate as a correlated Gaussian; b = (a - 1) / t_max then belongs to the shower
    start                             0 for electrons and positrons, exponential of mean 9/7 X_0 for photons, which then reach their
                                      maximum sooner by 9/7 - 1
    across                            density R^2 / (pi (r^2 + R^2)^2), a core and a tail, R growing with depth and fluctuating as a whole
    cells                             compound Poisson: N ~ Poisson(mu / e) deposits of Gamma(k) with mean e, mu the expected energy

A sum of cells is compound Poisson again, so for any set of cells with expected energy mu, given the latent numbers,

    mean mu,  variance mu e (1 + 1/k),  share without a hit exp(-mu / e)

and the resolution of the total is a / sqrt(E) with a^2 = (1 + 1/k) e / f, f the sampling fraction, in quadrature with a constant term
and with what leaks. What a cell expects is a difference of incomplete gamma functions times a rectangle of that density,

    F(x, y) = [x / s_x atan(y / s_x) + y / s_y atan(x / s_y)] / (2 pi),  s_x^2 = x^2 + R^2,  s_y^2 = y^2 + R^2

(its four corners added with signs). The law is a parametrisation and not a Monte Carlo of particles: deposits in cells are independent
given the latent numbers, and there is no noise, no dead cell and one angle of incidence.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special

from simulacra.sciences.calorimeter.data import PHOTON, Showers
from simulacra.study import Refused

Array = NDArray[np.float64]

CRITICAL = 8.0  # MeV, tungsten
RADIATION_LENGTH, MOLIERE = 3.504, 9.3  # mm
SLOPE = 0.5  # b of the mean profile, per X_0
CONVERSION = 9 / 7  # X_0, mean depth at which a photon converts
DEPTH, WIDTH = 25.0, 13.44  # of the calorimeter: X_0 in depth, Moliere radii (125 mm) across
SAMPLING = 0.02  # share of the energy that is seen
STOCHASTIC, CONSTANT = 0.10, 0.01  # resolution: 10 % / sqrt(E in GeV), 1 %
LANDING = 2.0  # shape k of the energy of one deposit
QUANTUM = STOCHASTIC**2 * SAMPLING * 1000 / (1 + 1 / LANDING)  # MeV, mean energy e of one deposit
CORE, TAIL, IN_TAIL = (0.10, 0.15), 1.0, 0.12  # radii in R_M (core: at the start, and per t / t_max), share of the tail
BREADTH = 0.10  # sd of the logarithm of all radii together
LOWEST, HIGHEST = 1.0, 500.0  # GeV
STREAM = 1 << 40  # of random numbers: those of `study.Noise`, numbered from 0, are for draws, which must not share the simulator's
BLOCK = 250_000  # cells at a time, so that they stay in fast memory


@dataclasses.dataclass(frozen=True)
class Latent:
    """How each shower develops: everything that its expected energies depend on, each (n,)."""

    incident: Array  # GeV
    maximum: Array  # X_0 from its start
    shape: Array  # a
    start: Array  # X_0
    breadth: Array  # all radii over their usual values
    gain: Array  # response over its usual value: the constant term

    def __getitem__(self, rows: Any) -> Latent:
        return Latent(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def usual(incident: ArrayLike, particle: ArrayLike) -> tuple[Array, Array]:
    """Position of the maximum after the start, in X_0, and a, of a shower that does not fluctuate."""
    depth = np.log(np.asarray(incident, np.float64) * 1000 / CRITICAL) - 0.5
    sooner = np.where(np.asarray(particle) == PHOTON, CONVERSION - 1, 0.0)
    return depth - sooner, 1 + SLOPE * depth


def spread(incident: ArrayLike) -> tuple[Array, Array, Array]:
    """Standard deviations of ln t_max and ln a, and their correlation."""
    y = np.log(np.asarray(incident, np.float64) * 1000 / CRITICAL)
    return 1 / (-1.4 + 1.26 * y), 1 / (-0.58 + 0.86 * y), 0.705 - 0.023 * y


def latent(incident: Array, particle: Array, normal: Array, uniform: Array) -> Latent:
    """Latent numbers from standard normal ones (n, 4) and uniform ones (n,)."""
    maximum, shape = usual(incident, particle)
    sd_maximum, sd_shape, correlation = spread(incident)
    other = correlation * normal[:, 0] + np.sqrt(1 - correlation**2) * normal[:, 1]
    return Latent(
        incident,
        maximum * np.exp(sd_maximum * normal[:, 0]),
        np.maximum(shape * np.exp(sd_shape * other), 1.05),
        np.where(particle == PHOTON, -CONVERSION * np.log1p(-uniform), 0.0),
        np.exp(BREADTH * normal[:, 2]),
        np.exp(CONSTANT * normal[:, 3] - CONSTANT**2 / 2),
    )


def layer_shares(development: Latent, layers: int, depth: float = DEPTH) -> Array:
    """Share of each shower's energy in each layer (n, layers), all of its width; the rest leaks out at the back."""
    edges = np.maximum(np.linspace(0, depth, layers + 1) - development.start[:, None], 0)
    slope = (development.shape - 1) / development.maximum
    return np.diff(special.gammainc(development.shape[:, None], slope[:, None] * edges), axis=1)


def inside(development: Latent, layers: int) -> Array:
    """Share of the energy in each layer that falls on its face (n, layers); the rest leaks out at the sides."""
    face = np.array([0.0, WIDTH / 2])
    core = corners(face, radii(development, layers)[:, :, None, None])[..., 1, 1]
    tail = corners(face, (TAIL * development.breadth)[:, None, None, None])[..., 1, 1]
    return np.asarray(4 * ((1 - IN_TAIL) * core + IN_TAIL * tail), np.float64)


def radii(development: Latent, layers: int) -> Array:
    """Core radius in each layer, in Moliere radii, (n, layers)."""
    middle = (np.arange(layers) + 0.5) * DEPTH / layers
    age = np.clip((middle - development.start[:, None]) / development.maximum[:, None], 0, 3)
    return development.breadth[:, None] * (CORE[0] + CORE[1] * age)


def corners(edges: Array, radius: Array) -> Array:
    """F(x, y) at all pairs of edges (k,), for radii (..., 1, 1): share of the density between 0 and x, 0 and y, (..., k, k)."""
    slant = np.sqrt(edges[:, None] ** 2 + radius**2)
    one = edges[:, None] / slant * np.arctan(edges / slant)
    return (one + np.swapaxes(one, -1, -2)) / (2 * np.pi)


def cell_shares(development: Latent, cells: int, kind: Any = np.float64) -> NDArray[Any]:
    """Expected share of each shower's energy in each cell (n, layers, rows, columns). Quarters of a layer are alike."""
    edges = _edges(cells)
    core = _quarter(edges, radii(development, cells)[:, :, None, None])
    tail = _quarter(edges, (TAIL * development.breadth)[:, None, None, None])
    quarter = layer_shares(development, cells)[:, :, None, None] * ((1 - IN_TAIL) * core + IN_TAIL * tail)
    return _unfold(quarter.astype(kind), cells)


def _edges(cells: int) -> Array:
    """Edges of the cells on one side of the axis, in Moliere radii; an odd number of cells has the axis in the middle of one."""
    edges = (np.arange(cells + 1) / cells - 0.5) * WIDTH
    return np.concatenate([[0.0], edges[edges > 1e-9]])


def _quarter(edges: Array, radius: Array) -> Array:
    return np.diff(np.diff(corners(edges, radius), axis=-1), axis=-2)


def _unfold(quarter: NDArray[Any], cells: int) -> NDArray[Any]:
    """A quarter of the face, (..., h, h), to all of it (..., cells, cells); the middle cells of an odd grid straddle the axis."""
    odd = cells % 2
    if odd:
        quarter = quarter * np.where(np.arange(quarter.shape[-1]) == 0, 2, 1).astype(quarter.dtype)
        quarter = quarter * np.where(np.arange(quarter.shape[-1]) == 0, 2, 1).astype(quarter.dtype)[:, None]
    place = np.abs(np.arange(cells) - (cells - 1) / 2).astype(np.int64)
    return quarter[..., place[:, None], place]


# ----------------------------------------------------------------------------------------------------------- closed forms


@dataclasses.dataclass(frozen=True)
class Moments:
    """Exact moments of the energies in layers, over all showers of one incident energy and particle."""

    mean: Array  # (layers,) MeV
    covariance: Array  # (layers, layers) MeV^2

    @property
    def total(self) -> tuple[float, float]:
        """Mean and standard deviation of all that is deposited, in MeV."""
        return float(self.mean.sum()), float(np.sqrt(self.covariance.sum()))


def moments(incident: float, particle: int, cells: int = 12) -> Moments:
    """Of layers, by the laws of total mean and variance: given the latent numbers they are closed forms, and over these they are summed
    by Gauss-Hermite quadrature (the start of photons: midpoints of equal shares)."""
    normal, weight = np.polynomial.hermite_e.hermegauss(16)
    few, share = np.polynomial.hermite_e.hermegauss(5)
    starts = (np.arange(64) + 0.5) / 64 if particle == PHOTON else np.array([0.5])
    grid = [axis.ravel() for axis in np.meshgrid(normal, normal, few, starts, indexing="ij")]
    weights = (weight[:, None, None, None] * weight[None, :, None, None] * share[None, None, :, None] * np.ones(len(starts))).ravel()
    n = len(weights)
    development = latent(np.full(n, incident), np.full(n, particle), np.column_stack([*grid[:3], np.zeros(n)]), grid[3])
    expected = incident * SAMPLING * 1000 * layer_shares(development, cells) * inside(development, cells)
    weights /= weights.sum()
    mean = weights @ expected
    square = (expected * weights[:, None]).T @ expected * np.exp(CONSTANT**2)  # the mean square of the gain
    return Moments(mean, square - np.outer(mean, mean) + np.diag(mean * variance_per_energy()))


def variance_per_energy() -> float:
    """Variance of any sum of cells over its expected energy, given the latent numbers, in MeV."""
    return QUANTUM * (1 + 1 / LANDING)


# -------------------------------------------------------------------------------------------------------------- drawing


def simulate(incident: ArrayLike, particle: ArrayLike, cells: int = 12, *, seed: int) -> Showers:
    """One shower for each incident energy (n,) in GeV and particle (n,) or one for all, in cells^3 cells.

    Shower i of a seed is the same in sets of any size.
    """
    energies = np.atleast_1d(np.asarray(incident, np.float64))
    kinds = np.broadcast_to(np.asarray(particle), energies.shape)
    _refuse(energies, kinds, cells, seed)
    found = np.empty((len(energies), cells, cells, cells), np.float32)
    block = max(1, BLOCK // cells**3)
    for first in range(0, len(energies), block):
        rows = slice(first, min(first + block, len(energies)))
        generators = [np.random.Generator(np.random.Philox(key=[seed, STREAM], counter=[0, 0, 0, row])) for row in range(first, rows.stop)]
        normal = np.stack([rng.standard_normal(4) for rng in generators])
        uniform = np.array([rng.random() for rng in generators])
        development = latent(energies[rows], kinds[rows], normal, uniform)
        deposits = SAMPLING * 1000 / QUANTUM * development.incident * development.gain
        rates = cell_shares(development, cells, np.float32) * deposits.astype(np.float32)[:, None, None, None]
        for row, (rate, rng) in enumerate(zip(rates.reshape(len(rates), -1), generators, strict=True), first):
            found[row] = _deposits(rate, rng).reshape(cells, cells, cells)
    # Memory touched for the first time costs more than the random numbers that fill it, so what was filled is not copied.
    return Showers(torch.from_numpy(found), torch.from_numpy(energies.astype(np.float32)), torch.from_numpy(kinds.astype(np.int8)))


def _deposits(rate: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Energies (cells,) in MeV where `rate` deposits are expected.

    The first of a Poisson process comes after an exponential time, and those left are Poisson: only cells that are hit cost more.
    """
    first = rng.standard_exponential(len(rate), np.float32)
    energy = np.zeros(len(rate), np.float32)
    hit = np.flatnonzero(first < rate)
    count = 1 + rng.poisson(rate[hit] - first[hit])
    energy[hit] = rng.standard_gamma(LANDING * count) * (QUANTUM / LANDING)
    return energy


def _refuse(incident: Array, particle: Any, cells: int, seed: int) -> None:
    if incident.ndim != 1 or not len(incident) or not ((incident >= LOWEST) & (incident <= HIGHEST)).all():
        raise Refused(f"showers are simulated for one or more incident energies from {LOWEST:g} to {HIGHEST:g} GeV; got {incident}")
    if not np.isin(particle, (-1, 0, 1)).all():
        raise Refused(f"particles are 1 electron, 0 photon or -1 positron; got {np.unique(particle)}")
    if not 4 <= cells <= 50 or seed < 0:
        raise Refused(f"{cells} cells along an edge, seed {seed}; expected 4 to 50 cells and a seed of 0 or more")
