"""States and gates of a network at every time step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cells, model
from rnnx.cells import CELLS, Carry, Cell, Params
from rnnx.model import SequenceModel


class Layer(NamedTuple):
    """States, input terms and gates of one layer over T steps of B rows."""

    before: Carry  # the state before each step, (T, B, n) each
    wx: tuple[Array | None, ...]  # each block's input term, (T, B, G n)
    gates: tuple[dict[str, Array], ...]  # of each block: letter -> activation (T, B, n)


def through_layer(
    cell: Cell, params: Params, xs: Array, carry: Carry
) -> tuple[Array, Carry, Layer]:
    """Outputs ys (T, B, n) for inputs xs (T, B, m) from a state, the last state, and the trace."""
    wx = cells.project(params, xs)

    def body(carry: Carry, wx: tuple[Array | None, ...]) -> tuple[Carry, Any]:
        seen: list[list[Array]] = []
        plain = cells.make_pre(cell, params, wx, None, lambda k, z: cells.matmul(z, params[k]["U"]))

        def pre(*args: Any, **options: Any) -> list[Array]:
            seen.append(plain(*args, **options))
            return seen[-1]

        after = CELLS[cell.kind].transition(pre, carry, cell)
        family = CELLS[cell.kind]
        gates = tuple(
            {
                letter: (jax.nn.sigmoid if letter in family.gates else jnp.tanh)(a)
                for letter, a in zip(name, parts, strict=True)
                if letter not in family.unbounded
            }
            for name, parts in zip(cell.blocks, seen, strict=True)
        )
        return after, (carry, gates)

    after, (before, gates) = lax.scan(body, carry, wx)
    ys = jnp.concatenate([before[0][1:], after[0][None]])
    return ys, after, Layer(before, wx, gates)


def through(
    net: SequenceModel, inputs: Array, carries: tuple[Carry, ...]
) -> tuple[Array, tuple[Carry, ...], tuple[Layer, ...]]:
    """The last layer's outputs for inputs (T, B, ...), the last states, and every layer's trace."""
    ys, after, insides = net.read(inputs), [], []
    for layer, carry in zip(net.stack.layers, carries, strict=True):
        ys, carry, inside = through_layer(layer.cell, layer.params, ys, carry)
        after.append(carry)
        insides.append(inside)
    return ys, tuple(after), tuple(insides)


@partial(jax.jit, static_argnames="graphdef")
def read(
    graphdef: Any, params: dict[str, Array], inputs: Array, carries: tuple[Carry, ...]
) -> tuple[tuple[Carry, ...], tuple[Layer, ...]]:
    """Compiled `through` of a split model: the last states, and every layer's trace."""
    _, carries, insides = through(model.merge(graphdef, params), inputs, carries)
    return carries, insides
