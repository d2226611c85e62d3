"""What tuning on actives is worth: which other actives are drawn, what is only given back, and how far the draws moved.

With A the actives that were learned from, H other known actives that were not, D as many draws of the tuned writer as of the untuned prior,
and T the Tanimoto similarity of Morgan fingerprints of radius 2 in 1,024 bits (measuring.py):

    drawn exactly      share of H that is in D, flat molecules (properties.flat)
    drawn nearly       share of H with some T >= .7 in D
    nearness           mean over H of the largest T in D
    returned           share of A that is in D; and share of D that is in A
    towards A          mean over D of the largest T in A, beside that of the prior's draws and of H

Errors are of a bootstrap over H (for the last over D): with few known actives they are what limits every claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Check
from simulacra.sciences.drugs import metrics
from simulacra.sciences.drugs.measuring import IDENTITY, Table, measure

Array = NDArray[np.float64]
NEAR = 0.7
RESAMPLED = 2000
FEWEST = 5  # held-out actives from which on something can be said


@dataclass(frozen=True)
class Recovered:
    """What one set of draws holds of the held-out actives, one number per active."""

    exactly: Array  # (h,) 0 or 1
    nearest: Array  # (h,) largest similarity

    @property
    def nearly(self) -> Array:
        """Which are drawn up to similarity NEAR, (h,) 0 or 1."""
        return (self.nearest >= NEAR).astype(float)


def recovered(drawn: Table, held: Table) -> Recovered:
    """What `drawn` holds of `held`."""
    names = set(drawn.flat[drawn.valid].tolist())
    exactly = np.array([name in names for name in held.flat.tolist()], float)
    return Recovered(exactly, metrics.nearest(held.bits, drawn.bits[drawn.valid]))


def returned(drawn: Table, actives: Table) -> tuple[float, float]:
    """Share of the actives that were drawn, and share of the draws that are one of them."""
    names, known = drawn.flat[drawn.valid].tolist(), set(actives.flat.tolist())
    return len(known & set(names)) / max(len(known), 1), sum(name in known for name in names) / max(len(drawn), 1)


def difference(tuned: Array, untuned: Array, rng: np.random.Generator) -> tuple[float, float, float]:
    """Standard error of the mean of `tuned`, and the 95 % interval of the difference of means, over the same things."""
    rows = rng.integers(len(tuned), size=(RESAMPLED, len(tuned)))
    apart = tuned[rows].mean(1) - untuned[rows].mean(1)
    low, high = np.quantile(apart, [0.025, 0.975])
    return float(tuned[rows].mean(1).std()), float(low), float(high)


def checks(actives: Sequence[str], held: Sequence[str], tuned: Sequence[str], untuned: Sequence[str] | None, seed: int) -> list[Check]:
    """The checks of a tuned writer; without `untuned` draws nothing is compared. `held` may be empty: then no active is known but those
    that were learned from."""
    rng = np.random.default_rng([seed, 0xAC])
    known, others, mine = (measure(list(strings), (IDENTITY,)) for strings in (actives, held, tuned))
    plain = measure(list(untuned), (IDENTITY,)) if untuned is not None else None
    out = [*_given_back(known, mine, plain), _moved(known, others, mine, plain)]
    if len(others) >= FEWEST and plain is not None:
        out += _found(recovered(mine, others), recovered(plain, others), len(tuned), rng)
    return out


def _found(mine: Recovered, plain: Recovered, n: int, rng: np.random.Generator) -> list[Check]:
    out = []
    for name, one, other in (
        (f"held-out actives drawn exactly, of {len(mine.exactly)}, in {n:,} draws", mine.exactly, plain.exactly),
        (f"held-out actives drawn up to Tanimoto {NEAR}", mine.nearly, plain.nearly),
        ("similarity of a held-out active to the nearest draw", mine.nearest, plain.nearest),
    ):
        error, low, high = difference(one, other, rng)
        beside = {"untuned prior": float(other.mean()), "gain, 2.5 %": low, "gain, 97.5 %": high}
        out.append(Check(name, float(one.mean()), error, "above the untuned prior at as many draws", low > 0, beside))
    return out


def _given_back(known: Table, mine: Table, plain: Table | None) -> list[Check]:
    of_actives, of_draws = returned(mine, known)
    error = float(np.sqrt(of_draws * (1 - of_draws) / max(len(mine), 1)))
    before = {} if plain is None else dict(zip(("actives", "draws"), returned(plain, known), strict=True))
    more = {"share of the actives that were drawn": of_actives}
    if before:
        more |= {"untuned prior": before["draws"], "untuned prior, of the actives": before["actives"]}
    return [Check("draws that are actives learned from, verbatim", of_draws, error, "below 0.1", of_draws < 0.1, more)]


def _moved(known: Table, others: Table, mine: Table, plain: Table | None) -> Check:
    near = metrics.nearest(mine.bits[mine.valid], known.bits)
    beside = {}
    if plain is not None:
        beside["untuned prior"] = float(metrics.nearest(plain.bits[plain.valid], known.bits).mean())
    if len(others):
        beside["held-out"] = float(metrics.nearest(others.bits, known.bits).mean())
    value = float(near.mean()) if len(near) else 0.0
    error = float(near.std() / np.sqrt(len(near))) if len(near) else float("nan")
    met = value > beside.get("untuned prior", -1.0)
    return Check("similarity of a draw to the nearest active learned from", value, error, "above the untuned prior", met, beside)
