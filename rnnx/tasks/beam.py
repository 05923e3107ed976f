"""Prefix beam search: the transcription that is most probable over all its alignments.

Graves et al. 2006, section 3.2; with a model of characters, Hannun et al. 2014, arXiv:1408.2873,
algorithm 1, whose word-level model is one of characters here.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from rnnx.data.speech import BLANK
from rnnx.tasks.decoding import collapsed

_TRIED = 12  # most probable symbols of a step by which prefixes are extended
Prefix = tuple[int, ...]


class Model(Protocol):
    """What a character model says of the next symbol."""

    def next(self, prefixes: list[Prefix]) -> np.ndarray:
        """Log probabilities (P, V) of each symbol after each prefix; that of the blank unused."""
        ...


class Lexicon:
    """A list of words: which symbols may follow a prefix, and whether it may end."""

    def __init__(self, words: Iterable[str], symbols: list[str]):
        """symbols: without the blank; a space parts words."""
        self.words = {word.strip() for word in words if word.strip()}
        self.beginnings = {word[:i] for word in self.words for i in range(len(word) + 1)}
        self.symbols = symbols

    def allows(self, prefix: Prefix, symbol: int) -> bool:
        """Whether the prefix may go on with a symbol."""
        last, letter = self._last(prefix), self.symbols[symbol - 1]
        return last in self.words if letter == " " else last + letter in self.beginnings

    def may_end(self, prefix: Prefix) -> bool:
        """Whether every word of a prefix is of the list."""
        return not prefix or self._last(prefix) in self.words

    def _last(self, prefix: Prefix) -> str:
        return "".join(self.symbols[s - 1] for s in prefix).rpartition(" ")[2]


def search(
    log_p: np.ndarray,
    width: int,
    model: Model | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
    lexicon: Lexicon | None = None,
) -> list[int]:
    """The best symbols for log posteriors (T, V).

        score = log p(symbols | sound) + weight * log p(symbols by the model) + bonus * symbols

    Args:
      width: prefixes kept at each step.
      bonus: makes up for what a model takes from longer texts.

    Returns:
      Of what the search ends with and, where nothing is weighed or forbidden, of the most probable
      path's symbols, those with the best score; each by all its alignments.
    """
    kept: dict[Prefix, tuple[float, float]] = {(): (0.0, -np.inf)}  # ends in a blank, or not
    said: dict[Prefix, float] = {(): 0.0}  # what model and bonus add
    after: dict[Prefix, np.ndarray] = {}
    for row in log_p:
        tried = [s for s in np.argsort(-row)[: _TRIED + 1].tolist() if s != BLANK]
        if model and (new := [prefix for prefix in kept if prefix not in after]):
            after.update(zip(new, model.next(new), strict=True))
        found: dict[Prefix, list[float]] = {}
        for prefix, (blank, other) in kept.items():
            both = np.logaddexp(blank, other)
            _add(found, prefix, 0, both + row[BLANK])
            if prefix:
                _add(found, prefix, 1, other + row[prefix[-1]])
            for symbol in tried:
                if lexicon and not lexicon.allows(prefix, symbol):
                    continue
                longer = (*prefix, symbol)
                before = blank if prefix and symbol == prefix[-1] else both
                _add(found, longer, 1, before + row[symbol])
                if longer not in said:
                    extra = weight * after[prefix][symbol] if model else 0.0
                    said[longer] = said[prefix] + extra + bonus
        ranked = sorted(found, key=lambda p: -(np.logaddexp(*found[p]) + said[p]))[:width]
        kept = {prefix: (found[prefix][0], found[prefix][1]) for prefix in ranked}
        said = {prefix: said[prefix] for prefix in ranked}
        after = {prefix: after[prefix] for prefix in ranked if prefix in after}
    ended = [p for p in kept if not lexicon or lexicon.may_end(p)] or [()]
    scores = {p: total(log_p, p) + said.get(p, 0.0) for p in ended}
    if model is None and lexicon is None and not bonus:
        greedy = tuple(collapsed(log_p.argmax(axis=1)))
        scores.setdefault(greedy, total(log_p, greedy))
    return list(max(scores, key=lambda p: scores[p]))


def _add(found: dict[Prefix, list[float]], prefix: Prefix, end: int, log_p: float) -> None:
    pair = found.setdefault(prefix, [-np.inf, -np.inf])
    pair[end] = np.logaddexp(pair[end], log_p)


def aligned(log_p: np.ndarray, symbols: Prefix) -> list[tuple[int, int]]:
    """The steps (first, last) of each symbol on its most probable alignment to log_p (T, V).

    Raises:
      ValueError: when there are fewer steps than the symbols need.
    """
    spaced, skips = _lattice(symbols)
    best = np.full(len(spaced), -np.inf)
    best[:2] = log_p[0, spaced[:2]]
    came = np.zeros((len(log_p), len(spaced)), int)
    for t, row in enumerate(log_p[1:], start=1):
        before = np.stack([
            best,
            np.append(-np.inf, best[:-1]),
            np.where(skips, np.append([-np.inf, -np.inf], best)[: len(best)], -np.inf),
        ])  # fmt: skip
        came[t] = before.argmax(axis=0)
        best = before.max(axis=0) + row[spaced]
    at = len(spaced) - 1 - int(len(spaced) > 1 and best[-2] > best[-1])
    if not np.isfinite(best[at]):
        raise ValueError(f"{len(log_p)} steps are too few for {len(symbols)} symbols")
    states = [at]
    for t in range(len(log_p) - 1, 0, -1):
        at -= came[t, at]
        states.append(at)
    states = np.array(states[::-1])
    places = (np.flatnonzero(states == 2 * i + 1) for i in range(len(symbols)))
    return [(int(place[0]), int(place[-1])) for place in places]


def total(log_p: np.ndarray, symbols: Prefix) -> float:
    """log of the probability of all alignments of symbols, by the forward recurrence."""
    spaced, skips = _lattice(symbols)
    state = np.full(len(spaced), -np.inf)
    state[:2] = log_p[0, spaced[:2]]
    for row in log_p[1:]:
        one = np.append(-np.inf, state[:-1])
        two = np.append([-np.inf, -np.inf], state)[: len(state)]
        from_before = np.logaddexp(np.logaddexp(state, one), np.where(skips, two, -np.inf))
        state = from_before + row[spaced]
    return float(np.logaddexp.reduce(state[-2:]))


def _lattice(symbols: Prefix) -> tuple[np.ndarray, np.ndarray]:
    """The symbols with blanks around each, and where the blank before may be left out: between
    two symbols that differ."""
    spaced = np.full(2 * len(symbols) + 1, BLANK)
    spaced[1::2] = symbols
    skips = np.zeros(len(spaced), bool)
    skips[2:] = (spaced[2:] != BLANK) & (spaced[2:] != spaced[:-2])
    return spaced, skips
