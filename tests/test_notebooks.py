"""Every notebook runs as it is, in a minute (long), and is committed with what it prints."""

import json
import sys
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, one_device
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names >= {"01_cells", "02_own_model", "03_analysis", "04_export", "reproduce_tables"}


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XLA_FLAGS", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    begun = time.monotonic()
    place = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=240, resources=place).execute(env=one_device())
    assert time.monotonic() - begun < 240
    pictures = sum("image/png" in output.get("data", {}) for output in _outputs(notebook))
    assert pictures >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells), "run it, and save it with its outputs"
    assert not any(output["output_type"] == "error" for output in _outputs(notebook))
    assert not any(str(folder) in path.read_text() for folder in (ROOT, Path.home(), sys.prefix))


def _outputs(notebook: dict) -> list[dict]:
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return [output for cell in cells for output in cell["outputs"]]
