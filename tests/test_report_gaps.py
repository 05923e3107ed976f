"""Gaps to a baseline: who is compared with whom, the interval, and speed apart from the end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from test_report import columns, run

from rnnx.errors import UserError
from rnnx.report.gaps import gap_curves, gaps, gaps_table, reaches
from rnnx.report.protocols import protocol_table
from rnnx.report.runs import Run, _evaluations, from_file, to_file
from rnnx.tasks.language import Language


def bits(test: float, curve: tuple[float, ...] = (2.0, 1.5), **fields) -> Run:
    """A run of Penn Treebank characters, with a test score and a valid curve in bits."""
    one = run("a", level="char", **{"corpus": "ptb_char", "cell": "rnn", **fields})
    one.valid = [value * math.log(2) for value in curve]
    one.scores = {"valid": one.valid[-1], "test": test * math.log(2)}
    return one


def table(runs: list[Run], against: str) -> dict[str, list[str]]:
    return columns(gaps_table(gaps(runs, against), against))


def test_the_interval_is_student_s_over_the_seeds() -> None:
    """Differences -.1, -.2, -.3: mean -.2, s = .1, t(2) = 4.3027, so +- .2484."""
    base = [bits(1.5 + (s == 4), seed=s, learning_rate=0.1) for s in (1, 2, 3, 4)]
    ours = [bits(1.5 - s / 10, seed=s, integration="mi", learning_rate=0.2) for s in (3, 1, 2)]
    (gap,) = gaps([*base, *ours], "integration=additive")
    assert sorted(gap.differences) == pytest.approx([-0.3, -0.2, -0.1])
    assert gap.interval == pytest.approx((-0.4484, 0.0484), abs=1e-4)
    found = table([*base, *ours], "integration=additive")
    assert found["gap (95 %)"] == ["-0.200 (-0.448 to +0.048)"]
    assert found["seeds"] == ["3"] and found["network"] == ["general MI"]
    assert found["baseline"] == ["1.500 ± 0.000"]  # of the same seeds
    assert found["learning_rate"] == ["0.2"]


def test_a_number_may_be_written_in_any_form() -> None:
    runs = [bits(1.5, learning_rate=0.001), bits(1.4, learning_rate=0.02)]
    for text in ("1e-3", "0.001", "1.0e-03"):
        (gap,) = gaps(runs, f"learning_rate={text}")
        assert gap.differences == pytest.approx([-0.1])


def test_blocks_of_the_test_part_count_beside_the_seeds() -> None:
    """Ten speakers of 100 symbols; one network always makes a tenth fewer errors, the other only
    where a single speaker is concerned."""
    errors = np.arange(10.0, 20.0)

    def speech(seed: int, total: np.ndarray, **fields) -> Run:
        one = run("a", task="speech", labels="char", corpus="an4", seed=seed, **fields)
        one.scores, one.valid = {"valid": 0.2, "test": total.sum() / 1000}, [0.2]
        one.blocks = [total.tolist(), [100.0] * 10]
        return one

    base = [speech(s, errors + s) for s in (1, 2, 3)]
    tenth = [speech(s, 0.9 * (errors + s), integration="mi") for s in (1, 2, 3)]
    one = [speech(s, errors + s - 12 * (errors > 18), integration="mi_simple") for s in (1, 2, 3)]
    always, once = gaps([*base, *tenth, *one], "integration=additive")
    assert always.relative.difference == pytest.approx(-0.1)
    assert always.relative.high < -0.09 and always.relative.low > -0.11
    assert once.relative.difference == pytest.approx(-12 / 165) and once.relative.high > 0
    found = table([*base, *tenth, *one], "integration=additive")
    assert found["relative (95 %, test blocks too)"][0].startswith("-10% (-")
    # One seed tells nothing of the noise of seeds.
    assert gaps([base[0], tenth[0]], "integration=additive")[0].relative is None
    base[0].blocks[1][0] = 99.0  # other items
    assert gaps([*base, *tenth], "integration=additive")[0].relative is None
    base[0].blocks = []
    found = table([*base, *tenth], "integration=additive")
    assert "relative (95 %, test blocks too)" not in found


def test_each_network_has_the_baseline_that_agrees_with_it() -> None:
    """What was tuned may differ: here the other cell's baseline has the same learning rate."""
    runs = [
        bits(test, cell=cell, integration=integration, epochs=epochs, learning_rate=rate)
        for cell, integration, epochs, rate, test in (
            ("rnn", "additive", 2, 0.1, 1.6),
            ("rnn", "additive", 4, 0.1, 1.5),
            ("lstm", "additive", 2, 0.2, 1.4),
            ("lstm", "additive", 4, 0.2, 1.3),
            ("rnn", "mi", 2, 0.2, 1.2),
            ("rnn", "mi", 4, 0.2, 1.15),
            ("lstm", "mi", 4, 0.1, 1.0),
        )
    ]
    found = table(runs, "integration=additive")
    assert found["network"] == ["RNN general MI", "RNN general MI", "LSTM general MI"]
    assert found["gap (95 %)"] == ["-0.400", "-0.350", "-0.300"]
    against_one = table(runs[4:], "cell=lstm")
    assert against_one["gap (95 %)"] == ["+0.200", "+0.150"]


def test_baselines_that_agree_equally_well_are_refused() -> None:
    runs = [bits(1.5, max_grad_norm=1.0), bits(1.4, max_grad_norm=2.0), bits(1.3, cell="gru")]
    with pytest.raises(UserError, match="say in --against which max_grad_norm"):
        gaps(runs, "cell=rnn")
    (gap,) = gaps(runs, "cell=rnn;max_grad_norm=2")[1:]
    assert gap.baseline.runs == runs[1:2]


@pytest.mark.parametrize(
    "against, told",
    [
        ("cel=rnn", "did you mean cell"),
        ("cell", "FIELD=VALUE"),
        ("cell=gru", "no finished runs"),
        ("cell=rnn", "nothing to compare"),
    ],
)
def test_bad_baselines(against: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        gaps([bits(1.5)], against)


def test_a_run_that_left_test_unread_is_not_compared() -> None:
    trial = bits(1.0, integration="mi", score_test=False)
    del trial.scores["test"]
    (gap,) = gaps([bits(1.5), trial, bits(1.4, integration="mi", depth=2)], "integration=additive")
    assert gap.group.config["depth"] == 2


def test_when_one_is_as_good_as_the_other_ever_is() -> None:
    slow = bits(1.5, (3.0, 2.0, 1.6, 1.5))
    fast = bits(1.2, (2.0, 1.4, 1.2, 1.25))
    assert reaches(fast, slow) == pytest.approx(1 + 0.5 / 0.6)
    assert reaches(slow, fast) is None
    assert reaches(bits(1.0, (1.0, 0.9)), slow) == 1, "within the first epoch nothing is known"
    found = table(
        [slow, bits(1.3, (3.0, 1.55, 1.54, 1.52), integration="mi"),
         bits(1.3, (3.0, 1.0), integration="mi", seed=1), bits(1.5, (3.0, 1.5), seed=1)],
        "integration=additive",
    )  # fmt: skip
    assert found["as good as baseline after"] == ["1.8 (1 of 2 seeds)"]
    assert found["baseline as good after"] == ["3.8 (1 of 2 seeds)"]


def test_where_higher_is_better_the_goal_is_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Language, "lower_is_better", False)
    rising, best = bits(1.5, (1.0, 2.0, 3.0)), bits(1.5, (0.5, 2.5, 2.4))
    assert reaches(rising, best) == pytest.approx(2.5)
    assert reaches(best, rising) is None


def test_size_epochs_and_time_are_those_of_the_network() -> None:
    base = [bits(1.5, seed=s) for s in (1, 2)]
    ours = [bits(1.4, seed=s, integration="mi") for s in (1, 2)]
    for one, seconds in zip(ours, (30.0, 50.0), strict=True):
        one.params, one.seconds = 3_100_000, [5.0, seconds]
    ours[1].valid = ours[1].valid[:1]
    found = table([*base, *ours], "integration=additive")
    assert found["parameters"] == ["3,100,000"]
    assert found["epochs"] == ["1 of 2"] and found["training"] == ["40 s"]


def test_a_baseline_is_of_the_same_corpus() -> None:
    """That of another is nothing to compare with, even where it is the only one."""
    runs = [bits(1.5), bits(1.4, integration="mi"), bits(1.1, integration="mi", corpus="text8")]
    (gap,) = gaps(runs, "integration=additive")
    assert gap.group.config["corpus"] == "ptb_char"
    with pytest.raises(UserError, match="no finished runs of the same corpus"):
        gaps([runs[0], runs[2]], "integration=additive")
    (gap,) = gaps(runs[1:], "corpus=text8")
    assert gap.differences == pytest.approx([0.3])


def test_the_gap_is_drawn_by_epoch() -> None:
    base = [bits(1.5, (3.0, 2.0, 1.5), seed=s) for s in (1, 2)]
    ours = [bits(1.4, (2.0, 1.8 - s / 10, 1.4), seed=s, integration="mi") for s in (1, 2)]
    axes = gap_curves(gaps([*base, *ours], "integration=additive")).axes[0]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([-1.0, -0.35, -0.1])
    edge = axes.collections[0].get_paths()[0].vertices  # of the band: both seeds at each epoch
    second = edge[edge[:, 0] == 2, 1]
    assert (second.min(), second.max()) == pytest.approx((-0.4, -0.3))
    assert gap_curves(gaps([bits(1.5, (2.0,)), bits(1.4, (1.9,), cell="gru")], "cell=rnn")) is None


def test_curves_of_several_sizes_are_told_apart() -> None:
    runs = []
    for size in (25_000, 100_000):
        for integration in ("additive", "mi"):
            runs.append(bits(1.5, integration=integration, param_budget=size))
            runs[-1].params = size - 10
    runs.append(bits(1.4, integration="mi_simple", param_budget=25_000))
    legend = gap_curves(gaps(runs, "integration=additive")).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "general MI, 24,990 parameters",
        "general MI, 99,990 parameters",
        "simple MI",
    ]


def evaluated(scores: dict[str, float], **fields) -> Run:
    """A run with scores by the protocol transfer."""
    one = bits(1.5, **fields)
    one.evaluations = {"transfer": scores}
    return one


def test_a_protocol_has_a_gap_for_each_score_and_columns_for_floors() -> None:
    """Differences of TREC .01, .02, .03: mean .02, +- .0248. The seed that one side was not
    evaluated with is left out."""
    base = [evaluated({"TREC": 0.8, "TREC tf-idf": 0.7, "SICK r": 0.5}, seed=s) for s in range(4)]
    ours = [
        evaluated(
            {"TREC": 0.8 + s / 100, "TREC tf-idf": 0.9, "TREC mean": 0.6, "SICK r": 0.4},
            seed=s,
            integration="mi",
        )
        for s in (1, 2, 3)
    ]
    ours.append(bits(1.4, seed=0, integration="mi"))
    found = gaps([*base, *ours], "integration=additive")
    table = columns(protocol_table(found, "transfer", "integration=additive"))
    assert table["score"] == ["TREC", "SICK r"] and table["seeds"] == ["3", "3"]
    assert table["network"] == ["general MI"] * 2
    assert table["baseline"] == ["0.8000 ± 0.0000", "0.5000 ± 0.0000"]
    assert table["test"] == ["0.8200 ± 0.0100", "0.4000 ± 0.0000"]
    assert table["gap (95 %)"] == [
        "+0.0200 (-0.0048 to +0.0448)",
        "-0.1000 (-0.1000 to -0.1000)",
    ]
    assert table["tf-idf"] == ["0.9000 ± 0.0000", "-"]  # of this network, not of the baseline
    assert table["mean"] == ["0.6000 ± 0.0000", "-"]
    with pytest.raises(UserError, match="no two runs to compare have by_task"):
        protocol_table(found, "by_task", "integration=additive")


def test_evaluations_are_the_last_of_the_final_parameters(tmp_path: Path) -> None:
    """Of the test split; a setting, a count, lines half written or of others are no scores."""
    line = {
        "split": "test", "protocol": "dynamic", "rate": 5e-5, "segment": 5, "nll": 1.0,
        "tokens": 9, "seconds": 1.5, "checkpoint": {"epoch": 3},
    }  # fmt: skip
    lines = [
        line | {"nll": 3.0},
        line,
        line | {"nll": 0.1, "split": "valid"},
        line | {"nll": 0.2, "checkpoint": {"epoch": 2}},
        line | {"nll": 0.3, "max_tokens": 5},  # of a part of the split
        line | {"protocol": "by_task", "error": 0.5},
    ]
    text = "\n".join(map(json.dumps, [*lines, [1], {"split": "test"}])) + '\n{"split": "te'
    (tmp_path / "evaluations.jsonl").write_text(text)
    found = _evaluations(tmp_path, epoch=3)
    assert found["dynamic"] == {"nll": 1.0}
    assert found["by_task"]["error"] == 0.5 and set(found) == {"dynamic", "by_task"}
    assert _evaluations(tmp_path / "none", epoch=3) == {}


def test_a_data_file_holds_evaluations(tmp_path: Path) -> None:
    runs = [evaluated({"TREC": 0.8}, seed=1), bits(1.5, seed=2)]
    to_file(runs, tmp_path / "data.json")
    assert [run.evaluations for run in from_file(tmp_path / "data.json")] == [
        {"transfer": {"TREC": 0.8}},
        {},
    ]
    assert (tmp_path / "data.json").read_text().count("evaluations") == 1
