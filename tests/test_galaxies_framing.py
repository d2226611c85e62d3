"""The frame that all generators of galaxies share: labelled images in, classes asked for, turns of the sky."""

from pathlib import Path

import numpy as np
import pytest
import torch

from simulacra.sciences.galaxies import framing
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.framing import ClassRecipe, ImageRecipe, ask_class, ask_nothing, load_labelled
from simulacra.study import Refused


def archive(path: Path, label: np.ndarray | None, n: int = 0) -> Path:
    """Distinct images with these labels, as an .npz."""
    n = n or (0 if label is None else len(label))
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    extra = {} if label is None else {"label": label}
    np.savez(path / "set.npz", images=pixels, **extra)
    return path / "set.npz"


def recipe(data: Path, classes: int = 3) -> ClassRecipe:
    return ClassRecipe(data=data, side=16, classes=classes)


def divided(path: Path, train: list[int], test: list[int]) -> Path:
    """Images in a folder, with the labels and the split that a table beside it gives them."""
    from PIL import Image

    (path / "set").mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,label,split"]
    for part, labels in (("train", train), ("test", test)):
        for i, label in enumerate(labels):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path / "set" / f"{part}{i}.png")
            lines.append(f"{part}{i}.png,{label},{part}")
    (path / "set.csv").write_text("\n".join(lines))
    return path / "set"


def test_images_without_a_class_are_set_aside_and_counted(tmp_path):
    label = np.arange(400) % 3
    label[::10] = -1
    split = load_labelled(recipe(archive(tmp_path, label)))
    assert len(split.train) + len(split.validation) + len(split.held_out) == 360
    assert min(int(part.label.min()) for part in (split.train, split.validation, split.held_out)) == 0
    assert sum(int(line.split()[0]) for line in split.rejected if line.endswith("set aside: no class")) == 40


def test_a_held_out_class_that_training_does_not_have_is_set_aside_by_name(tmp_path):
    where = divided(tmp_path, [0, 1] * 30, [0, 1] * 12 + [2, 5])
    split = load_labelled(recipe(where, classes=2))
    assert len(split.held_out) == 24
    assert "2 held-out images set aside: class 2, 5, which training does not have" in split.rejected


@pytest.mark.parametrize(
    ("label", "classes", "said"),
    [
        (np.arange(400) % 5, 3, r"labelled 4, but the recipe knows 3 classes, numbered from 0: add --classes 5"),
        (np.arange(400) % 2, 3, r"class 2 has 0 training images.*labels end at 1: add --classes 2"),
        (1 + np.arange(400) % 3, 4, r"class 0 has 0 training images.*classes are numbered from 0"),
        (np.zeros(400, int), 2, r"all images are labelled 0, and two classes are the fewest"),
        (np.full(400, -1), 3, r"no training image has a class; give class folders"),
        (None, 3, r"no training image has a class"),
    ],
)
def test_labels_that_do_not_fit_the_recipe_are_refused_with_what_to_do(tmp_path, label, classes, said):
    with pytest.raises(Refused, match=said):
        load_labelled(recipe(archive(tmp_path, label, 400), classes))


def test_a_class_of_one_image_is_refused_with_the_counts_of_all(tmp_path):
    where = divided(tmp_path, [0, 2] * 30 + [1], [0, 2] * 12)
    with pytest.raises(Refused, match=r"class 1 has 1 training image, .*label these -1.*\(counts: \d+, 1, \d+\)"):
        load_labelled(recipe(where))


def test_too_few_labelled_images_for_a_verdict_are_refused_before_training(tmp_path):
    where = divided(tmp_path, [0, 1] * 30, [0, 1] * 5 + [-1] * 30)
    with pytest.raises(Refused, match="10 of 40 held-out images have a class that training has; a verdict needs 20"):
        load_labelled(recipe(where, classes=2))


def test_names_of_classes_are_told_where_the_recipe_expects_fewer(tmp_path):
    where = divided(tmp_path, ["barred", "elliptical", "ring", "spiral"] * 15, ["barred", "ring"] * 12)
    with pytest.raises(Refused, match=r"add --classes 4 \(labels from set.csv: 0 barred, 1 elliptical, 2 ring, 3 spiral\)"):
        load_labelled(recipe(where))


def test_simulated_galaxies_have_their_three_classes():
    pytest.importorskip("galsim")
    split = load_labelled(ClassRecipe(side=16, simulated=100))
    assert set(split.train.label.tolist()) == set(split.held_out.label.tolist()) == {0, 1, 2}
    assert not split.rejected


def test_classes_are_asked_for_in_turn_or_one_alone():
    asked = ClassRecipe(side=16)
    assert ask_class(asked, 5, {}).label.tolist() == [0, 1, 2, 0, 1]
    assert ask_class(asked, 3, {"class": "2,0"}).label.tolist() == [2, 0, 2]
    assert ask_class(asked, 2, {"class": " 1 "}).label.tolist() == [1, 1]
    assert ask_class(asked, 2, {}).pixels.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"class": "3"}, "class 3 was never seen in training; the classes are 0 to 2"),
        ({"class": "0,-1"}, "class -1 was never seen"),
        ({"class": "spiral"}, "class 'spiral' is not a number"),
        ({"class": ""}, "class '' is not a number"),
        ({"redshift": "1"}, "drawn by class, not by redshift"),
    ],
)
def test_classes_that_cannot_be_drawn_are_refused(conditions, said):
    with pytest.raises(Refused, match=said):
        ask_class(ClassRecipe(side=16), 4, conditions)


def test_a_system_without_classes_refuses_to_be_asked_for_one():
    assert ask_nothing(ImageRecipe(side=16), 3, {}).label.tolist() == [-1, -1, -1]
    with pytest.raises(Refused, match="draws unconditionally"):
        ask_nothing(ImageRecipe(side=16), 3, {"class": "1"})


def test_sides_that_are_no_power_of_two_are_refused():
    with pytest.raises(ValueError, match="side 69 is not a power of two"):
        ImageRecipe(side=69)


def test_the_eight_ways_to_turn_a_square_are_eight_and_each_has_a_way_back():
    x = torch.arange(2 * 9.0).reshape(1, 2, 3, 3).expand(8, -1, -1, -1)
    turned = framing.turned(x, torch.arange(8))
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 8
    for image in turned:
        again = framing.turned(image.expand(8, -1, -1, -1), torch.arange(8))
        assert any(torch.equal(one, x[0]) for one in again)


def test_bytes_are_rounded_and_cut_at_black_and_white():
    assert framing.as_bytes(torch.tensor([-0.3, 0.0, 0.5 / 255, 0.6 / 255, 1.0, 1.7])).tolist() == [0, 0, 0, 1, 255, 255]


def test_parts_of_a_set_hold_all_of_it_in_order_and_a_spread_reaches_both_ends():
    images = Images(torch.zeros(700, 1, 64, 64, dtype=torch.uint8), torch.arange(700))
    parts = list(framing.blocks(images))
    assert max(len(part) * 64 * 64 for part in parts) <= framing.PIXELS_AT_ONCE
    assert torch.cat([part.label for part in parts]).tolist() == list(range(700))
    assert framing.spread(images, 3).label.tolist()[0::2] == [0, 699]
    assert framing.spread(images, 800) is images


def test_captions_name_the_class_where_there_is_one():
    assert framing.caption(Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([2, -1]))) == ["class 2", ""]
