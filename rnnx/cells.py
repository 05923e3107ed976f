"""Transitions of recurrent networks, as pure functions on arrays.

A transition maps the state before a time step to the state after it. It sees the input and the
recurrent matrices only through `pre(k, z)`: the gate pre-activations of its k-th block, that is,
the product of a state z with the block's recurrent matrix, integrated with the input where the
block has one (`integration.py`). So each equation is written once, here, and `scan.py` can run it
forward, record the products, and replay it backward.

Legend: B batch, T time, m inputs, n units, L transition depth, G gates of a block.

    parameters of a block   W (m, G n)  input matrix, only in blocks that see the input
                            U (n, G n)  recurrent matrix (R in the RHN paper), not in linear cells
                            b (G n,)    bias
                            alpha, beta1, beta2 (G n,)  only in blocks that see the input, under
                                        general Multiplicative Integration
                gain_x, gain_z (G n,)  only under layer normalization: of W x and of U z
    parameters of a cell    a tuple of blocks (dicts), each matrix an array of its own: XLA copies
                            slices of a stacked weight at every use inside a loop
    carry                   a tuple of (B, n) arrays; the first is the output y

A transition takes each block exactly once: the backward pass records one product of each.
`pre(k, z, scale=a)` multiplies the product by a before it is integrated with the input (the GRU's
reset gate after the product). A transition does not see the parameters in any other way.

A linear cell has no recurrent matrix: its gates are functions of the input alone, `pre(k, z)` is
`x W + b` whatever z is, and the state follows h = decay * h- + addition. `linear.py` runs it in
parallel over time.

Vectors are rows: a product is `z @ U`. Gates lie side by side in the order of the block's name in
`CELLS`: the LSTM's block "ifoz" holds [i, f, o, z].

Sources: MI is Wu et al. 2016, arXiv:1606.06630; RHN is Zilly et al. 2017, arXiv:1607.03474v5.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnx.integration import INTEGRATIONS, NORMS, Block, integrate

Params = tuple[Block, ...]
Carry = tuple[Array, ...]
Pre = Callable[..., list[Array]]


@dataclass(frozen=True)
class Cell:
    """The choices that fix a cell's equations; hashable, so it can be a static argument of `jit`.

    Attributes:
      kind: a key of `CELLS`.
      integration: `additive`, `mi_simple` or `mi`: how `W x` and `U z` meet.
      depth: transition depth L, for rhn, dtrnn and dtsrnn; 1 for the others.
      coupled: RHN only: the carry gate is 1 - t (the paper's experiments), or a gate of its own.
      reset_after: GRU only: the reset gate acts on `U h`, not on `h`. The MI paper does not say
        which; the original GRU resets before the product.
      input_every: the input enters a deep cell at every l, each with a W of its own; the papers'
        enter at l = 1 only.
      norm: what W x and U z go through before they meet, see `integrate`: `none`, `layer`, `tanh`.
      mi_gates: gates whose terms meet by MI, letters of `blocks` such as `h` or `t` of an RHN; the
        others are additive. Empty: all, as in the paper.
    """

    kind: str = "rhn"
    integration: str = "additive"
    depth: int = 1
    coupled: bool = True
    reset_after: bool = False
    input_every: bool = False
    norm: str = "none"
    mi_gates: str = ""

    def __post_init__(self) -> None:
        if self.kind not in CELLS:
            raise ValueError(f"unknown cell {self.kind!r}: one of {', '.join(CELLS)}")
        if self.integration not in INTEGRATIONS:
            raise ValueError(
                f"unknown integration {self.integration!r}: one of {', '.join(INTEGRATIONS)}"
            )
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, not {self.depth}")
        if self.integration != "additive" and self.linear:
            raise ValueError(
                f"cell {self.kind} has no product of the state: integration must be additive, "
                f"not {self.integration}"
            )
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            kinds = [kind for kind, family in CELLS.items() if name in family.options]
            if kinds and self.kind not in kinds and value != field.default:
                what = "transition depth" if name == "depth" else f"option {name}"
                also = " (num_layers stacks any cell)" if name == "depth" else ""
                raise ValueError(
                    f"cell {self.kind} has no {what}: {name}={value} needs "
                    f"{'one of ' if kinds[1:] else ''}{', '.join(kinds)}{also}"
                )
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}: one of {', '.join(NORMS)}")
        gates = "".join(dict.fromkeys("".join(self.blocks)))
        if wrong := [gate for gate in self.mi_gates if gate not in gates]:
            raise ValueError(f"cell {self.kind} has no gate {wrong[0]!r}: name some of {gates}")
        if self.mi_gates and self.integration == "additive":
            raise ValueError("mi_gates names gates that have MI: integration=additive has none")

    @property
    def linear(self) -> bool:
        """Whether the cell has no product of the state."""
        return CELLS[self.kind].linear

    @property
    def blocks(self) -> tuple[str, ...]:
        """The gates of each block, one letter a gate."""
        family = CELLS[self.kind]
        return (family.blocks if self.coupled else family.uncoupled) * self.depth

    @property
    def num_states(self) -> int:
        """How many (B, n) arrays the carry holds."""
        return CELLS[self.kind].num_states

    def sees_input(self, k: int) -> bool:
        """Whether block k takes the input: of a deep cell the first alone, or all."""
        return k == 0 or self.input_every or not CELLS[self.kind].deep


# ---------------------------------------------------------------------------- the equations


def _sigmoids(*gates: Array) -> list[Array]:
    """The sigmoid of each gate, as one array: XLA's loops with several exponentials are slow."""
    return jnp.split(jax.nn.sigmoid(jnp.concatenate(gates, axis=-1)), len(gates), axis=-1)


def rnn(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """h = tanh(pre(h-))."""
    (h,) = carry
    (a,) = pre(0, h)
    return (jnp.tanh(a),)


def linearrnn(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """h = pre(h-): an RNN without activation.

    With MI it is not linear in x and h together. MI paper, where "linear" networks are analyzed.
    """
    (h,) = carry
    (a,) = pre(0, h)
    return (a,)


def lstm(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """c = f * c- + i * z ;  h = o * tanh(c).

    No peepholes. The MI paper prints `z-` for `c-` in its appendix; its code has `c-`.
    """
    h, c = carry
    i, f, o, z = pre(0, h)
    i, f, o = _sigmoids(i, f, o)
    c = f * c + i * jnp.tanh(z)
    return o * jnp.tanh(c), c


def slstm(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """h = o * c / n ;  c = f' * c- + i' * z ;  n = f' * n- + i'.

    i' = exp(i - m) and f' = exp(log f + m- - m) with m = max(log f + m-, i), which keeps them from
    overflowing and cancels in c / n; z = tanh, f and o sigmoid. Where n- = 0, as in the zero state,
    nothing is stored yet: m = i and c / n = z, however small exp(i) is.

    Beck et al. 2024, arXiv:2405.04517, eq. 8 to 17. Of its two forget gates, sigmoid and exp, this
    is the sigmoid, as in the authors' code; its recurrent matrix is block-diagonal in several
    heads, this one is full (one head).
    """
    h, c, n, m = carry
    i, f, o, z = pre(0, h)
    kept = jax.nn.log_sigmoid(f) + jnp.where(n == 0, -jnp.inf, m)
    m = jnp.maximum(kept, i)
    f, i = jnp.exp(kept - m), jnp.exp(i - m)
    c = f * c + i * jnp.tanh(z)
    n = f * n + i
    return jax.nn.sigmoid(o) * c / n, c, n, m


def gru(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """h = u * h- + (1 - u) * g ;  g = tanh(pre(r * h-)), or with reset_after r * (U h-) in it."""
    (h,) = carry
    r, u = map(jax.nn.sigmoid, pre(0, h))
    (g,) = pre(1, h, scale=r) if cell.reset_after else pre(1, r * h)
    return (u * h + (1 - u) * jnp.tanh(g),)


def rhn(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """s_l = h_l * t_l + s_{l-1} * c_l for l = 1..L, from s_0 = y- to y = s_L.

    h_l = tanh, t_l (transform gate) and c_l (carry gate, 1 - t_l if coupled) sigmoid of block l;
    the input enters at l = 1 only, unless input_every. RHN paper, eq. 6 to 9.
    """
    (s,) = carry
    for l in range(cell.depth):
        h, t, *c = pre(l, s)
        t = jax.nn.sigmoid(t)
        c = 1 - t if cell.coupled else jax.nn.sigmoid(c[0])
        s = jnp.tanh(h) * t + s * c
    return (s,)


def dtrnn(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """Deep transition RNN: s_l = tanh(pre_l(s_{l-1})), l = 1..L (Pascanu et al. 2014)."""
    (s,) = carry
    for l in range(cell.depth):
        (a,) = pre(l, s)
        s = jnp.tanh(a)
    return (s,)


def dtsrnn(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """DT-RNN with identity shortcuts: s_l = tanh(pre_l(s_{l-1})) + s_{l-1} for l > 1.

    No shortcut at l = 1: it would span time steps and let the state grow without bound.
    """
    (s,) = carry
    for l in range(cell.depth):
        (a,) = pre(l, s)
        s = jnp.tanh(a) + s if l else jnp.tanh(a)
    return (s,)


def mingru(pre: Pre, carry: Carry, cell: Cell) -> Carry:
    """h = (1 - z) * h- + z * g ;  z = sigmoid(W_z x + b_z), g = W_g x + b_g.

    No gate sees the state. Feng et al. 2024, arXiv:2410.01201, section 3.1: the plain form; their
    form in log space, with a positive g, is another cell.
    """
    (h,) = carry
    decay, addition = mingru_terms(*pre(0, h))
    return (decay * h + addition,)


def mingru_terms(z: Array, g: Array) -> tuple[Array, Array]:
    """Decay 1 - z and addition z * g of the minGRU, from pre-activations of any shape."""
    z = jax.nn.sigmoid(z)
    return 1 - z, z * g


class Family(NamedTuple):
    """What a kind of cell is."""

    name: str  # in tables and plots
    transition: Callable[[Pre, Carry, Cell], Carry]
    blocks: tuple[str, ...]  # gates of each block, one letter a gate; of one layer l if deep
    num_states: int = 1
    options: tuple[str, ...] = ()  # the fields of `Cell` that it has, beside integration and norm
    uncoupled: tuple[str, ...] = ()  # blocks with coupled=False
    uniform_bias: bool = False  # biases start like the matrices (RHN paper), not at 0 (MI paper)
    # Biases that start at a keyword of `parameters.init`: letter of a gate, keyword, its sign.
    biases: tuple[tuple[str, str, int], ...] = ()
    mi_class: bool = False  # has classes of its own with MI in `layers.py`
    # For the analysis. Sigmoid gates by letter; other letters are candidates, through tanh, but for
    # those in `unbounded`; the gate that says how much of the state is kept (a coupled c is 1 - t).
    gates: dict[str, str] = {}  # noqa: RUF012 - never changed
    unbounded: str = ""
    keeps: str = ""
    # Of a cell without recurrent matrix, h = decay * h- + addition: pre-activations to these two.
    terms: Callable[..., tuple[Array, Array]] | None = None

    @property
    def class_name(self) -> str:
        """The name as an identifier: `DTRNN` of DT-RNN, `MinGRU` of minGRU."""
        letters = "".join(filter(str.isalnum, self.name))
        return letters[0].upper() + letters[1:]

    @property
    def deep(self) -> bool:
        """Whether it has a transition depth."""
        return "depth" in self.options

    @property
    def linear(self) -> bool:
        """Whether it is linear in its state, and has no product of it."""
        return self.terms is not None

    @property
    def keywords(self) -> tuple[str, ...]:
        """Its own among the fields of `Cell` and the keywords of `parameters.init`."""
        return *self.options, *dict.fromkeys(keyword for _, keyword, _ in self.biases)


# fmt: off
_LSTM_GATES = {"i": "input gate", "f": "forget gate", "o": "output gate"}

CELLS: dict[str, Family] = {
    "rnn": Family("RNN", rnn, ("h",), mi_class=True),
    "linearrnn": Family("linear RNN", linearrnn, ("h",), unbounded="h", mi_class=True),
    "lstm": Family(
        "LSTM", lstm, ("ifoz",), num_states=2, biases=(("f", "forget_bias", 1),),
        gates=_LSTM_GATES, keeps="f", mi_class=True,
    ),
    "gru": Family(
        "GRU", gru, ("ru", "g"), options=("reset_after",),
        gates={"r": "reset gate", "u": "update gate"}, keeps="u", mi_class=True,
    ),
    "rhn": Family(
        "RHN", rhn, ("ht",), options=("depth", "coupled", "input_every"), uncoupled=("htc",),
        uniform_bias=True, biases=(("t", "transform_bias", 1), ("c", "transform_bias", -1)),
        gates={"t": "transform gate", "c": "carry gate"}, keeps="c", mi_class=True,
    ),
    "dtrnn": Family("DT-RNN", dtrnn, ("h",), uniform_bias=True, options=("depth", "input_every")),
    "dtsrnn": Family(
        "DT(S)-RNN", dtsrnn, ("h",), uniform_bias=True, options=("depth", "input_every")
    ),
    "slstm": Family(  # its i is an exponential
        "sLSTM", slstm, ("ifoz",), num_states=4, biases=(("f", "forget_bias", 1),),
        gates={letter: _LSTM_GATES[letter] for letter in "fo"}, unbounded="i",
    ),
    "mingru": Family("minGRU", mingru, ("zg",), terms=mingru_terms),
}
# fmt: on


# ---------------------------------------------------------------------------- running a cell


def matmul(x: Array, w: Array) -> Array:
    """`x @ w` with x rounded to w's type and a float32 sum; in float64 when either is float64."""
    wide = jnp.result_type(x, w, jnp.float32)
    operand = wide if w.dtype == jnp.float32 else w.dtype
    return jnp.matmul(x.astype(operand), w.astype(operand), preferred_element_type=wide)


def project(params: Params, xs: Array) -> tuple[Array | None, ...]:
    """The input term `x W` of every block, for any leading axes: (..., m) to (..., G n).

    Done for all time steps before the scan, it is one large product a block.
    """
    return tuple(matmul(xs, block["W"]) if "W" in block else None for block in params)


def step(
    cell: Cell,
    params: Params,
    carry: Carry,
    wx: tuple[Array | None, ...],
    mask: Array | None = None,
) -> Carry:
    """One time step.

    Args:
      params: the cell's blocks.
      carry: state before the step, each (B, n).
      wx: `project(params, x)` of this step's input, each (B, G n).
      mask: (B, n), multiplies the state inside every matrix product: the variational dropout of
        the RHN paper. The carry path is not masked, so in a linear cell the mask changes nothing.

    Returns the state after the step; its first array is the output y (B, n).
    """
    pre = make_pre(cell, params, wx, mask, lambda k, z: matmul(z, params[k]["U"]))
    return CELLS[cell.kind].transition(pre, carry, cell)


def make_pre(
    cell: Cell,
    params: Params,
    wx: tuple[Array | None, ...],
    mask: Array | None,
    product: Callable[[int, Array], Array],
    nudge: tuple[Array, ...] | None = None,
) -> Pre:
    """The `pre` of one time step, around any way to take block k's product `z U`.

    Args:
      product: (k, z with the mask applied) to (B, G n).
      nudge: added to each block's pre-activation, (B, G n) each; a zero to differentiate by.
    """

    def pre(k: int, z: Array, scale: Array | None = None) -> list[Array]:
        uz = product(k, z if mask is None else z * mask) if "U" in params[k] else None
        a = integrate(cell, k, params[k], wx[k], uz, scale)
        a = a if nudge is None else a + nudge[k]
        return jnp.split(a, len(cell.blocks[k]), axis=-1)

    return pre


def zero_carry(cell: Cell, batch_size: int, n: int) -> Carry:
    """The zero state, each array (B, n) float32; `scan.unroll` widens it to float64 by itself."""
    return tuple(jnp.zeros((batch_size, n), jnp.float32) for _ in range(cell.num_states))
