"""Filters of radio traces against their closed forms, and a judge that knows a recovered pulse from a lost one."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from simulacra.sciences.airshower import filters, simulate, statistics
from simulacra.sciences.airshower.filters import Bank
from simulacra.sciences.airshower.statistics import Known
from simulacra.study import Refused

STEPS, RATE = 500, 180.0


def white(n, seed=0, steps=STEPS):
    return np.random.default_rng(seed).standard_normal((n, steps))


def pulse(strength, steps=STEPS):
    """A band-limited pulse at step 0 that unit white noise lets see with d = strength, (1, steps)."""
    row = filters.band_pass(np.eye(steps)[:1] - np.roll(np.eye(steps)[:1], 2, axis=1), RATE)
    row = np.roll(row, -int(np.abs(row).argmax()), axis=1)
    return strength * row / np.linalg.norm(row)


@pytest.fixture(scope="module")
def traces():
    """Training and held-out traces of white noise."""
    return simulate.simulate(1200, "white", seed=1), simulate.simulate(400, "white", seed=2)


def recovered(like, signal, presence=None, spread=None):
    rows = torch.as_tensor(np.asarray(signal, np.float32))
    unknown = torch.full_like(rows, math.nan)
    return dataclasses.replace(
        like, signal=rows, spread=unknown if spread is None else torch.as_tensor(np.asarray(spread, np.float32)),
        presence=unknown[:, 0] if presence is None else torch.as_tensor(np.asarray(presence, np.float32)),
    )  # fmt: skip


def check(evidence, start):
    return next(c for c in evidence.checks if c.name.startswith(start))


def finding(evidence, name):
    return next(f for f in evidence.findings if f.name == name)


# -------------------------------------------------------------------------------------------------------------- filters


def test_the_band_of_the_antenna_holds_139_of_251_modes_of_a_trace():
    inside = filters.band(STEPS, RATE)
    assert (inside.sum(), len(inside)) == (139, 251)
    passed = filters.band_pass(white(400), RATE)
    assert passed.var() == pytest.approx(filters.total(inside, STEPS), rel=0.02)


def test_detection_of_a_known_pulse_at_a_known_time_is_that_of_the_normal_law():
    strengths = 1.018 * np.sqrt([1, 3, 10])
    assert filters.efficiency(strengths, 0.002) == pytest.approx([0.0314, 0.1323, 0.633], abs=2e-3)
    s = pulse(2.0)
    bank = Bank.of(s, np.eye(STEPS), 0, 0)
    assert float(bank.strength) == pytest.approx(2.0, rel=1e-4)
    noise = white(4000)
    without, having = bank.read(noise).score, bank.read(noise[::-1] + s).score
    found = statistics.detected(without, having, 0.05).mean()
    assert found == pytest.approx(float(filters.efficiency(2.0, 0.05)), abs=0.045)


def test_the_threshold_for_an_unknown_time_lets_as_few_pass_as_it_says():
    assert filters.threshold(277, 0.002) == pytest.approx(4.87, abs=0.01)
    rows = filters.band_pass(white(3000), RATE)
    height = filters.envelope(rows).max(axis=1) / rows.std()
    assert (height > filters.threshold(277, 0.05)).mean() == pytest.approx(0.05, abs=0.02)


def test_the_envelope_of_a_wave_is_its_amplitude_whatever_the_phase():
    time = np.arange(64)
    rows = np.stack([3 * np.cos(2 * np.pi * 5 * time / 64 + phase) for phase in (0, 1, 2)])
    assert filters.envelope(rows) == pytest.approx(np.full((3, 64), 3.0))


def test_wieners_error_is_what_its_filter_leaves():
    k = np.arange(STEPS // 2 + 1)
    signal, noise = np.exp(-(((k - 120) / 40) ** 2)), 0.1 + 1 / (1 + k)
    true, other = (filters.filtered(white(800, seed), np.sqrt(p)) for seed, p in ((1, signal), (2, noise)))
    left = filters.filtered(true + other, filters.wiener_gain(signal, noise)) - true
    assert np.square(left).mean() == pytest.approx(filters.wiener_error(signal, noise, STEPS), rel=0.02)
    for factor in (0.9, 1.1):
        worse = filters.filtered(true + other, factor * filters.wiener_gain(signal, noise)) - true
        assert np.square(worse).mean() > np.square(left).mean()


def test_round_the_trace_the_matrix_filter_is_the_one_of_modes():
    k = np.arange(33)
    signal, noise = np.exp(-(((k - 10) / 5) ** 2)), 0.5 + 1 / (1 + k)
    matrix = filters.wiener_matrix(filters.round_trace(signal, 64), filters.round_trace(noise, 64))
    rows = white(5, steps=64)
    assert rows @ matrix == pytest.approx(filters.filtered(rows, filters.wiener_gain(signal, noise)), abs=1e-9)


def test_the_measured_autocovariance_of_a_background_is_the_one_in_closed_form():
    found = filters.autocovariance(simulate.simulate(3000, "measured", share=0.0, seed=4).measured.numpy())
    exact = simulate.autocovariance("measured")
    assert found[:300] == pytest.approx(exact[:300], abs=0.05 * exact[0])
    assert found[0] == pytest.approx(exact[0], rel=0.03)


def test_a_likelihood_ratio_is_one_on_average_where_there_is_no_pulse():
    pulses = np.concatenate([pulse(1.2), -pulse(1.5), pulse(1.0)[:, ::-1]])
    bank = Bank.of(pulses, np.eye(STEPS), 50, 400)
    ratio = np.exp(bank.read(white(3000)).score)
    assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / math.sqrt(len(ratio)) + 1e-3)


def test_averaging_over_places_finds_more_than_the_best_place_or_the_envelope():
    s = pulse(4.0)
    bank, noise = Bank.of(s, np.eye(STEPS)), white(3000)
    places = np.random.default_rng(3).integers(STEPS, size=1500)
    rows = noise.copy()
    rows[:1500] += np.stack([np.roll(s[0], place) for place in places])
    score = bank.read(rows).score
    peak = torch.cat([bank.ratio(part).amax((1, 2)) for part in torch.from_numpy(rows.astype(np.float32)).split(64)]).numpy()
    height = filters.envelope(filters.band_pass(rows, RATE)).max(axis=1)
    areas = [statistics.area(v[1500:], v[:1500]) for v in (score, peak, height)]
    assert areas[0] > areas[1] - 0.005
    assert areas[0] > areas[2] + 0.02


def test_what_a_bank_recovers_is_the_pulse_times_its_probability():
    s = pulse(3.0)
    bank = Bank.of(s, np.eye(STEPS), 0, 0)
    rows = white(20) + s
    reading = bank.read(rows, odds=0.5)
    chance = 1 / (1 + np.exp(-(rows @ s[0] - 4.5 + math.log(0.5))))
    assert reading.score == pytest.approx(rows @ s[0] - 4.5, abs=1e-3)
    assert reading.mean == pytest.approx(chance[:, None] * s, abs=1e-4)
    assert reading.best == pytest.approx(np.repeat(s, 20, axis=0), abs=1e-5)


def by_definition(bank, rows):
    """Ratios, score, mean and mean square of the pulses, each pulse at each place, summed as the formulas say in double precision."""
    pulses, whitened = bank.pulses.double().numpy(), rows @ bank.precision.double().numpy()
    places = bank.first + np.arange(bank.strength.shape[1])
    standing = np.stack([[np.roll(row, place) for place in places] for row in pulses])  # (k, m, N)
    ratio = np.einsum("nt,kmt->nkm", whitened, standing) - bank.strength.double().numpy() ** 2 / 2
    odds = np.exp(ratio - ratio.max(axis=(1, 2), keepdims=True))
    share = odds / odds.sum(axis=(1, 2), keepdims=True)
    score = np.log(np.exp(ratio).mean(axis=(1, 2)))
    return ratio, score, *(np.einsum("nkm,kmt->nt", share, values) for values in (standing, standing**2))


def test_one_bank_is_many_filters_summed_over_a_few_axes():
    signal, noise = simulate.simulate(400, "measured", share=1.0, seed=1), simulate.autocovariance("measured")
    bank = Bank.of(signal.signal.numpy()[:40].astype(float), filters.covariance(noise), 120, 320)
    assert len(bank.sought[0].modes) < 40
    rows = simulate.simulate(24, "measured", seed=2).measured
    whitened = rows @ bank.precision
    exact = by_definition(bank, rows.double().numpy())
    assert bank.ratio(whitened).numpy() == pytest.approx(exact[0], abs=0.1)  # of pulses that stand at 6 standard deviations
    score, mean, square = (v.numpy() for v in bank.moments(whitened))
    top = np.abs(exact[2]).max()
    assert score == pytest.approx(exact[1], abs=0.01)
    assert mean == pytest.approx(exact[2], abs=0.01 * top)
    assert np.sqrt(np.maximum(square - mean**2, 0)) == pytest.approx(np.sqrt(np.maximum(exact[3] - exact[2] ** 2, 0)), abs=0.02 * top)


def test_as_few_axes_are_kept_as_lose_no_more_of_any_row_than_they_may():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 5)) @ rng.standard_normal((5, 64))
    exact = filters.Axes.of(rows, 1e-6)
    assert len(exact.modes) == 5
    assert exact.weights @ torch.fft.irfft(exact.modes, 64) == pytest.approx(torch.from_numpy(rows).float(), abs=1e-4)
    lost = 0.8 * np.linalg.norm(rows, axis=1)
    some = filters.Axes.of(rows, lost)
    left = rows - (some.weights @ torch.fft.irfft(some.modes, 64)).numpy()
    assert len(some.modes) < 5
    assert (np.linalg.norm(left, axis=1) <= lost * 1.001).all()


def test_axes_are_chosen_for_what_is_left_after_a_filter():
    rows = np.cos(2 * np.pi * np.outer([3, 9, 20], np.arange(64)) / 64)
    gain = np.ones(33)
    gain[20] = 1e-9
    kept = filters.Axes.of(rows, 1e-3, gain)
    assert len(kept.modes) == 2
    assert kept.weights @ torch.fft.irfft(kept.modes, 64) == pytest.approx(torch.from_numpy(rows * [[1], [1], [0]]).float(), abs=1e-4)


def test_pulses_far_from_what_was_found_weigh_nothing():
    # Ratios differ by 900 and more: their exponentials leave the range of single precision.
    bank, rows = Bank.of(np.concatenate([pulse(30.0), -pulse(30.0)]), np.eye(STEPS), 0, 200), pulse(30.0) + np.zeros((3, 1))
    score, mean, _ = bank.moments(torch.from_numpy(rows.astype(np.float32)))
    assert score.numpy() == pytest.approx(np.full(3, 450 - math.log(402)), abs=0.3)
    assert mean.numpy() == pytest.approx(rows, abs=1e-3)


def test_coloured_noise_is_whitened_by_its_covariance():
    lags = simulate.autocovariance("measured")
    noise = simulate.simulate(2000, "measured", share=0.0, seed=6).measured.double().numpy()
    s = 0.08 * simulate.templates(1).astype(float)
    bank = Bank.of(np.roll(s, -250, axis=1), filters.covariance(lags), 250, 250)
    projected = bank.ratio(torch.from_numpy(noise.astype(np.float32)) @ bank.precision).flatten().numpy()
    d = float(bank.strength)
    assert projected.mean() == pytest.approx(-(d**2) / 2, abs=0.12 * d)
    assert projected.std() == pytest.approx(d, rel=0.08)


# ------------------------------------------------------------------------------------------------------------ per trace


def test_a_true_reconstruction_has_the_place_or_the_amplitude_to_two_percent():
    truth = np.zeros((4, STEPS))
    truth[:, 200] = 1.0
    other = np.zeros((4, STEPS))
    other[[0, 1, 2, 3], [200, 210, 211, 200]] = [1.019, 1.0, 1.0, 0.97]
    place, amplitude = statistics.true_reconstruction(other, truth)
    assert place.tolist() == [True, True, False, True]
    assert amplitude.tolist() == [True, True, True, False]


def test_energy_goes_as_the_square_of_the_amplitude_and_the_half_width_of_a_normal_law_is_its_deviation():
    row = pulse(1.0)
    assert statistics.energy_ratio(0.8 * row, row) == pytest.approx([0.64])
    assert statistics.amplitude_ratio(0.8 * row, row) == pytest.approx([0.8])
    assert statistics.half_width(2 * white(200)) == pytest.approx(2, rel=0.02)


def test_the_area_under_the_roc_is_the_share_of_pairs_in_order():
    without, having = np.array([0.0, 1, 2, 3]), np.array([2.0, 5, 0.5])
    pairs = np.mean([(h > w) + 0.5 * (h == w) for h in having for w in without])
    assert statistics.area(without, having) == pytest.approx(pairs)


def test_detection_at_a_rate_lets_no_more_than_that_share_of_empty_traces_pass():
    without = np.random.default_rng(0).permutation(1000).astype(float)
    assert statistics.detected(without, without, 0.01).sum() == 10
    assert statistics.detected(without, without, 0.002).sum() == 2


def test_only_white_noise_passes_for_normal():
    known = {name: Known.of(simulate.simulate(1500, name, seed=3)) for name in simulate.BACKGROUNDS}
    assert {name: found.gaussian for name, found in known.items()} == {"measured": False, "uniform": False, "cosine": False, "white": True}


# ---------------------------------------------------------------------------------------------------------------- judge


def test_the_truth_itself_is_as_good_as_nature(traces):
    training, nature = traces
    evidence = statistics.judge(nature, recovered(nature, nature.signal, nature.presence), seed=0, training=training)
    assert len(evidence.findings) >= 6
    assert all(f.floor < f.ceiling for f in evidence.findings)
    assert all(f.distance <= f.floor + 1e-9 for f in evidence.findings if f.name not in ("spectrum of pulses", "detection"))
    assert finding(evidence, "spectrum of pulses").gap == pytest.approx(0, abs=0.02)
    assert check(evidence, "true reconstruction, place").value == 100
    assert check(evidence, "true reconstruction, amplitude").met
    assert check(evidence, "squared error").value == 0
    assert check(evidence, "false pulses").met


def test_knowing_more_than_the_matched_filter_in_white_noise_is_called_a_leak(traces):
    training, nature = traces
    evidence = statistics.judge(nature, recovered(nature, nature.signal, nature.presence), seed=0, training=training)
    told = check(evidence, "pulses found")
    assert told.value > 1
    assert not told.met
    assert "leak" in told.target


def test_the_matched_filter_itself_is_no_leak_and_beats_wiener(traces):
    training, nature = traces
    known = Known.of(training)
    reading = known.bank.read(nature.measured.double().numpy(), known.share / (1 - known.share))
    presence = 1 / (1 + np.exp(-reading.score.clip(-30, 30)))
    evidence = statistics.judge(nature, recovered(nature, reading.mean, presence), seed=0, training=training)
    assert check(evidence, "pulses found").value == pytest.approx(1)
    assert check(evidence, "pulses found").met
    assert finding(evidence, "detection").gap == pytest.approx(0, abs=1e-9)
    assert check(evidence, "squared error").value < 0.5
    beside = check(evidence, "squared error").beside
    assert check(evidence, "squared error").value == pytest.approx(beside["mean of the matched filter's pulses"], rel=1e-4)


def test_the_wiener_filter_is_its_own_rival(traces):
    training, nature = traces
    linear = nature.measured.double().numpy() @ Known.of(training).wiener
    evidence = statistics.judge(nature, recovered(nature, linear), seed=0, training=training)
    for name in ("squared error of pulses", "signal where there is none", "amplitude", "pulse energy"):
        assert finding(evidence, name).gap == pytest.approx(1, abs=1e-4)
    assert check(evidence, "squared error").value == pytest.approx(1, abs=1e-4)
    assert check(evidence, "squared error").beside["trace as it is"] > 5


def test_planted_faults_are_seen_where_they_are(traces):
    training, nature = traces
    truth = nature.signal.double().numpy()

    def judged(signal, **more):
        return statistics.judge(nature, recovered(nature, signal, **more), seed=0, training=training)

    late = judged(np.roll(truth, 15, axis=1))
    assert check(late, "true reconstruction, place").value == 0
    assert check(late, "true reconstruction, amplitude").value == 100
    weak = judged(0.7 * truth)
    assert check(weak, "true reconstruction, place").value == 100
    assert check(weak, "true reconstruction, amplitude").value == 0
    assert check(weak, "energy").beside["median of recovered over true"] == pytest.approx(0.49, rel=1e-5)
    blurred = judged(filters.filtered(truth, filters.band(STEPS, RATE, 30, 50)))
    assert finding(blurred, "spectrum of pulses").gap > 0.2
    everywhere = judged(truth, presence=np.full(len(truth), 0.999))
    assert check(everywhere, "false pulses").value == 100
    assert not check(everywhere, "false pulses").met
    blind = judged(truth, presence=np.random.default_rng(0).random(len(truth)))
    assert finding(blind, "detection").gap > 0.8


def test_a_spread_is_held_to_the_errors_that_come_with_it(traces):
    nature = traces[1][(traces[1].signal != 0).any(1)]
    signal, rng = nature.signal.double().numpy(), np.random.default_rng(5)
    spread = 0.002 + 0.3 * np.abs(signal)
    truth = signal + spread * rng.standard_normal(signal.shape)  # what is not told is drawn about what is: a spread as it should be
    nature = dataclasses.replace(nature, signal=torch.from_numpy(truth.astype(np.float32)))
    for factor, met in ((1.0, True), (0.4, False), (3.0, False)):
        evidence = statistics.judge(nature, recovered(nature, signal, spread=factor * spread), seed=0)
        told = check(evidence, "error over the told spread")
        assert told.value == pytest.approx(1 / factor, rel=0.02)
        assert told.met == met
    honest = statistics.judge(nature, recovered(nature, signal, spread=spread), seed=0)
    alike = statistics.judge(nature, recovered(nature, signal, spread=np.full_like(spread, 0.02)), seed=0)
    assert finding(honest, "calibration of the spread").gap < 0.1
    assert finding(alike, "calibration of the spread").gap > 0.8


def test_without_training_traces_the_rival_is_a_band_pass_and_there_is_no_matched_filter(traces):
    _, nature = traces
    evidence = statistics.judge(nature, recovered(nature, nature.signal), seed=0)
    assert {f.rival_name for f in evidence.findings} >= {"band-pass"}
    assert not any("matched filter" in name for c in evidence.checks for name in (c.name, *c.beside))


def test_what_cannot_be_judged_is_refused(traces):
    _, nature = traces
    drawn = recovered(nature, nature.signal)
    with pytest.raises(Refused, match="row i of both files must be one trace"):
        statistics.judge(nature, drawn[:10], seed=0)
    with pytest.raises(Refused, match="true signal of 400 of 400 traces is not known"):
        statistics.judge(recovered(nature, np.full((400, STEPS), np.nan)), drawn, seed=0)
    with pytest.raises(Refused, match="0 traces have a pulse"):
        statistics.judge(recovered(nature, np.zeros((400, STEPS))), drawn, seed=0)
    with pytest.raises(Refused, match="400 recovered signals"):
        statistics.judge(nature, recovered(nature, np.full((400, STEPS), np.nan)), seed=0)
