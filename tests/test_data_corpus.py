"""Corpora by name: own files and built-in ones, prepared once for each content."""

import functools
from pathlib import Path

import numpy as np
import pytest
from conftest import raw_data
from data_files import PTB, line, offer, offer_ptb, own, own_cache, put, raw

from rnnx import data
from rnnx.data import download
from rnnx.errors import UserError

REAL = str(raw_data() or "")
needs_ptb = pytest.mark.skipif(not REAL, reason="no Penn Treebank in $RNNX_DATA or shared/data")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


def test_a_changed_file_is_prepared_anew_and_an_unchanged_one_is_not(tmp_path):
    said = []
    load = functools.partial(data.load, str(tmp_path / "own.txt"), progress=said.append)
    put(tmp_path, {"own.txt": b"ab" * 50})
    load()
    assert len(said) == 1 and "preparing" in said[0]
    assert load().vocabulary.symbols == ("a", "b") and len(said) == 1
    put(tmp_path, {"own.txt": b"cd" * 50})
    assert load().vocabulary.symbols == ("c", "d") and len(said) == 2
    load(level="byte")
    assert len(said) == 3
    put(tmp_path, {"own.txt": b"ab" * 50})
    assert load().vocabulary.symbols == ("a", "b") and len(said) == 3


def test_no_file(tmp_path):
    for path, what in (("ptb-word", "neither a corpus nor a file"), (str(tmp_path), "not a file")):
        with pytest.raises(UserError, match=what) as error:
            data.load(path)
        assert "ptb_word" in line(error)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    put(tmp_path, {"file": b""})
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RNNX_CACHE") as error:
        own(tmp_path, "x" * 40)
    line(error)


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "sha256", lambda path: "0" * 64)
    with pytest.raises(UserError, match="changed while it was read"):
        own(tmp_path, "x" * 40)


@needs_ptb
def test_real_ptb_words(tmp_path):
    corpus = data.load("ptb_word", data_dir=REAL)
    assert [len(s) for s in corpus[2:5]] == [929_589, 73_760, 82_430]
    assert corpus.vocabulary.size == 10_000 and corpus.level == "word"
    assert corpus.train.dtype == np.uint16
    assert corpus.vocabulary.symbols[:4] == ("the", "<unk>", "<eos>", "N")  # the authors' ids
    first = Path(REAL, "ptb.test.txt").read_text().split("\n")[0].strip()
    assert corpus.vocabulary.decode(corpus.test).split("\n")[0] == first
    assert len(corpus.sums) == 3
    assert not (tmp_path / "cache" / "raw").exists()
    again = data.load("ptb_word", data_dir=REAL)
    assert all((a == b).all() for a, b in zip(corpus[2:5], again[2:5], strict=True))


@needs_ptb
def test_real_ptb_characters():
    corpus = data.load("ptb_char", data_dir=REAL)
    assert [len(s) for s in corpus[2:5]] == [5_017_482, 393_042, 442_423]
    assert corpus.vocabulary.size == 50 and corpus.train.dtype == np.uint8
    lines = Path(REAL, "ptb.valid.txt").read_text().splitlines()
    text = corpus.vocabulary.decode(corpus.valid)
    assert text == "".join(words.strip() + "\n" for words in lines)


def test_official_counts_are_asserted(tmp_path, monkeypatch):
    files = [raw(name, PTB[name]) for name in PTB]
    put(tmp_path / "data", PTB)
    offer(monkeypatch, "ptb_word", files, (88, 6, 3, 7))
    data.load("ptb_word", data_dir=str(tmp_path / "data"))
    offer(monkeypatch, "ptb_word", files, (88, 6, 3, 8))
    with pytest.raises(AssertionError, match="instead of"):
        data.load("ptb_word", data_dir=str(tmp_path / "data"))


def test_the_table_of_sources():
    for name, source in data.SOURCES.items():
        levels = {"ptb_word": "word", "enwik8": "byte", "jsb": "roll"}
        assert source.level == levels.get(name, "char")
        for file in source.files:
            assert file.url.endswith("/" + file.name) and len(file.sha256) == 64
            assert int(file.sha256, 16) and file.size > 0
            assert (file.member is not None) == file.name.endswith(".zip")


@pytest.mark.parametrize("folder", ["", "ptb"])
def test_ptb_words_and_characters(tmp_path, monkeypatch, folder):
    offer_ptb(monkeypatch)
    offer_ptb(monkeypatch, name="ptb_char")
    put(tmp_path / "data" / folder, PTB)
    monkeypatch.setenv("RNNX_DATA", str(tmp_path / "data"))
    words = data.load("ptb_word", level="byte")  # which has its own level
    assert words.level == "word"
    assert words.vocabulary.symbols == ("<eos>", "sat", "the", "<unk>", "cat", "dog", "no")
    assert words.vocabulary.decode(words.valid) == "the cat\nthe <unk>\n"
    characters = data.load("ptb_char")
    assert characters.vocabulary.decode(characters.train[:24]) == "the cat sat\nthe dog sat\n"
    assert characters.vocabulary.decode(characters.test) == "a dog\n"
    assert characters.vocabulary.decode(characters.valid)[-4:] == "e\ufffdu\n"  # no m in train
    assert not [p for p in (tmp_path / "data").rglob("*") if p.name not in (*PTB, "ptb")]
