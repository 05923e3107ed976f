"""Exported files and the command: what it writes, compares, refuses and says."""

import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx as library
import onnxruntime
import pytest
from conftest import call_module, small, train, write_text
from flax import nnx
from test_export import VOCAB, language

import rnnx
from rnnx import exported, model, tasks
from rnnx.data.batches import ScoringWindows
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.export import onnx, parity, stablehlo, weights
from rnnx.export.about import readable
from rnnx.export.card import code, plain
from rnnx.export.functions import exports_of
from rnnx.trained import open_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of two epochs."""
    folder = tmp_path_factory.mktemp("export")
    train(small(write_text(folder / "weather.txt"), epochs=2), folder / "run")
    return folder / "run"


def export(run: Path, output: Path, *more: str) -> str:
    """What the command says."""
    form = output.name.partition(".")[2]
    done = call_module(
        "export", f"--workdir={run}", f"--output={output}", f"--format={form}", *more
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(*flags: str) -> str:
    """What the command says when it refuses: one line."""
    done = call_module("export", *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# ---------------------------------------------------------------------------- the command


def test_onnx_by_the_command(trained: Path, tmp_path: Path) -> None:
    told = export(trained, tmp_path / "net.onnx")
    names = {"net.onnx", "net.step.onnx", "net.onnx.md"}
    assert {path.name for path in tmp_path.iterdir()} == names
    scores = [line.split()[2] for line in told.splitlines() if " bpc " in line]
    assert len(scores) == 2 and scores[0] == scores[1]
    # The file alone is enough: names, shapes, vocabulary, config.
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    inputs = {given.name: given.shape for given in session.get_inputs()}
    assert inputs == {"inputs": ["batch", "time"], "state.0": ["batch", 12]}
    assert [given.name for given in session.get_outputs()] == ["outputs", "next_state.0"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["rnnx"])
    run = open_run(trained)
    assert about["spec"] == run.spec.to_json() and about["config"]["depth"] == run.config.depth
    assert str(trained.parent) not in json.dumps(about)
    logits, _ = session.run(None, {"inputs": np.zeros((3, 4), np.int32),
                                   "state.0": np.zeros((3, 12), np.float32)})  # fmt: skip
    net = model.merge(run.graphdef, run.params)
    expected, _ = net(jnp.zeros((4, 3), jnp.int32), net.stack.zero_carry(3))
    np.testing.assert_allclose(logits, jnp.swapaxes(expected, 0, 1), atol=1e-5)
    initial = {tensor.name for tensor in library.load(tmp_path / "net.onnx").graph.initializer}
    assert {"embedding", "layers.0.block1.W", "layers.0.block2.U"} <= initial


def test_eight_bits_say_what_they_cost(trained: Path, tmp_path: Path) -> None:
    told = export(trained, tmp_path / "net.onnx", "--int8", "--split=test", "--max_tokens=100")
    assert "test, 100 targets" in told
    (own,) = (line.split()[2] for line in told.splitlines() if line.startswith("rnnx "))
    dataset = tasks.get("language").load(open_run(trained).config, lambda line: None)
    capped = open_run(trained).config
    capped.eval_tokens = 100
    batches = tasks.get("language").batches(capped, dataset, "test", "batched", slice(None))
    assert own == f"{parity.own_score(open_run(trained), batches) / np.log(2):.4f}"
    (line,) = [line for line in told.splitlines() if "int8" in line]
    assert line.startswith("net.onnx, int8 ") and "WARNING" not in told
    model = library.load(tmp_path / "net.step.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert "MatMulInteger" in kinds and "MatMul" not in kinds
    assert exported.read_onnx(tmp_path / "net.onnx")[1]["weights"] == "int8"


def test_the_card(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "net.onnx")
    card = (tmp_path / "net.onnx.md").read_text()
    result = json.loads((trained / "result.json").read_text())
    parts = ["# net", "weather.txt", "your own data", "protocol `full`", "rnnx.runtime"]
    parts += [
        f"{result['params']:,} parameters",
        f"test, protocol `full`: bpc {result['test']['bpc']:.4f}",
    ]
    parts += [f"valid, protocol `full`: bpc {result['valid']['bpc']:.4f}"]
    assert not [part for part in parts if part not in card]


@pytest.mark.parametrize(
    "output, more, told",
    [
        ("net.bin", [], "must be a file NAME.onnx"),
        ("net.stablehlo", ["--format=stablehlo", "--int8"], "--int8 is for --format=onnx"),
        ("net.onnx", ["--corpus=nowhere"], "neither a corpus nor a file"),
    ],
)
def test_what_cannot_be_is_refused(
    output: str, more: list[str], told: str, trained: Path, tmp_path: Path
) -> None:
    assert told in refused(f"--workdir={trained}", f"--output={tmp_path / output}", *more)
    assert not [*tmp_path.iterdir()]


def test_a_function_that_differs_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LIMIT", 0.0)
    told = refused(f"--workdir={trained}", f"--output={tmp_path / 'net.onnx'}")
    assert "net.onnx differs from rnnx by" in told and not [*tmp_path.iterdir()]


def test_a_difference_is_relative_to_large_numbers_and_infinite_for_nan() -> None:
    one = np.ones(2, np.float32)
    assert parity.difference(one, one + 0.5) == 0.5
    assert parity.difference(100 * one, 101 * one) == pytest.approx(0.01)
    assert parity.difference(one, one * np.nan) == np.inf == parity.difference(one, one[:1])
    assert parity.difference(one * np.nan, one * np.nan) == 0


def test_a_difference_anywhere_is_found(trained: Path) -> None:
    """In one batch of several, or in the state after the last step alone."""
    run = open_run(trained)
    exports = exports_of(run)
    tokens = np.random.default_rng(0).integers(0, run.spec.size, 121)
    batches = ScoringWindows(tokens.astype(np.uint8), 2, 20)

    def wrong(function: int, at: int, output: int) -> Callable:
        """What rnnx gives, but for one output of one call."""
        calls = itertools.count()

        def runner(arrays: dict) -> list[np.ndarray]:
            found = [
                *map(np.array, exports.functions[function].call(exports.params, *arrays.values()))
            ]
            found[output] += 0.5 * (next(calls) == at)
            return found

        return runner

    assert len(batches) == 3
    for at, output in ((0, 0), (1, 0), (2, 1)):
        row = parity.sequences("net", run, exports, wrong(0, at, output), batches)
        assert row.difference >= 0.2, "relative where a number exceeds 1"
    right = parity.sequences("net", run, exports, wrong(0, -1, 0), batches)
    assert right.difference < 1e-6
    assert right.score == pytest.approx(parity.own_score(run, batches), rel=1e-6)
    assert parity.steps("step", exports, wrong(1, 19, 1), batches).difference >= 0.2
    assert parity.steps("step", exports, wrong(1, -1, 0), batches).difference < 1e-5


def test_help() -> None:
    done = call_module("export", "--help")
    assert done.returncode == 0 and "--int8" in done.stdout


# ---------------------------------------------------------------------------- safetensors


def test_safetensors_are_equal_to_the_last_bit(trained: Path, tmp_path: Path) -> None:
    export(trained, file := tmp_path / "net.safetensors")
    run = open_run(trained)
    found, about = weights.read(file)
    assert about["task"] == "language"
    names = readable(run.params)
    assert {names[n]: np.asarray(p).tobytes() for n, p in run.params.items()} == {
        n: p.tobytes() for n, p in found.items()
    }
    whole = run.task.model(run.config, run.spec, nnx.Rngs(9))
    weights.from_safetensors(file, whole)
    assert all(np.array_equal(p, run.params[n]) for n, p in model.split(whole)[1].items())
    layer = rnnx.RHN(run.config.embed_size, 12, depth=2, integration="mi", rngs=nnx.Rngs(9))
    weights.from_safetensors(file, layer, "layers.0")
    assert np.array_equal(layer.params[1]["U"], run.params["stack.layers.0.blocks.1.U"])


def test_safetensors_into_another_layer_are_refused(trained: Path, tmp_path: Path) -> None:
    export(trained, file := tmp_path / "net.safetensors")
    layer = rnnx.RHN(3, 7, depth=2, integration="mi", rngs=nnx.Rngs(9))
    before = jax.tree.map(np.asarray, layer.params)
    with pytest.raises(UserError, match=r"layers\.0\.block1\.\w+ is .*is wanted"):
        weights.from_safetensors(file, layer, "layers.0")
    with pytest.raises(UserError, match=r"has no layers\.5\.block1"):
        weights.from_safetensors(file, layer, "layers.5")
    for ours, theirs in zip(layer.params, before, strict=True):
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


# ---------------------------------------------------------------------------- files not to trust


def written(folder: Path) -> tuple[Path, Path, Path]:
    """A step in ONNX and in StableHLO, and the weights."""
    exports = exports_of(language(folder, "lstm", "additive", 1))
    files = []
    for form in (onnx, stablehlo):
        files.append(folder / f"net.step{form.SUFFIX}")
        about = {"format": 1, "symbols": VOCAB}
        files[-1].write_bytes(form.write(exports.functions[1], exports.params, about))
    files.append(folder / "net.safetensors")
    files[-1].write_bytes(weights.write(exports.params, {"format": 1}))
    return tuple(files)


def load(path: Path) -> object:
    if path.suffix == ".safetensors":
        return weights.read(path)
    return (onnx if path.suffix == ".onnx" else stablehlo).load(path)


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    for path in written(tmp_path):
        good, rng = path.read_bytes(), np.random.default_rng(seed)
        load(path)
        damaged = [b"", good[:100], good[: len(good) // 2], good[:-1], good + b"\0", b"x" * 500]
        for place in rng.integers(0, len(good), 30):
            other = bytes([good[place] ^ 1 << int(rng.integers(8))])
            damaged.append(good[:place] + other + good[place + 1 :])
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(UserError) as error:
                load(path)
            assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    exports = exports_of(language(tmp_path, "lstm", "additive", 1))
    for form in (onnx, stablehlo):
        path = tmp_path / f"new{form.SUFFIX}"
        path.write_bytes(form.write(exports.functions[1], exports.params, {"format": 2}))
        with pytest.raises(UserError, match="install a newer rnnx"):
            load(path)
    path.with_suffix(".safetensors").write_bytes(weights.write(exports.params, {"format": 2}))
    with pytest.raises(UserError, match="format 2"):
        weights.read(path.with_suffix(".safetensors"))


def resealed(path: Path, change: Callable) -> None:
    """Changes a model and seals it again, as a forger would."""
    model = library.load(path, load_external_data=False)
    del model.metadata_props[1:]
    change(model)
    path.write_bytes(exported.seal(model.SerializeToString()))


def test_onnx_that_reads_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))

    def outside(model: library.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = library.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")

    path, *_ = written(tmp_path)
    resealed(path, lambda model: None)
    load(path)  # sealed again, it is as good as before
    resealed(path, outside)
    with pytest.raises(UserError, match="refers to other files"):
        load(path)


def test_onnx_with_operators_of_others_is_refused(tmp_path: Path) -> None:
    def foreign(model: library.ModelProto) -> None:
        model.graph.node[0].domain = "com.someone"

    path, *_ = written(tmp_path)
    resealed(path, foreign)
    with pytest.raises(UserError, match="operators that are not ONNX's own"):
        load(path)


def test_stablehlo_that_calls_other_code_is_refused(tmp_path: Path) -> None:
    _, path, *_ = written(tmp_path)
    like = jax.ShapeDtypeStruct((2,), np.float32)
    calling = jax.jit(lambda x: [jax.ffi.ffi_call("someone_s", like)(x)])
    allowed = [jax.export.DisabledSafetyCheck.custom_call("someone_s")]
    function = jax.export.export(calling, disabled_checks=allowed)(like).serialize()
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"function": bytes(function)}).items():
            archive.writestr(name, content)
        archive.comment = b"0" * 64
    path.write_bytes(stablehlo.seal(path.read_bytes()[:-64]))
    with pytest.raises(UserError, match="calls someone_s: not loaded"):
        load(path)


def test_a_vocabulary_of_paths_and_code_stays_text(tmp_path: Path) -> None:
    names = ["../../up", "__import__('os').remove('x')", "$(touch", "|", "`", "<b>"]
    spec = Vocabulary("word", tuple(names))
    exports = exports_of(language(tmp_path, "rnn", "additive", 1))
    told = {"format": 1, "spec": spec.to_json()}
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.write(exports.functions[0], exports.params, told))
    assert exported.read_onnx(path)[1]["spec"]["symbols"] == names
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_names_cannot_write_into_the_card() -> None:
    assert plain("a\n# b [x](y) <i>") == r"a \# b \[x\](y) \<i\>"
    assert code("a` b\n    c") == "a' b c"
