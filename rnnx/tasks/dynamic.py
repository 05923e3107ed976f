"""Dynamic evaluation of a language model: the protocol `dynamic`.

Krause et al. 2018, arXiv:1709.07432, equations 5 to 7, with their RMS rule.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from rnnx import model
from rnnx.data.batches import ScoringWindows, Windows, capped
from rnnx.tasks.task import Dataset, Sums

_EPSILON = 2e-5  # the authors' default

Params = dict[str, Array]


def score(
    graphdef: Any,
    params: Params,
    config: ConfigDict,
    dataset: Dataset,
    split: str,
    display: Any,
    *,
    rate: float,
    decay: float,
    segment: int,
    statistics: int,
) -> Sums:
    """The parameters keep learning over the text, each segment scored before it is learned from.

        theta += decay * min(RMS / mean(RMS), 1 / decay) * (theta_0 - theta)
                 - rate * gradient / (RMS + epsilon)

    RMS is the root mean square of each parameter's gradient over `statistics` windows of the
    training split (batch as in training, segment long); its mean is over each array first, then
    over arrays, as the authors' code does. Losses are means over targets. With rate = 0 it
    equals `full`.
    """
    tokens = capped(dataset.splits[split], config.eval_tokens)
    gradient = _segment_gradient(graphdef)
    train = Windows(dataset.splits["train"], config.batch_size, segment)
    rms = _gradient_rms(gradient, graphdef, params, train, statistics)
    mean_rms = jnp.mean(jnp.stack([jnp.mean(r) for r in jax.tree.leaves(rms)]))

    @jax.jit
    def learn(params, params_0, rms, mean_rms, carries, window):
        grads, (nats, carries) = gradient(params, carries, window)

        def update(p, p_0, g, r):
            pull = decay * jnp.minimum(r / mean_rms, 1 / decay) if decay else 0.0
            return p + pull * (p_0 - p) - rate * g / (r + _EPSILON)

        return nats, carries, jax.tree.map(update, params, params_0, grads, rms)

    windows = ScoringWindows(tokens, 1, segment)
    display.start(f"{split} dynamic", len(windows))
    params_0, carries, total = params, model.merge(graphdef, params).stack.zero_carry(1), 0.0
    for i, window in enumerate(windows):
        nats, carries, params = learn(params, params_0, rms, mean_rms, carries, window)
        total += float(nats)
        display.update(i + 1)
    return {"nll": (total, windows.targets)}


def _segment_gradient(graphdef: Any) -> Callable:
    """(params, carries, window) to the gradient of the mean nats a target, and with it (sum of
    nats, carries after the segment)."""

    def mean_nll(params, carries, window):
        net = model.merge(graphdef, params)
        nll, carries = net.nll(window["inputs"].T, window["targets"].T, carries)
        nats = jnp.sum(nll * window["weight"].T)
        return nats / jnp.sum(window["weight"]), (nats, carries)

    return jax.grad(mean_nll, has_aux=True)


def _gradient_rms(
    gradient: Callable, graphdef: Any, params: Params, windows: Windows, statistics: int
) -> Params:
    """Root mean square of each parameter's gradient over the first windows of training."""

    @jax.jit
    def observe(squares, params, carries, window):
        grads, (_, carries) = gradient(params, carries, window)
        return jax.tree.map(lambda s, g: s + g * g, squares, grads), carries

    count = min(statistics, len(windows))
    squares = jax.tree.map(jnp.zeros_like, params)
    carries = model.merge(graphdef, params).stack.zero_carry(windows.batch_size)
    for i in range(count):
        squares, carries = observe(squares, params, carries, windows[i])
    return jax.tree.map(lambda s: jnp.sqrt(s / count), squares)
