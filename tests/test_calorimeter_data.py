"""The simulator of showers against its closed forms, files in the layouts of the field, bad input, and what can be asked for."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import special

from simulacra.sciences.calorimeter import framing, reading
from simulacra.sciences.calorimeter import simulate as law
from simulacra.sciences.calorimeter.data import PHOTON, Showers, showers
from simulacra.sciences.calorimeter.framing import ShowerRecipe
from simulacra.sciences.calorimeter.reading import Layout
from simulacra.study import Refused

MANY = 3000


def steady(incident, particle=1):
    """A shower that does not fluctuate."""
    maximum, shape = law.usual(np.array([incident]), np.array([particle]))
    one = np.ones(1)
    return law.Latent(np.array([incident]), maximum, shape, 0 * one, one, one)


@pytest.fixture(scope="module")
def many():
    """Electrons of 20 GeV, in 12^3 cells."""
    return law.simulate(np.full(MANY, 20.0), 1, seed=7)


# ---------------------------------------------------------------------------------------------------------- simulator


@pytest.mark.parametrize(
    ("incident", "maximum", "shape", "mean", "rms", "contained"),
    [
        (1, 4.328, 3.164, 6.33, 3.56, 0.99955),
        (10, 6.631, 4.315, 8.63, 4.15, 0.99764),
        (100, 8.933, 5.467, 10.93, 4.68, 0.99119),
        (500, 10.543, 6.271, 12.54, 5.01, 0.98105),
    ],
)
def test_the_usual_shower_is_the_gamma_profile_of_the_textbooks(incident, maximum, shape, mean, rms, contained):
    usual = steady(incident)
    assert usual.maximum[0] == pytest.approx(maximum, abs=1e-3)
    assert usual.shape[0] == pytest.approx(shape, abs=1e-3)
    share = law.layer_shares(usual, 20_000, depth=200.0)[0]
    place = (np.arange(20_000) + 0.5) / 100
    assert share @ place == pytest.approx(mean, abs=6e-3)
    assert np.sqrt(share @ place**2 - (share @ place) ** 2) == pytest.approx(rms, abs=6e-3)
    assert law.layer_shares(usual, 25)[0].sum() == pytest.approx(contained, abs=1e-5)
    assert law.layer_shares(usual, 25)[0].sum() == pytest.approx(special.gammainc(shape, law.SLOPE * law.DEPTH), abs=1e-4)


def test_photons_reach_their_maximum_one_radiation_length_deeper_than_electrons():
    electron, photon = (law.usual(50.0, particle)[0] for particle in (1, PHOTON))
    assert photon + law.CONVERSION - electron == pytest.approx(1.0)


def test_the_density_across_a_shower_integrates_to_that_of_a_strip_and_of_a_circle():
    radius = np.array([[[0.7]]])
    edges = np.array([0.0, 0.3, 1.5, 1e6])
    table = law.corners(edges, radius)[0]
    assert table[3, 3] == pytest.approx(0.25, abs=1e-6)  # a quarter of everything
    np.testing.assert_allclose(4 * table[:, 3], edges / np.sqrt(edges**2 + 0.49), atol=1e-5)  # |x| below an edge, any y
    fine = np.linspace(0, 1.5, 601)
    share = np.diff(np.diff(law.corners(fine, radius)[0], axis=0), axis=1)
    middle = (fine[1:] + fine[:-1]) / 2
    within = np.hypot(middle[:, None], middle) < 1.5
    assert 4 * share[within].sum() == pytest.approx(1.5**2 / (1.5**2 + 0.49), abs=1e-3)


@pytest.mark.parametrize("cells", [8, 12, 25])
def test_the_cells_of_a_layer_share_what_falls_on_its_face(cells):
    development = law.latent(np.array([30.0, 300.0]), np.array([1, 0]), np.array([[0.5, -1, 1, 0], [0, 2, -1, 1.0]]), np.array([0.1, 0.7]))
    share = law.cell_shares(development, cells)
    assert share.shape == (2, cells, cells, cells)
    np.testing.assert_allclose(share.sum(axis=(2, 3)), law.layer_shares(development, cells) * law.inside(development, cells), rtol=1e-9)
    np.testing.assert_allclose(share, share[:, :, ::-1], rtol=1e-9)
    np.testing.assert_allclose(share, share.swapaxes(2, 3), rtol=1e-9)


def test_deposits_in_cells_are_compound_poisson():
    rate, tries = np.repeat(np.float32([0.05, 1.0, 30.0]), 40_000), 40_000
    found = law._deposits(rate, np.random.default_rng(1)).reshape(3, tries)
    for each, expected in zip(found.astype(float), (0.05, 1.0, 30.0), strict=True):
        mean, variance = expected * law.QUANTUM, expected * law.QUANTUM * law.variance_per_energy()
        assert each.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / tries))
        assert each.var() == pytest.approx(variance, rel=0.12 if expected < 1 else 0.05)
        empty = np.exp(-expected)
        assert (each == 0).mean() == pytest.approx(empty, abs=4 * np.sqrt(empty * (1 - empty) / tries) + 1e-12)


@pytest.mark.parametrize(("incident", "particle"), [(20.0, 1), (60.0, 0)])
def test_simulated_layers_have_the_moments_of_the_law(incident, particle, many):
    drawn = many if particle == 1 else law.simulate(np.full(MANY, incident), particle, seed=8)
    layers = drawn.energy.double().sum(dim=(2, 3)).numpy()
    exact = law.moments(incident, particle)
    error = np.sqrt(np.diag(exact.covariance) / MANY)
    assert np.abs((layers.mean(axis=0) - exact.mean) / error).max() < 4
    products = (layers - exact.mean)[:, :, None] * (layers - exact.mean)[:, None, :]
    assert np.abs((products.mean(axis=0) - exact.covariance) / products.std(axis=0)).max() < 5 / np.sqrt(MANY)
    mean, sd = exact.total
    total = drawn.deposit.numpy()
    assert total.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(MANY))
    assert total.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * MANY))


def test_the_resolution_is_the_stochastic_and_the_constant_term_and_what_leaks():
    for incident in (1.0, 10.0, 50.0):
        mean, sd = law.moments(incident, 1).total
        seen = mean / (law.SAMPLING * 1000 * incident)
        terms = np.hypot(law.STOCHASTIC / np.sqrt(incident * seen), law.CONSTANT)
        assert terms < sd / mean < 1.1 * terms


def test_a_shower_does_not_depend_on_how_many_are_simulated(many):
    few = law.simulate(np.full(3, 20.0), 1, seed=7)
    assert torch.equal(few.energy, many.energy[:3])
    assert not torch.equal(few.energy, law.simulate(np.full(3, 20.0), 1, seed=8).energy)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"incident": [0.5]}, "from 1 to 500 GeV"),
        ({"incident": []}, "one or more incident energies"),
        ({"particle": 2}, "1 electron, 0 photon or -1 positron"),
        ({"cells": 3}, "4 to 50 cells"),
    ],
)
def test_the_simulator_refuses_what_it_has_no_law_for(asked, words):
    with pytest.raises(Refused, match=words):
        law.simulate(**{"incident": [10.0], "particle": 1, "seed": 0} | asked)


# ------------------------------------------------------------------------------------------------------------ showers


def test_showers_that_cannot_be_are_refused():
    energy = np.zeros((3, 4, 5, 6), np.float32)
    assert showers(energy, 10.0).grid == (4, 5, 6)
    negative, nothing = energy.copy(), energy.copy()
    negative[1, 0, 0, 0], nothing[2, 1, 1, 1] = -0.1, np.nan
    for wrong, words in (
        ((negative, 10.0), r"shower 1 has a cell with -0.1 MeV"),
        ((nothing, 10.0), "shower 2 has values that are no numbers"),
        ((energy, [1.0, 0.0, 1.0]), "shower 1 came with 0 GeV"),
        ((energy, 10.0, 3), "of particle 3"),
        ((energy, [1.0, 2.0]), "one for each of 3 showers"),
        ((energy.reshape(3, -1), 10.0), r"expected \(showers, layers, rows, columns\)"),
        ((energy[:, :2], 10.0), "4 cells or more"),
        ((energy.astype(int), 10.0), "real numbers in MeV"),
    ):
        with pytest.raises(Refused, match=words):
            showers(*wrong)


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_showers_survive_their_file(many, tmp_path, ending):
    path = tmp_path / f"showers{ending}"
    mixed = dataclasses.replace(many[:7], particle=torch.tensor([1, 0, -1, 1, 0, -1, 1], dtype=torch.int8))
    reading.write(mixed, path)
    back = reading.read(path)
    assert torch.equal(back.energy, mixed.energy)
    assert torch.equal(back.particle, mixed.particle)
    torch.testing.assert_close(back.incident, mixed.incident)


def test_files_of_calochallenge_are_read_by_layers_then_angles_then_radii(tmp_path):
    h5py = pytest.importorskip("h5py")
    energy = np.random.default_rng(0).random((6, 5, 4, 6)).astype(np.float32)
    with h5py.File(tmp_path / "dataset.hdf5", "w") as file:
        file["showers"], file["incident_energies"] = energy.reshape(6, -1), np.full((6, 1), 100.0)
    found = reading.read(tmp_path / "dataset.hdf5", Layout(grid=(5, 4, 6), particle=PHOTON))
    np.testing.assert_array_equal(found.energy.numpy(), energy)
    assert found.incident.tolist() == pytest.approx([0.1] * 6)  # 100 MeV
    assert set(found.particle.tolist()) == {PHOTON}
    with pytest.raises(Refused, match="120 voxels a shower; say how they are laid out: --grid"):
        reading.read(tmp_path / "dataset.hdf5")
    with pytest.raises(Refused, match="no grid of 5 x 5 x 5"):
        reading.read(tmp_path / "dataset.hdf5", Layout(grid=(5, 5, 5)))


def test_files_of_3dgan_have_depth_last_and_giga_electron_volts(many, tmp_path):
    h5py = pytest.importorskip("h5py")
    energy, incident = many.energy[:8].numpy(), many.incident[:8].numpy()
    for target in (incident, incident[:, None], np.stack([np.full(8, 11.0), incident], axis=1)):
        path = tmp_path / "Ele.h5"
        with h5py.File(path, "w") as file:
            file["ECAL"], file["target"] = np.moveaxis(energy, 1, 3) / 1000, target
        found = reading.read(path)
        np.testing.assert_allclose(found.energy.numpy(), energy, rtol=1e-6)
        np.testing.assert_allclose(found.incident.numpy(), incident)


def archive(tmp_path, **changes):
    """An .npz of 20 showers of 10 GeV in 4^3 cells that hold 100 MeV in all, but for `changes`."""
    columns = {"energy": np.full((20, 4, 4, 4), 100 / 64, np.float32), "incident": np.full(20, 10.0)} | changes
    np.savez(tmp_path / "own.npz", **{name: value for name, value in columns.items() if value is not None})
    return tmp_path / "own.npz"


def test_one_bad_shower_among_many_is_set_aside_with_its_reason(tmp_path):
    energy = np.full((20, 4, 4, 4), 100 / 64, np.float32)
    energy[3, 0, 0, 0], energy[5, 1, 1, 1], energy[7], energy[9] = -2.0, np.nan, 200.0, 0.0
    incident = np.full(20, 10.0)
    incident[11] = -1.0
    found, rejected = reading.read_good(archive(tmp_path, energy=energy, incident=incident))
    assert len(found) == 15
    for line, row, words in zip(
        rejected, (3, 5, 7, 9, 11), ("-2 MeV", "no numbers", "more energy out than in", "no energy", "-1 GeV"), strict=True
    ):
        assert line.startswith(f"shower {row}: ")
        assert words in line
    with pytest.raises(Refused, match="shower 3 has a cell with -2 MeV"):
        reading.read(archive(tmp_path, energy=energy))


def test_calibrated_showers_may_show_more_than_came_in(tmp_path):
    energy = np.full((20, 4, 4, 4), 10_000 / 64, np.float32)
    energy[::4] *= 1.2
    path = archive(tmp_path, energy=energy)
    assert len(reading.read_good(path)[0]) == 15
    assert len(reading.read_good(path, Layout(calibrated=True))[0]) == 20
    assert len(reading.read(path)) == 20  # the judge counts them


@pytest.mark.parametrize(
    ("scale", "words"), [(1000, "10 times the energy that came in; .* look like keV.* add --unit keV"), (1e-3, "look like GeV.*--unit GeV")]
)
def test_a_wrong_unit_is_guessed_and_refused_with_what_to_do(tmp_path, scale, words):
    path = archive(tmp_path, energy=np.full((20, 4, 4, 4), scale * 100 / 64, np.float32))
    for reader in (reading.read, reading.read_good):
        with pytest.raises(Refused, match=words):
            reader(path)
    right = reading.read(path, Layout(unit="keV" if scale > 1 else "GeV"))
    assert right.deposit.numpy() == pytest.approx(np.full(20, 100.0), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"incident": None}, "holds energy; expected `energy` and `incident`"),
        ({"incident": np.full(19, 10.0)}, "19 incident energies for 20 showers"),
        ({"particle": np.ones(3)}, "3 particles for 20 showers"),
        ({"energy": np.ones((20, 64))}, r"shape \(20, 64\); expected \(showers, layers, rows, columns\)"),
        ({"energy": np.full((20, 4, 4, 4), "x")}, "expected real numbers"),
        ({"energy": np.full((20, 4, 4, 4), -1.0)}, "20 of 20 showers cannot be used, .* less than nothing"),
        ({"energy": np.full((20, 4, 4, 4), 1e9)}, "keV would not explain it"),
        ({"energy": np.full((20, 4, 4, 4), 1e-9)}, "check the units of both energies"),
        ({"energy": np.ones((0, 4, 4, 4)), "incident": np.ones(0)}, "holds no shower"),
        ({"energy": np.array([{}] * 20, dtype=object)}, "damaged, or no .npz of plain arrays"),
    ],
)
def test_files_that_hold_no_showers_are_refused_in_words(tmp_path, changes, words):
    with pytest.raises(Refused, match=words):
        reading.read(archive(tmp_path, **changes))


def test_a_file_that_is_missing_damaged_or_of_another_kind_is_refused(many, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "broken.h5").write_bytes(b"not hdf5")
    for name, words in (("none.npz", "no such file"), ("broken.npz", "damaged"), ("broken.h5", "damaged"), ("a.csv", "no such file")):
        with pytest.raises(Refused, match=words):
            reading.read(tmp_path / name)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(Refused, match=r"read from .npz, .h5 or .hdf5"):
        reading.read(tmp_path / "a.csv")
    with pytest.raises(Refused, match="written as"):
        reading.write(many[:2], tmp_path / "a.csv")
    with pytest.raises(Refused, match="energies of cells are in MeV, keV, GeV"):
        reading.read(tmp_path / "a.csv", Layout(unit="erg"))


# -------------------------------------------------------------------------------------------------------------- frame


def test_training_keeps_away_from_the_energies_that_it_must_not_know():
    recipe = ShowerRecipe(simulated=2000, judged_each=20)
    split = framing.load(recipe)
    incident = split.train.incident.numpy()
    assert 10 <= incident.min() < incident.max() <= 100
    for unseen in recipe.unseen:
        assert np.abs(incident / unseen - 1).min() > 0.0999
    outside = np.abs(incident[:, None] / np.array(recipe.unseen) - 1).min(axis=1) > 0.12
    share = np.log(incident[outside & (incident > 60)] / 60) / np.log(100 / 60)
    assert share.mean() == pytest.approx(0.5, abs=0.06)  # logarithms are uniform
    assert len(split.held_out) == 100
    assert sorted(set(split.held_out.incident.tolist())) == list(recipe.judged)
    assert "training knows nothing near 20, 50 GeV" in split.origin
    for energy in recipe.judged:  # both particles, equally often
        kinds = split.held_out.particle[split.held_out.incident == energy]
        assert torch.bincount(kinds.long()).tolist() == [10, 10]


def test_parts_share_no_shower_and_the_same_recipe_gives_the_same_ones():
    recipe = ShowerRecipe(simulated=50, judged_each=10, cells=8)
    one, two = framing.load(recipe), framing.load(recipe)
    assert torch.equal(one.train.energy, two.train.energy)
    assert dict(one.files) == dict(two.files)
    held = one.held_out[one.held_out.incident == 12.0].energy[0]
    assert not any(torch.equal(held, other) for other in one.validation[one.validation.incident == 12.0].energy)


def test_a_recipe_without_a_range_is_refused():
    for wrong in ({"lowest": 50.0, "highest": 50.0}, {"judged": (0.1,)}, {"judged": ()}, {"particles": ("muon",)}, {"unit": "erg"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ShowerRecipe(**wrong)
    with pytest.raises(Refused, match="leave nothing between 10 and 13 GeV"):
        framing.load(ShowerRecipe(lowest=10, highest=13, unseen=(10.5, 12.0), simulated=10))


def test_showers_of_ones_own_are_divided_and_bad_ones_named(many, tmp_path):
    reading.write(many[:200], tmp_path / "mine.npz")
    columns = dict(np.load(tmp_path / "mine.npz"))
    columns["energy"][17, 0, 0, 0] = -1
    np.savez(tmp_path / "mine.npz", **columns)
    split = framing.load(ShowerRecipe(data=tmp_path / "mine.npz"))
    assert len(split.train) + len(split.validation) + len(split.held_out) == 199
    assert split.rejected == ["shower 17: a cell with -1 MeV, less than nothing"]
    assert "199 showers of 20 GeV in 12 x 12 x 12 cells" in split.origin
    np.savez(tmp_path / "few.npz", **{name: value[:60] for name, value in columns.items()})
    with pytest.raises(Refused, match="59 showers that can be used; 100 or more"):
        framing.load(ShowerRecipe(data=tmp_path / "few.npz"))


def test_what_is_asked_for_is_asked_of_every_pair_in_turn():
    recipe = ShowerRecipe(cells=8)
    asked = framing.ask(recipe, 8, {"incident": "20,50", "particle": "photon, electron"})
    assert asked.incident.tolist() == [20, 20, 50, 50] * 2
    assert asked.particle.tolist() == [0, 1] * 4
    assert asked.grid == (8, 8, 8)
    free = framing.ask(recipe, 2000, {})
    assert np.log10(free.incident.numpy()).mean() == pytest.approx(1.5, abs=0.01)
    assert torch.equal(free.incident[:9], framing.ask(recipe, 9, {}).incident)
    assert framing.caption(asked[:2]) == ["photon, 20 GeV", "electron, 20 GeV"]
    bad = {"incident": ("high", "not a number"), "particle": ("muon", "electron"), "z": ("1", "not for z")}
    for name, (value, words) in [*bad.items(), ("incident", ("-1", "more than 0"))]:
        with pytest.raises(Refused, match=words):
            framing.ask(recipe, 3, {name: value})


def test_pictures_show_a_shower_from_the_side_and_from_the_front():
    energy = torch.zeros(1, 6, 8, 8)
    energy[0, 2, 1, 7] = 100.0
    energy[0, 3, 1, 7] = 1.0
    found = framing.picture(Showers(energy, torch.ones(1), torch.ones(1, dtype=torch.int8)))
    side, front = found[0, ::6, : 6 * 6 : 6], found[0, ::6, 7 * 6 :: 6]
    lit = [np.argwhere(view.sum(axis=-1) > 0).tolist() for view in (side, front)]
    assert lit == [[[1, 2], [1, 3]], [[1, 7]]]  # row 1 in layers 2 and 3; row 1, column 7
    assert side[1, 2].sum() > side[1, 3].sum()
