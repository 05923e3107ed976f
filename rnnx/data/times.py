"""Times of a table's columns: found, and read into microseconds since 1970."""

import warnings
from collections.abc import Sequence
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from rnnx.data.calendar import FIXED
from rnnx.data.frame import stripped
from rnnx.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_DATES = (
    "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%Y", "%d.%m.%y", "%m-%d-%Y", "%d-%m-%Y",
    "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y",
    "%B %d, %Y", "%b %d %Y", "%b-%Y", "%b %Y", "%B %Y", "%m/%Y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S")
_ORDER = {"%m": "month first", "%d": "day first"}


def parse(column: "pd.Series", notes: list[str]) -> np.ndarray:
    """Times of a column as (N,) int64 microseconds since 1970; times with a zone become UTC.

    Raises UserError naming the first value that is no time, and its row.
    """
    import pandas as pd

    kinds, name = pd.api.types, column.name
    if kinds.is_datetime64_any_dtype(column):
        got = column
        if column.dt.tz is not None:
            notes.append(f"times of {name!r} are of {column.dt.tz}: taken as UTC")
            got = column.dt.tz_convert("UTC").dt.tz_localize(None)
    else:
        text = stripped(column)
        zoned = text.str.contains(r":\d\d(?:\.\d+)?\s*(?:Z|[+-]\d\d:?\d\d)$", regex=True).any()
        got = _best(text, bool(zoned), name, notes)
        if zoned:
            notes.append(f"times of {name!r} have a time zone: taken as UTC")
    wrong = got.isna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        shown = "" if pd.isna(column.iloc[row]) else str(column.iloc[row])[:40]
        more = f" and {wrong.sum() - 1:,} more" if wrong.sum() > 1 else ""
        raise UserError(
            f"time column {name!r}: {shown!r} in row {row + 1:,}{more} is not a time: write "
            "2024-01-31 15:00, or leave the row out"
        )
    return got.to_numpy("datetime64[us]").astype(np.int64)


def _best(text: "pd.Series", zoned: bool, name: str, notes: list[str]) -> "pd.Series":
    """The reading that fits most values; of two that fit all, the more regular one."""
    import pandas as pd

    def read(form: str) -> "pd.Series":
        got = pd.to_datetime(text, format=form, errors="coerce", utc=zoned)
        return got.dt.tz_localize(None) if zoned else got

    best = read("ISO8601")
    if best.notna().all():
        return best
    given = text[text != ""]
    first = given.iloc[0] if len(given) else ""
    found = []
    for form in map("".join, product(_DATES, _CLOCKS)):
        try:
            datetime.strptime(first, form)
        except ValueError:
            continue
        found.append((form, read(form)))
    chosen = ""
    for form, got in found:
        fits, most = got.notna().sum(), best.notna().sum()
        if fits > most or (fits == most and chosen and _steady(got) > _steady(best)):
            chosen, best = form, got
    if chosen[:2] in _ORDER and "%m" in chosen and "%d" in chosen:
        notes.append(f"times such as {first!r} are read {_ORDER[chosen[:2]]}")
    return best


def _steady(got: "pd.Series") -> float:
    """The share of the most common difference of times as they come."""
    steps = got.diff().dropna()
    return float(steps.value_counts(normalize=True).iloc[0]) if len(steps) else 0.0


def is_time(column: "pd.Series") -> bool:
    """Whether a column of text, or of times, holds times: judged by its first values."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column):
        return False
    some = column.dropna()[:50]
    text = stripped(some)
    shaped = text.str.contains(r"\d\d|\d[-/.]\d", regex=True) & ~text.str.fullmatch(r"[\d.,+-]*")
    dated = text.str.fullmatch(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?")
    if not len(some) or not (shaped | dated).all():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parse(some, [])
        except UserError:
            return False
    return True


def counted(column: "pd.Series", values: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """Times of a named column of whole numbers as microseconds: years, 20240131 or seconds since
    1970 (milli-, micro-, nanoseconds); None when the numbers are counts.
    """
    import pandas as pd

    low, high = values.min(), values.max()
    name = column.name
    if low >= 1500 and high <= 2500:
        notes.append(f"numbers of {name!r} are read as years")
        return (values - 1970).astype("datetime64[Y]").astype("datetime64[us]").astype(np.int64)
    if low >= 15000101 and high <= 25001231:
        got = pd.to_datetime(pd.Series(values).astype("str"), format="%Y%m%d", errors="coerce")
        if got.notna().all():
            notes.append(f"numbers of {name!r} are read as dates such as 20240131")
            return got.to_numpy("datetime64[us]").astype(np.int64)
    for unit, size in (("seconds", 1), ("milliseconds", 1e3), ("microseconds", 1e6),
                       ("nanoseconds", 1e9)):  # fmt: skip
        if 1e8 * size <= low and high < 1e10 * size:  # 1973 to 2286
            notes.append(f"numbers of {name!r} are read as {unit} since 1970")
            return values // int(size / 1e6) if size > 1e6 else values * int(1e6 / size)
    return None


def joined(frame: "pd.DataFrame", names: Sequence[str], notes: list[str]) -> np.ndarray:
    """Times (N,) in microseconds of several columns: a date and an hour (0 .. 23) or a time of
    day, or year, month, day and hour.

    Raises UserError if they are no such columns.
    """
    import pandas as pd

    parts = ("year", "month", "day", "hour", "minute", "second")
    lowered = [name.lower() for name in names]
    if lowered[0] == "year" and set(lowered) <= set(parts):
        columns = frame[list(names)].set_axis(lowered, axis=1)
        for name in ("month", "day"):
            if name not in columns:
                columns[name] = 1
        got = pd.Series(pd.to_datetime(columns, errors="coerce"), name="+".join(names))
        return parse(got, notes)
    if len(names) != 2:
        raise UserError(
            f"--time={'+'.join(names)}: join a date and an hour, or year, month, day and hour"
        )
    date, clock = (frame[name] for name in names)
    if not pd.api.types.is_numeric_dtype(clock):
        both = stripped(date) + " " + stripped(clock)
        return parse(both.rename("+".join(names)), notes)
    hours = clock.to_numpy(np.float64, na_value=np.nan)
    inside = (hours >= 0) & (hours <= 24)
    if not inside.all():
        row = int(np.argmin(inside))
        raise UserError(
            f"time column {names[1]!r}: {clock.iloc[row]} in row {row + 1:,} is not an hour"
        )
    return parse(date, notes) + (hours * FIXED["hour"]).astype(np.int64)


def guess(frame: "pd.DataFrame", exclude: Sequence[str]) -> str:
    """The name of the time column, "a+b" for several, "" if none is found."""
    lowered = {name.lower(): name for name in frame.columns if name not in exclude}
    if {"year", "month"} <= lowered.keys():
        parts = [lowered[p] for p in ("year", "month", "day", "hour") if p in lowered]
        return "+".join(parts)
    columns = [name for name in frame.columns if name not in exclude]
    found = next((name for name in columns if is_time(frame[name])), "")
    if found and frame[found].duplicated().any():
        for name in ("hr", "hour", "time"):
            other = lowered.get(name)
            if other in (None, found):
                continue
            clock = stripped(frame[other].dropna()[:50])
            if clock.str.fullmatch(r"\d{1,2}(\.0|:\d\d(:\d\d)?)?").all():
                return f"{found}+{other}"
    return found
