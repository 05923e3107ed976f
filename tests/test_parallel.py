"""Two forced CPU devices do what one does, with one all-reduce a step."""

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import run_module, small

from rnnx import batches, corpora, evaluate, model, optim, parallel, update
from rnnx.errors import UserError
from rnnx.parallel import EVERYWHERE
from rnnx.update import State


def run_steps(text: Path, devices: int, steps: int = 6):
    config = small(text)
    corpus = corpora.load(str(text), "char")
    config = model.resolve(config, corpus.vocabulary.size)
    graphdef, params = model.split(model.build(config, corpus.vocabulary.size))
    mesh = parallel.batch_mesh(config.batch_size, jax.devices()[:devices])
    step = update.make_updates(config, graphdef, mesh)
    carries = evaluate.zero_carries(graphdef, params, config.batch_size, mesh)
    opt_state = optim.update_rule(config).init(params)
    state = State(*parallel.shard((params, opt_state), mesh, EVERYWHERE), carries)
    windows = batches.Windows(corpus.train, config.batch_size, config.num_steps)
    history = []
    for i in range(steps):
        x, y = (parallel.shard_rows(a, mesh) for a in windows[i])
        arguments = state, x, y, np.int32(i), np.int32(1), np.float32(0.2)
        if i == 0:
            compiled = step.lower(*arguments).compile().as_text()
        state, values = step(*arguments)
        history.append({k: float(v[0]) for k, v in jax.block_until_ready(values).items()})
    return state, history, compiled


def test_two_devices_give_the_numbers_of_one(text: Path) -> None:
    one, history_1, _ = run_steps(text, 1)
    two, history_2, _ = run_steps(text, 2)
    for a, b in zip(history_1, history_2, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_one_all_reduce_a_step_and_none_in_the_time_loop(text: Path) -> None:
    _, _, program = run_steps(text, 2, steps=1)
    computations = re.split(r"\n(?=\S.*\{$)", program, flags=re.MULTILINE)
    averaging = [c for c in computations if re.search(r" all-reduce(-start)?\(", c)]
    assert len(re.findall(r" all-reduce(-start)?\(", program)) == 1
    # It stands beside the loops forward and backward in time, in the body of the loop of updates.
    assert len(averaging) == 1 and len(re.findall(r" while\(", averaging[0])) >= 2


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size=7 does not divide by 2 devices"):
        parallel.batch_mesh(7)


def test_two_processes_give_the_numbers_of_one(text: Path, tmp_path: Path) -> None:
    """The command line with a coordinator: one workdir, written by the first process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["--config=configs/quickstart.py:tiny", f"--config.corpus={text}"]
    # Several epochs, each with two saves: the barriers of unfinished ones must not meet.
    command += ["--config.max_steps=0", "--config.epochs=5", "--config.num_steps=100"]

    def start(process: int):
        return run_module(
            "train", *command, f"--workdir={tmp_path / 'two'}", "--num_processes=2",
            f"--coordinator=127.0.0.1:{port}", f"--process_id={process}", timeout=120,
        )  # fmt: skip

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(start, range(2))
    one = run_module("train", *command, f"--workdir={tmp_path / 'one'}")
    assert first.returncode == second.returncode == one.returncode == 0, first.stderr
    assert "this model" in first.stdout and "this model" not in second.stdout
    results = [json.loads((tmp_path / d / "result.json").read_text()) for d in ("one", "two")]
    for split in ("valid", "test"):
        a, b = (result[split] for result in results)
        assert a["tokens"] == b["tokens"]
        np.testing.assert_allclose(a["nll"], b["nll"], rtol=1e-5)
    steps = [(tmp_path / d / "metrics.jsonl").read_text().count('"step"') for d in ("one", "two")]
    assert steps[0] == steps[1]
