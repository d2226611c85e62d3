"""Simulated epidemics with known truth, reported as health departments do: what `quick` runs on, and what tests plant their faults in.

New infections of a day are negative binomial about the renewal equation (Cori et al. 2013, doi:10.1093/aje/kwt133),

    I_t ~ NB(mean R_t sum_s w_s I_{t-s} + imports, dispersion k),

with a discretised gamma law w of the generation interval (mean 5.5 days, standard deviation 2.5). log R_t follows an Ornstein-Uhlenbeck
process that all regions share in part, pulled down where more are infected than a region's ease of spread bears: waves come and go.

Reports lag, are weaker at weekends, pile up on Mondays; some regions end by reporting once a week, skip a week now and then, and
take back cases (duplicates, patients of other regions).
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FIRST = 901  # number of the first simulated region: no FIPS code of a state
START = 18322  # 2020-03-01, a Sunday
LONGEST = 14  # days of the generation interval that count
DISPERSION = 40.0  # k of the negative binomial: variance mean + mean^2 / k
IMPORTS = 1e-6  # infections a day from elsewhere, per person: an epidemic never dies out for good
WEEKDAYS = np.array([0.35, 1.5, 1.15, 1.1, 1.1, 1.0, 0.8])  # Sunday first: reports of a day of the week, relative to the mean


@dataclasses.dataclass(frozen=True)
class Epidemics:
    """What happened, and what was reported of it."""

    days: NDArray[np.int64]  # (T,) days since 1970-01-01
    infected: Array  # (S, T) new infections that will be found
    reported: Array  # (S, T) running totals of reports
    reproduction: Array  # (S, T) R_t

    def digest(self) -> str:
        """sha256 of the reports."""
        return hashlib.sha256(np.ascontiguousarray(self.reported).tobytes()).hexdigest()


def epidemics(regions: int, days: int, *, seed: int) -> Epidemics:
    """Epidemics in `regions` regions over `days` days from Sunday 2020-03-01."""
    rng = np.random.default_rng([seed, 0xE91])
    size = 10 ** rng.uniform(5.5, 7.2, regions)  # people
    log_rate = _shared_walk(regions, days, rng)
    weights = _generation()
    infected = np.zeros((regions, days + LONGEST))
    infected[:, :LONGEST] = 2 + 20 * rng.random((regions, 1))
    reproduction = np.empty((regions, days))
    for day in range(days):
        recent = infected[:, day : day + LONGEST]
        crowding = recent.sum(axis=1) / size  # share of people infected in the last two weeks
        reproduction[:, day] = np.exp(log_rate[:, day] - 25 * crowding)
        mean = reproduction[:, day] * (recent @ weights[::-1]) + size * IMPORTS
        infected[:, day + LONGEST] = rng.poisson(rng.gamma(DISPERSION, mean / DISPERSION))
    found = infected[:, LONGEST:]
    grid = START + np.arange(days, dtype=np.int64)
    return Epidemics(grid, found, np.cumsum(_reports(found, rng), axis=1), reproduction)


def _generation() -> Array:
    """Probability that a case infects the next one 1, 2, ... LONGEST days later."""
    mean, sd = 5.5, 2.5
    shape, scale = (mean / sd) ** 2, sd**2 / mean
    day = np.arange(1, LONGEST + 1)
    density = day ** (shape - 1) * np.exp(-day / scale)
    return np.asarray(density / density.sum(), np.float64)


def _shared_walk(regions: int, days: int, rng: np.random.Generator) -> Array:
    """log R without crowding, (regions, days): mean 0.05, standard deviation 0.25, memory of 40 days, half of it common to all."""
    memory = np.exp(-1 / 40)
    kicks = 0.25 * np.sqrt(1 - memory**2) * (rng.normal(size=(1, days)) + rng.normal(size=(regions, days))) / np.sqrt(2)
    walk = np.empty((regions, days))
    state = np.full(regions, 0.3)  # the first wave
    for day in range(days):
        state = memory * state + kicks[:, day]
        walk[:, day] = state
    return np.asarray(0.05 + walk)


def _reports(found: Array, rng: np.random.Generator) -> Array:
    """Cases reported each day (regions, days), corrections included; whole numbers."""
    regions, days = found.shape
    weekday = np.arange(days) % 7
    reports: Array = np.rint(found * WEEKDAYS[weekday] / WEEKDAYS.mean())
    for region in range(regions):
        if region % 3 == 1:  # ends by reporting on Wednesdays
            _pile_up(reports[region], np.flatnonzero((np.arange(days) >= days // 2) & (weekday != 3)))
        if region % 3 == 2:  # silent weeks
            for week in rng.choice(np.arange(10, days // 7 - 2), size=3, replace=False):
                _pile_up(reports[region], np.arange(7 * week, 7 * week + 7))
        for day in rng.choice(np.arange(30, days), size=3, replace=False):  # corrections
            reports[region, day] -= rng.integers(1, 3 + int(1.5 * reports[region, max(0, day - 13) : day + 1].mean()))
    return reports


def _pile_up(reports: Array, silent: NDArray[np.int64]) -> None:
    """Move what was reported on silent days to the next day that is not; what has no such day stays unreported."""
    quiet = np.zeros(len(reports), bool)
    quiet[silent] = True
    waiting = 0.0
    for day in range(len(reports)):
        waiting += reports[day]
        reports[day] = 0.0 if quiet[day] else waiting
        waiting = waiting if quiet[day] else 0.0
