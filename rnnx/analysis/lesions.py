"""Lesions: the rise of the loss when a depth or a group of units is disabled."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict
from scipy.stats import t

from rnnx import model
from rnnx.data.batches import ScoringWindows
from rnnx.dropout import Masks

_CLOSED = 1e4  # a bias so large that a sigmoid is exactly 0 or 1


class Lesion(NamedTuple):
    """The rise of the loss, in nats a token: mean over segments, and half of its 95 % interval."""

    name: str
    rise: float
    half_width: float


def closed(params: dict[str, Array], config: ConfigDict, layer: int, depth: int) -> dict:
    """The parameters with the transform gate of one depth closed: s_l = s_{l-1} for any input.

    The bias closes the gate, as in the RHN paper; an uncoupled carry gate is opened.
    """
    n, name = config.hidden_size, f"stack.layers.{layer}.blocks.{depth}.b"
    bias = params[name].at[n : 2 * n].set(-_CLOSED)
    if not config.coupled:
        bias = bias.at[2 * n :].set(_CLOSED)
    cut = params | {name: bias}
    # The products of general MI could outweigh the bias, so they are removed.
    for vector in ("alpha", "beta1", "beta2"):
        key = name.removesuffix("b") + vector
        if key in params:
            cut[key] = params[key].at[n:].set(0.0)
    if config.integration == "mi_simple" and depth == 0:
        key = name.removesuffix("b") + "W"
        cut[key] = params[key].at[:, n:].set(0.0)
    return cut


def measure(
    graphdef: Any,
    params: dict[str, Array],
    config: ConfigDict,
    tokens: np.ndarray,
    *,
    segments: int = 32,
    groups: int = 8,
    progress: Any = None,
) -> list[Lesion]:
    """The rise of the loss with each depth of an RHN closed, or with each group of units silent.

    Args:
      tokens: (N,), split into `segments` rows, each read from the zero state. The interval is
        Student's, over the rows' paired differences.
      groups: the number of groups, of equally many units. A silent unit is zero in every product
        and in the output.
      progress: called with the number of lesions done so far.
    """
    losses = _segment_losses(graphdef, tokens, segments)
    whole, found = losses(params, Masks()), []

    def add(name: str, params: dict[str, Array], masks: Masks) -> None:
        found.append(_compared(name, losses(params, masks), whole))
        if progress:
            progress(len(found))

    n, layers = config.hidden_size, config.num_layers
    if config.cell == "rhn":
        for layer in range(layers):
            for depth in range(config.depth):
                prefix = f"layer {layer + 1}, " if layers > 1 else ""
                add(f"{prefix}l = {depth + 1}", closed(params, config, layer, depth), Masks())
    for layer in range(layers):
        for group in range(min(groups, n)):
            silent = np.ones((1, n), np.float32)
            silent[:, group * n // groups : (group + 1) * n // groups] = 0
            ones = np.ones((1, n), np.float32)
            h = tuple(silent if i == layer else ones for i in range(layers))
            # A layer's output is the input of the one above.
            lowest = np.ones((1, config.embed_size), np.float32)
            above = tuple(silent if i == layer + 1 else ones for i in range(1, layers))
            i = (lowest, *above)
            masks = Masks(i=i, h=h, o=silent if layer == layers - 1 else None)
            prefix = f"layer {layer + 1}, " if layers > 1 else ""
            low, high = group * n // groups + 1, (group + 1) * n // groups
            add(f"{prefix}units {low}-{high}", params, masks)
    return found


def count(config: ConfigDict, groups: int = 8) -> int:
    """The number of lesions that `measure` makes."""
    depths = config.depth if config.cell == "rhn" else 0
    return config.num_layers * (depths + min(groups, config.hidden_size))


def _segment_losses(graphdef: Any, tokens: np.ndarray, segments: int):
    windows = ScoringWindows(tokens, segments, 64)

    @jax.jit
    def step(params, carries, window, masks):
        net, x, y = model.merge(graphdef, params), window["inputs"].T, window["targets"].T
        nll, carries = net.nll(x, y, carries, masks)
        return jnp.sum(nll * window["weight"].T, axis=0), carries

    def losses(params: dict[str, Array], masks: Masks) -> np.ndarray:
        carries = model.merge(graphdef, params).stack.zero_carry(segments)
        total, counts = np.zeros(segments), np.zeros(segments)
        for window in windows:
            nats, carries = step(params, carries, window, masks)
            total = total + np.asarray(nats, np.float64)
            counts = counts + window["weight"].sum(axis=1)
        return total / counts

    return losses


def _compared(name: str, lesioned: np.ndarray, whole: np.ndarray) -> Lesion:
    rises = lesioned - whole
    error = rises.std(ddof=1) / math.sqrt(len(rises))
    return Lesion(name, float(rises.mean()), float(t.ppf(0.975, len(rises) - 1) * error))
