"""Raw files: those that are there are checked, those that are not are downloaded, or refused."""

import functools
import hashlib
import http.server
import random
import shutil
import threading
import time
import types

import pytest
from data_files import NOWHERE, PTB, line, offer, offer_ptb, own_cache, put, raw, zipped

from rnnx import data
from rnnx.data import download
from rnnx.errors import UserError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


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


@pytest.mark.parametrize("packed", [True, False])
def test_zips_packed_or_not(tmp_path, monkeypatch, packed):
    text = b"anarchism originated as a term " * 40
    archive = zipped(text, "../../../escaped")  # a path that must not be used
    file = raw("text8.zip", archive, member=raw("text8", text))
    offer(monkeypatch, "text8", [file])
    offer(monkeypatch, "enwik8", [file])
    folder = put(tmp_path / "a/b/data", {"text8.zip": archive} if packed else {"text8": text})
    (folder / ("text8" if packed else "text8.zip")).mkdir()  # no file, so none of ours
    corpus = data.load("text8", data_dir=str(folder))
    assert corpus.vocabulary.symbols == tuple(sorted(set(text.decode())))
    assert corpus.vocabulary.decode(corpus.train) == text[:1116].decode()
    assert [len(s) for s in corpus[2:5]] == [1116, 62, 62]
    assert corpus.sums == {"text8": hashlib.sha256(text).hexdigest()}
    octets = data.load("enwik8", data_dir=str(folder))
    assert octets.vocabulary.symbols == tuple(sorted(set(text)))  # of the whole file
    assert octets.vocabulary.decode(octets.test) == text[1178:].decode()
    assert not list(tmp_path.rglob("escaped"))


def test_a_tampered_raw_file_is_refused_even_when_a_prepared_copy_exists(tmp_path, monkeypatch):
    offer_ptb(monkeypatch)
    folder = put(tmp_path / "data", PTB)
    data.load("ptb_word", data_dir=str(folder))
    bad = PTB["ptb.valid.txt"].replace(b"emu", b"gnu")
    put(folder, {"ptb.valid.txt": bad})
    with pytest.raises(UserError, match=r"ptb\.valid\.txt is damaged") as error:
        data.load("ptb_word", data_dir=str(folder))
    for content in (bad, PTB["ptb.valid.txt"]):
        assert hashlib.sha256(content).hexdigest() in line(error)
    put(folder, PTB)
    data.load("ptb_word", data_dir=str(folder))


def test_download(tmp_path, monkeypatch, server, capfd):
    offer_ptb(monkeypatch, server.url)
    server.files = dict(PTB)
    said = []
    load = functools.partial(data.load, "ptb_word", data_dir=str(tmp_path / "new" / "data"))
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
    offer(monkeypatch, "text8", [raw("text8.zip", *server.files.values(), server.url, member)])
    assert len(data.load("text8").train) == 450
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
        data.load("ptb_word", data_dir=str(folder))
    assert str(folder) in line(error) and server.url + "ptb.valid.txt" in line(error)
    assert not (folder / "ptb.valid.txt").exists()
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(PTB[p.name] == p.read_bytes() for p in left)  # nothing bad is kept
    deadline = time.monotonic() + 10
    while server.left < (fault == "endless"):  # it was told to stop
        assert time.monotonic() < deadline

    server.files, server.sent = dict(PTB), 1.0
    assert len(data.load("ptb_word", data_dir=str(folder)).train) == 88


def test_offline(tmp_path, monkeypatch):
    offer_ptb(monkeypatch)
    start = time.monotonic()
    with pytest.raises(UserError, match="cannot download") as error:
        data.load("ptb_word", data_dir=str(tmp_path / "data"))
    assert time.monotonic() - start < 10
    for name in PTB:
        assert f"{name} from {NOWHERE}{name}" in line(error)
    assert str(tmp_path / "data") in line(error)


def test_a_silent_server_is_not_waited_for(tmp_path, monkeypatch, server):
    offer_ptb(monkeypatch, server.url)
    server.files, server.sent, server.silent = dict(PTB), 0.5, threading.Event()
    monkeypatch.setattr(download, "_SILENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot download.*timed out") as error:
        data.load("ptb_word", data_dir=str(tmp_path / "data"))
    assert time.monotonic() - start < 10 and line(error)
    assert not list((tmp_path / "data").iterdir())


def test_a_long_download_tells_how_far_it_is(tmp_path, monkeypatch, server):
    text = random.Random(0).randbytes(4 * download.BLOCK)
    server.files = {"enwik8": text}
    offer(monkeypatch, "enwik8", [raw("enwik8", text, server.url)])
    clock = iter(range(0, 1000, 3))  # a block in three seconds
    monkeypatch.setattr(download, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    said = []
    data.load("enwik8", data_dir=str(tmp_path / "data"), progress=said.append)
    lines = [words for words in said if " of 0.3 MB" in words]
    assert lines == ["0.1 of 0.3 MB, ETA 6 s", "0.3 of 0.3 MB, ETA 0 s"]
