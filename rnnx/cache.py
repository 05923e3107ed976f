"""The user's cache: prepared corpora, and programs that XLA has compiled.

It is `$RNNX_CACHE`, else `$XDG_CACHE_HOME/rnnx`, else `~/.cache/rnnx`, and may be deleted at any
time.
"""

import hashlib
import os
import platform
import re
import stat
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import jax

from rnnx.errors import writing


def root() -> Path:
    """The cache's folder; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("RNNX_CACHE") or f"{base}/rnnx").expanduser().absolute()


def raw(data_dir: str = "") -> Path:
    """Where raw files of corpora lie: data_dir, else `$RNNX_DATA`, else `raw` in the cache."""
    return Path(data_dir or os.environ.get("RNNX_DATA") or root() / "raw").expanduser()


def keep_compiled() -> None:
    """Makes JAX keep compiled programs in the cache and look for them there.

    JAX's own variable JAX_COMPILATION_CACHE_DIR names another place, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns caching off. One line on stderr says why programs can't be
    kept where others could change them.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        folder = compiled()
    except Risk as risk:
        print(f"compiling without a cache: {risk}; set RNNX_CACHE to a folder of your own",
              file=sys.stderr)  # fmt: skip
        return
    except OSError:
        return  # no place to write: compile anew
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


class Risk(Exception):
    """Another user could replace what a folder holds."""


def compiled() -> Path:
    """The folder of compiled programs, made if need be.

    There is one for each kind of processor and each jaxlib, because machines of different
    instruction sets may share a home directory.

    Raises:
      Risk: compiled programs are run unchecked, and another user could write there.
      OSError: when it can't be made.
    """
    folder = root() / "compiled" / _machine()
    make_private(folder)
    folder = folder.resolve()
    if risk := _open_to_others(folder):
        raise Risk(risk)
    return folder


def make_private(folder: Path) -> None:
    """Creates a folder and its missing parents, each for its owner only; others stay as they are.

    Raises:
      OSError: when one can't be created.
    """
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def keep(path: Path, text: str) -> None:
    """Writes a file of the cache, whole or not at all, whatever other processes do.

    Raises:
      Outage: when it can't be written.
    """
    with writing(path.parent):
        make_private(path.parent)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".incoming-", delete=False
        ) as file:
            file.write(text)
        os.replace(file.name, path)


def _open_to_others(folder: Path) -> str:
    """Which folder of a path without links lets another user replace what folder holds, or ''.

    As root can write everywhere, its folders count as our own. In a sticky folder such as /tmp
    others can't replace what is ours, and where they can't pass, they can't write below either.
    """
    out_of_reach = False
    for place in (*reversed(folder.parents), folder):
        status = place.stat()
        if status.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to another user"
        safe = out_of_reach or (status.st_mode & stat.S_ISVTX and place != folder)
        if status.st_mode & 0o022 and not safe:
            return f"others can write to {place}"
        out_of_reach = out_of_reach or not status.st_mode & 0o011
    return ""


def _machine() -> str:
    """A name for this processor's instruction set and this jaxlib."""
    try:
        told = re.search(r"^(flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        told = None
    flags = " ".join(sorted(told[2].split())) if told else platform.processor()
    kind = f"{platform.system()} {platform.machine()} {flags}"
    return f"jaxlib-{metadata.version('jaxlib')}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
