"""Bad input gets one clear line and exit code 2; every config trains."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run_module
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx.errors import UserError
from rnnx.metrics import Display

QUICK = "--config=configs/quickstart.py:tiny"


def refused(done, *parts: str) -> None:
    """One line on stderr that names the parts, no traceback, exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("depth", 0, "depth=0 must be at least 1"),
        ("hidden_size", -5, "hidden_size=-5 must be at least 1"),
        ("drop_h", 1.0, "drop_h=1.0 must be below 1"),
        ("drop_x", -0.1, "drop_x=-0.1 must be at least 0"),
        ("learning_rate", float("nan"), "not a finite number"),
        ("cell", "lsmt", "did you mean lstm"),
        ("integration", "mul", "is not one of additive, mi, mi_simple"),
        ("mi_init", (1.0, 2.0), "three numbers"),
        ("batch_size", 0, "batch_size=0"),
        ("seed", -1, "seed=-1"),
        ("tied", 1, "tied must be bool"),
    ],
)
def test_impossible_values_are_refused(name, value, message) -> None:
    config = configs.default()
    with config.ignore_type():
        config[name] = value
    with pytest.raises(UserError, match=re.escape(message)):
        configs.validate(config)


def test_fields_that_contradict_each_other_are_refused() -> None:
    config = configs.default()
    config.update(cell="lstm", depth=3)
    with pytest.raises(UserError, match="lstm has no transition depth"):
        configs.validate(config)
    config.update(depth=1, tied=True, embed_size=7)
    with pytest.raises(UserError, match="tied weights need embed_size"):
        configs.validate(config)
    config = configs.default()
    config.hiden_size = 3
    with pytest.raises(UserError, match="did you mean hidden_size"):
        configs.validate(config)


def test_config_json_round_trip_and_refusals() -> None:
    config = configs.default()
    config.update(depth=7, mi_init=(2.0, 0.5, 0.5))
    again = configs.from_json(configs.to_json(config), "config.json")
    assert again.to_dict() == config.to_dict()
    for text, message in [
        ("", "not a config"),
        ("[]", "not a config"),
        ('{"depth": 3}', "not a config"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1, "depth": 3}', "lacks the field"),
        (configs.to_json(config).replace('"depth": 7', '"depth": "7"'), "depth must be int"),
    ]:
        with pytest.raises(UserError, match=message):
            configs.from_json(text, "config.json")


def config_files() -> list[Path]:
    return sorted((ROOT / "configs").glob("*.py"))


def load(path: Path, arg: str = "") -> ConfigDict:
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def named_variants(path: Path) -> list[str]:
    """The variants of a file: its functions that take a config, by reading it."""
    return re.findall(r"^def ([a-z]\w*)\(config: ConfigDict\)", path.read_text(), flags=re.M)


ALL = [(path, v) for path in config_files() for v in ["", *named_variants(path)]]


@pytest.mark.parametrize("path, variant", ALL, ids=lambda x: getattr(x, "stem", x))
def test_every_config_is_valid_and_trains_its_tiny_form(
    path: Path, variant: str, tmp_path: Path
) -> None:
    from rnnx.train import dry_run

    configs.validate(load(path, variant))
    tiny = load(path, f"{variant},tiny")
    configs.validate(tiny)
    assert tiny.corpus == "python"
    if tiny.param_budget:
        tiny.param_budget = 20_000
    dry_run(tiny, Display(quiet=True))


@pytest.mark.parametrize("path", config_files(), ids=lambda p: p.stem)
def test_every_config_has_the_header_of_a_notebook_entry(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    for part in ("Paper", "Expected", "Cost", "Command"):
        assert re.search(rf"^{part} +\S", header, flags=re.M), part
    for variant in named_variants(path):
        assert (
            variant in header or f'"""{variant}' in path.read_text() or variant in path.read_text()
        )
    with pytest.raises(UserError, match="unknown variant"):
        load(path, "no_such_variant")


# ---------------------------------------------------------------------------- command line


def test_overrides_of_every_type_reach_the_run(tmp_path: Path) -> None:
    done = run_module(
        "train", QUICK, f"--workdir={tmp_path / 'run'}", "--config.depth=1", "--config.max_steps=3",
        "--config.drop_h=0.5", "--config.cell=dtrnn", "--config.mi_init=(2.0, 0.5, 0.5)",
        "--noconfig.coupled", "--config.learning_rate=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = configs.from_json((tmp_path / "run" / "config.json").read_text(), "")
    assert (kept.depth, kept.drop_h, kept.cell, kept.coupled) == (1, 0.5, "dtrnn", False)
    assert kept.mi_init == (2.0, 0.5, 0.5) and kept.learning_rate == 1.0
    assert "dtrnn" in done.stdout and "test bpc" in done.stdout


@pytest.mark.parametrize(
    "args, parts",
    [
        (["--config.hiden_size=3"], ["hiden_size", "did you mean hidden_size"]),
        (["--config.depth=0"], ["depth=0 must be at least 1"]),
        (["--config.depth=2.5"], ["depth"]),
        (["--config.depth=two"], ["depth"]),
        (["--config.hidden_size=-1"], ["hidden_size=-1"]),
        (["--config.drop_x=1.5"], ["drop_x=1.5 must be below 1"]),
        (["--config.cell=lsmt"], ["did you mean lstm"]),
        (["--config.corpus=ptb_wrd"], ["ptb_wrd"]),
        (["--config.batch_size=9000000"], ["batch larger than the text"]),
        (["--wrkdir=x"], ["wrkdir"]),
        (["stray"], ["stray"]),
        (["--num_processes=2"], ["go together"]),
    ],
)
def test_bad_arguments_of_train(args: list[str], parts: list[str], tmp_path: Path) -> None:
    refused(run_module("train", QUICK, f"--workdir={tmp_path / 'run'}", *args), *parts)
    assert not (tmp_path / "run").exists(), "something was half-written"


def test_bad_config_files(tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path / 'run'}"
    refused(run_module("train", workdir), "--config=FILE is missing")
    refused(run_module("train", QUICK), "--workdir=DIR is missing")
    refused(run_module("train", "--config=configs/no_such.py", workdir), "no_such.py")
    refused(
        run_module("train", "--config=configs/enwik8.py:milstm", workdir), "did you mean mi_lstm"
    )
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config():\n    return 1 / 0\n")
    refused(run_module("train", f"--config={broken}", workdir), "division by zero")


def test_bad_corpora(tmp_path: Path) -> None:
    def train(path: Path) -> object:
        return run_module(
            "train", QUICK, f"--workdir={tmp_path / 'run'}", f"--config.corpus={path}"
        )

    rng = np.random.default_rng(0)
    for name, content, part in [
        ("empty.txt", b"", "empty"),
        ("short.txt", b"abc", "short"),
        ("latin1.txt", "caf\xe9 ".encode("latin-1") * 500, "UTF-8"),
        ("noise.bin", rng.bytes(5000), "UTF-8"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        refused(train(path), name, part)
    refused(train(tmp_path / "missing.txt"), "missing.txt")
    refused(train(tmp_path), str(tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", ["evaluate", "sample"])
def test_bad_workdirs(module: str, tmp_path: Path) -> None:
    refused(run_module(module, f"--workdir={tmp_path / 'nothing'}"), "not a workdir")
    (tmp_path / "config.json").write_text('{"format": 1}')
    refused(run_module(module, f"--workdir={tmp_path}"), "config.json")
    refused(run_module(module), "workdir")
    config = configs.default()
    config.update(embed_size=4, hidden_size=4)
    (tmp_path / "config.json").write_text(configs.to_json(config))
    refused(run_module(module, f"--workdir={tmp_path}"), "vocabulary.json is missing")
    (tmp_path / "vocabulary.json").write_text(
        '{"format": 1, "level": "char", "symbols": ["a", "b"]}'
    )
    refused(run_module(module, f"--workdir={tmp_path}"), "no checkpoint yet")


@pytest.mark.parametrize("module", ["train", "evaluate", "sample", "corpora"])
def test_help(module: str) -> None:
    done = run_module(module, "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert f"python -m rnnx.{module}" in done.stdout
    assert all(len(line) < 120 for line in done.stdout.splitlines())
    if module == "train":
        assert all(f"\n  {name} = " in done.stdout for name in configs.FIELDS)


def test_dry_run_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run_module("train", QUICK, "--dry_run", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout and "total" in done.stdout
    assert list(tmp_path.iterdir()) == []
