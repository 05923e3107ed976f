"""What a network loses on each forecast, by hand; floors on real data."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from kinds_made import DATA, kind_of, needs, predicting, run_of

from rnnx.compare.kind import Kind
from rnnx.compare.kinds import KINDS
from rnnx.report.significance import scores
from rnnx.tasks import floors

nan = np.nan
TRAIN, VALID, TEST, H = 28, 6, 14, 2


def forecasts_of(path: Path, columns: dict[str, np.ndarray], **fields) -> Kind:
    """Of columns of TRAIN + VALID + TEST rows; with `group`, of as many rows of each group."""
    pd.DataFrame(columns).to_csv(path / "own.csv", index=False)
    return kind_of(
        "forecast", corpus=str(path / "own.csv"), parts=(TRAIN, VALID, TEST), horizon=H,
        num_steps=8, warmup=4, season=1, anchor="last", **fields,
    )  # fmt: skip


def mistaken(kind: Kind, truth: list[np.ndarray]) -> Callable[[dict], dict]:
    """Forecasts that are wrong by `mistake`, with intervals of one unit to each side."""

    def function(batch: dict) -> dict:
        rows, steps = batch["weight"].shape
        found = np.zeros((rows, steps, H, truth[0].shape[1]))
        for row, step in np.ndindex(rows, steps):
            s, origin = batch["series"][row], batch["start"][row] + kind.config.warmup + step
            for h, k in np.ndindex(*found.shape[2:]):
                if 0 <= origin + h + 1 < len(truth[s]):
                    found[row, step, h, k] = np.nan_to_num(truth[s][origin + h + 1, k])
                    found[row, step, h, k] += mistake(s, origin, h, k)
        return {"forecast": found, "low": found - 1, "high": found + 1}

    return function


def mistake(s: int, origin: int, h: int, k: int) -> float:
    return (0.1 + 0.3 * s + 0.01 * origin + 0.5 * h + 0.7 * k) * (-1) ** (origin + h)


def origins() -> range:
    """The rows from which all of a forecast lies in the test part."""
    return range(TRAIN + VALID - 1, TRAIN + VALID + TEST - H)


def noise(rows: int = TRAIN + VALID + TEST, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(20, 3, rows)


def test_one_series_is_scored_in_its_own_units(tmp_path, monkeypatch):
    y = noise()
    y[[40, 41, 44]] = nan
    kind = forecasts_of(tmp_path, {"kW": y})
    assert (kind.metric, kind.unit, kind.root) == ("MAE", "kW", False)
    predicting(monkeypatch, mistaken(kind, [y[:, None]]))
    items = kind.items(run_of(kind))
    errors = np.array([[abs(mistake(0, o, h, 0)) for h in range(H)] for o in origins()])
    ahead = np.array(origins())[:, None] + [1, 2]
    there, truth = np.isfinite(y[ahead]), np.nan_to_num(y[ahead])
    errors *= there
    np.testing.assert_allclose(items.total, errors.sum(axis=1), rtol=1e-6)
    assert kind.count.tolist() == there.sum(axis=1).tolist()
    assert 0 in kind.count  # from row 39 both steps are missing
    assert kind.score(items) == pytest.approx(errors.sum() / there.sum())
    losses = kind.losses([items, items])
    np.testing.assert_allclose(scores(losses), [kind.score(items)] * 2)
    np.testing.assert_allclose(items.by_step, errors.sum(axis=0) / there.sum(axis=0))

    train = y[:TRAIN]
    forecast = truth + [[mistake(0, o, h, 0) for h in range(H)] for o in origins()]
    n = there.sum()
    by_hand = {
        "MAE": errors.sum() / n,
        "RMSE": np.sqrt((errors**2).sum() / n),
        "MAE, scaled": errors.sum() / train.std() / n,
        "MSE, scaled": (errors**2).sum() / train.var() / n,
        "MASE": errors.sum() / np.abs(np.diff(y[: TRAIN + VALID])).mean() / n,
        "sMAPE": (200 * errors / (truth + np.abs(forecast)))[there].mean(),
        "coverage of the 80 % interval": (errors <= 1)[there].mean(),
        "its width, scaled": 2 / train.std(),
    }
    assert items.metrics == pytest.approx(by_hand, rel=1e-5)
    assert 0 < by_hand["coverage of the 80 % interval"] < 1


def test_every_stride_th_origin_is_an_item(tmp_path, monkeypatch):
    y = noise()
    kind = forecasts_of(tmp_path, {"kW": y}, stride=3)
    predicting(monkeypatch, mistaken(kind, [y[:, None]]))
    errors = [sum(abs(mistake(0, o, h, 0)) for h in range(H)) for o in origins()[::3]]
    np.testing.assert_allclose(kind.items(run_of(kind)).total, errors, rtol=1e-6)


def test_several_series_are_scored_by_mase_and_a_constant_one_is_left_out(tmp_path, monkeypatch):
    values = [noise(), 100 * noise(seed=1), np.full(TRAIN + VALID + TEST, 5.0)]
    rows = len(values[0])
    columns = {"y": np.concatenate(values), "shop": np.repeat(["a", "b", "c"], rows)}
    kind = forecasts_of(tmp_path, columns, group="shop", target="y")
    assert (kind.metric, kind.unit) == ("MASE", "")
    predicting(monkeypatch, mistaken(kind, [v[:, None] for v in values]))
    items = kind.items(run_of(kind))
    scale = [np.abs(np.diff(v[: TRAIN + VALID])).mean() for v in values]
    expected = [
        sum(abs(mistake(s, o, h, 0)) for h in range(H)) / scale[s]
        for s in (0, 1)
        for o in origins()
    ]
    n = len(origins())
    np.testing.assert_allclose(items.total, [*expected, *[0.0] * n], rtol=1e-5)
    assert kind.count.tolist() == [H] * 2 * n + [0] * n
    assert kind.score(items) == pytest.approx(sum(expected) / (2 * n * H))
    assert items.metrics["MASE"] == pytest.approx(kind.score(items))
    assert np.isfinite(list(items.metrics.values())).all()
    for _, floor in kind.floors():
        assert np.isfinite(kind.score(floor))


def test_several_columns_of_one_series_are_scaled(tmp_path, monkeypatch):
    a, b = noise(), 1000 * noise(seed=1)
    kind = forecasts_of(tmp_path, {"a": a, "b": b}, target="a,b")
    assert (kind.metric, kind.unit) == ("MAE", "standard deviations")
    predicting(monkeypatch, mistaken(kind, [np.stack([a, b], axis=1)]))
    items = kind.items(run_of(kind))
    std = a[:TRAIN].std(), b[:TRAIN].std()
    by_hand = [
        sum(abs(mistake(0, o, h, k)) / std[k] for h in range(H) for k in (0, 1)) for o in origins()
    ]
    np.testing.assert_allclose(items.total, by_hand, rtol=1e-3)  # float32 of 20,000
    assert set(kind.count) == {2 * H}
    assert items.metrics["MAE, scaled"] == pytest.approx(kind.score(items))
    assert "MAE" not in items.metrics  # of two units
    kind = forecasts_of(tmp_path, {"a": a, "b": b}, target="a,b", separate=True)
    assert kind.metric == "MASE" and len(kind.count) == 2 * len(origins())


def test_blocks_are_stretches_of_time_or_many_series(tmp_path):
    rows = TRAIN + VALID + TEST
    kind = forecasts_of(tmp_path, {"y": noise()})
    assert kind.block.tolist() == [o // (2 * H) for o in origins()]
    sizes = np.unique(kind.block, return_counts=True)[1]
    assert len(sizes) >= 3 and set(sizes[1:-1]) == {2 * H}
    for series in (29, 30):
        columns = {
            "y": np.concatenate([noise(seed=s) for s in range(series)]),
            "shop": np.repeat([f"s{s:02d}" for s in range(series)], rows),
        }
        kind = forecasts_of(tmp_path, columns, group="shop", target="y")
        n = len(origins())
        if series == 29:  # the same stretch of all series together
            assert kind.block.tolist() == [o // (2 * H) for o in origins()] * 29
        else:
            assert kind.block.tolist() == [s for s in range(30) for _ in range(n)]


def test_a_season_longer_than_the_horizon_makes_longer_blocks(tmp_path):
    kind = forecasts_of(
        tmp_path,
        {"y": noise()},
    )
    kind.config.season = 3
    again = KINDS["forecast"](kind.task, kind.config, kind.dataset._replace(
        spec=kind.dataset.spec | {"season": 3}))  # fmt: skip
    assert again.block.tolist() == [o // 6 for o in origins()]


def test_floors_of_forecasts_are_scored_on_the_same_items(tmp_path):
    y = noise()
    y[44] = nan
    kind = forecasts_of(tmp_path, {"kW": y})
    found = dict(kind.floors())
    assert list(found) == ["last value", "ridge on lags"]  # there is no season
    last = [sum(abs(y[o + h] - y[o]) for h in (1, 2)) for o in range(33, 41)]
    np.testing.assert_allclose(found["last value"].total[:8], last)
    assert found["last value"].total[9] == pytest.approx(abs(y[43] - y[42]))  # 44 is missing
    fit = floors.ridge_lags([y[:, None]], kind.series.ends, H, 1, 4)
    ahead = fit.predict(y[:, None], np.array([35]))[0, :, 0]
    assert found["ridge on lags"].total[2] == pytest.approx(abs(ahead - y[36:38]).sum())
    seasonal = kind_of(
        "forecast", corpus=str(tmp_path / "own.csv"), parts=(TRAIN, VALID, TEST), horizon=H,
        num_steps=8, warmup=4, season=3, anchor="last",
    )  # fmt: skip
    floor = dict(seasonal.floors())["same time last season"]
    assert floor.total[0] == pytest.approx(sum(abs(y[33 + h] - y[30 + h]) for h in (1, 2)))


def test_a_run_on_a_fraction_is_scored_on_the_same_items(tmp_path, monkeypatch):
    y = noise()
    kind = forecasts_of(tmp_path, {"kW": y})
    kept = max(round(TRAIN * 0.3), 2)
    predicting(monkeypatch, mistaken(kind, [y[TRAIN - kept :, None]]))
    items = kind.items(run_of(kind, 0.3))
    shift = TRAIN - kept  # rows that the run does not see
    errors = [sum(abs(mistake(0, o - shift, h, 0)) for h in range(H)) for o in origins()]
    np.testing.assert_allclose(items.total, errors, rtol=1e-6)


def test_forecasts_that_are_drawn(tmp_path, monkeypatch):
    y = noise()
    kind = forecasts_of(tmp_path, {"kW": y})
    predicting(monkeypatch, mistaken(kind, [y[:, None]]))
    worst, _, best = kind.examples(run_of(kind))["forecasts"]
    errors = {o: np.mean([abs(mistake(0, o, h, 0)) for h in range(H)]) for o in origins()}
    for drawn, pick in ((worst, max), (best, min)):
        origin = pick(errors, key=errors.get)
        assert drawn["truth"] == pytest.approx(y[origin + 1 : origin + 3])
        assert drawn["history"] == pytest.approx(y[origin - 3 : origin + 1])
        assert len(drawn["times"]) == 6
        wrong = [mistake(0, origin, h, 0) for h in range(H)]
        assert drawn["median"] == pytest.approx(y[origin + 1 : origin + 3] + wrong, rel=1e-6)
        assert np.subtract(drawn["high"], drawn["low"]) == pytest.approx([2, 2])
        assert drawn["score"] == pytest.approx(errors[origin], rel=1e-5)


def test_of_several_series_the_worst_is_drawn_first(tmp_path, monkeypatch):
    values = [noise(seed=s) for s in range(3)]
    columns = {"y": np.concatenate(values), "shop": np.repeat([*"abc"], len(values[0]))}
    kind = forecasts_of(tmp_path, columns, group="shop", target="y")
    predicting(monkeypatch, mistaken(kind, [v[:, None] for v in values]))
    drawn = kind.examples(run_of(kind))["forecasts"]
    items = kind.items(run_of(kind)).total.reshape(3, -1).sum(axis=1)
    assert [d["series"] for d in drawn] == [[*"abc"][s] for s in np.argsort(items)[::-1]]


# ---------------------------------------------------------------------------- real data


def without_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a minute on all columns."""
    none = SimpleNamespace(predict=lambda values, origins, s: np.zeros((len(origins), 1, 1)))
    monkeypatch.setattr(floors, "ridge_lags", lambda *_: none)


@needs("m4")
def test_the_floors_of_m4_hourly_as_published(monkeypatch):
    without_ridge(monkeypatch)
    kind = kind_of(
        "forecast", corpus="m4_hourly", layout="wide", data_dir=str(DATA), horizon=48,
        num_steps=96, season=24,
    )  # fmt: skip
    assert kind.metric == "MASE" and len(kind.count) == 414 == len(set(kind.block))
    found = dict(kind.floors())
    seasonal, naive = found["same time last season"], found["last value"]
    assert f"{seasonal.metrics['sMAPE']:.3f} {kind.score(seasonal):.3f}" == "13.912 1.193"
    assert f"{naive.metrics['sMAPE']:.3f} {kind.score(naive):.3f}" == "43.003 11.608"


@needs("series/ETTh1.csv")
@pytest.mark.parametrize(
    "horizon, last, season",
    [
        (1, "0.175 0.255", None),
        (24, "1.222 0.671", "0.424 0.389"),
        (96, "1.294 0.713", "0.512 0.433"),
    ],
)
def test_the_floors_of_etth1_to_the_last_printed_digit(horizon, last, season, monkeypatch):
    without_ridge(monkeypatch)
    kind = kind_of(
        "forecast", corpus="etth1", data_dir=str(DATA), horizon=horizon, num_steps=96,
        parts=(8640, 2880, 2880),
    )  # fmt: skip
    found = dict(kind.floors())

    def both(name: str) -> str:
        metrics = found[name].metrics
        assert metrics["MAE, scaled"] == pytest.approx(kind.score(found[name]))
        return f"{metrics['MSE, scaled']:.3f} {metrics['MAE, scaled']:.3f}"

    assert both("last value") == last
    assert season is None or both("same time last season") == season
