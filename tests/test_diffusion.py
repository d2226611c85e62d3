"""Diffusion: published noise levels, and laws that an exact denoiser must give back."""

import math
from itertools import pairwise

import pytest
import torch

from simulacra.families import diffusion
from simulacra.families.diffusion import Schedule, ancestral, centred, cosine, noised, polynomial, prior_kl

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
