"""Leaks: covariates that tell the future, test rows that training has seen."""

from collections import Counter

import numpy as np

from rnnx.data.calendar import FEATURES
from rnnx.data.frame import Remarks
from rnnx.data.series import Series

_SAME = 0.999  # correlation of differences
_ROWS = 20_000  # of a series, the last of the training part
_SERIES = 50  # series looked at
_SHIFTS = 24  # least number of shifts looked at
_BLOCK = 24  # rows in a row that are equal by no chance
_STILL = 0.3  # share of differences that are 0, from which they are taken as they are
_SEEN = 0.05  # share of test blocks


def leaks(series: Series, horizon: int = 1) -> tuple[list[str], list[str]]:
    """Notes and warnings about covariates that equal a target, and about repeated rows.

    A covariate at t whose differences correlate above .999 with those of a target at t + s,
    0 < s <= max(horizon, 24), tells the future, unless the target's own past correlates as much.
    At s = 0 a covariate known up to now is only noted; one known ahead also tells the future.
    """
    remarks = Remarks([], [])
    shifts = max(horizon, _SHIFTS)
    for role, names, columns in (
        ("covariate", series.past, series.covariates),
        ("known column", series.known, series.ahead),
    ):
        ahead = role == "known column"
        for c, name in enumerate(names):
            if name in FEATURES:
                continue
            for k, target in enumerate(series.targets):
                r = _correlations(series, [x[:, c] for x in columns], k, shifts)
                _judge(r, f"{role} {name!r}", repr(target), ahead, horizon, remarks)
    _repeated(series, horizon, remarks.warnings)
    return remarks


def _judge(r: np.ndarray, name: str, target: str, ahead: bool, horizon: int, to: Remarks) -> None:
    """Says what correlations at shifts -S .. S mean."""
    middle = len(r) // 2
    # Known ahead up to the horizon, a column with the target of s steps ago tells as well.
    past = middle - (horizon if ahead else 0) + 1
    best = past + int(np.argmax(r[past:])) if past < len(r) else middle
    if r[best] > _SAME and r[best] > r[: max(past, 0)].max(initial=0) + 1e-9:
        s = best - middle
        told = f"at {s:+d} steps" if s else "at the same step"
        if not ahead and s == 0:
            return
        to.warnings.append(
            f"{name} tells the future: it follows {target} {told} (correlation "
            f"{r[best]:.4f}): a leak unless it is really known then"
        )
    elif not ahead and r[middle] > _SAME:
        to.notes.append(f"{name} repeats {target} of the same step: it adds nothing")


def _correlations(series: Series, column: list[np.ndarray], k: int, shifts: int) -> np.ndarray:
    """|correlation| of a column's differences at t with target k's at t + s, s = -S .. S."""
    sums = np.zeros((2 * shifts + 1, 3))
    for i in range(0, len(series.names), -(-len(series.names) // _SERIES)):
        end = int(series.ends[i, 0])
        rows = slice(max(0, end - _ROWS), end)
        known = np.isfinite(series.values[i][rows]).any(axis=1)
        x, good = _changes(column[i][rows], known)
        y = np.diff(series.values[i][rows, k])
        there = np.isfinite(y)
        if min(good.sum(), there.sum()) < 4 * _SHIFTS or not (np.ptp(x[good]) and np.ptp(y[there])):
            continue
        x = np.where(good, x - x[good].mean(), 0.0) / x[good].std()
        y = np.where(there, y - y[there].mean(), 0.0) / y[there].std()
        sums[:, 0] += _products(x, y, shifts)
        sums[:, 1] += _products(x * x, there.astype(float), shifts)
        sums[:, 2] += _products(good.astype(float), y * y, shifts)
    return np.abs(sums[:, 0]) / np.sqrt(np.maximum(sums[:, 1] * sums[:, 2], 1e-300))


def _changes(column: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First differences (T - 1,), and which are of values that were there, not filled in.

    known: (T,) whether a row has a target; one without may be a row that was inserted.
    """
    x = np.diff(column)
    good = known[1:] & known[:-1]
    good[:1] = False  # a first value that was missing is the mean
    same = x == 0
    if same.mean() < _STILL:  # a value that stays the same was probably missing
        good &= ~same & ~np.concatenate([[False], same[:-1]])
    return x, good


def _products(a: np.ndarray, b: np.ndarray, shifts: int) -> np.ndarray:
    """Sum over t of a_t b_(t+s), for s = -shifts .. shifts."""
    size = 1 << (len(a) + shifts).bit_length()
    found = np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
    return np.concatenate([found[-shifts:], found[: shifts + 1]])


def _repeated(series: Series, horizon: int, warnings: list[str]) -> None:
    """Warns of series that are equal, and of stretches of the test part that train holds."""
    seen = Counter(values.tobytes() for values in series.values)
    if (twice := len(series.values) - len(seen)) > 0:
        warnings.append(f"{twice:,} of {len(series.values):,} series are copies of another one")
    length = max(_BLOCK, horizon)
    blocks = found = 0
    for values, (train, valid) in zip(series.values, series.ends, strict=True):
        if train < length or len(values) - valid < length:
            continue
        hashes, varied = _hashes(values, length)
        test = np.arange(valid, len(values) - length + 1, length)
        test = test[varied[test]]
        blocks += len(test)
        found += int(np.isin(hashes[test], hashes[: train - length + 1]).sum())
    if blocks and found > _SEEN * blocks:
        warnings.append(
            f"{found:,} of {blocks:,} stretches of {length} rows of the test part are also in the "
            "training part: rows may have been copied"
        )


def _hashes(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A number (T - length + 1,) for the rows from t on, and whether they hold enough values.

    h_t = sum over i < length of v_(t+i) p^i mod 2^64, from cumulative sums of v_j p^j.
    """
    mixed = np.random.default_rng(0).integers(1 << 63, size=values.shape[1], dtype=np.uint64) | 1
    bits = np.ascontiguousarray(np.where(np.isnan(values), np.nan, values + 0.0)).view(np.uint64)
    bits ^= bits >> np.uint64(32)  # the low bits of short numbers are all 0
    v = (bits * mixed).sum(axis=1, dtype=np.uint64)
    p = 0x9E3779B97F4A7C15
    powers = np.cumprod(np.full(len(v), p, np.uint64))
    inverse = np.cumprod(np.full(len(v), pow(p, -1, 1 << 64), np.uint64))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(v * powers, dtype=np.uint64)])
    hashes = (sums[length:] - sums[:-length]) * inverse[: len(sums) - length]
    change = np.concatenate([[0], np.cumsum(v[1:] != v[:-1]), [0]])[: len(v)]
    varied = change[length - 1 :] - change[: len(v) - length + 1] >= length // 2
    return hashes, varied
