"""Nothing lost: damaged state, full disks, numbers gone wrong, signals in the wrong moment."""

import collections
import errno
import itertools
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import (
    QUIET,
    ROOT,
    equal,
    killed_after,
    lines_of,
    one_device,
    outcome,
    small,
    train,
)

from rnnx import optim, recovery, trainer
from rnnx.checkpoint import Checkpoints, fingerprint, read_best, read_epochs
from rnnx.display import Display
from rnnx.errors import Diverged, Outage, UserError
from rnnx.experiment import Experiment
from rnnx.metrics import Pace
from rnnx.trained import open_run
from rnnx.trainer import Trainer


class Told(Display):
    """A display that keeps its lines."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def print(self, *args) -> None:
        self.lines += map(str, args)


# ---------------------------------------------------------------------------- damaged state


def state(value: float) -> dict:
    rng = np.random.default_rng(int(value))
    return {"U": jnp.asarray(rng.normal(size=(40, 50)), jnp.float32), "n": jnp.int32(value)}


def damage(path: Path, kind: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del data[rng.randrange(len(data) or 1) :]
    elif kind == "zeros":
        data[:] = bytes(len(data))
    elif kind == "noise":
        data[:] = rng.randbytes(len(data))
    path.write_bytes(data)
    if kind == "delete":
        path.unlink()


@pytest.mark.parametrize("trials", [21, pytest.param(105, marks=pytest.mark.long)])
def test_a_damaged_checkpoint_is_found_and_the_one_before_taken(
    trials: int, seed: int, tmp_path: Path
) -> None:
    """One file of the newest is damaged: either that does not matter, or it is said."""
    checkpoints, told = Checkpoints(tmp_path / "sound"), []
    for step in (1, 2):
        checkpoints.save_latest(step, state(step), {"step": step, "nats": step / 3})
    checkpoints.close()
    newest = tmp_path / "sound" / "checkpoints" / "latest" / "2"
    files = sorted(p.relative_to(tmp_path) for p in newest.rglob("*") if p.is_file())
    rng, fell_back = random.Random(seed), 0
    for trial in range(trials):
        shutil.rmtree(tmp_path / "tried", ignore_errors=True)
        shutil.copytree(tmp_path / "sound", tmp_path / "tried")
        file = tmp_path / "tried" / rng.choice(files).relative_to("sound")
        kind = ("flip", "flip", "flip", "truncate", "zeros", "noise", "delete")[trial % 7]
        damage(file, kind, rng)
        told.clear()
        checkpoints = Checkpoints(tmp_path / "tried", told.append)
        got, values = checkpoints.restore_latest(state(0))
        step = values["step"]
        assert values == {"step": step, "nats": step / 3} and equal(got, state(step)), (kind, file)
        assert len(told) == 2 - step
        if step == 1:
            fell_back += 1
            assert "latest/2 does not load" in told[0] and "taking that of step 1" in told[0]
            assert "\n" not in told[0]
            # Out of the way: step 2 is saved anew when the run comes by.
            checkpoints.save_latest(2, state(2), {"step": 2})
            assert checkpoints.restore_latest(state(0))[1] == {"step": 2}
            assert (tmp_path / "tried" / "checkpoints" / "damaged" / "latest-2").is_dir()
        checkpoints.close()
    assert trials / 6 < fell_back < trials * 5 / 6


def test_sound_arrays_of_another_checkpoint_are_damage(tmp_path: Path) -> None:
    """What the file format itself can't see: the sums have to."""
    checkpoints, told = Checkpoints(tmp_path), []
    for step in (1, 2):
        checkpoints.save_latest(step, state(step), {"step": step})
    checkpoints.close()
    latest = tmp_path / "checkpoints" / "latest"
    shutil.rmtree(latest / "2" / "arrays")
    shutil.copytree(latest / "1" / "arrays", latest / "2" / "arrays")
    got, values = Checkpoints(tmp_path, told.append).restore_latest(state(0))
    assert values == {"step": 1} and equal(got, state(1))
    assert len(told) == 1 and "latest/2 does not load" in told[0]


def test_where_all_are_damaged_it_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save_latest(step, state(step), {"step": step})
    checkpoints.close()
    for path in (tmp_path / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="latest/2 does not load") as error:
        Checkpoints(tmp_path).restore_latest(state(0))
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "latest").iterdir()) == ["1", "2"]


def test_any_changed_bit_or_place_changes_the_fingerprint() -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(7, 9)).astype(np.float32), "b": np.arange(5, dtype=np.int32)}
    sums = {fingerprint(arrays)}
    for name, array in arrays.items():
        for place in range(array.size):
            for bit in (0, 13, 31):
                changed = array.copy()
                changed.view(np.uint32).flat[place] ^= np.uint32(1 << bit)
                sums.add(fingerprint(arrays | {name: changed}))
    sums.add(fingerprint(arrays | {"a": arrays["a"][::-1]}))
    sums.add(fingerprint({"a": arrays["b"], "b": arrays["a"]}))
    assert len(sums) == 1 + 3 * (63 + 5) + 2
    zeros = {"a": np.zeros(3, np.float32)}
    assert fingerprint(zeros) != fingerprint({"a": -zeros["a"]})
    assert all(len(s) == 16 for s in sums)


def test_a_run_goes_on_from_the_older_checkpoint_to_the_same_bits(
    text: Path, tmp_path: Path
) -> None:
    config = small(text, checkpoint_every=5, epochs=2)
    whole = Experiment(config, tmp_path / "whole", QUIET)
    expected = trainer.run(whole)
    killed_after(config, tmp_path / "run", 12)
    latest = tmp_path / "run" / "checkpoints" / "latest"
    assert sorted(p.name for p in latest.iterdir()) == ["10", "5"]
    (latest / "10" / "values" / "metadata").write_text("{}")
    display = Told()
    resumed = Experiment(config, tmp_path / "run", display)
    assert outcome(trainer.run(resumed)) == outcome(expected)
    assert "latest/10 does not load" in display.lines[0]
    assert display.lines[0].endswith("taking that of step 5")
    assert display.lines[1] == "resuming from step 5, in epoch 1"
    assert equal(resumed.state, whole.state)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


def test_a_lost_best_is_said_and_an_older_one_or_the_next_takes_its_place(
    text: Path, tmp_path: Path, every_epoch_saved: None
) -> None:
    per_epoch = len(Experiment(small(text), tmp_path / "none", QUIET).batches)
    killed_after(small(text, epochs=3), tmp_path / "run", 2 * per_epoch + 1)
    best = tmp_path / "run" / "checkpoints" / "best"
    first, second = sorted(int(p.name) for p in best.iterdir())
    assert (first, second) == (per_epoch, 2 * per_epoch)
    shutil.copytree(tmp_path / "run", tmp_path / "both")
    (best / str(second) / "values" / "metadata").unlink()
    display = Told()
    experiment = Experiment(small(text, epochs=3), tmp_path / "run", display)
    trainer.run(experiment)
    assert f"best/{second} does not load" in display.lines[1]
    for step in (first, second):
        (tmp_path / "both/checkpoints/best" / str(step) / "values" / "metadata").unlink()
    assert not (tmp_path / "both" / "result.json").exists()
    like = experiment.state.params
    with pytest.raises(UserError, match=f"best/{second} does not load"):
        read_best(tmp_path / "both", like)
    # Nothing is left to train: the parameters of the end are the best there are.
    result = train(small(text, epochs=2), tmp_path / "both")
    assert result["epoch"] == 1
    assert open_run(tmp_path / "both").info["step"] == second


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Makes validation give these nats, one after the other."""
    given = iter(scores)
    monkeypatch.setattr(Trainer, "validate", lambda self: {"nll": next(given), "tokens": 1})


def test_a_halved_rate_stays_halved_after_a_kill(
    text: Path, tmp_path: Path, monkeypatch, every_epoch_saved: None
) -> None:
    scored(monkeypatch, 2.0, 3.0, 1.0)
    config = small(text, epochs=3, patience=1, lr_decay=1.0)
    per_epoch = len(Experiment(config, tmp_path / "none", QUIET).batches)
    killed_after(config, tmp_path / "run", 2 * per_epoch + 1)
    train(config, tmp_path / "run")
    rates = [line["lr"] for line in lines_of(tmp_path / "run") if line["kind"] == "epoch"]
    assert rates == [0.2, 0.2, 0.1]


def test_parameters_of_a_stop_in_mid_epoch_are_not_the_best_of_a_longer_run(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    scored(monkeypatch, 2.0, 1.0, 3.0)
    folder = tmp_path / "run"
    per_epoch = len(Experiment(small(text), folder, QUIET).batches)
    train(small(text, epochs=2, max_steps=per_epoch + 5), folder)
    assert open_run(folder).info["step"] == per_epoch + 5
    train(small(text, epochs=2), folder)
    assert open_run(folder).info["step"] == per_epoch


def test_a_lost_best_is_no_longer_the_score_to_beat(
    text: Path, tmp_path: Path, monkeypatch, every_epoch_saved: None
) -> None:
    """Of scores 2, 1, 1.5 the second is lost: the third betters the first, which is left."""
    scored(monkeypatch, 2.0, 1.0, 1.5)
    folder = tmp_path / "run"
    per_epoch = len(Experiment(small(text), tmp_path / "none", QUIET).batches)
    killed_after(small(text), folder, 2 * per_epoch + 1)
    (folder / "checkpoints/best" / str(2 * per_epoch) / "values" / "metadata").unlink()
    assert train(small(text), folder)["epoch"] == 2


# ---------------------------------------------------------------------------- disks


@pytest.mark.parametrize("told", [OSError(errno.ESTALE, "Stale file handle"), MemoryError()])
def test_a_read_that_fails_for_another_reason_is_no_damage(
    told: Exception, text: Path, tmp_path: Path, monkeypatch
) -> None:
    config = small(text)
    killed_after(config, tmp_path / "run", 7)
    before = sorted((tmp_path / "run" / "checkpoints").rglob("*"))

    def refuse(*_, **__):
        raise told

    with monkeypatch.context() as patch:
        patch.setattr("rnnx.checkpoint.ocp.CheckpointManager.restore", refuse)
        with pytest.raises(Outage, match="cannot read"):
            train(config, tmp_path / "run")
    assert sorted((tmp_path / "run" / "checkpoints").rglob("*")) == before
    train(config, tmp_path / "run")


@pytest.mark.parametrize("what", ["metrics", "checkpoints"])
def test_a_full_disk_is_told_in_one_line_and_costs_nothing_saved(
    what: str, text: Path, tmp_path: Path
) -> None:
    """No file may grow beyond a size that the metrics, or else a checkpoint, will exceed."""
    sizes = {"epochs": 6} if what == "metrics" else {"max_steps": 11}
    config = small(text, checkpoint_every=5, **sizes)
    expected = train(config, tmp_path / "whole")
    killed_after(config, tmp_path / "run", 7)
    largest = max(p.stat().st_size for p in (tmp_path / "run/checkpoints").rglob("*"))
    metrics = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    assert (largest < 0.9 * metrics) if what == "metrics" else (metrics < 0.9 * largest)
    limit, before = (largest + metrics) // 2, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(Outage, match="cannot write") as error:
            train(config, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value) and "File too large" in str(error.value)
    assert not (tmp_path / "run" / "result.json").exists()
    assert outcome(train(config, tmp_path / "run")) == outcome(expected)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


# ---------------------------------------------------------------------------- numbers gone wrong


def poisoned(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, steps: Callable) -> None:
    """Makes the learning rate NaN at steps for which steps(step, rate) holds."""
    updates, calls = experiment.updates, itertools.count()

    def bad(state, batches, seed, number, count, rate):
        assert count == 1 and next(calls) < 300, "rolled back forever"
        if steps(int(number), float(rate)):
            rate = np.float32(np.nan)
        return updates(state, batches, seed, number, count, rate)

    monkeypatch.setattr(experiment, "updates", bad)
    monkeypatch.setattr(Pace, "note", lambda *_: None)


def test_rollback_goes_on_at_half_the_rate(text: Path, tmp_path: Path, monkeypatch) -> None:
    config = small(text, checkpoint_every=5, epochs=2, on_nan="rollback")
    display = Told()
    experiment = Experiment(config, tmp_path / "run", display)
    # The update after step 7 is poisoned until the rate has been halved twice.
    poisoned(experiment, monkeypatch, lambda step, rate: step == 7 and rate > 0.06)
    result = trainer.run(experiment)
    said = [line for line in display.lines if "back to step" in line]
    assert said == [
        "loss nan, gradient norm nan at step 9 (learning rate 0.2): back to step 5, learning "
        "rate 0.1",
        "loss nan, gradient norm nan at step 9 (learning rate 0.1): back to step 5, learning "
        "rate 0.05",
    ]
    steps = [line for line in lines_of(tmp_path / "run") if line["kind"] == "step"]
    assert [s["step"] for s in steps] == list(range(1, 2 * len(experiment.batches) + 1))
    assert [s["lr"] for s in steps[3:7]] == [0.2, 0.2, 0.05, 0.05]
    assert np.isfinite(result["valid"]["nll"])
    # As if the rate had been that one from step 5 on: the numbers are those of a run that was.
    killed_after(config, tmp_path / "other", 7)
    load = recovery.load

    def halved(*arguments):
        state, progress = load(*arguments)
        progress.halvings = 2
        return state, progress

    monkeypatch.setattr(recovery, "load", halved)
    other = Experiment(config, tmp_path / "other", QUIET)
    trainer.run(other)
    assert equal(experiment.state, other.state)


def test_epochs_kept_before_a_rollback_are_replaced(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """Both epochs are kept, none is saved as a checkpoint, and the second comes to nothing."""
    monkeypatch.setattr(recovery.Saver, "due", False)
    config = small(text, epochs=2, snapshot_every=1, on_nan="rollback")
    experiment = Experiment(config, tmp_path / "run", QUIET)
    last = 2 * len(experiment.batches) - 1
    poisoned(experiment, monkeypatch, lambda step, rate: step == last and rate > 0.1)
    trainer.run(experiment)
    train(small(text, epochs=2, snapshot_every=1, learning_rate=0.1), tmp_path / "other")
    like = experiment.state.params
    found, expected = (list(read_epochs(tmp_path / name, like)) for name in ("run", "other"))
    assert len(found) == 2 and equal(found, expected)


def test_rollback_gives_up(text: Path, tmp_path: Path, monkeypatch) -> None:
    config = small(text, checkpoint_every=5, on_nan="rollback")
    experiment = Experiment(config, tmp_path / "run", display := Told())
    poisoned(experiment, monkeypatch, lambda step, rate: step == 7)
    with pytest.raises(Diverged, match="at step 9"):
        trainer.run(experiment)
    assert sum("back to step 5" in line for line in display.lines) == 8


@pytest.mark.parametrize("until", [0.06, 0.0])
def test_a_checkpoint_that_fails_validation_is_not_gone_back_to(
    until: float, text: Path, tmp_path: Path, monkeypatch
) -> None:
    """Several processes save before they validate."""
    config = small(text, epochs=2, on_nan="rollback")
    experiment = Experiment(config, tmp_path / "run", display := Told())
    validate, ends = Trainer.validate, len(experiment.batches)

    def saved_first(self: Trainer) -> dict:
        self.save()
        rate = optim.learning_rate(config, self.progress.epoch, self.progress.halvings)
        if self.progress.epoch == 1 and rate > until:
            self._diverged("valid score nan", self.progress.step)
        return validate(self)

    monkeypatch.setattr(Trainer, "validate", saved_first)
    if until:
        assert np.isfinite(trainer.run(experiment)["valid"]["nll"])
    else:
        with pytest.raises(Diverged, match="valid score nan"):
            trainer.run(experiment)
    back = [line for line in display.lines if "back to step" in line]
    assert len(back) == (2 if until else 8)
    assert all(f"at step {2 * ends}" in line and f"to step {ends}," in line for line in back)


def test_parameters_that_are_not_finite_are_not_saved(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """The loss shows it one update later: a checkpoint in between would be all that is left."""
    experiment = Experiment(small(text, checkpoint_every=5), tmp_path / "run", QUIET)
    poisoned(experiment, monkeypatch, lambda step, rate: step == 4)
    with pytest.raises(Diverged, match="parameters not finite at step 5"):
        trainer.run(experiment)
    assert [p.name for p in (tmp_path / "run/checkpoints/latest").iterdir()] == ["0"]


def test_skip_passes_over_a_window_and_starts_from_the_zero_state(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """A window of which the loss is astray: its gradient is not used, the next has no past."""
    config = small(
        text, epochs=1, on_nan="skip", eval_tokens=50, optimizer="adam", learning_rate=0.01
    )
    experiment = Experiment(config, tmp_path / "run", display := Told())
    updates, seen = experiment.updates, {}

    def bad(state, batches, seed, number, count, rate):
        step = int(number)
        if step == 4:
            h = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), state.carries)
            state = state._replace(carries=h)
        before = jax.tree.map(np.array, state)
        state, metrics = updates(state, batches, seed, number, count, rate)
        seen[step] = before, jax.tree.map(np.array, state)
        return state, metrics

    experiment.updates = bad
    monkeypatch.setattr(Pace, "note", lambda *_: None)
    trainer.run(experiment)
    (before, after) = seen[4]
    assert jax.tree.leaves(before.opt_state)
    assert equal(before.params, after.params) and equal(before.opt_state, after.opt_state)
    assert all(not np.any(h) for h in jax.tree.leaves(after.carries))
    assert not equal(*(s.params for s in seen[5]))
    said, total = [line for line in display.lines if "passed over" in line]
    assert "at step 5" in said and total == f"1 of {len(experiment.batches)} batches passed over"
    assert json.loads((tmp_path / "run/result.json").read_text())["skipped"] == 1
    lines = lines_of(tmp_path / "run")
    steps = [line["nll"] for line in lines if line["kind"] == "step"]
    assert steps.count(None) == 1 and len(steps) == len(experiment.batches)
    (epoch,) = [line for line in lines if line["kind"] == "epoch"]
    assert epoch["train_nll"] == pytest.approx(np.mean([nll for nll in steps if nll is not None]))


def test_skip_gives_up_when_nothing_else_comes(text: Path, tmp_path: Path, monkeypatch) -> None:
    experiment = Experiment(small(text, on_nan="skip"), tmp_path / "run", QUIET)
    updates = experiment.updates
    assert len(experiment.batches) >= 24

    def bad(state, batches, seed, number, *rest):
        params = {k: v * jnp.nan if int(number) >= 3 else v for k, v in state.params.items()}
        return updates(state._replace(params=params), batches, seed, number, *rest)

    monkeypatch.setattr(experiment, "updates", bad)
    monkeypatch.setattr(Pace, "note", lambda *_: None)
    with pytest.raises(Diverged, match="at step 24"):
        trainer.run(experiment)


def test_windows_passed_over_are_counted_in_a_row(text: Path, tmp_path: Path, monkeypatch) -> None:
    """Every second one is: more than give up a run, never two in a row."""
    config = small(text, on_nan="skip", epochs=2, eval_tokens=50)
    experiment = Experiment(config, tmp_path / "run", QUIET)
    updates = experiment.updates
    assert len(experiment.batches) >= 22

    def bad(state, batches, seed, number, *rest):
        if int(number) % 2:
            h = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), state.carries)
            state = state._replace(carries=h)
        return updates(state, batches, seed, number, *rest)

    monkeypatch.setattr(experiment, "updates", bad)
    monkeypatch.setattr(Pace, "note", lambda *_: None)
    assert np.isfinite(trainer.run(experiment)["valid"]["nll"])


def test_a_loss_astray_stops_a_call_in_the_window_it_appears_in(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """Finite, but worse than five times the uniform score; of a call's windows the last is it."""
    config = small(text, learning_rate=500.0, max_grad_norm=0.0)
    experiment = Experiment(config, tmp_path / "a", QUIET)
    epoch = Trainer.epoch

    def whole_calls(self: Trainer) -> trainer.Calls:
        self.pace.together = experiment.width
        return epoch(self)

    monkeypatch.setattr(Trainer, "epoch", whole_calls)
    with pytest.raises(Diverged, match=r"^loss \d.*on_nan=rollback") as error:
        trainer.run(experiment)
    steps = [line for line in lines_of(tmp_path / "a") if line["kind"] == "step"]
    assert f"at step {len(steps) + 1:,} " in str(error.value)
    assert len(steps) < experiment.width


# ---------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    "where",
    [
        "validation 2",
        "full 2",
        pytest.param("full 1", marks=pytest.mark.long),
        pytest.param("validation 1", marks=pytest.mark.long),
    ],
)
def test_a_signal_during_evaluation_is_not_waited_out(
    where: str, text: Path, tmp_path: Path, monkeypatch
) -> None:
    config = small(text, epochs=2, snapshot_every=1)
    expected = train(config, tmp_path / "whole")
    display, begun, made = Told(), collections.Counter(), []
    start, init = display.start, Trainer.__init__

    def kept(self: Trainer, *arguments) -> None:
        init(self, *arguments)
        made.append(self)

    def signalled(what: str, *rest) -> None:
        start(what, *rest)
        kind = what.split()[-1]  # `validation` or `full`
        begun[kind] += 1
        if f"{kind} {begun[kind]}" == where:
            made[0].stop.number = signal.SIGTERM

    display.start = signalled
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Trainer, "__init__", kept)
        train(config, tmp_path / "run", display)
    assert ended.value.code == 128 + signal.SIGTERM
    assert display.lines[-1].startswith("SIGTERM: saved at step")
    assert not (tmp_path / "run" / "result.json").exists()
    assert outcome(train(config, tmp_path / "run")) == outcome(expected)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["format"] == 1
    assert len(list((tmp_path / "run" / "checkpoints" / "epochs").iterdir())) == 2
    # Asked for again, it says that it is complete, and keeps what it came to.
    assert train(config, tmp_path / "run")["epoch"] == expected["epoch"]
    best = [open_run(tmp_path / name).params for name in ("run", "whole")]
    assert equal(*best)


def test_a_run_over_in_mid_epoch_keeps_its_best_when_asked_for_again(
    text: Path, tmp_path: Path
) -> None:
    config = small(text, max_steps=5)
    result = train(config, tmp_path / "run")
    before = open_run(tmp_path / "run")
    assert outcome(train(config, tmp_path / "run")) == outcome(result)
    after = open_run(tmp_path / "run")
    assert before.info == after.info and equal(before.params, after.params)


# ---------------------------------------------------------------------------- kills


@pytest.mark.long
def test_kills_at_random_moments_lose_nothing(seed: int) -> None:
    """The short form of scripts/test-kills; pytest's --seed draws other moments."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kills.py"), "--kills=2", f"--seed={seed}"],
        env=one_device(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"scripts/test-kills --kills=2 --seed={seed}\n{done.stdout}{done.stderr}"
    )
    assert "2 kills" in done.stdout and " 0 differences" in done.stdout
