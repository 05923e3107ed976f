"""Sweeps on a PostgreSQL server of their own: every trial once, none lost, whatever is cut."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, call_module, one_device
from optuna.trial import TrialState
from test_sweep import plan, steps_of

from rnnx import config as configs
from rnnx import workdir
from rnnx.sweep import leases, space
from rnnx.sweep.ledger import Ledger, Plan

TOOLS = next(
    (
        Path(path).resolve().parent
        for path in [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))]
        if path
    ),
    None,
)
pytest.importorskip("psycopg", reason="needs a driver: pip install 'psycopg[binary]'")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(TOOLS is None, reason="needs PostgreSQL: apt-get install postgresql"),
]

# A sweep whose trials take half a second each and write down that they began.
SWEEP = """
import runpy, sys
from rnnx.sweep import leases
sys.executable = {trial!r}
machine = sys.argv.pop(1)
leases.this_machine = lambda: machine
sys.argv[0] = "rnnx/sweep/__main__.py"
runpy.run_module("rnnx.sweep", run_name="__main__", alter_sys=True)
"""
TRIAL = """#!{python}
import json, os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
folder.mkdir(parents=True, exist_ok=True)
begun = os.open({begun!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(begun, (folder.name + chr(10)).encode())
number = int(folder.name[:3])
with open(folder / "metrics.jsonl", "w") as file:
    for epoch in range(4):
        time.sleep({seconds})
        line = {{"kind": "epoch", "step": epoch + 1, "epoch": epoch, "valid_batched_nll": number}}
        print(json.dumps(line), file=file, flush=True)
result = {{"format": 1, "valid": {{"nll": float(number)}}, "seconds": 1.0}}
(folder / "result.json").write_text(json.dumps(result))
"""


class Server:
    """A PostgreSQL server on a socket in a temporary folder."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        self.as_user: list[str] = []
        if os.getuid() == 0:  # which PostgreSQL refuses
            shutil.chown(folder, "postgres", "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._call("initdb", "-D", self.data, "-A", "trust", "-U", "rnnx", "--no-sync")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        log = self.folder / "log"
        self._call("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def address(self, folder: Path | None = None) -> str:
        return f"postgresql://rnnx@/postgres?host={folder or self.folder}"

    def _call(self, tool: str, *args: str | Path) -> None:
        subprocess.run(
            [*self.as_user, str(TOOLS / tool), *map(str, args)], cwd="/", check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="rnnx-", dir="/tmp"))  # a socket's path must be short
    made = Server(folder)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder)


class Line:
    """A way to the server that can be cut."""

    def __init__(self, server: Server):
        self.folder = Path(tempfile.mkdtemp(prefix="rnnx-", dir="/tmp"))
        self._name = ".s.PGSQL.5432"
        self._server, self._open, self._pairs = server, True, []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.folder / self._name))
        self._socket.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self, seconds: float) -> None:
        self._open = False
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        self._open = True

    def close(self) -> None:
        self.cut(0)
        self._socket.close()
        shutil.rmtree(self.folder)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                far = socket.socket(socket.AF_UNIX)
                try:
                    if not self._open:
                        raise ConnectionError
                    far.connect(str(self._server.folder / self._name))
                except OSError:
                    near.close()
                    continue
                self._pairs += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def stub(tmp_path: Path, seconds: float) -> str:
    """A program for sweeps of stand-ins; their beginnings go to `begun`."""
    trial = tmp_path / "trial"
    made = TRIAL.format(python=sys.executable, begun=str(tmp_path / "begun"), seconds=seconds)
    trial.write_text(made)
    trial.chmod(0o755)
    return SWEEP.format(trial=str(trial))


def begin(program: str, machine: str, *args: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program, machine, *args], cwd=ROOT, env=one_device(PYTHONPATH="."),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def told(process: subprocess.Popen, seconds: float) -> list[str]:
    """What a sweep printed until its end."""
    try:
        return process.communicate(timeout=seconds)[0].splitlines()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(process.communicate()[0]) from None


def trials(address: str, name: str) -> list[optuna.trial.FrozenTrial]:
    url = address.replace("postgresql:", "postgresql+psycopg:")
    study = optuna.load_study(study_name=name, storage=url)
    return [t for t in study.trials if "surplus" not in t.user_attrs]


def test_eight_workers_from_four_folders_share_a_server_that_goes_away(
    server: Server, config_file: Path, tmp_path: Path
) -> None:
    """The server is stopped and started, and one worker's line is cut for a minute."""
    program, line = stub(tmp_path, 1.2), Line(server)
    points = 48
    grid = f"--grid=hidden_size={','.join(map(str, range(1, points + 1)))}"
    command = [f"--config={config_file}", grid]
    workers = []
    for i in range(8):
        folder = tmp_path / "abcd"[i % 4] / "shared"
        address = server.address(line.folder if i == 7 else None)
        args = [*command, f"--workdir={folder}", f"--storage={address}"]
        workers.append(begin(program, "abcd"[i % 4], *args))
    begun, deadline = tmp_path / "begun", time.monotonic() + 120
    while not begun.exists() or len(begun.read_text().splitlines()) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    cutting = threading.Thread(target=line.cut, args=(60,))
    cutting.start()
    time.sleep(3)
    server.stop()
    time.sleep(6)
    server.start()
    cutting.join()
    outputs = [told(worker, 240) for worker in workers]
    line.close()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output
        assert not any("Traceback" in text for text in output)
        assert sum("the study is out of reach" in text for text in output) == 1, output
        assert sum("the study is back after" in text for text in output) == 1, output
    assert "the study is back after 1 min" in "\n".join(outputs[7]), outputs[7]
    found = trials(server.address(), "shared")
    done = [t for t in found if t.state == TrialState.COMPLETE]
    assert sorted(t.user_attrs["point"]["hidden_size"] for t in done) == list(range(1, points + 1))
    assert all(t.value == t.number for t in done)
    assert max(Counter(begun.read_text().splitlines()).values()) == 1, "a trial ran twice"
    assert len({t.user_attrs["home"] for t in done}) == 4


def test_a_vanished_machine_s_trials_are_taken_up(
    server: Server, config_file: Path, tmp_path: Path
) -> None:
    """Two real trainings are killed with their sweeps; another machine continues one from its
    checkpoint, in a common folder, and one from the start."""
    program = SWEEP.format(trial=sys.executable)
    command = [f"--config={config_file}", "--grid=depth=1", "--config.epochs=400"]
    command += ["--config.max_steps=600", "--config.checkpoint_every=20"]
    homes = {"common": ("a", "a"), "apart": ("a", "b")}
    args = {
        name: [
            [*command, f"--workdir={tmp_path / home / name}", f"--storage={server.address()}"]
            for home in places
        ]
        for name, places in homes.items()
    }
    first = {name: begin(program, "one", *args[name][0]) for name in homes}
    for name in homes:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "a" / name).glob("trials/*/checkpoints/latest/*[0-9]")):
            assert time.monotonic() < deadline and first[name].poll() is None, told(first[name], 1)
            time.sleep(0.1)
    second = {name: begin(program, "two", *args[name][1]) for name in homes}
    time.sleep(20)
    for name, process in first.items():
        assert process.poll() is None, told(process, 1)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        for pid in [process.pid, *map(int, children)]:
            os.kill(pid, signal.SIGKILL)
        assert not list((tmp_path / "a" / name).glob("trials/*/result.json"))
    vanished = time.monotonic()
    waits = {}
    logs = {"common": tmp_path / "a" / "common", "apart": tmp_path / "b" / "apart"}
    while len(waits) < 2:
        assert time.monotonic() - vanished < 120, waits
        for name in homes.keys() - waits.keys():
            log = "".join(path.read_text() for path in (logs[name] / "logs").glob("000*"))
            if log.count("python -m rnnx.train") == (2 if name == "common" else 1):
                waits[name] = time.monotonic() - vanished
        time.sleep(0.2)
    print("taken up after", waits)
    for name in homes:
        output = told(second[name], 200)
        assert second[name].returncode == 0, output
        (folder,) = (logs[name] / "trials").glob("000*")
        assert steps_of(folder) == list(range(1, 601))
        continued = "continued" in workdir.read_json(folder / "run.json")
        assert continued == (name == "common")
        (trial,) = trials(server.address(), name)
        assert trial.state == TrialState.COMPLETE
    scores = [
        workdir.read_json(next((logs[name] / "trials").glob("000*")) / "result.json")["valid"]
        for name in homes
    ]
    assert scores[0] == scores[1]


def at_once(*ledgers: Ledger) -> list:
    """Their claims at the same moment."""
    claims, barrier = [], threading.Barrier(len(ledgers))

    def claim(ledger: Ledger) -> None:
        barrier.wait()
        claims.append(ledger.claim())

    threads = [threading.Thread(target=claim, args=(ledger,)) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [claim for claim in claims if claim is not None]


def test_of_two_that_ask_for_the_last_trial_at_once_one_gets_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Plan(configs.default(), [], space=space.search("learning_rate=0..1"), trials=1)
    for i in range(10):
        for kind, asked in (("grid", plan("depth=1")), ("search", search)):
            ledgers = [
                Ledger(tmp_path / home / f"{kind}{i}", asked, server.address()) for home in "ab"
            ]
            claims = at_once(*ledgers)
            if not claims:  # each may have seen the other's
                claims = at_once(*ledgers)
            assert len(claims) == 1, (kind, i)
            for ledger in ledgers:
                ledger.beat([])
            with monkeypatch.context() as patch:  # and of two that take it over
                patch.setattr(leases, "SILENCE", -1.0)
                claims[0].log.close()
                third = Ledger(tmp_path / "c" / f"{kind}{i}", asked, server.address())
                third.beat([])
                again = at_once(ledgers[1], third)
            assert len(again) == 1, (kind, i)


def test_what_the_server_refuses_is_told_in_one_line(
    server: Server, config_file: Path, tmp_path: Path
) -> None:
    for address, words in (
        (server.address().replace("/postgres", "/nosuch"), 'database "nosuch" does not exist'),
        (server.address().replace("rnnx@", "nobody@"), 'role "nobody" does not exist'),
    ):
        folder = f"--workdir={tmp_path / 's'}"
        done = call_module("sweep", f"--config={config_file}", folder, f"--storage={address}")
        assert done.returncode in (2, os.EX_TEMPFAIL) and words in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
