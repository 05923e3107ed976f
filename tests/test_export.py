"""Exported functions give what rnnx gives: every cell, every task, in ONNX and StableHLO."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import TOKENS, VOCAB, words
from data_files import hours, write
from jax import lax
from sequences_made import engines, table
from test_reading import write_babi
from test_speech import write_an4

from rnnx import config as configs
from rnnx import model, tasks
from rnnx.cells import CELLS, INTEGRATIONS
from rnnx.data.batches import Batches, PieceWindows, ScoringWindows
from rnnx.data.rolls import Pieces
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.export import onnx, parity, stablehlo
from rnnx.export.functions import exports_of
from rnnx.runtime import session
from rnnx.tasks import network
from rnnx.trained import Run

FORMS = (onnx, stablehlo)
ABOUT = {"format": 1}


def untrained(folder: Path, spec: object, **fields) -> Run:
    """A network as it is drawn, as if it were trained."""
    config = configs.default(fields.get("task", ""))
    config.update({"hidden_size": 6, "init_scale": 0.7, "level": "word"} | fields)
    config = network.resolve(config, spec)
    graphdef, params = model.split(network.build(config, spec))
    params = {name: p + 0.1 * np.cos(np.arange(p.size)).reshape(p.shape).astype(np.float32)
              for name, p in params.items()}  # fmt: skip
    return Run(folder, config, tasks.of(config), spec, graphdef, params, {})


def compared(run: Run, batches: Batches, form: ModuleType) -> list[parity.Row]:
    """The comparison of every function, written and read back."""
    exports, rows = exports_of(run), []
    for function in exports.functions:
        file = run.folder / f"{function.name}{form.SUFFIX}"
        file.write_bytes(form.write(function, exports.params, ABOUT))
        runner = form.load(file)
        if function.name == "step":
            rows.append(parity.steps("step", exports, runner, batches))
        else:
            rows.append(parity.sequences("whole", run, exports, runner, batches))
    return rows


def close(run: Run, batches: Batches, form: ModuleType) -> None:
    """Asserts that they are within 1e-5, and score alike."""
    rows = compared(run, batches, form)
    assert all(row.difference <= 1e-5 for row in rows), rows
    assert rows[0].score == pytest.approx(parity.own_score(run, batches), rel=1e-5)


# ---------------------------------------------------------------------------- primitives

OPERATIONS = {
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "power": lambda x: x**3 + jnp.square(x) + lax.rsqrt(x * x + 1),
    "compare": lambda x: jnp.where((x >= 0) & (x <= 1) | ~(x > -1), jnp.sign(x), x),
    "whole numbers": lambda x: (x * 10).astype(int) // 3 + (x * 10).astype(int) % 3,
    "least": lambda x: x.min(-1) + x.max((0, 1), keepdims=True)[..., 0],
    "slice": lambda x: x[..., 1:3] + x[..., ::2],
    "slice of time": lambda x: x[:, 1:] - x[:, :-1],
    "dynamic slice": lambda x: lax.dynamic_slice_in_dim(x, (x[0, 0, 0] * 9).astype(int), 2, -1),
    "reverse": lambda x: jnp.flip(x, 1),
    "product": lambda x: jnp.einsum("bti,bsi->bts", x, x),
    "sort": lambda x: jnp.sort(x, -1),
    "pick": lambda x: jnp.take_along_axis(x, jnp.arange(x.shape[1])[None, ::-1, None], 1),
    "pick columns": lambda x: jnp.take(x, jnp.array([3, 0, -1]), -1),
    "loop backward": lambda x: lax.scan(lambda h, a: (h + a, h * a), x[0], x, reverse=True),
    "loop in a loop": lambda x: lax.scan(
        lambda h, a: lax.scan(lambda g, b: (g + b, g), h, a), x[0, 0, 0], x.reshape(x.shape[0], -1)
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str, tmp_path: Path) -> None:
    """Those that a network may use; of two sizes, as batch and time are free."""
    batch, time = jax.export.symbolic_shape("batch, time", constraints=["time >= 3"])
    call = lambda params, x: jax.tree.leaves(OPERATIONS[name](x))  # noqa: E731
    like = {"x": jax.ShapeDtypeStruct((batch, time, 4), jnp.float32)}
    count = len(jax.eval_shape(call, {}, like["x"]))
    made = onnx.to_onnx(call, {}, like, [f"y{i}" for i in range(count)])
    running = session(made.SerializeToString(), name)
    for shape in ((2, 5, 4), (1, 3, 4)):
        x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        for found, expected in zip(running.run(None, {"x": x}), call({}, x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call, told", [
    (jnp.sin, "sin, which is not exported to ONNX"),
    (lambda x: lax.cond(x[0, 0, 0] > 0, jnp.sin, jnp.cos, x), "branches on its inputs"),
    (lambda x: lax.scan(lambda h, _: (h * h, None), x, length=3)[0], "nothing but a count"),
    (lambda x: x[:, ::2] + jnp.zeros((x.shape[1] + 1) // 2)[:, None], "an axis of size"),
])  # fmt: skip
def test_what_is_not_exported_is_said(call: Callable, told: str) -> None:
    like = {"x": jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, time, 4"), jnp.float32)}
    with pytest.raises(UserError, match=told):
        onnx.to_onnx(lambda params, x: [call(x)], {}, like, ["y"])


# ---------------------------------------------------------------------------- cells


def variants() -> list[tuple]:
    return [
        (kind, integration, layers)
        for kind, integration, layers in itertools.product(CELLS, INTEGRATIONS, (1, 2))
        if integration == "additive" or not CELLS[kind].linear
    ]


def language(folder: Path, kind: str, integration: str, layers: int, **fields) -> Run:
    depth = 3 if CELLS[kind].deep else 1
    fields |= {"cell": kind, "integration": integration, "depth": depth, "num_layers": layers}
    return untrained(folder, words(VOCAB), **fields)


# Windows of two shapes: batch and time are free in one file.
BATCHES = ScoringWindows(TOKENS[:100], 3, 9)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.SUFFIX)
@pytest.mark.parametrize("kind, integration, layers", variants())
def test_every_cell(kind: str, integration: str, layers: int, form: ModuleType, tmp_path: Path):
    # With larger ones the states of a linear RNN grow without bound.
    small = {"init_scale": 0.2} if kind == "linearrnn" else {}
    close(language(tmp_path, kind, integration, layers, **small), BATCHES, form)


@pytest.mark.parametrize(
    "fields",
    [("lstm", "mi", 2), ("rhn", "mi_simple", 1), ("gru", "mi", 1), ("slstm", "additive", 1),
     ("mingru", "additive", 2)],
    ids=lambda fields: "-".join(map(str, fields)),
)  # fmt: skip
def test_some_cells_in_onnx(fields: tuple, tmp_path: Path) -> None:
    close(language(tmp_path, *fields), BATCHES, onnx)


@pytest.mark.parametrize(
    "kind, fields",
    [("rhn", {"tied": True, "coupled": False}), ("gru", {"one_hot": True, "reset_after": True}),
     ("rnn", {"dtype": "bfloat16", "remat": 4}), ("lstm", {"norm": "layer"}),
     ("rhn", {"input_every": True, "mi_gates": "h", "norm": "tanh"})],
)  # fmt: skip
def test_other_networks_in_onnx(kind: str, fields: dict, tmp_path: Path) -> None:
    close(language(tmp_path, kind, "mi", 1, **fields), BATCHES, onnx)


@pytest.mark.parametrize(
    "fields", [("rhn", "mi", 2), ("mingru", "additive", 1)], ids=lambda f: f[0]
)
def test_some_cells_in_stablehlo(fields: tuple, tmp_path: Path) -> None:
    close(language(tmp_path, *fields), BATCHES, stablehlo)


# ---------------------------------------------------------------------------- tasks


def loaded(folder: Path, task: str, **fields) -> tuple[Run, Batches]:
    """A network and batches of a task's valid split, from a file."""
    config = configs.default(task)
    config.update({"cell": "lstm", "hidden_size": 5, "init_scale": 0.5, "batch_size": 4,
                   "num_steps": 12} | fields)  # fmt: skip
    dataset = tasks.of(config).load(config, print)
    run = untrained(folder, dataset.spec, **config)
    return run, run.task.batches(run.config, dataset, "valid", "batched", slice(None))


def test_piano_rolls(tmp_path: Path) -> None:
    rng, spec = np.random.default_rng(0), Vocabulary("roll", tuple(range(60, 67)))
    pieces = Pieces.of([(rng.random((n, 7)) < 0.3).astype(np.float32) for n in (9, 14, 5)])
    run = untrained(tmp_path, spec, task="rolls", level="roll", cell="rhn", integration="mi")
    close(run, PieceWindows(pieces, 2, 6), onnx)


@pytest.mark.parametrize("task, fields, form", [
    ("classify", {"bidirectional": True, "num_layers": 2}, onnx),
    ("classify", {"bidirectional": True}, stablehlo),
    ("regress", {"pool": "mean"}, onnx),
])  # fmt: skip
def test_sequences(task: str, fields: dict, form: ModuleType, tmp_path: Path) -> None:
    corpus = str(table(tmp_path, task))
    close(*loaded(tmp_path, task, corpus=corpus, target="label", group="id", time="t", **fields),
          form)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.SUFFIX)
@pytest.mark.parametrize("kind, integration, layers", variants())
def test_every_cell_in_both_directions(
    kind: str, integration: str, layers: int, form: ModuleType, tmp_path: Path
) -> None:
    fields = {"cell": kind, "integration": integration, "num_layers": layers}
    fields |= {"depth": 3 if CELLS[kind].deep else 1, "bidirectional": True}
    corpus = str(table(tmp_path, "classify"))
    close(*loaded(tmp_path, "classify", corpus=corpus, target="label", group="id", time="t",
                  **fields), form)  # fmt: skip


def test_lengths_differ_in_a_batch(tmp_path: Path) -> None:
    """What is beyond a row's length changes nothing, NaN neither."""
    run, _ = loaded(tmp_path, "regress", corpus=str(engines(tmp_path)), integration="mi")
    exports = exports_of(run)
    file = tmp_path / "whole.onnx"
    file.write_bytes(onnx.write(exports.functions[0], exports.params, ABOUT))
    runner, width = onnx.load(file), len(run.spec["columns"])
    x = np.random.default_rng(0).normal(size=(3, 8, width)).astype(np.float32)
    lengths = np.array([8, 3, 5], np.int32)
    (whole,) = runner({"inputs": x, "lengths": lengths})
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
        (alone,) = runner({"inputs": x[row : row + 1, :length], "lengths": lengths[row : row + 1]})
        np.testing.assert_allclose(alone, whole[row : row + 1], rtol=1e-5)
    np.testing.assert_array_equal(runner({"inputs": x, "lengths": lengths})[0], whole)


def test_speech(tmp_path: Path) -> None:
    spoken = {"corpus": "an4", "data_dir": str(write_an4(tmp_path)), "bidirectional": True}
    close(*loaded(tmp_path, "speech", **spoken), onnx)


def test_reading(tmp_path: Path) -> None:
    """Two free axes of time: that of the passage and that of the question."""
    asked = {"corpus": "babi/qa1", "data_dir": str(write_babi(tmp_path)), "bidirectional": True}
    close(*loaded(tmp_path, "reading", **asked, integration="mi"), onnx)


def series(folder: Path) -> dict:
    rng, count = np.random.default_rng(0), 120
    frame = pd.DataFrame({
        "at": hours(count), "load": 9 + rng.normal(size=count).cumsum(),
        "price": rng.normal(size=count), "wind": rng.normal(size=count),
        "holiday": rng.integers(0, 2, count),
    })  # fmt: skip
    corpus = str(write(folder, frame))
    columns = {"time": "at", "target": "load,price", "covariates": "wind", "known": "holiday"}
    return {"corpus": corpus, "horizon": 3, "season": 4, **columns}


@pytest.mark.parametrize(
    "fields",
    [{"head": "quantile"}, {"scaling": "window", "anchor": "season"}, {"decode": "recursive"},
     {"known": "", "covariates": ""}],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_forecasts_in_onnx(fields: dict, tmp_path: Path) -> None:
    close(*loaded(tmp_path, "forecast", **series(tmp_path) | fields), onnx)


def test_forecasts_in_stablehlo(tmp_path: Path) -> None:
    close(*loaded(tmp_path, "forecast", **series(tmp_path), decode="recursive"), stablehlo)
