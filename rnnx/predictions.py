"""What a trained network says of each row of a split."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from rnnx import model
from rnnx.data.batches import Batch, Batches
from rnnx.tasks.task import Task
from rnnx.trained import Run


@functools.lru_cache(maxsize=16)
def predictor(task: Task, graphdef: Any) -> Callable:
    """predict(params, batch, carries) -> arrays by name, and the state after; compiled."""

    def predict(params, batch, carries):
        return task.predict(model.merge(graphdef, params), batch, carries)

    return jax.jit(predict)


def predictions(
    run: Run, batches: Batches, display: Any = None
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Each batch, with what `Task.predict` gives of it."""
    predict = predictor(run.task, run.graphdef)
    net = run.net
    carries = run.task.zero_carry(net, batches.batch_size)
    for i, batch in enumerate(batches):
        found, carries = predict(run.params, batch, carries)
        yield batch, jax.device_get(found)
        if display:
            display.update(i + 1)
