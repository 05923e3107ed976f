"""Data and flags that cannot be compared: one line each, and nothing is written."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call_module
from test_compare import ROWS, SMALL, load, refused, table


def asked(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    return call_module("compare", f"--workdir={folder / 'c'}", *SMALL, *flags)


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--target=kWh"], ["kWh", "kW"]),
        (["--target=name"], ["name"]),
        (["--time=name"], ["name"]),
        (["--target=none"], ["none"]),
        (["--horizon=60"], ["horizon"]),
        (["--horizon=100"], ["horizon"]),
        (["--cells=mi-lsmt"], ["mi-lsmt", "mi-lstm"]),
        (["--task=forcast"], ["forcast", "forecast"]),
        (["--config=own"], ["--data", "--config"]),
        (["--data="], ["--data", "--config"]),
        (["--data=nowhere.csv"], ["nowhere.csv"]),
        (["--seeds=1"], ["seeds"]),
        (["--minutes=0"], ["minutes"]),
        (["--season=7", "--task=text"], ["--season"]),
        (["--horizen=3"], ["horizen"]),
        (["--covariates=wind"], ["wind"]),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(flags, told, tmp_path):
    columns = {"name": [f"n{i % 7}" for i in range(ROWS)], "none": [None] * ROWS}
    data = table(tmp_path / "own.csv", **columns)
    refused(asked(tmp_path, f"--data={data}", "--target=kW", *flags), *told)
    assert not (tmp_path / "c").exists()


def test_too_few_rows_are_refused(tmp_path):
    pd.DataFrame({"kW": load()[:9]}).to_csv(tmp_path / "own.csv", index=False)
    refused(asked(tmp_path, f"--data={tmp_path / 'own.csv'}", "--horizon=5"), "rows")


def test_a_cap_on_what_is_scored_is_refused(tmp_path):
    data = table(tmp_path / "own.csv")
    given = "--config=own:forecast", f"--config.corpus={data}", "--config.eval_tokens=5"
    refused(asked(tmp_path, *given), "eval_tokens")


def test_a_single_class_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.ones((20, 4, 1)), y=np.zeros(20, int))
    refused(asked(tmp_path, f"--data={tmp_path / 'own.npz'}", "--task=classify"), "class")


def test_a_parquet_file_cut_short_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "own.parquet"
    pd.DataFrame({"kW": load()}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(asked(tmp_path, f"--data={path}", "--horizon=3"), "own.parquet")


def test_a_workdir_is_needed():
    refused(call_module("compare", "--data=x.csv"), "--workdir")


def test_help():
    done = call_module("compare", "--help")
    assert done.returncode == 0
    for said in ("--data=FILE", "--minutes", "--cells", "mingru", "report.html", "--margin"):
        assert said in done.stdout
