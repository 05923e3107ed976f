"""Safetensors files: the parameters by readable names, and back into a layer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from rnnx.errors import UserError
from rnnx.export.about import readable
from rnnx.exported import check

SUFFIX = ".safetensors"


def write(params: dict[str, np.ndarray], about: dict[str, Any]) -> bytes:
    """The file of parameters by name."""
    told = {"rnnx": json.dumps(about), "sha256": _sum(params)}
    return safetensors.numpy.save(params, told)


def _sum(params: dict[str, np.ndarray]) -> str:
    """The checksum of all parameters, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(params):
        found.update(f"{name}{params[name].shape}".encode())
        found.update(params[name].tobytes())
    return found.hexdigest()


def read(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Parameters by name, and what the file says of itself.

    Raises:
      UserError: when it is damaged, not of `rnnx.export`, or of a newer format.
    """
    try:
        with safetensors.safe_open(str(Path(path).expanduser()), "numpy") as file:
            told = file.metadata() or {}
            about = check(told.get("rnnx"), str(path))
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is no safetensors file, or damaged: {error}") from None
    if _sum(found) != told.get("sha256"):
        raise UserError(f"{path} is damaged: export it again")
    return found, about


def from_safetensors(path: Path | str, into: nnx.Module, name: str = "") -> dict[str, Any]:
    """Puts parameters from a file into a layer, a stack or a whole network, bit by bit.

        layer = rnnx.RHN(16, 64, depth=5, rngs=nnx.Rngs(0))
        from_safetensors("net.safetensors", layer, "layers.0")

    Args:
      into: gets the values; its own are overwritten.
      name: of what in the file it is: `layers.0`, the first layer, of a stack or a network; empty
        for the stack or the network itself.

    Returns:
      What the file says of itself.

    Raises:
      UserError: when it is no file of `rnnx.export`, or lacks a parameter, or has it in another
        shape; nothing is changed then.
    """
    found, about = read(path)
    prefix = f"{name}." if name else ""
    variables = dict(nnx.to_flat_state(nnx.state(into)))
    names = readable(".".join(map(str, place)) for place in variables)
    new = {}
    for (place, variable), called in zip(variables.items(), names.values(), strict=True):
        value, shape = found.get(prefix + called), variable.get_value().shape
        if value is None:
            raise UserError(f"{path} has no {prefix + called}: it has {_some(found)}")
        if value.shape != shape:
            raise UserError(f"{path}: {prefix + called} is {value.shape}, and {shape} is wanted")
        new[place] = variable.replace(jnp.asarray(value))
    nnx.update(into, nnx.from_flat_state(new))
    return about


def _some(names: dict[str, Any]) -> str:
    return ", ".join([*sorted(names)[:4], "..."] if len(names) > 4 else sorted(names))
