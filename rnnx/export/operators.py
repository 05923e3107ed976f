"""What primitives that compute are in ONNX: element by element, products, sums."""

from collections.abc import Callable
from typing import Any

import onnx

from rnnx.errors import UserError
from rnnx.export.graph import Builder, Value, operator, result_of, same, type_of

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
    result = result_of(builder, equation, builder.node(op, *map(builder.loose, values)))
    result.held = _aligned(values)
    return result


for _primitive, _op in {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max",
    "min": "Min", "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid",
    "abs": "Abs", "sqrt": "Sqrt", "sign": "Sign", "lt": "Less",
    "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal", "and": "And",
    "or": "Or", "not": "Not",
}.items():  # fmt: skip
    operator(_primitive)(_elementwise(_op))

for _primitive in ("copy", "stop_gradient"):
    operator(_primitive)(lambda builder, equation, values: values)


def _chain(builder: Builder, equation: Any, values: list[Value], *ops: tuple) -> list[Value]:
    """Nodes one after the other, each with constants of the value's type beside what it takes."""
    held, name = _aligned(values), builder.loose(values[0])
    dtype = equation.invars[0].aval.dtype
    for op, *constants in ops:
        name = builder.node(op, name, *(builder.constant(c, dtype) for c in constants))
    result = result_of(builder, equation, name)
    result.held = held
    return [result]


@operator("log1p")
def _log1p(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return _chain(builder, equation, values, ("Add", 1), ("Log",))


@operator("rsqrt")
def _rsqrt(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return _chain(builder, equation, values, ("Sqrt",), ("Reciprocal",))


@operator("square")
def _square(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return [_pointwise(builder, equation, "Mul", [values[0], values[0]])]


@operator("integer_pow")
def _integer_pow(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return _chain(builder, equation, values, ("Pow", equation.params["y"]))


@operator("ne")
def _not_equal(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    result = _pointwise(builder, equation, "Equal", values)
    result.name = builder.node("Not", result.name)
    return [result]


@operator("rem")
def _remainder(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    name = builder.node("Mod", *map(builder.loose, values), fmod=1)
    result = result_of(builder, equation, name)
    result.held = _aligned(values)
    return [result]


@operator("select_n")
def _select(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    which, *cases = values
    if len(cases) != 2 or str(which.dtype) != "bool":
        raise UserError("the network selects among more than two cases: try --format=stablehlo")
    if str(cases[0].dtype) == "bool":  # for which onnxruntime has no Where
        no = builder.node("Not", builder.loose(which))
        no = builder.node("And", no, builder.loose(cases[0]))
        yes = builder.node("And", builder.loose(which), builder.loose(cases[1]))
        result = result_of(builder, equation, builder.node("Or", yes, no))
        result.held = _aligned(values)
        return [result]
    return [_pointwise(builder, equation, "Where", [which, cases[1], cases[0]])]


@operator("clamp")
def _clamp(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    low, x, high = values
    name = builder.node("Max", builder.loose(x), builder.loose(low))
    result = result_of(builder, equation, builder.node("Min", name, builder.loose(high)))
    result.held = _aligned(values)
    return [result]


@operator("convert_element_type")
def _convert(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    (x,) = values
    new, name = equation.outvars[0].aval.dtype, builder.loose(x)
    if str(new) == "bfloat16":
        name = builder.node("Cast", name, to=onnx.TensorProto.BFLOAT16)
        name = builder.node("Cast", name, to=onnx.TensorProto.FLOAT)
    elif type_of(new) != type_of(x.dtype):
        name = builder.node("Cast", name, to=type_of(new))
    result = result_of(builder, equation, name)
    result.held = x.held
    return [result]


# ---------------------------------------------------------------------------- products, sums


@operator("dot_general")
def _dot(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    (left, right), (batch_left, batch_right) = equation.params["dimension_numbers"]
    x, w = values
    a, b = builder.take(x), builder.take(w)
    plain = not batch_left and left == (len(x.shape) - 1,) and len(w.shape) == 2
    if plain and len(right) == 1:
        if right == (1,):
            b = builder.node("Transpose", b, perm=[1, 0])
        return [result_of(builder, equation, builder.node("MatMul", a, b))]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first, second = ([""] * len(v.shape) for v in values)
    for i, j in [*zip(batch_left, batch_right, strict=True), *zip(left, right, strict=True)]:
        first[i] = second[j] = next(letters)
    first, second = ([letter or next(letters) for letter in side] for side in (first, second))
    shared = [first[i] for i in batch_left]
    out = shared + [c for c in first if c not in second] + [c for c in second if c not in first]
    rule = f"{''.join(first)},{''.join(second)}->{''.join(out)}"
    return [result_of(builder, equation, builder.node("Einsum", a, b, equation=rule))]


for _primitive, _op in {
    "reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
}.items():  # fmt: skip

    @operator(_primitive)
    def _reduce(builder: Builder, equation: Any, values: list[Value], op: str = _op) -> list[Value]:
        axes = builder.constant(list(equation.params["axes"]))
        name = builder.node(op, builder.take(values[0]), axes, keepdims=0)
        return [result_of(builder, equation, name)]


@operator("sort")
def _sort(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    axis = equation.params["dimension"]
    if len(values) != 1:
        raise UserError("the network sorts several arrays together: try --format=stablehlo")
    size = builder.scalar(values[0].shape[axis])
    ascending, _ = builder.node(
        "TopK", builder.take(values[0]), size, outputs=2, axis=axis, largest=0, sorted=1
    )
    return [result_of(builder, equation, ascending)]
