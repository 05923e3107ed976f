"""What a run prints: progress, a banner at the start, a summary at the end."""

import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnx import cli
from rnnx import config as configs
from rnnx.duration import duration
from rnnx.tasks.task import Dataset, Task


def console(stream: Any = None, quiet: bool = False, wide: bool = False) -> Console:
    """A console for plain text; stdout if no stream is given.

    A wide one has room for tables of many runs where no terminal sets the width.
    """
    file = cli.Lasting(stream or sys.stdout)
    made = Console(file=file, quiet=quiet, highlight=False, markup=False, emoji=False)
    if wide and not made.is_terminal:
        made.width = 200
    return made


class Stopped(Exception):
    """A signal came in the middle of an evaluation."""


class Display:
    """Progress with rate and ETA: a bar on a terminal, a plain line every half minute elsewhere."""

    PLAIN_SECONDS = 30.0

    def __init__(self, stream: Any = None, quiet: bool = False):
        self.console = console(stream, quiet)
        self._bar = self._task = None

    def print(self, *args: Any) -> None:
        """Prints a line or a rich table, above the progress bar if there is one."""
        (self._bar.console if self._bar else self.console).print(*args, soft_wrap=True)

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begins a task of `total` units, of which `done` are done already."""
        self.finish()
        self._what, self._total, self._first = what, total, done
        self._begun = self._printed = time.monotonic()
        if self.console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=None),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[note]}"),
                progress.TextColumn("ETA"),
                progress.TimeRemainingColumn(),
                console=self.console,
                transient=True,
                expand=True,
            )
            self._task = self._bar.add_task(what, total=total, completed=done, note="")
            self._bar.start()

    def update(self, done: int, note: str = "") -> None:
        """Shows that `done` units of the task are done, with a short note."""
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._printed >= self.PLAIN_SECONDS and done > self._first:
            self._printed = now
            left = (now - self._begun) / (done - self._first) * (self._total - done)
            self.print(f"{self._what}: {done:,}/{self._total:,} {note}  ETA {duration(left)}")

    def finish(self) -> None:
        """Removes the progress bar."""
        if self._bar:
            self._bar.stop()
            self._bar = None


class Watched(NamedTuple):
    """A display that raises `Stopped` when a signal has come."""

    display: Display
    stop: cli.Stop

    def update(self, done: int) -> None:
        """As the display's."""
        if self.stop.number:
            raise Stopped
        self.display.update(done)


def banner(
    display: Display,
    config: ConfigDict,
    dataset: Dataset,
    about: dict,
    epoch: str,
    known: dict[str, str],
    folder: Path,
) -> None:
    """Prints what is about to run: config, parameters, data, devices, versions.

    Args:
      config: resolved.
      about: what `workdir.provenance` gathered, and the parameters' shapes.
      epoch: what an epoch is.
      known: the valid scores to beat, by name.
    """
    show = display.print
    # All fields, three abreast; those that differ from the default in bold.
    fields = Table(title="config", title_justify="left", show_header=False, box=None)
    cells = [
        Text(f"{name} = {config[name]!r}", "" if config[name] == field.default else "bold")
        for name, field in configs.fields_of(config.task).items()
    ]
    rows = -(-len(cells) // 3)
    for row in range(rows):
        fields.add_row(*cells[row::rows])
    show(fields)

    parameters = Table(title="parameters", title_justify="left", box=None)
    for heading, side in (("name", "left"), ("shape", "right"), ("number", "right")):
        parameters.add_column(heading, justify=side)
    for name, shape in about["parameters"].items():
        parameters.add_row(name, " x ".join(map(str, shape)), f"{math.prod(shape):,}")
    total = sum(math.prod(shape) for shape in about["parameters"].values())
    parameters.add_row("total", "", f"{total:,}", style="bold")
    show(parameters)

    sizes = " / ".join(f"{count:,}" for count in dataset.sizes)
    show(f"\ndata      {dataset.name}: {sizes} (train / valid / test)")
    for line in (*dataset.about, epoch):
        show(f"          {line}")
    for name, digest in dataset.sums.items():
        show(f"          sha256 {digest[:16]}...  {name}")
    if known:
        show(f"to beat   {', '.join(f'{name} {score}' for name, score in known.items())} (valid)")
    show(f"device    {about['device']}; recurrent products: {about['products']}")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    show(f"versions  {versions}; git {about['git'] or 'unknown'}")
    show(f"workdir   {folder}\n")


def summary(
    display: Display, task: Task, config: ConfigDict, dataset: Dataset, result: dict
) -> None:
    """Prints the scores of a run beside those of models that know less."""
    unit = task.unit(config)
    table = Table(title=f"{unit.name}, full protocol", title_justify="left", box=None)
    splits = [split for split in ("valid", "test") if split in result]
    for heading in ("", *splits):
        table.add_column(heading, justify="right" if heading else "left")
    rows: dict[str, list[str]] = {}
    for split in splits:
        known = task.baselines(config, dataset, split)
        for name, score in (known | {"this model": result[split][task.primary]}).items():
            rows.setdefault(name, []).append(unit.number(score))
    for name, values in rows.items():
        table.add_row(name, *values)
    counts = (f"{result[split].get(task.counted, 0):,}" for split in splits)
    table.add_row(task.counted, *counts, style="dim")
    display.print(table)
