"""What goes to a machine without network for scripts/reproduce-gpu, and what comes back."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rnnx.errors import UserError  # noqa: E402

LIMIT = 64 << 20  # bytes of a packed folder
CORPUS = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")
# Taken to be there, with what they require: JAX for its device, and what is large or common.
THERE = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "absl-py", "numpy", "scipy", "pandas",
    "pyarrow", "scikit-learn", "matplotlib", "requests", "rich", "protobuf", "etils", "attrs",
    "packaging", "psutil", "pyyaml", "six", "tqdm", "typing-extensions", "wrapt", "markupsafe",
)  # fmt: skip
# pip takes these literally: a wheel for an older glibc needs its own line.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux1_x86_64")  # fmt: skip


def pip(*arguments: str) -> str:
    """Runs pip; returns why it failed, or nothing."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


def normal(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub("[-_.]+", "-", name).lower()


def requirements() -> list:
    """The lines of requirements.txt."""
    from packaging.requirements import Requirement

    lines = (line.partition("#")[0] for line in (ROOT / "requirements.txt").open())
    return [Requirement(line.strip()) for line in lines if line.strip()]


def needed(python: str, there: Sequence[str]) -> dict[str, str]:
    """What requirements.txt requires beyond `there`: versions, as installed here, by name."""
    from packaging.requirements import Requirement

    place = {"python_version": python, "python_full_version": f"{python}.0", "extra": "",
             "sys_platform": "linux", "platform_system": "Linux",
             "platform_machine": "x86_64"}  # fmt: skip
    known = {normal(name) for name in there}
    found: dict[str, str] = {}
    waiting = [requirement.name for requirement in requirements()]
    while waiting:
        name = normal(waiting.pop())
        if name in known or name in found:
            continue
        package = metadata.distribution(name)
        found[name] = package.version
        for line in package.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(place):
                waiting.append(requirement.name)
    return found


def pack(folder: Path, data: Path, python: str, platforms: Sequence[str], there: Sequence[str]):
    """Fills a folder with corpora and wheels, and yields lines that say what is in it.

    Raises:
      UserError: when a corpus is missing, or the folder is larger than may travel.
    """
    from rnnx.workdir import git_revision

    for part in ("data", "wheels"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    for name in CORPUS:
        source = next((f for f in (data / "ptb" / name, data / name) if f.is_file()), None)
        if source is None:
            raise UserError(f"{data} has no {name}: name its folder with --data_dir or RNNX_DATA")
        shutil.copy(source, folder / "data")
    packages = needed(python, there)
    lacking = [name for name, version in sorted(packages.items())
               if not wheel(folder / "wheels", name, version, python, platforms)]  # fmt: skip
    about = {"git": git_revision(), "python": python, "packages": packages}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    sizes = {f: f.stat().st_size for f in folder.rglob("*") if f.is_file()}
    for file, size in sorted(sizes.items(), key=lambda item: -item[1]):
        yield f"{size / 2**20:6.2f} MiB  {file.relative_to(folder)}"
    yield f"{sum(sizes.values()) / 2**20:6.2f} MiB  in all, of at most {LIMIT >> 20}"
    yield f"left out, taken to be there: {', '.join(there)}"
    if lacking:
        yield f"left out, as pip has no wheel for Python {python}: {', '.join(lacking)}"
    if sum(sizes.values()) > LIMIT:
        raise UserError(f"{folder} is larger than {LIMIT >> 20} MiB: name more with --there")


def wheel(folder: Path, name: str, version: str, python: str, platforms: Sequence[str]) -> bool:
    """Fetches a wheel that fits there; builds one of a source that is Python only."""
    fits = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    fits += [f"--platform={platform}" for platform in platforms]
    if not pip("download", "--no-deps", *fits, f"--dest={folder}", f"{name}=={version}"):
        return True
    with tempfile.TemporaryDirectory() as built:
        pip("wheel", "--no-deps", f"--wheel-dir={built}", f"{name}=={version}")
        files = list(Path(built).glob("*-none-any.whl"))
        for file in files:
            shutil.move(file, folder)
    return bool(files)


def install(packed: str | None, site: Path, env: dict[str, str]) -> str:
    """Installs the wheels of a packed folder into site and lets env find them, and the corpora.

    Returns the commit that it was packed at; empty without a folder.

    Raises:
      UserError: when it is none, or the machine still lacks a package.
    """
    git = ""
    if packed:
        folder = Path(packed).expanduser().resolve()
        wheels = sorted(folder.glob("wheels/*.whl"))
        if not (folder / "about.json").exists():
            raise UserError(f"{folder} is no packed folder: scripts/reproduce-gpu pack {packed}")
        git = json.loads((folder / "about.json").read_text())["git"]
        done, names = site / "installed", "\n".join(file.name for file in wheels)
        if wheels and not (done.exists() and done.read_text() == names):
            shutil.rmtree(site, ignore_errors=True)
            options = ["--no-index", "--no-deps", "--no-compile", f"--target={site}"]
            if why := pip("install", *options, *map(str, wheels)):
                raise UserError(f"pip can't install the wheels of {folder}: {why}")
            done.write_text(names)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), env.get("PYTHONPATH"))))
        env["RNNX_DATA"] = str(folder / "data")
        sys.path.insert(0, str(site))
    missing = []
    for requirement in requirements():
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(str(requirement))
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            print(f"{requirement} is asked for, {found} is there", flush=True)
    if missing:
        raise UserError(f"this machine lacks {', '.join(missing)}: pack them")
    return git


# ---------------------------------------------------------------------------- parameters


def halve(run: Path, file: Path) -> None:
    """Writes the best parameters of a run as float16."""
    import numpy as np

    from rnnx.trained import open_run

    found = open_run(run)
    arrays = {name: np.asarray(value, np.float16) for name, value in found.params.items()}
    info = json.dumps(found.info | {"rounded": "float16"})
    np.savez(file, info=np.array(info), **arrays)


def split(run: Path, half: Path, out: Path, piece: int) -> list[Path]:
    """Writes a run without its checkpoints, and its parameters, as `RUN.tar.1-of-4` and so on."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for file in sorted(run.glob("*.json*")):
            text = file.read_bytes()
            if file.name == "metrics.jsonl":  # a line an epoch; those of updates are many
                text = b"".join(
                    line for line in text.splitlines(True) if b'"kind": "epoch"' in line
                )
            entry = tarfile.TarInfo(file.name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        tar.add(half, "parameters.npz")
    for old in out.glob(f"{run.name}.tar.*"):
        old.unlink()
    data, files = whole.getvalue(), []
    count = -(-len(data) // piece)
    for i in range(count):
        files.append(out / f"{run.name}.tar.{i + 1}-of-{count}")
        files[-1].write_bytes(data[i * piece : (i + 1) * piece])
    return files


def join(pieces: Sequence[Path], folder: Path) -> None:
    """Makes a workdir of the pieces of one run.

    Raises:
      UserError: when the folder is there, or a piece is missing.
    """
    import jax.numpy as jnp
    import numpy as np

    from rnnx.checkpoint import Checkpoints

    if folder.exists():
        raise UserError(f"{folder} is there already: choose another --workdir")
    found = {piece.name: piece for piece in pieces}
    name, _, count = pieces[0].name.rpartition("-of-")
    name, _, _ = name.rpartition(".")
    parts = [f"{name}.{i + 1}-of-{count}" for i in range(int(count) if count.isdigit() else 0)]
    if sorted(found) != sorted(parts):
        raise UserError(f"these are not all pieces of one run: {', '.join(sorted(found))}")
    data = b"".join(found[part].read_bytes() for part in parts)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(folder, filter="data")
    with np.load(folder / "parameters.npz") as file:
        params = {n: jnp.asarray(file[n], jnp.float32) for n in file.files if n != "info"}
        info = json.loads(str(file["info"]))
    checkpoints = Checkpoints(folder)
    checkpoints.save_best(info["step"], params, info)
    checkpoints.close()
    (folder / "parameters.npz").unlink()


if __name__ == "__main__":
    halve(Path(sys.argv[1]), Path(sys.argv[2]))
