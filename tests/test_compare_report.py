"""A comparison's files, and what the terminal says of it."""

import csv
import io
import json
from pathlib import Path

import compare_reports
import numpy as np
import pytest

from rnnx.compare import report, words
from rnnx.display import console
from rnnx.errors import Outage


def _plain(task: str = "forecast") -> dict:
    return report.plain(compare_reports.report(task))


def _small(task: str) -> dict:
    """Two networks, without the figures that take long to draw."""
    made = compare_reports.report(task)
    made["models"] = made["models"][:2]
    made["verdicts"] = [v for v in made["verdicts"] if v["model"] == "MI-LSTM"]
    for model in made["models"]:
        model.update(curves=None, tuning=[], latency_us=None, train_seconds=None)
    return made


@pytest.mark.parametrize("task", report.TASKS)
def test_four_files_are_written_for_every_task(task: str, tmp_path: Path) -> None:
    made = _small(task)
    made["models"][0]["score"] = np.float32("nan")
    runs = [{"model": "LSTM", "seed": 0, "valid": float("nan"), "extra": 1}, {"model": "GRU"}]
    report.write(tmp_path / "out", made, runs)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "report.json", "report.md", "report.html", "runs.csv"}  # fmt: skip

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in report.json")

    read = json.loads((out / "report.json").read_text(), parse_constant=refuse)
    assert read == report.plain(made) and read["models"][0]["score"] is None
    rows = list(csv.DictReader(io.StringIO((out / "runs.csv").read_text())))
    assert [row["model"] for row in rows] == ["LSTM", "GRU"]
    assert rows[0]["valid"] == "" and rows[0]["extra"] == "1" and rows[1]["extra"] == ""
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        for verdict in made["verdicts"]:
            assert verdict["sentence"] in text and verdict["question"] in text
        assert made["control"]["sentence"] in text and made["commands"][0] in text
        assert made["floors"][0]["name"] in text and "nan" not in text.lower().split()
        assert made["data"]["notes"][1] in text and made["plan"]["left_out"][0] in text


def test_values_become_plain() -> None:
    value = {
        1: np.float64("inf"), "a": np.arange(2), "b": (np.int64(3), None, True), "c": Path("x"),
        "t": np.array(["2018-01-01T00"], "datetime64[s]"), "u": np.datetime64("2018-01-02"),
        "v": np.array([1.5, np.nan]),
    }  # fmt: skip
    assert report.plain(value) == {
        "1": None, "a": [0, 1], "b": [3, None, True], "c": "x", "t": ["2018-01-01T00:00:00"],
        "u": "2018-01-02", "v": [1.5, None],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("part", "key", "told"),
    [
        (None, "control", "lacks control"),
        ("models", "interval", "lacks interval in models"),
        ("verdicts", "equal", "lacks equal in verdicts"),
        ("floors", "score", "lacks score in floors"),
    ],
)
def test_a_report_without_a_key_is_refused(
    part: str | None, key: str, told: str, tmp_path: Path
) -> None:
    made = _small("text")
    del (made[part][0] if part else made)[key]
    with pytest.raises(ValueError, match=told):
        report.write(tmp_path / "out", made, [])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(Outage, match="cannot write to"):
        report.write(tmp_path / "out", _small("text"), [])


def test_floors_come_first_then_networks_best_first() -> None:
    made = _plain()
    table = words.scores(made)
    names = [row[0] for row in table.rows]
    floors = [floor["name"] for floor in made["floors"]]
    assert names[: len(floors)] == floors
    scores = {m["name"]: m["score"] for m in made["models"]}
    assert names[len(floors) :] == sorted(scores, key=scores.get)
    notes = {row[0]: row[-1] for row in table.rows}
    assert notes["MI-RHN L=2"] == "best" and notes["MI-LSTM"] == "chosen"
    assert notes["RNN"] == "behind same hour last week, 2 of 6 seeds diverged"
    assert notes["last value"] == "floor" and notes["sLSTM"] == ""
    made["models"][0]["score"] = None
    names = [model["name"] for model in words.ordered(made)]
    assert names[0] == "MI-RHN L=2" and names[-1] == "LSTM"
    made["lower_is_better"] = False
    names = [model["name"] for model in words.ordered(made)]
    assert names[0] == "RNN" and names[-1] == "LSTM"


def test_the_summary_counts_a_network_once_though_two_tables_have_it() -> None:
    made = _plain()
    assert len(made["verdicts"]) == 22
    assert words.summary(made).startswith("11 comparisons: ")


def test_costs_are_in_the_units_of_their_columns() -> None:
    made = _plain()
    table = words.cost(made)
    lstm = next(row for row in table.rows if row[0] == "LSTM")
    assert dict(zip(table.headings, lstm, strict=True)) == {
        "": "LSTM", "units": "100", "training (s)": "41.20", "to the LSTM's score (s)": "23.00",
        "one step, median (µs)": "38.00", "one step, 99th percentile (µs)": "61.00",
        "one window (µs)": "2,100", "windows a second, batch 32": "9,000",
        "peak memory (MB)": "31.00", "on disk (kB)": "204.8",
    }  # fmt: skip


def test_columns_without_numbers_are_left_out() -> None:
    made = _plain()
    assert "at equal time" in words.scores(made).headings
    assert "to the LSTM's score (s)" in words.cost(made).headings
    for model in made["models"]:
        model.update(equal_time=None, seconds_to_lstm=None, latency_us={"p50": None, "p99": None})
    assert "at equal time" not in words.scores(made).headings
    headings = words.cost(made).headings
    assert "to the LSTM's score (s)" not in headings and "one step, median (µs)" not in headings
    for model in made["models"]:
        model.update(dict.fromkeys((
            "train_seconds", "window_us", "throughput", "memory_bytes", "disk_bytes")))  # fmt: skip
    assert words.cost(made) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0.000"), (7, "7"), (50_000, "50,000"), (12345.6, "12,350"),
        (0.23456, "0.2346"), (9.99996, "10.00"), (-1430.2, "-1,430"), (1e-7, "1.000e-07"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_differences_intervals_and_ps() -> None:
    assert words.percent(-0.0321) == "-3.2 %" and words.percent(-0.0001) == "+0.0 %"
    assert words.between([-0.05, 0.013], words.percent) == "-5.0 to +1.3 %"
    assert words.between(None) == words.between([None, 1.0]) == "-"
    assert [words.probability(p) for p in (None, 0.0001, 0.031, 1.0)] == [
        "-", "< .001", ".031", "1.000"]  # fmt: skip


def test_markdown_has_tables_and_no_html_of_data() -> None:
    made = _plain()
    made["data"]["notes"] = ["column '<script>'\n# heading"]
    made["floors"][0]["name"] = "<b>|floor"
    text = report.markdown(made)
    assert "\\<script>' # heading" in text and "| \\<b>/floor |" in text
    lines = text.splitlines()
    assert sum(line.startswith("| ---") for line in lines) == 2
    assert "    python -m rnnx.predict --workdir=out/best --data=NEW.csv" in lines


def test_the_terminal_shows_scores_and_verdicts() -> None:
    made = compare_reports.report("forecast")
    stream = io.StringIO()
    out = console(stream, wide=True)
    out.print(report.console_table(made))
    shown = stream.getvalue()
    assert "MAE (kW) on the test part; lower is better" in shown
    assert all(name in shown for name, *_ in compare_reports.NETWORKS)
    assert "sMAPE" not in shown and max(map(len, shown.splitlines())) < 140
    lines = report.closing_lines(made, Path("out"))
    assert lines[0].startswith("warning: covariate 'load_next'")
    assert lines[1] == "11 comparisons: 1 worth it (MI-RHN L=2), 8 not worth it, 2 undecided."
    assert sum("MI-LSTM is undecided" in line for line in lines) == 2
    assert lines[-1] == "report: out/report.html"
    assert "report:" not in " ".join(report.closing_lines(made))


def test_the_terminal_keeps_the_score_that_is_among_the_metrics_too() -> None:
    made = _small("forecast")
    made["metric"], made["unit"] = "MASE", ""
    for entry in (*made["floors"], *made["models"]):
        entry["metrics"] = {"MASE": entry["score"], "sMAPE": 1.0}
    headings = [str(column.header) for column in report.console_table(made).columns]
    assert "MASE" in headings and "sMAPE" not in headings
