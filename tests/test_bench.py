"""The bench counts work rightly, compares like with like, and runs."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUIET, ROOT, run_module

from rnnx.bench import __main__ as bench
from rnnx.bench import cases, growth, in_onnx, latency, machine, ours, plain, rivals
from rnnx.bench.cases import CASES, QUICK, Case


def case_of(name: str, among: tuple[Case, ...] = CASES) -> Case:
    return next(case for case in among if case.name == name)


def test_work_of_the_paper_network_by_hand() -> None:
    """RHN L = 10, n = 830, V = 10,000 at 20 x 35, as counted with pencil and paper."""
    work = {phase.name: phase for phase in cases.phases(case_of("rhn"))}
    weights = 10 * 830 * 1660
    assert work["recurrence forward"] == ("recurrence forward", 2 * 700 * weights, 35 * 4 * weights)
    assert work["recurrence backward"][1:] == work["recurrence forward"][1:]
    assert work["recurrent weight gradients"][1:] == (2 * 700 * weights, 4 * weights)
    assert work["input products"].flops == 3 * 2 * 700 * 830 * 1660
    assert work["softmax"].flops == 3 * 2 * 700 * 830 * 10_000
    assert cases.flops(case_of("rhn")) == pytest.approx(98.7e9, rel=0.01)
    # At 400 GFLOP/s and 40 GB/s the recurrence waits for memory, the rest for the processor.
    assert cases.bound(case_of("rhn"), 4e11, 4e10) == pytest.approx(
        2 * 35 * 4 * weights / 4e10
        + (2 * 700 * weights + 3 * 1400 * 830 * 11_660) / 4e11
        + 12 * 23_483_200 / 4e10,
        rel=1e-3,
    )


def test_reading_one_token_reads_every_weight_once() -> None:
    work = {phase.name: phase for phase in cases.phases(case_of("token"))}
    assert work["recurrence forward"][1:] == (2 * 5 * 256 * 512, 4 * 5 * 256 * 512)
    assert "update" not in work and "recurrence backward" not in work


def test_a_linear_cell_has_no_recurrent_products() -> None:
    case = cases._case("mingru", "", 50, cell="mingru", hidden_size=8, batch_size=2, num_steps=5)
    work = {phase.name: phase for phase in cases.phases(case)}
    assert work["recurrence forward"].flops == work["recurrence forward"].bytes == 0
    assert work["input products"].flops == 3 * 2 * 10 * 50 * 16


def test_work_of_a_stack_that_reads_both_ways_by_hand() -> None:
    """Two layers of 128 on 117 features, 33 symbols, 16 utterances of 100 steps."""
    work = {phase.name: phase.flops for phase in cases.phases(case_of("speech"))}
    assert work["recurrence forward"] == 2 * 1600 * 4 * 128 * 512
    assert work["products of given inputs"] == 2 * 2 * 1600 * 2 * 117 * 512
    assert work["input products"] == 3 * 2 * 1600 * 2 * 256 * 512
    assert work["softmax"] == 3 * 2 * 1600 * 256 * 33
    assert case_of("speech").sound == 48 and case_of("hear").sound == 3
    assert bench.pace_of(case_of("speech"), 0.1) == "rnnx: 480 hours of sound trained in an hour"
    assert bench.pace_of(case_of("hear"), 0.003).endswith("real-time factor 0.00100")


def test_one_hot_inputs_need_no_gradient() -> None:
    work = {phase.name: phase.flops for phase in cases.phases(case_of("gru"))}
    assert work["products of given inputs"] == 2 * 2 * 3200 * 50 * 3000
    assert work["input products"] == 0


def test_speech_is_learned_and_heard() -> None:
    call, hear = ours.train(case_of("speech", QUICK)), ours.hear(case_of("hear", QUICK))
    losses = [call()[0] for _ in range(4)]
    assert losses[3] < losses[0] - 0.1
    assert hear() == hear() and hear()[0] == pytest.approx(-np.log(33), abs=0.2)


@pytest.mark.parametrize("name", ["rhn", "milstm"])
def test_plain_jax_learns_as_we_do(name: str) -> None:
    """Four updates on one window: losses fall alike, whatever the number of windows a call."""
    case = case_of(name, QUICK)
    one, four, textbook = ours.train(case), ours.train(case, 4), plain.train(case)
    losses = [one()[0] for _ in range(4)]
    assert losses[3] < losses[0] - 0.1
    assert four() == losses
    np.testing.assert_allclose([textbook()[0] for _ in range(4)], losses, rtol=1e-4)


def test_other_work_is_refused() -> None:
    told = [100.0, 99.0, 98.0, 97.0]
    rows = [
        {"rival": "rnnx", "failed": None, "told": told},
        {"rival": "plain scan", "failed": None, "told": told},
        {"rival": "torch, addmm", "failed": None, "told": [100.0, 99.0, 98.0, 97.5]},
        {"rival": "torch nn.LSTM", "failed": None, "told": [0.0] * 4},
    ]
    bench.same_work(rows, case_of("milstm"))
    assert [bool(row["failed"]) for row in rows] == [False, False, True, False]
    bench.same_work(rows, case_of("lstm"))
    assert rows[3]["failed"].startswith("other results")


def test_reading_on_and_reading_again() -> None:
    token, text = ours.token(case_of("token", QUICK)), ours.text(case_of("text", QUICK))
    assert token() != token()  # the second from the state behind the first
    assert text() == text() and 0 < text()[0] / cases.TEXT_STEPS < 1.1 * np.log(50)


def test_two_texts_cost_what_one_does_and_score_the_same() -> None:
    """By the bound: the weights, which decide at one row, are read once for both."""
    text, both = (next(c for c in CASES if c.name == name) for name in ("text", "splits"))
    assert both.tokens == 2 * text.tokens and cases.flops(both) == 2 * cases.flops(text)
    slow_memory = 1e15, 1e9
    assert cases.bound(both, *slow_memory) == pytest.approx(cases.bound(text, *slow_memory))
    fields = dict(both.fields) | {"hidden_size": 16, "depth": 2}
    small = dataclasses.replace(both, vocab_size=50, fields=tuple(fields.items()))
    assert ours.splits(small)() == pytest.approx(ours.splits(small, apart=True)(), rel=1e-6)


def test_the_exported_step_does_the_same_work() -> None:
    case = case_of("step", QUICK)
    step, jitted = in_onnx.token(case, threads=1), ours.token(case)
    int8 = in_onnx.token(case, threads=1, int8=True)
    for _ in range(4):
        (told,), (ours_told,), (rounded,) = step(), jitted(), int8()
        assert told == pytest.approx(ours_told, abs=1e-6)
        assert rounded == pytest.approx(told, rel=0.1) and rounded != told


def test_a_step_s_row_has_median_and_percentile() -> None:
    def rival(name: str, told: list[float]) -> SimpleNamespace:
        seconds = [i / 100 for i in range(101)]
        return SimpleNamespace(name=name, failed=None, seconds=seconds, told=told)

    case, first = case_of("step"), rival("rnnx.runtime", [1.0, 2.0, 3.0, 4.0])
    row = latency.row_of(first, case, 2, "25/17", first)
    assert (row["seconds"], row["seconds_99"], row["calls"], row["threads"]) == (0.5, 0.99, 101, 2)
    other = latency.row_of(rival("torch", [1.0, 2.0, 3.0, 4.1]), case, 2, "25/17", first)
    assert other["failed"].startswith("other results") and "seconds" not in other
    near = latency.row_of(rival("rnnx.runtime, int8", [1.0, 2.0, 3.0, 4.1]), case, 2, "", first)
    assert near["failed"] is None


@pytest.mark.long
def test_quick_bench_runs_and_writes_json(tmp_path: Path) -> None:
    out = f"--out={tmp_path / 'bench.json'}"
    told = run_module("bench", "--quick", "--cases=rhn,write,step,hear", out)
    assert told.returncode == 0, told.stderr
    result = json.loads((tmp_path / "bench.json").read_text())
    ran = {(row["case"], row["rival"]) for row in result["rows"] if row["failed"] is None}
    assert {("rhn", "rnnx"), ("rhn", "plain scan"), ("write", "rnnx"), ("hear", "rnnx")} <= ran
    assert case_of("rhn", QUICK).label in told.stdout
    steps = [row for row in result["rows"] if row["case"] == "step" and not row["failed"]]
    assert {row["threads"] for row in steps} == {1, 2}
    assert all(0 < row["seconds"] <= row["seconds_99"] and row["calls"] > 9 for row in steps)
    rest = [row for row in result["rows"] if row["failed"] is None and row not in steps]
    assert all(row["of_bound"] > 0 for row in rest)
    assert {row["cpu"] for row in result["rows"]} == {machine.processor()}
    printed = [line for line in told.stdout.splitlines() if line.startswith("plain scan")]
    assert len(printed) == 1 and printed[0].split()[-1] == machine.processor()


def test_of_a_shape_one_size_varies_or_it_is_a_corner() -> None:
    shapes = [dict(case.fields) for case in growth.shapes()]
    sizes = [(s["batch_size"], s["num_steps"], s["hidden_size"], s["depth"]) for s in shapes]
    assert len(set(sizes)) == len(sizes) and sizes[1] == (80, 35, 256, 3)
    unlike = [sum(a != b for a, b in zip(size, sizes[1], strict=True)) for size in sizes]
    assert all(few <= 1 or size[3] == 1 for few, size in zip(unlike, sizes, strict=True))
    assert (320, 400, 1650, 1) in sizes


@pytest.mark.long
def test_shapes_are_timed_and_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"cell": "rhn", "one_hot": True, "batch_size": 2, "hidden_size": 8, "num_steps": 5}
    shape = Case("shape", "RHN", 50, tuple(small.items()))
    monkeypatch.setattr(growth, "shapes", lambda: (shape,))
    (row,) = growth.measure(1, QUIET)
    assert row["failed"] is None and row["fields"] == small
    assert row["seconds"] > 0 and row["peak_bytes"] > 1e7


def test_the_processor_is_named_by_family_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two kinds of machine may share a model name: their numbers differ."""
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
    )
    monkeypatch.setattr(machine, "Path", lambda name: {"/proc/cpuinfo": info}[name])
    assert machine.processor.__wrapped__() == "25/17"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # ARM has no such numbers
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine.processor.__wrapped__() == "aarch64"


def test_a_rival_that_dies_fails_alone() -> None:
    rival = rivals.Rival("dies", "rnnx.bench.ours.sgemm", 8)
    rival.await_ready()
    rival._process.kill()
    rival._process.join()
    rival.turn()
    rival.close()
    assert rival.failed == "its process died" and not rival.seconds


def test_bench_refuses_a_file_that_it_cannot_write(tmp_path: Path) -> None:
    told = run_module("bench", "--quick", f"--out={tmp_path / 'none' / 'bench.json'}")
    assert told.returncode == 2 and "none is not there" in told.stderr and not told.stdout


def test_bench_refuses_an_unknown_case() -> None:
    told = run_module("bench", "--cases=lstn")
    assert told.returncode == 2 and "unknown case 'lstn': one of rhn" in told.stderr


README = (ROOT / "scripts" / "README.md").read_text()
BY_HAND, LAYERS = ("torch, addmm", "torch, linear"), ("torch nn.LSTM", "torch nn.GRU")
TRAINED = ("rhn", "lstm", "milstm", "gru", "migru", "mirnn", "small")


class Races:
    """A data file of the bench."""

    def __init__(self, name: str):
        result = json.loads((ROOT / f"notebooks/results/{name}.json").read_text())
        assert not result["git"].endswith("-dirty")
        self.found: dict[str, dict] = {}
        for row in result["rows"]:
            self.found.setdefault(row["case"], {})[row.get("rival")] = row

        self.commits = {row.get("git", result["git"]) for row in result["rows"]}

    def times(self, case: str, *names: str, ours: str = "rnnx") -> str:
        seconds = [self.found[case][n]["seconds"] for n in names if n in self.found[case]]
        return f"{min(seconds) / self.found[case][ours]['seconds']:.2f}x" if seconds else "-"

    def rate(self, case: str) -> str:
        return f"{self.found[case]['rnnx']['tokens_per_second']:,.0f}"

    def row(self, case: str) -> list[str]:
        return [
            self.times(case, "rnnx, XLA alone"),
            self.times(case, "plain scan"),
            self.times(case, *BY_HAND),
            self.times(case, *LAYERS),
            f"{self.found[case]['rnnx']['of_bound']:.2f}",
        ]


def readme_rows(heading: str, count: int) -> list[list[str]]:
    """The first rows after a heading, without their names."""
    lines = re.findall(r"^\| (.+) \|$", README.partition(heading)[2], re.M)[:count]
    return [line.replace(" (1)", "").split(" | ")[1:] for line in lines]


def test_the_front_page_has_the_range_of_the_races() -> None:
    files = [Races(name) for name in ("bench_avx2", "bench_avx512", "bench_amx")]

    def span(cases: tuple[str, ...], *names: str) -> str:
        found = sorted(float(file.times(case, *names)[:-1]) for file in files for case in cases)
        return f"{found[0]:.1f} to {found[-1]:.1f} times"

    front = (ROOT / "README.md").read_text()
    assert f"train {span(TRAINED, 'plain scan')} as fast as textbook JAX" in front
    rhn = f"{span(('rhn',), 'plain scan')} textbook JAX, {span(('rhn',), *BY_HAND)} PyTorch by hand"
    assert rhn in front


@pytest.mark.parametrize("name", ["bench_avx512", "bench_amx"])
def test_the_readme_has_the_races_in_bfloat16(name: str) -> None:
    races = Races(name)
    heading = README.partition(f"{name}.json`")[0].rpartition("On an ")[2]
    assert all(f"`{commit[:7]}" in heading for commit in races.commits)
    assert readme_rows(f"{name}.json`", len(TRAINED) + 1)[1:] == [
        [races.rate(case), races.times(case, "rnnx", ours="rnnx, bfloat16"), *races.row(case)]
        for case in TRAINED
    ]


def test_the_readme_has_the_races_of_the_data_file() -> None:
    races = Races("bench_avx2")
    trained = (*TRAINED, "speech")
    assert readme_rows("| of bound |", len(trained)) == [
        [races.rate(case), *races.row(case)] for case in trained
    ]
    read = ("write", "token", "token_rhn", "text", "hear")
    assert readme_rows("| at batch 1 |", len(read)) == [
        [races.rate(case), races.times(case, *BY_HAND), races.times(case, *LAYERS)] for case in read
    ]
    long, (one, two) = races.found["long"][None], races.found["devices"].values()
    assert f"{long['peak_bytes'] / 1e9:.1f} GB in all, on the first machine at" in README
    assert f"{40_000 / long['seconds']:,.0f}\ntokens/s." in README
    assert f"{one['seconds'] / two['seconds']:.2f} times as fast as one (RHN" in README
    for case in ("splits", "splits_rnn"):
        assert f"{races.times(case, 'rnnx, one by one')[:-1]} times" in README
    sound = (
        races.found["speech"]["rnnx"]["tokens_per_second"] * 0.03
    )  # three frames of 10 ms a step
    assert f"on {sound:,.0f} hours of sound in an hour" in README
    assert f"real-time factor of {races.found['hear']['rnnx']['seconds'] / 3:.4f}" in README


def test_the_readme_has_the_shapes_of_the_data_file() -> None:
    result = json.loads((ROOT / "notebooks/results/bench_shapes.json").read_text())
    assert not result["git"].endswith("-dirty") and not any(r["failed"] for r in result["rows"])
    readme = (ROOT / "scripts" / "README.md").read_text()
    sizes = "batch_size", "num_steps", "hidden_size", "depth"
    rows = {tuple(row["fields"][name] for name in sizes): row for row in result["rows"]}
    for batch, steps in ((80, 35), (80, 400), (320, 35), (320, 400)):
        cells = [
            f"{1e6 / row['tokens_per_second']:,.3g} | {row['gflops']:,.0f} | "
            f"{row['peak_bytes'] / 1e9:.2f}"
            for row in (rows[batch, steps, n, 1] for n in (256, 1650))
        ]
        assert f"| {batch} | {steps} | {' | '.join(cells)} |" in readme


def test_the_readme_has_the_steps_of_the_data_file() -> None:
    result = json.loads((ROOT / "notebooks/results/step_cpu.json").read_text())
    assert not result["git"].endswith("-dirty") and not any(r["failed"] for r in result["rows"])
    rows = {(row["case"], row["threads"], row["rival"]): row for row in result["rows"]}
    readme = (ROOT / "scripts" / "README.md").read_text()
    for case, threads, name, label in (
        ("step", 1, "rnnx.runtime", "RHN L = 5, n = 256"),
        ("step", 1, "rnnx.runtime, int8", "the same, int8 weights"),
        ("step", 2, "rnnx.runtime", "RHN L = 5, n = 256"),
        ("step_lstm", 1, "rnnx.runtime", "LSTM n = 256"),
        ("step_lstm", 2, "rnnx.runtime", "LSTM n = 256"),
    ):
        ours = rows[case, threads, name]
        by_hand = (rows[case, threads, f"torch, {form}"] for form in ("addmm", "linear"))
        rivals = [
            rows[case, threads, "rnnx, jitted"],
            min(by_hand, key=lambda row: row["seconds"]),
            rows.get((case, threads, "torch nn.LSTM")),
        ]
        ratios = [
            ", ".join(f"{r[k] / ours[k]:.1f}x" for k in ("seconds", "seconds_99")) if r else "-"
            for r in rivals
        ]
        times = (f"{1e6 * ours[k]:.0f}" for k in ("seconds", "seconds_99"))
        row = " | ".join([label, str(threads), *times, *ratios])
        assert f"| {row} |" in readme, row
