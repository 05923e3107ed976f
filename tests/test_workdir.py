"""A workdir belongs to one run."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import QUIET, ROOT, full, killed_after, lines_of, outcome, small, train

from rnnx import tasks, trainer, workdir
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import Outage, UserError
from rnnx.experiment import Experiment
from rnnx.recovery import Progress
from rnnx.report.runs import read
from rnnx.tasks import network
from rnnx.trained import load_data, open_run


def test_a_workdir_of_another_run_is_refused(text: Path, tmp_path: Path) -> None:
    train(small(text, epochs=1), tmp_path / "run")
    before = sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*"))
    with pytest.raises(UserError, match=r"another config \(depth: 2 there, 3 here\)"):
        Experiment(small(text, epochs=1, depth=3), tmp_path / "run", QUIET)
    text.write_text(text.read_text().replace("rain sun", "sun rain"))
    with pytest.raises(UserError, match="is not the one that the run"):
        Experiment(small(text, epochs=1), tmp_path / "run", QUIET)
    assert sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*")) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run, but other files"):
        Experiment(small(text), tmp_path / "mine", QUIET)


def test_a_corpus_named_by_a_relative_path_is_found_from_any_folder(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(text.parent)
    config = Experiment(small(Path(text.name)), tmp_path / "run", QUIET).config
    assert config.corpus == str(text.resolve())


def test_one_process_at_a_time(text: Path, tmp_path: Path) -> None:
    with (
        workdir.locked(tmp_path / "run"),
        pytest.raises(UserError, match="another process is training"),
    ):
        train(small(text), tmp_path / "run")
    train(small(text, epochs=1), tmp_path / "run")


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
    assert train(small(text, epochs=1), folder)["epoch"] == 0


def test_a_reader_leaves_unfinished_writes_alone(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(small(text, epochs=1), folder)
    unfinished = [
        folder / "checkpoints" / kind / f"{step}.orbax-checkpoint-tmp"
        for kind, step in (("latest", 99), ("best", 99))
    ]
    for path in unfinished:
        path.mkdir()
    before = sorted(str(path) for path in folder.rglob("*"))
    run = open_run(folder)
    assert run.info["step"] < 99
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_run_json_has_the_command_that_repeats_the_run(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """That of the newest launch, which may have raised the number of updates; with its tasks."""
    monkeypatch.setattr(sys, "argv", ["/x/rnnx/train.py", "--config.max_steps=3"])
    train(small(text, max_steps=3), tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["/x/rnnx/train.py", "--config.max_steps=6"])
    monkeypatch.setenv("RNNX_TASKS", "mine")
    train(small(text, max_steps=6), tmp_path / "run")
    told = workdir.read_json(tmp_path / "run" / "run.json")["command"]
    assert told == "RNNX_TASKS=mine python -m rnnx.train --config.max_steps=6"


def test_run_json_keeps_the_first_launch_and_notes_the_later(text: Path, tmp_path: Path) -> None:
    train(small(text, max_steps=3), tmp_path / "run")
    first = workdir.read_json(tmp_path / "run" / "run.json")
    train(small(text, max_steps=6), tmp_path / "run")
    second = workdir.read_json(tmp_path / "run" / "run.json")
    assert (first["updates"], second["updates"]) == (3, 6)
    assert len(second.pop("continued")) == 1 and second == first | {"updates": 6}
    assert {"versions", "devices", "git", "data", "parameters"} <= first.keys()
    train(small(text, max_steps=7), tmp_path / "run")
    assert len(workdir.read_json(tmp_path / "run" / "run.json")["continued"]) == 2


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "result.json"
    workdir.write_json(path, {"a": 1})

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(workdir.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        workdir.write_json(path, {"a": 2})
    assert workdir.read_json(path) == {"a": 1}


def test_the_config_is_written_last(text: Path, tmp_path: Path, monkeypatch) -> None:
    """A folder with a config is a run: all else must be there."""
    written, config = [], small(text)
    task = tasks.of(config)
    dataset = task.load(config, print)
    config = network.resolve(config, dataset.spec)
    monkeypatch.setattr(workdir, "write_json", lambda path, value: written.append(path.name))
    spec = task.spec_to_json(dataset.spec)
    workdir.write(tmp_path / "run", config, task.spec_file, spec, {"updates": 1})
    assert written == ["vocabulary.json", "run.json", "config.json"]


@pytest.mark.parametrize("content", ["", "[1]", "\x00\xff", "{}", '{"format": 1}'])
@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "run.json"])
def test_damaged_files_are_told_in_one_line(
    name: str, content: str, text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    config = small(text, level="char")
    task = tasks.of(config)
    dataset = task.load(config, print)
    config = network.resolve(config, dataset.spec)
    found = dataset.name, dataset.sums
    about = workdir.provenance(*found, dataset.sizes)
    workdir.write(folder, config, task.spec_file, task.spec_to_json(dataset.spec), about)
    workdir.check(folder, config, *found, dataset.places)
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as error:
        workdir.check(folder, config, *found, dataset.places)
        Vocabulary.from_json(workdir.read_json(folder / "vocabulary.json"))
    assert "\n" not in str(error.value)


def test_brackets_and_files_are_refused_as_workdirs(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="brackets"):
        Experiment(small(text), tmp_path / "a[b]", QUIET)
    with pytest.raises(UserError, match="is a file"):
        Experiment(small(text), text, QUIET)


def stored(place: Path) -> Path:
    """The workdir that is kept with the tests, unpacked."""
    with tarfile.open(ROOT / "tests" / "workdir_1.tar.xz") as tar:
        tar.extractall(place, filter="data")
    return place / "workdir_1"


def test_a_workdir_of_the_first_format_is_read_and_continued(text: Path, tmp_path: Path) -> None:
    """Stored when format 1 was new: `small(text, epochs=2, hidden_size=6, depth=2,
    optimizer="adam", learning_rate=0.01)` on two devices, its text elsewhere."""
    folder = stored(tmp_path)
    run, result = open_run(folder), workdir.read_json(folder / "result.json")
    run.config.corpus = str(text)
    dataset = load_data(folder, run.config, print)
    assert run.spec == dataset.spec
    nats, targets = full(run.graphdef, run.params, dataset.splits["test"])
    assert nats / targets == pytest.approx(result["test"]["nll"], rel=1e-5)
    assert targets == result["test"]["tokens"]
    config = run.config
    config.epochs = 3
    experiment = Experiment(config, folder, QUIET)
    again = trainer.run(experiment)
    assert again["epoch"] == 2 and again["test"]["nll"] < result["test"]["nll"]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(s)["step"] for s in lines if '"step",' in s] == list(
        range(1, 3 * len(experiment.batches) + 1)
    )


def test_a_checkpoint_of_the_first_format_in_mid_epoch_is_continued(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress, of which field names have changed since, loses none of the epoch's nats."""
    whole = train(small(text, epochs=1), tmp_path / "whole")
    config = small(text, epochs=1, checkpoint_every=5)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "to_json", as_format_1)
        killed_after(config, tmp_path / "run", 7)
    assert outcome(train(config, tmp_path / "run")) == outcome(whole)
    (epoch,) = (line for line in lines_of(tmp_path / "run") if line["kind"] == "epoch")
    (expected,) = (line for line in lines_of(tmp_path / "whole") if line["kind"] == "epoch")
    assert epoch == expected


def as_format_1(progress: Progress) -> dict:
    """What was written of progress while every task was the next symbol of a text."""
    values = dataclasses.asdict(progress)
    names = {"batch": "window", "best": "best_nll", "targets": "tokens"}
    values = {names.get(name, name): value for name, value in values.items()}
    values["nats"] = values.pop("sums").get("nll", [0.0])[0]
    values["best_nll"] = math.inf if values["best_nll"] is None else values["best_nll"]
    return values


def test_progress_with_a_renamed_field_is_another_format(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(text, epochs=1, checkpoint_every=5)

    def renamed(progress: Progress) -> dict:
        values = dataclasses.asdict(progress)
        return {"format": 2, "updates": values.pop("step"), **values}

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "to_json", renamed)
        killed_after(config, tmp_path / "run", 7)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="progress has another format") as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json"])
def test_a_format_of_another_day_is_refused(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path) / name
    assert len(read([tmp_path])) == 1
    path.write_text(path.read_text().replace('"format": 1,', '"format": 2,', 1))
    with pytest.raises(UserError, match=rf"{name} has format 2; this version reads format 1"):
        read([tmp_path])


def test_a_stranger_s_workdir_imports_nothing_it_names(text: Path, tmp_path: Path, monkeypatch):
    """Every class that a workdir's files name becomes one of a module that tells when it runs."""
    folder, ran = stored(tmp_path), tmp_path / "ran"
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
        open_run(folder)
    assert not ran.exists() and "evil" not in sys.modules
    __import__("evil")
    assert ran.exists()  # so it would have told
    assert not any(path.suffix in (".pkl", ".pickle", ".npy") for path in folder.rglob("*"))
