"""Conditional generation: what is asked, what was achieved, the baselines, and the regressor that judges."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from simulacra.sciences.molecules import conditional, data, edm, simulate
from simulacra.sciences.molecules.conditional import achieved, asked_like, check, column, finding, judged, known, measured, sweep
from simulacra.sciences.molecules.data import PROPERTIES, Molecule, Molecules, stacked
from simulacra.sciences.molecules.regressor import Effort, Regressor, fitted, labels, remembered, restored
from simulacra.study import Noise, Refused

GYRATION, GAP = (PROPERTIES.index(name) for name in ("radius_of_gyration", "gap"))
CPU = torch.device("cpu")
SMALL = Effort(width=24, depth=2, steps=600, batch=8, lr=4e-3, ema=0.98)


def chains(count, seed, atoms=(3, 12)):
    """Loose random clouds of C, H, N, O of many sizes: nature enough to have a radius of gyration."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        k = int(rng.integers(*atoms))
        numbers = np.sort(rng.choice([1, 6, 7, 8], k))[::-1].astype(np.uint8)
        positions = rng.normal(0, 1, (k, 3)) * rng.uniform(0.6, 2.0, (1, 3))
        found.append(Molecule(numbers, positions.astype(np.float32), np.zeros(k, np.int8), np.zeros((k, k), np.int8)))
    return stacked(found)


def with_gap(molecules, values):
    properties = molecules.properties.clone()
    properties[:, GAP] = torch.as_tensor(values, dtype=torch.float32)
    return dataclasses.replace(molecules, properties=properties)


@pytest.fixture(scope="module")
def nature():
    return chains(300, 1)


@pytest.fixture(scope="module")
def others():
    return chains(900, 2)


class Obedient:
    """Draws a cloud of the size asked for and stretches it to the radius of gyration asked for."""

    def draw(self, like: Molecules, noise: Noise) -> Molecules:
        there = (like.numbers > 0).float()[..., None]
        positions = noise.normal(like.numbers.shape[1], 3) * there
        positions = (positions - positions.sum(1, keepdim=True) / there.sum(1, keepdim=True)) * there
        now = data.geometric_properties(like.numbers.numpy(), positions.numpy())[:, GYRATION]
        factor = like.properties[:, GYRATION] / torch.from_numpy(now)
        return dataclasses.replace(like, positions=positions * factor[:, None, None])


class Deaf:
    """Draws from `stock` whatever is asked; with `sizes`, of the size that is asked."""

    def __init__(self, stock, sizes):
        self.stock, self.sizes = stock, sizes

    def draw(self, like, noise):
        dice = noise.uniform(1)[:, 0]
        rows = []
        for size, u in zip(like.bucket.tolist(), dice.tolist(), strict=True):
            fitting = torch.nonzero(self.stock.bucket == size).flatten() if self.sizes else torch.arange(len(self.stock))
            rows.append(int(fitting[int(u * len(fitting))]))
        return self.stock[rows]


# ------------------------------------------------------------------------------------------------------------------- asking


def test_a_template_tells_sizes_and_the_properties_asked_and_nothing_else(nature):
    template = asked_like(nature, ["radius_of_gyration"])
    assert torch.equal(template.bucket, nature.bucket)
    assert torch.equal(template.heavy, nature.heavy)
    assert set(template.numbers.unique().tolist()) <= {0, 1, 6}
    assert not template.positions.any()
    assert not template.bonds.any()
    assert not template.given.any()
    assert torch.equal(template.properties[:, GYRATION], nature.properties[:, GYRATION])
    assert template.properties.isnan().sum(1).eq(len(PROPERTIES) - 1).all()
    template.check()


def test_along_a_sweep_the_random_start_is_the_same():
    found = sweep(Obedient(), "radius_of_gyration", [1.0, 1.5, 2.0], atoms=7, heavy=3, noises=2, seed=5)
    assert (found.drawn.bucket == 7).all()
    assert (found.drawn.heavy == 3).all()
    shape = found.drawn.positions / found.drawn.positions.flatten(1).norm(dim=1)[:, None, None]
    assert torch.allclose(shape[0], shape[2], atol=1e-6)  # first noise: values 1.0 and 2.0
    assert torch.allclose(shape[3], shape[5], atol=1e-6)  # second noise
    assert not torch.allclose(shape[0], shape[3], atol=1e-2)
    np.testing.assert_allclose(measured(found.drawn, "radius_of_gyration", None), [1, 1.5, 2, 1, 1.5, 2], rtol=1e-5)


def test_a_sweep_of_more_heavy_atoms_than_atoms_is_refused():
    with pytest.raises(Refused, match="8 heavy atoms of 7"):
        sweep(Obedient(), "gap", [1.0], atoms=7, heavy=8, noises=1, seed=0)


# ---------------------------------------------------------------------------------------------------------------- achieving


def test_a_learner_that_draws_what_is_asked_has_no_error(nature, others):
    findings, checks = judged(Obedient(), ["radius_of_gyration"], nature, others, regressor=None, count=100, seed=0)
    assert checks[0].value < 1e-5
    assert checks[0].met
    assert checks[0].beside["real data"] < 1e-5
    assert abs(findings[0].gap) < 1e-3
    np.testing.assert_allclose(findings[0].drawn, findings[0].grid, rtol=1e-5)


def test_a_learner_that_ignores_everything_has_the_error_of_shuffled_labels(nature, others):
    _, checks = judged(Deaf(chains(3000, 3), sizes=False), ["radius_of_gyration"], nature, others, regressor=None, count=300, seed=0)
    assert not checks[0].met
    assert checks[0].value == pytest.approx(checks[0].beside["shuffled labels"], abs=4 * checks[0].error)


def test_a_learner_that_listens_to_the_size_alone_has_a_gap_of_one(nature, others):
    stock = chains(3000, 4)
    findings, checks = judged(Deaf(stock, sizes=True), ["radius_of_gyration"], nature, others, regressor=None, count=300, seed=0)
    assert not checks[0].met
    assert checks[0].value == pytest.approx(checks[0].beside["property ignored"], abs=4 * checks[0].error)
    assert findings[0].gap_low < 1 < findings[0].gap_high


def test_the_baselines_are_what_their_definitions_say():
    few = with_gap(chains(40, 5, atoms=(4, 6)), np.arange(40.0))
    one = few[few.bucket == 4]
    others = with_gap(chains(60, 6, atoms=(4, 5)), np.linspace(0, 10, 60))
    stub = Regressor(["gap"], torch.tensor([1]), torch.tensor([3.0]), torch.tensor([1.0]), Flat())
    outcome = achieved(few, few, "gap", regressor=stub, others=others)
    asked = np.arange(40.0)
    baselines = outcome.baselines()
    assert baselines["real data"] == pytest.approx(np.abs(asked - 3).mean())
    assert baselines["shuffled labels"] == pytest.approx(np.mean([abs(3 - b) for a in range(40) for b in asked if b != a]))
    assert baselines["number of atoms only"] == pytest.approx(np.abs(asked - 5).mean(), abs=1e-5)  # all others have four atoms: median 5
    assert baselines["property ignored"] == pytest.approx(np.abs(asked[:, None] - column(others, "gap")).mean())
    assert outcome.error == pytest.approx(np.abs(asked - 3).mean())
    assert len(one) > 5  # of both sizes: to those with five atoms the nearest size is told


class Flat(torch.nn.Module):
    """Says 0 of every molecule."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, h):
        return torch.zeros(len(x), 1)


def test_where_the_regressor_is_no_better_than_chance_floor_and_ceiling_say_so(nature, others):
    labelled, more = (with_gap(m, np.random.default_rng(k).normal(6, 1, len(m))) for k, m in enumerate((nature, others)))
    stub = Regressor(["gap"], torch.tensor([1]), torch.tensor([6.0]), torch.tensor([1.0]), Flat())
    found = finding(achieved(labelled, nature, "gap", regressor=stub, others=more), seed=0)
    assert found.floor == pytest.approx(found.distance)
    assert found.floor < found.ceiling
    assert found.unit == "eV"


def test_too_few_labels_are_said_in_a_check_and_not_drawn(nature, others):
    findings, checks = judged(None, ["gap"], nature, others, regressor=None, count=100, seed=0)
    assert not findings
    assert np.isnan(checks[0].value)
    assert not checks[0].met
    assert "0 held-out molecules have labels" in checks[0].target


def test_a_property_that_needs_a_regressor_is_refused_without_one(nature):
    with pytest.raises(Refused, match="regressor"):
        measured(nature, "gap", None)


def test_rows_without_labels_and_other_counts_are_refused(nature, others):
    with pytest.raises(Refused, match="no value of gap"):
        achieved(nature, nature, "gap", regressor=None, others=others)
    with pytest.raises(Refused, match="299 molecules drawn"):
        achieved(nature, nature[1:], "radius_of_gyration", regressor=None, others=others)


def test_the_check_tells_error_and_baselines_in_units(nature, others):
    outcome = achieved(nature, nature, "radius_of_gyration", regressor=None, others=others)
    found = check(outcome)
    assert found.name == "mean error of radius of gyration (Angstrom)"
    assert {"shuffled labels", "property ignored", "number of atoms only", "real data"} <= found.beside.keys()
    assert found.beside["number of atoms only"] < found.beside["property ignored"]
    assert found.beside["number of atoms only"] < found.beside["shuffled labels"]


def test_the_figure_of_a_sweep_is_a_picture(others):
    made = conditional.swept(Obedient(), "radius_of_gyration", others, regressor=None, seed=0)
    assert made.image[:8] == b"\x89PNG\r\n\x1a\n"
    assert "computed from the positions" in made.caption
    assert "lie outside" not in made.caption


# ---------------------------------------------------------------------------------------------------------------- regressor


@pytest.fixture(scope="module")
def untrained(nature):
    return Regressor.untrained(["gap"], with_gap(nature, np.linspace(4, 9, len(nature))), SMALL).double()


def test_predictions_know_no_rotation_reflection_translation_or_order(untrained, nature):
    some = nature[:40]
    before = _predicted(untrained, some.positions.double(), some.numbers)
    assert before.std() > 1e-3
    turn = torch.from_numpy(Rotation.random(rng=3).as_matrix())
    there = (some.numbers > 0)[..., None]
    moved = (some.positions.double() @ turn.T * torch.tensor([-1.0, 1, 1]) + torch.tensor([3.0, -2, 5])) * there
    assert (_predicted(untrained, moved, some.numbers) - before).abs().max() < 1e-9
    order = torch.stack([_shuffled(int(k), some.numbers.shape[1]) for k in some.bucket])
    mixed = some.positions.double().gather(1, order[..., None].expand(-1, -1, 3))
    assert (_predicted(untrained, mixed, some.numbers.gather(1, order)) - before).abs().max() < 1e-9


def _predicted(regressor, positions, numbers):
    """Past Molecules, which holds float32 and keeps heavy atoms first."""
    loose = object.__new__(Molecules)
    fields = {"numbers": numbers, "positions": positions}
    for name, value in fields.items():
        object.__setattr__(loose, name, value)
    found = []
    for row in range(len(numbers)):
        one = object.__new__(Molecules)
        for name, value in fields.items():
            object.__setattr__(one, name, value[row : row + 1])
        found.append(regressor.standardised(one, regressor.network))
    return torch.cat(found)


def _shuffled(atoms, width):
    return torch.cat([torch.randperm(atoms, generator=torch.Generator().manual_seed(atoms)), torch.arange(atoms, width)])


def test_padding_and_neighbours_change_no_prediction(untrained, nature):
    from simulacra.nets.invariant import InvariantEGNN

    net: InvariantEGNN = untrained.network
    one = nature[nature.bucket == 5][:1]
    kinds = (one.numbers[..., None].long() == untrained.elements).double()
    alone = net(one.positions[:, :5].double(), kinds[:, :5])
    mask = (one.numbers > 0).double()
    stray = one.positions.double() + 9 * (1 - mask)[..., None]
    padded = net(stray, kinds, mask)
    assert (alone - padded).abs().max() < 1e-9
    assert torch.allclose(untrained(nature)[7:8], untrained(nature[7:8]), atol=1e-12)


def test_the_gradient_reaches_every_weight(untrained, nature):
    some = nature[nature.bucket == 7]
    untrained.standardised(some, untrained.network).square().sum().backward()
    silent = [name for name, p in untrained.network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.fixture(scope="module")
def trained():
    """Trained on molecules made by rule, and others of them kept back."""
    molecules = simulate.simulated(500, seed=0)
    train, _, kept = data.divide(molecules)
    training, held_out = molecules[torch.from_numpy(train)], molecules[torch.from_numpy(kept)]
    return fitted(training, ["radius_of_gyration"], SMALL, CPU), training, held_out


def test_a_property_that_positions_decide_is_learned(trained):
    regressor, _, held_out = trained
    told, truth = regressor(held_out)[:, 0], labels(held_out, ["radius_of_gyration"])[:, 0]
    assert len(truth) >= 30
    assert 1 - (told - truth).square().sum() / (truth - truth.mean()).square().sum() > 0.9


def test_training_again_gives_the_same_weights(nature):
    short = dataclasses.replace(SMALL, steps=5)
    one, two = (fitted(nature, ["radius_of_gyration"], short, CPU).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    other = fitted(nature, ["radius_of_gyration"], dataclasses.replace(short, seed=1), CPU).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_training_leaves_the_random_numbers_and_threads_of_others_alone(nature):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    fitted(nature, ["radius_of_gyration"], dataclasses.replace(SMALL, steps=2), CPU)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_a_regressor_is_remembered_and_made_anew_where_its_file_is_damaged(nature, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "SIMULACRA_CACHE", str(tmp_path))
    short = dataclasses.replace(SMALL, steps=3)
    first = remembered(nature, ["radius_of_gyration"], short, CPU)
    (file,) = tmp_path.glob("regressor-*.safetensors")
    again = restored(["radius_of_gyration"], first.state_dict(), short, CPU)
    assert torch.equal(again(nature), first(nature))
    stamp = file.stat().st_mtime_ns
    assert torch.equal(remembered(nature, ["radius_of_gyration"], short, CPU)(nature), first(nature))
    assert file.stat().st_mtime_ns == stamp  # read, not trained again
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(remembered(nature, ["radius_of_gyration"], short, CPU)(nature), first(nature))
    remembered(nature[1:], ["radius_of_gyration"], short, CPU)
    assert len(list(tmp_path.glob("regressor-*.safetensors"))) == 2  # other molecules, another file


def test_a_regressor_without_labels_is_refused(nature):
    with pytest.raises(Refused, match="all labelled"):
        fitted(nature, ["gap"], SMALL, CPU)


# -------------------------------------------------------------------------------------------------------------------- halves


def test_the_judge_and_the_generator_share_no_molecule(others):
    labelled = with_gap(others, np.where(np.arange(len(others)) % 3, np.arange(len(others)), np.nan))
    one, two = (edm.half_of(labelled, ["gap"], which) for which in (0, 1))
    first, second = (set(half.properties[:, GAP].tolist()) for half in (one, two))
    assert not first & second
    assert len(first | second) == len(known(labelled, ["gap"])) == 600


def test_a_conditional_run_is_judged_by_what_it_was_asked_for():
    recipe = edm.EDMRecipe(
        width=8, depth=1, walk=4, steps=2, batch=16, draws=24, simulated=400, condition=("radius_of_gyration",), device="cpu"
    )
    split = edm.load(recipe)
    learner = edm.build(recipe, split.train)
    others, regressor = edm._judge(recipe)
    assert regressor is None  # positions decide
    assert not set(data.connectivity(others)) & set(data.connectivity(split.held_out))
    findings, checks = edm.examine(learner, split, 0)
    assert [f.name for f in findings] == ["achieved radius of gyration"]
    judged_by = [c for c in checks if c.name.startswith("mean error")]
    assert not judged_by[0].met  # two steps teach nothing
    assert judged_by[0].beside["real data"] < 1e-6 < judged_by[0].beside["number of atoms only"]
    assert [f.title for f in edm.figures(learner, split, 0)] == ["Sweep of radius of gyration"]
