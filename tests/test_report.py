"""Tables that keep ours and the papers' apart, and plots that are there."""

import csv
import io
import json
import math
import shlex
from pathlib import Path

import pytest
from conftest import call_module, run_module, small, train

from rnnx import config as configs
from rnnx.errors import UserError
from rnnx.report import plots, published
from rnnx.report.__main__ import drawn, write
from rnnx.report.runs import Run, differing, from_file, grouped, labels, read, to_file
from rnnx.report.tables import TABLES
from rnnx.tasks.language import Language


def run(name: str = "a", valid: float = 100.0, test: float = 90.0, **fields) -> Run:
    """A complete run of Penn Treebank words, with perplexities at the end of its curve."""
    config = configs.default().to_dict() | {"corpus": "ptb_word", "level": "word", "epochs": 2}
    config |= {"embed_size": config["hidden_size"]} | fields
    nats = [math.log(2 * valid), math.log(valid)]
    scores = {"valid": math.log(valid), "test": math.log(test)}
    return Run(
        name, config, 3_000_000,
        "python -m rnnx.train --config=c.py --config.data_dir=/home/x/data --workdir=/home/x/a",
        "abc123", "cpu (Z80, 1 cores)", [1, 2], nats, nats, [10.0, 20.0], 500.0, scores,
    )  # fmt: skip


def columns(table) -> dict[str, list[str]]:
    rows = list(csv.reader(io.StringIO(table.csv())))
    return {heading: [row[i] for row in rows[1:]] for i, heading in enumerate(rows[0])}


def test_the_depth_table_has_ours_and_the_papers_in_columns_of_their_own() -> None:
    runs = [
        run("L1", 110.0, 100.0, tied=True, depth=1),
        run("L4", 100.0, 95.0, tied=True, depth=4),
        run("u4", 101.0, 96.0, depth=4),
        run("lstm", 120.0, 115.0, cell="lstm", tied=True),
        # Networks that the paper does not have: nothing of it beside them.
        run("mi", 99.0, 94.0, tied=True, depth=5, integration="mi"),
        run("two", 98.0, 93.0, tied=True, depth=6, num_layers=2),
        run("free", 97.0, 92.0, tied=True, depth=7, coupled=False),
    ]
    found = columns(TABLES["rhn_depth"](runs))
    assert found["L"] == ["1", "4, tied=True", "4, tied=False", "5", "6", "7", "LSTM"]
    assert found["valid"] == ["110.0", "100.0", "101.0", "99.0", "98.0", "97.0", "120.0"]
    assert found["test"] == ["100.0", "95.0", "96.0", "94.0", "93.0", "92.0", "115.0"]
    assert found["paper's test"] == ["90.6", "68.6", "70.9", "", "", "", ""]
    assert found["paper's valid"] == ["93.2", "70.8", "73.3", "", "", "", ""]
    assert found["test - paper's"] == ["+9.4", "+26.4", "+25.1", "", "", "", ""]
    paper = {f"{v:.1f}" for row in published.RHN_DEPTH.values() for v in row[1:]}
    for heading, cells in found.items():
        if not heading.startswith("paper's"):
            assert not paper & set(cells) - {"100.0"}, f"a published number among ours: {heading}"


def test_a_complete_run_without_a_whole_epoch_has_no_training_score(tmp_path: Path) -> None:
    """As max_steps makes it: the quickstart's, before its first epoch is over."""
    short = run("short", tied=True)
    short.epoch, short.train, short.valid, short.seconds = [], [], [], []
    found = columns(TABLES["optimization"]([short]))
    assert (found["best train"], found["median train"], found["test"]) == (["-"], ["-"], ["90.0"])
    assert tmp_path / "table.md" in write(
        TABLES["optimization"]([short]), drawn([short], True), tmp_path
    )


def test_published_numbers_are_those_of_the_notes_and_keep_their_marks() -> None:
    assert published.RHN_DEPTH[10] == (830, 71.3, 68.3, 68.3, 66.0)
    assert published.RHN_DEPTH[1] == (1275, 92.4, 89.2, 93.2, 90.6)
    assert published.MI_CHAR["rnn", "mi"].show(2) == "1.39 (c)"
    assert published.MI_CHAR["rnn", "additive"].show(2) == "~1.42"
    assert published.Value(1.3, "V").show(1) == "1.3"


def test_a_run_that_is_found_twice_counts_once(tmp_path: Path) -> None:
    """As in a folder and in the data file that was written of it; the complete one is taken."""
    unfinished, done, other = run("a"), run("a", data_dir="there"), run("b", seed=1)
    unfinished.scores = {}
    to_file([unfinished, other], tmp_path / "one.json")
    to_file([done, other], tmp_path / "two.json")
    found = read([tmp_path / "one.json", tmp_path / "two.json"])
    assert [(r.config["seed"], r.complete) for r in found] == [(0, True), (1, True)]


def test_seeds_are_one_row_with_mean_and_sample_deviation() -> None:
    def char(seed: int, bpc: float, **fields) -> Run:
        one = run(f"s{seed}", corpus="ptb_char", level="char", cell="rnn", seed=seed, **fields)
        one.scores = {"valid": bpc * math.log(2), "test": (bpc - 0.1) * math.log(2)}
        return one

    runs = [char(0, 1.5), char(1, 1.6), char(2, 1.7), char(0, 1.45, integration="mi")]
    found = columns(TABLES["mi_char"](runs))
    assert found["integration"] == ["additive", "general MI"]
    assert found["valid"] == ["1.600 ± 0.100", "1.450"]
    assert found["test"] == ["1.500 ± 0.100", "1.350"]
    assert found["seeds"] == ["3", "1"]
    assert found["paper's test"] == ["~1.42", "1.39 (c)"]
    assert found["test - paper's"] == ["+0.080", "-0.040"]
    assert [len(g.runs) for g in grouped(runs)] == [3, 1]
    assert found["cell"] == ["RNN", "RNN"]
    found = columns(TABLES["mi_char"]([*runs, char(0, 1.3, integration="mi", max_grad_norm=5.0)]))
    assert found["cell"] == ["RNN", "RNN, max_grad_norm=10", "RNN, max_grad_norm=5"]
    assert differing(grouped(runs)) == ["integration"]


def test_networks_are_told_apart_by_what_was_chosen() -> None:
    def told(**fields: list) -> list[str]:
        names, columns = list(fields), zip(*fields.values(), strict=True)
        runs = [run(f"r{i}", **dict(zip(names, c, strict=True))) for i, c in enumerate(columns)]
        return labels(grouped(runs))

    assert told(cell=["rhn", "rhn", "lstm"], depth=[2, 3, 1]) == ["RHN L=2", "RHN L=3", "LSTM"]
    assert told(hidden_size=[10, 20]) == ["hidden_size=10", "hidden_size=20"]
    # What follows from a budget is no choice.
    solved = {"hidden_size": [10, 20], "param_budget": [3000, 3000]}
    assert told(integration=["mi", "additive"], **solved) == ["general MI", "additive"]
    assert told() == [] and labels(grouped([run("only")])) == ["only"]


def test_time_is_the_mean_over_the_seeds_and_epochs_those_that_all_have() -> None:
    runs = [run("a", seed=0), run("b", seed=1), run("other", depth=2)]
    runs[0].seconds, runs[1].seconds = [10.0, 20.0], [20.0, 40.0]
    runs[1].valid = runs[1].valid[:1]
    found = columns(TABLES["runs"](runs))
    assert found["training"] == ["30 s", "20 s"] and found["epochs"] == ["1 of 2", "2"]


def test_a_search_is_a_row_for_each_network_and_size() -> None:
    """Of equal size too: simple MI has no parameters that the additive cell lacks."""
    runs = [run("a", 100.0, integration="additive"), run("b", 90.0, integration="mi_simple")]
    found = columns(TABLES["optimization"](runs))
    assert found["cell"] == ["RHN L=1 additive", "RHN L=1 simple MI"]
    assert found["valid"] == ["100.0", "90.0"] and found["runs"] == ["1", "1"]


def test_the_range_table_takes_the_range_of_w() -> None:
    def char(r: float, **fields) -> Run:
        return run(f"{r}", corpus="ptb_char", level="char", cell="rnn", init_scale=0.02,
                   input_scale=r, **fields)  # fmt: skip

    found = columns(TABLES["mi_range"]([char(0.3), char(0.0), char(0.1, integration="mi")]))
    assert found["r"] == ["0.02", "0.3", "0.1"]
    assert found["paper's test"] == ["~1.69", "~1.57", "~1.40"]
    two = columns(TABLES["mi_range"]([char(0.3, num_layers=2)]))
    assert two["paper's test"] == [""], "the paper's network has one layer"


def test_unfinished_runs_are_shown_as_such_and_not_counted() -> None:
    half = run("half", depth=2, epochs=8)
    half.scores = {}
    found = columns(TABLES["runs"]([run("whole", depth=1), half]))
    assert found["test"] == ["90.0", "-"] and found["seeds"] == ["1", "0"]
    assert found["epochs"] == ["2", "2 of 8"]
    half.scores = {"valid": 4.0}  # of a run that left test unread
    found = columns(TABLES["runs"]([half]))
    assert found["test"] == ["-"] and found["seeds"] == ["1"]


@pytest.mark.parametrize("name", ["rhn_depth", "mi_char", "mi_range", "babi"])
def test_a_table_of_other_runs_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="leave --table out"):
        TABLES[name]([run(corpus="python", level="char")])


@pytest.mark.parametrize(
    "corpus, level, score, shown",
    [
        ("ptb_word", "word", math.log(70), 70.0),
        ("text8", "char", math.log(2), 1.0),
        ("enwik8", "byte", math.log(2), 1.0),
        ("jsb", "roll", 8.5, 8.5),
    ],
)
def test_scores_are_shown_in_the_unit_of_their_task(corpus, level, score, shown) -> None:
    one = run(corpus=corpus, level=level)
    one.scores = {"valid": score, "test": score}
    assert one.shown([score]) == [pytest.approx(shown)]
    assert grouped([one])[0].mean("test") == pytest.approx(shown)


@pytest.mark.parametrize("lower", [True, False])
def test_the_best_valid_score_comes_first(lower: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Language, "lower_is_better", lower)
    runs = [run(f"{v}", v, depth=d) for d, v in enumerate((100.0, 90.0, 110.0), start=1)]
    found = columns(TABLES["runs"](runs))["valid"]
    assert found == (["90.0", "100.0", "110.0"] if lower else ["110.0", "100.0", "90.0"])


def test_a_data_file_names_no_place_though_a_folder_has_spaces(tmp_path: Path) -> None:
    one = run("000,mi_init=(0 1 1)")
    words = ["python", "-m", "rnnx.train", "--config.mi_init=(0, 1, 1)"]
    places = ["--workdir=/home/x/000,mi_init=(0 1 1)", "--config.data_dir=/home/x/my data"]
    one.command = shlex.join([*words, *places])
    to_file([one], tmp_path / "one.json")
    (kept,) = from_file(tmp_path / "one.json")
    assert shlex.split(kept.command) == [*words, "--workdir=runs/000,mi_init=(0 1 1)"]


def test_a_data_file_holds_all_that_tables_and_plots_need(tmp_path: Path) -> None:
    runs = [run("L1", depth=1, data_dir="/home/x/data"), run("L2", depth=2, seed=3)]
    runs[0].seconds = [1234.0, 23456.7]
    path = tmp_path / "runs.json"
    to_file(runs, path)
    assert "/home" not in path.read_text()
    again = from_file(path)
    for before, after in zip(runs, again, strict=True):
        assert after.command == f"python -m rnnx.train --config=c.py --workdir=runs/{before.name}"
        assert after.scores == before.scores and after.epoch == before.epoch
        assert after.config == before.config | {"data_dir": ""}
        for name in ("train", "valid", "seconds"):
            assert getattr(after, name) == pytest.approx(getattr(before, name), rel=5e-5)
    assert TABLES["runs"](again) == TABLES["runs"](runs)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"format": 99}))
    with pytest.raises(UserError, match="no data file"):
        from_file(path)
    path.write_text(json.dumps({"format": 1, "runs": [{"name": "x"}]}))
    with pytest.raises(UserError, match="no data file"):
        from_file(path)


def test_every_plot_is_drawn(tmp_path: Path) -> None:
    runs = [run(f"L{L}-{s}", 100 - L + s, depth=L, seed=s) for L in (1, 2, 4) for s in (0, 1)]
    runs[-1].params = runs[-2].params = 9_000_000
    files = write(TABLES["runs"](runs), drawn(runs), tmp_path)
    assert {f.name for f in files} == {
        "table.md", "table.csv", "curves.png", "seconds.png", "parameters.png", "swept.png"
    }  # fmt: skip
    for file in files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5_000
    assert "parameters.png" not in {
        f.name for f in write(TABLES["runs"](runs[:2]), drawn(runs[:2]), tmp_path)
    }
    searched = write(TABLES["optimization"](runs), drawn(runs, True), tmp_path / "searched")
    assert (tmp_path / "searched" / "swept.png") in searched
    write(TABLES["runs"](runs), drawn(runs), tmp_path)
    assert "| depth |" in (tmp_path / "table.md").read_text()


def test_learning_curves_are_means_over_seeds_in_their_unit_with_the_range() -> None:
    runs = [run(f"{s}", 100.0 + 20 * s, seed=s) for s in (0, 1)]
    axes = plots.learning_curves(runs).axes[0]
    (line,), (band,) = axes.lines, axes.collections
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([220.0, 110.0])
    ends = band.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((100.0, 240.0))
    # A seed without an epoch yet takes nothing from the curve, first or last.
    begun = run("begun", seed=2)
    begun.scores, begun.epoch, begun.valid, begun.train, begun.seconds = {}, [], [], [], []
    for mixed in ([begun, *runs], [*runs, begun]):
        (line,) = plots.learning_curves(mixed).axes[0].lines
        assert list(line.get_ydata()) == pytest.approx([220.0, 110.0])
        assert len(plots.against_seconds(mixed).axes[0].lines) == 1


def test_the_best_score_so_far_is_drawn_by_minutes() -> None:
    one = run()
    one.epoch, one.seconds = [1, 2, 3], [60.0, 90.0, 150.0]
    one.valid = one.train = [math.log(x) for x in (110, 100, 120)]
    (line,) = plots.against_seconds([one]).axes[0].lines
    assert list(line.get_xdata()) == [1.0, 1.5, 2.5]
    assert list(line.get_ydata()) == pytest.approx([110.0, 100.0, 100.0])


def test_test_scores_are_drawn_by_millions_of_parameters() -> None:
    runs = [run("a", 100, 90, depth=1), run("b", 95, 85, depth=2)]
    runs[1].params = 9_000_000
    lines = plots.against_parameters(runs).axes[0].lines
    assert [line.get_xdata()[0] for line in lines] == [3.0, 9.0]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([90.0, 85.0])


def test_scores_are_drawn_by_what_was_swept() -> None:
    """The mean over seeds of both parts, joined; the axis is logarithmic where nothing is 0."""
    tried = [(0.0, 0), (0.25, 0), (0.25, 1), (0.5, 0)]
    runs = [run("a", 100 * (1 + x), 80 * (1 + s), drop_h=x, seed=s) for x, s in tried]
    axes = plots.against_field(runs).axes[0]
    drawn = {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}
    assert list(drawn["valid"].get_xdata()) == [0.0, 0.25, 0.5]
    assert list(drawn["valid"].get_ydata()) == pytest.approx([100.0, 125.0, 150.0])
    assert list(drawn["test"].get_ydata()) == pytest.approx([80.0, 120.0, 80.0])
    assert axes.get_xscale() == "linear"
    above = [run("a", learning_rate=rate) for rate in (0.01, 0.1, 1.0)]
    assert plots.against_field(above).axes[0].get_xscale() == "log"


def test_of_too_many_curves_the_best_are_drawn() -> None:
    runs = [run(f"{d}", 100 + (7 * d) % 20, depth=d) for d in range(1, 21)]
    lines = plots.learning_curves(runs).axes[0].lines
    ends = sorted(line.get_ydata()[-1] for line in lines)
    assert ends == pytest.approx(list(range(100, 114)))
    for one in runs:  # complete, though without a whole epoch
        one.params, one.valid = one.params * one.config["depth"], []
    assert len(plots.against_parameters(runs).axes[0].lines) == 14


def test_a_search_is_drawn_with_its_medians() -> None:
    """Of the lowest training score of each run; what is far above lies at the upper edge."""
    runs = [run(f"{i}", learning_rate=0.1 * i) for i in range(1, 4)]
    for one, lowest in zip(runs, (50.0, 60.0, 400.0), strict=True):
        one.train = [math.log(lowest), math.log(2 * lowest)]
    near, far, bar = plots.searches(runs).axes[0].lines
    assert list(near.get_ydata()) == pytest.approx([50.0, 60.0])
    assert list(far.get_ydata()) == pytest.approx([90.0])
    assert list(bar.get_ydata()) == pytest.approx([60.0, 60.0])
    # Of an LSTM, which has no depth, and RHNs of depth 2: both are in the legend.
    runs = [run("a", cell="lstm", depth=1), run("b", 200, depth=2), run("c", depth=2, seed=1)]
    legend = plots.searches(runs).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["LSTM", "RHN"]


def test_real_workdirs_are_read(text: Path, tmp_path: Path) -> None:
    config = small(text, epochs=2, tied=True, drop_x=0.0, param_budget=3000, hidden_size=1)
    result = train(config, tmp_path / "runs" / "one")
    (found,) = read([tmp_path])
    assert found.complete and found.name == "one" and found.params == result["params"]
    assert found.scores == {s: result[s]["nll"] for s in ("valid", "test")}
    assert found.epoch == [1, 2] and len(found.valid) == len(found.train) == 2
    # The commit shown is that of the code which finished the run.
    file = tmp_path / "runs" / "one" / "result.json"
    blocks = {"test": result["test"] | {"blocks": [[3.0, 1.0], [4.0, 2.0]]}}
    file.write_text(json.dumps(result | {"git": "later"} | blocks))
    (found,) = read([tmp_path])
    assert found.git == "later" and found.blocks == [[3.0, 1.0], [4.0, 2.0]]
    # A width that was solved is continued, not refused.
    again = train(config, tmp_path / "runs" / "one")
    assert again["valid"] == result["valid"] and again["params"] <= 3000


def test_the_command(text: Path, tmp_path: Path) -> None:
    train(small(text, epochs=1), tmp_path / "runs" / "one")
    done = run_module("report", f"--workdir={tmp_path / 'runs'}", f"--export={tmp_path / 'd.json'}")
    assert done.returncode == 0, done.stderr
    assert "bits per character" in done.stdout and "Measured on" in done.stdout
    assert (tmp_path / "runs" / "report" / "curves.png").exists()
    again = call_module("report", f"--workdir={tmp_path / 'd.json'}", f"--out={tmp_path / 'out'}")
    assert again.returncode == 0 and (tmp_path / "out" / "table.csv").exists()
    half = [run(f"half {seed}", seed=seed) for seed in (1, 2)]
    for one in half:
        one.scores = {}
    to_file([run("words"), *half], tmp_path / "words.json")
    words = call_module("report", f"--workdir={tmp_path / 'words.json'}")
    assert words.returncode == 0 and "2 of 3 runs are not complete" in words.stdout
    for args, told in (
        ([f"--workdir={tmp_path / 'd.json'},{tmp_path / 'words.json'}"], "share no unit"),
        ([f"--workdir={tmp_path / 'nosuch'}"], "neither a folder nor a data file"),
        ([f"--workdir={tmp_path / 'out'}"], "no runs in"),
        ([f"--workdir={tmp_path / 'runs'}", "--table=rhn_depth"], "leave --table out"),
        ([f"--workdir={tmp_path / 'runs'}", "--protocol=transfer"], "is for --table=gaps"),
        ([], "workdir"),
    ):
        failed = call_module("report", *args)
        assert failed.returncode == 2 and told in failed.stderr, failed.stderr
        assert failed.stderr.count("\n") == 1


def test_the_table_of_babi_has_the_mean_of_each_seed_over_all_tasks() -> None:
    """Task i: additive i / 100 wrong, MI i / 200 plus seed / 100."""
    runs = [
        run(
            f"{i}-{seed}", corpus=f"babi/qa{i}", task="reading", cell="lstm", seed=seed,
            integration=integration, learning_rate=0.1 + i,
        )
        for i in range(20, 0, -1)
        for integration in ("mi", "additive")
        for seed in ((2, 1) if i % 2 else (1, 2, 3))
    ]  # fmt: skip
    for one in runs:
        i, mi = int(one.config["corpus"][7:]), one.config["integration"] == "mi"
        one.scores["test"] = (i / 2 + one.config["seed"] if mi else i) / 100
    found = columns(TABLES["babi"](runs))
    assert found["task"] == [*(f"qa{i}" for i in range(1, 21)), "mean"]
    assert found["seeds"] == ["2", "3"] * 10 + ["2"]
    assert found["additive"][1] == "2.0 ± 0.0" and found["additive"][-1] == "10.5 ± 0.0"
    assert found["with MI"][0] == "2.0 ± 0.7" and found["with MI"][-1] == "6.8 ± 0.7"
    assert found["gap (95 %)"][-1] == "-3.8 (-10.1 to +2.6)"
    assert found["LSTM of Weston et al. (c)"][:2] == ["50.0", "80.0"]
    assert found["LSTMs of Keras' example"][0] == "0.0"
    assert "mean" not in columns(TABLES["babi"](runs[5:]))["task"]


def test_an_epoch_without_a_training_score_is_left_out(tmp_path: Path) -> None:
    """All of its batches were passed over."""
    one = run("a", corpus="jsb", level="roll")
    one.train, one.valid, one.epoch, one.seconds = [9.0, None, 8.0], [9.0] * 3, [1, 2, 3], [1.0] * 3
    one.scores = {"valid": 9.0, "test": 9.0}
    to_file([one], tmp_path / "one.json")
    (kept,) = from_file(tmp_path / "one.json")
    assert kept.train == [9.0, None, 8.0] and kept.best_train == 8.0
    assert columns(TABLES["optimization"]([kept]))["best train"] == ["8.000"]
    assert plots.searches([kept]) is not None
    kept.train = [None] * 3
    assert columns(TABLES["optimization"]([kept]))["best train"] == ["-"]
    assert plots.searches([kept]) is None
