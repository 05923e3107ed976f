"""Times, steps and seasons: found, mended or refused; calendar features."""

import numpy as np
import pandas as pd
import pytest
from data_files import daily, hours, line, said, write
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data import calendar, season
from rnnx.data.table import read_series
from rnnx.errors import UserError

# ------------------------------------------------------------------------------------- the times


@pytest.mark.parametrize(
    "form, first",
    [
        ("%d/%m/%Y %H:%M", "day first"),
        ("%m/%d/%Y %H:%M", "month first"),
        ("%d.%m.%Y %H:%M:%S", "day first"),
        ("%d-%b-%Y %H:%M", ""),
        ("%Y-%m-%dT%H:%M:%S", ""),
        ("%m/%d/%y %I:%M %p", "month first"),
    ],
)
@pytest.mark.parametrize("count", [240, 600])
def test_times_as_people_write_them(tmp_path, form, first, count):
    at = hours(count, "2020-02-03")  # ten days: day and month could be taken for each other
    frame = pd.DataFrame({"t": at.strftime(form), "v": daily(count)})
    series, notes, _ = read_series(write(tmp_path, frame))
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
    assert any(first in text for text in notes if "are read" in text) or not first


@pytest.mark.parametrize(
    "freq, step, season",
    [
        ("15min", "15 minutes", 96),
        ("h", "1 hour", 24),
        ("6h", "6 hours", 4),
        ("D", "1 day", 7),
        ("B", "1 weekday", 5),
        ("W", "1 week", 52),
        ("MS", "1 month", 12),
        ("ME", "1 month", 12),
        ("QS", "1 quarter", 4),
        ("YS", "1 year", 0),
        ("10s", "10 seconds", 360),
    ],
)
def test_steps_seasons_and_gaps(tmp_path, freq, step, season):
    at = pd.date_range("1985-03-01", periods=1300, freq=freq)
    if freq in ("QS", "YS"):
        at = at[:150]
    if freq == "10s":
        at = pd.date_range(at[0], periods=2000, freq=freq)
    frame = pd.DataFrame({"t": at, "v": daily(len(at), season or 10)})
    path = write(tmp_path, frame.drop([20, 40, 41, 42]))
    series, notes, _ = read_series(path)
    assert (series.step, series.season) == (step, season)
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
    assert np.flatnonzero(np.isnan(series.values[0])).tolist() == [20, 40, 41, 42]
    before = str(at[39].to_numpy().astype("datetime64[s]")).replace("T", " ")
    assert f"4 of {len(at):,} steps of {step} are missing" in said(notes, "inserted")
    assert f"(the longest gap, 3, is after {before})" in said(notes, "inserted")
    ahead = calendar.following(series.times[0][:-5], step, 5)
    np.testing.assert_array_equal(ahead, series.times[0][-5:])


def test_steps_below_a_second_are_counted(tmp_path):
    at = pd.date_range("2020-01-01", periods=300, freq="20ms")
    series, _, _ = read_series(write(tmp_path, pd.DataFrame({"t": at, "v": daily(300)})))
    assert series.step == "20 milliseconds" and series.known == ()
    assert series.times[0].dtype == np.int64 and (np.diff(series.times[0]) == 1).all()


def test_named_columns_of_numbers_are_times(tmp_path):
    at = hours(200, "2020-01-01")
    seconds = at.astype("datetime64[s]").astype(np.int64)
    sizes = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
    frame = pd.DataFrame({n: seconds * size for n, size in sizes.items()} | {"v": daily(200)})
    path = write(tmp_path, frame)
    for name in sizes:
        series, _, _ = read_series(path, time=name, target=["v"])
        np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
    at = pd.date_range("2020-01-25", periods=100)
    frame = pd.DataFrame({"day": at.strftime("%Y%m%d").astype(int), "v": daily(100)})
    series, _, _ = read_series(write(tmp_path, frame), time="day", target=["v"])
    assert series.step == "1 day" and (series.times[0] == at.to_numpy("datetime64[s]")).all()
    frame = pd.DataFrame({"year": np.arange(1900, 1960), "v": daily(60), "n": np.arange(60) * 2})
    path = write(tmp_path, frame)
    series, _, _ = read_series(path, time="year", target=["v"])
    assert series.step == "1 year" and series.times[0][0] == np.datetime64("1900-01-01")
    series, _, _ = read_series(path, time="n", target=["v"])
    assert series.step == "2 rows" and series.times[0].tolist() == frame.n.tolist()


def test_columns_of_year_month_day_and_hour(tmp_path):
    at = hours(100)
    frame = pd.DataFrame(
        {"No": range(100), "year": at.year, "month": at.month, "day": at.day, "hour": at.hour,
         "pm": ["NA"] * 24 + list(daily(76))}
    )  # fmt: skip
    series, notes, _ = read_series(write(tmp_path, frame))
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]")[24:])
    assert series.targets == ("pm",) and "24 rows before" in said(notes, "before")
    assert "24 of 100 values are missing" in said(notes, "'pm': ")


def test_time_zones_become_utc(tmp_path):
    at = pd.date_range("2020-03-28 20:00", periods=48, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"t": at, "v": daily(48)})
    frame.to_parquet(tmp_path / "t.parquet")
    for path in (write(tmp_path, frame), tmp_path / "t.parquet"):
        series, notes, _ = read_series(path)
        assert said(notes, "UTC")
        expected = at.tz_convert("UTC").tz_localize(None).to_numpy("datetime64[s]")
        np.testing.assert_array_equal(series.times[0], expected)  # summer time is no gap


@given(st.randoms(use_true_random=False))
def test_order_and_copies_of_rows_change_nothing(tmp_path_factory, random):
    tmp_path = tmp_path_factory.mktemp("t")
    frame = pd.DataFrame({"t": hours(80), "v": daily(80)})
    rows = list(range(80))
    random.shuffle(rows)
    copies = random.sample(range(80), 5)
    series, notes, _ = read_series(write(tmp_path, frame.iloc[rows + copies]), time="t")
    np.testing.assert_allclose(series.values[0][:, 0], frame.v, rtol=1e-14)
    assert "5 rows repeat a time" in said(notes, "repeat") and said(notes, "sorted")


def test_repeated_times_are_averaged_over_what_is_there(tmp_path):
    frame = pd.DataFrame({"t": hours(60), "v": daily(60), "w": daily(60)})
    more = pd.DataFrame({"t": frame.t[[3, 3]], "v": [frame.v[3] + 3] * 2, "w": [np.nan] * 2})
    series, _, _ = read_series(write(tmp_path, pd.concat([frame, more])))
    np.testing.assert_allclose(series.values[0][3], [frame.v[3] + 2, frame.w[3]])


def test_times_beside_the_grid_are_moved_or_refused(tmp_path):
    """Early ones too, and the first."""
    at = hours(100).to_series().reset_index(drop=True)
    at[[0, 5, 50]] += pd.to_timedelta([7, 7, -7], unit="min")
    frame = pd.DataFrame({"t": at, "v": daily(100)})
    series, notes, _ = read_series(write(tmp_path, frame))
    assert "3 of 100 times moved" in said(notes, "moved") and len(series.values[0]) == 100
    assert np.isfinite(series.values[0]).all()
    np.testing.assert_array_equal(series.times[0], hours(100).to_numpy("datetime64[s]"))
    rng = np.random.default_rng(0)
    frame.t = at + pd.to_timedelta(rng.integers(0, 3000, 100), unit="s")
    with pytest.raises(UserError, match=r"no regular time step: .* or count rows") as error:
        read_series(write(tmp_path, frame))
    assert line(error)


@pytest.mark.parametrize(
    "change, words",
    [
        (("t", "soon"), "'soon' in row 8 is not a time"),
        (("t", ""), "'' in row 8 is not a time"),
        (("t", "2999-01-01"), "correct the first or last time"),
        (("v", "high"), "target 'v' is not numeric: 'high' in row 8"),
        (("v", "1,234"), "thousands separators"),
    ],
)
def test_values_that_cannot_be_read(tmp_path, change, words):
    frame = pd.DataFrame({"t": hours(60).astype(str), "v": daily(60)}).astype(object)
    frame.loc[7, change[0]] = change[1]
    with pytest.raises(UserError, match=words) as error:
        read_series(write(tmp_path, frame), time="t", target=["v"])
    assert line(error)


# ------------------------------------------------------------------------------------ the season


def test_a_season_that_is_not_there_is_not_guessed(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"t": hours(2000), "v": rng.normal(size=2000).cumsum()})
    series, notes, _ = read_series(write(tmp_path, frame))
    assert series.season == 0 and said(notes, "no season")
    frame.v = daily(2000, 168)  # a week, but no day
    frame.v += 5 * (np.arange(2000) % 168 < 24)
    assert read_series(write(tmp_path, frame))[0].season == 168
    assert read_series(write(tmp_path, frame), season=5)[0].season == 5
    assert read_series(write(tmp_path, frame), season=0)[0].season == 0


def test_a_smooth_series_has_no_season_of_short_lags(tmp_path):
    at = pd.date_range("2020-01-01", periods=900)
    frame = pd.DataFrame({"t": at, "v": np.sin(2 * np.pi * np.arange(900) / 365)})
    series, notes, _ = read_series(write(tmp_path, frame))
    assert series.season == 0 and said(notes, "no season")


@pytest.mark.parametrize("season", [7, 24, 96, 168, 365])
def test_rows_without_times_are_searched_for_a_season(tmp_path, season):
    path = write(tmp_path, pd.DataFrame({"v": daily(2400, season)}))
    assert read_series(path)[0].season == season
    if season == 365:
        path = write(tmp_path, pd.DataFrame({"v": daily(1500, season)}))
        assert read_series(path)[0].season == 0  # it comes less than three times


def test_the_season_is_of_the_training_part(tmp_path):
    wave = np.where(np.arange(1500) < 1050, daily(1500, 24), daily(1500, 10) * 50)
    assert read_series(write(tmp_path, pd.DataFrame({"v": wave})))[0].season == 24


# ----------------------------------------------------------------------------- calendar features


def test_calendar_features():
    at = np.array(["2020-01-06T00:00", "2020-01-06T06:00", "2020-07-02T00:00"], "datetime64[s]")
    found = dict(zip(calendar.FEATURES, calendar.features(at, calendar.FEATURES).T, strict=True))
    np.testing.assert_allclose(found["hour sin"], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found["hour cos"], [1, 0, 1], atol=1e-12)
    monday, thursday = 0, 2 * np.pi * 3 / 7
    np.testing.assert_allclose(found["day cos"][[0, 2]], np.cos([monday, thursday]), atol=1e-12)
    np.testing.assert_allclose(found["year cos"][[0, 2]], [np.cos(2 * np.pi * 5 / 366), -1])
    assert calendar.features(at, ()).shape == (3, 0)


@pytest.mark.parametrize(
    "step, rows, names",
    [
        ("1 hour", 5000, ("hour", "day")),
        ("1 hour", 18_000, ("hour", "day", "year")),
        ("1 day", 300, ("day",)),
        ("1 day", 731, ("day", "year")),
        ("1 weekday", 300, ("day",)),
        ("1 week", 110, ("year",)),
        ("1 month", 30, ("year",)),
        ("1 year", 30, ()),
        ("1 row", 9999, ()),
    ],
)
def test_which_calendar_features(step, rows, names):
    assert calendar.choose(step, rows) == tuple(f"{n} {w}" for n in names for w in ("sin", "cos"))


def test_a_clock_that_is_set_anew_is_refused(tmp_path):
    at = hours(100).to_series().reset_index(drop=True)
    at[60:] += pd.Timedelta("7min")
    path = write(tmp_path, pd.DataFrame({"t": at, "v": daily(100)}))
    with pytest.raises(UserError, match="40 of 100 times do not lie on steps of 1 hour") as error:
        read_series(path)
    assert line(error)


def test_last_days_of_months_are_followed_by_last_days():
    last = np.array(["2021-02-28", "2021-04-30", "2021-06-30"], "datetime64[s]")
    expected = np.array(["2021-08-31", "2021-10-31"], "datetime64[s]")
    np.testing.assert_array_equal(calendar.following(last, "2 months", 2), expected)


def test_a_day_that_february_lacks_is_its_last():
    days = np.array(["2020-11-30", "2020-12-30", "2021-01-30"], "datetime64[s]")
    expected = np.array(["2021-02-28", "2021-03-30"], "datetime64[s]")
    np.testing.assert_array_equal(calendar.following(days, "1 month", 2), expected)


@pytest.mark.parametrize("freq, step", [("B", "1 weekday"), ("MS", "1 month"), ("D", "1 day")])
def test_the_clock_of_days_and_months_is_kept(tmp_path, freq, step):
    at = pd.date_range("2020-01-01", periods=100, freq=freq) + pd.Timedelta("9h30min")
    series, _, _ = read_series(write(tmp_path, pd.DataFrame({"t": at, "v": daily(100)})))
    assert series.step == step
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
    ahead = calendar.following(series.times[0][:-3], step, 3)
    np.testing.assert_array_equal(ahead, series.times[0][-3:])


def test_counts_of_rows_go_on_in_their_steps():
    assert calendar.following(np.array([4, 6, 8]), "2 rows", 3).tolist() == [10, 12, 14]
    # Steps below a second are counted one by one.
    assert calendar.following(np.array([7, 8]), "20 milliseconds", 2).tolist() == [9, 10]


def test_a_date_and_an_hour_are_one_time_and_a_month_begins_on_its_first(tmp_path):
    at = hours(72)
    frame = pd.DataFrame({"d": at.strftime("%Y-%m-%d"), "h": at.hour, "v": daily(72)})
    series, _, _ = read_series(write(tmp_path, frame), time="d+h", target=["v"])
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
    at = pd.date_range("2020-01-01", periods=60, freq="MS")
    frame = pd.DataFrame({"Year": at.year, "Month": at.month, "v": daily(60)})
    series, _, _ = read_series(write(tmp_path, frame), time="Year+Month", target=["v"])
    assert series.step == "1 month"
    np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))


def test_an_hour_that_is_none_is_told(tmp_path):
    frame = pd.DataFrame(
        {
            "d": np.repeat(hours(5).strftime("%Y-%m-%d"), 12),
            "h": 12 * [0, 1, 2, 3, 25],
            "v": daily(60),
        }
    )
    with pytest.raises(UserError, match="'h': 25 in row 5 is not an hour") as error:
        read_series(write(tmp_path, frame), time="d+h", target=["v"])
    assert line(error)


def test_lags_with_few_pairs_do_not_count():
    """Of 29 differences, lags from 22 on have a quarter of pairs or fewer."""
    parts = [np.random.default_rng(0).normal(size=(30, 1))]
    found = season.autocorrelation(parts, 28)
    assert np.all(found[22:] == 0) and np.all(found[:20] != 0)
