"""Masked autoencoders: patches, the exact fill-in of Gaussian fields, and that networks see only what they may."""

import math

import pytest
import torch

from simulacra.descent import Descent
from simulacra.families.masking import (
    Filling,
    Linear,
    MaskedAutoencoder,
    Smooth,
    bending,
    conditional_mean,
    from_patches,
    hidden_error,
    hide_patches,
    in_patches,
    over_pixels,
)
from simulacra.nets.attention import Transformer, grid_positions

SIDE, PATCH = 16, 4


def power_law(side, slope=3.0):
    """Covariance (pixels, pixels) of a periodic field with power k^-slope and variance 1, and its spectrum."""
    k = torch.fft.fftfreq(side, dtype=torch.float64) * side
    k = torch.hypot(k[:, None], k)
    power = torch.where(k > 0, k.clamp(min=1) ** -slope, 0.0)
    power = power / power.mean()
    along = torch.fft.ifft2(power).real
    row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
    return along[(row[:, None] - row) % side, (column[:, None] - column) % side] + 1e-6 * torch.eye(side**2), power


def fields(power, n, generator):
    side = len(power)
    white = torch.randn(n, side, side, generator=generator, dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(white) * power.sqrt()).real[:, None].float()


def masks(n, generator, share=0.75):
    return over_pixels(hide_patches(torch.rand(n, (SIDE // PATCH) ** 2, generator=generator), share), PATCH)


def network(channels=1, width=32, depth=2, start=None, patch=PATCH, side=SIDE):
    torch.manual_seed(0)
    at = grid_positions(side // patch, side // patch, width)
    centre = start.centre if start else torch.zeros(channels, side, side)
    encoder, decoder = Transformer(width, depth, 4), Transformer(width, depth, 4)
    return MaskedAutoencoder(encoder, decoder, (at, at), patch=patch, centre=centre, contrast=torch.tensor(1.0), start=start)


def a_start(d=12):
    generator = torch.Generator().manual_seed(4)
    loadings = torch.randn(2, SIDE, SIDE, d, generator=generator) / math.sqrt(d)
    return Linear(torch.randn(2, SIDE, SIDE, generator=generator), loadings, torch.tensor(0.3))


def test_patches_are_squares_of_the_image_and_go_back_where_they_came_from():
    images = torch.rand(3, 2, SIDE, SIDE)
    patches = in_patches(images, PATCH)
    assert patches.shape == (3, 16, 2 * PATCH**2)
    assert torch.equal(patches[1, 6].view(2, PATCH, PATCH), images[1, :, 4:8, 8:12])
    assert torch.equal(from_patches(patches, 2, PATCH), images)


def test_hidden_patches_are_so_many_in_every_row_and_all_equally_often():
    hidden = hide_patches(torch.rand(4000, 16, generator=torch.Generator().manual_seed(1)), 0.75)
    assert (hidden.sum(dim=1) == 12).all()
    assert (hidden.float().mean(dim=0) - 0.75).abs().max() < 5 * math.sqrt(0.75 * 0.25 / 4000)
    pixels = over_pixels(hidden, PATCH)
    assert torch.equal(in_patches(pixels[:, None].float(), PATCH).mean(dim=2), hidden.float())


def test_the_error_counts_hidden_pixels_only():
    images = torch.zeros(2, 3, SIDE, SIDE)
    hidden = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    hidden[0, 0, :4] = True
    filled = images + 5.0
    filled[0, :, 0, :4] = torch.tensor([1.0, 2.0, 3.0])[:, None]
    assert hidden_error(filled, images, hidden).tolist() == pytest.approx([14 / 3, 0.0])


def test_positions_of_different_patches_differ_and_their_products_depend_on_the_step_between_them():
    at = grid_positions(5, 7, 32)
    assert (torch.cdist(at, at) + 10 * torch.eye(35)).min() > 0.1
    product = (at @ at.T).view(5, 7, 5, 7)
    assert torch.allclose(product[0, 0, 2, 3], product[1, 2, 3, 5], atol=1e-5)


def test_a_token_that_may_not_be_attended_to_changes_no_other():
    torch.manual_seed(0)
    net, x = Transformer(16, 2, 4), torch.randn(2, 9, 16)
    seen = torch.ones(2, 9, dtype=torch.bool)
    seen[:, 4] = False
    other = x.clone()
    other[:, 4] = 7.0
    rest = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.allclose(net(x, seen)[:, rest], net(other, seen)[:, rest], atol=1e-6)
    assert torch.allclose(net(x, seen)[:, rest], net(x[:, rest], None), atol=1e-5)


# ----------------------------------------------------------------------------------------------------- Gaussian fields


def test_wieners_error_on_gaussian_fields_is_the_trace_of_the_conditional_covariance():
    covariance, power = power_law(SIDE)
    generator = torch.Generator().manual_seed(2)
    hidden = masks(1, generator)
    images = fields(power, 400, generator)
    errors = hidden_error(conditional_mean(covariance, images, hidden.expand(400, -1, -1)), images, hidden)
    mask = hidden.flatten()
    across = covariance[mask][:, ~mask]
    left = covariance[mask][:, mask] - across @ torch.linalg.solve(covariance[~mask][:, ~mask], across.T)
    exact = float(left.trace() / mask.sum())
    assert float(errors.mean()) == pytest.approx(exact, abs=4 * float(errors.std()) / 20)
    assert exact < 0.5  # a good deal of the variance, 1, is foretold


def test_nothing_can_be_foretold_of_white_noise():
    images = torch.randn(2, 1, SIDE, SIDE)
    hidden = masks(2, torch.Generator().manual_seed(0))
    filled = conditional_mean(torch.eye(SIDE**2), images, hidden)
    assert torch.equal(filled, torch.where(hidden[:, None], 0.0, images))


def test_one_of_two_numbers_is_foretold_by_its_correlation_with_the_other():
    covariance = torch.tensor([[4.0, 1.2, 0, 0], [1.2, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    images, hidden = torch.tensor([3.0, 2.0, 5.0, 6.0]).view(1, 1, 2, 2), torch.tensor([True, False, False, False]).view(1, 2, 2)
    assert conditional_mean(covariance, images, hidden).flatten().tolist() == pytest.approx([2.4, 2, 5, 6])


def test_the_linear_start_is_the_conditional_mean_of_its_own_gaussian_law():
    start = a_start()
    generator = torch.Generator().manual_seed(5)
    flat = start.loadings.flatten(0, 2).double()
    covariance = flat @ flat.T + start.noise.double() * torch.eye(len(flat))
    images, hidden = torch.randn(3, 2, SIDE, SIDE, generator=generator), masks(3, generator)
    exact = conditional_mean(covariance, (images - start.centre).double(), hidden) + start.centre
    found = torch.where(hidden[:, None], start(images, hidden), images)
    assert torch.allclose(found, exact.float(), atol=2e-4)


def test_the_smooth_start_is_the_conditional_mean_of_its_own_markov_field():
    k2 = 0.1
    rule = Smooth(torch.full((2, SIDE, SIDE), 0.5), k2=k2, rounds=200)
    precision = bending(torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE), k2).flatten(1)
    covariance = torch.linalg.inv(precision @ precision)
    generator = torch.Generator().manual_seed(5)
    images, hidden = torch.randn(3, 2, SIDE, SIDE, generator=generator), masks(3, generator)
    hidden[0] = False
    hidden[0, 3:7, 5] = True
    exact = [conditional_mean(covariance, images[:, c : c + 1].double() - 0.5, hidden) + 0.5 for c in range(2)]
    assert torch.allclose(rule(images, hidden), torch.cat(exact, dim=1).float(), atol=1e-3)


def test_few_rounds_of_the_smooth_start_carry_a_slope_on_and_an_empty_image_gives_the_centre():
    rule = Smooth(torch.zeros(1, 32, 32), k2=1e-3, rounds=10)
    slope = torch.arange(32.0).expand(1, 1, 32, 32)
    hidden = torch.zeros(1, 32, 32, dtype=torch.bool)
    hidden[:, 10:15, 10:15] = True
    assert (rule(slope, hidden) - slope).abs().max() < 0.15
    centred = Smooth(torch.full((1, 32, 32), 3.0), k2=0.02, rounds=10)
    assert torch.equal(centred(slope, torch.ones_like(hidden)), centred.centre[None])


# ------------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("start", [None, a_start()], ids=["alone", "with a start"])
def test_visible_pixels_stay_and_hidden_ones_are_not_looked_at(start):
    net = network(2, start=start).eval()
    generator = torch.Generator().manual_seed(6)
    images, hidden = torch.randn(4, 2, SIDE, SIDE, generator=generator), masks(4, generator)
    hidden[0, 3:6] = True  # patches cut in part
    torch.nn.init.normal_(net.paint.weight, std=0.1)
    filled = net(images, hidden)
    assert torch.equal(filled[~hidden[:, None].expand_as(filled)], images[~hidden[:, None].expand_as(filled)])
    assert torch.equal(filled, net(torch.where(hidden[:, None], math.nan, images), hidden))
    assert (filled - images)[hidden[:, None].expand_as(filled)].abs().max() > 0.1


def test_visible_pixels_are_looked_at_wherever_they_are():
    net = network().eval()
    images, hidden = torch.zeros(1, 1, SIDE, SIDE), masks(1, torch.Generator().manual_seed(1))
    hidden[0, 0, :] = True
    before = net(images, hidden)
    for row, column in (~hidden[0]).nonzero()[::17].tolist():
        other = images.clone()
        other[0, 0, row, column] = 3.0
        assert (net(other, hidden) - before)[0, 0][hidden[0]].abs().max() > 1e-5


def test_leaving_hidden_patches_out_of_the_encoder_changes_nothing():
    net = network(2, start=a_start())
    torch.nn.init.normal_(net.paint.weight, std=0.1)
    generator = torch.Generator().manual_seed(7)
    images, hidden = torch.randn(3, 2, SIDE, SIDE, generator=generator), masks(3, generator)
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    short, full = net.train()(images, hidden), net.eval()(images, hidden)
    assert seen == [4, 16]
    assert torch.allclose(short, full, atol=1e-5)


def test_with_a_start_the_untrained_network_is_that_start():
    start = a_start()
    images, hidden = torch.randn(3, 2, SIDE, SIDE), masks(3, torch.Generator().manual_seed(8))
    assert torch.equal(network(2, start=start)(images, hidden), torch.where(hidden[:, None], start(images, hidden), images))


def test_an_image_that_is_all_hidden_is_filled_with_numbers():
    hidden = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    for net in (network(), network().eval()):
        assert net(torch.full((2, 1, SIDE, SIDE), math.nan), hidden).isfinite().all()


def test_the_gradient_reaches_every_parameter():
    net = network(2, start=a_start())
    torch.nn.init.normal_(net.paint.weight, std=0.1)
    images, hidden = torch.randn(3, 2, SIDE, SIDE), masks(3, torch.Generator().manual_seed(9))
    hidden_error(net(images, hidden), images, hidden).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_patches_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ValueError, match="do not tile"):
        network(patch=5, side=16)


def test_a_short_training_comes_nearer_to_the_exact_fill_in_of_gaussian_fields_than_its_start_and_not_below():
    covariance, power = power_law(SIDE)
    generator = torch.Generator().manual_seed(3)
    images, hidden = fields(power, 256, generator), masks(256, generator)
    best = hidden_error(conditional_mean(covariance, images, hidden), images, hidden)
    variances, axes = torch.linalg.eigh(covariance)
    loadings = (axes[:, -12:] * variances[-12:].sqrt()).float().view(1, SIDE, SIDE, 12)
    start = Linear(torch.zeros(1, SIDE, SIDE), loadings, (variances[:-12].sum() / SIDE**2).float())
    net = network(start=start)
    filling = Filling(net, Descent(net, lr=3e-3, clip=1.0, ema=0.98, warmup=20, horizon=150))
    before = hidden_error(filling.fill(images, hidden), images, hidden)
    for _ in range(150):
        filling.step((fields(power, 48, generator), masks(48, generator)))
    found = hidden_error(filling.fill(images, hidden), images, hidden)
    assert float(found.mean()) < 1.25 * float(best.mean())
    assert float(found.mean()) < 0.95 * float(before.mean())
    extra = found - best
    assert float(extra.mean()) > -3 * float(extra.std()) / 16
