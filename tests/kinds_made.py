"""What the tests of compared tasks share: kinds, and networks that predict what they are told."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from rnnx import config as configs
from rnnx import tasks
from rnnx.compare import forecasts, kinds
from rnnx.compare.kind import Kind
from rnnx.compare.kinds import KINDS
from rnnx.tasks import network

PLACES = [Path(p) for p in (os.environ.get("RNNX_DATA"), ROOT.parent / "shared" / "data") if p]
DATA = next((place for place in PLACES if (place / "cmapss").is_dir()), Path("nowhere"))


def needs(name: str) -> pytest.MarkDecorator:
    missing = not (DATA / name).exists()
    return pytest.mark.skipif(missing, reason=f"needs {name}: set RNNX_DATA to its folder")


def kind_of(task: str, **fields) -> Kind:
    """As `rnnx.compare` makes it."""
    config = configs.default(task)
    config.update({"cell": "lstm", "hidden_size": 4} | fields)
    module = tasks.of(config)
    dataset = module.load(config, lambda line: None)
    config.update(dataset.fields)
    return KINDS[task](module, network.resolve(config, dataset.spec), dataset)


def run_of(kind: Kind, fraction: float = 1.0) -> SimpleNamespace:
    """What stands for a trained run where `predictions` is replaced."""
    return SimpleNamespace(config={"fraction": fraction})


def predicting(monkeypatch: pytest.MonkeyPatch, function: Callable[[dict], dict]) -> None:
    """Every network predicts function(batch)."""
    for module in (kinds, forecasts):
        monkeypatch.setattr(
            module, "predictions", lambda run, batches, *_: ((b, function(b)) for b in batches)
        )
