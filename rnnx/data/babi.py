"""bAbI: 20 tasks on stories of a small world (Weston et al. 2015, arXiv:1502.05698).

A story is read as one sequence of words, each sentence ended by a full stop, up to the question;
questions before it are left out. Several words of an answer (`apple,milk`) are one answer. A tenth
of the training stories is held out for validation, all questions of a story together.
"""

import re
from pathlib import Path

from rnnx import cache
from rnnx.data.stories import Question, Questions, held_out, sums_of
from rnnx.errors import UserError

_SITE = "https://research.facebook.com/downloads/babi/"
_VALID = 0.1
_WORD = re.compile(r"[\w'-]+")


def read(corpus: str, data_dir: str = "") -> Questions:
    """The questions of `babi/qaN`, or of all tasks for `babi/all`.

    Raises:
      UserError: files that are not there, or hold something else.
    """
    home = cache.raw(data_dir) / "babi"
    name = corpus.removeprefix("babi/")
    tasks = [f"qa{i}" for i in range(1, 21)]
    if name not in ("all", *tasks):
        raise UserError(f"no corpus {corpus!r}: babi/qa1 to babi/qa20, or babi/all")
    kinds = tasks if name == "all" else [name]
    rows, sums = [], {}
    for kind in kinds:
        train, test = (_file(home, kind, part) for part in ("train", "test"))
        sums |= sums_of([train, test])
        stories, found = parse(train)
        valid = held_out(max(stories) + 1, _VALID)
        rows += [
            q._replace(part=int(valid[i]), kind=kind) for i, q in zip(stories, found, strict=True)
        ]
        rows += [q._replace(part=2, kind=kind) for q in parse(test)[1]]
    return Questions(rows, sums)


def _file(home: Path, kind: str, part: str) -> Path:
    found = sorted(home.glob(f"{kind}_*_{part}.txt"))
    if not found:
        raise UserError(
            f"{home}/{kind}_*_{part}.txt is not there: put the files of bAbI's folder en, from "
            f"{_SITE}, into {home}"
        )
    return found[0]


def parse(path: Path, answers: bool = True) -> tuple[list[int], list[Question]]:
    """The number of its story, and the question, of each question of a file.

    Lines are `3 Mary moved to the bathroom.` or, a question, `4 Where is Mary? <tab> bathroom`
    (<tab> 3, the facts it needs, which are not read); a story begins at line number 1.

    Args:
      answers: whether a question must have one.

    Raises:
      UserError: a file that can't be read, or a line of another form, with its number.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as text: {error}") from None
    stories, found = [], []
    story, last, told = -1, 0, []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {i:,}"
        number, _, text = line.strip().partition(" ")
        if not number.isdecimal() or int(number) not in (1, last + 1):
            raise UserError(f"{where}: begins with {number[:20]!r}, not with 1 or {last + 1}")
        last = int(number)
        if last == 1:
            story, told = story + 1, []
        text, *rest = text.split("\t")
        words = _WORD.findall(text.lower())
        if not words:
            raise UserError(f"{where}: there are no words")
        if not rest and not text.rstrip().endswith("?"):
            told += [*words, "."]
            continue
        answer = rest[0].strip().lower() if rest else ""
        if answers and not answer:
            raise UserError(f"{where}: the question has no answer behind a tab")
        if not told:
            raise UserError(f"{where}: a question without a story before it")
        stories.append(story)
        found.append(Question(" ".join(told), " ".join(words), answer, 0))
    if not found:
        raise UserError(f"{path} holds no questions")
    return stories, found
