"""Tables from CSV or Parquet files, whose cells are text, numbers or missing; no code is run."""

import csv
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rnnx.config import nearest
from rnnx.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# What other programs write for a missing value.
MISSING = (
    "", "-", "--", "?", ".", "NA", "N/A", "#N/A", "n/a", "na", "NaN", "nan", "NAN", "null", "NULL",
    "None", "none",
)  # fmt: skip
_SAMPLE = 1 << 18  # bytes from which the form of a CSV file is guessed
_LINES = 50  # and lines
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


class Form(NamedTuple):
    """How a CSV file is written."""

    separator: str
    decimal: str
    columns: tuple[str, ...]
    header: bool


class Remarks(NamedTuple):
    """What a reader has to say, one line each."""

    notes: list[str]  # what was found and mended
    warnings: list[str]  # what may mislead


def read_frame(path: str | Path, text: Iterable[str] = ()) -> "pd.DataFrame":
    """A table of a CSV or Parquet file, one row an entry, with unique column names.

    The separator (comma, semicolon, tab), decimal commas and whether there is a header are found.
    Without a header the columns are "1", "2", .. Columns of `text` stay as written, without
    missing values.

    Raises:
      UserError: no such file, empty, binary, cut short, rows longer than the header, a column name
        twice.
    """
    data = content(path)
    parquet = data[:4] == b"PAR1"
    frame = _parquet(Path(path), data) if parquet else _csv(Path(path), data, set(text))
    if len(frame.columns) > 1:  # of one column, an empty cell is a missing value
        frame = frame[~(frame.isna() | (frame == "")).all(axis=1)].reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{path} has no rows")
    return frame


def content(path: str | Path) -> bytes:
    """The bytes of a file. Raises UserError if there is none or it is empty."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: name a file")
    data = path.read_bytes()
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError(f"{path} is empty")
    return data


def decoded(path: str | Path, data: bytes) -> str:
    """The text of a file: UTF-8, else Latin-1, every line end a newline.

    Raises UserError if it is no text.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16: save it as UTF-8")
    if b"\0" in data:
        raise UserError(f"{path} is binary: neither CSV nor Parquet")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sniff(path: str | Path, text: str) -> Form:
    """How a CSV file is written, from its first lines.

    Raises UserError if two columns of the header have one name.
    """
    head = text[:_SAMPLE]
    lines = [line for line in head.split("\n") if line.strip()][: _LINES + 1]
    if len(head) < len(text) and len(lines) > 2:
        lines = lines[:-1]  # it may be cut
    if not lines:  # only spaces of other alphabets
        raise UserError(f"{path} is empty")
    for separator in ("\t", ";", ","):
        try:
            rows = list(csv.reader(lines, delimiter=separator))
        except csv.Error as error:
            raise UserError(f"{path} is no table: {error}") from error
        counts = [len(row) for row in rows]
        if counts[0] > 1 and max(counts) == counts[0]:
            break
    cells = [cell for row in rows for cell in row]
    if max(counts) > counts[0] == 1:  # one column of numbers with decimal commas, or it is ragged
        single = all(_DECIMAL_COMMA.fullmatch(line) for line in lines[1:])
        if single:
            separator, cells = ";", lines
            rows = [[line] for line in lines]
    commas = separator != "," and any(map(_DECIMAL_COMMA.fullmatch, cells))
    points = any(re.fullmatch(r"\s*[+-]?\d+\.\d+\s*", cell) for cell in cells)
    decimal = "," if commas and not points else "."
    header = _has_header(rows)
    if not header:
        return Form(separator, decimal, tuple(str(i + 1) for i in range(len(rows[0]))), False)
    names = [name.strip() or str(i + 1) for i, name in enumerate(rows[0])]
    _unique(path, names)
    return Form(separator, decimal, tuple(names), True)


def _kind(cell: str) -> str:
    cell = cell.strip()
    if cell in MISSING:
        return "missing"
    if _NUMBER.fullmatch(cell) or _DECIMAL_COMMA.fullmatch(cell):
        return "number"
    return "time" if re.match(r"\d{1,4}[-/.]\d{1,2}([-/.]\d|$)", cell) else "text"


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns rather than holding values."""
    kinds = [_kind(cell) for cell in rows[0]]
    if "number" not in kinds and "time" not in kinds:
        return len(rows) == 1 or kinds != [_kind(c) for c in rows[1]] or set(kinds) == {"text"}
    if kinds[0] in ("text", "missing"):  # an id, then 1, 2, 3 or times: a wide table's header
        rest = rows[0][1:]
        if len(rest) > 1 and all(kind == "time" for kind in kinds[1:]):
            return True
        if len(rest) > 1 and all(cell.strip().isdigit() for cell in rest):
            return bool((np.diff(np.array(rest, float)) == 1).all())
    return False


def _unique(path: str | Path, names: Sequence[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path} has two columns named {name!r}: rename one")
        seen.add(name)


def _csv(path: Path, data: bytes, text: set[str]) -> "pd.DataFrame":
    import pandas as pd

    whole = decoded(path, data).strip("\n") + "\n"
    form = sniff(path, whole)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(whole), sep=form.separator, decimal=form.decimal,
                header=0 if form.header else None, names=list(form.columns), index_col=False,
                na_values={name: MISSING for name in form.columns if name not in text},
                keep_default_na=False, dtype=dict.fromkeys(text & set(form.columns), "str"),
                skipinitialspace=True, skip_blank_lines=False, low_memory=False,
            )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        reason = (
            f"line {found[2]} has {found[3]} values, the first has {found[1]}"
            if found
            else " ".join(str(error).split()).rstrip(".")
        )
        raise UserError(f"{path} is no table: {reason}") from error


def _parquet(path: Path, data: bytes) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow

    try:
        frame = pd.read_parquet(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole Parquet file: it is cut short or damaged, copy it again"
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame.columns = [str(name) for name in frame.columns]
    _unique(path, list(frame.columns))
    return frame


def need(frame: "pd.DataFrame", names: Iterable[str], flag: str = "") -> None:
    """Raises UserError, with the nearest name, if a column is not there."""
    for name in names:
        if name not in frame.columns:
            said = f"--{flag}={name}: " if flag else ""
            raise UserError(f"{said}no column {name!r}; {nearest(name, frame.columns)}")


def numeric(column: "pd.Series") -> bool:
    """Whether most of a column's values are numbers."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return not pd.api.types.is_complex_dtype(column)
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    some = column.dropna()[:1000]
    found = pd.to_numeric(stripped(some), errors="coerce")
    return bool(len(some)) and bool(found.notna().mean() > 0.5)


def stripped(column: "pd.Series") -> "pd.Series":
    """A column as text without spaces around; "" where a value is missing."""
    return column.astype("str").where(column.notna(), "").str.strip()


def numbers(column: "pd.Series", what: str) -> np.ndarray:
    """A column as (N,) float64, NaN where a value is missing; infinite values stay.

    Raises UserError naming the first value that is no number, and its row.
    """
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_numeric_dtype(column) and not kinds.is_complex_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    if kinds.is_datetime64_any_dtype(column):
        raise UserError(f"{what} {column.name!r} holds times, not numbers")
    text = stripped(column)
    missing = column.isna() | text.isin(MISSING)
    found = pd.to_numeric(text.mask(missing), errors="coerce")
    wrong = (found.isna() & ~missing).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        hint = ": write numbers without thousands separators" if "," in text.iloc[row] else ""
        more = f" and {wrong.sum() - 1:,} more" if wrong.sum() > 1 else ""
        raise UserError(
            f"{what} {column.name!r} is not numeric: {text.iloc[row][:40]!r} in row "
            f"{row + 1:,}{more}{hint}"
        )
    return found.to_numpy(np.float64, na_value=np.nan)
