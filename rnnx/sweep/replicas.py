"""Trains trials of one network as one program: `rnnx.sweep --replicas=K` starts this.

    configs --Experiment, trainer.training--> calls of updates --vmap--> results, a workdir each

Each trial is an ordinary run, in its own workdir, with the numbers that it has alone up to the
rounding of sums. They wait for each other at every call; one that has ended, or diverged, does not
stop the others. What to train comes as JSON on stdin; how each ended goes, as a line of JSON, to
the file descriptor --told; what a run prints goes to its own log.
"""

import contextlib
import copy
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from rnnx import cli, train, trainer
from rnnx.display import Display
from rnnx.errors import Outage, UserError, out_of_memory
from rnnx.experiment import Experiment
from rnnx.metrics import Pace
from rnnx.update import Call, make_replica_updates

FLAGS = flags.FLAGS


class Lane:
    """A run among those that are trained together.

    Attributes:
      experiment: None if it could not be made.
      call: the updates it waits for; None once it has ended.
    """

    def __init__(self, order: dict[str, Any], index: int, count: int, told: IO):
        """One of so many.

        Args:
          order: its `point`, `workdir`, `command` as recorded, and `log`, a file descriptor.
          told: where its end is told.
        """
        self._order, self._index, self._count, self._told = order, index, count, told
        self._log = os.fdopen(order["log"], "a", encoding="utf-8", buffering=1)
        self.experiment: Experiment | None = None
        self.call: Call | None = None

    def begin(self, config: ConfigDict, stop: cli.Stop, beside: "Lane | None") -> None:
        """Makes the run ready, up to its first call, with the data and programs of another."""
        self._calls = self._run(config, stop, beside)
        self.advance()

    def _run(self, config: ConfigDict, stop: cli.Stop, beside: "Lane | None") -> trainer.Calls:
        """The run, from the config of all to the scores that it prints."""
        config = copy.deepcopy(config)  # with its references, which follow what is set here
        point = self._order["point"].items()
        config.update({k: tuple(v) if isinstance(v, list) else v for k, v in point})
        self.experiment = experiment = Experiment(
            config,
            Path(self._order["workdir"]),
            Display(self._log),
            beside and beside.experiment,
        )
        self.pace = beside.pace if beside else Pace(experiment.width, self._count)
        experiment.about |= {"command": self._order["command"], "replicas": self._count}
        experiment.announce()
        train.tell(experiment, (yield from trainer.training(experiment, stop, self.pace)))

    def advance(self, after: Any = None) -> None:
        """Takes the results of its call, and goes on to the next."""
        try:
            self.call = self._calls.send(after)
        except StopIteration:
            self._end(0)
        except SystemExit as end:  # on a signal, with everything saved
            self._end(end.code)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Ends the run with an error, told in its log as `rnnx.train` tells it."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            if out_of_memory(error):  # alone it may have room
                count = self._count
                error = Outage(f"out of memory with {count} trials at once: lower --replicas")
            else:
                error = train.explained(error) or error
        expected = cli.ending(error)
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            if expected:
                print(f"rnnx.train: {expected[0]}", file=self._log)
            else:
                traceback.print_exception(error, file=self._log)
        self._end(expected[1] if expected else 1)

    def _end(self, code: int) -> None:
        self.call = None
        for close in (self._calls.close, self._log.close):
            with contextlib.suppress(UserError, OSError):  # why it ends has been told
                close()
        with contextlib.suppress(OSError):  # the sweep may be gone
            print(json.dumps({"lane": self._index, "code": code}), file=self._told, flush=True)


def run(lanes: Sequence[Lane], config: ConfigDict, stop: cli.Stop) -> None:
    """Trains all lanes to their ends."""
    first = None
    for lane in lanes:
        lane.begin(config, stop, first)
        first = first or (lane if lane.experiment else None)
    if first is None:
        return
    made = first.experiment
    updates = make_replica_updates(
        made.task, made.config, made.graphdef, made.mesh, len(lanes), made.highest
    )
    while ready := _of_one_shape([lane for lane in lanes if lane.call]):
        calls = _filled([lane.call for lane in ready], len(lanes))
        try:
            answers = updates(*zip(*calls, strict=True))
        except Exception as error:
            for lane in ready:
                lane.fail(error)
        else:
            for lane, after in zip(ready, answers, strict=False):
                lane.advance(after)


def _of_one_shape(lanes: list[Lane]) -> list[Lane]:
    """The most lanes whose batches have one shape: batches of sequences differ."""
    groups: dict[tuple, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(tuple(a.shape for a in lane.call.batches.values()), []).append(lane)
    return max(groups.values(), key=len, default=[])


def _filled(calls: list[Call], count: int) -> list[Call]:
    """So many calls: the rest repeat the first and update nothing."""
    spare = [
        # The program overwrites the states it is given, so each needs its own.
        calls[0]._replace(state=jax.tree.map(jnp.copy, calls[0].state), count=np.int32(0))
        for _ in range(count - len(calls))
    ]
    return calls + spare


def main() -> None:
    if FLAGS.told is None:
        raise UserError("rnnx.sweep --replicas=K starts this command: it is not for people")
    orders = json.load(sys.stdin)
    with cli.Stop() as stop, os.fdopen(FLAGS.told, "w") as told:
        lanes = [Lane(order, i, len(orders), told) for i, order in enumerate(orders)]
        run(lanes, FLAGS.config, stop)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "what all runs have in common")
    flags.DEFINE_integer("told", None, "file descriptor on which ends are told")
    cli.run(main, __doc__)
