"""What a run measures and keeps: scores, `metrics.jsonl`, TensorBoard events, time."""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.batches import Pieces
from rnnx.duration import duration as duration
from rnnx.errors import UserError

# What a score is given in, by level.
UNITS = {
    "word": "perplexity",
    "char": "bits per character",
    "byte": "bits per byte",
    "roll": "nats a step",
}


@dataclass(frozen=True)
class Score:
    """Sum of nats over a count of targets, divided once.

    ppl = exp(nll), bpc = nll / ln 2 with nll the mean in nats: per word, per character, or per
    step of a piano roll, whichever the tokens are.
    """

    nats: float
    tokens: int

    @property
    def nll(self) -> float:
        return self.nats / self.tokens

    @property
    def ppl(self) -> float:
        return math.exp(self.nll) if self.nll < 700 else math.inf

    @property
    def bpc(self) -> float:
        return self.nll / math.log(2)

    def to_dict(self) -> dict[str, float | int]:
        return {"nll": self.nll, "ppl": self.ppl, "bpc": self.bpc, "tokens": self.tokens}

    def in_unit(self, level: str) -> float:
        """The score in the unit of the level, one of `UNITS`."""
        return {"word": self.ppl, "roll": self.nll}.get(level, self.bpc)

    def show(self, level: str) -> str:
        """The score in the unit of the level: perplexity of words, bits of symbols, nats."""
        if level == "word":
            return f"ppl {self.ppl:,.2f}"
        if level == "roll":
            return f"nats a step {self.nll:.4f}"
        return f"{'bpc' if level == 'char' else 'bits per byte'} {self.bpc:.4f}"


def uniform(level: str, vocab_size: int) -> Score:
    """The score of knowing nothing: every symbol alike, every key on or off."""
    return Score(vocab_size * math.log(2) if level == "roll" else math.log(vocab_size), 1)


def unigram(train: Any, scored: Any, vocab_size: int) -> Score:
    """The score of the training split's frequencies (add-one), of symbols or of keys, on another
    split."""
    if isinstance(scored, Pieces):
        p = (train.frames.sum(axis=0) + 1.0) / (len(train) + 2.0)
        x = np.concatenate([piece[1:] for piece in scored.pieces])
        return Score(float(-np.sum(x * np.log(p) + (1 - x) * np.log(1 - p))), scored.targets)
    counts = _counts(train, vocab_size) + 1.0
    nats = _counts(scored[1:], vocab_size) @ -np.log(counts / counts.sum())
    return Score(float(nats), len(scored) - 1)


def _counts(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each symbol comes; some MB at a time, as bincount makes them 8 bytes each."""
    counts, step = np.zeros(vocab_size, np.int64), 1 << 22
    for i in range(0, len(tokens), step):
        counts += np.bincount(tokens[i : i + step], minlength=vocab_size)
    return counts


class Log:
    """`metrics.jsonl`, one JSON object a line, mirrored to TensorBoard events.

    Lines with "kind": "step" hold what every update gave, "epoch" what every epoch did. Times
    are in epoch lines only, so step lines of equal runs are equal.
    """

    def __init__(self, folder: Path, position: int = 0, step: int = 0, silent: bool = False):
        """Continues the file at byte `position`, the place a checkpoint of `step` recorded.

        A silent log writes nothing: that of every process but the first.

        Raises:
          UserError: when the file is shorter than that.
        """
        self.silent = silent
        if silent:
            return
        # Not SummaryWriter: its thread dies of a full disk, and adding to its queue then hangs.
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
        if step:  # what was told of later steps is void
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
        # JSON has neither inf nor nan, which the numbers of a diverged network are.
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
        """TensorBoard of something at a step."""
        from tensorboardX.proto.event_pb2 import Event

        self._board.write_event(Event(wall_time=time.time(), step=step, **event))

    def close(self) -> None:
        if self.silent:
            return
        self._file.close()
        self._board.close()


class Clock:
    """Training time without compilation and evaluation, summed over restarts.

    The first step of a process compiles: it counts neither as time nor as tokens.
    """

    def __init__(self, seconds: float = 0.0, tokens: int = 0):
        """Continues from what a checkpoint recorded."""
        self.seconds, self.tokens = seconds, tokens
        self._compiled = False
        self._since: float | None = None

    @property
    def running(self) -> bool:
        return self._since is not None

    @property
    def rate(self) -> float:
        """Tokens per second so far."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def start(self) -> None:
        """Begins to count, unless the first step is still to come."""
        if self._compiled:
            self._since = time.perf_counter()

    def lap(self, tokens: int) -> float | None:
        """Counts the tokens of a call and the time since the last, which it returns.

        Starts after the first call, which gives None.
        """
        now, seconds = time.perf_counter(), None
        if self._since is not None:
            seconds = now - self._since
            self.seconds += seconds
            self.tokens += tokens
        if tokens:
            self._compiled = True
        self._since = now
        return seconds

    def stop(self) -> None:
        """Ends the count; steps that ran ahead must be over, their time is counted here."""
        self.lap(0)
        self._since = None
