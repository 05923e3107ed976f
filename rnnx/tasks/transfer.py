"""Sentence vectors judged by what linear classifiers learn from them: the protocol `transfer`.

As in the skip-thought authors' evaluation (`eval_*.py` of ryankiros/skip-thoughts):

    MR, CR, SUBJ, MPQA   accuracy by 10 folds; C of 2^0 .. 2^8 by 10 folds inside of each
    TREC                 accuracy on its test part; C by 10 folds of the other
    SICK                 Pearson, Spearman, squared error of the mean of a softmax over 1 .. 5,
                         from |u - v| and u * v; stopped by Pearson on the development part

Logistic regression is scikit-learn's; of several classes each is told from the others, as liblinear
did for the authors. Folds and order are theirs, drawn by seed 1234. Their files had MSRP too.

Two floors go through the same: TF-IDF of 1- and 2-grams (words at white space that come twice or
more; fitted to the training part of each outer fold), and the mean of the run's own word vectors.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnx import cache
from rnnx.data.sentence_sets import Pairs, Sets
from rnnx.data.sentences import words
from rnnx.tasks.task import Sums
from rnnx.tasks.vectors import Encoder

SEED = 1234
_RULES = 1  # of the floor TF-IDF: another number computes it anew
COSTS = [2.0**t for t in range(9)]
FOLDS = 10
FLOORS = ("tf-idf", "word mean")
_DENSE = 1000  # numbers up to which Newton's method is the faster one
_EPOCHS, _ROWS, _RATE = 100, 128, 1e-3  # of Adam between two looks at the development part
# Texts, and which of them may be learned from, to features (N, F).
Features = Callable[[list[str], np.ndarray], Any]


def score(
    graphdef: Any,
    params: dict[str, Any],
    config: Any,
    dataset: Any,
    split: str,
    display: Any,
    *,
    sets: Sets,
    encoders: list[Encoder],
) -> Sums:
    """Each set's scores: of the vectors of all encoders side by side, under the set's name, and of
    the floors."""
    kinds: dict[str, Features] = {
        "": _once(lambda texts: _vectors(encoders, texts)),
        "word mean": _once(lambda texts: _means(encoders[0], texts)),
    }
    found = {kind: judged(kind, features, sets, display) for kind, features in kinds.items()}
    found["tf-idf"] = _kept_floor(sets, display)
    return {
        f"{name} {kind}".strip(): (value, 1.0)
        for kind, own in found.items()
        for name, value in own.items()
    }


def judged(kind: str, features: Features, sets: Sets, display: Any) -> dict[str, float]:
    """The scores of one kind of features on all sets, by name."""
    display.start(f"transfer {kind}".strip(), FOLDS * len(sets.classes) + 1)
    done, found = 0, {}
    for name, (texts, labels, test) in sets.classes.items():
        if test:
            train = np.arange(len(texts)) < len(texts) - test
            order = np.random.RandomState(SEED).permutation(np.flatnonzero(train))
            right = [_tested(features(texts, train), labels, order, np.flatnonzero(~train))]
            done += FOLDS
        else:
            right = []
            for fold in _nested(features, texts, labels):
                right.append(fold)
                done += 1
                display.update(done, name)
        found[name] = float(np.mean(right))
    found |= {f"SICK {name}": value for name, value in related(features, sets.sick).items()}
    display.finish()
    return found


def _kept_floor(sets: Sets, display: Any) -> dict[str, float]:
    """The scores of TF-IDF, which no run changes: computed once, and kept in the cache."""
    from sklearn import __version__ as version  # of the extra `sentences`

    arrays = [*sets.classes.values(), sets.sick]
    plain = [[a.tolist() if isinstance(a, np.ndarray) else a for a in own] for own in arrays]
    asked = json.dumps([plain, version, COSTS, FOLDS, SEED, _RULES])
    key = hashlib.sha256(asked.encode()).hexdigest()
    home = cache.root() / "transfer" / f"tf-idf-{key[:16]}.json"
    if not home.exists():
        found = judged("tf-idf", _tfidf, sets, display)
        cache.keep(home, json.dumps(found))
    return json.loads(home.read_text(encoding="utf-8"))


def table(scores: dict[str, float]) -> str:
    """What `score` found, a row a set: accuracies in percent."""
    names = list(dict.fromkeys(_without_floor(name) for name in scores))
    lines = ["set".ljust(16) + "".join(head.rjust(12) for head in ("this run", *FLOORS))]
    for name in names:
        values = [scores[f"{name} {kind}".strip()] for kind in ("", *FLOORS)]
        shown = (f"{v:.4f}" if " " in name else f"{100 * v:.1f}" for v in values)
        lines.append(name.ljust(16) + "".join(value.rjust(12) for value in shown))
    return "\n".join(lines)


def _without_floor(name: str) -> str:
    for floor in FLOORS:
        name = name.removesuffix(f" {floor}")
    return name


# ---------------------------------------------------------------------------- features


def _once(vectors: Callable[[list[str]], np.ndarray]) -> Features:
    """Features that are the same whatever may be learned from: computed once for all folds."""
    asked, found = None, None

    def features(texts: list[str], _: np.ndarray) -> np.ndarray:
        nonlocal asked, found
        if texts is not asked:
            # In float32 the Hessian of vectors that are nearly equal is singular.
            asked, found = texts, vectors(texts).astype(np.float64)
        return found

    return features


def _vectors(encoders: list[Encoder], texts: list[str]) -> np.ndarray:
    parted = [words(text) for text in texts]
    return np.concatenate([encoder.vectors(parted) for encoder in encoders], axis=1)


def _means(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """Means of word vectors, of unit length too."""
    found = np.zeros((len(texts), encoder.words.shape[1]), np.float32)
    for row, text in zip(found, texts, strict=True):
        if ids := encoder.ids(words(text))[:-1]:
            row[:] = encoder.words[ids].mean(axis=0)
            row /= max(np.linalg.norm(row), np.finfo(np.float32).tiny)
    return found


def _tfidf(texts: list[str], train: np.ndarray) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # of the extra `sentences`

    tfidf = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=2, dtype=np.float32)
    tfidf.fit([texts[i] for i in np.flatnonzero(train)])
    return tfidf.transform(texts)


# ---------------------------------------------------------------------------- classes


def _nested(features: Features, texts: list[str], labels: np.ndarray) -> Any:
    """The accuracy of each outer fold."""
    order = np.arange(len(texts))
    np.random.RandomState(SEED).shuffle(order)
    for held in np.array_split(order, FOLDS):
        train = ~np.isin(np.arange(len(texts)), held)
        x = features(texts, train)
        yield _tested(x, labels, order[train[order]], held)


def _tested(x: Any, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on test, with the C that is best by folds of train."""
    right = np.zeros(len(COSTS))
    for held in np.array_split(train, FOLDS):
        rest = train[~np.isin(train, held)]
        found = predicted(x[rest], labels[rest], x[held], COSTS)
        right += (found == labels[held]).mean(axis=1)
    best = COSTS[int(right.argmax())]
    return float((predicted(x[train], labels[train], x[test], [best]) == labels[test]).mean())


def predicted(x: Any, labels: np.ndarray, unseen: Any, costs: list[float]) -> np.ndarray:
    """Labels of unseen rows by logistic regression, (C, M), for each C of rising costs.

    Each starts where the one before has ended: the minimum is the same, and is found sooner.
    """
    from sklearn.linear_model import LogisticRegression  # of the extra `sentences`

    solver = "newton-cholesky" if x.shape[1] <= _DENSE else "lbfgs"
    classes, found = np.unique(labels), []
    for label in classes[1:] if len(classes) <= 2 else classes:
        # By the default tolerance the next C would stop where it starts.
        model = LogisticRegression(solver=solver, warm_start=True, max_iter=1000, tol=1e-6)
        own = []
        for cost in costs:
            model.set_params(C=cost).fit(x, labels == label)
            own.append(model.decision_function(unseen))
        found.append(own)
    if len(found) == 1:
        return classes[(np.array(found[0]) > 0).astype(int)]
    return classes[np.argmax(found, axis=0)]


# ---------------------------------------------------------------------------- pairs


def related(features: Features, pairs: Pairs) -> dict[str, float]:
    """Pearson, Spearman and mean squared error on the test part of pairs."""
    from scipy.stats import pearsonr, spearmanr

    train = np.tile(pairs.part == 0, 2)
    both = features([*pairs.first, *pairs.second], train).astype(np.float32)
    u, v = both[: len(pairs.part)], both[len(pairs.part) :]
    x = _beside(abs(u - v), u.multiply(v) if hasattr(u, "multiply") else u * v)
    order = np.random.RandomState(SEED).permutation(np.flatnonzero(pairs.part == 0))
    batches = [(x[rows], soft(pairs.scores[rows])) for rows in
               (order[i : i + _ROWS] for i in range(0, len(order), _ROWS))]  # fmt: skip
    adam, best, kept = _Adam(x.shape[1], 5), -1.0, None
    while True:
        for _ in range(_EPOCHS):
            for rows, targets in batches:
                adam.step(rows, targets)
        guess = adam.probabilities(x) @ np.arange(1, 6)
        found = pearsonr(guess[pairs.part == 1], pairs.scores[pairs.part == 1])[0]
        if not found > best:
            break
        best, kept = found, guess[pairs.part == 2]
    told = pairs.scores[pairs.part == 2]
    if kept is None:
        kept = guess[pairs.part == 2]
    return {
        "Pearson": float(pearsonr(kept, told)[0]),
        "Spearman": float(spearmanr(kept, told)[0]),
        "MSE": float(np.mean((kept - told) ** 2)),
    }


def soft(scores: np.ndarray) -> np.ndarray:
    """Probabilities of 1 .. 5, (N, 5), with these means on two neighbours (Tai et al. 2015)."""
    return np.maximum(0, 1 - abs(scores[:, None] - np.arange(1, 6)))


def _beside(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray):
        return np.concatenate([a, b], axis=1)
    from scipy import sparse

    return sparse.hstack([a, b]).tocsr()


class _Adam:
    """A softmax of x W + b, trained by Adam from zero; x may be sparse."""

    def __init__(self, inputs: int, outputs: int):
        self.w = np.zeros((inputs + 1, outputs), np.float32)  # b is the last row
        self._mean, self._square, self._count = np.zeros_like(self.w), np.zeros_like(self.w), 0

    def probabilities(self, x: Any) -> np.ndarray:
        """(N, outputs)."""
        logits = x @ self.w[:-1] + self.w[-1]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def step(self, x: Any, targets: np.ndarray) -> None:
        """An update by the mean cross-entropy of some rows."""
        error = ((self.probabilities(x) - targets) / len(targets)).astype(np.float32)
        gradient = np.concatenate([x.T @ error, error.sum(axis=0, keepdims=True)])
        self._count += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        mean, square = self._mean / (1 - 0.9**self._count), self._square / (1 - 0.999**self._count)
        self.w -= _RATE * mean / (np.sqrt(square) + 1e-8)
