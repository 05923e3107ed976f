"""What a person sees of a run."""

import io

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
