"""Films of molecules: the eye stands still, the atoms move."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason="molecules need the extra chem")

from scipy.spatial.transform import Rotation

from simulacra.sciences.molecules import pictures
from simulacra.sciences.molecules.conformers import conformer
from simulacra.sciences.molecules.data import Molecule, Molecules, stacked

ANILINE = conformer("Nc1ccccc1", seed=0, largest=100)


def atoms(numbers, places):
    """Atoms without bonds."""
    k = len(numbers)
    return Molecule(np.array(numbers, np.uint8), np.array(places, np.float32), np.zeros(k, np.int8), np.zeros((k, k), np.int8))


def turned(molecule, rotation, shift=0.0):
    return Molecule(molecule.numbers, (rotation.apply(molecule.positions) + shift).astype(np.float32), molecule.charges, molecule.bonds)


def filmed(*frames):
    """Films of single molecules: (frames, side, side, 3)."""
    return np.stack([images[0] for images in pictures.film([stacked([molecule]) for molecule in frames])])


def middle_of_red(image):
    """Column and row of the middle of what is red, in pixels: oxygen."""
    red = (image[..., 0] - image[..., 2] > 0.3).nonzero()
    return np.array([red[1].mean(), red[0].mean()])


def test_a_molecule_that_does_not_move_is_the_same_in_every_frame():
    frames = filmed(*[ANILINE] * 3)
    assert (frames == frames[0]).all()
    assert frames.min() < 0.5


def test_a_molecule_that_turns_is_seen_to_turn_in_a_film_but_not_in_pictures():
    other = turned(ANILINE, Rotation.from_euler("zyx", [50, 70, 20], degrees=True))
    first, last = filmed(other, ANILINE)
    assert np.abs(first - last).mean() > 0.02
    alone, likewise = (pictures.picture(stacked([m]))[0] for m in (other, ANILINE))
    assert np.abs(alone - likewise).mean() < 2e-3


def test_the_last_frame_lies_as_its_picture_does():
    far = turned(ANILINE, Rotation.random(rng=1), shift=100.0)
    image, alone = filmed(far, far)[-1], pictures.picture(stacked([far]))[0]
    ends = [np.ptp((im.min(2) < 0.9).nonzero(), axis=1) / len(im) for im in (image, alone)]
    assert ends[0] == pytest.approx(ends[1], abs=0.02)
    where = [np.argwhere(im[..., 2] - im[..., 0] > 0.3).mean(0) / len(im) for im in (image, alone)]  # nitrogen
    assert where[0] == pytest.approx(where[1], abs=0.02)


def test_an_atom_that_moves_by_one_angstrom_moves_by_one_angstrom_of_the_picture():
    rest = [[-3, 0, 0], [3, 0.5, 0], [0.2, -2, 0.1]]
    before, after = (atoms([6, 6, 6, 8], [*rest, [x, 1.0, 0]]) for x in (-0.5, 0.5))
    view = pictures._view(after)
    there, then = (middle_of_red(image) for image in filmed(before, after))
    step = (view.turn @ [1.0, 0, 0])[:2] * [1, -1] * view.scale * pictures.FEW_SIDE
    assert then - there == pytest.approx(step, abs=0.6)
    assert np.linalg.norm(step) > 20


def test_what_does_not_move_stays_where_it_is_while_hydrogens_appear():
    heavy = ANILINE.numbers > 1
    bare = Molecule(ANILINE.numbers[heavy], ANILINE.positions[heavy], ANILINE.charges[heavy], ANILINE.bonds[np.ix_(heavy, heavy)])
    first, last = filmed(bare, ANILINE)
    blue = [(image[..., 2] - image[..., 0] > 0.3) for image in (first, last)]
    assert blue[0].sum() > 100
    assert (blue[0] & blue[1]).sum() > 0.9 * blue[0].sum()


@pytest.mark.parametrize("spread", [50.0, 1e6, 1e12])
def test_an_exploded_beginning_neither_fails_nor_shrinks_the_end_beyond_recognition(spread):
    places = np.random.default_rng(0).normal(size=ANILINE.positions.shape) * spread
    exploded = Molecule(ANILINE.numbers, places.astype(np.float32), ANILINE.charges, ANILINE.bonds)
    frames, alone = filmed(exploded, ANILINE), pictures.picture(stacked([ANILINE]))[0]
    assert np.isfinite(frames).all()
    assert frames.min() >= 0
    assert frames.max() <= 1
    width, expected = (np.ptp((im.min(2) < 0.9).nonzero()[1]) / len(im) for im in (frames[-1], alone))
    assert width == pytest.approx(expected / pictures.FURTHER, rel=0.05)


def test_a_beginning_that_spreads_a_little_is_not_cut():
    wide = Molecule(ANILINE.numbers, 1.2 * (ANILINE.positions - ANILINE.positions.mean(0)), ANILINE.charges, ANILINE.bonds)
    image = filmed(wide, ANILINE)[0]
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge == 1).all()


def test_rows_of_a_film_have_eyes_of_their_own_and_bonds_that_nobody_stated_are_drawn():
    three = [ANILINE, conformer("CCO", seed=0, largest=100), conformer("C#N", seed=0, largest=100)]
    no_bonds = [Molecule(m.numbers, m.positions, m.charges, None) for m in three]
    (known,), (unknown,) = (list(pictures.film([stacked(rows)])) for rows in (three, no_bonds))
    assert known.shape == (3, pictures.FILM_SIDE, pictures.FILM_SIDE, 3)
    assert np.abs(known[1:] - unknown[1:]).max() < 1e-6
    assert all(np.abs(a - b).mean() > 0.02 for a, b in itertools.combinations(known, 2))


def test_a_film_is_made_frame_by_frame_and_one_of_nothing_has_no_frames():
    assert list(pictures.film([])) == []
    nobody = Molecules.join([stacked([ANILINE])])[torch.zeros(0, dtype=torch.int64)]
    assert [images.shape[0] for images in pictures.film([nobody, nobody])] == [0, 0]
