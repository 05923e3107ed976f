"""Rivals run in processes of their own and take turns.

Each has its own threads, memory and compiler, and sleeps while another works. With one turn each,
round after round, noise of the machine affects all alike.
"""

import importlib
import itertools
import multiprocessing
import os
import resource
import sys
import time
import traceback
from typing import Any

_READY_SECONDS = 900.0
_COMPARED = 4  # numbers


class Rival:
    """One way to do a piece of work, in its own process.

    Attributes:
      name: for the table.
      failed: why it can't take part, or None.
      first_seconds: of building, compiling and the first call, after imports.
      told: the first numbers that its calls returned, to compare: losses, logits, tokens.
      seconds: per unit of work, one value a turn; or one a call.
      peak_bytes: most memory held; known once closed.
    """

    def __init__(
        self,
        name: str,
        target: str,
        *arguments: Any,
        units: int = 1,
        each: bool = False,
        environment: dict[str, str] | None = None,
        **options: Any,
    ):
        """Starts the process.

        Args:
          target: `module.function`; called with arguments and options it gives the call to time.
          units: of work in a call.
          each: note the seconds of every call, not their mean.
          environment: variables set in the process before anything is imported.
        """
        self.name, self.units, self.failed = name, units, None
        self.seconds: list[float] = []
        self.first_seconds = self.told = self.peak_bytes = None
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        job = target, arguments, options, each
        # JAX and PyTorch may share a GPU here: neither takes it all.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | (environment or {})
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # a spawned process gets it at its very start
        try:
            self._process = context.Process(target=_serve, args=(child, job), daemon=True)
            self._process.start()
        finally:
            for variable, value in before.items():
                if value is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = value
        child.close()

    def await_ready(self) -> None:
        """Waits for the first call; sets failed when there is none."""
        answer = self._ask(_READY_SECONDS)
        if answer is not None:
            self.first_seconds, self.told = answer

    def turn(self, least_seconds: float = 0.2) -> None:
        """Calls at least once and for so long; notes the mean seconds of a unit."""
        if self.failed is None and (answer := self._ask(_READY_SECONDS, least_seconds)):
            self.seconds += [seconds / self.units for seconds in answer]

    def close(self) -> None:
        """Ends the process."""
        if self.failed is None:
            self.peak_bytes = self._ask(60.0, None)
        self._process.join(10)
        self._process.kill()

    def _ask(self, seconds: float, *order: float | None) -> Any:
        """The answer to an order, or to none, within so many seconds; None where it fails."""
        try:
            for word in order:
                self._pipe.send(word)
            if not self._pipe.poll(seconds):
                self.failed = f"no answer in {seconds:.0f} s"
                return None
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            kind, answer = "failed", "its process died"
        if kind == "failed":
            self.failed = answer
            return None
        return answer


def _serve(pipe: Any, job: tuple) -> None:
    target, arguments, options, each = job
    try:
        module, function = target.rsplit(".", 1)
        build = getattr(importlib.import_module(module), function)
        begun = time.perf_counter()
        call = build(*arguments, **options)
        told = call()
        first_seconds = time.perf_counter() - begun
        while len(told) < _COMPARED:
            told += call()
        pipe.send(("ready", (first_seconds, told[:_COMPARED])))
        while (least := pipe.recv()) is not None:
            times = [time.perf_counter()]
            while times[-1] - times[0] < least or len(times) == 1:
                call()
                times.append(time.perf_counter())
            ends = times if each else [times[0], times[-1]]
            calls = 1 if each else len(times) - 1
            pipe.send(("time", [(b - a) / calls for a, b in itertools.pairwise(ends)]))
        pipe.send(("peak", _peak_bytes()))
    except ModuleNotFoundError as error:
        pipe.send(("failed", f"{error.name} is not installed"))
    except Exception as error:
        traceback.print_exc()
        pipe.send(("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"))


def _peak_bytes() -> int:
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.max_memory_allocated()
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_turns(rivals: list[Rival], turns: int, display: Any) -> None:
    """Waits until all are ready, and lets each work once a turn."""
    for rival in rivals:
        rival.await_ready()
    for turn in range(turns):
        for rival in rivals:
            rival.turn()
        display.update(turn + 1)
    display.finish()
