"""From a traced function to an ONNX graph.

JAX writes a function down as a jaxpr: equations of primitives, with types and shapes. A free axis
(batch, time) is a symbol there, and sums of symbols are the sizes that follow from it. Here each
equation becomes ONNX nodes; a `scan` becomes one `Scan`, and one of a single step no loop at all.

    function -> jaxpr -> nodes by the table OPERATORS -> those that outputs need

`operators.py`, `shapes.py` and `loops.py` fill the table.

Types: float32, int32 and booleans. What JAX rounds to bfloat16 for a matrix product is rounded
likewise here, and multiplied in float32, as onnxruntime has no bfloat16 product on a CPU: the sums
are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import Literal
from onnx import TensorProto, helper, numpy_helper

from rnnx.errors import UserError

OPSET = 18  # of 2023: onnxruntime 1.14 and later
IR_VERSION = 8

_TYPES = {
    "float32": TensorProto.FLOAT,
    "bfloat16": TensorProto.FLOAT,  # rounded, but held as float32
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def type_of(dtype: Any) -> int:
    """ONNX's number for a type. Raises UserError for one that is not exported."""
    if (name := str(jnp.dtype(dtype))) not in _TYPES:
        raise UserError(f"the network computes with {name}, which is not exported to ONNX")
    return _TYPES[name]


# primitive -> function(builder, equation, values) -> values
OPERATORS: dict[str, Callable[["Builder", Any, list["Value"]], list["Value"]]] = {}


def operator(*names: str) -> Callable:
    """Registers a function as what primitives are in ONNX."""

    def add(function: Callable) -> Callable:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return add


class Value:
    """An array of the jaxpr: a tensor of the graph by name, or a constant.

    Attributes:
      shape, dtype: as the jaxpr has them.
      name, const: one of the two.
      held: the shape that the tensor really has; ones in place of axes it is broadcast along.
      source: the primitive that made it, and its arguments.
      origin: of a reshaped array, the one before the reshape.
    """

    def __init__(self, shape: Sequence, dtype: Any, name: str = "", const: Any = None):
        self.shape, self.dtype, self.name, self.const = tuple(shape), jnp.dtype(dtype), name, const
        self.held = self.shape
        self.source: tuple[str, list[Value]] = ("", [])
        self.origin: Value | None = None


class Graph:
    """Nodes in the order in which they run: of the model, or of the body of a loop."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []


class Dim:
    """A size that is known at run time, as a tensor (1,) of int64; arithmetic makes nodes."""

    def __init__(self, builder: "Builder", name: str):
        self.builder, self.name = builder, name

    def _with(self, op: str, a: Any, b: Any) -> "Dim":
        builder = self.builder
        a, b = (x.name if isinstance(x, Dim) else builder.constant([int(x)]) for x in (a, b))
        return Dim(builder, builder.at_the_root(op, a, b))

    def __add__(self, other: Any) -> "Dim":
        return self._with("Add", self, other)

    def __mul__(self, other: Any) -> "Dim":
        return self._with("Mul", self, other)

    __radd__, __rmul__ = __add__, __mul__


class Builder:
    """Collects the nodes and constants of a model."""

    def __init__(self) -> None:
        self.root = self.graph = Graph()
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.sizes: dict[str, Dim] = {}  # of free axes
        self._sums: dict[str, str] = {}
        self._sizes_end = 0  # nodes of sizes lie before all others
        self._count = 0

    # ---- nodes

    def fresh(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; the name of its output, or their names."""
        names = [self.fresh() for _ in range(outputs)]
        self.graph.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def at_the_root(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of sizes, before all others of the model."""
        name = self.fresh()
        self.root.nodes.insert(
            self._sizes_end, helper.make_node(op, list(inputs), [name], **attributes)
        )
        self._sizes_end += 1
        return name

    # ---- constants

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """The name of a constant."""
        array = np.asarray(value, dtype)
        key = f"{array.dtype}{array.shape}{array.tobytes()!r}" if array.size < 64 else self.fresh()
        if key not in self._sums:
            self._sums[key] = self.fresh()
            self.initialize(self._sums[key], array)
        return self._sums[key]

    def initialize(self, name: str, array: np.ndarray) -> None:
        """A constant by a name of its own."""
        type_of(array.dtype)
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)

    # ---- sizes

    def free_axis(self, symbol: str, tensor: str, axis: int) -> None:
        """Says where the size of a free axis is found."""
        if symbol not in self.sizes:
            shape = self.at_the_root("Shape", tensor, start=axis, end=axis + 1)
            self.sizes[symbol] = Dim(self, shape)

    def vector(self, sizes: Sequence) -> str:
        """A vector of sizes, some of them known at run time."""
        if all(isinstance(size, int | np.integer) for size in sizes):
            return self.constant([int(size) for size in sizes])
        key = f"vector {sizes}"
        if key not in self._sums:
            parts = [self.scalar(size) for size in sizes]
            self._sums[key] = (
                parts[0] if len(parts) == 1 else self.at_the_root("Concat", *parts, axis=0)
            )
        return self._sums[key]

    def scalar(self, size: Any) -> str:
        """A size as a vector of one."""
        if isinstance(size, int | np.integer):
            return self.constant([int(size)])
        key = f"size {size}"
        if key not in self._sums:
            try:
                self._sums[key] = size._evaluate(self.sizes).name  # jax has no public way
            except TypeError:  # a quotient, of which `Dim` makes no node
                raise UserError(
                    f"the network has an axis of size {size}, which is not exported to ONNX: try "
                    "--format=stablehlo"
                ) from None
        return self._sums[key]

    # ---- values

    def take(self, value: Value) -> str:
        """The name of a value's tensor, in its whole shape."""
        name = self.loose(value)
        if value.held == value.shape:
            return name
        return self.node("Expand", name, self.vector(value.shape))

    def reshape(self, value: Value, shape: Sequence) -> Value:
        """A value in another shape. Reshapes in a row are one, or none if they undo each other."""
        value = value.origin or value
        if same_shape(value.shape, shape):
            return value
        name, axes = self.take(value), one_axes(value.shape, shape)
        if axes is not None:
            name = self.node("Unsqueeze", name, self.constant(axes))
        elif (axes := one_axes(shape, value.shape)) is not None:
            name = self.node("Squeeze", name, self.constant(axes))
        else:
            name = self.node("Reshape", name, self.vector(shape), allowzero=1)
        new = Value(shape, value.dtype, name)
        new.origin = value
        return new

    def loose(self, value: Value) -> str:
        """The name of a value's tensor, which may have to be broadcast."""
        if not value.name:
            held = np.asarray(value.const)
            held = held.astype(np.float32) if str(held.dtype) == "bfloat16" else held
            value.name = self.constant(held, held.dtype)
        return value.name

    def like(self, aval: Any, name: str) -> Value:
        """A value of a jaxpr's type, held by a tensor."""
        type_of(aval.dtype)
        return Value(aval.shape, aval.dtype, name)

    def inline(self, jaxpr: Any, consts: Sequence, values: Sequence[Value]) -> list[Value]:
        """The nodes of a jaxpr; its results.

        Raises:
          UserError: for a primitive that has no operator.
        """
        env: dict[Any, Value] = {}

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return constant_value(atom.val, atom.aval)
            return env[atom]

        for var, value in zip(jaxpr.constvars, consts, strict=True):
            env[var] = value if isinstance(value, Value) else constant_value(value, var.aval)
        env.update(zip(jaxpr.invars, values, strict=True))
        for equation in jaxpr.eqns:
            name, given = equation.primitive.name, [read(atom) for atom in equation.invars]
            if name not in OPERATORS:
                raise UserError(
                    f"the network computes {name}, which is not exported to ONNX: try "
                    "--format=stablehlo"
                )
            results = OPERATORS[name](self, equation, given)
            for var, value in zip(equation.outvars, results, strict=True):
                if not value.source[0]:  # some come from within a call, with a source
                    value.source = name, given
                env[var] = value
        return [read(atom) for atom in jaxpr.outvars]


def same(a: Any, b: Any) -> bool:
    """Whether two sizes are equal, as far as that is known."""
    return str(a) == str(b)


def same_shape(a: Sequence, b: Sequence) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def one_axes(few: Sequence, many: Sequence) -> list[int] | None:
    """The axes of size 1 that many has beyond few; None if that is not all that it has."""
    axes, rest = [], list(few)
    for axis, size in enumerate(many):
        if rest and same(size, rest[0]):
            rest.pop(0)
        elif same(size, 1):
            axes.append(axis)
        else:
            return None
    return axes if axes and not rest else None


def result_of(builder: Builder, equation: Any, name: str, of: int = 0) -> Value:
    """A result of an equation, held by a tensor."""
    return builder.like(equation.outvars[of].aval, name)


def constant_value(value: Any, aval: Any) -> Value:
    """A constant of a jaxpr."""
    return Value(aval.shape, aval.dtype, const=np.asarray(value, aval.dtype))


def to_onnx(
    function: Callable,
    params: dict[str, Any],
    inputs: dict[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """The model of a function.

    Args:
      function: (params, *inputs) -> a list of arrays, as many as outputs has names.
      params: arrays by name; they become constants of these names.
      inputs: shapes and types by name; axes may be symbols of `jax.export.symbolic_shape`.
    """
    shapes = {k: jax.ShapeDtypeStruct(p.shape, p.dtype) for k, p in params.items()}
    closed = jax.make_jaxpr(function)(shapes, *inputs.values())
    builder, values = Builder(), []
    names = sorted(params)  # the order in which JAX flattens a dict
    for name in names:
        builder.initialize(name, np.asarray(params[name]))
        values.append(Value(params[name].shape, params[name].dtype, name))
    stated = []
    for name, like in inputs.items():
        values.append(Value(like.shape, like.dtype, name))
        stated.append(_info(name, like))
        for axis, size in enumerate(like.shape):
            if not isinstance(size, int) and str(size).isidentifier():
                builder.free_axis(str(size), name, axis)
    results = builder.inline(closed.jaxpr, closed.consts, values)
    told = []
    for name, value, aval in zip(outputs, results, closed.out_avals, strict=True):
        builder.root.nodes.append(helper.make_node("Identity", [builder.take(value)], [name]))
        told.append(_info(name, aval))
    nodes = needed(builder.root.nodes, set(outputs))
    used = names_in(nodes)
    constants = [t for name, t in builder.initializers.items() if name in used]
    graph = helper.make_graph(nodes, "rnnx", stated, told, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    return model


def _info(name: str, like: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else str(size) for size in like.shape]
    return helper.make_tensor_value_info(name, type_of(like.dtype), shape)


def needed(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that wanted tensors come from."""
    kept, wanted = [], set(wanted)
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= names_in([node])
    return kept[::-1]


def names_in(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes read, those of loops within them too."""
    found: set[str] = set()
    for node in nodes:
        found |= set(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= names_in(attribute.g.node) | {o.name for o in attribute.g.output}
    return found
