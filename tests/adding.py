"""A task from outside the package, and its config: the sum of two marked numbers of a sequence.

Each step is a number from U(0, 1) and a mark; two steps are marked, and the target is the sum of
their numbers (the adding problem of Hochreiter and Schmidhuber 1997, with unequal lengths).
"""

import jax.numpy as jnp
import numpy as np

from rnnx import heads, tasks
from rnnx.config import Field, cell_of, default, variants
from rnnx.data.sequences import SequenceBatches, Sequences
from rnnx.model import VectorModel
from rnnx.tasks.network import stack_options
from rnnx.tasks.task import Dataset, Task


def sequences(seed, count, longest):
    rng, inputs = np.random.default_rng(seed), []
    for length in rng.integers(4, longest, count, endpoint=True):
        marks = np.zeros(length)
        marks[rng.choice(length, 2, replace=False)] = 1
        inputs.append(np.stack([rng.random(length), marks], axis=1).astype(np.float32))
    sums = [x[:, 0] @ x[:, 1] for x in inputs]
    return Sequences({"inputs": inputs}, {"targets": np.array(sums, np.float32)})


class Adding(Task):
    primary, counted = "mse", "sequences"

    def load(self, config, say):
        sizes = {"train": 400, "valid": 100, "test": 100}
        splits = {
            split: sequences(seed, size, config.longest)
            for seed, (split, size) in enumerate(sizes.items())
        }
        sums = {"adding": f"generated, longest {config.longest}"}
        return Dataset("adding", splits, {"features": 2}, sums, tuple(sizes.values()))

    def model(self, config, spec, rngs):
        sizes = spec["features"], config.hidden_size, 1
        return VectorModel(cell_of(config), *sizes, rngs=rngs, **stack_options(config))

    def cost(self, net, batch, carries, masks):
        inputs, lengths = jnp.swapaxes(batch["inputs"], 0, 1), batch["lengths"]
        ys, _ = net.outputs(inputs, None, masks, lengths=lengths)
        errors = net.project(heads.last(ys, lengths))[:, 0] - batch["targets"]
        costs = batch["weight"] * errors**2
        return costs, carries, {"mse": (jnp.sum(costs), jnp.sum(batch["weight"]))}

    def batches(self, config, dataset, split, protocol, rows):
        train = protocol == "train"
        sequences = dataset.splits[split].first(0 if train else config.eval_tokens)
        return SequenceBatches(
            sequences, config.batch_size, seed=config.seed, shuffle=train, rows=rows
        )


tasks.register("adding", Adding(), {"longest": Field(12, "steps of the longest sequence", low=4)})


def get_config(arg=""):
    config = default("adding")
    config.update(cell="lstm", hidden_size=32, optimizer="adam", learning_rate=0.01, epochs=10)
    return variants(arg, config, {"mi": lambda config: config.update(integration="mi")})
