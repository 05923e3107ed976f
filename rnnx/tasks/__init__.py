"""What can be learned: one file a task, one row each in `TASKS`.

A task of your own is a subclass of `Task` that registers itself:

    # mytask.py
    from rnnx import tasks
    tasks.register("mytask", MyTask(), fields={"delay": Field(24, "blank steps", low=1)})

and of a config file, which takes all fields from `rnnx.config.default("mytask")`. The same file can
be both.

Every command imports the modules that the environment variable RNNX_TASKS names, separated by
commas: `RNNX_TASKS=mytask python -m rnnx.train --config=mytask.py`.
"""

import dataclasses
import importlib
import os
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


_OWN_TASKS, _OWN_FIELDS = frozenset(TASKS), frozenset(configs.FIELDS)


def register(name: str, task: "Task", fields: dict[str, Field] | None = None) -> None:
    """Adds a task, and the config fields that it declares, which its configs alone have.

    Raises:
      ValueError: on a name that rnnx has given to a task or a field of its own.
    """
    fields = {
        n: f if f.tasks else dataclasses.replace(f, tasks=(name,))
        for n, f in (fields or {}).items()
    }
    if taken := [n for n in (name, *fields) if n in (_OWN_TASKS if n == name else _OWN_FIELDS)]:
        raise ValueError(f"{taken[0]!r} is a name of rnnx's own: choose another")
    TASKS[name] = Row(task)
    configs.FIELDS.update(fields)


def plug_in() -> None:
    """Imports the modules that RNNX_TASKS names: tasks of the user's own.

    Raises:
      UserError: when one can't be imported.
    """
    for module in filter(None, os.environ.get("RNNX_TASKS", "").split(",")):
        try:
            importlib.import_module(module)
        except Exception as error:  # a module is code: it may raise anything
            raise UserError(
                f"cannot import {module}, which RNNX_TASKS names: {type(error).__name__}: {error}"
            ) from error


def get(name: str) -> "Task":
    """A task by name. Raises UserError when there is none."""
    if name not in TASKS:
        plug_in()
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
