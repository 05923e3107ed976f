"""Utterances: features of sound with what is said, and who says it.

    corpus -> Utterances -> deltas, several frames in one step -> scaled -> `Sequences`

Features of a set come as the set has them (AN4: 13 cepstra, 100 times a second), or are computed
from recordings (`features.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from rnnx.data import an4, digits, features, recordings, sound
from rnnx.data.series import Scaling
from rnnx.errors import UserError

BLANK = 0  # of CTC; symbols are counted from 1
KINDS = 3  # of features a band: itself, its slope, and the slope of that


class Utterances(NamedTuple):
    """N utterances.

    Attributes:
      ids: their names.
      speakers: who speaks, N.
      texts: what is said, N, words with one space between them.
      frames: N arrays (T_i, F) float32.
      part: (N,) 0 train, 1 valid, 2 test.
      rate: frames a second.
      phones: of each word that is said, for labels of phones; {} where there is no dictionary.
      sums: sha256 of the files, by name.
      sample_rate: samples a second that `sound.features` took; 0 where the set has its own
        features.
    """

    ids: list[str]
    speakers: list[str]
    texts: list[str]
    frames: list[np.ndarray]
    part: np.ndarray
    rate: float
    phones: dict[str, tuple[str, ...]]
    sums: dict[str, str]
    sample_rate: int = 0


class Recordings(NamedTuple):
    """N recordings: as `Utterances`, with the sound in place of frames."""

    ids: list[str]
    speakers: list[str]
    texts: list[str]
    load: Callable[[int], tuple[np.ndarray, int]]  # samples (S_i,) of the i-th, and their rate
    wanted: int  # samples a second that features are computed from
    part: np.ndarray
    sums: dict[str, str]  # {}: the sum of all their sound


def read(config: ConfigDict, say: Callable[[str], None]) -> Utterances:
    """The utterances of config.corpus: `an4`, `digits`, `digits/SPEAKER`, or a folder of own ones.

    Raises:
      UserError: files that are not there, damaged, or of another form.
    """
    name = config.corpus
    if name == "an4":
        return Utterances(*an4.read(config.data_dir))
    say("reading recordings")
    if name.partition("/")[0] == "digits":
        found = Recordings(*digits.read(name, config.data_dir))
    elif (folder := Path(name).expanduser()).is_dir():
        found = Recordings(*recordings.read(folder))
    else:
        raise UserError(f"no corpus of speech {name!r}: an4, digits, or a folder of recordings")
    frames, digest = features.of(found.load, len(found.ids), found.wanted, say)
    same, sums = (found.ids, found.speakers, found.texts), found.sums or {"recordings": digest}
    return Utterances(
        *same, frames, found.part, sound.FRAME_RATE, {}, sums, sample_rate=found.wanted
    )


def with_deltas(frames: np.ndarray, width: int = 2) -> np.ndarray:
    """Frames (T, F) beside their first and second slopes over time, (T, 3 F).

        d_t = sum over k = 1..width of k (c_{t+k} - c_{t-k}) / (2 sum k^2)

    At both ends the first and last frame stand for those that are missing.
    """

    def slope(c: np.ndarray) -> np.ndarray:
        wide = np.pad(c, ((width, width), (0, 0)), mode="edge")
        ahead, back = (
            [wide[width + sign * k : len(wide) - width + sign * k] for k in range(1, width + 1)]
            for sign in (1, -1)
        )
        steps = zip(range(1, width + 1), ahead, back, strict=True)
        return sum(k * (a - b) for k, a, b in steps) / (2 * sum(k * k for k in range(1, width + 1)))

    first = slope(frames)
    return np.concatenate([frames, first, slope(first)], axis=1)


def joined(frames: np.ndarray, count: int) -> np.ndarray:
    """Each `count` frames (T, F) as one step: (ceil(T / count), count F); the last one repeated."""
    missing = -len(frames) % count
    wide = np.pad(frames, ((0, missing), (0, 0)), mode="edge")
    return wide.reshape(len(wide) // count, -1)


def steps_of(frames: np.ndarray, stack: int) -> np.ndarray:
    """What the network reads of frames (T, F), before scaling: deltas, and frames joined."""
    return joined(with_deltas(frames), stack)


def labels_of(utterances: Utterances, kind: str) -> list[tuple[str, ...]]:
    """What each utterance is spelled with: `char`, letters and spaces; `phone`, phones.

    Raises:
      UserError: for phones where the corpus has no dictionary, or a word that is not in it.
    """
    if kind == "char":
        return [tuple(text) for text in utterances.texts]
    if not utterances.phones:
        raise UserError("this corpus has no dictionary of phones: take --config.labels=char")
    spelled = []
    for name, text in zip(utterances.ids, utterances.texts, strict=True):
        for word in text.split():
            if word not in utterances.phones:
                raise UserError(f"the word {word!r} of {name} is not in the dictionary")
        spelled.append(tuple(p for word in text.split() for p in utterances.phones[word]))
    return spelled


def scaled(
    frames: list[np.ndarray], speakers: list[str], by: str, train: np.ndarray
) -> tuple[list[np.ndarray], dict]:
    """Frames with mean 0 and variance 1, and the scaling for the spec.

    Args:
      by: `train`, the mean and deviation of the training part; `speaker`, of each speaker's
        utterances, which needs all of them beforehand; `utterance`, of each by itself.
      train: (N,) which are of the training part.
    """
    whole = Scaling.of(_joined([f for f, own in zip(frames, train, strict=True) if own]))
    if by == "train":
        return [whole.apply(f).astype(np.float32) for f in frames], whole.to_json()
    names = speakers if by == "speaker" else list(range(len(frames)))
    groups: dict = {}
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    found = list(frames)
    for members in groups.values():
        scaling = Scaling.of(_joined([frames[i] for i in members]))
        for i in members:
            found[i] = scaling.apply(frames[i]).astype(np.float32)
    return found, whole.to_json()


def _joined(frames: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(frames).astype(np.float64)
