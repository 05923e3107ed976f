"""Vectors of sentences, learned by writing the sentences around: skip-thought."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from ml_collections import ConfigDict

from rnnx.config import cell_of
from rnnx.data import books
from rnnx.data.batches import Batches
from rnnx.data.sentences import MAX_WORDS
from rnnx.data.sequences import Sequences
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.tasks import transfer
from rnnx.tasks.labelled import batches_of
from rnnx.tasks.measures import perplexity
from rnnx.tasks.network import stack_options
from rnnx.tasks.skip_thought import SIDES, SkipThought
from rnnx.tasks.task import Dataset, Scores, Sums, Task, Unit

_NAMES = ("before", "inputs", "after")


class Sentences(Task):
    """Reads a sentence and writes the one before and the one after it (`SkipThought`).

    Scores: nll, the mean of nats a word of both, `<eos>` among the words; ppl = exp(nll). The cost
    of a row is the sum over the words of both sentences, as in the paper.
    """

    counted = "words"
    spec_file = "vocabulary.json"
    protocols = {"transfer": transfer.score}  # noqa: RUF012

    def check(self, config: ConfigDict) -> None:
        """Refuses what the network does not have."""
        unused = ("tied", "one_hot", "drop_x", "drop_i", "drop_h", "drop_o", "reset_prob")
        if named := [name for name in unused if config[name]]:
            raise UserError(f"the task sentences has no {named[0]}: leave it at its default")

    def load(self, config: ConfigDict, say: Callable[[str], None]) -> Dataset:
        found = books.read(config.corpus, config.data_dir, say)
        parts = books.parts(found)
        known = books.vocabulary(parts["train"], config.vocab_size)
        splits, counts = {}, []
        for name, part in parts.items():
            triples = [t for book in part for t in books.triples(book, known, MAX_WORDS)]
            if not triples:
                raise UserError(
                    f"{config.corpus} is too short: its {name} part has no three sentences in a "
                    f"row of at most {MAX_WORDS} words"
                )
            splits[name] = _sequences(triples)
            counts.append(f"{sum(map(len, part)):,}")
        about = (
            f"{len(found.books):,} books of {' / '.join(counts)} sentences, {known.size:,} words "
            "known; sizes in sentences between two others",
        )
        sizes = tuple(map(len, splits.values()))
        own = {} if config.corpus == "novels" else {"corpus": books.place(config.corpus)}
        return Dataset(config.corpus, splits, known, found.sums, sizes, about, own, tuple(own))

    def at_width(self, config: ConfigDict, spec: Vocabulary, n: int) -> ConfigDict:
        """embed_size 0 becomes n."""
        config = super().at_width(config, spec, n)
        config.embed_size = config.embed_size or n
        return config

    def model(self, config: ConfigDict, spec: Vocabulary, rngs: nnx.Rngs) -> SkipThought:
        return SkipThought(
            cell_of(config),
            spec.size,
            config.embed_size,
            config.hidden_size,
            bidirectional=config.bidirectional,
            rngs=rngs,
            **stack_options(config),
        )

    def masks(
        self, config: ConfigDict, net: Any, key: Array, rows: Array, batch: dict[str, Array]
    ) -> Array | None:
        """The words that stand for all rare ones in an update, (K,): see `SkipThought.sampled`.
        There is no dropout."""
        few, size = config.softmax_sample, net.softmax_bias.shape[0]
        if not few or 2 * few >= size:
            return None
        return few + jax.random.choice(key, size - few, (few,), replace=False)

    def cost(
        self, net: SkipThought, batch: dict[str, Array], carries: Any, masks: Array | None
    ) -> tuple[Array, Any, Sums]:
        """The whole softmax where masks is None, as in every score."""
        before, after = jnp.split(jnp.sum(net.nll(batch, masks), axis=0), 2)
        costs = batch["weight"] * (before + after)
        words = sum(batch[f"{side}_lengths"] for side in SIDES)
        count = jnp.sum(words).astype(jnp.float32)
        return costs, carries, {"nll": (jnp.sum(costs), count)}

    def batches(
        self, config: ConfigDict, dataset: Dataset, split: str, protocol: str, rows: slice
    ) -> Batches:
        sequences = dataset.splits[split].first(0 if protocol == "train" else config.eval_tokens)
        found = batches_of(config, sequences, protocol, rows)
        words = (sequences.whole[f"{side}_lengths"].sum() for side in SIDES)
        found.targets = int(sum(words))
        return found

    def scores(self, sums: Sums) -> Scores:
        known = {name: float(total) / float(count) for name, (total, count) in sums.items()}
        if "nll" not in known:  # of `transfer`
            return known
        words = round(float(sums["nll"][1]))
        return {"nll": known["nll"], "ppl": perplexity(known["nll"]), "words": words}

    def unit(self, config: ConfigDict) -> Unit:
        return Unit("perplexity", "ppl", 2, perplexity, logarithmic=True)

    def uninformed(self, spec: Vocabulary) -> float:
        """Every word equally likely."""
        return math.log(spec.size)

    def baselines(self, config: ConfigDict, dataset: Dataset, split: str) -> dict[str, float]:
        """Every word equally likely; the training split's frequencies, add-one."""
        size = dataset.spec.size
        counts = _counts(dataset.splits["train"], size) + 1.0
        scored = _counts(dataset.splits[split].first(config.eval_tokens), size)
        nats = float(scored @ -np.log(counts / counts.sum()))
        return {"uniform": math.log(size), "word frequencies": nats / float(scored.sum())}

    def spec_to_json(self, spec: Vocabulary) -> dict:
        return spec.to_json()

    def spec_from_json(self, stored: dict) -> Vocabulary:
        return Vocabulary.from_json(stored)


def _sequences(triples: list[tuple[np.ndarray, ...]]) -> Sequences:
    """Triples side by side, each as long as its longest sentence, for which memory is needed."""
    lengths = np.array([[len(ids) for ids in triple] for triple in triples], np.int32)
    longest = lengths.max(axis=1)
    t, steps, whole = np.arange(longest.max()), {}, {}
    for name, parts, own in zip(_NAMES, zip(*triples, strict=True), lengths.T, strict=True):
        padded = np.zeros((len(triples), len(t)), np.int32)
        padded[t < own[:, None]] = np.concatenate(parts)
        steps[name] = np.split(padded[t < longest[:, None]], np.cumsum(longest)[:-1])
        whole[f"{name}_lengths"] = own
    return Sequences(steps, whole)


def _counts(split: Sequences, size: int) -> np.ndarray:
    """How often each word is written."""
    counts = np.zeros(size, np.int64)
    for side in SIDES:
        for ids, length in zip(split.each(side), split.whole[f"{side}_lengths"], strict=True):
            counts += np.bincount(ids[:length], minlength=size)
    return counts
