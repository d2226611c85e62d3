"""What a dial of diversity does: variants of many prototypes at each of its values, held against their prototypes.

    similarity     Tanimoto similarity of Morgan fingerprints of radius 2 (ECFP4) between a variant and its prototype
    validity       share of strings that RDKit reads as a molecule
    same           share that is the prototype itself; at 0, the rate of reconstruction
    uniqueness     different molecules among the valid variants of one prototype, as a share of them, averaged over prototypes
    novelty        share of valid variants that are not among the training molecules

The dial is honest where similarity falls and uniqueness rises along it while most strings remain molecules. The unit is the prototype.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from simulacra.evidence import Check, Figure, Finding, scored
from simulacra.sciences.drugs import measuring
from simulacra.study import Refused

Array = NDArray[np.float64]

PROTOTYPES, EACH = 200, 5  # variants of each prototype at each value
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
SHOWN = 4  # prototypes in the picture
BAR = 0.5  # of reconstruction


@dataclass(frozen=True)
class Calibration:
    """Variants of n prototypes, `each` at each of k values of the dial."""

    values: Array  # (k,)
    prototypes: Sequence[str]  # n
    variants: Sequence[Sequence[str]]  # k lists of n * each strings, those of one prototype together
    valid: NDArray[np.bool_]  # (k, n, each)
    same: NDArray[np.bool_]  # (k, n, each)
    similarity: Array  # (k, n, each) to the prototype; 0 where the variant is no molecule
    to_another: Array  # (k, n, each) to another prototype, the next one
    unique: Array  # (k, n) nan where no variant is valid
    novel: Array  # (k, n) nan where no variant is valid
    prior_valid: NDArray[np.bool_]  # (n, each) of strings that were drawn without a prototype

    def quartiles(self) -> Array:
        """Quartiles (3, k) of the similarity of valid variants; nan where there are none."""
        rows = [s[v] for s, v in zip(self.similarity, self.valid, strict=True)]
        return np.array([np.quantile(row, [0.25, 0.5, 0.75]) if len(row) else [np.nan] * 3 for row in rows]).T

    def table(self) -> list[dict[str, float]]:
        """One row per value of the dial: quartiles of similarity, and shares."""
        low, middle, high = self.quartiles()
        return [
            {
                "diversity": float(self.values[k]), "valid": float(self.valid[k].mean()), "same": float(self.same[k].mean()),
                "similarity 25 %": low[k], "similarity": middle[k], "similarity 75 %": high[k], "unique": _mean(self.unique[k]),
                "novel": _mean(self.novel[k]),
            }
            for k in range(len(self.values))
        ]  # fmt: skip


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def calibrated(
    prototypes: Sequence[str], variants: Mapping[float, Sequence[str]], from_prior: Sequence[str], training: Collection[str]
) -> Calibration:
    """Measure `variants`: for each value of the dial as many of each prototype, those of one together; `training` holds canonical
    SMILES."""
    n, values = len(prototypes), sorted(variants)
    each = len(variants[values[0]]) // n
    if n < 2 or any(len(variants[v]) != n * each for v in values):
        raise Refused("a dial is calibrated on two or more prototypes, with as many variants of each at every value")
    groups = [list(prototypes), list(from_prior), *(list(variants[v]) for v in values)]
    place = {one: i for i, one in enumerate(dict.fromkeys(one for group in groups for one in group))}
    whole = measuring.measure(list(place), (measuring.IDENTITY,))  # together, each string once: starting processes takes seconds
    known, unled, *found = (whole[[place[one] for one in group]] for group in groups)
    own, other = np.repeat(np.arange(n), each), np.repeat((np.arange(n) + 1) % n, each)
    valid = np.stack([t.valid for t in found]).reshape(-1, n, each)
    novel = np.stack([[bool(c) and c not in training for c in t.canonical.tolist()] for t in found]).reshape(-1, n, each)
    unique = np.stack([[len({c for c in row if c}) for row in t.canonical.reshape(n, each).tolist()] for t in found])
    some = np.where(valid.any(2), valid.sum(2), np.nan)
    return Calibration(
        np.array(values, float), list(prototypes), [list(variants[v]) for v in values], valid,
        np.stack([t.canonical == known.canonical[own] for t in found]).reshape(-1, n, each) & valid,
        np.stack([tanimoto(t.bits, known.bits[own]) for t in found]).reshape(-1, n, each),
        np.stack([tanimoto(t.bits, known.bits[other]) for t in found]).reshape(-1, n, each),
        unique / some, novel.sum(2) / some,
        unled.valid[: n * each].reshape(n, -1),
    )  # fmt: skip


def tanimoto(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Array:
    """Tanimoto similarity (n,) of packed bits, row by row; 0 where both have none."""
    both = np.bitwise_count(one & other).sum(-1, dtype=np.int64)
    either = np.bitwise_count(one | other).sum(-1, dtype=np.int64)
    return np.where(either > 0, both / np.maximum(either, 1), 0.0)


def findings(found: Calibration, diversity: float, seed: int) -> tuple[list[Finding], list[Check]]:
    """Similarity and validity along the dial; scores are taken at the value nearest to `diversity`."""
    at = int(np.abs(found.values - diversity).argmin())
    n = len(found.prototypes)
    low, _, high = found.quartiles()
    where = f"at diversity {found.values[at]:g}"
    similar = scored(
        "similarity to the prototype", "ECFP4 Tanimoto",
        f"Mean of 1 - similarity between variants and their held-out prototype {where}, strings that are no molecule counting as 1; "
        "the curve is over the dial. The floor, 0, is the prototype itself.", "diversity", found.values,
        (np.ones(len(found.values)), found.similarity.mean((1, 2)), found.to_another.mean((1, 2)), _error(found.similarity)),
        1 - found.similarity[at].mean(1), 1 - found.to_another[at].mean(1), 0.0, rival="variants of another prototype", seed=seed,
    )  # fmt: skip
    whole = scored(
        "variants that are no molecule", "share", f"Share of strings {where} that RDKit does not read; the floor is 0.", "diversity",
        found.values,
        (
            np.zeros(len(found.values)), 1 - found.valid.mean((1, 2)), np.full(len(found.values), 1 - found.prior_valid.mean()),
            _error(found.valid),
        ),
        1 - found.valid[at].mean(1), 1 - found.prior_valid.mean(1), 0.0, rival="codes from the prior, without a prototype", seed=seed,
    )  # fmt: skip
    again = found.same[0].mean(1)
    beside = {f"valid at {v:g}": float(found.valid[k].mean()) for k, v in enumerate(found.values)}
    checks = [
        Check(
            f"reconstruction of held-out prototypes at diversity {found.values[0]:g} (share)", float(again.mean()),
            float(again.std() / math.sqrt(n)), f"at least {BAR:g}", bool(again.mean() >= BAR), beside,
        ),
        Check(
            "width of the quartiles of similarity along the dial", float(np.nanmean(high - low)), math.nan,
            "medians fall from each value of the dial to the next", monotone(found),
            {f"median at {v:g}": float(m) for v, m in zip(found.values, found.quartiles()[1], strict=True) if np.isfinite(m)},
        ),
    ]  # fmt: skip
    return [similar, whole], checks


def monotone(found: Calibration) -> bool:
    """Whether the median similarity falls all along the dial."""
    middle = found.quartiles()[1]
    return bool(np.all(np.diff(middle[np.isfinite(middle)]) <= 0) and np.isfinite(middle).sum() > 1)


def _error(values: NDArray[Any]) -> Array:
    """Standard error (k,) of the mean over prototypes."""
    means = values.astype(float).mean(2)
    return np.asarray(means.std(1) / math.sqrt(means.shape[1]))


# ------------------------------------------------------------------------------------------------------------------ pictures


def figures(found: Calibration) -> list[Figure]:
    """The curves, and variants of the first prototypes along the dial."""
    return [
        Figure(
            "What the dial does", f"{len(found.prototypes)} held-out prototypes, {found.valid.shape[2]} variants of each at every "
            "diversity: similarity to the prototype (median, quartiles), and shares of strings.", _curves(found),
        ),
        Figure(
            "Variants along the dial", "Held-out prototypes, none chosen (left), and one variant of each at rising diversity, with its "
            "similarity; an empty place: no molecule.", variants(found),
        ),
    ]  # fmt: skip


def _curves(found: Calibration) -> bytes:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    low, middle, high = found.quartiles()
    left.fill_between(found.values, low, high, color="#145aaa", alpha=0.2, linewidth=0)
    left.plot(found.values, middle, color="#145aaa", marker="o", label="to its prototype")
    left.plot(found.values, found.to_another.mean((1, 2)), color="0.5", linestyle="--", label="to another prototype, mean")
    left.set(xlabel="diversity", ylabel="ECFP4 Tanimoto", ylim=(0, 1.02))
    left.legend(frameon=False)
    table = found.table()
    for name, ink in (("valid", "#145aaa"), ("same", "#c83c1e"), ("unique", "#3a8a3a"), ("novel", "#8a5a00")):
        right.plot(found.values, [row[name] for row in table], color=ink, marker="o", label=name)
    right.set(xlabel="diversity", ylabel="share", ylim=(0, 1.02))
    right.legend(frameon=False)
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=130)
    return file.getvalue()


def variants(found: Calibration, shown: int = SHOWN) -> bytes:
    """A PNG: a row per prototype, the prototype first, then its first variant at each value of the dial."""
    from rdkit.Chem.Draw import rdMolDraw2D

    each, columns = found.valid.shape[2], len(found.values) + 1
    mols, legends = [], []
    with rdBase.BlockLogs():
        for row in range(min(shown, len(found.prototypes))):
            mols.append(Chem.MolFromSmiles(found.prototypes[row]))
            legends.append("prototype")
            for k, value in enumerate(found.values):
                mol = Chem.MolFromSmiles(found.variants[k][row * each])
                mols.append(mol if mol is not None else Chem.Mol())
                legends.append(f"{value:g}: {found.similarity[k, row, 0]:.2f}" if mol is not None else f"{value:g}: no molecule")
    canvas: Any = rdMolDraw2D.MolDraw2DCairo(190 * columns, 170 * (len(mols) // columns), 190, 170)
    canvas.drawOptions().legendFontSize = 14
    canvas.DrawMolecules(mols, legends=legends)
    canvas.FinishDrawing()
    return bytes(canvas.GetDrawingText())
