"""The exceptions that reach people: what went wrong and what to do, in one line."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """Something the user can fix.

    Entry points print its message as one line on stderr and exit with its code, without a
    traceback. The message says what is wrong and what to do about it.
    """

    code = 2


class Outage(UserError):
    """The machine's fault, not the command's: a full disk, no network, another process.

    Once that is fixed, the same command continues.
    """

    code = os.EX_TEMPFAIL


_PASSING = {
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
    errno.ETIMEDOUT,
}  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether JAX's runtime says so."""
    return "RESOURCE_EXHAUSTED" in str(error)


def passing(error: BaseException | None) -> bool:
    """Whether a failed read says nothing about the file itself: no permission, no memory, a file
    server out of reach."""
    while error is not None:
        if isinstance(error, MemoryError) or out_of_memory(error):
            return True
        told = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's
        if (int(told[1]) if told else getattr(error, "errno", None)) in _PASSING:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raises Outage when the system refuses what is written there."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise Outage(
            f"cannot write to {place} ({reason}): make that possible, and run the command again"
        ) from error


class PeersLost(Outage):
    """Another process of the run is gone."""

    def __init__(self, reason: str):
        """reason: how that was noticed."""
        super().__init__(
            f"another process of this run is gone ({reason}): start all of them again, and the run "
            "resumes from its last checkpoint"
        )


class Diverged(UserError):
    """The numbers are not finite, or the loss is far above that of knowing nothing."""

    def __init__(self, what: str, good: int):
        """what: what was seen, where, at which learning rate; good: the last checkpoint's step."""
        super().__init__(
            f"{what}. Last good checkpoint: step {good:,}. Lower learning_rate or max_grad_norm in "
            "a new workdir; or continue from that checkpoint at half the learning rate with "
            "--config.on_nan=rollback"
        )
        self.what = what
