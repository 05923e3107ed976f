"""Data that can't be used, through the command: one line that says why, and exit code 2."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import call_module
from data_files import hours, write
from sequences_made import table

from rnnx import config as configs
from rnnx import tasks
from rnnx.errors import UserError


def refused(kind: str, corpus: Path, *more: str) -> str:
    done = call_module(
        "train", f"--config=own:{kind}", f"--config.corpus={corpus}", "--dry_run", *more
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("rnnx.train: error: ")
    return done.stderr


def frame_of(rows: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"at": hours(rows), "y": rng.normal(size=rows), "z": ["word"] * rows})


@pytest.mark.parametrize(
    "change, flags, told",
    [
        (lambda f: f, ["target=yy"], "no column 'yy'; did you mean y"),
        (lambda f: f, ["target=z"], "target 'z' is not numeric: 'word' in row 1"),
        (lambda f: f[:9], ["target=y", "horizon=5"], "fewer than two horizons of 5"),
        (lambda f: f.assign(at="soon"), ["time=at", "target=y"], "is not a time"),
        (lambda f: f.assign(y=np.nan), ["target=y"], "all are missing"),
        (lambda f: f, ["target=y", "horizon=21"], "21 is longer than the test part of 20 rows"),
        (lambda f: f.assign(y=1.0), ["target=y"], "nothing to learn"),
        (lambda f: f, ["target=y", "num_steps=24"], "raise num_steps, or use anchor=last"),
    ],
    ids=["column", "text", "short", "times", "missing", "horizon", "constant", "season"],
)
def test_series_that_cannot_be_forecast(change, flags: list[str], told: str, tmp_path) -> None:
    flags = ["horizon=3", "season=24", *flags]
    path = write(tmp_path, change(frame_of()))
    assert told in refused("forecast", path, *(f"--config.{flag}" for flag in flags))


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    frame_of().to_parquet(path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "cut short or damaged" in refused("forecast", path)
    assert "cut short or damaged" in refused(
        "classify", path, "--config.target=z", "--config.group=y"
    )


@pytest.mark.parametrize("kind", ["forecast", "classify", "regress"])
def test_a_file_that_is_not_there(kind: str, tmp_path: Path) -> None:
    assert "is neither a set nor a file" in refused(kind, tmp_path / "no.csv")
    assert "is not a file" in refused(kind, tmp_path)


@pytest.mark.parametrize(
    "change, flags, told",
    [
        (lambda f: f.assign(label="up"), [], "one class only, 'up'"),
        (lambda f: f, ["target=lable"], "did you mean label"),
        (lambda f: f, ["group="], "name the column of the group"),
        (lambda f: f, ["covariates=label"], "one role only"),
        (lambda f: f.assign(t="soon"), ["time=t"], "is not a time"),
        (lambda f: f.assign(a=np.nan, b=np.nan), ["covariates=a,b"], "no sequences"),
    ],
    ids=["class", "column", "group", "role", "times", "missing"],
)
def test_sequences_that_cannot_be_told_apart(change, flags: list[str], told, tmp_path) -> None:
    flags = ["target=label", "group=id", *flags]
    path = write(tmp_path, change(pd.read_csv(table(tmp_path, "classify"))), "changed.csv")
    assert told in refused("classify", path, *(f"--config.{flag}" for flag in flags))


def test_numbers_that_are_none(tmp_path: Path) -> None:
    path, flags = table(tmp_path, "classify"), ("--config.target=label", "--config.group=id")
    assert "target 'label' is not numeric" in refused("regress", path, *flags)


# ---------------------------------------------------------------------------- fields of tasks


@pytest.mark.parametrize(
    "config, field, told",
    [
        ("ptb_word", "horizon=3", "horizon is a field of the task forecast, not of this"),
        ("own:classify", "horizon=3", "horizon is a field of the task forecast, not of this"),
        ("own:forecast", "pool=mean", "pool is a field of the task classify or regress, not"),
        ("ptb_word", "horizn=3", "unknown config field 'horizn'; did you mean horizon"),
    ],
)
def test_a_field_of_another_task_is_refused(config: str, field: str, told: str) -> None:
    done = call_module("train", f"--config={config}", f"--config.{field}", "--dry_run")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr


def test_configs_have_the_fields_of_their_task() -> None:
    for task in ("", "language", "rolls", "forecast", "classify", "regress"):
        config = configs.default(task)
        configs.validate(config)
        assert config.task == task
        for name, field in configs.FIELDS.items():
            has = not field.tasks or (task or "language") in field.tasks
            assert (name in config) == has, (task, name)
        again = tasks.config_from_json(configs.to_json(config), "config.json")
        assert again.to_dict() == config.to_dict()
    config = configs.default("forecast")
    del config["horizon"]
    with pytest.raises(UserError, match=r"lacks the field.* horizon: default\('forecast'\)"):
        configs.validate(config)
    config = configs.default()
    config.horizon = 3
    with pytest.raises(UserError, match="horizon is a field of the task forecast, not of language"):
        configs.validate(config)


def test_a_workdir_of_before_tasks_had_fields_opens() -> None:
    stored = configs.to_json(configs.default())
    for name in ("task", "cap", "fraction", "forget_bias"):
        stored.pop(name, None)
    again = tasks.config_from_json(stored, "config.json")
    assert again.to_dict() == configs.default().to_dict()
    assert "horizon" not in again
