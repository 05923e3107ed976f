"""A trained run, opened for use."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict

from rnnx import model, tasks, workdir
from rnnx.checkpoint import read_best
from rnnx.errors import UserError
from rnnx.tasks import network
from rnnx.tasks.task import Dataset, Task


class Run(NamedTuple):
    """A workdir opened for use.

    Attributes:
      spec: what the task knows of its data: of texts the vocabulary.
      graphdef, params: of `net`, as `model.split` gives them.
      info: step, epoch and valid scores of the checkpoint.
    """

    folder: Path
    config: ConfigDict
    task: Task
    spec: Any
    graphdef: Any
    params: dict[str, Any]
    info: dict

    @property
    def net(self) -> Any:
        """The network with these parameters."""
        return model.merge(self.graphdef, self.params)


def open_run(folder: Path | str) -> Run:
    """Opens a workdir with its best parameters, on the first local device.

    Raises:
      UserError: when there is no run, or no checkpoint yet.
    """
    folder = Path(folder)
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


def define_flags() -> None:
    """Flags that say where the data of a run are now."""
    flags.DEFINE_string("data_dir", "", "raw data files, if elsewhere than in training")
    flags.DEFINE_string("corpus", "", "the file of your own trained on, if it was moved since")
    flags.DEFINE_string("test_corpus", "", "the file of its test part, if that was moved since")


def moved(config: ConfigDict, values: Any) -> None:
    """Sets a config's places of data to the values of these flags, where they have one.

    Raises:
      UserError: a test_corpus of a task that has none.
    """
    if values.test_corpus and "test_corpus" not in config:
        raise UserError("--test_corpus: this run's test part has no file of its own")
    for name in ("data_dir", "corpus", "test_corpus"):
        if values[name].value:
            config[name] = values[name].value


def load_data(folder: Path, config: ConfigDict, say: Any) -> Dataset:
    """The data that the run in folder was trained on, by its config.

    Raises:
      UserError: when those that are found are other data.
    """
    dataset = tasks.of(config).load(config, say)
    workdir.check_data(folder, dataset.name, dataset.sums)
    return dataset
