"""The seam: all that the trainer, the scorer, sweeps and reports know of what is learned.

    corpus -> Dataset -> Batches -> model -> cost and sums -> scores

A task is an object without state. Everything it decides follows from the config and from `spec`,
what a network must know of its data (a vocabulary, a number of features): spec is kept with a run,
so a trained network is opened without the data.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx import dropout
from rnnx.data.batches import Batches
from rnnx.dropout import Masks, Rates
from rnnx.errors import UserError

# Name -> (sum, count): added over batches and devices, divided once. Those of `BLOCKS`, of the
# primary score, are arrays (G,): of G blocks of the test part, such as its speakers, which a
# bootstrap draws together. Only a scored test part has them.
Sums = dict[str, tuple[Any, Any]]
BLOCKS = "blocks"
# Score name -> mean, as results hold them; under `counted` the number of targets averaged over;
# under `BLOCKS` sums and counts.
Scores = dict[str, Any]


class Unit(NamedTuple):
    """How a primary score is shown to people."""

    name: str  # `perplexity`
    label: str  # `ppl`
    digits: int
    of: Callable[[float], float] = float  # from the score as it is kept
    logarithmic: bool = False  # whether long ranges of it want a logarithmic axis

    def show(self, score: float) -> str:
        """`ppl 66.02`."""
        return f"{self.label} {self.number(score)}"

    def number(self, score: float) -> str:
        """`66.02`."""
        return f"{self.of(score):,.{self.digits}f}"


def over_window(name: str, costs: Array, weight: Array) -> tuple[Array, Sums]:
    """Costs of steps (T, B), weights (B, T): the cost of each row (B,), and their sums."""
    costs = jnp.sum(costs * weight.T, axis=0)
    return costs, {name: (jnp.sum(costs), jnp.sum(weight))}


def check_fraction(config: ConfigDict) -> None:
    """Raises UserError unless config.fraction is a share that leaves something."""
    if not 0 < config.fraction <= 1:
        raise UserError(f"fraction={config.fraction} must be above 0 and at most 1")


class Dataset(NamedTuple):
    """What a task has loaded."""

    name: str
    splits: dict[str, Any]  # train, valid, test, in a form of the task's own
    spec: Any
    sums: dict[str, str]  # sha256 of the raw files, by name
    sizes: tuple[int, ...]  # of train, valid and test
    about: tuple[str, ...] = ()  # lines for the banner
    fields: dict[str, Any] = {}  # noqa: RUF012 - config fields that the data decide
    places: tuple[str, ...] = ()  # config fields that only say where the data lie


class Unseen(NamedTuple):
    """New data to predict from.

    rows(batch, found) takes a batch and what `Task.predict` gives of it to rows of a table, in
    whose key `row` their order is.
    """

    batches: Batches
    rows: Callable[[dict, dict], list[dict[str, Any]]]
    remarks: list[str] = []  # noqa: RUF012


class Function(NamedTuple):
    """What of a trained network leaves JAX (`rnnx.export`): arrays in, one array out, rows first.

    Attributes:
      inputs: the arrays of a batch that it takes: name -> axes and type. An axis is a number, or
        text of free ones: `batch`, `time`, `time + 24`.
      meaning: of what it gives, for people.
      call: (net, inputs, carries) -> outputs (B, ...) and the state after. In a task that carries
        a state (`zero_carry`) outputs are (B, T, ...), and steps may come one at a time.
      score: (outputs, batch) -> sum and count of the primary score, as `cost` has them.
      least: fewest time steps.
    """

    inputs: dict[str, tuple[tuple[int | str, ...], str]]
    meaning: str
    call: Callable[[Any, dict[str, Array], Any], tuple[Array, Any]]
    score: Callable[[Array, dict[str, Array]], tuple[Any, Any]]
    least: int = 1


class Task:
    """One kind of learning problem. A subclass overrides what differs; `load`, `model`, `cost`
    and `batches` it must.

    Attributes:
      primary: the score that decides the best checkpoint, a key of `cost`'s sums.
      lower_is_better: its direction.
      counted: the name in `scores` of what the primary score is a mean over.
      spec_file: the name in a workdir of what `spec_to_json` gives.
      protocols: of evaluation, beside `full` and `batched`: name -> a function as of
        `tasks.monte_carlo.score`.
    """

    primary = "nll"
    lower_is_better = True
    counted = "targets"
    spec_file = "spec.json"
    protocols: dict[str, Callable] = {}  # noqa: RUF012 - a table, never changed

    def check(self, config: ConfigDict) -> None:
        """Raises UserError, in one line, for fields that do not go together.

        By default for those that only texts have.
        """
        if config.tied or config.one_hot or config.drop_x or config.reset_prob:
            raise UserError(
                "this task has no words: leave tied, one_hot, drop_x and reset_prob at their "
                "defaults"
            )

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        """The data; say is told of anything slow. Raises UserError or Outage.

        Fields of `config.SHARED`, such as the seed, must not change them: runs that differ in these
        alone may be given the data of one.
        """
        raise NotImplementedError

    def at_width(self, config: ConfigDict, spec: Any, n: int) -> ConfigDict:
        """A copy of the config with hidden_size n, and with what follows from it."""
        config = config.copy_and_resolve_references()
        config.hidden_size = n
        return config

    def model(self, config: ConfigDict, spec: Any, rngs: nnx.Rngs) -> nnx.Module:
        """The network of a resolved config, its variables drawn from rngs."""
        raise NotImplementedError

    def zero_carry(self, net: Any, batch_size: int) -> Any:
        """The state that is carried from batch to batch, at its start; arrays (B, ...). () for
        none."""
        return ()

    def masks(
        self, config: ConfigDict, net: Any, key: Array, rows: Array, batch: dict[str, Array]
    ) -> Masks:
        """The dropout masks of an update for these rows of the global batch, or whatever else is
        drawn for it; `cost` is given them.

        By default those of `net.stack`, which drop rates other than 0 need.
        """
        rates = Rates(0.0, config.drop_i, config.drop_h, config.drop_o)
        if not any(rates):
            return Masks()
        return dropout.draw(key, rates, net.stack, rows)

    def cost(
        self, net: Any, batch: dict[str, Array], carries: Any, masks: Masks | None
    ) -> tuple[Array, Any, Sums]:
        """What a batch costs.

        Returns:
          The cost of each row (B,), of which training takes the mean; the state after; and sums
          over the batch, the primary score among them.
        """
        raise NotImplementedError

    def predict(self, net: Any, batch: dict[str, Array], carries: Any) -> tuple[dict, Any]:
        """What the network says of each row: arrays by name, (B, ...); and the state after."""
        raise NotImplementedError

    def function(self, config: ConfigDict, spec: Any) -> Function:
        """What `rnnx.export` takes out of JAX."""
        raise NotImplementedError

    def unseen(self, config: ConfigDict, spec: Any, path: str) -> Unseen:
        """A file of new data, of the form of the training file. Raises UserError."""
        raise NotImplementedError

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        """A split's batches.

        Args:
          protocol: `train`; or `full` and `batched`, which hold every target exactly once, of the
            first config.eval_tokens targets (or sequences) unless that is 0. `full` has batch_size
            1, or gives the same score as if it had.
          rows: of the global batch, those that this process holds.
        """
        raise NotImplementedError

    def scores(self, sums: Sums) -> Scores:
        """What results and logs hold of sums: their means, the primary's count, and blocks.

        A mean of nothing is left out.
        """
        blocks = {BLOCKS: [a.tolist() for a in sums[BLOCKS]]} if BLOCKS in sums else {}
        means = {
            name: float(total) / float(count)
            for name, (total, count) in sums.items()
            if name != BLOCKS and count
        }
        return means | {self.counted: round(float(sums[self.primary][1]))} | blocks

    def unit(self, config: ConfigDict) -> Unit:
        """How the primary score is shown."""
        return Unit(self.primary, self.primary, 4)

    def uninformed(self, spec: Any) -> float:
        """The primary score of knowing nothing; training that is five times worse has diverged.
        inf where there is no such score, or a higher one is better."""
        return np.inf

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """Primary scores of models that know little, on the targets that `full` scores."""
        return {}

    def spec_to_json(self, spec: Any) -> dict:
        """What the workdir keeps of spec: plain JSON."""
        return spec

    def spec_from_json(self, stored: dict) -> Any:
        """The spec that `spec_to_json` gave. Raises UserError for anything else."""
        return stored

    def better(self, score: float, best: float) -> bool:
        """Whether a primary score betters another."""
        return score < best if self.lower_is_better else score > best

    def best(self, scores: Iterable[float]) -> float:
        """The best of some primary scores."""
        return min(scores) if self.lower_is_better else max(scores)
