"""Books: texts read as sentences, each with the one before and the one after it.

    files -> sentences of words, kept in the cache -> train, valid, test -> ids -> triples

A triple is three sentences in a row of one book: no two books are neighbours. As in the authors'
code (`training/homogeneous_data.py` of ryankiros/skip-thoughts), a triple with a sentence of too
many words is left out, so such a sentence breaks the chain; none is cut, or passed over as if it
were not there.
"""

import collections
import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx import cache
from rnnx.data import sentences
from rnnx.data.vocabulary import EOS, UNK, Vocabulary
from rnnx.errors import UserError

_RULES = 1  # of `sentences`: another number prepares every text anew
_SITE = "https://github.com/computationalstylistics/100_english_novels"
_LEAST = 3  # books, from which whole ones are held out
_SHARE = 20  # one in so many books, or parts of the sentences, is for valid, and as many for test

Book = list[str]  # sentences, each its words with a space between


class Books(NamedTuple):
    """Books by name in order, and the sha256 of each file."""

    books: dict[str, Book]
    sums: dict[str, str]


def read(corpus: str, data_dir: str, say: Callable[[str], None]) -> Books:
    """The books of a corpus: `novels`, a text file, or a folder of texts, `*.txt`, by name.

    Args:
      data_dir: where the folder `novels` lies; "" is `$RNNX_DATA`, else in the cache.
      say: called with a line of text before anything slow.

    Raises:
      UserError: nothing there, no UTF-8, or no sentence in it.
      Outage: no place to write.
    """
    files = _files(corpus, data_dir)
    data = {path.name: path.read_bytes() for path in files}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    books = {}
    for name, content in data.items():
        home = cache.root() / "books" / f"{sums[name][:16]}-{_version()}.txt"
        if not home.exists():
            say(f"splitting {name} into sentences")
            own = _sentences(name, content)
            cache.keep(home, "".join(f"{sentence}\n" for sentence in own))
        books[name] = home.read_text(encoding="utf-8").splitlines()
        if not books[name]:
            raise UserError(f"{name} has no sentence: leave the file out")
    return Books(books, sums)


def place(corpus: str) -> str:
    """Where own texts lie, as an absolute path."""
    return str(Path(corpus).expanduser().resolve())


def parts(books: Books) -> dict[str, list[Book]]:
    """The books of train, valid and test: the last one in twenty, at least one, is for test, and
    as many before it for valid. Of fewer than three books, 90/5/5 percent of each, in order.
    """
    found = list(books.books.values())
    if len(found) >= _LEAST:
        count = max(len(found) // _SHARE, 1)
        cuts = np.split(np.arange(len(found)), [len(found) - 2 * count, len(found) - count])
        split = [[found[i] for i in part] for part in cuts]
    else:
        ends = [(len(b) * 18 // _SHARE, len(b) * 19 // _SHARE) for b in found]
        split = [
            [book[slice(*cut)] for book, cut in zip(found, cuts, strict=True)]
            for cuts in zip(*[((0, a), (a, b), (b, None)) for a, b in ends], strict=True)
        ]
    return dict(zip(("train", "valid", "test"), split, strict=True))


def vocabulary(train: list[Book], size: int) -> Vocabulary:
    """`<eos>`, `<unk>`, and the most frequent words; ties by code points."""
    counts: collections.Counter[str] = collections.Counter()
    for book in train:
        counts.update(" ".join(book).split())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary("word", (EOS, UNK, *ranked[: size - 2]))


def triples(book: Book, known: Vocabulary, most: int) -> list[tuple[np.ndarray, ...]]:
    """(before, sentence, after) as ids, each ended by `<eos>`, of at most so many words each."""
    ids = known.encode("".join(f"{sentence}\n" for sentence in book))
    ends = np.flatnonzero(ids == known.symbols.index(EOS)) + 1
    split = np.split(ids, ends[:-1])
    good = np.diff(ends, prepend=0) <= most + 1
    middle = np.flatnonzero(good[:-2] & good[1:-1] & good[2:]) + 1
    return [(split[i - 1], split[i], split[i + 1]) for i in middle]


def _files(corpus: str, data_dir: str) -> list[Path]:
    if corpus == "novels":
        path = cache.raw(data_dir) / "novels"
        if not path.is_dir():
            raise UserError(f"novels is not there: put the texts of {_SITE} into {path}")
    else:
        path = Path(corpus).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{corpus!r} is no file or folder: name a text, a folder of texts, novels")
    files = sorted(file for file in path.glob("*.txt") if file.is_file())
    if not files:
        raise UserError(f"{path} holds no texts: files of a folder are read that end in .txt")
    return files


def _sentences(name: str, content: bytes) -> Book:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8 (byte {content[error.start]:#04x} at offset {error.start}): "
            "convert it"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = (" ".join(sentences.words(sentence)) for sentence in sentences.split(text))
    return [sentence for sentence in found if sentence]


def _version() -> str:
    """What the sentences of a text depend on beside the text."""
    return f"{_RULES}-{metadata.version('sentencex')}"
