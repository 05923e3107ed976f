"""The user's cache: where it is, and that compiled programs are found again."""

import os
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


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What keep_compiled sets in JAX, which keeps its own settings."""
    settings: dict = {}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache.jax.config, "update", settings.__setitem__)
    return settings


@pytest.fixture
def loose_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own that seems to lie where every user can pass: pytest's are closed."""
    stat = Path.stat

    def seen(path: Path, **options) -> os.stat_result:
        found = list(stat(path, **options))
        if path in tmp_path.parents:
            found[0], found[4] = 0o40755, 0
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", seen)
    tmp_path.chmod(0o755)
    return tmp_path


def test_every_folder_that_is_made_is_its_owners(
    kept: dict, loose_umask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "there" / "a" / "b"))
    cache.keep_compiled()
    folder = Path(kept["jax_compilation_cache_dir"])
    made = [folder, *folder.parents[:3]]
    assert made[-1] == tmp_path / "there" / "a"
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 4
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("which", ["root", "compiled", "leaf"])
@pytest.mark.parametrize(("mode", "used"), [(0o770, False), (0o707, False), (0o755, True)])
def test_a_folder_that_others_can_write_to_is_not_used(
    which: str, mode: int, used: bool, kept: dict, reachable: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("RNNX_CACHE", str(reachable / "cache"))
    cache.keep_compiled()
    leaf = Path(kept.pop("jax_compilation_cache_dir"))
    places = {"root": leaf.parent.parent, "compiled": leaf.parent, "leaf": leaf}
    for place in places.values():
        place.chmod(0o755)
    places[which].chmod(mode)
    kept.clear()
    cache.keep_compiled()
    said = capsys.readouterr().err
    assert bool(kept) == used
    assert said.count("\n") == (not used)
    assert used or f"compiling without a cache: others can write to {places[which]};" in said
    assert places[which].stat().st_mode & 0o777 == mode  # left as it was found


def test_a_folder_of_another_user_is_not_used(
    kept: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    cache.keep_compiled()
    assert kept and not capsys.readouterr().err
    kept.clear()
    owner = os.geteuid()
    stat = Path.stat

    def theirs(path: Path, **options) -> os.stat_result:
        found = list(stat(path, **options))
        found[4] = owner + 1 if path.name == "compiled" else found[4]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", theirs)
    cache.keep_compiled()
    assert not kept
    said = capsys.readouterr().err
    assert f"{tmp_path / 'cache' / 'compiled'} belongs to another user" in said


def test_a_sticky_folder_is_safe_to_lie_in_but_not_to_use(reachable: Path) -> None:
    shared = reachable / "shared"
    (shared / "own").mkdir(parents=True, mode=0o700)
    shared.chmod(0o1777)
    assert cache._open_to_others(shared / "own") == ""
    assert cache._open_to_others(shared) == f"others can write to {shared}"
    shared.chmod(0o777)
    assert cache._open_to_others(shared / "own") == f"others can write to {shared}"
    shared.parent.chmod(0o700)  # nobody else passes here
    assert cache._open_to_others(shared / "own") == ""


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
