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


class Group:
    """A process that trains several trials (`replicas.py`)."""

    def __init__(self, process: subprocess.Popen, ends: int, count: int):
        """ends: a pipe on which it tells how each of so many trials ended."""
        self.process, self._ends, self._count = process, os.fdopen(ends, "rb"), count
        self._codes: dict[int, int] = {}  # in the order in which they came
        self._rest, self._asked = b"", False
        os.set_blocking(ends, False)

    def poll(self, index: int) -> int | None:
        """The exit code of a trial, else that of the process; None while it is trained."""
        code = self.process.poll()  # first: then all lines are written
        *lines, self._rest = (self._rest + (self._ends.read() or b"")).split(b"\n")
        for line in map(json.loads, lines):
            self._codes[line["lane"]] = line["code"]
        # The last to end waits for the process, which holds the device until then.
        if code is None and len(self._codes) == self._count and index == list(self._codes)[-1]:
            return None
        return self._codes.get(index, code)

    def terminate(self) -> None:
        """Asks the process to save and end, once: a second signal would kill it."""
        if not self._asked:
            self._asked = True
            self.process.terminate()


class Member(NamedTuple):
    """A trial in a group: like a process of its own to those who watch it."""

    group: Group
    index: int

    def poll(self) -> int | None:
        """The trial's exit code; None while it is trained."""
        return self.group.poll(self.index)

    def terminate(self) -> None:
        """Asks all trials of the group to save and end."""
        self.group.terminate()

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the process; its exit code."""
        return self.group.process.wait(timeout)


def start(
    claims: Sequence[Claim], plan: Plan, slot: int, workers: int
) -> list[subprocess.Popen | Member]:
    """Starts the training of trials, in one process, on the cores of one of several workers.

    Returns a process for each trial, or a member of their group.
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
    ends, told = os.pipe()
    orders = [
        {
            "point": claim.point,
            "workdir": str(claim.folder),
            "command": shlex.join(["python", "-m", *command]),
            "log": claim.log.fileno(),
        }
        for claim, command in zip(claims, commands, strict=True)
    ]
    try:
        started = process(
            ["rnnx.sweep.replicas", *plan.arguments, f"--told={told}"],
            stdin=subprocess.PIPE,
            pass_fds=[told, *(order["log"] for order in orders)],
        )
    finally:
        os.close(told)  # the process has its own
    with contextlib.suppress(BrokenPipeError), started.stdin as file:  # its exit code will tell
        file.write(json.dumps(orders).encode())
    group = Group(started, ends, len(claims))
    return [Member(group, i) for i in range(len(claims))]


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
