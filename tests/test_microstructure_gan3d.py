"""Generators of microstructures: the field that is learned against closed forms, draws of any side, the published players."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import linalg, ndimage

from simulacra.families.gan import Game
from simulacra.pipeline import draw_like
from simulacra.sciences.microstructure import field, framing, gan3d, pictures, simulate, statistics
from simulacra.sciences.microstructure.data import volumes
from simulacra.sciences.microstructure.field import Phases, Stationary, blurred
from simulacra.sciences.microstructure.players import Growing, Scoring, Slow
from simulacra.study import Noise, Refused

SIDE = 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def training():
    return simulate.spheres(300, SIDE, 4.0, 0.2, seed=3)


def recipe(**changes):
    return gan3d.study.recipes["quick"].model_copy(update={"side": SIDE, "steps": 2, "batch": 4, "walk": 6, "calibrated": 8} | changes)


@pytest.fixture(scope="module")
def diffusion(training):
    torch.manual_seed(0)
    return gan3d.build(recipe(), training)


# --- the field ---


def test_the_distance_is_the_euclidean_one_up_to_its_reach_and_its_sign_is_the_volume(training):
    solid = training[:6].solid
    found = field.distance(solid, 4)[:, 0].numpy()
    inside = solid.numpy() > 0
    for ours, phase in zip(found, inside, strict=True):
        exact = np.where(phase, ndimage.distance_transform_edt(phase) - 0.5, 0.5 - ndimage.distance_transform_edt(~phase))
        assert np.allclose(ours, np.clip(exact, -3.5, 3.5), atol=1e-5)
    assert np.array_equal(found > 0, inside)


def test_of_a_volume_with_one_phase_the_distance_is_its_reach():
    for value, expected in ((0, -2.5), (1, 2.5)):
        assert torch.equal(field.distance(torch.full((1, 8, 8, 8), value), 3), torch.full((1, 1, 8, 8, 8), expected))


RANGE = 3.0  # voxels over which fields made here are correlated


def exponential(side):
    """Correlation exp(-r / RANGE) along a line, the power of its modes in closed form where axes multiply, and fields drawn from it by
    the square root of the covariance."""
    correlation = np.exp(-np.arange(side) / RANGE)
    covariance = linalg.toeplitz(correlation)
    value = np.linalg.eigvalsh(covariance)[::-1]
    power = torch.from_numpy(value[:, None, None] * value[:, None] * value).float()
    root = torch.from_numpy(linalg.sqrtm(covariance).real).float()

    def fields(n, seed):
        x = torch.randn(n, 1, side, side, side, generator=torch.Generator().manual_seed(seed))
        for _ in range(3):
            x = torch.tensordot(x, root, dims=([2], [0]))
        return x

    return torch.from_numpy(correlation).float().expand(3, -1), power, fields


def test_modes_are_orthonormal_and_their_own_way_back():
    correlation, power, _ = exponential(12)
    head = Stationary(power, correlation)
    x = torch.randn(2, 1, 6, 9, 12, generator=torch.Generator().manual_seed(0))
    found = head.transformed(x)
    assert torch.allclose(found.square().sum((1, 2, 3, 4)), x.square().sum((1, 2, 3, 4)), rtol=1e-4)
    assert torch.allclose(head.transformed(found, back=True), x, atol=1e-5)


def test_wavenumbers_of_an_exponential_correlation_are_the_known_ones_and_power_is_its_density():
    """Ray & Driver 1970: with rho = exp(-1 / RANGE), eigenvalues are (1 - rho^2) / (1 - 2 rho cos w + rho^2) at the wavenumbers w."""
    rho = np.exp(-1 / RANGE)
    for side in (16, 40):
        vectors, wavenumber = field._eigenvectors(rho ** np.arange(side), side)
        value = torch.einsum("ma,ab,mb->m", vectors, torch.from_numpy(linalg.toeplitz(rho ** np.arange(side))), vectors).numpy()
        density = (1 - rho**2) / (1 - 2 * rho * np.cos(wavenumber.numpy()) + rho**2)
        assert np.allclose(value, density, rtol=1e-6)
        assert (np.diff(wavenumber.numpy()) > 0).all()


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_of_gaussian_fields_the_estimate_has_the_error_that_it_says_and_leaves_nothing_to_be_told(noise):
    correlation, power, fields = exponential(SIDE)
    head, x = Stationary(power, correlation), fields(200, 1)
    alpha, sigma = (torch.full((200,), value / np.hypot(1, noise)) for value in (1.0, noise))
    z = alpha[0] * x + sigma[0] * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    known = head(z, alpha, sigma, None)
    error = x - known.estimate
    assert float(error.square().mean().sqrt()) == pytest.approx(float(known.spread[0]), rel=0.02)
    left = head.transformed(error) * head.transformed(z)  # what is not told has nothing to do with what is seen, mode by mode
    scatter = left.std(0) / 200**0.5
    assert float((left.mean(0) / scatter).square().mean()) == pytest.approx(1, abs=0.1)


def test_what_is_measured_on_fields_is_their_law_and_axes_that_are_alike_share_it():
    correlation, power, fields = exponential(8)
    x = fields(400, 3)
    found = Stationary.of(x, alike=False)
    assert float((found.correlation - correlation).abs().max()) < 0.06
    ratio = found.power / power
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    assert float(ratio.std()) == pytest.approx((2 / 400) ** 0.5, rel=0.25)
    alike = Stationary.of(x, alike=True)
    assert torch.allclose(alike.power, alike.power.permute(2, 0, 1))
    assert float((alike.power / power).std()) < float(ratio.std())


def test_gaussian_fields_of_any_side_have_the_variance_of_the_measured_ones_at_faces_and_inside():
    correlation, power, _ = exponential(SIDE)
    head = Stationary(power, correlation)
    assert torch.equal(head.at((SIDE,) * 3), power)
    for sides, within in (((SIDE,) * 3, 1e-4), ((32, 16, 24), 0.15)):
        variance = head.at(sides)
        for axis, side in enumerate(sides):
            variance = torch.tensordot(variance, head._modes(axis, side)[0].float().square(), dims=([0], [0]))
        assert variance.shape == sides
        assert float((variance - 1).abs().max()) < within
        assert float(variance.mean()) == pytest.approx(1, abs=1e-4)


def test_a_cut_at_the_calibrated_level_has_the_asked_fraction_and_a_higher_one_is_thinner(training):
    phases = Phases.measured(training.solid, 4, alike=True)
    assert torch.equal(phases.solid(phases.fields(training.solid)), training.solid)
    drawn = phases.gaussian(torch.randn(40, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    phases.calibrate(drawn, 0.3, None)
    assert float(phases.smoothing) == 0
    before = phases.solid(drawn).float()
    assert float(before.mean()) == pytest.approx(0.3, abs=1e-4)
    phases.level.add_(0.5)
    assert (phases.solid(drawn) <= before).all()
    assert float(phases.solid(drawn).float().mean()) < 0.28


def test_rough_fields_are_blurred_until_they_have_no_more_surface_than_is_asked(training):
    phases = Phases.measured(training.solid, 4, alike=True)
    rough = phases.fields(training.solid) + 0.4 * torch.randn(len(training), 1, SIDE, SIDE, SIDE)
    fraction, wanted = float(training.solid.float().mean()), statistics.surface(training).mean()

    def area():
        return statistics.surface(volumes(phases.solid(rough))).mean()

    phases.calibrate(rough, fraction, None)
    assert area() > 1.2 * wanted
    phases.calibrate(rough, fraction, wanted)
    assert float(phases.smoothing) > 0.2
    assert area() == pytest.approx(wanted, rel=0.01)
    assert float(phases.solid(rough).float().mean()) == pytest.approx(fraction, abs=1e-3)
    smooth = phases.fields(training.solid)
    phases.calibrate(smooth, fraction, 2 * wanted)  # nothing to even out
    assert float(phases.smoothing) == 0


def test_a_blur_is_a_gaussian_and_keeps_what_is_even():
    even = torch.full((1, 1, 8, 9, 10), 3.0)
    torch.testing.assert_close(blurred(even, 1.3), even)
    point = torch.zeros(1, 1, 17, 17, 17)
    point[0, 0, 8, 8, 8] = 1
    found = blurred(point, 1.0)[0, 0]
    x = torch.arange(17) - 8.0
    gauss = torch.exp(-(x**2) / 2) / torch.exp(-(x**2) / 2).sum()
    torch.testing.assert_close(found, torch.einsum("i,j,k->ijk", gauss, gauss, gauss), atol=1e-5, rtol=1e-3)
    assert blurred(point, 0.0) is point


def test_turned_cubes_are_the_same_cubes_seen_from_elsewhere(training):
    torch.manual_seed(0)
    x = torch.rand(20, 1, 6, 6, 6)
    turned = gan3d.turned(x)
    assert torch.equal(turned.flatten(1).sort().values, x.flatten(1).sort().values)
    assert len({int(t.argmax()) for t in gan3d.turned(x[:1].expand(40, -1, -1, -1, -1))}) > 4
    corner = torch.zeros(30, 1, 6, 6, 6)
    corner[:, :, 0, 1, 2] = 1
    places = torch.cat([torch.nonzero(gan3d.turned(corner)[:, 0])[:, 1:] for _ in range(10)])
    assert {tuple(sorted(min(int(i), 5 - int(i)) for i in place)) for place in places} == {(0, 1, 2)}


# --- diffusion ---


def test_before_training_diffusion_colours_its_noise_by_the_measured_power(training):
    torch.manual_seed(0)
    learner = gan3d.build(recipe(walk=25), training)
    z, head = Noise(3, range(8)).normal(1, SIDE, SIDE, SIDE), learner.head
    gain = head.transformed(learner.walked(z)) / head.transformed(z)  # the walk is linear: each mode is its noise times a number
    ratio = (gain.median(0).values[0] / head.power.sqrt())[head.power > 0.05]
    assert float((ratio - 1).abs().max()) < 0.05


def test_the_last_step_sets_the_level_so_that_draws_are_as_solid_as_training(training):
    torch.manual_seed(0)
    learner = gan3d.build(recipe(steps=2, calibrated=64), training)
    learner.step(training[:4])
    assert float(learner.head.level) == 0
    learner.step(training[4:8])
    assert float(learner.head.level) != 0
    drawn = draw_like(learner, framing.template(SIDE, 128, {}), seed=1, device=CPU).solid.float().mean((1, 2, 3))
    error = float(drawn.std()) / 128**0.5
    assert abs(float(drawn.mean() - training.solid.float().mean())) < 3 * error + 0.005


def test_noise_and_its_negative_give_a_sharper_mean_than_two_draws(diffusion):
    z = torch.randn(32, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    one, other = (diffusion.head.solid(diffusion.walked(w)).float().mean((1, 2, 3)) for w in (z, -z))
    assert float((one + other).var() / (one.var() + other.var())) < 0.7


@pytest.mark.parametrize("side", ["24", "16,20,36"])
def test_volumes_of_other_sides_are_drawn(diffusion, side):
    like = framing.template(SIDE, 3, {"side": side}, voxel=2.0)
    drawn = diffusion.draw(like, Noise(0, range(3)))
    assert drawn.sides == like.sides
    assert torch.equal(drawn.voxel, like.voxel)
    assert 0.02 < float(drawn.solid.float().mean()) < 0.5
    assert torch.equal(draw_like(diffusion, like[:1], seed=5, device=CPU).solid[0], draw_like(diffusion, like, seed=5, device=CPU).solid[0])
    with pytest.raises(Refused, match="as in training, not of"):
        diffusion.trace(like, Noise(0, range(3)), 2)


def test_the_state_that_ships_draws_what_the_learner_draws(training):
    torch.manual_seed(0)
    for changes in ({}, {"family": "game", "filters": 4, "critic_filters": 4, "latent": 16, "ema": 0.5}):
        asked = recipe(**changes)
        learner = gan3d.build(asked, training)
        for start in (0, 4):
            learner.step(training[start : start + 4])
        like = framing.template(SIDE, 4, {})
        drawn = learner.draw(like, Noise(1, range(4)))
        for state in (learner.to_ship(), learner.state_dict()):
            again = gan3d.restore(asked, state).draw(like, Noise(1, range(4)))
            assert torch.equal(drawn.solid, again.solid), changes


# --- the published game ---


def test_the_published_players_have_the_published_layers():
    asked = gan3d.study.recipes["paper"]
    assert (asked.family, asked.kind, asked.side, asked.radius, asked.solid_fraction) == ("game", "henkes", 32, 4, 0.2)
    assert (asked.simulated, asked.batch, asked.steps, asked.lr, asked.critic_lr) == (1000, 8, 20_000, 5e-5, 1e-4)
    generator = Growing(asked.side, asked.latent, asked.filters, asked.pace)
    shapes = [tuple(p.shape) for p in generator.parameters() if p.ndim > 1]
    assert shapes[:9] == [(128, 128)] * 8 + [(2048, 128)]
    assert shapes[9:12] == [(256, 128, 3, 3, 3), (128, 64, 3, 3, 3), (64, 32, 3, 3, 3)]
    assert shapes[12:] == [(256, 128, 1, 1, 1), (256, 64, 1, 1, 1), (256, 32, 1, 1, 1), (32, 1, 3, 3, 3)]
    critic = Scoring(asked.side, asked.critic_filters)
    widths = [1, 16, 32, 64, 128, 256]
    blocks = [s for a, b in itertools.pairwise(widths) for s in ((b, a, 1, 1, 1), (b, a, 3, 3, 3), (b, b, 3, 3, 3))]
    assert [tuple(p.shape) for p in critic.parameters() if p.ndim > 1] == [*blocks, (1, 2048)]
    assert sum(p.numel() for p in generator.parameters()) == 1_616_161
    assert sum(p.numel() for p in critic.parameters()) == 3_579_537
    volumes = generator(torch.randn(2, 128))
    assert volumes.shape == (2, 1, 32, 32, 32)
    assert critic(volumes).shape == (2,)


def test_weights_begin_orthogonal():
    generator = Growing(32, 128, 32, 0.01)
    mapping = [layer for layer in generator.modules() if isinstance(layer, Slow)]
    assert len(mapping) == 8
    for matrix in (mapping[3].weight * mapping[3].pace, generator.grow[1].weight.flatten(1)):
        product = matrix @ matrix.T
        assert torch.allclose(product, torch.eye(len(product)), atol=1e-4)


def test_the_mapping_network_moves_at_its_pace(training):
    torch.manual_seed(0)
    game = gan3d.build(recipe(family="game", filters=4, critic_filters=4, latent=16, ema=0.0, lr=1e-4, pace=0.01), training)
    generator = game.generator.module
    slow, fast = generator.seed[0], generator.last
    before = [(slow.weight * slow.pace).detach().clone(), fast.weight.detach().clone()]
    game.step(training[:4])
    after = [(slow.weight * slow.pace).detach(), fast.weight.detach()]
    moved = [float((now - then).abs().max()) for now, then in zip(after, before, strict=True)]
    assert moved[1] == pytest.approx(1e-4, rel=0.3)
    assert moved[0] == pytest.approx(1e-6, rel=0.3)


def test_the_game_sees_standardised_volumes_and_cuts_what_it_draws_at_their_mean(training):
    torch.manual_seed(0)
    game = gan3d.build(recipe(family="game", filters=4, critic_filters=4, latent=16, turned=False), training)
    assert isinstance(game, Game)
    seen, _ = game.rows_of(training)
    assert float(seen.mean()) == pytest.approx(0, abs=1e-5)
    assert float(seen.std()) == pytest.approx(1, abs=1e-3)
    drawn = game.generator.module(torch.randn(4, 16)).detach()
    assert float(drawn.min()) >= float(seen.min()) - 1e-5
    assert float(drawn.max()) <= float(seen.max()) + 1e-5
    assert torch.equal(game.samples_from(seen, training).solid, training.solid)


def test_the_game_draws_cubes_of_one_side_and_says_so(training):
    torch.manual_seed(0)
    game = gan3d.build(recipe(family="game", filters=4, critic_filters=4, latent=16), training)
    with pytest.raises(Refused, match="the game draws cubes of 16"):
        game.draw(framing.template(32, 2, {}), Noise(0, range(2)))


# --- what larger volumes are held to ---


def test_faces_that_carry_other_statistics_are_noticed_and_those_of_nature_are_not():
    nature = simulate.spheres(80, 24, 3.0, 0.2, seed=5)
    step, error = pictures.faces(nature)
    assert abs(step) < 3 * error
    thick = nature.solid.clone()
    thick[:, :2] = 1
    step, error = pictures.faces(volumes(thick.numpy()))
    assert step > 0.03 + 3 * error
    uniform = volumes((torch.rand(40, 24, 24, 24, generator=torch.Generator().manual_seed(0)) < 0.3).numpy())
    step, error = pictures.faces(uniform)
    assert error == pytest.approx((0.3 * 0.7 * (1 / (24**3 - 16**3) + 1 / 16**3) / 40) ** 0.5, rel=0.3)


def test_larger_volumes_of_nature_pass_and_denser_ones_do_not():
    nature, larger = simulate.spheres(150, 16, 3.0, 0.2, seed=6), simulate.spheres(12, 32, 3.0, 0.2, seed=7)
    assert all(check.met for check in pictures.larger_checks(nature, larger))
    denser = simulate.spheres(12, 32, 3.0, 0.25, seed=7)
    assert not any(check.met for check in pictures.larger_checks(nature, denser)[:2])


def test_a_template_keeps_the_voxel_of_what_was_asked_for(diffusion, training):
    like = dataclasses.replace(training[:2], voxel=torch.tensor([2.0, 3.0]))
    assert torch.equal(diffusion.draw(like, Noise(0, range(2))).voxel, like.voxel)
