"""Public archives are read from look-alikes that a local server gives: no network, and every trap of their formats is in them."""

import datetime
import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from simulacra.series import dates, fetch
from simulacra.study import Refused

GSOD_HEADER = (
    '"STATION","DATE","LATITUDE","LONGITUDE","ELEVATION","NAME","TEMP","TEMP_ATTRIBUTES","MAX","MAX_ATTRIBUTES","MIN","MIN_ATTRIBUTES",'
    '"PRCP","PRCP_ATTRIBUTES","SNDP","FRSHTT"'
)


class Archive(http.server.BaseHTTPRequestHandler):
    """Gives the files in `server.files`; the first `server.busy` requests are answered with 503."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        busy = self.server.busy > 0
        self.server.busy -= busy
        data = self.server.files.get(self.path)
        self.send_response(503 if busy else 404 if data is None else 200)
        self.send_header("Content-Length", str(len(data)) if data and not busy else "0")
        self.end_headers()
        if data and not busy:
            self.wfile.write(data)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMULACRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "WAITS", (0.0, 0.0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    server.files, server.asked, server.busy = {}, [], 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def gsod_year(year, maxima, skip=()):
    """A station and year as NCEI writes it: padded, quoted, flags beside or behind the number, days left out."""
    lines = [GSOD_HEADER]
    for i, (high, flag) in enumerate(maxima):
        if i not in skip:
            day = datetime.date(year, 1, 1) + datetime.timedelta(days=i)
            lines.append(
                f'"01001099999","{day}","70.93","-8.67","9.0","JAN MAYEN NOR NAVY, NO","  33.3","24","{high:>6}","{flag}","  31.1"," ",'
                f'"{99.99 if i % 3 else 0.25:>5}","I","999.9","000000"'
            )
    return ("\n".join(lines) + "\n").encode()


def highs(n, seed=0):
    return [f"{v:.1f}" for v in 35 + 5 * np.random.default_rng(seed).standard_normal(n)]


def said(table, words):
    return any(words in remark for remark in table.remarks)


def test_gsod_years_are_joined_by_date_and_a_day_left_out_is_a_gap(archive):
    first, second = highs(366), highs(40, 1)
    archive.files["/2020/01001099999.csv"] = gsod_year(2020, [(v, " ") for v in first], skip=(10, 11))
    archive.files["/2021/01001099999.csv"] = gsod_year(2021, [(v, "*") for v in second])
    heard = []
    table = fetch.gsod("010010-99999", [2021, 2020], base_url=archive.url, say=heard.append)
    assert table.names == ["010010-99999"]
    assert table.unit == "°F"
    expected = np.array([*first, *second], float)
    expected[[10, 11]] = np.nan
    np.testing.assert_array_equal(table.series("010010-99999"), expected)
    assert (dates.iso(table.days[0]), dates.iso(table.days[-1])) == ("2020-01-01", "2021-02-09")
    assert heard == [fetch.NOTICES["gsod"]]
    assert said(table, "Resolution 40")
    digests = {hashlib.sha256(data).hexdigest() for data in archive.files.values()}
    assert set(table.files.values()) == digests


def test_gsod_sentinels_are_missing_and_flags_are_taken_off(archive):
    marks = highs(40)
    cells = [(v, " ") for v in marks]
    cells[4], cells[7] = ("9999.9*", " "), (f"{marks[7]}*", "*")
    archive.files["/2020/01001099999.csv"] = gsod_year(2020, cells)
    table = fetch.gsod("01001099999", [2020], inputs=("PRCP",), base_url=archive.url, say=lambda _: None)
    found = table.values[0, :, 0]
    assert np.flatnonzero(np.isnan(found)).tolist() == [4]
    assert found[7] == float(marks[7])
    rain = table.values[0, :, 1]
    np.testing.assert_array_equal(np.isnan(rain), np.arange(40) % 3 != 0)
    assert np.nanmax(rain) == 0.25
    assert said(table, "1 values 9999.9 of MAX")


def test_gsod_says_which_years_it_lacks_and_refuses_where_it_has_none(archive):
    archive.files["/2020/01001099999.csv"] = gsod_year(2020, [(v, " ") for v in highs(40)])
    table = fetch.gsod("01001099999", range(2019, 2021), base_url=archive.url, say=lambda _: None)
    assert said(table, "no file of this station for 2019")
    with pytest.raises(Refused, match="no file of station 01001099999 for 2017 to 2018"):
        fetch.gsod("01001099999", range(2017, 2019), base_url=archive.url, say=lambda _: None)
    with pytest.raises(Refused, match="11 digits"):
        fetch.gsod("Jan Mayen", [2020], base_url=archive.url, say=lambda _: None)
    with pytest.raises(Refused, match=r"no column 'FRSHTT'.*TEMP, DEWP, MAX"):
        fetch.gsod("01001099999", [2020], column="FRSHTT", base_url=archive.url, say=lambda _: None)


def ghcn_file(n=40):
    lines = []
    for i in range(n):
        day = (datetime.date(2020, 1, 1) + datetime.timedelta(days=i)).strftime("%Y%m%d")
        measured = (f"TMAX,{-55 + 3 * i},,,W,2400", f"PRCP,{i % 5},T,,W,", f"SNWD,{i},,,W,")
        lines += [f"USW00099999,{day},{rest}" for rest in measured]
    lines[0] = "USW00099999,20200101,TMAX,-9999,,,W,2400"
    lines[9] = "USW00099999,20200104,TMAX,999,,I,W,2400"  # failed the check of internal consistency
    return gzip.compress("\n".join(lines).encode())


def test_ghcn_tenths_become_degrees_and_doubtful_values_become_missing(archive):
    archive.files["/USW00099999.csv.gz"] = ghcn_file()
    heard = []
    table = fetch.ghcn_daily("USW00099999", inputs=("PRCP", "SNWD"), base_url=archive.url, say=heard.append)
    assert table.columns == ["TMAX", "PRCP", "SNWD"]
    assert table.unit == "°C"
    expected = np.round((-55 + 3 * np.arange(40)) / 10, 1)[1:]  # the first day has no maximum
    expected[2] = np.nan
    np.testing.assert_allclose(table.values[0, :, 0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(table.values[0, :, 1], np.arange(1, 40) % 5 / 10)
    np.testing.assert_allclose(table.values[0, :, 2], np.arange(1, 40))
    assert said(table, "1 values failed a quality check")
    assert heard == [fetch.NOTICES["ghcn"]]


def test_ghcn_refuses_what_it_lacks_with_what_it_has(archive):
    archive.files["/USW00099999.csv.gz"] = ghcn_file()
    with pytest.raises(Refused, match="has no TAVG; it has PRCP, SNWD, TMAX"):
        fetch.ghcn_daily("USW00099999", column="TAVG", base_url=archive.url, say=lambda _: None)
    with pytest.raises(Refused, match="no station USW00000000"):
        fetch.ghcn_daily("USW00000000", base_url=archive.url, say=lambda _: None)
    with pytest.raises(Refused, match="11 characters"):
        fetch.ghcn_daily("Seattle", base_url=archive.url, say=lambda _: None)


def test_states_come_as_daily_increments_with_the_licence_said(archive):
    totals = {name: np.cumsum(np.random.default_rng(seed).poisson(20, 60)) for seed, name in enumerate(("Ohio", "Utah"))}
    lines = ["date,state,fips,cases,deaths"]
    for i in range(60):
        day = datetime.date(2020, 3, 1) + datetime.timedelta(days=i)
        lines += [f"{day},{name},01,{total[i]},{total[i] // 10}" for name, total in totals.items()]
    archive.files["/us-states.csv"] = ("\n".join(lines) + "\n").encode()
    heard = []
    table = fetch.nyt_states(base_url=archive.url, say=heard.append)
    np.testing.assert_array_equal(table.series("Utah"), np.diff(totals["Utah"]))
    assert "non-commercial" in heard[0]
    assert table.remarks[0] == heard[0] == fetch.NOTICES["nyt"]


def test_what_was_fetched_is_kept_until_it_is_asked_for_afresh(archive):
    archive.files["/USW00099999.csv.gz"] = ghcn_file(40)
    lengths = [len(fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None).days)]
    archive.files["/USW00099999.csv.gz"] = ghcn_file(50)
    for refresh in (False, True, False):
        lengths.append(len(fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None, refresh=refresh).days))
    assert lengths == [39, 39, 49, 49]
    assert len(archive.asked) == 2


def test_a_failed_refresh_leaves_the_old_copy(archive):
    archive.files["/USW00099999.csv.gz"] = ghcn_file()
    fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None)
    archive.busy = 3
    with pytest.raises(Refused, match="answers 503"):
        fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None, refresh=True)
    archive.files.clear()
    assert len(fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None).days) == 39


def test_a_busy_archive_is_asked_three_times(archive):
    archive.files["/USW00099999.csv.gz"] = ghcn_file()
    archive.busy = 2
    assert len(fetch.ghcn_daily("USW00099999", base_url=archive.url, say=lambda _: None).days) == 39
    assert len(archive.asked) == 3


def test_without_a_network_the_reader_is_told_so(archive):
    with pytest.raises(Refused, match=r"cannot be reached.*tried 3 times.*read\(\)"):
        fetch.ghcn_daily("USW00099999", base_url="http://127.0.0.1:9", say=lambda _: None)
