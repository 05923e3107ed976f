"""What every `python -m rnnx.X` shares: flags, `--help`, one-line errors and exit codes.

Exit codes: 0 done; 1 a fault of ours (with traceback); 2 something the person can mend, in one
line on stderr; 75 the same, but of the machine: disk, network, rights, another process; 128 + N
ended by signal N.
"""

import contextlib
import errno
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from rnnx import cache
from rnnx import config as configs
from rnnx.errors import Outage, UserError


def command() -> str:
    """The command line of this process, to be kept with what it makes; empty if it is not ours."""
    path = Path(sys.argv[0])
    if path.parent.parent.name != "rnnx" and path.parent.name != "rnnx":
        return ""
    name = path.parent.name if path.name == "__main__.py" else path.stem
    return shlex.join(["python", "-m", f"rnnx.{name}", *sys.argv[1:]])


class Lasting:
    """A stream that outlives its reader: what is written once that has gone is dropped.

    A pipe whose end was closed, a terminal that went with its window: a run goes on unseen.
    """

    def __init__(self, stream: Any):
        """stream: a text file, or None, which sys.stdout is if it was closed before."""
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 - lives with the process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._unread():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self._stream.flush()

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            # What its buffer holds must go somewhere too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class Stop:
    """Notes SIGINT, SIGTERM or SIGHUP for a loop to act on, while entered.

    The same one again does what it would have done without; but a second SIGHUP nothing, as both
    the shell and the system send one when a terminal is closed. One that is ignored, as under
    nohup, stays so. Where no handler can be set, in threads other than the main one, nothing is
    noted.
    """

    def __init__(self, several: bool = False) -> None:
        """several: this process is one of several, which JAX has agree on a moment when one of
        them gets a SIGTERM; the other signals are made into that."""
        self.number = 0  # of the signal that came, or 0
        self._several = several
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
            if self._several:
                numbers.remove(signal.SIGTERM)
            if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
                numbers.remove(signal.SIGHUP)
            for number in numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: Any) -> None:
        again = signal.SIG_IGN if number == signal.SIGHUP else self._before[number]
        signal.signal(number, again)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.number = number


def run(main: Callable[[], None], doc: str) -> None:
    """Parses flags, calls main, and turns what people can mend into one line and an exit code.

    Args:
      main: the entry point; reads `flags.FLAGS`.
      doc: the module's docstring, the head of `--help`.
    """
    program = "rnnx." + Path(sys.argv[0].removesuffix("/__main__.py")).stem
    has_config = "config" in flags.FLAGS
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)
    try:
        if {"--help", "-h", "-help", "--helpfull"} & set(sys.argv[1:]):
            print(_help(doc, has_config))
            return
        _parse(has_config)
        # orbax logs every save, and every failure in each of its layers.
        logging.set_verbosity(logging.FATAL)
        warnings.filterwarnings("ignore", module="orbax")
        cache.keep_compiled()
        main()
        return
    except (UserError, flags.Error) as error:
        told, code = f"error: {error}", getattr(error, "code", UserError.code)
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        place = f" {error.filename}" if error.filename else ""
        told = f"error: cannot read or write{place}: {error.strerror or error}"
        code = Outage.code
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told, code = f"error: out of memory ({str(error).splitlines()[0]})", UserError.code
    except KeyboardInterrupt:
        told, code = "interrupted", 128 + signal.SIGINT
    finally:
        with contextlib.suppress(OSError):  # the disk that is full may be that of the output
            sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(f"{program}: {' '.join(told.split())}", file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        os._exit(code)  # an orderly end would wait for the other processes, and they for this one
    sys.exit(code)


def _parse(has_config: bool) -> None:
    if has_config:
        for arg in sys.argv[1:]:
            # config_flags answers an unknown field with a bare traceback.
            if (field := re.match(r"--?(?:no)?config\.(\w+)", arg)) and (
                field[1] not in configs.FIELDS
            ):
                hint = configs.nearest(field[1], configs.FIELDS)
                raise UserError(f"unknown config field {field[1]!r}; {hint}")
    try:
        rest = flags.FLAGS(sys.argv)
        if has_config and flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # a missing file is told on first use only
    except (UserError, flags.Error) as error:
        if missing := re.search(r"Flag (--\w+) must have a value other than None", str(error)):
            raise UserError(f"{missing[1]}=... is missing: see --help") from None
        raise
    except OSError:
        file = re.search(r"-config[= ](\S+)", " ".join(sys.argv))
        raise UserError(f"cannot read the config file {file and file[1]}") from None
    except Exception as error:  # a config file is code: it may raise anything
        raise UserError(f"cannot read the config: {type(error).__name__}: {error}") from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: flags are --name=value, see --help")


def _help(doc: str, has_config: bool) -> str:
    lines = [doc.strip(), "", "flags:"]
    for flag in flags.FLAGS.flags_by_module_dict().get(sys.argv[0], []):
        default = "" if flag.default in (None, False, "") else f" (default: {flag.default})"
        lines += _wrap(f"--{flag.name}: {flag.help}{default}")
    if has_config:
        lines += ["", "config fields, set by --config.FIELD=VALUE behind --config=FILE:"]
        for name, field in configs.FIELDS.items():
            choices = f" [{'|'.join(field.choices)}]" if field.choices else ""
            lines += _wrap(f"{name} = {field.default!r}: {field.help}{choices}")
    return "\n".join(lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent="  ", subsequent_indent="      ")
