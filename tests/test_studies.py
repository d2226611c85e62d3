"""Every study keeps the contract: what a user may do with one, a user may do with all."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from simulacra import pipeline, study
from simulacra.evidence import Evidence
from simulacra.runs import Run
from simulacra.training import Outcome

NAMES = study.names()


# For whichever recipe has the field: data enough for a verdict, made in seconds.
SMALLER = {"draws": 120, "simulated": 600, "walk": 6, "evaluations": 6}


def quick(name, **changes):
    recipe = study.find(name).recipes["quick"]
    smaller = {field: value for field, value in SMALLER.items() if field in type(recipe).model_fields}
    return recipe.model_copy(update=smaller | changes)


def agree(one, two):
    """Whether samples are the same, row by row, whatever room they have for larger ones; what is not known (NaN) agrees."""
    both = type(one).join([one, two])
    first, second = (both[rows].fields() for rows in (slice(None, len(one)), slice(len(one), None)))
    return all(torch.equal(v.isnan(), second[k].isnan()) and torch.equal(v.nan_to_num(), second[k].nan_to_num()) for k, v in first.items())


@pytest.fixture(scope="module", params=NAMES)
def finished(request, tmp_path_factory):
    """A short run of each study, through to its report."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    run, outcome = pipeline.run(request.param, "quick", quick(request.param, steps=12), folder)
    assert outcome == Outcome(12, True, "all steps done")
    return request.param, run


@pytest.mark.parametrize("name", NAMES)
def test_a_study_names_its_paper_its_recipes_and_their_measured_times(name):
    asked = study.find(name)
    assert {"quick", "laptop", "paper"} <= set(asked.recipes)
    assert set(asked.expect) == set(asked.recipes)
    assert any(mark in asked.source for mark in ("arXiv", "doi", "10."))
    assert len(study.headline(name)) > 20
    for field, about in type(asked.recipes["quick"]).model_fields.items():
        assert about.description, f"{name}: recipe field {field} says nothing about itself"


def test_a_run_leaves_everything_that_the_design_promises(finished):
    _, run = finished
    for name in ("recipe.json", "environment.json", "data.lock", "history.jsonl", "evidence.json", "report.html", "ro-crate-metadata.json"):
        assert (run.path / name).stat().st_size > 0, name
    assert not list(run.path.rglob("*.part"))
    evidence = run.evidence()
    assert isinstance(evidence, Evidence)
    assert len(evidence.findings) >= 5
    assert all(np.isfinite(f.distance) and f.floor < f.ceiling for f in evidence.findings), [
        (f.name, f.floor, f.ceiling) for f in evidence.findings if not f.floor < f.ceiling
    ]


@pytest.fixture
def unjudged(monkeypatch):
    """The pipeline without its verdict and report: these tests look at what is trained and drawn."""

    def drawn_only(folder, asked, recipe, split, learner, say):
        drawn = pipeline.draw_like(learner, pipeline.spread(split.held_out, recipe.draws), seed=recipe.seed, device=torch.device("cpu"))
        (folder.path / "drawn").mkdir()
        asked.write(drawn, folder.path / "drawn" / "samples.npz")

    monkeypatch.setattr(pipeline, "_draw_and_judge", drawn_only)


def test_the_same_seed_gives_the_same_parameters_and_the_same_samples(finished, unjudged, tmp_path):
    name, run = finished
    again, _ = pipeline.run(name, "quick", quick(name, steps=12), tmp_path / "again")
    first, second = run.state()[1], again.state()[1]
    assert all(torch.equal(first[k], second[k]) for k in first)
    asked = study.find(name)
    one, two = (asked.read(r.path / "drawn" / "samples.npz") for r in (run, again))
    assert agree(one, two)


@pytest.fixture(scope="module")
def stopped(finished, tmp_path_factory):
    """The same run, stopped after its first step: the folder, the state that it was left in, and which step that is."""
    name, _ = finished
    folder = tmp_path_factory.mktemp(name) / "stopped"
    run, outcome = pipeline.run(name, "quick", quick(name, steps=12), folder, seconds=0.0)
    assert not outcome.finished
    assert 0 < outcome.step < 12
    return folder, run.state()[1], outcome.step


def test_another_seed_gives_other_parameters(finished, stopped, tmp_path):
    name, _ = finished
    _, state, step = stopped
    other, outcome = pipeline.run(name, "quick", quick(name, steps=12, seed=1), tmp_path / "other", seconds=0.0)
    assert outcome.step == step
    assert any(not torch.equal(v, other.state()[1][k]) for k, v in state.items() if v.numel() > 1)


def test_stopped_and_resumed_equals_uninterrupted(finished, stopped, unjudged):
    _, run = finished
    part, outcome = pipeline.resume(stopped[0])
    assert outcome.finished
    first, second = run.state()[1], part.state()[1]
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_drawn_rows_do_not_depend_on_how_many_are_drawn(finished):
    _, run = finished
    asked, recipe, learner, _ = pipeline.trained(run)
    template = asked.ask(recipe, 100, {})
    few, many = (pipeline.draw_like(learner, template[:n], seed=5, device=torch.device("cpu")) for n in (9, 100))
    assert agree(few, many[:9])
    assert any(not torch.equal(v[0], v[1]) for v in many.fields().values())


def test_samples_survive_their_file_and_pictures_are_pictures(finished, tmp_path):
    name, run = finished
    asked = study.find(name)
    drawn = asked.read(run.path / "drawn" / "samples.npz")
    asked.write(drawn, tmp_path / "again.npz")
    again = asked.read(tmp_path / "again.npz")
    assert agree(drawn, again)
    pictures = asked.picture(drawn[:3])
    assert pictures.ndim == 4
    assert pictures.shape[0] == 3
    assert pictures.shape[3] == 3
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_the_judge_works_on_files_that_another_program_wrote(finished, tmp_path):
    name, run = finished
    asked = study.find(name)
    evidence, _, _ = pipeline.judge_files(asked, run.path / "drawn" / "samples.npz", None, None, quick(name, steps=12))
    assert {f.name for f in evidence.findings}
    pipeline.write_judgement(asked, name, evidence, *([asked.read(run.path / "drawn" / "samples.npz")] * 2), tmp_path / "verdict.html")
    assert (tmp_path / "verdict.html").stat().st_size > 10_000


def test_a_recipe_refuses_unknown_and_out_of_range_fields():
    for name in NAMES:
        kind = type(study.find(name).recipes["quick"])
        for wrong in ({"stepz": 3}, {"steps": 0}, {"seed": -1}, {"batch": "many"}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                kind.model_validate({**study.find(name).recipes["quick"].model_dump(), **wrong})
        with pytest.raises((ValueError, dataclasses.FrozenInstanceError)):
            study.find(name).recipes["quick"].steps = 3


def test_a_study_that_does_not_exist_is_refused_with_the_known_ones():
    for wrong in ("ising", "ising.nothing", "os.path", "no.such.module"):
        with pytest.raises(study.Refused, match=r"known: .*ising\.gan|no attribute `study`"):
            study.find(wrong)


def test_listing_studies_imports_no_torch():
    code = "import sys; from simulacra import study; [study.headline(n) for n in study.names()]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_folder_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(study.Refused, match="not a run folder"):
        Run.open(tmp_path)
