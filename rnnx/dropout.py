"""Variational dropout (Gal and Ghahramani 2016, arXiv:1512.05287): masks held over time.

A mask is Bernoulli(keep) / keep. Masks are drawn outside the recurrence and passed in as arrays,
so training, evaluation and Monte-Carlo dropout are one code path, and a mask can be recorded and
replayed. A row's masks depend on the key and on the row's place in the global batch alone:
however the batch is spread over devices, they are the same.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Masks(NamedTuple):
    """The masks of one window. None leaves a place undropped.

    x is the only one that varies over the window: a scalar for each word occurrence, equal words
    of a row sharing it.
    """

    x: Array | None = None  # (T, B)
    i: tuple[Array, ...] | None = None  # a layer's input: (B, m or n) each
    h: tuple[Any, ...] | None = None  # a layer's state, in every product: (B, n) each
    o: Array | None = None  # (B, n)


class Rates(NamedTuple):
    """Probabilities to drop: words, a layer's input, its state, the output."""

    x: float = 0.0
    i: float = 0.0
    h: float = 0.0
    o: float = 0.0


def draw(key: Array, rates: Rates, stack: Any, rows: Array, num_words: int = 0) -> Masks:
    """Draws masks for some rows of a batch.

    Args:
      key: of this window, or of this pass.
      stack: an `rnnx.Stack`: its widths.
      rows: (B,) places in the global batch.
      num_words: x is one draw for each of these, (B, num_words): a window's length T in training,
        the vocabulary's size where masks are held for a whole pass. `share_draws` and
        `look_up_draws` then bring x to its form (T, B). 0 draws none.
    """

    def row(key: Array) -> Masks:
        key_x, key_i, key_h, key_o = jax.random.split(key, 4)
        return Masks(
            x=bernoulli_mask(key_x, rates.x if num_words else 0.0, (num_words,)),
            i=_per_layer(key_i, rates.i, stack.input_widths),
            h=_states(key_h, rates.h, stack),
            o=bernoulli_mask(key_o, rates.o, (stack.out_features,)),
        )

    return jax.vmap(row)(jax.vmap(partial(jax.random.fold_in, key))(rows))


def share_draws(masks: Masks, tokens: Array) -> Masks:
    """Brings a window's T draws a row to (T, B): equal words take the draw of the first."""
    if masks.x is None:
        return masks
    first_of_equals = jnp.argmax(tokens[:, None] == tokens[None], axis=1)  # (T, B)
    return masks._replace(x=jnp.take_along_axis(masks.x.T, first_of_equals, axis=0))


def look_up_draws(masks: Masks, tokens: Array) -> Masks:
    """Brings one draw a word of the vocabulary and row to the (T, B) of tokens."""
    if masks.x is None:
        return masks
    return masks._replace(x=jnp.take_along_axis(masks.x.T, tokens, axis=0))


def bernoulli_mask(key: Array, drop: float, shape: tuple[int, ...]) -> Array | None:
    """Bernoulli(1 - drop) / (1 - drop); None when nothing is dropped."""
    if not drop:
        return None
    return jax.random.bernoulli(key, 1 - drop, shape) / jnp.float32(1 - drop)


def _states(key: Array, drop: float, stack: Any) -> tuple[Any, ...] | None:
    """A mask a layer, or a pair (forward, backward) where layers read in both directions."""
    widths = tuple(layer.hidden_features for layer in stack.layers)
    if not stack.bidirectional:
        return _per_layer(key, drop, widths)
    masks = _per_layer(key, drop, tuple(n for n in widths for _ in range(2)))
    return masks and tuple(zip(masks[::2], masks[1::2], strict=True))


def _per_layer(key: Array, drop: float, widths: tuple[int, ...]) -> tuple[Array, ...] | None:
    if not drop:
        return None
    keys = jax.random.split(key, len(widths))
    return tuple(bernoulli_mask(k, drop, (w,)) for k, w in zip(keys, widths, strict=True))
