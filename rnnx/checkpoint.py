"""State to disk and back, by orbax.

    checkpoints/latest/STEP/   everything a run needs to go on: state (arrays) and progress (JSON)
    checkpoints/best/STEP/     the parameters with the best valid score
    checkpoints/epochs/STEP/   the parameters at the end of epochs, where the run keeps them
    checkpoints/damaged/       what did not load, set aside when a run went on from an older one

A manager each rather than one with several policies: a checkpoint in mid-epoch has no valid score,
and each folder's name says what is in it. Writes go to a temporary name and are renamed. The JSON
holds sums of itself and of the arrays, which are checked whenever a checkpoint is read: the file
format finds truncated files, but not every bit that is flipped.
"""

import contextlib
import gc
import json
import os
import re
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from jax import Array
from jax.experimental import multihost_utils

from rnnx.errors import Outage, PeersLost, UserError, passing

logging.set_verbosity(logging.FATAL)  # orbax tells each save, and each failure in all its layers
warnings.filterwarnings("ignore", module="orbax")

FORMAT = 1  # of a checkpoint's JSON
_SPARES = 2  # checkpoints of a kind that are kept: the newest, and one to fall back to

to_stderr = partial(print, file=sys.stderr)


class Checkpoints:
    """The checkpoints of one workdir, for the run that writes them."""

    def __init__(self, folder: Path, say: Callable[[str], None] = to_stderr):
        """say: told, in one line, of damage that could be got around."""
        folder = Path(folder).absolute() / "checkpoints"
        self._folder, self._epochs, self._say = folder, None, say

        def manager(kind: str, kept: int) -> ocp.CheckpointManager:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(kept),
                cleanup_tmp_directories=True,
                # Over several processes the barriers of two saves in the background collide.
                enable_async_checkpointing=jax.process_count() == 1,
            )
            return ocp.CheckpointManager(folder / kind, options=options)

        self._latest = manager("latest", _SPARES)
        # Each `latest` has a best before it, and one more may have come behind the newest.
        self._best = manager("best", _SPARES + 1)

    def save_latest(self, step: int, state: Any, progress: dict) -> None:
        """Saves arrays and JSON values of a step, in the background; what stands stays.

        One of the same step makes way: an evaluation may have come between the two.

        Raises:
          Outage: when this one, or the one before, can't be written.
        """
        _wait(self._latest)
        if step in self._latest.all_steps():
            self._latest.delete(step)
        _save(self._latest, step, state, progress)

    def restore_latest(self, like: Any) -> tuple[Any, dict] | None:
        """The newest sound state and progress, or None. `like` gives shapes and shardings.

        Newer ones that do not load are set aside.

        Raises:
          UserError: when there are some, but none loads.
        """
        return self._restore(self._latest, like)

    def save_best(self, step: int, params: Any, info: dict) -> None:
        """Saves the best parameters, and returns when they are on disk."""
        _save(self._best, step, params, info)
        _wait(self._best)

    def save_epoch(self, step: int, params: Any, info: dict) -> None:
        """Keeps the parameters at the end of an epoch, for good."""
        if self._epochs is None:
            options = ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True, enable_async_checkpointing=False
            )
            self._epochs = ocp.CheckpointManager(self._folder / "epochs", options=options)
        _save(self._epochs, step, params, info)

    def restore_best(self, like: Any) -> tuple[Any, dict] | None:
        """The newest sound ones of the best parameters and their info, as `restore_latest`."""
        return self._restore(self._best, like)

    @property
    def has_best(self) -> bool:
        """Whether there are best parameters of any step."""
        return self._best.latest_step() is not None

    def best_info(self, like: Any) -> dict | None:
        """The info of the newest sound best parameters, or None; others are set aside."""
        try:
            found = self.restore_best(like)
        except Outage:
            raise
        except UserError as error:
            self._say(str(error))
            self._set_aside(self._best, self._best.all_steps())
            return None
        return found and found[1]

    def drop_best_after(self, step: int) -> None:
        """Drops best checkpoints of later steps: those a run wrote that was then rolled back."""
        for other in list(self._best.all_steps()):
            if other > step:
                self._best.delete(other)

    def close(self) -> None:
        """Waits until all is on disk.

        Raises:
          Outage: when something can't be written.
        """
        for manager in filter(None, (self._latest, self._best, self._epochs)):
            _wait(manager)
            manager.close()

    def _restore(self, manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict] | None:
        damaged: list[int] = []
        _wait(manager)
        found = _newest_sound(manager, like, self._say, damaged)
        self._set_aside(manager, damaged)
        return found

    def _set_aside(self, manager: ocp.CheckpointManager, steps: Iterable[int]) -> None:
        """Moves checkpoints where nothing reads them; they would be in the way of sound ones."""
        if not (steps := list(steps)):
            return
        place = self._folder / "damaged"
        if jax.process_index() == 0:
            place.mkdir(exist_ok=True)
            for step in steps:
                target = place / f"{manager.directory.name}-{step}"
                shutil.rmtree(target, ignore_errors=True)
                shutil.move(str(manager.directory / str(step)), target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        manager.reload()


def read_best(
    folder: Path, like: Any, say: Callable[[str], None] = to_stderr
) -> tuple[Any, dict] | None:
    """The newest sound best parameters of a workdir and their info, or None; changes nothing.

    A run may be training in it meanwhile: its unfinished writes are left alone.
    """
    with _reader(folder, "best") as manager:
        return _newest_sound(manager, like, say, []) if manager else None


def read_epochs(folder: Path, like: Any) -> Iterator[tuple[Any, dict]]:
    """The parameters that a workdir keeps of its epochs and their info, in order, one at a time.

    Raises:
      UserError: when one does not load.
    """
    with _reader(folder, "epochs") as manager:
        for step in sorted(manager.all_steps()) if manager else ():
            yield _load(manager, step, like)


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
    values = {"format": FORMAT, "arrays": fingerprint(arrays), "values": values}
    with _written(manager):
        manager.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays),
                values=ocp.args.JsonSave(values | {"sum": _sum(values)}),
            ),
            force=True,
        )


def _wait(manager: ocp.CheckpointManager) -> None:
    with _written(manager):
        manager.wait_until_finished()


@contextlib.contextmanager
def _written(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, AttributeError, AssertionError, NameError):
        raise  # a fault of ours
    except Exception as error:  # orbax raises whatever its layers do
        if jax.process_count() > 1 and re.search("barrier|gloo|coordination", str(error), re.I):
            raise PeersLost(_reason(error)) from error
        raise Outage(
            f"cannot write a checkpoint to {manager.directory} ({_reason(error)}): mend that, and "
            "the same command goes on from the one before"
        ) from error


def _newest_sound(
    manager: ocp.CheckpointManager, like: Any, say: Callable[[str], None], damaged: list[int]
) -> tuple[Any, dict] | None:
    """The newest checkpoint that loads; the steps of newer ones are added to damaged."""
    told: list[UserError] = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            found = _load(manager, step, like)
        except Outage:
            raise
        except UserError as error:
            told.append(error)
            damaged.append(step)
            continue
        for error in told:
            say(f"{error}: taking that of step {step:,}")
        return found
    if told:
        raise told[0]
    return None


def _load(manager: ocp.CheckpointManager, step: int, like: Any) -> tuple[Any, dict]:
    """A checkpoint's arrays and values, which are what was saved to the last bit.

    Raises:
      UserError: when they are not, or do not load at all.
      Outage: when that says nothing of them.
    """
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
    try:
        got = manager.restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(like), values=ocp.args.JsonRestore()
            ),
        )
        return got["arrays"], _checked(got["values"], got["arrays"])
    except Exception as error:  # orbax raises whatever its layers do
        reason = _reason(error)
        if passing(error):
            raise Outage(f"cannot read {manager.directory}/{step} ({reason})") from error
    _collect_quietly()
    raise UserError(f"checkpoint {manager.directory}/{step} does not load ({reason})")


def _checked(stored: dict, arrays: Any) -> dict:
    """The values in a checkpoint's JSON. Raises ValueError when a sum is not right."""
    if stored.get("format") != FORMAT:
        raise ValueError(f"its format is {stored.get('format')}, this version reads {FORMAT}")
    if stored.pop("sum", None) != _sum(stored) or stored["arrays"] != fingerprint(arrays):
        raise ValueError("its sums are not those of what it holds")
    return stored["values"]


def _collect_quietly() -> None:
    """A read that failed leaves coroutines behind, which complain when they are collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _reason(error: Exception) -> str:
    """The system's own words, if it was the system, else the head of what the layers say."""
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    return text.splitlines()[0][:200] if text else type(error).__name__


def _sum(values: dict) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def fingerprint(tree: Any) -> str:
    """16 hex digits of the bits of all arrays, wherever they lie, and of their places.

    Any one changed bit changes it.
    """
    return "".join(f"{int(part):08x}" for part in _fingerprint(jax.tree.leaves(tree)))


@jax.jit
def _fingerprint(arrays: list[Array]) -> tuple[Array, Array]:
    """Two sums modulo 2^32: of the words, each times an odd number of its place, which no single
    bit can leave as it is; and of the words mixed with their place, for all other damage."""
    first = second = jnp.uint32(0)
    for i, array in enumerate(arrays):
        kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32).ravel()
        place = jnp.arange(words.size, dtype=jnp.uint32) + jnp.uint32(i * 0x9E3779B1 % 2**32)
        first += jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
        second += jnp.sum(_mixed(words ^ _mixed(place)), dtype=jnp.uint32)
    return first, second


def _mixed(x: Array) -> Array:
    """A bijection of 32 bits in which each depends on all: the last rounds of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
