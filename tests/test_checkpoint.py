"""State to disk and back: bits, kinds, the newest, the best."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, one_device

from rnnx import checkpoint
from rnnx.checkpoint import Checkpoints, Damaged, fingerprint, read_best, read_epochs
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
    checkpoints.drop_after(9, best_step=5)
    assert checkpoints.restore_best({"b": jnp.zeros(4)})[1] == {"step": 5}
    checkpoints.drop_after(9, best_step=0)
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


OTHERS = {
    "renamed": ({"other": jnp.zeros(4)}, "b is float32[4] there and absent here"),
    "more": ({"a": jnp.zeros(4), "b": jnp.zeros(4)}, "a is absent there and float32[4] here"),
    "another shape": ({"b": jnp.zeros(5)}, "b is float32[4] there and float32[5] here"),
    "another type": ({"b": jnp.zeros(4, int)}, "b is float32[4] there and int32[4] here"),
    "nested": ({"b": (jnp.zeros(4),)}, "b is float32[4] there and absent here"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_model_is_told_in_one_line_and_no_file_is_moved(kind: str, tmp_path: Path) -> None:
    like, told = OTHERS[kind]
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 9):
        checkpoints.save_best(step, {"b": jnp.ones(4)}, {"step": step})
        checkpoints.save_latest(step, {"b": jnp.ones(4)}, {"step": step})
    checkpoints.close()
    before = sorted(tmp_path.rglob("*"))
    for read in (
        lambda: Checkpoints(tmp_path).restore_latest(like),
        lambda: Checkpoints(tmp_path).best_info(like),
        lambda: read_best(tmp_path, like),
    ):
        with pytest.raises(UserError, match="is not of this model") as error:
            read()
        assert type(error.value) is UserError and told in str(error.value)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_format_is_told_and_no_file_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoints.save_best(5, {"b": jnp.ones(4)}, {"step": 5})
    checkpoints.close()
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(UserError, match="has format 2; this version of rnnx reads format 1"):
        Checkpoints(tmp_path).best_info({"b": jnp.ones(4)})
    assert (tmp_path / "checkpoints" / "best" / "5").is_dir()


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError, RuntimeError])
def test_a_fault_of_ours_is_no_damage(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in reading hits every checkpoint: none may be moved for it."""
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 9):
        checkpoints.save_best(step, {"b": jnp.ones(4)}, {"step": step})
        checkpoints.save_latest(step, {"b": jnp.ones(4)}, {"step": step})
    checkpoints.close()
    before = sorted(tmp_path.rglob("*"))

    def faulty(*_, **__):
        raise error("a fault of ours")

    reader = Checkpoints(tmp_path)
    monkeypatch.setattr("rnnx.checkpoint.ocp.CheckpointManager.restore", faulty)
    for read in (reader.best_info, reader.restore_latest, lambda like: read_best(tmp_path, like)):
        with pytest.raises(error, match="a fault of ours"):
            read({"b": jnp.ones(4)})
    assert sorted(tmp_path.rglob("*")) == before


FOREIGN = {
    "values/metadata": [b"", b"[1, null]", b"{}", b"hello", b"\xff\xfe"],
    "arrays/_METADATA": [b"", b"[1, null]", b"{}", b'{"tree_metadata": 3}', b"\xff\xfe", None],
    "arrays/array_metadatas/process_0": [b"", b"[1, null]", b"\xff\xfe"],
    "arrays/manifest.ocdbt": [b"", b"hello", None],
    "arrays": [None],
    "values": [None],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_missing_or_foreign_file_is_damage(name: str, tmp_path: Path) -> None:
    """All bests are damaged: they are moved away, and the run goes on without one."""
    like = {"U": jnp.ones((3, 4)), "c": ((jnp.zeros(2),),)}
    checkpoints = Checkpoints(tmp_path / "sound")
    checkpoints.save_best(5, like, {"step": 5})
    checkpoints.close()
    for i, content in enumerate(FOREIGN[name]):
        lines: list[str] = []
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "sound", folder)
        file = folder / "checkpoints" / "best" / "5" / name
        if content is not None:
            file.write_bytes(content)
        elif file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()
        with pytest.raises(Damaged, match="best/5 does not load"):
            read_best(folder, like)
        assert Checkpoints(folder, lines.append).best_info(like) is None
        assert len(lines) == 1 and "does not load" in lines[0] and "\n" not in lines[0]
        assert (folder / "checkpoints" / "damaged" / "best-5").is_dir()


def test_a_folder_that_orbax_does_not_open_is_told_in_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(5, {"b": jnp.ones(4)}, {"step": 5})
    checkpoints.close()
    (tmp_path / "checkpoints" / "best" / "5" / "_CHECKPOINT_METADATA").write_text("[1]")
    for read in (lambda: read_best(tmp_path, {}), lambda: Checkpoints(tmp_path)):
        with pytest.raises(UserError, match="best can't be opened") as error:
            read()
        assert "\n" not in str(error.value)


def test_what_loads_but_is_not_what_was_saved_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped bit that leaves files readable, in arrays or in the JSON."""
    like, total = {"b": jnp.ones(4)}, fingerprint({"b": jnp.ones(4).at[2].set(2)})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "fingerprint", lambda arrays: total)
        checkpoints = Checkpoints(tmp_path / "arrays")
        checkpoints.save_best(5, like, {"step": 5})
        checkpoints.close()
    with pytest.raises(Damaged, match="its arrays are not what was saved"):
        read_best(tmp_path / "arrays", like)
    checkpoints = Checkpoints(tmp_path / "json")
    checkpoints.save_best(5, like, {"step": 5})
    checkpoints.close()
    stored = tmp_path / "json" / "checkpoints" / "best" / "5" / "values" / "metadata"
    sound = stored.read_text()
    for old, new in (('"step": 5', '"step": 4'), ('"format": 1', '"format": 3')):
        assert old in sound
        stored.write_text(sound.replace(old, new))
        with pytest.raises(Damaged, match="its JSON is not what was saved"):
            read_best(tmp_path / "json", like)


def test_renamed_keys_in_metadata_are_damage(tmp_path: Path) -> None:
    """A flipped bit makes orbax's readers raise KeyError or AttributeError."""
    like = {"b": jnp.ones(4)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(5, like, {"step": 5})
    checkpoints.close()
    best = tmp_path / "checkpoints" / "best" / "5"
    for name, keys in {
        "arrays/_METADATA": ("tree_metadata", "key_metadata", "key_type", "value_type"),
        "arrays/array_metadatas/process_0": ("array_metadata", "param_name", "write_shape"),
    }.items():
        sound = (best / name).read_text()
        for key in keys:
            (best / name).write_text(sound.replace(f'"{key}"', f'"{key[:-1]}~"'))
            with pytest.raises(Damaged, match="best/5 does not load"):
                read_best(tmp_path, like)
        (best / name).write_text(sound)
    assert read_best(tmp_path, like)[1] == {"step": 5}


def test_checkpoints_without_a_layout_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of earlier versions; the format is the same."""
    like = {"b": jnp.ones(4)}
    checkpoints, dumps = Checkpoints(tmp_path), checkpoint._sum
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sum", lambda values: values.pop("layout") and dumps(values))
        checkpoints.save_best(5, like, {"step": 5})
        checkpoints.close()
    stored = tmp_path / "checkpoints" / "best" / "5" / "values" / "metadata"
    assert "layout" not in stored.read_text()
    assert read_best(tmp_path, like)[1] == {"step": 5}


def test_the_library_leaves_logging_as_it_was() -> None:
    """Entry points silence orbax; an importing program decides for itself."""
    code = (
        "import logging, warnings\n"
        "from absl import logging as absl\n"
        "import orbax.checkpoint\n"
        "seen = lambda: (absl.get_verbosity(), logging.root.level, list(warnings.filters))\n"
        "before = seen()\n"
        "import rnnx.checkpoint\n"
        "assert seen() == before, seen()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=one_device(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_latest_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    """As after a rollback, or an epoch that ends where a checkpoint was due."""
    checkpoints = Checkpoints(tmp_path)
    for k in (0, 1):
        checkpoints.save_latest(5, {"b": jnp.full(4, float(k))}, {"k": k})
    assert checkpoints.restore_latest({"b": jnp.zeros(4)})[1] == {"k": 1}
    checkpoints.close()


def test_three_bests_are_kept_for_a_run_that_was_killed(tmp_path: Path) -> None:
    """Two may have come after the checkpoint that is resumed from."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save_best(step, {"b": jnp.full(4, float(step))}, {"step": step})
    checkpoints.drop_after(9, best_step=1)
    assert checkpoints.restore_best({"b": jnp.zeros(4)})[1] == {"step": 1}
    checkpoints.close()
