"""The judge of showers: known answers, nature against itself, and faults that it must notice."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from simulacra.sciences.calorimeter import bars, features, statistics
from simulacra.sciences.calorimeter.classifier import Protocol, area, told_apart
from simulacra.sciences.calorimeter.data import PHOTON, showers
from simulacra.sciences.calorimeter.simulate import SAMPLING, moments, simulate
from simulacra.study import Refused

FAST = Protocol(width=64, batch=50, rate=1e-3, epochs=20)
EACH = 40  # showers of an energy and a particle


def some(seed, energies=(20.0, 50.0), particles=(1, 0), each=EACH):
    place = np.arange(each * len(energies) * len(particles))
    kinds = np.array(particles)[place // len(energies) % len(particles)]
    return simulate(np.array(energies)[place % len(energies)], kinds, 8, seed=seed)


@pytest.fixture(scope="module")
def nature():
    return some(1)


@pytest.fixture(scope="module")
def training():
    return some(2, energies=(12.0, 20.0, 80.0), each=100)


def changed(samples, energy):
    return dataclasses.replace(samples, energy=torch.as_tensor(np.asarray(energy), dtype=torch.float32))


def judge(nature, drawn, training=None):
    return statistics.judge(nature, drawn, seed=3, training=training, protocol=FAST, permutations=199, halves=20)


def found(evidence, name):
    return next(f for f in evidence.findings if f.name == name)


def check(evidence, name):
    return next(c for c in evidence.checks if c.name.startswith(name))


# ------------------------------------------------------------------------------------------------------- known answers


def test_profiles_moments_and_hottest_cells_of_showers_made_by_hand():
    energy = np.zeros((2, 4, 5, 6))
    energy[0, 1, 2, 3], energy[0, 3, 4, 3] = 30.0, 10.0
    energy[1, 0, 0, 0] = 7.0
    made = showers(energy, [1.0, 0.5])
    np.testing.assert_allclose(features.response(made), [0.04, 0.014], rtol=1e-6)
    profile = features.profiles(made)
    np.testing.assert_allclose(profile["layer"][0], [0, 0.03, 0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(profile["row"][0], [0, 0, 0.03, 0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(profile["column"][0], [0, 0, 0, 0.04, 0, 0], rtol=1e-6)
    mean, rms = features.moments(profile["layer"])
    np.testing.assert_allclose(mean, [0.75 * 1.5 + 0.25 * 3.5, 0.5])
    np.testing.assert_allclose(rms, [2 * np.sqrt(0.75 * 0.25), 0], atol=1e-9)
    np.testing.assert_allclose(features.ratio_of_hottest(energy), [0.5, 1.0])
    np.testing.assert_allclose(features.hits(energy, np.array([0.0, 0.9, 1.2])), [[0, 2], [1, 0]])
    assert np.isnan(features.moments(np.zeros((1, 4)))[0]).all()


def test_high_level_features_are_layer_energies_centres_and_widths():
    energy = np.zeros((1, 4, 4, 6))
    energy[0, 2, 1, 2] = energy[0, 2, 1, 4] = 5.0
    row = features.high_level(showers(energy, 10.0))[0]
    assert len(row) == 1 + 4 + 4 * 4
    assert row[0] == 1.0  # log10 of 10 GeV
    np.testing.assert_allclose(row[1:5], [-8, -8, 1, -8], atol=1e-6)
    rows_centre, rows_width, columns_centre, columns_width = row[5:].reshape(4, 4)[:, 2]
    assert (rows_centre, rows_width, columns_centre, columns_width) == pytest.approx((1.5, 0, 3.5, 1))


def test_responses_and_resolutions_are_those_of_the_law():
    drawn = some(5, energies=(20.0,), particles=(1,), each=800)
    mean, sd = moments(20.0, 1, 8).total
    response = features.response(drawn)
    assert response.mean() == pytest.approx(mean / 20_000, abs=4 * sd / 20_000 / np.sqrt(800))
    assert response.std() / response.mean() == pytest.approx(sd / mean, rel=4 / np.sqrt(1600))
    assert mean / 20_000 == pytest.approx(SAMPLING, rel=0.03)


def test_the_deviation_of_a_scatter_has_the_error_that_it_has():
    rng = np.random.default_rng(0)
    values = [bars.of_resolution(*(_of_response(1 + 0.1 * rng.standard_normal(200)) for _ in range(2))) for _ in range(200)]
    assert np.mean([v.value for v in values]) == pytest.approx(0, abs=0.02)
    assert np.std([v.value for v in values]) == pytest.approx(np.mean([v.error for v in values]), rel=0.2)


def _of_response(share):
    energy = np.zeros((len(share), 4, 4, 4))
    energy[:, 1, 1, 1] = 10 * share
    return showers(energy, 1.0)


def test_an_area_counts_the_pairs_that_are_in_order_and_knows_its_error():
    assert area(np.array([0.0, 1.0]), np.array([2.0, 3.0])).value == 1
    assert area(np.array([0.0, 2.0]), np.array([1.0, 2.0])).value == pytest.approx(2.5 / 4)
    rng = np.random.default_rng(1)
    tries = [area(rng.standard_normal(80), rng.standard_normal(60) + 0.5) for _ in range(300)]
    assert np.mean([t.value for t in tries]) == pytest.approx(0.638, abs=0.01)  # Phi(0.5 / sqrt 2)
    assert np.std([t.value for t in tries]) == pytest.approx(np.mean([t.error for t in tries]), rel=0.15)


def test_a_classifier_finds_what_differs_and_nothing_where_nothing_does():
    rng = np.random.default_rng(2)
    one, two = rng.standard_normal((2, 300, 6))
    alike = told_apart(one, two, FAST, seed=1)
    assert abs(alike.value - 0.5) < 4 * alike.error
    shifted = told_apart(one, two + 1, FAST, seed=1)
    assert shifted.value > 0.9  # best possible: Phi(sqrt(6 / 2)) = 0.958
    turned = two @ np.diag([1, 1, 1, 1, 1, 3.0])
    assert told_apart(one, turned, FAST, seed=1).value > 0.7  # no difference of means
    assert told_apart(one, two + 1, FAST, seed=1) == shifted


def test_correlations_are_those_of_the_columns():
    rows = np.random.default_rng(3).standard_normal((500, 4)) @ np.random.default_rng(4).standard_normal((4, 4))
    one, other = np.triu_indices(4, 1)
    table = np.concatenate([rows, rows**2, rows[:, one] * rows[:, other]], axis=1)
    np.testing.assert_allclose(statistics.correlations(table.mean(axis=0)[None])[0], np.corrcoef(rows.T)[one, other], atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_nature_against_itself_is_not_told_and_every_rival_is_worse_than_chance(nature, training):
    evidence = judge(nature, some(4), training)
    assert not evidence.differs
    assert len(evidence.findings) == 17
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, finding.name
        assert finding.gap_low < 0.3, finding.name
    missed = [c.name for c in evidence.checks if not c.met]
    assert not missed
    assert check(evidence, "response at energies that training did not have (50 GeV)").met


@pytest.mark.parametrize(
    ("fault", "finding", "missed"),
    [
        ("wrong energy scale", "sampling fraction", "response, largest"),
        ("blurred", "shower width", "area under the ROC curve on voxels"),
        ("shuffled layers", "layer correlations", "resolution"),
        ("no fluctuations", "resolution by energy", "resolution"),
        ("one shower", "coverage", "area under the ROC curve on voxels"),
    ],
)
def test_a_fault_is_noticed_where_it_should_be(nature, fault, finding, missed):
    drawn = some(4)
    energy = drawn.energy.double().numpy()
    rng = np.random.default_rng(0)
    if fault == "wrong energy scale":
        energy = energy * 1.03
    elif fault == "blurred":
        energy = ndimage.gaussian_filter(energy, (0, 0.7, 0.7, 0.7), mode="constant")
    elif fault == "shuffled layers":
        for kind in np.unique(drawn.incident):
            for layer in range(8):
                rows = np.flatnonzero(drawn.incident == kind)
                energy[rows, layer] = energy[rng.permutation(rows), layer]
    elif fault == "no fluctuations":
        incident = drawn.incident.double().numpy()
        energy *= (0.019 * 1000 * incident / energy.sum(axis=(1, 2, 3)))[:, None, None, None]
    else:
        energy = energy[:1] / 20 * drawn.incident.double().numpy()[:, None, None, None]
    evidence = judge(nature, changed(drawn, energy))
    assert evidence.differs
    noticed = found(evidence, finding)
    assert noticed.gap > 0.25
    assert noticed.gap_low > 0
    assert not check(evidence, missed).met


def test_copied_training_showers_are_called_memorised(nature, training):
    copied = training[training.incident == 20.0]
    nature = nature[nature.incident == 20.0]
    evidence = judge(nature, copied[: len(nature)], training)
    assert found(evidence, "memorisation").gap > 0.8
    assert found(judge(nature, some(6, energies=(20.0,)), training), "memorisation").gap < 0.1


def test_showers_of_one_energy_are_held_to_their_profiles(nature):
    one = nature[nature.incident == 20.0]
    alike = judge(one, some(8, energies=(20.0,)))
    wrong = judge(one, changed(one, some(8, energies=(20.0,)).energy.roll(1, dims=3)))
    for name in ("profiles, largest", "profiles, share"):
        assert check(alike, name).met
        assert not check(wrong, name).met


def test_particles_that_are_exchanged_or_alike_are_noticed():
    nature, drawn = some(1, each=100), some(4, each=100)
    short = Protocol(width=8, layers=0, epochs=1)
    kept = bars.checks(nature, drawn, seed=1, training=None, protocol=short)
    swapped = dataclasses.replace(drawn, particle=1 - drawn.particle)
    alike = dataclasses.replace(some(9, particles=(1,), each=200), particle=drawn.particle)
    name = "photons told from electrons"
    assert next(c for c in kept if c.name.startswith(name)).met
    for wrong in (swapped, alike):
        missed = next(c for c in bars.checks(nature, wrong, seed=1, training=None, protocol=short) if c.name.startswith(name))
        assert not missed.met
        assert missed.value < missed.beside["nature"]


def test_more_energy_out_than_in_is_counted(nature):
    drawn = some(4)
    energy = drawn.energy.clone()
    energy[::10] *= 100
    evidence = judge(nature, changed(drawn, energy))
    assert check(evidence, "showers with more energy out").value == pytest.approx(0.1)
    assert not check(evidence, "showers with more energy out").met


def test_halves_of_nature_are_alike_in_energies_and_particles(nature):
    one, other = bars.halves(nature)
    assert sorted(one.incident.tolist()) == sorted(other.incident.tolist())
    assert sorted(one.particle.tolist()) == sorted(other.particle.tolist())


def test_empty_showers_and_energies_over_a_range_can_be_judged():
    incident = np.exp(np.random.default_rng(0).uniform(np.log(5), np.log(50), 60))
    sides = [simulate(incident, PHOTON, 6, seed=seed) for seed in (1, 2)]
    energy = sides[1].energy.clone()
    energy[:5] = 0
    evidence = judge(sides[0], changed(sides[1], energy))
    assert len(found(evidence, "response by energy").grid) == 6
    assert all(np.isfinite(f.distance) for f in evidence.findings)
    assert evidence.remarks == []  # six ranges of energy, ten showers of each on both sides
    other = simulate(incident[::-1] ** 0.9, PHOTON, 6, seed=3)
    assert judge(sides[0], other).remarks == ["showers of one particle and all energies are compared together: too few are alike in both"]


def test_sides_that_cannot_be_compared_are_refused(nature):
    with pytest.raises(Refused, match="8 x 8 x 8 cells, drawn ones have 6 x 6 x 6"):
        judge(nature, simulate(np.full(30, 20.0), 1, 6, seed=0))
    with pytest.raises(Refused, match="fewer than 20"):
        judge(nature, nature[:19])
    with pytest.raises(Refused, match="nothing can be measured"):
        judge(changed(nature, 0 * nature.energy), changed(nature, 0 * nature.energy))
