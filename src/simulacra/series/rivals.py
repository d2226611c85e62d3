"""Forecasters that anybody can make, and that a model must therefore be held against. Fitted on training rows only.

    persistence      the last value stays, with the spread of h-step differences in training
    climatology      harmonics of the year, with the spread about them at this time of the year
    damped anomaly   climatology + phi_h times the last departure from it, phi_h by least squares for each lead
    seasonal naive   the value of a year ago, with the spread of year-to-year differences
    regression       climatology + least squares, for each lead, on the last seven departures

Each gives MEMBERS members, the quantiles at levels (i + 1/2) / MEMBERS of its law: centre + empirical quantiles of the errors that it
made in training, by lead and, where there is a climatology, within 30 days of the same time of the year. A member keeps its level
over the leads, so its path stays as high or as low as it begins; climatology, which has no memory, shuffles them at each lead.

Only the last thirty years of training count, as in the normals of meteorology (World Meteorological Organization 2017, WMO-No. 1203):
climates drift. A series that training holds too little of is forecast with what all series together taught.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from simulacra.measures.scores import quantiles_of
from simulacra.series.windows import YEAR, Outlook, as_series, date_of, year_phase
from simulacra.study import Refused

Array = NDArray[np.float64]
Days = NDArray[np.int64]
Forecaster = Callable[[Outlook], Tensor]  # rows -> members (n, MEMBERS, H)

MEMBERS = 99
NORMALS = round(30 * YEAR)  # days of training that count
LEVELS: Array = (np.arange(MEMBERS) + 0.5) / MEMBERS
REGRESSORS = 7  # last anomalies that the regression sees
SEASONS = 73  # times of the year, five days apart, at which errors are pooled
NEAR = 2 * np.pi * 30 / YEAR  # within 30 days
ENOUGH = 40  # errors of which quantiles are taken; with fewer, those of all seasons or of all series are
LONGEST = 60  # periods: a last value older than this is taken as this old
ALL = -1  # all series together


def rivals(training: Outlook) -> tuple[dict[str, Forecaster], list[str]]:
    """The forecasters that can be fitted on these rows, by name, and a sentence on each that cannot, or not wholly."""
    record = _Record.of(training)
    found = {"persistence": persistence(training), "climatology": climatology(training), "damped anomaly": damped_anomaly(training)}
    remarks = []
    if not record.seasonal:
        remarks.append("training holds less than a whole year of any series: climatology is the mean, without seasons")
    year = _periods_of_a_year(record.every)
    longest = max(len(values) for _, values in record.series.values())
    if training.past.shape[1] < year or longest < year + ENOUGH:
        remarks.append(
            f"no seasonal naive forecast: it needs {year} periods of past and {year + ENOUGH} of training, "
            f"and there are {training.past.shape[1]} and {longest}"
        )
    elif training.horizon > year:
        remarks.append(f"no seasonal naive forecast: {training.horizon} periods ahead are asked for, more than the {year} of a year")
    else:
        found["seasonal naive"] = seasonal_naive(training)
    if training.past.shape[1] < REGRESSORS or len(_windows(record, ALL, training.horizon)[1]) < 10 * (REGRESSORS + 1):
        remarks.append(f"no regression: too few times with {REGRESSORS} values in a row and one {training.horizon} periods on")
    else:
        found[f"regression on {REGRESSORS} lags"] = regression(training)
    return found, remarks


def persistence(training: Outlook) -> Forecaster:
    """The last observed value, with the quantiles of differences over as many periods as lie between it and the target."""
    record = _Record.of(training)

    @cache
    def spread(number: int, lag: int) -> Array:
        return quantiles_of(_pairs(record.observed(number), lag)[2], LEVELS)[None]

    def forecast(rows: Outlook) -> Tensor:
        last, age = _last(rows.past[:, :, 0].numpy(), rows)
        centre = np.repeat(last[:, None], rows.horizon, axis=1)
        return _members(rows, centre, _lags(age, rows.horizon), lambda s, lag: spread(record.known(s), lag))

    return forecast


def climatology(training: Outlook) -> Forecaster:
    """The mean at this time of the year, with the quantiles of departures from it within 30 days of the same time of the year."""
    record = _Record.of(training)
    spread = cache(lambda number: _by_season(*record.anomalies(number)))

    def forecast(rows: Outlook) -> Tensor:
        centre = record.normal(rows.series.numpy(), rows.target_days().numpy())
        members = _members(rows, centre, np.ones(centre.shape, np.int64), lambda s, lag: spread(record.known(s)))
        return members.gather(1, torch.from_numpy(_shuffled(rows, MEMBERS)))

    return forecast


def damped_anomaly(training: Outlook) -> Forecaster:
    """Climatology + phi times the last observed departure from it, phi by least squares over pairs as many periods apart."""
    record = _Record.of(training)

    @cache
    def fitted(number: int, lag: int) -> tuple[float, Array]:
        days, now, change = _pairs(record.anomalies_by_series(number), lag)
        slope = float(now @ (now + change)) / max(float(now @ now), 1e-12)
        return slope, _by_season(days, now + change - slope * now)

    def forecast(rows: Outlook) -> Tensor:
        series, targets = rows.series.numpy(), rows.target_days().numpy()
        last, age = _last(rows.past[:, :, 0].numpy() - record.normal(series, rows.past_days().numpy()), rows)
        lags = _lags(age, rows.horizon)
        damping = np.empty(lags.shape)
        for number, lag in _kinds(series, lags):
            damping[(series[:, None] == number) & (lags == lag)] = fitted(record.known(number), lag)[0]
        centre = record.normal(series, targets) + damping * last[:, None]
        return _members(rows, centre, lags, lambda s, lag: fitted(record.known(s), lag)[1])

    return forecast


def seasonal_naive(training: Outlook) -> Forecaster:
    """The value a year before (365 days, 52 weeks), with the quantiles of such differences; climatology where it is missing."""
    record = _Record.of(training)
    year = _periods_of_a_year(record.every)
    otherwise = climatology(training)

    @cache
    def spread(number: int) -> Array:
        differences = _pairs_apart(record.observed(number), year)[2]
        return quantiles_of(differences if len(differences) else _pairs(record.observed(ALL), year)[2], LEVELS)[None]

    def forecast(rows: Outlook) -> Tensor:
        first = rows.past.shape[1] - year
        if first < 0 or rows.horizon > year:
            raise Refused(f"a value of a year ago is {year} periods back; these rows know {rows.past.shape[1]} and ask for {rows.horizon}")
        before = rows.past[:, first : first + rows.horizon, 0].double().numpy()
        members = _members(rows, before, np.ones(before.shape, np.int64), lambda s, lag: spread(record.known(s)))
        missing = torch.from_numpy(~np.isfinite(before))[:, None].expand_as(members)
        return torch.where(missing, otherwise(rows), members) if bool(missing.any()) else members

    return forecast


def regression(training: Outlook) -> Forecaster:
    """Climatology + a linear function, for each lead, of the last seven departures; damped anomaly where one of them is missing."""
    record = _Record.of(training)
    otherwise = damped_anomaly(training)

    @cache
    def fitted(number: int, lead: int) -> tuple[Array, Array]:
        inputs, outcome, days = _windows(record, number, lead)
        if len(outcome) < 10 * (REGRESSORS + 1):
            inputs, outcome, days = _windows(record, ALL, lead)
        weights = np.asarray(np.linalg.lstsq(inputs, outcome, rcond=None)[0], np.float64)
        return weights, _by_season(days, outcome - inputs @ weights)

    def forecast(rows: Outlook) -> Tensor:
        series, targets = rows.series.numpy(), rows.target_days().numpy()
        past = rows.past[:, -REGRESSORS:, 0].double().numpy() - record.normal(series, rows.past_days()[:, -REGRESSORS:].numpy())
        gap = ~np.isfinite(past).all(axis=1)
        inputs = np.column_stack([np.ones(len(past)), past])
        centre = record.normal(series, targets)
        for number in np.unique(series).tolist():
            mine = series == number
            weights = np.stack([fitted(record.known(number), lead + 1)[0] for lead in range(rows.horizon)], axis=1)
            centre[mine] += inputs[mine] @ weights
        leads = np.broadcast_to(np.arange(1, rows.horizon + 1), centre.shape)
        members = _members(rows, centre, leads, lambda s, lead: fitted(record.known(s), lead)[1])
        if gap.any():
            members[torch.from_numpy(gap)] = otherwise(rows[torch.from_numpy(gap)])
        return members

    return forecast


# ------------------------------------------------------------------------------------------------- what training holds


@dataclasses.dataclass(frozen=True)
class _Record:
    """What is forecast, as training saw it: one series of days and values per number, and its harmonics of the year."""

    every: int
    series: dict[int, tuple[Days, Array]]  # values NaN where unknown
    harmonics: dict[int, Array]  # coefficients by series that have enough, and ALL

    @classmethod
    def of(cls, training: Outlook) -> _Record:
        series = {}
        for number, (days, values) in as_series(training).items():
            recent = days > days[-1] - NORMALS
            series[number] = (days[recent], values[recent, 0])
        every = int(training.every[0])
        count = 3 if every < 7 else 2
        all_days, all_values = (np.concatenate(parts) for parts in zip(*series.values(), strict=True))
        most = {number: _saw_a_year(days[np.isfinite(values)]) for number, (days, values) in series.items()}
        some = count if any(most.values()) else 0
        harmonics = {ALL: _fit_harmonics(all_days, all_values, some)}
        for number, (days, values) in series.items():
            if np.isfinite(values).sum() >= ENOUGH and (most[number] or not some):
                harmonics[number] = _fit_harmonics(days, values, some)
        return cls(every, series, harmonics)

    @property
    def seasonal(self) -> bool:
        return len(self.harmonics[ALL]) > 1

    def known(self, number: int) -> int:
        return number if number in self.harmonics else ALL

    def normal(self, series: NDArray[np.int64], days: Days) -> Array:
        """Climatological mean (n, k) of each row's series on the days (n, k)."""
        result = np.empty(days.shape)
        for number in np.unique(series).tolist():
            mine, weights = series == number, self.harmonics[self.known(number)]
            result[mine] = _waves(days[mine], len(weights) // 2) @ weights
        return result

    def observed(self, number: int) -> list[tuple[Days, Array]]:
        """The series of this number, or all of them."""
        return list(self.series.values()) if number == ALL else [self.series[number]]

    def anomalies_by_series(self, number: int) -> list[tuple[Days, Array]]:
        chosen = list(self.series) if number == ALL else [number]
        return [(d, v - self.normal(np.array([s]), d[None])[0]) for s, (d, v) in ((s, self.series[s]) for s in chosen)]

    def anomalies(self, number: int) -> tuple[Days, Array]:
        """Days and departures from climatology where known, of one series or of all, one after the other."""
        days, values = (np.concatenate(parts) for parts in zip(*self.anomalies_by_series(number), strict=True))
        seen = np.isfinite(values)
        return days[seen], values[seen]


def _saw_a_year(days: Days) -> bool:
    return len(np.unique(_phase(days) // (2 * np.pi / 12))) == 12


def _phase(days: Days) -> Array:
    return np.asarray(year_phase(torch.from_numpy(np.ascontiguousarray(days))).numpy() % (2 * np.pi))


def _waves(days: Days, count: int) -> Array:
    """Constant, cosines and sines of the year, (..., 2 count + 1)."""
    angle = _phase(days)[..., None] * np.arange(1, count + 1)
    return np.concatenate([np.ones((*days.shape, 1)), np.cos(angle), np.sin(angle)], axis=-1)


def _fit_harmonics(days: Days, values: Array, count: int) -> Array:
    seen = np.isfinite(values)
    return np.asarray(np.linalg.lstsq(_waves(days[seen], count), values[seen], rcond=None)[0])


def _pairs(parts: list[tuple[Days, Array]], lag: int) -> tuple[Days, Array, Array]:
    """Later days, earlier values and changes, over all pairs of known values that lie `lag` periods apart in one series; where no
    two do, because the record is shorter or knows every other day only, over those that lie as nearly so far apart as any (of two
    such distances the longer, which knows less)."""
    longest = max(len(values) for _, values in parts)
    for nearest in sorted(range(1, longest), key=lambda other: (abs(other - lag), -other)):
        found = _pairs_apart(parts, nearest)
        if len(found[0]):
            return found
    raise Refused("training holds fewer than two values of any series: nothing can be said of how they change; give more days")


def _pairs_apart(parts: list[tuple[Days, Array]], lag: int) -> tuple[Days, Array, Array]:
    """`_pairs` exactly `lag` periods apart, which may be none."""
    later = np.concatenate([days[lag:] for days, _ in parts])
    now = np.concatenate([values[: max(len(values) - lag, 0)] for _, values in parts])
    change = np.concatenate([values[lag:] for _, values in parts]) - now
    seen = np.isfinite(change)
    return later[seen], now[seen], change[seen]


def _windows(record: _Record, number: int, lead: int) -> tuple[Array, Array, Days]:
    """For each time with all its regressors: 1 and the last anomalies (t, 8), the anomaly `lead` periods on, its day."""
    inputs, outcomes, targets = [], [], []
    for days, values in record.anomalies_by_series(number):
        if len(values) >= REGRESSORS + lead:
            inputs.append(sliding_window_view(values[:-lead], REGRESSORS))
            outcomes.append(values[REGRESSORS - 1 + lead :])
            targets.append(days[REGRESSORS - 1 + lead :])
    if not inputs:
        return np.empty((0, REGRESSORS + 1)), np.empty(0), np.empty(0, np.int64)
    x, y, day = np.concatenate(inputs), np.concatenate(outcomes), np.concatenate(targets)
    whole = np.isfinite(x).all(axis=1) & np.isfinite(y)
    return np.column_stack([np.ones(whole.sum()), x[whole]]), y[whole], day[whole]


def _by_season(days: Days, errors: Array) -> Array:
    """Quantiles (SEASONS, MEMBERS) of the errors within 30 days of each time of the year; of all, where those are few."""
    phase, everything = _phase(days), quantiles_of(errors, LEVELS)
    table = np.empty((SEASONS, MEMBERS))
    for season in range(SEASONS):
        apart = np.abs((phase - 2 * np.pi * season / SEASONS + np.pi) % (2 * np.pi) - np.pi)
        near = errors[apart <= NEAR]
        table[season] = quantiles_of(near, LEVELS) if len(near) >= ENOUGH else everything
    return table


# ----------------------------------------------------------------------------------------------------------- forecasting


def _periods_of_a_year(every: int) -> int:
    return round(365 / every)


def _last(values: NDArray[np.floating[Any]], rows: Outlook) -> tuple[Array, NDArray[np.int64]]:
    """The last known value (n,) of values (n, P) and how many periods ago it was known."""
    seen = np.isfinite(values[:, ::-1])
    if not seen.any(axis=1).all():
        row = int(np.flatnonzero(~seen.any(axis=1))[0])
        raise Refused(
            f"row {row} (series {int(rows.series[row])}, {date_of(int(rows.day[row]))}): nothing was observed in its past of "
            f"{values.shape[1]} periods; leave such origins out"
        )
    age = seen.argmax(axis=1)
    return values[np.arange(len(values)), values.shape[1] - 1 - age].astype(np.float64), age


def _lags(age: NDArray[np.int64], horizon: int) -> NDArray[np.int64]:
    """Periods (n, H) from the last known value to each target."""
    return np.minimum(age, LONGEST)[:, None] + np.arange(1, horizon + 1)


def _kinds(series: NDArray[np.int64], lags: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The pairs of series and lag that occur."""
    return [(s, lag) for s in np.unique(series).tolist() for lag in np.unique(lags[series == s]).tolist()]


def _members(rows: Outlook, centre: Array, lags: NDArray[np.int64], spread: Callable[[int, int], Array]) -> Tensor:
    """centre (n, H) + the error quantiles (1 or SEASONS, MEMBERS) of its series and lag at the target's time of the year."""
    season = np.rint(_phase(rows.target_days().numpy()) / (2 * np.pi) * SEASONS).astype(np.int64) % SEASONS
    series = rows.series.numpy()
    members = np.empty((*centre.shape, MEMBERS), np.float32)
    for number, lag in _kinds(series, lags):
        row, lead = np.nonzero((series[:, None] == number) & (lags == lag))
        table = spread(number, lag)
        members[row, lead] = centre[row, lead, None] + table[season[row, lead] if len(table) > 1 else 0]
    return torch.from_numpy(np.ascontiguousarray(members.transpose(0, 2, 1)))


def _shuffled(rows: Outlook, count: int) -> NDArray[np.int64]:
    """An order of `count` members for each row and lead, (n, count, H), that depends only on the row's series and day.

    Members are sorted by the SplitMix64 hash (Steele, Lea & Flood 2014) of series, target and number.
    """
    key = (rows.series[:, None] * 1_000_003 + rows.target_days() * 31 + torch.arange(rows.horizon)).numpy().astype(np.uint64)
    mixed = _mix(_mix(key)[:, None, :] + np.arange(count, dtype=np.uint64)[:, None])
    return np.argsort(mixed, axis=1)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: one step of the sequence and its finaliser; arithmetic modulo 2^64."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
