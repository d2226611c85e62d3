"""The verdict machinery on laws that are known."""

import numpy as np
import pytest
from scipy import stats

from simulacra.evidence import ALARM, Evidence, average, compare, distribution
from simulacra.study import Refused

STATISTICS = [
    distribution("first", "m", "", lambda s: s[:, 0], np.linspace(-4, 4, 30), rival="shifted"),
    distribution("second", "m", "", lambda s: s[:, 1], np.linspace(-4, 4, 30), rival="shifted"),
    average("mean", "m", "", lambda s: s, np.arange(2), "axis", rival="shifted"),
    average("variance", "m2", "", lambda s: np.concatenate([s, s**2], 1), np.arange(2), "axis", rival="shifted",
            function=lambda m: m[:, 2:] - m[:, :2] ** 2),
]  # fmt: skip


def judged(nature, drawn, seed=0, **options):
    return compare(STATISTICS, nature, drawn, {"shifted": nature[::-1] + 0.7}, seed=seed, permutations=199, halves=40, **options)


def test_nature_drawn_again_is_called_different_about_as_often_as_stated():
    rng = np.random.default_rng(2)
    values = np.array([judged(rng.normal(size=(80, 2)), rng.normal(size=(80, 2)), seed=i).p for i in range(200)])
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert np.mean(values <= 0.05) <= 0.10


def test_a_shift_of_a_third_of_a_deviation_is_noticed_and_attributed_to_its_axis():
    rng = np.random.default_rng(3)
    drawn = rng.normal([0.33, 0.0], size=(600, 2))
    evidence = judged(rng.normal(size=(600, 2)), drawn, seed=0)
    assert evidence.differs
    named = {f.name: f for f in evidence.findings}
    assert named["first"].p <= ALARM < named["second"].p
    assert named["first"].gap_low > 0.05
    assert abs(named["second"].gap) < 0.15


def test_the_gap_is_zero_for_nature_and_one_for_the_rival():
    rng = np.random.default_rng(4)
    nature = rng.normal(size=(1000, 2))
    again, rival = judged(nature, rng.normal(size=(1000, 2))), judged(nature, rng.normal(size=(1000, 2)) + 0.7)
    for name in ("first", "second", "mean"):
        assert abs(next(f.gap for f in again.findings if f.name == name)) < 0.1
        assert next(f.gap for f in rival.findings if f.name == name) == pytest.approx(1, abs=0.12)


def test_the_band_is_the_standard_error_of_the_mean():
    rng = np.random.default_rng(5)
    finding = next(f for f in judged(rng.normal(0, 3, size=(900, 2)), rng.normal(0, 3, size=(900, 2))).findings if f.name == "mean")
    np.testing.assert_allclose(finding.band, 3 / 30, rtol=0.25)


def test_permutation_within_conditions_ignores_that_conditions_differ():
    rng = np.random.default_rng(6)
    hot = np.repeat([0.0, 50.0], 100)
    nature, drawn = (rng.normal(size=(200, 2)) + hot[:, None] for _ in range(2))
    evidence = judged(nature, drawn, condition=lambda s: (s[:, 0] > 25).astype(float))
    assert not evidence.differs
    with pytest.raises(Refused, match="row for row"):
        judged(nature, drawn[:150], condition=lambda s: (s[:, 0] > 25).astype(float))


def test_rows_without_the_statistic_are_left_out_on_both_sides():
    rng = np.random.default_rng(7)
    nature, drawn = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    nature[:40, 0], drawn[:10, 0] = np.nan, np.nan
    assert np.isfinite(judged(nature, drawn).findings[0].distance)
    drawn[:, 0] = np.nan
    with pytest.raises(Refused, match="at least 4 rows"):
        judged(nature, drawn)


def test_evidence_survives_its_file_and_the_file_is_strict_json(tmp_path):
    import dataclasses
    import json

    from simulacra.evidence import Check

    rng = np.random.default_rng(8)
    evidence = judged(rng.normal(size=(50, 2)), rng.normal(size=(50, 2)))
    odd = dataclasses.replace(evidence.findings[0], gap=float("nan"), exact=np.array([1.0, np.nan]))
    evidence = evidence.with_more([odd], [Check("u", 1.0, float("nan"), "below 2", True, {"floor": float("inf")})])
    path = tmp_path / "evidence.json"
    path.write_text(evidence.to_json())
    json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    again = Evidence.read(path)
    assert again.p == evidence.p
    np.testing.assert_array_equal(again.findings[0].truth, evidence.findings[0].truth)
    assert np.isnan(again.findings[-1].gap)
    assert again.worst_first()[-1].name == odd.name
