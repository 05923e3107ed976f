"""What reads a stack: its outputs to predictions, and predictions to costs, as pure functions.

A projection takes outputs to logits; a cost takes predictions and targets to nats, or to the
pinball loss, element by element: no function here sums or averages over rows or time, as only the
caller knows what counts once. Class of a whole sequence: `softmax(logits(last(ys, lengths), ..))`;
a label per step: `softmax(logits(ys, ..))`.

Costs take `where`, booleans of the cost's own shape (or one that broadcasts to it). Where it is
false the cost is zero and so is its gradient, whatever predictions and targets hold there, NaN
included.

Legend: T time, B batch, n outputs of a stack, V classes or symbols, K keys, H steps ahead,
Q quantile levels, S labels of a transcription.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnnx import native, products, ragged

# Smallest log standard deviation. For series of unit variance, e^-7 is a thousandth of it.
LOG_STD_FLOOR = -7.0


# ---------------------------------------------------------------------------- from outputs


def logits(ys: Array, weights: Array, bias: Array, dtype: Any = jnp.float32) -> Array:
    """y S + b: ys (..., n), weights S (n, V), bias (V,) to logits (..., V).

    dtype is that of the product's operands; the sum is float32, or as wide as the arrays.
    """
    dtype, ys, weights = products.widen(dtype, ys, weights)
    return products.product(ys, weights, dtype) + bias


def tied_logits(ys: Array, embedding: Array, bias: Array, dtype: Any = jnp.float32) -> Array:
    """y E^T + b: ys (..., n), embedding E (V, n), bias (V,) to logits (..., V).

    Press and Wolf 2017, arXiv:1608.05859; Inan et al. 2017, arXiv:1611.01462.
    """
    # Contracted as it lies: XLA would copy E's transpose for every single token.
    axes = (((ys.ndim - 1,), (1,)), ((), ()))
    dtype, ys, embedding = products.widen(dtype, ys, embedding)
    wide = ys.dtype
    ys, embedding = ys.astype(dtype), embedding.astype(dtype)
    return jax.lax.dot_general(ys, embedding, axes, preferred_element_type=wide) + bias


def last(ys: Array, lengths: Array | None = None, bidirectional: bool = False) -> Array:
    """The output that has read the whole sequence: ys (T, B, n), lengths (B,) to (B, n).

    It is the one at step length - 1; of a bidirectional stack its forward half is, and its backward
    half is the one at step 0. Rows of length 0 give zeros; lengths None is T for all.
    """
    steps = ys.shape[0]
    t = jnp.arange(steps)[:, None]
    lengths = jnp.full(ys.shape[1], steps) if lengths is None else lengths
    lengths = ragged.as_lengths(lengths, ys.shape[1])
    end = (t == jnp.minimum(lengths, steps) - 1)[..., None]
    if bidirectional:
        start = ((t == 0) & (lengths > 0))[..., None]
        ahead = jnp.arange(ys.shape[2]) < ys.shape[2] // 2
        end = jnp.where(ahead, end, start)
    # One term of the sum is not zero. As a gather its gradient would be a scatter.
    return jnp.sum(jnp.where(end, ys, 0), axis=0)


def mean(ys: Array, lengths: Array | None = None) -> Array:
    """Mean output over the valid steps: ys (T, B, n), lengths (B,) to (B, n); length 0 gives 0."""
    if lengths is None:
        return jnp.mean(ys, axis=0)
    lengths = jnp.clip(ragged.as_lengths(lengths, ys.shape[1]), 0, ys.shape[0])
    total = jnp.sum(ragged.clean(ys, jnp.arange(ys.shape[0])[:, None] < lengths), axis=0)
    return total / jnp.maximum(lengths, 1)[:, None]


# ---------------------------------------------------------------------------- costs


def softmax(logits: Array, targets: Array, where: Array | None = None) -> Array:
    """-log softmax(logits)[target]: logits (..., V), integer targets (...) to nats (...).

    A target outside of 0..V - 1 has no meaning: negative ones count from the end, others give NaN.
    """

    cost = optax.softmax_cross_entropy_with_integer_labels
    return _only(where, cost, (logits, targets), (1, 0))


def tied_softmax(
    ys: Array, embedding: Array, bias: Array, targets: Array, dtype: Any = jnp.float32
) -> Array:
    """`softmax(tied_logits(ys, embedding, bias, dtype), targets)`, differentiated faster on CPUs.

    With its gradient, logits are held as (V, rows): Eigen forms E y^T at 1.5 times the rate of
    y E^T. In bfloat16 they are (rows, V) where the processor multiplies it: XLA would widen the
    operands of the other form. Their cotangent is rounded to dtype, as operands of products are.

    Args:
      ys: (..., n).
      targets: (...), integers in 0..V - 1.
    """
    if jax.default_backend() != "cpu":
        return softmax(tied_logits(ys, embedding, bias, dtype), targets)
    dtype, ys, embedding, bias = products.widen(dtype, ys, embedding, bias)
    return _tied_softmax(dtype, ys, embedding, bias, targets)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tied_softmax(dtype, ys, embedding, bias, targets):
    return softmax(tied_logits(ys, embedding, bias, dtype), targets)


def _tied_softmax_fwd(dtype, ys, embedding, bias, targets):
    rows = ys.reshape(-1, ys.shape[-1])
    axis = _vocabulary_axis(dtype)
    at = jnp.expand_dims(targets.reshape(-1), axis)
    if axis:
        logits = tied_logits(rows, embedding, bias, dtype)
    else:
        # Behind the barrier, or XLA would fold the transpose back into the product.
        columns = jax.lax.optimization_barrier(rows.astype(dtype).T)
        logits = jnp.matmul(embedding.astype(dtype), columns, preferred_element_type=ys.dtype)
        logits = logits + bias[:, None]
    log_sum = jax.nn.logsumexp(logits, axis, keepdims=True)
    nats = log_sum - jnp.take_along_axis(logits, at, axis)
    return nats.reshape(targets.shape), (ys, embedding, logits, log_sum, at)


def _tied_softmax_bwd(dtype, saved, nats_bar):
    ys, embedding, logits, log_sum, at = saved
    axis = _vocabulary_axis(dtype)
    one_hot = at == jax.lax.broadcasted_iota(at.dtype, logits.shape, axis)
    p = jnp.exp(logits - log_sum)
    # Formed once, not once for each of its three readers.
    logits_bar = jax.lax.optimization_barrier((p - one_hot) * nats_bar.reshape(log_sum.shape))
    cast, rows = logits_bar.astype(dtype), ys.reshape(-1, ys.shape[-1]).astype(dtype)
    wide = logits.dtype

    def contract(over: int, w: Array) -> Array:
        axes = (((over,), (0,)), ((), ()))
        return jax.lax.dot_general(cast, w, axes, preferred_element_type=wide)

    rows_bar = contract(axis, embedding.astype(dtype))
    if axis and wide == jnp.float32:
        embedding_bar = native.outer(cast, rows)
    else:
        embedding_bar = contract(1 - axis, rows)
    return rows_bar.reshape(ys.shape), embedding_bar, jnp.sum(logits_bar, 1 - axis), None


def _vocabulary_axis(dtype: Any) -> int:
    """0: logits are (V, rows); 1: (rows, V), for products of bfloat16 by YNNPACK."""
    return int(dtype == jnp.bfloat16 and native.bfloat16())


_tied_softmax.defvjp(_tied_softmax_fwd, _tied_softmax_bwd)


def keys(logits: Array, targets: Array, where: Array | None = None) -> Array:
    """Binary cross-entropies summed over keys: logits and targets (..., K) to nats (...).

    Each key k sounds with probability sigmoid(logits_k), independently; targets are 0 or 1 (a
    probability between works too). Boulanger-Lewandowski et al. 2012, arXiv:1206.6392, for the
    task.
    """

    def cost(logits: Array, targets: Array) -> Array:
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)

    return _only(where, cost, (logits, targets), (1, 1))


def gaussian(outputs: Array, targets: Array, where: Array | None = None) -> Array:
    """-log N(target; m, s^2): outputs (..., H, 2) and targets (..., H) to nats (..., H).

        nats = (target - m)^2 / (2 s^2) + log s + log(2 pi) / 2

    m = outputs[..., 0]; log s is outputs[..., 1], bent to stay above `LOG_STD_FLOOR` (see
    `mean_and_log_std`), or a series that is constant would have nats without bound. A density has
    negative nats where it exceeds 1. Nix and Weigend 1994.
    """

    def cost(outputs: Array, targets: Array) -> Array:
        m, log_std = mean_and_log_std(outputs)
        return 0.5 * jnp.square((targets - m) * jnp.exp(-log_std)) + log_std + _HALF_LOG_2_PI

    return _only(where, cost, (outputs, targets), (1, 0))


def mean_and_log_std(outputs: Array) -> tuple[Array, Array]:
    """m and log s of `gaussian` outputs (..., H, 2), each (..., H).

    log s = floor + softplus(output - floor): near the output where that is above the floor. A
    plain maximum would have no gradient below it, and a network could not leave.
    """
    return outputs[..., 0], LOG_STD_FLOOR + jax.nn.softplus(outputs[..., 1] - LOG_STD_FLOOR)


def gaussian_interval(outputs: Array, coverage: float) -> tuple[Array, Array]:
    """The central interval that holds a target with probability coverage: low and high, (..., H).

        m -+ s z,  z the (1 + coverage) / 2 quantile of the standard normal

    Raises:
      ValueError: unless 0 < coverage < 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, not {coverage}")
    m, log_std = mean_and_log_std(outputs)
    half = jnp.exp(log_std) * jax.scipy.special.ndtri((1 + coverage) / 2)
    return m - half, m + half


def quantiles(
    outputs: Array, targets: Array, levels: Sequence[float], where: Array | None = None
) -> Array:
    """Pinball loss, averaged over levels: outputs (..., H, Q), targets (..., H) to (..., H).

        mean over q of  max(q d, (q - 1) d),  d = target - output_q

    outputs[..., i] estimates the quantile of levels[i]. Nothing here keeps two of them from
    crossing: predict with `sorted_quantiles`, which never has a greater loss. Koenker and Bassett
    1978.

    Raises:
      ValueError: unless levels ascend between 0 and 1, one for each output.
    """
    if list(levels) != sorted(set(levels)) or not all(0 < q < 1 for q in levels):
        raise ValueError(f"levels must ascend between 0 and 1, not {', '.join(map(str, levels))}")
    if len(levels) != outputs.shape[-1]:
        raise ValueError(f"{len(levels)} levels for {outputs.shape[-1]} outputs")

    def cost(outputs: Array, targets: Array) -> Array:
        q = jnp.asarray(levels, outputs.dtype)
        d = targets[..., None] - outputs
        return jnp.mean(jnp.maximum(q * d, (q - 1) * d), axis=-1)

    return _only(where, cost, (outputs, targets), (1, 0))


def sorted_quantiles(outputs: Array) -> Array:
    """The predicted quantiles (..., H, Q): outputs in ascending order, so that none cross.

    Sorting leaves the pinball loss the same or lower. Chernozhukov et al. 2010, arXiv:0704.3649.
    """
    return jnp.sort(outputs, axis=-1)


def ctc(logits: Array, lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """-log of the probability of all alignments of a transcription, in nats (B,).

        nats = -log sum over paths that collapse to the labels of prod over t of p_t(path_t)

    A path has one symbol a frame; it collapses by merging repeats, then dropping blanks. Symbol 0
    is the blank. By `optax.ctc_loss`. Graves et al. 2006.

    Args:
      logits: (T, B, V), anything from a row's length on.
      lengths: (B,) frames of each row.
      labels: (B, S) integers 1..V - 1, anything from a row's label length on.
      label_lengths: (B,) labels of each row.

    A row whose frames are too few for its labels has no path (see `ctc_feasible`). Its nats are
    finite all the same: optax takes -1e5 for log 0, so they are about 1e5, with gradients of the
    usual size that lead nowhere. Leave such rows out. For the same reason the nats of a row that
    has paths are right below 1e5 only.
    """
    ended = jnp.arange(logits.shape[0])[:, None] >= lengths
    unused = jnp.arange(labels.shape[1]) >= label_lengths[:, None]
    return optax.ctc_loss(
        jnp.swapaxes(ragged.clean(logits, ~ended), 0, 1),
        ended.T.astype(logits.dtype),
        labels,
        unused.astype(logits.dtype),
    )


def ctc_feasible(lengths: Array, labels: Array, label_lengths: Array) -> Array:
    """Whether a row's frames suffice for its labels, (B,): one a label, one more between equals."""
    pair = jnp.arange(1, labels.shape[1]) < label_lengths[:, None]
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & pair, axis=1)
    return lengths >= label_lengths + repeats


_HALF_LOG_2_PI = 0.9189385332046727


def _only(
    where: Array | None,
    cost: Callable[..., Array],
    arrays: tuple[Array, ...],
    extra: tuple[int, ...],
) -> Array:
    """cost(*arrays) where that is true, else 0; extra counts each array's axes beyond the cost's.

    The arrays are made zero before the cost: a NaN times the zero of a later selection is a NaN in
    the gradient.
    """
    if where is None:
        return cost(*arrays)
    cleaned = (
        jnp.where(jnp.expand_dims(where, tuple(range(-axes, 0))), a, jnp.zeros_like(a))
        for a, axes in zip(arrays, extra, strict=True)
    )
    return jnp.where(where, cost(*cleaned), 0)
