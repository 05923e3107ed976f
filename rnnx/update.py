"""Updates of the parameters, on all devices: masks, cost, gradient, rule."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rnnx import model, native, optim, parallel
from rnnx.dropout import Masks
from rnnx.parallel import BATCHES, EVERYWHERE, ROWS
from rnnx.tasks.network import recurrent_bytes
from rnnx.tasks.task import Task

_MASKS = 0x6D61736B  # streams of keys: apart from that of the initial variables
_NOISE = 0x6E6F6973


class State(NamedTuple):
    """The arrays of a run."""

    params: dict[str, Array]
    opt_state: Any
    carries: Any  # the recurrent state after the last batch, carried into the next


class Call(NamedTuple):
    """The arguments of a call of updates."""

    state: State
    batches: dict[str, Any]
    seed: np.uint32
    number: np.int32
    count: np.int32
    rate: np.float32


_STATE = State(EVERYWHERE, EVERYWHERE, ROWS)  # where its arrays are
_ARGUMENTS = _STATE, BATCHES, *[EVERYWHERE] * 4  # of a Call


@jax.jit
def all_finite(params: dict[str, Array]) -> Array:
    """Whether no parameter is NaN or Inf."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in params.values()]))


def update_masks(
    task: Task,
    config: ConfigDict,
    net: Any,
    seed: Array,
    number: Array,
    rows: Array,
    batch: dict[str, Array],
) -> Masks:
    """The dropout masks of update `number` for these rows of the global batch.

    A function of seed, number and row alone: nothing random needs to be checkpointed.
    """
    key = jax.random.fold_in(jax.random.key(seed), _MASKS)
    return task.masks(config, net, jax.random.fold_in(key, number), rows, batch)


def _make_update(task: Task, config: ConfigDict, graphdef: Any, masks_of: Callable) -> Callable:
    """update(state, batch, seed, number, rate) -> state, metrics: one update on one device."""
    rule, wd, noise = optim.update_rule(config), optim.l2(config), config.weight_noise

    def noisy(params, seed, number):
        """Parameters with Gaussian noise: where the gradient is taken (Graves 2011)."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _NOISE), number)
        # Drawn at once: XLA compiles the generator anew for every draw.
        ends = list(itertools.accumulate(params[name].size for name in sorted(params)))
        drawn = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
        return {
            name: params[name] + noise * part.reshape(params[name].shape)
            for name, part in zip(sorted(params), drawn, strict=True)
        }

    def loss_fn(params, batch, carries, masks, seed, number):
        net = model.merge(graphdef, noisy(params, seed, number) if noise else params)
        costs, carries, sums = task.cost(net, batch, carries, masks)
        squares = sum(jnp.sum(p * p) for p in params.values()) if wd else 0.0
        return jnp.mean(costs) + wd / 2 * squares, (carries, sums)

    def update(state, batch, seed, number, rate):
        here = jax.tree.leaves(batch)[0].shape[0]
        rows = parallel.first_row(here) + jnp.arange(here)
        net = model.merge(graphdef, state.params)
        masks = masks_of(task, config, net, seed, number, rows, batch)
        (loss, (carries, sums)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, batch, state.carries, masks, seed, number
        )
        if (devices := lax.axis_size(parallel.AXIS)) > 1:  # XLA would copy the gradients for one
            # In one all-reduce: without the barrier XLA makes one of its own for a sum that is
            # ready before the loss, as a count of targets is.
            loss, sums = lax.optimization_barrier((loss, sums))
            grads, loss, sums = lax.psum((grads, loss, sums), parallel.AXIS)
            grads, loss = jax.tree.map(lambda total: total / devices, (grads, loss))
        direction, opt_state = rule.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), "sums": sums}
        return State(params, opt_state, carries), metrics

    return update


def make_updates(
    task: Task,
    config: ConfigDict,
    graphdef: Any,
    mesh: Mesh,
    masks_of: Callable = update_masks,
    highest: float = math.inf,
) -> Callable:
    """Compiles a run of updates, one batch after the other, on all devices of the mesh.

    Several updates in one call give bit for bit the same numbers as one at a time. The cost of a
    call (dispatch, and on CPUs fresh zeroed pages for intermediate arrays) is then paid once.

    Loss: the mean over rows of the task's cost, plus L2. For a language model that is
    cross-entropy summed over the window, the scale that the RHN paper's clipping and learning
    rate refer to.

    Returns:
      updates(state, batches, seed, number, count, rate) -> state, metrics. batches are the task's,
      stacked (K, B, ...), of which the first count <= K are read; the seed and number, the count
      of updates before, decide dropout masks and noise. They and the rate are arguments, so that
      seeds and rates share one compiled program. metrics, one value an update, (K,) each: `loss`
      (with L2), `grad_norm` (before clipping), and `sums`, the task's; NaN after the first count.

      The first batch whose loss or gradient is not finite, or whose primary score exceeds
      `highest`, is the last, and its `sums` are NaN; with config.on_nan=skip it is passed over:
      parameters stay, and reading continues from the zero state.
    """
    updates = _make_loop(task, config, graphdef, masks_of, highest)
    return _compiled(updates, config, mesh, _ARGUMENTS, (_STATE, EVERYWHERE))


def make_replica_updates(
    task: Task, config: ConfigDict, graphdef: Any, mesh: Mesh, replicas: int, highest: float
) -> Callable:
    """Compiles the updates of several runs at once, by `vmap`: runs of one network, whose arrays,
    seeds and learning rates differ.

    Where one run's products are too thin to fill an accelerator, several cost little more than one.

    Returns:
      updates(states, batches, seeds, numbers, counts, rates) -> ((state, metrics), ...): each
      argument a tuple with one entry a run, each result as `make_updates` gives it for that run.
      A run that has fewer batches, or ends at one of them, stands still while the others continue.
    """
    loop = _make_loop(task, config, graphdef, update_masks, highest)

    def updates(*arguments):
        stacked = (jax.tree.map(lambda *a: jnp.stack(a), *each) for each in arguments)
        answers = jax.vmap(loop)(*stacked)
        return tuple(jax.tree.map(lambda a, k=k: a[k], answers) for k in range(replicas))

    arguments = tuple((spec,) * replicas for spec in _ARGUMENTS)
    return _compiled(updates, config, mesh, arguments, ((_STATE, EVERYWHERE),) * replicas)


def _compiled(
    updates: Callable, config: ConfigDict, mesh: Mesh, arguments: tuple, results: tuple
) -> Callable:
    """Compiles a loop of updates, of one run or of several."""
    # Eigen has no bfloat16 products of its own, YNNPACK has: the default.
    default = config.dtype == "bfloat16" and native.bfloat16()
    options = None if default else parallel.compiler_options(recurrent_bytes(config), config.tied)
    return parallel.pmapped(updates, mesh, arguments, results, (0,), options)


def _make_loop(
    task: Task, config: ConfigDict, graphdef: Any, masks_of: Callable, highest: float
) -> Callable:
    """What `make_updates` compiles: its arguments and results, on one device."""
    update = _make_update(task, config, graphdef, masks_of)
    skip = config.on_nan == "skip"

    def updates(state, batches, seed, number, count, rate):
        def nth(i):
            return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, keepdims=False), batches)

        def body(so_far):
            i, _, state, series = so_far
            after, metrics = update(state, nth(i), seed, number + i, rate)
            total, targets = metrics["sums"][task.primary]
            sane = ~(total > highest * targets) & jnp.isfinite(metrics["loss"])
            sane &= jnp.isfinite(metrics["grad_norm"])
            if skip:
                after = State(
                    *jax.tree.map(lambda new, old: jnp.where(sane, new, old), after[:2], state[:2]),
                    jax.tree.map(lambda h: jnp.where(sane, h, 0), after.carries),
                )
            metrics["sums"] = jax.tree.map(lambda s: jnp.where(sane, s, jnp.nan), metrics["sums"])
            series = jax.tree.map(lambda s, m: s.at[i].set(m), series, metrics)
            return i + 1, sane | skip, after, series

        def sums_of(batch):
            return task.cost(model.merge(graphdef, state.params), batch, state.carries, None)[2]

        none = jnp.full(jax.tree.leaves(batches)[0].shape[0], jnp.nan)
        sums = jax.tree.map(lambda _: none, jax.eval_shape(sums_of, nth(0)))
        series = {"loss": none, "grad_norm": none, "sums": sums}
        begin = jnp.int32(0), jnp.bool(True), state, series
        return lax.while_loop(lambda s: (s[0] < count) & s[1], body, begin)[2:]

    return updates
