"""Windows of a text of any size: every target once, or one line says why not."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnnx import batches
from rnnx.errors import UserError


def told_in_one_line(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 300


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(batch=st.integers(1, 9), steps=st.integers(1, 9), over=st.integers(-12, 12), data=st.data())
def test_sizes_around_a_batch_of_windows(batch: int, steps: int, over: int, data) -> None:
    """N near B T: every target that a stream holds is in exactly one window, or it is refused."""
    n = max(batch * steps + over, 0)
    tokens = np.arange(n)
    try:
        windows = batches.training_windows(tokens, batch, steps, slice(0, batch), 0)
        count = len(windows)
    except UserError as error:
        assert told_in_one_line(error) and n // batch < steps + 1
        return
    length = n // batch
    assert count == (length - 1) // steps >= 1
    seen = []
    for i in range(count):
        x, y = windows[i]
        assert x.shape == y.shape == (batch, steps) and np.array_equal(y, x + 1)
        seen += y.ravel().tolist()
    expected = [b * length + t for b in range(batch) for t in range(1, count * steps + 1)]
    assert sorted(seen) == expected
