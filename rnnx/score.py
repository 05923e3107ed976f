"""Scores a model on batches that hold every target exactly once: the protocols `full` and
`batched` of every task."""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from rnnx import model, native, parallel
from rnnx.data.batches import Batches
from rnnx.parallel import EVERYWHERE, ROWS
from rnnx.tasks.task import Sums, Task

_AHEAD = 50  # batches that an accelerator is given before one is awaited
_WIDE = 1 << 19  # numbers of a matrix above which two rows cost a CPU what one does


def make_scorer(task: Task, graphdef: Any, mesh: Mesh) -> Callable[..., Sums]:
    """Compiles the scoring of batches for a mesh.

    Returns:
      score(params, batches, display=None): the sums of all batches, in float64.
    """

    read = _reader(task, graphdef)

    def step(params, carries, batch):
        sums, carries = read(params, carries, batch)
        return jax.lax.psum(sums, parallel.AXIS), carries

    step = parallel.pmapped(step, mesh, (EVERYWHERE, ROWS, ROWS), (EVERYWHERE, ROWS), donate=(1,))

    def score(params: dict[str, Array], batches: Batches, display: Any = None) -> Sums:
        placed = ({k: parallel.shard_rows(a, mesh) for k, a in b.items()} for b in batches)
        carries = zero_carries(task, graphdef, params, batches.batch_size, mesh)
        return total(_read(step, params, carries, placed, display))

    return score


def make_splits_scorer(task: Task, graphdef: Any) -> Callable[..., list[Sums]]:
    """Compiles the scoring by `full` of a group of splits from `side_by_side`.

    Returns:
      score(params, splits, display=None): the sums of each split's batches, in float64. params
      are on this process's first device, which does it all.
    """

    beside = jax.jit(jax.vmap(_reader(task, graphdef), (None, 0, 0)), donate_argnums=1)
    alone = make_scorer(task, graphdef, local_mesh())

    def score(params: dict[str, Array], splits: Sequence[Batches], display: Any = None):
        if len(splits) == 1:
            return [alone(params, splits[0], display)]
        zeros = zero_carries(task, graphdef, params, 1, local_mesh())
        zeros = jax.tree.map(lambda a: np.zeros((len(splits), *a.shape), a.dtype), zeros)
        carries = parallel.shard(zeros, local_mesh(), EVERYWHERE)
        batches = (_stacked(splits, i) for i in range(max(map(len, splits))))
        parts = _read(beside, params, carries, batches, display)
        return [
            total([jax.tree.map(itemgetter(k), part) for part in parts[: len(split)]])
            for k, split in enumerate(splits)
        ]

    return score


def side_by_side(splits: dict[str, Batches], widest: int) -> list[dict[str, Batches]]:
    """The splits in groups that are read at once: all of them, or each alone.

    A step of one row costs what reading the weights costs, and several rows read them once. So
    splits of one row each, whose batches all have one shape, are a group. On a CPU that gains for
    large matrices only, and with the packed product (`native`).

    Args:
      widest: numbers of the largest recurrent matrix.
    """
    gains = jax.default_backend() != "cpu" or (native.tile_width() > 0 and widest >= _WIDE)
    parts = list(splits.values())
    if gains and all(len(b) == b.alike(0, len(b)) and b.batch_size == 1 for b in parts):
        shapes = [{name: a.shape for name, a in b[0].items()} for b in parts]
        if all(shape == shapes[0] for shape in shapes):
            return [splits]
    return [{name: b} for name, b in splits.items()]


def _reader(task: Task, graphdef: Any) -> Callable:
    """(params, carries, batch) to the batch's sums and the state after."""

    def read(params, carries, batch):
        _, carries, sums = task.cost(model.merge(graphdef, params), batch, carries, None)
        return sums, carries

    return read


def _read(step: Callable, params: Any, carries: Any, batches: Iterable, display: Any) -> list[Sums]:
    """The sums of each batch, read in order."""
    ahead, parts = 1 if jax.default_backend() == "cpu" else _AHEAD, []
    for i, batch in enumerate(batches):
        sums, carries = step(params, carries, batch)
        parts.append(sums)
        if i % ahead == 0:
            jax.block_until_ready(sums)
            if display:
                display.update(i + 1)
    return jax.device_get(parts)


def _stacked(splits: Sequence[Batches], i: int) -> dict[str, np.ndarray]:
    """Batch i of every split, stacked; a split that has ended repeats its first, unscored."""
    rows = [split[i if i < len(split) else 0] for split in splits]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def total(parts: list[Sums]) -> Sums:
    """Adds sums in float64."""
    return {
        name: tuple(np.sum([p[name][k] for p in parts], axis=0, dtype=np.float64) for k in (0, 1))
        for name in parts[0]
    }


def zero_carries(
    task: Task, graphdef: Any, params: dict[str, Array], batch_size: int, mesh: Mesh
) -> Any:
    """The zero state of a batch, its rows spread over the mesh."""
    shapes = jax.eval_shape(lambda p: task.zero_carry(model.merge(graphdef, p), batch_size), params)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    return parallel.shard(zeros, mesh, ROWS)


def local_mesh() -> Mesh:
    """One local device, for the protocol `full`."""
    return parallel.batch_mesh(1, jax.local_devices()[:1])
