"""The parameters that a cell starts with. Legend as in `cells.py`."""

import jax
import jax.numpy as jnp
from jax import Array

from rnnx.cells import CELLS, Cell, Params
from rnnx.integration import initial_vectors


def init(
    cell: Cell,
    key: Array,
    m: int,
    n: int,
    *,
    init_scale: float | None = None,
    input_scale: float | None = None,
    orthogonal: float = 0.0,
    transform_bias: float = -2.0,
    forget_bias: float = 1.0,
    mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Params:
    """Draws a cell's parameters, float32.

    Matrices are U(-init_scale, init_scale); None means 1 / sqrt(n). Input matrices W are
    U(-input_scale, input_scale) if that is given: the r of the MI paper's table. With
    orthogonal > 0 each gate's recurrent matrix is that number times an orthogonal one. Biases of
    rhn, dtrnn and dtsrnn are U(-init_scale, init_scale), of the others 0, as in the two papers;
    except the RHN's transform gate (transform_bias at every depth; an uncoupled carry gate's is
    -transform_bias, so that c starts near 1 - t) and the forget gate of lstm and slstm
    (forget_bias).
    mi_init holds the constants that alpha, beta1 and beta2 start at; gains start at 1.
    """
    family = CELLS[cell.kind]
    scale = n**-0.5 if init_scale is None else init_scale
    input_scale = scale if input_scale is None else input_scale
    given = {"transform_bias": transform_bias, "forget_bias": forget_bias}
    fixed = {gate: sign * given[keyword] for gate, keyword, sign in family.biases}

    def uniform(key: Array, *shape: int, scale: float = scale) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -scale, scale)

    def recurrent(key: Array, gates: int) -> Array:
        if not orthogonal:
            return uniform(key, n, gates * n)
        draw = jax.nn.initializers.orthogonal(orthogonal)
        return jnp.concatenate([draw(k, (n, n)) for k in jax.random.split(key, gates)], axis=1)

    params = []
    for k, gates in enumerate(cell.blocks):
        key, key_w, key_u, key_b = jax.random.split(key, 4)
        width = len(gates) * n
        block = {} if family.linear else {"U": recurrent(key_u, len(gates))}
        if cell.sees_input(k):
            block["W"] = uniform(key_w, m, width, scale=input_scale)
        block |= initial_vectors(cell, k, n, mi_init)
        bias = uniform(key_b, width) if family.uniform_bias else jnp.zeros((width,), jnp.float32)
        for g, gate in enumerate(gates):
            if gate in fixed:
                bias = bias.at[g * n : (g + 1) * n].set(fixed[gate])
        params.append(block | {"b": bias})
    return tuple(params)
