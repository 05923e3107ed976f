"""Looks inside a trained network: discs, gates, lesions, gradients, memory; where a reader looks.

    python -m rnnx.analyze --workdir=DIR [--beside=DIR2]

Writes to --out (DIR/analysis) a PNG for each picture, numbers.json with what they show, and
index.html, one page with all of it that opens without a network. --beside puts the gradients,
activations and memory of another run on the same corpus next to this one's; the MI paper compares
RNN and MI-RNN in this way. A line of text says which pictures a cell has none of. Pictures over
training show the epochs that the run kept: train with --config.snapshot_every=1.

Of a run of the task sentences the page shows the nearest sentences of the split: of --query, which
may come several times, or of eight of its own.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from rnnx import cli, tasks, workdir
from rnnx.analysis import attention, nearest, numbers, pictures
from rnnx.analysis.page import page, png
from rnnx.cells import CELLS
from rnnx.data import books
from rnnx.display import Display
from rnnx.errors import UserError, writing
from rnnx.tasks.language import Language
from rnnx.tasks.reading import Reading
from rnnx.tasks.sentences import Sentences
from rnnx.tasks.vectors import Encoder
from rnnx.trained import Run, load_data, open_run

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run to analyze", required=True)
    flags.DEFINE_string("beside", "", "a second run on the same corpus, to compare")
    flags.DEFINE_enum("split", "valid", ["train", "valid", "test"], "the text to read")
    flags.DEFINE_multi_string("query", [], "sentences: one whose nearest are shown")
    flags.DEFINE_string("out", "", "the folder for the pictures; empty: WORKDIR/analysis")
    flags.DEFINE_string("data_dir", "", "raw corpus files, if not where training read them")


def subject(folder: Path, split: str, data_dir: str = "") -> numbers.Subject:
    """A run, with the text of a split to read.

    Args:
      data_dir: of the raw corpus files, if it is not the one used in training.

    Raises:
      UserError: when folder holds no run, a run of piano rolls, one of a linear cell, or one of
        another corpus than the one found here.
    """
    config = workdir.read_config(folder)
    if not isinstance(tasks.of(config), Language):
        raise UserError(f"{folder} holds no language model: the analysis reads texts")
    if CELLS[config.cell].linear:
        raise UserError(
            f"{folder} holds a {CELLS[config.cell].name}: the analysis does not read cells without "
            "a recurrent matrix"
        )
    config.data_dir = data_dir or config.data_dir
    dataset = load_data(folder, config, lambda line: print(line, file=sys.stderr))
    return numbers.Subject(folder, dataset.splits[split])


def analyze(
    folder: Path, beside: Path | None, out: Path, split: str, data_dir: str, display: Display
) -> list[str]:
    """Analyzes a run, with another one beside it or None; returns the names of the files in out.

    Raises:
      UserError: when a run can't be read, or the two have different vocabularies.
      Outage: when out can't be written.
    """
    one = subject(folder, split, data_dir)
    other = subject(beside, split, data_dir) if beside else None
    if other and other.vocabulary != one.vocabulary:
        raise UserError(
            f"{beside} has another vocabulary than {folder}: only runs on one corpus are compared"
        )
    _try(out)
    found = numbers.of_run(one, other, display)
    return _write(out, one, split, found, pictures.of(found))


def _try(out: Path) -> None:
    """Raises Outage when a folder can't be written: before minutes of work, not after."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


def analyze_reader(
    folder: Path, out: Path, split: str, data_dir: str, display: Display
) -> list[str]:
    """Writes where a reader looks in passages of a split; returns the names of the files in out.

    Raises:
      UserError: when the run can't be read, or its corpus is another one here.
      Outage: when out can't be written.
    """
    run = open_run(folder)
    _try(out)
    found = attention.of_run(run, split, data_dir, display)
    return _write(out, run, split, found, attention.pictures(found))


def _write(
    out: Path,
    one: Run | numbers.Subject,
    split: str,
    found: dict,
    drawn: Iterable[pictures.Picture | str],
) -> list[str]:
    """Writes numbers and pictures of a run to a folder; returns the names of the files."""
    parts, written = [], ["numbers.json", "index.html"]
    with writing(out):
        text = json.dumps({"format": 1, **found}, default=float) + "\n"
        (out / "numbers.json").write_text(text, encoding="utf-8")
        for part in drawn:
            if isinstance(part, str):
                print(part)
                parts.append(part)
                continue
            data = png(part)
            (out / f"{part.name}.png").write_bytes(data)
            written.append(f"{part.name}.png")
            parts.append((part, data))
        about = (
            f"{one.config.corpus}, {split} split; {one.config.cell}, "
            f"{one.config.hidden_size:,} units, L = {one.config.depth}, {one.config.integration}; "
            f"best parameters, of epoch {one.info['epoch'] + 1}."
        )
        title = f"Inside {one.folder.resolve().name}"
        (out / "index.html").write_text(page(title, about, parts), encoding="utf-8")
    return written


def analyze_sentences(
    folder: Path, out: Path, split: str, data_dir: str, queries: list[str], display: Display
) -> list[str]:
    """Writes the nearest sentences of a split to out; returns the names of the files.

    Raises:
      UserError: when the run or its books can't be read, or are others.
      Outage: when out can't be written.
    """
    run = open_run(folder)
    config = run.config
    _try(out)
    read = books.read(config.corpus, data_dir or config.data_dir, display.print)
    workdir.check_data(folder, config.corpus, read.sums)
    texts = [sentence for book in books.parts(read)[split] for sentence in book]
    found = nearest.numbers(Encoder(run.graphdef, run.params, run.spec), queries, texts)
    about = (
        f"{config.corpus}, {split} split, {len(texts):,} sentences; {config.cell}, "
        f"{config.hidden_size:,} units, {config.integration}; best parameters, of epoch "
        f"{run.info['epoch'] + 1}. The number is the cosine."
    )
    with writing(out):
        text = json.dumps({"format": 1, "nearest": found}) + "\n"
        (out / "numbers.json").write_text(text, encoding="utf-8")
        whole = nearest.page(f"Nearest sentences by {folder.name}", about, found)
        (out / "index.html").write_text(whole, encoding="utf-8")
    return ["numbers.json", "index.html"]


def main() -> None:
    folder = Path(FLAGS.workdir).expanduser()
    beside = Path(FLAGS.beside).expanduser() if FLAGS.beside else None
    out = Path(FLAGS.out).expanduser() if FLAGS.out else folder / "analysis"
    asked = FLAGS.split, FLAGS.data_dir
    task, display = tasks.of(workdir.read_config(folder)), Display(sys.stderr)
    if beside and isinstance(task, (Reading, Sentences)):
        raise UserError("--beside compares language models: leave it out")
    if isinstance(task, Reading):
        written = analyze_reader(folder, out, *asked, display)
    elif isinstance(task, Sentences):
        written = analyze_sentences(folder, out, *asked, FLAGS.query, display)
    else:
        written = analyze(folder, beside, out, *asked, display)
    print(f"written to {out}: {', '.join(written)}")


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
