"""Vectors of sentences by a trained network of the task `sentences`."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rnnx import model
from rnnx.data.vocabulary import EOS, UNK, Vocabulary

ROWS = 64  # sentences of a call
_STEP = 8  # calls have a multiple of so many words: few shapes to compile


class Encoder:
    """Takes words to vectors of unit length: the state of the encoder after `<eos>`.

    A sentence has the same vector whatever else is encoded with it; one without words has the zero
    vector. The authors' code scales to unit length too; it reads `<eos>` in training and for SICK,
    for the other sets not.
    """

    def __init__(
        self,
        graphdef: Any,
        params: dict[str, Any],
        known: Vocabulary,
        more: dict[str, np.ndarray] | None = None,
    ):
        """more: word vectors (m,) of words, none of which is in the vocabulary."""
        more = more or {}
        self._ids = {word: i for i, word in enumerate((*known.symbols, *more))}
        self.words = np.asarray(params["embedding"])
        if more:
            self.words = np.concatenate([self.words, np.stack(list(more.values()))])
        self._params = params | {"embedding": self.words.astype(np.float32)}

        @jax.jit
        def encode(params: dict, ids: Any, lengths: Any) -> Any:
            net = model.merge(graphdef, params)
            return net.encode(net.embedding[...][ids.T], lengths)

        self._encode = encode

    def ids(self, words: list[str]) -> list[int]:
        """Ids of words and of `<eos>`; [] for none."""
        found = [self._ids.get(word, self._ids[UNK]) for word in words]
        return [*found, self._ids[EOS]] if found else []

    def vectors(self, sentences: list[list[str]]) -> np.ndarray:
        """(N, E) float32 of N > 0 sentences, each a list of words."""
        ids = [self.ids(words) for words in sentences]
        found: np.ndarray | None = None
        for rows, vectors in self._batches(ids):
            if found is None:
                found = np.zeros((len(ids), vectors.shape[1]), np.float32)
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            found[rows] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return found

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows, the shortest first, and their vectors as the network gives them."""
        lengths = np.array([len(own) for own in ids], np.int32)
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            steps = max(-(-int(lengths[rows].max()) // _STEP), 1) * _STEP
            padded = np.zeros((ROWS, steps), np.int32)
            for row, i in zip(padded, rows, strict=False):
                row[: lengths[i]] = ids[i]
            counts = np.zeros(ROWS, np.int32)
            counts[: len(rows)] = lengths[rows]
            yield rows, np.asarray(self._encode(self._params, padded, counts))[: len(rows)]
