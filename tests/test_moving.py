"""A half-finished run continues on another machine: a tar of its workdir is enough."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import QUIET, equal, killed_after, lines_of, outcome, small

from rnnx import trainer
from rnnx.data.catalogue import SOURCES
from rnnx.experiment import Experiment


def moved(folder: Path, target: Path) -> Path:
    """Packs a workdir with tar, unpacks it below target, and removes the original."""
    target.mkdir()
    archive = target / "run.tar"
    subprocess.run(["tar", "-cf", archive, "-C", folder.parent, folder.name], check=True)
    subprocess.run(["tar", "-xf", archive, "-C", target], check=True)
    archive.unlink()
    shutil.rmtree(folder)
    return target / folder.name


def test_an_unpacked_run_resumes_to_the_same_bits(text: Path, tmp_path: Path) -> None:
    """Under another path, with the corpus, a file of the user's own, under another path too."""
    fields = {"checkpoint_every": 5, "patience": 1, "optimizer": "adam", "learning_rate": 0.01}
    whole = Experiment(small(text, **fields), tmp_path / "whole", QUIET)
    result = trainer.run(whole)
    per_epoch = len(whole.batches)
    killed_after(small(text, **fields), tmp_path / "run", per_epoch + 6)  # in the second epoch
    folder = moved(tmp_path / "run", tmp_path / "elsewhere")
    place = tmp_path / "elsewhere" / "data" / text.name
    place.parent.mkdir()
    text.rename(place)
    config = small(place, data_dir=str(tmp_path / "elsewhere" / "raw"), **fields)
    resumed = Experiment(config, folder, QUIET)
    assert outcome(trainer.run(resumed)) == outcome(result)
    assert equal(resumed.state, whole.state)
    assert lines_of(folder) == lines_of(tmp_path / "whole")
    steps = [line["step"] for line in lines_of(folder) if line["kind"] == "step"]
    assert steps == list(range(1, 3 * per_epoch + 1))
    config.data_dir = ""
    assert trainer.run(Experiment(config, folder, QUIET))["epoch"] == result["epoch"]  # complete


@pytest.mark.long
def test_a_built_in_corpus_may_lie_in_another_data_dir(
    real_data: Path, tmp_path: Path, monkeypatch
) -> None:
    fields = dict(max_steps=24, epochs=1, eval_tokens=200, checkpoint_every=5, hidden_size=8)
    config = small(Path("ptb_word"), level="word", tied=True, data_dir=str(real_data), **fields)
    whole = Experiment(config, tmp_path / "whole", QUIET)
    result = trainer.run(whole)
    killed_after(config, tmp_path / "run", 12)
    folder = moved(tmp_path / "run", tmp_path / "elsewhere")
    data = tmp_path / "elsewhere" / "data"
    data.mkdir()
    for raw in SOURCES["ptb_word"].files:
        shutil.copy(real_data / raw.name, data)
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "elsewhere" / "cache"))  # nothing prepared
    config = small(Path("ptb_word"), level="word", tied=True, data_dir=str(data), **fields)
    resumed = Experiment(config, folder, QUIET)
    assert outcome(trainer.run(resumed)) == outcome(result)
    assert equal(resumed.state, whole.state)
