"""Galaxies mended: how images are broken, interpolation in closed form, the judge, files and masks of users, what is learned."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from simulacra import pipeline
from simulacra.sciences.galaxies import data, masked, mending, simulate
from simulacra.sciences.galaxies.data import Images
from simulacra.sciences.galaxies.mending import BREAKS, Mended
from simulacra.study import Refused, Split

CPU = torch.device("cpu")
SMALL = masked.study.recipes["quick"].model_copy(update={"steps": 40, "device": "cpu"})


@pytest.fixture(scope="module")
def galaxies():
    pytest.importorskip("galsim")
    images = simulate.simulate(360, 32, seed=3)
    broken = mending.broken(images[240:], 5, patch=4, share=0.75, kinds=range(3))
    return Split(mending.whole(images[:240]), broken[:24], broken[24:], "simulated")


@pytest.fixture(scope="module")
def learner(galaxies):
    torch.manual_seed(0)
    learner = masked.build(SMALL, galaxies.train)
    for step in range(SMALL.steps):
        torch.manual_seed(step)
        learner.step(galaxies.train[torch.randint(240, (32,))])
    return learner


def mended_by(learner, images):
    return pipeline.draw_like(learner, images, seed=0, device=CPU)


def flat(side=32, n=6, value=100):
    return Images(torch.full((n, 3, side, side), value, dtype=torch.uint8), torch.full((n,), -1))


# -------------------------------------------------------------------------------------------------------------- breaks


def test_a_trail_is_a_straight_band_of_three_to_nine_pixels():
    u = torch.rand(200, 9, generator=torch.Generator().manual_seed(0))
    hidden = mending.trails(u, 64)
    assert hidden.flatten(1).any(1).all()
    for row, mask in zip(u[:20], hidden, strict=False):
        angle = math.pi * float(row[0])
        y, x = mask.nonzero().T - 31.5
        away = x * math.sin(angle) - y * math.cos(angle)
        assert away.std() == pytest.approx((3 + 6 * float(row[2])) / math.sqrt(12), rel=0.12)
        assert away.mean() == pytest.approx((float(row[1]) - 0.5) * 32, abs=0.6)


def test_columns_are_whole_and_rows_are_columns_turned():
    u = torch.rand(200, 9, generator=torch.Generator().manual_seed(1))
    hidden = mending.columns(u, 64)
    down = u[:, 0] < 0.5
    assert torch.equal(hidden[down].all(1), hidden[down].any(1))
    assert torch.equal(hidden[~down].all(2), hidden[~down].any(2))
    counts = torch.cat([hidden[down].any(1).sum(1), hidden[~down].any(2).sum(1)])
    assert counts.min() >= 1
    assert 12 <= counts.max() <= 16


def test_an_image_is_broken_alike_in_a_set_of_any_size_and_the_breaks_take_turns():
    many, few = (mending.broken(flat(n=n), 7, patch=4, share=0.75, kinds=range(3)) for n in (9, 4))
    assert torch.equal(many.hidden[:4], few.hidden)
    assert many.kind.tolist() == [0, 1, 2] * 3
    assert many.hidden[0].float().mean() == 0.75
    assert not torch.equal(many.hidden[0], many.hidden[3])
    assert not torch.equal(many.hidden, mending.broken(flat(n=9), 8, patch=4, share=0.75, kinds=range(3)).hidden)


# ------------------------------------------------------------------------------------------------------- interpolation


def test_interpolation_is_exact_where_theory_says_so():
    y, x = np.mgrid[:24, :24].astype(float)
    hidden = np.zeros((1, 24, 24), bool)
    hidden[0, 8:15, 9:13] = True
    plane, saddle, cubic = 3 + 2 * x - y, x**2 - y**2, x**3 + 2 * y**2 * x
    for rule, exact in ((mending.harmonic, plane), (mending.harmonic, saddle), (mending.biharmonic, cubic)):
        assert np.allclose(rule(np.where(hidden, -99, exact)[:, None], hidden)[0, 0], exact)
    level = mending.visible_mean(np.where(hidden, -99, np.full_like(x, 7.0))[:, None], hidden)
    assert np.allclose(level, 7)


def test_the_harmonic_fill_of_a_dead_column_is_linear_interpolation_between_its_sides_where_nothing_changes_along_it():
    x = np.tile(np.random.default_rng(0).random(24), (24, 1))
    hidden = np.zeros((1, 24, 24), bool)
    hidden[0, :, 10:13] = True
    known = [c for c in range(24) if not 10 <= c < 13]
    assert np.allclose(mending.harmonic(x[None, None], hidden)[0, 0], np.interp(np.arange(24), known, x[0, known]))


# ---------------------------------------------------------------------------------------------------------------- judge


def test_the_judge_gives_the_truth_no_error_and_the_rival_a_gap_of_one(galaxies):
    nature = galaxies.held_out
    filled = mending.harmonic(nature.pixels.numpy().astype(float), nature.hidden.numpy())
    rival = dataclasses.replace(nature, pixels=torch.from_numpy(np.rint(filled.clip(0, 255)).astype(np.uint8)))
    for drawn, gap in ((nature, 0.0), (rival, 1.0)):
        evidence = mending.judge(nature, drawn, seed=0)
        assert len(evidence.findings) == 7
        for finding in evidence.findings:
            assert finding.floor < finding.ceiling
            assert finding.distance == pytest.approx(gap * finding.ceiling, rel=1e-6)
            assert finding.gap_low <= finding.gap <= finding.gap_high
    assert [f.name for f in evidence.findings[:3]] == [f"error, {name}" for name in BREAKS]


def test_the_judge_knows_the_noise_and_sees_what_should_not_have_been_touched():
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(np.rint(100 + 5 * rng.standard_normal((30, 3, 32, 32))).astype(np.uint8))
    nature = mending.broken(Images(pixels, torch.full((30,), -1)), 0, patch=4, share=0.75, kinds=(0,))
    level = dataclasses.replace(nature, pixels=torch.full_like(pixels, 100))
    evidence = mending.judge(nature, level, seed=0)
    error = evidence.findings[0]
    assert error.floor == pytest.approx((5 / 255) ** 2, rel=0.1)
    assert error.distance == pytest.approx((25 + 1 / 12) / 255**2, rel=0.03)
    assert evidence.checks[0].value == pytest.approx(-10 * math.log10(25 / 255**2), abs=0.15)
    assert any("Visible pixels were changed" in line for line in evidence.remarks)
    untouched = dataclasses.replace(nature, pixels=torch.where(nature.hidden[:, None], level.pixels, pixels))
    assert not any("Visible" in line for line in mending.judge(nature, untouched, seed=0).remarks)


def test_what_cannot_be_judged_is_refused(galaxies):
    with pytest.raises(Refused, match="row i of both files"):
        mending.judge(galaxies.held_out, galaxies.held_out[:5], seed=0)
    with pytest.raises(Refused, match="hidden pixels of at least"):
        mending.judge(galaxies.train[:30], galaxies.train[:30], seed=0)


# ------------------------------------------------------------------------------------------------------------- reading


def test_masks_survive_their_file(tmp_path, galaxies):
    mending.write(galaxies.held_out, tmp_path / "broken.npz")
    again = mending.read(tmp_path / "broken.npz")
    assert all(torch.equal(value, again.fields()[name]) for name, value in galaxies.held_out.fields().items())
    data.write(galaxies.held_out, tmp_path / "plain.npz")
    assert not mending.read(tmp_path / "plain.npz").hidden.any()


def test_a_folder_of_pictures_is_mended_where_the_mask_says(tmp_path, learner, galaxies):
    (tmp_path / "broken").mkdir()
    shown = galaxies.held_out[:4]
    for i, image in enumerate(torch.where(shown.hidden[:, None], 0, shown.pixels)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "broken" / f"{i}.png")
    np.savez(tmp_path / "mask.npz", hidden=shown.hidden.numpy())
    asked = {"mend": str(tmp_path / "broken"), "mask": str(tmp_path / "mask.npz")}
    like = masked.ask(SMALL, 64, asked)
    assert len(like) == 4
    mended = mended_by(learner, like)
    assert torch.equal(mended.pixels, mended_by(learner, shown).pixels)
    assert masked.study.caption(mended)[1].startswith("own mask")
    assert "of the pixels of 4 images" in masked.study.summary(like, mended)[0]


def test_a_mask_is_cropped_and_shrunk_with_its_images_and_hides_all_that_it_reaches(tmp_path):
    recipe = SMALL.model_copy(update={"crop": 64.0})
    hidden = np.zeros((70, 66), bool)
    hidden[3 + 21, 1 + 40] = True  # the central 64 px begin at row 3, column 1
    np.savez(tmp_path / "x.npz", images=np.full((2, 70, 66, 3), 9, np.uint8), hidden=hidden)
    found = masked.ask(recipe, 1, {"mend": str(tmp_path / "x.npz")})
    assert found.hidden.shape == (2, 32, 32)
    assert found.hidden[1].nonzero().tolist() == [[10, 20]]
    uneven = masked.ask(recipe.model_copy(update={"crop": None}), 1, {"mend": str(tmp_path / "x.npz")})
    assert 9 <= uneven.hidden[0].sum() <= 16  # resampled over more than the pixels that it covers


def test_what_cannot_be_mended_is_refused_in_words(tmp_path):
    images = np.full((2, 32, 32, 3), 9, np.uint8)
    np.savez(tmp_path / "plain.npz", images=images)
    np.savez(tmp_path / "short.npz", images=images, hidden=np.ones((3, 32, 32), bool))
    np.savez(tmp_path / "none.npz", images=images, hidden=np.zeros((2, 32, 32), bool))
    np.savez(tmp_path / "small.npz", images=images, hidden=np.ones((2, 16, 16), bool))
    for file, words in (("plain", "no array `hidden`"), ("short", "expected bool"), ("none", "nothing to mend"), ("small", "cannot cover")):
        with pytest.raises(Refused, match=words):
            masked.ask(SMALL, 1, {"mend": str(tmp_path / f"{file}.npz")})
    with pytest.raises(Refused, match="--mend"):
        masked.ask(SMALL, 1, {"mask": str(tmp_path / "short.npz")})
    with pytest.raises(Refused, match="mended, not drawn under class"):
        masked.ask(SMALL, 1, {"class": "1"})
    with pytest.raises(Refused, match="true where hidden"):
        dataclasses.replace(mending.whole(flat()), hidden=torch.zeros(6, 32, 16, dtype=torch.bool))


@pytest.mark.parametrize("wrong", [{"patch": 6}, {"patch": 32}, {"width": 30}, {"heads": 5}, {"k2": 0.0}])
def test_networks_that_cannot_be_built_are_refused(wrong):
    with pytest.raises(ValueError, match=r"patch|width|k2"):
        masked.MaskedRecipe.model_validate({**SMALL.model_dump(), **wrong})


# ------------------------------------------------------------------------------------------------------------- learned


def test_it_mends_better_than_interpolation_and_leaves_the_rest(learner, galaxies):
    mended = mended_by(learner, galaxies.held_out)
    assert torch.equal(torch.where(mended.hidden[:, None], galaxies.held_out.pixels, mended.pixels), galaxies.held_out.pixels)
    gaps = {f.name: f.gap for f in mending.judge(galaxies.held_out, mended, seed=0).findings}
    assert gaps["error, patches"] < 0.5
    assert gaps["error, trail"] < 1
    assert gaps["error, columns"] < 1


def test_it_is_not_told_what_is_hidden(learner, galaxies):
    spoilt = dataclasses.replace(galaxies.held_out, pixels=torch.where(galaxies.held_out.hidden[:, None], 255, galaxies.held_out.pixels))
    assert torch.equal(mended_by(learner, spoilt).pixels, mended_by(learner, galaxies.held_out).pixels)


def test_a_satellite_trail_is_taken_out(learner, galaxies):
    clean = galaxies.held_out[:24]
    crossed = simulate.satellite_trail(clean, seed=2).pixels
    hidden = (crossed.int() - clean.pixels.int()).abs().amax(1) > 1
    mended = mended_by(learner, Mended(crossed, clean.label, hidden, torch.full((24,), -1)))
    errors = [float(((p.float() - clean.pixels.float()) ** 2).mean()) for p in (crossed, mended.pixels)]
    assert errors[1] < 0.02 * errors[0]


def test_learning_lowers_the_error_of_its_start(learner, galaxies):
    (patches, *_), = masked.examine(learner, galaxies, 0)[1:]
    assert patches.value < patches.beside["smooth start"]


def test_a_restored_mender_mends_the_same(learner, galaxies):
    again = masked.restore(SMALL, learner.state_dict())
    assert torch.equal(mended_by(again, galaxies.held_out).pixels, mended_by(learner, galaxies.held_out).pixels)


def test_without_a_start_and_in_grey_it_learns_too(galaxies):
    grey = Images(galaxies.train.pixels.float().mean(1, keepdim=True).to(torch.uint8), galaxies.train.label)
    recipe = SMALL.model_copy(update={"rounds": 0, "colour": False, "partial": 0.0, "steps": 30})
    torch.manual_seed(0)
    learner = masked.build(recipe, grey)
    losses = [float(learner.step(mending.whole(grey[torch.arange(step, step + 32)]))["loss"]) for step in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_papers_network_is_the_one_called_base():
    paper = masked.study.recipes["paper"]
    with torch.device("meta"):
        net = masked.network(paper, torch.zeros(3, 128, 128), torch.ones(()), None)
    blocks = sum(p.numel() for p in net.encoder.parameters())
    assert blocks == 12 * (12 * 768**2 + 13 * 768) + 2 * 768  # of ViT-B: attention and dense layers, norms, biases
    small = masked.study.recipes["laptop"]
    net = masked.network(small, torch.zeros(3, 64, 64), torch.ones(()), None)
    assert sum(p.numel() for p in net.parameters()) < 2_000_000


def test_figures_show_broken_interpolated_mended_and_true(learner, galaxies):
    (figure,) = masked.figures(learner, galaxies, 0)
    assert figure.image.startswith(b"\x89PNG")
    assert masked.study.picture(galaxies.held_out[:2]).shape == (2, 32, 64, 3)
