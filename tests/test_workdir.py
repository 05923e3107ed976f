"""A workdir belongs to one run."""

import contextlib
import errno
import json
import os
import re
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import QUIET, ROOT, small

from rnnx import data, evaluate, model, workdir
from rnnx.errors import Outage, UserError
from rnnx.report.runs import read
from rnnx.train import Trainer


def test_a_workdir_of_another_run_is_refused(text: Path, tmp_path: Path) -> None:
    Trainer(small(text, epochs=1), tmp_path / "run", QUIET).run()
    before = sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*"))
    with pytest.raises(UserError, match=r"another config \(depth: 2 there, 3 here\)"):
        Trainer(small(text, epochs=1, depth=3), tmp_path / "run", QUIET)
    text.write_text(text.read_text().replace("rain sun", "sun rain"))
    with pytest.raises(UserError, match="is not the one that the run"):
        Trainer(small(text, epochs=1), tmp_path / "run", QUIET)
    assert sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*")) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run, but other files"):
        Trainer(small(text), tmp_path / "mine", QUIET)


def test_one_process_at_a_time(text: Path, tmp_path: Path) -> None:
    with (
        workdir.locked(tmp_path / "run"),
        pytest.raises(UserError, match="another process is training"),
    ):
        Trainer(small(text), tmp_path / "run", QUIET).run()
    Trainer(small(text, epochs=1), tmp_path / "run", QUIET).run()


def test_a_disk_without_locks_is_told_as_that(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    with pytest.raises(Outage, match=r"cannot lock .* use another disk"), workdir.locked(tmp_path):
        pass


def test_a_run_killed_before_it_began_can_begin(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints" / "latest").mkdir(parents=True)
    for name in ("vocabulary.json", "run.json.tmp", "lock"):
        (folder / name).write_text("{")
    assert Trainer(small(text, epochs=1), folder, QUIET).run()["epoch"] == 0


def test_a_reader_leaves_unfinished_writes_alone(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Trainer(small(text, epochs=1), folder, QUIET).run()
    unfinished = [
        folder / "checkpoints" / kind / f"{step}.orbax-checkpoint-tmp"
        for kind, step in (("latest", 99), ("best", 99))
    ]
    for path in unfinished:
        path.mkdir()
    before = sorted(str(path) for path in folder.rglob("*"))
    run = workdir.open_run(folder)
    assert run.info["step"] < 99
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_run_json_keeps_the_first_launch_and_notes_the_later(text: Path, tmp_path: Path) -> None:
    Trainer(small(text, max_steps=3), tmp_path / "run", QUIET).run()
    first = workdir.read_json(tmp_path / "run" / "run.json")
    Trainer(small(text, max_steps=6), tmp_path / "run", QUIET).run()
    second = workdir.read_json(tmp_path / "run" / "run.json")
    assert (first["updates"], second["updates"]) == (3, 6)
    assert len(second.pop("continued")) == 1 and second == first | {"updates": 6}
    assert {"versions", "devices", "git", "data", "parameters"} <= first.keys()


@pytest.mark.parametrize("content", ["", "[1]", "\x00\xff", "{}", '{"format": 1}'])
@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "run.json"])
def test_damaged_files_are_told_in_one_line(
    name: str, content: str, text: Path, tmp_path: Path
) -> None:
    from rnnx.data.vocabulary import Vocabulary

    folder = tmp_path / "run"
    folder.mkdir()
    corpus = data.load(str(text))
    config = model.resolve(small(text, level="char"), corpus.vocabulary.size)
    workdir.write(folder, config, corpus, workdir.provenance(corpus))
    workdir.check(folder, config, corpus)
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as error:
        workdir.check(folder, config, corpus)
        Vocabulary.from_json(workdir.read_json(folder / "vocabulary.json"))
    assert "\n" not in str(error.value)


def test_brackets_and_files_are_refused_as_workdirs(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="brackets"):
        Trainer(small(text), tmp_path / "a[b]", QUIET)
    with pytest.raises(UserError, match="is a file"):
        Trainer(small(text), text, QUIET)


def test_a_workdir_of_the_first_format_is_read_and_continued(text: Path, tmp_path: Path) -> None:
    """Stored when format 1 was new: `small(text, epochs=2, hidden_size=6, depth=2,
    optimizer="adam", learning_rate=0.01)` on two devices, its text elsewhere."""
    with tarfile.open(ROOT / "tests" / "workdir_1.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "workdir_1"
    run, result = workdir.open_run(folder), workdir.read_json(folder / "result.json")
    corpus = data.load(str(text))
    score = evaluate.full(run.graphdef, run.params, corpus.test)
    assert score.nll == pytest.approx(result["test"]["nll"], rel=1e-5)
    config = run.config
    config.update(corpus=str(text), epochs=3)
    trainer = Trainer(config, folder, QUIET)
    again = trainer.run()
    assert again["epoch"] == 2 and again["test"]["nll"] < result["test"]["nll"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(s)["step"] for s in lines if '"step",' in s] == list(
        range(1, 3 * len(trainer.windows) + 1)
    )


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json"])
def test_a_format_of_another_day_is_refused(name: str, tmp_path: Path) -> None:
    with tarfile.open(ROOT / "tests" / "workdir_1.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    path = tmp_path / "workdir_1" / name
    assert len(read([tmp_path])) == 1
    path.write_text(path.read_text().replace('"format": 1,', '"format": 2,', 1))
    with pytest.raises(UserError, match=rf"{name} has format 2; this version reads format 1"):
        read([tmp_path])


def test_a_stranger_s_workdir_imports_nothing_it_names(text: Path, tmp_path: Path, monkeypatch):
    """Every class that a workdir's files name becomes one of a module that tells when it runs."""
    with tarfile.open(ROOT / "tests" / "workdir_1.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    folder, ran = tmp_path / "workdir_1", tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.name in ("_CHECKPOINT_METADATA", "_METADATA", "process_0"):
            content = path.read_text()
            changed, count = re.subn(r"\b(orbax|jax|numpy)(\.\w+)+", "evil.Evil", content)
            path.write_text(changed)
            named += count
    assert named > 3
    with contextlib.suppress(UserError):
        workdir.open_run(folder)
    assert not ran.exists() and "evil" not in sys.modules
    __import__("evil")
    assert ran.exists()  # so it would have told
    assert not any(path.suffix in (".pkl", ".pickle", ".npy") for path in folder.rglob("*"))
