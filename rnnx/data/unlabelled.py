"""New sequences to predict from, in the form of a training file; labels are not read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnx.data.archives import read_npz, read_ts, read_tsv
from rnnx.data.cmapss import COLUMNS, read_engines
from rnnx.data.frame import need, numbers, read_frame
from rnnx.data.labelled import rows_of_sequences
from rnnx.data.regular import forward
from rnnx.errors import UserError


def read_unlabelled(
    path: str | Path, *, columns: Sequence[str], mean: np.ndarray, group: str = "", time: str = ""
) -> tuple[list[str], list[np.ndarray]]:
    """The names of N sequences, and N arrays (T_i, F) float32.

    Args:
      columns: F names; of a table, and of C-MAPSS, the columns that are read.
      mean: (F,) what stands where nothing is known yet; later gaps are the last value before them.
      group, time: of a table.

    Raises:
      UserError: no such column, no sequences, another number of values a step.
    """
    path = Path(path).expanduser()
    if "_FD0" in path.name:
        if strange := [name for name in columns if name not in COLUMNS]:
            raise UserError(f"{path} has no column {strange[0]!r}, which the network reads")
        names, inputs = read_engines(path, columns)
    elif path.suffix.lower() == ".npz":
        inputs = read_npz(path, labelled=False)[0].inputs
        names = [str(i + 1) for i in range(len(inputs))]
    elif path.suffix.lower() in (".ts", ".tsv", ".txt"):
        inputs = (read_ts if path.suffix.lower() == ".ts" else read_tsv)(path).inputs
        names = [str(i + 1) for i in range(len(inputs))]
    else:
        names, inputs = _table(path, columns, group, time)
    if wrong := [x.shape[1] for x in inputs if x.shape[1] != len(columns)]:
        raise UserError(f"{path} has {wrong[0]} values a step; the network reads {len(columns)}")
    kept = [i for i, x in enumerate(inputs) if len(x)]
    if not kept:
        raise UserError(f"{path} holds no sequences")
    filled = [
        x if np.isfinite(x).all() else forward(np.where(np.isinf(x), np.nan, x), mean)
        for x in (inputs[i] for i in kept)
    ]
    return [names[i] for i in kept], [x.astype(np.float32) for x in filled]


def _table(
    path: Path, columns: Sequence[str], group: str, time: str
) -> tuple[list[str], list[np.ndarray]]:
    if not group:
        raise UserError(f"{path} is a table, but the network was not trained on one")
    frame = read_frame(path, {group})
    need(frame, [group], "group")
    need(frame, columns)
    need(frame, filter(None, [time]), "time")
    codes, names, order = rows_of_sequences(frame, group, time, [])
    values = np.stack([numbers(frame[name], "input") for name in columns], axis=1)[order]
    cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
    return [str(name) for name in names], np.split(values, cuts)
