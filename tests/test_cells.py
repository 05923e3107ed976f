"""The equations, in values and gradients, against an independent float64 NumPy reference."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax import Array

from rnnx import cells, parameters, scan
from rnnx.cells import CELLS, INTEGRATIONS, Cell, Params

B, T, M, N = 3, 4, 3, 4
VARIANTS = [
    Cell(kind, integration, depth, **options)
    for integration in INTEGRATIONS
    for kind, depth, options in [
        ("rnn", 1, {}),
        ("linearrnn", 1, {}),
        ("lstm", 1, {}),
        ("gru", 1, {}),
        ("gru", 1, {"reset_after": True}),
        ("rhn", 1, {}),
        ("rhn", 3, {}),
        ("rhn", 3, {"coupled": False}),
        ("dtrnn", 3, {}),
        ("dtsrnn", 3, {}),
        ("slstm", 1, {}),
        ("mingru", 1, {}),
    ]
    if integration == "additive" or not CELLS[kind].linear
]


def label(cell: Cell) -> str:
    extras = ["" if cell.coupled else "uncoupled", "reset_after" if cell.reset_after else ""]
    return "-".join(filter(None, [cell.kind, str(cell.depth), cell.integration, *extras]))


EVERY_KIND = [c for c in VARIANTS if c.integration == "mi" or CELLS[c.kind].linear]
every_cell = pytest.mark.parametrize("cell", VARIANTS, ids=label)
every_kind = pytest.mark.parametrize("cell", EVERY_KIND, ids=label)
# Every cell with a dropout mask, and two without.
every_cell_masked = pytest.mark.parametrize(
    "cell, masked",
    [(c, True) for c in VARIANTS]
    + [(c, False) for c in (Cell("lstm", "mi"), Cell("rhn", "mi", 3))],
    ids=lambda v: label(v) if isinstance(v, Cell) else ("masked" if v else "plain"),
)


def random_params(cell: Cell, seed: int = 0) -> Params:
    """Every parameter, vectors too, drawn at random: no gradient is hidden by a 0 or a 1."""
    rng = np.random.default_rng(seed)
    params = parameters.init(cell, jax.random.key(seed), M, N)
    return jax.tree.map(
        lambda p: jnp.asarray(0.6 * rng.standard_normal(p.shape), jnp.float32), params
    )


def random_inputs(cell: Cell, seed: int = 1) -> tuple[Array, tuple[Array, ...], Array]:
    """Inputs, a carry that is not zero, and a dropout mask."""
    rng = np.random.default_rng(seed)
    xs = jnp.asarray(rng.standard_normal((T, B, M)), jnp.float32)
    carry = tuple(
        jnp.asarray(0.5 * rng.standard_normal((B, N)), jnp.float32) for _ in range(cell.num_states)
    )
    mask = jnp.asarray(rng.random((B, N)) < 0.6, jnp.float32) / 0.6
    if cell.kind == "slstm":  # n is a sum of positive numbers
        h, c, n, m = carry
        carry = h, c, 0.5 + jnp.abs(n), m
    return xs, carry, mask


def to_reference(cell: Cell, params: Params) -> dict[str, np.ndarray]:
    """Our fused blocks as the reference's one array a gate, by its names, in float64."""
    named = {}
    plain = cell.blocks[0] == "h"  # one gate: the reference leaves its name out
    for k, (block, gates) in enumerate(zip(params, cell.blocks, strict=True)):
        layer = f"_{k + 1}" if CELLS[cell.kind].deep else ""
        for name, array in block.items():
            for gate, part in zip(
                gates, np.split(np.asarray(array, np.float64), len(gates), axis=-1), strict=True
            ):
                depth = layer if name in ("U", "b") else ""
                named[name + ("" if plain else f"_{gate}") + depth] = part
    return named


def in_float64(a: Any) -> np.ndarray:
    """As float64, or complex128 as it is, which `reference.gradient` differentiates by."""
    return a if np.iscomplexobj(a) else np.float64(a)


def run_reference(cell: Cell, params: dict, xs: Array, carry: tuple, mask: Array | None):
    options = {"kind": cell.integration, "mask": None if mask is None else np.float64(mask)}
    if CELLS[cell.kind].deep:
        options["depth"] = cell.depth
    if cell.kind == "rhn":
        options["coupled"] = cell.coupled
    if cell.kind == "gru":
        options["reset_after"] = cell.reset_after
    state = tuple(map(in_float64, carry))
    ys, last = reference.run(
        cell.kind, params, in_float64(xs), state if len(state) > 1 else state[0], **options
    )
    return ys, last if isinstance(last, tuple) else (last,)


def close(ours: Array, theirs: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


@every_cell_masked
def test_values_and_gradients_equal_the_float64_reference(cell: Cell, masked: bool) -> None:
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    mask = mask if masked else None
    weights = np.random.default_rng(2).standard_normal((T, B, N))

    ys, last = scan.unroll(cell, params, xs, carry, mask)
    ys_ref, last_ref = run_reference(cell, to_reference(cell, params), xs, carry, mask)
    close(ys, ys_ref)
    for ours, theirs in zip(last, last_ref, strict=True):
        close(ours, theirs)

    def loss(params):
        ys, last = scan.unroll(cell, params, xs, carry, mask)
        return jnp.sum(ys * weights) + sum(jnp.sum(c**2) for c in last)

    def loss_ref(params):
        ys, last = run_reference(cell, params, xs, carry, mask)
        return np.sum(ys * weights) + sum(np.sum(c**2) for c in last)

    ours = to_reference(cell, jax.grad(loss)(params))
    theirs = reference.gradient(loss_ref, to_reference(cell, params))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.abs(theirs[name]).max() > 1e-4, f"the reference's gradient of {name} vanishes"
        close(ours[name], theirs[name])


@every_cell
def test_parameter_shapes_are_the_reference_s(cell: Cell) -> None:
    options = {"depth": cell.depth, "kind": cell.integration, "coupled": cell.coupled}
    ours = {name: p.shape for name, p in to_reference(cell, random_params(cell)).items()}
    assert ours == reference.shapes(cell.kind, M, N, **options)


@every_cell
def test_scan_equals_python_loop_equals_one_step_at_a_time(cell: Cell) -> None:
    params, (xs, carry, mask) = random_params(cell), random_inputs(cell)
    ys, last = scan.unroll(cell, params, xs, carry, mask)
    by_loop = by_single_scans = carry
    for t in range(T):
        by_loop = cells.step(cell, params, by_loop, cells.project(params, xs[t]), mask)
        close(ys[t], np.asarray(by_loop[0]), 1e-6)
        one, by_single_scans = scan.unroll(cell, params, xs[t : t + 1], by_single_scans, mask)
        close(ys[t], np.asarray(one[0]), 1e-6)
    for a, b, c in zip(last, by_loop, by_single_scans, strict=True):
        close(a, np.asarray(b), 1e-6)
        close(a, np.asarray(c), 1e-6)


@pytest.mark.parametrize("kind", [kind for kind in CELLS if not CELLS[kind].linear])
def test_general_mi_with_alpha_0_and_betas_1_is_additive(kind: str) -> None:
    depth = 3 if CELLS[kind].deep else 1
    additive, mi = Cell(kind, "additive", depth), Cell(kind, "mi", depth)
    params = random_params(additive)
    one, zero = (lambda a: jnp.ones(a["b"].shape)), (lambda a: jnp.zeros(a["b"].shape))
    as_mi = tuple(
        block | {"alpha": zero(block), "beta1": one(block), "beta2": one(block)}
        if "W" in block
        else block
        for block in params
    )
    xs, carry, mask = random_inputs(additive)
    close(
        scan.unroll(mi, as_mi, xs, carry, mask)[0],
        np.asarray(scan.unroll(additive, params, xs, carry, mask)[0]),
        1e-6,
    )


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("depth", [1, 4])
def test_rhn_with_closed_transform_gates_is_the_identity(depth: int, coupled: bool) -> None:
    cell = Cell("rhn", depth=depth, coupled=coupled)
    params = parameters.init(cell, jax.random.key(0), M, N, transform_bias=-200.0)
    xs, carry, _ = random_inputs(cell)
    ys, last = scan.unroll(cell, params, xs, carry)
    assert jnp.array_equal(last[0], carry[0])
    assert all(jnp.array_equal(y, carry[0]) for y in ys)


@pytest.mark.parametrize("scale", [1, 1e4])
def test_an_slstm_s_gates_weigh_its_candidates_however_extreme_they_are(scale: float) -> None:
    """With U = 0, c / n at t is the mean of z_s, s <= t, weighted by exp(i_s) f_{s+1} .. f_t."""
    cell = Cell("slstm")
    (block,) = random_params(cell)
    extreme = jnp.repeat(jnp.array([scale, scale, 1, 1], jnp.float32), N)  # i and f only
    block = block | {"U": 0 * block["U"], "W": block["W"] * extreme}
    xs, zero = random_inputs(cell)[0], cells.zero_carry(cell, B, N)

    def run(block):
        ys, (_, *others) = scan.unroll(cell, (block,), xs, zero)
        return jnp.sum(ys**2) + sum(jnp.sum(jnp.sin(a)) for a in others), ys

    slopes, ys = jax.grad(run, has_aux=True)(block)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves((slopes, ys)))
    i, f, o, z = np.split(np.float64(xs) @ np.float64(block["W"]) + np.float64(block["b"]), 4, -1)
    kept = np.cumsum(-np.logaddexp(0, -f), axis=0)  # log of f_1 .. f_t
    for t in range(T):
        logs = i[: t + 1] + kept[t] - kept[: t + 1]
        weights = np.exp(logs - logs.max(axis=0))
        mean = (weights * np.tanh(z[: t + 1])).sum(axis=0) / weights.sum(axis=0)
        close(ys[t], reference.sigmoid(o[t]) * mean, 1e-5)
    assert scale == 1 or (i.min() < -5e3 and i.max() > 5e3 and f.min() < -5e3 and f.max() > 5e3)


def test_gradient_of_an_mi_rnn_step_is_the_paper_s_formula() -> None:
    """dh_t / dh_{t-1} = U^T diag(alpha * W x + beta1) diag(phi'), MI paper section 2.3."""
    cell = Cell("rnn", "mi")
    (block,) = params = random_params(cell)
    xs, (h,), _ = random_inputs(cell)
    x, h = xs[0, 0], h[0]

    def transition(h):
        return cells.step(cell, params, (h[None],), cells.project(params, x[None]))[0][0]

    phi_prime = 1 - transition(h) ** 2
    formula = block["U"] @ jnp.diag(
        (block["alpha"] * (x @ block["W"]) + block["beta1"]) * phi_prime
    )
    # Vectors are rows here, so the formula's U^T diag(..) is the transposed Jacobian.
    close(jax.jacobian(transition)(h).T, np.asarray(formula), 1e-6)


def test_initial_parameters_follow_the_recipes() -> None:
    rhn = parameters.init(
        Cell("rhn", depth=3, coupled=False),
        jax.random.key(0),
        50,
        60,
        init_scale=0.04,
        transform_bias=-4.0,
    )
    for block in rhn:
        h, t, c = jnp.split(block["b"], 3)
        assert (t == -4).all() and (c == 4).all()
        for p in (h, block["U"], block.get("W", block["U"])):
            assert jnp.abs(p).max() <= 0.04 and jnp.abs(p).max() > 0.035 and p.std() > 0.02
    for kind in ("lstm", "slstm"):
        (lstm,) = parameters.init(
            Cell(kind, "mi"), jax.random.key(0), 50, 60, forget_bias=1.5, mi_init=(2.0, 0.5, 0.25)
        )
        i, f, o, z = jnp.split(lstm["b"], 4)
        assert (f == 1.5).all() and not (jnp.any(i) | jnp.any(o) | jnp.any(z))
        assert (lstm["alpha"] == 2).all() and (lstm["beta1"] == 0.5).all()
        assert (lstm["beta2"] == 0.25).all()
        assert abs(float(jnp.abs(lstm["U"]).max()) - 60**-0.5) < 1e-3
    (mingru,) = parameters.init(Cell("mingru"), jax.random.key(0), 50, 60, init_scale=0.04)
    assert 0.039 < jnp.abs(mingru["W"]).max() <= 0.04 and not mingru["b"].any()


def test_the_range_of_the_input_matrices_is_their_own() -> None:
    """The MI paper's r: W alone is drawn from U(-r, r)."""
    options = {"init_scale": 0.02}
    for kind in ("rnn", "gru", "rhn"):
        plain = parameters.init(Cell(kind), jax.random.key(0), 50, 60, **options)
        wide = parameters.init(Cell(kind), jax.random.key(0), 50, 60, **options, input_scale=0.6)
        for before, after in zip(plain, wide, strict=True):
            assert (before["U"] == after["U"]).all() and (before["b"] == after["b"]).all()
            assert jnp.abs(before["W"]).max() <= 0.02
            assert 0.55 < jnp.abs(after["W"]).max() <= 0.6


def test_blocks_of_different_gates_and_depths_start_different() -> None:
    params = parameters.init(Cell("rhn", depth=2), jax.random.key(0), N, N)
    matrices = [params[0]["W"], params[0]["U"], params[1]["U"]]
    assert len({float(m.sum()) for m in matrices}) == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "lsmt"}, "unknown cell"),
        ({"integration": "im"}, "unknown integration"),
        ({"depth": 0}, "depth must be"),
        (
            {"kind": "lstm", "depth": 2},
            "lstm has no transition depth: .* one of rhn, dtrnn, dtsrnn",
        ),
        ({"kind": "lstm", "coupled": False}, "lstm has no option coupled: coupled=False needs rhn"),
        ({"reset_after": True}, "rhn has no option reset_after: reset_after=True needs gru"),
        ({"kind": "gru", "input_every": True}, "needs one of rhn, dtrnn, dtsrnn"),
        ({"integration": "mi", "mi_gates": "c"}, "rhn has no gate 'c'"),
        ({"mi_gates": "h"}, "integration=additive has none"),
        ({"kind": "mingru", "integration": "mi"}, "mingru has no product of the state.* not mi"),
    ],
)
def test_impossible_cells_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cell(**options)


@every_kind
def test_each_keyword_of_a_family_decides_where_its_biases_start(cell: Cell) -> None:
    family = CELLS[cell.kind]
    if "coupled" in family.options:
        cell = dataclasses.replace(cell, coupled=False)
    keywords = {keyword for _, keyword, _ in family.biases}
    assert keywords == set(family.keywords) - {field.name for field in dataclasses.fields(Cell)}
    for keyword in keywords:
        found = {}
        for block, gates in zip(
            parameters.init(cell, jax.random.key(0), M, N, **{keyword: 7.0}),
            cell.blocks,
            strict=True,
        ):
            found |= dict(zip(gates, np.split(np.asarray(block["b"]), len(gates)), strict=True))
        moved = {gate: set(b) for gate, b in found.items() if np.all(np.abs(b) == 7)}
        assert moved == {gate: {7.0 * sign} for gate, of, sign in family.biases if of == keyword}


@every_kind
def test_each_gate_s_recurrent_matrix_can_start_orthogonal(cell: Cell) -> None:
    plain, drawn = (
        parameters.init(cell, jax.random.key(0), M, N, orthogonal=scale) for scale in (0.0, 0.5)
    )
    seen = []
    for before, block, gates in zip(plain, drawn, cell.blocks, strict=True):
        for name in block.keys() - {"U"}:
            np.testing.assert_array_equal(block[name], before[name])
        for u in np.split(np.asarray(block["U"]), len(gates), axis=1) if "U" in block else ():
            close(u.T @ u, 0.25 * np.eye(N), 1e-5)
            seen.append(float(u[0, 0]))
    assert len(set(seen)) == len(seen)
