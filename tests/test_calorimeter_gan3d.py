"""Generators of showers: the laws that the diffusion starts from against the simulator's, the published players and losses, refusals."""

import math

import numpy as np
import pytest
import torch

from simulacra.pipeline import draw_like
from simulacra.sciences.calorimeter import framing, gan3d, pictures, voxels
from simulacra.sciences.calorimeter.data import Showers
from simulacra.sciences.calorimeter.features import response
from simulacra.sciences.calorimeter.players import Generating, Judging, Telling
from simulacra.sciences.calorimeter.simulate import simulate
from simulacra.sciences.calorimeter.voxels import Asked, Law, Laws
from simulacra.study import Noise, Refused

CELLS = 8
CPU = torch.device("cpu")
SMALL = {"cells": CELLS, "steps": 4, "batch": 16, "layer_width": 16, "width": 16, "blocks": 1, "embed": 8, "walk": 8, "layer_walk": 20}


def recipe_of(**changes):
    return gan3d.study.recipes["quick"].model_copy(update=SMALL | changes)


def nature(n, seed, low=10.0, high=100.0):
    rng = np.random.default_rng(seed)
    return simulate(np.exp(rng.uniform(math.log(low), math.log(high), n)), np.arange(n) % 2, CELLS, seed=seed)


def at(energy, particle, n):
    return Showers(torch.zeros(n, CELLS, CELLS, CELLS), torch.full((n,), energy), torch.full((n,), particle, dtype=torch.int8))


@pytest.fixture(scope="module")
def training():
    return nature(2000, 1)


@pytest.fixture(scope="module")
def law(training):
    return Law.fitted(training)


@pytest.fixture(scope="module")
def learner(training):
    torch.manual_seed(0)
    return gan3d.build(recipe_of(), training)


# --- numbers made Gaussian ---


@pytest.fixture(scope="module")
def zero_inflated():
    """x = 0 with a chance that falls with c, else log-normal about 2 c with a spread that grows with c."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1, 1, 60_000)
    x = np.exp(2 * c + np.exp(0.5 * c) * rng.standard_normal(len(c)))
    return np.where(rng.random(len(c)) < 0.4 - 0.3 * c, 0, x), c


@pytest.fixture(scope="module")
def known_law(zero_inflated):
    laws = Laws(1)
    laws.measure(0, *zero_inflated)
    return laws


def test_numbers_made_gaussian_are_standard_normal_wherever_c_is(zero_inflated, known_law):
    x, c = (torch.from_numpy(v).float()[:, None] for v in zero_inflated)
    g = known_law.gaussian(x, torch.zeros(1, dtype=torch.int64), c, torch.rand(x.shape, generator=torch.Generator().manual_seed(0)))
    for low in (-1, -0.5, 0, 0.5):
        some = g[(c >= low) & (c < low + 0.5)]
        assert abs(float(some.mean())) < 0.04
        assert float(some.std()) == pytest.approx(1, abs=0.03)
        assert float((some > 1.645).float().mean()) == pytest.approx(0.05, abs=0.008)


@pytest.mark.parametrize("c", [-0.7, 0.1, 0.8])
def test_drawn_numbers_have_the_zeros_and_the_quantiles_of_the_law(known_law, c):
    g = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).float()[None]
    x = known_law.numbers(g, torch.zeros(1, dtype=torch.int64), torch.tensor([[c]]))[0]
    assert float((x == 0).float().mean()) == pytest.approx(0.4 - 0.3 * c, abs=0.015)
    left = (x[x > 0].log() - 2 * c) / math.exp(0.5 * c)
    quantiles = torch.quantile(left, torch.tensor([0.1587, 0.5, 0.8413]))
    assert torch.allclose(quantiles, torch.tensor([-1.0, 0.0, 1.0]), atol=0.06)


def test_to_gaussian_and_back_changes_nothing_that_is_not_extreme(training, law):
    some = training[:200]
    layers = law.layers_gaussian(some, torch.rand(200, 1 + CELLS))
    back = law.layers(layers, some)
    inside = (layers.abs().amax(1) < 3.3)[:, None].expand_as(back)
    total = some.energy.sum((2, 3))
    assert inside.float().mean() > 0.9
    assert torch.allclose(back[inside], total[inside], rtol=2e-3, atol=1e-4)
    cells = law.cells_gaussian(some.energy, torch.rand(some.energy.shape))
    again = law.cells(cells, total)
    usual = (cells.abs() < 3.3).flatten(2).all(2)[..., None, None].expand_as(again)
    assert torch.allclose(again[usual], some.energy[usual], rtol=5e-3, atol=1e-3)
    assert torch.equal(again[usual] == 0, some.energy[usual] == 0)


def test_drawn_cells_sum_to_their_layers_even_where_all_would_be_zero(law):
    total = torch.tensor([[0.0, 0.2, 5.0, 1e-3, 300.0, 0.0, 50.0, 1.0]])
    for g in (torch.full((1, CELLS, CELLS, CELLS), -4.0), torch.randn(1, CELLS, CELLS, CELLS), torch.full((1, CELLS, CELLS, CELLS), 4.0)):
        energy = law.cells(g, total)
        assert (energy >= 0).all()
        assert torch.allclose(energy.sum((2, 3)), total, rtol=1e-5)


def test_no_drawn_response_exceeds_all_of_training(training, law):
    total = law.layers(torch.full((2, 1 + CELLS), 6.0), training[:2]).sum(1) / (1000 * training.incident[:2])
    assert float(total.max()) <= float(torch.from_numpy(response(training)).max()) * (1 + 1e-5)


def test_one_energy_alone_has_a_law_too():
    alone = simulate(np.full(300, 2.0), np.ones(300), CELLS, seed=4)
    law = Law.fitted(alone)
    drawn = law.layers(torch.randn(4000, 1 + CELLS, generator=torch.Generator().manual_seed(0)), at(2.0, 1, 4000))
    got, expected = drawn.sum(1).double(), alone.deposit
    assert float(got.mean()) == pytest.approx(float(expected.mean()), rel=0.01)
    assert float(got.std()) == pytest.approx(float(expected.std()), rel=0.12)


# --- symmetry ---


def test_cells_that_turns_and_flips_bring_upon_each_other_share_a_law():
    middle = voxels.orbits((2.5, 2.5), 6, 6)
    assert torch.equal(middle, middle.flip(0))
    assert torch.equal(middle, middle.T)
    assert int(middle.max()) + 1 == 6  # pairs of three distances, order aside
    beside = voxels.orbits((1.0, 1.0), 4, 4)
    assert beside[0, 0] == beside[2, 2] == beside[0, 2]
    assert beside[3, 3] not in beside[:3, :3]


def test_the_axis_of_showers_is_found_where_they_come_in(training):
    assert voxels.axis(training.energy) == (3.5, 3.5)
    moved = torch.zeros_like(training.energy[:50])
    moved[:, :, :-2] = training.energy[:50, :, 2:]
    assert voxels.axis(moved) == (1.5, 3.5)


def test_turning_keeps_each_cell_in_its_orbit_and_the_depth(law):
    centre = law.centre.tolist()
    marked = (law.orbit.float() + 100 * torch.arange(CELLS)[:, None, None]).expand(64, CELLS, CELLS, CELLS)
    ways = torch.arange(64) % voxels.WAYS
    assert torch.equal(voxels.turned(marked, centre, ways), marked)
    unlike = torch.randn(1, 1, CELLS, CELLS).expand(64, -1, -1, -1)
    assert len({tuple(row.flatten().tolist()) for row in voxels.turned(unlike, centre, ways)}) == 8
    assert torch.equal(voxels.turned(unlike, centre, torch.zeros(64, dtype=torch.int64)), unlike)


def test_off_the_middle_what_has_an_image_is_turned_and_what_has_none_stays():
    image = torch.randn(1, 1, CELLS, CELLS).expand(8, -1, -1, -1)
    off = voxels.turned(image, (2.0, 2.0), torch.arange(8))
    flipped = image.clone()
    flipped[:, :, :5] = image[:, :, :5].flip(2)  # about row 2: 0 to 4
    assert torch.equal(off[1], flipped[1])
    assert len({tuple(row.flatten().tolist()) for row in off}) == 8
    assert all(torch.equal(row.flatten().sort().values, image[0].flatten().sort().values) for row in off)  # no cell lost
    beside = voxels.turned(image, (2.0, 3.0), torch.full((8,), 4))  # not on the diagonal
    assert torch.equal(beside, image)


def test_cells_follow_what_is_told_as_least_squares_find_it(law):
    told = torch.randn(4000, 5)
    truth = torch.randn(5, *law.grid)[:, :, :1, :1].expand(5, *law.grid)  # the same for all cells of a layer
    cells = 0.3 + torch.tensordot(told, truth, dims=1) + torch.randn(4000, *law.grid)
    mean, slope = law.following(cells, told)
    assert (mean - 0.3).abs().max() < 0.1
    assert (slope - truth).abs().max() < 0.1
    assert torch.equal(slope[..., 0, 0], slope[..., -1, -1])  # of one orbit


# --- the learner of two stages ---


def test_before_training_response_and_resolution_are_the_simulators(training, learner):
    truth = nature(1000, 2)
    drawn = draw_like(learner, truth, seed=3, device=CPU)
    one, other = response(truth), response(drawn)
    assert other.mean() == pytest.approx(one.mean(), rel=0.01)
    assert other.std() == pytest.approx(one.std(), rel=0.15)
    assert float((drawn.energy == 0).float().mean()) == pytest.approx(float((truth.energy == 0).float().mean()), abs=0.01)


def test_more_energy_makes_deeper_showers_and_photons_start_later(learner):
    depths = {}
    for energy in (12.0, 90.0):
        for particle in (0, 1):
            drawn = draw_like(learner, at(energy, particle, 200), seed=1, device=CPU)
            layers = drawn.energy.sum((2, 3))
            depths[energy, particle] = float((layers * torch.arange(CELLS)).sum() / layers.sum())
    for particle in (0, 1):
        assert depths[90.0, particle] > depths[12.0, particle] + 0.2
    for energy in (12.0, 90.0):
        assert depths[energy, 0] > depths[energy, 1] + 0.1


def test_training_makes_layers_likelier(training):
    torch.manual_seed(0)
    learner = gan3d.build(recipe_of(steps=200, layer_width=48, lr=3e-3), training)
    validation, levels = nature(400, 9), [100, 300, 500, 700]
    before = learner.layers.errors(validation, levels, seed=0).mean()
    for step in range(200):
        torch.manual_seed(step)
        learner.layers.step(training[torch.randint(len(training), (64,))])
    assert float(learner.layers.errors(validation, levels, seed=0).mean() / before) < 0.995


def test_a_restored_learner_draws_the_same(training, learner):
    like = training[:5]
    for state in (learner.state_dict(), learner.to_ship()):
        again = gan3d.restore(recipe_of(), state)
        assert torch.equal(again.draw(like, Noise(3, range(5))).energy, learner.draw(like, Noise(3, range(5))).energy)


def test_positions_are_draws_and_move_smoothly_between_energies(learner):
    low, high = at(12.0, 1, 40), at(90.0, 1, 40)
    position = Noise(0, range(40)).normal(learner.latent)
    deposits = [float(learner.imagine(position, low, high, torch.full((40,), s)).deposit.mean()) for s in (0.0, 0.5, 1.0)]
    assert deposits[0] < deposits[1] < deposits[2]
    assert deposits[1] == pytest.approx(math.sqrt(deposits[0] * deposits[2]), rel=0.1)


def test_a_movie_ends_with_what_is_drawn(training, learner):
    frames = learner.trace(training[:3], Noise(7, range(3)), 4)
    assert len(frames) == 4
    assert torch.equal(frames[-1].energy, learner.draw(training[:3], Noise(7, range(3))).energy)
    assert torch.allclose(frames[0].energy.sum((2, 3)), frames[-1].energy.sum((2, 3)), rtol=1e-4)


def test_particles_that_training_did_not_hold_are_refused_and_far_energies_warned_of(learner):
    with pytest.raises(Refused, match="positrons are asked for, but training held photons, electrons only"):
        learner.ask(3, {"particle": "positron"})
    with pytest.warns(UserWarning, match="300 GeV lies outside the 10"):
        asked = learner.ask(2, {"incident": "300"})
    with pytest.warns(UserWarning, match="nearest energy of training"):
        drawn = learner.draw(asked, Noise(0, range(2)))
    assert response(drawn) == pytest.approx([0.02, 0.02], rel=0.2)
    assert set(learner.ask(6, {}).particle.tolist()) == {0, 1}


def test_a_new_network_says_nothing_and_hears_level_and_condition():
    net = Telling((3, 2), 2, width=8, blocks=1, embed=4)
    seen, level, told = torch.randn(5, 6, 2), torch.zeros(5), torch.zeros(5, 2)
    assert torch.equal(net(seen, level, told), torch.zeros(5, 3, 2))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    plain = net(seen, level, told)
    assert not torch.allclose(net(seen, level + 3, told), plain)
    assert not torch.allclose(net(seen, level, told + 1), plain)


# --- 3DGAN ---


def test_the_generator_has_the_published_shape_and_weights():
    generator = Generating(25, 200, Asked(1)).eval()
    assert sum(p.numel() for p in generator.parameters()) == 872_808
    with torch.no_grad():
        cells = generator(torch.randn(2, 200), torch.tensor([0.5, 5.0]))
        assert cells.shape == (2, 1, 25, 25, 25)
        assert (cells >= 0).all()
        assert Judging(25).eval()(cells).shape == (2, 3)
        assert Generating(12, 200, Asked(1)).eval()(torch.randn(2, 200), torch.ones(2)).shape == (2, 1, 12, 12, 12)


def test_the_critic_sums_cells_and_losses_are_percentages():
    cells = torch.rand(4, 1, 12, 12, 12)
    assert torch.allclose(Judging(12)(cells)[:, 2], cells.sum((1, 2, 3, 4)), rtol=1e-5)
    label = torch.tensor([1.0, 4.0])
    right = torch.stack([label, 200 * label], 1)  # 2 % of E in units of 10 MeV
    assert torch.equal(gan3d.percent_off(right, label), torch.zeros(2))
    assert torch.allclose(gan3d.percent_off(1.1 * right, label), torch.tensor([3.0, 3.0]), atol=1e-4)  # 0.2 x 10 % + 0.1 x 10 %


@pytest.fixture(scope="module")
def game():
    torch.manual_seed(0)
    electrons = simulate(np.linspace(20, 200, 24), 1, 12, seed=3)
    return gan3d.build(recipe_of(family="3dgan", cells=12, ema=0.0), electrons), electrons


def test_showers_in_published_units_hold_two_hundredths_of_their_energy(game):
    learner, electrons = game
    rows, label = learner.rows_of(electrons)
    assert torch.allclose(label, electrons.incident / 100)
    assert float((rows.sum((1, 2, 3, 4)) / (200 * label)).mean()) == pytest.approx(1, rel=1e-3)
    back = learner.samples_from(rows, electrons)
    assert torch.allclose(back.energy, gan3d.faded(electrons.energy), rtol=1e-5)


def test_a_step_moves_the_critic_twice_and_the_generator_twice(game):
    learner, electrons = game
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    counts = learner.generator.count, learner.critic.count
    torch.manual_seed(1)
    watched = learner.step(electrons[:8])
    assert (learner.generator.count - counts[0], learner.critic.count - counts[1]) == (2, 2)
    assert all(math.isfinite(float(v)) for v in watched.values())
    moved = {k for k, v in learner.state_dict().items() if k in before and not torch.equal(v, before[k])}
    for player in ("generator", "critic"):
        weights = {f"{player}.weights.{k}" for k, p in getattr(learner, player).module.named_parameters()}
        assert weights <= moved
    assert all(p.requires_grad for p in learner.critic.module.parameters())


def test_the_game_is_restored_and_draws_rows_that_do_not_know_each_other(game):
    learner, electrons = game
    again = gan3d.restore(recipe_of(family="3dgan", cells=12, ema=0.0), learner.to_ship())
    drawn = learner.draw(electrons[:6], Noise(1, range(6)))
    assert torch.equal(again.draw(electrons[:6], Noise(1, range(6))).energy, drawn.energy)
    assert torch.allclose(learner.draw(electrons[:2], Noise(1, range(2))).energy, drawn.energy[:2], atol=1e-5)
    with pytest.raises(Refused, match="photons are asked for, but training held electrons only"):
        learner.ask(2, {"particle": "photon"})


def test_other_sizes_are_refused_with_what_to_do(training):
    with pytest.raises(Refused, match=r"25\^3 cells, and here for 12\^3 too, not for 8\^3; use --family diffusion"):
        gan3d.build(recipe_of(family="3dgan"), training)


def test_figures_are_made_where_several_energies_are_held_out(learner, monkeypatch):
    monkeypatch.setattr(pictures, "EACH", 6)
    split = framing.load(recipe_of(judged=(12.0, 50.0), judged_each=12, simulated=100))
    found = gan3d.study.figures(learner, split, 0)
    assert [figure.title for figure in found] == ["Profiles", "A shower from three sides", "Energies on the way"]
    assert all(figure.image.startswith(b"\x89PNG") for figure in found)
    one_energy = split.held_out[split.held_out.incident < 20]
    assert len(pictures.by_energy(one_energy)) == 1
    assert len(pictures.by_energy(split.train)) == 1  # a range of energies is shown as one
