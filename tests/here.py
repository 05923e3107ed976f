"""Trainings in this process that share compiled programs: a tenth of the cost of processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import QUIET
from ml_collections import ConfigDict
from optuna.trial import TrialState

from rnnx import config as configs
from rnnx import trainer
from rnnx.errors import UserError
from rnnx.experiment import Experiment
from rnnx.sweep.runner import Runner

# Fields that compiled updates and scores do not depend on. (On a fraction a little: it moves the
# score at which a run of numbers has diverged.)
_FREE = (*configs.SHARED, "corpus", "epochs", "fraction")
_programs: dict[Any, tuple] = {}


def trained(config: ConfigDict, folder: Path) -> tuple[Experiment, dict]:
    """A run, and what `trainer.run` returns."""
    experiment = Experiment(config, folder, QUIET)
    fixed = {k: v for k, v in experiment.config.items() if k not in _FREE}
    key = experiment.graphdef, repr(sorted(fixed.items()))
    programs = _programs.setdefault(key, (experiment.updates, experiment.scorers))
    experiment.updates, experiment.scorers = programs
    return experiment, trainer.run(experiment)


def run(self: Runner) -> None:
    """What `Runner.run` does, without processes, pruning and a screen."""
    plan = self.ledger.plan
    while (claim := self.ledger.claim()) is not None:
        config = plan.config.copy_and_resolve_references()
        config.update(claim.point)
        try:
            _, result = trained(config, claim.folder)
        except UserError as error:
            self.ledger.tell(claim, TrialState.FAIL, why=str(error))
        else:
            self.ledger.tell(claim, TrialState.COMPLETE, result["valid"][plan.task.primary])


@contextlib.contextmanager
def trained_here() -> Iterator[None]:
    """Within it, sweeps train in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "run", run)
        yield
