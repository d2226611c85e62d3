"""Drawing as a user meets it: conditions, formats, movies, from a run and from weights that ship."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from simulacra import cli, drawing, movie, pipeline, study, travels, weights
from test_cli import call_quietly
from toys import dreamer, walker


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


@pytest.fixture(scope="module")
def dreams(tmp_path_factory):
    """A run of a learner that imagines."""
    folder = tmp_path_factory.mktemp("dreamer") / "run"
    assert call_quietly("run", "toys.dreamer", "--out", folder, "-q")[0] == 0
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


def test_a_draw_says_which_fields_of_the_recipe_it_changed(run_folder, tmp_path):
    plain, other = (call_quietly("draw", run_folder, "-n", 2, "-o", tmp_path / "x.npz", *more)[1] for more in ([], ["--evaluations", 4]))
    assert plain.splitlines()[0] == f"run {run_folder}"
    assert other.splitlines()[0] == f"run {run_folder}; with evaluations 4"


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
    own = {flag.lstrip("-") for option in typer.main.get_command(cli.app).commands["draw"].params for flag in option.opts}
    fields = set(type(next(iter(asked.recipes.values()))).of_drawing()) - {"draws"}
    assert not own & {*(asked.conditions or {}), *fields}
    assert not fields & set(asked.conditions or {})
    assert bool(asked.formats) == bool(asked.export)


# ---------------------------------------------------------------------------------------- travels of what imagines


@pytest.fixture
def seen(monkeypatch):
    """What the moments of a movie hold, in place of the movie."""
    kept = []
    monkeypatch.setattr(drawing, "filmed", lambda asked, moments: kept.extend(moments) or np.zeros((len(moments), 8, 8, 3), np.uint8))
    return kept


def frames_of(path):
    with Image.open(path) as opened:
        return opened.n_frames, opened.size


@pytest.mark.parametrize("latent", [100, 12_288])
def test_a_path_between_standard_normal_positions_stays_where_they_lie(latent):
    stops = travels.positions(latent, 3, 2, [0, 1, 2])
    lengths = torch.stack([m.position for m in travels.along_path(stops, None, 8)]).norm(dim=2)
    ends = torch.stack(stops).norm(dim=2)
    assert lengths.shape == (24, 2)
    assert (lengths >= ends.amin(0) - 1e-3).all()
    assert (lengths <= ends.amax(0) + 1e-3).all()


def test_a_path_is_closed_begins_at_the_samples_of_draw_and_passes_the_positions_asked_for(dreams, seen, tmp_path):
    words = ("--seed", 5, "--shift", 3)
    assert call_quietly("draw", dreams, "-n", 3, *words, "-o", tmp_path / "x.npz")[0] == 0
    code, out, err = call_quietly("draw", dreams, "-n", 3, *words, "--through", "0,4,2", "--frames", 10, "-o", tmp_path / "x.gif")
    assert code == 0, err
    assert "frame 30/30" in out
    assert len(seen) == 30
    assert np.allclose(seen[0].at, drawn(tmp_path / "x.npz"), atol=1e-6)
    law = drawing.opened(str(dreams)).learner().law
    noise = study.Noise(5, range(3))
    known = [noise.normal(2) for _ in range(5)]
    for moment, number in ((0, 0), (10, 4), (20, 2)):
        assert torch.allclose(seen[moment].at, law[0] + law[1] * known[number] + torch.tensor([3.0, 0.0]), atol=1e-5)
    steps = [float((a.at - b.at).abs().max()) for a, b in zip(seen, [*seen[1:], seen[0]], strict=True)]
    assert max(steps) < 1.5  # nowhere a jump, nor from the last frame to the first


def test_a_morph_keeps_positions_while_conditions_go_to_the_next_and_back(dreams, seen, tmp_path):
    words = ("--movie", "morph", "--shift", "0,10,-10", "--frames", 5, "-n", 2)
    assert call_quietly("draw", dreams, *words, "-o", tmp_path / "x.gif")[0] == 0
    moved = torch.stack([moment.at - seen[0].at for moment in seen])
    assert torch.allclose(moved[:, :, 1], torch.zeros(15, 2))
    expected = [0, 2, 4, 6, 8, 10, 6, 2, -2, -6, -10, -8, -6, -4, -2]
    assert torch.allclose(moved[:, :, 0], torch.tensor(expected).float()[:, None].expand(15, 2), atol=1e-5)


def test_the_frames_of_a_morph_say_between_which_conditions_they_stand(dreams, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(drawing, "captioned", lambda frames, words: said.extend(words) or movie.captioned(frames, words))
    words = ("--movie", "morph", "--shift", "1,2", "--frames", 4)
    assert call_quietly("draw", dreams, *words, "-o", tmp_path / "x.gif")[0] == 0
    assert said[:2] == ["shift 1 \N{RIGHTWARDS ARROW} shift 2: 0 %", "shift 1 \N{RIGHTWARDS ARROW} shift 2: 25 %"]
    assert said[4] == "shift 2 \N{RIGHTWARDS ARROW} shift 1: 0 %"
    count, (_, height) = frames_of(tmp_path / "x.gif")
    assert count == 8
    assert height > movie.SEEN


def test_words_stand_below_the_frame_in_black_on_white_and_inside_it():
    frames = np.full((2, 8, 20, 3), 90, np.uint8)
    page = movie.captioned(frames, ["short", "a long line that has to be broken several times because the frame is narrow " * 2])
    strip = page[:, 32 * 8 :]
    assert (page[:, : 32 * 8] == 90).all()
    for words in strip:
        assert words.min() < 60
        assert (words[[0, -1]] == 255).all()
        assert (words[:, [0, -1]] == 255).all()
    assert (strip[1] < 128).sum() > 10 * (strip[0] < 128).sum()


def test_truncation_goes_to_the_most_typical_sample_and_back(dreams, seen, tmp_path):
    words = ("--movie", "truncation", "--frames", 4, "-n", 2, "--shift", 1)
    assert call_quietly("draw", dreams, *words, "-o", tmp_path / "x.gif")[0] == 0
    centre = seen[4].at
    assert torch.equal(centre[0], centre[1])
    share = torch.stack([(moment.at - centre)[:, 0] / (seen[0].at - centre)[:, 0] for moment in seen])
    assert torch.allclose(share, torch.tensor([1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75])[:, None].expand(8, 2), atol=1e-4)


def test_truncated_samples_spread_less_and_those_at_1_are_the_ordinary_draws(dreams, tmp_path):
    for psi in (None, 1.0, 0.5):
        words = () if psi is None else ("--truncation", psi)
        assert call_quietly("draw", dreams, "-n", 200, *words, "-o", tmp_path / f"{psi}.npz")[0] == 0
    plain, whole, half = (drawn(tmp_path / f"{psi}.npz") for psi in (None, 1.0, 0.5))
    assert np.array_equal(plain, whole)
    assert np.allclose(half - half.mean(0), (plain - plain.mean(0)) / 2, atol=1e-4)
    code, _, _ = call_quietly("draw", dreams, "--truncation", 0.5, "-o", tmp_path / "x.png")
    assert code == 0


def test_a_movie_does_not_depend_on_how_moments_share_a_pass(dreams):
    source = drawing.opened(str(dreams))
    learner = source.learner()
    moments = list(travels.morphing(travels.positions(2, 0, 3, [0])[0], dreamer.ask(source.recipe, 2, {"shift": "0,5"}), ["a", "b"], 7))
    told = []
    for block in (1, 7, 64):
        seen = [samples.at for _, samples in travels.imagined(learner, moments, torch.device("cpu"), block)]
        told.append(torch.stack(seen))
    assert told[0].shape == (14, 3, 2)
    assert torch.allclose(told[0], told[1])
    assert torch.allclose(told[0], told[2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--movie", "morph"), "separated by commas (--shift)"),
        (("--movie", "morph", "--shift", "2"), "a morph goes from one condition to another"),
        (("--movie", "morph", "--shift", "2,2"), "a morph goes from one condition to another"),
        (("--movie", "trace"), "gives no movie called 'trace'; it gives path and morph and truncation"),
        (("--through", "3"), "at least two numbers of random positions"),
        (("--through", "0,-1"), "at least two numbers of random positions"),
        (("--images", "x.npz"), "without --images its path is through random ones"),
        (("--truncation", "0"), "truncation 0 is not above 0 and at most 1"),
        (("--truncation", "1.5", "-o", "x.npz"), "truncation 1.5 is not above 0"),
        (("-n", "37"), "at most 36 samples side by side"),
    ],
)
def test_travels_that_cannot_be_made_are_refused_in_words(dreams, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = call_quietly("draw", dreams, "-o", "x.gif", *words)
    assert code == 3
    assert said in err
    assert not list(tmp_path.iterdir())


def test_what_does_not_imagine_is_not_truncated(run_folder, tmp_path):
    for ending in ("npz", "gif"):
        code, _, err = call_quietly("draw", run_folder, "--truncation", 0.5, "-o", tmp_path / f"x.{ending}")
        assert code == 3
        assert "leave --truncation out" in err
