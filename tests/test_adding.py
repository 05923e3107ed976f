"""A task from outside the package: all that the commands do, they do for it too."""

import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import QUIET, ROOT, run_module

from rnnx import cli, model, tasks, trainer
from rnnx import config as configs
from rnnx.display import Watched
from rnnx.errors import UserError
from rnnx.evaluate import evaluate
from rnnx.experiment import Experiment
from rnnx.report.runs import read
from rnnx.report.tables import TABLES
from rnnx.trained import load_data, open_run

FIELDS = {
    "task": "adding", "cell": "lstm", "hidden_size": 8, "batch_size": 48, "epochs": 2,
    "drop_h": 0.1, "optimizer": "adam", "learning_rate": 0.01, "init_scale": 0.2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def adding(monkeypatch) -> Iterator[None]:
    """The task, registered for one test."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    before = dict(configs.FIELDS)
    importlib.reload(importlib.import_module("adding"))
    yield
    configs.FIELDS.clear()
    configs.FIELDS.update(before)


def experiment(folder: Path, **fields) -> Experiment:
    config = configs.default("adding")
    config.update(FIELDS | fields)
    return Experiment(config, folder, QUIET)


def test_it_is_short() -> None:
    assert len((ROOT / "tests" / "adding.py").read_text().splitlines()) < 70


def test_it_trains_and_resumes_to_the_last_bit(tmp_path: Path) -> None:
    """Stopped in mid-epoch, between buckets of other lengths."""
    result = trainer.run(experiment(tmp_path / "whole", batch_size=12))
    assert result["test"]["sequences"] == 100 and 0 < result["test"]["mse"] < 1

    stopped, calls = experiment(tmp_path / "stopped", batch_size=12), []
    updates = stopped.updates

    def signalled(*arguments):
        calls.append(arguments)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return updates(*arguments)

    stopped.updates = signalled
    with pytest.raises(SystemExit):
        trainer.run(stopped)
    resumed = experiment(tmp_path / "stopped", batch_size=12)
    assert trainer.run(resumed)["test"] == result["test"]
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("whole", "stopped")
    ]
    steps, again = ([x for x in found if x["kind"] == "step"] for found in lines)
    assert steps == again and len(steps) == 2 * -(-400 // 12)
    sizes = {tuple(a.shape for a in jax.tree.leaves(c[1])) for c in calls}
    assert len(sizes) > 1  # it did meet other lengths


def test_scores_count_every_sequence_once(tmp_path: Path) -> None:
    """By hand, one sequence at a time; `batched` gives the same."""
    run = experiment(tmp_path / "run", epochs=1)
    trainer.run(run)
    opened = open_run(tmp_path / "run")
    dataset = load_data(tmp_path / "run", opened.config, print)
    full = evaluate(opened, dataset, "test", "full", {}, QUIET)
    batched = evaluate(opened, dataset, "test", "batched", {}, QUIET)
    assert full == pytest.approx(batched, rel=1e-6)

    net = model.merge(opened.graphdef, opened.params)
    total = 0.0
    test = dataset.splits["test"]
    for i, length in enumerate(test.lengths):
        one = test.padded(np.array([i]), length)
        ys, _ = net.outputs(np.swapaxes(one["inputs"], 0, 1), None)
        total += float((net.project(ys[-1])[0, 0] - one["targets"][0]) ** 2)
    assert full["mse"] == pytest.approx(total / len(test), rel=1e-5)
    opened.config.eval_tokens = 7
    assert evaluate(opened, dataset, "test", "full", {}, QUIET)["sequences"] == 7
    with pytest.raises(UserError, match="unknown protocol 'mc'"):
        evaluate(opened, dataset, "test", "mc", {}, QUIET)


def test_each_of_several_processes_scores_every_sequence_by_full(tmp_path: Path) -> None:
    """Each does so by itself, though it trains on its own rows only."""
    one = experiment(tmp_path / "run")
    one.rows = slice(0, 1)
    watched = Watched(QUIET, cli.Stop())
    assert one.evaluate(one.state.params, ["test"], watched)["test"]["sequences"] == 100


def test_it_is_swept_and_reported(tmp_path: Path) -> None:
    """By command: each trial is a process of its own, which imports the task too."""
    done = run_module(
        "sweep",
        f"--config={ROOT / 'tests' / 'adding.py'}:mi",
        f"--workdir={tmp_path / 'sweep'}",
        "--grid=longest=6",
        "--config.epochs=1",
        RNNX_TASKS="adding",
        PYTHONPATH=str(ROOT / "tests"),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"done +000,longest=6: valid mse 0\.\d+", done.stdout), done.stdout
    runs = read([tmp_path / "sweep"])
    table = TABLES["runs"](runs)
    assert table.title == "mse, full protocol"
    (row,) = table.rows
    assert row[table.headings.index("valid")] == f"{runs[0].scores['valid']:.3f}"


def test_it_is_unknown_where_its_module_is_not_named(tmp_path: Path, monkeypatch) -> None:
    trainer.run(experiment(tmp_path / "run", epochs=1, max_steps=2))
    monkeypatch.setattr(tasks, "TASKS", {"language": tasks.TASKS["language"]})
    with pytest.raises(UserError, match=r"unknown task 'adding'.*RNNX_TASKS"):
        open_run(tmp_path / "run")
    monkeypatch.setenv("RNNX_TASKS", "adding")
    monkeypatch.delitem(sys.modules, "adding")
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    assert open_run(tmp_path / "run").config.longest == 12
