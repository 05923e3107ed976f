"""What a run keeps on disk, and how it is opened again.

    config.json       the resolved config
    vocabulary.json   the symbols, in the order of their ids
    run.json          versions, devices, git revision, data sums, parameter table
    metrics.jsonl     a line for every update and every epoch
    tensorboard/      the same as events
    checkpoints/      latest (to go on) and best (to use)
    evaluations.jsonl what `rnnx.evaluate` printed
    result.json       the scores, once the run is complete

Everything is JSON or plain arrays: opening a stranger's workdir runs no code of theirs.
"""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rnnx import __version__
from rnnx import config as configs
from rnnx.corpora import Corpus
from rnnx.errors import UserError
from rnnx.vocabulary import Vocabulary

FORMAT = 1  # of run.json and result.json


def write_json(path: Path, text: str) -> None:
    """Writes the whole file or nothing of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Raises UserError when the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a workdir of rnnx") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from None


def claim(folder: Path, config: ConfigDict, corpus: Corpus, run: dict) -> None:
    """Makes folder the workdir of this run, or checks that it is.

    Raises:
      UserError: when it holds a run of another config or of other data, or can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the workdir {folder}: {error.strerror}") from None
    path = folder / "config.json"
    if path.exists():
        theirs = configs.from_json(path.read_text(encoding="utf-8"), str(path))
        if differing := configs.differences(config, theirs):
            raise UserError(
                f"{folder} holds a run of another config ({'; '.join(differing)}): choose "
                "another --workdir, or the same config to continue it"
            )
        if read_json(folder / "run.json").get("data") != run["data"]:
            raise UserError(
                f"the corpus {config.corpus} changed since the run in {folder} began: choose "
                "another --workdir, or bring the old data back"
            )
    elif any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another --workdir")
    try:
        # config.json last: with it the workdir is whole.
        write_json(folder / "vocabulary.json", json.dumps(corpus.vocabulary.to_json()) + "\n")
        write_json(folder / "run.json", json.dumps(run, indent=2) + "\n")
        write_json(path, configs.to_json(config))
    except OSError as error:
        raise UserError(f"cannot write to the workdir {folder}: {error.strerror}") from None


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
    import jax

    from rnnx import model
    from rnnx.checkpoint import Checkpoints

    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} is not a workdir of rnnx: it has no config.json")
    config = configs.from_json(path.read_text(encoding="utf-8"), str(path))
    vocabulary = Vocabulary.from_json(read_json(folder / "vocabulary.json"))
    graphdef, shapes = model.abstract(config, vocabulary.size)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {
        name: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=device) for name, p in shapes.items()
    }
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} has no checkpoint yet: train it first")
    checkpoints = Checkpoints(folder)
    try:
        found = checkpoints.restore_best(like)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(
            f"{folder} has no evaluated checkpoint yet: one is saved at the end of each epoch"
        )
    return Run(config, vocabulary, graphdef, *found)


def provenance(corpus: Corpus) -> dict:
    """What a run should remember of where it ran and on what."""
    import jax

    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "format": FORMAT,
        "data": {
            "corpus": corpus.name,
            "sums": corpus.sums,
            "tokens": [len(corpus.train), len(corpus.valid), len(corpus.test)],
        },
        "versions": {"rnnx": __version__} | {name: metadata.version(name) for name in packages},
        "devices": [str(device) for device in jax.devices()],
        "device": device_name(),
        "git": git_revision(),
    }


def device_name() -> str:
    """`2 x NVIDIA H200`, or `cpu (2 cores)`."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    name = f"cpu ({os.cpu_count()} cores)" if devices[0].platform == "cpu" else kind
    return name if len(devices) == 1 else f"{len(devices)} x {name}"


def git_revision() -> str:
    """The commit of the code in use, `-dirty` if it was changed since; empty if unknown."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
