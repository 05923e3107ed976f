"""How the input term W x and the state term U z of a block meet: Multiplicative Integration.

Legend as in `cells.py`; a cell here is its `Cell`. MI is Wu et al. 2016, arXiv:1606.06630; layer
normalization is Ba, Kiros and Hinton 2016, arXiv:1607.06450.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

Block = dict[str, Array]
INTEGRATIONS = ("additive", "mi_simple", "mi")
NORMS = ("none", "layer", "tanh")
_EPSILON = 1e-5  # of layer normalization


def integrate(
    cell: Any,
    k: int,
    block: Block,
    wx: Array | None,
    uz: Array | None,
    scale: Array | None = None,
) -> Array:
    """Combines block k's input term and state term to a pre-activation, elementwise.

        additive    W x + U z + b
        mi_simple   W x * U z + b
        mi          alpha * W x * U z + beta1 * U z + beta2 * W x + b

    With alpha = 0 and beta1 = beta2 = 1 the last is the first. A block that does not see the
    input (wx None) is `U z + b`, one of a linear cell (uz None) `W x + b`. Shapes: wx, uz and the
    result (..., G n). MI paper, eq. 2 and 4. Gates that are not among `cell.mi_gates`, where those
    are named, are additive.

    Before they meet, `cell.norm` changes the terms: `layer` normalizes each over all gates of the
    block, gain_x * (W x - mean) / sqrt(variance + 1e-5), likewise U z with gain_z (Ba et al.,
    eq. 20 to 22, without the normalization of the LSTM's c); `tanh` bounds U z. Then scale, if
    given, multiplies the state term: the GRU's reset gate after the product.
    """
    if cell.norm == "layer":
        wx = None if wx is None else block["gain_x"] * _normalized(wx)
        uz = None if uz is None else block["gain_z"] * _normalized(uz)
    elif cell.norm == "tanh" and uz is not None:
        uz = jnp.tanh(uz)
    if uz is None:
        return wx + block["b"]
    uz = uz if scale is None else scale * uz
    if wx is None:
        return uz + block["b"]
    if cell.integration == "additive" or not _gates_with_mi(cell, k):
        return wx + uz + block["b"]
    if cell.mi_gates:
        alpha, beta1, beta2 = _some_gates(cell, k, block, wx.shape[-1])
    elif cell.integration == "mi_simple":
        return wx * uz + block["b"]
    else:
        alpha, beta1, beta2 = block["alpha"], block["beta1"], block["beta2"]
    return alpha * wx * uz + beta1 * uz + beta2 * wx + block["b"]


def initial_vectors(
    cell: Any, k: int, n: int, mi_init: tuple[float, float, float]
) -> dict[str, Array]:
    """Initial vectors of block k, beside its bias: alpha, beta1, beta2 of the gates that have MI
    (mi_init), and the gains of layer normalization (1)."""
    found, gates = {}, cell.blocks[k]
    if cell.integration == "mi" and cell.sees_input(k) and (with_mi := _gates_with_mi(cell, k)):
        width = len(with_mi) * n
        for name, value in zip(("alpha", "beta1", "beta2"), mi_init, strict=True):
            found[name] = jnp.full((width,), value, jnp.float32)
    if cell.norm == "layer":
        if cell.sees_input(k):
            found["gain_x"] = jnp.ones((len(gates) * n,), jnp.float32)
        if not cell.linear:
            found["gain_z"] = jnp.ones((len(gates) * n,), jnp.float32)
    return found


def _gates_with_mi(cell: Any, k: int) -> list[str]:
    """The gates of block k that MI is asked for, of a cell that has MI."""
    return [gate for gate in cell.blocks[k] if gate in (cell.mi_gates or cell.blocks[k])]


def _normalized(a: Array) -> Array:
    a = a - jnp.mean(a, axis=-1, keepdims=True)
    return a / jnp.sqrt(jnp.mean(a * a, axis=-1, keepdims=True) + _EPSILON)


def _some_gates(cell: Any, k: int, block: Block, width: int) -> list[Array]:
    """alpha, beta1 and beta2 of all gates of block k, constant in those that are additive."""
    gates, found = cell.blocks[k], []
    n = width // len(gates)
    for name, additive, simple in (("alpha", 0.0, 1.0), ("beta1", 1.0, 0.0), ("beta2", 1.0, 0.0)):
        parts, taken = [], 0
        for gate in gates:
            if gate not in cell.mi_gates:
                parts.append(jnp.full((n,), additive, block["b"].dtype))
            elif cell.integration == "mi_simple":
                parts.append(jnp.full((n,), simple, block["b"].dtype))
            else:
                parts.append(block[name][taken : taken + n])
                taken += n
        found.append(jnp.concatenate(parts))
    return found
