"""Where tuning looks, and how the learning rate falls."""

import math

import pytest

from rnnx import config as configs
from rnnx import optim
from rnnx.compare.runs import RANGES, TUNED, proposals, schedule


@pytest.mark.parametrize("count", [4, 8, 16])
def test_proposals_are_spread_over_both_ranges(count: int) -> None:
    """Each half of each range, in the logarithm, gets half of the points, and no two are near."""
    points = proposals(count)
    assert len(points) == count and all(tuple(point) == TUNED for point in points)
    for name, (low, high) in RANGES.items():
        values = [point[name] for point in points]
        assert all(low <= value <= high for value in values)
        middle = math.sqrt(low * high)
        assert abs(sum(value < middle for value in values) - count / 2) <= 1
        assert len(set(values)) == count


def test_more_proposals_begin_with_the_same() -> None:
    assert proposals(8)[:4] == proposals(4)


@pytest.mark.parametrize("epochs", [1, 2, 7, 30])
def test_the_rate_is_constant_for_half_of_the_epochs_and_ends_at_a_tenth(epochs: int) -> None:
    config = configs.default()
    config.update(learning_rate=1.0, **schedule(epochs))
    rates = [optim.learning_rate(config, epoch, 0) for epoch in range(epochs)]
    assert rates[: max(epochs // 2, 1)] == [1.0] * max(epochs // 2, 1)
    if epochs > 1:
        assert rates[-1] == pytest.approx(0.1)
