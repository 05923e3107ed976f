"""What a comparison trains, and of which runs it says what it finds."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, one_device
from test_compare import table

from rnnx import config as configs
from rnnx import tasks
from rnnx.compare import findings
from rnnx.compare.findings import Findings
from rnnx.compare.kind import Items, Kind
from rnnx.compare.plan import Plan, Speed
from rnnx.compare.runs import Run, best_of, schedule, stages


def made(key: str, stage: str, valid: float, curve: tuple | list = (), **point: Any) -> Run:
    point = {"learning_rate": 0.01, "init_scale": 0.1, "seed": 1} | point
    config = {"cell": "lstm", "integration": "additive", "depth": 1, "hidden_size": 4}
    result = {"config": config, "valid": {"mae": valid}, "params": 9, "seconds": 1.0}
    folder = Path(f"{stage}/{key}/{sorted(point.items())}")
    return Run(key, stage, point, folder, result, list(curve))


SIZES = """
import json, sys
from absl import flags
from rnnx.compare import __main__, question
from rnnx.tasks import network
__main__.define_flags()
flags.FLAGS(["compare", *sys.argv[1:]])
asked = question.from_flags(flags.FLAGS, lambda line: None)
sizes = []
for candidate in asked.candidates:
    config = asked.config.copy_and_resolve_references()
    config.update(candidate.point)
    config = network.resolve(config, asked.dataset.spec)
    sizes.append(network.parameter_count(config, asked.dataset.spec))
print(json.dumps([asked.config.param_budget, sizes]))
"""


def test_networks_are_as_large_as_the_lstm_where_no_size_is_given(tmp_path: Path) -> None:
    data = table(tmp_path / "own.csv")
    done = subprocess.run(
        [sys.executable, "-c", SIZES, f"--data={data}", "--target=kW", "--horizon=3",
         "--cells=mi-lstm,gru,rhn-2"],
        cwd=ROOT, env=one_device(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    budget, sizes = json.loads(done.stdout)
    assert len(sizes) == 4 and sizes[0] == budget
    assert all(0.97 * budget < size <= budget for size in sizes)


def test_the_best_trial_is_that_of_the_valid_part() -> None:
    runs = [made("lstm", "tune", v) for v in (0.5, 0.2, 0.9)]
    diverged = runs[0]._replace(result=None)
    assert best_of([diverged, *runs], tasks.get("forecast")) is runs[1]


def test_stages_train_what_was_tuned_for_as_long_as_is_planned() -> None:
    plan = Plan(["lstm", "gru"], 4, 2, 8, 8, 80.0, (0.5,))
    speeds = {"lstm": Speed(0, 1.0, 0, 10), "gru": Speed(0, 2.0, 0, 10)}
    rates = {"lstm": 0.02, "gru": 0.03}
    tuned = {key: made(key, "tune", 1.0, learning_rate=rate) for key, rate in rates.items()}
    found = {stage.name: stage.points for stage in stages(plan, speeds, tuned, ["gru"])}
    for points in found.values():
        assert all(point["learning_rate"] == rates[key] for key, point in points)
    assert [point["seed"] for _, point in found["seeds"]] == [1, 1, 2, 2]
    assert [point["seed"] for _, point in found["control"]] == [3, 4]
    assert [(key, point["seed"]) for key, point in found["seconds"]] == [("gru", 1), ("gru", 2)]
    for _, point in found["seconds"]:  # twice as slow as the LSTM
        assert point["epochs"] == 4 and point.items() >= schedule(4).items()


class Forty(Kind):
    """Forty items of a forecast."""

    name, metric = "forecast", "MAE"

    def __init__(self) -> None:
        self.count, self.block, self.origins = np.ones(40), np.arange(40), [np.arange(40)]


# By stage and network. The GRU is the best on valid and the worst on test, but for equal seconds;
# with other seeds the LSTM is a tenth worse, from half of the data twice as bad.
TEST = {
    "seeds": {"lstm": 1.0, "gru": 1.3},
    "control": {"lstm": 1.1},
    "seconds": {"gru": 0.7},
    "fraction": {"lstm": 2.0},
}
VALID = {"lstm": 0.9, "gru": 0.8}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Findings:
    monkeypatch.setattr(findings, "open_run", lambda folder: None)
    config = configs.default("forecast")
    config.update(horizon=6, stride=2)
    dataset = SimpleNamespace(about=["a"], name="d", sums={"d": "0"}, sizes=(1, 1, 1))
    question = SimpleNamespace(
        task=tasks.get("forecast"), config=config, dataset=dataset, file="d", margin=0.5,
        minutes=1, workers=1, arguments=[],
    )  # fmt: skip
    trained, items, rng = {}, {}, np.random.default_rng(0)
    for stage, levels in TEST.items():
        for key, level in levels.items():
            curve = [
                {"epoch": e, "step": 10 * (e + 1), "train_mae": 1, "valid_batched_mae": valid}
                for e, valid in enumerate((1.0, VALID[key], 0.95))
            ]
            for seed in range(1, 7):
                fields = {"fraction": 0.5} if stage == "fraction" else {}
                run = made(key, stage, VALID[key], curve, seed=seed, **fields)
                trained.setdefault(stage, []).append(run)
                smooth = np.convolve(rng.normal(size=50), np.ones(6) / 6, "same")[:40]
                items[run.folder] = Items(level * (1 + 0.3 * smooth + 0.01 * seed), {})
    cost = {
        "update": 0.5, "disk_bytes": 1, "latency_us": {"p50": 1.0}, "window_us": 1, "throughput": 1,
    }  # fmt: skip
    plan = Plan(["lstm", "gru"], 1, 6, 2, 2, 1.0, (0.5,))
    return Findings(question, Forty(), plan, trained, items, [], {"lstm": cost, "gru": cost})


def test_what_is_found_is_of_the_runs_it_is_said_of(found: Findings) -> None:
    report = found.report(Path("w"), 1.0)
    epochs, seconds = report["verdicts"]
    assert epochs["difference"] > 0.2 and seconds["difference"] < -0.2
    assert report["control"]["difference"] == pytest.approx(0.1, abs=0.05)
    assert epochs["answer"] == "not worth it"
    assert seconds["answer"] == "not worth it"  # less than the margin of 50 %
    losses = [found._losses("seeds", key) for key in ("gru", "lstm")]
    assert epochs["p_dm"] == findings.tests.diebold_mariano(*losses, 3).p  # 6 steps, every 2nd
    assert report["chosen"]["model"] == "GRU"  # by the valid part
    lstm, gru = report["models"]
    assert gru["train_seconds"] == 10.0  # 20 updates to the second epoch, the best
    assert gru["seconds_to_lstm"] == 10.0 and lstm["equal_time"]["score"] == lstm["score"]
    assert gru["equal_time"]["score"] < 0.8
    assert [row["score"] > 1.5 for row in report["fractions"] if row["model"] == "LSTM"] == [
        True,
        False,
    ]
