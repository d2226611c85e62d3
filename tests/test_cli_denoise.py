"""`simulacra denoise` as a user meets it: own traces in, recovered signals out."""

import dataclasses

import numpy as np
import pytest
import torch

from simulacra import drawing, study, weights
from simulacra.sciences.airshower import framing, reading, simulate
from simulacra.study import Study
from test_cli import call_quietly


class Halver:
    """Recovers half of what was measured; sure of a pulse where a trace is positive on the whole."""

    def draw(self, like, noise):
        presence = (like.measured.sum(1) > 0).float()
        return dataclasses.replace(like, signal=like.measured / 2, spread=torch.ones_like(like.measured), presence=presence)


class Source(drawing.Source):
    """A source that needs no training."""

    def learner(self):
        return Halver()

    def sentence(self):
        return f"halves for {self.recipe.length} steps"


@pytest.fixture
def halved(monkeypatch):
    """The command with the halver in place of whatever RUN names; returns what it was asked to open."""
    asked = Study("", "", {}, {}, build=None, **framing.SYSTEM)
    opened = []

    def opening(what):
        opened.append(what)
        return Source("airshower.halver", asked, framing.TraceRecipe(), None)

    monkeypatch.setattr(drawing, "opened", opening)
    return opened


@pytest.fixture
def mine(tmp_path):
    """130 traces with a dead channel, a broken one and a clipped one."""
    volts = simulate.simulate(130, seed=9).measured.numpy()
    volts[3] = 0
    volts[64, 0] = np.nan
    volts[100] = np.clip(volts[100], -0.1, 0.1)
    np.savez(tmp_path / "mine.npz", traces=volts, rate=180.0)
    return tmp_path / "mine.npz", volts


@pytest.mark.parametrize("ending", [".npz", ".h5", ".csv"])
def test_every_trace_of_the_input_has_its_row_in_the_output(halved, mine, tmp_path, ending):
    path, volts = mine
    code, out, err = call_quietly("denoise", path, "-o", tmp_path / f"clean{ending}")
    assert code == 0, err
    assert halved == ["airshower.denoiser"]
    bad = [3, 64]
    good = np.setdiff1d(np.arange(130), bad)
    written = reading._content(tmp_path / f"clean{ending}", None)
    assert written["signal"].shape == (130, 500)
    assert np.allclose(written["signal"][good], volts[good] / 2, atol=1e-7)
    assert (written["spread"][good] == 1).all()
    assert (written["presence"][good] == (volts[good].sum(axis=1) > 0)).all()
    assert all(np.isnan(written[name][bad]).all() for name in ("signal", "spread", "presence"))
    said = " ".join(out.split())
    for words in (
        "halves for 500 steps", "set aside: ", "trace 3 is from a dead channel", "trace 64 holds values that are not numbers",
        "Warning: 1 of 128 traces are clipped", f"128 traces denoised: {int((volts[good].sum(axis=1) > 0).sum())} hold a pulse",
        "2 set aside, nan in the file; 1 of them from dead channels", "traces/s", "wrote ",
    ):  # fmt: skip
        assert words in said


def test_quiet_leaves_the_warning_and_what_was_found(halved, mine, tmp_path):
    _, out, _ = call_quietly("denoise", mine[0], "-o", tmp_path / "clean.npz", "-q", "--run", "runs/mine")
    assert halved == ["runs/mine"]
    assert "halves" not in out
    assert "traces/s" not in out
    assert "Warning: 1 of 128" in out
    assert "128 traces denoised" in out


def test_a_rate_can_be_said_and_a_window_taken_from_longer_traces(halved, tmp_path):
    volts = np.random.default_rng(1).normal(0, 0.1, (5, 700)).astype(np.float32)
    np.savetxt(tmp_path / "mine.csv", volts, delimiter=",", fmt="%.9g")
    for words, said in (
        ((), "say it: --rate 180"), (("--rate", 180), "--start 100 takes the middle"), (("--rate", 90, "--start", 0), "90 MHz"),
    ):  # fmt: skip
        code, _, err = call_quietly("denoise", tmp_path / "mine.csv", "-o", tmp_path / "clean.npz", *words)
        assert code == 3
        assert said in err
    code, _, err = call_quietly("denoise", tmp_path / "mine.csv", "-o", tmp_path / "clean.npz", "--rate", 180, "--start", 150)
    assert code == 0, err
    assert np.allclose(np.load(tmp_path / "clean.npz")["signal"], volts[:, 150:650] / 2, atol=1e-7)


def test_traces_of_another_level_are_scaled_for_the_model_and_what_it_recovers_is_scaled_back(halved, tmp_path, monkeypatch):
    volts = 40 * simulate.simulate(64, seed=3).measured.numpy()
    np.savez(tmp_path / "mine.npz", traces=volts, rate=180.0)
    seen = []
    plain = Halver.draw
    monkeypatch.setattr(Halver, "draw", lambda self, like, noise: seen.append(like.measured) or plain(self, like, noise))
    code, out, _ = call_quietly("denoise", tmp_path / "mine.npz", "-o", tmp_path / "clean.npz")
    assert code == 0
    assert "times as strong as what the model learned from" in " ".join(out.split())
    assert seen[0].square().mean().sqrt() == pytest.approx(simulate.LEVEL, rel=0.1)
    with np.load(tmp_path / "clean.npz") as written:
        assert np.allclose(written["signal"], volts / 2, rtol=1e-4, atol=1e-5)
        assert written["spread"] == pytest.approx(np.full(volts.shape, written["spread"][0, 0]))
        assert written["spread"][0, 0] == pytest.approx(np.median(volts.std(axis=1)) / simulate.LEVEL, rel=0.01)


def test_pulses_nearly_everywhere_are_told_to_be_suspicious(halved, tmp_path):
    volts = np.abs(simulate.simulate(40, seed=3).measured.numpy())
    for sign, suspicious in ((1, True), (-1, False)):
        np.savez(tmp_path / "mine.npz", traces=sign * volts, rate=180.0)
        out = call_quietly("denoise", tmp_path / "mine.npz", "-o", tmp_path / "clean.npz")[1]
        assert ("your noise is not what the model learned from" in " ".join(out.split())) == suspicious


def test_what_cannot_be_denoised_or_written_is_refused_before_anything_is_computed(halved, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(Halver, "draw", lambda *_: pytest.fail("the learner was asked"))
    path = mine[0]
    for words, code, said in (
        ((path,), 2, "say with -o which file"),
        ((path, "-o", tmp_path / "clean.txt"), 3, "choose .npz, .h5, .hdf5, .csv"),
        ((path, "-o", tmp_path / "no" / "clean.h5"), 3, "there is no folder"),
        ((path, "-o", path), 3, "is the file of the measurements"),
        ((tmp_path / "nothing.h5", "-o", tmp_path / "clean.h5"), 3, "no such file"),
    ):
        got, _, err = call_quietly("denoise", *words)
        assert got == code
        assert said in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.npz"]


def test_a_study_that_does_not_denoise_says_which_do(tmp_path, mine, monkeypatch):
    asked = dataclasses.replace(Study("", "", {}, {}, build=None, **framing.SYSTEM), denoises=None)
    monkeypatch.setattr(drawing, "opened", lambda what: Source("toys.halver", asked, framing.TraceRecipe(), None))
    monkeypatch.setattr(study, "names", lambda: ["airshower.denoiser", "ising.gan"])
    code, _, err = call_quietly("denoise", mine[0], "-o", tmp_path / "clean.h5")
    assert code == 3
    assert "toys.halver denoises nothing; airshower.denoiser does" in err


def test_help_teaches_the_file_and_what_is_written():
    said = " ".join(call_quietly("denoise", "--help")[1].split())
    for words in ("simulacra denoise traces.h5 -o clean.h5", "# rate 180", "presence", "spread", "--start", "--rate", "--run"):
        assert words in said


@pytest.mark.skipif("airshower.denoiser" not in weights.names(), reason="no weights of airshower.denoiser ship with this package")
def test_the_weights_that_ship_find_strong_pulses_and_leave_noise_alone(tmp_path):
    found = simulate.simulate(256, seed=1 << 22)
    np.savez(tmp_path / "mine.npz", traces=found.measured.numpy(), rate=180.0)
    code, out, err = call_quietly("denoise", tmp_path / "mine.npz", "-o", tmp_path / "clean.h5")
    assert code == 0, err
    assert "weights of airshower.denoiser" in " ".join(out.split())
    clean = reading.read(tmp_path / "clean.h5")
    assert ((clean.presence > 0.5) == (found.presence == 1)).float().mean() > 0.85
    assert (clean.signal - found.signal).square().mean() < 0.6 * found.signal.square().mean()
