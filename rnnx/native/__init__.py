"""Products of a few rows with a matrix that all time steps share, packed once: on CPUs only.

XLA packs a matrix for its kernels at every product; inside a loop over time that takes as long as
the product. `product.cpp` has the two operations that avoid it. They are compiled into the cache
on first use, with $CXX or the system's C++ compiler: for float32, and for bfloat16 where the
processor multiplies it (AVX-512 BF16, AMX). Without a compiler, on other devices, or with
RNNX_NATIVE=0, products are XLA's: the same numbers to rounding.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cache, cells

_SOURCE = Path(__file__).with_name("product.cpp")
_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
_PAIRS = 32  # numbers of a bfloat16 column come in such groups, with zeros after the last


class Operations(NamedTuple):
    """What the compiled operations offer; of no use with width 0.

    Attributes:
      width: W of product.cpp.
      bfloat16: whether they have this type too.
    """

    width: int = 0
    bfloat16: bool = False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """A matrix M (K, N) laid out for `times`.

    Attributes:
      matrix: M as it is, for derivatives.
      tiles: (tiles, K, W), M as product.cpp lays it out; in bfloat16 (tiles, K / 2, W, 2), with K
        rounded up.
    """

    matrix: Array
    tiles: Array


def lay_out(matrix: Array, steps: int, rows: int, transposed: bool = False) -> Array | Packed:
    """What `times` multiplies by: the matrix (K, N), or its transpose, laid out once for a loop.

    Args:
      matrix: of any type; float32 and bfloat16 can be packed.
      steps: of the loop, one product each.
      rows: of each product.
      transposed: multiply by the matrix's transpose.
    """
    if not _can_pack(matrix.dtype) or not _worth(steps, rows, matrix.size):
        # Behind the barrier, or XLA would transpose inside the loop again.
        return lax.optimization_barrier(matrix.T) if transposed else matrix
    k, n = matrix.shape[::-1] if transposed else matrix.shape
    width = tile_width()
    word = (k, width) if matrix.dtype == jnp.float32 else (_depth(k) // 2, width, 2)
    shape = jax.ShapeDtypeStruct((-(-n // width), *word), matrix.dtype)
    pack = jax.ffi.ffi_call(_target("rnnx_pack", matrix.dtype), shape, vmap_method="sequential")
    # Derivatives of a product are formed from the matrix.
    tiles = pack(lax.stop_gradient(matrix), transposed=transposed)
    return Packed(matrix.T if transposed else matrix, tiles)


def times(x: Array, matrix: Array | Packed) -> Array:
    """`x @ M`, x (B, K), for an M that `lay_out` gave: a float32 sum, float64 if either is.

    x is rounded to M's type.
    """
    if not isinstance(matrix, Packed):
        return cells.matmul(x, matrix)
    return cells.matmul(x, matrix.matrix) if x.dtype == jnp.float64 else _times(False, x, matrix)


def outer(x: Array, y: Array) -> Array:
    """x^T y for many rows x (R, n) and y (R, m), both bfloat16; a float32 sum (n, m).

    XLA widens the operands of a product with a transposed one, and multiplies float32.
    """
    if x.shape[1] <= y.shape[1]:
        return times(x.T, lay_out(y, 1, x.shape[1]))
    packed = lay_out(x, 1, y.shape[1])  # the wider one: what is not packed is read for every tile
    return _times(True, y.T, packed) if isinstance(packed, Packed) else cells.matmul(x.T, y)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _times(transposed: bool, x: Array, packed: Packed) -> Array:
    """x M, or its transpose."""
    dtype, n = packed.matrix.dtype, packed.matrix.shape[1]
    x = x.astype(dtype)
    if dtype == jnp.bfloat16:
        x = jnp.pad(x, ((0, 0), (0, _depth(x.shape[1]) - x.shape[1])))
    return _multiply(_target("rnnx_multiply", dtype), n, transposed)(x, packed.tiles)


def _times_fwd(transposed: bool, x: Array, packed: Packed) -> tuple[Array, tuple[Array, Packed]]:
    return _times(transposed, x, packed), (x, packed)


def _times_bwd(transposed: bool, saved: tuple[Array, Packed], y_bar: Array) -> tuple[Array, Packed]:
    x, packed = saved
    y_bar = y_bar.T if transposed else y_bar
    x_bar, matrix_bar = jax.vjp(cells.matmul, x, packed.matrix)[1](y_bar)
    return x_bar, Packed(matrix_bar, jnp.zeros_like(packed.tiles))


_times.defvjp(_times_fwd, _times_bwd)


@functools.cache
def _multiply(target: str, columns: int, transposed: bool) -> Callable[[Array, Array], Array]:
    """The product of x (B, K) with tiles of so many columns; under vmap one of more rows."""

    @jax.custom_batching.custom_vmap
    def multiply(x: Array, tiles: Array) -> Array:
        shape = (columns, x.shape[0]) if transposed else (x.shape[0], columns)
        result = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.ffi.ffi_call(target, result)(x, tiles, transposed=transposed)

    @multiply.def_vmap
    def several(size: int, batched: list[bool], x: Array, tiles: Array) -> tuple[Array, bool]:
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        if batched[1]:
            return lax.map(lambda pair: multiply(*pair), (x, tiles)), True
        y = multiply(x.reshape(-1, x.shape[-1]), tiles)
        if transposed:
            return jnp.swapaxes(y.reshape(columns, size, -1), 0, 1), True
        return y.reshape(*x.shape[:-1], columns), True

    return multiply


def _can_pack(dtype: Any) -> bool:
    return bfloat16() if dtype == jnp.bfloat16 else dtype == jnp.float32 and tile_width() > 0


def _target(operation: str, dtype: Any) -> str:
    return operation if dtype == jnp.float32 else f"{operation}_bfloat16"


def _depth(k: int) -> int:
    """The rows of a packed bfloat16 matrix of k rows."""
    return -(-k // _PAIRS) * _PAIRS


def _worth(steps: int, rows: int, size: int) -> bool:
    """Whether packing gains, as measured with AVX2.

    A product of few rows is bound by reading the matrix. XLA reads it as fast from a core's own
    cache, and a short loop ends before packing has paid. Sizes that `jax.export` leaves free are no
    integers: a function exported with them holds XLA's products only.
    """
    if not isinstance(steps, int) or not isinstance(rows, int):
        return False
    return size >= 1 << 12 if rows >= 8 else size >= 1 << 20 and steps >= 32


def tile_width() -> int:
    """W of product.cpp as compiled for this machine; 0 if products are left to XLA."""
    return _operations().width


def bfloat16() -> bool:
    """Whether bfloat16 products are packed here: the processor multiplies this type."""
    return _operations().bfloat16


def _operations() -> Operations:
    if os.environ.get("RNNX_NATIVE") == "0" or jax.default_backend() != "cpu":
        return Operations()
    return _load()


@functools.cache
def _load() -> Operations:
    """Compiles the operations, unless the cache has them, and makes them known to JAX."""
    try:
        library = ctypes.CDLL(str(_compiled()))
        found = Operations(library.rnnx_tile_width(), bool(library.rnnx_bfloat16()))
        for dtype in (jnp.float32, jnp.bfloat16) if found.bfloat16 else (jnp.float32,):
            for operation in ("rnnx_pack", "rnnx_multiply"):
                name = _target(operation, dtype)
                call = jax.ffi.pycapsule(getattr(library, name))
                jax.ffi.register_ffi_target(name, call, platform="cpu")
        return found
    except (OSError, AttributeError, cache.Risk, subprocess.SubprocessError):
        return Operations()  # no compiler, one that fails, or no place of our own


def _compiled() -> Path:
    """The compiled operations in the cache.

    Raises:
      OSError, cache.Risk, subprocess.SubprocessError: when they can't be had.
    """
    named = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    if not named:
        raise FileNotFoundError("no C++ compiler")
    recipe = (*shlex.split(named), *_OPTIONS, f"-I{jax.ffi.include_dir()}")
    parts = (file.read_bytes() for file in (_SOURCE, _SOURCE.with_name("bfloat16.h")))
    key = hashlib.sha256(b"".join((repr(recipe).encode(), *parts))).hexdigest()[:16]
    library = cache.compiled() / f"native-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            subprocess.run(
                [*recipe, str(_SOURCE), "-o", str(made)], check=True, capture_output=True,
                timeout=120,
            )  # fmt: skip
            os.replace(made, library)
    return library
