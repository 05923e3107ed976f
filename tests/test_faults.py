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
from conftest import QUIET, ROOT, one_device, small
from test_train import equal, lines_of, outcome

from rnnx import workdir
from rnnx.checkpoint import Checkpoints, fingerprint, read_best
from rnnx.display import Display
from rnnx.errors import Diverged, Outage, UserError
from rnnx.metrics import Score
from rnnx.train import Trainer


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


def stopped_behind(config, folder: Path, step: int) -> None:
    """Trains until some windows behind that step, and is cut there."""
    trainer = Trainer(config, folder, QUIET)
    settle = trainer.settle

    def cut() -> None:
        if trainer.progress.step > step:
            raise KeyboardInterrupt
        settle()

    trainer.settle = cut
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_a_run_goes_on_from_the_older_checkpoint_to_the_same_bits(
    text: Path, tmp_path: Path
) -> None:
    config = small(text, checkpoint_every=5, epochs=2)
    whole = Trainer(config, tmp_path / "whole", QUIET)
    expected = whole.run()
    stopped_behind(config, tmp_path / "run", 12)
    latest = tmp_path / "run" / "checkpoints" / "latest"
    assert sorted(p.name for p in latest.iterdir()) == ["10", "5"]
    (latest / "10" / "values" / "metadata").write_text("{}")
    display = Told()
    trainer = Trainer(config, tmp_path / "run", display)
    assert outcome(trainer.run()) == outcome(expected)
    assert "latest/10 does not load" in display.lines[0]
    assert display.lines[0].endswith("taking that of step 5")
    assert display.lines[1] == "continuing behind step 5, in epoch 1"
    assert equal(trainer.state, whole.state)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


def test_a_lost_best_is_said_and_an_older_one_or_the_next_takes_its_place(
    text: Path, tmp_path: Path
) -> None:
    per_epoch = len(Trainer(small(text), tmp_path / "none", QUIET).windows)
    stopped_behind(small(text, epochs=3), tmp_path / "run", 2 * per_epoch + 1)
    best = tmp_path / "run" / "checkpoints" / "best"
    first, second = sorted(int(p.name) for p in best.iterdir())
    assert (first, second) == (per_epoch, 2 * per_epoch)
    shutil.copytree(tmp_path / "run", tmp_path / "both")
    (best / str(second) / "values" / "metadata").unlink()
    display = Told()
    trainer = Trainer(small(text, epochs=3), tmp_path / "run", display)
    trainer.run()
    assert f"best/{second} does not load" in display.lines[1]
    for step in (first, second):
        (tmp_path / "both/checkpoints/best" / str(step) / "values" / "metadata").unlink()
    assert not (tmp_path / "both" / "result.json").exists()
    like = trainer.state.params
    with pytest.raises(UserError, match=f"best/{second} does not load"):
        read_best(tmp_path / "both", like)
    # Nothing is left to train: the parameters of the end are the best there are.
    result = Trainer(small(text, epochs=2), tmp_path / "both", QUIET).run()
    assert result["epoch"] == 1
    assert workdir.open_run(tmp_path / "both").info["step"] == second


def test_a_halved_rate_stays_halved_after_a_kill(text: Path, tmp_path: Path, monkeypatch) -> None:
    scores = iter([2.0, 3.0, 1.0])
    monkeypatch.setattr(Trainer, "validate", lambda self: Score(next(scores), 1))
    config = small(text, epochs=3, patience=1, lr_decay=1.0)
    per_epoch = len(Trainer(config, tmp_path / "none", QUIET).windows)
    stopped_behind(config, tmp_path / "run", 2 * per_epoch + 1)
    Trainer(config, tmp_path / "run", QUIET).run()
    rates = [line["lr"] for line in lines_of(tmp_path / "run") if line["kind"] == "epoch"]
    assert rates == [0.2, 0.2, 0.1]


def test_parameters_of_a_stop_in_mid_epoch_are_not_the_best_of_a_longer_run(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    scores = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(Trainer, "validate", lambda self: Score(next(scores), 1))
    folder = tmp_path / "run"
    per_epoch = len(Trainer(small(text), folder, QUIET).windows)
    Trainer(small(text, epochs=2, max_steps=per_epoch + 5), folder, QUIET).run()
    assert workdir.open_run(folder).info["step"] == per_epoch + 5
    Trainer(small(text, epochs=2), folder, QUIET).run()
    assert workdir.open_run(folder).info["step"] == per_epoch


# ---------------------------------------------------------------------------- disks


@pytest.mark.parametrize("told", [OSError(errno.ESTALE, "Stale file handle"), MemoryError()])
def test_a_read_that_fails_for_another_reason_is_no_damage(
    told: Exception, text: Path, tmp_path: Path, monkeypatch
) -> None:
    config = small(text)
    stopped_behind(config, tmp_path / "run", 7)
    before = sorted((tmp_path / "run" / "checkpoints").rglob("*"))

    def refuse(*_, **__):
        raise told

    with monkeypatch.context() as patch:
        patch.setattr("rnnx.checkpoint.ocp.CheckpointManager.restore", refuse)
        with pytest.raises(Outage, match="cannot read"):
            Trainer(config, tmp_path / "run", QUIET).run()
    assert sorted((tmp_path / "run" / "checkpoints").rglob("*")) == before
    Trainer(config, tmp_path / "run", QUIET).run()


@pytest.mark.parametrize("what", ["metrics", "checkpoints"])
def test_a_full_disk_is_told_in_one_line_and_costs_nothing_saved(
    what: str, text: Path, tmp_path: Path
) -> None:
    """No file may grow beyond a size that the metrics, or else a checkpoint, will exceed."""
    sizes = {"epochs": 6} if what == "metrics" else {"max_steps": 11}
    config = small(text, checkpoint_every=5, **sizes)
    expected = Trainer(config, tmp_path / "whole", QUIET).run()
    stopped_behind(config, tmp_path / "run", 7)
    largest = max(p.stat().st_size for p in (tmp_path / "run/checkpoints").rglob("*"))
    metrics = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    assert (largest < 0.9 * metrics) if what == "metrics" else (metrics < 0.9 * largest)
    limit, before = (largest + metrics) // 2, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(Outage, match="cannot write") as error:
            Trainer(config, tmp_path / "run", QUIET).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value) and "File too large" in str(error.value)
    assert not (tmp_path / "run" / "result.json").exists()
    assert outcome(Trainer(config, tmp_path / "run", QUIET).run()) == outcome(expected)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


# ---------------------------------------------------------------------------- numbers gone wrong


def poisoned(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, steps: Callable) -> None:
    """Has the learning rate, at steps for which steps(step, rate) holds, be NaN."""
    updates, calls = trainer.updates, itertools.count()

    def bad(state, x, y, number, count, rate, *rest):
        assert count == 1 and next(calls) < 300, "rolled back for ever"
        if steps(int(number), float(rate)):
            rate = np.float32(np.nan)
        return updates(state, x, y, number, count, rate, *rest)

    monkeypatch.setattr(trainer, "updates", bad)
    monkeypatch.setattr(trainer, "_pace", lambda count, seconds: None)


def test_rollback_goes_on_at_half_the_rate(text: Path, tmp_path: Path, monkeypatch) -> None:
    config = small(text, checkpoint_every=5, epochs=2, on_nan="rollback")
    display = Told()
    trainer = Trainer(config, tmp_path / "run", display)
    # The update behind step 7 is poisoned until the rate has been halved twice.
    poisoned(trainer, monkeypatch, lambda step, rate: step == 7 and rate > 0.06)
    result = trainer.run()
    said = [line for line in display.lines if "back to step" in line]
    assert said == [
        "loss nan, gradient norm nan at step 9 (learning rate 0.2): back to step 5, learning "
        "rate 0.1",
        "loss nan, gradient norm nan at step 9 (learning rate 0.1): back to step 5, learning "
        "rate 0.05",
    ]
    steps = [line for line in lines_of(tmp_path / "run") if line["kind"] == "step"]
    assert [s["step"] for s in steps] == list(range(1, 2 * len(trainer.windows) + 1))
    assert [s["lr"] for s in steps[3:7]] == [0.2, 0.2, 0.05, 0.05]
    assert np.isfinite(result["valid"]["nll"])
    # As if the rate had been that one from step 5 on: the numbers are those of a run that was.
    stopped_behind(config, tmp_path / "other", 7)
    other = Trainer(config, tmp_path / "other", QUIET)
    load = other.load_latest

    def halved() -> bool:
        loaded = load()
        other.progress.halvings = 2
        return loaded

    monkeypatch.setattr(other, "load_latest", halved)
    other.run()
    assert equal(trainer.state, other.state)


def test_rollback_gives_up(text: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = Trainer(
        small(text, checkpoint_every=5, on_nan="rollback"), tmp_path / "run", display := Told()
    )
    poisoned(trainer, monkeypatch, lambda step, rate: step == 7)
    with pytest.raises(Diverged, match="at step 9"):
        trainer.run()
    assert sum("back to step 5" in line for line in display.lines) == 8


def test_parameters_that_are_not_finite_are_not_saved(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """The loss tells of them one update later: a checkpoint between would be all that is left."""
    trainer = Trainer(small(text, checkpoint_every=5), tmp_path / "run", QUIET)
    poisoned(trainer, monkeypatch, lambda step, rate: step == 4)
    with pytest.raises(Diverged, match="parameters not finite at step 5"):
        trainer.run()
    assert [p.name for p in (tmp_path / "run/checkpoints/latest").iterdir()] == ["0"]


def test_skip_passes_over_a_window_and_starts_from_the_zero_state(
    text: Path, tmp_path: Path
) -> None:
    """A window of which the loss is astray: its gradient is not used, the next has no past."""
    config = small(text, epochs=1, on_nan="skip", eval_tokens=50)
    trainer = Trainer(config, tmp_path / "run", display := Told())
    updates, seen = trainer.updates, {}

    def bad(state, x, y, number, count, rate, *rest):
        step = int(number)
        if step == 4:
            h = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), state.carries)
            state = state._replace(carries=h)
        before = jax.tree.map(np.array, state)
        state, metrics = updates(state, x, y, number, count, rate, *rest)
        seen[step] = before, jax.tree.map(np.array, state)
        return state, metrics

    trainer.updates = bad
    trainer._pace = lambda count, seconds: None
    trainer.run()
    (before, after) = seen[4]
    assert equal(before.params, after.params) and equal(before.opt_state, after.opt_state)
    assert all(not np.any(h) for h in jax.tree.leaves(after.carries))
    assert not equal(*(s.params for s in seen[5]))
    (said,) = [line for line in display.lines if "passed over" in line]
    assert "at step 5" in said
    lines = lines_of(tmp_path / "run")
    assert [s["nats"] is None for s in lines if s["kind"] == "step"].count(True) == 1
    (epoch,) = [s for s in lines if s["kind"] == "epoch"]
    nats = [s["nats"] for s in lines if s["kind"] == "step" and s["nats"] is not None]
    targets = (len(trainer.windows) - 1) * 8 * 25
    assert epoch["train_nll"] == pytest.approx(sum(nats) / targets)


def test_skip_gives_up_when_nothing_else_comes(text: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = Trainer(small(text, on_nan="skip"), tmp_path / "run", QUIET)
    updates = trainer.updates
    assert len(trainer.windows) >= 24

    def bad(state, *rest):
        params = {k: v * jnp.nan if int(rest[2]) >= 3 else v for k, v in state.params.items()}
        return updates(state._replace(params=params), *rest)

    monkeypatch.setattr(trainer, "updates", bad)
    monkeypatch.setattr(trainer, "_pace", lambda count, seconds: None)
    with pytest.raises(Diverged, match="at step 24"):
        trainer.run()


def test_a_loss_astray_stops_a_call_in_the_window_it_appears_in(text: Path, tmp_path: Path) -> None:
    """Finite, but worse than five times knowing nothing; of a call's windows the last is it."""
    trainer = Trainer(small(text, learning_rate=500.0, max_grad_norm=0.0), tmp_path / "a", QUIET)
    trainer.together = trainer.width
    with pytest.raises(Diverged, match=r"^loss \d.*on_nan=rollback") as error:
        trainer.run()
    steps = [line for line in lines_of(tmp_path / "a") if line["kind"] == "step"]
    assert f"at step {len(steps) + 1:,} " in str(error.value)
    assert len(steps) < trainer.width


# ---------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    "where",
    [
        "validation 2",
        "test full 1",
        pytest.param("validation 1", marks=pytest.mark.long),
        pytest.param("valid full 1", marks=pytest.mark.long),
    ],
)
def test_a_signal_during_evaluation_is_not_waited_out(
    where: str, text: Path, tmp_path: Path
) -> None:
    config = small(text, epochs=2, snapshot_every=1)
    expected = Trainer(config, tmp_path / "whole", QUIET).run()
    display = Told()
    trainer = Trainer(config, tmp_path / "run", display)
    start, begun = display.start, collections.Counter()

    def signalled(what: str, *rest) -> None:
        start(what, *rest)
        begun[what] += 1
        if f"{what} {begun[what]}" == where:
            trainer.stop.number = signal.SIGTERM

    display.start = signalled
    with pytest.raises(SystemExit) as ended:
        trainer.run()
    assert ended.value.code == 128 + signal.SIGTERM
    assert display.lines[-1].startswith("SIGTERM: saved at step")
    assert not (tmp_path / "run" / "result.json").exists()
    assert outcome(Trainer(config, tmp_path / "run", QUIET).run()) == outcome(expected)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["format"] == 1
    assert len(list((tmp_path / "run" / "checkpoints" / "epochs").iterdir())) == 2
    # Asked for again, it says that it is complete, and keeps what it came to.
    assert Trainer(config, tmp_path / "run", QUIET).run()["epoch"] == expected["epoch"]
    best = [workdir.open_run(tmp_path / name).params for name in ("run", "whole")]
    assert equal(*best)


def test_a_run_over_in_mid_epoch_keeps_its_best_when_asked_for_again(
    text: Path, tmp_path: Path
) -> None:
    config = small(text, max_steps=5)
    result = Trainer(config, tmp_path / "run", QUIET).run()
    before = workdir.open_run(tmp_path / "run")
    assert outcome(Trainer(config, tmp_path / "run", QUIET).run()) == outcome(result)
    after = workdir.open_run(tmp_path / "run")
    assert before.info == after.info and equal(before.params, after.params)


# ---------------------------------------------------------------------------- kills


def test_kills_at_random_moments_lose_nothing(seed: int) -> None:
    """The short form of scripts/test-kills; pytest's --seed draws other moments."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kills.py"), "--kills=5", f"--seed={seed}"],
        env=one_device(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"scripts/test-kills --kills=5 --seed={seed}\n{done.stdout}{done.stderr}"
    )
    assert "5 kills" in done.stdout and " 0 differences" in done.stdout
