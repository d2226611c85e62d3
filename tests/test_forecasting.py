"""A user's own series through `simulacra forecast`: the backtest is honest, the law is exact, and bad input is told in words."""

import csv
import datetime
import re

import numpy as np
import pytest
import torch

from simulacra import forecasting
from simulacra.evidence import Finding
from simulacra.families.gp import ExponentiatedQuadratic, GaussianProcess, Matern, Periodic, White, dense, fit
from simulacra.forecasting import outcome as told
from simulacra.forecasting.process import Model, Scale, compose
from simulacra.measures.scores import quantiles_of
from simulacra.series import windows
from simulacra.series.reading import Table
from simulacra.study import Refused
from test_cli import call_quietly

START = datetime.date(2018, 1, 1)
DAY_ZERO = (START - datetime.date(1970, 1, 1)).days


def dated(n, step=1):
    return [(START + datetime.timedelta(days=i * step)).isoformat() for i in range(n)]


def autoregression(n, memory=0.7, seed=0):
    rng, now, found = np.random.default_rng(seed), 0.0, []
    for step in rng.standard_normal(n):
        now = memory * now + step
        found.append(now)
    return np.array(found)


def table_of(*series, every=1, unit="", name="s"):
    days = DAY_ZERO + every * np.arange(len(series[0]))
    values = np.stack([np.asarray(one, float) for one in series])[..., None]
    return Table([f"{name}{i}" for i in range(len(series))], days, values, ("value",), unit, (), {"made": "0" * 64})


def write(folder, header, rows, name="mine.csv"):
    path = folder / name
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def written(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written_values(path):
    return [row["tmax_f"] for row in written(path)]


def a_file(folder, values, header="date,tmax", step=1, name="mine.csv"):
    return write(folder, header, zip(dated(len(values), step), values, strict=True), name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One forecast of a small file by the command, with everything that it writes."""
    folder = tmp_path_factory.mktemp("forecast")
    path = a_file(folder, np.round(60 + 4 * autoregression(260), 1), "date,tmax_f")
    found = call_quietly("forecast", path, "--horizon", 7, "-o", folder / "f.csv", "--report", folder / "f.html")
    again = call_quietly("forecast", path, "--horizon", 7, "-o", folder / "f.npz", "-q")
    return folder, found, again


# ------------------------------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("gaps", [False, True])
def test_the_law_at_every_origin_is_that_of_the_whole_past(gaps):
    week = Periodic(0.2, 1.2, 7.0) * Matern(0.5, 1.0, 90.0, fixed=("variance",))
    kernel = Matern(0.5, 0.6, 4.0) + Matern(1.5, 0.3, 60.0) + week + White(0.1)
    days, z = DAY_ZERO + np.arange(400), autoregression(400)
    if gaps:
        z[np.random.default_rng(1).random(400) < 0.3] = np.nan
        z[305:330] = np.nan
    scale = Scale(False, -np.inf, 0.0, np.ones(1))
    model = Model(scale, kernel, {}, days[:300], z[:300], 1, 1.0, (), (), "banded")
    origins = days[[299, 303, 340, 399]]
    mean, covariance = model.laws(days, z, origins, 14)
    for row, origin in enumerate(origins):
        past = days <= origin
        posterior = GaussianProcess(kernel).condition(days[past].astype(float), z[past], solver="dense")
        ahead = origin + np.arange(1.0, 15.0)
        np.testing.assert_allclose(mean[row], posterior.mean(ahead), atol=1e-6)
        np.testing.assert_allclose(covariance[row], posterior.covariance(ahead, noise=True), atol=1e-6)


def test_members_are_the_quantiles_of_the_law_and_paths_move_as_it_says():
    kernel = Matern(0.5, 1.0, 5.0) + White(0.05)
    days, z = DAY_ZERO + np.arange(200), autoregression(200)
    model = Model(Scale(False, -np.inf, 10.0, np.array([4.0])), kernel, {}, days, z, 1, 1.0, (), (), "banded")
    values = 10 + 2 * z
    rows = windows.origins_on(table_of(values), 30, 14, int(days[-1]))
    drawn = model.draw(rows, days, values, 999, 0).future[0].double().numpy()
    mean, covariance = model.laws(days, values, days[-1:], 14)
    np.testing.assert_allclose(drawn.mean(axis=0), 10 + 2 * mean[0], atol=1e-3)
    np.testing.assert_allclose(drawn.std(axis=0), 2 * np.sqrt(np.diag(covariance[0])), rtol=0.01)
    expected = covariance[0] / np.sqrt(np.outer(np.diag(covariance[0]), np.diag(covariance[0])))
    np.testing.assert_allclose(np.corrcoef(drawn.T), expected, atol=0.12)


def test_nothing_of_the_future_reaches_an_origin():
    values = autoregression(300)
    one = forecasting.forecast(table_of(values), horizon=3, origins=12)
    changed = values.copy()
    at = int(one.nature.day[6]) - DAY_ZERO
    changed[at + 1 :] += 100.0
    other = forecasting.forecast(table_of(changed), horizon=3, origins=12)
    np.testing.assert_array_equal(one.drawn.future[:7].numpy(), other.drawn.future[:7].numpy())
    assert not np.allclose(one.drawn.future[7].numpy(), other.drawn.future[7].numpy())
    assert not np.allclose(one.ahead.future.numpy(), other.ahead.future.numpy())


def test_origins_lie_in_the_last_fifth_and_rivals_learn_before_it():
    table = table_of(autoregression(500))
    outcome = forecasting.forecast(table, horizon=3, origins=40)
    first, last = int(outcome.nature.day.min()), int(outcome.nature.day.max())
    assert first == table.days[399]
    assert last == table.days[-2]
    assert len(outcome.nature) == 40
    training = forecasting._training(table, 400, 3, first, [0])
    known = windows.as_series(training)[0]
    assert known[0][-1] == first
    np.testing.assert_allclose(known[1][:, 0], table.values[0, :400, 0], rtol=1e-6)


def test_a_change_of_units_changes_nothing_else():
    values = autoregression(200)
    celsius, fahrenheit = (forecasting.forecast(table_of(v), horizon=3, origins=30) for v in (values, 32 + 1.8 * values))
    np.testing.assert_allclose(32 + 1.8 * celsius.ahead.future.numpy(), fahrenheit.ahead.future.numpy(), rtol=1e-3, atol=1e-2)


# --------------------------------------------------------------------------------------------------- what is composed


def test_a_year_is_taken_in_where_two_are_known():
    days = DAY_ZERO + np.arange(900)
    values = 10 * np.cos(2 * np.pi * days / windows.YEAR) + autoregression(900) * (2 + np.cos(2 * np.pi * days / windows.YEAR))
    model = compose(days, values, 1)
    assert list(model.words.values()) == ["short memory", "slow trend", "year"]
    spread = model.scale.spread(days)
    assert spread.max() > 1.6 * spread.min()
    short = compose(days[:600], values[:600], 1)
    assert "year" not in short.words.values()
    assert any("2 years of values are needed, and there are 1.6" in remark for remark in short.remarks)
    warm = compose(days[:600], values[:600], 1, "°C")  # nobody doubts that a temperature has one
    assert "year" in warm.words.values()
    assert len(warm.scale.variance) == 1


@pytest.mark.parametrize(("amplitude", "there"), [(0.0, False), (1.5, True)])
def test_a_week_is_taken_in_where_it_shows(amplitude, there):
    days = DAY_ZERO + np.arange(250)
    model = compose(days, autoregression(250) + amplitude * (days % 7 == 3), 1)
    assert ("week" in model.words.values()) == there
    assert any(remark.startswith("A week shows" if there else "No weekly cycle") for remark in model.remarks)


def test_counts_that_grow_by_factors_are_forecast_on_a_logarithmic_scale():
    rng = np.random.default_rng(0)
    growing = rng.poisson(np.exp(3 + 2.5 * np.sin(np.arange(200) / 25)))
    model = compose(DAY_ZERO + np.arange(200), growing.astype(float), 1)
    assert model.scale.log
    assert any("log(1 + count)" in remark for remark in model.remarks)
    values = np.array([0.0, 3.0, 5000.0])
    days = DAY_ZERO + np.arange(3)
    np.testing.assert_allclose(model.scale.values(days, model.scale.standardised(days, values)), values, atol=1e-6)


def test_other_whole_numbers_are_not():
    days = DAY_ZERO + np.arange(300)
    level = np.round(60 + 8 * autoregression(300))
    assert not compose(days, level, 1).scale.log  # as counts, they do not change by factors
    assert not compose(days, np.maximum(np.round(5 + 6 * autoregression(300)), 0), 1, "°C").scale.log  # a temperature
    assert not compose(days, level + 0.5, 1).scale.log


def test_what_is_never_negative_is_never_forecast_below_0():
    rain = np.maximum(autoregression(300) - 0.5, 0)
    outcome = forecasting.forecast(table_of(rain), horizon=3, origins=30)
    assert float(outcome.ahead.future.min()) == 0
    assert any("set to 0" in remark for remark in outcome.evidence.remarks)


# --------------------------------------------------------------------------------------------------------- the verdict


def finding(rival, gap, low, high):
    one = np.ones(1)
    return Finding(f"CRPS against {rival}", "°F", "", "lead (days)", one, one, one, one, one, rival, gap, 0.0, 1.0, gap, low, high)


class Said:
    checks = ()

    def __init__(self, *findings):
        self.findings = findings


@pytest.mark.parametrize("low", [0.5, 0.9, 0.999, 1.001, 1.2])
@pytest.mark.parametrize("high", [0.8, 0.999, 1.0, 1.001, 1.5])
@pytest.mark.parametrize("days", [10, 100])
def test_better_is_never_said_where_the_interval_covers_no_difference(low, high, days):
    if low > high:
        low, high = high, low
    words = forecasting.verdict(Said(finding("climatology", (low + high) / 2, low, high)), days)
    assert ("Better" in words) == (high < 1 and days >= 30)
    assert ("Worse" in words) == (low > 1 and days >= 30)
    assert ("no difference shown" in words.lower()) == (low <= 1 <= high or days < 30)


def test_the_best_rival_decides_and_persistence_is_named_beside_it():
    good = dict(vars(finding("regression", 1.3, 1.1, 1.5)), ceiling=0.5)
    words = forecasting.verdict(Said(finding("persistence", 0.7, 0.6, 0.8), Finding(**good)), 100)
    assert words.startswith("Worse than regression")
    assert "use regression" in words
    assert "Persistence (tomorrow = today) is worse" in words


def test_on_a_random_walk_persistence_is_as_good():
    outcome = forecasting.forecast(table_of(np.cumsum(np.random.default_rng(0).standard_normal(400))), horizon=3)
    assert "Better" not in outcome.verdict
    assert "difference" in outcome.verdict


def test_a_memory_that_rivals_miss_is_shown_to_be_worth_something():
    rng = np.random.default_rng(3)
    hidden = autoregression(600, 0.95, 1)
    outcome = forecasting.forecast(table_of(hidden + 2 * rng.standard_normal(600)), horizon=3, origins=110)
    persistence = next(f for f in outcome.evidence.findings if f.name == "CRPS against persistence")
    assert persistence.gap_high < 1
    assert "Persistence (tomorrow = today) is worse" in outcome.verdict or "Better than persistence" in outcome.verdict


def test_ninety_five_percent_bands_hold_about_so_much():
    outcome = forecasting.forecast(table_of(autoregression(600, seed=5)), horizon=7, origins=110)
    found = next(f for f in outcome.evidence.findings if f.name.startswith("coverage"))
    assert abs(found.drawn[-1] - 95) < 4
    assert "95 % held" in told.coverage(outcome)


# --------------------------------------------------------------------------------------------------------- the command


def test_the_backtest_is_printed_before_the_forecast(whole):
    _, (code, out, _), _ = whole
    assert code == 0
    words = ["Backtest (°F)", "persistence", "Coverage of central intervals", "difference", "median, [half of cases]", "wrote"]
    places = [out.index(word) for word in words]
    assert places == sorted(places)
    assert re.search(r"1\s+MAE", out)


def test_the_file_of_quantiles_says_what_the_paths_do(whole):
    folder, _, _ = whole
    rows = written(folder / "f.csv")
    assert [row["lead"] for row in rows] == [str(h) for h in range(1, 8)]
    assert rows[0]["date"] == (START + datetime.timedelta(days=260)).isoformat()
    assert rows[0]["series"] == "mine"
    names = ["q0.025", "q0.1", "q0.25", "median", "q0.75", "q0.9", "q0.975"]
    numbers = np.array([[float(row[name]) for name in names] for row in rows])
    assert (np.diff(numbers, axis=1) > 0).all()
    ahead = windows.read(folder / "f.npz")
    assert ahead.future.shape == (1, 999, 7)
    np.testing.assert_allclose(numbers, quantiles_of(ahead.future[0].numpy().T, told.QUANTILES), rtol=1e-5)
    np.testing.assert_allclose([float(row["mean"]) for row in rows], ahead.future[0].double().mean(dim=0), rtol=1e-5)


def test_quiet_leaves_the_verdict(whole):
    _, _, (code, out, _) = whole
    assert code == 0
    assert "Backtest" in out
    assert "difference" in out
    assert "fitted" not in out
    assert "median, [" not in out


def test_the_report_is_one_page_that_loads_nothing(whole):
    folder, _, _ = whole
    page = (folder / "f.html").read_text(encoding="utf-8")
    for word in ("Forecast of tmax_f (°F)", "What it is made of", "The last year of the record", "Calibration", "Skill by lead"):
        assert word in page
    assert "difference" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page


def test_the_rival_that_the_backtest_recommends_can_look_ahead_instead(whole, tmp_path):
    folder, _, _ = whole
    code, _, _ = call_quietly("forecast", folder / "mine.csv", "--horizon", 3, "--by", "persistence", "-o", tmp_path / "f.csv")
    assert code == 0
    last = float(written_values(folder / "mine.csv")[-1])
    assert all(abs(float(row["median"]) - last) < 1.0 for row in written(tmp_path / "f.csv"))
    code, _, err = call_quietly("forecast", folder / "mine.csv", "--horizon", 3, "--by", "oracle")
    assert code == 3
    assert "damped anomaly" in err


def test_help_teaches_with_an_example():
    code, out, _ = call_quietly("forecast", "--help")
    assert code == 0
    for word in ("--column", "--series-column", "--cumulative", "--run", "--origins", "simulacra forecast my.csv --column tmax"):
        assert word in " ".join(out.split())


def test_every_series_is_forecast_and_judged_or_only_the_one_asked_for(tmp_path):
    days, values = dated(150), {"A": autoregression(150, seed=1), "B": autoregression(150, seed=2)}
    rows = [(days[i], name, round(values[name][i], 2)) for name in values for i in range(150)]
    path = write(tmp_path, "date,station,level", rows)
    code, out, _ = call_quietly("forecast", path, "--series-column", "station", "--horizon", 2, "-o", tmp_path / "f.csv")
    assert code == 0
    assert "\nA: " in out
    assert "\nB: " in out
    assert "All series together: " in out
    assert {row["series"] for row in written(tmp_path / "f.csv")} == {"A", "B"}
    code, out, _ = call_quietly("forecast", path, "--series-column", "station", "--series", "B", "--horizon", 2, "-o", tmp_path / "g.csv")
    assert {row["series"] for row in written(tmp_path / "g.csv")} == {"B"}
    code, _, err = call_quietly("forecast", path, "--series-column", "station", "--series", "C")
    assert code == 3
    assert "A, B" in err


@pytest.mark.parametrize("n", [14, 25, 50])
def test_short_records_work_and_say_what_is_missing(tmp_path, n):
    path = a_file(tmp_path, np.round(autoregression(n), 2), "date,level")
    code, out, _ = call_quietly("forecast", path, "--horizon", 3)
    assert code == 0
    assert "show no trend, week or year" in out
    assert "too few to say" in out
    assert "Better" not in out


def test_what_came_too_late_to_be_tried_out_is_told(tmp_path):
    code, out, _ = call_quietly("forecast", a_file(tmp_path, np.round(autoregression(66), 2), "date,level"), "--horizon", 3)
    assert code == 0
    assert "the backtest had too few days for all parts of the forecast: slow trend" in " ".join(out.split())


def test_remarks_that_differ_in_numbers_only_are_told_once():
    three = [autoregression(150, seed=seed) for seed in (1, 2, 3)]
    outcome = forecasting.forecast(table_of(*three), horizon=2)
    weeks = [remark for remark in outcome.evidence.remarks if "weekly cycle" in remark]
    assert len(weeks) == 1
    assert weeks[0].startswith("3 of 3 series, such as s0: No weekly cycle")


def test_records_that_end_before_1970_are_forecast():
    table = table_of(autoregression(120))
    old = Table(table.names, table.days - 30_000, table.values, table.columns, "", (), table.files)
    outcome = forecasting.forecast(old, horizon=2)
    assert int(outcome.ahead.day[0]) < 0
    assert bool(outcome.ahead.future.isfinite().all())


def test_few_values_widen_the_bands():
    days, values = DAY_ZERO + np.arange(400), autoregression(400)
    few, many = compose(days[:12], values[:12], 1), compose(days, values, 1)
    assert few.widened > 1.3
    assert many.widened < 1.05


def test_weekly_series_look_weeks_ahead(tmp_path):
    path = a_file(tmp_path, np.round(autoregression(150), 2), "date,level", step=7)
    code, out, _ = call_quietly("forecast", path, "--horizon", 3, "-o", tmp_path / "f.csv")
    assert code == 0
    assert "One value a week" in out
    rows = written(tmp_path / "f.csv")
    assert rows[2]["date"] == (START + datetime.timedelta(days=7 * 152)).isoformat()


# ----------------------------------------------------------------------------------------------------------- bad input


def interleaved(folder):
    days, values = dated(60), np.round(autoregression(60), 2)
    rows = [(days[i], values[i] + shift) for i in range(60) for shift in (0, 10)]
    return write(folder, "date,level", rows)


def infinite(folder):
    values = [str(v) for v in np.round(autoregression(60), 2)]
    values[20] = "inf"
    return a_file(folder, values)


BAD = {
    "no date column": (lambda f: write(f, "day_of_year,tmax", enumerate(range(50))), ("no date column", "2020-04-03")),
    "two series interleaved": (interleaved, ("2 series interleaved", "names the series")),
    "a constant": (lambda f: a_file(f, [5.0] * 50), ("is 5 on all 50 days", "constant")),
    "three points": (lambda f: a_file(f, [1.0, 2.0, 4.0]), ("holds 3 values", "at least 14")),
    "infinite values": (infinite, ("line 22", "infinite")),
    "running totals": (lambda f: a_file(f, np.cumsum(np.arange(60) % 9)), ("running totals", "--cumulative", "--no-cumulative")),
    "no such file": (lambda f: f / "nothing.csv", ("no such file",)),
    "mostly missing": (lambda f: a_file(f, ["" if i % 4 else i % 9 for i in range(200)]), ("is missing on", "60%")),
    "no numbers": (lambda f: a_file(f, ["warm"] * 50), ("no column of numbers",)),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_words(tmp_path, what):
    make, words = BAD[what]
    code, _, err = call_quietly("forecast", make(tmp_path))
    assert code == 3
    for word in words:
        assert word in err


def test_forty_percent_missing_works_and_is_warned_of(tmp_path):
    values = [str(v) for v in np.round(autoregression(300), 2)]
    for i in np.random.default_rng(0).choice(300, 120, replace=False):
        values[i] = ""
    code, out, _ = call_quietly("forecast", a_file(tmp_path, values, "date,level"), "--horizon", 3, "-q")
    assert code == 0
    assert "Warning: " in out
    assert "no value" in out


def test_celsius_labelled_fahrenheit_is_warned_of(tmp_path):
    values = np.round(12 + 3 * autoregression(150), 1)
    code, out, _ = call_quietly("forecast", a_file(tmp_path, values), "--unit", "F", "--horizon", 3, "-q")
    assert code == 0
    assert "Warning: " in out
    assert "labelled °F" in out


def test_running_totals_are_differenced_when_asked(tmp_path):
    totals = np.cumsum(np.random.default_rng(0).poisson(40, 200))
    path = a_file(tmp_path, totals, "date,cases")
    code, out, _ = call_quietly("forecast", path, "--cumulative", "--horizon", 2, "-o", tmp_path / "f.csv")
    assert code == 0
    assert "was differenced" in out
    assert all(10 < float(row["median"]) < 80 for row in written(tmp_path / "f.csv"))


def test_gaps_american_dates_disorder_and_duplicates_are_told_and_borne(tmp_path):
    days = [datetime.date.fromisoformat(day).strftime("%m/%d/%Y") for day in dated(220)]
    rows = list(zip(days, np.round(autoregression(220), 2), strict=True))
    rows = rows[:50] + rows[60:120] + rows[119:] + rows[50:53]
    code, out, _ = call_quietly("forecast", write(tmp_path, "day,level", rows), "--horizon", 3)
    assert code == 0
    for word in ("out of order", "merged", "no value"):
        assert word in out


def test_where_nothing_can_be_written_nothing_is_computed(tmp_path):
    path = a_file(tmp_path, autoregression(60))
    for flags, word in ((("-o", tmp_path / "f.xlsx"), ".csv or .npz"), (("--report", tmp_path / "no" / "f.html"), "no folder")):
        code, out, err = call_quietly("forecast", path, *flags)
        assert code == 3
        assert word in err
        assert not out


def test_a_kernel_without_a_cholesky_factor_names_the_parameter(monkeypatch):
    monkeypatch.setattr(dense, "JITTERS", (0.0,))  # else a millionth of the variance would be added, and said
    t = np.arange(0.0, 3.0, 0.01)
    with pytest.raises(Refused, match=r"'exponentiated quadratic.lengthscale' is 1e\+04 times the spacing|'lengthscale' is 1e\+04 times"):
        fit(GaussianProcess(ExponentiatedQuadratic(1.0, 100.0)), t, np.sin(t), solver="dense")


def test_a_series_that_is_quiet_before_the_origins_is_refused(tmp_path):
    values = np.r_[np.zeros(90), autoregression(10)]
    code, _, err = call_quietly("forecast", a_file(tmp_path, values, "date,level"))
    assert code == 3
    assert "or all equal" in err


# --------------------------------------------------------------------------------------------------------- a given run


@pytest.fixture(scope="module", params=["weather.lstm", "weather.gp"])
def run_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = a_file(folder, np.round(60 + 4 * autoregression(500), 1), "date,temp_max")
    flags = {"weather.lstm": ("--steps", 20), "weather.gp": ("--steps", 1)}[request.param]
    code, _, err = call_quietly(
        "run", request.param, "--data", path, "--past", 40, "--horizon", 5, "--draws", 40, *flags, "--out", folder / "run", "-q"
    )
    assert code == 0, err
    return folder


def test_a_finished_run_forecasts_in_place_of_the_process(run_folder, tmp_path):
    code, out, err = call_quietly(
        "forecast", run_folder / "mine.csv", "--run", run_folder / "run", "--horizon", 3, "--origins", 40, "-o", tmp_path / "f.csv"
    )
    assert code == 0, err
    assert "Backtest" in out
    assert "fitted" not in out
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 4
    held_out = windows.read(run_folder / "run" / "drawn" / "nature.npz")
    first = re.search(r"origins from (\S+) to", out)[1]
    assert windows.day_of(first) >= int(held_out.day.min())  # days that the run learned from are not tried


def test_a_run_that_does_not_fit_the_file_is_refused(run_folder, tmp_path):
    run, path = run_folder / "run", run_folder / "mine.csv"
    code, _, err = call_quietly("forecast", path, "--run", run, "--horizon", 30)
    assert code == 3
    assert "looks 5 days ahead" in err
    wide = write(tmp_path, "date,temp_max,temp_min", zip(dated(200), autoregression(200), autoregression(200, seed=1), strict=True))
    code, _, err = call_quietly("forecast", wide, "--run", run, "--horizon", 3)
    assert code == 3
    assert "1 columns" in err
    code, _, err = call_quietly("forecast", path, "--run", run_folder, "--horizon", 3)
    assert code == 3


# ---------------------------------------------------------------------------------------------------------- real data


def test_seattle_is_forecast_and_skagit_refused(data_folder, tmp_path):
    path = data_folder / "weather" / "seattle_daily_2012_2015.csv.gz"
    code, out, _ = call_quietly("forecast", path, "--column", "temp_max", "--unit", "C", "-o", tmp_path / "f.csv")
    assert code == 0
    assert "Persistence (tomorrow = today) is worse" in " ".join(out.split())
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 15
    code, _, err = call_quietly("forecast", data_folder / "weather" / "skagit_six_series.csv")
    assert code == 3
    assert "no date column" in err


def test_members_do_not_depend_on_threads_or_order():
    torch.manual_seed(1)
    one = forecasting.forecast(table_of(autoregression(120)), horizon=2, origins=8)
    torch.manual_seed(2)
    other = forecasting.forecast(table_of(autoregression(120)), horizon=2, origins=8)
    np.testing.assert_array_equal(one.ahead.future.numpy(), other.ahead.future.numpy())
    np.testing.assert_array_equal(one.drawn.future.numpy(), other.drawn.future.numpy())
