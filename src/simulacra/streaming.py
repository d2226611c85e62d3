"""Millions of draws into one text file: block by block, in as many processes as there are cores, memory for a few blocks only.

What is finished lies in `<file>.part`, with a ledger beside it that says of which draw it is and how far it came. The same command goes
on where the last one stopped, and ends with the same file, because a row depends on the seed and its number alone. Nothing
bears the name that was asked for before it is complete.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simulacra import drawing, study
from simulacra.pipeline import Watch, draw_like
from simulacra.runs import write_atomically
from simulacra.study import Refused
from simulacra.training import device_of, stop_requests

BLOCK = 5_000
FROM = 20_000  # rows from which a file is written in blocks

Block = tuple[str, dict[str, int]]  # lines, and what was counted of their rows


@dataclass(frozen=True)
class Order:
    """What is to be drawn: `what` names a run or a study, `changes` are of the recipe's fields of drawing."""

    what: str
    changes: Mapping[str, Any]
    conditions: Mapping[str, str]
    seed: int
    rows: int
    ending: str
    block: int = BLOCK  # rows that one process draws at a time

    def key(self, sentence: str) -> str:
        """What two orders share if one goes on with the other's file; how many rows are wanted is no part of it."""
        changes, conditions = sorted(self.changes.items()), sorted(self.conditions.items())
        text = json.dumps([sentence, changes, conditions, self.seed, self.ending, self.block], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """How far a stream came."""

    rows: int
    finished: bool
    counts: Mapping[str, int]  # of all rows, by the study's `tally`

    def lines(self) -> list[str]:
        """The counts in words."""
        return [f"{count:,} of {self.rows:,} {what}" for what, count in self.counts.items()]


def fits(source: drawing.Source, out: Path, rows: int) -> bool:
    """Whether so many rows are written into such a file in blocks."""
    return rows >= FROM and source.asked.lines is not None and out.suffix.lower() in source.asked.line_formats


def stream(source: drawing.Source, order: Order, out: Path, *, workers: int = 0, watch: Watch | None = None) -> Outcome:
    """Write `order.rows` rows to `out`, in `workers` processes (0: one per core), and go on with what an earlier call left.

    Stops, with everything kept, on SIGINT or SIGTERM. Raises Refused where the folder is missing or the unfinished file is of another draw.
    """
    drawing.check_folder(out)
    part, ledger = out.with_name(f"{out.name}.part"), out.with_name(f"{out.name}.part.json")
    key = order.key(source.sentence())
    done, size, counts = _so_far(part, ledger, key, order)
    began, start = time.monotonic(), done
    with stop_requests() as stop, open(part, "r+b" if part.exists() else "w+b") as file:
        file.truncate(size)
        file.seek(size)
        if not size and source.asked.header:
            file.write(source.asked.header(order.ending).encode())
        for text, more in _blocks(source, order, done, workers or os.cpu_count() or 1):
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            done = min(done + order.block, order.rows)
            counts.update(more)
            state = {"draw": key, "rows": done, "bytes": file.tell(), "counts": counts}
            write_atomically(ledger, json.dumps(state).encode())
            if watch:
                watch(done, {}, (done - start) / max(time.monotonic() - began, 1e-9))
            if stop and done < order.rows:
                return Outcome(done, False, counts)
    os.replace(part, out)
    ledger.unlink(missing_ok=True)
    return Outcome(done, True, counts)


def _so_far(part: Path, ledger: Path, key: str, order: Order) -> tuple[int, int, Counter[str]]:
    """Rows, bytes and counts of an unfinished file that this draw may go on with."""
    if not part.exists() or not ledger.exists():
        return 0, 0, Counter()
    try:
        state = json.loads(ledger.read_text(encoding="utf-8"))
        rows, size, counts = int(state["rows"]), int(state["bytes"]), Counter({str(k): int(v) for k, v in state["counts"].items()})
        same = state["draw"] == key
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{ledger} is damaged ({error}); delete it and {part.name} to draw from the start") from error
    if not same:
        raise Refused(f"{part} is of another draw (other weights, seed, conditions or settings); delete it, or choose another name")
    if rows % order.block or rows > order.rows or part.stat().st_size < size:
        raise Refused(f"{part} does not hold what {ledger.name} says; delete both to draw from the start")
    return rows, size, counts


def _blocks(source: drawing.Source, order: Order, done: int, workers: int) -> Iterator[Block]:
    """One block after another, in order."""
    starts = range(done, order.rows, order.block)
    if workers == 1 or len(starts) == 1 or device_of(source.recipe.device).type != "cpu":
        writer = _Writer(source, order)
        for start in starts:
            yield writer(start)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that torch's threads hold
    with ProcessPoolExecutor(min(workers, len(starts)), context, initializer=_prepare, initargs=(source.name, order)) as pool:
        waiting: deque[Future[Block]] = deque()
        try:
            for start in starts:
                waiting.append(pool.submit(_drawn, start))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Writer:
    """Draws the rows from a start on, a block of them, on one thread: more would only wait for each other."""

    def __init__(self, source: drawing.Source, order: Order) -> None:
        torch.set_num_threads(1)
        self.source, self.order, self.learner = source, order, source.learner()
        self.like = drawing.template(source, self.learner, order.rows, order.conditions)

    def __call__(self, start: int) -> Block:
        asked = self.source.asked
        like = self.like[start : start + self.order.block]
        drawn = draw_like(self.learner, like, seed=self.order.seed, device=device_of(self.source.recipe.device), first=start)
        assert asked.lines  # `fits` asked for it
        return asked.lines(drawn, self.order.ending), dict(asked.tally(drawn)) if asked.tally else {}


_writer: _Writer | None = None


def _prepare(name: str, order: Order) -> None:
    """Open the same source in a process of its own; the study was found by name before, so a run folder may name it here, too."""
    global _writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and lets every block be finished
    study.find(name)
    _writer = _Writer(drawing.opened(order.what).changed(order.changes), order)


def _drawn(start: int) -> Block:
    assert _writer
    return _writer(start)
