"""Monte-Carlo dropout of a language model: the protocol `mc`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from rnnx import dropout, model
from rnnx.data.batches import ScoringWindows, capped
from rnnx.dropout import Masks, Rates
from rnnx.tasks.task import Dataset, Sums

_STREAM = 0x6D63  # of keys: apart from those of training and of initial variables
_MOST_STEPS = 256  # time steps a call
_MOST_ROWS = 32  # samples a call


def score(
    graphdef: Any,
    params: dict[str, Array],
    config: ConfigDict,
    dataset: Dataset,
    split: str,
    display: Any,
    *,
    samples: int,
    seed: int = 0,
) -> Sums:
    """K = samples passes over a split, each with masks held from its first token to its last.

        p(token) = 1 / K * sum over passes of p_k(token)

    Probabilities, not their logarithms, are averaged. The samples are rows of one batch, all
    reading the same text. With every dropout at zero it equals `full`.
    """
    tokens, vocab_size = capped(dataset.splits[split], config.eval_tokens), dataset.spec.size
    rows_at_once = min(samples, _MOST_ROWS)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), _STREAM), seed)
    net = model.merge(graphdef, params)
    rates = Rates(config.drop_x, config.drop_i, config.drop_h, config.drop_o)
    draw = jax.jit(lambda rows: dropout.draw(key, rates, net.stack, rows, vocab_size))

    @jax.jit
    def step(params: dict, carries: Any, masks: Masks, x: Array, y: Array):  # x, y (1, T)
        rows = jax.tree.leaves(carries)[0].shape[0]
        x, y = (jnp.broadcast_to(a.T, (a.shape[1], rows)) for a in (x, y))
        masks = dropout.look_up_draws(masks, x)
        nll, carries = model.merge(graphdef, params).nll(x, y, carries, masks)
        return jax.nn.logsumexp(-nll, axis=1), carries

    windows = ScoringWindows(tokens, 1, _steps_in_memory(rows_at_once, vocab_size))
    display.start(f"{split} mc", len(windows) * -(-samples // rows_at_once))
    log_p = np.full(windows.targets, -np.inf)
    for first in range(0, samples, rows_at_once):
        rows = jnp.arange(first, min(first + rows_at_once, samples))
        carries, masks = net.stack.zero_carry(len(rows)), draw(rows)
        done = 0
        for i, window in enumerate(windows):
            sums, carries = step(params, carries, masks, window["inputs"], window["targets"])
            count = int(window["weight"].sum())
            log_p[done : done + count] = np.logaddexp(
                log_p[done : done + count], np.asarray(sums, np.float64)[:count]
            )
            done += count
            display.update((first // rows_at_once) * len(windows) + i + 1)
    return {"nll": (float(-np.sum(log_p - np.log(samples))), windows.targets)}


def _steps_in_memory(rows: int, vocab_size: int) -> int:
    """Time steps a call so that its logits stay near 64 MB."""
    return max(1, min(_MOST_STEPS, 16_000_000 // (rows * vocab_size)))
