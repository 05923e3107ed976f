"""Trains a network by a config, data-parallel on all devices.

    python -m rnnx.train --config=ptb_word --workdir=DIR [--config.depth=5 ...]

The same command on the same workdir resumes the run, with the same numbers as if it had never
stopped: to the last bit on a CPU. --dry_run builds everything, runs two updates, one evaluation,
one save and restore, and leaves nothing behind.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from rnnx import cli, parallel, trainer
from rnnx.checkpoint import Checkpoints
from rnnx.display import Display, summary
from rnnx.errors import PeersLost, UserError, out_of_memory
from rnnx.experiment import Experiment

FLAGS = flags.FLAGS


def start(config: ConfigDict, folder: Path, display: Display) -> None:
    """Trains, or resumes, the run in a workdir, and prints its scores."""
    experiment = Experiment(config, folder, display)
    experiment.announce()
    tell(experiment, trainer.run(experiment))


def tell(experiment: Experiment, result: dict) -> None:
    """Prints the scores of a run that is complete."""
    display = experiment.display
    summary(display, experiment.task, experiment.config, experiment.dataset, result)
    display.print(f"result in {experiment.folder / 'result.json'}")


def explained(error: jax.errors.JaxRuntimeError) -> UserError | None:
    """What an error of JAX's runtime says of a run, and what to do; None if it tells of a bug."""
    reason = str(error).splitlines()[0]
    if out_of_memory(error):
        return UserError(
            f"out of memory ({reason}): lower hidden_size, batch_size or num_steps, or set "
            "remat=50, in a new workdir"
        )
    return None if parallel.single() else PeersLost(reason)


def dry_run(config: ConfigDict, display: Display) -> None:
    """Two updates, one evaluation, one save and restore in a folder that is removed again.

    Raises:
      RuntimeError: when what is restored differs from what was saved.
    """
    if not parallel.single():
        raise UserError("--dry_run tries one process: leave --coordinator out")
    config.max_steps, config.epochs, config.checkpoint_every = 2, 1, 0
    config.eval_tokens = min(config.eval_tokens or 200, 200)
    display.print("dry run: max_steps=2, eval_tokens at most 200, in a folder of its own")
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(config, Path(folder) / "run", display)
        experiment.announce()
        trainer.run(experiment)
        checkpoints = Checkpoints(experiment.folder)
        restored, _ = checkpoints.restore_latest(experiment.state)
        checkpoints.close()
        pairs = zip(jax.tree.leaves(experiment.state), jax.tree.leaves(restored), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            raise RuntimeError("the restored state differs from the saved one")
    display.print("dry run: two updates, evaluation, save and restore are fine; nothing was kept")


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "experiment: NAME or FILE.py, with :variant")
    flags.DEFINE_string("workdir", None, "where the run is kept; resumed if it holds one")
    flags.DEFINE_bool("dry_run", False, "try everything in seconds and leave nothing behind")
    flags.DEFINE_string("coordinator", None, "several processes: HOST:PORT of the first")
    flags.DEFINE_integer("num_processes", None, "several processes: how many")
    flags.DEFINE_integer("process_id", None, "several processes: which one this is, from 0")


def main() -> None:
    if FLAGS.config is None:
        raise UserError("--config=FILE is missing, for example --config=quickstart")
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
        if (told := explained(error)) is None:
            raise
        raise told from error


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
