"""What is asked: the data, the task and its config, from the command line."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict, config_flags

from rnnx import config as configs
from rnnx import tasks
from rnnx.compare.candidates import Candidate, chosen
from rnnx.data.detect import detect
from rnnx.errors import UserError
from rnnx.sweep import space
from rnnx.tasks import network
from rnnx.tasks.forecast import columns, own_file
from rnnx.tasks.task import Dataset, Task

TASKS = {"forecast": "forecast", "classify": "classify", "regress": "regress", "text": "language"}
_FORECAST_ONLY = ("season", "known", "layout", "stride")
_ALSO = ("param_budget",)
_SHORTEST, _LONGEST = 48, 336  # windows of a forecast


@dataclass
class Question:
    """A comparison as it was asked for.

    Attributes:
      config: of the reference, resolved; all runs share it but for the cell and what is tuned.
      arguments: of `rnnx.train`, that make the config.
    """

    name: str
    file: str
    config: ConfigDict
    arguments: list[str]
    task: Task
    dataset: Dataset
    candidates: list[Candidate]
    minutes: float
    trials: int
    seeds: int
    epochs: int
    margin: float
    workers: int

    def to_json(self) -> dict:
        """What must be the same when a comparison is resumed."""
        return {
            "arguments": self.arguments,
            "candidates": [c.key for c in self.candidates],
            "minutes": self.minutes,
            "trials": self.trials,
            "seeds": self.seeds,
            "epochs": self.epochs,
            "margin": self.margin,
            "workers": self.workers,
            "sums": self.dataset.sums,
        }


def from_flags(values: Any, say: Callable[[str], None]) -> Question:
    """The question that flags ask; loads the data and prints what they are.

    Raises:
      UserError: on flags that do not go together, and on data that cannot be used.
    """
    if bool(values.data) == (values.config is not None):
        raise UserError("name the data with --data=FILE, or an experiment with --config=NAME")
    candidates = chosen(values.cells)
    if values.config is not None:
        config, handle = values.config, values["config"]
        source = config_flags.get_config_filename(handle)  # as typed, with its variant
        given = dict(config_flags.get_override_values(handle))
    else:
        source = f"own:{_kind(values, say)}"
        config = configs.load(source)
        given = _fields(values, config)
    given |= {name: values[name].value for name in _ALSO if values[name].present}
    given |= candidates[0].point
    config.update(given)
    task = tasks.of(config)
    task.check(config)
    if config.eval_tokens and config.task != "language":
        raise UserError("a comparison scores the whole test part: leave eval_tokens out")
    if not (forecast := config.task == "forecast"):
        for name in _FORECAST_ONLY:
            if values[name].present:
                raise UserError(f"--{name} is for forecasts, which these are not")
    dataset = task.load(config, say)
    if forecast and values.config is None:
        given |= _windows(config, dataset, values.horizon)
        config.update(given)
        dataset = task.load(config, say)
    for line in dataset.about:
        say(f"  {line}")
    if values.config is None and config.task != "language":
        given["batch_size"] = _batch_size(config, dataset)
        config.update(given)
    given |= dataset.fields
    config.update(dataset.fields)
    if not config.param_budget:
        resolved = network.resolve(config, dataset.spec)
        given["param_budget"] = network.parameter_count(resolved, dataset.spec)
        config.param_budget = given["param_budget"]
    arguments = [f"--config={source}"]
    arguments += [space.flag(name, _text(value)) for name, value in sorted(given.items())]
    return Question(
        name=dataset.name,
        file=values.data or source,
        config=config,
        arguments=arguments,
        task=task,
        dataset=dataset,
        candidates=candidates,
        minutes=values.minutes,
        trials=values.trials,
        seeds=values.seeds,
        epochs=values.epochs,
        margin=values.margin,
        workers=values.workers or _workers(),
    )


def _kind(values: Any, say: Callable[[str], None]) -> str:
    """The task of the data: as named, else as found."""
    if values.task:
        if values.task not in TASKS:
            raise UserError(f"--task={values.task}: {configs.nearest(values.task, TASKS)}")
        return values.task
    kind, why = detect(
        own_file(values.data),
        time=values.time,
        target=columns(values.target),
        group=values.group,
        horizon=values.horizon,
        layout=values.layout,
    )
    say(f"task {kind}: {why}")
    return kind


def _fields(values: Any, config: ConfigDict) -> dict[str, Any]:
    """The config fields that the flags about data set, where the task has them."""
    named = {
        "corpus": str(own_file(values.data).resolve()),
        "test_corpus": str(own_file(values.test).resolve()) if values.test else "",
        **{name: values[name].value for name in ("target", "time", "group", "covariates")},
        **{name: values[name].value for name in (*_FORECAST_ONLY, "level")},
        "horizon": values.horizon or 1,
        "head": "quantile",
        "separate": True,
        "scaling": "window",
    }
    return {name: value for name, value in named.items() if name in config and value != ""}


def _windows(config: ConfigDict, dataset: Dataset, horizon: int) -> dict[str, Any]:
    """Windows of four seasons, or twice the horizon, as far as the training part allows."""
    season = dataset.spec["season"]
    horizon = horizon or (season if season > 1 else 12)
    shortest = min(end for end, _ in dataset.splits["train"].ends)
    steps = min(max(4 * season, 2 * horizon, _SHORTEST), _LONGEST, max(shortest // 2, 4))
    anchor = "season" if season <= steps // 2 else "last"
    return {"horizon": horizon, "num_steps": steps, "warmup": steps // 2, "anchor": anchor}


def _batch_size(config: ConfigDict, dataset: Dataset) -> int:
    """32, or less where an epoch would have fewer than 16 updates."""
    rows = dataset.sizes[0]
    if config.task == "forecast":
        rows //= config.num_steps - config.warmup
    return min(max(rows // 16, 4), 32)


def _text(value: Any) -> Any:
    """A value as a flag takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _workers() -> int:
    """One training a core; on accelerators one a device."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return len(devices)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
