"""Products of a few rows with a matrix that all time steps share, packed once: on CPUs only.

XLA packs a matrix for its kernels at every product; inside a loop over time that takes as long as
the product. `product.cpp` has the two operations that avoid it. They are compiled into the cache
on first use, with $CXX or the system's C++ compiler. Without one, on other devices, with other
types than float32, or with RNNX_NATIVE=0, products are XLA's: the same numbers to rounding.
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
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, lax

from rnnx import cache, cells

_SOURCE = Path(__file__).with_name("product.cpp")
_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
_TARGETS = ("rnnx_pack", "rnnx_multiply")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """A matrix M (K, N) laid out for `times`.

    Attributes:
      matrix: M as it is, for derivatives.
      tiles: (tiles, K, W), M as product.cpp lays it out.
    """

    matrix: Array
    tiles: Array


def lay_out(matrix: Array, steps: int, rows: int, transposed: bool = False) -> Array | Packed:
    """What `times` multiplies by: the matrix (K, N), or its transpose, laid out once for a loop.

    Args:
      matrix: of any type; float32 can be packed.
      steps: of the loop, one product each.
      rows: of each product.
      transposed: multiply by the matrix's transpose.
    """
    if matrix.dtype != jnp.float32 or not _worth(steps, rows, matrix.size) or not tile_width():
        # Behind the barrier, or XLA would transpose inside the loop again.
        return lax.optimization_barrier(matrix.T) if transposed else matrix
    k, n = matrix.shape[::-1] if transposed else matrix.shape
    shape = jax.ShapeDtypeStruct((-(-n // tile_width()), k, tile_width()), jnp.float32)
    pack = jax.ffi.ffi_call("rnnx_pack", shape, vmap_method="sequential")
    # Derivatives of a product are formed from the matrix.
    tiles = pack(lax.stop_gradient(matrix), transposed=transposed)
    return Packed(matrix.T if transposed else matrix, tiles)


def times(x: Array, matrix: Array | Packed) -> Array:
    """`x @ M`, x (B, K), for an M that `lay_out` gave: a float32 sum, float64 if either is."""
    if not isinstance(matrix, Packed):
        return cells.matmul(x, matrix)
    return _times(x, matrix)


@jax.custom_vjp
def _times(x: Array, packed: Packed) -> Array:
    return _multiply(packed.matrix.shape[1])(x, packed.tiles)


_times.defvjp(
    lambda x, packed: (_times(x, packed), (x, packed)),
    lambda saved, y_bar: (
        y_bar @ saved[1].matrix.T,
        Packed(saved[0].T @ y_bar, jnp.zeros_like(saved[1].tiles)),
    ),
)


@functools.cache
def _multiply(columns: int) -> Callable[[Array, Array], Array]:
    """The product of x (B, K) with tiles of so many columns; under vmap one of more rows."""

    @jax.custom_batching.custom_vmap
    def multiply(x: Array, tiles: Array) -> Array:
        shape = jax.ShapeDtypeStruct((x.shape[0], columns), jnp.float32)
        return jax.ffi.ffi_call("rnnx_multiply", shape)(x, tiles)

    @multiply.def_vmap
    def several(size: int, batched: list[bool], x: Array, tiles: Array) -> tuple[Array, bool]:
        x = x if batched[0] else jnp.broadcast_to(x, (size, *x.shape))
        if batched[1]:
            return lax.map(lambda pair: multiply(*pair), (x, tiles)), True
        y = multiply(x.reshape(-1, x.shape[-1]), tiles)
        return y.reshape(*x.shape[:-1], columns), True

    return multiply


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
    if os.environ.get("RNNX_NATIVE") == "0" or jax.default_backend() != "cpu":
        return 0
    return _load()


@functools.cache
def _load() -> int:
    """Compiles the operations, unless the cache has them, and makes them known to JAX."""
    try:
        library = ctypes.CDLL(str(_compiled()))
        for name in _TARGETS:
            call = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, call, platform="cpu")
        return library.rnnx_tile_width()
    except (OSError, AttributeError, cache.Risk, subprocess.SubprocessError):
        return 0  # no compiler, one that fails, or no place of our own


def _compiled() -> Path:
    """The compiled operations in the cache.

    Raises:
      OSError, cache.Risk, subprocess.SubprocessError: when they can't be had.
    """
    named = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    if not named:
        raise FileNotFoundError("no C++ compiler")
    recipe = (*shlex.split(named), *_OPTIONS, f"-I{jax.ffi.include_dir()}")
    key = hashlib.sha256(repr(recipe).encode() + _SOURCE.read_bytes()).hexdigest()[:16]
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
