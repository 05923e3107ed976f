"""What pip installs: the small core, the extras, the packaged configs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT, one_device

from rnnx import config as configs
from rnnx.errors import UserError
from rnnx.extras import EXTRAS
from rnnx.sweep.__main__ import own_sweep

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Runs code with packages missing: their names come in $MISSING.
WITHOUT = """
import os, runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["MISSING"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""

EVERY_LAYER = """
import json, sys
import jax.numpy as jnp
from flax import nnx
import rnnx

kinds = [name for name in rnnx.__all__ if name + "Cell" in rnnx.__all__]
assert len(kinds) >= 10
for kind in kinds:
    layer = getattr(rnnx, kind)(3, 4, rngs=nnx.Rngs(0))
    ys, _ = layer(jnp.ones((2, 5, 3)))
    assert ys.shape == (2, 5, 4), kind
    ys = nnx.RNN(getattr(rnnx, kind + "Cell")(3, 4, rngs=nnx.Rngs(0)))(jnp.ones((2, 5, 3)))
    assert ys.shape == (2, 5, 4), kind
for name in rnnx.__all__:
    getattr(rnnx, name)
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "rnnx"]))
"""


def run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess:
    """Runs Python in a folder."""
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=one_device(**env), capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


def without(folder: Path, *missing: str) -> dict[str, str]:
    """The environment in which packages are missing."""
    (folder / "sitecustomize.py").write_text(WITHOUT)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {"PYTHONPATH": path, "MISSING": ",".join(missing)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel holds, built from a copy of the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("rnnx", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = run(source, "setup.py", "-q", "build", f"--build-lib={target}")
    assert built.returncode == 0, built.stderr
    return target


def names(requirements: list[str]) -> dict[str, str]:
    """Requirements by the name of their package, without rnnx itself."""
    split = (re.fullmatch(r"([\w-]+)(\[.*\])?(.*)", line.strip()) for line in requirements)
    return {part[1]: part[3] for part in split if part[1] != "rnnx"}


def test_requirements_txt_lists_every_extra() -> None:
    lines = [line.partition("#")[0] for line in (ROOT / "requirements.txt").open()]
    extras = PROJECT["optional-dependencies"]
    stated = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    assert names([line for line in lines if line.strip()]) == names(stated)
    assert names(PROJECT["dependencies"]).keys() == {"jax", "flax"}


def test_every_extra_names_the_modules_that_it_installs() -> None:
    provides: dict[str, set[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            provides.setdefault(re.sub("[-_.]+", "-", package).lower(), set()).add(module)
    provides["optuna"].add("sqlalchemy")  # which optuna requires
    for extra, modules in EXTRAS.items():
        for package in names(PROJECT["optional-dependencies"][extra]):
            found = provides[re.sub("[-_.]+", "-", package).lower()] & {*modules}
            assert found, f"{extra} lacks the module of {package}"
            modules = tuple({*modules} - found)
        assert not modules, f"{extra} does not install {modules}"


def test_the_layers_need_jax_and_flax_only(tmp_path: Path) -> None:
    modules = {module for extra in EXTRAS.values() for module in extra}
    # flax itself imports these.
    missing = modules - {"absl", "optax", "rich"}
    done = run(tmp_path, "-c", EVERY_LAYER, **without(tmp_path, *missing))
    assert done.returncode == 0, done.stderr
    # flax installs and imports optax, from which heads.py takes costs.
    allowed = {"jax", "flax", "numpy", "optax", "rnnx", *sys.stdlib_module_names}
    for file in json.loads(done.stdout):
        for node in ast.walk(ast.parse(Path(file).read_text())):
            if isinstance(node, ast.Import):
                found = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {(node.module or "").partition(".")[0]}
            else:
                continue
            assert found <= allowed, (file, found)


@pytest.mark.parametrize(
    "command, module, extra",
    [("train", "ml_collections", "train"), ("sweep", "optuna", "sweep"),
     ("report", "matplotlib", "report"), ("export", "onnx", "export")],
)  # fmt: skip
def test_a_missing_extra_is_one_line(
    command: str, module: str, extra: str, tmp_path: Path, installed: Path
) -> None:
    env = without(tmp_path, module)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(installed)])
    flags = ["--workdir=w", "--output=net.onnx"] if command == "export" else []
    done = run(tmp_path, "-m", f"rnnx.{command}", *flags, **env)
    assert (done.returncode, done.stdout) == (2, "")
    told = f"rnnx.{command}: error: the package {module} is not installed: pip install "
    assert done.stderr == f'{told}"rnnx[{extra}]"\n'


def test_a_checkout_names_its_requirements(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "rnnx.analyze", **without(tmp_path, "absl"))
    assert done.returncode == 2
    told = "rnnx.analyze: error: the package absl is not installed: pip install "
    assert done.stderr == f"{told}-r {ROOT / 'requirements.txt'}\n"


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "rnnx.train", **without(tmp_path, "jax"))
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_the_wheel_holds_every_file(installed: Path) -> None:
    ours = {path.relative_to(ROOT) for path in (ROOT / "rnnx").rglob("*.py")}
    theirs = {Path("rnnx/configs") / path.name for path in (ROOT / "configs").glob("*.py")}
    assert {path.relative_to(installed) for path in installed.rglob("*.py")} == ours | theirs


def test_an_installed_package_finds_its_configs_from_anywhere(
    tmp_path: Path, installed: Path
) -> None:
    (tmp_path / "quickstart.py").write_text("raise RuntimeError('a file of the user')\n")
    env, command = {"PYTHONPATH": str(installed)}, ["--config=quickstart:tiny", "--workdir=s"]
    command += ["--config.max_steps=2", "--grid=depth=1"]
    done = run(tmp_path, "-m", "rnnx.sweep", *command, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = (tmp_path / "s" / "trials").iterdir()
    kept = json.loads((trial / "run.json").read_text())["command"]
    assert kept.startswith("python -m rnnx.train --config=quickstart:tiny --config.max_steps=2 ")
    done = run(tmp_path, "-m", "rnnx.train", "--config=quickstart.py:tiny", "--workdir=t", **env)
    assert done.returncode == 2 and "a file of the user" in done.stderr


def test_a_packaged_config_may_hold_a_sweep() -> None:
    assert len(own_sweep("jsb:paper", configs.default())) == 120


@pytest.mark.parametrize("name", ["ptb_word", "ptb_word:small", "ptb_char:small,rnn"])
def test_a_name_is_a_packaged_config(name: str) -> None:
    stem, colon, variant = name.partition(":")
    assert configs.config_file(name) == f"{ROOT / 'configs' / stem}.py{colon}{variant}"


@pytest.mark.parametrize("name", ["ptb_word.py", "ptb_word.py:small", "./ptb_word", "a/b.py:c", ""])
def test_a_path_stays_as_it_is(name: str) -> None:
    assert configs.config_file(name) == name


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'ptb_wrd'; did you mean ptb_word or"):
        configs.config_file("ptb_wrd:small")
    with pytest.raises(UserError, match=r"known: (\w+, )*enwik8, (\w+, )*jsb, "):
        configs.config_file("xyzzy")
