"""One update of the parameters, on all devices: masks, loss, gradient, rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rnnx import model, optim, parallel
from rnnx.parallel import EVERYWHERE, ROWS


class State(NamedTuple):
    """The arrays of a run."""

    params: dict[str, Array]
    opt_state: Any
    carries: Any  # the recurrent state at the window's end, carried into the next window


def window_masks(config: ConfigDict, number: Array, rows: Array, tokens: Array) -> model.Masks:
    """The dropout masks of update `number` for these rows of the global batch, tokens (T, B).

    A function of seed, number and row alone: nothing random needs to be checkpointed.
    """
    # One fold away from the seed, whose own folds have drawn the initial variables.
    key = jax.random.fold_in(jax.random.key(config.seed), 0x6D61736B)
    masks = model.draw_masks(jax.random.fold_in(key, number), config, rows, tokens.shape[0])
    return model.share_draws(masks, tokens)


def make_step(
    config: ConfigDict, graphdef: Any, mesh: Mesh, masks_of: Callable = window_masks
) -> Callable:
    """Compiles one update on all devices of the mesh.

    Loss: cross-entropy summed over the window and averaged over the batch, plus L2, the scale
    that the RHN paper's clipping and learning rate refer to.

    Returns:
      step(state, x, y, number, rate) -> state, metrics. x and y are (B, T); number, the count of
      updates before this one, decides the dropout masks; metrics are `loss` (with L2), `nats`
      (the window's sum over the whole batch) and `grad_norm` (before clipping).
    """
    rule, wd = optim.update_rule(config), optim.l2(config)

    def loss_fn(params, x, y, carries, masks):
        nll, carries = model.merge(graphdef, params).nll(x, y, carries, masks)
        cost = jnp.sum(jnp.mean(nll, axis=1))
        squares = sum(jnp.sum(p * p) for p in params.values()) if wd else 0.0
        return cost + wd / 2 * squares, (cost, carries)

    def step(state, x, y, number, rate):  # on one device: its own rows of x, y and carries
        x, y = x.T, y.T
        rows = parallel.first_row(x.shape[1]) + jnp.arange(x.shape[1])
        masks = masks_of(config, number, rows, x)
        (loss, (cost, carries)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, x, y, state.carries, masks
        )
        grads, loss, cost = jax.lax.pmean((grads, loss, cost), parallel.AXIS)
        direction, opt_state = rule.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        metrics = {
            "loss": loss,
            "nats": cost * config.batch_size,
            "grad_norm": optax.tree.norm(grads),
        }
        return State(params, opt_state, carries), metrics

    spread = State(EVERYWHERE, EVERYWHERE, ROWS)
    return parallel.pmapped(
        step,
        mesh,
        in_specs=(spread, ROWS, ROWS, EVERYWHERE, EVERYWHERE),
        out_specs=(spread, EVERYWHERE),
        donate=(0,),
    )
