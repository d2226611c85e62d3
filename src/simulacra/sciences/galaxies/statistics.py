"""What can be measured in images of galaxies, and the verdict on images that claim to show some.

The galaxy is found by its isophote. With L the luminance (mean of the bands, counts of 255) minus the median of the border,
sigma = 1.4826 median|L - median L| over the whole image, and S the luminance smoothed with a Gaussian of 0.7 px (at 69 px; it
scales with the side), the galaxy is the 4-connected region of S > max(4, 3 sigma) that holds the central pixel. On its pixels,
with flux f = max(L, 0) and centre of light c:

    axis ratio         sqrt(lambda_min / lambda_max) of the flux-weighted second moments about c
    half-light radius  r50; r20, r50, r80 hold 20, 50, 80 % of the flux in circles about c          (px)
    concentration      5 log10(r80 / r20)                                            Bershady et al. 2000, Conselice 2003
    asymmetry          sum|f - f180| / (2 sum f), f180 the image turned by 180 degrees about its middle       Conselice 2003
    colour             log10(red / blue), summed above each band's border median
    Gini               sum_i (2i - n - 1) f_i / (n (n - 1) mean f), f ascending                         Lotz et al. 2004
    M20                log10(sum of f r^2 over the brightest pixels that hold 20 % of the flux / over all)  Lotz et al. 2004

Here the frame holds stretched counts, not flux, and the isophote stands in for the Petrosian ellipse; so the numbers compare
images treated alike and are not those of the papers' catalogues. The pixel class is 0: axis ratio < 0.5; 1: rounder, colour >= 0.212;
2: rounder and bluer; -1: nothing found at the centre, where every measurement is nan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import chi2_contingency

from simulacra.evidence import Evidence, Statistic, average, compare, distribution
from simulacra.measures import distance, field
from simulacra.sciences.galaxies import agreement
from simulacra.sciences.galaxies.data import Images
from simulacra.study import Refused

Array = NDArray[np.float64]

CLASSES = ("elongated", "round and red", "round and blue")
REDDEST_BLUE = 0.212  # colour that divides round galaxies: the median of the round ones among 9,000 of SDSS
MEASURES = ("half-light radius", "axis ratio", "colour", "concentration", "asymmetry", "Gini", "M20", "area fraction")
UNITS = {"half-light radius": "px", "colour": "dex"}
ABOUT = {
    "half-light radius": "Radius of the circle about the centre of light that holds half the galaxy's counts.",
    "axis ratio": "Minor over major axis of the flux-weighted second moments.",
    "colour": "log10 of red over blue counts of the galaxy above the sky.",
    "concentration": "5 log10(r80 / r20), after Conselice 2003.",
    "asymmetry": "Share of light that a turn by 180 degrees displaces, after Conselice 2003.",
    "Gini": "Inequality of the galaxy's pixels: 0 all alike, 1 all light in one; Lotz et al. 2004.",
    "M20": "Second moment of the brightest fifth of the light against that of all, in dex; Lotz et al. 2004.",
}
BINS = {
    "axis ratio": np.linspace(0, 1, 26),
    "colour": np.linspace(-0.2, 0.6, 33),
    "concentration": np.linspace(1, 4, 31),
    "asymmetry": np.linspace(0, 0.6, 31),
    "Gini": np.linspace(0, 0.8, 33),
    "M20": np.linspace(-3, -0.5, 26),
}
COUNTS = np.array([0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256])
RAREST = 1e-4  # share added to every bin of the intensity histogram before its logarithm: a pixel in two images of 64 px
FEWEST = 20  # images on a side that a verdict can say anything about
ROUNDING = 1 / 12  # counts^2: the power that rounding to bytes adds at every wavenumber


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(images: Images) -> dict[str, Array]:
    """Every measurement of the module docstring, shape (n,); nan where no galaxy is found. Colour only of colour images."""
    names = _names(images.bands)
    rows = [_measure_block(images.pixels[i : i + 256].cpu().numpy(), names) for i in range(0, len(images), 256)]
    return dict(zip(names, np.concatenate(rows).T, strict=True))


def _names(bands: int) -> list[str]:
    return [name for name in MEASURES if name != "colour" or bands == 3]


def _measure_block(pixels: NDArray[np.uint8], names: Sequence[str]) -> Array:
    """(n, measurements) of (n, bands, side, side) bytes."""
    table = np.full((len(pixels), len(names)), np.nan)
    side = pixels.shape[-1]
    around = _border(side)
    bands = pixels - np.median(pixels[:, :, around], axis=2)[:, :, None, None]
    light = pixels.mean(axis=1)
    light -= np.median(light[:, around], axis=1)[:, None, None]
    middle = np.median(light, axis=(1, 2), keepdims=True)
    scatter = 1.4826 * np.median(np.abs(light - middle), axis=(1, 2))
    smooth = ndimage.gaussian_filter(light, (0, 0.7 * side / 69, 0.7 * side / 69))
    bright = smooth > np.maximum(4, 3 * scatter)[:, None, None]
    for i, row in enumerate(table):
        if bright[i, side // 2, side // 2]:
            regions, _ = ndimage.label(bright[i])
            inside = regions == regions[side // 2, side // 2]
            found = _shape(light[i], inside)
            if "colour" in names:
                found["colour"] = _colour(bands[i], inside)
            row[:] = [found[name] for name in names]
    return table


def pixel_class(measured: Mapping[str, Array]) -> NDArray[np.int64]:
    """0 elongated, 1 round and red, 2 round and blue, -1 nothing found, shape (n,). Needs colour."""
    if "colour" not in measured:
        raise Refused("the pixel class needs a colour, and grey images have none; judge colour images or leave the class out")
    ratio, colour = measured["axis ratio"], measured["colour"]
    kind = np.where(ratio < 0.5, 0, np.where(colour >= REDDEST_BLUE, 1, 2))
    return np.where(np.isfinite(ratio) & (np.isfinite(colour) | (ratio < 0.5)), kind, -1)


def class_shares_test(nature: Images, drawn: Images) -> tuple[float, float]:
    """Chi-square of homogeneity of the pixel classes measured in both, and its p-value: are classes drawn in nature's proportion?

    "Nothing found" counts as a class, for a generator of empty frames draws none of the others. Grey images are divided into
    elongated and rounder ones. A class that neither set has is no degree of freedom; where one class is left, (0, 1).
    """
    return homogeneity(class_counts(nature, drawn))


def class_counts(nature: Images, drawn: Images) -> NDArray[np.int64]:
    """How many galaxies of nature and of draws are measured as nothing and as each pixel class in order, (2, 1 + CLASSES)."""
    if not (len(nature) and len(drawn)):
        raise Refused(f"{len(nature)} images of nature and {len(drawn)} drawn: shares need images on both sides")
    return np.stack([np.bincount(_kinds(measure(images)) + 1, minlength=1 + len(CLASSES)) for images in (nature, drawn)])


def _kinds(measured: Mapping[str, Array]) -> NDArray[np.int64]:
    """The pixel class, and without colour its first cut alone, shape (n,)."""
    if "colour" in measured:
        return pixel_class(measured)
    ratio = measured["axis ratio"]
    return np.where(np.isfinite(ratio), np.where(ratio < 0.5, 0, 1), -1)


def homogeneity(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Pearson's chi-square and p-value of counts (2, classes): were both rows drawn with the same shares, estimated from their sum?"""
    found = chi2_contingency(counts[:, counts.sum(axis=0) > 0], correction=False)
    return float(found.statistic), float(found.pvalue)


def _border(side: int) -> NDArray[np.bool_]:
    width = max(1, side // 20)
    edge = np.ones((side, side), bool)
    edge[width:-width, width:-width] = False
    return edge


def _shape(light: Array, inside: NDArray[np.bool_]) -> dict[str, float]:
    flux = np.where(inside, np.maximum(light, 0), 0)
    y, x = np.nonzero(inside)
    f = flux[y, x]
    total = f.sum()
    dy, dx = y - f @ y / total, x - f @ x / total
    r2 = dx**2 + dy**2
    radius = _radii(f, np.sqrt(r2), total)
    turned = flux[::-1, ::-1]
    return {
        "half-light radius": radius[1],
        "axis ratio": _axis_ratio(f @ dx**2, f @ dy**2, f @ (dx * dy)),
        "concentration": 5 * float(np.log10(radius[2] / radius[0])) if radius[0] > 0 else float("nan"),
        "asymmetry": float(np.abs(flux - turned).sum() / (2 * total)),
        "Gini": gini(f),
        "M20": m20(f, r2),
        "area fraction": float(inside.mean()),
    }


def _radii(f: Array, r: Array, total: float) -> list[float]:
    """Radii that hold 20, 50 and 80 % of the flux. Pixels at one radius enter together, half of them inside it: one by one, the
    curve would depend on their order, and so on how the image is turned."""
    radius, ring = np.unique(np.round(r, 9), return_inverse=True)
    light = np.bincount(ring, weights=f)
    return [float(v) for v in np.interp([0.2, 0.5, 0.8], (np.cumsum(light) - light / 2) / total, radius)]


def _axis_ratio(xx: float, yy: float, xy: float) -> float:
    mean, split = (xx + yy) / 2, float(np.hypot((xx - yy) / 2, xy))
    return float(np.sqrt(max(mean - split, 0) / (mean + split))) if mean + split > 0 else float("nan")


def _colour(bands: Array, inside: NDArray[np.bool_]) -> float:
    red, blue = bands[0][inside].sum(), bands[2][inside].sum()
    return float(np.log10(red / blue)) if red > 0 and blue > 0 else float("nan")


def gini(flux: Array) -> float:
    """Gini coefficient of non-negative pixel values (n,): 0 where all are equal, 1 where one holds everything."""
    f, n = np.sort(flux), len(flux)
    if n < 2 or f.sum() <= 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ f / (n - 1) / f.sum())


def m20(flux: Array, r2: Array) -> float:
    """log10 of the second moment of the brightest pixels holding 20 % of the flux (n,) over that of all, r2 = r^2 (n,)."""
    order = np.lexsort((r2, -flux))  # counts tie often: the inner pixel first, so that a turned image measures the same
    bright = np.cumsum(flux[order]) <= 0.2 * flux.sum()
    bright[0] = True
    part, whole = (flux * r2)[order][bright].sum(), (flux * r2).sum()
    return float(np.log10(part / whole)) if part > 0 and whole > 0 else float("nan")


# ---------------------------------------------------------------------------------------------------------------- judge


class _Sheet:
    """One set of images and what the statistics read of it, measured when first asked for, `repeat` times over."""

    def __init__(self, images: Images, training: Array | None, repeat: int = 1) -> None:
        self.images, self._training, self._repeat = images, training, repeat
        self._known: dict[str, Array] = {}

    def __len__(self) -> int:
        return len(self.images) * self._repeat

    def __getitem__(self, name: str) -> Array:
        if name not in self._known:
            found = measure(self.images) if name in MEASURES else {name: self._measured(name)}
            self._known |= {key: np.repeat(value, self._repeat, axis=0) for key, value in found.items()}
        return self._known[name]

    def put(self, name: str, value: Array) -> None:
        self._known[name] = value

    def _measured(self, name: str) -> Array:
        first = slice(None, None, self._repeat)
        if name == "undetected":
            return np.isnan(self["axis ratio"][first]).astype(float)
        if name == "intensity histogram":
            return intensity_histogram(self.images)
        if name == "thumbnail":
            return thumbnails(self.images)
        if name == "class shares":
            kinds = pixel_class({n: self[n][first] for n in ("axis ratio", "colour")})
            return np.asarray(kinds[:, None] == np.arange(3), np.float64)
        if name == "memorisation" and self._training is not None:
            return np.log10(1 + nearest_turned(self["thumbnail"][first], self._training))
        if name in _spectrum_names(self.images):
            return log_power(self.images, _spectrum_names(self.images).index(name))[1]
        raise KeyError(name)


def judge(
    nature: Images, drawn: Images, *, seed: int, training: Images | None = None, permutations: int = 999, halves: int = 100
) -> Evidence:
    """Held-out against drawn galaxies, image by image; neither side knows where the other came from.

    Rivals, each wrong in the way that its statistic should notice: `mean galaxy` (every image is the mean of nature: no
    diversity) for laws of shape, `blurred nature` (2 px) for power spectra, `shuffled pixels` (no galaxy, the right counts)
    for detection and precision, `copied training images` (turned, flipped, with noise of one count) for memorisation.
    """
    _comparable(nature, drawn, training)
    rng = np.random.default_rng([seed, 0x6A1A])
    sets = {"nature": nature, "drawn": drawn, **_rivals(nature, training, rng)}
    known = None if training is None else thumbnails(training)
    sheets = {name: _Sheet(images, known, len(nature) if name == "mean galaxy" else 1) for name, images in sets.items()}
    _add_features(sheets)
    chosen, remarks = _statistics(sheets, nature, training is not None)
    asked, about = _asked_classes(sheets, rng)
    rivals = {name: sheet for name, sheet in sheets.items() if name not in ("nature", "drawn")}
    evidence = compare([*chosen, *asked], sheets["nature"], sheets["drawn"], rivals, seed=seed, permutations=permutations, halves=halves)
    return dataclasses.replace(evidence, remarks=[*evidence.remarks, _reach(evidence), *remarks, *about])


def _reach(evidence: Evidence) -> str:
    """Recall, coverage and precision as shares that are reached, beside those of one half of nature by the other."""
    found = {finding.name.split(" (")[0]: finding for finding in evidence.findings}
    names = ("recall", "coverage", "precision")
    drawn, itself = ([f"{name} {1 - getattr(found[name], of):.2f}" for name in names] for of in ("distance", "floor"))
    return f"drawn: {', '.join(drawn)}; between halves of nature: {', '.join(itself)}"


def _comparable(nature: Images, drawn: Images, training: Images | None) -> None:
    for name, other in (("drawn", drawn), ("training", training)):
        if other is not None and other.pixels.shape[1:] != nature.pixels.shape[1:]:
            raise Refused(
                f"nature has {nature.bands} band(s) of {nature.side} px, {name} images {other.bands} of {other.side} px; "
                "read both with the same side and colour"
            )
    if min(len(nature), len(drawn)) < FEWEST:
        counts = f"{len(nature)} images of nature and {len(drawn)} drawn"
        raise Refused(f"{counts}; fewer than {FEWEST} on a side cannot be told apart: draw more")


def _rivals(nature: Images, training: Images | None, rng: np.random.Generator) -> dict[str, Images]:
    pixels = nature.pixels.cpu().numpy()
    rivals = {
        "mean galaxy": pixels.mean(axis=0, keepdims=True),
        "blurred nature": ndimage.gaussian_filter(pixels.astype(np.float32), (0, 0, 2, 2)),
        "shuffled pixels": _shuffled(pixels, rng),
    }
    if training is not None:
        rows = rng.choice(len(training), min(len(nature), len(training)), replace=False)
        copies = training.pixels.cpu().numpy()[rows].astype(np.float32)
        turned = np.stack([_turned(image, int(way)) for image, way in zip(copies, rng.integers(8, size=len(rows)), strict=True)])
        rivals["copied training images"] = turned + rng.normal(size=turned.shape)
    return {name: _as_images(values) for name, values in rivals.items()}


def _as_images(values: NDArray[Any]) -> Images:
    import torch

    pixels = torch.from_numpy(np.rint(np.clip(values, 0, 255)).astype(np.uint8))
    return Images(pixels, torch.full((len(pixels),), -1, dtype=torch.int64))


def _shuffled(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    flat = pixels.reshape(*pixels.shape[:2], -1)
    return np.stack([image[:, rng.permutation(image.shape[1])] for image in flat]).reshape(pixels.shape)


def _turned(image: NDArray[Any], way: int) -> NDArray[Any]:
    """One of the eight turns and flips of a square (..., side, side)."""
    turned = np.rot90(image, way % 4, axes=(-2, -1))
    return turned[..., ::-1] if way >= 4 else turned


def _bands(images: Images) -> tuple[str, ...]:
    return ("r band", "g band", "b band") if images.bands == 3 else ("grey",)


def _spectrum_names(images: Images) -> tuple[str, ...]:
    return tuple(f"power spectrum ({band})" for band in _bands(images))


def intensity_histogram(images: Images) -> Array:
    """Share of each image's pixels, bands pooled, in the bins between COUNTS, (n, bins)."""
    place = np.searchsorted(COUNTS, np.arange(256), side="right") - 1
    flat = images.pixels.cpu().numpy().reshape(len(images), -1)
    return np.stack([np.bincount(place[row], minlength=len(COUNTS) - 1) for row in flat]) / flat.shape[1]


def log_power(images: Images, band: int) -> tuple[Array, Array]:
    """k (rings,) in cycles per pixel and log10 P(k) of one band, (n, rings), in counts^2 with a Hann taper."""
    k, power, _ = field.power_spectrum(images.pixels[:, band].cpu().numpy(), taper=True)
    return k, np.log10(power + ROUNDING)


def thumbnails(images: Images, side: int = 16) -> Array:
    """Luminance in counts, averaged down to at most 16 x 16 px and laid out flat, (n, side^2)."""
    n, size = len(images), images.side
    side = min(side, size)
    edges = np.linspace(0, size, side + 1)
    cover = np.clip(np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size)), 0, 1)
    cover /= cover.sum(axis=1, keepdims=True)
    light = np.concatenate([images.pixels[i : i + 256].cpu().numpy().mean(axis=1, dtype=np.float32) for i in range(0, n, 256)])
    return np.asarray(np.einsum("ay,nyx,bx->nab", cover, light, cover, optimize=True).reshape(n, side * side), np.float64)


def nearest_turned(flat: Array, reference: Array, block: int = 512) -> Array:
    """Root-mean-square difference (n,) in counts to the nearest reference thumbnail in any of its eight turns and flips."""
    side = round(flat.shape[1] ** 0.5)
    square = reference.reshape(-1, side, side)
    turned = np.concatenate([_turned(square, way).reshape(len(square), -1) for way in range(8)]).astype(np.float32)
    norm = (turned**2).sum(axis=1)
    nearest = np.empty(len(flat))
    for start in range(0, len(flat), block):
        rows = flat[start : start + block]
        best = np.argmin(norm[None, :] - 2 * rows.astype(np.float32) @ turned.T, axis=1)
        nearest[start : start + block] = np.sqrt(np.mean((rows - turned[best]) ** 2, axis=1))  # exact: the search alone is rounded
    return nearest


def _add_features(sheets: Mapping[str, _Sheet]) -> None:
    """Vectors for the tests that look at all measurements at once, on scales set by nature and drawn alike.

    Scales must not know which is which, or the permutation test would not be exact. Undetected galaxies get the median of
    each measurement and stand apart by their own column.
    """
    names = _names(sheets["nature"].images.bands)
    pooled = np.concatenate([sheets[s]["thumbnail"] for s in ("nature", "drawn")])
    middle = pooled.mean(axis=0)
    axes = np.linalg.eigh(np.cov(pooled - middle, rowvar=False))[1][:, :-6:-1]
    seen = {s: sheets[s] for s in ("nature", "drawn", "mean galaxy", "shuffled pixels")}
    raw = {s: np.column_stack([sheet[n] for n in names] + [(sheet["thumbnail"] - middle) @ axes]) for s, sheet in seen.items()}
    both = np.concatenate([raw["nature"], raw["drawn"]])
    known = [column[np.isfinite(column)] for column in both.T]
    centre = np.array([np.median(c) if len(c) else 0.0 for c in known])
    scale = np.array([c.std() if len(c) > 1 and c.std() > 0 else 1.0 for c in known])
    for s, sheet in seen.items():
        filled = np.where(np.isfinite(raw[s]), raw[s], centre)
        sheet.put("features", np.column_stack([(filled - centre) / scale, 10 * sheet["undetected"]]))


def _statistics(sheets: Mapping[str, _Sheet], nature: Images, with_training: bool) -> tuple[list[Statistic[_Sheet]], list[str]]:
    chosen: list[Statistic[_Sheet]] = [_histogram(), *_spectra(nature)]
    remarks = [f"{s}: no galaxy found in {sheets[s]['undetected'].mean():.1%} of {len(sheets[s])} images" for s in ("nature", "drawn")]
    for name in ABOUT:
        if name in _names(nature.bands):
            seen = {s: int(np.isfinite(sheets[s][name]).sum()) for s in ("nature", "drawn", "mean galaxy")}
            if min(seen.values()) < 4:
                remarks.append(f"{name} left out: measured in {seen['nature']} images of nature and {seen['drawn']} drawn")
            else:
                chosen.append(_law(name, nature.side))
    if nature.bands == 3:
        chosen.append(_class_shares())
    return [*chosen, _undetected(), *_joint(), *([_memorisation()] if with_training else [])], remarks


def _read(name: str) -> Any:
    return lambda sheet: sheet[name]


def _histogram() -> Statistic[_Sheet]:
    width = np.diff(COUNTS)
    return average(
        "intensity histogram", "share of pixels per count",
        "Share of pixels at each count, bands pooled, averaged over images; distance: root mean square of log10(share + 1e-4) in dex.",
        _read("intensity histogram"), (COUNTS[1:] + COUNTS[:-1] - 1) / 2, "pixel value (counts of 255)", rival="mean galaxy",
        function=lambda share: np.log10(share + RAREST), shown=lambda share: share / width, log_values=True, bars=True,
    )  # fmt: skip


def _spectra(nature: Images) -> list[Statistic[_Sheet]]:
    k = field.rings(nature.side, nature.side).k
    about = "log10 of the ring-averaged power per image (Hann taper), averaged over images; distance: root mean square in dex."
    return [
        average(
            name, "log10 P (counts²)", about, _read(name), k, "wavenumber k (cycles per pixel)", rival="blurred nature",
        )
        for name in _spectrum_names(nature)
    ]  # fmt: skip


def _law(name: str, side: int) -> Statistic[_Sheet]:
    bins = BINS[name] if name in BINS else np.linspace(0, side / 2, 33)
    about = f"{ABOUT[name]} Distance: Wasserstein-1 between the laws of detected galaxies."
    return distribution(name, UNITS.get(name, ""), about, _read(name), bins, rival="mean galaxy")


def _class_shares() -> Statistic[_Sheet]:
    about = f"Shares of {', '.join(f'{i} {c}' for i, c in enumerate(CLASSES))}; distance: root mean square of the shares."
    return average("class shares", "share", about, _read("class shares"), np.arange(3.0), "pixel class", rival="mean galaxy", bars=True)


def _asked_classes(sheets: dict[str, _Sheet], rng: np.random.Generator) -> tuple[list[Statistic[_Sheet]], list[str]]:
    """Whether drawn images are of the class on their label, where both sides have labels; adds the rival, nature with labels shuffled."""
    asked = {side: sheets[side].images.label.cpu().numpy() for side in ("nature", "drawn")}
    if not all((label >= 0).any() for label in asked.values()):
        return [], []
    known, counts = np.unique(asked["nature"][asked["nature"] >= 0], return_counts=True)
    kinds = [int(k) for k in known[(counts >= agreement.FEWEST) & np.isin(known, asked["drawn"])]]
    drawn_rows = int(np.isin(asked["drawn"], kinds).sum())
    if len(kinds) < 2 or drawn_rows < FEWEST:
        why = f"{drawn_rows} drawn images of {len(kinds)} classes that nature has {agreement.FEWEST} images of"
        return [], [f"class agreement left out: {why}; it takes {FEWEST} of two classes"]
    found, how = _found_classes(sheets, np.where(np.isin(asked["nature"], kinds), asked["nature"], -1), rng)
    rows = {side: agreement.table(asked[side], found[side], kinds) for side in asked}
    rival = _Sheet(sheets["nature"].images, None)
    rival.put("class agreement", agreement.table(rng.permutation(asked["nature"]), found["nature"], kinds))
    sheets["shuffled labels"] = rival
    lines = [f"class agreement is found by {how}"]
    for side, table in rows.items():
        sheets[side].put("class agreement", table)
        lines.append(f"{side}: {_agreed(table, kinds)}")
    missing = sorted({label for side in asked.values() for label in side.tolist() if label >= 0} - set(kinds))
    if missing:
        lines.append(f"class agreement leaves out {_numbers(missing)}: fewer than {agreement.FEWEST} images of nature, or none drawn")
    statistic = Statistic[_Sheet](
        "class agreement", "share", "Share of images whose measured class is the one asked for; distance: share whose is another, "
        "classes weighted as in nature.", _read("class agreement"), agreement.disagreement, "shuffled labels", "class asked for",
        np.asarray(kinds, float), agreement.by_class, bars=True,
    )  # fmt: skip
    return [statistic], lines


def _found_classes(
    sheets: Mapping[str, _Sheet], label: NDArray[np.int64], rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.int64]], str]:
    """The measured class of each image of nature and drawn, and in words how it was measured. `label` (n,) is nature's, -1: of none."""
    names = _names(sheets["nature"].images.bands)
    measured = {side: {name: sheets[side][name] for name in names} for side in ("nature", "drawn")}
    if "colour" in names:
        kinds = {side: pixel_class(values) for side, values in measured.items()}
        if np.mean(kinds["nature"][label >= 0] == label[label >= 0]) > agreement.DEFINED:
            return kinds, "the pixel class, which defines nature's labels"
    rows = [
        np.column_stack([*values.values(), agreement.harmonics(sheets[side].images, values["half-light radius"])])
        for side, values in measured.items()
    ]
    first, second = agreement.told_by_halves(rows[0], label, rows[1], rng)
    return {"nature": first, "drawn": second}, "linear discriminants of shape, colour and the light on circles, taught by halves of nature"


def _agreed(table: Array, kinds: Sequence[int]) -> str:
    """The share that agrees, in all and by class."""
    table = table[np.isfinite(table[:, 0])]
    each = agreement.by_class(table, np.full((1, len(table)), 1 / len(table)))[0]
    order = range(len(kinds)) if len(kinds) <= 10 else np.argsort(each)[:10]
    return f"{1 - table[:, 0].mean():.1%} of the class asked for (" + ", ".join(f"{kinds[i]}: {each[i]:.1%}" for i in order) + ")"


def _numbers(kinds: Sequence[int]) -> str:
    return f"class{'es' if len(kinds) > 1 else ''} {', '.join(map(str, kinds[:10]))}{' ...' if len(kinds) > 10 else ''}"


def _undetected() -> Statistic[_Sheet]:
    return average(
        "undetected", "share", "Share of images without a galaxy at the centre; distance: difference of the shares.",
        lambda sheet: sheet["undetected"][:, None], np.zeros(1), "", rival="shuffled pixels", bars=True,
    )  # fmt: skip


def _memorisation() -> Statistic[_Sheet]:
    about = (
        "log10(1 + rms difference in counts) to the nearest training image in any turn or flip, at 16 x 16 px; "
        "distance: how far drawn lies closer to training than held-out nature does (one-sided Wasserstein-1)."
    )
    return distribution(
        "memorisation", "dex", about, _read("memorisation"), np.linspace(0, 2, 41), rival="copied training images",
        distance=distance.shortfall,
    )  # fmt: skip


def _joint() -> list[Statistic[_Sheet]]:
    """Tests on all measurements and five principal components of the thumbnails together."""
    means = "All measurements and five principal components of 16 x 16 px thumbnails, standardised. "
    kinds: Sequence[tuple[str, str, distance.Distance, str, bool]] = (
        (
            "classifier two-sample test",
            "Share beyond one half of images whose nearest neighbour has their origin.",
            distance.neighbour_test,
            "mean galaxy",
            True,
        ),
        ("energy distance", "Energy distance of the feature vectors.", distance.energy, "mean galaxy", True),
        ("coverage (share missed)", "Share of nature that no drawn image comes near.", distance.missed, "mean galaxy", False),
        ("recall (share missed)", "Share of nature that lies between no drawn images.", distance.unreached, "mean galaxy", False),
        ("precision (share outside)", "Share of drawn images outside nature.", distance.unlikely, "shuffled pixels", False),
    )
    grid = np.linspace(0, 10, 41)
    return [
        Statistic(
            name, "density", means + about, _read("features"), rule, rival, "distance of the features from their median",
            (grid[1:] + grid[:-1]) / 2, _radial(grid), tested=tested, bars=True,
        )
        for name, about, rule, rival, tested in kinds
    ]  # fmt: skip


def _radial(bins: Array) -> Any:
    def curve(values: Array, weights: Array) -> Array:
        radius = np.clip(np.linalg.norm(values, axis=1), bins[0], bins[-1] - 1e-9)
        column = np.searchsorted(bins, radius, side="right") - 1
        return np.asarray(weights @ np.eye(len(bins) - 1)[column] / np.diff(bins), np.float64)

    return curve
