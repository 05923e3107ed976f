"""Sequences that end within a batch, and states reset within a window, as selections of rows.

Where lengths and resets are None, the selections are not in the program.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rnnx.cells import Carry


class Rows(NamedTuple):
    """Which rows of the batch each step concerns; None where nothing has to be selected."""

    valid: Array | None = None  # (T, B): the row's sequence has not ended
    reset: Array | None = None  # (T, B): the row's state is set to zero before the step


def as_lengths(lengths: ArrayLike, batch_size: int) -> Array:
    """Lengths as int32 (B,): a narrower type could not hold the number of time steps.

    Raises:
      ValueError: when they are not (B,) integers.
    """
    lengths, shape = jnp.asarray(lengths), (batch_size,)
    if lengths.shape != shape or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"lengths must be integers {shape}, not {lengths.dtype} {lengths.shape}")
    return lengths.astype(jnp.int32)


def select_rows(xs: Array, lengths: Array | None, reset: Array | None) -> Rows:
    """The rows that each step of xs (T, B, ...) concerns.

    Raises:
      ValueError: when lengths are not (B,) integers, or reset is not (T, B) booleans.
    """
    valid, shape = None, xs.shape[:2]
    if lengths is not None:
        valid = jnp.arange(shape[0])[:, None] < as_lengths(lengths, shape[1])
    if reset is not None:
        reset = jnp.asarray(reset)
        if reset.shape != shape or reset.dtype != jnp.bool:
            raise ValueError(f"reset must be booleans {shape}, not {reset.dtype} {reset.shape}")
        reset = reset if valid is None else reset & valid
    return Rows(valid, reset)


def clean(xs: Array, valid: Array | None) -> Array:
    """xs (T, B, ...) with zeros where it isn't valid (T, B): a NaN in padding reaches nothing."""
    return xs if valid is None else select(valid, xs, jnp.zeros_like(xs))


@jax.custom_vjp
def flip(xs: Array, lengths: Array | None = None) -> Array:
    """xs (T, B, ...) with each row's first `lengths` (B,) steps, or all, in reverse order.

    Padding stays where it is, so that flipping twice changes nothing.
    """
    if lengths is None:
        return jnp.flip(xs, 0)
    t = jnp.arange(xs.shape[0])[:, None]
    lengths = jnp.minimum(as_lengths(lengths, xs.shape[1]), xs.shape[0])
    index = jnp.where(t < lengths, lengths - 1 - t, t)
    return jnp.take_along_axis(xs, index.reshape(*index.shape, *[1] * (xs.ndim - 2)), axis=0)


# Its own transpose: the gradient is a gather too, where JAX would form a scatter.
flip.defvjp(
    lambda xs, lengths: (flip(xs, lengths), lengths),
    lambda lengths, bar: (flip(bar, lengths), None),
)


def select(rows: Array, a: Array, b: Array) -> Array:
    """a where the rows are true, b elsewhere; rows has the leading axes of both."""
    return jnp.where(rows.reshape(*rows.shape, *[1] * (a.ndim - rows.ndim)), a, b)


def restart(now: Rows, state: Carry) -> Carry:
    """The state before a step: zero in the rows that are reset."""
    if now.reset is None:
        return state
    return tuple(select(now.reset, jnp.zeros_like(s), s) for s in state)


def freeze(now: Rows, after: Carry, before: Carry) -> Carry:
    """The state after a step: the one before in rows that have ended."""
    if now.valid is None:
        return after
    return tuple(select(now.valid, a, b) for a, b in zip(after, before, strict=True))
