"""The schedules of both papers, and the update rules."""

import jax.numpy as jnp
import numpy as np
import pytest

from rnnx import config as configs
from rnnx import optim


def test_rhn_schedule() -> None:
    config = configs.default()
    config.update(learning_rate=0.2, lr_decay=1.02, flat_epochs=20)
    rates = [optim.learning_rate(config, epoch, 0) for epoch in range(23)]
    assert rates[:20] == [0.2] * 20
    np.testing.assert_allclose(rates[20:], [0.2 / 1.02, 0.2 / 1.02**2, 0.2 / 1.02**3])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_update_rules_clip_and_decay(optimizer: str) -> None:
    config = configs.default()
    config.update(optimizer=optimizer, max_grad_norm=1.0, weight_decay=0.1)
    rule, params = optim.update_rule(config), {"v": jnp.array([1.0, 2.0])}
    direction, _ = rule.update({"v": jnp.array([30.0, 40.0])}, rule.init(params), params)
    expected = {"sgd": [0.6, 0.8], "adam": [1.0, 1.0], "adamw": [1.1, 1.2]}[optimizer]
    np.testing.assert_allclose(direction["v"], expected, rtol=1e-4)
    assert optim.l2(config) == (0.0 if optimizer == "adamw" else 0.1)
