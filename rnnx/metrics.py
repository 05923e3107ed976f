"""What a run measures: `metrics.jsonl`, TensorBoard events, time."""

import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax

from rnnx.errors import UserError


class Log:
    """`metrics.jsonl`, one JSON object a line, mirrored to TensorBoard events.

    A line with "kind": "step" holds the metrics of an update, one with "epoch" those of an epoch.
    Times are in epoch lines only, so step lines of equal runs are equal.
    """

    def __init__(self, folder: Path, position: int = 0, step: int = 0, silent: bool = False):
        """Continues the file at byte `position`, which the checkpoint of `step` recorded.

        A silent log writes nothing; every process but the first has one.

        Raises:
          UserError: when the file is shorter than that.
        """
        self.silent = silent
        if silent:
            return
        # Not SummaryWriter: its thread dies when the disk is full, and its queue then blocks.
        from tensorboardX.event_file_writer import EventsWriter

        path = folder / "metrics.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            raise UserError(
                f"{path} has lost lines: {size:,} bytes where the checkpoint saw {position:,}; "
                "restore the file, or start in a new workdir"
            )
        self._file = open(path, "ab")  # noqa: SIM115 - lives as long as the run
        os.truncate(path, position)
        (folder / "tensorboard").mkdir(exist_ok=True)
        self._board = EventsWriter(str(folder / "tensorboard" / "events"), f".{position}")
        if step:  # events of later steps are void
            self._tell(step + 1, session_log={"status": "START"})

    @property
    def position(self) -> int:
        """Bytes written so far, all of them on disk."""
        if self.silent:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())  # or power lost would take what a checkpoint relies on
        return self._file.seek(0, os.SEEK_END)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends a line; every 50th step and every epoch also goes to TensorBoard."""
        if self.silent:
            return
        # JSON has neither inf nor nan, as a diverged network gives.
        values = {
            k: v if not isinstance(v, float) or math.isfinite(v) else None
            for k, v in values.items()
        }
        line = {"kind": kind, "step": step, **values}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        if kind == "epoch" or step % 50 == 0:
            self._file.flush()
            for name, value in values.items():
                if isinstance(value, int | float):
                    told = {"tag": f"{kind}/{name}", "simple_value": value}
                    self._tell(step, summary={"value": [told]})
            self._board.flush()

    def _tell(self, step: int, **event: Any) -> None:
        """Writes a TensorBoard event."""
        from tensorboardX.proto.event_pb2 import Event

        self._board.write_event(Event(wall_time=time.time(), step=step, **event))

    def close(self) -> None:
        if self.silent:
            return
        self._file.close()
        self._board.close()


class Clock:
    """Training time without compilation and evaluation, summed over restarts."""

    def __init__(self, seconds: float = 0.0, targets: int = 0, share: float = 1.0):
        """Continues from what a checkpoint recorded; counts that share of the time."""
        self.seconds, self.targets, self._share = seconds, targets, share
        self._since: float | None = None

    @property
    def running(self) -> bool:
        return self._since is not None

    @property
    def rate(self) -> float:
        """Targets per second so far."""
        return self.targets / self.seconds if self.seconds else 0.0

    def start(self) -> None:
        """Begins to count; what has passed since the last lap is left out."""
        self._since = time.perf_counter()

    def lap(self, targets: int) -> None:
        """Counts the time since the last lap, or the start, and the targets of that time."""
        now = time.perf_counter()
        if self._since is not None:
            self.seconds += self._share * (now - self._since)
            self.targets += targets
            self._since = now

    def stop(self) -> None:
        """Ends the count; steps that ran ahead must be over, their time is counted here."""
        self.lap(0)
        self._since = None


class Pace:
    """Chooses how many updates one call makes: as many as take one or two seconds.

    The overhead of a call is then negligible, and a signal is acted on within that time. Runs that
    are computed together share one.
    """

    def __init__(self, most: int, runs: int = 1):
        """most: updates there is room for; runs: how many share the time."""
        self.together, self.share = 1, 1 / runs
        self._most = most

    def note(self, count: int, seconds: float) -> None:
        """Records that `count` updates took `seconds`. Of runs computed together, all report the
        same call; only the first report counts."""
        if seconds < 1.0 and count == self.together:
            self.together = min(2 * self.together, self._most)


def peak_memory() -> int:
    """Bytes that this process has held at most: of the first accelerator, else of the machine."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
