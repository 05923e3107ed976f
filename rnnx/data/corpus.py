"""A corpus by name: found or downloaded, encoded once, read from its prepared copy."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx import cache
from rnnx.data import download, store, text
from rnnx.data.batches import Pieces
from rnnx.data.catalogue import SOURCES
from rnnx.data.vocabulary import LEVELS, Vocabulary
from rnnx.errors import Outage, UserError


class Corpus(NamedTuple):
    """Three splits: ids, each (N,) of the smallest unsigned type that holds them, or `Pieces`.

    `name` is what `load` was asked for; `sums` are the sha256 of the raw files, by file name.
    """

    name: str
    level: str
    train: np.ndarray | Pieces
    valid: np.ndarray | Pieces
    test: np.ndarray | Pieces
    vocabulary: Vocabulary
    sums: dict[str, str]


def load(
    corpus: str,
    level: str = "char",
    data_dir: str = "",
    progress: Callable[[str], None] | None = None,
) -> Corpus:
    """A corpus, downloaded and prepared when it is not there yet.

    Args:
      corpus: one of
        `ptb_word`: each line's words and one `<eos>`; ids by falling frequency in train.
        `ptb_char`: the characters of the same files, each line stripped and ended by "\\n".
          Mikolov's ptb.char files write the space as `_`: the same stream by another name.
        `text8`, `enwik8`: characters and bytes; the first 90M train, then 5M valid, 5M test.
        `python`: the running Python's own library, all sources in pure ASCII but the tests, by
          path: real text on every machine. It differs from one Python version to another, so
          numbers compare only where `sums` agree.
        `jsb`: Bach's chorales as piano rolls, 88 keys on or off at each step, 382 pieces.
        a path to a file: UTF-8 (at byte level anything), split 90/5/5 in order. At word and char
          level a byte order mark is dropped and line ends become "\\n"; words that train holds
          only once are `<unk>`.
      level: `word`, `char` or `byte`, for own files; the others have their own.
      data_dir: where raw files are or go; "" is `$RNNX_DATA`, else in the cache.
      progress: called with a line of text before anything slow.

    Raises:
      UserError: missing, damaged, too short, or not UTF-8.
      Outage: not to be downloaded, or no place to write.
    """
    return load_from(corpus, level, data_dir, progress or (lambda line: None))[0]


def load_from(
    corpus: str, level: str, data_dir: str, say: Callable[[str], None]
) -> tuple[Corpus, Path]:
    """As `load`, with the folder of the prepared copy."""
    try:
        plan = _plan(corpus, level, data_dir, say)
        key = hashlib.sha256("\n".join(plan.sums.values()).encode()).hexdigest()
        home = cache.root() / "tfds" / plan.name / f"{plan.level}-{key[:16]}" / "1.0.0"
        if not home.exists():
            say(f"preparing {corpus} in {home}")
            store.prepare(home, plan.sums, plan.encode)
    except OSError as error:
        place = error.filename or cache.root()
        raise Outage(
            f"cannot read or write {place} ({error.strerror or error}): make that possible, or "
            "name other places with RNNX_CACHE and data_dir"
        ) from error
    vocabulary, splits = store.read(home)
    counts = (*map(len, splits), vocabulary.size)
    expected = SOURCES[corpus].counts if corpus in SOURCES else None
    assert expected in (None, counts), f"{corpus}: {counts} instead of {expected}"
    return Corpus(corpus, plan.level, *splits, vocabulary, plan.sums), home


class _Plan(NamedTuple):
    """How to make a corpus; its name, level and sums are its place in the cache."""

    name: str
    level: str
    sums: dict[str, str]
    encode: store.Encode


def _plan(corpus: str, level: str, data_dir: str, say: Callable) -> _Plan:
    if corpus in SOURCES:
        source = SOURCES[corpus]
        files = download.RawFiles(source.files, data_dir, say)
        return _Plan(corpus, source.level, files.sums, lambda: source.reader(files.read()))
    if corpus == "python":
        data = text.python_sources()
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        return _Plan("python_sources", "char", sums, functools.partial(text.own, data, "char"))
    path = Path(corpus).expanduser()
    if level not in LEVELS:
        raise UserError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if not path.is_file():
        problem = "is not a file" if path.exists() else "is neither a corpus nor a file"
        raise UserError(f"{corpus!r} {problem}: name a text file, python, {', '.join(SOURCES)}")
    sha256 = download.sha256(path)

    def encode() -> text.Encoded:
        return text.own({path.name: download.content(path, sha256)}, level)

    return _Plan("own_text", level, {path.name: sha256}, encode)
