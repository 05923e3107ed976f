"""The piano rolls task: head, weights, resets, resuming, commands."""

import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import (
    QUIET,
    ROOT,
    call_module,
    lines_of,
    raw_data,
    run_module,
    train,
)

from rnnx import config as configs
from rnnx import data, model, score, tasks, trainer
from rnnx.data import Corpus
from rnnx.data.batches import Pieces, PieceWindows
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.experiment import Experiment
from rnnx.tasks import network
from rnnx.tasks.rolls import Rolls
from rnnx.tasks.task import Dataset

KEYS = 6
SPEC = Vocabulary("roll", tuple(range(21, 21 + KEYS)))


def rolls(seed: int, count: int) -> Pieces:
    """Pieces of 5 to 20 steps in which every step is the last one, moved by a key."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        first = (rng.random(KEYS) < 0.3).astype(np.uint8)
        made.append(np.stack([np.roll(first, t) for t in range(rng.integers(5, 21))]))
    return Pieces.of(made)


@pytest.fixture
def chorales(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A small corpus of the kind, in place of the real one."""
    made = Corpus(
        "jsb", "roll", rolls(0, 11), rolls(1, 4), rolls(2, 5),
        SPEC, {"made": "0" * 64},
    )  # fmt: skip
    monkeypatch.setattr(data, "load", lambda *args, **options: made)
    return made


def config_of(**fields):
    config = configs.default()
    config.update(
        {
            "corpus": "jsb", "level": "roll", "depth": 2, "hidden_size": 9, "init_scale": 0.3,
            "batch_size": 4, "num_steps": 6, "epochs": 4, "learning_rate": 0.05, "drop_h": 0.1,
        }
        | fields
    )  # fmt: skip
    return config


def by_hand(config, params, pieces: Pieces) -> float:
    """Each piece by itself, a step at a time, probabilities in float64."""
    net = model.merge(network.abstract(config, SPEC)[0], params)
    weights, bias = net.output_weights[...], net.output_bias[...]
    step, total = jax.jit(net.outputs), 0.0
    for piece in pieces.pieces:
        carries = net.stack.zero_carry(1)
        for now, following in itertools.pairwise(piece):
            ys, carries = step(jnp.asarray(now, jnp.float32)[None, None], carries)
            logits = np.asarray(ys[0, 0] @ weights + bias, np.float64)
            p = 1 / (1 + np.exp(-logits))
            total -= np.log(np.where(following, p, 1 - p)).sum()
    return total


def test_the_data_s_own_level_replaces_the_config_s(chorales: Corpus, tmp_path: Path) -> None:
    experiment = Experiment(config_of(level="char"), tmp_path / "run", QUIET)
    assert experiment.config.level == "roll"


def test_scores_are_each_pieces_own_whatever_the_batch(chorales: Corpus) -> None:
    config = network.resolve(config_of(), SPEC)
    graphdef, params = model.split(network.build(config, SPEC))
    expected = by_hand(config, params, chorales.valid)
    task = tasks.of(config)
    scorer = score.make_scorer(task, graphdef, score.local_mesh())
    for shape in ((1, 256), (3, 5), (4, 2), (9, 30)):
        nats, targets = scorer(params, PieceWindows(chorales.valid, *shape))["nll"]
        assert nats == pytest.approx(expected, rel=1e-5)
        assert targets == chorales.valid.targets
    dataset = task.load(config, print)
    for protocol in ("full", "batched"):
        batches = task.batches(config, dataset, "valid", protocol, slice(None))
        assert scorer(params, batches)["nll"][0] == pytest.approx(expected, rel=1e-5)
        assert batches.batch_size == (1 if protocol == "full" else 4)


def test_an_update_counts_targets_only_and_starts_pieces_from_zero(
    chorales: Corpus, tmp_path: Path
) -> None:
    """The first epoch's nats, at a learning rate of zero, are the whole split's."""
    config = config_of(epochs=1, learning_rate=0.0, drop_h=0.0)
    experiment = Experiment(config, tmp_path / "run", QUIET)
    params = {name: np.array(p) for name, p in experiment.state.params.items()}
    trainer.run(experiment)
    (found,) = (line["train_nll"] for line in lines_of(tmp_path / "run") if line["kind"] == "epoch")
    expected = by_hand(experiment.config, params, chorales.train) / chorales.train.targets
    assert found == pytest.approx(expected, rel=1e-5)


def test_gradients_are_those_of_the_pieces(chorales: Corpus) -> None:
    """Padding changes no gradient where a window spans whole pieces."""
    config = network.resolve(config_of(), SPEC)
    graphdef, params = model.split(network.build(config, SPEC))

    def loss(params, batch):
        net = model.merge(graphdef, params)
        carries = Rolls().zero_carry(net, len(batch["fresh"]))
        costs, _, sums = Rolls().cost(net, batch, carries, None)
        return jnp.sum(costs), sums

    two = Pieces.of(chorales.valid.pieces[:2])
    padded = PieceWindows(two, 3, 25)[0]
    together, sums = jax.grad(loss, has_aux=True)(params, padded)
    assert sums["nll"][1] == two.targets
    pieces = two.pieces
    assert len(pieces[0]) != len(pieces[1])
    apart = [PieceWindows(Pieces.of([piece]), 1, len(piece) - 1)[0] for piece in pieces]
    alone = [jax.grad(loss, has_aux=True)(params, window)[0] for window in apart]
    for name in params:
        total = sum(np.asarray(grads[name]) for grads in alone)
        np.testing.assert_allclose(together[name], total, rtol=1e-4, atol=1e-5)


def test_a_run_learns(chorales: Corpus, tmp_path: Path) -> None:
    experiment = Experiment(
        config_of(epochs=12, hidden_size=24, learning_rate=0.2), tmp_path / "run", QUIET
    )
    known = experiment.task.baselines(experiment.config, experiment.dataset, "valid")
    result = trainer.run(experiment)
    assert result["valid"]["nll"] < known["symbol frequencies"] < known["uniform"]
    assert result["valid"]["steps"] == chorales.valid.targets


def test_pieces_come_in_an_order_of_seed_and_epoch(chorales: Corpus) -> None:
    """Scoring keeps the order of the data."""
    config, task = network.resolve(config_of(), SPEC), Rolls()
    dataset, orders = task.load(config, print), set()
    for config.seed in (0, 1):
        training = task.batches(config, dataset, "train", "train", slice(None))
        for epoch in (0, 1):
            training.begin(epoch)
            orders.add(np.concatenate([b["inputs"] for b in training]).tobytes())
    assert len(orders) == 4
    scoring = task.batches(config, dataset, "train", "batched", slice(None))
    assert (scoring[0]["inputs"][0, :3] == chorales.train.pieces[0][:3]).all()


def test_frequencies_of_keys() -> None:
    train, scored = rolls(0, 5), rolls(1, 3)
    p = (train.frames.sum(axis=0) + 1) / (len(train) + 2)
    dataset = Dataset("made", {"train": train, "valid": scored}, SPEC, {}, (0, 0, 0))

    def expected(pieces: Pieces) -> float:
        nats = 0.0
        for piece in pieces.pieces:
            for frame in piece[1:]:
                nats -= sum(np.log(q if on else 1 - q) for q, on in zip(p, frame, strict=True))
        return nats / pieces.targets

    known = Rolls().baselines(config_of(), dataset, "valid")
    assert known["symbol frequencies"] == pytest.approx(expected(scored))
    assert known["uniform"] == Rolls().uninformed(SPEC) == pytest.approx(KEYS * math.log(2))
    capped = Rolls().baselines(config_of(eval_tokens=1), dataset, "valid")
    first = Pieces.of(scored.pieces[:1])
    assert capped["symbol frequencies"] == pytest.approx(expected(first))


def test_the_score_is_nats_a_step() -> None:
    assert Rolls().scores({"nll": (30.0, 4.0)}) == {"nll": 7.5, "steps": 4}
    assert Rolls().unit(config_of()).show(7.5) == "nats a step 7.5000"


@pytest.mark.parametrize(
    "fields", [{"tied": True}, {"one_hot": True}, {"drop_x": 0.1}, {"reset_prob": 0.1}]
)
def test_what_rolls_do_not_have_is_refused(fields: dict, chorales: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this task has no words"):
        train(config_of(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_embedding_size_is_refused() -> None:
    with pytest.raises(UserError, match="no embedding"):
        network.resolve(config_of(embed_size=5), SPEC)


def test_real_chorales_in_all_commands(tmp_path: Path) -> None:
    folder = raw_data()
    if folder is None or not (folder.parent / "JSB_Chorales.mat").exists():
        pytest.skip("needs JSB_Chorales.mat: set RNNX_DATA to its folder")
    place = f"--config.data_dir={folder.parent}"
    run = f"--workdir={tmp_path / 'run'}"
    done = run_module("train", f"--config={ROOT}/configs/jsb.py", place, run, "--config.epochs=3")
    assert done.returncode == 0, done.stderr
    assert "nats a step" in done.stdout
    scored = call_module("evaluate", run, "--split=valid")
    assert scored.returncode == 0 and "nats a step" in scored.stdout, scored.stderr
    for refused in (
        call_module("evaluate", run, "--protocol=mc"),
        call_module("sample", run, "--prompt=x"),
    ):
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
