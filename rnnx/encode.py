"""Writes the vectors of sentences.

    python -m rnnx.encode --workdir=DIR < sentences.txt > vectors.npy

Reads a sentence a line, UTF-8, and writes a NumPy file of one float32 vector a line, (lines,
numbers), each of length 1: a product of two is their cosine. --beside=DIR2 appends the vectors of
a second run, as the authors combine an encoder that reads forward with a bidirectional one.

--word_vectors=FILE reads words that are not in the vocabulary too: a linear map takes the vectors
of a word2vec or GloVe text file to the network's own. Otherwise they are all the same word.

A line without a word gets zeros, which is told on stderr.
"""

import codecs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from absl import flags

from rnnx import cli
from rnnx.data import sentence_sets, word_vectors
from rnnx.data.sentences import words
from rnnx.display import Display
from rnnx.errors import UserError, writing
from rnnx.tasks.sentences import Sentences
from rnnx.tasks.vectors import Encoder
from rnnx.trained import Run, open_run

_TOGETHER = 1024  # sentences sorted by length at a time


def define_flags() -> None:
    """Those of the vectors; `main` has --workdir too."""
    flags.DEFINE_string("beside", "", "sentences: a second run, whose vectors are appended")
    flags.DEFINE_string("word_vectors", "", "sentences: a text file of vectors of more words")


def opened(folder: str) -> Run:
    """A run of the task `sentences`. Raises UserError."""
    run = open_run(Path(folder).expanduser())
    if not isinstance(run.task, Sentences):
        raise UserError(f"{folder} holds a network that does not read sentences")
    return run


def encoder_of(run: Run, sentences: list[list[str]], file: str = "") -> Encoder:
    """The encoder of a run, which knows the words of these sentences that a file of vectors has.

    Raises:
      UserError: a file that can't be used.
    """
    if not file:
        return Encoder(run.graphdef, run.params, run.spec)
    path, known = Path(file).expanduser(), run.spec.symbols
    wanted = {word for sentence in sentences for word in sentence}.union(known)
    found = word_vectors.read(path, wanted.__contains__)
    ours = dict(zip(known, np.asarray(run.params["embedding"]), strict=True))
    return Encoder(run.graphdef, run.params, run.spec, word_vectors.mapped(found, ours, path))


def for_transfer(run: Run, beside: str, word_vectors: str, data_dir: str) -> dict[str, Any]:
    """What the protocol `transfer` takes: the labelled sets, and encoders. Raises UserError."""
    sets = sentence_sets.read(data_dir)
    texts = [text for own in sets.classes.values() for text in own.texts]
    sentences = [words(text) for text in (*texts, *sets.sick.first, *sets.sick.second)]
    runs = [run, *([opened(beside)] if beside else [])]
    return {"sets": sets, "encoders": [encoder_of(r, sentences, word_vectors) for r in runs]}


def read(data: bytes, display: Display) -> list[list[str]]:
    """The words of each line; tells of lines that are empty or not UTF-8."""
    found = []
    data = data.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n")
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.decode("utf-8", errors="replace")
        if "\ufffd" in text:
            display.print(f"line {number} is not UTF-8: what can't be read is an unknown word")
        found.append(words(text))
        if not found[-1]:
            display.print(f"line {number} has no words: its vector is zero")
    return found


def vectors(
    encoders: list[Encoder], sentences: list[list[str]], display: Display
) -> Iterator[np.ndarray]:
    """Vectors (n, E) of so many sentences at a time, those of the encoders side by side."""
    display.start("sentences", len(sentences))
    for first in range(0, len(sentences), _TOGETHER):
        some = sentences[first : first + _TOGETHER]
        yield np.concatenate([encoder.vectors(some) for encoder in encoders], axis=1)
        display.update(first + len(some))
    display.finish()


def write(parts: Iterator[np.ndarray], count: int, file: BinaryIO) -> None:
    """Writes rows as one array of `count` in NumPy's format, part by part."""
    for i, part in enumerate(parts):
        if not i:
            shape = {"descr": "<f4", "fortran_order": False, "shape": (count, part.shape[1])}
            np.lib.format.write_array_header_1_0(file, shape)
        file.write(part.astype("<f4").tobytes())


def main() -> None:
    values, display = flags.FLAGS, Display(sys.stderr)
    runs = [opened(folder) for folder in (values.workdir, values.beside) if folder]
    data = sys.stdin.buffer.read()
    if not data:
        raise UserError("there are no sentences: give them on stdin, one a line")
    sentences = read(data, display)
    encoders = [encoder_of(run, sentences, values.word_vectors) for run in runs]
    with writing(Path("stdout")):
        write(vectors(encoders, sentences, display), len(sentences), sys.stdout.buffer)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "the run that reads", required=True)
    define_flags()
    cli.run(main, __doc__)
