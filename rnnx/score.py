"""Scores a model on batches that hold every target exactly once: the protocols `full` and
`batched` of every task."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from rnnx import model, parallel
from rnnx.data.batches import Batches
from rnnx.parallel import EVERYWHERE, ROWS
from rnnx.tasks.task import Sums, Task

_AHEAD = 50  # batches that an accelerator is given before one is awaited


def make_scorer(task: Task, graphdef: Any, mesh: Mesh) -> Callable[..., Sums]:
    """Compiles the scoring of batches for a mesh.

    Returns:
      score(params, batches, display=None): the sums of all batches, in float64.
    """

    def step(params, carries, batch):
        _, carries, sums = task.cost(model.merge(graphdef, params), batch, carries, None)
        return jax.lax.psum(sums, parallel.AXIS), carries

    step = parallel.pmapped(step, mesh, (EVERYWHERE, ROWS, ROWS), (EVERYWHERE, ROWS), donate=(1,))

    def score(params: dict[str, Array], batches: Batches, display: Any = None) -> Sums:
        ahead = 1 if mesh.devices.flat[0].platform == "cpu" else _AHEAD
        carries = zero_carries(task, graphdef, params, batches.batch_size, mesh)
        parts: list[Sums] = []
        for i, batch in enumerate(batches):
            batch = {name: parallel.shard_rows(a, mesh) for name, a in batch.items()}
            sums, carries = step(params, carries, batch)
            parts.append(sums)
            if i % ahead == 0:
                jax.block_until_ready(sums)
                if display:
                    display.update(i + 1)
        return total(jax.device_get(parts))

    return score


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
