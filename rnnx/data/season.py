"""The season of series: guessed from the time step, checked by autocorrelation."""

from collections.abc import Sequence

import numpy as np

from rnnx.data.calendar import DAY, Step

_PERIODS = (
    (60_000_000, "a minute"), (3_600_000_000, "an hour"), (DAY, "a day"), (7 * DAY, "a week"),
    (365.2425 * DAY, "a year"),
)  # fmt: skip
_LEAST = 0.1  # autocorrelation of differences at a season
_CHECKED = 100  # rows below which the guess stands
_LONGEST = 1000  # rows of a season without a time column
_SERIES = 200  # series looked at


def find_season(parts: Sequence[np.ndarray], step: str) -> tuple[int, str]:
    """Steps of a season of training parts, each (T_s, K) with NaN where missing, and why.

    The guess is the day for steps below one, the week for days, the year for longer ones. Another
    period replaces it where the autocorrelation of first differences is twice as high there; no
    season (0) is left when none reaches .1 and three standard errors. Rows without times are
    searched for the lag of the highest peak.
    """
    rows = int(np.median([len(part) for part in parts]))
    found = Step.of(step)
    if found.unit == "row":
        return _search(parts, rows)
    candidates = [(m, name) for m, name in _candidates(found) if 3 * m <= rows]
    if not candidates:
        return 0, f"no season: no period of {step} steps comes three times in the training part"
    guess = _guess(found, candidates)
    if rows < _CHECKED:
        return guess[0], f"season {guess[0]} ({guess[1]}): guessed from the step of {step}"
    r = autocorrelation(parts, max(m for m, _ in candidates))
    least = max(_LEAST, 3 / rows**0.5)
    best = max(candidates, key=lambda c: r[c[0]])
    if r[best[0]] < least:
        return 0, (
            f"no season: differences have an autocorrelation of {r[guess[0]]:.2f} at {guess[0]} "
            f"({guess[1]})"
        )
    if r[guess[0]] >= max(least, r[best[0]] / 2):
        return guess[0], f"season {guess[0]} ({guess[1]}): autocorrelation {r[guess[0]]:.2f}"
    return best[0], (
        f"season {best[0]} ({best[1]}): autocorrelation {r[best[0]]:.2f}, against "
        f"{r[guess[0]]:.2f} at {guess[0]} ({guess[1]})"
    )


def _candidates(step: Step) -> list[tuple[int, str]]:
    if step.unit == "weekday":
        return [(5, "a week")]
    size, found = step.microseconds, []
    for length, name in _PERIODS:
        m = round(length / size)
        if m >= 2 and abs(m * size - length) < 0.01 * length:
            found.append((m, name))
    return found


def _guess(step: Step, candidates: list[tuple[int, str]]) -> tuple[int, str]:
    named = {name: (m, name) for m, name in candidates}
    usual = "a day" if step.microseconds < DAY else "a week" if step.microseconds == DAY else ""
    return named.get(usual) or candidates[-1]


def _search(parts: Sequence[np.ndarray], rows: int) -> tuple[int, str]:
    longest = min(rows // 3, _LONGEST)
    if rows < _CHECKED:
        return 0, f"no season: {rows} rows are too few to find one (--season)"
    r = autocorrelation(parts, longest + 1)
    peaks = 1 + np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] >= r[2:]))
    fell = np.flatnonzero(r <= 0)
    peaks = peaks[(peaks >= max(2, fell[0] if len(fell) else longest)) & (peaks <= longest)]
    least = max(3 * _LEAST, 3 / rows**0.5)
    if not len(peaks) or r[peaks].max() < least:
        return 0, "no season: differences of rows show none (--season names one)"
    m = int(peaks[r[peaks] >= 0.9 * r[peaks].max()][0])
    return m, f"season {m}: autocorrelation {r[m]:.2f} of differences of rows"


def autocorrelation(parts: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """Of first differences at lags 0 .. longest, averaged over columns of (T_s, K) arrays.

    Pairs with a missing value are left out, and series no longer than the lag.
    """
    total, count = np.zeros(longest + 1), np.zeros(longest + 1)
    for part in parts[:: -(-len(parts) // _SERIES)]:
        for column in part.T:
            d = np.diff(column)
            there = np.isfinite(d)
            if there.sum() < 3 or not np.ptp(d[there]):
                continue
            d = np.where(there, d - d[there].mean(), 0.0)
            size = 1 << (2 * len(d) - 1).bit_length()
            lags = min(longest + 1, len(d))
            pairs = _products(there.astype(float), size)[:lags].round()
            r = _products(d, size)[:lags] / np.maximum(pairs, 1) / (d[there] ** 2).mean()
            good = pairs > len(d) / 4
            total[:lags][good] += r[good]
            count[:lags][good] += 1
    return total / np.maximum(count, 1)


def _products(x: np.ndarray, size: int) -> np.ndarray:
    """Sum over t of x_t x_(t+k), by lag k."""
    return np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2, size)
