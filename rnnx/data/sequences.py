"""Sequences of unequal length, and batches of them: padded, bucketed by length."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rnnx.data.batches import Batch, Batches
from rnnx.errors import UserError

BUCKETS = 8  # lengths that batches are padded to
CANDIDATES = 128  # lengths considered for them
RUN = 8  # batches of one bucket in a row
PER_BUCKET = 16  # batches in a bucket, on average, below which fewer buckets are taken


class Sequences:
    """N sequences, the i-th of T_i steps, kept end to end.

    `lengths` is (N,): every T_i; `whole` holds the values of whole sequences by name.
    """

    def __init__(
        self,
        steps: Mapping[str, Sequence[ArrayLike]],
        whole: Mapping[str, ArrayLike] | None = None,
    ):
        """Joins the sequences.

        Args:
          steps: per-step values by name, each N arrays (T_i, ...).
          whole: values of whole sequences by name, each (N, ...).

        Raises:
          UserError: no sequences, an empty one, per-step arrays of one sequence that disagree in
            length, steps of different shapes, names of different N, values that are not finite.
        """
        parts = {name: [np.asarray(a) for a in values] for name, values in steps.items()}
        self.whole = {name: np.asarray(values) for name, values in (whole or {}).items()}
        counts = {name: len(values) for name, values in (parts | self.whole).items()}
        assert not {"lengths", "weight"} & counts.keys(), "names of `padded` itself"
        (main, count), *others = counts.items()
        for name, other in others:
            if other != count:
                raise UserError(f"{count} sequences of {main}, but {other} of {name}")
        if not count:
            raise UserError("there are no sequences: at least one is needed")
        self.lengths = np.array([len(a) for a in parts[main]])
        for name, arrays in parts.items():
            for i, a in enumerate(arrays):
                where = f"{name} of sequence {i + 1} of {count}"
                if not len(a):
                    raise UserError(f"{where} has no steps: leave the sequence out")
                if len(a) != self.lengths[i]:
                    raise UserError(f"{where} has {len(a)} steps, {main} {self.lengths[i]}")
                if a.shape[1:] != arrays[0].shape[1:]:
                    raise UserError(
                        f"{where} has steps of shape {a.shape[1:]}, the first {arrays[0].shape[1:]}"
                    )
        self._steps = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        ends = np.cumsum(self.lengths)
        self._starts = ends - self.lengths
        for name, values in (self._steps | self.whole).items():
            if np.issubdtype(values.dtype, np.inexact) and not (good := np.isfinite(values)).all():
                at = np.argmin(good.reshape(len(good), -1).all(axis=1))
                i = np.searchsorted(ends, at, side="right") if name in self._steps else at
                raise UserError(
                    f"{name} of sequence {i + 1} of {count} has a value that is not finite: "
                    "leave the sequence out, or fill the gap"
                )

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, count: int) -> "Sequences":
        """The first so many sequences; all of them for 0."""
        if not count or count >= len(self):
            return self
        ends = np.cumsum(self.lengths[:count])
        return Sequences(
            {name: np.split(a[: ends[-1]], ends[:-1]) for name, a in self._steps.items()},
            {name: a[:count] for name, a in self.whole.items()},
        )

    def each(self, name: str) -> list[np.ndarray]:
        """Per-step values by name: N arrays (T_i, ...)."""
        return np.split(self._steps[name], np.cumsum(self.lengths)[:-1])

    def padded(self, indices: np.ndarray, length: int) -> Batch:
        """Some sequences side by side, zeros after each one's end, and all zeros for index -1.

        Returns the per-step values (B, length, ...), those of whole sequences (B, ...), `lengths`
        (B,) int32, and `weight` (B,) float32: 1 for a sequence, 0 for index -1.
        """
        real = indices >= 0
        lengths = np.where(real, self.lengths[indices], 0)
        inside = np.arange(length) < lengths[:, None]  # (B, length)
        at = (self._starts[indices][:, None] + np.arange(length))[inside]
        batch = {}
        for name, values in self._steps.items():
            batch[name] = np.zeros((*inside.shape, *values.shape[1:]), values.dtype)
            batch[name][inside] = values[at]
        for name, values in self.whole.items():
            batch[name] = np.zeros((len(indices), *values.shape[1:]), values.dtype)
            batch[name][real] = values[indices[real]]
        return batch | {"lengths": lengths.astype(np.int32), "weight": real.astype(np.float32)}


class SequenceBatches(Batches):
    """Batches in which every sequence comes once an epoch, with the keys of `Sequences.padded`.

    There are ceil(N / B) batches of B rows; the short one is filled up with rows of weight 0. A
    batch is padded to the upper bound of its longest sequence's bucket, so that there are at most
    as many shapes as buckets.

    Each bucket is compiled, which takes as long as hundreds of batches of a small network: it holds
    16 batches or more on average. So the same sequences also seldom meet again.

    In training, every epoch shuffles the sequences within each bucket. Batches come in random
    order, but in runs of up to 8 from one bucket, at most an eighth of the epoch: a run fits into
    one compiled call, and an epoch still mixes short and long. The position of the short batch is
    random too, as each of its rows weighs more in the update, and those should not always be the
    longest or the shortest.

    In scoring (`shuffle=False`) sequences are sorted, the longest first: that pads least, and if
    memory is too small, it shows at once.
    """

    def __init__(
        self,
        sequences: Sequences,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rows: slice = slice(None),
        buckets: int = BUCKETS,
    ):
        """Finds the buckets, and the order of epoch 0.

        Args:
          batch_size: B, of all processes together.
          seed: of the order that `begin` draws for an epoch.
          rows: the rows of each batch that this process takes.
          buckets: the most lengths to pad to.

        Raises:
          UserError: batch_size below 1.
        """
        if batch_size < 1:
            raise UserError(f"a batch of {batch_size}: batch_size must be at least 1")
        self._sequences, self.batch_size, self._rows = sequences, batch_size, rows
        self._seed, self._shuffle, self.targets = seed, shuffle, len(sequences)
        buckets = min(buckets, max(len(self) // PER_BUCKET, 1))
        falling = np.sort(sequences.lengths)[::-1]
        self._bounds = bounds(falling[::batch_size], buckets)  # of the longest of each batch
        self._bucket = np.searchsorted(self._bounds, sequences.lengths)  # (N,)
        if shuffle:
            self.begin(0)
        else:
            self._cut(np.argsort(-sequences.lengths, kind="stable"), len(self) - 1)

    def __len__(self) -> int:
        return -(-len(self._sequences) // self.batch_size)

    def begin(self, epoch: int) -> None:
        """Draws the order of an epoch; to score, it is always the same."""
        if not self._shuffle:
            return
        rng = np.random.default_rng((self._seed, epoch))
        drawn = rng.permutation(len(self._sequences))
        by_bucket = drawn[np.argsort(self._bucket[drawn], kind="stable")]
        self._cut(by_bucket, short=rng.integers(len(self)))
        run, runs = min(RUN, max(len(self) // 8, 1)), []
        for length in np.unique(self._lengths):
            same = rng.permutation(np.flatnonzero(self._lengths == length))
            runs += np.split(same, range(run, len(same), run))
        order = np.concatenate([runs[i] for i in rng.permutation(len(runs))])
        self._batches, self._lengths = self._batches[order], self._lengths[order]

    def _cut(self, order: np.ndarray, short: int) -> None:
        """Cuts an order of sequences into batches, of which one is filled up with -1."""
        missing = len(self) * self.batch_size - len(order)
        end = (short + 1) * self.batch_size - missing
        order = np.insert(order, [end] * missing, -1)
        self._batches = order.reshape(len(self), self.batch_size)
        bucket = np.where(self._batches < 0, 0, self._bucket[self._batches])
        self._lengths = self._bounds[bucket.max(axis=1)]  # of batches, padding included

    def __getitem__(self, i: int) -> Batch:
        i = range(len(self))[i]
        return self._sequences.padded(self._batches[i][self._rows], self._lengths[i])

    def alike(self, first: int, limit: int) -> int:
        """How many batches from `first` on, at most limit, are padded to the same length."""
        window = self._lengths[first : first + limit]
        return int(np.argmax(np.append(window != window[0], True)))

    @property
    def padding(self) -> float:
        """The share of padding among the steps of the epoch's batches."""
        steps = self.batch_size * self._lengths.sum()
        return float(1 - self._sequences.lengths.sum() / steps)


def bounds(lengths: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the lengths, rising, such that rounding up to the next one pads least.

    Minimizes sum_k e_k (n(e_k) - n(e_{k-1})) over e_1 < ... < e_count = max, n(e) the number of
    lengths up to e, by dynamic programming over at most 128 different lengths.
    """
    known = np.unique(lengths)
    ends = known[np.unique(np.linspace(0, len(known) - 1, CANDIDATES).astype(int))]
    n = np.searchsorted(np.sort(lengths), np.append(0, ends), side="right")
    # steps[i, j]: of a bucket for the lengths ends[i] .. ends[j] and those between
    steps = np.where(np.tri(len(ends), k=-1, dtype=bool), np.inf, ends * (n[1:] - n[:-1, None]))
    least, firsts = steps[0], []  # of buckets up to ends[j]; the first length of the last one
    for _ in range(count - 1):
        total = steps + np.append(0, least[:-1])[:, None]
        firsts.append(total.argmin(axis=0))
        least = total.min(axis=0)
    chosen, j = [], len(ends) - 1
    while j >= 0:
        chosen.append(ends[j])
        j = (firsts.pop()[j] if firsts else 0) - 1
    return np.array(chosen[::-1])
