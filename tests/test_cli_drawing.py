"""Drawing as a user meets it: conditions, formats, movies, from a run and from weights that ship."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from simulacra import drawing, movie, pipeline, study, weights
from test_cli import call_quietly
from toys import walker


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run on a data file that is gone afterwards: whoever draws from it has no data."""
    folder = tmp_path_factory.mktemp("walker")
    data = folder / "mine.npz"
    np.savez(data, at=np.random.default_rng(0).normal([1, -1], [2, 0.5], size=(600, 2)).astype(np.float32))
    code, out, err = call_quietly("run", "toys.walker", "--data", data, "--spoiled", 7, "--out", folder / "run")
    assert code == 0, err
    (folder / "said.txt").write_text(out)
    data.unlink()
    return folder / "run"


@pytest.fixture(scope="module")
def shipped(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped") / "toys.walker"
    assert call_quietly("ship", run_folder, "--out", folder)[0] == 0
    return folder


def drawn(path):
    return np.load(path)["at"]


def test_records_set_aside_stand_in_a_file_and_the_first_five_on_the_terminal(run_folder):
    lines = (run_folder / "rejected.txt").read_text().splitlines()
    assert lines == [f"record {i}: lies at infinity" for i in range(7)]
    said = (run_folder.parent / "said.txt").read_text()
    assert said.count("set aside: ") == 5
    assert "and 2 more, see" in said
    assert "7 records were set aside" in (run_folder / "report.html").read_text()


def test_a_run_of_a_study_that_restores_is_drawn_from_without_its_data(run_folder, tmp_path):
    code, out, _ = call_quietly("draw", run_folder, "-n", 2000, "-o", tmp_path / "x.npz")
    assert code == 0
    assert "samples/s" in out
    assert np.allclose(drawn(tmp_path / "x.npz").mean(0), [1, -1], atol=0.3)


def test_a_flag_that_draw_does_not_know_is_a_condition_and_repeated_ones_add_up(run_folder, tmp_path):
    ways = (("--shift", 3, "--shift=2"), ("--shift", "5"), ("--condition", "shift=5"), ("--condition", "shift=1", "--shift", "4"))
    for i, words in enumerate(ways):
        code, out, err = call_quietly("draw", run_folder, "-n", 500, "--seed", 3, *words, "-o", tmp_path / f"{i}.npz", "-q")
        assert code == 0, err
        assert "asked 5.0" in out
        assert "[bold]not markup[/bold]" in out
    assert all(np.array_equal(drawn(tmp_path / "0.npz"), drawn(tmp_path / f"{i}.npz")) for i in range(4))
    assert call_quietly("draw", run_folder, "-n", 500, "--seed", 3, "-o", tmp_path / "unmoved.npz")[0] == 0
    assert np.allclose(drawn(tmp_path / "0.npz") - drawn(tmp_path / "unmoved.npz"), [5, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--shft", 3), 2, "cannot be asked for 'shft'; did you mean --shift?"),
        (("--condition", "shft=3"), 2, "did you mean --shift?"),
        (("--zzzz", 3), 2, "there is --shift, --frame-of-rest"),
        (("--shift",), 2, "--shift needs a value"),
        (("--shift", 1, 2), 2, "'2' belongs to no flag"),
        (("--shift", "far"), 3, "shift 'far' is not a length"),
        (("--steps", 7), 2, "--steps decides how a run is trained; of a trained one you can change"),
        (("--evaluations", 0), 2, "--evaluations: Input should be greater than or equal to 1"),
        (("--against", "nowhere.csv"), 3, "; .npz has none; these have: .csv"),
        (("--movie", "path", "-o", "x.gif"), 3, "gives no movie called 'path'; it gives trace"),
        (("-o", "no/such/folder/x.npz"), 3, "there is no folder no/such/folder"),
        (("-o", "x.sdf"), 3, ".csv (formats of the field)"),
        (("-o", "x.csv", "--against", "nowhere.csv"), 3, "nowhere.csv is not a file"),
        (("-n", 40, "-o", "x.gif"), 3, "at most 36 samples side by side"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(run_folder, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    got, _, err = call_quietly("draw", run_folder, "-o", "x.npz", *words)
    assert got == code
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_field_of_drawing_changes_this_draw_and_not_the_run(run_folder, tmp_path):
    before = (run_folder / "recipe.json").read_bytes()
    for count in (1, 9):
        assert call_quietly("draw", run_folder, "--evaluations", count, "-n", 5, "-o", tmp_path / f"{count}.npz")[0] == 0
    assert np.allclose(drawn(tmp_path / "1.npz"), drawn(tmp_path / "9.npz"), atol=1e-5)
    frames = {}
    for count in (1, 20):
        assert call_quietly("draw", run_folder, "--evaluations", count, "--frames", 21, "-o", tmp_path / f"{count}.gif")[0] == 0
        with Image.open(tmp_path / f"{count}.gif") as opened:
            frames[count] = opened.n_frames
    assert frames[1] < frames[20]  # a flow in one step shows its noise and its sample, and nothing between
    assert (run_folder / "recipe.json").read_bytes() == before


def test_a_run_judged_with_another_value_of_drawing_says_so(run_folder, tmp_path):
    copy, data = tmp_path / "run", run_folder.parent / "mine.npz"
    shutil.copytree(run_folder, copy)
    np.savez(data, at=np.random.default_rng(0).normal([1, -1], [2, 0.5], size=(600, 2)).astype(np.float32))
    try:
        code, out, err = call_quietly("judge", copy, "--evaluations", 3)
    finally:
        data.unlink()
    assert code == 0, err
    assert "Drawn with evaluations = 3; the recipe of the run has 8." in " ".join(out.split())
    code, _, err = call_quietly("judge", copy, "--steps", 3)
    assert code == 2
    assert "--steps decides how a run is trained" in err


def test_formats_of_the_study_are_written_and_compared_with_known_samples(run_folder, tmp_path):
    assert call_quietly("draw", run_folder, "-n", 6, "-o", tmp_path / "x.csv")[0] == 0
    rows = np.loadtxt(tmp_path / "x.csv", delimiter=",")
    assert rows.shape == (6, 2)
    np.savetxt(tmp_path / "known.csv", rows[:2], delimiter=",")
    assert call_quietly("draw", run_folder, "-n", 6, "-o", tmp_path / "y.csv", "--against", tmp_path / "known.csv")[0] == 0
    assert np.loadtxt(tmp_path / "y.csv", delimiter=",")[:, 2].tolist() == [0, 0, 1, 1, 1, 1]


def test_a_learner_that_traces_gives_a_movie_from_noise_to_what_is_drawn(run_folder, tmp_path):
    source = drawing.opened(str(run_folder))
    like = source.asked.ask(source.recipe, 4, {"shift": "2"})
    frames = pipeline.trace_like(source.learner(), like, seed=5, frames=9, device=pipeline.device_of("cpu"))
    drawn_rows = pipeline.draw_like(source.learner(), like, seed=5, device=pipeline.device_of("cpu"))
    assert np.allclose(frames[-1].at, drawn_rows.at)
    assert np.allclose(frames[0].at, study.Noise(5, range(4)).normal(2))
    code, out, _ = call_quietly("draw", run_folder, "--shift", 2, "-o", tmp_path / "x.gif", "-n", 9)
    assert code == 0
    assert "asked 2.0" in out
    with Image.open(tmp_path / "x.gif") as opened:
        assert opened.n_frames > 5
        assert opened.height >= 256


def test_a_learner_that_knows_what_it_can_be_asked_for_is_asked_in_place_of_its_study(run_folder, tmp_path, monkeypatch):
    asked = []

    def ask(self, n, conditions):
        asked.append((n, dict(conditions), self.law.shape))
        return walker.ask(self.recipe, n, {"shift": "100"})

    monkeypatch.setattr(walker.Walker, "ask", ask, raising=False)
    assert call_quietly("draw", run_folder, "-n", 7, "--shift", 2, "-o", tmp_path / "x.npz")[0] == 0
    assert asked == [(7, {"shift": "2"}, (2, 2))]
    assert drawn(tmp_path / "x.npz")[:, 0].min() > 50


def test_a_study_films_the_moments_of_a_draw_from_one_point_of_view():
    moments = [walker.Points(torch.full((3, 2), float(k))) for k in range(4)]
    filmed = dataclasses.replace(walker.study, film=lambda seen: [np.full((3, 5, 5, 3), k / len(seen)) for k in range(len(seen))])
    frames = pipeline.filmed(filmed, moments)
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [0, 64, 128, 191]
    assert np.array_equal(
        pipeline.filmed(walker.study, moments)[2], movie.as_bytes(pipeline.as_grid(walker.study.picture(moments[2]))[None])[0]
    )


def test_the_report_shows_a_draw_as_a_movie(run_folder):
    movies = list((run_folder / "figures").glob("*.gif"))
    assert len(movies) == 1
    assert movies[0].stat().st_size <= 1_000_000
    assert "data:image/gif" in (run_folder / "report.html").read_text()


def test_a_study_by_name_is_drawn_from_the_weights_that_ship_and_says_which(shipped, run_folder, tmp_path, monkeypatch):
    code, _, err = call_quietly("draw", "toys.walker", "-o", tmp_path / "x.npz")
    assert code == 3
    assert "no weights ship for toys.walker" in err
    monkeypatch.setattr(weights, "PLACE", shipped.parent)
    for name, what in (("by_name", "toys.walker"), ("by_folder", shipped), ("by_run", run_folder)):
        code, out, _ = call_quietly("draw", what, "-n", 70, "-o", tmp_path / f"{name}.npz")
        assert code == 0
        assert ("weights of toys.walker, recipe quick: 20 steps" in " ".join(out.split())) == (name != "by_run")
    assert np.array_equal(drawn(tmp_path / "by_name.npz"), drawn(tmp_path / "by_run.npz"))
    assert np.array_equal(drawn(tmp_path / "by_name.npz"), drawn(tmp_path / "by_folder.npz"))
    assert "toys.walker, recipe quick" in " ".join(call_quietly("show", "toys.walker")[1].split())


def test_show_and_help_explain_what_can_be_asked(run_folder):
    for words in (("show", "toys.walker"), ("draw", "toys.walker", "--help"), ("draw", run_folder, "--help")):
        code, out, _ = call_quietly(*words)
        assert code == 0
        for word in ("--shift", "by which the first axis is moved", "--frame-of-rest", "--evaluations", ".csv"):
            assert word in " ".join(out.split())
    assert "simulacra show STUDY" in call_quietly("draw", "--help")[1]


def test_what_to_draw_from_and_where_to_write_must_be_said(tmp_path):
    assert call_quietly("draw")[0] == 2
    for words, code, said in (
        (("toys.walker",), 2, "say with -o which file"),
        (("--shift", 3, "toys.walker", "-o", "x.npz"), 2, "say first what to draw from"),
        (("runs/nothing", "-o", "x.npz"), 3, "neither a run folder nor the name of a study"),
        (("toys.nothing", "-o", "x.npz"), 3, "no study is called"),
        ((tmp_path, "-o", "x.npz"), 3, "not a run folder"),
    ):
        got, _, err = call_quietly("draw", *words)
        assert got == code
        assert said in err


@pytest.mark.parametrize("name", study.names())
def test_no_condition_of_a_study_is_hidden_by_a_flag_of_draw(name):
    asked = study.find(name)
    own = set(re.findall(r"--([a-z]+)", call_quietly("draw", "--help")[1]))
    fields = set(type(next(iter(asked.recipes.values()))).of_drawing()) - {"draws"}
    assert not own & {*(asked.conditions or {}), *fields}
    assert not fields & set(asked.conditions or {})
    assert bool(asked.formats) == bool(asked.export)
