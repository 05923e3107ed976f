"""Covariates that tell the future, and copied rows, are told."""

import numpy as np
import pandas as pd
import pytest
from data_files import hours, said, write

from rnnx.data.leaks import leaks
from rnnx.data.table import read_series


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
    wave = np.sin(2 * np.pi * np.arange(804) / 12)  # whole waves, for roll
    frame = pd.DataFrame({"t": hours(804), "v": wave, "c": np.roll(wave, 12)})
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
    _, _, warnings = read_series(write(tmp_path, pd.DataFrame({"v": v})), horizon=48)
    assert said(warnings, "stretches of 48")
    v = rng.normal(size=1000)
    v[820:900] = v[705:785]  # of the valid part
    assert not read_series(write(tmp_path, pd.DataFrame({"v": v})))[2]
    wide = pd.DataFrame(rng.normal(size=(4, 200))).reset_index()
    wide.iloc[3, 1:] = wide.iloc[0, 1:]
    _, _, warnings = read_series(write(tmp_path, wide), layout="wide")
    assert said(warnings, "1 of 4 series are copies")


def test_a_leak_of_the_second_target_is_seen(tmp_path):
    a, b = np.random.default_rng(0).normal(size=(2, 800)).cumsum(axis=1)
    frame = pd.DataFrame({"t": hours(800), "a": a, "b": b, "c": np.roll(b, -3)})
    _, _, warnings = read_series(write(tmp_path, frame), target=["a", "b"], covariates=["c"])
    assert "follows 'b' at +3 steps" in said(warnings, "leak")


def test_a_leak_with_values_missing_is_still_seen(tmp_path):
    rng = np.random.default_rng(0)
    v = rng.normal(size=800).cumsum()
    frame = pd.DataFrame({"t": hours(800), "v": v, "c": np.roll(v, -3)})
    frame.loc[::20, "c"] = np.nan  # filled forward
    _, _, warnings = read_series(write(tmp_path, frame), target=["v"], covariates=["c"])
    assert "follows 'v' at +3 steps" in said(warnings, "leak")


def test_a_leak_of_rare_changes_is_seen_across_gaps(tmp_path):
    rng = np.random.default_rng(0)
    v = (rng.normal(size=800) * (rng.random(800) < 0.3)).cumsum()
    frame = pd.DataFrame({"t": hours(800), "v": v, "c": np.roll(v, -3)})
    path = write(tmp_path, frame.drop([i for i in range(10, 790) if i % 20 < 4]))
    _, _, warnings = read_series(path, target=["v"], covariates=["c"])
    assert "follows 'v' at +3 steps" in said(warnings, "leak")


def test_the_calendar_is_no_leak(tmp_path):
    at = pd.date_range("2020-01-01", periods=1200)
    wave = np.sin(2 * np.pi * (np.arange(1200) - 5) / 365.2425)
    path = write(tmp_path, pd.DataFrame({"t": at, "v": wave}))
    series, _, warnings = read_series(path)
    assert "year sin" in series.known and not [text for text in warnings if "future" in text]
