"""Statistics of two-phase volumes against plain counting, bodies of known shape and Boolean spheres; the judge against planted faults."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulacra.evidence import Evidence
from simulacra.sciences.microstructure import simulate, statistics
from simulacra.sciences.microstructure.conductivity import effective_conductivity
from simulacra.sciences.microstructure.data import Volumes, volumes
from simulacra.study import Refused


def ball(radius, side, hollow=0.0):
    squared = (np.arange(side) - (side - 1) / 2) ** 2
    r2 = squared[:, None, None] + squared[None, :, None] + squared
    return ((r2 <= radius**2) & (r2 >= hollow**2)).astype(np.uint8)


def torus(side, large, small):
    x = np.arange(side) - (side - 1) / 2
    ring = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2) - large
    return (ring**2 + x**2 <= small**2).astype(np.uint8)


def random_volumes(n, sides, seed=0, share=0.4):
    return volumes(np.random.default_rng(seed).random((n, *sides)) < share)


# ------------------------------------------------------------------------------------------------- two points and lines


@pytest.mark.parametrize("sides", [(9, 12, 10), (70, 8, 9), (64, 8, 130)])
def test_pairs_and_lines_counted_in_words_are_those_counted_one_by_one(sides):
    found = random_volumes(3, sides, share=0.7)
    bits, reach = found.solid.numpy(), statistics.farthest(found)
    pairs, path = np.zeros((3, reach + 1)), np.zeros((3, reach + 1))
    for axis in (1, 2, 3):
        along = np.moveaxis(bits, axis, -1).astype(bool)
        run = along
        for r in range(reach + 1):
            end = along.shape[-1] - r
            run = run[..., :end] & along[..., r:]
            pairs[:, r] += (along[..., :end] & along[..., r:]).mean(axis=(1, 2, 3)) / 3
            path[:, r] += run.mean(axis=(1, 2, 3)) / 3
    np.testing.assert_allclose(statistics.two_point(found), pairs, atol=1e-12)
    np.testing.assert_allclose(statistics.lineal_path(found, phase=1), path, atol=1e-12)


def test_the_pore_is_the_solid_of_the_inverted_volume():
    found = random_volumes(2, (12, 12, 12))
    inverted = volumes(1 - found.solid.numpy())
    np.testing.assert_array_equal(statistics.lineal_path(found, phase=0), statistics.lineal_path(inverted, phase=1))


def test_two_points_in_all_directions_are_counted_without_wrapping():
    solid = np.zeros((1, 8, 8, 8), np.uint8)
    solid[:, 0, 0, 0] = solid[:, 7, 0, 0] = 1  # 7 apart; 1 apart if it wrapped
    found = statistics.two_point_around(volumes(solid))[0]
    assert found[0] == pytest.approx(2 / 512)
    np.testing.assert_allclose(found[1:], 0, atol=1e-12)
    isotropic = simulate.spheres(100, 24, 4.0, 0.3, 3)
    along, around = statistics.two_point(isotropic), statistics.two_point_around(isotropic)
    law = simulate.BooleanSpheres(4.0, 0.3)
    assert np.abs(around[:, 3:].mean(0) - law.two_point(np.arange(3, 13))).max() < 5 * around.std(0).max() / 100**0.5
    assert np.abs(along.mean(0) - around.mean(0))[3:].max() < 0.012  # rings of distances are not their middles


def test_one_axis_sees_layers_that_the_others_do_not():
    solid = np.zeros((1, 16, 16, 16), np.uint8)
    solid[:, ::2] = 1
    layered = volumes(solid)
    assert statistics.two_point_along(layered, 0)[0, 1] == 0
    assert statistics.two_point_along(layered, 1)[0, 1] == pytest.approx(0.5)


def test_boolean_spheres_have_the_lineal_path_and_surface_of_the_closed_forms():
    law = simulate.BooleanSpheres(5.0, 0.3)
    found = simulate.spheres(150, 32, 5.0, 0.3, 11)
    paths = statistics.lineal_path(found, phase=0)
    error = paths.std(axis=0, ddof=1) / len(found) ** 0.5
    assert (np.abs(paths.mean(axis=0) - law.pore_lineal_path(np.arange(paths.shape[1]))) < 4 * error).all()
    area = statistics.surface(found)
    unlike = 1 - law.solid_fraction - (1 - 2 * law.solid_fraction + law.two_point(1.0))  # one pore, its neighbour solid
    assert area.mean() == pytest.approx(4 * unlike, abs=4 * area.std() / len(found) ** 0.5)  # as counted on voxels, exactly
    assert 4 * unlike == pytest.approx(law.surface, rel=0.04)  # less of it than there is: voxels do not see the sharp grooves


def test_sparse_boolean_spheres_have_the_euler_number_of_the_closed_form():
    law = simulate.BooleanSpheres(8.0, 0.05)
    euler = statistics.euler_density(simulate.spheres(500, 32, 8.0, 0.05, 11))
    merged = 0.05 * law.density  # spheres less than a voxel apart touch
    assert euler.mean() == pytest.approx(law.euler_number, abs=4 * euler.std() / 500**0.5 + merged)
    assert abs(euler.mean() - law.density) > 2 * euler.std() / 500**0.5  # fewer pieces than spheres


def test_chords_of_stripes_are_as_long_as_the_stripes_are_wide():
    solid = np.zeros((1, 60, 60, 60), np.uint8)
    solid[:, np.arange(60) % 10 < 3] = 1
    found = volumes(solid)
    bits = found.solid.numpy()
    lines, length = next(statistics._lines(bits))
    share = statistics.chord_lengths(statistics._runs(lines, length, 20))[0]
    assert share[2] == pytest.approx(1, abs=0.1)  # three voxels; edges of the volume make the estimate uneven
    assert np.abs(np.delete(share, 2)).max() < 0.1


# --------------------------------------------------------------------------------------------------------------- shapes


def test_bodies_of_known_shape_have_their_euler_number():
    two = np.concatenate([ball(5, 16), ball(4, 16)], axis=2)
    corner = np.zeros((16, 16, 16), np.uint8)
    corner[4:8, 4:8, 4:8] = corner[8:12, 8:12, 8:12] = 1  # touch in one vertex: one piece
    shapes = {"ball": (ball(6, 16), 1), "shell": (ball(7, 16, hollow=3), 2), "torus": (torus(24, 7, 3), 0), "corner": (corner, 1)}
    for name, (body, expected) in shapes.items():
        assert statistics.euler_number(body[None])[0] == expected, name
    assert statistics.euler_number(two[None])[0] == 2
    full = np.ones((1, 8, 8, 8), np.uint8)
    assert statistics.euler_number(full)[0] == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_euler_numbers_add_up_where_bodies_do_not_meet(seed):
    one, other = random_volumes(2, (9, 8, 10), seed).solid.numpy()
    apart = np.concatenate([one, np.zeros((1, 8, 10), np.uint8), other])
    assert statistics.euler_number(apart[None])[0] == statistics.euler_number(one[None])[0] + statistics.euler_number(other[None])[0]


def test_a_ball_has_the_surface_of_a_sphere():
    area = statistics.surface(volumes(ball(12, 32)))[0] * 32**2 * 31  # per pair of neighbours along an axis
    assert area == pytest.approx(4 * np.pi * 12**2, rel=0.02)


def test_a_rod_percolates_along_itself_and_a_wall_stops_the_pore():
    solid = np.zeros((2, 12, 12, 12), np.uint8)
    solid[0, :, 5, 5] = 1  # along the depth
    solid[1, 6] = 1  # a wall across it
    rod, wall = statistics.percolation(volumes(solid))
    np.testing.assert_allclose(rod, [1 / 3, 1, 1, 1])
    np.testing.assert_allclose(wall, [2 / 3, 1, 2 / 3, 6 / 11])


def test_pieces_that_touch_at_an_edge_do_not_conduct():
    solid = np.zeros((1, 8, 8, 8), np.uint8)
    solid[0, np.arange(8), np.arange(8)] = 1
    assert statistics.percolation(volumes(solid))[0, 1] == pytest.approx(1 / 8)


def test_local_porosity_is_that_of_windows():
    solid = np.zeros((1, 16, 16, 16), np.uint8)
    solid[:, :8] = 1
    shares = statistics.local_porosity(volumes(solid))[0]
    assert shares[0] == shares[-1] == 0.5
    assert shares.sum() == 1


# --------------------------------------------------------------------------------------------------------- conductivity


def test_layers_conduct_as_resistors_in_a_row_and_side_by_side():
    solid = np.zeros((1, 12, 16, 20), np.uint8)
    solid[:, :, :4] = 1
    along, across, again = effective_conductivity(solid, pore=1.0, grain=0.01, tolerance=1e-5)[0]
    assert along == pytest.approx(0.75 + 0.25 * 0.01, rel=1e-4)
    assert again == pytest.approx(along, rel=1e-4)
    assert across == pytest.approx(1 / (0.75 + 0.25 / 0.01), rel=1e-4)


def of_maxwell(radius, side, grain):
    """Change of the conductivity by a simple cubic array of spheres, of voxels, over that of Maxwell's formula."""
    solid = ball(radius, side)[None]
    share = solid.mean() * (grain - 1) / (grain + 2)
    return (effective_conductivity(solid, (0,), grain=grain, tolerance=1e-4)[0, 0] - 1) / (3 * share / (1 - share))


def test_spheres_change_the_conductivity_as_maxwell_says_the_closer_the_finer_the_voxels():
    assert of_maxwell(8, 32, grain=10.0) == pytest.approx(1, abs=0.02)
    coarse, fine = of_maxwell(4, 16, grain=0.1), of_maxwell(8, 32, grain=0.1)
    assert fine == pytest.approx(1, abs=0.07)
    assert abs(fine - 1) < 0.6 * abs(coarse - 1)


def test_conductivity_lies_within_the_bounds_of_hashin_and_shtrikman():
    found = simulate.spheres(4, 24, 4.0, 0.3, 5)
    k, phi = effective_conductivity(found.solid.numpy(), grain=0.1, tolerance=1e-3), statistics.solid_fraction(found)
    upper = 1 + phi / (1 / (0.1 - 1) + (1 - phi) / 3)
    lower = 0.1 + (1 - phi) / (1 / (1 - 0.1) + phi / (3 * 0.1))
    assert (k.mean(axis=1) < upper).all()
    assert (k.mean(axis=1) > lower).all()


def test_one_phase_conducts_as_itself_and_phases_may_change_names():
    assert effective_conductivity(np.ones((1, 8, 8, 8), np.uint8), (0,), grain=0.3)[0, 0] == pytest.approx(0.3)
    solid = random_volumes(1, (12, 12, 12)).solid.numpy()
    one = effective_conductivity(solid, (0,), pore=1.0, grain=0.2, tolerance=1e-4)
    other = effective_conductivity(1 - solid, (0,), pore=0.2, grain=1.0, tolerance=1e-4)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    with pytest.raises(Refused, match="two above 0"):
        effective_conductivity(solid, grain=0.0)


def test_a_looser_tolerance_errs_by_little_and_upwards():
    solid = simulate.spheres(2, 20, 4.0, 0.4, 8).solid.numpy()
    loose, tight = (effective_conductivity(solid, tolerance=t) for t in (1e-2, 1e-5))
    assert (loose >= tight - 1e-6).all()
    np.testing.assert_allclose(loose, tight, rtol=5e-3)


# ---------------------------------------------------------------------------------------------------------------- judge

N, SIDE = 80, 16


@pytest.fixture(scope="module")
def sets():
    """Nature, more of it, and training: Boolean spheres of one law."""
    return [simulate.spheres(n, SIDE, 3.0, 0.25, seed) for n, seed in ((N, 1), (N, 2), (200, 3))]


def judged(nature, drawn, training=None):
    return statistics.judge(nature, drawn, seed=0, training=training, permutations=199, halves=30)


@pytest.fixture(scope="module")
def fair(sets):
    return judged(*sets)


def gap(evidence: Evidence, name):
    return next(f.gap for f in evidence.findings if f.name == name)


def test_every_finding_tells_its_rival_from_nature(fair):
    assert len(fair.findings) == 15
    for finding in fair.findings:
        assert finding.floor < finding.ceiling, finding.name


def test_more_of_nature_is_called_nature_and_meets_the_bars_but_for_chance(fair):
    assert not fair.differs
    assert len(fair.checks) == 5
    for check in fair.checks:
        assert np.isfinite([check.value, check.error]).all()
        assert set(check.beside) == {"cut Gaussian fields", "nature's halves", "training"}
        aim = 1 if check.name.startswith("variance") else 0
        assert abs(check.value - aim) < 4 * check.error, check.name


def test_copies_of_training_are_found_even_if_turned(sets):
    nature, _, training = sets
    copies = Volumes(training.solid[:N].transpose(1, 3).flip(2).contiguous(), training.voxel[:N])
    assert gap(judged(nature, copies, training), "memorisation") > 0.9


def test_collapse_to_few_volumes_is_found(sets):
    nature, more, _ = sets
    evidence = judged(nature, more[torch.arange(N) % 2])
    assert evidence.differs
    assert gap(evidence, "coverage") > 0.5


def test_volumes_with_the_right_two_points_alone_are_found(sets):
    nature = sets[0]
    drawn = simulate.like(statistics.two_point(nature).mean(axis=0), nature.sides, N, seed=77)
    evidence = judged(nature, drawn)
    assert evidence.differs
    assert gap(evidence, "chord lengths, pore") > 0.5
    assert gap(evidence, "two-point probability") < 0.5


def test_too_much_solid_misses_the_bars(sets):
    nature = sets[0]
    checks = {c.name: c for c in judged(nature, simulate.spheres(N, SIDE, 3.0, 0.35, 4)).checks}
    for name in ("solid fraction, drawn less nature", "effective conductivity, drawn over nature less 1"):
        assert not checks[name].met, name
    assert checks["solid fraction, drawn less nature"].value == pytest.approx(0.1, abs=0.03)


def test_volumes_that_all_hold_the_same_fraction_miss_the_bar_on_variance(sets):
    drawn = simulate.henkes(N, SIDE, 3.0, 0.25, 4)  # each stops at the wished fraction
    check = next(c for c in judged(sets[0], drawn).checks if c.name.startswith("variance"))
    assert check.value < 0.3
    assert not check.met


def test_what_cannot_be_compared_is_refused(sets):
    nature = sets[0]
    with pytest.raises(Refused, match="cut both to one size"):
        statistics.judge(nature, simulate.spheres(N, 20, 3.0, 0.25, 2), seed=0)
    with pytest.raises(Refused, match="20 or more"):
        statistics.judge(nature, nature[:5], seed=0)
    solid = nature.solid.numpy()
    with pytest.raises(Refused, match="one scale"):
        statistics.judge(volumes(solid, 2.0), volumes(solid, 3.0), seed=0)
    with pytest.raises(Refused, match="no second phase"):
        statistics.judge(volumes(np.ones_like(solid)), nature, seed=0)


def test_gaussian_fields_cut_to_a_two_point_probability_have_it(sets):
    law = simulate.BooleanSpheres(4.0, 0.3)
    wanted = law.two_point(np.arange(13.0))
    found = statistics.two_point(simulate.like(wanted, (24, 24, 24), 150, seed=5))
    error = found.std(axis=0, ddof=1) / 150**0.5
    assert (np.abs(found.mean(axis=0) - wanted) < 4 * error + 0.01).all()
