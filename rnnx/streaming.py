"""Speech to symbols as the sound comes in, by a network that reads forward only."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx import model
from rnnx.data import sound, speech
from rnnx.data.series import Scaling
from rnnx.errors import UserError
from rnnx.tasks.transcripts import spelled
from rnnx.trained import Run

PIECE = 0.1  # seconds of sound that are taken at once
_REACH = 4  # frames before and after one that its deltas of deltas depend on


class Listener:
    """What is said in one stream of sound, symbol by symbol.

    The symbols are those of the most probable path (`decoding.greedy`), whatever the pieces that
    the sound comes in. A step is known when the four frames after it are, for the sake of its
    deltas: 40 ms of sound beyond those of the step itself and of its window.
    """

    def __init__(self, run: Run):
        """Raises UserError when run is a network that needs the whole utterance."""
        if run.config.bidirectional:
            raise UserError(
                f"{run.folder} reads backward too, so it needs the whole sound: train with "
                "--config.bidirectional=False to stream"
            )
        if run.spec["scale_by"] != "train":
            raise UserError(
                f"{run.folder} scales sound by that of its whole {run.spec['scale_by']}: train "
                "with --config.scale_by=train to stream"
            )
        self.rate = run.spec["sample_rate"]
        self._scaling = Scaling.from_json(run.spec["scaling"])
        self._stack = run.spec["frame_stack"]
        self._step = partial(jax.jit(partial(_step, run.graphdef)), run.params)
        self._zero = run.net.stack.zero_carry(1)
        # The first call compiles.
        jax.block_until_ready(self._step(np.zeros(len(self._scaling.mean), np.float32), self._zero))
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self._bands, self._carries, self._before = sound.Bands(self.rate), self._zero, speech.BLANK
        # Frames still needed, how many of them are before the first that is not known yet, and
        # frames with deltas that do not fill a step yet.
        self._frames, self._known = np.zeros((0, sound.BANDS), np.float32), 0
        self._waiting = np.zeros((0, 3 * sound.BANDS))

    def hear(self, samples: np.ndarray) -> list[int]:
        """The symbols that are new with these samples (N,), at the rate `rate`."""
        self._frames = np.concatenate([self._frames, self._bands.hear(samples)])
        return self._read(len(self._frames) - _REACH)

    def end(self) -> list[int]:
        """The symbols that are left when no sound follows."""
        return self._read(len(self._frames), last=True)

    def _read(self, stop: int, last: bool = False) -> list[int]:
        """The symbols of frames up to stop."""
        if stop > self._known:
            deltas = speech.with_deltas(self._frames)[self._known : stop]
            self._waiting = np.concatenate([self._waiting, deltas])
            gone = max(stop - _REACH, 0)
            self._frames, self._known = self._frames[gone:], stop - gone
        count = len(self._waiting) if last else len(self._waiting) // self._stack * self._stack
        ready, self._waiting = self._waiting[:count], self._waiting[count:]
        steps = speech.joined(ready, self._stack) if count else []
        found = []
        for xs in steps:
            best, self._carries = self._step(
                self._scaling.apply(xs).astype(np.float32), self._carries
            )
            best = int(best)
            if best not in (speech.BLANK, self._before):
                found.append(best)
            self._before = best
        return found


def _step(graphdef: Any, params: dict, xs: Any, carries: Any) -> tuple[Any, Any]:
    """The most probable symbol after one more step (F,), and the state."""
    net = model.merge(graphdef, params)
    ys, carries = net.outputs(jnp.asarray(xs)[None, None], carries)
    return jnp.argmax(net.project(ys)[0, 0]), carries


def of_samples(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """Samples (N,) in pieces of `PIECE` seconds."""
    size = round(PIECE * rate)
    return (samples[i : i + size] for i in range(0, len(samples), size))


def of_stream(stream: BinaryIO, rate: int) -> Iterator[np.ndarray]:
    """Samples of one channel, 16 bits each, little-endian, as they come in."""
    while data := stream.read(2 * round(PIECE * rate)):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768


class Pace(NamedTuple):
    """How fast a stream was heard: seconds of sound, of work, and the longest work on a piece."""

    sound: float
    work: float
    longest: float

    def __str__(self) -> str:
        factor = self.work / self.sound if self.sound else 0.0
        return (
            f"{self.sound:.1f} s of sound in {self.work:.2f} s: real-time factor {factor:.3f}, "
            f"longest wait {1000 * self.longest:.0f} ms for {1000 * PIECE:.0f} ms of sound"
        )


def listen(
    listener: Listener, pieces: Iterable[np.ndarray], spec: dict, write: Callable[[str], None]
) -> Pace:
    """Writes what is said in pieces of sound, each symbol as soon as it is known."""
    count, spent, first = 0, [], True
    listener.begin()
    for piece in itertools.chain(pieces, [None]):
        began = time.perf_counter()
        found = listener.end() if piece is None else listener.hear(piece)
        spent.append(time.perf_counter() - began)
        count += 0 if piece is None else len(piece)
        for symbol in found:
            gap = " " if spec["labels"] == "phone" and not first else ""
            write(gap + spelled([symbol], spec["symbols"], spec["labels"]))
            first = False
    return Pace(count / listener.rate, sum(spent), max(spent))
