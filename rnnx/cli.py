"""What every `python -m rnnx.X` shares: flags, `--help`, one-line errors and exit codes.

Exit codes: 0 success; 1 a bug in rnnx (with a traceback); 2 an error the user can fix, told in one
line on stderr; 75 likewise, but caused by the machine: disk, network, permissions, another process;
128 + N ended by signal N.
"""

import contextlib
import errno
import itertools
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from rnnx import cache, tasks
from rnnx import config as configs
from rnnx.errors import Outage, UserError, out_of_memory


def command() -> str:
    """This process's command line as typed, recorded in run.json; empty if it is not rnnx's."""
    path = Path(sys.argv[0])
    if path.parent.parent.name != "rnnx" and path.parent.name != "rnnx":
        return ""
    name = path.parent.name if path.name == "__main__.py" else path.stem
    tasks_of_own = os.environ.get("RNNX_TASKS", "")
    needed = f"RNNX_TASKS={shlex.quote(tasks_of_own)} " if tasks_of_own else ""
    return needed + shlex.join(["python", "-m", f"rnnx.{name}", *sys.argv[1:]])


class Lasting:
    """A text stream that drops its output once nobody can read it.

    When a pipe or a terminal is closed, the run continues without output.
    """

    def __init__(self, stream: Any):
        """stream: a text file, or None: sys.stdout is None if it was closed at the start."""
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
            # The buffer still holds text, which is flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class Stop:
    """A context manager that records SIGINT, SIGTERM or SIGHUP for a loop to act on.

    A second signal of the same kind has its usual effect, except SIGHUP, which is then ignored:
    when a terminal is closed, both the shell and the system send one. So is a SIGTERM within
    seconds of the first: SLURM signals a sweep and its runs, and the sweep its runs again. A SIGHUP
    ignored before, as under nohup, stays ignored. Outside the main thread, where Python allows no
    handlers, no signal is recorded.
    """

    SAME = 5.0  # seconds in which two SIGTERMs count as one

    def __init__(self, several: bool = False) -> None:
        """several: this process is one of several. JAX makes all of them stop at the same update
        when one gets a SIGTERM; other signals are turned into a SIGTERM."""
        self.number = 0  # of the signal received; 0: none
        self._since = 0.0
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
        if number != signal.SIGTERM:
            signal.signal(number, again)
        elif self.number == number:
            if time.monotonic() - self._since > self.SAME:
                signal.signal(number, again)
                os.kill(os.getpid(), number)
            return
        self._since = time.monotonic()
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.number = number


def run(main: Callable[..., None], doc: str, files: bool = False) -> None:
    """Parses the flags, calls main, and turns expected errors into one line and an exit code.

    Args:
      main: the entry point; reads `flags.FLAGS`, and takes a list of files if there are any.
      doc: the module's docstring, the first part of `--help`.
      files: whether the command takes names of files beside its flags.
    """
    program = "rnnx." + Path(sys.argv[0].removesuffix("/__main__.py")).stem
    has_config = "config" in flags.FLAGS
    _keep_runtime_apart()
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)
    try:
        tasks.plug_in()
        if {"--help", "-h", "-help", "--helpfull"} & set(sys.argv[1:]):
            print(_help(doc, has_config))
            return
        rest = _parse(has_config)
        if rest and not files:
            raise UserError(f"unexpected argument {rest[0]!r}: flags are --name=value, see --help")
        # orbax logs every save, and every failure in each of its layers.
        logging.set_verbosity(logging.FATAL)
        warnings.filterwarnings("ignore", module="orbax")
        cache.keep_compiled()
        main(*([rest] if files else []))
        return
    except (Exception, KeyboardInterrupt) as error:
        if (expected := ending(error)) is None:
            raise
        told, code = expected
    finally:
        with contextlib.suppress(OSError):  # the output may go to the disk that is full
            sys.stdout.flush()
    with contextlib.suppress(OSError):
        print(f"{program}: {told}", file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        os._exit(code)  # a normal exit would wait for the other processes, and they for this one
    sys.exit(code)


def ending(error: BaseException) -> tuple[str, int] | None:
    """The line that tells of an expected error, and its exit code; None for a bug."""
    told, code = f"error: {error}", getattr(error, "code", UserError.code)
    if isinstance(error, KeyboardInterrupt):
        told, code = "interrupted", 128 + signal.SIGINT
    elif isinstance(error, jax.errors.JaxRuntimeError) and out_of_memory(error):
        told = f"error: out of memory ({str(error).splitlines()[0]})"
    elif isinstance(error, OSError) and error.errno is not None:  # from the operating system
        place = f" {error.filename}" if error.filename else ""
        told = f"error: cannot read or write{place}: {error.strerror or error}"
        code = Outage.code
    elif not isinstance(error, (UserError, flags.Error)):
        return None
    return " ".join(told.split()), code


def _keep_runtime_apart() -> None:
    """Sends what libraries print past Python to the file that RNNX_RUNTIME_LOG names.

    With several processes, JAX's runtime tells of every connection and signal.
    """
    if not (path := os.environ.get("RNNX_RUNTIME_LOG")):
        return
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return  # then it stays among our own lines
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not None:
            setattr(
                sys,
                name,
                open(os.dup(number), "w", encoding=stream.encoding, buffering=1),  # noqa: SIM115
            )
            os.dup2(file, number)
    os.close(file)


def _accept_config_names() -> None:
    """Makes `--config` load packaged configs by name; the flag keeps the name as it was typed."""
    parser = flags.FLAGS["config"].parser
    load = parser.parse
    parser.parse = lambda name: load(configs.config_file(name))


def _parse(has_config: bool) -> list[str]:
    """Reads the flags; returns the other arguments. Raises UserError."""
    if has_config:
        _accept_config_names()
        for arg in sys.argv[1:]:
            # config_flags would answer an unknown field with a traceback.
            if (field := re.match(r"--?(?:no)?config\.(\w+)", arg)) and (
                field[1] not in configs.FIELDS
            ):
                hint = configs.nearest(field[1], configs.FIELDS)
                raise UserError(f"unknown config field {field[1]!r}; {hint}")
    try:
        rest = flags.FLAGS(sys.argv)
        if has_config and flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # a missing file raises on first use only
    except (UserError, flags.Error) as error:
        if missing := re.search(r"Flag (--\w+) must have a value other than None", str(error)):
            raise UserError(f"{missing[1]}=... is missing: see --help") from None
        raise
    except OSError:
        found = re.search(r"-config[= ](\S+)", " ".join(sys.argv))
        file = Path(found[1].partition(":")[0] if found else "")
        packaged = file.stem in configs.packaged()
        hint = f"; the packaged one is --config={file.stem}" if packaged else ""
        raise UserError(f"cannot read the config file {file}{hint}") from None
    except Exception as error:  # a config file is code: it may raise anything
        name = str(error).strip("\"'")
        if isinstance(error, AttributeError) and name in configs.FIELDS:
            owners = " or ".join(configs.FIELDS[name].tasks)
            raise UserError(
                f"{name} is a field of the task {owners}, not of this config's"
            ) from None
        raise UserError(f"cannot read the config: {type(error).__name__}: {error}") from error
    return rest[1:]


def _help(doc: str, has_config: bool) -> str:
    lines = [doc.strip(), "", "flags:"]
    by_module = flags.FLAGS.flags_by_module_dict()
    ours = (by_module[m] for m in by_module if m == sys.argv[0] or m.startswith("rnnx."))
    for flag in itertools.chain.from_iterable(ours):
        default = "" if flag.default in (None, False, "") else f" (default: {flag.default})"
        lines += _wrap(f"--{flag.name}: {flag.help}{default}")
    if has_config:
        lines += ["", "config fields, set by --config.FIELD=VALUE after --config=NAME:"]
        # Those that every task has first.
        for name, field in sorted(configs.FIELDS.items(), key=lambda item: bool(item[1].tasks)):
            choices = f" [{'|'.join(field.choices)}]" if field.choices else ""
            choices += f" ({', '.join(field.tasks)} only)" if field.tasks else ""
            lines += _wrap(f"{name} (default {field.default!r}): {field.help}{choices}")
    return "\n".join(lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text, 96, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )
