"""The protocols of every task, on texts: each target once, whatever the batch and the devices."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TOKENS, full, language_model, small, train

from rnnx import config as configs
from rnnx import data, experiment, model, native, parallel, score, tasks
from rnnx.data import sequences
from rnnx.data.batches import Batches, ScoringWindows
from rnnx.data.sequences import SequenceBatches, Sequences
from rnnx.display import Display
from rnnx.tasks.task import Dataset


def token_by_token(graphdef, params, tokens: np.ndarray) -> float:
    """The nats of every target but the first token, read one at a time."""
    net, nats = model.merge(graphdef, params), 0.0
    step = jax.jit(lambda token, carries: net(token, carries))
    carries = net.stack.zero_carry(1)
    for token, target in itertools.pairwise(tokens):
        logits, carries = step(jnp.array([[token]]), carries)
        logits = np.float64(logits[0, 0])
        nats += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]
    return nats


def batched(graphdef, params, mesh, batch_size: int, num_steps: int) -> tuple[float, float]:
    scorer = score.make_scorer(tasks.get("language"), graphdef, mesh)
    placed = parallel.shard(params, mesh, parallel.EVERYWHERE)
    return scorer(placed, ScoringWindows(TOKENS, batch_size, num_steps))["nll"]


@pytest.mark.parametrize("length", [2, 256, 257, 258, 700])
def test_full_equals_a_token_by_token_loop(length: int) -> None:
    _, graphdef, params = language_model()
    nats, targets = full(graphdef, params, TOKENS[:length])
    assert targets == length - 1
    np.testing.assert_allclose(nats, token_by_token(graphdef, params, TOKENS[:length]), rtol=1e-6)


@pytest.mark.parametrize("batch_size, num_steps", [(4, 9), (6, 35), (10, 70), (2, 699)])
def test_batched_is_the_sum_over_streams_from_the_zero_state(batch_size, num_steps) -> None:
    _, graphdef, params = language_model()
    nats, targets = batched(graphdef, params, score.local_mesh(), batch_size, num_steps)
    assert targets == 699
    begin = [699 * i // batch_size for i in range(batch_size + 1)]
    theirs = sum(
        token_by_token(graphdef, params, TOKENS[first : last + 1])
        for first, last in itertools.pairwise(begin)
    )
    np.testing.assert_allclose(nats, theirs, rtol=1e-6)


def test_batched_on_two_devices_is_the_same() -> None:
    _, graphdef, params = language_model()
    meshes = [parallel.batch_mesh(4, jax.devices()[:n]) for n in (1, 2)]
    one, two = (batched(graphdef, params, mesh, 4, 20) for mesh in meshes)
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_row_that_starts_anew_has_no_past() -> None:
    """fresh = 1 puts its row, and no other, back to the zero state; by the cost of the task."""
    _, graphdef, params = language_model()
    net, task = model.merge(graphdef, params), tasks.get("language")
    windows = ScoringWindows(TOKENS, 2, 20)
    zero = task.zero_carry(net, 2)
    _, carried, _ = task.cost(net, windows[0], zero, None)
    window = windows[1]
    past, _, _ = task.cost(net, window, carried, None)
    anew, _, _ = task.cost(net, window, zero, None)
    first, _, _ = task.cost(net, window | {"fresh": np.array([1, 0], "f")}, carried, None)
    assert first[0] == anew[0] != past[0] and first[1] == past[1] != anew[1]


def test_the_task_caps_what_is_scored() -> None:
    dataset = Dataset("t", {"valid": TOKENS}, None, {}, (0, 700, 0))
    config = configs.default()
    for cap, expected in ((0, 699), (100, 100)):
        config.eval_tokens = cap
        for protocol in ("full", "batched"):
            batches = tasks.of(config).batches(config, dataset, "valid", protocol, slice(None))
            assert batches.targets == sum(b["weight"].sum() for b in batches) == expected
            assert batches.batch_size == (1 if protocol == "full" else config.batch_size)


def test_sums_of_batches_are_added_in_float64() -> None:
    parts = [{"nll": (np.float32(2**24), np.float32(1))}, {"nll": (np.float32(1), np.float32(1))}]
    assert score.total(parts) == {"nll": (2**24 + 1, 2)}


@pytest.mark.parametrize("first, second", [(700, 300), (258, 700), (513, 513)])
def test_splits_side_by_side_score_as_each_alone(first: int, second: int) -> None:
    _, graphdef, params = language_model()
    scorer = score.make_splits_scorer(tasks.get("language"), graphdef)
    splits = {
        "valid": ScoringWindows(TOKENS[:first], 1, 256),
        "test": ScoringWindows(TOKENS[-second:], 1, 256),
    }
    seen: list[int] = []
    display = Display(quiet=True)
    display.update = lambda done: seen.append(done)
    sums = scorer(params, list(splits.values()), display)
    assert seen == list(range(1, 1 + max(map(len, splits.values()))))
    for found, split in zip(sums, splits.values(), strict=True):
        (alone,) = scorer(params, [split])
        assert found["nll"][1] == alone["nll"][1] == split.targets
        np.testing.assert_allclose(found["nll"][0], alone["nll"][0], rtol=1e-6)


def test_only_splits_of_one_row_and_one_shape_are_read_together(monkeypatch) -> None:
    monkeypatch.setattr(native, "tile_width", lambda: 16)
    monkeypatch.setattr(sequences, "PER_BUCKET", 1)
    shapes = (1, 9), (1, 8), (2, 9)
    one, other, two = (ScoringWindows(TOKENS, rows, steps) for rows, steps in shapes)
    ragged = [
        SequenceBatches(
            Sequences({"inputs": [np.zeros((n, 1)) for n in lengths]}), 1, shuffle=False
        )
        for lengths in ((20, 10), (20, 15, 4))
    ]

    def together(a: Batches, b: Batches, widest: int = 1 << 20) -> bool:
        splits = {"valid": a, "test": b}
        groups = score.side_by_side(splits, widest)
        assert groups in ([splits], [{"valid": a}, {"test": b}])
        return len(groups) == 1

    assert together(one, one)
    assert not together(one, other) and not together(one, two) and not together(two, two)
    assert not together(*ragged)  # the first batches have one shape, the others have not
    assert not together(one, one, widest=1000)
    monkeypatch.setattr(native, "tile_width", lambda: 0)
    assert not together(one, one)


def test_a_run_scores_the_same_side_by_side(text: Path, tmp_path: Path, monkeypatch) -> None:
    alone = train(small(text), tmp_path / "alone")
    monkeypatch.setattr(score, "side_by_side", lambda splits, widest: [splits])
    monkeypatch.setattr(experiment, "side_by_side", score.side_by_side)
    together = train(small(text), tmp_path / "together")
    for split in ("valid", "test"):
        assert together[split]["tokens"] == alone[split]["tokens"]
        assert together[split]["nll"] == pytest.approx(alone[split]["nll"], rel=1e-6)


def test_progress_is_told() -> None:
    class Told(Display):
        def update(self, done: int, note: str = "") -> None:
            seen.append(done)

    seen: list[int] = []
    _, graphdef, params = language_model()
    scorer = score.make_scorer(tasks.get("language"), graphdef, score.local_mesh())
    scorer(params, ScoringWindows(TOKENS, 1, 256), Told(quiet=True))
    assert seen == [1, 2, 3]


def test_targets_scored_on_penn_treebank(real_data: Path) -> None:
    """N - 1 targets of N tokens: the first word has no predecessor, as in the authors' code."""
    for name, expected in (("ptb_word", 82_429), ("ptb_char", 442_422)):
        corpus = data.load(name, data_dir=str(real_data))
        windows = ScoringWindows(corpus.test, 1, 256)
        assert sum(int(window["weight"].sum()) for window in windows) == expected
