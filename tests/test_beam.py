"""Beam search against all alignments; a model and a list of words; errors as jiwer counts them."""

import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rnnx import decoders
from rnnx.errors import UserError
from rnnx.tasks import beam, decoding, transcripts
from rnnx.tasks.beam import Lexicon, search, total


def posteriors(seed: int, steps: int = 5, symbols: int = 4, peak: float = 2.0) -> np.ndarray:
    x = peak * np.random.default_rng(seed).normal(size=(steps, symbols))
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def by_all_paths(log_p: np.ndarray) -> dict[tuple[int, ...], float]:
    """log of each transcription's probability, from every path there is."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        symbols = tuple(decoding.collapsed(path))
        one = sum(log_p[t, s] for t, s in enumerate(path))
        found[symbols] = np.logaddexp(found.get(symbols, -np.inf), one)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_the_best_of_all(seed: int) -> None:
    log_p = posteriors(seed)
    every = by_all_paths(log_p)
    for symbols, expected in every.items():
        assert total(log_p, symbols) == pytest.approx(expected, abs=1e-9)
    assert tuple(search(log_p, 200)) == max(every, key=every.get)
    greedy = tuple(decoding.collapsed(log_p.argmax(axis=1)))
    for width in (1, 2, 3):
        assert every[tuple(search(log_p, width))] >= every[greedy] - 1e-12


def test_narrow_search_is_greedy_where_posteriors_are_peaked() -> None:
    log_p = posteriors(0, steps=40, symbols=6, peak=30.0)
    assert search(log_p, 1) == decoding.collapsed(log_p.argmax(axis=1))


class Bigrams:
    """p(next) from the last symbol alone."""

    def __init__(self, table: np.ndarray):
        self.table = table

    def next(self, prefixes: list[beam.Prefix]) -> np.ndarray:
        return np.stack([self.table[p[-1] if p else 0] for p in prefixes])


@pytest.mark.parametrize("weight, bonus", [(0.7, 0.0), (2.0, 1.5)])
def test_a_model_and_a_bonus_are_weighed(weight: float, bonus: float) -> None:
    log_p, table = posteriors(3), posteriors(4, steps=4)
    every = by_all_paths(log_p)

    def score(symbols: tuple[int, ...]) -> float:
        before = (0, *symbols)
        said = sum(table[a, b] for a, b in zip(before, symbols, strict=False))
        return every[symbols] + weight * said + bonus * len(symbols)

    found = search(log_p, 200, Bigrams(table), weight, bonus)
    assert tuple(found) == max(every, key=score)


def test_only_words_of_the_list_are_found() -> None:
    symbols = [" ", "a", "b"]
    lexicon = Lexicon(["ab", "b", ""], symbols)
    for seed in range(6):
        log_p = posteriors(seed, steps=6)
        text = transcripts.spelled(search(log_p, 200, lexicon=lexicon), symbols, "char")
        assert set(text.split(" ")) <= {"ab", "b"} or not text
        every = {
            s: p for s, p in by_all_paths(log_p).items()
            if not s or set(transcripts.spelled(s, symbols, "char").split(" ")) <= {"ab", "b"}
        }  # fmt: skip
        assert text == transcripts.spelled(max(every, key=every.get), symbols, "char")


def test_the_error_beside_the_cost_is_jiwer_s() -> None:
    jiwer = pytest.importorskip("jiwer")
    rng, symbols = np.random.default_rng(0), " abc"
    log_p = np.stack([posteriors(s, steps=30, symbols=5) for s in range(6)], axis=1)
    lengths = rng.integers(10, 31, 6)
    labels = rng.integers(2, 5, (6, 8))
    counts = rng.integers(1, 9, 6)
    best, emitted = decoding.greedy(jnp.asarray(log_p), jnp.asarray(lengths))
    ours = decoding.errors(best, emitted, jnp.asarray(labels), jnp.asarray(counts))
    text = lambda row: "".join(symbols[s - 1] for s in row)  # noqa: E731
    said = [text(row[:count]) for row, count in zip(labels, counts, strict=True)]
    heard = [text(decoding.collapsed(log_p[:n, i].argmax(axis=1))) for i, n in enumerate(lengths)]
    chars = jiwer.ReduceToListOfListOfChars()
    found = jiwer.process_characters(said, heard, chars, chars)
    assert int(ours.sum()) == found.substitutions + found.deletions + found.insertions


def test_width_0_is_the_most_probable_path() -> None:
    log_p = posteriors(1, steps=20)
    assert transcripts.decoder()(log_p) == decoding.collapsed(log_p.argmax(axis=1))
    assert transcripts.decoder(width=4)(log_p) == search(log_p, 4)


@pytest.mark.parametrize("seed", range(4))
def test_an_alignment_is_the_most_probable_path_of_its_symbols(seed: int) -> None:
    log_p = posteriors(seed, steps=6)
    for symbols in ((1, 1), (2, 3), (3,), (1, 2, 1)):
        paths = [p for p in itertools.product(range(4), repeat=6)
                 if tuple(decoding.collapsed(p)) == symbols]  # fmt: skip
        best = max(paths, key=lambda p: sum(log_p[t, s] for t, s in enumerate(p)))
        found = beam.aligned(log_p, symbols)
        assert [best[first] for first, _ in found] == list(symbols)
        inside = {t for first, last in found for t in range(first, last + 1)}
        assert inside == {t for t, s in enumerate(best) if s}
    with pytest.raises(ValueError, match="too few"):
        beam.aligned(log_p[:2], (1, 1))


@pytest.mark.parametrize("seed, width", [(0, 3), (6, 2), (7, 2), (13, 3)])
def test_a_symbol_twice_needs_a_blank_between_while_prefixes_are_few(seed: int, width: int) -> None:
    """If repeats counted as new symbols, they would crowd the best out of the beam."""
    log_p = posteriors(seed, steps=7, symbols=3, peak=1.0)
    every = by_all_paths(log_p)
    assert tuple(search(log_p, width)) == max(every, key=every.get)


def test_flags_of_a_decoder_are_those_of_the_search() -> None:
    """The weight is that of a model, of which there is none here."""
    log_p, spec = posteriors(5, steps=8), {"labels": "char", "symbols": ["a", "b", "c"]}
    plain = {"width": 8, "lm": "", "lm_weight": 9.0, "bonus": 0.0, "words": ""}
    for bonus in (0.0, 9.0, -99.0):
        found = decoders.decoder_of(plain | {"bonus": bonus}, spec)(log_p)
        assert found == search(log_p, 8, bonus=bonus)
    assert decoders.decoder_of(plain | {"bonus": -99.0}, spec)(log_p) == []
    path = decoding.collapsed(log_p.argmax(axis=1))
    assert decoders.decoder_of(plain | {"width": 0, "bonus": -99.0}, spec)(log_p) == path


def test_a_list_of_which_no_word_can_be_spelled_is_told(tmp_path: Path) -> None:
    """As in the other case: nothing at all would be found, without a word."""
    settings = {"width": 8, "lm": "", "lm_weight": 0.5, "bonus": 0.0}
    settings["words"] = str(tmp_path / "words.txt")
    spec = {"labels": "char", "symbols": [" ", "a", "b"]}
    (tmp_path / "words.txt").write_text("AB\nba\n")
    decoders.decoder_of(settings, spec)  # one can
    for text in ("AB\nA\n", "\n"):
        (tmp_path / "words.txt").write_text(text)
        with pytest.raises(UserError, match=r"words\.txt can be spelled with the network's 'ab'$"):
            decoders.decoder_of(settings, spec)
