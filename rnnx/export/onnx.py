"""ONNX files: a function each, which any ONNX runtime runs; `rnnx.exported` reads them back."""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from rnnx import exported
from rnnx.errors import UserError
from rnnx.export import loops, operators, shapes  # noqa: F401 - they fill the table
from rnnx.export.functions import Exported
from rnnx.export.graph import to_onnx
from rnnx.runtime import session

SUFFIX = ".onnx"
_MOST = 2**31 - 2**20  # bytes of a protobuf message, with room for the rest


def write(function: Exported, params: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    """The file of a function.

    Raises:
      UserError: for a network that ONNX can't hold.
    """
    if sum(p.nbytes for p in params.values()) > _MOST:
        raise UserError("a network above 2 GB does not fit into one ONNX file: --format=stablehlo")
    model = to_onnx(function.call, params, function.inputs, function.outputs)
    return sealed(model, about | {"function": function.name})


def sealed(model: onnx.ModelProto, about: dict[str, Any]) -> bytes:
    """A model with what it says of itself, and its checksum."""
    del model.metadata_props[:]
    model.producer_name = "rnnx"
    model.metadata_props.add(key=exported.ABOUT, value=json.dumps(about))
    return exported.seal(model.SerializeToString(deterministic=True))


def quantised(data: bytes) -> bytes:
    """A file with weights of matrix products as int8, by onnxruntime's dynamic quantisation."""
    model = onnx.load_model_from_string(data)
    about = {entry.key: entry.value for entry in model.metadata_props}[exported.ABOUT]
    logging.getLogger().setLevel(logging.ERROR)  # it advises what makes no difference here
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"EnableSubgraph": True},
        )
        model = onnx.load(path)
    return sealed(model, json.loads(about) | {"weights": "int8"})


def load(path: Path) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """The function of a file: arrays by name to a list.

    Raises:
      UserError: as `exported.read_onnx`.
    """
    data, _ = exported.read_onnx(path)
    running = session(data, str(path))
    return lambda arrays: running.run(None, arrays)
