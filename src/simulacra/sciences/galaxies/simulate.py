"""Galaxies made by formula, with classes that are true by construction: 0 barred spiral, 1 elliptical, 2 spiral.

Surface brightness, convolved with the point-spread function and the pixel (galsim: Rowe et al. 2015, A&C 10:121):

    bulge   Sersic (1963): I(r) ~ exp(-b_n (r / r_e)^(1/n)), n in 2 ... 4 for ellipticals and 1 ... 4 for bulges
    disc    I(R) ~ exp(-R / h), inclined: R^2 = x'^2 + (y' / q)^2, q^2 = q0^2 + (1 - q0^2) cos^2 i, q0 = 0.15, cos i uniform
    arms    disc x (1 - 0.75 A + 1.6 A w^1.5), w = (1 + cos(m (theta - ln(R / a) / tan pitch) + phase)) / 2, from the radius a of the
            bulge (0.6 h) or of the ends of the bar outwards; the power narrows the arms, and the light between them is older
    bar     Sersic n = 1/2 of axis ratio 0.2 in the plane of the disc; arms start at its ends
    psf     Moffat, beta 3.5, full width at half maximum 1.3 arcsec x (1 +- 0.1) at 0.396 arcsec per pixel (SDSS; side 64)
    sky     Gaussian noise, correlated over 0.7 px as in resampled survey images, plus stars and small galaxies at random

Red, green and blue are the survey's i, r, g: each component has one colour, old stars redder. Stretched to bytes by
c = 255 (sky + x_band f(I) / I), f(I) = asinh(I / beta) / asinh(W / beta), I the mean of the bands (Lupton et al. 2004).

Galaxy i of a seed is the same galaxy in a set of any size. Galaxies fill about the share of the frame that they do in cutouts
scaled by Petrosian radius. At other sides than 64 px everything scales with the side.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal

from simulacra.sciences.galaxies.data import Images
from simulacra.study import Refused

Array = NDArray[np.float64]

CLASSES = ("barred spiral", "elliptical", "spiral")
SHARES = (0.22, 0.40, 0.38)
OLD, YOUNG = np.array([1.28, 1.0, 0.58]), np.array([0.94, 1.0, 1.12])  # red, green, blue of a bulge and of spiral arms
SEEING = 1.3 / 0.396  # px at side 64
SOFTENING, WHITE = 10.0, 2600.0  # beta and W of the stretch, in units of the sky noise
OVERSAMPLED = 2  # disc pixels per image pixel and axis


@dataclasses.dataclass(frozen=True)
class Galaxy:
    """What one galaxy is made of; lengths in pixels of a 64 px frame, angles in radians."""

    kind: int
    radius: float  # half-light radius of the bulge (ellipticals: of all), or scale length h of the disc
    axis_ratio: float
    angle: float
    peak: float  # central surface brightness scale, in sky noise per pixel
    sersic: float
    bulge_share: float  # of the light
    bulge_radius: float
    arms: int
    pitch: float
    contrast: float
    phase: float
    winding: int  # +1 or -1
    bar: float  # half length; 0: none
    bar_share: float
    colour: float  # 0: all old, 1: all young


def simulate(n: int, side: int, seed: int, colour: bool = True) -> Images:
    """n galaxies of `side` px with labels 0 barred spiral, 1 elliptical, 2 spiral."""
    _galsim()
    if n < 1 or not 16 <= side <= 1024:
        raise Refused(f"cannot simulate {n} galaxies of {side} px; ask for at least one, of 16 to 1024 px")
    pixels = np.empty((n, 3 if colour else 1, side, side), np.uint8)
    label = np.empty(n, np.int64)
    for i in range(n):
        rng = np.random.Generator(np.random.Philox(key=[seed, 0x6A], counter=[0, 0, 0, i]))
        galaxy = draw_parameters(rng)
        shown = exposed(render(galaxy, side, rng), side, rng)
        pixels[i] = shown if colour else np.rint(shown.mean(axis=0, keepdims=True))
        label[i] = galaxy.kind
    return Images(torch.from_numpy(pixels), torch.from_numpy(label))


def recipe_line(n: int, side: int, seed: int, colour: bool) -> str:
    """The call that makes these images, to be written down with a run."""
    return f"simulacra.sciences.galaxies.simulate.simulate({n}, {side}, {seed}, colour={colour}) with galsim {_galsim().__version__}"


def draw_parameters(rng: np.random.Generator) -> Galaxy:
    """One galaxy of the population."""
    kind = int(rng.choice(3, p=SHARES))
    elliptical = kind == 1
    cosine = float(rng.uniform(0.04 if kind == 2 else 0.35, 1))  # a bar seen edge-on is no bar to the eye
    thin = np.sqrt(0.15**2 + (1 - 0.15**2) * cosine**2)
    radius = float(np.exp(rng.normal(np.log(8.5 if elliptical else 9.0), 0.22)))
    share = float(rng.beta(2, 6)) if not elliptical else 1.0
    return Galaxy(
        kind=kind,
        radius=radius,
        axis_ratio=float(1 - 0.5 * rng.beta(1.5, 2.5)) if elliptical else float(thin),
        angle=float(rng.uniform(0, np.pi)),
        peak=float(np.exp(rng.normal(np.log(650 if elliptical else 480), 0.55))),
        sersic=float(rng.choice([2.0, 2.5, 3.0, 3.5, 4.0] if elliptical else [1.0, 2.0, 3.0, 4.0])),
        bulge_share=share,
        bulge_radius=radius * float(rng.uniform(0.15, 0.4)),
        arms=int(rng.choice([2, 2, 2, 3, 4])),
        pitch=float(np.deg2rad(rng.uniform(12, 32))),
        contrast=float(rng.uniform(0.5, 1.0)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        winding=int(rng.choice([-1, 1])),
        bar=radius * float(rng.uniform(0.9, 1.5)) if kind == 0 else 0.0,
        bar_share=float(rng.uniform(0.12, 0.28)) if kind == 0 else 0.0,
        colour=float(np.clip(rng.normal(0.1, 0.18), -0.35, 0.6)) if elliptical else float(np.clip(rng.normal(0.85, 0.45), 0, 1.8)),
    )


def render(galaxy: Galaxy, side: int, rng: np.random.Generator) -> Array:
    """Noiseless light in three bands (3, side, side), in units of the sky noise, with neighbours in the field."""
    scale = side / 64
    blur = float(np.clip(rng.normal(1, 0.1), 0.7, 1.3)) * SEEING * scale
    young = OLD * (YOUNG / OLD) ** galaxy.colour
    if galaxy.kind == 1:
        smooth = _sersic(galaxy.sersic, galaxy.radius * scale, galaxy.axis_ratio, galaxy.angle, blur, side)
        light = galaxy.peak * galaxy.radius**2 / 2 * scale**2 * smooth * young[:, None, None]
    else:
        light = _disc_galaxy(galaxy, side, scale, blur, young)
    seen: Array = light + _neighbours(side, scale, blur, rng)
    return seen


def _disc_galaxy(galaxy: Galaxy, side: int, scale: float, blur: float, young: Array) -> Array:
    total = galaxy.peak * galaxy.radius**2 / 2 * scale**2
    disc, arms, bar = _in_the_plane(galaxy, side, scale)
    bar_share = galaxy.bar_share
    disc_share = 1 - galaxy.bulge_share - bar_share
    if disc_share < 0.3:
        disc_share = 0.3
    mixed = OLD * (YOUNG / OLD) ** (galaxy.colour * 0.6)  # the disc between the arms is older than the arms
    bulge = _sersic(galaxy.sersic, galaxy.bulge_radius * scale, max(galaxy.axis_ratio, 0.6), galaxy.angle, blur, side)
    norm = disc.sum() + arms.sum()
    parts = np.stack([disc / norm * disc_share, arms / norm * disc_share, bar / max(bar.sum(), 1e-9) * bar_share])
    seen = _convolved(parts, blur, side)
    older = OLD * (YOUNG / OLD) ** (galaxy.colour * 0.25)
    colours = np.stack([mixed, young, older])
    return np.asarray(total * (np.einsum("pyx,pb->byx", seen, colours) + galaxy.bulge_share * bulge * older[:, None, None]), np.float64)


def _in_the_plane(galaxy: Galaxy, side: int, scale: float) -> tuple[Array, Array, Array]:
    """Disc between arms, arms and bar on the oversampled grid, before the point-spread function."""
    h = galaxy.radius * scale * OVERSAMPLED
    count = side * OVERSAMPLED
    y, x = np.mgrid[:count, :count] - (side // 2 * OVERSAMPLED + (OVERSAMPLED - 1) / 2)
    along = x * np.cos(galaxy.angle) + y * np.sin(galaxy.angle)
    across = (-x * np.sin(galaxy.angle) + y * np.cos(galaxy.angle)) / galaxy.axis_ratio
    r = np.hypot(along, across)
    theta = galaxy.winding * np.arctan2(across, along)
    disc = np.exp(-r / h)
    inner = max(galaxy.bar * scale * OVERSAMPLED, 0.6 * h)
    wave = np.cos(galaxy.arms * (theta - np.log(np.maximum(r, 0.05 * h) / inner) / np.tan(galaxy.pitch)) + galaxy.phase)
    begins = 1 / (1 + np.exp(-(r - 0.9 * inner) / (0.12 * inner)))
    share = galaxy.contrast * begins * ((1 + wave) / 2) ** 1.5
    bar = np.zeros_like(disc)
    if galaxy.bar:
        turn = galaxy.phase / galaxy.arms * galaxy.winding  # arms leave from the ends of the bar
        u, v = along * np.cos(turn) - across * np.sin(turn), along * np.sin(turn) + across * np.cos(turn)
        bar = np.exp(-np.log(2) * (u**2 + (v / 0.2) ** 2) / (0.6 * galaxy.bar * scale * OVERSAMPLED) ** 2)
    between = disc * (1 - galaxy.contrast * begins * 0.75)
    return between, 1.6 * disc * share, bar


def _convolved(parts: Array, blur: float, side: int) -> Array:
    """Oversampled (p, ...) light seen through the point-spread function and binned to (p, side, side)."""
    kernel = _kernel(round(blur * 20) / 20)
    seen = signal.fftconvolve(parts, kernel[None], mode="same", axes=(1, 2))
    return np.asarray(seen.reshape(len(parts), side, OVERSAMPLED, side, OVERSAMPLED).sum(axis=(2, 4)), np.float64)


@lru_cache(maxsize=256)
def _kernel(blur: float) -> Array:
    """Moffat point-spread function on the oversampled grid, summing to one."""
    galsim = _galsim()
    size = 2 * int(np.ceil(4 * blur * OVERSAMPLED / 2)) + 1
    image = galsim.Moffat(beta=3.5, fwhm=blur).drawImage(nx=size, ny=size, scale=1 / OVERSAMPLED, method="no_pixel").array
    return np.asarray(image / image.sum(), np.float64)


def _sersic(n: float, radius: float, axis_ratio: float, angle: float, blur: float, side: int) -> Array:
    """Sersic profile of unit flux seen through the point-spread function, (side, side), centred on pixel side // 2."""
    galsim = _galsim()
    fast = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3, kvalue_accuracy=1e-4)
    profile = galsim.Sersic(n=n, half_light_radius=radius, trunc=0.0, gsparams=fast)
    profile = profile.shear(q=axis_ratio, beta=angle * galsim.radians)
    seen = galsim.Convolve(profile, galsim.Moffat(beta=3.5, fwhm=blur, gsparams=fast), gsparams=fast)
    offset = 0.5 if side % 2 == 0 else 0.0  # galsim's centre of an even image lies between pixels
    return np.asarray(seen.drawImage(nx=side, ny=side, scale=1.0, offset=(offset, offset)).array, np.float64)


def _neighbours(side: int, scale: float, blur: float, rng: np.random.Generator) -> Array:
    """Stars and unresolved galaxies of the field, (3, side, side)."""
    field = np.zeros((3, side, side))
    y, x = np.mgrid[:side, :side]
    for _ in range(rng.poisson(2.2)):
        flux = 40 * rng.pareto(0.9) + 40  # number counts of faint sources: N(> f) ~ f^-0.9
        px, py = rng.uniform(0, side, 2)
        width = blur / 2.355 * (1 + rng.exponential(0.25))
        tint = OLD * (YOUNG / OLD) ** rng.normal(0.7, 0.9)
        spot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * width**2)) / (2 * np.pi * width**2)
        if np.hypot(px - side / 2, py - side / 2) > side / 7:
            field += min(flux, 4e4) * scale**2 * tint[:, None, None] * spot
    return field


def exposed(light: Array, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light (3, side, side) with sky noise, stretched to bytes."""
    noise = rng.standard_normal(light.shape)
    noise = ndimage.gaussian_filter(noise, (0, 0.7 * side / 64, 0.7 * side / 64))
    depth = float(np.exp(rng.normal(0.1, 0.5)))
    seen = light + depth * noise / noise.std()
    intensity = np.maximum(seen.mean(axis=0), 1e-3)
    rise = np.arcsinh(intensity / SOFTENING) / np.arcsinh(WHITE / SOFTENING) / intensity
    sky = float(np.clip(rng.gamma(3, 1.6), 0, 25))
    counts: NDArray[np.uint8] = np.rint(np.clip(sky * np.array([1.0, 0.95, 0.65])[:, None, None] + 255 * seen * rise, 0, 255)).astype(
        np.uint8
    )
    return counts


def _galsim() -> Any:
    try:
        import galsim
    except ImportError as error:
        raise Refused('simulating galaxies needs galsim: pip install "simulacra[astro]"; or give your own images as `data`') from error
    return galsim


# ------------------------------------------------------------------------------------------------------------- anomalies


def satellite_trail(images: Images, seed: int) -> Images:
    """A straight trail across each frame within a quarter of the side of its middle, 2.5 px wide at 64 px (the seeing), 60-180 counts."""

    def streak(pixels: Array, rng: np.random.Generator) -> Array:
        side = pixels.shape[-1]
        y, x = np.mgrid[:side, :side] - side / 2
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.25, 0.25) * side
        away = x * np.sin(angle) - y * np.cos(angle) - offset
        return np.asarray(pixels + rng.uniform(60, 180) * np.exp(-(away**2) / (2 * (2.5 * side / 64 / 2.355) ** 2)), np.float64)

    return _changed(images, seed, streak)


def ring(images: Images, seed: int) -> Images:
    """A bluish ring about the middle, as of a collisional ring or an Einstein ring: radius 0.15-0.3 of the side, 40-120 counts."""

    def circle(pixels: Array, rng: np.random.Generator) -> Array:
        side = pixels.shape[-1]
        y, x = np.mgrid[:side, :side] - side / 2
        angle, q = rng.uniform(0, np.pi), rng.uniform(0.75, 1)
        r = np.hypot(x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / q)
        width = 1.6 * side / 64
        profile = np.exp(-((r - rng.uniform(0.15, 0.3) * side) ** 2) / (2 * width**2))
        tint = np.array([0.7, 0.9, 1.15]) if len(pixels) == 3 else np.ones(1)
        return np.asarray(pixels + rng.uniform(40, 120) * tint[:, None, None] * profile, np.float64)

    return _changed(images, seed, circle)


def merger(images: Images, seed: int) -> Images:
    """A second galaxy of the same set, turned, its centre 0.15-0.3 of the side away; root of the sum of squares of both counts.

    Its sky is taken off and its frame fades out beyond 0.3 of the side, so that no edge of it shows.
    """
    others = images.pixels.cpu().numpy().astype(np.float64)

    def pair(pixels: Array, rng: np.random.Generator) -> Array:
        side = pixels.shape[-1]
        other = np.rot90(others[rng.integers(len(others))], int(rng.integers(4)), axes=(1, 2))
        angle, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.3) * side
        y, x = np.mgrid[:side, :side] - side // 2
        fade = np.clip((0.45 - np.hypot(x, y) / side) / 0.15, 0, 1)
        edge = np.concatenate([other[:, 0], other[:, -1], other[:, :, 0], other[:, :, -1]], axis=1)
        light = np.maximum(other - np.median(edge, axis=1)[:, None, None], 0) * fade
        moved = ndimage.shift(light, (0, apart * np.sin(angle), apart * np.cos(angle)), order=1, cval=0.0)
        return np.asarray(np.hypot(pixels, moved), np.float64)

    return _changed(images, seed, pair)


def wrong_band_order(images: Images, seed: int = 0) -> Images:
    """Red and blue exchanged, as when a file of another band order is read; `seed` is unused."""
    if images.bands != 3:
        raise Refused("grey images have no order of bands to get wrong")
    return dataclasses.replace(images, pixels=images.pixels.flip(1))


def _changed(images: Images, seed: int, change: Any) -> Images:
    rows = images.pixels.cpu().numpy().astype(np.float64)
    generators = (np.random.Generator(np.random.Philox(key=[seed, 0xBAD], counter=[0, 0, 0, i])) for i in range(len(rows)))
    changed = np.stack([change(row, rng) for row, rng in zip(rows, generators, strict=True)])
    pixels = torch.from_numpy(np.rint(np.clip(changed, 0, 255)).astype(np.uint8))
    return dataclasses.replace(images, pixels=pixels)
