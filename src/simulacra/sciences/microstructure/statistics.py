"""What can be measured in volumes of two phases, and the verdict on volumes that claim to be some.

The unit is the volume: every statistic gives one row of numbers per volume, and errors come from the scatter between volumes. Volumes
are cut from larger structures, so nothing wraps around: only pairs, lines and cells that lie inside are counted. r and z are in voxels,
up to half the side, along the three axes with equal weight.

    S2(r)            P(two voxels at a distance r are both solid);  S2(0) = phi, the solid fraction
    L(z)             lineal path: P(the z + 1 voxels 0, ..., z of a line are all of one phase)
    chords           p(l) of runs of exactly l voxels that the phases cut out of lines: second difference of L over its first
    surface          area per volume: share of neighbours of unlike phase per axis, times 3 axes, times 2/3, as the faces of voxels
                     are longer than a surface of all directions by 3/2
    Euler number     V - E + F - C per voxel of the solid as closed voxels (touching at an edge or a corner is connected), each kind
                     of cell as a share of those that lie inside
    percolation      share of axes along which a phase connects opposite faces through faces of voxels, and its largest piece
    local porosity   law of the porosity of windows of a quarter of the side (Hilfer 1991, Phys. Rev. B 44:60)
    conductivity     of the pore filled with a conductor 100 times better than the solid (conductivity.py), along the depth
    Torquato 2002, Random Heterogeneous Materials; Ohser & Muecklich 2000, Statistical Analysis of Microstructures
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from simulacra.evidence import Check, Evidence, Statistic, average, distribution, weigh
from simulacra.measures import distance
from simulacra.sciences.microstructure import conductivity, simulate
from simulacra.sciences.microstructure.data import Bits, Volumes, volumes
from simulacra.study import Refused

Array = NDArray[np.float64]
Words = NDArray[np.uint64]

FARTHEST = 63  # voxels: lags are shifts of 64-bit words
CONDUCTED, REMEMBERED = 150, 300  # volumes of each side that a slow measurement sees
FEWEST = 20  # volumes on a side
THUMBNAIL = 8  # windows along each edge


# ----------------------------------------------------------------------------------------------------------- measuring


def solid_fraction(found: Volumes) -> Array:
    """Share of solid voxels of each volume, (n,)."""
    bits = found.solid.cpu().numpy()
    return np.asarray(np.count_nonzero(bits.reshape(len(bits), -1), axis=1) / bits[0].size, np.float64)


def farthest(found: Volumes) -> int:
    """The largest lag that is measured: half the shortest side."""
    return min(min(found.sides) // 2, FARTHEST)


def two_point(found: Volumes) -> Array:
    """S2 of the solid at r = 0, 1, ..., (n, lags)."""
    each = [_pairs(lines, length, farthest(found)) for lines, length in _lines(found.solid.cpu().numpy())]
    return np.asarray(np.mean(each, axis=0), np.float64)


def two_point_along(found: Volumes, axis: int) -> Array:
    """The same along one axis alone."""
    lines, length = next(itertools.islice(_lines(found.solid.cpu().numpy()), axis, None))
    return _pairs(lines, length, farthest(found))


def two_point_around(found: Volumes) -> Array:
    """S2 averaged over all directions, at distances that round to r = 0, 1, ..., (n, lags): by Fourier transforms of volumes between
    zeros, twice as large, so that nothing wraps, over the number of pairs at each distance."""
    reach, sides = farthest(found), found.sides
    box = tuple(fft.next_fast_len(2 * side, real=True) for side in sides)
    squared = sum(
        (np.minimum(np.arange(length), length - np.arange(length)) ** 2).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, length in enumerate(box)
    )
    ring = np.rint(np.sqrt(squared)).astype(int).ravel()
    inside = ring <= reach
    pairs = np.bincount(ring[inside], _overlaps(np.ones(sides), box).ravel()[inside])
    sums = [np.bincount(ring[inside], _overlaps(one, box).ravel()[inside]) for one in found.solid.cpu().numpy()]
    return np.asarray(np.stack(sums) / pairs, np.float64)


def _overlaps(one: NDArray[Any], box: tuple[int, ...]) -> Array:
    return np.asarray(fft.irfftn(np.abs(fft.rfftn(one.astype(float), box)) ** 2, box), np.float64)


def lineal_path(found: Volumes, *, phase: int) -> Array:
    """L of the solid (phase 1) or the pore (0) at z = 0, 1, ..., (n, lags)."""
    bits = found.solid.cpu().numpy()
    each = [_runs(lines, length, farthest(found)) for lines, length in _lines(bits if phase else 1 - bits)]
    return np.asarray(np.mean(each, axis=0), np.float64)


def chord_lengths(path: Array) -> Array:
    """p(l) at l = 1, 2, ..., (b, lags - 2), from the mean lineal path (b, lags); longer chords are those that are missing to 1."""
    begun = np.maximum(path[:, :1] - path[:, 1:2], np.finfo(float).tiny)
    return np.asarray((path[:, :-2] - 2 * path[:, 1:-1] + path[:, 2:]) / begun, np.float64)


def surface(found: Volumes) -> Array:
    """Area of the surface between the phases per volume, per voxel edge, (n,)."""
    unlike = [_share(lines ^ _shifted(lines, 1), length, 1) for lines, length in _lines(found.solid.cpu().numpy())]
    return np.asarray(2 * np.mean(unlike, axis=0), np.float64)


def _lines(bits: Bits) -> Iterator[tuple[Words, int]]:
    """The lines of voxels along depth, height and width as bits, the first voxel lowest: ((n, lines, words), length)."""
    for axis in (1, 2, 3):
        along = np.moveaxis(bits, axis, 3)
        length = along.shape[3]
        words = np.zeros((*along.shape[:3], -(-length // 64) * 8), np.uint8)
        packed = np.packbits(along, axis=3, bitorder="little")
        words[..., : packed.shape[3]] = packed
        yield words.view("<u8").reshape(len(bits), -1, words.shape[3] // 8), length


def _shifted(lines: Words, by: int) -> Words:
    """Every line moved by up to 63 voxels, so that voxel i comes to lie on voxel i - by."""
    moved = lines >> np.uint64(by)
    if by and lines.shape[2] > 1:
        moved[..., :-1] |= lines[..., 1:] << np.uint64(64 - by)
    return moved


def _share(lines: Words, length: int, lag: int) -> Array:
    """Share of the first length - lag bits of all lines that are set, (n,)."""
    kept = length - lag
    mask = np.array([(1 << min(max(kept - 64 * word, 0), 64)) - 1 for word in range(lines.shape[2])], np.uint64)
    return np.asarray(np.bitwise_count(lines & mask).sum(axis=(1, 2), dtype=np.int64) / (lines.shape[1] * kept), np.float64)


def _pairs(lines: Words, length: int, reach: int) -> Array:
    return np.stack([_share(lines & _shifted(lines, r), length, r) for r in range(reach + 1)], axis=1)


def _runs(lines: Words, length: int, reach: int) -> Array:
    rows, unbroken = [_share(lines, length, 0)], lines
    for z in range(1, reach + 1):
        unbroken = unbroken & _shifted(lines, z)
        rows.append(_share(unbroken, length, z))
    return np.stack(rows, axis=1)


def euler_density(found: Volumes) -> Array:
    """Euler characteristic of the solid per voxel, (n,)."""
    bits = found.solid.cpu().numpy()
    return sum((sign * touched.reshape(len(bits), -1).mean(axis=1) for sign, touched in _cells(bits)), np.zeros(len(bits)))


def euler_number(bits: Bits) -> NDArray[np.int64]:
    """Euler characteristic of the solid of each volume (n, depth, height, width) with nothing but pore around it, (n,)."""
    alone = np.pad(bits, ((0, 0), (1, 1), (1, 1), (1, 1)))
    sums = (sign * touched.reshape(len(bits), -1).sum(axis=1, dtype=np.int64) for sign, touched in _cells(alone))
    return sum(sums, np.zeros(len(bits), np.int64))


def _cells(bits: Bits) -> Iterator[tuple[int, Bits]]:
    """Which vertices (+), edges (-), faces (+) and voxels (-) the solid touches, of those that lie inside."""
    for axes in itertools.chain.from_iterable(itertools.combinations((1, 2, 3), count) for count in range(4)):
        touched = bits
        for axis in axes:  # a cell without extent along an axis is shared by two layers of voxels
            moved = np.moveaxis(touched, axis, 0)
            touched = np.moveaxis(moved[1:] | moved[:-1], 0, axis)
        yield (-1) ** (3 - len(axes)), touched


def percolation(found: Volumes) -> Array:
    """Share of axes along which the solid percolates, its largest piece as a share of it, and both of the pore, (n, 4)."""
    return np.array([[*_pieces(bits), *_pieces(1 - bits)] for bits in found.solid.cpu().numpy()])


def _pieces(phase: Bits) -> tuple[float, float]:
    label, count = ndimage.label(phase)  # neighbours share a face
    if not count:
        return 0.0, 0.0
    sizes = np.bincount(label.ravel())[1:]
    across = 0
    for axis in range(3):
        ends = [np.zeros(count + 1, bool), np.zeros(count + 1, bool)]
        for end, place in zip(ends, (0, -1), strict=True):
            end[label.take(place, axis=axis)] = True
        across += bool((ends[0] & ends[1])[1:].any())
    return across / 3, float(sizes.max() / sizes.sum())


def local_porosity(found: Volumes, bins: int = 16) -> Array:
    """Share of windows of a quarter of the side by their porosity between 0 and 1, (n, bins)."""
    windows = 1 - _means(found, 4)
    place = np.minimum((windows * bins).astype(int), bins - 1)
    return np.asarray((place[:, :, None] == np.arange(bins)).mean(axis=1), np.float64)


def _means(found: Volumes, windows: int) -> Array:
    """Solid fraction of windows^3 equal windows of each volume, (n, windows^3), from its first corner on."""
    depth, height, width = (side // windows for side in found.sides)
    bits = found.solid.cpu().numpy()[:, : depth * windows, : height * windows, : width * windows]
    parts = bits.reshape(len(bits), windows, depth, windows, height, windows, width)
    return np.asarray(parts.mean(axis=(2, 4, 6), dtype=np.float32).reshape(len(bits), -1), np.float64)


def conductivities(found: Volumes, most: int = CONDUCTED) -> Array:
    """Effective conductivity along the depth in units of the pore's, (n,), of the first `most` volumes; nan for the others."""
    values = np.full(len(found), np.nan)
    values[:most] = conductivity.effective_conductivity(found.solid[:most].cpu().numpy(), (0,), tolerance=1e-2)[:, 0]
    return values


# ---------------------------------------------------------------------------------------------------------------- judge

# One row per volume of what findings are made of; several findings may read one.
MEASURES: Mapping[str, Callable[[Volumes], Array]] = {
    "solid fraction": lambda found: solid_fraction(found)[:, None],
    "two points": two_point,
    "path of the pore": lambda found: lineal_path(found, phase=0),
    "path of the solid": lambda found: lineal_path(found, phase=1),
    "surface": lambda found: surface(found)[:, None],
    "Euler number": lambda found: euler_density(found)[:, None],
    "percolation": percolation,
    "local porosity": local_porosity,
    "conductivity": lambda found: conductivities(found)[:, None],
}
FEATURES = ("two points", "path of the pore", "path of the solid", "surface", "Euler number", "percolation", "local porosity")
MAGNIFIED, THICKENED, GAUSSIAN, ONE, COPIED = "magnified nature", "thickened nature", "cut Gaussian fields", "one volume", "copied training"


class _Table:
    """The rows of one set of volumes, measured when they are first asked for."""

    def __init__(self, found: Volumes) -> None:
        self.volumes, self.rows = found, dict[str, Array]()

    def __getitem__(self, name: str) -> Array:
        if name not in self.rows:
            self.rows[name] = MEASURES[name](self.volumes)
        return self.rows[name]


def judge(
    nature: Volumes, drawn: Volumes, *, seed: int, training: Volumes | None = None, permutations: int = 999, halves: int = 100
) -> Evidence:
    """Held-out against drawn volumes, volume by volume; neither side knows where the other came from.

    Rivals, each wrong in the way that its statistic should notice: `magnified nature` (stretched by a quarter) for what has a length;
    `thickened nature` (more solid, by a fifth of the rarer phase) for solid fractions and for the conductivity; `cut Gaussian fields`
    with nature's two-point probability for all that lies beyond it; `one volume` (collapse) for coverage; `copied training` for
    memorisation.
    """
    _comparable(nature, drawn, training)
    rng = np.random.default_rng([seed, 0x0B0E])
    tables = {"nature": _Table(nature), "drawn": _Table(drawn)}
    tables |= {name: _Table(found) for name, found in _rivals(nature, seed, rng).items()}
    _add_features(tables)
    if training is not None:
        _add_memory(tables, training, rng)
    chosen = _statistics(tables, training is not None)
    measured = [(tables["nature"][key], tables["drawn"][key], tables[s.rival][key]) for key, s in chosen]
    labels = np.zeros(len(nature)), np.zeros(len(drawn))
    evidence = weigh([s for _, s in chosen], measured, labels, seed=seed, permutations=permutations, halves=halves)
    evidence = dataclasses.replace(evidence, remarks=_remarks(nature, drawn))
    return evidence.with_more(checks=_bars(tables, None if training is None else _Table(training[: 2 * len(nature)])))


def _comparable(nature: Volumes, drawn: Volumes, training: Volumes | None) -> None:
    for name, other in (("drawn", drawn), ("training", training)):
        if other is None:
            continue
        if other.sides != nature.sides:
            sides = [" x ".join(map(str, found.sides)) for found in (nature, other)]
            raise Refused(f"nature has volumes of {sides[0]} voxels, {name} ones have {sides[1]}; cut both to one size")
        edges = [found.voxel[0].item() for found in (nature, other)]
        if all(edge == edge for edge in edges) and abs(edges[1] / edges[0] - 1) > 1e-2:
            raise Refused(f"nature has voxels of {edges[0]:g} micrometres, {name} ones have {edges[1]:g}; bring both to one scale")
    if min(len(nature), len(drawn)) < FEWEST:
        raise Refused(f"{len(nature)} volumes of nature and {len(drawn)} drawn; {FEWEST} or more on each side are needed")
    fraction = float(solid_fraction(nature).mean())
    if not 0 < fraction < 1:
        raise Refused(f"nature is {fraction:.0%} solid: there is no second phase to be measured")


def _remarks(nature: Volumes, drawn: Volumes) -> list[str]:
    seen = min(CONDUCTED, len(nature)), min(CONDUCTED, len(drawn))
    return [
        f"Conductivity: first {seen[0]} held-out and {seen[1]} drawn volumes, repeated periodically; pore {conductivity.PORE:g}, solid "
        f"{conductivity.SOLID:g}.",
        "Standard errors take volumes for independent: cubes cut side by side from one volume are not where its structures are larger.",
    ]


def _rivals(nature: Volumes, seed: int, rng: np.random.Generator) -> dict[str, Volumes]:
    bits, edge = nature.solid.cpu().numpy(), nature.voxel.cpu().numpy()
    places = np.meshgrid(*((np.arange(side) * 4 + side) // 5 for side in nature.sides), indexing="ij")  # the middle four fifths
    blurred = ndimage.gaussian_filter(bits.astype(np.float32), (0, 1, 1, 1), mode="nearest")
    fraction = float(solid_fraction(nature).mean())
    more = fraction + 0.2 * min(fraction, 1 - fraction)
    some = blurred[rng.choice(len(blurred), min(100, len(blurred)), replace=False)]  # enough to know a level by
    return {
        MAGNIFIED: volumes(bits[:, places[0], places[1], places[2]], edge),
        THICKENED: volumes(blurred > np.quantile(some, 1 - more), edge),
        GAUSSIAN: simulate.like(two_point(nature).mean(axis=0), nature.sides, len(nature), seed),
        ONE: nature[[0] * len(nature)],
    }


def _add_features(tables: Mapping[str, _Table]) -> None:
    """The leading components of all statistics at once, on scales set by nature and drawn alike."""
    tables[ONE].rows |= {name: tables["nature"][name][[0] * len(tables["nature"].volumes)] for name in FEATURES}
    names = ("nature", "drawn", GAUSSIAN, ONE)
    raw = {name: np.concatenate([tables[name][feature] for feature in FEATURES], axis=1) for name in names}
    both = np.concatenate([raw["nature"], raw["drawn"]])
    centre, spread = both.mean(axis=0), both.std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    axes = np.linalg.eigh(np.cov((both - centre) / scale, rowvar=False))[1][:, :-9:-1]
    for name in names:
        tables[name].rows["features"] = (raw[name] - centre) / scale @ axes


def _add_memory(tables: dict[str, _Table], training: Volumes, rng: np.random.Generator) -> None:
    """log10 of the distance to the nearest training volume, of the first few volumes of each set."""
    rows = rng.choice(len(training), min(REMEMBERED, len(training)), replace=False)
    tables[COPIED] = _Table(training[rows])
    known = _means(training, THUMBNAIL).astype(np.float32)
    for name in ("nature", "drawn", COPIED):
        found = tables[name].volumes
        values = np.full((len(found), 1), np.nan)
        values[:REMEMBERED, 0] = np.log10(_nearest(_means(found[:REMEMBERED], THUMBNAIL).astype(np.float32), known) + 1e-3)
        tables[name].rows["memory"] = values


def _nearest(flat: NDArray[Any], known: NDArray[Any]) -> Array:
    """Root-mean-square difference of thumbnails to the nearest known one in any of the 48 turns and flips of a cube, (n,)."""
    cubes = flat.reshape(-1, *(THUMBNAIL,) * 3)
    found = []
    for order in itertools.permutations((1, 2, 3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned = cubes.transpose(0, *order)[:, :: flips[0], :: flips[1], :: flips[2]].reshape(flat.shape)
            found.append(distance.nearest(turned, known))
    return np.asarray(np.min(found, axis=0) / THUMBNAIL**1.5, np.float64)


def _statistics(tables: Mapping[str, _Table], with_training: bool) -> list[tuple[str, Statistic[Any]]]:
    """Each statistic with the rows that it reads."""
    lags = np.arange(tables["nature"]["two points"].shape[1], dtype=float)
    found = [*_of_fractions(tables), *_of_lags(lags), *_of_shape(tables), *_joint(tables["nature"]["features"].shape[1])]
    if with_training:
        about = f"log10 of the distance to the nearest training volume in windows of 1/{THUMBNAIL} of the side, all 48 turns and flips."
        found.append((
            "memory", distribution(
                "memorisation", "dex", about, _rows, np.linspace(-3, 0, 41), rival=COPIED, distance=distance.shortfall
            ),
        ))  # fmt: skip
    return found


def _rows(rows: Array) -> Array:
    return rows


def _law(tables: Mapping[str, _Table], key: str, name: str, unit: str, about: str, rival: str) -> tuple[str, Statistic[Any]]:
    """The law of one number per volume, drawn over the range of nature and drawn together."""
    both = np.concatenate([tables[side][key][:, 0] for side in ("nature", "drawn")])
    low, high = np.nanmin(both), np.nanmax(both)
    room = max(0.02 * (high - low), 1e-6)
    return key, distribution(name, unit, about, _rows, np.linspace(low - room, high + room, 31), rival=rival)


def _of_fractions(tables: Mapping[str, _Table]) -> list[tuple[str, Statistic[Any]]]:
    about = "Share of windows of a quarter of the side by their porosity."
    return [
        _law(tables, "solid fraction", "solid fraction", "", "Share of solid voxels per volume; its mean and its scatter.", THICKENED),
        ("local porosity", average(
            "local porosity", "share", about, _rows, (np.arange(16) + 0.5) / 16, "porosity of a window", rival=MAGNIFIED, bars=True,
        )),
    ]  # fmt: skip


def _of_lags(lags: Array) -> list[tuple[str, Statistic[Any]]]:
    found = [("two points", average(
        "two-point probability", "probability", "S2(r): two voxels at a distance r along an axis are both solid.", _rows, lags,
        "distance r (voxels)", rival=MAGNIFIED,
    ))]  # fmt: skip
    for phase in ("pore", "solid"):
        path = f"path of the {phase}"
        about = f"L(z): a run of z + 1 voxels along an axis lies in the {phase}."
        found.append((path, average(f"lineal path, {phase}", "probability", about, _rows, lags, "length z (voxels)", rival=GAUSSIAN)))
        about = f"Share of the runs of {phase} along lines by their length."
        found.append((path, average(
            f"chord lengths, {phase}", "share", about, _rows, lags[1:-1], "length (voxels)", rival=GAUSSIAN, function=chord_lengths,
            bars=True,
        )))  # fmt: skip
    return found


def _of_shape(tables: Mapping[str, _Table]) -> list[tuple[str, Statistic[Any]]]:
    pieces = "1: axes along which the solid percolates, 2: its largest piece, 3 and 4: the same of the pore"
    return [
        _law(tables, "surface", "specific surface", "1/voxel", "Area between the phases per volume.", MAGNIFIED),
        _law(tables, "Euler number", "Euler number", "1/voxel", "Euler characteristic of the solid per volume.", GAUSSIAN),
        ("percolation", average(
            "percolation", "share", f"Mean over volumes; {pieces}.", _rows, np.arange(1.0, 5.0), "1, 2: solid; 3, 4: pore",
            rival=GAUSSIAN, bars=True,
        )),
        _law(
            tables, "conductivity", "effective conductivity", "of the pore's",
            f"Current along the depth for a mean field of 1; the solid conducts {conductivity.SOLID:g} of what the pore does.", THICKENED,
        ),
    ]  # fmt: skip


def _joint(features: int) -> list[tuple[str, Statistic[Any]]]:
    def vectors(name: str, about: str, measure: distance.Distance, rival: str, tested: bool) -> tuple[str, Statistic[Any]]:
        grid = np.arange(1.0, features + 1)
        return "features", Statistic(
            name, "mean feature", about, _rows, measure, rival, "feature", grid, lambda values, weights: weights @ values, tested=tested,
            bars=True,
        )  # fmt: skip

    return [
        vectors(
            "classifier two-sample test", "Share, beyond one half, of volumes whose nearest volume, by all statistics, is of their set.",
            distance.neighbour_test, GAUSSIAN, True,
        ),
        vectors("coverage", "Share of nature's volumes that have no drawn one near them: 0 is best.", distance.missed, ONE, True),
        vectors("precision", "Share of drawn volumes that lie near none of nature's: 0 is best.", distance.unlikely, GAUSSIAN, False),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------- bars


@dataclasses.dataclass(frozen=True)
class Deviations:
    """How far drawn volumes are from nature's, each with its standard error; curves where they deviate most, and with what is left
    of the deviation after two standard errors where most is."""

    fraction: tuple[float, float]  # mean solid fraction, drawn less nature
    scatter: tuple[float, float]  # variance of the solid fraction between volumes, drawn over nature
    two_point: tuple[float, float, float]  # S2
    lineal_path: tuple[float, float, float]  # L of either phase
    conductivity: tuple[float, float]  # mean, drawn over nature, less 1


def deviations(nature: Volumes, drawn: Volumes) -> Deviations:
    """Of drawn volumes from nature's."""
    return _deviations(_Table(nature), _Table(drawn))


def _deviations(nature: _Table, drawn: _Table) -> Deviations:
    k, j = (table["conductivity"][:, 0] for table in (nature, drawn))
    k, j = k[np.isfinite(k)], j[np.isfinite(j)]
    ratio = j.mean() / k.mean()
    error = ratio * np.hypot(j.std(ddof=1) / j.mean() / np.sqrt(len(j)), k.std(ddof=1) / k.mean() / np.sqrt(len(k)))
    paths = [np.concatenate([table["path of the pore"], table["path of the solid"]], axis=1) for table in (nature, drawn)]
    return Deviations(
        _largest(nature["solid fraction"], drawn["solid fraction"])[:2],
        _variances(nature["solid fraction"][:, 0], drawn["solid fraction"][:, 0]),
        _largest(nature["two points"], drawn["two points"]), _largest(*paths), (float(ratio - 1), float(error)),
    )  # fmt: skip


def _largest(nature: Array, drawn: Array) -> tuple[float, float, float]:
    """The largest difference of the means, drawn less nature, with its error; and the largest after two errors."""
    apart = drawn.mean(axis=0) - nature.mean(axis=0)
    error = np.sqrt(drawn.var(axis=0, ddof=1) / len(drawn) + nature.var(axis=0, ddof=1) / len(nature))
    worst = int(np.argmax(np.abs(apart)))
    return float(apart[worst]), float(error[worst]), float((np.abs(apart) - 2 * error).max())


def _variances(nature: Array, drawn: Array) -> tuple[float, float]:
    """Ratio of the variances, drawn over nature; its error from the fourth moments."""
    def relative(x: Array) -> float:
        kurtosis = np.mean((x - x.mean()) ** 4) / max(float(x.var()), 1e-30) ** 2
        return float((kurtosis - 1) / len(x))

    ratio = float(drawn.var(ddof=1) / max(float(nature.var(ddof=1)), 1e-30))
    return ratio, ratio * float(np.sqrt(relative(nature) + relative(drawn)))


def _bars(tables: Mapping[str, _Table], training: _Table | None) -> list[Check]:
    """The bars, beside what nature's halves, the Gaussian rival and training volumes score."""
    nature = tables["nature"]
    own = _deviations(nature, tables["drawn"])
    others = {GAUSSIAN: _deviations(nature, tables[GAUSSIAN]), "nature's halves": _deviations(*_halves(nature))}
    if training is not None:
        others["training"] = _deviations(nature, training)

    def near(name: str, field: str, bar: float, words: str) -> Check:
        value, error, *left = getattr(own, field)
        target = f"within {words}, {'2 standard errors' if left else '1 standard error'} granted"
        beside = {name: float(getattr(other, field)[0]) for name, other in others.items()}
        return Check(name, value, error, target, (left[0] if left else abs(value) - error) < bar, beside)

    ratio, error = own.scatter
    return [
        near("solid fraction, drawn less nature", "fraction", 0.005, "0.005"),
        Check(
            "variance of the solid fraction, drawn over nature", ratio, error, "0.7 to 1.4, 1 standard error granted",
            ratio + error > 0.7 and ratio - error < 1.4, {name: float(other.scatter[0]) for name, other in others.items()},
        ),
        near("two-point probability, largest deviation", "two_point", 0.01, "0.01"),
        near("lineal path of either phase, largest deviation", "lineal_path", 0.01, "0.01"),
        near("effective conductivity, drawn over nature less 1", "conductivity", 0.03, "3 %"),
    ]  # fmt: skip


def _halves(table: _Table) -> Sequence[_Table]:
    """Every second volume, and the others, with the rows that were measured."""
    halves = []
    for start in (0, 1):
        half = _Table(table.volumes[start::2])
        half.rows = {name: rows[start::2] for name, rows in table.rows.items()}
        halves.append(half)
    return halves
