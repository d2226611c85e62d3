"""Radio traces: the simulator against its closed forms, files that users have, and what is refused."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from scipy import signal
from scipy.linalg import cholesky, solve_triangular, toeplitz

from simulacra.sciences.airshower import framing, reading, simulate
from simulacra.sciences.airshower.data import Traces, signal_to_noise, traces
from simulacra.study import Noise, Refused

BACKGROUNDS = simulate.BACKGROUNDS


@pytest.fixture(scope="module")
def sets():
    """4,096 traces in each background, all with the same seed."""
    return {name: simulate.simulate(4096, name, seed=7) for name in BACKGROUNDS}


def noise_of(found):
    return (found.measured - found.signal).double().numpy()


# ----------------------------------------------------------------------------------------------------------- backgrounds


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_covariance_of_each_background_is_its_closed_form(sets, name):
    noise, exact = noise_of(sets[name]), simulate.autocovariance(name)
    assert exact[0] == pytest.approx(simulate.LEVEL**2)
    for lag in (0, 1, 2, 5, 17, 120, 400, 499):
        products = (noise[:, : 500 - lag] * noise[:, lag:]).mean(axis=1)
        assert abs(products.mean() - exact[lag]) < 5 * products.std() / 64 + 1e-9, lag


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_spectrum_of_each_background_is_its_closed_form(sets, name):
    found, exact = np.abs(np.fft.rfft(noise_of(sets[name]))) ** 2, simulate.power(name)
    away = (found.mean(axis=0) - exact) / (found.std(axis=0) / 64)
    assert np.abs(away).max() < 6
    assert np.mean(away**2) == pytest.approx(1, abs=0.4)
    both_sides = 2 * exact.sum() - exact[0] - exact[-1]
    assert both_sides / 500**2 == pytest.approx(simulate.LEVEL**2, rel=1e-6)  # Parseval


def test_whitening_by_the_exact_covariance_leaves_independent_numbers_of_unit_variance(sets):
    factor = cholesky(toeplitz(simulate.autocovariance("measured")), lower=True)
    white = solve_triangular(factor, noise_of(sets["measured"]).T, lower=True).T
    assert np.mean(white**2, axis=0) == pytest.approx(np.ones(500), abs=0.15)
    assert np.mean(white**2) == pytest.approx(1, abs=0.01)
    for lag in (1, 2, 10, 100):
        assert abs(np.mean(white[:, lag:] * white[:, :-lag])) < 5 / np.sqrt(white[:, lag:].size)


def test_galactic_noise_falls_as_its_slope_between_the_lines():
    f, power = np.fft.rfftfreq(500, 1 / 180), simulate.power("measured", lines=0.0)
    inside = (f > 38) & (f < 70)  # where the receiver is flat
    assert np.polyfit(np.log(f[inside]), np.log(power[inside]), 1)[0] == pytest.approx(-simulate.SLOPE, abs=0.15)
    assert power[(f < 22) | (f > 89)].max() < 0.03 * power[inside].min()


def test_transmitters_carry_their_share_of_the_power_at_their_frequencies():
    with_lines, without = (simulate.power("measured", lines=lines) for lines in (0.6, 0.0))
    f, more = np.fft.rfftfreq(500, 1 / 180), with_lines - 0.4 * without
    near = np.abs(f[:, None] - np.array(simulate.TRANSMITTERS)).min(axis=1) < 1.5
    assert more[near].sum() > 0.9 * more.sum()
    assert more.sum() / with_lines.sum() == pytest.approx(0.6, abs=0.01)


def test_uniform_noise_is_bounded_and_a_cosine_has_one_amplitude(sets):
    uniform, cosine = noise_of(sets["uniform"]), noise_of(sets["cosine"])
    assert np.abs(uniform).max() <= simulate.LEVEL * np.sqrt(3) * (1 + 1e-5)
    assert np.mean(uniform**4) / np.mean(uniform**2) ** 2 == pytest.approx(1.8, abs=0.01)
    amplitude = np.abs(signal.hilbert(cosine[:64]))[:, 100:400]
    assert amplitude == pytest.approx(np.full(amplitude.shape, np.sqrt(2) * simulate.LEVEL), rel=0.08)


# ---------------------------------------------------------------------------------------------------------------- pulses


def test_pulses_have_unit_peak_lie_in_the_band_and_begin_where_they_are_told():
    begin = np.array([0.1, 0.4, 0.82])
    found = simulate.pulses([20, 45, 100], [0.0, 0.03, 0.06], begin).astype(float)
    assert found.max(axis=1) == pytest.approx(np.ones(3))
    assert np.abs(found).max() <= 1 + 1e-6
    f, power = np.fft.rfftfreq(500, 1 / 180), np.abs(np.fft.rfft(found)) ** 2
    assert (power[:, (f >= 30) & (f <= 80)].sum(axis=1) / power.sum(axis=1)).min() > 0.85  # the receiver is down by half there
    assert (power[:, (f >= 26) & (f <= 86)].sum(axis=1) / power.sum(axis=1)).min() > 0.995
    for row, start in zip(found, (begin * 500).astype(int), strict=True):
        assert np.abs(row[: start - 1]).max() < 0.02  # the receiver is causal
        assert np.abs(row[start + 85 :]).max() < 0.02  # and silent within half a microsecond


def test_fields_of_two_widths_differ_by_an_exponential_of_the_frequency():
    narrow, wide = np.abs(np.fft.rfft(simulate.pulses([20, 80], [0, 0], [0.3, 0.3]).astype(float)))
    f = np.fft.rfftfreq(500, 1 / 180)
    inside = (f > 33) & (f < 77)
    assert np.polyfit(f[inside], np.log(narrow / wide)[inside], 1)[0] == pytest.approx(1 / 80 - 1 / 20, rel=0.01)


def test_the_lowest_frequencies_arrive_later_than_the_highest_by_the_delay():
    plain, late = np.fft.rfft(simulate.pulses([45, 45], [0, 0.05], [0.3, 0.3]).astype(float))
    f = np.fft.rfftfreq(500, 1 / 180)
    inside = (f > 32) & (f < 78)
    phase = np.unwrap(np.angle(late / plain)[inside])
    group_delay = -np.gradient(phase, f[inside]) / (2 * np.pi)
    assert np.interp([35, 70], f[inside], group_delay) == pytest.approx([0.05 * 45 / 50, 0.05 * 10 / 50], abs=0.002)


def test_templates_stand_for_the_law_the_better_the_more_and_have_their_peaks_in_the_middle():
    truth = simulate.simulate(512, "white", share=0.99, seed=1).signal.double().numpy()
    truth = truth[np.abs(truth).max(axis=1) > 0]
    spectra = np.fft.rfft(truth / np.linalg.norm(truth, axis=1, keepdims=True))
    kept = []  # share of a pulse's norm that a matched filter with these templates keeps, at quarters of a step
    for count in (1, 3, 6):
        bank = simulate.templates(count)
        assert bank.shape == (count**2, 500)
        assert (bank.argmax(axis=1) == 250).all()
        known = np.conj(np.fft.rfft(bank / np.linalg.norm(bank, axis=1, keepdims=True)))
        kept.append(np.mean(np.max([4 * np.abs(np.fft.irfft(spectra * one, 2000)).max(axis=1) for one in known], axis=0)))
    assert kept[0] < kept[1] < kept[2]
    assert kept[2] > 0.95


# ---------------------------------------------------------------------------------------------------------- how strong


def test_signal_to_noise_is_the_peak_over_the_rms_of_the_trace_or_of_the_noise():
    pulse, wave = np.zeros(64), np.tile([1.0, -1.0], 32)
    pulse[10] = -8
    full, peak = signal_to_noise(traces([wave + pulse, wave], 180, signal=[pulse, 0 * pulse]))
    assert full.numpy() == pytest.approx([8 / np.sqrt((63 + 49) / 64), 0])
    assert peak.numpy() == pytest.approx([8, 0])


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_pulses_have_the_wished_ratio_under_the_background_s_law(sets, name):
    found = sets[name]
    there = found.presence == 1
    truth = found.signal[there].double()
    ratio = truth.abs().amax(1) / (simulate.LEVEL**2 + truth.square().mean(1)).sqrt()
    assert ratio.numpy() == pytest.approx(np.full(len(truth), 2.0), rel=1e-4)
    assert signal_to_noise(found)[0][there].mean() == pytest.approx(2, abs=0.05)
    assert (found.signal[~there] == 0).all()
    assert there.float().mean() == pytest.approx(0.5, abs=0.03)
    assert (truth.sum(1) != 0).all()
    largest = truth.gather(1, truth.abs().argmax(1, keepdim=True))
    assert (largest > 0).double().mean() == pytest.approx(0.5, abs=0.06)  # both polarities


def test_amplitudes_tell_nothing_about_the_noise_of_their_trace(sets):
    found = sets["measured"]
    there = (found.presence == 1).numpy()
    strength, heights = noise_of(found).std(axis=1), found.signal.abs().amax(1).numpy()
    assert abs(np.corrcoef(strength[there], heights[there])[0, 1]) < 4 / np.sqrt(there.sum())
    assert strength[there].mean() == pytest.approx(strength[~there].mean(), rel=0.01)


@pytest.mark.parametrize("index", [1.0, 3.0])
def test_a_range_of_ratios_follows_its_power_law(index):
    found = simulate.simulate(4096, "white", snr=(1.0, 4.0), index=index, share=0.99, seed=3)
    truth = found.signal[found.presence == 1].double()
    ratio = (truth.abs().amax(1) / (simulate.LEVEL**2 + truth.square().mean(1)).sqrt()).numpy()
    assert ratio.min() >= 1 - 1e-5
    assert ratio.max() <= 4 + 1e-4
    below_two = 0.5 if index == 1 else (1 - 2.0**-2) / (1 - 4.0**-2)
    assert np.mean(ratio < 2) == pytest.approx(below_two, abs=0.03)


def test_a_trace_is_the_same_in_sets_of_any_size_and_its_pulse_in_every_background(sets):
    few = simulate.simulate(300, "measured", seed=7)
    assert torch.equal(few.measured, sets["measured"].measured[:300])
    for name in BACKGROUNDS:
        assert torch.equal(sets[name].signal, sets["measured"].signal)
    other = simulate.simulate(300, "measured", seed=8)
    assert not torch.equal(other.signal, few.signal)
    a, b = noise_of(few).ravel(), noise_of(other).ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
    assert abs(np.corrcoef(Noise(7, range(300)).normal(500).numpy().ravel(), noise_of(sets["white"])[:300].ravel())[0, 1]) < 0.02


def test_other_lengths_and_rates_have_their_own_closed_forms():
    found = simulate.simulate(2048, "measured", steps=257, rate=200.0, share=0.0, seed=2)
    assert float(found.rate[0]) == 200
    power = np.abs(np.fft.rfft(found.measured.double().numpy())) ** 2
    assert power.mean(axis=0) == pytest.approx(simulate.power("measured", 257, 200.0), rel=0.2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"background": "pink"}, "no background is called 'pink'"),
        ({"snr": (3, 1)}, "the lowest and the highest"),
        ({"snr": (0,)}, "one number above 0"),
        ({"snr": (9,)}, "cannot be reached"),
        ({"rate": 100.0}, "cannot carry a band up to 80 MHz"),
        ({"steps": 10}, "64 to 65536 steps"),
        ({"share": 1.5}, "shares from 0 to 1"),
        ({"seed": -1}, "a seed of 0 or more"),
    ],
)
def test_what_cannot_be_simulated_is_refused(wrong, said):
    with pytest.raises(Refused, match=said):
        simulate.simulate(64, **wrong)


# ----------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def recovered():
    """Eight traces as a denoiser gives them back."""
    found = simulate.simulate(8, seed=1)
    return dataclasses.replace(found, spread=torch.full_like(found.signal, 0.02), presence=torch.linspace(0, 1, 8))


def same(one, two):
    return all(torch.equal(v.isnan(), w.isnan()) and torch.equal(v.nan_to_num(), w.nan_to_num())
               for v, w in zip(one.fields().values(), two.fields().values(), strict=True))  # fmt: skip


@pytest.mark.parametrize("ending", reading.FORMATS)
def test_traces_survive_every_format(recovered, tmp_path, ending):
    unknown = traces(recovered.measured.numpy(), 180)
    for number, found in enumerate((recovered, unknown)):
        reading.write(found, tmp_path / f"{number}{ending}")
        assert same(reading.read(tmp_path / f"{number}{ending}"), found)


def test_files_of_the_book_and_of_digitisers_are_read(tmp_path):
    import h5py

    found = simulate.simulate(5, seed=2)
    volts, truth = found.measured.numpy(), found.signal.numpy()
    np.savez(tmp_path / "book.npz", traces=volts, signals=truth, rate=180.0)
    with h5py.File(tmp_path / "site.h5", "w") as file:
        file["traces"] = volts / 1e3
        file["traces"].attrs["unit"] = "V"
        file.attrs["sampling_rate"] = 180.0
    plain = io.StringIO()
    np.savetxt(plain, volts, delimiter=",", fmt="%.9g")
    (tmp_path / "rows.csv").write_text(f"# antenna 12\n# sampling rate: 180 MHz\n{plain.getvalue()}")
    (tmp_path / "bare.csv").write_text(plain.getvalue())
    columns = np.column_stack([np.arange(500) / 180 * 1e3, volts.T])
    np.savetxt(tmp_path / "scope.csv", columns, delimiter=",", header="time_ns," + ",".join("abcde"), comments="", fmt="%.9g")
    book = reading.read(tmp_path / "book.npz")
    assert same(book, dataclasses.replace(found))
    for name in ("site.h5", "rows.csv", "scope.csv"):
        got = reading.read(tmp_path / name)
        assert torch.allclose(got.measured, found.measured, atol=1e-7), name
        assert got.rate.numpy() == pytest.approx(np.full(5, 180), rel=1e-5)
        assert got.presence.isnan().all()
    assert torch.allclose(reading.read(tmp_path / "bare.csv", rate=180.0).measured, found.measured, atol=1e-7)


def test_dead_and_broken_channels_are_set_aside_and_clipped_ones_counted(tmp_path):
    volts = simulate.simulate(40, seed=4).measured.numpy()
    volts[3] = 0
    volts[5, 17] = np.nan
    volts[7] = 0.25
    volts[9] = np.clip(volts[9], -0.08, 0.08)
    rates = np.full(40, 180.0)
    rates[11] = 200
    np.savez(tmp_path / "x.npz", traces=volts, rate=rates)
    given = reading.given(tmp_path / "x.npz", framing.TraceRecipe())
    assert given.rows.tolist() == [row for row in range(40) if row not in (3, 5, 7, 11)]
    assert len(given.rejected) == 4
    assert [("dead channel" in line, "not numbers" in line, "180 MHz" in line) for line in given.rejected] == [
        (True, False, False), (False, True, False), (True, False, False), (False, False, True)
    ]  # fmt: skip
    assert (given.dead, given.clipped) == (2, 1)
    assert "1 of 36 traces are clipped" in given.remarks[0]
    lines = given.write(given.usable, tmp_path / "y.npz")
    assert "36 traces denoised: 0 hold a pulse" in lines[0]
    assert "4 set aside" in lines[1]
    with np.load(tmp_path / "y.npz") as written:
        assert written["measured"].shape == (40, 500)
        assert np.isnan(written["presence"]).all()


def test_a_digitiser_s_steps_are_not_taken_for_its_limits():
    volts = simulate.simulate(1000, seed=5).measured.numpy()
    assert not reading.is_clipped(volts).any()
    digitised = np.round(volts / (simulate.LEVEL / 10))  # ten counts per RMS
    assert reading.is_clipped(digitised).mean() < 0.005
    assert reading.is_clipped(np.clip(digitised, -15, 100)).mean() > 0.99


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"traces": np.zeros((4, 500))}, "does not say how fast it was sampled; add `rate` in MHz"),
        ({"traces": np.zeros((4, 500)), "rate": 180e6}, "in MHz that may be 180"),
        ({"traces": np.zeros((4, 500)), "rate": 0.18}, "expected MHz, from 1 to"),
        ({"traces": np.zeros((4, 500)), "rate": [180.0, 180.0]}, "has 2 values for 4 traces"),
        ({"traces": np.ones((4, 500)), "rate": 200.0}, "sampled at 200 MHz, but the model takes 180 MHz; resample"),
        ({"traces": np.ones((4, 1024)), "rate": 180.0}, r"have 1024 steps, but the model takes 500; .*--start 262"),
        ({"traces": np.ones((4, 256)), "rate": 180.0}, r"have 256 steps, but the model takes 500; .*--length 256"),
        ({"traces": np.zeros((4, 500)), "rate": 180.0}, "none of 4 traces can be used; the first trace 0 is from a dead channel"),
        ({"traces": np.zeros((4, 500)), "rate": 180.0, "unit": "ADC"}, "in 'ADC'; expected V, mV or uV"),
        ({"traces": np.array(["a"]), "rate": 180.0}, "expected numbers"),
        ({"traces": np.ones((2, 3, 500)), "rate": 180.0}, "one channel each"),
        ({"traces": np.ones((4, 500)), "signals": np.ones((4, 400)), "rate": 180.0}, "`signal` has shape"),
        ({"voltage": np.ones((4, 500)), "rate": 180.0}, "holds no `traces`"),
        ({"traces": np.array([{}], object), "rate": 180.0}, "no .npz of plain arrays"),
    ],
)
def test_files_that_no_model_can_take_are_refused_in_words(tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(Refused, match=said):
        reading.given(tmp_path / "x.npz", framing.TraceRecipe())


def test_a_rate_that_contradicts_the_file_and_a_window_outside_it_are_refused(tmp_path):
    volts = np.random.default_rng(0).normal(size=(3, 600)).astype(np.float32)
    np.savez(tmp_path / "x.npz", traces=volts, rate=180.0)
    recipe = framing.TraceRecipe()
    with pytest.raises(Refused, match="--rate says 100; one of them is wrong"):
        reading.given(tmp_path / "x.npz", recipe, rate=100.0)
    with pytest.raises(Refused, match="from step 101 on does not lie within"):
        reading.given(tmp_path / "x.npz", recipe, start=101)
    window = reading.given(tmp_path / "x.npz", recipe, start=60)
    assert np.array_equal(window.usable.measured.numpy(), volts[:, 60:560])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npz", b"nonsense", "is damaged, or no .npz"),
        ("x.h5", b"nonsense", "is damaged, or no HDF5 file"),
        ("x.csv", b"# rate 180\n1,2,three\n", "no table of numbers"),
        ("x.csv", b"time_us,a\n", "no table of numbers"),
        ("x.csv", b"time_us,a\n0,1\n1,2\n5,3\n", "do not rise in equal steps"),
        ("x.csv", b"height,weight\n1,2\n", "columns are height, weight"),
        ("x.wav", b"RIFF", "are read from .npz, .h5"),
    ],
)
def test_damaged_files_are_refused_with_their_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=said) as refusal:
        reading.read(tmp_path / name)
    assert name in str(refusal.value)
    with pytest.raises(Refused, match="no such file"):
        reading.read(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("measured", float("nan"), "not finite"),
        ("signal", float("inf"), "infinite signal"),
        ("spread", -1.0, "negative or infinite spread"),
        ("presence", 1.5, "probability of a pulse"),
        ("rate", 180e6, "rates are in MHz"),
    ],
)
def test_traces_that_cannot_be_are_refused_with_their_row(field, value, said):
    good = simulate.simulate(4).fields()
    broken = good[field].clone()
    broken[2] = value
    with pytest.raises(Refused, match=rf"trace 2 .*{said}"):
        Traces(**{**good, field: broken})
    with pytest.raises(Refused, match="expected"):
        Traces(**{**good, field: good[field].double()})
    with pytest.raises(Refused, match="field"):
        Traces(**{**good, field: good[field][:3]})


# --------------------------------------------------------------------------------------------------------------- framing


def test_the_origin_says_how_strong_pulses_are_by_both_definitions():
    split = framing.load(framing.TraceRecipe(simulated=1000, background="white"))
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [700, 100, 200]
    assert "SNR max|signal|/RMS(trace) 2.0" in split.origin
    assert "peak over the RMS of the noise alone is 2.0" in split.origin
    assert "500 steps at 180 MHz (2.78 us)" in split.origin
    together = Traces.join([split.train, split.validation, split.held_out])
    assert torch.equal(together.measured, simulate.simulate(1000, "white").measured)


def test_own_traces_are_learned_from_where_their_true_signals_are_known(tmp_path):
    found = simulate.simulate(100, seed=6)
    volts, truth = found.measured.numpy(), found.signal.numpy()
    truth[4] = np.nan
    np.savez(tmp_path / "x.npz", traces=volts, signals=truth, rate=180.0)
    split = framing.load(framing.TraceRecipe(data=tmp_path / "x.npz"))
    assert sum(map(len, (split.train, split.validation, split.held_out))) == 99
    assert "trace 4: its true signal is not known" in split.rejected[0]
    np.savez(tmp_path / "y.npz", traces=volts, rate=180.0)
    with pytest.raises(Refused, match="holds no `signals`"):
        framing.load(framing.TraceRecipe(data=tmp_path / "y.npz"))
    np.savez(tmp_path / "z.npz", traces=volts[10:30], signals=truth[10:30] * 0, rate=180.0)
    with pytest.raises(Refused, match="20 can be used; 60 or more"):
        framing.load(framing.TraceRecipe(data=tmp_path / "z.npz"))


def test_traces_are_asked_for_by_background_and_strength_or_from_a_file(tmp_path):
    recipe = framing.TraceRecipe()
    plain = framing.ask(recipe, 30, {})
    assert not torch.equal(plain.measured, simulate.simulate(30).measured)  # not those of training
    strong = framing.ask(recipe, 30, {"background": "white", "snr": "3,4"})
    there = strong.presence == 1
    assert signal_to_noise(strong)[0][there].min() > 2.5
    reading.write(strong, tmp_path / "x.h5")
    assert same(framing.ask(recipe, 7, {"traces": str(tmp_path / "x.h5")}), strong[:7])
    for wrong, said in (
        ({"background": "pink"}, "cannot be simulated"), ({"snr": "loud"}, "cannot be simulated"), ({"zenith": "60"}, "zenith"),
        ({"traces": "x", "snr": "2"}, "brings its own"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=said):
            framing.ask(recipe, 3, wrong)
    with pytest.raises(ValueError, match="neither one number above 0"):
        framing.TraceRecipe(snr=(3.0, 1.0))


def test_pictures_show_the_true_signal_in_red_and_a_recovered_one_in_blue(recovered):
    true = simulate.simulate(8, seed=1)
    row = int((true.presence == 1).nonzero()[0, 0])
    truth, blue, unknown = (framing.picture(x[row : row + 1])[0] for x in (true, recovered, traces(true.measured.numpy(), 180)))
    assert truth.shape == (framing.HIGH, framing.WIDE, 3)

    def covered(page, ink):
        return int((np.abs(page - np.array(framing.INK[ink]) / 255).max(axis=2) < 0.1).sum())

    assert min(covered(truth, "truth"), covered(blue, "recovered")) > 100
    assert covered(truth, "recovered") + covered(blue, "truth") + covered(unknown, "truth") + covered(unknown, "recovered") == 0
    words = framing.caption(recovered)
    assert words[0] == "no pulse"
    assert words[4].endswith(f"p = {recovered.presence[4]:.2f}")
    assert framing.caption(traces(true.measured.numpy(), 180))[0] == "pulse not known"
