"""The adversarial game: losses in closed form, penalties of linear critics, and a ring of Gaussians found whole."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import simulacra
from simulacra.descent import Descent
from simulacra.families.gan import (
    CHANCES,
    Game,
    Rules,
    at_most_unit_slope_between,
    augmented,
    auxiliary_classifier,
    coloured,
    cut_out,
    flat_on_both,
    flat_on_real,
    hinge,
    non_saturating,
    paired,
    slope,
    spectrally_normed,
    steep_between,
    surprise,
    translated,
    unit_slope_between,
    wasserstein,
    wasserstein_div,
    wasserstein_lp,
)  # fmt: skip
from simulacra.study import Noise, Refused, Samples

GAMES: dict[str, Callable[..., Rules]] = {
    "non-saturating": non_saturating, "hinge": hinge, "wasserstein": wasserstein, "wasserstein-div": wasserstein_div, "paired": paired,
}  # fmt: skip


@dataclass(frozen=True)
class Points(Samples):
    where: Tensor  # (n, d)
    label: Tensor  # (n,)


class Conditioned(nn.Module):
    """A small dense player that is told the label."""

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs + 1, width), nn.LeakyReLU(0.2), nn.Linear(width, outputs))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y: Tensor = self.net(torch.cat([x, label[:, None]], 1))
        return y[:, 0] if y.shape[1] == 1 else y


def a_game(rules: Rules, **options: object) -> Game[Points]:
    torch.manual_seed(3)
    generator, critic = Conditioned(4, 2), Conditioned(2, 1)
    return Game(
        Descent(generator, lr=1e-3, ema=0.9), Descent(critic, lr=1e-3), rules=rules, latent=4,
        rows_of=lambda p: (p.where, p.label), samples_from=lambda rows, like: Points(rows, like.label), **options,
    )  # type: ignore[arg-type] # fmt: skip


def some_points(n: int = 32) -> Points:
    torch.manual_seed(5)
    return Points(torch.randn(n, 2), torch.randint(2, (n,)).float())


# --- losses and penalties, row by row ---


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [
        ("non-saturating", lambda r, f: softplus(-r) + softplus(f), lambda r, f: softplus(-f)),
        ("hinge", lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda r, f: -f),
        ("wasserstein", lambda r, f: f - r, lambda r, f: -f),
        ("wasserstein-div", lambda r, f: f - r, lambda r, f: -f),
        ("paired", lambda r, f: softplus(f - r), lambda r, f: softplus(r - f)),
    ],
)
def test_losses_equal_their_formulas_row_by_row(
    name: str, critic: Callable[[float, float], float], generator: Callable[[float, float], float]
) -> None:
    real, drawn = torch.tensor([0.3, -1.7, 2.5], dtype=torch.float64), torch.tensor([-0.4, 1.2, -3.0], dtype=torch.float64)
    rules, rows = GAMES[name](), list(zip(real.tolist(), drawn.tolist(), strict=True))
    torch.testing.assert_close(rules.critic(real, drawn), torch.tensor([critic(r, f) for r, f in rows], dtype=torch.float64))
    torch.testing.assert_close(rules.generator(real, drawn), torch.tensor([generator(r, f) for r, f in rows], dtype=torch.float64))


def test_slope_penalties_of_a_linear_critic_have_their_closed_forms() -> None:
    torch.manual_seed(1)
    weight = torch.randn(1, 3, 5, 7, dtype=torch.float64)  # channels and pixels alike belong to the norm
    real, drawn = (torch.randn(4, 3, 5, 7, dtype=torch.float64) for _ in range(2))
    u, norm = torch.rand(4, dtype=torch.float64), weight.norm()

    def linear(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3)) + 11.0

    torch.testing.assert_close(unit_slope_between(linear, real, drawn, u), ((norm - 1) ** 2).expand(4))
    torch.testing.assert_close(flat_on_real(linear, real, drawn, u), (norm**2 / 2).expand(4))
    torch.testing.assert_close(flat_on_both(linear, real, drawn, u), (norm**2).expand(4))
    torch.testing.assert_close(steep_between(6)(linear, real, drawn, u), (norm**6).expand(4))


def test_the_slope_is_taken_over_each_row_and_rows_do_not_mix() -> None:
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(slope(lambda rows: (rows**2).sum((1, 2)), x), 4 * (x**2).sum((1, 2)))


def test_the_unit_slope_is_asked_for_between_real_and_drawn() -> None:
    real, drawn, u = torch.full((3, 1), 2.0), torch.full((3, 1), -1.0), torch.tensor([0.0, 0.5, 1.0])
    halfway = unit_slope_between(lambda rows: rows[:, 0] ** 2 / 2, real, drawn, u)  # slope at x is |x|; x = -1, 0.5, 2
    torch.testing.assert_close(halfway, torch.tensor([0.0, 0.25, 1.0]))


def test_the_one_sided_penalty_leaves_a_flat_critic_alone() -> None:
    real, drawn, u = torch.full((3, 1), 2.0), torch.full((3, 1), -1.0), torch.tensor([0.0, 0.5, 1.0])
    found = at_most_unit_slope_between(lambda rows: rows[:, 0] ** 2 / 2, real, drawn, u)  # slopes 1, 0.5 and 2
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0]))
    assert wasserstein_lp().penalty is at_most_unit_slope_between


def test_the_divergence_charges_twice_the_sixth_power_of_the_slope() -> None:
    """By hand: for D(x) = w x at w = 3, real 2, drawn -1, the critic's loss is -w - 2 w + 2 w^6 = 1449, its derivative -3 + 12 w^5."""
    critic = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(critic.weight, 3.0)

    def scores(x: Tensor) -> Tensor:
        return critic(x)[:, 0]

    rules, real, drawn, u = wasserstein_div(), torch.tensor([[2.0]]).double(), torch.tensor([[-1.0]]).double(), torch.tensor([0.3]).double()
    assert rules.penalty is not None
    loss = rules.critic(scores(real), scores(drawn)) + rules.weight * rules.penalty(scores, real, drawn, u)
    assert loss.item() == pytest.approx(1449)
    loss.backward()
    assert critic.weight.grad is not None
    assert critic.weight.grad.item() == pytest.approx(-3 + 12 * 3**5)


def test_the_divergence_takes_its_slopes_between_real_and_drawn() -> None:
    real, drawn, u = torch.full((3, 1), 2.0), torch.full((3, 1), -1.0), torch.tensor([0.0, 0.5, 1.0])
    found = steep_between(6)(lambda rows: rows[:, 0] ** 2 / 2, real, drawn, u)  # slope at x is |x|; x = -1, 0.5, 2
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5**6, 64.0]))


def test_a_flat_critic_has_a_finite_gradient_of_its_divergence() -> None:
    weight = torch.zeros(2, requires_grad=True)
    steep_between(2)(lambda rows: rows @ weight, torch.ones(3, 2), torch.zeros(3, 2), torch.rand(3)).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(2))
    with pytest.raises(ValueError, match="below 2"):
        wasserstein_div(power=1.5)


# --- naming the class ---


class Naming(nn.Module):
    """A critic that says the same of every row: a score of 0.5, and the logarithms of 5, 2 and 1 for its three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.said = nn.Parameter(torch.tensor([0.5, math.log(5), math.log(2), 0.0]))

    def forward(self, rows: Tensor) -> Tensor:
        return self.said + 0 * rows[:, :1]


@pytest.mark.parametrize("named_draws", [True, False])
def test_an_auxiliary_classifier_adds_the_surprise_at_the_class_of_real_and_of_drawn_rows(named_draws: bool) -> None:
    """By hand: classes 0 and 2 have probabilities 5/8 and 1/8, so the mean surprise is (log 8/5 + log 8) / 2 on either side. The critic
    learns names from both sides as published, or from real rows alone; the generator is always asked for its class."""
    critic, rules = Naming(), auxiliary_classifier(weight=2.0, named_draws=named_draws)
    game = Game(
        Descent(Conditioned(4, 2), lr=1e-3), Descent(critic, lr=1e-3), rules=rules, latent=4,
        rows_of=lambda p: (p.where, p.label), samples_from=lambda rows, like: Points(rows, like.label),
    )  # fmt: skip
    surprised = (math.log(8 / 5) + math.log(8)) / 2
    # The critic has moved once, by 1e-3 at most, before the generator asks it.
    watched = game.step(Points(torch.randn(4, 2), torch.tensor([0, 2, 2, 0])))
    assert watched["critic"].item() == pytest.approx(softplus(-0.5) + softplus(0.5))
    assert watched["real_class"].item() == watched["drawn_class"].item() == pytest.approx(2 * surprised)
    assert watched["generator"].item() == pytest.approx(softplus(-0.5) + 2 * surprised, abs=0.01)
    assert critic.said.grad is not None
    named = 2 * (torch.tensor([5 / 8, 2 / 8, 1 / 8]) - torch.tensor([0.5, 0.0, 0.5]))  # softmax less frequency
    torch.testing.assert_close(critic.said.grad[1:], (1 + named_draws) * named)


def test_any_game_can_be_asked_to_name_classes_and_both_players_then_know_them() -> None:
    """Three classes in three places; whoever guesses is surprised by log 3 = 1.1 nats."""
    torch.manual_seed(0)
    places = torch.tensor([[0.0, 2.0], [1.7, -1.0], [-1.7, -1.0]])

    def batch(n: int) -> Points:
        label = torch.randint(3, (n,))
        return Points(places[label] + 0.2 * torch.randn(n, 2), label)

    rate = {"lr": 5e-3, "betas": (0.0, 0.9)}
    generator, critic = Conditioned(2, 2), nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 4))
    game = Game(
        Descent(generator, ema=0.95, **rate), Descent(critic, **rate), rules=auxiliary_classifier(wasserstein(penalty=1.0)), latent=2,
        rows_of=lambda p: (p.where, p.label), samples_from=lambda rows, like: Points(rows, like.label),
    )  # type: ignore[arg-type] # fmt: skip
    for _ in range(150):
        watched = game.step(batch(64))
    assert watched["real_class"] < 0.3
    assert watched["drawn_class"] < 0.3
    like = batch(300)
    named = critic(game.draw(like, Noise(0, range(300))).where)[:, 1:].argmax(1)
    assert (named == like.label).float().mean() > 0.9


def test_rules_that_name_classes_refuse_samples_without_any() -> None:
    game = Game(
        Descent(nn.Linear(4, 2), lr=1e-3), Descent(Naming(), lr=1e-3), rules=auxiliary_classifier(), latent=4,
        rows_of=lambda p: (p.where, None), samples_from=lambda rows, like: Points(rows, like.label),
    )  # fmt: skip
    with pytest.raises(Refused, match="class"):
        game.step(some_points())


# --- bugs of popular code, which ours must not have ---


def test_bug_softmax_is_taken_once_in_the_class_loss() -> None:
    """A second softmax bounds the loss of a sure and right critic from below by log(1 + 2 / e) = 0.55 for three classes."""
    sure, known = torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0])
    assert surprise(sure, known).item() < 1e-9
    assert surprise(sure.softmax(1), known).item() > 0.55
    torch.testing.assert_close(surprise(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([2])), torch.tensor([math.log(10)]))


def test_bug_no_batch_normalisation_is_given_its_momentum_as_eps() -> None:
    """BatchNorm2d(c, 0.8) sets eps, the second argument, to 0.8."""

    def by_place(source: str) -> list[int]:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        named = [(ast.unparse(call.func).rpartition(".")[2], call) for call in calls]
        return [call.lineno for name, call in named if "BatchNorm" in name and len(call.args) > 1]

    assert by_place("nn.BatchNorm2d(64, 0.8)") == [1]
    sources = sorted(Path(simulacra.__file__).parent.rglob("*.py"))
    assert [(path.name, by_place(path.read_text(encoding="utf-8"))) for path in sources if by_place(path.read_text(encoding="utf-8"))] == []


def test_bug_the_slope_of_an_image_is_one_number_not_one_per_pixel() -> None:
    """D(x) = sum(w x) with |w| = 1 has no penalty; per pixel, the norm over channels alone would be far from 1 everywhere."""
    weight = torch.full((3, 8, 8), 1 / math.sqrt(3 * 8 * 8), dtype=torch.float64)
    real, drawn, u = torch.randn(5, 3, 8, 8).double(), torch.randn(5, 3, 8, 8).double(), torch.rand(5).double()
    found = unit_slope_between(lambda x: (x * weight).sum((1, 2, 3)), real, drawn, u)
    torch.testing.assert_close(found, torch.zeros(5, dtype=torch.float64))
    assert (weight.norm(dim=0) - 1).square().min() > 0.7


def test_bug_the_parenthesis_of_the_wasserstein_loss_closes_after_real_rows() -> None:
    """-(mean D(real) + mean D(drawn)) would reward a critic for high scores of drawn rows."""
    real, drawn = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 0.0], requires_grad=True)
    loss = wasserstein().critic(real, drawn).mean()
    assert loss.item() == 0.5 - 3.0
    loss.backward()
    assert drawn.grad is not None
    assert (drawn.grad > 0).all()


def test_bug_a_penalised_critic_may_not_normalise_over_the_batch() -> None:
    critic = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))

    def game(rules: Rules) -> Game[Points]:
        return Game(
            Descent(nn.Linear(4, 2), lr=1e-3), Descent(critic, lr=1e-3), rules=rules, latent=4,
            rows_of=lambda p: (p.where, None), samples_from=lambda rows, like: Points(rows, like.label),
        )  # fmt: skip

    with pytest.raises(Refused, match="normalises over the batch"):
        game(wasserstein())
    game(non_saturating()).step(some_points())


def test_a_move_in_bfloat16_descends_float32_weights_and_is_close_to_one_in_float32() -> None:
    def moved(precision: torch.dtype, rules: Rules) -> Game[Points]:
        torch.manual_seed(0)
        game = Game(
            Descent(nn.Linear(4, 2), lr=1e-2), Descent(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), lr=1e-2), rules=rules, latent=4,
            rows_of=lambda p: (p.where, None), samples_from=lambda rows, like: Points(rows, like.label), precision=precision,
        )  # fmt: skip
        torch.manual_seed(1)
        watched = game.step(some_points())
        assert all(value.dtype == torch.float32 for value in watched.values())
        return game

    exact, quick = (moved(precision, non_saturating()).state_dict() for precision in (torch.float32, torch.bfloat16))
    weights = [name for name in exact if ".weights." in name]
    assert any(not torch.equal(exact[name], quick[name]) for name in exact)
    for name in weights:
        assert quick[name].dtype == torch.float32
        torch.testing.assert_close(quick[name], exact[name], rtol=0, atol=0.021)  # two moves of Adam at 0.01 each
    with pytest.raises(Refused, match="wants float32"):
        moved(torch.bfloat16, wasserstein())


# --- augmentation for small data ---


def middling(n: int) -> Tensor:
    """Chances under which colours stay and nothing moves."""
    return torch.full((n, 5), 0.5, dtype=torch.float64)


def test_augmentation_in_the_middle_of_its_range_changes_nothing() -> None:
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(coloured(images, middling(3)[:, :3]), images)
    assert torch.equal(translated(images, middling(3)[:, 3:]), images)


def test_colours_change_by_their_definitions() -> None:
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    u = torch.tensor([[0.9, 0.5, 0.5], [0.1, 0.5, 0.5]]).double()
    torch.testing.assert_close(coloured(images, u), images + torch.tensor([0.4, -0.4]).double().view(2, 1, 1, 1))
    grey = coloured(images, torch.tensor([[0.5, 0.0, 0.5]]).double().expand(2, 3))
    torch.testing.assert_close(grey, images.mean(1, keepdim=True).expand(2, 3, 4, 4))
    half = coloured(images, torch.tensor([[0.5, 0.5, 0.0]]).double().expand(2, 3))
    torch.testing.assert_close(half.std((1, 2, 3)), images.std((1, 2, 3)) / 2)
    torch.testing.assert_close(half.mean((1, 2, 3)), images.mean((1, 2, 3)))


def test_translation_moves_by_whole_pixels_each_way_alike_and_brings_in_zeros() -> None:
    images = torch.arange(1.0, 16 * 24 + 1).view(1, 1, 16, 24).expand(5, 1, 16, 24)  # an eighth: 2 rows, 3 columns
    u = torch.tensor([[0.0, 0.5], [0.25, 0.5], [0.9999, 0.5], [0.5, 0.0], [0.5, 0.9999]])
    for found, (down, right) in zip(translated(images, u), [(-2, 0), (-1, 0), (2, 0), (0, -3), (0, 3)], strict=True):
        wide = F.pad(images[0], (3, 3, 2, 2))
        assert torch.equal(found, wide[:, 2 - down : 18 - down, 3 - right : 27 - right])


def test_cutout_hides_a_box_of_half_the_side_centred_anywhere() -> None:
    images = torch.ones(3, 2, 8, 12)
    u = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.99, 0.99]])
    hidden = (cut_out(images, u) == 0).all(1)
    assert hidden.sum((1, 2)).tolist() == [4 * 6, 2 * 3, 2 * 3]  # whole; a quarter of it, at two corners
    assert hidden[0, 2:6, 3:9].all()
    assert hidden[1, :2, :3].all()
    assert hidden[2, -2:, -3:].all()


def test_augmentation_passes_the_gradient_of_what_is_still_seen() -> None:
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    u = torch.rand(2, CHANCES, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: augmented(x, u), images)


def test_real_rows_and_the_drawn_rows_beside_them_are_augmented_by_the_same_numbers() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(rows: Tensor, u: Tensor) -> Tensor:
        seen.append((rows, u))
        return rows + u[:, :2]

    game = a_game(hinge(penalty=1.0), augment=watch, critic_steps=2)
    game.step(some_points(16))
    (real, first), (drawn, again), (_, second), _ = seen
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(real, drawn)
    assert first.shape == (8, CHANCES)


def test_the_generator_learns_through_the_augmentation() -> None:
    game = a_game(wasserstein(), augment=lambda rows, u: rows * 0.0)
    before = [p.clone() for p in game.generator.module.parameters()]
    assert game.step(some_points())["generator_gradient"] == 0  # what the critic cannot see teaches nothing
    assert all(torch.equal(a, b) for a, b in zip(before, game.generator.module.parameters(), strict=True))


# --- other options ---


def test_any_game_takes_the_penalty_of_another() -> None:
    seen = a_game(replace(wasserstein(), penalty=flat_on_real, weight=5.0)).step(some_points())
    critic, real = a_game(wasserstein()).critic.module, some_points()
    expected = slope(lambda x: critic(x, real.label), real.where).mean() / 2
    torch.testing.assert_close(seen["penalty"], expected.detach())


def test_players_descend_on_their_own_time_scales() -> None:
    """Adam's first move of any weight with a gradient is its learning rate."""
    torch.manual_seed(3)
    generator, critic = Conditioned(4, 2), Conditioned(2, 1)
    game = Game(
        Descent(generator, lr=1e-4), Descent(critic, lr=4e-4), rules=non_saturating(), latent=4,
        rows_of=lambda p: (p.where, p.label), samples_from=lambda rows, like: Points(rows, like.label),
    )  # fmt: skip
    before = [[p.detach().clone() for p in player.parameters()] for player in (generator, critic)]
    game.step(some_points())
    moved = [
        max(float((a - b.detach()).abs().max()) for a, b in zip(old, player.parameters(), strict=True))
        for old, player in zip(before, (generator, critic), strict=True)
    ]
    assert moved == pytest.approx([1e-4, 4e-4], rel=0.01)


def test_every_layer_of_a_spectrally_normed_player_has_largest_singular_value_one() -> None:
    torch.manual_seed(0)
    convolving = (nn.Conv2d(2, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 4, 3), nn.Flatten())
    player = spectrally_normed(nn.Sequential(*convolving, nn.Linear(4 * 64, 6), nn.ReLU(), nn.Linear(6, 1)))
    for _ in range(100):
        player(torch.randn(1, 2, 8, 8))
    player.eval()
    conv, transposed, *linear = [m for m in player if hasattr(m, "weight")]
    matrices = [conv.weight.flatten(1), transposed.weight.transpose(0, 1).flatten(1), *(m.weight for m in linear)]
    largest = torch.stack([torch.linalg.matrix_norm(m, 2) for m in matrices])
    torch.testing.assert_close(largest, torch.ones(4), atol=1e-3, rtol=0)


def test_a_spectrally_normed_game_goes_on_from_its_saved_state_as_if_never_stopped() -> None:
    def fresh(seed: int) -> Game[Points]:
        torch.manual_seed(seed)
        generator, critic = spectrally_normed(Conditioned(4, 2)), spectrally_normed(Conditioned(2, 1))
        return Game(
            Descent(generator, lr=1e-3, ema=0.9), Descent(critic, lr=1e-3), rules=hinge(penalty=0.1), latent=4,
            rows_of=lambda p: (p.where, p.label), samples_from=lambda rows, like: Points(rows, like.label),
        )  # fmt: skip

    whole, again, batch = fresh(0), fresh(1), some_points()
    for n in range(4):
        torch.manual_seed(n)
        whole.step(batch)
        if n == 1:
            again.load_state_dict({k: v.clone() for k, v in whole.state_dict().items()})
    for n in (2, 3):
        torch.manual_seed(n)
        again.step(batch)
    expected, found = whole.state_dict(), again.state_dict()
    assert any(k.endswith("_u") for k in expected)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    like, noise = some_points(8), range(8)
    assert torch.equal(whole.draw(like, Noise(0, noise)).where, again.draw(like, Noise(0, noise)).where)


# --- the alternation ---


@pytest.mark.parametrize("name", GAMES)
def test_one_step_moves_every_parameter_of_both_players(name: str) -> None:
    game = a_game(GAMES[name](penalty=1.0))
    before = {k: v.clone() for k, v in game.state_dict().items()}
    game.step(some_points())
    after = game.state_dict()
    still = [k for k in before if ".weights." in k and torch.equal(before[k], after[k])]
    # What shifts both scores alike has no gradient (hinge: as long as all scores lie inside the margin).
    assert still == ([] if name == "non-saturating" else ["critic.weights.net.2.bias"])


def test_the_critic_moves_as_often_as_asked_and_the_generator_once() -> None:
    game = a_game(wasserstein(), critic_steps=3)
    game.step(some_points(30))
    assert (game.critic.count, game.generator.count) == (3, 1)


def test_a_generator_step_leaves_the_critic_trainable_and_untouched() -> None:
    game = a_game(wasserstein(penalty=0.0))
    game.step(some_points())
    assert all(p.requires_grad for p in game.critic.module.parameters())
    assert game.critic.count == 1


def test_a_game_goes_on_from_its_saved_state_as_if_never_stopped() -> None:
    whole, batch = a_game(paired()), some_points()
    for n in range(4):
        torch.manual_seed(n)
        whole.step(batch)
        if n == 1:
            saved = {k: v.clone() for k, v in whole.state_dict().items()}
    again = a_game(paired())
    again.load_state_dict(saved)
    for n in (2, 3):
        torch.manual_seed(n)
        again.step(batch)
    expected, found = whole.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_a_row_is_drawn_the_same_whatever_is_drawn_beside_it() -> None:
    game, like = a_game(hinge()), some_points(9)
    game.step(some_points())
    together = game.draw(like, Noise(7, range(9))).where
    apart = torch.cat([game.draw(like[[i]], Noise(7, range(i, i + 1))).where for i in range(9)])
    torch.testing.assert_close(together, apart)


def test_drawing_uses_running_statistics_where_a_generator_has_batch_normalisation() -> None:
    generator = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    game = Game(
        Descent(generator, lr=1e-3), Descent(critic, lr=1e-3), rules=non_saturating(), latent=4,
        rows_of=lambda p: (p.where, None), samples_from=lambda rows, like: Points(rows, like.label),
    )  # fmt: skip
    game.step(some_points())
    like = some_points(6)
    together = game.draw(like, Noise(1, range(6))).where
    torch.testing.assert_close(game.draw(like[[2]], Noise(1, range(2, 3))).where, together[[2]])
    assert generator.training


# --- a law with eight separate modes ---


def ring(n: int) -> Points:
    angle = torch.randint(8, (n,)) * (math.pi / 4)
    return Points(torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(n, 2), torch.zeros(n))


def dense(inputs: int, outputs: int) -> nn.Sequential:
    width = 64
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


@pytest.mark.slow
def test_wasserstein_with_gradient_penalty_finds_all_eight_gaussians_of_a_ring() -> None:
    torch.manual_seed(0)
    steps, rate = 800, {"lr": 2e-3, "betas": (0.0, 0.9)}
    critic = nn.Sequential(*dense(2, 1), nn.Flatten(0))
    game = Game(
        Descent(dense(2, 2), ema=0.99, horizon=steps, **rate), Descent(critic, horizon=steps, **rate), rules=wasserstein(penalty=0.5),
        latent=2, rows_of=lambda p: (p.where, None), samples_from=lambda rows, like: Points(rows, like.label), critic_steps=2,
    )  # type: ignore[arg-type] # fmt: skip
    for _ in range(steps):
        game.step(ring(2 * 128))
    drawn = game.draw(ring(1000), Noise(0, range(1000))).where
    modes = torch.stack([torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)]) for k in range(8)])
    distance, nearest = torch.cdist(drawn, modes).min(1)
    near = distance < 0.2
    shares = torch.bincount(nearest[near], minlength=8) / 1000
    assert near.float().mean() > 0.6
    assert shares.min() > 0.04, shares  # 1/8 each would be perfect
