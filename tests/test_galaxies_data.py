"""Reading, refusing, splitting and writing images of galaxies."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simulacra.sciences.galaxies import data, reading
from simulacra.sciences.galaxies.data import Images, load, read, split
from simulacra.study import Refused


def random_pixels(n: int, side: int = 16, bands: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, bands, side, side), dtype=np.uint8)


def images(n: int, side: int = 16, bands: int = 3, seed: int = 0) -> Images:
    return Images(torch.from_numpy(random_pixels(n, side, bands, seed)), torch.full((n,), -1))


def png(side: int = 16, seed: int = 0, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


def folder(path: Path, **files: bytes) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def good_folder(path: Path, n: int = 3) -> Path:
    return folder(path / "set", **{f"good{i}__png": png(seed=i) for i in range(n)})


def huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40000, 25000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason(path: Path, name: str, content: bytes, **options) -> str:
    """Why the one bad record among three good ones was set aside."""
    where = good_folder(path)
    (where / name).write_bytes(content)
    got, rejected, _ = read(where, 16, True, **options)
    assert len(got) == 3
    assert len(rejected) == 1
    assert rejected[0].startswith(name)
    return rejected[0]


@pytest.mark.parametrize("ending", [".npz", "", ".zip"])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, ending):
    original = images(12)
    where = tmp_path / f"drawn{'' if ending == '.zip' else ending}"
    data.write(original, where)
    if ending == ".zip":
        with zipfile.ZipFile(tmp_path / "drawn.zip", "w") as archive:
            for file in where.iterdir():
                archive.write(file, file.name)
        where = tmp_path / "drawn.zip"
    got, rejected, files = read(where)
    assert torch.equal(got.pixels, original.pixels)
    assert not rejected
    assert all(len(s) == 64 for s in files.values())


@pytest.mark.parametrize("shape", [(5, 16, 16), (5, 16, 16, 3), (5, 3, 16, 16), (5, 1, 16, 16)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_npz_arrays_of_every_layout_are_read(tmp_path, shape, kind):
    stack = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=stack if kind is np.uint8 else (stack / 255).astype(np.float32), label=np.arange(5))
    got, _, _ = read(tmp_path / "a.npz")
    expected = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2) if shape[-1] == 3 else stack
    np.testing.assert_array_equal(got.pixels.numpy(), expected)
    assert got.label.tolist() == [0, 1, 2, 3, 4]


def test_whole_factors_average_blocks_of_pixels(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    got, _, _ = read(tmp_path / "a.png", 16, False)
    blocks = picture.reshape(16, 3, 16, 3).mean(axis=(1, 3))
    assert np.abs(got.pixels[0, 0].numpy() - blocks).max() <= 1


def test_crops_keep_the_centre_by_pixels_and_by_fraction(tmp_path):
    picture = np.zeros((30, 40), np.uint8)
    picture[10:20, 15:25] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    for crop in (10, 1 / 3):
        got, _, _ = read(tmp_path / "a.png", 10, False, crop=crop)
        assert got.pixels.min() == 200


def test_sizes_may_be_mixed_but_nothing_is_enlarged_unasked(tmp_path):
    assert "central square is 8 px and 16 px are asked for" in reason(tmp_path, "small.png", png(8))
    assert len(read(tmp_path / "set", 16, True, enlarge=True)[0]) == 4
    with pytest.raises(Refused, match="none of 4 records can be used"):
        read(tmp_path / "set", 64, True)


def test_a_truncated_jpeg_is_set_aside_with_its_name(tmp_path):
    out = io.BytesIO()
    Image.fromarray(random_pixels(1, 64)[0].transpose(1, 2, 0)).save(out, "JPEG")
    assert "cut short" in reason(tmp_path, "half.jpg", out.getvalue()[: len(out.getvalue()) // 2])


def test_text_that_poses_as_a_picture_is_set_aside(tmp_path):
    assert "is not an image" in reason(tmp_path, "notes.jpg", b"objid,ra,dec\n1,2,3\n")
    assert "is not an image" in reason(tmp_path / "set", "empty.jpg", b"")


def test_a_header_of_a_thousand_million_pixels_is_refused_unread(tmp_path):
    assert "1000000000 pixels" in reason(tmp_path, "vast.png", huge_png())


def test_a_grey_image_in_a_colour_set_is_set_aside(tmp_path):
    assert "is grey" in reason(tmp_path, "grey.png", png(mode="L"))


def test_strict_reading_stops_at_the_first_bad_record(tmp_path):
    good_folder(tmp_path)
    (tmp_path / "set" / "bad.png").write_bytes(b"no")
    with pytest.raises(Refused, match=r"bad\.png"):
        read(tmp_path / "set", 16, True, strict=True)


def test_other_files_in_the_folder_are_ignored_with_a_note(tmp_path):
    where = good_folder(tmp_path)
    (where / "README.txt").write_text("about")
    got, rejected, _ = read(where, 16, True)
    assert len(got) == 3
    assert rejected == ["1 files that are not images were ignored: README.txt"]


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(Refused, match="holds no image"):
        read(tmp_path, 16, True)
    with pytest.raises(Refused, match="no such file or folder"):
        read(tmp_path / "nowhere", 16, True)


def test_one_image_cannot_be_split(tmp_path):
    good_folder(tmp_path, 1)
    with pytest.raises(Refused, match="1 image, 1 distinct: cannot be split"):
        load(data=tmp_path / "set", side=16, colour=True, seed=0, simulated=0)


def test_a_truncated_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(Refused, match="not a complete zip archive"):
        read(tmp_path / "a.zip", 16, True)


def test_zip_members_that_climb_out_or_explode_are_set_aside(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", png())
        archive.writestr("../climb.png", png(seed=1))
        archive.writestr("bomb.png", bytes(50_000_000))
    got, rejected, _ = read(tmp_path / "a.zip", 16, True)
    assert len(got) == 1
    assert any("leads out of the archive" in line for line in rejected)
    assert any("which no image does" in line for line in rejected)
    assert not (tmp_path.parent / "climb.png").exists()


def test_a_damaged_zip_member_is_set_aside(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr("b.png", png(seed=1))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    got, rejected, _ = read(tmp_path / "a.zip", 16, True)
    assert len(got) == 1
    assert "damaged" in rejected[0]


def test_nan_pixels_are_counted_and_located(tmp_path):
    stack = np.random.default_rng(0).random((4, 16, 16))
    stack[2, 5, 7] = np.nan
    stack[2, 6, 7] = np.inf
    np.savez(tmp_path / "a.npz", images=stack)
    got, rejected, _ = read(tmp_path / "a.npz")
    assert len(got) == 3
    assert rejected[0].startswith("a.npz[2]: 2 of 256 pixels are NaN or infinite, the first at row 5, column 7")


def test_floats_outside_zero_to_one_are_set_aside_with_their_range(tmp_path):
    stack = np.random.default_rng(0).random((4, 16, 16))
    stack[1] *= 7000
    np.savez(tmp_path / "a.npz", images=stack)
    assert "pixel values run from" in read(tmp_path / "a.npz")[1][0]


def test_objects_in_an_npz_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(Refused, match="plain number arrays"):
        read(tmp_path / "a.npz")


def test_an_npz_with_other_arrays_says_what_it_found(tmp_path):
    np.savez(tmp_path / "a.npz", spectra=np.zeros((3, 5)))
    with pytest.raises(Refused, match="found spectra"):
        read(tmp_path / "a.npz")


def test_fits_cutouts_are_stretched_from_the_sky_upwards(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    rng = np.random.default_rng(0)
    flux = 1000 + 5 * rng.standard_normal((32, 32))
    flux[16, 16] += 5000
    (tmp_path / "set").mkdir()
    for i, name in enumerate(("a.fits", "b.fits.gz")):
        fits.PrimaryHDU((flux + i).astype(np.float32)).writeto(tmp_path / "set" / name)
    flux[3, 4] = np.nan
    fits.PrimaryHDU(flux.astype(np.float32)).writeto(tmp_path / "set" / "c.fits")
    (tmp_path / "set" / "d.fits").write_bytes((tmp_path / "set" / "a.fits").read_bytes()[:3000])
    got, rejected, _ = read(tmp_path / "set", 32, False)
    assert len(got) == 2
    assert got.pixels[0, 0, 15, 16] == 255  # rows count upwards in FITS
    assert 15 < got.pixels.float().median() < 35  # the sky: asinh(1/2) / asinh(100) of 255
    assert any("c.fits: 1 of 1024 pixels" in line for line in rejected)
    assert any(line.startswith("d.fits") for line in rejected)


def test_stretch_of_a_noiseless_cutout_runs_from_the_sky_to_white():
    flux = np.zeros((16, 16))
    flux[8, 8] = 7.0
    counts = reading.stretch(flux)
    assert counts[8, 8] == 255
    assert counts[0, 0] == round(255 * np.arcsinh(0.5) / np.arcsinh(100))


def test_copies_never_sit_on_two_sides_of_a_split():
    base = images(60)
    double = Images.join([base, base[torch.arange(59, -1, -1)]])
    parts = [set(map(bytes, double.pixels[rows].numpy().reshape(len(rows), -1))) for rows in split(double, 3)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert sorted(torch.cat(split(double, 3)).tolist()) == list(range(120))


def test_small_sets_hold_out_more_and_tiny_ones_are_refused():
    assert [len(rows) for rows in split(images(400), 0)] == [320, 40, 40]
    assert [len(rows) for rows in split(images(66), 0)] == [37, 7, 22]
    with pytest.raises(Refused, match="give 60 or more"):
        split(images(50), 0)


def test_a_split_does_not_depend_on_the_order():
    base = images(100)
    assert [len(rows) for rows in split(base, 0)] == [65, 10, 25]
    turned = base[torch.arange(99, -1, -1)]
    assert {99 - int(i) for i in split(turned, 0)[2]} == {int(i) for i in split(base, 0)[2]}
    assert not torch.equal(split(base, 0)[2], split(base, 1)[2])


def test_the_table_beside_the_data_gives_labels_and_the_split(tmp_path):
    good_folder(tmp_path, 40)
    rows = [f"good{i}.png,{i % 3},{'train' if i < 30 else 'valid'}" for i in range(40)]
    with gzip.open(tmp_path / "set.csv.gz", "wt") as stream:
        stream.write("\n".join(["file,pixel_class,split", *rows]))
    nature = load(data=tmp_path / "set", side=16, colour=True, seed=0, simulated=0)
    assert (len(nature.train), len(nature.validation), len(nature.held_out)) == (27, 3, 10)
    assert "held out: the table's valid rows" in nature.origin
    assert set(nature.train.label.tolist()) == {0, 1, 2}


def test_a_copy_of_a_held_out_image_is_dropped_from_training(tmp_path):
    where = good_folder(tmp_path, 40)
    (where / "good0.png").write_bytes(png(seed=35))
    rows = [f"good{i}.png,{'train' if i < 30 else 'test' if i < 37 else 'valid'}" for i in range(40)]
    (tmp_path / "set.csv").write_text("\n".join(["file,split", *rows]))
    nature = load(data=where, side=16, colour=True, seed=0, simulated=0)
    assert (len(nature.train), len(nature.validation), len(nature.held_out)) == (29, 3, 7)
    assert "1 training images dropped" in nature.origin


def test_class_folders_give_labels_in_alphabetical_order(tmp_path):
    for name in ("spiral", "elliptical"):
        folder(tmp_path / name, a__png=png())
    got, _, _ = read(tmp_path, 16, True)
    assert got.label.tolist() == [0, 1]


def test_a_table_of_other_images_is_refused(tmp_path):
    good_folder(tmp_path)
    (tmp_path / "set.csv").write_text("file,label\nother.png,1\n")
    with pytest.raises(Refused, match="none of its rows names an image"):
        read(tmp_path / "set", 16, True)


def test_labels_may_be_names_of_classes_which_are_numbered_in_alphabetical_order(tmp_path):
    good_folder(tmp_path, 70)
    words = ["spiral", "elliptical", "unknown", "", "barred spiral"]
    rows = [f"good{i}.png,{words[i % 5]}" for i in range(69)]
    (tmp_path / "set.csv").write_text("\n".join(["file,label", *rows]))
    got, _, _ = read(tmp_path / "set", 16, True)
    names = sorted(f"good{i}.png" for i in range(70))  # good69 has no row
    number = {"spiral": 2, "elliptical": 1, "barred spiral": 0}
    assert got.label.tolist() == [-1 if name == "good69.png" else number.get(words[int(name[4:-4]) % 5], -1) for name in names]
    origin = load(data=tmp_path / "set", side=16, colour=True, seed=0, simulated=0).origin
    assert "labels from set.csv: 0 barred spiral, 1 elliptical, 2 spiral; 1 images have no row in set.csv" in origin


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["0", "1", "spiral"], r"line 4: `label` is 'spiral'; expected whole numbers throughout"),
        (["spiral", "0.73", "spiral"], r"line 3: `label` is '0\.73'"),
        (["0", "0.5", "1"], r"line 3: `label` is '0\.5'"),
        (["inf", "1", "1"], r"line 2: `label` is 'inf'"),
    ],
)
def test_labels_that_mix_numbers_and_names_are_refused_by_line(tmp_path, labels, said):
    good_folder(tmp_path)
    (tmp_path / "set.csv").write_text("\n".join(["file,label", *(f"good{i}.png,{text}" for i, text in enumerate(labels))]))
    with pytest.raises(Refused, match=said):
        read(tmp_path / "set", 16, True)


def test_whole_numbers_written_as_floats_and_gaps_are_labels(tmp_path):
    good_folder(tmp_path, 5)
    (tmp_path / "set.csv").write_text("file,label\ngood0.png,1.0\ngood1.png,\ngood2.png,nan\ngood3.png,-9\ngood4.png, 2 \n")
    assert read(tmp_path / "set", 16, True)[0].label.tolist() == [1, -1, -1, -1, 2]


def test_a_table_that_only_divides_leaves_the_class_folders_their_say(tmp_path):
    for name in ("elliptical", "spiral"):
        (tmp_path / "set").mkdir(exist_ok=True)
        folder(tmp_path / "set" / name, **{f"{name}{i}__png": png(seed=i + 100 * len(name)) for i in range(20)})
    rows = [f"{name}{i}.png,{'train' if i < 14 else 'test'}" for name in ("elliptical", "spiral") for i in range(20)]
    (tmp_path / "set.csv").write_text("\n".join(["file,split", *rows]))
    nature = load(data=tmp_path / "set", side=16, colour=True, seed=0, simulated=0)
    assert torch.bincount(nature.held_out.label).tolist() == [6, 6]
    assert "0 elliptical, 1 spiral" in nature.origin


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    counts = np.linspace(0, 65535, 16 * 16).reshape(16, 16).astype(np.uint16)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(counts).save(tmp_path / name)
        got, _, _ = read(tmp_path / name)
        np.testing.assert_array_equal(got.pixels[0, 0].numpy(), np.rint(counts / 257))
    (tmp_path / "colour.png").write_bytes(sixteen_bit_rgb(np.stack([counts, counts[::-1], counts.T], axis=2)))
    got, _, _ = read(tmp_path / "colour.png")
    expected = np.stack([counts, counts[::-1], counts.T]) / 257
    assert np.abs(got.pixels[0].numpy() - expected).max() <= 1


def sixteen_bit_rgb(counts: np.ndarray) -> bytes:
    """A PNG of (h, w, 3) 16-bit counts, which Pillow reads and cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", counts.shape[1], counts.shape[0], 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in counts)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_whole_numbers_of_more_than_sixteen_bits_are_set_aside_with_their_range(tmp_path):
    where = good_folder(tmp_path)
    Image.fromarray(np.full((16, 16), 70000, np.int32)).save(where / "deep.tif")
    got, rejected, _ = read(where, 16, False)
    assert len(got) == 3
    assert "deep.tif: pixel values run from 70000 to 70000; 16 bits hold 0 to 65535" in rejected[0]


@pytest.mark.parametrize(("mode", "name", "within"), [("CMYK", "a.jpg", 8), ("CMYK", "a.tif", 1), ("YCbCr", "a.jpg", 8)])
def test_pictures_in_other_colour_spaces_become_red_green_blue(tmp_path, mode, name, within):
    y, x = np.mgrid[:16, :16] * 12
    picture = np.stack([x, y, 200 - x], axis=2).astype(np.uint8)
    out = Image.fromarray(picture).convert(mode)
    out.save(tmp_path / name, **({"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}))
    got, rejected, _ = read(tmp_path / name)
    assert not rejected
    assert np.abs(got.pixels[0].permute(1, 2, 0).numpy().astype(int) - picture).max() <= within


def test_palettes_are_looked_up_and_transparency_lies_over_black_sky(tmp_path):
    colours = np.array([[0, 0, 0], [200, 10, 30], [20, 180, 250]], np.uint8)
    index = np.random.default_rng(0).integers(0, 3, (16, 16)).astype(np.uint8)
    picture = Image.fromarray(index, "P")
    picture.putpalette(colours.tobytes())
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read(tmp_path / "palette.png")[0].pixels[0].permute(1, 2, 0).numpy(), colours[index])
    picture.save(tmp_path / "clear.png", transparency=1)
    expected = np.where((index == 1)[..., None], 0, colours[index])
    np.testing.assert_array_equal(read(tmp_path / "clear.png")[0].pixels[0].permute(1, 2, 0).numpy(), expected)
    veiled = np.dstack([colours[index], np.full((16, 16), 128, np.uint8)])
    Image.fromarray(veiled, "RGBA").save(tmp_path / "veiled.png")
    got = read(tmp_path / "veiled.png")[0].pixels[0].permute(1, 2, 0).numpy()
    assert np.abs(got - colours[index] * (128 / 255)).max() <= 1


def test_colour_among_grey_becomes_luminance_and_equal_bands_stay_colour(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "b.png")
    got, rejected, _ = read(tmp_path)  # as the first: grey
    assert got.bands == 1
    assert not rejected
    np.testing.assert_array_equal(got.pixels[1, 0].numpy(), grey)
    coloured, rejected, _ = read(tmp_path, 16, True)
    assert len(coloured) == 1
    assert rejected == ["a.png: is grey, but colour is asked for; set `colour` to false (--no-colour)"]


def test_fits_files_without_an_image_are_set_aside(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    rng = np.random.default_rng(0)
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=rng.normal(size=5))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "catalogue.fits")
    fits.PrimaryHDU(rng.normal(size=500).astype(np.float32)).writeto(tmp_path / "spectrum.fits")
    fits.PrimaryHDU(rng.normal(size=(7, 16, 16)).astype(np.float32)).writeto(tmp_path / "cube.fits")
    second = fits.ImageHDU(rng.normal(size=(16, 16)).astype(np.float32))
    fits.HDUList([fits.PrimaryHDU(), table, second]).writeto(tmp_path / "later.fits")
    got, rejected, _ = read(tmp_path, 16, False)
    assert len(got) == 1
    assert [line.split(":")[0] for line in rejected] == ["catalogue.fits", "cube.fits", "spectrum.fits"]
    assert "holds no image of two or three dimensions" in rejected[0]
    assert "is a cube of shape (7, 16, 16)" in rejected[1]
    assert "holds no image of two or three dimensions" in rejected[2]


def test_pixels_that_are_not_bytes_or_not_square_are_refused():
    with pytest.raises(Refused, match="bytes 0-255"):
        Images(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(Refused, match="crop them to squares"):
        Images(torch.zeros(2, 3, 8, 9, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))


def test_pictures_are_rgb_between_zero_and_one(tmp_path):
    assert data.picture(images(2, bands=1)).shape == (2, 16, 16, 3)
    assert data.picture(images(2)).max() <= 1
    data.write(images(5), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size == (50, 33)
    with pytest.raises(Refused, match="cannot write galaxies"):
        data.write(images(2), tmp_path / "a.mp4")


def test_the_sdss_set_is_read_and_split_as_its_table_says():
    root = os.environ.get("SIMULACRA_DATA")
    if not root or not (Path(root) / "galaxies" / "galaxy_zoo_424px.zip").exists():
        pytest.skip("SIMULACRA_DATA does not name a folder with galaxies/galaxy_zoo_424px.zip")
    nature = load(data=Path(root) / "galaxies" / "galaxy_zoo_424px.zip", side=64, colour=True, seed=0, simulated=0, crop=256)
    assert len(nature.train) + len(nature.validation) + len(nature.held_out) == 680
    assert not nature.rejected
