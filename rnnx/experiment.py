"""All that a run is made of before it starts: data, network, compiled updates and scores."""

import math
from collections.abc import Sequence
from pathlib import Path

from jax import Array
from ml_collections import ConfigDict

from rnnx import cli, model, optim, parallel, tasks, workdir
from rnnx import config as configs
from rnnx.data.batches import Batches
from rnnx.display import Display, Watched, banner
from rnnx.metrics import Clock, peak_memory
from rnnx.parallel import EVERYWHERE
from rnnx.score import make_scorer, make_splits_scorer, side_by_side, zero_carries
from rnnx.tasks import network
from rnnx.tasks.task import Scores
from rnnx.update import State, make_updates

_MOST_TOGETHER = 32  # batches a call
_MOST_BYTES = 64 << 20  # of a call's batches
_DIVERGED = 5.0  # times the score of knowing nothing


class Experiment:
    """A config made ready to run in a workdir.

    Attributes:
      config: resolved.
      task, dataset: what is learned, and from what.
      mesh: all devices.
      batches: of the training split.
      graphdef: the network's structure.
      state: the arrays, of a new run and then of its end; None while it trains.
      updates, scorers: compiled on first use.
      highest: a primary score above it counts as diverged.
      last_step: updates of the whole run.
      width: batches that a call of `updates` has room for.
      about: what `run.json` will hold.
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path | str,
        display: Display,
        beside: "Experiment | None" = None,
    ):
        """Loads the data, checks the workdir, draws the variables; compiles and writes nothing.

        Args:
          beside: one whose config differs in `config.SHARED` alone; its data, compiled scores and
            width are used here too.

        Raises:
          UserError: on a bad config, bad data, or a workdir of another run.
        """
        self.folder = folder = Path(folder)
        self.display = display
        configs.validate(config)
        self.task = task = tasks.of(config)
        task.check(config)
        self.mesh = parallel.batch_mesh(config.batch_size)
        self.dataset = dataset = beside.dataset if beside else task.load(config, display.print)
        config = config.copy_and_resolve_references()
        config.update(dataset.fields)
        self.config = config = network.resolve(config, dataset.spec)
        if parallel.is_main():
            workdir.check(folder, config, dataset.name, dataset.sums, dataset.places)
        self.rows = parallel.rows_of_process(config.batch_size)
        self.batches = task.batches(config, dataset, "train", "train", self.rows)
        self.last_step = config.epochs * len(self.batches)
        if config.max_steps:
            self.last_step = min(self.last_step, config.max_steps)
        self.graphdef, params = model.split(network.build(config, dataset.spec))
        self.about = workdir.provenance(dataset.name, dataset.sums, dataset.sizes) | {
            "command": cli.command(),
            "updates": self.last_step,
            "parameters": {name: list(p.shape) for name, p in params.items()},
        }
        opt_state = optim.update_rule(config).init(params)
        params, opt_state = parallel.shard((params, opt_state), self.mesh, EVERYWHERE)
        carries = zero_carries(task, self.graphdef, params, config.batch_size, self.mesh)
        self.state = State(params, opt_state, carries)
        self.highest = _DIVERGED * task.uninformed(dataset.spec)
        self.updates = make_updates(task, config, self.graphdef, self.mesh, highest=self.highest)
        if beside and beside.graphdef != self.graphdef:
            raise ValueError(f"{folder} and {beside.folder} hold different networks")
        bytes_each = sum(a.nbytes for a in self.batches[0].values())
        room = max(_MOST_BYTES // max(bytes_each, 1), 1)
        self.width = min(_MOST_TOGETHER, len(self.batches), room)
        self.scorers = {
            "batched": make_scorer(task, self.graphdef, self.mesh),
            "full": make_splits_scorer(task, self.graphdef),
        }
        if beside:  # batches of sequences differ in size, and a program has one width
            self.width, self.scorers = beside.width, beside.scorers

    def announce(self) -> None:
        """Prints what is about to run."""
        known = self.task.baselines(self.config, self.dataset, "valid")
        banner(
            self.display,
            self.config,
            self.dataset,
            self.about,
            f"{len(self.batches):,} updates an epoch",
            {name: self.task.unit(self.config).show(score) for name, score in known.items()},
            self.folder,
        )

    def validate(self, params: dict[str, Array], watched: Watched) -> Scores:
        """The valid scores of parameters by `batched`; raises Stopped on a signal."""
        batches = self._batches("valid", "batched", self.rows)
        self.display.start("validation", len(batches))
        sums = self.scorers["batched"](params, batches, watched)
        self.display.finish()
        return self.task.scores(sums)

    def evaluate(
        self, params: dict[str, Array], splits: Sequence[str], watched: Watched
    ) -> dict[str, Scores]:
        """The scores of parameters on splits by `full`; raises Stopped on a signal.

        Each process scores all rows by itself.
        """
        batches = {split: self._batches(split, "full", slice(None)) for split in splits}
        params, scores = parallel.local_copy(params), {}
        widest = max((p.size for name, p in params.items() if name.endswith(".U")), default=0)
        for group in side_by_side(batches, widest):
            self.display.start(f"{' and '.join(group)} full", max(map(len, group.values())))
            sums = self.scorers["full"](params, list(group.values()), watched)
            scores |= zip(group, map(self.task.scores, sums), strict=True)
            self.display.finish()
        return scores

    def result(self, epoch: int, scores: dict[str, Scores], clock: Clock, skipped: int) -> dict:
        """What `result.json` holds of a run whose best epoch has these scores; skipped: batches
        that were passed over."""
        return {
            "format": workdir.FORMAT,
            "config": self.config.to_dict(),
            "params": self.parameters,
            "epoch": epoch,
            **scores,
            "skipped": skipped,
            "memory_bytes": peak_memory(),
            "tokens_per_second": round(clock.rate, 1),
            "seconds": round(clock.seconds, 3),
            "device": self.about["device"],
            "git": self.about["git"],
        }

    def _batches(self, split: str, protocol: str, rows: slice) -> Batches:
        return self.task.batches(self.config, self.dataset, split, protocol, rows)

    def targets(self, batches: int) -> int:
        """How many targets so many batches hold, in all processes; on average, where they
        differ."""
        return max(batches * self.batches.targets // len(self.batches), 1)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.about["parameters"].values())
