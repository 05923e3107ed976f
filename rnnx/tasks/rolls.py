"""The next step of a piano roll: which keys sound."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import data, heads
from rnnx.config import cell_of
from rnnx.data.batches import Batches, PieceWindows, capped
from rnnx.data.vocabulary import Vocabulary
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.model import VectorModel, restarted
from rnnx.tasks.language import FULL_STEPS
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Function, Sums, Task, Unit, over_window


class Rolls(Task):
    """Predicts each step of a piece from those before it, every key by itself.

        p(key k sounds at t + 1) = sigmoid((y_t S + b)_k)

    The next-step prediction of the RHN paper's optimization experiment. Scores: nll, the mean of
    nats a step, summed over its keys; steps, their number.
    """

    counted = "steps"
    spec_file = "vocabulary.json"

    def check(self, config: ConfigDict) -> None:
        super().check(config)
        if config.get("fraction", 1.0) != 1:  # a field of texts, which a config without task has
            raise UserError("piano rolls are used whole: leave fraction at 1")

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        corpus = data.load(config.corpus, config.level, config.data_dir, say)
        splits = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
        return Dataset(
            name=corpus.name,
            splits=splits,
            spec=corpus.vocabulary,
            sums=corpus.sums,
            sizes=tuple(map(len, splits.values())),
            about=(f"piano rolls, {corpus.vocabulary.size} keys, sizes in steps",),
            fields={"level": corpus.level},
        )

    def at_width(self, config: ConfigDict, spec: Vocabulary, n: int) -> ConfigDict:
        if config.embed_size not in (0, spec.size):
            raise UserError(
                f"piano rolls have no embedding: embed_size={config.embed_size} must be 0"
            )
        config = super().at_width(config, spec, n)
        config.embed_size = spec.size
        return config

    def model(self, config: ConfigDict, spec: Vocabulary, rngs: nnx.Rngs) -> VectorModel:
        options = stack_options(config)
        return VectorModel(
            cell_of(config), spec.size, config.hidden_size, spec.size, rngs=rngs, **options
        )

    def zero_carry(self, net: VectorModel, batch_size: int) -> Any:
        return net.stack.zero_carry(batch_size)

    def cost(
        self, net: VectorModel, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        """Binary cross-entropies of the next step's keys, summed over keys and window."""
        carries = restarted(carries, batch["fresh"])
        inputs, targets = (jnp.swapaxes(batch[name], 0, 1) for name in ("inputs", "targets"))

        def nats(ys: Array, targets: Array) -> Array:
            return heads.keys(net.project(ys), targets)

        nll, carries = net.step_costs(nats, inputs, targets, carries, masks)
        costs, sums = over_window("nll", nll, batch["weight"])
        return costs, carries, sums

    def function(self, config: ConfigDict, spec: Vocabulary) -> Function:
        def call(net: VectorModel, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            ys, carries = net.outputs(jnp.swapaxes(inputs["inputs"], 0, 1), carries)
            return jnp.swapaxes(net.project(ys), 0, 1), carries

        def score(logits: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            nll = heads.keys(logits, batch["targets"])
            return over_window("nll", nll.T, batch["weight"])[1]["nll"]

        meaning = "logits of each key at the next step: a sigmoid gives its probability"
        inputs = {"inputs": (("batch", "time", spec.size), "float32")}
        return Function(inputs, meaning, call, score)

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        """Pieces side by side, each from the zero state: `full` takes one at a time."""
        pieces = dataset.splits[split]
        if protocol == "train":
            return PieceWindows(pieces, config.batch_size, config.num_steps, rows, config.seed)
        pieces = capped(pieces, config.eval_tokens)
        if protocol == "full":
            return PieceWindows(pieces, 1, FULL_STEPS)
        return PieceWindows(pieces, config.batch_size, config.num_steps, rows)

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("nats a step", "nats a step", 4)

    def uninformed(self, spec: Vocabulary) -> float:
        """Every key on or off with equal probability."""
        return spec.size * math.log(2)

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """Every key on or off alike; each key's frequency in training, add-one."""
        train = dataset.splits["train"]
        scored = capped(dataset.splits[split], config.eval_tokens)
        p = (train.frames.sum(axis=0) + 1.0) / (len(train) + 2.0)
        x = np.concatenate([piece[1:] for piece in scored.pieces])
        nats = -np.sum(x * np.log(p) + (1 - x) * np.log(1 - p))
        frequencies = float(nats) / scored.targets
        return {"uniform": self.uninformed(dataset.spec), "symbol frequencies": frequencies}

    def spec_to_json(self, spec: Vocabulary) -> dict:
        return spec.to_json()

    def spec_from_json(self, stored: dict) -> Vocabulary:
        return Vocabulary.from_json(stored)
