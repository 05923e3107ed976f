"""Whole runs: exact continuation, faults, real data."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, ROOT, one_device, run_module, small

from rnnx import config as configs
from rnnx import evaluate, metrics, parallel, update
from rnnx.checkpoint import read_epochs
from rnnx.errors import UserError
from rnnx.metrics import unigram
from rnnx.train import Trainer

TIMES = {"seconds", "tokens_per_second"}


def lines_of(folder: Path) -> list[dict]:
    """metrics.jsonl without the times."""
    text = (folder / "metrics.jsonl").read_text()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()
    ]


def outcome(result: dict) -> dict:
    return {k: v for k, v in result.items() if k not in TIMES | {"config", "device"}}


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# ---------------------------------------------------------------------------- whole runs


def test_a_run_keeps_the_epochs_it_is_asked_for(text: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(text, epochs=5, snapshot_every=2), tmp_path / "run", QUIET)
    trainer.run()
    found = list(read_epochs(tmp_path / "run", trainer.state.params))
    assert [info["epoch"] for _, info in found] == [1, 3]
    assert not equal(found[0][0], found[1][0])
    trainer = Trainer(small(text, epochs=6, snapshot_every=1), tmp_path / "run", QUIET)
    trainer.run()  # a run may be continued with another value
    found = list(read_epochs(tmp_path / "run", trainer.state.params))
    assert [info["epoch"] for _, info in found] == [1, 3, 5]
    assert equal(found[-1][0], trainer.state.params)


def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    """Killed in mid-epoch and rolled back to its checkpoint, a run loses nothing."""
    config = small(text, checkpoint_every=5, patience=1, optimizer="adam", learning_rate=0.01)
    whole = Trainer(config, tmp_path / "whole", QUIET)
    result = whole.run()

    stopped = Trainer(config, tmp_path / "stopped", QUIET)
    settle, calls = stopped.settle, []

    def killed_at(last: int):
        def die():
            calls.append(stopped.progress.step)
            if stopped.progress.step >= last:
                raise KeyboardInterrupt
            settle()

        return die

    per_epoch = len(stopped.windows)
    assert per_epoch > 12
    stopped.settle = killed_at(8)  # 3 updates behind the checkpoint of step 5
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    stopped = Trainer(config, tmp_path / "stopped", QUIET)
    settle = stopped.settle
    stopped.settle = killed_at(per_epoch + 7)  # in the second epoch
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Trainer(config, tmp_path / "stopped", QUIET)
    assert outcome(resumed.run()) == outcome(result)
    assert equal(resumed.state, whole.state)
    assert lines_of(tmp_path / "stopped") == lines_of(tmp_path / "whole")
    steps = [line["step"] for line in lines_of(tmp_path / "whole") if line["kind"] == "step"]
    assert steps == list(range(1, 3 * per_epoch + 1))
    assert resumed.progress.step == 3 * per_epoch


def test_a_run_is_its_steps_with_masks_drawn_and_state_carried(text: Path, tmp_path: Path) -> None:
    """Two epochs of a Trainer against make_updates called by hand, window by window."""
    trainer = Trainer(small(text, epochs=2), tmp_path / "run", QUIET)
    config, windows = trainer.config, trainer.windows
    state, zero = trainer.state, trainer.state.carries
    step = update.make_updates(config, trainer.graphdef, trainer.mesh)
    # Its arrays are donated to the first step: keep copies.
    state, zero = jax.tree.map(jnp.copy, state), jax.tree.map(jnp.copy, zero)
    expected = []
    for epoch, rate in ((0, 0.2), (1, 0.2 / 1.1)):
        state = state._replace(carries=jax.tree.map(jnp.copy, zero))
        for i in range(len(windows)):
            number = epoch * len(windows) + i
            window = windows.together(i, 1, trainer.width)
            x, y = (parallel.shard_rows(a, trainer.mesh) for a in window)
            state, values = step(state, x, y, np.int32(number), np.int32(1), np.float32(rate))
            expected.append({"lr": rate, "loss": float(values["loss"][0])})
    trainer.run()
    steps = [line for line in lines_of(tmp_path / "run") if line["kind"] == "step"]
    assert [{"lr": s["lr"], "loss": s["loss"]} for s in steps] == expected
    assert equal(trainer.state.params, state.params)


def test_the_pace_is_that_of_the_device(text: Path, tmp_path: Path, monkeypatch) -> None:
    """A call's seconds are those until its numbers are there, also for the first of an epoch."""
    trainer = Trainer(small(text, epochs=3), tmp_path / "run", QUIET)
    updates, seen = trainer.updates, []

    class Slow:
        def __init__(self, series):
            self.series = series

        def __array__(self, *args, **kwargs):
            time.sleep(0.05)
            return np.asarray(self.series)

    def slow(*arguments):
        state, values = updates(*arguments)
        return state, values | {"loss": Slow(values["loss"])}

    trainer.updates = slow
    monkeypatch.setattr(trainer, "_pace", lambda count, seconds: seen.append(seconds))
    trainer.run()
    assert len(seen) == 3 * len(trainer.windows)
    assert min(seen) > 0.04


def test_calls_grow_until_they_take_a_second(text: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(text), tmp_path / "run", QUIET)
    trainer.width = 32
    for _ in range(10):
        trainer._pace(trainer.together, trainer.together * 0.3)
    assert trainer.together == 4
    trainer._pace(1, 0.1)  # a short call, as at an epoch's end, says nothing
    assert trainer.together == 4


def test_the_result_is_that_of_the_best_epoch(text: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = Trainer(small(text), tmp_path / "run", QUIET)
    scores, at_best = iter([2.0, 1.0, 3.0]), []

    def validate() -> metrics.Score:
        score = metrics.Score(next(scores), 1)
        if score.nats == 1.0:
            at_best.append(jax.tree.map(np.array, trainer.state.params))
        return score

    monkeypatch.setattr(trainer, "validate", validate)
    result = trainer.run()
    best = evaluate.full(
        trainer.graphdef,
        parallel.local_copy(jax.tree.map(jnp.asarray, at_best[0])),
        trainer.corpus.test,
    )
    assert result["epoch"] == 1 and result["test"]["nll"] == best.nll
    last = evaluate.full(trainer.graphdef, trainer.state.params, trainer.corpus.test)
    assert result["test"]["nll"] != last.nll


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_killed_process_goes_on_to_the_same_bits(
    number: signal.Signals, text: Path, tmp_path: Path
) -> None:
    args = [
        "--config=configs/quickstart.py:tiny", f"--config.corpus={text}", "--config.max_steps=0",
        "--config.epochs=3", "--config.num_steps=4", "--config.checkpoint_every=20",
    ]  # fmt: skip
    command = [sys.executable, "-m", "rnnx.train", *args, f"--workdir={tmp_path / 'killed'}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=one_device(), stdout=subprocess.PIPE, text=True
    )
    latest = tmp_path / "killed" / "checkpoints" / "latest"
    deadline = time.monotonic() + 120
    while not (latest.is_dir() and any(p.name in ("20", "40") for p in latest.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"{number.name}: saved at step" in output
    assert not (tmp_path / "killed" / "result.json").exists()
    for name in ("killed", "whole"):
        done = run_module("train", *args, f"--workdir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        assert ("continuing behind step" in done.stdout) == (name == "killed")
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    killed, whole = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "whole")
    )
    assert outcome(killed) == outcome(whole)


def test_a_kill_between_the_first_two_checkpoints_is_no_damage(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """The first epoch's best parameters are saved, the state behind them is not."""
    config = small(text, epochs=2)
    expected = Trainer(config, tmp_path / "whole", QUIET).run()
    trainer = Trainer(config, tmp_path / "killed", QUIET)
    save_best = trainer.save_best

    def die(valid) -> None:
        save_best(valid)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_best", die)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert outcome(Trainer(config, tmp_path / "killed", QUIET).run()) == outcome(expected)


def test_max_steps_can_be_raised_later(text: Path, tmp_path: Path) -> None:
    """A stop at max_steps, in mid-epoch and evaluated there, leaves no trace in a longer run."""
    once = Trainer(small(text, epochs=2), tmp_path / "once", QUIET)
    expected = once.run()
    short = Trainer(small(text, epochs=2, max_steps=5), tmp_path / "twice", QUIET).run()
    assert short["epoch"] == 0 and short["valid"]["nll"] > expected["valid"]["nll"]
    longer = Trainer(small(text, epochs=2), tmp_path / "twice", QUIET)
    assert outcome(longer.run()) == outcome(expected)
    assert equal(longer.state, once.state)


def test_a_complete_run_is_not_run_again(text: Path, tmp_path: Path) -> None:
    config = small(text, epochs=1)
    first = Trainer(config, tmp_path / "run", QUIET).run()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert Trainer(config, tmp_path / "run", QUIET).run() == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_result_is_what_the_design_fixes(text: Path, tmp_path: Path) -> None:
    trainer = Trainer(small(text), tmp_path / "run", QUIET)
    trainer.run()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) >= {"config", "params", "epoch", "tokens_per_second", "seconds"}
    assert set(result) >= {"valid", "test", "device", "git"}
    assert result["params"] == sum(p.size for p in trainer.state.params.values())
    for split in ("valid", "test"):
        tokens = getattr(trainer.corpus, split)
        score = result[split]
        assert set(score) == {"nll", "ppl", "bpc", "tokens"}
        assert score["tokens"] == len(tokens) - 1
        np.testing.assert_allclose(score["ppl"], np.exp(score["nll"]))
        np.testing.assert_allclose(score["bpc"], score["nll"] / np.log(2))
    valids = [e["valid_batched_nll"] for e in lines_of(tmp_path / "run") if e["kind"] == "epoch"]
    assert result["epoch"] == int(np.argmin(valids))
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names >= {
        "config.json",
        "vocabulary.json",
        "metrics.jsonl",
        "checkpoints",
        "result.json",
    }
    assert any((tmp_path / "run" / "tensorboard").iterdir())


def test_the_test_split_is_read_once_at_the_end(text: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = Trainer(small(text), tmp_path / "run", QUIET)
    reads = []
    full, batched = evaluate.full, trainer.score
    monkeypatch.setattr(
        evaluate, "full", lambda g, p, tokens, d=None: reads.append(tokens) or full(g, p, tokens, d)
    )
    trainer.score = lambda p, tokens, *a: reads.append(tokens) or batched(p, tokens, *a)
    trainer.run()
    which = ["test" if np.array_equal(t, trainer.corpus.test) else "valid" for t in reads]
    assert which == ["valid"] * 3 + ["valid", "test"]


@pytest.mark.parametrize("checkpoint_every", [0, 3])
def test_a_loss_that_is_not_finite_stops_the_run(
    text: Path, tmp_path: Path, checkpoint_every: int
) -> None:
    config = small(
        text, learning_rate=1e30, max_grad_norm=0.0, checkpoint_every=checkpoint_every, cell="rnn",
        depth=1, weight_decay=1.0,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"loss (inf|nan), .*at step \d+ \(learning rate 1e\+30"):
        Trainer(config, tmp_path / "run", QUIET).run()
    steps = [line["step"] for line in lines_of(tmp_path / "run")]
    assert not (tmp_path / "run" / "result.json").exists()
    assert len(steps) < 5


def test_a_score_that_is_not_finite_stops_the_run(text: Path, tmp_path: Path) -> None:
    """The loss is measured before the update that breaks the parameters: validation sees it."""
    config = small(text, learning_rate=1e30, max_grad_norm=0.0, max_steps=1)
    with pytest.raises(UserError, match=r"valid score nan at step 1 .*checkpoint: none yet"):
        Trainer(config, tmp_path / "run", QUIET).run()
    config = small(text, learning_rate=1e30, max_grad_norm=0.0, num_steps=600)
    trainer = Trainer(config, tmp_path / "epoch", QUIET)
    assert len(trainer.windows) == 1
    with pytest.raises(UserError, match=r"valid score nan at step 1 .*checkpoint: none yet"):
        trainer.run()
    kept = [p.name for p in (tmp_path / "epoch" / "checkpoints").glob("*/*")]
    assert kept == ["0"]  # the initial variables


def test_a_refused_command_changes_nothing(text: Path, tmp_path: Path) -> None:
    """Lost metrics, or a lost checkpoint, of a finished run: told, and nothing else is touched."""
    folder = tmp_path / "run"
    Trainer(small(text, epochs=1), folder, QUIET).run()
    kept = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    (folder / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="has lost lines"):
        Trainer(small(text, epochs=2), folder, QUIET).run()
    (tmp_path / "metrics.jsonl").rename(folder / "metrics.jsonl")
    shutil.rmtree(folder / "checkpoints" / "latest")
    with pytest.raises(UserError, match="latest is gone"):
        Trainer(small(text, epochs=2), folder, QUIET).run()
    assert {p.name: p.read_bytes() for p in folder.glob("*.json")} == kept
    assert any((folder / "checkpoints" / "best").iterdir())


def test_plateau_halving(text: Path, tmp_path: Path, monkeypatch) -> None:
    """With patience 2 the rate halves after two epochs without a better score, and again."""
    trainer = Trainer(small(text, epochs=8, patience=2, lr_decay=1.0), tmp_path / "run", QUIET)
    scores = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.9, 2.0, 2.2])
    monkeypatch.setattr(trainer, "validate", lambda: metrics.Score(next(scores), 1))
    trainer.run()
    rates = [e["lr"] for e in lines_of(tmp_path / "run") if e["kind"] == "epoch"]
    assert rates == [0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]
    assert trainer.progress.halvings == 2 and trainer.progress.best_step == 6 * len(trainer.windows)


# ---------------------------------------------------------------------------- real data


@pytest.mark.parametrize(
    "corpus, fields",
    [
        ("ptb_word", {"cell": "rhn", "depth": 2, "tied": True, "hidden_size": 64}),
        ("ptb_char", {"cell": "lstm", "depth": 1, "integration": "mi", "hidden_size": 96}),
    ],
)
def test_training_on_real_ptb_beats_the_unigram_model(
    corpus: str, fields: dict, real_data: Path, tmp_path: Path
) -> None:
    config = configs.default()
    config.update(
        {
            "corpus": corpus,
            "data_dir": str(real_data),
            "init_scale": 0.1,
            "batch_size": 20,
            "num_steps": 35,
            "max_steps": 400,
            "eval_tokens": 10_000,
            "optimizer": "adam",
            "learning_rate": 5e-3,
        }
        | fields
    )
    trainer = Trainer(config, tmp_path / "run", QUIET)
    result = trainer.run()
    valid = trainer.corpus.valid[:10_001]
    baseline = unigram(trainer.corpus.train, valid, trainer.corpus.vocabulary.size)
    assert result["valid"]["tokens"] == baseline.tokens == 10_000
    assert result["valid"]["ppl"] < 0.8 * baseline.ppl
