"""The class of an image as it is measured: discriminants on laws that are known, bars and arms on drawn discs, planted labels."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from simulacra.evidence import Statistic, weigh
from simulacra.sciences.galaxies import agreement
from simulacra.sciences.galaxies.agreement import by_class, disagreement, discriminants, harmonics, table, told_by_halves
from simulacra.sciences.galaxies.data import Images

SIDE = 65


def one_image(light: np.ndarray) -> Images:
    return Images(torch.from_numpy(np.rint(light).astype(np.uint8))[None, None], torch.full((1,), -1))


def circles(light: np.ndarray, radius: float = 8.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Amplitudes (circles, 4), turns (circles - 1,) and profile (circles - 1,) of one image."""
    row = harmonics(one_image(light), np.array([radius]))[0]
    count = len(agreement.RADII)
    return row[: 4 * count].reshape(count, 4), row[4 * count : 5 * count - 1], row[5 * count - 1 :]


def polar() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    return np.hypot(x, y), np.arctan2(y, x)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_a_wave_around_the_centre_has_half_its_contrast_as_amplitude_in_its_own_order(m):
    # 100 (1 + c cos m theta): A_m / A_0 = c / 2 with the transform's convention, nothing in the other orders.
    _, theta = polar()
    amplitude, _, profile = circles(100 * (1 + 0.6 * np.cos(m * (theta - 0.3))))
    outer = np.array(agreement.RADII) * 8 > 4  # within, pixels are coarser than the wave
    np.testing.assert_allclose(amplitude[outer][:, m - 1], 0.3, atol=0.02)
    np.testing.assert_allclose(np.delete(amplitude[outer], m - 1, axis=1), 0, atol=0.02)
    np.testing.assert_allclose(profile, 0, atol=0.03)


def test_a_bar_keeps_its_phase_from_circle_to_circle_and_an_arm_turns_it():
    r, theta = polar()
    bar = circles(100 * (1 + 0.6 * np.cos(2 * (theta - 0.5))))[1]
    arm = circles(100 * (1 + 0.6 * np.cos(2 * (theta - 0.15 * r))))[1]
    np.testing.assert_allclose(bar, 1, atol=0.02)
    step = np.diff(np.array(agreement.RADII) * 8)
    np.testing.assert_allclose(arm[1:], np.cos(2 * 0.15 * step)[1:], atol=0.05)


def test_harmonics_do_not_change_when_an_image_is_turned_by_quarters_or_dimmed():
    rng = np.random.default_rng(0)
    r, theta = polar()
    light = 180 * np.exp(-r / 9) * (1 + 0.5 * np.cos(2 * theta - 0.4 * r)) + 12 + rng.normal(size=r.shape)
    turned = circles(np.rot90(light).copy())
    for ours, theirs in zip(circles(light), turned, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_an_image_that_nothing_was_measured_in_has_no_harmonics_and_black_ones_are_finite():
    assert np.isnan(harmonics(one_image(np.zeros((SIDE, SIDE))), np.array([np.nan]))).all()
    assert np.isfinite(harmonics(one_image(np.zeros((SIDE, SIDE))), np.array([5.0]))).all()


def test_discriminants_of_two_gaussians_reach_the_error_that_no_rule_can_undercut():
    # Means 2 apart in units of the scatter, along one of three axes that differ in scale: error Phi(-1).
    rng = np.random.default_rng(1)
    scale = np.array([1.0, 30.0, 0.01])

    def drawn(n):
        label = rng.integers(0, 2, n)
        return (rng.normal(size=(n, 3)) + 2 * label[:, None] * np.eye(3)[0]) * scale, label * 5 + 2

    known, label = drawn(4000)
    unknown, truth = drawn(20000)
    assert np.mean(discriminants(known, label, unknown) != truth) == pytest.approx(norm.cdf(-1), abs=0.012)


def test_discriminants_weigh_classes_by_their_shares():
    # Equal variances, means 0 and 2, shares 0.9 and 0.1: the border moves from 1 to 1 + ln(9) / 2 (a tenth of it by shrinkage at most).
    rng = np.random.default_rng(2)
    label = (rng.random(20000) < 0.1).astype(int)
    known = rng.normal(size=(20000, 1)) + 2 * label[:, None]
    grid = np.linspace(0, 4, 401)[:, None]
    border = grid[np.argmax(discriminants(known, label, grid) == 1), 0]
    assert border == pytest.approx(1 + 1.1 * np.log(9) / 2, abs=0.1)


def test_a_class_of_one_image_and_more_features_than_images_are_no_obstacle():
    rng = np.random.default_rng(3)
    known, label = rng.normal(size=(13, 40)), np.r_[np.zeros(6, int), np.ones(6, int), 2]
    assert set(discriminants(known, label, rng.normal(size=(50, 40)))) <= {0, 1, 2}


def test_each_half_is_told_by_the_other_and_rows_without_measurements_by_none():
    # Labels are random: told by rows that hold themselves they would be found again, by the others they are not.
    rng = np.random.default_rng(4)
    nature, label = rng.normal(size=(200, 60)), rng.integers(0, 2, 200)
    nature[7, 3] = np.nan
    first, second = told_by_halves(nature, label, nature, rng)
    assert first[7] == second[7] == -1
    assert np.mean(first == label) == pytest.approx(0.5, abs=0.12)
    assert np.mean(discriminants(np.delete(nature, 7, 0), np.delete(label, 7), np.delete(nature, 7, 0)) == np.delete(label, 7)) > 0.7


def test_rows_of_no_class_teach_nothing():
    rng = np.random.default_rng(5)
    label = np.r_[np.zeros(50, int), np.ones(50, int)]
    nature = rng.normal(size=(100, 2)) + 6 * label[:, None]
    strange = np.concatenate([nature, rng.normal(size=(400, 2)) + 6])  # would drag class 0 over, were they of it
    first, second = told_by_halves(strange, np.r_[label, np.full(400, -1)], nature, rng)
    assert np.mean(first[:100] == label) > 0.97
    assert np.mean(second == label) > 0.97
    assert set(first) <= {0, 1}


def test_disagreement_weighs_classes_as_nature_has_them_and_leaves_out_those_not_drawn():
    asked = np.array([0, 0, 0, 1, 0, 1, 1, 1, 2, -1])
    found = np.array([0, 0, 0, 1, 0, 0, 1, 1, 2, 1])
    values = table(asked, found, [0, 1, 2])
    assert np.isnan(values[9]).all()
    values = values[:9]
    nature, drawn = np.r_[np.full(4, 0.25), np.zeros(5)][None], np.r_[np.zeros(4), np.full(4, 0.25), 0][None]
    np.testing.assert_allclose(by_class(values, drawn)[0], [1, 2 / 3, 0])
    assert disagreement(values, nature, drawn)[0] == pytest.approx(0.75 * 0 + 0.25 / 3)
    only_zero = np.r_[np.zeros(4), 1, np.zeros(4)][None]
    assert disagreement(values, nature, only_zero)[0] == 0
    assert disagreement(values, drawn, nature)[0] == 0


def test_agreement_of_nature_with_itself_raises_alarm_as_often_as_it_may():
    """The permutation test is of rows told by discriminants that other rows taught: p must not crowd at small values."""
    statistic = Statistic(
        "class agreement", "", "", lambda s: s, disagreement, "shuffled", "", np.arange(3.0), by_class, bars=True,
    )  # fmt: skip
    small = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 3, 160)
        rows = rng.normal(size=(160, 8)) + 1.2 * np.eye(8)[label]
        nature, drawn = told_by_halves(rows[:80], label[:80], rows[80:], rng)
        sides = table(label[:80], nature, [0, 1, 2]), table(label[80:], drawn, [0, 1, 2])
        rival = table(rng.permutation(label[:80]), nature, [0, 1, 2])
        evidence = weigh([statistic], [(*sides, rival)], (np.zeros(80), np.zeros(80)), seed=seed, permutations=99, halves=4)
        small.append(evidence.p <= 0.1)
    assert np.mean(small) < 0.18  # 0.1 + 3 sqrt(0.1 0.9 / 150) = 0.17
