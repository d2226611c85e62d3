"""What the folders of judged runs hold, put side by side for `report.comparison`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulacra.pipeline import command_of, recipe_of, restored, spread
from simulacra.report.comparison import MOST, SHOWN, Comparison, Entry
from simulacra.runs import Run
from simulacra.study import Refused, Ships


def comparison(paths: Sequence[Path]) -> Comparison:
    """The runs in these folders, in this order. Refused where one was not judged, and for more than `MOST` or the same one twice."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise Refused("a run is named twice; name each once")
    if len(paths) > MOST:
        raise Refused(f"{len(paths)} runs are more than can be told apart in one picture; compare at most {MOST} at a time")
    return Comparison([_entry(Run.open(path), name) for path, name in zip(paths, names(paths), strict=True)])


def names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart: folder names, with as many parents as that takes."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        ends = [os.sep.join(part[-count:]) for part in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def _entry(run: Run, name: str) -> Entry:
    evidence = run.evidence()
    asked, recipe = recipe_of(run)
    about, environment, lock, times = run.about(), run.read_json("environment.json"), run.read_json("data.lock"), run.times()
    nature = asked.read(run.path / "drawn" / "nature.npz")
    drawn = spread(asked.read(run.path / "drawn" / "samples.npz"), len(nature))
    trained, to_draw = _sizes(run, asked)
    return Entry(
        name, about["study"], about["name"], evidence, files=lock["files"], origin=lock["origin"], steps=recipe.steps, batch=recipe.batch,
        seconds=times.get("training_seconds"), drawn_per_second=times.get("drawn_per_second"), trained=trained, to_draw=to_draw,
        machine=_machine(environment), nature=asked.picture(nature[:SHOWN]), drawn=asked.picture(drawn[:SHOWN]),
        captions=asked.caption(nature[:SHOWN]) if asked.caption else (), command=command_of(asked, about),
    )  # fmt: skip


def _sizes(run: Run, asked: Any) -> tuple[int | None, int | None]:
    """Numbers in the weights of all networks that were trained, and those that drawing needs; None where that is not known."""
    try:
        state = run.state()[1]
        learner = restored(run)[2] if asked.restore else None
    except Refused:  # checkpoints take room: a run without them can still be compared
        return None, None
    trained = sum(value.numel() for name, value in state.items() if "weights" in name.split("."))
    to_draw = sum(value.numel() for value in learner.to_ship().values()) if isinstance(learner, Ships) else None
    return trained or None, to_draw


def _machine(environment: dict[str, Any]) -> str:
    threads = environment.get("threads")
    where = environment.get("gpu") or environment.get("processor") or ""
    return f"{where}, {threads} thread{'s' * (threads != 1)}" if where and threads else str(where)
