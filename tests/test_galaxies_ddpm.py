"""Galaxies by diffusion: the linear estimate, the recipes, draws and what is told of them."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from simulacra import study as studies
from simulacra.families import diffusion
from simulacra.families.denoising import Principal, Published
from simulacra.sciences.galaxies import data, ddpm, framing, pictures
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.ddpm import DDPMRecipe, build, laptop, levels_of, restore, schedule_of, study
from simulacra.study import Imagines, Noise, Refused, Traces

TINY = DDPMRecipe(side=16, widths=(16, 32), attention_at=(1,), embed=16, axes=6, steps=150, batch=16, walk=6, ema=0.9, lr=1e-2)


def galaxies(n, side=16, seed=0):
    """Two classes of blobs, red and round or blue and flat, on a noisy sky."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (n,), generator=rng)
    y, x = torch.meshgrid(*[torch.arange(side) - side / 2 + 0.5] * 2, indexing="ij")
    size = 1.5 + torch.rand(n, 1, 1, generator=rng)
    flat = torch.where(label == 0, 1.0, 0.4)[:, None, None]
    light = torch.exp(-0.5 * ((x / size) ** 2 + (y / (size * flat)) ** 2))
    colour = torch.tensor([[1.0, 0.7, 0.4], [0.6, 0.7, 0.9]])[label]
    image = 0.1 + 0.8 * light[:, None] * colour[:, :, None, None] + 0.02 * torch.randn(n, 3, side, side, generator=rng)
    return Images(framing.as_bytes(image), label)


@pytest.fixture(scope="module")
def taught():
    """A small learner after its few steps."""
    recipe, images = TINY.model_copy(update={"classes": 2}), galaxies(400)
    torch.manual_seed(0)
    learner = build(recipe, images)
    for step in range(recipe.steps):
        torch.manual_seed(step)
        learner.step(images[torch.randint(len(images), (recipe.batch,))])
    return learner


def test_the_linear_estimate_is_of_training_images_in_any_turn():
    images = galaxies(600)
    head = ddpm.measured(TINY, images)
    assert isinstance(head, Principal)
    x = 2 * images.float() - 1
    assert torch.allclose(head.mean, head.mean.transpose(1, 2), atol=0.05)  # the blobs lie flat, but their turns do not
    assert not torch.allclose(x.mean(0), x.mean(0).transpose(1, 2), atol=0.05)
    still = ddpm.measured(TINY.model_copy(update={"turned": False}), images)
    assert torch.allclose(still.mean, x.mean(0), atol=1e-5)


def test_axes_of_large_images_are_those_of_shrunk_ones():
    head = ddpm.measured(TINY.model_copy(update={"side": 64}), galaxies(60, side=64))
    assert head.pool == 2
    assert head.directions.shape == (3 * 32 * 32, 6)


def test_levels_of_the_even_schedule_are_even_in_the_logarithm_of_the_noise():
    gamma = schedule_of(laptop).gamma[1:]
    assert float((gamma[0] / 2).exp()) == pytest.approx(laptop.least)
    assert float((gamma[-1] / 2).exp()) == pytest.approx(laptop.largest)
    assert float(gamma.diff().max() / gamma.diff().min()) < 1.2


@pytest.mark.parametrize("name", ["quick", "laptop", "paper"])
def test_draws_go_from_the_largest_noise_down_to_none(name):
    recipe = study.recipes[name]
    levels = levels_of(recipe, schedule_of(recipe))
    assert len(levels) == recipe.walk + 1
    assert levels[-1] == 0
    assert all(a > b for a, b in pairwise(levels))
    ratio = (schedule_of(recipe).gamma[levels[0]] / 2).exp()
    assert float(ratio) > 39


def test_the_paper_recipe_is_the_published_one():
    recipe = study.recipes["paper"]
    schedule = schedule_of(recipe)
    kept = schedule.alpha(torch.arange(1001)).square()
    beta = 1 - kept[1:] / kept[:-1]
    assert float(beta[0]) == pytest.approx(1e-4)
    assert float(beta[-1]) == pytest.approx(0.02)
    assert (recipe.lr, recipe.ema, recipe.dropout, recipe.batch, recipe.sampler) == (2e-4, 0.9999, 0.1, 128, "ancestral")
    assert levels_of(recipe, schedule) == list(range(1000, -1, -1))
    assert (recipe.widths, recipe.patch, recipe.blocks) == ((128, 256, 256, 256), 1, 2)
    assert recipe.side >> recipe.attention_at[0] == 16


def test_learning_lowers_the_errors_of_the_head_and_the_bound_is_put_beside_that_of_the_head(taught):
    held = galaxies(60, seed=5)
    errors, bits = ddpm.error_check(taught, held, 0), ddpm.bits_check(taught, held, 0)
    assert errors.met
    assert errors.value < 0.98
    # The sky of these galaxies is white noise of five counts, whose entropy no model can undercut.
    assert 4.3 < bits.value < 5
    assert bits.value == pytest.approx(bits.beside["the head alone"], abs=0.1)
    assert bits.met == (bits.value < bits.beside["the head alone"])


def test_draws_are_galaxies_of_the_class_that_was_asked_for(taught):
    label = torch.arange(40) % 2
    drawn = taught.draw(pictures.templates(galaxies(1), label), Noise(1, range(40)))
    assert torch.equal(drawn.label, label)
    mean = drawn.float().mean((2, 3))
    redness = mean[:, 0] - mean[:, 2]
    nature = galaxies(300, seed=3)
    real = nature.float().mean((2, 3))
    threshold = (real[:, 0] - real[:, 2]).median()
    assert ((redness > threshold) == (label == 0)).float().mean() > 0.75
    assert drawn.float().mean() == pytest.approx(float(nature.float().mean()), abs=0.04)


def test_a_draw_is_the_same_alone_in_a_trace_and_from_its_position(taught):
    assert isinstance(taught, Imagines)
    assert isinstance(taught, Traces)
    like = pictures.templates(galaxies(1), torch.tensor([0, 1, 0]))
    drawn = taught.draw(like, Noise(2, range(3)))
    alone = taught.draw(like[1:2], Noise(2, range(1, 2)))
    film = taught.trace(like, Noise(2, range(3)), 4)
    again = taught.imagine(Noise(2, range(3)).normal(taught.latent), like)
    for other, rows in ((alone, slice(1, 2)), (film[-1], slice(None)), (again, slice(None))):
        assert (other.pixels.int() - drawn.pixels[rows].int()).abs().max() <= 1
    assert film[0].pixels.float().std() > 2 * drawn.pixels.float().std()


def test_a_restored_learner_draws_the_same_and_what_ships_nearly(taught):
    recipe = TINY.model_copy(update={"classes": 2})
    like = pictures.templates(galaxies(1), torch.tensor([0, 1]))
    drawn = taught.draw(like, Noise(0, range(2))).pixels
    assert torch.equal(restore(recipe, taught.state_dict()).draw(like, Noise(0, range(2))).pixels, drawn)
    shipped = restore(recipe, taught.to_ship()).draw(like, Noise(0, range(2))).pixels
    assert (shipped.int() - drawn.int()).abs().max() <= 3
    assert all(v.dtype == torch.float16 for k, v in taught.to_ship().items() if v.ndim > 1)


def test_a_published_head_learns_too_and_is_restored():
    recipe = TINY.model_copy(update={"head": "v", "schedule": "cosine", "classes": 2})
    learner = build(recipe, galaxies(40))
    assert isinstance(learner.head, Published)
    learner.step(galaxies(16))
    like = pictures.templates(galaxies(1), torch.tensor([0, 1]))
    drawn = learner.draw(like, Noise(0, range(2))).pixels
    assert torch.equal(restore(recipe, learner.to_ship() | learner.state_dict()).draw(like, Noise(0, range(2))).pixels, drawn)


def test_pictures_show_each_class_and_the_way_between(taught):
    nature = galaxies(20, seed=7)
    page = ddpm.by_class(taught, nature, 2, 3, 0)
    assert len(page) == 2 * 2 * 3
    assert torch.equal(page.label, torch.tensor([0] * 6 + [1] * 6))
    assert torch.equal(page.pixels[:3], nature[nature.label == 0].pixels[:3])
    film = pictures.morph(taught, nature, 2, 0, torch.device("cpu"), columns=2, frames=2)
    assert len(film) == 4
    assert not torch.equal(film[0].pixels, film[2].pixels)
    split = studies.Split(nature, nature, nature, "made")
    for figure in ddpm.figures(taught, split, 0):
        assert figure.image[:4] in (b"\x89PNG", b"GIF8")


def test_a_draw_of_bytes_stays_in_their_bounds(taught):
    t = torch.full((4,), taught.schedule.steps)
    told = taught.told(10 * torch.randn(4, 3, 16, 16), t, torch.zeros(4, dtype=torch.int64))
    assert float(told.abs().max()) <= 1
    low, high = taught.bounds
    assert (low, high) == (diffusion.EIGHT_BITS.low, diffusion.EIGHT_BITS.high)


def test_classes_that_were_not_learned_are_refused():
    with pytest.raises(Refused, match="never seen"):
        study.ask(laptop, 4, {"class": "7"})
    asked = study.ask(laptop, 4, {"class": "2,0"})
    assert asked.label.tolist() == [2, 0, 2, 0]
    assert np.shape(data.picture(asked)) == (4, 64, 64, 3)
