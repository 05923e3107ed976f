"""Networks around a recurrent stack: an input side, the stack with dropout, an output side.

Everything inside is time-major. Dropout masks come in as arguments (`dropout.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import heads, scan
from rnnx.cells import Carry, Cell
from rnnx.dropout import Masks
from rnnx.layers import Stack


class SequenceModel(nnx.Module):
    """What all have in common: vectors from inputs (`read`), a stack, outputs (`project`)."""

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_size: int,
        *,
        dtype: str = "float32",
        remat: int = 0,
        **stack: Any,
    ):
        """The stack, on vectors of in_features; further arguments are those of `Stack`."""
        self.dtype, self.remat = jnp.dtype(dtype), remat
        self.stack = Stack(cell, in_features, hidden_size, dtype=self.dtype, **stack)

    def read(self, inputs: Array) -> Array:
        """Inputs (T, B, ...) to the vectors that the stack takes, (T, B, m)."""
        raise NotImplementedError

    def project(self, ys: Array) -> Array:
        """What the stack gave, (..., n), to the outputs that a cost reads, (..., K)."""
        raise NotImplementedError

    def outputs(
        self,
        inputs: Array,
        carries: tuple[Carry, ...] | None,
        masks: Masks | None = None,
        **sequences: Any,
    ) -> tuple[Array, tuple[Carry, ...]]:
        """y_t (T, B, n), after output dropout, and the state after.

        `sequences`: `lengths` and `reset`, as of `Stack`. carries None is the zero state.
        """
        masks = Masks() if masks is None else masks
        x = self.read(inputs)
        if masks.x is not None:
            x = x * masks.x[..., None]
        ys, carries = self.stack(
            x,
            carries,
            input_masks=masks.i,
            state_masks=masks.h,
            time_major=True,
            remat=self.remat,
            **sequences,
        )
        return (ys if masks.o is None else ys * masks.o), carries

    def step_costs(
        self,
        cost: Callable[[Array, Array], Array],
        inputs: Array,
        targets: Array,
        carries: tuple[Carry, ...],
        masks: Masks | None = None,
    ) -> tuple[Array, tuple[Carry, ...]]:
        """cost(y, targets) of every step, (T, B), and the state after; y as `outputs` gives it."""
        ys, carries = self.outputs(inputs, carries, masks)
        # By segments too, where memory counts: a language model's logits (T, B, V) are the
        # largest array of all.
        _, costs = scan.in_segments(
            lambda pair, _: (None, cost(*pair)),
            self.remat,
            (ys, targets),
            None,
        )
        return costs, carries


class LanguageModel(SequenceModel):
    """A distribution over the next token, from the tokens so far.

        x_t = E[token_t] ;  y_t = Stack(x)_t ;  p(token_{t+1}) = softmax(y_t S + b)

    E is (V, embed_size), or the identity if embed_size is 0 (one-hot inputs); S is (n, V), or E
    transposed if tied. RHN paper, section 5.
    """

    def __init__(
        self,
        cell: Cell,
        vocab_size: int,
        hidden_size: int,
        *,
        embed_size: int = 0,
        tied: bool = False,
        init_scale: float = 0.04,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draws E, the stack, S and b, in this order; options are those of `SequenceModel`."""
        drawn = partial(uniform, rngs, init_scale)
        self.vocab_size = vocab_size
        self.embedding = drawn(vocab_size, embed_size) if embed_size else None
        width = embed_size or vocab_size
        super().__init__(cell, width, hidden_size, init_scale=init_scale, rngs=rngs, **options)
        self.softmax_weights = None if tied else drawn(hidden_size, vocab_size)
        self.softmax_bias = drawn(vocab_size)

    def __call__(
        self, tokens: Array, carries: tuple[Carry, ...], masks: Masks | None = None
    ) -> tuple[Array, tuple[Carry, ...]]:
        """tokens (T, B) and the state before them to logits (T, B, V) and the state after."""
        ys, carries = self.outputs(tokens, carries, masks)
        return self.logits(ys), carries

    def read(self, inputs: Array) -> Array:
        """Tokens (T, B) to their rows of E."""
        if self.embedding is None:
            return jax.nn.one_hot(inputs, self.vocab_size)
        return self.embedding[...][inputs]

    def logits(self, ys: Array) -> Array:
        """ys (..., n) to the logits of the next token (..., V)."""
        bias = self.softmax_bias[...]
        if self.softmax_weights is None:
            return heads.tied_logits(ys, self.embedding[...], bias, self.dtype)
        return heads.logits(ys, self.softmax_weights[...], bias, self.dtype)

    project = logits

    def nll(
        self,
        tokens: Array,
        targets: Array,
        carries: tuple[Carry, ...],
        masks: Masks | None = None,
    ) -> tuple[Array, tuple[Carry, ...]]:
        """Negative log likelihood of each target (T, B), in nats, and the state after."""

        def cost(ys: Array, targets: Array) -> Array:
            if self.softmax_weights is None:
                weights = self.embedding[...], self.softmax_bias[...]
                return heads.tied_softmax(ys, *weights, targets, self.dtype)
            return heads.softmax(self.logits(ys), targets)

        return self.step_costs(cost, tokens, targets, carries, masks)


class VectorModel(SequenceModel):
    """Numbers in, K outputs from each state: y_t S + b, with y_t = Stack(x)_t.

    What the outputs mean is up to the cost that reads them. S is (n, K), n the stack's output.
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_size: int,
        num_outputs: int,
        *,
        init_scale: float = 0.04,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draws the stack, S and b, in this order; options are those of `SequenceModel`."""
        super().__init__(
            cell, in_features, hidden_size, init_scale=init_scale, rngs=rngs, **options
        )
        width = self.stack.out_features
        self.output_weights = uniform(rngs, init_scale, width, num_outputs)
        self.output_bias = uniform(rngs, init_scale, num_outputs)

    def read(self, inputs: Array) -> Array:
        """Vectors (T, B, m) are taken as they are."""
        return inputs

    def project(self, ys: Array) -> Array:
        """ys (..., n) to the outputs (..., K)."""
        weights, bias = self.output_weights[...], self.output_bias[...]
        return heads.logits(ys, weights, bias, self.dtype)


def restarted(carries: Any, fresh: Array) -> Any:
    """The state with the rows where fresh (B,) is 1 put back to zero."""
    return jax.tree.map(lambda h: jnp.where(fresh[:, None] > 0, 0, h), carries)


def uniform(rngs: nnx.Rngs, scale: float, *shape: int) -> nnx.Param:
    """A variable drawn from U(-scale, scale)."""
    return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -scale, scale))


# ------------------------------------------------------------------------- as flat dicts of arrays


def split(model: nnx.Module) -> tuple[nnx.GraphDef, dict[str, Array]]:
    """The model's structure, and its parameters as a flat dict of arrays, by dotted name.

    Raises:
      ValueError: when the model has variables that are not `nnx.Param`: each would be trained.
    """
    graphdef, state, rest = nnx.split(model, nnx.Param, ...)
    if other := nnx.to_flat_state(rest):
        path, variable = other[0]
        name, kind = ".".join(map(str, path)), type(variable).__name__
        raise ValueError(
            f"{name} is a {kind}: rnnx trains networks whose variables are all nnx.Param "
            "(dropout comes from Task.masks)"
        )
    return graphdef, {
        ".".join(map(str, path)): p.get_value() for path, p in nnx.to_flat_state(state)
    }


def merge(graphdef: nnx.GraphDef, params: dict[str, Array]) -> Any:
    """The model with these parameters: the inverse of `split`."""
    paths = {
        tuple(int(part) if part.isdigit() else part for part in name.split(".")): p
        for name, p in params.items()
    }
    return nnx.merge(graphdef, nnx.from_flat_state(paths))
