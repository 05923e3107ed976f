"""The trials of a sweep: who runs which, and how they ended."""

import contextlib
import fcntl
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import optuna
from ml_collections import ConfigDict
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from rnnx import config as configs
from rnnx import tasks, workdir
from rnnx.errors import Outage, UserError, writing
from rnnx.sweep import space, storage
from rnnx.sweep.leases import BEAT, Lease, Leases
from rnnx.sweep.space import Overrides
from rnnx.tasks.task import Task

FORMAT = 1  # of sweep.json and of the study
_WORDS = {
    TrialState.RUNNING: "running", TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}  # fmt: skip
_ENDED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@contextlib.contextmanager
def in_reach(folder: Path) -> Iterator[None]:
    """Raises Outage when the study of a folder can no longer be read or written."""
    try:
        yield
    except (OSError, StorageInternalError, SQLAlchemyError) as error:
        raise Outage(
            f"cannot keep the study of {folder} ({storage.reason(error)}): fix that, and the same "
            "command continues"
        ) from error


@dataclass
class Plan:
    """What is to be run: all points of a grid, or a number of trials of a search."""

    config: ConfigDict
    arguments: list[str]  # of rnnx.train, for the config
    points: list[Overrides] = field(default_factory=list)
    space: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    # Points that were run elsewhere, each with its valid score.
    known: list[tuple[Overrides, float]] = field(default_factory=list)

    @property
    def task(self) -> Task:
        """What all runs learn."""
        return tasks.of(self.config)


@dataclass
class Claim:
    """A trial that this process runs."""

    trial: optuna.Trial
    point: Overrides
    folder: Path
    log: IO  # carries the trial's lock, here and in the training process
    reported: int  # epochs reported to the study


class Ledger:
    """Assigns trials and records their results: an Optuna study, and locks in the folder.

    A trial is RUNNING in the study once it is assigned. Its log file is locked, and the training
    process inherits the lock; and its lease in the database is renewed (`leases.py`). Within one
    folder on one machine the lock decides: a trial that is RUNNING but not locked was interrupted,
    and is taken up at once. Others take it when its lease shows no sign of life: in the same folder
    from its checkpoint, in another from the start.
    """

    def __init__(self, folder: Path, plan: Plan, address: str = "", name: str = ""):
        """Opens or creates the study, and adds the points it lacks.

        Args:
          address: of the database; empty for SQLite in the folder.
          name: of the study; empty for the folder's, or, in SQLite in the folder, for the one
            that is there: the folder may have been renamed.

        Raises:
          UserError: when address can't be used, or holds a sweep of another config.
          Outage: when folder can't be written.
        """
        self.folder, self.plan = folder, plan
        self.given_up: set[int] = set()  # trials that were interrupted while this process ran them
        url = storage.address(address, folder)
        self.on_server = storage.is_server(url)
        self._beaten = -BEAT
        with writing(folder):
            for part in ("trials", "logs"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            with self._claiming():
                self.home = self._read_home()
                self._open(url, name or (folder.resolve().name if address else ""))
                self._enter()

    def claim(self, like: Overrides | None = None) -> Claim | None:
        """A trial to run: one that was interrupted here, else a new one; None when none is left.

        Args:
          like: a point of a grid; only trials that share its compiled program.
        """
        with self._claiming():
            # Leases first: one that is read before its trial is never newer than that.
            leases = self.leases.read()
            for trial in self._trials(TrialState.RUNNING):
                if like is not None and not space.alike(self.point(trial), like):
                    continue
                if (claim := self._take_over(trial, leases.get(trial._trial_id))) is not None:
                    return claim
            if like is not None:
                return self._begin_like(like)
            while self._left():
                if (claim := self._begin()) is not None:
                    return claim
        return None

    def tell(
        self, claim: Claim, state: TrialState, value: float | None = None, why: str = ""
    ) -> bool:
        """Records the end of a trial and releases it; False if another process has taken it."""
        # Renewed, the lease outlasts what follows.
        if ours := self.leases.renew(claim.trial._trial_id):
            if why:
                claim.trial.set_user_attr("reason", why)
            self.study.tell(claim.trial.number, value, state=state, skip_if_finished=True)
        claim.log.close()
        return ours

    def leave(self, claim: Claim) -> None:
        """Releases an interrupted trial; another process may resume it, this one will not."""
        self.leases.release(claim.trial._trial_id)
        self.given_up.add(claim.trial.number)
        claim.log.close()

    def beat(self, claims: list[Claim]) -> list[Claim]:
        """Renews leases and watches those of others, every BEAT seconds; returns the claims that
        another process has taken in the meantime."""
        if time.monotonic() - self._beaten < BEAT:
            return []
        lost = [claim for claim in claims if not self.leases.renew(claim.trial._trial_id)]
        self.leases.watch(t._trial_id for t in self._trials(TrialState.RUNNING))
        self._beaten = time.monotonic()
        self.note()
        return lost

    def note(self) -> None:
        """Writes in the folder how all trials stand, for those who watch."""
        begun = [t for t in self._trials() if t.state != TrialState.WAITING]
        trials = {self.name(t): [_WORDS[t.state], t.user_attrs.get("reason", "")] for t in begun}
        with writing(self.folder), self._claiming():
            path = self.folder / workdir.SWEEP
            workdir.write_json(path, {"format": FORMAT, "total": self.total, "trials": trials})

    def ended(self) -> list[FrozenTrial]:
        """Trials that have ended, in order."""
        return self._trials(*_ENDED)

    def elsewhere(self, ours: set[int]) -> list[FrozenTrial]:
        """Trials that another process runs, or whose sweep was killed."""
        running = self._trials(TrialState.RUNNING)
        return [t for t in running if t.number not in ours | self.given_up]

    @property
    def total(self) -> int:
        """The number of trials planned."""
        return self.plan.trials or len(self._trials())

    def point(self, trial: FrozenTrial | optuna.Trial) -> Overrides:
        """The config fields a trial sets; lists from JSON become tuples."""
        values = trial.user_attrs.get("point") or trial.params
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    def name(self, trial: FrozenTrial | optuna.Trial) -> str:
        """What a trial's workdir, in `trials`, and its log, in `logs`, are called."""
        return f"{trial.number:03d},{space.label(self.point(trial))}"[:120]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        trials = [t for t in trials if "surplus" not in t.user_attrs]
        if self.plan.points:  # the grid may have become smaller, or been entered twice at once
            first = {json.dumps(self.point(t), sort_keys=True): t for t in reversed(trials)}
            trials = [t for t in reversed(first.values()) if self.point(t) in self.plan.points]
        return [t for t in trials if not states or t.state in states]

    def _read_home(self) -> str:
        """An identifier of this folder, in a study that several folders share."""
        path = self.folder / "sweep.json"
        if not path.exists():
            workdir.write_json(path, {"format": FORMAT, "home": uuid.uuid4().hex})
        return workdir.read_json(path, FORMAT)["home"]

    def _open(self, url: URL, name: str) -> None:
        """Sets `storage`, `study` and `leases`."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            kept = self.storage = storage.opened(url)
            if not name:
                names = optuna.get_all_study_names(kept)
                name = names[0] if len(names) == 1 else self.folder.resolve().name
            study = self.study = optuna.create_study(
                study_name=name,
                storage=kept,
                direction="minimize" if self.plan.task.lower_is_better else "maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            )
            self.leases = Leases(kept)
        except UserError:
            raise
        except Exception as error:  # whatever the database's driver raises
            if storage.unreachable(error):
                raise
            told = storage.reason(error)
            raise UserError(f"cannot open the study in {storage.shown(url)}: {told}") from error
        ours = self.plan.config.to_dict() | {"data_dir": ""}
        ours = json.loads(json.dumps(ours | dict.fromkeys(self._swept())))
        theirs = study.user_attrs.get("config")
        if theirs is None:
            study.set_user_attr("format", FORMAT)
            study.set_user_attr("config", ours)
            return
        if (found := study.user_attrs.get("format", 1)) != FORMAT:
            raise UserError(
                f"the study in {storage.shown(url)} has format {found!r}; this version reads "
                f"format {FORMAT}"
            )
        # A field newer than the sweep has its default there, as in a workdir.
        theirs = json.loads(json.dumps(configs.default(self.plan.config.task).to_dict())) | theirs
        if names := [name for name in ours if ours[name] != theirs[name]]:
            raise UserError(
                f"{self.folder} holds a sweep of another config (it differs in "
                f"{', '.join(names)}): choose another --workdir, or the same config to continue"
            )

    def _swept(self) -> set[str]:
        return set(self.plan.space).union(*self.plan.points)

    def _enter(self) -> None:
        """Queues the points that the study lacks, or enters their scores if they are known."""
        entered = [self.point(t) for t in self._trials() if "point" in t.user_attrs]
        for point in self.plan.points:
            if point in entered:
                continue
            score = next((score for known, score in self.plan.known if known == point), None)
            if score is None:
                self.study.enqueue_trial({}, user_attrs={"point": point})
            else:
                attributes = {"point": point, "home": self.home, "known": True}
                self.study.add_trial(create_trial(value=score, user_attrs=attributes))

    def _left(self) -> bool:
        if self.plan.points:
            return bool(self._trials(TrialState.WAITING))
        return len(self._trials()) < self.plan.trials

    def _begin(self) -> Claim | None:
        """Takes a new trial, unless another machine has just taken the last one."""
        # A sampler seeded alike in every process would propose the same again, and seeds that are
        # neighbours give draws that are alike.
        number = len(self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence((self.plan.config.seed, number)).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask()
        if self._surplus(trial):
            return None
        return self._hold(trial, None)

    def _begin_like(self, like: Overrides) -> Claim | None:
        """Takes a new trial of a grid that shares the program of a point, as `ask` takes the
        first."""
        for found in self._trials(TrialState.WAITING):
            if not space.alike(self.point(found), like):
                continue
            with contextlib.suppress(UpdateFinishedTrialError):
                if self.storage.set_trial_state_values(found._trial_id, TrialState.RUNNING):
                    return self._hold(optuna.Trial(self.study, found._trial_id), None)
        return None

    def _surplus(self, trial: optuna.Trial) -> bool:
        """Ends a new trial that is one too many."""
        before = [t for t in self._trials() if t.number < trial.number]
        if self.plan.points:
            # Added twice, or from a larger grid.
            point = self.point(trial)
            surplus = point not in self.plan.points or point in map(self.point, before)
        else:
            surplus = len(before) >= self.plan.trials
        if surplus:
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
        return surplus

    def _take_over(self, found: FrozenTrial, lease: Lease | None) -> Claim | None:
        """Claims a trial that was interrupted: here, or by a process that is gone."""
        if found.number in self.given_up:
            return None
        home = found.user_attrs.get("home")
        if home == self.home:
            # The lock tells whether a process of this machine still runs it; SQLite has no others.
            local = not self.on_server or (lease and lease.machine == self.leases.machine)
            free = local or (lease and not lease.owner)
        else:
            free = False
        if not free and not self.leases.silent(found._trial_id, lease):
            return None
        trial = optuna.Trial(self.study, found._trial_id)  # as `ask` does
        if home is None and self._surplus(trial):  # cut before that was seen
            return None
        return self._hold(trial, lease, len(found.intermediate_values))

    def _hold(self, trial: optuna.Trial, lease: Lease | None, reported: int = 0) -> Claim | None:
        """Draws a trial's values and takes its lock and its lease; None if another process has
        them."""
        for name, distribution in self.plan.space.items():
            space.draw(trial, name, distribution)
        point, name = self.point(trial), self.name(trial)
        log = open(self.folder / "logs" / f"{name}.log", "a", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            return None
        if not self.leases.take(trial._trial_id, lease):
            log.close()
            return None
        trial = optuna.Trial(self.study, trial._trial_id)
        if self.point(trial) != point:  # another drew them at the same moment, and was faster
            log.close()
            return None
        trial.set_user_attr("home", self.home)
        return Claim(trial, point, self.folder / "trials" / name, log, reported)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        """Lets one process at a time assign the trials of this folder."""
        with open(self.folder / "sweep.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
