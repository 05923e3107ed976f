"""Sequences that end within a batch, states reset within a window, and float64.

One float64 program a cell has it all; what it must equal is the NumPy reference, a sequence at a
time.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import nnx
from test_cells import (
    EVERY_KIND,
    B,
    M,
    N,
    T,
    label,
    random_inputs,
    random_params,
    run_reference,
    to_reference,
)

import rnnx
from rnnx import heads, linear, scan
from rnnx.cells import Cell

LENGTHS = np.array([2, T, 0])
ENDLESS = np.full(B, T)
NEVER = np.zeros((T, B), bool)
RESET = NEVER.copy()
RESET[[0, 2, 3], [2, 1, 0]] = True  # row 0 at its second step that is not its own
STATES = "hcnm"  # names of a carry's arrays
CELLS = [*EVERY_KIND, Cell("gru", "mi_simple"), Cell("lstm")]
every_cell = pytest.mark.parametrize("cell", CELLS, ids=label)


def valid(lengths: np.ndarray) -> np.ndarray:
    return np.arange(T)[:, None] < lengths


def nan_padding(a: Any, lengths: np.ndarray) -> Any:
    return jnp.where(valid(lengths)[..., None], a, jnp.nan)


def case(cell: Cell) -> tuple[Any, ...]:
    """Parameters, inputs, state, mask, and cotangents of outputs and last state, in float64."""
    rng = np.random.default_rng(3)
    bars = (
        rng.standard_normal((T, B, N)),
        tuple(rng.standard_normal((B, N)) for _ in range(cell.num_states)),
    )
    arrays = random_params(cell), *random_inputs(cell), bars
    return jax.tree.map(lambda a: np.asarray(a, np.float64), arrays)


@partial(jax.jit, static_argnums=(0, 1), static_argnames=("remat", "dtype"))
def run(unroll, cell, params, xs, carry, mask, bars, lengths, reset, **options) -> Any:
    """Outputs, last carry, and the gradients of params, xs and carry for the cotangents `bars`."""
    (ys, last), pull = jax.vjp(
        lambda *a: unroll(cell, *a, mask, lengths=lengths, reset=reset, **options),
        params, xs, carry,
    )  # fmt: skip
    return ys, last, pull(bars)


def one_row(cell: Cell, arrays: dict, mask: np.ndarray, length: int, resets: np.ndarray) -> Any:
    """The reference on a row of its own, in as many runs as it has resets."""
    params = {name: a for name, a in arrays.items() if name not in ("xs", *STATES)}
    state = tuple(arrays[name] for name in STATES[: cell.num_states])
    starts = [0, *(t for t in range(length) if resets[t]), length]
    ys = []
    for start, stop in itertools.pairwise(starts):
        state = tuple(0 * s for s in state) if start < length and resets[start] else state
        if start < stop:
            y, state = run_reference(cell, params, arrays["xs"][start:stop], state, mask)
            ys.append(y)
    return np.concatenate([*ys, np.zeros((T - length, 1, N))]), state


def by_rows(cell: Cell, params, xs, carry, mask, bars, lengths, resets) -> Any:
    """What `run` gives, each row by the reference alone."""
    named = to_reference(cell, params)
    ys, last, gradients = [], [], []
    for b in range(B):
        row = slice(b, b + 1)
        arrays = {"xs": xs[:, row]} | {n: c[row] for n, c in zip(STATES, carry, strict=False)}
        end = partial(one_row, cell, mask=mask[row], length=lengths[b], resets=resets[:, b])

        def weighed(arrays, end=end, row=row):
            y, state = end(arrays)
            sums = (np.sum(s * bar[row]) for s, bar in zip(state, bars[1], strict=True))
            return np.sum(y * bars[0][:, row]) + sum(sums)

        y, state = end(named | arrays)
        ys.append(y)
        last.append(state)
        gradients.append(reference.gradient(weighed, named | arrays))
    carries_bar = [tuple(g[n] for n in STATES[: cell.num_states]) for g in gradients]
    return (
        np.concatenate(ys, axis=1),
        jax.tree.map(lambda *a: np.concatenate(a), *last),
        (
            {name: sum(g[name] for g in gradients) for name in named},
            np.concatenate([g["xs"] for g in gradients], axis=1),
            jax.tree.map(lambda *a: np.concatenate(a), *carries_bar),
        ),
    )


def equal(ours: Any, theirs: Any, tolerance: float) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@every_cell
def test_rows_that_end_or_start_anew_equal_each_alone_in_float64(cell: Cell) -> None:
    """Values and gradients, with a dropout mask; padding, and what comes back for it, is NaN."""
    with jax.enable_x64(True):
        params, xs, carry, mask, bars = case(cell)
        for lengths, resets in ((LENGTHS, NEVER), (ENDLESS, RESET), (LENGTHS, RESET)):
            padded = nan_padding(xs, lengths), nan_padding(bars[0], lengths)
            ys, last, (params_bar, *rest) = run(
                scan.unroll, cell, params, padded[0], carry, mask, (padded[1], bars[1]),
                lengths, resets,
            )  # fmt: skip
            assert {a.dtype for a in jax.tree.leaves((ys, last, params_bar, rest))} == {ys.dtype}
            assert not np.any(ys[~valid(lengths)]) and not np.any(rest[0][~valid(lengths)])
            theirs = by_rows(cell, params, xs, carry, mask, bars, lengths, resets)
            ours = ys, last, (to_reference(cell, params_bar), *rest)
            equal(ours, theirs, 1e-12)


@pytest.mark.parametrize(
    "cell", [Cell("rhn", "mi", depth=2), Cell("lstm"), Cell("slstm"), Cell("mingru")], ids=label
)
def test_segments_and_plain_autodiff_end_and_start_rows_alike(cell: Cell) -> None:
    with jax.enable_x64(True):
        params, xs, carry, mask, bars = case(cell)
        xs, bars = nan_padding(xs, LENGTHS), (nan_padding(bars[0], LENGTHS), bars[1])
        arrays = params, xs, carry, mask, bars, LENGTHS, RESET
        fast = run(scan.unroll, cell, *arrays)
        equal(run(scan.unroll, cell, *arrays, remat=3), fast, 1e-12)
        equal(run(scan.unroll_plain, cell, *arrays), fast, 1e-12)


def test_a_linear_cell_in_parallel_over_time_ends_and_starts_rows_alike(monkeypatch) -> None:
    """As accelerators run it, against single steps differentiated by JAX."""
    cell = Cell("mingru")
    with jax.enable_x64(True):
        params, xs, carry, mask, bars = case(cell)
        for lengths, resets in ((LENGTHS, RESET), (ENDLESS, RESET), (LENGTHS, NEVER)):
            padded = nan_padding(xs, lengths), nan_padding(bars[0], lengths)
            arrays = params, padded[0], carry, mask, (padded[1], bars[1]), lengths, resets
            stepped = run(scan.unroll_plain, cell, *arrays)
            monkeypatch.setattr(linear, "step_by_step", linear.in_parallel)
            for remat in (0, 3):  # a function of its own: `run` is compiled anew
                at_once = run(lambda *a, **o: scan.unroll(*a, **o), cell, *arrays, remat=remat)
                equal(at_once, stepped, 1e-12)


def test_bfloat16_operands_and_float32_sums() -> None:
    cell = Cell("rnn", "mi")
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    bars = jnp.ones((T, B, N)), (jnp.ones((B, N)),)
    whole = run(
        scan.unroll, cell, params, nan_padding(xs, LENGTHS), carry, mask, bars, LENGTHS, NEVER,
        dtype="bfloat16",
    )  # fmt: skip
    alone = run(
        scan.unroll, cell, params, xs[:2, :1], (carry[0][:1],), mask[:1],
        (bars[0][:2, :1], (bars[1][0][:1],)), None, None, dtype="bfloat16",
    )  # fmt: skip
    equal([whole[0][:2, :1], whole[1][0][:1], whole[2][1][:2, :1]],
          [alone[0], alone[1][0], alone[2][1]], 1e-6)  # fmt: skip
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(whole))


XS = jax.random.normal(jax.random.key(0), (B, T, M))  # batch first, as layers take it


MIRNN = Cell("rnn", "mi")


def stack_of(cell: Cell = MIRNN, **options: Any) -> rnnx.Stack:
    return rnnx.Stack(cell, M, N, num_layers=2, init_scale=0.5, rngs=nnx.Rngs(0), **options)


@every_cell
def test_a_reset_ends_a_state_that_is_not_finite(cell: Cell) -> None:
    """NaN before it changes neither the outputs after it nor their gradients."""
    params, xs, carry, mask, (ys_bar, _) = jax.tree.map(np.float32, case(cell))
    reset = np.zeros((T, B), bool)
    reset[1] = True
    spoiled = jnp.concatenate([jnp.full_like(xs[:1], jnp.nan), xs[1:]])
    lost = tuple(jnp.full_like(c, jnp.nan) for c in carry)

    @jax.jit
    def after(xs, carry):
        def loss(tail):
            ys, last = scan.unroll(
                cell, params, jnp.concatenate([xs[:1], tail]), carry, mask, reset=reset
            )
            return jnp.sum(ys[1:] * ys_bar[1:]), (ys[1:], last)

        return jax.grad(loss, has_aux=True)(xs[1:])

    for theirs, ours in zip(
        *map(jax.tree.leaves, (after(xs, carry), after(spoiled, lost))), strict=True
    ):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", [linear.step_by_step, linear.in_parallel])
def test_a_decay_of_zero_ends_what_was_before(form: Any) -> None:
    decay, addition, h = np.full((6, 1, 1), 0.5), np.ones((6, 1, 1)), np.full((1, 1), np.nan)
    decay[3], addition[1] = 0, np.inf
    np.testing.assert_allclose(form(decay, addition, h)[3:, 0, 0], [1, 1.5, 1.75])


def test_a_layer_takes_lengths_and_reset_in_the_layout_of_its_inputs() -> None:
    layer = rnnx.MIGRU(M, N, rngs=nnx.Rngs(0))
    padded = nan_padding(XS.swapaxes(0, 1), LENGTHS)
    ys, (last,) = layer(padded.swapaxes(0, 1), lengths=LENGTHS, reset=RESET.T)
    equal(
        layer(padded, lengths=LENGTHS, reset=RESET, time_major=True),
        (ys.swapaxes(0, 1), (last,)),
        0,
    )
    equal(ys[0, :2], layer(XS[:1, :2])[0][0], 1e-6)
    assert not ys[0, 2:].any() and not ys[2].any() and not last[2].any()
    equal(ys[1, 2:], layer(XS[1:2, 2:])[0][0], 1e-6)


def test_a_stack_s_padding_reaches_neither_outputs_nor_gradients() -> None:
    stack = stack_of()
    drop = tuple(jnp.full((B, width), 1.25) for width in stack.input_widths)

    @jax.jit
    def run(xs, drop, lengths):
        def loss(xs, drop):
            ys, carries = stack(xs, input_masks=drop, lengths=lengths, reset=RESET.T)
            return jnp.sum(ys**2) + carries[1][0].sum(), (ys, carries)

        return jax.grad(loss, (0, 1), has_aux=True)(xs, drop)

    padded = nan_padding(XS.swapaxes(0, 1), LENGTHS).swapaxes(0, 1)
    equal(run(padded, drop, LENGTHS), run(XS, drop, LENGTHS), 0)
    assert np.all(np.isfinite(jax.tree.leaves(run(padded, drop, LENGTHS))[0]))


@pytest.mark.parametrize("kind", ["uint8", "int8", "int64", "list"])
def test_lengths_of_any_integer_type_are_the_same(kind: str) -> None:
    """As uint8, 256 time steps would be none."""
    steps, lengths = 256, [100, 3]
    given = lengths if kind == "list" else np.array(lengths, kind)
    xs = jax.random.normal(jax.random.key(1), (steps, 2, M))
    stack = stack_of(bidirectional=True)
    equal(stack(xs, lengths=given, time_major=True), stack(xs, lengths=lengths, time_major=True), 0)
    for f in (heads.last, heads.mean, lambda a, n: heads.last(a, n, bidirectional=True)):
        equal(f(xs, given), f(xs, np.array(lengths, np.int32)), 0)
    equal(heads.last(xs, given)[0], xs[99, 0], 0)
    equal(heads.mean(xs, given)[1], xs[:3, 1].mean(0), 1e-6)


@pytest.mark.parametrize(
    "cell",
    [MIRNN, *(pytest.param(c, marks=pytest.mark.long) for c in EVERY_KIND if c != MIRNN)],
    ids=label,
)
def test_a_bidirectional_stack_reads_each_sequence_in_both_directions(cell: Cell) -> None:
    """Against its layers run on each sequence alone, and on its reverse, in float64."""
    with jax.enable_x64(True):
        stack = stack_of(cell, bidirectional=True)
        assert (stack.in_features, stack.out_features, stack.input_widths) == (M, 2 * N, (M, 2 * N))
        rng = np.random.default_rng(0)
        carries = jax.tree.map(lambda a: rng.normal(size=a.shape), stack.zero_carry(B))
        drop_in = tuple(rng.random((B, width)) * 2 for width in stack.input_widths)
        drop_state = tuple((rng.random((B, N)) * 2, rng.random((B, N)) * 2) for _ in range(2))
        graphdef, variables = nnx.split(stack)
        variables = jax.tree.map(np.float64, variables)

        def batch(variables, xs, carries):
            return nnx.merge(graphdef, variables)(
                xs,
                carries,
                input_masks=drop_in,
                state_masks=drop_state,
                lengths=LENGTHS,
                remat=3,
            )

        def each_alone(variables, xs, carries):
            stack, ys, ends = nnx.merge(graphdef, variables), [], []
            for b, length in enumerate(LENGTHS):
                end = jax.tree.map(lambda c, b=b: c[b : b + 1], carries)
                y = xs[b : b + 1, :length]
                if length:
                    end, y = alone(stack, y, end, b)
                else:
                    y = jnp.zeros((1, 0, 2 * N))
                ys.append(jnp.concatenate([y, jnp.zeros((1, T - length, 2 * N))], axis=1))
                ends.append(end)
            return jnp.concatenate(ys), jax.tree.map(lambda *c: jnp.concatenate(c), *ends)

        def alone(stack, y, carries, b):
            end = []
            for i in range(2):
                y, pair, outs = y * drop_in[i][b], [], []
                for side, layer, way in ((0, stack.layers[i], 1), (1, stack.backward[i], -1)):
                    mask = drop_state[i][side][b : b + 1]
                    out, last = layer(y[:, ::way], carries[i][side], mask=mask)
                    outs.append(out[:, ::way])
                    pair.append(last)
                end.append(tuple(pair))
                y = jnp.concatenate(outs, axis=-1)
            return tuple(end), y

        @partial(jax.jit, static_argnums=0)
        def run(f, xs, bars):
            out, pull = jax.vjp(f, variables, xs, carries)
            return out, pull(bars)

        xs, padding = np.float64(XS), ~valid(LENGTHS).T
        shapes = jax.eval_shape(batch, variables, xs, carries)
        bars = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes)
        nan_xs, nan_bar = (np.where(padding[..., None], np.nan, a) for a in (xs, bars[0]))
        equal(run(batch, nan_xs, (nan_bar, bars[1])), run(each_alone, xs, bars), 1e-11)


def test_a_bidirectional_stack_without_lengths_reads_all() -> None:
    stack = stack_of(bidirectional=True)
    ys, carries = stack(XS)
    equal(stack(XS, lengths=np.full(B, T + 1)), (ys, carries), 1e-6)  # one too long is T
    equal(stack.backward[0](XS[:, ::-1])[1], carries[0][1], 1e-6)
    with pytest.raises(ValueError, match="reset is for stacks that read forward only"):
        stack(XS, reset=RESET.T)


def test_names_and_draws_of_a_stack_that_reads_forward_stay() -> None:
    """Old checkpoints load, and a seed gives the same network."""
    names = [
        {".".join(map(str, path)): p[...] for path, p in nnx.to_flat_state(nnx.state(stack))}
        for stack in (stack_of(), stack_of(bidirectional=True))
    ]
    layer = rnnx.MIRNN(M, N, init_scale=0.5, rngs=nnx.Rngs(0))
    assert np.array_equal(names[0]["layers.0.blocks.0.U"], layer.params[0]["U"])
    assert np.array_equal(names[1]["layers.0.blocks.0.U"], layer.params[0]["U"])
    assert {n.split(".")[0] for n in names[0]} == {"layers"}
    assert names[0].keys() < names[1].keys()
    assert names[1]["backward.1.blocks.0.W"].shape == (2 * N, N)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"lengths": np.ones(B + 1, int)}, "lengths must be integers"),
        ({"lengths": np.ones(B)}, "lengths must be integers"),
        ({"reset": RESET}, "reset must be booleans"),
        ({"reset": np.int32(RESET.T)}, "reset must be booleans"),
    ],
)
def test_lengths_and_resets_of_another_shape_are_refused(wrong: dict, message: str) -> None:
    for module in (rnnx.RNN(M, N, rngs=nnx.Rngs(0)), stack_of()):
        with pytest.raises(ValueError, match=message):
            module(XS, **wrong)
