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
_POINTS = 24  # means in a season
_USUAL = (4, 5, 7, 12, 24, 48, 52, 60, 96, 144, 168, 288, 336, 365, 672, 720)


def find_season(parts: Sequence[np.ndarray], step: str) -> tuple[int, str]:
    """Steps of a season of training parts, each (T_s, K) with NaN where missing, and why.

    The guess is the day for steps below one, the week for days, the year for longer ones. Another
    period replaces it where the autocorrelation of differences is twice as high; no season (0) is
    left when none reaches .1 and three standard errors. Rows without times are searched for the
    highest peak.
    """
    rows = int(np.median([len(part) for part in parts]))
    found = Step.of(step)
    if found.unit == "row":
        return _search(parts, rows)
    candidates = [(m, name) for m, name in _candidates(found) if 3 * m <= rows]
    if not candidates:
        return 0, f"no season: no period of steps of {step} comes three times in the training part"
    guess = _guess(found, candidates)
    m, name = guess
    if rows < _CHECKED:
        return m, f"season {m} ({name}): guessed from the step of {step}"
    lags = {c: autocorrelation(parts, c[0], _width(c[0])) for c in candidates}
    r = {c: lags[c][c[0]] for c in candidates}
    # Of a mean over so many rows there are fewer independent ones. A smooth series is like itself
    # at short lags, too: a season is less so half of it away.
    clear = {
        c: r[c] >= max(_LEAST, 3 * (_width(c[0]) / rows) ** 0.5) and r[c] > lags[c][c[0] // 2]
        for c in candidates
    }
    best = max(candidates, key=lambda c: (clear[c], r[c]))
    same = autocorrelation(parts, max(c[0] for c in candidates), _width(m))
    alike = r[guess] >= max(same[c[0]] for c in candidates) / 2
    if clear[guess] and (alike or best == guess):
        return m, f"season {m} ({name}): autocorrelation {r[guess]:.2f} of differences"
    if clear[best]:
        return best[0], (
            f"season {best[0]} ({best[1]}): autocorrelation {r[best]:.2f} of differences, against "
            f"{r[guess]:.2f} at {m} ({name})"
        )
    return 0, f"no season: differences have an autocorrelation of {r[guess]:.2f} at {m} ({name})"


def _width(season: int) -> int:
    """Rows to average over, so that noise does not hide a long season."""
    return max(1, season // _POINTS)


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
    """The lag of the highest peak after the autocorrelation has fallen below 0."""
    if rows < _CHECKED:
        return 0, f"no season: {rows} rows are too few to find one (--season)"
    longest, best, least = min(rows // 3, _LONGEST), (0.0, 0), 3 * _LEAST
    for width in (1, 4, 16):
        if _POINTS // 2 * width > longest:
            break
        r = autocorrelation(parts, longest + 1, width)
        peaks = 1 + np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] >= r[2:]))
        fell = np.flatnonzero(r <= 0)
        first = max(2, _POINTS // 2 * width if width > 1 else 0, fell[0] if len(fell) else longest)
        peaks = peaks[(peaks >= first) & (peaks <= longest)]
        if not len(peaks) or r[peaks].max() < max(least, 3 * (width / rows) ** 0.5):
            continue
        first = peaks[r[peaks] >= 0.9 * r[peaks].max()][0]  # not a multiple of the season
        near = peaks[(peaks >= first) & (peaks < 1.5 * first)]
        m = int(near[r[near].argmax()])
        if m > 0.95 * longest:  # still rising: the peak may lie beyond
            continue
        near = [u for u in _USUAL if abs(u - m) <= 0.02 * m and u <= longest]
        m = min(near, key=lambda u: abs(u - m)) if near else m
        if r[m] > 1.5 * best[0]:
            best = (float(r[m]), m)
    if not best[1]:
        return 0, "no season: differences of rows show none (--season names one)"
    return best[1], f"season {best[1]}: autocorrelation {best[0]:.2f} of differences of rows"


def autocorrelation(parts: Sequence[np.ndarray], longest: int, width: int = 1) -> np.ndarray:
    """Of differences at lags 0 .. longest, averaged over columns of (T_s, K) arrays.

    A difference is that of the mean of `width` rows to the mean of those before. Pairs with a
    missing value are left out, and series that are not longer than the lag.
    """
    total, count = np.zeros(longest + 1), np.zeros(longest + 1)
    for part in parts[:: -(-len(parts) // _SERIES)]:
        for column in part.T:
            d = _differences(column, width)
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


def _differences(column: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` rows less the means of those before; NaN where most rows are missing."""
    if width == 1 or len(column) <= 2 * width:
        return np.diff(column)
    there = np.isfinite(column)
    total, n = (
        np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(there, column, 0.0), there)
    )
    total, n = total[width:] - total[:-width], n[width:] - n[:-width]
    means = np.where(2 * n > width, total / np.maximum(n, 1), np.nan)
    return means[width:] - means[:-width]


def _products(x: np.ndarray, size: int) -> np.ndarray:
    """Sum over t of x_t x_(t+k), by lag k."""
    return np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2, size)
