"""Predicts from new data with a trained network: forecasts, classes or numbers, as CSV.

    python -m rnnx.predict --workdir=DIR --data=NEW.csv > predictions.csv

The file has the form of the training file. Of series all rows are history, and the next H steps are
forecast; rows after the last known target give the columns that are known ahead. Labels are not
needed, and not read. Scaling is that of training; of a series that was not there, its own.

Columns: of forecasts the series, the time, the step ahead, the target, the forecast and the ends of
its interval; of classes the sequence, its class, the probability of every class; of numbers the
sequence and the number.
"""

import contextlib
import csv
import sys
from pathlib import Path
from typing import Any

from absl import flags

from rnnx import cli
from rnnx.display import Display
from rnnx.errors import UserError, writing
from rnnx.predictions import predictions
from rnnx.tasks.task import Task
from rnnx.trained import open_run


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run that predicts", required=True)
    flags.DEFINE_string("data", None, "new data, of the form of the training file", required=True)
    flags.DEFINE_string("output", "", "a CSV file to write; empty: stdout")


def main() -> None:
    values = flags.FLAGS
    run = open_run(Path(values.workdir).expanduser())
    if type(run.task).unseen is Task.unseen:
        raise UserError(f"{values.workdir} holds a task without predictions of new data")
    display = Display(sys.stderr)
    unseen = run.task.unseen(run.config, run.spec, values.data)
    for line in unseen.remarks:
        display.print(line)
    display.start("predicting", len(unseen.batches))
    rows: list[dict] = []
    for batch, found in predictions(run, unseen.batches, display):
        rows += unseen.rows(batch, found)
    display.finish()
    rows.sort(key=lambda row: row["row"])
    headings = [name for name in rows[0] if name != "row"]
    with contextlib.ExitStack() as opened:
        file = sys.stdout
        if values.output:
            output = Path(values.output).expanduser()
            opened.enter_context(writing(output.parent))
            file = opened.enter_context(open(output, "w", encoding="utf-8", newline=""))
        writer = csv.DictWriter(file, headings, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _shown(value) for name, value in row.items()} for row in rows)
    if values.output:
        display.print(f"{len(rows):,} rows in {values.output}")


def _shown(value: Any) -> Any:
    """Numbers with six digits, all that float32 holds."""
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
