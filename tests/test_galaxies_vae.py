"""The galaxy autoencoder: the article's network, draws, novelty of planted anomalies, reconstructions."""

import io
import math
import sys

import numpy as np
import pytest
import torch

from simulacra import pipeline
from simulacra.sciences.galaxies import framing, novelty, simulate, vae
from simulacra.sciences.galaxies.data import Images
from simulacra.study import Encodes, Noise, Refused, Scores, Split

CPU = torch.device("cpu")
SMALL = vae.study.recipes["quick"].model_copy(update={"steps": 25, "latent": 12, "prior": 2, "device": "cpu"})


@pytest.fixture(scope="module")
def galaxies():
    pytest.importorskip("galsim")
    images = simulate.simulate(440, 32, seed=3)
    return Split(images[:260], images[260:280], images[280:], "simulated")


@pytest.fixture(scope="module")
def learner(galaxies):
    return trained(SMALL, galaxies.train)


def trained(recipe, training, steps=None):
    torch.manual_seed(0)
    learner = vae.build(recipe, training)
    for step in range(steps or recipe.steps):
        torch.manual_seed(step)
        learner.step(training[torch.randint(len(training), (16,))])
    return learner


def empty(n, side=32, bands=3):
    return Images(torch.zeros(n, bands, side, side, dtype=torch.uint8), torch.full((n,), -1))


def test_the_articles_network_has_49_277_252_parameters():
    paper = vae.study.recipes["paper"]
    with torch.device("meta"):
        coder = vae.article_coder(paper.side, 3, paper.latent, paper.sigma)
    assert sum(p.numel() for p in coder.parameters()) == 49_277_252
    assert paper.sigma**2 == pytest.approx(0.5)  # summed squared error + KL


def test_the_articles_network_learns_at_a_small_side(galaxies):
    recipe = vae.study.recipes["paper"].model_copy(update={"side": 32, "latent": 8, "steps": 20, "device": "cpu"})
    torch.manual_seed(0)
    learner = vae.build(recipe, galaxies.train)
    losses = [float(learner.step(galaxies.train[torch.randint(260, (32,))])["mse"]) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert learner.draw(empty(3), Noise(0, range(3))).pixels.shape == (3, 3, 32, 32)


def test_a_trained_learner_has_the_powers_it_promises(learner):
    assert isinstance(learner, Encodes)
    assert isinstance(learner, Scores)


def test_turns_are_the_eight_symmetries_of_the_square():
    x = torch.randn(1, 3, 6, 6)
    ways = [framing.turned(x, torch.tensor([k])) for k in range(8)]
    expected = [y.rot90(k, (2, 3)) for y in (x, x.flip(3)) for k in range(4)]
    assert all(any(torch.equal(w, e) for e in expected) for w in ways)
    assert len({w.numpy().tobytes() for w in ways}) == 8


def test_the_correction_starts_at_the_principal_components(galaxies):
    x = galaxies.train
    learner = vae.build(SMALL, x)
    before = (learner.vae.decode(learner.vae.encode(x.float())) - x.float()).square().mean()
    torch.testing.assert_close(before, vae._Principal(x, 12, seed=0).errors(x, 12).mean(), rtol=1e-3, atol=0)


def test_the_correction_improves_on_principal_components_where_things_move():
    """A spot of fixed shape at a random place has two degrees of freedom but dozens of principal components."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    where = rng.uniform(5, 10, (300, 2))
    spots = 20 + 200 * np.exp(-((y - where[:, :1, None]) ** 2 + (x - where[:, 1:, None]) ** 2) / 8)
    things = Images(torch.from_numpy(np.rint(spots).astype(np.uint8))[:, None], torch.full((300,), -1))
    recipe = SMALL.model_copy(update={"side": 16, "colour": False, "latent": 3, "width": 8, "steps": 120, "prior": 1})
    learner = trained(recipe, things)
    after = (learner.vae.decode(learner.vae.encode(things.float())) - things.float()).square().mean()
    assert after < 0.7 * vae._Principal(things, 3, seed=0).errors(things, 3).mean()


def test_a_saved_learner_is_the_loaded_one(galaxies, learner):
    other = vae.build(SMALL, galaxies.train)
    other.load_state_dict(learner.state_dict())
    assert torch.equal(learner.score(galaxies.held_out), other.score(galaxies.held_out))
    one, two = (it.draw(empty(4), Noise(1, range(4))) for it in (learner, other))
    assert torch.equal(one.pixels, two.pixels)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in learner.state_dict().items())


def test_a_state_from_before_the_end_settles_when_it_is_first_used(galaxies):
    training = galaxies.train[:80]
    half = trained(SMALL, training, steps=4)
    assert half.settled_at == -1
    other = vae.build(SMALL, training)
    other.load_state_dict(half.state_dict())
    assert torch.equal(half.score(galaxies.held_out[:20]), other.score(galaxies.held_out[:20]))
    assert half.settled_at == other.settled_at == 4


def test_draws_do_not_depend_on_how_many_are_drawn(learner):
    few, many = (pipeline.draw_like(learner, empty(n), seed=5, device=CPU) for n in (7, 100))
    assert torch.equal(few.pixels, many.pixels[:7])
    assert not torch.equal(many.pixels[0], many.pixels[1])


def test_novelty_flags_planted_anomalies_and_not_nature(galaxies, learner):
    usual = learner.score(galaxies.held_out[:80])
    for plant in (simulate.satellite_trail, simulate.wrong_band_order):
        value, error = novelty.auroc(usual, learner.score(plant(galaxies.held_out[80:], 1)))
        assert value > 0.9, (plant.__name__, value, error)
    value, error = novelty.auroc(usual, learner.score(galaxies.held_out[80:]))
    assert abs(value - 0.5) < 4 * error


def test_the_examination_gives_finite_numbers_with_their_baselines(galaxies, learner):
    findings, checks = vae.examine(learner, galaxies, 0)
    assert findings == []
    assert len(checks) == 1 + len(vae.ANOMALIES)
    for check in checks:
        assert math.isfinite(check.value)
        assert math.isfinite(check.error)
        assert check.beside
        assert all(math.isfinite(v) for v in check.beside.values())
    noise = checks[0].beside["noise of the images"]
    assert 0 < noise < checks[0].beside["principal components, 12"]


def test_figures_are_pictures(galaxies, learner):
    from PIL import Image

    kinds = []
    for figure in vae.figures(learner, galaxies, 0):
        with Image.open(io.BytesIO(figure.image)) as picture:
            kinds.append(picture.format)
            picture.load()
    assert kinds == ["PNG", "PNG", "GIF"]


def test_grey_galaxies_and_larger_sides_go_through_the_same_code():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 60, (24, 1, 128, 128), dtype=np.uint8))
    training = Images(pixels, torch.full((24,), -1))
    recipe = SMALL.model_copy(update={"side": 128, "colour": False, "latent": 4, "width": 8, "steps": 2, "prior": 1})
    learner = vae.build(recipe, training)
    learner.vae.at_once = 5  # as at 1024 px: a batch goes through in parts
    for _ in range(2):
        losses = learner.step(training[:12])
    assert all(math.isfinite(float(v)) for v in losses.values())
    assert learner.score(training).isfinite().all()
    assert learner.draw(empty(2, 128, 1), Noise(0, range(2))).pixels.shape == (2, 1, 128, 128)


def test_memory_is_bounded_by_working_off_large_images_one_by_one():
    for side, together in ((64, 256), (256, 16), (1024, 1)):
        assert max(1, vae.PIXELS_AT_ONCE // side**2) == together


def test_what_cannot_be_used_is_refused_in_words(monkeypatch):
    with pytest.raises(ValueError, match="power of two"):
        vae.GalaxyRecipe(side=48)
    with pytest.raises(Refused, match="unconditionally"):
        framing.ask_nothing(SMALL, 3, {"class": "2"})
    with pytest.raises(Refused, match="lower `latent`"):
        vae.build(SMALL, empty(8))
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(Refused, match=r"pip install.*astro"):
        framing.load(SMALL)


# --------------------------------------------------------------------------------------------------------------- novelty


def test_the_area_under_the_roc_curve_has_its_known_values():
    zero, one = torch.zeros(10), torch.ones(20)
    assert novelty.auroc(zero, one)[0] == 1
    assert novelty.auroc(one, zero)[0] == 0
    assert novelty.auroc(zero, torch.zeros(5))[0] == 0.5
    rng = torch.Generator().manual_seed(0)
    usual, strange = torch.randn(4000, generator=rng), torch.randn(4000, generator=rng) + 1
    value, error = novelty.auroc(usual, strange)
    assert value == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=4 * error)  # Phi(1 / sqrt 2)
    assert error < 0.01


def test_expected_variance_is_that_of_the_noise_at_each_brightness():
    rng = torch.Generator().manual_seed(0)
    y = torch.rand(40, 3, 32, 32, generator=rng)
    sigma = 0.02 + 0.1 * y
    variance = novelty.expected_variance(novelty.residual_sums(y + sigma * torch.randn(y.shape, generator=rng), y))
    middles = ((torch.arange(novelty.LEVELS) + 0.5) / novelty.LEVELS).square()
    torch.testing.assert_close(variance[:, 6:].sqrt(), (0.02 + 0.1 * middles[6:]).expand(3, -1), rtol=0.1, atol=0)
    exact = novelty.excess(y + sigma * torch.randn(y.shape, generator=rng), y, variance)
    torch.testing.assert_close(exact, torch.zeros(40), rtol=0, atol=0.1)


def test_surprise_is_minus_log_of_the_share_that_is_more_extreme():
    rng = torch.Generator().manual_seed(0)
    values = -torch.rand(20_000, generator=rng).log()  # exponential: P(> x) = exp(-x), so the surprise at x is x
    profiles = torch.randn(20_000, 3, generator=rng)
    expected = novelty.learnt(values, values, profiles, torch.ones(3, novelty.LEVELS))
    at = torch.tensor([0.5, 1.0, 2.0, 4.0, 9.0])
    found = novelty.surprises(at, at, torch.zeros(5, 3), expected)
    torch.testing.assert_close(found[:, 0], at, rtol=0.05, atol=0.05)


def test_profiles_notice_exchanged_bands_and_not_turns():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(5, 3, 32, 32, generator=rng)
    torch.testing.assert_close(novelty.profile(x), novelty.profile(x.rot90(1, (2, 3))), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(novelty.profile(x), novelty.profile(x.flip(1)), atol=1e-2)


def test_the_noise_of_images_is_found_beside_a_bright_galaxy():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    light = 30 + 150 * np.exp(-(x**2 + y**2) / 100)
    pixels = np.rint(light + 6 * rng.standard_normal((40, 3, 64, 64))).clip(0, 255).astype(np.uint8)
    found = vae.noise_variance(Images(torch.from_numpy(pixels), torch.full((40,), -1)))
    assert found == pytest.approx(36 / 255**2, rel=0.05)
