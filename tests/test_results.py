"""The tables of the results are those of the data files."""

from pathlib import Path

import pytest
from conftest import ROOT

from rnnx import config as configs
from rnnx.report import runs
from rnnx.report.gaps import gaps, gaps_table
from rnnx.report.tables import TABLES

KINDS = {
    "depth": "rhn_depth",
    "depth_long": "rhn_depth",
    "mi": "mi_char",
    "range": "mi_range",
    "optimization": "optimization",
    "mi_trained": "gaps",
    "speech": "gaps",
    "babi": "babi",
    "own_char": "mi_char",
    "own_word": "rhn_depth",
}
RESULTS = ROOT / "notebooks" / "results"
FILES = [RESULTS / f"{name}.json" for name in KINDS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_readme_has_the_table_of_the_data_file(path: Path) -> None:
    found, kind = runs.from_file(path), KINDS[path.stem]
    if kind == "gaps":
        table = gaps_table(gaps(found, "integration=additive"), "integration=additive")
    else:
        table = TABLES[kind](found)
    rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
    readme = (RESULTS / "README.md").read_text()
    for row in rows:
        assert row in readme, f"{path.name} has another row: {row}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_says_how_it_was_made(path: Path) -> None:
    for run in runs.from_file(path):
        assert run.command.startswith("python -m rnnx.train --config=configs/"), run.name
        assert run.git and not run.git.endswith("-dirty"), run.name
        assert run.device and run.params > 0 and (run.seconds or not run.complete), run.name
        assert run.complete or path.stem == "optimization", run.name  # there some diverge
        configs.validate(configs.from_json({"format": configs.FORMAT, **run.config}, run.name))
