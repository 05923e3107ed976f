"""Scores a trained network on a split, by a protocol that is part of the result's name.

    full      every target of the split once. Texts: batch 1, zero initial state, the papers' final
              evaluation; a split of N tokens has N - 1 targets, since the first has no
              predecessor. Sequences: each by itself.
    batched   the same targets in batch_size contiguous streams, each from the zero state: what
              training watches. Faster; a little worse, and more so for a network that takes long
              to leave the zero state: of 24 on PTB characters, 23 scored within 0.002 bits of
              `full`, an RHN that takes 12,000 characters 0.085 worse
    mc        texts: Monte-Carlo dropout: K passes, each with masks held from the first token to
              the last; probabilities, not their logarithms, are averaged
    dynamic   texts: dynamic evaluation (Krause et al. 2018, arXiv:1709.07432, eq. 5 to 7): the
              parameters keep learning over the text, each segment scored before it is learned from
    beam      speech: the transcription that is most probable over all its alignments, weighed by a
              character model and bound to a list of words if they are given; words' errors too
    transfer  sentences: linear classifiers and a regression learned from the vectors of labelled
              sentences, beside TF-IDF and the mean of word vectors; needs the sets' files, not the
              books. --beside appends a second run's vectors, --word_vectors adds words

    python -m rnnx.evaluate --workdir=DIR --split=test --protocol=full

Appends the score to DIR/evaluations.jsonl.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from rnnx import cli, decoders, encode, trained, workdir
from rnnx.config import nearest
from rnnx.display import Display
from rnnx.duration import duration
from rnnx.errors import UserError
from rnnx.score import local_mesh, make_scorer
from rnnx.tasks import transfer
from rnnx.tasks.task import BLOCKS, Dataset, Scores
from rnnx.trained import Run, load_data, open_run

# Which flags belong to which protocol of a task's own.
SETTINGS = {
    "mc": ("samples", "seed"),
    "dynamic": ("rate", "decay", "segment", "statistics"),
    "beam": decoders.NAMES,
    "transfer": ("beside", "word_vectors"),
}


def evaluate(
    run: Run,
    dataset: Dataset | None,
    split: str,
    protocol: str,
    settings: dict[str, Any],
    display: Any,
) -> Scores:
    """The scores of a run on a split.

    Args:
      dataset: None for a protocol that has data of its own.
      settings: of the protocol, where it is one of the task's own.

    Raises:
      UserError: when the task has no such protocol, or the primary score is not finite.
    """
    config, task = run.config, run.task
    _check(protocol, run)
    if protocol in task.protocols:
        score = task.protocols[protocol]
        sums = score(run.graphdef, run.params, config, dataset, split, display, **settings)
    else:
        batches = task.batches(config, dataset, split, protocol, slice(None))
        display.start(f"{split} {protocol}", len(batches))
        score = make_scorer(task, run.graphdef, local_mesh())
        sums = score(run.params, batches, display)
    display.finish()
    scores = task.scores(sums)
    if not math.isfinite(primary := scores.get(task.primary, 0.0)):
        raise UserError(
            f"{split} {protocol} gives {task.primary} = {primary}: with dynamic, lower --rate"
        )
    return scores


def _check(protocol: str, run: Run) -> None:
    known = ("full", "batched", *run.task.protocols)
    if protocol not in known:
        raise UserError(f"unknown protocol {protocol!r} of this task; {nearest(protocol, known)}")


# ---------------------------------------------------------------------------- command line


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run to evaluate", required=True)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "which split")
    flags.DEFINE_string("protocol", "full", "how to score, see above")
    flags.DEFINE_integer("samples", 10, "mc: passes K", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "mc: of the masks", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_float("rate", 5e-5, "dynamic: learning rate", lower_bound=0)
    flags.DEFINE_float("decay", 2e-3, "dynamic: pull to the trained parameters", lower_bound=0)
    flags.DEFINE_integer("segment", 5, "dynamic: targets between updates", lower_bound=1)
    flags.DEFINE_integer(
        "statistics", 500, "dynamic: training windows the RMS is taken over", lower_bound=1
    )
    decoders.define_flags()
    encode.define_flags()
    flags.DEFINE_integer(
        "max_tokens", 0, "0, or score so many targets, or sequences, only", lower_bound=0
    )
    trained.define_flags()


def main() -> None:
    values = flags.FLAGS
    folder, display = Path(values.workdir).expanduser(), Display(sys.stderr)
    run = open_run(folder)
    config, split, protocol = run.config, values.split, values.protocol
    _check(protocol, run)  # before anything is loaded
    if protocol == "transfer" and split != "test":
        raise UserError("the protocol transfer has splits of its own: leave --split out")
    trained.moved(config, values)
    config.eval_tokens = values.max_tokens
    own = protocol == "transfer" and protocol in run.task.protocols
    dataset = None if own else load_data(folder, config, display.print)
    settings = {name: values[name].value for name in SETTINGS.get(protocol, ())}
    began = time.perf_counter()
    given = settings
    if protocol == "beam":
        given = {"decode": decoders.decoder_of(settings, run.spec)}
    elif own:
        given = encode.for_transfer(run, **settings, data_dir=config.data_dir)
    scores = evaluate(run, dataset, split, protocol, given, display)
    seconds = time.perf_counter() - began
    if protocol == "batched":
        settings = {"batch_size": config.batch_size, "num_steps": config.num_steps}
    if values.max_tokens:  # else it would be taken for a score of the whole split
        settings = settings | {"max_tokens": values.max_tokens}
    line = {
        "format": workdir.FORMAT,
        "split": split,
        "protocol": protocol,
        **settings,
        **scores,
        "seconds": round(seconds, 2),
        "checkpoint": run.info,
        "git": workdir.git_revision(),
    }
    try:
        with open(folder / "evaluations.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        print(f"rnnx.evaluate: not kept in {folder}: {error.strerror}", file=sys.stderr)
    if own:
        print(f"{split} {protocol}, {duration(seconds)}\n{transfer.table(scores)}")
        return
    shown = run.task.unit(config).show(scores[run.task.primary])
    rest = ", ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{value:,} {name}"
        for name, value in scores.items()
        if name != BLOCKS
    )
    print(f"{split} {protocol}: {shown}  ({rest}, {duration(seconds)})")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
