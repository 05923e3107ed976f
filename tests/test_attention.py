"""The attentive reader against plain NumPy in float64: values, gradients, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rnnx import attention, heads, model
from rnnx.attention import AttentiveReader, ReaderMasks
from rnnx.cells import Cell
from rnnx.dropout import Masks

V, M, N, A = 7, 3, 4, 5  # words, word vectors, units, answers
LENGTHS, QUESTIONS = np.array([5, 2]), np.array([1, 3])
rng = np.random.default_rng(5)
BATCH = {
    "inputs": rng.integers(0, V, (2, 5)), "question": rng.integers(0, V, (2, 3)),
    "lengths": LENGTHS, "question_lengths": QUESTIONS,
}  # fmt: skip
TARGETS = np.array([3, 0])
NONE = ReaderMasks(Masks(), Masks(), None)


# ---------------------------------------------------------------------------- in NumPy


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(
    xs: np.ndarray, h: np.ndarray, p: dict, prefix: str, mask: np.ndarray | float = 1.0
) -> np.ndarray:
    """MI-LSTM over xs (T, m) from h and c = 0: (T, n); a mask (n,) of h in every product."""
    p = {name.removeprefix(prefix): a for name, a in p.items() if name.startswith(prefix)}
    c, found = np.zeros_like(h), []
    for x in xs:
        wx, uh = x @ p["W"], (h * mask) @ p["U"]
        a = p["alpha"] * wx * uh + p["beta1"] * uh + p["beta2"] * wx + p["b"]
        i, f, o, z = np.split(a, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.array(found)


def states(words: np.ndarray, p: dict, name: str, both: bool, row: int, masks: Masks) -> np.ndarray:
    """What a stack gives of words (T,), with the masks of a row."""
    xs, of_h = p["embedding"][words], (1.0, 1.0)
    if masks.i is not None:
        xs, of_h = xs * masks.i[0][: len(xs), row], [h[row] for h in masks.h[0]]
    ahead = lstm(xs, p[f"{name}_start.0"], p, f"{name}.layers.0.blocks.0.", of_h[0])
    if not both:
        return ahead
    back = lstm(xs[::-1], p[f"{name}_start.1"], p, f"{name}.backward.0.blocks.0.", of_h[1])
    return np.concatenate([ahead, back[::-1]], axis=1)


def by_hand(
    p: dict, row: int, both: bool, masks: ReaderMasks = NONE
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of the answers and the attention, of one question by itself."""
    words, asked = BATCH["inputs"][row, : LENGTHS[row]], BATCH["question"][row, : QUESTIONS[row]]
    ds = states(words, p, "passage", both, row, masks.passage)
    qs = states(asked, p, "question", both, row, masks.question)
    q = np.concatenate([qs[-1, :N], qs[0, N:]])
    att = {name: p[f"attention.{name}"] for name in ("W_d", "b_d", "W_q", "M", "v")}
    scores = []
    for d in ds:
        alike = (q @ att["M"]) @ (d @ att["M"])
        scores.append(np.tanh(d @ att["W_d"] + att["b_d"] + q @ att["W_q"] + alike) @ att["v"])
    a = np.exp(scores) / np.exp(scores).sum()
    context = sum(weight * d for weight, d in zip(a, ds, strict=True))
    g = context @ p["summary.W_c"] + q @ p["summary.W_q"] + ds.mean(axis=0) @ p["summary.W_m"]
    g = np.tanh(g + p["summary.b"]) * (1.0 if masks.o is None else masks.o[row])
    logits = g @ p["output_weights"] + p["output_bias"]
    return logits - np.log(np.exp(logits).sum()), a


def loss_by_hand(p: dict, both: bool) -> float:
    return -sum(by_hand(p, row, both)[0][TARGETS[row]] for row in (0, 1))


# ---------------------------------------------------------------------------- compared


def reader(both: bool) -> tuple[object, dict[str, np.ndarray]]:
    """The network's structure, and parameters in float64, none of them at a special value."""
    net = AttentiveReader(
        Cell("lstm", "mi"), V, M, N, A, bidirectional=both, init_scale=0.8, dtype="float64",
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    graphdef, params = model.split(net)
    draw = np.random.default_rng(1)
    return graphdef, {
        name: np.asarray(p, np.float64) + 0.3 * draw.normal(size=p.shape)
        for name, p in params.items()
    }


def loss(graphdef: object, params: dict, batch: dict) -> jax.Array:
    logits, _ = model.merge(graphdef, params)(batch)
    return jnp.sum(heads.softmax(logits, TARGETS))


@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
def test_values_and_gradients_are_those_by_hand(both: bool) -> None:
    with jax.enable_x64(True):
        graphdef, params = reader(both)
        logits, seen = jax.jit(lambda p: model.merge(graphdef, p)(BATCH))(params)
        logs = jax.nn.log_softmax(logits)
        total, grads = jax.jit(jax.value_and_grad(lambda p: loss(graphdef, p, BATCH)))(params)
    assert logits.dtype == np.float64
    for row in (0, 1):
        log_p, a = by_hand(params, row, both)
        np.testing.assert_allclose(logs[row], log_p, rtol=1e-9)
        np.testing.assert_allclose(seen[: LENGTHS[row], row], a, rtol=1e-9)
        assert not np.asarray(seen[LENGTHS[row] :, row]).any()
    assert float(total) == pytest.approx(loss_by_hand(params, both), rel=1e-10)
    assert len(grads) == len(params)
    draw = np.random.default_rng(2)
    for name, p in params.items():
        along, step = draw.normal(size=p.shape), 1e-5
        ends = [loss_by_hand(params | {name: p + s * step * along}, both) for s in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(np.sum(grads[name] * along)) == pytest.approx(slope, rel=1e-6, abs=1e-8), name
        assert np.abs(grads[name]).max() > 1e-7, name


def test_masks_of_words_states_and_g_are_where_they_belong() -> None:
    draw = np.random.default_rng(3).uniform

    def of_stack(steps: int) -> Masks:
        return Masks(i=(draw(0, 2, (steps, 2, M)),), h=((draw(0, 2, (2, N)), draw(0, 2, (2, N))),))

    masks = ReaderMasks(of_stack(5), of_stack(3), draw(0, 2, (2, N)))
    with jax.enable_x64(True):
        graphdef, params = reader(True)
        logits, seen = jax.jit(lambda p: model.merge(graphdef, p)(BATCH, masks))(params)
        logs = jax.nn.log_softmax(logits)
    for row in (0, 1):
        log_p, a = by_hand(params, row, True, masks)
        np.testing.assert_allclose(logs[row], log_p, rtol=1e-9)
        np.testing.assert_allclose(seen[: LENGTHS[row], row], a, rtol=1e-9)


@pytest.mark.parametrize("init_scale, input_scale", [(0.01, None), (0.01, 0.1), (0.1, 0.01)])
def test_matrices_start_as_wide_as_they_are_told(
    init_scale: float, input_scale: float | None
) -> None:
    net = AttentiveReader(
        Cell("gru"), 50, 16, 16, 5, init_scale=init_scale, input_scale=input_scale, rngs=nnx.Rngs(0)
    )
    for name, p in model.split(net)[1].items():
        scale = init_scale if name.endswith(".U") else input_scale or init_scale
        wide = 16**-0.5 if name == "attention.v" else scale if p.ndim == 2 else 0.0
        assert 0.8 * wide <= abs(p).max() <= wide, name


def test_padding_reaches_nothing() -> None:
    """Other words after the end, and NaN among the states there, change no value and gradient."""
    with jax.enable_x64(True):
        graphdef, params = reader(True)
        other = {name: a.copy() for name, a in BATCH.items()}
        other["inputs"][1, 2:] = (other["inputs"][1, 2:] + 1) % V
        other["question"][0, 1:] = (other["question"][0, 1:] + 1) % V
        run = jax.jit(jax.value_and_grad(lambda p, b: loss(graphdef, p, b)))
        one, two = run(params, BATCH), run(params, other)
    assert all(map(np.array_equal, *map(jax.tree.leaves, (one, two))))
    p = {name.partition(".")[2]: jnp.asarray(a, jnp.float32) for name, a in params.items()
         if name.startswith("attention")}  # fmt: skip
    ds = jnp.ones((5, 2, 2 * N)).at[2:, 1].set(jnp.nan)
    q = jnp.ones((2, 2 * N))

    def weighed(ds: jax.Array) -> jax.Array:
        return jnp.sum(attention.weights(ds, q, LENGTHS, p) ** 2)

    assert np.isfinite(weighed(ds)) and np.isfinite(jax.grad(weighed)(ds)).all()
    none = attention.weights(ds, q, np.array([5, 0]), p)
    np.testing.assert_allclose(none.sum(axis=0), [1, 0], rtol=1e-6)


def test_the_question_decides_where_to_look() -> None:
    """The inner product alone: with M the identity, the word that is most like the question."""
    eye = np.eye(N)
    p = {"W_d": np.zeros((N, 2)), "W_q": np.zeros((N, 2)), "b_d": np.zeros(2), "M": eye,
         "v": np.full(2, 9.0)}  # fmt: skip
    ds = np.stack([eye[t : t + 1].repeat(N, 0) for t in range(N)])  # word t is the vector e_t
    found = attention.weights(ds, eye, np.full(N, N), p)  # row k asks for e_k
    assert np.asarray(found).argmax(axis=0).tolist() == list(range(N))
    e = np.exp(18 * np.tanh(1.0))
    np.testing.assert_allclose(np.diag(found), e / (e + N - 1), rtol=1e-5)
