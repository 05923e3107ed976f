"""Starts the processes that train trials: a trial each, or several as one program."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rnnx import parallel
from rnnx.sweep import space
from rnnx.sweep.ledger import Claim, Plan


class Together:
    """A process that trains several trials (`replicas.py`)."""

    def __init__(self, process: subprocess.Popen):
        """process: its stdout is a pipe, to which it writes how each trial ended."""
        self.process, self._codes, self._rest = process, {}, b""
        os.set_blocking(process.stdout.fileno(), False)

    def poll(self, index: int) -> int | None:
        """The exit code of a trial, else that of the process; None while it is trained."""
        code = self.process.poll()  # first: then all lines are written
        *lines, self._rest = (self._rest + (self.process.stdout.read() or b"")).split(b"\n")
        for line in map(json.loads, lines):
            self._codes[line["lane"]] = line["code"]
        return self._codes.get(index, code)


class Part(NamedTuple):
    """A trial's part in such a process: as a process of its own to those who watch it."""

    together: Together
    index: int

    def poll(self) -> int | None:
        """The trial's exit code; None while it is trained."""
        return self.together.poll(self.index)

    def terminate(self) -> None:
        """Asks all trials of the process to save and end."""
        self.together.process.terminate()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the whole process; its exit code."""
        return self.together.process.wait(timeout)


def start(
    claims: Sequence[Claim], plan: Plan, slot: int, workers: int
) -> list[subprocess.Popen | Part]:
    """Starts the training of trials, in one process, on the cores of one of several workers.

    Returns one process, or part of one, for each trial.
    """
    commands = []
    for claim in claims:
        fields = [space.flag(name, value) for name, value in claim.point.items()]
        command = ["rnnx.train", *plan.arguments, *fields, f"--workdir={claim.folder}"]
        commands.append(command)
        print(shlex.join(["python", "-m", *command]), file=claim.log, flush=True)

    def process(command: Sequence[str], **pipes: Any) -> subprocess.Popen:
        # It inherits the logs, and with them the trials' locks.
        own = {"stdin": subprocess.DEVNULL, "stdout": claims[0].log, "stderr": claims[0].log}
        with _on(_share(slot, workers)):  # a process starts on the cores of its parent's thread
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                **own | pipes,
                env=_environment(workers),
                start_new_session=True,  # this process passes Ctrl-C on
            )

    if len(claims) == 1:
        return [process(commands[0])]
    orders = [
        {
            "point": claim.point,
            "workdir": str(claim.folder),
            "command": shlex.join(["python", "-m", *command]),
            "log": claim.log.fileno(),
        }
        for claim, command in zip(claims, commands, strict=True)
    ]
    started = process(
        ["rnnx.sweep.replicas", *plan.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[order["log"] for order in orders],
    )
    with contextlib.suppress(BrokenPipeError), started.stdin as file:  # its exit code will tell
        file.write(json.dumps(orders).encode())
    together = Together(started)
    return [Part(together, i) for i in range(len(claims))]


def _share(slot: int, workers: int) -> set[int]:
    """The cores of one of several workers; empty for a single worker, or with too few cores."""
    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return set()
    return set(sorted(os.sched_getaffinity(0))[slot::workers])


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    """Keeps the calling thread on some cores; an empty set changes nothing."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment(workers: int) -> dict[str, str]:
    """The environment of a run: on a GPU with its share of the memory, of which JAX takes 3/4."""
    # Each trial is a run of its own, even if a launcher started several sweeps side by side.
    own = {name: value for name, value in os.environ.items() if name not in parallel.LAUNCHERS}
    chosen = {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & own.keys()
    if workers == 1 or chosen:
        return own
    return own | {"XLA_CLIENT_MEM_FRACTION": f"{0.9 / workers:.3f}"}
