"""The command that prepares a corpus."""

import hashlib

import pytest
from conftest import run_module
from data_files import own_cache, put


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


def test_command(tmp_path):
    put(tmp_path, {"own.txt": b"the cat sat\n" * 1000})
    done = run_module("data", f"--corpus={tmp_path / 'own.txt'}", "--level=word")
    assert done.returncode == 0, done.stderr
    assert "5 types at word level" in done.stdout
    assert "train          3,600 symbols" in done.stdout
    assert hashlib.sha256(b"the cat sat\n" * 1000).hexdigest() in done.stdout
    assert str(tmp_path / "cache" / "tfds" / "own_text") in done.stdout
    assert done.stderr.startswith("preparing") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args, what",
    [
        (["--corpus=nowhere.txt"], "neither a corpus nor a file"),
        (["--corpus=python", "--level=line"], "level"),
    ],
)
def test_what_it_refuses_is_one_line(args, what):
    done = run_module("data", *args)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("rnnx.data: error: ") and what in done.stderr
    assert done.stderr.count("\n") == 1
