"""What is compared of each task: the loss of every test item, the floors, examples.

A kind is made once of a config and its data. An item is what a task has many of: an origin of
forecasts, a sequence, a stretch of text. Losses are always better when lower.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rnnx.compare.forecasts import ForecastKind
from rnnx.compare.kind import Items, Kind
from rnnx.data.series import Scaling
from rnnx.predictions import predictions
from rnnx.sample import sample
from rnnx.tasks import floors, measures
from rnnx.tasks.task import Dataset, Task
from rnnx.trained import Run

STRETCH = 1_000  # targets of a text in an item


class ClassifyKind(Kind):
    """Sequences; the metric is the share that gets a wrong class."""

    name, metric = "classify", "error rate"

    def __init__(self, task: Task, config: ConfigDict, dataset: Dataset):
        super().__init__(task, config, dataset)
        self.labels = dataset.splits["test"].whole["targets"]
        self.count, self.block = np.ones(len(self.labels)), np.arange(len(self.labels))

    def _items(self, probabilities: np.ndarray) -> Items:
        guess = probabilities.argmax(axis=1)
        metrics = {
            "accuracy": measures.accuracy(self.labels, guess),
            "macro F1": measures.macro_f1(self.labels, guess),
            "log loss": measures.log_loss(self.labels, probabilities),
        }
        return Items((guess != self.labels).astype(float), metrics)

    def _probabilities(self, run: Run, display: Any = None) -> np.ndarray:
        return _by_index(run, self.test(run), "probabilities", len(self.labels), display)

    def items(self, run: Run, display: Any = None) -> Items:
        return self._items(self._probabilities(run, display))

    def floors(self) -> list[tuple[str, Items]]:
        train, test = (self.dataset.splits[s] for s in ("train", "test"))
        labels, classes = train.whole["targets"], len(self.dataset.spec["classes"])
        nearest = floors.nearest(train.each("inputs"), labels, test.each("inputs"))
        return [
            ("most frequent class", self._items(floors.majority(labels, len(test), classes))),
            ("1-nearest neighbour", self._items(np.eye(classes)[nearest])),
        ]

    def examples(self, run: Run) -> dict:
        guess = self._probabilities(run).argmax(axis=1)
        classes = self.dataset.spec["classes"]
        matrix = np.zeros((len(classes), len(classes)), int)
        np.add.at(matrix, (self.labels, guess), 1)
        return {"confusion": {"classes": classes, "matrix": matrix.tolist()}}


class RegressKind(Kind):
    """Sequences; the metric is RMSE in the data's own units."""

    name, metric, root = "regress", "RMSE", True

    def __init__(self, task: Task, config: ConfigDict, dataset: Dataset):
        super().__init__(task, config, dataset)
        self.scaling = Scaling.from_json(dataset.spec["target"])
        self.truth = self._own(dataset.splits["test"].whole["targets"])
        self.count, self.block = np.ones(len(self.truth)), np.arange(len(self.truth))

    def _own(self, scaled: np.ndarray) -> np.ndarray:
        return scaled * self.scaling.std[0] + self.scaling.mean[0]

    def _items(self, numbers: np.ndarray) -> Items:
        metrics = {
            "RMSE": measures.rmse(self.truth, numbers),
            "MAE": measures.mae(self.truth, numbers),
        }
        if any(name.startswith("train train_FD") for name in self.dataset.sums):
            metrics["C-MAPSS score"] = measures.cmapss_score(self.truth, numbers)
        return Items((numbers - self.truth) ** 2, metrics)

    def _numbers(self, run: Run, display: Any = None) -> np.ndarray:
        return _by_index(run, self.test(run), "number", len(self.truth), display)

    def items(self, run: Run, display: Any = None) -> Items:
        return self._items(self._numbers(run, display))

    def floors(self) -> list[tuple[str, Items]]:
        train, test = (self.dataset.splits[s] for s in ("train", "test"))
        labels = self._own(train.whole["targets"])
        steps = None
        if self.dataset.spec["every_step"]:
            steps = [self._own(a) for a in train.each("numbers")]
        mean = floors.mean_of(labels, len(test), steps)
        last = floors.linear_last(train.each("inputs"), labels, test.each("inputs"), steps)
        return [("mean", self._items(mean)), ("least squares, last step", self._items(last))]

    def examples(self, run: Run) -> dict:
        found = self._numbers(run)
        return {"scatter": {"truth": self.truth.tolist(), "predicted": found.tolist()}}


def _by_index(run: Run, batches: Any, name: str, count: int, display: Any) -> np.ndarray:
    """A prediction of every sequence, in the order of the data."""
    result = None
    for batch, found in predictions(run, batches, display):
        real = batch["weight"] > 0
        if result is None:
            result = np.zeros((count, *found[name].shape[1:]))
        result[batch["index"][real]] = found[name][real]
    return result


class TextKind(Kind):
    """Stretches of 1,000 symbols; the metric is bits a symbol."""

    name = "text"

    def __init__(self, task: Task, config: ConfigDict, dataset: Dataset):
        super().__init__(task, config, dataset)
        symbol = {"char": "character"}.get(config.level, config.level)
        self.metric = f"bits per {symbol}"
        batches = self.test()
        self.targets = batches.targets
        stretch = np.arange(self.targets) // STRETCH
        self.count = np.bincount(stretch).astype(float)
        self.block = np.arange(len(self.count))
        self._stretch = stretch

    def _items(self, nats: np.ndarray) -> Items:
        mean = float(nats.mean())
        metrics = {"bits": measures.bits(mean), "perplexity": measures.perplexity(mean)}
        return Items(np.bincount(self._stretch, nats / np.log(2)), metrics)

    def items(self, run: Run, display: Any = None) -> Items:
        parts = [
            found["nll"][batch["weight"] > 0]
            for batch, found in predictions(run, self.test(run), display)
        ]
        return self._items(np.concatenate(parts).astype(float))

    def floors(self) -> list[tuple[str, Items]]:
        train, test = self.dataset.splits["train"], self.dataset.splits["test"]
        test = test[: self.targets + 1]
        size = self.dataset.spec.size
        order = 5 if self.config.level == "word" else 7
        orders = {"symbol frequencies": 1, f"{order}-gram": order}
        return [
            (name, self._items(floors.ngram(train, test, size, n))) for name, n in orders.items()
        ]

    def examples(self, run: Run) -> dict:
        texts = [sample(run, "", 300, 0.8, seed=seed) for seed in (0, 1)]
        return {"samples": [{"prompt": "", "text": text} for text in texts]}


KINDS = {
    "forecast": ForecastKind,
    "classify": ClassifyKind,
    "regress": RegressKind,
    "language": TextKind,
}
