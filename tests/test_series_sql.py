"""One query, two places: BigQuery's SQL runs unchanged on local files and against a stand-in for the service."""

import datetime
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from simulacra.series import sql
from simulacra.series.reading import read, to_table
from simulacra.study import Refused

pytest.importorskip("duckdb", reason="needs the extra series")
pytest.importorskip("sqlglot", reason="needs the extra series")

NYT = "bigquery-public-data.covid19_nyt.us_states"
START = datetime.date(2020, 3, 1)
TOTALS = {state: np.cumsum(np.random.default_rng(seed).poisson(9, 40)).tolist() for seed, state in enumerate(("Texas", "Washington"))}


@pytest.fixture
def states(tmp_path):
    """A file as the New York Times writes it, with numbers made here."""
    lines = ["date,state,fips,cases,deaths"]
    for i in range(40):
        day = START + datetime.timedelta(days=i)
        lines += [f"{day},{state},{code},{TOTALS[state][i]},0" for state, code in (("Texas", "48"), ("Washington", "53"))]
    path = tmp_path / "us-states.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def gsod_file(tmp_path, year, maxima):
    path = tmp_path / f"{year}.csv"
    lines = ['"STATION","DATE","NAME","MAX","MAX_ATTRIBUTES","MIN","MIN_ATTRIBUTES"']
    lines += [f'"72797624217","{year}-06-{i + 1:02d}","JAN MAYEN, NO","  {m}","*","  30.1"," "' for i, m in enumerate(maxima)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_query_of_the_articles_runs_unchanged_on_a_local_file(states):
    rows = sql.local({NYT: states}).query(sql.CASES_IN_WASHINGTON)
    assert list(rows.columns) == ["date", "cases", "deaths"]
    assert rows.columns["cases"] == TOTALS["Washington"]
    assert rows.columns["date"][0] == START
    assert rows.files == {str(states): hashlib.sha256(states.read_bytes()).hexdigest()}


def test_a_query_gives_the_table_that_the_file_gives(states):
    asked = to_table(sql.local({NYT: states}).query(sql.CASES_BY_STATE), column="cases", series_column="state", cumulative=True)
    direct = read(states, column="cases", series_column="state", cumulative=True)
    assert asked.names == direct.names == ["Texas", "Washington"]
    np.testing.assert_array_equal(asked.values, direct.values)
    np.testing.assert_array_equal(asked.days, direct.days)


def test_a_parameter_is_a_value_and_never_text_of_the_query(states):
    source = sql.local({NYT: states})
    assert source.query(sql.CASES_OF_STATE, {"state": "Texas"}).columns["cases"] == TOTALS["Texas"]
    assert len(source.query(sql.CASES_OF_STATE, {"state": "x' OR '1'='1"})) == 0
    with pytest.raises(Refused, match="asks for @state, which has no value"):
        source.query(sql.CASES_OF_STATE)
    with pytest.raises(Refused, match="no parameter @county; it has @state"):
        source.query(sql.CASES_OF_STATE, {"state": "Texas", "county": "King"})


def test_years_are_asked_for_together_and_sentinels_are_no_temperatures(tmp_path):
    files = {y: gsod_file(tmp_path, y, m) for y, m in ((2019, [40.1, 41.2]), (2020, [9999.9, 43.4]), (2021, [44.5]))}
    source = sql.local({f"bigquery-public-data.noaa_gsod.gsod{year}": path for year, path in files.items()})
    rows = source.query(sql.GSOD_TEMPERATURES, {"first": "2019", "last": "2020", "stn": "727976", "wban": "24217"})
    assert rows.columns["temp_max_f"] == [40.1, 41.2, None, 43.4]
    assert rows.columns["date"][-1] == datetime.date(2020, 6, 2)


def test_digits_that_are_names_keep_their_zeros(tmp_path):
    path = tmp_path / "stations.csv"
    lines = ["usaf,wban,name,country,state,lat,lon", "010010,00441,JAN MAYEN,NO,,70.9,-8.7", "727976,24217,BELLINGHAM,US,WA,48.8,-122.5"]
    path.write_text("\n".join(lines) + "\n")
    rows = sql.local({"bigquery-public-data.noaa_gsod.stations": path}).query(sql.GSOD_STATIONS, {"name": "mayen"})
    assert (rows.columns["usaf"], rows.columns["wban"]) == (["010010"], ["00441"])
    path.write_text("\n".join(lines[::2]) + "\n")  # without zeros in front they are text all the same, as on BigQuery
    rows = sql.local({"bigquery-public-data.noaa_gsod.stations": path}).query(sql.GSOD_STATIONS, {"name": "bell"})
    assert (rows.columns["usaf"], rows.columns["wban"]) == (["727976"], ["24217"])


def test_functions_of_bigquery_mean_what_they_mean_there(states):
    rows = sql.local({NYT: states}).query(
        "SELECT DATE_TRUNC(date, WEEK) AS week, SAFE_DIVIDE(MAX(confirmed_cases), 0) AS none, COUNTIF(confirmed_cases > 0) AS n "
        f"FROM `{NYT}` WHERE state_name = 'Texas' GROUP BY week ORDER BY week"
    )
    assert {day.weekday() for day in rows.columns["week"]} == {6}  # BigQuery's weeks begin on Sunday
    assert set(rows.columns["none"]) == {None}
    assert sum(rows.columns["n"]) == sum(total > 0 for total in TOTALS["Texas"])


def test_mistakes_in_a_query_are_told_with_their_place_and_what_would_be_right(states):
    source = sql.local({NYT: states})
    with pytest.raises(Refused, match=r"no table 'covid19_nyt.us_counties'; known: bigquery-public-data.covid19_nyt.us_states"):
        source.query("SELECT date FROM covid19_nyt.us_counties")
    with pytest.raises(Refused, match="line 2, column"):
        source.query("SELECT date\nFRM x WHERE (")
    with pytest.raises(Refused, match="state_nam"):
        source.query(f"SELECT state_nam FROM `{NYT}`")
    with pytest.raises(Refused, match="two columns of the answer are called 'date'"):
        source.query(f"SELECT date, date FROM `{NYT}`")


@pytest.mark.parametrize(
    "text",
    [
        f"DROP TABLE `{NYT}`", "SELECT 1; SELECT 2", "", "COPY (SELECT 1) TO '{secret}'", "ATTACH '{secret}'", "SET threads = 1",
        "SELECT * FROM read_csv('{secret}')", "SELECT * FROM read_text('{secret}')", "SELECT * FROM '{secret}'", "SELECT * FROM secret",
        "SELECT * FROM duckdb_settings()",
    ],
)  # fmt: skip
def test_a_query_reads_the_given_tables_and_nothing_else(states, tmp_path, text):
    secret = tmp_path / "secret.csv"  # also the name of a variable, which DuckDB would look at if it were allowed to
    secret.write_text("word\nhush\n")
    with pytest.raises(Refused):
        sql.local({NYT: states}).query(text.replace("{secret}", str(secret)))
    assert secret.read_text() == "word\nhush\n"


def test_the_database_itself_is_closed_and_not_only_our_check(states, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    connection = sql.local({NYT: states})._connection
    out = tmp_path / "out.csv"
    for statement in (f"SELECT * FROM read_text('{states}')", f"COPY (SELECT 1) TO '{out}'", "LOAD httpfs", "SET threads = 1"):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)


def test_a_table_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(Refused, match=r"table a.b: .*no such file"):
        sql.local({"a.b": tmp_path / "nothing.csv"})
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(Refused, match=r"table t: broken\.parquet cannot be read"):
        sql.local({"t": tmp_path / "broken.parquet"})


def test_the_query_of_the_articles_gives_the_numbers_that_they_print(data_folder):
    path = data_folder / "covid" / "nyt_us_states.csv.gz"
    rows = sql.local({NYT: path}).query(sql.CASES_IN_WASHINGTON)
    printed = {"2020-01-21": (1, 0), "2020-06-27": (33031, 1311), "2020-06-30": (34541, 1333), "2020-07-01": (35258, 1340)}
    found = {str(d): (c, k) for d, c, k in zip(*(rows.columns[n] for n in ("date", "cases", "deaths")), strict=True)}
    assert {day: found[day] for day in printed} == printed


def test_the_example_in_the_documentation_runs(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "series_data.md").read_text(encoding="utf-8")
    code = re.search(r'^```python title="sql.py"\n(.*?)^```', page, flags=re.MULTILINE | re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1. 3. 5. 7. 9.]")  # differences of squares


# A stand-in for the REST interface of BigQuery: jobs.insert, jobs.get, jobs.getQueryResults.


class Service(http.server.BaseHTTPRequestHandler):
    """Answers the requests of the client from `server.answers`, and keeps what was asked in `server.asked`."""

    def log_message(self, *_):
        pass

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def job(self, body):
        size = str(self.server.size)
        reference = {"projectId": "p", "jobId": "j", "location": "US"}
        statistics = {"query": {"totalBytesProcessed": size, "statementType": "SELECT"}, "totalBytesProcessed": size}
        return {**body, "id": "p:US.j", "jobReference": reference, "status": {"state": "DONE"}, "statistics": statistics}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body["configuration"])
        if self.server.error:
            status, reason, message = self.server.error
            self.reply(status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}})
        else:
            self.reply(200, self.job(body))

    def do_GET(self):
        parts, asked = urlparse(self.path).path.split("/"), parse_qs(urlparse(self.path).query)
        if "queries" not in parts:
            self.reply(200, self.job({"configuration": {"query": {"query": ""}}}))
            return
        fields = [{"name": "date", "type": "DATE"}, {"name": "cases", "type": "INTEGER"}]
        start, page, total = int(asked.get("pageToken", ["0"])[0]), 15, len(TOTALS["Texas"])
        days = [START + datetime.timedelta(days=i) for i in range(total)]
        rows = [{"f": [{"v": str(day)}, {"v": str(count)}]} for day, count in zip(days, TOTALS["Texas"], strict=True)][start : start + page]
        reference = {"projectId": "p", "jobId": "j"}
        body = {"jobComplete": True, "schema": {"fields": fields}, "totalRows": str(total), "jobReference": reference}
        if asked.get("maxResults") != ["0"]:
            self.server.pages += 1
            body |= {"rows": rows} | ({"pageToken": str(start + page)} if start + page < total else {})
        self.reply(200, body)


@pytest.fixture
def service():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.asked, server.size, server.error, server.pages = [], 3 * 2**20, None, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def there(service):
    pytest.importorskip("google.cloud.bigquery", reason="needs the extra bigquery")
    from google.auth.credentials import AnonymousCredentials

    heard = []

    def connect(**options):
        source = sql.bigquery(
            "p", endpoint=f"http://127.0.0.1:{service.server_port}", credentials=AnonymousCredentials(), say=heard.append, **options
        )
        return source, heard

    return connect


def test_bigquery_is_asked_for_the_price_first_and_the_answer_is_the_local_one(service, there, states):
    source, heard = there(price_per_tib=5.0)
    rows = source.query(sql.CASES_OF_STATE, {"state": "Texas"})
    local = sql.local({NYT: states}).query(sql.CASES_OF_STATE, {"state": "Texas"})
    assert rows.columns["date"] == local.columns["date"]
    assert rows.columns["cases"] == local.columns["cases"]
    assert service.pages == 3
    dry, real = service.asked
    assert dry["dryRun"] is True
    assert dry["query"]["useQueryCache"] is False
    assert not real.get("dryRun")
    assert real["query"]["maximumBytesBilled"] == str(2**30)
    assert heard == ["BigQuery: the query reads 3 MiB, 0.000014 at 5 per TiB; limit 1 GiB."]
    assert list(rows.files) == [f'bigquery: {" ".join(sql.CASES_OF_STATE.split())} {{"state": "Texas"}}']


def test_bigquery_gets_parameters_beside_the_query_and_not_in_it(service, there):
    source, _ = there()
    source.query(sql.CASES_OF_STATE, {"state": "x' OR '1'='1"})
    for asked in service.asked:
        assert asked["query"]["query"] == sql.CASES_OF_STATE
        (parameter,) = asked["query"]["queryParameters"]
        assert parameter == {"name": "state", "parameterType": {"type": "STRING"}, "parameterValue": {"value": "x' OR '1'='1"}}


def test_bigquery_types_parameters_by_their_values_and_refuses_others(service, there):
    source, _ = there()
    given = {"a": True, "b": 3, "c": 0.5, "d": datetime.date(2020, 1, 1), "e": "x"}
    source.query("SELECT @a, @b, @c, @d, @e", given)
    types = {p["name"]: p["parameterType"]["type"] for p in service.asked[0]["query"]["queryParameters"]}
    assert types == {"a": "BOOL", "b": "INT64", "c": "FLOAT64", "d": "DATE", "e": "STRING"}
    with pytest.raises(Refused, match="@f is a list"):
        source.query("SELECT @f", {"f": [1]})


def test_a_query_over_the_limit_is_refused_before_it_runs(service, there):
    service.size = 5 * 2**30
    source, heard = there(maximum_bytes=2**30)
    with pytest.raises(Refused, match="would read 5 GiB, over the limit of 1 GiB, and was not run"):
        source.query(sql.CASES_BY_STATE)
    assert [asked.get("dryRun") for asked in service.asked] == [True]
    assert heard == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ((403, "accessDenied", "Access Denied: Project p"), r"may not do that.*Access Denied: Project p"),
        ((404, "notFound", "Not found: Table x"), r"no such project, data set or table.*Not found: Table x"),
        ((400, "invalidQuery", "Syntax error: at [2:1]"), r"does not understand the query.*at \[2:1\]"),
    ],
)
def test_errors_of_bigquery_are_told_in_plain_words(service, there, error, words):
    service.error = error
    source, _ = there()
    with pytest.raises(Refused, match=words):
        source.query(sql.CASES_BY_STATE)
    assert len(service.asked) == 1


def test_a_service_that_does_not_answer_is_given_up_in_plain_words(service, there, monkeypatch):
    monkeypatch.setattr(sql, "PATIENCE", 0.1)
    source, _ = there()
    service.error = (503, "backendError", "try later")
    with pytest.raises(Refused, match="cannot be reached or does not answer"):
        source.query(sql.CASES_BY_STATE)


def test_without_a_network_bigquery_says_so(monkeypatch):
    pytest.importorskip("google.cloud.bigquery", reason="needs the extra bigquery")
    from google.auth.credentials import AnonymousCredentials

    monkeypatch.setattr(sql, "PATIENCE", 0.1)
    with pytest.raises(Refused, match="cannot be reached"):
        sql.bigquery("p", endpoint="http://127.0.0.1:9", credentials=AnonymousCredentials()).query("SELECT 1")
