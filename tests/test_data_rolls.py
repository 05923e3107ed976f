"""Piano rolls from their MATLAB file."""

import io

import numpy as np
import pytest
from conftest import raw_data
from data_files import offer, own_cache, put, raw
from scipy.io import savemat

from rnnx import data

REAL = raw_data()


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    own_cache(monkeypatch, tmp_path)


def test_rolls_come_back_piece_by_piece(tmp_path, monkeypatch):
    """Prepared, and read again from the prepared copy; the longest split fills two records."""
    rng = np.random.default_rng(0)
    pieces = {
        split: [(rng.random((steps, 88)) < 0.1).astype(np.uint8) for steps in lengths]
        for split, lengths in {"train": (700, 1, 90), "valid": (7, 7), "test": (5,)}.items()
    }
    cells = {}
    for split, made in pieces.items():
        cells[f"{split}data"] = np.empty((1, len(made)), object)
        cells[f"{split}data"][0] = made
    savemat(file := io.BytesIO(), cells)
    offer(monkeypatch, "jsb", [raw("JSB_Chorales.mat", file.getvalue())], (791, 14, 5, 88))
    put(tmp_path, {"JSB_Chorales.mat": file.getvalue()})
    said = []
    for _ in range(2):
        corpus = data.load("jsb", "word", str(tmp_path), said.append)  # which has its own level
        assert corpus.level == corpus.vocabulary.level == "roll"
        assert corpus.vocabulary.symbols == tuple(range(21, 109))
        for split, made in pieces.items():
            found = getattr(corpus, split)
            assert found.frames.dtype == np.uint8 and len(found.pieces) == len(made)
            assert all(np.array_equal(a, b) for a, b in zip(found.pieces, made, strict=True))
    assert len(said) == 1


@pytest.mark.skipif(
    not REAL or not (REAL.parent / "JSB_Chorales.mat").exists(),
    reason="needs JSB_Chorales.mat: set RNNX_DATA to its folder",
)
def test_real_chorales():
    corpus = data.load("jsb", data_dir=str(REAL.parent))
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [13_807, 4_602, 4_725]
    assert [len(s.ends) for s in (corpus.train, corpus.valid, corpus.test)] == [229, 76, 77]
    assert corpus.train.frames.max() == 1 and corpus.train.pieces[0].shape == (129, 88)
