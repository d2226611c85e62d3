"""`simulacra fetch` and `simulacra query`: series and tables of others into CSV files that `forecast` and `run` read."""

import numpy as np
import pytest
from typer.testing import CliRunner

from simulacra.cli import app
from simulacra.series import fetch, sql
from simulacra.series.reading import Rows, Table, read
from simulacra.series.writing import write_rows, write_table
from simulacra.study import Refused

TABLE = "bigquery-public-data.covid19_nyt.us_states"


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def a_table(names=("a", "b")):
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(20, 5, (len(names), 40, 2)), 2)
    values[0, 7, 0] = np.nan
    return Table(names, np.arange(10_000, 10_040), values, ("tmax", "tmin"), "°C", ["Licence: none, simulated.", "One day is missing."], {})


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_table_that_was_written_is_read_again_as_it_was(names, tmp_path):
    table = a_table(names)
    write_table(table, tmp_path / "t.csv")
    again = read(tmp_path / "t.csv", column="tmax", inputs=("tmin",), series_column="series" if len(names) > 1 else None, unit="C")
    assert np.array_equal(again.values, table.values, equal_nan=True)
    assert np.array_equal(again.days, table.days)


def test_rows_of_a_query_keep_their_text_and_lose_nothing_but_null(tmp_path):
    write_rows(Rows({"fips": ["01", "53"], "name": ["a, b", None]}, "query"), tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == 'fips,name\n01,"a, b"\n53,\n'


@pytest.mark.parametrize(("name", "words"), [("t.txt", r"ends in \.csv"), ("no/t.csv", "no folder")])
def test_a_place_that_cannot_be_written_is_refused(name, words, tmp_path):
    with pytest.raises(Refused, match=words):
        write_table(a_table(), tmp_path / name)


def test_the_articles_query_runs_on_a_local_file_and_gives_a_series(tmp_path):
    states = {"Washington": 53, "Texas": 48}
    lines = [f"2020-03-{day:02d},{state},{fips},{day * day * fips},0" for day in range(1, 31) for state, fips in states.items()]
    file, query, out = tmp_path / "us.csv", tmp_path / "q.sql", tmp_path / "o.csv"
    file.write_text("\n".join(["date,state,fips,cases,deaths", *lines]) + "\n")
    query.write_text(sql.CASES_OF_STATE)
    done = invoke("query", query, "--table", f"{TABLE}={file}", "--parameter", "state=Texas", "-o", out)
    assert done.exit_code == 0, done.output
    table = read(out, column="cases", cumulative=True)
    assert table.values[0, :, 0].tolist() == [48.0 * (2 * day + 1) for day in range(1, 30)]


def test_a_query_needs_one_place_for_its_tables():
    for arguments in ((), ("--table", f"{TABLE}=x.csv", "--project", "mine")):
        done = invoke("query", "SELECT 1", *arguments)
        assert done.exit_code == 2
        assert "--table" in done.output
    assert invoke("query", "SELECT 1", "--table", "nothing").exit_code == 2


def test_what_is_fetched_is_written_with_its_licence_told(tmp_path, monkeypatch):
    asked = {}

    def ghcn(station, *, say, **options):
        asked.update(options, station=station)
        say("Licence: public")
        return a_table(("USW00024233",))

    monkeypatch.setattr(fetch, "ghcn_daily", ghcn)
    done = invoke("fetch", "ghcn", "USW00024233", "--column", "TMAX", "--inputs", "TMIN,PRCP", "-o", tmp_path / "s.csv")
    assert done.exit_code == 0, done.output
    assert "Licence: public" in done.output
    assert "One day is missing." in done.output
    assert asked == {"station": "USW00024233", "column": "TMAX", "inputs": ("TMIN", "PRCP"), "refresh": False}
    assert read(tmp_path / "s.csv", column="tmax").values.shape == (1, 40, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("moon",), "gsod, ghcn and nyt"), (("ghcn",), "needs a station"), (("gsod", "72793524234", "--years", "late"), "2012-2015")],
)
def test_what_cannot_be_fetched_is_said(arguments, words):
    done = invoke("fetch", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())


def test_years_are_spans_and_lists(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(fetch, "gsod", lambda station, years, **options: asked.append(years) or a_table(("x",)))
    invoke("fetch", "gsod", "72793524234", "--years", "2012-2014,2016", "-o", tmp_path / "s.csv")
    assert asked == [[2012, 2013, 2014, 2016]]
