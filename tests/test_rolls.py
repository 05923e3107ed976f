"""Piano rolls from file to result: head, weights, resets, resuming."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, ROOT, raw_data, run_module

from rnnx import config as configs
from rnnx import data, evaluate, model
from rnnx.data import Corpus
from rnnx.data.batches import Pieces, PieceWindows
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.metrics import uniform, unigram
from rnnx.train import Trainer

KEYS = 6


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
        Vocabulary("roll", tuple(range(21, 21 + KEYS))), {"made": "0" * 64},
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
    net = model.merge(model.abstract(config, KEYS)[0], params)
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


def test_scores_are_each_pieces_own_whatever_the_batch(chorales: Corpus) -> None:
    config = model.resolve(config_of(), KEYS)
    graphdef, params = model.split(model.build(config, KEYS))
    expected = by_hand(config, params, chorales.valid)
    score = evaluate.make_scorer(graphdef, evaluate.local_mesh())
    for shape in ((1, 256), (3, 5), (4, 2), (9, 30)):
        found = score(params, chorales.valid, *shape)
        assert found.nats == pytest.approx(expected, rel=1e-5)
        assert found.tokens == chorales.valid.targets
    assert evaluate.full(graphdef, params, chorales.valid).nats == pytest.approx(expected, rel=1e-5)


def test_an_update_counts_targets_only_and_starts_pieces_from_zero(
    chorales: Corpus, tmp_path: Path
) -> None:
    """The first epoch's nats, at a learning rate of zero, are the whole split's."""
    config = config_of(epochs=1, learning_rate=0.0, drop_h=0.0)
    trainer = Trainer(config, tmp_path / "run", QUIET)
    params = {name: np.asarray(p) for name, p in trainer.state.params.items()}
    trainer.run()
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    train = next(line["train_nll"] for line in lines if line["kind"] == "epoch")
    expected = by_hand(trainer.config, params, chorales.train) / chorales.train.targets
    assert train == pytest.approx(expected, rel=1e-5)


def test_gradients_are_those_of_the_pieces(chorales: Corpus) -> None:
    """Padding and a window's split change no gradient where the window spans a whole piece."""
    config = model.resolve(config_of(), KEYS)
    graphdef, params = model.split(model.build(config, KEYS))

    def loss(params, x, y, weight):
        net = model.merge(graphdef, params)
        x, y = (jnp.swapaxes(a, 0, 1) for a in (x, y))
        nll, _ = net.nll(x, y, net.stack.zero_carry(x.shape[1]))
        return jnp.sum(nll * weight.T)

    padded = PieceWindows(chorales.valid, 4, 40)[0]
    together = jax.grad(loss)(params, *padded)
    pieces = chorales.valid.pieces
    apart = [PieceWindows(Pieces.of([piece]), 1, len(piece) - 1)[0] for piece in pieces]
    alone = [jax.grad(loss)(params, *window) for window in apart]
    for name in params:
        total = sum(np.asarray(grads[name]) for grads in alone)
        np.testing.assert_allclose(together[name], total, rtol=1e-4, atol=1e-5)


def test_a_run_learns_and_goes_on_to_the_same_bits(chorales: Corpus, tmp_path: Path) -> None:
    config = config_of(epochs=12, checkpoint_every=4, hidden_size=24, learning_rate=0.2)
    whole = Trainer(config, tmp_path / "whole", QUIET)
    result = whole.run()
    nothing = uniform("roll", KEYS).nll
    frequencies = unigram(chorales.train, chorales.valid, KEYS).nll
    assert result["valid"]["nll"] < frequencies < nothing
    stopped = Trainer(config, tmp_path / "stopped", QUIET)
    settle = stopped.settle

    def killed() -> None:
        if stopped.progress.step >= 18:
            raise KeyboardInterrupt
        settle()

    stopped.settle = killed
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Trainer(config, tmp_path / "stopped", QUIET)
    assert resumed.run()["test"] == result["test"]
    for name, value in whole.state.params.items():
        assert np.array_equal(value, resumed.state.params[name])


def test_frequencies_of_keys() -> None:
    train, scored = rolls(0, 5), rolls(1, 3)
    p = (train.frames.sum(axis=0) + 1) / (len(train) + 2)
    expected = 0.0
    for piece in scored.pieces:
        for frame in piece[1:]:
            expected -= sum(np.log(q if on else 1 - q) for q, on in zip(p, frame, strict=True))
    found = unigram(train, scored, KEYS)
    assert found.nats == pytest.approx(expected) and found.tokens == scored.targets


@pytest.mark.parametrize("fields", [{"tied": True}, {"one_hot": True}, {"drop_x": 0.1}])
def test_what_rolls_do_not_have_is_refused(fields: dict) -> None:
    with pytest.raises(UserError, match="piano rolls have no words"):
        configs.validate(config_of(**fields))


def test_an_embedding_size_is_refused() -> None:
    with pytest.raises(UserError, match="no embedding"):
        model.resolve(config_of(embed_size=5), KEYS)


def test_real_chorales_in_all_commands(tmp_path: Path) -> None:
    folder = raw_data()
    if folder is None or not (folder.parent / "JSB_Chorales.mat").exists():
        pytest.skip("needs JSB_Chorales.mat: set RNNX_DATA to its folder")
    place = f"--config.data_dir={folder.parent}"
    run = f"--workdir={tmp_path / 'run'}"
    done = run_module("train", f"--config={ROOT}/configs/jsb.py", place, run, "--config.epochs=3")
    assert done.returncode == 0, done.stderr
    assert "nats a step" in done.stdout
    scored = run_module("evaluate", run, "--split=valid")
    assert scored.returncode == 0 and "nats a step" in scored.stdout, scored.stderr
    for refused in (
        run_module("evaluate", run, "--protocol=mc"),
        run_module("sample", run, "--prompt=x"),
    ):
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
