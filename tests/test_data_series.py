"""Windows of series: which origins, which rows, and that nothing of the future is seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series_made import made, scalings

from rnnx.data.series import Scaling, Series, SeriesWindows, origins_of
from rnnx.errors import UserError

SIZES = st.lists(st.integers(5, 40), min_size=1, max_size=3)


def windows(series: Series, origins: list[np.ndarray], **options) -> SeriesWindows:
    options = {"batch_size": 3, "num_steps": 7, "warmup": 3, "horizon": 2} | options
    return SeriesWindows(series, scalings(series), origins, **options)


def placed(batches: SeriesWindows, warmup: int = 3) -> list[tuple[int, int]]:
    """(series, row) of every forecast's origin."""
    return [
        (int(batch["series"][row]), int(batch["start"][row]) + warmup + int(p))
        for batch in batches
        for row, p in np.argwhere(batch["weight"] > 0)
    ]


# ---------------------------------------------------------------------------- scaling


def test_scaling_is_mean_and_deviation_of_what_is_there() -> None:
    values = np.array(
        [[1.0, 7.0, np.nan, 1e9], [3.0, 7.0, np.nan, 1e9], [np.nan, 7.0, np.nan, 1e9]]
    )
    found = Scaling.of(values)
    np.testing.assert_array_equal(found.mean, [2, 7, 0, 1e9])
    np.testing.assert_array_equal(found.std, [1, 1, 1, 1])  # constant or empty: not divided by 0
    again = Scaling.from_json(found.to_json())
    np.testing.assert_array_equal(again.apply(values), found.apply(values))
    assert Scaling.of(np.zeros((5, 0))).apply(np.zeros((2, 0))).shape == (2, 0)


# ---------------------------------------------------------------------------- origins


@given(SIZES, st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_the_whole_horizon_of_an_origin_lies_in_its_part(lengths: list[int], horizon: int) -> None:
    series = made(*lengths)
    for part in range(3):
        for i, found in enumerate(origins_of(series, part, horizon)):
            a, b = series.ends[i]
            begin, end = ((0, a), (a, b), (b, lengths[i]))[part]
            least = 1 if part == 0 else 0
            expected = [
                t for t in range(least, lengths[i]) if t + 1 >= begin and t + horizon < end
            ]  # fmt: skip
            assert found.tolist() == expected


@given(
    SIZES, st.integers(1, 4), st.integers(0, 2), st.integers(2, 12), st.integers(0, 11),
    st.integers(1, 4),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_scoring_has_every_origin_once_and_in_order(
    lengths: list[int], stride: int, part: int, num_steps: int, warmup: int, batch_size: int
) -> None:
    series, warmup = made(*lengths), min(warmup, num_steps - 1)
    origins = [o[::stride] for o in origins_of(series, part, 2)]
    expected = [(s, t) for s, found in enumerate(origins) for t in found]
    options = {"num_steps": num_steps, "warmup": warmup, "batch_size": batch_size}
    if not expected:
        with pytest.raises(UserError, match="lower horizon"):
            windows(series, origins, **options)
        return
    batches = windows(series, origins, shuffle=False, **options)
    assert placed(batches, warmup) == expected
    assert batches.targets == len(expected)
    again = windows(series, origins, shuffle=False, seed=9, **options)
    again.begin(3)
    assert placed(again, warmup) == expected


# ---------------------------------------------------------------------------- rows


@given(SIZES, st.integers(0, 2), st.booleans(), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_a_window_holds_the_rows_from_its_start(
    lengths: list[int], part: int, shuffle: bool, horizon: int
) -> None:
    series = made(*lengths, gaps=0.2)
    origins = origins_of(series, part, horizon)
    if not any(map(len, origins)):
        return
    scales = scalings(series)
    batches = windows(series, origins, horizon=horizon, shuffle=shuffle)
    for batch in batches:
        assert batch["inputs"].shape == (3, 7, 4) and batch["inputs"].dtype == np.float32
        for row, s in enumerate(batch["series"]):
            if s < 0:
                assert not batch["weight"][row].any()
                continue
            rows = batch["start"][row] + np.arange(7 + horizon)
            inside = (rows >= 0) & (rows < lengths[s])
            near = np.clip(rows, 0, lengths[s] - 1)
            targets, covariates, known = (
                scale.apply(a[s]).astype(np.float32)
                for scale, a in zip(
                    scales[s], (series.values, series.covariates, series.ahead), strict=True
                )
            )
            values = np.where(inside[:, None], targets[near], np.nan)
            np.testing.assert_array_equal(batch["values"][row], values)
            np.testing.assert_array_equal(batch["ahead"][row], known[near])
            np.testing.assert_array_equal(batch["inputs"][row, :, 2:3], covariates[near[:7]])
            np.testing.assert_array_equal(batch["inputs"][row, :, 3:], known[near[:7]])
            for j, t in enumerate(near[:7]):
                for k in range(2):
                    seen = targets[: t + 1, k][~np.isnan(targets[: t + 1, k])]
                    assert batch["inputs"][row, j, k] == (seen[-1] if len(seen) else 0)
            np.testing.assert_allclose(batch["scale"][row, :, 0], scales[s][0].mean, rtol=1e-6)
            np.testing.assert_allclose(batch["scale"][row, :, 1], scales[s][0].std, rtol=1e-6)


@pytest.mark.parametrize("origin, start", [(20, 14), (6, 0), (5, 0), (4, 0), (3, 0), (2, -1)])
def test_a_forecast_alone_has_all_the_context_that_a_window_holds(origin: int, start: int) -> None:
    """Of 7 steps, 3 of which warm up: as much as the last origin of a full window has. Where rows
    are too few, as many as there are, rather than more repeats of the first."""
    batches = windows(made(30), [np.array([origin])], shuffle=False)
    assert batches[0]["start"][0] == start
    assert placed(batches) == [(0, origin)]


def test_origins_with_strides_have_all_the_context_there_is() -> None:
    batches = windows(made(30), [np.arange(10, 20, 3)], shuffle=False)  # 10, 13 | 16 | 19
    assert batches[0]["start"].tolist() == [7, 10, 13]
    assert placed(batches) == [(0, 10), (0, 13), (0, 16), (0, 19)]


@given(st.integers(8, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_after_an_origin_is_seen_at_it(length: int, data: st.DataObject) -> None:
    """Its row and those before it in its window stay the same, whatever comes later: also where
    the first values of a column are missing."""
    series = made(length, gaps=data.draw(st.sampled_from([0.0, 0.3, 0.8])))
    scaling = scalings(series)
    origin = data.draw(st.integers(0, length - 2))
    later = made(length, gaps=0.3, seed=1)
    changed = series._replace(
        **{
            name: [np.concatenate([ours[0][: origin + 1], others[0][origin + 1 :]])]
            for name, ours, others in (
                ("values", series.values, later.values),
                ("covariates", series.covariates, later.covariates),
            )
        }
    )
    origins = [np.arange(origin % 3, length, data.draw(st.integers(1, 4)))]
    pair = [
        SeriesWindows(s, scaling, origins, 3, 7, 3, 2, shuffle=False) for s in (series, changed)
    ]
    for ours, theirs in zip(*pair, strict=True):
        np.testing.assert_array_equal(ours["scale"], theirs["scale"])
        for row, start in enumerate(ours["start"]):
            known = max(origin - start + 1, 0) if ours["series"][row] >= 0 else 0
            a, b = (batch["inputs"][row, :known] for batch in (ours, theirs))
            np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------- training


@given(SIZES, st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_training_windows_stay_inside_the_training_part(
    lengths: list[int], horizon: int, epoch: int
) -> None:
    """With all their horizons; each holds origins in a row, as many as it can."""
    series = made(*lengths)
    origins = origins_of(series, 0, horizon)
    if not any(map(len, origins)):
        return
    batches = windows(series, origins, horizon=horizon)
    batches.begin(epoch)
    count = np.zeros(len(lengths), int)
    for batch in batches:
        for row, s in enumerate(batch["series"]):
            at = batch["start"][row] + 3 + np.flatnonzero(batch["weight"][row])
            if s < 0:
                assert not len(at)
                continue
            count[s] += 1
            assert (np.diff(at) == 1).all() and len(at) == min(len(origins[s]), 4)
            assert at[0] >= 1 and at[-1] + horizon < series.ends[s][0]
    assert count.tolist() == [-(-len(o) // 4) for o in origins]


def test_places_are_drawn_from_seed_and_epoch_alone() -> None:
    series = made(90, 60)
    origins = origins_of(series, 0, 2)
    drawn = {}
    for seed in (0, 1):
        for epochs in ((0,), (1,), (0, 1), (5, 1)):
            batches = windows(series, origins, seed=seed)
            for epoch in epochs:
                batches.begin(epoch)
            key, found = (seed, epochs[-1]), placed(batches)
            assert drawn.setdefault(key, found) == found
    # Other places, not only another order.
    assert len({tuple(sorted(found)) for found in drawn.values()}) == len(drawn) == 4
    seen = set()
    for epoch in range(200):
        batches.begin(epoch)
        seen |= set(placed(batches))
    assert seen == {(s, t) for s, found in enumerate(origins) for t in found}


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_two_processes_are_the_whole_batch(shuffle: bool) -> None:
    series = made(40, 23, gaps=0.1)
    origins = origins_of(series, 0, 2)
    parts = [
        windows(series, origins, batch_size=4, rows=rows, shuffle=shuffle)
        for rows in (slice(None), slice(0, 2), slice(2, 4))
    ]
    for batches in parts:
        batches.begin(3)
    for whole, *two in zip(*parts, strict=True):
        assert len(whole["weight"]) == 4
        for name, array in whole.items():
            np.testing.assert_array_equal(array, np.concatenate([part[name] for part in two]))
