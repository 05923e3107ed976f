"""The stubs that editors and type checkers read agree with the classes.

Layers and cells by name are made from the table `cells.CELLS` when `rnnx.layers` is imported,
which no type checker follows. After a change of `rnnx/layers.py` or of the table, write the stubs
anew:

    python tests/test_stubs.py
"""

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rnnx import layers
from rnnx.cells import CELLS

PACKAGE = Path(layers.__file__).parent
COMMAND = "python tests/test_stubs.py"
HEADER = f'''"""Stub of `rnnx.layers`, written by `{COMMAND}`."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnnx.cells import Carry, Params
from rnnx.cells import Cell as Cell

'''


def layers_stub() -> str:
    """The classes of `rnnx/layers.py` without bodies, and its generated ones written out.

    Docstrings of the former are left out, as editors take them from the source.
    """
    kept = []
    for node in ast.parse((PACKAGE / "layers.py").read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name != "_SignatureOfInit":
            node.body = [m for m in node.body if isinstance(m, ast.AnnAssign | ast.FunctionDef)]
            for member in node.body:
                member.body = [ast.Expr(ast.Constant(...))]
            kept.append(node)
    constructors = "\n".join(map(constructor_stub, CELLS))
    classes = "\n".join(map(class_stub, layers.BY_NAME.values()))
    written = ast.unparse(ast.Module(kept, []))
    return f"{HEADER}{written}\n\nBY_NAME: dict[str, type]\n\n{constructors}\n{classes}"


def constructor_stub(kind: str) -> str:
    """What all classes of a kind of cell have in common, as a base: the `__init__`."""
    cls, arguments = layers.BY_NAME[CELLS[kind].class_name], []
    for p in inspect.signature(cls).parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        annotation = inspect.formatannotation(p.annotation)
        annotation = annotation.replace("flax.nnx.rnglib", "nnx").replace("typing.", "")
        # The integration's default is the class's own.
        default = {"dtype": "jnp.float32", "integration": "..."}.get(p.name, repr(p.default))
        arguments.append(f"{p.name}: {annotation}{'' if p.default is p.empty else f'={default}'}")
    doc = textwrap.indent(inspect.getdoc(cls.__init__), 8 * " ").lstrip()
    return (
        f"class _{cls.__name__}:\n    def __init__(self, {', '.join(arguments)}) -> None:\n"
        f'        """{doc}\n        """\n'
    )


def class_stub(cls: type) -> str:
    """One generated class with its equation."""
    kind = next(k for k in CELLS if issubclass(cls, bases_of(k)))
    summary, equation, *_ = inspect.getdoc(cls).split("\n\n")
    doc = textwrap.indent(f"{summary}\n\n{equation}", 4 * " ").lstrip()
    base = cls.__base__.__name__
    bases = base if cls.__base__ in bases_of(kind) else f"_{CELLS[kind].class_name}, {base}"
    return f'class {cls.__name__}({bases}):\n    """{doc}\n    """\n'


def bases_of(kind: str) -> tuple[type, type]:
    name = CELLS[kind].class_name
    return layers.BY_NAME[name], layers.BY_NAME[f"{name}Cell"]


def package_stub() -> str:
    """`rnnx/__init__.py`: what is imported on first use, as imports."""
    modules = "".join(f"from . import {m} as {m}\n" for m in ("cells", "heads", "layers", "scan"))
    names = sorted(
        layers.__all__, key=lambda name: (not name.isupper(), name.lower())
    )  # as ruff does
    classes = "".join(f"from .layers import {name} as {name}\n" for name in names)
    return (
        f'"""Stub of `rnnx`, written by `{COMMAND}`."""\n\n'
        f"{modules}{classes}\n__all__: list[str]\n__version__: str\n"
    )


STUBS = {"layers.pyi": layers_stub, "__init__.pyi": package_stub}


@pytest.mark.parametrize("name", STUBS)
def test_stubs_are_in_step_with_the_classes(name: str) -> None:
    stored, now = (
        ast.dump(ast.parse(text)) for text in ((PACKAGE / name).read_text(), STUBS[name]())
    )
    assert stored == now, f"rnnx/{name} is out of date: run {COMMAND}"


if __name__ == "__main__":
    for name, stub in STUBS.items():
        (PACKAGE / name).write_text(stub())
        subprocess.run([sys.executable, "-m", "ruff", "format", PACKAGE / name], check=True)
