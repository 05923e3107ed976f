"""The exported step on the bench: `rnnx.runtime.Stream`, without JAX in its loop."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from rnnx import model, tasks
from rnnx.bench.cases import Case
from rnnx.export import onnx
from rnnx.export.functions import exports_of
from rnnx.runtime import Stream
from rnnx.tasks import network
from rnnx.trained import Run


def token(case: Case, threads: int, int8: bool = False) -> Callable[[], list[float]]:
    """Reads one token and returns the next one's logits."""
    config, spec = case.config, case.spec
    graphdef, params = model.split(network.build(config, spec))
    with tempfile.TemporaryDirectory() as folder:
        exports = exports_of(
            Run(Path(folder), config, tasks.of(config), spec, graphdef, params, {})
        )
        about = {"format": 1, "function": "step", "symbols": case.vocab_size}
        data = onnx.write(exports.functions[1], exports.params, about)
        file = Path(folder) / "net.step.onnx"
        file.write_bytes(onnx.quantised(data) if int8 else data)
        stream = Stream(file, threads=threads)
    return lambda: [float(stream.step(1)[0])]
