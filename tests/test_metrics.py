"""What a run prints and writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rnnx import metrics
from rnnx.errors import UserError
from rnnx.metrics import Clock, Log, Score, duration, unigram


def test_score_units() -> None:
    score = Score(nats=200 * math.log(4), tokens=200)
    assert score.ppl == pytest.approx(4) and score.bpc == pytest.approx(2)
    assert score.show("word") == "ppl 4.00"
    assert score.show("char") == "bpc 2.0000"
    assert Score(1e6, 1).ppl == math.inf  # not an OverflowError


def test_unigram_is_the_frequencies_of_train() -> None:
    train, scored = np.array([0, 0, 0, 1]), np.array([1, 0, 1, 2])
    p = np.array([4, 2, 1]) / 7  # add one
    expected = -np.log(p[[0, 1, 2]]).sum()  # the first token is no target
    assert unigram(train, scored, 3) == Score(pytest.approx(expected), 3)


def test_log_continues_at_the_checkpoint_s_position(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("step", 1, loss=2.0)
    position = log.position
    log.write("step", 2, loss=math.pi)
    log.close()
    (tmp_path / "metrics.jsonl").open("a").write('{"kind": "step", "ste')  # torn by a kill
    log = Log(tmp_path, position, step=1)
    log.write("step", 2, loss=math.e)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert lines == [
        {"kind": "step", "step": 1, "loss": 2.0},
        {"kind": "step", "step": 2, "loss": math.e},
    ]
    with pytest.raises(UserError, match="has lost lines"):
        Log(tmp_path, 10_000)


def test_clock_leaves_out_compilation_and_what_stands_between(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    clock = Clock(seconds=10.0, tokens=1000)
    clock.start()
    now = 60.0
    clock.lap(100)  # the first step compiles
    assert (clock.seconds, clock.tokens) == (10.0, 1000)
    now = 62.0
    clock.lap(100)
    now = 63.0  # the last step, which ran ahead, is over
    clock.stop()
    now = 500.0  # validation
    clock.start()
    now = 501.0
    clock.lap(100)
    assert (clock.seconds, clock.tokens) == (14.0, 1200)
    assert clock.rate == pytest.approx(1200 / 14)


@pytest.mark.parametrize(
    "seconds, text", [(5.4, "5 s"), (723, "12 min 3 s"), (25_500, "7 h 5 min"), (59.7, "1 min 0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
