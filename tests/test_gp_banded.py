"""The O(n) solver of Gaussian processes: it says what the dense one says, on any times, for every sum of terms that it takes."""

import tracemalloc

import numpy as np
import pytest

from simulacra.families.gp import GaussianProcess, fit
from simulacra.families.gp.banded import Banded, Layout, applies
from simulacra.families.gp.dense import Dense
from simulacra.families.gp.kernels import ExponentiatedQuadratic, Linear, Matern, Periodic, RationalQuadratic, White
from simulacra.families.gp.statespace import State, StateSpace
from simulacra.study import Refused

NOISE = White(0.3)
CYCLE = Periodic(3.0, 1.2, 50.0)
KERNELS = {
    "matern 1/2": Matern(0.5, 2.0, 6.0) + NOISE,
    "matern 3/2": Matern(1.5, 2.0, 6.0) + NOISE,
    "matern 5/2": Matern(2.5, 2.0, 6.0) + NOISE,
    "matern 3/2 alone, without noise": Matern(1.5, 2.0, 6.0),
    "a lengthscale of 10,000 steps": Matern(2.5, 2.0, 1e4) + NOISE,
    "trend and cycle": Matern(1.5, 2.0, 6.0) + CYCLE + NOISE,
    "sharp cycle": Matern(1.5, 2.0, 6.0) + Periodic(3.0, 0.3, 50.0) + NOISE,
    "cycle alone": CYCLE + NOISE,
    "drifting cycle alone": Matern(1.5, 2.0, 80.0) * CYCLE + NOISE,
    "cycle that drifts, weather, line": Matern(1.5, 2.0, 80.0) * CYCLE + Matern(0.5, 1.0, 3.0) + Linear(1e-3, 100.0) + NOISE,
    "many": CYCLE * Matern(0.5, 1.0, 90.0) + Matern(2.5, 1.0, 30.0) + Matern(2.5, 2.0, 4.0) + Periodic(1.0, 2.0, 7.0) + NOISE,
}


def grids(n=150):
    rng = np.random.default_rng(3)
    return {
        "a grid": np.arange(n) / 4 - 7.0,
        "a grid with gaps": 2.0 * np.sort(rng.choice(int(1.3 * n), n, replace=False)),
        "one long gap": np.concatenate([np.arange(n // 2), 3 * n + np.arange(n // 2)]).astype(float),
        "irregular times": np.cumsum(rng.exponential(1.0, n)),
        "times that nearly meet": np.sort(np.concatenate([np.arange(n // 2), np.arange(n // 2) + 1e-5])),
    }


def observed(kernel, t):
    """A draw of the kernel, from another stream for each number of times."""
    rng = np.random.default_rng(len(t))
    values, vectors = np.linalg.eigh(kernel.covariance(t, t) + kernel.noise() * np.eye(len(t)))
    return vectors @ (np.sqrt(np.maximum(values, 0)) * rng.normal(size=len(t)))


def near(found, expected, tolerance=1e-6):
    """Equal to the tolerance, relative to the largest of what is expected."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found) / scale, np.asarray(expected) / scale, rtol=0, atol=tolerance)


def asked(t):
    """Times between, at, before and after the observed ones."""
    rng = np.random.default_rng(5)
    return np.sort(np.concatenate([rng.uniform(t[0] - 30, t[-1] + 30, 60), t[:4], t[-4:], (t[1:4] + t[:3]) / 2]))


@pytest.mark.parametrize("times", grids())
@pytest.mark.parametrize("name", KERNELS)
def test_it_agrees_with_the_dense_solver(name, times):
    kernel, t = KERNELS[name], grids()[times]
    if not kernel.noise() and times == "times that nearly meet":
        pytest.skip("without noise the dense matrix is singular to rounding")
    y = observed(kernel, t)
    ours, dense = Banded(kernel, t, y), Dense(kernel, t, y)
    assert ours.log_likelihood() == pytest.approx(dense.log_likelihood(), rel=1e-6)
    near(ours.gradient(), dense.gradient())
    s = asked(t)
    prior = np.sqrt(kernel.covariance(s, s).diagonal().max())
    near(np.append(ours.mean(s), prior), np.append(dense.mean(s), prior))
    near(ours.covariance(s), dense.covariance(s))
    near(ours.variance(s), dense.covariance(s).diagonal())
    for found, expected in zip(ours.leave_one_out(), dense.leave_one_out(), strict=True):
        near(found, expected)


def test_it_agrees_with_the_dense_solver_for_parameters_drawn_at_random():
    rng, n = np.random.default_rng(11), 100
    drawn = lambda low, high: float(np.exp(rng.uniform(np.log(low), np.log(high))))  # noqa: E731
    for times in list(grids(n).values())[:4] * 8:
        kernel = Matern(rng.choice([0.5, 1.5, 2.5]), drawn(1e-4, 1e3), drawn(0.1, 1e4)) + White(drawn(1e-2, 1e2))
        kernel = kernel + Periodic(drawn(1e-4, 1e3), drawn(0.06, 100.0), 40.0)
        kernel = kernel + Matern(1.5, drawn(1e-4, 1e3), drawn(0.1, 1e4)) * Periodic(1.0, drawn(0.3, 100.0), 40.0)
        y = 3 * np.cos(times) + rng.normal(size=n)
        ours, dense = Banded(kernel, times, y), Dense(kernel, times, y)
        assert ours.log_likelihood() == pytest.approx(dense.log_likelihood(), rel=1e-6), kernel
        near(np.append(ours.gradient(), 1.0), np.append(dense.gradient(), 1.0))


@pytest.mark.parametrize("times", ["a grid with gaps", "irregular times"])
def test_each_term_has_the_posterior_that_the_dense_solver_gives_it(times):
    kernel, t = KERNELS["cycle that drifts, weather, line"] + Periodic(1.0, 2.0, 7.0), grids()[times]
    y, s = observed(kernel, t), asked(t)
    ours, dense = Banded(kernel, t, y), Dense(kernel, t, y)
    parts = [part for part in kernel.named() if part != "white"]
    for part in parts:
        near(ours.mean(s, part), dense.mean(s, part))
        near(ours.covariance(s, part), dense.covariance(s, part))
        near(ours.variance(s, part), dense.covariance(s, part).diagonal())
    near(sum(ours.mean(s, part) for part in parts), ours.mean(s), 1e-12)


@pytest.mark.parametrize("name", ["matern 5/2", "sharp cycle", "cycle that drifts, weather, line", "many"])
def test_the_gradient_is_that_of_the_likelihood(name):
    kernel, t = KERNELS[name], grids(200)["a grid with gaps"]
    y, step = observed(kernel, t), 1e-5
    differences = []
    for e in np.eye(len(kernel.free())):  # to fourth order: the likelihood of a period is sharp
        a, b, c, d = (Banded(kernel.at(kernel.theta() + k * step * e), t, y).log_likelihood() for k in (-2, -1, 1, 2))
        differences.append((a - 8 * b + 8 * c - d) / (12 * step))
    near(Banded(kernel, t, y).gradient(), differences)


def test_leaving_one_out_is_conditioning_on_the_others():
    kernel, t = KERNELS["trend and cycle"], grids(60)["irregular times"]
    y = observed(kernel, t)
    mean, variance = Banded(kernel, t, y).leave_one_out()
    for i in (0, 17, 59):
        rest = Banded(kernel, np.delete(t, i), np.delete(y, i))
        assert mean[i] == pytest.approx(rest.mean(t[i : i + 1])[0], abs=1e-8)
        assert variance[i] == pytest.approx(rest.variance(t[i : i + 1])[0] + kernel.noise(), rel=1e-8)


def test_equidistant_times_take_the_fast_path_and_say_the_same():
    t = grids(400)["a grid with gaps"]
    assert Layout.of(t, 2).alike
    assert not Layout.of(grids()["irregular times"], 2).alike
    kernel = KERNELS["cycle that drifts, weather, line"]
    y, s = observed(kernel, t), asked(t)
    fast, slow = Banded(kernel, t, y), Banded(kernel, t, y, grid=False)
    assert fast.log_likelihood() == pytest.approx(slow.log_likelihood(), rel=1e-8)
    near(fast.gradient(), slow.gradient())
    near(fast.mean(s), slow.mean(s), 1e-7)
    near(fast.variance(s), slow.variance(s), 1e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 25])
def test_a_few_observations_are_enough(n):
    kernel, t = KERNELS["cycle that drifts, weather, line"], np.arange(n) * 1.5
    y = observed(kernel, t)
    ours, dense = Banded(kernel, t, y), Dense(kernel, t, y)
    assert ours.log_likelihood() == pytest.approx(dense.log_likelihood(), rel=1e-6)
    near(ours.mean(asked(np.arange(9.0))), dense.mean(asked(np.arange(9.0))))


def test_a_state_carried_by_its_transition_has_the_kernels_covariance():
    kernel = KERNELS["many"]
    space = StateSpace.of(kernel)
    a, q = space.transition(0.7)
    assert np.linalg.eigvalsh(q).min() > -1e-12
    near(a @ space.stationary @ a.T + q, space.stationary, 1e-12)
    h, power = space.observation, np.eye(space.dimension)
    for lag in 0.7 * np.arange(5):
        covariance = kernel.covariance(np.array([lag]), np.zeros(1))[0, 0]
        assert h @ power @ space.stationary @ h == pytest.approx(covariance, rel=1e-8)
        power = a @ power
    assert space.noise == kernel.noise()


def test_the_filtered_state_is_the_posterior_at_the_last_time():
    kernel, t = KERNELS["cycle that drifts, weather, line"] + Periodic(1.0, 2.0, 7.0), grids()["irregular times"]
    y = observed(kernel, t)
    y[[3, 50, 51]] = np.nan
    space, seen = StateSpace.of(kernel), np.isfinite(y)
    dense = Dense(kernel, t[seen], y[seen])
    for last in (len(t), len(t) - 1):
        lacking = np.where(np.arange(len(t)) < last, y, np.nan)  # the last one missing: carried on
        state = space.filtered(t, lacking)
        dense = Dense(kernel, t[np.isfinite(lacking)], lacking[np.isfinite(lacking)])
        assert state.time == t[-1]
        assert space.observation @ state.mean == pytest.approx(dense.mean(t[-1:])[0], abs=1e-6)
        assert space.observation @ state.covariance @ space.observation == pytest.approx(dense.covariance(t[-1:])[0, 0], rel=1e-6)


def test_forecasts_are_the_dense_posterior_given_training_and_window():
    kernel = KERNELS["cycle that drifts, weather, line"] + Periodic(1.0, 2.0, 7.0)
    t = grids()["a grid with gaps"]
    y = observed(kernel, t)
    space = StateSpace.of(kernel)
    state, rng = space.filtered(t, y), np.random.default_rng(0)
    width, horizon, step = 12, 5, 2.0
    last = t[-1] + step * (width + np.array([0, 0, 3, 40, 41.5]))  # a window may begin right after training
    windows = rng.normal(size=(5, width))
    windows[1, 3:6] = windows[3, -1] = np.nan
    windows[4] = np.nan
    mean, covariance = space.forecasts(state, windows, last, step, horizon)
    for i, window in enumerate(windows):
        times = last[i] - step * np.arange(width)[::-1]
        seen = np.isfinite(window)
        dense = Dense(kernel, np.concatenate([t, times[seen]]), np.concatenate([y, window[seen]]))
        ahead = last[i] + step * np.arange(1, horizon + 1)
        near(mean[i], dense.mean(ahead))
        near(covariance[i], dense.covariance(ahead))


def test_a_window_within_training_takes_its_cycle_only():
    trend, cycle = Matern(1.5, 2.0, 6.0), Periodic(3.0, 1.2, 50.0) + Linear(1e-3, 40.0)
    t, width, horizon = np.arange(120.0), 10, 4
    y = observed(trend + cycle + NOISE, t)
    space = StateSpace.of(trend + cycle + NOISE)
    last, window = 80.0, np.linspace(-1, 1, width)
    mean, covariance = space.forecasts(space.filtered(t, y), window[None], np.array([last]), 1.0, horizon)
    both = np.concatenate([t, last - np.arange(width)[::-1]])  # the same cycle, another stretch of trend
    ahead = last + np.arange(1.0, horizon + 1)
    same = np.zeros((len(both), len(both)))
    for part in (slice(0, 120), slice(120, None)):
        same[part, part] = trend.covariance(both[part], both[part])
    joint = same + cycle.covariance(both, both) + NOISE.variance * np.eye(len(both))
    cross = cycle.covariance(ahead, both)
    cross[:, 120:] += trend.covariance(ahead, both[120:])
    near(mean[0], cross @ np.linalg.solve(joint, np.concatenate([y, window])))
    near(covariance[0], (trend + cycle).covariance(ahead, ahead) - cross @ np.linalg.solve(joint, cross.T))


def test_forecasts_do_not_depend_on_their_company():
    kernel = KERNELS["trend and cycle"]
    space, t = StateSpace.of(kernel), np.arange(100.0)
    state = space.filtered(t, observed(kernel, t))
    windows, last = np.random.default_rng(1).normal(size=(30, 8)), 110.0 + np.arange(30)
    windows[4:9, 2] = np.nan
    mean, covariance = space.forecasts(state, windows, last, 1.0, 3)
    for i in (0, 5, 29):
        alone = space.forecasts(state, windows[i : i + 1], last[i : i + 1], 1.0, 3)
        near(mean[i], alone[0][0], 1e-12)
        near(covariance[i], alone[1][0], 1e-12)


def test_a_state_carried_far_forgets_what_decays():
    space = StateSpace.of(Matern(2.5, 2.0, 3.0) + NOISE)
    far = space.carried(State(np.ones(3), np.zeros((3, 3)), 0.0), 1000.0)
    near(far.covariance, space.stationary, 1e-12)
    np.testing.assert_allclose(far.mean, 0, atol=1e-12)


def test_seventy_years_of_days_need_no_square_matrix():
    t = np.arange(25_551.0)
    y = 10 * np.cos(2 * np.pi * t / 365.25) + np.random.default_rng(0).normal(size=len(t))
    kernel = Matern(1.5, 2.0, 6.0) + Periodic(50.0, 1.2, 365.25, fixed=("period",)) + White(1.0)
    tracemalloc.start()
    solved = Banded(kernel, t, y)
    solved.gradient()
    solved.covariance(t[-1] + np.arange(1.0, 15))
    solved.variance(t)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # one n x n matrix would be 5,200 MB


def test_the_fit_is_that_of_the_dense_solver():
    kernel, t = Matern(1.5, 1.0, 10.0) + Periodic(1.0, 1.0, 48.0) + White(1.0), grids(300)["a grid with gaps"]
    y = observed(KERNELS["trend and cycle"], t)
    ours, dense = (fit(GaussianProcess(kernel), t, y, solver=name) for name in ("banded", "dense"))
    assert ours.solver == "banded"
    assert ours.log_likelihood == pytest.approx(dense.log_likelihood, abs=1e-4)
    near(ours.gp.kernel.theta(), dense.gp.kernel.theta(), 1e-2)


def test_it_agrees_with_celerite2():
    celerite2 = pytest.importorskip("celerite2")
    t = grids(500)["irregular times"]
    kernel = Matern(0.5, 2.0, 6.0) + Matern(0.5, 1.0, 60.0) + NOISE
    y = observed(kernel, t)
    theirs = celerite2.GaussianProcess(celerite2.terms.RealTerm(a=2.0, c=1 / 6) + celerite2.terms.RealTerm(a=1.0, c=1 / 60))
    theirs.compute(t, diag=np.full(len(t), NOISE.variance))
    ours = Banded(kernel, t, y)
    assert ours.log_likelihood() == pytest.approx(theirs.log_likelihood(y), rel=1e-10)
    near(ours.mean(asked(t)), theirs.predict(y, asked(t)))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (ExponentiatedQuadratic(1.0, 1.0) + NOISE, "exponentiated quadratic"),
        (RationalQuadratic() + NOISE, "rational quadratic"),
        (Matern(1.5) * Matern(0.5) + NOISE, "Matern times Matern"),
        (Matern(1.5) * Linear() + NOISE, "Linear times Matern"),
        (Matern(1.5) + Periodic(1.0, 0.02, 10.0) + NOISE, "lengthscale 0.02"),
        (Matern(1.5) * Periodic(1.0, 0.1, 10.0) + NOISE, "lengthscale 0.1 "),
    ],
)
def test_what_has_no_small_state_is_refused_with_the_reason(kernel, reason):
    assert reason in applies(kernel)
    with pytest.raises(Refused, match=reason):
        Banded(kernel, np.arange(5.0), np.ones(5))


def test_everything_else_applies():
    assert not [name for name, kernel in KERNELS.items() if applies(kernel)]


def test_an_unknown_term_is_refused_by_name():
    with pytest.raises(Refused, match="no term 'trend' that is a function; it has matern 3/2, periodic"):
        Banded(KERNELS["trend and cycle"], np.arange(5.0), np.ones(5)).mean(np.arange(3.0), "trend")


def test_times_without_any_observation_have_no_state():
    with pytest.raises(Refused, match="at least one observation"):
        StateSpace.of(KERNELS["matern 3/2"]).filtered(np.arange(4.0), np.full(4, np.nan))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_what_overflows_is_refused():
    with pytest.raises(Refused, match="units in which they are of order 1"):
        Banded(Periodic(1e200, 1.0, 9.0) + White(1e-200), np.arange(60.0), np.ones(60))


def test_a_cycle_without_noise_is_refused():
    with pytest.raises(Refused, match="add White noise"):
        Banded(CYCLE, np.arange(60.0), np.ones(60))
