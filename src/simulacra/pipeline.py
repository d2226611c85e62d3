"""load -> build -> fit -> draw -> judge -> write: the only place that knows the order.

Nothing here knows a science. The command line, the studio and notebooks call these functions; a run folder is all that
passes between them, so each stage can be done again, later, by another process.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from simulacra import report, study
from simulacra.evidence import Evidence
from simulacra.runs import Damaged, Run, environment, write_atomically
from simulacra.study import Learner, Noise, Recipe, Refused, Samples, Split, Study
from simulacra.training import Outcome, StopRequested, device_of, fit, stopping_at_once

BLOCK = 64  # rows drawn together, always at the same places: row i does not depend on how many are asked for
SHOWN = 12  # pictures of each side in a report: as many as the summary has room for, over all conditions

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
    for line in split.rejected:
        say(f"set aside: {line}")
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


def _draw_and_judge(folder: Run, asked: Study[Any, Any], recipe: Recipe, split: Split[Any], learner: Learner[Any], say: Say) -> None:
    nature = spread(split.held_out, recipe.draws)
    say(f"drawing {len(nature)} samples")
    began = time.monotonic()
    drawn = draw_like(learner, nature, seed=recipe.seed, device=device_of(recipe.device))
    rate = len(drawn) / (time.monotonic() - began)
    (folder.path / "drawn").mkdir(exist_ok=True)
    asked.write(drawn, folder.path / "drawn" / "samples.npz")
    asked.write(spread(nature, SHOWN), folder.path / "drawn" / "nature.npz")
    say(f"drew {rate:.0f} samples/s; judging")
    evidence = asked.judge(nature, drawn, seed=recipe.seed, training=split.train)
    if asked.examine:
        evidence = evidence.with_more(*asked.examine(learner, split, recipe.seed))
    folder.write_evidence(evidence)
    folder.write_figures(asked.figures(learner, split, recipe.seed) if asked.figures else [])
    write_report(folder)


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


def trained(folder: Run, split: Split[Any] | None = None) -> tuple[Study[Any, Any], Recipe, Learner[Any], Split[Any]]:
    """The learner of a finished run in its last state, with its data. Damaged where the state was altered on disk."""
    asked, recipe = recipe_of(folder)
    step, state = folder.state()
    if step < recipe.steps:
        raise Refused(f"{folder.path} is trained to step {step} of {recipe.steps}; `simulacra resume {folder.path}` finishes it")
    _same_threads(folder)
    split = split or asked.load(recipe)
    learner = _built(asked, recipe, split)
    learner.load_state_dict(state)
    return asked, recipe, learner, split


def draw_like(learner: Learner[Any], like: Samples, *, seed: int, device: torch.device) -> Any:
    """One drawn row per row of `like`. Row i is the same for any length of `like` that holds the same conditions.

    Blocks are filled up to BLOCK rows because the last bits of a convolution or a matrix product depend on the batch size.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(like), BLOCK):
            rows = range(start, start + BLOCK)
            at = torch.arange(start, start + BLOCK).clamp(max=len(like) - 1)
            block = learner.draw(like[at].to(device), Noise(seed, rows)).to("cpu")
            parts.append(block[: min(BLOCK, len(like) - start)])
    return type(like).join(parts)


def spread(samples: Any, count: int) -> Any:
    """At most `count` rows, evenly spread over all, so that every condition keeps its share."""
    if count >= len(samples):
        return samples
    return samples[torch.linspace(0, len(samples) - 1, count).round().long()]


def judge_files(
    asked: Study[Any, Any], drawn: Path, nature: Path | None, training: Path | None, recipe: Recipe
) -> tuple[Evidence, Any, Any]:
    """Judge samples that another program wrote, against a file of nature or the held-out part that `recipe` loads."""
    samples = asked.read(drawn)
    if nature is None:
        samples = asked.read_as(drawn, recipe) if asked.read_as else samples
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
            **_pictures(asked, spread(nature, SHOWN), spread(drawn, SHOWN)),
        )  # fmt: skip
        report.write(page, out)
    else:
        raise Refused(f"cannot write {out.suffix or 'a file without ending'}: choose .json (evidence) or .html (report)")


def judge_again(folder: Run, seed: int, say: Say) -> None:
    """Draw and judge a finished run once more, with another seed of the drawing and of the judge."""
    with folder.alone():
        asked, recipe, learner, split = trained(folder)
        _draw_and_judge(folder, asked, recipe.model_copy(update={"seed": seed}), split, learner, say)


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
        origin=lock["origin"], files=lock["files"], rejected=lock["rejected"], seconds=folder.seconds(),
        **_pictures(asked, shown, spread(asked.read(drawn), len(shown))), figures=folder.figures(),
        command=f"simulacra run {about['study']} --recipe {about['name']} {_changed(asked, about)}".strip(), citation=asked.citation,
    )  # fmt: skip
    path = folder.path / "report.html"
    report.write(page, path)
    write_atomically(folder.path / "summary.png", report.summary_figure(page))
    folder.write_crate(asked.title, asked.source)
    return path


def _pictures(asked: Study[Any, Any], nature: Any, drawn: Any) -> dict[str, Any]:
    captions = asked.caption(nature) if asked.caption else ()
    return {"nature_pictures": asked.picture(nature), "drawn_pictures": asked.picture(drawn), "captions": captions}


def _changed(asked: Study[Any, Any], about: Mapping[str, Any]) -> str:
    """The flags that turn the study's own recipe into the one that was run."""
    base = asked.recipes[about["name"]].model_dump(mode="json") if about["name"] in asked.recipes else {}
    values = {k: v for k, v in about["recipe"].items() if base.get(k) != v}
    return " ".join(f"--{k.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in values.items())


def _lock(folder: Run, split: Split[Any]) -> None:
    """Write down what the data were; on resuming, refuse other data than the run began with."""
    now: dict[str, Any] = {"origin": split.origin, "files": dict(split.files), "rejected": list(split.rejected)}
    if (folder.path / "data.lock").exists():
        before = folder.read_json("data.lock")
        if before["files"] != now["files"]:
            changed = sorted({k for k in {*before["files"], *now["files"]} if before["files"].get(k) != now["files"].get(k)})
            raise Refused(f"the data changed since {folder.path} began: {', '.join(changed)}; restore them, or start a new run")
    folder.write_json("data.lock", now)


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
