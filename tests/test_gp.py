"""Gaussian processes held to closed forms, to each other's solvers, to finite differences and to scikit-learn."""

import csv
import dataclasses
import math
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from simulacra.families.gp import (
    ExponentiatedQuadratic,
    GaussianProcess,
    Kernel,
    Linear,
    Matern,
    Periodic,
    RationalQuadratic,
    White,
    dense,
    fit,
    process,
    suggested_bounds,
)
from simulacra.families.gp.dense import Dense
from simulacra.families.gp.toeplitz import Toeplitz
from simulacra.study import Refused

ROOT = Path(__file__).parent.parent

STATIONARY = {
    "exponentiated quadratic": ExponentiatedQuadratic(2.0, 1.7) + White(0.3),
    "matern 1/2": Matern(0.5, 2.0, 3.0) + White(0.3),
    "matern 3/2": Matern(1.5, 2.0, 3.0) + White(0.3),
    "matern 5/2": Matern(2.5, 2.0, 3.0) + White(0.3),
    "periodic": Periodic(2.0, 0.9, 7.3) + White(0.3),
    "rational quadratic": RationalQuadratic(2.0, 2.0, 0.8) + White(0.3),
    "fixed": Matern(1.5, 2.0, 3.0, fixed=("variance",)) + Periodic(1.0, 0.8, 7.0, fixed=("period",)) + White(0.3, fixed=("variance",)),
    "drifting cycle": Matern(1.5, 1.0, 4.0) + Matern(2.5, 2.0, 20.0) * Periodic(1.5, 1.1, 6.0) + White(0.2),
    "two of a kind": Matern(1.5, 1.0, 9.0) + Matern(1.5, 0.4, 1.3) + White(0.2) + White(0.1),
}
KERNELS = {
    **STATIONARY,
    "linear": Linear(0.02, 3.0) + White(0.3),
    "trend and cycle": Linear(0.02, 3.0) + ExponentiatedQuadratic(0.4, 5.0) + Linear(0.1) * Periodic(0.1, 1.2, 5.0) + White(0.2),
}
IRREGULAR = np.cumsum(np.random.default_rng(1).uniform(0.2, 1.9, 40))
GRID = 3.0 + 0.5 * np.arange(60)
T, Y = [0.0, 1.0, 2.0, 4.0], [1.0, 2.0, 0.0, 1.0]


def observed(kernel, t, seed=0):
    return GaussianProcess(kernel).draw(t, 1, np.random.default_rng(seed), noise=True)[0]


def by_differences(function, theta, step=1e-4):
    """Derivatives from four values each: exact to step^4."""
    found = []
    for direction in np.eye(len(theta)) * step:
        near = function(theta + direction) - function(theta - direction)
        far = function(theta + 2 * direction) - function(theta - 2 * direction)
        found.append((8 * near - far) / (12 * step))
    return np.array(found)


def assert_agree(found, expected, relative):
    assert np.abs(found - expected).max() <= relative * max(np.abs(expected).max(), 1e-12)


# ------------------------------------------------------------------------------------------------------------ closed forms


def test_two_points_by_hand():
    k, noise = math.exp(-0.5), 0.5
    posterior = GaussianProcess(ExponentiatedQuadratic(1.0, 1.0) + White(noise)).condition([0.0, 1.0], [1.0, -2.0])
    a, determinant = 1 + noise, (1 + noise) ** 2 - k**2
    inverse = np.array([[a, -k], [-k, a]]) / determinant
    y, between = np.array([1.0, -2.0]), np.exp(-0.5 * np.array([0.5, 0.5]) ** 2)
    assert posterior.log_likelihood == pytest.approx(-0.5 * (y @ inverse @ y + math.log(determinant)) - math.log(2 * math.pi), rel=1e-14)
    assert posterior.mean([0.5]) == pytest.approx(between @ inverse @ y, rel=1e-13)
    assert posterior.variance([0.5]) == pytest.approx(1 - between @ inverse @ between, rel=1e-13)
    assert posterior.variance([0.5], noise=True) == pytest.approx(1.5 - between @ inverse @ between, rel=1e-13)


def test_an_ornstein_uhlenbeck_process_forgets_all_but_the_last_value_and_bridges_between_two():
    posterior = GaussianProcess(Matern(0.5, 2.0, 3.0)).condition([0.0, 1.0, 2.5, 3.0], [0.3, 2.0, -1.0, 0.7])
    decay = math.exp(-4.0 / 3.0)
    assert posterior.mean([7.0]) == pytest.approx([0.7 * decay], rel=1e-12)
    assert posterior.variance([7.0]) == pytest.approx([2.0 * (1 - decay**2)], rel=1e-12)
    # between 1 and 2.5 the bridge: weights sinh(distance to the other end) / sinh(length), in lengthscales
    left, right = (math.sinh(x / 3.0) / math.sinh(1.5 / 3.0) for x in (1.1, 0.4))
    assert posterior.mean([1.4]) == pytest.approx([2.0 * left - 1.0 * right], rel=1e-12)
    joint = posterior.covariance([1.4, 7.0])
    assert abs(joint[0, 1]) < 1e-14


def test_without_noise_the_posterior_passes_through_the_observations_and_far_away_it_is_the_prior():
    t, y = np.array([0.0, 1.0, 2.2, 4.0]), np.array([1.0, -0.5, 0.3, 2.0])
    gp = GaussianProcess(Matern(2.5, 1.3, 0.9), mean=lambda times: 10 + 0.5 * times)
    posterior = gp.condition(t, y)
    assert posterior.mean(t) == pytest.approx(y, abs=1e-11)
    assert posterior.variance(t).max() < 1e-12
    assert posterior.mean([1000.0]) == pytest.approx([510.0])
    assert posterior.variance([1000.0]) == pytest.approx([1.3])


def test_a_straight_line_kernel_is_ridge_regression():
    t, y = np.array([1.0, 2.0, 5.0]), np.array([0.5, 1.5, 2.0])
    posterior = GaussianProcess(Linear(4.0, 0.0) + White(0.7)).condition(t, y)
    slope = t @ y / (t @ t + 0.7 / 4.0)
    assert posterior.mean([10.0]) == pytest.approx([10 * slope])
    assert posterior.variance([10.0]) == pytest.approx([100 * 0.7 / (t @ t + 0.7 / 4.0)])


def test_a_missing_observation_is_one_that_was_never_made():
    y = observed(KERNELS["matern 3/2"], IRREGULAR)
    holes = y.copy()
    holes[[0, 7, 8, 39]] = np.nan
    seen = np.isfinite(holes)
    gp = GaussianProcess(KERNELS["matern 3/2"], mean=lambda times: 3 + times)
    whole, without = gp.condition(IRREGULAR, holes), gp.condition(IRREGULAR[seen], y[seen])
    assert whole.log_likelihood == without.log_likelihood
    assert np.array_equal(whole.mean(GRID), without.mean(GRID))
    mean, variance = whole.leave_one_out()
    assert_agree(mean[~seen], without.mean(IRREGULAR[~seen]), 1e-12)
    assert_agree(variance[~seen], without.variance(IRREGULAR[~seen], noise=True), 1e-12)


def test_the_number_that_the_article_on_skagit_valley_printed(data_folder):
    """Mean absolute error of the average of six series, 46 training days; training days count too: that is how it was printed."""
    with open(data_folder / "weather" / "skagit_six_series.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    series = [[float(row["temp_max_f"]) for row in rows if row["series"] == str(i)][:360] for i in range(6)]
    average, x = np.mean(series, axis=0) / 10, np.linspace(0, 1, 360)
    gp = GaussianProcess(ExponentiatedQuadratic(1.0, 1.0) + Periodic(1.0, 1.0, 1.15) + White(0.3))
    posterior = gp.condition(x[:230:5], average[:230:5], solver="dense")
    assert 10 * np.abs(average - posterior.mean(x)).mean() == pytest.approx(3.17195013810865, abs=1e-9)
    assert (10 * np.abs(average - posterior.mean(x)) > 10).sum() == 8


# -------------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", KERNELS)
def test_the_dense_gradient_agrees_with_differences(name):
    kernel = KERNELS[name]
    y = observed(kernel, IRREGULAR)
    differences = by_differences(lambda theta: Dense(kernel.at(theta), IRREGULAR, y).log_likelihood(), kernel.theta())
    assert_agree(Dense(kernel, IRREGULAR, y).gradient(), differences, 1e-8)


@pytest.mark.parametrize("name", STATIONARY)
def test_the_toeplitz_gradient_agrees_with_differences(name):
    kernel = STATIONARY[name]
    y = observed(kernel, GRID)
    differences = by_differences(lambda theta: Toeplitz(kernel.at(theta), GRID, y).log_likelihood(), kernel.theta())
    assert_agree(Toeplitz(kernel, GRID, y).gradient(), differences, 1e-8)


def test_the_gradient_is_summed_over_blocks_of_rows_as_over_the_whole(monkeypatch):
    kernel = KERNELS["trend and cycle"]
    y = observed(kernel, IRREGULAR)
    whole = Dense(kernel, IRREGULAR, y)
    monkeypatch.setattr(dense, "BLOCK", 7 * len(IRREGULAR))
    blocks = Dense(kernel, IRREGULAR, y)
    assert_agree(blocks.gradient(), whole.gradient(), 1e-12)
    assert_agree(blocks.mean(GRID), whole.mean(GRID), 1e-12)
    assert_agree(blocks.variance(GRID), whole.variance(GRID), 1e-12)


@pytest.mark.parametrize("name", STATIONARY)
def test_on_a_grid_with_gaps_each_lag_is_computed_once_and_nothing_else_changes(name, monkeypatch):
    kernel, t = STATIONARY[name], np.delete(GRID, [3, 4, 20, 41])
    y = observed(kernel, t)
    once = Dense(kernel, t, y)
    monkeypatch.setattr(dense, "_places", lambda times: None)
    pairs = Dense(kernel, t, y)
    assert once._places is not None
    assert once.log_likelihood() == pytest.approx(pairs.log_likelihood(), rel=1e-12)
    assert_agree(once.gradient(), pairs.gradient(), 1e-10)


def test_times_that_are_not_quite_on_a_grid_are_taken_as_they_are():
    assert dense._places(GRID) is not None
    moved = GRID.copy()
    moved[30] += 1e-6
    assert dense._places(moved) is None
    assert dense._places(np.array([0.0, 1e-6, 1.0])) is None  # a grid of a million points for three times


def test_likelihood_and_gradient_need_two_matrices_however_many_parameters():
    kernel, t = KERNELS["trend and cycle"], np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 1600))
    y = np.sin(t)
    tracemalloc.start()
    Dense(kernel, t, y).gradient()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.6 * 8 * len(t) ** 2 + 12 * 8 * dense.BLOCK


# ------------------------------------------------------------------------------------------------------ solvers side by side


@pytest.mark.parametrize("name", STATIONARY)
def test_toeplitz_agrees_with_dense(name):
    kernel, t = STATIONARY[name], 100 + 0.5 * np.arange(300)
    y = observed(kernel, t)
    one, other = Toeplitz(kernel, t, y), Dense(kernel, t, y)
    times = np.concatenate([t[::9], [0.0, 110.13, 260.0]])
    assert one.log_likelihood() == pytest.approx(other.log_likelihood(), rel=1e-8)
    assert_agree(one.gradient(), other.gradient(), 1e-8)
    for part in (None, kernel.parts[0].label):
        assert_agree(one.mean(times, part), other.mean(times, part), 1e-8)
        assert_agree(one.variance(times, part), other.variance(times, part), 1e-8)
        assert_agree(one.covariance(times, part), other.covariance(times, part), 1e-8)
    for mine, theirs in zip(one.leave_one_out(), other.leave_one_out(), strict=True):
        assert_agree(mine, theirs, 1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_toeplitz_takes_as_few_observations_as_there_are(n):
    kernel, t = STATIONARY["drifting cycle"], np.arange(float(n))
    y = np.array([1.0, -2.0, 0.5, 4.0])[:n]
    one, other = Toeplitz(kernel, t, y), Dense(kernel, t, y)
    assert one.log_likelihood() == pytest.approx(other.log_likelihood(), rel=1e-12)
    assert_agree(one.gradient(), other.gradient(), 1e-12)
    assert_agree(one.leave_one_out()[1], other.leave_one_out()[1], 1e-12)


def test_toeplitz_says_when_it_has_lost_its_digits_and_dense_takes_over():
    gp = GaussianProcess(ExponentiatedQuadratic(1.0, 30.0) + White(1e-9))
    t = np.arange(400.0)
    posterior = gp.condition(t, np.sin(t / 40), solver="toeplitz")
    assert posterior.solver == "dense"
    assert "too near to singular for the toeplitz solver" in posterior.why
    assert posterior.mean(t) == pytest.approx(np.sin(t / 40), abs=1e-3)


def test_toeplitz_refuses_rather_than_guess_where_dense_would_take_too_long(monkeypatch):
    monkeypatch.setattr(process, "MANY", 100)
    gp, t = GaussianProcess(ExponentiatedQuadratic(1.0, 30.0) + White(1e-9)), np.arange(400.0)
    with pytest.raises(Refused, match="raise the noise"):
        gp.condition(t, np.sin(t / 40), solver="toeplitz")


def test_the_solver_is_chosen_by_kernel_times_and_number_and_the_reason_is_said():
    smooth, few, many = ExponentiatedQuadratic(1.0, 3.0) + White(1.0), np.arange(20.0), np.arange(250.0)
    gap = np.delete(many, 70)
    for kernel, t, solver, reason in (
        (smooth, few, "dense", "20 observations"),
        (smooth, many, "toeplitz", "equidistant"),
        (smooth, gap, "dense", "not equidistant"),
        (KERNELS["drifting cycle"], gap, "banded", "has a state space"),
        (KERNELS["drifting cycle"], few, "dense", "20 observations"),
        (smooth + Linear(1.0), many, "dense", "not stationary"),
    ):
        posterior = GaussianProcess(kernel).condition(t, np.cos(t))
        assert (posterior.solver, reason in posterior.why) == (solver, True), posterior.why
    held = many.copy()
    held[70] = np.nan  # a missing observation is a gap
    assert GaussianProcess(smooth).condition(many, held).solver == "dense"


@pytest.mark.parametrize("name", ["exponentiated quadratic", "matern 1/2", "matern 3/2", "matern 5/2", "periodic", "rational quadratic"])
def test_dense_agrees_with_scikit_learn(name):
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    k = gaussian_process.kernels
    theirs = 2.0 * {
        "exponentiated quadratic": k.RBF(1.7),
        "matern 1/2": k.Matern(3.0, nu=0.5),
        "matern 3/2": k.Matern(3.0, nu=1.5),
        "matern 5/2": k.Matern(3.0, nu=2.5),
        "periodic": k.ExpSineSquared(0.9, 7.3),
        "rational quadratic": k.RationalQuadratic(2.0, 0.8),
    }[name] + k.WhiteKernel(0.3)
    y = observed(KERNELS[name], IRREGULAR)
    learned = gaussian_process.GaussianProcessRegressor(theirs, alpha=0.0, optimizer=None).fit(IRREGULAR[:, None], y)
    posterior = GaussianProcess(KERNELS[name]).condition(IRREGULAR, y, solver="dense")
    likelihood, gradient = learned.log_marginal_likelihood(learned.kernel_.theta, eval_gradient=True)
    mean, deviation = learned.predict(GRID[:, None], return_std=True)
    assert posterior.log_likelihood == pytest.approx(likelihood, rel=1e-10)
    assert_agree(np.sort(posterior.gradient()), np.sort(gradient), 1e-8)  # their parameters come in another order
    assert_agree(posterior.mean(GRID), mean, 1e-9)
    assert_agree(posterior.variance(GRID, noise=True), deviation**2, 1e-9)


# ---------------------------------------------------------------------------------------------------- what a posterior gives


def test_leaving_one_out_is_conditioning_on_the_others():
    kernel = KERNELS["drifting cycle"]
    gp = GaussianProcess(kernel, mean=lambda times: 5 - times)
    y = observed(kernel, IRREGULAR) + gp.mean(IRREGULAR)
    mean, variance = gp.condition(IRREGULAR, y).leave_one_out()
    for i in range(0, len(y), 6):
        others = np.arange(len(y)) != i
        alone = gp.condition(IRREGULAR[others], y[others])
        assert mean[i] == pytest.approx(alone.mean(IRREGULAR[[i]])[0], rel=1e-9)
        assert variance[i] == pytest.approx(alone.variance(IRREGULAR[[i]], noise=True)[0], rel=1e-9)


def test_parts_add_up_to_the_whole():
    kernel, gp = KERNELS["trend and cycle"], GaussianProcess(KERNELS["trend and cycle"], mean=lambda times: np.full(len(times), 4.0))
    posterior = gp.condition(IRREGULAR, observed(kernel, IRREGULAR))
    assert posterior.parts() == ["linear", "exponentiated quadratic", "product"]
    assert_agree(sum(posterior.mean(GRID, part=p) for p in posterior.parts()) + 4.0, posterior.mean(GRID), 1e-12)
    assert_agree(np.diag(posterior.covariance(GRID, part="product")), posterior.variance(GRID, part="product"), 1e-9)


def test_a_product_is_one_part_and_a_kernel_alone_is_its_own():
    kernel = Matern(2.5, 2.0, 20.0) * Periodic(1.5, 1.1, 6.0)
    posterior = GaussianProcess(kernel, mean=lambda times: 0 * times + 3).condition(IRREGULAR, observed(kernel, IRREGULAR))
    assert posterior.parts() == ["product"]
    assert_agree(posterior.mean(GRID, part="product") + 3, posterior.mean(GRID), 1e-12)


def test_a_part_that_the_data_say_nothing_about_keeps_its_prior():
    kernel = Periodic(2.0, 1.0, 5.0) + Matern(1.5, 1e-14, 3.0) + White(0.1)
    posterior = GaussianProcess(kernel).condition(IRREGULAR, observed(kernel, IRREGULAR))
    assert posterior.variance(GRID, part="matern 3/2") == pytest.approx(np.full(len(GRID), 1e-14))
    assert posterior.variance(GRID, part="periodic").max() < 0.2


def test_times_may_come_in_any_order_and_more_than_once():
    posterior = GaussianProcess(KERNELS["matern 5/2"]).condition(IRREGULAR, observed(KERNELS["matern 5/2"], IRREGULAR))
    asked = np.array([9.0, 2.5, 9.0, 40.0])
    ordered = np.array([2.5, 9.0, 40.0])
    assert np.array_equal(posterior.mean(asked), posterior.mean(ordered)[[1, 0, 1, 2]])
    joint = posterior.covariance(asked, noise=True)
    assert joint[0, 2] == pytest.approx(joint[0, 0] - 0.3)  # one function, two observations


class Identity:
    """Random numbers that make n draws of an n-dimensional law the columns of its square root."""

    def standard_normal(self, shape):
        return np.eye(*shape)


@pytest.mark.parametrize("kernel", [KERNELS["drifting cycle"], Periodic(2.0, 1.0, 5.0), Linear(1.0) + White(1e-30)])
def test_draws_have_the_covariance_of_their_law_even_where_it_is_singular(kernel):
    gp, times = GaussianProcess(kernel, mean=lambda times: 7 * times), np.arange(30.0)
    root = gp.draw(times, 30, Identity()) - gp.mean(times)
    assert_agree(root.T @ root, kernel.covariance(times, times), 1e-9)
    posterior = gp.condition(IRREGULAR, observed(kernel + White(0.1), IRREGULAR)) if kernel.noise() > 0.01 else None
    for noise in (False, True) if posterior else ():
        root = posterior.draw(times, 30, Identity(), noise=noise) - posterior.mean(times)
        assert_agree(root.T @ root, posterior.covariance(times, noise=noise), 1e-9)


def test_draws_of_a_noise_free_posterior_all_pass_through_the_observations():
    posterior = GaussianProcess(ExponentiatedQuadratic(1.0, 2.0)).condition(T, Y)
    draws = posterior.draw(np.linspace(0, 4, 81), 50, np.random.default_rng(0))
    assert_agree(draws[:, [0, 20, 40, 80]], np.tile(Y, (50, 1)), 1e-6)
    assert draws[:, 60].std() > 0.05
    assert posterior.draw(T, 2, np.random.default_rng(0)) == pytest.approx(np.tile(Y, (2, 1)), abs=1e-6)


def test_many_draws_have_the_mean_and_covariance_of_the_posterior():
    kernel, times, n = KERNELS["matern 3/2"], np.array([0.1, 3.0, 3.5, 60.0]), 40_000
    posterior = GaussianProcess(kernel, mean=lambda times: 2 + times).condition(IRREGULAR, observed(kernel, IRREGULAR))
    draws = posterior.draw(times, n, np.random.default_rng(5), noise=True)
    covariance = posterior.covariance(times, noise=True)
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - posterior.mean(times)) < 3.5 * deviation / math.sqrt(n)).all()
    scatter = np.sqrt((covariance**2 + np.outer(deviation, deviation) ** 2) / n)  # of a covariance from n draws
    assert (np.abs(np.cov(draws.T) - covariance) < 3.5 * scatter).all()


# ---------------------------------------------------------------------------------------------------------------- learning


def test_a_fit_ends_where_the_gradient_vanishes_and_above_the_truth():
    truth = Matern(1.5, 4.0, 6.0) + White(0.5)
    t = np.arange(250.0)
    y = observed(truth, t, seed=3)
    found = fit(GaussianProcess(truth.at(truth.theta() + np.array([1.0, -1.0, 1.5]))), t, y)
    posterior = found.gp.condition(t, y)
    assert found.converged
    assert not found.at_bound
    assert found.log_likelihood == pytest.approx(posterior.log_likelihood, rel=1e-10)
    assert np.abs(posterior.gradient()).max() < 0.02  # of a likelihood whose curvature is about n / 2
    assert found.log_likelihood > GaussianProcess(truth).condition(t, y).log_likelihood
    assert np.abs(found.gp.kernel.theta() - truth.theta()).max() < 1.0
    assert found.solver == posterior.solver
    assert 5 < found.evaluations < 80


def test_a_kernel_without_free_parameters_is_evaluated_once():
    kernel = Matern(1.5, 4.0, 6.0, fixed=("variance", "lengthscale")) + White(0.5, fixed=("variance",))
    found = fit(GaussianProcess(kernel), T, Y)
    assert (found.evaluations, found.gp.kernel) == (1, kernel)
    assert found.log_likelihood == pytest.approx(GaussianProcess(kernel).condition(T, Y).log_likelihood, rel=1e-12)


def test_a_first_start_that_cannot_be_evaluated_is_refused_and_a_later_one_is_not(monkeypatch):
    monkeypatch.setattr(dense, "JITTERS", (0.0,))
    t = np.linspace(0, 10, 40)
    with pytest.raises(Refused, match=r"'lengthscale' is 2e[+]02 times the spacing"):
        fit(GaussianProcess(ExponentiatedQuadratic(1.0, 50.0)), t, np.sin(t))
    several = fit(GaussianProcess(ExponentiatedQuadratic(1.0, 0.3)), t, np.sin(t), restarts=6)
    assert min(several.starts) == -math.inf
    assert math.isfinite(several.log_likelihood)


def test_all_solvers_find_the_same_kernel():
    kernel = Matern(1.5, 2.0, 5.0) + Periodic(4.0, 1.0, 30.0, fixed=("period",)) + White(0.5)
    t = np.arange(150.0)
    y = observed(kernel, t)
    first, *others = [fit(GaussianProcess(kernel), t, y, solver=name) for name in ("dense", "toeplitz", "banded")]
    assert [f.solver for f in (first, *others)] == ["dense", "toeplitz", "banded"]
    for other in others:
        assert other.log_likelihood == pytest.approx(first.log_likelihood, rel=1e-9)
        assert_agree(other.gp.kernel.theta(), first.gp.kernel.theta(), 1e-3)


def test_further_starts_leave_a_poor_one_behind_and_repeat_for_a_seed():
    truth = ExponentiatedQuadratic(4.0, 2.0) + White(0.05)
    t = np.arange(80.0)
    y = observed(truth, t, seed=2)
    poor = GaussianProcess(ExponentiatedQuadratic(0.1, 600.0) + White(4.0))  # all is noise
    one, several = (fit(poor, t, y, restarts=r, seed=1, solver="dense") for r in (1, 8))
    assert several.log_likelihood > one.log_likelihood + 20
    assert several.starts[0] == one.log_likelihood
    assert several.log_likelihood == max(several.starts) == several.starts[several.best]
    assert fit(poor, t, y, restarts=8, seed=1, solver="dense") == several


def test_a_parameter_that_ends_on_its_bound_is_named_and_fixed_ones_stay():
    kernel = Matern(1.5, 4.0, 6.0) + Periodic(1.0, 1.0, 12.0, fixed=("period", "lengthscale")) + White(0.5)
    t = np.arange(60.0)
    found = fit(GaussianProcess(kernel), t, observed(kernel, t), bounds={"white.variance": (2.0, 3.0)})
    assert found.at_bound == ["white.variance"]
    learned = found.gp.kernel.parameters()
    assert learned["white.variance"] == pytest.approx(2.0)
    assert (learned["periodic.period"], learned["periodic.lengthscale"]) == (12.0, 1.0)


def test_suggested_bounds_follow_spacing_span_and_variance():
    kernel = Matern(1.5, 1.0, 6.0) * Periodic(1.0, 1.0, 10.0) + Linear(1.0) + RationalQuadratic(1.0, 1e9, 1.0) + White(1.0)
    bounds = suggested_bounds(kernel, np.array([0.0, 0.5, 20.0]), np.array([1.0, -1.0, 0.0]))
    variance = 2 / 3
    assert list(bounds) == kernel.free()
    assert bounds["product.matern 3/2.lengthscale"] == pytest.approx((0.05, 2000.0))
    assert bounds["product.periodic.period"] == pytest.approx((8.0, 12.0))
    assert bounds["white.variance"] == pytest.approx((1e-8 * variance, 1e4 * variance))
    assert bounds["rational quadratic.lengthscale"][1] == 1e9  # the kernel's own value is never out of bounds


def test_a_fit_survives_evaluations_that_fail(monkeypatch):
    """Without jitter, a smooth noise-free function cannot be evaluated at the lengthscales that its likelihood pulls to."""
    monkeypatch.setattr(dense, "JITTERS", (0.0,))
    t = np.linspace(0, 10, 40)
    gp, failed = GaussianProcess(ExponentiatedQuadratic(1.0, 0.3)), []
    original = Dense.__init__

    def watched(self, kernel, times, y):
        try:
            original(self, kernel, times, y)
        except Refused:
            failed.append(kernel)
            raise

    monkeypatch.setattr(Dense, "__init__", watched)
    found = fit(gp, t, np.sin(t), solver="dense")
    assert failed
    assert math.isfinite(found.log_likelihood)
    assert found.log_likelihood > gp.condition(t, np.sin(t)).log_likelihood + 10


# --------------------------------------------------------------------------------------------------------------- bad input


@dataclasses.dataclass(frozen=True)
class Box(Kernel):
    """Not a covariance: some of its matrices have negative eigenvalues."""

    label: ClassVar[str] = "box"

    def covariance(self, t, s):
        return (np.abs(np.subtract.outer(t, s)) < 1.5).astype(float)


def test_a_matrix_that_needs_jitter_gets_little_and_says_so():
    posterior = GaussianProcess(ExponentiatedQuadratic(1.0, 50.0)).condition(np.arange(50.0), np.zeros(50))
    assert "of the mean variance was added" in posterior.why
    assert 0 < posterior.solved.jitter <= 1e-6


def test_what_is_no_covariance_is_refused_after_the_last_jitter():
    with pytest.raises(Refused, match="not positive definite"):
        GaussianProcess(Box()).condition(np.arange(10.0), np.zeros(10))


@pytest.mark.parametrize(
    ("kernel", "named"),
    [
        (ExponentiatedQuadratic(1.0, 3e4) + Matern(0.5, 1e-20, 2.0), "'exponentiated quadratic.lengthscale' is 3e[+]04 times the spacing"),
        (ExponentiatedQuadratic(1.0, 3e4) + White(1e-18), "bound it, or the noise"),
        (Periodic(1.0, 1.0, 7.0), "'period' is 7"),
        (Linear(1.0), "fewer degrees of freedom than there are times"),
        (Matern(0.5, 1e150, 1.0) + White(1.0), "'matern 1/2.variance' is 1.0e[+]150"),
    ],
)
def test_a_refusal_names_the_parameter_that_is_the_likely_cause(kernel, named):
    assert re.search(named, dense.likely_cause(kernel, np.arange(50.0)))


def test_a_covariance_that_is_not_finite_is_refused():
    with pytest.raises(Refused, match=r"white.variance"), np.errstate(over="ignore"):
        GaussianProcess(Matern(0.5, 1.0, 1.0) + White(1.7e308) + White(1.7e308)).condition([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("t", "y", "said"),
    [
        ([0.0, 2.0, 1.0, 4.0], Y, "row 2, 1, is earlier"),
        ([0.0, 1.0, 1.0, 4.0], Y, "row 2, 1, occurs twice"),
        ([0.0, math.nan, 2.0, 4.0], Y, "row 1 is nan"),
        ([[0.0, 1.0], [2.0, 4.0]], Y, r"shape \(2, 2\)"),
        (["today", "tomorrow"], [1.0, 2.0], "must be numbers"),
        (T, [1.0, 2.0], "one observation is needed per time"),
        (T, [1.0, math.inf, 0.0, 1.0], "row 1 is infinite"),
        (T, [math.nan] * 4, "all 4 observations are missing"),
        ([], [], "all 0 observations are missing"),
    ],
)
def test_times_and_observations_that_cannot_be_used_are_refused_by_row(t, y, said):
    gp = GaussianProcess(KERNELS["matern 3/2"])
    for asked in (gp.condition, lambda t, y: fit(gp, t, y)):
        with pytest.raises(Refused, match=said):
            asked(t, y)


def test_what_cannot_be_done_is_refused_in_words():
    gp, kernel = GaussianProcess(KERNELS["trend and cycle"]), KERNELS["matern 3/2"]
    posterior = gp.condition(T, Y)
    for said, asked in {
        "3 trues": lambda: gp.condition(T, Y, solver="3 trues"),
        "toeplitz solver cannot be used: the kernel is not stationary": lambda: gp.condition(T, Y, solver="toeplitz"),
        "banded solver cannot be used: ": lambda: GaussianProcess(RationalQuadratic()).condition(T, Y, solver="banded"),
        "not equidistant without gaps": lambda: GaussianProcess(kernel).condition(T, Y, solver="toeplitz"),
        r"one finite number per time: 4 times gave shape \(2,\)": lambda: GaussianProcess(kernel, lambda t: t[:2]).condition(T, Y),
        "no term 'season'": lambda: posterior.mean(T, part="season"),
        "no term 'white'": lambda: posterior.variance(T, part="white"),
        "noise belongs to whole observations": lambda: posterior.variance(T, noise=True, part="linear"),
        "must be finite": lambda: posterior.mean([math.inf]),
        "2 observations tell nothing": lambda: fit(gp, T[:2], Y[:2]),
        "all equal": lambda: fit(gp, T, [3.0] * 4),
        "not a free parameter": lambda: fit(gp, T, Y, bounds={"matern 3/2.variance": (1, 2)}),
        "positive, finite and increasing": lambda: fit(gp, T, Y, bounds={"white.variance": (2, 1)}),
        "number of starts": lambda: fit(gp, T, Y, restarts=0),
    }.items():
        with pytest.raises(Refused, match=said):
            asked()


# ------------------------------------------------------------------------------------------------------- outside this module


def test_gaussian_processes_need_neither_torch_nor_jax():
    code = "import sys, simulacra.families.gp; print(*({'torch', 'jax', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_example_of_the_documentation_runs():
    page = (ROOT / "docs" / "gaussian_processes.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)[1]
    check = "assert abs(expected - 60).max() < 40 and (band > 2).all() and paths.shape == (100, 14) and abs(yearly).max() < 60"
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"{code}\n{check}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5
