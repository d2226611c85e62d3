"""load -> build -> fit -> draw -> judge -> write: the only place that knows the order.

Nothing here knows a science. The command line, the studio and notebooks call these functions; a run folder is all that
passes between them, so each stage can be done again, later, by another process.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simulacra import report, study
from simulacra.evidence import Evidence, Figure
from simulacra.movie import as_bytes, gif_within
from simulacra.runs import Damaged, Run, environment, write_atomically
from simulacra.study import Blocks, Learner, Noise, Recipe, Refused, Samples, Split, Study, Traces
from simulacra.training import Outcome, StopRequested, device_of, fit, stopping_at_once

BLOCK = 64  # rows drawn together, always at the same places: row i does not depend on how many are asked for
SHOWN = 12  # pictures of each side in a report: as many as the summary has room for, over all conditions
MODELS = 6  # of each side in the report's viewer
TOLD = 5  # records set aside that are named on the terminal; all stand in rejected.txt
TRACED, TRACE_FRAMES, TRACE_BYTES = 4, 48, 1_000_000  # rows, frames and size of the movie of a draw in a report

Watch = Callable[[int, Mapping[str, float], float], None]
Say = Callable[[str], None]


def run(
    name: str, recipe_name: str, recipe: Recipe, out: Path, *, seconds: float = math.inf, watch: Watch | None = None,
    say: Say = lambda line: None,
) -> tuple[Run, Outcome]:  # fmt: skip
    """Do everything that `recipe` asks, in the new folder `out`. Raises Refused for input that cannot be used."""
    study.find(name)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    folder = Run.create(out, study=name, name=recipe_name, recipe=recipe)
    try:
        with folder.alone():
            return folder, _go_on(folder, seconds, watch, say)
    except Refused:
        if not folder.newest_step():  # nothing was learned: do not leave an empty folder behind
            shutil.rmtree(out)
        raise


def resume(path: Path, *, seconds: float = math.inf, watch: Watch | None = None, say: Say = lambda line: None) -> tuple[Run, Outcome]:
    """Go on with a run from its newest undamaged state, through to the report."""
    folder = Run.open(path)
    with folder.alone():
        return folder, _go_on(folder, seconds, watch, say)


def _go_on(folder: Run, seconds: float, watch: Watch | None, say: Say) -> Outcome:
    began = time.monotonic()
    asked, recipe = recipe_of(folder)
    _same_threads(folder)
    say("loading nature")
    split = asked.load(recipe)
    _lock(folder, split)
    _tell_rejected(folder, split.rejected, say)
    say(split.origin)
    device = device_of(recipe.device)
    learner = _built(asked, recipe, split)
    outcome = fit(
        learner, split.train, steps=recipe.steps, batch=recipe.batch, seed=recipe.seed, device=device, run=folder,
        seconds=seconds - (time.monotonic() - began), watch=watch,
    )  # fmt: skip
    folder.add_time(time.monotonic() - began)
    if outcome.finished:
        try:
            with stopping_at_once():
                _draw_and_judge(folder, asked, recipe, split, learner, say)
        except StopRequested as signal:
            return Outcome(outcome.step, False, f"{signal} after training, before the verdict")
    return outcome


def _built(asked: Study[Any, Any], recipe: Recipe, split: Split[Any]) -> Learner[Any]:
    torch.manual_seed(recipe.seed)  # initial weights
    return asked.build(recipe, split.train)


def _draw_and_judge(
    folder: Run, asked: Study[Any, Any], recipe: Recipe, split: Split[Any], learner: Learner[Any], say: Say, remarks: Sequence[str] = ()
) -> None:
    nature = spread(split.held_out, recipe.draws)
    say(f"drawing {len(nature)} samples")
    began = time.monotonic()
    drawn = draw_like(learner, nature, seed=recipe.seed, device=device_of(recipe.device), watch=_said(say, len(nature)))
    rate = len(drawn) / (time.monotonic() - began)
    folder.note_rate(rate)
    (folder.path / "drawn").mkdir(exist_ok=True)
    asked.write(drawn, folder.path / "drawn" / "samples.npz")
    asked.write(spread(nature, SHOWN), folder.path / "drawn" / "nature.npz")
    say(f"drew {rate:.0f} samples/s; judging")
    evidence = asked.judge(nature, drawn, seed=recipe.seed, training=split.train)
    if asked.examine:
        evidence = evidence.with_more(*asked.examine(learner, split, recipe.seed))
    folder.write_evidence(dataclasses.replace(evidence, remarks=[*evidence.remarks, *remarks]))
    traced = [_traced(asked, recipe, learner, spread(nature, TRACED))] if isinstance(learner, Traces) else []
    folder.write_figures([*traced, *(asked.figures(learner, split, recipe.seed) if asked.figures else [])])
    write_report(folder)


def _said(say: Say, total: int, every: float = 30.0) -> Watch:
    """A watch over drawing that says where it is, every half minute."""
    last = time.monotonic()

    def watch(done: int, _: Mapping[str, float], rate: float) -> None:
        nonlocal last
        if time.monotonic() - last > every and done < total:
            last = time.monotonic()
            say(f"drew {done}/{total}  {rate:.1f} samples/s  {(total - done) / rate:.0f} s left")

    return watch


def filmed(asked: Study[Any, Any], moments: Sequence[Any]) -> NDArray[np.uint8]:
    """The moments of a draw as frames of a movie, bytes (moments, height, width, 3): all rows of each side by side."""
    film = asked.film(moments) if asked.film else map(asked.picture, moments)
    return np.concatenate([as_bytes(as_grid(pictures)[None]) for pictures in film])


def _traced(asked: Study[Any, Any], recipe: Recipe, learner: Traces, like: Samples) -> Figure:
    frames = trace_like(learner, like, seed=recipe.seed, frames=TRACE_FRAMES, device=device_of(recipe.device))
    movie = gif_within(filmed(asked, frames), TRACE_BYTES)
    return Figure("A draw, from noise to sample", f"{len(like)} samples as they are drawn; the movie rests on what was drawn.", movie)


def recipe_of(folder: Run) -> tuple[Study[Any, Any], Recipe]:
    """The study and the recipe that a run folder names. Damaged where the recipe is not one that the study takes."""
    about = folder.about()
    try:
        asked = study.find_recorded(about["study"])
        kind = type(next(iter(asked.recipes.values())))
        return asked, kind.model_validate(about["recipe"])
    except (KeyError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Damaged(f"{folder.path / 'recipe.json'} does not hold a recipe that this version of simulacra takes: {error}") from error


def trained(
    folder: Run, split: Split[Any] | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[Study[Any, Any], Recipe, Learner[Any], Split[Any]]:
    """The learner of a finished run in its last state, with its data; `changes` are of the recipe's fields of drawing.
    Damaged where the state was altered on disk."""
    asked, recipe, state = _finished(folder, changes)
    split = split or asked.load(recipe)
    learner = _built(asked, recipe, split)
    learner.load_state_dict(state)
    return asked, recipe, learner, split


def restored(folder: Run, changes: Mapping[str, Any] | None = None) -> tuple[Study[Any, Any], Recipe, Learner[Any]]:
    """The learner of a finished run, to draw from: without its data where the study can do without (`Study.restore`)."""
    asked, recipe, state = _finished(folder, changes)
    if asked.restore is None:
        return trained(folder, changes=changes)[:3]
    return asked, recipe, asked.restore(recipe, state)


def _finished(folder: Run, changes: Mapping[str, Any] | None) -> tuple[Study[Any, Any], Recipe, dict[str, torch.Tensor]]:
    asked, recipe = recipe_of(folder)
    step, state = folder.state()
    if step < recipe.steps:
        raise Refused(f"{folder.path} is trained to step {step} of {recipe.steps}; `simulacra resume {folder.path}` finishes it")
    recipe = recipe.model_copy(update=changes or {})
    if changes and changes.get("threads"):
        torch.set_num_threads(recipe.threads)
    else:
        _same_threads(folder)
    return asked, recipe, state


def draw_like(
    learner: Learner[Any], like: Samples, *, seed: int, device: torch.device, first: int = 0, watch: Watch | None = None
) -> Any:  # fmt: skip
    """One drawn row per row of `like`, which are the rows from `first` on of a longer draw. Row i is the same for any length of `like`
    that holds the same conditions.

    Blocks are filled up to BLOCK rows, or those that the learner says, because the last bits of a convolution or a matrix product depend
    on the batch size.
    After each, `watch` is told how many rows are done and how many a second.
    """
    parts = []
    size = learner.at_once(like) if isinstance(learner, Blocks) else BLOCK
    began = time.monotonic()
    with torch.no_grad():
        for start in range(0, len(like), size):
            rows = range(first + start, first + start + size)
            at = torch.arange(start, start + size).clamp(max=len(like) - 1)
            block = learner.draw(like[at].to(device), Noise(seed, rows)).to("cpu")
            parts.append(block[: min(size, len(like) - start)])
            if watch:
                done = min(start + size, len(like))
                watch(done, {}, done / max(time.monotonic() - began, 1e-9))
    return type(like).join(parts)


def trace_like(learner: Traces, like: Samples, *, seed: int, frames: int, device: torch.device) -> list[Any]:
    """How one row per row of `like` is drawn: `frames` samples, from noise to what `draw_like` gives (up to rounding: the rows are
    few and drawn together)."""
    with torch.no_grad():
        return [frame.to("cpu") for frame in learner.trace(like.to(device), Noise(seed, range(len(like))), frames)]


def spread(samples: Any, count: int) -> Any:
    """At most `count` rows, evenly spread over all, so that every condition keeps its share."""
    if count >= len(samples):
        return samples
    return samples[torch.linspace(0, len(samples) - 1, count).round().long()]


def judge_files(
    asked: Study[Any, Any], drawn: Path, nature: Path | None, training: Path | None, recipe: Recipe
) -> tuple[Evidence, Any, Any]:
    """Judge samples that another program wrote, against a file of nature or the held-out part that `recipe` loads."""
    samples = asked.read_as(drawn, recipe) if nature is None and asked.read_as else asked.read(drawn)
    if nature is None:
        split = asked.load(recipe)
        reference, known = spread(split.held_out, len(samples)), split.train
    else:
        reference, known = asked.read(nature), asked.read(training) if training else None
    evidence = asked.judge(reference, samples, seed=recipe.seed, training=known)
    return evidence, reference, samples


def write_judgement(asked: Study[Any, Any], name: str, evidence: Evidence, nature: Any, drawn: Any, out: Path) -> None:
    """What `judge_files` found, as evidence (.json) or as a report (.html)."""
    if out.suffix == ".json":
        write_atomically(out, evidence.to_json().encode())
    elif out.suffix == ".html":
        page = report.Page(
            title=asked.title, study=name, source=asked.source, recipe_name="judge only", recipe={}, evidence=evidence, history=[],
            environment=environment(), origin="files given on the command line", citation=asked.citation,
            **_shown(asked, spread(nature, SHOWN), spread(drawn, SHOWN)),
        )  # fmt: skip
        report.write(page, out)
    else:
        raise Refused(f"cannot write {out.suffix or 'a file without ending'}: choose .json (evidence) or .html (report)")


def judge_again(folder: Run, seed: int, say: Say, changes: Mapping[str, Any] | None = None) -> None:
    """Draw and judge a finished run once more, with another seed of the drawing and of the judge, and with `changes` of the recipe's
    fields of drawing, which the evidence then remarks."""
    with folder.alone():
        asked, recipe, learner, split = trained(folder, changes=changes)
        _, before = recipe_of(folder)
        remarks = [f"Drawn with {k} = {v}; the recipe of the run has {getattr(before, k)}." for k, v in (changes or {}).items()]
        _draw_and_judge(folder, asked, recipe.model_copy(update={"seed": seed}), split, learner, say, remarks)


def write_report(folder: Run) -> Path:
    """report.html and summary.png from what the run folder holds."""
    asked, recipe = recipe_of(folder)
    about = folder.about()
    nature, drawn = (folder.path / "drawn" / f for f in ("nature.npz", "samples.npz"))
    evidence, shown = folder.evidence(), asked.read(nature)
    lock = folder.read_json("data.lock")
    page = report.Page(
        title=asked.title, study=about["study"], source=asked.source, recipe_name=about["name"], recipe=about["recipe"],
        recipe_about={name: field.description or "" for name, field in type(recipe).model_fields.items()},
        evidence=evidence, history=folder.history(), environment=folder.read_json("environment.json"),
        origin=lock["origin"], files=lock["files"], rejected=_set_aside(folder), seconds=folder.seconds(),
        **_shown(asked, shown, spread(asked.read(drawn), len(shown))), figures=folder.figures(),
        command=command_of(asked, about), citation=asked.citation,
    )  # fmt: skip
    path = folder.path / "report.html"
    report.write(page, path)
    write_atomically(folder.path / "summary.png", report.summary_figure(page))
    folder.write_crate(asked.title, asked.source)
    return path


def _shown(asked: Study[Any, Any], nature: Any, drawn: Any) -> dict[str, Any]:
    """What a report shows of both sides: pictures, captions, and the first few as models to be turned."""
    caption = asked.caption or (lambda samples: ())
    models = asked.models or (lambda samples: ())
    return {
        "nature_pictures": asked.picture(nature), "drawn_pictures": asked.picture(drawn),
        "captions": caption(nature), "drawn_captions": caption(drawn),
        "nature_models": models(nature[:MODELS]), "drawn_models": models(drawn[:MODELS]),
    }  # fmt: skip


def command_of(asked: Study[Any, Any], about: Mapping[str, Any]) -> str:
    """The command that makes a run again, from what its folder says it is about."""
    return f"simulacra run {about['study']} --recipe {about['name']} {_changed(asked, about)}".strip()


def _changed(asked: Study[Any, Any], about: Mapping[str, Any]) -> str:
    """The flags that turn the study's own recipe into the one that was run."""
    base = asked.recipes[about["name"]].model_dump(mode="json") if about["name"] in asked.recipes else {}
    values = {k: v for k, v in about["recipe"].items() if base.get(k) != v}
    return " ".join(f"--{k.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in values.items())


def _lock(folder: Run, split: Split[Any]) -> None:
    """Write down what the data were; on resuming, refuse other data than the run began with."""
    now: dict[str, Any] = {"origin": split.origin, "files": dict(split.files), "rejected": len(split.rejected)}
    if (folder.path / "data.lock").exists():
        before = folder.read_json("data.lock")
        if before["files"] != now["files"]:
            changed = sorted({k for k in {*before["files"], *now["files"]} if before["files"].get(k) != now["files"].get(k)})
            raise Refused(f"the data changed since {folder.path} began: {', '.join(changed)}; restore them, or start a new run")
    folder.write_json("data.lock", now)


def _tell_rejected(folder: Run, lines: Sequence[str], say: Say) -> None:
    """All records that were set aside into rejected.txt, the first few to the user."""
    if not lines:
        return
    write_atomically(folder.path / "rejected.txt", "".join(f"{' '.join(line.splitlines())}\n" for line in lines).encode())
    for line in lines[:TOLD]:
        say(f"set aside: {line}")
    if len(lines) > TOLD:
        say(f"and {len(lines) - TOLD} more, see {folder.path / 'rejected.txt'}")


def _set_aside(folder: Run) -> list[str]:
    """One line per record that was set aside."""
    path = folder.path / "rejected.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _same_threads(folder: Run) -> None:
    """Sums over threads depend on how many there are: go on with as many as the run began with."""
    threads = folder.read_json("environment.json").get("threads")
    if isinstance(threads, int) and threads > 0 and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def as_grid(pictures: np.ndarray, gap: int = 2) -> np.ndarray:
    """Images (n, h, w, 3) in one near-square grid (H, W, 3), white between them."""
    n, h, w, _ = pictures.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, 3))
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = picture
    return sheet
