"""A number of a whole sequence: remaining life, a yield, a score."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from rnnx import heads
from rnnx.data.series import Labelled, Scaling
from rnnx.dropout import Masks
from rnnx.errors import UserError
from rnnx.tasks.labelled import Reader, SequenceTask
from rnnx.tasks.task import Dataset, Function, Sums, Unit


class Regress(SequenceTask):
    """A number y S + b, y what the stack gives of the whole sequence; least squares.

    Where the data hold a number for every step, as remaining life does, training takes the mean
    over a sequence's steps, each predicted from what came before it; scores are of the last step.
    The target is scaled by mean and standard deviation of the training part.

    Scores, in the data's own units: rmse, the root of mse; mae.
    """

    kind = "regress"
    primary = "mse"

    def spec_of(self, data: Labelled) -> dict:
        train = data.part == 0
        numbers = data.labels[train]
        if data.steps is not None:
            numbers = np.concatenate([s for s, t in zip(data.steps, train, strict=True) if t])
        scaling = Scaling.of(numbers[:, None].astype(np.float64))
        around = np.mean((data.labels[train] - scaling.mean[0]) ** 2)
        return {
            "target": scaling.to_json(),
            "every_step": data.steps is not None,
            "uninformed": max(float(around), float(scaling.std[0] ** 2)),
        }

    def targets(self, data: Labelled, spec: dict, chosen: np.ndarray) -> tuple[dict, dict]:
        scaling = Scaling.from_json(spec["target"])
        whole = {"targets": scaling.apply(data.labels[chosen]).astype(np.float32)}
        if not spec["every_step"]:
            return {}, whole
        return {"numbers": [scaling.apply(data.steps[i]).astype(np.float32) for i in chosen]}, whole

    def _constants(self, spec: dict, count: int) -> dict[str, np.ndarray]:
        scaling = Scaling.from_json(spec["target"])
        both = {"scale": scaling.std[0], "mean": scaling.mean[0]}
        numbers = {name: np.full(count, value, np.float32) for name, value in both.items()}
        return super()._constants(spec, count) | numbers

    def outputs_of(self, spec: dict) -> int:
        return 1

    def at_width(self, config: ConfigDict, spec: dict, n: int) -> ConfigDict:
        """Refuses to read the future, where every step has a number."""
        if spec["every_step"] and (config.bidirectional or config.pool != "last"):
            raise UserError(
                "these data hold a number for every step, to be known from the past: leave "
                "bidirectional and pool at their defaults"
            )
        return super().at_width(config, spec, n)

    def cost(
        self, net: Reader, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        weight, lengths = batch["weight"], batch["lengths"]
        steps, number = _numbers(net, batch, masks)
        errors = number - batch["targets"]
        costs = weight * errors**2
        if steps is not None:
            inside = jnp.arange(len(steps))[:, None] < lengths
            squares = jnp.where(inside, steps - batch["numbers"].T, 0) ** 2
            costs = weight * jnp.sum(squares, axis=0) / jnp.maximum(lengths, 1)
        errors, count = errors * batch["scale"] * weight, jnp.sum(weight)
        sums = {"mse": (jnp.sum(errors**2), count), "mae": (jnp.sum(jnp.abs(errors)), count)}
        return costs, carries, sums

    def scores(self, sums: Sums) -> dict:
        known = super().scores(sums)
        return {"rmse": known["mse"] ** 0.5} | known

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("root mean square error", "rmse", 4, lambda mse: mse**0.5)

    def uninformed(self, spec: dict) -> float:
        """What the mean of all steps scores in training. Only last steps are scored there, which
        are all alike where a sequence ends at its end of life: that is more than the variance."""
        return spec["uninformed"]

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """The training part's mean."""
        spec, scored = dataset.spec, dataset.splits[split].whole
        targets = scored["targets"][: config.eval_tokens or None] * spec["target"]["std"][0]
        return {"mean": float(np.mean(targets.astype(np.float64) ** 2))}

    def predict(self, net: Reader, batch: dict[str, Array], carries: Any) -> tuple[dict, Any]:
        """The number, in the data's own units, (B,)."""
        _, number = _numbers(net, batch, None)
        return {"number": number * batch["scale"] + batch["mean"]}, carries

    def function(self, config: ConfigDict, spec: dict) -> Function:
        (mean,), (std,) = (np.float32(spec["target"][name]) for name in ("mean", "std"))

        def call(net: Reader, inputs: dict[str, Array], carries: Any) -> tuple[Array, Any]:
            return _numbers(net, inputs, None)[1] * std + mean, carries

        def score(numbers: Array, batch: dict[str, Array]) -> tuple[Any, Any]:
            errors = numbers - (batch["targets"] * std + mean)
            return jnp.sum(batch["weight"] * errors**2), jnp.sum(batch["weight"])

        return Function(self.sequence(spec), "the number, in its own units", call, score)

    def row(self, spec: dict, found: dict) -> dict[str, Any]:
        return {"number": float(found["number"])}


def _numbers(
    net: Reader, batch: dict[str, Array], masks: Masks | None
) -> tuple[Array | None, Array]:
    """Scaled numbers: of every step (T, B) where the data hold those, and of the whole (B,)."""
    if "numbers" not in batch:
        return None, net.whole(batch, masks)[:, 0]
    ys, lengths = net.read_steps(batch, masks)
    steps = net.project(ys)[..., 0]
    return steps, heads.last(steps[..., None], lengths)[:, 0]
