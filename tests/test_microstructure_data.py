"""Microstructures with known statistics, the files that they come in, and how cubes are cut from one volume."""

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from simulacra.sciences.microstructure import data, framing, reading, simulate, statistics, surface
from simulacra.sciences.microstructure.data import Volumes, volumes
from simulacra.sciences.microstructure.reading import Reading
from simulacra.study import Refused


def within(values, exact, errors=4.0):
    """Whether the mean over rows lies within so many standard errors of the exact value, in every column."""
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5
    return (np.abs(values.mean(axis=0) - exact) < errors * error + 1e-9).all()


# ----------------------------------------------------------------------------------------------------------- simulators


@pytest.mark.parametrize(("radius", "fraction"), [(4.0, 0.2), (2.5, 0.6)])
def test_boolean_spheres_have_the_two_points_of_the_closed_form(radius, fraction):
    law = simulate.BooleanSpheres(radius, fraction)
    found = statistics.two_point(simulate.spheres(300, 24, radius, fraction, 1))
    assert law.two_point(0.0) == pytest.approx(fraction)
    assert law.two_point(2 * radius) == pytest.approx(fraction**2)
    assert within(found, law.two_point(np.arange(found.shape[1])))


def test_voxels_miss_little_of_the_lineal_path_of_an_unbroken_line():
    law = simulate.BooleanSpheres(6.0, 0.2)
    z = np.arange(20.0)
    between = law.pore_lineal_path(z) - law.pore_lineal_path(z, voxels=False)
    assert (between[1:] > 0).all()  # a voxel line passes where an unbroken one is cut
    assert between.max() < 0.003


def test_spheres_go_on_beyond_the_faces_and_do_not_come_back_on_the_other_side():
    solid = simulate.spheres(400, 16, 3.0, 0.3, 2).solid.numpy()
    both = (solid[:, 0] & solid[:, -1]).mean(axis=(1, 2))
    assert within(both[:, None], 0.3**2)  # independent; neighbours would be 0.23
    at_faces = solid[:, 0].mean(axis=(1, 2)) - solid[:, 8].mean(axis=(1, 2))
    assert within(at_faces[:, None], 0.0)


@pytest.mark.parametrize("fraction", [0.5, 0.2])
def test_cut_gaussian_fields_have_the_two_points_of_their_correlation(fraction):
    found = statistics.two_point(simulate.level_cut(150, 20, 2.0, fraction, 3))
    c = simulate.correlation(simulate.gaussian_power(20, 2.0))[: found.shape[1]]
    np.testing.assert_allclose(c, np.exp(-(np.arange(len(c)) ** 2) / 16), atol=1e-3)  # of white noise under a Gaussian, twice its width
    assert within(found, simulate.level_cut_two_point(c, fraction))


def test_two_points_of_a_field_cut_in_the_middle_are_an_arc_sine():
    c = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(simulate.level_cut_two_point(c, 0.5), 0.25 + np.arcsin(c) / (2 * np.pi), atol=1e-12)
    # all of it at correlation 1, where the integrand is worst, the product at 0
    np.testing.assert_allclose(simulate.level_cut_two_point(np.array([1.0, 0.0]), 0.1), [0.1, 0.01], atol=1e-12)


def test_the_published_set_stops_with_the_sphere_that_exceeds_the_fraction_and_keeps_off_the_last_layer():
    found = simulate.henkes(400, 32, 4.0, 0.2, 4)
    count = found.solid.numpy().reshape(400, -1).sum(axis=1)
    assert (count > 0.2 * 32**3).all()
    assert (count <= 0.2 * 32**3 + 257).all()  # voxels of one sphere
    one = simulate.henkes(300, 32, 4.0, 1e-6, 4).solid.numpy()
    assert one.reshape(300, -1).sum(axis=1).max() == 257
    first, last = (found.solid.numpy()[:, layer].mean(axis=(1, 2)) for layer in (0, -1))
    assert first.mean() - last.mean() > 5 * (first - last).std() / 400**0.5


@pytest.mark.parametrize("kind", [simulate.spheres, simulate.level_cut, simulate.henkes])
def test_a_cube_is_the_same_in_sets_of_any_size_and_another_under_another_seed(kind):
    many, few, other = (kind(n, 16, 3.0, 0.2, seed).solid for n, seed in ((70, 5), (66, 5), (66, 6)))
    assert torch.equal(many[:66], few)
    assert not torch.equal(few, other)
    assert not torch.equal(many[0], many[1])


def test_simulators_refuse_what_has_no_meaning():
    for wrong in ((0, 16, 3.0, 0.2, 0), (1, 4, 3.0, 0.2, 0), (1, 16, 0.1, 0.2, 0), (1, 16, 3.0, 1.0, 0), (1, 16, 3.0, 0.2, -1)):
        with pytest.raises(Refused, match="expected one or more"):
            simulate.spheres(*wrong)
    with pytest.raises(Refused, match="two lags or more"):
        simulate.like(np.array([1.0, 1.0]), (8, 8, 8), 1, 0)


# -------------------------------------------------------------------------------------------------------------- volumes


def test_volumes_hold_two_phases_and_edges_above_zero():
    solid = torch.zeros(2, 8, 8, 8, dtype=torch.uint8)
    for changed, complaint in (
        ((solid + 2, torch.ones(2)), "a voxel holds 2"), ((solid.float(), torch.ones(2)), "expected solid as uint8"),
        ((solid[:, :, :4], torch.ones(2)), "8 voxels or more"), ((solid, torch.zeros(2)), "more than 0"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=complaint):
            Volumes(*changed)
    assert Volumes(solid, torch.full((2,), float("nan"))).sides == (8, 8, 8)


def test_volumes_survive_their_file_bit_by_bit(tmp_path):
    found = volumes(np.random.default_rng(0).random((5, 9, 8, 11)) < 0.3, [1.0, 2.0, np.nan, 4.0, 5.0])
    data.write(found, tmp_path / "some.npz")
    again = reading.read(tmp_path / "some.npz").volumes
    assert torch.equal(again.solid, found.solid)
    assert torch.equal(again.voxel.nan_to_num(), found.voxel.nan_to_num())
    with pytest.raises(Refused, match=r"written as \.npz"):
        data.write(found, tmp_path / "some.tif")


# ---------------------------------------------------------------------------------------------------------------- files

SHAPE = (9, 12, 10)


@pytest.fixture(scope="module")
def solid():
    return (np.random.default_rng(1).random(SHAPE) < 0.4).astype(np.uint8)


def tiff(pages, path, **tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag.removeprefix("t"))] = value
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:], tiffinfo=info)


def folder_of(solid, path):
    path.mkdir()
    for number, page in enumerate(solid, 8):
        Image.fromarray(page * 255).save(path / f"slice_{number}.png")  # 8, 9, 10: not in the order of the alphabet
    return path


def hdf5(solid, path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        item = file.create_dataset("scan/labels", data=solid)
        item.attrs["element_size_um"] = [2.5, 2.5, 2.5]
    return path


def saved(solid, path, save):
    save(path)
    return path


WAYS = {
    "pages": lambda s, p: saved(s, p / "a.tif", lambda f: tiff(s * 255, f)),
    "slices": lambda s, p: folder_of(s, p / "slices"),
    "bytes": lambda s, p: saved(s, p / "a.raw", lambda f: s.tofile(f)),
    "words": lambda s, p: saved(s, p / "a.dat", lambda f: (s.astype("<u2") * 40000).tofile(f)),
    "bits": lambda s, p: saved(s, p / "a.bin", lambda f: np.packbits(s).tofile(f)),
    "packed": lambda s, p: saved(s, p / "a.npz", lambda f: np.savez(f, packed=np.packbits(s), shape=np.array(s.shape))),
    "array": lambda s, p: saved(s, p / "b.npz", lambda f: np.savez(f, rock=s.astype(bool))),
    "npy": lambda s, p: saved(s, p / "a.npy", lambda f: np.save(f, s.astype(np.float32))),
    "hdf5": lambda s, p: hdf5(s, p / "a.h5"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_format_gives_the_same_volume(way, solid, tmp_path):
    found = reading.read(WAYS[way](solid, tmp_path), Reading(shape=SHAPE))
    assert torch.equal(found.volumes.solid[0], torch.from_numpy(solid))
    assert not found.lines
    assert all(file.is_file() for file in found.files)


def test_edges_of_voxels_come_from_the_file_or_from_the_user(solid, tmp_path):
    assert reading.read(hdf5(solid, tmp_path / "a.h5")).volumes.voxel.item() == 2.5
    tags = {"t270": "ImageJ=1.54\nspacing=3.0\nunit=micron\n", "t282": 1 / 3, "t283": 1 / 3}
    tiff(solid * 255, tmp_path / "imagej.tif", **tags)
    assert reading.read(tmp_path / "imagej.tif").volumes.voxel.item() == pytest.approx(3)
    tiff(solid * 255, tmp_path / "plain.tif")
    assert reading.read(tmp_path / "plain.tif").volumes.voxel.isnan().all()
    assert reading.read(tmp_path / "plain.tif", Reading(voxel=(5.345,))).volumes.voxel.item() == pytest.approx(5.345)


def test_long_voxels_are_brought_to_cubes_and_a_line_says_so(tmp_path):
    block = np.zeros((16, 32, 32), np.uint8)
    block[4:12, 8:24, 8:24] = 1  # a cube of 16 half-size voxels along each edge
    np.save(tmp_path / "a.npy", block)
    found = reading.read(tmp_path / "a.npy", Reading(voxel=(2.0, 1.0, 1.0)))
    assert found.volumes.sides == (16, 16, 16)
    assert found.volumes.voxel.item() == 2
    assert found.volumes.solid.sum() == 8**3
    assert "resampled to cubes of 2" in found.lines[0]
    with pytest.raises(Refused, match="says too little"):
        reading.read(tmp_path / "a.npy", Reading(voxel=(9.0, 1.0, 1.0)))


def test_grey_values_need_a_threshold_and_are_told_a_good_one(tmp_path):
    rng = np.random.default_rng(2)
    phase = rng.random((12, 12, 12)) < 0.5
    np.save(tmp_path / "grey.npy", np.rint(np.where(phase, 170, 80) + 8 * rng.standard_normal(phase.shape)).astype(np.uint8))
    with pytest.raises(Refused, match=r"grey values from .* --threshold 1[0-4]\d"):
        reading.read(tmp_path / "grey.npy")
    found = reading.read(tmp_path / "grey.npy", Reading(threshold=125)).volumes.solid[0].numpy()
    np.testing.assert_array_equal(found, phase)
    dark = reading.read(tmp_path / "grey.npy", Reading(threshold=125, bright="pore")).volumes.solid[0].numpy()
    np.testing.assert_array_equal(dark, ~phase)
    with pytest.raises(Refused, match="one phase would be empty"):
        reading.read(tmp_path / "grey.npy", Reading(threshold=300))


def test_three_phases_are_refused_with_their_shares(tmp_path):
    grey = np.zeros((8, 8, 8), np.uint8)
    grey[:4], grey[4:6] = 1, 2
    np.save(tmp_path / "three.npy", grey)
    with pytest.raises(Refused, match=r"3 phases \(0 in 25.0%, 1 in 50.0%, 2 in 25.0% .*--threshold 1.5"):
        reading.read(tmp_path / "three.npy")
    assert reading.read(tmp_path / "three.npy", Reading(threshold=1.5)).volumes.solid.sum() == 128


def test_bad_files_are_refused_by_name_and_reason(solid, tmp_path):
    def refused(complaint, path, how=None):
        with pytest.raises(Refused, match=complaint) as error:
            reading.read(path, how)
        assert str(path.parent) in str(error.value)

    def file(name, save):
        return saved(solid, tmp_path / name, save)

    refused("no such file", tmp_path / "missing.tif")
    refused("are read from", file("a.txt", lambda f: f.write_text("1 0 1")))
    refused("damaged", file("bad.tif", lambda f: f.write_bytes(b"II*\0 nothing")))
    refused("damaged", file("bad.npz", lambda f: f.write_bytes(b"PK nothing")))
    refused("damaged", file("bad.h5", lambda f: f.write_bytes(b"nothing")))
    refused("one slice", file("one.tif", lambda f: tiff(solid[:1] * 255, f)))
    refused("--shape", file("a.raw", solid.tofile))
    refused("holds 1080 bytes; 9 x 12 x 11", tmp_path / "a.raw", Reading(shape=(9, 12, 11)))
    refused("without their `shape`", file("p.npz", lambda f: np.savez(f, packed=np.packbits(solid))))
    refused("135 bytes of `packed`", file("q.npz", lambda f: np.savez(f, packed=np.packbits(solid), shape=[9, 12, 12])))
    refused("one called `solid`", file("two.npz", lambda f: np.savez(f, a=solid, b=solid)))
    refused("expected \\(depth", file("flat.npy", lambda f: np.save(f, solid[0])))
    refused("nan or infinite", file("nan.npy", lambda f: np.save(f, np.full(SHAPE, np.nan))))
    refused("every voxel is 7", file("seven.npy", lambda f: np.save(f, np.full(SHAPE, 7))))
    refused("expected numbers", file("text.npy", lambda f: np.save(f, np.full(SHAPE, "a"))))
    refused("8 voxels or more", file("thin.npy", lambda f: np.save(f, solid[:4])))


def test_slices_that_do_not_make_one_volume_are_refused(solid, tmp_path):
    gap = folder_of(solid, tmp_path / "gap")
    (gap / "slice_12.png").unlink()
    with pytest.raises(Refused, match=r"jump before slice_13\.png"):
        reading.read(gap)
    uneven = folder_of(solid, tmp_path / "uneven")
    Image.fromarray(solid[0, :5] * 255).save(uneven / "slice_9.png")
    with pytest.raises(Refused, match=r"slice_9\.png: is \(5, 10\) pixels"):
        reading.read(uneven)
    colour = folder_of(solid, tmp_path / "colour")
    Image.new("RGB", (10, 12), "red").save(colour / "slice_10.png")
    with pytest.raises(Refused, match=r"slice_10\.png: is a colour picture"):
        reading.read(colour)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="holds 0 slices"):
        reading.read(tmp_path / "empty")


# -------------------------------------------------------------------------------------------------------------- cutting


def test_no_voxel_of_one_volume_both_trains_and_judges(tmp_path):
    number = np.arange(40 * 16 * 16).reshape(40, 16, 16)
    slabs = data.slabs(40, 8)
    assert [slab.stop - slab.start for slab in slabs] == [22, 8, 10]
    train = data.at_random([number[slabs[0]]], 8, 200, seed=0)
    others = [data.on_grid(number[slab], 8) for slab in slabs[1:]]
    parts = [set(np.unique(part).tolist()) for part in (train, *others)]
    assert not parts[0] & (parts[1] | parts[2])
    assert not parts[1] & parts[2]
    assert len(np.unique(others[1])) == others[1].size  # side by side
    assert len({tuple(cube.ravel()[:1]) for cube in train}) > 150  # at many places
    with pytest.raises(Refused, match="take a smaller --side"):
        data.slabs(40, 16)


def test_one_large_volume_is_split_by_region_and_says_how_many_cubes_are_apart(tmp_path):
    rock = simulate.spheres(1, 64, 4.0, 0.3, 9)
    data.write(volumes(rock.solid.numpy(), 2.0), tmp_path / "rock.npz")
    recipe = framing.MicrostructureRecipe(side=16, places=50, judged=12, data=tmp_path / "rock.npz")
    split = framing.load(recipe)
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [50, 12, 12]
    assert "side by side there would be 32" in split.origin
    assert (split.train.voxel == 2).all()
    assert len(next(iter(split.files.values()))) == 64
    with pytest.raises(Refused, match=r"smaller than the training cube of 100; give --side 21"):
        framing.load(recipe.model_copy(update={"side": 100}))


def test_blocks_share_no_voxel_and_spread_every_part_over_the_volume():
    shape = (70, 64, 100)
    found = data.blocks(shape, 8)
    owner = np.zeros(shape, int)
    for number, boxes in enumerate(found.values(), start=1):
        for box in boxes:
            assert (owner[box] == 0).all()
            owner[box] = number
    assert (owner > 0).all()
    shares = [(owner == number).mean() for number in (1, 2, 3)]
    np.testing.assert_allclose(shares, [5 / 8, 1 / 8, 1 / 4], atol=0.03)
    held_out = owner == 3
    for axis in range(3):  # each half of the volume holds its share, and held-out blocks touch by edges at most
        halves = [half.mean() for half in np.array_split(held_out, 2, axis)]
        assert min(halves) > 0.2
        edges = np.flatnonzero(np.diff(owner, axis=axis).any(axis=tuple(a for a in range(3) if a != axis)))
        for edge in edges:
            assert not (held_out.take(edge, axis) & held_out.take(edge + 1, axis)).any()
    with pytest.raises(Refused, match="hold 1 blocks of 40, too few for three parts"):
        data.blocks((70, 64, 70), 20)


def test_blocks_of_one_volume_bring_its_parts_closer_than_slabs(tmp_path):
    depth = np.arange(96)[:, None, None]
    solid = (np.random.default_rng(0).random((96, 96, 96)) < 0.2 + 0.6 * depth / 96).astype(np.uint8)  # a gradient along the depth
    data.write(volumes(solid, 2.0), tmp_path / "rock.npz")
    recipe = framing.MicrostructureRecipe(side=12, places=300, data=tmp_path / "rock.npz")

    def shift(split):
        return abs(split.train.solid.double().mean() - split.held_out.solid.double().mean())

    slabs, blocks = framing.load(recipe), framing.load(recipe.model_copy(update={"regions": "blocks"}))
    assert "held out 16 blocks: 0." in blocks.origin
    assert shift(slabs) > 0.2
    assert shift(blocks) < 0.05
    assert len(blocks.held_out) == 16 * 8


def test_many_volumes_are_divided_and_cut_after_that(tmp_path):
    data.write(simulate.spheres(50, 16, 2.0, 0.3, 9), tmp_path / "many.npz")
    recipe = framing.MicrostructureRecipe(side=8, judged=1000, data=tmp_path / "many.npz")
    split = framing.load(recipe)
    assert [len(part) for part in (split.train, split.validation, split.held_out)] == [35 * 8, 5 * 8, 10 * 8]
    data.write(simulate.spheres(5, 16, 2.0, 0.3, 9), tmp_path / "few.npz")
    with pytest.raises(Refused, match="5 volumes; one large volume is split by region"):
        framing.load(recipe.model_copy(update={"data": tmp_path / "few.npz"}))
    assert len(framing.read_as(tmp_path / "few.npz", recipe)) == 40


@pytest.mark.parametrize("kind", ["spheres", "level_cut", "henkes"])
def test_simulated_parts_are_independent_and_repeatable(kind):
    recipe = framing.MicrostructureRecipe(side=16, kind=kind, radius=2.0, simulated=30, judged=20)
    one, two = framing.load(recipe), framing.load(recipe)
    assert torch.equal(one.held_out.solid, two.held_out.solid)
    assert one.files == two.files
    both = torch.cat([one.train.solid, one.validation.solid, one.held_out.solid]).flatten(1)
    assert len(torch.unique(both, dim=0)) == len(both)


def test_the_sandstone_is_read_and_split_as_its_publishers_describe_it(data_folder):
    path = data_folder / "microstructure" / "berea_bits.npz"
    if not path.is_file():
        pytest.skip("no sandstone here")
    rock = reading.read(path).volumes
    assert rock.sides == (400, 400, 400)
    assert 1 - rock.solid.float().mean().item() == pytest.approx(0.1965, abs=5e-4)
    pore = 1 - rock.solid[0].numpy()
    for lag, expected in ((1, 0.1751), (8, 0.0811), (32, 0.0393)):
        along = [np.moveaxis(pore, axis, 0) for axis in range(3)]
        found = np.mean([np.count_nonzero(one[lag:] & one[:-lag]) / one[lag:].size for one in along])
        assert found == pytest.approx(expected, abs=2e-4)


# --------------------------------------------------------------------------------------------------- asking and pictures


def test_a_side_can_be_asked_for():
    recipe = framing.MicrostructureRecipe(side=16, voxel=(2.0,))
    assert framing.ask(recipe, 3, {}).sides == (16, 16, 16)
    assert framing.ask(recipe, 3, {"side": "32"}).sides == (32, 32, 32)
    assert framing.ask(recipe, 2, {"side": "16,24,48"}).sides == (16, 24, 48)
    assert (framing.ask(recipe, 2, {}).voxel == 2).all()
    for wrong in ("huge", "4", "1000", "16,32"):
        with pytest.raises(Refused, match="side"):
            framing.ask(recipe, 1, {"side": wrong})
    with pytest.raises(Refused, match="not for porosity"):
        framing.ask(recipe, 1, {"porosity": "0.2"})


def test_pictures_show_the_surface_and_three_slices():
    solid = np.zeros((2, 16, 16, 16), np.uint8)
    solid[:, 8] = 1  # a sheet across the depth: the first slice lies in it, the others show it as a line
    found = volumes(solid, [3.0, np.nan])
    shown = framing.picture(found)
    assert shown.shape[0] == 2
    assert 0 <= shown.min() < shown.max() <= 1
    dark = (shown[0, :, -3 * 66 :].mean(axis=2) < 0.5).mean(axis=0)
    assert dark[10] > 3 * dark[76]
    assert framing.caption(found) == ["porosity 0.938, 48 µm wide", "porosity 0.938"]


def solid_ball(radius, side):
    squared = (np.arange(side) - (side - 1) / 2) ** 2
    return (squared[:, None, None] + squared[None, :, None] + squared <= radius**2).astype(np.uint8)


def volume_within(vertices, triangles):
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_mesh_is_closed_faces_outwards_and_keeps_the_volume():
    solid = solid_ball(9, 24)
    vertices, faces = surface.mesh(solid)
    assert len(vertices) - 2 * len(faces) + len(faces) == 2  # V - E + F of a sphere
    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    assert volume_within(vertices, triangles) == pytest.approx(solid.sum(), rel=0.04)  # flat faces cut the bulge
    assert np.abs(np.linalg.norm(vertices - 11.5, axis=1) - 9).max() < 0.7
    full = surface.mesh(np.ones((10, 12, 14), np.uint8))  # cut faces are closed
    triangles = np.concatenate([full[1][:, [0, 1, 2]], full[1][:, [0, 2, 3]]])
    assert volume_within(full[0], triangles) == pytest.approx(10 * 12 * 14, rel=0.06)  # and their edges round


def coloured(shown):
    """Pixels that are neither white nor the grey of the box."""
    return int((np.ptp(shown, axis=2) > 0.05).sum())


def test_a_ball_is_seen_as_a_disc_from_everywhere():
    found = surface.mesh(solid_ball(9, 24))
    for azimuth, elevation in ((0, 0), (35, 25), (200, -60)):
        shown = surface.view(found, (24, 24, 24), azimuth, elevation, pixels=128)
        scale = 128 / (1.02 * 24 * 3**0.5)
        assert coloured(shown) == pytest.approx(np.pi * (9 * scale) ** 2, rel=0.06)
    frames = list(surface.turning(solid_ball(5, 16), frames=3, pixels=32))
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 3


def test_the_rarer_phase_is_shown_in_its_colour_and_a_volume_of_one_phase_as_an_empty_box():
    ball = solid_ball(5, 16)
    brown, blue = surface.portrait(ball), surface.portrait(1 - ball)
    assert coloured(brown) == coloured(blue) > 0
    assert (brown[..., 0] >= brown[..., 2]).all()
    assert (blue[..., 2] >= blue[..., 0]).all()
    assert coloured(surface.portrait(np.zeros((8, 8, 8), np.uint8))) == 0


def test_surfaces_are_written_for_other_programs_in_micrometres(tmp_path):
    found = volumes(solid_ball(6, 16), 2.0)
    surface.export(found, tmp_path / "ball.stl", None)
    raw = (tmp_path / "ball.stl").read_bytes()
    count = int.from_bytes(raw[80:84], "little")
    records = np.frombuffer(raw[84:], [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
    assert len(records) == count
    a, b, c = records["corners"].transpose(1, 0, 2).astype(float)
    inside = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert inside == pytest.approx(2.0**3 * found.solid.sum().item(), rel=0.08)  # positive: faces look outwards
    surface.export(found, tmp_path / "ball.obj")
    lines = (tmp_path / "ball.obj").read_text().splitlines()
    assert sum(line.startswith("f ") for line in lines) * 2 == count
    with pytest.raises(Refused, match=r"\.stl or \.obj"):
        surface.export(found, tmp_path / "ball.ply")
    with pytest.raises(Refused, match="no surface"):
        surface.export(volumes(np.zeros((1, 8, 8, 8))), tmp_path / "nothing.stl")
