"""rnnx on the bench: the programs of training, single tokens, sampling and evaluation.

Each function builds the work and returns the call to time, which gives numbers to compare.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rnnx import model, optim, parallel, sample, score, tasks, update
from rnnx.bench.cases import SPEECH_STEPS, SYMBOLS, TEXT_STEPS, Case
from rnnx.data.batches import ScoringWindows
from rnnx.parallel import EVERYWHERE
from rnnx.tasks import network

RATE = 0.1  # of learning


def window_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The random window x, y, both (B, T), that every rival trains on repeatedly."""
    config = case.config
    shape = config.batch_size, config.num_steps + 1
    both = np.random.default_rng(0).integers(0, case.vocab_size, shape).astype(np.int32)
    return both[:, :-1], both[:, 1:]


def batch_of(case: Case) -> dict[str, np.ndarray]:
    """What our task makes of the window; or random utterances, for speech."""
    if not case.speech:
        x, y = window_of(case)
        weight = np.ones(x.shape, np.float32)
        return {"inputs": x, "targets": y, "weight": weight, "fresh": np.zeros(len(x), np.float32)}
    rng, rows = np.random.default_rng(0), case.config.batch_size
    shape = rows, SPEECH_STEPS, len(case.spec["scaling"]["mean"])
    return {
        "inputs": rng.normal(size=shape).astype(np.float32),
        "lengths": np.full(rows, SPEECH_STEPS, np.int32),
        "labels": rng.integers(1, case.vocab_size, (rows, SYMBOLS)).astype(np.int32),
        "label_lengths": np.full(rows, SYMBOLS, np.int32),
        "weight": np.ones(rows, np.float32),
    }


def train(case: Case, windows: int = 1) -> Callable[[], list[float]]:
    """A call of `windows` updates; returns a function that makes it and gives each one's loss."""
    config = case.config
    mesh, task = parallel.batch_mesh(config.batch_size), tasks.of(config)
    graphdef, params = model.split(network.build(config, case.spec))
    carries = score.zero_carries(task, graphdef, params, config.batch_size, mesh)
    opt_state = optim.update_rule(config).init(params)
    state = update.State(*parallel.shard((params, opt_state), mesh, EVERYWHERE), carries)
    updates = update.make_updates(task, config, graphdef, mesh)
    batches = {
        name: parallel.shard_rows(np.stack([a] * windows), mesh, parallel.BATCHES)
        for name, a in batch_of(case).items()
    }
    arguments = np.uint32(0), np.int32(0), np.int32(windows), np.float32(RATE)

    def call() -> list[float]:
        nonlocal state
        state, metrics = updates(state, batches, *arguments)
        nats, _ = metrics["sums"]["nll"]
        return [float(value) / config.batch_size for value in np.asarray(nats)]

    return call


def token(case: Case) -> Callable[[], list[float]]:
    """Reads one token and returns the next one's logits to the host."""
    graphdef, params = model.split(network.build(case.config, case.spec))

    @jax.jit
    def step(params, carries, token):
        logits, carries = model.merge(graphdef, params)(token[None, None], carries)
        return logits[0, 0], carries

    carries = model.merge(graphdef, params).stack.zero_carry(1)
    first = np.int32(1)

    def call() -> list[float]:
        nonlocal carries
        logits, carries = step(params, carries, first)
        return [float(np.asarray(logits)[0])]

    return call


def write(case: Case) -> Callable[[], list[float]]:
    """Writes TEXT_STEPS tokens after the first one, always the likeliest."""
    graphdef, params = model.split(network.build(case.config, case.spec))
    prompt, key = jnp.ones(1, jnp.int32), jax.random.key(0)

    def call() -> list[float]:
        tokens = sample.continuation(
            graphdef, params, prompt, key, length=TEXT_STEPS, temperature=0.0
        )
        return np.asarray(tokens, float).tolist()

    return call


def text(case: Case) -> Callable[[], list[float]]:
    """A piece of text by the full protocol."""
    graphdef, params = model.split(network.build(case.config, case.spec))
    mesh, task = score.local_mesh(), tasks.of(case.config)
    scorer = score.make_scorer(task, graphdef, mesh)
    params = parallel.shard(params, mesh, EVERYWHERE)
    tokens = np.random.default_rng(0).integers(0, case.vocab_size, TEXT_STEPS + 1)

    def call() -> list[float]:
        sums = scorer(params, ScoringWindows(tokens, 1, TEXT_STEPS))
        return [task.scores(sums)["nll"]]

    return call


def splits(case: Case, apart: bool = False) -> Callable[[], list[float]]:
    """Two texts by the full protocol, as two rows of a batch, or one after the other."""
    graphdef, params = model.split(network.build(case.config, case.spec))
    task = tasks.of(case.config)
    scorer = score.make_splits_scorer(task, graphdef)
    params = parallel.shard(params, score.local_mesh(), EVERYWHERE)
    tokens = np.random.default_rng(0).integers(0, case.vocab_size, (2, TEXT_STEPS + 1))
    texts = [ScoringWindows(row, 1, TEXT_STEPS) for row in tokens]
    groups = [[text] for text in texts] if apart else [texts]

    def call() -> list[float]:
        sums = [found for group in groups for found in scorer(params, group)]
        return [task.scores(found)["nll"] for found in sums]

    return call


def hear(case: Case) -> Callable[[], list[float]]:
    """An utterance, read whole, to log probabilities on the host."""
    graphdef, params = model.split(network.build(case.config, case.spec))
    task = tasks.of(case.config)
    batch = {name: a[:1] for name, a in batch_of(case).items()}

    @jax.jit
    def read(params, batch):
        return task.predict(model.merge(graphdef, params), batch, ())[0]["log_p"]

    return lambda: [float(np.asarray(read(params, batch))[0, 0, 0])]


def sgemm(size: int) -> Callable[[], list[float]]:
    """A square float32 product."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: [float(product(a, a)[0, 0])]


def read(size: int) -> Callable[[], list[float]]:
    """One pass over so many floats."""
    a = jnp.ones(size, jnp.float32)
    total = jax.jit(jnp.sum)
    return lambda: [float(total(a))]
