"""How far back a network learns and remembers: gradients, saturation, changed tokens."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rnnx import cells, model
from rnnx.analysis import trace
from rnnx.model import SequenceModel

SATURATED = 0.9  # |tanh| from which an activation counts as saturated


class Gradients(NamedTuple):
    """log10 ||dC / dh_t|| by the distance from the loss, a layer each."""

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
    norms = np.asarray(_gradient_norms(graphdef, params, text[:-1], text[-1]), np.float64)
    logs = np.log10(np.maximum(norms, 1e-45))[:, ::-1]  # (layers, T, B), nearest first
    return Gradients(logs.mean(axis=-1), logs.std(axis=-1))


@partial(jax.jit, static_argnames="graphdef")
def _gradient_norms(graphdef: Any, params: dict[str, Array], x: Array, target: Array) -> Array:
    net = model.merge(graphdef, params)
    steps, rows = x.shape

    def loss(nudges: list[Array]) -> Array:
        ys = net.read(x)
        for layer, nudge in zip(net.stack.layers, nudges, strict=True):
            ys = _nudged(layer, ys, nudge)
        return jnp.sum(net.loss(ys[-1:], target[None]))

    zeros = [jnp.zeros((steps, rows, layer.hidden_features)) for layer in net.stack.layers]
    return jnp.stack([jnp.linalg.norm(g, axis=-1) for g in jax.grad(loss)(zeros)])


def _nudged(layer: Any, xs: Array, nudge: Array) -> Array:
    """A layer over time with something added to each h_t: what dC / dh_t is taken by."""
    cell, params = layer.cell, layer.params
    wx = cells.project(params, xs)

    def body(carry, at):
        wx, nudge = at
        h, *rest = cells.step(cell, params, carry, wx)
        return (h + nudge, *rest), h + nudge

    zero = cells.zero_carry(cell, xs.shape[1], layer.hidden_features)
    return lax.scan(body, zero, (wx, nudge))[1]


def activations(
    graphdef: Any, params: dict[str, Array], tokens: np.ndarray, *, bins: int = 81
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """How often each value of each layer's tanh candidates occurs while a text is read.

    Returns:
      The bins' edges, densities (layers, bins), and each layer's share of saturated ones.
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
                    if (kind, letter) not in trace.GATES:
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
    """How much a changed token moves the prediction d steps later: the mean over windows of
    KL(p || p') in nats, for d = 0 .. num_steps - 1; p' with one token exchanged for another of the
    text."""
    rng = np.random.default_rng(seed)
    warm = min(32, len(tokens) // 4)  # read before the change
    starts = np.linspace(0, len(tokens) - warm - num_steps, windows).astype(int)
    text = np.asarray(tokens[starts[:, None] + np.arange(warm + num_steps)], np.int32).T
    changed = text.copy()
    for row in range(windows):
        others = tokens[tokens != text[warm, row]]
        changed[warm, row] = rng.choice(others) if len(others) else text[warm, row]
    return np.asarray(_divergence(graphdef, params, text, changed, warm), np.float64)


@partial(jax.jit, static_argnames=("graphdef", "warm"))
def _divergence(
    graphdef: Any, params: dict[str, Array], text: Array, changed: Array, warm: int
) -> Array:
    net: SequenceModel = model.merge(graphdef, params)

    def log_p(x: Array) -> Array:
        ys, _ = net.outputs(x, net.stack.zero_carry(x.shape[1]))
        return jax.nn.log_softmax(net.logits(ys[warm:]))

    p, q = log_p(text), log_p(changed)
    return jnp.mean(jnp.sum(jnp.exp(p) * (p - q), axis=-1), axis=1)
