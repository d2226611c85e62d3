"""Rivals that know the law they were shown and nothing of the future; a backtest that sees planted faults and finds no others."""

import csv
import gzip
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from simulacra.evidence import ALARM
from simulacra.measures.calibration import coverage
from simulacra.measures.scores import crps_gaussian, crps_members
from simulacra.series import backtest, rivals, windows
from simulacra.study import Refused

PHI, SCATTER = 0.7, 8.0  # of the anomalies: memory from day to day, standard deviation
LEVELS = (np.arange(99) + 0.5) / 99
START = windows.day_of("1995-01-01")


def season(days, every=1):
    angle = windows.year_phase(torch.as_tensor(days)).numpy()
    return 60 - 15 * np.cos(angle) + 4 * np.sin(2 * angle)


def anomalies(count, seed, *memory):
    """An autoregressive series of unit innovations scaled to SCATTER, (count,)."""
    noise = np.random.default_rng(seed).normal(size=count + 200)
    values = np.zeros(count + 200)
    for t in range(len(memory), len(values)):
        values[t] = noise[t] + sum(m * values[t - 1 - k] for k, m in enumerate(memory))
    return values[200:] / np.sqrt(np.mean(values[200:] ** 2)) * SCATTER


def rows_of(values, *, past=400, horizon=7, every=1, known=400):
    """Every origin of series (S, T) that begins in 1995."""
    values = np.atleast_2d(values)
    days = START + every * np.arange(values.shape[1])
    return windows.outlooks(SimpleNamespace(values=values[..., None], days=days, every=every), past, horizon, known)


def world(seed=0, years=12, memory=(PHI,), **how):
    """Season + anomalies: training of all but the last two years, and the origins of these."""
    days = START + np.arange(365 * years)
    rows = rows_of(season(days) + anomalies(len(days), seed, *memory), **how)
    cut = START + 365 * (years - 2)
    return rows[rows.day + rows.horizon <= cut], rows[rows.day >= cut]


def truth_of(rows, spread=1.0, shift=0.0, memory=PHI, seed=0, members=99):
    """The exact law of `world` as members: paths of AR(1), stratified at each lead."""
    last = rows.past[:, -1, 0].double().numpy() - season(rows.day.numpy())
    noise = np.random.default_rng(seed).normal(size=(len(rows), members, rows.horizon))
    path, paths = np.zeros(noise.shape[:2]), np.empty(noise.shape)
    for h in range(rows.horizon):
        path = memory * path + np.sqrt(1 - memory**2) * noise[:, :, h]
        paths[:, :, h] = path
    levels = windows.stratified(torch.from_numpy(paths)).numpy()
    leads = np.arange(1, rows.horizon + 1)
    centre = season(rows.target_days().numpy()) + last[:, None] * memory**leads
    sd = SCATTER * np.sqrt(1 - memory ** (2 * leads))
    return rows.with_future(torch.from_numpy(centre[:, None] + shift + spread * sd * ndtri(levels)))


@pytest.fixture(scope="module")
def ar1():
    return world()


@pytest.fixture(scope="module")
def found(ar1):
    return rivals.rivals(ar1[0])[0]


def mean_crps(truth, members):
    return np.nanmean(crps_members(truth.future[:, 0].numpy(), members.numpy().transpose(0, 2, 1)), axis=0)


def best_crps(horizon):
    """Of the exact law of `world`: sd / sqrt(pi) at each lead."""
    return SCATTER * np.sqrt(1 - PHI ** (2 * np.arange(1, horizon + 1))) / np.sqrt(np.pi)


# ------------------------------------------------------------------------------------------------------------- rivals


def test_persistence_of_a_random_walk_is_its_exact_law():
    walk = np.cumsum(np.random.default_rng(1).normal(size=6000))
    rows = rows_of(walk, past=8, known=8)
    members = rivals.persistence(rows[:5000])(rows[5100:5400]).numpy()
    sd = np.sqrt(np.arange(1, 8))
    expected = rows[5100:5400].past[:, -1, 0].numpy()[:, None, None] + ndtri(LEVELS)[:, None] * sd
    assert np.abs((members - expected) / sd)[:, 10:89].max() < 0.25


def test_persistence_ages_with_the_last_observation():
    walk = np.cumsum(np.random.default_rng(2).normal(size=4000))
    rows = rows_of(walk, past=8, known=8)
    forecast = rivals.persistence(rows[:3000])
    late = rows[3100:3101]
    stale = torch.clone(late.past)
    stale[:, -3:] = torch.nan
    aged = windows.Outlook(late.series, late.day, late.every, stale, late.future)
    earlier = rows[3097:3098]  # knew the same, three days before: its leads 4 to 7 are the aged one's 1 to 4
    torch.testing.assert_close(forecast(aged)[:, :, :4], forecast(earlier)[:, :, 3:])


def test_a_record_of_every_other_day_is_forecast_for_the_days_between_too():
    walk = np.cumsum(np.random.default_rng(0).normal(size=2000))
    walk[1::2] = np.nan
    rows = rows_of(walk, past=60, horizon=2, known=60)
    members = rivals.rivals(rows)[0]["persistence"](rows[:1])[0]  # the last day known is the day before the origin
    torch.testing.assert_close(members.std(dim=0), torch.tensor([2.0, 4.0]).sqrt(), rtol=0.1, atol=0)  # three days on: as four


def test_climatology_finds_the_season_and_forgets_the_past(ar1):
    training, held = ar1
    forecast = rivals.climatology(training)
    members = forecast(held).numpy()
    assert np.abs(np.median(members, axis=1) - season(held.target_days().numpy())).max() < 2.5  # 10 years of AR(1): s.e. about 1
    shifted = windows.Outlook(held.series, held.day, held.every, held.past + 50, held.future)
    np.testing.assert_array_equal(forecast(shifted).numpy(), members)
    y = held.future[:, 0].numpy()
    share, _ = coverage(y, members.transpose(0, 2, 1), [0.5, 0.95])
    np.testing.assert_allclose(share, [0.5, 0.95], atol=0.05)


def test_climatology_of_a_pure_season_is_that_season():
    days = START + np.arange(365 * 5)
    rows = rows_of(season(days))
    members = rivals.climatology(rows[:1000])(rows[1100:1110])
    torch.testing.assert_close(members, rows[1100:1110].future.expand(-1, 99, -1), atol=0.02, rtol=0)


def test_the_spread_of_climatology_follows_the_season():
    days = START + np.arange(365 * 12)
    rough = np.random.default_rng(3).normal(size=len(days)) * np.where(np.cos(windows.year_phase(torch.as_tensor(days)).numpy()) > 0, 9, 1)
    rows = rows_of(season(days) + rough)
    spread = rivals.climatology(rows[:3000])(rows[3300:3665]).std(dim=1)[:, 0]
    phase = windows.year_phase(rows[3300:3665].day)
    assert spread[phase.cos() > 0.6].min() > 6
    assert spread[phase.cos() < -0.6].max() < 2


def test_damped_anomaly_of_ar1_is_nearly_the_best_that_can_be_known(ar1, found):
    scored = mean_crps(ar1[1], found["damped anomaly"](ar1[1]))
    exact = mean_crps(ar1[1], truth_of(ar1[1]).future)
    np.testing.assert_allclose(exact, best_crps(7), rtol=0.1)
    assert (scored / exact < 1.03).all()
    assert (mean_crps(ar1[1], found["climatology"](ar1[1]))[:2] > scored[:2] * 1.1).all()
    assert (mean_crps(ar1[1], found["persistence"](ar1[1])) > scored).all()


def test_regression_uses_what_one_day_cannot_tell():
    training, held = world(seed=4, memory=(0.3, 0.5))
    both = rivals.rivals(training)[0]
    assert mean_crps(held, both["regression on 7 lags"](held))[0] < 0.93 * mean_crps(held, both["damped anomaly"](held))[0]


def test_regression_falls_back_to_the_damped_anomaly_where_a_day_is_missing(ar1, found):
    held = ar1[1][:20]
    past = torch.clone(held.past)
    past[::2, -4] = torch.nan
    gaps = windows.Outlook(held.series, held.day, held.every, past, held.future)
    regressed, damped = (found[name](gaps) for name in ("regression on 7 lags", "damped anomaly"))
    torch.testing.assert_close(regressed[::2], damped[::2])
    torch.testing.assert_close(regressed[1::2], found["regression on 7 lags"](held)[1::2])
    assert not torch.allclose(regressed[1::2], damped[1::2])


def test_seasonal_naive_says_what_was_a_year_ago_and_climatology_where_that_is_missing(ar1, found):
    held = ar1[1][:6]
    past = torch.clone(held.past)
    past[3, -365] = torch.nan
    gaps = windows.Outlook(held.series, held.day, held.every, past, held.future)
    members = found["seasonal naive"](gaps)
    before = held.past[:, -365:-358, 0]
    centre = members.median(dim=1).values - before
    torch.testing.assert_close(centre[0], centre[5], atol=1e-3, rtol=0)  # the same quantile of differences for all
    torch.testing.assert_close(members[3, :, 0], found["climatology"](gaps)[3, :, 0])
    torch.testing.assert_close(members[3, :, 1:], found["seasonal naive"](held)[3, :, 1:])


@pytest.mark.parametrize("name", ["persistence", "climatology", "damped anomaly", "seasonal naive", "regression on 7 lags"])
def test_a_rival_sees_no_future_and_no_other_row(ar1, found, name):
    held = ar1[1][:30]
    members = found[name](held)
    blind = held.with_future(torch.full_like(held.future, torch.nan))
    torch.testing.assert_close(found[name](blind), members)
    torch.testing.assert_close(torch.cat([found[name](held[:11]), found[name](held[11:])]), members)
    assert members.shape == (30, rivals.MEMBERS, 7)
    assert members.isfinite().all()


def test_what_comes_after_an_origin_changes_no_forecast_made_there():
    days = START + np.arange(365 * 5)
    values = season(days) + anomalies(len(days), 9, PHI)
    corrupted = np.where(days > START + 1500, values * 3 - 1000, values)
    made = []
    for series in (values, corrupted):
        rows = rows_of(series)
        origins = rows[(rows.day > START + 1400) & (rows.day <= START + 1500)]
        made.append({name: f(origins) for name, f in rivals.rivals(rows[rows.day + rows.horizon <= START + 1400])[0].items()})
    for name, members in made[0].items():
        torch.testing.assert_close(made[1][name], members, msg=name, rtol=0, atol=0)


def test_members_keep_their_level_along_the_path_except_those_of_climatology(ar1, found):
    held = ar1[1][:50]
    for name in ("persistence", "damped anomaly", "seasonal naive", "regression on 7 lags"):
        assert (found[name](held).diff(dim=1) >= 0).all(), name
    ranks = found["climatology"](held).argsort(dim=1).argsort(dim=1) / 98 - 0.5
    together = (ranks[:, :, 0] * ranks[:, :, 1]).mean() / (ranks**2).mean()
    assert abs(together) < 3 / np.sqrt(50 * 99)


def test_a_station_that_training_never_saw_is_forecast_by_what_all_taught():
    days = START + np.arange(365 * 6)
    two = np.stack([season(days) + anomalies(len(days), seed, PHI) for seed in (5, 6)])
    rows = rows_of(two)
    forecasts = rivals.rivals(rows[rows.day < START + 1500])[0]
    asked = rows[rows.day >= START + 1600][:40]
    stranger = windows.Outlook(asked.series + 7, asked.day, asked.every, asked.past, asked.future)
    for name, forecast in forecasts.items():
        members = forecast(stranger)
        assert members.isfinite().all(), name
        assert not torch.equal(members, forecast(asked)), name
        assert mean_crps(asked, members).mean() < 1.1 * mean_crps(asked, forecast(asked)).mean(), name


def test_what_cannot_be_fitted_is_left_out_and_said():
    short = rows_of(anomalies(150, 7, PHI), past=5, known=5)
    found, remarks = rivals.rivals(short[:100])
    assert set(found) == {"persistence", "climatology", "damped anomaly"}
    said = " ".join(remarks)
    for words in ("less than a whole year", "no seasonal naive forecast: it needs 365 periods", "no regression"):
        assert words in said
    assert all(forecast(short[110:]).isfinite().all() for forecast in found.values())


def test_more_than_a_year_ahead_there_is_no_seasonal_naive_forecast():
    rows = rows_of(anomalies(1200, 0, PHI), horizon=366)
    found, remarks = rivals.rivals(rows)
    assert "seasonal naive" not in found
    assert any("more than the 365 of a year" in remark for remark in remarks)
    assert all(bool(forecast(rows[:3]).isfinite().all()) for forecast in found.values())


def test_weeks_have_a_season_and_a_year_too():
    weeks = START + 7 * np.arange(52 * 9)
    rows = rows_of(season(weeks) + anomalies(len(weeks), 8, PHI), past=60, horizon=4, every=7, known=60)
    found, remarks = rivals.rivals(rows[:330])
    assert set(found) == {"persistence", "climatology", "damped anomaly", "seasonal naive", "regression on 7 lags"}
    assert not remarks
    held = rows[335:]
    assert mean_crps(held, found["damped anomaly"](held)).mean() < mean_crps(held, found["persistence"](held)).mean()


def test_only_the_last_thirty_years_make_the_normal():
    days = START + np.arange(365 * 45)
    rows = rows_of(np.where(np.arange(len(days)) < 365 * 14, -100.0, 0.0) + season(days), past=30, known=30)
    members = rivals.climatology(rows[:-20])(rows[-12:-7])
    torch.testing.assert_close(members, rows[-12:-7].future.expand(-1, 99, -1), atol=0.05, rtol=0)


def test_an_origin_without_any_observation_is_refused(ar1, found):
    held = ar1[1][:3]
    past = torch.clone(held.past)
    past[1] = torch.nan
    with pytest.raises(Refused, match=r"row 1 .*nothing was observed"):
        found["damped anomaly"](windows.Outlook(held.series, held.day, held.every, past, held.future))


def test_on_seattle_the_rivals_score_what_others_measured(data_folder):
    with gzip.open(data_folder / "weather" / "seattle_daily_1948_2017.csv.gz", "rt") as file:
        table = list(csv.DictReader(file))
    days = np.array([windows.day_of(row["DATE"]) for row in table])
    values = np.array([[[float(row["TMAX"] or "nan")] for row in table]])
    rows = windows.outlooks(SimpleNamespace(values=values, days=days, every=1), past=400, horizon=14, known=30)
    split = windows.split_by_date(rows, windows.day_of("2007-12-31"), windows.day_of("2012-12-31"), "Seattle", {})
    found, remarks = rivals.rivals(split.train)
    held = split.held_out
    assert len(held) == 1809
    assert not remarks
    for name, error in (("persistence", 4.10), ("climatology", 5.37), ("regression on 7 lags", 3.88)):
        median = found[name](held).median(dim=1).values
        assert float((median - held.future[:, 0])[:, 0].abs().mean()) == pytest.approx(error, abs=0.05), name


# ----------------------------------------------------------------------------------------------------------- backtest


def verdict(held, drawn, found, seed=0, **how):
    how = {"against": "climatology", "unit": "F", "leads": (1, 3, 7), **how}
    return backtest.judge(held, drawn, rivals=found, seed=seed, **how)


def energy_ratio(evidence):
    """Ratio to shuffled members and the ends of its interval, from the remark on energy scores."""
    remark = next(r for r in evidence.remarks if r.startswith("Energy score"))
    return [float(x) for x in re.search(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", remark).groups()]


def named(evidence, start):
    return next(f for f in evidence.findings if f.name.startswith(start))


@pytest.fixture(scope="module")
def exact(ar1, found):
    return verdict(ar1[1], truth_of(ar1[1]), found)


def test_the_exact_law_is_calibrated_better_than_climatology_and_not_told_from_nature(exact):
    assert exact.p > ALARM
    for start in ("coverage", "PIT, 1 day", "PIT, all"):
        assert named(exact, start).gap_low < 0.1, start
    crps = named(exact, "CRPS against climatology")
    assert crps.gap_high < 1
    np.testing.assert_allclose(crps.drawn, best_crps(7)[[0, 2, 6]], rtol=0.1)
    assert "better than climatology" in exact.remarks[0]
    assert exact.findings[0] is crps


def test_scores_of_the_evidence_are_those_of_the_closed_form(ar1, exact):
    held = ar1[1]
    last = held.past[:, -1, 0].numpy() - season(held.day.numpy())
    y, leads = held.future[:, 0].numpy(), np.array([1, 3, 7])
    centre = season(held.target_days().numpy())[:, leads - 1] + last[:, None] * PHI**leads
    expected = crps_gaussian(y[:, leads - 1], centre, SCATTER * np.sqrt(1 - PHI ** (2 * leads)))
    np.testing.assert_allclose(named(exact, "CRPS against climatology").drawn, np.nanmean(expected, axis=0), rtol=2e-3)
    np.testing.assert_allclose(named(exact, "MAE").drawn, np.nanmean(np.abs(y[:, leads - 1] - centre), axis=0), rtol=1e-3)


FAULTS = {
    "half the spread": {"spread": 0.5},
    "a third too wide": {"spread": 1.35},
    "a bias of a third of the scatter": {"shift": 0.35 * SCATTER},
    "too little memory, so errors follow errors": {"memory": 0.3},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_told_from_nature(ar1, found, fault):
    assert verdict(ar1[1], truth_of(ar1[1], **FAULTS[fault]), found, leads=(1,)).p <= ALARM


def test_half_the_spread_is_as_far_as_the_rival_of_calibration(ar1, found):
    evidence = verdict(ar1[1], truth_of(ar1[1], spread=0.5), found)
    for start in ("coverage", "PIT, 1 day", "PIT, all"):
        assert named(evidence, start).gap == pytest.approx(1, abs=0.3), start


def test_the_exact_law_is_called_different_as_rarely_as_promised():
    few = {"persistence": lambda rows: rows.past[:, -1:, :1] + torch.from_numpy(ndtri(LEVELS) * SCATTER)[:, None]}
    found = []
    for seed in range(60):
        days = START + np.arange(420)
        held = rows_of(season(days) + anomalies_exact(len(days), seed), past=2, horizon=1, known=2)
        found.append(verdict(held, truth_of(held), few, seed=seed, against="persistence", leads=(1,)).p)
    found = np.sort(found)
    assert np.abs(found - (np.arange(60) + 0.5) / 60).max() < 1.63 / np.sqrt(60)  # p is uniform: Kolmogorov at 1 %


def anomalies_exact(count, seed):
    """AR(1) whose law is exactly that of `truth_of`: not rescaled by what came out."""
    noise = np.random.default_rng([seed, 1]).normal(size=count)
    values = np.empty(count)
    values[0] = noise[0]
    for t in range(1, count):
        values[t] = PHI * values[t - 1] + np.sqrt(1 - PHI**2) * noise[t]
    return SCATTER * values


def test_blocks_are_no_shorter_than_the_furthest_lead():
    held = rows_of(anomalies(700, 3, PHI), past=3, horizon=50, known=3)
    few = {"persistence": lambda rows: rows.past[:, -1:, :1].expand(-1, 3, rows.horizon) + torch.tensor([-1.0, 0.0, 1.0])[:, None]}
    drawn = held.with_future(few["persistence"](held) * 0.5)
    said = [" ".join(verdict(held, drawn, few, against="persistence", leads=leads).remarks) for leads in ((1, 7), (1, 50))]
    assert "blocks of 30 days" in said[0]
    assert "blocks of 50 days" in said[1]


def test_a_rival_against_itself_has_gap_one_and_is_not_called_better(ar1, found):
    drawn = ar1[1].with_future(found["climatology"](ar1[1]))
    evidence = verdict(ar1[1], drawn, found)
    finding = named(evidence, "CRPS against climatology")
    assert finding.gap == finding.gap_low == finding.gap_high == 1
    assert "no difference shown" in evidence.remarks[0]
    assert "better" not in evidence.remarks[0]


def test_a_forecast_that_loses_is_called_worse(ar1, found):
    evidence = verdict(ar1[1], ar1[1].with_future(found["seasonal naive"](ar1[1])), found)
    assert named(evidence, "CRPS against climatology").gap_low > 1
    assert "worse than climatology" in evidence.remarks[0]


def test_paths_with_memory_move_as_nature_and_shuffled_ones_do_not(ar1, found, exact):
    drawn = truth_of(ar1[1])
    order = torch.rand(drawn.future.shape, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    shuffled = verdict(ar1[1], drawn.with_future(drawn.future.gather(1, order)), found)
    for start in ("change from one day", "peak within 7 days"):
        assert named(exact, start).gap_low < 0.2 < named(shuffled, start).gap_low, start
    ratio, _, high = energy_ratio(exact)
    assert ratio < high < 1
    assert energy_ratio(shuffled)[0] == pytest.approx(1, abs=0.01)
    assert named(exact, "CRPS against climatology").distance == pytest.approx(named(shuffled, "CRPS against climatology").distance)


def test_copies_of_a_station_add_no_certainty(ar1, found):
    held = ar1[1][:300]
    four = windows.Outlook.join([held] * 4)
    one, many = (named(verdict(r, truth_of(r, seed=3), found), "CRPS against climatology") for r in (held, four))
    assert many.gap_high - many.gap_low == pytest.approx(one.gap_high - one.gap_low, rel=0.02)


@pytest.mark.parametrize(("count", "members", "stations"), [(40, 12, 1), (40, 12, 10), (9, 5, 1), (2, 1, 1), (40, 1, 1)])
def test_tiny_samples_give_finite_findings_with_room_between_floor_and_ceiling(count, members, stations):
    few = {"persistence": lambda rows: rows.past[:, -1:, :1].expand(-1, 3, rows.horizon) + torch.tensor([-1.0, 0.0, 1.0])[:, None]}
    rows = rows_of(np.stack([anomalies(60, s, PHI) for s in range(stations)]), past=3, known=3)
    held = rows[torch.linspace(0, len(rows) - 1, count).long()]
    drawn = held.with_future(held.past[:, -1:, :1] + torch.randn(count, members, 7, generator=torch.Generator().manual_seed(1)))
    evidence = verdict(held, drawn, few, against="persistence")
    assert len(evidence.findings) >= 5 - (members < 2)
    for f in evidence.findings:
        assert np.isfinite([f.distance, f.floor, f.ceiling, f.gap, f.gap_low, f.gap_high]).all(), f.name
        assert f.floor < f.ceiling, f.name
        assert all(np.isfinite(v).all() for v in (f.truth, f.drawn, f.rival, f.band)), f.name
    checks = backtest.skill_checks(held, drawn, few, (1, 3), "F", 0)
    assert all(np.isfinite([c.value, c.error]).all() for c in checks)
    assert type(evidence).from_json(evidence.to_json()).findings[0].name == evidence.findings[0].name


def test_a_perfect_rival_on_a_constant_series_leaves_numbers():
    held = rows_of(np.full(90, 3.0), past=3, known=3)
    same = {"persistence": lambda rows: rows.past[:, -1:, :1].expand(-1, 5, rows.horizon)}
    evidence = verdict(held, held.with_future(torch.full((len(held), 9, 7), 3.0)), same, against="persistence")
    assert all(f.floor < f.ceiling and np.isfinite(f.gap) for f in evidence.findings)
    assert "better" not in evidence.remarks[0]


def test_a_lead_whose_truth_is_unknown_everywhere_is_left_out(ar1, found):
    held = ar1[1][:60]
    future = torch.clone(held.future)
    future[:, :, 2] = torch.nan
    future[5, :, 0] = torch.nan
    evidence = verdict(held.with_future(future), truth_of(held), found)
    assert named(evidence, "CRPS").grid.tolist() == [1, 7]
    assert any("no origin has its whole future known" in r for r in evidence.remarks)


def test_few_members_are_not_asked_for_intervals_that_they_cannot_show(ar1, found):
    held = ar1[1][:100]
    evidence = verdict(held, truth_of(held, members=12), found)
    np.testing.assert_allclose(named(evidence, "coverage").grid, [50, 80, 90])
    assert "12 members show no interval of 95 %: draw more" in evidence.remarks


def test_rivals_are_asked_without_the_future(ar1):
    seen = []

    def curious(rows):
        seen.append(bool(rows.future.isnan().all()))
        return rows.past[:, -1:, :1].expand(-1, 4, rows.horizon) + torch.arange(4.0)[:, None]

    held = ar1[1][:50]
    verdict(held, truth_of(held), {"curious": curious}, against="curious")
    assert seen == [True]


def test_scores_on_another_scale_are_of_transformed_values(ar1, found):
    held = ar1[1][:80]
    drawn = truth_of(held)
    evidence = verdict(held, drawn, found, transform=np.log1p, unit="log(1 + F)")
    y = np.log1p(held.future[:, 0].numpy())[:, [0, 2, 6]]
    x = np.log1p(drawn.future.numpy())[:, :, [0, 2, 6]].transpose(0, 2, 1)
    np.testing.assert_allclose(named(evidence, "CRPS").drawn, crps_members(y, x).mean(axis=0), rtol=1e-5)


def test_checks_are_met_only_where_the_interval_of_the_difference_excludes_zero(ar1, found):
    held = ar1[1]
    among = {name: found[name] for name in ("persistence", "climatology", "damped anomaly")}
    checks = {c.name: c for c in backtest.skill_checks(held, truth_of(held), among, (1, 7), "F", 0, against="persistence")}
    assert checks["CRPS, 1 day ahead (F)"].met
    assert checks["CRPS, 7 days ahead (F)"].met
    assert set(checks["MAE of the median, 1 day ahead (F)"].beside) == set(among)
    assert "below persistence: difference -" in checks["CRPS, 1 day ahead (F)"].target
    assert checks["coverage of 95 % intervals"].met
    same = backtest.skill_checks(held, held.with_future(among["climatology"](held)), among, (7,), "F", 0)
    for check in same[:2]:
        assert not check.met
    drawn = held.with_future(among["damped anomaly"](held))
    assert "no difference shown" in backtest.skill_checks(held, drawn, among, (1,), "F", 0, against="damped anomaly")[0].target
    few = backtest.skill_checks(held[:20], truth_of(held[:20]), among, (1,), "F", 0, against="persistence")
    assert not any(c.met for c in few[:2])
    assert "20 days, too few to say" in few[0].target


def test_skill_by_lead_is_one_minus_the_ratio_of_mean_scores(ar1, found):
    held = ar1[1][:365]
    skills = backtest.skills(held, truth_of(held), {"climatology": found["climatology"]}, (1, 7), seed=0)["climatology"]
    ours, theirs = mean_crps(held, truth_of(held).future), mean_crps(held, found["climatology"](held))
    np.testing.assert_allclose(skills[:, 0], (1 - ours / theirs)[[0, 6]], rtol=1e-6)
    assert skills[0, 1] > 0.1  # one day ahead, memory tells much
    assert (skills[:, 1] < skills[:, 0]).all()
    assert (skills[:, 0] < skills[:, 2]).all()


def test_forecasts_of_other_rows_are_refused_in_words(ar1, found):
    held = ar1[1][:40]
    drawn = truth_of(held)
    wrong = {
        "row for row: 40 origins": drawn[:30],
        "row 1: the held-out origin has day 2004-12-30, the forecast 2004-12-31": drawn[[0, 2, *range(2, 40)]],
        "has series 0, the forecast 5": windows.Outlook(drawn.series + 5, drawn.day, drawn.every, drawn.past, drawn.future),
        "another past": windows.Outlook(drawn.series, drawn.day, drawn.every, drawn.past + 1, drawn.future),
        "not a finite number": drawn.with_future(drawn.future.clone().index_fill_(0, torch.tensor([3]), torch.nan)),
    }
    for words, rows in wrong.items():
        with pytest.raises(Refused, match=words):
            verdict(held, rows, found)
    with pytest.raises(Refused, match="may be exchanged"):
        verdict(drawn, held, found)
    with pytest.raises(Refused, match="held against 'magic'"):
        verdict(held, drawn, found, against="magic")
    with pytest.raises(Refused, match="none of the leads 30"):
        verdict(held, drawn, found, leads=(30,))
    with pytest.raises(Refused, match="start on one day"):
        verdict(held[:1], drawn[:1], found)
