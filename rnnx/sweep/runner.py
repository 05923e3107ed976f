"""Trains trials in processes of their own, and follows the metrics that they write."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from rnnx import cli, workdir
from rnnx.duration import duration
from rnnx.errors import Outage, UserError
from rnnx.sweep import processes, storage
from rnnx.sweep.ledger import Claim, Ledger
from rnnx.sweep.processes import Member
from rnnx.sweep.screen import Progress, Screen
from rnnx.tasks.task import Task

_POLL = 0.5  # seconds between checks of the runs
_ASK = 3.0  # between questions for a trial, where none was left the last time
_AGAIN = 5.0  # between tries to reach the study
_PATIENCE = 600.0  # of trying; then the runs save and end
_OUTAGES = 2  # in a row, after which no more trials are started


class Metrics:
    """Follows the metrics of a run while they are written."""

    def __init__(self, folder: Path, task: Task):
        self._folder, self._offset, self._rest = folder, 0, b""
        self._task, self._name = task, f"valid_batched_{task.primary}"
        self.step = self.updates = 0
        self.first_step = 0  # where this process resumed the run
        self._valid: dict[int, float] = {}  # primary scores, by epoch

    @property
    def valid(self) -> list[float]:
        """The valid score of each epoch."""
        return [self._valid[epoch] for epoch in sorted(self._valid)]

    def read(self) -> None:
        """Reads what was written since."""
        path = self._folder / "metrics.jsonl"
        try:
            with open(path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # truncated to its checkpoint
                    self._offset, self._rest, self._valid = 0, b"", {}
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            for line in map(json.loads, lines):
                self.step = line["step"]
                if line["kind"] == "epoch":
                    self._valid[line["epoch"]] = line[self._name]
        except ValueError:  # truncated, and longer than before by now: read all of it again
            self._offset, self._rest, self._valid = 0, b"", {}
        if not self.updates:
            with contextlib.suppress(UserError):
                self.updates = workdir.read_json(self._folder / "run.json").get("updates", 0)

    @property
    def best(self) -> float | None:
        """The best of them, or None."""
        return self._task.best(self.valid) if self.valid else None

    def share(self, step: int) -> float:
        """The share of all updates done at a step."""
        return min(step / self.updates, 1.0) if self.updates else 0.0


@dataclass
class Job:
    """A trial and the process that trains it."""

    claim: Claim
    process: subprocess.Popen | Member
    metrics: Metrics
    slot: int
    begun: float
    pruned: bool = False
    lost: bool = False  # to another process

    @property
    def progress(self) -> Progress:
        """What the screen shows."""
        return Progress(
            self.claim.trial.number,
            self.claim.point,
            len(self.metrics.valid),
            self.metrics.best,
            self.metrics.share(self.metrics.step),
            self.metrics.share(self.metrics.first_step),
            time.monotonic() - self.begun,
        )


class Runner:
    """Runs a plan's trials in `workers` processes at a time, with up to `replicas` in each."""

    def __init__(self, ledger: Ledger, workers: int, screen: Screen, replicas: int = 1):
        self.ledger, self.workers, self.screen = ledger, workers, screen
        self.replicas = replicas
        self.jobs: list[Job] = []
        self.cut: list[str] = []
        self.outages = 0  # in a row
        self.stop = cli.Stop()
        self._ask = 0.0  # when to ask for a trial again
        self._gone = 0.0  # since when the study's server is out of reach; 0: it is not

    def run(self) -> None:
        """Runs until nothing is left to claim.

        Raises:
          Outage: when runs were cut, which the same command continues.
          UserError: when all trials failed.
          OperationalError, StorageInternalError: when the study stays out of reach.
          SystemExit: 128 + N on signal N, all runs having saved.
        """
        with self.stop, self.screen, self._no_orphans():
            while not self.stop.number:
                if self._in_reach(self._over):
                    break
                self._wait(_POLL)
            self.end_all()
            self.ledger.note()
            self.screen.summary()
        if self.stop.number:
            raise SystemExit(128 + self.stop.number)
        if self.cut:
            raise Outage(f"cut from outside: {'; '.join(self.cut)}. The same command continues")
        ended = self.ledger.ended()
        if ended and all(trial.state == TrialState.FAIL for trial in ended):
            raise UserError(
                f"all {len(ended)} trials failed: see above, and {self.ledger.folder}/logs"
            )

    def _over(self) -> bool:
        """A round: starts and checks runs; whether there is nothing left to do or to wait for."""
        over = self._started()
        if not over:
            self.look()
        return over

    def _started(self) -> bool:
        """Starts what can be started; whether there is nothing left to do or to wait for."""
        stuck = self.outages >= _OUTAGES  # the next trial would end the same way
        if stuck or not self._free() or time.monotonic() < self._ask:
            return stuck and not self.jobs
        while free := self._free():
            if (claim := self.ledger.claim()) is None:
                self._ask = time.monotonic() + _ASK
                return not self.jobs and not self.ledger.elsewhere(set())
            claims = [claim]
            while len(claims) < self.replicas and (claim := self.ledger.claim(like=claim.point)):
                claims.append(claim)
            self.launch(claims, free[0])
        return False

    def _free(self) -> list[int]:
        """The slots in which no process runs."""
        return sorted(set(range(self.workers)) - {job.slot for job in self.jobs})

    def _in_reach(self, act: Callable[[], bool | None]) -> bool:
        """What act returns; False while the study's server is out of reach, for some minutes."""
        try:
            if self._gone:
                self.ledger.leases.read()  # act may not need the study, and say nothing of it
            result = bool(act())
        except (StorageInternalError, SQLAlchemyError) as error:
            now = time.monotonic()
            if not self.ledger.on_server or not storage.unreachable(error):
                raise
            if not self._gone:
                self._gone = now
                self.screen.event(
                    f"the study is out of reach ({storage.reason(error)}): runs go on, and their "
                    f"results wait for it; in {duration(_PATIENCE)} they save and end",
                    trouble=True,
                )
            ended = self.stop.number and all(job.process.poll() is not None for job in self.jobs)
            if ended or now - self._gone > _PATIENCE:
                raise
            self._wait(_AGAIN)
            return False
        if self._gone:
            away = duration(time.monotonic() - self._gone)
            self.screen.event(f"the study is back after {away}", trouble=True)
            self._gone = 0.0
        return result

    def _wait(self, seconds: float) -> None:
        """Sleeps, but not through a signal."""
        until = time.monotonic() + seconds
        while not self.stop.number and time.monotonic() < until:
            time.sleep(min(seconds, _POLL))

    @contextlib.contextmanager
    def _no_orphans(self) -> Iterator[None]:
        """However this process ends, its runs save and end; their trials can be resumed."""
        try:
            yield
        finally:
            for job in self.jobs:
                job.process.terminate()
            for job in self.jobs:
                job.process.wait()

    def launch(self, claims: list[Claim], slot: int) -> None:
        """Starts the training of trials, as one program if they are several."""
        plan = self.ledger.plan
        started = processes.start(claims, plan, slot, self.workers)
        for claim, process in zip(claims, started, strict=True):
            metrics = Metrics(claim.folder, plan.task)
            metrics.read()
            metrics.first_step = metrics.step
            self.jobs.append(Job(claim, process, metrics, slot, time.monotonic()))
            self.screen.event(f"begun    {claim.folder.name}")

    def look(self) -> None:
        """Checks on all runs."""
        lost = self.ledger.beat([job.claim for job in self.jobs])
        for job in list(self.jobs):
            if job.claim in lost:
                job.lost = True
                job.process.terminate()
            self._look_at(job)
        self.screen.show([job.progress for job in self.jobs])

    def _look_at(self, job: Job) -> None:
        """Reports a run's new epochs, prunes it if it is hopeless, records its end."""
        code, claim = job.process.poll(), job.claim  # code first: then all metrics are written
        job.metrics.read()
        for epoch in range(claim.reported, 0 if job.lost else len(job.metrics.valid)):
            claim.trial.report(job.metrics.valid[epoch], epoch)
            claim.reported = epoch + 1
            if self.ledger.plan.space and code is None and claim.trial.should_prune():
                job.pruned = True
                job.process.terminate()
                break
        if code is not None:
            self._conclude(job, code)
            self.jobs.remove(job)  # last: it is concluded again if the study was out of reach
            if job.slot in self._free():  # several trials of one program have one outage
                self.outages = self.outages + 1 if code == Outage.code else 0

    def _conclude(self, job: Job, code: int) -> None:
        """Records how a run ended."""
        claim, name = job.claim, job.claim.folder.name
        if job.lost:
            claim.log.close()
            self._tell_lost(name)
        elif code == 0:
            result = workdir.read_json(claim.folder / "result.json", workdir.FORMAT)
            value = result["valid"][self.ledger.plan.task.primary]
            if not self.ledger.tell(claim, TrialState.COMPLETE, value):
                self._tell_lost(name)
                return
            score = self.screen.unit.show(value)
            self.screen.event(f"done     {name}: valid {score}, {duration(result['seconds'])}")
        elif job.pruned:
            self.ledger.tell(claim, TrialState.PRUNED)
            self.screen.event(f"pruned   {name}: after {claim.reported} epochs")
        elif code in (1, 2):
            why = _last_line(Path(claim.log.name))
            self.ledger.tell(claim, TrialState.FAIL, why=why)
            self.screen.event(f"failed   {name}: {why}", trouble=True)
        else:  # by a signal or an outage: the trial can be resumed
            self.ledger.leave(claim)
            how = _last_line(Path(claim.log.name)) if code == Outage.code else _ending(code)
            ending = f"{name} at step {job.metrics.step:,} ({how})"
            self.screen.event(f"cut      {ending}", trouble=not self.stop.number)
            if not self.stop.number:
                self.cut.append(ending)

    def _tell_lost(self, name: str) -> None:
        self.screen.event(
            f"left     {name}: this machine was out of reach, and another took it over",
            trouble=True,
        )

    def end_all(self) -> None:
        """Asks all runs to save, and waits for them."""
        if self.jobs:
            self.screen.event(f"waiting for {len(self.jobs)} runs to save", trouble=True)
        for job in self.jobs:
            job.process.terminate()
        while self.jobs:
            self._in_reach(self.look)
            time.sleep(_POLL / 5)


def _last_line(log: Path) -> str:
    """The last line a run wrote: why it failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


def _ending(code: int) -> str:
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"
