"""Series asked for in SQL: BigQuery's dialect on local files, or on the service itself.

    here = local({"bigquery-public-data.covid19_nyt.us_states": "us-states.csv"})
    there = bigquery("my-project")                       # pip install "simulacra[bigquery]"
    rows = here.query(CASES_OF_STATE, {"state": "Washington"})
    table = to_table(rows, column="cases", cumulative=True)        # simulacra.series.reading

Both makers give a `Source`, so a query written against one runs unchanged against the other. Parameters (@state) are bound by the
database and never become part of the text.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from simulacra.series.reading import Rows
from simulacra.study import Refused

PATIENCE = 30.0  # seconds for which BigQuery is asked again where it does not answer

CASES_IN_WASHINGTON = """
SELECT
    date AS date, confirmed_cases AS cases, deaths as deaths
FROM `bigquery-public-data.covid19_nyt.us_states`
WHERE
    state_name="Washington"
"""
"""Cumulative cases and deaths of one state by day, as the articles ask for them (dbgannon/predicting_streams, bigquery-Covid.ipynb)."""

CASES_OF_STATE = """
SELECT date, confirmed_cases AS cases, deaths
FROM `bigquery-public-data.covid19_nyt.us_states`
WHERE state_name = @state
ORDER BY date
"""
"""The same for the state that the parameter @state names."""

CASES_BY_STATE = """
SELECT date, state_name AS state, confirmed_cases AS cases, deaths
FROM `bigquery-public-data.covid19_nyt.us_states`
ORDER BY state, date
"""
"""The same for all states; read with series_column="state"."""

GSOD_STATIONS = """
SELECT usaf, wban, name, country, state, lat, lon
FROM `bigquery-public-data.noaa_gsod.stations`
WHERE STRPOS(UPPER(name), UPPER(@name)) > 0
ORDER BY name
"""
"""NOAA GSOD stations with the parameter @name in their name: `usaf` and `wban` are what GSOD_TEMPERATURES asks for."""

GSOD_TEMPERATURES = """
SELECT
    date,
    IF(max = 9999.9, NULL, max) AS temp_max_f,
    IF(min = 9999.9, NULL, min) AS temp_min_f
FROM `bigquery-public-data.noaa_gsod.gsod*`
WHERE _TABLE_SUFFIX BETWEEN @first AND @last AND stn = @stn AND wban = @wban
ORDER BY date
"""
"""Daily extremes (°F, UTC days) of station (@stn, @wban) from year @first to year @last, all four as text; sentinels become NULL."""

# Columns that BigQuery calls otherwise than the files they came from: New York Times us-states.csv; NOAA GSOD, one station and year.
_RENAMED = {
    ("date", "state", "fips", "cases", "deaths"): (
        'SELECT date, "state" AS state_name, fips AS state_fips_code, cases AS confirmed_cases, deaths'
    ),
    ("STATION", "DATE", "MAX", "MAX_ATTRIBUTES", "MIN", "MIN_ATTRIBUTES"): (
        'SELECT left("STATION", 6) AS stn, right("STATION", 5) AS wban, "DATE"::DATE AS date, strftime("DATE"::DATE, \'%Y\') AS year, '
        'strftime("DATE"::DATE, \'%m\') AS mo, strftime("DATE"::DATE, \'%d\') AS da, '
        '"MAX" AS max, "MAX_ATTRIBUTES" AS flag_max, "MIN" AS min, "MIN_ATTRIBUTES" AS flag_min, '
        '* EXCLUDE ("STATION", "DATE", "MAX", "MAX_ATTRIBUTES", "MIN", "MIN_ATTRIBUTES")'
    ),
}
_CODES = ("fips", "station", "stn", "wban", "usaf", "zip")  # digits that are names: 01 is not 1


class Source(Protocol):
    """Something that answers SQL of BigQuery's dialect."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
        """The rows of one SELECT; `parameters` gives each @name in it a value.

        Raises Refused for anything that is not one SELECT, tables or parameters that are not known, and errors of the database.
        """
        ...


def local(tables: Mapping[str, Path | str]) -> Source:
    """Local CSV or Parquet files under the names that BigQuery knows them by, in an embedded database in memory.

    tables    "project.dataset.table" -> file. A New York Times us-states.csv and GSOD station files get BigQuery's column names.

    Queries see these tables and nothing else: the database is closed to files, network and extensions before the first one. Tables
    that end in a year can be asked for together, `gsod*` with _TABLE_SUFFIX. Needs the extra `series`.
    """
    return _Local(tables)


def bigquery(
    project: str, *, maximum_bytes: int = 2**30, price_per_tib: float | None = None, say: Callable[[str], None] = print,
    endpoint: str | None = None, credentials: Any = None,
) -> Source:  # fmt: skip
    """Google BigQuery, billed to `project`. Every query is tried for free first, and what it would read is told through `say`.

    maximum_bytes    a query that would read more is refused before it runs; the service enforces the same limit
    price_per_tib    what your contract says a TiB costs, for the cost to be told; no price is built in, for prices change
    endpoint         another address of the service; `credentials` of google.auth, without them those of your environment

    Needs the extra `bigquery`.
    """
    return _BigQuery(project, maximum_bytes, price_per_tib, say, endpoint, credentials)


class _Local:
    def __init__(self, tables: Mapping[str, Path | str]) -> None:
        try:
            import duckdb
            import sqlglot  # noqa: F401
        except ImportError as error:
            raise Refused('SQL on local files needs an extra: pip install "simulacra[series]"') from error
        self._connection = duckdb.connect(":memory:")
        self._files: dict[str, str] = {}
        self._tables: dict[tuple[str, ...], str] = {}  # parts of the name -> name
        for name, path in tables.items():
            self._load(name, Path(path))
        for setting in ("enable_external_access = false", "lock_configuration = true"):  # no files, network, extensions, variables
            self._connection.execute(f"SET {setting}")

    def _load(self, name: str, path: Path) -> None:
        import duckdb

        parts = tuple(name.strip("`").split("."))
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise Refused(f"a table is called project.dataset.table, not {name!r}")
        if not path.is_file():
            raise Refused(f"table {name}: {path}: no such file")
        try:
            for statement in _places(parts):
                self._connection.execute(statement)
            reader, titles = self._reader(path)
            renamed = next((select for known, select in _RENAMED.items() if set(known) <= set(titles)), "SELECT *")
            target = ".".join(_quoted(part) for part in parts)
            self._connection.execute(f"CREATE TABLE {target} AS {renamed} FROM {reader}", {"path": str(path)})
        except duckdb.Error as error:
            raise Refused(f"table {name}: {path.name} cannot be read: {_first_line(error)}") from error
        self._tables[parts] = name
        self._files[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()

    def _reader(self, path: Path) -> tuple[str, list[str]]:
        """The call that reads a file, with $path for its name, and the titles of its columns."""
        if path.suffix in (".parquet", ".pq"):
            reader = "read_parquet($path)"
            found = self._connection.execute(f"SELECT * FROM {reader} LIMIT 0", {"path": str(path)}).description or []
            return reader, [item[0] for item in found]
        found = self._connection.execute("SELECT * FROM read_csv($path, all_varchar = true) LIMIT 0", {"path": str(path)}).description or []
        titles = [item[0] for item in found]
        codes = ", ".join(f"{_literal(title)}: 'VARCHAR'" for title in titles if title.lower() in _CODES)
        return f"read_csv($path{f', types = {{{codes}}}' if codes else ''})", titles

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
        """See Source."""
        import duckdb
        from sqlglot.errors import SqlglotError

        parameters = dict(parameters or {})
        tree = _parsed(sql)
        self._check_tables(tree)
        _check_parameters(tree, parameters)
        try:
            text = self._together(tree).sql(dialect="duckdb")
            found = self._connection.execute(text, parameters)
            names = [item[0] for item in found.description or ()]
            rows = found.fetchall()
        except (duckdb.Error, SqlglotError) as error:
            raise Refused(f"the query cannot be answered: {_first_line(error)}") from error
        return _rows(names, rows, "the query", self._files)

    def _check_tables(self, tree: Any) -> None:
        from sqlglot import exp

        defined = {cte.alias for cte in tree.find_all(exp.CTE)}
        for table in tree.find_all(exp.Table):
            parts = _parts(table)
            if parts not in self._tables and not (len(parts) == 1 and parts[0] in defined) and not self._years(parts):
                raise Refused(f"there is no table {'.'.join(parts) or table.sql()!r}; known: {', '.join(self._tables.values()) or 'none'}")

    def _years(self, parts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Tables that a name ending in * stands for: suffix -> parts of the name."""
        if not parts or not parts[-1].endswith("*"):
            return {}
        stem = parts[-1][:-1]
        return {known[-1].removeprefix(stem): known for known in self._tables if known[:-1] == parts[:-1] and known[-1].startswith(stem)}

    def _together(self, tree: Any) -> Any:
        """The query with BigQuery's wildcard tables spelled out: DuckDB knows none."""
        import sqlglot
        from sqlglot import exp

        for table in list(tree.find_all(exp.Table)):
            years = self._years(_parts(table))
            if years:
                selects = [
                    f"SELECT *, {_literal(suffix)} AS _TABLE_SUFFIX FROM {'.'.join(_quoted(part) for part in parts)}"
                    for suffix, parts in sorted(years.items())
                ]
                union = sqlglot.parse_one(" UNION ALL BY NAME ".join(selects), read="duckdb")
                table.replace(exp.Subquery(this=union, alias=exp.TableAlias(this=exp.to_identifier(table.alias or "together"))))
        return tree


class _BigQuery:
    def __init__(
        self, project: str, maximum_bytes: int, price: float | None, say: Callable[[str], None], endpoint: str | None, credentials: Any
    ) -> None:
        try:
            from google.cloud import bigquery as service
        except ImportError as error:
            raise Refused('BigQuery needs an extra: pip install "simulacra[bigquery]"') from error
        from google.auth.exceptions import GoogleAuthError

        options = {"api_endpoint": endpoint} if endpoint else None
        try:
            self._client = service.Client(project=project, credentials=credentials, client_options=options)
        except GoogleAuthError as error:
            raise Refused(f"Google does not know who asks ({_first_line(error)}); run: gcloud auth application-default login") from error
        self._maximum, self._price, self._say = maximum_bytes, price, say

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
        """See Source."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import bigquery as service
        from requests.exceptions import RequestException

        parameters = dict(parameters or {})
        bound = [service.ScalarQueryParameter(name, _type(name, value), value) for name, value in parameters.items()]
        retry = service.DEFAULT_RETRY.with_timeout(PATIENCE)  # the client's own ten minutes are longer than anybody waits
        once: dict[str, Any] = {"retry": retry, "job_retry": None, "timeout": 60}
        try:
            free = service.QueryJobConfig(dry_run=True, use_query_cache=False, query_parameters=bound)
            tried = self._client.query(sql, free, **once)
            self._tell(int(tried.total_bytes_processed or 0))
            limited = service.QueryJobConfig(maximum_bytes_billed=self._maximum, query_parameters=bound)
            found = self._client.query(sql, limited, **once).result(retry=retry, job_retry=None)
            names = [field.name for field in found.schema]
            rows = [row.values() for row in found]
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            raise Refused(f"BigQuery: {_in_words(error)}") from error
        asked = " ".join(sql.split()) + (f" {json.dumps(parameters, default=str)}" if parameters else "")
        digest = hashlib.sha256(json.dumps([names, rows], default=str).encode()).hexdigest()
        return _rows(names, rows, "the query", {f"bigquery: {asked}": digest})

    def _tell(self, size: int) -> None:
        """Say what a query reads and costs. Refused where that is over the limit."""
        cost = "" if self._price is None else f", {self._price * size / 2**40:.6f} at {self._price:g} per TiB"
        if size > self._maximum:
            raise Refused(
                f"this query would read {_bytes(size)}{cost}, over the limit of {_bytes(self._maximum)}, and was not run; "
                "name fewer columns or years, or raise maximum_bytes"
            )
        self._say(f"BigQuery: the query reads {_bytes(size)}{cost}; limit {_bytes(self._maximum)}.")


def _parsed(sql: str) -> Any:
    """The query as a tree. Refused where it is not one SELECT, with the place where reading stopped."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, SqlglotError

    try:
        trees = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        place = f"line {first.get('line')}, column {first.get('col')}, at {first.get('highlight')!r}"
        raise Refused(f"the query is not valid SQL: {place}: {first.get('description', error)}") from error
    except SqlglotError as error:
        raise Refused(f"the query is not valid SQL: {_first_line(error)}") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise Refused("one SELECT is expected; nothing else is run")
    return trees[0]


def _check_parameters(tree: Any, parameters: Mapping[str, Any]) -> None:
    from sqlglot import exp

    asked = {parameter.name for parameter in tree.find_all(exp.Parameter)}
    without = sorted(asked - set(parameters))
    if without:
        raise Refused(f"the query asks for @{without[0]}, which has no value; pass parameters={{{without[0]!r}: ...}}")
    unused = sorted(set(parameters) - asked)
    if unused:
        raise Refused(f"the query has no parameter @{unused[0]}; it has {', '.join('@' + name for name in sorted(asked)) or 'none'}")


def _rows(names: list[str], rows: list[Any], origin: str, files: Mapping[str, str]) -> Rows:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Refused(f"two columns of the answer are called {min(twice)!r}; name one of them otherwise (AS ...)")
    return Rows({name: [row[at] for row in rows] for at, name in enumerate(names)}, origin, dict(files))


def _parts(table: Any) -> tuple[str, ...]:
    return tuple(part for part in (table.catalog, table.db, table.name) if part)


def _places(parts: tuple[str, ...]) -> list[str]:
    """What makes the database and the schema that a table of this name lives in."""
    places = [f"ATTACH IF NOT EXISTS ':memory:' AS {_quoted(parts[0])}"] if len(parts) == 3 else []
    inside = ".".join(_quoted(part) for part in parts[:-1])
    return [*places, f"CREATE SCHEMA IF NOT EXISTS {inside}"] if inside else places


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _type(name: str, value: Any) -> str:
    """BigQuery's type of a parameter."""
    kinds = ((bool, "BOOL"), (int, "INT64"), (float, "FLOAT64"), (str, "STRING"), (datetime.datetime, "TIMESTAMP"), (datetime.date, "DATE"))
    found = next((kind for python, kind in kinds if isinstance(value, python)), None)
    if found is None:
        raise Refused(f"parameter @{name} is a {type(value).__name__}; text, numbers, truth values and dates can be passed")
    return found


def _bytes(size: int) -> str:
    """A number of bytes for people: 1536 is "1.5 KiB"."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.3g} {unit}"
    return f"{size} bytes"


def _first_line(error: Exception) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).strip().split("\n")[0]


def _in_words(error: Exception) -> str:
    """What a Google error means and what to do about it."""
    code = int(getattr(error, "code", None) or 0)
    said = _first_line(Exception(getattr(error, "message", "") or str(error)))
    advice = {
        400: "the service does not understand the query",
        401: "nobody is signed in; run: gcloud auth application-default login",
        403: "this account may not do that; check the project's billing and your role in it (BigQuery Job User)",
        404: "there is no such project, data set or table",
    }.get(code, "the service cannot be reached or does not answer; try again later" if code in (0, 429) or code >= 500 else "")
    return f"{advice} ({said})" if advice else said
