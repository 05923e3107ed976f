"""The evaluation protocols: each target once, and each protocol what its name says."""

import itertools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, call_module, raw_data, run_module, small
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx import data, evaluate, model, parallel
from rnnx.train import Trainer

VOCAB = 13
TOKENS = np.random.default_rng(0).integers(0, VOCAB, 700).astype(np.uint8)


def network(**fields) -> tuple[ConfigDict, object, dict]:
    config = configs.default()
    config.update(
        {"level": "word", "hidden_size": 10, "depth": 2, "num_layers": 2, "init_scale": 0.7}
        | fields
    )
    config = model.resolve(config, VOCAB)
    return config, *model.split(model.build(config, VOCAB))


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


@pytest.mark.parametrize("length", [2, 256, 257, 258, 700])
def test_full_equals_a_token_by_token_loop(length: int) -> None:
    _, graphdef, params = network()
    score = evaluate.full(graphdef, params, TOKENS[:length])
    assert score.tokens == length - 1
    np.testing.assert_allclose(
        score.nats, token_by_token(graphdef, params, TOKENS[:length]), rtol=1e-6
    )


@pytest.mark.parametrize("batch_size, num_steps", [(4, 9), (6, 35), (10, 70), (2, 699)])
def test_batched_is_the_sum_over_streams_from_the_zero_state(batch_size, num_steps) -> None:
    _, graphdef, params = network()
    score = evaluate.make_scorer(graphdef, evaluate.local_mesh())
    ours = score(params, TOKENS, batch_size, num_steps)
    assert ours.tokens == 699
    begin = [699 * i // batch_size for i in range(batch_size + 1)]
    theirs = sum(
        token_by_token(graphdef, params, TOKENS[first : last + 1])
        for first, last in itertools.pairwise(begin)
    )
    np.testing.assert_allclose(ours.nats, theirs, rtol=1e-6)


def test_batched_on_two_devices_is_the_same() -> None:
    _, graphdef, params = network()
    scores = []
    for devices in (1, 2):
        mesh = parallel.batch_mesh(4, jax.devices()[:devices])
        placed = parallel.shard(params, mesh, parallel.EVERYWHERE)
        scores.append(evaluate.make_scorer(graphdef, mesh)(placed, TOKENS, 4, 20).nats)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_mc_without_dropout_equals_full() -> None:
    config, graphdef, params = network()
    full = evaluate.full(graphdef, params, TOKENS)
    mc = evaluate.monte_carlo(graphdef, params, config, TOKENS, VOCAB, samples=3)
    np.testing.assert_allclose(mc.nats, full.nats, rtol=1e-6)
    assert mc.tokens == full.tokens


def test_mc_averages_probabilities_over_masks_held_for_a_whole_pass() -> None:
    config, graphdef, params = network(drop_x=0.2, drop_i=0.3, drop_h=0.2, drop_o=0.3)
    samples = 35  # more than go into one batch of rows
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0x6D63), 0)
    net = model.merge(graphdef, params)
    x, y = TOKENS[:-1].astype(int), TOKENS[1:].astype(int)

    @jax.jit
    def one_pass(row):
        masks = model.draw_masks(key, config, row, VOCAB)
        masks = model.look_up_draws(masks, jnp.asarray(x)[:, None])
        return masks.x, net.nll(x[:, None], y[:, None], net.stack.zero_carry(1), masks)[0]

    p = 0.0
    for k in range(samples):
        mask, nll = one_pass(jnp.array([k]))
        assert len(np.unique(np.asarray(mask)[x == 5])) == 1  # one draw a word and pass
        p = p + np.exp(-np.float64(nll[:, 0]))
    expected = -np.log(p / samples).sum()
    ours = evaluate.monte_carlo(graphdef, params, config, TOKENS, VOCAB, samples=samples)
    np.testing.assert_allclose(ours.nats, expected, rtol=1e-6)
    other = evaluate.monte_carlo(graphdef, params, config, TOKENS, VOCAB, samples=samples, seed=1)
    assert abs(other.nats - ours.nats) > 1e-3


def dynamic(config, graphdef, params, tokens, **options):
    settings = {"rate": 1e-3, "decay": 1e-2, "segment": 5, "statistics": 4} | options
    return evaluate.dynamic(graphdef, params, config, TOKENS, tokens, **settings)


def test_dynamic_with_rate_zero_equals_full() -> None:
    config, graphdef, params = network(batch_size=4)
    full = evaluate.full(graphdef, params, TOKENS)
    ours = dynamic(config, graphdef, params, TOKENS, rate=0.0)
    np.testing.assert_allclose(ours.nats, full.nats, rtol=1e-6)
    assert ours.tokens == full.tokens


def test_dynamic_follows_the_rule_of_the_paper() -> None:
    """Two segments by hand, in the terms of Krause et al.: MS, RMS-scaled step, clipped decay."""
    config, graphdef, params = network(batch_size=4)
    rate, decay, epsilon = 1e-3, 0.3, 2e-5

    def loss(p, x, y, carries):
        nll, carries = model.merge(graphdef, p).nll(x.T, y.T, carries)
        return nll.mean(), (nll.sum(), carries)

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    net = model.merge(graphdef, params)
    streams = TOKENS.reshape(4, -1).astype(int)
    squares, carries = [], net.stack.zero_carry(4)
    for i in range(0, 20, 5):
        g, (_, carries) = gradient(
            params, streams[:, i : i + 5], streams[:, i + 1 : i + 6], carries
        )
        squares.append({k: np.asarray(v) ** 2 for k, v in g.items()})
    rms = {k: np.sqrt(np.mean([s[k] for s in squares], axis=0)) for k in params}
    mean = np.mean([r.mean() for r in rms.values()])
    theta, carries, nats = dict(params), net.stack.zero_carry(1), 0.0
    for i in (0, 5, 10):
        x, y = (TOKENS[None, i + d : i + d + 5].astype(int) for d in (0, 1))
        g, (sum_, carries) = gradient(theta, x, y, carries)
        nats += float(sum_)
        for k in theta:
            pull = np.minimum(decay * rms[k] / mean, 1)
            theta[k] = theta[k] + pull * (params[k] - theta[k]) - rate * g[k] / (rms[k] + epsilon)
    ours = dynamic(config, graphdef, params, TOKENS[:16], rate=rate, decay=decay)
    np.testing.assert_allclose(ours.nats, nats, rtol=1e-5)


def test_dynamic_learns_from_a_text_that_repeats() -> None:
    config, graphdef, params = network(batch_size=4)
    repeated = np.tile(np.arange(VOCAB, dtype=np.uint8), 60)
    static = evaluate.full(graphdef, params, repeated)
    assert dynamic(config, graphdef, params, repeated, rate=4e-3).nll < 0.7 * static.nll


def test_targets_scored_on_penn_treebank(real_data: Path) -> None:
    """N - 1 targets of N tokens: the first word has no predecessor, as in the authors' code."""
    for name, expected in (("ptb_word", 82_429), ("ptb_char", 442_422)):
        corpus = data.load(name, data_dir=str(real_data))
        windows = evaluate.batches.scoring_windows(corpus.test, 1, 256)
        assert sum(int(weight.sum()) for _, _, weight in windows) == expected


# ---------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text").write_text("the cat sat on the mat and the dog ran at the cat\n" * 60)
    Trainer(small(folder / "text", epochs=2), folder / "run", QUIET).run()
    return folder / "run"


@pytest.mark.parametrize("protocol", evaluate.PROTOCOLS)
def test_the_command_prints_and_keeps_the_score(trained: Path, protocol: str) -> None:
    # One protocol as a process of its own.
    command = run_module if protocol == "full" else call_module
    done = command(
        "evaluate", f"--workdir={trained}", f"--protocol={protocol}", "--split=valid",
        "--samples=2", "--statistics=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"valid {protocol}: bpc ")
    kept = json.loads((trained / "evaluations.jsonl").read_text().splitlines()[-1])
    assert kept["protocol"] == protocol and kept["split"] == "valid"
    result = json.loads((trained / "result.json").read_text())
    assert kept["tokens"] == result["valid"]["tokens"]
    if protocol == "full":
        assert kept["nll"] == result["valid"]["nll"]


def test_a_changed_corpus_is_noticed_and_a_moved_one_can_be_named(trained: Path) -> None:
    corpus = trained.parent / "text"
    content = corpus.read_text()
    try:
        corpus.write_text(content[::-1])  # the same alphabet
        done = call_module("evaluate", f"--workdir={trained}")
        assert done.returncode == 2 and "is not the one" in done.stderr
        corpus.unlink()
        moved = trained.parent / "moved"
        moved.write_text(content)
        done = call_module("evaluate", f"--workdir={trained}", f"--corpus={moved}")
        assert done.returncode == 0, done.stderr
    finally:
        corpus.write_text(content)


def test_rates_that_break_the_network_are_told(trained: Path) -> None:
    done = call_module("evaluate", f"--workdir={trained}", "--protocol=dynamic", "--rate=1e30")
    assert done.returncode == 2 and "lower --rate" in done.stderr


def test_real_data_is_where_the_tests_look() -> None:
    """On the CI machine the real corpora are there, so that no check is skipped unseen."""
    if os.environ.get("CI") and (Path(__file__).parent.parent.parent / "shared").is_dir():
        assert raw_data() is not None
