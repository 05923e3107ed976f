"""Plants what a comparison must find, and what it must not, and counts how often it is right.

    scripts/test-planted [--repetitions=20] [--seed=0]

A winner: numbers that are products of two steps of a sequence, which MI-LSTM learns better than an
LSTM of as many parameters. A leak: a column that holds the next value of the target. Then, on
series drawn anew for each repetition, six LSTMs against six with other seeds: the control must say
`no difference`, in at least 9 of 10; and as a candidate the second six, each test item's loss a
tenth smaller: `worth it`, in at least 8 of 10. All networks are really trained.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import call_module
from here import trained, trained_here

from rnnx import cache
from rnnx import config as configs
from rnnx.compare import verdict
from rnnx.compare.kinds import KINDS
from rnnx.compare.runs import schedule
from rnnx.report.significance import Losses
from rnnx.trained import open_run

SEEDS = 6
ROWS = 1500  # of a series; the last fifth is its test part
GAIN = 0.1


def compared(folder: Path, *flags: str) -> dict:
    """The report of a comparison by command, in this process."""
    with trained_here():
        done = call_module("compare", f"--workdir={folder}", "--minutes=60", "--workers=1", *flags)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads((folder / "report.json").read_text())


def products(path: Path, count: int = 1500, columns: int = 3) -> Path:
    """Sequences of two steps, and the sum of their products.

    y = sum over columns of x[0] x[1]
    """
    x = np.random.default_rng(0).uniform(-1, 1, (count, 2, columns))
    np.savez(path, x=x.astype(np.float32), y=x.prod(axis=1).sum(axis=1))
    return path


def winner(folder: Path, seeds: int = SEEDS, epochs: int = 30) -> dict:
    """The report on a planted winner: MI-LSTM."""
    return compared(
        folder / "winner", f"--data={products(folder / 'products.npz')}", "--task=regress",
        "--cells=mi-lstm", "--param_budget=400", "--trials=5", f"--seeds={seeds}",
        f"--epochs={epochs}",
    )  # fmt: skip


def series(rng: np.random.Generator, rows: int) -> np.ndarray:
    """An oscillation with noise: y[t] = 1.6 y[t-1] - .8 y[t-2] + noise."""
    y = np.zeros(rows + 50)
    for t in range(2, len(y)):
        y[t] = 1.6 * y[t - 1] - 0.8 * y[t - 2] + rng.normal()
    return y[50:]


def leak(folder: Path) -> list[str]:
    """The warnings of a comparison with a covariate that is the target of the next step."""
    y = series(np.random.default_rng(0), 400)
    table = pd.DataFrame(
        {"load": y[:-1], "planned": y[1:], "wind": series(np.random.default_rng(1), 399)}
    )
    table.to_csv(folder / "leak.csv", index=False)
    report = compared(
        folder / "leak", f"--data={folder / 'leak.csv'}", "--target=load", "--horizon=2",
        "--covariates=planned,wind", "--cells=lstm", "--param_budget=300", "--trials=1",
        "--seeds=2", "--epochs=1",
    )  # fmt: skip
    return report["data"]["warnings"]


def losses(folder: Path, seed: int, epochs: int) -> Losses:
    """Of twelve LSTMs on the test part of a series of its own, 300 rows."""
    path = folder / "series.csv"
    y = series(np.random.default_rng(seed), ROWS)
    pd.DataFrame({"y": y}).to_csv(path, index=False)
    config = configs.default("forecast")
    config.update(
        corpus=str(path), horizon=2, season=1, num_steps=32, warmup=16, anchor="last",
        head="quantile", cell="lstm", hidden_size=8, init_scale=0.2, batch_size=8,
        optimizer="adam", learning_rate=0.01, max_grad_norm=1.0, score_test=False,
    )  # fmt: skip
    config.update(schedule(epochs))
    found, kind = [], None
    for number in range(2 * SEEDS):
        config.seed = 2 * SEEDS * seed + number + 1  # no network twice
        experiment, _ = trained(config, folder / f"{number}")
        if kind is None:
            kind = KINDS["forecast"](experiment.task, experiment.config, experiment.dataset)
        found.append(kind.items(open_run(folder / f"{number}")))
    return kind.losses(found)


def repetition(seed: int, epochs: int = 20) -> tuple[dict, dict]:
    """The control, and the verdict on a candidate that is a tenth better."""
    with tempfile.TemporaryDirectory() as place:
        found = losses(Path(place), seed, epochs)
    first, second = (found._replace(total=found.total[r]) for r in np.split(np.arange(12), 2))
    better = second._replace(total=(1 - GAIN) * second.total)
    (row,) = verdict.verdicts({"LSTM": first, "GRU": better}, {}, {}, "MAE")
    return verdict.control(first, second, "MAE"), row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun, failed = time.monotonic(), []

    def told(name: str, good: bool, what: str) -> None:
        seconds, cpu = time.monotonic() - begun, sum(os.times()[:4])
        print(f"{seconds:5.0f} s ({cpu:.0f} s of processors)  {name}: {what}", flush=True)
        if not good:
            failed.append(name)

    with tempfile.TemporaryDirectory() as place:
        os.environ["RNNX_CACHE"] = f"{place}/cache"
        cache.keep_compiled()
        warnings = leak(Path(place))
        good = len(warnings) == 1 and "'planned'" in warnings[0]
        told("leak", good, "; ".join(warnings) or "not flagged")
        for row in winner(Path(place))["verdicts"]:
            # In equal seconds it depends on how fast this machine is with either.
            good = row["answer"] == "worth it" or row["equal"] == "seconds"
            told(f"winner, same {row['equal']}", good, row["sentence"])
        same = better = 0
        for i in range(options.repetitions):
            control, row = repetition(options.seed + i)
            same += control["answer"] == "no difference"
            better += row["answer"] == "worth it"
            parts = [
                f"{100 * c['difference']:+.1f} % ({100 * c['interval'][0]:+.1f} to "
                f"{100 * c['interval'][1]:+.1f}, {c['answer']})"
                for c in (control, row)
            ]
            told(f"repetition {i + 1}", True, f"control {parts[0]}, planted {parts[1]}")
        n = options.repetitions
        told("control", same >= 0.9 * n, f"no difference in {same} of {n}")
        told("gain", better >= 0.8 * n, f"worth it in {better} of {n}")
    print(f"failed: {', '.join(failed)}" if failed else "all found")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
