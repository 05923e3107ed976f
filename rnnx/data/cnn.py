"""Questions about news of CNN or the Daily Mail (Hermann et al. 2015, arXiv:1506.03340).

A file `*.question` holds an address, the passage, the question, the answer and the names, parted
by empty lines, as words with spaces between them. Names are `@entityN` there already.

A passage is cut to the four sentences nearest to its question, in their order (`top4` of
Cooijmans et al. 2017, who do not say what is near). Here a sentence is as near as the words it
shares with the question are rare in the passage: the sum over these words, each once, of
log(S / s), where s of the passage's S sentences have the word; of equals the first.
"""

import collections
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from rnnx import cache
from rnnx.data.stories import ENTITY, GAP, Question, Questions, kept, numbered
from rnnx.errors import UserError

SENTENCES = 4
_SITE = "https://cs.nyu.edu/~kcho/DMQA/"
_RULE = 1  # of what is kept in the cache: to be raised where questions change
_FOLDERS = ("training", "validation", "test")
_ENDS = frozenset(".!?")


def read(corpus: str, data_dir: str, say: Callable[[str], None]) -> Questions:
    """The questions of `cnn` or `dailymail`.

    Raises:
      UserError: files that are not there, or hold something else.
    """
    home = cache.raw(data_dir) / corpus
    home = home / "questions" if (home / "questions").is_dir() else home
    paths = {folder: sorted((home / folder).glob("*.question")) for folder in _FOLDERS}
    for folder, found in paths.items():
        if not found:
            raise UserError(
                f"{home / folder} has no files .question: put the folder questions of {corpus}, "
                f"from {_SITE}, there"
            )
    digest = hashlib.sha256()  # of 380,000 files: of their names and sizes, which takes seconds
    for found in paths.values():
        for path in found:
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
    sums = {f"{corpus} (names and sizes)": digest.hexdigest()}

    def make() -> list[Question]:
        return [
            parse(path)._replace(part=part)
            for part, found in enumerate(paths.values())
            for path in found
        ]

    rows = kept(f"{corpus}-{_RULE}", sums, make, say)
    away = sum(row.answer not in row.passage.split() for row in rows if row.part == 1)
    share = away / sum(row.part == 1 for row in rows)
    about = f"valid: of {share:.1%} the answer is not in the {SENTENCES} sentences"
    return Questions(rows, sums, 1, (about,))


def parse(path: Path) -> Question:
    """The question of a file, its passage cut, names numbered anew.

    Raises:
      UserError: a file of another form, with the number of the line.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as text: {error}") from None
    for number, what in ((1, "address"), (3, "passage"), (5, "question"), (7, "answer")):
        if len(lines) < number or not lines[number - 1]:
            raise UserError(f"{path}, line {number}: there is no {what}")
    passage, question, answer = lines[2].split(), lines[4].split(), lines[6]
    if GAP not in question:
        raise UserError(f"{path}, line 5: the question has no {GAP}")
    if not answer.startswith(ENTITY) or answer not in passage:
        raise UserError(f"{path}, line 7: the answer {answer[:40]!r} is no name of the passage")
    found: dict[str, str] = {}

    def named(word: str) -> bool:
        return word.startswith(ENTITY)

    shown = numbered(nearest(passage, question), named, found)
    asked = numbered(question, named, found)
    return Question(shown, asked, numbered([answer], named, found), 0)


def nearest(passage: list[str], question: list[str]) -> list[str]:
    """The four sentences of a passage that are nearest to a question, in their order."""
    sentences: list[list[str]] = [[]]
    for word in passage:
        sentences[-1].append(word)
        if word in _ENDS:
            sentences.append([])
    sentences = [s for s in sentences if s]
    counts = collections.Counter(word for s in sentences for word in set(s))
    asked = set(question)
    near = [
        sum(math.log(len(sentences) / counts[word]) for word in sorted(asked.intersection(s)))
        for s in sentences
    ]
    best = sorted(range(len(sentences)), key=lambda i: -near[i])[:SENTENCES]
    return [word for i in sorted(best) for word in sentences[i]]
