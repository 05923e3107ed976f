"""Own recordings: a folder with manifest.tsv, or Kaldi's wav.scp and text.

    path<TAB>text[<TAB>speaker[<TAB>part]]

Paths are relative to the folder; a first line of these names may stand above. part is train, valid
or test. Without it, each tenth speaker is for the test and each tenth for validation; with fewer
than ten speakers, each tenth recording. A folder may instead have the folders train, valid (or dev)
and test, each of them Kaldi's. Kaldi's words in angle brackets, such as <NOISE>, are left out.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnx.data import sound
from rnnx.errors import UserError

RATE = 16_000  # samples a second that all are brought to
_NOISE = re.compile(r"<[^<>\s]*>")
_PARTS = {"train": 0, "valid": 1, "dev": 1, "test": 2}


class _Line(NamedTuple):
    name: str
    path: Path
    text: str
    speaker: str
    part: int | None


def read(folder: Path) -> tuple[Any, ...]:
    """The fields of `speech.Recordings`.

    Raises:
      UserError: no list of recordings, a line of another form, files that are missing, parts
        without a recording.
    """
    homes = {name: folder / name for name in _PARTS if (folder / name / "wav.scp").is_file()}
    if (folder / "manifest.tsv").is_file():
        lines = _manifest(folder)
    elif (folder / "wav.scp").is_file():
        lines = _kaldi(folder)
    elif homes:
        lines = [
            line._replace(part=_PARTS[name])
            for name, home in homes.items()
            for line in _kaldi(home)
        ]
    else:
        raise UserError(
            f"{folder} holds neither manifest.tsv (path<TAB>text) nor wav.scp and text of Kaldi, "
            "nor folders train, valid and test with these"
        )
    if missing := [line.path for line in lines if not line.path.is_file()]:
        raise UserError(f"{len(missing)} recordings are not there, such as {missing[0]}")
    without = sum(line.part is None for line in lines)
    if 0 < without < len(lines):
        raise UserError(
            f"{folder} names no part for {without} of {len(lines)} recordings: name one for each "
            "of them, or for none"
        )
    part = _divided(lines) if without else np.array([line.part for line in lines])
    for name, number in (("train", 0), ("valid", 1), ("test", 2)):
        if not (part == number).any():
            raise UserError(f"{folder} has no recordings for {name}: name more, or their parts")
    ids, texts, speakers = (
        [getattr(line, name) for line in lines] for name in ("name", "text", "speaker")
    )
    return ids, speakers, texts, lambda i: sound.read_sound(lines[i].path), RATE, part, {}


def _manifest(folder: Path) -> list[_Line]:
    found = []
    for number, line in _lines(folder / "manifest.tsv"):
        path, *rest = line.split("\t")
        if number == 1 and path == "path":
            continue
        if not 1 <= len(rest) <= 3 or not path:
            raise UserError(f"{folder}/manifest.tsv, line {number}: not path<TAB>text")
        text, speaker, part = (*rest, "", "")[:3]
        if part and part not in _PARTS:
            raise UserError(f"{folder}/manifest.tsv, line {number}: the part {part!r} is not "
                            "train, valid or test")  # fmt: skip
        found.append(_Line(path, folder / path, _spaced(text), speaker, _PARTS.get(part)))
    return found


def _kaldi(folder: Path) -> list[_Line]:
    """wav.scp and text, with spk2utt's inverse, utt2spk, if it is there. Commands are not run."""
    texts = _named(folder / "text", 1)
    said = {name: _spaced(_NOISE.sub(" ", text)) for _, name, text in texts}
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = {name: speaker for _, name, speaker in _named(folder / "utt2spk", 2)}
    found = []
    for number, name, path in _named(folder / "wav.scp", 2):
        if path.endswith("|"):
            raise UserError(f"{folder}/wav.scp, line {number} is a command: give paths of files")
        if name not in said:
            raise UserError(f"{folder}/text has nothing of {name}, which is in wav.scp")
        found.append(_Line(name, folder / path, said[name], speakers.get(name, ""), None))
    return found


def _named(path: Path, least: int) -> list[tuple[int, str, str]]:
    """Lines of a file of Kaldi's: their numbers, the name before the first white space, the rest.

    Raises:
      UserError: a line of fewer parts than `least`.
    """
    found = []
    for number, line in _lines(path):
        name, *rest = line.strip().split(None, 1)
        if 1 + len(rest) < least:
            raise UserError(f"{path}, line {number}: there is nothing behind {name}")
        found.append((number, name, rest[0] if rest else ""))
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _divided(lines: list[_Line]) -> np.ndarray:
    """Parts by speaker where there are ten or more, else by recording."""
    speakers = sorted({line.speaker for line in lines})
    if len(speakers) >= 10:
        place = {speaker: i % 10 for i, speaker in enumerate(speakers)}
        tenth = np.array([place[line.speaker] for line in lines])
    else:
        tenth = np.arange(len(lines)) % 10
    return np.where(tenth == 8, 1, np.where(tenth == 9, 2, 0))
