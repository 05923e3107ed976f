"""The columns of a table: found or checked by name, and read as numbers and times."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rnnx.data import times
from rnnx.data.frame import need, numbers, numeric, stripped
from rnnx.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class Columns(NamedTuple):
    """The names of a table's columns by their role."""

    time: str  # "a+b" for several, "" for none
    targets: tuple[str, ...]
    past: tuple[str, ...]
    known: tuple[str, ...]
    group: str  # "" for a single series


class Table(NamedTuple):
    """N rows of a file, as they come."""

    times: np.ndarray | None  # (N,) int64: microseconds, or counts; None: rows are counted
    dated: bool  # whether they are microseconds
    labels: np.ndarray | None  # (N,) the text of each row's series
    values: np.ndarray  # (N, K + C + D) float64, NaN where missing


def used(columns: Columns) -> list[str]:
    names = (*columns.targets, *columns.past, *columns.known, columns.group)
    return [name for name in names if name]


def check(frame: "pd.DataFrame", columns: Columns) -> None:
    """Raises UserError for columns that are not there, or that have two roles."""
    flags = zip(("target", "covariates", "known"), columns[1:4], strict=True)
    for flag, names in (*flags, ("group", [columns.group])):
        need(frame, filter(None, names), flag)
    if columns.time not in frame.columns:
        need(frame, filter(None, columns.time.split("+")), "time")
    named = [*used(columns), columns.time]
    if twice := [name for name in named if named.count(name) > 1]:
        raise UserError(f"column {twice[0]!r} is named twice: it can have one role only")


def choose(
    frame: "pd.DataFrame",
    time: str,
    target: Sequence[str],
    group: str,
    covariates: Sequence[str],
    known: Sequence[str],
    notes: list[str],
) -> Columns:
    """The columns as named, the time column and the targets found where they are not."""
    columns = Columns(time, tuple(target), tuple(covariates), tuple(known), group)
    check(frame, columns)
    if not time:
        time = times.guess(frame, used(columns))
        notes.append(f"time is {time!r}" if time else "no column of times: rows are counted")
    clocks = {time} if time in frame.columns else set(time.split("+"))
    if not target:
        free = [n for n in frame.columns if n not in clocks and n not in used(columns)]
        found = [name for name in free if numeric(frame[name])]
        if len(found) > 1 and _counts(frame[found[0]]) and found[0] == frame.columns[0]:
            notes.append(f"{found[0]!r} counts the rows: left out")
            found = found[1:]
        if empty := [name for name in found if frame[name].isna().all()]:
            notes.append(f"columns without values: {', '.join(empty)}: left out")
            found = [name for name in found if name not in empty]
        if not found:
            raise UserError("no column of numbers is left to forecast: name one with --target")
        named = ", ".join(found) if len(found) <= 10 else f"{', '.join(found[:9])}, .."
        notes.append(
            f"target is {found[0]!r}, the only column of numbers"
            if len(found) == 1
            else f"targets are all {len(found)} columns of numbers: {named} (--target names fewer)"
        )
        target = found
    return Columns(time, tuple(target), tuple(covariates), tuple(known), group)


def _counts(column: "pd.Series") -> bool:
    values = numbers(column, "column")
    rising = values == values[0] + np.arange(len(values))
    return len(values) > 1 and bool(np.isfinite(values).all() and rising.all())


def read_columns(frame: "pd.DataFrame", columns: Columns, notes: list[str]) -> Table:
    """The numbers of a file: targets, covariates and known columns side by side."""
    check(frame, columns)
    at, dated = _times(frame, columns.time, notes)
    labels = None
    if columns.group:
        labels = stripped(frame[columns.group]).to_numpy(object)
        if (labels == "").any():
            row = int(np.argmax(labels == "")) + 1
            raise UserError(f"--group={columns.group} is empty in row {row:,}")
    roles = ("target", "covariate", "known column")
    values = []
    for role, names in zip(roles, columns[1:4], strict=True):
        for name in names:
            found = numbers(frame[name], role)
            if infinite := int(np.isinf(found).sum()):
                notes.append(f"{role} {name!r}: {infinite:,} infinite values count as missing")
                found = np.where(np.isinf(found), np.nan, found)
            if not (there := np.isfinite(found)).any():
                raise UserError(f"{role} {name!r} has no values: all are missing")
            if not there.all():
                row = int(np.argmin(there)) + 1
                if role == "known column":
                    raise UserError(
                        f"known column {name!r} is missing in row {row:,}: what is known ahead "
                        "has a value in every row"
                    )
                mended = "" if role == "target" else ", filled from the past"
                notes.append(
                    f"{role} {name!r}: {(~there).sum():,} of {len(there):,} values are missing"
                    f"{mended} (first in row {row:,})"
                )
            values.append(found)
    return Table(at, dated, labels, np.stack(values, axis=1))


def _times(frame: "pd.DataFrame", time: str, notes: list[str]) -> tuple[np.ndarray | None, bool]:
    """Times in microseconds and True, counts and False, or None where rows are counted."""
    import pandas as pd

    if not time:
        return None, False
    if time not in frame.columns:
        return times.joined(frame, time.split("+"), notes), True
    column = frame[time]
    if not pd.api.types.is_numeric_dtype(column):
        return times.parse(column, notes), True
    values = numbers(column, "time column")
    wrong = ~(np.isfinite(values) & (values == np.round(values)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"time column {time!r}: {column.iloc[row]} in row {row + 1:,} is neither a time nor "
            "a whole number"
        )
    whole = column.to_numpy(np.int64)
    found = times.counted(column, whole, notes)
    return (whole, False) if found is None else (found, True)
