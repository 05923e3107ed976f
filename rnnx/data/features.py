"""Features of recordings, kept in the cache by what they are made from."""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rnnx import cache
from rnnx.data import sound

_EVERY = 10.0  # seconds between two lines of progress


def of(
    load: Callable[[int], tuple[np.ndarray, int]],
    count: int,
    wanted: int,
    say: Callable[[str], None],
) -> tuple[list[np.ndarray], str]:
    """`sound.features` of recordings 0..count - 1, each (T_i, 40), and the sha256 of their sound.

    Args:
      load: the samples (S,) of a recording and their rate. It is called for one at a time, twice
        where features are computed, so that hours of sound need not fit into memory.
      wanted: the rate that all are brought to.
      say: called with a line of text before features are computed, and every ten seconds.

    Raises:
      UserError: for a recording shorter than one window.
    """
    digest = hashlib.sha256(f"log_mel {sound.BANDS} {wanted}".encode())
    for i in range(count):
        samples, rate = load(i)
        digest.update(f"{rate} {len(samples)} ".encode())
        digest.update(samples.tobytes())
    path = cache.root() / "speech" / f"{digest.hexdigest()[:32]}.npz"
    frames = _kept(path, count)
    if frames is None:
        say("computing features")
        frames, told = [], time.monotonic()
        for i in range(count):
            frames.append(sound.features(*load(i), wanted))
            if time.monotonic() - told > _EVERY:
                told = time.monotonic()
                say(f"computing features: {i + 1:,} of {count:,} recordings")
        _keep(path, frames)
    return frames, digest.hexdigest()


def _kept(path: Path, count: int) -> list[np.ndarray] | None:
    """Features from the cache; None where it has none, or a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            frames = np.split(file["frames"], file["ends"][:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return frames if len(frames) == count else None


def _keep(path: Path, frames: list[np.ndarray]) -> None:
    """Writes features, whole or not at all; where the cache can't be written there is none."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            np.savez(file, frames=np.concatenate(frames), ends=np.cumsum([len(f) for f in frames]))
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
