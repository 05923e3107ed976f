"""Word vectors in text files, of word2vec or GloVe: a word and its numbers a line."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from rnnx.errors import UserError


def read(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The vectors (d,) float64 of the words that are wanted; of a word that comes twice the first.

    A first line of two whole numbers, how many words and numbers, may be there or not.

    Raises:
      UserError: a file that can't be read, is no UTF-8, or has a line of another form.
    """
    found: dict[str, np.ndarray] = {}
    width = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                # A word of GloVe's may have spaces in it: `. . .`.
                word, *values = line.rstrip().rsplit(" ", width or -1)
                if number == 1 and len(values) == 1 and word.isdigit() and values[0].isdigit():
                    continue
                width = width or len(values)
                if len(values) != width or not width or _ends_in_number(word):
                    count = line.rstrip().count(" ")
                    raise UserError(
                        f"{path}: line {number} has {count} numbers, those before it {width}: each "
                        "line is a word and its numbers, with one space between"
                    )
                if word in found or not wanted(word):
                    continue
                found[word] = np.array(values, np.float64)
                if not np.isfinite(found[word]).all():
                    raise ValueError("not finite")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: word2vec's binary form is not read") from None
    except ValueError:
        raise UserError(f"{path}: line {number} has something that is not a number") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return found


def _ends_in_number(word: str) -> bool:
    """Whether a word with spaces in it has numbers behind: a line with too many."""
    _, space, last = word.rpartition(" ")
    return bool(space) and last.replace(".", "", 1).lstrip("-").isdigit()


def mapped(
    vectors: dict[str, np.ndarray], ours: dict[str, np.ndarray], path: Path
) -> dict[str, np.ndarray]:
    """The words of a file that are not ours, mapped to where ours are.

        A, b = argmin sum over common words of |v A + b - e|^2

    Kiros et al. 2015, section 2.2: vocabulary expansion.

    Args:
      vectors: v of words of the file.
      ours: e of the words known to the network.
      path: of the file, for errors.

    Raises:
      UserError: too few common words to fit A and b.
    """
    common = [word for word in vectors if word in ours]
    others = [word for word in vectors if word not in ours]
    width = len(next(iter(vectors.values()), ()))
    if len(common) <= width:
        raise UserError(
            f"{path} has {len(common)} of the network's words, and a map of {width} numbers needs "
            f"more than {width}"
        )
    if not others:
        return {}
    source = _with_one(vectors, common)
    solution = np.linalg.lstsq(source, np.stack([ours[word] for word in common]), rcond=None)[0]
    return dict(zip(others, _with_one(vectors, others) @ solution, strict=True))


def _with_one(vectors: dict[str, np.ndarray], words: Collection[str]) -> np.ndarray:
    """(N, d + 1): the last number is the factor of b."""
    found = np.stack([vectors[word] for word in words])
    return np.concatenate([found, np.ones((len(found), 1))], axis=1)
