"""Exported functions give what rnnx gives: every cell, every task, in ONNX and StableHLO."""

import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from conftest import TOKENS, VOCAB, words
from data_files import hours, write
from sequences_made import engines, table

from rnnx import config as configs
from rnnx import model, tasks
from rnnx.cells import CELLS, INTEGRATIONS
from rnnx.data.batches import Batches, PieceWindows, ScoringWindows
from rnnx.data.rolls import Pieces
from rnnx.data.vocabulary import Vocabulary
from rnnx.export import onnx, parity, stablehlo
from rnnx.export.functions import exports_of
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
    close(language(tmp_path, kind, integration, layers), BATCHES, form)


@pytest.mark.parametrize(
    "fields",
    [("lstm", "mi", 2), ("rhn", "mi_simple", 1), ("gru", "mi", 1), ("slstm", "additive", 1),
     ("mingru", "additive", 2)],
    ids=lambda fields: "-".join(map(str, fields)),
)  # fmt: skip
def test_some_cells_in_onnx(fields: tuple, tmp_path: Path) -> None:
    close(language(tmp_path, *fields), BATCHES, onnx)


@pytest.mark.parametrize(
    "fields",
    [{"tied": True}, {"one_hot": True}, {"dtype": "bfloat16"}, {"coupled": False}, {"remat": 4}],
    ids=lambda fields: next(iter(fields)),
)
def test_other_networks_in_onnx(fields: dict, tmp_path: Path) -> None:
    close(language(tmp_path, "rhn", "mi", 1, **fields), BATCHES, onnx)


def test_a_reset_after_the_product_in_onnx(tmp_path: Path) -> None:
    close(language(tmp_path, "gru", "mi", 1, reset_after=True), BATCHES, onnx)


def test_stablehlo(tmp_path: Path) -> None:
    close(language(tmp_path, "rhn", "mi", 2), BATCHES, stablehlo)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.SUFFIX)
def test_a_minimal_gru_in_stablehlo(form: ModuleType, tmp_path: Path) -> None:
    close(language(tmp_path, "mingru", "additive", 1), BATCHES, form)


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


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.SUFFIX)
@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("fields", [{"bidirectional": True, "num_layers": 2}, {"pool": "mean"}],
                         ids=["bidirectional", "mean"])  # fmt: skip
def test_sequences(task: str, fields: dict, form: ModuleType, tmp_path: Path) -> None:
    corpus = str(table(tmp_path, task))
    close(*loaded(tmp_path, task, corpus=corpus, target="label", group="id", time="t", **fields),
          form)  # fmt: skip


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
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.SUFFIX)
def test_forecasts(fields: dict, form: ModuleType, tmp_path: Path) -> None:
    close(*loaded(tmp_path, "forecast", **series(tmp_path) | fields), form)
