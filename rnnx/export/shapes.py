"""What primitives that move elements are in ONNX: shapes, slices, gathers."""

from typing import Any

import numpy as np
import onnx
from jax.lax import GatherScatterMode

from rnnx.errors import UserError
from rnnx.export.graph import Builder, Value, operator, result_of, same, same_shape, type_of

# ---------------------------------------------------------------------------- shapes


@operator("broadcast_in_dim")
def _broadcast(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    x, new = values[0], equation.outvars[0].aval.shape
    places = equation.params["broadcast_dimensions"]
    # Axes in front need no node: ONNX adds them where it broadcasts.
    if tuple(places) == tuple(range(len(new) - len(x.shape), len(new))):
        result = result_of(builder, equation, builder.loose(x))
        result.held = x.held
        return [result]
    held, known = [1] * len(new), (1,) * (len(x.shape) - len(x.held)) + x.held
    for size, place in zip(known, places, strict=True):
        held[place] = size
    if same_shape(held, new) and same_shape(x.held, x.shape):
        return [builder.reshape(x, new)]
    result = result_of(builder, equation, _reshaped(builder, builder.loose(x), held))
    result.held = tuple(held)
    return [result]


def _reshaped(builder: Builder, name: str, sizes: Any) -> str:
    return builder.node("Reshape", name, builder.vector(sizes), allowzero=1)


@operator("reshape", "squeeze")
def _reshape(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return [builder.reshape(values[0], equation.outvars[0].aval.shape)]


@operator("transpose")
def _transpose(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    (x,), order = values, equation.params["permutation"]
    axes = [axis for axis in order if not same(x.shape[axis], 1)]
    if axes == sorted(axes):  # only axes of size 1 move
        return [builder.reshape(x, equation.outvars[0].aval.shape)]
    return [result_of(builder, equation, builder.node("Transpose", builder.take(x), perm=order))]


@operator("concatenate")
def _concatenate(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    axis = equation.params["dimension"]
    return [
        result_of(builder, equation, builder.node("Concat", *map(builder.take, values), axis=axis))
    ]


@operator("stack")
def _stack(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    axis, shape = equation.params["axis"], list(equation.outvars[0].aval.shape)
    shape[axis] = 1
    parts = (builder.take(builder.reshape(value, shape)) for value in values)
    return [result_of(builder, equation, builder.node("Concat", *parts, axis=axis))]


@operator("split")
def _split(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    if len(sizes) == 1:
        return list(values)
    names = builder.node(
        "Split", builder.take(values[0]), builder.vector(sizes), outputs=len(sizes), axis=axis
    )
    return [result_of(builder, equation, name, i) for i, name in enumerate(names)]


@operator("slice")
def _slice(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    params, rank = equation.params, len(values[0].shape)
    strides = params["strides"] or (1,) * rank
    cut = [
        axis
        for axis, (start, end, step) in enumerate(
            zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        )
        if not (same(start, 0) and same(end, values[0].shape[axis]) and step == 1)
    ]
    if not cut:
        return list(values)
    starts, ends, steps = (
        builder.vector([of[axis] for axis in cut])
        for of in (params["start_indices"], params["limit_indices"], strides)
    )
    name = builder.node(
        "Slice", builder.take(values[0]), starts, ends, builder.constant(cut), steps
    )
    return [result_of(builder, equation, name)]


@operator("dynamic_slice")
def _dynamic_slice(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    x, *starts = values
    name = builder.take(x)
    for axis, (start, size) in enumerate(zip(starts, equation.params["slice_sizes"], strict=False)):
        if same(size, x.shape[axis]):
            continue
        name = _piece(builder, name, builder.take(start), axis, size, x.shape[axis])
    return [result_of(builder, equation, name)]


def _piece(builder: Builder, name: str, start: str, axis: int, size: Any, whole: Any) -> str:
    """So many elements along an axis, from a start that is moved to where they fit."""
    first = builder.node("Cast", start, to=onnx.TensorProto.INT64)
    first = builder.node("Reshape", first, builder.constant([1]))
    latest = builder.node("Sub", builder.scalar(whole), builder.scalar(size))
    first = builder.node("Max", builder.node("Min", first, latest), builder.constant([0]))
    end = builder.node("Add", first, builder.scalar(size))
    return builder.node("Slice", name, first, end, builder.constant([axis]))


@operator("rev")
def _reverse(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    axes = list(equation.params["dimensions"])
    name = builder.node(
        "Slice", builder.take(values[0]), builder.constant([-1] * len(axes)),
        builder.constant([-(2**31)] * len(axes)), builder.constant(axes),
        builder.constant([-1] * len(axes)),
    )  # fmt: skip
    return [result_of(builder, equation, name)]


@operator("iota")
def _iota(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    aval, axis = equation.outvars[0].aval, equation.params["dimension"]
    if isinstance(aval.shape[axis], int):
        count = builder.constant(np.arange(aval.shape[axis]), aval.dtype)
        return [_spread(builder, equation, count, axis)]
    end = builder.node("Reshape", builder.scalar(aval.shape[axis]), builder.constant([]))
    count = builder.node("Range", builder.constant(0), end, builder.constant(1))
    count = builder.node("Cast", count, to=type_of(aval.dtype))
    return [_spread(builder, equation, count, axis)]


def _spread(builder: Builder, equation: Any, count: str, axis: int) -> Value:
    """A vector along one axis, the same along the others."""
    shape = equation.outvars[0].aval.shape
    sizes = tuple(size if i == axis else 1 for i, size in enumerate(shape))
    result = result_of(builder, equation, _reshaped(builder, count, sizes))
    result.held = sizes
    return result


@operator("dim_as_value")
def _size(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    name = builder.node("Reshape", builder.scalar(equation.params["dim"]), builder.constant([]))
    kind = type_of(equation.outvars[0].aval.dtype)
    return [result_of(builder, equation, builder.node("Cast", name, to=kind))]


# ---------------------------------------------------------------------------- gathers


@operator("gather")
def _gather(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    """Rows by their numbers, or along an axis; negative numbers count from the end in ONNX too."""
    x, index = values
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if len(index.shape) == 1:  # one slice
        starts, name = builder.take(index), builder.take(x)
        for i, axis in enumerate(numbers.start_index_map):
            start = builder.node("Slice", starts, builder.constant([i]), builder.constant([i + 1]))
            name = _piece(builder, name, start, axis, sizes[axis], x.shape[axis])
        return [builder.reshape(Value(sizes, x.dtype, name), equation.outvars[0].aval.shape)]
    if equation.params["mode"] == GatherScatterMode.CLIP or len(numbers.start_index_map) != 1:
        raise UserError("the network gathers in a way that ONNX lacks: try --format=stablehlo")
    (axis,) = numbers.start_index_map
    others = [d for d in range(len(x.shape)) if d not in numbers.collapsed_slice_dims]
    others = [d for d in others if d not in numbers.operand_batching_dims]
    if numbers.collapsed_slice_dims != (axis,) or not all(
        same(sizes[d], x.shape[d]) for d in others
    ):
        raise UserError("the network gathers in a way that ONNX lacks: try --format=stablehlo")
    if numbers.operand_batching_dims:
        return [_along(builder, equation, x, index, axis)]
    out, which = equation.outvars[0].aval, _unwrapped(builder, index)
    name = builder.node("Gather", builder.take(x), which, axis=axis)
    # ONNX puts the axes of the index where the gathered axis was; JAX where it says.
    index_axes = [d for d in range(len(out.shape)) if d not in numbers.offset_dims]
    before, after = numbers.offset_dims[:axis], numbers.offset_dims[axis:]
    now = [*before, *index_axes, *after]
    if now != sorted(now):
        order = [now.index(d) for d in range(len(now))]
        name = builder.node("Transpose", name, perm=order)
    return [result_of(builder, equation, name)]


def _along(builder: Builder, equation: Any, x: Value, index: Value, axis: int) -> Value:
    """`take_along_axis`: each row of the batching axes has numbers of its own."""
    out, numbers = equation.outvars[0].aval, equation.params["dimension_numbers"]
    # The axes of the result that the index has; elsewhere it is the same for all.
    own = [d for d in range(len(out.shape)) if d not in numbers.offset_dims]
    sizes = [1] * len(out.shape)
    for d, size in zip(own, index.shape[:-1], strict=True):
        sizes[d] = size
    name = builder.take(builder.reshape(index, sizes))
    name = builder.node("Expand", name, builder.vector(out.shape))
    return result_of(
        builder, equation, builder.node("GatherElements", builder.take(x), name, axis=axis)
    )


def _unwrapped(builder: Builder, index: Value) -> str:
    """The numbers of a gather, without the last axis that JAX gives them.

    JAX adds the size to negative ones before, as select(i < 0, i, i + size): ONNX does so itself.
    """
    made, given = index.source
    if made == "broadcast_in_dim" and len(given[0].shape) == len(index.shape) - 1:
        (chosen,) = given
        made, given = chosen.source
        if made == "select_n" and given[0].source[0] == "lt" and given[2].source[0] == "add":
            numbers, zero = given[0].source[1]
            if numbers is given[1] is given[2].source[1][0] and not np.any(zero.const):
                return builder.take(numbers)
        return builder.take(chosen)
    return builder.take(builder.reshape(index, index.shape[:-1]))
