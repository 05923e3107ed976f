"""Floors: by hand on small series, and published or known numbers on real data."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnnx.errors import UserError
from rnnx.tasks import floors, measures

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
PLACES = [Path(p) for p in (os.environ.get("RNNX_DATA"), SHARED) if p]
DATA = next((place for place in PLACES if (place / "cmapss").is_dir()), Path("nowhere"))
nan = np.nan


def needs(name: str) -> pytest.MarkDecorator:
    missing = not (DATA / name).exists()
    return pytest.mark.skipif(missing, reason=f"needs {name}: set RNNX_DATA to its folder")


def test_last_value_and_season_by_hand():
    y = np.array([[nan, 1.0], [2.0, nan], [3.0, nan], [nan, 4.0], [5.0, 5.0], [6.0, 6.0]])
    got = floors.last_value(y, np.array([0, 2, 3]), 2)
    np.testing.assert_array_equal(got[:, 0], [[nan, 1.0], [3.0, 1.0], [3.0, 4.0]])
    np.testing.assert_array_equal(got[:, 1], got[:, 0])

    got = floors.seasonal(y, np.array([1, 4]), 3, 2)
    # after row 1: rows 0, 1, 0; column 0 has nothing at row 0, column 1 nothing at row 1
    np.testing.assert_array_equal(got[0], [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    # after row 4: rows 3, 4, 3; column 0 lacks row 3, and row 1 holds the season before it
    np.testing.assert_array_equal(got[1], [[2.0, 4.0], [5.0, 5.0], [2.0, 4.0]])
    # no season of history yet: the last value
    np.testing.assert_array_equal(floors.seasonal(y, np.array([2]), 1, 5)[0, 0], [3.0, 1.0])


@pytest.mark.parametrize("name", ["last_value", "seasonal", "ridge"])
def test_nothing_after_the_origin_is_read(name):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(80, 2)).cumsum(axis=0)
    fit = floors.ridge_lags([y], np.array([[50, 60]]), 6, 6)
    forecast = {
        "last_value": lambda s, o: floors.last_value(s, o, 6),
        "seasonal": lambda s, o: floors.seasonal(s, o, 6, 6),
        "ridge": fit.predict,
    }[name]
    origins = np.array([61, 70])
    changed = y.copy()
    changed[62:] = nan
    np.testing.assert_array_equal(forecast(y, origins)[0], forecast(changed, origins)[0])
    changed[61] += 1
    assert (forecast(y, origins)[0] != forecast(changed, origins)[0]).any()


def test_ridge_finds_a_linear_recurrence_in_every_series():
    def wave(period: float, level: float, size: float) -> np.ndarray:
        angle = np.arange(300.0)[:, None] * 2 * np.pi / period
        return level + size * np.hstack([np.sin(angle), np.cos(angle + 1)])

    series = [wave(17.3, 1e4, 50.0), wave(17.3, -3.0, 0.01)]
    ends = np.array([[200, 250], [200, 250]])
    fit = floors.ridge_lags(series, ends, 5, lags=8)
    for i, y in enumerate(series):
        origins = np.arange(249, 295)
        truth = y[origins[:, None] + np.arange(1, 6)]
        error = measures.rmse(truth, fit.predict(y, origins, i)) / y.std()
        assert error < 1e-2 < measures.rmse(truth, floors.last_value(y, origins, 5)) / y.std()


def test_ridge_is_fitted_on_train_and_chosen_on_valid_alone():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(120, 1)).cumsum(axis=0)
    ends = np.array([[60, 90]])
    fit = floors.ridge_lags([y], ends, 3)
    late = y.copy()
    late[90:] = 1e6  # test
    same = floors.ridge_lags([late], ends, 3)
    np.testing.assert_array_equal(fit.weights, same.weights)
    np.testing.assert_array_equal(fit.scales[0], same.scales[0])
    chosen = set()
    for seed in range(8):
        noise = y.copy()
        noise[60:90] = np.random.default_rng(seed).normal(size=(30, 1)) * 30
        chosen.add(floors.ridge_lags([noise], ends, 3).strengths)
    assert len(chosen) > 1


def test_ridge_on_short_missing_and_large_data(monkeypatch):
    y = np.sin(np.arange(30.0))[:, None]
    assert floors.ridge_lags([y], np.array([[12, 20]]), 3).lags == 5  # 9 places: 5 windows of 5
    with pytest.raises(UserError, match="a horizon of 12 needs"):
        floors.ridge_lags([y], np.array([[12, 20]]), 12)

    long = np.sin(np.arange(400.0))[:, None]
    long[50:200:7] = nan
    ends = np.array([[300, 350]])
    fit = floors.ridge_lags([long], ends, 4, lags=6)
    origins = np.arange(349, 396)
    forecast = fit.predict(long, origins)
    error = measures.mae(np.sin(origins[:, None] + np.arange(1, 5.0)), forecast[..., 0])
    assert error < 0.05
    long[:299:3] = nan  # no window of 4 targets is whole
    assert np.isfinite(floors.ridge_lags([long], ends, 4, lags=6).predict(long, origins)).all()

    monkeypatch.setattr(floors, "_MOST_VALUES", 200)
    rows, inside = [], floors._best_ridge
    monkeypatch.setattr(floors, "_best_ridge", lambda *p: rows.append(len(p[0][0])) or inside(*p))
    floors.ridge_lags([np.sin(np.arange(400.0))[:, None]], ends, 4, lags=6)
    assert 15 <= rows[0] <= 20  # of 291 windows with 10 numbers each


def test_majority():
    labels = np.array([2, 2, 0, 2])
    np.testing.assert_array_equal(floors.majority(labels, 2), [[0.25, 0, 0.75]] * 2)
    assert floors.majority(labels, 3, classes=5).shape == (3, 5)


def test_nearest_in_chunks_and_with_unequal_lengths(monkeypatch):
    rng = np.random.default_rng(2)
    train = [rng.normal(size=(9, 2)) * [1, 1e4] for _ in range(40)]
    test = [rng.normal(size=(9, 2)) * [1, 1e4] for _ in range(30)]
    labels = np.arange(40)
    deviation = np.concatenate(train).std(axis=0)
    want = [np.argmin([(((a - b) / deviation) ** 2).sum() for a in train]) for b in test]
    np.testing.assert_array_equal(floors.nearest(train, labels, test), want)
    monkeypatch.setattr(floors, "_AT_ONCE", 100)
    np.testing.assert_array_equal(floors.nearest(train, labels, test), want)

    def ramp(height: float, length: int) -> np.ndarray:
        return np.linspace(0, height, length)[:, None]

    train = [ramp(1.0, 5), ramp(2.0, 9), ramp(4.0, 7)]
    got = floors.nearest(train, np.array([7, 8, 9]), [ramp(2.1, 30), ramp(1.1, 2), ramp(3.9, 4)])
    np.testing.assert_array_equal(got, [8, 7, 9])


def test_numbers_from_the_last_step():
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(t, 3)) for t in rng.integers(2, 9, 50)]
    for x in inputs:
        x[:, 2] = 7.0  # constant
    steps = [x[:, 0] * 2 - x[:, 1] + 5 for x in inputs]
    labels = np.array([s[-1] for s in steps])
    for given in (None, steps[:40]):
        got = floors.linear_last(inputs[:40], labels[:40], inputs[40:], given)
        np.testing.assert_allclose(got, labels[40:], atol=1e-9)
    np.testing.assert_allclose(floors.mean_of(labels, 2), [labels.mean()] * 2)
    np.testing.assert_allclose(floors.mean_of(labels, 1, steps), np.concatenate(steps).mean())


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_probabilities_sum_to_one(order):
    rng = np.random.default_rng(4)
    train = rng.choice(8, size=500, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02, 0.0])  # 7: never seen
    for context in ([0], [0, 1, 0, 0], [6, 6, 6, 6], [7], [1, 7, 0, 1], [int(train[0])]):
        p = [np.exp(-floors.ngram(train, np.array([*context, w]), 8, order)[-1]) for w in range(8)]
        assert sum(p) == pytest.approx(1, abs=1e-12)
        assert min(p) > 0


def test_ngram_by_hand():
    """a a b a b: too few counts for estimated discounts, so D is half."""
    train = np.array([0, 0, 1, 0, 1])
    # symbols that precede: 0 after {0, 1}, 1 after {0}; so p_1(1) = .5/3 + 2 * .5/3 * 1/2
    one = 0.5 / 3 + 1.0 / 3 * 0.5
    # n(0 0) = 1, n(0 1) = 2
    two = 1.5 / 3 + 1.0 / 3 * one
    got = floors.ngram(train, np.array([0, 1]), 2, 2)
    assert np.exp(-got) == pytest.approx([two])
    # counted, not preceded, at the highest order: 3 zeros and 2 ones
    assert np.exp(-floors.ngram(train, np.array([0, 1]), 2, 1)) == pytest.approx([1.5 / 5 + 0.1])
    assert floors.ngram(train, np.array([0, 1, 0, 0]), 2, 9).shape == (3,)


@needs("ptb")
def test_ngram_on_the_penn_treebank_as_published():
    """Mikolov's table: perplexity 141.2 for a 5-gram with Kneser-Ney smoothing."""
    parts = [
        (DATA / "ptb" / f"ptb.{part}.txt").read_text().replace("\n", "<eos>").split()
        for part in ("train", "test")
    ]
    vocabulary = {word: i for i, word in enumerate(sorted(set(parts[0])))}
    train, test = (np.array([vocabulary[word] for word in part]) for part in parts)
    nats = floors.ngram(train, test, len(vocabulary), 5)
    assert len(nats) == 82429
    assert np.exp(nats.mean()) == pytest.approx(141.2, abs=0.5)


@needs("series/ETTh1.csv")
def test_etth1_to_the_last_printed_digit():
    """Every origin whose H targets are in the test part: 14,400 - 11,520 - H + 1 of them.

    The first origin is the last row of the valid part, 11,519, the last one 14,399 - H.
    """
    values = pd.read_csv(DATA / "series" / "ETTh1.csv").iloc[:, 1:].to_numpy(float)
    y = (values - values[:8640].mean(axis=0)) / values[:8640].std(axis=0)

    def scores(horizon: int, season: int) -> str:
        origins = np.arange(11519, 14400 - horizon)
        truth = y[origins[:, None] + np.arange(1, horizon + 1)]
        forecast = (
            floors.seasonal(y, origins, horizon, season)
            if season
            else floors.last_value(y, origins, horizon)
        )
        return f"{measures.mse(truth, forecast):.3f} {measures.mae(truth, forecast):.3f}"

    assert [scores(h, 0) for h in (1, 24, 96)] == ["0.175 0.255", "1.222 0.671", "1.294 0.713"]
    assert [scores(h, 24) for h in (24, 96)] == ["0.424 0.389", "0.512 0.433"]


@needs("series/ETTh1.csv")
def test_ridge_on_etth1_is_ahead_of_the_season():
    y = pd.read_csv(DATA / "series" / "ETTh1.csv")[["OT"]].to_numpy(float)
    fit = floors.ridge_lags([y], np.array([[8640, 11520]]), 24, 24)
    origins = np.arange(11519, 14376)
    truth = y[origins[:, None] + np.arange(1, 25)]
    error = [
        measures.mae(truth, fit.predict(y, origins)),
        measures.mae(truth, floors.last_value(y, origins, 24)),
        measures.mae(truth, floors.seasonal(y, origins, 24, 24)),
    ]
    assert error[0] < 0.95 * error[1] < 0.95 * error[2]


@needs("m4")
def test_m4_hourly_as_published():
    train, test = (
        pd.read_csv(DATA / "m4" / f"Hourly-{part}.csv").iloc[:, 1:].to_numpy(float)
        for part in ("train", "test")
    )
    rows = []
    for history, truth in zip(train, test, strict=True):
        history = history[np.isfinite(history)][:, None]
        scale, last = measures.mase_scale(history, 24), np.array([len(history) - 1])
        for f in (floors.last_value(history, last, 48), floors.seasonal(history, last, 48, 24)):
            rows.append(
                (measures.smape(truth, f[0, :, 0]), measures.mase(truth, f[0, :, 0], scale))
            )
    naive, seasonal = np.mean(np.reshape(rows, (414, 2, 2)), axis=0)
    assert [f"{x:.3f}" for x in (*naive, *seasonal)] == ["43.003", "11.608", "13.912", "1.193"]


@needs("cmapss")
def test_cmapss_to_the_last_printed_digit():
    """Inputs: three settings and 21 sensors. Targets of train and test are capped at 125."""
    train, test = (np.loadtxt(DATA / "cmapss" / f"{p}_FD001.txt") for p in ("train", "test"))
    life = np.minimum(np.loadtxt(DATA / "cmapss" / "RUL_FD001.txt"), 125)
    engines = [train[train[:, 0] == i] for i in range(1, 101)]
    steps = [np.minimum(engine[-1, 1] - engine[:, 1], 125) for engine in engines]
    inputs, labels = [engine[:, 2:] for engine in engines], np.zeros(100)
    tests = [test[test[:, 0] == i][:, 2:] for i in range(1, 101)]
    got = floors.linear_last(inputs, labels, tests, steps)
    assert f"{measures.rmse(life, got):.1f}" == "20.8"
    assert f"{measures.cmapss_score(life, got):,.0f}" == "1,259"
    mean = floors.mean_of(labels, 100, steps)
    assert f"{measures.rmse(life, mean):.1f}" == "41.9"


@needs("ucr")
@pytest.mark.parametrize(
    ("name", "error"), [("ItalyPowerDemand", 0.0447), ("ECG200", 0.12), ("SyntheticControl", 0.12)]
)
def test_nearest_on_ucr_as_published(name, error):
    """The archive's own table of 1-NN with Euclidean distance."""
    train, test = (
        np.loadtxt(DATA / "ucr" / name / f"{name}_{part}.tsv") for part in ("TRAIN", "TEST")
    )
    got = floors.nearest(list(train[:, 1:, None]), train[:, 0].astype(int), list(test[:, 1:, None]))
    assert f"{1 - measures.accuracy(test[:, 0].astype(int), got):.4f}" == f"{error:.4f}"
