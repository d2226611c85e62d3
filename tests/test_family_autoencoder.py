"""Variational autoencoders against closed forms: KL, the exact bound of probabilistic PCA, mixtures, great circles."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from simulacra import movie
from simulacra.descent import Descent
from simulacra.families import autoencoder, mixture
from simulacra.families.autoencoder import VAE, Coder, PrincipalDecoder, PrincipalEncoder, latent_path, principal_axes, silent, slerp
from simulacra.nets import conv
from simulacra.nets.dense import dense
from simulacra.study import Refused

SCALES = torch.tensor([2.0, 1.2, 0.6])
NOISE = 0.3


def gaussian_things(n, count=10, seed=0):
    """x = centre + W z + noise with known W: (n, count) things and the covariance they come from."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(count, len(SCALES), generator=torch.Generator().manual_seed(99))).Q
    z = torch.randn(n, len(SCALES), generator=rng)
    x = 1.5 + (z * SCALES) @ axes.T + NOISE * torch.randn(n, count, generator=rng)
    return x, axes, (axes * SCALES.square()) @ axes.T + NOISE**2 * torch.eye(count)


def linear_coder(count, d):
    encoder, decoder = nn.Linear(count, 2 * d), nn.Linear(d, count)
    return Coder(encoder, decoder, sigma=1.0, learn_sigma=True)


def test_the_kl_divergence_is_that_of_torch_distributions():
    mean, log_variance = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(autoencoder.kl_to_standard_normal(mean, log_variance), expected, check_dtype=False)


def test_the_likelihood_is_that_of_torch_distributions():
    x, y, sigma = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.tensor(0.7)
    expected = Normal(y, sigma).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(autoencoder.gaussian_log_likelihood(x, y, sigma.log()), expected)


def test_sigma_squared_of_one_half_makes_the_bound_the_summed_squared_error_plus_kl():
    coder = Coder(nn.Linear(6, 4), nn.Linear(2, 6), sigma=math.sqrt(0.5))
    x, noise = torch.randn(5, 6), torch.randn(5, 2)
    log_likelihood, kl, error = coder(x, noise).T
    constant = -3 * math.log(math.pi)
    torch.testing.assert_close(log_likelihood, constant - 6 * error)
    torch.testing.assert_close(kl, autoencoder.kl_to_standard_normal(*coder.posterior(x)))


def test_a_linear_autoencoder_learns_the_principal_subspace_and_approaches_the_exact_likelihood():
    """Probabilistic PCA: the best linear coder has ELBO = log N(x; centre, W W^T + sigma^2) and spans the leading axes."""
    torch.manual_seed(0)
    x, axes, covariance = gaussian_things(4000)
    vae = VAE(Descent(linear_coder(10, 3), lr=0.02, horizon=1200))
    for _ in range(1200):
        rows = torch.randint(len(x), (128,))
        vae.step(x[rows], torch.randn(128, 3))
    learnt = torch.linalg.qr(vae.coder.decoder.weight.detach()).Q
    cosines = torch.linalg.svdvals(learnt.T @ axes)
    assert cosines.min() > 0.98
    assert float(vae.coder.log_sigma.detach().exp()) == pytest.approx(NOISE, rel=0.05)
    fresh, _, _ = gaussian_things(4000, seed=1)
    exact = MultivariateNormal(torch.full((10,), 1.5), covariance).log_prob(fresh).mean()
    bound = torch.stack([vae.elbo(fresh, torch.randn(4000, 3)) for _ in range(5)]).mean()
    # The axes of the decoder may turn against those of a diagonal q and cost a little; sigma and centre may not.
    assert float(exact) - 0.25 < float(bound) < float(exact) + 0.03


def test_the_bound_of_the_exact_posterior_is_the_log_likelihood():
    """Probabilistic PCA with W = U diag(w): q = N(W^T (x - centre) / (w^2 + s^2), s^2 / (w^2 + s^2)) makes the bound tight."""
    x, axes, covariance = gaussian_things(4)
    shrink = SCALES.square() + NOISE**2
    coder = linear_coder(10, 3).requires_grad_(False)
    coder.log_sigma.fill_(math.log(NOISE))
    coder.decoder.weight.copy_(axes * SCALES)
    coder.decoder.bias.fill_(1.5)
    coder.encoder.weight.copy_(torch.cat([(axes * SCALES / shrink).T, torch.zeros(3, 10)]))
    coder.encoder.bias.copy_(torch.cat([-1.5 * (axes * SCALES / shrink).sum(dim=0), (NOISE**2 / shrink).log()]))
    terms = coder(x.repeat(5000, 1), torch.randn(20_000, 3, generator=torch.Generator().manual_seed(5)))
    bound = (terms[:, 0] - terms[:, 1]).reshape(5000, 4).mean(dim=0)
    exact = MultivariateNormal(torch.full((10,), 1.5), covariance).log_prob(x)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.08)  # one draw scatters by sqrt(3/2) nats


def test_principal_axes_are_those_of_the_singular_value_decomposition():
    x, _, _ = gaussian_things(500)
    axes = principal_axes(x, 3)
    _, sizes, directions = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)
    torch.testing.assert_close(axes.scales, sizes[:3] / math.sqrt(500), rtol=1e-4, atol=0)
    torch.testing.assert_close((axes.directions.T @ directions[:3].T).abs(), torch.eye(3), rtol=0, atol=1e-3)
    assert axes.residual == pytest.approx(float(sizes[3:].square().sum()) / 500 / 10, rel=1e-3)
    with pytest.raises(ValueError, match="principal axes"):
        principal_axes(x, 11)


@pytest.mark.parametrize("pool", [1, 2])
def test_an_untrained_correction_leaves_the_principal_components_as_they_are(pool):
    rng = torch.Generator().manual_seed(3)
    smooth = torch.nn.functional.interpolate(torch.randn(60, 3, 2, 2, generator=rng), scale_factor=8, mode="bilinear", align_corners=False)
    axes = principal_axes(torch.nn.functional.avg_pool2d(smooth, pool).flatten(1), 12)
    shape = (3, 16 // pool, 16 // pool)
    encoder = PrincipalEncoder(axes, silent(conv.encoder(16, 3, [8, 8], 24)), shape=shape, pool=pool)
    decoder = PrincipalDecoder(axes, silent(conv.decoder(12, [8, 8], 3, 16, transposed=True)), shape=shape, pool=pool)
    vae = VAE(Descent(Coder(encoder, decoder, sigma=0.1), lr=1e-3))
    z = vae.encode(smooth)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.square().mean(dim=0), torch.ones(12), rtol=1e-3, atol=0)
    error = (vae.decode(z) - smooth).square().mean()
    assert error < (1e-9 if pool == 1 else 0.02)  # twelve axes hold all of it; shrinking and growing loses a little


def modules():
    yield "dense", Coder(dense([12, 9, 8]), dense([4, 9, 12]), sigma=0.5, learn_sigma=True), (12,)
    encoder, decoder = conv.encoder(16, 3, [8, 16], 8), conv.decoder(4, [16, 8], 3, 16)
    yield "convolutional", Coder(encoder, decoder, sigma=0.5, learn_sigma=True), (3, 16, 16)


@pytest.mark.parametrize(("name", "coder", "shape"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_the_gradient_reaches_every_parameter(name, coder, shape):
    terms = coder(torch.randn(5, *shape), torch.randn(5, 4)).mean(dim=0)
    (terms[1] - terms[0]).backward()
    silent_ones = [k for k, p in coder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent_ones


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_encoders_and_decoders_work_in_one_two_and_three_dimensions(dims, transposed):
    x = torch.randn(2, 2, *[8] * dims)
    z = conv.encoder(8, 2, [4, 8], 6, dims=dims, padding="circular")(x)
    assert z.shape == (2, 6)
    assert conv.decoder(6, [8, 4], 2, 8, dims=dims, transposed=transposed)(z).shape == x.shape
    with pytest.raises(ValueError, match="halved"):
        conv.encoder(12, 2, [4, 8, 8], 6, dims=dims)


def test_parts_of_a_batch_make_the_same_step_as_the_whole():
    states = []
    for at_once in (100, 3):
        torch.manual_seed(4)
        vae = VAE(Descent(Coder(dense([12, 9, 8]), dense([4, 9, 12]), sigma=0.5), lr=0.1), at_once=at_once)
        vae.step(torch.randn(10, 12), torch.randn(10, 4))
        states.append(vae.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)


def test_the_weight_of_the_kl_rises_to_beta():
    vae = VAE(Descent(linear_coder(4, 2), lr=0.01), beta=0.5, warm_up=4)
    weights = []
    for _ in range(6):
        weights.append(vae.weight())
        vae.step(torch.randn(8, 4), torch.randn(8, 2))
    assert weights == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_a_saved_autoencoder_is_the_loaded_one():
    torch.manual_seed(0)
    x = torch.randn(16, 10)
    first, second = (VAE(Descent(linear_coder(10, 3), lr=0.01, ema=0.9)) for _ in range(2))
    first.step(x, torch.randn(16, 3))
    second.load_state_dict(first.state_dict())
    noise = torch.randn(16, 3)
    for vae in (first, second):
        vae.step(x, noise)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    assert torch.equal(first.encode(x), second.encode(x))


# --------------------------------------------------------------------------------------------------------------- mixture


def known_mixture():
    means = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]])
    factors = torch.tensor([[[1.0, 0.0], [0.5, 0.7]], [[0.6, 0.0], [-0.3, 0.9]], [[1.2, 0.0], [0.0, 0.4]]])
    return mixture.Mixture(torch.tensor([0.5, 0.3, 0.2]).log(), means, factors)


def drawn_from(known, n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return known.draw(torch.rand(n, generator=rng), torch.randn(n, known.means.shape[1], generator=rng))


def test_expectation_maximisation_recovers_a_known_mixture():
    known = known_mixture()
    found = mixture.fit_mixture(drawn_from(known, 20_000), 3, seed=1, shrinkage=0.0)
    order = [int((found.means - mean).norm(dim=1).argmin()) for mean in known.means]
    assert sorted(order) == [0, 1, 2]
    torch.testing.assert_close(found.log_weights.exp()[order], known.log_weights.exp(), rtol=0, atol=0.015)
    torch.testing.assert_close(found.means[order], known.means, rtol=0, atol=0.06)
    torch.testing.assert_close(
        found.factors[order] @ found.factors[order].mT, known.factors @ known.factors.mT, rtol=0, atol=0.06
    )  # fmt: skip


def test_draws_of_a_mixture_have_its_moments():
    known = known_mixture()
    weights = known.log_weights.exp()
    mean = weights @ known.means
    second = known.factors @ known.factors.mT + known.means[:, :, None] * known.means[:, None, :]
    covariance = (weights[:, None, None] * second).sum(dim=0) - mean[:, None] * mean
    z = drawn_from(known, 40_000)
    torch.testing.assert_close(z.mean(dim=0), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(torch.cov(z.T), covariance, rtol=0.03, atol=0.1)


def test_the_density_of_a_mixture_is_that_of_torch_distributions():
    known = known_mixture()
    z = torch.randn(50, 2) * 3
    parts = [w + MultivariateNormal(m, scale_tril=f).log_prob(z) for w, m, f in zip(*known, strict=True)]
    torch.testing.assert_close(known.log_density(z), torch.logsumexp(torch.stack(parts), dim=0))


def test_a_blank_mixture_is_the_standard_normal():
    z = torch.randn(20, 4)
    torch.testing.assert_close(mixture.blank(3, 4).log_density(z), Normal(0.0, 1.0).log_prob(z).sum(dim=1))


def test_a_mixture_survives_points_that_are_all_the_same():
    found = mixture.fit_mixture(torch.ones(30, 2), 2, seed=0)
    assert all(bool(part.isfinite().all()) for part in found)


# ----------------------------------------------------------------------------------------------------------------- paths


def test_great_circles_start_and_end_exactly_and_keep_their_radius():
    a, b = torch.randn(32, dtype=torch.float64), torch.randn(32, dtype=torch.float64)
    b = b / b.norm() * a.norm()
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    path = slerp(a, b, t)
    torch.testing.assert_close(path[0], a, rtol=0, atol=1e-12)
    torch.testing.assert_close(path[-1], b, rtol=0, atol=1e-12)
    torch.testing.assert_close(path.norm(dim=1), a.norm().expand(9), rtol=1e-12, atol=0)
    steps = (path[1:] - path[:-1]).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8), rtol=1e-9, atol=0)


def test_between_points_of_other_lengths_the_length_goes_evenly():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(slerp(a, b, torch.tensor([0.0, 0.5, 1.0])).norm(dim=1), torch.tensor([3.0, 2.0, 1.0]))


@pytest.mark.parametrize("b", [[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1e-9]])
def test_great_circles_without_a_plane_of_their_own_stay_finite(b):
    path = slerp(torch.tensor([1.0, 0.0]), torch.tensor(b), torch.linspace(0, 1, 5))
    assert path.isfinite().all()
    torch.testing.assert_close(path[[0, -1]], torch.tensor([[1.0, 0.0], b]), rtol=0, atol=1e-6)


def test_a_latent_path_is_a_closed_loop_through_its_stops():
    stops = torch.randn(3, 8)
    path = latent_path(stops, 30)
    assert path.shape == (30, 8)
    torch.testing.assert_close(path[[0, 10, 20]], stops)
    around = (path - path.roll(1, dims=0)).norm(dim=1)
    assert around.max() < 3 * around.median()


# ---------------------------------------------------------------------------------------------------------------- movies


def frames(n=6, side=20):
    """A dot that walks along the diagonal."""
    pictures = np.zeros((n, side, side, 3), np.float32)
    for i in range(n):
        pictures[i, 2 * i : 2 * i + 4, 2 * i : 2 * i + 4] = [1.0, 0.5, 0.0]
    return pictures


def test_a_gif_holds_every_frame_and_loops(tmp_path):
    from PIL import Image

    movie.write_movie(frames(), tmp_path / "path.gif")
    with Image.open(tmp_path / "path.gif") as read:
        assert read.n_frames == 6
        assert read.info["loop"] == 0
        assert min(read.size) >= movie.SEEN
        for i in range(6):
            read.seek(i)
            small = np.asarray(read.convert("RGB").resize((20, 20), Image.Resampling.BOX), float) / 255
            assert np.abs(small - frames()[i]).mean() < 0.02


def test_an_mp4_is_written_for_frames_of_odd_size(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    movie.write_movie(frames(side=257), tmp_path / "path.mp4")
    assert (tmp_path / "path.mp4").read_bytes()[4:8] == b"ftyp"


def test_movies_that_cannot_be_written_are_refused_with_a_way_out(tmp_path, monkeypatch):
    import sys

    with pytest.raises(Refused, match=r"\.gif or \.mp4"):
        movie.write_movie(frames(), tmp_path / "path.avi")
    with pytest.raises(Refused, match="shape"):
        movie.write_movie(frames()[0], tmp_path / "path.gif")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(Refused, match=r"pip install.*movie"):
        movie.write_movie(frames(), tmp_path / "path.mp4")
