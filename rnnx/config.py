"""The flat configuration of a run: every field, its default, its meaning and its range.

A file in `configs/` states only what differs; the command line overrides any field
(`--config.depth=5`). Fields and defaults are declared here and nowhere else, except those that a
task of your own registers. Some belong to one task or a few; the configs of others lack them.
"""

import dataclasses
import difflib
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rnnx.cells import CELLS, INTEGRATIONS, NORMS, Cell
from rnnx.errors import UserError

FORMAT = 1  # of config.json


@dataclasses.dataclass(frozen=True)
class Field:
    """A field's default and meaning; its choices, or the range [low, high) of a number."""

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    below: float | None = None
    tasks: tuple[str, ...] = ()  # those that have it; () for all


_SERIES = ("forecast",)
_SEQUENCES = ("classify", "regress")
_TABLES = (*_SERIES, *_SEQUENCES)
_SPEECH = ("speech",)
_READING = ("reading",)
_SENTENCES = ("sentences",)

# fmt: off
FIELDS: dict[str, Field] = {
    # data
    "task": Field("", "what is learned: language, rolls, forecast, classify, regress, "
                  "speech, sentences, reading, or a task of your own (RNNX_TASKS); empty: that of "
                  "the corpus"),
    "corpus": Field("ptb_word", "ptb_word, ptb_char, text8, enwik8, python (the standard library's "
                    "own sources), jsb (piano rolls), those of other tasks (configs/README.md has "
                    "all), or a path to a file of your own"),
    "data_dir": Field("", "where raw corpus files are or go; empty: $RNNX_DATA, or the cache"),
    "level": Field("char", "symbols of a file of your own; other corpora have theirs",
                   ("word", "char", "byte", "roll")),
    # data of numbers: a table, or a set of sequences
    "target": Field("", "column(s) to predict, separated by commas; empty: detected from the file",
                    tasks=_TABLES),
    "time": Field("", "column of times, or date+hour; empty: detected from the file",
                  tasks=_TABLES),
    "group": Field("", "column that tells several series, or sequences, apart", tasks=_TABLES),
    "covariates": Field("", "column(s) known up to the present, as inputs", tasks=_TABLES),
    "known": Field("", "column(s) known ahead, as inputs: holidays, prices", tasks=_SERIES),
    "layout": Field("long", "one row a time, or wide: one row a series", ("long", "wide"),
                    tasks=_SERIES),
    "test_corpus": Field("", "a second file that holds the test part", tasks=_TABLES),
    "parts": Field((0.7, 0.1, 0.2), "of the rows of each series: train, valid, test; fractions, or "
                   "numbers of rows", tasks=_SERIES),
    "horizon": Field(24, "steps ahead H", low=1, tasks=_SERIES),
    "season": Field(0, "steps of a season; 0: detected; 1: none", low=0, tasks=_SERIES),
    "warmup": Field(0, "first steps of each window, which are read only; 0: a season, or half of "
                    "the window", low=0, tasks=_SERIES),
    "stride": Field(1, "score a forecast from every so many steps", low=1, tasks=_SERIES),
    "anchor": Field("season", "what a forecast is the change from: nothing, the last value, or the "
                    "same time last season", ("none", "last", "season"), tasks=_SERIES),
    "scaling": Field("series", "inputs are scaled by each series' training part, or each window by "
                     "its own warm-up too", ("series", "window"), tasks=_SERIES),
    "separate": Field(False, "every target column is a series of its own", tasks=_SERIES),
    "head": Field("gaussian", "what is predicted of each value: mean and spread, or quantiles",
                  ("gaussian", "quantile"), tasks=_SERIES),
    "levels": Field((0.1, 0.5, 0.9), "of the quantiles; the first and last are the interval",
                    tasks=_SERIES),
    "decode": Field("direct", "all H steps at once, or step by step from its own predictions",
                    ("direct", "recursive"), tasks=_SERIES),
    "valid_part": Field(0.2, "share of the training part that is held out to choose by", low=0.0,
                        below=1.0, tasks=_SEQUENCES),
    "cap": Field(125, "C-MAPSS: remaining life is at most this", low=1, tasks=("regress",)),
    "fraction": Field(1.0, "share of the training part that is used", low=0.0,
                      tasks=("language", *_TABLES)),
    # data of sound
    "labels": Field("char", "what is emitted: letters and spaces, or phones by the corpus' "
                    "dictionary", ("char", "phone"), tasks=_SPEECH),
    "frame_stack": Field(1, "frames of sound that the network takes in one step", low=1,
                         tasks=_SPEECH),
    "scale_by": Field("train", "mean and deviation of features: of the training part, each "
                      "speaker's, or each utterance's", ("train", "speaker", "utterance"),
                      tasks=_SPEECH),
    "mask_bands": Field(0, "training hides up to so many bands beside each other, twice", low=0,
                        tasks=_SPEECH),
    "mask_steps": Field(0, "training hides up to so many steps in a row, twice", low=0,
                        tasks=_SPEECH),
    # data of passages with questions
    "answers": Field("training", "what is chosen from: the answers of training, or the whole "
                     "vocabulary", ("training", "vocabulary"), tasks=_READING),
    # data of books
    "vocab_size": Field(20_000, "most frequent words that are known, <eos> and <unk> among them",
                        low=3, tasks=_SENTENCES),
    # network
    "pool": Field("last", "what of the outputs is read: the last, or the mean of all",
                  ("last", "mean"), tasks=_SEQUENCES),
    "bidirectional": Field(False, "every layer also reads backward",
                           tasks=(*_SEQUENCES, *_SPEECH, *_SENTENCES, *_READING)),
    "softmax_sample": Field(0, "0: the whole softmax; k: in training alone the k most frequent "
                            "words, and k others drawn for each update, stand for all", low=0,
                            tasks=_SENTENCES),
    "cell": Field("rhn", "recurrent cell", tuple(CELLS)),
    "integration": Field("additive", "how input and state meet", INTEGRATIONS),
    "mi_gates": Field("", "gates that have MI, like h of rhn; the others are additive; empty: all"),
    "norm": Field("none", "what W x and U z go through before they meet: nothing, layer "
                  "normalization, or tanh of U z", NORMS),
    "depth": Field(1, "transition depth L of rhn, dtrnn, dtsrnn", low=1),
    "hidden_size": Field(256, "units n of a layer", low=1),
    "num_layers": Field(1, "stacked layers", low=1),
    "embed_size": Field(0, "0: the authors' rule, hidden_size for words or tied weights, else "
                        "the vocabulary's size", low=0),
    "one_hot": Field(False, "inputs are one-hot vectors, not embeddings, as W sees them in the MI "
                     "paper's character models"),
    "tied": Field(False, "softmax weights are the embedding"),
    "param_budget": Field(0, "0, or a number of parameters: hidden_size becomes the largest "
                          "that stays within it", low=0),
    "coupled": Field(True, "RHN: the carry gate is 1 - t; otherwise it has its own parameters"),
    "reset_after": Field(False, "GRU: the reset gate acts after the recurrent product"),
    "input_every": Field(False, "deep cells: the input enters at every l, not at l = 1 only"),
    "transform_bias": Field(-2.0, "initial bias of the RHN transform gate"),
    "forget_bias": Field(1.0, "initial bias of the forget gate of lstm and slstm"),
    "init_scale": Field(0.04, "variables start at U(-s, s)", low=0.0),
    "input_scale": Field(0.0, "0: as init_scale; or the s of U(-s, s) for the cell's input "
                         "matrices W alone, of readers and sentences for all but U", low=0.0),
    "orthogonal": Field(0.0, "0: U starts uniform, by init_scale; s: each gate's U starts as s "
                        "times an orthogonal matrix", low=0.0),
    "mi_init": Field((1.0, 1.0, 1.0), "initial alpha, beta1, beta2 of general MI"),
    # variational dropout: probabilities to drop
    "drop_x": Field(0.0, "dropout of words in the input", low=0.0, below=1.0),
    "drop_i": Field(0.0, "dropout of a layer's input", low=0.0, below=1.0),
    "drop_h": Field(0.0, "dropout of the state inside the matrix products", low=0.0, below=1.0),
    "drop_o": Field(0.0, "dropout of the output before the softmax", low=0.0, below=1.0),
    # training
    "batch_size": Field(20, "streams B (of piano rolls: pieces) read side by side", low=1),
    "num_steps": Field(35, "BPTT window T", low=1),
    "reset_prob": Field(0.0, "how likely a stream of text starts a window from the zero state, so "
                        "that a network learns to read from there", low=0.0, below=1.0),
    "epochs": Field(10, "passes over the training split", low=1),
    "max_steps": Field(0, "0, or stop after this many updates", low=0),
    "checkpoint_every": Field(0, "updates between checkpoints; 0: one an epoch, at most every five "
                              "seconds, and one every ten minutes within longer epochs", low=0),
    "snapshot_every": Field(0, "0, or keep the parameters every so many epochs, to "
                            "analyze how they change", low=0),
    "eval_tokens": Field(0, "0, or a cap on the targets scored per split, of sequences on "
                         "their number, for smoke runs", low=0),
    "optimizer": Field("sgd", "update rule", ("sgd", "adam", "adamw")),
    "learning_rate": Field(0.2, "initial learning rate", low=0.0),
    "lr_decay": Field(1.0, "learning rate is divided by it every epoch after flat_epochs",
                      low=1.0),
    "flat_epochs": Field(1, "epochs at the initial learning rate", low=1),
    "patience": Field(0, "0, or halve the learning rate after this many epochs without a better "
                      "valid score", low=0),
    "max_grad_norm": Field(10.0, "clip the gradient's global norm; 0: do not clip", low=0.0),
    "weight_decay": Field(0.0, "L2: wd / 2 ||v||^2 over all variables, in the loss; "
                          "decoupled for adamw", low=0.0),
    "weight_noise": Field(0.0, "deviation of Gaussian noise on all variables, drawn anew for each "
                          "update", low=0.0),
    "score_test": Field(True, "score the test split at the end; else it stays unread"),
    "dtype": Field("float32", "operands of matrix products; sums, state and parameters stay "
                   "float32; bfloat16 is faster on accelerators, and on CPUs that multiply it. "
                   "GPUs and TPUs round float32 operands too, unless the environment has "
                   "JAX_DEFAULT_MATMUL_PRECISION=highest",
                   ("float32", "bfloat16")),
    "on_nan": Field("stop", "when numbers are not finite, or the score is five times the one of "
                    "knowing nothing: stop; skip that batch; or rollback to the last checkpoint, "
                    "at half the learning rate", ("stop", "skip", "rollback")),
    "remat": Field(0, "0: record every step of a window for the backward pass; k: keep the state "
                      "every k steps and recompute between, for long windows", low=0),
    "seed": Field(0, "decides initial variables, masks and the order of data", low=0, below=2**32),
}
# fmt: on

# A run may be continued with other values of these: they change how far it goes or where
# its data are, not what it computes.
CONTINUABLE = ("epochs", "max_steps", "checkpoint_every", "snapshot_every", "on_nan", "data_dir",
               "score_test")  # fmt: skip

# Runs that differ in these alone share their compiled programs: these decide the initial arrays and
# the order of data, or are numbers that a program takes as arguments.
SHARED = ("seed", "learning_rate", "lr_decay", "flat_epochs", "patience", "init_scale",
          "input_scale", "orthogonal", "mi_init", "transform_bias", "forget_bias")  # fmt: skip


def default(task: str = "") -> ConfigDict:
    """The configuration of a task with every field at its default; "" is that of the corpus,
    with the fields of language."""
    config = ConfigDict({name: field.default for name, field in fields_of(task).items()})
    config.task = task
    return config


def fields_of(task: str) -> dict[str, Field]:
    """The fields that the configs of a task have."""
    return {n: f for n, f in FIELDS.items() if not f.tasks or (task or "language") in f.tasks}


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean a or b?`, or the list of names when none is close."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"


def cell_of(config: ConfigDict) -> Cell:
    """The recurrent cell a config describes. Raises ValueError for one that is impossible."""
    names = (field.name for field in dataclasses.fields(Cell))
    return Cell(config.cell, **{name: config[name] for name in names if name != "kind"})


def validate(config: ConfigDict) -> None:
    """Checks every field by itself and those that depend on each other.

    Raises:
      UserError: naming the field, what is wrong with it, and what it may be.
    """
    for name, value in config.items():
        if name not in FIELDS:
            raise UserError(f"unknown config field {name!r}; {nearest(name, FIELDS)}")
        _check(name, value, FIELDS[name])
    known = fields_of(config.get("task", ""))
    if foreign := sorted(config.keys() - known.keys()):
        raise UserError(
            f"{foreign[0]} is a field of the task {' or '.join(FIELDS[foreign[0]].tasks)}, not of "
            f"{config.task or 'language'}"
        )
    if missing := sorted(known.keys() - config.keys()):
        raise UserError(
            f"config lacks the field(s) {', '.join(missing)}: default({config.task!r}) has all"
        )
    try:
        cell_of(config)
    except ValueError as error:
        raise UserError(str(error)) from None
    if len(config.mi_init) != 3:
        raise UserError(f"mi_init holds alpha, beta1, beta2: three numbers, not {config.mi_init}")
    for value in config.mi_init:
        _check("mi_init", value, Field(0.0, ""))


def converted(name: str, value: Any) -> Any:
    """A known field's value, a whole number as a float where the field is one.

    Raises:
      UserError: when the field can't have it.
    """
    _check(name, value, FIELDS[name])
    return float(value) if isinstance(FIELDS[name].default, float) else value


def _check(name: str, value: Any, field: Field) -> None:
    expected = type(field.default)
    if not isinstance(value, expected) and not (expected is float and type(value) is int):
        raise UserError(f"config field {name} must be {expected.__name__}, not {value!r}")
    if field.choices and value not in field.choices:
        hint = nearest(value, field.choices)
        raise UserError(f"{name}={value!r} is not one of {', '.join(field.choices)}; {hint}")
    if expected in (int, float):
        if not abs(value) < float("inf"):  # NaN too
            raise UserError(f"{name}={value} is not a finite number")
        if field.low is not None and value < field.low:
            raise UserError(f"{name}={value} must be at least {field.low:g}")
        if field.below is not None and value >= field.below:
            raise UserError(f"{name}={value} must be below {field.below:,}")


def variants(arg: str, config: ConfigDict, known: dict[str, Callable]) -> ConfigDict:
    """Applies the variants that `--config=FILE:a,b` names to a config, in order.

    `tiny` is known to every file: its cell, small, on the characters of `python`, in seconds.
    """
    known = known | {"tiny": tiny}
    for name in filter(None, (arg or "").split(",")):
        if name not in known:
            raise UserError(f"unknown variant {name!r} of the config; {nearest(name, known)}")
        known[name](config)
    return config


def tiny(config: ConfigDict) -> None:
    """Shrinks a config to a smoke run of seconds that needs no download."""
    known = fields_of("")
    for name in config.keys() - known.keys():
        del config[name]
    config.update({name: known[name].default for name in known.keys() - config.keys()})
    config.update(
        task="",
        corpus="python",
        depth=min(config.depth, 2),
        hidden_size=24,
        embed_size=0,
        batch_size=4,
        num_steps=16,
        epochs=1,
        param_budget=0,
        max_steps=12,
        eval_tokens=600,
    )


def load(name: str) -> ConfigDict:
    """The config that `--config=NAME[:variant]` means: `ptb_word:small`, or `FILE.py:variant`.

    A config file is code, which this runs.

    Raises:
      UserError: when there is none of that name.
    """
    path, _, variant = config_file(name).partition(".py:")
    file = Path(path.removesuffix(".py") + ".py")
    if not file.is_file():
        raise UserError(f"cannot read the config file {file}")
    return runpy.run_path(str(file))["get_config"](variant)


def config_file(name: str) -> str:
    """The file that `--config=NAME[:variant]` means, with its variant.

    A NAME without a folder and without `.py` is a packaged config: `ptb_word:small` is
    `configs/ptb_word.py:small` of the package. Anything else is a path, returned as it is.

    Raises:
      UserError: when no packaged config has that name.
    """
    stem, colon, variant = name.partition(":")
    if not stem or "/" in stem or stem.endswith(".py"):
        return name
    known = packaged()
    if stem not in known:
        hint = nearest(stem, known)
        raise UserError(f"unknown config {stem!r}; {hint} (a file of your own: --config=FILE.py)")
    return f"{known[stem]}{colon}{variant}"


def packaged() -> dict[str, Path]:
    """The files of the packaged configs, by name."""
    package = Path(__file__).parent
    # Installed they are a part of the package, in a checkout they lie beside it.
    folders = [package / "configs", package.parent / "configs"]
    found = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(found.glob("*.py"))}


def show(value: Any) -> str:
    """A value, short: six digits of a float, the name of a file."""
    if isinstance(value, tuple):
        return f"({' '.join(map(show, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value).rpartition("/")[2]


def to_json(config: ConfigDict) -> dict:
    """What `config.json` holds."""
    return {"format": FORMAT, **config.to_dict()}


def from_json(fields: dict, where: str) -> ConfigDict:
    """The config that `to_json` gave; where names its file in errors.

    A field that the file lacks is newer than the file and gets its default, which is what was
    done before the field existed.

    Raises:
      UserError: on anything else.
    """
    if fields.get("format") != FORMAT:
        raise UserError(
            f"{where} has format {fields.get('format')!r}; this version reads format {FORMAT}"
        )
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    del fields["format"]
    config = ConfigDict(default(str(fields.get("task", ""))).to_dict() | fields)
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return config


def differences(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The fields, other than those a run may be continued with, in which two configs differ."""
    return [
        f"{name}: {theirs.get(name)!r} there, {ours[name]!r} here"
        for name in ours
        if name not in CONTINUABLE and ours[name] != theirs.get(name)
    ]
