"""Models that know little: what a network must beat to be worth its cost.

Forecasts take a series (T, K), which may hold NaN, and `origins` (N,), the rows known last; they
give (N, H, K). Only rows up to an origin enter its forecast.
"""

from typing import NamedTuple

import numpy as np

from rnnx.errors import UserError

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of the ridge, per 1,000 windows
_MOST_VALUES = 10_000_000  # lags and targets in the windows that a ridge is fitted on
_AT_ONCE = 4_000_000  # numbers in a chunk
_MOST_SYMBOLS = 5_000_000  # of training text that an n-gram counts


def last_value(series: np.ndarray, origins: np.ndarray, horizon: int) -> np.ndarray:
    """y[t] for every step ahead; the last one there is where y[t] is missing, NaN without any."""
    return np.repeat(_filled(series)[origins][:, None], horizon, axis=1)


def seasonal(series: np.ndarray, origins: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """The same time of the last season known.

        f[t + h] = y[t + h - S ceil(h / S)]

    Where that is missing, the season before it, and so on; where there is none, the last value.
    """
    earlier = series.copy()
    for start in range(season, len(series), season):
        now, before = earlier[start : start + season], earlier[start - season : start]
        earlier[start : start + season] = np.where(np.isnan(now), before[: len(now)], now)
    steps = np.arange(1, horizon + 1)
    rows = origins[:, None] + steps - season * -(-steps // season)
    found = np.where(rows[..., None] >= 0, earlier[np.maximum(rows, 0)], np.nan)
    return np.where(np.isnan(found), last_value(series, origins, horizon), found)


class RidgeLags(NamedTuple):
    """Ridge regression of each of the next H values on the last L of the same column.

        f[t + h] = m + s (W[h] (z[t-L+1..t] - z[t]) + b[h] + z[t]),   z = (y - m) / s

    m and s are the mean and standard deviation of a series' training part. All series share W and
    b of a column, and lags are taken relative to the last value, as levels drift.
    """

    lags: int
    strengths: tuple[float, ...]  # chosen on the valid part, one a column
    weights: np.ndarray  # (K, L, H)
    biases: np.ndarray  # (K, H)
    scales: list[np.ndarray]  # per series (2, K): m, s

    def predict(self, series: np.ndarray, origins: np.ndarray, number: int = 0) -> np.ndarray:
        """Forecasts (N, H, K) of the series that was number `number` in the fit."""
        mean, deviation = self.scales[number]
        scaled = _scaled(series, self.scales[number])
        out = np.empty((len(origins), self.biases.shape[1], series.shape[1]))
        for k in range(series.shape[1]):
            for chunk in _chunks(len(origins), self.lags):
                x, level = _lagged(scaled[:, k], origins[chunk], self.lags)
                out[chunk, :, k] = x @ self.weights[k] + self.biases[k] + level[:, None]
        return out * deviation + mean


def ridge_lags(
    values: list[np.ndarray], ends: np.ndarray, horizon: int, season: int = 0, lags: int = 0
) -> RidgeLags:
    """Fits `RidgeLags` on the training rows of all series; its strength is chosen on valid rows.

    Windows with a missing target are left out; where that leaves less than a tenth of them,
    values are filled forward instead, as they always are among the lags. Of large data only so
    many origins, evenly spaced, are fitted on that lags and targets hold 10 million numbers.

    Args:
      values: S series (T_s, K).
      ends: (S, 2): rows of train, rows of train and valid.
      lags: L; 0: the larger of a season and 24, at most what leaves the longest series as many
        windows as a window has lags.

    Raises:
      UserError: when no series has more than H training rows.
    """
    room = int(max(ends[:, 0])) - horizon
    if room < 1:
        raise UserError(f"a horizon of {horizon} needs a series of more training rows than that")
    lags = min(lags or max(season, 24), (room + 1) // 2)
    columns = values[0].shape[1]
    scales = [_scale(y[:end]) for y, end in zip(values, ends[:, 0], strict=True)]
    fits = []
    for k in range(columns):
        parts = [(_scaled(y, s)[:, k], y[:, k]) for y, s in zip(values, scales, strict=True)]
        train = _windows(parts, [(lags - 1, end) for end in ends[:, 0]], lags, horizon)
        valid = _windows(parts, [(a - 1, b) for a, b in ends], lags, horizon)
        fits.append(_best_ridge(train, valid))
    strengths, weights, biases = zip(*fits, strict=True)
    return RidgeLags(lags, strengths, np.stack(weights), np.stack(biases), scales)


def _best_ridge(train: tuple, valid: tuple) -> tuple[float, np.ndarray, np.ndarray]:
    """The strength with the lowest squared error on valid (1 without one), weights and biases."""
    from sklearn.linear_model import Ridge  # takes a second

    strengths, best = STRENGTHS if len(valid[0]) else (1.0,), None
    for strength in strengths:
        ridge = Ridge(strength * len(train[0]) / 1000).fit(*train)
        error = np.mean((ridge.predict(valid[0]) - valid[1]) ** 2) if len(valid[0]) else 0.0
        if best is None or error < best[0]:
            best = error, strength, ridge
    return best[1], np.atleast_2d(best[2].coef_).T, np.atleast_1d(best[2].intercept_)


def _windows(
    parts: list[tuple], bounds: list[tuple[int, int]], lags: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lags (N, L) and targets (N, H) from all origins >= a bound whose targets end before another.

    Args:
      parts: per series, scaled values without NaN (T,), and the values themselves (T,).
      bounds: per series, the first origin and the row after the last target.
    """
    counts = [max(0, end - horizon - first) for first, end in bounds]
    every = max(1, -(-sum(counts) * (lags + horizon) // _MOST_VALUES))
    steps, inputs, targets, known = np.arange(1, horizon + 1), [], [], []
    for (scaled, raw), (first, end) in zip(parts, bounds, strict=True):
        origins = np.arange(first, end - horizon, every)
        if len(origins):
            x, level = _lagged(scaled, origins, lags)
            rows = origins[:, None] + steps
            inputs.append(x)
            targets.append(scaled[rows] - level[:, None])
            known.append(np.isfinite(raw[rows]).all(axis=1))
    if not inputs:
        return np.zeros((0, lags)), np.zeros((0, horizon))
    x, y, keep = (np.concatenate(each) for each in (inputs, targets, known))
    return (x[keep], y[keep]) if keep.sum() * 10 >= len(keep) else (x, y)


def _lagged(scaled: np.ndarray, origins: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """The last L values less the last one (N, L), and that one (N,); before row 0 it is row 0."""
    rows = np.maximum(origins[:, None] + np.arange(1 - lags, 1), 0)
    level = scaled[origins]
    return scaled[rows] - level[:, None], level


def _scale(train: np.ndarray) -> np.ndarray:
    """Mean and standard deviation (2, K) of what is there; 0 and 1 where nothing is or differs."""
    known = np.isfinite(train)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, train, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, train - mean, 0.0) ** 2).sum(axis=0) / count)
    return np.stack([mean, np.where(deviation > 1e-9 * (1 + np.abs(mean)), deviation, 1.0)])


def _scaled(series: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Filled forward and scaled; 0, the mean, before the first value."""
    return np.nan_to_num((_filled(series) - scale[0]) / scale[1])


def _filled(series: np.ndarray) -> np.ndarray:
    """Each NaN replaced by the last value before it in its column; NaN before the first."""
    rows = np.where(np.isnan(series), -1, np.arange(len(series))[:, None])
    rows = np.maximum.accumulate(rows, axis=0)
    return np.where(rows >= 0, np.take_along_axis(series, np.maximum(rows, 0), axis=0), np.nan)


def _chunks(rows: int, width: int) -> list[slice]:
    step = max(1, _AT_ONCE // max(width, 1))
    return [slice(i, i + step) for i in range(0, rows, step)]


def majority(train_labels: np.ndarray, n: int, classes: int = 0) -> np.ndarray:
    """Each class's share of the training labels, for each of n sequences: (n, C).

    The class with the largest share comes first in argmax. C is `classes` or the largest label + 1.
    """
    counts = np.bincount(train_labels, minlength=classes)
    return np.tile(counts / counts.sum(), (n, 1))


def nearest(
    train_inputs: list[np.ndarray], train_labels: np.ndarray, test_inputs: list[np.ndarray]
) -> np.ndarray:
    """The label of the nearest training sequence, for each test sequence (n,).

    Euclidean distance, over steps and columns, of values standardised by the training part's
    means and standard deviations. Sequences (T_i, F) of unequal lengths are first resampled, by
    linear interpolation, to the median length of the training part. The first of equal
    distances wins.
    """
    lengths = [len(x) for x in train_inputs]
    length = int(np.median(lengths))
    mean, deviation = _scale(np.concatenate(train_inputs).astype(np.float64))

    def flat(inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack([_resampled((x - mean) / deviation, length).ravel() for x in inputs])

    train = flat(train_inputs)
    squares, found = (train**2).sum(axis=1), []
    for chunk in _chunks(len(test_inputs), max(len(train), train.shape[1])):
        # |a - b|^2 = a^2 - 2 a b + b^2, and a^2 doesn't change the order
        distances = squares - 2 * flat(test_inputs[chunk]) @ train.T
        found.append(train_labels[distances.argmin(axis=1)])
    return np.concatenate(found)


def _resampled(values: np.ndarray, length: int) -> np.ndarray:
    """(T, F) to (length, F), first and last step kept, linear between."""
    if len(values) == length:
        return values
    at = np.linspace(0, len(values) - 1, length)
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], axis=1)


def mean_of(
    train_labels: np.ndarray, n: int, train_steps: list[np.ndarray] | None = None
) -> np.ndarray:
    """The mean number (n,): of the training labels, or of all steps' targets where there are any.

    C-MAPSS FD001, targets capped at 125: RMSE 41.9.
    """
    return np.full(n, np.mean(train_labels if train_steps is None else np.concatenate(train_steps)))


def linear_last(
    train_inputs: list[np.ndarray],
    train_labels: np.ndarray,
    test_inputs: list[np.ndarray],
    train_steps: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Least squares on the values of one step, forecast (n,) from a sequence's last step.

    It is fitted on every step with its own target where `train_steps` gives them, else on the
    last step of each sequence. Of several solutions the one of least norm on standardised values.

    C-MAPSS FD001 (three settings and 21 sensors, targets capped at 125): RMSE 20.8, score 1,259.
    """
    if train_steps is None:
        x, y = np.stack([x[-1] for x in train_inputs]), train_labels
    else:
        x, y = np.concatenate(train_inputs), np.concatenate(train_steps)
    x = x.astype(np.float64)
    mean, deviation = _scale(x)
    ones = np.ones((len(x), 1))
    weights = np.linalg.lstsq(np.hstack([(x - mean) / deviation, ones]), y, rcond=None)[0]
    test = (np.stack([x[-1] for x in test_inputs]) - mean) / deviation
    return test @ weights[:-1] + weights[-1]


def ngram(
    train_ids: np.ndarray, test_ids: np.ndarray, vocab_size: int, order: int = 5
) -> np.ndarray:
    """Nats of each symbol after the first (N - 1,) by interpolated modified Kneser-Ney.

        p_k(w | h) = (n(h w) - D(n)) / n(h) + g(h) p_{k-1}(w | h less its first symbol)

    n counts k-grams at k = `order`, and the distinct symbols before them below that; D has three
    values, for n = 1, 2 and more, from the counts of counts; g(h) is what they took from the
    words seen after h, over n(h). p_0 is uniform. At the start of the text contexts are shorter.

    5 suits words, 7 characters. Grams are numbered by sorting: 5 million symbols at order 7 take
    5 s and 0.8 GB. Of a longer training text only the last 5 million symbols are counted.

    Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling"
    (1999), section 4.1.6.
    """
    train, test = train_ids[-_MOST_SYMBOLS:].astype(np.int64), test_ids.astype(np.int64)
    p = np.full(len(test), 1.0 / vocab_size)
    asked = np.zeros(len(test), np.int64)  # number of the context of each test symbol, -1: unseen
    above, contexts = _grams(np.zeros(len(train), np.int64), train, vocab_size), 1
    for k in range(1, order + 1):
        keys, at, _, counts = level = above
        if k < min(order, len(train)):
            above = _grams(at[:-1], train[k:], vocab_size)
            counts = np.bincount(at[1:][above.first], minlength=len(keys))
        taken = _discounts(counts)[np.minimum(counts, 3)]
        of = keys // vocab_size
        total = np.bincount(of, counts, minlength=contexts)
        free = np.bincount(of, taken, minlength=contexts)

        wanted = np.where(asked < 0, -1, asked * vocab_size + test)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = keys[found] == wanted
        own = np.where(hit, (counts - taken)[found], 0.0) + free[asked] * p
        usable = (asked >= 0) & (total[asked] > 0)
        p[usable] = own[usable] / total[asked][usable]
        if above is level:
            break
        asked, contexts = np.append(-1, np.where(hit, found, -1)[:-1]), len(keys)
    return -np.log(p[1:])


class _Grams(NamedTuple):
    keys: np.ndarray  # (G,) the distinct grams, sorted: number of the context * V + symbol
    numbers: np.ndarray  # (N,) of the gram at each place, in `keys`
    first: np.ndarray  # (G,) where each is first
    counts: np.ndarray  # (G,)


def _grams(contexts: np.ndarray, symbols: np.ndarray, vocab_size: int) -> _Grams:
    keys, first, numbers, counts = np.unique(
        contexts * vocab_size + symbols, return_index=True, return_inverse=True, return_counts=True
    )
    return _Grams(keys, numbers, first, counts)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D for n = 0, 1, 2, 3 and more; half where there are too few counts to estimate it."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if (n[1:5] == 0).any():
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n[1] / (n[1] + 2 * n[2])
    d = np.array([k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)])
    return np.append(0.0, np.clip(d, 0.05, (1, 2, 3)))  # above 0: unseen symbols need a share
