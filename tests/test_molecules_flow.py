"""molecules.flow: what a molecule becomes and comes back from, what is asked for and kept, and what a draw depends on."""

import warnings

import numpy as np
import pytest
import torch

from simulacra.sciences.molecules import exchange, flow, formats, graphs, hydrogens, protocols, simulate
from simulacra.sciences.molecules.constraints import Constraints, formula_given, template
from simulacra.sciences.molecules.data import PROPERTIES, Molecule, stacked, unstacked
from simulacra.sciences.molecules.flow import FlowRecipe
from simulacra.study import Noise, Refused

SMALL = FlowRecipe(nodes=32, pairs=16, layers=2, steps=6, batch=16, evaluations=12, lr=1e-3, device="cpu", threads=1)


@pytest.fixture(scope="module")
def training():
    return simulate.simulated(80, seed=0)


@pytest.fixture(scope="module")
def learner(training):
    torch.manual_seed(0)
    return flow.build(SMALL, training)


def same(one, two):
    return all(torch.equal(v.nan_to_num(-99.0), two.fields()[k].nan_to_num(-99.0)) for k, v in one.fields().items())


def smiles(molecules):
    return protocols.graph_smiles(molecules)[0]


# --- molecules as graphs and back ---


def test_a_molecule_taken_apart_and_put_together_is_the_same_molecule(training, learner):
    goal = graphs.encoded(training, learner.classes, placed=True)
    again = learner._whole(goal, training)
    assert smiles(again) == smiles(training)
    assert torch.equal(again.bucket, training.bucket)
    assert protocols.strict(again).valid.all()


def test_hydrogens_are_put_at_the_lengths_of_bonds_and_nothing_else_moves(training):
    for molecule in unstacked(training)[:30]:
        heavy = molecule.numbers > 1
        counts = (np.asarray(molecule.bonds)[heavy][:, ~heavy] > 0).sum(1)
        bare = Molecule(molecule.numbers[heavy], molecule.positions[heavy], molecule.charges[heavy], molecule.bonds[np.ix_(heavy, heavy)])
        full = hydrogens.place(bare, counts, np.linspace(0.95, 1.15, len(counts), dtype=np.float32))
        n = int(heavy.sum())
        assert np.allclose(full.positions[:n], bare.positions, atol=1e-5)
        lengths = np.linalg.norm(full.positions[:, None] - full.positions[None], axis=2)
        bonded = np.triu(full.bonds > 0) & ((full.numbers == 1)[:, None] | (full.numbers == 1)[None])
        owner = np.minimum(*np.nonzero(bonded))
        assert np.allclose(lengths[bonded], np.linspace(0.95, 1.15, len(counts))[owner], atol=1e-4)


def test_hydrogens_are_placed_on_molecules_that_do_not_sanitise_too():
    five = Molecule(
        np.array([6, 6, 6, 6, 6, 6], np.uint8), np.random.default_rng(0).normal(0, 1.5, (6, 3)).astype(np.float32), np.zeros(6, np.int8),
        np.array([[0, 1, 1, 1, 1, 1]] + [[1, 0, 0, 0, 0, 0]] * 5, np.int8),
    )  # fmt: skip
    full = hydrogens.place(five, np.array([1, 3, 3, 3, 3, 3]), np.full(6, 1.09, np.float32))
    assert (full.numbers == 1).sum() == 16
    assert np.isfinite(full.positions).all()
    assert not protocols.strict(stacked([full])).valid[0]


def test_hydrogens_join_any_graph_of_atoms_and_leave_the_rest_as_it_was():
    """Whatever a network draws: wrong valences, aromatic bonds outside of rings, charges that RDKit would like to move."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        n = int(rng.integers(1, 9))
        upper = np.triu((rng.random((n, n)) < 0.35) * rng.integers(1, 5, (n, n)), 1)
        wild = Molecule(
            rng.choice([6, 7, 8, 9], n).astype(np.uint8), rng.normal(0, 1.3, (n, 3)).astype(np.float32),
            rng.integers(-1, 2, n).astype(np.int8), (upper + upper.T).astype(np.int8),
        )  # fmt: skip
        counts = rng.integers(0, 4, n)
        full = hydrogens.place(wild, counts, np.full(n, 1.09, np.float32))
        assert ((full.bonds[:n, n:] > 0).sum(1) == counts).all()
        assert (full.bonds[:n, :n] == wild.bonds).all()
        assert (full.charges[:n] == wild.charges).all()
        assert np.isfinite(full.positions).all()


def test_the_hydrogen_of_an_aromatic_nitrogen_is_placed():
    ring = np.zeros((5, 5), np.int8)
    for i in range(5):
        ring[i, (i + 1) % 5] = ring[(i + 1) % 5, i] = 4
    angle = 2 * np.pi * np.arange(5) / 5
    places = 1.15 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1).astype(np.float32)
    imidazole = Molecule(np.array([7, 6, 7, 6, 6], np.uint8), places, np.zeros(5, np.int8), ring)
    full = hydrogens.place(imidazole, np.array([1, 1, 0, 1, 1]), np.full(5, 1.05, np.float32))
    assert protocols.strict(stacked([full])).valid[0]
    assert np.allclose(full.positions[5], places[0] / 1.15 * 2.2, atol=0.02)


def test_two_heavy_atoms_on_one_place_do_not_stop_the_hydrogens():
    full = hydrogens.place(
        Molecule(np.array([6, 6], np.uint8), np.zeros((2, 3), np.float32), np.zeros(2, np.int8), np.array([[0, 1], [1, 0]], np.int8)),
        np.array([3, 3]), np.full(2, 1.09, np.float32),
    )  # fmt: skip
    assert np.isfinite(full.positions).all()
    assert len(full.numbers) == 8


def test_lengths_to_hydrogens_are_the_means_of_training_by_kind_of_atom_and_bond(training, learner):
    found = {}
    for molecule in unstacked(training):
        bonded = (np.asarray(molecule.bonds) > 0) & (molecule.numbers > 1)[:, None] & (molecule.numbers == 1)
        for heavy, hydrogen in zip(*np.nonzero(bonded), strict=True):
            row = np.asarray(molecule.bonds)[heavy]
            kind = (int(molecule.numbers[heavy]), int(molecule.charges[heavy]), int((molecule.numbers[row > 0] == 1).sum()))
            highest = int(row[molecule.numbers > 1].max())
            length = np.linalg.norm(molecule.positions[heavy] - molecule.positions[hydrogen])
            found.setdefault((learner.classes.index(kind), highest), []).append(length)
    assert len(found) > 5
    assert all(abs(float(learner.lengths[key]) - np.mean(lengths)) < 1e-5 for key, lengths in found.items())


def test_an_atom_never_seen_in_training_is_refused_by_name(training, learner):
    bonds = np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], np.int8)
    sulphide = Molecule(np.array([16, 1, 1], np.uint8), np.eye(3, dtype=np.float32), np.zeros(3, np.int8), bonds)
    with pytest.raises(Refused, match="element 16"):
        graphs.encoded(stacked([sulphide]), learner.classes, placed=True)


# --- drawing ---


def test_a_drawn_molecule_does_not_depend_on_its_neighbours(training, learner):
    together = learner.draw(training[:6], Noise(3, range(6)))
    order = [4, 1, 5, 0, 2, 3]
    shuffled = learner.draw(training[order], Noise(3, order))
    assert same(shuffled[torch.tensor(order).argsort()], together)


def test_heavy_atoms_are_as_many_as_asked_for_and_another_seed_gives_another_molecule(training, learner):
    drawn, other = (learner.draw(training[:8], Noise(seed, range(8))) for seed in (0, 1))
    assert torch.equal(drawn.heavy, training[:8].heavy)
    assert not torch.equal(drawn.widened(40).positions, other.widened(40).positions)


def test_a_draw_keeps_its_size_when_the_network_turns_the_noise(learner, training):
    """The law of what is drawn knows no direction: noise turned by a rotation gives the turned molecule."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))

    class Turned(Noise):
        def normal(self, *shape):
            return super().normal(*shape) @ q

    plain, turned = learner.path(training[:4], Noise(0, range(4)))[-1], learner.path(training[:4], Turned(0, range(4)))[-1]
    assert torch.equal(plain.classes, turned.classes)
    assert (plain.positions @ q - turned.positions).abs().max() < 1e-3


def test_nature_gives_only_sizes_away(training, learner):
    """What is told to the network about held-out molecules must not hold their properties or composition."""
    told = Constraints.of(training[:5], learner.classes, learner.conditions, placed=True, atoms=9).told
    blank = training[:5]
    width = 1 + 2
    assert (told[:, :2] > 0).all()
    assert (told[:, width:] == 0).all()
    assert not template(blank).any()
    assert not formula_given(blank).any()


def test_a_formula_is_kept_by_elements_and_nearly_always_by_hydrogens(learner):
    like = learner.ask(6, {"formula": "C4H8O2"})
    drawn = learner.draw(like, Noise(0, range(6)))
    heavy = [sorted(row[row > 1].tolist()) for row in drawn.numbers]
    assert heavy == [[6, 6, 6, 6, 8, 8]] * 6


def test_given_atoms_keep_their_places_bonds_and_elements_exactly(tmp_path, training, learner):
    acid = next(m for m in unstacked(training) if (m.numbers > 1).sum() >= 4)
    scaffold = Molecule(acid.numbers[:3], acid.positions[:3], acid.charges[:3], np.asarray(acid.bonds)[:3, :3])
    path = tmp_path / "scaffold.sdf"
    formats.write(stacked([scaffold]), path)
    like = learner.ask(5, {"fix": str(path)})
    drawn = learner.draw(like, Noise(0, range(5)))
    assert (drawn.positions[:, :3] - like.positions[:, :3]).abs().max() < 1e-4
    assert torch.equal(drawn.numbers[:, :3], like.numbers[:, :3])
    assert torch.equal(drawn.bonds[:, :3, :3], like.bonds[:, :3, :3])
    assert any("5 of 5 hold the scaffold" in line for line in exchange.summary(like, drawn))


def test_a_property_beyond_training_is_warned_of_and_one_without_labels_refused(learner):
    with pytest.warns(UserWarning, match="radius_of_gyration: asked for 9, training held"):
        learner.ask(2, {"property": "radius_of_gyration=9"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.ask(2, {"property": f"radius_of_gyration={float(learner.conditions.centre[PROPERTIES.index('radius_of_gyration')]):.3f}"})
    with pytest.raises(Refused, match="no training molecule had a value"):
        learner.ask(2, {"property": "alpha=80"})


def test_a_trace_begins_as_noise_and_ends_as_the_draw(training, learner):
    frames = learner.trace(training[:3], Noise(0, range(3)), 5)
    assert len(frames) == 5
    assert same(frames[-1], learner.draw(training[:3], Noise(0, range(3))))
    assert (frames[0].bonds == 0).all()


# --- training and state ---


def test_bonds_that_a_file_does_not_tell_are_perceived(tmp_path, training):
    formats.write(training[:30], tmp_path / "named.xyz")
    lines = (tmp_path / "named.xyz").read_text().splitlines()
    bare = ["" if "smiles=" in line else line for line in lines]
    (tmp_path / "bare.xyz").write_text("\n".join(bare) + "\n")
    split = flow.load(SMALL.model_copy(update={"data": tmp_path / "bare.xyz"}))
    parts = (split.train, split.validation, split.held_out)
    assert sum(len(part) for part in parts) + len(split.rejected) == 30
    assert "perceived" in split.origin
    found = {s for part in parts for s in smiles(part)}
    assert len(found & set(smiles(training[:30]))) >= 25


def test_a_step_moves_every_weight_and_losses_are_finite(training):
    torch.manual_seed(0)
    made = flow.build(SMALL.model_copy(update={"warmup": 0}), training)
    before = {k: v.clone() for k, v in made.descent.module.state_dict().items()}
    for _ in range(3):
        losses = made.step(training[:16])
    assert all(torch.isfinite(v) for v in losses.values())
    still = [k for k, v in made.descent.module.state_dict().items() if torch.equal(v, before[k])]
    assert still == []


@pytest.mark.parametrize("graph_first", [True, False])
def test_times_lie_between_noise_and_data_with_the_right_one_ahead(graph_first):
    torch.manual_seed(0)
    t, s = flow.path_times(20_000, graph_first=graph_first)
    assert ((t >= 0) & (t <= 1) & (s >= 0) & (s <= 1)).all()
    assert ((s >= t).float().mean() > 0.8) == graph_first
    assert t.mean() > 0.5


def test_the_schedule_of_a_draw_runs_from_noise_to_the_end_and_never_back(learner):
    steps = np.array(learner.schedule())
    assert steps[0].tolist() == [0, 0]
    assert steps[-1].tolist() == [1, 1]
    assert (np.diff(steps, axis=0) >= 0).all()
    assert steps[int(0.9 * len(steps)), 0] == 1


def test_what_ships_draws_the_same_molecules_without_data(training, learner):
    again = flow.restore(SMALL, {k: v.clone() for k, v in learner.to_ship().items()})
    assert same(again.draw(training[:4], Noise(0, range(4))), learner.draw(training[:4], Noise(0, range(4))))
    assert same(again.ask(4, {"atoms": str(int(training.bucket[0]))}), learner.ask(4, {"atoms": str(int(training.bucket[0]))}))


def test_hydrogens_as_points_are_an_option_that_trains_and_draws(training):
    torch.manual_seed(0)
    made = flow.build(SMALL.model_copy(update={"hydrogens": "explicit"}), training)
    assert torch.isfinite(made.step(training[training.bucket == training.bucket.mode().values][:4])["positions"])
    drawn = made.draw(training[:4], Noise(0, range(4)))
    assert torch.equal(drawn.bucket, training[:4].bucket)


def test_export_writes_scores_that_a_chemist_reads(tmp_path, training):
    known = tmp_path / "known.smi"
    known.write_text("\n".join(s for s in smiles(training)[:5]))
    exchange.export(training[:10], tmp_path / "out.csv", known)
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert {"stable", "valid", "strain", "novel", "qed", "sa"} <= set(header.split(","))
    place = header.split(",").index("novel")
    assert [row.split(",")[place] for row in rows] == ["no"] * 5 + ["yes"] * 5
