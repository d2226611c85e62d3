"""Pictures of epidemics and of their forecasts: fans along a curve, and the posterior of the articles' process."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulacra.evidence import Figure
from simulacra.measures.scores import quantiles_of
from simulacra.sciences.epidemic import article
from simulacra.sciences.epidemic.data import name_of
from simulacra.series import pictures
from simulacra.series.windows import Outlook, as_series

Array = NDArray[np.float64]

TINTS = ("#bcd7ea", "#5b9bc8")  # 95 and 50 %: one hue, told apart by lightness
INK, MIDDLE = "#222222", "#b35900"
DRAWS = 5


def fans(nature: Outlook, drawn: Outlook) -> Figure:
    """Cases of each series with the forecasts from its origins in `drawn`: median, 50 and 95 % bands, on a logarithmic axis."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure as Canvas

    record = as_series(nature)
    height = 2.1 * len(record)  # inches
    canvas = Canvas(figsize=(8.5, height))
    canvas.subplots_adjust(left=0.1, right=0.86, top=1 - 0.3 / height, bottom=0.3 / height, hspace=0.45)
    panels = canvas.subplots(len(record), 1, squeeze=False)[:, 0]
    for axes, (code, (days, values)) in zip(panels, record.items(), strict=True):
        mine = drawn[drawn.series == code]
        shown = days >= int(mine.day.min()) - 84
        axes.plot(days[shown].astype("datetime64[D]"), np.maximum(values[shown, 0], 1), color=INK, lw=1, marker=".", ms=3, label="reported")
        for row, ends in enumerate(mine.target_days().numpy()):
            _fan(axes, ends.astype("datetime64[D]"), mine.future[row].T.double().numpy(), named=row == 0)
        locator = AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.set(yscale="log", ylabel="cases a week", title=name_of(code))
        axes.minorticks_off()  # they cost more than all else in the picture
    canvas.axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    caption = (
        f"Every forecast begins at the last week known to it and goes {drawn.horizon} weeks ahead. The largest series that were held out; "
        "the axis is logarithmic, so equal heights are equal ratios."
    )
    return Figure("Forecasts along the curves", caption, _png(canvas))


def _fan(axes: Any, ends: NDArray[np.datetime64], members: Array, named: bool) -> None:
    low, lower, middle, upper, high = np.maximum(quantiles_of(members, np.array([0.025, 0.25, 0.5, 0.75, 0.975])), 1).T
    for (a, b), tint, name in (((low, high), TINTS[0], "95 %"), ((lower, upper), TINTS[1], "50 %")):
        axes.fill_between(ends, a, b, color=tint, lw=0, label=name if named else "")
    axes.plot(ends, middle, color=MIDDLE, lw=1.4, label="median" if named else "")


def posteriors(record: Mapping[int, tuple[NDArray[np.int64], Array]]) -> list[Figure]:
    """The articles' process on each state that they showed, once each: samples, mean, draws, bands with and without the noise."""
    figures = []
    for setting in {s.code: s for s in article.PRINTED}.values():
        if setting.code not in record:
            continue
        days, cases = record[setting.code][0], record[setting.code][1][:, 0]
        at = article.sampled(len(cases), setting)
        if len(at) < 2 or not np.isfinite(cases).all():
            continue
        law, x = article.posterior(cases, len(cases), at, setting)
        x = x[: len(cases)]
        narrow, wide = (np.sqrt(np.maximum(law.variance(x, noise=noise), 0)) / setting.scale for noise in (False, True))
        draws = law.draw(x, DRAWS, np.random.default_rng(setting.code)) / setting.scale
        title = f"{setting.state}: {len(at)} samples every {setting.step} days, then {len(cases) - 1 - int(at[-1])} days without"
        image = pictures.posterior(days[at], cases[at], days, law.mean(x) / setting.scale, narrow, wide, draws, "cases a day", title)
        wrong = article.errors(cases, setting)
        caption = (
            f"Printed error {setting.printed:,.1f} cases a day; true error {wrong.everywhere:,.1f} over all days and {wrong.after:,.1f} "
            f"after the last sample, where carrying the last seven-day mean on errs by {wrong.carried:,.1f}. The noise variance of 0.005 "
            f"is in units of (1 / {setting.scale:g} cases)^2 and the same in every state."
        )
        figures.append(Figure(f"The articles' process: {setting.state}", caption, image))
    return figures


def _png(canvas: Any) -> bytes:
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
