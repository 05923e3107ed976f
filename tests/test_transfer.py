"""Vectors judged by classifiers: what is planted is found, what is not there is not."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import QUIET, ROOT, call_module, train
from test_sentences import M, network, small, write_books

from rnnx import model
from rnnx.data import sentence_sets
from rnnx.data.sentence_sets import Classes, Pairs
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.tasks import transfer
from rnnx.tasks.vectors import Encoder

DATA = Path(os.environ.get("RNNX_DATA", ROOT.parent / "shared" / "data"))
real = pytest.mark.skipif(
    not (DATA / "sentences").is_dir(), reason="the sets are not there: set RNNX_DATA"
)


def features_of(x: np.ndarray):
    return lambda texts, train: x


@pytest.fixture
def few_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 910 fits a set, 21."""
    monkeypatch.setattr(transfer, "COSTS", [1.0, 64.0])
    monkeypatch.setattr(transfer, "FOLDS", 3)


def test_separable_classes_are_told_and_shuffled_ones_are_not(few_fits: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    labels = (x[:, 0] + 0.5 * x[:, 1] > 0).astype(int)
    texts = [""] * len(x)
    assert np.mean(list(transfer._nested(features_of(x), texts, labels))) > 0.97
    shuffled = rng.permutation(labels)
    assert 0.3 < np.mean(list(transfer._nested(features_of(x), texts, shuffled))) < 0.65
    third = np.where(x[:, 2] > 0.5, 2, labels)
    rows = np.arange(len(x))
    assert transfer._tested(x, third, rows[:150], rows[150:]) > 0.9


def test_the_cost_is_the_one_that_is_best_by_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest gives the more frequent class to all."""
    monkeypatch.setattr(transfer, "COSTS", [1e-6, 64.0])
    x = np.random.default_rng(0).normal(size=(90, 2))
    labels = (x[:, 0] > 0.5).astype(int)
    assert transfer._tested(x, labels, np.arange(60), np.arange(60, 90)) > 0.9


@pytest.mark.parametrize("wide", [False, True])
def test_each_cost_has_its_own_minimum(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm starts change nothing: as scikit-learn alone, C by C, by either solver."""
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(transfer, "_DENSE", 3 if wide else 1000)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(90, 5)) / 5**0.5
    labels = (x @ rng.normal(size=5) + 0.4 * rng.normal(size=90) > 0).astype(int)
    found = transfer.predicted(x[:60], labels[:60], x[60:], transfer.COSTS)
    for cost, own in zip(transfer.COSTS, found, strict=True):
        alone = LogisticRegression(C=cost, tol=1e-8, max_iter=10_000).fit(x[:60], labels[:60])
        assert (alone.predict(x[60:]) == own).all()
    assert len({tuple(own) for own in found}) > 1


def names_of(count: int) -> tuple[list[str], np.ndarray]:
    """Texts whose one feature is the number of their row."""
    return [str(i) for i in range(count)], np.arange(count) % 2


def numbers(texts: list[str], _: object) -> np.ndarray:
    return np.array([[float(text)] for text in texts])


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set, set]]:
    """The rows of each call of `predicted`: learned from, and told."""
    seen: list[tuple[set, set]] = []

    def predicted(x: np.ndarray, labels: np.ndarray, unseen: np.ndarray, costs: list) -> np.ndarray:
        assert (labels == x[:, 0] % 2).all()
        seen.append((set(x[:, 0]), set(unseen[:, 0])))
        return np.zeros((len(costs), len(unseen)), int)

    monkeypatch.setattr(transfer, "predicted", predicted)
    return seen


def test_folds_learn_from_other_rows_than_they_are_tested_on(
    fits: list[tuple[set, set]], few_fits: None
) -> None:
    texts, labels = names_of(30)
    masks = []

    def features(texts: list[str], train: np.ndarray) -> np.ndarray:
        masks.append(set(np.flatnonzero(train)))
        return numbers(texts, train)

    assert len(list(transfer._nested(features, texts, labels))) == len(masks) == 3
    tested = set()
    for mask, begin in zip(masks, range(0, len(fits), 4), strict=True):
        *inner, (train, test) = fits[begin : begin + 4]
        assert train == mask and train | test == set(range(30)) and not train & test
        for learned, told in inner:  # the choice of C
            assert learned | told == train and not learned & told
        assert len(set.union(*(told for _, told in inner))) == sum(len(t) for _, t in inner) == 20
        tested |= test
    assert tested == set(range(30))


def test_a_test_part_is_told_once_and_never_learned_from(
    fits: list[tuple[set, set]], few_fits: None
) -> None:
    texts, labels = names_of(30)
    sick = pairs(40, np.linspace(1, 5, 40))
    sick = sick._replace(first=[str(i / 40) for i in range(40)], second=["0"] * 40)
    sets = sentence_sets.Sets({"TREC": sentence_sets.Classes(texts, labels, 6)}, sick)
    transfer.judged("", numbers, sets, QUIET)
    *inner, (train, test) = fits
    assert test == set(range(24, 30)) and train == set(range(24)) and len(inner) == 3
    assert all(learned | told == train and not learned & told for learned, told in inner)


def test_pairs_are_learned_from_their_part_and_stopped_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import scipy.stats

    learned, looked, step, pearsonr = set(), [], transfer._Adam.step, scipy.stats.pearsonr

    def spied(self: transfer._Adam, x: np.ndarray, targets: np.ndarray) -> None:
        learned.update(x[:, 0])
        step(self, x / 40, targets)

    def watched(guess: np.ndarray, told: np.ndarray) -> object:
        looked.append(told)
        return pearsonr(guess, told)

    monkeypatch.setattr(transfer._Adam, "step", spied)
    monkeypatch.setattr(scipy.stats, "pearsonr", watched)
    count, rng = 40, np.random.default_rng(0)
    own = pairs(count, rng.uniform(1, 5, count))
    own = own._replace(first=[str(i) for i in range(count)], second=["0"] * count)
    transfer.related(numbers, own)
    assert learned == set(np.flatnonzero(own.part == 0))
    *stops, last = looked
    assert stops and all((told == own.scores[own.part == 1]).all() for told in stops)
    assert (last == own.scores[own.part == 2]).all()


def test_the_floor_s_words_are_those_of_the_training_part() -> None:
    texts = ["rain came", "rain came", "wind went", "wind went"]
    found = transfer._tfidf(texts, np.array([True, True, False, False])).toarray()
    assert found.shape == (4, 3) and found[:2].all() and not found[2:].any()
    once = transfer._tfidf(["rain came", "rain went"], np.array([True, True]))
    assert once.shape == (2, 1)  # what comes once is no word of it


def test_vectors_are_computed_once_for_all_folds(few_fits: None) -> None:
    texts, labels = names_of(30)
    calls = []

    def vectors(texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        return numbers(texts, None).astype(np.float32)

    list(transfer._nested(transfer._once(vectors), texts, labels))
    assert calls == [30]


def test_labels_of_pairs_have_the_score_as_their_mean() -> None:
    scores = np.array([1.0, 2.3, 4.95, 5.0])
    found = transfer.soft(scores)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found @ np.arange(1, 6), scores)
    np.testing.assert_allclose(found[1], [0, 0.7, 0.3, 0, 0])


def pairs(count: int, score: np.ndarray) -> Pairs:
    part = np.repeat([0, 1, 2], [count - 2 * (count // 4), count // 4, count // 4])
    return Pairs([""] * count, [""] * count, score, part)


def test_relatedness_that_the_vectors_hold_is_found() -> None:
    rng = np.random.default_rng(2)
    u, v = (rng.normal(size=(400, 3)) for _ in range(2))
    score = 5 - np.minimum(abs(u - v).sum(axis=1), 4)
    both = np.concatenate([u, v]).astype(np.float32)
    found = transfer.related(features_of(both), pairs(400, score))
    assert found["Pearson"] > 0.85 and found["Spearman"] > 0.8 and found["MSE"] < 0.5
    found = transfer.related(features_of(both), pairs(400, rng.permutation(score)))
    assert abs(found["Pearson"]) < 0.3


def test_relatedness_that_only_the_product_holds_is_found() -> None:
    """Of equal vectors: their difference is 0, and their sum has either sign."""
    u = np.random.default_rng(3).choice([-2.0, 0.0, 2.0], size=(200, 1), p=[0.25, 0.5, 0.25])
    found = transfer.related(features_of(np.concatenate([u, u])), pairs(200, 1 + u[:, 0] ** 2))
    assert found["Pearson"] > 0.99


def test_what_was_best_for_the_development_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test part has the same pairs here, so that the same guess belongs to both."""
    import scipy.stats

    pearsonr, looked, rng = scipy.stats.pearsonr, [], np.random.default_rng(0)

    def watched(guess: np.ndarray, told: np.ndarray) -> object:
        looked.append((guess, pearsonr(guess, told)[0]))
        return pearsonr(guess, told)

    monkeypatch.setattr(scipy.stats, "pearsonr", watched)
    own, x = pairs(40, rng.uniform(1, 5, 40)), rng.normal(size=(2, 40, 3))
    x[:, 30:], own.scores[30:] = x[:, 20:30], own.scores[20:30]

    def features(texts: list[str], train: np.ndarray) -> np.ndarray:
        assert train.tolist() == 2 * (own.part == 0).tolist()
        return np.concatenate(x)

    found = transfer.related(features, own)
    *stops, (before, best), (after, worse), (kept, last) = looked
    assert worse <= best == last == found["Pearson"] and all(r < best for _, r in stops)
    assert (kept == before).all() and (kept != after).any()
    assert found["MSE"] == pytest.approx(np.mean((kept - own.scores[30:]) ** 2))
    assert found["Spearman"] == pytest.approx(scipy.stats.spearmanr(kept, own.scores[30:])[0])


def test_steps_are_those_of_adam() -> None:
    rng = np.random.default_rng(0)
    ours, optimizer = transfer._Adam(4, 5), optax.adam(transfer._RATE)
    w, state = jnp.zeros((5, 5)), optimizer.init(jnp.zeros((5, 5)))

    def cost(w: jax.Array, x: np.ndarray, targets: np.ndarray) -> jax.Array:
        return optax.softmax_cross_entropy(x @ w[:-1] + w[-1], targets).mean()

    for rows in 10 * (6, 2):  # a batch may be short
        x, targets = rng.normal(size=(rows, 4)), transfer.soft(rng.uniform(1, 5, rows))
        ours.step(x, targets)
        moved, state = optimizer.update(jax.grad(cost)(w, x, targets), state)
        w = w + moved
    np.testing.assert_allclose(ours.w, w, atol=2e-6)


def encoder_of(scale: float) -> Encoder:
    """An encoder that was not trained, with word vectors so large."""
    graphdef, params = model.split(network(dtype="float32"))
    known = Vocabulary("word", ("<eos>", "<unk>", "a", "b", "c", "d", "e"))
    return Encoder(graphdef, params | {"embedding": scale * params["embedding"]}, known)


def test_means_of_word_vectors_are_of_the_words_alone() -> None:
    encoder = encoder_of(1.0)
    found = transfer._means(encoder, ["a b b", "", "c zebra"])
    for row, ids in zip(found, ([2, 3, 3], [], [4, 1]), strict=True):
        mean = encoder.words[ids].mean(axis=0) if ids else np.zeros(M)
        np.testing.assert_allclose(row, mean / (np.linalg.norm(mean) or 1), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_vectors_are_of_all_encoders_and_word_means_of_the_first(
    few_fits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one knows no word from another. The floor is that of the very sets."""
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    rng, labels = np.random.default_rng(0), np.arange(36) % 2
    sick = pairs(40, rng.uniform(1, 5, 40))._replace(first=["a"] * 40, second=["b", "c"] * 20)
    sets = sentence_sets.Sets({"X": Classes(["a b", "c d"] * 18, labels)}, sick)
    encoders = [encoder_of(0.0), encoder_of(5.0)]
    found = transfer.score(None, {}, None, None, "test", QUIET, sets=sets, encoders=encoders)
    right = {name: value for name, (value, _) in found.items()}
    assert right["X"] == right["X tf-idf"] == 1 and right["X word mean"] < 0.8
    sets.classes["X"] = Classes(sets.classes["X"].texts, rng.permutation(labels))
    assert transfer._kept_floor(sets, QUIET)["X"] < 0.8


def test_the_table_has_percent_of_accuracies_alone() -> None:
    scores = {"MR": 0.8, "SICK MSE": 0.25, "MR word mean": 0.7, "SICK MSE word mean": 0.5,
              "MR tf-idf": 0.75, "SICK MSE tf-idf": 0.125}  # fmt: skip
    assert [line.split() for line in transfer.table(scores).splitlines()] == [
        ["set", "this", "run", "tf-idf", "word", "mean"],
        ["MR", "80.0", "75.0", "70.0"],
        ["SICK", "MSE", "0.2500", "0.1250", "0.5000"],
    ]


def write_sets(home: Path) -> Path:
    """Small sets of that form: the class is a day of the books."""
    folder = home / "sentences"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def lines(day: str, count: int = 15) -> list[str]:
        return [f"on {day} came {rng.choice(['rain', 'wind', 'snow'])} ." for _ in range(count)]

    for _, true, false in sentence_sets._CLASSES.values():
        (folder / true).write_text("\n".join(lines("monday")) + "\n\n")
        # \x85 is a character of Latin-1 that ends a line elsewhere.
        (folder / false).write_bytes(
            "\n".join([*lines("friday"), "friday \x85 came"]).encode("latin-1")
        )
    for name in ("TREC.train", "TREC.test"):
        asked = [f"A:x {s}" for s in lines("monday")] + [f"B:y {s}" for s in lines("sunday")]
        (folder / name).write_text("\n".join(asked))
    for name in sentence_sets._SICK[1:]:
        rows = ["pair_ID\tsentence_A\tsentence_B\trelatedness_score\tjudgment"]
        for i, (a, b) in enumerate(zip(lines("monday", 20), lines("friday", 20), strict=True)):
            rows.append(
                f"{i}\t{a}\t{a if i % 2 else b}\t{rng.normal(4 if i % 2 else 2, 0.4):.2f}\tNEUTRAL"
            )
        (folder / name).write_text("\n".join(rows))
    return home


def test_the_command_prints_a_table_and_keeps_it(few_fits: None, tmp_path: Path) -> None:
    home = write_sets(tmp_path / "data")
    run = tmp_path / "run"
    train(small(write_books(tmp_path / "books"), epochs=1), run)
    done = call_module("evaluate", f"--workdir={run}", "--protocol=transfer",
                       f"--data_dir={home}", f"--beside={run}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused = call_module("evaluate", f"--workdir={run}", "--protocol=transfer", "--split=valid")
    assert refused.returncode == 2 and "leave --split out" in refused.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("test transfer, ") and lines[1].split() == [
        "set", "this", "run", "tf-idf", "word", "mean",
    ]  # fmt: skip
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "MR", "CR", "SUBJ", "MPQA", "TREC", "SICK Pearson", "SICK Spearman", "SICK MSE",
    ]  # fmt: skip
    (kept,) = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    assert kept["protocol"] == "transfer" and kept["beside"] == str(run)
    # The words say it all: every classifier of words is right.
    assert kept["MR tf-idf"] == kept["TREC word mean"] == kept["TREC tf-idf"] == 1.0
    assert kept["SICK Pearson tf-idf"] > 0.8 and 0 <= kept["MR"] <= 1


def test_sets_that_are_not_there_are_told_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rt-polarity.pos is not there.*MR, https://www.cs.corn"):
        sentence_sets.read(str(tmp_path))
    home = write_sets(tmp_path)
    (home / "sentences" / "SICK_trial.txt").write_text("head\n1\ta\tb\tx\n")
    with pytest.raises(UserError, match=r"SICK_trial\.txt.* is no pair with a score"):
        sentence_sets.read(str(home))
    (home / "sentences" / "TREC.test").write_text("what ?\n")
    with pytest.raises(UserError, match=r"'what \?' is not CLASS:kind"):
        sentence_sets.read(str(home))


@real
def test_the_sets_have_their_published_sizes() -> None:
    found = sentence_sets.read(str(DATA))
    sizes = {name: np.bincount(own.labels).tolist() for name, own in found.classes.items()}
    assert sizes["MR"] == [5331, 5331] and sizes["CR"] == [1366, 2405]  # and 4 empty lines
    assert sizes["SUBJ"] == [5000, 5000] and sizes["MPQA"] == [7292, 3311]  # and 3
    assert sum(sizes["TREC"]) == 5952 and found.classes["TREC"].test == 500
    assert len(sizes["TREC"]) == 6
    assert np.bincount(found.sick.part).tolist() == [4500, 500, 4927]
