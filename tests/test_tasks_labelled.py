"""The tasks of whole sequences: costs, scores, baselines, parts, training."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import train
from sequences_made import engines, labelled, table

from rnnx import config as configs
from rnnx import model, score, tasks
from rnnx.data.series import Labelled, Scaling
from rnnx.errors import UserError
from rnnx.tasks import network
from rnnx.tasks.labelled import shortened
from rnnx.tasks.task import Dataset

WHOLE = slice(None)


def config_of(task: str, **fields):
    config = configs.default(task)
    config.update(
        {
            "cell": "lstm", "hidden_size": 5, "init_scale": 0.4, "batch_size": 4, "epochs": 1,
            "optimizer": "adam", "learning_rate": 0.02,
        }
        | fields
    )  # fmt: skip
    return config


def dataset_of(data: Labelled, kind: str) -> Dataset:
    task = tasks.get(kind)
    spec = {"columns": list(data.columns), "scaling": Scaling(np.array([3.0, 2.0]),
            np.array([2.0, 0.5])).to_json()} | task.spec_of(data)  # fmt: skip
    splits = {name: task.sequences(data, spec, i) for i, name in enumerate(("train", "valid",
              "test"))}  # fmt: skip
    return Dataset("made", splits, spec, {}, tuple(map(len, splits.values())))


def outputs_by_hand(net, x: np.ndarray) -> np.ndarray:
    """What the network gives of one sequence by itself: (K,), or of each of its steps (T, K)."""
    ys, _ = net.outputs(((x - [3, 2]) / [2, 0.5]).astype(np.float32)[:, None], None)
    ys = np.array(ys, np.float64)[:, 0]
    return ys @ np.array(net.output_weights[...]) + np.array(net.output_bias[...])


def pooled(net, x: np.ndarray) -> np.ndarray:
    outs = outputs_by_hand(net, x)
    if net.pool == "mean":
        return outs.mean(axis=0)
    if not net.stack.bidirectional:
        return outs[-1]
    n, bias = net.output_weights.shape[0] // 2, np.array(net.output_bias[...])
    ys = np.array(net.outputs(((x - [3, 2]) / [2, 0.5]).astype(np.float32)[:, None], None)[0])
    return np.r_[ys[-1, 0, :n], ys[0, 0, n:]] @ np.array(net.output_weights[...]) + bias


def of_part(data: Labelled, part: int) -> np.ndarray:
    return np.flatnonzero(data.part == part)


def sums_of(config, dataset: Dataset, split: str, net) -> tuple[dict, list]:
    """Sums over a split, and the costs of each sequence by its index."""
    task = tasks.of(config)
    graphdef, params = model.split(net)
    cost = jax.jit(lambda p, b: task.cost(model.merge(graphdef, p), b, (), None))
    parts, costs = [], {}
    batches = task.batches(config, dataset, split, "batched", WHOLE)
    assert len(dataset.splits[split]) % config.batch_size  # some rows only fill up
    for batch in batches:
        found, _, sums = cost(params, batch)
        parts.append(jax.device_get(sums))
        for i, weight, c in zip(batch["index"], batch["weight"], np.array(found), strict=True):
            assert weight or c == 0
            if weight:
                costs[int(i)] = c
    return score.total(parts), [costs[i] for i in range(len(costs))]


@pytest.mark.parametrize(
    "fields", [{}, {"bidirectional": True}, {"bidirectional": True, "pool": "mean"}]
)
def test_classes_are_scored_as_one_sequence_at_a_time(fields: dict) -> None:
    data = labelled()
    dataset = dataset_of(data, "classify")
    config = network.resolve(config_of("classify", **fields), dataset.spec)
    net = network.build(config, dataset.spec)
    sums, costs = sums_of(config, dataset, "valid", net)
    expected, right = [], []
    for i in of_part(data, 1):
        logits = pooled(net, data.inputs[i])
        expected.append(np.log(np.exp(logits).sum()) - logits[data.labels[i]])
        right.append(logits.argmax() == data.labels[i])
    np.testing.assert_allclose(costs, expected, rtol=1e-4)
    count = len(expected)
    assert sums["nll"] == (pytest.approx(sum(expected), rel=1e-5), count)
    assert sums["accuracy"] == (sum(right), count)
    scores = tasks.get("classify").scores(sums)
    assert scores["sequences"] == count and scores["accuracy"] == np.mean(right)


@pytest.mark.parametrize("steps", [False, True])
def test_numbers_are_scored_as_one_sequence_at_a_time(steps: bool) -> None:
    """Training counts all steps where they have numbers of their own, scores the last alone."""
    data = labelled(kind="regress", steps=steps)
    dataset = dataset_of(data, "regress")
    config = network.resolve(config_of("regress"), dataset.spec)
    net = network.build(config, dataset.spec)
    sums, costs = sums_of(config, dataset, "test", net)
    train_ = of_part(data, 0)
    seen = np.concatenate([data.steps[i] for i in train_]) if steps else data.labels[train_]
    mean, std = seen.mean(), seen.std()
    errors, expected = [], []
    for i in of_part(data, 2):
        outs = outputs_by_hand(net, data.inputs[i])[:, 0]
        errors.append(outs[-1] * std + mean - data.labels[i])
        targets = data.steps[i] if steps else data.labels[i]
        away = outs - (targets - mean) / std
        expected.append((away**2).mean() if steps else away[-1] ** 2)
    np.testing.assert_allclose(costs, expected, rtol=1e-4)
    found = tasks.get("regress").scores(sums)
    assert found["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
    assert found["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)
    assert found["sequences"] == len(errors)
    assert tasks.get("regress").unit(config).show(found["mse"]) == f"rmse {found['rmse']:.4f}"


def test_baselines() -> None:
    data = labelled()
    dataset, task = dataset_of(data, "classify"), tasks.get("classify")
    counts = np.bincount(data.labels[data.part == 0], minlength=3) + 1
    nats = -np.log(counts / counts.sum())[data.labels[data.part == 2]]
    known = task.baselines(config_of("classify"), dataset, "test")
    assert known["class frequencies"] == pytest.approx(nats.mean())
    assert known["uniform"] == task.uninformed(dataset.spec) == pytest.approx(math.log(3))
    capped = task.baselines(config_of("classify", eval_tokens=2), dataset, "test")
    assert capped["class frequencies"] == pytest.approx(nats[:2].mean())
    task = tasks.get("regress")
    for steps in (False, True):
        data = labelled(kind="regress", steps=steps)
        dataset = dataset_of(data, "regress")
        at = of_part(data, 0)
        seen = np.concatenate([data.steps[i] for i in at]) if steps else data.labels[at]
        known = task.baselines(config_of("regress"), dataset, "test")
        mse = ((data.labels[data.part == 2] - seen.mean()) ** 2).mean()
        assert known["mean"] == pytest.approx(mse, rel=1e-5)
        capped = task.baselines(config_of("regress", eval_tokens=2), dataset, "test")
        mse = ((data.labels[data.part == 2][:2] - seen.mean()) ** 2).mean()
        assert capped["mean"] == pytest.approx(mse, rel=1e-5) or steps
        # Training scores the last steps, which may be further away than all steps are.
        away = data.labels[at] - seen.mean()
        worst = max((away**2).mean(), seen.var())
        assert task.uninformed(dataset.spec) == pytest.approx(worst)


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_a_fraction_has_its_share_of_every_class_and_is_within_a_larger_one(kind: str) -> None:
    data = labelled(200, kind, steps=True)
    assert shortened(data, 1.0) is data
    before = set()
    for fraction in (0.001, 0.1, 0.3, 0.9):
        found = shortened(data, fraction)
        kept = {name for name, part in zip(found.ids, found.part, strict=True) if part == 0}
        assert before < kept and (found.part > 0).sum() == (data.part > 0).sum()
        before = kept
        classes = np.unique(data.labels) if kind == "classify" else [None]
        for label in classes:
            mine, all_ = (
                ((d.part == 0) & (True if label is None else d.labels == label)).sum()
                for d in (found, data)
            )
            assert mine == max(round(fraction * all_), 1)
        for name, x, label in zip(found.ids, found.inputs, found.labels, strict=True):
            i = data.ids.index(name)
            assert x is data.inputs[i] and label == data.labels[i]
            if found.steps:
                assert found.steps[found.ids.index(name)] is data.steps[i]


@pytest.mark.parametrize("fields", [{"bidirectional": True}, {"pool": "mean"}])
def test_numbers_of_every_step_are_not_read_from_the_future(fields: dict) -> None:
    spec = {"every_step": True}
    task = tasks.get("regress")
    with pytest.raises(UserError, match="known from the past"):
        task.at_width(config_of("regress", **fields), spec, 3)
    assert task.at_width(config_of("regress", **fields), {"every_step": False}, 3).hidden_size == 3
    assert task.at_width(config_of("regress"), spec, 3).hidden_size == 3


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_a_tiny_run_learns(kind: str, tmp_path: Path) -> None:
    fields = {"corpus": str(table(tmp_path, kind)), "target": "label", "group": "id", "time": "t"}
    config = config_of(kind, epochs=20, batch_size=8, **fields)
    result = train(config, tmp_path / "run")["test"]
    dataset = tasks.of(config).load(config, print)
    known = tasks.of(config).baselines(config, dataset, "test")
    assert dataset.spec["columns"] == ["a", "b"] and result["sequences"] == 12
    if kind == "classify":
        assert result["accuracy"] > 0.9 and result["nll"] < 0.5 * known["class frequencies"]
    else:
        assert result["mse"] < 0.4 * known["mean"]


def test_parts_do_not_depend_on_the_seed_of_a_run(tmp_path: Path) -> None:
    path, task = table(tmp_path, "classify"), tasks.get("classify")
    splits = []
    for seed in (0, 1):
        config = config_of("classify", corpus=str(path), target="label", group="id", seed=seed)
        splits.append(task.load(config, print).splits)
    for name in ("train", "valid", "test"):
        one, other = (np.concatenate(s[name].each("inputs")) for s in splits)
        np.testing.assert_array_equal(one, other)
    a, b = (
        task.batches(config_of("classify", seed=seed), Dataset("", splits[0], None, {}, ()),
                     "train", "train", WHOLE)[0]["index"]
        for seed in (0, 1)
    )  # fmt: skip
    assert a.tolist() != b.tolist()


def test_inputs_are_scaled_by_the_training_part(tmp_path: Path) -> None:
    config = config_of("classify", corpus=str(table(tmp_path, "classify")), target="label",
                       group="id", time="t")  # fmt: skip
    splits = tasks.of(config).load(config, print).splits
    seen = np.concatenate(splits["train"].each("inputs"))
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-6)


def test_engines_train_on_every_cycle(tmp_path: Path) -> None:
    config = config_of("regress", corpus=str(engines(tmp_path)), cap=20, epochs=15)
    dataset = tasks.of(config).load(config, print)
    names = ["train train_FD001.txt", "test test_FD001.txt", "rul RUL_FD001.txt"]
    assert list(dataset.sums) == names and dataset.spec["every_step"]
    assert dataset.spec["columns"] == ["sensor 1", "sensor 2"] and dataset.sizes == (16, 4, 6)
    result = train(config, tmp_path / "run")["test"]
    assert result["mse"] < 0.5 * tasks.of(config).baselines(config, dataset, "test")["mean"]
    with pytest.raises(UserError, match="take the task regress"):
        tasks.get("classify").load(config_of("classify", corpus=config.corpus), print)
    config.test_corpus = config.corpus
    with pytest.raises(UserError, match="leave test_corpus out"):
        tasks.get("regress").load(config, print)


@pytest.mark.parametrize("named", [True, False])
def test_the_test_part_is_the_file_that_is_named_or_lies_beside(
    named: bool, tmp_path: Path
) -> None:
    rows = [f"{i % 2}\t{i}\t{i + 1}\t{i * i}" for i in range(30)]
    train, beside = tmp_path / "X_TRAIN.tsv", tmp_path / "X_TEST.tsv"
    train.write_text("\n".join(rows[:20]) + "\n")
    beside.write_text("\n".join(rows[20:26]) + "\n")
    other = tmp_path / "other.tsv"
    other.write_text("\n".join(rows[26:]) + "\n")
    config = config_of("classify", corpus=str(train), test_corpus=str(other) if named else "")
    dataset = tasks.get("classify").load(config, print)
    assert dataset.sizes[2] == (4 if named else 6)
    beside_it = "test other.tsv" if named else "test X_TEST.tsv"
    assert list(dataset.sums) == ["train X_TRAIN.tsv", beside_it]
    assert ("the test part is X_TEST.tsv" in dataset.about) != named


def test_a_cap_on_what_is_scored_leaves_training_whole() -> None:
    data, task, config = labelled(), tasks.get("classify"), config_of("classify", eval_tokens=2)
    dataset = dataset_of(data, "classify")
    assert task.batches(config, dataset, "train", "train", WHOLE).targets == (data.part == 0).sum()
    assert task.batches(config, dataset, "valid", "full", WHOLE).targets == 2


def test_a_fraction_of_training_is_drawn_not_the_first() -> None:
    data = labelled(200)
    data = data._replace(ids=tuple(map(str, range(len(data.part)))))
    kept = set(map(int, shortened(data, 0.3).ids))
    for label in np.unique(data.labels):
        own = np.flatnonzero((data.part == 0) & (data.labels == label))
        assert max(kept.intersection(own)) > own[len(own) // 2]
