"""The language model: parameter counts of the papers, dropout masks, width from a budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx import model
from rnnx.errors import UserError
from rnnx.model import Masks

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
    return model.resolve(config, 11)


def test_a_config_s_input_scale_is_that_of_w_alone() -> None:
    _, params = model.split(model.build(small(init_scale=0.02, input_scale=0.6), 11))
    largest = {name: float(jnp.abs(p).max()) for name, p in params.items()}
    assert 0.5 < largest["stack.layers.0.blocks.0.W"] <= 0.6
    assert all(v <= 0.02 for name, v in largest.items() if name[-1] not in "Wb")


@pytest.mark.parametrize("depth, units, untied, tied", DEPTH_TABLE)
def test_parameter_counts_of_the_depth_table(depth, units, untied, tied) -> None:
    for is_tied, published in ((False, untied), (True, tied)):
        config = small(depth=depth, hidden_size=units, embed_size=0, tied=is_tied)
        n, V = units, 10_000
        formula = V * n + 2 * (2 * n * n + n) + (depth - 1) * 2 * (n * n + n) + V
        count = model.parameter_count(model.resolve(config, V), V)
        assert count == formula + (0 if is_tied else n * V)
        assert abs(count / 1e6 - published) < 0.006


@pytest.mark.parametrize("depth", [1, 4, 10])
@pytest.mark.parametrize("tied", [True, False])
def test_param_budget_is_met_from_below(depth: int, tied: bool) -> None:
    budget = 3_000_000
    config = configs.default()
    config.update(level="word", depth=depth, tied=tied, param_budget=budget)
    solved = model.resolve(config, 1000)
    assert model.parameter_count(solved, 1000) <= budget
    config.update(param_budget=0, hidden_size=solved.hidden_size + 1)
    assert model.parameter_count(model.resolve(config, 1000), 1000) > budget


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
        net = model.build(config, 11)
        tokens = jax.random.randint(jax.random.key(0), (9, 3), 0, 11)
        run = jax.jit(lambda t, net=net: net(t, net.stack.zero_carry(3))[0])
        before = run(tokens)
        after = run(tokens.at[5, 1].set((tokens[5, 1] + 1) % 11))
        assert jnp.array_equal(before[:5], after[:5])
        assert jnp.array_equal(before[:, [0, 2]], after[:, [0, 2]])
        assert not jnp.array_equal(before[5, 1], after[5, 1])
        assert not jnp.array_equal(before[8, 1], after[8, 1])


def test_tied_weights_are_the_embedding() -> None:
    net = model.build(small(tied=True), 11)
    graphdef, params = model.split(net)
    assert "softmax_weights" not in params
    tokens = jnp.zeros((1, 1), int)
    before = model.merge(graphdef, params)(tokens, net.stack.zero_carry(1))[0]
    params["embedding"] = params["embedding"].at[7].mul(2.0)  # a word that is not read
    after = model.merge(graphdef, params)(tokens, net.stack.zero_carry(1))[0]
    changed = np.flatnonzero(before[0, 0] != after[0, 0])
    assert changed.tolist() == [7]


def test_split_and_merge_are_inverse() -> None:
    net = model.build(small(), 11)
    graphdef, params = model.split(net)
    again = model.split(model.merge(graphdef, params))[1]
    assert params.keys() == again.keys()
    assert all(jnp.array_equal(params[k], again[k]) for k in params)
    shapes = model.abstract(small(), 11)[1]
    assert {k: p.shape for k, p in params.items()} == {k: p.shape for k, p in shapes.items()}


# ---------------------------------------------------------------------------- dropout

DROPS = {"drop_x": 0.25, "drop_i": 0.75, "drop_h": 0.25, "drop_o": 0.75}


def draw(config: ConfigDict, tokens: jax.Array, seed: int = 0, first: int = 0) -> Masks:
    rows = first + jnp.arange(tokens.shape[1])
    masks = model.draw_masks(jax.random.key(seed), config, rows, tokens.shape[0])
    return model.share_draws(masks, tokens)


def test_masks_have_the_protocol_s_shapes_and_rates() -> None:
    config = small(hidden_size=400, embed_size=300, num_layers=2, **DROPS)
    tokens = jnp.tile(jnp.arange(50)[:, None], (1, 6))
    masks = draw(config, tokens)
    assert masks.x.shape == (50, 6)
    assert [m.shape for m in masks.i] == [(6, 300), (6, 400)]
    assert [m.shape for m in masks.h] == [(6, 400), (6, 400)]
    assert masks.o.shape == (6, 400)
    for mask, drop in [(masks.x, 0.25), (masks.i[1], 0.75), (masks.h[0], 0.25), (masks.o, 0.75)]:
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - drop)], rtol=1e-6)
        assert abs(float((mask == 0).mean()) - drop) < 0.08
    assert not jnp.array_equal(masks.h[0], masks.h[1])
    assert not jnp.array_equal(masks.h[0][0], masks.h[0][1])  # rows differ


def test_word_occurrences_share_a_mask_within_their_row() -> None:
    config = small(**DROPS)
    tokens = jax.random.randint(jax.random.key(1), (35, 20), 0, 11)
    x = np.asarray(draw(config, tokens).x)
    kept_by_row = set()
    for row in range(20):
        for word in range(11):
            values = x[np.asarray(tokens[:, row]) == word, row]
            assert len(set(values)) <= 1
            if len(values):
                kept_by_row.add((word, bool(values[0])))
    # Over 20 rows some word is both kept and dropped: the draw is the row's own.
    assert len(kept_by_row) > len({word for word, _ in kept_by_row})


def test_masks_depend_on_the_global_row_alone() -> None:
    """Rows 2..3 as the second device's share are rows 2..3 of the whole batch."""
    config = small(**DROPS)
    tokens = jax.random.randint(jax.random.key(1), (7, 4), 0, 11)
    whole, share = draw(config, tokens), draw(config, tokens[:, 2:], first=2)
    assert jnp.array_equal(whole.x[:, 2:], share.x)
    for a, b in ((whole.i[0], share.i[0]), (whole.h[0], share.h[0]), (whole.o, share.o)):
        assert jnp.array_equal(a[2:], b)
    assert not jnp.array_equal(draw(config, tokens, seed=1).o, whole.o)


def test_zero_dropout_draws_no_mask() -> None:
    assert draw(small(), jnp.zeros((3, 2), int)) == Masks()


def test_masks_act_where_the_protocol_says() -> None:
    """A dropped word is a zero embedding; a dropped output leaves the softmax bias alone."""
    config = small()
    net = model.build(config, 11)
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
    net = model.build(config, 11)
    assert "embedding" not in model.split(net)[1]
    tokens = jnp.array([[3], [7]])
    ys, _ = net.stack(jax.nn.one_hot(tokens, 11), net.stack.zero_carry(1), time_major=True)
    expected = ys @ net.softmax_weights[...] + net.softmax_bias[...]
    np.testing.assert_allclose(net(tokens, net.stack.zero_carry(1))[0], expected, atol=1e-6)


def test_config_fields_reach_the_initial_variables() -> None:
    params = model.split(model.build(small(transform_bias=-3.5, init_scale=0.3), 11))[1]
    assert (params["stack.layers.0.blocks.1.b"][8:] == -3.5).all()
    assert 0.25 < float(jnp.abs(params["stack.layers.0.blocks.1.U"]).max()) <= 0.3
    config = small(
        cell="lstm", depth=1, integration="mi", forget_bias=2.5, mi_init=(2.0, 0.5, 0.25), seed=3
    )
    params = model.split(model.build(config, 11))[1]
    block = "stack.layers.0.blocks.0"
    assert (params[f"{block}.b"][8:16] == 2.5).all()
    for name, value in (("alpha", 2.0), ("beta1", 0.5), ("beta2", 0.25)):
        assert (params[f"{block}.{name}"] == value).all()
    config.seed = 4
    other = model.split(model.build(config, 11))[1]
    assert not jnp.array_equal(params["embedding"], other["embedding"])
