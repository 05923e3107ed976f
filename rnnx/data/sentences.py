"""Text to sentences, and sentences to words.

Sentences end where `sentencex` says (MIT licence, of the extra `sentences`). It takes what stands
between quotation marks or in brackets as one piece, and in books these are often not closed: pages
would become one sentence. So it is shown the text with spaces in their place.

Words are in lower case and parted as in the Penn Treebank, as the sets of labelled sentences are:
`don't` is `do n't`, `it's` is `it 's`. A word keeps hyphens and apostrophes inside it, a number its
points and commas. A run of the same mark is one word (`--`, `...`), other marks stand alone.
Typographic quotes and dashes become plain ones; underscores, which stand for italics, spaces.
"""

import re
from collections.abc import Iterator

MAX_WORDS = 30  # of a sentence in training; 29 in the authors' code

# Curly quotes, single and double, and both dashes.
_PLAIN = str.maketrans(dict(zip("\u2018\u2019\u201c\u201d\u2013\u2014_", "''\"\"-- ", strict=True)))
_CLITICS = "s|re|ve|ll|d|m"
_PARTED = re.compile(rf"(?<=\w)(?:(?=n't(?!\w))|(?='(?:{_CLITICS})(?!\w)))")
_WORD = re.compile(
    rf"n't(?!\w)|'(?:{_CLITICS})(?!\w)"
    r"|\d+(?:[.,]\d+)+"
    r"|\w+(?:[-']\w+)*"
    r"|([^\w\s])\1*"
)
_MARKS = "'\"\u2018\u2019\u201c\u201d`"
_CLOSED = re.compile(rf"(?<!\w)[{_MARKS}]+|[{_MARKS}]+(?!\w)|[\"\u201c\u201d()\[\]]")
_OPENING = re.compile(rf"(?<=\s)[{_MARKS}(\[]+\s*$")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")


def split(text: str) -> Iterator[str]:
    """The sentences of a text, in order; a blank line ends one, the end of a line does not."""
    import sentencex  # of the extra `sentences`

    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(paragraph.split())
        shown = _CLOSED.sub(lambda marks: " " * len(marks[0]), line)
        opening = ""  # a quotation mark before a sentence, which was left to the one before
        for cut in sentencex.get_sentence_boundaries("en", shown):
            piece = opening + line[cut["start_index"] : cut["end_index"]]
            found = _OPENING.search(piece)
            opening = found[0].strip() if found else ""
            if piece := (piece[: found.start()] if found else piece).strip():
                yield piece


def words(sentence: str) -> list[str]:
    """The words of a sentence."""
    plain = _PARTED.sub(" ", sentence.lower().translate(_PLAIN))
    return [match[0] for match in _WORD.finditer(plain)]
