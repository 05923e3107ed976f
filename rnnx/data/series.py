"""Series of numbers, labelled sequences, and windows of series as batches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnnx.data.batches import Batch, Batches
from rnnx.data.regular import forward
from rnnx.errors import UserError


class Series(NamedTuple):
    """S series of equal columns, each regular in time, in the data's own units.

    Attributes:
      names: of the series; ("",) for a single one.
      targets: K names of the columns to predict.
      past: C names of covariates known up to the present.
      known: D names of covariates known ahead: the user's own first, then the calendar.
      values: S arrays (T_s, K), NaN where missing.
      covariates: S arrays (T_s, C).
      ahead: S arrays (T_s, D).
      times: S arrays (T_s,), datetime64[s], or counts of rows.
      step: the time between rows, for people: `1 hour`.
      season: steps of a season; 0 for none.
      ends: (S, 2): rows of train, and of train and valid; the test part is the rest.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    past: tuple[str, ...]
    known: tuple[str, ...]
    values: list[np.ndarray]
    covariates: list[np.ndarray]
    ahead: list[np.ndarray]
    times: list[np.ndarray]
    step: str
    season: int
    ends: np.ndarray


class Labelled(NamedTuple):
    """N sequences, each with a class or a number.

    Attributes:
      ids: N names.
      inputs: N arrays (T_i, F) float32, finite.
      labels: (N,) class numbers, or numbers.
      steps: N arrays (T_i,), a number for every step; or None.
      columns: F names.
      classes: their names; () for numbers.
      part: (N,): 0 train, 1 valid, 2 test.
    """

    ids: tuple[str, ...]
    inputs: list[np.ndarray]
    labels: np.ndarray
    steps: list[np.ndarray] | None
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    part: np.ndarray


class Scaling(NamedTuple):
    """Mean and standard deviation of each column, of the training part: arrays (columns,)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Scaling":
        """Of values (T, columns), NaN left out. A column that is constant, or empty, has std 1."""
        seen = np.isfinite(values)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, values, 0).sum(axis=0) / count
        std = np.sqrt((np.where(seen, values - mean, 0) ** 2).sum(axis=0) / count)
        return cls(mean, np.where(std > 1e-8 * (1 + np.abs(mean)), std, 1.0))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / std."""
        return (values - self.mean) / self.std

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, stored: dict[str, list[float]]) -> "Scaling":
        """What `to_json` gave."""
        return cls(np.array(stored["mean"]), np.array(stored["std"]))


def origins_of(series: Series, part: int, horizon: int) -> list[np.ndarray]:
    """The rows, of each series, from which forecasts of a part are made: the last row that is
    known. All of the horizon lies in the part: train (0), valid (1) or test (2).

    A training origin has at least one row before it.
    """
    found = []
    for values, (train, valid) in zip(series.values, series.ends, strict=True):
        begin = (1, train - 1, valid - 1)[part]
        end = (train, valid, len(values))[part] - horizon
        found.append(np.arange(max(begin, 0), max(end, 0)))
    return found


class SeriesWindows(Batches):
    """Windows of series, from which the last P of T steps make forecasts.

        inputs    (B, T, M) float32: targets, covariates, what is known ahead, scaled. Missing
                  targets are the last value before them, or 0
        values    (B, T + H, K) float32: the scaled targets, NaN where missing: H steps further
        ahead     (B, T + H, D) float32: what is known ahead
        weight    (B, P) float32: 1 for a step that makes a forecast, the origin of it
        scale     (B, K, 2) float32: mean and std of the targets, to go back to their own units
        series, start  (B,) int32: which series, and the row at which the window begins

    The first W = T - P steps only warm up the state. A window whose origins span less than P rows
    lies as early as it can, so that they have as much before them as there is. Before its first row
    a series is continued by that row.

    In training, which needs origins without gaps, windows lie at random places, drawn anew for each
    epoch, as many as there are stretches of P. In scoring every origin comes exactly once.
    """

    def __init__(
        self,
        series: Series,
        scaling: Sequence[tuple[Scaling, Scaling, Scaling]],
        origins: Sequence[np.ndarray],
        batch_size: int,
        num_steps: int,
        warmup: int,
        horizon: int,
        rows: slice = slice(None),
        *,
        seed: int = 0,
        shuffle: bool = True,
    ):
        """Scales the series.

        Args:
          scaling: of each series' targets, covariates and what is known ahead.
          origins: of each series, rows in ascending order.
          num_steps, warmup, horizon: T, W and H.
          rows: of each batch, those that this process takes.
          seed: of the windows' places and order in training.

        Raises:
          UserError: when there is no origin at all.
        """
        self._steps, self._warmup, self._horizon = num_steps, warmup, horizon
        self._per = num_steps - warmup
        self.batch_size, self._rows, self._seed, self._shuffle = batch_size, rows, seed, shuffle
        inputs, values, ahead, scales, starts = [], [], [], [], [0]
        for i in range(len(series.values)):
            targets, covariates, known = (
                scale.apply(a[i])
                for scale, a in zip(
                    scaling[i], (series.values, series.covariates, series.ahead), strict=True
                )
            )
            # 0, the mean, before the first value: that value itself would tell the future.
            whole = np.concatenate([forward(targets, 0.0), covariates, known], axis=1)
            after = num_steps + horizon
            inputs.append(np.pad(whole, ((num_steps, after), (0, 0)), mode="edge"))
            ahead.append(np.pad(known, ((num_steps, after), (0, 0)), mode="edge"))
            values.append(np.pad(targets, ((num_steps, after), (0, 0)), constant_values=np.nan))
            scales.append(np.stack(scaling[i][0], axis=-1))
            starts.append(starts[-1] + len(inputs[-1]))
        self._inputs, self._values, self._ahead = (
            np.concatenate(parts).astype(np.float32) for parts in (inputs, values, ahead)
        )
        self._scales = np.array(scales, np.float32)  # (S, K, 2)
        self._first_rows = np.array(starts[:-1]) + num_steps
        self._origins = [np.asarray(o) for o in origins]
        self.targets = sum(map(len, self._origins))
        if not self.targets:
            raise UserError("no forecast fits into a part of the series: lower horizon")
        # One row a window: series, and which of its origins lie in the stretch: from, to.
        self._stretches = np.concatenate([self._cut(s, o) for s, o in enumerate(self._origins)])
        self.begin(0)

    def __len__(self) -> int:
        return -(-len(self._stretches) // self.batch_size)

    def _cut(self, s: int, origins: np.ndarray) -> np.ndarray:
        """The stretches of P rows of a series, which may hold fewer origins: (n, 3)."""
        if not len(origins):
            return np.zeros((0, 3), int)
        stretch = (origins - origins[0]) // self._per
        begin = np.flatnonzero(np.append(True, stretch[1:] != stretch[:-1]))
        return np.stack([np.full(len(begin), s), begin, np.append(begin[1:], len(origins))], axis=1)

    def begin(self, epoch: int) -> None:
        """Draws the windows' places and order for an epoch of training."""
        windows = self._stretches
        if self._shuffle:
            rng = np.random.default_rng((self._seed, epoch))
            counts = np.array([len(o) for o in self._origins])[windows[:, 0]]
            # One place in every equal part of all places that a series has.
            share = (windows[:, 1] / self._per + rng.random(len(windows))) / -(-counts // self._per)
            place = (share * (counts - self._per + 1).clip(min=1)).astype(int)
            ends = np.minimum(place + self._per, counts)
            windows = rng.permutation(np.stack([windows[:, 0], place, ends], axis=1))
        missing = len(self) * self.batch_size - len(windows)
        self._windows = np.concatenate([windows, np.full((missing, 3), -1)])

    def __getitem__(self, i: int) -> Batch:
        i = range(len(self))[i]
        windows = self._windows[i * self.batch_size :][: self.batch_size][self._rows]
        which = windows[:, 0]
        weight = np.zeros((len(windows), self._per), np.float32)
        starts = np.zeros(len(windows), int)
        for row, (s, begin, end) in enumerate(windows):
            if s >= 0:
                origins = self._origins[s][begin:end]
                latest = origins[0] - self._warmup
                starts[row] = min(latest, max(origins[-1] - self._steps + 1, 0))
                weight[row, origins - starts[row] - self._warmup] = 1.0
        at = self._first_rows[which] + starts
        inputs = at[:, None] + np.arange(self._steps)
        beyond = at[:, None] + np.arange(self._steps + self._horizon)
        return {
            "inputs": self._inputs[inputs],
            "values": self._values[beyond],
            "ahead": self._ahead[beyond],
            "weight": weight,
            "scale": self._scales[which],
            "series": which.astype(np.int32),
            "start": starts.astype(np.int32),
        }
