"""Statistics of convergence maps against closed forms and hand-made cases, and the judge against planted faults."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm

from simulacra.sciences.lensing import data, simulate, statistics
from simulacra.study import Refused


@pytest.fixture(scope="module")
def white():
    """White noise of variance 1, 200 maps of 32 px."""
    return np.random.default_rng(0).normal(size=(200, 32, 32))


@pytest.fixture(scope="module")
def smooth():
    """White noise under a Gaussian of 4 px, scaled to variance 1: s1/s0 = 1/4; 24 periodic maps of 256 px."""
    noise = np.random.default_rng(1).normal(size=(24, 256, 256))
    return ndimage.gaussian_filter(noise, (0, 4, 4), mode="wrap") * np.sqrt(4 * np.pi) * 4


# ------------------------------------------------------------------------------------------------------------- spectra


def test_white_noise_has_a_flat_spectrum_the_scatter_of_its_modes_and_no_correlation(white):
    ell, spectra, modes = statistics.power_spectrum(data.maps(white, 2.0), periodic=True)
    pixel = np.radians(2.0) / 32
    assert ell[-1] == pytest.approx(16 * 180, rel=0.02)  # 16 waves in two degrees
    assert spectra.mean(axis=0) == pytest.approx(np.full(16, pixel**2), rel=0.12)
    assert spectra.mean() == pytest.approx(pixel**2, rel=0.01)
    scatter, correlation = statistics.covariance(spectra)
    assert np.mean(np.diag(scatter) / (2 * pixel**4 / modes)) == pytest.approx(1, abs=0.1)
    beside = correlation[~np.eye(16, dtype=bool)]
    assert np.sqrt(np.mean(beside**2)) == pytest.approx(1 / np.sqrt(200), rel=0.2)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_mask_does_not_change_the_level_of_a_spectrum(white, periodic):
    masked = white.copy()
    masked[:, 5:15, 10:25] = np.nan
    _, spectra, _ = statistics.power_spectrum(data.maps(masked, 2.0), periodic=periodic)
    assert spectra[:, 3:].mean() == pytest.approx((np.radians(2.0) / 32) ** 2, rel=0.02)


def test_maps_of_several_sizes_have_no_spectrum_in_common(white):
    with pytest.raises(Refused, match="2 to 4 degrees"):
        statistics.power_spectrum(data.maps(white[:2], [2.0, 4.0]))


def test_independent_pixels_have_a_bispectrum_of_their_third_moment(white):
    skewed = np.random.default_rng(2).exponential(size=(300, 32, 32))  # third central moment 2
    for maps, exact in ((skewed, 2.0), (white, 0.0)):
        for periodic in (True, False):
            b, p = statistics.bispectrum(maps, periodic=periodic)
            error = b.std(axis=0) / np.sqrt(len(b))
            assert np.all(np.abs(b.mean(axis=0) - exact) < 4 * error)
            assert p[:, 1:].mean() == pytest.approx(1, rel=0.04)
            assert error[-1] < 0.5


def test_a_faintly_log_normal_field_has_the_bispectrum_of_its_shift():
    """To leading order kappa = g + g^2 / (2 lambda), so B = (P1 P2 + P2 P3 + P3 P1) / lambda on every triangle."""
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :])
    law = simulate.log_normal_law(np.where(k > 0, np.exp(-((k / 0.1) ** 2)), 0.0) * 1e-3, 0.05)  # s^2 = 0.012
    rng = np.random.default_rng(3)
    maps = np.stack([simulate.draw(law, rng) for _ in range(500)])
    triangles = [(1 / 16,) * 3, (3 / 32,) * 3, (1 / 16, 1 / 16, 1 / 8), (1 / 16, 1 / 8, 1 / 8)]
    b, p = statistics.bispectrum(maps, triangles, periodic=True)
    rows = np.concatenate([b, p.reshape(len(p), -1)], axis=1)
    q = statistics.reduced_bispectrum(rows.mean(axis=0, keepdims=True))[0]
    error = statistics.reduced_bispectrum(rows.reshape(20, 25, -1).mean(axis=1)).std(axis=0) / np.sqrt(20)
    assert np.all(np.abs(q - 20) < 4 * error + 1)
    assert error.min() < 1


def test_a_triangle_that_closes_around_the_grid_is_refused(white):
    with pytest.raises(Refused, match="at most 1/3"):
        statistics.bispectrum(white, [(0.4, 0.4, 0.4)])


# ------------------------------------------------------------------------------------------------------------- heights


def test_the_one_point_law_of_a_gaussian_field_is_the_normal_law(white):
    edges = np.array([-9, -2, -1, 0, 0.5, 3, 9])
    share = statistics.one_point(white, edges).mean(axis=0)
    assert share == pytest.approx(np.diff(norm.cdf(edges)), abs=3e-3)


def test_unobserved_pixels_are_no_part_of_the_one_point_law():
    map_ = np.full((1, 8, 8), np.nan)
    map_[0, :4, :4] = 0.3
    assert statistics.one_point(map_, np.array([0, 0.2, 0.4, 9])).tolist() == [[0, 1, 0]]


def test_two_valued_maps_have_their_exact_skewness_and_kurtosis():
    maps = np.zeros((2, 8, 8))
    maps[0, :4] = 1  # a quarter of all pixels
    p = 0.25
    found = statistics.skewness_and_kurtosis(statistics.moments(maps).mean(axis=0, keepdims=True))
    assert found[0] == pytest.approx([(1 - 2 * p) / np.sqrt(p * (1 - p)), (1 - 6 * p * (1 - p)) / (p * (1 - p))])


@pytest.mark.parametrize(
    ("where", "area", "boundary", "euler"),
    [
        ([(3, 3)], 1, 4, 1),
        ([(3, 3), (3, 4)], 2, 6, 1),
        ([(3, 3), (4, 4)], 2, 8, 1),  # they touch at a corner: closed pixels are one piece
        ([(3, 3), (6, 6)], 2, 8, 2),
        ([(y, x) for y in (2, 3, 4) for x in (2, 3, 4) if (y, x) != (3, 3)], 8, 16, 0),  # a ring
        ([(0, 0), (0, 7), (7, 0), (7, 7)], 4, 8, 1),  # a square across the seam of the torus
        ([(y, 2) for y in range(8)], 8, 16, 0),  # a band around the torus
    ],
)
def test_minkowski_functionals_of_hand_made_sets(where, area, boundary, euler):
    map_ = np.zeros((1, 8, 8))
    map_[0, *np.array(where).T] = 1
    v0, v1, v2 = statistics.minkowski(map_, np.array([0.5]), periodic=True)[0, :, 0] * 64
    assert v0 == pytest.approx(area)
    assert v1 == pytest.approx(np.pi / 4 * boundary / 4)
    assert v2 == pytest.approx(euler)


def test_minkowski_functionals_of_a_gaussian_field_are_tomitas(smooth):
    nu = np.linspace(-2.5, 2.5, 11)
    found = statistics.minkowski(smooth, nu, periodic=True).mean(axis=0)
    exact = statistics.gaussian_minkowski(nu, 1 / 4)
    assert np.abs(found[0] - exact[0]).max() < 0.01
    assert np.abs(found[1] - exact[1]).max() < 0.02 * exact[1].max()  # without pi/4 it would be 27 % too long
    assert np.abs(found[2] - exact[2]).max() < 0.04 * exact[2].max()


def test_minkowski_functionals_need_neither_a_torus_nor_a_whole_map(smooth):
    nu = np.array([-1.0, 0.5, 1.5])
    whole = statistics.minkowski(smooth, nu, periodic=True).mean(axis=0)
    cut = smooth[:, :200, :180].copy()
    cut[:, 50:90, 60:80] = np.nan
    assert statistics.minkowski(cut, nu).mean(axis=0) == pytest.approx(whole, rel=0.08, abs=2e-4)


def test_a_gaussian_field_has_the_number_of_peaks_of_longuet_higgins(smooth):
    edges = np.array([-9.0, 0, 9])
    maxima = statistics.peaks(smooth, edges, periodic=True)
    exact = 1 / (4 * np.pi * np.sqrt(3) * 4**2)  # s2^2 / s1^2 = 2 / R^2
    assert maxima.sum(axis=1).mean() == pytest.approx(exact, rel=0.03)
    assert statistics.peaks(-smooth, edges, periodic=True).sum(axis=1).mean() == pytest.approx(exact, rel=0.03)
    assert statistics.peaks(smooth, edges).sum(axis=1).mean() == pytest.approx(exact, rel=0.03)


def test_peaks_are_counted_where_they_stand_and_not_beside_a_hole():
    map_ = np.random.default_rng(4).uniform(0, 0.1, (1, 16, 16))
    map_[0, 4, 4], map_[0, 10, 10], map_[0, 0, 8] = 2, 3, 5  # the last at the border
    edges = np.array([-1, 1.0, 2.5, 4, 9])
    assert statistics.peaks(map_, edges)[0, 1:] * 14**2 == pytest.approx([1, 1, 0])
    assert statistics.peaks(map_, edges, periodic=True)[0, 1:] * 16**2 == pytest.approx([1, 1, 1])
    map_[0, 10, 11] = np.nan
    assert statistics.peaks(map_, edges)[0, 1:].tolist()[1:] == [0, 0]


def test_smoothing_skips_what_was_not_observed():
    map_ = np.full((1, 16, 16), 0.7)
    map_[0, 4:8, 4:6] = np.nan
    smoothed = statistics.smooth(map_, 1.0)
    assert np.isnan(smoothed[0, 5, 5])
    assert smoothed[np.isfinite(smoothed)] == pytest.approx(0.7)


# ------------------------------------------------------------------------------------------------------------ wavelets


def test_wavelet_scales_sum_to_the_map(white):
    assert statistics.starlet(white[:5]).sum(axis=1) == pytest.approx(white[:5])


def test_the_wavelet_l1_norm_of_white_noise_is_that_of_normal_coefficients(white):
    impulse = np.zeros((1, 32, 32))
    impulse[0, 16, 16] = 1
    sigma = np.sqrt((statistics.starlet(impulse, 3, periodic=True)[0, :3] ** 2).sum(axis=(1, 2)))
    assert sigma[0] == pytest.approx(0.8908, abs=1e-3)  # 1 - 2 (3/8)^2 + (70/256)^2, square root taken
    steps = np.array([-9.0, -1, 0, 1.5, 9])
    found = statistics.l1_norm(white, steps * sigma[:, None], periodic=True).mean(axis=0)
    decay = norm.pdf(steps)
    exact = np.abs(np.diff(decay))  # the integral of |x| phi(x) between heights that 0 does not part
    assert found == pytest.approx(sigma[:, None] * exact, rel=0.06)


# --------------------------------------------------------------------------------------------------------------- judge


def log_normal(n, seed, amplitude=1.0, shift=0.03):
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :])
    law = simulate.log_normal_law(amplitude * np.where(k > 0, 5e-3 / (1 + (k / 0.05) ** 2), 0.0), shift)
    rng = np.random.default_rng(seed)
    return data.maps(np.stack([simulate.draw(law, rng)[:32, :32] for _ in range(n)]), 1.0)


@pytest.fixture(scope="module")
def nature():
    return log_normal(60, 10)


def judged(nature, drawn, **more):
    return statistics.judge(nature, drawn, seed=0, permutations=199, halves=20, **more)


def test_every_statistic_can_tell_nature_from_its_rival_and_finds_nature_like_nature(nature):
    evidence = judged(nature, log_normal(60, 11), training=log_normal(60, 12))
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, f"{finding.name} cannot tell nature from {finding.rival_name}"
        assert finding.gap_low < 0.25, finding.name
    assert not evidence.differs
    assert not evidence.remarks


def wrong_spectrum(nature):
    return log_normal(60, 13, amplitude=1.4)


def gaussian(nature):
    return data.maps(statistics.gaussian_maps(statistics.pixels(nature), np.random.default_rng(0)), 1.0)


def collapsed(nature):
    return nature[[0, 1, 2] * 20]


def blurred(nature):
    return data.maps(ndimage.gaussian_filter(statistics.pixels(nature), (0, 0.7, 0.7)), 1.0)


@pytest.mark.parametrize(
    ("fault", "telling"),
    [
        (wrong_spectrum, "power spectrum"),
        (gaussian, "skewness and kurtosis"),
        (gaussian, "V2 (Euler characteristic)"),
        (collapsed, "coverage"),
        (blurred, "power spectrum"),
    ],
)
def test_a_planted_fault_is_found_where_it_shows(nature, fault, telling):
    evidence = judged(nature, fault(log_normal(60, 14)))
    assert evidence.differs
    finding = next(f for f in evidence.findings if f.name == telling)
    assert finding.p < 0.05
    assert finding.gap_low > 0


def test_copied_training_maps_are_found(nature):
    training = log_normal(60, 15)
    copies = data.maps(np.ascontiguousarray(statistics.pixels(training)[:, ::-1]), 1.0)
    finding = judged(nature, copies, training=training).findings[-1]
    assert finding.name == "memorisation"
    assert finding.gap > 0.9
    assert finding.p < 0.01


def test_maps_of_another_angular_size_are_refused(nature):
    with pytest.raises(Refused, match="1 degrees wide and drawn maps 2"):
        judged(nature, dataclasses.replace(nature, degrees=nature.degrees * 2))


def test_a_mask_is_told_to_the_reader(nature):
    holes = statistics.pixels(nature)
    holes[:, 3:6, 3:6] = np.nan
    evidence = judged(data.maps(holes, 1.0), log_normal(60, 16))
    assert "unobserved pixels in nature" in evidence.remarks[0]
    assert all(np.isfinite(f.distance) for f in evidence.findings)


# ---------------------------------------------------------------------------------------------------------- bin by bin


def test_discoveries_are_those_of_benjamini_and_hochberg():
    # Their own example (1995, section 3.2): of 15 p-values the procedure at rate 0.05 calls the four smallest.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert statistics.discoveries(np.array(p[::-1]), 0.05).tolist() == [False] * 11 + [True] * 4
    assert not statistics.discoveries(np.array([0.3, 0.9]), 0.05).any()


@pytest.fixture(scope="module")
def much_nature():
    return log_normal(300, 20)


def stronger(seed, power):
    return data.maps(np.sqrt(power) * statistics.pixels(log_normal(300, seed)), 1.0)


def test_bins_differ_where_a_spectrum_is_too_high_and_nowhere_in_nature(much_nature):
    alike = statistics.bin_by_bin(much_nature, stronger(21, 1.0))
    assert sum(int(b.different.sum()) for b in alike) <= 3
    spectrum = statistics.bin_by_bin(much_nature, stronger(22, 1.2))[0]
    assert spectrum.name == "power spectrum"
    assert spectrum.different[4:].all()
    assert np.all(spectrum.effect[4:] > 0.2)


def test_tests_that_do_not_take_the_map_as_the_unit_fail_both_ways(nature, much_nature):
    """Pooled pixels tell nature from itself; means of bands cannot see a fifth too much power in every one of them."""
    same = [statistics.pooled_tests(nature, log_normal(60, seed))["pixels"] for seed in range(30, 40)]
    assert np.mean(np.array(same) < 0.01) > 0.5
    strong = stronger(41, 1.2)
    assert statistics.pooled_tests(much_nature, strong)["band means"] > 0.5
    assert statistics.bin_by_bin(much_nature, strong)[0].different.any()
