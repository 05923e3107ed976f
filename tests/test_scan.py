"""The fast backward pass is the gradient that JAX finds by itself, and costs what it promises."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from test_cells import (
    B,
    M,
    N,
    T,
    close,
    every_kind,
    label,
    random_inputs,
    random_params,
)

from rnnx import cells, linear, parameters, scan
from rnnx.cells import Cell


@every_kind
def test_gradients_equal_autodiff(cell: Cell) -> None:
    """Of each kind: test_cells compares all cells, masked or not, with a reference in float64."""
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    weights = jax.random.normal(jax.random.key(0), (T, B, N))

    def loss(unroll, params, xs, carry):
        ys, last = unroll(cell, params, xs, carry, mask)
        return jnp.sum(ys * weights) + sum(jnp.sum(c**2) for c in last)

    fast, plain = (
        jax.value_and_grad(lambda *a, f=f: loss(f, *a), (0, 1, 2))(params, xs, carry)
        for f in (scan.unroll, scan.unroll_plain)
    )
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        close(ours, np.asarray(theirs), 1e-5)


@pytest.mark.parametrize("taken", [(0, 0), (0,), ()])
def test_a_transition_that_does_not_take_each_block_once_is_refused(taken, monkeypatch) -> None:
    """Its gradient would be wrong, as the backward pass holds one product of each."""

    def wrong(pre, carry, cell):
        (h,) = carry
        for k in taken:
            (a,) = pre(k, h)
            h = jnp.tanh(a)
        return (h,)

    family = cells.CELLS["dtrnn"]._replace(transition=wrong)
    monkeypatch.setitem(cells.CELLS, "dtrnn", family)
    cell = Cell("dtrnn", depth=2)
    params, (xs, carry, _) = random_params(cell), random_inputs(cell)
    with pytest.raises(ValueError, match="it must take each once"):
        jax.grad(lambda p: jnp.sum(scan.unroll(cell, p, xs, carry)[0]))(params)


def test_gradients_equal_finite_differences() -> None:
    """Of one cell: test_cells compares the gradients of all with a reference in float64."""
    cell = Cell("rhn", "mi", depth=3)
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)

    def outputs(params, xs, carry):
        return scan.unroll(cell, params, xs, carry, mask)

    check_grads(outputs, (params, xs, carry), order=1, modes=("rev",), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    "cell",
    [Cell("lstm", "mi"), Cell("gru", "mi", reset_after=True), Cell("rhn", "mi", 3), Cell("mingru")],
    ids=label,
)
def test_second_derivatives_equal_autodiff(cell: Cell) -> None:
    """Hessian times a vector, reverse over reverse."""
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)

    def slope(unroll, params):
        grads = jax.grad(lambda p: jnp.sum(unroll(cell, p, xs, carry, mask)[0] ** 2))(params)
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, direction)))

    fast, plain = (
        jax.grad(lambda p, f=f: slope(f, p))(params) for f in (scan.unroll, scan.unroll_plain)
    )
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        close(ours, np.asarray(theirs), 1e-5)


@pytest.mark.parametrize("cell", [Cell("rhn", "mi", 2), Cell("lstm"), Cell("mingru")], ids=label)
def test_no_time_steps_leave_the_state(cell: Cell) -> None:
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)

    def loss(params, carry):
        ys, last = scan.unroll(cell, params, xs[:0], carry, mask)
        assert ys.shape == (0, *carry[0].shape)
        return sum(jnp.sum(c**2) for c in last)

    of_params, of_carry = jax.grad(loss, (0, 1))(params, carry)
    assert not any(map(jnp.any, jax.tree.leaves(of_params)))
    for slope, c in zip(of_carry, carry, strict=True):
        close(slope, 2 * np.asarray(c), 1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"xs": (5, 4)}, "xs must be (time, batch, 4)"),
        ({"xs": (5, 3, 2)}, "xs must be (time, batch, 4)"),
        ({"carry": ((3, 6),)}, "the carry must be 2 x (3, 6)"),
        ({"carry": ((1, 6), (1, 6))}, "the carry must be 2 x (3, 6)"),
        ({"mask": (6,)}, "mask must be (3, 6) or (1, 6)"),
    ],
)
def test_another_shape_is_refused(change: dict, what: str) -> None:
    cell = Cell("lstm")
    shapes = {"xs": (5, 3, 4), "carry": ((3, 6), (3, 6)), "mask": (3, 6)} | change
    xs, mask = jnp.ones(shapes["xs"]), jnp.ones(shapes["mask"])
    carry = [jnp.ones(shape) for shape in shapes["carry"]]  # a list will do
    params = parameters.init(cell, jax.random.key(0), 4, 6)
    for f in (scan.unroll, scan.unroll_plain):
        with pytest.raises(ValueError, match=re.escape(what)):
            f(cell, params, xs, carry, mask)


def test_the_mask_is_a_constant_to_both_ways() -> None:
    cell = Cell("rnn")
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    for f in (scan.unroll, scan.unroll_plain):
        assert not jax.grad(lambda m, f=f: jnp.sum(f(cell, params, xs, carry, m)[0]))(mask).any()


@pytest.mark.parametrize("way", [linear.step_by_step, linear.in_parallel])
def test_a_linear_recurrence_is_a_loop_over_time(way, monkeypatch) -> None:
    """Values, gradients and their gradients; odd lengths, and decays from 0 to 1."""
    monkeypatch.setattr(linear, "step_by_step", way)  # what the CPU runs

    def looped(decay, addition, h):
        hs = []
        for a, b in zip(decay, addition, strict=True):
            h = a * h + b
            hs.append(h)
        return jnp.stack(hs)

    def slopes(f, *arrays):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(f(*a))), (0, 1, 2))(*arrays)

    def curvatures(f, *arrays):
        def squares(*a):
            return sum(jnp.sum(s**2) for s in slopes(f, *a))

        return jax.grad(squares, (0, 1, 2))(*arrays)

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        for steps in (1, 2, 7):
            decay = rng.choice([0, 1, *rng.random(6)], size=(steps, B, N))
            arrays = decay, rng.standard_normal((steps, B, N)), rng.standard_normal((B, N))
            arrays = jax.tree.map(jnp.asarray, arrays)
            ours, theirs = (
                (f(*arrays), slopes(f, *arrays), curvatures(f, *arrays))
                for f in (linear.recurrence, looped)
            )
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
                close(a, np.asarray(b), 1e-13)


@pytest.mark.parametrize("platform, loops", [("cpu", True), ("cuda", False), ("tpu", False)])
def test_a_linear_cell_has_no_loop_over_time_on_accelerators(platform: str, loops: bool) -> None:
    cell = Cell("mingru")
    params, (xs, carry, _) = random_params(cell), random_inputs(cell)
    update = jax.jit(jax.grad(lambda p: jnp.sum(scan.unroll(cell, p, xs, carry)[0])))
    program = update.trace(params).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in program) == loops


@pytest.mark.parametrize(
    "cell, remat",
    [(Cell("rhn", "mi", depth=3), remat) for remat in (1, 2, T - 1, T)]
    + [(Cell("lstm"), T - 1), (Cell("gru", "mi"), 2), (Cell("slstm"), 3), (Cell("mingru"), 3)],
)
def test_recomputing_changes_nothing(cell: Cell, remat: int) -> None:
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)

    def loss(params, xs, carry, remat):
        ys, last = scan.unroll(cell, params, xs, carry, mask, remat=remat)
        return jnp.sum(ys**2) + sum(jnp.sum(c**2) for c in last), ys

    recorded, recomputed = (
        jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, xs, carry, k) for k in (0, remat)
    )
    for a, b in zip(jax.tree.leaves(recorded), jax.tree.leaves(recomputed), strict=True):
        close(b, np.asarray(a), 1e-6)


def test_recomputing_saves_memory() -> None:
    """The intermediate arrays of a long window, recomputed by segments of sqrt(T) steps."""
    cell, steps, n = Cell("rhn", depth=16), 400, 32
    params = parameters.init(cell, jax.random.key(0), M, n)
    xs, carry = jnp.ones((steps, 8, M)), cells.zero_carry(cell, 8, n)

    def bytes_used(remat: int) -> int:
        grad = jax.grad(lambda p: jnp.sum(scan.unroll(cell, p, xs, carry, remat=remat)[0]))
        return jax.jit(grad).lower(params).compile().memory_analysis().temp_size_in_bytes

    recorded = 4 * steps * 16 * 8 * 2 * n  # float32 of U z alone
    assert bytes_used(0) > recorded
    assert bytes_used(20) < recorded / 3


@pytest.mark.parametrize(
    "cell", [Cell("lstm", "mi"), Cell("rhn", "mi", depth=3), Cell("mingru")], ids=label
)
def test_gradients_survive_jit_and_vmap(cell: Cell) -> None:
    xs, carry, _ = random_inputs(cell)

    def loss(params):
        return jnp.sum(scan.unroll(cell, params, xs, carry)[0] ** 2)

    several = [random_params(cell, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *several)
    at_once = jax.jit(jax.vmap(jax.grad(loss)))(stacked)
    for i, params in enumerate(several):
        one = jax.grad(loss)(params)
        for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(one), strict=True):
            close(a[i], np.asarray(b), 1e-5)


@every_kind
def test_no_output_sees_a_later_input(cell: Cell) -> None:
    params, (xs, carry, _) = random_params(cell), random_inputs(cell)
    run = jax.jit(lambda xs: scan.unroll(cell, params, xs, carry)[0])
    before, after = run(xs), run(xs.at[2].add(1.0))
    assert jnp.array_equal(before[:2], after[:2])
    assert not jnp.array_equal(before[2], after[2])


def equations(jaxpr, in_scan: bool = False):
    """All equations of a jaxpr and whether they stand inside a scan."""
    for equation in jaxpr.eqns:
        yield equation, in_scan
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, in_scan or equation.primitive.name == "scan")


def test_weight_gradients_are_formed_behind_the_time_loop() -> None:
    """No product of the backward loop has a whole weight matrix as its result."""
    cell = Cell("rhn", depth=2)
    params = parameters.init(cell, jax.random.key(0), M, 32)
    xs, carry = jnp.ones((T, B, M)), cells.zero_carry(cell, B, 32)

    def outer_products(unroll) -> tuple[int, int]:
        """Products with a recurrent matrix's shape as result: inside of scans, outside."""
        grad = jax.grad(lambda p: jnp.sum(unroll(cell, p, xs, carry)[0]))
        inside = [
            in_scan
            for equation, in_scan in equations(jax.make_jaxpr(grad)(params).jaxpr)
            if equation.primitive.name == "dot_general"
            and equation.outvars[0].aval.shape in ((32, 64), (64, 32))
        ]
        return sum(inside), len(inside) - sum(inside)

    assert outer_products(scan.unroll) == (0, 2)
    assert outer_products(scan.unroll_plain) == (2, 0)  # or the search would find nothing


def test_bfloat16_rounds_products_only() -> None:
    cell = Cell("lstm", "mi")
    params, (xs, carry, _) = random_params(cell), random_inputs(cell)
    exact, _ = scan.unroll(cell, params, xs, carry)
    rounded, last = scan.unroll(cell, params, xs, carry, dtype=jnp.bfloat16)
    assert rounded.dtype == last[0].dtype == jnp.float32
    assert 1e-5 < float(jnp.abs(exact - rounded).max()) < 0.1
    grads = jax.grad(lambda p: jnp.sum(scan.unroll(cell, p, xs, carry, dtype=jnp.bfloat16)[0]))(
        params
    )
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))
    for name in ("U", "W"):  # sums of rounded products, themselves not rounded
        assert not jnp.array_equal(grads[0][name], grads[0][name].astype(jnp.bfloat16))
