"""What a network loses on each sequence and stretch of text, by hand; floors on real data."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import full, write_text
from kinds_made import DATA, kind_of, needs, predicting, run_of

from rnnx import model
from rnnx.compare.kind import Kind
from rnnx.data.series import Scaling
from rnnx.report.significance import scores
from rnnx.tasks import floors, network
from rnnx.trained import Run

STRETCH = 1000  # targets of a text


# ---------------------------------------------------------------------------- sequences


@pytest.fixture
def labelled(tmp_path) -> Callable[..., Kind]:
    """60 sequences of 5 steps, with classes or numbers."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5, 2)).astype(np.float32), np.arange(60) % 3
    numbers = rng.normal(100, 20, 60)

    def made(task: str, **fields) -> Kind:
        np.savez(tmp_path / "own.npz", x=x, y=y if task == "classify" else numbers)
        return kind_of(task, corpus=str(tmp_path / "own.npz"), **fields)

    return made


def test_classes_are_scored_by_their_error_rate(labelled, monkeypatch):
    kind = labelled("classify", batch_size=5)
    n = len(kind.labels)
    assert n >= 10 and kind.metric == "error rate" and not kind.root
    guess = (kind.labels + (np.arange(n) % 4 == 0)) % 3  # every fourth is wrong

    def certain(batch: dict) -> dict:
        of = guess[np.minimum(batch["index"], n - 1)]
        p = np.where(np.arange(3) == of[:, None], 0.8, 0.1)
        p[batch["weight"] == 0] = 9.0  # padding must not count
        return {"probabilities": p}

    predicting(monkeypatch, certain)
    items = kind.items(run_of(kind))
    wrong = (np.arange(n) % 4 == 0).astype(float)
    assert items.total.tolist() == wrong.tolist()
    assert kind.score(items) == pytest.approx(wrong.mean())
    assert kind.block.tolist() == list(range(n)) and kind.count.tolist() == [1] * n
    assert items.metrics["accuracy"] == pytest.approx(1 - wrong.mean())
    nats = -np.log([0.1 if w else 0.8 for w in wrong]).mean()
    assert items.metrics["log loss"] == pytest.approx(nats)
    assert 0 < items.metrics["macro F1"] < 1
    drawn = kind.examples(run_of(kind))["confusion"]
    assert [str(c) for c in drawn["classes"]] == ["0", "1", "2"]
    for a, b in np.ndindex(3, 3):
        assert drawn["matrix"][a][b] == ((kind.labels == a) & (guess == b)).sum()
    found = dict(kind.floors())
    train = kind.dataset.splits["train"].whole["targets"]
    most = np.bincount(train).argmax()
    assert found["most frequent class"].total.tolist() == (kind.labels != most).tolist()
    test, near = (kind.dataset.splits[s].each("inputs") for s in ("test", "train"))
    d = [[((a - b) ** 2).sum() for b in near] for a in test]
    expected = train[np.argmin(d, axis=1)] != kind.labels
    assert found["1-nearest neighbour"].total.tolist() == expected.tolist()


def test_numbers_are_scored_by_their_root_mean_square(labelled, monkeypatch):
    kind = labelled("regress", batch_size=5)
    n = len(kind.truth)
    assert kind.metric == "RMSE" and kind.root
    assert 50 < kind.truth.mean() < 150  # own units
    errors = np.linspace(-3, 5, n)
    predicting(
        monkeypatch,
        lambda b: {"number": (kind.truth + errors)[np.minimum(b["index"], n - 1)]
                   + 1e6 * (b["weight"] == 0)},
    )  # fmt: skip
    items = kind.items(run_of(kind))
    np.testing.assert_allclose(items.total, errors**2, atol=1e-3)
    assert kind.score(items) == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
    np.testing.assert_allclose(scores(kind.losses([items])), [kind.score(items)])
    assert items.metrics == pytest.approx(
        {"RMSE": kind.score(items), "MAE": np.abs(errors).mean()}, rel=1e-4
    )
    drawn = kind.examples(run_of(kind))["scatter"]
    assert np.subtract(drawn["predicted"], drawn["truth"]) == pytest.approx(errors, abs=1e-3)
    found = dict(kind.floors())
    scaling = Scaling.from_json(kind.dataset.spec["target"])  # its mean is that of training
    np.testing.assert_allclose(found["mean"].total, (scaling.mean[0] - kind.truth) ** 2, rtol=1e-4)
    assert np.isfinite(found["least squares, last step"].total).all()


# ---------------------------------------------------------------------------- text


@pytest.mark.parametrize("level", ["char", "word"])
def test_text_is_scored_in_bits_by_stretches(level, tmp_path, monkeypatch):
    text = write_text(tmp_path / "weather.txt").read_text()
    (tmp_path / "long.txt").write_text(text * 8)
    kind = kind_of("language", corpus=str(tmp_path / "long.txt"), level=level)
    assert kind.metric == {"char": "bits per character", "word": "bits per word"}[level]
    tokens = np.asarray(kind.dataset.splits["test"])
    n = len(tokens) - 1
    assert kind.targets == n and kind.block.tolist() == list(range(-(-n // STRETCH)))
    price = np.linspace(0.5, 2.5, kind.dataset.spec.size)  # nats of each symbol
    predicting(monkeypatch, lambda b: {"nll": price[b["targets"]] + 1e6 * (b["weight"] == 0)})
    items = kind.items(run_of(kind))
    nats = price[tokens[1:]]
    stretches = [nats[i : i + STRETCH].sum() / np.log(2) for i in range(0, n, STRETCH)]
    np.testing.assert_allclose(items.total, stretches, rtol=1e-5)
    assert kind.count.tolist() == [len(nats[i : i + STRETCH]) for i in range(0, n, STRETCH)]
    assert kind.score(items) == pytest.approx(nats.mean() / np.log(2), rel=1e-5)
    assert items.metrics == pytest.approx(
        {"bits": nats.mean() / np.log(2), "perplexity": np.exp(nats.mean())}, rel=1e-5
    )
    found = dict(kind.floors())
    order = {"char": 7, "word": 5}[level]
    train = np.asarray(kind.dataset.splits["train"])
    for name, n_of in (("symbol frequencies", 1), (f"{order}-gram", order)):
        mean = floors.ngram(train, tokens, kind.dataset.spec.size, n_of).mean() / np.log(2)
        assert kind.score(found[name]) == pytest.approx(mean)


def test_a_text_is_read_from_its_first_symbol_to_its_last(tmp_path):
    """As by the protocol `full`: no window forgets those before it."""
    text = write_text(tmp_path / "weather.txt").read_text()
    (tmp_path / "long.txt").write_text(text * 4)
    kind = kind_of("language", corpus=str(tmp_path / "long.txt"), level="char", init_scale=0.7)
    graphdef, params = model.split(network.build(kind.config, kind.dataset.spec))
    run = Run(tmp_path, kind.config, kind.task, kind.dataset.spec, graphdef, params, {})
    assert kind.targets > 2 * 256  # the steps of a window
    nats, targets = full(graphdef, params, kind.dataset.splits["test"])
    assert kind.score(kind.items(run)) == pytest.approx(nats / targets / np.log(2), rel=1e-5)


# ---------------------------------------------------------------------------- real data


@needs("cmapss")
def test_the_floors_of_cmapss_to_the_last_printed_digit():
    kind = kind_of("regress", corpus="cmapss", data_dir=str(DATA))
    found = dict(kind.floors())
    assert f"{kind.score(found['mean']):.1f}" in ("41.9", "41.8", "42.0")
    assert found["mean"].metrics["C-MAPSS score"] > 1e4
    assert kind.score(found["least squares, last step"]) == pytest.approx(20.8, abs=0.3)
