"""How runs stand while they are trained: what runs, what is finished, when the end is expected.

Only reads what runs and sweeps write, so it may run on any machine that sees the folder.
"""

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnx import workdir
from rnnx.errors import UserError
from rnnx.report.runs import Run, read_run

QUIET = 300.0  # seconds without a line or a checkpoint, after which a run is not said to run


@dataclass
class Stand:
    """A run and how it stands."""

    run: Run
    folder: Path
    state: str  # running, quiet, done, pruned or failed
    step: int  # updates done
    updates: int  # of all, 0: not known
    seconds: float  # of training, done
    silent: float  # seconds since the last sign of life
    took: float  # seconds by the clock from its first start to its end; 0 before that
    reason: str = ""  # of a failure

    @property
    def share(self) -> float:
        """Of all updates, those done."""
        if self.state == "done":
            return 1.0
        return min(self.step / self.updates, 1.0) if self.updates else 0.0

    @property
    def left(self) -> float | None:
        """Seconds of training until the end, at the pace so far; None where that is not known."""
        if self.state in ("done", "pruned", "failed"):
            return 0.0
        if not (self.share and self.seconds):
            return None
        return self.seconds / self.share * (1 - self.share)

    @property
    def best(self) -> float | None:
        """The best valid score so far: of a complete run, by the full protocol."""
        if "valid" in self.run.scores:
            return self.run.scores["valid"]
        return self.run.task.best(self.run.valid) if self.run.valid else None


@dataclass
class Overview:
    """The runs of a folder, and how many more there will be."""

    stands: list[Stand]
    elsewhere: Counter[str]  # states of a sweep's runs that have no folder here
    refused: list[tuple[str, str]]  # of those, the failed: names and reasons
    total: int
    now: float

    def count(self, *states: str) -> int:
        """Runs in these states."""
        here = sum(stand.state in states for stand in self.stands)
        return here + sum(self.elsewhere[state] for state in states)

    @property
    def waiting(self) -> int:
        """Runs that have not begun."""
        return max(self.total - len(self.stands) - self.elsewhere.total(), 0)

    @property
    def over(self) -> bool:
        """Whether nothing runs or waits."""
        return self.total > 0 and self.count("done", "pruned", "failed") >= self.total

    @property
    def left(self) -> float | None:
        """Seconds until the expected end: what is left, spread over what runs now."""
        known = [s.left for s in self.stands if s.state == "running"]
        if self.over:
            return 0.0
        if not known or None in known:
            return None
        spans = [s.took for s in self.stands if s.state == "done"] or [
            s.seconds + (s.left or 0.0) for s in self.stands if s.state == "running"
        ]
        whole = statistics.median(spans)  # one that was interrupted took longer
        running = self.count("running")
        return max(max(known), (sum(known) + self.waiting * whole) / running)

    def sentence(self) -> str:
        """`3 of 8 runs finished, 2 running, 1 quiet, 1 failed, 1 waiting`."""
        parts = [f"{self.count('done')} of {self.total} runs finished"]
        for state in ("running", "quiet", "pruned", "failed"):
            parts += [f"{count} {state}"] if (count := self.count(state)) else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        return ", ".join(parts)


def overview(paths: Sequence[Path]) -> Overview:
    """How the runs in folders stand now, in order of their names."""
    now = time.time()
    stands, elsewhere, planned = [], Counter(), 0
    told: dict[str, list[str]] = {}
    for file in (file for path in paths for file in path.rglob(workdir.SWEEP)):
        with contextlib.suppress(UserError, AttributeError, KeyError):
            sweep = workdir.read_json(file)
            for name, entry in sweep["trials"].items():
                told[str(file.parent / "trials" / name)] = entry
            planned += sweep["total"] - len(sweep["trials"])
    for folder in sorted({p.parent for path in paths for p in path.rglob("config.json")}):
        entry = told.pop(str(folder), None)
        with contextlib.suppress(UserError, OSError):  # just being made, or removed
            stands.append(_stand(folder, entry or ["", ""], now))
            # Begun since the sweep said so.
            planned -= entry is None and (folder.parent.parent / workdir.SWEEP).exists()
    elsewhere.update(state for state, _ in told.values())
    total = len(stands) + elsewhere.total() + max(planned, 0)
    refused = [(Path(name).name, why) for name, (state, why) in told.items() if state == "failed"]
    return Overview(stands, elsewhere, refused, total, now)


def _stand(folder: Path, told: Sequence[str], now: float) -> Stand:
    run = read_run(folder)
    about = workdir.read_json(folder / "run.json", workdir.FORMAT)
    places = ("run.json", "metrics.jsonl", "checkpoints", "checkpoints/latest", "result.json")
    signs = [(folder / place).stat().st_mtime for place in places if (folder / place).exists()]
    silent = max(now - max(signs), 0.0)
    state, reason = told
    if run.complete:
        state = "done"
    elif state not in ("pruned", "failed"):
        state = "running" if silent < QUIET else "quiet"
    step, at_epoch = _steps(folder / "metrics.jsonl")
    seconds = run.seconds[-1] * step / at_epoch if run.seconds and at_epoch else 0.0
    if step and not seconds:  # in its first epoch
        begun = (folder / "run.json").stat().st_mtime
        seconds = max((folder / "metrics.jsonl").stat().st_mtime - begun, 0.0)
    took = 0.0
    if run.complete:  # of the other files, each start may write anew
        first = [p for p in (folder / "vocabulary.json", folder / "spec.json") if p.exists()]
        took = max(max(signs) - min(p.stat().st_mtime for p in first), 0.0) if first else seconds
    return Stand(run, folder, state, step, about.get("updates", 0), seconds, silent, took, reason)


def _steps(path: Path) -> tuple[int, int]:
    """The last update in metrics, and the one at the end of the last whole epoch."""
    step = 0
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return 0, 0
    for line in reversed(lines):
        if step and b'"kind": "epoch"' not in line:
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):  # one that is being written
            found = json.loads(line)
            step = step or found["step"]
            if found["kind"] == "epoch":
                return step, found["step"]
    return step, 0
