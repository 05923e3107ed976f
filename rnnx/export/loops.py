"""What calls, branches and loops are in ONNX."""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from rnnx.errors import UserError
from rnnx.export.graph import Builder, Graph, Value, needed, operator, result_of, same, type_of


@operator("jit")
def _call(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return _inlined(builder, equation.params["jaxpr"], values)


@operator("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def _custom(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    return _inlined(
        builder, equation.params.get("call_jaxpr") or equation.params["fun_jaxpr"], values
    )


def _inlined(builder: Builder, jaxpr: Any, values: list[Value]) -> list[Value]:
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return builder.inline(inner, getattr(jaxpr, "consts", ()), values)


@operator("platform_index")
def _platform(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    """ONNX runs what a CPU would."""
    platforms = equation.params["platforms"]
    found = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
    return [Value((), np.int32, const=np.int32(found))]


@operator("cond")
def _cond(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
    which, *given = values
    if which.const is None:
        raise UserError("the network branches on its inputs: try --format=stablehlo")
    return _inlined(builder, equation.params["branches"][int(which.const)], given)


@operator("scan")
def _scan(builder: Builder, equation: Any, values: list[Value]) -> list[Value]:
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
    return [result_of(builder, equation, name, i) for i, name in enumerate(found)]


def _tensor(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else None for size in aval.shape]
    return helper.make_tensor_value_info(name, type_of(aval.dtype), shape)


def _single_step(builder: Builder, closed: Any, consts: list, carry: list, xs: list) -> list[Value]:
    """A loop of one step is no loop."""
    steps = [builder.reshape(x, x.shape[1:]) for x in xs]
    results = _inlined(builder, closed, [*consts, *carry, *steps])
    after, ys = results[: len(carry)], results[len(carry) :]
    return [*after, *(builder.reshape(y, (1, *y.shape)) for y in ys)]
