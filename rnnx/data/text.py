"""From raw bytes to ids: words, characters and byte values.

Each reader takes raw files, bytes by file name: three are train, valid and test, one is split
90/5/5 in order. It returns the vocabulary and the three splits, each (N,) of the smallest
unsigned type that holds the ids.
"""

import array
import collections
import functools
import os
import platform
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rnnx.data.vocabulary import EOS, UNK, Vocabulary
from rnnx.errors import UserError

CHUNK = 1 << 22  # characters encoded at a time, which bounds the memory of their UTF-32 copy
LEAST = 40  # symbols that an own text needs for its splits

Encoded = tuple[Vocabulary, list[np.ndarray]]


def words(files: dict[str, bytes], least: int = 1) -> Encoded:
    """Each line's words and one `<eos>`, by falling frequency in train; ties by code points.

    That is the order of the authors' reader. Words seen fewer than `least` times in train count
    as `<unk>`.
    """
    types: dict[str, int] = collections.defaultdict(lambda: len(types))
    streams = []
    for text in _decoded(files):
        stream = array.array("I")  # ids by first sight, a tenth of the size of a list of words
        for line in text.removesuffix("\n").split("\n"):
            stream.extend(map(types.__getitem__, line.split()))
            stream.append(types[EOS])
        streams.append(np.frombuffer(stream, np.uint32))
    streams = _splits(streams)
    seen = dict(zip(types, np.bincount(streams[0], minlength=len(types)).tolist(), strict=True))
    kept = {word: n for word, n in seen.items() if n >= least or word == EOS}
    kept[UNK] = kept.get(UNK, 0) + sum(seen.values()) - sum(kept.values())
    vocabulary = Vocabulary("word", tuple(sorted(kept, key=lambda word: (-kept[word], word))))
    table = vocabulary.encode(" ".join(types)).astype(vocabulary.dtype)
    return vocabulary, [table[stream] for stream in streams]


def characters(files: dict[str, bytes]) -> Encoded:
    """Characters of train by code point, and `<unk>` if valid or test hold others."""
    return _characters(_splits(_decoded(files)))


def stripped_lines(files: dict[str, bytes]) -> Encoded:
    """Characters of three files whose lines are stripped of spaces and ended by a newline."""
    lines = [text.removesuffix("\n").split("\n") for text in _decoded(files)]
    return _characters(["".join(s.strip(" ") + "\n" for s in split) for split in lines])


def octets(files: dict[str, bytes], alphabet: Sequence[int] = ()) -> Encoded:
    """Byte values of one file; without an alphabet, those that the whole file holds."""
    (data,) = files.values()
    alphabet = alphabet or sorted(set(data))
    table = bytes(alphabet.index(v) if v in alphabet else 0 for v in range(256))
    stream = np.frombuffer(data.translate(table), np.uint8)
    return Vocabulary("byte", tuple(alphabet)), _splits([stream])


_OWN = {
    "word": functools.partial(words, least=2),
    "char": characters,
    "byte": functools.partial(octets, alphabet=range(256)),
}


def own(files: dict[str, bytes], level: str) -> Encoded:
    """A person's own text. Raises UserError if it is too short."""
    vocabulary, splits = _OWN[level](files)
    ((name, data),) = files.items()
    n = sum(map(len, splits)) if data else 0  # nothing at all is still a line of words
    if n < LEAST:
        raise UserError(f"{name} is too short: {n} {level}s, and 90/5/5 splits need {LEAST}")
    return vocabulary, splits


def python_sources() -> dict[str, bytes]:
    """The sources of the running Python's library, joined in the order of their paths.

    Those in pure ASCII, without the tests. Raises UserError if there are none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    paths: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = set(folders) - skipped
        paths += [Path(folder, name).relative_to(root) for name in names if name.endswith(".py")]
    files = [root / path for path in sorted(paths, key=Path.as_posix)]
    sources = [path.read_bytes() for path in files if path.is_file()]  # not broken links
    data = b"".join(source for source in sources if source.isascii())
    name = f"python-{platform.python_version()}"
    if not data:
        raise UserError(f"{name} has no sources below {root}: take a text file as the corpus")
    return {name: data}


def _decoded(files: dict[str, bytes]) -> list[str]:
    """UTF-8 without a byte order mark, every line end a newline."""
    texts = []
    for name, data in files.items():
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name} is not UTF-8 (byte {data[error.start]:#04x} at offset {error.start}): "
                "convert it, or take it with level=byte"
            ) from error
        texts.append(text.replace("\r\n", "\n").replace("\r", "\n"))
    return texts


def _splits(parts: list) -> list:
    """One sequence cut 90/5/5, in order; three as they are."""
    if len(parts) == 3:
        return parts
    (whole,) = parts
    a, b = (len(whole) * percent // 100 for percent in (90, 95))
    return [whole[:a], whole[a:b], whole[b:]]


def _characters(texts: Sequence[str]) -> Encoded:
    seen = np.zeros((3, sys.maxunicode + 1), bool)
    for row, text in zip(seen, texts, strict=True):
        for i in range(0, len(text), CHUNK):
            row[np.frombuffer(text[i : i + CHUNK].encode("utf-32-le"), "<u4")] = True
    unknown = [UNK] if (seen[1:] & ~seen[0]).any() else []
    vocabulary = Vocabulary("char", (*map(chr, np.flatnonzero(seen[0]).tolist()), *unknown))
    splits = [np.empty(len(text), vocabulary.dtype) for text in texts]
    for ids, text in zip(splits, texts, strict=True):
        for i in range(0, len(text), CHUNK):
            ids[i : i + CHUNK] = vocabulary.encode(text[i : i + CHUNK])
    return vocabulary, splits
