"""What is compared of each task: the loss of every test item, the floors, examples.

A kind is made once of a config and its data. An item is what a task has many of: an origin of
forecasts, a sequence, a stretch of text. Losses are always better when lower.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rnnx.compare.statistics import Losses
from rnnx.data.series import Scaling, origins_of
from rnnx.predictions import predictions
from rnnx.sample import sample
from rnnx.tasks import floors, measures
from rnnx.tasks.forecast import scaling_of
from rnnx.tasks.task import Dataset, Task
from rnnx.trained import Run

STRETCH = 1_000  # targets of a text in an item
_DRAWN = 6  # forecasts in the report
_MANY = 30  # series, from which on they are the blocks that are drawn


class Items(NamedTuple):
    """Of one model on the test part."""

    total: np.ndarray  # (N,) the loss of each item, summed over what `Kind.count` counts
    metrics: dict[str, float]
    by_step: np.ndarray | None = None  # (H,) mean loss of each step ahead


class Kind:
    """A task as it is compared.

    Attributes:
      name: `forecast`, `classify`, `regress` or `text`.
      metric, unit: what is compared, and its unit; "" where it has none.
      count, block: (N,) of the items, as of `Losses`.
      root: whether the score is the root of the mean loss.
    """

    name: str
    metric: str
    unit = ""
    root = False
    count: np.ndarray
    block: np.ndarray

    def __init__(self, task: Task, config: ConfigDict, dataset: Dataset):
        """config: resolved, of any run; dataset: as the task loaded it."""
        self.task, self.config, self.dataset = task, config, dataset
        self._datasets = {1.0: dataset}  # by the fraction of the training part

    def items(self, run: Run, display: Any = None) -> Items:
        """The losses of a trained network."""
        raise NotImplementedError

    def floors(self) -> list[tuple[str, Items]]:
        """The losses of models that know little."""
        raise NotImplementedError

    def examples(self, run: Run) -> dict:
        """What the report shows of the chosen network's predictions."""
        return {}

    def losses(self, items: list[Items]) -> Losses:
        """Of the same network with several seeds."""
        total = np.stack([i.total for i in items])
        return Losses(total, self.count, self.block, self.root)

    def score(self, items: Items) -> float:
        """The score of one network."""
        mean = items.total.sum() / self.count.sum()
        return float(mean**0.5 if self.root else mean)

    def test(self, run: Run | None = None) -> Any:
        """The batches of the test part, scaled as a run was trained."""
        dataset = self.dataset if run is None else self._of(run)
        return self.task.batches(self.config, dataset, "test", "full", slice(None))

    def _of(self, run: Run) -> Dataset:
        """The data as a run has read them: scales follow from its share of the training part."""
        fraction = run.config.get("fraction", 1.0)
        if fraction not in self._datasets:
            config = self.config.copy_and_resolve_references()
            config.fraction = fraction
            self._datasets[fraction] = self.task.load(config, lambda line: None)
        return self._datasets[fraction]


class ForecastKind(Kind):
    """Origins of forecasts. The metric is MAE in the data's own units; of several series MASE; of
    several columns of one series MAE in units of their standard deviation in training."""

    name = "forecast"

    def __init__(self, task: Task, config: ConfigDict, dataset: Dataset):
        super().__init__(task, config, dataset)
        self.series = series = dataset.splits["test"]
        self.horizon, self.season = config.horizon, dataset.spec["season"]
        origins = origins_of(series, 2, self.horizon)
        self.origins = [o[:: config.stride] for o in origins]
        self.offsets = np.cumsum([0, *map(len, self.origins)])
        many, several = len(series.names) > 1, len(series.targets) > 1
        self.mase_scale = [  # of all rows before the test part, as in the M4 competition
            measures.mase_scale(values[:end], self.season)
            for values, end in zip(series.values, series.ends[:, 1], strict=True)
        ]
        std = [scaling_of(series, i)[0].std for i in range(len(series.values))]
        if many:
            self.metric, self.divisor = "MASE", self.mase_scale
        elif several:
            self.metric, self.divisor = "MAE", std
            self.unit = "standard deviations"
        else:
            self.metric, self.divisor = "MAE", [np.ones(1)]
            self.unit = series.targets[0]
        self.std = std
        self.count = np.concatenate(
            [self.scored(s, self.truth(s, o)).sum(axis=(1, 2)) for s, o in enumerate(self.origins)]
        ).astype(float)
        if len(self.origins) >= _MANY:
            self.block = np.repeat(np.arange(len(self.origins)), list(map(len, self.origins)))
        else:
            # Overlapping forecasts are alike, and series at the same time: a block is as long as
            # two forecasts, of all series.
            length = 2 * max(self.horizon, self.season)
            self.block = np.concatenate(self.origins) // length

    def scored(self, s: int, truth: np.ndarray) -> np.ndarray:
        """Which targets (N, H, K) count: those that are there, of a series that MASE can scale."""
        return np.isfinite(truth) & (self.divisor[s] > 0)

    def truth(self, s: int, origins: np.ndarray) -> np.ndarray:
        """(N, H, K)."""
        return self.series.values[s][origins[:, None] + np.arange(1, self.horizon + 1)]

    def items(self, run: Run, display: Any = None) -> Items:
        measured = _Forecasts(self, len(self.series.targets))
        # Of a fraction, a series lacks its first rows.
        short = self._of(run).splits["test"].values
        dropped = [len(a) - len(b) for a, b in zip(self.series.values, short, strict=True)]
        for batch, found in predictions(run, self.test(run), display):
            for row in np.flatnonzero(batch["weight"].any(axis=1)):
                steps = np.flatnonzero(batch["weight"][row])
                s = batch["series"][row]
                origins = batch["start"][row] + self.config.warmup + steps + dropped[s]
                arrays = (found[name][row, steps] for name in ("forecast", "low", "high"))
                measured.add(s, origins, *arrays)
        return measured.items()

    def floors(self) -> list[tuple[str, Items]]:
        series, h = self.series, self.horizon
        ridge = floors.ridge_lags(series.values, series.ends, h, self.season, self.config.warmup)
        models: dict[str, Callable] = {
            "last value": lambda s, o: floors.last_value(series.values[s], o, h),
            "ridge on lags": lambda s, o: ridge.predict(series.values[s], o, s),
        }
        if self.season > 1:
            models["same time last season"] = lambda s, o: floors.seasonal(
                series.values[s], o, h, self.season
            )
        found = []
        for name, model in models.items():
            measured = _Forecasts(self, len(series.targets))
            for s, origins in enumerate(self.origins):
                for part in np.array_split(origins, max(len(origins) // 500, 1)):
                    if len(part):
                        measured.add(s, part, model(s, part))
            found.append((name, measured.items()))
        return found

    def examples(self, run: Run) -> dict:
        """Forecasts drawn over the truth: the worst, a middling and the best origin of the worst
        series first."""
        items = self.items(run)
        mean = items.total / np.maximum(self.count, 1)
        scores = [mean[a:b].mean() if b > a else -1 for a, b in itertools.pairwise(self.offsets)]
        if len(scores) > 1:
            worst = np.argsort(scores)[::-1]
            picks = [(s, self.origins[s][len(self.origins[s]) // 2]) for s in worst[:_DRAWN]
                     if len(self.origins[s])]  # fmt: skip
        else:
            order = np.flatnonzero(self.count > 0)
            order = order[np.argsort(mean[order])[::-1]]
            places = np.linspace(0, len(order) - 1, 3).astype(int)
            picks = [(0, self.origins[0][order[p]]) for p in places]
        wanted = {(int(s), int(o)): None for s, o in picks}
        warmup = self.config.warmup
        for batch, found in predictions(run, self.test(run)):
            for row in np.flatnonzero(batch["weight"].any(axis=1)):
                for step in np.flatnonzero(batch["weight"][row]):
                    key = int(batch["series"][row]), int(batch["start"][row] + warmup + step)
                    if key in wanted:
                        wanted[key] = {n: found[n][row, step] for n in ("forecast", "low", "high")}
        drawn = []
        for (s, origin), found in wanted.items():
            for k, target in enumerate(self.series.targets[:2]):
                drawn.append(self._drawn(s, origin, k, target, found))
        return {"forecasts": drawn}

    def _drawn(self, s: int, origin: int, k: int, target: str, found: dict) -> dict:
        begin = max(origin + 1 - max(2 * self.horizon, self.season), 0)
        values, times = self.series.values[s][:, k], self.series.times[s]
        truth = values[origin + 1 : origin + 1 + self.horizon]
        forecast = found["forecast"][:, k]
        return {
            "series": self.series.names[s],
            "target": target,
            "times": [str(t) for t in times[begin : origin + 1 + self.horizon]],
            "history": values[begin : origin + 1].tolist(),
            "truth": truth.tolist(),
            "median": forecast.tolist(),
            "low": found["low"][:, k].tolist(),
            "high": found["high"][:, k].tolist(),
            "score": float(np.nanmean(np.abs(truth - forecast)) / self.divisor[s][k]),
        }


class _Forecasts:
    """Sums over forecasts, from which their measures follow."""

    def __init__(self, kind: ForecastKind, columns: int):
        self.kind = kind
        self.total = np.zeros(len(kind.count))
        self.by_step = np.zeros((2, kind.horizon))  # sums and counts
        self.sums: dict[str, list[float]] = {}

    def add(
        self,
        s: int,
        origins: np.ndarray,
        forecast: np.ndarray,
        low: np.ndarray | None = None,
        high: np.ndarray | None = None,
    ) -> None:
        """Forecasts (N, H, K) of a series, perhaps with intervals."""
        kind = self.kind
        truth = kind.truth(s, origins)
        seen = kind.scored(s, truth)
        error = np.where(seen, np.abs(truth - forecast), 0.0)
        loss = np.divide(error, kind.divisor[s], where=seen, out=np.zeros_like(error))
        first = kind.origins[s][0]
        self.total[kind.offsets[s] + (origins - first) // kind.config.stride] = loss.sum(
            axis=(1, 2)
        )
        self.by_step += loss.sum(axis=(0, 2)), seen.sum(axis=(0, 2))
        scaled = error / kind.std[s]
        parts = {"MAE, scaled": scaled, "MSE, scaled": scaled**2}
        if (kind.mase_scale[s] > 0).all():
            parts["MASE"] = error / kind.mase_scale[s]
        if len(kind.series.targets) == 1:
            size = np.abs(truth) + np.abs(forecast)
            parts |= {"MAE": error, "MSE": error**2}
            parts["sMAPE"] = 200 * error / np.where(size > 0, size, 1.0)  # 0 where both are 0
        if low is not None:
            inside = seen & (low <= truth) & (truth <= high)
            parts["coverage of the 80 % interval"] = inside
            parts["its width, scaled"] = np.where(seen, high - low, 0) / kind.std[s]
        count = float(seen.sum())
        for name, values in parts.items():
            sums = self.sums.setdefault(name, [0.0, 0.0])
            sums[0] += float(values[seen].sum())
            sums[1] += count

    def items(self) -> Items:
        metrics = {name: total / max(count, 1) for name, (total, count) in self.sums.items()}
        if "MSE" in metrics:
            metrics["RMSE"] = metrics.pop("MSE") ** 0.5
        by_step = self.by_step[0] / np.maximum(self.by_step[1], 1)
        return Items(self.total, metrics, by_step)


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
        if any(name.startswith("train_FD") for name in self.dataset.sums):
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
