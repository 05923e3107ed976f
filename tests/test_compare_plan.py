"""What fits into the minutes, and what is left out first where not all does."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUIET, language_model, small, window

from rnnx import tasks
from rnnx.compare import cost, plan
from rnnx.compare.candidates import CANDIDATES
from rnnx.compare.plan import EQUAL_OUT, FRACTIONS_OUT, LEAST_EPOCHS, SHARE, Plan, Speed
from rnnx.experiment import Experiment
from rnnx.trained import Run

NAMES = ["lstm", "mi-lstm", "rhn-2", "gru", "slstm"]
SPEEDS = {
    name: Speed(start=4.0, update=0.01 * (i + 1), validation=0.2, updates=50)
    for i, name in enumerate(NAMES)
}
HALF = "4 of 8 tuning trials"
PARTS = [FRACTIONS_OUT, EQUAL_OUT, HALF, "slstm", "gru"]  # in the order in which they go


def make(minutes: float, workers: int = 1, **options) -> Plan:
    return plan.make(SPEEDS, NAMES, minutes, workers, **options)


def by_hand(made: Plan) -> float:
    """Seconds of every run that a plan stands for, one by one."""
    runs: list[float] = []
    slowest = sorted(made.candidates, key=lambda n: SPEEDS[n].update)[-2:]
    for name in made.candidates:
        speed = SPEEDS[name]
        epoch = 50 * speed.update + 0.2
        runs += [4 + made.tuned_for * epoch] * made.trials
        runs += [4 + made.epochs * epoch] * made.seeds
        if name == "lstm":
            runs += [4 + made.epochs * epoch] * made.seeds  # the control
        elif made.equal_seconds:
            # Equal are the seconds of training, without validation.
            epochs = max(round(made.equal_seconds / (50 * speed.update)), 1)
            runs += [4 + epochs * epoch] * made.seeds
        if name in {"lstm", *slowest}:
            for f in made.fractions:
                part = math.ceil(50 * f) * speed.update + 0.2
                runs += [4 + made.epochs * part] * made.seeds
    return sum(runs)


# Minutes from far too few to more than enough.
MINUTES = [0.1, 1, 3, 5, 8, 10, 12, 15, 20, 25, 30, 40, 60, 90, 150, 400]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("minutes", MINUTES)
def test_a_plan_takes_no_more_than_its_share_of_the_minutes(minutes: float, workers: int) -> None:
    made = make(minutes, workers)
    assert made.seconds == pytest.approx(by_hand(made) / workers)
    if made.seconds > 60 * minutes * SHARE:  # then nothing more can be left out
        assert made.left_out == PARTS and made.epochs == 1 and made.candidates == NAMES[:3]


def test_more_would_not_fit() -> None:
    """One epoch more takes longer than the minutes, as long as there are no more than asked for."""
    for minutes in MINUTES:
        made = make(minutes)
        if made.epochs < plan.MOST_EPOCHS:
            more = Plan.from_json(made.to_json())
            more.epochs = more.tuned_for = made.epochs + 1
            if made.equal_seconds:
                more.equal_seconds = more.epochs * SPEEDS["lstm"].an_epoch
            assert by_hand(more) > 60 * minutes * SHARE


def test_parts_are_left_out_in_their_order_and_each_when_it_must_be() -> None:
    found = [make(minutes) for minutes in reversed(MINUTES)]
    assert found[0].left_out == [] and found[-1].left_out == PARTS
    seen = set()
    for made in found:
        out = made.left_out
        assert out == PARTS[: len(out)]
        seen.add(len(out))
        assert (made.fractions == ()) == (FRACTIONS_OUT in out)
        assert (made.equal_seconds == 0) == (EQUAL_OUT in out)
        assert made.trials == (4 if HALF in out else 8)
        assert made.candidates == NAMES[: 5 - sum(name in out for name in NAMES)]
        assert made.seeds == 6  # never fewer: they decide
        if len(out) < len(PARTS):
            assert made.epochs >= LEAST_EPOCHS
    assert len(seen) >= 4  # the minutes above meet most stages


def test_epochs_never_fall_with_more_minutes_and_the_same_parts() -> None:
    last: dict[tuple, int] = {}
    for minutes in [m / 2 for m in range(1, 400)]:
        made = make(minutes)
        parts = tuple(made.left_out)
        assert made.epochs >= last.get(parts, 0)
        last[parts] = made.epochs
    assert max(last.values()) == plan.MOST_EPOCHS
    assert min(last) == ()


def test_the_most_epochs_are_those_asked_for() -> None:
    made = make(400, most_epochs=3)
    assert made.epochs == made.tuned_for == 3
    assert made.left_out == []  # fewer than the least, but as asked
    assert make(400, trials=2, seeds=3).trials == 2
    assert make(400, trials=2, seeds=3).seeds == 3
    assert make(400, fractions=()).left_out == []


def test_the_table_of_equal_seconds_is_as_long_as_the_reference_trains() -> None:
    made = make(150)
    assert made.equal_seconds == pytest.approx(made.epochs * 50 * 0.01)
    assert made.epochs_in(SPEEDS["lstm"]) == made.epochs
    slower = made.epochs_in(SPEEDS["slstm"])  # 2.5 s of training an epoch against .5
    assert slower == round(made.equal_seconds / 2.5) < made.epochs
    made.equal_seconds = 0.01
    assert made.epochs_in(SPEEDS["slstm"]) == 1


def test_a_plan_is_the_same_after_json() -> None:
    for minutes in (0.1, 20, 400):
        made = make(minutes)
        again = Plan.from_json(json.loads(json.dumps(made.to_json())))
        assert again == made and isinstance(again.fractions, tuple)


def test_costs_are_measured_by_the_clock(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that goes on a second with every call: one call does several updates, or a part of
    the scoring, or a batch of 32."""
    seconds = itertools.count()
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    kept: list[Experiment] = []
    monkeypatch.setattr(cost, "Experiment", lambda *of: kept.append(Experiment(*of)) or kept[0])
    config = small(text, num_steps=5, cell="rnn", depth=1, drop_x=0.0, drop_i=0.0, drop_h=0.0)
    found = cost.speed(config, QUIET)
    (experiment,) = kept
    together = experiment.batches.alike(0, experiment.width)
    valid = experiment.task.batches(config, experiment.dataset, "valid", "batched", slice(None))
    assert together > 1 and len(valid) > 4
    assert found.updates == len(experiment.batches)
    assert found.update == pytest.approx(1 / together)
    assert found.validation == pytest.approx(len(valid) / 4)  # four batches are measured

    config, graphdef, params = language_model(cell="rnn", depth=1, num_layers=1)
    run = Run(Path(), config, tasks.of(config), None, graphdef, params, {})
    measured = cost.latency(run, window(np.zeros((2, 3)), np.zeros((2, 3))))
    assert measured == {
        "latency_us": {"p50": 1e6, "p99": 1e6}, "window_us": 1e6, "throughput": 32.0,
    }  # fmt: skip
    monkeypatch.setattr(cost, "_times", lambda call, most: [i / 1e6 for i in range(1, 102)])
    measured = cost.latency(run, window(np.zeros((2, 3)), np.zeros((2, 3))))
    assert measured["latency_us"] == pytest.approx({"p50": 51.0, "p99": 100.0})


# ---------------------------------------------------------------------------- after tuning


def tables(made: Plan) -> float:
    """Seconds of what comes after tuning."""
    epochs = {name: 50 * SPEEDS[name].update + 0.2 for name in made.candidates}
    tuning = sum(made.trials * (4 + made.tuned_for * epoch) for epoch in epochs.values())
    assert plan.tuning_seconds(made, SPEEDS) == pytest.approx(tuning)
    return by_hand(made) - tuning


def test_a_plan_that_still_fits_is_not_changed_by_revising() -> None:
    made = make(150)
    before = made.to_json()
    again = plan.revise(made, SPEEDS, tables(made) / 2 + 1, 2)
    assert again.to_json() | {"seconds": 0} == before | {"seconds": 0}
    assert again.seconds == pytest.approx(tables(made) / 2)


def test_revising_takes_the_speeds_of_tuning_for_the_table_of_equal_seconds() -> None:
    made = make(150)
    faster = {name: dataclasses.replace(s, update=s.update / 2) for name, s in SPEEDS.items()}
    again = plan.revise(made, faster, math.inf, 1)
    assert again.equal_seconds == pytest.approx(made.equal_seconds / 2)


def test_revising_leaves_out_parts_in_order_and_at_most_half_of_the_epochs() -> None:
    made = make(150)
    before = made.to_json()
    whole, left_out = tables(made), []
    for share in (0.99, 0.7, 0.5, 0.45, 0.3, 0.2, 0.01):
        again = plan.revise(made, SPEEDS, whole * share, 1)
        assert made.to_json() == before  # a new one
        assert again.seconds == pytest.approx(tables(again))
        assert again.tuned_for == made.epochs and again.trials == made.trials
        assert again.candidates == made.candidates and again.seeds == made.seeds
        epochs = [f"{made.epochs - again.epochs} of {made.epochs} epochs after tuning"]
        said = [FRACTIONS_OUT, EQUAL_OUT, *(epochs if again.epochs < made.epochs else [])]
        assert again.left_out == said[: len(again.left_out)]
        assert len(again.left_out) >= len(left_out)
        left_out = again.left_out
        assert (again.fractions == ()) == (FRACTIONS_OUT in left_out)
        assert (again.equal_seconds == 0) == (EQUAL_OUT in left_out)
        if again.seconds > whole * share:
            assert again.epochs == made.epochs // 2
    assert len(left_out) == 3


def test_the_reference_comes_first_and_the_last_candidates_go_first() -> None:
    assert next(iter(CANDIDATES)) == "lstm"
    assert list(CANDIDATES)[-2:] == ["rhn-5", "mi-rhn-5"]
