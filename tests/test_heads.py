"""Projections and costs against formulas in float64 NumPy; gradients by differences or in closed
form; what `where` and lengths leave out changes nothing, NaN included."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from rnnx import heads

RNG = np.random.default_rng(0)
LEVELS = (0.1, 0.5, 0.9)


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def softmax_nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, targets[..., None], -1)[..., 0])


def keys_nats(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return -np.log(np.where(targets == 1, sigmoid(logits), 1 - sigmoid(logits))).sum(-1)


def gaussian_nats(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    std = np.exp(-7 + np.log1p(np.exp(outputs[..., 1] + 7)))
    return -norm.logpdf(targets, outputs[..., 0], std)


def pinball(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    total = 0
    for i, q in enumerate(LEVELS):
        d = targets - outputs[..., i]
        total = total + np.where(d > 0, q * d, (1 - q) * -d) / len(LEVELS)
    return total


# name -> ours, theirs, predictions, targets
COSTS: dict[str, tuple[Callable, Callable, np.ndarray, np.ndarray]] = {
    "softmax": (heads.softmax, softmax_nats, RNG.normal(size=(4, 3, 5)),
                RNG.integers(0, 5, (4, 3))),
    "keys": (heads.keys, keys_nats, RNG.normal(size=(4, 3, 5)), RNG.integers(0, 2, (4, 3, 5))),
    "gaussian": (heads.gaussian, gaussian_nats, RNG.normal(size=(4, 3, 2)),
                 RNG.normal(size=(4, 3))),
    "quantiles": (lambda *a: heads.quantiles(*a[:2], LEVELS, *a[2:]), pinball,
                  RNG.normal(size=(4, 3, 3)), RNG.normal(size=(4, 3))),
}  # fmt: skip
every_cost = pytest.mark.parametrize("name", COSTS)


def differences(f: Callable, x: np.ndarray) -> np.ndarray:
    """The gradient of the sum of f at x by central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        gradient[index] = (f(x + step).sum() - f(x - step).sum()) / 2e-6
    return gradient


@every_cost
def test_costs_and_gradients_equal_the_formulas(name: str) -> None:
    ours, theirs, outputs, targets = COSTS[name]
    with jax.enable_x64(True):
        values = jax.jit(ours)(outputs, targets)
        assert values.shape == (4, 3)
        np.testing.assert_allclose(values, theirs(outputs, targets), rtol=1e-12)
        gradient = jax.jit(jax.grad(lambda x: ours(x, targets).sum()))(outputs)
        np.testing.assert_allclose(
            gradient, differences(lambda x: theirs(x, targets), outputs), atol=1e-8
        )


@every_cost
def test_what_where_leaves_out_has_neither_cost_nor_gradient(name: str) -> None:
    ours, _, outputs, targets = COSTS[name]
    kept = RNG.random((4, 3)) < 0.6
    over = [kept.reshape(*kept.shape, *[1] * (a.ndim - 2)) for a in (outputs, targets)]
    wrong = np.nan if targets.dtype == float else 99
    spoilt = np.where(over[0], outputs, np.nan), np.where(over[1], targets, wrong)
    outputs, targets, *spoilt = map(jnp.asarray, (outputs, targets, *spoilt))
    f = jax.jit(jax.value_and_grad(lambda x, y, *w: jnp.sum(jnp.sin(ours(x, y, *w)))))
    _, whole = f(outputs, targets)
    value, gradient = f(*spoilt, kept)
    np.testing.assert_allclose(gradient, np.where(over[0], whole, 0), atol=1e-6)
    np.testing.assert_allclose(value, jnp.sin(ours(outputs, targets))[kept].sum(), atol=1e-5)
    assert not ours(*spoilt, kept)[~kept].any()


def test_softmax_and_keys_are_the_programs_of_optax() -> None:
    """To the last bit: numbers of recorded runs depend on them."""
    logits, targets = jnp.asarray(COSTS["softmax"][2], jnp.float32), COSTS["softmax"][3]
    rolls = jnp.asarray(COSTS["keys"][3])
    for ours, theirs, y in (
        (heads.softmax, optax.softmax_cross_entropy_with_integer_labels, targets),
        (
            heads.keys,
            lambda x, y: jnp.sum(optax.sigmoid_binary_cross_entropy(x, y), axis=-1),
            rolls,
        ),
    ):
        a, b = (
            jax.value_and_grad(lambda x, f=f, y=y: f(x, y).sum())(logits) for f in (ours, theirs)
        )
        assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_projections() -> None:
    ys, weights, bias = (RNG.normal(size=s) for s in ((4, 3, 6), (6, 5), (5,)))
    theirs = ys @ weights + bias
    with jax.enable_x64(True):
        np.testing.assert_allclose(heads.logits(ys, weights, bias), theirs, rtol=1e-12)
        np.testing.assert_allclose(heads.tied_logits(ys, weights.T, bias), theirs, rtol=1e-12)
    rounded = (jnp.asarray(a, jnp.bfloat16).astype(jnp.float32) for a in (ys, weights))
    theirs = jnp.matmul(*rounded) + jnp.asarray(bias, jnp.float32)
    arrays = [jnp.asarray(a, jnp.float32) for a in (ys, weights, bias)]
    for f, second in ((heads.logits, arrays[1]), (heads.tied_logits, arrays[1].T)):
        got = f(arrays[0], second, arrays[2], "bfloat16")
        np.testing.assert_allclose(got, theirs, rtol=1e-5, atol=1e-5)
        assert got.dtype == jnp.float32 and not jnp.array_equal(f(*arrays[:1], second, bias), got)


def test_tied_softmax_is_the_softmax_of_tied_logits() -> None:
    rng = np.random.default_rng(0)
    ys, embedding, bias = (rng.normal(size=s) for s in ((4, 3, 6), (5, 6), (5,)))
    targets, weights = rng.integers(0, 5, (4, 3)), rng.normal(size=(4, 3))

    def formula(arrays: list[np.ndarray]) -> np.ndarray:
        return softmax_nats(arrays[0] @ arrays[1].T + arrays[2], targets) * weights

    def ours(arrays: list, dtype: str) -> jax.Array:
        return jnp.sum(heads.tied_softmax(*arrays, targets, dtype) * weights)

    with jax.enable_x64(True):
        given = [ys, embedding, bias]
        value, gradients = jax.jit(jax.value_and_grad(lambda a: ours(a, "float32")))(given)
        np.testing.assert_allclose(value, formula(given).sum(), rtol=1e-12)
        for i, gradient in enumerate(gradients):
            at = [given[:i], given[i + 1 :]]
            expected = differences(lambda x, at=at: formula([*at[0], x, *at[1]]), given[i])
            np.testing.assert_allclose(gradient, expected, atol=1e-8)

    # bfloat16 rounds the operands of all three products, in sums as wide as ever.
    def rounded(*arrays: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64) for a in arrays]

    given = [jnp.asarray(a, jnp.float32) for a in given]
    value, gradients = jax.jit(jax.value_and_grad(lambda a: ours(a, "bfloat16")))(given)
    y, e = rounded(ys, embedding)
    logits = y @ e.T + bias
    np.testing.assert_allclose(value, np.sum(softmax_nats(logits, targets) * weights), rtol=1e-5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    bar = (p - np.eye(5)[targets]) * weights[..., None]
    (cast,) = rounded(bar)
    theirs = cast @ e, np.einsum("tbv,tbn->vn", cast, y), bar.sum((0, 1))
    for gradient, expected in zip(gradients, theirs, strict=True):
        assert gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_last_and_mean_of_sequences_that_end() -> None:
    lengths = np.array([2, 4, 0, 1])
    ys = RNG.normal(size=(4, 4, 6))
    padded = np.where((np.arange(4)[:, None] < lengths)[..., None], ys, np.nan)
    zero = np.zeros(6)
    ends = np.stack([ys[1, 0], ys[3, 1], zero, ys[0, 3]])
    starts = np.stack([ys[0, 0], ys[0, 1], zero, ys[0, 3]])
    means = np.stack([ys[:2, 0].mean(0), ys[:, 1].mean(0), zero, ys[0, 3]])
    both = np.concatenate([ends[:, :3], starts[:, 3:]], axis=1)
    for f, theirs in (
        (heads.last, ends),
        (lambda *a: heads.last(*a, bidirectional=True), both),
        (heads.mean, means),
    ):
        np.testing.assert_allclose(f(padded, lengths), theirs, rtol=1e-6)
        whole = f(ys, np.full(4, 4))
        np.testing.assert_allclose(f(ys), whole, rtol=1e-6)
        np.testing.assert_allclose(f(ys, np.full(4, 7)), whole, rtol=1e-6)
        gradient = jax.grad(lambda y, f=f: f(y, lengths)[:, 0].sum())(padded)
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient[..., 0].sum(0), lengths > 0)
        assert not gradient[np.isnan(padded)].any()
    np.testing.assert_allclose(heads.last(ys), ys[-1], rtol=1e-6)


def test_gaussian_nats_stay_finite_and_can_leave_the_floor() -> None:
    outputs, target = jnp.array([1.0, -1e4]), jnp.array(1.0)
    nats, gradient = jax.value_and_grad(heads.gaussian)(jnp.array([1.0, -9.0]), jnp.array(3.0))
    assert math.isfinite(nats) and gradient[1] < -1  # a miss widens it again
    assert -7 < heads.gaussian(outputs, target) < -5
    assert math.isfinite(heads.gaussian(jnp.array([1.0, 1e4]), target))


@pytest.mark.parametrize("coverage", [0.5, 0.95])
def test_gaussian_intervals_cover_what_they_say(coverage: float) -> None:
    outputs = RNG.normal(size=(3, 2))
    std = np.exp(-7 + np.log1p(np.exp(outputs[:, 1] + 7)))
    theirs = norm.interval(coverage, outputs[:, 0], std)
    np.testing.assert_allclose(heads.gaussian_interval(outputs, coverage), theirs, rtol=1e-5)
    with pytest.raises(ValueError, match="coverage must be between 0 and 1"):
        heads.gaussian_interval(outputs, 95)


def test_sorted_quantiles_do_not_cross_and_lose_nothing() -> None:
    _, _, outputs, targets = COSTS["quantiles"]
    outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
    ascending = heads.sorted_quantiles(outputs)
    assert (jnp.diff(ascending) >= 0).all() and (jnp.diff(outputs) < 0).any()
    before, after = (heads.quantiles(o, targets, LEVELS) for o in (outputs, ascending))
    assert (after <= before + 1e-6).all() and (after < before - 1e-3).any()


@pytest.mark.parametrize("levels", [(0.5, 0.1, 0.9), (0.1, 0.1, 0.9), (0.1, 0.5, 1), (0.5,)])
def test_levels_that_do_not_fit_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        heads.quantiles(jnp.zeros((2, 3)), jnp.zeros(2), levels)


def ctc_by_enumeration(logits: np.ndarray, labels: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """Nats over all V^T paths of logits (T, V), and their gradient: p minus the posterior."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total, posterior = 0.0, np.zeros_like(p)
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        if tuple(s for s, _ in itertools.groupby(path) if s) == labels:
            likelihood = np.prod([p[t, s] for t, s in enumerate(path)])
            total += likelihood
            for t, s in enumerate(path):
                posterior[t, s] += likelihood
    return (-math.log(total), p - posterior / total) if total else (math.inf, 0 * p)


CTC = [  # frames, labels
    (5, (1, 2)),
    (4, (2, 2)),
    (3, (1, 1)),  # just enough
    (4, ()),
    (0, ()),
    (2, (1, 1)),  # one frame too few: the repeat needs a blank
    (1, (1, 2, 1)),
    (5, (1, 2, 1)),
]


def test_ctc_equals_the_enumeration_of_all_paths() -> None:
    steps, rows = 5, range(len(CTC))
    lengths = np.array([frames for frames, _ in CTC])
    label_lengths = np.array([len(labels) for _, labels in CTC])
    labels = np.array([labels + (labels or (7,))[-1:] * (3 - len(labels)) for _, labels in CTC])
    logits = RNG.normal(size=(steps, len(CTC), 3))
    padded = np.where((np.arange(steps)[:, None] < lengths)[..., None], logits, np.nan)
    weights = RNG.random(len(CTC))

    def ours(logits: Any) -> Any:
        nats = heads.ctc(logits, lengths, labels, label_lengths)
        return jnp.sum(weights * nats), nats

    with jax.enable_x64(True):
        (_, nats), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(padded)
        nats, gradient = np.asarray(nats), np.asarray(gradient)
    theirs = [ctc_by_enumeration(logits[: CTC[b][0], b], CTC[b][1]) for b in rows]
    feasible = np.array([math.isfinite(value) for value, _ in theirs])
    assert np.array_equal(heads.ctc_feasible(lengths, labels, label_lengths), feasible)
    for b in rows:
        assert not gradient[lengths[b] :, b].any()
        if feasible[b]:
            np.testing.assert_allclose(nats[b], theirs[b][0], rtol=1e-9, atol=1e-12)
            ours_bar = gradient[: lengths[b], b]
            np.testing.assert_allclose(ours_bar, weights[b] * theirs[b][1], atol=1e-9)
        else:  # as documented: finite, and plain to see
            assert 9e4 < nats[b] < 2e5 and np.isfinite(gradient[:, b]).all()
