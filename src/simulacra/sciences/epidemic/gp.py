"""Cases of an epidemic by state, weeks ahead, from a Gaussian process that all states share.

`paper`   the daily GP of the articles' notebook, with its scaling bug shown and undone (article.py), on cases up to 2020-07-01.
`laptop`  ours (pooled.py): log(1 + weekly cases) of any state is a level, a walk, a wave and count noise; one set of parameters is
          learned from all states in 2020. Forecasts are 100 coherent paths over 1 to 4 weeks, so 23 quantiles and more.
`quick`   the same on simulated epidemics whose truth is known (simulate.py).

docs/epidemic_gp.md tells what was measured, and where it loses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor

from simulacra.evidence import Check, Figure, Finding
from simulacra.sciences.epidemic import article, data, hub, pooled, statistics
from simulacra.sciences.epidemic.data import Cases, name_of
from simulacra.series import windows
from simulacra.series.windows import Outlook, date_of, day_of
from simulacra.study import Noise, Recipe, Refused, Split, Study

KNOWN = 8  # periods that must lie behind an origin


class EpidemicRecipe(Recipe):
    """Which cases, which origins, and which process forecasts them."""

    process: Literal["pooled", "article"] = Field("pooled", description="Weekly, shared by all states; or the articles' daily one.")
    column: str = Field("", description="Column with the counts; not needed for the table of The New York Times.")
    series_column: str = Field("", description="Column that names the series (state) of a row; empty: one series.")
    cumulative: bool | None = Field(None, description="Whether counts are running totals; unset: refused where they look so.")
    states: tuple[str, ...] = Field((), description="States to train on and to forecast, by name; empty: all in the table.")
    regions: int = Field(6, ge=1, le=100, description="Simulated regions, where no data are given.")
    days: int = Field(700, ge=200, le=5000, description="Days that each simulated epidemic is followed.")
    first: str = Field("2020-05-01", description="Earliest origin, a date; forecasts are made from every week (or sampled day) after it.")
    train_until: str = Field("2020-12-31", description="Date by which the futures end from which parameters are learned.")
    tune_until: str = Field("2021-06-30", description="Date by which the futures of validation end; later origins are held out.")
    last: str = Field("2023-03-18", description="End of the record, a date: nothing after it is read.")
    horizon: int = Field(4, ge=1, le=60, description="Periods ahead: weeks, or days of the articles' process.")
    window: int = Field(30, ge=KNOWN, le=150, description="Weeks before an origin that the pooled process looks at.")
    scale: pooled.Scale = Field("log1p", description="Scale of the pooled process: log(1 + cases), or cases over the window's mean.")
    thin: PositiveInt = Field(2, description="Every so many weeks an origin is trained on: neighbours tell nearly the same.")
    evaluations: PositiveInt = Field(80, description="Evaluations of the likelihood and its gradient per step (one start of L-BFGS).")
    members: int = Field(100, ge=20, le=2000, description="Paths per forecast.", json_schema_extra={"drawing": True})

    @field_validator("first", "train_until", "tune_until", "last")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        return date_of(day_of(value))

    @model_validator(mode="after")
    def _in_order(self) -> EpidemicRecipe:
        if not self.first < self.train_until < self.tune_until < self.last:
            raise ValueError(
                f"first {self.first}, train_until {self.train_until}, tune_until {self.tune_until} and last {self.last} must follow "
                "each other"
            )
        return self


# --- nature ---


def load(recipe: EpidemicRecipe) -> Split[Outlook]:
    """Origins of all states in three parts by date, each with the whole record behind it."""
    cases = _cases(recipe)
    rows = data.origins(cases, recipe.horizon, known=KNOWN)
    rows = rows[torch.nonzero(rows.day >= day_of(recipe.first)).flatten()]
    if recipe.process == "article":
        rows = rows[torch.nonzero(_sampled(rows)).flatten()]
    table = cases.table
    where = f"from {recipe.data}" if recipe.data else "simulated"
    period = "week" if table.every == 7 else "day"
    origin = f"{len(rows)} origins of {len(table.names)} series, cases by {period}, {where}. " + " ".join(table.remarks)
    split = windows.split_by_date(rows, day_of(recipe.train_until), day_of(recipe.tune_until), origin, table.files)
    return dataclasses.replace(split, rejected=cases.rejected)


def _cases(recipe: EpidemicRecipe) -> Cases:
    states, until = recipe.states, day_of(recipe.last)
    if recipe.data is None and set(states) & set(data.STATES.values()):
        raise Refused(
            f"cases of {states[0]} are not simulated: give the table of The New York Times, --data {data.NYT_FILE} (us-states.csv of "
            "github.com/nytimes/covid-19-data; free for non-commercial use with credit), or name simulated regions"
        )
    if recipe.data is None:
        cases = data.simulated(recipe.regions, recipe.days, seed=recipe.seed, states=states, until=until)
    else:
        cases = data.read(
            recipe.data, column=recipe.column, series_column=recipe.series_column, cumulative=recipe.cumulative, states=states, until=until,
        )  # fmt: skip
    if recipe.process == "pooled":
        return data.weekly(cases)
    if cases.table.every != 1:
        raise Refused("the articles' process is of daily cases, and the table has one value a week; use --process pooled")
    return cases


def _sampled(rows: Outlook) -> Tensor:
    """Origins that the articles' process samples: every `step` days from the first report, as it treats the state."""
    seen = rows.past[:, :, 0].isfinite()
    place = seen.shape[1] - 1 - seen.int().argmax(dim=1)  # of the origin, from the first report
    steps = torch.tensor([article.setting_of(code).step for code in rows.series.tolist()])
    return (place % steps == 0) & (place >= 5 * steps) & seen[:, -1]


def ask(recipe: EpidemicRecipe, n: int, conditions: Mapping[str, str]) -> Outlook:
    """A template of n forecasts: the newest origin of each asked `state` (default: all), then the one before, and so on.

    `origin` is the date to begin from: the last Saturday up to it counts. What came after is not looked at: it is NaN.
    """
    unknown = set(conditions) - set(CONDITIONS)
    if unknown:
        raise Refused(f"a forecast is asked for by {' and '.join(CONDITIONS)}, not by {', '.join(sorted(unknown))}")
    names = tuple(name.strip() for name in conditions["state"].split(",")) if "state" in conditions else recipe.states
    cases = _cases(recipe.model_copy(update={"states": names}))
    day = day_of(conditions["origin"]) if "origin" in conditions else int(cases.table.days[-1])
    parts: list[Outlook] = []
    while sum(len(part) for part in parts) < n:
        rows = data.at(cases, day, recipe.horizon)
        rows = rows[torch.nonzero(rows.past[:, -recipe.window :, 0].isfinite().sum(dim=1) >= KNOWN).flatten()]
        if not len(rows):
            break
        parts.append(rows)
        day = int(rows.day[0]) - cases.table.every
    if not parts:
        raise Refused(f"fewer than {KNOWN} periods are known by {date_of(day)}; ask for a later origin")
    found = Outlook.join(parts)
    return found[torch.arange(n) % len(found)]


CONDITIONS = {
    "state": "state or states to forecast, by name, separated by commas, e.g. Washington; default: all",
    "origin": "date from which to forecast, e.g. 2021-12-18; default: the end of the record",
}


def caption(rows: Outlook) -> list[str]:
    """State and origin of each row, in words."""
    return [f"{name_of(s)}, {date_of(d)}" for s, d in zip(rows.series.tolist(), rows.day.tolist(), strict=True)]


def summary(template: Outlook, drawn: Outlook) -> list[str]:
    """Median and 95 % interval of the first forecasts, in words."""
    from simulacra.measures.scores import quantiles_of

    lines = []
    for row, title in enumerate(caption(drawn[:8])):
        low, middle, high = quantiles_of(drawn.future[row].T.numpy(), np.array([0.025, 0.5, 0.975])).T
        ends = [date_of(int(day)) for day in drawn.target_days()[row]]
        said = "; ".join(f"to {e}: {m:,.0f} ({a:,.0f} to {b:,.0f})" for e, m, a, b in zip(ends, middle, low, high, strict=True))
        lines.append(f"{title}: cases in the period {said}")
    return lines


# --- the learners ---


class Pooled:
    """Parameters of the process that all states share, the best of several starts. A step is one start."""

    def __init__(self, recipe: EpidemicRecipe, train: Outlook | None) -> None:
        self.recipe = recipe
        self.theta, self.log_likelihood, self.starts = pooled.START.copy(), 0.0, 0
        self.windows = None if train is None else self._windows(train[torch.nonzero(train.day // 7 % recipe.thin == 0).flatten()])

    def _windows(self, rows: Outlook) -> pooled.Windows:
        past = rows.past[:, -self.recipe.window :, 0]
        return pooled.Windows.of(past.double().numpy(), rows.future[:, 0].double().numpy(), self.recipe.scale)

    def step(self, batch: Outlook) -> Mapping[str, float]:
        """Learn from the next start, on all training windows whatever the batch; keep what is best so far."""
        if self.windows is None:
            raise Refused("this learner was restored to draw, without its training data; build it anew to train")
        start = pooled.start_of(self.starts, self.recipe.seed)
        theta, value, count = pooled.learn(self.windows, start, self.recipe.evaluations)
        if self.starts == 0 or value > self.log_likelihood:
            self.theta, self.log_likelihood = theta, value
        self.starts += 1
        return {"log_likelihood": self.log_likelihood, "this start": value, "evaluations": float(count)}

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        """Paths that fill the law of each week evenly and hang together as the process says; only the past of `like` is looked at."""
        members, horizon = self.recipe.members, like.horizon
        blind = self._windows(like.with_future(torch.full((len(like), 1, like.horizon), torch.nan)))
        law = pooled.forecast(self.theta, blind)
        normal, uniform = noise.normal(members, 2 * horizon).double(), noise.uniform(members, horizon + 2).double()
        paths = law.paths(normal.numpy(), uniform.clamp(1e-6, 1 - 1e-6).numpy())
        levels = windows.stratified(torch.from_numpy(paths)).double().numpy()
        return like.with_future(torch.from_numpy(blind.cases(law.quantiles(levels))))

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "theta": torch.from_numpy(self.theta.copy()), "log_likelihood": torch.tensor(self.log_likelihood, dtype=torch.float64),
            "starts": torch.tensor(self.starts),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.theta = state["theta"].double().numpy().copy()
        self.log_likelihood, self.starts = float(state["log_likelihood"]), int(state["starts"])

    def parameters(self) -> dict[str, float]:
        """What was learned, by name: variances of log cases, lengthscales in weeks."""
        return dict(zip(pooled.NAMES, np.exp(self.theta).tolist(), strict=True))


class Article:
    """The articles' process: nothing in it is learned. A step counts, and watches the error of the batch."""

    def __init__(self, recipe: EpidemicRecipe) -> None:
        self.recipe, self.seen = recipe, 0

    def step(self, batch: Outlook) -> Mapping[str, float]:
        """Mean absolute error of the mean, cases a day, on the batch: the process has no parameter that learns."""
        self.seen += 1
        wrong = [np.abs(self._law(row)[0] - row.future[0, 0].double().numpy()) for row in (batch[i : i + 1] for i in range(len(batch)))]
        return {"mean absolute error": float(np.nanmean(np.concatenate(wrong)))}

    def _law(self, row: Outlook) -> tuple[article.Array, article.Array]:
        past = row.past[0, :, 0].double().numpy()
        return article.ahead(past[int(np.isfinite(past).argmax()) :], row.horizon, article.setting_of(int(row.series[0])))

    def draw(self, like: Outlook, noise: Noise) -> Outlook:
        """Paths of daily cases after each origin, as the process says."""
        normal = noise.normal(self.recipe.members, like.horizon).double()
        future = torch.empty(normal.shape, dtype=torch.float64)
        for row in range(len(like)):
            mean, covariance = (torch.from_numpy(v) for v in self._law(like[row : row + 1]))
            root = torch.linalg.cholesky(covariance)
            levels = windows.stratified((normal[row] @ root.T)[None])[0].double()
            future[row] = mean + torch.special.ndtri(levels) * covariance.diagonal().sqrt()
        return like.with_future(future)

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": torch.tensor(self.seen)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.seen = int(state["seen"])


def build(recipe: EpidemicRecipe, train: Outlook | None) -> Pooled | Article:
    """The process that the recipe names."""
    return Article(recipe) if recipe.process == "article" else Pooled(recipe, train)


def restore(recipe: EpidemicRecipe, state: Mapping[str, Tensor]) -> Pooled | Article:
    """One that draws, from its parameters alone."""
    learner = build(recipe, None)
    learner.load_state_dict(state)
    return learner


# --- what the forecasts are worth ---


def examine(learner: Pooled | Article, split: Split[Outlook], seed: int) -> tuple[list[Finding], list[Check]]:
    """The articles' numbers beside the true ones; or scores and coverage by horizon, phase and year, seen years named as such."""
    if isinstance(learner, Article):
        return [], _printed_numbers(split)
    test = statistics.Scores.of(split.held_out, _forecast(learner, split.held_out, seed))
    everything = np.ones(len(test), bool)
    checks = statistics.checks(test, {"all horizons": everything}, seed)
    for week in range(split.held_out.horizon):
        group = {f"{week + 1} week{'s' * (week > 0)} ahead": everything}
        checks += statistics.checks(test, group, seed, slice(week, week + 1))
    checks += statistics.checks(test, statistics.by_phase(test), seed)
    for part, rows in (("seen in training", split.train), ("seen in tuning", split.validation), ("held out", split.held_out)):
        scores = test if rows is split.held_out else statistics.Scores.of(rows, _forecast(learner, rows, seed))
        years = {f"{year} ({part})": mask for year, mask in statistics.by_year(scores).items()}
        checks += statistics.checks(scores, years, seed)
    for scale in ("natural", "log"):
        below, count = statistics.states_below_one(test, scale)
        checks.append(Check(f"series with a score below the baseline's, {scale} scale", below, 0.0, f"all {count}", below == count))
    return [], checks


def _forecast(learner: Pooled | Article, rows: Outlook, seed: int) -> Outlook:
    """Forecasts of all rows, in blocks."""
    parts = [learner.draw(rows[i : i + 256], Noise(seed, range(i, min(i + 256, len(rows))))) for i in range(0, len(rows), 256)]
    return Outlook.join(parts)


def _printed_numbers(split: Split[Outlook]) -> list[Check]:
    """The eight rows of the notebook, for the states that are here with the record it had."""
    record = windows.as_series(Outlook.join([split.train, split.validation, split.held_out]))
    checks = []
    for setting in article.PRINTED:
        days, values = record.get(setting.code, (np.zeros(0), np.zeros((0, 1))))
        if not len(days) or date_of(int(days[-1])) != article.CUT:
            continue
        found = article.errors(values[:, 0], setting)
        checks.append(Check(
            f"{setting.state}, scale {setting.scale:g}, off {setting.off}, step {setting.step}: error as printed (cases a day)",
            found.printed, float("nan"), f"printed {setting.printed:.4f}, which is the mean of the data: the scale was applied twice",
            round(found.printed, 4) == setting.printed,
            {"true error, all days": found.everywhere, f"true error, {found.days} days after the last sample": found.after,
             "seven-day mean carried on, same days": found.carried},
        ))  # fmt: skip
    return checks


def figures(learner: Pooled | Article, split: Split[Outlook], seed: int) -> list[Figure]:
    """Forecast fans along the curves of some states; for the articles' process its posterior with and without noise."""
    from simulacra.sciences.epidemic import pictures

    if isinstance(learner, Article):
        return pictures.posteriors(windows.as_series(Outlook.join([split.train, split.validation, split.held_out])))
    codes = _largest(split.held_out, 4 if len(split.held_out) > 1000 else 2)
    rows = Outlook.join([split.held_out[torch.nonzero(split.held_out.series == code).flatten()[::6]] for code in codes])
    return [pictures.fans(rows, _forecast(learner, rows, seed))]


def _largest(rows: Outlook, count: int) -> list[int]:
    """The series with the most cases in what is known of them."""
    totals = {s: float(rows.past[rows.series == s][-1].nansum()) for s in rows.series.unique().tolist()}  # type: ignore[no-untyped-call]
    return sorted(totals, key=lambda s: -totals[s])[:count]


# --- files ---


def read(path: Path) -> Outlook:
    """Forecasts or what came, from an .npz file; or another program's forecasts from a .csv file in the hubs' layout (pasts unknown)."""
    return hub.read(path) if path.suffix == ".csv" else windows.read(path)


def read_as(path: Path, recipe: EpidemicRecipe) -> Outlook:
    """The same as forecasts of the held-out origins of `recipe`, row for row: origins that the file leaves out hold NaN."""
    samples = read(path)
    if path.suffix != ".csv":
        return samples
    held_out = load(recipe).held_out
    place = {key: row for row, key in enumerate(zip(samples.series.tolist(), samples.day.tolist(), strict=True))}
    rows = [place.get(key, -1) for key in zip(held_out.series.tolist(), held_out.day.tolist(), strict=True)]
    if max(rows) < 0:
        first, last = (date_of(int(day)) for day in (held_out.day.min(), held_out.day.max()))
        raise Refused(
            f"{path}: none of its {len(samples)} forecasts starts from a held-out origin; these are Saturdays from {first} to {last}, and "
            f"the first in the file is {caption(samples[:1])[0]}"
        )
    if samples.horizon < held_out.horizon:
        raise Refused(f"{path}: {samples.horizon} periods ahead; the recipe asks for {held_out.horizon}: add --horizon {samples.horizon}")
    future = torch.full((len(held_out), samples.members, held_out.horizon), torch.nan)
    there = torch.tensor(rows)
    future[there >= 0] = samples.future[there[there >= 0], :, : held_out.horizon]
    return held_out.with_future(future)


def export(rows: Outlook, path: Path, known: Path | None) -> None:
    """The 23 quantiles of each forecast in the hubs' layout."""
    if path.suffix != ".csv":
        raise Refused(f"{path}: forecasts are exported as .csv in the hubs' layout")
    hub.write(rows, path)


def picture(rows: Outlook) -> np.ndarray[Any, Any]:
    """A small fan per row."""
    from simulacra.series import pictures

    return pictures.picture(rows, "cases")


quick = EpidemicRecipe(
    train_until="2021-05-31", tune_until="2021-07-31", last="2022-01-29", steps=3, batch=32, draws=400, evaluations=60, window=20, thin=3,
    threads=1,
)  # fmt: skip
laptop = EpidemicRecipe(steps=4, batch=32, draws=6000, threads=1)
paper = EpidemicRecipe(
    process="article", states=("Washington", "Georgia", "Florida", "California", "New York", "Texas"), first="2020-04-15",
    train_until="2020-05-20", tune_until="2020-05-31", last=article.CUT, horizon=9, scale="identity", steps=1, batch=32, draws=1000,
    threads=1,
)  # fmt: skip

study = Study(
    title="Cases of an epidemic by Gaussian process",
    source="Rasmussen & Williams 2006, ISBN 0-262-18253-X; Shah, Wilson, Ghahramani, arXiv:1402.4306; data: The New York Times",
    recipes={"quick": quick, "laptop": laptop, "paper": paper},
    expect={
        "quick": "12 s on one core of an AMD EPYC, verdict and report included",
        "laptop": "70 s on one core of an AMD EPYC, 500 MB; needs the table of cases",
        "paper": "8 s on one core of an AMD EPYC; needs the table of cases",
    },
    load=load,
    build=build,
    judge=statistics.judge,
    read=read,
    read_as=read_as,
    write=windows.write,
    ask=ask,
    conditions=CONDITIONS,
    picture=picture,
    caption=caption,
    summary=summary,
    examine=examine,
    figures=figures,
    restore=restore,
    formats=(".csv",),
    export=export,
    citation="""@inproceedings{shah2014student,
  title = {Student-t Processes as Alternatives to Gaussian Processes},
  author = {Shah, Amar and Wilson, Andrew Gordon and Ghahramani, Zoubin},
  booktitle = {Proceedings of the 17th International Conference on Artificial Intelligence and Statistics},
  year = {2014},
  note = {arXiv:1402.4306}
}""",
)
