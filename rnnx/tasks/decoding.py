"""From the outputs of a CTC network to symbols, and how far those are from what was said."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from rnnx.data.speech import BLANK
from rnnx.dropout import Masks
from rnnx.model import VectorModel


def logits(net: VectorModel, batch: dict[str, Array], masks: Masks | None = None) -> Array:
    """(T, B, V) of a batch of utterances; symbol 0 is the blank."""
    xs = jnp.swapaxes(batch["inputs"], 0, 1)
    ys, _ = net.outputs(xs, None, masks, lengths=batch["lengths"])
    return net.project(ys)


def greedy(logits: Array, lengths: Array) -> tuple[Array, Array]:
    """The most probable symbol of each step of logits (T, B, V), and where a new one is emitted.

    The most probable path, collapsed: repeats count once, blanks not at all. Both are (T, B).
    """
    best = jnp.argmax(logits, axis=-1)
    before = jnp.concatenate([jnp.full_like(best[:1], BLANK), best[:-1]])
    inside = jnp.arange(len(best))[:, None] < lengths
    return best, (best != BLANK) & (best != before) & inside


def errors(best: Array, emitted: Array, labels: Array, label_lengths: Array) -> Array:
    """The edit distance of each row's emitted symbols to its labels, (B,).

    The fewest insertions, deletions and substitutions, by the recurrence of Wagner and Fischer
    1974, a row of its table a step; a step that emits nothing leaves the row as it is.

    Args:
      best, emitted: (T, B), as `greedy` gives them.
      labels: (B, S) integers, anything from a row's label length on.
    """
    columns = jnp.arange(labels.shape[1] + 1)

    def body(row: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        symbol, emits = now
        apart = (labels != symbol[:, None]).astype(row.dtype)
        least = jnp.minimum(row[:, 1:] + 1, row[:, :-1] + apart)
        least = jnp.concatenate([row[:, :1] + 1, least], axis=1)
        # new[j] = min over k <= j of least[k] + (j - k)
        after = lax.cummin(least - columns, axis=1) + columns
        return jnp.where(emits[:, None], after, row), None

    begin = jnp.broadcast_to(columns, (len(labels), len(columns)))
    row, _ = lax.scan(body, begin, (best, emitted))
    return jnp.take_along_axis(row, label_lengths[:, None], axis=1)[:, 0]


def collapsed(path: Sequence[int]) -> list[int]:
    """The symbols that a path (T,) emits."""
    path = np.asarray(path)
    new = np.append(True, path[1:] != path[:-1])
    return path[new & (path != BLANK)].tolist()
