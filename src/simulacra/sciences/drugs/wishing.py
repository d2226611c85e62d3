"""Wished properties: what may be wished for, how wishes are written, and what training molecules had.

    logP=2.5                      a target; several properties are separated by commas: logP=2.5,QED=0.8
    logP=1,2,3                    several targets of one property are spread over the rows
    solubility=-3                 what is not named is not asked for (nan)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simulacra.sciences.drugs import properties
from simulacra.sciences.drugs.data import WISHES, Compounds, texts
from simulacra.study import Refused

# What a molecule can have at all. QED is a geometric mean of shares; the others bound what drug-like molecules come near to.
BOUNDS: Mapping[str, tuple[float, float]] = {"logP": (-15.0, 20.0), "QED": (0.0, 1.0), "solubility": (-20.0, 5.0)}
CONDITIONS: Mapping[str, str] = {
    "wish": "wished property, e.g. logP=2.5; repeat it for more, or give several targets, logP=1,2,3; known: "
    + ", ".join(f"{name} ({unit})" if unit else name for name, unit in WISHES.items())
}


@dataclass(frozen=True)
class Range:
    """What the wished properties were in training molecules, (len(WISHES),) each."""

    centre: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Range:
        """From properties (n, len(WISHES))."""
        return cls(values.mean(0), values.std(0).clamp_min(1e-6), values.amin(0), values.amax(0))

    def standard(self, wish: Tensor) -> Tensor:
        """Wishes (n, len(WISHES)) in standard deviations from the mean of training; nan stays nan."""
        return (wish - self.centre.to(wish)) / self.spread.to(wish)

    def warn(self, wish: Tensor) -> None:
        """A warning for each property that is asked for where training had nothing."""
        for k, (name, unit) in enumerate(WISHES.items()):
            wanted = wish[:, k][~wish[:, k].isnan()]
            low, high = float(self.low[k]), float(self.high[k])
            far = wanted[(wanted < low) | (wanted > high)]
            if len(far):
                held = f"training molecules had {low:.3g} to {high:.3g} {unit}".strip()
                warnings.warn(f"wish {name}={far[0]:.4g}: {held}; draws will stay near what was learned", stacklevel=3)

    def state(self) -> Tensor:
        """As (4, len(WISHES))."""
        return torch.stack([self.centre, self.spread, self.low, self.high])


def ask(n: int, conditions: Mapping[str, str]) -> Compounds:
    """A template of n rows with the wishes of `conditions`. Refused where a wish is unknown, no number, or impossible."""
    unknown = sorted(set(conditions) - set(CONDITIONS))
    if unknown:
        raise Refused(f"drugs.aae cannot be asked for {', '.join(unknown)}; it takes --wish NAME=VALUE of {', '.join(WISHES)}")
    if n < 1:
        raise Refused(f"{n} molecules asked for; expected one or more")
    wish = torch.full((n, len(WISHES)), torch.nan)
    for name, targets in parsed(conditions.get("wish", "")).items():
        wish[:, list(WISHES).index(name)] = torch.tensor(targets)[torch.arange(n) * len(targets) // n]
    return Compounds(torch.zeros(n, 0, dtype=torch.uint8), torch.zeros(n, 0, dtype=torch.uint8), wish)


def parsed(text: str) -> dict[str, list[float]]:
    """Wishes as they are written. Refused with what can be wished for."""
    found: dict[str, list[float]] = {}
    name = ""
    for part in filter(None, (p.strip() for p in text.split(","))):
        before, equals, value = part.rpartition("=")
        name = _named(before.strip(), part) if equals else name
        if not name:
            raise Refused(f"wish {part!r}: expected NAME=VALUE, such as logP=2.5; known: {', '.join(WISHES)}")
        found.setdefault(name, []).append(_target(name, value))
    return found


def _named(word: str, part: str) -> str:
    known = {name.lower(): name for name in WISHES}
    if word.lower() not in known:
        raise Refused(f"wish {part!r}: there is no property {word!r} to wish for; known: {', '.join(WISHES)}")
    return known[word.lower()]


def _target(name: str, value: str) -> float:
    try:
        target = float(value)
    except ValueError:
        raise Refused(f"wish {name}={value}: expected a number, such as {name}={0.8 if name == 'QED' else 2.5}") from None
    low, high = BOUNDS[name]
    if not math.isfinite(target) or not low <= target <= high:
        raise Refused(f"wish {name}={value}: no molecule has that; {name} lies between {low:g} and {high:g} {WISHES[name]}".rstrip())
    return target


def achieved(drawn: Compounds) -> NDArray[np.float64]:
    """Properties (n, len(WISHES)) of drawn molecules; nan where a string is none."""
    return properties.measured([properties.molecule(s) for s in texts(drawn)], list(WISHES))


def nearest(attempts: Sequence[Sequence[str]], wish: Tensor, held: Range) -> list[str]:
    """Of several strings for each row (attempts, n) the one whose molecule misses the row's wishes (n, len(WISHES)), in standard
    deviations, by the least squares; the first where none is a molecule."""
    asked = (~wish.isnan()).cpu()
    names = [name for k, name in enumerate(WISHES) if bool(asked[:, k].any())]
    missed = torch.full((len(attempts), len(wish)), torch.inf)
    for row, strings in zip(missed, attempts, strict=True):
        got = torch.full(wish.shape, torch.nan)
        got[:, [list(WISHES).index(name) for name in names]] = torch.from_numpy(
            properties.measured([properties.molecule(s) for s in strings], names)
        ).float()
        off = torch.where(asked, held.standard(got) - wish.cpu(), 0.0).square().sum(1)
        row[~off.isnan()] = off[~off.isnan()]
    return [attempts[k][i] for i, k in enumerate(missed.argmin(0).tolist())]
