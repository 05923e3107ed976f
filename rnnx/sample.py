"""Writes text with a trained model.

    python -m rnnx.sample --workdir=DIR --prompt="the " --length=200 --temperature=0.8 --seed=0

Prints the prompt and its continuation on stdout, nothing else. The same seed writes the same
text.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import Array

from rnnx import cli, model
from rnnx.data.vocabulary import EOS, Vocabulary
from rnnx.errors import UserError
from rnnx.tasks.language import Language
from rnnx.trained import Run, open_run

FLAGS = flags.FLAGS


@partial(jax.jit, static_argnames=("graphdef", "length", "top_k"))
def continuation(
    graphdef: Any,
    params: dict[str, Array],
    prompt: Array,
    key: Array,
    *,
    length: int,
    temperature: Array | float = 1.0,
    top_k: int = 0,
) -> Array:
    """Draws `length` tokens after a prompt, one at a time.

    p(token) is proportional to exp(logit / temperature), over the top_k likeliest tokens only if
    top_k is not 0. Temperature 0 takes the likeliest token each time.

    Args:
      prompt: (P,) token ids, P >= 1, read from the zero state.
      key: of all draws.

    Returns:
      (length,) token ids.
    """
    net = model.merge(graphdef, params)
    logits, carries = net(prompt[:, None], net.stack.zero_carry(1))

    def draw(logits: Array, key: Array) -> Array:  # (V,)
        if top_k:
            least = jax.lax.top_k(logits, min(top_k, logits.size))[0][-1]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        drawn = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6))
        return jnp.where(temperature > 0, drawn, jnp.argmax(logits))

    def body(state: Any, key: Array) -> tuple[Any, Array]:
        logits, carries = state
        token = draw(logits, key)
        logits, carries = net(token[None, None], carries)
        return (logits[0, 0], carries), token

    _, tokens = jax.lax.scan(body, (logits[-1, 0], carries), jax.random.split(key, length))
    return tokens


def start_of_text(vocabulary: Vocabulary) -> np.ndarray:
    """What to read before the first token when there is no prompt: a line's end, if there is one.

    Otherwise the symbol of id 0: a network has to read something before it predicts.
    """
    line_end = {"word": EOS, "char": "\n", "byte": 10}[vocabulary.level]
    known = line_end in vocabulary.symbols
    return vocabulary.encode("\n") if known else np.zeros(1, np.int32)


def sample(
    run: Run, prompt: str, length: int, temperature: float = 1.0, top_k: int = 0, seed: int = 0
) -> str:
    """A prompt and its continuation by a language model; arguments as of `continuation`."""
    vocabulary: Vocabulary = run.spec
    tokens = vocabulary.encode(prompt)
    written = continuation(
        run.graphdef,
        run.params,
        jnp.asarray(tokens if len(tokens) else start_of_text(vocabulary)),
        jax.random.key(seed),
        length=length,
        temperature=temperature,
        top_k=top_k,
    )
    return vocabulary.decode(np.concatenate([tokens, np.asarray(written)]))


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "the run whose best parameters write", required=True)
    flags.DEFINE_string("prompt", "", "text to continue; empty: from the start of a line")
    flags.DEFINE_integer("length", 200, "tokens to write", lower_bound=1)
    flags.DEFINE_float("temperature", 1.0, "below 1 safer, above 1 wilder, 0 greedy", lower_bound=0)
    flags.DEFINE_integer("top_k", 0, "0, or draw among the k likeliest tokens", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0, upper_bound=2**32 - 1)


def main() -> None:
    if not np.isfinite(FLAGS.temperature):
        raise UserError(f"--temperature={FLAGS.temperature} is not a finite number")
    run = open_run(Path(FLAGS.workdir).expanduser())
    if not isinstance(run.task, Language):
        raise UserError(f"{FLAGS.workdir} holds no language model: there is no text to write")
    text = sample(run, FLAGS.prompt, FLAGS.length, FLAGS.temperature, FLAGS.top_k, FLAGS.seed)
    sys.stdout.reconfigure(encoding="utf-8")
    print(text)


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
