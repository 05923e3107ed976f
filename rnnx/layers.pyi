"""Stub of `rnnx.layers`, written by `python tests/test_stubs.py`."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx.cells import Carry, Params
from rnnx.cells import Cell as Cell

class _Recurrent(nnx.Module):
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
    ): ...
    @property
    def params(self) -> Params: ...

class RecurrentCell(_Recurrent, nnx.RNNCellBase):
    def __call__(
        self, carry: Carry, inputs: Array, mask: Array | None = None
    ) -> tuple[Carry, Array]: ...
    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Carry: ...
    @property
    def num_feature_axes(self) -> int: ...

class RecurrentLayer(_Recurrent):
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
    ) -> tuple[Array, Carry]: ...

class Stack(nnx.Module):
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
    ): ...
    @property
    def bidirectional(self) -> bool: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    @property
    def input_widths(self) -> tuple[int, ...]: ...
    def zero_carry(self, batch_size: int) -> tuple[Any, ...]: ...
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
    ) -> tuple[Array, tuple[Any, ...]]: ...
    def _both_ways(
        self, i: int, xs: Array, carry: Any, mask: Any, shared: dict[str, Any]
    ) -> tuple[Array, tuple[Carry, Carry]]: ...

BY_NAME: dict[str, type]

class _RNN:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm.
        """

class _LinearRNN:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm.
        """

class _LSTM:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        forget_bias: float = 1.0,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          forget_bias: what the forget gate's bias starts at.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm.
        """

class _GRU:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        reset_after: bool = False,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          reset_after: the reset gate acts on `U h`, or on `h` before the product.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm.
        """

class _RHN:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        depth: int = 1,
        coupled: bool = True,
        input_every: bool = False,
        transform_bias: float = -2.0,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          depth: transition depth L.
          coupled: carry gate 1 - t, or one of its own.
          input_every: the input enters at every l, or at the first only.
          transform_bias: what the transform gate's bias starts at.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm, or a depth below 1.
        """

class _DTRNN:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        depth: int = 1,
        input_every: bool = False,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          depth: transition depth L.
          input_every: the input enters at every l, or at the first only.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm, or a depth below 1.
        """

class _DTSRNN:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        depth: int = 1,
        input_every: bool = False,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          depth: transition depth L.
          input_every: the input enters at every l, or at the first only.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm, or a depth below 1.
        """

class _SLSTM:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        integration: str = ...,
        forget_bias: float = 1.0,
        norm: str = "none",
        mi_init: tuple[float, float, float] = (1.0, 1.0, 1.0),
        init_scale: float | None = None,
        input_scale: float | None = None,
        orthogonal: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
          forget_bias: what the forget gate's bias starts at.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          mi_init: what alpha, beta1 and beta2 start at.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          orthogonal: 0, or a number: U of each gate starts as that times an orthogonal matrix.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.

        Raises:
          ValueError: on an unknown integration or norm.
        """

class _MinGRU:
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        norm: str = "none",
        init_scale: float | None = None,
        input_scale: float | None = None,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the parameters.

        Args:
          in_features, hidden_features: m and n.
          norm: `layer` normalizes `W x` and `U z`, `tanh` bounds `U z`; `none`.
          init_scale: matrices start as U(-init_scale, init_scale); None is 1 / sqrt(n).
          input_scale: as init_scale, for the input matrices W; None takes init_scale.
          dtype: operand type of the matrix products; see `RecurrentLayer`.
          rngs: its `params` stream is drawn from.
        """

class RNN(_RNN, RecurrentLayer):
    """RNN.

    h = tanh(pre(h-)).
    """

class MIRNN(RNN):
    """RNN with Multiplicative Integration.

    h = tanh(pre(h-)).
    """

class RNNCell(_RNN, RecurrentCell):
    """RNN, one time step.

    h = tanh(pre(h-)).
    """

class MIRNNCell(RNNCell):
    """RNN with Multiplicative Integration, one time step.

    h = tanh(pre(h-)).
    """

class LinearRNN(_LinearRNN, RecurrentLayer):
    """linear RNN.

    h = pre(h-): an RNN without activation.
    """

class MILinearRNN(LinearRNN):
    """linear RNN with Multiplicative Integration.

    h = pre(h-): an RNN without activation.
    """

class LinearRNNCell(_LinearRNN, RecurrentCell):
    """linear RNN, one time step.

    h = pre(h-): an RNN without activation.
    """

class MILinearRNNCell(LinearRNNCell):
    """linear RNN with Multiplicative Integration, one time step.

    h = pre(h-): an RNN without activation.
    """

class LSTM(_LSTM, RecurrentLayer):
    """LSTM.

    c = f * c- + i * z ;  h = o * tanh(c).
    """

class MILSTM(LSTM):
    """LSTM with Multiplicative Integration.

    c = f * c- + i * z ;  h = o * tanh(c).
    """

class LSTMCell(_LSTM, RecurrentCell):
    """LSTM, one time step.

    c = f * c- + i * z ;  h = o * tanh(c).
    """

class MILSTMCell(LSTMCell):
    """LSTM with Multiplicative Integration, one time step.

    c = f * c- + i * z ;  h = o * tanh(c).
    """

class GRU(_GRU, RecurrentLayer):
    """GRU.

    h = u * h- + (1 - u) * g ;  g = tanh(pre(r * h-)), or with reset_after r * (U h-) in it.
    """

class MIGRU(GRU):
    """GRU with Multiplicative Integration.

    h = u * h- + (1 - u) * g ;  g = tanh(pre(r * h-)), or with reset_after r * (U h-) in it.
    """

class GRUCell(_GRU, RecurrentCell):
    """GRU, one time step.

    h = u * h- + (1 - u) * g ;  g = tanh(pre(r * h-)), or with reset_after r * (U h-) in it.
    """

class MIGRUCell(GRUCell):
    """GRU with Multiplicative Integration, one time step.

    h = u * h- + (1 - u) * g ;  g = tanh(pre(r * h-)), or with reset_after r * (U h-) in it.
    """

class RHN(_RHN, RecurrentLayer):
    """RHN.

    s_l = h_l * t_l + s_{l-1} * c_l for l = 1..L, from s_0 = y- to y = s_L.
    """

class MIRHN(RHN):
    """RHN with Multiplicative Integration.

    s_l = h_l * t_l + s_{l-1} * c_l for l = 1..L, from s_0 = y- to y = s_L.
    """

class RHNCell(_RHN, RecurrentCell):
    """RHN, one time step.

    s_l = h_l * t_l + s_{l-1} * c_l for l = 1..L, from s_0 = y- to y = s_L.
    """

class MIRHNCell(RHNCell):
    """RHN with Multiplicative Integration, one time step.

    s_l = h_l * t_l + s_{l-1} * c_l for l = 1..L, from s_0 = y- to y = s_L.
    """

class DTRNN(_DTRNN, RecurrentLayer):
    """DT-RNN.

    Deep transition RNN: s_l = tanh(pre_l(s_{l-1})), l = 1..L (Pascanu et al. 2014).
    """

class DTRNNCell(_DTRNN, RecurrentCell):
    """DT-RNN, one time step.

    Deep transition RNN: s_l = tanh(pre_l(s_{l-1})), l = 1..L (Pascanu et al. 2014).
    """

class DTSRNN(_DTSRNN, RecurrentLayer):
    """DT(S)-RNN.

    DT-RNN with identity shortcuts: s_l = tanh(pre_l(s_{l-1})) + s_{l-1} for l > 1.
    """

class DTSRNNCell(_DTSRNN, RecurrentCell):
    """DT(S)-RNN, one time step.

    DT-RNN with identity shortcuts: s_l = tanh(pre_l(s_{l-1})) + s_{l-1} for l > 1.
    """

class SLSTM(_SLSTM, RecurrentLayer):
    """sLSTM.

    h = o * c / n ;  c = f' * c- + i' * z ;  n = f' * n- + i'.
    """

class SLSTMCell(_SLSTM, RecurrentCell):
    """sLSTM, one time step.

    h = o * c / n ;  c = f' * c- + i' * z ;  n = f' * n- + i'.
    """

class MinGRU(_MinGRU, RecurrentLayer):
    """minGRU.

    h = (1 - z) * h- + z * g ;  z = sigmoid(W_z x + b_z), g = W_g x + b_g.
    """

class MinGRUCell(_MinGRU, RecurrentCell):
    """minGRU, one time step.

    h = (1 - z) * h- + z * g ;  z = sigmoid(W_z x + b_z), g = W_g x + b_g.
    """
