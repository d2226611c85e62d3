"""Daily temperature by an exact Gaussian process whose kernel is learned: weather, slow drift, the yearly cycle, noise.

`paper`   the process of the article *Predicting Tomorrow's Temperature with RNNs and Gaussian Processes*: exponentiated quadratic plus
          periodic, nothing learned, every 5th or 15th day of a year shown. Its printed errors count the days that were shown; the
          report puts the days after the last sample, and forecasts that anybody could make, beside them.
`laptop`  ours: z = (T - mean) / scale(day of the year) follows Matern 1/2 (days) + Matern 3/2 (drift) + periodic (the year) + white
          noise; with `cycle` "changing" the year is periodic times Matern 1/2, so that it alters over decades. Lengthscales and
          variances maximise the likelihood of the training days; a step is one start of the optimiser, the best is kept. A forecast
          conditions exactly on the training days and on the last days before its origin, and holds for observations: the noise is
          in it.

docs/weather.md holds what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri
from torch import Tensor

from simulacra.descent import under
from simulacra.evidence import Check, Figure, Finding
from simulacra.families.gp import GaussianProcess, Kernel, Matern, Periodic, Posterior, White, fit, suggested_bounds
from simulacra.families.gp.statespace import State, StateSpace
from simulacra.sciences.weather import article, data, forecast, statistics
from simulacra.sciences.weather.climate import Climate
from simulacra.sciences.weather.data import WeatherRecipe
from simulacra.series import windows
from simulacra.series.windows import YEAR, Outlook, as_series, stratified
from simulacra.study import Noise, Refused, Split, Study

Array = NDArray[np.float64]

LABELS = {"matern 1/2": "weather of days", "matern 3/2": "drift", "periodic": "yearly cycle", "product": "yearly cycle, changing"}
SHOWN = 365  # days before and after the last training day in the pictures of the posterior


class GPRecipe(WeatherRecipe):
    """What is learned, from how much of the record, and how much of the past a forecast sees."""

    model: Literal["learned", "article"] = Field("learned", description="Learned kernel, or the article's fixed one on its own data.")
    fitted_years: float = Field(30.0, gt=0, le=300, description="Last years of training whose likelihood chooses the kernel.")
    window: int = Field(60, ge=1, le=3000, description="Days before the origin that a forecast conditions on, besides the training days.")
    evaluations: int = Field(200, ge=2, le=10_000, description="Most evaluations of the likelihood from one start of the optimiser.")
    cycle: Literal["steady", "changing"] = Field("steady", description="A yearly cycle that repeats, or one that decays into another.")
    decay: float = Field(40.0, gt=0, le=1000, description="Years over which a changing cycle changes, to start from; then learned.")


def kernel_of(recipe: GPRecipe) -> Kernel:
    """The kernel that the optimiser starts from, for departures of variance about one, in days."""
    weather = Matern(0.5, variance=0.7, lengthscale=3.0)
    drift = Matern(1.5, variance=0.02, lengthscale=400.0)
    cycle = Periodic(variance=3.0, lengthscale=1.5, period=YEAR, fixed=("period",))
    changing = Matern(0.5, variance=1.0, lengthscale=recipe.decay * YEAR, fixed=("variance",))
    return weather + drift + (cycle if recipe.cycle == "steady" else cycle * changing) + White(0.05)


class TemperatureGP:
    """One kernel for each station, and the state that its training days leave behind."""

    def __init__(self, recipe: GPRecipe, climate: Climate, record: Mapping[int, tuple[NDArray[np.int64], Array]]) -> None:
        self.recipe, self.climate, self.record = recipe, climate, record
        self.start = kernel_of(recipe)
        stations = len(climate.stations)
        self.theta = np.tile(self.start.theta(), (stations, 1))
        self.likelihood = np.full(stations, -np.inf)  # in nats
        self.states: dict[int, State] = {}
        self.count = 0

    def step(self, batch: Outlook) -> Mapping[str, float]:
        """One start of the optimiser for each station: first the kernel as it is, then others at random; the best is kept."""
        before = self.likelihood.copy()
        for index, number in enumerate(self.climate.stations.tolist()):
            t, z = self._fitted_days(number)
            theta = self._from(t, z)
            found = fit(GaussianProcess(self.start.at(theta)), t, z, evaluations=self.recipe.evaluations)
            if found.log_likelihood > self.likelihood[index]:
                self.theta[index], self.likelihood[index] = found.gp.kernel.theta(), found.log_likelihood
        self.count += 1
        if not np.array_equal(before, self.likelihood):
            self.states = {}
        if self.count == self.recipe.steps:
            self.settle()
        return {"log-likelihood": float(self.likelihood.sum())}

    def _from(self, t: Array, z: Array) -> Array:
        """Where the coming start begins."""
        first = self.start.theta()
        if self.count == 0:
            return first
        limits = np.log(list(suggested_bounds(self.start, t, z[np.isfinite(z)]).values()))
        moved = first + np.random.default_rng([self.recipe.seed, self.count]).normal(0, 1, len(first))
        return np.asarray(np.clip(moved, limits[:, 0], limits[:, 1]))

    def _fitted_days(self, number: int) -> tuple[Array, Array]:
        t, z = self.departures(number)
        recent = t > t[-1] - self.recipe.fitted_years * YEAR
        return t[recent], z[recent]

    def departures(self, number: int) -> tuple[Array, Array]:
        """Training days of a station and its standardised temperatures, NaN where missing."""
        days, values = self.record[number]
        return days.astype(float), (values[:, 0] - self._mean(number)) / self._scale(number, days[None])[0]

    def _mean(self, number: int) -> float:
        row = self.climate.row(torch.tensor([number]))
        return float(self.climate.centre[row, 0, 0])

    def _scale(self, number: int, days: NDArray[np.int64]) -> Array:
        scale = self.climate.normal(torch.full((len(days),), number), torch.as_tensor(days))[1]
        return scale.double().numpy()

    def kernel(self, index: int) -> Kernel:
        """The kernel of the station at this place of `climate.stations`."""
        return self.start.at(self.theta[index])

    def settle(self) -> None:
        """Condition every station's process on all its training days."""
        for index, number in enumerate(self.climate.stations.tolist()):
            if number not in self.states:
                t, z = self.departures(number)
                self.states[number] = StateSpace.of(self.kernel(index)).filtered(t, z)

    def posterior(self, number: int, since: float = -np.inf) -> Posterior:
        """The process of a station given its training days after the day `since`, in standardised temperatures."""
        t, z = self.departures(number)
        kernel = self.kernel(self.climate.stations.tolist().index(number))
        return GaussianProcess(kernel).condition(t[t > since], z[t > since])

    def law(self, like: Outlook) -> tuple[Array, Array]:
        """Mean (n, H) and covariance (n, H, H) of the observations ahead."""
        self.settle()
        mean, covariance = np.empty((len(like), like.horizon)), np.empty((len(like), like.horizon, like.horizon))
        known = self.climate.stations.tolist()
        for number in np.unique(like.series.numpy()).tolist():
            if number not in known:
                raise Refused(f"station {number} was not trained on; this run knows {', '.join(map(str, known))}")
            rows = np.flatnonzero(like.series.numpy() == number)
            mean[rows], covariance[rows] = self._law_of(number, like[torch.as_tensor(rows)])
        return mean, covariance

    def _law_of(self, number: int, rows: Outlook) -> tuple[Array, Array]:
        kernel = self.kernel(self.climate.stations.tolist().index(number))
        width = min(self.recipe.window, rows.past.shape[1])
        past = rows.past[:, -width:, 0].double().numpy()
        seen = (past - self._mean(number)) / self._scale(number, rows.past_days()[:, -width:].numpy())
        last = rows.day.double().numpy()
        z, cov = StateSpace.of(kernel).forecasts(self.states[number], seen, last, float(rows.every[0]), rows.horizon)
        scale = self._scale(number, rows.target_days().numpy())
        cov = cov + kernel.noise() * np.eye(rows.horizon)
        return self._mean(number) + scale * z, scale[:, :, None] * cov * scale[:, None, :]

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        return paths(like, *self.law(like), noise, self.recipe.members)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"theta": torch.as_tensor(self.theta), "likelihood": torch.as_tensor(self.likelihood), "count": torch.tensor(self.count)}
        for number, known in self.states.items():
            for name, value in (("mean", known.mean), ("covariance", known.covariance), ("time", known.time)):
                state[f"state.{number}.{name}"] = torch.as_tensor(np.asarray(value, float))
        return state | {f"climate.{k}": v for k, v in self.climate.state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.theta, self.likelihood = state["theta"].numpy().copy(), state["likelihood"].numpy().copy()
        self.count, self.states = int(state["count"]), {}
        self.climate = Climate.from_state(under(state, "climate"))
        for number in self.climate.stations.tolist():
            if kept := under(state, f"state.{number}"):
                self.states[number] = State(kept["mean"].numpy(), kept["covariance"].numpy(), float(kept["time"]))


class ArticleGP:
    """The article's processes: nothing is learned, and each row is conditioned on the samples that it holds."""

    def __init__(self, recipe: GPRecipe) -> None:
        self.recipe, self.count = recipe, 0

    def step(self, batch: Outlook) -> Mapping[str, float]:
        self.count += 1
        return {}

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        laws = [self._law(like[[i]]) for i in range(len(like))]
        mean, covariance = (np.stack([law[i] for law in laws]) for i in (0, 1))
        return paths(like, mean, covariance, noise, self.recipe.members)

    def _law(self, row: Outlook) -> tuple[Array, Array]:
        past, days = row.past[0, :, 0].double().numpy(), row.past_days()[0].numpy()
        seen = np.isfinite(past)
        posterior = article.conditioned(int(row.series[0]), days[seen].astype(float), past[seen])
        ahead = article.times(row.target_days()[0].numpy().astype(float))
        return 10 * posterior.mean(ahead), 100 * posterior.covariance(ahead, noise=True)

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.count = int(state["count"])


def paths(like: Outlook, mean: Array, covariance: Array, noise: Noise, members: int) -> Outlook:
    """Members of Gaussian laws with mean (n, H) and covariance (n, H, H): evenly spread at each period, joined as the covariance says."""
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / (spread[:, :, None] * spread[:, None, :]) + 1e-9 * np.eye(mean.shape[1])
    normal = noise.normal(members, mean.shape[1]).double().numpy() @ np.linalg.cholesky(correlation).transpose(0, 2, 1)
    levels = stratified(torch.as_tensor(normal)).numpy()
    return like.with_future(torch.as_tensor(mean[:, None] + spread[:, None] * ndtri(levels)))


def load(recipe: GPRecipe) -> Split[Outlook]:
    """The recipe's stations, or the article's samples. A station without a day of training has no process, and is left out."""
    if recipe.model == "article":
        return article.sampled_years(recipe)
    split = data.load(recipe)
    known = split.train.series.unique()  # type: ignore[no-untyped-call]
    tuned, judged = (torch.isin(rows.series, known) for rows in (split.validation, split.held_out))
    if bool(tuned.all()) and bool(judged.all()):
        return split
    if not (bool(tuned.any()) and bool(judged.any())):
        raise Refused("no station has days of training, of tuning and of judging: move --train-until and --tune-until")
    late = sorted({*split.validation.series[~tuned].tolist(), *split.held_out.series[~judged].tolist()})
    said = f"{split.origin} Not forecast, for training holds no day of them: stations {', '.join(map(str, late))} (counted from 0)."
    return dataclasses.replace(split, validation=split.validation[tuned], held_out=split.held_out[judged], origin=said)


def build(recipe: GPRecipe, training: Outlook) -> Any:
    """The learner of `recipe`; normals and departures come from the training rows."""
    if recipe.model == "article":
        return ArticleGP(recipe)
    return TemperatureGP(recipe, Climate.fitted(training), as_series(training))


def restore(recipe: GPRecipe, state: Mapping[str, Tensor]) -> Any:
    """A learner that draws, from its state alone."""
    if recipe.model == "article":
        learner: Any = ArticleGP(recipe)
    else:
        learner = TemperatureGP(recipe, Climate.from_state(under(state, "climate")), {})
    learner.load_state_dict(state)
    return learner


def ask(recipe: GPRecipe, n: int, conditions: Mapping[str, str]) -> Outlook:
    """A template of n forecasts from one origin: the last of the record, or `origin`."""
    return forecast.ask(recipe, n, conditions)


def examine(learner: Any, split: Split[Outlook], seed: int) -> tuple[list[Finding], list[Check]]:
    """For the article's process: its own score of each series, and what it leaves out."""
    return [], article.gp_checks(learner.recipe.data) if isinstance(learner, ArticleGP) else []


def figures(learner: Any, split: Split[Outlook], seed: int) -> list[Figure]:
    """Fans of held-out origins; the end of the training days with the posterior, its draws and both bands; what the mean is made of."""
    if isinstance(learner, ArticleGP):
        return list(_article_figures(learner, seed))
    return [*forecast.figures(learner, split, seed), *_posterior_figures(learner, split, seed)]


def _posterior_figures(learner: TemperatureGP, split: Split[Outlook], seed: int) -> Iterator[Figure]:
    from simulacra.series import pictures

    number, unit = int(learner.climate.stations[0]), forecast.unit_of(learner.recipe)
    known = learner.record[number]
    came = as_series(split.validation[split.validation.series == number]).get(number, (known[0][:0], known[1][:0]))
    last = int(known[0][-1])
    posterior = learner.posterior(number, last - 10 * YEAR)
    days = np.arange(last - SHOWN, last + SHOWN + 1)
    centre, scale, t = learner._mean(number), learner._scale(number, days[None])[0], days.astype(float)
    slow = list(posterior.parts())[1:]  # without the weather of days
    curve = scale * np.sqrt(sum(posterior.variance(t, part=part) for part in slow))
    draws = centre + scale * posterior.draw(t, 2, np.random.default_rng(seed), noise=True)
    shown = np.isin(days, known[0]), np.isin(days, came[0]) & (days > last)
    seen = np.concatenate([known[1][np.isin(known[0], days), 0], came[1][np.isin(came[0], days[shown[1]]), 0]])
    yield Figure(
        "The last year of training, and a year ahead",
        "Posterior mean; bands of 95 %: of cycle and drift alone, and of an observation, with the weather of days and the noise. Dots "
        f"after {windows.date_of(last)} were not known.",
        pictures.posterior(
            np.concatenate([days[s] for s in shown]), seen, days, centre + scale * posterior.mean(t), curve,
            scale * np.sqrt(posterior.variance(t, noise=True)), draws, unit, f"series {number}, known to {windows.date_of(last)}",
            "draws of observations",
        ),
    )  # fmt: skip
    before = days[days <= last]
    t, scale = before.astype(float), scale[days <= last]
    parts = {
        LABELS[label]: (scale * posterior.mean(t, part=label), scale * np.sqrt(posterior.variance(t, part=label)))
        for label in posterior.parts()
    }
    about = "Means and 95 % bands of the terms of the kernel; they add up to the departure from the mean of all years."
    yield Figure("What the temperature is made of", about, pictures.components(before, parts, unit, f"series {number}"))


def _article_figures(learner: ArticleGP, seed: int) -> Iterator[Figure]:
    from simulacra.series import pictures

    series, _ = article.series_in(learner.recipe.data)
    days = np.arange(article.SCORED)
    t = article.times(days.astype(float))
    for number in (article.AVERAGE, 0, 4):
        samples = article.SETTINGS[number].samples
        posterior = article.conditioned(number, samples.astype(float), series[number][samples])
        latent, noisy = (10 * np.sqrt(posterior.variance(t, noise=noise)) for noise in (False, True))
        draws = 10 * posterior.draw(t, 3, np.random.default_rng(seed))
        name = "Mean of all six" if number == article.AVERAGE else f"Series {number}"
        image = pictures.posterior(
            days, series[number][: article.SCORED], days, 10 * posterior.mean(t), latent, noisy, draws, article.UNIT,
            f"{name}: {len(samples)} samples to day {samples[-1]}",
        )  # fmt: skip
        yield Figure(f"{name}, as in the article", "The article's band is that of the function, without the noise.", image)


study = Study(
    title="Gaussian process for daily temperature",
    source=(
        "Article 'Predicting Tomorrow's Temperature with RNNs and Gaussian Processes'; Rasmussen & Williams 2006, ISBN "
        "978-0-262-18253-9; state space: Hartikainen & Särkkä 2010, doi:10.1109/MLSP.2010.5589113"
    ),
    recipes={
        "quick": GPRecipe(steps=2, batch=1, horizon=7, fitted_years=3, draws=300),
        "laptop": GPRecipe(steps=4, batch=1, draws=20_000),
        "paper": GPRecipe(model="article", steps=1, batch=1, horizon=1, draws=20_000),
    },
    expect={
        "quick": "about 27 s of processor time on one core",
        "laptop": "5 min on one thread of a busy 2-core machine, 70 years of one station, four starts",
        "paper": "under a minute",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=forecast.read,
    write=windows.write,
    ask=ask,
    picture=forecast.picture,
    caption=forecast.caption,
    examine=examine,
    figures=figures,
    restore=restore,
    conditions=forecast.CONDITIONS,
    formats=forecast.FORMATS,
    export=forecast.export,
    summary=forecast.summary,
)  # fmt: skip
