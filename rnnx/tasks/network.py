"""From a config to a network."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import model, tasks
from rnnx.cells import CELLS
from rnnx.config import cell_of
from rnnx.errors import UserError


def stack_options(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `model.SequenceModel` that follow from the config alone."""
    return {
        "num_layers": config.num_layers,
        "init_scale": config.init_scale,
        "input_scale": config.input_scale or None,
        "orthogonal": config.orthogonal,
        "dtype": config.dtype,
        "remat": config.remat,
        "transform_bias": config.transform_bias,
        "forget_bias": config.forget_bias,
        "mi_init": tuple(config.mi_init),
    }


def build(config: ConfigDict, spec: Any) -> nnx.Module:
    """The network a resolved config describes, its variables drawn from config.seed."""
    return tasks.of(config).model(config, spec, nnx.Rngs(config.seed))


def abstract(config: ConfigDict, spec: Any) -> tuple[nnx.GraphDef, dict[str, Array]]:
    """`model.split` of `build`, with shapes in place of arrays."""
    return model.split(nnx.eval_shape(lambda: build(config, spec)))


def parameter_count(config: ConfigDict, spec: Any) -> int:
    """Number of parameters of the network a resolved config describes."""
    return sum(p.size for p in abstract(config, spec)[1].values())


def recurrent_bytes(config: ConfigDict) -> int:
    """Bytes of all recurrent matrices of a resolved config, as the products take them."""
    if CELLS[config.cell].linear:
        return 0
    gates = sum(map(len, cell_of(config).blocks))
    size = jnp.dtype(config.dtype).itemsize
    return size * config.num_layers * gates * config.hidden_size**2


def resolve(config: ConfigDict, spec: Any) -> ConfigDict:
    """The config with hidden_size solved from param_budget, and with what follows from it.

    Raises:
      UserError: when not even one unit fits the budget, or a field is set that follows from
        others.
    """
    task = tasks.of(config)
    if not config.param_budget:
        return task.at_width(config, spec, config.hidden_size)

    def fits(n: int) -> bool:
        return parameter_count(task.at_width(config, spec, n), spec) <= config.param_budget

    # Parameters grow with width: double to a bracket, then halve it.
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if not low:
        raise UserError(f"param_budget={config.param_budget} is too small for one unit")
    return task.at_width(config, spec, low)
