"""The user's cache: where it is, and that compiled programs are found again."""

from pathlib import Path

import pytest
from conftest import run_module

from rnnx import cache


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_CACHE", "/a")
    assert cache.root() == Path("/a")
    monkeypatch.delenv("RNNX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache.root() == Path("/b/rnnx")


def test_a_second_run_compiles_nothing_new(text: Path, tmp_path: Path) -> None:
    """Every program of the second run is found in the first one's cache, and gives its numbers."""

    def train(name: str) -> tuple[set[str], bytes]:
        told = run_module(
            "train",
            "--config=configs/quickstart.py:tiny",
            f"--config.corpus={text}",
            f"--workdir={tmp_path / name}",
            RNNX_CACHE=str(tmp_path / "cache"),
        )
        assert told.returncode == 0, told.stderr
        assert "first update " in told.stdout
        (folder,) = (tmp_path / "cache" / "compiled").iterdir()
        assert folder.stat().st_mode & 0o077 == 0  # compiled programs are trusted
        programs = {path.name for path in folder.glob("*-cache")}
        steps = [
            line
            for line in (tmp_path / name / "metrics.jsonl").read_bytes().splitlines()
            if b'"step"' in line[:16]
        ]
        return programs, b"\n".join(steps)

    first, second = train("one"), train("two")
    assert any("updates" in name for name in first[0])
    assert second == first
