"""The adversarial game: losses in closed form, penalties of linear critics, and a ring of Gaussians found whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from simulacra.descent import Descent
from simulacra.families.gan import (
    Game,
    Rules,
    at_most_unit_slope_between,
    flat_on_both,
    flat_on_real,
    hinge,
    non_saturating,
    paired,
    slope,
    unit_slope_between,
    wasserstein,
    wasserstein_lp,
)  # fmt: skip
from simulacra.study import Noise, Samples

GAMES: dict[str, Callable[..., Rules]] = {"non-saturating": non_saturating, "hinge": hinge, "wasserstein": wasserstein, "paired": paired}


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
