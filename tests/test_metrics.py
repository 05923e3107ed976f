"""What a run prints and writes."""

import json
import math
import resource
import struct
from pathlib import Path

import pytest

from rnnx import metrics
from rnnx.duration import duration
from rnnx.errors import UserError
from rnnx.metrics import Clock, Log


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
    clock = Clock(seconds=10.0, targets=1000)
    clock.start()
    now = 1.0
    clock.lap(0)  # the next step has a shape that is new
    now = 60.0
    clock.start()  # it has been compiled
    assert (clock.seconds, clock.targets) == (11.0, 1000)
    now = 62.0
    clock.lap(100)
    now = 63.0  # the last step, which ran ahead, is over
    clock.stop()
    now = 500.0  # validation
    clock.lap(100)
    assert (clock.seconds, clock.targets) == (14.0, 1100)
    clock.start()
    now = 501.0
    clock.lap(100)
    assert (clock.seconds, clock.targets) == (15.0, 1200)
    assert clock.rate == pytest.approx(1200 / 15)


def test_a_call_grows_while_it_is_short() -> None:
    """Until there is no room for more. Runs of one program note the same call, to no effect."""
    pace = metrics.Pace(most=6, runs=2)
    found = []
    for count, seconds in ((1, 0.1), (1, 0.1), (2, 0.3), (4, 1.2), (4, 0.9), (6, 0.5)):
        pace.note(count, seconds)
        found.append(pace.together)
    assert found == [2, 2, 4, 4, 6, 6] and pace.share == 0.5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_is_in_bytes() -> None:
    told = Path("/proc/self/status").read_text()
    (kilobytes,) = (line.split()[1] for line in told.splitlines() if line.startswith("VmHWM"))
    assert metrics.peak_memory() == pytest.approx(1024 * int(kilobytes), rel=0.1)


@pytest.mark.parametrize(
    "seconds, text", [(5.4, "5 s"), (723, "12 min 3 s"), (25_500, "7 h 5 min"), (59.7, "1 min 0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def events(folder: Path) -> list:
    """What the TensorBoard files hold: each event behind its length and a sum, before another."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_tensorboard_gets_every_50th_step_and_voids_what_is_told_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(1, 101):
        log.write("step", step, loss=step / 2)
    log.write("epoch", 100, valid_batched_nll=1.5, seconds=2)
    position = log.position
    log.close()
    Log(tmp_path, position, step=100).close()
    told = events(tmp_path / "tensorboard")
    values = [(e.step, v.tag, v.simple_value) for e in told for v in e.summary.value]
    assert values == [
        (50, "step/loss", 25.0),
        (100, "step/loss", 50.0),
        (100, "epoch/valid_batched_nll", 1.5),
        (100, "epoch/seconds", 2.0),
    ]
    assert told[-1].step == 101 and told[-1].session_log.status == 1  # START: later ones are void


def test_a_full_disk_is_told_and_hangs_nothing(tmp_path: Path) -> None:
    """The size at which TensorBoard's file fails is far below that of the metrics."""
    log = Log(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            for step in range(0, 5000, 50):
                log._file.truncate(0)
                log.write("step", step, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
