"""Textbook JAX: one `lax.scan` over a stacked weight array, differentiated by JAX.

The equations are those of `cells.py`, without the optimizations of `scan.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rnnx import cells, model, optim
from rnnx import config as configs
from rnnx.bench import ours
from rnnx.bench.cases import Case
from rnnx.tasks import network


def train(case: Case) -> Callable[[], list[float]]:
    """One update; returns a function that makes it and gives the loss before it."""
    config = case.config
    cell = configs.cell_of(config)
    _, params = model.split(network.build(config, case.spec))
    blocks = [
        {name.rsplit(".", 1)[1]: p for name, p in params.items() if f"blocks.{k}." in name}
        for k in range(len(cell.blocks))
    ]
    params = {name: p for name, p in params.items() if "blocks." not in name}
    if cell.depth > 1:  # blocks of one size: one array, as one would write it
        params["U"] = jnp.stack([block.pop("U") for block in blocks])
    params["blocks"] = tuple(blocks)
    rule = optim.update_rule(config)

    def loss_fn(params, x, y, carry):
        one_hot = config.one_hot
        inputs = jax.nn.one_hot(x, case.vocab_size) if one_hot else params["embedding"][x]
        wx = cells.project(params["blocks"], inputs)

        def body(carry, wx):
            blocks = params["blocks"]
            if cell.depth > 1:
                blocks = [block | {"U": params["U"][k]} for k, block in enumerate(blocks)]
            carry = cells.step(cell, blocks, carry, wx)
            return carry, carry[0]

        carry, ys = lax.scan(body, carry, wx)
        weights = params["embedding"].T if config.tied else params["softmax_weights"]
        logits = ys @ weights + params["softmax_bias"]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        cost = jnp.sum(jnp.mean(nll, axis=1))
        squares = sum(jnp.sum(p * p) for p in jax.tree.leaves(params))
        return cost + config.weight_decay / 2 * squares, (cost, carry)

    @jax.jit
    def step(params, opt_state, x, y, carry):
        grads, (cost, carry) = jax.grad(loss_fn, has_aux=True)(params, x, y, carry)
        direction, opt_state = rule.update(grads, opt_state, params)
        params = jax.tree.map(lambda p, d: p - ours.RATE * d, params, direction)
        return params, opt_state, cost, carry

    opt_state = rule.init(params)
    carry = cells.zero_carry(cell, config.batch_size, config.hidden_size)
    x, y = (np.ascontiguousarray(a.T) for a in ours.window_of(case))

    def call() -> list[float]:
        nonlocal params, opt_state, carry
        params, opt_state, cost, carry = step(params, opt_state, x, y, carry)
        return [float(cost)]

    return call
