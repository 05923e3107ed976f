"""Any text at all becomes ids and comes back, or one line says why not; the Python library."""

import hashlib
import random
import sysconfig

import numpy as np
import pytest
from data_files import line, own, own_cache, put
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnnx import data
from rnnx.data import text as texts
from rnnx.data.vocabulary import EOS, UNK, Vocabulary
from rnnx.errors import UserError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""])
unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
lines = st.lists(st.tuples(unicode, ends)).map(lambda parts: "".join(a + b for a, b in parts))
repeated = st.tuples(st.text("ab \n\x00\u2028", max_size=9), st.integers(1, 40))
any_text = st.one_of(lines, repeated.map(lambda pair: pair[0] * pair[1]), st.just("x" * 5_000))
levels = st.sampled_from(["byte", "char", "word"])
ODD = ["", "\n" * 50, "\ufeff" + "ab\r\n" * 20, "a" * 37 + "\U0010ffff\x00\r", "<unk> <eos> " * 20]


def told_in_one_line(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 300


@settings(max_examples=300, deadline=None)
@given(text=any_text, level=levels)
@example(text=ODD[0], level="word")
@example(text=ODD[1], level="word")
@example(text=ODD[2], level="char")
@example(text=ODD[3], level="char")
@example(text=ODD[4], level="word")
def test_any_text_comes_back_from_its_ids(text: str, level: str) -> None:
    try:
        vocabulary, splits = texts.own({"own.txt": text.encode()}, level)
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
@given(content=st.binary(max_size=200), level=levels)
def test_any_bytes_are_taken_or_refused_in_one_line(content: bytes, level: str) -> None:
    try:
        vocabulary, splits = texts.own({"own.txt": content}, level)
    except UserError as error:
        assert told_in_one_line(error)
        return
    assert sum(map(len, splits)) >= 40
    assert all(s.max(initial=0) < vocabulary.size for s in splits)


def test_own_characters(tmp_path):
    text = "the cat sat.\n" * 20
    corpus = own(tmp_path, text)
    assert corpus.vocabulary.symbols == tuple(sorted(set(text)))
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [234, 13, 13]
    assert corpus.train.dtype == np.uint8
    whole = np.concatenate([corpus.train, corpus.valid, corpus.test])
    assert corpus.vocabulary.decode(whole) == text
    assert corpus.level == "char" and corpus.name == str(tmp_path / "own.txt")
    assert corpus.sums == {"own.txt": hashlib.sha256(text.encode()).hexdigest()}


def test_own_vocabulary_comes_from_train_alone(tmp_path):
    corpus = own(tmp_path, "ba" * 95 + "éa" * 5)  # é is met in test only
    assert corpus.vocabulary.symbols == ("a", "b", "<unk>")
    assert corpus.test.tolist() == [2, 0] * 5


def test_own_line_ends_and_byte_order_mark(tmp_path):
    corpus = own(tmp_path, "\ufeff" + "a\r\nb\rc\n" * 20)
    assert corpus.vocabulary.symbols == ("\n", "a", "b", "c")
    assert corpus.vocabulary.decode(corpus.train[:6]) == "a\nb\nc\n"
    octets = own(tmp_path, b"\xef\xbb\xbfa\r\n" * 20, "byte")
    assert bytes(octets.train[:5]) == b"\xef\xbb\xbfa\r"


def test_own_words(tmp_path):
    # Nine tenths: 45 lines "b a a" and one "c", 182 symbols of 203; c is seen once there.
    text = "b a a\n" * 45 + "c\n\n" + "a c\n" * 6 + "b"
    corpus = own(tmp_path, text, "word")
    assert corpus.vocabulary.symbols == ("a", "<eos>", "b", "<unk>")
    whole = np.concatenate([corpus.train, corpus.valid, corpus.test])
    assert len(corpus.train) == len(whole) * 9 // 10 and len(whole) == 203
    assert whole[:4].tolist() == [2, 0, 0, 1]
    assert whole[180:183].tolist() == [3, 1, 1]  # an empty line is one <eos>
    assert whole[-2:].tolist() == [2, 1]  # and the last line ends, newline or not


def test_own_words_ties_go_by_the_alphabet(tmp_path):
    corpus = own(tmp_path, "z y x\n" * 30, "word")
    assert corpus.vocabulary.symbols == ("<eos>", "x", "y", "z", "<unk>")


def test_one_long_line_of_words(tmp_path):
    corpus = own(tmp_path, "a b " * 50, "word")  # the one <eos> is not in train
    assert corpus.vocabulary.symbols == ("a", "b", "<eos>", "<unk>")
    assert corpus.test[-2:].tolist() == [1, 2]


def test_own_bytes_are_left_alone(tmp_path):
    content = random.Random(0).randbytes(1000)
    corpus = own(tmp_path, content, "byte")
    assert corpus.vocabulary.symbols == tuple(range(256))
    assert b"".join(s.tobytes() for s in (corpus.train, corpus.valid, corpus.test)) == content
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [900, 50, 50]


@pytest.mark.parametrize(
    "content, level, what",
    [
        (b"", "char", "too short: 0 chars"),
        (b"", "word", "too short: 0 words"),
        (b"", "byte", "too short: 0 bytes"),
        (b"\xef\xbb\xbf", "char", "too short: 0 chars"),
        (b"x" * 19, "char", "too short: 19 chars"),
        (b"x" * 39, "byte", "too short: 39 bytes"),
        (b"word " * 30, "word", "too short: 31 words"),
        (b"good text" * 9 + b"\xff\xfe", "char", r"not UTF-8 \(byte 0xff at offset 81\)"),
        (b"good text\n" * 9 + b"\xe2\x82", "word", r"not UTF-8 \(byte 0xe2 at offset 90\)"),
        (b"x" * 100, "line", "level 'line' is none of word, char, byte"),
    ],
)
def test_own_files_that_will_not_do(tmp_path, content, level, what):
    with pytest.raises(UserError, match=what) as error:
        own(tmp_path, content, level)
    line(error)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]  # nothing left behind


def test_forty_symbols_are_enough(tmp_path):
    corpus = own(tmp_path, "x" * 40)
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [36, 2, 2]


def test_python(monkeypatch, tmp_path):
    corpus = data.load("python", level="word")
    assert corpus.level == "char" and len(corpus.train) > 1_000_000
    assert corpus.vocabulary.size <= 129
    ((name, _),) = corpus.sums.items()
    assert name.startswith("python-3.")
    text = corpus.vocabulary.decode(corpus.train)
    assert text.isascii() and "def " in text and "class ABC(" in text
    assert "import unittest\nfrom test" not in text  # the library's tests are left out
    assert data.load("python").sums == corpus.sums
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="no sources"):
        data.load("python")


def test_python_sources_in_order(monkeypatch, tmp_path):
    root = tmp_path / "lib"
    put(root, {"b.py": b"b = 2\n" * 9, "é.py": b"", "z.py": "é = 3\n".encode() * 9})
    put(root / "a", {"c.py": b"c = 1\n" * 9, "note.txt": b"no"})
    for skipped in ("site-packages", "test", "a/tests", "__pycache__", "idlelib/idle_test"):
        put(root / skipped, {"d.py": b"no\n" * 9})
    (root / "link.py").symlink_to(root / "nowhere")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    corpus = data.load("python")
    whole = corpus.vocabulary.decode(np.concatenate(corpus[2:5]))
    assert whole[:54] == "c = 1\n" * 9 and whole[54:].replace("\ufffd", "b") == "b = 2\n" * 9
