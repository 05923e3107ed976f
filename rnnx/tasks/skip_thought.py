"""The network of the task `sentences`: one encoder, and decoders of the sentences around."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import heads, scan
from rnnx.cells import Cell
from rnnx.layers import Stack

SIDES = ("before", "after")


class SkipThought(nnx.Module):
    """A vector of a sentence, from which the sentences before and after it are written.

        h = Stack(E[w])_end ;  y_t = Decoder([E[v_{t-1}]; h])_t ;  p(v_t) = softmax(y_t S + b)

    w is the sentence, v the one before or after it, all ended by `<eos>`; v_0 has the zero vector.
    E and S serve both sides, each of which has a decoder of its own: one layer of the encoder's
    cell with additive integration, as wide as h.

    Kiros et al. 2015, arXiv:1506.06726, section 2.1: as in its eq. 5 to 8, the decoder sees h at
    every step (W [x; h] is their W x + C h). The authors' code gives h as the decoder's first
    state only. Matrices start uniform here; theirs do too, but U orthogonal.
    """

    def __init__(
        self,
        cell: Cell,
        vocab_size: int,
        embed_size: int,
        hidden_size: int,
        *,
        bidirectional: bool = False,
        num_layers: int = 1,
        init_scale: float = 0.1,
        dtype: str = "float32",
        remat: int = 0,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draws E, the encoder, the decoders and S, in this order; b starts at 0.

        Args:
          cell: of the encoder.
          bidirectional, num_layers: of the encoder; h is what reads forward beside what reads
            backward.
          **options: as of `Stack`, of all three.
        """

        def uniform(*shape: int) -> nnx.Param:
            key = rngs.params()
            return nnx.Param(jax.random.uniform(key, shape, jnp.float32, -init_scale, init_scale))

        self.dtype, self.remat = jnp.dtype(dtype), remat
        layer = partial(Stack, init_scale=init_scale, dtype=self.dtype, rngs=rngs, **options)
        self.embedding = uniform(vocab_size, embed_size)
        self.stack = layer(
            cell, embed_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        width = self.stack.out_features
        additive = dataclasses.replace(cell, integration="additive", mi_gates="")
        self.before, self.after = (layer(additive, embed_size + width, width) for _ in SIDES)
        self.softmax_weights = uniform(width, vocab_size)
        self.softmax_bias = nnx.Param(jnp.zeros(vocab_size))

    def encode(self, xs: Array, lengths: Array) -> Array:
        """h (B, E) of word vectors (T, B, m), of which each row has so many (B,)."""
        ys, _ = self.stack(xs, lengths=lengths, time_major=True, remat=self.remat)
        return heads.last(ys, lengths, self.stack.bidirectional)

    def written(self, side: str, words: Array, h: Array, lengths: Array) -> Array:
        """y_t (T, B, E) of the decoder of a side that has written words (T, B) so far."""
        xs = self.embedding[...][words]
        xs = jnp.concatenate([jnp.zeros_like(xs[:1]), xs[:-1]])
        xs = jnp.concatenate([xs, jnp.broadcast_to(h, (*xs.shape[:2], *h.shape[1:]))], axis=-1)
        stack = getattr(self, side)
        return stack(xs, lengths=lengths, time_major=True, remat=self.remat)[0]

    def nll(self, batch: dict[str, Array]) -> Array:
        """Nats of each word of both sides, (T, 2 B), zero after the end of a sentence."""
        xs = self.embedding[...][batch["inputs"].T]
        h = self.encode(xs, batch["inputs_lengths"])
        ys = [self.written(side, batch[side].T, h, batch[f"{side}_lengths"]) for side in SIDES]
        ys = jnp.concatenate(ys, axis=1)
        words = jnp.concatenate([batch[side].T for side in SIDES], axis=1)

        def costs(_: None, steps: tuple[Array, Array]) -> tuple[None, Array]:
            return None, heads.softmax(self.logits(steps[0]), steps[1])

        # By segments, where memory counts: logits (T, 2 B, V) are the largest array of all.
        _, nats = scan.in_segments(lambda steps, _: costs(_, steps), self.remat, (ys, words), None)
        lengths = jnp.concatenate([batch[f"{side}_lengths"] for side in SIDES])
        return jnp.where(jnp.arange(len(nats))[:, None] < lengths, nats, 0)

    def logits(self, ys: Array) -> Array:
        """ys (..., E) to logits (..., V)."""
        return heads.logits(ys, self.softmax_weights[...], self.softmax_bias[...], self.dtype)
