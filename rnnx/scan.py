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

Sequences that end within a batch, and states reset within a window, are selections around each
step. Without lengths and resets these selections are not in the program.

A cell that is linear in its state has no recurrent products: `linear.py` runs it over time.

Nothing here depends on the cell: the equations are in `cells.py` alone. Reverse mode only, to any
order (beyond the first at JAX's own speed); `unroll_plain` has forward mode too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cells, linear, native, products, ragged
from rnnx.cells import Carry, Cell, Params
from rnnx.ragged import Rows


def unroll(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    mask: Array | None = None,
    dtype: Any = jnp.float32,
    remat: int = 0,
    lengths: Array | None = None,
    reset: Array | None = None,
) -> tuple[Array, Carry]:
    """Runs a cell over time.

    Args:
      cell: which equations.
      params: the cell's blocks, float32 or float64.
      xs: (T, B, m) inputs.
      carry: state before the first step, each (B, n).
      mask: (B, n), or (1, n) for all rows: the variational dropout mask of the state, the same at
        every step and block; treated as a constant: no gradient reaches it. It acts inside the
        products, so a linear cell ignores it.
      dtype: of the matrix products' operands; sums and states are float32, and gradients have the
        types of what they belong to. When any array here or dtype is float64 (which needs
        `jax_enable_x64`), sums, states and products of dtype float32 are float64 instead.
      remat: 0 records every step for the backward pass; k > 0 keeps the state every k steps and
        recomputes between: about T / k + k steps' memory instead of T, one more forward pass.
      lengths: (B,) integers, the steps of each row's sequence; None is T for all. Whatever xs
        holds after them, NaN too, changes neither values nor gradients.
      reset: (T, B) booleans; where true, the row's state is set to zero before that step.

    Returns:
      ys (T, B, n), the outputs, and the carry after the last step. With lengths: ys is zero from a
      row's length on, and the carry is the one at the length (at length 0 the initial one).

    Raises:
      ValueError: when any of these has another shape, or lengths or reset another type.
    """
    dtype, params, xs, carry, mask, rows = _prepared(
        cell, params, xs, carry, mask, dtype, lengths, reset
    )
    if xs.shape[0] == 0:
        return jnp.zeros((0, *carry[0].shape), carry[0].dtype), carry
    wx = tuple(
        products.product(xs, block["W"], dtype) if "W" in block else None for block in params
    )
    without_input = tuple({k: p for k, p in block.items() if k != "W"} for block in params)

    def run(steps: tuple[Any, Rows], carry: Carry) -> tuple[Carry, Array]:
        if cell.linear:
            ys, carry = _linear(cell, without_input, *steps, carry)
        else:
            ys, carry = _recur(cell, dtype, without_input, *steps, carry, mask)
        return carry, ys

    carry, ys = in_segments(run, remat, (wx, rows), carry)
    return ys, carry


def unroll_plain(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    mask: Array | None = None,
    dtype: Any = jnp.float32,
    lengths: Array | None = None,
    reset: Array | None = None,
) -> tuple[Array, Carry]:
    """`unroll` as JAX differentiates it by itself: slower, but in forward mode too."""
    dtype, params, xs, carry, mask, rows = _prepared(
        cell, params, xs, carry, mask, dtype, lengths, reset
    )
    params = products.cast_matrices(params, dtype)
    wx = cells.project(params, xs)
    matrices = tuple(block.get("U") for block in params)
    return _scan(cell, params, matrices, wx, rows, carry, mask)


def _prepared(
    cell: Cell,
    params: Params,
    xs: Array,
    carry: Carry,
    mask: Array | None,
    dtype: Any,
    lengths: Array | None,
    reset: Array | None,
) -> tuple[Any, Params, Array, Carry, Array | None, Rows]:
    """The arguments of `unroll`, checked and in the types they are computed in, padding cleaned."""
    dtype, params, xs, carry, mask = products.widen(dtype, params, xs, tuple(carry), mask)
    m, n = params[0]["W"].shape[0], params[0]["b"].shape[0] // len(cell.blocks[0])
    if xs.ndim != 3 or xs.shape[2] != m:
        raise ValueError(f"xs must be (time, batch, {m}), not {xs.shape}")
    shape = (xs.shape[1], n)
    if [a.shape for a in carry] != [shape] * cell.num_states:
        shapes = ", ".join(str(a.shape) for a in carry)
        raise ValueError(f"the carry must be {cell.num_states} x {shape}, not {shapes}")
    if mask is not None:
        if mask.shape not in (shape, (1, n)):
            raise ValueError(f"mask must be {shape} or {(1, n)}, not {mask.shape}")
        mask = lax.stop_gradient(mask)
    rows = ragged.select_rows(xs, lengths, reset)
    return dtype, params, ragged.clean(xs, rows.valid), carry, mask, rows


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


def _scan(
    cell: Cell,
    params: Params,
    matrices: tuple[Array | native.Packed, ...],
    wx: tuple[Array | None, ...],
    rows: Rows,
    carry: Carry,
    mask: Array | None,
) -> tuple[Array, Carry]:
    """The recurrence on input terms wx, each (T, B, G n) or None; matrices: each block's U."""

    def body(carry: Carry, step: tuple[Any, Rows]) -> tuple[Carry, Array]:
        wx, now = step
        carry = ragged.restart(now, carry)
        pre = cells.make_pre(cell, params, wx, mask, lambda k, z: native.times(z, matrices[k]))
        carry = ragged.freeze(now, cells.CELLS[cell.kind].transition(pre, carry, cell), carry)
        return carry, carry[0]

    carry, ys = lax.scan(body, carry, (wx, rows))
    return ragged.clean(ys, rows.valid), carry


def _linear(
    cell: Cell, params: Params, wx: tuple[Array, ...], rows: Rows, carry: Carry
) -> tuple[Array, Carry]:
    """The recurrence of a linear cell on input terms wx, each (T, B, G n)."""
    pre = cells.make_pre(cell, params, wx, None, cells.matmul)
    decay, addition = cells.CELLS[cell.kind].terms(*pre(0, carry[0]))
    if rows.reset is not None:
        decay = ragged.select(rows.reset, jnp.zeros_like(decay), decay)
    if rows.valid is not None:
        decay = ragged.select(rows.valid, decay, jnp.ones_like(decay))
    hs = linear.recurrence(decay, ragged.clean(addition, rows.valid), carry[0])
    return ragged.clean(hs, rows.valid), (hs[-1],)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recur(cell, dtype, params, wx, rows, carry, mask):
    matrices = _laid_out(params, dtype, wx)
    return _scan(cell, params, matrices, wx, rows, carry, mask)


def _recur_fwd(cell, dtype, params, wx, rows, carry, mask):
    matrices = _laid_out(params, dtype, wx)

    def body(state, step):
        wx, now = step
        state = ragged.restart(now, state)
        uz: dict[int, Array] = {}
        taken: list[int] = []

        def recorded(k, z):
            taken.append(k)
            uz[k] = native.times(z, matrices[k])
            return uz[k]

        pre = cells.make_pre(cell, params, wx, mask, recorded)
        after = cells.CELLS[cell.kind].transition(pre, state, cell)
        if sorted(taken) != list(range(len(params))):
            raise ValueError(
                f"cell {cell.kind} takes blocks {taken} of {len(params)}: it must take each once"
            )
        after = ragged.freeze(now, after, state)
        return after, (after, tuple(uz[k] for k in range(len(params))))

    last, (states, uzs) = lax.scan(body, carry, (wx, rows))
    ys = ragged.clean(states[0], rows.valid)
    return (ys, last), (params, wx, rows, carry, mask, states, uzs)


def _recur_bwd(cell, dtype, residuals, cotangents):
    params, wx, rows, carry, mask, states, uzs = residuals
    ys_bar, last_bar = cotangents
    blocks = range(len(params))
    transposed = _laid_out(params, dtype, wx, transposed=True)
    before = tuple(jnp.concatenate([c[None], s[:-1]]) for c, s in zip(carry, states, strict=True))

    def body(after_bar, step):
        state, wx, uz, y_bar, now = step

        def replay(state, nudge):
            zs: dict[int, Array] = {}
            scales: dict[int, Array | None] = {}

            def replayed(k, z):
                zs[k] = z
                return _recorded_product(z, uz[k], transposed[k])

            inner = cells.make_pre(cell, params, wx, mask, replayed, nudge)

            def pre(k, z, scale=None):
                scales[k] = scale
                return inner(k, z, scale)

            after = cells.CELLS[cell.kind].transition(pre, state, cell)
            return after, (tuple(zs[k] for k in blocks), tuple(scales[k] for k in blocks))

        # Adding a zero to each pre-activation makes its cotangent a result of the vjp.
        nudge = tuple(jnp.zeros_like(u) for u in uz)
        _, pull, taken = jax.vjp(replay, ragged.restart(now, state), nudge, has_aux=True)
        # A step after the end hands the state on: its cotangent passes by the transition.
        moved_bar = (after_bar[0] + y_bar, *after_bar[1:])
        before_bar, a_bar = pull(
            ragged.freeze(now, moved_bar, jax.tree.map(jnp.zeros_like, after_bar))
        )
        return ragged.restart(now, ragged.freeze(now, before_bar, after_bar)), (a_bar, taken)

    carry_bar, (a_bars, (zs, scales)) = lax.scan(
        body, last_bar, (before, wx, uzs, ys_bar, rows), reverse=True
    )

    params_bar, wx_bar = [], []
    rows_of = zip(blocks, params, wx, uzs, a_bars, zs, scales, strict=True)
    for k, block, wx_k, uz, a_bar, z, scale in rows_of:
        vectors = {name: p for name, p in block.items() if name != "U"}
        meet = partial(cells.integrate, cell, k, scale=scale)
        _, pull = jax.vjp(meet, vectors, wx_k, uz)
        block_bar, wx_k_bar, uz_bar = pull(a_bar)
        params_bar.append(block_bar | {"U": products.outer(z, uz_bar, dtype)})
        wx_bar.append(wx_k_bar)
    return tuple(params_bar), tuple(wx_bar), None, carry_bar, None


_recur.defvjp(_recur_fwd, _recur_bwd)


def _laid_out(
    params: Params, dtype: Any, wx: tuple[Array | None, ...], transposed: bool = False
) -> tuple[Array | native.Packed, ...]:
    """Every block's recurrent matrix, or its transpose, as `native.times` takes it."""
    steps, rows = jax.tree.leaves(wx)[0].shape[:2]
    return tuple(
        native.lay_out(block["U"].astype(dtype), steps, rows, transposed) for block in params
    )


@jax.custom_vjp
def _recorded_product(z: Array, uz: Array, transposed: Array | native.Packed) -> Array:
    """`z @ U` whose value uz is known: only its cotangent costs a product."""
    return uz


_recorded_product.defvjp(
    lambda z, uz, transposed: (uz, transposed),
    lambda transposed, uz_bar: (native.times(uz_bar, transposed), None, None),
)
