"""Any text at all: what goes in comes out, or one line says why not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rnnx import batches, corpora
from rnnx.errors import UserError
from rnnx.vocabulary import EOS, UNK, Vocabulary

ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""])
unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
lines = st.lists(st.tuples(unicode, ends)).map(lambda parts: "".join(a + b for a, b in parts))
repeated = st.tuples(st.text("ab \n\x00\u2028", max_size=9), st.integers(1, 40))
texts = st.one_of(lines, repeated.map(lambda pair: pair[0] * pair[1]), st.just("x" * 5_000))
levels = st.sampled_from(["byte", "char", "word"])
ODD = ["", "\n" * 50, "\ufeff" + "ab\r\n" * 20, "a" * 37 + "\U0010ffff\x00\r", "<unk> <eos> " * 20]


def encoded(path: Path, data: bytes, level: str) -> tuple[Vocabulary, list[np.ndarray]]:
    """Vocabulary and splits of a file, as preparing it would find them."""
    path.write_bytes(data)
    plan = corpora._plan_file(str(path), level)
    return corpora._encode(plan, plan.read())


def told_in_one_line(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 300


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts") / "own.txt"


@settings(max_examples=300, deadline=None)
@given(text=texts, level=levels)
@example(text=ODD[0], level="word")
@example(text=ODD[1], level="word")
@example(text=ODD[2], level="char")
@example(text=ODD[3], level="char")
@example(text=ODD[4], level="word")
def test_any_text_comes_back_from_its_ids(file: Path, text: str, level: str) -> None:
    try:
        vocabulary, splits = encoded(file, text.encode(), level)
    except UserError as error:
        assert "too short" in str(error) and told_in_one_line(error)
        return
    symbols = [vocabulary.symbols[i] for i in np.concatenate(splits)]
    train = set(symbols[: len(splits[0])])
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if level == "byte":
        assert bytes(symbols) == text.encode()
    elif level == "char":
        assert symbols == [c if c in train else UNK for c in plain]
    else:
        words = [w for s in plain.removesuffix("\n").split("\n") for w in (*s.split(), EOS)]
        kept = {w for w in words[: len(splits[0])] if words[: len(splits[0])].count(w) > 1}
        assert symbols == [w if w in kept | {EOS} else UNK for w in words]
    sizes = [len(split) for split in splits]
    assert sizes[0] == sum(sizes) * 90 // 100 and sizes[0] + sizes[1] == sum(sizes) * 95 // 100
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), level=levels)
def test_any_bytes_are_taken_or_refused_in_one_line(file: Path, data: bytes, level: str) -> None:
    try:
        vocabulary, splits = encoded(file, data, level)
    except UserError as error:
        assert told_in_one_line(error)
        return
    assert sum(map(len, splits)) >= 40
    assert all(s.max(initial=0) < vocabulary.size for s in splits)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(batch=st.integers(1, 9), steps=st.integers(1, 9), over=st.integers(-12, 12), data=st.data())
def test_sizes_around_a_batch_of_windows(batch: int, steps: int, over: int, data) -> None:
    """N near B T: every target that a stream holds is in exactly one window, or it is refused."""
    n = max(batch * steps + over, 0)
    tokens = np.arange(n)
    try:
        windows = batches.training_windows(tokens, batch, steps, slice(0, batch), 0)
        count = len(windows)
    except UserError as error:
        assert told_in_one_line(error) and n // batch < steps + 1
        return
    length = n // batch
    assert count == (length - 1) // steps >= 1
    seen = []
    for i in range(count):
        x, y = windows[i]
        assert x.shape == y.shape == (batch, steps) and np.array_equal(y, x + 1)
        seen += y.ravel().tolist()
    expected = [b * length + t for b in range(batch) for t in range(1, count * steps + 1)]
    assert sorted(seen) == expected
