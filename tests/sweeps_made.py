"""A small experiment, and trials that end as they are told: for the tests of sweeps."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """
from rnnx.config import default

def get_config():
    config = default()
    config.update(corpus={corpus!r}, hidden_size=12, batch_size=8, num_steps=50, epochs=9,
                  init_scale=0.2, learning_rate=0.1)
    return config

def sweep(config, add):
    for depth in (1, 2):
        add(depth=depth)
"""


@pytest.fixture
def config_file(text: Path, tmp_path: Path) -> Path:
    path = tmp_path / "experiment.py"
    path.write_text(CONFIG.format(corpus=str(text)))
    return path


# In place of `python -m rnnx.train`: ends with the exit code, by the signal (negative), or with the
# score that plan.json gives its number; one that scores more than 1.5 waits to be stopped.
TRIAL = """#!{python}
import json, os, pathlib, signal, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
folder.mkdir(parents=True, exist_ok=True)
plan = json.loads((pathlib.Path(__file__).parent / "plan.json").read_text())
told = plan.get(str(int(folder.name[:3])), 1.0)
if type(told) is int:
    print("no luck", flush=True)
    if told < 0:
        os.kill(os.getpid(), -told)
    sys.exit(told)
with open(folder / "metrics.jsonl", "w") as file:
    for epoch in range(3):
        line = {{"kind": "epoch", "step": epoch + 1, "epoch": epoch, "valid_batched_nll": told}}
        print(json.dumps(line), file=file, flush=True)
if told > 1.5:
    time.sleep(60)
result = {{"format": 1, "valid": {{"nll": told}}, "seconds": 1.0}}
(folder / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def trials_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict], None]:
    """Has sweeps in this process start trials that do what a plan says of their numbers."""
    trial = tmp_path / "trial"
    trial.write_text(TRIAL.format(python=sys.executable))
    trial.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(trial))
    return lambda plan: (tmp_path / "plan.json").write_text(json.dumps(plan))
