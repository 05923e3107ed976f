"""Scores a trained model on a split, by a protocol that is part of the result's name.

    full      batch 1, zero initial state, every target of the split once: the papers' final
              evaluation. A split of N tokens has N - 1 targets: the first has no predecessor.
              Of piano rolls, each piece by itself.
    batched   the same targets in batch_size contiguous streams, each from the zero state: what
              training watches. Faster; a little worse, and more so for a network that takes long
              to come from the zero state to where training has it: of 24 on PTB characters, 23
              scored within 0.002 bits of `full`, an RHN that takes 12,000 characters 0.085 worse
    mc        Monte-Carlo dropout: K passes, each with masks held from the first token to the last;
              probabilities, not their logarithms, are averaged
    dynamic   dynamic evaluation (Krause et al. 2018, arXiv:1709.07432, eq. 5 to 7): the parameters
              go on learning over the text, each segment scored before it is learned from

    python -m rnnx.evaluate --workdir=DIR --split=test --protocol=full

Appends the score to DIR/evaluations.jsonl. Training uses `full` and `batched` from here.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rnnx import batches, cli, data, model, parallel, workdir
from rnnx.display import Display
from rnnx.errors import UserError
from rnnx.metrics import Score, duration
from rnnx.model import Masks
from rnnx.parallel import EVERYWHERE, ROWS

PROTOCOLS = ("full", "batched", "mc", "dynamic")
Params = dict[str, Array]

FLAGS = flags.FLAGS
_DYNAMIC_EPSILON = 2e-5  # the authors' default
_FULL_STEPS = 256  # time steps a call at batch 1; the score does not depend on it
_AHEAD = 50  # windows that an accelerator is given before one is awaited


def make_scorer(graphdef: Any, mesh: Mesh) -> Callable[..., Score]:
    """Compiles the plain protocols for a mesh: batched on all devices, full on a mesh of one.

    Returns:
      score(params, split, batch_size, num_steps, display=None): the nats of all targets of a
      split, (N,) tokens or pieces, read in batch_size streams, windows of num_steps at a time.
    """

    def step(params, carries, x, y, weight):  # x, y, weight (B, T)
        x, y = jnp.swapaxes(x, 0, 1), jnp.swapaxes(y, 0, 1)
        nll, carries = model.merge(graphdef, params).nll(x, y, carries)
        return jax.lax.psum(jnp.sum(nll * weight.T), parallel.AXIS), carries

    step = parallel.pmapped(
        step, mesh, (EVERYWHERE, ROWS, ROWS, ROWS, ROWS), (EVERYWHERE, ROWS), donate=(1,)
    )

    def score(
        params: Params,
        split: np.ndarray | batches.Pieces,
        batch_size: int,
        num_steps: int,
        display: Display | None = None,
    ) -> Score:
        windows = batches.scoring_windows(split, batch_size, num_steps)
        rows = parallel.rows_of_process(batch_size) if mesh.devices.size > 1 else slice(None)
        ahead = 1 if mesh.devices.flat[0].platform == "cpu" else _AHEAD
        nats: list[Array] = []
        for i, window in enumerate(windows):
            if windows.fresh(i):
                carries = zero_carries(graphdef, params, batch_size, mesh)
            x, y, weight = (parallel.shard_rows(a[rows], mesh) for a in window)
            loss, carries = step(params, carries, x, y, weight)
            nats.append(loss)
            if i % ahead == 0:
                loss.block_until_ready()
                if display:
                    display.update(i + 1)
        return Score(float(np.sum([float(v) for v in nats], dtype=np.float64)), windows.targets)

    return score


def zero_carries(graphdef: Any, params: Params, batch_size: int, mesh: Mesh) -> Any:
    """The zero state of a batch, its rows spread over the mesh."""
    shapes = jax.eval_shape(lambda p: model.merge(graphdef, p).stack.zero_carry(batch_size), params)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    return parallel.shard(zeros, mesh, ROWS)


def local_mesh() -> Mesh:
    """One local device, for batch 1."""
    return parallel.batch_mesh(1, jax.local_devices()[:1])


def full(
    graphdef: Any,
    params: Params,
    split: np.ndarray | batches.Pieces,
    display: Display | None = None,
) -> Score:
    """The `full` protocol on one device."""
    score = make_scorer(graphdef, local_mesh())
    return score(parallel.local_copy(params), split, 1, _FULL_STEPS, display)


def full_windows(split: np.ndarray | batches.Pieces) -> int:
    """How many calls `full` takes: what its progress counts."""
    return len(batches.scoring_windows(split, 1, _FULL_STEPS))


def monte_carlo(
    graphdef: Any,
    params: Params,
    config: ConfigDict,
    tokens: np.ndarray,
    vocab_size: int,
    samples: int,
    seed: int = 0,
    display: Display | None = None,
) -> Score:
    """The `mc` protocol: the samples are rows of one batch, all reading the same text.

    With every dropout at zero it equals `full`.
    """
    rows_at_once = min(samples, 32)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0x6D63), seed)
    net = model.merge(graphdef, params)
    draw = jax.jit(lambda rows: model.draw_masks(key, config, rows, vocab_size))

    @jax.jit
    def step(params: Params, carries: Any, masks: Masks, x: Array, y: Array):  # x, y (1, T)
        rows = jax.tree.leaves(carries)[0].shape[0]
        x, y = (jnp.broadcast_to(a.T, (a.shape[1], rows)) for a in (x, y))
        masks = model.look_up_draws(masks, x)
        nll, carries = model.merge(graphdef, params).nll(x, y, carries, masks)
        return jax.nn.logsumexp(-nll, axis=1), carries

    windows = batches.scoring_windows(tokens, 1, _steps_in_memory(rows_at_once, vocab_size))
    log_p = np.full(len(tokens) - 1, -np.inf)
    for first in range(0, samples, rows_at_once):
        rows = jnp.arange(first, min(first + rows_at_once, samples))
        carries, masks = net.stack.zero_carry(len(rows)), draw(rows)
        done = 0
        for i, (x, y, weight) in enumerate(windows):
            sums, carries = step(params, carries, masks, x, y)
            count = int(weight.sum())
            log_p[done : done + count] = np.logaddexp(
                log_p[done : done + count], np.asarray(sums, np.float64)[:count]
            )
            done += count
            if display:
                display.update((first // rows_at_once) * len(windows) + i + 1)
    return Score(float(-np.sum(log_p - np.log(samples))), len(tokens) - 1)


def dynamic(
    graphdef: Any,
    params: Params,
    config: ConfigDict,
    train: np.ndarray,
    tokens: np.ndarray,
    *,
    rate: float,
    decay: float,
    segment: int,
    statistics: int,
    display: Display | None = None,
) -> Score:
    """The `dynamic` protocol, with the RMS rule and decay to the trained parameters.

        theta += decay * min(RMS / mean(RMS), 1 / decay) * (theta_0 - theta)
                 - rate * gradient / (RMS + epsilon)

    RMS is the root mean square of each parameter's gradient over `statistics` windows of the
    training split (batch as in training, segment long); its mean is over each array first, then
    over arrays, as the authors' code does. Losses are means over targets. With rate = 0 it
    equals `full`.
    """

    gradient = _segment_gradient(graphdef)
    rms = _gradient_rms(gradient, graphdef, params, config, train, segment, statistics)
    mean_rms = jnp.mean(jnp.stack([jnp.mean(r) for r in jax.tree.leaves(rms)]))

    @jax.jit
    def learn(params, params_0, rms, mean_rms, carries, x, y, weight):
        grads, (nats, carries) = gradient(params, carries, x, y, weight)

        def update(p, p_0, g, r):
            pull = decay * jnp.minimum(r / mean_rms, 1 / decay) if decay else 0.0
            return p + pull * (p_0 - p) - rate * g / (r + _DYNAMIC_EPSILON)

        return nats, carries, jax.tree.map(update, params, params_0, grads, rms)

    net = model.merge(graphdef, params)
    params_0, carries, total = params, net.stack.zero_carry(1), 0.0
    for i, window in enumerate(batches.scoring_windows(tokens, 1, segment)):
        nats, carries, params = learn(params, params_0, rms, mean_rms, carries, *window)
        total += float(nats)
        if display:
            display.update(i + 1)
    return Score(total, len(tokens) - 1)


def _segment_gradient(graphdef: Any) -> Callable:
    """(params, carries, x, y, weight), the last three (B, T), to the gradient of the mean nats a
    target, and with it (sum of nats, carries behind the segment)."""

    def mean_nll(params, carries, x, y, weight):
        nll, carries = model.merge(graphdef, params).nll(x.T, y.T, carries)
        nats = jnp.sum(nll * weight.T)
        return nats / jnp.sum(weight), (nats, carries)

    return jax.grad(mean_nll, has_aux=True)


def _gradient_rms(
    gradient: Callable,
    graphdef: Any,
    params: Params,
    config: ConfigDict,
    train: np.ndarray,
    segment: int,
    statistics: int,
) -> Params:
    """Root mean square of each parameter's gradient over the first windows of training."""

    @jax.jit
    def observe(squares, params, carries, x, y):
        grads, (_, carries) = gradient(params, carries, x, y, jnp.ones_like(x, jnp.float32))
        return jax.tree.map(lambda s, g: s + g * g, squares, grads), carries

    windows = batches.Windows(train, config.batch_size, segment)
    count = min(statistics, len(windows))
    squares = jax.tree.map(jnp.zeros_like, params)
    carries = model.merge(graphdef, params).stack.zero_carry(config.batch_size)
    for i in range(count):
        squares, carries = observe(squares, params, carries, *windows[i])
    return jax.tree.map(lambda s: jnp.sqrt(s / count), squares)


def _steps_in_memory(rows: int, vocab_size: int) -> int:
    """Time steps a call so that its logits stay near 64 MB."""
    return max(1, min(_FULL_STEPS, 16_000_000 // (rows * vocab_size)))


# ---------------------------------------------------------------------------- command line


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run to evaluate", required=True)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "which split")
    flags.DEFINE_enum("protocol", "full", PROTOCOLS, "how to score; see above")
    flags.DEFINE_integer("samples", 10, "mc: passes K", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "mc: of the masks", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_float("rate", 5e-5, "dynamic: learning rate", lower_bound=0)
    flags.DEFINE_float("decay", 2e-3, "dynamic: pull to the trained parameters", lower_bound=0)
    flags.DEFINE_integer("segment", 5, "dynamic: targets between updates", lower_bound=1)
    flags.DEFINE_integer(
        "statistics", 500, "dynamic: training windows the RMS is taken over", lower_bound=1
    )
    flags.DEFINE_integer("max_tokens", 0, "0, or score so many targets only", lower_bound=0)
    flags.DEFINE_string("data_dir", "", "raw corpus files, if elsewhere than in training")
    flags.DEFINE_string("corpus", "", "the own file trained on, if it was moved since")


def main() -> None:
    folder = Path(FLAGS.workdir).expanduser()
    run = workdir.open_run(folder)
    config = run.config
    data_dir, display = FLAGS.data_dir or config.data_dir, Display(sys.stderr)
    corpus = data.load(FLAGS.corpus or config.corpus, config.level, data_dir, display.print)
    workdir.check_data(folder, corpus)
    tokens = getattr(corpus, FLAGS.split)
    tokens = batches.capped(tokens, FLAGS.max_tokens)
    if FLAGS.protocol in ("mc", "dynamic") and corpus.level == "roll":
        raise UserError(
            f"protocol {FLAGS.protocol} is for texts: piano rolls have full and batched"
        )

    name, began = f"{FLAGS.split} {FLAGS.protocol}", time.perf_counter()
    score, settings = _score(run, corpus, tokens, display, name)
    display.finish()
    seconds = time.perf_counter() - began
    if not math.isfinite(score.nll):
        raise UserError(f"{name} gives {score.nll} nats: with dynamic, lower --rate")
    line = {
        "format": workdir.FORMAT,
        "split": FLAGS.split,
        "protocol": FLAGS.protocol,
        **settings,
        **score.to_dict(),
        "seconds": round(seconds, 2),
        "checkpoint": run.info,
        "git": workdir.git_revision(),
    }
    try:
        with open(folder / "evaluations.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        print(f"rnnx.evaluate: not kept in {folder}: {error.strerror}", file=sys.stderr)
    print(
        f"{name}: {score.show(config.level)}  (nll {score.nll:.5f} nats, ppl {score.ppl:.3f}, "
        f"bpc {score.bpc:.4f}, {score.tokens:,} targets, {duration(seconds)})"
    )


def _score(
    run: workdir.Run, corpus: data.Corpus, tokens: np.ndarray, display: Display, name: str
) -> tuple[Score, dict]:
    """The score by the protocol that the flags ask for, and the settings that belong to it."""
    config, size = run.config, run.vocabulary.size
    if FLAGS.protocol == "full":
        display.start(name, full_windows(tokens))
        return full(run.graphdef, run.params, tokens, display), {}
    if FLAGS.protocol == "batched":
        shape = (config.batch_size, config.num_steps)
        display.start(name, len(batches.scoring_windows(tokens, *shape)))
        score = make_scorer(run.graphdef, local_mesh())
        settings = {"batch_size": shape[0], "num_steps": shape[1]}
        return score(run.params, tokens, *shape, display), settings
    if FLAGS.protocol == "mc":
        rows = min(FLAGS.samples, 32)
        windows = len(batches.scoring_windows(tokens, 1, _steps_in_memory(rows, size)))
        display.start(name, windows * -(-FLAGS.samples // rows))
        settings = {"samples": FLAGS.samples, "seed": FLAGS.seed}
        score = monte_carlo(
            run.graphdef, run.params, config, tokens, size, display=display, **settings
        )
        return score, settings
    settings = {name: FLAGS[name].value for name in ("rate", "decay", "segment", "statistics")}
    display.start(name, len(batches.scoring_windows(tokens, 1, FLAGS.segment)))
    score = dynamic(
        run.graphdef, run.params, config, corpus.train, tokens, display=display, **settings
    )
    return score, settings


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
