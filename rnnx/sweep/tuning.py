"""A grid whose points are tuned first, all with the same trials.

    grid x trials --train briefly, score on valid--> the best of each point --seeds--> a grid

A comparison of cells at one learning rate compares how well it suits them. Here every point of the
grid gets the same proposals, spread evenly over the space, and none learns from another's scores.
"""

import json
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, TrialState

from rnnx import tasks
from rnnx.config import CONTINUABLE
from rnnx.errors import UserError
from rnnx.report.runs import Run
from rnnx.sweep import space
from rnnx.sweep.ledger import Plan
from rnnx.sweep.space import Overrides


class Tuning(NamedTuple):
    """What is tuned, and how long."""

    space: dict[str, Any]
    trials: int  # of each point
    epochs: int  # of each trial


def trials_of(plan: Plan, tuning: Tuning) -> Plan:
    """The sweep of all tuning trials of a grid. They leave the test split unread.

    Raises:
      UserError: when a tuned field is in the grid.
    """
    points: list[Overrides] = []
    for point in plan.points:
        if (point := _without(("seed",), point)) not in points:
            points.append(point)
    if both := sorted(set(tuning.space).intersection(*[set().union(*points)])):
        raise UserError(f"{both[0]} is in the grid: it can't be tuned too")
    fixed = shortened(plan.config, tuning.epochs) | {"score_test": False}
    config = plan.config.copy_and_resolve_references()
    config.update(fixed)
    arguments = [*plan.arguments, *(space.flag(name, value) for name, value in fixed.items())]
    proposed = space.spread(tuning.space, tuning.trials)
    return Plan(config, arguments, points=[p | found for found in proposed for p in points])


def shortened(config: ConfigDict, epochs: int) -> Overrides:
    """The schedule of a config pressed into fewer epochs: the same share of them at the initial
    learning rate, and the same rate at the end."""
    flat = max(1, round(config.flat_epochs * epochs / config.epochs))
    falls, left = config.epochs - config.flat_epochs, max(epochs - flat, 1)
    decay = config.lr_decay ** (max(falls, 0) / left)
    return {"epochs": epochs, "flat_epochs": flat, "lr_decay": float(f"{decay:.6g}")}


def tuned(plan: Plan, tuning: Tuning, ended: Iterable[tuple[FrozenTrial, Overrides]]) -> Plan:
    """The plan with each of its points at the best of its trials.

    Args:
      ended: trials, each with the fields that it set.

    Raises:
      UserError: when every trial of a point failed.
    """
    scored = [(t.value, found) for t, found in ended if t.state == TrialState.COMPLETE]
    points = []
    for point in plan.points:
        of = _without(("seed",), point)
        own = [(value, found) for value, found in scored if _without(tuning.space, found) == of]
        if not own:
            raise UserError(
                f"every tuning trial of {space.label(of)} failed: see the logs beside them, or "
                "tune over another range"
            )
        best = tasks.of(plan.config).best(value for value, _ in own)
        found = next(found for value, found in own if value == best)
        points.append(found | point)
    return Plan(plan.config, plan.arguments, points=points)


def known_points(plan: Plan, runs: Iterable[Run]) -> list[tuple[Overrides, float]]:
    """The points of a plan that runs done elsewhere have, each with its valid score."""
    follows = {"hidden_size"} if plan.config.param_budget else set()
    if not any(p.get("embed_size", plan.config.get("embed_size", 0)) for p in plan.points):
        follows |= {"embed_size"}  # 0 is replaced by a number, which a run records
    aside = {*CONTINUABLE, *follows} - {"epochs", "max_steps"}

    def key(config: dict[str, Any]) -> str:
        kept = {name: value for name, value in config.items() if name not in aside}
        return json.dumps(kept, sort_keys=True)

    scores = {key(run.config): run.scores["valid"] for run in runs if run.complete}
    keys = [key(plan.config.to_dict() | point) for point in plan.points]
    return [
        (point, scores[own]) for point, own in zip(plan.points, keys, strict=True) if own in scores
    ]


def _without(names: Container[str], point: Overrides) -> Overrides:
    return {name: value for name, value in point.items() if name not in names}
