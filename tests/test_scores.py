"""Scores of forecasts against closed forms and another library; propriety; intervals that cover as often as they say."""

import numpy as np
import pytest
from scipy.special import ndtri

from simulacra.measures import calibration, scores

NORMAL = ndtri((np.arange(2000) + 0.5) / 2000)  # members of the standard normal law


def test_crps_of_a_gaussian_agrees_with_its_values_at_the_centre_and_far_out():
    assert scores.crps_gaussian(0, 0, 1) == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi), abs=1e-15)
    assert scores.crps_gaussian(1e3, 0, 1) == pytest.approx(1e3 - 1 / np.sqrt(np.pi), rel=1e-12)
    assert scores.crps_gaussian(7.0, 5.0, 3.0) == pytest.approx(3 * scores.crps_gaussian(2 / 3, 0, 1))


def test_crps_of_a_gaussian_is_the_integral_that_defines_it():
    from scipy.special import ndtr

    x = np.linspace(-12, 12, 240_001)
    law = ndtr((x - 0.4) / 1.3)
    assert scores.crps_gaussian(1.1, 0.4, 1.3) == pytest.approx(np.trapezoid((law - (x >= 1.1)) ** 2, x), abs=1e-4)


def test_crps_of_many_quantiles_tends_to_that_of_their_law():
    for y in (-2.5, 0.0, 0.7):
        assert scores.crps_members(y, NORMAL) == pytest.approx(scores.crps_gaussian(y, 0, 1), abs=1e-4)


def test_crps_of_members_is_the_double_sum_in_any_order():
    rng = np.random.default_rng(0)
    y, x = rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 7))
    plain = np.abs(x - y[..., None]).mean(-1) - np.abs(x[..., :, None] - x[..., None, :]).mean((-1, -2)) / 2
    np.testing.assert_allclose(scores.crps_members(y, x), plain, atol=1e-14)


def test_crps_of_one_member_is_its_absolute_error_and_unknown_truth_has_none():
    np.testing.assert_array_equal(scores.crps_members([3.0, np.nan], [[5.0], [5.0]]), [2.0, np.nan])


def test_crps_of_uniform_members_is_the_closed_form():
    members = (np.arange(4000) + 0.5) / 4000  # CRPS of U(0, 1) at y inside: 1/3 - y + y^2
    for y in (0.0, 0.3, 1.0):
        assert scores.crps_members(y, members) == pytest.approx(1 / 3 - y + y**2, abs=1e-6)


def test_scores_agree_with_scoringrules():
    other = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(1)
    y, mean, sd = rng.normal(size=50), rng.normal(size=50), rng.uniform(0.5, 2, 50)
    members = rng.normal(size=(50, 31))
    paths, truth = rng.normal(size=(20, 15, 4)), rng.normal(size=(20, 4))
    plain = {"backend": "numpy"}
    pairs = (
        (scores.crps_gaussian(y, mean, sd), other.crps_normal(y, mean, sd, **plain)),
        (scores.crps_members(y, members), other.crps_ensemble(y, members, estimator="nrg", **plain)),
        (scores.pinball(y, mean, 0.1), other.quantile_score(y, mean, 0.1, **plain)),
        (scores.energy_score(truth, paths), other.es_ensemble(truth, paths, estimator="nrg", **plain)),
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-7)


def test_wis_is_the_weighted_sum_of_interval_scores_that_defines_it():
    rng = np.random.default_rng(2)
    y, quantiles = rng.normal(size=30), np.sort(rng.normal(size=(30, 23)), axis=1)
    total = 0.5 * np.abs(y - quantiles[:, 11])
    for k in range(11):
        alpha = 2 * scores.HUB_LEVELS[k]
        low, high = quantiles[:, k], quantiles[:, 22 - k]
        total += alpha / 2 * (high - low) + np.maximum(low - y, 0) + np.maximum(y - high, 0)
    np.testing.assert_allclose(scores.weighted_interval_score(y, quantiles), total / 11.5, atol=1e-13)


def test_wis_needs_symmetric_levels_with_a_median():
    assert len(scores.HUB_LEVELS) == 23
    with pytest.raises(ValueError, match="symmetrically"):
        scores.weighted_interval_score(0.0, [0.0, 1.0], [0.25, 0.75])
    with pytest.raises(ValueError, match="symmetrically"):
        scores.weighted_interval_score(0.0, [0.0, 1.0, 2.0], [0.25, 0.5, 0.8])


def test_wis_over_many_levels_tends_to_crps():
    levels = (np.arange(999) + 0.5) / 999
    assert scores.weighted_interval_score(0.8, ndtri(levels), levels) == pytest.approx(scores.crps_gaussian(0.8, 0, 1), abs=1e-3)


@pytest.mark.parametrize("score", ["members", "gaussian", "pinball", "wis"])
def test_no_forecast_scores_lower_on_average_than_the_true_law(score):
    y = NORMAL  # every truth of the law, equally often
    hub = ndtri(scores.HUB_LEVELS)
    rules = {
        "members": lambda shift, spread: scores.crps_members(y[::10], np.broadcast_to(shift + spread * NORMAL, (200, 2000))),
        "gaussian": lambda shift, spread: scores.crps_gaussian(y, shift, spread),
        "pinball": lambda shift, spread: scores.pinball(y, shift + spread * ndtri(0.9), 0.9),
        "wis": lambda shift, spread: scores.weighted_interval_score(y, np.broadcast_to(shift + spread * hub, (2000, 23))),
    }
    true = rules[score](0.0, 1.0).mean()
    for shift, spread in ((0.3, 1.0), (-0.3, 1.0), (0.0, 0.7), (0.0, 1.4)):
        assert rules[score](shift, spread).mean() > true * 1.002


def test_quantiles_give_back_the_members_that_stand_at_these_levels():
    members = np.random.default_rng(3).permutation(np.arange(99.0))
    levels = (np.arange(99) + 0.5) / 99
    np.testing.assert_allclose(scores.quantiles_of(members, levels), np.arange(99), atol=1e-12)
    assert scores.quantiles_of(members, [0.0001, 0.5, 0.9999]).tolist() == [0, 49, 98]


def test_energy_score_of_one_period_is_crps_and_sees_a_wrong_dependence():
    rng = np.random.default_rng(4)
    y, x = rng.normal(size=40), rng.normal(size=(40, 9))
    np.testing.assert_allclose(scores.energy_score(y[:, None], x[:, :, None]), scores.crps_members(y, x), atol=1e-12)
    together = np.repeat(rng.normal(size=(400, 1)), 6, axis=1)
    members = np.repeat(rng.normal(size=(400, 60, 1)), 6, axis=2)
    shuffled = rng.permuted(members, axis=1)
    assert scores.energy_score(together, members).mean() < scores.energy_score(together, shuffled).mean() * 0.97
    assert np.isnan(scores.energy_score([[1.0, np.nan]], [[[1.0, 2.0]]])).all()


def noise(rng, days, memory, count=1):
    """AR(1) with unit variance, (count, days)."""
    steps = rng.normal(size=(count, days)) * np.sqrt(1 - memory**2)
    steps[:, 0] /= np.sqrt(1 - memory**2)
    for day in range(1, days):
        steps[:, day] += memory * steps[:, day - 1]
    return steps


def covered(block, series, days):
    """How often the 95 % interval of the mean holds 0."""
    held = 0
    for number, one in enumerate(series):
        low, high = np.percentile(scores.block_bootstrap(one, days, block=block, count=300, seed=number), [2.5, 97.5])
        held += low <= 0 <= high
    return held / len(series)


def test_a_bootstrap_of_blocks_covers_as_often_as_it_says_where_days_are_not_independent_and_single_days_do_not():
    series = noise(np.random.default_rng(5), 900, 0.6, 300)
    assert 0.90 <= covered(30, series, np.arange(900)) <= 0.98
    assert covered(1, series, np.arange(900)) < 0.80


def test_a_bootstrap_keeps_all_series_of_a_day_together():
    one = noise(np.random.default_rng(6), 600, 0.0)[0]
    days = np.arange(600)
    alone = scores.block_bootstrap(one, days, block=5, seed=1).std()
    copies = scores.block_bootstrap(np.tile(one, 8), np.tile(days, 8), block=5, seed=1).std()
    assert copies == pytest.approx(alone)  # eight copies of a series are no more evidence than one
    independent = scores.block_bootstrap(noise(np.random.default_rng(7), 600, 0.0, 8).ravel(), np.tile(days, 8), block=5, seed=1).std()
    assert independent == pytest.approx(alone / np.sqrt(8), rel=0.2)


def test_a_bootstrap_pairs_columns_leaves_out_the_unknown_and_does_not_mind_the_order_of_rows():
    rng = np.random.default_rng(8)
    score, days = rng.normal(size=200), np.arange(200)
    both = scores.block_bootstrap(np.column_stack([score, score + 1]), days, seed=3)
    np.testing.assert_allclose(both[:, 1] - both[:, 0], 1)
    order = rng.permutation(200)
    np.testing.assert_allclose(scores.block_bootstrap(score[order], days[order], seed=3), both[:, 0])
    padded = scores.block_bootstrap(np.column_stack([score, np.where(days < 100, 1.0, np.nan)]), days, seed=3)
    assert padded[:, 1] == pytest.approx(1)


def test_a_block_is_of_days_whatever_lies_between_origins():
    weekly = noise(np.random.default_rng(9), 400, 0.9)[0]
    as_weeks = scores.block_bootstrap(weekly, 7 * np.arange(400), block=70, seed=0)
    np.testing.assert_allclose(as_weeks, scores.block_bootstrap(weekly, np.arange(400), block=10, seed=0))


def test_intervals_of_the_true_law_cover_what_they_promise_and_have_its_width():
    levels = np.array([0.5, 0.8, 0.95])
    members = np.broadcast_to(ndtri((np.arange(99) + 0.5) / 99), (2000, 99))
    share, width = calibration.coverage(NORMAL, members, levels)
    np.testing.assert_allclose(share, levels, atol=0.005)
    np.testing.assert_allclose(width, 2 * ndtri((1 + levels) / 2), rtol=0.01)
    narrow, _ = calibration.coverage(NORMAL, members / 2, levels)
    np.testing.assert_allclose(narrow, [0.264, 0.478, 0.673], atol=0.01)


def test_coverage_leaves_out_truths_that_are_unknown():
    share, _ = calibration.coverage([0.0, np.nan, 9.0], np.broadcast_to(np.linspace(-1, 1, 99), (3, 99)), [0.5])
    assert share.tolist() == [0.5]


@pytest.mark.parametrize("count", [3, 12, 99])
def test_the_integral_transform_is_uniform_for_quantiles_of_the_true_law_however_few(count):
    members = np.broadcast_to(ndtri((np.arange(count) + 0.5) / count), (40_000, count))
    y = np.random.default_rng(10).normal(size=40_000)
    values = np.sort(calibration.pit(y, members, seed=0))
    assert np.abs(values - (np.arange(40_000) + 0.5) / 40_000).max() < 1.63 / 200  # Kolmogorov at 1 %


def test_the_integral_transform_of_a_tie_lies_anywhere_across_it_and_of_the_unknown_nowhere():
    values = calibration.pit(np.zeros(4000), np.zeros((4000, 9)), seed=1)
    assert 0.48 < values.mean() < 0.52
    assert values.min() < 0.01
    assert values.max() > 0.99
    assert np.isnan(calibration.pit(np.nan, np.zeros(9), seed=1))
