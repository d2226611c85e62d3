"""Distances between weighted sets of rows: closed forms and sets small enough to count by hand."""

import numpy as np
import pytest
from scipy import stats

from simulacra.measures import distance


def one_weight(n, rows):
    w = np.zeros((1, n))
    w[0, rows] = 1 / len(rows)
    return w


def test_wasserstein_agrees_with_scipy_for_unequal_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40), rng.normal(0.3, 2, size=70)
    pooled = np.concatenate([x, y])[:, None]
    ours = distance.wasserstein(pooled, one_weight(110, np.arange(40)), one_weight(110, np.arange(40, 110)))
    assert ours[0] == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)


def test_shortfall_counts_only_what_lies_below():
    pooled = np.array([[1.0], [2.0], [3.0], [4.0]])
    low, high = one_weight(4, [0, 1]), one_weight(4, [2, 3])
    assert distance.shortfall(pooled, high, low)[0] == pytest.approx(2.0)
    assert distance.shortfall(pooled, low, high)[0] == 0.0


def test_energy_distance_of_two_points_is_the_root_of_twice_their_distance():
    pooled = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert distance.energy(pooled, one_weight(2, [0]), one_weight(2, [1]))[0] == pytest.approx(np.sqrt(2 * 5.0))


def test_the_neighbour_test_is_half_for_far_sets_and_zero_for_interleaved_pairs():
    far = np.concatenate([np.arange(10.0), 1000 + np.arange(10.0)])[:, None]
    first, second = one_weight(20, np.arange(10)), one_weight(20, np.arange(10, 20))
    assert distance.neighbour_test(far, first, second)[0] == 0.5
    pairs = np.concatenate([np.arange(10.0), np.arange(10.0) + 0.1])[:, None]
    assert distance.neighbour_test(pairs, first, second)[0] == 0.0


def test_coverage_of_a_collapsed_sample_is_that_of_one_neighbourhood():
    rng = np.random.default_rng(1)
    nature = rng.normal(size=(200, 2))
    collapsed = np.tile(nature[:1], (200, 1))
    pooled = np.concatenate([nature, collapsed])
    p, q = one_weight(400, np.arange(200)), one_weight(400, np.arange(200, 400))
    assert distance.missed(pooled, p, q)[0] > 0.9
    assert distance.unlikely(pooled, p, q)[0] == 0.0
    assert distance.missed(pooled, p, p)[0] == 0.0


def counted_by_hand(rule, k=1):
    """`rule` between nature 0, 1, 2, 10 and drawn 0.4, 2.5, 3 on a line."""
    pooled = np.array([0.0, 1.0, 2.0, 10.0, 0.4, 2.5, 3.0])[:, None]
    return rule(pooled, one_weight(7, range(4)), one_weight(7, range(4, 7)), k)[0]


def test_precision_recall_and_coverage_of_a_few_points_are_those_counted_by_hand():
    # Balls to the nearest of its own: nature's have radii 1, 1, 1, 8; drawn ones 2.1 about 0.4, 0.5 about 2.5 and 3.
    assert counted_by_hand(distance.missed) == 0.0  # 10 is covered: its ball of radius 8 holds 2.5
    assert counted_by_hand(distance.unlikely) == 0.0
    assert counted_by_hand(distance.unreached) == pytest.approx(1 / 4)  # 10 lies in no drawn ball
    # To the second: nature's radii are 2, 1, 2, 9, drawn ones' 2.6, 2.1, 2.6: still none reaches 10.
    assert counted_by_hand(distance.unreached, 2) == pytest.approx(1 / 4)


def test_recall_is_precision_with_the_sides_exchanged():
    rng = np.random.default_rng(3)
    pooled = np.concatenate([rng.normal(size=(60, 3)), rng.normal(0.5, 0.5, size=(50, 3))])
    p, q = one_weight(110, np.arange(60)), one_weight(110, np.arange(60, 110))
    assert distance.unreached(pooled, p, q)[0] == distance.unlikely(pooled, q, p)[0] > 0.05


def test_a_narrow_draw_has_perfect_precision_and_little_recall_and_a_wide_one_the_reverse():
    rng = np.random.default_rng(4)
    nature, narrow, wide = rng.normal(size=(200, 2)), 0.2 * rng.normal(size=(200, 2)), 5 * rng.normal(size=(200, 2))
    p, q = one_weight(400, np.arange(200)), one_weight(400, np.arange(200, 400))
    pooled = np.concatenate([nature, narrow])
    assert distance.unlikely(pooled, p, q)[0] < 0.05
    assert distance.unreached(pooled, p, q)[0] > 0.7
    pooled = np.concatenate([nature, wide])
    assert distance.unlikely(pooled, p, q)[0] > 0.6
    assert distance.unreached(pooled, p, q)[0] < 0.1
    assert distance.missed(pooled, p, q)[0] > 0.2  # which outliers cannot please


def test_recall_of_one_image_repeated_is_nothing():
    nature = np.random.default_rng(5).normal(size=(50, 2))
    pooled = np.concatenate([nature, np.tile(nature.mean(axis=0), (50, 1))])
    assert distance.unreached(pooled, one_weight(100, np.arange(50)), one_weight(100, np.arange(50, 100)))[0] == 1.0


def test_neighbours_are_counted_within_each_pair_of_weightings_alone():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(40, 2))
    p = np.concatenate([one_weight(40, np.arange(15)), one_weight(40, np.arange(20))])
    q = np.concatenate([one_weight(40, np.arange(20, 36)), one_weight(40, np.arange(20, 40))])
    for rule in (distance.missed, distance.unlikely, distance.unreached):
        np.testing.assert_array_equal(rule(values, p, q), np.concatenate([rule(values, p[i : i + 1], q[i : i + 1]) for i in (0, 1)]))


def whole(rule, values, a, c, k=5):
    """The rules as they are written, from all distances of one weighting."""
    if rule == "neighbour_test":
        rows = np.flatnonzero(a | c)
        apart = distance.pairwise(values[rows], values[rows])
        np.fill_diagonal(apart, np.inf)
        return max(np.mean(a[rows] == a[rows][apart.argmin(axis=1)]) - 0.5, 0.0)
    own, other = distance.pairwise(values[a], values[a]), distance.pairwise(values[a], values[c])
    within = np.partition(own, min(k, len(own) - 1), axis=1)[:, min(k, len(own) - 1)]
    return np.mean(other.min(axis=1) > within) if rule == "missed" else np.mean((other > within[:, None]).all(axis=0))


@pytest.mark.parametrize("rule", ["neighbour_test", "missed", "unlikely"])
@pytest.mark.parametrize("kind", ["apart", "copies", "one thing", "ties", "few", "far sets"])
def test_listed_neighbours_say_what_all_distances_say(rule, kind):
    rng = np.random.default_rng(3)
    n = 9 if kind == "few" else 240
    values = rng.normal(size=(n, 3))
    if kind == "copies":
        values[n // 2 :] = values[: n - n // 2]
    if kind == "one thing":  # more rows at one place than a list holds
        values[n // 2 :] = values[0]
    if kind == "ties":
        values = np.round(values)
    if kind == "far sets":  # no row of the other set on any list
        values[n // 2 :] += 1000
    weights = []
    for part in range(6):
        order = np.arange(n) if part == 0 else rng.permutation(n)
        size = n // 2 if part < 3 else n // 5 + 1
        weights.append((one_weight(n, order[:size]), one_weight(n, order[-size:])))
    p, q = (np.concatenate(side) for side in zip(*weights, strict=True))
    found = getattr(distance, rule)(values, p, q)
    expected = [whole(rule, values, a > 0, c > 0) for a, c in zip(p, q, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
