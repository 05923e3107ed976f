"""What an exported file says of itself: plain JSON, the same in every format."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rnnx import __version__, tasks, workdir
from rnnx import config as configs
from rnnx.exported import FORMAT
from rnnx.trained import Run


def readable(names: Iterable[str]) -> dict[str, str]:
    """Parameters' names for people, by their names in the network.

    `stack.layers.0.blocks.0.W` is `layers.0.block1.W`, the W of the first layer's first block
    (l = 1 in the RHN paper); those beside the stack keep their names: `embedding`.
    """
    return {name: _readable(name) for name in names}


def _readable(name: str) -> str:
    name = name.removeprefix("stack.")
    return re.sub(r"(?:^|(?<=\.))blocks\.(\d+)\.", lambda m: f"block{int(m[1]) + 1}.", name)


def about(run: Run, exports: Any) -> dict[str, Any]:
    """What the files of a run have in common.

    Places of files are left out: they are of the machine that trained.
    """
    config = configs.to_json(run.config)
    for field in ("corpus", "test_corpus"):
        if field in config:
            config[field] = Path(config[field]).name if config[field] else ""
    config["data_dir"] = ""
    data = workdir.read_json(run.folder / "run.json", workdir.FORMAT).get("data", {})
    spec = run.task.spec_to_json(run.spec)
    function = exports.function
    tokens = function.inputs["inputs"][1] == "int32"
    return {
        "format": FORMAT,
        "rnnx": __version__,
        "task": tasks.name_of(run.config),
        "parameters": sum(p.size for p in exports.params.values()),
        "inputs": {
            name: {"axes": list(axes), "type": kind}
            for name, (axes, kind) in function.inputs.items()
        },
        "state": [list(shape) for shape in exports.state],
        "meaning": function.meaning,
        "symbols": len(spec["symbols"]) if tokens and "symbols" in spec else None,
        "config": config,
        "spec": spec,
        "data": data.get("sums", {}),
        "checkpoint": run.info,
    }
