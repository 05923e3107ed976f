"""How far back a network learns and remembers: gradients, saturation, changed tokens.

Gradients and divergences are computed in float64. In float32, gradients underflow after some forty
steps, and divergences below 1e-7 nats are rounding.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rnnx import cells, heads, model
from rnnx.analysis import trace
from rnnx.cells import CELLS
from rnnx.model import SequenceModel

SATURATED = 0.9  # |tanh| from which an activation counts as saturated
SMALLEST = 1e-300  # norm of a gradient; smaller ones and zeros are shown as this
ROUNDING = 1e-30  # nats; smaller divergences are rounding, also in float64


class Gradients(NamedTuple):
    """log10 ||dC / dh_t|| of each layer, by the number of steps before the loss."""

    mean: np.ndarray  # (layers, T), mean over windows
    spread: np.ndarray  # (layers, T), standard deviation over windows


def gradients(
    graphdef: Any, params: dict[str, Array], tokens: np.ndarray, *, windows: int, num_steps: int
) -> Gradients:
    """The gradient of the loss C at a window's last step with respect to every state before it.

    Args:
      tokens: (N,); windows are taken from it at equal distances, each from the zero state.

    Returns:
      Distance 0 is the state that predicts; the MI paper plots t = T - distance.
    """
    starts = np.linspace(0, len(tokens) - num_steps - 1, windows).astype(int)
    at = starts[:, None] + np.arange(num_steps + 1)
    text = np.asarray(tokens[at], np.int32).T  # (T + 1, B)
    with jax.enable_x64(True):
        norms = np.asarray(_gradient_norms(graphdef, params, text[:-1], text[-1]))
    logs = np.log10(np.maximum(norms, SMALLEST))[:, ::-1]  # (layers, T, B), nearest first
    return Gradients(logs.mean(axis=-1), logs.std(axis=-1))


@partial(jax.jit, static_argnames="graphdef")
def _gradient_norms(graphdef: Any, params: dict[str, Array], x: Array, target: Array) -> Array:
    net = model.merge(graphdef, params)

    def loss(nudges: list[Array]) -> Array:
        ys = _read(net, x, nudges)
        return jnp.sum(heads.softmax(net.logits(ys[-1:]), target[None]))

    zeros = [jnp.zeros((*x.shape, layer.hidden_features)) for layer in net.stack.layers]
    return jnp.stack([_norm(g) for g in jax.grad(loss)(zeros)])


def _norm(g: Array) -> Array:
    """Norms over the last axis; squares alone would underflow from 1e-154 on."""
    largest = jnp.max(jnp.abs(g), axis=-1)
    scaled = g / jnp.where(largest > 0, largest, 1.0)[..., None]
    return largest * jnp.linalg.norm(scaled, axis=-1)


def _read(net: SequenceModel, x: Array, nudges: list[Array] | None = None) -> Array:
    """Outputs (T, B, n) of the stack in float64 for inputs x (T, B), from the zero state.

    Args:
      nudges: added to each h_t of each layer, (T, B, n): what dC / dh_t is taken by.
    """
    ys = net.read(x).astype(jnp.float64)
    for i, layer in enumerate(net.stack.layers):

        def body(carry, at, layer=layer):
            wx, nudge = at
            h, *rest = cells.step(layer.cell, layer.params, carry, wx)
            return (h + nudge, *rest), h + nudge

        zero = cells.zero_carry(layer.cell, x.shape[1], layer.hidden_features)
        zero = tuple(state.astype(jnp.float64) for state in zero)
        nudge = jnp.zeros(len(x)) if nudges is None else nudges[i]
        ys = lax.scan(body, zero, (cells.project(layer.params, ys), nudge))[1]
    return ys


def activations(
    graphdef: Any, params: dict[str, Array], tokens: np.ndarray, *, bins: int = 81
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The distribution of each layer's tanh candidates while a text (N,) is read.

    Returns:
      The bins' edges (bins + 1,), densities (layers, bins), and each layer's share of saturated
      activations.
    """
    net = model.merge(graphdef, params)
    carries = net.stack.zero_carry(1)
    edges = np.linspace(-1, 1, bins + 1)
    counts = np.zeros((len(net.stack.layers), bins))
    saturated = np.zeros(len(net.stack.layers))
    for start in range(0, len(tokens), 64):
        part = np.asarray(tokens[start : start + 64], np.int32)
        carries, insides = trace.read(graphdef, params, part[:, None], carries)
        for i, inside in enumerate(jax.device_get(insides)):
            kind = net.stack.layers[i].cell.kind
            for block in inside.gates:
                for letter, a in block.items():
                    if letter not in CELLS[kind].gates:
                        counts[i] += np.histogram(a, edges)[0]
                        saturated[i] += (np.abs(a) > SATURATED).sum()
    totals = counts.sum(axis=1)
    density = counts / totals[:, None] / (edges[1] - edges[0])
    return edges, density, (saturated / totals).tolist()


def changed_token(
    graphdef: Any,
    params: dict[str, Array],
    tokens: np.ndarray,
    *,
    windows: int,
    num_steps: int,
    seed: int = 0,
) -> np.ndarray:
    """How much one changed token moves the predictions after it.

        KL(p_d || p'_d) in nats, d = 0 .. num_steps - 1, mean over windows

    p_d predicts from the text up to d steps after the changed token, p'_d from the text with that
    token exchanged for another one of the text.

    Args:
      tokens: (N,); windows are taken from it at equal distances.

    Returns:
      (num_steps,); values below ROUNDING mean nothing.
    """
    rng = np.random.default_rng(seed)
    warm = min(32, len(tokens) // 4)  # read before the change
    starts = np.linspace(0, len(tokens) - warm - num_steps, windows).astype(int)
    text = np.asarray(tokens[starts[:, None] + np.arange(warm + num_steps)], np.int32).T
    changed = text.copy()
    for row in range(windows):
        others = tokens[tokens != text[warm, row]]
        changed[warm, row] = rng.choice(others) if len(others) else text[warm, row]
    with jax.enable_x64(True):
        return np.asarray(_divergence(graphdef, params, text, changed, warm))


@partial(jax.jit, static_argnames=("graphdef", "warm"))
def _divergence(
    graphdef: Any, params: dict[str, Array], text: Array, changed: Array, warm: int
) -> Array:
    """KL(p || q) = sum_v p_v (exp(d_v) - 1 - d_v) with d = log q - log p: as q sums to 1, that is
    sum_v p_v (-d_v), but of terms that are all positive, so that small values are not rounding."""
    net = model.merge(graphdef, params)

    def log_p(x: Array) -> Array:
        return jax.nn.log_softmax(net.logits(_read(net, x)[warm:]))

    p, d = log_p(text), log_p(changed) - log_p(text)
    terms = jnp.where(jnp.abs(d) < 1e-4, d**2 / 2 + d**3 / 6 + d**4 / 24, jnp.expm1(d) - d)
    return jnp.mean(jnp.sum(jnp.exp(p) * terms, axis=-1), axis=1)
