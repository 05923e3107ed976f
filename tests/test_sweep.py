"""Grids and searches: every trial once, none lost, whatever is killed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from conftest import begun, call_module, children, run_module
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from rnnx import config as configs
from rnnx import tasks, workdir
from rnnx.errors import UserError
from rnnx.sweep import processes, runner, space
from rnnx.sweep.ledger import Claim, Ledger, Plan
from rnnx.sweep.runner import Metrics
from rnnx.trained import open_run

# ---------------------------------------------------------------------------- what is tried


def test_a_grid_is_every_combination_in_the_fields_own_types() -> None:
    points = space.grid("depth=1,4; integration=additive,mi;tied=true,False")
    assert len(points) == 8 and len({json.dumps(p) for p in points}) == 8
    assert points[0] == {"depth": 1, "integration": "additive", "tied": True}
    assert points[-1] == {"depth": 4, "integration": "mi", "tied": False}
    tuples = space.grid("mi_init=(1,1,1),(2,.5,.5);learning_rate=1,1e-3")
    assert [p["mi_init"] for p in tuples] == [(1.0, 1.0, 1.0)] * 2 + [(2.0, 0.5, 0.5)] * 2
    assert type(tuples[0]["learning_rate"]) is float


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True), max_size=3))
def test_a_grid_has_as_many_points_as_its_axes_multiply_to(axes: list[list[int]]) -> None:
    fields = ["depth", "num_layers", "hidden_size"]
    axes = axes or [[7]]
    named = dict(zip(fields, axes, strict=False))
    points = space.grid(";".join(f"{k}={','.join(map(str, v))}" for k, v in named.items()))
    count = 1
    for axis in axes:
        count *= len(axis)
    assert len({tuple(p.items()) for p in points}) == len(points) == count


@pytest.mark.parametrize(
    "text, told",
    [
        ("dept=1,2", "did you mean depth"),
        ("depth", "FIELD=VALUES"),
        ("depth=", "FIELD=VALUES"),
        ("", "nothing to sweep"),
        ("depth=1,x", "'x' is not a whole number"),
        ("depth=0", "depth=0 must be at least 1"),
        ("depth=1,1", "twice"),
        ("depth=1;depth=2", "twice"),
        ("cell=lsmt", "did you mean lstm"),
        ("mi_init=(1,a)", "list in parentheses"),
        ("tied=perhaps", "true or false"),
    ],
)
def test_bad_grids(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told.replace("(", r"\(")):
        space.grid(text)


def test_a_search_takes_ranges_and_choices() -> None:
    found = space.search("learning_rate=log:1e-4..1e-2;drop_h=0..0.5;depth=1..6;cell=rhn,lstm")
    assert found == {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "drop_h": optuna.distributions.FloatDistribution(0.0, 0.5),
        "depth": optuna.distributions.IntDistribution(1, 6),
        "cell": optuna.distributions.CategoricalDistribution(("rhn", "lstm")),
    }


@pytest.mark.parametrize(
    "text, told",
    [
        ("learning_rate=1..0.1", "range is empty"),
        ("learning_rate=log:0..1", "above 0"),
        ("drop_h=0..1", "below 1"),
        ("depth=1.5..3", "whole number"),
        ("cell=a..b", "holds no number"),
        ("mi_init=(1,1,1)", "give it to --grid"),
    ],
)
def test_bad_searches(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        space.search(text)


# ---------------------------------------------------------------------------- who runs what


def default_with(**changes):
    config = configs.default()
    config.update(changes)
    return config


def plan(grid: str = "depth=1,2,3", **changes) -> Plan:
    return Plan(default_with(**changes), [], points=space.grid(grid))


def drained(*ledgers: Ledger) -> list[dict]:
    """Claims in turn until nothing is left."""
    points, left = [], list(ledgers)
    while left:
        for ledger in list(left):
            claim = ledger.claim()
            if claim is None:
                left.remove(ledger)
                continue
            points.append(claim.point)
            ledger.tell(claim, TrialState.COMPLETE, 1.0)
    return points


def test_sweeps_in_one_folder_share_its_trials(tmp_path: Path) -> None:
    grid = plan("depth=1,2,3,4,5")
    ledgers = [Ledger(tmp_path / "s", grid) for _ in range(3)]
    points = drained(*ledgers)
    assert sorted(p["depth"] for p in points) == [1, 2, 3, 4, 5]
    assert len(ledgers[0].ended()) == ledgers[0].total == 5


def test_a_sweep_goes_on_under_another_name(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "s", plan("depth=1,2"))
    first.tell(first.claim(), TrialState.COMPLETE, 1.0)
    (tmp_path / "s").rename(tmp_path / "renamed")
    assert drained(Ledger(tmp_path / "renamed", plan("depth=1,2"))) == [{"depth": 2}]


def test_folders_that_share_a_storage_share_its_trials(tmp_path: Path) -> None:
    """As machines without a common disk do; entering the same grid twice does no harm."""
    grid = plan("depth=1,2,3,4,5")
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in "ab":
        (tmp_path / name).mkdir()
    one, two = (Ledger(tmp_path / name / "sweep", grid, storage) for name in "ab")
    for point in grid.points:  # what two that enter at the same moment leave behind
        two.study.enqueue_trial({}, user_attrs={"point": point})
    points = drained(one, two)
    assert sorted(p["depth"] for p in points) == [1, 2, 3, 4, 5]
    assert len(two.ended()) == two.total == 5


def test_a_search_has_its_number_of_trials_over_all(tmp_path: Path) -> None:
    search = Plan(
        configs.default(), [], space=space.search("learning_rate=log:1e-4..1;depth=1..9"), trials=7
    )
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in "ab":
        (tmp_path / name).mkdir()
    ledgers = [Ledger(tmp_path / name / "sweep", search, storage) for name in "ab"]
    points = drained(*ledgers)
    assert len(points) == 7 == ledgers[0].total
    assert len({p["learning_rate"] for p in points}) == 7, "a restarted sampler repeats itself"
    assert all(1e-4 <= p["learning_rate"] <= 1 and p["depth"] in range(1, 10) for p in points)
    assert drained(Ledger(tmp_path / "a" / "sweep", search, storage)) == []


def test_a_cut_trial_is_taken_up_again_with_its_values(tmp_path: Path) -> None:
    search = Plan(configs.default(), [], space=space.search("learning_rate=0..1"), trials=2)
    first = Ledger(tmp_path / "s", search)
    claim = first.claim()
    claim.trial.report(5.0, 0)
    other = Ledger(tmp_path / "s", search)
    second = other.claim()  # holds its lock as long as it is there
    assert second.point != claim.point, "a trial that runs was given out"
    assert other.claim() is None
    claim.log.close()  # as when its process dies
    again = other.claim()
    assert (again.trial.number, again.point) == (claim.trial.number, claim.point)
    assert again.folder == claim.folder and again.reported == 1
    other.leave(again)
    assert other.claim() is None, "what was killed in our hands is not for us to repeat"
    assert Ledger(tmp_path / "s", search).claim().point == claim.point


def test_a_cut_trial_stays_with_the_folder_that_has_its_state(tmp_path: Path) -> None:
    grid = plan("depth=1")
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in "ab":
        (tmp_path / name).mkdir()
    one, two = (Ledger(tmp_path / name / "sweep", grid, storage) for name in "ab")
    claim = one.claim()
    claim.log.close()
    assert two.claim() is None
    assert one.claim().point == {"depth": 1}


def test_a_trial_cut_before_it_was_signed_is_not_lost(tmp_path: Path, monkeypatch) -> None:
    ledger = Ledger(tmp_path / "s", plan("depth=1"))
    ledger.study.ask()  # and killed
    assert ledger.claim() is None, "another machine may be about to sign it"
    ledger.beat([])
    monkeypatch.setattr("rnnx.sweep.leases.SILENCE", -1.0)
    assert ledger.claim().point == {"depth": 1}


def test_a_grid_may_grow_but_not_change_its_config(tmp_path: Path) -> None:
    assert len(drained(Ledger(tmp_path / "s", plan("depth=1,2")))) == 2
    assert drained(Ledger(tmp_path / "s", plan("depth=1,2,3"))) == [{"depth": 3}]
    changed = plan("depth=1", learning_rate=0.5)
    with pytest.raises(UserError, match="learning_rate"):
        Ledger(tmp_path / "s", changed)
    elsewhere = plan("depth=1", data_dir="/data")
    assert drained(Ledger(tmp_path / "s", elsewhere)) == []


def test_a_grid_that_was_cut_down_runs_what_is_left_of_it(tmp_path: Path) -> None:
    large = Ledger(tmp_path / "s", plan("depth=1,2,3,4"))
    large.claim().log.close()  # depth 1, cut
    small = Ledger(tmp_path / "s", plan("depth=2,4"))
    assert small.total == 2
    assert drained(small) == [{"depth": 2}, {"depth": 4}]
    again = Ledger(tmp_path / "s", plan("depth=1,2,3,4"))
    assert drained(again) == [{"depth": 1}, {"depth": 3}]
    assert sorted(t.user_attrs["point"]["depth"] for t in again.ended()) == [1, 2, 3, 4]


def test_a_sweep_older_than_a_field_goes_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "s", plan())
    assert ledger.study.user_attrs["format"] == 1
    kept = ledger.study.user_attrs["config"]
    assert kept.pop("snapshot_every") == 0 and kept.pop("mi_init") == [1.0, 1.0, 1.0]
    ledger.study.set_user_attr("config", kept)
    assert Ledger(tmp_path / "s", plan()).total == 3
    with pytest.raises(UserError, match="mi_init"):
        Ledger(tmp_path / "s", plan(mi_init=(2.0, 1.0, 1.0)))
    ledger.study.set_user_attr("format", 2)
    with pytest.raises(UserError, match="has format 2"):
        Ledger(tmp_path / "s", plan())


def test_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the study"):
        Ledger(tmp_path / "s", plan(), "nosuch://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Ledger(tmp_path / "file", plan())


def test_metrics_are_followed_while_they_are_written(tmp_path: Path) -> None:
    task = tasks.get("language")
    metrics, path = Metrics(tmp_path, task), tmp_path / "metrics.jsonl"
    metrics.read()
    assert metrics.step == 0 and metrics.share(0) == 0.0
    (tmp_path / "run.json").write_text('{"updates": 8}')
    step = '{"kind": "step", "step": 3, "loss": 1.0}\n'
    epoch = '{"kind": "epoch", "epoch": 0, "step": 4, "valid_batched_nll": 2.5}\n'
    path.write_text(step + epoch[:20])
    metrics.read()
    assert (metrics.step, metrics.valid, metrics.share(metrics.step)) == (3, [], 3 / 8)
    path.write_text(step + epoch)
    metrics.read()
    assert (metrics.step, metrics.valid) == (4, [2.5])
    path.write_text(step)  # cut back to its checkpoint by a continued run
    metrics.read()
    assert (metrics.step, metrics.valid) == (3, [])
    path.write_text(step * 3 + epoch + step[:20])
    metrics.read()
    path.write_text(epoch + step * 9)  # cut back and grown since: the old end is in mid-line
    metrics.read()
    metrics.read()
    assert (metrics.step, metrics.valid) == (3, [2.5])


def test_an_outage_of_several_trials_of_one_program_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner.Runner, "_conclude", lambda *_: None)
    sweep = runner.Runner(None, 2, None, replicas=3)
    metrics = SimpleNamespace(read=lambda: None, valid=[])
    cut = SimpleNamespace(poll=lambda: os.EX_TEMPFAIL)
    claim = SimpleNamespace(reported=0)
    sweep.jobs = [runner.Job(claim, cut, metrics, slot, 0.0) for slot in (0, 0, 0, 1)]
    for count, job in zip((0, 0, 1, 2), list(sweep.jobs), strict=True):
        sweep._look_at(job)
        assert sweep.outages == count


def test_workers_share_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8, 9, 11}, raising=False)
    assert [processes._share(slot, 2) for slot in (0, 1)] == [{3, 8, 11}, {5, 9}]
    assert processes._share(0, 1) == set()  # one worker keeps them all
    assert processes._environment(1) == dict(os.environ)
    assert processes._environment(3)["XLA_CLIENT_MEM_FRACTION"] == "0.300"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert "XLA_CLIENT_MEM_FRACTION" not in processes._environment(3)


# ---------------------------------------------------------------------------- whole sweeps


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores that can be chosen",
)
def test_a_training_starts_on_its_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first instruction, as threads that are already there would stay where they are."""
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nexec cat /proc/self/status\n")
    stub.chmod(0o755)
    monkeypatch.setattr(processes.sys, "executable", str(stub))
    own = os.sched_getaffinity(0)
    quiet = SimpleNamespace(event=lambda *_: None)
    plan = SimpleNamespace(arguments=[], task=tasks.get("language"))
    ledger = SimpleNamespace(plan=plan)
    sweep = runner.Runner(ledger, 2, quiet)
    for slot in range(2):
        folder = tmp_path / str(slot)
        with open(tmp_path / f"{slot}.log", "w") as log:
            sweep.launch([Claim(None, {}, folder, log, 0)], slot)
        assert os.sched_getaffinity(0) == own
    for slot, job in enumerate(sweep.jobs):
        assert job.process.wait(30) == 0
        status = (tmp_path / f"{slot}.log").read_text()
        mask = next(line for line in status.splitlines() if line.startswith("Cpus_allowed:"))
        cores = int(mask.split()[1].replace(",", ""), 16)
        assert {i for i in range(cores.bit_length()) if cores >> i & 1} == processes._share(slot, 2)


def steps_of(folder: Path) -> list[int]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == "step"]


def scores(folder: Path) -> dict[str, float]:
    results = {p.parent.name: workdir.read_json(p) for p in folder.glob("trials/*/result.json")}
    return {name: result["valid"]["nll"] for name, result in sorted(results.items())}


def test_a_sweep_records_what_fails_and_goes_on(config_file: Path, tmp_path: Path) -> None:
    done = run_module(
        "sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--workers=2",
        "--grid=cell=rhn,lstm;depth=2", "--config.epochs=1", "--seeds=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trials ended" in done.stdout and "no transition depth" in done.stdout
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's' / 'sweep.db'}")
    states = {t.user_attrs["point"]["cell"]: t for t in study.trials}
    assert states["rhn"].state == TrialState.COMPLETE
    assert states["rhn"].value == next(iter(scores(tmp_path / "s").values()))
    assert states["lstm"].state == TrialState.FAIL
    assert "no transition depth" in states["lstm"].user_attrs["reason"]
    folder = next((tmp_path / "s" / "trials").glob("*cell=rhn*"))
    assert workdir.read_json(folder / "run.json")["command"].startswith("python -m rnnx.train")
    assert open_run(folder).config.depth == 2


def states(folder: Path) -> list[TrialState]:
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'sweep.db'}")
    return [trial.state for trial in study.trials]


def test_what_is_the_machine_s_fault_is_tried_again(config_file: Path, tmp_path: Path) -> None:
    """A process in the way of a trial: it does not count as tried."""
    command = [f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--grid=depth=1"]
    with workdir.locked(tmp_path / "s" / "trials" / "000,depth=1"):
        done = run_module("sweep", *command)
    assert done.returncode == os.EX_TEMPFAIL, done.stderr
    assert "000,depth=1 at step 0 (rnnx.train: error: another process is training" in done.stderr
    assert states(tmp_path / "s") == [TrialState.RUNNING]


def test_two_outages_in_a_row_end_a_sweep_and_one_does_not(
    trials_that: Callable, config_file: Path, tmp_path: Path
) -> None:
    """As of a full disk: no other trial is begun to meet the same. What was cut is tried again."""
    command = [f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--grid=depth=1,2,3,4"]
    cut, over, left = TrialState.RUNNING, TrialState.COMPLETE, TrialState.WAITING
    for plan, expected in (
        ({0: 75, 1: 75}, [cut, cut, left, left]),
        ({0: 75, 2: 75}, [cut, over, cut, over]),
        ({}, [over] * 4),
    ):
        trials_that(plan)
        done = call_module("sweep", *command)
        assert done.returncode == (os.EX_TEMPFAIL if plan else 0), done.stderr
        assert states(tmp_path / "s") == expected
        assert ("000,depth=1 at step 0 (no luck)" in done.stderr) == bool(plan)


def test_a_sweep_of_which_all_trials_fail_has_failed(
    trials_that: Callable, config_file: Path, tmp_path: Path
) -> None:
    trials_that({0: 2, 1: 2})
    command = [f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--grid=depth=1,2"]
    done = call_module("sweep", *command)
    assert done.returncode == 2 and "all 2 trials failed" in done.stderr, done.stderr
    assert states(tmp_path / "s") == [TrialState.FAIL] * 2


def test_a_killed_trial_is_told_and_the_others_go_on(
    trials_that: Callable, config_file: Path, tmp_path: Path
) -> None:
    command = [f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--grid=depth=1,2"]
    trials_that({0: -signal.SIGKILL})
    done = call_module("sweep", *command)
    assert done.returncode == os.EX_TEMPFAIL
    assert "cut from outside: 000,depth=1 at step 0 (SIGKILL)" in done.stderr
    assert states(tmp_path / "s") == [TrialState.RUNNING, TrialState.COMPLETE]
    trials_that({})
    assert call_module("sweep", *command).returncode == 0
    assert states(tmp_path / "s") == [TrialState.COMPLETE] * 2


@pytest.mark.long
def test_a_study_out_of_reach_leaves_no_run_behind(config_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    command = [f"--config={config_file}", f"--workdir={folder}"]
    process = begun(folder, *command, "--config.epochs=500")
    study = (folder / "sweep.db").read_bytes()
    (folder / "sweep.db").write_bytes(b"not a database" * 999)
    _, told = process.communicate(timeout=120)
    assert process.returncode == os.EX_TEMPFAIL and len(told.splitlines()) == 1, told
    assert "cannot keep the study" in told and "not a database" in told
    log = next(folder.glob("logs/000*")).read_text()
    assert "SIGTERM: saved at step" in log, "the run was not ended in order"
    (folder / "sweep.db").write_bytes(study)
    assert states(folder) == [TrialState.RUNNING, TrialState.WAITING]


@pytest.mark.parametrize(
    "whom",
    ["sweep", *(pytest.param(whom, marks=pytest.mark.long) for whom in ("worker", "politely"))],
)
def test_a_killed_sweep_goes_on_to_the_same_numbers(
    whom: str, config_file: Path, tmp_path: Path
) -> None:
    command = [f"--config={config_file}"]
    folder = tmp_path / "s"
    process = begun(folder, *command, f"--workdir={folder}")
    if whom == "worker":
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        _, told = process.communicate(timeout=120)
        assert process.returncode == 75 and "cut from outside" in told and "SIGKILL" in told
        assert len(scores(folder)) == 1, "the sweep did not go on with the other trial"
    else:
        process.send_signal(signal.SIGKILL if whom == "sweep" else signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode == (-9 if whom == "sweep" else 143)
        assert whom == "sweep" or not scores(folder)
    done = run_module("sweep", *command, f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trials ended" in done.stdout
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder / 'sweep.db'}")
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 2
    for trial in folder.glob("trials/*"):
        steps = steps_of(trial)
        assert steps == list(range(1, len(steps) + 1)), "a step is missing, or there twice"
    if whom == "sweep":  # the cut trial is an ordinary run of that config, never cut
        name, nll = next(iter(scores(folder).items()))
        again = tmp_path / "whole" / name
        depth = f"--config.depth={workdir.read_config(folder / 'trials' / name).depth}"
        assert run_module("train", *command, depth, f"--workdir={again}").returncode == 0
        assert workdir.read_json(again / "result.json")["valid"]["nll"] == nll


def test_a_hopeless_trial_is_stopped_and_the_best_is_kept(
    trials_that: Callable, config_file: Path, tmp_path: Path
) -> None:
    trials_that({4: 0.5, 5: 2.0})
    done = call_module(
        "sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--trials=6",
        "--search=learning_rate=log:1e-9..1", "--workers=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 of 6 trials ended" in done.stdout
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's' / 'sweep.db'}")
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED]
    assert study.best_value == 0.5 and study.best_trial.number == 4
    assert study.trials[4].intermediate_values == {0: 0.5, 1: 0.5, 2: 0.5}
    assert 0 < len(study.trials[5].intermediate_values) <= 3
    assert len(list((tmp_path / "s" / "trials").glob("*/result.json"))) == 5


@pytest.mark.long
def test_a_search_prunes_what_is_hopeless(config_file: Path, tmp_path: Path) -> None:
    done = run_module(
        "sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--trials=7",
        "--search=learning_rate=log:1e-9..1", "--workers=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "7 of 7 trials ended" in done.stdout
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's' / 'sweep.db'}")
    states = [t.state for t in study.trials]
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    best = min(t.value for t in study.trials if t.state == TrialState.COMPLETE)
    assert study.best_value == best
    for trial in (t for t in study.trials if t.state == TrialState.PRUNED):
        assert 0 < len(trial.intermediate_values) <= 9
        folder = next((tmp_path / "s" / "trials").glob(f"{trial.number:03d},*"))
        open_run(folder)  # an ordinary workdir, though not complete


@pytest.mark.parametrize(
    "args, told",
    [
        ([], "--workdir=DIR is missing"),
        (["--workdir={tmp}/s", "--grid=depth=1", "--search=depth=1..2"], "two sweeps"),
        (["--workdir={tmp}/s", "--search=depth=1..2"], "go together"),
        (["--workdir={tmp}/s[1]", "--grid=depth=1"], "has brackets"),
        (["--workdir={tmp}/s", "--grid=dept=1"], "did you mean depth"),
        (["--workdir={tmp}/s", "--grid=cell=lstm,gru;depth=2"], "has no transition depth"),
        (["--workdir={tmp}/s", "--grid=seed=1,2", "--seeds=2"], "leave --seeds out"),
        (["--workdir={tmp}/s", "--grid=hidden_size=1,2", "--param_budget=999"], "solves"),
        (["--workdir={tmp}/s", "--config.corpus=nosuch", "--grid=depth=1"], "nosuch"),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(
    args: list[str], told: str, config_file: Path, tmp_path: Path
) -> None:
    args = [arg.format(tmp=tmp_path) for arg in args]
    done = call_module("sweep", f"--config={config_file}", *args)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "s").exists()


def test_help_names_every_flag() -> None:
    done = call_module("sweep", "--help")
    assert done.returncode == 0
    for name in ("grid", "search", "trials", "seeds", "param_budget", "workers", "storage"):
        assert f"--{name}:" in done.stdout
