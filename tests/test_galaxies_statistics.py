"""Measurements of galaxies against analytic profiles, and a judge that must catch planted faults and nothing else."""

import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.stats import kstest

from simulacra.sciences.galaxies import data, statistics
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.statistics import gini, judge, m20, measure, pixel_class
from simulacra.study import Refused

SIDE = 129  # odd: profiles are centred on the central pixel


def as_images(counts: np.ndarray) -> Images:
    """Counts (n, bands, side, side), rounded to bytes."""
    pixels = torch.from_numpy(np.rint(np.clip(counts, 0, 255)).astype(np.uint8))
    return Images(pixels, torch.full((len(pixels),), -1))


def elliptical_radius(q: float, angle: float, side: int = SIDE) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.hypot(x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / q)


def gaussian(sigma: float, q: float = 1.0, angle: float = 0.0, peak: float = 250.0) -> np.ndarray:
    return peak * np.exp(-(elliptical_radius(q, angle) ** 2) / (2 * sigma**2))


def one(image: np.ndarray) -> dict[str, float]:
    return {name: float(value[0]) for name, value in measure(as_images(image[None, None])).items()}


def test_a_round_gaussian_has_its_known_radius_and_concentration():
    # Cut at 4 of 250 counts, the flux inside r is (1 - exp(-r^2 / 2 s^2)) / (1 - 4/250) of what is seen.
    found = one(gaussian(10))
    radius = {p: 10 * np.sqrt(-2 * np.log(1 - p * (1 - 4 / 250))) for p in (0.2, 0.5, 0.8)}
    assert found["half-light radius"] == pytest.approx(radius[0.5], rel=0.01)
    assert found["concentration"] == pytest.approx(5 * np.log10(radius[0.8] / radius[0.2]), rel=0.02)
    assert found["axis ratio"] == pytest.approx(1, abs=0.005)
    assert found["asymmetry"] == pytest.approx(0, abs=1e-9)


def test_a_gaussian_disc_has_its_known_gini_coefficient_and_m20():
    # Pixel values of a round Gaussian are uniform in log between cut c and peak: G = (1 + c) / (1 - c) + 2 / ln c, c = 4/250.
    c = 4 / 250
    found = one(gaussian(12))
    assert found["Gini"] == pytest.approx((1 + c) / (1 - c) + 2 / np.log(c), abs=0.01)
    u, cut = -np.log(1 - 0.2 * (1 - c)), -np.log(c)  # r^2 / 2 s^2 at 20 % of the light, and at the cut

    def moment(v: float) -> float:
        return 1 - (1 + v) * np.exp(-v)

    assert found["M20"] == pytest.approx(np.log10(moment(u) / moment(cut)), abs=0.02)


def test_an_exponential_disc_has_half_its_light_within_1_678_scale_lengths():
    # Of the light of the whole disc; what the isophote leaves out is accounted for.
    h, r = 9.0, elliptical_radius(1, 0)
    found = one(255 * np.exp(-r / h))
    edge = np.log(255 / 4)

    def light(t: float) -> float:
        return 1 - (1 + t) * np.exp(-t)

    grid = np.linspace(0, edge, 10_000)
    expected = h * np.interp(0.5 * light(edge), light(grid), grid)
    assert found["half-light radius"] == pytest.approx(expected, rel=0.01)
    assert light(1.678) == pytest.approx(0.5, abs=1e-3)
    assert expected == pytest.approx(1.678 * h, rel=0.15)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
def test_an_inclined_gaussian_has_its_axis_ratio_at_every_angle(q, angle):
    assert one(gaussian(12, q, angle))["axis ratio"] == pytest.approx(q, abs=0.01)


def test_a_sersic_galaxy_of_galsim_has_its_half_light_radius():
    galsim = pytest.importorskip("galsim")
    profile = galsim.Sersic(n=1, half_light_radius=10).shear(q=0.6, beta=0.5 * galsim.radians)
    image = profile.drawImage(nx=SIDE, ny=SIDE, scale=1, method="no_pixel").array.astype(float)
    found = one(250 * image / image.max())
    assert found["axis ratio"] == pytest.approx(0.6, abs=0.02)
    assert found["half-light radius"] == pytest.approx(10, rel=0.12)  # the isophote cuts the outermost light


def test_moving_half_the_light_off_the_axis_raises_asymmetry():
    symmetric = gaussian(8)
    assert one(symmetric + np.roll(gaussian(4, peak=120), 14, axis=1).clip(0))["asymmetry"] > 0.05


def test_colour_is_the_ratio_of_red_to_blue_above_the_sky():
    shape = gaussian(8, peak=1.0)
    image = np.stack([200 * shape + 12, 150 * shape + 9, 100 * shape + 4])
    assert measure(as_images(image[None]))["colour"][0] == pytest.approx(np.log10(2), abs=0.01)


def test_grey_images_have_no_colour_and_no_pixel_class():
    found = measure(as_images(gaussian(8)[None, None]))
    assert "colour" not in found
    with pytest.raises(Refused, match="needs a colour"):
        pixel_class(found)


def test_nothing_at_the_centre_is_measured_as_nan_and_class_minus_one():
    dark = np.full((1, 3, 64, 64), 10.0)
    found = measure(as_images(dark))
    assert all(np.isnan(v).all() for v in found.values())
    assert pixel_class(found).tolist() == [-1]


def test_pixel_classes_follow_axis_ratio_and_colour():
    thin, round_ = gaussian(12, 0.3, peak=1.0), gaussian(10, peak=1.0)
    bands = [(200, 150, 100), (200, 150, 100), (150, 150, 150)]
    rows = [np.stack([c * shape for c in colour]) for shape, colour in zip((thin, round_, round_), bands, strict=True)]
    assert pixel_class(measure(as_images(np.stack(rows)))).tolist() == [0, 1, 2]


def test_gini_is_zero_for_equal_pixels_and_one_for_a_single_bright_one():
    assert gini(np.full(50, 3.0)) == pytest.approx(0)
    assert gini(np.eye(1, 50)[0]) == pytest.approx(1)
    assert gini(np.arange(1, 10_001.0)) == pytest.approx(1 / 3, abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 1e3)))
def test_gini_is_the_mean_difference_of_pairs_over_twice_the_mean(flux):
    if flux.sum() < 1e-3:
        return
    n = len(flux)
    pairs = np.abs(flux[:, None] - flux).sum() / (n * (n - 1))
    assert gini(flux) == pytest.approx(pairs / (2 * flux.mean()), abs=1e-9)


def test_m20_of_two_equal_rings_of_light_is_their_share_of_the_moment():
    flux, r2 = np.r_[np.full(20, 1.01), np.full(80, 1.0)], np.r_[np.full(20, 4.0), np.full(80, 9.0)]
    assert m20(flux, r2) == pytest.approx(np.log10(19 * 4.04 / (20 * 4.04 + 80 * 9)))  # 19 pixels: 20 would hold more than a fifth


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 7), st.integers(0, 2**31))
def test_measurements_do_not_change_under_turns_and_flips(way, seed):
    rng = np.random.default_rng(seed)
    image = gaussian(9, rng.uniform(0.4, 1), rng.uniform(0, 3)) + 3 * rng.standard_normal((SIDE, SIDE)) + 10
    first, second = one(image), one(statistics._turned(image, way))
    for name in first:
        assert first[name] == pytest.approx(second[name], rel=1e-6, abs=1e-6)


def test_a_copy_is_found_under_every_turn_and_flip():
    rng = np.random.default_rng(0)
    training = rng.uniform(0, 255, (20, 16, 16))
    copies = np.stack([statistics._turned(training[way], way) for way in range(8)]).reshape(8, -1)
    np.testing.assert_allclose(statistics.nearest_turned(copies, training.reshape(20, -1)), 0, atol=1e-4)
    assert statistics.nearest_turned(rng.uniform(0, 255, (5, 256)), training.reshape(20, -1)).min() > 50


def test_thumbnails_keep_the_mean_brightness_at_any_size():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 69, 69), dtype=np.uint8))
    sample = Images(pixels, torch.full((3,), -1))
    np.testing.assert_allclose(statistics.thumbnails(sample).mean(axis=1), pixels.double().mean(dim=(1, 2, 3)), rtol=1e-5)


def test_the_chi_square_of_shares_is_the_textbook_one_and_drops_classes_that_nobody_has():
    # Of 50 + 50 rows 30 : 20 and 20 : 30, each expected 25: 4 (5^2 / 25) = 4, one degree of freedom, p = erfc(sqrt(2)).
    square, p = statistics.homogeneity(np.array([[30, 0, 20], [20, 0, 30]]))
    assert square == pytest.approx(4.0)
    assert p == pytest.approx(0.0455003, rel=1e-5)
    assert statistics.homogeneity(np.array([[0, 7], [0, 9]])) == (0.0, 1.0)


def test_shares_of_two_halves_of_nature_have_uniform_p_values():
    rng = np.random.default_rng(0)
    p = np.array([statistics.homogeneity(rng.multinomial(500, [0.003, 0.16, 0.42, 0.417], size=2))[1] for _ in range(4000)])
    assert kstest(p, "uniform").statistic < 0.03  # 1.63 / sqrt(4000) at 1 %; counts are whole numbers
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.012)


# --------------------------------------------------------------------------------------------------- simulated galaxies


@pytest.fixture(scope="module")
def nature() -> Images:
    pytest.importorskip("galsim")
    from simulacra.sciences.galaxies.simulate import simulate

    return simulate(480, 48, 7)


def test_galaxy_i_depends_only_on_the_seed_and_i(nature):
    from simulacra.sciences.galaxies.simulate import simulate

    few = simulate(5, 48, 7)
    assert torch.equal(few.pixels, nature.pixels[:5])
    assert torch.equal(few.label, nature.label[:5])
    assert not torch.equal(simulate(5, 48, 8).pixels, few.pixels)


@pytest.mark.parametrize("side", [32, 33, 64])
def test_simulated_galaxies_sit_on_the_central_pixel(side):
    pytest.importorskip("galsim")
    from simulacra.sciences.galaxies.simulate import simulate

    mean = simulate(60, side, 1).float().mean(dim=(0, 1)).numpy()
    mean = np.maximum(mean - np.quantile(mean, 0.7), 0)
    y, x = np.mgrid[:side, :side] - side // 2
    assert abs((mean * x).sum() / mean.sum()) < 0.25
    assert abs((mean * y).sum() / mean.sum()) < 0.25


def test_simulated_galaxies_are_found_and_ellipticals_are_smoother_than_spirals(nature):
    found = measure(nature)
    assert np.isfinite(found["axis ratio"]).mean() > 0.98
    elliptical = nature.label.numpy() == 1
    assert set(nature.label.tolist()) == {0, 1, 2}
    assert np.nanmedian(found["asymmetry"][elliptical]) < np.nanmedian(found["asymmetry"][~elliptical])
    assert np.nanmedian(found["colour"][elliptical]) > np.nanmedian(found["colour"][~elliptical])
    assert np.nanmin(found["axis ratio"][elliptical]) > 0.4


@pytest.mark.parametrize("name", ["satellite_trail", "ring", "merger", "wrong_band_order"])
def test_anomalies_change_every_image_and_stay_images(nature, name):
    from simulacra.sciences.galaxies import simulate

    odd = getattr(simulate, name)(nature[:20], 3)
    assert (odd.pixels != nature.pixels[:20]).flatten(1).any(dim=1).all()
    assert torch.equal(odd.pixels, getattr(simulate, name)(nature[:20], 3).pixels)


def test_simulated_nature_is_loaded_in_three_parts():
    pytest.importorskip("galsim")
    parts = data.load(data=None, side=32, colour=False, seed=1, simulated=75)
    assert [len(p) for p in (parts.train, parts.validation, parts.held_out)] == [42, 8, 25]
    assert parts.train.bands == 1
    assert "galsim" in parts.origin


# ------------------------------------------------------------------------------------------------------------- the judge


def parts_of(nature: Images, seed: int) -> tuple[Images, Images, Images]:
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(nature)))
    return nature[rows[:160]], nature[rows[160:320]], nature[rows[320:]]


def gaps(evidence) -> dict[str, float]:
    return {f.name: f.gap for f in evidence.findings}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nature_is_not_called_different_from_nature(nature, seed):
    held_out, again, training = parts_of(nature, seed)
    evidence = judge(held_out, again, seed=seed, training=training)
    assert not evidence.differs
    for finding in evidence.findings:
        assert finding.floor < finding.ceiling, f"{finding.name} cannot tell nature from {finding.rival_name}"
        assert abs(finding.gap) < 0.35, finding.name


def collapsed(drawn: Images, training: Images) -> Images:
    return drawn[torch.arange(len(drawn)) % 4]


def copied(drawn: Images, training: Images) -> Images:
    return dataclasses.replace(training, pixels=training.pixels.rot90(1, (2, 3)).contiguous())


def blurred(drawn: Images, training: Images) -> Images:
    return as_images(ndimage.gaussian_filter(drawn.pixels.numpy().astype(float), (0, 0, 1, 1)))


def other_band_order(drawn: Images, training: Images) -> Images:
    return dataclasses.replace(drawn, pixels=drawn.pixels.flip(1))


def labels_exchanged(drawn: Images, training: Images) -> Images:
    return dataclasses.replace(drawn, label=(drawn.label + 1) % 3)


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        (collapsed, "classifier two-sample test"), (copied, "memorisation"), (blurred, "power spectrum (g band)"),
        (other_band_order, "colour"), (labels_exchanged, "class agreement"),
    ],
)
def test_a_planted_fault_is_called_different_and_by_its_own_statistic(nature, fault, noticed):
    held_out, drawn, training = parts_of(nature, 0)
    evidence = judge(held_out, fault(drawn, training), seed=0, training=training)
    assert evidence.differs
    assert gaps(evidence)[noticed] > 0.4
    assert next(f for f in evidence.findings if f.name == noticed).p <= 0.01


def test_shares_of_classes_agree_between_halves_of_nature_and_not_with_a_collapsed_draw(nature):
    first, second, _ = parts_of(nature, 0)
    assert statistics.class_shares_test(first, second)[1] > 0.01
    assert statistics.class_shares_test(first, second[second.label == 1])[1] < 1e-4
    grey = [dataclasses.replace(x, pixels=x.pixels[:, 1:2]) for x in (first, second, second[second.label == 1])]
    assert statistics.class_shares_test(grey[0], grey[1])[1] > 0.01
    assert statistics.class_shares_test(grey[0], grey[2])[1] < 1e-3
    with pytest.raises(Refused, match="0 drawn"):
        statistics.class_shares_test(first, second[:0])


def test_draws_of_one_class_alone_are_found_by_coverage_recall_and_class_shares(nature):
    held_out, drawn, training = parts_of(nature, 0)
    pool = Images.join([drawn, training])
    alone = pool[pool.label == 1]
    evidence = judge(held_out[: len(alone)], alone, seed=0)
    findings = {f.name: f for f in evidence.findings}
    assert evidence.differs
    assert findings["coverage (share missed)"].gap_low > 0  # small: the balls of sparse spirals are wide and hold ellipticals
    assert findings["recall (share missed)"].gap_low > 0.2
    assert findings["precision (share outside)"].gap < 0.1  # what is drawn is good
    assert findings["class shares"].p <= 0.01


def test_recall_and_coverage_can_be_read_as_shares_that_are_reached(nature):
    held_out, drawn, training = parts_of(nature, 0)
    evidence = judge(held_out, collapsed(drawn, training), seed=0, permutations=9, halves=10)
    recall = next(f for f in evidence.findings if f.name == "recall (share missed)")
    assert recall.distance > 0.95  # four images, over and over
    assert evidence.remarks[0].startswith(f"drawn: recall {1 - recall.distance:.2f}, coverage ")
    assert f"halves of nature: recall {1 - recall.floor:.2f}" in evidence.remarks[0]


def test_labels_that_the_pixel_class_defines_are_held_to_it_and_others_to_discriminants(nature):
    held_out, drawn, _ = parts_of(nature, 0)
    evidence = judge(held_out, drawn, seed=0, permutations=9, halves=10)
    assert any("found by linear discriminants" in line for line in evidence.remarks)
    asked = next(f for f in evidence.findings if f.name == "class agreement")
    assert asked.floor < 0.3 < 0.55 < asked.ceiling  # bars are hard to tell at 48 px
    measured = [dataclasses.replace(x, label=torch.from_numpy(pixel_class(measure(x)))) for x in (held_out, drawn)]
    evidence = judge(*measured, seed=0, permutations=9, halves=10)
    assert "class agreement is found by the pixel class, which defines nature's labels" in evidence.remarks
    assert any(line.startswith("drawn: 100.0% of the class asked for (0: 100.0%") for line in evidence.remarks)
    assert next(f for f in evidence.findings if f.name == "class agreement").distance == 0


def test_agreement_is_asked_only_where_both_sides_have_classes(nature):
    held_out, drawn, _ = parts_of(nature, 0)
    unconditional = dataclasses.replace(drawn, label=torch.full((len(drawn),), -1))
    assert "class agreement" not in gaps(judge(held_out, unconditional, seed=0, permutations=9, halves=4))
    one = judge(held_out, dataclasses.replace(drawn, label=torch.ones_like(drawn.label)), seed=0, permutations=9, halves=4)
    assert "class agreement" not in gaps(one)
    assert any(line.startswith("class agreement left out: 160 drawn images of 1 classes") for line in one.remarks)


def test_a_class_with_few_images_of_nature_is_left_out_of_the_agreement_and_said_so(nature):
    held_out, drawn, _ = parts_of(nature, 0)
    rare = held_out.label.clone()
    rare[:3] = 7
    evidence = judge(dataclasses.replace(held_out, label=rare), drawn, seed=0, permutations=9, halves=4)
    asked = next(f for f in evidence.findings if f.name == "class agreement")
    assert asked.grid.tolist() == [0, 1, 2]
    assert "class agreement leaves out class 7: fewer than 8 images of nature, or none drawn" in evidence.remarks


def test_images_without_a_galaxy_are_judged_and_not_refused(nature):
    held_out, drawn, _ = parts_of(nature, 0)
    dark = dataclasses.replace(drawn, pixels=torch.zeros_like(drawn.pixels))
    evidence = judge(held_out, dark, seed=0)
    assert evidence.differs
    assert gaps(evidence)["undetected"] > 0.9
    assert any("axis ratio left out" in remark for remark in evidence.remarks)


def test_grey_images_are_judged_without_colour(nature):
    held_out, drawn, _ = (dataclasses.replace(p, pixels=p.pixels[:, 1:2]) for p in parts_of(nature, 0))
    names = {f.name for f in judge(held_out, drawn, seed=0).findings}
    assert "power spectrum (grey)" in names
    assert not names & {"colour", "class shares", "power spectrum (r band)"}


def test_images_of_another_size_are_refused(nature):
    other = Images(nature.pixels[:, :, 4:-4, 4:-4], nature.label)
    with pytest.raises(Refused, match="same side and colour"):
        judge(nature, other, seed=0)


def test_measurements_agree_with_the_table_of_the_sdss_set():
    root = os.environ.get("SIMULACRA_DATA")
    where = Path(root or "") / "galaxies" / "galaxy_zoo_424px.zip"
    if not root or not where.exists():
        pytest.skip("SIMULACRA_DATA does not name a folder with galaxies/galaxy_zoo_424px.zip")
    sample, _, _ = data.read(where, 69, True, crop=207)
    found = measure(sample)
    with open(where.with_suffix(".csv"), newline="") as stream:
        table = list(csv.DictReader(stream))
    columns = {"axis ratio": "axis_ratio", "half-light radius": "half_light_radius_px", "concentration": "concentration"}
    for ours, theirs in columns.items():
        published = np.array([float(row[theirs]) for row in sorted(table, key=lambda r: r["galaxy_id"] + ".jpg")])
        assert np.mean(np.abs(found[ours] / published - 1) < 0.02) > 0.85, ours
    assert np.mean(pixel_class(found) == sample.label.numpy()) > 0.95
