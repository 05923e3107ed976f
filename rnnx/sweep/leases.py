"""Who runs a trial, told by a sign of life in the study's database.

Optuna's own heartbeats mark a silent trial as failed and queue a copy of it. That would count it
twice and lose its folder, with the checkpoint. Here a trial keeps its number and its folder, and
changes hands by one conditional update, which the database grants to one process only.

A process counts as gone when another has watched its sign of life stand still for SILENCE seconds.
The watcher's clock alone decides, and it starts again after a time in which the watcher could not
see: neither clocks that differ nor a server that was away make a living process look dead.
"""

import os
import platform
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from optuna.storages import RDBStorage
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

BEAT = 15.0  # seconds between signs of life
SILENCE = 90.0  # after which a process counts as gone
_UNSEEN = 3 * BEAT  # a watcher that has not looked for so long starts again

_LEASES = Table(
    "rnnx_leases",
    MetaData(),
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64), nullable=False),  # of the process; empty: released
    Column("machine", String(64), nullable=False),
    Column("beat", Integer, nullable=False),
)


class Lease(NamedTuple):
    """A row: who runs a trial, and the count of its signs of life."""

    owner: str
    machine: str
    beat: int


def this_machine() -> str:
    """A name of this machine since it started; file locks hold within it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()[:64]


class Leases:
    """The leases of a study's trials, as one process holds, renews and watches them."""

    def __init__(self, storage: RDBStorage):
        """storage: where the study is; a table is added to its database."""
        self.owner, self.machine = f"{os.getpid()}-{uuid.uuid4().hex}", this_machine()
        self._engine = storage.engine
        self._seen: dict[int, tuple[Lease | None, float]] = {}  # unchanged since then
        self._looked = -_UNSEEN
        try:
            _LEASES.create(self._engine, checkfirst=True)
        except DBAPIError:
            if not self._exists():  # else another process was faster
                raise

    def read(self) -> dict[int, Lease]:
        """All leases by trial id."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_LEASES)).all()
        return {row.trial_id: Lease(row.owner, row.machine, row.beat) for row in rows}

    def watch(self, running: Iterable[int]) -> None:
        """Notes the signs of life of trials; called every BEAT seconds."""
        now = time.monotonic()
        if now - self._looked >= _UNSEEN:
            self._seen.clear()
        leases, self._looked = self.read(), now
        for trial_id in running:
            lease = leases.get(trial_id)
            if trial_id not in self._seen or self._seen[trial_id][0] != lease:
                self._seen[trial_id] = lease, now

    def silent(self, trial_id: int, lease: Lease | None) -> bool:
        """Whether that lease has been watched long enough without a sign of life."""
        if trial_id not in self._seen or self._seen[trial_id][0] != lease:
            return False
        now = time.monotonic()
        return now - self._looked < _UNSEEN and now - self._seen[trial_id][1] >= SILENCE

    def take(self, trial_id: int, found: Lease | None) -> bool:
        """Takes a trial that nobody has, or whose lease is still the one found; False if another
        process was faster."""
        # The count never returns to what another may have found.
        beat = found.beat + 1 if found else 0
        ours = {"owner": self.owner, "machine": self.machine, "beat": beat}
        if found is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(_LEASES).values(trial_id=trial_id, **ours))
                return True
            except IntegrityError:
                return False
        return self._change(trial_id, ours, owner=found.owner, beat=found.beat)

    def renew(self, trial_id: int) -> bool:
        """Gives a sign of life; False if another process has taken the trial."""
        return self._change(trial_id, {"beat": _LEASES.c.beat + 1}, owner=self.owner)

    def release(self, trial_id: int) -> None:
        """Lets the next process of the same folder have the trial at once."""
        self._change(trial_id, {"owner": ""}, owner=self.owner)

    def _change(self, trial_id: int, values: dict, **only_if: str | int) -> bool:
        change = update(_LEASES).where(_LEASES.c.trial_id == trial_id).values(values)
        for name, value in only_if.items():
            change = change.where(_LEASES.c[name] == value)
        with self._engine.begin() as connection:
            return connection.execute(change).rowcount == 1

    def _exists(self) -> bool:
        return inspect(self._engine).has_table(_LEASES.name)
