"""Names to be found again: questions made of any folder of books.

A passage is four sentences, the question the one after them with one name taken out
(`@placeholder`), which the passage has. All names are `@entityN`, another number in each question,
so that only the passage can tell. A setting of Hermann et al. 2015, arXiv:1506.03340, on books.

A name is a word that a book has capitalised, right after a word that ends in lower case, five times
or more, and in lower case a twentieth as often at most; titles such as `Mrs` are none. Each word is
a name by itself, so questions leave out names that stand beside another one.

Every ninth book of a folder, in the order of file names (the last of fewer than nine), is for the
test. Of each other book the last tenth of the sentences is for validation.
"""

import collections
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from rnnx import cache
from rnnx.data.sentences import split
from rnnx.data.stories import ENTITY, GAP, Question, Questions, kept, numbered, sums_of
from rnnx.errors import UserError

SENTENCES = 4  # of a passage
WORDS = range(5, 51)  # of a question
PASSAGE = 200  # most words of a passage
NAMED = 10  # most names of a passage with its question
_KNOWN = 1000  # most frequent words; with more, passages are sooner learned by heart
_LEAST = 5  # times that a known word is in training, and a name in its book
_RULE = 2  # of what is kept in the cache: to be raised where questions change
_EVERY, _VALID = 9, 0.1
# fmt: off
_TITLES = frozenset((
    "Mr", "Mrs", "Miss", "Ms", "Dr", "St", "Messrs", "Sir", "Lady", "Lord", "Madam", "Madame",
    "Mademoiselle", "Monsieur", "Master", "Captain", "Colonel", "Major", "General", "Professor",
    "Doctor", "Uncle", "Aunt", "God", "Heaven",
))
# fmt: on
_TOKEN = re.compile(r"'s\b|[^\W\d_]+(?:'(?!s\b)[^\W\d_]+)*|\d+|[.,;:!?]")
_INSIDE = re.compile(r"(?<=[a-z] )[A-Z][a-z]+\b(?!'[a-rt-z])")
_LOWER = re.compile(r"\b[a-z]+\b")


def read(corpus: str, data_dir: str, say: Callable[[str], None]) -> Questions:
    """The questions of `cloze/FOLDER`, a folder of the raw data, or of a folder by its path.

    Raises:
      UserError: a folder that is not there, holds fewer than two texts, or gives no questions.
    """
    name = corpus.removeprefix("cloze/")
    home = Path(corpus).expanduser() if name == corpus else cache.raw(data_dir) / name
    if not home.is_dir():
        raise UserError(
            f"no corpus for reading {corpus!r}: babi/qa1, cnn, or a folder of texts, and {home} is "
            "none; cloze/novels are those of "
            "https://github.com/computationalstylistics/100_english_novels"
        )
    books = sorted(home.glob("*.txt"))
    if len(books) < 2:
        raise UserError(
            f"{home} holds {len(books)} files .txt: one book to train, one for the test"
        )
    test = books[_EVERY - 1 :: _EVERY] or books[-1:]
    sums = sums_of(books)

    def make() -> list[Question]:
        return [row for book in books for row in questions(*sentences(book), book in test)]

    rows = kept(f"cloze-{_RULE}", sums, make, say)
    parts = collections.Counter(row.part for row in rows)
    if len(parts) < 3:
        raise UserError(f"{home} gives no questions for training, validation or test")
    about = f"{len(books) - len(test)} books, and for the test {', '.join(b.stem for b in test)}"
    return Questions(rows, sums, _least(rows), (about,))


def _least(rows: list[Question]) -> int:
    """How often training must have a word to be one of the known."""
    train = [row for row in rows if row.part == 0]
    texts = (text.split() for row in train for text in (row.passage, row.question))
    counts = collections.Counter(itertools.chain.from_iterable(texts))
    known = sorted((n for w, n in counts.items() if not w.startswith(ENTITY)), reverse=True)
    return max([_LEAST, *known[_KNOWN - 1 : _KNOWN]])


def sentences(path: Path) -> tuple[list[list[str]], set[str]]:
    """The words of each sentence of a book, and its names.

    Raises:
      UserError: a file that is not UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig").replace("\u2019", "'")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: convert it, or take it out of the folder") from None
    words = [_TOKEN.findall(sentence) for sentence in split(text)]
    return [w for w in words if w], names(text)


def names(text: str) -> set[str]:
    """The names of a book, by the rule above."""
    inside = collections.Counter(_INSIDE.findall(text))
    lower = collections.Counter(_LOWER.findall(text))
    return {
        word
        for word, count in inside.items()
        if count >= _LEAST and 20 * lower[word.lower()] <= count and word not in _TITLES
    }


def questions(book: list[list[str]], known: set[str], test: bool) -> list[Question]:
    """The questions of a book: of every sentence, about each name that will do."""
    rows = []
    for end in range(SENTENCES, len(book)):
        words = book[end]
        passage = [word for sentence in book[end - SENTENCES : end] for word in sentence]
        there = known.intersection(passage)
        if len(words) not in WORDS or len(passage) > PASSAGE or len(there) < 2:
            continue
        if len(there | known.intersection(words)) > NAMED:
            continue
        for at, word in enumerate(words):
            beside = {*words[max(at - 1, 0) : at], *words[at + 1 : at + 2]}
            if word in there and words.count(word) == 1 and not beside & known:
                found: dict[str, str] = {}
                shown = numbered(passage, known.__contains__, found)
                asked = numbered([*words[:at], GAP, *words[at + 1 :]], known.__contains__, found)
                part = 2 if test else int(end >= (1 - _VALID) * len(book))
                rows.append(Question(shown.lower(), asked.lower(), found[word], part))
    return rows
