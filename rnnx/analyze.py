"""Looks inside a trained network: discs, gates, lesions, gradients, memory.

    python -m rnnx.analyze --workdir=DIR [--beside=DIR2]

Writes to --out (DIR/analysis) a PNG for each picture, numbers.json with what they show, and
index.html, one page with all of it that opens without a network. --beside puts the gradients,
activations and memory of another run, on the same corpus, next to this one's: RNN against MI-RNN
is the MI paper's figure. What a cell doesn't have is left out, with a word. Over training, the
epochs are shown that the run kept: --config.snapshot_every=1 in rnnx.train.
"""

import json
import sys
import tempfile
from pathlib import Path

from absl import flags

from rnnx import cli, data, workdir
from rnnx.analysis import numbers, pictures
from rnnx.analysis.page import page, png
from rnnx.display import Display
from rnnx.errors import UserError, writing

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run to look at", required=True)
    flags.DEFINE_string("beside", "", "another run on the same corpus, next to it")
    flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "whose text is read")
    flags.DEFINE_string("out", "", "where the pictures go; empty: the workdir's analysis")
    flags.DEFINE_string("data_dir", "", "raw corpus files, if elsewhere than in training")


def subject(folder: Path) -> numbers.Subject:
    """A run with the text it is looked at with.

    Raises:
      UserError: when it is no run, a run of piano rolls, or of other data than are here.
    """
    config = workdir.read_config(folder)
    if config.level == "roll":
        raise UserError(f"{folder} is a run of piano rolls: the analysis reads texts")
    corpus = data.load(config.corpus, config.level, FLAGS.data_dir or config.data_dir)
    workdir.check_data(folder, corpus)
    return numbers.Subject(folder, getattr(corpus, FLAGS.split))


def main() -> None:
    folder = Path(FLAGS.workdir).expanduser()
    one = subject(folder)
    other = subject(Path(FLAGS.beside).expanduser()) if FLAGS.beside else None
    if other and other.vocabulary != one.vocabulary:
        raise UserError(f"{FLAGS.beside} has another vocabulary than {folder}: it can't be beside")
    out = Path(FLAGS.out).expanduser() if FLAGS.out else folder / "analysis"
    display = Display(sys.stderr)
    with writing(out):  # tried before minutes of work
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    found = numbers.of_run(one, other, display)
    parts, written = [], ["numbers.json", "index.html"]
    with writing(out):
        text = json.dumps({"format": 1, **found}, default=float) + "\n"
        (out / "numbers.json").write_text(text, encoding="utf-8")
        for part in pictures.of(found):
            if isinstance(part, str):
                print(part)
                parts.append(part)
                continue
            data = png(part)
            (out / f"{part.name}.png").write_bytes(data)
            written.append(f"{part.name}.png")
            parts.append((part, data))
        about = (
            f"{one.config.corpus}, {FLAGS.split} split; {one.config.cell}, "
            f"{one.config.hidden_size:,} units, L = {one.config.depth}, {one.config.integration}; "
            f"best parameters, of epoch {one.info['epoch'] + 1}."
        )
        (out / "index.html").write_text(page(f"Inside {one.name}", about, parts), encoding="utf-8")
    print(f"written to {out}: {', '.join(written)}")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
