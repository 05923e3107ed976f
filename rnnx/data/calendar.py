"""Regular times: the step between them, a grid, calendar features."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rnnx.errors import UserError

SECOND, DAY = 1_000_000, 86_400_000_000  # microseconds
FIXED = {
    "week": 7 * DAY, "day": DAY, "hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000,
    "millisecond": 1000, "microsecond": 1,
}  # fmt: skip
MONTHS = {"year": 12, "quarter": 3, "month": 1}
FEATURES = ("hour sin", "hour cos", "day sin", "day cos", "year sin", "year cos")
_REGULAR = 0.5  # share of differences that must be one step
_OFF = 0.1  # share of times that may be moved onto the grid
_YEAR = 365.2425 * DAY


class Step(NamedTuple):
    """A time step: `count` of a unit of FIXED or MONTHS, of weekdays (Monday to Friday) or rows."""

    unit: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' if self.count > 1 else ''}"

    @classmethod
    def of(cls, text: str) -> "Step":
        """From its text."""
        count, unit = text.split(" ")
        return cls(unit.removesuffix("s"), int(count))

    @property
    def microseconds(self) -> int:
        """Its length; 0 for rows, and a mean one for months, years and weekdays."""
        if self.unit in FIXED:
            return FIXED[self.unit] * self.count
        if self.unit in MONTHS:
            return int(MONTHS[self.unit] * self.count * _YEAR / 12)
        return DAY * self.count if self.unit == "weekday" else 0


# ------------------------------------------------------------------------------- a regular grid


def find_step(times: Iterable[np.ndarray]) -> Step:
    """The most common difference of the sorted times (T,) of each series, in microseconds.

    Raises UserError if no difference is common enough.
    """
    times = [np.unique(t) for t in times]
    steps = np.concatenate([np.diff(t) for t in times] or [np.zeros(0, np.int64)])
    if not len(steps):
        raise UserError("no time step: every series has one time only")
    sizes, counts = np.unique(steps, return_counts=True)
    common, share = int(sizes[counts.argmax()]), counts.max() / len(steps)
    all_times = np.concatenate(times)
    if common == DAY and len(all_times) > 10 and _weekdays(all_times):
        return Step("weekday", 1)
    if common >= 28 * DAY and (found := _months(times)):
        return found
    if share < _REGULAR:
        raise UserError(
            f"no regular time step: the most common one, {_fixed(common)}, is {share:.0%} of all; "
            "average over regular intervals first, or count rows (leave the time column out)"
        )
    return _fixed(common)


def _fixed(size: int) -> Step:
    unit = next(unit for unit, length in FIXED.items() if size % length == 0)
    return Step(unit, size // FIXED[unit])


def _weekdays(times: np.ndarray) -> bool:
    days = times // DAY
    midnight = (times % DAY == times[0] % DAY).all()
    return bool(midnight and ((days + 3) % 7 < 5).all() and np.ptp(days) > 7)


def _months(times: list[np.ndarray]) -> Step | None:
    """A step of calendar months, when every series has one fixed day, or the last, of its month."""
    for t in times:
        dates = t.astype("datetime64[us]")
        if len(np.unique(_day(dates))) > 1 and not _last_days(dates):
            return None
    steps = np.concatenate([np.diff(_month(t)) for t in times])
    sizes, counts = np.unique(steps, return_counts=True)
    if counts.max() < _REGULAR * len(steps):
        return None
    size = int(sizes[counts.argmax()])
    unit = next(unit for unit, length in MONTHS.items() if size % length == 0)
    return Step(unit, size // MONTHS[unit])


def _last_days(dates: np.ndarray) -> bool:
    """Whether every date is the last of its month."""
    return not _day(dates + np.timedelta64(DAY, "us")).any()


def _month(times: np.ndarray) -> np.ndarray:
    return times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)


def _day(dates: np.ndarray) -> np.ndarray:
    """Days since the first of the month."""
    return (dates.astype("datetime64[D]") - dates.astype("datetime64[M]")).astype(np.int64)


class Grid(NamedTuple):
    """Regular times of one series: every int is the index of a time."""

    step: Step
    anchor: int  # microseconds, months or counts that the grid goes through
    day: int = 0  # of months: days after the first, -1 for the last day
    clock: int = 0  # of days and months: microseconds after midnight

    @classmethod
    def through(cls, times: np.ndarray, step: Step) -> "Grid":
        """The grid on which most of the times (T,) lie: microseconds, or counts for rows."""
        if step.unit == "weekday":
            return cls(step, 0, clock=_most(times % DAY))
        if step.unit in MONTHS:
            dates = times.astype("datetime64[us]")
            day = -1 if _last_days(dates) else int(_day(dates).max())
            return cls(step, _most(_month(times) % cls(step, 0).size), day, _most(times % DAY))
        return cls(step, _most(times % cls(step, 0).size))

    @property
    def size(self) -> int:
        """Of a step, in the unit of the anchor."""
        unit = MONTHS.get(self.step.unit) or FIXED.get(self.step.unit, 1)
        return unit * self.step.count

    def index(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest points of the grid (T,), and whether each time lies on it (T,) bool."""
        if self.step.unit == "weekday":
            days = (times // DAY).astype("datetime64[D]")
            return np.busday_count(np.datetime64("1970-01-01"), days), np.is_busday(days)
        rest = _month(times) if self.step.unit in MONTHS else times
        index = (rest - self.anchor + self.size // 2) // self.size
        return index, index * self.size + self.anchor == rest

    def times(self, first: int, count: int) -> np.ndarray:
        """Times (count,) from index `first` on: datetime64[s], or int64 counts of rows and of
        steps that are no whole seconds."""
        index = first + np.arange(count)
        at = index * self.size + self.anchor
        if self.step.unit == "row":
            return at
        if self.step.unit in FIXED:
            seconds = at.astype("datetime64[us]").astype("datetime64[s]")
            return index if self.size % SECOND or self.anchor % SECOND else seconds
        if self.step.unit == "weekday":
            days = np.busday_offset(np.datetime64("1970-01-01"), index)
        else:
            months = at.astype("datetime64[M]")
            days = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
            if self.day >= 0:
                days = np.minimum(months.astype("datetime64[D]") + self.day, days)
        return days.astype("datetime64[s]") + np.timedelta64(self.clock // SECOND, "s")


def _most(values: np.ndarray) -> int:
    """The most common value."""
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def off_grid(off: int, total: int, step: str) -> str:
    """A note on times moved onto the grid. Raises UserError if they are too many."""
    if off > _OFF * total:
        raise UserError(
            f"{off:,} of {total:,} times do not lie on steps of {step}: average over regular "
            "intervals first, or count rows (leave the time column out)"
        )
    return f"{off:,} of {total:,} times moved to the nearest step of {step}"


# ------------------------------------------------------------------------------------- features


def choose(step: str, train: int) -> tuple[str, ...]:
    """The calendar features that a step, and the rows of the training part, give sense to."""
    length = Step.of(step).microseconds
    if not length:
        return ()
    chosen = FEATURES[:2] if length < DAY else ()
    chosen += FEATURES[2:4] if length <= DAY else ()
    return chosen + (FEATURES[4:] if length < _YEAR * 0.9 and train * length >= 2 * _YEAR else ())


def features(times: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Calendar features (T, len(names)) of times (T,) datetime64[s], each within -1 .. 1.

    sin and cos of 2 pi x, x the part of the day, of the week or of the year that has passed.
    """
    if not names:
        return np.zeros((len(times), 0))
    seconds = times.astype("datetime64[s]")
    year = seconds.astype("datetime64[Y]")
    length = ((year + 1).astype("datetime64[s]") - year.astype("datetime64[s]")).astype(float)
    passed = {
        "hour": seconds.astype(np.int64) % 86_400 / 86_400,
        "day": (seconds.astype(np.int64) // 86_400 + 3) % 7 / 7,
        "year": (seconds - year.astype("datetime64[s]")).astype(float) / length,
    }
    waves = {"sin": np.sin, "cos": np.cos}
    columns = []
    for name in names:
        what, wave = name.split(" ")
        columns.append(waves[wave](2 * np.pi * passed[what]))
    return np.stack(columns, axis=1)


def following(times: np.ndarray, step: str, count: int) -> np.ndarray:
    """The `count` times after those (T,) of a series."""
    if not np.issubdtype(times.dtype, np.datetime64):
        size = Step.of(step).count if step.endswith(("row", "rows")) else 1
        return times[-1] + size * np.arange(1, count + 1)
    given = times.astype("datetime64[us]").astype(np.int64)
    grid = Grid.through(given, Step.of(step))
    return grid.times(int(grid.index(given[-1:])[0][0]) + 1, count)
