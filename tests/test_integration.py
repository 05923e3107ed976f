"""Layer normalization, a bound on U z, MI in some gates, the input at every depth: values and
gradients against plain float64 NumPy, one gate at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import sigmoid
from test_cells import B, M, N, T, close, in_float64, random_inputs, random_params

from rnnx import cells, parameters, scan
from rnnx.cells import Cell

CELLS = [
    Cell("rnn", "mi", norm="layer"),
    Cell("rnn", "additive", norm="tanh"),
    Cell("lstm", "additive", norm="layer"),
    Cell("lstm", "mi_simple", norm="tanh", mi_gates="iz"),
    Cell("lstm", "mi", norm="layer", mi_gates="fo"),
    Cell("gru", "mi", norm="layer", reset_after=True),
    Cell("gru", "mi", norm="layer", mi_gates="g"),
    Cell("rhn", "mi", 3, mi_gates="h"),
    Cell("rhn", "mi", 2, mi_gates="t", input_every=True),
    Cell("rhn", "mi_simple", 2, mi_gates="c", coupled=False, norm="tanh"),
    Cell("rhn", "additive", 3, norm="layer"),
    Cell("rhn", "mi", 3, input_every=True, norm="layer"),
    Cell("dtrnn", "mi_simple", 2, input_every=True),
    Cell("dtsrnn", "additive", 2, input_every=True, norm="layer"),
    Cell("mingru", norm="layer"),
]


def label(cell: Cell) -> str:
    parts = [cell.kind, cell.integration, cell.norm, cell.mi_gates]
    return "-".join([*filter(None, parts), *(["every"] if cell.input_every else [])])


each = pytest.mark.parametrize("cell", CELLS, ids=label)


def layer_norm(a: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Ba et al. 2016, eq. 4: by the mean and deviation over the last axis."""
    mean = np.sum(a, axis=-1, keepdims=True) / a.shape[-1]
    variance = np.sum((a - mean) ** 2, axis=-1, keepdims=True) / a.shape[-1]
    return gain * (a - mean) / np.sqrt(variance + 1e-5)


def pre_activations(cell: Cell, k: int, block: dict, x: Any, s: Any, scale: Any = 1.0) -> list:
    """Those of block k's gates, from our block in float64 or complex."""
    gates = cell.blocks[k]
    wx = x @ block["W"] if "W" in block else None
    us = s @ block["U"] if "U" in block else None
    if cell.norm == "layer":
        wx = None if wx is None else layer_norm(wx, block["gain_x"])
        us = None if us is None else layer_norm(us, block["gain_z"])
    if cell.norm == "tanh":
        us = np.tanh(us)
    found = []
    with_mi = [g for g in gates if g in (cell.mi_gates or gates)]
    for i, gate in enumerate(gates):
        at = slice(i * N, (i + 1) * N)
        b = block["b"][at]
        if wx is None or us is None:
            found.append((scale * us[:, at] if wx is None else wx[:, at]) + b)
            continue
        kind = cell.integration if gate in with_mi else "additive"
        vectors: list = [None, None, None]
        if kind == "mi":
            own = slice(with_mi.index(gate) * N, (with_mi.index(gate) + 1) * N)
            vectors = [block[name][own] for name in ("alpha", "beta1", "beta2")]
        found.append(reference.integrate(kind, wx[:, at], scale * us[:, at], b, *vectors))
    return found


def run_plain(cell: Cell, params: tuple[dict, ...], xs: Any, carry: tuple) -> tuple[Any, tuple]:
    """The equations of the papers, a step at a time."""
    ys = []
    for x in xs:
        s, *rest = carry

        def pre(k: int, z: Any, scale: Any = 1.0, x: Any = x) -> list:
            return pre_activations(cell, k, params[k], x, z, scale)

        if cell.kind == "rnn":
            carry = (np.tanh(pre(0, s)[0]),)
        elif cell.kind == "lstm":
            i, f, o, z = pre(0, s)
            c = sigmoid(f) * rest[0] + sigmoid(i) * np.tanh(z)
            carry = (sigmoid(o) * np.tanh(c), c)
        elif cell.kind == "gru":
            r, u = (sigmoid(a) for a in pre(0, s))
            (g,) = pre(1, s, r) if cell.reset_after else pre(1, r * s)
            carry = (u * s + (1 - u) * np.tanh(g),)
        elif cell.kind == "mingru":
            z, g = pre(0, s)
            carry = ((1 - sigmoid(z)) * s + sigmoid(z) * g,)
        else:
            for l in range(cell.depth):
                a, *gates = pre(l, s)
                if cell.kind == "rhn":
                    t = sigmoid(gates[0])
                    s = np.tanh(a) * t + s * (1 - t if cell.coupled else sigmoid(gates[1]))
                else:
                    s = np.tanh(a) + (s if cell.kind == "dtsrnn" and l else 0)
            carry = (s,)
        ys.append(carry[0])
    return np.stack(ys), carry


@each
def test_values_and_gradients_equal_plain_numpy(cell: Cell) -> None:
    params, (xs, carry, _) = random_params(cell), random_inputs(cell)
    weights = np.random.default_rng(2).standard_normal((T, B, N))

    def loss(params):
        ys, last = scan.unroll(cell, params, xs, carry)
        return jnp.sum(ys * weights) + sum(jnp.sum(c**2) for c in last)

    def named(params) -> dict[str, np.ndarray]:
        return {
            f"{k}.{name}": in_float64(p)
            for k, block in enumerate(params)
            for name, p in block.items()
        }

    def loss_plain(flat: dict):
        blocks: list[dict] = [{} for _ in params]
        for name, p in flat.items():
            k, _, own = name.partition(".")
            blocks[int(k)][own] = p
        ys, last = run_plain(cell, tuple(blocks), np.float64(xs), tuple(map(np.float64, carry)))
        return np.sum(ys * weights) + sum(np.sum(c**2) for c in last)

    value, grads = jax.value_and_grad(loss)(params)
    close(value, np.asarray(loss_plain(named(params))))
    theirs = reference.gradient(loss_plain, named(params))
    for name, ours in named(grads).items():
        assert np.abs(theirs[name]).max() > 1e-5, f"the gradient of {name} vanishes"
        close(ours, theirs[name], 5e-5)


@pytest.mark.parametrize("cell", [CELLS[4], CELLS[5], CELLS[11]], ids=label)
def test_one_step_equals_the_scan_and_the_fast_gradient_autodiff(cell: Cell) -> None:
    """In float64: normalization magnifies what float32 rounds."""
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda a: a.astype(jnp.float64), (random_params(cell), *random_inputs(cell))
        )
        params, xs, carry, mask = wide
        ys, _ = scan.unroll(cell, params, xs, carry, mask)
        step = cells.step(cell, params, carry, cells.project(params, xs[0]), mask)
        close(ys[0], np.asarray(step[0]), 1e-12)
        fast, plain = (
            jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(cell, *a, mask)[0])), (0, 1, 2))(
                params, xs, carry
            )
            for f in (scan.unroll, scan.unroll_plain)
        )
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        close(ours, np.asarray(theirs), 1e-10)


@pytest.mark.parametrize(
    "options, told",
    [({"norm": "batch"}, "one of none, layer, tanh"), ({"mi_gates": "x"}, "no gate 'x'")],
)
def test_unknown_options(options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Cell("rhn", "mi", **options)


@pytest.mark.parametrize("cell", [Cell("rhn", "mi", 2, mi_gates="t"), Cell("lstm", "mi")])
def test_initial_vectors_are_those_of_the_gates_that_have_mi(cell: Cell) -> None:
    block, *others = parameters.init(cell, jax.random.key(0), M, N, mi_init=(2.0, 0.5, 0.25))
    count = len(cell.mi_gates or cell.blocks[0])
    for name, value in (("alpha", 2.0), ("beta1", 0.5), ("beta2", 0.25)):
        assert block[name].tolist() == [value] * (count * N)
    assert all("alpha" not in other for other in others)
