"""Diffusion: published noise levels, and laws that an exact denoiser must give back."""

import math
from decimal import Decimal
from functools import partial
from itertools import pairwise

import pytest
import torch

from simulacra.families import diffusion
from simulacra.families.diffusion import Schedule, ancestral, centred, cosine, ddim, karras, linear, noised, polynomial, prior_kl

T = 1000


def exact(z, t, schedule, mean, covariance):
    """E[noise | z_t] where the data are N(mean, covariance)."""
    alpha, sigma = schedule.alpha(t[0]), schedule.sigma(t[0])
    spread = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=mean.dtype)
    return sigma * torch.linalg.solve(spread, (z - alpha * mean).T).T


def moments_after_walk(schedule, mean, covariance, levels, project=None):
    """Mean and covariance of z at the last of `levels`, from N(0, 1) at the first: exactly, since every step is linear in z and noise."""
    d = len(mean)
    project = torch.eye(d, dtype=mean.dtype) if project is None else project
    m, c = torch.zeros(d, dtype=mean.dtype), project.clone()
    basis = torch.cat([torch.zeros(1, d, dtype=mean.dtype), torch.eye(d, dtype=mean.dtype)])
    for t, s in pairwise(levels):
        now, then = torch.full((d + 1,), t), torch.full((d + 1,), s)
        moved = ancestral(basis, exact(basis, now, schedule, mean, covariance), torch.zeros_like(basis), now, then, schedule)
        scatter = ancestral(0 * basis, 0 * basis, basis, now, then, schedule)[1:] @ project
        matrix = (moved[1:] - moved[0]).T
        m, c = matrix @ m + moved[0], matrix @ c @ matrix.T + scatter.T @ scatter
    return m, c


def test_the_polynomial_schedule_is_the_published_one():
    schedule = polynomial(T)
    assert schedule.steps == T
    squared = schedule.alpha(torch.arange(T + 1)).square()
    inner = (1 - 2e-5) * (1 - (torch.arange(T, dtype=torch.float64) / T) ** 2) ** 2 + 1e-5  # all but the last level, which is clipped
    assert torch.allclose(squared[:-1], inner, rtol=1e-9)
    assert float(squared[-1]) == pytest.approx(1e-5 + (1 - 2e-5) * 1e-3 * (1 - 0.999**2) ** 2, rel=1e-9)
    assert float(schedule.sigma(0)) == pytest.approx(math.sqrt(1e-5), rel=1e-9)  # 0.0032
    assert (schedule.gamma.diff() > 0).all()


@pytest.mark.parametrize("schedule", [polynomial(50), cosine(50)])
def test_signal_and_noise_keep_unit_variance_and_the_end_is_noise(schedule):
    t = torch.arange(schedule.steps + 1)
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(51, dtype=torch.float64))
    assert float(schedule.alpha(schedule.steps)) < 0.01


def test_the_cosine_schedule_starts_without_noise_and_is_a_cosine():
    schedule = cosine(100)
    assert float(schedule.sigma(0)) == 0
    expected = (math.cos(0.5 * math.pi * 0.508 / 1.008) / math.cos(0.5 * math.pi * 0.008 / 1.008)) ** 2
    assert float(schedule.alpha(50)) ** 2 == pytest.approx(expected, rel=1e-9)


def test_noising_and_telling_the_noise_are_inverse():
    schedule, t = polynomial(20), torch.tensor([0, 5, 20])
    x, noise = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    z = noised(x, noise, t, schedule)
    assert torch.allclose(diffusion.noise_of(z, x, t, schedule), noise)
    assert torch.allclose(diffusion.data_of(z, noise, t, schedule), x)


def test_a_step_has_the_posterior_of_a_gaussian_chain():
    """Against Bayes' rule for two Gaussians: q(z_s | z_t, x) is proportional to q(z_t | z_s) q(z_s | x)."""
    schedule, t, s = cosine(30), torch.tensor([20]), torch.tensor([12])
    x, z = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)
    a = schedule.alpha(t) / schedule.alpha(s)
    given = schedule.sigma(t) ** 2 - a**2 * schedule.sigma(s) ** 2
    precision = 1 / schedule.sigma(s) ** 2 + a**2 / given
    mean = (schedule.alpha(s) * x / schedule.sigma(s) ** 2 + a * z / given) / precision
    noise = diffusion.noise_of(z, x, t, schedule)
    zero, one = torch.zeros_like(z), torch.ones_like(z)
    assert torch.allclose(ancestral(z, noise, zero, t, s, schedule), mean)
    assert torch.allclose(ancestral(z, noise, one, t, s, schedule) - mean, precision.rsqrt())


def test_an_exact_denoiser_gives_back_its_gaussian():
    factor = torch.tensor([[1.0, 0, 0], [0.6, 0.5, 0], [-0.3, 0.2, 0.8]], dtype=torch.float64)
    mean, covariance = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64), factor @ factor.T
    schedule = polynomial(T)
    m, c = moments_after_walk(schedule, mean, covariance, list(range(T, -1, -1)))
    assert torch.allclose(m, mean, atol=5e-3)
    assert torch.allclose(c, covariance, atol=5e-3)


def test_fewer_steps_give_back_the_gaussian_less_well():
    mean, covariance = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    schedule = polynomial(T)
    errors = []
    for steps in (1000, 100, 10):
        levels = schedule.chosen(steps).tolist()[::-1]
        assert (levels[0], levels[-1]) == (T, 0)
        errors.append(float((moments_after_walk(schedule, mean, covariance, levels)[1] - covariance).abs().max()))
    assert errors[1] == pytest.approx(10 * errors[0], rel=0.1)  # of first order in the step
    assert errors[1] < errors[2]


def test_a_walk_over_chosen_levels_is_a_walk_over_the_respaced_schedule():
    schedule = polynomial(100)
    coarse = schedule.respaced(7)
    levels = schedule.chosen(7)
    z, noise, fresh = (torch.randn(1, 3, dtype=torch.float64) for _ in range(3))
    for k in range(7, 0, -1):
        wide = ancestral(z, noise, fresh, levels[k : k + 1], levels[k - 1 : k], schedule)
        assert torch.equal(wide, ancestral(z, noise, fresh, torch.tensor([k]), torch.tensor([k - 1]), coarse))
    with pytest.raises(ValueError, match="cannot be walked in 101"):
        schedule.respaced(101)


def test_an_exact_denoiser_gives_back_a_gaussian_without_centre_of_mass():
    points = 4
    project = torch.eye(points, dtype=torch.float64) - 1 / points
    factor = torch.randn(points, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5
    covariance = project @ factor @ factor.T @ project
    mean = project @ torch.tensor([1.0, 0.0, -0.5, 0.3], dtype=torch.float64)
    schedule = polynomial(T)
    m, c = moments_after_walk(schedule, mean, covariance, list(range(T, -1, -1)), project)
    assert torch.allclose(m, mean, atol=1e-4)
    assert torch.allclose(c, covariance, atol=1e-2)
    assert c.sum(0).abs().max() < 1e-12  # never leaves the subspace


def test_centred_noise_is_standard_normal_in_the_subspace():
    normal = torch.randn(4000, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([1.0, 1, 1, 0, 0]).expand(4000, 5)
    noise = centred(normal, mask)
    assert noise.sum(1).abs().max() < 1e-12
    assert (noise[:, 3:] == 0).all()
    assert torch.equal(noise[:, :3], centred(normal[:, :3], mask[:, :3]))
    covariance = noise[:, :3, 0].T.cov()
    assert torch.allclose(covariance, torch.eye(3, dtype=torch.float64) - 1 / 3, atol=0.06)


def test_the_prior_kl_is_that_of_two_gaussians_and_vanishes_at_the_end():
    x = torch.tensor([[[0.3, -1.2], [2.0, 0.1]]], dtype=torch.float64)
    rough = Schedule(torch.tensor([-5.0, 0.3], dtype=torch.float64))
    alpha, sigma = rough.alpha(1), rough.sigma(1)
    q = torch.distributions.Normal(alpha * x, sigma)
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(x), torch.ones_like(x))).sum()
    assert float(prior_kl(x, 4, rough)) == pytest.approx(float(expected), rel=1e-9)
    assert 0 <= float(prior_kl(x, 4, polynomial(T))) < 1e-4


def bound_of_an_exact_denoiser(steps, x, variance):
    """The likelihood bound of the value x in nats, mean over the noise, where the denoiser knows that the law of x is N(0, variance)."""
    schedule = polynomial(steps)
    t = torch.arange(steps + 1)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    gain = sigma / (alpha**2 * variance + sigma**2)  # E[noise | z] = gain z
    error = (gain * alpha * x) ** 2 + (gain * sigma - 1) ** 2
    bound = 0.5 * (schedule.bound_weight(t[1:], t[:-1]) * error[1:]).sum()
    bound += 0.5 * (error[0] + schedule.gamma[0] + math.log(2 * math.pi))
    return float(bound + prior_kl(torch.tensor([[x]]), 1, schedule)[0])


def test_the_bound_of_an_exact_denoiser_tends_to_its_likelihood():
    exact_nll = 0.5 * (0.4**2 / 0.25 + math.log(2 * math.pi * 0.25))
    once, twice = (bound_of_an_exact_denoiser(steps, 0.4, 0.25) for steps in (16_000, 32_000))
    assert exact_nll < twice < once
    assert 2 * twice - once == pytest.approx(exact_nll, abs=1e-3)  # the gap is of first order in 1/T


# ------------------------------------------------------------------------------------------------------- noise levels


def test_the_linear_schedule_is_the_published_one():
    schedule = linear(T)
    kept, levels = Decimal(1), [Decimal(1)]
    for t in range(T):
        kept *= 1 - (Decimal("0.0001") + (Decimal("0.02") - Decimal("0.0001")) * t / (T - 1))
        levels.append(kept)
    assert float(schedule.sigma(0)) == 0
    for t in (1, 2, 10, 500, T):  # to the last digits, where 1 - alpha^2 is small too
        assert float(schedule.gamma[t]) == pytest.approx(float(((1 - levels[t]) / levels[t]).ln()), rel=1e-12)
    assert float(schedule.alpha(T)) ** 2 == pytest.approx(4.04e-5, rel=2e-3)


def test_a_linear_schedule_of_fewer_steps_ends_with_about_as_little_signal_and_too_few_are_refused():
    assert 0.3 < float(linear(100).alpha(100) / linear(T).alpha(T)) < 1
    assert linear(21).gamma.isfinite()[1:].all()
    with pytest.raises(ValueError, match="at least 21, or respaced"):
        linear(20)


def test_karras_levels_are_the_published_ones():
    schedule = karras(18)
    added = (0.5 * schedule.gamma).exp().flip(0)  # in the order of the paper, noise first
    assert float(added[-1]) == 0
    for i in range(18):
        expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(added[i]) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ValueError, match="two or more"):
        karras(1)


@pytest.mark.parametrize("schedule", [linear(T), cosine(T), polynomial(T), karras(T), linear(T).respaced(10), karras(2)])
def test_signal_to_noise_falls_at_every_step_and_variance_is_kept(schedule):
    t = torch.arange(schedule.steps + 1)
    snr = (schedule.alpha(t) / schedule.sigma(t)).square()
    assert (snr.diff() < 0).all()
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(len(t), dtype=torch.float64), rtol=1e-14)
    assert float(snr[-1]) < 2e-4


def test_the_nearest_levels_are_found_by_noise_and_none_twice():
    schedule = linear(T)
    assert torch.equal(schedule.nearest(schedule.respaced(10)), schedule.chosen(10))
    wanted, found = karras(40), schedule.nearest(karras(40))
    assert found[0] == 0  # the noiseless one
    assert (found.diff() > 0).all()
    for gamma in wanted.gamma[1:]:
        assert int((schedule.gamma - gamma).abs().argmin()) in found
    assert polynomial(50).nearest(wanted)[0] == 0


# ---------------------------------------------------------------------------------------------------------- ways back

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
FACTOR = torch.tensor([[1.0, 0, 0], [0.6, 0.5, 0], [-0.3, 0.2, 0.8]], dtype=torch.float64)
COVARIANCE = FACTOR @ FACTOR.T


def start(schedule, mean, covariance):
    """The law of z at the last level: what a walk must start from to have no error but its own."""
    alpha, sigma = schedule.alpha(schedule.steps), schedule.sigma(schedule.steps)
    return alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=mean.dtype)


def pushed(law, move):
    """The law N(m, C) after an affine map of rows."""
    basis = torch.cat([torch.zeros(1, len(law[0])), torch.eye(len(law[0]))]).double()
    out = move(basis)
    matrix = (out[1:] - out[0]).T
    return matrix @ law[0] + out[0], matrix @ law[1] @ matrix.T


def walked_law(schedule, mean, covariance, step, levels=None):
    """Mean and covariance after steps `step(z, noise, fresh, t, s)` whose randomness is independent: exactly, step by step."""
    law = start(schedule, mean, covariance)
    tell = partial(exact, schedule=schedule, mean=mean, covariance=covariance)
    for pair in pairwise(levels or range(schedule.steps, -1, -1)):

        def still(z, noise, t, s):
            return step(z, noise, torch.zeros_like(z), t, s)

        m, c = pushed(law, lambda z, pair=pair: next(diffusion.walked(tell, z, pair, still)))
        t, s = (torch.full((len(mean),), level) for level in pair)
        zero, one = torch.zeros_like(c), torch.eye(len(mean), dtype=c.dtype)
        scatter = step(zero, zero, one, t, s)
        law = m, c + scatter @ scatter.T
    return law


def solved_law(schedule, mean, covariance, levels=None):
    """Mean and covariance after the second-order solver: its whole walk is one affine map."""
    tell = partial(exact, schedule=schedule, mean=mean, covariance=covariance)
    levels = levels or range(schedule.steps, -1, -1)
    return pushed(start(schedule, mean, covariance), lambda z: list(diffusion.solved(tell, z, levels, schedule))[-1])


def error(law, mean=MEAN, covariance=COVARIANCE):
    return max(float((law[0] - mean).abs().max()), float((law[1] - covariance).abs().max()))


@pytest.mark.parametrize("schedule", [linear(200), cosine(200), karras(60), polynomial(200)])
def test_ddim_at_eta_1_is_the_ancestral_step_between_any_levels(schedule):
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(1, schedule.steps + 1, (500,), generator=generator)
    s = (torch.rand(500, generator=generator) * t).long()  # below t, level 0 among them
    assert (s == 0).any()
    z, noise, fresh = (torch.randn(500, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    assert torch.allclose(
        ddim(z, noise, fresh, t, s, schedule, eta=1.0), ancestral(z, noise, fresh, t, s, schedule), rtol=1e-9, atol=1e-10
    )  # fmt: skip


def test_ddim_keeps_the_marginal_law_at_any_eta_where_the_data_are_known():
    """Song et al., lemma 1: from q(z_t | x) with the true noise to q(z_s | x)."""
    schedule, t, s = cosine(40), torch.tensor([33]), torch.tensor([12])
    x, one, zero = (torch.full((1, 1), value, dtype=torch.float64) for value in (1.7, 1.0, 0.0))
    for eta in (0.0, 0.3, 1.0):
        of = partial(ddim, t=t, s=s, schedule=schedule, eta=eta)
        mean = of(noised(x, zero, t, schedule), zero, zero)
        by_noise = of(noised(x, one, t, schedule), one, zero) - mean
        scatter = of(zero, zero, one)
        assert torch.allclose(mean, schedule.alpha(s) * x)
        assert torch.allclose(by_noise**2 + scatter**2, schedule.sigma(s) ** 2)
        assert torch.allclose(scatter, eta * ancestral(zero, zero, one, t, s, schedule))


def test_ddim_refuses_an_eta_outside_its_range_and_randomness_without_noise():
    z, t = torch.zeros(1, 1), torch.tensor([3])
    with pytest.raises(ValueError, match=r"eta = 1.5"):
        ddim(z, z, z, t, t - 1, cosine(5), eta=1.5)
    with pytest.raises(ValueError, match="takes fresh noise"):
        ddim(z, z, None, t, t - 1, cosine(5), eta=0.5)


def test_data_that_are_one_point_come_back_in_two_steps_of_any_kind():
    schedule, nothing = linear(T).respaced(2), 0 * COVARIANCE
    for eta in (0.0, 0.5, 1.0):
        assert error(walked_law(schedule, MEAN, nothing, partial(ddim, schedule=schedule, eta=eta)), covariance=nothing) < 1e-12
    assert error(walked_law(schedule, MEAN, nothing, partial(ancestral, schedule=schedule)), covariance=nothing) < 1e-12
    assert error(solved_law(schedule, MEAN, nothing), covariance=nothing) < 1e-12


def test_data_of_unit_variance_come_back_in_three_steps_of_the_largest_variance():
    schedule, unit = linear(T).respaced(3), torch.eye(3, dtype=torch.float64)

    def step(z, noise, fresh, t, s):
        return ancestral(z, noise, fresh, t, s, schedule, variance=diffusion.variances(t, s, schedule)[1])

    assert error(walked_law(schedule, MEAN, unit, step), covariance=unit) < 1e-12


def best_variance(schedule, t, s, variance):
    """Var(z_s | z_t) by Bayes' rule where each number of x is normal with its own variance."""
    kept = (schedule.alpha(t) / schedule.alpha(s))[:, None]
    given = schedule.sigma(t)[:, None] ** 2 - kept**2 * schedule.sigma(s)[:, None] ** 2
    before = schedule.alpha(s)[:, None] ** 2 * variance + schedule.sigma(s)[:, None] ** 2
    return 1 / (1 / before + kept**2 / given)


def test_any_gaussian_comes_back_in_three_steps_of_its_own_variance():
    schedule, variance = cosine(3), torch.tensor([0.04, 0.5, 3.0], dtype=torch.float64)

    def step(z, noise, fresh, t, s):
        return ancestral(z, noise, fresh, t, s, schedule, variance=best_variance(schedule, t, s, variance))

    assert error(walked_law(schedule, MEAN, variance.diag(), step), covariance=variance.diag()) < 1e-9
    t, s = torch.tensor([3, 2]), torch.tensor([2, 1])
    least, largest = diffusion.variances(t, s, schedule)
    assert torch.allclose(best_variance(schedule, t, s, torch.tensor([0.0, 1.0])), torch.stack([least, largest], 1))


def test_ddim_without_randomness_shrinks_unit_variance_by_the_cosine_of_every_step():
    """With unit variance the noise told is sigma z, so that a step between angles multiplies z by the cosine of their difference."""
    schedule = cosine(25)
    angle = torch.atan2(schedule.sigma(torch.arange(26)), schedule.alpha(torch.arange(26)))
    unit = torch.eye(3, dtype=torch.float64)
    _, covariance = walked_law(schedule, 0 * MEAN, unit, partial(ddim, schedule=schedule, eta=0.0))
    assert torch.allclose(covariance, unit * angle.diff().cos().prod() ** 2, rtol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("make", "steps"), [(cosine, 200), (linear, 300)])
def test_steps_of_first_order_tend_to_the_gaussian(make, steps, eta):
    """Twice the steps leave half the error, and without that half less than 1e-3 is left."""
    coarse, fine = (walked_law(make(n), MEAN, COVARIANCE, partial(ddim, schedule=make(n), eta=eta)) for n in (steps, 2 * steps))
    assert error(coarse) == pytest.approx(2 * error(fine), rel=0.1)
    assert error([2 * b - a for a, b in zip(coarse, fine, strict=True)]) < 1e-3
    assert error(fine) > 5e-3  # which is why there is a solver of second order


def test_the_solver_of_second_order_gives_back_the_gaussian():
    errors = [error(solved_law(karras(n), MEAN, COVARIANCE)) for n in (40, 80, 160)]
    assert errors[2] < 1e-3
    for coarse, fine in pairwise(errors):
        assert coarse == pytest.approx(4 * fine, rel=0.1)
    assert error(solved_law(cosine(110), MEAN, COVARIANCE)) < 1e-3


def test_the_solver_walks_a_trained_schedule_along_karras_levels():
    schedule = linear(T)
    levels = schedule.nearest(karras(40, least=0.01)).tolist()[::-1]
    of_second = error(solved_law(schedule, MEAN, COVARIANCE, levels))
    of_first = error(walked_law(schedule, MEAN, COVARIANCE, partial(ddim, schedule=schedule, eta=0.0), levels))
    assert of_second < 0.02 < 0.08 < of_first


def test_the_solver_is_more_exact_than_heuns_method_at_as_many_predictions():
    def heun(schedule):
        """dy / d(sigma / alpha) = noise for y = z / alpha (Karras et al., algorithm 1); the last step is Euler's."""
        added = (0.5 * schedule.gamma).exp()

        def slope(y, k):
            return exact(y / (1 + added[k] ** 2).sqrt(), torch.full((len(y),), k), schedule, MEAN, COVARIANCE)

        def walk(z):
            y = z * (1 + added[-1] ** 2).sqrt()
            for t in range(schedule.steps, 0, -1):
                first, stride = slope(y, t), added[t - 1] - added[t]
                y = y + stride * (first if t == 1 else (first + slope(y + stride * first, t - 1)) / 2)
            return y

        return pushed(start(schedule, MEAN, COVARIANCE), walk)

    assert error(solved_law(karras(41), MEAN, COVARIANCE)) < 0.3 * error(heun(karras(21)))  # 41 predictions each


def test_the_solver_takes_data_from_the_middle_of_the_step_in_the_log_of_signal_to_noise():
    """By hand, where the network says data that are a line in lambda = -gamma / 2, which is carried on from two places exactly."""
    schedule = Schedule(torch.tensor([-2.0, 0.5, 1.0, 4.0], dtype=torch.float64))
    slope, offset = 0.7, -0.3

    def tell(z, t):
        x = (offset + slope * -schedule.gamma[t] / 2)[:, None].expand_as(z)
        return diffusion.noise_of(z, x, t, schedule)

    given = torch.tensor([[0.4]], dtype=torch.float64)
    states = [given, *diffusion.solved(tell, given, [3, 2, 1, 0], schedule)]
    for t, s in ((3, 2), (2, 1), (1, 0)):
        low, high = -float(schedule.gamma[t]) / 2, -float(schedule.gamma[s]) / 2
        data = offset + slope * (low if t == 3 else (low + high) / 2)
        # z_s / sigma_s = z_t / sigma_t + the integral of exp(lambda) x
        expected = schedule.sigma(s) * (states[3 - t] / schedule.sigma(t) + data * (math.exp(high) - math.exp(low)))
        assert torch.allclose(states[3 - s], expected, rtol=1e-12)


def test_levels_are_exact_in_double_precision_and_states_keep_their_own():
    schedule, t, s = karras(30), torch.tensor([30, 12]), torch.tensor([29, 0])
    z, noise, fresh = (torch.randn(2, 2, 3, 3, dtype=torch.float64) for _ in range(3))
    for step in (ancestral, partial(ddim, eta=0.4)):
        double = step(z, noise, fresh, t, s, schedule)
        single = step(z.float(), noise.float(), fresh.float(), t, s, schedule)
        assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
        assert double.shape == z.shape
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-5)
    close = torch.tensor([0.3, 0.3 + 1e-12], dtype=torch.float64)
    least, largest = diffusion.variances(torch.tensor([1]), torch.tensor([0]), Schedule(close))
    kept = float(torch.sigmoid(close[0]))  # d log alpha^2 / d gamma = -sigma^2
    assert float(largest) == pytest.approx(kept * float(close[1] - close[0]), rel=1e-3)
    assert float(least) == pytest.approx(float(largest), rel=1e-9)


# -------------------------------------------------------------------------------------------------- the likelihood bound

# Three values and weights that give the mean of any cubic in standard normal noise exactly (Gauss and Hermite).
NODES = torch.tensor([-math.sqrt(3), 0.0, math.sqrt(3)], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)


def normal_nll(x, mean, variance):
    return float(0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance)))


def test_the_bound_of_a_standard_normal_is_its_likelihood_at_any_number_of_steps():
    for steps in (1, 4, 1000):
        schedule = linear(T).respaced(steps) if steps > 1 else Schedule(torch.tensor([-3.0, 2.0], dtype=torch.float64))
        last = int(schedule.sigma(0) == 0)
        x = torch.tensor([[0.4, -1.3], [2.0, 0.0]], dtype=torch.float64)
        rows = x.expand(3, 2, 2)
        noise = NODES[:, None, None].expand(3, 2, 2)

        def tell(z, t, schedule=schedule):
            return schedule.sigma(t)[:, None, None] * z

        terms = diffusion.bound_terms(tell, rows, lambda noise=noise: noise, range(schedule.steps, last - 1, -1), schedule, wide=True)
        assert terms.shape == (schedule.steps - last + 2, 3)
        expected = sum(normal_nll(value, 0, 1) for value in x.flatten())
        assert float((terms.sum(0) * WEIGHTS).sum()) == pytest.approx(expected, rel=1e-9)
        assert (terms @ WEIGHTS >= -1e-12)[:-1].all()  # each but the last is a divergence


def test_the_bound_of_any_gaussian_is_its_likelihood_under_its_own_variance():
    """-log p(x) = KL at the end + KL of every step + surprise: with nothing lost, as the model's chain is the true one reversed."""
    schedule, mean, variance, x = cosine(6), 0.7, 0.3, 1.9
    rows, noise = torch.full((3, 1), x, dtype=torch.float64), NODES[:, None]
    alpha, sigma = schedule.alpha(6), schedule.sigma(6)
    end = torch.distributions.Normal(alpha * mean, (alpha**2 * variance + sigma**2).sqrt())
    total = torch.distributions.kl_divergence(torch.distributions.Normal(alpha * x, sigma), end)
    for level in range(6, 0, -1):
        t = torch.full((3,), level)
        z = noised(rows, noise, t, schedule)
        told = exact(z, t, schedule, torch.tensor([mean], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64))
        if level == 1:
            ratio = (schedule.gamma[1]).exp()
            term = diffusion.surprise(z, rows, told, t, schedule, variance=(1 / (1 / variance + 1 / ratio)).expand(3))
        else:
            own = best_variance(schedule, t, t - 1, torch.tensor([variance], dtype=torch.float64))
            term = diffusion.step_kl(noise, told, t, t - 1, schedule, variance=own)
        total = total + (term * WEIGHTS).sum()
    assert float(total) == pytest.approx(normal_nll(x, mean, variance), rel=1e-9)


def test_the_bound_with_the_least_variance_is_the_weighted_error_of_the_noise():
    """Against the sum written out by hand; it lies above the likelihood."""
    schedule = polynomial(50)
    rows = torch.full((3, 1), 0.4, dtype=torch.float64)
    mean, covariance = torch.zeros(1, dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64)
    tell = partial(exact, schedule=schedule, mean=mean, covariance=covariance)
    terms = diffusion.bound_terms(tell, rows, lambda: NODES[:, None], range(50, -1, -1), schedule)
    found = float((terms.sum(0) * WEIGHTS).sum())
    assert found == pytest.approx(bound_of_an_exact_denoiser(50, 0.4, 0.25), rel=1e-10)
    assert found > normal_nll(0.4, 0, 0.25)


def test_the_term_of_a_step_is_the_divergence_of_two_ancestral_steps():
    schedule, t, s = linear(50), torch.tensor([40, 9]), torch.tensor([30, 8])
    x, noise, off = (torch.randn(2, 4, dtype=torch.float64) for _ in range(3))
    z, predicted = noised(x, noise, t, schedule), noise + 0.1 * off
    least, largest = diffusion.variances(t, s, schedule)
    for variance in (None, largest, least * 0.7, largest[:, None] * torch.rand(2, 4, dtype=torch.float64)):
        own = (least if variance is None else variance).view(2, -1).sqrt()
        q = torch.distributions.Normal(ancestral(z, noise, 0 * z, t, s, schedule), least[:, None].sqrt())
        p = torch.distributions.Normal(ancestral(z, predicted, 0 * z, t, s, schedule), own)
        expected = torch.distributions.kl_divergence(q, p).sum(1)
        assert torch.allclose(diffusion.step_kl(noise, predicted, t, s, schedule, variance=variance), expected, rtol=1e-8)
    assert diffusion.step_kl(noise, predicted, t, 0 * s, schedule).isinf().all()


def test_the_bound_of_continuous_data_refuses_to_end_without_noise():
    with pytest.raises(ValueError, match=r"level 0 has no noise.*such as 1"):
        diffusion.bound_terms(lambda z, t: z, torch.zeros(1, 1), lambda: torch.zeros(1, 1), [5, 0], cosine(5))


def test_a_grid_of_values_has_probability_one_and_the_density_where_it_is_fine():
    grid, values = diffusion.EIGHT_BITS, torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    for mean, deviation in ((0.1, 0.3), (-0.97, 0.05), (0.5, 0.002), (3.0, 1.0)):
        nats = diffusion.binned_surprise(values, torch.full_like(values, mean), torch.tensor(deviation), grid)
        assert float((-nats).exp().sum()) == pytest.approx(1, rel=1e-12)
    fine = diffusion.Grid(-1, 1, 1e-4)
    found = diffusion.binned_surprise(values[128:129], torch.tensor([[0.1]]), torch.tensor([0.3]), fine)
    assert float(found) == pytest.approx(normal_nll(float(values[128]), 0.1, 0.09) - math.log(1e-4), abs=1e-6)
    far = diffusion.binned_surprise(values[[1, 254]], torch.zeros(2, 1), torch.tensor(0.005, dtype=torch.float64), grid)
    assert float(far[0]) == pytest.approx(float(far[1]), rel=1e-9)  # 198 deviations away
    edge = (values[254] - 1 / 255) / 0.005  # the mass beyond the bin is nothing beside what is in it; Mills' ratio
    mills = edge**2 / 2 + 0.5 * math.log(2 * math.pi) + edge.log() + 1 / edge**2
    assert float(far[1]) == pytest.approx(float(mills), rel=1e-8)


def test_the_bound_on_a_fine_grid_is_the_density_times_its_width():
    schedule, x = linear(T).respaced(5), torch.tensor([[0.2, -0.4, 0.31]], dtype=torch.float64)
    noise = torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def terms(wide, grid):
        return diffusion.bound_terms(lambda z, t: 0.9 * z, x, lambda: noise, range(5, 0, -1), schedule, wide=wide, grid=grid)[:, 0]

    for wide in (False, True):
        dense, binned = terms(wide, None), terms(wide, diffusion.Grid(-1, 1, 1e-4))
        assert torch.equal(dense[:-1], binned[:-1])
        assert float(binned[-1]) == pytest.approx(float(dense[-1]) - 3 * math.log(1e-4), abs=1e-4)


def test_bits_are_nats_per_number_over_log_2():
    even = torch.full((2,), 12 * math.log(256), dtype=torch.float64)  # 12 pixels of 8 bits, all values alike
    assert diffusion.bits(even, 12).tolist() == pytest.approx([8.0, 8.0])


def test_even_levels_are_even_in_the_logarithm_and_walks_go_down_along_them():
    schedule, levels = diffusion.even(500, 12, least=0.02, largest=30.0)
    assert float((schedule.gamma[1] / 2).exp()) == pytest.approx(0.02)
    assert float((schedule.gamma[-1] / 2).exp()) == pytest.approx(30.0)
    step = schedule.gamma[1:].diff()
    assert float(step.min() / step.max()) > 0.9
    assert levels == sorted(levels, reverse=True)
    assert (levels[0], levels[-2], levels[-1], len(levels)) == (500, 1, 0, 13)
