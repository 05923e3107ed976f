"""Bad input gets one clear line and an exit code of its own, and leaves nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, call_module, one_device, run_module

from rnnx import cli
from rnnx import config as configs

QUICK = "--config=configs/quickstart.py:tiny"


def refused(done, *parts: str, code: int = 2) -> None:
    """One line on stderr that names the parts, no traceback, that exit code."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize(
    "args, parts",
    [
        (["--config.hiden_size=3"], ["hiden_size", "did you mean hidden_size"]),
        (["--config.depth=0"], ["depth=0 must be at least 1"]),
        (["--config.depth=2.5"], ["depth"]),
        (["--config.depth=two"], ["depth"]),
        (["--config.hidden_size=-1"], ["hidden_size=-1"]),
        (["--config.drop_x=1.5"], ["drop_x=1.5 must be below 1"]),
        (["--config.cell=lsmt"], ["did you mean lstm"]),
        (["--config.corpus=ptb_wrd"], ["ptb_wrd"]),
        (["--config.batch_size=9000000"], ["batch larger than the text"]),
        (["--wrkdir=x"], ["wrkdir"]),
        (["stray"], ["stray"]),
        (["--num_processes=2"], ["go together"]),
    ],
)
def test_bad_arguments_of_train(args: list[str], parts: list[str], tmp_path: Path) -> None:
    refused(call_module("train", QUICK, f"--workdir={tmp_path / 'run'}", *args), *parts)
    assert not (tmp_path / "run").exists(), "something was half-written"


def test_bad_config_files(tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    refused(run_module("train", workdir), "--config=FILE is missing")
    refused(call_module("train", QUICK), "--workdir=DIR is missing")
    refused(call_module("train", "--config=configs/no_such.py", workdir), "no_such.py")
    refused(
        call_module("train", "--config=configs/enwik8.py:milstm", workdir), "did you mean mi_lstm"
    )
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    refused(call_module("train", f"--config={broken}", workdir), "division by zero")


def test_bad_corpora(tmp_path: Path) -> None:
    def train(path: Path) -> object:
        return call_module(
            "train", QUICK, f"--workdir={tmp_path / 'run'}", f"--config.corpus={path}"
        )

    rng = np.random.default_rng(0)
    for name, content, part in [
        ("empty.txt", b"", "empty"),
        ("short.txt", b"abc", "short"),
        ("latin1.txt", "caf\xe9 ".encode("latin-1") * 500, "UTF-8"),
        ("noise.bin", rng.bytes(5000), "UTF-8"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        refused(train(path), name, part)
    refused(train(tmp_path / "missing.txt"), "missing.txt")
    refused(train(tmp_path), str(tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", ["evaluate", "sample"])
def test_bad_workdirs(module: str, tmp_path: Path) -> None:
    refused(call_module(module, f"--workdir={tmp_path / 'nothing'}"), "not a workdir")
    (tmp_path / "config.json").write_text('{"format": 1, "depth": 0}')
    refused(call_module(module, f"--workdir={tmp_path}"), "config.json")
    refused(call_module(module), "--workdir=... is missing")
    config = configs.default()
    config.update(embed_size=4, hidden_size=4)
    (tmp_path / "config.json").write_text(json.dumps(configs.to_json(config)))
    refused(call_module(module, f"--workdir={tmp_path}"), "vocabulary.json is missing")
    (tmp_path / "vocabulary.json").write_text(
        '{"format": 1, "level": "char", "symbols": ["a", "b"]}'
    )
    refused(call_module(module, f"--workdir={tmp_path}"), "no evaluated checkpoint yet")


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    runs = ROOT / "notebooks" / "results" / "depth.json"
    command = [f"--workdir={runs}", f"--out={tmp_path}", f"--export={tmp_path}/none/runs.json"]
    refused(call_module("report", *command), "none/runs.json: No such file", code=os.EX_TEMPFAIL)
    far = call_module("train", QUICK, f"--workdir={tmp_path}/{'x' * 300}")
    refused(far, "xxx: File name too long", code=os.EX_TEMPFAIL)


def test_a_full_disk_may_be_that_of_the_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rnnx.train", QUICK, f"--workdir={tmp_path}/{'x' * 300}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, env=one_device(), stdout=full, stderr=full)
    assert done.returncode == os.EX_TEMPFAIL


@pytest.mark.parametrize("how", [">&-", "2>&-", "| true"])
def test_nobody_need_read_what_a_command_prints(how: str, text: Path) -> None:
    module = f"{sys.executable} -m rnnx.data --corpus={text}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{module} {how}"],
        cwd=ROOT, env=one_device(PYTHONUNBUFFERED="1"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_out_of_memory_is_one_line(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    def ask_for_a_pebibyte() -> None:
        jax.block_until_ready(jax.jit(lambda: jnp.zeros((1 << 40, 1 << 10), jnp.uint8))())

    monkeypatch.setattr(sys, "argv", ["rnnx/sample.py"])
    with pytest.raises(SystemExit) as ended:
        cli.run(ask_for_a_pebibyte, "")
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert told.startswith("rnnx.sample: error: out of memory (RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_a_second_one_does_what_it_always_did(number: int) -> None:
    came = []
    before = signal.signal(number, lambda *_: came.append("again"))
    try:
        with cli.Stop() as stop:
            os.kill(os.getpid(), number)
            assert stop.number == number and not came
            if number == signal.SIGTERM:  # SLURM sends one to every process, a sweep to its runs
                os.kill(os.getpid(), number)
                assert not came
                stop.SAME = -1.0
            os.kill(os.getpid(), number)
            # Of a terminal that is closed, two come.
            assert came == ([] if number == signal.SIGHUP else ["again"])
        came.clear()
        os.kill(os.getpid(), number)
        assert came == ["again"]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    "argv, told",
    [
        (["/x/rnnx/train.py", "--config=a b"], "python -m rnnx.train '--config=a b'"),
        (["/x/rnnx/sweep/__main__.py", "--seeds=2"], "python -m rnnx.sweep --seeds=2"),
        (["/usr/bin/pytest", "--seed=1"], ""),
    ],
)
def test_a_command_is_recorded_as_it_can_be_given_again(argv, told, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert cli.command() == told


def test_an_interrupt_ends_as_of_its_signal() -> None:
    assert cli.ending(KeyboardInterrupt()) == ("interrupted", 130)
    assert cli.ending(ValueError("a bug")) is None


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli.Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("module", ["train", "evaluate", "sample", "data"])
def test_help(module: str) -> None:
    done = call_module(module, "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert f"python -m rnnx.{module}" in done.stdout
    assert all(len(line) < 120 for line in done.stdout.splitlines())
    if module == "train":
        assert all(f"\n  {name} (default " in done.stdout for name in configs.FIELDS)


def test_overrides_reach_a_dry_run_that_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run_module(
        "train", QUICK, "--dry_run", "--config.depth=1", "--config.drop_h=0.5",
        "--config.cell=dtrnn", "--config.mi_init=(2.0, 0.5, 0.5)", "--noconfig.score_test",
        "--config.learning_rate=1", TMPDIR=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout and "total" in done.stdout
    for told in (
        "depth = 1", "drop_h = 0.5", "cell = 'dtrnn'", "mi_init = (2.0, 0.5, 0.5)",
        "score_test = False", "learning_rate = 1.0",
    ):  # fmt: skip
        assert told in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_into_a_pipe_that_closes() -> None:
    done = subprocess.run(
        f"{sys.executable} -m rnnx.train --help | head -1",
        shell=True, cwd=ROOT, env=one_device(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1 and not done.stderr


def test_what_the_runtime_prints_can_be_kept_apart(tmp_path: Path) -> None:
    """From the process's own lines, which stay where they were, warnings and tracebacks too."""
    program = """
import os, sys
from rnnx import cli
cli._keep_runtime_apart()
for number in (1, 2):
    os.write(number, b"runtime\\n")
print("ours")
raise SystemExit("ours too")
"""
    log = tmp_path / "log"
    for env, apart in (({}, False), ({"RNNX_RUNTIME_LOG": str(log)}, True)):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=one_device(**env), capture_output=True,
            text=True,
        )  # fmt: skip
        words = [done.stdout.split("\n"), done.stderr.split("\n")]
        own = [["ours", ""], ["ours too", ""]]
        assert words == (own if apart else [["runtime", *lines] for lines in own])
    assert log.read_text() == "runtime\nruntime\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
        env=one_device(RNNX_RUNTIME_LOG=str(tmp_path / "nosuch" / "log")),
    )  # fmt: skip
    assert "ours" in done.stdout and "runtime" in done.stdout
