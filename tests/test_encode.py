"""Vectors of sentences: a line each, whatever else is encoded; words that are not known."""

import codecs
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import QUIET, ROOT, call_module, one_device, train
from test_sentences import small, write_books
from test_transfer import write_sets
from test_workdir import stored

from rnnx import encode
from rnnx.analysis import nearest
from rnnx.data import word_vectors
from rnnx.data.sentences import words
from rnnx.errors import UserError
from rnnx.tasks.vectors import Encoder

LINES = [
    "On monday came rain.",
    "",
    "snow " * 30 + "monday " * 10,
    "wind",
    "on sunday came a whale",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sentences")
    train(small(write_books(home / "books"), epochs=1), home / "run")
    return home / "run"


def encoded(data: bytes, *flags: str) -> subprocess.CompletedProcess:
    """What the command writes, as bytes: a shell's `< sentences.txt > vectors.npy`."""
    return subprocess.run(
        [sys.executable, "-m", "rnnx.encode", *flags],
        cwd=ROOT, env=one_device(), input=data, capture_output=True, timeout=300,
    )  # fmt: skip


def test_a_vector_does_not_depend_on_its_batch(run: Path) -> None:
    opened = encode.opened(str(run))
    encoder = Encoder(opened.graphdef, opened.params, opened.spec)
    sentences = [words(line) for line in LINES]
    together = encoder.vectors(sentences * 30)
    for row, sentence in zip(together, sentences, strict=False):
        np.testing.assert_allclose(encoder.vectors([sentence])[0], row, atol=1e-6)
    assert together.dtype == np.float32 and together.shape == (150, 12)
    np.testing.assert_allclose(np.linalg.norm(together[:5], axis=1), [1, 0, 1, 1, 1], rtol=1e-5)
    # Every word counts, of long sentences too.
    assert abs(encoder.vectors([["snow"] * 30])[0] - together[2]).max() > 0.01
    assert abs(together[0] - together[3]).max() > 0.01


def test_the_command_writes_a_vector_a_line(run: Path, tmp_path: Path) -> None:
    """Two encoders side by side; a file of word vectors; lines empty, not UTF-8; a BOM."""
    lines = codecs.BOM_UTF8 + b"\n".join(line.encode() for line in LINES) + b"\r\n\xff wind\n"
    opened = encode.opened(str(run))
    rng = np.random.default_rng(0)
    table = {word: rng.normal(size=3) for word in (*opened.spec.symbols, "whale")}
    file = tmp_path / "vectors.txt"
    text = "".join(f"{word} {' '.join(map(repr, map(float, v)))}\n" for word, v in table.items())
    file.write_text(f"{len(table)} 3\n{text}")
    flags = [f"--beside={run}", f"--word_vectors={file}"]
    done = encoded(lines, f"--workdir={run}", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines() == [
        "line 2 has no words: its vector is zero",
        "line 6 is not UTF-8: what can't be read is an unknown word",
    ]
    found = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    assert found.shape == (6, 12 + 12) and found.dtype == np.float32
    plain = Encoder(opened.graphdef, opened.params, opened.spec)
    expected = plain.vectors([words(line) for line in LINES])
    for part in (found[:, :12], found[:, 12:]):
        np.testing.assert_allclose(part[:4], expected[:4], atol=1e-6)
        assert abs(part[4] - expected[4]).max() > 1e-4  # the whale


def test_a_planted_linear_map_is_found(run: Path, tmp_path: Path) -> None:
    """e = v A + b of the words in both; those of one only follow; the network's own stay."""
    opened = encode.opened(str(run))
    symbols, ours = opened.spec.symbols, np.asarray(opened.params["embedding"], np.float64)
    rng = np.random.default_rng(1)
    inverse = np.linalg.inv(map_ := rng.normal(size=(6, 6)))
    shift, whale = rng.normal(size=6), rng.normal(size=6)
    vectors = {w: (e - shift) @ inverse for w, e in zip(symbols, ours, strict=True)}
    file = tmp_path / "glove.txt"
    rows = vectors | {"whale": whale, "unasked": whale, "whale2": whale}
    file.write_text("".join(f"{w} {' '.join(map(str, v.tolist()))}\n" for w, v in rows.items()))
    encoder = encode.encoder_of(opened, [["whale", "rain"]], str(file))
    np.testing.assert_allclose(encoder.words[:-1], ours, rtol=1e-6)
    np.testing.assert_allclose(encoder.words[-1], whale @ map_ + shift, atol=1e-5)
    assert encoder.ids(["whale", "no"]) == [len(symbols), symbols.index("<unk>"), 0]


def test_as_many_words_as_numbers_are_too_few_for_a_map(tmp_path: Path) -> None:
    ours = {word: np.ones(2) for word in "abc"}
    with pytest.raises(UserError, match="has 2 of the network's words, and a map of 2 numbers"):
        word_vectors.mapped(dict.fromkeys("abx", np.ones(2)), ours, tmp_path)


def test_words_with_spaces_are_passed_over(tmp_path: Path) -> None:
    """As GloVe's largest file has them."""
    (tmp_path / "glove.txt").write_text("rain 1 2\n. . . 3 4\nat me@there.com 5 6\n1990 7 8\n")
    found = word_vectors.read(tmp_path / "glove.txt", lambda word: " " not in word)
    assert {word: v.tolist() for word, v in found.items()} == {"rain": [1, 2], "1990": [7, 8]}


def test_of_a_word_that_comes_twice_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("rain 1 2\nsnow 3 4\nrain 5 6\n")
    assert word_vectors.read(tmp_path / "glove.txt", "rain".__eq__)["rain"].tolist() == [1, 2]


def test_words_of_all_labelled_sets_are_looked_up(run: Path, tmp_path: Path) -> None:
    """Of a set, and of the first and second sentences of pairs."""
    home, opened = write_sets(tmp_path), encode.opened(str(run))
    test = home / "sentences" / "SICK_test_annotated.txt"
    test.write_text(test.read_text() + "\n99\ta whale\tan otter\t3.0\tNEUTRAL")
    (home / "sentences" / "mpqa.neg").write_text("a heron")
    rng, more = np.random.default_rng(0), ["whale", "otter", "heron"]
    lines = [f"{w} {' '.join(map(str, rng.normal(size=3)))}" for w in (*opened.spec.symbols, *more)]
    (tmp_path / "glove.txt").write_text("\n".join(lines))
    asked = encode.for_transfer(opened, str(run), str(tmp_path / "glove.txt"), str(home))
    for encoder in asked["encoders"]:
        assert len(set(encoder.ids([*more, "unknown"]))) == 5
    assert len(asked["encoders"]) == 2


@pytest.mark.parametrize(
    "content, told",
    [
        (b"a 1 2\nb 1\n", "line 2 has 1 numbers, those before it 2"),
        (b"a 1 2\nb 1 -2.5 3\n", "line 2 has 3 numbers, those before it 2"),
        (b"2 2\na 1 x\n", "line 2 has something that is not a number"),
        (b"a nan 1\n", "line 1 has something that is not a number"),
        (b"\x80\x81 1\n", "is not UTF-8 text"),
        (b"a 1 2\n", "has 0 of the network's words"),
        (None, "cannot read"),
    ],
)
def test_broken_word_vectors_are_told_in_one_line(
    content: bytes | None, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "vectors.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        word_vectors.mapped(word_vectors.read(path, lambda word: True), {"rain": None}, path)
    assert "\n" not in str(error.value)


def test_each_line_counts_at_the_end_too() -> None:
    for data, count in ((b"a", 1), (b"a\n", 1), (b"a\n\n\n", 3), (b"\n", 1)):
        found = encode.read(data, QUIET)
        assert len(found) == count and not any(found[1:])


def test_a_network_that_reads_no_sentences_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a network that does not read sentences"):
        encode.opened(str(stored(tmp_path)))


def test_long_inputs_are_encoded_in_parts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_TOGETHER", 3)
    opened = encode.opened(str(run))
    encoder = Encoder(opened.graphdef, opened.params, opened.spec)
    sentences, file = [words(line) for line in LINES * 2], io.BytesIO()
    encode.write(encode.vectors([encoder], sentences, QUIET), len(sentences), file)
    file.seek(0)
    np.testing.assert_allclose(np.load(file), encoder.vectors(sentences), atol=1e-6)


def test_bad_calls_are_told_in_one_line(run: Path, tmp_path: Path) -> None:
    for folder, told in (
        (str(tmp_path), "is not a workdir"),
        (str(run), "there are no sentences"),
    ):
        done = encoded(b"", f"--workdir={folder}")
        assert done.returncode == 2 and told in done.stderr.decode(), done.stderr
        assert done.stderr.count(b"\n") == 1 and not done.stdout


def test_the_page_shows_the_nearest_sentences(run: Path, tmp_path: Path) -> None:
    query = "on friday came <snow> ."
    done = call_module("analyze", f"--workdir={run}", f"--out={tmp_path}", "--split=train",
                       f"--query={query}", "--query=on monday came rain .")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "numbers.json").read_text())["nearest"]
    assert [entry["query"] for entry in found] == [query, "on monday came rain ."]
    opened = encode.opened(str(run))
    encoder = Encoder(opened.graphdef, opened.params, opened.spec)
    for entry in found:
        sentences = [near["sentence"] for near in entry["nearest"]]
        assert len(set(sentences)) == 5 and entry["query"] not in sentences
        own, *others = encoder.vectors([words(text) for text in (entry["query"], *sentences)])
        np.testing.assert_allclose([n["cosine"] for n in entry["nearest"]], others @ own, atol=1e-5)
        assert sorted(others @ own, reverse=True) == pytest.approx(others @ own)
    page = (tmp_path / "index.html").read_text()
    assert "&lt;snow&gt;" in page and "<snow>" not in page and page.count("<tr>") == 10
    plain = nearest.numbers(encoder, [], ["one day .", "a night .", "a night ."])
    assert [entry["query"] for entry in plain] == ["one day .", "a night ."]
    assert [len(entry["nearest"]) for entry in plain] == [1, 1]
