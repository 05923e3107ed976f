"""Features of recordings, kept in the cache by what they are made from."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rnnx import cache
from rnnx.data import sound


def of(
    samples: Sequence[np.ndarray], rates: Sequence[int], wanted: int, say: Callable[[str], None]
) -> list[np.ndarray]:
    """`sound.features` of N recordings (S_i,) at their rates, each (T_i, 40).

    Raises:
      UserError: for a recording shorter than one window.
    """
    digest = hashlib.sha256(f"log_mel {sound.BANDS} {wanted} {list(rates)}".encode())
    for one in samples:
        digest.update(one.tobytes())
    path = cache.root() / "speech" / f"{digest.hexdigest()[:32]}.npz"
    frames = _kept(path, len(samples))
    if frames is None:
        say("computing features")
        frames = [sound.features(x, r, wanted) for x, r in zip(samples, rates, strict=True)]
        _keep(path, frames)
    return frames


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
