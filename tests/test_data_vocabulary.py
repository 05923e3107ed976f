"""Ids and text go into each other and back; anything else is told in one line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError


@given(st.text(min_size=1))
def test_characters_round_trip(text):
    vocabulary = Vocabulary("char", tuple(sorted(set(text))))
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int32 and vocabulary.decode(ids) == text
    assert (vocabulary.encode(vocabulary.decode(ids)) == ids).all()


@given(st.lists(st.integers(0, 3), min_size=1))
def test_characters_with_unk_round_trip(ids):
    vocabulary = Vocabulary("char", ("a", "b", "ü", "<unk>"))
    assert vocabulary.encode(vocabulary.decode(ids)).tolist() == ids


@given(st.text())
def test_bytes_round_trip(text):
    vocabulary = Vocabulary("byte", tuple(range(256)))
    ids = vocabulary.encode(text)
    assert bytes(ids.tolist()) == text.encode() and vocabulary.decode(ids) == text


@given(st.lists(st.integers(0, 3)))
def test_words_round_trip(ids):
    vocabulary = Vocabulary("word", ("<eos>", "the", "<unk>", "ü!"))
    assert vocabulary.encode(vocabulary.decode(ids)).tolist() == ids


def test_words_and_lines():
    vocabulary = Vocabulary("word", ("<eos>", "a", "b", "<unk>"))
    assert vocabulary.encode("a  b\n\nb zebra\n").tolist() == [1, 2, 0, 0, 2, 3, 0]
    assert vocabulary.decode([1, 2, 0, 0, 2, 3, 0]) == "a b\n\nb <unk>\n"


def test_unknown_symbols():
    assert Vocabulary("char", ("a", "<unk>")).encode("ab<\ud800").tolist() == [0, 1, 1, 1]
    for vocabulary, text, what in (
        (Vocabulary("char", ("a", "b")), "abxb", "the char 'x' is not"),
        (Vocabulary("word", ("a", "<eos>")), "a zebra", "the word 'zebra' is not"),
        (Vocabulary("byte", (65, 66)), "ABC", "the byte 67 is not"),
    ):
        with pytest.raises(UserError, match=what):
            vocabulary.encode(text)


def test_bytes_that_are_not_utf8_decode_to_the_replacement_character():
    assert Vocabulary("byte", (0x41, 0xC3)).decode(np.array([0, 1, 0], np.uint8)) == "A\ufffdA"


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary("word", ("<eos>", "the")),
        Vocabulary("char", ("\n", "ü", "<unk>")),
        Vocabulary("byte", (0, 9, 255)),
    ],
)
def test_json_round_trip(vocabulary):
    assert vocabulary.size == len(vocabulary.symbols)
    back = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert back == vocabulary and hash(back) == hash(vocabulary)
    assert vocabulary.to_json()["format"] == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        {},
        {"format": 2, "level": "char", "symbols": ["a"]},
        {"format": 1, "level": "line", "symbols": ["a"]},
        {"format": 1, "level": "char", "symbols": []},
        {"format": 1, "level": "char", "symbols": "abc"},
        {"format": 1, "level": "char", "symbols": ["a", "a"]},
        {"format": 1, "level": "char", "symbols": ["ab"]},
        {"format": 1, "level": "char", "symbols": [1]},
        {"format": 1, "level": "word", "symbols": ["a b"]},
        {"format": 1, "level": "word", "symbols": [["a"]]},
        {"format": 1, "level": "byte", "symbols": [256]},
        {"format": 1, "level": "byte", "symbols": [True]},
        {"format": 1, "level": "byte", "symbols": ["a"]},
    ],
)
def test_nonsense_is_no_vocabulary(nonsense):
    with pytest.raises(UserError, match="not a vocabulary"):
        Vocabulary.from_json(nonsense)


def test_a_piano_roll_is_no_text():
    vocabulary = Vocabulary.from_json(Vocabulary("roll", (21, 22)).to_json())
    for call in (lambda: vocabulary.encode("a"), lambda: vocabulary.decode([0])):
        with pytest.raises(UserError, match="no text"):
            call()
