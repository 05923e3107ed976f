"""An independent float64 NumPy reference of the recurrent cells, for the tests only.

Written from the papers' equations, not from the package: plain loops, one matrix per gate,
nothing fused, so that agreement with the JAX code means something. Shapes: x is (B, m), a state
is (B, n); row vectors, so a product is `x @ W` or `s @ U`. Parameters are a flat dict of named
arrays (see `shapes`). Every function also runs on complex arrays, which is what `gradient` uses.

A `mask` (B, n) multiplies the state right before every matrix product with it and nowhere else.
Every cell returns (new carry, output); the carry is the state, for `lstm` the pair (h, c), for
`slstm` (h, c, n, m).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Params = dict[str, Array]
Carry = Array | tuple[Array, ...]


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), analytic, and never exponentiating a positive real part."""
    right = np.real(a) >= 0
    e = np.exp(np.where(right, -a, a))
    return np.where(right, 1.0, e) / (1.0 + e)


def masked(s: Array, mask: Array | None) -> Array:
    return s if mask is None else s * mask


def integrate(
    kind: str,
    wx: Array,
    uz: Array,
    b: Array,
    alpha: Array | None = None,
    beta1: Array | None = None,
    beta2: Array | None = None,
) -> Array:
    """The pre-activation from W x and U z: beta1 goes with U z, beta2 with W x."""
    if kind == "additive":
        return wx + uz + b
    if kind == "mi_simple":
        return wx * uz + b
    if kind == "mi":
        return alpha * wx * uz + beta1 * uz + beta2 * wx + b
    raise ValueError(f"unknown kind {kind!r}")


def _integrate(kind: str, p: Params, wx: Array, uz: Array, b: Array, suffix: str = "") -> Array:
    """`integrate` with alpha, beta1 and beta2 looked up in `p` (absent unless kind is "mi")."""
    names = ("alpha", "beta1", "beta2")
    return integrate(kind, wx, uz, b, *(p.get(name + suffix) for name in names))


def _gate(kind: str, p: Params, g: str, x: Array, s: Array) -> Array:
    """The pre-activation of gate g of an LSTM or GRU; s is already masked."""
    return _integrate(kind, p, x @ p[f"W_{g}"], s @ p[f"U_{g}"], p[f"b_{g}"], f"_{g}")


def rnn(
    p: Params, x: Array, h_prev: Array, *, kind: str = "additive", mask: Array | None = None
) -> tuple[Array, Array]:
    h = np.tanh(_integrate(kind, p, x @ p["W"], masked(h_prev, mask) @ p["U"], p["b"]))
    return h, h


def linearrnn(
    p: Params, x: Array, h_prev: Array, *, kind: str = "additive", mask: Array | None = None
) -> tuple[Array, Array]:
    h = _integrate(kind, p, x @ p["W"], masked(h_prev, mask) @ p["U"], p["b"])
    return h, h


def lstm(
    p: Params,
    x: Array,
    carry: tuple[Array, Array],
    *,
    kind: str = "additive",
    mask: Array | None = None,
) -> tuple[tuple[Array, Array], Array]:
    h_prev, c_prev = carry
    s = masked(h_prev, mask)
    i = sigmoid(_gate(kind, p, "i", x, s))
    f = sigmoid(_gate(kind, p, "f", x, s))
    o = sigmoid(_gate(kind, p, "o", x, s))
    z = np.tanh(_gate(kind, p, "z", x, s))
    c = f * c_prev + i * z
    h = o * np.tanh(c)
    return (h, c), h


def gru(
    p: Params,
    x: Array,
    h_prev: Array,
    *,
    kind: str = "additive",
    mask: Array | None = None,
    reset_after: bool = False,
) -> tuple[Array, Array]:
    """r: reset gate, u: update gate (1 keeps the old state), g: candidate."""
    s = masked(h_prev, mask)
    r = sigmoid(_gate(kind, p, "r", x, s))
    u = sigmoid(_gate(kind, p, "u", x, s))
    uz = r * (s @ p["U_g"]) if reset_after else masked(r * h_prev, mask) @ p["U_g"]
    g = np.tanh(_integrate(kind, p, x @ p["W_g"], uz, p["b_g"], "_g"))
    h = u * h_prev + (1.0 - u) * g
    return h, h


def rhn(
    p: Params,
    x: Array,
    y_prev: Array,
    *,
    depth: int,
    coupled: bool = True,
    kind: str = "additive",
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The input, and with it multiplicative integration, enters at l = 1 only."""

    def pre(g: str, l: int, s: Array) -> Array:
        us = masked(s, mask) @ p[f"U_{g}_{l}"]
        b = p[f"b_{g}_{l}"]
        if l > 1:
            return us + b
        return _integrate(kind, p, x @ p[f"W_{g}"], us, b, f"_{g}")

    s = y_prev
    for l in range(1, depth + 1):
        h = np.tanh(pre("h", l, s))
        t = sigmoid(pre("t", l, s))
        c = 1.0 - t if coupled else sigmoid(pre("c", l, s))
        s = h * t + s * c
    return s, s


def dtrnn(
    p: Params,
    x: Array,
    y_prev: Array,
    *,
    depth: int,
    kind: str = "additive",
    mask: Array | None = None,
    shortcut: bool = False,
) -> tuple[Array, Array]:
    """Deep-transition RNN: `depth` tanh layers a step; the input enters at l = 1 only."""
    us = masked(y_prev, mask) @ p["U_1"]
    s = np.tanh(_integrate(kind, p, x @ p["W"], us, p["b_1"]))
    for l in range(2, depth + 1):
        new = np.tanh(masked(s, mask) @ p[f"U_{l}"] + p[f"b_{l}"])
        s = new + s if shortcut else new
    return s, s


def dtsrnn(
    p: Params,
    x: Array,
    y_prev: Array,
    *,
    depth: int,
    kind: str = "additive",
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """`dtrnn` with identity shortcuts around the layers l > 1."""
    return dtrnn(p, x, y_prev, depth=depth, kind=kind, mask=mask, shortcut=True)


def slstm(
    p: Params,
    x: Array,
    carry: tuple[Array, Array, Array, Array],
    *,
    kind: str = "additive",
    mask: Array | None = None,
) -> tuple[tuple[Array, Array, Array, Array], Array]:
    """The paper's equations without a stabilizer, eq. 8 to 14; c and n are stored times exp(-m).

    m is eq. 15, from the first input on: the m of the zero state (n = 0) stands for nothing.
    """
    h_prev, c_prev, n_prev, m_prev = carry
    s = masked(h_prev, mask)
    log_i = _gate(kind, p, "i", x, s)
    f = sigmoid(_gate(kind, p, "f", x, s))
    o = sigmoid(_gate(kind, p, "o", x, s))
    z = np.tanh(_gate(kind, p, "z", x, s))
    c = f * c_prev * np.exp(m_prev) + np.exp(log_i) * z
    n = f * n_prev * np.exp(m_prev) + np.exp(log_i)
    kept = np.log(f) + m_prev
    new = (np.real(n_prev) == 0) | (np.real(log_i) > np.real(kept))
    m = np.where(new, log_i, kept)
    h = o * c / n
    return (h, c * np.exp(-m), n * np.exp(-m), m), h


def mingru(
    p: Params, x: Array, h_prev: Array, *, kind: str = "additive", mask: Array | None = None
) -> tuple[Array, Array]:
    """No product with the state: nothing for kind or mask to act on."""
    z = sigmoid(x @ p["W_z"] + p["b_z"])
    h = (1.0 - z) * h_prev + z * (x @ p["W_g"] + p["b_g"])
    return h, h


CELLS: dict[str, Callable[..., tuple[Any, Array]]] = {
    "rnn": rnn,
    "linearrnn": linearrnn,
    "lstm": lstm,
    "gru": gru,
    "rhn": rhn,
    "dtrnn": dtrnn,
    "dtsrnn": dtsrnn,
    "slstm": slstm,
    "mingru": mingru,
}


def run(cell: str, params: Params, xs: Array, carry: Carry, **options: Any) -> tuple[Array, Carry]:
    """xs (T, B, m) -> ys (T, B, n) and the last carry; `options` go to the cell at every step."""
    ys = []
    for x in xs:
        carry, y = CELLS[cell](params, x, carry, **options)
        ys.append(y)
    return np.stack(ys), carry


def shapes(
    cell: str, m: int, n: int, depth: int = 1, kind: str = "additive", coupled: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a cell (m inputs, n units)."""
    out: dict[str, tuple[int, ...]] = {}

    def vectors(suffix: str) -> None:
        if kind == "mi":
            for name in ("alpha", "beta1", "beta2"):
                out[name + suffix] = (n,)

    if cell in ("rnn", "linearrnn"):
        out.update(W=(m, n), U=(n, n), b=(n,))
        vectors("")
    elif cell in ("lstm", "slstm", "gru"):
        for g in "rug" if cell == "gru" else "ifoz":
            out.update({f"W_{g}": (m, n), f"U_{g}": (n, n), f"b_{g}": (n,)})
            vectors(f"_{g}")
    elif cell == "mingru":
        for g in "zg":
            out.update({f"W_{g}": (m, n), f"b_{g}": (n,)})
    elif cell == "rhn":
        for g in "ht" if coupled else "htc":
            out[f"W_{g}"] = (m, n)
            for l in range(1, depth + 1):
                out.update({f"U_{g}_{l}": (n, n), f"b_{g}_{l}": (n,)})
            vectors(f"_{g}")
    elif cell in ("dtrnn", "dtsrnn"):
        out["W"] = (m, n)
        for l in range(1, depth + 1):
            out.update({f"U_{l}": (n, n), f"b_{l}": (n,)})
        vectors("")
    else:
        raise ValueError(f"unknown cell {cell!r}")
    return out


def gradient(f: Callable[[Params], Any], params: Params) -> Params:
    """The gradient of a real scalar function by complex steps, exact to rounding.

    There is no difference to cancel, so the step can be tiny. f must be analytic in its arrays:
    no abs, conj, max or comparison of values. The cost is one call of f per parameter entry.
    """
    step = 1e-30
    p = {name: np.array(v, dtype=np.complex128) for name, v in params.items()}
    grads = {}
    for name, v in p.items():
        grads[name] = np.zeros(v.shape)
        for index in np.ndindex(v.shape):
            old = v[index]
            v[index] = old + 1j * step
            grads[name][index] = np.imag(f(p)) / step
            v[index] = old
    return grads


def log_sum_exp(a: Array) -> Array:
    """Over the last axis; shifted by the real maximum, a constant as far as `gradient` goes."""
    top = np.max(np.real(a), axis=-1)
    return top + np.log(np.sum(np.exp(a - top[..., None]), axis=-1))


def lm_cost(
    cell: str,
    params: Params,
    tokens: Array,
    targets: Array,
    carries: list[Carry],
    *,
    wd: float,
    x_mask: Array,
    i_masks: list[Array],
    h_masks: list[Array],
    o_mask: Array,
    **options: Any,
) -> tuple[Any, list[Carry]]:
    """Cost of one window of a language model of stacked layers, and the carries after it.

    tokens, targets (B, T) integers. Masks, already divided by keep: x (B, T), a scalar for each
    occurrence; of each layer i (B, m or n) and h (B, n); o (B, n). params: those of layer k with
    `k.` before their names, `embedding` (V, m), `softmax_b` (V,) and, unless tied, `softmax_w`
    (n, V). Nats summed over time, averaged over the batch, plus wd / 2 times all squares.
    """
    batch, length = tokens.shape
    layers = [
        {name.removeprefix(f"{k}."): v for name, v in params.items() if name.startswith(f"{k}.")}
        for k in range(len(carries))
    ]
    softmax_w = params["softmax_w"] if "softmax_w" in params else params["embedding"].T
    carries, loss = list(carries), 0.0
    for t in range(length):
        y = params["embedding"][tokens[:, t]] * x_mask[:, t, None]
        for k, layer in enumerate(layers):
            x = y * i_masks[k]
            carries[k], y = CELLS[cell](layer, x, carries[k], mask=h_masks[k], **options)
        logits = (y * o_mask) @ softmax_w + params["softmax_b"]
        loss = loss + np.sum(log_sum_exp(logits) - logits[np.arange(batch), targets[:, t]])
    return loss / batch + wd / 2 * sum(np.sum(v * v) for v in params.values()), carries
