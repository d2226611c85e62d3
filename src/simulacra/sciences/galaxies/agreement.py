"""Are images of the class that was asked for? How the class of an image is measured, and how often it is the one on its label.

Where labels were made by a measurement, that measurement says it. Where they were given otherwise (by eye, or by a simulator that
knows what it drew), linear discriminants say it as well as the image shows it: Gaussian classes of one covariance,

    class of x = argmax_c  m_c' C^-1 x - m_c' C^-1 m_c / 2 + ln(share of c)                                     Fisher 1936

with C pooled within classes and drawn a tenth towards its mean diagonal. x holds the measurements and the Fourier amplitudes of the
luminance on circles about the central pixel, |A_m| / A_0 for m = 1 ... 4 at RADII half-light radii, with the cosine by which the phase of
m = 2 turns from circle to circle: strong and unturned along a bar, turning along arms (after Ohta et al. 1990, ApJ 357:71).

Each half of nature is told by what the other half taught, and drawn images by either, in turn: nature's own disagreement is the floor,
not zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulacra.sciences.galaxies.data import Images

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

DEFINED = 0.9  # share of nature's labels that a measurement must repeat to count as their definition
FEWEST = 8  # images of nature from which a class can be told
RADII = (0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5)
ANGLES = 32


def harmonics(images: Images, radius: Array) -> Array:
    """Amplitudes of m = 1 ... 4 on each circle, turns of the phase of m = 2, and ln(1 + mean counts) against the innermost circle,
    (n, 6 x 7 - 2). `radius` (n,) is the half-light radius in pixels; where it is nan, the row is nan. Counts start at black, so
    that no amplitude exceeds the mean."""
    middle = images.side // 2
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    across, along = np.cos(angle), np.sin(angle)
    rows = []
    for image, r in zip(images.pixels.cpu().numpy(), radius, strict=True):
        at = r * np.array(RADII)[:, None]
        if not np.isfinite(r):
            rows.append(np.full(6 * len(RADII) - 2, np.nan))
            continue
        light = ndimage.map_coordinates(image.mean(axis=0), [middle + at * along, middle + at * across], order=1, mode="nearest")
        waves = np.fft.rfft(light, axis=1)[:, :5]
        mean = np.maximum(waves[:, 0].real, 1e-6)
        bar = waves[:, 2] / np.maximum(np.abs(waves[:, 2]), 1e-6)
        turn = (bar[1:] * bar[:-1].conj()).real
        level = np.log1p(mean / ANGLES)
        rows.append(np.concatenate([(np.abs(waves[:, 1:]) / mean[:, None]).ravel(), turn, level[1:] - level[0]]))
    return np.array(rows)


def discriminants(known: Array, label: Labels, unknown: Array) -> Labels:
    """Classes (m,) of the rows `unknown` (m, k), by linear discriminants of the rows `known` (n, k) of classes `label` (n,)."""
    centre, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    known, unknown = (known - centre) / scale, (unknown - centre) / scale
    kinds, member = np.unique(label, return_inverse=True)
    share = np.bincount(member) / len(label)
    means = np.stack([known[member == j].mean(axis=0) for j in range(len(kinds))])
    apart = known - means[member]
    within = apart.T @ apart / len(known)
    within += 0.1 * np.trace(within) / len(within) * np.eye(len(within))
    axes = np.linalg.solve(within, means.T)  # (k, classes)
    return np.asarray(kinds[np.argmax(unknown @ axes - 0.5 * np.einsum("ck,kc->c", means, axes) + np.log(share), axis=1)])


def told_by_halves(nature: Array, label: Labels, drawn: Array, rng: np.random.Generator) -> tuple[Labels, Labels]:
    """Classes of nature's rows, each told by the other half, and of drawn rows, told by either half; -1 where a row holds nan.

    Rows of nature whose label is -1 teach nothing. Halves are taken within each class.
    """
    first = np.zeros(len(nature), bool)
    for kind in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == kind))
        first[rows[: len(rows) // 2]] = True
    sides = [(nature, first, np.full(len(nature), -1)), (drawn, np.arange(len(drawn)) % 2 == 0, np.full(len(drawn), -1))]
    usable = np.isfinite(nature).all(axis=1) & (label >= 0)
    for half in (True, False):
        teach = usable & (first != half)
        for rows, side, told in sides:
            tried = (side == half) & np.isfinite(rows).all(axis=1)
            if tried.any() and teach.any():
                told[tried] = discriminants(nature[teach], label[teach], rows[tried])
    return sides[0][2], sides[1][2]


def table(asked: Labels, found: Labels, kinds: Sequence[int]) -> Array:
    """One row per image: 1 where the found class is not the asked one, and which of `kinds` was asked; nan where none of them."""
    member = asked[:, None] == np.asarray(kinds)
    rows = np.column_stack([asked != found, member]).astype(np.float64)
    rows[~member.any(axis=1)] = np.nan
    return rows


def disagreement(values: Array, p: Array, q: Array) -> Array:
    """Share of q's images that are of another class than asked, (b,), each class weighted as p has it. Of classes that q has."""
    share, wrong = p @ values[:, 1:], 1 - by_class(values, q)
    share = np.where(q @ values[:, 1:] > 0, share, 0.0)
    return np.asarray((share * wrong).sum(axis=1) / np.maximum(share.sum(axis=1), 1e-300))


def by_class(values: Array, weights: Array) -> Array:
    """Share of each asked class whose measured class it is, (b, classes); 0 where the class is absent."""
    member = values[:, 1:]
    held, right = weights @ member, weights @ (member * (1 - values[:, :1]))
    return np.asarray(right / np.where(held > 0, held, 1.0))
