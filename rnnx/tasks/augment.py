"""Parts of an utterance's sound that training hides, so that no part is relied on alone.

SpecAugment without time warping: Park et al. 2019, arXiv:1904.08779, section 2. Two runs of bands
and two of steps are set to 0, the mean of scaled features. Each run's length is uniform from 0 to
the longest, its place uniform too.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

RUNS = 2  # of bands, and of steps


def hidden(
    key: Array, rows: Array, lengths: Array, shape: tuple[int, int], *, bands: int, most: tuple
) -> Array:
    """1 for what is seen, 0 for what is hidden, (B, T, F).

    Args:
      key: of an update.
      rows: (B,) places in the global batch: each has the same runs however it is spread.
      lengths: (B,) steps of each utterance.
      shape: T and F; a step's F features are so many times the bands, one after the other.
      most: the longest run of bands, and of steps.
    """

    def row(key: Array, length: Array) -> Array:
        of_bands, of_steps = jax.random.split(key)
        seen = _seen(of_bands, bands, jnp.int32(bands), most[0])
        steps = _seen(of_steps, shape[0], length, most[1])
        return steps[:, None] * jnp.tile(seen, shape[1] // bands)

    # Apart from the keys of dropout, which are one row's number away from that of the update.
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, 0x5350)))(rows)
    return jax.vmap(row)(keys, lengths)


def _seen(key: Array, count: int, length: Array, most: int) -> Array:
    """(count,): 0 in `RUNS` runs of at most so many of the first `length`, 1 elsewhere."""
    of_size, of_start = jax.random.split(key)
    size = jax.random.randint(of_size, (RUNS, 1), 0, jnp.minimum(most, length) + 1)
    start = jax.random.randint(of_start, (RUNS, 1), 0, length - size + 1)
    at = jnp.arange(count)
    return 1.0 - jnp.any((at >= start) & (at < start + size), axis=0)
