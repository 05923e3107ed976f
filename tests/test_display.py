"""What a person sees of a run."""

import io
import os

from rnnx import display as displays
from rnnx.display import Display


def test_progress_is_plain_lines_off_a_terminal(monkeypatch) -> None:
    now, stream = 0.0, io.StringIO()
    monkeypatch.setattr(displays.time, "monotonic", lambda: now)
    display = Display(stream)
    display.start("epoch 1", total=100, done=20)
    for done in range(21, 61):
        now += 1.0
        display.update(done, "5 tokens/s")
    display.finish()
    assert stream.getvalue() == "epoch 1: 50/100 5 tokens/s  ETA 50 s\n"


def test_a_run_that_nobody_reads_goes_on() -> None:
    hear, tell = os.pipe()
    os.close(hear)
    with os.fdopen(tell, "w") as stream:
        display = Display(stream)
        for _ in range(3):
            display.print("epoch 1")
        display.start("epoch 2", total=2)
        display.finish()
    assert display.console.quiet
