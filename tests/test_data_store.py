"""Prepared records: compact, read by TFDS alone, whole or refused, made by one process or many."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from data_files import line, own, own_cache, put

from rnnx import data
from rnnx.data import text as texts
from rnnx.errors import UserError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


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


@pytest.mark.parametrize("kinds, dtype", [(256, np.uint8), (257, np.uint16), (65_537, np.uint32)])
def test_smallest_type_over_many_records_and_chunks(tmp_path, monkeypatch, kinds, dtype):
    monkeypatch.setattr(texts, "CHUNK", 1009)
    alphabet = [chr(0x10000 + i) for i in range(kinds)]
    text = "".join(alphabet) + "".join(random.Random(0).choices(alphabet, k=80_000))
    corpus = own(tmp_path, text)
    assert corpus.vocabulary.size == kinds and corpus.train.dtype == dtype
    whole = np.concatenate([corpus.train, corpus.valid, corpus.test])
    assert corpus.vocabulary.decode(whole) == text


def test_records_are_compact(tmp_path):
    content = random.Random(0).randbytes(2_000_000)  # does not compress
    own(tmp_path, content, "byte")
    files = [p for p in (tmp_path / "cache" / "tfds").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 1.3 * len(content)
    import tensorflow_datasets as tfds

    (folder,) = {p.parent for p in files}
    assert folder.parent.parent.name == "own_text"
    source = tfds.builder_from_directory(folder).as_data_source("train")  # by TFDS alone
    assert [len(record["ids"]) for record in source] == [65_536] * 27 + [30_528]
    assert b"".join(record["ids"].tobytes() for record in source) == content[:1_800_000]


@pytest.mark.parametrize("harm", ["record", "short", "count", "metadata", "no metadata", "gone"])
def test_a_damaged_prepared_copy_is_refused(tmp_path, harm):
    text = "".join(random.Random(0).choices("abcdefgh", k=200_000))
    own(tmp_path, text)
    (path,) = (tmp_path / "cache").rglob("own_text-train.array_record*")
    content = path.read_bytes()
    if harm == "record":
        path.write_bytes(content[:9000] + bytes([content[9000] ^ 1]) + content[9001:])
    elif harm == "short":
        path.write_bytes(content[: len(content) // 2])
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


def test_a_full_disk_while_preparing_is_told_in_one_line(tmp_path):
    text = put(tmp_path, {"noise.bin": random.Random(0).randbytes(2_000_000)}) / "noise.bin"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot read or write .*cache.*RNNX_CACHE") as error:
            data.load(str(text), "byte")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert line(error)
    assert len(data.load(str(text), "byte").train) == 1_800_000


def test_no_network_no_tensorflow_no_noise_no_litter(tmp_path):
    put(tmp_path, {"own.txt": b"the cat sat\n" * 20})
    (tmp_path / "tmp").mkdir()
    code = """if True:
        import socket, sys

        def refuse(*args):
            raise SystemExit(f"network: {args}")

        socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
        from rnnx import data
        slow = {"tensorflow_datasets", "scipy", "requests"} & set(sys.modules)
        assert not slow, f"import rnnx.data imports {slow}"
        for level in ("word", "char", "byte") * 2:
            data.load(sys.argv[1], level)
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
        from rnnx import data
        from rnnx.data import store
        make = store.prepare

        def prepare(*args):
            random.seed(0)
            print("ready", flush=True)
            sys.stdin.readline()
            make(*args)

        store.prepare = prepare
        corpus = data.load(sys.argv[1], "byte")
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
    data.load(str(tmp_path / "own.txt"))
    assert {p.name for p in home.iterdir()} == {"own_text", ".preparing-new"}
