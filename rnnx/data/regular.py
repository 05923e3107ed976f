"""Rows put on a regular grid, a piece for each series."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx.data.calendar import Grid, Step, find_step, off_grid
from rnnx.data.columns import Table
from rnnx.data.frame import Remarks, numbers, read_frame
from rnnx.errors import UserError

_SPARSE = 10  # times as many rows inserted as there are: something is wrong with the times


class Piece(NamedTuple):
    """One series: T rows at regular times."""

    name: str
    times: np.ndarray  # (T,) datetime64[s] or int64
    rows: np.ndarray  # (T, K + C + D) float64, NaN where missing
    test: int | None = None  # the row where a test file begins

    def cut(self, first: int, last: int) -> "Piece":
        """Some of its rows."""
        test = None if self.test is None else max(self.test - int(first), 0)
        return Piece(self.name, self.times[first:last], self.rows[first:last], test)


def forward(values: np.ndarray, first: np.ndarray | float) -> np.ndarray:
    """Missing values (T, C) replaced by the last one before, or by `first` (C,) where none is."""
    at = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    at = np.maximum.accumulate(at, axis=0)
    filled = np.take_along_axis(values, np.maximum(at, 0), axis=0)
    return np.where(at < 0, first, filled)


def gridded(
    table: Table, later: Table | None, remarks: Remarks, like: Step | None = None
) -> tuple[list[Piece], Step]:
    """Series in order of time, with a row for every step.

    Args:
      table, later: the rows of a file, and of a test file or None.
      like: the step that these rows must have, by default found.

    Raises:
      UserError: no regular step, or another one; too many repeated times; times far apart.
    """
    whole = table if later is None else _joined(table, later)
    count = len(table.values)
    labels = np.zeros(len(whole.values), int) if whole.labels is None else whole.labels
    names, codes = _factorized(labels)
    if len(names) > 1 and len(names) * 2 > len(codes):
        raise UserError(
            f"the group column names {len(names):,} series in {len(codes):,} rows: name a column "
            "that is the same in all rows of a series"
        )
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    rows = [order[a:b] for a, b in itertools.pairwise(starts)]  # of each series
    name = [""] if whole.labels is None else [str(n) for n in names]
    if whole.times is None:
        step = Step("row", 1)
        pieces = [
            Piece(n, np.arange(len(r)), whole.values[r], _first_test(r, count, later))
            for n, r in zip(name, rows, strict=True)
        ]
        return pieces, step
    rows = _sorted(whole, rows, remarks.notes)
    _once(whole, rows, remarks.notes)
    step = _step([whole.times[r] for r in rows], whole.dated, like)
    return _pieces(whole, name, rows, step, count if later is not None else None, remarks), step


def _factorized(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different labels by first appearance, and each row's number among them."""
    import pandas as pd

    codes, names = pd.factorize(labels)
    return np.asarray(names), codes


def _joined(table: Table, later: Table) -> Table:
    """The rows of two files."""
    both = ("labels", "times")
    parts = {
        field: None
        if getattr(table, field) is None
        else np.concatenate([getattr(table, field), getattr(later, field)])
        for field in both
    }
    return table._replace(values=np.concatenate([table.values, later.values]), **parts)


def _first_test(rows: np.ndarray, count: int, later: Table | None) -> int | None:
    return None if later is None else int(np.searchsorted(rows, count))


def _sorted(table: Table, rows: list[np.ndarray], notes: list[str]) -> list[np.ndarray]:
    """The rows of each series in order of time."""
    back, ordered = 0, []
    for r in rows:
        t = table.times[r]
        back += int((np.diff(t) < 0).sum())
        ordered.append(r[np.argsort(t, kind="stable")])
    if back:
        notes.append(f"rows are not in order of time (the time goes back {back:,} times): sorted")
    return ordered


def _shown(time: int, dated: bool) -> str:
    return str(np.datetime64(int(time), "us").astype("datetime64[s]")).replace("T", " ") if dated \
        else str(time)  # fmt: skip


def _once(table: Table, rows: list[np.ndarray], notes: list[str]) -> None:
    """Says how many times come twice. Raises UserError if series seem to be mixed."""
    again = [r[1:][np.diff(table.times[r]) == 0] for r in rows]
    count = sum(map(len, again))
    if not count:
        return
    first = _shown(table.times[next(r[0] for r in again if len(r))], table.dated)
    if count * 2 >= len(table.values):
        raise UserError(
            f"{count:,} of {len(table.values):,} rows repeat a time ({first}): name the column "
            "that tells the series apart with --group, or a finer time with --time"
        )
    notes.append(f"{count:,} rows repeat a time (the first is {first}): their mean is taken")


def _step(series: list[np.ndarray], dated: bool, like: Step | None) -> Step:
    """The step of sorted times. Raises UserError if it is not `like`."""
    if not any(len(np.unique(t)) > 1 for t in series) and like:
        return like
    if dated:
        step = find_step(series)
    else:
        steps = np.concatenate([np.diff(np.unique(t)) for t in series])
        if not len(steps):
            raise UserError("no time step: every series has one time only")
        step = Step("row", int(np.bincount(np.minimum(steps, 1 << 20)).argmax()))
    # Few days in a row may be weekdays or not.
    if like and step != like and {step.unit, like.unit} != {"day", "weekday"}:
        raise UserError(f"the time step is {step}, but the model was trained on {like} steps")
    return like or step


def _pieces(
    table: Table,
    names: list[str],
    rows: list[np.ndarray],
    step: Step,
    count: int | None,
    remarks: Remarks,
) -> list[Piece]:
    """Puts sorted rows on the grid; rows from `count` on are those of a test file."""
    pieces, alone, off, inserted, total, overlap = [], [], 0, 0, 0, 0
    longest = (0, 0)  # steps, the time before
    for name, r in zip(names, rows, strict=True):
        later = None if count is None else r >= count
        if later is not None and later.all() | ~later.any():
            alone.append(name)
            continue
        grid = Grid.through(table.times[r], step)
        index, on = grid.index(table.times[r])
        test = None
        if later is not None:
            begin = index[later].min()
            keep = later | (index < begin)
            overlap += int((~keep).sum())
            r, index, on = r[keep], index[keep], on[keep]
            test = int(begin - index[0])
        off += int((~on).sum())
        points, first = np.unique(index, return_index=True)
        size = int(points[-1] - points[0]) + 1
        if size > _SPARSE * len(points) + 1000:
            ends = (_shown(t, table.dated) for t in table.times[r][[0, -1]])
            raise UserError(
                f"times from {' to '.join(ends)} are {size:,} steps of {step}, but there are "
                f"{len(points):,} rows: correct the first or last time, or take longer steps"
            )
        values = np.full((size, table.values.shape[1]), np.nan)
        values[points - points[0]] = _means(table.values[r], first, len(points))
        gaps = np.diff(points) - 1
        if len(gaps) and gaps.max() > longest[0]:
            longest = (int(gaps.max()), table.times[r][first[gaps.argmax()]])
        inserted, total = inserted + int(gaps.sum()), total + size
        pieces.append(Piece(name, grid.times(int(points[0]), size), values, test))
    if not pieces:
        raise UserError("the two files have no series in common")
    if alone:
        remarks.warnings.append(
            f"{len(alone)} series are in one of the two files only, such as {alone[0]!r}: left out"
        )
    if off:
        remarks.notes.append(off_grid(off, len(table.values), str(step)))
    if overlap:
        remarks.warnings.append(
            f"{overlap:,} rows of the first file are not before the test file's: left out"
        )
    if inserted:
        remarks.notes.append(
            f"{inserted:,} of {total:,} steps of {step} are missing: rows without values inserted "
            f"(the longest gap, {longest[0]:,}, is after {_shown(longest[1], table.dated)})"
        )
    return pieces


def _means(values: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """Rows (N, C) averaged over what is not missing, from each of `first` to the next."""
    if count == len(values):
        return values
    there = np.isfinite(values)
    total = np.add.reduceat(np.where(there, values, 0.0), first, axis=0)
    n = np.add.reduceat(there.astype(float), first, axis=0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


# ---------------------------------------------------------------------------------- wide tables


def wide(path: str | Path, test: str | Path | None, remarks: Remarks) -> list[Piece]:
    """The series of a wide table, a row each: its id, its values, nothing after its end.

    test: a file of the same form with the values that follow.

    Raises:
      UserError: an id twice, a value that is no number, no series in both files.
    """
    found = _wide(path)
    later = _wide(test) if test else {}
    pieces, alone = [], []
    for name, values in found.items():
        if test and name not in later:
            alone.append(name)
            continue
        whole = np.concatenate([values, later[name]]) if test else values
        pieces.append(
            Piece(name, np.arange(len(whole)), whole[:, None], len(values) if test else None)
        )
    alone += [name for name in later if name not in found]
    if not pieces:
        raise UserError(f"{path} and {test} have no series in common: their first columns are ids")
    if alone:
        remarks.notes.append(
            f"{len(alone)} series are in one of the two files only, such as {alone[0]!r}: left out"
        )
    missing = sum(int(np.isnan(p.rows).sum()) for p in pieces)
    if missing:
        total = sum(len(p.rows) for p in pieces)
        remarks.notes.append(f"{missing:,} of {total:,} values are missing")
    lengths = [len(p.rows) for p in pieces]
    remarks.notes.append(
        f"{len(pieces)} series of {min(lengths)} to {max(lengths)} values, without times"
    )
    return pieces


def _wide(path: str | Path) -> dict[str, np.ndarray]:
    """The values (T,) of each row up to its last one, by id."""
    frame = read_frame(path)
    ids = [str(name) for name in frame.iloc[:, 0]]
    columns: Sequence[str] = list(frame.columns[1:])
    if not columns:
        raise UserError(f"{path} has one column: a wide table has an id and values in a row")
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise UserError(f"{path} has two rows of series {twice!r}")
    plain = all(kind.kind in "fiu" for kind in frame.dtypes.iloc[1:] if hasattr(kind, "kind"))
    values = (
        frame[columns].to_numpy(np.float64, na_value=np.nan)
        if plain and not any(frame.dtypes.iloc[1:].map(str).isin(["str", "object"]))
        else np.stack([numbers(frame[name], "values of") for name in columns], axis=1)
    )
    values = np.where(np.isinf(values), np.nan, values)
    ends = values.shape[1] - np.argmax(np.isfinite(values[:, ::-1]), axis=1)
    ends = np.where(np.isfinite(values).any(axis=1), ends, 0)
    return {name: row[:end].copy() for name, row, end in zip(ids, values, ends, strict=True)}
