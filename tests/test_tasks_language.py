"""The language task: its scores, masks and baselines, Monte-Carlo dropout, dynamic evaluation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUIET, TOKENS, VOCAB, full, language_model, words

from rnnx import config as configs
from rnnx import dropout, model
from rnnx.data.vocabulary import Vocabulary
from rnnx.dropout import Rates
from rnnx.errors import UserError
from rnnx.tasks.language import Language
from rnnx.tasks.task import Dataset


def corpus(train: np.ndarray, valid: np.ndarray, size: int = VOCAB) -> Dataset:
    return Dataset("made", {"train": train, "valid": valid}, words(size), {}, (0, 0, 0))


def leveled(level: str, **fields):
    config = configs.default()
    config.update(level=level, **fields)
    return config


# ---------------------------------------------------------------------------- scores


def test_scores_are_in_nats_perplexity_and_bits() -> None:
    scores = Language().scores({"nll": (200 * math.log(4), 200.0)})
    assert scores == {
        "nll": pytest.approx(math.log(4)),
        "ppl": pytest.approx(4),
        "bpc": pytest.approx(2),
        "tokens": 200,
    }
    assert type(scores["tokens"]) is int
    assert Language().scores({"nll": (1e6, 1)})["ppl"] == math.inf  # not an OverflowError


def test_units_of_the_levels() -> None:
    shown = {level: Language().unit(leveled(level)) for level in ("word", "char", "byte")}
    assert shown["word"].show(math.log(4000)) == "ppl 4,000.00"
    assert shown["char"].show(math.log(4)) == "bpc 2.0000"
    assert shown["byte"].show(math.log(2)) == "bits per byte 1.0000"


def test_symbol_frequencies_are_those_of_train() -> None:
    dataset = corpus(np.array([0, 0, 0, 1]), np.array([1, 0, 1, 2, 2]), size=3)
    p = np.array([4, 2, 1]) / 7  # add one
    known = Language().baselines(leveled("word"), dataset, "valid")
    # The first token is no target.
    assert known["symbol frequencies"] == pytest.approx(-np.log(p[[0, 1, 2, 2]]).mean())
    assert known["uniform"] == Language().uninformed(dataset.spec) == pytest.approx(math.log(3))
    capped = Language().baselines(leveled("word", eval_tokens=3), dataset, "valid")
    assert capped["symbol frequencies"] == pytest.approx(-np.log(p[[0, 1, 2]]).mean())


def test_a_vocabulary_is_kept_with_the_run() -> None:
    task, spec = Language(), Vocabulary("char", ("b", "\n", "a"))
    assert task.spec_file == "vocabulary.json"
    assert task.spec_from_json(task.spec_to_json(spec)) == spec
    with pytest.raises(UserError, match="not a vocabulary"):
        task.spec_from_json({"format": 1})


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"one_hot": True, "tied": True}, "no embedding for tied weights"),
        ({"tied": True, "embed_size": 7, "hidden_size": 8}, "tied weights need embed_size"),
    ],
)
def test_fields_that_contradict_are_refused(fields: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Language().check(leveled("word", **fields))


def test_rows_restart_by_the_config_s_seed() -> None:
    def fresh(**fields) -> np.ndarray:
        config = leveled("word", batch_size=4, num_steps=5, **fields)
        windows = Language().batches(config, corpus(TOKENS, TOKENS), "train", "train", slice(None))
        return np.stack([window["fresh"] for window in windows])

    assert not fresh()[1:].any()
    assert not np.array_equal(fresh(reset_prob=0.3), fresh(reset_prob=0.3, seed=1))


@pytest.mark.parametrize("place", ["x", "i", "h", "o"])
def test_each_rate_of_the_config_drops_in_its_place(place: str) -> None:
    config, graphdef, params = language_model(**{f"drop_{place}": 0.5})
    net, batch = model.merge(graphdef, params), {"inputs": jnp.asarray(TOKENS.reshape(4, -1))}
    masks = Language().masks(config, net, jax.random.key(0), jnp.arange(4), batch)
    drawn = {name: m for name, m in masks._asdict().items() if m is not None}
    assert set(drawn) == {place}
    for mask in jax.tree.leaves(drawn):
        assert set(np.unique(mask)) == {0, 2}
    if place == "x":  # equal words of a row share a draw
        x, tokens = np.asarray(masks.x), TOKENS.reshape(4, -1).T
        for row in range(4):
            assert all(len(set(x[tokens[:, row] == w, row])) == 1 for w in range(VOCAB))


# ---------------------------------------------------------------------------- mc, dynamic


def mc(config, graphdef, params, **options):
    dataset = corpus(TOKENS, TOKENS)
    return Language.protocols["mc"](graphdef, params, config, dataset, "valid", QUIET, **options)[
        "nll"
    ]


def test_mc_without_dropout_equals_full() -> None:
    config, graphdef, params = language_model()
    nats, targets = mc(config, graphdef, params, samples=3)
    expected = full(graphdef, params, TOKENS)
    np.testing.assert_allclose(nats, expected[0], rtol=1e-6)
    assert targets == expected[1]


def test_mc_averages_probabilities_over_masks_held_for_a_whole_pass() -> None:
    config, graphdef, params = language_model(drop_x=0.2, drop_i=0.3, drop_h=0.2, drop_o=0.3)
    samples = 35  # more than go into one batch of rows
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0x6D63), 0)
    net = model.merge(graphdef, params)
    x, y = TOKENS[:-1].astype(int), TOKENS[1:].astype(int)

    @jax.jit
    def one_pass(row):
        masks = dropout.draw(key, Rates(0.2, 0.3, 0.2, 0.3), net.stack, row, VOCAB)
        masks = dropout.look_up_draws(masks, jnp.asarray(x)[:, None])
        return masks.x, net.nll(x[:, None], y[:, None], net.stack.zero_carry(1), masks)[0]

    p = 0.0
    for k in range(samples):
        mask, nll = one_pass(jnp.array([k]))
        assert len(np.unique(np.asarray(mask)[x == 5])) == 1  # one draw a word and pass
        p = p + np.exp(-np.float64(nll[:, 0]))
    expected = -np.log(p / samples).sum()
    nats, _ = mc(config, graphdef, params, samples=samples)
    np.testing.assert_allclose(nats, expected, rtol=1e-6)
    other, _ = mc(config, graphdef, params, samples=samples, seed=1)
    assert abs(other - nats) > 1e-3


def dynamic(config, graphdef, params, tokens, **options):
    settings = {"rate": 1e-3, "decay": 1e-2, "segment": 5, "statistics": 4} | options
    dataset = corpus(TOKENS, tokens)
    return Language.protocols["dynamic"](
        graphdef, params, config, dataset, "valid", QUIET, **settings
    )["nll"]


def test_dynamic_with_rate_zero_equals_full() -> None:
    config, graphdef, params = language_model(batch_size=4)
    expected = full(graphdef, params, TOKENS)
    nats, targets = dynamic(config, graphdef, params, TOKENS, rate=0.0)
    np.testing.assert_allclose(nats, expected[0], rtol=1e-6)
    assert targets == expected[1]


def test_a_part_of_a_split_is_its_first_targets() -> None:
    config, graphdef, params = language_model(batch_size=4, eval_tokens=100)
    expected, targets = full(graphdef, params, TOKENS[:101])
    for nats, count in (
        mc(config, graphdef, params, samples=1),
        dynamic(config, graphdef, params, TOKENS, rate=0.0),
    ):
        assert count == targets == 100
        np.testing.assert_allclose(nats, expected, rtol=1e-6)


def test_dynamic_follows_the_rule_of_the_paper() -> None:
    """Two segments by hand, in the terms of Krause et al.: MS, RMS-scaled step, clipped decay."""
    config, graphdef, params = language_model(batch_size=4)
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
    ours, _ = dynamic(config, graphdef, params, TOKENS[:16], rate=rate, decay=decay)
    np.testing.assert_allclose(ours, nats, rtol=1e-5)


def test_dynamic_learns_from_a_text_that_repeats() -> None:
    config, graphdef, params = language_model(batch_size=4)
    repeated = np.tile(np.arange(VOCAB, dtype=np.uint8), 60)
    static, targets = full(graphdef, params, repeated)
    learned = dynamic(config, graphdef, params, repeated, rate=4e-3)
    assert learned[1] == targets and learned[0] < 0.7 * static
