"""Trains many runs of one config: every combination of a grid, or a search for the best.

    python -m rnnx.sweep --config=FILE --workdir=DIR --grid="depth=1,2,4;integration=additive,mi"
    python -m rnnx.sweep --config=FILE --workdir=DIR --trials=30 \\
        --search="learning_rate=log:1e-4..1e-2;drop_h=0..0.5"

With neither, the sweep that the config file itself holds is run: its function
`sweep(config, add)` calls `add(depth=4, hidden_size=1050)` for each run.

--grid        every combination once; --seeds=K repeats all of them with K seeds
--search      a..b uniform, log:a..b uniform in the logarithm, a,b,c a choice; proposed by
              Optuna's TPE from the valid scores so far, and stopped early when an epoch's valid
              score is worse than the median of the others' at that epoch
--config.X    as in rnnx.train, for all runs

Each trial is the workdir of an ordinary `rnnx.train` in DIR/trials, its output in DIR/logs; the
record of all is an Optuna study. Run the same command again, and it goes on: trials that were cut
are continued, a grid may have grown. The same command may run several times at once, on one
machine or on many that share DIR, or only --storage: no trial is run twice. On a machine of
several GPUs, start it once for each, with CUDA_VISIBLE_DEVICES.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import optuna
from absl import flags
from ml_collections import ConfigDict, config_flags
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from rnnx import cli, corpora, space, workdir
from rnnx import config as configs
from rnnx.errors import UserError
from rnnx.metrics import Score, duration
from rnnx.space import Overrides

FLAGS = flags.FLAGS
_POLL = 0.5  # seconds between looks at the runs
_UNCLAIMED = 60.0  # seconds after which a trial that nobody signed is taken over
_ENDED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@dataclasses.dataclass
class Plan:
    """What is to be run: all the points of a grid, or so many trials of a search."""

    config: ConfigDict
    arguments: list[str]  # that make rnnx.train's config
    points: list[Overrides] = dataclasses.field(default_factory=list)
    space: dict[str, Any] = dataclasses.field(default_factory=dict)
    trials: int = 0


@dataclasses.dataclass
class Job:
    """A trial in the hands of this process."""

    trial: optuna.Trial
    point: Overrides
    folder: Path
    log: IO  # holds the trial's lock, here and in the process that trains
    reported: int = 0  # epochs that the study knows
    process: subprocess.Popen | None = None
    slot: int = 0
    begun: float = 0.0
    metrics: "Metrics | None" = None
    pruned: bool = False


class Ledger:
    """Who runs which trial, and what came of it: an Optuna study, and locks in the folder.

    A trial is RUNNING in the study from the moment it is given out, and is held by a lock on its
    log file, which the training process inherits. RUNNING and not locked means cut.
    """

    def __init__(self, folder: Path, plan: Plan, storage: str = ""):
        """Opens or makes the study, and enters the points it does not have yet.

        Raises:
          UserError: when folder or storage can't be used, or hold a sweep of another config.
        """
        self.folder, self.plan = folder, plan
        self.given_up: set[int] = set()  # trials that were killed in our hands
        try:
            for part in ("trials", "logs"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            with self._claiming():
                self.home = self._read_home()
                self.study = self._open(storage or f"sqlite:///{folder.resolve() / 'sweep.db'}")
                self._enter()
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from None

    def claim(self) -> Job | None:
        """A trial to run: one that was cut here, else a new one; None when none is left."""
        with self._claiming():
            for trial in self._trials(TrialState.RUNNING):
                if (job := self._take_over(trial)) is not None:
                    return job
            while self._left():
                if (job := self._begin()) is not None:
                    return job
        return None

    def tell(self, job: Job, state: TrialState, value: float | None = None, why: str = "") -> None:
        """Records the end of a trial, and lets go of it."""
        if why:
            job.trial.set_user_attr("reason", why)
        self.study.tell(job.trial.number, value, state=state, skip_if_finished=True)
        job.log.close()

    def ended(self) -> list[FrozenTrial]:
        """Trials that are over, in their order."""
        return self._trials(*_ENDED)

    def elsewhere(self, jobs: Sequence[Job]) -> list[FrozenTrial]:
        """Trials that others are running in this folder, or a process that lost its sweep."""
        ours = self.given_up.union(job.trial.number for job in jobs)
        running = self._trials(TrialState.RUNNING)
        return [
            t for t in running if t.number not in ours and t.user_attrs.get("home") == self.home
        ]

    @property
    def total(self) -> int:
        """How many trials there are to be."""
        return self.plan.trials or len(self._trials())

    def point(self, trial: FrozenTrial | optuna.Trial) -> Overrides:
        """What a trial sets; lists that come from JSON are the config's tuples."""
        values = trial.user_attrs.get("point") or trial.params
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        return [t for t in trials if "surplus" not in t.user_attrs]

    def _read_home(self) -> str:
        """This folder's own name in a study that others share."""
        path = self.folder / "sweep.json"
        if not path.exists():
            workdir.write_json(path, {"format": 1, "home": uuid.uuid4().hex})
        return workdir.read_json(path)["home"]

    def _open(self, storage: str) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(
                study_name=self.folder.resolve().name,
                storage=storage,
                direction="minimize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            )
        except Exception as error:  # whatever the database's driver raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot open the study in {storage}: {reason}") from error
        ours = self.plan.config.to_dict() | {"data_dir": ""}
        ours = json.loads(json.dumps(ours | dict.fromkeys(self._swept())))
        theirs = study.user_attrs.get("config")
        if theirs is None:
            study.set_user_attr("config", ours)
        elif theirs != ours:
            names = [name for name in ours if ours[name] != theirs.get(name)]
            raise UserError(
                f"{self.folder} holds a sweep of another config (it differs in "
                f"{', '.join(names)}): choose another --workdir, or the same config to continue"
            )
        return study

    def _swept(self) -> set[str]:
        return set(self.plan.space).union(*self.plan.points)

    def _enter(self) -> None:
        """Puts the points that the study lacks in its queue."""
        known = [self.point(t) for t in self._trials() if "point" in t.user_attrs]
        for point in self.plan.points:
            if point not in known:
                self.study.enqueue_trial({}, user_attrs={"point": point})

    def _left(self) -> bool:
        if self.plan.points:
            return bool(self._trials(TrialState.WAITING))
        return len(self._trials()) < self.plan.trials

    def _begin(self) -> Job | None:
        """Takes a new trial, unless another machine took the last one in the meantime."""
        seed = self.plan.config.seed + len(self.study.get_trials(deepcopy=False))
        # A sampler that starts anew with every process would propose the same again.
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask()
        before = [t for t in self._trials() if t.number < trial.number]
        point = trial.user_attrs.get("point")
        if self.plan.points:
            surplus = point is None or any(t.user_attrs.get("point") == point for t in before)
        else:
            surplus = len(before) >= self.plan.trials
        if surplus:
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr("home", self.home)
        return self._hold(trial)

    def _take_over(self, found: FrozenTrial) -> Job | None:
        """A trial that was cut in this folder; or one cut before it was signed."""
        home = found.user_attrs.get("home")
        if found.number in self.given_up:
            return None
        if home is None:
            age = time.time() - found.datetime_start.timestamp()
            if age < _UNCLAIMED:
                return None
        elif home != self.home:
            return None
        trial = optuna.Trial(self.study, found._trial_id)  # as `ask` does
        if home is None:
            trial.set_user_attr("home", self.home)
        return self._hold(trial, len(found.intermediate_values))

    def _hold(self, trial: optuna.Trial, reported: int = 0) -> Job | None:
        """The job of a trial, its values drawn and its lock taken; None if another has that."""
        for name, distribution in self.plan.space.items():
            space.draw(trial, name, distribution)
        point = self.point(trial)
        name = f"{trial.number:03d},{space.label(point)}"[:120]
        log = open(self.folder / "logs" / f"{name}.log", "a", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.close()
            return None
        return Job(trial, point, self.folder / "trials" / name, log, reported=reported)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        """One process at a time gives out the trials of this folder."""
        with open(self.folder / "sweep.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Metrics:
    """Follows the metrics of a run while they are written."""

    def __init__(self, folder: Path):
        self._folder, self._offset, self._rest = folder, 0, b""
        self.step = self.updates = 0
        self.first_step: int | None = None  # what an earlier process had done
        self.valid: list[float] = []  # nats, an epoch each

    def read(self) -> None:
        """Takes in what was written since."""
        path = self._folder / "metrics.jsonl"
        try:
            with open(path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # cut back to its checkpoint
                    self.__init__(self._folder)
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in map(json.loads, lines):
            self.step = line["step"]
            if line["kind"] == "epoch":
                self.valid.append(line["valid_batched_nll"])
        if not self.updates:
            with contextlib.suppress(UserError):
                self.updates = workdir.read_json(self._folder / "run.json").get("updates", 0)

    @property
    def share(self) -> float:
        """Of the updates, how much is done."""
        return min(self.step / self.updates, 1.0) if self.updates else 0.0


class Sweep:
    """Runs a plan's trials, some at a time."""

    def __init__(self, ledger: Ledger, workers: int, screen: "Screen"):
        self.ledger, self.workers, self.screen = ledger, workers, screen
        self.jobs: list[Job] = []
        self.cut: list[Job] = []
        self.stop_signal = 0

    def run(self) -> None:
        """Runs until nothing is left to claim.

        Raises:
          UserError: when runs were cut, which the same command continues.
          SystemExit: 128 + N on signal N, all runs having saved.
        """
        with self._signals(), self.screen:
            while not self.stop_signal:
                while len(self.jobs) < self.workers and (job := self.ledger.claim()):
                    self.launch(job)
                if not self.jobs and not self.ledger.elsewhere(self.jobs):
                    break
                for job in list(self.jobs):
                    self.look_at(job)
                self.screen.show(self)
                time.sleep(_POLL)
            self.end_all()
        self.screen.summary(self)
        if self.stop_signal:
            raise SystemExit(128 + self.stop_signal)
        if self.cut:
            names = ", ".join(job.folder.name for job in self.cut)
            raise UserError(f"cut from outside: {names}; the same command continues them")

    def launch(self, job: Job) -> None:
        """Starts the training of a trial, on its share of the cores."""
        job.slot = min(set(range(self.workers)) - {other.slot for other in self.jobs})
        flag_list = [space.flag(name, value) for name, value in job.point.items()]
        command = [*self.ledger.plan.arguments, *flag_list, f"--workdir={job.folder}"]
        print("python -m rnnx.train", shlex.join(command), file=job.log, flush=True)
        cores = _share(job.slot, self.workers)
        job.process = subprocess.Popen(
            [sys.executable, "-m", "rnnx.train", *command],
            stdin=subprocess.DEVNULL,
            stdout=job.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )
        job.begun, job.metrics = time.monotonic(), Metrics(job.folder)
        job.metrics.read()
        job.metrics.first_step = job.metrics.step
        self.jobs.append(job)
        self.screen.event(f"begun    {job.folder.name}")

    def look_at(self, job: Job) -> None:
        """Passes on what a run's epochs gave, stops it when it is hopeless, notes its end."""
        code = job.process.poll()
        job.metrics.read()
        for epoch in range(job.reported, len(job.metrics.valid)):
            job.trial.report(job.metrics.valid[epoch], epoch)
            job.reported = epoch + 1
        hopeless = self.ledger.plan.space and not job.pruned and job.reported
        if code is None and hopeless and job.trial.should_prune():
            job.pruned = True
            job.process.send_signal(signal.SIGTERM)
        if code is not None:
            self.conclude(job, code)

    def conclude(self, job: Job, code: int) -> None:
        """Records how a run ended."""
        self.jobs.remove(job)
        name = job.folder.name
        if code == 0:
            result = workdir.read_json(job.folder / "result.json")
            self.ledger.tell(job, TrialState.COMPLETE, result["valid"]["nll"])
            score = Score(result["valid"]["nll"], 1).show(self.screen.level)
            self.screen.event(f"done     {name}: valid {score}, {duration(result['seconds'])}")
        elif job.pruned:
            self.ledger.tell(job, TrialState.PRUNED)
            self.screen.event(f"pruned   {name}: after {job.reported} epochs")
        elif code in (1, 2):
            why = _last_line(Path(job.log.name))
            self.ledger.tell(job, TrialState.FAIL, why=why)
            self.screen.event(f"failed   {name}: {why}")
        else:  # killed: the trial stays as it is, to be continued
            job.log.close()
            if not self.stop_signal:
                self.ledger.given_up.add(job.trial.number)
                self.cut.append(job)
            self.screen.event(f"cut      {name}: {_ending(code)}, at step {job.metrics.step:,}")

    def end_all(self) -> None:
        """Asks all runs to save, and waits for them."""
        if self.jobs:
            self.screen.event(f"waiting for {len(self.jobs)} runs to save")
        for job in self.jobs:
            job.process.send_signal(signal.SIGTERM)
        while self.jobs:
            time.sleep(_POLL / 5)
            for job in list(self.jobs):
                self.look_at(job)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Notes SIGINT and SIGTERM for the loop to act on; a second one does not wait."""

        def note(number: int, frame: Any) -> None:
            self.stop_signal = number
            signal.signal(number, before[number])

        numbers = signal.SIGINT, signal.SIGTERM
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Screen:
    """What a person sees of a sweep: a live table on a terminal, elsewhere a line an event."""

    STATUS_SECONDS = 60.0
    ROWS = 12  # best finished trials shown while others run

    def __init__(self, ledger: Ledger, level: str, stream: Any = None):
        self.ledger, self.level = ledger, level
        self.console = Console(
            file=stream or sys.stdout, highlight=False, markup=False, emoji=False
        )
        self._live: Live | None = None
        self._begun = self._told = time.monotonic()
        self._shares: dict[int, float] = {}  # of each trial, what was done in this process

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(*error)
            self._live = None

    def event(self, line: str) -> None:
        """A line that stays; on a terminal the table tells, and only trouble stays."""
        if not self._live or line.startswith(("failed", "cut")):
            self.console.print(line, soft_wrap=True)

    def show(self, sweep: Sweep) -> None:
        """Redraws the table; elsewhere a line of status once a minute."""
        if self._live:
            self._live.update(self._table(sweep), refresh=True)
        elif time.monotonic() - self._told > self.STATUS_SECONDS:
            self._told = time.monotonic()
            self.console.print(self._status(sweep), soft_wrap=True)

    def summary(self, sweep: Sweep) -> None:
        """The finished trials, best first, and what to do next."""
        self.console.print(self._table(sweep, rows=None), soft_wrap=True)
        folder = self.ledger.folder
        self.console.print(f"tables and plots: python -m rnnx.report --workdir={folder}")

    def _status(self, sweep: Sweep) -> str:
        ended = len(self.ledger.ended())
        shares = ", ".join(f"{job.trial.number:03d} {job.metrics.share:.0%}" for job in sweep.jobs)
        others = len(self.ledger.elsewhere(sweep.jobs))
        parts = [f"{ended} of {self.ledger.total} trials over"]
        parts += [f"running {shares}"] if shares else []
        parts += [f"{others} run by other processes"] if others else []
        if ended < self.ledger.total:
            parts.append(self._eta(sweep, ended))
        return "; ".join(parts)

    def _eta(self, sweep: Sweep, ended: int) -> str:
        for job in sweep.jobs:
            first = job.metrics.first_step / job.metrics.updates if job.metrics.updates else 0.0
            self._shares[job.trial.number] = job.metrics.share - first
        running = {job.trial.number for job in sweep.jobs}
        done = sum(s if n in running else max(s, 0.0) for n, s in self._shares.items())
        elapsed = time.monotonic() - self._begun
        left = self.ledger.total - ended - sum(job.metrics.share for job in sweep.jobs)
        if done <= 0 or elapsed < 5:
            return "ETA -"
        return f"ETA {duration(elapsed / done * left)}"

    def _table(self, sweep: Sweep, rows: int | None = ROWS) -> Table:
        ended = self.ledger.ended()
        table = Table(title=self._status(sweep), title_justify="left", box=None, pad_edge=False)
        fields = list(dict.fromkeys(name for t in ended for name in self.ledger.point(t)))
        fields += [n for job in sweep.jobs for n in job.point if n not in fields]
        fields = list(dict.fromkeys(fields))
        table.add_column("trial", justify="right")
        for name in fields:
            table.add_column(name, justify="right")
        for heading in ("epochs", "valid", "state"):
            table.add_column(heading, justify="right" if heading != "state" else "left")
        for job in sweep.jobs:
            best = min(job.metrics.valid, default=None)
            state = f"{job.metrics.share:.0%} done, {duration(time.monotonic() - job.begun)}"
            table.add_row(
                f"{job.trial.number:03d}", *self._cells(job.point, fields),
                str(len(job.metrics.valid)), self._score(best), state, style="bold",
            )  # fmt: skip
        good = [t for t in ended if t.state != TrialState.FAIL]
        good.sort(key=lambda t: (t.state != TrialState.COMPLETE, t.value or math.inf))
        for trial in good[:rows]:
            state = "done" if trial.state == TrialState.COMPLETE else "pruned"
            table.add_row(
                f"{trial.number:03d}", *self._cells(self.ledger.point(trial), fields),
                str(len(trial.intermediate_values)), self._score(trial.value), state,
            )  # fmt: skip
        if rows is not None and len(good) > rows:
            table.add_row("...", *[""] * len(fields), "", "", f"and {len(good) - rows} more")
        for trial in (t for t in ended if t.state == TrialState.FAIL):
            table.add_row(
                f"{trial.number:03d}", *self._cells(self.ledger.point(trial), fields),
                str(len(trial.intermediate_values)), "-",
                f"failed: {trial.user_attrs.get('reason', '')[:60]}",
            )  # fmt: skip
        return table

    def _cells(self, point: Overrides, fields: Sequence[str]) -> list[str]:
        return [space.show(point[name]) if name in point else "" for name in fields]

    def _score(self, nll: float | None) -> str:
        return "-" if nll is None else Score(nll, 1).show(self.level)


def _share(slot: int, workers: int) -> set[int]:
    """The cores of one of several workers; none to be chosen for one, or where there are fewer."""
    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return set()
    return set(sorted(os.sched_getaffinity(0))[slot::workers])


def _last_line(log: Path) -> str:
    """Why a run failed: the last line that it wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


def _ending(code: int) -> str:
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit code {code}"


def own_sweep(path: str, config: ConfigDict) -> list[Overrides]:
    """The points that a config file's own `sweep(config, add)` names.

    Raises:
      UserError: when it has none.
    """
    points: list[Overrides] = []
    function = runpy.run_path(path.partition(".py:")[0].removesuffix(".py") + ".py").get("sweep")
    if function is None:
        raise UserError(f"{path} holds no sweep(config, add): name one with --grid or --search")
    function(config, lambda **point: points.append(point))
    if not points:
        raise UserError(f"the sweep of {path} adds no runs")
    return points


# ---------------------------------------------------------------------------- command line


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "experiment, FILE.py or FILE.py:variant")
    flags.DEFINE_string("workdir", None, "where the runs are kept; continued if it holds a sweep")
    flags.DEFINE_string("grid", "", "FIELD=A,B;FIELD=C,D: every combination")
    flags.DEFINE_string("search", "", "FIELD=A..B;FIELD=log:A..B;FIELD=A,B,C: search")
    flags.DEFINE_integer("trials", 0, "how many the search tries", lower_bound=0)
    flags.DEFINE_integer("seeds", 1, "repeat a grid with so many seeds", lower_bound=1)
    flags.DEFINE_integer("param_budget", 0, "solve every run's width for it", lower_bound=0)
    flags.DEFINE_integer("workers", 1, "runs side by side; they share the cores", lower_bound=1)
    flags.DEFINE_string("storage", "", "an Optuna storage address; empty: SQLite in the workdir")


def plan_of_flags() -> Plan:
    """What the command line asks for.

    Raises:
      UserError: when flags contradict each other, or name what configs don't have.
    """
    if FLAGS.config is None:
        raise UserError("--config=FILE is missing, for example --config=configs/ptb_word.py:small")
    if not FLAGS.workdir:
        raise UserError("--workdir=DIR is missing: the folder to keep the runs in")
    if FLAGS.grid and FLAGS.search:
        raise UserError("--grid and --search are two sweeps: name one of them")
    if bool(FLAGS.search) != bool(FLAGS.trials):
        raise UserError("--search=... and --trials=N go together")
    if FLAGS.search and FLAGS.seeds > 1:
        raise UserError("--seeds repeats a grid: search first, then repeat what it found")
    config, handle = FLAGS.config, FLAGS["config"]
    if FLAGS.param_budget:
        config.param_budget = FLAGS.param_budget
    configs.validate(config)
    path = config_flags.get_config_filename(handle)  # with its variant
    values = config_flags.get_override_values(handle)
    if FLAGS.param_budget:
        values = values | {"param_budget": FLAGS.param_budget}
    arguments = [f"--config={path}", *(space.flag(n, v) for n, v in values.items())]
    if FLAGS.search:
        return Plan(config, arguments, space=space.search(FLAGS.search), trials=FLAGS.trials)
    points = space.grid(FLAGS.grid) if FLAGS.grid else own_sweep(path, config)
    points = [space.checked(point) for point in points]
    if config.param_budget and any("hidden_size" in point for point in points):
        raise UserError("param_budget solves hidden_size: it can't be swept beside it")
    if any("seed" in point for point in points) and FLAGS.seeds > 1:
        raise UserError("the seed is in the grid: leave --seeds out")
    if FLAGS.seeds > 1:
        points = space.repeated(points, range(config.seed, config.seed + FLAGS.seeds))
    return Plan(config, arguments, points=points)


def main() -> None:
    plan = plan_of_flags()
    config = plan.config
    # Data that is missing should be told once, not by every trial.
    level = corpora.load(config.corpus, config.level, config.data_dir).level
    ledger = Ledger(Path(FLAGS.workdir).expanduser(), plan, FLAGS.storage)
    Sweep(ledger, FLAGS.workers, Screen(ledger, level)).run()


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
