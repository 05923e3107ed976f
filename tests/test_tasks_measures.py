"""Measures against their definitions, scikit-learn, and published numbers on real data."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from rnnx.tasks import measures

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
DATA = next(
    (
        Path(folder)
        for folder in (os.environ.get("RNNX_DATA"), SHARED)
        if folder and (Path(folder) / "m4").is_dir()
    ),
    None,
)
TRUTH = np.array([[1.0, 10.0], [3.0, np.nan], [0.0, 20.0]])
FORECAST = np.array([[2.0, 8.0], [3.0, 5.0], [0.0, 30.0]])


def test_errors_in_units_of_the_data_skip_missing_targets():
    assert measures.mae(TRUTH, FORECAST) == pytest.approx(13 / 5)
    assert measures.mse(TRUTH, FORECAST) == pytest.approx(105 / 5)
    assert measures.rmse(TRUTH, FORECAST) == pytest.approx(math.sqrt(21))
    assert math.isnan(measures.mae(np.full(3, np.nan), np.zeros(3)))


def test_a_forecast_that_is_nan_shows():
    for measure in (measures.mae, measures.rmse, measures.smape, measures.cmapss_score):
        assert math.isnan(measure(np.array([1.0, 2.0]), np.array([1.0, np.nan])))
    assert math.isnan(measures.mase(np.array([1.0, 2.0]), np.array([1.0, np.nan]), 1.0))


def test_smape_in_percent():
    # by hand: 200 * 1/3, 200 * 2/18, 0 (both equal), 0 (both zero), 200 * 10/50
    assert measures.smape(TRUTH, FORECAST) == pytest.approx((200 / 3 + 200 / 9 + 40) / 5)
    assert measures.smape(np.array([5.0]), np.array([-5.0])) == 200


def test_mase_divides_by_the_seasonal_step_of_training():
    train = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0], [np.nan, 5.0], [7.0, 5.0]])
    np.testing.assert_allclose(measures.mase_scale(train), [1.5, 0.0])  # |2-1|, |4-2|
    np.testing.assert_allclose(measures.mase_scale(train, 2), [3.0, 0.0])  # |4-1|, |7-4|
    np.testing.assert_allclose(measures.mase_scale(train, 9), [1.5, 0.0])
    assert measures.mase(TRUTH, FORECAST, np.array([2.0, 0.0])) == pytest.approx(1 / 2 / 3)
    assert measures.mase(TRUTH, FORECAST, np.array([2.0, 4.0])) == pytest.approx(
        (1 / 2 + 2 / 4 + 10 / 4) / 5
    )


def test_intervals_of_a_normal_variable():
    rng = np.random.default_rng(0)
    truth, levels = rng.normal(size=(2000, 3)), np.array([0.1, 0.5, 0.9])
    quantiles = np.broadcast_to([-1.2816, 0.0, 1.2816], (2000, 3, 3))
    got = measures.pinball(truth, quantiles, levels)
    each = [
        sk.mean_pinball_loss(truth.ravel(), np.full(truth.size, q), alpha=a)
        for q, a in zip((-1.2816, 0.0, 1.2816), levels, strict=True)
    ]
    assert got == pytest.approx(np.mean(each))
    missing = truth.copy()
    missing[::2] = np.nan
    assert measures.pinball(missing, quantiles, levels) == pytest.approx(
        measures.pinball(truth[1::2], quantiles[1::2], levels)
    )
    low, high = quantiles[..., 0], quantiles[..., 2]
    assert measures.coverage(missing, low, high) == pytest.approx(0.8, abs=0.03)
    assert measures.mean_width(low, high) == pytest.approx(2 * 1.2816)


def test_classes_as_scikit_learn_counts_them():
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 4, 60), rng.integers(1, 6, 60)  # 0, 4, 5 on one side only
    labels[labels == 2], predicted[predicted == 2] = 3, 3  # 2 on neither
    assert measures.accuracy(labels, predicted) == sk.accuracy_score(labels, predicted)
    assert measures.macro_f1(labels, predicted) == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    probabilities = rng.dirichlet(np.ones(4), 60)
    assert measures.log_loss(labels, probabilities) == pytest.approx(
        sk.log_loss(labels, probabilities, labels=range(4))
    )
    certain = np.array([[0.0, 1.0]])
    assert measures.log_loss(np.array([1]), certain) == 0
    assert measures.log_loss(np.array([0]), certain) == pytest.approx(-math.log(1e-7))


def test_cmapss_score_punishes_late_forecasts_more():
    assert measures.cmapss_score(np.array([100.0]), np.array([87.0])) == pytest.approx(math.e - 1)
    assert measures.cmapss_score(np.array([100.0]), np.array([110.0])) == pytest.approx(math.e - 1)
    two = measures.cmapss_score(np.array([100.0, 100.0, np.nan]), np.array([110.0, 110.0, 0.0]))
    assert two == pytest.approx(2 * (math.e - 1))


def test_text():
    assert measures.perplexity(math.log(50)) == pytest.approx(50)
    assert measures.perplexity(1e4) == math.inf
    assert measures.bits(math.log(8)) == pytest.approx(3)


@pytest.mark.skipif(not DATA, reason="needs m4/: set RNNX_DATA to its folder")
def test_m4_hourly_as_published():
    """The organisers' tables: Naive 43.003 / 11.608, seasonal naive 13.912 / 1.193."""
    train, test = (
        pd.read_csv(DATA / "m4" / f"Hourly-{part}.csv").iloc[:, 1:].to_numpy(float)
        for part in ("train", "test")
    )
    rows = []
    for history, truth in zip(train, test, strict=True):
        history = history[np.isfinite(history)]
        scale = measures.mase_scale(history, 24)
        for forecast in (np.full(48, history[-1]), np.tile(history[-24:], 2)):
            rows.append((measures.smape(truth, forecast), measures.mase(truth, forecast, scale)))
    naive, seasonal = np.mean(np.reshape(rows, (414, 2, 2)), axis=0)
    assert [f"{x:.3f}" for x in naive] == ["43.003", "11.608"]
    assert [f"{x:.3f}" for x in seasonal] == ["13.912", "1.193"]
