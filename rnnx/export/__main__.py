"""Takes a trained network out of JAX: ONNX, StableHLO or safetensors.

    python -m rnnx.export --workdir=DIR --format=onnx --output=net.onnx

    onnx         net.onnx, whole sequences with free batch and time; where the task carries a
                 state, net.step.onnx, one step of it, for `rnnx.runtime` and other programs
    stablehlo    net.stablehlo and net.step.stablehlo, for JAX
    safetensors  net.safetensors, the parameters by name

and a model card, net.onnx.md. Vocabulary or scaling and the config are in each file: it is enough
by itself. Files are run on held-out data first; one that differs from rnnx by more than 1e-4 is
not kept.
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags
from rich.table import Table

from rnnx import cli, trained
from rnnx.data.batches import Batches
from rnnx.display import Display
from rnnx.errors import UserError, writing
from rnnx.export import parity
from rnnx.export.about import about
from rnnx.export.card import card
from rnnx.export.functions import Exports, exports_of
from rnnx.trained import Run, load_data, open_run

# The module of each format.
FORMATS = {
    "onnx": "rnnx.export.onnx",
    "stablehlo": "rnnx.export.stablehlo",
    "safetensors": "rnnx.export.weights",
}


def functions(
    form: Any,
    run: Run,
    exports: Exports,
    told: dict[str, Any],
    batches: Batches,
    place: Path,
    int8: bool,
    display: Display,
) -> list[parity.Row]:
    """Writes the functions of a run to place, and compares each with rnnx.

    Raises:
      UserError: when one differs.
    """
    rows, whole = [parity.Row("rnnx", parity.own_score(run, batches))], exports.functions[0]
    for function in exports.functions:
        file = place if function is whole else place.with_suffix(f".step{place.suffix}")
        display.start(f"{file.name}: written", 1)
        file.write_bytes(form.write(function, exports.params, told))
        display.start(f"{file.name}: compared", len(batches) if function is whole else 1)
        runner = form.load(file)
        if function is whole:
            row = parity.sequences(file.name, run, exports, runner, batches, display)
        else:
            row = parity.steps(file.name, exports, runner, batches)
        display.finish()
        if not row.difference <= parity.LIMIT:
            raise UserError(
                f"{file.name} differs from rnnx by {row.difference:.1e}, more than "
                f"{parity.LIMIT:.0e}: nothing is written"
            )
        rows.append(row)
        if int8:
            file.write_bytes(form.quantised(file.read_bytes()))
            if function is whole:
                display.start(f"{file.name}, int8: compared", len(batches))
                name, runner = f"{file.name}, int8", form.load(file)
                rows.append(parity.sequences(name, run, exports, runner, batches, display))
                display.finish()
    return rows


def parameters(form: Any, exports: Exports, told: dict[str, Any], place: Path) -> list[parity.Row]:
    """Writes the parameters of a run to place, and reads them back.

    Raises:
      UserError: when one is not equal to the last bit.
    """
    place.write_bytes(form.write(exports.params, told))
    found, _ = form.read(place)
    equal = found.keys() == exports.params.keys() and all(
        found[name].tobytes() == p.tobytes() for name, p in exports.params.items()
    )
    if not equal:
        raise UserError(f"{place.name} does not hold the parameters of rnnx: nothing is written")
    return []


def table_of(rows: list[parity.Row], unit: Any, title: str) -> Table:
    """The comparison, for the terminal."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in (unit.name, "largest difference"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, *row.told(unit, rows[0].score))
    return table


# ---------------------------------------------------------------------------- command line


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run whose best parameters are taken", required=True)
    flags.DEFINE_enum("format", "onnx", list(FORMATS), "of the files")
    flags.DEFINE_string("output", None, "the file to write, NAME.FORMAT", required=True)
    flags.DEFINE_bool("int8", False, "onnx: weights of matrix products in 8 bits")
    flags.DEFINE_enum("split", "valid", ["valid", "test"], "held-out data to compare on")
    flags.DEFINE_integer("max_tokens", 20_000, "compare on so many targets; 0: all", lower_bound=0)
    trained.define_flags()


def main() -> None:
    values = flags.FLAGS
    output = Path(values.output).expanduser()
    if output.suffix != f".{values.format}":
        raise UserError(f"--output={values.output} must be a file NAME.{values.format}")
    if values.int8 and values.format != "onnx":
        raise UserError("--int8 is for --format=onnx")
    form = importlib.import_module(FORMATS[values.format])
    folder, display = Path(values.workdir).expanduser(), Display(sys.stderr)
    run = open_run(folder)
    exports, config = exports_of(run), run.config
    told = about(run, exports)
    trained.moved(config, values)
    config.eval_tokens = values.max_tokens
    title, batches, unit = "Read back, equal to the last bit.", None, run.task.unit(config)
    if values.format != "safetensors":
        dataset = load_data(folder, config, display.print)
        batches = run.task.batches(config, dataset, values.split, "batched", slice(None))
        title = f"{values.split}, {batches.targets:,} targets, protocol batched"
    with writing(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        # On the disk of the output: files are put in place whole, or not at all.
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export") as scratch:
            place = Path(scratch) / output.name
            if batches is None:
                rows = parameters(form, exports, told, place)
            else:
                rows = functions(form, run, exports, told, batches, place, values.int8, display)
            files = sorted(Path(scratch).iterdir(), key=lambda file: len(file.name))
            page = place.with_name(f"{place.name}.md")
            page.write_text(card(run, told, values.format, files, title, rows), encoding="utf-8")
            for file in (*files, page):
                os.replace(file, output.parent / file.name)
    display.print(title if batches is None else table_of(rows, unit, title))
    written = ", ".join(str(output.parent / file.name) for file in (*files, page))
    display.print(f"written: {written}")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
