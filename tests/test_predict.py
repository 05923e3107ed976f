"""python -m rnnx.predict: new data to forecasts, classes and numbers, as CSV."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call_module, train, write_text
from data_files import hours, write
from sequences_made import engines, table

from rnnx import config as configs
from rnnx.predictions import predictions
from rnnx.tasks.forecast import Forecast
from rnnx.trained import load_data, open_run

H = 3


def trained(task: str, folder: Path, **fields) -> Path:
    """A run of two updates."""
    config = configs.default(task)
    config.update(
        {
            "cell": "lstm", "hidden_size": 4, "init_scale": 0.4, "batch_size": 4, "num_steps": 12,
            "optimizer": "adam", "epochs": 1, "max_steps": 2,
        }
        | ({"horizon": H, "season": 4} if task == "forecast" else {})
        | fields
    )  # fmt: skip
    train(config, folder / "run")
    return folder / "run"


def predicted(run: Path, data: Path, *more: str) -> pd.DataFrame:
    done = call_module("predict", f"--workdir={run}", f"--data={data}", *more)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(io.StringIO(done.stdout), dtype={"sequence": str, "class": str})


def refused(run: Path, data: Path) -> str:
    done = call_module("predict", f"--workdir={run}", f"--data={data}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout, done.stderr
    return done.stderr


def scored(run: Path, split: str = "test") -> dict[tuple[str, int], np.ndarray]:
    """By series and origin, of those that end a full window: forecast, low and high (H, K, 3)."""
    opened = open_run(run)
    dataset = load_data(run, opened.config, print)
    batches = opened.task.batches(opened.config, dataset, split, "full", slice(None))
    found, steps = {}, opened.config.num_steps
    for batch, out in predictions(opened, batches):
        out = np.stack([out[name] for name in ("forecast", "low", "high")], axis=-1)
        for row in np.flatnonzero(batch["weight"][:, -1]):
            name = dataset.splits[split].names[batch["series"][row]]
            found[name, int(batch["start"][row]) + steps - 1] = out[row, -1]
    assert len(found) > 1
    return found


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return frame[["forecast", "low", "high"]].to_numpy()


def new(folder: Path, frame: pd.DataFrame) -> Path:
    return write(folder, frame, "new.csv")


# ---------------------------------------------------------------------------- forecasts


def loads(count: int = 90) -> pd.DataFrame:
    """Two stations, hourly, whose holidays are known ahead."""
    rng, frames = np.random.default_rng(0), []
    for name in ("n", "s"):
        frames.append(pd.DataFrame({
            "at": hours(count), "station": name, "load": 9 + rng.normal(size=count).cumsum(),
            "wind": rng.normal(size=count), "holiday": rng.integers(0, 2, count),
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stations")
    return trained(
        "forecast", folder, corpus=str(write(folder, loads())), time="at", target="load",
        group="station", covariates="wind", known="holiday",
    )  # fmt: skip


def until(frame: pd.DataFrame, origin: int) -> pd.DataFrame:
    """The rows of every series up to an origin, and what is known of the next ones."""
    at = frame.groupby("station").cumcount()
    frame = frame[at <= origin + H].copy()
    frame.loc[at > origin, ["load", "wind"]] = np.nan
    return frame


def test_forecasts_are_those_of_scoring(stations: Path, tmp_path: Path) -> None:
    """From a file that ends at the origin."""
    expected = scored(stations)
    (origin, *_) = sorted({origin for _, origin in expected})
    frame = predicted(stations, new(tmp_path, until(loads(), origin)))
    assert list(frame) == ["series", "time", "step", "target", "forecast", "low", "high"]
    for name in ("n", "s"):
        rows = frame[frame["series"] == name]
        assert rows["step"].tolist() == [1, 2, 3] and set(rows["target"]) == {"load"}
        times = pd.to_datetime(rows["time"]).tolist()
        assert times == hours(90)[origin + 1 : origin + 1 + H].tolist()
        np.testing.assert_allclose(numbers(rows), expected[name, origin][:, 0], rtol=2e-5)
        assert (rows["low"] < rows["forecast"]).all() and (rows["forecast"] < rows["high"]).all()


def test_a_new_series_is_scaled_by_itself(stations: Path, tmp_path: Path) -> None:
    """The network is the same, so its forecasts rise and stretch with it."""
    whole = loads(40)
    frame = until(whole[whole["station"] == "n"].assign(station="new"), 36)
    plain = predicted(stations, new(tmp_path, frame))
    assert "series" not in plain  # there is one only
    moved = predicted(stations, new(tmp_path, frame.assign(load=10 * frame["load"] - 7)))
    np.testing.assert_allclose(numbers(moved), 10 * numbers(plain) - 7, rtol=1e-4, atol=1e-3)
    known = predicted(stations, new(tmp_path, frame.assign(station="n")))
    assert not np.allclose(numbers(known), numbers(plain), rtol=1e-3)


def test_what_is_known_ahead_must_be_there(stations: Path, tmp_path: Path) -> None:
    frame = until(loads(), 50)
    short = frame[frame.groupby("station").cumcount() <= 50 + 1]
    told = refused(stations, new(tmp_path, short))
    assert "holiday must be given for the 3 steps after the last target: 1 rows are there" in told
    told = refused(stations, new(tmp_path, frame.drop(columns="holiday")))
    assert "no column 'holiday'" in told


def test_a_column_known_ahead_makes_a_difference(stations: Path, tmp_path: Path) -> None:
    frame = until(loads(), 50)
    plain = predicted(stations, new(tmp_path, frame))
    frame.loc[frame["load"].isna(), "holiday"] += 1
    assert not np.allclose(numbers(predicted(stations, new(tmp_path, frame))), numbers(plain))


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda f: f.rename(columns={"load": "lod"}), "no column 'load'; did you mean lod"),
        (lambda f: f[::2], "the model was trained on 1 hour"),
        (lambda f: f.assign(load=np.nan), "all are missing"),
        (lambda f: f.assign(at="soon"), "is not a time"),
        (lambda f: f[:0], "has no rows"),
    ],
)
def test_other_files_are_refused(change, told: str, stations: Path, tmp_path: Path) -> None:
    assert told in refused(stations, new(tmp_path, change(until(loads(), 40))))


def test_an_empty_file_and_none_are_refused(stations: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    assert "is empty" in refused(stations, tmp_path / "empty.csv")
    assert "nowhere.csv" in refused(stations, tmp_path / "nowhere.csv")


def test_an_output_file(stations: Path, tmp_path: Path) -> None:
    data, file = new(tmp_path, until(loads(), 60)), tmp_path / "out.csv"
    printed = predicted(stations, data)
    done = call_module(
        "predict", f"--workdir={stations}", f"--data={data}", f"--output={file}"
    )  # fmt: skip
    assert done.returncode == 0 and not done.stdout and "6 rows in" in done.stderr
    pd.testing.assert_frame_equal(pd.read_csv(file), printed)
    done = call_module(
        "predict", f"--workdir={stations}", f"--data={data}", f"--output={data}/no/out.csv"
    )
    assert done.returncode == 75 and done.stderr.count("error:") == 1, done.stderr


def test_wide_tables_step_by_step(tmp_path: Path) -> None:
    """Without times: rows are counted. Series of unequal length, quantiles."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(3, 80)).cumsum(axis=1), columns=range(1, 81))
    frame.insert(0, "id", ["a", "b", "c"])
    frame.loc[1, range(71, 81)] = np.nan
    run = trained(
        "forecast", tmp_path, corpus=str(write(tmp_path, frame)), layout="wide",
        decode="recursive", head="quantile", anchor="last", warmup=5,
    )  # fmt: skip
    expected = scored(run)
    name, origin = next(key for key in expected if key[0] == "b")
    found = predicted(run, new(tmp_path, frame.iloc[[1]][["id", *range(1, origin + 2)]]))
    assert found["time"].tolist() == [origin + 1, origin + 2, origin + 3]
    np.testing.assert_allclose(numbers(found), expected[name, origin][:, 0], rtol=1e-4, atol=1e-5)
    found = predicted(run, new(tmp_path, frame))
    assert found["series"].tolist() == ["a"] * H + ["b"] * H + ["c"] * H
    assert found["time"].tolist() == [80, 81, 82, 70, 71, 72, 80, 81, 82]


def test_months_and_columns_apart(tmp_path: Path) -> None:
    months = pd.date_range("2010-01-31", periods=80, freq="ME")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"month": months, "x": rng.normal(size=80), "y": rng.normal(9, size=80)})
    run = trained("forecast", tmp_path, corpus=str(write(tmp_path, frame)), separate=True)
    expected = scored(run)
    origin = min(origin for _, origin in expected)
    found = predicted(run, new(tmp_path, frame[: origin + 1]))
    assert found["series"].tolist() == ["x"] * H + ["y"] * H
    times = pd.to_datetime(found["time"]).tolist()
    assert times == 2 * months[origin + 1 : origin + 1 + H].tolist()
    for name in ("x", "y"):
        rows = numbers(found[found["series"] == name])
        np.testing.assert_allclose(rows, expected[name, origin][:, 0], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- sequences


def test_classes_of_a_table(tmp_path: Path) -> None:
    """As in scoring, in the order of the file; the label column may be absent."""
    data = table(tmp_path, "classify")
    run = trained("classify", tmp_path, corpus=str(data), target="label", group="id", time="t")
    frame = pd.read_csv(data)
    found = predicted(run, new(tmp_path, frame.drop(columns="label").sample(frac=1)))
    assert list(found) == ["sequence", "class", "p(down)", "p(up)"]
    p = found[["p(down)", "p(up)"]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert (found["class"] == np.array(["down", "up"])[p.argmax(axis=1)]).all()
    opened = open_run(run)
    dataset = load_data(run, opened.config, print)
    by_name = found.set_index("sequence")["p(up)"]
    for split in ("valid", "test"):
        batches = opened.task.batches(opened.config, dataset, split, "full", slice(None))
        scores = np.concatenate([
            out["probabilities"][batch["weight"] > 0, 1]
            for batch, out in predictions(opened, batches)
        ])  # fmt: skip
        assert len(set(scores.tolist())) > 8
        for score in scores:
            assert np.isclose(by_name, score, rtol=2e-5).any()
    plain = predicted(run, data)
    assert plain["sequence"].tolist() == frame["id"].unique().tolist()
    np.testing.assert_allclose(plain.set_index("sequence")["p(up)"][by_name.index], by_name,
                               rtol=1e-5)  # fmt: skip
    told = refused(run, new(tmp_path, frame.drop(columns="b")))
    assert "no column 'b'" in told
    assert "is not a time" in refused(run, new(tmp_path, frame.assign(t="soon")))
    frame.loc[3, "id"] = None
    assert "--group=id is empty in row 4" in refused(run, new(tmp_path, frame))


def test_classes_of_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 7)), np.arange(24) % 2 + 1
    np.savetxt(tmp_path / "S_TRAIN.tsv", np.c_[y, x], delimiter="\t", fmt="%.5f")
    np.savetxt(tmp_path / "S_TEST.tsv", np.c_[y, x][:6], delimiter="\t", fmt="%.5f")
    run = trained("classify", tmp_path, corpus=str(tmp_path / "S_TRAIN.tsv"))
    found = predicted(run, tmp_path / "S_TEST.tsv")
    assert list(found) == ["sequence", "class", "p(1)", "p(2)"]
    assert found["sequence"].tolist() == list("123456") and set(found["class"]) <= {"1", "2"}
    np.savez(tmp_path / "new.npz", x=np.round(x[:6], 5))
    lines = [",".join(f"{v:.5f}" for v in row) + ":?" for row in x[:6]]
    (tmp_path / "new.ts").write_text(
        "@problemName s\n@timeStamps false\n@univariate true\n@classLabel true 1 2\n@data\n"
        + "\n".join(lines)
    )
    for name in ("new.npz", "new.ts"):
        pd.testing.assert_frame_equal(predicted(run, tmp_path / name), found)
    np.savez(tmp_path / "wide.npz", x=rng.normal(size=(6, 7, 3)))
    assert "has 3 values a step; the network reads 1" in refused(run, tmp_path / "wide.npz")
    assert "not trained on one" in refused(run, table(tmp_path, "classify"))
    engines(tmp_path)
    assert "no column '1'" in refused(run, tmp_path / "test_FD001.txt")


def test_numbers_of_a_table(tmp_path: Path) -> None:
    data = table(tmp_path, "regress")
    run = trained("regress", tmp_path, corpus=str(data), target="label", group="id", time="t")
    found = predicted(run, data)
    assert list(found) == ["sequence", "number"] and len(found) == 60
    means = pd.read_csv(data).groupby("id")["label"].first()
    assert abs(found["number"].mean() - means.mean()) < 3 * means.std()  # in its own units
    assert found["number"].std() > 0.1


def test_the_life_left_of_engines(tmp_path: Path) -> None:
    data = engines(tmp_path)
    run = trained("regress", tmp_path, corpus=str(data), cap=20, batch_size=32)
    found = predicted(run, data.with_name("test_FD001.txt"))
    assert found["sequence"].tolist() == list("123456")
    opened = open_run(run)
    dataset = load_data(run, opened.config, print)
    batches = opened.task.batches(opened.config, dataset, "test", "full", slice(None))
    expected = np.zeros(6)
    for batch, out in predictions(opened, batches):
        real = batch["weight"] > 0
        expected[batch["index"][real]] = out["number"][real]
    np.testing.assert_allclose(found["number"], expected, rtol=1e-5)


# ---------------------------------------------------------------------------- other runs


def test_what_is_no_run_to_predict_with_is_refused(
    stations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_text(tmp_path / "t.txt")
    assert "nowhere" in refused(tmp_path / "nowhere", text)
    monkeypatch.delattr(Forecast, "unseen")  # as the tasks of texts and of piano rolls
    assert "without predictions of new data" in refused(stations, text)
    done = call_module("predict", f"--workdir={stations}")
    assert done.returncode == 2 and "--data=... is missing" in done.stderr


def test_help() -> None:
    done = call_module("predict", "--help")
    assert done.returncode == 0
    for flag in ("--workdir", "--data", "--output"):
        assert flag in done.stdout
