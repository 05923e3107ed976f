"""From a table of numbers to regular series: columns found, order, gaps and missing values mended.

    series, notes, warnings = read_series("load.csv", target=["load"], horizon=24)
    new, notes, warnings = read_new("new.csv", like=describe(series))

Every note says in one line what was found or mended; every warning, what may mislead. What can't
be mended raises UserError.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.data import calendar, times
from rnnx.data.columns import Columns, check, choose, read_columns, used
from rnnx.data.frame import Remarks, read_frame
from rnnx.data.leaks import leaks
from rnnx.data.regular import Piece, forward, gridded, wide
from rnnx.data.season import find_season
from rnnx.data.series import Series
from rnnx.errors import UserError

PARTS = (0.7, 0.1, 0.2)
LAYOUTS = ("long", "wide")
Read = tuple[Series, list[str], list[str]]


def read_series(
    path: str | Path,
    *,
    time: str = "",
    target: Sequence[str] = (),
    group: str = "",
    covariates: Sequence[str] = (),
    known: Sequence[str] = (),
    layout: str = "long",
    test: str | Path | None = None,
    season: int | None = None,
    parts: Sequence[float] = PARTS,
    horizon: int = 1,
) -> Read:
    """The series of a CSV or Parquet file, with notes and warnings.

    Args:
      time: the column of times; "a+b" for a date and an hour, or year+month+day+hour; "" finds it,
        and counts rows where there is none.
      target: the columns to forecast; () for all numeric ones that have no other role.
      group: the column that names a row's series; "" for a single series.
      covariates: columns known up to now only.
      known: columns known ahead, such as holidays. Calendar features are added.
      layout: "long", a row a time, or "wide", a row a series: its id, then its values.
      test: a file of the same form whose rows are the test part.
      season: steps of a season, 0 for none; None guesses.
      parts: shares of train, valid, test that sum to 1, or their numbers of rows; of each series.
      horizon: steps to forecast; test and valid have at least as many.

    Raises:
      UserError: a file, column, value or length that can't be used.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}")
    if horizon < 1:
        raise UserError(f"a horizon of {horizon}: it must be at least 1")
    remarks = Remarks([], [])
    if layout == "wide":
        if time or group or covariates or known or len(target) > 1:
            raise UserError("a wide table has an id and values only: leave out the other columns")
        columns = Columns("", tuple(target) or ("value",), (), (), "")
        pieces, step = wide(path, test, remarks), calendar.Step("row", 1)
    else:
        frame = read_frame(path, filter(None, [group]))
        columns = choose(frame, time, target, group, covariates, known, remarks.notes)
        table = read_columns(frame, columns, remarks.notes)
        later = test and read_columns(
            read_frame(test, filter(None, [group])), columns, remarks.notes
        )
        pieces, step = gridded(table, later or None, remarks)
    pieces = _trimmed(pieces, len(columns.targets), remarks.notes)
    pieces, ends = _parted(pieces, parts, horizon, remarks)
    columns, pieces = _varying(columns, pieces, ends, bool(target), remarks)
    rows = int(np.median(ends[:, 0]))
    features = calendar.choose(str(step), rows) if _dated(pieces) else ()
    if season is None:
        train = [p.rows[:a, : len(columns.targets)] for p, (a, _) in zip(pieces, ends, strict=True)]
        season, why = find_season(train, str(step))
        remarks.notes.append(why)
    series = _series(columns, pieces, ends, features, str(step), season)
    for given, found in zip(remarks, leaks(series, horizon), strict=True):
        given.extend(found)
    return series, *remarks


def describe(
    series: Series, *, time: str = "", group: str = "", layout: str = "long"
) -> dict[str, Any]:
    """What `read_new` needs of the series a model was trained on, ready for JSON.

    time, group, layout: as given to `read_series`.
    """
    train = [c[:a] for c, (a, _) in zip(series.covariates, series.ends, strict=True)]
    return {
        "time": time, "group": group, "layout": layout, "target": list(series.targets),
        "covariates": list(series.past),
        "known": [name for name in series.known if name not in calendar.FEATURES],
        "calendar": [name for name in series.known if name in calendar.FEATURES],
        "step": series.step, "season": series.season,
        "means": np.concatenate(train).mean(axis=0).tolist(),
    }  # fmt: skip


def read_new(path: str | Path, *, like: Mapping[str, Any]) -> Read:
    """New rows to forecast from, with the columns that `like` describes; groups may be new.

    All rows are history: `ends` is the number of rows. Only where columns are known ahead may rows
    follow the last target: those keep their place, NaN in `values`, for the steps to forecast.

    Raises:
      UserError: as `read_series`, or another time step than the model's.
    """
    remarks = Remarks([], [])
    columns = Columns(
        like["time"], tuple(like["target"]), tuple(like["covariates"]), tuple(like["known"]),
        like["group"],
    )  # fmt: skip
    step = calendar.Step.of(like["step"])
    if like["layout"] == "wide":
        pieces = wide(path, None, remarks)
    else:
        frame = read_frame(path, filter(None, [columns.group]))
        timed = columns.time or (times.guess(frame, used(columns)) if step.unit != "row" else "")
        if step.unit != "row" and not timed:
            raise UserError(f"{path} has no column of times: the model was trained on {step} steps")
        columns = columns._replace(time=timed)
        check(frame, columns)
        table = read_columns(frame, columns, remarks.notes)
        pieces, step = gridded(table, None, remarks, step)
    ahead = bool(columns.known)
    pieces = _trimmed(pieces, len(columns.targets), remarks.notes, future=ahead)
    ends = np.array([[len(p.rows)] * 2 for p in pieces])
    features = tuple(like["calendar"])
    series = _series(columns, pieces, ends, features, str(step), like["season"], like["means"])
    return series, *remarks


# --------------------------------------------------------------------------------------- parts


def _trimmed(
    pieces: list[Piece], targets: int, notes: list[str], future: bool = False
) -> list[Piece]:
    """Pieces without the rows before the first target, and after the last one unless `future`."""
    kept, before, after = [], 0, 0
    for piece in pieces:
        there = np.flatnonzero(np.isfinite(piece.rows[:, :targets]).any(axis=1))
        if not len(there):
            notes.append(f"series {piece.name!r} has no values: left out")
            continue
        first, last = there[0], len(piece.rows) if future else there[-1] + 1
        before, after = before + first, after + len(piece.rows) - last
        kept.append(piece.cut(first, last))
    for count, where in ((before, "before the first"), (after, "after the last")):
        if count:
            notes.append(f"{count:,} rows {where} value of a target: left out")
    if not kept:
        raise UserError("the targets have no values: all are missing")
    return kept


def _bounds(piece: Piece, parts: Sequence[float]) -> tuple[int, int, int]:
    """The rows where train, valid and test of a series end."""
    rows = len(piece.rows)
    if piece.test is not None:
        valid = rows - piece.test
        if 3 * valid > piece.test:
            valid = int(piece.test * parts[1] / (parts[0] + parts[1]) + 1e-9)
        return piece.test - valid, piece.test, rows
    if abs(sum(parts) - 1) < 1e-6:
        a, b = (int(rows * share + 1e-9) for share in (parts[0], parts[0] + parts[1]))
        return a, b, rows
    a, b, c = (int(n) for n in np.cumsum(parts))
    if c > rows:
        raise UserError(f"parts of {a:,}, {b - a:,} and {c - b:,} rows: there are {rows:,} only")
    return a, b, c


def _too_short(bounds: tuple[int, int, int], horizon: int) -> str:
    """What is wrong with the lengths of a series' parts; "" for nothing."""
    train, valid, rows = bounds[0], bounds[1] - bounds[0], bounds[2]
    if rows < 2 * horizon or train < 2:
        return f"{rows:,} rows are fewer than two horizons of {horizon} and a training part need"
    for name, count in (("test", rows - bounds[1]), ("validation", valid), ("training", train)):
        if count < horizon:
            return f"the horizon of {horizon} is longer than the {name} part of {count:,} rows"
    return ""


def _parted(
    pieces: list[Piece], parts: Sequence[float], horizon: int, remarks: Remarks
) -> tuple[list[Piece], np.ndarray]:
    """Pieces long enough to be parted, without rows beyond the parts, and their ends (S, 2)."""
    shares = abs(sum(parts) - 1) < 1e-6
    if len(parts) != 3 or min(parts) <= 0 or not (shares or all(n == int(n) for n in parts)):
        raise UserError(
            f"parts {tuple(parts)}: three shares that sum to 1, such as .7, .1, .2, or three "
            "numbers of rows"
        )
    kept, ends, short, beyond = [], [], [], 0
    for piece in pieces:
        bounds = _bounds(piece, parts)
        if problem := _too_short(bounds, horizon):
            short.append((piece.name, problem))
            continue
        beyond += len(piece.rows) - bounds[2]
        kept.append(piece.cut(0, bounds[2]))
        ends.append(bounds[:2])
    if short:
        name, problem = short[0]
        if not kept:
            many = f" (series {name!r}, and no other is longer)" if len(pieces) > 1 else ""
            raise UserError(f"{problem}{many}: take a shorter horizon or more rows")
        remarks.warnings.append(
            f"{len(short)} of {len(pieces)} series are too short and left out: {name!r}, {problem}"
        )
    if beyond:
        remarks.notes.append(f"{beyond:,} rows beyond the three parts: left out")
    return kept, np.array(ends)


def _varying(
    columns: Columns, pieces: list[Piece], ends: np.ndarray, named: bool, remarks: Remarks
) -> tuple[Columns, list[Piece]]:
    """Columns and pieces without columns that are constant in every training part."""
    train = np.concatenate([p.rows[:a] for p, (a, _) in zip(pieces, ends, strict=True)])
    with np.errstate(invalid="ignore"):
        low, high = np.fmin.reduce(train), np.fmax.reduce(train)
    count = len(columns.targets)
    fixed = ~(low < high)  # all missing, too
    for i in np.flatnonzero(fixed[:count]):
        value = "missing" if np.isnan(low[i]) else f"{low[i]:g}"
        told = f"target {columns.targets[i]!r} is always {value} in the training part"
        if named or fixed[:count].all():
            raise UserError(f"{told}: there is nothing to learn")
        remarks.notes.append(f"{told}: left out")
    names = np.array([*columns.targets, *columns.past, *columns.known], object)
    for name in names[count:][fixed[count:]]:
        remarks.notes.append(f"covariate {name!r} is constant in the training part: left out")
    kept = [tuple(n for n in role if n in names[~fixed]) for role in columns[1:4]]
    columns = Columns(columns.time, *kept, columns.group)
    return columns, [p._replace(rows=p.rows[:, ~fixed]) for p in pieces]


def _dated(pieces: list[Piece]) -> bool:
    return np.issubdtype(pieces[0].times.dtype, np.datetime64)


def _series(
    columns: Columns,
    pieces: list[Piece],
    ends: np.ndarray,
    features: tuple[str, ...],
    step: str,
    season: int,
    means: Sequence[float] | None = None,
) -> Series:
    """The container; `means` fill covariates before their first value, by default of train."""
    k, c = len(columns.targets), len(columns.targets) + len(columns.past)
    if means is None:
        train = np.concatenate([p.rows[:a, k:c] for p, (a, _) in zip(pieces, ends, strict=True)])
        means = train.mean(axis=0, where=np.isfinite(train)) if train.size else np.zeros(c - k)
    ahead = [
        np.concatenate([forward(p.rows[:, c:], 0.0), calendar.features(p.times, features)], axis=1)
        for p in pieces
    ]
    return Series(
        tuple(p.name for p in pieces), columns.targets, columns.past, columns.known + features,
        [np.ascontiguousarray(p.rows[:, :k]) for p in pieces],
        [forward(p.rows[:, k:c], np.asarray(means, float)) for p in pieces],
        ahead, [p.times for p in pieces], step, season, ends,
    )  # fmt: skip
