"""What a comparison needs of a task. Kinds are in kinds.py and forecasts.py."""

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rnnx.report.significance import Losses
from rnnx.tasks.task import Dataset, Task
from rnnx.trained import Run


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
