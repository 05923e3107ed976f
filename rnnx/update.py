"""Updates of the parameters, on all devices: masks, loss, gradient, rule."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rnnx import model, optim, parallel
from rnnx.parallel import EVERYWHERE, ROWS

METRICS = ("loss", "nats", "grad_norm")


class State(NamedTuple):
    """The arrays of a run."""

    params: dict[str, Array]
    opt_state: Any
    carries: Any  # the recurrent state at the window's end, carried into the next window


@jax.jit
def all_finite(params: dict[str, Array]) -> Array:
    """Whether no parameter is NaN or Inf."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in params.values()]))


def window_masks(config: ConfigDict, number: Array, rows: Array, tokens: Array) -> model.Masks:
    """The dropout masks of update `number` for these rows of the global batch, tokens (T, B).

    A function of seed, number and row alone: nothing random needs to be checkpointed.
    """
    # One fold away from the seed, whose own folds have drawn the initial variables.
    key = jax.random.fold_in(jax.random.key(config.seed), 0x6D61736B)
    masks = model.draw_masks(jax.random.fold_in(key, number), config, rows, tokens.shape[0])
    return model.share_draws(masks, tokens)


def make_updates(
    config: ConfigDict,
    graphdef: Any,
    mesh: Mesh,
    masks_of: Callable = window_masks,
    highest: float = math.inf,
) -> Callable:
    """Compiles a run of updates, one window after the other, on all devices of the mesh.

    Several windows a call are the same numbers to the last bit as one by one, since it is the
    same program; but what a call costs, however small its arrays, is paid once: dispatch, and on
    CPU the pages of every intermediate array, which the system hands out anew and zeroed.

    Loss: cross-entropy summed over the window and averaged over the batch, plus L2, the scale
    that the RHN paper's clipping and learning rate refer to.

    Returns:
      updates(state, x, y, number, count, rate) -> state, metrics. x and y are (B, K T), windows
      of config.num_steps side by side, of which the first count <= K are read; number, the count
      of updates before, decides the dropout masks. For piano rolls x and y are (B, K T, keys), and
      two arguments follow: weight (B, K T), 0 where a step is padding, and fresh (K,), 1 where a
      window follows the zero state. metrics, each (K,), one value an update:
      `loss` (with L2), `nats` (the window's sum over the whole batch) and `grad_norm` (before
      clipping); NaN behind the first count.

      The first window whose loss or gradient is not finite, or that takes more than `highest` nats
      a target, is the last, and its `nats` are NaN; with config.on_nan=skip it is passed over:
      parameters stay, and reading goes on from the zero state.
    """
    rule, wd, steps = optim.update_rule(config), optim.l2(config), config.num_steps
    skip = config.on_nan == "skip"

    def loss_fn(params, x, y, carries, masks, weight):
        nll, carries = model.merge(graphdef, params).nll(x, y, carries, masks)
        nll = nll if weight is None else nll * weight
        cost = jnp.sum(jnp.mean(nll, axis=1))
        squares = sum(jnp.sum(p * p) for p in params.values()) if wd else 0.0
        return cost + wd / 2 * squares, (cost, carries)

    def update(state, x, y, number, rate, weight=None):  # on one device: its own rows of all
        x, y = jnp.swapaxes(x, 0, 1), jnp.swapaxes(y, 0, 1)
        weight = weight if weight is None else weight.T
        rows = parallel.first_row(x.shape[1]) + jnp.arange(x.shape[1])
        masks = masks_of(config, number, rows, x)
        (loss, (cost, carries)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, x, y, state.carries, masks, weight
        )
        grads, loss, cost = lax.pmean((grads, loss, cost), parallel.AXIS)
        direction, opt_state = rule.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        metrics = {
            "loss": loss,
            "nats": cost * config.batch_size,
            "grad_norm": optax.tree.norm(grads),
        }
        return State(params, opt_state, carries), metrics

    def updates(state, x, y, number, count, rate, weight=None, fresh=None):
        def window_of(a, i):
            return None if a is None else lax.dynamic_slice_in_dim(a, i * steps, steps, axis=1)

        def body(so_far):
            i, _, state, series = so_far
            if fresh is not None:
                carries = jax.tree.map(lambda h: h * (1 - fresh[i]), state.carries)
                state = state._replace(carries=carries)
            window = window_of(x, i), window_of(y, i)
            after, metrics = update(state, *window, number + i, rate, window_of(weight, i))
            sane = metrics["nats"] <= highest * config.batch_size * steps
            sane &= jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
            if skip:
                after = State(
                    *jax.tree.map(lambda new, old: jnp.where(sane, new, old), after[:2], state[:2]),
                    jax.tree.map(lambda h: jnp.where(sane, h, 0), after.carries),
                )
            metrics["nats"] = jnp.where(sane, metrics["nats"], jnp.nan)
            series = jax.tree.map(lambda s, m: s.at[i].set(m), series, metrics)
            return i + 1, sane | skip, after, series

        none = jnp.full(x.shape[1] // steps, jnp.nan)
        begin = jnp.int32(0), jnp.bool(True), state, dict.fromkeys(METRICS, none)
        return lax.while_loop(lambda s: (s[0] < count) & s[1], body, begin)[2:]

    spread = State(EVERYWHERE, EVERYWHERE, ROWS)
    weighting = (ROWS, EVERYWHERE) if config.level == "roll" else ()
    return parallel.pmapped(
        updates,
        mesh,
        in_specs=(spread, ROWS, ROWS, EVERYWHERE, EVERYWHERE, EVERYWHERE, *weighting),
        out_specs=(spread, EVERYWHERE),
        donate=(0,),
        compiler_options=parallel.compiler_options(model.recurrent_bytes(config)),
    )
