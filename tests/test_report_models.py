"""Samples as models to be turned: the viewer lies in the page, is named by its digest, and obeys nothing that samples say."""

import base64
import dataclasses
import gzip
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from simulacra import movie, report
from simulacra.report import images, viewer
from test_report import HOSTILE, Seen, blank, judged, page

METHANOL = """methanol
  known geometry

  6  5  0  0  0  0  0  0  0  0999 V2000
   -0.3748    0.0000    0.0000 C   0  0
    1.0268    0.0000    0.0000 O   0  0
   -0.7400    1.0277    0.0000 H   0  0
   -0.7400   -0.5138    0.8900 H   0  0
   -0.7400   -0.5138   -0.8900 H   0  0
    1.3500    0.9000    0.0000 H   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
  1  5  1  0
  2  6  1  0
M  END
"""
WATER = "3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


@pytest.fixture(scope="module")
def with_models():
    pictures = np.random.default_rng(0).random((12, 32, 32, 3))
    return dataclasses.replace(
        page(dataclasses.replace(judged(count=20), remarks=[])), figures=(), rival_pictures=None, nature_pictures=pictures,
        drawn_pictures=pictures, captions=[f"{i} atoms" for i in range(12)], nature_models=[METHANOL] * 8, drawn_models=[WATER, METHANOL],
    )  # fmt: skip


@pytest.fixture(scope="module")
def shown(with_models):
    return report.render(with_models)


def test_the_library_is_the_published_one_with_its_licence_beside_it():
    folder = images.__file__.rpartition("/")[0]
    with open(f"{folder}/{viewer.LIBRARY}", "rb") as file:
        content = file.read()
    assert hashlib.sha256(content).hexdigest() == "f7cc78921ae72e7623e89cdd111434f58c2efddd2ffda1cd212644b406fb8016"  # npm: 3dmol 2.5.5
    with open(f"{folder}/{viewer.LICENCE}", encoding="utf-8") as file:
        assert "BSD-3-Clause" in file.read(200)


def test_the_page_holds_the_library_once_and_it_inflates_to_what_was_vendored(shown):
    packed = re.findall(r'<template id="viewer-library">(.*?)</template>', shown, flags=re.DOTALL)
    assert len(packed) == 1
    inflated = gzip.decompress(base64.b64decode(packed[0], validate=True))
    assert hashlib.sha256(inflated).hexdigest().startswith("f7cc78921ae7")
    assert len(packed[0]) < 0.4 * len(inflated)


def test_the_policy_allows_the_two_scripts_by_their_digest_and_nothing_else(shown):
    seen = Seen(shown)
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and a.get("http-equiv"))
    allowed = re.search(r"script-src ([^;]*);", policy)[1].split()
    inline = re.findall(r"<script>(.*?)</script>", shown, flags=re.DOTALL)
    library = gzip.decompress(base64.b64decode(re.search(r'<template id="viewer-library">(.*?)<', shown)[1]))
    digests = [base64.b64encode(hashlib.sha256(s).digest()).decode() for s in (inline[0].encode(), library)]
    assert allowed == [f"'sha256-{d}'" for d in digests]
    assert len(inline) == sum(tag == "script" for tag, _ in seen.tags) == 1
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)


def test_at_most_six_of_each_side_are_models_and_each_arrives_as_it_was(shown):
    found = [(a["data-format"], a["data-model"]) for _, a in Seen(shown).tags if "data-model" in a]
    assert found == [("sdf", METHANOL)] * 6 + [("xyz", WATER), ("sdf", METHANOL)]
    sides = re.findall(r'<div class="pictures">(.*?)</div>', shown, flags=re.DOTALL)
    assert [side.count('class="modelled"') for side in sides] == [6, 2]
    assert [side.count("<img") for side in sides] == [12, 12]  # all pictures stay in the page, for paper and where nothing can be turned


def test_what_a_model_says_is_shown_and_not_obeyed(with_models):
    nasty = [f"3\n</li></template></script>{HOSTILE}'\"><img src=x onerror=alert(1)>\nH 0 0 0\n"]
    seen = Seen(report.render(dataclasses.replace(with_models, nature_models=nasty)))
    assert next(a["data-model"] for _, a in seen.tags if "data-model" in a) == nasty[0]
    assert sum(tag == "script" for tag, _ in seen.tags) == 1
    assert all((a["src"] or "").startswith("data:") for tag, a in seen.tags if tag == "img")


def test_each_side_has_its_own_captions_where_they_say_what_a_row_is(with_models):
    own = [f"drawn row {i}" for i in range(12)]
    for drawn, same in (((), True), (with_models.captions, True), (own, False)):
        text = report.render(dataclasses.replace(with_models, drawn_captions=drawn))
        alternatives = [a["alt"] for t, a in Seen(text).tags if t == "img"]
        assert alternatives[:2] == ["held-out sample 1, 0 atoms", "held-out sample 2, 1 atoms"]
        assert alternatives[-1] == f"drawn sample 12, {(drawn or with_models.captions)[11]}"
        assert ("whose condition it was given" in text) == same
    with pytest.raises(ValueError, match="one per picture"):
        dataclasses.replace(with_models, drawn_captions=["one"])


def test_pages_without_models_hold_no_script_and_forbid_all(with_models, shown):
    text = report.render(dataclasses.replace(with_models, nature_models=(), drawn_models=()))
    assert "script" not in {tag for tag, _ in Seen(text).tags} | {text[text.index("Content-Security") :][:200]}
    assert "viewer-library" not in text
    assert "script-src" not in text
    assert len(shown.encode()) - len(text.encode()) < 240_000


def test_equal_pages_with_models_give_equal_bytes(with_models, shown):
    viewer.viewer.cache_clear()
    assert report.render(with_models) == shown


def film(count, side, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_a_movie_in_the_page_rests_and_has_a_still_for_paper_and_for_who_wants_no_motion():
    frames = film(5, 40)
    content = movie.gif_within(frames, 1_000_000)
    text = report.render(dataclasses.replace(blank(), figures=[report.Figure("A draw", "from noise", content)]))
    still = re.search(r'<source media="print, \(prefers-reduced-motion: reduce\)" srcset="data:image/png;base64,([^"]*)"', text)[1]
    with Image.open(io.BytesIO(content)) as opened:
        opened.seek(opened.n_frames - 1)
        last = np.asarray(opened.convert("RGB"))
        assert opened.info["duration"] > 1000
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(still))).convert("RGB")), last)
    png = report.Figure("A picture", "still", images.png(frames[0]))
    assert "<source" not in report.render(dataclasses.replace(blank(), figures=[png]))


def test_a_movie_is_thinned_and_shrunk_until_it_fits_and_keeps_its_ends():
    frames = film(60, 64)
    frames[0], frames[-1] = 0, 255
    for limit in (1_500_000, 400_000):
        content = movie.gif_within(frames, limit)
        assert len(content) <= limit
        with Image.open(io.BytesIO(content)) as opened:
            first = np.asarray(opened.convert("RGB"))
            opened.seek(opened.n_frames - 1)
            last = np.asarray(opened.convert("RGB"))
        assert (first.max(), last.min()) == (0, 255)
