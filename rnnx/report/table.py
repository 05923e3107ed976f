"""What a table is, and what its cells say of runs."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table as RichTable

from rnnx.report.runs import Group, Run


class Table(NamedTuple):
    """A title, headings, rows of text, and a note."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""

    def rich(self) -> RichTable:
        """For a terminal."""
        table = RichTable(title=self.title, title_justify="left", box=None, pad_edge=False)
        for i, heading in enumerate(self.headings):
            text = any(not _is_number(row[i]) for row in self.rows)
            widest = max((len(row[i]) for row in self.rows), default=0)
            table.add_column(heading, justify="left" if text else "right", min_width=widest)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in r)} |" for r in lines)
        return f"{body}\n" + (f"\n{self.note}\n" if self.note else "")

    def csv(self) -> str:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.headings, *self.rows])
        return file.getvalue()


def done(group: Group) -> str:
    """Epochs done: `8`, or `3 of 500` when runs are not complete."""
    done = min(len(run.valid) for run in group.runs)
    asked = group.config["epochs"]
    return f"{done:,}" if done >= asked else f"{done:,} of {asked:,}"


def where(runs: Sequence[Run]) -> str:
    """Hardware and commits: `Measured on ..., commit ...`."""
    devices = sorted({run.device for run in runs if run.device})
    commits = sorted({run.git for run in runs if run.git})
    if not devices:
        return ""
    known = f", commit {', '.join(commits)}" if commits else ""
    return f"Measured on {'; '.join(devices)}{known}."


def _is_number(text: str) -> bool:
    text = text.replace(",", "").split(" ±")[0].strip("~+-")
    return text in ("", "-") or text.replace(".", "", 1).isdigit()
