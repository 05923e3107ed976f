"""State to disk and back, by orbax.

    checkpoints/latest/STEP/   everything a run needs to go on: state (arrays) and progress (JSON)
    checkpoints/best/STEP/     the parameters with the best valid score
    checkpoints/epochs/STEP/   the parameters at the end of epochs, where the run keeps them

A manager each rather than one with several policies: a checkpoint in mid-epoch has no valid score,
and each folder's name says what is in it. Writes go to a temporary name and are renamed.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from rnnx.errors import UserError

logging.set_verbosity(logging.ERROR)  # orbax tells each save in several lines
warnings.filterwarnings("ignore", module="orbax")


class Checkpoints:
    """The checkpoints of one workdir, for the run that writes them."""

    def __init__(self, folder: Path):
        folder = Path(folder).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            cleanup_tmp_directories=True,
            # Over several processes the barriers of two saves in the background collide.
            enable_async_checkpointing=jax.process_count() == 1,
        )
        self._latest = ocp.CheckpointManager(folder / "latest", options=options)
        self._best = ocp.CheckpointManager(folder / "best", options=options)
        self._folder, self._epochs = folder, None

    def save_latest(self, step: int, state: Any, progress: dict) -> None:
        """Saves arrays and JSON values of a step, in the background; what stands stays."""
        _save(self._latest, step, state, progress)

    def restore_latest(self, like: Any) -> tuple[Any, dict] | None:
        """The newest state and progress, or None. `like` gives shapes and shardings."""
        return _restore(self._latest, like)

    def save_best(self, step: int, params: Any, info: dict) -> None:
        """Saves the best parameters, and returns when they are on disk."""
        _save(self._best, step, params, info)
        self._best.wait_until_finished()

    def save_epoch(self, step: int, params: Any, info: dict) -> None:
        """Keeps the parameters at the end of an epoch, for good."""
        if self._epochs is None:
            options = ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True, enable_async_checkpointing=False
            )
            self._epochs = ocp.CheckpointManager(self._folder / "epochs", options=options)
        _save(self._epochs, step, params, info)

    def restore_best(self, like: Any) -> tuple[Any, dict] | None:
        """The newest of the best parameters and their info, or None."""
        return _restore(self._best, like)

    @property
    def has_best(self) -> bool:
        """Whether there are best parameters of any step."""
        return self._best.latest_step() is not None

    def keep_best(self, step: int) -> None:
        """Drops best checkpoints of other steps: those a run wrote that was then rolled back."""
        for other in list(self._best.all_steps()):
            if other != step:
                self._best.delete(other)

    def close(self) -> None:
        """Waits until all is on disk."""
        self._latest.close()
        self._best.close()
        if self._epochs is not None:
            self._epochs.close()


def read_best(folder: Path, like: Any) -> tuple[Any, dict] | None:
    """The best parameters of a workdir and their info, or None; changes nothing there.

    A run may be training in it meanwhile: its unfinished writes are left alone.
    """
    with _reader(folder, "best") as manager:
        return _restore(manager, like) if manager else None


def read_epochs(folder: Path, like: Any) -> Iterator[tuple[Any, dict]]:
    """The parameters that a workdir keeps of its epochs and their info, in order, one at a time."""
    with _reader(folder, "epochs") as manager:
        for step in sorted(manager.all_steps()) if manager else ():
            yield _restore(manager, like, step)


@contextlib.contextmanager
def _reader(folder: Path, kind: str) -> Iterator[ocp.CheckpointManager | None]:
    folder = Path(folder).absolute() / "checkpoints" / kind
    if not folder.is_dir() or not any(path.name.isdigit() for path in folder.iterdir()):
        yield None  # orbax makes a poor reader of an empty folder
        return
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(folder, options=options) as manager:
        yield manager


def _save(manager: ocp.CheckpointManager, step: int, arrays: Any, values: dict) -> None:
    if step in manager.all_steps():  # a rolled-back run comes by again, with the same numbers
        return
    manager.save(
        step,
        args=ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), values=ocp.args.JsonSave(values)
        ),
        force=True,
    )


def _restore(
    manager: ocp.CheckpointManager, like: Any, step: int | None = None
) -> tuple[Any, dict] | None:
    step = manager.latest_step() if step is None else step
    if step is None:
        return None
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
    try:
        got = manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), values=ocp.args.JsonRestore()
            ),
        )
    except Exception as error:  # orbax raises whatever its layers do
        others = sorted(set(manager.all_steps()) - {step})
        older = f"; remove it to go back to step {others[-1]}" if others else ""
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"checkpoint {manager.directory}/{step} does not load{older} ({reason})"
        ) from error
    return got["arrays"], got["values"]
