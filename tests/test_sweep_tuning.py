"""A grid tuned first: equal trials for each point, the best of its own, seeds that are new."""

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import call_module
from optuna.trial import TrialState

from rnnx import config as configs
from rnnx.errors import UserError
from rnnx.report.runs import Run
from rnnx.sweep import space
from rnnx.sweep.ledger import Ledger, Plan
from rnnx.sweep.tuning import Tuning, known_points, shortened, trials_of, tuned
from rnnx.tasks.language import Language


def plan(points: list[dict], **changes) -> Plan:
    config = configs.default()
    config.update(changes)
    return Plan(config, [], points=points)


def test_points_are_spread_over_the_space() -> None:
    """A third of eighteen in each third of a range; of choices and whole numbers too."""
    found = space.spread(space.search("learning_rate=log:1e-3..1;depth=1..3;cell=rnn,gru"), 18)
    rates = [point["learning_rate"] for point in found]
    for low in (1e-3, 1e-2, 1e-1):
        assert 5 <= sum(low <= rate < 10 * low for rate in rates) <= 7
    for depth in (1, 2, 3):
        assert 5 <= sum(point["depth"] == depth for point in found) <= 7
    assert 8 <= sum(point["cell"] == "gru" for point in found) <= 10
    assert (
        space.spread(space.search("drop_h=0..0.5"), 4)
        == space.spread(space.search("drop_h=0..0.5"), 8)[:4]
    )


def test_every_point_is_run_with_the_first_seed_before_any_has_the_second() -> None:
    assert space.repeated([{"depth": 1}, {"depth": 2}], (3, 4)) == [
        {"depth": 1, "seed": 3}, {"depth": 2, "seed": 3},
        {"depth": 1, "seed": 4}, {"depth": 2, "seed": 4},
    ]  # fmt: skip


@pytest.mark.parametrize("lower", [True, False])
def test_a_search_goes_where_scores_are_better(
    lower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Language, "lower_is_better", lower)
    ledger = Ledger(
        tmp_path, Plan(configs.default(), [], space=space.search("depth=1..9"), trials=3)
    )
    for value in (2.0, 1.0, 3.0):
        assert ledger.tell(ledger.claim(), TrialState.COMPLETE, value)
    assert ledger.study.best_value == (1.0 if lower else 3.0)


def test_every_point_gets_the_same_trials() -> None:
    seeds = [{"cell": c, "seed": s} for s in (1, 2) for c in ("rnn", "gru")]
    trials = trials_of(
        plan(seeds, epochs=16, flat_epochs=8, lr_decay=10 ** (1 / 8)),
        Tuning(space.search("learning_rate=log:1e-3..1"), 3, 2),
    )
    by_cell = {c: [p for p in trials.points if p["cell"] == c] for c in ("rnn", "gru")}
    rates = {c: [p["learning_rate"] for p in points] for c, points in by_cell.items()}
    assert rates["rnn"] == rates["gru"] and len(set(rates["rnn"])) == 3
    assert all("seed" not in point for point in trials.points)
    assert (trials.config.epochs, trials.config.flat_epochs) == (2, 1)
    assert trials.config.lr_decay == 10.0 and not trials.config.score_test
    assert "--config.score_test=False" in trials.arguments


@pytest.mark.parametrize("epochs, flat, decay", [(8, 4, 10 ** (1 / 4)), (16, 8, 10 ** (1 / 8))])
def test_a_shortened_schedule_ends_at_the_same_rate(epochs: int, flat: int, decay: float) -> None:
    config = plan([], epochs=16, flat_epochs=8, lr_decay=10 ** (1 / 8)).config
    found = shortened(config, epochs)
    assert (found["epochs"], found["flat_epochs"]) == (epochs, flat)
    assert found["lr_decay"] == pytest.approx(decay, rel=1e-5)
    constant = plan([], epochs=10, flat_epochs=10, lr_decay=2.0).config
    assert shortened(constant, 3) == {"epochs": 3, "flat_epochs": 3, "lr_decay": 1.0}


def test_a_tuned_field_cannot_be_in_the_grid() -> None:
    with pytest.raises(UserError, match="depth is in the grid"):
        trials_of(plan([{"depth": 1}]), Tuning(space.search("depth=1..3"), 2, 1))


def test_each_point_takes_the_best_of_its_own_trials() -> None:
    def ended(value: float | None, **fields):
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        trial = optuna.trial.create_trial(value=value, state=state)
        return trial, fields

    grid = plan([{"cell": c, "seed": s} for s in (1, 2) for c in ("rnn", "gru")])
    tuning = Tuning(space.search("learning_rate=0..1"), 3, 1)
    trials = [
        ended(0.5, cell="rnn", learning_rate=0.4, depth=1),  # another point, with more fields
        ended(2.0, cell="rnn", learning_rate=0.1), ended(1.0, cell="gru", learning_rate=0.1),
        ended(1.5, cell="rnn", learning_rate=0.2), ended(1.2, cell="gru", learning_rate=0.2),
        ended(None, cell="rnn", learning_rate=0.3),
    ]  # fmt: skip
    found = tuned(grid, tuning, trials).points
    assert found == [
        {"cell": c, "learning_rate": rate, "seed": s}
        for s in (1, 2)
        for c, rate in (("rnn", 0.2), ("gru", 0.1))
    ]
    with pytest.raises(UserError, match="every tuning trial of cell=rnn failed"):
        tuned(grid, tuning, trials[-1:])


def test_runs_done_elsewhere_are_known_by_all_that_decides_their_numbers(tmp_path: Path) -> None:
    grid = plan([{"depth": 1}, {"depth": 2}, {"depth": 3}], param_budget=9000, epochs=4)

    def done(**fields) -> Run:
        config = grid.config.to_dict() | {"hidden_size": 31, "data_dir": "there"} | fields
        return Run("a", config, 0, "", "", "", scores={"valid": 1.25})

    unfinished = done(depth=2)
    unfinished.scores = {}
    runs = [done(depth=1), unfinished, done(depth=3, epochs=5), done(depth=3, seed=1)]
    runs += [done(depth=3, max_steps=10), done(depth=1, embed_size=31)]
    grid.known = known_points(grid, runs)
    assert grid.known == [({"depth": 1}, 1.25)]
    wide = plan([{"embed_size": 100}, {"embed_size": 200}])
    run = Run("a", wide.config.to_dict() | {"embed_size": 100}, 0, "", "", "")
    run.scores = {"valid": 1.0}
    assert known_points(wide, [run]) == [({"embed_size": 100}, 1.0)]
    ledger = Ledger(tmp_path / "s", grid)
    assert [t.value for t in ledger.ended()] == [1.25]
    claims = [ledger.claim() for _ in range(2)]
    assert [claim.point for claim in claims] == [{"depth": 2}, {"depth": 3}]
    assert ledger.claim() is None
    assert len(Ledger(tmp_path / "s", grid).ended()) == 1, "entered again"


def test_a_sweep_tunes_first_and_then_trains_with_new_seeds(
    trials_that: Callable,
    config_file: Path,
    tmp_path: Path,
) -> None:
    trials_that({0: 1.4, 1: 1.0})
    done = call_module(
        "sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", "--grid=depth=1",
        "--tune=learning_rate=log:1e-3..1", "--trials=2", "--tune_epochs=1", "--seeds=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    second = space.spread(space.search("learning_rate=log:1e-3..1"), 2)[1]["learning_rate"]
    names = sorted(path.name for path in (tmp_path / "s" / "trials").iterdir())
    assert names == [f"00{i},depth=1,learning_rate={second:g},seed={i + 1}" for i in (0, 1)]
    tuning = json.loads((tmp_path / "s" / "tune" / "sweep.json").read_text())
    assert tuning["format"] == 1


def test_trials_are_as_long_as_runs_unless_told_and_all_have_the_size_asked_for(
    trials_that: Callable,
    config_file: Path,
    tmp_path: Path,
) -> None:
    trials_that({})
    for folder, args, epochs in (("a", [], 9), ("b", ["--tune_epochs=3"], 3)):
        done = call_module(
            "sweep", f"--config={config_file}", f"--workdir={tmp_path / folder}", "--grid=depth=1",
            "--tune=learning_rate=log:1e-3..1", "--trials=1", "--param_budget=5000", *args,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (trial,) = (tmp_path / folder / "tune" / "logs").iterdir()
        (run,) = (tmp_path / folder / "logs").iterdir()
        tried, trained = trial.read_text().split(), run.read_text().split()
        assert f"--config.epochs={epochs}" in tried and "--config.score_test=False" in tried
        assert "--config.param_budget=5000" in tried and "--config.param_budget=5000" in trained
        assert not any(word.startswith("--config.epochs=") for word in trained)


@pytest.mark.parametrize(
    "args, told",
    [
        (["--grid=depth=1", "--tune=learning_rate=0..1"], "go together"),
        (["--grid=depth=1", "--tune_epochs=2"], "for --tune"),
        (["--search=depth=1..2", "--tune=seed=1..2", "--trials=1"], "leave --tune"),
        (["--search=depth=1..2", "--known=a", "--trials=1"], "--known is for a grid"),
        (["--grid=depth=1", "--tune=dept=1..2", "--trials=1"], "did you mean depth"),
        (["--grid=depth=1", "--known=nosuch.json"], "nosuch.json is neither"),
    ],
)
def test_bad_tunings_are_refused_in_one_line(
    args: list[str],
    told: str,
    config_file: Path,
    tmp_path: Path,
) -> None:
    done = call_module("sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", *args)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "s").exists()
