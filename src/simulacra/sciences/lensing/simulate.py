"""Log-normal maps of the convergence, for any flat universe of constant w and any source redshift.

    C(l)      Limber integral over the nonlinear matter spectrum, all sources in one plane (pyccl)
    kappa     = lambda (exp(g - s^2 / 2) - 1)      g Gaussian of variance s^2                          Taruya et al. 2002, ApJ 571:638
    xi_g      = ln(1 + xi_kappa / lambda^2)        which gives kappa exactly the correlation xi_kappa of C(l)    Coles & Jones 1991
    lambda    = EMPTINESS x convergence of an empty line of sight, 3/2 Omega_m (H_0/c)^2 int chi (chi_s - chi) / chi_s (1 + z) dchi

No line of sight is emptier than -lambda. EMPTINESS = 1/3 is what variance and skewness of a ray-traced light cone ask for: 0.31 to
0.37 for sources at 0.32 < z < 1.5, smoothed over about 1 arcmin.

With w = exp(s^2): variance lambda^2 (w - 1), skewness (w + 2) sqrt(w - 1), excess kurtosis w^4 + 2 w^3 + 3 w^2 - 6.

Maps are periodic (cut smaller patches from larger maps where that matters) and their spectrum is C(l) without the window of a
pixel. A log-normal field has the right spectrum and one-point law; its shapes, peaks and bispectrum are those of no N-body run.
Matter: Eisenstein & Hu 1998 transfer function, halofit; h = 0.7, Omega_b = 0.046, n_s = 0.96.
"""

from __future__ import annotations

import atexit
import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simulacra.sciences.lensing.data import Maps, maps
from simulacra.study import Refused

Array = NDArray[np.float64]

HUBBLE, BARYONS, TILT = 0.7, 0.046, 0.96
EMPTINESS = 1 / 3
MOST_CLIPPED = 0.02
STREAMS = 1 << 40  # the first of the simulator's: those of `study.Noise`, numbered from 0, are for draws, which must not share its numbers
HUBBLE_LENGTH = 2997.92458  # c / H_0 in Mpc / h
ARCMIN = np.radians(1 / 60)


@dataclasses.dataclass(frozen=True)
class Universe:
    """A flat universe with dark energy of constant w, seen with all sources at one redshift."""

    omega_m: float = 0.3
    sigma_8: float = 0.8
    w: float = -1.0
    z_source: float = 1.0

    def __post_init__(self) -> None:
        ranges = {"omega_m": (0.1, 0.9), "sigma_8": (0.3, 1.5), "w": (-2.0, -0.3), "z_source": (0.3, 3.0)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise Refused(f"{name} = {getattr(self, name):g}; maps are simulated for {name} from {low:g} to {high:g}")


@dataclasses.dataclass(frozen=True)
class Law:
    """What a log-normal map of one universe is drawn from."""

    amplitude: Array  # (side, side // 2 + 1): square root of the spectrum of g, in the units of numpy.fft.rfft2 of white noise
    shift: float  # lambda
    variance: float  # s^2 of g
    spectrum: Array  # (side, side // 2 + 1): spectrum of kappa per pixel, P = C / pixel^2
    clipped: float  # excess of the variance of g over the one asked for, because no Gaussian field has a negative spectrum


def convergence_spectrum(universe: Universe, ell: Any) -> Array:
    """C(l) of the convergence at multipoles ell (steradian), by pyccl (Chisari et al. 2019, ApJS 242:2)."""
    ccl, matter = _matter(universe.omega_m, universe.sigma_8, universe.w)
    tracer = ccl.CMBLensingTracer(matter, z_source=universe.z_source)  # the kernel of one source plane, at any redshift
    return np.asarray(ccl.angular_cl(matter, tracer, tracer, np.asarray(ell, float)), np.float64)


@lru_cache(maxsize=64)
def _matter(omega_m: float, sigma_8: float, w: float) -> tuple[Any, Any]:
    try:
        import pyccl
    except ImportError as error:
        raise Refused('simulating convergence maps needs pyccl; pip install "simulacra[astro]"') from error
    return pyccl, pyccl.Cosmology(
        Omega_c=omega_m - BARYONS, Omega_b=BARYONS, h=HUBBLE, sigma8=sigma_8, n_s=TILT, w0=w,
        transfer_function="eisenstein_hu", matter_power_spectrum="halofit",
    )  # fmt: skip


atexit.register(_matter.cache_clear)  # pyccl's own clean-up fails, loudly, once the interpreter has taken its modules down


def empty_beam(universe: Universe) -> float:
    """Minus the convergence of a line of sight that meets no matter at all."""
    z = np.linspace(0, universe.z_source, 1025)
    rate = np.sqrt(universe.omega_m * (1 + z) ** 3 + (1 - universe.omega_m) * (1 + z) ** (3 * (1 + universe.w)))
    chi = np.concatenate([[0.0], np.cumsum((1 / rate[1:] + 1 / rate[:-1]) / 2 * np.diff(z))])  # in units of c / H_0
    return float(1.5 * universe.omega_m * np.trapezoid(chi * (1 - chi / chi[-1]) * (1 + z), chi))


@lru_cache(maxsize=64)
def law(universe: Universe, side: int, degrees: float, *, smoothing: float = 0.0) -> Law:
    """The log-normal law of maps of `side` pixels over `degrees`; `smoothing`: sigma in arcmin of a Gaussian that C(l) is seen through."""
    pixel = np.radians(degrees) / side
    k = 2 * np.pi * np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :]) / pixel
    ell = np.geomspace(k[k > 0].min(), k.max(), 80)
    curve = np.interp(np.log(k[k > 0]), np.log(ell), np.log(convergence_spectrum(universe, ell)))
    power = np.zeros_like(k)
    power[k > 0] = np.exp(curve - (k[k > 0] * smoothing * ARCMIN) ** 2) / pixel**2
    return log_normal_law(power, EMPTINESS * empty_beam(universe))


def log_normal_law(power: Array, shift: float) -> Law:
    """The law of periodic maps with spectrum `power` (side, side // 2 + 1) and least value -shift."""
    side = len(power)
    xi = fft.irfft2(power, (side, side))
    if xi.flat[0] <= 0 or (xi <= -(shift**2)).any():
        raise Refused("no log-normal field has this spectrum and shift; give a positive spectrum or a larger shift")
    correlation = np.log1p(xi / shift**2)
    wanted = fft.rfft2(correlation).real
    kept = np.maximum(wanted, 0)
    variance = float(fft.irfft2(kept, (side, side)).flat[0])
    clipped = variance / float(correlation.flat[0]) - 1
    if clipped > MOST_CLIPPED:
        raise Refused(f"a log-normal field of this spectrum would be {clipped:.0%} off in variance; smooth it, or give a larger shift")
    return Law(np.sqrt(kept), shift, variance, power, clipped)


def simulate(
    universes: Sequence[Universe], each: int, *, side: int = 64, degrees: float = 3.5, seed: int, smoothing: float = 0.0
) -> Maps:
    """`each` maps of every universe, rows in the order of `universes`. Map i of (seed, universe i) is the same in sets of any size."""
    if not universes or each < 1 or not 16 <= side <= 2048 or not 0 < degrees <= 20 or seed < 0 or smoothing < 0:
        raise Refused(
            f"{len(universes)} universes, {each} maps of each, side {side}, {degrees:g} degrees, seed {seed}, smoothing {smoothing:g}: "
            "expected at least one, side 16 to 2048, up to 20 degrees (a flat sky), seed and smoothing 0 or more"
        )
    kappa = np.empty((len(universes) * each, side, side), np.float32)
    for i, universe in enumerate(universes):
        known = law(universe, side, degrees, smoothing=smoothing)
        for row in range(each):
            kappa[i * each + row] = draw(known, np.random.Generator(np.random.Philox(key=[seed, STREAMS + i], counter=[0, 0, 0, row])))
    columns = {f.name: np.repeat([getattr(u, f.name) for u in universes], each) for f in dataclasses.fields(Universe)}
    return maps(kappa, degrees, **columns)


def draw(known: Law, rng: np.random.Generator) -> NDArray[np.float32]:
    """One map (side, side) of the law."""
    side = len(known.amplitude)
    g = fft.irfft2(fft.rfft2(rng.standard_normal((side, side), np.float32)) * known.amplitude.astype(np.float32), (side, side))
    return np.asarray(known.shift * np.expm1(g - np.float32(known.variance / 2)), np.float32)
