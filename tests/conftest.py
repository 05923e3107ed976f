"""Two forced CPU devices for every test, a cache of its own, and the real corpora if there."""

import contextlib
import io
import itertools
import json
import os
import runpy
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

# Before anything imports jax: the collectives of forced devices need two threads each. Most of the
# suite's time is compiling, which takes half as long without the fusion emitters; commands in
# processes of their own run as users' do.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=2"
    " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 4)))

import hypothesis
import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict

from rnnx import cache, model, parallel, score, tasks, trainer
from rnnx import config as configs
from rnnx.data.batches import ScoringWindows
from rnnx.data.vocabulary import Vocabulary
from rnnx.display import Display
from rnnx.experiment import Experiment
from rnnx.recovery import Saver
from rnnx.tasks import network

pytest_plugins = ["sweeps_made"]  # fixtures of more than one file

ROOT = Path(__file__).parent.parent
QUIET = Display(quiet=True)


# ---------------------------------------------------------------------------- cost and chance


hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


# Files of end-to-end tests, 60 % of the suite's processor time.
END_TO_END = frozenset(
    f"test_{name}.py"
    for name in (
        "adding", "analyze", "cache", "cli", "compare", "encode", "evaluate", "export", "faults",
        "moving", "packaging", "parallel", "predict", "reading", "recovery", "replicas",
        "sentences", "speech", "sweep", "tasks_rolls", "train", "trainer", "transcribe", "workdir",
    )
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in END_TO_END:
            item.add_marker("end_to_end")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="show the tests that cost most")
    parser.addoption("--seed", type=int, default=0, help="of what tests draw at random")


def pytest_report_header(config: pytest.Config) -> str:
    """What repeats this run."""
    return f"random draws: --seed={config.getoption('seed')}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Decides all that a test draws at random; the same in every run unless --seed says else."""
    return request.config.getoption("seed")


def cpu_seconds() -> float:
    """Processor time of this process and of those it started and saw end."""
    return sum(os.times()[:4])


_counted = cpu_seconds()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Writes down what each phase of a test cost, whatever else the machine does."""
    global _counted
    outcome = yield
    before, _counted = _counted, cpu_seconds()
    outcome.get_result().user_properties.append(("cpu", _counted - before))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """With --cpu: the 25 most expensive tests, and what each file costs."""
    if not config.getoption("cpu"):
        return
    tests: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        seconds = dict(getattr(report, "user_properties", ())).get("cpu", 0.0)
        tests[report.nodeid] += seconds
        files[report.nodeid.partition("::")[0]] += seconds
    terminalreporter.section("processor time")
    for counts, most in ((tests, 25), (files, None)):
        for name, seconds in counts.most_common(most):
            terminalreporter.write_line(f"{seconds:8.1f} s  {name}")
    terminalreporter.write_line(f"{sum(files.values()):8.1f} s  in all")


# ---------------------------------------------------------------------------- corpora and runs


def raw_data() -> Path | None:
    """Where the Penn Treebank is: in $RNNX_DATA, or in shared/data beside the repository."""
    for folder in (os.environ.get("RNNX_DATA"), ROOT.parent / "shared" / "data"):
        for place in (Path(folder) / "ptb", Path(folder)) if folder else ():
            if (place / "ptb.train.txt").exists():
                return place
    return None


@pytest.fixture
def real_data() -> Path:
    """The folder of the Penn Treebank; tests that need it are skipped without."""
    folder = raw_data()
    if folder is None:
        pytest.skip("needs the Penn Treebank: set RNNX_DATA to a folder with ptb/ptb.train.txt")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared corpora and compiled programs go to a folder of this test run, common to all its
    processes, and not to the user's cache."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["RNNX_CACHE"] = str(base / "cache")
    cache.keep_compiled()


def one_device(**env: str) -> dict[str, str]:
    """The environment of a process with one plain CPU device."""
    return {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")} | env


def call_module(module: str, *args: str) -> subprocess.CompletedProcess:
    """What `run_module` does, in this process: a tenth of the cost, on this process's devices.

    The module runs anew as `__main__`. Its flags, which absl keeps for the whole process, are
    removed again; those that a library it imports defines stay.
    """
    told, complained = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code = 0
    before = set(flags.FLAGS)
    argv, sys.argv = sys.argv, [f"rnnx/{module}.py", *args]
    try:
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(complained),
            contextlib.chdir(ROOT),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # that it was imported before
            try:
                runpy.run_module(f"rnnx.{module}", run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                code = ended.code or 0
            except Exception:
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            where = flags.FLAGS.find_module_defining_flag(name)
            if name.startswith("config.") or "/rnnx/" in where or where.startswith("rnnx."):
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    for stream in (told, complained):
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in (told, complained))
    return subprocess.CompletedProcess(args, code, out, err)


def run_module(module: str, *args: str, timeout: float = 300, **env: str):
    """Runs `python -m rnnx.MODULE` as a person would, on one CPU device."""
    return subprocess.run(
        [sys.executable, "-m", f"rnnx.{module}", *args],
        cwd=ROOT,
        env=one_device(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def begun(folder: Path, *command: str) -> subprocess.Popen:
    """A sweep in folder whose first run has an epoch behind it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rnnx.sweep", *command],
        cwd=ROOT, env=one_device(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(folder.glob("trials/*/checkpoints/best/*")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = (map(int, line.split()) for line in found.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text with something to learn, made here."""
    return write_text(tmp_path / "weather.txt")


def write_text(path: Path) -> Path:
    """Writes that text."""
    rng = np.random.default_rng(0)
    words = ["rain", "sun", "wind", "snow", "the", "falls", "shines", "blows"]
    lines = [" ".join(rng.choice(words, rng.integers(3, 7))) for _ in range(260)]
    path.write_text("\n".join(lines) + "\n")
    return path


def small(text: Path, **fields) -> ConfigDict:
    """A run of 3 epochs of a few windows, with every dropout on."""
    config = configs.default()
    config.update(
        {
            "corpus": str(text),
            "level": "char",
            "depth": 2,
            "hidden_size": 12,
            "integration": "mi",
            "init_scale": 0.2,
            "batch_size": 8,
            "num_steps": 25,
            "epochs": 3,
            "lr_decay": 1.1,
            "drop_x": 0.1,
            "drop_i": 0.2,
            "drop_h": 0.1,
            "drop_o": 0.2,
            "weight_decay": 1e-5,
        }
        | fields
    )
    return config


# ---------------------------------------------------------------------------- runs

TIMES = {"seconds", "tokens_per_second", "memory_bytes"}


def train(config: ConfigDict, folder: Path, display: Display = QUIET) -> dict:
    """A run from where it stands to its end; what `result.json` holds."""
    return trainer.run(Experiment(config, folder, display))


def killed_after(config: ConfigDict, folder: Path, step: int) -> None:
    """Trains until some updates after that step, and is killed there."""
    settle = trainer.Trainer.settle

    def cut(self: trainer.Trainer) -> None:
        if self.progress.step > step:
            raise KeyboardInterrupt
        settle(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "settle", cut)
        train(config, folder)


def lines_of(folder: Path) -> list[dict]:
    """metrics.jsonl without the times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def outcome(result: dict) -> dict:
    """What a run came to, whenever and wherever it ran: a commit may come in between."""
    return {k: v for k, v in result.items() if k not in TIMES | {"config", "device", "git"}}


def equal(a: object, b: object) -> bool:
    """Whether all arrays of two trees are equal, to the last bit."""
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture
def every_epoch_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every end of an epoch is saved, however short the epoch."""
    monkeypatch.setattr(Saver, "SECONDS", 0.0)


# ---------------------------------------------------------------------------- networks, batches


def words(count: int) -> Vocabulary:
    """A vocabulary of so many words."""
    return Vocabulary("word", tuple(map(str, range(count))))


def window(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """A window of tokens and their targets, (B, T), read from the state carried to it."""
    return {
        "inputs": np.asarray(x, np.int32),
        "targets": np.asarray(y, np.int32),
        "weight": np.ones(np.shape(y), np.float32),
        "fresh": np.zeros(len(y), np.float32),
    }


def on_devices(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """A batch as a call of one update takes it: (1, B, ...), rows spread over the mesh."""
    return {name: parallel.shard_rows(a[None], mesh, parallel.BATCHES) for name, a in batch.items()}


VOCAB = 13
TOKENS = np.random.default_rng(0).integers(0, VOCAB, 700).astype(np.uint8)


def language_model(**fields) -> tuple[ConfigDict, object, dict]:
    """A small language model of VOCAB words: config, structure, parameters."""
    config = configs.default()
    config.update(
        {"level": "word", "hidden_size": 10, "depth": 2, "num_layers": 2, "init_scale": 0.7}
        | fields
    )
    config = network.resolve(config, words(VOCAB))
    return config, *model.split(network.build(config, words(VOCAB)))


def full(graphdef: object, params: dict, tokens: np.ndarray) -> tuple[float, int]:
    """Nats and targets of a text, by the protocol `full`."""
    scorer = score.make_scorer(tasks.get("language"), graphdef, score.local_mesh())
    nats, targets = scorer(params, ScoringWindows(tokens, 1, 256))["nll"]
    return nats, round(targets)
