"""The command that trains, killed and started again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, lines_of, one_device, outcome, run_module


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_killed_process_resumes_to_the_same_bits(
    number: signal.Signals, text: Path, tmp_path: Path
) -> None:
    args = [
        "--config=configs/quickstart.py:tiny", f"--config.corpus={text}", "--config.max_steps=0",
        "--config.epochs=3", "--config.num_steps=4", "--config.checkpoint_every=100",
    ]  # fmt: skip
    command = [sys.executable, "-m", "rnnx.train", *args, f"--workdir={tmp_path / 'killed'}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=one_device(), stdout=subprocess.PIPE, text=True
    )
    latest = tmp_path / "killed" / "checkpoints" / "latest"
    deadline = time.monotonic() + 120
    while not (latest.is_dir() and any(p.name in ("100", "200") for p in latest.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"{number.name}: saved at step" in output
    assert not (tmp_path / "killed" / "result.json").exists()
    for name in ("killed", "whole"):
        done = run_module("train", *args, f"--workdir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        assert ("resuming from step" in done.stdout) == (name == "killed")
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    killed, whole = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "whole")
    )
    assert outcome(killed) == outcome(whole)
