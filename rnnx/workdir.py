"""What a run keeps on disk.

    config.json       the resolved config
    vocabulary.json   of texts and rolls: the symbols, in the order of their ids
    spec.json         of other tasks: what the network knows of its data
    run.json          versions, devices, git revision, data sums, parameter table; each launch
    metrics.jsonl     a line for every update and every epoch
    tensorboard/      the same as events
    checkpoints/      latest (to resume) and best (to use)
    evaluations.jsonl the scores that `rnnx.evaluate` printed
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
from typing import Any

import jax
from ml_collections import ConfigDict

from rnnx import __version__, native, tasks
from rnnx import config as configs
from rnnx.errors import Outage, UserError, writing

SWEEP = "progress.json"  # in the folder of a sweep: its trials, and how many there will be
FORMAT = 1  # of run.json, with metrics.jsonl, and of result.json and evaluations.jsonl

_OWN = ("config.json", "vocabulary.json", "spec.json", "run.json", "metrics.jsonl", "tensorboard",
        "checkpoints", "evaluations.jsonl", "result.json", "lock")  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Writes the whole file or none of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes the whole file or none of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a power loss may leave the new name without content
    os.replace(temporary, path)


def read_json(path: Path, version: int | None = None) -> dict:
    """The JSON object in a file.

    Raises:
      UserError: when it is missing, is no JSON object, or has another format than `version`.
      Outage: when the system refuses to read it.
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
    return tasks.config_from_json(read_json(path), str(path))


def check_path(folder: Path) -> None:
    """Refuses a path that checkpoints can't have. Raises UserError."""
    if "[" in str(folder) or "]" in str(folder):
        raise UserError(
            f"the workdir {folder} has brackets in its path, which checkpoints can't have"
        )


def check(
    folder: Path, config: ConfigDict, name: str, sums: dict[str, str], places: tuple[str, ...]
) -> None:
    """Refuses a folder that is not, or cannot become, the workdir of this run; writes nothing.

    Args:
      name, sums: of the data: what they are called, and the sha256 of their files.
      places: config fields that only say where the data lie.

    Raises:
      UserError: when it holds a run of another config or of other data, or other files.
    """
    check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the workdir {folder} is a file: name a folder")
    if (folder / "config.json").exists():
        theirs = read_config(folder)
        theirs.update({place: config[place] for place in places})  # the sums tell
        if differing := configs.differences(config, theirs):
            raise UserError(
                f"{folder} holds a run of another config ({'; '.join(differing)}): choose "
                "another --workdir, or the same config to continue it"
            )
        check_data(folder, name, sums)
    elif folder.exists():
        # Only files of rnnx: a run that was killed before it began.
        foreign = {path.name.removesuffix(".tmp") for path in folder.iterdir()} - set(_OWN)
        if foreign:
            raise UserError(
                f"{folder} holds no run, but other files ({', '.join(sorted(foreign)[:3])}): "
                "choose another --workdir"
            )


def check_data(folder: Path, name: str, sums: dict[str, str]) -> None:
    """Raises UserError when data are not those that the run in folder was begun with."""
    data = read_json(folder / "run.json", FORMAT).get("data")
    known = data.get("sums") if isinstance(data, dict) else None
    # In order: the parts of a table may have been swapped. Names may change.
    if not isinstance(known, dict) or list(known.values()) != list(sums.values()):
        raise UserError(
            f"the corpus {name} is not the one that the run in {folder} was trained on: bring "
            "that one back, or choose another --workdir"
        )


def write(folder: Path, config: ConfigDict, spec_file: str, spec: dict, about: dict) -> None:
    """Makes folder the workdir of this run, or records there that the run is resumed.

    Args:
      spec: what `spec_file` is to hold: what the network must know of its data.

    Raises:
      Outage: when it can't be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "config.json").exists():
            first = read_json(folder / "run.json", FORMAT)
            told = ("versions", "device", "git", "replicas")
            launch = {name: about[name] for name in told if name in about}
            launches = [*first.get("continued", []), launch]
            # The newest command alone repeats the run: it may have raised the number of epochs.
            about = first | {name: about[name] for name in ("updates", "command") if about[name]}
            about |= {"continued": launches}
        else:
            write_json(folder / spec_file, spec)
        write_json(folder / "run.json", about)
        # Last: it completes the workdir.
        write_json(folder / "config.json", configs.to_json(config))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a workdir for one process at a time; the lock ends with the process.

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
        except OSError as error:  # some network file systems have no locks
            raise Outage(f"cannot lock {file.name} ({error.strerror}): use another disk") from None
        yield


def provenance(name: str, sums: dict[str, str], sizes: tuple[int, ...]) -> dict:
    """What a run records about its data and the machine."""
    return {
        "format": FORMAT,
        "data": {"corpus": name, "sums": sums, "sizes": list(sizes)},
        "devices": [str(device) for device in jax.devices()],
        **machine(),
    }


def machine() -> dict:
    """What a measurement records about the machine and the code."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "versions": {"rnnx": __version__} | {name: metadata.version(name) for name in packages},
        "device": device_name(),
        "products": "packed" if native.tile_width() else "XLA",  # recurrent ones, see native
        "precision": jax.config.jax_default_matmul_precision or "default",  # of float32 products
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
    """The commit of the code in use, with `-dirty` if files were changed; empty if unknown."""
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
