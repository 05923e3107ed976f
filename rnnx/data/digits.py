"""Strings of digits, joined from the Free Spoken Digit Dataset: 6 speakers, 50 takes of each digit.

A string has 3 to 7 digits of one speaker, with random pauses before, between and after them. Takes
0 to 4 are for the test, as the set's own split says, 5 to 9 for validation, the others for
training; so no recording is in two parts. `digits/NAME` holds speaker NAME out for the test.

Zohar Jackson et al. 2018, CC BY-SA 4.0.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from rnnx import cache
from rnnx.config import nearest
from rnnx.data import sound
from rnnx.errors import UserError

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE = 8000  # of the recordings
_TAKES = {0: range(10, 50), 1: range(5, 10), 2: range(5)}
_STRINGS = {0: 300, 1: 30, 2: 50}  # of each speaker
_DIGITS = (3, 7)
_PAUSE = (0.0, 0.3)  # seconds
_SITE = "https://github.com/Jakobovski/free-spoken-digit-dataset"


def read(corpus: str, data_dir: str = "") -> tuple[Any, ...]:
    """The fields of `speech.Recordings` of `digits`, or of `digits/SPEAKER`.

    Raises:
      UserError: an unknown speaker; recordings that are not there or damaged.
    """
    away = corpus.partition("/")[2]
    if away and away not in SPEAKERS:
        raise UserError(f"no speaker {away!r} of digits; {nearest(away, SPEAKERS)}")
    home = cache.raw(data_dir) / "fsdd" / "recordings"
    if not home.is_dir():
        raise UserError(f"digits is not there: put recordings of {_SITE} into {home.parent}")
    sums: dict[str, str] = {}
    clips = {speaker: _clips(home, speaker, sums) for speaker in SPEAKERS}
    rng, found = np.random.default_rng(0), []
    for part, count in _STRINGS.items():
        for speaker in SPEAKERS:
            for i in range(count):
                text, samples = _string(clips[speaker], _TAKES[part], rng)
                if away and (speaker == away) != (part == 2):
                    continue  # drawn all the same: the other strings stay as they are
                name = f"{speaker}-{('train', 'valid', 'test')[part]}-{i:03d}"
                found.append((name, speaker, text, samples, part))
    ids, speakers, texts, samples, parts = map(list, zip(*found, strict=True))
    return ids, speakers, texts, lambda i: (samples[i], RATE), RATE, np.array(parts), sums


def _clips(home: Path, speaker: str, sums: dict[str, str]) -> dict[tuple[int, int], np.ndarray]:
    """The recordings of a speaker by digit and take; adds their common sum."""
    digest, clips = hashlib.sha256(), {}
    for digit in range(10):
        for take in range(50):
            path = home / f"{digit}_{speaker}_{take}.wav"
            samples, rate = sound.read_sound(path)
            if rate != RATE:
                raise UserError(f"{path} has {rate} samples a second, not {RATE}")
            digest.update(samples.tobytes())
            clips[digit, take] = samples
    sums[f"recordings of {speaker}"] = digest.hexdigest()
    return clips


def _string(
    clips: dict[tuple[int, int], np.ndarray], takes: range, rng: np.random.Generator
) -> tuple[str, np.ndarray]:
    """Digits drawn at random, and their sound."""
    digits = rng.integers(0, 10, rng.integers(_DIGITS[0], _DIGITS[1] + 1))
    parts = [_pause(rng)]
    for digit in digits:
        parts += [clips[int(digit), int(rng.choice(takes))], _pause(rng)]
    return "".join(map(str, digits)), np.concatenate(parts)


def _pause(rng: np.random.Generator) -> np.ndarray:
    """Silence, with the faint noise that a logarithm needs."""
    count = int(RATE * rng.uniform(*_PAUSE))
    return rng.normal(0.0, 1e-4, count).astype(np.float32)
