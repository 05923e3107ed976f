"""How good forecasts, classes, numbers and texts are: measures by their usual names.

Targets may hold NaN: what is missing is left out of every mean. A mean over nothing is NaN, and
so is one with a forecast that is NaN. Forecasts and targets have the same shape, with
columns last where there are several.
"""

import math

import numpy as np

EPSILON = 1e-7  # probabilities below it count as this much: what float32 can tell from 0 and 1


def mse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """mean (y - f)^2, in squared units of the data."""
    return _mean((truth - predicted) ** 2, truth)


def rmse(truth: np.ndarray, predicted: np.ndarray) -> float:
    """sqrt(mean (y - f)^2), in units of the data."""
    return math.sqrt(mse(truth, predicted))


def mae(truth: np.ndarray, predicted: np.ndarray) -> float:
    """mean |y - f|, in units of the data."""
    return _mean(np.abs(truth - predicted), truth)


def mase_scale(train: np.ndarray, season: int = 0) -> np.ndarray:
    """What MASE divides by: the error of the seasonal naive forecast within the training part.

        scale = mean over t of |y_t - y_{t-S}|, S = season, or 1 without one

    S = 1 is also used where the training part is no longer than a season.

    Args:
      train: a series' training part (T,) or (T, K); pairs with a NaN are left out.

    Returns:
      () or (K,); NaN where there is no pair, 0 where the series repeats exactly.

    Source: Hyndman and Koehler, "Another look at measures of forecast accuracy" (2006).
    """
    lag = season if 0 < season < len(train) else 1
    gaps = np.abs(train[lag:] - train[:-lag])
    found = np.isfinite(gaps)
    total, count = np.where(found, gaps, 0.0).sum(axis=0), found.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mase(truth: np.ndarray, predicted: np.ndarray, scale: np.ndarray | float) -> float:
    """mean |y - f| / scale, without unit; 1 is the seasonal naive forecast within training.

    Args:
      scale: of `mase_scale`, for one series: () or (K,). Columns of scale 0 or NaN are left out.
    """
    scale = np.where(np.asarray(scale) > 0, scale, np.nan)
    return _mean(np.abs(truth - predicted) / scale, truth + scale)


def smape(truth: np.ndarray, predicted: np.ndarray) -> float:
    """mean 200 |y - f| / (|y| + |f|), in percent, from 0 to 200. 0 where both are 0.

    Source: Makridakis et al., "The M4 competition" (2020).
    """
    size = np.abs(truth) + np.abs(predicted)
    return _mean(200 * np.abs(truth - predicted) / np.where(size == 0, 1.0, size), truth)


def pinball(truth: np.ndarray, predicted: np.ndarray, levels: np.ndarray) -> float:
    """mean max(q (y - f_q), (q - 1)(y - f_q)), in units of the data: half the MAE for q = 1/2.

    Args:
      truth: (...).
      predicted: quantiles (..., Q).
      levels: (Q,) q in (0, 1).

    Source: Koenker and Bassett, "Regression quantiles" (1978).
    """
    error = truth[..., None] - predicted
    return _mean(np.maximum(levels * error, (levels - 1) * error), truth[..., None])


def coverage(truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The share of targets with low <= y <= high, 0 to 1."""
    return _mean((low <= truth) & (truth <= high), truth)


def mean_width(low: np.ndarray, high: np.ndarray) -> float:
    """mean (high - low), in units of the data."""
    return _mean(high - low)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of sequences (N,) whose class is right, 0 to 1."""
    return _mean(labels == predicted)


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean over classes of F1 = 2 tp / (2 tp + fp + fn), 0 to 1.

    Classes in neither the labels (N,) nor the predictions (N,) are left out; a class in only one
    of them has F1 = 0. scikit-learn does the same when it isn't told the classes.
    """
    size = int(max(labels.max(), predicted.max())) + 1
    hits = np.bincount(labels[labels == predicted], minlength=size)
    both = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    return _mean(2 * hits[both > 0] / both[both > 0])


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """mean -ln p(label), in nats a sequence.

    Probabilities (N, C) are clipped to [1e-7, 1], so that one certain mistake costs at most 16.1
    nats; they are not normalised again.
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    return _mean(-np.log(np.clip(chosen, EPSILON, 1.0)))


def cmapss_score(truth: np.ndarray, predicted: np.ndarray) -> float:
    """A sum over engines; forecasting too long a life costs more than too short a one.

        d = predicted - true, in cycles;  sum of exp(-d / 13) - 1 for d < 0, exp(d / 10) - 1 else

    Source: Saxena et al., "Damage propagation modeling for aircraft engine run-to-failure
    simulation" (2008).
    """
    d = (predicted - truth)[np.isfinite(truth)]
    return float(np.expm1(np.where(d < 0, -d / 13, d / 10)).sum())


def perplexity(nll: float) -> float:
    """exp of a mean in nats; inf where that overflows."""
    return math.exp(nll) if nll < 700 else math.inf


def bits(nll: float) -> float:
    """A mean in nats, in bits."""
    return nll / math.log(2)


def _mean(values: np.ndarray, truth: np.ndarray | float = 0.0) -> float:
    """The mean of the values whose target is there."""
    values = np.asarray(values, np.float64)
    values = values[np.broadcast_to(~np.isnan(truth), values.shape)]
    return float(values.mean()) if values.size else math.nan
