"""Power spectrum and two-point function against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulacra.measures import field


def gaussian_field(n: int, side: int, power, seed: int) -> np.ndarray:
    """Periodic Gaussian maps (n, side, side) with power P(k)."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((n, side, side)))
    return np.fft.irfft2(white * np.sqrt(power(k)), (side, side))


def red(k: np.ndarray) -> np.ndarray:
    return 1 / (0.02 + k) ** 2


def test_white_noise_has_a_flat_spectrum_at_its_variance():
    maps = 3 * np.random.default_rng(0).standard_normal((400, 32, 32))
    _, power, modes = field.power_spectrum(maps)
    mean, error = power.mean(axis=0), 9 * np.sqrt(2 / (modes * 400))
    assert np.all(np.abs(mean - 9) < 4.5 * error)


def test_scatter_of_a_band_power_is_that_of_its_number_of_modes():
    _, power, modes = field.power_spectrum(gaussian_field(2000, 32, red, 1))
    np.testing.assert_allclose(power.std(axis=0) / power.mean(axis=0) / np.sqrt(2 / modes), 1, atol=0.13)


def test_a_gaussian_field_gives_back_the_spectrum_it_was_made_with():
    maps = gaussian_field(500, 64, red, 2)
    _, power, modes = field.power_spectrum(maps)
    place = field.rings(64, 64)
    modes_k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :]).ravel()
    truth = place.average(red(modes_k)[None])[0]
    assert np.all(np.abs(power.mean(axis=0) / truth - 1) < 4.5 * np.sqrt(2 / modes / 500) + 0.01)


def test_power_of_one_complex_mode_follows_the_exponential_law():
    amplitude = np.fft.rfft2(gaussian_field(4000, 16, red, 3))[:, 2, 3]
    k = np.hypot(2 / 16, 3 / 16)
    ratio = np.abs(amplitude) ** 2 / 256 / red(k)
    assert abs(ratio.mean() - 1) < 0.08
    assert abs(np.mean(ratio > 1) - np.exp(-1)) < 0.04


def test_power_of_bands_is_not_correlated_between_bands():
    _, power, _ = field.power_spectrum(gaussian_field(2000, 32, red, 4))
    correlation = np.corrcoef(power.T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize("cycles", [1, 5, 11])
def test_a_cosine_has_all_its_power_in_its_own_ring(cycles):
    wave = np.broadcast_to(np.cos(2 * np.pi * cycles * np.arange(32) / 32), (1, 32, 32))
    k, power, modes = field.power_spectrum(wave)
    assert np.argmax(power[0]) == cycles - 1
    assert k[cycles - 1] == pytest.approx(cycles / 32, abs=0.5 / 32)
    assert power[0, cycles - 1] * modes[cycles - 1] == pytest.approx(32 * 32 / 2)  # Parseval: h w times the variance 1/2
    assert np.delete(power[0], cycles - 1).max() < 1e-20


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 33), st.integers(4, 33))
def test_rings_hold_every_mode_up_to_nyquist_once(height, width):
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    place = field.rings(height, width)
    ring = np.rint(k * min(height, width))
    inside = (ring >= 1) & (ring <= min(height, width) // 2) & (k <= 0.5 + 1e-12)
    assert place.modes.sum() == inside.sum()
    assert np.all(np.diff(place.k) > 0)


def test_a_taper_keeps_the_level_of_white_noise():
    maps = np.random.default_rng(5).standard_normal((300, 32, 32))
    _, power, _ = field.power_spectrum(maps, taper=True)
    assert abs(power[:, 2:].mean() - 1) < 0.02


def test_a_taper_stops_the_leakage_of_a_gradient_into_small_scales():
    slope = np.broadcast_to(np.arange(64.0), (1, 64, 64))
    plain, tapered = (field.power_spectrum(slope, taper=t)[1][0, -1] for t in (False, True))
    assert tapered < 1e-3 * plain


def test_two_point_function_starts_at_the_variance_and_vanishes_for_white_noise():
    maps = 2 * np.random.default_rng(6).standard_normal((300, 32, 32))
    for periodic in (True, False):
        r, xi = field.two_point(maps, periodic=periodic, mean=0.0)
        assert r[0] == 0
        assert xi[:, 0].mean() == pytest.approx(4, rel=0.02)
        assert np.abs(xi[:, 1:].mean(axis=0)).max() < 0.03


def test_two_point_function_of_smoothed_noise_is_the_gaussian_of_twice_the_variance():
    width = 2.0
    maps = gaussian_field(200, 64, lambda k: np.exp(-((2 * np.pi * k * width) ** 2)), 7)
    r, xi = field.two_point(maps, periodic=True, mean=0.0)
    mean = xi.mean(axis=0)
    np.testing.assert_allclose(mean[:8] / mean[0], np.exp(-(r[:8] ** 2) / (4 * width**2)), atol=0.03)


def test_maps_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="height, width"):
        field.power_spectrum(np.zeros((8, 8)))
