"""The packed product gives XLA's numbers, in every place a product is used, or stays out of it."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, one_device

from rnnx import cache, cells, native, parameters, products, scan, workdir
from rnnx.cells import Cell

# Where there is a compiler, a source that does not compile fails the tests.
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

KINDS = [kind for kind, rule in cells.CELLS.items() if not rule.linear]


def close(a: object, b: object, tolerance: float = 2e-6) -> None:
    """Two trees agree, relative to the largest number of each array."""
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1.0))


needs_bfloat16 = pytest.mark.skipif(
    not native.bfloat16(), reason="needs a processor that multiplies bfloat16"
)
TYPES = [jnp.float32, pytest.param(jnp.bfloat16, marks=needs_bfloat16)]


def drawn(rng: np.random.Generator, dtype: Any, *shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape), dtype)


def exact(x: jax.Array, matrix: jax.Array) -> np.ndarray:
    """x, rounded to the matrix's type, times the matrix, in float64."""
    return np.asarray(x.astype(matrix.dtype), np.float64) @ np.asarray(matrix, np.float64)


@pytest.mark.parametrize("dtype", TYPES)
@hypothesis.given(
    st.integers(2, 70), st.integers(1, 90), st.integers(1, 90), st.booleans(), st.integers(0, 99)
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_products_of_odd_sizes(
    dtype: Any, rows: int, k: int, n: int, transposed: bool, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_worth", lambda *sizes: True)
        rng = np.random.default_rng(seed)
        x, matrix = drawn(rng, jnp.float32, rows, k), drawn(rng, dtype, k, n)
        packed = native.lay_out(matrix.T if transposed else matrix, 1, rows, transposed)
        assert isinstance(packed, native.Packed)
        close(native.times(x, packed), exact(x, matrix), 1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_products_large_enough_for_several_threads(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, matrix = drawn(rng, jnp.float32, 150, 300), drawn(rng, dtype, 300, 1001)
    packed = native.lay_out(matrix, 1, 150)
    first = native.times(x, packed)
    close(first, exact(x, matrix), 1e-5)
    for _ in range(30):  # the threads claim other tiles each time
        np.testing.assert_array_equal(native.times(x, packed), first)
    # A row does not depend on the rows beside it.
    np.testing.assert_array_equal(native.times(x[:7], packed), first[:7])


def run(kind: str, native_too: bool, **options):
    """A window of a cell: outputs, last state, and the gradients of everything."""
    cell = Cell(kind, integration="mi", depth=3 if kind in ("rhn", "dtrnn", "dtsrnn") else 1)
    params = parameters.init(cell, jax.random.key(0), 20, 65, init_scale=0.1)
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(6, 9, 20)), jnp.float32)
    carry = cells.zero_carry(cell, 9, 65)
    weights = jnp.asarray(rng.normal(size=(6, 9, 65)), jnp.float32)

    def cost(params, xs, carry):
        ys, last = scan.unroll(cell, params, xs, carry, **options)
        return jnp.sum(ys * weights) + sum(jnp.sum(jnp.sin(s)) for s in last), (ys, last)

    both = jax.value_and_grad(cost, argnums=(0, 1, 2), has_aux=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNNX_NATIVE", "1" if native_too else "0")
        text = jax.jit(both).lower(params, xs, carry).as_text()
        assert ("rnnx_multiply" in text) == native_too
        return jax.jit(both)(params, xs, carry)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_has_the_same_values_and_gradients(kind: str) -> None:
    close(run(kind, True), run(kind, False), 1e-5)


@needs_bfloat16
@pytest.mark.parametrize("kind", ["gru", "rhn"])
def test_cells_in_bfloat16(kind: str) -> None:
    """Sums in another order can round a state to the other side: 2^-8 of an operand."""
    packed, plain = (run(kind, native_too, dtype=jnp.bfloat16) for native_too in (True, False))
    close(packed, plain, 1e-2)
    float32 = run(kind, True)
    distance = [
        float(jnp.linalg.norm(a - b) / jnp.linalg.norm(c))
        for a, b, c in zip(*map(jax.tree.leaves, (packed, plain, float32)), strict=True)
        if jnp.any(c)
    ]
    assert max(distance) < 4e-3, distance


@needs_bfloat16
def test_weight_gradients_of_bfloat16_are_one_packed_product() -> None:
    rng = np.random.default_rng(0)
    z, bar = drawn(rng, jnp.float32, 5, 10, 70), drawn(rng, jnp.float32, 5, 10, 90)
    outer = jax.jit(lambda z, bar: products.outer(z, bar, jnp.bfloat16))
    assert "rnnx_multiply_bfloat16" in outer.lower(z, bar).as_text()
    rows, bars = (a.reshape(50, -1).astype(jnp.bfloat16) for a in (z, bar))
    close(outer(z, bar), exact(rows.T, bars), 1e-5)
    with jax.enable_x64(True):  # a wider sum than the packed product has
        wide = products.outer(jnp.asarray(z, jnp.float64), bar, jnp.bfloat16)
        assert wide.dtype == jnp.float64
        close(wide, exact(rows.T, bars), 1e-12)


@needs_bfloat16
@pytest.mark.parametrize(("n", "m"), [(70, 90), (90, 70), (200, 70)])
def test_outer(n: int, m: int) -> None:
    """The wider one is packed; derivatives and vmap are as of x^T y."""
    rng = np.random.default_rng(0)
    x, y = drawn(rng, jnp.bfloat16, 3, 90, n), drawn(rng, jnp.bfloat16, 3, 90, m)
    expected = np.stack([exact(a.T, b) for a, b in zip(x, y, strict=True)])
    assert "rnnx_multiply_bfloat16" in jax.jit(native.outer).lower(x[0], y[0]).as_text()
    close(native.outer(x[0], y[0]), expected[0], 1e-5)
    close(jax.vmap(native.outer)(x, y), expected, 1e-5)
    close(jax.vmap(native.outer, (0, None))(x, y[0]), np.stack([exact(a.T, y[0]) for a in x]), 1e-5)
    close(jax.vmap(native.outer, (None, 0))(x[0], y), np.stack([exact(x[0].T, b) for b in y]), 1e-5)

    def slopes(outer):
        weights = drawn(np.random.default_rng(1), jnp.float32, n, m)
        return jax.grad(lambda x, y: jnp.vdot(outer(x, y), weights), (0, 1))(x[0], y[0])

    plain = slopes(lambda x, y: cells.matmul(x.T, y))
    float32 = jax.tree.map(lambda a: a.astype(jnp.float32), (slopes(native.outer), plain))
    close(*float32, 1e-2)


@needs_bfloat16
def test_bfloat16_with_wider_rows() -> None:
    """A float64 state keeps its float64 sums."""
    matrix = drawn(np.random.default_rng(0), jnp.bfloat16, 70, 90)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(9, 70)))
        y = native.times(x, native.lay_out(matrix, 1, 9))
        assert y.dtype == jnp.float64
        close(y, exact(x, matrix), 1e-12)


def test_with_remat_lengths_and_mask() -> None:
    options = {
        "remat": 2,
        "lengths": jnp.asarray([6, 0, 3, 1, 5, 6, 6, 2, 4]),
        "mask": jnp.asarray(np.random.default_rng(1).integers(0, 2, (9, 65)) * 2.0),
    }
    close(run("rhn", True, **options), run("rhn", False, **options), 1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_vmap_over_rows_and_over_matrices(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    xs, matrices = drawn(rng, jnp.float32, 3, 9, 70), drawn(rng, dtype, 3, 70, 90)

    def times(x, matrix):
        return native.times(x, native.lay_out(matrix, 1, 9))

    close(jax.vmap(times)(xs, matrices), exact(xs, matrices), 1e-5)
    close(jax.vmap(times, (0, None))(xs, matrices[0]), exact(xs, matrices[0]), 1e-5)
    close(jax.vmap(times, (None, 0))(xs[0], matrices), exact(xs[0], matrices), 1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_second_derivatives(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, matrix, v = (drawn(rng, dtype, *s) for s in ((9, 70), (70, 90), (70, 90)))
    x = x.astype(jnp.float32)

    def slope(times):
        def cost(matrix):
            return jnp.sum(jnp.tanh(times(jnp.tanh(times(x, matrix)) @ matrix.T, matrix)))

        return jax.grad(lambda m: jnp.vdot(jax.grad(cost)(m), v))(matrix)

    packed = slope(lambda x, m: native.times(x, native.lay_out(m, 1, 9)))
    plain = slope(cells.matmul)
    close(packed, plain, 1e-4 if dtype == jnp.float32 else 1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_pass_alone_gives_the_same_numbers(kind: str) -> None:
    cell = Cell(kind, depth=2 if kind in ("rhn", "dtrnn", "dtsrnn") else 1)
    params = parameters.init(cell, jax.random.key(0), 20, 65)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 9, 20)), jnp.float32)
    given = params, xs, cells.zero_carry(cell, 9, 65)
    forward = jax.jit(lambda *given: scan.unroll(cell, *given)[0])
    assert "rnnx_multiply" in forward.lower(*given).as_text()
    plain = jax.jit(lambda *given: scan.unroll_plain(cell, *given)[0])
    assert "rnnx_multiply" not in plain.lower(*given).as_text()
    close(forward(*given), plain(*given))


@pytest.mark.parametrize(
    ("steps", "rows", "side", "dtype", "packed"),
    [
        (1, 8, 70, jnp.float32, True),
        (1, 8, 70, jnp.bfloat16, native.bfloat16()),
        (1, 8, 70, jnp.float16, False),
        (1, 8, 60, jnp.float32, False),
        (64, 7, 1000, jnp.float32, False),  # a core's own cache holds it
        (64, 1, 1024, jnp.float32, True),
        (5, 1, 1024, jnp.float32, False),  # too short a loop
    ],
)
def test_what_is_packed(steps: int, rows: int, side: int, dtype: Any, packed: bool) -> None:
    found = native.lay_out(jnp.ones((side, side), dtype), steps, rows)
    assert isinstance(found, native.Packed) == packed


def test_one_row_beside_another_is_the_row_alone() -> None:
    """Scoring reads two splits as two rows by vmap."""
    cell = Cell("rnn")
    params = parameters.init(cell, jax.random.key(0), 3, 1024, init_scale=0.05)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 40, 1, 3)), jnp.float32)
    run = jax.jit(lambda xs: scan.unroll(cell, params, xs, cells.zero_carry(cell, 1, 1024))[0])
    both = jax.jit(jax.vmap(run))
    assert "rnnx_multiply" in both.lower(xs).as_text()
    close(both(xs), jnp.stack([run(xs[0]), run(xs[1])]))


def test_an_exported_function_with_free_axes_has_no_call() -> None:
    cell = Cell("gru")
    params = parameters.init(cell, jax.random.key(0), 20, 65)

    def run(xs):
        return scan.unroll(cell, params, xs, cells.zero_carry(cell, xs.shape[1], 65))[0]

    for axes in ("time, batch, 20", "time, 9, 20", "6, batch, 20"):
        like = jax.ShapeDtypeStruct(jax.export.symbolic_shape(axes), jnp.float32)
        assert "rnnx_multiply" not in jax.export.export(jax.jit(run))(like).mlir_module()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_NATIVE", "0")
    assert native.tile_width() == 0 and workdir.machine()["products"] == "XLA"
    assert not native.bfloat16()
    assert not isinstance(native.lay_out(jnp.ones((70, 90)), 1, 9), native.Packed)


SAY = "from rnnx import native; print(native.tile_width() > 0)"
# What this processor's bfloat16 products are without AMX, if it has them both.
CHECK = """
import jax.numpy as jnp, numpy as np
from rnnx import native
x = np.random.default_rng(0).normal(size=(29, 75))
m = jnp.asarray(np.random.default_rng(1).normal(size=(75, 70)), jnp.bfloat16)
packed = native.lay_out(m, 1, 29)
assert isinstance(packed, native.Packed) == native.bfloat16()
y = native.times(jnp.asarray(x, jnp.float32), packed)
expected = np.asarray(jnp.asarray(x, jnp.bfloat16), float) @ np.asarray(m, float)
print(np.abs(y - expected).max() < 1e-4)
"""


def say(folder: Path, code: str = SAY, **env: str) -> str:
    """What a process with a cache of its own says of the packed product."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=one_device(RNNX_CACHE=str(folder), **env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr.strip()


@needs_bfloat16
@pytest.mark.parametrize("without", ["-mno-amx-bf16", "-mno-amx-bf16 -mno-avx512bf16"])
def test_processors_with_fewer_instructions(tmp_path: Path, without: str) -> None:
    assert say(tmp_path, CHECK, CXX=f"c++ {without}") == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_instructions_that_the_system_refuses(tmp_path: Path) -> None:
    """A library with AMX, where the processor or the system has none, says so."""
    told = say(tmp_path, "from rnnx import native; print(native.bfloat16())",
               CXX="c++ -mamx-tile -mamx-bf16")  # fmt: skip
    assert told == str("amx_bf16" in Path("/proc/cpuinfo").read_text())


def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(say, [tmp_path] * 2)) == ["True", "True"]
    (folder,) = (tmp_path / "compiled").iterdir()
    assert [file.suffix for file in folder.iterdir()] == [".so"]


def test_without_a_compiler_that_works(tmp_path: Path) -> None:
    """Nothing is said, and products are XLA's."""
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho error >&2\nexit 1\n")
    broken.chmod(0o755)
    assert say(tmp_path / "a", CXX=str(broken)) == "False"
    assert say(tmp_path / "b", CXX=str(tmp_path / "none")) == "False"
    assert say(tmp_path / "c", PATH=str(tmp_path / "none"), CXX="") == "False"


def test_a_cache_that_others_can_write_to_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> Path:
        raise cache.Risk("others can write there")

    monkeypatch.setattr(cache, "compiled", compiled)
    assert native._load.__wrapped__() == native.Operations()
