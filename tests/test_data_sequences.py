"""Batches of unequal sequences: each once an epoch, in few shapes, with what was put in."""

import itertools

import numpy as np
import pytest
from data_files import line
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx.data.sequences import BUCKETS, SequenceBatches, Sequences, bounds
from rnnx.errors import UserError

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def made(lengths) -> Sequences:
    """Steps that tell their sequence and place; the value of a whole one is its number from 1."""
    return Sequences(
        {
            "x": [
                np.outer(np.arange(1, n + 1), [1, 1000 * i + 1000]) for i, n in enumerate(lengths)
            ],
            "label": [np.full(n, i % 7 + 1, np.uint8) for i, n in enumerate(lengths)],
        },
        {"number": np.arange(1, len(lengths) + 1), "pair": np.ones((len(lengths), 2), np.float32)},
    )


def long_tailed(count: int) -> np.ndarray:
    draws = np.random.default_rng(0).lognormal(4.0, 0.7, count)
    return np.ceil(draws).astype(int)


def shapes(batches: SequenceBatches) -> list[int]:
    return [batch["label"].shape[1] for batch in batches]


@settings(max_examples=200, deadline=None)
@given(
    lengths=lengths_of, size=st.integers(1, 12), epoch=st.integers(0, 3), shuffle=st.booleans(),
    buckets=st.integers(1, BUCKETS),
)  # fmt: skip
def test_each_sequence_is_there_once_as_it_was_put_in(lengths, size, epoch, shuffle, buckets):
    batches = SequenceBatches(made(lengths), size, seed=1, shuffle=shuffle, buckets=buckets)
    assert len(batches) == -(-len(lengths) // size) and batches.targets == len(lengths)
    batches.begin(epoch)
    seen = []
    for batch in batches:
        assert {name: (a.shape[0], a.dtype) for name, a in batch.items()} == {
            "x": (size, np.int64), "label": (size, np.uint8), "number": (size, np.int64),
            "pair": (size, np.float32), "lengths": (size, np.int32), "weight": (size, np.float32),
        }  # fmt: skip
        for x, label, number, pair, length, weight in zip(*batch.values(), strict=True):
            assert weight == (number > 0) and length == (lengths[number - 1] if weight else 0)
            assert (pair == weight).all()
            expected = np.outer(np.arange(1, length + 1), [1, 1000 * number])
            assert np.array_equal(x[:length], expected) and not x[length:].any()
            assert (label[:length] == (number - 1) % 7 + 1).all() and not label[length:].any()
            seen += [number] if weight else []
    assert sorted(seen) == list(range(1, len(lengths) + 1))
    assert len(set(shapes(batches))) <= buckets
    steps = sum(map(np.size, (batch["label"] for batch in batches)))
    assert batches.padding == pytest.approx(1 - sum(lengths) / steps)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of, half=st.integers(1, 5), epoch=st.integers(0, 3), shuffle=st.booleans())
def test_rows_of_two_processes_are_the_whole_batch(lengths, half, epoch, shuffle):
    whole, *parts = (
        SequenceBatches(made(lengths), 2 * half, shuffle=shuffle, rows=rows)
        for rows in (slice(None), slice(half), slice(half, None))
    )
    for batches in (whole, *parts):
        batches.begin(epoch)
    for batch, *halves in zip(whole, *parts, strict=True):
        for name, a in batch.items():
            assert np.array_equal(a, np.concatenate([part[name] for part in halves]))


def test_the_order_is_a_function_of_seed_and_epoch():
    sequences = made(long_tailed(200))

    def order(seed: int, *epochs: int) -> list[int]:
        batches = SequenceBatches(sequences, 8, seed=seed)
        for epoch in epochs:
            batches.begin(epoch)
        return [number for batch in batches for number in batch["number"]]

    assert order(3, 5) == order(3, 0, 7, 5)
    assert order(3) == order(3, 0)
    assert len({tuple(order(*of)) for of in ((3, 5), (3, 6), (4, 5))}) == 3


def test_scoring_goes_from_long_to_short_in_every_epoch():
    batches = SequenceBatches(made([3, 9, 1, 9, 5]), 2, shuffle=False)
    for epoch in (0, 4):
        batches.begin(epoch)
        assert [batch["number"].tolist() for batch in batches] == [[2, 4], [5, 1], [3, 0]]


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of, size=st.integers(1, 4), limit=st.integers(1, 9))
def test_alike_counts_batches_of_one_shape(lengths, size, limit):
    batches = SequenceBatches(made(lengths), size)
    found = shapes(batches)
    for first in range(len(batches)):
        rest = found[first : first + limit]
        same = itertools.takewhile(lambda length, one=rest[0]: length == one, rest)
        assert batches.alike(first, limit) == len(list(same))


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30).map(np.array),
    count=st.integers(1, 5),
)
def test_bounds_pad_least(lengths, count):
    def padded(ends) -> int:
        ends = np.array(ends)
        return ends[np.searchsorted(ends, lengths)].sum()

    found = bounds(lengths, count)
    known = np.unique(lengths)
    assert len(found) <= count and found[-1] == lengths.max() and (np.diff(found) > 0).all()
    least = min(
        padded((*others, known[-1]))
        for k in range(count)
        for others in itertools.combinations(known[:-1], k)
    )
    assert padded(found) == least


def test_a_long_tail_pads_little_in_few_shapes_and_long_runs():
    lengths = long_tailed(5_000)
    batches = SequenceBatches(made(lengths), 16)
    used, short = set(), set()
    for epoch in range(6):
        batches.begin(epoch)
        found = shapes(batches)
        used |= set(found)
        assert batches.padding < 0.25
        runs = [len(list(run)) for _, run in itertools.groupby(found)]
        assert sum(runs) / len(runs) > 4
        quarter = len(found) // 4  # each holds short and long ones
        for part in range(0, 4 * quarter, quarter):
            assert len(set(found[part : part + quarter])) >= 4
        assert max(runs) < len(found) / 4
        short |= {n for n, batch in zip(found, batches, strict=True) if not batch["weight"].all()}
    assert len(used) <= BUCKETS
    assert len(short) > 1  # not the same bucket's in every epoch


def test_sequences_meet_others_in_the_next_epoch():
    """200 sequences fill 25 batches, too few for 8 buckets."""
    batches = SequenceBatches(made(np.arange(1, 201)), 8)
    met = []
    for epoch in range(2):
        batches.begin(epoch)
        groups = [set(batch["number"]) for batch in batches]
        met.append({pair for group in groups for pair in itertools.combinations(sorted(group), 2)})
    assert len(met[0] & met[1]) < 0.3 * len(met[0])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count, most", [(31, 1), (32, 2)])
def test_a_length_is_compiled_for_many_batches_only(count: int, most: int, shuffle: bool) -> None:
    batches = SequenceBatches(made(np.arange(1, 8 * count + 1)), 8, shuffle=shuffle)
    assert len(set(shapes(batches))) == most


one, two = np.ones(1), np.ones(2)


@pytest.mark.parametrize(
    "steps, whole, what",
    [
        ({"x": []}, {}, "no sequences"),
        ({"x": [two, np.ones(0)]}, {}, "x of sequence 2 of 2 has no steps"),
        ({"x": [two, two], "y": [two, one]}, {}, "y of sequence 2 of 2 has 1 steps, x 2"),
        ({"x": [two, np.ones((2, 3))]}, {}, r"x of sequence 2 of 2 has steps of shape \(3,\)"),
        ({"x": [two, two], "y": [two]}, {}, "2 sequences of x, but 1 of y"),
        ({"x": [two, two]}, {"y": [1]}, "2 sequences of x, but 1 of y"),
        ({"x": [two, one, [np.nan, 0, 0]]}, {}, "x of sequence 3 of 3 has a value that is not"),
        ({"x": [two, [[np.inf], [1]]][1:]}, {}, "x of sequence 1 of 1 has a value that is not"),
        ({"x": [one, one]}, {"y": [[0, 1], [0, -np.inf]]}, "y of sequence 2 of 2 has a value"),
    ],
)
def test_what_is_refused(steps, whole, what):
    with pytest.raises(UserError, match=what) as error:
        Sequences(steps, whole)
    line(error)


def test_an_empty_batch_is_refused():
    with pytest.raises(UserError, match="a batch of 0"):
        SequenceBatches(made([1]), 0)
