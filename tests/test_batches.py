import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data.batches import Pieces, PieceWindows, Windows, capped, scoring_windows, streams
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
    x, y = windows[1]
    assert x.tolist() == [[203, 204, 205], [213, 214, 215]]
    assert y.tolist() == [[204, 205, 206], [214, 215, 216]]
    assert x.dtype == y.dtype == np.int32
    assert [x[0, 0] for x, _ in windows] == [200, 203, 206]  # iterates, and ends
    assert windows[-1][1].tolist() == [[207, 208, 209], [217, 218, 219]]


def test_windows_side_by_side():
    windows = Windows(np.arange(200, 221, dtype=np.uint8), 2, 3)
    x, y = windows.together(1, 2, 4)
    assert x.shape == y.shape == (2, 12) and x.dtype == np.int32
    for i in (1, 2):
        there = slice(3 * (i - 1), 3 * i)
        assert (x[:, there] == windows[i][0]).all() and (y[:, there] == windows[i][1]).all()
    assert not x[:, 6:].any() and not y[:, 6:].any()


@given(st.integers(2, 200), sizes, sizes)
def test_windows_run_through_each_stream_in_order(n, batch_size, num_steps):
    tokens = np.arange(n)
    if n // batch_size <= num_steps:
        with pytest.raises(UserError, match="batch larger than the text"):
            Windows(tokens, batch_size, num_steps)
        return
    windows = Windows(tokens, batch_size, num_steps)
    x, y = (np.concatenate(part, axis=1) for part in zip(*windows, strict=True))
    length = n // batch_size
    kept = (length - 1) // num_steps * num_steps
    assert (x == np.arange(batch_size)[:, None] * length + np.arange(kept)).all()
    assert (y == x + 1).all()
    assert length - 1 - kept < num_steps  # less than a window is dropped


def test_rows_are_one_process_share():
    tokens = np.arange(100)
    whole = Windows(tokens, 4, 5)
    parts = [Windows(tokens, 4, 5, rows=slice(a, a + 2)) for a in (0, 2)]
    assert len(whole) == len(parts[0]) == 4
    for i, (x, y) in enumerate(whole):
        assert (np.concatenate([part[i][0] for part in parts]) == x).all()
        assert (np.concatenate([part[i][1] for part in parts]) == y).all()


@given(st.integers(2, 200), sizes, sizes)
def test_scoring_covers_each_target_exactly_once(n, batch_size, num_steps):
    windows = scoring_windows(np.arange(n), batch_size, num_steps)
    scored, streams = [], []
    for x, y, weight in windows:
        assert x.shape == y.shape == weight.shape == (batch_size, num_steps)
        assert (x.dtype, y.dtype, weight.dtype) == (np.int32, np.int32, np.float32)
        assert (y[weight > 0] == x[weight > 0] + 1).all()
        assert ((weight == 0) | (weight == 1)).all()
        scored += y[weight > 0].tolist()
        streams.append(np.where(weight > 0, x, -1))
    assert sorted(scored) == list(range(1, n))
    assert len(streams) == len(windows)
    for row in np.concatenate(streams, axis=1):  # in order, and padding only behind
        kept = row[row >= 0]
        assert (row[: len(kept)] == kept).all() and (np.diff(kept) == 1).all()


def test_scoring_at_batch_one_is_one_stream_from_the_first_token():
    tokens = np.array([5, 3, 8, 1, 9, 2], np.uint8)
    windows = scoring_windows(tokens, 1, 4)
    assert len(windows) == 2
    x, y, weight = (np.concatenate(part, axis=1)[0] for part in zip(*windows, strict=True))
    assert x[:5].tolist() == [5, 3, 8, 1, 9]
    assert y[:5].tolist() == [3, 8, 1, 9, 2]
    assert weight.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_streams_for_scoring_differ_by_one_at_most():
    weight = np.concatenate([w for *_, w in scoring_windows(np.arange(1001), 7, 10)], axis=1)
    assert sorted(weight.sum(1).tolist()) == [142, 143, 143, 143, 143, 143, 143]


@pytest.mark.parametrize("batch_size, num_steps", [(0, 5), (-1, 5), (5, 0), (5, -3)])
def test_sizes_below_one_are_refused(batch_size, num_steps):
    for make in (Windows, scoring_windows):
        with pytest.raises(UserError, match="at least 1"):
            make(np.arange(100), batch_size, num_steps)


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_score(n):
    with pytest.raises(UserError, match="no next symbol"):
        scoring_windows(np.arange(n), 1, 5)


def test_out_of_range():
    for windows in (Windows(np.arange(50), 2, 5), scoring_windows(np.arange(50), 2, 5)):
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
    for i, (x, y, weight) in enumerate(windows):
        assert x.shape == (batch_size, num_steps, 2) and weight.shape == x.shape[:2]
        last = [None] * batch_size if windows.fresh(i) else last
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
        return windows[0][0][:, 0, 0].tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(s, e)) for s in (1, 2) for e in (1, 2)}) == 4


def test_windows_of_pieces_side_by_side():
    windows = PieceWindows(pieces_of([7, 3, 5]), 2, 2)
    assert len(windows) == 2 * 3
    x, y, weight, fresh = windows.together(1, 4, 6)
    assert x.shape == y.shape == (2, 12, 2) and weight.shape == (2, 12)
    assert fresh.tolist() == [0, 0, 1, 0, 0, 0]
    for i in range(4):
        there = slice(2 * i, 2 * i + 2)
        for whole, part in zip((x, y, weight), windows[i + 1], strict=True):
            assert (whole[:, there] == part).all()
    assert not weight[:, 8:].any()
    share = PieceWindows(pieces_of([7, 3, 5]), 2, 2, rows=slice(1, 2))
    assert (share[0][0] == windows[0][0][1:]).all()


def test_capped_splits():
    assert capped(np.arange(9), 4).tolist() == [0, 1, 2, 3, 4]
    assert len(capped(np.arange(9), 0)) == 9
    pieces = pieces_of([4, 3, 6])  # 3, 2 and 5 targets
    assert [capped(pieces, n).targets for n in (1, 3, 4, 5, 6, 10, 99, 0)] == [
        3, 3, 5, 5, 10, 10, 10, 10
    ]  # fmt: skip
