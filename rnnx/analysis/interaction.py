"""How far the effect of an input depends on the state: what a product of the two brings.

One step takes a state s and a token x to an output y(x, s). With x drawn from the text's tokens and
s, independently, from its states, the variance of y has three parts that add up to it (two-way
analysis of variance; Hoeffding 1948):

    y = m + a(x) + b(s) + r(x, s)       m = E y,   a = E[y | x] - m,   b = E[y | s] - m

r is what no sum of a function of x and a function of s can give. In a network that adds W x and
U s it comes from the bend of tanh alone; gates multiply, and so does Multiplicative Integration.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnx import cells, model
from rnnx.analysis import trace

TOKENS = 100  # the most frequent ones
STATES = 200


class Interaction(NamedTuple):
    """Parts of the variance of a layer's output, summed over its units; they add up to 1, or are 0
    where the output never changes."""

    token: float
    state: float
    both: float

    @property
    def dependent(self) -> float:
        """Of the input's effect, the share that depends on the state: 0 for a sum of the two."""
        effect = self.token + self.both
        return self.both / effect if effect else 0.0


def of_tokens(graphdef: Any, params: dict[str, Array], tokens: np.ndarray) -> Interaction:
    """The parts in the first layer, over the tokens and the states of a text (N,)."""
    net = model.merge(graphdef, params)
    text = np.asarray(tokens, np.int32)[:, None]
    _, insides = trace.read(graphdef, params, text, net.stack.zero_carry(1))
    chosen = np.linspace(len(text) // 10, len(text) - 1, min(STATES, len(text))).astype(int)
    states = jax.tree.map(lambda s: s[chosen, 0], insides[0].before)
    kinds, counts = np.unique(text, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:TOKENS]
    ys = np.asarray(_outputs(graphdef, params, kinds[often].astype(np.int32), states), np.float64)
    return parts(ys, counts[often] / counts[often].sum())


def parts(ys: np.ndarray, weights: np.ndarray) -> Interaction:
    """The parts of ys (X, S, n), outputs for X inputs of these weights, which sum to 1, and S
    states of equal weight."""
    weighted = weights[:, None]
    mean = (weighted * ys.mean(axis=1)).sum(axis=0)
    of_x = ys.mean(axis=1) - mean
    of_s = (weights[:, None, None] * ys).sum(axis=0) - mean
    rest = ys - mean - of_x[:, None] - of_s
    token = float((weighted * of_x**2).sum())
    state = float((of_s**2).mean(axis=0).sum())
    both = float((weighted * (rest**2).mean(axis=1)).sum())
    whole = token + state + both or 1.0
    return Interaction(token / whole, state / whole, both / whole)


@partial(jax.jit, static_argnames="graphdef")
def _outputs(graphdef: Any, params: dict[str, Array], kinds: Array, states: cells.Carry) -> Array:
    """The first layer's output for each kind of token (X,) in each state, (X, S, n)."""
    net = model.merge(graphdef, params)
    layer = net.stack.layers[0]
    wx = cells.project(layer.params, net.read(kinds[:, None]))

    def for_all_states(wx: tuple[Array | None, ...]) -> Array:
        count = states[0].shape[0]
        wide = tuple(None if w is None else jnp.broadcast_to(w, (count, w.shape[-1])) for w in wx)
        return cells.step(layer.cell, layer.params, states, wide)[0]

    return jax.lax.map(for_all_states, wx)
