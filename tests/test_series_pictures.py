"""Pictures of forecasts show what they are given: looked at as pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from scipy.special import ndtri

from simulacra.series import pictures
from simulacra.series.windows import Outlook, day_of

DAY = day_of("2015-06-30")


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def of_color(image, color):
    """Mask of the pixels of a colour, images as bytes or in [0, 1]."""
    image = np.asarray(image, float) * (255 if image.dtype != np.uint8 else 1)
    return np.abs(image - np.array(ImageColor.getrgb(color))).max(axis=-1) < 2


def rows(past, members):
    past = torch.as_tensor(np.asarray(past, np.float32)).reshape(1, -1, 1)
    future = torch.as_tensor(np.asarray(members, np.float32))[None]
    one = torch.ones(1, dtype=torch.int64)
    return Outlook(0 * one, DAY * one, one, past, future)


def forecast(centre, spread, horizon=10, members=99):
    return centre + spread * ndtri((np.arange(members) + 0.5) / members)[:, None] * np.ones(horizon)


def thumbnail(past, members, unit="°F"):
    return pictures.picture(rows(past, members), unit)[0]


def test_a_thumbnail_puts_the_median_where_the_scale_says():
    past = np.concatenate([[0.0], np.full(28, 50.0), [100.0]])  # the scale: 0 at the bottom of the frame, 100 at its top
    for centre in (30.0, 70.0):
        image = thumbnail(past, forecast(centre, 5.0))
        height = np.flatnonzero(of_color(image, pictures.MIDDLE).any(axis=1)).mean()
        assert height == pytest.approx(140 - 1.2 * centre, abs=1.5)


def test_a_thumbnail_of_a_forecast_has_a_band_as_wide_as_its_spread_and_nature_has_none():
    past = np.concatenate([[0.0], np.full(28, 50.0), [100.0]])
    inside = [of_color(thumbnail(past, forecast(50.0, s)), pictures.TINTS[0])[:, 220].sum() for s in (5.0, 10.0)]
    assert inside[1] == pytest.approx(2 * inside[0], rel=0.15)
    nature = thumbnail(past, forecast(50.0, 0.0, members=1))
    assert not any(of_color(nature, tint).any() for tint in pictures.TINTS)
    assert of_color(nature, pictures.MIDDLE).any()


def test_a_thumbnail_leaves_out_what_is_unknown():
    known = np.linspace(0, 1, 30)
    gap = np.where((np.arange(30) > 9) & (np.arange(30) < 20), np.nan, known)
    whole, broken = (of_color(thumbnail(p, forecast(0.5, 0.1)), pictures.INK) for p in (known, gap))
    assert 0.4 < broken.sum() / whole.sum() < 0.8
    alone = np.where(np.arange(30) == 15, 0.5, np.nan)
    assert of_color(thumbnail(alone, forecast(0.5, 0.1)), pictures.INK).any()


@pytest.mark.parametrize("members", [1, 2, 99])
@pytest.mark.parametrize("horizon", [1, 4])
def test_thumbnails_of_dull_or_missing_series_are_still_pictures(members, horizon):
    for past in (np.zeros(20), np.full(20, 1e9), np.full(20, np.nan), np.array([3.0])):
        image = thumbnail(past, np.full((members, horizon), 3.0))
        assert image.shape == (pictures.HEIGHT, pictures.WIDTH, 3)
        assert image.min() >= 0
        assert image.max() <= 1
    assert np.isfinite(thumbnail(np.zeros(20), np.full((1, horizon), np.nan))).all()


def fan(spread=5.0, truth=True, horizon=10):
    before, ahead = DAY + np.arange(-59, 1), DAY + np.arange(1, horizon + 1)
    came = np.full(horizon, 52.0) if truth else None
    return pixels(pictures.fan(before, np.full(60, 50.0), ahead, came, forecast(50.0, spread, horizon), "°F", "a fan"))


def test_a_fan_shows_three_bands_a_median_and_what_came():
    image = fan()
    assert all(of_color(image, tint).sum() > 300 for tint in pictures.TINTS)
    assert of_color(image, pictures.MIDDLE).sum() > 40
    assert not np.array_equal(image, fan(truth=False))
    one = fan(horizon=1)
    assert all(of_color(one, tint).any() for tint in pictures.TINTS)


def test_a_posterior_tells_the_curve_from_an_observation_by_the_noise():
    grid = DAY + np.arange(100.0)
    mean, sd = np.sin(grid / 9), np.full(100, 0.2)

    def tinted(noisy):
        png = pictures.posterior(grid[:60], mean[:60], grid, mean, sd, noisy, mean + sd * np.ones((3, 1)), "m", "posterior")
        return [of_color(pixels(png), tint).sum() for tint in (pictures.TINTS[0], pictures.TINTS[2])]

    (outer, inner), (hidden, whole) = tinted(3 * sd), tinted(sd)
    assert outer > 1.5 * inner
    assert hidden < 0.02 * whole + 400  # the legend's patch alone


def test_every_component_has_its_panel():
    days = DAY + np.arange(200.0)
    part = (np.sin(days / 30), np.full(200, 0.3))
    heights = [len(pixels(pictures.components(days, {f"part {i}": part for i in range(n)}, "°F", "sum"))) for n in (1, 3)]
    assert heights[1] - heights[0] == pytest.approx(2 * 1.5 * 120, abs=2)


def test_a_pit_histogram_promises_less_scatter_of_more_values():
    rng = np.random.default_rng(0)
    few, many = (of_color(pixels(pictures.pit_histogram(rng.random(n), "PIT")), pictures.TINTS[0]).sum() for n in (100, 10_000))
    assert few > 2 * many
    values = np.append(rng.random(100), np.nan)
    assert pictures.pit_histogram(values, "PIT") == pictures.pit_histogram(values[:-1], "PIT")


def test_skill_is_drawn_once_for_each_rival():
    skills = {name: np.array([[0.1, 0.0, 0.2], [0.05, -0.1, 0.1]]) + 0.01 * i for i, name in enumerate(("persistence", "climatology"))}
    image = pixels(pictures.skill_by_lead([1, 7], skills, "day", "skill"))
    assert all(of_color(image, color).sum() > 40 for color in pictures.RIVALS[:2])
    assert pixels(pictures.skill_by_lead([1], {"persistence": skills["persistence"][:1]}, "week", "skill")).shape[2] == 3
