"""The display of a sweep."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from optuna.trial import TrialState
from rich.live import Live
from rich.table import Table

from rnnx import config as configs
from rnnx.display import console
from rnnx.duration import duration
from rnnx.sweep.ledger import Ledger
from rnnx.sweep.space import Overrides
from rnnx.tasks.task import Unit


class Progress(NamedTuple):
    """The progress of a run."""

    number: int
    point: Overrides
    epochs: int
    best: float | None  # valid score
    share: float  # of all its updates
    first_share: float  # done before this process resumed it
    seconds: float


class Screen:
    """A live table on a terminal; elsewhere a line for each event, and a status line a minute."""

    STATUS_SECONDS = 60.0
    ROWS = 12  # best finished trials shown while others run

    def __init__(self, ledger: Ledger, unit: Unit, stream: Any = None):
        self.ledger, self.unit = ledger, unit
        self.console = console(stream, wide=True)
        self._live: Live | None = None
        self._begun = self._told = self._drawn = time.monotonic()
        self._done: dict[int, float] = {}  # the share of each trial done by this process

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(*error)
            self._live = None

    def event(self, line: str, trouble: bool = False) -> None:
        """Prints a line; on a terminal only trouble, since the table shows the rest."""
        if trouble or not self._live:
            self.console.print(line, soft_wrap=True)

    def show(self, running: Sequence[Progress]) -> None:
        """Redraws the table once a second; elsewhere prints a status line once a minute."""
        for run in running:
            self._done[run.number] = run.share - run.first_share
        now = time.monotonic()
        if self._live and now - self._drawn >= 1.0:
            self._drawn = now
            self._live.update(self._table(running), refresh=True)
        elif not self._live and now - self._told >= self.STATUS_SECONDS:
            self._told = now
            self.console.print(self._status(running), soft_wrap=True)

    def summary(self) -> None:
        """Prints the finished trials, best first, why others failed, and what to do next."""
        self.console.print(self._table((), all_rows=True), soft_wrap=True)
        for t in (t for t in self.ledger.ended() if t.state == TrialState.FAIL):
            reason = t.user_attrs.get("reason", "")
            self.console.print(f"{t.number:03d} failed: {reason}", soft_wrap=True)
        folder = self.ledger.folder
        self.console.print(f"tables and plots: python -m rnnx.report --workdir={folder}")

    def _status(self, running: Sequence[Progress]) -> str:
        ended, total = len(self.ledger.ended()), self.ledger.total
        shares = ", ".join(f"{run.number:03d} ({run.share:.0%})" for run in running)
        others = len(self.ledger.elsewhere({run.number for run in running}))
        parts = [f"{ended} of {total} trials ended"]
        parts += [f"running {shares}"] if shares else []
        parts += [f"{others} run by other processes"] if others else []
        if running:
            left = total - ended - sum(run.share for run in running)
            elapsed, done = time.monotonic() - self._begun, sum(self._done.values())
            parts.append(f"ETA {duration(elapsed / done * left)}" if done > 0 else "ETA -")
        return "; ".join(parts)

    def _table(self, running: Sequence[Progress], all_rows: bool = False) -> Table:
        ended = self.ledger.ended()
        points = [self.ledger.point(t) for t in ended] + [run.point for run in running]
        fields = list(dict.fromkeys(name for point in points for name in point))
        table = Table(title=self._status(running), title_justify="left", box=None, pad_edge=False)
        for heading in ("trial", *fields, "epochs", "valid"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)

        def add(number: int, point: Overrides, *rest: str, style: str = "") -> None:
            values = [configs.show(point[name]) if name in point else "" for name in fields]
            table.add_row(f"{number:03d}", *values, *rest, style=style)

        def score(value: float | None) -> str:
            return "-" if value is None else self.unit.show(value)

        for run in running:
            state = f"{run.share:.0%}, {duration(run.seconds)}"
            add(run.number, run.point, str(run.epochs), score(run.best), state, style="bold")
        good = [t for t in ended if t.state != TrialState.FAIL]
        sign = 1 if self.ledger.plan.task.lower_is_better else -1
        good.sort(
            key=lambda t: (
                t.state != TrialState.COMPLETE, math.inf if t.value is None else sign * t.value
            )
        )  # fmt: skip
        shown = good if all_rows else good[: self.ROWS]
        for t in shown:
            state = "done" if t.state == TrialState.COMPLETE else "pruned"
            epochs = str(len(t.intermediate_values))
            add(t.number, self.ledger.point(t), epochs, score(t.value), state)
        if len(shown) < len(good):
            blank = [""] * (len(fields) + 2)
            table.add_row("...", *blank, f"and {len(good) - len(shown)} more")
        for t in (t for t in ended if t.state == TrialState.FAIL):
            add(t.number, self.ledger.point(t), str(len(t.intermediate_values)), "-", "failed")
        return table
