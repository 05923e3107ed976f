"""What can be learned: one file a task, one row each in `TASKS`.

A task of your own is a subclass of `Task` that registers itself:

    # mytask.py
    from rnnx import tasks
    tasks.register("mytask", MyTask(), fields={"horizon": Field(24, "steps ahead", low=1)})

Every command imports the modules that the environment variable RNNX_TASKS names, separated by
commas: `RNNX_TASKS=mytask python -m rnnx.train --config=... --config.task=mytask`.
"""

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx.config import Field
from rnnx.errors import UserError

if TYPE_CHECKING:
    from rnnx.tasks.task import Task


class Row(NamedTuple):
    """A task, or `module:Class` to be imported on first use, since flax takes a second."""

    task: Any
    corpora: tuple[str, ...] = ()  # values of config.corpus that mean this task


TASKS: dict[str, Row] = {
    "language": Row("rnnx.tasks.language:Language"),
    "rolls": Row("rnnx.tasks.rolls:Rolls", corpora=("jsb",)),
    "forecast": Row("rnnx.tasks.forecast:Forecast"),
    "classify": Row("rnnx.tasks.classify:Classify"),
    "regress": Row("rnnx.tasks.regress:Regress"),
    "speech": Row("rnnx.tasks.speech:Speech", corpora=("an4",)),
    "reading": Row("rnnx.tasks.reading:Reading", corpora=("cnn", "dailymail")),
    "sentences": Row("rnnx.tasks.sentences:Sentences", corpora=("novels",)),
}


def register(name: str, task: "Task", fields: dict[str, Field] | None = None) -> None:
    """Adds a task, and the config fields that it declares."""
    TASKS[name] = Row(task)
    configs.FIELDS.update(fields or {})


def get(name: str) -> "Task":
    """A task by name. Raises UserError when there is none."""
    if name not in TASKS:
        raise UserError(
            f"unknown task {name!r}; {configs.nearest(name, TASKS)} (a task of your own needs "
            "RNNX_TASKS=its module)"
        )
    row = TASKS[name]
    if isinstance(row.task, str):
        module, _, kind = row.task.partition(":")
        TASKS[name] = row = row._replace(task=getattr(importlib.import_module(module), kind)())
    return row.task


def config_from_json(fields: dict, where: str) -> ConfigDict:
    """`config.from_json`, after a check that the task, whose fields it may hold, is known."""
    if isinstance(name := fields.get("task"), str) and name:
        try:
            get(name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    return configs.from_json(fields, where)


def name_of(config: ConfigDict | dict) -> str:
    """The name of a config's task: the one that it names, else that of its corpus, else
    language."""
    owners = (name for name, row in TASKS.items() if config["corpus"] in row.corpora)
    return config["task"] or next(owners, "language")


def of(config: ConfigDict | dict) -> "Task":
    """The task of a config."""
    return get(name_of(config))
