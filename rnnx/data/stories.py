"""Passages with questions, by the name of their corpus.

babi/qa1 .. babi/qa20, babi/all      stories of a small world (`babi.py`)
cloze/FOLDER, or a path              names to be found again in novels (`cloze.py`)
cnn, dailymail                       names to be found in news (`cnn.py`)
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx import cache
from rnnx.data.download import sha256
from rnnx.errors import writing

ENTITY, GAP = "@entity", "@placeholder"


class Question(NamedTuple):
    """A question: words with one space between them, and where it belongs.

    In those about names, these are `@entity0`, `@entity1`, .. in the order in which the passage
    has them; those that only the question or the answer has come last.
    """

    passage: str
    question: str
    answer: str
    part: int  # 0 train, 1 valid, 2 test
    kind: str = ""  # qa1


class Questions(NamedTuple):
    """Questions of a corpus.

    Attributes:
      rows: the questions.
      sums: sha256 of the files, by name.
      least: words that training holds fewer times are not told apart.
      about: lines for the banner.
    """

    rows: list[Question]
    sums: dict[str, str]
    least: int = 1
    about: tuple[str, ...] = ()


def numbered(words: Iterable[str], names: Callable[[str], bool], found: dict[str, str]) -> str:
    """Words with `@entityN` in place of names, numbered by first sight; found: those so far."""
    text = []
    for word in words:
        if names(word):
            word = found.setdefault(word, f"{ENTITY}{len(found)}")
        text.append(word)
    return " ".join(text)


def kept(
    name: str, sums: dict[str, str], make: Callable[[], list[Question]], say: Callable
) -> list[Question]:
    """What make gives, kept in the cache for files of these sums.

    Raises:
      Outage: when the cache can't be read or written.
    """
    key = hashlib.sha256("\n".join(sums.values()).encode()).hexdigest()
    home = cache.root() / "stories" / f"{name}-{key[:16]}.jsonl"
    with writing(home.parent):
        if not home.is_file():
            say(f"preparing {name} in {home}")
            cache.keep(home, "".join(json.dumps(row) + "\n" for row in make()))
        return [Question(*json.loads(line)) for line in home.read_text("utf-8").splitlines()]


def sums_of(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 by file name."""
    return {path.name: sha256(path) for path in paths}


def held_out(count: int, share: float) -> np.ndarray:
    """Which of so many are held out, (count,) booleans: a share, one at least, always the same."""
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(0).permutation(count)[: max(round(share * count), 1)]] = True
    return chosen
