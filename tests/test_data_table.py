"""Tables become regular series: what is mended is said, what can't be is refused in one line."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from data_files import line, real
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data import calendar
from rnnx.data.frame import read_frame, sniff
from rnnx.data.leaks import leaks
from rnnx.data.table import describe, read_new, read_series
from rnnx.errors import UserError


def hours(count, start="2020-01-01"):
    return pd.date_range(start, periods=count, freq="h")


def daily(count, season=24, seed=0):
    """A noisy wave."""
    rng = np.random.default_rng(seed)
    return 10 + 3 * np.sin(2 * np.pi * np.arange(count) / season) + 0.1 * rng.normal(size=count)


def write(tmp_path, frame, name="t.csv", **options):
    path = tmp_path / name
    frame.to_csv(path, index=False, **options)
    return path


def said(lines, words):
    """The one line that has these words."""
    found = [text for text in lines if words in text]
    assert len(found) == 1, (words, lines)
    return found[0]


# ---------------------------------------------------------------------------------- real tables


def test_the_unsorted_load_is_sorted_and_its_repeated_times_averaged():
    path = real("series/AEP_hourly.csv")
    raw = pd.read_csv(path)
    at = pd.to_datetime(raw.Datetime, format="%m/%d/%Y %H:%M")
    series, notes, warnings = read_series(path, horizon=24)
    assert series.targets == ("AEP_MW",) and series.step == "1 hour" and series.season == 24
    (times,), (values,) = series.times, series.values
    assert (np.diff(times) == np.timedelta64(3600, "s")).all()
    assert times[0] == at.min() and times[-1] == at.max()
    expected = raw.AEP_MW.groupby(at.to_numpy()).mean().reindex(times).to_numpy()
    np.testing.assert_array_equal(values[:, 0], expected)
    assert np.isnan(values).sum() == len(times) - at.nunique() == 27
    assert "4 rows repeat a time" in said(notes, "repeat")
    assert "2014-11-02 02:00:00" in said(notes, "repeat")
    assert "month first" in said(notes, "are read")
    assert "27 of 121,296 steps" in said(notes, "inserted")
    assert not warnings


def test_a_load_in_the_order_of_its_file_is_not_sorted():
    frame = pd.read_csv(real("series/AEP_hourly.csv"))
    at = pd.to_datetime(frame.Datetime, format="%m/%d/%Y %H:%M")
    back = int((at.diff() < pd.Timedelta(0)).sum())
    _, notes, _ = read_series(real("series/AEP_hourly.csv"))
    if back:
        assert f"goes back {back} times" in said(notes, "sorted")
    else:
        assert not [text for text in notes if "sorted" in text]


def test_a_long_file_is_read_in_seconds():
    path = real("series/AEP_hourly.csv")
    read_frame(path)  # imports
    start = time.process_time()
    read_series(path, horizon=24)
    assert time.process_time() - start < 2


def test_ett_has_the_standard_parts():
    series, notes, warnings = read_series(
        real("series/ETTh1.csv"), horizon=96, parts=(8640, 2880, 2880)
    )
    assert series.values[0].shape == (14_400, 7) and series.ends.tolist() == [[8640, 11520]]
    assert series.step == "1 hour" and series.season == 24 and not warnings
    assert "3,020 rows beyond" in said(notes, "beyond")
    assert "all 7 columns" in said(notes, "targets")
    values = series.values[0]
    z = (values - values[:8640].mean(axis=0)) / values[:8640].std(axis=0)
    for h, mse in ((1, 0.175), (24, 1.222), (96, 1.294)):  # last value, every origin
        origins = np.arange(11_520 - 1, 14_400 - h)
        ahead = origins[:, None] + np.arange(1, h + 1)
        assert round(float(((z[ahead] - z[origins][:, None]) ** 2).mean()), 3) == mse


def test_the_bikes_lack_165_hours():
    series, notes, _ = read_series(
        real("series/bike_hour.csv"), target=["cnt"], covariates=["temp"], known=["holiday"],
    )  # fmt: skip
    assert "dteday+hr" in said(notes, "time is")
    assert "165 of 17,544 steps" in said(notes, "inserted")
    assert series.values[0].shape == (17_544, 1) and np.isnan(series.values[0]).sum() == 165
    assert series.covariates[0].shape == (17_544, 1) and np.isfinite(series.covariates[0]).all()
    assert series.known == ("holiday", *calendar.FEATURES[:4])
    assert series.times[0][-1] == np.datetime64("2012-12-31T23:00")
    raw = pd.read_csv(real("series/bike_hour.csv"))
    assert series.values[0][~np.isnan(series.values[0])].tolist() == raw.cnt.tolist()


def test_rates_without_a_header():
    series, notes, _ = read_series(real("series/exchange_rate.csv"))
    assert series.targets == tuple("12345678") and series.values[0].shape == (7588, 8)
    assert series.step == "1 row" and series.season == 0 and series.known == ()
    assert series.ends.tolist() == [[5311, 6070]] and series.times[0].dtype == np.int64
    assert said(notes, "no column of times") and said(notes, "no season")
    assert series.values[0][0, 0] == 0.7855


def test_m4():
    begun = time.process_time()
    series, _, warnings = read_series(
        real("m4/Hourly-train.csv"), layout="wide", test=real("m4/Hourly-test.csv"), horizon=48
    )
    assert time.process_time() - begun < 5
    train = [end for _, end in series.ends]
    assert len(series.names) == 414 and min(train) == 700 and max(train) == 960
    assert {len(v) - end for v, end in zip(series.values, train, strict=True)} == {48}
    assert {b - a for a, b in series.ends} == {48}
    assert series.season == 24 and series.names[:2] == ("H1", "H2") and not warnings
    mase, smape = [], []
    for values, end in zip(series.values, train, strict=True):
        y, f = values[end:, 0], np.tile(values[end - 24 : end, 0], 2)
        mase.append(np.abs(y - f).mean() / np.abs(np.diff(values[:end:1, 0], n=1)).mean())
        smape.append((200 * np.abs(y - f) / (np.abs(y) + np.abs(f))).mean())
    assert round(float(np.mean(smape)), 3) == 13.912


# ---------------------------------------------------------------------------- how it is written


@pytest.mark.parametrize(
    "text, form",
    [
        ("a,b\n1,2\n", (",", ".", True)),
        ("a;b\n1,5;2\n", (";", ",", True)),
        ("1,5;2,5\n2,5;2,5\n", (";", ",", False)),
        ("a\tb\n1.5\t2\n", ("\t", ".", True)),
        ("a\n1,5\n2,5\n", (";", ",", True)),
        ("1,2\n3,4\n", (",", ".", False)),
        ("2020-01-01,4\n2020-01-02,5\n", (",", ".", False)),
        ('"a, b",c\n1,2\n', (",", ".", True)),
        ("id,1,2,3\nx,4,5,6\n", (",", ".", True)),
        ("x,1,2\ny,4,5\n", (",", ".", True)),  # as a header: its numbers count
        ("x,7,2\ny,4,5\n", (",", ".", False)),
        ("\n,v\n0,1\n", (",", ".", True)),
    ],
)
def test_the_form_of_a_file(text, form):
    found = sniff("t.csv", text.lstrip("\n"))
    assert (found.separator, found.decimal, found.header) == form


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_marks_quotes_and_blank_lines(tmp_path, end, mark):
    rows = [f'"{t}","{i % 7}"' for i, t in enumerate(hours(60))]
    path = tmp_path / "t.csv"
    path.write_bytes((mark + end.join(['"when","v"', *rows, "", "", ","]) + end).encode())
    series, notes, _ = read_series(path)
    assert series.targets == ("v",) and said(notes, "time is 'when'")
    assert series.values[0][:, 0].tolist() == [i % 7 for i in range(60)]


@given(
    st.lists(
        st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 6)), min_size=30, max_size=60
    ),
    st.sampled_from([(",", "."), (";", ","), ("\t", ","), (";", ".")]),
)
def test_numbers_come_back_however_they_are_written(tmp_path_factory, values, form):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    frame = pd.DataFrame({"t": hours(len(values)), "v": values, "w": daily(len(values))})
    frame.to_csv(path, sep=form[0], decimal=form[1], index=False)
    read = read_frame(path)
    np.testing.assert_allclose(read["v"], values, rtol=1e-14)


def test_parquet_is_read_as_csv_is(tmp_path):
    frame = pd.DataFrame({"t": hours(100), "v": daily(100), "n": np.arange(100) % 3})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.set_index("t").to_parquet(tmp_path / "i.parquet")
    write(tmp_path, frame)
    found = [read_series(tmp_path / n)[0] for n in ("t.csv", "t.parquet", "i.parquet")]
    for other in found[1:]:
        assert other.targets == ("v", "n")
        np.testing.assert_allclose(other.values[0], found[0].values[0], rtol=1e-14)
        np.testing.assert_array_equal(other.times[0], found[0].times[0])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"a,b\n", "no rows"),
        (b"a\0b,\n1,2\n", "binary"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values"),
        (b"a,a\n1,2\n", "two columns named 'a'"),
        (b"PAR1garbage", "not a whole Parquet file"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_series(path)
    assert str(path) in line(error)


def test_a_parquet_file_cut_short(tmp_path):
    pd.DataFrame({"t": hours(100), "v": daily(100)}).to_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        (tmp_path / "t.parquet").write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut short") as error:
            read_series(tmp_path / "t.parquet")
        assert line(error)


def test_latin_1(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("Temp\xe9rature\n".encode("latin-1") + b"1\n2\n3\n4\n5\n" * 8)
    assert read_series(path)[0].targets == ("Temp\xe9rature",)


# ------------------------------------------------------------------------------------ the times


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
    frame = pd.DataFrame({"s": seconds, "ms": seconds * 1000, "v": daily(200)})
    path = write(tmp_path, frame)
    for name in ("s", "ms"):
        series, _, _ = read_series(path, time=name, target=["v"])
        np.testing.assert_array_equal(series.times[0], at.to_numpy("datetime64[s]"))
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
    at = hours(100).to_series().reset_index(drop=True)
    at[[5, 50]] += pd.Timedelta("7min")
    frame = pd.DataFrame({"t": at, "v": daily(100)})
    series, notes, _ = read_series(write(tmp_path, frame))
    assert "2 of 100 times moved" in said(notes, "moved") and len(series.values[0]) == 100
    assert np.isfinite(series.values[0]).all()
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


# ----------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("mark", ["NA", "?", "", "-", "nan", "null", " ? "])
def test_missing_targets_stay_missing(tmp_path, mark):
    frame = pd.DataFrame({"t": hours(60), "v": daily(60)}).astype({"v": object})
    frame.loc[[5, 9], "v"] = mark
    series, notes, _ = read_series(write(tmp_path, frame), target=["v"])
    assert np.flatnonzero(np.isnan(series.values[0])).tolist() == [5, 9]
    assert "2 of 60 values are missing (first in row 6)" in said(notes, "are missing")


def test_covariates_are_filled_from_the_past_alone(tmp_path):
    frame = pd.DataFrame({"t": hours(100), "v": daily(100), "c": np.arange(100.0) ** 2 % 17})
    frame.loc[[0, 1, 50, 51, 90], "c"] = np.nan
    series, notes, _ = read_series(write(tmp_path, frame.drop(60)), target=["v"], covariates=["c"])
    c, train = series.covariates[0][:, 0], frame.c[:70].drop(60)
    np.testing.assert_allclose(c[:2], train.mean())  # of the training part
    assert (c[50], c[51], c[60], c[90]) == (c[49], c[49], c[59], c[89])
    assert "filled from the past" in said(notes, "'c'")
    assert series.past == ("c",) and np.isfinite(c).all()


def test_infinite_values_are_missing(tmp_path):
    frame = pd.DataFrame({"t": hours(60), "v": daily(60), "c": daily(60, seed=1)})
    frame.loc[4, "v"], frame.loc[5, "c"] = np.inf, -np.inf
    series, notes, _ = read_series(write(tmp_path, frame), target=["v"], covariates=["c"])
    assert np.isnan(series.values[0][4, 0]) and series.covariates[0][5, 0] == frame.c[4]
    assert sum("infinite" in text for text in notes) == 2


def test_constant_columns_are_left_out(tmp_path):
    frame = pd.DataFrame({"t": hours(100), "v": daily(100), "one": 1.0, "c": 2.0})
    frame.loc[80:, "c"] = 3.0  # varies after the training part only
    path = write(tmp_path, frame)
    series, notes, _ = read_series(path, covariates=["c"])
    assert series.targets == ("v",) and series.past == ()
    assert said(notes, "'one' is always 1") and said(notes, "'c' is constant")
    assert series.covariates[0].shape == (100, 0)
    with pytest.raises(UserError, match="'one' is always 1 in the training part"):
        read_series(path, target=["one"])


def test_known_columns_need_every_value(tmp_path):
    frame = pd.DataFrame({"t": hours(100), "v": daily(100), "k": np.arange(100) % 5.0})
    series, _, _ = read_series(write(tmp_path, frame.drop(50)), target=["v"], known=["k"])
    assert series.known[0] == "k" and series.ahead[0][50, 0] == series.ahead[0][49, 0]
    frame.loc[99, "k"] = np.nan
    with pytest.raises(UserError, match="'k' is missing in row 100"):
        read_series(write(tmp_path, frame), target=["v"], known=["k"])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"target": ["vv"]}, "no column 'vv'; did you mean v"),
        ({"time": "tt"}, "--time=tt: no column 'tt'; did you mean t"),
        ({"group": "x"}, "no column 'x'; known: t, v"),
        ({"target": ["t"]}, "'t' holds times, not numbers|'t' is not numeric|named twice"),
        ({"target": ["v"], "covariates": ["v"]}, "'v' is named twice"),
        ({"horizon": 31}, "60 rows are fewer than two horizons of 31"),
        ({"horizon": 13}, "longer than the test part of 12 rows"),
        ({"horizon": 7}, "longer than the validation part of 6 rows"),
        ({"horizon": 0}, "at least 1"),
        ({"parts": (0.5, 0.1, 0.2)}, "sum to 1"),
        ({"parts": (40, 20, 20)}, "there are 60 only"),
        ({"layout": "tall"}, "none of long, wide"),
        ({"layout": "wide", "time": "t"}, "leave out the other columns"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, options, words):
    path = write(tmp_path, pd.DataFrame({"t": hours(60), "v": daily(60)}))
    with pytest.raises(UserError, match=words) as error:
        read_series(path, **options)
    assert line(error)


def test_a_column_without_values(tmp_path):
    path = write(tmp_path, pd.DataFrame({"t": hours(60), "v": np.nan, "w": daily(60)}))
    with pytest.raises(UserError, match="'v' has no values: all are missing"):
        read_series(path, target=["v"])


# ------------------------------------------------------------------------------- several series


def test_groups_have_parts_of_their_own(tmp_path):
    frames = [
        pd.DataFrame({"shop": name, "t": hours(n, start), "v": daily(n) * scale, "c": daily(n)})
        for name, n, start, scale in (
            ("NA", 100, "2020-01-01", 1), ("b", 200, "2020-02-01", 9), ("short", 5, "2020-01-01", 1)
        )
    ]  # fmt: skip
    mixed = pd.concat(frames).sort_values("t", kind="stable")
    series, _, warnings = read_series(
        write(tmp_path, mixed), group="shop", target=["v"], covariates=["c"], horizon=4
    )
    assert series.names == ("NA", "b") and series.ends.tolist() == [[70, 80], [140, 160]]
    for values, frame in zip(series.values, frames, strict=False):
        np.testing.assert_allclose(values[:, 0], frame.v, rtol=1e-14)
    assert "1 of 3 series" in said(warnings, "too short")
    with pytest.raises(UserError, match="with --group"):
        read_series(write(tmp_path, pd.concat([frames[0], frames[0]])), target=["v"])


def test_a_test_file_is_the_test_part(tmp_path):
    frame = pd.DataFrame({"t": hours(120), "v": daily(120)})
    test = write(tmp_path, frame[100:], "test.csv")
    series, _, warnings = read_series(write(tmp_path, frame[:100]), test=test, horizon=4)
    assert series.ends.tolist() == [[80, 100]] and len(series.values[0]) == 120
    assert not warnings
    series, _, warnings = read_series(write(tmp_path, frame[:110]), test=test, horizon=4)
    assert series.ends.tolist() == [[80, 100]] and len(series.values[0]) == 120
    assert "10 rows of the first file" in said(warnings, "left out")


def test_wide_tables(tmp_path):
    rows = {name: daily(n, seed=n) for name, n in (("a", 100), ("b", 60), ("c", 80))}
    rows["b"][10] = np.nan
    frame = pd.DataFrame({name: pd.Series(v) for name, v in (rows | {"d": []}).items()})
    frame = frame.T.reset_index()
    test = pd.DataFrame(np.arange(36).reshape(3, 12), index=["c", "b", "a"]).reset_index()
    series, notes, _ = read_series(
        write(tmp_path, frame), layout="wide", test=write(tmp_path, test, "test.csv"), horizon=12
    )
    assert series.names == ("a", "b", "c") and series.step == "1 row"
    assert [len(v) for v in series.values] == [112, 72, 92]
    assert series.ends.tolist() == [[88, 100], [48, 60], [68, 80]]
    np.testing.assert_allclose(series.values[1][:60, 0], rows["b"], rtol=1e-14)
    assert series.values[0][100:, 0].tolist() == list(range(24, 36))
    assert said(notes, "'d'")


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


# -------------------------------------------------------------------------------------- new data


def test_new_rows_are_read_as_the_model_was_trained(tmp_path):
    frame = pd.DataFrame(
        {"shop": "a", "t": hours(300), "v": daily(300), "c": daily(300, seed=1), "k": 0.0}
    )
    frame.loc[::7, "k"] = 1.0
    options = {"time": "t", "group": "shop"}
    series, _, _ = read_series(
        write(tmp_path, frame), target=["v"], covariates=["c"], known=["k"], **options
    )
    like = json.loads(json.dumps(describe(series, **options)))
    new = frame[:40].assign(shop="new")
    new.loc[[0], "c"] = np.nan
    new.loc[30:, "v"] = np.nan  # to be forecast, k is known
    found, _, _ = read_new(write(tmp_path, new), like=like)
    assert found.names == ("new",) and found.ends.tolist() == [[40, 40]]
    assert found[1:4] == series[1:4] and found[8:10] == series[8:10]
    np.testing.assert_array_equal(found.ahead[0], series.ahead[0][:40])
    np.testing.assert_array_equal(found.values[0][:30], series.values[0][:30])
    assert np.isnan(found.values[0][30:]).all()
    assert found.covariates[0][0, 0] == series.covariates[0][:210, 0].mean()
    new["t"] = pd.date_range("2020-01-01", periods=40, freq="D")
    with pytest.raises(UserError, match="time step is 1 day, but the model was trained on 1 hour"):
        read_new(write(tmp_path, new), like=like)
    with pytest.raises(UserError, match="no column 'c'"):
        read_new(write(tmp_path, new.drop(columns="c")), like=like)


def test_new_rows_without_known_columns_end_with_the_target(tmp_path):
    frame = pd.DataFrame({"t": hours(300), "v": daily(300)})
    series, _, _ = read_series(write(tmp_path, frame))
    frame.loc[290:, "v"] = np.nan
    found, notes, _ = read_new(write(tmp_path, frame), like=describe(series))
    assert len(found.values[0]) == 290 and "10 rows after" in said(notes, "after")
    assert found.season == 24 and found.known == series.known


def test_new_wide_rows(tmp_path):
    frame = pd.DataFrame(np.stack([daily(200, seed=s) for s in range(3)])).reset_index()
    series, _, _ = read_series(write(tmp_path, frame), layout="wide")
    found, _, _ = read_new(write(tmp_path, frame), like=describe(series, layout="wide"))
    assert found.names == ("0", "1", "2") and found.season == series.season == 24
    np.testing.assert_array_equal(found.values, series.values)


# ----------------------------------------------------------------------------------------- leaks


def planted(tmp_path, shift, role, noise=0.0, **more):
    rng = np.random.default_rng(0)
    v = rng.normal(size=800).cumsum()
    c = np.roll(v, -shift) + noise * rng.normal(size=800)
    frame = pd.DataFrame({"t": hours(800), "v": v, "c": 3 - 2 * c, "d": rng.normal(size=800)})
    path = write(tmp_path, frame.drop([100, 101]))
    names = {"covariates": ["d"], "known": ["d"]} | {role: ["c"]}
    if role == "covariates":
        names["known"] = []
        names["covariates"] = ["c", "d"]
    else:
        names["covariates"] = []
        names["known"] = ["c", "d"]
    return read_series(path, target=["v"], **names, **more)


@pytest.mark.parametrize("shift", [1, 5, 24])
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_a_target_shifted_into_a_covariate_is_a_leak(tmp_path, shift, noise):
    _, _, warnings = planted(tmp_path, shift, "covariates", noise)
    assert f"covariate 'c' tells the future: it follows 'v' at {shift:+d} steps" in said(
        warnings, "leak"
    )


def test_a_longer_horizon_is_searched_further(tmp_path):
    assert not planted(tmp_path, 40, "covariates")[2]
    assert said(planted(tmp_path, 40, "covariates", horizon=48)[2], "+40 steps")


@pytest.mark.parametrize("shift", [0, -1, -30])
def test_the_past_of_a_target_is_no_leak(tmp_path, shift):
    _, notes, warnings = planted(tmp_path, shift, "covariates")
    assert not warnings
    assert ("repeats 'v'" in " ".join(notes)) == (shift == 0)


@pytest.mark.parametrize("shift, leak", [(0, True), (3, True), (-2, True), (-4, False)])
def test_a_known_column_leaks_within_the_horizon(tmp_path, shift, leak):
    _, _, warnings = planted(tmp_path, shift, "known", horizon=4)
    assert bool(warnings) == leak
    assert not leak or "known column 'c' tells the future" in said(warnings, "leak")


def test_a_covariate_that_is_merely_alike_is_no_leak(tmp_path):
    assert not planted(tmp_path, 1, "covariates", noise=0.3)[2]


def test_a_target_that_repeats_itself_tells_its_own_future(tmp_path):
    wave = np.sin(2 * np.pi * np.arange(800) / 12)
    frame = pd.DataFrame({"t": hours(800), "v": wave, "c": np.roll(wave, 12)})
    series, _, _ = read_series(write(tmp_path, frame), target=["v"], covariates=["c"])
    assert not [text for text in leaks(series)[1] if "future" in text]


def test_copied_rows_and_series(tmp_path):
    rng = np.random.default_rng(0)
    v = rng.normal(size=1000)
    path = write(tmp_path, pd.DataFrame({"v": v}))
    assert not read_series(path)[2]
    v[850:] = v[300:450]
    _, _, warnings = read_series(write(tmp_path, pd.DataFrame({"v": v})))
    assert "are also in the training part" in said(warnings, "stretches of 24")
    wide = pd.DataFrame(rng.normal(size=(4, 200))).reset_index()
    wide.iloc[3, 1:] = wide.iloc[0, 1:]
    _, _, warnings = read_series(write(tmp_path, wide), layout="wide")
    assert said(warnings, "1 of 4 series are copies")
