"""Trains a language model by a config, data-parallel on all devices.

    python -m rnnx.train --config=configs/ptb_word.py --workdir=DIR [--config.depth=5 ...]

The same command on the same workdir goes on where the run stopped, with the same numbers to the
last bit as if it had not. --dry_run builds everything, runs two updates, one evaluation, one save
and restore, and leaves nothing behind.
"""

import contextlib
import dataclasses
import math
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax import Array
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, config_flags

from rnnx import batches, cli, data, evaluate, model, optim, parallel, workdir
from rnnx import config as configs
from rnnx.checkpoint import Checkpoints
from rnnx.display import Display, banner, summary
from rnnx.errors import Diverged, Outage, PeersLost, UserError
from rnnx.metrics import Clock, Log, Score, duration, uniform
from rnnx.parallel import EVERYWHERE
from rnnx.update import State, all_finite, make_updates

FLAGS = flags.FLAGS
_MOST_TOGETHER = 32  # windows a call
# A loss of so many times that of knowing nothing is that of a network gone astray.
_ASTRAY = 5.0
_MOST_SKIPPED = 20  # windows passed over in a row
_MOST_HALVINGS = 8  # of the learning rate, from one checkpoint


class Stopped(Exception):
    """A signal came in the middle of an evaluation."""


class Watched(NamedTuple):
    """A display that raises `Stopped` when a signal has come."""

    display: Display
    stop: cli.Stop

    def update(self, done: int) -> None:
        """As the display's."""
        if self.stop.number:
            raise Stopped
        self.display.update(done)


@dataclasses.dataclass
class Progress:
    """Where a run stands: the rest of what it needs to go on. Every value is plain JSON."""

    step: int = 0  # updates done
    epoch: int = 0
    window: int = 0  # windows of this epoch done
    nats: float = 0.0  # of this epoch's training windows
    skipped: int = 0  # of this epoch's windows, those passed over
    skipped_in_a_row: int = 0
    best_nll: float = math.inf  # valid, by the batched protocol
    best_step: int = 0
    bad_epochs: int = 0  # epochs since the best, or since the last halving
    halvings: int = 0
    seconds: float = 0.0  # of training, without compilation and evaluation
    tokens: int = 0  # that those seconds were spent on
    log_position: int = 0  # bytes of metrics.jsonl


class Trainer:
    """One run in one workdir: `run` reads top to bottom what happens to it."""

    def __init__(self, config: ConfigDict, folder: Path, display: Display):
        """Loads the corpus, checks the workdir, draws the variables; compiles and writes nothing.

        Raises:
          UserError: on a bad config, bad data, or a workdir of another run.
        """
        configs.validate(config)
        self.folder, self.display = folder, display
        self.mesh = parallel.batch_mesh(config.batch_size)
        self.corpus = data.load(config.corpus, config.level, config.data_dir, display.print)
        config = config.copy_and_resolve_references()
        config.level = self.corpus.level
        if self.corpus.name not in data.BUILT_IN:
            config.corpus = str(Path(config.corpus).expanduser().resolve())
        vocab_size = self.corpus.vocabulary.size
        self.config = config = model.resolve(config, vocab_size)
        if parallel.is_main():
            workdir.check(folder, config, self.corpus)
        rows = parallel.rows_of_process(config.batch_size)
        self.windows = batches.training_windows(
            self.corpus.train, config.batch_size, config.num_steps, rows, config.seed
        )
        self.last_step = config.epochs * len(self.windows)
        if config.max_steps:
            self.last_step = min(self.last_step, config.max_steps)
        self.graphdef, params = model.split(model.build(config, vocab_size))
        self.about = workdir.provenance(self.corpus)
        self.about |= {"command": cli.command(), "updates": self.last_step}
        self.about["parameters"] = {name: list(p.shape) for name, p in params.items()}
        opt_state = optim.update_rule(config).init(params)
        params, opt_state = parallel.shard((params, opt_state), self.mesh, EVERYWHERE)
        self.state = State(params, opt_state, self._zero_carries(params))
        self.progress = Progress()
        highest = _ASTRAY * uniform(config.level, vocab_size).nll
        self.updates = make_updates(config, self.graphdef, self.mesh, highest=highest)
        self.width, self.together = min(_MOST_TOGETHER, len(self.windows)), 1
        self.score = evaluate.make_scorer(self.graphdef, self.mesh)
        self.pending: tuple[int, int, float, float, dict[str, Array]] | None = None
        self.settled = 0.0
        self.saved_step = 0
        self.stop = cli.Stop(several=not parallel.single())
        self.watched = Watched(display, self.stop)
        self.last_valid: Score | None = None

    def announce(self) -> None:
        """Prints what is about to run."""
        windows = len(self.windows)
        banner(self.display, self.config, self.corpus, self.about, windows, self.folder)

    def run(self) -> dict:
        """Trains from where the run stands to its end; returns what `result.json` holds.

        Raises:
          UserError: when the workdir can't be used, or the numbers are no longer finite.
          SystemExit: 128 + N on signal N (SIGINT, SIGTERM, SIGHUP), with everything saved.
        """
        lock = workdir.locked(self.folder) if parallel.is_main() else contextlib.nullcontext()
        with lock, self.stop, contextlib.ExitStack() as closing:
            closing.callback(self.display.finish)
            self.begun = time.perf_counter()
            closing.enter_context(self._writing())
            self.checkpoints = Checkpoints(self.folder, self.display.print)
            closing.callback(self.checkpoints.close)
            begun = self.restore()
            finished = self.folder / "result.json"
            if self.progress.step >= self.last_step and finished.exists():
                self.display.print(f"this run is complete: {finished}")
                return workdir.read_json(finished, workdir.FORMAT)
            self.agree_on_best()
            self.log = self._open_log()
            closing.callback(lambda: self.log.close())
            if parallel.is_main():
                workdir.write(self.folder, self.config, self.corpus, self.about)
                finished.unlink(missing_ok=True)
            self.clock = Clock(self.progress.seconds, self.progress.tokens)
            if not begun:
                self.save()  # from here on a run without a checkpoint is a damaged one
            while self.progress.step < self.last_step or self._epoch_to_end():
                try:
                    self.epoch()
                except Diverged as error:
                    self.roll_back(error)
            return self.finish()

    def _open_log(self) -> Log:
        """The metrics, cut back to where the run stands; only the first process writes them."""
        position, step = self.progress.log_position, self.progress.step
        return Log(self.folder, position, step, silent=not parallel.is_main())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells in one line that something can't be written."""
        try:
            yield
        except OSError as error:
            raise Outage(
                f"cannot write to the workdir {self.folder} ({error.strerror or error}); the last "
                f"checkpoint, of step {self.saved_step:,}, stays: make that possible, and the "
                "same command continues"
            ) from error

    def restore(self) -> bool:
        """Goes back to the newest checkpoint; False if the run has not begun.

        Raises:
          UserError: when none loads, or it is gone though the run had come further.
        """
        if self.load_latest():
            self.display.print(
                f"continuing behind step {self.progress.step:,}, in epoch {self.progress.epoch + 1}"
            )
            return True
        if self.checkpoints.has_best or (self.folder / "result.json").exists():
            raise UserError(
                f"{self.folder}/checkpoints/latest is gone, but the run had come further: bring "
                "it back, or choose another --workdir"
            )
        return False

    def load_latest(self) -> bool:
        """State and progress of the newest checkpoint; False if there is none."""
        found = self.checkpoints.restore_latest(self.state)
        if found is None:
            return False
        self.state, self.progress = found[0], Progress(**found[1])
        self.saved_step = self.progress.step
        return True

    def agree_on_best(self) -> None:
        """Has the kept best be that of where the run stands.

        Not of a run that is over: what stood at its end when it was stopped in mid-epoch competed
        for the best, and no checkpoint knows of that.
        """
        progress = self.progress
        self.checkpoints.drop_best_behind(progress.best_step)
        if progress.best_step:
            info = self.checkpoints.best_info(self.state.params)
            if info is None or info["step"] != progress.best_step:
                # Damage took the best: an older one takes its place, or the next epoch's.
                progress.best_nll = info["valid"]["nll"] if info else math.inf
                progress.best_step = info["step"] if info else 0

    def _epoch_to_end(self) -> bool:
        """Whether a signal came between an epoch's last update and the end of its validation."""
        return self.progress.window == len(self.windows)

    def roll_back(self, error: Diverged) -> None:
        """Goes back to the newest checkpoint, at half of the learning rate that led astray.

        Raises:
          Diverged: that error, when the run is not to go on, or was rolled back too often.
        """
        if self.config.on_nan != "rollback":
            raise error
        halvings = self.progress.halvings + 1
        self.pending = None
        self.load_latest()
        self.agree_on_best()
        progress = self.progress
        if halvings - progress.halvings > _MOST_HALVINGS:
            raise error
        progress.halvings = halvings
        self.log.close()
        self.log = self._open_log()
        self.clock = Clock(progress.seconds, progress.tokens)
        rate = optim.learning_rate(self.config, progress.epoch, halvings)
        self.display.print(f"{error.what}: back to step {progress.step:,}, learning rate {rate:g}")

    def epoch(self) -> None:
        """The rest of an epoch: updates, then validation, schedule and checkpoint."""
        config, progress = self.config, self.progress
        if progress.window == 0:
            self.state = self.state._replace(carries=self._zero_carries(self.state.params))
        self.windows.begin(progress.epoch)
        rate = optim.learning_rate(config, progress.epoch, progress.halvings)
        last_window = min(len(self.windows), progress.window + self.last_step - progress.step)
        self.display.start(f"epoch {progress.epoch + 1}", last_window, progress.window)
        self.clock.start()
        every = config.checkpoint_every
        while progress.window < last_window:
            count = min(self.together, last_window - progress.window)
            count = min(count, every - progress.step % every) if every else count
            x, y, *weighting = self._put(progress.window, count)
            numbers = np.int32(progress.step), np.int32(count), np.float32(rate)
            self.state, metrics = self.updates(self.state, x, y, *numbers, *weighting)
            begun = time.perf_counter()
            self.settle()  # the call before: the device is not kept waiting for the log
            self.pending = progress.step, count, rate, begun, metrics
            progress.step += count
            progress.window += count
            if parallel.must_wait(self.mesh) or not self.clock.running:
                jax.block_until_ready(metrics)
            if self.clock.lap(self._targets(count)) is None:
                since = time.perf_counter() - self.begun
                self.display.print(f"first update {since:.1f} s after the start")
            self.display.update(progress.window, self._note(count))
            if self._told_to_stop():
                self.save()
                self.leave()
            if every and progress.step % every == 0 and progress.window < len(self.windows):
                self.save()
                self.clock.start()
        self.settle()
        self.clock.stop()
        if not parallel.single():  # whom no signal stops in an evaluation, it may be killed in
            self.save()
        try:
            if progress.window == len(self.windows):
                self.end_epoch(rate)
            else:  # max_steps ends the run in mid-epoch
                self.last_valid = self.validate()
        except Stopped:  # saved as it is: the epoch is ended when the run goes on
            self.save()
            self.leave()
        self.save()
        if self._told_to_stop():
            self.leave()

    def _told_to_stop(self) -> bool:
        """Whether a signal has come; of several processes, to any, and all have come to know.

        JAX has them agree on a number that they come by. It can be no other than the step, as
        orbax asks with that too; so they do not ask within an evaluation.
        """
        if not parallel.single() and multihost_utils.reached_preemption_sync_point(
            self.progress.step
        ):
            self.stop.number = signal.SIGTERM
        return bool(self.stop.number)

    def _pace(self, count: int, seconds: float) -> None:
        """Lets a call grow to one or two seconds: costs per call vanish, signals wait no longer.

        Where several processes must agree, and have no common clock, it stays at one window.
        """
        if seconds < 1.0 and count == self.together and parallel.single():
            self.together = min(2 * self.together, self.width)

    def leave(self) -> None:
        """Ends the process on a signal, everything being saved."""
        name = signal.Signals(self.stop.number).name
        self.display.print(
            f"{name}: saved at step {self.progress.step:,}; the same command continues"
        )
        raise SystemExit(128 + self.stop.number)

    def settle(self) -> None:
        """Fetches the metrics of the last call's updates, checks and logs them.

        Raises:
          Diverged: when loss or gradient are no longer finite, or the loss is astray, and such
            windows are not to be passed over.
        """
        if self.pending is None:
            return
        (before, count, rate, begun, metrics), self.pending = self.pending, None
        metrics = jax.device_get(metrics)
        # The device began this call when it was told to, or else when it was through with the last.
        self._pace(count, time.perf_counter() - max(begun, self.settled))
        self.settled = time.perf_counter()
        for i in range(count):
            values = {name: float(series[i]) for name, series in metrics.items()}
            if math.isfinite(sum(values.values())):
                self.progress.nats += values["nats"]
                self.progress.skipped_in_a_row = 0
            else:
                self._pass_over(values, before + i + 1)
            self.log.write("step", before + i + 1, epoch=self.progress.epoch, lr=rate, **values)

    def _pass_over(self, values: dict[str, float], step: int) -> None:
        """Counts a window that was passed over, or raises where it must not be."""
        progress = self.progress
        progress.skipped_in_a_row += 1
        what = f"loss {values['loss']:g}, gradient norm {values['grad_norm']:g}"
        if self.config.on_nan != "skip" or progress.skipped_in_a_row > _MOST_SKIPPED:
            self._diverged(what, step)
        progress.skipped += 1
        self.display.print(f"{what} at step {step:,}: window passed over")

    def _diverged(self, what: str, step: int) -> None:
        config, progress = self.config, self.progress
        rate = optim.learning_rate(config, progress.epoch, progress.halvings)
        good = f"step {self.saved_step:,}" if self.saved_step else "none yet"
        raise Diverged(
            f"{what} at step {step:,} (learning rate {rate:g})",
            f"Last good checkpoint: {good}. Lower learning_rate or max_grad_norm, or use "
            "dtype=float32, in a new workdir; or go on from that checkpoint at half the learning "
            "rate with --config.on_nan=rollback",
        )

    def end_epoch(self, rate: float) -> None:
        """Validates, keeps the best parameters, and moves the schedule on."""
        config, progress = self.config, self.progress
        # One target where all windows were passed over: there is no score then, but an epoch.
        train = Score(progress.nats, max(self._targets(len(self.windows) - progress.skipped), 1))
        valid = self.validate()
        better = valid.nll < progress.best_nll
        self.log.write(
            "epoch",
            progress.step,
            epoch=progress.epoch,
            lr=rate,
            train_nll=train.nll,
            valid_batched_nll=valid.nll,
            valid_batched_ppl=valid.ppl,
            valid_batched_bpc=valid.bpc,
            tokens_per_second=round(self.clock.rate, 1),
            seconds=round(self.clock.seconds, 3),
        )
        self.display.print(
            f"epoch {progress.epoch + 1}/{config.epochs}  "
            f"train {train.show(config.level)}  valid {valid.show(config.level)}"
            f"{' (best)' if better else ''}  lr {rate:.4g}  {self.clock.rate:,.0f} tokens/s  "
            f"{duration(self.clock.seconds)}"
        )
        if better:
            progress.best_nll, progress.best_step = valid.nll, progress.step
            progress.bad_epochs = 0
            self.save_best(valid)
        else:
            progress.bad_epochs += 1
            if config.patience and progress.bad_epochs >= config.patience:
                progress.halvings, progress.bad_epochs = progress.halvings + 1, 0
        every = config.snapshot_every
        if every and (progress.epoch + 1) % every == 0:
            info = {"epoch": progress.epoch, "valid": valid.to_dict()}
            self.checkpoints.save_epoch(progress.step, self.state.params, info)
        progress.epoch, progress.window = progress.epoch + 1, 0
        progress.nats, progress.skipped = 0.0, 0

    def validate(self) -> Score:
        """The valid score by the batched protocol.

        Raises:
          UserError: when it is not finite.
        """
        config = self.config
        tokens = batches.capped(self.corpus.valid, config.eval_tokens)
        shape = config.batch_size, config.num_steps
        self.display.start("validation", len(batches.scoring_windows(tokens, *shape)))
        score = self.score(self.state.params, tokens, *shape, self.watched)
        self.display.finish()
        if not math.isfinite(score.nll):
            self._diverged(f"valid score {score.nll}", self.progress.step)
        return score

    def save(self) -> None:
        """Checkpoints everything the run needs to go on, and stops the clock.

        Raises:
          UserError: when a parameter is not finite: the loss tells so only one update later.
        """
        self.settle()
        if self.clock.running:
            self.clock.stop()
        progress = self.progress
        if not all_finite(self.state.params):
            self._diverged("parameters not finite", progress.step)
        progress.seconds, progress.tokens = self.clock.seconds, self.clock.tokens
        progress.log_position = self.log.position
        self.checkpoints.save_latest(progress.step, self.state, dataclasses.asdict(progress))
        self.saved_step = progress.step

    def save_best(self, valid: Score) -> None:
        """Keeps the parameters for evaluation and sampling."""
        progress = self.progress
        epoch = progress.epoch if progress.window else progress.epoch - 1
        info = {"step": progress.step, "epoch": epoch, "valid": valid.to_dict()}
        self.checkpoints.save_best(progress.step, self.state.params, info)

    def finish(self) -> dict:
        """Scores the best parameters by the full protocol and writes `result.json`.

        The test split is read here, once, and nowhere else.
        """
        config, progress = self.config, self.progress
        try:
            # Stopped in mid-epoch by max_steps, these parameters compete too; and they are all
            # there is where the best were lost.
            if progress.window or not self.checkpoints.has_best:
                valid = self.last_valid or self.validate()
                if valid.nll < progress.best_nll:
                    self.save_best(valid)
            params, info = self.checkpoints.restore_best(self.state.params)
            scores = {}
            for split in ("valid", "test"):
                tokens = batches.capped(getattr(self.corpus, split), config.eval_tokens)
                self.display.start(f"{split} full", evaluate.full_windows(tokens))
                scores[split] = evaluate.full(self.graphdef, params, tokens, self.watched)
                self.display.finish()
        except Stopped:
            self.leave()
        result = {
            "format": workdir.FORMAT,
            "config": config.to_dict(),
            "params": sum(p.size for p in params.values()),
            "epoch": info["epoch"],
            **{split: score.to_dict() for split, score in scores.items()},
            "tokens_per_second": round(self.clock.rate, 1),
            "seconds": round(self.clock.seconds, 3),
            "device": self.about["device"],
            "git": self.about["git"],
        }
        if parallel.is_main():
            workdir.write_json(self.folder / "result.json", result)
        return result

    def _note(self, count: int) -> str:
        """The epoch's training score so far and the rate, for the progress bar."""
        windows = self.progress.window - count  # the last call's nats are still to come
        if not windows:
            return ""
        score = Score(self.progress.nats, self._targets(windows))
        return f"train {score.show(self.config.level)}  {self.clock.rate:,.0f} tokens/s"

    def _put(self, first: int, count: int) -> list[Array]:
        """Windows on the devices: their rows spread, what counts windows everywhere."""
        windows = self.windows.together(first, count, self.width)
        return [
            parallel.shard(a, self.mesh, EVERYWHERE)
            if a.ndim == 1
            else parallel.shard_rows(a, self.mesh)
            for a in windows
        ]

    def _targets(self, windows: int) -> int:
        """What so many windows predict, in all processes; of piano rolls, on average."""
        if self.config.level == "roll":
            return max(windows * self.windows.targets // len(self.windows), 1)
        return windows * self.config.batch_size * self.config.num_steps

    def _zero_carries(self, params: dict[str, Array]) -> Any:
        return evaluate.zero_carries(self.graphdef, params, self.config.batch_size, self.mesh)


def dry_run(config: ConfigDict, display: Display) -> None:
    """Two updates, one evaluation, one save and restore in a folder that is removed again.

    Raises:
      RuntimeError: when what is restored differs from what was saved.
    """
    if not parallel.single():
        raise UserError("--dry_run tries one process: leave --coordinator out")
    config.max_steps, config.epochs, config.checkpoint_every = 2, 1, 0
    config.eval_tokens = min(config.eval_tokens or 200, 200)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder) / "run", display)
        trainer.announce()
        trainer.run()
        checkpoints = Checkpoints(trainer.folder)
        restored, _ = checkpoints.restore_latest(trainer.state)
        checkpoints.close()
        pairs = zip(jax.tree.leaves(trainer.state), jax.tree.leaves(restored), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            raise RuntimeError("the restored state differs from the saved one")
    display.print("dry run: two updates, evaluation, save and restore are fine; nothing was kept")


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "experiment, FILE.py or FILE.py:variant")
    flags.DEFINE_string("workdir", None, "where the run is kept; continued if it holds one")
    flags.DEFINE_bool("dry_run", False, "try everything in seconds and leave nothing behind")
    flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of the first")
    flags.DEFINE_integer("num_processes", None, "several processes: how many")
    flags.DEFINE_integer("process_id", None, "several processes: which one this is, from 0")


def main() -> None:
    if FLAGS.config is None:
        raise UserError("--config=FILE is missing, for example --config=configs/quickstart.py")
    if not FLAGS.workdir and not FLAGS.dry_run:
        raise UserError("--workdir=DIR is missing: the folder to keep the run in")
    parallel.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    display = Display(quiet=not parallel.is_main())
    try:
        if FLAGS.dry_run:
            dry_run(FLAGS.config, display)
        else:
            start(FLAGS.config, Path(FLAGS.workdir).expanduser(), display)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" in reason:
            raise UserError(
                f"out of memory ({reason}): lower hidden_size, batch_size or num_steps, or set "
                "remat=50, in a new workdir"
            ) from error
        if parallel.single():
            raise
        raise PeersLost(reason) from error


def start(config: ConfigDict, folder: Path, display: Display) -> None:
    """Trains, or continues, the run in a workdir, and prints what it came to."""
    trainer = Trainer(config, folder, display)
    trainer.announce()
    result = trainer.run()
    summary(display, trainer.corpus, result)
    display.print(f"result in {trainer.folder / 'result.json'}")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
