"""Where a run stands, and how it gets back there: nothing is lost, nothing is done twice."""

import gc
import json
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import QUIET, equal, killed_after, lines_of, outcome, small, train

from rnnx import trainer
from rnnx.checkpoint import Checkpoints
from rnnx.errors import UserError
from rnnx.experiment import Experiment
from rnnx.recovery import Progress, Saver
from rnnx.trained import open_run
from rnnx.trainer import Trainer


def steps_saved(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints/latest").iterdir())


def test_a_run_stopped_anywhere_resumes_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    """Killed in mid-epoch and rolled back to its checkpoint, a run loses nothing."""
    fields = {"checkpoint_every": 5, "patience": 1, "optimizer": "adam", "learning_rate": 0.01}
    config = small(text, reset_prob=0.1, **fields)
    whole = Experiment(config, tmp_path / "whole", QUIET)
    per_epoch = len(whole.batches)
    assert per_epoch > 12
    result = trainer.run(whole)
    killed_after(config, tmp_path / "stopped", 8)  # updates after the checkpoint of step 5
    killed_after(config, tmp_path / "stopped", per_epoch + 6)  # in the second epoch
    resumed = Experiment(config, tmp_path / "stopped", QUIET)
    assert outcome(trainer.run(resumed)) == outcome(result)
    assert equal(resumed.state, whole.state)
    assert lines_of(tmp_path / "stopped") == lines_of(tmp_path / "whole")
    steps = [line["step"] for line in lines_of(tmp_path / "whole") if line["kind"] == "step"]
    assert steps == list(range(1, 3 * per_epoch + 1))


def test_a_long_epoch_is_saved_within(text: Path, tmp_path: Path, monkeypatch) -> None:
    config = small(text, epochs=1)
    whole = train(config, tmp_path / "whole")
    assert [0 < step < 9 for step in steps_saved(tmp_path / "whole")] == [False, False]
    monkeypatch.setattr(Saver, "MINUTES", 0)
    killed_after(config, tmp_path / "stopped", 8)
    saved = steps_saved(tmp_path / "stopped")
    assert 0 < saved[-1] <= 8, saved
    assert outcome(train(config, tmp_path / "stopped")) == outcome(whole)


def test_nothing_but_the_trainer_holds_the_state_of_a_resumed_run(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """The drawn variables would take memory beside the restored ones, to the end of the run."""
    config = small(text, checkpoint_every=5, optimizer="adam")
    killed_after(config, tmp_path / "run", 8)
    experiment = Experiment(config, tmp_path / "run", QUIET)
    drawn = [weakref.ref(a) for a in jax.tree.leaves(experiment.state)]
    updates, alive = experiment.updates, []

    def watched(*arguments):
        gc.collect()
        alive.append(sum(ref() is not None for ref in drawn))
        return updates(*arguments)

    monkeypatch.setattr(experiment, "updates", watched)
    trainer.run(experiment)
    assert len(drawn) > 6 and not any(alive)
    assert experiment.state is not None


def test_a_kill_between_the_first_two_checkpoints_is_no_damage(
    text: Path, tmp_path: Path, monkeypatch, every_epoch_saved: None
) -> None:
    """The first epoch's best parameters are saved, the state after them is not."""
    config = small(text, epochs=2)
    expected = train(config, tmp_path / "whole")
    save_best = Checkpoints.save_best

    def die(self: Checkpoints, step: int, params: dict, info: dict) -> None:
        save_best(self, step, params, info)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save_best", die)
        train(config, tmp_path / "killed")
    saved = tmp_path / "killed" / "checkpoints"
    assert [len(list((saved / kind).iterdir())) for kind in ("best", "latest")] == [1, 1]
    assert outcome(train(config, tmp_path / "killed")) == outcome(expected)


def test_short_epochs_are_not_all_saved(text: Path, tmp_path: Path, monkeypatch) -> None:
    """The start, the ends of epochs when so much time has passed, and the end of the run; the best
    parameters with the checkpoint that follows them."""
    saved: list[tuple[str, int]] = []
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr("rnnx.recovery.monotonic", lambda: float(next(now)))
    monkeypatch.setattr(Saver, "late", False)
    for kind in ("latest", "best"):
        save = getattr(Checkpoints, f"save_{kind}")

        def noted(self: Checkpoints, step: int, *rest, save=save, kind=kind) -> None:
            saved.append((kind, step))
            save(self, step, *rest)

        monkeypatch.setattr(Checkpoints, f"save_{kind}", noted)
    scores = iter([5.0, 4.0, 3.0, 6.0])
    monkeypatch.setattr(Trainer, "validate", lambda self: {"nll": next(scores), "tokens": 1})
    config = small(text, epochs=4)
    n = len(Experiment(config, tmp_path / "none", QUIET).batches)
    train(config, tmp_path / "run")
    # The clock moves on by 2 s whenever it is looked at: at a save, and when an epoch ends.
    assert saved == [
        ("latest", 0), ("best", 3 * n), ("latest", 3 * n), ("latest", 4 * n),
    ]  # fmt: skip
    assert open_run(tmp_path / "run").info["step"] == 3 * n


def test_max_steps_can_be_raised_later(text: Path, tmp_path: Path) -> None:
    """A stop at max_steps, in mid-epoch and evaluated there, leaves no trace in a longer run."""
    once = Experiment(small(text, epochs=2), tmp_path / "once", QUIET)
    expected = trainer.run(once)
    short = train(small(text, epochs=2, max_steps=5), tmp_path / "twice")
    assert short["epoch"] == 0 and short["valid"]["nll"] > expected["valid"]["nll"]
    longer = Experiment(small(text, epochs=2), tmp_path / "twice", QUIET)
    assert outcome(trainer.run(longer)) == outcome(expected)
    assert equal(longer.state, once.state)


def test_a_refused_command_changes_nothing(text: Path, tmp_path: Path) -> None:
    """Lost metrics, or a lost checkpoint, of a finished run: told, and nothing else is touched."""
    folder = tmp_path / "run"
    train(small(text, epochs=1), folder)
    kept = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    (folder / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="has lost lines"):
        train(small(text, epochs=2), folder)
    (tmp_path / "metrics.jsonl").rename(folder / "metrics.jsonl")
    shutil.rmtree(folder / "checkpoints" / "latest")
    with pytest.raises(UserError, match="latest is gone"):
        train(small(text, epochs=2), folder)
    assert {p.name: p.read_bytes() for p in folder.glob("*.json")} == kept
    assert any((folder / "checkpoints" / "best").iterdir())


# ---------------------------------------------------------------------------- progress


FIRST = {  # of a run of batch_size 8 and num_steps 25, as format 1 kept it
    "step": 31, "epoch": 1, "window": 9, "nats": 3000.0, "skipped": 1, "skipped_in_a_row": 0,
    "best_nll": 2.5, "best_step": 22, "bad_epochs": 1, "halvings": 0, "seconds": 4.5,
    "tokens": 6200, "log_position": 4321,
}  # fmt: skip


def test_progress_comes_back_from_its_json() -> None:
    progress = Progress(step=7, epoch=1, best=2.5, best_step=5, targets=9)
    progress.add({"nll": (np.float32(10.0), 4), "other": (1.5, 2)})
    progress.add({"nll": (2.0, 1)})
    assert progress.sums == {"nll": [12.0, 5.0], "other": [1.5, 2.0]}
    stored = json.loads(json.dumps(progress.to_json()))
    assert Progress.from_json(stored, 1) == progress


def test_progress_of_the_first_format_is_converted() -> None:
    """It counted no targets of its nats: those of the batches that were not passed over."""
    progress = Progress.from_json(dict(FIRST), targets_per_batch=200)
    assert progress.sums == {"nll": [3000.0, 8 * 200]}
    assert (progress.batch, progress.best, progress.targets) == (9, 2.5, 6200)
    same = ("step", "epoch", "skipped", "best_step", "bad_epochs", "seconds", "log_position")
    assert {name: getattr(progress, name) for name in same} == {n: FIRST[n] for n in same}
    begun = FIRST | {"window": 0, "nats": 0.0, "skipped": 0, "best_nll": math.inf, "best_step": 0}
    progress = Progress.from_json(begun, 200)
    assert progress.sums == {} and progress.best is None


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored | {"format": 99},
        lambda stored: stored | {"format": None},
        lambda stored: stored | {"epochs": stored.pop("epoch")},  # a field by another name
        lambda stored: stored | {"younger": 1},
        lambda stored: {k: v for k, v in stored.items() if k != "batch"},
    ],
)
def test_another_format_of_progress_is_refused_in_one_line(change: Callable) -> None:
    with pytest.raises(UserError, match="progress has another format") as error:
        Progress.from_json(change(Progress(step=3).to_json()), 1)
    assert "\n" not in str(error.value)


def test_a_first_format_with_a_renamed_field_is_refused_in_one_line() -> None:
    stored = {("steps" if name == "step" else name): value for name, value in FIRST.items()}
    with pytest.raises(UserError, match=r"another format \(1\)"):
        Progress.from_json(stored, 1)


def test_training_time_goes_on_from_a_checkpoint(text: Path, tmp_path: Path, monkeypatch) -> None:
    config, kept, init = small(text, checkpoint_every=5, epochs=1), [], Trainer.__init__
    killed_after(config, tmp_path / "run", 12)

    def seen(self: Trainer, *args) -> None:
        init(self, *args)
        kept.append((self.progress.seconds, self.clock.targets))

    monkeypatch.setattr(Trainer, "__init__", seen)
    train(config, tmp_path / "run")
    ((seconds, targets),) = kept
    assert seconds > 0 and targets > 0


def test_a_run_that_trains_again_has_no_result(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(small(text, epochs=1), folder)
    assert (folder / "result.json").exists()
    per_epoch = len(Experiment(small(text, epochs=2), folder, QUIET).batches)
    killed_after(small(text, epochs=2), folder, per_epoch + 3)
    assert not (folder / "result.json").exists()


def test_rolling_back_drops_a_best_that_came_later(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    saver = Saver(checkpoints, 0, False)
    saver.hold_best(9, {"b": np.ones(4)}, {"step": 9})
    saver.roll_back(5)
    saver.write(7, {"b": np.ones(4)}, Progress(step=7))
    assert not checkpoints.has_best
    checkpoints.close()


def test_a_finished_run_without_checkpoints_is_refused(text: Path, tmp_path: Path) -> None:
    """Not begun anew: what it came to would be lost."""
    folder = tmp_path / "run"
    train(small(text, epochs=1), folder)
    for kind in ("latest", "best"):
        shutil.rmtree(folder / "checkpoints" / kind)
    with pytest.raises(UserError, match="latest is gone"):
        train(small(text, epochs=2), folder)
