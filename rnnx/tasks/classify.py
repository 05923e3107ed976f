"""The class of a whole sequence."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from rnnx import heads
from rnnx.data.series import Labelled
from rnnx.dropout import Masks
from rnnx.tasks.labelled import Reader, SequenceTask
from rnnx.tasks.task import Dataset, Function, Sums, Unit


class Classify(SequenceTask):
    """p(class) = softmax(y S + b), y what the stack gives of the whole sequence.

    Scores: nll, mean nats a sequence; accuracy, the share whose most probable class is right.
    """

    kind = "classify"

    def spec_of(self, data: Labelled) -> dict:
        return {"classes": list(data.classes)}

    def targets(self, data: Labelled, spec: dict, chosen: np.ndarray) -> tuple[dict, dict]:
        return {}, {"targets": data.labels[chosen].astype(np.int32)}

    def outputs_of(self, spec: dict) -> int:
        return len(spec["classes"])

    def cost(
        self, net: Reader, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        logits, weight = net.whole(batch, masks), batch["weight"]
        costs = weight * heads.softmax(logits, batch["targets"])
        right = weight * (jnp.argmax(logits, axis=-1) == batch["targets"])
        count = jnp.sum(weight)
        sums = {"nll": (jnp.sum(costs), count), "accuracy": (jnp.sum(right), count)}
        return costs, carries, sums

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("log loss, nats a sequence", "log loss", 4)

    def uninformed(self, spec: dict) -> float:
        """Every class equally likely."""
        return math.log(len(spec["classes"]))

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """Every class equally likely; the training part's frequencies, add-one."""
        classes = len(dataset.spec["classes"])
        train, scored = (dataset.splits[s].whole["targets"] for s in ("train", split))
        counts = np.bincount(train, minlength=classes) + 1.0
        scored = scored[: config.eval_tokens or None]
        nats = -np.log(counts / counts.sum())[scored]
        return {"uniform": math.log(classes), "class frequencies": float(nats.mean())}

    def predict(self, net: Reader, batch: dict[str, Array], carries: Any) -> tuple[dict, Any]:
        """The probability of each class, (B, C)."""
        return {"probabilities": jax.nn.softmax(net.whole(batch), axis=-1)}, carries

    def function(self, config: ConfigDict, spec: dict) -> Function:
        def call(net: Reader, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            return jax.nn.softmax(net.whole(inputs), axis=-1), carries

        def score(probabilities: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            p = jnp.take_along_axis(probabilities, batch["targets"][:, None], axis=-1)[:, 0]
            nats = -jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
            return jnp.sum(batch["weight"] * nats), jnp.sum(batch["weight"])

        return Function(self.sequence(spec), "the probability of each class", call, score)

    def row(self, spec: dict, found: dict) -> dict[str, Any]:
        """The class, and the probability of each."""
        p = found["probabilities"]
        columns = {f"p({name})": float(x) for name, x in zip(spec["classes"], p, strict=True)}
        return {"class": spec["classes"][int(np.argmax(p))], **columns}
