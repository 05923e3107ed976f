"""AN4: spelled names, addresses and numbers, read by 84 speakers (Carnegie Mellon, 1991).

Of the 948 training utterances, the first 100 in the order of speaker and number are for validation,
as ESPnet's recipe takes them; 130 are for the test.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from rnnx import cache
from rnnx.errors import UserError

RATE = 100.0  # frames a second
_CEPSTRA = 13
_VALID = 100
_SITE = "http://www.speech.cs.cmu.edu/databases/an4/"
_LINE = re.compile(r"(.*?)\s*\((\S+)\)")


def read(data_dir: str = "") -> tuple[Any, ...]:
    """The fields of `speech.Utterances`.

    Raises:
      UserError: files that are not there, or hold something else.
    """
    home = cache.raw(data_dir) / "an4"
    etc = home / "etc"
    sums: dict[str, str] = {}
    if not (etc / "an4_train.fileids").is_file():
        raise UserError(f"an4 is not there: put etc and feat of AN4 from {_SITE} into {home}")
    found: list[tuple[str, str, str, Path, int]] = []
    for part, name in ((0, "train"), (2, "test")):
        files = _text(etc / f"an4_{name}.fileids", sums).split()
        lines = _text(etc / f"an4_{name}.transcription", sums).strip().split("\n")
        if len(files) != len(lines):
            raise UserError(f"{etc} has {len(files)} files and {len(lines)} texts of {name}")
        for file, line in zip(files, lines, strict=True):
            match = _LINE.fullmatch(line.strip())
            if not match or match[2] != Path(file).name:
                raise UserError(f"{etc}/an4_{name}.transcription: {line!r} is not of {file}")
            words = [w for w in match[1].split() if w not in ("<s>", "</s>")]
            speaker = Path(file).parent.name
            found.append((match[2], speaker, " ".join(words), home / "feat" / f"{file}.mfc", part))
    ids, speakers, texts, paths, parts = map(list, zip(*found, strict=True))
    part = np.array(parts)
    order = sorted(np.flatnonzero(part == 0), key=lambda i: (speakers[i], ids[i]))
    part[order[:_VALID]] = 1
    digest = hashlib.sha256()
    frames = [_cepstra(path, digest) for path in paths]
    sums["feat"] = digest.hexdigest()
    phones = _dictionary(_text(etc / "an4.dic", sums))
    return ids, speakers, texts, frames, part, RATE, phones, sums


def _text(path: Path, sums: dict[str, str]) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is not there: it belongs to AN4, {_SITE}") from None
    sums[path.name] = hashlib.sha256(data).hexdigest()
    return data.decode("ascii", errors="replace")


def _cepstra(path: Path, digest: Any) -> np.ndarray:
    """(T, 13) of a Sphinx file: an int32 count, then float32 numbers, big-endian."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is not there: it belongs to AN4, {_SITE}") from None
    digest.update(data)
    count = int.from_bytes(data[:4], "big")
    if len(data) != 4 + 4 * count or not count or count % _CEPSTRA:
        raise UserError(f"{path} is no file of {_CEPSTRA} cepstra a frame, or is cut off")
    values = np.frombuffer(data, ">f4", offset=4).reshape(-1, _CEPSTRA).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite")
    return values


def _dictionary(text: str) -> dict[str, tuple[str, ...]]:
    """The first pronunciation of each word."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.strip().split("\n"):
        word, *phones = line.split()
        found.setdefault(re.sub(r"\(\d+\)$", "", word), tuple(phones))
    return found
