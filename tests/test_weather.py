"""Forecasts of weather: against laws that are known, and against what the article printed."""

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from simulacra.measures.scores import crps_gaussian, crps_members
from simulacra.pipeline import draw_like
from simulacra.sciences.weather import article, data, forecast, gp, lstm
from simulacra.sciences.weather.climate import Climate, harmonics
from simulacra.series.windows import Outlook, day_of, outlooks, stratified
from simulacra.study import Noise, Refused

REAL = Path(os.environ["SIMULACRA_DATA"]) / "weather" if "SIMULACRA_DATA" in os.environ else None
needs_data = pytest.mark.skipif(REAL is None, reason="SIMULACRA_DATA is not set: it names the folder that holds weather/")
CPU = torch.device("cpu")


def trained(study, steps, **changes):
    """A learner after some steps on simulated weather, and its data."""
    recipe = study.recipes["quick"].model_copy(update={"steps": steps, **changes})
    split = study.load(recipe)
    torch.manual_seed(0)
    learner = study.build(recipe, split.train)
    for step in range(steps):
        torch.manual_seed(step)
        learner.step(split.train[torch.randint(len(split.train), (recipe.batch,))])
    return recipe, learner, split


@pytest.fixture(scope="module")
def process():
    return trained(gp.study, 1, fitted_years=6, years=12)


@pytest.fixture(scope="module")
def network():
    return trained(lstm.study, 150, years=12)


def excess(learner, rows):
    """CRPS of a day ahead over that of the best forecast there is."""
    rows = rows[rows.future[:, 0].isfinite().all(dim=1)]
    drawn = draw_like(learner, rows, seed=0, device=CPU)
    truth, (mean, spread) = rows.future[:, 0, 0].numpy(), data.optimum(rows)
    best = crps_gaussian(truth, mean[:, 0], spread[:, 0]).mean()
    return crps_members(truth, drawn.future[:, :, 0].numpy()).mean() / best - 1


def test_the_learned_process_forecasts_simulated_weather_almost_as_well_as_can_be(process):
    _, learner, split = process
    assert -0.01 < excess(learner, split.held_out) < 0.03


def test_the_network_forecasts_simulated_weather_almost_as_well_as_can_be(network):
    _, learner, split = network
    assert -0.02 < excess(learner, split.held_out) < 0.04


def test_persistence_is_far_from_the_best_forecast_of_simulated_weather(process):
    _, _, split = process
    rows = split.held_out[split.held_out.future[:, 0, 0].isfinite()]
    mean, spread = data.optimum(rows)
    truth = rows.future[:, 0, 0].numpy()
    persistence = np.abs(truth - rows.past[:, -1, 0].numpy()).mean()
    assert persistence > 1.15 * crps_gaussian(truth, mean[:, 0], spread[:, 0]).mean()


@pytest.mark.parametrize("study", [gp.study, lstm.study], ids=["gp", "lstm"])
def test_no_forecast_and_nothing_learned_depends_on_what_came_later(study, monkeypatch):
    recipe, learner, split = trained(study, 1)
    origin = int(split.validation.day[0])
    table = data.table_of(recipe)
    spoilt = dataclasses.replace(table, values=np.where(table.days[None, :, None] > origin, 1e3, table.values))
    monkeypatch.setattr(data, "table_of", lambda recipe: spoilt)
    _, again, other = trained(study, 1)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in learner.state_dict().items())
    rows, same = (part.validation[part.validation.day == origin] for part in (split, other))
    assert not torch.equal(rows.future, same.future)
    assert torch.equal(learner.draw(rows, Noise(0, range(len(rows)))).future, again.draw(same, Noise(0, range(len(rows)))).future)


def test_the_law_of_the_process_is_that_of_a_dense_solver_given_the_same_days(process):
    recipe, learner, split = process
    row = split.validation[[recipe.window + 40]]
    number = int(row.series[0])
    days = learner.record[number][0]
    kept = days > days[-1] - 700
    t, z = learner.departures(number)
    width = recipe.window
    later = row.past_days()[0, -width:].numpy()
    fresh = later > days[-1]
    unseen = (row.past[0, -width:, 0].numpy()[fresh] - learner._mean(number)) / learner._scale(number, later[None])[0][fresh]
    learner.states = {number: gp.StateSpace.of(learner.kernel(0)).filtered(t[kept], z[kept])}
    mean, covariance = learner.law(row)
    learner.states = {}
    posterior = gp.GaussianProcess(learner.kernel(0)).condition(
        np.concatenate([t[kept], later[fresh]]), np.concatenate([z[kept], unseen]), solver="dense"
    )
    ahead = row.target_days()[0].numpy()
    scale = learner._scale(number, ahead[None])[0]
    assert fresh.any()
    assert mean[0] == pytest.approx(learner._mean(number) + scale * posterior.mean(ahead.astype(float)), abs=1e-5)
    expected = np.outer(scale, scale) * posterior.covariance(ahead.astype(float), noise=True)
    assert covariance[0] == pytest.approx(expected, rel=1e-5)


def test_bands_of_the_process_are_those_of_observations(process):
    _, learner, split = process
    kernel = learner.kernel(0)
    row = split.validation[split.validation.series == 0][[5]]
    _, covariance = learner.law(row)
    scale = learner._scale(0, row.target_days().numpy())[0]
    assert (np.diagonal(covariance[0]) > scale**2 * kernel.noise()).all()


def test_members_are_quantiles_of_the_law_and_paths_hang_together_as_it_says(process):
    _, learner, split = process
    rows = split.validation[[3]]
    mean, covariance = learner.law(rows)
    drawn = gp.paths(rows, mean, covariance, Noise(0, range(1)), 999).future[0].double().numpy()
    assert drawn.mean(axis=0) == pytest.approx(mean[0], abs=1e-3)
    assert drawn.std(axis=0) == pytest.approx(np.sqrt(np.diagonal(covariance[0])), rel=5e-3)
    correlation = covariance[0] / np.sqrt(np.outer(np.diagonal(covariance[0]), np.diagonal(covariance[0])))
    assert np.corrcoef(drawn.T) == pytest.approx(correlation, abs=0.1)


def test_members_of_the_network_move_as_nature_does_from_day_to_day(network):
    _, learner, split = network
    rows = split.held_out[split.held_out.future[:, 0].isfinite().all(dim=1)]
    drawn = draw_like(learner, rows, seed=0, device=CPU)
    change = drawn.future.diff(dim=2).std()
    assert change == pytest.approx(float(rows.future[:, 0].diff(dim=1).std()), rel=0.1)
    shuffled = stratified(torch.randn(drawn.future.shape))
    assert change < 0.9 * (drawn.future.sort(dim=1).values.gather(1, (shuffled * drawn.members).long())).diff(dim=2).std()


@pytest.mark.parametrize("head", ["quantile", "gaussian"])
def test_quantiles_never_cross_and_a_gaussian_head_spreads_them_as_a_normal_law(head):
    torch.manual_seed(0)
    width = 1 + (len(lstm.LEVELS) - 1 if head == "quantile" else 1)
    found = lstm._quantiles(3 * torch.randn(50, 4 * width), torch.randn(50, 4), torch.ones(4), head)
    assert (found.diff(dim=2) > 0).all()
    normal = lstm._normal_quantile(torch.tensor(lstm.LEVELS))
    straight = (found - found[..., lstm.MIDDLE : lstm.MIDDLE + 1]) / (found[..., -1:] - found[..., lstm.MIDDLE : lstm.MIDDLE + 1])
    assert torch.allclose(straight, (normal / normal[-1]).expand_as(straight), atol=1e-4) == (head == "gaussian")


def test_normal_scores_undo_quantiles():
    torch.manual_seed(0)
    quantiles = torch.randn(20, 3, len(lstm.LEVELS)).sort(dim=2).values
    z = 2 * torch.randn(20, 3, 1)
    assert torch.allclose(lstm._scores(quantiles, lstm._between_levels(quantiles, z)[..., 0]), z[..., 0].clamp(-4, 4), atol=2e-3)


@pytest.mark.parametrize("start", ["regression", "persistence", "climatology"])
def test_before_training_the_network_forecasts_what_it_starts_from(start):
    recipe = lstm.study.recipes["quick"].model_copy(update={"start": start})
    split = lstm.load(recipe)
    learner = lstm.build(recipe, split.train)
    rows = split.validation[:5]
    x, background = learner._seen(rows)
    expected = {
        "climatology": torch.zeros(5, recipe.horizon), "persistence": x[:, -1, :1].expand(5, recipe.horizon),
        "regression": x[:, -1, :1] * learner.memory + lstm._regressors(x, background, recipe.lags) @ learner.slope,
    }[start]  # fmt: skip
    assert torch.allclose(learner.quantiles(rows)[..., lstm.MIDDLE], expected)


def test_the_regression_it_starts_from_finds_the_memory_of_simulated_weather():
    recipe = lstm.study.recipes["quick"].model_copy(update={"years": 40})
    split = lstm.load(recipe)
    learner = lstm.build(recipe, split.train)
    assert learner.memory[:3].numpy() == pytest.approx([0.75, 0.75**2, 0.75**3], abs=0.03)
    future = split.train.future.clone()
    future[torch.rand(future.shape, generator=torch.Generator().manual_seed(0)) < 0.4] = torch.nan
    _, memory = lstm._regression(recipe, learner.climate, split.train.with_future(future))
    assert memory[:3].numpy() == pytest.approx([0.75, 0.75**2, 0.75**3], abs=0.03)  # days that did not come teach nothing


def test_a_shipped_learner_draws_what_the_trained_one_does(network, process):
    for study, (recipe, learner, split) in ((lstm.study, network), (gp.study, process)):
        state = learner.to_ship() if hasattr(learner, "to_ship") else learner.state_dict()
        rows = split.held_out[:6]
        again = study.restore(recipe, {k: v.clone() for k, v in state.items()})
        assert torch.equal(learner.draw(rows, Noise(1, range(6))).future, again.draw(rows, Noise(1, range(6))).future)


# ------------------------------------------------------------------------------------------------------------- normals


def rows_of(values, days=None):
    days = np.arange(len(values)) if days is None else days
    table = data.Table(("a",), days, np.asarray(values, float)[None], ("tmax", "rain")[: np.shape(values)[1]], "°C", (), {})
    return outlooks(table, 30, 2)


def test_normals_are_the_harmonics_that_a_record_is_made_of():
    days = torch.arange(8 * 365)
    centre = torch.tensor([10.0, -5.0, 2.0, 1.0, 0.5, 0.2, -0.1])
    values = (harmonics(days, 3) @ centre).numpy()
    climate = Climate.fitted(rows_of(values[:, None]))
    assert climate.centre[1, 0].numpy() == pytest.approx(centre.numpy(), abs=1e-3)


def test_scale_follows_the_scatter_of_the_season():
    rng = np.random.default_rng(0)
    days = np.arange(30 * 365)
    spread = 3 + 2 * np.cos(2 * np.pi * days / 365.2425)
    climate = Climate.fitted(rows_of((20 + spread * rng.standard_normal(len(days)))[:, None]))
    _, scale = climate.normal(torch.zeros(1, dtype=torch.int64), torch.tensor([[0, 91, 183]]))
    assert scale[0].numpy() == pytest.approx([5, 3, 1], rel=0.12)


def test_rain_is_seen_as_whether_and_how_much_and_what_is_missing_as_nothing():
    rng = np.random.default_rng(0)
    rain = np.where(rng.random(900) < 0.6, 0.0, rng.exponential(4.0, 900))
    values = np.stack([rng.standard_normal(900), rain], axis=1)
    values[500, 0] = np.nan
    rows = rows_of(values)
    climate = Climate.fitted(rows)
    assert climate.wet[0] == 0
    assert float(climate.wet[1]) == pytest.approx(rain[rain > 0].mean(), rel=0.1)
    seen = climate.features(rows[rows.day == 505], 10)[0]
    assert seen[4, 0] == 0
    assert seen[4, 1] == -1  # day 500 is missing
    assert (seen[:, 2] == torch.as_tensor(rain[496:506] > 0)).all()
    assert (seen[:, 3] > 0).equal(seen[:, 2] > 0)


# ---------------------------------------------------------------------------------------------------------- the article


def test_the_articles_network_has_as_many_weights_as_it_should():
    recipe = lstm.study.recipes["paper"]
    network = article.ArticleLSTM(recipe, lstm.LastState(1, article.HIDDEN, 1)).network
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 41_301


@needs_data
def test_persistence_by_the_articles_score_is_what_it_printed():
    recipe = lstm.study.recipes["paper"].model_copy(update={"data": REAL})
    split = lstm.load(recipe)
    checks = article.lstm_checks(lstm.build(recipe, split.train), split)
    for check in checks:
        assert check.beside["persistence, every day"] == pytest.approx(check.beside["persistence, printed"], abs=6e-4)
        assert not check.met  # nothing is learned yet


@needs_data
def test_the_articles_process_gives_the_printed_errors_and_worse_ones_on_days_it_was_not_shown():
    known = {6: 3.17195013810865, 0: 4.993, 1: 4.777, 2: 4.395, 3: 4.459, 4: 5.277, 5: 5.017}
    future = {6: 3.09, 0: 7.06, 1: 4.36, 2: 4.35, 3: 4.70, 4: 5.01, 5: 5.39}
    for number, check in zip(article.SETTINGS, article.gp_checks(REAL), strict=True):
        assert check.value == pytest.approx(known[number], abs=1e-9 if number == 6 else 6e-4)
        assert check.beside["days after the last sample"] == pytest.approx(future[number], abs=6e-3)


@needs_data
def test_the_articles_rows_hold_only_samples_that_it_shows():
    split = gp.load(gp.study.recipes["paper"].model_copy(update={"data": REAL}))
    shown = split.held_out.past[..., 0].isfinite().sum(dim=1).tolist()
    assert dict(zip(split.held_out.series.tolist(), shown, strict=True)) == {6: 46, 0: 46, 1: 15, 2: 15, 3: 50, 4: 15, 5: 19}
    assert not split.train.future.isfinite().any()


def test_the_articles_recipes_ask_for_its_data():
    for study in (gp.study, lstm.study):
        with pytest.raises(Refused, match=r"skagit_six_series\.csv"):
            study.load(study.recipes["paper"])


def test_a_table_that_is_not_the_articles_is_refused_zipped_or_not_and_nothing_is_asked_of_its_series(tmp_path):
    recipe = lstm.study.recipes["paper"]
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(b"date,tmax\n2020-01-01,50\n"))
    with pytest.raises(Refused, match="no columns series"):
        lstm.load(recipe.model_copy(update={"data": other}))
    wrong = csv_of(tmp_path / "wrong.csv", "series,day_of_year,temp_max_f", [("0", "1", "warm")])
    with pytest.raises(Refused, match="degrees Fahrenheit"):
        lstm.load(recipe.model_copy(update={"data": wrong}))
    with pytest.raises(Refused, match="no dates to look ahead from"):
        forecast.ask(recipe, 1, {})


def test_pictures_have_the_unit_of_the_file_and_of_the_articles_series_its_own():
    ours, theirs = lstm.study.recipes["quick"], lstm.study.recipes["paper"]
    assert forecast.unit_of(ours.model_copy(update={"past": theirs.past, "horizon": theirs.horizon})) == "°C"
    assert forecast.unit_of(theirs) == "°F"


# ------------------------------------------------------------------------------------------------------- a user's data


def csv_of(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def some_weather(years=4):
    table = data.simulate(years, 3)
    dates = [str(np.datetime64(int(d), "D")) for d in table.days]
    rain = np.random.default_rng(0).exponential(2, len(dates)) * (np.arange(len(dates)) % 3 == 0)
    return [(d, f"{x:.1f}", f"{n:.1f}", f"{r:.1f}") for d, (x, n), r in zip(dates, table.values[0], rain, strict=True)]


def test_usual_names_of_columns_are_known_and_others_are_asked_for(tmp_path):
    path = csv_of(tmp_path / "w.csv", "DATE,TMAX,TMIN,PRCP", some_weather())
    recipe = lstm.study.recipes["quick"].model_copy(update={"data": path})
    assert data.table_of(recipe).columns == ["TMAX", "TMIN", "PRCP"]
    assert data.table_of(recipe.model_copy(update={"inputs": ()})).columns == ["TMAX"]
    assert data.table_of(recipe.model_copy(update={"column": "TMIN", "data": tmp_path})).columns == ["TMIN"]
    other = csv_of(tmp_path / "o.csv", "date,a,b", [row[:3] for row in some_weather()])
    with pytest.raises(Refused, match="a, b"):
        data.table_of(recipe.model_copy(update={"data": other}))
    with pytest.raises(Refused, match="2 tables"):
        data.table_of(recipe.model_copy(update={"data": tmp_path}))


def test_training_tuning_and_held_out_days_are_where_the_recipe_says(tmp_path):
    path = csv_of(tmp_path / "w.csv", "date,temp_max,temp_min,precipitation", some_weather())
    recipe = gp.study.recipes["quick"].model_copy(update={"data": path, "train_until": "2003-06-30", "tune_until": "2004-03-01"})
    split = gp.load(recipe)
    ends = split.train.day + recipe.horizon
    assert int(ends.max()) == day_of("2003-06-30")
    assert int(split.validation.day.min()) == day_of("2003-06-30")
    assert int(split.held_out.day.min()) == day_of("2004-03-01")
    with pytest.raises(Refused, match="no origin is left for held_out"):
        gp.load(recipe.model_copy(update={"tune_until": "2030-01-01"}))
    with pytest.raises(Refused, match="--train-until must come before"):
        gp.load(recipe.model_copy(update={"tune_until": "2003-06-30"}))
    with pytest.raises(ValueError, match="is not a date"):
        type(recipe).model_validate({**recipe.model_dump(), "train_until": "June"})


def test_a_forecast_is_asked_for_by_origin_and_station_and_written_as_a_table(tmp_path, process):
    recipe, learner, _ = process
    rows = forecast.ask(recipe, 2, {"origin": "2012-06-30", "station": "south"})
    assert rows.series.tolist() == [1, 1]
    drawn = learner.draw(rows, Noise(0, range(2)))
    forecast.export(drawn, tmp_path / "f.csv", None)
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines[0].startswith("station,origin,date,lead_days,q0.01")
    assert lines[1].startswith("1,2012-06-30,2012-07-01,1,")
    assert len(lines) == 1 + 2 * recipe.horizon
    values = np.array([line.split(",")[4:] for line in lines[1:]], float)
    assert (np.diff(values, axis=1) >= 0).all()
    assert forecast.summary(rows, drawn)[0] == "forecast from 2012-06-30: median, [half of cases], [95 % of cases]"
    last = forecast.ask(recipe, 1, {})
    assert int(last.day[0]) == int(data.table_of(recipe).days[-1])
    wrong = (("origin", "1999-01-01", "no day of the record"), ("station", "east", "known: north"), ("day", "1", "origin"))
    for name, value, words in wrong:
        with pytest.raises(Refused, match=words):
            forecast.ask(recipe, 1, {name: value})


def test_a_station_whose_record_begins_after_training_is_left_out_and_named(tmp_path):
    rows = [(day, "old", x) for day, x, *_ in some_weather()]
    path = csv_of(tmp_path / "w.csv", "date,station,tmax", rows + [(day, "new", x) for day, _, x in rows[-200:]])
    recipe = gp.study.recipes["quick"].model_copy(update={"data": path, "station": "station"})
    split = gp.load(recipe)
    assert {*split.validation.series.tolist(), *split.held_out.series.tolist()} == {*split.train.series.tolist()} == {1}
    assert "training holds no day of them: stations 0" in split.origin
    every = lstm.load(lstm.study.recipes["quick"].model_copy(update={"data": path, "station": "station"}))
    assert set(every.held_out.series.tolist()) == {0, 1}  # the network takes the mean of the stations that it knows


def test_a_station_that_a_process_was_not_trained_on_is_refused(process):
    _, learner, split = process
    row = split.held_out[[0]]
    strange = Outlook(row.series + 7, row.day, row.every, row.past, row.future)
    with pytest.raises(Refused, match="station 7 was not trained on"):
        learner.draw(strange, Noise(0, range(1)))
