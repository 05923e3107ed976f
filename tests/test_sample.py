"""Text from a model: reproducible, by temperature, round trip with the vocabulary."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import VOCAB, call_module, language_model, run_module
from test_evaluate import trained  # noqa: F401 - a fixture

from rnnx import model, sample
from rnnx.data.vocabulary import Vocabulary


def draw(seed: int = 0, **options) -> np.ndarray:
    _, graphdef, params = language_model()
    prompt = jnp.array([1, 2, 3])
    options = {"length": 200} | options
    return np.asarray(
        sample.continuation(graphdef, params, prompt, jax.random.key(seed), **options)
    )


def test_the_same_seed_writes_the_same_text_and_another_does_not() -> None:
    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def test_temperature_zero_takes_the_likeliest_token_each_time() -> None:
    _, graphdef, params = language_model()
    net, tokens = model.merge(graphdef, params), [1, 2, 3]
    step, carry = jax.jit(lambda token, carry: net(token, carry)), net.stack.zero_carry(1)
    for i in range(12):
        logits, carry = step(jnp.array([[tokens[i]]]), carry)
        if i >= 2:
            tokens.append(int(logits[-1, 0].argmax()))
    assert draw(temperature=0.0)[:10].tolist() == tokens[3:]
    assert np.array_equal(draw(seed=7, top_k=1), draw(temperature=0.0))


def test_draws_follow_the_model_s_distribution() -> None:
    """The first token over many seeds has the softmax's frequencies, at temperature 1 and 2."""
    _, graphdef, params = language_model()
    net = model.merge(graphdef, params)
    logits = net(jnp.array([[1], [2], [3]]), net.stack.zero_carry(1))[0][-1, 0]
    keys = jax.random.split(jax.random.key(0), 4000)
    for temperature in (1.0, 2.0):
        first = jax.vmap(
            lambda key, t=temperature: sample.continuation(
                graphdef, params, jnp.array([1, 2, 3]), key, length=1, temperature=t
            )[0]
        )(keys)
        frequencies = np.bincount(first, minlength=VOCAB) / len(keys)
        np.testing.assert_allclose(
            frequencies, jax.nn.softmax(logits / temperature), atol=4 * 0.5 / np.sqrt(4000)
        )


def test_only_the_likeliest_are_drawn_and_each_of_them() -> None:
    _, graphdef, params = language_model()
    net = model.merge(graphdef, params)
    logits = net(jnp.array([[1], [2], [3]]), net.stack.zero_carry(1))[0][-1, 0]
    first = jax.vmap(
        lambda key: sample.continuation(
            graphdef, params, jnp.array([1, 2, 3]), key, length=1, temperature=2.0, top_k=3
        )[0]
    )(jax.random.split(jax.random.key(0), 300))
    assert set(np.asarray(first)) == set(np.argsort(-logits)[:3].tolist())


def test_a_text_starts_at_a_line_s_end_where_there_is_one() -> None:
    with_lines = Vocabulary("char", ("a", "\n", "b"))
    assert sample.start_of_text(with_lines).tolist() == [1]
    assert sample.start_of_text(Vocabulary("byte", (9, 10, 65))).tolist() == [1]
    assert sample.start_of_text(Vocabulary("word", ("a", "b", "<eos>"))).tolist() == [2]
    assert sample.start_of_text(Vocabulary("char", ("a", "b"))).tolist() == [0]


def test_the_command(trained: Path) -> None:  # noqa: F811
    command = "sample", f"--workdir={trained}", "--prompt=the ", "--length=50"
    first, again = run_module(*command), call_module(*command)
    greedy = call_module(*command, "--temperature=0")
    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout != greedy.stdout
    assert first.stdout.startswith("the ") and len(first.stdout) == 4 + 50 + 1
    unknown = call_module("sample", f"--workdir={trained}", "--prompt=the ÿ")
    assert unknown.returncode == 2 and "ÿ" in unknown.stderr
    assert "Traceback" not in unknown.stderr


@pytest.mark.parametrize("flag", ["--length=0", "--temperature=-1", "--top_k=-2"])
def test_impossible_flags_are_refused(flag: str) -> None:
    done = call_module("sample", "--workdir=nowhere", flag)
    assert done.returncode == 2 and "Traceback" not in done.stderr
