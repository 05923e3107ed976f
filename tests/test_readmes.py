"""What the READMEs promise: code that runs, links and configs that exist."""

import ast
import re
from pathlib import Path

import jax
import pytest
from conftest import ROOT

from rnnx import config as configs

READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("*/*/README.md")),
]
every_readme = pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)


def blocks(path: Path) -> list[str]:
    """The Python in a README."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.M | re.S)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_each_layer_of_the_package_uses_those_above_it() -> None:
    readme = (ROOT / "rnnx" / "README.md").read_text()
    depth, layers = -1, {}
    for first, files in re.findall(r"^\| ([^|]*)\| (`[^|]*) \|", readme, re.M):
        if first.startswith("---") or "`" in first or not (depth >= 0 or first.strip()):
            continue
        depth += bool(first.strip())
        for name in re.findall(r"`(\w+)(?:\.py|/)`", files):
            layers[name] = depth
    package = ROOT / "rnnx"
    parts = {path.stem for path in package.glob("[a-z]*") if path.suffix in ("", ".py")}
    assert layers.keys() >= parts - {"__init__"}
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("rnnx"):
                continue
            used = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            for name in set(used) - {"cli", "__version__"}:
                assert layers[name] <= layers[own], f"{path.name} uses {name}"


def test_a_layer_in_ten_lines() -> None:
    (block,) = blocks(ROOT / "README.md")
    assert len(block.strip().splitlines()) <= 10
    names: dict = {}
    exec(block, names)
    assert names["ys"].shape == (8, 100, 64) and names["carry"][0].shape == (8, 64)
    assert any(abs(leaf).max() > 0 for leaf in jax.tree.leaves(names["grads"]))


@every_readme
def test_python_runs_as_printed(path: Path) -> None:
    for block in blocks(path):
        exec(block, {})


@every_readme
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, heading = link.partition("#")
        if file.startswith("https://"):
            continue
        target = path.parent / file if file else path
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M) if heading else []
        anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
        assert not heading or heading in anchors, link


@every_readme
def test_commands_name_configs_that_exist(path: Path) -> None:
    named = re.findall(r"--config=([\w:,]+?\w)(?=[\s`])", path.read_text())
    for name in named:
        if name != "FILE":
            configs.validate(configs.load(name))
