"""rnnx: Multiplicative Integration and Recurrent Highway Networks in JAX and Flax.

from rnnx import cells, scan        # pure functions
import rnnx                         # rnnx.RHN, rnnx.RHNCell, rnnx.MILSTM, rnnx.MILSTMCell, ...
layer = rnnx.RHN(in_features, hidden, depth=5, integration="mi", rngs=nnx.Rngs(0))
ys, carry = layer(xs)               # xs (batch, time, features)
"""

import importlib
import sys
from typing import Any

if sys.argv[:1] == ["-m"]:  # `python -m rnnx.X` imports this file first
    from rnnx.extras import explain_missing

    sys.excepthook = explain_missing

_MODULES = ("cells", "heads", "layers", "scan")
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On first use: importing flax takes a second, which `--help` should not. Names of modules end
    # here too, before Python imports them: only those of classes may cost that second.
    if name in _MODULES:
        return importlib.import_module(f"rnnx.{name}")
    if name == "__all__" or name[0].isupper():
        layers = importlib.import_module("rnnx.layers")
        if name == "__all__":
            return [*layers.__all__, *_MODULES]
        if name in layers.__all__:
            return getattr(layers, name)
    raise AttributeError(f"module 'rnnx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__getattr__("__all__")])
