"""Files of labelled sequences: UCR .tsv, UEA .ts, .npz. None of them runs code when read."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx.data.frame import MISSING, content, decoded
from rnnx.errors import UserError

LABELS = ("@classlabel", "@targetlabel")
_SEPARATORS = ("\t", ",", None)  # None: any spaces


class Sample(NamedTuple):
    """Sequences of one file with what each is labelled."""

    inputs: list[np.ndarray]  # N arrays (T_i, F) float64, NaN where missing
    labels: list[str]  # N
    columns: tuple[str, ...] = ()  # F names; () for none


def counterpart(path: Path) -> Path | None:
    """The _TEST file beside a _TRAIN file, if there is one."""
    for train, test in (("_TRAIN", "_TEST"), ("_train", "_test")):
        if train in path.name:
            other = path.with_name(test.join(path.name.rsplit(train, 1)))
            return other if other.is_file() else None
    return None


def read_tsv(path: Path) -> Sample:
    """A UCR file: a row a sequence, the label first, NaN after its end.

    Raises:
      UserError: empty, binary, a value that is no number, rows of one value.
    """
    lines = [line for line in decoded(path, content(path)).split("\n") if line.strip()]
    separator = next(s for s in _SEPARATORS if s is None or s in lines[0])
    labels, rows = [], []
    for i, line in enumerate(lines):
        label, *values = line.strip("\n\r ").split(separator)
        labels.append(label.strip())
        rows.append(_values(values, f"{path}, row {i + 1:,}"))
        if not len(values):
            raise UserError(f"{path}, row {i + 1:,} has one value: a label and a sequence belong")
    return Sample([_ended(row[:, None]) for row in rows], labels)


def _values(texts: list[str], where: str) -> np.ndarray:
    """Numbers (T,), NaN where missing."""
    try:
        return np.array(texts, np.float64)
    except ValueError:
        pass
    stripped = [text.strip() for text in texts]
    try:
        return np.array([np.nan if t in MISSING else float(t) for t in stripped])
    except ValueError:
        wrong = next(t for t in stripped if t not in MISSING and not _number(t))
        raise UserError(f"{where}: {wrong[:40]!r} is not a number") from None


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ended(rows: np.ndarray) -> np.ndarray:
    """Steps (T, F) without the ones after the last that has a value."""
    there = np.flatnonzero(np.isfinite(rows).any(axis=1))
    return rows[: there[-1] + 1] if len(there) else rows[:0]


def read_ts(path: Path) -> Sample:
    """A UEA file: header lines with @, then a sequence a line, dimensions parted by colons.

    Raises:
      UserError: no @data, time stamps, a sequence of other dimensions or unequal ones.
    """
    head, separator, body = decoded(path, content(path)).partition("\n@data")
    if not separator:
        raise UserError(f"{path} has no line @data: it is no .ts file, or cut short")
    header = {
        line.split()[0].lower(): line.split()[1:]
        for line in ("\n" + head).split("\n")
        if line.startswith("@")
    }
    if _true(header, "@timestamps"):
        raise UserError(f"{path} has time stamps: write values at regular times instead")
    if not any(_true(header, key) for key in LABELS):
        raise UserError(f"{path} has no labels: neither @classLabel nor @targetLabel is true")
    told = "".join(header.get("@dimensions", ["0"])[:1])
    if not told.isdecimal():
        raise UserError(f"{path}: @dimensions {told[:20]!r} is not a number")
    inputs, labels, count = [], [], int(told)
    for i, line in enumerate(filter(None, map(str.strip, body.split("\n")))):
        *dimensions, label = line.split(":")
        where = f"{path}, sequence {i + 1:,}"
        count = count or len(dimensions)
        if len(dimensions) != count:
            raise UserError(f"{where} has {len(dimensions)} dimensions, expected {count}")
        values = [_values(text.split(","), where) for text in dimensions]
        if len({len(v) for v in values}) > 1:
            raise UserError(f"{where} has dimensions of {len(values[0])} and other lengths")
        inputs.append(_ended(np.stack(values, axis=1)))
        labels.append(label.strip())
    if not inputs:
        raise UserError(f"{path} has no sequences")
    return Sample(inputs, labels)


def _true(header: dict[str, list[str]], key: str) -> bool:
    return [word.lower() for word in header.get(key, [])[:1]] == ["true"]


def ts_kind(path: Path) -> str:
    """ "regress" for a .ts file with @targetLabel true, else "classify"."""
    head = decoded(path, content(path)).partition("@data")[0].lower().split("\n")
    return "regress" if any(line.split() == ["@targetlabel", "true"] for line in head) \
        else "classify"  # fmt: skip


def read_npz(path: Path, labelled: bool = True) -> tuple[Sample, Sample | None]:
    """Arrays x (N, T, F) or (N, T), y (N,), and if there x_test, y_test; lengths, lengths_test.

    With labelled=False, y is not needed. Without `lengths`, a sequence ends at its last step that
    has a value. Pickled objects are refused: reading them could run code.

    Raises:
      UserError: damaged, an array missing, of another shape, or of objects.
    """
    try:
        with np.load(io.BytesIO(content(path)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError, AttributeError, TypeError) as error:
        if "allow_pickle" in str(error):
            raise UserError(f"{path} holds Python objects, which could run code: save plain arrays "
                            "of numbers") from error  # fmt: skip
        raise UserError(f"{path} is not a whole .npz file") from error
    if not labelled and "x" in arrays:
        arrays["y"] = np.zeros(len(arrays["x"]), int)
    train = _arrays(path, arrays, "")
    return train, _arrays(path, arrays, "_test") if "x_test" in arrays else None


def _arrays(path: Path, arrays: dict[str, np.ndarray], suffix: str) -> Sample:
    for name in ("x", "y"):
        if name + suffix not in arrays:
            raise UserError(
                f"{path} has no array {name + suffix!r}; known: {', '.join(arrays) or 'none'}"
            )
    x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3):
        raise UserError(f"{path}: x{suffix} is {x.dtype} {x.shape}, expected numbers (N, T, F)")
    if y.shape != x.shape[:1]:
        raise UserError(f"{path}: y{suffix} is {y.shape}, expected ({len(x)},), one for each x")
    x = (x[:, :, None] if x.ndim == 2 else x).astype(np.float64)
    lengths = arrays.get(f"lengths{suffix}")
    if lengths is None:
        inputs = [_ended(rows) for rows in x]
    else:
        whole = lengths.dtype.kind in "iu" and lengths.shape == y.shape
        if not whole or (lengths < 0).any() or (lengths > x.shape[1]).any():
            raise UserError(f"{path}: lengths{suffix} must be {len(x)} ints of 0 to {x.shape[1]}")
        inputs = [rows[:n] for rows, n in zip(x, lengths, strict=True)]
    return Sample(inputs, [str(label) for label in y.tolist()])
