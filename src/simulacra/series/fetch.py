"""Series from public archives, as a Table: NOAA's Global Summary of the Day and GHCN-Daily, and the New York Times' COVID-19 table.

    table = gsod("72793524234", range(2010, 2020))             # daily maximum in °F, UTC days
    table = ghcn_daily("USW00024233", inputs=("TMIN", "PRCP"))  # °C and mm
    table = nyt_states(column="deaths")                         # daily increments by state

Licence and citation are said before anything is fetched and stand in the table's remarks. These files grow, so their sha256 cannot be
known in advance: what came is recorded in `Table.files`, and kept in the cache (SIMULACRA_CACHE) until `refresh=True`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from simulacra.series.reading import Rows, Table, rows_of, to_table
from simulacra.study import Refused

GSOD = "https://www.ncei.noaa.gov/data/global-summary-of-the-day/access"
GHCN = "https://www.ncei.noaa.gov/pub/data/ghcn/daily/by_station"
NYT = "https://raw.githubusercontent.com/nytimes/covid-19-data/master"

NOTICES = {
    "gsod": (
        "NOAA National Centers for Environmental Information: Global Surface Summary of the Day (GSOD). Free for research, education and "
        "other non-commercial use; WMO Resolution 40 restricts commercial re-export of the data of stations outside the United States."
    ),
    "ghcn": (
        "Menne, M. J., et al. (2012): Global Historical Climatology Network - Daily (GHCN-Daily), Version 3. NOAA National Climatic Data "
        "Center, doi:10.7289/V5D21VHZ; described in J. Atmos. Oceanic Technol. 29:897, doi:10.1175/JTECH-D-11-00103.1."
    ),
    "nyt": (
        "The New York Times: Coronavirus (Covid-19) Data in the United States, github.com/nytimes/covid-19-data. For non-commercial use "
        "only, with credit to The New York Times; must not be bundled with other software."
    ),
}
"""Licence and citation of each archive."""

WAITS = (2.0, 8.0)  # seconds before the second and the third try: NCEI answers 503 when busy

# What a GSOD file writes for "missing", and the unit (readme of the data set, 2020-10-28).
_GSOD_COLUMNS = {
    "TEMP": (9999.9, "°F"), "DEWP": (9999.9, "°F"), "MAX": (9999.9, "°F"), "MIN": (9999.9, "°F"), "SLP": (9999.9, "hPa"),
    "VISIB": (999.9, "mi"), "WDSP": (999.9, "kn"), "MXSPD": (999.9, "kn"), "GUST": (999.9, "kn"), "SNDP": (999.9, "in"),
    "PRCP": (99.99, "in"),
}  # fmt: skip
# Element -> what to multiply the file's number by, and the unit (GHCN-Daily readme, section III).
_GHCN_ELEMENTS = {
    "TMAX": (0.1, "°C"), "TMIN": (0.1, "°C"), "TAVG": (0.1, "°C"), "PRCP": (0.1, "mm"), "AWND": (0.1, "m/s"),
    "SNOW": (1.0, "mm"), "SNWD": (1.0, "mm"),
}  # fmt: skip


def gsod(
    station: str, years: Iterable[int], *, column: str = "MAX", inputs: Sequence[str] = (), base_url: str = GSOD,
    refresh: bool = False, say: Callable[[str], None] = print,
) -> Table:  # fmt: skip
    """One station of NOAA's Global Summary of the Day, whole years, joined by date.

    station    its 11 digits, USAF and WBAN number: "72793524234" or "727935-24234"
    column     MAX, MIN, TEMP, DEWP (°F), PRCP, SNDP (in), WDSP, MXSPD, GUST (kn), VISIB (mi) or SLP (hPa)

    Days are UTC days. Refused where no year has a file, or where the archive does not answer.
    """
    name = station.replace("-", "")
    if not re.fullmatch(r"[A-Z0-9]{11}", name):
        raise Refused(f"a GSOD station has 11 digits (6 of USAF, 5 of WBAN), not {station!r}; GSOD_STATIONS in SQL finds them by name")
    wanted = [_offered(c, _GSOD_COLUMNS, "GSOD") for c in (column, *inputs)]
    years = sorted(set(years))
    say(NOTICES["gsod"])
    paths = {year: _fetched(f"{base_url}/{year}/{name}.csv", f"gsod-{name}-{year}.csv", refresh) for year in years}
    found = [path for path in paths.values() if path]
    if not found:
        raise Refused(f"GSOD has no file of station {station} for {_span(years)}; is the number right?")
    remarks = [NOTICES["gsod"], "Days are UTC days."]
    missing = [str(year) for year, path in paths.items() if not path]
    if missing:
        remarks.append(f"GSOD has no file of this station for {', '.join(missing)}.")
    parts = [rows_of(path) for path in found]
    joined: dict[str, list[Any]] = {title: [] for title in ("DATE", *wanted)}
    for part in parts:
        for title in joined:
            if title not in part.columns:
                raise Refused(f"{part.origin}: a GSOD file has a column {title}; this one has {', '.join(part.columns)}")
            joined[title] += part.columns[title]
    for title in wanted:
        joined[title] = _without(title, joined[title], _GSOD_COLUMNS[title][0], remarks)
    rows = Rows(joined, f"GSOD {station}", {k: v for part in parts for k, v in part.files.items()}, remarks=remarks)
    table = to_table(rows, column=column, inputs=inputs, date_column="DATE", unit=_GSOD_COLUMNS[column][1], every="day")
    return dataclasses.replace(table, names=[station])


def ghcn_daily(
    station: str, *, column: str = "TMAX", inputs: Sequence[str] = (), base_url: str = GHCN,
    refresh: bool = False, say: Callable[[str], None] = print,
) -> Table:  # fmt: skip
    """One station of GHCN-Daily, its whole record, in °C, mm and m/s.

    station    its 11 characters: "USW00024233" is Seattle-Tacoma airport
    column     TMAX, TMIN, TAVG (°C), PRCP, SNOW, SNWD (mm) or AWND (m/s); the file's tenths are converted

    Values that failed one of the archive's own quality checks count as missing. Days are those of the observer.
    """
    if not re.fullmatch(r"[A-Z]{2}[A-Z0-9]{9}", station):
        raise Refused(f"a GHCN-Daily station has 11 characters that begin with two letters of the country, not {station!r}")
    wanted = [_offered(c, _GHCN_ELEMENTS, "GHCN-Daily") for c in (column, *inputs)]
    say(NOTICES["ghcn"])
    path = _fetched(f"{base_url}/{station}.csv.gz", f"ghcn-{station}.csv.gz", refresh)
    if path is None:
        raise Refused(f"GHCN-Daily has no station {station}; ghcnd-stations.txt beside the data lists them")
    remarks = [NOTICES["ghcn"]]
    rows = _long_to_wide(path, station, wanted, remarks)
    table = to_table(rows, column=column, inputs=inputs, date_column="date", unit=_GHCN_ELEMENTS[column][1], every="day")
    return dataclasses.replace(table, names=[station])


def nyt_states(
    *, column: str = "cases", inputs: Sequence[str] = (), base_url: str = NYT, refresh: bool = False, say: Callable[[str], None] = print
) -> Table:
    """Daily new cases or deaths by US state and territory, 2020 to 2023: increments of the New York Times' running totals.

    Corrections make some increments negative; they stay, and are counted in the remarks.
    """
    say(NOTICES["nyt"])
    path = _fetched(f"{base_url}/us-states.csv", "nyt-us-states.csv", refresh)
    if path is None:
        raise Refused(f"there is no us-states.csv at {base_url}")
    rows = dataclasses.replace(rows_of(path), remarks=[NOTICES["nyt"]])
    return to_table(rows, column=column, inputs=inputs, series_column="state", unit=f"{column} per day", cumulative=True)


def _long_to_wide(path: Path, station: str, wanted: Sequence[str], remarks: list[str]) -> Rows:
    """GHCN-Daily writes a line per element and day, without a header: station, yyyymmdd, element, value, three flags, time."""
    titles = ("station", "date", "element", "value", "measured", "quality", "source", "time")
    raw = rows_of(path, titles=titles)
    columns = [raw.columns[title] for title in ("date", "element", "value", "quality")]
    wide: dict[str, dict[str, Any]] = {}
    failed = 0
    for date, element, value, quality in zip(*columns, strict=True):
        if element in wanted:
            day = wide.setdefault(date, {})
            failed += bool(quality)
            if value != "-9999" and not quality:
                try:
                    day[element] = round(float(value) * _GHCN_ELEMENTS[element][0], 6)
                except ValueError as error:
                    raise Refused(f"{path.name}: {element} of {date} is {value!r}, not a number; fetch the file again") from error
    if failed:
        remarks.append(f"{failed} values failed a quality check of the archive and count as missing.")
    found = {element for day in wide.values() for element in day}
    for element in wanted:
        if element not in found:
            raise Refused(f"station {station} has no {element}; it has {', '.join(sorted(set(raw.columns['element'])))}")
    made: dict[str, list[Any]] = {"date": list(wide)}
    made |= {element: [day.get(element) for day in wide.values()] for element in wanted}
    return Rows(made, f"GHCN-Daily {station}", raw.files, remarks=remarks)


def _offered(column: str, known: Iterable[str], archive: str) -> str:
    if column not in known:
        raise Refused(f"{archive} has no column {column!r} that can be forecast; it has {', '.join(known)}")
    return column


def _without(title: str, cells: Sequence[str], sentinel: float, remarks: list[str]) -> list[str]:
    """Cells with the flag * taken off and the sentinel of their column emptied. 99.99 inches of rain would else be averaged."""
    bare = [cell.strip().rstrip("*") for cell in cells]
    emptied = ["" if _is(cell, sentinel) else cell for cell in bare]
    gone = sum(before != after for before, after in zip(bare, emptied, strict=True))
    if gone:
        remarks.append(f"{gone} values {sentinel:g} of {title} stand for missing ones and were taken out.")
    return emptied


def _is(cell: str, number: float) -> bool:
    try:
        return float(cell) == number
    except ValueError:
        return False


def _span(years: Sequence[int]) -> str:
    return "no year at all" if not years else f"{years[0]}" if len(years) == 1 else f"{years[0]} to {years[-1]}"


def _fetched(url: str, name: str, refresh: bool) -> Path | None:
    """A file from the cache or from the archive; None where the archive says that there is no such file.

    Refused where it cannot be reached after three tries.
    """
    import pooch
    from requests.exceptions import ConnectionError as Unreachable
    from requests.exceptions import HTTPError, RequestException

    cache = Path(os.environ.get("SIMULACRA_CACHE") or pooch.os_cache("simulacra")) / "series"
    new = f"new-{name}" if refresh else name  # the old copy stays until the new one is here
    if refresh:
        (cache / new).unlink(missing_ok=True)
    pooch.get_logger().setLevel("WARNING")  # it prints a suggested hash, which means nothing for a file that grows
    for wait in (*WAITS, None):
        try:
            came = Path(pooch.retrieve(url, known_hash=None, fname=new, path=cache, downloader=pooch.HTTPDownloader(timeout=60)))
            return came.replace(cache / name)
        except HTTPError as error:
            status = error.response.status_code if error.response is not None else 500
            if status == 404:
                return None
            said = f"answers {status}"
            if status < 500 and status != 429:
                raise Refused(f"{url} {said}; fetch the file by hand and use read()") from error
        except Unreachable:
            said = "cannot be reached: is this machine connected to the internet?"
        except RequestException as error:
            said = f"breaks off ({type(error).__name__})"
        if wait is not None:
            time.sleep(wait)
    raise Refused(f"{url} {said} (tried {len(WAITS) + 1} times); try again later, or fetch the file elsewhere and use read()")
