"""A trained run, opened for use."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from rnnx import tasks, workdir
from rnnx.checkpoint import read_best
from rnnx.errors import UserError
from rnnx.tasks import network
from rnnx.tasks.task import Dataset, Task


class Run(NamedTuple):
    """A workdir opened for use."""

    folder: Path
    config: ConfigDict
    task: Task
    spec: Any
    graphdef: Any
    params: dict[str, Any]
    info: dict  # step, epoch and valid scores of the checkpoint


def open_run(folder: Path) -> Run:
    """Opens a workdir with its best parameters, on the first local device.

    Raises:
      UserError: when there is no run, or no checkpoint yet.
    """
    config = workdir.read_config(folder)
    task = tasks.of(config)
    spec = task.spec_from_json(workdir.read_json(folder / task.spec_file))
    graphdef, shapes = network.abstract(config, spec)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        name: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=device) for name, p in shapes.items()
    }
    found = read_best(folder, like)
    if found is None:
        raise UserError(
            f"{folder} has no evaluated checkpoint yet: one is saved at the end of each epoch"
        )
    return Run(folder, config, task, spec, graphdef, *found)


def load_data(folder: Path, config: ConfigDict, say: Any) -> Dataset:
    """The data that the run in folder was trained on, by its config.

    Raises:
      UserError: when those that are found are other data.
    """
    dataset = tasks.of(config).load(config, say)
    workdir.check_data(folder, dataset.name, dataset.sums)
    return dataset
