"""Where a run stands, and how it gets back there from its checkpoints."""

import dataclasses
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rnnx import workdir
from rnnx.checkpoint import Checkpoints
from rnnx.errors import UserError
from rnnx.tasks.task import Sums, Task

FORMAT = 2  # of Progress


@dataclasses.dataclass
class Progress:
    """Where a run stands: what it needs, beside its arrays, to continue. Plain JSON."""

    step: int = 0  # updates done
    epoch: int = 0
    batch: int = 0  # batches of this epoch done
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # training's, over them
    skipped: int = 0  # batches passed over
    skipped_in_a_row: int = 0
    best: float | None = None  # primary score of valid, by the batched protocol
    best_step: int = 0
    bad_epochs: int = 0  # epochs since the best, or since the last halving
    halvings: int = 0  # of the learning rate
    seconds: float = 0.0  # of training, without compilation and evaluation
    targets: int = 0  # that those seconds were spent on
    log_position: int = 0  # bytes of metrics.jsonl

    def add(self, sums: Sums) -> None:
        """Adds the sums of an update to those of the epoch."""
        for name, (total, count) in sums.items():
            before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = [before[0] + float(total), before[1] + float(count)]

    def to_json(self) -> dict:
        """What a checkpoint holds."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, stored: dict, targets_per_batch: float) -> "Progress":
        """The progress that `to_json` gave, or a version before it.

        Args:
          targets_per_batch: format 1 did not count the targets of its sums.

        Raises:
          UserError: on anything else.
        """
        values = dict(stored)
        version = values.pop("format", 1)
        if version == 1:
            values = _from_format_1(values, targets_per_batch)
        known = {field.name for field in dataclasses.fields(cls)}
        if version not in (1, FORMAT) or values.keys() != known:
            raise UserError(
                f"the checkpoint's progress has another format ({version!r}) than this version of "
                f"rnnx reads ({FORMAT}): continue the run with the version that began it"
            )
        return cls(**values)


class Saver:
    """Writes a run's checkpoints: at the ends of epochs at most every few seconds, and within an
    epoch every few minutes.

    Epochs of small data take milliseconds, a checkpoint takes tens of them; those of large data
    take hours, which a power cut must not cost. Best parameters are held until the next checkpoint,
    so that the two always agree.
    """

    SECONDS = 5.0  # at least between the ends of epochs that are saved
    MINUTES = 10.0  # at most between two checkpoints

    def __init__(self, checkpoints: Checkpoints, step: int, always: bool):
        """step: of the checkpoint there is; always: save at every end of an epoch, and within one
        only when told to."""
        self.checkpoints, self.step, self._always = checkpoints, step, always
        self._saved = monotonic()
        self._best: tuple[int, Any, dict] | None = None

    @property
    def due(self) -> bool:
        """Whether the end of an epoch is to be saved."""
        return self._always or monotonic() - self._saved >= self.SECONDS

    @property
    def late(self) -> bool:
        """Whether the middle of an epoch is to be saved."""
        return not self._always and monotonic() - self._saved >= 60 * self.MINUTES

    def hold_best(self, step: int, params: Any, info: dict) -> None:
        """Keeps parameters, to be written with the next checkpoint."""
        # The trainer's own arrays are donated to the next update.
        self._best = step, jax.tree.map(jnp.copy, params), info

    def write_best(self) -> None:
        """Writes the parameters that are held, if there are any."""
        if self._best is not None:
            self.checkpoints.save_best(*self._best)
            self._best = None

    def write(self, step: int, state: Any, progress: Progress) -> None:
        """Writes everything that the run needs to continue."""
        self.write_best()
        self.checkpoints.save_latest(step, state, progress.to_json())
        self.step, self._saved = step, monotonic()

    def roll_back(self, step: int) -> None:
        """Forgets what came after the checkpoint of a step."""
        self._best, self.step = None, step


def _from_format_1(values: dict, targets_per_batch: float) -> dict:
    """Progress as it was while every task was the next symbol of a text."""
    names = {"window": "batch", "best_nll": "best", "tokens": "targets"}
    values = {names.get(name, name): value for name, value in values.items()}
    nats, done = values.pop("nats", 0.0), values.get("batch", 0) - values.get("skipped", 0)
    values["sums"] = {"nll": [nats, done * targets_per_batch]} if done > 0 else {}
    if not values.get("best_step"):
        values["best"] = None
    return values


def resume(
    checkpoints: Checkpoints, folder: Path, like: Any, targets_per_batch: float
) -> tuple[Any, Progress] | None:
    """State and progress of the newest sound checkpoint; None if the run has not begun.

    Raises:
      UserError: when none loads, or it is gone though the run had come further.
    """
    found = load(checkpoints, like, targets_per_batch)
    if found is None and (checkpoints.has_best or (folder / "result.json").exists()):
        raise UserError(
            f"{folder}/checkpoints/latest is gone, but the run had come further: bring it back, "
            "or choose another --workdir"
        )
    return found


def load(
    checkpoints: Checkpoints, like: Any, targets_per_batch: float
) -> tuple[Any, Progress] | None:
    """State and progress of the newest sound checkpoint, or None."""
    found = checkpoints.restore_latest(like)
    return found and (found[0], Progress.from_json(found[1], targets_per_batch))


def agree(checkpoints: Checkpoints, task: Task, progress: Progress, like: Any) -> None:
    """Makes the kept best and the kept epochs match the restored step.

    Not for a run that is complete: the parameters at its end, if it was stopped in mid-epoch,
    competed for the best, and no checkpoint says so.
    """
    checkpoints.drop_after(progress.step, progress.best_step)
    if not progress.best_step:
        return
    info = checkpoints.best_info(like)
    if info is None or info["step"] != progress.best_step:
        # The best is damaged: an older one takes its place, or the next epoch's.
        progress.best = info["valid"][task.primary] if info else None
        progress.best_step = info["step"] if info else 0


def result(folder: Path, config: ConfigDict) -> dict | None:
    """What `result.json` of a run holds; None where it lacks a score that the config asks for."""
    path = folder / "result.json"
    found = workdir.read_json(path, workdir.FORMAT) if path.exists() else {}
    return found if "test" in found or (found and not config.score_test) else None
