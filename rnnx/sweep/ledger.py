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
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rnnx import config as configs
from rnnx import tasks, workdir
from rnnx.errors import Outage, UserError, writing
from rnnx.sweep import space
from rnnx.sweep.space import Overrides
from rnnx.tasks.task import Task

FORMAT = 1  # of sweep.json and of the study
_UNSIGNED = 60.0  # seconds after which a trial without an owner is taken over
_ENDED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@contextlib.contextmanager
def in_reach(folder: Path) -> Iterator[None]:
    """Raises Outage when the study of a folder can no longer be read or written."""
    try:
        yield
    except (OSError, StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise Outage(
            f"cannot keep the study of {folder} ({reason}): fix that, and the same command "
            "continues"
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

    A trial is RUNNING in the study once it is assigned, and its log file is locked; the training
    process inherits the lock. A trial that is RUNNING but not locked was interrupted.
    """

    def __init__(self, folder: Path, plan: Plan, storage: str = ""):
        """Opens or creates the study, and adds the points it lacks.

        Raises:
          UserError: when storage can't be used, or holds a sweep of another config.
          Outage: when folder can't be written.
        """
        self.folder, self.plan = folder, plan
        self.given_up: set[int] = set()  # trials that were interrupted while this process ran them
        with writing(folder):
            for part in ("trials", "logs"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            with self._claiming():
                self.home = self._read_home()
                self.study = self._open(storage or f"sqlite:///{folder.resolve() / 'sweep.db'}")
                self._enter()

    def claim(self) -> Claim | None:
        """A trial to run: one that was interrupted here, else a new one; None when none is left."""
        with self._claiming():
            for trial in self._trials(TrialState.RUNNING):
                if (claim := self._take_over(trial)) is not None:
                    return claim
            while self._left():
                if (claim := self._begin()) is not None:
                    return claim
        return None

    def tell(
        self, claim: Claim, state: TrialState, value: float | None = None, why: str = ""
    ) -> None:
        """Records the end of a trial and releases it."""
        if why:
            claim.trial.set_user_attr("reason", why)
        self.study.tell(claim.trial.number, value, state=state, skip_if_finished=True)
        claim.log.close()

    def leave(self, claim: Claim) -> None:
        """Releases an interrupted trial; another process may resume it, this one will not."""
        self.given_up.add(claim.trial.number)
        claim.log.close()

    def ended(self) -> list[FrozenTrial]:
        """Trials that have ended, in order."""
        return self._trials(*_ENDED)

    def elsewhere(self, ours: set[int]) -> list[FrozenTrial]:
        """Trials in this folder that another process runs, or whose sweep was killed."""
        running = self._trials(TrialState.RUNNING)
        return [
            t
            for t in running
            if t.number not in ours | self.given_up
            and t.user_attrs.get("home") in (self.home, None)
        ]

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
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        return [t for t in trials if "surplus" not in t.user_attrs and self._asked_for(t)]

    def _asked_for(self, trial: FrozenTrial) -> bool:
        """Whether a trial belongs to this plan: the grid may have become smaller."""
        return not self.plan.points or self.point(trial) in self.plan.points

    def _read_home(self) -> str:
        """An identifier of this folder, in a study that several folders share."""
        path = self.folder / "sweep.json"
        if not path.exists():
            workdir.write_json(path, {"format": FORMAT, "home": uuid.uuid4().hex})
        return workdir.read_json(path, FORMAT)["home"]

    def _open(self, storage: str) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(
                study_name=self.folder.resolve().name,
                storage=storage,
                direction="minimize" if self.plan.task.lower_is_better else "maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            )
        except (OperationalError, StorageInternalError):
            raise  # it exists, but is out of reach
        except Exception as error:  # whatever the database's driver raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot open the study in {storage}: {reason}") from error
        ours = self.plan.config.to_dict() | {"data_dir": ""}
        ours = json.loads(json.dumps(ours | dict.fromkeys(self._swept())))
        theirs = study.user_attrs.get("config")
        if theirs is None:
            study.set_user_attr("format", FORMAT)
            study.set_user_attr("config", ours)
            return study
        if (found := study.user_attrs.get("format", 1)) != FORMAT:
            raise UserError(
                f"the study in {storage} has format {found!r}; this version reads format {FORMAT}"
            )
        # A field newer than the sweep has its default there, as in a workdir.
        theirs = json.loads(json.dumps(configs.default(self.plan.config.task).to_dict())) | theirs
        if names := [name for name in ours if ours[name] != theirs[name]]:
            raise UserError(
                f"{self.folder} holds a sweep of another config (it differs in "
                f"{', '.join(names)}): choose another --workdir, or the same config to continue"
            )
        return study

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
            return None
        trial.set_user_attr("home", self.home)
        return self._hold(trial)

    def _take_over(self, found: FrozenTrial) -> Claim | None:
        """Claims a trial that was interrupted in this folder, or before its owner was recorded."""
        home = found.user_attrs.get("home")
        if found.number in self.given_up:
            return None
        if home is None:
            age = time.time() - found.datetime_start.timestamp()
            if age < _UNSIGNED:
                return None
        elif home != self.home:
            return None
        trial = optuna.Trial(self.study, found._trial_id)  # as `ask` does
        if home is None:
            trial.set_user_attr("home", self.home)
        return self._hold(trial, len(found.intermediate_values))

    def _hold(self, trial: optuna.Trial, reported: int = 0) -> Claim | None:
        """Draws a trial's values and takes its lock; None if another process holds the lock."""
        for name, distribution in self.plan.space.items():
            space.draw(trial, name, distribution)
        point, name = self.point(trial), self.name(trial)
        log = open(self.folder / "logs" / f"{name}.log", "a", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            return None
        return Claim(trial, point, self.folder / "trials" / name, log, reported)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        """Lets one process at a time assign the trials of this folder."""
        with open(self.folder / "sweep.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
