"""The symbols of a corpus and their ids."""

import dataclasses
import functools
import sys
from collections.abc import Sequence

import numpy as np

from rnnx.errors import UserError

UNK, EOS = "<unk>", "<eos>"
LEVELS = ("word", "char", "byte")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of a corpus; a symbol's id is its place.

    `symbols` are words, single characters, byte values (ints), or the MIDI numbers of a piano
    roll's keys, several of which sound at once. `<unk>` stands for what the training split lacks:
    always there among the words of own files, and as the last of the characters where valid or
    test need it. `<eos>` ends a line of words.
    """

    level: str
    symbols: tuple[str, ...] | tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds the ids, little-endian."""
        return np.min_scalar_type(self.size - 1).newbyteorder("<")

    @functools.cached_property
    def _ids(self) -> dict[str, int] | np.ndarray:
        """Symbol -> id, -1 for none: a dict of words, or a table of code points or bytes."""
        if self.level == "word":
            return {word: i for i, word in enumerate(self.symbols)}
        unknown = self.symbols.index(UNK) if UNK in self.symbols else -1
        ids = np.full(256 if self.level == "byte" else sys.maxunicode + 1, unknown, np.int32)
        for i, symbol in enumerate(self.symbols):
            if symbol != UNK:
                ids[symbol if self.level == "byte" else ord(symbol)] = i
        return ids

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, (N,) int32. Words are parted by white space; "\\n" is `<eos>`.

        Raises UserError for a symbol that is not in the vocabulary when `<unk>` is not either, and
        for a piano roll, which is no text.
        """
        self._must_be_text()
        if self.level == "word":
            codes = text.replace("\n", f" {EOS} ").split()
            unknown = self._ids.get(UNK, -1)
            ids = np.fromiter((self._ids.get(w, unknown) for w in codes), np.int32, len(codes))
        else:
            # Half a surrogate pair, as a command line can hold one, is unknown, not a crash.
            codec, dtype = ("utf-8", "u1") if self.level == "byte" else ("utf-32-le", "<u4")
            codes = np.frombuffer(text.encode(codec, "surrogatepass"), dtype)
            ids = self._ids[codes]
        if (ids < 0).any():
            symbol = {"word": str, "char": chr, "byte": int}[self.level](codes[np.argmax(ids < 0)])
            raise UserError(
                f"the {self.level} {symbol!r} is not in the vocabulary, which has no {UNK}: "
                "leave it out"
            )
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids. Words are joined by spaces, with `<eos>` as a newline; an unknown
        character becomes U+FFFD, as does what is not UTF-8 among bytes."""
        self._must_be_text()
        symbols = [self.symbols[i] for i in np.asarray(ids, int).ravel().tolist()]
        if self.level == "byte":
            return bytes(symbols).decode("utf-8", errors="replace")
        if self.level == "char":
            return "".join("\ufffd" if symbol == UNK else symbol for symbol in symbols)
        text = " ".join("\n" if symbol == EOS else symbol for symbol in symbols)
        return text.replace(" \n", "\n").replace("\n ", "\n")

    def _must_be_text(self) -> None:
        if self.level == "roll":
            raise UserError("a piano roll has no text to read or write")

    def to_json(self) -> dict:
        return {"format": 1, "level": self.level, "symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, d: dict) -> "Vocabulary":
        """The vocabulary that `to_json` wrote; UserError for anything else."""
        good = {
            "byte": lambda s: type(s) is int and 0 <= s < 256,
            "roll": lambda s: type(s) is int and 0 <= s < 128,
            "char": lambda s: isinstance(s, str) and (len(s) == 1 or s == UNK),
            "word": lambda s: isinstance(s, str) and s.split() == [s],
        }
        match d:
            case {"format": 1, "level": str() as level, "symbols": [_, *_] as s} if level in good:
                if all(map(good[level], s)) and len(set(s)) == len(s):
                    return cls(level, tuple(s))
        raise UserError("this is not a vocabulary of rnnx (format 1): write it anew")
