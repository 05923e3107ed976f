"""Tables become regular series: what is mended is said, what can't be is refused in one line."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from data_files import daily, hours, line, real, said, write

from rnnx.data import calendar
from rnnx.data.ahead import prolonged
from rnnx.data.frame import read_frame
from rnnx.data.table import describe, read_new, read_series
from rnnx.errors import UserError

# ----------------------------------------------------------------------------------- real tables


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
        scale = np.abs(values[24:end, 0] - values[: end - 24, 0]).mean()
        mase.append(np.abs(y - f).mean() / scale)
        smape.append((200 * np.abs(y - f) / (np.abs(y) + np.abs(f))).mean())
    assert round(float(np.mean(smape)), 3) == 13.912 and round(float(np.mean(mase)), 3) == 1.193


# ------------------------------------------------------------------------------------ the values


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
        read_series(path, target=["v", "one"])


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


def test_the_first_column_may_count_the_rows_and_another_may_not(tmp_path):
    frame = pd.DataFrame({"n": np.arange(60), "v": daily(60), "m": np.arange(7, 67)})
    series, notes, _ = read_series(write(tmp_path, frame))
    assert series.targets == ("v", "m") and said(notes, "'n' counts the rows: left out")
    series, _, _ = read_series(write(tmp_path, frame.drop(columns="n")[["m"]]))
    assert series.targets == ("m",)  # there is no other
    series, _, _ = read_series(write(tmp_path, frame.assign(n=hours(60))[["n", "m", "v"]]))
    assert series.targets == ("m", "v")


def test_a_column_without_values(tmp_path):
    path = write(tmp_path, pd.DataFrame({"t": hours(60), "v": np.nan, "w": daily(60)}))
    with pytest.raises(UserError, match="'v' has no values: all are missing"):
        read_series(path, target=["v"])
    series, notes, _ = read_series(path)
    assert series.targets == ("w",) and said(notes, "columns without values: v")


# -------------------------------------------------------------------------------- several series


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


@pytest.mark.parametrize(
    "change, options, told",
    [
        ({"g": [""] + ["a"] * 59}, {"group": "g"}, "--group=g is empty in row 1"),
        ({"g": range(60)}, {"group": "g"}, "names 60 series in 60 rows"),
        ({"t": [*range(59), 58.5]}, {"time": "t"}, "58.5 in row 60 is neither a time nor a whole"),
    ],
)
def test_groups_and_counts_that_are_none_are_refused(tmp_path, change, options, told):
    frame = pd.DataFrame({"t": hours(60), "v": daily(60)}).assign(**change)
    with pytest.raises(UserError, match=told) as error:
        read_series(write(tmp_path, frame), target=["v"], **options)
    assert line(error)


def test_a_test_file_is_the_test_part(tmp_path):
    frame = pd.DataFrame({"t": hours(120), "v": daily(120)})
    test = write(tmp_path, frame[100:], "test.csv")
    series, _, warnings = read_series(write(tmp_path, frame[:100]), test=test, horizon=4)
    assert series.ends.tolist() == [[80, 100]] and len(series.values[0]) == 120
    assert not warnings
    series, _, warnings = read_series(write(tmp_path, frame[:110]), test=test, horizon=4)
    assert series.ends.tolist() == [[80, 100]] and len(series.values[0]) == 120
    assert "10 rows of the first file" in said(warnings, "left out")
    test = write(tmp_path, frame[30:42], "test.csv")  # long, so valid takes its share of the rest
    series, _, _ = read_series(write(tmp_path, frame[:30]), test=test, horizon=3)
    assert series.ends.tolist() == [[27, 30]]


def test_a_series_that_the_test_file_lacks_is_left_out(tmp_path):
    frame = pd.concat(
        [pd.DataFrame({"g": name, "t": hours(120), "v": daily(120)}) for name in "ab"]
    )
    first = write(tmp_path, frame[frame.t < hours(101)[-1]])
    later = frame[(frame.g == "a") & (frame.t >= hours(101)[-1])]
    series, _, warnings = read_series(
        first, group="g", target=["v"], test=write(tmp_path, later, "test.csv"), horizon=3
    )
    assert series.names == ("a",) and series.ends.tolist() == [[80, 100]]
    assert "1 series" in said(warnings, "'b'")
    other = write(tmp_path, later.assign(g="c"), "test.csv")
    with pytest.raises(UserError, match="the two files have no series in common"):
        read_series(write(tmp_path, frame[frame.g == "a"]), group="g", target=["v"], test=other)


def test_the_test_part_begins_where_its_file_does(tmp_path):
    """After rows without a target that are left out, and in a table without times."""
    frame = pd.DataFrame({"t": hours(120), "v": daily(120)})
    frame.loc[:4, "v"] = np.nan
    test = write(tmp_path, frame[100:], "test.csv")
    series, _, _ = read_series(write(tmp_path, frame[:100]), test=test, horizon=4)
    assert series.ends.tolist() == [[75, 95]] and series.values[0][95, 0] == frame.v[100]
    test = write(tmp_path, frame[["v"]][100:], "test.csv")
    series, _, _ = read_series(write(tmp_path, frame[["v"]][5:100]), test=test, horizon=4)
    assert series.ends.tolist() == [[75, 95]] and series.values[0][95, 0] == frame.v[100]


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
    frame.loc[1, "index"] = "a"
    with pytest.raises(UserError, match="two rows of series 'a'"):
        read_series(write(tmp_path, frame), layout="wide")


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


def test_a_few_new_rows_do_not_tell_their_step(tmp_path):
    """Days of one week are those of weekdays, too; one row has no step at all."""
    at = pd.date_range("2020-01-01", periods=300, freq="B")
    frame = pd.DataFrame({"t": at, "v": daily(300, 5)})
    series, _, _ = read_series(write(tmp_path, frame))
    week = np.flatnonzero(at.day_of_week == 0)[0] + np.arange(5)
    for rows in (week, week[:1]):
        found, _, _ = read_new(write(tmp_path, frame.iloc[rows]), like=describe(series))
        assert found.step == "1 weekday" and len(found.values[0]) == len(rows)
        following = calendar.following(found.times[0], found.step, 5)
        np.testing.assert_array_equal(following, at.to_numpy("datetime64[s]")[rows[-1] + 1 :][:5])


def test_series_are_prolonged_by_the_steps_to_forecast(tmp_path):
    frame = pd.DataFrame({"t": hours(300), "v": daily(300), "c": daily(300, seed=1)})
    series, _, _ = read_series(write(tmp_path, frame), target=["v"], covariates=["c"])
    new, _, _ = read_new(write(tmp_path, frame[:150]), like=describe(series))
    longer, (origin,) = prolonged(new, 24)
    assert origin.tolist() == [149] and series.known == calendar.FEATURES[:4]
    np.testing.assert_array_equal(longer.times[0], series.times[0][:174])
    np.testing.assert_allclose(longer.ahead[0], series.ahead[0][:174], atol=1e-12)
    np.testing.assert_array_equal(longer.values[0][:150], series.values[0][:150])
    assert np.isnan(longer.values[0][150:]).all() and len(longer.values[0]) == 174
    np.testing.assert_array_equal(longer.covariates[0][:150], series.covariates[0][:150])
    assert (longer.covariates[0][150:] == series.covariates[0][149]).all()


def test_what_the_user_knows_ahead_has_to_be_there(tmp_path):
    frame = pd.DataFrame({"t": hours(300), "v": daily(300), "k": np.arange(300) % 5.0})
    series, _, _ = read_series(write(tmp_path, frame), target=["v"], known=["k"])
    frame.loc[130:, "v"] = np.nan
    new, _, _ = read_new(write(tmp_path, frame[:150]), like=describe(series))
    longer, (origin,) = prolonged(new, 20)
    assert origin.tolist() == [129] and len(longer.values[0]) == 150
    with pytest.raises(UserError, match=r"k must be given for the 21 steps .*: 20 rows are there"):
        prolonged(new, 21)


def test_new_wide_rows(tmp_path):
    frame = pd.DataFrame(np.stack([daily(200, seed=s) for s in range(3)])).reset_index()
    series, _, _ = read_series(write(tmp_path, frame), layout="wide")
    found, _, _ = read_new(write(tmp_path, frame), like=describe(series, layout="wide"))
    assert found.names == ("0", "1", "2") and found.season == series.season == 24
    np.testing.assert_array_equal(found.values, series.values)
