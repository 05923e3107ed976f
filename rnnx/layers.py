"""Flax NNX modules over the transitions: cells for `nnx.RNN`, fast layers, and stacks of layers.

A cell is one time step and obeys `nnx.RNNCellBase`, so it works in `nnx.RNN` and
`nnx.Bidirectional`. A layer runs the same parameters over time by `scan.unroll`: input terms in
one product, weight gradients in one product after the scan. Use layers to train, cells where
steps come one at a time. The equations and their sources are in `cells.py`.

    layer = rnnx.RHN(in_features, hidden, depth=5, integration="mi", rngs=nnx.Rngs(0))
    ys, carry = layer(xs)            # xs (B, T, in_features), ys (B, T, hidden)
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx import cells, scan
from rnnx.cells import Carry, Cell, Params


class _Recurrent(nnx.Module):
    """Owns the parameters of one cell: a list of blocks, each a dict of `nnx.Param`."""

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
          dtype: operand type of the matrix products; state and parameters stay float32.
          rngs: its `params` stream is drawn from.
          **init: the scales and constants that `cells.init` takes.
        """
        self.cell = cell
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.dtype = dtype
        params = cells.init(cell, rngs.params(), in_features, hidden_features, **init)
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
        params = scan.cast_matrices(self.params, self.dtype)
        wx = cells.project(params, inputs)
        carry = cells.step(self.cell, params, carry, wx, mask)
        return carry, carry[0]

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Carry:
        """The carry for inputs of shape (..., m): zeros, or what carry_init(key, shape) draws."""
        shape = (*input_shape[:-1], self.hidden_features)
        if carry_init is None:
            return tuple(jnp.zeros(shape, jnp.float32) for _ in range(self.cell.num_states))
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
        time_major: bool = False,
        remat: int = 0,
    ) -> tuple[Array, Carry]:
        """xs (B, T, m), or (T, B, m) if time_major, to ys of the same layout and the last carry.

        carry None is the zero state; mask (B, n) is the variational dropout mask of the state;
        remat is as in `scan.unroll`.
        """
        if not time_major:
            xs = jnp.swapaxes(xs, 0, 1)
        if carry is None:
            carry = cells.zero_carry(self.cell, xs.shape[1], self.hidden_features)
        ys, carry = scan.unroll(self.cell, self.params, xs, carry, mask, self.dtype, remat)
        return (ys if time_major else jnp.swapaxes(ys, 0, 1)), carry


class Stack(nnx.Module):
    """Layers one over the other: each takes the outputs of the one below as inputs.

        stack = rnnx.Stack(rnnx.Cell("lstm"), 128, 256, num_layers=2, rngs=nnx.Rngs(0))
        ys, carries = stack(xs)

    Further arguments as of `RecurrentLayer`.
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        **options: Any,
    ):
        self.layers = nnx.List(
            [
                RecurrentLayer(
                    cell, hidden_features if i else in_features, hidden_features, **options
                )
                for i in range(num_layers)
            ]
        )

    bidirectional = False

    @property
    def input_widths(self) -> tuple[int, ...]:
        """Of each layer."""
        return tuple(layer.in_features for layer in self.layers)

    @property
    def state_widths(self) -> tuple[int, ...]:
        """Of each layer."""
        return tuple(layer.hidden_features for layer in self.layers)

    @property
    def out_features(self) -> int:
        """Of the topmost layer."""
        return self.layers[-1].hidden_features

    def zero_carry(self, batch_size: int) -> tuple[Carry, ...]:
        """The zero state of every layer."""
        return tuple(
            cells.zero_carry(layer.cell, batch_size, layer.hidden_features) for layer in self.layers
        )

    def __call__(
        self,
        xs: Array,
        carries: tuple[Carry, ...] | None = None,
        *,
        input_masks: tuple[Array | None, ...] | None = None,
        state_masks: tuple[Array | None, ...] | None = None,
        time_major: bool = False,
        remat: int = 0,
    ) -> tuple[Array, tuple[Carry, ...]]:
        """As a layer, with one carry a layer.

        input_masks, one (B, m or n) a layer, multiply a layer's input at every step; state_masks,
        one (B, n) a layer, are each layer's mask.
        """
        none = (None,) * len(self.layers)
        ys, last = xs if time_major else jnp.swapaxes(xs, 0, 1), []
        for layer, carry, drop_in, drop_state in zip(
            self.layers,
            carries or none,
            input_masks or none,
            state_masks or none,
            strict=True,
        ):
            ys = ys if drop_in is None else ys * drop_in
            ys, carry = layer(ys, carry, mask=drop_state, time_major=True, remat=remat)
            last.append(carry)
        return (ys if time_major else jnp.swapaxes(ys, 0, 1)), tuple(last)


# ---------------------------------------------------------------------------- cells by name


class _Named:
    """Builds the `Cell` from keywords, so that a layer reads `RHN(m, n, depth=5, rngs=rngs)`."""

    kind: str
    integration = "additive"

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str | None = None,
        depth: int = 1,
        coupled: bool = True,
        reset_after: bool = False,
        **options: Any,
    ):
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`; None takes the class's own.
          depth: transition depth L (RHN, DTRNN, DTSRNN).
          coupled: RHN: carry gate 1 - t, or one of its own.
          reset_after: GRU: reset gate behind the recurrent product, or before it.
          **options: rngs, dtype; the scales and constants that `cells.init` takes.

        Raises:
          ValueError: on an unknown integration, or a depth the cell does not have.
        """
        cell = Cell(self.kind, integration or self.integration, depth, coupled, reset_after)
        super().__init__(cell, in_features, hidden_features, **options)


class RNN(_Named, RecurrentLayer):
    """Vanilla RNN: h = tanh(W x + U h- + b)."""

    kind = "rnn"


class LSTM(_Named, RecurrentLayer):
    """LSTM without peepholes; see `cells.lstm`."""

    kind = "lstm"


class GRU(_Named, RecurrentLayer):
    """GRU; see `cells.gru`."""

    kind = "gru"


class RHN(_Named, RecurrentLayer):
    """Recurrent Highway Network of transition depth `depth`; see `cells.rhn`."""

    kind = "rhn"


class DTRNN(_Named, RecurrentLayer):
    """Deep transition RNN of depth `depth`; see `cells.dtrnn`."""

    kind = "dtrnn"


class DTSRNN(_Named, RecurrentLayer):
    """Deep transition RNN with shortcuts; see `cells.dtsrnn`."""

    kind = "dtsrnn"


class MIRNN(RNN):
    """RNN with Multiplicative Integration; see `cells.integrate`."""

    integration = "mi"


class MILSTM(LSTM):
    """LSTM with Multiplicative Integration in all four gates."""

    integration = "mi"


class MIGRU(GRU):
    """GRU with Multiplicative Integration in gates and candidate."""

    integration = "mi"


class MIRHN(RHN):
    """RHN with Multiplicative Integration where input and state meet, at l = 1."""

    integration = "mi"


class RNNCell(_Named, RecurrentCell):
    """One step of `RNN`."""

    kind = "rnn"


class LSTMCell(_Named, RecurrentCell):
    """One step of `LSTM`."""

    kind = "lstm"


class GRUCell(_Named, RecurrentCell):
    """One step of `GRU`."""

    kind = "gru"


class RHNCell(_Named, RecurrentCell):
    """One step of `RHN`."""

    kind = "rhn"


class DTRNNCell(_Named, RecurrentCell):
    """One step of `DTRNN`."""

    kind = "dtrnn"


class DTSRNNCell(_Named, RecurrentCell):
    """One step of `DTSRNN`."""

    kind = "dtsrnn"


class MIRNNCell(RNNCell):
    """One step of `MIRNN`."""

    integration = "mi"


class MILSTMCell(LSTMCell):
    """One step of `MILSTM`."""

    integration = "mi"


class MIGRUCell(GRUCell):
    """One step of `MIGRU`."""

    integration = "mi"


class MIRHNCell(RHNCell):
    """One step of `MIRHN`."""

    integration = "mi"
