"""A network step by step, without JAX: the same numbers, several streams, files of other days."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, one_device
from test_export import VOCAB, language

from rnnx import model
from rnnx.errors import UserError
from rnnx.export import onnx
from rnnx.export.functions import exports_of
from rnnx.runtime import Stream

# Written by `python tests/test_runtime.py` once, with format 1; what it gave then lies beside it.
STORED = Path(__file__).with_name("exported_1.step.onnx")
GIVEN = Path(__file__).with_name("exported_1.json")
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (12, 3))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The step of an MI-LSTM of two layers; and its logits (12, 3, V) of TOKENS, by rnnx."""
    folder = tmp_path_factory.mktemp("runtime")
    run = language(folder, "lstm", "mi", 2)
    exports = exports_of(run)
    for function in exports.functions:
        file = folder / f"{function.name}.onnx"
        about = {"format": 1, "function": function.name, "symbols": VOCAB}
        file.write_bytes(onnx.write(function, exports.params, about))
    net = model.merge(run.graphdef, run.params)
    logits, _ = jax.jit(lambda x: net(x, net.stack.zero_carry(3)))(jnp.asarray(TOKENS))
    return folder / "step.onnx", np.asarray(logits)


def test_steps_are_those_of_rnnx(files: tuple) -> None:
    path, expected = files
    one, many = Stream(path), Stream(path, streams=3, threads=2)
    for t, tokens in enumerate(TOKENS):
        y = one.step(tokens[0])
        assert y.shape == (VOCAB,)
        np.testing.assert_allclose(y, expected[t, 0], atol=1e-5)
        np.testing.assert_allclose(many.step(tokens), expected[t], atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next(files: tuple) -> None:
    stream = Stream(files[0])
    first = stream.step(1)
    kept = first.copy()
    stream.step(2)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("steps", [4, 5])
def test_a_reset_is_of_one_stream_or_of_all(files: tuple, steps: int) -> None:
    path, expected = files
    stream = Stream(path, streams=3)
    for tokens in TOKENS[:steps]:
        stream.step(tokens)
    stream.reset(1)
    mixed = TOKENS[steps].copy()
    mixed[1] = TOKENS[0, 1]
    found = stream.step(mixed)
    np.testing.assert_allclose(found[1], expected[0, 1], atol=1e-5)
    np.testing.assert_allclose(found[[0, 2]], expected[steps][[0, 2]], atol=1e-5)
    stream.reset()
    np.testing.assert_allclose(stream.step(TOKENS[0]), expected[0], atol=1e-5)


def test_a_state_may_be_kept_and_set_again(files: tuple) -> None:
    stream = Stream(files[0], streams=3)
    stream.step(TOKENS[0])
    state = stream.state
    found = stream.step(TOKENS[1])
    stream.step(TOKENS[2])
    stream.state = state
    np.testing.assert_array_equal(stream.step(TOKENS[1]), found)


@pytest.mark.parametrize("token", [VOCAB, -1, [1], 1.5, "a"])
def test_a_token_that_is_none_is_refused(files: tuple, token: object) -> None:
    stream = Stream(files[0])
    with pytest.raises((ValueError, TypeError)):
        stream.step(token)


def test_what_is_no_step_is_refused(files: tuple, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes whole sequences"):
        Stream(files[0].with_name("sequence.onnx"))
    with pytest.raises(UserError, match="cannot read"):
        Stream(tmp_path / "nothing.onnx")
    with pytest.raises(ValueError, match="at least 1"):
        Stream(files[0], streams=0)


IMPORTED = """
import sys, time
import numpy
begun = time.process_time()
import rnnx.runtime
seconds = time.process_time() - begun
stream = rnnx.runtime.Stream(sys.argv[1])
assert stream.step(1).shape == (13,)
theirs = {name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names}
print(seconds, *(name for name in theirs if not name.startswith("_")))
"""


def test_neither_jax_nor_anything_else_is_imported(files: tuple) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED, str(files[0])], cwd=ROOT,
                          env=one_device(), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, *modules = done.stdout.split()
    assert {"numpy", "onnxruntime", "rnnx"} <= {*modules}
    assert not {*modules} & {"jax", "jaxlib", "flax", "absl", "onnx", "ml_collections", "scipy"}
    assert float(seconds) < 0.3


def test_a_file_of_another_day_gives_what_it_gave() -> None:
    stream, given = Stream(STORED, streams=3), json.loads(GIVEN.read_text())
    for tokens, expected in zip(given["inputs"], given["outputs"], strict=True):
        np.testing.assert_allclose(stream.step(tokens), expected, atol=1e-5)
    assert stream.about["spec"]["symbols"][:2] == ["0", "1"]


if __name__ == "__main__":
    run = language(ROOT, "rhn", "mi", 1, hidden_size=4)
    exports = exports_of(run)
    about = {"format": 1, "function": "step", "symbols": VOCAB, "spec": run.spec.to_json()}
    STORED.write_bytes(onnx.write(exports.functions[1], exports.params, about))
    stream = Stream(STORED, streams=3)
    found = [np.round(stream.step(tokens).astype(float), 6).tolist() for tokens in TOKENS[:5]]
    given = {"inputs": TOKENS[:5].tolist(), "outputs": found}
    GIVEN.write_text(json.dumps(given, indent=1) + "\n")
