"""What wishes and fingerprints are worth as requests: what was asked for against what the drawn molecules have.

    one wish      each property at three targets, its 10th, 50th and 90th percentile in training; mean absolute error, and validity
    three wishes  logP, QED and solubility of held-out molecules, all at once
    round trip    Tanimoto similarity of a held-out fingerprint and that of the molecule which is made of it

Beside them: draws without wishes (what one gets by not asking), and the known molecule nearest to the wish, or to the fingerprint (what
one gets by looking it up: nothing new). A string that is no molecule has no property: errors are of valid ones, and validity stands beside.
What `best_of` is worth stands beside, too: the nearest of TRIED draws with the wish, and of as many without.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.evidence import Check, Figure, Finding, scored
from simulacra.families.autoencoder import latent_path
from simulacra.sciences.drugs import coding_verdict, fingerprints, properties, wishing
from simulacra.sciences.drugs.data import WISHES, Compounds, as_bytes, texts
from simulacra.sciences.drugs.tokens import shortened
from simulacra.study import Noise, Split

Array = NDArray[np.float64]

JUDGED = 2000  # held-out molecules
ASKED = 200  # draws for each target
TRIED = 8  # draws among which the nearest to the wish is looked for
PERCENTILES = (10, 50, 90)
BINS = np.linspace(0, 1, 21)  # of Tanimoto similarity
UNASKED, LOOKED_UP, RANDOM = "draws without wishes", "nearest training molecule", "random pairs"
NEAREST = f"nearest of {TRIED}"


def examine(learner: Any, split: Split[Compounds], seed: int) -> tuple[list[Finding], list[Check]]:
    """What the codes, the wishes and the string decoder are worth, on held-out molecules."""
    strings = texts(split.held_out[: JUDGED])
    bits, values = learner.profiles.of(strings)
    findings, checks = coding_verdict.verdict(learner, bits, values, seed)
    count = max(min(ASKED, learner.recipe.draws // 4), 20)
    single = asked_singly(learner, count, seed)
    together = asked_together(learner, values[: 2 * count], single.unasked, seed)
    trip, trip_check = round_trip(learner, bits[: 2 * count], seed)
    return [*findings, *single.findings, trip], [*checks, *single.checks, together, trip_check]


# ------------------------------------------------------------------------------------------------------------------------ wishes


@dataclasses.dataclass(frozen=True)
class Singly:
    """What came of asking for one property at a time."""

    findings: Sequence[Finding]
    checks: Sequence[Check]
    targets: Array  # (len(WISHES), len(PERCENTILES))
    achieved: Array  # (len(WISHES), len(PERCENTILES), n): nan where a string is no molecule
    unasked: Array  # (n, len(WISHES)) of draws without wishes, valid ones


def drawn(learner: Any, wish: Tensor, seed: int) -> Compounds:
    """Molecules for wishes (n, len(WISHES)), in their units; nan where nothing is asked."""
    n, none = len(wish), torch.zeros(len(wish), 0, dtype=torch.uint8)
    parts = [
        learner.draw(Compounds(none, none, wish)[start : start + learner.at_once(wish)].to(learner.device), Noise(seed, range(start, n)))
        for start in range(0, n, learner.at_once(wish))
    ]
    return Compounds.join(parts)


def asked_singly(learner: Any, count: int, seed: int) -> Singly:
    """`count` draws at each of three targets of each property."""
    known = learner.profiles.values.double().numpy()
    targets = np.percentile(known, PERCENTILES, axis=0).T
    wish = torch.full((len(WISHES), len(PERCENTILES), count, len(WISHES)), torch.nan)
    for k, row in enumerate(targets):
        wish[k, :, :, k] = torch.from_numpy(row).float()[:, None]
    got = wishing.achieved(drawn(learner, wish.reshape(-1, len(WISHES)), seed)).reshape(*wish.shape)
    achieved = np.stack([got[k, :, :, k] for k in range(len(WISHES))])
    unasked = wishing.achieved(drawn(learner, torch.full((3 * count, len(WISHES)), torch.nan), seed))
    unasked = unasked[np.isfinite(unasked).all(1)]
    results = [
        _one_property(name, targets[k], achieved[k], unasked[:, k], known[:, k], seed)
        for k, name in enumerate(WISHES)
        if len(unasked) >= 2 and np.isfinite(achieved[k]).sum() >= 2
    ]
    return Singly([r[0] for r in results], [r[1] for r in results], targets, achieved, unasked)


def _one_property(name: str, targets: Array, achieved: Array, unasked: Array, known: Array, seed: int) -> tuple[Finding, Check]:
    errors = np.abs(achieved - targets[:, None])
    valid = np.isfinite(achieved)
    off = np.abs(unasked[:, None] - targets)
    rng = np.random.default_rng([seed, 0xA5E])
    where = np.nonzero(valid)[0]  # target of each valid draw; beside it a draw without wishes, held against the same target
    theirs = off[rng.integers(len(off), size=len(where)), where]
    with np.errstate(invalid="ignore"):
        means = np.array([row[ok].mean() if ok.any() else np.nan for row, ok in zip(achieved, valid, strict=True)])
    curves = (targets, means, np.full(len(targets), unasked.mean()), np.zeros(len(targets)))
    unit = WISHES[name]
    finding = scored(
        f"wished {name}", unit, f"Mean of {name} in valid molecules drawn with the wish; the score is the mean absolute error of single "
        "molecules. The floor is 0.", f"{name} asked for ({unit})" if unit else f"{name} asked for", targets, curves, errors[valid], theirs,
        0.0, rival=UNASKED, seed=seed,
    )  # fmt: skip
    beside = {UNASKED: float(off.mean()), LOOKED_UP: float(np.mean([np.abs(known - t).min() for t in targets]))}
    beside |= {NEAREST: nearest_of(errors), f"{NEAREST} {UNASKED}": nearest_of(off.T)}
    for target, row, ok in zip(targets, errors, valid, strict=True):
        beside[f"at {target:.2f}"] = float(row[ok].mean()) if ok.any() else np.nan
        beside[f"valid at {target:.2f}"] = float(ok.mean())
    value = float(errors[valid].mean())
    title = f"wished {name}: mean absolute error" + (f" ({unit})" if unit else "")
    error = float(errors[valid].std() / np.sqrt(valid.sum()))
    return finding, Check(title, value, error, f"below half of {UNASKED}", value < 0.5 * beside[UNASKED], beside)


def nearest_of(missed: Array) -> float:
    """Mean over whole groups of TRIED draws of the least that they miss the wish by: missed (..., n), nan where a string is no molecule."""
    whole = missed.shape[-1] // TRIED * TRIED
    least = np.nan_to_num(missed[..., :whole], nan=np.inf).reshape(-1, TRIED).min(1) if whole else np.zeros(0)
    return _mean(least[np.isfinite(least)])


def asked_together(learner: Any, values: Tensor, unasked: Array, seed: int) -> Check:
    """All properties of held-out molecules (n, len(WISHES)) asked for at once."""
    spread = learner.range.spread.double().cpu().numpy()
    target = values.double().numpy()
    got = wishing.achieved(drawn(learner, values, seed + 1))
    valid = np.isfinite(got).all(1)
    errors = np.abs(got - target)
    rng = np.random.default_rng([seed, 0xA11])
    without = np.abs(unasked[rng.integers(len(unasked), size=len(target))] - target) if len(unasked) else np.full_like(target, np.nan)
    known = learner.profiles.values.double().numpy()
    place = [int(np.square((known - row) / spread).sum(1).argmin()) for row in target]
    beside = {"valid": float(valid.mean()), UNASKED: float((without / spread).mean())}
    beside[LOOKED_UP] = float((np.abs(known[place] - target) / spread).mean())
    beside |= {NEAREST: _nearest_together(learner, target, spread, seed + 2)}
    if len(unasked):
        others = unasked[rng.integers(len(unasked), size=(len(target), TRIED))]
        beside[f"{NEAREST} {UNASKED}"] = _least(np.abs(others - target[:, None]) / spread)
    for k, name in enumerate(WISHES):
        beside[f"{name}, in its unit"] = float(errors[valid, k].mean()) if valid.any() else np.nan
        beside[f"{name} without wishes"] = float(without[:, k].mean())
    scores = (errors[valid] / spread).mean(1)
    value = float(scores.mean()) if len(scores) else np.nan
    return Check(
        "three wishes at once: mean absolute error (standard deviations of training)", value,
        float(scores.std() / np.sqrt(max(len(scores), 1))) if len(scores) else np.nan, f"below half of {UNASKED}",
        bool(value < 0.5 * beside[UNASKED]), beside,
    )  # fmt: skip


def _nearest_together(learner: Any, target: Array, spread: Array, seed: int) -> float:
    """What the nearest of TRIED draws misses all wishes (n, len(WISHES)) by, in standard deviations."""
    wish = torch.from_numpy(np.repeat(target, TRIED, axis=0)).float()
    got = wishing.achieved(drawn(learner, wish, seed)).reshape(len(target), TRIED, -1)
    return _least(np.abs(got - target[:, None]) / spread)


def _least(missed: Array) -> float:
    """Of what draws miss several wishes by (n, TRIED, wishes), the mean over wishes of the draw with the least squares, over rows."""
    squares = np.nan_to_num(np.square(missed).sum(2), nan=np.inf)
    rows = np.nonzero(np.isfinite(squares).any(1))[0]
    return _mean(missed[rows, squares[rows].argmin(1)].mean(1))


# -------------------------------------------------------------------------------------------------------------------- round trip


def round_trip(learner: Any, bits: Tensor, seed: int) -> tuple[Finding, Check]:
    """Fingerprints (n, KEYS) of held-out molecules -> strings, without wishes -> their fingerprints."""
    n, nothing = len(bits), torch.full((len(bits), len(WISHES)), torch.nan, device=learner.device)
    asked = bits.numpy()
    direct, valid = _spelled(learner, bits.to(learner.device), nothing, seed)
    code = learner.coding.encode(bits.float().to(learner.device))
    dice = Noise(seed + 1, range(n)).uniform(bits.shape[1]).to(learner.device)
    recoded = dice < learner.coding.logits(code).sigmoid()
    through, valid_through = _spelled(learner, recoded, nothing, seed + 1)
    shuffled = np.roll(np.arange(n), n // 2)
    pairs = fingerprints.tanimoto(asked, asked[shuffled])
    known = learner.profiles.bits.numpy()
    near = fingerprints.tanimoto(asked, known[fingerprints.nearest(asked, known)])
    ours = np.where(valid, fingerprints.tanimoto(asked, direct), 0.0)  # what is no molecule shares nothing
    curves = (_shares(near), _shares(ours), _shares(pairs), np.zeros(len(BINS) - 1))
    finding = scored(
        "fingerprint asked for and fingerprint of the molecule made of it", "share of molecules",
        "Tanimoto similarity of MACCS keys; a string that is no molecule counts as 0. The score is 1 - similarity, the floor 0. Shown as "
        "truth: held-out molecules and their nearest training molecule.", "Tanimoto similarity", (BINS[1:] + BINS[:-1]) / 2,
        curves, 1 - ours, 1 - pairs, 0.0, rival=RANDOM, seed=seed, bars=True,
    )  # fmt: skip
    beside = {
        LOOKED_UP: float(near.mean()), RANDOM: float(pairs.mean()), "valid": float(valid.mean()),
        "of valid ones": _mean(ours[valid]),
        "all keys met": float((asked == direct).all(1).mean()),
        "by way of its code, valid": float(valid_through.mean()),
        "by way of its code, of valid ones": _mean(fingerprints.tanimoto(asked, through)[valid_through]),
    }  # fmt: skip
    value, error = float(ours.mean()), float(ours.std() / np.sqrt(n))
    met = bool(value > near.mean())
    return finding, Check("Tanimoto similarity of asked and achieved fingerprint", value, error, f"above {LOOKED_UP}", met, beside)


def _shares(similarity: Array) -> Array:
    return np.histogram(similarity, BINS)[0] / len(similarity)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else np.nan


def _spelled(learner: Any, bits: Tensor, wish: Tensor, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Fingerprints of strings for fingerprints, and which are molecules."""
    mols = [properties.molecule(s) for s in learner.spelled(bits, wish, range(len(bits)), seed=seed)]
    return fingerprints.keys(mols), np.array([mol is not None for mol in mols])


# ----------------------------------------------------------------------------------------------------------------------- figures


def figures(learner: Any, split: Split[Compounds], seed: int) -> list[Figure]:
    """Asked against achieved, and a path between held-out molecules."""
    count = max(min(ASKED, learner.recipe.draws // 4), 20)
    return [wishes_met(asked_singly(learner, count, seed)), path(learner, split.held_out)]


def wishes_met(found: Singly) -> Figure:
    """One panel for each property: what was asked for, what came."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10.5, 3.4), layout="constrained")
    for k, (axes, (name, unit)) in enumerate(zip(canvas.subplots(1, len(WISHES)), WISHES.items(), strict=True)):
        width = 0.12 * (np.ptp(found.targets[k]) or 1.0)
        for target, row in zip(found.targets[k], found.achieved[k], strict=True):
            row = row[np.isfinite(row)]
            if len(row) > 1:
                axes.boxplot(row, positions=[target], widths=width, showfliers=False, manage_ticks=False, medianprops={"color": "C3"})
        if len(found.unasked):
            low, high = np.percentile(found.unasked[:, k], [10, 90])
            axes.axhspan(low, high, color="0.9", zorder=0, label="draws without wishes, 10 to 90 %")
        ends = np.array([found.targets[k].min() - width, found.targets[k].max() + width])
        axes.plot(ends, ends, color="0.4", lw=1, ls="--", label="as asked")
        axes.set(xlabel=f"{name} asked for" + (f" ({unit})" if unit else ""), ylabel=f"{name} of the molecules drawn")
    canvas.axes[0].legend(fontsize=7, frameon=False)
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130, metadata={"Software": None})
    caption = "Boxes: middle half of the valid molecules, whiskers 1.5 times that. One property is asked for at a time."
    return Figure("Asked for, and achieved", caption, file.getvalue())


def path(learner: Any, held_out: Compounds) -> Figure:
    """Between two held-out molecules, at the likeliest string of each point."""
    from simulacra import movie
    from simulacra.sciences.drugs import pictures

    ends = held_out[[0, len(held_out) // 2]]
    steps = latent_path(learner.encode(ends), 14)[:8]  # a loop: there, and back
    found = texts(learner.decode(steps))
    shown = Compounds(as_bytes(found), torch.zeros(len(found), 0, dtype=torch.uint8), torch.full((len(found), len(WISHES)), torch.nan))
    caption = f"From {shortened(texts(ends)[0])} to {shortened(texts(ends)[1])}, in eight steps along a great circle."
    return Figure("A path through the codes", caption, movie.png(movie_sheet(pictures.picture(shown))))


def movie_sheet(pictures: NDArray[Any], columns: int = 4) -> NDArray[Any]:
    """Images (n, h, w, 3) in rows of `columns`, (H, W, 3)."""
    n, h, w, _ = pictures.shape
    sheet = np.ones((-(-n // columns) * h, columns * w, 3))
    for i, one in enumerate(pictures):
        top, left = i // columns * h, i % columns * w
        sheet[top : top + h, left : left + w] = one
    return sheet
