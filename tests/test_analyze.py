"""The command: pictures, numbers, one page, for every kind of cell."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import QUIET, call_module, run_module, small, train
from test_reading import config_of, write_babi

from rnnx import analyze, data
from rnnx.analysis import numbers, pictures
from rnnx.analysis.page import page, png
from rnnx.errors import Outage, UserError

ALWAYS = {"discs", "discs_training", "lesions", "gradients", "activations", "memory", "interaction"}
KINDS = {
    "rnn": ({"cell": "rnn", "depth": 1, "integration": "additive"}, {"initial_radii"}),
    "mi-lstm": (
        {"cell": "lstm", "depth": 1, "num_layers": 2},
        {"gates", "gates_tokens", "units", "mi_vectors"},
    ),
    "rhn": (
        {"cell": "rhn", "depth": 3, "integration": "additive", "coupled": False},
        {"initial_radii", "discs_fresh", "gates", "gates_tokens", "units"},
    ),
    "slstm": (
        {"cell": "slstm", "depth": 1, "integration": "additive"},
        {"gates", "gates_tokens"},
    ),
    "dtrnn": ({"cell": "dtrnn", "depth": 2, "integration": "mi_simple"}, set()),
}  # fmt: skip


@pytest.mark.parametrize(
    "kind", [k if k == "rhn" else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_every_cell_has_its_pictures_and_no_others(kind: str, text: Path, tmp_path: Path) -> None:
    fields, own = KINDS[kind]
    config = small(text, epochs=2, snapshot_every=1, **fields)
    train(config, tmp_path / "run")
    subject = numbers.Subject(tmp_path / "run", data.load(str(text), "char").valid)
    found = numbers.of_run(subject, None, QUIET)
    assert json.loads(json.dumps(found, default=float))["run"] == "run"
    layers = range(1, fields.get("num_layers", 1) + 1)
    stages = ("fresh", "epoch 1", "epoch 2", "best")
    assert [(s["stage"], s["layer"]) for s in found["discs"]] == [
        (stage, layer) for stage in stages for layer in layers
    ]
    assert all(s["outside_union"] < 1e-3 for s in found["discs"])
    drawn, words = {}, []
    for part in pictures.of(found):
        if isinstance(part, str):
            words.append(part)
        else:
            drawn[part.name] = png(part)
            assert part.reading.rstrip().endswith((".", ").")) and len(part.reading) > 60
    assert set(drawn) == ALWAYS | own
    assert all(data.startswith(b"\x89PNG") and len(data) > 5_000 for data in drawn.values())
    assert len(words) == (not {"discs_fresh"} & own) + (not {"gates"} & own) + (
        not {"mi_vectors"} & own
    )
    if "initial_radii" in own:
        for entry in found["initial_radii"]:
            mean, deviation = entry["uniform"]
            assert abs(entry["measured"][0] - mean) < 4 * deviation / 12**0.5


class Links(html.parser.HTMLParser):
    """What a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_the_command_writes_one_page_that_needs_nothing_else(text: Path, tmp_path: Path) -> None:
    for name, integration in (("mi", "mi"), ("plain", "additive")):
        config = small(text, epochs=1, cell="rnn", depth=1, integration=integration)
        train(config, tmp_path / name)
    done = run_module("analyze", f"--workdir={tmp_path / 'mi'}", f"--beside={tmp_path / 'plain'}")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "mi" / "analysis"
    whole = (out / "index.html").read_text()
    links = Links()
    links.feed(whole)
    assert len(links.found) == len(list(out.glob("*.png"))) >= 7
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not re.search(r"https?://|<script", whole)
    found = json.loads((out / "numbers.json").read_text())
    assert [run["run"] for run in found["gradients"]] == ["mi", "plain"]
    assert "Gates: this cell has none." in done.stdout and "Gates: this cell" in whole
    # Analyzing a workdir does not stop it from being continued.
    assert call_module("evaluate", f"--workdir={tmp_path / 'mi'}").returncode == 0
    train(small(text, epochs=2, cell="rnn", depth=1), tmp_path / "mi")
    again = train(small(text, epochs=2, cell="rnn", depth=1), tmp_path / "mi")
    assert again["epoch"] in (0, 1)


def test_the_analysis_is_a_function_that_needs_no_flags(text: Path, tmp_path: Path) -> None:
    train(small(text, epochs=1), tmp_path / "run")
    corpus = data.load(str(text), "char")
    for split in ("valid", "test"):
        found = analyze.subject(tmp_path / "run", split)
        assert np.array_equal(found.tokens, getattr(corpus, split))
    with pytest.raises(Outage, match="cannot write to"):
        analyze.analyze(tmp_path / "run", None, text / "pictures", "valid", "", QUIET)


def test_a_run_of_a_linear_cell_is_refused(text: Path, tmp_path: Path) -> None:
    train(small(text, epochs=1, cell="mingru", depth=1, integration="additive"), tmp_path / "run")
    with pytest.raises(UserError, match=r"a minGRU: .* without a recurrent matrix"):
        analyze.subject(tmp_path / "run", "valid")


def test_a_reader_shows_where_it_looks(tmp_path: Path) -> None:
    write_babi(tmp_path, asked=1)
    fields = {"batch_size": 16, "epochs": 1, "bidirectional": True}
    train(config_of(tmp_path, **fields), tmp_path / "run")
    done = call_module("analyze", f"--workdir={tmp_path / 'run'}", "--split=test")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "run" / "analysis"
    for name in ("attention.png", "attention_words.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG") and name in done.stdout
    found = json.loads((out / "numbers.json").read_text())
    assert found["asked"] == 8 and len(found["questions"]) == 6
    for entry in found["questions"]:
        assert len(entry["weights"]) == len(entry["passage"]) == 12
        assert sum(entry["weights"]) == pytest.approx(1, rel=1e-5)
        assert re.fullmatch("where is (ann|bob)", entry["question"])
        assert {entry["given"], entry["right"]} <= {"attic", "barn", "cave"}
    assert "Where the network looks" in (out / "index.html").read_text()
    run = f"--workdir={tmp_path / 'run'}"
    done = call_module("analyze", run, run.replace("workdir", "beside"))
    assert done.returncode == 2 and "--beside compares language models" in done.stderr


def test_text_from_a_run_is_escaped() -> None:
    assert "<script>" not in page("<script>", "<script>", ["<script>"])


def test_bad_input_is_told_in_one_line(text: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("xyz" * 300)
    train(small(text, epochs=1), tmp_path / "one")
    train(small(other, epochs=1, batch_size=2), tmp_path / "two")
    one = f"--workdir={tmp_path / 'one'}"
    for args, told, code in (
        ([f"--workdir={tmp_path / 'nosuch'}"], "not a workdir", 2),
        ([one, f"--beside={tmp_path / 'two'}"], "another vocabulary", 2),
        ([], "--workdir=... is missing", 2),
        ([one, f"--out={other}/pictures"], "cannot write to", 75),  # before any work: one line
    ):
        done = call_module("analyze", *args)
        assert done.returncode == code and told in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
