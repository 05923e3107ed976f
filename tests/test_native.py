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

from rnnx import cache, cells, native, scan, workdir
from rnnx.cells import Cell

# Where there is a compiler, a source that does not compile fails the tests.
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

KINDS = [kind for kind, rule in cells.CELLS.items() if rule.linear is None]


def close(a: object, b: object, tolerance: float = 2e-6) -> None:
    """Two trees agree, relative to the largest number of each array."""
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(np.abs(y).max(), 1.0))


@hypothesis.given(
    st.integers(2, 40), st.integers(1, 90), st.integers(1, 90), st.booleans(), st.integers(0, 99)
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_products_of_odd_sizes(rows: int, k: int, n: int, transposed: bool, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_worth", lambda *sizes: True)
        rng = np.random.default_rng(seed)
        x, matrix = (rng.normal(size=s).astype(np.float32) for s in ((rows, k), (k, n)))
        stored = matrix.T.copy() if transposed else matrix
        packed = native.lay_out(jnp.asarray(stored), 1, rows, transposed)
        assert isinstance(packed, native.Packed)
        close(native.times(jnp.asarray(x), packed), x.astype(np.float64) @ matrix, 1e-5)


def test_products_large_enough_for_several_threads() -> None:
    rng = np.random.default_rng(0)
    x, matrix = (rng.normal(size=s).astype(np.float32) for s in ((150, 300), (300, 1001)))
    packed = native.lay_out(jnp.asarray(matrix), 1, 150)
    first = native.times(jnp.asarray(x), packed)
    close(first, x.astype(np.float64) @ matrix, 1e-5)
    for _ in range(30):  # the threads claim other tiles each time
        np.testing.assert_array_equal(native.times(jnp.asarray(x), packed), first)
    # A row does not depend on the rows beside it.
    np.testing.assert_array_equal(native.times(jnp.asarray(x[:7]), packed), first[:7])


def run(kind: str, native_too: bool, **options):
    """A window of a cell: outputs, last state, and the gradients of everything."""
    cell = Cell(kind, integration="mi", depth=3 if kind in ("rhn", "dtrnn", "dtsrnn") else 1)
    params = cells.init(cell, jax.random.key(0), 20, 65, init_scale=0.1)
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


def test_with_remat_lengths_and_mask() -> None:
    options = {
        "remat": 2,
        "lengths": jnp.asarray([6, 0, 3, 1, 5, 6, 6, 2, 4]),
        "mask": jnp.asarray(np.random.default_rng(1).integers(0, 2, (9, 65)) * 2.0),
    }
    close(run("rhn", True, **options), run("rhn", False, **options), 1e-5)


def test_vmap_over_rows_and_over_matrices() -> None:
    rng = np.random.default_rng(0)
    xs, matrices = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 9, 70), (3, 70, 90)))

    def times(x, matrix):
        return native.times(x, native.lay_out(matrix, 1, 9))

    close(jax.vmap(times)(xs, matrices), xs @ matrices, 1e-5)
    close(jax.vmap(times, (0, None))(xs, matrices[0]), xs @ matrices[0], 1e-5)
    close(jax.vmap(times, (None, 0))(xs[0], matrices), xs[0] @ matrices, 1e-5)


def test_second_derivatives() -> None:
    rng = np.random.default_rng(0)
    x, matrix, v = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((9, 70), (70, 90), (70, 90))
    )

    def slope(times):
        def cost(matrix):
            return jnp.sum(jnp.tanh(times(jnp.tanh(times(x, matrix)) @ matrix.T, matrix)))

        return jax.grad(lambda m: jnp.vdot(jax.grad(cost)(m), v))(matrix)

    packed = slope(lambda x, m: native.times(x, native.lay_out(m, 1, 9)))
    close(packed, slope(jnp.matmul), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_pass_alone_gives_the_same_numbers(kind: str) -> None:
    cell = Cell(kind, depth=2 if kind in ("rhn", "dtrnn", "dtsrnn") else 1)
    params = cells.init(cell, jax.random.key(0), 20, 65)
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
        (1, 8, 70, jnp.bfloat16, False),
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
    params = cells.init(cell, jax.random.key(0), 3, 1024, init_scale=0.05)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 40, 1, 3)), jnp.float32)
    run = jax.jit(lambda xs: scan.unroll(cell, params, xs, cells.zero_carry(cell, 1, 1024))[0])
    both = jax.jit(jax.vmap(run))
    assert "rnnx_multiply" in both.lower(xs).as_text()
    close(both(xs), jnp.stack([run(xs[0]), run(xs[1])]))


def test_an_exported_function_with_free_axes_has_no_call() -> None:
    cell = Cell("gru")
    params = cells.init(cell, jax.random.key(0), 20, 65)

    def run(xs):
        return scan.unroll(cell, params, xs, cells.zero_carry(cell, xs.shape[1], 65))[0]

    for axes in ("time, batch, 20", "time, 9, 20", "6, batch, 20"):
        like = jax.ShapeDtypeStruct(jax.export.symbolic_shape(axes), jnp.float32)
        assert "rnnx_multiply" not in jax.export.export(jax.jit(run))(like).mlir_module()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_NATIVE", "0")
    assert native.tile_width() == 0 and workdir.machine()["products"] == "XLA"
    assert not isinstance(native.lay_out(jnp.ones((70, 90)), 1, 9), native.Packed)


SAY = "from rnnx import native; print(native.tile_width() > 0)"


def say(folder: Path, **env: str) -> str:
    """What a process with a cache of its own says of the packed product."""
    done = subprocess.run(
        [sys.executable, "-c", SAY],
        cwd=ROOT,
        env=one_device(RNNX_CACHE=str(folder), **env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr.strip()


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
    assert native._load.__wrapped__() == 0
