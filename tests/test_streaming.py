"""A file that is drawn block by block: the same rows as at once, on from where it stopped, and never half a file under its name."""

import dataclasses
import json
import os
import signal

import pytest

from simulacra import drawing, pipeline, streaming
from simulacra.study import Refused
from simulacra.training import device_of
from toys import gaussian


def text(points, ending):
    return "".join(f"{x:.9g} {y:.9g}\n" for x, y in points.at.tolist())


ASKED = dataclasses.replace(
    gaussian.study, formats=(".txt",), line_formats=(".txt",), header=lambda ending: "x y\n", lines=text,
    tally=lambda points: {"are right of the middle": int((points.at[:, 0] > 0).sum())},
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return pipeline.run("toys.gaussian", "quick", gaussian.study.recipes["quick"].model_copy(update={"steps": 5}), folder)[0]


@pytest.fixture
def source(run, monkeypatch):
    monkeypatch.setattr(streaming, "FROM", 300)
    return dataclasses.replace(drawing.opened(str(run.path)), asked=ASKED)


def order(source, rows=1000, seed=3, **conditions):
    return streaming.Order(str(source.place.path), {}, conditions, seed, rows, ".txt", 128)


def test_blocks_hold_the_rows_that_are_drawn_at_once(source, tmp_path):
    outcome = streaming.stream(source, order(source), tmp_path / "out.txt", workers=1)
    learner = source.learner()
    at_once = pipeline.draw_like(learner, ASKED.ask(source.recipe, 1000, {}), seed=3, device=device_of("cpu"))
    assert (tmp_path / "out.txt").read_text() == "x y\n" + text(at_once, ".txt")
    assert outcome.rows == 1000
    assert outcome.finished
    assert outcome.lines() == [f"{int((at_once.at[:, 0] > 0).sum())} of 1,000 are right of the middle"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_a_stopped_draw_goes_on_and_ends_with_the_same_file(source, tmp_path):
    whole, out = tmp_path / "whole.txt", tmp_path / "out.txt"
    full = streaming.stream(source, order(source), whole, workers=1)

    def interrupt(done, losses, rate):
        if done == 384:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = streaming.stream(source, order(source), out, workers=1, watch=interrupt)
    assert (outcome.rows, outcome.finished) == (384, False)
    assert not out.exists()
    with open(tmp_path / "out.txt.part", "ab") as file:
        file.write(b"half a li")  # as a kill within a write leaves it
    again = streaming.stream(source, order(source), out, workers=1)
    assert again == full
    assert out.read_bytes() == whole.read_bytes()


def test_the_order_in_which_fields_are_changed_makes_no_other_draw(source, tmp_path):
    def drawn(changes, **more):
        changed = dataclasses.replace(order(source), changes=changes)
        return streaming.stream(source.changed(changes), changed, tmp_path / "out.txt", workers=1, **more)

    assert not drawn({"device": "cpu", "threads": 1}, watch=lambda *_: os.kill(os.getpid(), signal.SIGTERM)).finished
    assert drawn({"threads": 1, "device": "cpu"}).finished


def test_the_unfinished_file_of_another_draw_is_not_touched(source, tmp_path):
    out = tmp_path / "out.txt"
    streaming.stream(source, order(source), out, workers=1, watch=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = (tmp_path / "out.txt.part").read_bytes()
    with pytest.raises(Refused, match="another draw"):
        streaming.stream(source, order(source, seed=4), out, workers=1)
    assert (tmp_path / "out.txt.part").read_bytes() == before


LEDGERS = ("{", "[]", json.dumps({"draw": "x"}), json.dumps({"draw": 1, "rows": "many", "bytes": 0, "counts": {}}))


@pytest.mark.parametrize("ledger", LEDGERS)
def test_a_damaged_ledger_is_said_to_be_one(source, tmp_path, ledger):
    (tmp_path / "out.txt.part").write_text("x y\n")
    (tmp_path / "out.txt.part.json").write_text(ledger)
    with pytest.raises(Refused, match="damaged"):
        streaming.stream(source, order(source), tmp_path / "out.txt", workers=1)


def test_a_part_that_is_shorter_than_its_ledger_says_is_refused(source, tmp_path):
    streaming.stream(source, order(source), tmp_path / "out.txt", workers=1, watch=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    (tmp_path / "out.txt.part").write_text("x y\n")
    with pytest.raises(Refused, match="does not hold what"):
        streaming.stream(source, order(source), tmp_path / "out.txt", workers=1)


def test_only_long_files_of_lines_are_written_in_blocks(source, tmp_path):
    assert streaming.fits(source, tmp_path / "out.txt", 300)
    assert not streaming.fits(source, tmp_path / "out.txt", 299)
    assert not streaming.fits(source, tmp_path / "out.npz", 300)
    assert not streaming.fits(dataclasses.replace(source, asked=gaussian.study), tmp_path / "out.txt", 300)
    with pytest.raises(Refused, match="no folder"):
        streaming.stream(source, order(source), tmp_path / "none" / "out.txt", workers=1)
