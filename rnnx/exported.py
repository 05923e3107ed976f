"""What tells an exported ONNX file from others, and what it says of itself.

    the model, as any ONNX runtime reads it
      metadata "rnnx"         JSON: task, inputs, outputs, state, vocabulary or scaling, config
      metadata "rnnx.sha256"  the checksum of all bytes before it; the last of the file

A file is read as plain data: nothing in it is evaluated, and no other file is opened for it. Needs
Python's standard library only, as `rnnx.runtime` must not import JAX.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnnx.errors import UserError

FORMAT = 1  # of the JSON; a reader refuses a higher one
ABOUT = "rnnx"
_SUM = b"rnnx.sha256"
# A metadata entry in protobuf: field 14 of the model, with a key (1) and a value (2).
_SEAL = b"\x72" + bytes([4 + len(_SUM) + 64]) + b"\x0a" + bytes([len(_SUM)]) + _SUM + b"\x12\x40"

# The fields of protobuf messages through which tensors and nodes are reached, by message.
_WITHIN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def seal(model: bytes) -> bytes:
    """The bytes of a model, and their checksum."""
    return model + _SEAL + hashlib.sha256(model).hexdigest().encode()


def read_onnx(path: Path | str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an exported ONNX file, and what it says of itself.

    Raises:
      UserError: when it is damaged, not of `rnnx.export`, or of a newer format; when it refers to
        other files or to operators that ONNX itself lacks.
    """
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    model, mark = data[: -len(_SEAL) - 64], data[-len(_SEAL) - 64 : -64]
    if mark != _SEAL:
        raise UserError(f"{path} is no ONNX file of rnnx.export, or not a whole one")
    if hashlib.sha256(model).hexdigest().encode() != data[-64:]:
        raise UserError(f"{path} is damaged: export it again")
    try:
        about = check(_about(model), str(path))
        _refuse_foreign(memoryview(model), "model", str(path))
    except (ValueError, IndexError, RecursionError):
        raise UserError(f"{path} is damaged: export it again") from None
    return data, about


def check(text: bytes | str | None, where: str) -> dict[str, Any]:
    """What a file says of itself. Raises UserError when that is missing, or of a newer format."""
    about = json.loads(text) if text else None
    if not isinstance(about, dict) or type(about.get("format")) is not int:
        raise UserError(f"{where} is not a file of rnnx.export")
    if about["format"] > FORMAT:
        raise UserError(
            f"{where} has format {about['format']}, this rnnx reads {FORMAT}: install a newer rnnx"
        )
    return about


def _about(model: bytes) -> bytes | None:
    """The JSON among the metadata."""
    for number, entry in _fields(memoryview(model)):
        if number == 14:
            pair = {k: bytes(v) for k, v in _fields(entry) if not isinstance(v, int)}
            if pair.get(1) == ABOUT.encode():
                return pair.get(2)
    return None


def _refuse_foreign(data: memoryview, kind: str, where: str) -> None:
    """Looks for tensors that lie in other files, and for operators that are not ONNX's own."""
    for number, value in _fields(data):
        if kind == "tensor" and (number == 13 or (number == 14 and value)):
            raise UserError(f"{where} refers to other files, which is not allowed: not loaded")
        if kind == "node" and number == 7 and bytes(value) not in (b"", b"ai.onnx"):
            raise UserError(f"{where} has operators that are not ONNX's own: not loaded")
        if number in _WITHIN[kind]:
            if isinstance(value, int):
                raise ValueError("a message is expected")
            _refuse_foreign(value, _WITHIN[kind][number], where)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a protobuf message: numbers, with integers or bytes."""
    place = 0

    def integer() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(data):
        number, kind = divmod(integer(), 8)
        if kind == 0:
            yield number, integer()
            continue
        if kind not in (1, 2, 5):
            raise ValueError("not protobuf")
        size = integer() if kind == 2 else {1: 8, 5: 4}[kind]
        if place + size > len(data):
            raise ValueError("cut short")
        yield number, data[place : place + size]
        place += size
