"""Kills training at random moments, many times, and compares what it comes to.

    scripts/test-kills [--kills=60] [--seed=0]

Each run is started, killed (SIGKILL) within 40 ms of a chosen event, and started again, until it
is through; then its parameters, metrics and result must be those of an undisturbed run, to the
last bit, and every step must be in its metrics once. Events: the start, an update, a checkpoint
and the best parameters being written, a validation, the evaluation at the end.
"""

import argparse
import collections
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

from conftest import lines_of, outcome, small, train, write_text

from rnnx import cache
from rnnx.experiment import Experiment
from rnnx.trainer import Trainer

EVENTS = {
    "start": ((Experiment, "__init__"), (Trainer, "__init__")),
    "update": ((Trainer, "settle"),),
    "checkpoint": ((Trainer, "save"),),
    "best": ((Trainer, "save_best"),),
    "validation": ((Trainer, "validate"),),
    "evaluation": ((Trainer, "finish"),),
}


def child(text: Path, folder: Path, told: int) -> None:
    """Trains to the end, telling of each event as it begins."""
    for event, methods in EVENTS.items():
        for owner, name in methods:
            method = getattr(owner, name)

            def telling(self, *args, method=method, event=event, **options):
                os.write(told, f"{event}\n".encode())
                return method(self, *args, **options)

            setattr(owner, name, telling)
    config = small(
        text, epochs=3, checkpoint_every=7, optimizer="adam", learning_rate=0.01, patience=1,
        snapshot_every=1,
    )  # fmt: skip
    train(config, folder)


def started(text: Path, folder: Path) -> tuple[int, int]:
    """A process that trains, and the pipe it tells its events through."""
    hear, tell = os.pipe()
    process = os.fork()
    if process:
        os.close(tell)
        return process, hear
    code = 1
    try:
        os.close(hear)
        child(text, folder, tell)
        code = 0
    except BaseException as error:
        print(f"{folder.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def to_its_end_or(process: int, hear: int, event: str, count: int, delay: float) -> bool:
    """Kills a process some time after the count-th such event; False if it ended before.

    Raises:
      RuntimeError: when it ended with an error.
    """
    data, deadline = b"", time.monotonic() + 300
    while data.split(b"\n").count(event.encode()) < count:
        ready, _, _ = select.select([hear], [], [], 1)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            raise RuntimeError("a run hangs")
        if ready and not (more := os.read(hear, 4096)):
            break
        data += more if ready else b""
    else:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    os.close(hear)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a run ended with an error")
    return os.WIFSIGNALED(status)


def state(folder: Path) -> dict:
    """The sums of all arrays in the newest checkpoint and in the best and each epoch's."""
    found = {}
    for kind in ("latest", "best", "epochs"):
        steps = sorted(int(path.name) for path in (folder / "checkpoints" / kind).iterdir())
        for step in steps if kind == "epochs" else steps[-1:]:
            path = folder / "checkpoints" / kind / str(step) / "values" / "metadata"
            stored = json.loads(path.read_text())
            values = {k: v for k, v in stored["values"].items() if k not in ("seconds", "targets")}
            values.pop("log_position", None)  # times take more or fewer digits
            found[kind, step] = stored["arrays"], values
    return found


def everything(folder: Path) -> tuple:
    """All that a run comes to, but for times."""
    result = json.loads((folder / "result.json").read_text())
    return state(folder), lines_of(folder), outcome(result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, begun = random.Random(options.seed), time.monotonic()
    killed: collections.Counter[str] = collections.Counter()
    runs, differing = 0, 0
    with tempfile.TemporaryDirectory() as place:
        os.environ["RNNX_CACHE"] = f"{place}/cache"
        cache.keep_compiled()
        text = write_text(Path(place) / "weather.txt")
        never = started(text, Path(place) / "undisturbed")
        to_its_end_or(*never, "never", 1, 0.0)
        expected = everything(Path(place) / "undisturbed")
        while killed.total() < options.kills:
            folder, through = Path(place) / f"run{runs}", False
            while not through:
                event = rng.choice(list(EVENTS)) if killed.total() < options.kills else "never"
                many = {"update": 12, "checkpoint": 4}.get(event, 1)
                moment = event, rng.randint(1, many), rng.uniform(0, 0.04)
                through = not to_its_end_or(*started(text, folder), *moment)
                if not through:
                    killed[event] += 1
                    print(f"{time.monotonic() - begun:6.0f} s  kill {killed.total()}: {event}")
            runs += 1
            got = everything(folder)
            for what, a, b in zip(("state", "metrics", "result"), got, expected, strict=True):
                if a != b:
                    differing += 1
                    print(f"{folder.name}: its {what} differs", file=sys.stderr)
    by_event = ", ".join(f"{n} {event}" for event, n in sorted(killed.items()))
    print(
        f"{killed.total()} kills ({by_event}) over {runs} runs, {differing} differences, "
        f"{time.monotonic() - begun:.0f} s"
    )
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
