"""State to disk and back: bits, kinds, the newest, the best."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnx.checkpoint import Checkpoints, read_epochs
from rnnx.errors import UserError


def state(value: float) -> dict:
    return {
        "params": {"stack.layers.0.blocks.0.U": jnp.full((3, 4), value), "b": jnp.zeros(4)},
        "opt_state": ((), (jnp.int32(7), {"b": jnp.full(4, np.float32(1 / 3))})),
        "carries": ((jnp.full((2, 5), value),),),
    }


def test_newest_state_and_progress_come_back_bit_by_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_latest(state(0.0)) is None
    for step in (1, 2, 3):
        checkpoints.save_latest(step, state(step / 3), {"step": step, "nats": 0.1 + 0.2})
    checkpoints.close()
    got, progress = Checkpoints(tmp_path).restore_latest(state(0.0))
    assert progress == {"step": 3, "nats": 0.1 + 0.2}
    assert jax.tree.structure(got) == jax.tree.structure(state(0.0))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(state(1.0)), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    assert len(list((tmp_path / "checkpoints" / "latest").iterdir())) <= 2


def test_infinite_scores_survive(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_latest(1, state(0.0), {"best_nll": float("inf")})
    checkpoints.close()
    assert Checkpoints(tmp_path).restore_latest(state(0.0))[1] == {"best_nll": float("inf")}


def test_best_of_a_rolled_back_run_is_dropped(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(5, {"b": jnp.zeros(4)}, {"step": 5})
    checkpoints.save_best(9, {"b": jnp.ones(4)}, {"step": 9})
    assert checkpoints.restore_best({"b": jnp.zeros(4)})[1] == {"step": 9}
    checkpoints.drop_best_behind(5)
    assert checkpoints.restore_best({"b": jnp.zeros(4)})[1] == {"step": 5}
    checkpoints.drop_best_behind(0)
    assert checkpoints.restore_best({"b": jnp.zeros(4)}) is None
    checkpoints.close()


def test_epochs_are_kept_all_and_read_in_order(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (3, 12, 6, 9, 6):
        checkpoints.save_epoch(step, {"b": jnp.full(4, float(step))}, {"epoch": step})
    checkpoints.close()
    found = list(read_epochs(tmp_path, {"b": jnp.zeros(4)}))
    assert [(p["b"][0], info["epoch"]) for p, info in found] == [(s, s) for s in (3, 6, 9, 12)]
    assert list(read_epochs(tmp_path / "nothing", {})) == []


def test_a_step_saved_twice_is_saved_once(tmp_path: Path) -> None:
    """A run rolled back behind its best comes by the same step again."""
    checkpoints = Checkpoints(tmp_path)
    for _ in range(2):
        checkpoints.save_best(5, {"b": jnp.ones(4)}, {"step": 5})
    assert checkpoints.restore_best({"b": jnp.zeros(4)})[1] == {"step": 5}
    checkpoints.close()


def test_a_checkpoint_of_another_shape_is_told_in_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(5, {"b": jnp.ones(4)}, {"step": 5})
    with pytest.raises(UserError, match="does not load") as error:
        checkpoints.restore_best({"other": jnp.zeros(4)})
    assert "\n" not in str(error.value)
    checkpoints.close()
