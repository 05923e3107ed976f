"""Flax NNX modules over the transitions: cells for `nnx.RNN`, fast layers, and stacks of layers.

A cell is one time step and obeys `nnx.RNNCellBase`, so it works in `nnx.RNN` and
`nnx.Bidirectional`. A layer runs the same parameters over time by `scan.unroll`: input terms in
one product, weight gradients in one product after the scan. Use layers to train, cells where
steps come one at a time. The equations and their sources are in `cells.py`.

    layer = rnnx.RHN(in_features, hidden, depth=5, integration="mi", rngs=nnx.Rngs(0))
    ys, carry = layer(xs)            # xs (B, T, in_features), ys (B, T, hidden)
"""

import dataclasses
import inspect
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import cells, parameters, products, ragged, scan
from rnnx.cells import CELLS, Carry, Cell, Params


class _SignatureOfInit:
    """The signature of a class is that of its `__init__`: flax's metaclass would hide it."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is not None:  # an instance is called by `__call__`
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class _Recurrent(nnx.Module):
    """Owns the parameters of one cell: a list of blocks, each a dict of `nnx.Param`."""

    __signature__ = _SignatureOfInit()

    cell: Cell
    in_features: int
    hidden_features: int
    dtype: Any
    blocks: nnx.List

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        *,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **init: Any,
    ):
        """Draws the parameters.

        Args:
          cell: which equations.
          in_features, hidden_features: m and n.
          dtype: operand type of the matrix products; state and parameters stay float32. Given
            float64 inputs or states (see `jax_enable_x64`), all is computed in float64; with dtype
            float64 it is, whatever their type.
          rngs: its `params` stream is drawn from.
          **init: the scales and constants that `parameters.init` takes.
        """
        self.cell = cell
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype = dtype
        params = parameters.init(cell, rngs.params(), in_features, hidden_features, **init)
        self.blocks = nnx.List(
            [nnx.Dict({name: nnx.Param(p) for name, p in block.items()}) for block in params]
        )

    @property
    def params(self) -> Params:
        """The blocks as plain arrays, as `cells` and `scan` take them."""
        return tuple({name: p[...] for name, p in block.items()} for block in self.blocks)


class RecurrentCell(_Recurrent, nnx.RNNCellBase):
    """One time step of a cell, for `nnx.RNN` and `nnx.Bidirectional`."""

    def __call__(
        self, carry: Carry, inputs: Array, mask: Array | None = None
    ) -> tuple[Carry, Array]:
        """carry and inputs (B, m) to the next carry and the output (B, n).

        Leading axes other than one batch axis work too; mask is as in `cells.step`.
        """
        dtype, params, inputs, carry, mask = products.widen(
            self.dtype, self.params, inputs, carry, mask
        )
        params = products.cast_matrices(params, dtype)
        wx = cells.project(params, inputs)
        carry = cells.step(self.cell, params, carry, wx, mask)
        return carry, carry[0]

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Carry:
        """The carry for inputs of shape (..., m): zeros, or what carry_init(key, shape) draws.

        The zeros are float32, or float64 if `dtype` is: a shape says nothing of the inputs' type.
        """
        shape = (*input_shape[:-1], self.hidden_features)
        if carry_init is None:
            dtype = jnp.promote_types(jnp.float32, self.dtype)
            return tuple(jnp.zeros(shape, dtype) for _ in range(self.cell.num_states))
        stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
        return tuple(carry_init(stream(), shape) for _ in range(self.cell.num_states))

    @property
    def num_feature_axes(self) -> int:
        return 1


class RecurrentLayer(_Recurrent):
    """A cell run over time, with the fast backward pass of `scan.py`."""

    def __call__(
        self,
        xs: Array,
        carry: Carry | None = None,
        *,
        mask: Array | None = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        time_major: bool = False,
        remat: int = 0,
    ) -> tuple[Array, Carry]:
        """xs (B, T, m), or (T, B, m) if time_major, to ys of the same layout and the last carry.

        Args:
          carry: state before the first step, each (B, n); None is the zero state.
          mask: (B, n), the variational dropout mask of the state; linear cells ignore it.
          lengths: (B,) integers, the steps of each row's sequence. From there on ys is zero, xs
            may hold anything, and the carry returned is the one at the length. `nnx.RNN` calls
            this seq_lengths.
          reset: booleans, (B, T) or (T, B) like xs: where true, the row's state is set to zero
            before that step.
          remat: as in `scan.unroll`.

        Raises:
          ValueError: when any of these has another shape, or lengths or reset another type.
        """
        xs, reset = _time_first(xs, reset, self.in_features, time_major)
        if carry is None:
            carry = cells.zero_carry(self.cell, xs.shape[1], self.hidden_features)
        ys, carry = scan.unroll(
            self.cell, self.params, xs, carry, mask, self.dtype, remat, lengths, reset
        )
        return (ys if time_major else jnp.swapaxes(ys, 0, 1)), carry


def _time_first(
    xs: Array, reset: Array | None, m: int, time_major: bool
) -> tuple[Array, Array | None]:
    """xs (T, B, m) and reset (T, B), from either layout. Raises ValueError on another shape."""
    xs = jnp.asarray(xs)
    if xs.ndim != 3 or xs.shape[2] != m:
        axes = "time, batch" if time_major else "batch, time"
        raise ValueError(f"xs must be ({axes}, {m}), not {xs.shape}")
    if time_major:
        return xs, reset
    return jnp.swapaxes(xs, 0, 1), None if reset is None else jnp.swapaxes(reset, 0, 1)


class Stack(nnx.Module):
    """Layers one over the other: each takes the outputs of the one below as inputs.

        stack = rnnx.Stack(rnnx.Cell("lstm"), 128, 256, num_layers=2, rngs=nnx.Rngs(0))
        ys, carries = stack(xs)

    In a bidirectional stack every layer has a second set of parameters that reads its inputs from
    the last valid step to the first; its output joins both, (.., 2 n). Schuster and Paliwal 1997.

    Attributes:
      layers: one `RecurrentLayer` a layer.
      backward: those that read backward; None unless bidirectional.
    """

    __signature__ = _SignatureOfInit()

    layers: nnx.List
    backward: nnx.List | None

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        **options: Any,
    ):
        """Draws the parameters of all layers, then of those that read backward.

        Args:
          cell: which equations.
          in_features, hidden_features: m of the first layer, and n of every layer.
          **options: as of `RecurrentLayer`.
        """
        above = 2 * hidden_features if bidirectional else hidden_features

        def layers() -> nnx.List:
            return nnx.List(
                [
                    RecurrentLayer(cell, above if i else in_features, hidden_features, **options)
                    for i in range(num_layers)
                ]
            )

        self.layers = layers()
        self.backward = layers() if bidirectional else None

    @property
    def bidirectional(self) -> bool:
        """Whether every layer reads in both directions."""
        return self.backward is not None

    @property
    def in_features(self) -> int:
        """Width of the stack's inputs."""
        return self.layers[0].in_features

    @property
    def out_features(self) -> int:
        """Width of the stack's outputs: n, or 2 n if bidirectional."""
        return self.layers[-1].hidden_features * (2 if self.bidirectional else 1)

    @property
    def input_widths(self) -> tuple[int, ...]:
        """Width of each layer's inputs."""
        return tuple(layer.in_features for layer in self.layers)

    def zero_carry(self, batch_size: int) -> tuple[Any, ...]:
        """The zero state of every layer; a pair (forward, backward) each if bidirectional."""

        def zero(layer: RecurrentLayer) -> Carry:
            return cells.zero_carry(layer.cell, batch_size, layer.hidden_features)

        if self.backward is None:
            return tuple(zero(layer) for layer in self.layers)
        return tuple(
            (zero(ahead), zero(back))
            for ahead, back in zip(self.layers, self.backward, strict=True)
        )

    def __call__(
        self,
        xs: Array,
        carries: tuple[Any, ...] | None = None,
        *,
        input_masks: tuple[Array | None, ...] | None = None,
        state_masks: tuple[Any, ...] | None = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        time_major: bool = False,
        remat: int = 0,
    ) -> tuple[Array, tuple[Any, ...]]:
        """As a layer, with one carry a layer.

        Args:
          carries: each layer's, as of `zero_carry`. The backward one stands after a row's last
            valid step before the call and before its first step after it.
          input_masks: one (B, m) a layer, of the widths `input_widths`; multiply a layer's input
            at every step.
          state_masks: one (B, n) a layer, or one pair of them (forward, backward) if
            bidirectional: each layer's mask.

        Raises:
          ValueError: on reset in a bidirectional stack, whose states come from the future too;
            when anything has another shape, or lengths or reset another type.
        """
        if self.bidirectional and reset is not None:
            raise ValueError("reset is for stacks that read forward only, not for bidirectional")
        ys, reset = _time_first(xs, reset, self.in_features, time_major)
        lengths = None if lengths is None else ragged.as_lengths(lengths, ys.shape[1])
        # Before the masks: a NaN in padding would reach their gradients.
        ys = ragged.clean(ys, ragged.select_rows(ys, lengths, reset).valid)
        last = []
        shared = {"lengths": lengths, "reset": reset, "time_major": True, "remat": remat}
        none = (None,) * len(self.layers)
        for i, (carry, drop_in, drop_state) in enumerate(
            zip(carries or none, input_masks or none, state_masks or none, strict=True)
        ):
            ys = ys if drop_in is None else ys * drop_in
            if self.backward is None:
                ys, carry = self.layers[i](ys, carry, mask=drop_state, **shared)
            else:
                ys, carry = self._both_ways(i, ys, carry, drop_state, shared)
            last.append(carry)
        return (ys if time_major else jnp.swapaxes(ys, 0, 1)), tuple(last)

    def _both_ways(
        self, i: int, xs: Array, carry: Any, mask: Any, shared: dict[str, Any]
    ) -> tuple[Array, tuple[Carry, Carry]]:
        """Layer i in both directions, on xs (T, B, m)."""
        carry, mask = carry or (None, None), mask or (None, None)
        ahead, last = self.layers[i](xs, carry[0], mask=mask[0], **shared)
        flipped = ragged.flip(xs, shared["lengths"])
        back, first = self.backward[i](flipped, carry[1], mask=mask[1], **shared)
        return jnp.concatenate([ahead, ragged.flip(back, shared["lengths"])], axis=-1), (
            last,
            first,
        )


# ---------------------------------------------------------------------------- cells by name

# Type and default of every keyword, where it is defined.
_KEYWORDS = {
    **inspect.signature(Cell).parameters,
    **inspect.signature(parameters.init).parameters,
    **inspect.signature(_Recurrent.__init__).parameters,
}
_MEANINGS = {
    "integration": "`additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.",
    "depth": "transition depth L.",
    "coupled": "carry gate 1 - t, or one of its own.",
    "reset_after": "the reset gate acts on `U h`, or on `h` before the product.",
    "input_every": "the input enters at every l, or at the first only.",
    "norm": "`layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.",
    "transform_bias": "what the transform gate's bias starts at.",
    "forget_bias": "what the forget gate's bias starts at.",
    "mi_init": "what alpha, beta1 and beta2 start at.",
    "init_scale": "matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).",
    "input_scale": "as init_scale, for the input matrices W; None takes init_scale.",
    "orthogonal": "0, or a number: U of each gate starts as that times an orthogonal matrix.",
    "dtype": "operand type of the matrix products; see `RecurrentLayer`.",
    "rngs": "its `params` stream is drawn from.",
}


def _constructor(name: str, kind: str, integration: str) -> Callable[..., None]:
    """The `__init__` of a class by name: the keywords that its cell has, with their defaults."""
    family = CELLS[kind]
    keywords = ("integration", *family.keywords)
    keywords += ("norm", "mi_init", "init_scale", "input_scale", "orthogonal", "dtype", "rngs")
    if family.linear:  # no product of the state to integrate
        keywords = tuple(k for k in keywords if k not in ("integration", "mi_init", "orthogonal"))
    defaults = {"integration": integration}
    signature = inspect.Signature(
        [_KEYWORDS[given] for given in ("self", "in_features", "hidden_features")]
        + [
            _KEYWORDS[k].replace(
                kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(k, _KEYWORDS[k].default)
            )
            for k in keywords
        ]
    )
    of_cell = {field.name for field in dataclasses.fields(Cell)}

    def __init__(*args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        bound.apply_defaults()
        given = bound.arguments
        fields = {k: given.pop(k) for k in keywords if k in of_cell}
        _Recurrent.__init__(given.pop("self"), Cell(kind, **fields), **given)

    __init__.__signature__ = signature
    __init__.__doc__ = "\n".join(
        [
            "Draws the parameters.",
            "",
            "Args:",
            "  in_features, hidden_features: m and n.",
            *(f"  {k}: {_MEANINGS[k]}" for k in keywords),
        ]
    )
    if not family.linear:
        also = ", or a depth below 1" if family.deep else ""
        __init__.__doc__ += f"\n\nRaises:\n  ValueError: on an unknown integration or norm{also}."
    return __init__


def _class_of(base: type, kind: str, integration: str = "additive") -> type:
    """A layer or cell by name, `rnnx.RHN` or `rnnx.MIRHNCell`, of a row of `CELLS`."""
    mi, steps = integration == "mi", issubclass(base, RecurrentCell)
    family = CELLS[kind]
    name = ("MI" if mi else "") + family.class_name + ("Cell" if steps else "")
    pre = "E" if family.linear else "`pre` is `cells.integrate` of `W x` and `U z`; e"
    members = {
        "__module__": __name__,
        "__doc__": f"{family.name}{' with Multiplicative Integration' if mi else ''}"
        f"{', one time step' if steps else ''}.\n\n"
        + inspect.getdoc(family.transition)
        + f"\n\n{pre}quations as in `cells.{kind}`.",
        "__init__": _constructor(name, kind, integration),
    }
    return types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(members))


def _by_name() -> dict[str, type]:
    """All layers and cells by name."""
    classes = []
    for kind, family in CELLS.items():
        for base in (RecurrentLayer, RecurrentCell):
            classes.append(_class_of(base, kind))
            if family.mi_class:
                classes.append(_class_of(classes[-1], kind, "mi"))
    return {c.__name__: c for c in classes}


BY_NAME = _by_name()
globals().update(BY_NAME)
__all__ = ["Cell", "RecurrentCell", "RecurrentLayer", "Stack", *BY_NAME]
