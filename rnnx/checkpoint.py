"""State to disk and back, by orbax.

    checkpoints/latest/STEP/   everything a run needs to resume: state (arrays), progress (JSON)
    checkpoints/best/STEP/     the parameters with the best valid score
    checkpoints/epochs/STEP/   the parameters at the end of epochs, if the run keeps them
    checkpoints/damaged/       damaged ones, moved there when a run resumed from an older one

Each folder has its own manager: a checkpoint within an epoch has no valid score, and the folder's
name says what it holds. Writes go to a temporary name and are renamed. The JSON holds the layout of
the arrays (names, types, shapes) and checksums of itself and of the arrays. They are compared
whenever a checkpoint is read, because orbax finds truncated files but not every flipped bit. A
checkpoint that is not what was saved is damaged, and an older one takes its place. One that is, but
of another model or format, is refused, and no file is moved.
"""

import contextlib
import gc
import json
import os
import re
import shutil
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array
from jax.experimental import multihost_utils

from rnnx.errors import Outage, PeersLost, UserError, passing

FORMAT = 1  # of a checkpoint's JSON
_SPARES = 2  # checkpoints of a kind that are kept: the newest, and one to fall back to

to_stderr = partial(print, file=sys.stderr)


class Damaged(UserError):
    """A checkpoint that does not load, or not as it was saved."""


class Checkpoints:
    """The checkpoints of one workdir, for the run that writes them."""

    def __init__(self, folder: Path, say: Callable[[str], None] = to_stderr):
        """say: prints a line about each damaged checkpoint that an older one replaces."""
        folder = Path(folder).absolute() / "checkpoints"
        self._folder, self._say = folder, say
        self._latest = self._manager("latest", _SPARES)
        # Each `latest` has a best before it, and one more may be newer than both.
        self._best = self._manager("best", _SPARES + 1)
        # Most runs keep no epochs, and have no folder for them.
        self._epochs = self._manager("epochs") if (folder / "epochs").is_dir() else None

    def save_latest(self, step: int, state: Any, progress: dict) -> None:
        """Saves arrays and JSON values of a step in the background.

        It replaces one of the same step: there may have been an evaluation between the two.

        Raises:
          Outage: when this one, or the one before, can't be written.
        """
        _wait(self._latest)
        if step in self._latest.all_steps():
            self._latest.delete(step)
        _save(self._latest, step, state, progress)

    def restore_latest(self, like: Any) -> tuple[Any, dict] | None:
        """The newest sound state and progress, or None if none was saved.

        Newer ones that are damaged are moved to `damaged`.

        Args:
          like: arrays, or their shapes and types, with shardings.

        Raises:
          Damaged: when all are.
          UserError: when the newest sound one is of another model or format.
          Outage: when the system fails to read one.
        """
        return self._restore(self._latest, like)

    def save_best(self, step: int, params: Any, info: dict) -> None:
        """Saves the best parameters, and returns when they are on disk."""
        _save(self._best, step, params, info)
        _wait(self._best)

    def save_epoch(self, step: int, params: Any, info: dict) -> None:
        """Saves the parameters at the end of an epoch; all epochs are kept."""
        self._epochs = self._epochs or self._manager("epochs")
        _save(self._epochs, step, params, info)
        _wait(self._epochs)

    def restore_best(self, like: Any) -> tuple[Any, dict] | None:
        """The newest sound best parameters and their info; details as in `restore_latest`."""
        return self._restore(self._best, like)

    @property
    def has_best(self) -> bool:
        """Whether there are best parameters of any step."""
        return self._best.latest_step() is not None

    def best_info(self, like: Any) -> dict | None:
        """The info of the newest sound best parameters, or None; damaged ones are moved away.

        Raises:
          UserError: when they are of another model or format. No file is moved then.
        """
        try:
            found = self.restore_best(like)
        except Damaged as error:
            self._say(str(error))
            self._set_aside(self._best, self._best.all_steps())
            return None
        return found and found[1]

    def drop_newest(self) -> bool:
        """Deletes the newest latest checkpoint, unless there is no other; whether it did."""
        _wait(self._latest)
        *older, newest = sorted(self._latest.all_steps())
        if older:
            self._latest.delete(newest)
        return bool(older)

    def drop_after(self, step: int, best_step: int) -> None:
        """Deletes what was written before the run was rolled back: later epochs, later bests."""
        for manager, last in ((self._best, best_step), (self._epochs, step)):
            for other in list(manager.all_steps()) if manager else ():
                if other > last:
                    manager.delete(other)

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          Outage: when something can't be written.
        """
        for manager in filter(None, (self._latest, self._best, self._epochs)):
            _wait(manager)
            manager.close()

    def _manager(self, kind: str, kept: int | None = None) -> ocp.CheckpointManager:
        """The manager of one kind of checkpoint; keeps the newest `kept`, or all if None."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(kept),
            cleanup_tmp_directories=True,
            # Over several processes the barriers of two saves in the background collide.
            enable_async_checkpointing=jax.process_count() == 1,
        )
        return _opened(self._folder / kind, options)

    def _restore(self, manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict] | None:
        damaged: list[int] = []
        _wait(manager)
        found = _newest_sound(manager, like, self._say, damaged)
        self._set_aside(manager, damaged)
        return found

    def _set_aside(self, manager: ocp.CheckpointManager, steps: Iterable[int]) -> None:
        """Moves checkpoints to `damaged`, so that sound ones of the same steps can be saved."""
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
    """The newest sound best parameters of a workdir and their info, or None; changes no file.

    A run may be training in the workdir: its unfinished writes are left alone.

    Raises:
      Damaged, UserError, Outage: as `Checkpoints.restore_latest`.
    """
    with _reader(folder, "best") as manager:
        return _newest_sound(manager, like, say, []) if manager else None


def read_epochs(folder: Path, like: Any) -> Iterator[tuple[Any, dict]]:
    """The parameters saved at the end of epochs and their info, in order, one at a time.

    Raises:
      Damaged, UserError, Outage: as `Checkpoints.restore_latest`, but older ones take no place.
    """
    with _reader(folder, "epochs") as manager:
        for step in sorted(manager.all_steps()) if manager else ():
            yield _load(manager, step, like)


@contextlib.contextmanager
def _reader(folder: Path, kind: str) -> Iterator[ocp.CheckpointManager | None]:
    folder = Path(folder).absolute() / "checkpoints" / kind
    if not folder.is_dir() or not any(path.name.isdigit() for path in folder.iterdir()):
        yield None  # orbax fails to open an empty folder for reading
        return
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, enable_async_checkpointing=False
    )
    with _opened(folder, options) as manager:
        yield manager


def _opened(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    try:
        return ocp.CheckpointManager(folder, options=options)
    except ValueError as error:  # a metadata file that orbax never writes
        raise UserError(
            f"{folder} can't be opened ({_reason(error)}): one of its checkpoints has foreign "
            "files; move that one away"
        ) from error


def _save(manager: ocp.CheckpointManager, step: int, arrays: Any, values: dict) -> None:
    if step in manager.all_steps():  # a resumed run repeats the step with the same numbers
        return
    values = {
        "format": FORMAT,
        "layout": layout(arrays),
        "arrays": fingerprint(arrays),
        "values": values,
    }
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
            f"cannot write a checkpoint to {manager.directory} ({_reason(error)}): once it can, "
            "the same command resumes from the one before"
        ) from error


def _newest_sound(
    manager: ocp.CheckpointManager, like: Any, say: Callable[[str], None], damaged: list[int]
) -> tuple[Any, dict] | None:
    """The newest sound checkpoint; the steps of newer ones are added to damaged."""
    told: list[Damaged] = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            found = _load(manager, step, like)
        except Damaged as error:
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
    """A checkpoint's arrays and values, as they were saved to the last bit.

    Raises:
      Damaged: when they are not what was saved, or can't be read.
      UserError: when they are, but of another format, or of arrays other than those of like.
      Outage: when the system fails to read them.
    """
    place = f"checkpoint {manager.directory}/{step}"
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
    stored = _read(manager, step, "values", ocp.args.JsonRestore())
    if not isinstance(stored, dict) or stored.pop("sum", None) != _sum(stored):
        raise Damaged(f"{place} does not load (its JSON is not what was saved)")
    if (found := stored.get("format")) != FORMAT:
        raise UserError(f"{place} has format {found}; this version of rnnx reads format {FORMAT}")
    # Earlier versions wrote no layout.
    if differing := _difference(stored.get("layout", layout(like)), layout(like)):
        raise UserError(f"{place} is not of this model: {differing}")
    arrays = _read(manager, step, "arrays", ocp.args.StandardRestore(like))
    if stored["arrays"] != fingerprint(arrays):
        raise Damaged(f"{place} does not load (its arrays are not what was saved)")
    return arrays, stored["values"]


def _read(manager: ocp.CheckpointManager, step: int, item: str, how: Any) -> Any:
    """One item of a checkpoint. Raises as `_load`; other errors, ours, are raised unchanged."""
    try:
        return manager.restore(step, args=ocp.args.Composite(**{item: how}))[item]
    except Exception as error:
        reason = _reason(error)
        if passing(error):
            raise Outage(f"cannot read {manager.directory}/{step} ({reason})") from error
        if not _tells_damage(error):
            raise
    _collect_quietly()
    raise Damaged(f"checkpoint {manager.directory}/{step} does not load ({reason})")


def _tells_damage(error: Exception) -> bool:
    """Whether an error of `restore` is one that damaged files cause, by experiment.

    tensorstore and JSON raise ValueError, or OSError for a file that is missing; orbax wraps some
    in a bare Exception. Its own readers of metadata look up what a flipped bit has renamed.
    """
    if isinstance(error, OSError | ValueError) or type(error) is Exception:
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    from_orbax = frame.f_globals.get("__name__", "").startswith("orbax.")
    return from_orbax and isinstance(error, KeyError | AttributeError)


def layout(tree: Any) -> dict[str, str]:
    """Names, types and shapes of all arrays of a tree, as `{"params/b": "float32[4]"}`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{a.dtype}[{','.join(map(str, a.shape))}]"
        )
        for path, a in jax.tree_util.tree_leaves_with_path(tree)
    }


def _difference(stored: dict[str, str], expected: dict[str, str]) -> str:
    """The first difference of two layouts, in words; empty if there is none."""
    for name in sorted(stored.keys() | expected.keys()):
        if (there := stored.get(name)) != (here := expected.get(name)):
            return f"{name} is {there or 'absent'} there and {here or 'absent'} here"
    return ""


def _collect_quietly() -> None:
    """Collects the coroutines of a failed read, without the complaints that they print."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _reason(error: Exception) -> str:
    """The system's message if the system failed, else the first line of the error."""
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    return text.splitlines()[0][:200] if text else type(error).__name__


def _sum(values: dict) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def fingerprint(tree: Any) -> str:
    """A checksum of all arrays, 16 hex digits, that does not depend on their sharding.

    Any single changed bit changes it.
    """
    sums = [
        _sums(array, np.uint32(i * 0x9E3779B1 % 2**32))
        for i, array in enumerate(jax.tree.leaves(tree))
    ]
    return "".join(f"{part:08x}" for part in np.sum(jax.device_get(sums), axis=0, dtype=np.uint32))


@jax.jit  # of one array: arrays of one shape share a program, and one of all takes long to compile
def _sums(array: Array, start: Array) -> Array:
    """Two sums modulo 2^32. The first adds up words times odd numbers given by their places, so
    that any single changed bit changes it. The second adds up hashes of word and place, for all
    other damage."""
    kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32).ravel()
    place = jnp.arange(words.size, dtype=jnp.uint32) + start
    first = jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
    return jnp.stack([first, jnp.sum(_mixed(words ^ _mixed(place)), dtype=jnp.uint32)])


def _mixed(x: Array) -> Array:
    """A bijection of 32 bits, each depending on all: the finalizer of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
