"""Tomorrow's temperature, and the next fortnight's, by a recurrent network that says how sure it is.

`paper`   the network of the article *Predicting Tomorrow's Temperature with RNNs and Gaussian Processes*: LSTM 1-100-1, windows of 7
          days, batches of one, trained on the mean of six Skagit series and on one of them. It gives one number, not a law, and it was
          never held against "tomorrow as today": this is done here.
`laptop`  ours: an ensemble of LSTMs that see departures from the station's normals (climate.py), minimum temperature and rain where
          there are any, and the time of the year. For each day ahead they give quantiles of the departure, trained on the pinball
          loss, whose mean over levels is half the CRPS (Gneiting & Raftery 2007). They start from a linear regression whose
          coefficients change over the year, and learn what it misses. Paths join the quantiles of all days by a Gaussian copula
          (Clark et al. 2004, doi:10.1175/1525-7541(2004)005<0243:TSSAMF>2.0.CO;2, use ranks of past years for the same end).

docs/weather.md holds what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from simulacra.descent import Descent, under
from simulacra.evidence import Check, Figure, Finding
from simulacra.nets.recurrent import LastState, LastStateThenDense
from simulacra.sciences.weather import article, data, forecast, statistics
from simulacra.sciences.weather.climate import Climate
from simulacra.sciences.weather.data import WeatherRecipe
from simulacra.series import windows
from simulacra.series.windows import Outlook, stratified
from simulacra.study import Noise, Refused, Split, Study

LEVELS = (0.01, 0.025, *(round(0.05 * k, 2) for k in range(1, 20)), 0.975, 0.99)
MIDDLE = len(LEVELS) // 2
HELD = 4096  # training rows from which the dependence between days ahead is estimated
RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)  # squared coefficients of the regression count as much as so many days
FEWEST = 30  # steps that learn, however few the rows
BLOCKS = 8  # stretches of the training rows that are left out in turn to choose among them


class LSTMRecipe(WeatherRecipe):
    """The network, what it starts from and how it is trained."""

    network: Literal["quantile", "article"] = Field("quantile", description="Quantiles of the days ahead, or the article's 1-100-1.")
    window: int = Field(5, ge=1, le=400, description="Days before the origin that the network sees.")
    hidden: PositiveInt = Field(64, description="Hidden units of each LSTM.")
    ensemble: int = Field(6, ge=1, le=64, description="Networks whose quantiles are averaged.")
    start: Literal["regression", "persistence", "climatology"] = Field(
        "regression", description="Forecast whose error is learned: seasonal linear regression, today's departure, or the normal."
    )
    lags: int = Field(5, ge=1, le=30, description="Days that the regression sees.")
    head: Literal["quantile", "gaussian"] = Field("quantile", description="Free quantiles, or a normal law with its own spread each day.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Share of hidden numbers that are silenced in training.")
    passes: float = Field(14.0, gt=0, le=1000, description="Most passes over the training rows; steps after the last change nothing.")
    jitter: float = Field(0.05, ge=0, le=1, description="Noise added to departures in training, in their standard deviations.")
    lr: float = Field(3e-3, gt=0, le=0.1, description="Adam's learning rate; falls to 0 on a half cosine (article: stays).")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Pull of the weights towards 0, of AdamW.")


class QuantileLSTM:
    """An ensemble that forecasts quantiles of standardised departures for each day ahead."""

    def __init__(self, recipe: LSTMRecipe, climate: Climate, slope: Tensor, memory: Tensor, rows: int) -> None:
        self.recipe, self.climate = recipe, climate
        self.last = min(recipe.steps, max(FEWEST, math.ceil(recipe.passes * rows / recipe.batch)))  # the last step that learns
        self.slope = slope  # (features, H): the regression
        self.memory = memory  # (H,): correlation of departures over each lead; sets the spread to start from
        outputs = recipe.horizon * (1 + (len(LEVELS) - 1 if recipe.head == "quantile" else 1))
        self.networks = nn.ModuleList(
            LastStateThenDense(climate.width, 6, recipe.hidden, outputs, recipe.dropout) for _ in range(recipe.ensemble)
        )
        self.descent = Descent(
            self.networks, lr=recipe.lr, weight_decay=recipe.weight_decay, clip=float(recipe.ensemble), warmup=min(50, self.last // 4),
            horizon=self.last,
        )  # fmt: skip
        self.copula = torch.eye(recipe.horizon)  # correlation of normal scores of the days ahead
        self._training: Outlook | None = None
        self._keys: Tensor | None = None  # of the training rows, sorted, and what was worked out of each
        self._known: list[Tensor] = []

    def step(self, batch: Outlook) -> Mapping[str, Tensor]:
        if self.descent.count < self.last:
            self.networks.train()
            loss = self._loss(batch)
            norm = self.descent(loss * len(self.networks))
        else:
            with torch.no_grad():
                loss, norm = self._loss(batch), torch.zeros(())
            self.descent.count += 1
        if self.descent.count == self.recipe.steps and self._training is not None:
            self.settle(self._training)
        return {"pinball": loss.detach(), "gradient": norm}

    def _loss(self, batch: Outlook) -> Tensor:
        x, background, target = self._remembered(batch)
        seen = target.isfinite()
        jittered = x.clone()
        jittered[..., 0] += self.recipe.jitter * torch.randn(x.shape[:2]).to(x)
        quantiles = self._each(jittered, background, self._start(x, background))  # (networks, n, H, levels)
        error = target.nan_to_num()[..., None] - quantiles
        pinball = (error @ error.new_tensor(LEVELS) + nn.functional.relu(-error).sum(dim=-1)) / len(LEVELS)  # max(q e, (q - 1) e)
        return (pinball * seen).sum() / (len(self.networks) * seen.sum().clamp(min=1))

    def learn_from(self, training: Outlook) -> None:
        """Remember what the networks see of the training rows: steps then need not work it out again."""
        parts = [training[start : start + 4096] for start in range(0, len(training), 4096)]
        found = [torch.cat(field) for field in zip(*((*self._seen(part), self._departures(part)) for part in parts), strict=True)]
        self._keys, order = _key(training).sort()
        self._known = [field[order] for field in found]
        self._training = training

    def _remembered(self, batch: Outlook) -> tuple[Tensor, Tensor, Tensor]:
        """What the networks see of the rows, and the departures that came."""
        if self._keys is not None:
            keys = _key(batch)
            at = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
            if bool((self._keys[at] == keys).all()):
                return self._known[0][at], self._known[1][at], self._known[2][at]
        return *self._seen(batch), self._departures(batch)

    def _seen(self, rows: Outlook) -> tuple[Tensor, Tensor]:
        """Features of the last days (n, steps, width), and of the last month and year (n, 2)."""
        return self.climate.features(rows, max(self.recipe.window, self.recipe.lags)), self.climate.background(rows)

    def _departures(self, rows: Outlook) -> Tensor:
        """What came, standardised, (n, H)."""
        centre, scale = self.climate.normal(rows.series, rows.target_days())
        return (rows.future[:, 0] - centre) / scale

    def _start(self, x: Tensor, background: Tensor) -> Tensor:
        """Standardised forecast (n, H) that the networks correct."""
        if self.recipe.start == "climatology":
            return x.new_zeros(len(x), self.recipe.horizon)
        if self.recipe.start == "persistence":
            return x[:, -1, :1].expand(-1, self.recipe.horizon)
        return x[:, -1, :1] * self.memory + _regressors(x, background, self.recipe.lags) @ self.slope

    def _each(self, x: Tensor, background: Tensor, start: Tensor) -> Tensor:
        """Quantiles (networks, n, H, levels) of standardised departures."""
        seen, season = x[:, -self.recipe.window :], torch.cat([x[:, -1, -4:], background], dim=1)
        spread = (1 - self.memory**2).clamp(min=0.05).sqrt()
        return torch.stack([_quantiles(net(seen, season), start, spread, self.recipe.head) for net in self.networks])

    @torch.no_grad()
    def quantiles(self, rows: Outlook) -> Tensor:
        """The ensemble's quantiles at LEVELS of standardised departures, (n, H, levels): means over the networks."""
        self.networks.eval()
        x, background = self._seen(rows)
        return self._each(x, background, self._start(x, background)).mean(dim=0)

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        """Members of each forecast: paths that rank evenly in the law of each day."""
        normal = noise.normal(self.recipe.members, self.recipe.horizon) @ torch.linalg.cholesky(self.copula).T
        z = _normal_quantile(stratified(normal))
        centre, scale = self.climate.normal(like.series, like.target_days())
        departures = _between_levels(self.quantiles(like), z.transpose(1, 2)).transpose(1, 2)
        return like.with_future(centre[:, None] + scale[:, None] * departures)

    def settle(self, training: Outlook) -> None:
        """Estimate how the errors of the days ahead hang together: correlations of normal scores of training rows."""
        rows = training[torch.linspace(0, len(training) - 1, min(HELD, len(training))).long()]
        scores = _scores(self.quantiles(rows), self._departures(rows))
        scores = scores[scores.isfinite().all(dim=1)]
        if len(scores) > 2 * self.recipe.horizon:
            found = torch.corrcoef(scores.double().T).reshape(self.copula.shape).nan_to_num()
            # Four digits: the last bits of a forecast depend on where in memory the weights lie.
            self.copula = (0.99 * found + 0.01 * torch.eye(len(found))).round(decimals=4).float()
            self.copula.fill_diagonal_(1.0)

    def state_dict(self) -> dict[str, Tensor]:
        fixed = {"slope": self.slope, "memory": self.memory, "copula": self.copula}
        return self.descent.state_dict() | fixed | {f"climate.{k}": v for k, v in self.climate.state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.descent.load_state_dict(state)
        self.slope, self.memory, self.copula = (state[k].clone() for k in ("slope", "memory", "copula"))
        self.climate = Climate.from_state(under(state, "climate"))

    def to_ship(self) -> dict[str, Tensor]:
        """What drawing needs: no moments of the optimiser."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("optimiser.")}


def _key(rows: Outlook) -> Tensor:
    """One whole number per series and origin."""
    return rows.series * 2**24 + rows.day


def _regressors(x: Tensor, background: Tensor, lags: int) -> Tensor:
    """What the regression sees, (n, features): a constant, the last `lags` days of everything but the season, and the background, each
    alone and times every harmonic of the year."""
    past, season = torch.cat([x[:, -lags:, :-4].flatten(1), background], dim=1), x[:, -1, -4:]
    waves = torch.cat([torch.ones_like(season[:, :1]), season], dim=1)
    return torch.cat([waves, (past[:, :, None] * waves[:, None, :]).flatten(1)], dim=1)


def _quantiles(answer: Tensor, start: Tensor, spread: Tensor, head: str) -> Tensor:
    """Increasing quantiles (n, H, levels): a shift of the start, and steps from level to level as multiples of a normal law's."""
    n, days = start.shape
    shift, steps = answer.reshape(n, days, -1)[..., 0], nn.functional.softplus(answer.reshape(n, days, -1)[..., 1:] + math.log(math.e - 1))
    normal = _normal_quantile(answer.new_tensor(LEVELS))
    gaps = steps * normal.diff() if head == "quantile" else steps * normal.diff().expand(n, days, -1)
    rising = torch.cat([gaps.new_zeros(n, days, 1), gaps.cumsum(dim=2)], dim=2)
    return (start + shift)[..., None] + spread[:, None] * (rising - rising[..., MIDDLE : MIDDLE + 1])


def _normal_quantile(level: Tensor) -> Tensor:
    return math.sqrt(2) * torch.erfinv(2 * level - 1)


def _between_levels(quantiles: Tensor, z: Tensor) -> Tensor:
    """Values (n, H, M) at normal scores z (n, H, M) of laws given by quantiles (n, H, levels): straight lines against the normal
    score, and beyond the outermost levels the line of the last two."""
    knots = _normal_quantile(quantiles.new_tensor(LEVELS))
    right = torch.searchsorted(knots, z.contiguous()).clamp(1, len(knots) - 1)
    low, high = quantiles.gather(2, right - 1), quantiles.gather(2, right)
    return low + (high - low) * (z - knots[right - 1]) / (knots[right] - knots[right - 1])


def _scores(quantiles: Tensor, target: Tensor) -> Tensor:
    """Normal scores (n, H) of what came: the opposite of `_between_levels`."""
    knots = _normal_quantile(quantiles.new_tensor(LEVELS))
    right = torch.searchsorted(quantiles.contiguous(), target[..., None].contiguous()).clamp(1, len(knots) - 1)
    low, high = quantiles.gather(2, right - 1), quantiles.gather(2, right)
    slope = (knots[right] - knots[right - 1]) / (high - low).clamp(min=1e-6)
    return (knots[right - 1] + slope * (target[..., None] - low))[..., 0].clamp(-4, 4)


def build(recipe: LSTMRecipe, training: Outlook) -> Any:
    """The learner of `recipe`; normals and the regression come from the training rows."""
    if recipe.network == "article":
        return article.ArticleLSTM(recipe, LastState(1, article.HIDDEN, 1))
    if recipe.window > recipe.past or recipe.lags > recipe.past:
        raise Refused(f"the network looks back {max(recipe.window, recipe.lags)} days, but --past keeps only {recipe.past}")
    climate = Climate.fitted(training)
    learner = QuantileLSTM(recipe, climate, *_regression(recipe, climate, training), len(training))
    learner.learn_from(training)
    return learner


def _regression(recipe: LSTMRecipe, climate: Climate, training: Outlook) -> tuple[Tensor, Tensor]:
    """Ridge regression, on all that is seen, of what damped persistence misses of each day ahead (features, H), its ridge chosen by
    leaving out stretches of time; and the correlation of departures over each lead (H,), which damps."""
    parts = _stretches(training)
    squares = torch.stack([_squares(recipe, climate, part) for part in parts]).sum(dim=0)
    memory = (squares[0] / (squares[1] * squares[2]).clamp(min=1e-12).sqrt()).float()
    whole = bool(training.future.isfinite().all())  # then all days ahead share one matrix of products
    sums = [_sums(recipe, climate, part, memory, whole) for part in parts]
    products, both = (torch.stack(each).sum(dim=0) for each in zip(*sums, strict=True))
    errors = []
    for ridge in RIDGES:
        slopes = [_solved(ridge, products - part[0], both - part[1]) for part in sums]
        errors.append(sum(_squared_error(slope, *part) for slope, part in zip(slopes, sums, strict=True)))
    return _solved(RIDGES[int(np.argmin(errors))], products, both).float(), memory


def _stretches(training: Outlook) -> list[Outlook]:
    """The rows by time, in BLOCKS parts of about equal length."""
    first, last = int(training.day.min()), int(training.day.max()) + 1
    part = (training.day - first) * BLOCKS // (last - first)
    return [training[part == k] for k in range(BLOCKS) if bool((part == k).any())]


def _today_and_ahead(recipe: LSTMRecipe, climate: Climate, rows: Outlook) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (n, lags, width), today's departure (n, 1), those to come (n, H), 0 where unknown, and 1 where they came."""
    x = climate.features(rows, recipe.lags)
    centre, scale = climate.normal(rows.series, rows.target_days())
    target = ((rows.future[:, 0] - centre) / scale).double()
    return x, x[:, -1, :1].double(), target.nan_to_num(), target.isfinite().double()


def _squares(recipe: LSTMRecipe, climate: Climate, rows: Outlook) -> Tensor:
    """Sums of products of today's departure and those that came: with each other, of today's alone, of each to come alone (3, H)."""
    _, today, target, came = _today_and_ahead(recipe, climate, rows)
    return torch.stack([(today * target).sum(0), (today**2 * came).sum(0), (target**2).sum(0)])


def _sums(recipe: LSTMRecipe, climate: Climate, rows: Outlook, memory: Tensor, whole: bool) -> tuple[Tensor, Tensor]:
    """Over the days that came: products of regressors (H, f, f), or (1, f, f) where all did, and of regressors with what damped
    persistence misses (f, H)."""
    x, today, target, came = _today_and_ahead(recipe, climate, rows)
    design = _regressors(x, climate.background(rows), recipe.lags).double()
    masks = came[:, :1] if whole else came
    products = torch.stack([design.T @ (mask[:, None] * design) for mask in masks.T])
    return products, design.T @ (came * (target - today * memory))


def _solved(ridge: float, products: Tensor, both: Tensor) -> Tensor:
    """Slopes (f, H)."""
    penalty = ridge * torch.eye(len(both), dtype=torch.float64)
    found: Tensor = torch.linalg.solve(products + penalty, both.T[..., None])[..., 0].T
    return found


def _squared_error(slope: Tensor, products: Tensor, both: Tensor) -> float:
    """Of the rows that the sums were taken over, all leads together, less what does not depend on the slope."""
    quadratic = slope.T[:, None] @ products @ slope.T[..., None]
    return float(quadratic.sum() - 2 * (slope * both).sum())


def restore(recipe: LSTMRecipe, state: Mapping[str, Tensor]) -> Any:
    """A learner that draws, from its state alone."""
    if recipe.network == "article":
        learner: Any = article.ArticleLSTM(recipe, LastState(1, article.HIDDEN, 1))
        learner.network.load_state_dict(under(state, "weights"))
        return learner
    climate = Climate.from_state(under(state, "climate"))
    drawing = QuantileLSTM(recipe, climate, state["slope"], state["memory"], 0)
    drawing.networks.load_state_dict(under(state, "weights"))
    drawing.copula = state["copula"].clone()
    return drawing


def load(recipe: LSTMRecipe) -> Split[Outlook]:
    """The recipe's stations, or the article's six series."""
    return article.windows_of_a_week(recipe) if recipe.network == "article" else data.load(recipe)


def examine(learner: Any, split: Split[Outlook], seed: int) -> tuple[list[Finding], list[Check]]:
    """For the article's network: its own score of each series, beside persistence by the same score."""
    return ([], article.lstm_checks(learner, split)) if isinstance(learner, article.ArticleLSTM) else ([], [])


def figures(learner: Any, split: Split[Outlook], seed: int) -> list[Figure]:
    """Fans of four held-out origins, and the PIT."""
    return forecast.figures(learner, split, seed)


def ask(recipe: LSTMRecipe, n: int, conditions: Mapping[str, str]) -> Outlook:
    """A template of n forecasts from one origin: the last of the record, or `origin`."""
    return forecast.ask(recipe, n, conditions)


study = Study(
    title="LSTM ensemble for daily temperature",
    source=(
        "Article 'Predicting Tomorrow's Temperature with RNNs and Gaussian Processes'; LSTM: Hochreiter & Schmidhuber 1997, "
        "doi:10.1162/neco.1997.9.8.1735"
    ),
    recipes={
        "quick": LSTMRecipe(steps=150, batch=128, horizon=7, ensemble=2, hidden=24, draws=300),
        "laptop": LSTMRecipe(steps=600, batch=512, draws=20_000),
        "paper": LSTMRecipe(
            network="article", steps=504_000, batch=1, window=7, past=7, horizon=1, hidden=article.HIDDEN, ensemble=1, lr=5e-4, draws=20_000
        ),
    },
    expect={
        "quick": "about 15 s of processor time on one core",
        "laptop": "3 min on one thread of a busy 2-core machine, 70 years of one station",
        "paper": "50 min on one thread of a busy 2-core machine",
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
