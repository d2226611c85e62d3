"""Drawn showers held to bars, each beside what two halves of nature's own showers score.

    response        mean deposit over incident energy, energy by energy, within 1 %; apart, at energies that training did not have
    layer means     energy of each layer that holds 1 % or more, all incident energies together, within 2 %
    resolution      sd / mean of the deposit, energy by energy, within 10 %
    areas           of a classifier on voxels and on high-level features, at most 0.65 (classifier.py)
    particles       how well photons are told from electrons and positrons by a linear discriminant, as in nature
    profiles        for showers of one energy: layers, rows and columns within two standard errors, as a root mean square over the profile

The unit is the shower. Numbers of showers limit what can be shown: where the largest of several deviations is held to a bar, two standard
errors are granted, so read the value beside its error. A classifier's area is granted nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra.evidence import Check
from simulacra.sciences.calorimeter.classifier import Area, Protocol, area, told_apart
from simulacra.sciences.calorimeter.data import PHOTON, Showers
from simulacra.sciences.calorimeter.features import energies_of, high_level, low_level, moments, profiles, response

Array = NDArray[np.float64]

RESPONSE, LAYERS, RESOLUTION, AREA = 0.01, 0.02, 0.10, 0.65
HOLDING = 0.01  # share of the deposit of a layer whose mean is held to a bar
FEWEST = 20  # showers of one energy whose scatter can be told
FEWEST_TAUGHT = 100  # showers on a side from which a classifier can learn
NEAR = 0.03  # relative distance of an incident energy that training has
MOST_TAUGHT = 6000  # training showers that the discriminant looks at


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A relative deviation of drawn from nature's, with its standard error."""

    value: float
    error: float

    @property
    def beyond(self) -> float:
        """What is left of it when two standard errors are granted."""
        return abs(self.value) - 2 * self.error


def checks(nature: Showers, drawn: Showers, *, seed: int, training: Showers | None, protocol: Protocol) -> list[Check]:
    """All bars that the samples allow to be held to."""
    one, other = halves(nature)
    pairs, control = by_energy(nature, drawn), by_energy(one, other)
    found = [
        _near(
            "response, largest deviation at an incident energy", [of_response(*p) for p in pairs], RESPONSE,
            [of_response(*p) for p in control],
        ),
        _near("layer means, largest deviation of a layer", of_layers(nature, drawn), LAYERS, of_layers(one, other)),
        _near(
            "resolution, largest deviation at an incident energy", [of_resolution(*p) for p in pairs], RESOLUTION,
            [of_resolution(*p) for p in control],
        ),
        *_unseen(pairs, training),
        *_areas(nature, drawn, protocol, seed),
        *_particles(nature, drawn, training),
    ]  # fmt: skip
    if len(np.unique(energies_of(nature))) == 1:
        found += _profiles(nature, drawn)
    usual, more = (float((response(side) > 1).mean()) for side in (nature, drawn))
    name, target = "showers with more energy out than in", "no more than in nature"
    return [*found, Check(name, more, float("nan"), target, more <= usual, {"nature": usual})]


def halves(showers: Showers) -> tuple[Showers, Showers]:
    """Every second shower and the others, alike in their energies and particles."""
    order = np.lexsort((showers.particle.cpu().numpy(), energies_of(showers)))
    return showers[torch.from_numpy(order[::2].copy())], showers[torch.from_numpy(order[1::2].copy())]


def _near(name: str, deviations: Sequence[Deviation], bar: float, control: Sequence[Deviation]) -> Check:
    worst = max(deviations, key=lambda found: found.beyond)
    beside = {"nature's halves": max(control, key=lambda found: found.beyond).value} if control else {}
    return Check(name, worst.value, worst.error, f"within {bar:.0%}, 2 standard errors granted", worst.beyond < bar, beside)


def by_energy(nature: Showers, drawn: Showers) -> list[tuple[Showers, Showers]]:
    """Nature's and drawn showers of each incident energy that both have often enough; all together where there is none."""
    sides = energies_of(nature), energies_of(drawn)
    pairs = []
    for energy in np.unique(sides[0]):
        rows = [torch.from_numpy(np.flatnonzero(side == energy)) for side in sides]
        if min(map(len, rows)) >= FEWEST:
            pairs.append((nature[rows[0]], drawn[rows[1]]))
    return pairs or [(nature, drawn)]


def of_response(nature: Showers, drawn: Showers) -> Deviation:
    """Of the mean of deposit / incident energy."""
    return _of_means(response(nature)[:, None], response(drawn)[:, None])[0]


def of_layers(nature: Showers, drawn: Showers) -> list[Deviation]:
    """Of the mean energy share of each layer that holds enough of it."""
    a, b = profiles(nature)["layer"], profiles(drawn)["layer"]
    holding = a.mean(axis=0) >= HOLDING * a.mean(axis=0).sum()
    return _of_means(a[:, holding], b[:, holding])


def _of_means(nature: Array, drawn: Array) -> list[Deviation]:
    """Of the mean of each column."""
    means = [side.mean(axis=0) for side in (nature, drawn)]
    errors = [side.std(axis=0, ddof=1) / np.sqrt(len(side)) for side in (nature, drawn)]
    error = np.hypot(errors[0] * means[1] / means[0], errors[1]) / means[0]
    return [Deviation(float(m / n - 1), float(e)) for n, m, e in zip(*means, error, strict=True)]


def of_resolution(nature: Showers, drawn: Showers) -> Deviation:
    """Of sd / mean of the response. The variance of ln sd is (kurtosis - 1) / 4n; a mean is far better known than a scatter."""
    widths, variances = [], []
    for side in (response(nature), response(drawn)):
        centred = side - side.mean()
        square = float((centred**2).mean())
        widths.append(np.sqrt(square) / side.mean())
        variances.append((float((centred**4).mean()) / max(square**2, 1e-300) - 1) / (4 * len(side)))
    ratio = float(widths[1] / max(widths[0], 1e-300))
    return Deviation(ratio - 1, ratio * float(np.sqrt(sum(variances))))


def _unseen(pairs: Sequence[tuple[Showers, Showers]], training: Showers | None) -> list[Check]:
    """The response at energies far from any of training, beside that at the others."""
    if training is None or len(pairs) < 2:
        return []
    known = np.sort(training.incident.cpu().numpy().astype(np.float64))
    far: list[Deviation] = []
    near: list[Deviation] = []
    names: list[str] = []
    for nature, drawn in pairs:
        energy = float(nature.incident.double().mean())
        around = np.abs(known[np.clip(np.searchsorted(known, energy) + np.array([-1, 0]), 0, len(known) - 1)] / energy - 1).min()
        (near if around < NEAR else far).append(of_response(nature, drawn))
        names += [f"{energy:.3g}"] if around >= NEAR else []
    if not far:
        return []
    check = _near(f"response at energies that training did not have ({', '.join(names)} GeV)", far, RESPONSE, [])
    beside = {"energies of training": max(near, key=lambda found: found.beyond).value} if near else {}
    return [dataclasses.replace(check, beside=beside)]


def _areas(nature: Showers, drawn: Showers, protocol: Protocol, seed: int) -> list[Check]:
    if min(len(nature), len(drawn)) < FEWEST_TAUGHT:
        return []
    found = []
    for name, rows_of in (("voxels", low_level), ("high-level features", high_level)):
        own = told_apart(rows_of(nature), rows_of(drawn), protocol, seed=seed)
        one, other = halves(nature)
        beside = {"nature's halves": told_apart(rows_of(one), rows_of(other), protocol, seed=seed).value}
        what = f"area under the ROC curve on {name}"
        found.append(Check(what, own.value, own.error, f"at most {AREA:g}", own.value <= AREA, beside))
    return found


def _particles(nature: Showers, drawn: Showers, training: Showers | None) -> list[Check]:
    """Whether photons differ from electrons and positrons as they do in nature, to a discriminant that was taught by other showers."""
    taught, judged = halves(nature) if training is None else (training[:MOST_TAUGHT], nature)
    if any(min(int((side.particle == PHOTON).sum()), int((side.particle != PHOTON).sum())) < FEWEST for side in (taught, judged, drawn)):
        return []
    weights = _discriminant(_shape(taught), taught.particle.cpu().numpy() == PHOTON)
    truth, own = (_apart(side, weights) for side in (judged, drawn))
    error = float(np.hypot(truth.error, own.error))
    return [
        Check(
            "photons told from electrons, area under the ROC curve", own.value, error, "as in nature, within 2 standard errors",
            abs(own.value - truth.value) <= 2 * error, {"nature": truth.value},
        )
    ]  # fmt: skip


def _shape(showers: Showers) -> Array:
    """What photons and electrons may differ in: shares of the deposit in each layer, depth, length."""
    layers = profiles(showers)["layer"]
    share = layers / np.maximum(layers.sum(axis=1, keepdims=True), 1e-12)
    depth, length = moments(layers)
    energy = np.log10(showers.incident.cpu().numpy().astype(np.float64))
    return np.asarray(np.nan_to_num(np.column_stack([share, depth, length, energy])), np.float64)


def _discriminant(rows: Array, photon: NDArray[np.bool_]) -> Array:
    """Fisher's: the inverse of the scatter within both, times the difference of their means."""
    means = [rows[kind].mean(axis=0) for kind in (photon, ~photon)]
    centred = rows - np.where(photon[:, None], *means)
    within = centred.T @ centred / len(rows)
    ridge = np.diag(1e-6 * np.diag(within) + 1e-12)
    return np.asarray(np.linalg.solve(within + ridge, means[0] - means[1]), np.float64)


def _apart(showers: Showers, weights: Array) -> Area:
    score, photon = _shape(showers) @ weights, showers.particle.cpu().numpy() == PHOTON
    return area(score[~photon], score[photon])


def _profiles(nature: Showers, drawn: Showers) -> list[Check]:
    own, control = scores(nature, drawn), scores(*halves(nature))
    worst = max(_rms(values) for values in own.values())
    beside = {f"along {name}s": _rms(values) for name, values in own.items()}
    beside["nature's halves"] = max(_rms(values) for values in control.values())
    shares = [float((np.abs(np.concatenate(list(found.values()))) > 2).mean()) for found in (own, control)]
    return [
        Check(
            "profiles, largest root mean square deviation in standard errors", worst, float("nan"), "below 2", worst < 2, beside
        ),
        Check(
            "profiles, share of layers, rows and columns beyond 2 standard errors", shares[0], float("nan"),
            "at most 10 %, or what nature's halves have", shares[0] <= max(0.10, shares[1]), {"nature's halves": shares[1]},
        ),
    ]  # fmt: skip


def scores(nature: Showers, drawn: Showers) -> dict[str, Array]:
    """Differences of mean profiles in standard errors, for `layer`, `row` and `column`."""
    found = {}
    for name, a in profiles(nature).items():
        b = profiles(drawn)[name]
        error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
        found[name] = np.asarray((b.mean(axis=0) - a.mean(axis=0)) / np.maximum(error, 1e-12), np.float64)
    return found


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))
