"""What a person sees of a run: progress, what it starts from, what it came to."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnx import cli
from rnnx import config as configs
from rnnx.batches import capped
from rnnx.data import Corpus
from rnnx.metrics import UNITS, Score, duration, uniform, unigram


def console(stream: Any = None, quiet: bool = False, wide: bool = False) -> Console:
    """Where a command prints: plain text, in the order told; stdout if no stream is named.

    A wide one has room for the tables of many runs where no terminal sets its width.
    """
    file = cli.Lasting(stream or sys.stdout)
    made = Console(file=file, quiet=quiet, highlight=False, markup=False, emoji=False)
    if wide and not made.is_terminal:
        made.width = 200
    return made


class Display:
    """Progress with rate and ETA: a bar on a terminal, a plain line every half minute elsewhere."""

    PLAIN_SECONDS = 30.0

    def __init__(self, stream: Any = None, quiet: bool = False):
        self.console = console(stream, quiet)
        self._bar = self._task = None

    def print(self, *args: Any) -> None:
        """A line (or a rich table) that stays; above the bar if there is one."""
        (self._bar.console if self._bar else self.console).print(*args, soft_wrap=True)

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begins a stretch of `total` units, of which `done` are done already."""
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
        """Shows that `done` units of the stretch are done, with a short note."""
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._printed >= self.PLAIN_SECONDS and done > self._first:
            self._printed = now
            left = (now - self._begun) / (done - self._first) * (self._total - done)
            self.print(f"{self._what}: {done:,}/{self._total:,} {note}  ETA {duration(left)}")

    def finish(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


def banner(
    display: Display, config: ConfigDict, corpus: Corpus, about: dict, windows: int, folder: Path
) -> None:
    """Prints what is about to run: config, parameters, data, devices, versions.

    Args:
      config: resolved.
      about: what `workdir.provenance` gathered, and the parameters' shapes.
      windows: updates an epoch.
    """
    show = display.print
    # All fields, three abreast; those that differ from the default in bold.
    fields = Table(title="config", title_justify="left", show_header=False, box=None)
    cells = [
        Text(f"{name} = {config[name]!r}", "" if config[name] == field.default else "bold")
        for name, field in configs.FIELDS.items()
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

    sizes = " / ".join(f"{count:,}" for count in about["data"]["tokens"])
    units, types = ("steps", "keys") if corpus.level == "roll" else ("tokens", "types")
    show(f"\ndata      {corpus.name}, {corpus.level}: {sizes} {units} (train / valid / test)")
    show(f"          {corpus.vocabulary.size:,} {types}, {windows:,} windows an epoch")
    for name, digest in corpus.sums.items():
        show(f"          sha256 {digest[:16]}...  {name}")
    size = corpus.vocabulary.size
    knowing_nothing = uniform(corpus.level, size).show(corpus.level)
    by_frequency = unigram(corpus.train, corpus.valid, size).show(corpus.level)
    show(f"to beat   uniform {knowing_nothing}, symbol frequencies {by_frequency} (valid)")
    show(f"device    {about['device']}")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    show(f"versions  {versions}; git {about['git'] or 'unknown'}")
    show(f"workdir   {folder}\n")


def summary(display: Display, corpus: Corpus, result: dict) -> None:
    """Prints the scores of a run beside those of models that know less."""
    size = corpus.vocabulary.size
    table = Table(title=f"{UNITS[corpus.level]}, full protocol", title_justify="left", box=None)
    for heading in ("", "valid", "test"):
        table.add_column(heading, justify="right" if heading else "left")
    rows: dict[str, list[float]] = {"uniform": [], "symbol frequencies": [], "this model": []}
    for split in ("valid", "test"):
        tokens = capped(getattr(corpus, split), result[split]["tokens"])
        own = Score(result[split]["nll"], 1)
        scores = uniform(corpus.level, size), unigram(corpus.train, tokens, size), own
        for row, score in zip(rows.values(), scores, strict=True):
            row.append(score.in_unit(corpus.level))
    for name, values in rows.items():
        table.add_row(
            name, *(f"{v:,.2f}" if corpus.level == "word" else f"{v:.4f}" for v in values)
        )
    counts = (f"{result[split]['tokens']:,}" for split in ("valid", "test"))
    table.add_row("targets", *counts, style="dim")
    display.print(table)
