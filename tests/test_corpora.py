"""Everything here runs on files made here, but for the tests of the real Penn Treebank, which
look for it in $RNNX_DATA and in ../shared/data and are skipped without."""

import functools
import hashlib
import http.server
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, raw_data

from rnnx import corpora
from rnnx.corpora import Raw, Source
from rnnx.errors import UserError

PTB = {
    "ptb.train.txt": b" the cat sat \n the dog sat \n no <unk> \n" * 8,
    "ptb.valid.txt": b" the cat \n the emu \n",
    "ptb.test.txt": b" a dog \n",
}


REAL = str(raw_data() or "")
needs_ptb = pytest.mark.skipif(not REAL, reason="no Penn Treebank in $RNNX_DATA or shared/data")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    for name in ("RNNX_DATA", "XDG_CACHE_HOME", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """A loopback web server: `files` are bodies, or a status, by name.

    `sent` is what share of a body comes before the connection is closed; `silent` keeps it open
    instead; a body sent more than once goes on without end.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.server.files.get(self.path.lstrip("/"), 404)
            if isinstance(body, int):
                self.send_error(body)
                return
            self.send_response(200)
            sent = self.server.sent
            if sent <= 1:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.server.asked.append(self.path.lstrip("/"))
            try:
                for _ in range(max(1, int(sent))):
                    self.wfile.write(body[: int(sent * len(body))] if sent < 1 else body)
            except ConnectionError:  # it has heard enough
                self.server.left += 1
            if self.server.silent:
                self.server.silent.wait(60)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.files, served.asked, served.left = {}, [], 0
        served.sent, served.silent = 1.0, None
        served.url = f"http://127.0.0.1:{served.server_port}/"
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        if served.silent:
            served.silent.set()
        served.shutdown()


def raw(name: str, data: bytes, url: str = "http://127.0.0.1:9/", member: Raw | None = None) -> Raw:
    return Raw(name, len(data), hashlib.sha256(data).hexdigest(), url + name, member)


def offer(monkeypatch, name: str, level: str, files, counts=None) -> None:
    monkeypatch.setitem(corpora.SOURCES, name, Source(level, tuple(files), counts))


def offer_ptb(monkeypatch, url: str = "http://127.0.0.1:9/", level: str = "word") -> None:
    offer(monkeypatch, f"ptb_{level}", level, [raw(name, PTB[name], url) for name in PTB])


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def own(tmp_path, data: str | bytes, level: str = "char", name: str = "own.txt") -> corpora.Corpus:
    put(tmp_path, {name: data if isinstance(data, bytes) else data.encode()})
    return corpora.load(str(tmp_path / name), level)


def line(error) -> str:
    """What a person sees: it has to be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


# --- own files ------------------------------------------------------------------------------


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
    data = own(tmp_path, b"\xef\xbb\xbfa\r\n" * 20, "byte")
    assert bytes(data.train[:5]) == b"\xef\xbb\xbfa\r"


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
    data = random.Random(0).randbytes(1000)
    corpus = own(tmp_path, data, "byte")
    assert corpus.vocabulary.symbols == tuple(range(256))
    assert b"".join(s.tobytes() for s in (corpus.train, corpus.valid, corpus.test)) == data
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [900, 50, 50]


@pytest.mark.parametrize("kinds, dtype", [(256, np.uint8), (257, np.uint16), (65_537, np.uint32)])
def test_smallest_type_over_many_records_and_chunks(tmp_path, monkeypatch, kinds, dtype):
    monkeypatch.setattr(corpora, "CHUNK", 1009)
    alphabet = [chr(0x10000 + i) for i in range(kinds)]
    text = "".join(alphabet) + "".join(random.Random(0).choices(alphabet, k=80_000))
    corpus = own(tmp_path, text)
    assert corpus.vocabulary.size == kinds and corpus.train.dtype == dtype
    whole = np.concatenate([corpus.train, corpus.valid, corpus.test])
    assert corpus.vocabulary.decode(whole) == text


def test_records_are_compact(tmp_path):
    data = random.Random(0).randbytes(2_000_000)  # does not compress
    own(tmp_path, data, "byte")
    files = [p for p in (tmp_path / "cache" / "tfds").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 1.3 * len(data)
    import tensorflow_datasets as tfds

    (folder,) = {p.parent for p in files}
    assert folder.parent.parent.name == "own_text"
    source = tfds.builder_from_directory(folder).as_data_source("train")  # by TFDS alone
    assert [len(record["ids"]) for record in source] == [65_536] * 27 + [30_528]
    assert b"".join(record["ids"].tobytes() for record in source) == data[:1_800_000]


def test_a_changed_file_is_prepared_anew_and_an_unchanged_one_is_not(tmp_path):
    said = []
    load = functools.partial(corpora.load, str(tmp_path / "own.txt"), progress=said.append)
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


@pytest.mark.parametrize(
    "data, level, what",
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
def test_own_files_that_will_not_do(tmp_path, data, level, what):
    with pytest.raises(UserError, match=what) as error:
        own(tmp_path, data, level)
    line(error)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]  # nothing left behind


def test_forty_symbols_are_enough(tmp_path):
    corpus = own(tmp_path, "x" * 40)
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [36, 2, 2]


def test_no_file(tmp_path):
    for path, what in (("ptb-word", "neither a corpus nor a file"), (str(tmp_path), "not a file")):
        with pytest.raises(UserError, match=what) as error:
            corpora.load(path)
        assert "ptb_word" in line(error)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    put(tmp_path, {"file": b""})
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RNNX_CACHE") as error:
        own(tmp_path, "x" * 40)
    line(error)


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "_sha256", lambda path: "0" * 64)
    with pytest.raises(UserError, match="changed while it was read"):
        own(tmp_path, "x" * 40)


@pytest.mark.parametrize("harm", ["record", "short", "count", "metadata", "no metadata", "gone"])
def test_a_damaged_prepared_copy_is_refused(tmp_path, harm):
    text = "".join(random.Random(0).choices("abcdefgh", k=200_000))
    own(tmp_path, text)
    (path,) = (tmp_path / "cache").rglob("own_text-train.array_record*")
    data = path.read_bytes()
    if harm == "record":
        path.write_bytes(data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])
    elif harm == "short":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "count":
        metadata = json.loads((path.parent / "metadata.json").read_text())
        metadata["symbols"]["train"] += 1
        (path.parent / "metadata.json").write_text(json.dumps(metadata))
    elif harm == "metadata":
        (path.parent / "metadata.json").write_text('{"vocabulary": {}}')
    elif harm == "no metadata":
        (path.parent / "metadata.json").unlink()
    else:
        path.unlink()
    with pytest.raises(UserError, match="prepared copy is damaged: delete") as error:
        own(tmp_path, text)
    assert str(path.parent) in line(error)
    shutil.rmtree(path.parent)
    assert len(own(tmp_path, text).train) == 180_000


# --- built-in corpora -----------------------------------------------------------------------


@needs_ptb
def test_real_ptb_words(tmp_path):
    corpus = corpora.load("ptb_word", data_dir=REAL)
    assert [len(s) for s in corpus[2:5]] == [929_589, 73_760, 82_430]
    assert corpus.vocabulary.size == 10_000 and corpus.level == "word"
    assert corpus.train.dtype == np.uint16
    assert corpus.vocabulary.symbols[:4] == ("the", "<unk>", "<eos>", "N")  # the authors' ids
    first = Path(REAL, "ptb.test.txt").read_text().split("\n")[0].strip()
    assert corpus.vocabulary.decode(corpus.test).split("\n")[0] == first
    assert len(corpus.sums) == 3
    assert not (tmp_path / "cache" / "raw").exists()
    again = corpora.load("ptb_word", data_dir=REAL)
    assert all((a == b).all() for a, b in zip(corpus[2:5], again[2:5], strict=True))


@needs_ptb
def test_real_ptb_characters():
    corpus = corpora.load("ptb_char", data_dir=REAL)
    assert [len(s) for s in corpus[2:5]] == [5_017_482, 393_042, 442_423]
    assert corpus.vocabulary.size == 50 and corpus.train.dtype == np.uint8
    lines = Path(REAL, "ptb.valid.txt").read_text().splitlines()
    text = corpus.vocabulary.decode(corpus.valid)
    assert text == "".join(words.strip() + "\n" for words in lines)


def test_official_counts_are_asserted(tmp_path, monkeypatch):
    files = [raw(name, PTB[name]) for name in PTB]
    put(tmp_path / "data", PTB)
    offer(monkeypatch, "ptb_word", "word", files, (88, 6, 3, 7))
    corpora.load("ptb_word", data_dir=str(tmp_path / "data"))
    offer(monkeypatch, "ptb_word", "word", files, (88, 6, 3, 8))
    with pytest.raises(AssertionError, match="instead of"):
        corpora.load("ptb_word", data_dir=str(tmp_path / "data"))


def test_the_table_of_sources():
    for name, source in corpora.SOURCES.items():
        levels = {"ptb_word": "word", "enwik8": "byte", "jsb": "roll"}
        assert source.level == levels.get(name, "char")
        for file in source.files:
            assert file.url.endswith("/" + file.name) and len(file.sha256) == 64
            assert int(file.sha256, 16) and file.size > 0
            assert (file.member is not None) == file.name.endswith(".zip")


@pytest.mark.parametrize("folder", ["", "ptb"])
def test_ptb_words_and_characters(tmp_path, monkeypatch, folder):
    offer_ptb(monkeypatch)
    offer_ptb(monkeypatch, level="char")
    put(tmp_path / "data" / folder, PTB)
    monkeypatch.setenv("RNNX_DATA", str(tmp_path / "data"))
    words = corpora.load("ptb_word", level="byte")  # which has its own level
    assert words.level == "word"
    assert words.vocabulary.symbols == ("<eos>", "sat", "the", "<unk>", "cat", "dog", "no")
    assert words.vocabulary.decode(words.valid) == "the cat\nthe <unk>\n"
    characters = corpora.load("ptb_char")
    assert characters.vocabulary.decode(characters.train[:24]) == "the cat sat\nthe dog sat\n"
    assert characters.vocabulary.decode(characters.test) == "a dog\n"
    assert characters.vocabulary.decode(characters.valid)[-4:] == "e\ufffdu\n"  # no m in train
    assert not [p for p in (tmp_path / "data").rglob("*") if p.name not in (*PTB, "ptb")]


def zipped(data: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [True, False])
def test_zips_packed_or_not(tmp_path, monkeypatch, packed):
    text = b"anarchism originated as a term " * 40
    archive = zipped(text, "../../../escaped")  # a path that must not be used
    file = raw("text8.zip", archive, member=raw("text8", text))
    offer(monkeypatch, "text8", "char", [file])
    offer(monkeypatch, "enwik8", "byte", [file])
    folder = put(tmp_path / "a/b/data", {"text8.zip": archive} if packed else {"text8": text})
    (folder / ("text8" if packed else "text8.zip")).mkdir()  # no file, so none of ours
    corpus = corpora.load("text8", data_dir=str(folder))
    assert corpus.vocabulary.symbols == tuple(sorted(set(text.decode())))
    assert corpus.vocabulary.decode(corpus.train) == text[:1116].decode()
    assert [len(s) for s in corpus[2:5]] == [1116, 62, 62]
    assert corpus.sums == {"text8": hashlib.sha256(text).hexdigest()}
    data = corpora.load("enwik8", data_dir=str(folder))
    assert data.vocabulary.symbols == tuple(sorted(set(text)))  # of the whole file
    assert data.vocabulary.decode(data.test) == text[1178:].decode()
    assert not list(tmp_path.rglob("escaped"))


def test_a_tampered_raw_file_is_refused_even_when_a_prepared_copy_exists(tmp_path, monkeypatch):
    offer_ptb(monkeypatch)
    folder = put(tmp_path / "data", PTB)
    corpora.load("ptb_word", data_dir=str(folder))
    bad = PTB["ptb.valid.txt"].replace(b"emu", b"gnu")
    put(folder, {"ptb.valid.txt": bad})
    with pytest.raises(UserError, match=r"ptb\.valid\.txt is damaged") as error:
        corpora.load("ptb_word", data_dir=str(folder))
    for data in (bad, PTB["ptb.valid.txt"]):
        assert hashlib.sha256(data).hexdigest() in line(error)
    put(folder, PTB)
    corpora.load("ptb_word", data_dir=str(folder))


def test_python(monkeypatch, tmp_path):
    corpus = corpora.load("python", level="word")
    assert corpus.level == "char" and len(corpus.train) > 1_000_000
    assert corpus.vocabulary.size <= 129
    ((name, _),) = corpus.sums.items()
    assert name.startswith("python-3.")
    text = corpus.vocabulary.decode(corpus.train)
    assert text.isascii() and "def " in text and "class ABC(" in text
    assert "import unittest\nfrom test" not in text  # the library's tests are left out
    assert corpora.load("python").sums == corpus.sums
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="no sources"):
        corpora.load("python")


def test_python_sources_in_order(monkeypatch, tmp_path):
    root = tmp_path / "lib"
    put(root, {"b.py": b"b = 2\n" * 9, "é.py": b"", "z.py": "é = 3\n".encode() * 9})
    put(root / "a", {"c.py": b"c = 1\n" * 9, "note.txt": b"no"})
    for skipped in ("site-packages", "test", "a/tests", "__pycache__", "idlelib/idle_test"):
        put(root / skipped, {"d.py": b"no\n" * 9})
    (root / "link.py").symlink_to(root / "nowhere")
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(root))
    corpus = corpora.load("python")
    whole = corpus.vocabulary.decode(np.concatenate(corpus[2:5]))
    assert whole[:54] == "c = 1\n" * 9 and whole[54:].replace("\ufffd", "b") == "b = 2\n" * 9


# --- downloads ------------------------------------------------------------------------------


def test_download(tmp_path, monkeypatch, server, capfd):
    offer_ptb(monkeypatch, server.url)
    server.files = dict(PTB)
    said = []
    load = functools.partial(corpora.load, "ptb_word", data_dir=str(tmp_path / "new" / "data"))
    corpus = load(progress=said.append)
    assert corpus.vocabulary.decode(corpus.test) == "<unk> dog\n"
    assert sum("downloading" in words for words in said) == 3
    folder = tmp_path / "new" / "data"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == PTB  # and nothing else
    assert sorted(server.asked) == sorted(PTB)
    assert capfd.readouterr() == ("", "")

    server.files = {}
    load()  # from the raw files
    shutil.rmtree(folder)
    load()  # from the prepared copy
    assert len(server.asked) == 3 and not folder.exists()

    shutil.rmtree(tmp_path / "cache")
    server.files = dict(PTB)
    put(folder, {"ptb.train.txt": PTB["ptb.train.txt"]})
    load()
    assert sorted(server.asked[3:]) == ["ptb.test.txt", "ptb.valid.txt"]  # only what is missing


def test_download_goes_to_the_cache_by_default(tmp_path, monkeypatch, server):
    text = b"wikipedia " * 50
    server.files = {"text8.zip": zipped(text, "text8")}
    member = raw("text8", text)
    offer(
        monkeypatch, "text8", "char", [raw("text8.zip", *server.files.values(), server.url, member)]
    )
    assert len(corpora.load("text8").train) == 450
    assert [p.name for p in (tmp_path / "cache" / "raw").iterdir()] == ["text8.zip"]


@pytest.mark.parametrize("fault", ["tampered", "short", "longer", "endless", "missing", "busy"])
def test_a_bad_download_is_refused_and_the_next_try_is_fresh(tmp_path, monkeypatch, server, fault):
    offer_ptb(monkeypatch, server.url)
    good = PTB["ptb.valid.txt"]
    bad = {"tampered": good[::-1], "longer": good + b"\n", "missing": 404, "busy": 503}
    server.files = PTB | {"ptb.valid.txt": bad.get(fault, good)}
    server.sent = {"short": 0.5, "endless": 1e6}.get(fault, 1.0)
    folder = tmp_path / "data"
    with pytest.raises(UserError, match="cannot download") as error:
        corpora.load("ptb_word", data_dir=str(folder))
    assert str(folder) in line(error) and server.url + "ptb.valid.txt" in line(error)
    assert not (folder / "ptb.valid.txt").exists()
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(PTB[p.name] == p.read_bytes() for p in left)  # nothing bad is kept
    deadline = time.monotonic() + 10
    while server.left < (fault == "endless"):  # it was told to stop
        assert time.monotonic() < deadline

    server.files, server.sent = dict(PTB), 1.0
    assert len(corpora.load("ptb_word", data_dir=str(folder)).train) == 88


def test_offline(tmp_path, monkeypatch):
    offer_ptb(monkeypatch, "http://127.0.0.1:9/")  # refused
    start = time.monotonic()
    with pytest.raises(UserError, match="cannot download") as error:
        corpora.load("ptb_word", data_dir=str(tmp_path / "data"))
    assert time.monotonic() - start < 10
    for name in PTB:
        assert f"{name} from http://127.0.0.1:9/{name}" in line(error)
    assert str(tmp_path / "data") in line(error)


def test_a_full_disk_while_preparing_is_told_in_one_line(tmp_path):
    text = put(tmp_path, {"noise.bin": random.Random(0).randbytes(2_000_000)}) / "noise.bin"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot read or write .*cache.*RNNX_CACHE") as error:
            corpora.load(str(text), "byte")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert line(error)
    assert len(corpora.load(str(text), "byte").train) == 1_800_000


def test_a_silent_server_is_not_waited_for(tmp_path, monkeypatch, server):
    offer_ptb(monkeypatch, server.url)
    server.files, server.sent, server.silent = dict(PTB), 0.5, threading.Event()
    monkeypatch.setattr(corpora, "_SILENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot download.*timed out") as error:
        corpora.load("ptb_word", data_dir=str(tmp_path / "data"))
    assert time.monotonic() - start < 10 and line(error)
    assert not list((tmp_path / "data").iterdir())


def test_a_long_download_tells_how_far_it_is(tmp_path, monkeypatch, server):
    text = random.Random(0).randbytes(4 * corpora.BLOCK)
    server.files = {"enwik8": text}
    offer(monkeypatch, "enwik8", "byte", [raw("enwik8", text, server.url)])
    clock = iter(range(0, 1000, 3))  # a block in three seconds
    monkeypatch.setattr(corpora, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    said = []
    corpora.load("enwik8", data_dir=str(tmp_path / "data"), progress=said.append)
    lines = [words for words in said if " of 0.3 MB" in words]
    assert lines == ["0.1 of 0.3 MB, ETA 6 s", "0.3 of 0.3 MB, ETA 0 s"]


# --- processes ------------------------------------------------------------------------------


def python(code: str, *args: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*args: str) -> subprocess.CompletedProcess:
    module = [sys.executable, "-m", "rnnx.corpora", *args]
    return subprocess.run(module, cwd=ROOT, capture_output=True, text=True)


def test_no_network_no_tensorflow_no_noise_no_litter(tmp_path):
    put(tmp_path, {"own.txt": b"the cat sat\n" * 20})
    (tmp_path / "tmp").mkdir()
    code = """if True:
        import socket, sys

        def refuse(*args):
            raise SystemExit(f"network: {args}")

        socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
        from rnnx import corpora
        assert "tensorflow_datasets" not in sys.modules, "import rnnx.corpora is slow"
        for level in corpora.LEVELS * 2:
            corpora.load(sys.argv[1], level)
        assert "tensorflow" not in sys.modules
        """
    out = python(code, str(tmp_path / "own.txt"), TMPDIR=str(tmp_path / "tmp")).communicate()
    assert out == ("", "")
    assert not list((tmp_path / "tmp").iterdir())
    kept = tmp_path / "cache" / "tfds"
    assert [p.name for p in kept.iterdir()] == ["own_text"]
    assert len(list(kept.glob("*/*/*"))) == 3


def test_processes_that_prepare_at_once(tmp_path):
    """Seeded alike, for TFDS draws the names of its temporary folders from `random`."""
    put(tmp_path, {"own.txt": random.Random(0).randbytes(2_000_000)})
    code = """if True:
        import random, sys, zlib
        from rnnx import corpora
        make = corpora._prepare

        def prepare(*args):
            random.seed(0)
            print("ready", flush=True)
            sys.stdin.readline()
            make(*args)

        corpora._prepare = prepare
        corpus = corpora.load(sys.argv[1], "byte")
        print(len(corpus.train), zlib.crc32(corpus.train))
        """
    processes = [python(code, str(tmp_path / "own.txt")) for _ in range(2)]
    for process in processes:  # both have seen that there is no prepared copy
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outs = [process.communicate() for process in processes]
    assert outs[0] == outs[1] and outs[0][1] == "" and outs[0][0].startswith("1800000 ")
    assert [p.name for p in (tmp_path / "cache" / "tfds").iterdir()] == ["own_text"]


def test_what_killed_processes_left_is_swept_away_but_not_what_others_do(tmp_path):
    home = tmp_path / "cache" / "tfds"
    for name in (".preparing-old", ".preparing-new"):
        put(home / name, {"own_text": b"half"})
    day_before = time.time() - 2 * 86_400
    os.utime(home / ".preparing-old", (day_before, day_before))
    put(tmp_path, {"own.txt": b"the cat sat\n" * 100})
    corpora.load(str(tmp_path / "own.txt"))
    assert {p.name for p in home.iterdir()} == {"own_text", ".preparing-new"}


def test_command(tmp_path):
    put(tmp_path, {"own.txt": b"the cat sat\n" * 1000})
    done = command(f"--corpus={tmp_path / 'own.txt'}", "--level=word")
    assert done.returncode == 0, done.stderr
    assert "5 types at word level" in done.stdout
    assert "train          3,600 symbols" in done.stdout
    assert hashlib.sha256(b"the cat sat\n" * 1000).hexdigest() in done.stdout
    assert str(tmp_path / "cache" / "tfds" / "own_text") in done.stdout
    assert done.stderr.startswith("preparing") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args, what",
    [
        ([], "--corpus"),
        (["--corpus=nowhere.txt"], "neither a corpus nor a file"),
        (["--corpus=python", "--level=line"], "level"),
        (["--nope"], "nope"),
        (["--corpus=python", "ptb_word"], "ptb_word"),
    ],
)
def test_command_errors_are_one_line(args, what):
    done = command(*args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("rnnx.corpora: error: ") and what in done.stderr
    assert done.stderr.count("\n") == 1


def test_command_help():
    done = command("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert all(flag in done.stdout for flag in ("--corpus", "--level", "--data_dir"))
