"""The Ising game: symmetries of the generator, what its rounds can express, and a run from end to end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from simulacra.sciences.ising import gan
from simulacra.sciences.ising.data import Lattices, equilibrium, write
from simulacra.sciences.ising.players import (  # fmt: skip
    Deconvolving,
    Judging,
    Resampling,
    around,
    draw_spins,
    law,
    majority_up,
    moved,
    observables,
    ravel,
    unravel,
)
from simulacra.study import Noise, Refused, find

TINY = gan.quick.model_copy(
    update={"side": 8, "widths": (8, 8), "critic_widths": (8,), "rounds": 2, "temperatures": (2.0, 2.6), "each": 32, "judged": (2.0, 2.6),
            "judged_each": 8, "steps": 3, "batch": 16, "draws": 16}
)  # fmt: skip


@pytest.fixture(scope="module")
def nature() -> Lattices:
    return equilibrium(8, TINY.temperatures, TINY.each, seed=0)


@pytest.fixture
def generator() -> Resampling:
    torch.manual_seed(2)
    return Resampling(16, (12, 8), rounds=3)


def parts_of(generator: Resampling, n: int) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    torch.manual_seed(4)
    motion, world, *maps, luck = torch.split(torch.randn(n, generator.latent), generator.parts, 1)
    return motion, world, maps, luck


# --- the checkerboard ---


def test_sublattices_go_apart_and_together_without_loss() -> None:
    lattice = torch.randn(3, 12, 12)
    assert torch.equal(ravel(*unravel(lattice)), lattice)


def test_half_the_neighbour_sum_is_right_on_both_sublattices() -> None:
    lattice = torch.randn(2, 8, 8, dtype=torch.float64)
    even, odd = unravel(lattice)
    expected = unravel(sum(lattice.roll(step, axis) for step in (1, -1) for axis in (1, 2)) / 2)
    torch.testing.assert_close(around(odd, even=True), expected[0])
    torch.testing.assert_close(around(even, even=False), expected[1])


def test_spins_are_drawn_with_the_probability_that_their_law_gives() -> None:
    torch.manual_seed(0)
    h = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(1, 40_000, 5)
    a, b = torch.full((1, 1, 1), 0.6), torch.full((1, 1, 1), -0.05)
    share = (draw_spins(h, a, b, torch.full_like(h, 0.1), torch.randn_like(h)) > 0).float().mean((0, 1))
    x = 0.6 / 2 * h[0, 0] - 0.05 * (4 * h[0, 0] - h[0, 0] ** 3) / 3 + 0.1
    torch.testing.assert_close(share, torch.special.ndtr(x), atol=0.01, rtol=0)


def test_the_straight_through_gradient_is_exact_for_what_is_linear_in_each_spin() -> None:
    """d/dfield of the mean of w s over the noise is w d(2 Phi(x) - 1)/dx."""
    h = torch.randn(1, 4, 2)
    a, b = (torch.full((1, 1, 1), value, requires_grad=True) for value in (0.4, 0.1))
    field, weight = torch.randn(1, 4, 2, requires_grad=True), torch.randn(1, 4, 2)
    (draw_spins(h, a, b, field, torch.randn(1, 4, 2)) * weight).sum().backward()
    found = [g.grad.clone() for g in (a, b, field) if g.grad is not None]
    expected = torch.autograd.grad((torch.erf((law(h, a, b) + field) / math.sqrt(2)) * weight).sum(), (a, b, field))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_two_numbers_per_temperature_hold_the_exact_local_law() -> None:
    h = torch.tensor([1.0, 2.0], dtype=torch.float64)
    exact = torch.special.ndtri(torch.sigmoid(4 * h / 2.3))
    a = exact[1]
    b = exact[0] - a / 2
    torch.testing.assert_close(torch.special.ndtr(law(h, a, b)), torch.sigmoid(4 * h / 2.3))
    assert b.abs() < 0.2


def test_rounds_start_neutral_so_that_only_the_game_can_teach_them(generator: Resampling) -> None:
    assert (generator.alignment(torch.tensor([2.0, 2.27, 3.0])) - 0.5).abs().max() < 0.25


# --- symmetries ---


def test_shifting_all_noise_shifts_the_drawn_lattice(generator: Resampling) -> None:
    _, world, maps, luck = parts_of(generator, 5)
    temperature, cells = torch.linspace(1.8, 3.0, 5), generator.sides[0]
    shifted = [m.view(5, -1, s, s).roll((s // cells, s // cells), (2, 3)).flatten(1) for m, s in zip(maps, generator.sides, strict=True)]
    step = generator.side // cells
    moved_luck = luck.view(5, -1, 16, 8).roll((step, step // 2), (2, 3)).flatten(1)
    still = generator.in_place(world, maps, luck, temperature)
    assert torch.equal(generator.in_place(world, shifted, moved_luck, temperature), still.roll((step, step), (1, 2)))
    assert still.std() > 0.5


def test_turning_one_number_over_turns_the_whole_lattice_over(generator: Resampling) -> None:
    z, temperature = torch.randn(6, generator.latent), torch.full((6,), 2.2)
    other = z.clone()
    other[:, 5] *= -1
    assert torch.equal(generator(other, temperature), -generator(z, temperature))


def test_motion_keeps_every_observable_up_to_sign(nature: Lattices) -> None:
    spins = nature.spins.float()
    there = moved(spins, torch.randn(len(spins), 6))
    assert not torch.equal(there, spins)
    torch.testing.assert_close(observables(majority_up(there))[:, :-3], observables(majority_up(spins))[:, :-3])  # blocks do shift


def test_drawn_spins_are_spins_and_both_signs_come_equally_often(generator: Resampling) -> None:
    torch.manual_seed(0)
    spins = generator(torch.randn(2000, generator.latent), torch.full((2000,), 2.0))
    assert set(spins.unique().tolist()) == {-1.0, 1.0}
    m = spins.mean((1, 2))
    assert abs(float((m > 0).float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(2000)


def test_the_critic_is_even_because_lattices_come_to_it_majority_up(nature: Lattices) -> None:
    spins = nature.spins.float()
    spins = spins[spins.mean((1, 2)) != 0]
    assert torch.equal(majority_up(-spins), majority_up(spins))
    assert (majority_up(spins).mean((1, 2)) >= 0).all()


def test_observables_of_an_ordered_lattice_are_all_one() -> None:
    assert torch.equal(observables(torch.ones(2, 16, 16)), torch.ones(2, observables(torch.ones(2, 16, 16)).shape[1]))


# --- the game ---


def test_the_gradient_reaches_every_parameter_of_both_players(nature: Lattices) -> None:
    torch.manual_seed(0)
    game = gan.build(TINY, nature)
    for player in (game.generator.module, game.critic.module):
        assert isinstance(player, (Resampling, Judging))
    game.step(nature)  # the law's last layer starts at zero, so what lies before it moves from the second step on
    game.step(nature)
    for descent in (game.generator, game.critic):
        for name, parameter in descent.module.named_parameters():
            grad = parameter.grad
            silent = name == "on_maps.bias" or name.endswith("on_observables.4.bias")  # cancels where scores are compared in pairs
            assert grad is not None, name
            assert silent or grad.abs().max() > 0, name


@pytest.mark.parametrize("players", ["resampling", "dcgan"])
def test_a_lattice_is_drawn_the_same_whatever_is_drawn_beside_it(players: str, nature: Lattices) -> None:
    torch.manual_seed(0)
    game = gan.build(TINY.model_copy(update={"players": players, "filters": 8, "rules": "non-saturating"}), nature)
    game.step(nature[:16])
    together = game.draw(nature[:12], Noise(3, range(12)))
    apart = Lattices.join([game.draw(nature[[i]], Noise(3, range(i, i + 1))) for i in range(12)])
    # The last bits of a product depend on the batch size; a spin hangs on them once in a million.
    assert (together.spins != apart.spins).float().mean() < 1e-3
    assert torch.equal(together.temperature, nature.temperature[:12])


@pytest.mark.parametrize("rules", ["paired", "wasserstein", "non-saturating"])
def test_saved_equals_loaded(rules: str, nature: Lattices) -> None:
    recipe = TINY.model_copy(update={"rules": rules})
    torch.manual_seed(0)
    game = gan.build(recipe, nature)
    game.step(nature[:16])
    torch.manual_seed(9)
    again = gan.build(recipe, nature)
    again.load_state_dict({k: v.clone() for k, v in game.state_dict().items()})
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in game.state_dict().items())
    assert torch.equal(game.draw(nature, Noise(1, range(len(nature)))).spins, again.draw(nature, Noise(1, range(len(nature)))).spins)


def test_the_papers_generator_draws_real_numbers_between_minus_one_and_one() -> None:
    drawn = Deconvolving(32, 100, 8)(torch.randn(4, 100), torch.tensor([1.5, 2.0, 2.27, 3.0]))
    assert drawn.shape == (4, 32, 32)
    assert drawn.abs().max() < 1
    assert drawn.abs().min() > 0


def test_a_few_hundred_steps_bring_energies_near_the_exact_ones() -> None:
    """Two temperatures on a small torus; the rounds find that neighbours align, more so in the cold."""
    recipe = TINY.model_copy(update={"steps": 200, "each": 200, "lr": 2e-3, "critic_lr": 4e-3, "batch": 64, "ema": 0.98, "rounds": 3})
    train = equilibrium(8, recipe.temperatures, recipe.each, seed=0)
    torch.manual_seed(0)
    game = gan.build(recipe, train)
    rng = torch.Generator().manual_seed(0)
    for step in range(recipe.steps):
        torch.manual_seed(step)
        game.step(train[torch.randint(len(train), (recipe.batch,), generator=rng)])
    drawn = game.draw(train, Noise(0, range(len(train))))
    for t in recipe.temperatures:
        rows = torch.isclose(train.temperature, torch.tensor(t))
        bonds = [observables(x.spins[rows].float())[:, 2].mean() for x in (train, drawn)]
        assert abs(float(bonds[0] - bonds[1])) < 0.1
    learned = game.generator.average.alignment(torch.tensor(recipe.temperatures))  # type: ignore[operator]
    assert learned[0, -1, 1] > 0.7


# --- the study ---


def test_the_study_is_found_by_its_path_and_its_recipes_are_whole() -> None:
    study = find("ising.gan")
    assert set(study.recipes) == {"quick", "laptop", "paper"}
    for recipe in study.recipes.values():
        assert len(recipe.judged) * recipe.judged_each == recipe.draws
    away = [min(abs(t - rung) for rung in gan.LADDER) for t in (2.15, 2.45)]
    assert min(away) > 0.04  # judged, but neither they nor their near neighbours are trained on


def test_held_out_lattices_share_no_random_stream_with_training() -> None:
    split = gan.load(TINY.model_copy(update={"side": 16}))
    known = {row.numpy().tobytes() for row in split.train.spins[split.train.temperature > 2.3]}
    fresh = [row.numpy().tobytes() for row in split.held_out.spins[split.held_out.temperature > 2.3]]
    assert not known & set(fresh)


def test_lattices_of_ones_own_are_divided_and_a_wrong_side_is_refused(tmp_path: Path, nature: Lattices) -> None:
    write(nature, tmp_path / "own.npz")
    split = gan.load(TINY.model_copy(update={"data": tmp_path / "own.npz"}))
    assert len(split.train) + len(split.validation) + len(split.held_out) == len(nature)
    with pytest.raises(Refused, match="side 8"):
        gan.load(TINY.model_copy(update={"data": tmp_path / "own.npz", "side": 16}))


def test_temperatures_are_asked_for_in_words_of_the_science() -> None:
    template = gan.ask(TINY, 6, {"temperature": "2.0,2.5"})
    assert template.temperature.tolist() == [2.0, 2.0, 2.0, 2.5, 2.5, 2.5]
    assert np.isclose(gan.ask(TINY, 1, {}).temperature[0].item(), 2.269185)
    with pytest.raises(Refused, match="not a number"):
        gan.ask(TINY, 1, {"temperature": "warm"})
    with pytest.raises(Refused, match="field"):
        gan.ask(TINY, 1, {"field": "1"})
