"""scripts/reproduce-gpu: plans from measured milliseconds, what travels, one stage as a whole."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, one_device, small, train

sys.path.insert(0, str(ROOT / "scripts"))

import gpu_pack
import gpu_stage
import reproduce_gpu
from gpu_stage import SETTINGS, Stage, epochs_in, schedule

from rnnx.errors import UserError
from rnnx.trained import open_run

# ---------------------------------------------------------------------------- plans


@pytest.mark.parametrize("ms, epochs", [(6.5, 170), (4.5, 241), (2.0, 494), (1.5, 500)])
def test_epochs_that_fit_into_26_minutes(ms: float, epochs: int) -> None:
    assert epochs_in(1560, 1327, ms, most=500) == epochs


def test_at_least_one_epoch_is_tried() -> None:
    assert epochs_in(-20.0, 1327, 6.5, most=500) == 1


@pytest.mark.parametrize("epochs, flat", [(499, 20), (170, 20), (80, 20), (40, 10), (5, 1), (2, 1)])
def test_the_rate_of_a_shorter_run_falls_by_as_much(epochs: int, flat: int) -> None:
    assert schedule(epochs, 500)[0] == flat
    falls = (epochs - flat) * np.log(schedule(epochs, 500)[1])
    np.testing.assert_allclose(falls, 480 * np.log(1.02), rtol=3e-3)


def test_a_run_of_the_paper_s_length_has_its_schedule() -> None:
    assert schedule(500, 500) == (20, 1.02)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = gpu_stage.BEGUN

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of stages, which start with it."""
    made = Clock()
    monkeypatch.setattr(gpu_stage, "time", made)
    return made


def stage(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Stage:
    """The stage `word` of a workdir, on a machine that is not asked."""
    monkeypatch.setattr(Stage, "_machine", lambda self: {"device": "a card", "git": ""})
    return Stage(reproduce_gpu.parsed(["word", f"--workdir={folder}", *more]))


def trains(monkeypatch: pytest.MonkeyPatch, clock: Clock, told: list[tuple]) -> list[str]:
    """Replaces trials by ones that last, end and run as told; returns the settings tried."""
    tried: list[str] = []
    ends = iter(told)

    def fake(self, config, folder, setting, seconds, *more, output=None) -> int:
        lasts, code, ms = next(ends)
        tried.append(setting.name)
        clock.now += min(lasts, seconds)
        if lasts > seconds:
            return 143
        folder.mkdir()
        sizes = {"data": {"sizes": [929_589, 73_760, 82_430]}}
        (folder / "run.json").write_text(json.dumps(sizes))
        result = {"config": {"batch_size": 20, "num_steps": 35}, "tokens_per_second": 7e5 / ms}
        (folder / "result.json").write_text(json.dumps(result))
        return code

    monkeypatch.setattr(Stage, "train", fake)
    return tried


def test_a_plan_takes_the_fastest_setting_and_leaves_time_for_the_rest(
    tmp_path: Path, monkeypatch, clock: Clock
) -> None:
    told = [(20, 0, 6.5), (18, 1, 1.0), (20, 0, 5.0), (20, 0, 9.0)]
    tried = trains(monkeypatch, clock, told)
    ours = stage(tmp_path, monkeypatch, "--calls=3")
    plan = ours.plan("words", SETTINGS, 500, 1.0, 1.5)
    assert tried == [setting.name for setting in SETTINGS[:3]]  # a fourth would not end in a minute
    start = 20 - 320 * 0.005  # imports and compilation
    seconds = 3 * (540 - 30) - (20 + 18 + 20) - 5 * start - 1.5 * (156_190 // 35) * 0.005
    assert plan == {
        "setting": SETTINGS[2].name, "ms": 5.0, "seconds": round(seconds, 1),
        "epochs": int(seconds / (1327 * 0.005 + 0.5)),
    }  # fmt: skip
    again = stage(tmp_path, monkeypatch, "--calls=3")
    assert again.plan("words", SETTINGS, 500, 1.0, 1.5) == plan and len(tried) == 3


def test_a_trial_that_hangs_is_passed_over(tmp_path: Path, monkeypatch, clock: Clock) -> None:
    tried = trains(monkeypatch, clock, [(999, 0, 1.0), (30, 0, 6.0)])
    ours = stage(tmp_path, monkeypatch)
    assert [row["ms"] for row in ours.trial("words", SETTINGS[:3], 200)] == [6.0]
    assert tried == [SETTINGS[0].name, SETTINGS[1].name]  # the third might take 90 s again


def test_a_trial_that_was_cut_off_is_tried_again(tmp_path: Path, monkeypatch, clock: Clock) -> None:
    tried = trains(monkeypatch, clock, [(30, 0, 6.0), (50, 0, 4.0), (50, 0, 4.0)])
    ours = stage(tmp_path, monkeypatch)
    assert [row["ms"] for row in ours.trial("words", SETTINGS[:2], 70)] == [6.0]
    again = stage(tmp_path, monkeypatch)
    assert [row["ms"] for row in again.trial("words", SETTINGS[:2], 70)] == [6.0, 4.0]
    assert tried == [SETTINGS[i].name for i in (0, 1, 1)]


def test_no_trial_at_all_is_told_and_tried_again(tmp_path: Path, monkeypatch, clock: Clock) -> None:
    trains(monkeypatch, clock, [(10, 1, 1.0), (10, 0, 1.0)])
    with pytest.raises(UserError, match="no trial of words ended well"):
        stage(tmp_path, monkeypatch).plan("words", SETTINGS[:1], 500, 1.0, 1.5)
    assert stage(tmp_path, monkeypatch).plan("words", SETTINGS[:1], 500, 1.0, 1.5)["ms"] == 1.0


def test_later_stages_take_the_setting_that_check_found(tmp_path: Path, monkeypatch) -> None:
    ours = stage(tmp_path, monkeypatch)
    assert ours.fastest() is None
    rows = [
        {"setting": setting.name, "ms": ms}
        for setting, ms in zip(SETTINGS, (5.0, 7.0, 4.0, 6.0), strict=False)
    ]
    (tmp_path / "check").mkdir()
    found = {"trials": {"configs/ptb_word.py": [*rows, {"setting": "bfloat16", "ms": None}]}}
    (tmp_path / "check" / "measured.json").write_text(json.dumps(found))
    assert ours.fastest() == SETTINGS[2]
    assert ours.fastest("float32") == SETTINGS[3]


# ---------------------------------------------------------------------------- child processes


@pytest.mark.parametrize(
    "answer, code", [("lambda *_: sys.exit(143)", 143), ("signal.SIG_IGN", -9)]
)
def test_a_child_is_asked_to_stop_and_then_killed(answer: str, code: int, monkeypatch) -> None:
    monkeypatch.setattr(gpu_stage, "GRACE", 5 if code == 143 else 0.5)
    program = f"import signal, sys, time; signal.signal(15, {answer}); print(flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}; time.sleep(60)"], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    assert gpu_stage._stopped(process) == code
    process.stdout.close()


def test_a_child_has_its_time_and_its_flags(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--one")
    ours = stage(tmp_path, monkeypatch)
    code = "import os, sys; sys.exit(os.environ['XLA_FLAGS'] != '--one --two')"
    assert ours.run("-c", code, seconds=60, XLA_FLAGS="--two") == 0
    assert ours.run("-c", "import time; time.sleep(60)", seconds=1) == -15


# ---------------------------------------------------------------------------- what travels


class Pip:
    """A pip without network: it has a wheel of 1,000 bytes of every package but two."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, verb: str, *arguments: str) -> str:
        options = dict(a[2:].split("=") for a in arguments if a.startswith("--") and "=" in a)
        name, _, version = arguments[-1].partition("==")
        if verb == "download":
            assert {"--no-deps", "--only-binary=:all:", "--python-version=3.12"} <= {*arguments}
            self.asked.append(name)
            if name in ("promise", "toml"):
                return "no matching distribution"
            path = Path(options["dest"]) / f"{name}-{version}-cp312-cp312-manylinux_x86_64.whl"
        else:
            kind = "py3-none-any" if name == "promise" else "cp311-cp311-linux_x86_64"
            path = Path(options["wheel-dir"]) / f"{name}-{version}-{kind}.whl"
        path.write_bytes(bytes(1000))
        return ""


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """A folder that looks as if it held the corpora."""
    (tmp_path / "data" / "ptb").mkdir(parents=True)
    for name in gpu_pack.CORPUS:
        (tmp_path / "data" / "ptb" / name).write_bytes(bytes(1 << 20))
    return tmp_path / "data"


def packed(folder: Path, data: Path) -> str:
    lines = gpu_pack.pack(folder, data, "3.12", gpu_pack.PLATFORMS, gpu_pack.THERE)
    return "\n".join(lines)


def test_a_packed_folder_has_corpora_and_wheels(tmp_path: Path, monkeypatch, corpora: Path) -> None:
    pip = Pip()
    monkeypatch.setattr(gpu_pack, "pip", pip)
    told = packed(tmp_path / "packed", corpora)
    wheels = sorted(path.name for path in (tmp_path / "packed" / "wheels").iterdir())
    assert {"ml-collections", "optuna", "tensorflow-datasets", "dm-tree"} <= {*pip.asked}
    assert not {"jax", "flax", "numpy", "orbax-checkpoint"} & {*pip.asked}
    assert len(wheels) == len(pip.asked) - 1
    assert "promise-2.3-py3-none-any.whl" in wheels and not any("toml" in name for name in wheels)
    assert "left out, as pip has no wheel for Python 3.12: toml" in told
    assert "left out, taken to be there: jax, jaxlib, flax" in told
    total = sum(p.stat().st_size for p in (tmp_path / "packed").rglob("*") if p.is_file())
    assert f"  {total / 2**20:.2f} MiB  in all, of at most 64" in told
    about = json.loads((tmp_path / "packed" / "about.json").read_text())
    assert sorted(about["packages"]) == sorted(pip.asked)


def test_too_large_a_folder_is_told(tmp_path: Path, monkeypatch, corpora: Path) -> None:
    monkeypatch.setattr(gpu_pack, "pip", Pip())
    monkeypatch.setattr(gpu_pack, "LIMIT", 3 << 20)
    with pytest.raises(UserError, match="is larger than 3 MiB"):
        packed(tmp_path / "packed", corpora)


def test_a_missing_corpus_is_told(tmp_path: Path, corpora: Path) -> None:
    (corpora / "ptb" / "ptb.test.txt").unlink()
    with pytest.raises(UserError, match=r"has no ptb\.test\.txt"):
        packed(tmp_path / "packed", corpora)


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch) -> None:
    def version(name: str) -> str:
        if name == "optuna":
            raise gpu_pack.metadata.PackageNotFoundError
        return "999"

    missing = types.SimpleNamespace(
        version=version, PackageNotFoundError=gpu_pack.metadata.PackageNotFoundError
    )
    monkeypatch.setattr(gpu_pack, "metadata", missing)
    with pytest.raises(UserError, match="lacks optuna>=5: pack"):
        gpu_pack.install(None, tmp_path / "site", {})


def test_parameters_come_back_in_pieces(text: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    config = small(text, epochs=1, max_steps=3, eval_tokens=100)
    train(config, run)
    out.mkdir()
    (out / "run.tar.7-of-9").write_text("of an earlier, longer one")
    gpu_pack.halve(run, tmp_path / "half.npz")
    pieces = gpu_pack.split(run, tmp_path / "half.npz", out, 2_000)
    assert {*out.iterdir()} == {*pieces} and len(pieces) > 9  # 10 comes after 9
    assert max(piece.stat().st_size for piece in pieces) <= 2_000
    for some in (pieces[1:], pieces[:-1], [tmp_path / "half.npz"]):
        with pytest.raises(UserError, match="not all pieces"):
            gpu_pack.join(some, tmp_path / "joined")
        assert not (tmp_path / "joined").exists()
    gpu_pack.join(pieces[::-1], tmp_path / "joined")
    ours, theirs = open_run(run), open_run(tmp_path / "joined")
    assert theirs.info == ours.info | {"rounded": "float16"}
    for name, value in ours.params.items():
        np.testing.assert_array_equal(np.asarray(value, np.float16), theirs.params[name])
    with pytest.raises(UserError, match="latest is gone"):
        train(config, tmp_path / "joined")
    with pytest.raises(UserError, match="is there already"):
        gpu_pack.join(pieces, tmp_path / "joined")


# ---------------------------------------------------------------------------- a whole stage


@pytest.mark.long
def test_the_word_stage_on_a_cpu(tmp_path: Path) -> None:
    """Trained, scored and exported; the same command again does none of it twice."""
    command = [sys.executable, ROOT / "scripts" / "reproduce_gpu.py", "word", "--tiny"]
    command += ["--minutes=9", f"--workdir={tmp_path}"]
    kept, lines = [], []
    for _ in range(2):
        done = subprocess.run(
            command, env=one_device(), capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines.append(done.stdout.splitlines()[-1])
        kept.append((tmp_path / "out" / "word" / "gpu_word.json").read_bytes())
        evaluations = (tmp_path / "word" / "rhn" / "evaluations.jsonl").read_text().splitlines()
        assert [json.loads(line)["split"] for line in evaluations] == ["valid", "test"]
    assert kept[0] == kept[1]
    for line in lines:
        assert "; rhn 3 of 3 epochs, valid " in line and ", mc test " in line
    (run,) = json.loads(kept[0])["runs"]
    assert len(run["valid"]) == 3 and {"valid", "test"} == set(run["scores"])
    measured = json.loads((tmp_path / "out/word/gpu_word_measured.json").read_text())
    (plan,) = measured["plans"].values()
    assert plan["epochs"] == 3 and plan["ms"] > 0
    gpu_pack.join([tmp_path / "out/word/rhn.tar.1-of-1"], tmp_path / "joined")
    assert open_run(tmp_path / "joined").info["rounded"] == "float16"


@pytest.mark.long
def test_the_depth_stage_on_a_cpu(tmp_path: Path) -> None:
    """Two depths, the two seeds of each as one program."""
    command = [sys.executable, ROOT / "scripts" / "reproduce_gpu.py", "depth", "--tiny"]
    command += ["--minutes=9", f"--workdir={tmp_path}"]
    done = subprocess.run(command, env=one_device(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads((tmp_path / "out" / "depth" / "gpu_depth.json").read_text())["runs"]
    assert [(run["config"].get("depth", 1), run["config"].get("seed", 0)) for run in runs] == [
        (1, 0), (1, 1), (2, 0), (2, 1),
    ]  # fmt: skip
    for path in (tmp_path / "depth" / "sweep" / "trials").glob("*/run.json"):
        assert json.loads(path.read_text())["replicas"] == 2
