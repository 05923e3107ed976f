"""Where a sweep's study is kept: SQLite in the workdir, or a database server."""

import random
import time
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from rnnx.errors import UserError

# File systems of another machine's disks, as /proc/mounts names them.
_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fhgfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs",
    "fuse.sshfs", "fuse.weka", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs",
}  # fmt: skip
_SERVER = "--storage=postgresql://USER@HOST/NAME"
_TRIES = 8  # to make the tables, while others do the same

# A connection that is cut without notice is noticed within half a minute: here by the first five
# (libpq), and by the server, which would otherwise keep a vanished machine's locks for hours.
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c idle_in_transaction_session_timeout=30000 -c lock_timeout=20000",
}


def network_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the network file system that a path is on: `nfs4`; empty if it is on none."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    path, found, kind = path.resolve(), -1, ""
    for line in lines:
        _, point, its_kind, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")  # a space is \040
        if path.is_relative_to(point) and len(point) >= found:  # the later one lies on top
            found, kind = len(point), its_kind
    return kind if kind in _NETWORK else ""


def address(storage: str, folder: Path) -> URL:
    """The address of a study: what --storage says, else SQLite in the sweep's folder.

    Raises:
      UserError: when it is no address, or SQLite would lie on a network disk.
    """
    try:
        url = make_url(storage or f"sqlite:///{folder.resolve() / 'sweep.db'}")
    except ArgumentError:
        raise UserError(f"--storage={storage} is no address: write {_SERVER}") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and url.database:
        place = Path(url.database).parent
        if kind := network_disk(place):
            raise UserError(
                f"{place} is a network disk ({kind}), where SQLite may lose trials: use a server "
                f"({_SERVER}), or one machine and its own disk (--storage=sqlite:////tmp/sweep.db)"
            )
    return url


def is_server(url: URL) -> bool:
    """Whether the study is kept by a server, which may be out of reach for a while."""
    return url.get_backend_name() != "sqlite"


def shown(url: URL) -> str:
    """An address without its password."""
    return url.render_as_string(hide_password=True)


def opened(url: URL) -> RDBStorage:
    """The storage at an address; its tables are made if they are missing.

    Raises:
      UserError: when the address can't be used.
      OperationalError, StorageInternalError: when it is out of reach.
    """
    options: dict = {}
    if url.get_backend_name() == "postgresql":
        options = {"pool_pre_ping": True, "connect_args": _CONNECTION}
    for tried in range(1, _TRIES + 1):
        try:
            return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
        except ImportError:
            raise UserError(
                f"no driver for {shown(url)}: pip install 'psycopg[binary]', and write {_SERVER}"
            ) from None
        except SQLAlchemyError as error:
            # Of several that make the tables at once, one succeeds.
            if tried == _TRIES or not _made_by_another(error):
                raise
            time.sleep(random.uniform(0.1, 1.0))
        except StorageInternalError as error:
            if tried == _TRIES or not _made_by_another(error.__cause__):
                raise
            time.sleep(random.uniform(0.1, 1.0))
    raise AssertionError


def _made_by_another(error: BaseException | None) -> bool:
    told = str(error).lower()
    return any(word in told for word in ("already exists", "duplicate", "unique constraint"))


def unreachable(error: BaseException) -> bool:
    """Whether an error says that the server can't be reached now, rather than what it refuses."""
    while error is not None:
        # The third comes where a connection was cut between two statements.
        if isinstance(error, OperationalError | InterfaceError | PendingRollbackError):
            return True
        if getattr(error, "connection_invalidated", False):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """The first line of the database's own words."""
    error = error.__cause__ if isinstance(error, StorageInternalError) else error
    error = getattr(error, "orig", None) or error
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
