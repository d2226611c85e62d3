"""Series are read as people write them; what would mislead a forecast is refused in words that say what to do."""

import datetime
import gzip
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulacra.series import dates
from simulacra.series.reading import Rows, contradiction, looks_cumulative, read, to_table
from simulacra.study import Refused

START = datetime.date(2020, 1, 1)


def days(n, step=1, start=START):
    return [start + datetime.timedelta(days=i * step) for i in range(n)]


def values(n, seed=0):
    return np.round(50 + 10 * np.random.default_rng(seed).standard_normal(n), 1)


def write(path, header, rows, sep=","):
    path.write_text("\n".join([header, *(sep.join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def series(tmp_path, dated, measured, header="date,tmax", name="mine.csv"):
    return write(tmp_path / name, header, zip(dated, measured, strict=True))


def said(table, words):
    return any(words in remark for remark in table.remarks)


def test_a_plain_file_comes_back_as_it_is(tmp_path):
    y = values(30)
    path = series(tmp_path, days(30), y)
    table = read(path)
    assert table.names == ["mine"]
    assert table.columns == ["tmax"]
    assert table.every == 1
    np.testing.assert_array_equal(table.values[0, :, 0], y)
    np.testing.assert_array_equal(table.series("mine"), y)
    assert [dates.iso(day) for day in table.days] == [day.isoformat() for day in days(30)]
    assert table.files == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    "written",
    [
        "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%B %d, %Y",
        "%Y-%m-%d 00:00:00", "%Y-%m-%dT07:00:00Z", "%Y-%m-%dT23:30:00-08:00", "%m/%d/%Y 11:30 PM",
    ],
)  # fmt: skip
def test_all_ways_to_write_a_date_give_the_same_days(tmp_path, written):
    table = read(series(tmp_path, [f'"{day.strftime(written)}"' for day in days(40)], values(40)))
    assert [dates.iso(day) for day in table.days] == [day.isoformat() for day in days(40)]


@given(st.dates(datetime.date(1750, 1, 1), datetime.date(2199, 12, 31)))
@settings(max_examples=50, deadline=None)
def test_a_day_and_its_iso_date_are_inverse(date):
    found = dates.stamps([date.isoformat()], "date", str)
    assert dates.iso(found.days[0]) == date.isoformat()
    assert found.days[0] == dates.day_of(date) == (date - datetime.date(1970, 1, 1)).days


def test_seconds_since_1970_are_utc_days(tmp_path):
    seconds = [86400 * dates.day_of(day) + 3600 for day in days(20)]
    for scale in (1, 1000):
        table = read(series(tmp_path, [s * scale for s in seconds], values(20), header="timestamp,level"))
        assert dates.iso(table.days[0]) == "2020-01-01"
        assert said(table, "UTC")


def test_a_zone_moves_no_day_and_is_reported(tmp_path):
    late = [f"{day} 23:30:00-08:00" for day in days(20)]  # a day later in UTC
    table = read(series(tmp_path, late, values(20)))
    assert dates.iso(table.days[0]) == "2020-01-01"
    assert said(table, "-08:00")


def test_noon_and_midnight_of_twelve_hours_are_told_apart():
    cells = [f"1/31/2020 {clock}" for clock in ("12:30 AM", "1:00 AM", "12:00 PM", "11:59 PM")]
    assert (dates.stamps(cells, "time", str).clock / 60).tolist() == [30, 60, 720, 1439]


def test_day_or_month_first_is_decided_by_the_whole_column_and_else_refused(tmp_path):
    table = read(series(tmp_path, [d.strftime("%d/%m/%Y") for d in days(30)], values(30)))
    assert said(table, "the day comes first: seen from '13/01/2020'")
    undecided = [f"{1 + i % 12:02d}/{1 + i // 12:02d}/2020" for i in range(24)]
    with pytest.raises(Refused, match=r"no date tells day from month.*2020-04-03"):
        read(series(tmp_path, undecided, values(24)))
    with pytest.raises(Refused, match=r"day first.*month first"):
        read(series(tmp_path, ["13/01/2020", "01/14/2020"] * 10, values(20)))


def test_a_mixture_of_ways_to_write_dates_is_refused_with_both_places(tmp_path):
    mixed = [d.isoformat() for d in days(20)]
    mixed[7] = "8 Jan 2020"
    with pytest.raises(Refused, match=r"'2020-01-01' \(line 2\) and '8 Jan 2020' \(line 9\)"):
        read(series(tmp_path, mixed, values(20)))


def test_no_date_column_is_refused_and_so_is_a_choice_between_two(tmp_path):
    with pytest.raises(Refused, match="no date column"):
        read(series(tmp_path, range(30), values(30), header="step,tmax"))
    two = write(tmp_path / "two.csv", "first,second,y", zip(days(30), days(30), values(30), strict=True))
    with pytest.raises(Refused, match="date_column='first'"):
        read(two)
    assert len(read(two, date_column="second").days) == 30


def test_a_file_without_header_is_refused(tmp_path):
    with pytest.raises(Refused, match="first line is data"):
        read(series(tmp_path, days(30), values(30), header="2019-12-31,40"))


def test_year_month_and_day_in_three_columns_are_a_date():
    dated = days(20)
    columns = {"year": [f"{d.year}" for d in dated], "mo": [f"{d.month:02d}" for d in dated], "da": [f"{d.day:02d}" for d in dated]}
    table = to_table(Rows({**columns, "max": values(20)}, "gsod"))
    assert [dates.iso(day) for day in table.days] == [d.isoformat() for d in dated]


def test_a_column_without_a_name_is_no_column(tmp_path):
    path = write(tmp_path / "a.csv", ",date,tmax,", [(i, d, y, "") for i, (d, y) in enumerate(zip(days(30), values(30), strict=True))])
    np.testing.assert_array_equal(read(path).values[0, :, 0], values(30))
    with pytest.raises(Refused, match="no column ''"):
        read(path, column="")


def test_the_column_is_asked_for_where_several_could_be_meant(tmp_path):
    rows = list(zip(days(30), values(30), values(30, 1), [47.6] * 30, strict=True))
    path = write(tmp_path / "two.csv", "date,tmax,tmin,latitude", rows)
    with pytest.raises(Refused, match=r"column='tmax'; numbers are in tmax, tmin$"):
        read(path)
    with pytest.raises(Refused, match="no column 'rain'; it has date, tmax"):
        read(path, column="rain")
    table = read(path, column="tmin", inputs=("tmax",))
    assert table.columns == ["tmin", "tmax"]
    np.testing.assert_array_equal(table.values[0, :, 1], values(30))


def test_missing_days_are_gaps_on_the_grid_and_are_counted(tmp_path):
    y = values(30)
    keep = [i for i in range(30) if i not in (4, 10, 11, 12)]
    table = read(series(tmp_path, [days(30)[i] for i in keep], y[keep]))
    assert np.flatnonzero(np.isnan(table.values[0, :, 0])).tolist() == [4, 10, 11, 12]
    np.testing.assert_array_equal(np.diff(table.days), 1)
    assert said(table, "4 of 30 days have no value (13.3%); the longest gap is 3 days from 2020-01-11")


def test_rows_in_any_order_give_the_same_series(tmp_path):
    y, order = values(60), np.random.default_rng(1).permutation(60)
    table = read(series(tmp_path, [days(60)[i] for i in order], y[order]))
    np.testing.assert_array_equal(table.values[0, :, 0], y)
    assert said(table, "out of order")


def test_equal_duplicates_are_merged_and_a_value_fills_an_empty_twin(tmp_path):
    y = values(30)
    path = series(tmp_path, [*days(30), days(30)[3], days(30)[5]], [*y, y[3], ""])
    table = read(path)
    np.testing.assert_array_equal(table.values[0, :, 0], y)
    assert said(table, "2 rows repeat")


def test_merging_duplicates_leaves_a_column_alone_that_is_empty_in_both(tmp_path):
    rows = [(d, y, "") for d, y in zip(days(20), values(20), strict=True)]
    table = read(write(tmp_path / "a.csv", "date,y,rain", [*rows, rows[0]]), column="y", inputs=("rain",))
    assert np.isnan(table.values[0, :, 1]).all()


def test_two_interleaved_series_are_recognised_and_the_column_that_tells_them_apart_is_named(tmp_path):
    both = [(d, place, y) for i, d in enumerate(days(30)) for place, y in (("Bergen", values(30)[i]), ("Oslo", values(30, 1)[i]))]
    path = write(tmp_path / "two.csv", "date,place,tmax", both)
    with pytest.raises(Refused, match=r"2 series in one file.*series_column='place'"):
        read(path)
    table = read(path, series_column="place")
    assert table.names == ["Bergen", "Oslo"]
    np.testing.assert_array_equal(table.series("Oslo"), values(30, 1))
    with pytest.raises(Refused, match="no series is called 'Rome'; known: Bergen, Oslo"):
        table.series("Rome")
    nameless = write(tmp_path / "nameless.csv", "date,tmax", [(d, y) for d, _, y in both])
    with pytest.raises(Refused, match="2 series interleaved"):
        read(nameless)


def test_a_single_contradiction_is_not_called_interleaved(tmp_path):
    with pytest.raises(Refused, match="2020-01-04 has different values in line 5 and line 32; days with more than one value: 1"):
        read(series(tmp_path, [*days(30), days(30)[3]], [*values(30), 99]))


def test_several_measurements_a_day_are_refused(tmp_path):
    hours = [f"{d}T{h:02d}:00" for d in days(20) for h in (0, 6, 12, 18)]
    with pytest.raises(Refused, match=r"up to 4 measurements a day.*mean, the maximum or the sum"):
        read(series(tmp_path, hours, values(80)))
    twice = [f"{d}T07:00" for d in days(20) for _ in range(2)]  # one hour of the day only: not several measurements, but two series
    with pytest.raises(Refused, match="2 series interleaved"):
        read(series(tmp_path, twice, values(40)))


def test_weeks_are_recognised_and_a_date_off_the_week_is_refused(tmp_path):
    y = values(20)
    table = read(series(tmp_path, days(20, 7), y))
    assert table.every == 7
    assert said(table, "Wednesdays")
    np.testing.assert_array_equal(table.values[0, :, 0], y)
    off = days(20, 7)
    off[9] += datetime.timedelta(days=1)
    with pytest.raises(Refused, match="2020-03-05 is not whole weeks after 2020-01-01"):
        read(series(tmp_path, off, y))
    with pytest.raises(Refused, match="dates are 30 days apart"):
        read(series(tmp_path, days(20, 30), y))
    with pytest.raises(Refused, match="missing on 85% of its days"):
        read(series(tmp_path, days(20, 7), y), every="day")


def test_a_missing_week_is_a_gap_of_weeks(tmp_path):
    dated = days(20, 7)
    del dated[5]
    table = read(series(tmp_path, dated, values(19)))
    assert table.values.shape == (1, 20, 1)
    assert said(table, "1 of 20 weeks have no value (5.0%); the longest gap is 1 week from 2020-02-05")


def test_few_points_and_constants_are_refused(tmp_path):
    with pytest.raises(Refused, match="holds 3 values; at least 14"):
        read(series(tmp_path, days(3), values(3)))
    with pytest.raises(Refused, match="is 7 on all 30 days"):
        read(series(tmp_path, days(30), [7] * 30))


def test_forty_percent_missing_warns_and_more_than_sixty_is_refused(tmp_path):
    def with_missing(share):
        y = values(100).astype(object)
        y[np.random.default_rng(0).permutation(np.arange(1, 99))[: int(100 * share)]] = "NA"
        return series(tmp_path, days(100), y)

    table = read(with_missing(0.4))
    assert said(table, "Warning: 40 of 100 days have no value (40.0%)")
    with pytest.raises(Refused, match="missing on 65%"):
        read(with_missing(0.65))


@pytest.mark.parametrize("cell", ["-inf", "Infinity", "1e400"])
def test_infinite_values_are_refused_with_their_line(tmp_path, cell):
    y = values(30).astype(object)
    y[4] = cell
    with pytest.raises(Refused, match="line 6: tmax is infinite"):
        read(series(tmp_path, days(30), y))


def test_a_few_unreadable_cells_are_missing_and_many_are_refused(tmp_path):
    y = values(100).astype(object)
    y[4] = "broken"
    table = read(series(tmp_path, days(100), y))
    assert np.flatnonzero(np.isnan(table.values[0, :, 0])).tolist() == [4]
    assert said(table, "'broken' in line 6")
    y[10:40] = "broken"
    with pytest.raises(Refused, match="31 of 100 cells"):
        read(series(tmp_path, days(100), y), column="tmax")


def test_torn_rows_are_set_aside_if_few_and_refused_if_many(tmp_path):
    rows = [[d, y] for d, y in zip(days(100), values(100), strict=True)]
    rows[6] = rows[6][:1]
    table = read(write(tmp_path / "a.csv", "date,tmax", rows))
    assert said(table, "1 rows that do not have 2 cells were set aside, first line 8")
    with pytest.raises(Refused, match="100 of 100 rows do not have the 3 cells"):
        read(write(tmp_path / "a.csv", "date,tmax,tmin", [[d, y] for d, y in zip(days(100), values(100), strict=True)]))


@pytest.mark.parametrize("sentinel", [9999.9, 999.9, 99.99, -9999])
def test_sentinels_of_noaa_are_missing_values_and_are_never_averaged(tmp_path, sentinel):
    y = np.round(np.random.default_rng(0).uniform(0, 3, 40), 2)
    y[[3, 8]] = sentinel
    table = read(series(tmp_path, days(40), ["" if i == 5 else v for i, v in enumerate(y)], header="date,prcp"))
    assert np.flatnonzero(np.isnan(table.values[0, :, 0])).tolist() == [3, 5, 8]
    assert np.nanmax(table.values) < 3.01
    assert said(table, f"2 values {sentinel:g} of 'prcp'")


def test_a_pressure_of_999_point_9_is_no_sentinel(tmp_path):
    y = np.round(1010 + 5 * np.random.default_rng(0).standard_normal(40), 1)
    y[3] = 999.9
    np.testing.assert_array_equal(read(series(tmp_path, days(40), y, header="date,slp")).values[0, :, 0], y)


def test_flags_thousands_and_decimal_commas_are_read(tmp_path):
    y = values(30)
    np.testing.assert_array_equal(read(series(tmp_path, days(30), [f"{v}*" for v in y])).values[0, :, 0], y)
    big = np.random.default_rng(0).integers(1000, 99999, 30)
    np.testing.assert_array_equal(read(series(tmp_path, days(30), [f'"{v:,}"' for v in big])).values[0, :, 0], big)
    semicolons = write(tmp_path / "eu.csv", "date;tmax", [(d, str(v).replace(".", ",")) for d, v in zip(days(30), y, strict=True)], sep=";")
    table = read(semicolons)
    np.testing.assert_array_equal(table.values[0, :, 0], y)
    assert said(table, "decimal comma")


def running_totals(n=60, seed=0):
    return np.cumsum(np.random.default_rng(seed).poisson(20, n))


def test_the_dates_do_not_tell_series_apart(tmp_path):
    path = series(tmp_path, days(60), running_totals(), header="date,cases")
    with pytest.raises(Refused, match="'date' holds the dates, so it cannot tell series apart"):
        read(path, column="cases", series_column="date", cumulative=True)


def test_running_totals_are_refused_unless_somebody_says_what_they_are(tmp_path):
    path = series(tmp_path, days(60), running_totals(), header="date,cases")
    with pytest.raises(Refused, match="--cumulative true"):
        read(path)
    np.testing.assert_array_equal(read(path, cumulative=False).values[0, :, 0], running_totals())
    table = read(path, cumulative=True)
    np.testing.assert_array_equal(table.values[0, :, 0], np.diff(running_totals()))
    assert dates.iso(table.days[0]) == "2020-01-02"


def test_corrections_of_running_totals_are_negative_increments_and_are_counted(tmp_path):
    totals = running_totals()
    totals[30:] -= 100
    table = read(series(tmp_path, days(60), totals, header="date,cases"), cumulative=True)
    np.testing.assert_array_equal(table.values[0, :, 0], np.diff(totals))
    assert said(table, "1 increments of 'cases' are negative (corrections), first on 2020-01-31")


def test_inputs_that_are_running_totals_are_differenced_too_and_others_are_not(tmp_path):
    rows = list(zip(days(60), running_totals(), running_totals(seed=1), values(60), strict=True))
    table = read(write(tmp_path / "a.csv", "date,cases,deaths,tmax", rows), column="cases", inputs=("deaths", "tmax"), cumulative=True)
    np.testing.assert_array_equal(table.values[0, :, 1], np.diff(running_totals(seed=1)))
    np.testing.assert_array_equal(table.values[0, :, 2], values(60)[1:])


def test_after_a_gap_an_increment_is_unknown(tmp_path):
    keep = [i for i in range(60) if i != 20]
    table = read(series(tmp_path, [days(60)[i] for i in keep], running_totals()[keep], header="date,cases"), cumulative=True)
    assert np.flatnonzero(np.isnan(table.values[0, :, 0])).tolist() == [19, 20]  # the grid begins a day later


@given(st.lists(st.integers(0, 1000), min_size=20, max_size=60), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_every_running_total_with_enough_rises_is_recognised(increments, start):
    totals = start + np.cumsum(increments, dtype=float)
    assert looks_cumulative(totals) == (np.count_nonzero(np.diff(totals)) >= 5)


def test_daily_counts_temperatures_and_trends_do_not_look_cumulative():
    rng = np.random.default_rng(0)
    assert not looks_cumulative(rng.poisson(20, 300).astype(float))
    assert not looks_cumulative(rng.poisson(0.01, 300).astype(float))
    assert not looks_cumulative(50 + rng.standard_normal(300))
    assert not looks_cumulative(np.arange(300) + 0.5)


def test_the_unit_comes_from_the_name_and_a_temperature_that_contradicts_it_is_warned_of(tmp_path):
    celsius = 12 + 10 * np.sin(np.arange(400) * 2 * np.pi / 365) + np.random.default_rng(0).standard_normal(400)
    fahrenheit = celsius * 9 / 5 + 32

    def warned(header, y, **options):
        table = read(series(tmp_path, days(400), y, header=f"date,{header}"), **options)
        return table.unit, said(table, "Warning:")

    assert warned("tmax_f", fahrenheit) == ("°F", False)
    assert warned("temp_max_c", celsius) == ("°C", False)
    assert warned("TMAX (F)", celsius) == ("°F", True)
    assert warned("temp_c", fahrenheit) == ("°C", True)
    assert warned("temp", celsius + 273.15, unit="C") == ("°C", True)
    assert warned("temp", celsius + 273.15, unit="kelvin") == ("K", False)
    assert warned("temp_f", fahrenheit, unit="C") == ("°C", True)
    assert warned("vitamin_c", fahrenheit) == ("", False)
    assert warned("rain_mm", np.abs(celsius)) == ("mm", False)


def test_a_single_wrong_value_does_not_decide_about_the_unit():
    y = np.r_[np.full(200, 20.0), 300.0]
    assert contradiction("°C", y) == ""
    assert "°F" in contradiction("°C", np.full(200, 75.0))
    for unit in ("°C", "°F"):
        assert "kelvin" in contradiction(unit, np.full(200, 290.0))


def test_one_bad_series_among_many_is_set_aside_and_named(tmp_path):
    places = {"a": values(30), "dull": [1] * 30, "z": values(30, 2)}
    rows = [(day, name, y) for name, ys in places.items() for day, y in zip(days(30), ys, strict=True)]
    table = read(write(tmp_path / "many.csv", "date,place,tmax", rows), series_column="place")
    assert table.names == ["a", "z"]
    np.testing.assert_array_equal(table.series("z"), values(30, 2))
    assert said(table, "dull was set aside")


def test_tsv_gzip_bom_comments_and_windows_letters_are_read(tmp_path):
    y = values(30)
    rows = list(zip(days(30), y, strict=True))
    plain = write(tmp_path / "a.tsv", "# from the station\ndate\ttmax", rows, sep="\t")
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked = tmp_path / "c.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + write(tmp_path / "d.csv", "date,tmax", rows).read_bytes())
    windows = tmp_path / "e.csv"
    windows.write_bytes(write(tmp_path / "f.csv", "date,temp (°C)", rows).read_text(encoding="utf-8").encode("cp1252"))
    for path in (plain, packed, marked, windows):
        np.testing.assert_array_equal(read(path).values[0, :, 0], y)
    assert read(windows).unit == "°C"


def test_what_is_no_table_is_refused_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.csv").write_bytes(b"\x1f\x8bbroken")
    (tmp_path / "c.csv").write_bytes(bytes(100))
    for name, words in (("a.csv", "is empty"), ("b.csv", "broken gzip"), ("c.csv", "is not text"), ("d.csv", "no such file")):
        with pytest.raises(Refused, match=words):
            read(tmp_path / name)


def test_parquet_gives_what_csv_gives(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="Parquet needs the extra series")
    path = series(tmp_path, days(30), [*values(29), ""])
    duckdb.sql(f"COPY (SELECT * FROM read_csv('{path}')) TO '{tmp_path / 'a.parquet'}' (FORMAT parquet)")
    one, other = read(path), read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.days, other.days)


def test_the_seattle_record_has_no_gap_and_looks_like_fahrenheit(data_folder):
    path = data_folder / "weather" / "seattle_daily_1948_2017.csv.gz"
    table = read(path, column="TMAX", inputs=("TMIN", "PRCP", "RAIN"), unit="F")
    assert table.values.shape == (1, 25551, 4)
    assert np.isfinite(table.values[0, :, 0]).all()
    assert np.isnan(table.values[0, :, 2]).sum() == 3
    assert not said(table, "Warning")
    assert said(read(path, column="TMAX", unit="C"), "looks like °F")


def test_states_of_the_new_york_times_table_are_running_totals_with_corrections(data_folder):
    path = data_folder / "covid" / "nyt_us_states.csv.gz"
    with pytest.raises(Refused, match="56 series in one file, told apart by 'state'"):
        read(path, column="cases")
    with pytest.raises(Refused, match="running totals"):
        read(path, column="cases", series_column="state")
    table = read(path, column="cases", series_column="state", cumulative=True)
    assert np.sum(table.series("Washington") < 0) == 5  # as the data's own description says
    assert np.nansum(table.series("Washington")[: dates.day_of(datetime.date(2020, 7, 1)) - table.days[0] + 1]) == 35258 - 1
