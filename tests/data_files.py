"""What the tests of data share: small files in place of the official ones."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnx import data
from rnnx.data.catalogue import Raw

NOWHERE = "http://127.0.0.1:9/"  # where connections are refused
PTB = {
    "ptb.train.txt": b" the cat sat \n the dog sat \n no <unk> \n" * 8,
    "ptb.valid.txt": b" the cat \n the emu \n",
    "ptb.test.txt": b" a dog \n",
}


def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache for this test, and no other place to look for files."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    for name in ("RNNX_DATA", "XDG_CACHE_HOME", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def raw(name: str, content: bytes, url: str = NOWHERE, member: Raw | None = None) -> Raw:
    return Raw(name, len(content), hashlib.sha256(content).hexdigest(), url + name, member)


def offer(monkeypatch: pytest.MonkeyPatch, name: str, files: list[Raw], counts=None) -> None:
    """Puts other files in a corpus's row."""
    row = data.SOURCES[name]._replace(files=tuple(files), counts=counts)
    monkeypatch.setitem(data.SOURCES, name, row)


def offer_ptb(monkeypatch: pytest.MonkeyPatch, url: str = NOWHERE, name: str = "ptb_word") -> None:
    offer(monkeypatch, name, [raw(file, PTB[file], url) for file in PTB])


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def zipped(content: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def own(tmp_path: Path, content: str | bytes, level: str = "char") -> data.Corpus:
    """An own file, through the whole of `load`."""
    put(tmp_path, {"own.txt": content if isinstance(content, bytes) else content.encode()})
    return data.load(str(tmp_path / "own.txt"), level)


def line(error: pytest.ExceptionInfo) -> str:
    """What a person sees: it has to be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def real(name: str) -> Path:
    """A file or folder of the real data; skips the test where it is absent."""
    for place in (os.environ.get("RNNX_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if place and (Path(place) / name).exists():
            return Path(place) / name
    pytest.skip(f"needs {name}: set RNNX_DATA to its folder")


def hours(count: int, start: str = "2020-01-01") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=count, freq="h")


def daily(count: int, season: int = 24, seed: int = 0) -> np.ndarray:
    """A noisy wave."""
    rng = np.random.default_rng(seed)
    return 10 + 3 * np.sin(2 * np.pi * np.arange(count) / season) + 0.1 * rng.normal(size=count)


def write(tmp_path: Path, frame: pd.DataFrame, name: str = "t.csv", **options) -> Path:
    path = tmp_path / name
    frame.to_csv(path, index=False, **options)
    return path


def said(lines: list[str], words: str) -> str:
    """The one line that has these words."""
    found = [text for text in lines if words in text]
    assert len(found) == 1, (words, lines)
    return found[0]
