"""Weights that ship: small, checked, described, and silent about the folders of whoever trained them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from simulacra import drawing, pipeline, study, weights
from simulacra.runs import Damaged, Run
from simulacra.study import Refused


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on a file of somebody's own."""
    folder = tmp_path_factory.mktemp("private")
    data = folder / "secret_project.npz"
    np.savez(data, at=np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32))
    recipe = study.find("toys.walker").recipes["quick"].model_copy(update={"data": data})
    return pipeline.run("toys.walker", "quick", recipe, folder / "run")[0]


@pytest.fixture
def shipped(run, tmp_path):
    return drawing.ship(run, tmp_path / "toys.walker")


def test_only_what_drawing_needs_is_shipped_with_its_digest(shipped, run):
    assert set(run.state()[1]) == {"law", "seen"}
    assert set(shipped.state()) == {"law"}
    assert torch.equal(shipped.state()["law"], run.state()[1]["law"])
    assert sorted(p.name for p in shipped.path.iterdir()) == ["card.json", "weights.safetensors"]


def test_the_card_says_what_was_trained_on_what_how_long_where_and_how_well(shipped, run):
    card = json.loads((shipped.path / "card.json").read_text())
    assert (card["study"], card["recipe_name"], card["recipe"]["batch"], card["training"]["steps"]) == ("toys.walker", "quick", 64, 20)
    assert card["data"]["files"] == run.read_json("data.lock")["files"]
    assert card["training"]["machine"]["cores"] >= 1
    assert set(card["verdict"]["gaps"]) == {f.name for f in run.evidence().findings}
    assert card["weights"]["parameters"] == 4
    assert weights.read(shipped.path).sentence() == shipped.sentence()


def test_the_card_names_the_data_file_and_not_the_folder_it_lay_in(shipped, run):
    text = (shipped.path / "card.json").read_text()
    assert "secret_project.npz" in text
    assert str(run.path.parent) not in text
    assert "command" not in json.loads(text)["training"]["machine"]


def test_altered_weights_and_altered_cards_are_refused(shipped):
    path = shipped.path / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Damaged, match="is not what its card describes"):
        drawing.opened(str(shipped.path)).learner()
    path.unlink()
    with pytest.raises(Damaged, match="cannot be read"):
        drawing.opened(str(shipped.path)).learner()
    for text in ("{", "[]", "{}", json.dumps({**shipped.card, "recipe": 3}), json.dumps({**shipped.card, "recipe": {"stepz": 1}})):
        (shipped.path / "card.json").write_text(text)
        with pytest.raises(Damaged, match=r"card\.json"):
            drawing.opened(str(shipped.path))


def test_a_card_does_not_choose_what_code_runs(shipped):
    (shipped.path / "card.json").write_text(json.dumps({**shipped.card, "study": "os.path"}))
    with pytest.raises(Refused, match="not part of simulacra"):
        drawing.opened(str(shipped.path))


def test_large_weights_are_not_shipped(run, tmp_path, monkeypatch):
    with pytest.raises(Refused, match=r"take 12\.4 MB, and at most 12 MB"):
        weights.write(tmp_path / "large", run, {"law": torch.zeros(3_100_000)})
    assert not (tmp_path / "large").exists()


def test_a_study_that_cannot_restore_ships_nothing(tmp_path):
    recipe = study.find("toys.gaussian").recipes["quick"].model_copy(update={"steps": 2})
    done, _ = pipeline.run("toys.gaussian", "quick", recipe, tmp_path / "run")
    with pytest.raises(Refused, match="cannot make a learner from weights alone"):
        drawing.ship(done, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_threads_and_device_of_the_training_machine_are_not_asked_of_others(run, tmp_path):
    path = run.path / "recipe.json"
    before = path.read_text()
    about = json.loads(before)
    path.write_text(json.dumps({**about, "recipe": {**about["recipe"], "threads": 3, "device": "cuda"}}))
    try:
        weights.write(tmp_path / "w", Run(run.path), {"law": torch.zeros(2, 2)})
    finally:
        path.write_text(before)
    recipe = drawing.opened(str(tmp_path / "w")).recipe
    assert (recipe.threads, recipe.device) == (0, "auto")


@pytest.mark.parametrize("name", weights.names())
def test_what_ships_with_the_package_fits_and_draws(name):
    source = drawing.opened(name)
    assert name in study.names()
    assert (weights.find(name).path / weights.WEIGHTS).stat().st_size <= weights.LARGEST
    learner = source.learner()
    like = drawing.template(source, learner, 2, {})
    assert len(pipeline.draw_like(learner, like, seed=0, device=pipeline.device_of("cpu"))) == 2


def test_naming_shipped_weights_imports_no_torch():
    code = "import sys; from simulacra import weights; weights.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
