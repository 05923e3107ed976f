"""Parts drawn of sequences: 0 train, 1 valid, 2 test."""

import numpy as np


def part_classes(
    labels: np.ndarray, part: np.ndarray, valid: float, test: float, rng: np.random.Generator
) -> np.ndarray:
    """Parts (N,) with the same share of each class, at least one where it has three (two).

    part: 2 for sequences of a test file, if there is one; else `test` of all are drawn.
    """
    part, draw_test = part.copy(), not (part == 2).any()
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero((labels == label) & (part == 0)))
        if draw_test:
            count = _share(len(members), test, least=len(members) >= 3)
            part[members[:count]] = 2
            members = members[count:]
        part[members[: _share(len(members), valid, least=len(members) >= 2)]] = 1
    return part


def part_numbers(
    part: np.ndarray, valid: float, test: float, rng: np.random.Generator
) -> np.ndarray:
    """Parts (N,) as `part_classes` draws them, of sequences without a class."""
    return part_classes(np.zeros(len(part), int), part, valid, test, rng)


def _share(count: int, share: float, least: bool) -> int:
    """So many of a class, rounded, and one at least where `least`, but never all."""
    return min(max(round(count * share), int(least)), max(count - 1, 0))
