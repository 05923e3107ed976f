"""A transition run over time with `jax.lax.scan`, and its fast backward pass.

Reverse-mode differentiation of a plain scan adds a rank-B update to a whole weight matrix at every
time step. Here the backward scan carries the state's cotangent only and emits the cotangents of
the pre-activations; every weight gradient is then one large product over time and batch.

    forward    record U z of every block and step, and the states
    backward   at each step replay the transition on the recorded products (pointwise work only)
               and pull the cotangent back through it; a product passes it on with the transposed
               matrix, formed once outside the loop
    after      integrate's own vjp over all steps at once gives the gradients of the vectors and
               of the input terms; one product a block gives the gradient of U

What is recorded grows with T: G n numbers a block, step and row. For long windows `remat` keeps
the state every so many steps only and runs each segment forward again before its backward pass.

Nothing of this depends on the cell: `cells.py` stays the only place where equations stand. Reverse
mode only, to any order (each further one at JAX's own speed); `unroll_plain` has forward mode too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cells
from rnnx.cells import Carry, Cell, Params


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    mask: Array | None = None,
    dtype: Any = jnp.float32,
    remat: int = 0,
) -> tuple[Array, Carry]:
    """Runs a cell over time.

    Args:
      cell: which equations.
      params: the cell's blocks, float32.
      xs: (T, B, m) inputs.
      carry: state before the first step, each (B, n).
      mask: (B, n), the variational dropout mask of the state, the same at every step and block;
        treated as a constant: no gradient reaches it.
      dtype: of the matrix products' operands; sums, states, parameters and gradients stay float32.
      remat: 0 records every step for the backward pass; k > 0 keeps the state every k steps and
        recomputes between: about T / k + k steps' memory instead of T, one more forward pass.

    Returns:
      ys (T, B, n), the outputs, and the carry after the last step.
    """
    dtype = jnp.dtype(dtype)
    wx = tuple(product(xs, block["W"], dtype) if "W" in block else None for block in params)
    if mask is not None:
        mask = lax.stop_gradient(mask)
    without_input = tuple({k: p for k, p in block.items() if k != "W"} for block in params)

    def run(wx: tuple[Array | None, ...], carry: Carry) -> tuple[Carry, Array]:
        ys, carry = _recur(cell, dtype, without_input, wx, carry, mask)
        return carry, ys

    carry, ys = in_segments(run, remat, wx, carry)
    return ys, carry


def unroll_plain(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    mask: Array | None = None,
    dtype: Any = jnp.float32,
) -> tuple[Array, Carry]:
    """`unroll` as JAX differentiates it by itself: slower, but in forward mode too."""
    wx = cells.project(cast_matrices(params, dtype), xs)
    return _scan(cell, dtype, params, wx, carry, mask)


def in_segments(run: Callable, length: int, xs: Any, carry: Any) -> tuple[Any, Any]:
    """`run(xs, carry) -> carry, ys` over time, whose backward pass recomputes it by segments.

    Args:
      run: takes xs, a tree of arrays with time first, of any length, and gives ys alike.
      length: time steps of a segment; 0 is one call on the whole, nothing recomputed.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]
    if not length or length >= steps:
        return run(xs, carry)
    whole = steps // length * length
    cut = jax.tree.map(lambda a: a[:whole].reshape(-1, length, *a.shape[1:]), xs)
    # prevent_cse=False: inside a loop nothing can be merged with the first forward pass anyway.
    body = jax.checkpoint(lambda carry, xs: run(xs, carry), prevent_cse=False)
    carry, ys = lax.scan(body, carry, cut)
    ys = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), ys)
    if whole < steps:
        carry, rest = body(carry, jax.tree.map(lambda a: a[whole:], xs))
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, rest)
    return carry, ys


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, w: Array, dtype: Any = jnp.float32) -> Array:
    """`x @ w` for many rows x (..., m), with operands of dtype; no forward mode.

    As JAX forms the gradient of w, XLA transposes the rows' cotangent, on CPU at up to a seventh
    of the whole update's cost. Here it is x^T times the cotangent as it lies, a float32 sum.
    """
    return cells.matmul(x, w.astype(dtype))


product.defvjp(
    lambda x, w, dtype: (product(x, w, dtype), (x, w)),
    lambda dtype, xw, y_bar: (
        cells.matmul(y_bar, xw[1].astype(dtype).T),
        _outer(xw[0], y_bar, dtype),
    ),
)


def cast_matrices(params: Params, dtype: Any) -> Params:
    """The blocks with W and U in dtype; vectors stay float32."""
    return tuple(
        {name: p.astype(dtype) if name in ("W", "U") else p for name, p in block.items()}
        for block in params
    )


def _scan(
    cell: Cell,
    dtype: Any,
    params: Params,
    wx: tuple[Array | None, ...],
    carry: Carry,
    mask: Array | None,
) -> tuple[Array, Carry]:
    """The recurrence on input terms wx, each (T, B, G n) or None."""
    params = cast_matrices(params, dtype)

    def body(carry: Carry, wx: tuple[Array | None, ...]) -> tuple[Carry, Array]:
        carry = cells.step(cell, params, carry, wx, mask)
        return carry, carry[0]

    carry, ys = lax.scan(body, carry, wx)
    return ys, carry


_recur = jax.custom_vjp(_scan, nondiff_argnums=(0, 1))


def _recur_fwd(cell, dtype, params, wx, carry, mask):
    cast = cast_matrices(params, dtype)

    def body(state, wx):
        products: dict[int, Array] = {}
        taken: list[int] = []

        def product(k, z):
            taken.append(k)
            products[k] = cells.matmul(z, cast[k]["U"])
            return products[k]

        pre = cells.make_pre(cell, params, wx, mask, product)
        after = cells.CELLS[cell.kind].transition(pre, state, cell)
        if sorted(taken) != list(range(len(params))):
            raise ValueError(
                f"cell {cell.kind} takes blocks {taken} of {len(params)}: it must take each once"
            )
        return after, (after, tuple(products[k] for k in range(len(params))))

    last, (states, uzs) = lax.scan(body, carry, wx)
    return (states[0], last), (params, wx, carry, mask, states, uzs)


def _recur_bwd(cell, dtype, residuals, cotangents):
    params, wx, carry, mask, states, uzs = residuals
    ys_bar, last_bar = cotangents
    blocks = range(len(params))
    # Behind the barrier, or XLA would transpose inside the loop again.
    transposed = lax.optimization_barrier(
        tuple(block["U"].T for block in cast_matrices(params, dtype))
    )
    before = tuple(jnp.concatenate([c[None], s[:-1]]) for c, s in zip(carry, states, strict=True))

    def body(after_bar, step):
        state, wx, uz, y_bar = step

        def replay(state, nudge):
            zs: dict[int, Array] = {}
            scales: dict[int, Array | None] = {}

            def product(k, z):
                zs[k] = z
                return _recorded_product(z, uz[k], transposed[k])

            inner = cells.make_pre(cell, params, wx, mask, product, nudge)

            def pre(k, z, scale=None):
                scales[k] = scale
                return inner(k, z, scale)

            after = cells.CELLS[cell.kind].transition(pre, state, cell)
            return after, (tuple(zs[k] for k in blocks), tuple(scales[k] for k in blocks))

        # Adding a zero to each pre-activation makes its cotangent a result of the vjp.
        nudge = tuple(jnp.zeros_like(u) for u in uz)
        _, pull, taken = jax.vjp(replay, state, nudge, has_aux=True)
        before_bar, a_bar = pull((after_bar[0] + y_bar, *after_bar[1:]))
        return before_bar, (a_bar, taken)

    carry_bar, (a_bars, (zs, scales)) = lax.scan(
        body, last_bar, (before, wx, uzs, ys_bar), reverse=True
    )

    params_bar, wx_bar = [], []
    for block, wx_k, uz, a_bar, z, scale in zip(params, wx, uzs, a_bars, zs, scales, strict=True):
        vectors = {name: p for name, p in block.items() if name != "U"}
        uz = uz if scale is None else scale * uz
        _, pull = jax.vjp(partial(cells.integrate, cell.integration), vectors, wx_k, uz)
        block_bar, wx_k_bar, uz_bar = pull(a_bar)
        uz_bar = uz_bar if scale is None else scale * uz_bar
        params_bar.append(block_bar | {"U": _outer(z, uz_bar, dtype)})
        wx_bar.append(wx_k_bar)
    return tuple(params_bar), tuple(wx_bar), carry_bar, None


_recur.defvjp(_recur_fwd, _recur_bwd)


@jax.custom_vjp
def _recorded_product(z: Array, uz: Array, transposed: Array) -> Array:
    """`z @ U` whose value uz is known: only its cotangent costs a product."""
    return uz


_recorded_product.defvjp(
    lambda z, uz, transposed: (uz, transposed),
    lambda transposed, uz_bar: (cells.matmul(uz_bar, transposed), None, None),
)


def _outer(z: Array, uz_bar: Array, dtype: Any) -> Array:
    """Sum over time and batch of the outer products: (T, B, n), (T, B, G n) to (n, G n)."""
    z, uz_bar = (a.reshape(-1, a.shape[-1]).astype(dtype) for a in (z, uz_bar))
    return jnp.matmul(z.T, uz_bar, preferred_element_type=jnp.float32)
