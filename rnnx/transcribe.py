"""Writes down what is said in sound files.

    python -m rnnx.transcribe --workdir=DIR FILE.wav [FILE.flac ...]

Prints a line a file: the path, a tab, and the text; of a single file the text alone. A file that
can't be read gets a line on stderr, the others are transcribed, and the exit code is 2. Any format
of libsndfile, sample rate and number of channels will do.

--width=8 searches for the text that is most probable over all its alignments; --lm names the
workdir of an rnnx language model of characters, --words a file of the words that may occur.
--alignments=DIR writes for each file when each letter is said: a table, and a picture.

--stream prints each letter as soon as it is known, and on stderr how fast: a network that reads
forward only takes the sound in pieces of 100 ms. The file - is standard input, 16-bit samples of
one channel at the network's rate:

    arecord -t raw -f S16_LE -r 16000 | python -m rnnx.transcribe --workdir=DIR --stream -
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags

from rnnx import cli, decoders, streaming
from rnnx.data import sound, speech
from rnnx.data.sequences import SequenceBatches, Sequences
from rnnx.data.series import Scaling
from rnnx.display import Display
from rnnx.errors import UserError, writing
from rnnx.streaming import Listener
from rnnx.tasks.speech import Speech
from rnnx.tasks.transcripts import Decoder, posteriors, spelled
from rnnx.trained import Run, open_run


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run that listens", required=True)
    flags.DEFINE_string("alignments", "", "a folder for tables and pictures of when what is said")
    flags.DEFINE_bool("stream", False, "print letters as the sound comes in")
    decoders.define_flags()


def heard(path: Path, spec: dict) -> np.ndarray:
    """What the network of a spec reads of a sound file, (T, F). Raises UserError."""
    return read_by(spec, sound.features(*sound.read_sound(path), spec["sample_rate"]))


def read_by(spec: dict, frames: np.ndarray) -> np.ndarray:
    """What the network of a spec reads of features (T', 40), (T, F)."""
    steps = speech.steps_of(frames, spec["frame_stack"])
    # Whose voice it is is not known: an utterance stands for its speaker.
    alone = spec["scale_by"] != "train"
    scaling = Scaling.of(steps.astype(np.float64)) if alone else Scaling.from_json(spec["scaling"])
    return scaling.apply(steps).astype(np.float32)


def transcripts(
    run: Run, steps: list[np.ndarray], decode: Decoder
) -> list[tuple[list[int], np.ndarray]]:
    """The symbols of each utterance, from what `heard` gives of it, and its log posteriors."""
    index = np.arange(len(steps), dtype=np.int32)
    found: list = [None] * len(steps)
    batches = SequenceBatches(
        Sequences({"inputs": steps}, {"index": index}), run.config.batch_size, shuffle=False
    )
    for log_p, row, batch in posteriors(run.graphdef, run.params, batches):
        found[int(batch["index"][row])] = decode(log_p), log_p
    return found


def align(spec: dict, path: Path, folder: Path, symbols: list[int], log_p: np.ndarray) -> None:
    """Writes the alignment of a file into a folder. Raises Outage when that can't be written."""
    from rnnx import alignments  # matplotlib, of the extra `report`

    folder = folder.expanduser()
    frames = sound.features(*sound.read_sound(path), spec["sample_rate"])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        seconds = spec["frame_stack"] / sound.FRAME_RATE
        alignments.write(folder / path.stem, frames, log_p, symbols, spec["symbols"], seconds)


def stream(run: Run, paths: list[str], display: Display) -> None:
    """Prints what is said in each file, or in standard input, as it comes in."""
    listener, failed = Listener(run), False

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    for path in paths:
        if path == "-":
            pieces = streaming.of_stream(sys.stdin.buffer, listener.rate)
        else:
            try:
                samples, rate = sound.read_sound(Path(path).expanduser())
            except UserError as error:
                display.print(_told(path, error))
                failed = True
                continue
            samples = sound.resampled(samples, rate, listener.rate)
            pieces = streaming.of_samples(samples, listener.rate)
        write("" if len(paths) == 1 else f"{path}\t")
        pace = streaming.listen(listener, pieces, run.spec, write)
        write("\n")
        display.print(f"{path}: {pace}")
    if failed:
        raise SystemExit(2)


def _told(path: str, error: UserError) -> str:
    return str(error) if path in str(error) else f"{path}: {error}"


def main(paths: list[str]) -> None:
    values, display = flags.FLAGS, Display(sys.stderr)
    if not paths:
        raise UserError("name the sound files: python -m rnnx.transcribe --workdir=DIR FILE.wav")
    run = open_run(Path(values.workdir).expanduser())
    if not isinstance(run.task, Speech):
        raise UserError(f"{values.workdir} holds a network that does not transcribe speech")
    if not run.spec["sample_rate"]:
        raise UserError(
            f"{values.workdir} has learned from features that {run.config.corpus} came with: they "
            "can't be computed of other sound"
        )
    decode = decoders.decoder_of({n: values[n].value for n in decoders.NAMES}, run.spec)
    sys.stdout.reconfigure(encoding="utf-8")
    if values.stream:
        if values.alignments or values.width:
            raise UserError("--stream has neither --alignments nor --width: leave them out")
        stream(run, paths, display)
        return
    if "-" in paths:
        raise UserError("- is standard input, which needs --stream")
    if values.alignments:
        names = [Path(path).stem for path in paths]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f"{names.count(twice[0])} files are called {twice[0]}: --alignments would keep "
                "those of one of them"
            )
    steps, good = [], []
    for path in paths:
        try:
            steps.append(heard(Path(path).expanduser(), run.spec))
            good.append(path)
        except UserError as error:
            display.print(_told(path, error))
    found = transcripts(run, steps, decode) if steps else []
    for path, (symbols, log_p) in zip(good, found, strict=True):
        text = spelled(symbols, run.spec["symbols"], run.spec["labels"])
        print(text if len(paths) == 1 else f"{path}\t{text}")
        if values.alignments:
            align(run.spec, Path(path).expanduser(), Path(values.alignments), symbols, log_p)
    if len(good) < len(paths):
        raise SystemExit(2)


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__, files=True)
