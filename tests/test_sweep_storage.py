"""Where a study is kept, and how a trial changes hands."""

import os
from pathlib import Path

import pytest
from conftest import call_module
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import exc
from test_sweep import plan

from rnnx.errors import UserError
from rnnx.sweep import leases, storage
from rnnx.sweep.ledger import Ledger

# ---------------------------------------------------------------------------- addresses

MOUNTS = """/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//files/all /mnt/all\\040files cifs rw 0 0
tmpfs /home/all tmpfs rw 0 0
scratch@tcp:/fs /home/all lustre rw,flock 0 0
"""


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/root/runs", ""),
        ("/home/a/runs", "nfs4"),
        ("/homes/a", ""),
        ("/home/local/runs", ""),
        ("/mnt/all files/runs", "cifs"),
        ("/home/all/runs", "lustre"),
    ],
)
def test_network_disks_are_told_by_their_file_system(path: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert storage.network_disk(Path(path), tmp_path / "mounts") == kind
    assert storage.network_disk(Path(path), tmp_path / "none") == ""


def test_sqlite_is_not_kept_on_a_network_disk(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "far"
    far.mkdir()
    monkeypatch.setattr(
        storage, "network_disk", lambda path: "nfs4" if path.is_relative_to(far) else ""
    )
    with pytest.raises(UserError, match=r"far/s is a network disk \(nfs4\).*use a server"):
        Ledger(far / "s", plan())
    with pytest.raises(UserError, match="network disk"):
        Ledger(tmp_path / "s", plan(), f"sqlite:///{far / 'sweep.db'}")
    assert Ledger(far / "s", plan(), f"sqlite:///{tmp_path / 'sweep.db'}").total == 3


def test_addresses(tmp_path: Path) -> None:
    url = storage.address("postgresql://me:secret@host/sweeps", tmp_path)
    assert url.drivername == "postgresql+psycopg" and storage.is_server(url)
    assert "secret" not in storage.shown(url) and "me:***@host" in storage.shown(url)
    assert not storage.is_server(storage.address("", tmp_path))
    with pytest.raises(UserError, match="is no address"):
        storage.address("host/sweeps", tmp_path)


@pytest.mark.parametrize(
    "address, code, told",
    [
        ("postgresql://me:secret@/x?host=/nosuch", os.EX_TEMPFAIL, "No such file or directory"),
        ("postgresql://me:secret@127.0.0.1:1/x", os.EX_TEMPFAIL, "onnection refused"),
        ("postgresql+nosuch://me:secret@/x", 2, "cannot open the study"),
        ("oracle+nosuch:", 2, "no address"),
    ],
)
def test_a_storage_that_is_not_there_is_told_in_one_line(
    address: str, code: int, told: str, config_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg")
    done = call_module(
        "sweep", f"--config={config_file}", f"--workdir={tmp_path / 's'}", f"--storage={address}"
    )
    assert done.returncode == code and told in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "secret" not in done.stderr


def test_a_connection_that_is_cut_is_told_from_what_the_server_refuses() -> None:
    def wrapped(error: Exception) -> Exception:
        try:
            raise StorageInternalError("as Optuna does") from error
        except StorageInternalError as found:
            return found

    cut = [
        exc.OperationalError("select 1", {}, Exception("server closed the connection")),
        exc.InterfaceError("select 1", {}, Exception("connection already closed")),
        exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back"),
        exc.DBAPIError("select 1", {}, Exception("gone"), connection_invalidated=True),
    ]
    refused = [exc.ProgrammingError("select 1", {}, Exception("permission denied")), KeyError("x")]
    assert all(storage.unreachable(e) and storage.unreachable(wrapped(e)) for e in cut)
    assert not any(storage.unreachable(e) or storage.unreachable(wrapped(e)) for e in refused)
    assert storage.reason(wrapped(cut[0])) == "server closed the connection"


# ---------------------------------------------------------------------------- leases


class Clock:
    """Time that passes when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(leases.time, "monotonic", lambda: self.now)

    def pass_with(self, seconds: float, *ledgers: Ledger, claims: tuple = ()) -> None:
        """Lets time pass, while ledgers watch and the first renews claims."""
        end = self.now + seconds
        while self.now < end:
            self.now += 5
            for i, ledger in enumerate(ledgers):
                ledger.beat(list(claims) if i == 0 else [])


def two(tmp_path: Path, grid: str = "depth=1") -> tuple[Ledger, Ledger]:
    """Sweeps of two machines without a common disk."""
    address = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in "ab":
        (tmp_path / name).mkdir()
    return tuple(Ledger(tmp_path / name / "sweep", plan(grid), address) for name in "ab")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_vanished_machine_s_trial_is_taken_up_within_two_minutes(
    tmp_path: Path, clock: Clock
) -> None:
    one, other = two(tmp_path)
    claim = one.claim()
    clock.pass_with(600, one, other, claims=(claim,))
    assert other.claim() is None, "its machine is alive"
    clock.pass_with(60, other)
    assert other.claim() is None, "a minute without a connection is not the end"
    clock.pass_with(55, other)
    again = other.claim()
    assert again.trial.number == claim.trial.number and again.folder.is_relative_to(tmp_path / "b")
    # The first comes back: it learns that, and can't record anything.
    clock.now += leases.BEAT
    assert one.beat([claim]) == [claim]
    assert not one.tell(claim, TrialState.COMPLETE, 1.0)
    assert other.beat([again]) == [] and other.tell(again, TrialState.COMPLETE, 2.0)
    assert [t.value for t in one.ended()] == [2.0] and one.claim() is None


def test_in_a_common_folder_it_goes_on_from_its_checkpoint(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "is_server", lambda url: True)
    one = Ledger(tmp_path / "s", plan("depth=1"))
    monkeypatch.setattr(leases, "this_machine", lambda: "another")
    other = Ledger(tmp_path / "s", plan("depth=1"))
    claim = one.claim()
    claim.log.close()  # that lock did not reach the other machine, or went with this one
    clock.pass_with(60, other)
    assert other.claim() is None
    clock.pass_with(60, other)
    again = other.claim()
    assert again.folder == claim.folder
    other.leave(again)
    again.log.close()
    assert one.claim().folder == claim.folder, "what is released is free at once"


def test_a_server_that_was_away_makes_no_machine_look_dead(tmp_path: Path, clock: Clock) -> None:
    one, other = two(tmp_path)
    claim = one.claim()
    clock.pass_with(30, one, other, claims=(claim,))
    clock.now += 300  # nobody could see anything
    other.beat([])
    assert other.claim() is None, "its owner had no time to come back"
    clock.pass_with(120, one, other, claims=(claim,))
    assert other.claim() is None
    assert one.tell(claim, TrialState.COMPLETE, 1.0)


def test_of_two_that_take_over_at_once_one_gets_it(tmp_path: Path, clock: Clock) -> None:
    one, other = two(tmp_path)
    third = Ledger(tmp_path / "a" / "sweep", plan("depth=1"), f"sqlite:///{tmp_path / 'shared.db'}")
    claim = one.claim()
    claim.log.close()
    clock.pass_with(120, other, third)
    found = other.leases.read()[claim.trial._trial_id]
    assert other.leases.take(claim.trial._trial_id, found)
    assert not third.leases.take(claim.trial._trial_id, found)
    assert not third.leases.take(claim.trial._trial_id, None)
    found = other.leases.read()[claim.trial._trial_id]
    assert other.leases.take(claim.trial._trial_id, found), "once more, by its owner"
    assert not third.leases.take(claim.trial._trial_id, found)


def test_a_grid_entered_twice_at_once_counts_once(tmp_path: Path) -> None:
    one, other = two(tmp_path, "depth=1,2,3")
    for point in one.plan.points:
        other.study.enqueue_trial({}, user_attrs={"point": point})
    assert one.total == other.total == 3
