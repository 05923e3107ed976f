"""What a run keeps on disk, and how it is opened again.

    config.json       the resolved config
    vocabulary.json   the symbols, in the order of their ids
    run.json          versions, devices, git revision, data sums, parameter table; each launch
    metrics.jsonl     a line for every update and every epoch
    tensorboard/      the same as events
    checkpoints/      latest (to go on) and best (to use)
    evaluations.jsonl what `rnnx.evaluate` printed
    result.json       the scores, once the run is complete
    lock              held while a process trains here

Everything is JSON or plain arrays: opening a stranger's workdir runs no code of theirs.
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from rnnx import __version__, model
from rnnx import config as configs
from rnnx.checkpoint import read_best
from rnnx.data import BUILT_IN, Corpus
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import Outage, UserError, writing

FORMAT = 1  # of run.json, with metrics.jsonl, and of result.json and evaluations.jsonl

_OWN = ("config.json", "vocabulary.json", "run.json", "metrics.jsonl", "tensorboard",
        "checkpoints", "evaluations.jsonl", "result.json", "lock")  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or nothing of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # or power lost may leave the new name without content
    os.replace(temporary, path)


def read_json(path: Path, version: int | None = None) -> dict:
    """What a file holds.

    Raises:
      UserError: when it is missing, holds no JSON object, or one of another format than that.
      Outage: when the system does not let it be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a whole workdir") from None
    except OSError as error:
        raise Outage(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what rnnx writes there")
    if version is not None and (found := value.get("format")) != version:
        raise UserError(f"{path} has format {found!r}; this version reads format {version}")
    return value


def read_config(folder: Path) -> ConfigDict:
    """The config of a workdir. Raises UserError when it is none."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} is not a workdir of rnnx: it has no config.json")
    return configs.from_json(read_json(path), str(path))


def check(folder: Path, config: ConfigDict, corpus: Corpus) -> None:
    """Refuses a folder that is not, or cannot become, the workdir of this run; writes nothing.

    Raises:
      UserError: when it holds a run of another config or of other data, or other files.
    """
    if "[" in str(folder) or "]" in str(folder):
        raise UserError(
            f"the workdir {folder} has brackets in its path, which checkpoints can't have"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the workdir {folder} is a file: name a folder")
    if (folder / "config.json").exists():
        theirs = read_config(folder)
        if not {config.corpus, theirs.corpus} & set(BUILT_IN):
            theirs.corpus = config.corpus  # an own file may have moved: its sum tells
        if differing := configs.differences(config, theirs):
            raise UserError(
                f"{folder} holds a run of another config ({'; '.join(differing)}): choose "
                "another --workdir, or the same config to continue it"
            )
        check_data(folder, corpus)
    elif folder.exists():
        # Files of ours alone are those of a run that was killed before it began.
        foreign = {path.name.removesuffix(".tmp") for path in folder.iterdir()} - set(_OWN)
        if foreign:
            raise UserError(
                f"{folder} holds no run, but other files ({', '.join(sorted(foreign)[:3])}): "
                "choose another --workdir"
            )


def check_data(folder: Path, corpus: Corpus) -> None:
    """Raises UserError when a corpus is not the one that the run in folder was begun with."""
    data = read_json(folder / "run.json", FORMAT).get("data")
    known = data.get("sums") if isinstance(data, dict) else None
    if not isinstance(known, dict) or sorted(known.values()) != sorted(corpus.sums.values()):
        raise UserError(
            f"the corpus {corpus.name} is not the one that the run in {folder} was trained on: "
            "bring that one back, or choose another --workdir"
        )


def write(folder: Path, config: ConfigDict, corpus: Corpus, about: dict) -> None:
    """Makes folder the workdir of this run, or notes in it that the run is continued.

    Raises:
      Outage: when it can't be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "config.json").exists():
            first = read_json(folder / "run.json", FORMAT)
            launch = {name: about[name] for name in ("versions", "device", "git")}
            launches = [*first.get("continued", []), launch]
            about = first | {"updates": about["updates"], "continued": launches}
        else:
            write_json(folder / "vocabulary.json", corpus.vocabulary.to_json())
        write_json(folder / "run.json", about)
        # Last: with it the workdir is whole.
        write_json(folder / "config.json", configs.to_json(config))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a workdir for one process at a time; the lock goes with the process.

    Raises:
      Outage: when another process holds it, or the folder can't be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "w")  # noqa: SIM115 - held open as long as the lock
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Outage(f"another process is training in {folder}") from None
        except OSError as error:  # some network file systems have none
            raise Outage(f"cannot lock {file.name} ({error.strerror}): use another disk") from None
        yield


class Run(NamedTuple):
    """A workdir opened for use."""

    config: ConfigDict
    vocabulary: Vocabulary
    graphdef: Any
    params: dict[str, Any]
    info: dict  # step, epoch and valid nats of the checkpoint


def open_run(folder: Path) -> Run:
    """Opens a workdir with its best parameters, on the first local device.

    Raises:
      UserError: when there is no run, or no checkpoint yet.
    """
    config = read_config(folder)
    vocabulary = Vocabulary.from_json(read_json(folder / "vocabulary.json"))
    graphdef, shapes = model.abstract(config, vocabulary.size)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        name: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=device) for name, p in shapes.items()
    }
    found = read_best(folder, like)
    if found is None:
        raise UserError(
            f"{folder} has no evaluated checkpoint yet: one is saved at the end of each epoch"
        )
    return Run(config, vocabulary, graphdef, *found)


def provenance(corpus: Corpus) -> dict:
    """What a run should remember of where it ran and on what."""
    return {
        "format": FORMAT,
        "data": {
            "corpus": corpus.name,
            "sums": corpus.sums,
            "tokens": [len(corpus.train), len(corpus.valid), len(corpus.test)],
        },
        "devices": [str(device) for device in jax.devices()],
        **machine(),
    }


def machine() -> dict:
    """What a measurement should say of where it was made, and by which code."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "versions": {"rnnx": __version__} | {name: metadata.version(name) for name in packages},
        "device": device_name(),
        "git": git_revision(),
    }


def device_name() -> str:
    """`2 x NVIDIA H200`, or `cpu (AMD EPYC, 2 cores)`."""
    devices = jax.devices()
    name = devices[0].device_kind
    if devices[0].platform == "cpu":
        name = f"cpu ({', '.join(filter(None, [_processor(), f'{os.cpu_count()} cores']))})"
    return name if len(devices) == 1 else f"{len(devices)} x {name}"


def _processor() -> str:
    try:
        told = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        return ""
    return told[1].strip() if told else ""


def git_revision() -> str:
    """The commit of the code in use, `-dirty` if it was changed since; empty if unknown."""
    root = Path(__file__).parent.parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root.resolve():
            return ""  # a repository that happens to enclose the package
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return ""
