"""The training loop: `run` takes an experiment from where it stands to its result.

The loop is a generator that yields each call of updates and is sent its results, so that several
runs can be computed as one program (`sweep/replicas.py`).
"""

import contextlib
import math
import signal
import time
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from rnnx import cli, optim, parallel, recovery, workdir
from rnnx.checkpoint import Checkpoints
from rnnx.display import Stopped, Watched
from rnnx.duration import duration
from rnnx.errors import Diverged, writing
from rnnx.experiment import Experiment
from rnnx.metrics import Clock, Log, Pace
from rnnx.parallel import BATCHES
from rnnx.recovery import Progress, Saver
from rnnx.tasks.task import Scores
from rnnx.update import Call, State, all_finite

_MOST_SKIPPED = 20  # batches passed over in a row
_MOST_ROLLBACKS = 8  # in a row to one checkpoint

Calls = Generator[Call, tuple[State, dict[str, Any]], Any]  # is sent the state and metrics after


class Pending(NamedTuple):
    """A call of updates whose metrics are still on the device."""

    before: int  # updates before it
    count: int
    rate: float
    begun: float
    metrics: dict[str, Any]


def run(experiment: Experiment) -> dict:
    """Trains from where the run stands to its end; returns what `result.json` holds.

    Raises:
      UserError: when the workdir can't be used, or the numbers are no longer finite.
      SystemExit: 128 + N on signal N (SIGINT, SIGTERM, SIGHUP), with everything saved.
    """
    stop, after = cli.Stop(several=not parallel.single()), None
    pace = Pace(experiment.width)
    with stop, contextlib.closing(training(experiment, stop, pace)) as calls:
        while True:
            try:
                call = calls.send(after)
            except StopIteration as end:
                return end.value
            after = experiment.updates(*call)


def training(experiment: Experiment, stop: cli.Stop, pace: Pace) -> Calls:
    """The body of `run`: yields each call of updates, is sent what it gives, and returns and raises
    as `run` does. pace: of all runs that are computed together."""
    begun, folder, say = time.perf_counter(), experiment.folder, experiment.display.print
    lock = workdir.locked(folder) if parallel.is_main() else contextlib.nullcontext()
    # Closing the log writes too.
    with lock, writing(folder), contextlib.ExitStack() as closing:
        closing.callback(experiment.display.finish)
        checkpoints = Checkpoints(folder, say)
        closing.callback(checkpoints.close)
        # From here on the trainer alone holds the state: its arrays are donated at each update.
        state, experiment.state = experiment.state, None
        found = recovery.resume(checkpoints, folder, state, experiment.targets(1))
        state, progress = found or (state, Progress())
        if found:
            say(f"resuming from step {progress.step:,}, in epoch {progress.epoch + 1}")
        ended = progress.step >= experiment.last_step
        if ended and (result := recovery.result(folder, experiment.config)):
            say(f"this run is complete: {folder / 'result.json'}")
            experiment.state = state
            return result
        recovery.agree(checkpoints, experiment.task, progress, state.params)
        trainer = Trainer(experiment, checkpoints, stop, pace, state, progress, begun)
        closing.callback(lambda: trainer.log.close())
        result = yield from trainer.run(new=not found)
        experiment.state = trainer.state
        return result


class Trainer:
    """The loop over epochs, with what it holds open."""

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        stop: cli.Stop,
        pace: Pace,
        state: Any,
        progress: Progress,
        begun: float,
    ):
        """begun: when the command started to run, for the time to the first update."""
        self.experiment, self.checkpoints = experiment, checkpoints
        self.stop, self.pace = stop, pace
        self.config, self.task = experiment.config, experiment.task
        self.display, self.unit = experiment.display, self.task.unit(self.config)
        self.state, self.progress, self.begun = state, progress, begun
        self._open()
        self.watched = Watched(self.display, stop)
        self.settled = 0.0  # when the last call was over
        self.compiled: set[tuple] = set()  # shapes of calls
        self.pending: Pending | None = None
        always = self.config.checkpoint_every > 0 or not parallel.single()
        self.saver = Saver(checkpoints, progress.step, always)
        self.last_valid: Scores | None = None
        self.rolled_back_to, self.rollbacks = -1, 0  # a step, and how often in a row

    def run(self, new: bool) -> Calls:
        """All epochs that are left; returns the final scores."""
        experiment = self.experiment
        if parallel.is_main():
            spec = self.task.spec_file, self.task.spec_to_json(experiment.dataset.spec)
            workdir.write(experiment.folder, self.config, *spec, experiment.about)
            (experiment.folder / "result.json").unlink(missing_ok=True)
        if new:
            self.save()  # from here on a run without a checkpoint is a damaged one
        batches = len(experiment.batches)
        # A signal may come between an epoch's last update and the end of its validation.
        while self.progress.step < experiment.last_step or self.progress.batch == batches:
            try:
                yield from self.epoch()
            except Diverged as error:
                self.roll_back(error)
        return self.finish()

    def epoch(self) -> Calls:
        """The rest of an epoch: updates, then validation, schedule and checkpoint."""
        config, progress, batches = self.config, self.progress, self.experiment.batches
        batches.begin(progress.epoch)
        rate = optim.learning_rate(config, progress.epoch, progress.halvings)
        last = min(len(batches), progress.batch + self.experiment.last_step - progress.step)
        self.display.start(f"epoch {progress.epoch + 1}", last, progress.batch)
        self.clock.start()
        every = config.checkpoint_every
        while progress.batch < last:
            count = min(self.pace.together, last - progress.batch)
            count = min(count, every - progress.step % every) if every else count
            yield from self.call(batches.alike(progress.batch, count), rate)
            if self._stop_requested():
                self.save()
                self.leave()
            due = progress.step % every == 0 if every else self.saver.late
            if due and progress.batch < last:
                self.save()
                self.clock.start()
        self.settle()
        self.clock.stop()
        if not parallel.single():  # no signal can stop the evaluation: it may be killed in it
            self.save()
        try:
            if progress.batch == len(batches):
                self.end_epoch(rate)
            else:  # max_steps ends the run in mid-epoch
                self.last_valid = self.validate()
        except Stopped:  # saved as it is: the epoch is ended when the run continues
            self.save()
            self.leave()
        stopped = self._stop_requested()
        if stopped or self.saver.due or progress.step >= self.experiment.last_step:
            self.save()
        if stopped:
            self.leave()

    def call(self, count: int, rate: float) -> Calls:
        """Dispatches `count` updates; the device may still be computing them on return."""
        experiment, progress = self.experiment, self.progress
        stacked = experiment.batches.together(progress.batch, count, experiment.width)
        stacked = {
            name: parallel.shard_rows(a, experiment.mesh, BATCHES) for name, a in stacked.items()
        }
        shapes = tuple(a.shape for a in stacked.values())
        if compiles := shapes not in self.compiled:
            self.settle()  # what came before is over, and counts
            self.clock.lap(0)
            self.compiled.add(shapes)
        seed, step = np.uint32(self.config.seed), np.int32(progress.step)
        self.state, metrics = yield Call(
            self.state, stacked, seed, step, np.int32(count), np.float32(rate)
        )
        begun = time.perf_counter()
        self.settle()  # the call before: the device is not kept waiting for the log
        self.pending = Pending(progress.step, count, rate, begun, metrics)
        progress.step += count
        progress.batch += count
        if parallel.must_wait(experiment.mesh) or compiles:
            jax.block_until_ready(metrics)
        if not compiles:
            self.clock.lap(experiment.targets(count))
        else:
            self.clock.start()
            if len(self.compiled) == 1:
                since = time.perf_counter() - self.begun
                self.display.print(f"first update {since:.1f} s after the start")
        self.display.update(progress.batch, self._note())

    def settle(self) -> None:
        """Fetches the metrics of the last call's updates, checks and logs them.

        Raises:
          Diverged: when loss or gradient are no longer finite, or the score is far worse than
            that of knowing nothing, and such batches are not to be passed over.
        """
        if self.pending is None:
            return
        call, self.pending = self.pending, None
        metrics = jax.device_get(call.metrics)
        if parallel.single():  # several processes would have to agree, and have no common clock
            # The device began this call at its dispatch, or when it had finished the one before.
            seconds = time.perf_counter() - max(call.begun, self.settled)
            self.pace.note(call.count, seconds)
        self.settled = time.perf_counter()
        for i in range(call.count):
            values = {name: float(metrics[name][i]) for name in ("loss", "grad_norm")}
            sums = jax.tree.map(lambda series, i=i: float(series[i]), metrics["sums"])
            if math.isfinite(sum(values.values()) + sums[self.task.primary][0]):
                self.progress.add(sums)
                self.progress.skipped_in_a_row = 0
            else:
                self._pass_over(values, call.before + i + 1)
            means = {name: total / (count or 1.0) for name, (total, count) in sums.items()}
            step, epoch = call.before + i + 1, self.progress.epoch
            self.log.write("step", step, epoch=epoch, lr=call.rate, **values, **means)

    def _pass_over(self, values: dict[str, float], step: int) -> None:
        """Counts a batch that was passed over, or raises where it must not be."""
        progress = self.progress
        progress.skipped_in_a_row += 1
        what = f"loss {values['loss']:g}, gradient norm {values['grad_norm']:g}"
        if self.config.on_nan != "skip" or progress.skipped_in_a_row > _MOST_SKIPPED:
            self._diverged(what, step)
        progress.skipped += 1
        self.display.print(f"{what} at step {step:,}: batch passed over")

    def _diverged(self, what: str, step: int) -> None:
        rate = optim.learning_rate(self.config, self.progress.epoch, self.progress.halvings)
        raise Diverged(f"{what} at step {step:,} (learning rate {rate:g})", self.saver.step)

    def roll_back(self, error: Diverged) -> None:
        """Goes back to the newest checkpoint, at half of the learning rate that diverged.

        Raises:
          Diverged: that error, when the config does not ask for it, or after too many tries.
        """
        if self.config.on_nan != "rollback":
            raise error
        halvings = self.progress.halvings + 1
        self.pending = None
        saved = self.saver.step == self.progress.step  # before the validation that failed
        if saved and not self.checkpoints.drop_newest():
            raise error
        found = recovery.load(self.checkpoints, self.state, self.experiment.targets(1))
        if found is None:
            raise error
        self.state, self.progress = found
        progress = self.progress
        recovery.agree(self.checkpoints, self.task, progress, self.state.params)
        self.rollbacks = self.rollbacks + 1 if progress.step == self.rolled_back_to else 1
        self.rolled_back_to = progress.step
        if self.rollbacks > _MOST_ROLLBACKS:
            raise error
        progress.halvings = halvings
        self.log.close()
        self._open()
        self.saver.roll_back(progress.step)
        rate = optim.learning_rate(self.config, progress.epoch, halvings)
        self.display.print(f"{error.what}: back to step {progress.step:,}, learning rate {rate:g}")

    def end_epoch(self, rate: float) -> None:
        """Validates, keeps the best parameters, and moves the schedule on."""
        config, progress, primary = self.config, self.progress, self.task.primary
        # No sums where every batch was passed over.
        train = self.task.scores(progress.sums)[primary] if progress.sums else math.nan
        valid = self.validate()
        better = progress.best is None or self.task.better(valid[primary], progress.best)
        shown = {name: value for name, value in valid.items() if name != self.task.counted}
        self.log.write(
            "epoch",
            progress.step,
            epoch=progress.epoch,
            lr=rate,
            **{f"train_{primary}": train},
            **{f"valid_batched_{name}": value for name, value in shown.items()},
            tokens_per_second=round(self.clock.rate, 1),
            seconds=round(self.clock.seconds, 3),
        )
        self.display.print(
            f"epoch {progress.epoch + 1}/{config.epochs}  train {self.unit.show(train)}  "
            f"valid {self.unit.show(valid[primary])}{' (best)' if better else ''}  "
            f"lr {rate:.4g}  {self.clock.rate:,.0f} {self.task.counted}/s  "
            f"{duration(self.clock.seconds)}"
        )
        if better:
            progress.best, progress.best_step = valid[primary], progress.step
            progress.bad_epochs = 0
            self.save_best(valid)
        else:
            progress.bad_epochs += 1
            if config.patience and progress.bad_epochs >= config.patience:
                progress.halvings, progress.bad_epochs = progress.halvings + 1, 0
        every = config.snapshot_every
        if every and (progress.epoch + 1) % every == 0:
            info = {"epoch": progress.epoch, "valid": valid}
            self.checkpoints.save_epoch(progress.step, self.state.params, info)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.sums = {}

    def validate(self) -> Scores:
        """The valid scores by the batched protocol.

        Raises:
          Diverged: when the primary score is not finite.
        """
        scores = self.experiment.validate(self.state.params, self.watched)
        if not math.isfinite(scores[self.task.primary]):
            self._diverged(f"valid score {scores[self.task.primary]}", self.progress.step)
        return scores

    def save(self) -> None:
        """Checkpoints everything the run needs to continue, and stops the clock.

        Raises:
          Diverged: when a parameter is not finite: the loss tells so only one update later.
        """
        self.settle()
        if self.clock.running:
            self.clock.stop()
        progress = self.progress
        if not all_finite(self.state.params):
            self._diverged("parameters not finite", progress.step)
        progress.seconds, progress.targets = self.clock.seconds, self.clock.targets
        progress.log_position = self.log.position
        self.saver.write(progress.step, self.state, progress)

    def save_best(self, valid: Scores) -> None:
        """Keeps the parameters for evaluation and sampling."""
        progress = self.progress
        epoch = progress.epoch if progress.batch else progress.epoch - 1
        info = {"step": progress.step, "epoch": epoch, "valid": valid}
        self.saver.hold_best(progress.step, self.state.params, info)

    def finish(self) -> dict:
        """Scores the best parameters by the full protocol and writes `result.json`.

        The test split is read here, once, and nowhere else; not at all with score_test=False.
        """
        experiment, progress, primary = self.experiment, self.progress, self.task.primary
        if progress.batch:
            self.display.print(
                f"ended by max_steps={self.config.max_steps:,}, in epoch {progress.epoch + 1}"
            )
        try:
            # Stopped in mid-epoch by max_steps, these parameters compete too; and they are all
            # there is where the best were lost.
            if progress.batch or not self.checkpoints.has_best:
                valid = self.last_valid or self.validate()
                if progress.best is None or self.task.better(valid[primary], progress.best):
                    self.save_best(valid)
                    self.saver.write_best()
            params, info = self.checkpoints.restore_best(self.state.params)
            splits = ("valid", "test")[: 1 + self.config.score_test]
            scores = experiment.evaluate(params, splits, self.watched)
        except Stopped:
            self.leave()
        result = experiment.result(info["epoch"], scores, self.clock, progress.skipped)
        if progress.skipped:
            self.display.print(f"{progress.skipped:,} of {progress.step:,} batches passed over")
        if parallel.is_main():
            workdir.write_json(experiment.folder / "result.json", result)
        return result

    def _stop_requested(self) -> bool:
        """Whether a signal has come; of several processes, to any, and all have come to know.

        The processes agree by a counter that orbax uses too and takes for the step, so they can't
        ask within an evaluation.
        """
        step = self.progress.step
        if not parallel.single() and multihost_utils.reached_preemption_sync_point(step):
            self.stop.number = signal.SIGTERM
        return bool(self.stop.number)

    def leave(self) -> None:
        """Ends the process on a signal, everything being saved."""
        name, step = signal.Signals(self.stop.number).name, self.progress.step
        self.display.print(f"{name}: saved at step {step:,}; the same command continues")
        raise SystemExit(128 + self.stop.number)

    def _open(self) -> None:
        """Opens the log, cut back to where the run stands, and the clock."""
        folder, progress, silent = self.experiment.folder, self.progress, not parallel.is_main()
        with writing(folder):
            self.log = Log(folder, progress.log_position, progress.step, silent=silent)
        self.clock = Clock(progress.seconds, progress.targets, self.pace.share)

    def _note(self) -> str:
        """The epoch's training score so far and the rate, for the progress bar."""
        if not self.progress.sums:
            return ""
        score = self.task.scores(self.progress.sums)[self.task.primary]
        return f"train {self.unit.show(score)}  {self.clock.rate:,.0f} {self.task.counted}/s"
