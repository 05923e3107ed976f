"""The user's cache: prepared corpora, and programs that XLA has compiled.

It is `$RNNX_CACHE`, else `$XDG_CACHE_HOME/rnnx`, else `~/.cache/rnnx`, and may be deleted at any
time.
"""

import hashlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import jax


def root() -> Path:
    """The cache's folder; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("RNNX_CACHE") or f"{base}/rnnx").expanduser().absolute()


def keep_compiled() -> None:
    """Has JAX keep what it compiles, and look there first.

    In a folder that only its owner can read, as compiled programs are trusted, and one for each
    kind of processor and jaxlib: a home directory may be shared by machines whose instruction sets
    differ. JAX's own variable JAX_COMPILATION_CACHE_DIR names another place, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = root() / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError:
        return  # no place to write: compile anew
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _machine() -> str:
    """A name for this processor's instruction set and this jaxlib."""
    try:
        told = re.search(r"^(flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        told = None
    flags = " ".join(sorted(told[2].split())) if told else platform.processor()
    kind = f"{platform.system()} {platform.machine()} {flags}"
    return f"jaxlib-{metadata.version('jaxlib')}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
