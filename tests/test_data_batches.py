"""Windows of texts and pieces: every target once, in order, for any number of rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data.batches import Pieces, PieceWindows, ScoringWindows, Windows, capped, streams
from rnnx.errors import UserError

sizes = st.integers(1, 9)


def test_streams_are_contiguous_views():
    tokens = np.arange(23, dtype=np.uint8)
    rows = streams(tokens, 4)
    assert rows.tolist() == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [*range(15, 20)],
    ]
    assert np.shares_memory(rows, tokens)


def test_windows_of_the_paper():
    assert len(Windows(np.zeros(929_589, np.uint16), 20, 35)) == 1327


def test_windows_by_hand():
    windows = Windows(np.arange(200, 221, dtype=np.uint8), 2, 3)  # streams of 10; (10 - 1) // 3
    assert len(windows) == 3
    window = windows[1]
    assert window.keys() == {"inputs", "targets", "weight", "fresh"}
    x, y = window["inputs"], window["targets"]
    assert x.tolist() == [[203, 204, 205], [213, 214, 215]]
    assert y.tolist() == [[204, 205, 206], [214, 215, 216]]
    assert x.dtype == y.dtype == np.int32
    assert window["weight"].tolist() == [[1, 1, 1]] * 2 and window["weight"].dtype == np.float32
    assert [w["inputs"][0, 0] for w in windows] == [200, 203, 206]  # iterates, and ends
    assert [w["fresh"].tolist() for w in windows] == [[1, 1], [0, 0], [0, 0]]
    assert windows[-1]["targets"].tolist() == [[207, 208, 209], [217, 218, 219]]
    assert windows.targets == 3 * 2 * 3


def test_windows_one_after_the_other():
    windows = Windows(np.arange(200, 221, dtype=np.uint8), 2, 3)
    stacked = windows.together(1, 2, 4)
    for name, whole in stacked.items():
        assert whole.shape == (4, *windows[0][name].shape)
        assert whole.dtype == windows[0][name].dtype
        assert all((whole[i] == windows[1 + i][name]).all() for i in (0, 1))
        assert not whole[2:].any()
    assert [windows.alike(first, 2) for first in (0, 1, 2)] == [2, 2, 1]


@given(st.integers(2, 200), sizes, sizes)
def test_windows_run_through_each_stream_in_order(n, batch_size, num_steps):
    tokens = np.arange(n)
    if n // batch_size <= num_steps:
        with pytest.raises(UserError, match="batch larger than the text") as error:
            Windows(tokens, batch_size, num_steps)
        assert "\n" not in str(error.value)
        return
    windows = Windows(tokens, batch_size, num_steps)
    x, y = (np.concatenate([w[k] for w in windows], axis=1) for k in ("inputs", "targets"))
    length = n // batch_size
    kept = (length - 1) // num_steps * num_steps
    assert (x == np.arange(batch_size)[:, None] * length + np.arange(kept)).all()
    assert (y == x + 1).all()
    assert length - 1 - kept < num_steps  # less than a window is dropped


@pytest.mark.parametrize("batch_size, num_steps", [(1, 1), (3, 4), (7, 2)])
def test_the_smallest_text_for_a_window(batch_size, num_steps):
    least = batch_size * (num_steps + 1)
    assert len(Windows(np.arange(least), batch_size, num_steps)) == 1
    with pytest.raises(UserError, match="batch larger than the text"):
        Windows(np.arange(least - 1), batch_size, num_steps)


def test_rows_are_one_process_share():
    tokens = np.arange(100)
    whole = Windows(tokens, 4, 5)
    parts = [Windows(tokens, 4, 5, rows=slice(a, a + 2)) for a in (0, 2)]
    assert len(whole) == len(parts[0]) == 4
    for i, window in enumerate(whole):
        for name, a in window.items():
            assert (np.concatenate([part[i][name] for part in parts]) == a).all()


# ---------------------------------------------------------------------------- rows that restart


def restarts(seed: int, epoch: int, p: float = 0.1, rows: slice = slice(None)) -> np.ndarray:
    """Which rows (B) of which windows (N) start from the zero state, (N, B)."""
    windows = Windows(np.arange(20_000), 40, 4, rows, reset_prob=p, seed=seed)
    windows.begin(epoch)
    return np.stack([window["fresh"] for window in windows])


def test_rows_restart_with_the_probability_asked_for():
    fresh = restarts(0, 0)
    assert set(np.unique(fresh)) == {0, 1}
    assert (fresh[0] == 1).all()  # the first window of an epoch has nothing before it
    drawn = fresh[1:]
    assert abs(drawn.mean() - 0.1) < 4 * np.sqrt(0.09 / drawn.size)
    # Rows and windows draw by themselves: neither all of a window nor all of a row restart.
    assert 0 < drawn.mean(axis=0).min() < drawn.mean(axis=0).max() < 0.3
    assert 0 < drawn.mean(axis=1).max() < 0.5


def test_restarts_are_a_function_of_seed_and_epoch_alone():
    assert (restarts(1, 2) == restarts(1, 2)).all()
    draws = {restarts(seed, epoch).tobytes() for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(draws) == 6


def test_restarts_of_two_processes_are_those_of_the_global_batch():
    parts = [restarts(3, 1, rows=slice(a, a + 20)) for a in (0, 20)]
    assert (np.concatenate(parts, axis=1) == restarts(3, 1)).all()


def test_without_reset_prob_only_the_first_window_starts_anew():
    for seed, epoch in ((0, 0), (3, 5)):
        fresh = restarts(seed, epoch, p=0.0)
        assert (fresh[0] == 1).all() and not fresh[1:].any()
    plain, resetting = (Windows(np.arange(500), 4, 5, reset_prob=p) for p in (0.0, 0.5))
    for a, b in zip(plain, resetting, strict=True):  # the windows themselves are the same
        assert all((a[name] == b[name]).all() for name in ("inputs", "targets", "weight"))


# ---------------------------------------------------------------------------- scoring


@given(st.integers(2, 200), sizes, sizes)
def test_scoring_covers_each_target_exactly_once(n, batch_size, num_steps):
    windows = ScoringWindows(np.arange(n), batch_size, num_steps)
    assert windows.targets == n - 1
    scored, streams = [], []
    for i, window in enumerate(windows):
        x, y, weight = window["inputs"], window["targets"], window["weight"]
        assert window["fresh"].tolist() == [i == 0] * batch_size
        assert x.shape == y.shape == weight.shape == (batch_size, num_steps)
        assert (x.dtype, y.dtype, weight.dtype) == (np.int32, np.int32, np.float32)
        assert (y[weight > 0] == x[weight > 0] + 1).all()
        assert ((weight == 0) | (weight == 1)).all()
        scored += y[weight > 0].tolist()
        streams.append(np.where(weight > 0, x, -1))
    assert sorted(scored) == list(range(1, n))
    assert len(streams) == len(windows)
    for row in np.concatenate(streams, axis=1):  # in order, and padding only at the end
        kept = row[row >= 0]
        assert (row[: len(kept)] == kept).all() and (np.diff(kept) == 1).all()


def test_scoring_at_batch_one_is_one_stream_from_the_first_token():
    tokens = np.array([5, 3, 8, 1, 9, 2], np.uint8)
    windows = ScoringWindows(tokens, 1, 4)
    assert len(windows) == 2
    x, y, weight = (
        np.concatenate([w[name] for w in windows], axis=1)[0]
        for name in ("inputs", "targets", "weight")
    )
    assert x[:5].tolist() == [5, 3, 8, 1, 9]
    assert y[:5].tolist() == [3, 8, 1, 9, 2]
    assert weight.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_rows_of_scoring_are_one_process_share():
    whole = ScoringWindows(np.arange(100), 4, 5)
    parts = [ScoringWindows(np.arange(100), 4, 5, rows=slice(a, a + 2)) for a in (0, 2)]
    for i, window in enumerate(whole):
        for name, a in window.items():
            assert (np.concatenate([part[i][name] for part in parts]) == a).all()


def test_streams_for_scoring_differ_by_one_at_most():
    windows = ScoringWindows(np.arange(1001), 7, 10)
    weight = np.concatenate([w["weight"] for w in windows], axis=1)
    assert sorted(weight.sum(1).tolist()) == [142, 143, 143, 143, 143, 143, 143]


@pytest.mark.parametrize("batch_size, num_steps", [(0, 5), (-1, 5), (5, 0), (5, -3)])
def test_sizes_below_one_are_refused(batch_size, num_steps):
    for make in (Windows, ScoringWindows):
        with pytest.raises(UserError, match="at least 1"):
            make(np.arange(100), batch_size, num_steps)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_score(n):
    with pytest.raises(UserError, match="no next symbol"):
        ScoringWindows(np.arange(n), 1, 5)


def test_out_of_range():
    for windows in (Windows(np.arange(50), 2, 5), ScoringWindows(np.arange(50), 2, 5)):
        with pytest.raises(IndexError):
            windows[len(windows)]


# ---------------------------------------------------------------------------- pieces


def pieces_of(lengths: list[int]) -> Pieces:
    """Pieces whose every frame is another number, so that windows tell where they come from."""
    frames = np.arange(sum(lengths) * 2, dtype=np.float32).reshape(-1, 2) + 1
    return Pieces.of(np.split(frames, np.cumsum(lengths)[:-1]))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), sizes, sizes, st.integers(0, 3))
def test_pieces_are_covered_exactly_once_from_the_zero_state(lengths, batch_size, num_steps, epoch):
    if max(lengths) == 1:
        lengths = [*lengths, 2]
    pieces = pieces_of(lengths)
    windows = PieceWindows(pieces, batch_size, num_steps, seed=5)
    if epoch:
        windows.begin(epoch)
    seen: list[tuple[float, float]] = []
    last: list[float | None] = [None] * batch_size
    for window in windows:
        x, y, weight = window["inputs"], window["targets"], window["weight"]
        assert x.shape == (batch_size, num_steps, 2) and weight.shape == x.shape[:2]
        last = [None if fresh else v for fresh, v in zip(window["fresh"], last, strict=True)]
        for row in range(batch_size):
            for t in np.flatnonzero(weight[row]):
                before, now = float(x[row, t, 0]), float(y[row, t, 0])
                assert last[row] in (None, before), "a piece is not read in its order"
                seen.append((before, now))
                last[row] = now
    expected = [
        (float(a[0]), float(b[0])) for piece in pieces.pieces for a, b in itertools.pairwise(piece)
    ]
    assert sorted(seen) == sorted(expected)
    assert windows.targets == pieces.targets == len(expected)


def test_pieces_are_shuffled_by_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[float]:
        windows = PieceWindows(pieces_of([4] * 20), 20, 3, seed=seed)
        windows.begin(epoch)
        return windows[0]["inputs"][:, 0, 0].tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(s, e)) for s in (1, 2) for e in (1, 2)}) == 4


def test_windows_of_pieces_one_after_the_other():
    windows = PieceWindows(pieces_of([7, 3, 5]), 2, 2)
    assert len(windows) == 2 * 3
    stacked = windows.together(1, 4, 6)
    assert stacked["inputs"].shape == stacked["targets"].shape == (6, 2, 2, 2)
    assert stacked["fresh"].tolist() == [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [0, 0]]
    for name, whole in stacked.items():
        assert all((whole[i] == windows[i + 1][name]).all() for i in range(4))
        assert not whole[4:].any()
    share = PieceWindows(pieces_of([7, 3, 5]), 2, 2, rows=slice(1, 2))
    for name, a in windows[0].items():
        assert (share[0][name] == a[1:]).all()


def test_capped_splits():
    assert capped(np.arange(9), 4).tolist() == [0, 1, 2, 3, 4]
    assert len(capped(np.arange(9), 0)) == 9
    pieces = pieces_of([4, 3, 6])  # 3, 2 and 5 targets
    assert [capped(pieces, n).targets for n in (1, 3, 4, 5, 6, 10, 99, 0)] == [
        3, 3, 5, 5, 10, 10, 10, 10
    ]  # fmt: skip
