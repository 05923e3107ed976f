"""The command that scores a trained network."""

import json
import os
from pathlib import Path

import pytest
from conftest import call_module, raw_data, run_module, small, train

from rnnx import config as configs
from rnnx.report.runs import read_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text").write_text("the cat sat on the mat and the dog ran at the cat\n" * 60)
    train(small(folder / "text", epochs=2), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("protocol", ["full", "batched", "mc", "dynamic"])
def test_the_command_prints_and_keeps_the_score(trained: Path, protocol: str) -> None:
    # One protocol as a process of its own.
    command = run_module if protocol == "full" else call_module
    done = command(
        "evaluate", f"--workdir={trained}", f"--protocol={protocol}", "--split=valid",
        "--samples=2", "--statistics=3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"valid {protocol}: bpc ")
    kept = json.loads((trained / "evaluations.jsonl").read_text().splitlines()[-1])
    assert kept["protocol"] == protocol and kept["split"] == "valid"
    result = json.loads((trained / "result.json").read_text())
    assert kept["tokens"] == result["valid"]["tokens"]
    if protocol == "full":
        assert kept["nll"] == result["valid"]["nll"]


def test_a_changed_corpus_is_noticed_and_a_moved_one_can_be_named(trained: Path) -> None:
    corpus = trained.parent / "text"
    content = corpus.read_text()
    try:
        corpus.write_text(content[::-1])  # the same alphabet
        done = call_module("evaluate", f"--workdir={trained}")
        assert done.returncode == 2 and "is not the one" in done.stderr
        corpus.unlink()
        done = call_module("evaluate", f"--workdir={trained}", "--protocol=ful")
        assert "did you mean full" in done.stderr  # before the corpus is missed
        moved = trained.parent / "moved"
        moved.write_text(content)
        done = call_module("evaluate", f"--workdir={trained}", f"--corpus={moved}")
        assert done.returncode == 0, done.stderr
    finally:
        corpus.write_text(content)


def test_a_score_of_a_part_says_so(trained: Path) -> None:
    done = call_module(
        "evaluate", f"--workdir={trained}", "--protocol=batched", "--max_tokens=40"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = json.loads((trained / "evaluations.jsonl").read_text().splitlines()[-1])
    assert kept["tokens"] == kept["max_tokens"] == 40
    assert kept["split"] == "test" and read_run(trained).evaluations.get("batched") is None


def test_rates_that_break_the_network_are_told(trained: Path) -> None:
    done = call_module("evaluate", f"--workdir={trained}", "--protocol=dynamic", "--rate=1e30")
    assert done.returncode == 2 and "lower --rate" in done.stderr


def test_real_data_is_where_the_tests_look() -> None:
    """On the CI machine the real corpora are there, so that no check is skipped unseen."""
    if os.environ.get("CI") and (Path(__file__).parent.parent.parent / "shared").is_dir():
        assert raw_data() is not None


def test_a_moved_test_file_can_be_named(tmp_path: Path) -> None:
    rows = [f"{i % 2}\t{i}\t{i + 1}\t{i * i}" for i in range(30)]
    for name, part in (("train.tsv", rows[:20]), ("test.tsv", rows[20:])):
        (tmp_path / name).write_text("\n".join(part) + "\n")
    config = configs.default("classify")
    config.update(
        corpus=str(tmp_path / "train.tsv"), test_corpus=str(tmp_path / "test.tsv"), cell="lstm",
        hidden_size=3, batch_size=4, epochs=1,
    )  # fmt: skip
    train(config, tmp_path / "run")
    (tmp_path / "test.tsv").rename(tmp_path / "moved.tsv")
    command = ("evaluate", f"--workdir={tmp_path / 'run'}")
    done = call_module(*command)
    assert done.returncode == 2 and "test.tsv" in done.stderr
    done = call_module(*command, f"--test_corpus={tmp_path / 'moved.tsv'}")
    assert done.returncode == 0, done.stderr


def test_a_text_has_no_test_file(trained: Path) -> None:
    done = call_module("evaluate", f"--workdir={trained}", "--test_corpus=x")
    assert done.returncode == 2 and "no file of its own" in done.stderr
