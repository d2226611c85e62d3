"""Small trained weights that ship with the package: one folder per study, named after it.

    weights/molecules.flow/card.json            what was trained, on which data, how long, on what machine, and how well it does
    weights/molecules.flow/weights.safetensors  its state, as far as drawing needs it; the card holds its sha256

`simulacra ship RUN` writes such a folder from a finished run. Nothing in it is ever run: the card names the study, the study makes
the learner (`Study.restore`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulacra import __version__
from simulacra.evidence import Evidence
from simulacra.runs import Damaged, Run, write_atomically
from simulacra.study import Refused

if TYPE_CHECKING:
    from torch import Tensor

PLACE = Path(__file__).parent
LARGEST = 12_000_000  # bytes: what a package may carry for each study
CARD, WEIGHTS = "card.json", "weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A folder with a card and weights."""

    path: Path
    card: Mapping[str, Any]

    @property
    def study(self) -> str:
        """Name of the study, as the card has it."""
        return str(self.card["study"])

    def state(self) -> dict[str, Tensor]:
        """The weights. Damaged where they are not those that the card was written for."""
        from safetensors.torch import load

        path, expected = self.path / WEIGHTS, self.card["weights"]["sha256"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path} cannot be read ({error}); install simulacra again, or ship the run again") from error
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise Damaged(
                f"{path} is not what its card describes: sha256 is {found[:12]}..., the card says {str(expected)[:12]}...; "
                "install simulacra again, or ship the run again"
            )
        state: dict[str, Tensor] = load(content)
        return state

    def sentence(self) -> str:
        """Which weights these are, in one line."""
        made, weights = self.card["training"], self.card["weights"]
        return (
            f"weights of {self.study}, recipe {self.card['recipe_name']}: {made['steps']} steps in {made['minutes']:g} min on "
            f"{made['machine']['processor'] or 'an unknown processor'}{_gpu(made['machine'])}; {self.card['data']['origin']}; "
            f"{weights['parameters']:,} numbers, {weights['bytes'] / 1e6:.1f} MB, sha256 {weights['sha256'][:12]}"
        )


def names() -> list[str]:
    """Studies whose weights ship with this package."""
    return sorted(path.parent.name for path in PLACE.glob(f"*/{CARD}"))


def find(name: str) -> Shipped:
    """The weights that ship for the study `name`; Refused with what to do where none do."""
    if name not in names():
        have = f"; there are some of {', '.join(names())}" if names() else ""
        raise Refused(f"no weights ship for {name}{have}. Train it (`simulacra run {name}`), then draw from the run folder")
    return read(PLACE / name)


def read(folder: Path) -> Shipped:
    """The folder's card, checked to be one; the weights are read and checked when they are needed."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        shipped = Shipped(folder, card)
        shipped.sentence()
        dict(card["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / CARD} is no card of trained weights ({type(error).__name__}: {error})") from error
    return shipped


def write(folder: Path, run: Run, state: Mapping[str, Tensor]) -> Shipped:
    """A folder with `state` and the card of `run`. Refused where the weights are larger than LARGEST."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    if len(content) > LARGEST:
        raise Refused(
            f"the weights take {len(content) / 1e6:.1f} MB, and at most {LARGEST / 1e6:.0f} MB are shipped; train a smaller network, or "
            "let the learner's `to_ship` keep less (averaged weights only, half precision)"
        )
    card = _card(run, content, sum(v.numel() for v in state.values()))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / CARD, (json.dumps(card, indent=1, allow_nan=False) + "\n").encode())
    return Shipped(folder, card)


def _card(run: Run, weights: bytes, parameters: int) -> dict[str, Any]:
    about, lock, machine = run.about(), run.read_json("data.lock"), run.read_json("environment.json")
    machine.pop("command", None)  # it may name folders of whoever trained
    card = {
        "study": about["study"], "recipe_name": about["name"], "recipe": about["recipe"],
        "data": {"origin": lock["origin"], "files": lock["files"]},
        "training": {"steps": run.newest_step(), "minutes": round(run.seconds() / 60, 1), "machine": machine},
        "verdict": _headline(run.evidence()),
        "weights": {"file": WEIGHTS, "bytes": len(weights), "parameters": parameters, "sha256": hashlib.sha256(weights).hexdigest()},
        "simulacra": __version__,
    }  # fmt: skip
    return _without_folders(card, about["recipe"].get("data"))


def _headline(evidence: Evidence) -> dict[str, Any]:
    """Every gap with its interval, worst first, every check with its target, and what must be read with them."""
    finite = [f for f in evidence.worst_first() if f.gap == f.gap and abs(f.gap) != float("inf")]
    return {
        "p": evidence.p, "held_out": evidence.nature_rows, "drawn": evidence.drawn_rows,
        "gaps": {f.name: [_short(f.gap), _short(f.gap_low), _short(f.gap_high)] for f in finite},
        "checks": {c.name: {"value": _short(c.value), "target": c.target, "met": c.met} for c in evidence.checks},
        "remarks": list(evidence.remarks),
    }  # fmt: skip


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if abs(value) < float("inf") else None


def _without_folders(card: dict[str, Any], data: str | None) -> dict[str, Any]:
    """The card with the trainer's data file, and what lies beside it, by name alone: folders say nothing to others."""
    if not data:
        return card
    text = json.dumps(card).replace(json.dumps(data)[1:-1], json.dumps(Path(data).name)[1:-1])
    if Path(data).parent != Path():
        text = text.replace(json.dumps(f"{Path(data).parent}{os.sep}")[1:-1], "")
    cleaned: dict[str, Any] = json.loads(text)
    return cleaned


def _gpu(machine: Mapping[str, Any]) -> str:
    return f" and {machine['gpu']}" if machine.get("gpu") else ""
