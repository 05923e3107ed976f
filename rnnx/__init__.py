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

_KINDS = ("RNN", "LSTM", "GRU", "RHN", "MIRNN", "MILSTM", "MIGRU", "MIRHN", "DTRNN", "DTSRNN")
_LAYERS = (
    *_KINDS,
    *(f"{kind}Cell" for kind in _KINDS),
    "RecurrentCell",
    "RecurrentLayer",
    "Stack",
    "Cell",
)

__all__ = [*_LAYERS, "cells", "layers", "scan"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On first use: importing flax takes a second, which `--help` should not.
    if name in _LAYERS:
        return getattr(importlib.import_module("rnnx.layers"), name)
    if name in __all__:
        return importlib.import_module(f"rnnx.{name}")
    raise AttributeError(f"module 'rnnx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
