"""The command line as a user meets it: what it prints, what it writes, and how it says no."""

import json
import sys

import numpy as np
import pytest

from simulacra import cli
from simulacra.evidence import Evidence


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    code, _, _ = call_quietly("run", "toys.gaussian", "--out", folder, "-q")
    assert code == 0
    return folder


def call_quietly(*words):
    import contextlib
    import io

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["simulacra", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
        while "" in sys.path[1:]:
            sys.path.reverse()
            sys.path.remove("")
            sys.path.reverse()
    return code, out.getvalue(), " ".join(err.getvalue().replace("│", " ").split())


def test_help_names_every_command_and_the_exit_codes():
    code, out, _ = call_quietly("--help")
    assert code == 0
    for word in ("list", "show", "run", "resume", "draw", "score", "judge", "report", "compare", "75 stopped"):
        assert word in out


def test_list_shows_every_study_and_show_every_field_of_its_recipe():
    from simulacra import study

    _, out, _ = call_quietly("list")
    assert all(name in out for name in study.names())
    _, out, _ = call_quietly("show", "toys.gaussian")
    for word in ("--steps", "--scales", "Gauss 1809", "quick", "laptop", "Points of nature"):
        assert word in out


def test_run_help_teaches_the_flags_of_the_study():
    code, out, _ = call_quietly("run", "toys.gaussian", "--help")
    assert code == 0
    assert "--explode-at" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stepz", 3), "no field for '--stepz'; did you mean --steps"),
        (("--steps", 0), "--steps: Input should be greater than 0, got '0'. Moves forward of the learner"),
        (("--rows", "many"), "--rows: Input should be a valid integer"),
        (("--seed",), "--seed needs a value"),
        (("--recipe", "slow"), "no recipe is called 'slow'; this study has quick, laptop"),
    ],
)
def test_a_wrong_recipe_field_is_exit_code_2_with_its_name_its_range_and_what_came(words, said, tmp_path):
    code, _, err = call_quietly("run", "toys.gaussian", *words, "--out", tmp_path / "run")
    assert code == 2
    assert said in err
    assert not (tmp_path / "run").exists()


def test_flags_reach_the_recipe_with_their_types(tmp_path):
    folder = tmp_path / "run"
    assert call_quietly("run", "toys.gaussian", "--steps=5", "--scales", "1.5,2.5", "--data", "none", "--out", folder, "-q")[0] == 0
    recipe = json.loads((folder / "recipe.json").read_text())["recipe"]
    assert (recipe["steps"], recipe["scales"], recipe["data"]) == (5, [1.5, 2.5], None)


def test_a_run_prints_the_verdict_and_where_the_report_lies(tmp_path):
    folder = tmp_path / "run"
    code, out, _ = call_quietly("run", "toys.gaussian", "--steps", 5, "--out", folder)
    assert code == 0
    assert "spread" in out
    assert "report.html" in out
    assert "step 5/5" in out


def test_draw_writes_arrays_and_pictures_and_refuses_other_endings(run_folder, tmp_path):
    assert call_quietly("draw", run_folder, "-n", 7, "-o", tmp_path / "x.npz")[0] == 0
    assert np.load(tmp_path / "x.npz")["at"].shape == (7, 2)
    assert call_quietly("draw", run_folder, "-n", 7, "-o", tmp_path / "x.png")[0] == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = call_quietly("draw", run_folder, "-o", tmp_path / "x.doc")
    assert code == 3
    assert ".npz (samples)" in err
    code, _, err = call_quietly("draw", run_folder, "-o", tmp_path / "x.gif")
    assert code == 3
    assert "no latent space" in err


def test_other_seeds_draw_other_samples(run_folder, tmp_path):
    for seed in (0, 1):
        call_quietly("draw", run_folder, "-n", 5, "--seed", seed, "-o", tmp_path / f"{seed}.npz")
    assert not np.array_equal(np.load(tmp_path / "0.npz")["at"], np.load(tmp_path / "1.npz")["at"])


def test_scores_are_refused_by_a_learner_that_has_none(run_folder):
    code, _, err = call_quietly("score", run_folder, run_folder / "drawn" / "samples.npz")
    assert code == 3
    assert "gives no score" in err


def test_judge_takes_samples_that_another_program_wrote(tmp_path):
    rng = np.random.default_rng(0)
    for name, scale in (("nature", [2, 0.5]), ("good", [2, 0.5]), ("bad", [1, 1])):
        np.savez(tmp_path / f"{name}.npz", at=rng.normal(size=(300, 2)) * scale)
    for name, differs in (("good", False), ("bad", True)):
        words = ("judge", "toys.gaussian", "--drawn", tmp_path / f"{name}.npz", "--nature", tmp_path / "nature.npz")
        code, out, _ = call_quietly(*words, "-o", tmp_path / f"{name}.json")
        assert code == 0
        assert ("can be told from nature" in out) == differs
        assert Evidence.read(tmp_path / f"{name}.json").differs == differs
    code, _, err = call_quietly("judge", "toys.gaussian", "--drawn", tmp_path / "missing.npz")
    assert code == 3
    assert "missing.npz" in err


def test_a_run_can_be_judged_again_and_its_report_written_again(run_folder):
    before = Evidence.read(run_folder / "evidence.json")
    assert call_quietly("judge", run_folder, "--seed", 5)[0] == 0
    assert Evidence.read(run_folder / "evidence.json").findings[0].distance != before.findings[0].distance
    (run_folder / "report.html").unlink()
    assert call_quietly("report", run_folder)[0] == 0
    assert (run_folder / "report.html").stat().st_size > 10_000


def test_compare_puts_runs_side_by_side(run_folder, tmp_path):
    call_quietly("run", "toys.gaussian", "--steps", 3, "--out", tmp_path / "short", "-q")
    code, out, _ = call_quietly("compare", run_folder, tmp_path / "short")
    assert code == 0
    assert "spread" in out
    assert "short" in out


def test_what_is_not_a_run_is_refused(tmp_path):
    for command in ("resume", "report", "compare"):
        code, _, err = call_quietly(command, tmp_path)
        assert code == 3
        assert "not a run folder" in err
