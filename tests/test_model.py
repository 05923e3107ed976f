"""Networks from configs: parameter counts of the papers, width from a budget, what reaches what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import words
from flax import nnx
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx import model
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.tasks import network

# Zilly et al. 2017, depth table: L, units, parameters untied and tied, in millions (PAPERS' V).
DEPTH_TABLE = [
    (1, 1275, 32.02, 19.27),
    (2, 1180, 31.97, 20.17),
    (3, 1110, 32.07, 20.97),
    (4, 1050, 32.04, 21.54),
    (5, 1000, 32.02, 22.02),
    (6, 960, 32.12, 22.52),
    (7, 920, 31.97, 22.77),
    (8, 890, 32.08, 23.18),
    (9, 860, 32.02, 23.42),
    (10, 830, 31.78, 23.48),
]


def small(**fields) -> ConfigDict:
    config = configs.default()
    config.update(
        {"level": "word", "hidden_size": 8, "embed_size": 8, "depth": 2, "init_scale": 0.5} | fields
    )
    return network.resolve(config, words(11))


def test_a_config_s_input_scale_is_that_of_w_alone() -> None:
    _, params = model.split(network.build(small(init_scale=0.02, input_scale=0.6), words(11)))
    largest = {name: float(jnp.abs(p).max()) for name, p in params.items()}
    assert 0.5 < largest["stack.layers.0.blocks.0.W"] <= 0.6
    assert all(v <= 0.02 for name, v in largest.items() if name[-1] not in "Wb")


@pytest.mark.parametrize("depth, units, untied, tied", DEPTH_TABLE)
def test_parameter_counts_of_the_depth_table(depth, units, untied, tied) -> None:
    for is_tied, published in ((False, untied), (True, tied)):
        config = small(depth=depth, hidden_size=units, embed_size=0, tied=is_tied)
        n, V = units, 10_000
        formula = V * n + 2 * (2 * n * n + n) + (depth - 1) * 2 * (n * n + n) + V
        count = network.parameter_count(network.resolve(config, words(V)), words(V))
        assert count == formula + (0 if is_tied else n * V)
        assert abs(count / 1e6 - published) < 0.006


@pytest.mark.parametrize("depth", [1, 4, 10])
@pytest.mark.parametrize("tied", [True, False])
def test_param_budget_is_met_from_below(depth: int, tied: bool) -> None:
    budget = 3_000_000
    config = configs.default()
    config.update(level="word", depth=depth, tied=tied, param_budget=budget)
    solved = network.resolve(config, words(1000))
    count = network.parameter_count(solved, words(1000))
    assert count <= budget
    config.update(param_budget=count)  # a network may fill its budget
    assert network.resolve(config, words(1000)).hidden_size == solved.hidden_size
    config.update(param_budget=0, hidden_size=solved.hidden_size + 1)
    assert network.parameter_count(network.resolve(config, words(1000)), words(1000)) > budget


def test_a_hopeless_budget_is_refused() -> None:
    with pytest.raises(UserError, match="too small for one unit"):
        small(param_budget=5, embed_size=0)


@pytest.mark.parametrize(
    "level, tied, expected", [("word", False, 8), ("char", False, 11), ("char", True, 8)]
)
def test_embedding_size_by_the_authors_rule(level: str, tied: bool, expected: int) -> None:
    assert small(level=level, tied=tied, embed_size=0).embed_size == expected


def test_no_output_sees_a_later_token() -> None:
    """Changing one token changes no earlier output by one bit, and does change its own."""
    for cell in ("rnn", "lstm", "gru", "rhn"):
        config = small(cell=cell, depth=2 if cell == "rhn" else 1, num_layers=2)
        net = network.build(config, words(11))
        tokens = jax.random.randint(jax.random.key(0), (9, 3), 0, 11)
        run = jax.jit(lambda t, net=net: net(t, net.stack.zero_carry(3))[0])
        before = run(tokens)
        after = run(tokens.at[5, 1].set((tokens[5, 1] + 1) % 11))
        assert jnp.array_equal(before[:5], after[:5])
        assert jnp.array_equal(before[:, [0, 2]], after[:, [0, 2]])
        assert not jnp.array_equal(before[5, 1], after[5, 1])
        assert not jnp.array_equal(before[8, 1], after[8, 1])


def test_tied_weights_are_the_embedding() -> None:
    net = network.build(small(tied=True), words(11))
    graphdef, params = model.split(net)
    assert "softmax_weights" not in params
    tokens = jnp.zeros((1, 1), int)
    before = model.merge(graphdef, params)(tokens, net.stack.zero_carry(1))[0]
    params["embedding"] = params["embedding"].at[7].mul(2.0)  # a word that is not read
    after = model.merge(graphdef, params)(tokens, net.stack.zero_carry(1))[0]
    changed = np.flatnonzero(before[0, 0] != after[0, 0])
    assert changed.tolist() == [7]


def test_split_and_merge_are_inverse() -> None:
    net = network.build(small(), words(11))
    graphdef, params = model.split(net)
    again = model.split(model.merge(graphdef, params))[1]
    assert params.keys() == again.keys()
    assert all(jnp.array_equal(params[k], again[k]) for k in params)
    shapes = network.abstract(small(), words(11))[1]
    assert {k: p.shape for k, p in params.items()} == {k: p.shape for k, p in shapes.items()}


def test_masks_act_where_the_protocol_says() -> None:
    """A dropped word is a zero embedding; a dropped output leaves the softmax bias alone."""
    config = small()
    net = network.build(config, words(11))
    tokens, carry = jnp.array([[3], [4]]), net.stack.zero_carry(1)
    blank = model.split(net)[1]
    blank["embedding"] = blank["embedding"].at[4].set(0.0)
    without_4 = model.merge(model.split(net)[0], blank)
    np.testing.assert_allclose(
        net(tokens, carry, Masks(x=jnp.array([[1.0], [0.0]])))[0],
        without_4(tokens, carry)[0],
        atol=1e-6,
    )
    logits, _ = net(tokens, carry, Masks(o=jnp.zeros((1, 8))))
    np.testing.assert_allclose(logits[0, 0], net.softmax_bias[...], atol=1e-6)
    # The input dropped whole is the same whatever was read; so is no other mask.
    nothing_in = Masks(i=(jnp.zeros((1, 8)),))
    assert jnp.array_equal(net(tokens, carry, nothing_in)[0], net(tokens + 1, carry, nothing_in)[0])


def test_one_hot_inputs_are_rows_of_w() -> None:
    config = small(level="char", one_hot=True, embed_size=0)
    assert config.embed_size == 11
    net = network.build(config, words(11))
    assert "embedding" not in model.split(net)[1]
    tokens = jnp.array([[3], [7]])
    ys, _ = net.stack(jax.nn.one_hot(tokens, 11), net.stack.zero_carry(1), time_major=True)
    expected = ys @ net.softmax_weights[...] + net.softmax_bias[...]
    np.testing.assert_allclose(net(tokens, net.stack.zero_carry(1))[0], expected, atol=1e-6)


def test_config_fields_reach_the_initial_variables() -> None:
    params = model.split(network.build(small(transform_bias=-3.5, init_scale=0.3), words(11)))[1]
    assert (params["stack.layers.0.blocks.1.b"][8:] == -3.5).all()
    assert 0.25 < float(jnp.abs(params["stack.layers.0.blocks.1.U"]).max()) <= 0.3
    config = small(
        cell="lstm", depth=1, integration="mi", forget_bias=2.5, mi_init=(2.0, 0.5, 0.25), seed=3
    )
    params = model.split(network.build(config, words(11)))[1]
    block = "stack.layers.0.blocks.0"
    assert (params[f"{block}.b"][8:16] == 2.5).all()
    for name, value in (("alpha", 2.0), ("beta1", 0.5), ("beta2", 0.25)):
        assert (params[f"{block}.{name}"] == value).all()
    config.seed = 4
    other = model.split(network.build(config, words(11)))[1]
    assert not jnp.array_equal(params["embedding"], other["embedding"])


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (nnx.BatchNorm(3, rngs=nnx.Rngs(0)), "mean is a BatchStat"),
        (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "is a Rng"),
    ],
)
def test_variables_that_would_be_trained_though_none_are_parameters(module, what: str) -> None:
    with pytest.raises(ValueError, match=f"{what}.*rnnx trains networks whose variables are all"):
        model.split(module)
