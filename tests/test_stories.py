"""Stories, novels and news to questions: by hand-made files, and the errors of bad ones."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import QUIET, ROOT
from test_reading import config_of, write_babi

from rnnx import tasks
from rnnx.data import babi, cloze, cnn
from rnnx.data.stories import Question, held_out, numbered
from rnnx.errors import UserError

DATA = Path(os.environ.get("RNNX_DATA", ROOT.parent / "shared" / "data"))
STORY = """1 Mary moved to the bathroom.
2 Where is Mary? \tbathroom\t1
3 John took the apple and the milk.
4 What has John?\tapple,milk\t3

1 Mice fear wolves.
2 What do mice fear?\tWolf\t1
"""


# ---------------------------------------------------------------------------- bAbI


def test_stories_are_read_up_to_their_question(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(STORY)
    stories, found = babi.parse(path)
    told = "mary moved to the bathroom ."
    assert stories == [0, 0, 1]
    assert found == [
        Question(told, "where is mary", "bathroom", 0),
        Question(f"{told} john took the apple and the milk .", "what has john", "apple,milk", 0),
        Question("mice fear wolves .", "what do mice fear", "wolf", 0),
    ]


@pytest.mark.parametrize(
    "text, told",
    [
        ("1 Mary left.\n2 Who left?\t\t1\n", "line 2: the question has no answer"),
        ("1 Mary left.\n2 Who left?\n", "line 2: the question has no answer"),
        ("1 Who left?\tmary\t1\n", "line 1: a question without a story"),
        ("1 Mary left.\nWho left?\tmary\n", "line 2: begins with 'Who', not with 1 or 2"),
        ("1 Mary left.\n3 Who left?\tmary\n", "line 2: begins with '3', not with 1 or 2"),
        ("1 Mary left.\n2 ?\tmary\n", "line 2: there are no words"),
        ("1 Mary left.\n", "holds no questions"),
        (b"\xff\xfe1", "can't be read as text"),
    ],
)
def test_broken_stories_are_told_with_their_line(
    text: str | bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "qa1_made_train.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"^{path}.*{re.escape(told)}[^\n]*$"):
        babi.parse(path)


def test_a_story_is_in_one_part_only(tmp_path: Path) -> None:
    write_babi(tmp_path, stories=50, kinds=(1, 10))
    found = babi.read("babi/qa1", str(tmp_path))
    parts = np.array([row.part for row in found.rows])
    assert np.bincount(parts).tolist() == [90, 10, 16]
    stories, _ = babi.parse(tmp_path / "babi" / "qa1_made_train.txt")
    for story in range(50):
        assert len(set(parts[: len(stories)][np.array(stories) == story])) == 1
    assert set(found.sums) == {"qa1_made_train.txt", "qa1_made_test.txt"}
    assert found == babi.read("babi/qa1", str(tmp_path))


def test_of_few_stories_one_is_held_out() -> None:
    assert [held_out(count, 0.1).sum() for count in (1, 3, 20)] == [1, 1, 2]


@pytest.mark.parametrize(
    "corpus, told",
    [
        ("babi/qa21", "babi/qa1 to babi/qa20, or babi/all"),
        ("babi/x", "babi/qa1 to babi/qa20"),
        ("babi/5", "babi/qa1 to babi/qa20"),
        ("babi/qa2", "research.facebook.com"),
    ],
)
def test_what_is_no_task_or_not_there_is_told(corpus: str, told: str, tmp_path: Path) -> None:
    write_babi(tmp_path)
    with pytest.raises(UserError, match=told):
        babi.read(corpus, str(tmp_path))


@pytest.mark.skipif(not (DATA / "babi").is_dir(), reason="bAbI is not there: set RNNX_DATA")
def test_babi_has_a_thousand_questions_a_task() -> None:
    found = babi.read("babi/all", str(DATA))
    assert {row.kind for row in found.rows} == {f"qa{i}" for i in range(1, 21)}
    test = [row.kind for row in found.rows if row.part == 2]
    assert all(test.count(f"qa{i}") == 1_000 for i in range(1, 21))
    train = [row for row in found.rows if row.part < 2]
    assert 20_000 <= len(train) <= 20_020  # a story of qa17 or qa20 is not cut at 1,000
    assert {row.answer for row in train if row.kind == "qa19"} > {"s,e", "n,w"}


# ---------------------------------------------------------------------------- novels

BOOK = """The day was long, and so Ann went with Bob. Then Ann met Bob near the old mill.
"Mrs. Cole," said Ann, "is with Bob at home." He was there with Cole, I think now. It rained
on Cole, on Ann and Bob. They all saw that old Cole was with them. And so Ann went home.
Mrs. Cole went in as well. She saw Ann again, and so did Cole. He found Ann was with Bob again.
So they told Bob of it. They told Bob that Cole and Bob were well. He told Cole that she was well.
"""


def test_names_are_capitalised_within_sentences_and_seldom_in_lower_case() -> None:
    text = "the Rose was and Rose or Rose is Rose has Rose . a rose . with May in May of May"
    assert cloze.names(text) == set()  # a rose for five of Rose
    assert cloze.names(text.replace("a rose", "a tulip")) == {"Rose"}
    assert cloze.names("so Mrs Bee said " * 20 + "The end. The end. " * 9) == {"Bee"}
    assert cloze.names("so Bee said " * 20 + "a bee ") == {"Bee"}


def test_questions_hide_a_name_that_the_passage_has(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(BOOK)
    book, known = cloze.sentences(path)
    assert known == {"Ann", "Bob", "Cole"}
    assert " ".join(book[2]) == "Mrs . Cole , said Ann , is with Bob at home ."
    rows = cloze.questions(book, known, test=False)
    assert rows
    for row in rows:
        passage, question = row.passage.split(), row.question.split()
        assert row.answer in passage and row.answer not in question
        assert question.count("@placeholder") == 1
        assert not {"ann", "bob", "cole"} & {*passage, *question}
        names = list(dict.fromkeys(w for w in passage if w.startswith("@entity")))
        assert names == [f"@entity{i}" for i in range(len(names))] and len(names) >= 2
    told = " ".join(rows[0].passage.split()[-7:])
    assert (told, rows[0].question, rows[0].answer) == (
        "with @entity2 , i think now .",
        "it rained on @placeholder , on @entity0 and @entity1 .",
        "@entity2",
    )
    assert rows[3].question == "they all saw that old @placeholder was with them ."
    assert all(row.part == 2 for row in cloze.questions(book, known, test=True))


ASKED = ["then", "they", "saw", "that", "Ann", "was", "home", "."]


def asked_of(passage: list[list[str]], question: list[str] = ASKED) -> list[Question]:
    """The questions about Ann, Bob and names of one letter in the last of these sentences."""
    known = {"Ann", "Bob", *"CDEFGHIJKL"}
    return cloze.questions([*passage, question], known, test=False)


def test_a_passage_is_four_sentences_of_so_many_words_and_names() -> None:
    rain, met = ["it", "rained", "."], ["Ann", "met", "Bob", "."]
    (row,) = asked_of([rain, met, rain, rain, rain])
    assert row.passage == "@entity0 met @entity1 . " + " ".join(3 * ["it rained ."])
    assert not asked_of([met, rain, rain, rain, rain])
    for words, count in ((189, 1), (190, 0)):
        assert len(asked_of([met, [*words * ["so"], "."], rain, rain])) == count
    for names, count in (("CDEFGHIJ", 1), ("CDEFGHIJK", 0)):
        assert len(asked_of([met, list(names), rain, rain])) == count
    # A tenth and an eleventh name that only the question has.
    for names, count in (("CDEFGHI", 1), ("CDEFGHIJ", 0)):
        assert len(asked_of([met, list(names), rain, rain], [*ASKED, "so", "K"])) == count


@pytest.mark.parametrize(
    "question, count",
    [
        ("we saw Ann go .", 1),
        ("we saw Ann .", 0),
        ("Ann" + 49 * " so", 1),
        ("Ann" + 50 * " so", 0),
        ("we saw Ann Kim go .", 1),
        ("we saw Ann K go .", 0),
        ("we saw K Ann go .", 0),
        ("we saw Ann and Ann go .", 0),
        ("we saw Ann and Bob go .", 2),
    ],
)
def test_a_question_is_about_a_name_by_itself(question: str, count: int) -> None:
    passage = [["Ann", "met", "Bob", "."], ["so"], ["so"], ["so"]]
    assert len(asked_of(passage, question.split())) == count


def test_curly_apostrophes_are_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It was Ann\u2019s, and it wasn\u2019t here.", "utf-8")
    book, _ = cloze.sentences(tmp_path / "a.txt")
    assert book == [["It", "was", "Ann", "'s", ",", "and", "it", "wasn't", "here", "."]]


def write_books(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"b{i:02d}.txt").write_text(BOOK * 3)
    return folder


def test_books_are_split_by_name_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    home = write_books(tmp_path / "books", 10)
    lines: list[str] = []
    found = cloze.read(str(home), "", lines.append)
    assert "9 books, and for the test b08" in found.about[0] and "preparing" in lines[0]
    parts = np.array([row.part for row in found.rows])
    one = len(parts) // 10
    assert (parts == 2).sum() == one and 0 < (parts == 1).sum() < 0.3 * (parts == 0).sum()
    assert cloze.read("cloze/books", str(tmp_path), lines.append) == found and len(lines) == 1
    (home / "b09.txt").write_text(BOOK * 2)
    assert cloze.read(str(home), "", lines.append) != found and len(lines) == 2


def test_the_most_frequent_words_of_training_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Question("a " * 9 + "b " * 8 + "@entity0 " * 20, "c " * 7, "@entity0", 0),
        Question("b " * 50, "", "@entity0", 1),  # valid does not count
    ]
    for known, least in ((1, 9), (2, 8), (3, 7), (4, 5), (1000, 5)):
        monkeypatch.setattr(cloze, "_KNOWN", known)
        assert cloze._least(rows) == least


def test_of_few_books_the_last_is_for_the_test(tmp_path: Path) -> None:
    found = cloze.read(str(write_books(tmp_path / "books", 3)), "", QUIET.print)
    assert found.about == ("2 books, and for the test b02",) and found.least == 5


def test_folders_that_give_no_questions_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="100_english_novels"):
        cloze.read("cloze/novels", str(tmp_path), QUIET.print)
    home = write_books(tmp_path / "one", 1)
    with pytest.raises(UserError, match="holds 1 files"):
        cloze.read(str(home), "", QUIET.print)
    for name in ("a", "b"):
        (home / f"{name}.txt").write_text("It rained. It rained again.\n")
    with pytest.raises(UserError, match="gives no questions"):
        cloze.read(str(home), "", QUIET.print)
    (home / "c.txt").write_bytes(b"\xff\xfe rain")
    with pytest.raises(UserError, match=r"c\.txt is not UTF-8"):
        cloze.read(str(home), "", QUIET.print)


# ---------------------------------------------------------------------------- news

NEWS = """http://example.org/a

@entity7 met @entity3 . it rained . @entity3 likes the red tea . it was late . @entity9 slept . \
the tea was good .

who likes red tea with @entity9 ? @placeholder

@entity3

@entity3:Ann
@entity7:Bob
"""


def write_news(home: Path, text: str = NEWS) -> Path:
    for folder in ("training", "validation", "test"):
        (home / "cnn" / "questions" / folder).mkdir(parents=True, exist_ok=True)
        (home / "cnn" / "questions" / folder / "a.question").write_text(text)
    return home


def test_news_are_cut_to_the_four_nearest_sentences(tmp_path: Path) -> None:
    """`likes` and `red` are in one sentence of six, `tea` in two, `@entity9` in one; `it rained`
    shares nothing, `@entity7 met` neither, and comes first."""
    write_news(tmp_path)
    row = cnn.parse(tmp_path / "cnn" / "questions" / "test" / "a.question")
    assert row == Question(
        "@entity0 met @entity1 . @entity1 likes the red tea . @entity2 slept . the tea was good .",
        "who likes red tea with @entity2 ? @placeholder",
        "@entity1",
        0,
    )


def test_rare_words_are_nearer_than_common_ones() -> None:
    """`c` is in one sentence of six and weighs log 6, `a` and `b` in four, log 1.5 each."""
    passage = "a b . a b . a b . a b . c . d ."
    assert " ".join(cnn.nearest(passage.split(), ["a", "b", "c"])) == "a b . a b . a b . c ."


def test_a_word_counts_once_in_a_sentence_however_often_it_comes() -> None:
    passage, question = "tea tea . p . q . r . s .", "tea p q r s"
    assert " ".join(cnn.nearest(passage.split(), question.split())) == "tea tea . p . q . r ."


def test_sentences_of_news_end_at_three_marks() -> None:
    found = cnn.nearest([*"a.b!c?d!e."], [*"bcde"])
    assert "".join(found) == "b!c?d!e."


def test_lines_end_at_their_end_only(tmp_path: Path) -> None:
    """Not at the characters of Unicode that end a line elsewhere."""
    (tmp_path / "a.question").write_text(NEWS.replace("it was late", "it \x85 was \u2028 late"))
    assert cnn.parse(tmp_path / "a.question").answer == "@entity1"


def test_a_name_that_was_cut_away_is_numbered_last(tmp_path: Path) -> None:
    lines = NEWS.split("\n")
    lines[2] = "a tea . b tea . a red tea . a red tea . @entity5 slept ."
    lines[4], lines[6] = "red tea ? @placeholder", "@entity5"
    path = tmp_path / "a.question"
    path.write_text("\n".join(lines))
    row = cnn.parse(path)
    assert "@entity" not in row.passage and row.answer == "@entity0"


def test_news_whose_answer_was_cut_away_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of validation. A file of another size is read anew."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    folder = write_news(tmp_path) / "cnn" / "questions" / "validation"
    more = "@entity3 slept . " + 4 * "tea . "
    (folder / "b.question").write_text(NEWS.replace("@entity7 met", more + "@entity7 met"))
    told = "valid: of {} the answer is not in the 4 sentences"
    asked = NEWS.replace("@entity3 likes the red tea", "@entity9 likes the red tea")
    assert cnn.read("cnn", str(tmp_path), QUIET.print).about == (told.format("0.0%"),)
    (folder / "b.question").write_text(asked.replace("@entity7 met @entity3", more))
    assert cnn.read("cnn", str(tmp_path), QUIET.print).about == (told.format("50.0%"),)


def test_news_are_read_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    found = cnn.read("cnn", str(write_news(tmp_path)), QUIET.print)
    assert [row.part for row in found.rows] == [0, 1, 2]
    assert found.about == ("valid: of 0.0% the answer is not in the 4 sentences",)
    with pytest.raises(UserError, match="DMQA"):
        cnn.read("dailymail", str(tmp_path), QUIET.print)


def test_a_corpus_is_not_taken_for_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started where the folder `cnn` of the raw data is, a run keeps the name."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    write_news(tmp_path)
    monkeypatch.chdir(tmp_path)
    dataset = tasks.get("reading").load(config_of(tmp_path, corpus="cnn"), QUIET.print)
    assert dataset.name == "cnn" and not dataset.fields


@pytest.mark.parametrize(
    "line, text, told",
    [
        (7, "@entity4", "line 7: the answer '@entity4' is no name of the passage"),
        (7, "tea", "line 7: the answer 'tea' is no name"),
        (7, "", "line 7: there is no answer"),
        (5, "who slept ?", "line 5: the question has no @placeholder"),
        (3, "", "line 3: there is no passage"),
    ],
)
def test_broken_news_are_told_with_their_line(
    line: int, text: str, told: str, tmp_path: Path
) -> None:
    lines = NEWS.split("\n")
    lines[line - 1] = text
    path = tmp_path / "a.question"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"^{path}, {told}"):
        cnn.parse(path)


def test_names_are_numbered_by_first_sight() -> None:
    found: dict[str, str] = {}
    assert numbered(["b", "a", "b"], "ab".__contains__, found) == "@entity0 @entity1 @entity0"
    assert numbered(["x", "a"], "ab".__contains__, found) == "x @entity1"
