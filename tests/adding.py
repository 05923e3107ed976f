"""A task from outside the package: the sum of the two marked numbers of a sequence.

Each step holds a number from U(0, 1) and a mark; two steps are marked, and the target is the sum
of their numbers (Hochreiter and Schmidhuber 1997, the adding problem).

    RNNX_TASKS=adding PYTHONPATH=tests python -m rnnx.train --config=ptb_word:tiny \
        --config.task=adding --workdir=DIR
"""

import jax.numpy as jnp
import numpy as np
from rnnx.data.sequences import SequenceBatches, Sequences

from rnnx import heads, tasks
from rnnx.config import Field
from rnnx.model import VectorModel
from rnnx.tasks.network import cell_of, stack_options
from rnnx.tasks.task import Dataset, Task


class Adding(Task):
    """Scores: mse, the mean squared error; count, the sequences."""

    primary = "mse"

    def load(self, config, say):
        splits = {}
        for seed, (split, count) in enumerate({"train": 320, "valid": 50, "test": 50}.items()):
            rng, inputs, targets = np.random.default_rng(seed), [], []
            for _ in range(count):
                x = np.stack([rng.random(rng.integers(5, config.longest + 1)), 0 * rng], 1)
            splits[split] = Sequences({"inputs": inputs}, {"targets": targets})
        return Dataset("adding", splits, {"inputs": 2}, {"adding": "generated"}, (320, 50, 50))

    def model(self, config, spec, rngs):
        options = stack_options(config)
        return VectorModel(cell_of(config), spec["inputs"], config.hidden_size, 1, rngs=rngs, **options)

    def cost(self, net, batch, carries, masks):
        inputs, lengths = jnp.swapaxes(batch["inputs"], 0, 1), batch["lengths"]
        ys, _ = net.outputs(inputs, None, masks, lengths=lengths)
        errors = net.project(heads.last(ys, lengths))[:, 0] - batch["targets"]
        costs = batch["weight"] * errors**2
        return costs, carries, {"mse": (jnp.sum(costs), jnp.sum(batch["weight"]))}

    def batches(self, config, dataset, split, protocol, rows):
        return SequenceBatches(
            dataset.splits[split],
            config.batch_size,
            seed=config.seed,
            shuffle=protocol == "train",
            rows=rows,
        )


tasks.register("adding", Adding(), {"longest": Field(20, "steps of the longest sequence", low=5)})
