"""Whether molecules have the properties that they were asked for.

The protocol of Hoogeboom et al. (2022, arXiv:2203.17003, section 5.2): a generator that was trained on one half of the labelled
molecules is asked for the values, and the numbers of atoms, of held-out ones, so that what is asked follows p(value | atoms). Of what
it draws, a regressor trained on the other half tells the property (regressor.py); radius of gyration and moments of inertia follow from
the positions and are computed. The mean absolute error from asked to achieved stands beside

    shuffled labels          the property of a held-out molecule against the label of another: nothing was listened to, not even the size
    property ignored         a molecule of the other half, of the size asked, in place of the drawn one; not in the article: what a
                             perfect generator reaches that listens to the size alone
    number of atoms only     the best guess of the value from the size: the median of the other half at that size
    real data                the property of held-out molecules against their own labels: the regressor's own error, 0 where computed

A generator listens where its error is below that of the number of atoms alone. Any learner with `draw` can be judged.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra.evidence import Check, Figure, Finding
from simulacra.sciences.molecules import data, pictures, protocols
from simulacra.sciences.molecules.data import PROPERTIES, UNITS, Molecules
from simulacra.sciences.molecules.regressor import Regressor
from simulacra.study import Learner, Noise, Refused

GEOMETRIC = ("radius_of_gyration", "inertia_a", "inertia_b", "inertia_c")  # of PROPERTIES, those that positions alone decide
FEWEST = 20  # labelled molecules on each side, below which an error is not told
TOGETHER = 64  # molecules that are drawn at a time
BINS = 8  # of asked values, in the curve of a finding
RESAMPLED = 1000  # bootstrap samples of a gap
SWEPT, NOISES = 10, 6  # values of a sweep in a report, and how often it is drawn
CARBON, HYDROGEN = 6, 1

Array = NDArray[np.float64]


def known(molecules: Molecules, names: Sequence[str]) -> Molecules:
    """Those with values of all the properties `names`."""
    rows = ~molecules.properties[:, [PROPERTIES.index(name) for name in names]].isnan().any(1)
    return molecules[rows]


def column(molecules: Molecules, name: str) -> Array:
    """The labels of one property, (n,), NaN where not known."""
    found: Array = molecules.properties[:, PROPERTIES.index(name)].cpu().double().numpy()
    return found


def measured(molecules: Molecules, name: str, regressor: Regressor | None) -> Array:
    """The property of molecules as they lie there, (n,) in `data.UNITS`: computed if it is GEOMETRIC, told by `regressor` if not.

    Raises Refused where a regressor is needed and there is none of this property.
    """
    if name in GEOMETRIC:
        values = data.geometric_properties(molecules.numbers.cpu().numpy(), molecules.positions.cpu().numpy())
        return values[:, PROPERTIES.index(name)].astype(float)
    if regressor is None or name not in regressor.names:
        raise Refused(f"{name} does not follow from positions; a regressor of it is needed to say what was achieved")
    told: Array = regressor(molecules)[:, regressor.names.index(name)].double().numpy()
    return told


# --------------------------------------------------------------------------------------------------------------- asking


def asked_like(molecules: Molecules, names: Sequence[str]) -> Molecules:
    """Templates that ask for the number of atoms, of heavy ones too, and for the properties `names` of `molecules`, and tell nothing else:
    no element, position or bond."""
    wanted = torch.full_like(molecules.properties, torch.nan)
    places = [PROPERTIES.index(name) for name in names]
    wanted[:, places] = molecules.properties[:, places]
    return replace(
        molecules, numbers=molecules.numbers.clamp(max=CARBON).where(molecules.numbers <= 1, CARBON), properties=wanted,
        **{name: torch.zeros_like(getattr(molecules, name)) for name in ("positions", "charges", "bonds", "given")},
    )  # fmt: skip


def drawn_like(learner: Learner[Molecules], templates: Molecules, *, seed: int, rows: Sequence[int] | None = None) -> Molecules:
    """What `learner` draws for each template; `rows` names the noise of each (default: all different)."""
    noise = list(range(len(templates))) if rows is None else rows
    parts = []
    with torch.no_grad():
        for start in range(0, len(templates), TOGETHER):
            block = slice(start, start + TOGETHER)
            parts.append(learner.draw(templates[block], Noise(seed, noise[block])).to("cpu"))
    return Molecules.join(parts)


@dataclass(frozen=True)
class Sweep:
    """One property asked for at several values, all else equal."""

    name: str
    atoms: int
    asked: Array  # (values,)
    drawn: Molecules  # (noises x values) rows: all values of the first noise, of the second, ...


def sweep(learner: Learner[Molecules], name: str, values: Sequence[float], *, atoms: int, heavy: int, noises: int, seed: int) -> Sweep:
    """Molecules of `atoms` atoms, `heavy` of them heavy, asked for each of `values`, from the same `noises` random starts for every value:
    what changes along a sweep is the doing of the property."""
    if not 1 <= heavy <= atoms:
        raise Refused(f"{heavy} heavy atoms of {atoms} were asked for; expected at least one, and no more than there are atoms")
    templates = _of_size(atoms, heavy, len(values) * noises)
    templates.properties[:, PROPERTIES.index(name)] = torch.tensor(values, dtype=torch.float32).repeat(noises)
    rows = [noise for noise in range(noises) for _ in values]
    return Sweep(name, atoms, np.asarray(values, float), drawn_like(learner, templates, seed=seed, rows=rows))


def _of_size(atoms: int, heavy: int, n: int) -> Molecules:
    numbers = torch.full((n, atoms), HYDROGEN, dtype=torch.uint8)
    numbers[:, :heavy] = CARBON
    nothing = torch.zeros_like(numbers)
    bonds = torch.zeros(n, atoms, atoms, dtype=torch.int8)
    unasked = torch.full((n, len(PROPERTIES)), torch.nan)
    return Molecules(numbers, torch.zeros(n, atoms, 3), nothing.to(torch.int8), bonds, unasked, nothing)


# ------------------------------------------------------------------------------------------------------------- achieving


@dataclass(frozen=True)
class Achieved:
    """One property, asked of a generator for as many molecules as nature gave labels of: one entry per row."""

    name: str
    asked: Array  # (n,) labels of held-out molecules
    drawn: Array  # (n,) the property of what was drawn for them
    real: Array  # (n,) the property of those molecules themselves, measured the same way
    guess: Array  # (n,) median label of the judge's half at the number of atoms asked
    ignored: Array  # (n,) mean distance from asked to the labels of the judge's half at that number of atoms
    stable: NDArray[np.bool_]  # (n,) whether the drawn molecule is stable by EDM's table

    @property
    def error(self) -> float:
        """Mean absolute error from asked to achieved."""
        return float(np.abs(self.drawn - self.asked).mean())

    @property
    def standard_error(self) -> float:
        """Of `error`, over molecules."""
        return float(np.abs(self.drawn - self.asked).std(ddof=1) / math.sqrt(len(self.asked)))

    def baselines(self) -> dict[str, float]:
        """The mean absolute errors to read `error` with; the module says what they are."""
        n = len(self.asked)
        apart = np.abs(self.real[:, None] - self.asked[None])
        return {
            "shuffled labels": float((apart.sum() - np.trace(apart)) / (n * (n - 1))),
            "property ignored": float(self.ignored.mean()),
            "number of atoms only": float(np.abs(self.guess - self.asked).mean()),
            "real data": float(np.abs(self.real - self.asked).mean()),
        }


def achieved(nature: Molecules, drawn: Molecules, name: str, *, regressor: Regressor | None, others: Molecules) -> Achieved:
    """What `drawn` achieved where row i was asked for the property and size of row i of `nature`.

    `others` are labelled molecules that the generator has not seen: the baselines of sizes come from them. Raises Refused for rows
    without a label, or too few of them.
    """
    asked, labels = column(nature, name), column(others, name)
    if np.isnan(asked).any() or np.isnan(labels).any():
        raise Refused(f"some molecules have no value of {name}; leave them out before asking what was achieved")
    if len(drawn) != len(nature) or min(len(asked), len(labels)) < FEWEST:
        counts = f"{len(nature)} values of {name} asked, {len(drawn)} molecules drawn, {len(labels)} others"
        raise Refused(f"{counts}; expected one drawn per value, and {FEWEST} or more of each")
    guess, ignored = _by_size(nature.bucket.cpu().numpy(), asked, others.bucket.cpu().numpy(), labels)
    stable = protocols.edm(drawn).stable
    return Achieved(name, asked, measured(drawn, name, regressor), measured(nature, name, regressor), guess, ignored, stable)


def _by_size(atoms: NDArray[np.int64], asked: Array, seen: NDArray[np.int64], labels: Array) -> tuple[Array, Array]:
    """Median label at each number of atoms, and mean distance from what was asked to the labels there; of a size never seen, the
    nearest."""
    guess, ignored = np.empty(len(asked)), np.empty(len(asked))
    for size in np.unique(atoms):
        rows = atoms == size
        there = labels[seen == seen[np.abs(seen - size).argmin()]]
        guess[rows] = np.median(there)
        ignored[rows] = np.abs(there[None] - asked[rows, None]).mean(1)
    return guess, ignored


# -------------------------------------------------------------------------------------------------------------- evidence


def check(outcome: Achieved) -> Check:
    """The mean error, beside its baselines: met where it is below what the number of atoms alone tells."""
    beside = outcome.baselines()
    bar = beside["number of atoms only"]
    if outcome.stable.sum() >= FEWEST:
        beside |= {"of stable molecules alone": float(np.abs(outcome.drawn - outcome.asked)[outcome.stable].mean())}
    # A few molecules that fell apart can make up most of a mean.
    beside |= {"median in place of mean": float(np.median(np.abs(outcome.drawn - outcome.asked)))}
    beside |= {"share of stable molecules": float(outcome.stable.mean())}
    target = f"below {bar:.3g}, the error of the number of atoms only"
    return Check(f"mean error of {_words(outcome.name)}", outcome.error, outcome.standard_error, target, outcome.error < bar, beside)


def not_judged(name: str, why: str) -> Check:
    """A property that could have been asked for and cannot be judged."""
    return Check(f"mean error of {_words(name)}", math.nan, math.nan, f"not judged: {why}", False)


def finding(outcome: Achieved, *, seed: int) -> Finding:
    """Achieved against asked as a curve. Distance is the mean absolute error; floor, that of real data; ceiling, that of molecules of
    the right size whose property is ignored."""
    order = np.array_split(np.argsort(outcome.asked, kind="stable"), min(BINS, len(outcome.asked) // 4))

    def curve(values: Array) -> Array:
        return np.array([values[rows].mean() for rows in order])

    errors = np.stack([np.abs(outcome.drawn - outcome.asked), np.abs(outcome.real - outcome.asked), outcome.ignored])
    rows = np.random.default_rng([seed, 0xC0]).integers(errors.shape[1], size=(RESAMPLED, errors.shape[1]))
    low, high = np.percentile(_gap(errors[:, rows].mean(2)), [2.5, 97.5])
    distance, floor, ceiling = errors.mean(1)
    unit = UNITS[outcome.name]
    band = np.array([outcome.real[rows].std(ddof=1) / math.sqrt(len(rows)) for rows in order])
    title = _title(outcome.name)
    about = (
        f"{title} that molecules were asked for, and what they have, {_how(outcome.name)}; nature's curve is that of the molecules whose "
        f"values were asked. Distance: mean absolute error; floor: that of those molecules; ceiling: that of molecules of the same size."
    )
    return Finding(
        f"achieved {title}", unit, about, f"{title} asked for ({unit})", curve(outcome.asked), curve(outcome.real), curve(outcome.drawn),
        curve(outcome.guess), band, "property ignored", float(distance), float(floor), float(ceiling), float(_gap(errors.mean(1))),
        float(low), float(high),
    )  # fmt: skip


def _gap(errors: Array) -> Array:
    """Of distance, floor and ceiling, (3, ...)."""
    gap: Array = (errors[0] - errors[1]) / (errors[2] - errors[1])
    return gap


def _how(name: str) -> str:
    return "computed from the positions" if name in GEOMETRIC else "told by a regressor trained on the other half of the labelled molecules"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _words(name: str) -> str:
    return f"{_title(name)} ({UNITS[name]})"


def judged(
    learner: Learner[Molecules], names: Sequence[str], nature: Molecules, others: Molecules, *, regressor: Regressor | None, count: int,
    seed: int,
) -> tuple[list[Finding], list[Check]]:  # fmt: skip
    """Ask `learner` for the sizes and the properties `names` of at most `count` held-out molecules, and say what was achieved of each.

    All `names` are asked for together. Without enough labelled molecules a check says so in place of a figure.
    """
    held_out, others = known(nature, names), known(others, names)
    if min(len(held_out), len(others), count) < FEWEST:
        why = f"{len(held_out)} held-out molecules have labels, and {len(others)} of the judge's half; {FEWEST} draws and labels are needed"
        return [], [not_judged(name, why) for name in names]
    chosen = held_out[torch.linspace(0, len(held_out) - 1, min(count, len(held_out))).round().long()]
    drawn = drawn_like(learner, asked_like(chosen, names), seed=seed)
    outcomes = [achieved(chosen, drawn, name, regressor=regressor, others=others) for name in names]
    return [finding(outcome, seed=seed) for outcome in outcomes], [check(outcome) for outcome in outcomes]


# --------------------------------------------------------------------------------------------------------------- figure


def typical_size(molecules: Molecules) -> tuple[int, int]:
    """The most frequent number of atoms, and of heavy atoms among molecules of that size."""
    atoms = int(molecules.bucket.bincount().argmax())
    return atoms, int(molecules.heavy[molecules.bucket == atoms].bincount().argmax())


def swept(learner: Learner[Molecules], name: str, others: Molecules, *, regressor: Regressor | None, seed: int) -> Figure:
    """A sweep at the most frequent size, over what 98 % of the molecules of that size among `others` have, as a figure."""
    labelled = known(others, [name])
    atoms, heavy = typical_size(labelled)
    there = column(labelled[labelled.bucket == atoms], name)
    low, high = np.percentile(there, [1, 99])
    values = np.linspace(low, high, SWEPT)
    found = sweep(learner, name, values.tolist(), atoms=atoms, heavy=heavy, noises=NOISES, seed=seed)
    return figure(found, measured(found.drawn, name, regressor), there)


def figure(found: Sweep, values: Array, nature: Array) -> Figure:
    """Asked against achieved `values` (noises x values) of a sweep, with the line where they are equal, and its first molecules;
    `nature`: labels of real molecules of that size."""
    from matplotlib.figure import Figure as Canvas

    k, unit = len(found.asked), UNITS[found.name]
    table = values.reshape(-1, k)
    canvas = Canvas(figsize=(7.5, 5.2), layout="constrained")
    parts: Any = canvas.subfigures(2, 1, height_ratios=(3.6, 1))
    upper, lower = parts
    axes, side = upper.subplots(1, 2, width_ratios=(6, 1), sharey=True)
    axes.plot(found.asked, found.asked, "k--", lw=1, label="asked")
    axes.plot(np.tile(found.asked, len(table)), table.ravel(), "o", ms=3.5, alpha=0.5, color="tab:blue", label="a molecule")
    axes.plot(found.asked, np.median(table, 0), color="tab:blue", lw=1.5, label="median of each value")
    span = np.ptp(found.asked)
    axes.set(
        xlabel=f"{_title(found.name)} asked for ({unit})", ylabel=f"{_title(found.name)} achieved ({unit})",
        ylim=(found.asked.min() - 0.6 * span, found.asked.max() + 0.6 * span),
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8)
    side.hist(nature, bins=40, orientation="horizontal", color="0.6")
    side.set(xlabel="nature", xticks=[])
    images = pictures.picture(found.drawn[:k])
    for frame, image, value in zip(lower.subplots(1, k), images, found.asked, strict=True):
        frame.imshow(image)
        frame.set(xticks=[], yticks=[])
        frame.spines[:].set_visible(False)
        frame.set_title(f"{value:.3g}", fontsize=8)
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    outside = int(((table < axes.get_ylim()[0]) | (table > axes.get_ylim()[1])).sum())
    return Figure(f"Sweep of {_title(found.name)}", _caption(found, len(table), outside), file.getvalue())


def _caption(found: Sweep, noises: int, outside: int) -> str:
    more = f" {outside} of them lie outside the picture." if outside else ""
    return (
        f"Molecules of {found.atoms} atoms, asked for {len(found.asked)} values of {_title(found.name)} from {noises} random starts; what "
        f"was achieved is {_how(found.name)}.{more} Dashed: achieved as asked. Grey: real molecules of that size. Below, the molecules of "
        f"one random start, by what was asked ({UNITS[found.name]})."
    )
