"""Trains what a plan names, as sweeps: each run is an ordinary workdir."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from rnnx import workdir
from rnnx.compare.candidates import REFERENCE, Candidate
from rnnx.compare.plan import Plan, Speed
from rnnx.display import Display
from rnnx.duration import duration
from rnnx.errors import UserError
from rnnx.sweep import space
from rnnx.sweep.ledger import Ledger, in_reach
from rnnx.sweep.ledger import Plan as SweepPlan
from rnnx.sweep.runner import Runner
from rnnx.sweep.screen import Screen
from rnnx.sweep.space import Overrides

RANGES = {"learning_rate": (5e-4, 3e-2), "init_scale": (0.02, 0.5)}
TUNED = tuple(RANGES)
_TUNING_SEED = 0  # the seeds of the tables come after it


class Run(NamedTuple):
    """A trained network."""

    key: str  # of the candidate
    stage: str  # tune, seeds, control, seconds, or fraction
    point: Overrides
    folder: Path
    result: dict | None  # None: it diverged
    epochs: list[dict]  # the lines of metrics.jsonl

    @property
    def seed(self) -> int:
        return self.point.get("seed", _TUNING_SEED)


class Stage(NamedTuple):
    """Runs that are trained together."""

    name: str  # its folder
    about: str  # for people
    points: list[tuple[str, Overrides]]  # candidate, config fields


class _Quiet(Screen):
    """The screen of a sweep, without the table at its end."""

    def summary(self) -> None:
        pass

    def event(self, line: str, trouble: bool = False) -> None:
        if trouble:
            super().event(line, trouble)


class Trainings:
    """The trainings of a comparison, in its folder. Each is done once, however often asked for."""

    def __init__(
        self,
        folder: Path,
        config: ConfigDict,
        arguments: Sequence[str],
        plan: Plan,
        workers: int,
        display: Display,
    ):
        """config: of all runs; arguments: those of `rnnx.train` that make it."""
        self.folder, self.config, self.arguments = folder, config, list(arguments)
        self.plan, self.workers, self.display = plan, workers, display

    def tune(self, candidates: Sequence[Candidate]) -> list[Run]:
        """The tuning trials: learning rate and range of the initial weights, the same points for
        every candidate."""
        return self._train(
            "tune",
            self.plan.tuned_for,
            [(c.key, c.point | point) for point in proposals(self.plan.trials) for c in candidates],
        )

    def tables(self, stage: Stage) -> list[Run]:
        """Trains the points of a stage, in their order."""
        return self._train(stage.name, self.plan.epochs, stage.points)

    def _train(self, stage: str, epochs: int, points: Sequence[tuple[str, Overrides]]) -> list[Run]:
        """Trains points, each with the key of its candidate."""
        fixed = schedule(epochs) | {"score_test": False}
        config = self.config.copy_and_resolve_references()
        config.update(fixed)
        arguments = [*self.arguments, *(space.flag(k, v) for k, v in fixed.items())]
        points = [(key, space.checked(point)) for key, point in points]
        sweep = SweepPlan(config, arguments, points=[point for _, point in points])
        folder = self.folder / stage
        with in_reach(folder):
            ledger = Ledger(folder, sweep)
            Runner(ledger, self.workers, _Quiet(ledger, sweep.task.unit(sweep.config))).run()
            ended = ledger.ended()
        runs = []
        for trial in ended:
            point = ledger.point(trial)
            key = next(key for key, known in points if known == point)
            where, result = folder / "trials" / ledger.name(trial), None
            if trial.state == TrialState.COMPLETE:
                result = workdir.read_json(where / "result.json", workdir.FORMAT)
            else:
                reason = trial.user_attrs.get("reason", "")
                self.display.print(f"{where.name} failed: {reason}")
            runs.append(Run(key, stage, point, where, result, epoch_lines(where)))
        return runs


def proposals(count: int) -> list[Overrides]:
    """So many points of `TUNED`, spread evenly in the logarithms."""
    ranges = {name: FloatDistribution(*ends, log=True) for name, ends in RANGES.items()}
    return space.spread(ranges, count)


def schedule(epochs: int) -> Overrides:
    """The learning rate is constant for half of the epochs, then falls to a tenth."""
    flat = max(epochs // 2, 1)
    return {"epochs": epochs, "flat_epochs": flat, "lr_decay": 10 ** (1 / max(epochs - flat, 1))}


def best_of(runs: Sequence[Run], task: Any) -> Run:
    """The run with the best valid score.

    Raises:
      UserError: when none has one.
    """
    done = [run for run in runs if run.result is not None]
    if not done:
        raise UserError(
            f"every tuning trial of {runs[0].key if runs else 'a candidate'} failed: see the logs "
            "beside its trials, or leave it out with --cells"
        )
    best = task.best(run.result["valid"][task.primary] for run in done)
    return next(run for run in done if run.result["valid"][task.primary] == best)


def epoch_lines(folder: Path) -> list[dict]:
    """The lines of a run's epochs in metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if '"kind": "epoch"' in line]


def stages(
    plan: Plan, speeds: dict[str, Speed], tuned: dict[str, Run], leading: Sequence[str]
) -> list[Stage]:
    """What is trained after tuning: the tables' runs, each candidate as it was tuned.

    Args:
      leading: the candidates that are also trained on fractions of the data.
    """
    base = {key: {**_point(run), **_cell(run)} for key, run in tuned.items()}
    seeds = range(_TUNING_SEED + 1, _TUNING_SEED + 1 + plan.seeds)
    others = range(seeds.stop, seeds.stop + plan.seeds)
    found = [
        Stage(
            "seeds",
            f"{len(base)} networks with {plan.seeds} seeds, {plan.epochs} epochs",
            [(key, point | {"seed": seed}) for seed in seeds for key, point in base.items()],
        ),
        Stage(
            "control",
            f"the control: the LSTM with {plan.seeds} other seeds",
            [(REFERENCE, base[REFERENCE] | {"seed": seed}) for seed in others],
        ),
    ]
    if plan.equal_seconds:
        points = [
            (key, point | schedule(plan.epochs_in(speeds[key])) | {"seed": seed})
            for seed in seeds
            for key, point in base.items()
            if key != REFERENCE
        ]
        told = f"the same networks for {duration(plan.equal_seconds)} of training each"
        found.append(Stage("seconds", told, points))
    if plan.fractions:
        points = [
            (key, base[key] | {"fraction": fraction, "seed": seed})
            for seed in seeds
            for fraction in plan.fractions
            for key in leading
        ]
        shares = " and ".join(f"{fraction:.0%}" for fraction in plan.fractions)
        found.append(Stage("fraction", f"{len(leading)} networks on {shares} of the data", points))
    return found


def _point(run: Run) -> Overrides:
    return {name: run.point[name] for name in TUNED}


def _cell(run: Run) -> Overrides:
    return {name: run.result["config"][name] for name in ("cell", "integration", "depth")}
