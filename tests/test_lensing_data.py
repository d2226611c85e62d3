"""Convergence maps: how they are read and refused, how a sky is cut, and the log-normal simulator against closed forms."""

import sys
import types

import numpy as np
import pytest
import torch

from simulacra.measures import field
from simulacra.sciences.lensing import data, simulate
from simulacra.study import Refused


@pytest.fixture
def kappa():
    return np.random.default_rng(0).normal(0, 0.01, (5, 16, 16)).astype(np.float32)


def test_what_is_written_is_read_back(tmp_path, kappa):
    maps = data.maps(kappa, 3.5, omega_m=[0.2, 0.25, 0.3, 0.35, 0.4], z_source=1.0)
    data.write(maps, tmp_path / "maps.npz")
    again = data.read(tmp_path / "maps.npz")
    assert torch.equal(again.kappa, maps.kappa)
    assert torch.equal(again.degrees, maps.degrees)
    assert torch.equal(again.universe.nan_to_num(-9), maps.universe.nan_to_num(-9))
    assert again.universe[2, 0] == np.float32(0.3)
    assert again.universe[:, 1].isnan().all()


def test_maps_of_unknown_size_are_refused_until_the_size_is_given(tmp_path, kappa):
    np.savez(tmp_path / "maps.npz", kappa=kappa)
    with pytest.raises(Refused, match="side_deg"):
        data.read(tmp_path / "maps.npz")
    assert data.read(tmp_path / "maps.npz", 2.0).degrees.tolist() == [2.0] * 5


def test_a_size_that_contradicts_the_file_is_refused(tmp_path, kappa):
    np.savez(tmp_path / "maps.npz", kappa=kappa, side_deg=3.5)
    with pytest.raises(Refused, match=r"3\.5 degrees wide, and 5 were asked"):
        data.read(tmp_path / "maps.npz", 5.0)


def test_masked_pixels_become_unobserved(tmp_path, kappa):
    mask = np.ones((16, 16), np.uint8)
    mask[:, :4] = 0
    np.savez(tmp_path / "maps.npz", kappa=kappa, side_deg=3.5, mask=mask)
    read = data.read(tmp_path / "maps.npz")
    assert read.kappa[:, :, :4].isnan().all()
    assert torch.equal(read.kappa[:, :, 4:], torch.from_numpy(kappa[:, :, 4:]))


@pytest.mark.parametrize(
    ("header", "degrees"),
    [
        ({"CDELT1": -0.1}, 1.6),
        ({"CDELT1": 3.0, "CUNIT1": "arcmin"}, 0.8),
        ({"CD1_1": -36.0, "CUNIT1": "arcsec"}, 0.16),
        ({"ANGLE": 3.5}, 3.5),
    ],
)
def test_a_fits_header_tells_the_size_in_any_unit(tmp_path, kappa, header, degrees):
    fits = pytest.importorskip("astropy.io.fits")
    fits.writeto(tmp_path / "map.fits", kappa[0], fits.Header(header))
    read = data.read(tmp_path / "map.fits")
    assert read.degrees.item() == pytest.approx(degrees)
    assert torch.equal(read.kappa[0], torch.from_numpy(kappa[0]))


def test_a_fits_file_without_a_size_or_without_an_image_is_refused(tmp_path, kappa):
    fits = pytest.importorskip("astropy.io.fits")
    fits.writeto(tmp_path / "map.fits", kappa[0])
    with pytest.raises(Refused, match="how wide"):
        data.read(tmp_path / "map.fits")
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "empty.fits")
    with pytest.raises(Refused, match="holds no image"):
        data.read(tmp_path / "empty.fits")
    fits.writeto(tmp_path / "picture.fits", (kappa[0] > 0).astype(np.int16), fits.Header({"ANGLE": 3.5}))
    with pytest.raises(Refused, match=r"picture\.fits: kappa is .*int16; expected real numbers"):
        data.read(tmp_path / "picture.fits")


def test_hdf5_is_read_with_h5py(tmp_path, kappa):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["kappa"] = kappa
        file.attrs["side_deg"] = 3.5
        file["z_source"] = np.full(5, 1.0)
    read = data.read(tmp_path / "maps.h5")
    assert torch.equal(read.kappa, torch.from_numpy(kappa))
    assert read.universe[0, 3] == 1


def test_hdf5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "maps.h5").write_bytes(b"\x89HDF")
    with pytest.raises(Refused, match=r"pip install.*astro"):
        data.read(tmp_path / "maps.h5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"degrees": 0.0}, "0 degrees wide"),
        ({"kappa": np.zeros((2, 16, 12), np.float32)}, "square"),
        ({"kappa": np.zeros((2, 16, 16), np.uint8)}, "real numbers"),
        ({"kappa": np.full((2, 16, 16), np.inf)}, "infinite"),
        ({"kappa": np.full((2, 16, 16), np.nan)}, "observed in 0%"),
        ({"omega_m": 30.0}, "omega_m = 30"),
        ({"w": 1.0}, "w = 1"),
        ({"hubble": 0.7}, "hubble is not a property"),
        ({"sigma_8": [0.8, 0.8, 0.8]}, "one for each of 2"),
        ({"degrees": "wide"}, "expected numbers"),
    ],
)
def test_impossible_maps_are_refused_in_words(change, words):
    given = {"kappa": np.zeros((2, 16, 16)), "degrees": 3.5} | change
    with pytest.raises(Refused, match=words):
        data.maps(given.pop("kappa"), given.pop("degrees"), **given)


def test_broken_files_are_refused(tmp_path):
    for name in ("a.npz", "a.fits"):
        (tmp_path / name).write_bytes(b"this is no archive")
        with pytest.raises(Refused, match="damaged"):
            data.read(tmp_path / name)


def test_patches_put_together_are_the_map(kappa):
    patches, place = data.cut(data.maps(kappa, 4.0, z_source=np.arange(1.0, 6)), 8)
    assert patches.degrees.tolist() == [2.0] * 20
    again = np.zeros_like(kappa)
    for patch, (row, column), z in zip(patches.kappa, place, patches.universe[:, 3], strict=True):
        again[int(z) - 1, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = patch
    assert np.array_equal(again, kappa)


def test_no_place_of_the_sky_is_on_two_sides_of_the_split_at_any_redshift(tmp_path):
    x = np.broadcast_to(np.arange(64, dtype=np.float32), (3, 64, 64))
    np.savez(tmp_path / "sky.npz", kappa=x, side_deg=3.5, z_source=[0.5, 1.0, 1.5])
    split = data.light_cone(tmp_path / "sky.npz", side=8)
    columns = [set(part.kappa.unique().tolist()) for part in (split.train, split.validation, split.held_out)]
    assert columns == [set(range(40)), set(range(40, 48)), set(range(48, 64))]
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [120, 24, 48]
    one = data.light_cone(tmp_path / "sky.npz", side=8, z_source=[1.0])
    assert one.held_out.universe[:, 3].unique().tolist() == [1.0]
    with pytest.raises(Refused, match=r"redshift 0\.7; the light cone has 0\.50, 1\.00, 1\.50"):
        data.light_cone(tmp_path / "sky.npz", side=8, z_source=[0.7])


def test_the_ray_traced_light_cone_is_read(data_folder):
    split = data.light_cone(data_folder / "lensing" / "nbody_convergence.npz", z_source=[0.99])
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [40, 8, 16]
    assert split.train.kappa.std().item() == pytest.approx(0.009, rel=0.1)
    assert split.train.degrees[0].item() == pytest.approx(3.5 / 8)


def test_a_survey_map_is_read_with_its_mask(data_folder):
    read = data.read(data_folder / "lensing" / "cfht_emulator_noisy_map.npz")
    assert len(read) == 1
    assert read.kappa.isnan().float().mean().item() == pytest.approx(0.2, abs=0.02)


# ------------------------------------------------------------------------------------------------------------ simulator


def test_the_empty_beam_has_its_closed_form_without_dark_energy():
    for z in (0.5, 1.0, 3.0):
        x = (1 + z) ** -0.5
        exact = 6 * (-(1 + x) * np.log(x) / (1 - x) - 2)
        assert simulate.empty_beam(types.SimpleNamespace(omega_m=1.0, w=-1.0, z_source=z)) == pytest.approx(exact, rel=1e-5)


@pytest.fixture(scope="module")
def law():
    """A spectrum of our own making, so that closed forms are tested without pyccl."""
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :])
    power = np.where(k > 0, 2e-3 / (1 + (k / 0.05) ** 2), 0.0)
    return simulate.log_normal_law(power, 0.03)


@pytest.fixture(scope="module")
def drawn(law):
    rng = np.random.default_rng(1)
    return np.stack([simulate.draw(law, rng) for _ in range(600)]).astype(float)


def test_log_normal_maps_have_the_spectrum_they_were_asked_for(law, drawn):
    _, power, _ = field.power_spectrum(drawn)
    asked = field.rings(64, 64).average(law.spectrum.reshape(1, -1))[0]
    error = power.std(axis=0) / np.sqrt(len(power)) / asked
    assert np.all(np.abs(power.mean(axis=0) / asked - 1) < 5 * error)
    assert error.max() < 0.05
    assert law.clipped < 1e-3


def test_log_normal_maps_have_mean_variance_and_skewness_in_closed_form(law, drawn):
    w = np.exp(law.variance)
    sigma = law.shift * np.sqrt(w - 1)
    assert abs(drawn.mean()) < 5e-3 * sigma
    assert drawn.std() == pytest.approx(sigma, rel=0.01)
    assert np.mean(drawn**3) / drawn.std() ** 3 == pytest.approx((w + 2) * np.sqrt(w - 1), rel=0.05)
    assert drawn.min() > -law.shift


def test_a_shift_that_the_spectrum_forbids_is_refused():
    with pytest.raises(Refused, match="larger shift"):
        simulate.log_normal_law(-np.ones((16, 9)), 0.01)
    k = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :])
    with pytest.raises(Refused, match="off in variance"):
        simulate.log_normal_law(np.exp(-((k / 0.05) ** 2)), 1e-3)


def test_a_universe_outside_the_range_is_refused():
    with pytest.raises(Refused, match=r"omega_m = 1\.2; maps are simulated for omega_m from 0\.1 to 0\.9"):
        simulate.Universe(omega_m=1.2)


def test_the_convergence_spectrum_is_the_limber_integral():
    ccl = pytest.importorskip("pyccl")
    universe, ell = simulate.Universe(0.28, 0.85, -0.9, 1.2), np.array([300.0, 2000.0, 10000.0])
    _, matter = simulate._matter(0.28, 0.85, -0.9)
    z = np.linspace(1e-3, 1.2, 400)
    chi = ccl.comoving_radial_distance(matter, 1 / (1 + z))
    end = ccl.comoving_radial_distance(matter, 1 / 2.2)
    kernel = 1.5 * 0.28 * (0.7 / 2997.92458) ** 2 * (1 - chi / end) * (1 + z)

    def matter_seen_at(l):
        return np.array([ccl.nonlin_matter_power(matter, (l + 0.5) / c, 1 / (1 + x)) for c, x in zip(chi, z, strict=True)])

    sums = [np.trapezoid(kernel**2 * matter_seen_at(l), chi) for l in ell]
    assert simulate.convergence_spectrum(universe, ell) == pytest.approx(np.array(sums), rel=5e-3)
    beam = np.trapezoid(chi * kernel, chi)
    assert simulate.empty_beam(universe) == pytest.approx(beam, rel=2e-3)


def test_map_i_of_a_seed_is_the_same_in_sets_of_any_size_and_carries_its_universe():
    pytest.importorskip("pyccl")
    universes = [simulate.Universe(), simulate.Universe(sigma_8=0.9)]
    few = simulate.simulate(universes, 2, side=16, degrees=2.0, seed=3)
    many = simulate.simulate(universes, 5, side=16, degrees=2.0, seed=3)
    assert torch.equal(few.kappa, many.kappa[[0, 1, 5, 6]])
    assert many.universe[5].tolist() == pytest.approx([0.3, 0.9, -1.0, 1.0])
    assert many.kappa[5:].var() > many.kappa[:5].var()
