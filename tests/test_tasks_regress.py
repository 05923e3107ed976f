"""Numbers of whole sequences."""

import numpy as np
import pytest

from rnnx.data.series import Labelled
from rnnx.tasks.regress import Regress


def lives(steps: list[np.ndarray] | None, labels: list[float]) -> Labelled:
    """Two sequences to train, one to validate."""
    inputs = [np.zeros((3, 1), np.float32)] * 3
    part = np.array([0, 0, 1], np.int8)
    return Labelled(("a", "b", "c"), inputs, np.array(labels), steps, ("x",), (), part)


def test_knowing_nothing_is_scored_on_last_steps_where_every_step_has_a_number() -> None:
    task, life = Regress(), np.array([2.0, 1.0, 0.0])
    # The mean of the steps, 1, against the last steps, 0: 1, and not their variance, 2/3.
    spec = task.spec_of(lives([life] * 3, [0.0, 0.0, 0.0]))
    assert task.uninformed(spec) == pytest.approx(1.0)
    spec = task.spec_of(lives(None, [1.0, 3.0, 100.0]))
    assert task.uninformed(spec) == pytest.approx(1.0)
