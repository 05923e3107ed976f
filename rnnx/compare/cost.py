"""What a network costs: seconds of an update, latency, throughput, memory."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rnnx import model, parallel
from rnnx.compare.plan import Speed
from rnnx.display import Display
from rnnx.experiment import Experiment
from rnnx.parallel import BATCHES
from rnnx.trained import Run

_START = 5.0  # seconds of a training process beside its updates, its programs being compiled
_STEPS = 2000  # of which latency is taken
_SECONDS = 2.0  # at most for each measurement


def speed(config: ConfigDict, display: Display) -> Speed:
    """How fast a config trains and validates here; writes nothing.

    The shortest of a few calls each, as other work may run beside it.
    """
    quiet = Display(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(config, Path(folder) / "run", quiet)
    batches, width = experiment.batches, experiment.width
    batches.begin(0)
    count = batches.alike(0, width)
    stacked = {
        name: parallel.shard_rows(a, experiment.mesh, BATCHES)
        for name, a in batches.together(0, count, width).items()
    }
    state, times = experiment.state, []
    began = time.perf_counter()
    while len(times) < 3 and (len(times) < 2 or time.perf_counter() - began < 3 * _SECONDS):
        start = time.perf_counter()
        # At a rate of 0 it cannot diverge, which would end the call early.
        numbers = np.uint32(0), np.int32(0), np.int32(count), np.float32(0)
        state, metrics = experiment.updates(state, stacked, *numbers)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    update = min(times[1:]) / count
    task = experiment.task
    scored = task.batches(experiment.config, experiment.dataset, "valid", "batched", slice(None))
    few = [scored[i] for i in range(min(len(scored), 4))]
    score = experiment.scorers["batched"]
    score(state.params, _Few(few, scored))
    scorings = []
    for _ in range(3):
        start = time.perf_counter()
        score(state.params, _Few(few, scored))
        scorings.append(time.perf_counter() - start)
    validation = min(scorings) * len(scored) / len(few)
    return Speed(_START, update, validation, len(batches))


class _Few:
    """Some batches of many, as a scorer takes them."""

    def __init__(self, batches: list, whole: Any):
        self._batches, self.batch_size = batches, whole.batch_size

    def __iter__(self) -> Any:
        return iter(self._batches)


def latency(run: Run, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Latency in microseconds: of one step with carried state at batch 1 (median and 99th
    percentile; None for a network that reads both ways), and of a whole window; windows a second at
    batch 32.

    Args:
      batch: of the run's task, one row or more.
    """
    net = run.net
    task = run.task
    one = {name: jnp.asarray(np.resize(a, (1, *a.shape[1:]))) for name, a in batch.items()}
    many = {name: jnp.asarray(np.resize(a, (32, *a.shape[1:]))) for name, a in batch.items()}

    @jax.jit
    def window(params, batch):
        net = model.merge(run.graphdef, params)
        rows = jax.tree.leaves(batch)[0].shape[0]
        return task.predict(net, batch, task.zero_carry(net, rows))[0]

    found: dict[str, Any] = {"latency_us": None}
    if not net.stack.bidirectional:
        found["latency_us"] = _step_latency(run, net)
    found["window_us"] = 1e6 * statistics.median(_times(lambda: window(run.params, one), 200))
    found["throughput"] = 32 / statistics.median(_times(lambda: window(run.params, many), 50))
    return found


def _step_latency(run: Run, net: Any) -> dict[str, float]:
    token = hasattr(net, "embedding")
    x = jnp.zeros((1, 1), jnp.int32) if token else jnp.zeros((1, 1, net.stack.in_features))

    @jax.jit
    def step(params, x, carries):
        net = model.merge(run.graphdef, params)
        ys, carries = model.SequenceModel.outputs(net, x, carries)
        return net.project(ys), carries

    carries = net.stack.zero_carry(1)

    def once() -> Any:
        nonlocal carries
        out, carries = step(run.params, x, carries)
        return out

    times = np.array(_times(once, _STEPS)) * 1e6
    return {"p50": float(np.median(times)), "p99": float(np.percentile(times, 99))}


def _times(call: Callable[[], Any], most: int) -> list[float]:
    """Seconds of calls, after one that compiles: so many, or what two seconds allow."""
    jax.block_until_ready(call())
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (len(times) < most and time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


def disk_bytes(folder: Path) -> int:
    """Bytes of the files that hold a run's best parameters."""
    best = folder / "checkpoints" / "best"
    return sum(path.stat().st_size for path in best.rglob("*") if path.is_file())
