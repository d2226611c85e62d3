"""Generators of convergence maps: the law they start from against closed forms, the bars they are held to, what they refuse."""

import dataclasses

import numpy as np
import pytest
import torch

from simulacra import pipeline
from simulacra.descent import under
from simulacra.measures import field
from simulacra.pipeline import draw_like
from simulacra.sciences.lensing import bars, cosmogan, data, ddpm, framing, simulate
from simulacra.sciences.lensing.gaussian import Law
from simulacra.study import Noise, Refused, Split

SIDE, DEGREES = 32, 3.5
CPU = torch.device("cpu")


def nature(omega_m, sigma_8):
    """A log-normal law of our own making (no pyccl): spectrum and shift depend on the universe as powers, as nature's nearly do."""
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]) * SIDE
    power = 2e-3 * (sigma_8 / 0.8) ** 2 * (omega_m / 0.3) ** 1.2 * np.maximum(k, 1) ** (-1 - omega_m) * (k > 0)
    return simulate.log_normal_law(power, 0.03 * (omega_m / 0.3))


def drawn_from(omega_m, sigma_8, n, seed):
    law = nature(omega_m, sigma_8)
    kappa = np.stack([simulate.draw(law, np.random.default_rng([seed, row])) for row in range(n)])
    return data.maps(kappa, DEGREES, omega_m=omega_m, sigma_8=sigma_8, w=-1.0, z_source=1.0)


GRID = [(o, s) for o in (0.2, 0.3, 0.4) for s in (0.6, 0.8, 1.0)]
UNSEEN = (0.26, 0.9)


@pytest.fixture(scope="module")
def training():
    return data.Maps.join([drawn_from(*universe, 300, seed) for seed, universe in enumerate(GRID)])


@pytest.fixture(scope="module")
def law(training):
    return Law.fitted(training)


@pytest.fixture(scope="module")
def held_out():
    return data.Maps.join([drawn_from(*UNSEEN, 300, 100), drawn_from(0.35, 0.7, 300, 101)])


def copies(law, like, seed=0):
    return law.copula(Noise(seed, range(len(like))).normal(SIDE, SIDE), like)


# --- the law that both start from ---


def test_maps_made_gaussian_come_back_even_beyond_what_training_showed(law, held_out):
    few = held_out[:40]
    extreme = dataclasses.replace(few, kappa=few.kappa * 1.5)
    for maps in (few, extreme):
        back = law.maps(law.gaussian(maps), maps)
        inside = maps.kappa > -0.95 * nature(*UNSEEN).shift  # no log-normal map lies lower, and there the law is flat
        assert ((back.kappa - maps.kappa)[inside].abs().max() / few.kappa.std()) < 5e-3


def test_the_law_of_a_pixel_in_an_unseen_universe_has_the_moments_of_the_log_normal(law):
    known = nature(*UNSEEN)
    w = np.exp(known.variance)
    like = law.asked(1, {"omega_m": str(UNSEEN[0]), "sigma_8": str(UNSEEN[1])})
    g = torch.special.ndtri((torch.arange(1 << 20, dtype=torch.float64) + 0.5) / (1 << 20)).float()
    kappa = law.marginal.kappa(g[None], law.told(like))[0].double()
    assert float(kappa.mean()) == pytest.approx(0, abs=0.01 * known.shift)
    assert float(kappa.var()) == pytest.approx(known.shift**2 * (w - 1), rel=0.03)
    assert float((kappa**3).mean() / kappa.var() ** 1.5) == pytest.approx((w + 2) * np.sqrt(w - 1), rel=0.04)


def test_the_power_of_an_unseen_universe_is_that_of_its_gaussian_field(law):
    known = nature(*UNSEEN)
    said = law(law.told(law.asked(1, {"omega_m": str(UNSEEN[0]), "sigma_8": str(UNSEEN[1])})))[0].double().numpy()
    exact = known.amplitude**2 / known.variance  # g of `simulate` has variance s^2, ours 1
    place = field.rings(SIDE, SIDE)
    ratio = place.average(said.reshape(1, -1))[0] / place.average(exact.reshape(1, -1))[0]
    assert np.abs(ratio - 1).max() < 0.05
    assert abs(ratio[3:].mean() - 1) < 0.01


def test_a_universe_outside_the_trained_range_warns_and_one_inside_does_not(law):
    with pytest.warns(UserWarning, match=r"omega_m = 0\.6 lies outside the 0\.2 to 0\.4 of training"):
        law.told(law.asked(2, {"omega_m": "0.3,0.6"}))
    law.told(law.asked(2, {"omega_m": "0.2,0.4"}))


def test_what_training_cannot_tell_is_refused(law, training):
    with pytest.raises(Refused, match=r"w = -0\.8 is asked for, but it is -1 in all maps"):
        law.asked(2, {"w": "-0.8"})
    with pytest.raises(Refused, match="Hubble"):
        law.asked(2, {"Hubble": "0.7"})
    nameless = Law.fitted(data.maps(training.kappa[:100].numpy(), DEGREES))
    assert nameless.told(training[:2]) is None
    with pytest.raises(Refused, match="sigma_8 is asked for, but the maps of training do not all say"):
        nameless.asked(2, {"sigma_8": "0.8"})


def test_maps_of_another_angular_size_are_refused(law, held_out):
    with pytest.raises(Refused, match=r"maps of 7 degrees were asked for; this generator learned from maps of 3\.5"):
        copies(law, dataclasses.replace(held_out[:2], degrees=2 * held_out.degrees[:2]))


def test_what_nature_did_not_observe_is_not_drawn_either(law, held_out):
    masked = held_out[:3].kappa.clone()
    masked[:, :10, :10] = torch.nan
    drawn = copies(law, dataclasses.replace(held_out[:3], kappa=masked))
    assert torch.equal(drawn.kappa.isnan(), masked.isnan())


# --- the bars ---


def test_nature_itself_and_the_copula_pass_the_bars_where_nature_is_log_normal(law, held_out):
    again = data.Maps.join([drawn_from(*UNSEEN, 300, 200), drawn_from(0.35, 0.7, 300, 201)])
    for drawn in (again, copies(law, held_out)):
        failed = [check.name for check in bars.checks(held_out, drawn, {}) if not check.met]
        assert not failed


def test_each_planted_fault_fails_the_bars_that_are_there_for_it(law, held_out):
    seen = held_out[:150]
    flat = seen.kappa.mean((1, 2), keepdim=True)
    faults = {
        "5 % duller": dataclasses.replace(seen, kappa=flat + 0.95 * (seen.kappa - flat)),
        "Gaussian": dataclasses.replace(seen, kappa=law.gaussian(seen)[:, 0] * seen.kappa.std()),
    }
    spectrum, _, skewness, shapes, single = range(5)
    failed = {
        name: {i for i, check in enumerate(bars.checks(seen, drawn, {})) if not check.met} for name, drawn in faults.items()
    }
    assert spectrum in failed["5 % duller"]
    assert skewness not in failed["5 % duller"]
    assert {skewness, shapes, single} <= failed["Gaussian"]
    stronger = copies(law, dataclasses.replace(seen, universe=seen.universe * torch.tensor([1, 1.1, 1, 1])))
    value, error = bars.deviations(seen, dataclasses.replace(stronger, universe=seen.universe)).spectrum  # sigma_8 is 10 % off
    assert value - 2 * error > 0.03


# --- diffusion ---


def smallest(recipe, **changes):
    return recipe.model_copy(update={"side": SIDE, "steps": 2, "batch": 8, "threads": 1, "degrees": DEGREES} | changes)


@pytest.fixture(scope="module")
def diffusion(training):
    torch.manual_seed(0)
    return ddpm.build(smallest(ddpm.study.recipes["quick"]), training)


def test_before_training_diffusion_draws_the_copula(diffusion, law, held_out):
    like, z = held_out[:8], Noise(3, range(8)).normal(1, SIDE, SIDE)
    drawn = law.gaussian(diffusion.draw(like, Noise(3, range(8))))[:, 0]
    told = torch.fft.rfft2(drawn).abs() / torch.fft.rfft2(z[:, 0]).abs()
    ratio = (told / law(law.told(like)).sqrt()).median(0).values  # the walk is linear: each mode is its noise times a number
    assert (ratio - 1).abs().max() < 0.05


def test_a_field_keeps_its_place_on_the_way_from_universe_to_universe(diffusion, law):
    here, there = (law.asked(2, {"omega_m": o, "sigma_8": s}) for o, s in (("0.2", "0.6"), ("0.4", "1.0")))
    position = torch.randn(2, diffusion.latent, generator=torch.Generator().manual_seed(0))
    ends = [diffusion.imagine(position, maps) for maps in (here, there)]
    way = [diffusion.imagine(position, here, there, torch.full((2,), share)) for share in (0.0, 0.5, 1.0)]
    assert torch.allclose(way[0].kappa, ends[0].kappa, atol=1e-6)
    assert torch.allclose(way[2].kappa, ends[1].kappa, atol=1e-6)
    assert torch.allclose(way[1].universe[:, 0], torch.tensor(0.3))
    spread = [float(maps.kappa.std()) for maps in (ends[0], way[1], ends[1])]
    assert spread == sorted(spread)


# --- games ---


def count(player):
    return sum(p.numel() for p in player.parameters())


def test_the_published_players_have_the_published_sizes():
    recipe = cosmogan.study.recipes["paper"]
    assert (recipe.side, recipe.latent, recipe.filters, recipe.batch, recipe.lr, recipe.beta1) == (256, 64, 64, 64, 2e-4, 0.5)
    generator = cosmogan.Deconvolving(recipe.side, recipe.latent, recipe.filters, torch.nn.Identity())
    critic = cosmogan.Convolving(recipe.side, recipe.filters)
    up, down = [(512, 256), (256, 128), (128, 64)], [(64, 128), (128, 256), (256, 512)]
    # kernels, biases, and scale and shift of batch normalisation
    first, last = 65 * 512 * 16**2 + 2 * 512, 25 * 64 + 1
    assert count(generator) == first + sum(25 * a * b + b + 2 * b for a, b in up) + last == 12_824_449
    assert count(critic) == 25 * 64 + 64 + sum(25 * a * b + b + 2 * b for a, b in down) + 512 * 16**2 + 1 == 4_436_225
    norms = [m for player in (generator, critic) for m in player.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 4 + 3
    assert {(m.momentum, m.eps) for m in norms} == {(0.1, 1e-5)}


def test_nature_and_drawn_change_places_in_whole_batches_as_often_as_asked():
    real, drawn = torch.linspace(0, 1, 5), torch.linspace(-2, 1, 5)
    told = cosmogan.rules_of(smallest(cosmogan.study.recipes["quick"], flipped=0.3)).critic
    softplus = torch.nn.functional.softplus
    straight, other = softplus(-real) + softplus(drawn), softplus(real) + softplus(-drawn)
    torch.manual_seed(0)
    flips = []
    for _ in range(2000):
        loss = told(real, drawn)
        assert torch.equal(loss, straight) or torch.equal(loss, other)
        flips.append(torch.equal(loss, other))
    assert abs(np.mean(flips) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)
    never = cosmogan.rules_of(smallest(cosmogan.study.recipes["quick"], flipped=0.0)).critic
    assert all(torch.equal(never(real, drawn), straight) for _ in range(20))


@pytest.mark.parametrize("changes", [{}, {"penalty": 10.0}, {"scale": "linear", "told": False}])
def test_every_game_is_played_and_stays_within_its_scale(training, changes):
    torch.manual_seed(0)
    game = cosmogan.build(smallest(cosmogan.study.recipes["quick"], **changes), training)
    watched = game.step(training[::90])
    assert all(np.isfinite(float(value)) for value in watched.values())
    drawn = draw_like(game, training[:20], seed=0, device=CPU)
    assert torch.isfinite(drawn.kappa).all()
    assert drawn.kappa.abs().max() < 3 * training.kappa.abs().max()


@pytest.mark.parametrize("which", ["game", "diffusion"])
def test_what_is_shipped_draws_the_same_maps(which, training, diffusion):
    study = cosmogan.study if which == "game" else ddpm.study
    recipe = smallest(study.recipes["quick"])
    torch.manual_seed(0)
    learner = cosmogan.build(recipe, training) if which == "game" else diffusion
    learner.step(training[::90])
    like = learner.ask(5, {"omega_m": "0.25,0.3", "sigma_8": "0.7"})
    expected = draw_like(learner, like, seed=1, device=CPU)
    for state in (learner.to_ship(), learner.state_dict()):
        again = draw_like(study.restore(recipe, state), like, seed=1, device=CPU)
        assert torch.equal(again.kappa, expected.kappa)
    assert again.universe[0].tolist() == pytest.approx([0.25, 0.7, -1, 1])
    assert under(learner.state_dict(), "none") == {}


# --- data of the user's own ---


def written(tmp_path, kappa, **more):
    np.savez(tmp_path / "maps.npz", kappa=kappa, **more)
    return tmp_path / "maps.npz"


def test_maps_without_a_size_are_refused_and_with_one_in_the_recipe_taken(tmp_path, training):
    path = written(tmp_path, training.kappa[:120].numpy())
    recipe = smallest(cosmogan.study.recipes["quick"], data=path, degrees=None)
    with pytest.raises(Refused, match="how wide"):
        framing.load(recipe)
    split = framing.load(recipe.model_copy(update={"degrees": 2.0}))
    assert isinstance(split, Split)
    assert sum(len(part) for part in (split.train, split.validation, split.held_out)) == 120
    assert split.held_out.degrees[0] == 2


def test_one_map_is_refused_with_how_many_it_takes(tmp_path, training):
    path = written(tmp_path, training.kappa[0].numpy(), side_deg=3.5)
    with pytest.raises(Refused, match="1 map of 32 px; 60 or more"):
        framing.load(smallest(cosmogan.study.recipes["quick"], data=path))


def test_masked_maps_are_set_aside_from_training_and_kept_for_the_judge(tmp_path, training):
    kappa = training.kappa[:200].numpy().copy()
    kappa[::2, :8, :8] = np.nan
    split = framing.load(smallest(cosmogan.study.recipes["quick"], data=written(tmp_path, kappa, side_deg=3.5)))
    assert not split.train.kappa.isnan().any()
    assert split.held_out.kappa.isnan().any()
    assert "not observed" in split.rejected[0]
    evidence = cosmogan.study.judge(split.held_out, split.held_out, seed=0)
    assert any("unobserved pixels" in line for line in evidence.remarks)


def test_a_generator_of_your_maps_asks_for_their_size_not_for_that_of_simulations(tmp_path, training):
    path = written(tmp_path, training.kappa[:200].numpy(), side_deg=0.5)
    recipe = smallest(ddpm.study.recipes["quick"], data=path, degrees=None)
    learner = ddpm.build(recipe, framing.load(recipe).train)
    assert learner.ask(3, {}).degrees.tolist() == [0.5] * 3
    assert draw_like(learner, learner.ask(3, {}), seed=0, device=CPU).universe.isnan().all()


def test_the_law_of_maps_of_one_universe_or_of_unknown_ones_is_measured_too():
    told = drawn_from(0.3, 0.8, 400, 7)
    for maps in (told, data.maps(told.kappa.numpy(), DEGREES)):
        law = Law.fitted(maps)
        assert law.numbers == 0
        again = Law.blank(SIDE, law.state_dict())
        again.load_state_dict(law.state_dict())
        spectra = [field.power_spectrum(one.kappa.double().numpy())[1].mean(0) for one in (maps, copies(again, maps))]
        assert np.abs(spectra[1] / spectra[0] - 1)[1:].max() < 0.15
        assert copies(law, maps).kappa.std() == pytest.approx(float(maps.kappa.std()), rel=0.05)


@pytest.mark.parametrize("system", [ddpm, cosmogan])
def test_maps_of_an_unknown_universe_are_learned_saved_drawn_and_judged(system, tmp_path, training):
    name = f"lensing.{system.__name__.rpartition('.')[2]}"
    path = written(tmp_path, training.kappa[:300].numpy(), side_deg=3.5)
    recipe = smallest(system.study.recipes["quick"], data=path, steps=2, draws=24)
    run, outcome = pipeline.run(name, "quick", recipe, tmp_path / "run")
    assert outcome.finished
    assert (run.path / "evidence.json").is_file()
    assert system.study.restore(recipe, run.state()[1]).ask(2, {}).universe.isnan().all()


def test_draws_share_no_random_numbers_with_simulated_maps_of_the_same_seed():
    # The memorisation finding once caught it: a generator that colours noise drew its training maps again.
    maps = simulate.simulate([simulate.Universe()], 6, side=32, seed=0).kappa
    noise = Noise(0, range(6)).normal(32, 32)
    one, two = torch.fft.rfft2(maps), torch.fft.rfft2(noise)
    cross = (one * two.conj()).real.sum((1, 2)) / (one.abs().square().sum((1, 2)) * two.abs().square().sum((1, 2))).sqrt()
    assert cross.abs().max() < 0.2
