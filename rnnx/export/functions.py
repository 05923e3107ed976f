"""What is exported of a run: functions of arrays, by names that every format keeps.

sequence   inputs (batch, time, ...) and state.K (batch, n) to outputs and next_state.K
step       the same for one time step: inputs (batch, ...); where the task carries a state
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnx import model
from rnnx.errors import UserError
from rnnx.export.about import readable
from rnnx.tasks import network
from rnnx.tasks.task import Function, Task
from rnnx.trained import Run


class Exported(NamedTuple):
    """A function to export.

    Attributes:
      name: `sequence` or `step`.
      call: (params, *arrays) -> outputs and next_state.K, as a list.
      inputs: shapes and types by name, in order; free axes are symbols.
      outputs: names.
    """

    name: str
    call: Callable[..., list[Array]]
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: list[str]


class Exports(NamedTuple):
    """All that is exported of a run: its functions, and the parameters by readable names."""

    function: Function
    params: dict[str, np.ndarray]
    functions: list[Exported]
    state: list[tuple[int, ...]]  # the shape of each, without the batch


def exports_of(run: Run) -> Exports:
    """What a run exports.

    Raises:
      UserError: when its task has no function to export.
    """
    if type(run.task).function is Task.function:
        raise UserError(f"{run.folder} holds a task without a function to export")
    config = run.config.copy_and_resolve_references()
    config.remat = 0  # training's: it cuts time in pieces, which a free axis can't be
    graphdef, shapes = network.abstract(config, run.spec)
    function = run.task.function(config, run.spec)
    names = readable(shapes)
    params = {names[name]: np.asarray(p) for name, p in run.params.items()}
    zeros = jax.eval_shape(lambda: run.task.zero_carry(model.merge(graphdef, run.params), 1))
    leaves, tree = jax.tree.flatten(zeros)

    def sequence(params: dict[str, Array], *arrays: Array) -> list[Array]:
        net = model.merge(graphdef, {name: params[names[name]] for name in shapes})
        given, state = arrays[: len(function.inputs)], arrays[len(function.inputs) :]
        carries = jax.tree.unflatten(tree, state)
        found, carries = function.call(net, dict(zip(function.inputs, given, strict=True)), carries)
        return [found, *jax.tree.leaves(carries)]

    def step(params: dict[str, Array], *arrays: Array) -> list[Array]:
        given, state = arrays[: len(function.inputs)], arrays[len(function.inputs) :]
        found, *after = sequence(params, *(a[:, None] for a in given), *state)
        return [jnp.squeeze(found, 1), *after]

    state = {f"state.{k}": (("batch", *leaf.shape[1:]), "float32") for k, leaf in enumerate(leaves)}
    outputs = ["outputs", *(f"next_{name}" for name in state)]
    whole = symbolic(function.inputs | state, function.least)
    functions = [Exported("sequence", sequence, whole, outputs)]
    if leaves:
        one = {
            name: (tuple(axis for axis in axes if axis != "time"), kind)
            for name, (axes, kind) in function.inputs.items()
        }
        functions.append(Exported("step", step, symbolic(one | state), outputs))
    return Exports(function, params, functions, [leaf.shape[1:] for leaf in leaves])


def symbolic(
    inputs: dict[str, tuple[tuple[int | str, ...], str]], least: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types whose free axes are symbols; least: of time steps."""
    limit = [f"time >= {least}", f"batch*time >= {least}*batch"] if least > 1 else []
    scope = jax.export.SymbolicScope(limit)
    return {
        name: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(", ".join(map(str, axes)), scope=scope), jnp.dtype(kind)
        )
        for name, (axes, kind) in inputs.items()
    }
