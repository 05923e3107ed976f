"""What a person sees of a run."""

import io
import os
import pty
from collections.abc import Callable

import pytest

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


@pytest.mark.parametrize("ends", [os.pipe, pty.openpty])
def test_a_run_that_nobody_reads_goes_on(ends: Callable[[], tuple[int, int]]) -> None:
    """As after `| head`, and where a terminal's window was closed."""
    hear, tell = ends()
    with os.fdopen(tell, "w") as stream:
        display = Display(stream)
        assert display.console.is_terminal == (ends is pty.openpty)
        display.print("epoch 1")
        os.close(hear)
        for _ in range(3):
            display.print("epoch 1")
            display.start("epoch 2", total=2)
            display.update(1)
            display.finish()
        assert os.path.samestat(os.stat(os.devnull), os.fstat(stream.fileno()))


def test_other_faults_of_a_stream_are_told() -> None:
    with open("/dev/full", "w") as stream, pytest.raises(OSError, match="No space"):
        try:
            Display(stream).print("epoch 1")
        finally:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
