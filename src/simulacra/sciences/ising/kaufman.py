"""Exact values of the square Ising model, J = kB = 1, K = 1/T, energies and heat capacities per spin.

Finite n x n torus (Kaufman 1949, Phys. Rev. 76:1232):

    Z = (1/2) (2 sinh 2K)^(n^2/2) [P1 + P2 + P3 + P4]
    P1 = prod_r 2 cosh(n g_{2r+1} / 2)    P2 = prod_r 2 sinh(n g_{2r+1} / 2)
    P3 = prod_r 2 cosh(n g_{2r} / 2)      P4 = prod_r 2 sinh(n g_{2r} / 2)          r = 0 .. n-1
    cosh g_l = cosh 2K coth 2K - cos(l pi / n),    g_0 = 2K + ln tanh K: negative above T_c, zero at T_c
    u = -(1/n^2) d ln Z / dK,    c = (K^2/n^2) d^2 ln Z / dK^2

Everything is evaluated in logarithms with analytic derivatives; the factor of g_0, which vanishes at T_c, is kept apart.

Infinite lattice (Onsager 1944, Phys. Rev. 65:117; Yang 1952, Phys. Rev. 85:808). With s = sinh 2K and q = (s^2-1) / (s^2+1), so
that Onsager's modulus is k^2 = 1 - q^2, and K1, E1 the complete elliptic integrals:

    u = -coth 2K [1 + (2/pi) q K1]
    c = (4/pi) (K coth 2K)^2 {K1 - E1 - (1 - tanh^2 2K) [pi/2 + q K1]}
    m = (1 - s^-4)^(1/8) below T_c
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ellipe, ellipkm1

Array = NDArray[np.float64]


def critical_temperature() -> float:
    """T_c = 2 / ln(1 + sqrt 2)."""
    return 2 / math.log1p(math.sqrt(2))


# --- finite torus ---


@dataclasses.dataclass(frozen=True)
class _Factor:
    """A function of K: its logarithm and the first two derivatives of the logarithm."""

    log: Array
    first: Array
    second: Array


def ln_z(side: int, temperature: ArrayLike) -> Array:
    """ln Z of the side x side torus."""
    return _torus(side, temperature).log


def free_energy(side: int, temperature: ArrayLike) -> Array:
    """f = -T ln Z / side^2 per spin."""
    return np.asarray(-np.asarray(temperature, float) * ln_z(side, temperature) / side**2)


def energy(side: int, temperature: ArrayLike) -> Array:
    """u = <E> / side^2."""
    return np.asarray(-_torus(side, temperature).first / side**2)


def heat_capacity(side: int, temperature: ArrayLike) -> Array:
    """c = (<E^2> - <E>^2) / (T side)^2."""
    return np.asarray(_torus(side, temperature).second / (np.asarray(temperature, float) * side) ** 2)


def _torus(n: int, temperature: ArrayLike) -> _Factor:
    t = np.asarray(temperature, float)
    if n < 2 or not np.all((t > 0.01) & (t < np.inf)):
        raise ValueError(f"Kaufman's formula is evaluated for side >= 2 and 0.01 < T < inf, got side {n}, T {t}")
    k = 1 / t
    s, c = np.sinh(2 * k), np.cosh(2 * k)
    odd = _half_angles(n, np.arange(1, 2 * n, 2), k)
    even = _half_angles(n, np.arange(2, 2 * n, 2), k)
    p1, p2, rest = _cosh(odd), _sinh(odd), _sinh(even)
    zero = _Angles(n * (k + np.log(np.tanh(k)) / 2), n * (1 + 1 / s), -2 * n * c / s**2)
    p3 = _times(_cosh(even), _cosh(_Angles(zero.x[..., None], zero.first[..., None], zero.second[..., None])))
    total = _sum([p1, p2, p3], rest, zero)
    volume = n * n / 2
    front = _Factor(volume * np.log(2 * s) - math.log(2), volume * 2 * c / s, -volume * 4 / s**2)
    return _times(front, total)


@dataclasses.dataclass(frozen=True)
class _Angles:
    """x = n g / 2 and its derivatives by K; the last axis runs over g."""

    x: Array
    first: Array
    second: Array


def _half_angles(n: int, l: NDArray[np.int64], k: Array) -> _Angles:
    k = k[..., None]
    s, c = np.sinh(2 * k), np.cosh(2 * k)
    above = (s - 1) ** 2 / s + 2 * np.sin(l * np.pi / (2 * n)) ** 2  # cosh g - 1 without cancellation
    sinh_g = np.sqrt(above * (2 + above))
    g = np.log1p(above + sinh_g)
    by_k, by_k2 = 2 * c * (1 - s**-2.0), 4 * s - 4 / s + 8 * c**2 / s**3  # of cosh g
    first = by_k / sinh_g
    return _Angles(n * g / 2, n * first / 2, n * (by_k2 - (1 + above) * first**2) / sinh_g / 2)


def _cosh(a: _Angles) -> _Factor:
    """prod 2 cosh x."""
    tanh, size = np.tanh(a.x), np.abs(a.x)
    log = size + np.log1p(np.exp(-2 * size))
    return _Factor(log.sum(-1), (a.first * tanh).sum(-1), (a.second * tanh + a.first**2 * (1 - tanh**2)).sum(-1))


def _sinh(a: _Angles) -> _Factor:
    """prod 2 sinh x, all x > 0."""
    tanh = np.tanh(a.x)
    log = a.x + np.log(-np.expm1(-2 * a.x))
    return _Factor(log.sum(-1), (a.first / tanh).sum(-1), (a.second / tanh + a.first**2 * (1 - tanh**-2.0)).sum(-1))


def _times(a: _Factor, b: _Factor) -> _Factor:
    return _Factor(a.log + b.log, a.first + b.first, a.second + b.second)


def _sum(terms: list[_Factor], rest: _Factor, zero: _Angles) -> _Factor:
    """P1 + P2 + P3 + P4 with P4 = rest * 2 sinh(zero.x), whose sign is that of zero.x."""
    size = np.abs(zero.x)
    sinh, cosh = np.sign(zero.x) * -np.expm1(-2 * size), 1 + np.exp(-2 * size)  # 2 sinh x and 2 cosh x, times exp(-|x|)
    top = np.maximum.reduce([t.log for t in terms] + [rest.log + size])
    mean = terms[0].first  # derivatives are taken of the terms times exp(-mean K), else c is a difference of numbers like n^4
    y = np.zeros_like(top)
    y1, y2 = np.zeros_like(top), np.zeros_like(top)
    for t in terms:
        weight, slope = np.exp(t.log - top), t.first - mean
        y, y1, y2 = y + weight, y1 + weight * slope, y2 + weight * (t.second + slope**2)
    weight, slope = np.exp(rest.log + size - top), rest.first - mean
    d1, d2 = zero.first * cosh, zero.second * cosh + zero.first**2 * sinh
    y = y + weight * sinh
    y1 = y1 + weight * (d1 + sinh * slope)
    y2 = y2 + weight * (d2 + 2 * d1 * slope + sinh * (rest.second + slope**2))
    return _Factor(top + np.log(y), mean + y1 / y, y2 / y - (y1 / y) ** 2)


# --- infinite lattice ---


def onsager_energy(temperature: ArrayLike) -> Array:
    """u of the infinite lattice; -sqrt 2 at T_c."""
    _, s, c, q = _modulus(temperature)
    return -(c / s) * (1 + 2 / np.pi * _q_k1(q))


def onsager_heat_capacity(temperature: ArrayLike) -> Array:
    """c of the infinite lattice; infinite at T_c."""
    k, s, c, q = _modulus(temperature)
    k1, e1 = ellipkm1(q**2), ellipe(1 - q**2)
    return np.asarray(4 / np.pi * (k * c / s) ** 2 * (k1 - e1 - c**-2.0 * (np.pi / 2 + _q_k1(q))))


def onsager_magnetisation(temperature: ArrayLike) -> Array:
    """|m| of the infinite lattice: (1 - sinh(2/T)^-4)^(1/8) below T_c, 0 above."""
    _, s, _, _ = _modulus(temperature)
    return np.asarray(np.maximum(1 - s**-4.0, 0.0) ** 0.125)


def onsager_free_energy(temperature: ArrayLike, nodes: int = 400) -> Array:
    """f = -T {ln(2 cosh 2K) + (1/pi) int_0^(pi/2) ln[(1 + sqrt(1 - k^2 sin^2 a)) / 2] da}, to about 1e-9."""
    _, _, c, q = _modulus(temperature)
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (x + 1) / 2, w / 2
    a = np.pi / 2 * x**2  # crowds the nodes where the root is smallest: a is measured from pi/2
    root = np.sqrt(np.sin(a) ** 2 + q[..., None] ** 2 * np.cos(a) ** 2)
    integral = (np.log1p((root - 1) / 2) * np.pi * x * w).sum(-1)
    return np.asarray(-np.asarray(temperature, float) * (np.log(2 * c) + integral / np.pi))


def correlation_length(temperature: ArrayLike) -> Array:
    """xi along an axis, infinite lattice: 1 / (ln coth K - 2K) above T_c, half of its mirror image below; infinite at T_c."""
    k = 1 / np.asarray(temperature, float)
    rate = np.log(np.tanh(k)) + 2 * k
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(rate < 0, 1.0, 0.5) / np.abs(rate))


def _modulus(temperature: ArrayLike) -> tuple[Array, Array, Array, Array]:
    k = 1 / np.asarray(temperature, float)
    s, c = np.sinh(2 * k), np.cosh(2 * k)
    return k, s, c, (s - 1) * (s + 1) / c**2


def _q_k1(q: Array) -> Array:
    """q K1, which tends to 0 with q although K1 diverges."""
    return np.asarray(np.where(q == 0, 0.0, q * ellipkm1(np.where(q == 0, 1.0, q**2))))


# --- every state of the 4 x 4 torus ---


@dataclasses.dataclass(frozen=True)
class Enumeration:
    """Averages over all 2^16 states of the 4 x 4 torus; energies and magnetisations per spin."""

    energy: float
    heat_capacity: float
    magnetisation: float  # <|m|>
    magnetisation_squared: float  # <m^2>
    binder: float  # 1 - <m^4> / (3 <m^2>^2)
    ln_z: float
    levels: Array  # energies per spin that occur
    level_probability: Array


def enumerate_4x4(temperature: float) -> Enumeration:
    """Sum over states, term by term."""
    energies, magnetisations = _states_4x4()
    exponent = -energies / temperature
    top = exponent.max()
    weight = np.exp(exponent - top)
    p = weight / weight.sum()
    u, m, levels = p @ energies, magnetisations / 16, np.unique(energies)
    second, fourth = p @ m**2, p @ m**4
    return Enumeration(
        float(u / 16), float((p @ (energies - u) ** 2) / (16 * temperature**2)), float(p @ np.abs(m)), float(second),
        float(1 - fourth / (3 * second**2)), float(top + math.log(weight.sum())), levels / 16,
        np.array([p[energies == e].sum() for e in levels]),
    )  # fmt: skip


def _states_4x4() -> tuple[Array, Array]:
    """Energy and magnetisation (total) of each of the 65536 states."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    spins = (2 * bits - 1).reshape(-1, 4, 4)
    bonds = spins * (np.roll(spins, 1, 1) + np.roll(spins, 1, 2))
    return -bonds.sum((1, 2)).astype(float), spins.sum((1, 2)).astype(float)
