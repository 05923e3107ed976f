"""Sets of labelled sentences, by which vectors of sentences are judged: `$RNNX_DATA/sentences`.

Files are Latin-1, a sentence a line; only "\\n" ends one. MSRP, which the papers have too, is no
longer to be had.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rnnx import cache
from rnnx.errors import UserError

_PANG = "https://www.cs.cornell.edu/people/pabo/movie-review-data"
# Set -> its place, and the files of its two classes, the one that counts as true first.
_CLASSES = {
    "MR": (_PANG, "rt-polarity.pos", "rt-polarity.neg"),
    "CR": ("https://www.cs.uic.edu/~liub/FBS/sentiment-analysis.html", "custrev.pos",
           "custrev.neg"),
    "SUBJ": (_PANG, "subj.subjective", "subj.objective"),
    "MPQA": ("https://mpqa.cs.pitt.edu", "mpqa.pos", "mpqa.neg"),
}  # fmt: skip
_TREC = "https://cogcomp.seas.upenn.edu/Data/QA/QC", "TREC.train", "TREC.test"
_SICK = ("https://zenodo.org/records/2787612", "SICK_train.txt", "SICK_trial.txt",
         "SICK_test_annotated.txt")  # fmt: skip


class Classes(NamedTuple):
    """N sentences with a class each; the last `test` of them are for the test, 0: no such part."""

    texts: list[str]
    labels: np.ndarray  # (N,)
    test: int = 0


class Pairs(NamedTuple):
    """N pairs of sentences, and how related people find them, 1 to 5."""

    first: list[str]
    second: list[str]
    scores: np.ndarray  # (N,)
    part: np.ndarray  # (N,) 0 train, 1 development, 2 test


class Sets(NamedTuple):
    """All of them."""

    classes: dict[str, Classes]  # by name
    sick: Pairs


def read(data_dir: str = "") -> Sets:
    """MR, CR, SUBJ, MPQA, TREC and SICK.

    Raises:
      UserError: a file that is not there, with its official place, or is of another form.
    """
    home = cache.raw(data_dir) / "sentences"
    classes = {}
    for name, (site, *files) in _CLASSES.items():
        true, false = (_lines(home / file, name, site) for file in files)
        classes[name] = Classes(true + false, np.repeat([1, 0], [len(true), len(false)]))
    train, test = (_lines(home / file, "TREC", _TREC[0]) for file in _TREC[1:])
    labels, texts = [], []
    for line in train + test:
        label, space, text = line.partition(" ")
        if not space or ":" not in label:
            raise UserError(f"{home}/TREC.*: {line!r} is not CLASS:kind and a question")
        labels.append(label.partition(":")[0])
        texts.append(text)
    classes["TREC"] = Classes(texts, np.unique(labels, return_inverse=True)[1], len(test))
    return Sets(classes, _pairs(home))


def _pairs(home: Path) -> Pairs:
    rows, part = [], []
    for number, file in enumerate(_SICK[1:]):
        for line in _lines(home / file, "SICK", _SICK[0])[1:]:
            fields = line.split("\t")
            try:
                rows.append((fields[1], fields[2], float(fields[3])))
            except (IndexError, ValueError):
                raise UserError(f"{home / file}: {line!r} is no pair with a score") from None
            part.append(number)
    first, second, scores = zip(*rows, strict=True)
    return Pairs(list(first), list(second), np.array(scores), np.array(part))


def _lines(path: Path, name: str, site: str) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is not there: it belongs to {name}, {site}") from None
    lines = (line.strip() for line in data.decode("latin-1").split("\n"))
    return [line for line in lines if line]
