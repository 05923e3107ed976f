"""Labelled sequences: read from the archives' files or a long table, parted, gaps filled.

    data, notes, warnings = read_labelled("ECG200_TRAIN.tsv")
    data, notes, warnings = read_labelled("gait.csv", group="id", target="patient", time="t")

Standardising is the tasks' part.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnnx.data import times
from rnnx.data.archives import Sample, counterpart, read_npz, read_ts, read_tsv
from rnnx.data.cmapss import read_cmapss
from rnnx.data.frame import Remarks, need, numbers, numeric, read_frame, stripped
from rnnx.data.parting import part_classes, part_numbers
from rnnx.data.regular import forward
from rnnx.data.series import Labelled
from rnnx.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "read_cmapss", "read_labelled"]
KINDS = ("classify", "regress")
_TEST = 0.2  # of a file without a test part
_FEW = 2  # sequences of a class in train


def read_labelled(
    path: str | Path,
    *,
    target: str = "",
    group: str = "",
    time: str = "",
    covariates: Sequence[str] = (),
    test: str | Path | None = None,
    kind: str = "classify",
    valid: float = 0.2,
    seed: int = 0,
) -> tuple[Labelled, list[str], list[str]]:
    """The sequences of a file with a class or a number for each, with notes and warnings.

    `.tsv` (UCR: label first), `.ts` (UEA) and `.npz` (x, y) hold sequences; of a `_TRAIN` file the
    `_TEST` file beside it is found. CSV and Parquet are long tables: a row a step. A folder, or
    `train_FD001.txt`, is C-MAPSS, which `read_cmapss` reads.

    Args:
      target, group, time: of a long table, the columns of the label, of the id of a row's
        sequence, and of the order of its steps ("" keeps that of the file). To regress, a target
        that changes within a sequence is one of its steps: `steps` holds it, `labels` the last.
      covariates: of a long table, the input columns; () for all other numeric ones.
      test: a file of the same form; by default 20 % of the sequences, of each class.
      kind: "classify" or "regress".
      valid: the share of the others that is for validation, of each class.
      seed: of what is drawn.

    Raises:
      UserError: a file, column, value or label that can't be used; one class only.
    """
    if kind not in KINDS:
        raise UserError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if not 0 < valid < 1:
        raise UserError(f"a share of {valid} for validation: it must lie between 0 and 1")
    remarks, path = Remarks([], []), Path(path).expanduser()
    if path.is_dir() or path.name.startswith("train_FD"):
        return read_cmapss(path, valid=valid, seed=seed)
    steps = None
    if path.suffix.lower() in (".tsv", ".ts", ".npz", ".txt"):
        if named := [n for n in (target, group, time, *covariates) if n]:
            raise UserError(f"{path.name} has no named columns: leave out {', '.join(named)}")
        samples = _archive(path, test, remarks.notes)
        ids = [f"{part} {i + 1}" for part, sample in zip(("train", "test"), samples, strict=False)
               for i in range(len(sample.inputs))]  # fmt: skip
    else:
        samples, ids, steps = _long(path, test, (target, group, time, covariates), kind, remarks)
    return (
        _labelled(samples, ids, steps, kind, valid, seed, remarks),
        remarks.notes,
        remarks.warnings,
    )


def _archive(path: Path, test: str | Path | None, notes: list[str]) -> list[Sample]:
    """The sequences of a file, and those of its test part if there is one."""
    if path.suffix.lower() == ".npz":
        train, later = read_npz(path)
        if test:
            later, _ = read_npz(Path(test).expanduser())
        return [train] if later is None else [train, later]
    read = read_ts if path.suffix.lower() == ".ts" else read_tsv
    found = Path(test).expanduser() if test else counterpart(path)
    if found and not test:
        notes.append(f"the test part is {found.name}")
    samples = [read(path)] + ([read(found)] if found else [])
    if len(samples) > 1:
        train, later = (sample.inputs[0].shape[1] for sample in samples)
        if train != later:
            raise UserError(f"{path} has {train} values a step, {found} {later}")
    return samples


# -------------------------------------------------------------------------------- a long table


def _long(
    path: Path,
    test: str | Path | None,
    names: tuple[str, str, str, Sequence[str]],
    kind: str,
    remarks: Remarks,
) -> tuple[list[Sample], list[str], list[np.ndarray] | None]:
    """The sequences of a table and of its test file, their ids, and targets of steps or None."""
    target, group, time, covariates = names
    for flag, name in (("target", target), ("group", group)):
        if not name:
            raise UserError(f"{path} is a table: name the column of the {flag} with --{flag}")
    samples, ids, steps = [], [], []
    for file in filter(None, (path, test)):
        frame = read_frame(file, {group} if kind == "regress" else {group, target})
        need(frame, [group], "group")
        need(frame, [target], "target")
        need(frame, filter(None, [time]), "time")
        need(frame, covariates, "covariates")
        if not samples:
            columns = _inputs(frame, (target, group, time), covariates, remarks.notes)
        need(frame, columns)
        sample, found, targets = _sequences(frame, columns, (target, group, time), kind, remarks)
        samples.append(sample)
        ids += found
        steps += targets
    constant = all(len(set(t.tolist())) == 1 for t in steps)
    return samples, ids, None if kind == "classify" or constant else steps


def _inputs(
    frame: "pd.DataFrame",
    others: tuple[str, str, str],
    covariates: Sequence[str],
    notes: list[str],
) -> list[str]:
    """The names of the input columns."""
    columns = list(covariates)
    if not columns:
        columns = [name for name in frame.columns if name not in others and numeric(frame[name])]
        notes.append(f"inputs are all columns of numbers: {', '.join(columns)}")
    if not columns:
        raise UserError("no column of numbers is left as an input: name some with --covariates")
    if both := [name for name in columns if name in others]:
        raise UserError(f"column {both[0]!r} is named twice: it can have one role only")
    return columns


def rows_of_sequences(
    frame: "pd.DataFrame", group: str, time: str, notes: list[str]
) -> tuple[np.ndarray, Sequence[str], np.ndarray]:
    """The sequence of each row (N,), the sequences' ids, and the rows by sequence and time (N,).

    Raises:
      UserError: when a row has no id, or no time.
    """
    import pandas as pd

    text = stripped(frame[group])
    if (text == "").any():
        raise UserError(f"--group={group} is empty in row {int((text == '').argmax()) + 1:,}")
    codes, ids = pd.factorize(text)
    order = np.argsort(codes, kind="stable")
    if time:
        at = frame[time]
        plain = pd.api.types.is_numeric_dtype(at)
        at = numbers(at, "time column") if plain else times.parse(at, notes)
        if plain and np.isnan(at).any():
            raise UserError(f"--time={time} is empty in row {int(np.isnan(at).argmax()) + 1:,}")
        order, before = np.lexsort((at, codes)), order
        if (order != before).any():
            notes.append(f"rows are not in order of {time!r}: sorted")
    return codes, ids, order


def _sequences(
    frame: "pd.DataFrame",
    columns: list[str],
    others: tuple[str, str, str],
    kind: str,
    remarks: Remarks,
) -> tuple[Sample, list[str], list[np.ndarray]]:
    """The sequences of a table, their ids, and their targets by step (to regress)."""
    target, group, time = others
    codes, ids, order = rows_of_sequences(frame, group, time, remarks.notes)
    if len(ids) == len(frame) > 1:
        raise UserError(f"--group={group}: every row has another id, so no sequence has two steps")
    values = np.stack([numbers(frame[name], "input") for name in columns], axis=1)[order]
    cuts = np.searchsorted(codes[order], np.arange(1, len(ids)))
    inputs = np.split(np.where(np.isinf(values), np.nan, values), cuts)
    if kind == "classify":
        parts = np.split(stripped(frame[target]).to_numpy(object)[order], cuts)
        labels, steps = [str(part[0]) for part in parts], []
        for name, part in zip(ids, parts, strict=True):
            if len(found := set(part)) > 1:
                shown = " and ".join(sorted(map(repr, found))[:2])
                raise UserError(
                    f"target {target!r} changes within sequence {name!r} ({shown}): one label "
                    "for a sequence"
                )
    else:
        steps = np.split(numbers(frame[target], "target")[order], cuts)
        for name, part in zip(ids, steps, strict=True):
            if not np.isfinite(part).all():
                raise UserError(f"target {target!r} is missing in sequence {name!r}")
        labels = [repr(float(part[-1])) for part in steps]
    return Sample(inputs, labels, tuple(columns)), [str(name) for name in ids], steps


# --------------------------------------------------------------------------------------- parts


def _labelled(
    samples: list[Sample],
    ids: list[str],
    steps: list[np.ndarray] | None,
    kind: str,
    valid: float,
    seed: int,
    remarks: Remarks,
) -> Labelled:
    """Joins the parts of a data set: labels as numbers, parts drawn, gaps filled."""
    inputs = [x for sample in samples for x in sample.inputs]
    labels = np.array([label for sample in samples for label in sample.labels], object)
    late = np.repeat(range(len(samples)), [len(sample.inputs) for sample in samples]) > 0
    there = np.array([len(x) > 0 and bool(np.isfinite(x).any()) for x in inputs])
    if not there.all():
        remarks.notes.append(f"{(~there).sum():,} sequences have no values: left out")
        kept = np.flatnonzero(there)
        inputs, ids = [inputs[i] for i in kept], [ids[i] for i in kept]
        steps = steps and [steps[i] for i in kept]
        labels, late = labels[kept], late[kept]
    if not len(inputs):
        raise UserError("there are no sequences")
    widths = {x.shape[1] for x in inputs}
    if len(widths) > 1:
        raise UserError(f"sequences have {min(widths)} to {max(widths)} values a step")
    rng = np.random.default_rng(seed)
    part = np.where(late, 2, 0).astype(np.int8)
    if kind == "classify":
        classes, numbers_ = _classes(labels, part)
        part = part_classes(numbers_, part, valid, _TEST, rng)
        _few(classes, numbers_[part == 0], remarks.warnings)
    else:
        classes, numbers_ = (), _targets(labels, ids)
        part = part_numbers(part, valid, _TEST, rng)
        if len(np.unique(numbers_[part == 0])) == 1 and steps is None:
            raise UserError(f"the target is always {numbers_[0]:g}: there is nothing to learn")
    counts = np.bincount(part, minlength=3)
    if not counts.all():
        raise UserError(f"{len(part)} sequences are too few for train, valid and test")
    if not late.any():
        remarks.notes.append(
            f"parts drawn by seed {seed}: {counts[0]:,} train, {counts[1]:,} valid, "
            f"{counts[2]:,} test"
        )
    _copies(inputs, part, remarks.warnings)
    lengths = [len(x) for x in inputs]
    span = (
        f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    )
    remarks.notes.append(f"{len(inputs):,} sequences of {span} steps of {widths.pop()} values")
    columns = samples[0].columns or tuple(str(i + 1) for i in range(inputs[0].shape[1]))
    filled = _filled(inputs, part, remarks.notes)
    return Labelled(tuple(ids), filled, numbers_, steps, columns, classes, part)


def _classes(labels: np.ndarray, part: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of the training file, in order of numbers or text, and each label's number.

    Raises UserError for one class only, and a test label that the training file lacks.
    """
    labels = np.array([_plain(label) for label in labels], object)
    if (labels == "").any():
        raise UserError(f"the label of sequence {int(np.argmax(labels == '')) + 1:,} is empty")
    classes = tuple(sorted(set(labels[part == 0]), key=_order))
    if len(classes) == 1:
        raise UserError(f"one class only, {classes[0]!r}: there is nothing to tell apart")
    known = {name: i for i, name in enumerate(classes)}
    if strange := sorted(set(labels) - set(classes), key=_order):
        raise UserError(
            f"the test part has class {strange[0]!r}, which the training part lacks; known: "
            f"{', '.join(classes[:10])}"
        )
    if len(classes) * 2 > (part == 0).sum() and len(classes) > 20:
        raise UserError(
            f"{len(classes)} classes in {(part == 0).sum()} sequences: if the target is a number, "
            "say --task=regress"
        )
    return classes, np.array([known[label] for label in labels], np.int64)


def _plain(label: str) -> str:
    """A label without the decimals of a whole number: 1.0000000e+00 is 1."""
    label = label.strip()
    try:
        number = float(label)
    except ValueError:
        return label
    if np.isnan(number):
        return ""
    return str(int(number)) if np.isfinite(number) and number == int(number) else label


def _order(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _few(classes: tuple[str, ...], train: np.ndarray, warnings: list[str]) -> None:
    counts = np.bincount(train, minlength=len(classes))
    if few := [name for name, n in zip(classes, counts, strict=True) if n < _FEW]:
        warnings.append(
            f"{len(few)} of {len(classes)} classes have fewer than {_FEW} training sequences: "
            f"{', '.join(few[:10])}"
        )


def _targets(labels: np.ndarray, ids: list[str]) -> np.ndarray:
    """Labels as numbers. Raises UserError naming the first that is none."""
    found = np.empty(len(labels))
    for i, label in enumerate(labels):
        try:
            found[i] = float(label)
        except ValueError:
            found[i] = np.nan
        if not np.isfinite(found[i]):
            raise UserError(f"the target of sequence {ids[i]!r} is not a number: {label[:40]!r}")
    return found


def _copies(inputs: list[np.ndarray], part: np.ndarray, warnings: list[str]) -> None:
    """Warns of sequences of the test or validation part that train holds, too."""
    keys = [(x.shape, x.tobytes()) for x in inputs]
    train = {key for key, p in zip(keys, part, strict=True) if p == 0}
    seen = Counter(int(p) for key, p in zip(keys, part, strict=True) if p and key in train)
    for number, name in ((1, "validation"), (2, "test")):
        if seen[number]:
            warnings.append(
                f"{seen[number]:,} sequences of the {name} part are also in the training part"
            )


def _filled(inputs: list[np.ndarray], part: np.ndarray, notes: list[str]) -> list[np.ndarray]:
    """Missing values replaced by the last one before, else by the mean of the training part."""
    missing = sum(int((~np.isfinite(x)).sum()) for x in inputs)
    if missing:
        train = np.concatenate([x for x, p in zip(inputs, part, strict=True) if p == 0])
        there = np.isfinite(train)
        mean = np.where(there, train, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        total = sum(x.size for x in inputs)
        notes.append(f"{missing:,} of {total:,} values are missing: filled from the past")
        inputs = [x if np.isfinite(x).all() else forward(x, mean) for x in inputs]
    return [x.astype(np.float32) for x in inputs]
