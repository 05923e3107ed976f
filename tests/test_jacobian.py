"""Closed forms against differentiation, and every eigenvalue in the union of the discs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx import cells, parameters
from rnnx.analysis import jacobian
from rnnx.cells import Cell, Params

SIZES = st.sampled_from([1, 2, 5, 12])  # few, as each is compiled anew
SEEDS = st.integers(0, 2**31 - 1)


def made(cell: Cell, seed: int, n: int, m: int = 3, scale: float = 0.7):
    """A cell's parameters, a state and the input terms of one step, in float64."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = parameters.init(cell, keys[0], m, n, init_scale=scale, transform_bias=-1.0)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    carry = tuple(
        jax.random.uniform(k, (n,), jnp.float64, -0.9, 0.9)
        for k in jax.random.split(keys[1], cell.num_states)
    )
    x = jax.random.normal(keys[2], (m,), jnp.float64)
    wx = tuple(x @ block["W"] if "W" in block else None for block in params)
    return params, carry, wx


def of_rnn(params: Params, h: np.ndarray) -> np.ndarray:
    """Vanilla RNN: diag(1 - h^2) R, at the state h (n,) after the step.

    Here U = R^T, as states are rows. RHN paper, eq. 3.
    """
    return (1 - h**2)[:, None] * np.asarray(params[0]["U"]).T


def of_rhn(params: Params, s: np.ndarray, wx: np.ndarray) -> np.ndarray:
    """Coupled RHN with L = 1, at the state s (n,) before the step:

        diag(1 - t) + diag(t (1 - h^2)) R_H + diag((h - s) t (1 - t)) R_T

    RHN paper, eq. 15, which prints the transpose.
    """
    (block,) = params
    n = s.shape[0]
    u = np.asarray(block["U"], s.dtype)
    h, t = np.split(wx + s @ u + np.asarray(block["b"], s.dtype), 2)
    h, t = np.tanh(h), 1 / (1 + np.exp(-t))
    r_h, r_t = u[:, :n].T, u[:, n:].T
    through = (t * (1 - h**2))[:, None] * r_h + ((h - s) * t * (1 - t))[:, None] * r_t
    return np.diag(1 - t) + through


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@settings(deadline=None, max_examples=10)
@given(SEEDS, SIZES)
def test_closed_form_of_the_rhn(seed: int, n: int) -> None:
    cell = Cell("rhn")
    params, carry, wx = made(cell, seed, n)
    by_jax = jacobian.transition_jacobian(cell, params, carry, wx)
    by_hand = of_rhn(params, np.asarray(carry[0]), np.asarray(wx[0]))
    np.testing.assert_allclose(by_jax, by_hand, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(SEEDS, SIZES)
def test_closed_form_of_the_rnn(seed: int, n: int) -> None:
    cell = Cell("rnn")
    params, carry, wx = made(cell, seed, n)
    (h,) = cells.step(cell, params, carry, wx)
    by_jax = jacobian.transition_jacobian(cell, params, carry, wx)
    np.testing.assert_allclose(by_jax, of_rnn(params, np.asarray(h)), atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    SEEDS,
    SIZES,
    st.sampled_from(["rnn", "gru", "lstm", "rhn", "dtrnn", "dtsrnn"]),
    st.sampled_from(["additive", "mi", "mi_simple"]),
    st.integers(1, 3),
    st.floats(0.01, 2.0),
)
def test_every_eigenvalue_lies_in_the_union_of_discs(
    seed: int, n: int, kind: str, integration: str, depth: int, scale: float
) -> None:
    deep = kind in ("rhn", "dtrnn", "dtsrnn")
    cell = Cell(kind, integration, depth if deep else 1)
    found = np.asarray(jacobian.transition_jacobian(cell, *made(cell, seed, n, scale=scale)))
    assert found.shape == (n * cell.num_states,) * 2
    values = jacobian.eigenvalues(found)
    assert jacobian.outside(values, jacobian.discs(found)) <= 1e-8 * max(1, np.abs(found).max())
    assert np.all(np.diff(np.abs(values)) <= 1e-12)


def test_outside_tells_a_value_that_is_not_in_any_disc() -> None:
    found = jacobian.discs(np.array([[1.0, 0.5], [0.25, -1.0]]))
    assert found.centres.tolist() == [1, -1] and found.radii.tolist() == [0.5, 0.25]
    assert jacobian.outside(np.array([1.4, -1.2j - 1.0]), found) == pytest.approx(0.95)
    assert jacobian.outside(np.array([1.4, -1.2]), found) == 0


def test_closed_gates_keep_and_open_gates_transform() -> None:
    """t = 0: the identity; t = 1: the transform alone (RHN paper)."""
    cell = Cell("rhn")
    params, carry, wx = made(cell, 0, 6)
    for bias, expected in ((-1e4, "identity"), (1e4, "transform")):
        block = dict(params[0])
        block["b"] = block["b"].at[6:].set(bias)
        found = np.asarray(jacobian.transition_jacobian(cell, (block,), carry, wx))
        if expected == "identity":
            np.testing.assert_allclose(found, np.eye(6), atol=1e-12)
        else:
            h = np.tanh(wx[0] + carry[0] @ block["U"] + block["b"])[:6]
            np.testing.assert_allclose(found, (1 - h**2)[:, None] * block["U"][:, :6].T, atol=1e-12)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_theoretical_radii_at_initialisation(kind: str) -> None:
    rng, n, scale = np.random.default_rng(0), 400, 0.04
    draw = rng.uniform(-scale, scale, (n, n)) if kind == "uniform" else rng.normal(0, scale, (n, n))
    mean, deviation = getattr(jacobian, f"{kind}_radius")(n, scale)
    radii = jacobian.discs(draw).radii
    assert radii.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(n))
    assert radii.std() == pytest.approx(deviation, rel=0.15)
