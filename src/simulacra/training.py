"""The one loop.

The loop owns the order of batches, history, checkpoints, limits and divergence; it knows no model. Shuffles derive from
(seed, epoch) and a step's noise from (seed, step), so a run that was killed anywhere and resumed from its last checkpoint
goes through the same states, bit for bit, as one that was not (same platform, same number of threads).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from simulacra.runs import Run
from simulacra.study import Learner, Refused, Samples

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
WATCH = 20  # steps between looks at the losses: reading a number from a GPU waits for it


class Diverged(RuntimeError):
    """A loss or a weight is no longer finite; the last good state is on disk."""


def device_of(choice: str) -> torch.device:
    """The device that a recipe's `device` field names."""
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if choice == "cuda" and not torch.cuda.is_available():
        raise Refused("recipe asks for device 'cuda' but torch sees no GPU; use device 'cpu' or 'auto'")
    return torch.device(choice)


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products that a recipe's `precision` field names; auto: bfloat16 where the processor has it. Nothing is learned in
    int8, which is for drawing alone: to learn, it is as auto."""
    fast = device.type == "cuda" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.bfloat16 if precision == "bfloat16" or (precision in ("auto", "int8") and fast) else torch.float32


def epoch_order(samples: Samples, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """Row indices of the batches of one epoch: every row at most once, all batches full, one bucket per batch."""
    rng = torch.Generator().manual_seed(_mixed(seed, 1, epoch))
    bucket = getattr(samples, "bucket", None)
    groups = [torch.arange(len(samples))] if bucket is None else [torch.nonzero(bucket == b).flatten() for b in bucket.unique()]
    batches: list[Tensor] = []
    for rows in groups:
        shuffled = rows[torch.randperm(len(rows), generator=rng)]
        size = min(batch, len(rows))
        batches += list(shuffled[: len(rows) // size * size].reshape(-1, size))
    return [batches[i] for i in torch.randperm(len(batches), generator=rng).tolist()]


def batches_from(samples: Samples, batch: int, seed: int, step: int) -> Iterator[Tensor]:
    """Row indices for steps `step`, `step` + 1, ...: the same for every run with this seed, wherever it starts."""
    per_epoch = len(epoch_order(samples, batch, seed, 0))
    while True:
        epoch, position = divmod(step, per_epoch)
        for rows in epoch_order(samples, batch, seed, epoch)[position:]:
            yield rows
            step += 1


@dataclass(frozen=True)
class Outcome:
    """How far training came, and why it ended there."""

    step: int  # steps done in all
    finished: bool  # False: stopped by a signal or the time limit, and can be resumed
    reason: str


def fit(
    learner: Learner[Any], samples: Samples, *, steps: int, batch: int, seed: int, device: torch.device, run: Run,
    seconds: float = math.inf, save_every: float = 60.0, watch: Callable[[int, Mapping[str, float], float], None] | None = None,
) -> Outcome:  # fmt: skip
    """Take `learner` to `steps` steps, from the last state in `run`; save every `save_every` seconds and at the end.

    Returns early, saved, after `seconds` or on SIGTERM, SIGINT or SIGUSR1. `watch(step, losses, rate)` is told of
    progress. Raises Diverged where a loss or weight stops being finite; nothing non-finite is ever saved.
    """
    keep_memory()
    start = run.restore(learner)
    rows = batches_from(samples, batch, seed, start)
    began = saved = time.monotonic()
    pending: list[tuple[int, Mapping[str, Any]]] = []
    with stop_requests() as stop:
        for step in range(start, steps):
            torch.manual_seed(_mixed(seed, 2, step))
            pending.append((step + 1, learner.step(samples[next(rows)].to(device))))
            now = time.monotonic()
            due = now - saved >= save_every
            over = bool(stop) or now - began >= seconds
            last = step + 1 == steps
            if due or over or last or len(pending) >= WATCH:
                losses = _record(pending, run)
                pending = []
                if watch:
                    watch(step + 1, losses, (step + 1 - start) / max(now - began, 1e-9))
            if due or over or last:
                _save(learner, step + 1, run)
                saved = time.monotonic()
            if over and not last:
                return Outcome(step + 1, False, stop[0] if stop else f"time limit of {seconds:g} s")
    return Outcome(steps, True, "all steps done")


def keep_memory() -> bool:
    """Let the C library keep what a step frees for the next step; whether it does now.

    glibc gives blocks of more than 32 MB back to the system when they are freed and asks for them again, so that every step pays for
    pages of zeros: a quarter of the processor time where tensors are that large (benchmarks/kept_memory.py). The price is a process that
    holds on to its largest size. Who sets MALLOC_MMAP_MAX_ or MALLOC_TRIM_THRESHOLD_ decides alone.
    """
    if sys.platform != "linux" or os.environ.keys() & {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def _record(pending: list[tuple[int, Mapping[str, Any]]], run: Run) -> dict[str, float]:
    rows = [{"step": step, **{k: float(v) for k, v in losses.items()}} for step, losses in pending]
    for row in rows:
        bad = {k: v for k, v in row.items() if not math.isfinite(v)}
        if bad:
            raise Diverged(
                f"step {row['step']:.0f}: {bad} is not finite; the last good state is step {run.newest_step()} in {run.path}. "
                "Try a lower learning rate, a larger batch, or another seed."
            )
    # History holds the mean over the window: single steps are noise, and a million lines serve nobody.
    mean = {k: statistics.fmean(r[k] for r in rows if k in r) for k in rows[-1]} | {"step": rows[-1]["step"]}
    run.append_history(mean)
    return mean


def _save(learner: Learner[Any], step: int, run: Run) -> None:
    state = learner.state_dict()
    wrong = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if wrong:
        raise Diverged(f"step {step}: weights {wrong[:3]} are not finite; the last good state is step {run.newest_step()} in {run.path}")
    run.save(step, state)


@contextlib.contextmanager
def stop_requests() -> Iterator[list[str]]:
    """A list that receives the name of a stop signal when one comes; a second signal ends the process at once."""
    caught: list[str] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number).name)

    with _on_stop_signals(receive):
        yield caught


class StopRequested(Exception):
    """A stop signal came while there was nothing that has to be finished first."""


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
    """Within it a stop signal raises StopRequested: for work that is simply done again later."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise StopRequested(signal.Signals(number).name)

    with _on_stop_signals(receive):
        yield


@contextlib.contextmanager
def _on_stop_signals(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may receive signals
        return
    wanted = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, n)]
    before = {s: signal.signal(s, receive) for s in wanted}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers, without collisions in practice (splitmix64's finaliser, chained)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & 0x7FFFFFFFFFFFFFFF
