"""The attentive reader: a passage and a question in, what the answer is out.

Legend: T time steps of a passage, B batch, n units of a layer, w width of a stack's outputs (n, or
2 n if bidirectional), m word vectors, A answers.

Sources: Hermann et al. 2015, arXiv:1506.03340, for the reader; Cooijmans et al. 2017,
arXiv:1603.09025, section 5.4, for the one that MI was tried in, which adds the term with M and the
mean of the passage. The term is read off that paper's code: an inner product, one number for each
word of the passage.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import heads, products, ragged
from rnnx.cells import Cell
from rnnx.dropout import Masks
from rnnx.layers import Stack
from rnnx.model import uniform


def weights(
    ds: Array, q: Array, lengths: Array, p: dict[str, Array], dtype: Any = jnp.float32
) -> Array:
    """How much each word of a passage counts for a question, (T, B); each row sums to 1.

        a_t = softmax over t of  v . tanh(W_d d_t + b_d + W_q q + (q M) . (d_t M))

    Args:
      ds: (T, B, w), the passage's states; anything from a row's length on.
      q: (B, w), the question's.
      lengths: (B,), words of each passage. From there on the weights are 0; a row of length 0 has
        none.
      p: W_d and W_q (w, n), b_d and v (n,), M (w, w).
      dtype: operands of the products, as in `heads.logits`.
    """
    valid = jnp.arange(ds.shape[0])[:, None] < lengths
    dtype, ds, q, p = products.widen(dtype, ragged.clean(ds, valid), q, p)
    alike = products.product(ds, p["M"], dtype) * products.product(q, p["M"], dtype)
    seen = heads.logits(ds, p["W_d"], p["b_d"], dtype) + products.product(q, p["W_q"], dtype)
    scores = jnp.tanh(seen + jnp.sum(alike, axis=-1, keepdims=True)) @ p["v"]
    scores = jnp.where(valid, scores, jnp.finfo(scores.dtype).min)
    e = jnp.where(valid, jnp.exp(scores - jnp.max(scores, axis=0)), 0)
    return e / jnp.maximum(jnp.sum(e, axis=0), jnp.finfo(e.dtype).tiny)


def summary(
    context: Array, q: Array, mean: Array, p: dict[str, Array], dtype: Any = jnp.float32
) -> Array:
    """What is known of the answer, (B, n).

        g = tanh(W_c c + W_q' q + b + W_m mean)

    Args:
      context: (B, w), c = sum over t of a_t d_t.
      q: (B, w), the question's state.
      mean: (B, w), of the passage's states.
      p: W_c, W_q', W_m (w, n), as `W_c`, `W_q`, `W_m`; b (n,).
    """
    dtype, context, q, mean, p = products.widen(dtype, context, q, mean, p)
    sums = products.product(context, p["W_c"], dtype) + products.product(mean, p["W_m"], dtype)
    return jnp.tanh(sums + heads.logits(q, p["W_q"], p["b"], dtype))


class ReaderMasks(NamedTuple):
    """Dropout of an update. The first of `i` in passage and question is that of word vectors,
    (T, B, m): another mask at each word. `o` is that of g, (B, n)."""

    passage: Masks
    question: Masks
    o: Array | None


class AttentiveReader(nnx.Module):
    """A distribution over answers, from a passage and a question.

        d_t = Passage(E[passage])_t ;  q = the last output of Question(E[question])
        p(answer) = softmax(g S + b),  g as of `summary`, with attention as of `weights`

    Both stacks start from an h of their own, which is learned (0 at first); other states, like an
    LSTM's c, start at 0, as in the code of Cooijmans et al.
    """

    def __init__(
        self,
        cell: Cell,
        vocab_size: int,
        embed_size: int,
        hidden_size: int,
        num_answers: int,
        *,
        init_scale: float = 0.04,
        input_scale: float | None = None,
        dtype: str = "float32",
        remat: int = 0,
        rngs: nnx.Rngs,
        **stack: Any,
    ):
        """Draws E, both stacks, then attention and output; stack: further arguments of `Stack`.

        Recurrent matrices are U(-init_scale, init_scale), all others U(-input_scale, input_scale)
        if that is given, v is U(-1 / sqrt(n), 1 / sqrt(n)), biases are 0.
        """
        self.dtype, self.remat = jnp.dtype(dtype), remat
        scale = init_scale if input_scale is None else input_scale

        drawn = partial(uniform, rngs, scale)

        def stack_of() -> Stack:
            scales = {"init_scale": init_scale, "input_scale": input_scale}
            return Stack(
                cell, embed_size, hidden_size, dtype=self.dtype, rngs=rngs, **scales, **stack
            )

        self.embedding = drawn(vocab_size, embed_size)
        self.passage, self.question = stack_of(), stack_of()
        self.passage_start, self.question_start = (_start(s) for s in (self.passage, self.question))
        n, w = hidden_size, self.passage.out_features
        self.attention = nnx.Dict(
            W_d=drawn(w, n), b_d=nnx.Param(jnp.zeros(n)), W_q=drawn(w, n), M=drawn(w, w),
            v=uniform(rngs, n**-0.5, n),
        )  # fmt: skip
        self.summary = nnx.Dict(
            W_c=drawn(w, n), W_q=drawn(w, n), W_m=drawn(w, n), b=nnx.Param(jnp.zeros(n))
        )
        self.output_weights = drawn(n, num_answers)
        self.output_bias = nnx.Param(jnp.zeros(num_answers))

    def __call__(
        self, batch: dict[str, Array], masks: ReaderMasks | None = None
    ) -> tuple[Array, Array]:
        """Logits of the answers (B, A), and the attention (T, B).

        batch: `inputs` (B, T) and `question` (B, Q), numbers of words, with `lengths` and
        `question_lengths` (B,).
        """
        masks = masks or ReaderMasks(Masks(), Masks(), None)
        lengths, of_question = batch["lengths"], batch["question_lengths"]
        ds = self._read(self.passage, self.passage_start, batch["inputs"], lengths, masks.passage)
        qs = self._read(
            self.question, self.question_start, batch["question"], of_question, masks.question
        )
        q = heads.last(qs, of_question, self.question.bidirectional)
        a = weights(ds, q, lengths, _arrays(self.attention), self.dtype)
        context = jnp.sum(a[..., None] * ds, axis=0)
        g = summary(context, q, heads.mean(ds, lengths), _arrays(self.summary), self.dtype)
        g = g if masks.o is None else g * masks.o
        s, b = self.output_weights[...], self.output_bias[...]
        return heads.logits(g, s, b, self.dtype), a

    def _read(
        self, stack: Stack, start: nnx.List, words: Array, lengths: Array, masks: Masks
    ) -> Array:
        """What a stack gives of words (B, T): (T, B, w), zeros from a row's length on."""
        xs = self.embedding[...][words.T]
        first = iter(start)
        carries = jax.tree.map(
            lambda carry: (jnp.broadcast_to(next(first)[...], carry[0].shape), *carry[1:]),
            stack.zero_carry(xs.shape[1]),
            is_leaf=_is_carry,
        )
        return stack(
            xs, carries, input_masks=masks.i, state_masks=masks.h, lengths=lengths,
            time_major=True, remat=self.remat,
        )[0]  # fmt: skip


def _start(stack: Stack) -> nnx.List:
    """The h that each layer starts from, those that read backward included; (n,) each."""
    carries = jax.tree.leaves(stack.zero_carry(1), is_leaf=_is_carry)
    return nnx.List([nnx.Param(carry[0][0]) for carry in carries])


def _is_carry(tree: Any) -> bool:
    """Whether this is the carry of one layer in one direction."""
    return not isinstance(tree[0], tuple)


def _arrays(params: nnx.Dict) -> dict[str, Array]:
    return {name: p[...] for name, p in params.items()}
