"""Whole runs: what a run does, keeps and reports."""

import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, equal, full, lines_of, small, train

from rnnx import config as configs
from rnnx import parallel, trainer, update
from rnnx.checkpoint import read_epochs
from rnnx.errors import UserError
from rnnx.experiment import Experiment
from rnnx.metrics import Pace
from rnnx.tasks.language import Language
from rnnx.trainer import Trainer


def test_a_run_keeps_the_epochs_it_is_asked_for(text: Path, tmp_path: Path) -> None:
    train(small(text, epochs=4, snapshot_every=2), tmp_path / "run")
    # A run may be continued with another value.
    experiment = Experiment(small(text, epochs=5, snapshot_every=1), tmp_path / "run", QUIET)
    trainer.run(experiment)
    found = list(read_epochs(tmp_path / "run", experiment.state.params))
    assert [info["epoch"] for _, info in found] == [1, 3, 4]
    assert not equal(found[0][0], found[1][0])
    assert equal(found[-1][0], experiment.state.params)


def test_a_run_is_its_steps_with_masks_drawn_and_state_carried(text: Path, tmp_path: Path) -> None:
    """Two epochs of a trainer against make_updates called by hand, window by window."""
    experiment = Experiment(small(text, epochs=2, reset_prob=0.2, seed=3), tmp_path / "run", QUIET)
    task, config, mesh = experiment.task, experiment.config, experiment.mesh
    batches, state = experiment.batches, experiment.state
    step = update.make_updates(task, config, experiment.graphdef, mesh)
    # Its arrays are donated to the first step: keep copies.
    state, zero = jax.tree.map(jnp.copy, (state, state.carries))
    expected, restarts = [], 0
    for epoch, rate in ((0, 0.2), (1, 0.2 / 1.1)):
        state = state._replace(carries=jax.tree.map(jnp.copy, zero))
        batches.begin(epoch)
        for i in range(len(batches)):
            number = np.int32(epoch * len(batches) + i)
            batch = {  # as wide as the trainer's calls: XLA may round otherwise
                name: parallel.shard_rows(a, mesh, parallel.BATCHES)
                for name, a in batches.together(i, 1, experiment.width).items()
            }
            numbers = np.uint32(config.seed), number, np.int32(1), np.float32(rate)
            state, values = step(state, batch, *numbers)
            nats, targets = (float(series[0]) for series in values["sums"]["nll"])
            assert targets == 8 * 25
            restarts += int(batches[i]["fresh"].sum())
            loss, norm = (float(values[name][0]) for name in ("loss", "grad_norm"))
            expected.append({"lr": rate, "loss": loss, "grad_norm": norm, "nll": nats / targets})
    trainer.run(experiment)
    steps = [line for line in lines_of(tmp_path / "run") if line["kind"] == "step"]
    assert [{name: s[name] for name in expected[0]} for s in steps] == expected
    assert restarts > 2 * 8  # some rows start anew within an epoch
    assert equal(experiment.state.params, state.params)


def test_reset_prob_changes_what_is_learned(text: Path, tmp_path: Path) -> None:
    """And is asked for: by default an update reads what the state carries."""
    losses = {}
    for name, p in (("none", 0.0), ("some", 0.5)):
        train(small(text, epochs=1, reset_prob=p), tmp_path / name)
        steps = [line for line in lines_of(tmp_path / name) if line["kind"] == "step"]
        losses[name] = [line["loss"] for line in steps]
    assert losses["none"][0] == losses["some"][0] and losses["none"] != losses["some"]


def test_the_pace_is_that_of_the_device(text: Path, tmp_path: Path, monkeypatch) -> None:
    """A call's seconds are those until its numbers are there, also for the first of an epoch."""
    experiment = Experiment(small(text, epochs=3), tmp_path / "run", QUIET)
    updates, seen = experiment.updates, []

    class Slow:
        def __init__(self, series):
            self.series = series

        def __array__(self, *args, **kwargs):
            time.sleep(0.05)
            return np.asarray(self.series)

    def slow(*arguments):
        state, values = updates(*arguments)
        return state, values | {"loss": Slow(values["loss"])}

    experiment.updates = slow
    monkeypatch.setattr(Pace, "note", lambda self, count, seconds: seen.append(seconds))
    trainer.run(experiment)
    assert len(seen) == 3 * len(experiment.batches)
    assert min(seen) > 0.04


def test_calls_grow_until_they_take_a_second() -> None:
    """An example of 0.3 s a batch: four together take a second."""
    pace = Pace(32)
    for _ in range(10):
        pace.note(pace.together, pace.together * 0.3)
    assert pace.together == 4
    pace.note(1, 0.1)  # a short call, as at an epoch's end, says nothing
    pace.note(2, 0.1)  # nor does another run that notes what has counted already
    assert pace.together == 4
    pace = Pace(2)
    for _ in range(10):
        pace.note(pace.together, 0.0)
    assert pace.together == 2


def scored(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[Trainer]:
    """Makes validation give these scores, one after the other; the trainers that asked."""
    left, asked = iter(scores), []

    def validate(self: Trainer) -> dict:
        asked.append(self)
        return {"nll": next(left), "tokens": 1}

    monkeypatch.setattr(Trainer, "validate", validate)
    return asked


def test_the_result_is_that_of_the_best_epoch(text: Path, tmp_path: Path, monkeypatch) -> None:
    experiment = Experiment(small(text), tmp_path / "run", QUIET)
    scored(monkeypatch, [2.0, 1.0, 3.0])
    at_epochs, end_epoch = [], Trainer.end_epoch

    def ended(self: Trainer, rate: float) -> None:
        at_epochs.append(jax.tree.map(np.array, self.state.params))
        end_epoch(self, rate)

    monkeypatch.setattr(Trainer, "end_epoch", ended)
    result = trainer.run(experiment)
    nlls = []
    for params in at_epochs:
        nats, targets = full(experiment.graphdef, params, experiment.dataset.splits["test"])
        nlls.append(nats / targets)
    assert result["epoch"] == 1 and result["test"]["nll"] == nlls[1] != nlls[2]


def test_a_complete_run_is_not_run_again(text: Path, tmp_path: Path) -> None:
    config = small(text, epochs=1)
    first = train(config, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(config, tmp_path / "run") == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_complete_run_reads_the_test_split_when_it_is_asked_to(
    text: Path, tmp_path: Path
) -> None:
    whole = train(small(text, epochs=1), tmp_path / "whole")
    unread = train(small(text, epochs=1, score_test=False), tmp_path / "run")
    assert "test" not in unread
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    asked = train(small(text, epochs=1), tmp_path / "run")
    assert asked["test"] == whole["test"] and asked["valid"] == unread["valid"]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_result_is_what_the_design_fixes(text: Path, tmp_path: Path) -> None:
    experiment = Experiment(small(text), tmp_path / "run", QUIET)
    trainer.run(experiment)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) >= {"config", "params", "epoch", "tokens_per_second", "seconds"}
    assert set(result) >= {"valid", "test", "device", "git"}
    assert result["params"] == sum(p.size for p in experiment.state.params.values())
    for split in ("valid", "test"):
        tokens = experiment.dataset.splits[split]
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


def test_the_training_score_of_an_epoch_is_that_of_its_own_updates(
    text: Path, tmp_path: Path
) -> None:
    train(small(text, epochs=2, eval_tokens=50), tmp_path / "run")
    lines = lines_of(tmp_path / "run")
    for epoch in (line for line in lines if line["kind"] == "epoch"):
        steps = [
            line["nll"]
            for line in lines
            if line["kind"] == "step" and line["epoch"] == epoch["epoch"]
        ]
        assert epoch["train_nll"] == pytest.approx(np.mean(steps), rel=1e-6)


def test_the_test_split_is_read_once_at_the_end(text: Path, tmp_path: Path, monkeypatch) -> None:
    reads, batches = [], Language.batches

    def told(self, config, dataset, split, protocol, rows):
        reads.append((split, protocol))
        return batches(self, config, dataset, split, protocol, rows)

    monkeypatch.setattr(Language, "batches", told)
    train(small(text), tmp_path / "run")
    watched = [("valid", "batched")] * 3
    assert reads == [("train", "train"), *watched, ("valid", "full"), ("test", "full")]


@pytest.mark.parametrize("checkpoint_every", [0, 3])
def test_a_loss_that_is_not_finite_stops_the_run(
    text: Path, tmp_path: Path, checkpoint_every: int
) -> None:
    config = small(text, learning_rate=1e38, checkpoint_every=checkpoint_every)
    with pytest.raises(UserError, match=r"loss (inf|nan), .*at step \d+ \(learning rate 1e\+38"):
        train(config, tmp_path / "run")
    steps = [line["step"] for line in lines_of(tmp_path / "run")]
    assert not (tmp_path / "run" / "result.json").exists()
    assert len(steps) < 5


def test_a_score_that_is_not_finite_stops_the_run(text: Path, tmp_path: Path, monkeypatch) -> None:
    """The loss is measured before the update that breaks the parameters: validation sees it."""
    told = r"valid score nan at step {} .*Last good checkpoint: step 0"
    with pytest.raises(UserError, match=told.format(1)):
        train(small(text, learning_rate=1e38, max_steps=1), tmp_path / "run")
    experiment = Experiment(small(text, epochs=1), tmp_path / "epoch", QUIET)
    updates, last = experiment.updates, len(experiment.batches)

    def breaking(state, batches, seed, number, count, rate):
        rate = np.float32(1e38) if int(number) == last - 1 else rate
        return updates(state, batches, seed, number, count, rate)

    experiment.updates = breaking
    monkeypatch.setattr(Pace, "note", lambda *_: None)  # one update a call
    with pytest.raises(UserError, match=told.format(last)):
        trainer.run(experiment)
    kept = [p.name for p in (tmp_path / "epoch" / "checkpoints").glob("*/*")]
    assert kept == ["0"]  # the initial variables


def test_plateau_halving(text: Path, tmp_path: Path, monkeypatch) -> None:
    """With patience 2 the rate halves after two epochs without a better score, and again."""
    asked = scored(monkeypatch, [3.0, 2.0, 2.5, 2.0, 2.1, 1.9, 2.0, 2.2])
    train(small(text, epochs=8, patience=2, lr_decay=1.0), tmp_path / "run")
    rates = [e["lr"] for e in lines_of(tmp_path / "run") if e["kind"] == "epoch"]
    assert rates == [0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1]
    progress, per_epoch = asked[0].progress, len(asked[0].experiment.batches)
    assert progress.halvings == 2 and progress.best_step == 6 * per_epoch


@pytest.mark.parametrize("lower, epoch", [(True, 1), (False, 2)])
def test_the_task_says_which_score_is_better(
    lower: bool, epoch: int, text: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(Language, "lower_is_better", lower)
    scored(monkeypatch, [2.0, 1.0, 3.0])
    assert train(small(text), tmp_path / "run")["epoch"] == epoch


@pytest.mark.parametrize("at_the_stop, epoch", [(2.0, 0), (0.5, 1)])
def test_parameters_of_a_stop_in_mid_epoch_are_kept_only_if_they_are_better(
    at_the_stop: float, epoch: int, text: Path, tmp_path: Path, monkeypatch
) -> None:
    scored(monkeypatch, [1.0, at_the_stop])
    per_epoch = len(Experiment(small(text), tmp_path / "run", QUIET).batches)
    assert train(small(text, max_steps=per_epoch + 5), tmp_path / "run")["epoch"] == epoch


# ---------------------------------------------------------------------------- real data


@pytest.mark.parametrize(
    "corpus, fields",
    [
        (
            "ptb_char",
            {"cell": "lstm", "depth": 1, "integration": "mi", "hidden_size": 96, "max_steps": 150},
        ),
        pytest.param(
            "ptb_word",
            {"cell": "rhn", "depth": 2, "tied": True, "hidden_size": 64, "max_steps": 400},
            marks=pytest.mark.long,
        ),
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
            "eval_tokens": 5_000,
            "optimizer": "adam",
            "learning_rate": 5e-3,
        }
        | fields
    )
    experiment = Experiment(config, tmp_path / "run", QUIET)
    result = trainer.run(experiment)
    known = experiment.task.baselines(experiment.config, experiment.dataset, "valid")
    assert result["valid"]["tokens"] == 5_000
    assert result["valid"]["ppl"] < 0.8 * math.exp(known["symbol frequencies"])


def test_the_clock_goes_on_after_a_checkpoint_in_mid_epoch(
    text: Path, tmp_path: Path, monkeypatch
) -> None:
    """All updates but the one that compiles are timed."""
    experiment = Experiment(small(text, checkpoint_every=5, epochs=1), tmp_path / "run", QUIET)
    timed, result = [], experiment.result

    def seen(epoch, scores, clock, *rest) -> dict:
        timed.append(clock.targets)
        return result(epoch, scores, clock, *rest)

    monkeypatch.setattr(experiment, "result", seen)
    monkeypatch.setattr(Pace, "note", lambda *_: None)
    trainer.run(experiment)
    assert timed == [(len(experiment.batches) - 1) * 8 * 25]
