"""Flow matching: paths that end where they should, with classes and with points."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulacra.families import flow


def cloud(rows, points, seed=0):
    x = torch.randn(rows, points, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x - x.mean(1, keepdim=True)


def times(steps, bend=1.0):
    """0 = t_0 < ... < t_steps = 1, denser near 1 the larger `bend`."""
    return (1 - (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** bend).tolist()


def rotation(seed):
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return q if torch.linalg.det(q) > 0 else -q


def test_a_rotated_cloud_is_turned_back_exactly():
    x, turn = cloud(4, 6), rotation(1)
    found = flow.rotation_onto(x, x @ turn.T)
    assert torch.allclose(found, turn.expand(4, 3, 3), atol=1e-12)


def test_a_mirrored_cloud_is_matched_by_a_reflection_but_never_by_a_rotation():
    x = cloud(3, 7)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(x @ flow.rotation_onto(x, mirrored, reflections=True).mT, mirrored, atol=1e-12)
    proper = flow.rotation_onto(x, mirrored)
    assert torch.allclose(torch.linalg.det(proper), torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(x @ proper.mT, mirrored, atol=0.1)


def test_aligned_noise_that_is_a_shuffled_slightly_turned_copy_comes_back_as_the_data():
    x = cloud(5, 8)
    small = torch.linalg.matrix_exp(torch.tensor([[0, 0.05, 0], [-0.05, 0, 0.02], [0, -0.02, 0]], dtype=torch.float64))
    noise = (x @ small.T)[:, torch.randperm(8, generator=torch.Generator().manual_seed(3))]
    assert torch.allclose(flow.aligned(noise, x, torch.ones(5, 8, dtype=torch.bool)), x, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), st.integers(0, 10_000))
def test_aligning_keeps_the_noise_a_rotated_permutation_and_never_lengthens_the_way(points, seed):
    data, noise = cloud(3, points, seed), cloud(3, points, seed + 1)
    after = flow.aligned(noise, data, torch.ones(3, points, dtype=torch.bool))
    assert torch.allclose(torch.cdist(after, after).flatten(1).sort(1)[0], torch.cdist(noise, noise).flatten(1).sort(1)[0], atol=1e-9)
    assert ((after - data).square().sum((1, 2)) <= (noise - data).square().sum((1, 2)) + 1e-9).all()


def test_padding_keeps_its_place_when_noise_is_aligned():
    data, noise = cloud(1, 4), cloud(1, 4, 1)
    wide = [torch.cat([x, torch.zeros(1, 2, 3, dtype=torch.float64)], 1) for x in (noise, data)]
    mask = torch.tensor([[True] * 4 + [False] * 2])
    after = flow.aligned(*wide, mask)
    assert torch.allclose(after[:, :4], flow.aligned(noise, data, mask[:, :4]), atol=1e-12)
    assert (after[:, 4:] == 0).all()


@pytest.mark.parametrize("steps", [200, 400])
def test_an_exact_denoiser_gives_back_its_gaussian(steps):
    """For data N(m, s^2) and standard normal noise, E[x_1 | x_t] is linear; the path must end at mean m and deviation s."""
    m, s, t_now = 1.5, 0.3, times(steps, bend=1.5)
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t, later in pairwise(t_now):
        variance = t**2 * s**2 + (1 - t) ** 2
        guess = m + t * s**2 / variance * (x - t * m)
        x = flow.towards(x, guess, t, later)
    assert x.mean().item() == pytest.approx(m, abs=0.005)
    assert x.std().item() == pytest.approx(s, rel=6 / steps)


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_unmasking_by_an_exact_guess_gives_the_law_of_the_classes_in_any_number_of_steps(steps):
    law = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rng = torch.Generator().manual_seed(steps)
    classes = torch.full((200_000,), 4)
    at = times(steps)
    for t, later in pairwise(at):
        chance = (later - t) / (1 - t)
        u, v = torch.rand(2, 200_000, generator=rng)
        classes = flow.unmasked(classes, law.log().expand(200_000, 4), chance, u, v, 4)
    share = torch.bincount(classes, minlength=5) / 200_000
    assert share[4] == 0
    assert torch.allclose(share[:4], law, atol=4 * math.sqrt(0.25 / 200_000))


def test_a_shown_class_is_never_drawn_again():
    classes = torch.tensor([0, 1, 2])
    logits = torch.zeros(3, 3)
    assert flow.unmasked(classes, logits, 1.0, torch.zeros(3), torch.rand(3), 3).equal(classes)


def test_masking_hides_one_minus_t_of_the_entries():
    classes = torch.zeros(4, 50_000, dtype=torch.int64)
    t = torch.tensor([0.0, 0.25, 0.9, 1.0])
    hidden = flow.masked(classes, t, torch.rand(4, 50_000, generator=torch.Generator().manual_seed(0)), 7) == 7
    assert torch.allclose(hidden.float().mean(1), 1 - t, atol=0.01)


def test_the_weight_of_an_error_is_that_of_the_velocity_up_to_its_cap():
    assert torch.allclose(flow.point_weight(torch.tensor([0.0, 0.5, 0.8, 0.95, 1.0])), torch.tensor([1.0, 4.0, 25.0, 100.0, 100.0]))
