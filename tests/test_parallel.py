"""Two forced CPU devices do what one does, with one all-reduce a step."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import QUIET, ROOT, on_devices, one_device, run_module, small

from rnnx import model, optim, parallel, recovery, score, tasks, trainer, update
from rnnx.checkpoint import Checkpoints
from rnnx.errors import UserError
from rnnx.experiment import Experiment
from rnnx.parallel import EVERYWHERE
from rnnx.tasks import network
from rnnx.trainer import Trainer
from rnnx.update import State


def run_steps(text: Path, devices: int, steps: int = 6):
    config = small(text, reset_prob=0.2)
    task = tasks.of(config)
    dataset = task.load(config, print)
    config = network.resolve(config, dataset.spec)
    graphdef, params = model.split(network.build(config, dataset.spec))
    mesh = parallel.batch_mesh(config.batch_size, jax.devices()[:devices])
    step = update.make_updates(task, config, graphdef, mesh)
    carries = score.zero_carries(task, graphdef, params, config.batch_size, mesh)
    opt_state = optim.update_rule(config).init(params)
    state = State(*parallel.shard((params, opt_state), mesh, EVERYWHERE), carries)
    windows = task.batches(config, dataset, "train", "train", slice(None))
    history = []
    for i in range(steps):
        numbers = np.uint32(0), np.int32(i), np.int32(1), np.float32(0.2)
        arguments = state, on_devices(windows[i], mesh), *numbers
        if i == 0:
            compiled = step.lower(*arguments).compile().as_text()
        state, values = step(*arguments)
        (nats, targets) = values["sums"]["nll"]
        history.append({"loss": values["loss"][0], "grad_norm": values["grad_norm"][0]})
        history[-1] |= {"nats": nats[0], "targets": targets[0]}
        jax.block_until_ready(values)
    return state, history, compiled


def test_two_devices_give_the_numbers_of_one(text: Path) -> None:
    one, history_1, _ = run_steps(text, 1)
    two, history_2, _ = run_steps(text, 2)
    for a, b in zip(history_1, history_2, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_all_reduce_a_step_and_none_in_the_time_loop(text: Path) -> None:
    _, _, program = run_steps(text, 2, steps=1)
    computations = re.split(r"\n(?=\S.*\{$)", program, flags=re.MULTILINE)
    averaging = [c for c in computations if re.search(r" all-reduce(-start)?\(", c)]
    assert len(re.findall(r" all-reduce(-start)?\(", program)) == 1
    # It stands beside the loops forward and backward in time, in the body of the loop of updates.
    assert len(averaging) == 1 and len(re.findall(r" while\(", averaging[0])) >= 2


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """As the user's mistake: a sweep over batch_size fails that trial and runs the next."""
    with pytest.raises(UserError, match="batch_size=7 is not divisible by 2 devices") as error:
        parallel.batch_mesh(7)
    assert error.value.code == UserError.code


def test_two_processes_give_the_numbers_of_one(text: Path, tmp_path: Path) -> None:
    """The command line with a coordinator: one workdir, written by the first process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["--config=configs/quickstart.py:tiny", f"--config.corpus={text}"]
    # Several epochs, each with two saves: the barriers of unfinished ones must not meet.
    command += ["--config.max_steps=0", "--config.epochs=5", "--config.num_steps=100"]

    def start(process: int):
        return run_module(
            "train", *command, f"--workdir={tmp_path / 'two'}", "--num_processes=2",
            f"--coordinator=127.0.0.1:{port}", f"--process_id={process}", timeout=120,
        )  # fmt: skip

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(start, range(2))
    one = run_module("train", *command, f"--workdir={tmp_path / 'one'}")
    assert first.returncode == second.returncode == one.returncode == 0, first.stderr
    assert "this model" in first.stdout and "this model" not in second.stdout
    results = [json.loads((tmp_path / d / "result.json").read_text()) for d in ("one", "two")]
    for split in ("valid", "test"):
        a, b = (result[split] for result in results)
        assert a["tokens"] == b["tokens"]
        np.testing.assert_allclose(a["nll"], b["nll"], rtol=1e-5)
    steps = [(tmp_path / d / "metrics.jsonl").read_text().count('"step"') for d in ("one", "two")]
    assert steps[0] == steps[1]


class Processes:
    """Several processes of one run on this machine."""

    def __init__(self, count: int, folder: Path, *command: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder, self.running = folder, []
        together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
        for i in range(count):
            joined = [*together, f"--process_id={i}"] if count > 1 else []
            self.running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "rnnx.train", *command, f"--workdir={folder}", *joined],
                    cwd=ROOT, env=one_device(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True,
                )
            )  # fmt: skip

    def after_step(self, step: int) -> None:
        """Returns when a checkpoint of that step or a later one is there."""
        latest = self.folder / "checkpoints" / "latest"
        deadline = time.monotonic() + 120
        while True:
            names = [p.name for p in latest.iterdir()] if latest.is_dir() else []
            if any(name.isdigit() and int(name) >= step for name in names):
                return
            assert self.running[0].poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def stopped(self, step: int, which: int, number: int) -> str:
        """Signals one of them after a step: all save and end. Returns what the first said."""
        self.after_step(step)
        self.running[which].send_signal(number)
        ended = self.ended()
        assert {code for code, _ in ended} == {143}, ended
        assert "SIGTERM: saved at step" in ended[0][1], ended
        return ended[0][1]

    def ended(self, seconds: float = 240) -> list[tuple[int, str]]:
        """How all of them ended: exit codes, and what they said."""
        deadline = time.monotonic() + seconds
        try:
            said = [p.communicate(timeout=deadline - time.monotonic())[0] for p in self.running]
        finally:
            for process in self.running:
                process.kill()
        return [(p.returncode, text) for p, text in zip(self.running, said, strict=True)]


@pytest.mark.long
def test_a_run_goes_on_with_other_numbers_of_processes_through_deaths_and_preemptions(
    text: Path, tmp_path: Path
) -> None:
    command = [
        "--config=configs/quickstart.py:tiny", f"--config.corpus={text}", "--config.num_steps=8",
        "--config.epochs=3", "--config.checkpoint_every=10", "--config.max_steps=0",
    ]  # fmt: skip
    alone = Processes(1, tmp_path / "alone", *command)
    (ended,) = alone.ended()
    assert ended[0] == 0, ended[1]

    folder = tmp_path / "run"
    two = Processes(2, folder, *command)
    two.after_step(20)
    two.running[1].kill()
    (code, said), _ = two.ended(seconds=60)
    # Met in a gradient's sum it is we who say so; in a checkpoint's barrier, JAX may be first.
    assert code in (os.EX_TEMPFAIL, -signal.SIGABRT), said
    assert "another process of this run is gone" in said or "another task died" in said, said

    Processes(2, folder, *command).stopped(40, 1, signal.SIGTERM)
    said = Processes(1, folder, *command).stopped(80, 0, signal.SIGTERM)
    assert "resuming from step" in said, said

    four = Processes(4, folder, *command)
    for code, said in four.ended():
        assert code == 0, said

    runs = {}
    for name in ("alone", "run"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        runs[name] = [line for line in map(json.loads, lines) if line["kind"] == "step"]
        assert [line["step"] for line in runs[name]] == list(range(1, len(runs[name]) + 1))
    assert len(runs["run"]) == len(runs["alone"]) > 100
    for a, b in zip(runs["alone"], runs["run"], strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    first, second = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "run")
    )
    for split in ("valid", "test"):
        np.testing.assert_allclose(first[split]["nll"], second[split]["nll"], rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("on_nan", ["stop", "skip", "rollback"])
def test_processes_agree_on_what_to_do_about_a_network_gone_astray(
    on_nan: str, text: Path, tmp_path: Path
) -> None:
    """A learning rate that no network stands: two processes see and do what one does."""
    command = [
        "--config=configs/quickstart.py:tiny", f"--config.corpus={text}", "--config.num_steps=8",
        "--config.optimizer=sgd", "--config.learning_rate=300", "--config.max_grad_norm=0",
        "--config.checkpoint_every=10", "--config.max_steps=40", f"--config.on_nan={on_nan}",
    ]  # fmt: skip
    runs = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        ended = Processes(count, folder, *command).ended()
        assert len({code for code, _ in ended}) == 1, ended
        code, said = ended[0]
        told = [line for line in said.splitlines() if "gradient norm" in line]
        places = [re.sub(r"(loss|norm) [^ ,]+", "", line) for line in told]
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        steps = [(line["step"], line["lr"]) for line in lines if line["kind"] == "step"]
        runs[count] = code, places, steps
    assert runs[1] == runs[2]
    code, places, steps = runs[1]
    assert code == (0 if on_nan == "rollback" else 2) and places
    if on_nan == "rollback":
        assert all("back to step" in place for place in places)
        assert [step for step, _ in steps] == list(range(1, 41)) and steps[-1][1] < 300


def test_several_processes_save_before_an_evaluation_and_after_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be killed in it; and what is kept at that step is the epoch's end."""
    monkeypatch.setattr(parallel, "single", lambda: False)
    never = "rnnx.trainer.multihost_utils.reached_preemption_sync_point"
    monkeypatch.setattr(never, lambda step: False)
    experiment = Experiment(small(text, epochs=2), tmp_path / "run", QUIET)
    validate, asked, saved = Trainer.validate, [], []

    def validated(self: Trainer) -> dict:
        asked.append(self)
        saved.append(self.saver.step == self.progress.step)
        return validate(self)

    monkeypatch.setattr(Trainer, "validate", validated)
    trainer.run(experiment)
    assert saved == [True, True]
    ended = asked[0].progress
    checkpoints = Checkpoints(tmp_path / "run")
    _, progress = recovery.load(checkpoints, experiment.state, experiment.targets(1))
    checkpoints.close()
    assert (progress.epoch, progress.batch, progress.step) == (2, 0, ended.step)
    assert progress.best == ended.best is not None


@pytest.mark.long
def test_ctrl_c_to_one_of_several_and_a_kill_in_an_evaluation_lose_nothing(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("rain falls and the sun shines\n" * 60_000)
    command = [
        "--config=configs/quickstart.py:tiny", f"--config.corpus={text}", "--config.eval_tokens=0",
        "--config.checkpoint_every=20", "--config.max_steps=300",
    ]  # fmt: skip
    folder = tmp_path / "run"
    Processes(2, folder, *command).stopped(20, 1, signal.SIGINT)

    two = Processes(2, folder, *command)
    two.after_step(300)
    assert not list((folder / "checkpoints" / "best").glob("[0-9]*")), "the evaluation is over"
    for process in two.running:
        process.kill()
    two.ended()
    ((code, said),) = Processes(1, folder, *command).ended()
    assert code == 0 and "resuming from step 300" in said, said


def test_what_the_first_process_refuses_ends_all(text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    command = ["--config=configs/quickstart.py:tiny", f"--config.corpus={text}"]
    begun = time.monotonic()
    (code, said), (other, _) = Processes(2, tmp_path / "mine", *command).ended(seconds=90)
    assert time.monotonic() - begun < 60
    assert code == 2 and "holds no run, but other files" in said
    assert other != 0


@pytest.mark.parametrize(
    ("env", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # a batch script
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, True),
    ],
)
def test_launchers_are_known(env: dict, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: joined.append(a))
    for name in [*parallel.LAUNCHERS, "SLURM_PROCID"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    parallel.initialize()
    assert joined == [()] * several


@pytest.mark.long
def test_slurm_tells_who_is_who(text: Path, tmp_path: Path) -> None:
    """Two tasks of a step, as srun starts them, without a flag."""
    env = {
        "SLURM_JOB_ID": str(np.random.default_rng().integers(1 << 30)), "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost",
    }  # fmt: skip
    command = ["--config=configs/quickstart.py:tiny", f"--config.corpus={text}"]

    def task(i: int):
        own = {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}
        return run_module("train", *command, f"--workdir={tmp_path / 'run'}", **env, **own)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(task, range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert "2 x cpu" in first.stdout and "this model" not in second.stdout
