"""A workdir belongs to one run."""

from pathlib import Path

import pytest
from conftest import QUIET, small

from rnnx.errors import UserError
from rnnx.train import Trainer


def test_a_workdir_of_another_run_is_refused(text: Path, tmp_path: Path) -> None:
    Trainer(small(text, epochs=1), tmp_path / "run", QUIET).run()
    before = sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*"))
    with pytest.raises(UserError, match=r"another config \(depth: 2 there, 3 here\)"):
        Trainer(small(text, epochs=1, depth=3), tmp_path / "run", QUIET)
    text.write_text(text.read_text().replace("rain sun", "sun rain"))
    with pytest.raises(UserError, match="is not the one that the run"):
        Trainer(small(text, epochs=1), tmp_path / "run", QUIET)
    assert sorted(p.read_bytes() for p in (tmp_path / "run").glob("*.json*")) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run, but other files"):
        Trainer(small(text), tmp_path / "mine", QUIET)
