"""What the tasks of whole sequences share: their data, batches, and the stack's reading of them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import heads
from rnnx.config import cell_of
from rnnx.data import sets
from rnnx.data.archives import counterpart
from rnnx.data.batches import Batches
from rnnx.data.cmapss import read_cmapss
from rnnx.data.labelled import read_labelled
from rnnx.data.sequences import SequenceBatches, Sequences
from rnnx.data.series import Labelled, Scaling
from rnnx.data.unlabelled import read_unlabelled
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.model import VectorModel
from rnnx.tasks.forecast import PARTS, columns, own_file, places
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Task, Unseen, check_fraction


class SequenceTask(Task):
    """Something of each whole sequence, from the last output of a stack or the mean of all.

    Inputs are scaled by mean and standard deviation of each column in the training part.
    """

    kind: str  # of `labelled.read_labelled`
    counted = "sequences"

    def check(self, config: ConfigDict) -> None:
        super().check(config)
        check_fraction(config)

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        data, notes, warnings, files = read(config, self.kind, say)
        data = shortened(data, config.fraction)
        train = [x for x, part in zip(data.inputs, data.part, strict=True) if part == 0]
        scaling = Scaling.of(np.concatenate(train).astype(np.float64))
        spec = {
            "columns": list(data.columns),
            "scaling": scaling.to_json(),
            **self.spec_of(data),
        }
        splits = {name: self.sequences(data, spec, part) for name, part in PARTS.items()}
        lengths = np.concatenate([s.lengths for s in splits.values()])
        about = (
            f"sequences of {lengths.min():,} to {lengths.max():,} steps, {len(data.columns)} "
            "columns; sizes in sequences",
            *notes,
            *(f"warning: {line}" for line in warnings),
        )
        sizes = tuple(map(len, splits.values()))
        sums = sets.checksums(files)
        name = files["train"].stem.removesuffix("_TRAIN")
        return Dataset(name, splits, spec, sums, sizes, about, *places(config))

    def spec_of(self, data: Labelled) -> dict:
        """What else the network must know of its data."""
        raise NotImplementedError

    def sequences(self, data: Labelled, spec: dict, part: int) -> Sequences:
        """A part of the data, scaled."""
        chosen = np.flatnonzero(data.part == part)
        scaling = Scaling.from_json(spec["scaling"])
        steps = {"inputs": [scaling.apply(data.inputs[i]).astype(np.float32) for i in chosen]}
        extra, whole = self.targets(data, spec, chosen)
        return Sequences(steps | extra, whole | self._constants(spec, len(chosen)))

    def _constants(self, spec: dict, count: int) -> dict[str, np.ndarray]:
        """What every sequence has beside its targets."""
        return {"index": np.arange(count, dtype=np.int32)}

    def unseen(self, config: ConfigDict, spec: dict, path: str) -> Unseen:
        """The sequences of a file."""
        scaling = Scaling.from_json(spec["scaling"])
        names, inputs = read_unlabelled(
            own_file(path),
            columns=spec["columns"],
            mean=scaling.mean,
            group=config.group,
            time=config.time,
        )
        steps = {"inputs": [scaling.apply(x).astype(np.float32) for x in inputs]}
        sequences = Sequences(steps, self._constants(spec, len(names)))

        def rows(batch: dict, found: dict) -> list[dict]:
            return [
                {"row": int(batch["index"][row]), "sequence": names[batch["index"][row]]}
                | self.row(spec, {name: a[row] for name, a in found.items()})
                for row in np.flatnonzero(batch["weight"] > 0)
            ]

        return Unseen(SequenceBatches(sequences, config.batch_size, shuffle=False), rows)

    def row(self, spec: dict, found: dict) -> dict[str, Any]:
        """What is said of a sequence, as columns of a table."""
        raise NotImplementedError

    def sequence(self, spec: dict) -> dict[str, tuple]:
        """The inputs of the exported function: scaled steps, and how many each row has."""
        shape = ("batch", "time", len(spec["columns"]))
        return {"inputs": (shape, "float32"), "lengths": (("batch",), "int32")}

    def targets(self, data: Labelled, spec: dict, chosen: np.ndarray) -> tuple[dict, dict]:
        """The targets of some sequences: of steps, and of whole ones."""
        raise NotImplementedError

    def outputs_of(self, spec: dict) -> int:
        """How many numbers the network gives."""
        raise NotImplementedError

    def model(self, config: ConfigDict, spec: dict, rngs: nnx.Rngs) -> "Reader":
        return Reader(
            cell_of(config),
            len(spec["columns"]),
            config.hidden_size,
            self.outputs_of(spec),
            pool=config.pool,
            bidirectional=config.bidirectional,
            rngs=rngs,
            **stack_options(config),
        )

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        return batches_of(config, dataset.splits[split], protocol, rows)


def batches_of(config: ConfigDict, sequences: Sequences, protocol: str, rows: slice) -> Batches:
    """Batches of a split, as of `Task.batches`: in another order each epoch of training."""
    train = protocol == "train"
    return SequenceBatches(
        sequences.first(0 if train else config.eval_tokens), config.batch_size, seed=config.seed,
        shuffle=train, rows=rows,
    )  # fmt: skip


class Reader(VectorModel):
    """Outputs for whole sequences: y S + b, y the stack's last output or the mean of all."""

    def __init__(self, *sizes: Any, pool: str, **options: Any):
        """As `VectorModel`; pool: `last` or `mean`."""
        super().__init__(*sizes, **options)
        self.pool = pool

    def whole(self, batch: dict[str, Array], masks: Masks | None = None) -> Array:
        """Outputs (B, K) of a batch of sequences."""
        ys, lengths = self.read_steps(batch, masks)
        if self.pool == "mean":
            return self.project(heads.mean(ys, lengths))
        return self.project(heads.last(ys, lengths, self.stack.bidirectional))

    def read_steps(self, batch: dict[str, Array], masks: Masks | None) -> tuple[Array, Array]:
        """The stack's outputs at every step (T, B, n), and the lengths (B,)."""
        lengths = batch["lengths"]
        xs = jnp.swapaxes(batch["inputs"], 0, 1)
        return self.outputs(xs, None, masks, lengths=lengths)[0], lengths


def read(
    config: ConfigDict, kind: str, say: Callable[[str], None]
) -> tuple[Labelled, list[str], list[str], dict]:
    """The sequences of config.corpus, what was mended, warnings, and the files."""
    if sets.known(config.corpus):
        files = sets.find(config.corpus, config.data_dir, say)
    else:
        files = {"train": own_file(config.corpus)}
        other = own_file(config.test_corpus) if config.test_corpus else None
        if other or (other := counterpart(files["train"])):
            files["test"] = other
    train = files["train"]
    if train.name.startswith("train_FD"):
        if kind != "regress":
            raise UserError(f"{train.name} holds the life left of engines: take the task regress")
        if config.test_corpus:
            raise UserError(f"{train.name} has its test files beside it: leave test_corpus out")
        for part, name in (("test", "test_"), ("rul", "RUL_")):
            files[part] = train.with_name(train.name.replace("train_", name))
        found = read_cmapss(train, cap=config.cap, valid=config.valid_part)
    else:
        found = read_labelled(
            files["train"],
            target=config.target,
            group=config.group,
            time=config.time,
            covariates=columns(config.covariates),
            test=None if files.get("test") == counterpart(train) else files.get("test"),
            kind=kind,
            valid=config.valid_part,
        )
    return *found, files


def shortened(data: Labelled, fraction: float) -> Labelled:
    """The data with only a fraction of the training sequences, of every class; the same for every
    seed of a config, and the smaller fraction a part of the larger."""
    if fraction == 1:
        return data
    rng, keep = np.random.default_rng(0), data.part != 0
    strata = data.labels if data.classes else np.zeros(len(data.part), int)
    for label in np.unique(strata):
        mine = np.flatnonzero((data.part == 0) & (strata == label))
        count = max(round(fraction * len(mine)), 1) if len(mine) else 0
        keep[rng.permutation(mine)[:count]] = True
    chosen = np.flatnonzero(keep)
    pick = lambda a: None if a is None else [a[i] for i in chosen]  # noqa: E731
    return data._replace(
        ids=tuple(pick(data.ids)),
        inputs=pick(data.inputs),
        labels=data.labels[chosen],
        steps=pick(data.steps),
        part=data.part[chosen],
    )
