"""Trials trained as one program: each with the numbers, and the fate, that it has alone."""

import io
import json
import os
import runpy
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import (
    QUIET,
    begun,
    call_module,
    children,
    equal,
    lines_of,
    run_module,
    small,
    train,
)  # fmt: skip
from ml_collections import ConfigDict
from sequences_made import engines

from rnnx import cli, experiment, metrics, parallel, workdir
from rnnx import config as configs
from rnnx.data import sequences
from rnnx.experiment import Experiment
from rnnx.parallel import BATCHES
from rnnx.sweep import replicas, space
from rnnx.sweep.ledger import Ledger, Plan
from rnnx.sweep.processes import Group, Member
from rnnx.update import make_replica_updates

CONFIG = """
from rnnx.config import default

print("a config file may print what it likes")

def get_config():
    config = default()
    config.update(corpus={corpus!r}, hidden_size=12, batch_size=8, num_steps=50, epochs=3,
                  init_scale=0.2, learning_rate=0.1, drop_h=0.1)
    return config
"""


# ---------------------------------------------------------------------------- what goes together


def test_points_that_differ_in_shared_fields_alone_are_alike() -> None:
    point = {"depth": 2, "seed": 1}
    assert space.alike(point, {"depth": 2, "seed": 2})
    assert space.alike(point, {"depth": 2, "learning_rate": 0.3})
    assert not space.alike(point, {"depth": 3, "seed": 1})
    assert not space.alike(point, {"depth": 2, "seed": 1, "drop_h": 0.1})


def test_a_ledger_gives_the_trials_that_share_a_program(text: Path, tmp_path: Path) -> None:
    """Wherever they stand in the grid; those that were cut come first."""
    points = space.repeated(space.grid("depth=1,2"), range(3))
    plan = Plan(small(text), [], points=points)
    ledger = Ledger(tmp_path / "s", plan)
    first = ledger.claim()
    rest = [ledger.claim(like=first.point) for _ in range(3)]
    assert [claim and claim.point for claim in (first, *rest)] == [
        {"depth": 1, "seed": 0}, {"depth": 1, "seed": 1}, {"depth": 1, "seed": 2}, None,
    ]  # fmt: skip
    other = ledger.claim()
    assert other.point == {"depth": 2, "seed": 0}
    for claim in (first, rest[1], other):  # as if they had been cut
        claim.log.close()
    again = Ledger(tmp_path / "s", plan)
    found = [again.claim(like=first.point) for _ in range(3)]
    assert [claim and claim.point["seed"] for claim in found] == [0, 2, None]
    found = [again.claim(like=other.point) for _ in range(4)]
    assert [claim and claim.point["seed"] for claim in found] == [0, 1, 2, None]


def test_a_search_has_no_replicas(text: Path, tmp_path: Path) -> None:
    done = call_module(
        "sweep", "--config=ptb_word:tiny", f"--workdir={tmp_path}", "--replicas=2", "--trials=3",
        "--search=learning_rate=.1...2",
    )  # fmt: skip
    assert done.returncode == 2 and "--replicas is for a grid" in done.stderr


def test_a_group_waits_for_its_process_and_asks_it_to_stop_once() -> None:
    asked = []
    process = SimpleNamespace(poll=lambda: None, terminate=lambda: asked.append(1))
    ends, told = os.pipe()
    group = Group(process, ends, 2)
    first, last = Member(group, 0), Member(group, 1)
    assert first.poll() is None
    os.write(told, b'{"lane": 0, "code": 2}\n{"lane": 1, ')
    assert (first.poll(), last.poll()) == (2, None)
    os.write(told, b'"code": 0}\n')
    assert (first.poll(), last.poll()) == (2, None), "it still holds the device"
    for member in (first, last):
        member.terminate()
    assert len(asked) == 1
    process.poll = lambda: 9
    assert (first.poll(), last.poll()) == (2, 0)
    os.close(told)


def test_runs_share_the_time_of_their_program(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((0.0, 8.0))
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = metrics.Clock(share=metrics.Pace(32, runs=4).share)
    clock.start()
    clock.lap(100)
    assert (clock.seconds, clock.rate) == (2.0, 50.0)


# ---------------------------------------------------------------------------- updates


@pytest.mark.parametrize("cell", [{}, {"cell": "lstm", "depth": 1, "weight_noise": 0.01}])
def test_updates_of_several_runs_are_those_of_each(text: Path, tmp_path: Path, cell: dict) -> None:
    """With seeds, places in the data, learning rates and counts of their own; one diverges, one
    waits."""
    config = small(text, batch_size=8, **cell)
    seeds, rates, counts, numbers = (0, 3, 1, 2), (0.1, 0.5, 1e9, 0.1), (4, 3, 4, 0), (0, 5, 2, 0)
    runs = []
    for seed in seeds:
        own = config.copy_and_resolve_references()
        own.seed = seed
        runs.append(Experiment(own, tmp_path / str(seed), QUIET, runs[0] if runs else None))
    first = runs[0]
    together = make_replica_updates(
        first.task, first.config, first.graphdef, first.mesh, len(runs), first.highest
    )

    def arguments(i: int) -> tuple:
        batches = runs[i].batches
        batches.begin(0)
        stacked = batches.together(numbers[i], 4, 4)
        placed = {k: parallel.shard_rows(a, first.mesh, BATCHES) for k, a in stacked.items()}
        own = (np.uint32(seeds[i]), np.int32(numbers[i]), np.int32(counts[i]), np.float32(rates[i]))
        return jax.tree.map(lambda a: a.copy(), runs[i].state), placed, *own

    answers = together(*zip(*(arguments(i) for i in range(4)), strict=True))
    for i, (state, series) in enumerate(answers):
        expected, alone = first.updates(*arguments(i))
        done = np.isfinite(np.asarray(alone["loss"]))
        assert done.sum() == (4, 3, 2, 0)[i], "the third was to end at its second update"
        for ours, its in zip(jax.tree.leaves(series), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(its))
            np.testing.assert_allclose(ours[done], its[done], 3e-5)
        if i != 2:
            for ours, its in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(ours, its, 1e-4, 1e-6)
    assert equal(answers[3][0], runs[3].state), "one that waits was updated"


def test_experiments_that_share_scores_hold_one_network(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Experiment(small(text), tmp_path / "a", QUIET)
    monkeypatch.setattr(experiment, "_MOST_TOGETHER", 2)  # as larger batches would have it
    second = Experiment(small(text, seed=1), tmp_path / "c", QUIET, first)
    assert second.width == first.width > 2 and second.scorers is first.scorers
    with pytest.raises(ValueError, match="different networks"):
        Experiment(small(text, depth=3), tmp_path / "b", QUIET, first)


# ---------------------------------------------------------------------------- whole runs


class Trials:
    """Lanes in this process, and how they ended."""

    def __init__(self, config: ConfigDict, folder: Path, points: list[dict]):
        self.config, self.folder, self.points = config, folder, points
        self.logs = [folder / f"{i}.log" for i in range(len(points))]

    def run(self, stop: cli.Stop | None = None) -> list[int]:
        """Trains them; their exit codes."""
        self.folder.mkdir(exist_ok=True)
        told = io.StringIO()
        lanes = [
            replicas.Lane(
                {
                    "point": point,
                    "workdir": str(self.folder / str(i)),
                    "command": f"as trial {i}",
                    "log": os.open(self.logs[i], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
                },
                i,
                len(self.points),
                told,
            )
            for i, point in enumerate(self.points)
        ]
        replicas.run(lanes, self.config, stop or SimpleNamespace(number=0))
        codes = {
            line["lane"]: line["code"] for line in map(json.loads, told.getvalue().split("\n")[:-1])
        }
        return [codes[i] for i in range(len(lanes))]


def close_to(folder: Path, alone: Path) -> None:
    """Metrics and scores agree up to the rounding of sums."""
    ours, its = lines_of(folder), lines_of(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in its]
    for a, b in zip(ours, its, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values())[2:], list(b.values())[2:], 2e-4)
    ours, its = (workdir.read_json(place / "result.json") for place in (folder, alone))
    assert ours["config"] == its["config"] and ours["epoch"] == its["epoch"]
    for split in ("valid", "test"):
        assert ours[split] == pytest.approx(its[split], rel=2e-4)


def test_each_trial_is_the_run_it_would_be_alone(text: Path, tmp_path: Path) -> None:
    """One diverges, one has a bad workdir; the others have their own seeds and rates."""
    config = small(text)
    taken = tmp_path / "runs" / "3"
    taken.mkdir(parents=True)
    (taken / "something.txt").write_text("of somebody")
    points = [
        {"seed": 1},
        {"seed": 2, "learning_rate": 0.1},
        {"seed": 1, "learning_rate": 1e9},
        {"seed": 4},
        {"seed": 5, "mi_init": [2.0, 0.5, 0.5]},
    ]
    trials = Trials(config, tmp_path / "runs", points)
    assert trials.run() == [0, 0, 2, 2, 0]
    for i in (0, 1, 4):
        own = config.copy_and_resolve_references()
        own.update({k: tuple(v) if k == "mi_init" else v for k, v in points[i].items()})
        train(own, tmp_path / f"alone{i}")
        close_to(trials.folder / str(i), tmp_path / f"alone{i}")
        about = workdir.read_json(trials.folder / str(i) / "run.json")
        assert (about["command"], about["replicas"]) == (f"as trial {i}", 5)
        assert "this model" in trials.logs[i].read_text()
    diverged = trials.logs[2].read_text()
    assert "rnnx.train: error:" in diverged and "learning rate 1e+09" in diverged
    assert "rnnx.train: error:" in trials.logs[3].read_text()
    assert (taken / "something.txt").exists()


def test_they_stop_together_and_resume_with_others(text: Path, tmp_path: Path) -> None:
    points = [{"seed": 1}, {"seed": 2, "learning_rate": 0.1}, {"seed": 3}]
    config = small(text, checkpoint_every=3)
    whole = Trials(config, tmp_path / "whole", points)
    assert whole.run() == [0, 0, 0]

    class After(SimpleNamespace):
        """A signal that comes after some questions for it."""

        @property
        def number(self) -> int:
            self.left -= 1
            return signal.SIGTERM if self.left < 0 else 0

    cut = Trials(config, tmp_path / "cut", points[:2])
    assert cut.run(After(left=5)) == [143, 143]
    assert all("SIGTERM: saved at step" in log.read_text() for log in cut.logs)
    assert not (cut.folder / "0" / "result.json").exists()
    assert Trials(config, tmp_path / "cut", points).run() == [0, 0, 0]
    for i in range(3):
        assert ("resuming from step" in (cut.folder / f"{i}.log").read_text()) == (i < 2)
        close_to(cut.folder / str(i), whole.folder / str(i))
    about = workdir.read_json(cut.folder / "0" / "run.json")
    assert (about["replicas"], about["continued"][0]["replicas"]) == (2, 3)


@pytest.mark.parametrize(
    "error, code, told",
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 75, "error: out of memory with 2"),
        (ValueError("of our own"), 1, "ValueError: of our own"),
    ],
)
def test_what_the_program_raises_is_told_to_all(
    error: Exception, code: int, told: str, text: Path, tmp_path: Path, monkeypatch
) -> None:
    def updates(*arguments):
        raise error

    monkeypatch.setattr(replicas, "make_replica_updates", lambda *arguments: updates)
    trials = Trials(small(text), tmp_path / "runs", [{"seed": 1}, {"seed": 2}])
    assert trials.run() == [code, code]
    assert all(told in log.read_text() for log in trials.logs)


def test_references_of_a_config_follow_a_trial_s_fields(text: Path, tmp_path: Path) -> None:
    config = small(text, epochs=1)
    config.input_scale = config.get_ref("init_scale") * 2
    trials = Trials(config, tmp_path / "runs", [{"init_scale": 0.1}, {"init_scale": 0.3}])
    assert trials.run() == [0, 0]
    found = [workdir.read_json(trials.folder / str(i) / "config.json") for i in range(2)]
    assert [config["input_scale"] for config in found] == [0.2, 0.6]


def test_batches_of_different_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of unlike lengths, in an order that depends on the seed."""
    monkeypatch.setattr(sequences, "PER_BUCKET", 1)
    config = configs.default("regress")
    config.update(
        corpus=str(engines(tmp_path)), cell="gru", hidden_size=5, init_scale=0.4, batch_size=2,
        epochs=3, learning_rate=0.01,
    )  # fmt: skip
    points = [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    shapes = set()
    for i, point in enumerate(points):
        own = config.copy_and_resolve_references()
        own.update(point)
        train(own, tmp_path / f"alone{i}")
        batches = Experiment(own, tmp_path / f"{i}", QUIET).batches
        batches.begin(0)
        shapes.add(tuple(batches[k]["inputs"].shape for k in range(len(batches))))
    assert len(shapes) == 3, "the batches of the seeds were to differ"
    trials = Trials(config, tmp_path / "runs", points)
    assert trials.run() == [0, 0, 0]
    for i in range(3):
        close_to(trials.folder / str(i), tmp_path / f"alone{i}")


def test_a_sweep_trains_them_in_one_process(text: Path, tmp_path: Path) -> None:
    """The last one diverges; the same command again does nothing."""
    config = tmp_path / "experiment.py"
    config.write_text(CONFIG.format(corpus=str(text)))
    command = (
        "sweep", f"--config={config}", f"--workdir={tmp_path / 's'}", "--replicas=3",
        "--grid=learning_rate=0.1,0.2,1e9",
    )  # fmt: skip
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 trials ended" in done.stdout and "002 failed: rnnx.train: error:" in done.stdout
    places = sorted((tmp_path / "s" / "trials").iterdir())
    about = [workdir.read_json(place / "run.json") for place in places]
    assert [run["replicas"] for run in about] == [3] * 3
    assert all(run["command"].startswith("python -m rnnx.train --config=") for run in about)
    assert "--config.learning_rate=0.2" in about[1]["command"]
    scores = [workdir.read_json(place / "result.json")["valid"]["nll"] for place in places[:2]]
    assert scores[0] != scores[1]
    again = run_module(*command)
    assert again.returncode == 0 and "begun" not in again.stdout


def test_killed_together_they_resume_together(text: Path, tmp_path: Path) -> None:
    """By the same sweep, to the numbers of runs that were never disturbed."""
    config, folder = tmp_path / "experiment.py", tmp_path / "s"
    config.write_text(CONFIG.format(corpus=str(text)))
    command = [f"--config={config}", f"--workdir={folder}", "--replicas=2", "--grid=seed=1,2"]
    command.append("--config.epochs=40")
    process = begun(folder, *command)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == os.EX_TEMPFAIL, told
    assert "000,seed=1" in told and "001,seed=2" in told and told.count("(SIGKILL)") == 2
    assert not list(folder.glob("trials/*/result.json"))
    done = run_module("sweep", *command)
    assert done.returncode == 0, done.stderr
    for seed, place in enumerate(sorted((folder / "trials").iterdir()), 1):
        assert "resuming from step" in (folder / "logs" / f"{place.name}.log").read_text()
        own = runpy.run_path(str(config))["get_config"]()
        own.update(seed=seed, epochs=40)
        result = train(own, tmp_path / f"alone{seed}")
        # Forty epochs let differences of rounding grow.
        found = workdir.read_json(place / "result.json")["valid"]["nll"]
        assert found == pytest.approx(result["valid"]["nll"], rel=2e-3)
