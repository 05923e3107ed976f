"""What a person sees of a run."""

import io
import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState, create_trial

from rnnx import display as displays
from rnnx import tasks
from rnnx.display import Display
from rnnx.sweep import runner, screen
from rnnx.sweep.screen import Progress, Screen
from rnnx.tasks.language import Language
from rnnx.tasks.task import Unit


def test_progress_is_plain_lines_off_a_terminal(monkeypatch) -> None:
    now, stream = 0.0, io.StringIO()
    monkeypatch.setattr(displays.time, "monotonic", lambda: now)
    display = Display(stream)
    display.start("epoch 1", total=100, done=20)
    for done in range(21, 61):
        now += 1.0
        display.update(done, "5 tokens/s")
    display.finish()
    assert stream.getvalue() == "epoch 1: 50/100 5 tokens/s  ETA 50 s\n"


@pytest.mark.parametrize("ends", [os.pipe, pty.openpty])
def test_a_run_that_nobody_reads_goes_on(ends: Callable[[], tuple[int, int]]) -> None:
    """As after `| head`, and where a terminal's window was closed."""
    hear, tell = ends()
    with os.fdopen(tell, "w") as stream:
        display = Display(stream)
        assert display.console.is_terminal == (ends is pty.openpty)
        display.print("epoch 1")
        os.close(hear)
        for _ in range(3):
            display.print("epoch 1")
            display.start("epoch 2", total=2)
            display.update(1)
            display.finish()
        assert os.path.samestat(os.stat(os.devnull), os.fstat(stream.fileno()))


def test_other_faults_of_a_stream_are_told() -> None:
    with open("/dev/full", "w") as stream, pytest.raises(OSError, match="No space"):
        try:
            Display(stream).print("epoch 1")
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def sweep(*values: float | None, total: int = 0) -> SimpleNamespace:
    """What a screen asks of a sweep whose trials ended with these scores; None: failed."""
    trials = []
    for number, value in enumerate(values):
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        trials.append(create_trial(value=value, state=state))
        trials[-1].number = number
    return SimpleNamespace(
        ended=lambda: trials, total=total or len(trials), elsewhere=lambda ours: [], folder="s",
        point=lambda trial: {"depth": trial.number + 1},
        plan=SimpleNamespace(task=tasks.get("language")),
    )  # fmt: skip


def test_the_end_of_a_sweep_is_expected_at_the_pace_so_far(monkeypatch) -> None:
    """A trial that was resumed did half of its updates in 100 s; 2.25 trials are to come."""
    now, stream = 0.0, io.StringIO()
    monkeypatch.setattr(screen.time, "monotonic", lambda: now)
    shown = Screen(sweep(1.0, total=4), Unit("nats", "nats", 2), stream)
    now = 100.0
    shown.show([Progress(1, {}, 2, None, share=0.75, first_share=0.25, seconds=100.0)])
    assert stream.getvalue() == "1 of 4 trials ended; running 001 (75%); ETA 7 min 30 s\n"


@pytest.mark.parametrize("lower", [True, False])
def test_the_best_trials_come_first_and_the_failed_last(lower: bool, monkeypatch) -> None:
    monkeypatch.setattr(Language, "lower_is_better", lower)
    stream = io.StringIO()
    Screen(sweep(None, 2.0, 1.0, 3.0), Unit("nats", "nats", 2), stream).summary()
    rows = [line.split() for line in stream.getvalue().splitlines()]
    told = [(row[0], row[-1]) for row in rows if row[0].isdigit() and row[-1] in ("done", "failed")]
    order = ["002", "001", "003"] if lower else ["003", "001", "002"]
    assert told == [*((number, "done") for number in order), ("000", "failed")]


def test_a_trial_is_shown_with_what_its_run_has_written(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"updates": 8}')
    lines = [
        {"kind": "epoch", "epoch": epoch, "step": 2 * (epoch + 1), "valid_batched_nll": valid}
        for epoch, valid in enumerate((2.5, 1.5, 2.0))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = runner.Metrics(tmp_path, tasks.get("language"))
    metrics.read()
    claim = SimpleNamespace(trial=SimpleNamespace(number=7), point={"depth": 1})
    shown = runner.Job(claim, None, metrics, 0, begun=0.0).progress
    assert shown[:6] == (7, {"depth": 1}, 3, 1.5, 0.75, 0.0)
