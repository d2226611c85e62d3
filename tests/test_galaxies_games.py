"""The adversarial galaxy systems: players, draws under a class, and a collapsed game that is found out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simulacra import study
from simulacra.families.autoencoder import principal_axes
from simulacra.families.gan import Game
from simulacra.sciences.galaxies import adversarial, data, pictures, simulate, statistics
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.players import COUNTS, Convolving, Deconvolving, Seeing, Spectrum, Styled, stretched, unstretched, whole
from simulacra.study import Noise, Split

SYSTEMS = ("galaxies.gan", "galaxies.acgan", "galaxies.wgan_gp", "galaxies.wgan_div")


@pytest.fixture(scope="module")
def nature() -> Images:
    pytest.importorskip("galsim")
    return simulate.simulate(600, 32, seed=0)


def some(n: int = 16, side: int = 16) -> Images:
    torch.manual_seed(2)
    return Images(torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8), torch.arange(n) % 3)


def small_game(name: str, **changes: object) -> Game[Images]:
    asked = study.find(name)
    recipe = asked.recipes["quick"].model_copy(update={"side": 16, "width": 8, "critic_width": 8, "batch": 16} | changes)
    torch.manual_seed(1)
    game: Game[Images] = asked.build(recipe, some(16, recipe.side))
    return game


# --- the published pair ---


def norm_and_kernel(inputs: int, outputs: int) -> int:
    """A kernel of 4 x 4 without bias, and scale and offset of a normalisation."""
    return 16 * inputs * outputs + 2 * outputs


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_published_networks_have_as_many_weights_as_their_layers_imply(name: str) -> None:
    classes = 3 if name == "galaxies.acgan" else 0
    asked = study.find(name)
    game = asked.build(asked.recipes["paper"], some(4, 128))
    generator, critic = (sum(p.numel() for p in player.module.parameters()) for player in (game.generator, game.critic))
    steps = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert generator == norm_and_kernel(100 + classes, 1024) + sum(norm_and_kernel(a, b) for a, b in steps) + 16 * 64 * 3
    assert critic == 16 * 3 * 64 + sum(norm_and_kernel(b, a) for a, b in steps) + 16 * 1024 * (1 + classes)
    normal = [m for m in game.critic.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(normal) == (name in ("galaxies.gan", "galaxies.acgan"))
    assert all(m.eps == 1e-5 and m.momentum == 0.1 for m in normal)


@pytest.mark.parametrize("critic", [Seeing(16, 3, 8), Convolving(16, 3, 8, coupled=False)])
def test_a_critic_that_may_be_penalised_scores_each_image_by_itself(critic: nn.Module) -> None:
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(critic(x)[:1], critic(x[:1]), rtol=1e-4, atol=1e-5)
    plain = Convolving(16, 3, 8)
    assert not torch.allclose(plain(x)[:2], plain(x[:2]), rtol=1e-2), "batch normalisation couples rows"


# --- our pair ---


def test_every_count_survives_the_stretched_scale_and_rounding_lets_gradients_through() -> None:
    counts = torch.arange(256)
    torch.testing.assert_close((255 * unstretched(COUNTS)).round().long(), counts)
    torch.testing.assert_close(stretched(counts / 255), COUNTS)
    y = (COUNTS[:-1] * 0.6 + COUNTS[1:] * 0.4).requires_grad_(True)
    torch.testing.assert_close(whole(y).detach(), COUNTS[:-1])
    whole(y).sum().backward()
    assert bool((y.grad == 1).all())
    torch.testing.assert_close(whole(torch.tensor([-3.0, 5.0])), COUNTS[[0, -1]])


def test_the_spectrum_finds_a_wave_in_its_ring_and_nowhere_else() -> None:
    side, k = 32, 9
    x = torch.arange(side) / side
    wave = torch.cos(2 * torch.pi * k * x)[None, None, None, :].expand(1, 2, side, side)
    told = Spectrum(side, 2)(wave - 1).view(2, -1)  # black is -1
    assert told.argmax(1).tolist() == [k, k]
    far = (torch.arange(told.shape[1]) - k).abs() > 2  # the taper spreads a wave over its neighbours
    assert float(10 ** (told[:, far].max() - told[:, k].min())) < 1e-3


def test_the_spectrum_is_told_in_units_of_its_spread_in_training() -> None:
    spectrum, x = Spectrum(16, 3), stretched(some(40).float())
    spectrum.fit(x)
    told = spectrum(x)
    torch.testing.assert_close(told.mean(0), torch.zeros(spectrum.numbers), atol=1e-4, rtol=0)
    torch.testing.assert_close(told.std(0), torch.ones(spectrum.numbers), atol=1e-3, rtol=0)


def smooth_pictures(n: int) -> Tensor:
    """Pictures (n, 3, 32, 32) whose power lies at large scales."""
    torch.manual_seed(6)
    return nn.functional.interpolate(torch.randn(n, 3, 4, 4), size=32, mode="bilinear") / 3


def test_before_its_first_move_the_generator_draws_the_principal_components_of_each_class() -> None:
    torch.manual_seed(0)
    pictures, label = smooth_pictures(400), torch.arange(400) % 2
    pictures[label == 1] *= 0.5
    pictures[label == 1] += 0.4
    generator, axes = Styled(32, 3, style=48, width=8, classes=2), principal_axes(pictures.flatten(1), 48)
    generator.fit(pictures.flatten(1), label, axes)
    nn.init.zeros_(generator.bent.weight)
    nn.init.zeros_(generator.bent.bias)
    z = torch.randn(4000, 48)
    with torch.no_grad():
        code = torch.zeros(4000, 128)
        for kind in (0, 1):
            known, drawn = pictures[label == kind], generator._smooth(z, code, torch.full((4000,), kind))
            torch.testing.assert_close(drawn.mean((1, 2, 3)).mean(), known.mean(), atol=0.01, rtol=0)
            torch.testing.assert_close(drawn.std(0).mean(), known.std(0).mean(), atol=0.01, rtol=0)


def test_the_style_says_which_galaxy_and_the_noise_says_only_the_grain() -> None:
    torch.manual_seed(0)
    generator = Styled(32, 3, style=16, width=8)
    generator.fit(torch.zeros(1, 3 * 32**2), torch.zeros(1), principal_axes(smooth_pictures(64).flatten(1), 16))
    one, two = torch.randn(2, 8, generator.latent)
    other_noise, other_style = one.clone(), one.clone()
    other_noise[:, 16:], other_style[:, :16] = two[:, 16:], two[:, :16]

    def apart(position: Tensor) -> tuple[float, float]:
        with torch.no_grad():
            difference = generator(position) - generator(one)
        coarse = nn.functional.avg_pool2d(difference, 8)
        return float(difference.square().mean()), float(coarse.square().mean())

    fine, coarse = apart(other_noise)
    fine_style, coarse_style = apart(other_style)
    assert fine > 0, "two skies are never the same"
    assert coarse < 0.2 * fine, "noise averages out"
    assert coarse_style > 10 * coarse
    assert fine_style > 0


# --- every system ---


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_move_reaches_every_parameter_of_both_players(name: str) -> None:
    game = small_game(name)
    players = (game.generator.module, game.critic.module)
    before = [[p.clone() for p in player.parameters()] for player in players]
    for _ in range(2):  # the learning rate of the first move is not yet above zero where it warms up
        game.step(some())
    for player, old in zip(players, before, strict=True):
        still = [n for (n, p), q in zip(player.named_parameters(), old, strict=True) if torch.equal(p, q)]
        # A constant added to all scores of a Wasserstein critic moves nothing: its two means cancel.
        assert set(still) <= ({"last.2.bias", "last.3.bias"} if "wgan" in name else set()), (name, still)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_galaxy_is_drawn_the_same_whatever_is_drawn_beside_it(name: str) -> None:
    game = small_game(name)
    game.step(some())
    many = game.draw(some(9), Noise(3, range(9)))
    few = game.draw(some(9)[4:6], Noise(3, range(4, 6)))
    assert int((many.pixels[4:6].int() - few.pixels.int()).abs().max()) <= 1  # the last bit of a sum may round the other way
    assert not torch.equal(many.pixels[0], many.pixels[3])


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_shipped_and_what_is_saved_draw_as_the_trained_game(name: str) -> None:
    game, asked = small_game(name), study.find(name)
    game.step(some())
    recipe = asked.recipes["quick"].model_copy(update={"side": 16, "width": 8, "critic_width": 8, "batch": 16})
    drawn = game.draw(some(6), Noise(0, range(6)))
    for state in (game.to_ship(), game.state_dict()):
        again = asked.restore(recipe, state).draw(some(6), Noise(0, range(6)))
        assert torch.equal(again.pixels, drawn.pixels)
        assert torch.equal(again.label, drawn.label)
    assert not any("critic" in key for key in game.to_ship())


def test_only_the_system_that_is_told_of_classes_labels_its_draws() -> None:
    for name in SYSTEMS:
        drawn = small_game(name).draw(some(6), Noise(0, range(6)))
        assert drawn.label.tolist() == ([0, 1, 2, 0, 1, 2] if name == "galaxies.acgan" else [-1] * 6)


@pytest.mark.parametrize("network", ["styled", "dcgan"])
def test_between_two_classes_lies_a_continuous_way(network: str) -> None:
    game = small_game("galaxies.acgan", network=network, penalty=0.0, game="non-saturating")
    position = Noise(5, range(4)).normal(game.latent)
    ones, twos = (Images(some(4).pixels, torch.full((4,), k)) for k in (1, 2))

    def at(share: float) -> Tensor:
        return game.imagine(position, ones, twos, torch.full((4,), share)).pixels.float()

    torch.testing.assert_close(at(0.0), game.imagine(position, ones).pixels.float(), atol=1, rtol=0)
    torch.testing.assert_close(at(1.0), game.imagine(position, twos).pixels.float(), atol=1, rtol=0)
    whole_way = (at(1.0) - at(0.0)).abs().mean()
    assert whole_way > 0
    assert (at(0.51) - at(0.5)).abs().mean() < 0.1 * whole_way + 0.1


# --- the verdict ---


def collapsed(images: Images, n: int, kept: int = 5) -> Images:
    """A generator that has learned `kept` images and adds noise of one count to them."""
    torch.manual_seed(4)
    pixels = images.pixels[torch.arange(n) % kept].float()
    return Images((pixels + torch.randn_like(pixels)).round().clamp(0, 255).to(torch.uint8), torch.full((n,), -1))


def test_a_collapsed_game_is_found_by_coverage_and_by_counting_its_images(nature: Images) -> None:
    held_out, more = nature[:150], nature[150:300]
    gaps = {}
    for what, drawn in (("nature", more), ("collapsed", collapsed(more, 150))):
        found = statistics.judge(held_out, drawn, seed=0, permutations=19, halves=20)
        gaps[what] = next(f.gap for f in found.findings if f.name.startswith("coverage"))
        check = adversarial.distinct_check(held_out, drawn)
        assert check.met == (what == "nature")
        assert (check.value <= 5) == (what == "collapsed")
    assert gaps["nature"] < 0.2
    assert gaps["collapsed"] > 0.6


def test_class_shares_of_nature_pass_and_those_of_one_class_do_not(nature: Images) -> None:
    kinds = statistics.pixel_class(statistics.measure(nature))
    one = nature[torch.from_numpy(np.flatnonzero(kinds == np.bincount(kinds[kinds >= 0]).argmax()))]
    assert adversarial.shares_check(nature[:300], nature[300:]).met
    assert not adversarial.shares_check(nature[:300], one).met
    assert adversarial.shares_check(nature, nature).value == 1.0


def test_images_are_counted_once_however_often_they_are_drawn() -> None:
    flat = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.0, 5.1], [0.0, 0.1], [9.0, 0.0]])
    assert adversarial.distinct(flat, 1.0) == 3
    assert adversarial.distinct(flat, 0.0) == 6


def test_what_is_examined_comes_from_other_positions_than_what_was_judged(nature: Images) -> None:
    game = small_game("galaxies.wgan_gp", side=32)
    _, checks = game_checks(game, nature)
    assert [c.name.split(" ")[0] for c in checks] == ["class", "different"]
    judged = game.draw(nature[:64], Noise(0, range(64)))
    assert not torch.equal(judged.pixels, adversarial._drawn(game, nature, 64, 0).pixels)


def game_checks(game: Game[Images], nature: Images) -> tuple[list[object], list[adversarial.Check]]:
    findings, checks = adversarial.examine(game, Split(nature, nature, nature[:40], "simulated"), 0)
    return list(findings), checks


# --- pictures ---


def test_the_nearest_training_image_of_a_turned_one_is_that_one(nature: Images) -> None:
    turned = dataclasses.replace(nature[:6], pixels=nature.pixels[:6].flip(2).transpose(2, 3))
    page = adversarial.beside_nearest(turned, nature)
    expected = data.sheet(Images(torch.cat([turned.pixels, nature.pixels[:6]]), nature.label[:6].repeat(2)), columns=6)
    assert np.array_equal(page, expected)


def test_a_latent_path_keeps_its_sky_and_a_morph_passes_through_every_class() -> None:
    game = small_game("galaxies.acgan")
    moments = adversarial.path(game, some(), 0)
    assert len(moments) == adversarial.FRAMES
    way = data.Images.join(moments)
    steps = (way.pixels[1:].float() - way.pixels[:-1].float()).abs().mean((1, 2, 3))
    far = (way.pixels[: adversarial.FRAMES // 2].float() - way.pixels[adversarial.FRAMES // 2 :].float()).abs().mean()
    assert steps.max() < far + 1
    moments = pictures.morph(game, some(), 3, 0, torch.device("cpu"), columns=4, frames=6)
    assert len(moments) == 18
    position = Noise(0, range(4)).normal(game.latent)
    for kind in range(3):
        asked = Images(some(4).pixels, torch.full((4,), kind))
        assert torch.equal(moments[6 * kind].pixels, game.imagine(position, asked, asked, torch.zeros(4)).pixels)


def test_the_published_generator_draws_with_running_statistics() -> None:
    torch.manual_seed(0)
    generator = Deconvolving(16, 3, 8, 4)
    for _ in range(3):
        generator(torch.randn(8, 8))
    z = torch.randn(4, 8)
    torch.testing.assert_close(generator.eval()(z)[:1], generator(z[:1]))
