"""The published sets of numbers that configs name: found, or downloaded where that is allowed."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rnnx import cache
from rnnx.config import nearest
from rnnx.data.catalogue import NUMBERS
from rnnx.data.download import RawFiles, sha256
from rnnx.errors import UserError

NAMES = (*NUMBERS, "cmapss", "ucr/NAME")
_CMAPSS = {
    "train": "train_FD001.txt", "test": "test_FD001.txt", "rul": "RUL_FD001.txt",
}  # fmt: skip
_NASA = (
    "https://www.nasa.gov/intelligent-systems-division/discovery-and-systems-health/pcoe/"
    "pcoe-data-set-repository/"
)
_UCR = "https://www.timeseriesclassification.com"


def known(name: str) -> bool:
    """Whether a name means a set, whatever files are there."""
    return name in NUMBERS or name == "cmapss" or name.startswith("ucr/")


def find(
    name: str, data_dir: str = "", say: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """The files of a set by their part: "train", and where there is one "test", "rul".

    Args:
      name: `etth1`, `m4_hourly` (downloaded if missing, checked against their sums), `cmapss`
        (FD001) or `ucr/NAME` (files of the UCR and UEA archives, put there by hand).
      data_dir: where files are or go; "" is `$RNNX_DATA`, else in the cache.
      say: called with a line of text before and during a download.

    Raises:
      UserError: no such set; files that are not there, with their official place; damaged.
      Outage: a download fails.
    """
    if name in NUMBERS:
        folder, files = NUMBERS[name]
        raw = RawFiles(tuple(files.values()), data_dir, say or (lambda line: None), folder)
        paths = raw.fetch()
        return {part: paths[file.name] for part, file in files.items()}
    place = cache.raw(data_dir)
    if name == "cmapss":
        return _there(name, place, "cmapss", [_CMAPSS], _NASA)
    if found := re.fullmatch(r"ucr/(\w[\w-]*)", name):
        forms = [
            {part: f"{found[1]}_{part.upper()}{suffix}" for part in ("train", "test")}
            for suffix in (".tsv", ".ts")
        ]
        return _there(name, place, name, forms, _UCR)
    raise UserError(f"unknown set {name!r}; {nearest(name, NAMES)}")


def checksums(files: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of a table's files, the parts in their order: by name, and by `train NAME` and so on
    if there are several, which may have one name."""
    return {
        f"{part} {path.name}" if len(files) > 1 else path.name: sha256(path)
        for part, path in files.items()
    }


def _there(
    name: str, place: Path, folder: str, forms: list[dict[str, str]], site: str
) -> dict[str, Path]:
    """The files of the first form that are all there, in the folder of their set or right here."""
    for files in forms:
        for home in (place / folder, place / Path(folder).name, place):
            paths = {part: home / file for part, file in files.items()}
            if all(path.is_file() for path in paths.values()):
                return paths
    wanted = " or ".join(", ".join(files.values()) for files in forms)
    raise UserError(f"{name} is not there: put {wanted} from {site} into {place / folder}")
