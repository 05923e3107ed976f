"""Comparisons by command, from the data to the report and the winner that predicts."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, call_module, one_device, run_module, write_text
from here import trained_here

from rnnx import trainer
from rnnx.compare import cost
from rnnx.compare.plan import FRACTIONS_OUT, Speed
from rnnx.trained import open_run

ROWS, HORIZON = 160, 3
SMALL = ("--trials=1", "--seeds=2", "--epochs=1", "--param_budget=260", "--workers=1")
KEYS = {
    "format", "task", "metric", "unit", "lower_is_better", "data", "plan", "floors", "models",
    "verdicts", "control", "fractions", "chosen", "examples", "machine", "commands",
}  # fmt: skip
OF_A_MODEL = {
    "name", "cell", "integration", "depth", "hidden_size", "params", "score", "interval",
    "scores_by_seed", "diverged", "train_seconds", "seconds_to_lstm", "memory_bytes", "disk_bytes",
    "latency_us", "window_us", "throughput", "metrics", "equal_time", "tuning", "chosen",
    "behind_floor", "curves", "by_step",
}  # fmt: skip


def load() -> np.ndarray:
    """An oscillation with noise."""
    rng = np.random.default_rng(0)
    return 50 + 10 * np.sin(np.arange(ROWS) / 3) + rng.normal(size=ROWS)


def table(path: Path, **columns) -> Path:
    """A CSV of hourly rows."""
    hours = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    pd.DataFrame({"time": hours, "kW": load()} | columns).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def quick():
    """Measurements of cost that are too short to be true, and trainings in this process."""
    measured: dict[str, Speed] = {}
    measure = cost.speed

    def once(config, display):
        name = f"{config.cell} {config.integration}"
        return measured.setdefault(name, measured.get(name) or measure(config, display))

    with trained_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_SECONDS", 0.02)
        patch.setattr(cost, "speed", once)
        yield


@pytest.fixture
def slow(monkeypatch):
    """Trainings that are said to take so long that 30 minutes have no room for fractions."""
    monkeypatch.setattr(cost, "speed", lambda config, display: Speed(250.0, 0.01, 0.01, 4))


def compare(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    return call_module("compare", f"--workdir={folder}", "--minutes=30", *SMALL, *flags)


def refused(done: subprocess.CompletedProcess, *told: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("rnnx.compare: error: ")
    for words in told:
        assert words in line


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def forecast(quick, tmp_path_factory) -> tuple[Path, list[str], subprocess.CompletedProcess]:
    """A comparison of forecasts: its folder, flags, and how it ended."""
    place = tmp_path_factory.mktemp("forecast")
    flags = [f"--data={table(place / 'load.csv')}", f"--horizon={HORIZON}", "--cells=mi-lstm"]
    return place / "c", flags, compare(place / "c", *flags)


# ---------------------------------------------------------------------------- the whole way


def test_a_comparison_of_forecasts(forecast):
    folder, _, done = forecast
    assert done.returncode == 0, done.stderr
    report = report_of(folder)
    assert report.keys() >= KEYS and report["task"] == "forecast"
    assert (report["metric"], report["unit"]) == ("MAE", "kW")
    assert [m["name"] for m in report["models"]] == ["LSTM", "MI-LSTM"]
    for model in report["models"]:
        assert model.keys() >= OF_A_MODEL
        assert model["params"] <= 260 and len(model["scores_by_seed"]) == 2
        assert model["score"] == pytest.approx(np.mean(model["scores_by_seed"]))
        assert model["interval"][0] <= model["score"] <= model["interval"][1]
        assert model["latency_us"]["p50"] > 0 and model["disk_bytes"] > 0
        assert len(model["by_step"]) == HORIZON and len(model["tuning"]) == 1
    assert [v["equal"] for v in report["verdicts"]] == ["epochs", "seconds"]
    for v in report["verdicts"]:
        assert v["answer"] in ("worth it", "not worth it", "undecided")
        assert v["answer"] != "worth it"  # with two seeds
    assert report["control"]["answer"] == "no difference"
    assert {f["fraction"] for f in report["fractions"]} == {0.1, 0.3, 1.0}
    assert report["examples"]["forecasts"]

    y = load()
    valid = round(0.8 * ROWS)
    origins = np.arange(valid - 1, ROWS - HORIZON)
    last = np.mean([abs(y[origins + h] - y[origins]) for h in range(1, HORIZON + 1)])
    scores = {f["name"]: f["score"] for f in report["floors"]}
    assert scores["last value"] == pytest.approx(last)
    for model in report["models"]:  # after an epoch no network is better than ridge regression
        assert model["behind_floor"] == min(scores, key=scores.get)


def test_the_plan_is_said_first_and_the_verdict_last(forecast):
    _, _, done = forecast
    out = done.stdout
    places = [
        out.index(s) for s in ("task forecast", "plan ", "tuning 2 networks", "control:", "chosen:")
    ]
    assert places == sorted(places)
    assert "report.html" in out.splitlines()[-1]


def test_every_run_is_in_the_table_and_none_has_seen_the_test_part(forecast):
    folder, _, _ = forecast
    rows = list(csv.DictReader(io.StringIO((folder / "runs.csv").read_text())))
    stages = [row["stage"] for row in rows]
    expected = {"tune": 2, "seeds": 4, "control": 2, "seconds": 2, "fraction": 8}
    assert {stage: stages.count(stage) for stage in expected} == expected
    report = report_of(folder)
    for model in report["models"]:
        mine = [r for r in rows if r["stage"] == "seeds" and r["model"] == model["name"]]
        assert [float(r["test"]) for r in mine] == pytest.approx(model["scores_by_seed"])
    seeds = {s: {r["seed"] for r in rows if r["stage"] == s} for s in expected}
    assert seeds["tune"] == {"0"} and seeds["seeds"] == {"1", "2"} == seeds["seconds"]
    assert seeds["control"] == {"3", "4"}
    assert all((r["test"] == "") == (r["stage"] == "tune") for r in rows)
    results = list(folder.glob("*/**/trials/*/result.json"))
    assert len(results) == 18
    assert not any("test" in json.loads(path.read_text()) for path in results)
    assert "MI-LSTM" in (folder / "report.md").read_text()
    assert "<html" in (folder / "report.html").read_text()


def test_the_same_again_trains_nothing_and_comes_to_the_same(forecast, monkeypatch):
    folder, flags, _ = forecast
    before = report_of(folder)

    def fail(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(trainer, "run", fail)
    monkeypatch.setattr(cost, "latency", fail)
    start = time.process_time()
    done = compare(folder, *flags)
    assert done.returncode == 0, done.stderr
    assert time.process_time() - start < 10
    after = report_of(folder)
    after["machine"]["git"] = before["machine"]["git"]  # there may be a commit in between
    assert after == before


@pytest.mark.parametrize(
    "changed, told",
    [("--seeds=3", "seeds"), ("--cells=gru", "candidates"), ("--horizon=2", "arguments"),
     ("--margin=0.1", "margin")],
)  # fmt: skip
def test_another_question_in_the_same_folder_is_refused(forecast, changed, told):
    folder, flags, _ = forecast
    before = report_of(folder)
    refused(compare(folder, *flags, changed), f"differs in {told})")
    assert report_of(folder) == before


def test_the_winner_predicts(forecast, tmp_path):
    folder, _, _ = forecast
    chosen = report_of(folder)["chosen"]
    run = open_run(folder / "winner")
    names = {"LSTM": "additive", "MI-LSTM": "mi"}
    assert run.config.integration == names[chosen["model"]]
    command = chosen["command"].split()
    assert command[:3] == ["python", "-m", "rnnx.predict"]
    new = table(tmp_path / "new.csv")
    args = [a.replace("NEW.csv", str(new)) for a in command[3:]]
    done = call_module("predict", *args)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [r["step"] for r in rows] == ["1", "2", "3"]
    assert all(float(r["low"]) <= float(r["forecast"]) <= float(r["high"]) for r in rows)
    # of the seeds of the chosen network the best on the valid part
    trials = [p for p in (folder / "seeds" / "trials").iterdir() if p.is_dir()]
    results = [json.loads((p / "result.json").read_text()) for p in trials]
    best = min(
        r["valid"]["mae"] for r in results if r["config"]["integration"] == run.config.integration
    )
    assert json.loads((folder / "winner" / "result.json").read_text())["valid"]["mae"] == best


def test_its_commands_train_the_same_networks_again(forecast, tmp_path):
    folder, _, _ = forecast
    command = next(c for c in report_of(folder)["commands"] if "--workdir=runs/mi-lstm" in c)
    args = command.replace("runs/mi-lstm", str(tmp_path / "again")).split()
    assert args[:3] == ["python", "-m", "rnnx.train"]
    done = call_module("train", *args[3:])
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    trials = [json.loads(p.read_text()) for p in folder.glob("seeds/trials/*/result.json")]
    (first,) = [r for r in trials if (r["config"]["integration"], r["config"]["seed"]) == ("mi", 1)]
    assert again["valid"] == first["valid"]
    assert again["config"] == first["config"] | {"score_test": True}


def sequences(path: Path, classes: bool) -> Path:
    """40 sequences of four steps, by the sign of their first column, or with numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4, 2)).astype(np.float32)
    mean = x[:, :, 0].mean(axis=1)
    np.savez(path, x=x, y=(mean > 0).astype(int) if classes else 100 + 5 * mean)
    return path


@pytest.mark.long
def test_a_comparison_of_classes(quick, slow, tmp_path):
    data = sequences(tmp_path / "own.npz", True)
    done = compare(tmp_path / "c", f"--data={data}", "--cells=lstm")
    assert done.returncode == 0, done.stderr
    assert "task classify" in done.stdout
    report = report_of(tmp_path / "c")
    assert (report["task"], report["metric"]) == ("classify", "error rate")
    assert report["plan"]["left_out"] == [FRACTIONS_OUT] and not report["fractions"]
    assert f"left out  {FRACTIONS_OUT}: raise --minutes" in done.stdout
    assert [f["name"] for f in report["floors"]] == ["most frequent class", "1-nearest neighbour"]
    assert np.sum(report["examples"]["confusion"]["matrix"]) == report["data"]["rows"][2] == 8
    (model,) = report["models"]
    assert model["behind_floor"] in (None, "1-nearest neighbour", "most frequent class")
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 4, 2), np.float32))
    done = call_module(
        "predict", f"--workdir={tmp_path / 'c/winner'}", f"--data={tmp_path / 'new.npz'}"
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4, done.stderr


@pytest.mark.long
def test_a_comparison_of_numbers(quick, slow, tmp_path):
    data = sequences(tmp_path / "own.npz", False)
    done = compare(tmp_path / "c", f"--data={data}", "--task=regress", "--cells=lstm")
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path / "c")
    assert (report["task"], report["metric"]) == ("regress", "RMSE")
    assert [f["name"] for f in report["floors"]] == ["mean", "least squares, last step"]
    assert len(report["examples"]["scatter"]["truth"]) == 8
    runs = csv.DictReader(io.StringIO((tmp_path / "c" / "runs.csv").read_text()))
    (trial,) = report["models"][0]["tuning"]  # the root of what is minimized, there and here
    assert float(next(runs)["valid"]) == pytest.approx(trial["score"])


@pytest.mark.long
def test_a_comparison_of_a_text(quick, slow, tmp_path):
    text = write_text(tmp_path / "weather.txt")
    done = compare(tmp_path / "c", f"--data={text}", "--cells=lstm", "--param_budget=1500")
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path / "c")
    assert (report["task"], report["metric"]) == ("text", "bits per character")
    assert [f["name"] for f in report["floors"]] == ["symbol frequencies", "7-gram"]
    assert len(report["examples"]["samples"]) == 2
    assert call_module("sample", f"--workdir={tmp_path / 'c/winner'}", "--length=5").returncode == 0


# ---------------------------------------------------------------------------- killed

TIMED = (
    "train_seconds", "seconds_to_lstm", "memory_bytes", "latency_us", "window_us", "throughput",
    "disk_bytes", "curves",
)  # fmt: skip


def without_times(report: dict) -> dict:
    for model in report["models"]:
        for name in TIMED:
            del model[name]
        if model["equal_time"]:
            del model["equal_time"]["seconds"]
    for name in ("machine", "commands", "chosen", "examples"):
        del report[name]
    return report


def until(there: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("moment", ["tune", "seeds"])
def test_killed_half_way_it_comes_to_the_same(moment, tmp_path):
    """The undisturbed comparison starts with the plan of the other: speeds are measured anew."""
    flags = [f"--data={table(tmp_path / 'load.csv')}", f"--horizon={HORIZON}", "--cells=lstm",
             "--minutes=30", *SMALL]  # fmt: skip
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "rnnx.compare", f"--workdir={folder}", *flags],
        cwd=ROOT, env=one_device(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    place = {"tune": "tune/trials/*/metrics.jsonl", "seeds": "seeds/trials/*/result.json"}
    until(lambda: any(folder.glob(place[moment])), process)
    plan = (folder / "plan.json").read_text()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143, out
    assert not (folder / "report.json").exists()
    done = run_module("compare", f"--workdir={folder}", *flags, timeout=900)
    assert done.returncode == 0, done.stderr
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "plan.json").write_text(plan)
    with trained_here():
        done = call_module("compare", f"--workdir={tmp_path / 'whole'}", *flags)
    assert done.returncode == 0, done.stderr
    resumed, whole = (without_times(report_of(tmp_path / n)) for n in ("killed", "whole"))
    assert resumed.keys() == whole.keys()
    assert json.loads(json.dumps(resumed), parse_float=rounded) == json.loads(
        json.dumps(whole), parse_float=rounded
    )


def rounded(number: str) -> float:
    """Devices and levels of optimisation differ between the two."""
    return float(f"{float(number):.2e}")
