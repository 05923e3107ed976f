"""The network of the task `sentences`: one encoder, and decoders of the sentences around."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import heads, scan
from rnnx.cells import Cell
from rnnx.layers import Stack
from rnnx.model import uniform

SIDES = ("before", "after")


class SkipThought(nnx.Module):
    """A vector of a sentence, from which the sentences before and after it are written.

        h = Stack(E[w])_end ;  y_t = Decoder([E[v_{t-1}]; h])_t ;  p(v_t) = softmax(y_t S + b)

    w is the sentence, v the one before or after it, all ended by `<eos>`; v_0 has the zero vector.
    E and S serve both sides, each of which has a decoder of its own: one layer of the encoder's
    cell with additive integration, as wide as h.

    Kiros et al. 2015, arXiv:1506.06726, section 2.1: as in its eq. 5 to 8, the decoder sees h at
    every step (W [x; h] is their W x + C h). The authors' code gives h as the decoder's first
    state only. Theirs start uniform, but U orthogonal (`orthogonal`).
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
        input_scale: float | None = None,
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
          init_scale, input_scale: recurrent matrices are U(-init_scale, init_scale), all others
            U(-input_scale, input_scale) if that is given.
          **options: as of `Stack`, of all three.
        """

        drawn = partial(uniform, rngs, init_scale if input_scale is None else input_scale)
        self.dtype, self.remat = jnp.dtype(dtype), remat
        scales = {"init_scale": init_scale, "input_scale": input_scale}
        layer = partial(Stack, dtype=self.dtype, rngs=rngs, **scales, **options)
        self.embedding = drawn(vocab_size, embed_size)
        self.stack = layer(
            cell, embed_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional
        )
        width = self.stack.out_features
        additive = dataclasses.replace(cell, integration="additive", mi_gates="")
        self.before, self.after = (layer(additive, embed_size + width, width) for _ in SIDES)
        self.softmax_weights = drawn(width, vocab_size)
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

    def nll(self, batch: dict[str, Array], drawn: Array | None = None) -> Array:
        """Nats of each word of both sides, (T, 2 B), zero after the end of a sentence.

        drawn (K,): words that stand for all rare ones, see `sampled`; None is the whole softmax.
        """
        xs = self.embedding[...][batch["inputs"].T]
        h = self.encode(xs, batch["inputs_lengths"])
        ys = [self.written(side, batch[side].T, h, batch[f"{side}_lengths"]) for side in SIDES]
        ys = jnp.concatenate(ys, axis=1)
        words = jnp.concatenate([batch[side].T for side in SIDES], axis=1)

        def costs(steps: tuple[Array, Array], _: None) -> tuple[None, Array]:
            if drawn is None:
                return None, heads.softmax(self.logits(steps[0]), steps[1])
            return None, self.sampled(*steps, drawn)

        # By segments, where memory counts: logits (T, 2 B, V) are the largest array of all.
        _, nats = scan.in_segments(costs, self.remat, (ys, words), None)
        lengths = jnp.concatenate([batch[f"{side}_lengths"] for side in SIDES])
        return jnp.where(jnp.arange(len(nats))[:, None] < lengths, nats, 0)

    def sampled(self, ys: Array, words: Array, drawn: Array) -> Array:
        """An estimate of the nats of words (...) after ys (..., E), at 2 K / V of the cost.

            log(sum of e^s over the K most frequent words, the word itself,
                and R / K times those drawn) - s_word

        drawn (K,) are drawn without replacement from the R = V - K other words; ids go by
        frequency. The sum is that of the whole softmax on average, so that its logarithm is a
        little low. Importance sampling of the normalization: Jean et al. 2015, arXiv:1412.2007.
        """
        weights, bias, few = self.softmax_weights[...], self.softmax_bias[...], len(drawn)
        own = jnp.sum(ys * weights.T[words], axis=-1) + bias[words]
        frequent = heads.logits(ys, weights[:, :few], bias[:few], self.dtype)
        rare = heads.logits(ys, weights[:, drawn], bias[drawn], self.dtype)
        rare = jnp.where(drawn == words[..., None], -jnp.inf, rare)
        rare = rare + math.log((len(bias) - few) / few)
        alone = jnp.where(words < few, -jnp.inf, own)  # else among the frequent ones already
        every = jnp.concatenate([frequent, rare, alone[..., None]], axis=-1)
        return jax.nn.logsumexp(every, axis=-1) - own

    def logits(self, ys: Array) -> Array:
        """ys (..., E) to logits (..., V)."""
        return heads.logits(ys, self.softmax_weights[...], self.softmax_bias[...], self.dtype)
