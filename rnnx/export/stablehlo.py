"""StableHLO files: a function each, as `jax.export` serialises it, with its weights.

A file is a zip of three: `about.json`, `weights.safetensors` and `function`, whose first argument
is the dict of weights. The zip's comment is the checksum of all before it. Files run on CPU, GPU
and TPU.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from rnnx.errors import UserError
from rnnx.export.functions import Exported
from rnnx.exported import check

SUFFIX = ".stablehlo"
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PARTS = ("about.json", "weights.safetensors", "function")
# What JAX puts into a function with free axes, to check their sizes. Any other call may be code.
_CALLS = {"shape_assertion"}


def write(function: Exported, params: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    """The file of a function."""
    shapes = {name: jax.ShapeDtypeStruct(p.shape, p.dtype) for name, p in params.items()}
    made = jax.export.export(jax.jit(function.call), platforms=_PLATFORMS)
    serialised = made(shapes, *function.inputs.values()).serialize()
    names = {"arguments": list(function.inputs), "results": function.outputs}
    told = json.dumps(about | {"function": function.name} | names)
    contents = told.encode(), safetensors.numpy.save(params), bytes(serialised)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in zip(_PARTS, contents, strict=True):
            archive.writestr(zipfile.ZipInfo(name), content)  # without the time: equal bytes
        archive.comment = b"0" * 64
    return seal(file.getvalue()[:-64])


def seal(data: bytes) -> bytes:
    """A zip without its comment, and the checksum as that."""
    return data + hashlib.sha256(data).hexdigest().encode()


class Loaded:
    """The function of a file, on JAX's first device.

    Attributes:
      about: what the file says of itself.
      weights: by name.
    """

    def __init__(self, about: dict[str, Any], weights: dict[str, Any], function: Any):
        self.about, self.weights = about, jax.device_put(weights)
        self._call = jax.jit(function.call)

    def __call__(self, arrays: dict[str, Any]) -> dict[str, jax.Array]:
        """Arrays by name to arrays by name, as `about` lists them."""
        given = [arrays[name] for name in self.about["arguments"]]
        return dict(zip(self.about["results"], self._call(self.weights, *given), strict=True))


def load_stablehlo(path: Path | str) -> Loaded:
    """A StableHLO file of `rnnx.export`.

    Raises:
      UserError: when it is damaged, not of `rnnx.export`, of a newer format, or holds calls of
        foreign code.
    """
    try:
        data = Path(path).expanduser().read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise UserError(f"{path} is no StableHLO file of rnnx.export")
            told, weights, function = (archive.read(name) for name in _PARTS)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UserError:
        raise
    except Exception:  # zipfile raises anything on what is no zip
        raise UserError(f"{path} is no StableHLO file of rnnx.export, or damaged") from None
    if data != seal(data[:-64]):
        raise UserError(f"{path} is damaged: export it again")
    try:
        about = check(told, str(path))
        weights = safetensors.numpy.load(weights)
        exported = jax.export.deserialize(bytearray(function))
        calls = set(re.findall(r"custom_call\s*@\"?([\w.]+)", exported.mlir_module()))
    except UserError:
        raise
    except Exception as error:  # of parsers of several kinds
        raise UserError(f"{path} is damaged ({type(error).__name__}): export it again") from None
    if foreign := calls - _CALLS:
        raise UserError(f"{path} calls {', '.join(sorted(foreign))}: not loaded")
    return Loaded(about, weights, exported)


def load(path: Path) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """The function of a file: arrays by name to a list."""
    loaded = load_stablehlo(path)
    return lambda arrays: [np.asarray(a) for a in loaded(arrays).values()]
