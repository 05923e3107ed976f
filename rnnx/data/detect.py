"""What a file asks for: forecasting, classification, regression or a language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnnx.data import times
from rnnx.data.archives import read_npz, read_tsv, ts_kind
from rnnx.data.frame import content, need, numeric, read_frame, sniff
from rnnx.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TASKS = ("forecast", "classify", "regress", "text")
_CLASSES = 20  # different whole numbers that may be classes
_WIDE = 20  # columns of numbers beside an id that are rather one series
_IDS = {"id", "case", "case_id", "sample", "sample_id", "sequence", "sequence_id", "series_id",
        "subject", "subject_id", "trial", "trial_id", "uid"}  # fmt: skip
_TEXTS = {".md", ".rst", ".tex", ".html", ".py", ".c", ".json", ".xml"}
_SAY = "say --task=forecast, classify, regress or text"


def detect(
    path: str | Path,
    *,
    time: str = "",
    target: Sequence[str] = (),
    group: str = "",
    horizon: int = 0,
    layout: str = "long",
) -> tuple[str, str]:
    """One of TASKS, and in one line why.

    By the flags, the kind of file, and the columns of a table: those with times ask for a forecast,
    those with a label that is the same within each id for a class or a number.

    Raises:
      UserError: no file, or in doubt, with what to say.
    """
    path = Path(path).expanduser()
    if path.is_dir() or path.name.startswith("train_FD"):
        if path.is_file() or list(path.glob("train_FD*.txt")):
            return "regress", f"{path.name} is C-MAPSS: the life left of engines"
        raise UserError(f"{path} is a folder: name a file")
    suffix = path.suffix.lower()
    if suffix == ".ts":
        task = ts_kind(path)
        return task, f"{path.name} is a .ts file labelled with {_labels(task)}"
    if suffix == ".npz":
        labels = np.array(read_npz(path)[0].labels)
        return _of_labels(labels, labels, f"y of {path.name}")
    if horizon or layout == "wide":
        return "forecast", "--horizon is given" if horizon else "--layout=wide is given"
    data = content(path)
    if data[:4] != b"PAR1" and suffix != ".csv":
        text = _text(path, data)
        if suffix in _TEXTS or not _tabular(path, text):
            return "text", f"{path.name} is UTF-8 text, no table"
        if suffix == ".tsv" and _archive(path):
            return "classify", f"every row of {path.name} is a whole number and a sequence (UCR)"
    return _table(path, time, target, group)


def _labels(task: str) -> str:
    return "numbers" if task == "regress" else "classes"


def _of_labels(labels: np.ndarray, first: np.ndarray, what: str) -> tuple[str, str]:
    """The task of labels, one for each sequence: text and few whole numbers are classes.

    Raises UserError for many whole numbers.
    """
    try:
        values = labels.astype(float)
    except ValueError:
        return "classify", f"{what} holds text: classes"
    different = len(np.unique(values))
    if (values != np.round(values)).any():
        return "regress", f"{what} holds fractions: numbers"
    if different <= _CLASSES and different * 2 <= len(first):
        return "classify", f"{what} holds {different} different whole numbers: classes"
    raise UserError(
        f"{what} holds {different} different whole numbers: say --task=classify or --task=regress"
    )


def _text(path: Path, data: bytes) -> str:
    try:
        if b"\0" not in data:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        pass
    raise UserError(f"{path.name} is neither a table nor UTF-8 text: {_SAY}")


def _tabular(path: Path, text: str) -> bool:
    """Whether lines have the same number of columns, and a number in most of the first ones."""
    try:
        form = sniff(path, text)
    except UserError:
        return False
    if len(form.columns) == 1:
        return False
    lines = text[: 1 << 16].split("\n")[1:21]
    rows = [line.split(form.separator) for line in lines if line.strip()]
    regular = bool(rows) and len({len(row) for row in rows[:-1] or rows}) == 1
    digits = [
        any(cell.strip()[:1].isdigit() or cell.strip()[:1] == "-" for cell in r) for r in rows
    ]
    return regular and sum(digits) * 2 > len(rows)


def _archive(path: Path) -> bool:
    """Whether a .tsv file is a UCR file: numbers only, the first of each row a class."""
    try:
        labels = np.array(read_tsv(path).labels, float)
    except (UserError, ValueError):
        return False
    return bool((labels == np.round(labels)).all()) and len(set(labels)) * 2 <= len(labels)


def _table(path: Path, time: str, target: Sequence[str], group: str) -> tuple[str, str]:
    """The task of a table."""
    frame = read_frame(path, filter(None, [group]))
    need(frame, filter(None, [group]), "group")
    need(frame, target, "target")
    found = time or times.guess(frame, [*target, *filter(None, [group])])
    if group and len(target) == 1:
        same = frame[target[0]].groupby(frame[group].to_numpy()).nunique(dropna=False)
        if (same <= 1).all() and len(same) * 2 <= len(frame):
            return _within(frame, target[0], group)
        if not numeric(frame[target[0]]):
            return "classify", f"{target[0]!r} is not numeric"  # refused later if it changes
        if not found:
            raise UserError(
                f"{target[0]!r} changes within {group!r}, and there is no column of times: say "
                "--task=forecast, or --task=regress for a target of every step"
            )
    if found:
        return "forecast", f"{found!r} holds times"
    numbers = [name for name in frame.columns if numeric(frame[name])]
    if not numbers:
        raise UserError(f"{path.name} is a table without a column of numbers: {_SAY}")
    first = frame.columns[0]
    if first not in numbers and len(numbers) >= _WIDE and not frame[first].duplicated().any():
        raise UserError(
            f"{path.name} seems to hold a series in each row: say --layout=wide to forecast them"
        )
    if pair := _labelled(frame):
        raise UserError(
            f"{pair[1]!r} is the same within each {pair[0]!r}: name --group={pair[0]} and "
            f"--target={pair[1]} for labelled sequences, or say --task=forecast"
        )
    if len(numbers) < len(frame.columns) and not target:
        text = next(name for name in frame.columns if name not in numbers)
        raise UserError(f"{path.name} has no times, and {text!r} is not numeric: {_SAY}")
    return "forecast", "there is no column of times: rows are taken as equally spaced"


def _within(frame: "pd.DataFrame", target: str, group: str) -> tuple[str, str]:
    labels = frame.drop_duplicates(group)[target]
    if not numeric(labels):
        return "classify", f"{target!r} is text, one for each {group!r}"
    task, why = _of_labels(labels.dropna().to_numpy(float), labels.to_numpy(), repr(target))
    return task, f"{why}, one for each {group!r}"


def _labelled(frame: "pd.DataFrame") -> tuple[str, str] | None:
    """A column of ids, and one that is the same within each."""
    for name in frame.columns:
        if name.lower() not in _IDS or frame[name].nunique() * 2 > len(frame):
            continue
        counts = frame.drop(columns=name).groupby(frame[name].to_numpy()).nunique(dropna=False)
        same = counts.columns[(counts <= 1).all()]
        if len(same):
            return name, str(same[-1])
    return None
