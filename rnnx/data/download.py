"""Raw files: found, checked against their sums, downloaded where they are missing."""

import hashlib
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnx import cache
from rnnx.data.catalogue import Raw
from rnnx.data.scratch import scratch
from rnnx.duration import duration
from rnnx.errors import Outage, UserError

BLOCK = 1 << 16  # bytes of a download at a time
_SILENCE = 20.0  # seconds a server may be silent


def sha256(path: Path) -> str:
    """The sum of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content(path: Path, expected: str) -> bytes:
    """The bytes of a file, or of the one inside a zip, whose sha256 is `expected`.

    Raises UserError if neither has that sum.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # in memory: no member's path is ever used
            data = archive.read(archive.infolist()[0])
    if hashlib.sha256(data).hexdigest() != expected:
        raise UserError(f"{path} changed while it was read: try again")
    return data


class RawFiles:
    """The raw files of a corpus, in `data_dir`, else `$RNNX_DATA`, else `<cache>/raw`.

    Raises UserError when a file that is there has another sum.
    """

    def __init__(
        self,
        files: Sequence[Raw],
        data_dir: str,
        say: Callable[[str], None],
        folder: str = "ptb",
    ):
        """Looks for the files.

        Args:
          say: called with a line of text before and during a download.
          folder: below that place, where files may lie too.
        """
        self._folder, self._files, self._say = cache.raw(data_dir), files, say
        self._found: dict[Raw, Path] = {}
        for raw in files:
            for form in filter(None, (raw, raw.member)):  # packed or not
                for path in (self._folder / folder / form.name, self._folder / form.name):
                    if path.is_file():
                        _check(path, form.sha256)
                        self._found[raw] = path

    @property
    def sums(self) -> dict[str, str]:
        """The sha256 of what is read, by file name."""
        return {raw.content.name: raw.content.sha256 for raw in self._files}

    def fetch(self) -> dict[str, Path]:
        """Where each file is, by its name; downloaded where it is missing.

        Raises Outage when a download fails.
        """
        missing = [raw for raw in self._files if raw not in self._found]
        for raw in missing:
            _download(raw, missing, self._folder, self._say)
            self._found[raw] = self._folder / raw.name
        return {raw.name: self._found[raw] for raw in self._files}

    def read(self) -> dict[str, bytes]:
        """The bytes of each file by name, downloaded where they are missing.

        Raises Outage when a download fails.
        """
        paths = self.fetch()
        return {
            raw.content.name: content(paths[raw.name], raw.content.sha256) for raw in self._files
        }


def _check(path: Path, expected: str) -> None:
    if (found := sha256(path)) != expected:
        raise UserError(
            f"{path} is damaged, or another file: its sha256 is {found}, expected {expected}; "
            "delete it, and it will be downloaded again"
        )


def _download(raw: Raw, missing: Sequence[Raw], folder: Path, say: Callable) -> None:
    """Downloads a file into the folder; nothing stays there that is not what was asked for.

    TFDS's download manager would wait forever for a silent server, and show nothing meanwhile.
    """
    import requests

    with scratch(folder, ".incoming-") as place:
        whole = place / raw.name
        try:
            _fetch(raw, whole, say)
        except requests.RequestException as error:
            reason = " ".join(str(error).split())
        else:
            if whole.stat().st_size == raw.size and sha256(whole) == raw.sha256:
                whole.replace(folder / raw.name)
                return
            reason = f"what came is not {raw.size} bytes with the sha256 {raw.sha256}"
    files = ", ".join(f"{raw.name} from {raw.url}" for raw in missing)
    raise Outage(f"cannot download {raw.url}: try again, or put into {folder} {files} ({reason})")


def _fetch(raw: Raw, whole: Path, say: Callable) -> None:
    """Writes what the address gives, at most one block more than the file's size."""
    import requests

    say(f"downloading {raw.url} ({raw.size / 1e6:.1f} MB)")
    begun = told = time.monotonic()
    with (
        requests.get(raw.url, stream=True, timeout=_SILENCE) as response,
        whole.open("wb") as file,
    ):
        response.raise_for_status()
        for block in response.iter_content(BLOCK):
            done = file.tell() + file.write(block)
            if done > raw.size:
                return
            if (now := time.monotonic()) - told >= 5:
                told, left = now, (now - begun) / done * (raw.size - done)
                say(f"{done / 1e6:.1f} of {raw.size / 1e6:.1f} MB, ETA {duration(left)}")
