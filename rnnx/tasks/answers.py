"""Questions in batches, their names permuted; scores by kind of question; simple answers."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rnnx import model, tasks
from rnnx.data.batches import Batch
from rnnx.data.sequences import SequenceBatches, Sequences
from rnnx.tasks.task import Dataset, Sums

_BUCKETS = 4  # lengths of passages that are compiled: two stacks take a while


class NamedBatches(SequenceBatches):
    """Batches of questions whose names have other numbers in each question.

    Words and answers below `entities` are names. Each question has a permutation of its own, drawn
    from seed, epoch and question; in scoring from the question alone, so that runs of all seeds
    answer the same.
    """

    def __init__(self, sequences: Sequences, batch_size: int, *, entities: int, **options: Any):
        """As `SequenceBatches`; entities: how many names there are."""
        self._entities, self._drawn_by = entities, (0, 0)
        super().__init__(sequences, batch_size, buckets=_BUCKETS, **options)

    def begin(self, epoch: int) -> None:
        super().begin(epoch)
        if self._shuffle:
            self._drawn_by = (self._seed + 1, epoch)

    def __getitem__(self, i: int) -> Batch:
        batch = super().__getitem__(i)
        if self._entities:
            for row in np.flatnonzero(batch["weight"] > 0):
                order = np.random.default_rng((*self._drawn_by, int(batch["index"][row])))
                table = order.permutation(self._entities).astype(np.int32)
                for name, length in (("inputs", "lengths"), ("question", "question_lengths")):
                    _rename(batch[name][row, : batch[length][row]], table)
                _rename(batch["targets"][row : row + 1], table)
        return batch


def _rename(words: np.ndarray, table: np.ndarray) -> None:
    """Gives names among words (T,) the numbers of a table, in place; words beyond it stay."""
    names = (words >= 0) & (words < len(table))
    words[names] = table[words[names]]


# ---------------------------------------------------------------------------- scores


def by_kind(
    graphdef: Any,
    params: dict[str, Any],
    config: ConfigDict,
    dataset: Dataset,
    split: str,
    display: Any,
) -> Sums:
    """The error over a split, and over the questions of each kind: `error_qa1`."""
    task, kinds = tasks.of(config), dataset.spec["kinds"]
    batches = task.batches(config, dataset, split, "full", slice(None))
    display.start(f"{split} by task", len(batches))
    wrong, count = np.zeros(len(kinds)), np.zeros(len(kinds))

    @jax.jit
    def predict(params: dict, batch: dict) -> Any:
        return task.predict(model.merge(graphdef, params), batch, ())[0]["probabilities"]

    for i, batch in enumerate(batches):
        given = np.asarray(predict(params, batch)).argmax(axis=1)
        np.add.at(wrong, batch["kind"], batch["weight"] * (given != batch["targets"]))
        np.add.at(count, batch["kind"], batch["weight"])
        display.update(i + 1)
    each = {
        f"error_{kind}": (wrong[k], count[k]) for k, kind in enumerate(kinds) if kind and count[k]
    }
    return {"error": (wrong.sum(), count.sum())} | each


# ---------------------------------------------------------------------------- simple answers


def commonest(train: Sequences, scored: Sequences) -> float:
    """The error of giving the answer that training has most often to questions of that kind."""
    wrong = 0
    for kind in np.unique(scored.whole["kind"]):
        seen, asked = (s.whole["targets"][s.whole["kind"] == kind] for s in (train, scored))
        wrong += np.sum(asked != np.bincount(seen).argmax())
    return float(wrong / len(scored))


def most_frequent_name(scored: Sequences, count: int) -> float:
    """The error of giving the name that the passage has most often, of equals the first."""
    return _error(scored, count, lambda names: int(np.bincount(names).argmax()))


def nearest_name(scored: Sequences, count: int) -> float:
    """The error of giving the passage's last name, which is nearest to the question after it."""
    return _error(scored, count, lambda names: int(names[-1]))


def _error(scored: Sequences, count: int, choose: Any) -> float:
    """The error of choosing among the passage's names; those that the question has too are left
    out, unless there are no others."""
    wrong = 0
    whole = scored.whole
    rows = (whole[name] for name in ("question", "question_lengths", "targets"))
    for passage, question, length, target in zip(scored.each("inputs"), *rows, strict=True):
        names = passage[passage < count]
        others = names[~np.isin(names, question[:length])]
        names = others if len(others) else names
        wrong += not len(names) or choose(names) != target
    return wrong / len(scored)
