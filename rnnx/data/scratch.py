"""A folder to work in unseen, beside what is made there."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_ABANDONED = 86_400  # seconds after which what a killed process left is removed


@contextlib.contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder, removed afterwards, and with it those of killed processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - other.stat().st_mtime > _ABANDONED:
                shutil.rmtree(other, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as made:
        yield Path(made)
