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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cells, linear, native
from rnnx.cells import Carry, Cell, Params


class Rows(NamedTuple):
    """Which rows of the batch each step concerns; None where nothing has to be selected."""

    valid: Array | None = None  # (T, B): the row's sequence has not ended
    reset: Array | None = None  # (T, B): the row's state is set to zero before the step


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
      mask: (B, n), the variational dropout mask of the state, the same at every step and block;
        treated as a constant: no gradient reaches it. It acts inside the products, so a linear
        cell ignores it.
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
      ValueError: when lengths or reset have another shape or type.
    """
    dtype, params, xs, carry, mask = widen(dtype, params, xs, carry, mask)
    rows = select_rows(xs, lengths, reset)
    xs = clean(xs, rows.valid)
    wx = tuple(product(xs, block["W"], dtype) if "W" in block else None for block in params)
    if mask is not None:
        mask = lax.stop_gradient(mask)
    without_input = tuple({k: p for k, p in block.items() if k != "W"} for block in params)

    def run(steps: tuple[Any, Rows], carry: Carry) -> tuple[Carry, Array]:
        if cells.CELLS[cell.kind].linear:
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
    dtype, params, xs, carry, mask = widen(dtype, params, xs, carry, mask)
    rows = select_rows(xs, lengths, reset)
    params = cast_matrices(params, dtype)
    wx = cells.project(params, clean(xs, rows.valid))
    matrices = tuple(block.get("U") for block in params)
    return _scan(cell, params, matrices, wx, rows, carry, mask)


def widen(dtype: Any, *trees: Any) -> tuple[Any, ...]:
    """The operands' type of products, and the trees: in float64 if anything is, else in float32.

    The type is dtype; only where that is float32, the default, it is as wide as the trees.
    """
    dtype = jnp.dtype(dtype)
    wide = jnp.result_type(jnp.float32, dtype, *jax.tree.leaves(trees))
    trees = jax.tree.map(lambda a: jnp.asarray(a, wide), trees)
    return wide if dtype == jnp.float32 else dtype, *trees


def select_rows(xs: Array, lengths: Array | None, reset: Array | None) -> Rows:
    """The rows that each step of xs (T, B, ...) concerns.

    Raises:
      ValueError: when lengths are not (B,) integers, or reset is not (T, B) booleans.
    """
    valid, shape = None, xs.shape[:2]
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        if lengths.shape != shape[1:] or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(
                f"lengths must be integers {shape[1:]}, not {lengths.dtype} {lengths.shape}"
            )
        valid = jnp.arange(shape[0])[:, None] < lengths
    if reset is not None:
        reset = jnp.asarray(reset)
        if reset.shape != shape or reset.dtype != jnp.bool:
            raise ValueError(f"reset must be booleans {shape}, not {reset.dtype} {reset.shape}")
        reset = reset if valid is None else reset & valid
    return Rows(valid, reset)


def clean(xs: Array, valid: Array | None) -> Array:
    """xs (T, B, ...) with zeros where it isn't valid (T, B): a NaN in padding reaches nothing."""
    return xs if valid is None else _select(valid, xs, jnp.zeros_like(xs))


@jax.custom_vjp
def flip(xs: Array, lengths: Array | None = None) -> Array:
    """xs (T, B, ...) with each row's first `lengths` (B,) steps, or all, in reverse order.

    Padding stays where it is, so that flipping twice changes nothing.
    """
    if lengths is None:
        return jnp.flip(xs, 0)
    t = jnp.arange(xs.shape[0])[:, None]
    lengths = jnp.minimum(lengths, xs.shape[0])
    index = jnp.where(t < lengths, lengths - 1 - t, t)
    return jnp.take_along_axis(xs, index.reshape(*index.shape, *[1] * (xs.ndim - 2)), axis=0)


# Its own transpose: the gradient is a gather too, where JAX would form a scatter.
flip.defvjp(
    lambda xs, lengths: (flip(xs, lengths), lengths),
    lambda lengths, bar: (flip(bar, lengths), None),
)


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
    of the whole update's cost. Here it is x^T times the cotangent as it lies, a float32 sum
    (float64 if either is).
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
        carry = _restart(now, carry)
        pre = cells.make_pre(cell, params, wx, mask, lambda k, z: native.times(z, matrices[k]))
        carry = _freeze(now, cells.CELLS[cell.kind].transition(pre, carry, cell), carry)
        return carry, carry[0]

    carry, ys = lax.scan(body, carry, (wx, rows))
    return clean(ys, rows.valid), carry


def _linear(
    cell: Cell, params: Params, wx: tuple[Array, ...], rows: Rows, carry: Carry
) -> tuple[Array, Carry]:
    """The recurrence of a linear cell on input terms wx, each (T, B, G n)."""
    pre = cells.make_pre(cell, params, wx, None, cells.matmul)
    decay, addition = cells.CELLS[cell.kind].linear(*pre(0, carry[0]))
    if rows.reset is not None:
        decay = _select(rows.reset, jnp.zeros_like(decay), decay)
    if rows.valid is not None:
        decay = _select(rows.valid, decay, jnp.ones_like(decay))
    hs = linear.recurrence(decay, clean(addition, rows.valid), carry[0])
    return clean(hs, rows.valid), (hs[-1],)


def _select(rows: Array, a: Array, b: Array) -> Array:
    """a where the rows are true, b elsewhere; rows has the leading axes of both."""
    return jnp.where(rows.reshape(*rows.shape, *[1] * (a.ndim - rows.ndim)), a, b)


def _restart(now: Rows, state: Carry) -> Carry:
    """The state before a step: zero in the rows that are reset."""
    if now.reset is None:
        return state
    return tuple(_select(now.reset, jnp.zeros_like(s), s) for s in state)


def _freeze(now: Rows, after: Carry, before: Carry) -> Carry:
    """The state after a step: the one before in rows that have ended."""
    if now.valid is None:
        return after
    return tuple(_select(now.valid, a, b) for a, b in zip(after, before, strict=True))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recur(cell, dtype, params, wx, rows, carry, mask):
    matrices = _laid_out(params, dtype, wx)
    return _scan(cell, params, matrices, wx, rows, carry, mask)


def _recur_fwd(cell, dtype, params, wx, rows, carry, mask):
    matrices = _laid_out(params, dtype, wx)

    def body(state, step):
        wx, now = step
        state = _restart(now, state)
        products: dict[int, Array] = {}
        taken: list[int] = []

        def recorded(k, z):
            taken.append(k)
            products[k] = native.times(z, matrices[k])
            return products[k]

        pre = cells.make_pre(cell, params, wx, mask, recorded)
        after = cells.CELLS[cell.kind].transition(pre, state, cell)
        if sorted(taken) != list(range(len(params))):
            raise ValueError(
                f"cell {cell.kind} takes blocks {taken} of {len(params)}: it must take each once"
            )
        after = _freeze(now, after, state)
        return after, (after, tuple(products[k] for k in range(len(params))))

    last, (states, uzs) = lax.scan(body, carry, (wx, rows))
    ys = clean(states[0], rows.valid)
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
        _, pull, taken = jax.vjp(replay, _restart(now, state), nudge, has_aux=True)
        # A step after the end hands the state on: its cotangent passes by the transition.
        moved_bar = (after_bar[0] + y_bar, *after_bar[1:])
        before_bar, a_bar = pull(_freeze(now, moved_bar, jax.tree.map(jnp.zeros_like, after_bar)))
        return _restart(now, _freeze(now, before_bar, after_bar)), (a_bar, taken)

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
        params_bar.append(block_bar | {"U": _outer(z, uz_bar, dtype)})
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


def _outer(z: Array, uz_bar: Array, dtype: Any) -> Array:
    """Sum over time and batch of the outer products: (T, B, n), (T, B, G n) to (n, G n)."""
    wide = jnp.result_type(z, uz_bar, jnp.float32)
    z, uz_bar = (a.reshape(-1, a.shape[-1]).astype(dtype) for a in (z, uz_bar))
    if wide == jnp.float32 and dtype == jnp.bfloat16 and native.bfloat16():
        return native.outer(z, uz_bar)
    return jnp.matmul(z.T, uz_bar, preferred_element_type=wide)
