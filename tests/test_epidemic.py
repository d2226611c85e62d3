"""Epidemics: what reporting does to counts, the shared process, the hub's baseline and layout, and the articles' numbers."""

import csv
import gzip
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t, t

from simulacra.families.gp import ExponentiatedQuadratic, GaussianProcess, White
from simulacra.measures.scores import HUB_LEVELS, quantiles_of, weighted_interval_score
from simulacra.sciences.epidemic import article, data, gp, hub, pooled, simulate, statistics
from simulacra.series.windows import Outlook, day_of
from simulacra.study import Noise, Refused

THETA = pooled.START
ROOT = os.environ.get("SIMULACRA_DATA")
real = pytest.mark.skipif(not ROOT or not (Path(ROOT) / "covid" / data.NYT_FILE).is_file(), reason="SIMULACRA_DATA holds no covid table")


def nyt_like(path, totals, start="2020-03-01", names=("Washington", "Oregon"), fips=("53", "41"), header=("state", "fips", "cases")):
    """A table in the layout of The New York Times: running totals (S, T), one row per day and state."""
    days = day_of(start) + np.arange(totals.shape[1])
    with gzip.open(path, "wt", newline="") as file:
        out = csv.writer(file)
        out.writerow(("date", *header, "deaths"))
        for at, day in enumerate(days):
            for name, code, row in zip(names, fips, totals, strict=False):
                out.writerow((np.datetime64(int(day), "D"), name, code, int(row[at]), 0))
    return path


def outlook(past, future, day=18631, series=53, every=7):
    past, future = torch.as_tensor(np.asarray(past, np.float32)), torch.as_tensor(np.asarray(future, np.float32))
    n = len(past)
    days = day + 7 * torch.arange(n) if np.isscalar(day) else torch.as_tensor(day)
    return Outlook(torch.full((n,), series), days, torch.full((n,), every), past[..., None], future)


@pytest.fixture(scope="module")
def small():
    """A recipe on simulated epidemics, its split and a learner of one start."""
    dates = {"train_until": "2021-01-31", "tune_until": "2021-04-30", "last": "2021-09-11"}
    recipe = gp.quick.model_copy(update={"regions": 4, "days": 560, "evaluations": 25, **dates})
    split = gp.load(recipe)
    learner = gp.build(recipe, split.train)
    learner.step(split.train[:8])
    return recipe, split, learner


# --- counts ---


def test_weeks_end_on_saturdays_and_hold_every_case_that_was_reported(tmp_path):
    rng = np.random.default_rng(0)
    totals = np.cumsum(rng.poisson(80, (2, 84)), axis=1)
    totals[0, 40:] -= 150  # a correction, smaller than its week
    cases = data.weekly(data.read(nyt_like(tmp_path / "t.csv.gz", totals)))
    days = cases.table.days.astype("datetime64[D]")
    assert np.datetime64("2020-03-07") == days[0]
    assert all(day.astype(object).weekday() == 5 for day in days)
    assert cases.table.values[:, :, 0].sum(axis=1).tolist() == [totals[1, -1], totals[0, -1]]  # series in alphabetical order
    assert cases.codes.tolist() == [41, 53]
    assert any("fall on 1 day in 1 of 2 series" in remark and "2020-04-10" in remark for remark in cases.remarks)


def test_bigquerys_copy_of_the_table_is_known_too(tmp_path):
    totals = np.cumsum(np.full((2, 40), 30), axis=1)
    totals[1] *= 2
    path = nyt_like(tmp_path / "t.csv.gz", totals, header=("state_name", "state_fips_code", "confirmed_cases"))
    found = data.read(path, states=("Oregon",), until=day_of("2020-03-31"))
    assert found.table.names == ["Oregon"]
    assert found.table.series("Oregon").tolist() == [60.0] * 31


def test_a_correction_larger_than_its_week_makes_the_week_missing():
    values, negative, silent = data.as_reported(np.array([100.0, 90, -31478, 80]))
    assert np.array_equal(np.isnan(values), [False, False, True, False])
    assert negative.tolist() == [False, False, True, False]
    assert not silent.any()


def test_silent_weeks_are_missing_and_the_next_report_is_divided_over_what_it_covers():
    values, _, silent = data.as_reported(np.array([100.0, 110, 0, 0, 330, 90]))
    assert silent.tolist() == [False, False, True, True, False, False]
    assert values[4] == 110
    assert values[5] == 90
    quiet, _, none = data.as_reported(np.array([3.0, 2, 0, 5]))  # a lull, not a silence
    assert quiet.tolist() == [3, 2, 0, 5]
    assert not none.any()


def test_what_is_known_of_a_week_does_not_depend_on_later_ones():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sums = rng.choice([0, 0, -50, 40, 100, 400], 30).astype(float)
        cut = int(rng.integers(1, 30))
        before = data.as_reported(sums)[0][:cut]
        sums[cut:] = rng.choice([0, -5000, 1e6], 30 - cut)
        assert np.array_equal(before, data.as_reported(sums)[0][:cut], equal_nan=True)


def test_weekly_reporting_is_recognised_with_its_beginning():
    reports = np.array([7, 6, 7, 7, 5, 7, 6, 1, 1, 1, 1, 2, 1, 1, 1, 1])
    assert data.sparse_since(reports) == 7
    assert data.sparse_since(np.full(16, 5)) is None
    assert data.sparse_since(np.zeros(16, int)) is None


def test_tables_that_cannot_be_used_are_refused_in_words(tmp_path):
    totals = np.cumsum(np.full((2, 60), 10), axis=1) * np.array([[1], [2]])
    path = nyt_like(tmp_path / "t.csv.gz", totals)
    with pytest.raises(Refused, match=r"no cases of 'Wasington'; known: Oregon, Washington"):
        data.read(path, states=("Wasington",))
    with pytest.raises(Refused, match=r"FIPS code 'WA'"):
        data.read(nyt_like(tmp_path / "wrong.csv.gz", totals, fips=("WA", "41")))
    with pytest.raises(Refused, match=r"holds no nyt_us_states"):
        data.read(tmp_path)
    with pytest.raises(Refused, match=r"begins on 2020-03-01 and holds 5 periods"):
        data.read(path, until=day_of("2020-03-05"))


def test_a_table_of_ones_own_is_read_and_cumulative_counts_are_not_taken_for_daily_ones(tmp_path):
    rng = np.random.default_rng(2)
    daily = rng.poisson(20, 70)
    for name, column in (("daily.csv", daily), ("totals.csv", np.cumsum(daily))):
        lines = [f"{np.datetime64('2021-01-03') + i},{v}" for i, v in enumerate(column)]
        (tmp_path / name).write_text("date,cases\n" + "\n".join(lines))
    own = data.weekly(data.read(tmp_path / "daily.csv"))
    assert data.name_of(int(own.codes[0])) == "series 1"  # not Alabama
    assert own.table.values[0, :, 0].tolist() == daily.reshape(10, 7).sum(axis=1).tolist()
    with pytest.raises(Refused, match="running totals"):
        data.read(tmp_path / "totals.csv")
    differenced = data.weekly(data.read(tmp_path / "totals.csv", cumulative=True))
    assert np.array_equal(differenced.table.values, own.table.values)


def test_simulated_infections_follow_the_renewal_equation_with_the_r_that_is_told():
    truth = simulate.epidemics(6, 400, seed=3)
    w, infected = simulate._generation(), truth.infected
    assert w.sum() == pytest.approx(1)
    assert w @ np.arange(1, simulate.LONGEST + 1) == pytest.approx(5.5, abs=0.4)
    force = np.stack([infected[:, day - simulate.LONGEST : day] @ w[::-1] for day in range(simulate.LONGEST, 400)], axis=1)
    ratio = infected[:, simulate.LONGEST :] / np.maximum(force, 1) / truth.reproduction[:, simulate.LONGEST :]
    assert np.mean(ratio[force > 1000]) == pytest.approx(1, abs=0.02)
    assert (truth.reported[:, -1] <= infected.sum(axis=1) * 1.02).all()  # reports are weekday-weighted, never invented
    assert np.diff(truth.reported, axis=1).min() < 0  # corrections are there to be found


# --- the shared process ---


def waves(n, length, seed, scale="log1p", missing=0.0):
    """Windows of random log-normal curves."""
    rng = np.random.default_rng(seed)
    curve = 5 + np.cumsum(np.cumsum(rng.normal(0, 0.1, (n, length)), axis=1), axis=1)
    cases = np.exp(np.clip(curve, 0, 12))
    cases[:, : length - 8][rng.random((n, length - 8)) < missing] = np.nan
    return pooled.Windows.of(cases[:, :-3], cases[:, -3:], scale)


@pytest.mark.parametrize("scale", ["log1p", "identity"])
def test_the_gradient_is_that_of_the_predictive_likelihood(scale):
    windows = waves(12, 18, 4, scale, missing=0.1)
    theta = THETA + np.random.default_rng(5).normal(0, 0.3, len(THETA))
    _, gradient = pooled.predictive(theta, windows)
    step = 1e-5 * np.eye(len(theta))
    numerical = [(pooled.predictive(theta + e, windows)[0] - pooled.predictive(theta - e, windows)[0]) / 2e-5 for e in step]
    assert gradient == pytest.approx(numerical, rel=1e-5, abs=1e-7)


def test_without_anomalies_the_density_is_a_multivariate_student_t():
    windows = waves(3, 12, 6)
    theta = THETA.copy()
    theta[7] = np.log(1e-14)
    value, _ = pooled._joint(theta, windows, windows.future)
    weeks, nu = np.arange(12.0), np.exp(theta[6]) + 2
    expected = 0.0
    for past, future in zip(windows.past, windows.future, strict=True):
        y = np.concatenate([past, future])
        covariance = pooled.kernel_of(theta).covariance(weeks, weeks) + pooled.LEVEL
        covariance += np.diag(np.exp(theta[4]) + np.exp(theta[5] - np.maximum(y, 0)))
        expected += multivariate_t(np.full(12, past[-1]), covariance * (nu - 2) / nu, df=nu).logpdf(y)
    assert value == pytest.approx(expected, rel=1e-9)


def test_an_anomaly_changes_the_density_as_its_variance_on_the_diagonal_does():
    """Rank-one formulas against the same thing done at length."""
    windows = waves(2, 11, 7)
    joint = pooled._Joint.of(THETA, windows, windows.future)
    for component, place in enumerate(joint.places):
        for row in range(2):
            y = np.concatenate([windows.past[row], windows.future[row]])
            k = pooled.kernel_of(THETA).covariance(np.arange(11.0), np.arange(11.0)) + pooled.LEVEL
            k += np.diag(np.exp(THETA[4]) + np.exp(THETA[5] - np.maximum(y, 0)))
            k[place, place] += np.exp(THETA[8])
            nu = np.exp(THETA[6]) + 2
            expected = multivariate_t(np.full(11, windows.past[row, -1]), k * (nu - 2) / nu, df=nu).logpdf(y)
            assert joint.log_densities[row, 1 + component] == pytest.approx(expected, rel=1e-9)


def test_learning_keeps_the_chances_of_an_anomaly_below_one_however_far_ahead_it_looks():
    cases = np.exp(6 + np.cumsum(np.random.default_rng(0).normal(scale=0.3, size=(4, 80)), axis=1))
    cases[:, ::7] *= 4  # surprises wherever one looks
    windows = pooled.Windows.of(cases[:, :20], cases[:, 20:], "log1p")
    start = pooled.START.copy()
    start[7] = pooled.BOUNDS[7, 1]
    theta, value, _ = pooled.learn(windows, start, 4)
    assert np.isfinite(value)
    assert np.exp(theta[7]) * (pooled.RECENT + 60) < 1


def test_forecasts_are_those_of_the_dense_gaussian_process_where_the_two_are_the_same():
    theta = THETA.copy()
    theta[5:8] = np.log([1e-14, 1e12, 1e-14])  # even noise, no doubt of the scale, no anomalies
    windows = waves(4, 20, 8, missing=0.2)
    law = pooled.forecast(theta, windows)
    level = ExponentiatedQuadratic(pooled.LEVEL, 1e7, fixed=("variance", "lengthscale"))
    process = GaussianProcess(pooled.kernel_of(theta) + level + White(float(np.exp(theta[4]))))
    for row in range(4):
        past = windows.past[row]
        dense = process.condition(np.arange(17.0), past - past[-1])
        assert law.mean[row, 0] - past[-1] == pytest.approx(dense.mean(np.arange(17.0, 20.0)), abs=1e-6)
        assert law.covariance[row, 0] == pytest.approx(dense.covariance(np.arange(17.0, 20.0), noise=True), abs=1e-6)
        assert law.weight[row, 0] == pytest.approx(1)


def test_quantiles_invert_the_law_and_paths_follow_it():
    law = pooled.Law(
        np.array([[0.7, 0.3]]), np.array([[[0.0, 1.0], [3.0, 5.0]]]), np.array([[[[1.0, 0.6], [0.6, 2.0]], [[0.5, 0.1], [0.1, 0.5]]]]),
        np.array([12.0]), np.array([[4.0, 4.0]]), 0.05,
    )  # fmt: skip
    rng = np.random.default_rng(9)
    normal, uniform = rng.normal(size=(1, 60_000, 4)), rng.uniform(1e-6, 1 - 1e-6, (1, 60_000, 4))
    paths, levels = law.paths(normal, uniform), np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    found = law.quantiles(np.broadcast_to(levels[None, :, None], (1, 5, 2)).copy())
    assert found[0] == pytest.approx(np.quantile(paths[0], levels, axis=0), abs=0.06)
    one = pooled.Law(law.weight[:, :1] / 0.7, law.mean[:, :1], law.covariance[:, :1], law.freedom, law.anomaly[:, :1], 1e-12)
    exact = t(12).ppf(levels) * np.sqrt(10 / 12)
    assert one.quantiles(np.broadcast_to(levels[None, :, None], (1, 5, 2)).copy())[0, :, 0] == pytest.approx(exact, abs=2e-3)
    assert np.corrcoef(one.paths(normal, uniform)[0].T)[0, 1] == pytest.approx(0.6 / np.sqrt(2), abs=0.02)


def test_a_sudden_drop_is_doubted_and_a_slow_one_is_not():
    steady = np.full(24, 10_000.0)
    dropped, slow = steady.copy(), steady.copy()
    dropped[-1] = 1000
    slow[-6:] = 10_000 * 0.68 ** np.arange(1, 7)
    theta = THETA.copy()
    theta[7:] = np.log([0.02, 2.0])
    law = pooled.forecast(theta, pooled.Windows.of(np.stack([steady, dropped, slow]), np.full((3, 2), np.nan), "log1p"))
    assert law.weight[0, 0] > 0.8
    assert law.weight[1, -1] > 0.8  # the last week is the anomaly
    assert law.weight[2, 0] > 0.6
    median = np.expm1(law.quantiles(np.full((3, 1, 2), 0.5)))[:, 0, 0]
    assert median[1] > 5000
    assert median[2] < 1500


def test_forecasts_of_what_the_process_itself_draws_are_calibrated_and_learning_raises_the_likelihood():
    theta = THETA.copy()
    theta[5], theta[7] = np.log(1e-4), np.log(1e-4)
    rng = np.random.default_rng(10)
    weeks = np.arange(24.0)
    root = np.linalg.cholesky(pooled.kernel_of(theta).covariance(weeks, weeks) + np.exp(theta[4]) * np.eye(24))
    spread = np.sqrt(np.exp(theta[6]) / rng.chisquare(np.exp(theta[6]) + 2, 1500))
    y = 9 + spread[:, None] * (rng.normal(size=(1500, 24)) @ root.T)
    windows = pooled.Windows.of(np.expm1(y[:, :20]), np.expm1(y[:, 20:]), "log1p")
    law = pooled.forecast(theta, windows)
    ends = law.quantiles(np.broadcast_to(np.array([0.025, 0.25, 0.75, 0.975])[None, :, None], (1500, 4, 4)).copy())
    truth = windows.future
    assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 3])) == pytest.approx(0.95, abs=0.012)
    assert np.mean((ends[:, 1] <= truth) & (truth <= ends[:, 2])) == pytest.approx(0.50, abs=0.025)
    few = windows[np.arange(150)]
    wrong = np.clip(theta + 1.0, *pooled.BOUNDS.T)
    _, value, count = pooled.learn(few, wrong, 40)
    assert count <= 45
    assert value > pooled.predictive(wrong, few)[0] + 0.1
    assert value > pooled.predictive(theta, few)[0] - 0.05


# --- the hub's baseline, phases, verdict ---


def test_the_hubs_baseline_keeps_the_last_count_and_repeats_past_changes_of_either_sign():
    counts = [[500.0, 540, 520, 610, 600]]
    law = statistics.hub_baseline(outlook(counts, np.zeros((1, 1, 3))), HUB_LEVELS)[0].numpy()
    changes = np.array([40, -20, 90, -10, -40, 20, -90, 10.0])
    assert law[:, 0] == pytest.approx(600 + np.quantile(changes, HUB_LEVELS), abs=0.5)
    assert law[11] == pytest.approx([600] * 3, abs=1e-3)
    assert law[0, 2] < law[0, 1] < law[0, 0]
    assert (law[18, 2] - law[4, 2]) / (law[18, 0] - law[4, 0]) == pytest.approx(np.sqrt(3), rel=0.25)
    low = statistics.hub_baseline(outlook([[0.0, 900, 3]], np.zeros((1, 1, 2))), HUB_LEVELS)[0].numpy()
    assert low.min() == 0


def test_the_baseline_of_a_row_does_not_depend_on_the_other_rows_or_on_what_came():
    rng = np.random.default_rng(11)
    rows = outlook(rng.poisson(300, (5, 12)), rng.poisson(300, (5, 1, 4)))
    all_of_them = statistics.hub_baseline(rows)
    assert torch.equal(all_of_them[3:4], statistics.hub_baseline(rows[3:4]))
    assert torch.equal(all_of_them, statistics.hub_baseline(rows.with_future(rows.future * 7 + 1)))


def test_phases_are_told_by_the_weeks_around_the_origin_and_by_those_before_it():
    past = np.array([[100.0, 100, 200, 200], [100, 100, 100, 100], [400, 400, 100, 100]])
    future = np.array([[[500.0, 500]], [[110, 90]], [[40, 30]]])
    rows = outlook(past, future)
    assert statistics.phase_that_came(rows).tolist() == [0, 1, 2]
    assert statistics.phase_that_was_known(rows).tolist() == [0, 1, 2]
    unknown = rows.with_future(torch.full((3, 1, 2), torch.nan))
    assert statistics.phase_that_came(unknown).tolist() == [-1, -1, -1]


def growing(n, seed, members=60):
    """Origins in steady growth, and forecasts by their true law."""
    rng = np.random.default_rng(seed)
    factor = np.exp(rng.normal(0.3, 0.15, (n, 12)))
    level = 200 * np.cumprod(factor, axis=1)
    truth = np.exp(rng.normal(np.log(level[:, -1:]) + 0.3 * np.arange(1, 5), 0.15 * np.sqrt(np.arange(1, 5))))
    z = np.sqrt(2) * torch.special.erfinv(torch.tensor(2 * (np.arange(members) + 0.5) / members - 1)).numpy()
    law = np.exp(np.log(level[:, -1])[:, None, None] + 0.3 * np.arange(1, 5) + 0.15 * np.sqrt(np.arange(1, 5)) * z[None, :, None])
    return outlook(level, truth[:, None]), outlook(level, law)


def test_a_forecast_by_the_true_law_scores_below_the_baseline_and_covers_growth():
    nature, drawn = growing(120, 12)
    evidence = statistics.judge(nature, drawn, seed=0)
    found = {f.name: f for f in evidence.findings}
    for scale in ("natural", "log"):
        assert found[f"weighted interval score, {scale} scale"].gap_high < 0.9
    assert found["coverage in growth"].distance < 6
    assert "coverage in decline" not in found
    assert any("log scale" in r and "lower than the hub baseline's" in r for r in evidence.remarks)


def test_the_baseline_itself_is_not_called_better_than_the_baseline():
    nature, _ = growing(60, 13)
    evidence = statistics.judge(nature, nature.with_future(statistics.hub_baseline(nature)), seed=0)
    finding = next(f for f in evidence.findings if f.name == "weighted interval score, log scale")
    assert finding.gap == pytest.approx(1, abs=0.03)
    walk = statistics.judge(nature, nature.with_future(statistics.log_walk(nature)), seed=0)
    assert next(f for f in walk.findings if f.name == "CRPS against log walk").gap == pytest.approx(1, abs=1e-6)


def test_the_log_walk_repeats_recent_ratios_of_either_sign():
    counts = [[90_000.0] + [10.0] * 11 + [20.0] * 16]
    law = np.log1p(statistics.log_walk(outlook(counts, np.zeros((1, 1, 2))), HUB_LEVELS)[0].numpy())
    assert law[11] == pytest.approx(np.log1p([20, 20]), rel=1e-4)
    assert law[:, 0].max() <= np.log(21 * 21 / 11) + 1e-5  # the wave before is forgotten: the largest ratio is 21 / 11
    assert law[:, 0] + law[::-1, 0] == pytest.approx(np.full(23, 2 * np.log(21)), abs=0.01)


def test_findings_are_finite_on_tiny_data_and_rows_left_out_are_set_aside():
    nature, drawn = growing(40, 14, members=12)
    drawn.future[5:9] = torch.nan
    evidence = statistics.judge(nature, drawn, seed=0)
    assert all(np.isfinite([f.distance, f.floor, f.ceiling, f.gap]).all() and f.floor < f.ceiling for f in evidence.findings)
    assert any("4 of 40 origins were not forecast" in remark for remark in evidence.remarks)
    with pytest.raises(Refused, match="none of the forecasts holds a number"):
        statistics.judge(nature, drawn.with_future(torch.full_like(drawn.future, torch.nan)), seed=0)


def test_checks_say_where_forecasts_lose():
    nature, drawn = growing(60, 15)
    worse = nature.with_future(drawn.future * 3)
    for forecast, met in ((drawn, True), (worse, False)):
        scores = statistics.Scores.of(nature, forecast)
        checks = {c.name: c for c in statistics.checks(scores, {"in growth": scores.phase == 0, "in none": scores.phase > 5}, seed=0)}
        assert checks["relative WIS, log scale, in growth"].met is met
        assert not any("in none" in name for name in checks)
    below, count = statistics.states_below_one(statistics.Scores.of(nature, drawn), "log")
    assert (below, count) == (1, 1)


# --- the hubs' layout ---


def test_forecasts_survive_the_hubs_layout(tmp_path):
    nature, drawn = growing(6, 16, members=100)
    hub.write(drawn, tmp_path / "f.csv")
    with (tmp_path / "f.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 * 4 * 23
    assert lines[0]["location"] == "53"
    assert {line["horizon"] for line in lines} == {"1", "2", "3", "4"}
    back = hub.read(tmp_path / "f.csv")
    assert torch.equal(back.day, drawn.day)
    truth = nature.future[:, 0].numpy()
    one, two = (weighted_interval_score(truth, quantiles_of(f.future.permute(0, 2, 1).numpy(), HUB_LEVELS)) for f in (drawn, back))
    assert two == pytest.approx(one, rel=0.02)
    with pytest.raises(Refused, match="one path each"):
        hub.write(nature, tmp_path / "g.csv")


def hub_file(path, rows, header="reference_date,location,horizon,target_end_date,output_type,output_type_id,value"):
    path.write_text("\n".join([header, *rows]))
    return path


def test_horizons_from_zero_are_read_as_the_week_they_mean(tmp_path):
    rows = [f"2022-01-08,53,{h},{end},quantile,{level},{value}" for h, end in ((0, "2022-01-08"), (1, "2022-01-15"))
            for level, value in ((0.25, 10), (0.5, 20), (0.75, 30))]  # fmt: skip
    found = hub.read(hub_file(tmp_path / "f.csv", rows))
    assert found.day.tolist() == [day_of("2022-01-01")]
    assert found.horizon == 2
    assert np.median(found.future[0, :, 1]) == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["2022-01-01,53,1,2022-01-08,quantile,0.25,30", "2022-01-01,53,1,2022-01-08,quantile,0.5,20",
          "2022-01-01,53,1,2022-01-08,quantile,0.75,40"], "quantiles cross"),
        (["2022-01-01,53,1,2022-01-08,quantile,0.25,30"], "at least three with the median"),
        (["2022-01-01,WA,1,2022-01-08,quantile,0.5,30"], "line 2: location 'WA'"),
        (["2022-01-01,53,1,2022-01-08,mean,,30"], "no rows with output_type 'quantile'"),
        (["2022-01-01,53,1,2022-01-08,quantile,0.5,30", "2022-01-01,53,2,2022-01-18,quantile,0.5,30"], "disagree"),
    ],
)  # fmt: skip
def test_forecast_files_that_cannot_be_meant_are_refused(tmp_path, rows, said):
    with pytest.raises(Refused, match=said):
        hub.read(hub_file(tmp_path / "f.csv", rows))
    with pytest.raises(Refused, match="value missing"):
        hub.read(hub_file(tmp_path / "g.csv", [rows[0].rpartition(",")[0]], header=",".join(hub.NEEDED[:-1])))


def test_another_programs_file_is_judged_on_the_origins_that_it_forecasts(tmp_path, small):
    recipe, split, learner = small
    rows = split.held_out[::3]
    hub.write(learner.draw(rows, Noise(0, range(len(rows)))), tmp_path / "f.csv")
    found = gp.read_as(tmp_path / "f.csv", recipe)
    assert len(found) == len(split.held_out)
    assert found.future.isfinite().all(dim=1).any(dim=1).sum() == len(rows)
    evidence = statistics.judge(split.held_out, found, seed=0)
    assert evidence.nature_rows == len(rows)
    other = tmp_path / "other.csv"
    other.write_text(re.sub(r"(?m)^(\S{10}),9", r"\1,8", (tmp_path / "f.csv").read_text()))  # codes that no region has
    with pytest.raises(Refused, match="none of its"):
        gp.read_as(other, recipe)


# --- the study ---


def test_corrupting_the_future_changes_no_forecast(tmp_path):
    truth = simulate.epidemics(2, 420, seed=17).reported
    dates = {"last": "2021-04-17", "train_until": "2020-11-30", "tune_until": "2021-01-15"}
    recipe = gp.quick.model_copy(update={"evaluations": 8, **dates})
    cut = day_of("2021-02-20") - simulate.START + 1
    corrupted = truth.copy()
    corrupted[:, cut:] = truth[:, cut - 1 : cut] + np.random.default_rng(18).integers(-5000, 50_000, corrupted[:, cut:].shape)
    forecasts = []
    for name, totals in (("a", truth), ("b", corrupted)):
        split = gp.load(recipe.model_copy(update={"data": nyt_like(tmp_path / f"{name}.csv.gz", totals)}))
        learner = gp.build(recipe, split.train)
        learner.step(split.train[:4])
        early = split.held_out[split.held_out.day <= day_of("2021-02-20")]
        forecasts.append((early, learner.draw(early, Noise(1, range(len(early))))))
    (nature, one), (other, two) = forecasts
    assert len(nature) == 12
    assert not torch.equal(nature.future.nan_to_num(), other.future.nan_to_num())
    assert torch.equal(one.future, two.future)
    assert torch.equal(statistics.hub_baseline(nature), statistics.hub_baseline(other))


def test_members_fill_the_law_of_each_week_evenly_and_look_only_at_the_past(small):
    _, split, learner = small
    rows = split.held_out[:5]
    drawn = learner.draw(rows, Noise(3, range(5)))
    blind = learner._windows(rows.with_future(torch.full((5, 1, 4), torch.nan)))
    levels = np.broadcast_to(((np.arange(100) + 0.5) / 100)[None, :, None], (5, 100, 4)).copy()
    exact = blind.cases(pooled.forecast(learner.theta, blind).quantiles(levels))
    assert drawn.future.sort(dim=1).values.numpy() == pytest.approx(exact, rel=1e-5)
    again = learner.draw(rows.with_future(rows.future * 0 - 1), Noise(3, range(5)))
    assert torch.equal(again.future, drawn.future)
    alone = learner.draw(rows[2:3], Noise(3, range(2, 3)))
    assert torch.allclose(alone.future[0], drawn.future[2], rtol=1e-5)
    ranks = drawn.future.argsort(dim=1).argsort(dim=1).double()
    assert np.corrcoef(ranks[0, :, 2], ranks[0, :, 3])[0, 1] > 0.5  # weeks of one path hang together


def test_the_identity_scale_gives_forecasts_too(small):
    recipe, split, _ = small
    learner = gp.build(recipe.model_copy(update={"scale": "identity", "evaluations": 10}), split.train)
    learner.step(split.train[:4])
    future = learner.draw(split.held_out[:6], Noise(0, range(6))).future
    assert future.isfinite().all()
    assert future.min() >= 0


def test_the_best_start_is_kept_and_a_restored_learner_draws_the_same(small):
    recipe, split, _ = small
    learner = gp.build(recipe, split.train)
    values = [learner.step(split.train[:4]) for _ in range(3)]
    assert values[-1]["log_likelihood"] == max(v["this start"] for v in values)
    copy = gp.restore(recipe, learner.state_dict())
    rows = split.held_out[:3]
    assert torch.equal(copy.draw(rows, Noise(0, range(3))).future, learner.draw(rows, Noise(0, range(3))).future)
    with pytest.raises(Refused, match="without its training data"):
        copy.step(rows)


def test_the_examination_names_the_years_that_were_seen(small):
    _, split, learner = small
    _, checks = gp.examine(learner, split, 0)
    names = " ".join(c.name for c in checks)
    for said in ("(seen in training)", "(seen in tuning)", "(held out)", "1 week ahead", "4 weeks", "in steady", "known at the origin"):
        assert said in names, said
    assert all(np.isfinite([c.value, c.error]).all() for c in checks)


def test_forecasts_are_asked_for_by_state_and_date_newest_first(small):
    recipe, _, learner = small
    asked = gp.ask(recipe, 3, {"state": "simulated region 2", "origin": "2021-06-02"})
    assert gp.caption(asked) == [f"simulated region 2, 2021-{day}" for day in ("05-29", "05-22", "05-15")]
    assert asked.future.isnan().all()
    drawn = learner.draw(asked, Noise(0, range(3)))
    assert "simulated region 2, 2021-05-29: cases in the period to 2021-06-05" in gp.summary(asked, drawn)[0]
    assert len(set(gp.ask(recipe, 8, {}).series.tolist())) == 4
    with pytest.raises(Refused, match="not by colour"):
        gp.ask(recipe, 1, {"colour": "red"})
    with pytest.raises(Refused, match="known: simulated region 1"):
        gp.ask(recipe, 1, {"state": "Atlantis"})


def test_cases_of_a_real_state_are_not_made_up():
    with pytest.raises(Refused, match=r"cases of Washington are not simulated: give the table"):
        gp.load(gp.paper)


def test_dates_of_a_recipe_must_follow_each_other():
    with pytest.raises(ValueError, match="must follow each other"):
        gp.EpidemicRecipe(train_until="2022-01-01")
    with pytest.raises(ValueError, match="not a date"):
        gp.EpidemicRecipe(first="yesterday")


# --- the articles ---


def test_the_printed_error_is_the_mean_of_the_data_because_the_scale_is_applied_twice():
    rng = np.random.default_rng(19)
    cases = 300 + 100 * np.sin(np.arange(160) / 20) + rng.normal(0, 5, 160)
    setting = article.Setting("nowhere", 0, 0.001, 5, 5, np.nan)
    found = article.errors(cases, setting)
    assert found.printed == pytest.approx(cases.mean(), rel=1e-5)
    assert found.everywhere < 0.2 * found.printed
    assert found.days == 160 - 1 - 150


def test_the_articles_forecast_ahead_is_that_of_the_shortest_record_with_the_same_last_sample():
    rng = np.random.default_rng(20)
    cases = rng.poisson(200, 131).astype(float)
    setting = article.Setting("nowhere", 0, 0.001, 5, 5, np.nan)
    count = 131 + setting.off + setting.step - 1
    at = article.sampled(count, setting)
    assert at[-1] == 130
    law, x = article.posterior(cases, count, at, setting)
    mean, covariance = article.ahead(cases, 9, setting)
    assert mean == pytest.approx(law.mean(x[131:140]) / 0.001)
    assert covariance.diagonal().min() > 0.005 / 0.001**2  # observations: the noise is in
    assert x[count - 1] == pytest.approx(article.SPAN)


def test_the_paper_recipe_runs_on_a_look_alike_and_forecasts_from_sampled_days(tmp_path):
    totals = simulate.epidemics(2, 123, seed=21).reported
    path = nyt_like(tmp_path / "t.csv.gz", totals, names=("New York", "Texas"), fips=("36", "48"))
    recipe = gp.paper.model_copy(update={"data": path, "states": ()})
    split = gp.load(recipe)
    learner = gp.build(recipe, split.train)
    assert learner.step(split.train)["mean absolute error"] > 0
    places = split.held_out.day.numpy() - simulate.START
    assert set((places[split.held_out.series == 36] % 9).tolist()) == {0}
    drawn = learner.draw(split.held_out, Noise(0, range(len(split.held_out))))
    assert drawn.future.isfinite().all()
    assert len(statistics.judge(split.held_out, drawn, seed=0).findings) >= 5
    assert [c.met for c in gp.examine(learner, split, 0)[1]] == [False, False]  # a look-alike has other numbers than New York had
    assert len(gp.figures(learner, split, 0)) == 2


@real
def test_all_numbers_of_the_notebook_come_out_and_so_do_the_true_ones():
    recipe = gp.paper.model_copy(update={"data": Path(ROOT) / "covid"})
    _, checks = gp.examine(gp.build(recipe, None), gp.load(recipe), 0)
    assert len(checks) == 8
    assert all(check.met for check in checks)
    true = [[round(v, 1) for v in check.beside.values()] for check in checks]
    assert true == [
        [104.2, 93.7, 165.9], [87.2, 179.9, 178.7], [84.5, 170.9, 178.7], [177.3, 322.9, 811.5], [465.6, 2404.1, 3255.9],
        [320.8, 1647.2, 2240.3], [1001.9, 540.7, 350.2], [302.9, 1674.5, 2373.4],
    ]  # fmt: skip


@real
def test_the_real_table_tells_what_reporting_did_to_it():
    cases = data.weekly(data.read(Path(ROOT) / "covid"))
    assert len(cases.table.names) == 56
    assert sum("exceed" in line for line in cases.rejected) == 13
    assert "Florida, week to 2021-06-05: corrections exceed the cases reported, -31,478 in all" in cases.rejected
    assert np.nanmin(cases.table.values) >= 0
    assert replace(cases.table).every == 7
