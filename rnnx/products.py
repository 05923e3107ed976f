"""Products of many rows with a matrix, and the types that they are formed in."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnx import cells, native
from rnnx.cells import Params


def widen(dtype: Any, *trees: Any) -> tuple[Any, ...]:
    """The operands' type of products, and the trees: in float64 if anything is, else in float32.

    The type is dtype; only where that is float32, the default, it is as wide as the trees.
    """
    dtype = jnp.dtype(dtype)
    wide = jnp.result_type(jnp.float32, dtype, *jax.tree.leaves(trees))
    trees = jax.tree.map(lambda a: jnp.asarray(a, wide), trees)
    return wide if dtype == jnp.float32 else dtype, *trees


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, w: Array, dtype: Any = jnp.float32) -> Array:
    """`x @ w` for many rows x (..., m), with operands of dtype; no forward mode.

    As JAX forms the gradient of w, XLA transposes the rows' cotangent, on CPU at up to a seventh
    of the whole update's cost. Here it is x^T times the cotangent as it lies, a float32 sum
    (float64 if either is).
    """
    return cells.matmul(x, w.astype(dtype))


product.defvjp(
    lambda x, w, dtype: (product(x, w, dtype), (x, w)),
    lambda dtype, xw, y_bar: (
        cells.matmul(y_bar, xw[1].astype(dtype).T),
        outer(xw[0], y_bar, dtype),
    ),
)


def cast_matrices(params: Params, dtype: Any) -> Params:
    """The blocks with W and U in dtype; vectors stay float32."""
    return tuple(
        {name: p.astype(dtype) if name in ("W", "U") else p for name, p in block.items()}
        for block in params
    )


def outer(z: Array, uz_bar: Array, dtype: Any) -> Array:
    """Sum over time and batch of the outer products: (T, B, n), (T, B, G n) to (n, G n)."""
    wide = jnp.result_type(z, uz_bar, jnp.float32)
    z, uz_bar = (a.reshape(-1, a.shape[-1]).astype(dtype) for a in (z, uz_bar))
    if wide == jnp.float32 and dtype == jnp.bfloat16 and native.bfloat16():
        return native.outer(z, uz_bar)
    return jnp.matmul(z.T, uz_bar, preferred_element_type=wide)
