"""Variational dropout: what a mask holds, and what it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rnnx import Cell, Stack, dropout
from rnnx.dropout import Masks, Rates

RATES = Rates(x=0.25, i=0.75, h=0.25, o=0.75)


def stack(m: int = 8, n: int = 8, **options) -> Stack:
    return Stack(Cell("rhn", depth=2), m, n, rngs=nnx.Rngs(0), **options)


def draw(
    tokens: jax.Array,
    seed: int = 0,
    first: int = 0,
    over: Stack | None = None,
    rates: Rates = RATES,
) -> Masks:
    """As for a window of training: words draw by their occurrence."""
    rows = first + jnp.arange(tokens.shape[1])
    masks = dropout.draw(jax.random.key(seed), rates, over or stack(), rows, tokens.shape[0])
    return dropout.share_draws(masks, tokens)


def test_masks_have_the_protocol_s_shapes_and_rates() -> None:
    tokens = jnp.tile(jnp.arange(50)[:, None], (1, 6))
    masks = draw(tokens, over=stack(300, 400, num_layers=2))
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
    tokens = jax.random.randint(jax.random.key(1), (35, 20), 0, 11)
    x = np.asarray(draw(tokens).x)
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
    tokens = jax.random.randint(jax.random.key(1), (7, 4), 0, 11)
    whole, share = draw(tokens), draw(tokens[:, 2:], first=2)
    assert jnp.array_equal(whole.x[:, 2:], share.x)
    for a, b in ((whole.i[0], share.i[0]), (whole.h[0], share.h[0]), (whole.o, share.o)):
        assert jnp.array_equal(a[2:], b)
    assert not jnp.array_equal(draw(tokens, seed=1).o, whole.o)


def test_zero_dropout_draws_no_mask() -> None:
    assert draw(jnp.zeros((3, 2), int), rates=Rates()) == Masks()


def test_both_directions_of_a_layer_have_masks_of_their_own() -> None:
    masks = draw(jnp.zeros((3, 2), int), over=stack(5, 9, num_layers=2, bidirectional=True))
    assert [m.shape for m in masks.i] == [(2, 5), (2, 18)] and masks.o.shape == (2, 18)
    (ahead, back), above = masks.h
    assert ahead.shape == back.shape == above[0].shape == (2, 9)
    assert len({m.tobytes() for m in map(np.asarray, (ahead, back, *above))}) == 4


def test_no_two_masks_of_a_stack_are_alike() -> None:
    """Inputs and states of two layers, and outputs, of one width and one rate."""
    rates = Rates(i=0.5, h=0.5, o=0.5)
    masks = dropout.draw(jax.random.key(0), rates, stack(num_layers=2), jnp.arange(6))
    each = {np.asarray(mask).tobytes() for mask in (*masks.i, *masks.h, masks.o)}
    assert len(each) == 5
