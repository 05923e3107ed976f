"""C-MAPSS: turbofan engines run until they fail; the life left is to be told (Saxena et al. 2008).

`train_FD001.txt` holds whole lives, `test_FD001.txt` lives cut at some cycle, `RUL_FD001.txt` what
was left then. 26 columns without a header: engine, cycle, 3 settings, 21 sensors.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnx.data.frame import Remarks, content, decoded
from rnnx.data.parting import part_numbers
from rnnx.data.series import Labelled
from rnnx.errors import UserError

COLUMNS = (
    *(f"setting {i}" for i in range(1, 4)),
    *(f"sensor {i}" for i in range(1, 22)),
)
CAP = 125  # cycles: a healthy engine's life is not told apart from a longer one's
_SHORTEST = 20  # cycles of a cut life


def read_cmapss(
    path: str | Path, *, cap: int = CAP, valid: float = 0.2, seed: int = 0
) -> tuple[Labelled, list[str], list[str]]:
    """Engines, with min(cap, cycles left) for every cycle, and notes and warnings.

    Those of `valid` are held out whole, and their lives cut at a random cycle, as the test's are.
    Columns that are constant in the training part are left out.

    Args:
      path: the training file, or a folder with one.
      cap: of the life left, in cycles.
      valid: the share of training engines for validation.
      seed: of the engines held out and of where their lives are cut.

    Raises:
      UserError: a file that is not there or has other columns, several training files.
    """
    remarks, path = Remarks([], []), Path(path).expanduser()
    if path.is_dir():
        found = sorted(path.glob("train_FD*.txt"))
        if len(found) != 1:
            named = ", ".join(file.name for file in found) or "none"
            raise UserError(
                f"{path} should hold one train_FD....txt; found: {named}. Name the file"
            )
        (path,) = found
    if not path.name.startswith("train_"):
        raise UserError(f"{path.name} is not a training file: name train_FD001.txt or its folder")
    ids, lives = _engines(path)
    test_ids, cut = _engines(path.with_name(path.name.replace("train_", "test_")))
    rest_file = path.with_name(path.name.replace("train_", "RUL_"))
    rest = _numbers(rest_file)
    if rest.shape != (len(cut), 1):
        raise UserError(f"{rest_file} has {len(rest)} rows, but there are {len(cut)} test engines")
    left = [np.arange(len(life) - 1.0, -1, -1) for life in lives]
    late = [np.arange(len(life) - 1.0, -1, -1) + r for life, r in zip(cut, rest[:, 0], strict=True)]
    part = np.repeat(np.array([0, 2], np.int8), [len(lives), len(cut)])
    rng = np.random.default_rng(seed)
    part = part_numbers(part, valid, 0.0, rng)
    for i in np.flatnonzero(part == 1):
        end = int(rng.integers(min(_SHORTEST, len(lives[i])), len(lives[i]) + 1))
        lives[i], left[i] = lives[i][:end], left[i][:end]
    train = np.concatenate([life for life, p in zip(lives, part, strict=False) if p == 0])
    varied = np.ptp(train, axis=0) > 0
    names = [name for name, good in zip(COLUMNS, varied, strict=True) if not good]
    if names:
        remarks.notes.append(f"constant in the training part, left out: {', '.join(names)}")
    held = int((part == 1).sum())
    remarks.notes.append(
        f"{len(lives) - held} engines to train, {held} to validate (cut at a random cycle), "
        f"{len(cut)} to test; life left up to {cap} cycles"
    )
    steps = [np.minimum(target, cap) for target in (*left, *late)]
    data = Labelled(
        (*(f"train {i}" for i in ids), *(f"test {i}" for i in test_ids)),
        [life[:, varied].astype(np.float32) for life in (*lives, *cut)],
        np.array([target[-1] for target in steps]), steps,
        tuple(name for name, good in zip(COLUMNS, varied, strict=True) if good), (), part,
    )  # fmt: skip
    return data, remarks.notes, remarks.warnings


def read_engines(path: Path, columns: Sequence[str]) -> tuple[list[str], list[np.ndarray]]:
    """The numbers of the engines in a file, and some columns (T, F) of each one's cycles."""
    ids, lives = _engines(path)
    chosen = [COLUMNS.index(name) for name in columns]
    return list(map(str, ids)), [life[:, chosen] for life in lives]


def _numbers(path: Path) -> np.ndarray:
    """A table of numbers parted by spaces, (N, C)."""
    text = decoded(path, content(path))
    try:
        return np.loadtxt(io.StringIO(text), ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers: {error}") from error


def _engines(path: Path) -> tuple[list[int], list[np.ndarray]]:
    """The numbers of engines, and the settings and sensors (T, 24) of each one's cycles."""
    table = _numbers(path)
    if table.shape[1] != 2 + len(COLUMNS):
        raise UserError(f"{path} has {table.shape[1]} columns, C-MAPSS has {2 + len(COLUMNS)}")
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    ids, starts = np.unique(table[:, 0], return_index=True)
    return ids.astype(int).tolist(), np.split(table[:, 2:], starts[1:])
