"""Forecasts as they are compared: the loss from every origin, the floors, forecasts to draw."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rnnx.compare.kind import Items, Kind
from rnnx.data.series import origins_of
from rnnx.predictions import predictions
from rnnx.tasks import floors, measures
from rnnx.tasks.forecast import scaling_of
from rnnx.tasks.task import Dataset, Task
from rnnx.trained import Run

_DRAWN = 6  # forecasts in the report
_MANY = 30  # series, from which on they are the blocks that are drawn


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
            if len(kind.origins) == 1:  # several series may have several units
                parts |= {"MAE": error, "MSE": error**2}
            parts["sMAPE"] = 200 * error / np.where(size > 0, size, 1.0)  # 0 where both are 0
        if low is not None:
            parts["coverage of the 80 % interval"] = (low <= truth) & (truth <= high)
            parts["its width, scaled"] = (high - low) / kind.std[s]
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
