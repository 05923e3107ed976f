"""A stage of scripts/reproduce-gpu: its settings, its time, its child processes, its plan."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gpu_pack
from gpu_pack import ROOT

from rnnx.errors import UserError

BEGUN = time.monotonic()
END = 30  # seconds kept for saving and for the data files
GRACE = 20  # of them after SIGTERM, before SIGKILL
STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)  # exit codes


class Setting(NamedTuple):
    """How a network is computed; all give the same numbers but for rounding."""

    name: str
    dtype: str = "float32"
    flags: str = ""  # of XLA


_GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL --xla_gpu_graph_min_graph_size=1"
_BY_TWO = "--xla_gpu_enable_while_loop_unrolling=WHILE_LOOP_UNROLLING_DOUBLE_BUFFER"
SETTINGS = (
    Setting("bfloat16", "bfloat16"),
    Setting("float32"),
    Setting("bfloat16, loops in CUDA graphs", "bfloat16", _GRAPHS),
    Setting("float32, loops in CUDA graphs", "float32", _GRAPHS),
    Setting("bfloat16, cuBLAS for Triton", "bfloat16", "--xla_gpu_enable_triton_gemm=false"),
    Setting("bfloat16, loops unrolled by two", "bfloat16", _BY_TWO),
    Setting("bfloat16, no CUDA graphs", "bfloat16", "--xla_gpu_enable_command_buffer="),
)

# name, pytest's arguments, environment. Products of float32 have 10 bits on some GPUs by default.
_EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
_GOLDEN = "tests/test_update.py::test_six_steps_of_the_authors_rhn[1]"
_UPDATES = "tests/test_update.py::test_cost_gradients_and_states_equal_the_float64_reference"
CHECKS = (
    ("golden", [_GOLDEN], _EXACT),
    ("cells against float64", ["tests/test_cells.py", "-k", "float64"], _EXACT),
    ("updates against float64", [_UPDATES], _EXACT),
    ("gradients", ["tests/test_scan.py", "-k", "autodiff or recomputing_changes"], _EXACT),
    ("resume", ["tests/test_recovery.py", "tests/test_train.py", "-k", "same_bits"], {}),
    (
        "resume, deterministic operations",
        ["tests/test_recovery.py", "-k", "same_bits"],
        {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"},
    ),
)


@dataclass(frozen=True)
class Scale:
    """What a stage trains, and how long it tries."""

    word: str = "configs/ptb_word.py"
    char: tuple[str, ...] = ("configs/ptb_char.py", "configs/ptb_char.py:rnn")
    small: str = "configs/ptb_word.py:small"
    word_epochs: int = 500
    char_epochs: int = 50
    depth_epochs: tuple[int, int] = (20, 15)  # of them flat
    depths: tuple[int, ...] = (1, 10, 5, 2, 3, 7, 4, 8, 6, 9)  # the ends first
    seeds: int = 5
    updates: int = 320  # of a trial
    settings: tuple[Setting, ...] = SETTINGS
    checks: tuple = CHECKS
    bench: tuple[str, ...] = ("--cases=rhn", "--cases=mirnn", "--cases=small")
    tokens: int = 0  # that `mc` scores; 0: all
    longest: float = 90.0  # seconds of one setting's trial


REAL = Scale()
TINY = Scale(
    word="configs/ptb_word.py:tiny",
    char=("configs/ptb_char.py:tiny", "configs/ptb_char.py:rnn,tiny"),
    small="configs/ptb_word.py:small,tiny",
    word_epochs=3,
    char_epochs=2,
    depth_epochs=(2, 1),
    depths=(1, 2),
    seeds=2,
    updates=20,
    settings=SETTINGS[:2],
    checks=CHECKS[:1],
    bench=("--quick --cases=token",),
    tokens=300,
    longest=300.0,  # on a busy CPU
)


# ---------------------------------------------------------------------------- plans


def epochs_in(seconds: float, updates: int, ms: float, most: int) -> int:
    """How many epochs fit: each takes its updates and half a second."""
    return max(1, min(most, int(seconds / (updates * ms / 1e3 + 0.5))))


def schedule(epochs: int, whole: int, flat: int = 20, decay: float = 1.02) -> tuple[int, float]:
    """flat_epochs and lr_decay of a shorter run whose rate falls by as much in all.

    The paper's rate is flat for 20 of 500 epochs and falls by 1.02^480; a run of N epochs is flat
    for 20 too, or a quarter where that is less.
    """
    short = max(1, min(flat, epochs // 4))
    return short, round(decay ** (max(whole - flat, 0) / max(epochs - short, 1)), 4)


# ---------------------------------------------------------------------------- a stage


class Stage:
    """A stage of one workdir: its time, its child processes, and what it measured."""

    def __init__(self, args: argparse.Namespace):
        self.name, self.scale = args.stage, TINY if args.tiny else REAL
        self.calls, self.seconds = args.calls, 60.0 * args.minutes
        self.workdir = Path(args.workdir).expanduser().resolve()
        self.folder = self.workdir / self.name
        self.out = self.workdir / "out" / self.name
        for folder in (self.folder, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        self.env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        self.flags = os.environ.get("XLA_FLAGS", "")
        # Each process takes what it needs: tests and the bench start more of them.
        self.env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.git = gpu_pack.install(args.packed, self.workdir / "site", self.env)
        self.more = self._tiny_text() if args.tiny else []
        self.kept = self.folder / "measured.json"
        new = {"format": 1, "stage": self.name, "trials": {}, "plans": {}, "tests": {}}
        self.measured = json.loads(self.kept.read_text()) if self.kept.exists() else new
        if "device" not in self.measured:
            self.measured |= self._machine()
            self.save()

    def left(self) -> float:
        """Seconds left of this call, without those that the end takes."""
        return BEGUN + self.seconds - END - time.monotonic()

    def save(self) -> None:
        """Keeps what was measured, for the next call and for the reader."""
        text = json.dumps(self.measured, indent=1) + "\n"
        for path in (self.kept, self.out / f"gpu_{self.name}_measured.json"):
            path.write_text(text)

    def run(self, *command: str, seconds: float, output: Any = None, **env: str) -> int:
        """Runs Python with these arguments for at most so long; then SIGTERM, which saves.

        Returns its exit code; 128 + 15 where it was stopped, or -9 where it had to be killed.
        """
        flags = " ".join(filter(None, (self.flags, env.pop("XLA_FLAGS", ""))))
        env = self.env | env | ({"XLA_FLAGS": flags} if flags else {})
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=env, stdout=output, text=True
        )
        try:
            return process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            return _stopped(process)
        finally:
            if process.poll() is None:  # this process gets a signal itself
                _stopped(process)

    def train(
        self,
        config: str,
        folder: Path,
        setting: Setting,
        seconds: float,
        *more: str,
        output: Any = None,
        module: str = "rnnx.train",
    ) -> int:
        """Trains, or resumes, a run, or a sweep, for at most so long."""
        dtype = [f"--config.dtype={setting.dtype}"] if setting.dtype != "float32" else []
        command = ["-m", module, f"--config={config}", f"--workdir={folder}"]
        command += [*dtype, *self.more, *more]
        return self.run(*command, seconds=seconds, output=output, XLA_FLAGS=setting.flags)

    def trial(self, config: str, settings: Sequence[Setting], seconds: float) -> list[dict]:
        """ms an update with each setting, in order, as many as so many seconds allow, but one."""
        rows = self.measured["trials"].setdefault(config, [])
        until, folder = time.monotonic() + seconds, self.folder / "trial"
        fields = [f"--config.max_steps={self.scale.updates}", "--config.eval_tokens=200"]
        for setting in settings:
            if any(row["setting"] == setting.name for row in rows):
                continue
            begun, longest = time.monotonic(), self.scale.longest
            measured = any(row["ms"] is not None for row in rows)
            given = min(self.left(), longest, until - begun if measured else longest)
            if given < max([1.0, *(row["seconds"] for row in rows)]):
                break  # it would not end in time
            shutil.rmtree(folder, ignore_errors=True)
            code = self.train(config, folder, setting, given, *fields, output=subprocess.DEVNULL)
            if code in STOPPED and given < longest:
                break  # tried again by the next call
            row = {"setting": setting.name, "flags": setting.flags, "ms": None, "exit_code": code}
            if code == 0:
                row |= _pace(folder)
            rows.append(row | {"seconds": round(time.monotonic() - begun, 2)})
            self.save()
        shutil.rmtree(self.folder / "trial", ignore_errors=True)
        return [row for row in rows if row["ms"] is not None]

    def fastest(self, *dtypes: str) -> Setting | None:
        """The fastest setting that the stage `check` found, here or in notebooks/results."""
        here = self.workdir / "check" / "measured.json"
        for path in (here, ROOT / "notebooks" / "results" / "gpu_check_measured.json"):
            if path.exists():
                rows = json.loads(path.read_text())["trials"].get(self.scale.word, ())
                ms = {row["setting"]: row["ms"] for row in rows if row["ms"] is not None}
                found = [s for s in SETTINGS if s.name in ms and s.dtype in (dtypes or s.dtype)]
                if found:
                    return min(found, key=lambda setting: ms[setting.name])
        return None

    def plan(
        self, config: str, settings: Sequence[Setting], most: int, share: float, passes: float
    ) -> dict:
        """Setting and epochs of a run, from a trial of a minute at most; made once and kept.

        Args:
          share: of all calls' time that the run has.
          passes: over valid and test that follow, in windows as long as training's.
        """
        if config in self.measured["plans"]:
            return self.measured["plans"][config]
        rows = self.trial(config, settings, 60.0)
        if not rows:
            del self.measured["trials"][config]  # the next call tries again
            self.save()
            raise UserError(f"no trial of {config} ended well in its time: see the lines above")
        best = min(rows, key=lambda row: row["ms"])
        tried = sum(row["seconds"] for row in self.measured["trials"][config])
        start = max(best["seconds"] - self.scale.updates * best["ms"] / 1e3, 0.0)
        seconds = share * (self.calls * (self.seconds - END)) - tried
        seconds -= (self.calls + 2) * start + passes * best["windows"] * best["ms"] / 1e3
        made = {
            "setting": best["setting"],
            "ms": best["ms"],
            "seconds": round(seconds, 1),
            "epochs": epochs_in(seconds, best["updates"], best["ms"], most),
        }
        self.measured["plans"][config] = made
        self.save()
        return made

    def export(self, *runs: Path) -> list[dict]:
        """Writes the data file of runs, or of a sweep, and returns what it holds."""
        path = self.out / f"gpu_{self.name}.json"
        kinds = ("config.json", "sweep.json")
        runs = [run for run in runs if any((run / name).exists() for name in kinds)]
        if not runs:
            return []
        command = ["-m", "rnnx.report", f"--workdir={','.join(map(str, runs))}"]
        command += [f"--out={self.folder / 'report'}", f"--export={path}"]
        seconds = max(BEGUN + self.seconds - time.monotonic(), GRACE)
        if self.run(*command, seconds=seconds, output=subprocess.DEVNULL, JAX_PLATFORMS="cpu"):
            raise UserError("the data file was not written: see the line above")
        data = json.loads(path.read_text())
        for record in data["runs"]:
            record["git"] = record["git"] or self.git
        lines = ",\n".join(map(json.dumps, data["runs"]))
        path.write_text(f'{{"format": {data["format"]}, "runs": [\n{lines}\n]}}\n')
        return data["runs"]

    def _tiny_text(self) -> list[str]:
        """A text of few updates an epoch, for --tiny."""
        path = self.workdir / "tiny.txt"
        path.write_text("the rain falls and the sun shines\n" * 200)
        return [f"--config.corpus={path}", "--config.max_steps=0"]

    def _machine(self) -> dict:
        """Versions, device and commit, told by another process: this one leaves the device free."""
        code = "import json; from rnnx import workdir; print(json.dumps(workdir.machine()))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=self.env, text=True, stdout=subprocess.PIPE
        )
        if done.returncode:
            raise UserError("rnnx does not start here: see the lines above")
        told = json.loads(done.stdout.splitlines()[-1])
        return told | {"git": told["git"] or self.git}


def _stopped(process: subprocess.Popen) -> int:
    """Ends a process, which saves, or kills it."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _pace(folder: Path) -> dict:
    """ms an update of a trial, without compilation; updates an epoch; windows of valid and test."""
    result = json.loads((folder / "result.json").read_text())
    config = result["config"]
    train, *others = json.loads((folder / "run.json").read_text())["data"]["sizes"]
    tokens = config["batch_size"] * config["num_steps"]
    return {
        "ms": round(1e3 * tokens / result["tokens_per_second"], 3),
        "updates": max((train - 1) // tokens, 1),
        "windows": sum(others) // config["num_steps"],
    }
