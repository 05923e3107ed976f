"""Sequence models: an input side, a recurrent stack with variational dropout, an output head.

Everything inside is time-major. Dropout masks come in as arguments, so that training, evaluation
and Monte-Carlo dropout are one code path, and a mask can be recorded and replayed.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import scan
from rnnx.cells import Carry, Cell
from rnnx.errors import UserError
from rnnx.layers import Stack


class Masks(NamedTuple):
    """Variational dropout masks of one window: Bernoulli(keep) / keep, constant over time.

    None leaves a place undropped. x is the only one that varies over the window: a scalar for
    each word occurrence, equal words of a row sharing it.
    """

    x: Array | None = None  # (T, B)
    i: tuple[Array, ...] | None = None  # a layer's input: (B, m or n) each
    h: tuple[Array, ...] | None = None  # a layer's state, in every product: (B, n) each
    o: Array | None = None  # (B, n)


class SequenceModel(nnx.Module):
    """What all have in common: the next step's distribution, from the steps so far.

    A kind of sequence says how a step is read (`read`), and what a prediction costs (`loss`).
    """

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
        """Steps (T, B, ...) to the vectors that the stack takes, (T, B, m)."""
        raise NotImplementedError

    def loss(self, ys: Array, targets: Array) -> Array:
        """What the stack gave (T, B, n) and the next steps (T, B, ...) to nats (T, B)."""
        raise NotImplementedError

    def outputs(
        self, inputs: Array, carries: tuple[Carry, ...], masks: Masks | None = None
    ) -> tuple[Array, tuple[Carry, ...]]:
        """What the head reads: y_t (T, B, n), and the state after."""
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
        )
        return (ys if masks.o is None else ys * masks.o), carries

    def nll(
        self,
        inputs: Array,
        targets: Array,
        carries: tuple[Carry, ...],
        masks: Masks | None = None,
    ) -> tuple[Array, tuple[Carry, ...]]:
        """Negative log likelihood of each target (T, B), in nats, and the state after."""
        ys, carries = self.outputs(inputs, carries, masks)
        # By segments too, where memory counts: the logits (T, B, V) are the largest array of all.
        _, nll = scan.in_segments(
            lambda pair, _: (None, self.loss(*pair)), self.remat, (ys, targets), None
        )
        return nll, carries


class LanguageModel(SequenceModel):
    """A distribution over the next token, from the tokens so far.

        x_t = E[token_t] ;  y_t = Stack(x)_t ;  p(token_{t+1}) = softmax(y_t S + b)

    E is (V, embed_size), or the identity if embed_size is 0 (one-hot inputs); S is (n, V), or E
    transposed if tied. RHN paper, section 5; its variational dropout is Gal and Ghahramani 2016,
    arXiv:1512.05287.
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
        uniform = partial(_uniform, rngs, init_scale)
        self.vocab_size = vocab_size
        self.embedding = uniform(vocab_size, embed_size) if embed_size else None
        width = embed_size or vocab_size
        super().__init__(cell, width, hidden_size, init_scale=init_scale, rngs=rngs, **options)
        self.softmax_weights = None if tied else uniform(hidden_size, vocab_size)
        self.softmax_bias = uniform(vocab_size)

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
        if self.softmax_weights is None:
            # Contracted as it lies: XLA would copy E's transpose for every single token.
            last = (((ys.ndim - 1,), (1,)), ((), ()))
            ys, weights = (a.astype(self.dtype) for a in (ys, self.embedding[...]))
            scores = jax.lax.dot_general(ys, weights, last, preferred_element_type=jnp.float32)
        else:
            scores = scan.product(ys, self.softmax_weights[...], self.dtype)
        return scores + self.softmax_bias[...]

    def loss(self, ys: Array, targets: Array) -> Array:
        """Cross-entropy of the next token."""
        return optax.softmax_cross_entropy_with_integer_labels(self.logits(ys), targets)


class PianoRollModel(SequenceModel):
    """Which of K keys sound in the next step, from the steps so far.

        p(key k sounds at t + 1) = sigmoid((y_t S + b)_k),  y_t = Stack(x)_t

    x_t (K,) are zeros and ones; S is (n, K). Keys are independent given the past, as in the
    next-step prediction of the RHN paper's optimization experiment. A step's nats are the sum
    over its keys.
    """

    def __init__(
        self,
        cell: Cell,
        keys: int,
        hidden_size: int,
        *,
        init_scale: float = 0.04,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Draws the stack, S and b, in this order; options are those of `SequenceModel`."""
        super().__init__(cell, keys, hidden_size, init_scale=init_scale, rngs=rngs, **options)
        self.output_weights = _uniform(rngs, init_scale, hidden_size, keys)
        self.output_bias = _uniform(rngs, init_scale, keys)

    def read(self, inputs: Array) -> Array:
        """Vectors (T, B, K) are taken as they are."""
        return inputs

    def loss(self, ys: Array, targets: Array) -> Array:
        """Binary cross-entropies of the next step's keys (T, B, K), summed."""
        logits = scan.product(ys, self.output_weights[...], self.dtype) + self.output_bias[...]
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def _uniform(rngs: nnx.Rngs, scale: float, *shape: int) -> nnx.Param:
    return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -scale, scale))


def draw_masks(key: Array, config: ConfigDict, rows: Array, num_words: int) -> Masks:
    """Draws masks for some rows of a batch; x is one draw for each of num_words, (B, num_words).

    A row's masks depend on the key and on the row's place in the global batch alone: however the
    batch is spread over devices, they are the same.

    Args:
      key: of this window, or of this pass.
      config: resolved; its drop_x, drop_i, drop_h, drop_o and sizes.
      rows: (B,) places in the global batch.
      num_words: a window's length T in training, the vocabulary's size where masks are held for
        a whole pass. `share_draws` and `look_up_draws` then give x its form (T, B).
    """
    n, layers = config.hidden_size, config.num_layers

    def row(key: Array) -> Masks:
        key_x, key_i, key_h, key_o = jax.random.split(key, 4)
        return Masks(
            x=bernoulli_mask(key_x, config.drop_x, (num_words,)),
            i=_per_layer(key_i, config.drop_i, (config.embed_size, *[n] * (layers - 1))),
            h=_per_layer(key_h, config.drop_h, (n,) * layers),
            o=bernoulli_mask(key_o, config.drop_o, (n,)),
        )

    return jax.vmap(row)(jax.vmap(partial(jax.random.fold_in, key))(rows))


def share_draws(masks: Masks, tokens: Array) -> Masks:
    """A window's x mask (T, B) from T draws a row: equal words take the first one's draw."""
    if masks.x is None:
        return masks
    first_of_equals = jnp.argmax(tokens[:, None] == tokens[None], axis=1)  # (T, B)
    return masks._replace(x=jnp.take_along_axis(masks.x.T, first_of_equals, axis=0))


def look_up_draws(masks: Masks, tokens: Array) -> Masks:
    """The x mask (T, B) of tokens from one draw a word of the vocabulary and row."""
    if masks.x is None:
        return masks
    return masks._replace(x=jnp.take_along_axis(masks.x.T, tokens, axis=0))


def bernoulli_mask(key: Array, drop: float, shape: tuple[int, ...]) -> Array | None:
    """Bernoulli(1 - drop) / (1 - drop); None when nothing is dropped."""
    if not drop:
        return None
    return jax.random.bernoulli(key, 1 - drop, shape) / jnp.float32(1 - drop)


def _per_layer(key: Array, drop: float, widths: tuple[int, ...]) -> tuple[Array, ...] | None:
    if not drop:
        return None
    keys = jax.random.split(key, len(widths))
    return tuple(bernoulli_mask(k, drop, (w,)) for k, w in zip(keys, widths, strict=True))


# ---------------------------------------------------------------------------- from a config


def build(config: ConfigDict, vocab_size: int) -> SequenceModel:
    """The model a resolved config describes, its variables drawn from config.seed."""
    options = {
        "num_layers": config.num_layers,
        "init_scale": config.init_scale,
        "input_scale": config.input_scale or None,
        "dtype": config.dtype,
        "remat": config.remat,
        "rngs": nnx.Rngs(config.seed),
        "transform_bias": config.transform_bias,
        "forget_bias": config.forget_bias,
        "mi_init": tuple(config.mi_init),
    }
    if config.level == "roll":
        return PianoRollModel(cell_of(config), vocab_size, config.hidden_size, **options)
    return LanguageModel(
        cell_of(config),
        vocab_size,
        config.hidden_size,
        embed_size=0 if config.one_hot else config.embed_size,
        tied=config.tied,
        **options,
    )


def cell_of(config: ConfigDict) -> Cell:
    """The recurrent cell a config describes."""
    return Cell(config.cell, config.integration, config.depth, config.coupled, config.reset_after)


def recurrent_bytes(config: ConfigDict) -> int:
    """Of all recurrent matrices of a resolved config, as the products take them."""
    gates = sum(map(len, cell_of(config).blocks))
    size = jnp.dtype(config.dtype).itemsize
    return size * config.num_layers * gates * config.hidden_size**2


def resolve(config: ConfigDict, vocab_size: int) -> ConfigDict:
    """The config with hidden_size solved from param_budget and embed_size from the rule.

    Raises:
      UserError: when not even one unit fits the budget, or embed_size is set where it follows from
        other fields.
    """
    if config.one_hot and config.embed_size not in (0, vocab_size):
        raise UserError(
            f"one_hot inputs have no embedding: embed_size={config.embed_size} must be 0"
        )
    if config.level == "roll" and config.embed_size not in (0, vocab_size):
        raise UserError(f"piano rolls have no embedding: embed_size={config.embed_size} must be 0")
    if config.tied and config.embed_size and config.param_budget:
        raise UserError("param_budget solves the width of a tied network: leave embed_size at 0")
    config = config.copy_and_resolve_references()
    if config.param_budget:
        # Parameters grow with width: double to a bracket, then halve it.
        fits, exceeds = 0, 1
        while parameter_count(_at_width(config, exceeds, vocab_size), vocab_size) <= (
            config.param_budget
        ):
            fits, exceeds = exceeds, 2 * exceeds
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            count = parameter_count(_at_width(config, middle, vocab_size), vocab_size)
            fits, exceeds = (middle, exceeds) if count <= config.param_budget else (fits, middle)
        if not fits:
            raise UserError(
                f"param_budget={config.param_budget} is too small for one unit over "
                f"{vocab_size:,} symbols"
            )
        return _at_width(config, fits, vocab_size)
    return _at_width(config, config.hidden_size, vocab_size)


def _at_width(config: ConfigDict, n: int, vocab_size: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.hidden_size = n
    if not config.embed_size:
        words = config.level == "word" and not config.one_hot
        config.embed_size = n if config.tied or words else vocab_size
    return config


def parameter_count(config: ConfigDict, vocab_size: int) -> int:
    """Number of parameters of the model a resolved config describes."""
    return sum(p.size for p in abstract(config, vocab_size)[1].values())


def split(model: SequenceModel) -> tuple[nnx.GraphDef, dict[str, Array]]:
    """The model's structure, and its parameters as a flat dict of arrays, by dotted name."""
    graphdef, state = nnx.split(model)
    return graphdef, {
        ".".join(map(str, path)): p.get_value() for path, p in nnx.to_flat_state(state)
    }


def merge(graphdef: nnx.GraphDef, params: dict[str, Array]) -> SequenceModel:
    """The model with these parameters: the inverse of `split`."""
    paths = {
        tuple(int(part) if part.isdigit() else part for part in name.split(".")): p
        for name, p in params.items()
    }
    return nnx.merge(graphdef, nnx.from_flat_state(paths))


def abstract(config: ConfigDict, vocab_size: int) -> tuple[nnx.GraphDef, dict[str, Array]]:
    """`split` of the model a resolved config describes, with shapes in place of arrays."""
    return split(nnx.eval_shape(lambda: build(config, vocab_size)))
