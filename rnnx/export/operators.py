"""What the primitives of JAX are in ONNX: one function each, in the table `OPERATORS`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from jax.lax import GatherScatterMode
from onnx import helper

from rnnx.errors import UserError
from rnnx.export.graph import Builder, Graph, Value, needed, same, same_shape, type_of

OPERATORS: dict[str, Callable[[Builder, Any, list[Value]], list[Value]]] = {}


def operator(*names: str) -> Callable:
    """Registers a function (builder, equation, values) -> values for primitives."""

    def add(function: Callable) -> Callable:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return add


def _result(builder: Builder, equation: Any, name: str, of: int = 0) -> Value:
    return builder.like(equation.outvars[of].aval, name)


# ---------------------------------------------------------------------------- elementwise


def _aligned(values: list[Value]) -> tuple:
    """The shape that tensors have together, each as it is held."""
    rank = max(len(v.held) for v in values)
    shapes = [(1,) * (rank - len(v.held)) + v.held for v in values]
    return tuple(next((s for s in sizes if not same(s, 1)), 1) for sizes in zip(*shapes))  # noqa: B905


def _elementwise(op: str) -> Callable:
    def apply(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
        return [_pointwise(builder, equation, op, values)]

    return apply


def _pointwise(builder: Builder, equation: Any, op: str, values: list[Value]) -> Value:
    """One node; its inputs are broadcast by ONNX itself, so none is expanded before."""
    result = _result(builder, equation, builder.node(op, *map(builder.loose, values)))
    result.held = _aligned(values)
    return result


for _primitive, _op in {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max",
    "min": "Min", "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid",
    "abs": "Abs", "sqrt": "Sqrt", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "lt": "Less",
    "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal", "and": "And",
    "or": "Or", "xor": "Xor", "not": "Not", "pow": "Pow", "erf": "Erf", "sin": "Sin", "cos": "Cos",
}.items():  # fmt: skip
    operator(_primitive)(_elementwise(_op))

for _primitive in ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision"):
    operator(_primitive)(lambda builder, equation, values: values)


def _chain(builder: Builder, equation: Any, values: list[Value], *ops: tuple) -> list[Value]:
    """Nodes one after the other, each with constants of the value's type beside what it takes."""
    held, name = _aligned(values), builder.loose(values[0])
    dtype = equation.invars[0].aval.dtype
    for op, *constants in ops:
        name = builder.node(op, name, *(builder.constant(c, dtype) for c in constants))
    result = _result(builder, equation, name)
    result.held = held
    return [result]


@operator("log1p")
def _log1p(builder, equation, values):
    return _chain(builder, equation, values, ("Add", 1), ("Log",))


@operator("expm1")
def _expm1(builder, equation, values):
    return _chain(builder, equation, values, ("Exp",), ("Sub", 1))


@operator("rsqrt")
def _rsqrt(builder, equation, values):
    return _chain(builder, equation, values, ("Sqrt",), ("Reciprocal",))


@operator("square")
def _square(builder, equation, values):
    return [_pointwise(builder, equation, "Mul", [values[0], values[0]])]


@operator("integer_pow")
def _integer_pow(builder, equation, values):
    return _chain(builder, equation, values, ("Pow", equation.params["y"]))


@operator("ne")
def _not_equal(builder, equation, values):
    result = _pointwise(builder, equation, "Equal", values)
    result.name = builder.node("Not", result.name)
    return [result]


@operator("rem")
def _remainder(builder, equation, values):
    name = builder.node("Mod", *map(builder.loose, values), fmod=1)
    result = _result(builder, equation, name)
    result.held = _aligned(values)
    return [result]


@operator("is_finite")
def _is_finite(builder, equation, values):
    return _chain(builder, equation, values, ("Sub", 0), ("Abs",), ("Less", np.inf))


@operator("select_n")
def _select(builder, equation, values):
    which, *cases = values
    if len(cases) != 2 or str(which.dtype) != "bool":
        raise UserError("the network selects among more than two cases: try --format=stablehlo")
    if str(cases[0].dtype) == "bool":  # for which onnxruntime has no Where
        no = builder.node("Not", builder.loose(which))
        no = builder.node("And", no, builder.loose(cases[0]))
        yes = builder.node("And", builder.loose(which), builder.loose(cases[1]))
        result = _result(builder, equation, builder.node("Or", yes, no))
        result.held = _aligned(values)
        return [result]
    return [_pointwise(builder, equation, "Where", [which, cases[1], cases[0]])]


@operator("clamp")
def _clamp(builder, equation, values):
    low, x, high = values
    name = builder.node("Max", builder.loose(x), builder.loose(low))
    result = _result(builder, equation, builder.node("Min", name, builder.loose(high)))
    result.held = _aligned(values)
    return [result]


@operator("convert_element_type")
def _convert(builder, equation, values):
    (x,) = values
    new, name = equation.outvars[0].aval.dtype, builder.loose(x)
    if str(new) == "bfloat16":
        name = builder.node("Cast", name, to=onnx.TensorProto.BFLOAT16)
        name = builder.node("Cast", name, to=onnx.TensorProto.FLOAT)
    elif type_of(new) != type_of(x.dtype):
        name = builder.node("Cast", name, to=type_of(new))
    result = _result(builder, equation, name)
    result.held = x.held
    return [result]


# ---------------------------------------------------------------------------- shapes


@operator("broadcast_in_dim")
def _broadcast(builder, equation, values):
    x, new = values[0], equation.outvars[0].aval.shape
    places = equation.params["broadcast_dimensions"]
    # Axes in front need no node: ONNX adds them where it broadcasts.
    if tuple(places) == tuple(range(len(new) - len(x.shape), len(new))):
        result = _result(builder, equation, builder.loose(x))
        result.held = x.held
        return [result]
    held, known = [1] * len(new), (1,) * (len(x.shape) - len(x.held)) + x.held
    for size, place in zip(known, places, strict=True):
        held[place] = size
    if same_shape(held, new) and same_shape(x.held, x.shape):
        return [builder.reshape(x, new)]
    result = _result(builder, equation, _reshaped(builder, builder.loose(x), held))
    result.held = tuple(held)
    return [result]


def _reshaped(builder: Builder, name: str, sizes: Any) -> str:
    return builder.node("Reshape", name, builder.vector(sizes), allowzero=1)


@operator("reshape", "squeeze", "expand_dims")
def _reshape(builder, equation, values):
    return [builder.reshape(values[0], equation.outvars[0].aval.shape)]


@operator("transpose")
def _transpose(builder, equation, values):
    (x,), order = values, equation.params["permutation"]
    axes = [axis for axis in order if not same(x.shape[axis], 1)]
    if axes == sorted(axes):  # only axes of size 1 move
        return [builder.reshape(x, equation.outvars[0].aval.shape)]
    return [_result(builder, equation, builder.node("Transpose", builder.take(x), perm=order))]


@operator("concatenate")
def _concatenate(builder, equation, values):
    axis = equation.params["dimension"]
    return [
        _result(builder, equation, builder.node("Concat", *map(builder.take, values), axis=axis))
    ]


@operator("stack")
def _stack(builder, equation, values):
    axis, shape = equation.params["axis"], list(equation.outvars[0].aval.shape)
    shape[axis] = 1
    parts = (builder.take(builder.reshape(value, shape)) for value in values)
    return [_result(builder, equation, builder.node("Concat", *parts, axis=axis))]


@operator("split")
def _split(builder, equation, values):
    sizes, axis = equation.params["sizes"], equation.params["axis"]
    if len(sizes) == 1:
        return list(values)
    names = builder.node(
        "Split", builder.take(values[0]), builder.vector(sizes), outputs=len(sizes), axis=axis
    )
    return [_result(builder, equation, name, i) for i, name in enumerate(names)]


@operator("slice")
def _slice(builder, equation, values):
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
    return [_result(builder, equation, name)]


@operator("dynamic_slice")
def _dynamic_slice(builder, equation, values):
    x, *starts = values
    name = builder.take(x)
    for axis, (start, size) in enumerate(zip(starts, equation.params["slice_sizes"], strict=False)):
        if same(size, x.shape[axis]):
            continue
        name = _piece(builder, name, builder.take(start), axis, size, x.shape[axis])
    return [_result(builder, equation, name)]


def _piece(builder: Builder, name: str, start: str, axis: int, size: Any, whole: Any) -> str:
    """So many elements along an axis, from a start that is moved to where they fit."""
    first = builder.node("Cast", start, to=onnx.TensorProto.INT64)
    first = builder.node("Reshape", first, builder.constant([1]))
    latest = builder.node("Sub", builder.scalar(whole), builder.scalar(size))
    first = builder.node("Max", builder.node("Min", first, latest), builder.constant([0]))
    end = builder.node("Add", first, builder.scalar(size))
    return builder.node("Slice", name, first, end, builder.constant([axis]))


@operator("rev")
def _reverse(builder, equation, values):
    axes = list(equation.params["dimensions"])
    name = builder.node(
        "Slice", builder.take(values[0]), builder.constant([-1] * len(axes)),
        builder.constant([-(2**31)] * len(axes)), builder.constant(axes),
        builder.constant([-1] * len(axes)),
    )  # fmt: skip
    return [_result(builder, equation, name)]


@operator("pad")
def _pad(builder, equation, values):
    lows, highs, between = zip(*equation.params["padding_config"], strict=True)
    if any(between) or any(isinstance(p, int) and p < 0 for p in lows + highs):
        raise UserError("the network pads between elements: try --format=stablehlo")
    pads = builder.vector([*lows, *highs])
    name = builder.node("Pad", builder.take(values[0]), pads, builder.take(values[1]))
    return [_result(builder, equation, name)]


@operator("iota")
def _iota(builder, equation, values):
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
    result = _result(builder, equation, _reshaped(builder, count, sizes))
    result.held = sizes
    return result


@operator("dim_as_value")
def _size(builder, equation, values):
    name = builder.node("Reshape", builder.scalar(equation.params["dim"]), builder.constant([]))
    kind = type_of(equation.outvars[0].aval.dtype)
    return [_result(builder, equation, builder.node("Cast", name, to=kind))]


# ---------------------------------------------------------------------------- products, sums


@operator("dot_general")
def _dot(builder, equation, values):
    (left, right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    x, w = values
    a, b = builder.take(x), builder.take(w)
    plain = not batch_left and left == (len(x.shape) - 1,) and len(w.shape) == 2
    if plain and len(right) == 1:
        if right == (1,):
            b = builder.node("Transpose", b, perm=[1, 0])
        return [_result(builder, equation, builder.node("MatMul", a, b))]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first, second = ([""] * len(v.shape) for v in values)
    for i, j in [*zip(batch_left, batch_right, strict=True), *zip(left, right, strict=True)]:
        first[i] = second[j] = next(letters)
    first, second = ([letter or next(letters) for letter in side] for side in (first, second))
    shared = [first[i] for i in batch_left]
    out = shared + [c for c in first if c not in second] + [c for c in second if c not in first]
    rule = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
    return [_result(builder, equation, builder.node("Einsum", a, b, equation=rule))]


def _reduce(op: str) -> Callable:
    def apply(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
        (x,), axes = values, builder.constant(list(equation.params["axes"]))
        name, kind = builder.take(x), type_of(x.dtype)
        if str(x.dtype) == "bool":  # any and all, as the largest and the smallest
            name = builder.node("Cast", name, to=onnx.TensorProto.INT32)
        name = builder.node(op, name, axes, keepdims=0)
        if str(x.dtype) == "bool":
            name = builder.node("Cast", name, to=kind)
        return [_result(builder, equation, name)]

    return apply


for _primitive, _op in {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_or": "ReduceMax", "reduce_and": "ReduceMin",
}.items():  # fmt: skip
    operator(_primitive)(_reduce(_op))


@operator("argmax", "argmin")
def _extreme(builder, equation, values):
    op = "ArgMax" if equation.primitive.name == "argmax" else "ArgMin"
    (axis,) = equation.params["axes"]
    name = builder.node(op, builder.take(values[0]), axis=axis, keepdims=0)
    kind = type_of(equation.outvars[0].aval.dtype)
    return [_result(builder, equation, builder.node("Cast", name, to=kind))]


@operator("cumsum")
def _cumsum(builder, equation, values):
    axis = builder.constant(equation.params["axis"])
    reverse = int(equation.params["reverse"])
    name = builder.node("CumSum", builder.take(values[0]), axis, reverse=reverse)
    return [_result(builder, equation, name)]


@operator("sort")
def _sort(builder, equation, values):
    axis = equation.params["dimension"]
    if len(values) != 1:
        raise UserError("the network sorts several arrays together: try --format=stablehlo")
    size = builder.scalar(values[0].shape[axis])
    ascending, _ = builder.node(
        "TopK", builder.take(values[0]), size, outputs=2, axis=axis, largest=0, sorted=1
    )
    return [_result(builder, equation, ascending)]


# ---------------------------------------------------------------------------- gathers


@operator("gather")
def _gather(builder, equation, values):
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
    return [_result(builder, equation, name)]


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
    return _result(
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


# ---------------------------------------------------------------------------- calls and loops


@operator("jit", "closed_call", "checkpoint")
def _call(builder, equation, values):
    return _inlined(builder, equation.params["jaxpr"], values)


@operator("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def _custom(builder, equation, values):
    return _inlined(
        builder, equation.params.get("call_jaxpr") or equation.params["fun_jaxpr"], values
    )


def _inlined(builder: Builder, jaxpr: Any, values: list[Value]) -> list[Value]:
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return builder.inline(inner, getattr(jaxpr, "consts", ()), values)


@operator("platform_index")
def _platform(builder, equation, values):
    """ONNX runs what a CPU would."""
    platforms = equation.params["platforms"]
    found = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
    return [Value((), np.int32, const=np.int32(found))]


@operator("cond")
def _cond(builder, equation, values):
    which, *given = values
    if which.const is None:
        raise UserError("the network branches on its inputs: try --format=stablehlo")
    return _inlined(builder, equation.params["branches"][int(which.const)], given)


@operator("scan")
def _scan(builder, equation, values):
    params = equation.params
    count, held = params["num_consts"], params["num_carry"]
    consts, carry, xs = values[:count], values[count : count + held], values[count + held :]
    closed = params["jaxpr"]
    if same(params["length"], 1):
        return _single_step(builder, closed, consts, carry, xs)
    if not xs:  # ONNX loops over something
        raise UserError("the network loops over nothing but a count: try --format=stablehlo")
    body = Graph()
    taken = [builder.take(v) for v in (*carry, *xs)]
    names = [builder.fresh() for _ in taken]
    avals = closed.in_avals[count:]
    inside = [builder.like(aval, name) for aval, name in zip(avals, names, strict=True)]
    outer, builder.graph = builder.graph, body
    try:
        results = _inlined(builder, closed, [*consts, *inside])
        ends = [builder.node("Identity", builder.take(value)) for value in results]
    finally:
        builder.graph = outer
    graph = helper.make_graph(
        needed(body.nodes, set(ends)),
        "step",
        [_tensor(n, a) for n, a in zip(names, avals, strict=True)],
        [_tensor(n, a) for n, a in zip(ends, closed.out_avals, strict=True)],
    )
    backward = int(params["reverse"])
    found = builder.node(
        "Scan",
        *taken,
        outputs=len(ends),
        body=graph,
        num_scan_inputs=len(xs),
        scan_input_directions=[backward] * len(xs),
        scan_output_directions=[backward] * (len(ends) - held),
    )
    found = [found] if len(ends) == 1 else found
    return [_result(builder, equation, name, i) for i, name in enumerate(found)]


def _tensor(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else None for size in aval.shape]
    return helper.make_tensor_value_info(name, type_of(aval.dtype), shape)


def _single_step(builder: Builder, closed: Any, consts: list, carry: list, xs: list) -> list[Value]:
    """A loop of one step is no loop."""
    steps = [builder.reshape(x, x.shape[1:]) for x in xs]
    results = _inlined(builder, closed, [*consts, *carry, *steps])
    after, ys = results[: len(carry)], results[len(carry) :]
    return [*after, *(builder.reshape(y, (1, *y.shape)) for y in ys)]
