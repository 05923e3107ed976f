"""Trains trials of one network as one program: `rnnx.sweep --replicas=K` starts this.

    configs --Experiment, trainer.training--> calls of updates --vmap--> results, a workdir each

Each trial is an ordinary run, in its own workdir, with the numbers that it has alone up to the
rounding of sums. They wait for each other at every call; one that has ended, or diverged, does not
stop the others. What to train comes as JSON on stdin, how each ended goes as JSON to stdout, a line
each; what a run prints goes to its own log.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from rnnx import cli, train, trainer
from rnnx.display import Display
from rnnx.experiment import Experiment
from rnnx.trainer import Call
from rnnx.update import make_replica_updates


class Lane:
    """A run among those that are trained together.

    Attributes:
      experiment: None if it could not be made.
      call: the updates it waits for; None once it has ended.
    """

    def __init__(self, order: dict[str, Any], index: int, count: int):
        """One of so many.

        Args:
          order: its `point`, `workdir`, `command` as recorded, and `log`, a file descriptor.
        """
        self._order, self._index, self._count = order, index, count
        self._log = os.fdopen(order["log"], "a", encoding="utf-8", buffering=1)
        self._display = Display(self._log)
        self.experiment: Experiment | None = None
        self.call: Call | None = None
        self._steps: trainer.Steps | None = None

    def begin(self, config: ConfigDict, stop: cli.Stop, beside: Experiment | None) -> None:
        """Makes the run ready, up to its first call of updates."""
        try:
            config = config.copy_and_resolve_references()
            point = self._order["point"].items()
            config.update({k: tuple(v) if isinstance(v, list) else v for k, v in point})
            folder = Path(self._order["workdir"])
            self.experiment = Experiment(config, folder, self._display, beside)
            self.experiment.about |= {"command": self._order["command"], "replicas": self._count}
            self.experiment.announce()
            self._steps = trainer.training(self.experiment, stop, in_step=True)
        except Exception as error:
            self.fail(error)
        else:
            self.advance(None)

    def advance(self, after: Any) -> None:
        """Takes the results of its call, and goes on to the next."""
        try:
            self.call = self._steps.send(after)
        except StopIteration as end:
            train.tell(self.experiment, end.value)
            self._end(0)
        except SystemExit as end:  # on a signal, with everything saved
            self._end(end.code)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Ends the run with an error, told in its log as `rnnx.train` tells it."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            error = train.explained(error) or error
        if expected := cli.ending(error):
            told, code = expected
            print(f"rnnx.train: {told}", file=self._log)
        else:
            code = 1
            traceback.print_exception(error, file=self._log)
        self._end(code)

    def _end(self, code: int) -> None:
        self.call = None
        if self._steps:
            self._steps.close()
        self._log.close()
        print(json.dumps({"lane": self._index, "code": code}), flush=True)


def run(lanes: Sequence[Lane], config: ConfigDict, stop: cli.Stop) -> None:
    """Trains all lanes to their ends."""
    first = None
    for lane in lanes:
        lane.begin(config, stop, first)
        first = first or lane.experiment
    if first is None:
        return
    updates = make_replica_updates(
        first.task, first.config, first.graphdef, first.mesh, len(lanes), first.highest
    )
    while ready := [lane for lane in lanes if lane.call]:
        ready = _of_one_shape(ready)
        try:
            answers = updates(
                *zip(*_filled([lane.call for lane in ready], len(lanes)), strict=True)
            )
        except jax.errors.JaxRuntimeError as error:
            for lane in ready:
                lane.fail(error)
            continue
        for lane, after in zip(ready, answers, strict=False):
            lane.advance(after)


def _of_one_shape(lanes: list[Lane]) -> list[Lane]:
    """The most lanes whose batches have one shape: batches of sequences differ."""
    groups: dict[tuple, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(tuple(a.shape for a in lane.call.batches.values()), []).append(lane)
    return max(groups.values(), key=len)


def _filled(calls: list[Call], count: int) -> list[Call]:
    """So many calls: the rest repeat the first and update nothing."""
    spare = [
        # The program overwrites the states it is given, so each needs its own.
        calls[0]._replace(state=jax.tree.map(jnp.copy, calls[0].state), count=np.int32(0))
        for _ in range(count - len(calls))
    ]
    return calls + spare


def main() -> None:
    orders = json.load(sys.stdin)
    with cli.Stop() as stop:
        lanes = [Lane(order, i, len(orders)) for i, order in enumerate(orders)]
        run(lanes, flags.FLAGS.config, stop)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "what all runs have in common")
    cli.run(main, __doc__)
